# Debian's e1000 driver: an address, a file to the guest, the same back by a port forward, the card's own checksums and segments.
flavour=amd64
"$GUESTS/../../tests/system/kernels" "$flavour"
mkdir www
head -c 3000000 /dev/urandom >www/file
free_port
busybox httpd -f -p "127.0.0.1:$port" -h www &
server=$!
trap 'kill $server' EXIT
forward=$((port + 1))
words="port=$port file_sum=$(sha256sum www/file | cut -d' ' -f1)"
(
  wait_for e1000.out 'caisson-test: serving' 300
  busybox wget -q -O back "http://127.0.0.1:$forward/back" && cmp back www/file && touch fetched
  touch www/done
) &
boot e1000 e1000 --net user,model=e1000 -p "$forward:80"
expect_passed
[ -e fetched ] || die "the port forward did not bring the file back"
expect_error 2 "$CAISSON" run --firmware bios --disk www/file --net user,model=ne2000
