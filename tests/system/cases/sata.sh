# Debian's AHCI driver: two disks and a CD-ROM drive.
flavour=amd64
"$GUESTS/../../tests/system/kernels" "$flavour"
truncate -s 16M sda.raw
head -c 4194304 /dev/urandom >sdb.raw
mkdir tree
head -c 3000001 /dev/urandom >tree/file
xorriso -as mkisofs -quiet -o disc.iso tree
sum=$(sha256sum sdb.raw | cut -d' ' -f1)
words="vdb_sum=$sum cd_sum=$(sha256sum tree/file | cut -d' ' -f1)"
boot sata sata --disk sda.raw,bus=sata --disk sdb.raw,bus=sata --cdrom disc.iso
expect_passed
[ "$(head -c 4194304 sda.raw | sha256sum | cut -d' ' -f1)" = "$sum" ] || die "what the guest wrote is not in the file"
[ "$(sha256sum sdb.raw | cut -d' ' -f1)" = "$sum" ] || die "the other disk has changed"
expect_error 1 "$CAISSON" run --firmware bios --cdrom sda.raw
expect_error 2 "$CAISSON" run --firmware bios --disk sda.raw,bus=scsi
expect_error 2 "$CAISSON" run --firmware bios --disk sda.raw,bus=sata,ro
