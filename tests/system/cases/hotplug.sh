# Disks and a network card come to a running Debian machine, grow in it and leave it; no rescan in the guest.
debian_image
trap '"$CAISSON" rm -f hot deaf 2>/dev/null || :' EXIT
in_guest() { "$CAISSON" exec hot sh -c "$1"; }
eventually() { in_time 120 "$@"; } # hosts that do much else take their time

truncate -s 64M one.raw two.raw
"$CAISSON" disk create three.qcow2 64M
"$CAISSON" run -d debian --name hot --cpus 2 --memory 512M --net none >/dev/null
eventually in_guest true
in_guest 'ls /sys/class/net | grep -qv lo' && die "a network card from the start"

# A disk: appears, is written, grows, and is given back with what was written.
"$CAISSON" attach hot --disk one.raw
eventually in_guest 'test -b /dev/vdb'
in_guest 'yes caisson | head -c 1000000 >/dev/vdb && sync' || die "cannot write to the disk"
"$CAISSON" disk resize one.raw +64M
eventually in_guest 'test "$(blockdev --getsize64 /dev/vdb)" = 134217728'
[ "$(stat -c %s one.raw)" = 134217728 ] || die "the file has not grown"
in_guest 'echo end | dd of=/dev/vdb bs=512 seek=262143 conv=fsync status=none' || die "cannot write to the new end"
in_guest 'head -c 1000000 /dev/vdb | sha256sum' | cut -d' ' -f1 >sum

# What cannot be.
expect_error 1 "$CAISSON" attach hot --disk one.raw
expect_error 1 "$CAISSON" attach hot --disk ./../"${PWD##*/}"/one.raw
expect_error 1 "$CAISSON" attach hot --disk nothing.raw
expect_error 1 "$CAISSON" attach hot --disk two.raw,bus=sata
expect_error 1 "$CAISSON" disk resize one.raw 1M
expect_error 1 "$CAISSON" detach hot two.raw
expect_error 1 "$CAISSON" detach hot disk.qcow2
expect_error 1 "$CAISSON" detach hot net
expect_error 1 "$CAISSON" attach nobody --disk two.raw
expect_error 2 "$CAISSON" attach hot
expect_error 2 "$CAISSON" attach hot --net tap
expect_error 1 "$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --disk one.raw
"$CAISSON" attach hot --disk two.raw --dry-run | grep -q 'would attach' || die "attach --dry-run"
"$CAISSON" detach hot one.raw --dry-run | grep -q 'would detach' || die "detach --dry-run"
[ "$(in_guest 'ls /dev/vd? | wc -l')" = 2 ] || die "something was attached that should not have been"

# A card: the system gives it an address.
"$CAISSON" attach hot --net user
eventually in_guest 'ip -4 -o addr | grep -q 10\.0\.2\.15'
expect_error 1 "$CAISSON" attach hot --net user

"$CAISSON" attach hot --disk three.qcow2 --disk two.raw,bus=nvme
eventually in_guest 'test -b /dev/vdc -a -b /dev/nvme0n1'
"$CAISSON" disk resize three.qcow2 128M
eventually in_guest 'test "$(blockdev --getsize64 /dev/vdc)" = 134217728'

# Gone in the guest, and the file is free, whole.
"$CAISSON" detach hot one.raw
in_guest 'test ! -e /dev/vdb' || die "the disk is still there"
head -c 1000000 one.raw | sha256sum | cut -d' ' -f1 | cmp - sum || die "what was written is not in the file"
[ "$(tail -c 512 one.raw | head -c 3)" = end ] || die "what was written to its new end is not in the file"
"$CAISSON" disk resize one.raw 256M
"$CAISSON" detach hot two.raw
"$CAISSON" detach hot net
eventually in_guest 'test "$(ls /sys/class/net)" = lo'
"$CAISSON" attach hot --net user,model=e1000,bps=8M
"$CAISSON" inspect hot | tr -d ' \n' | grep -q '"net_limit":{"bytes_per_s":8388608,"ops_per_s":0}' || die "the card has no limit"
# This kernel has no driver for it.
eventually in_guest 'cat /sys/bus/pci/devices/*/device | grep -q 0x100e'

# Rounds of it, while the guest works with another disk.
in_guest 'mkfs.ext4 -q /dev/vdc && mount /dev/vdc /mnt'
in_guest 'for i in $(seq 100); do head -c 100000 /dev/urandom >/mnt/$i; sha256sum /mnt/$i >>/root/sums; test -e /root/enough && break; done
  echo done >/root/worked' &
worker=$!
# Its name may be another each time: the last one is taken as long as somebody in the guest has it open.
round=0
while [ "$round" -lt 20 ]; do
  "$CAISSON" attach hot --disk one.raw
  eventually in_guest 'grep -qx caisson-1 /sys/block/vd*/serial'
  [ $((round % 4)) != 0 ] ||
    in_guest 'dd if=/dev/$(grep -lx caisson-1 /sys/block/vd*/serial | cut -d/ -f4) of=/dev/null bs=1M count=8 status=none'
  "$CAISSON" detach hot one.raw
  round=$((round + 1))
done
in_guest 'touch /root/enough'
wait "$worker" || die "the guest's work was disturbed"
in_guest 'umount /mnt && mount /dev/vdc /mnt && sha256sum --quiet -c /root/sums && umount /mnt' || die "the other disk has suffered"

# The record, and what the next start has: the second disk and the card.
"$CAISSON" events hot | grep -q device_detached || die "no event of it"
"$CAISSON" restart hot 2>/dev/null
eventually in_guest 'test "$(blockdev --getsize64 /dev/vdb)" = 134217728 -a ! -e /dev/vdc'
in_guest 'mount /dev/vdb /mnt && test -s /mnt/1' || die "the disk has not kept its files"
in_guest 'cat /sys/bus/pci/devices/*/device' | grep -q 0x100e || die "the card has not stayed"
# One that was there at the start leaves as well.
in_guest 'umount /mnt'
"$CAISSON" detach hot three.qcow2
in_guest 'test ! -e /dev/vdb' || die "a disk of the start is still there"
"$CAISSON" disk check three.qcow2 || die "the image is damaged"
# Paused it cannot answer; stopped the configuration changes alone.
"$CAISSON" attach hot --disk three.qcow2
"$CAISSON" pause hot
expect_error 1 "$CAISSON" detach hot three.qcow2
"$CAISSON" resume hot
"$CAISSON" kill hot
"$CAISSON" detach hot three.qcow2

# A guest without ACPI: nobody answers, so the disk stays.
"$CAISSON" run -d --name deaf --kernel "$GUESTS/cloud-amd64/vmlinuz" --initrd "$GUESTS/cloud-amd64/initrd.gz" \
  --append "test=deaf acpi=off" --disk two.raw --memory 256M >/dev/null
status=0
timeout 60 "$CAISSON" detach deaf two.raw 2>refused.err || status=$?
[ "$status" = 1 ] && [ "$(wc -l <refused.err)" = 1 ] || die "a guest that does not answer: $status $(cat refused.err)"
grep -q 'has not let go' refused.err || die "$(cat refused.err)"
"$CAISSON" inspect deaf | grep -q two.raw || die "the disk has left the configuration"
expect_error 1 "$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --disk two.raw
