# The same by Debian's e1000 driver: the card's own checksums and segments.
flavour=amd64
"$GUESTS/../../tests/system/kernels" "$flavour"
network_case e1000 --net user,model=e1000
expect_error 2 "$CAISSON" run --firmware bios --disk www/file --net user,model=ne2000
