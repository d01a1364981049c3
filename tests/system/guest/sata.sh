# The disk test on Serial ATA disks; then a CD.
for module in ahci sd_mod sr_mod isofs; do modprobe -q "$module"; done
for i in 1 2 3 4 5 6 7 8 9 10; do
  [ -b /dev/sda ] && [ -b /dev/sdb ] && [ -b /dev/sr0 ] && break
  sleep 1
done
# Linux probes disks side by side and names them as they come: one after the other, where it was the wrong way round.
if ! readlink /sys/block/sda | grep -q /ata1/; then
  echo 1 >/sys/block/sda/device/delete
  echo 1 >/sys/block/sdb/device/delete
  for host in 0:sda 1:sdb; do
    echo '- - -' >/sys/class/scsi_host/host${host%%:*}/scan
    for i in 1 2 3 4 5 6 7 8 9 10; do
      [ -b /dev/${host#*:} ] && break
      sleep 1
    done
  done
fi
kind=sd
. /tests/disk.sh
mkdir /tmp/cd
mount -t iso9660 -o ro /dev/sr0 /tmp/cd || { fail "the CD is not mounted"; status=1; }
[ "$(sha256sum /tmp/cd/file | cut -d' ' -f1)" = "$(word cd_sum)" ] || { fail "the CD reads wrong"; status=1; }
umount /tmp/cd
[ "$(blockdev --getsize64 /dev/sda)" = 16777216 ] || { fail "the size of sda"; status=1; }
dmesg | grep -nE 'ata[0-9].*(exception|failed command|SError|timeout|frozen)' >/tmp/bad && { cat /tmp/bad; fail "ATA errors"; status=1; }
