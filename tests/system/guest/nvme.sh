# The disk test on NVMe disks, which Linux names in the order of their slots; then what the controller says and has counted.
modprobe -q nvme
for i in 1 2 3 4 5 6 7 8 9 10; do
  [ -b /dev/nvme0n1 ] && [ -b /dev/nvme1n1 ] && break
  sleep 1
done
# The test's names. Which controller answers first is the one with number 0, so the serial number says which is which.
for controller in nvme0 nvme1; do
  case $(cat "/sys/class/nvme/$controller/serial") in
    caisson-0*) first=$controller ;;
    caisson-1*) second=$controller ;;
  esac
done
for letter in a b; do
  [ $letter = a ] && disk=${first}n1 || disk=${second}n1
  ln -s "/dev/$disk" "/dev/disk$letter"
done
[ "$(blockdev --getsize64 /dev/diska)" = 67108864 ] || { fail "the size of diska"; status=1; }
[ "$(cat "/sys/block/${second}n1/ro")" = 1 ] || { fail "diskb is not read-only"; status=1; }
[ "$(cat "/sys/block/${first}n1/queue/write_cache")" = "write back" ] || { fail "no write cache"; status=1; }
[ "$(sha256sum /dev/diskb | cut -d' ' -f1)" = "$(word vdb_sum)" ] || { fail "diskb reads wrong"; status=1; }
dd if=/dev/zero of=/dev/diskb bs=512 count=1 conv=fsync 2>/dev/null && { fail "diskb can be written"; status=1; }
drop() { echo 3 >/proc/sys/vm/drop_caches; }
# Large and small writes, by both CPUs at once, each by its own queue.
for cpu in 0 1; do
  taskset $((cpu + 1)) dd if=/dev/diskb of=/dev/diska bs=64k seek=$((cpu * 64)) conv=fsync,notrunc 2>/dev/null &
done
wait
drop
for cpu in 0 1; do
  [ "$(dd if=/dev/diska bs=64k skip=$((cpu * 64)) count=64 2>/dev/null | sha256sum | cut -d' ' -f1)" = "$(word vdb_sum)" ] ||
    { fail "what CPU $cpu has written reads wrong"; status=1; }
done
for sector in 1 7 4095 8191; do
  echo "sector $sector" | dd of=/dev/diska bs=512 seek=$((sector + 16384)) conv=sync,fsync,notrunc 2>/dev/null
  drop
  [ "$(dd if=/dev/diska bs=512 skip=$((sector + 16384)) count=1 2>/dev/null | head -n 1)" = "sector $sector" ] ||
    { fail "sector $sector"; status=1; }
done
[ "$(cat "/sys/block/${first}n1/queue/write_zeroes_max_bytes")" -gt 0 ] || { fail "no write zeroes"; status=1; }
[ "$(grep -c "${first}q" /proc/interrupts)" = 3 ] || { grep nvme /proc/interrupts; fail "not a queue for each CPU and one for administration"; status=1; }
# Discards, zeroes: what is there reads as zeroes, what is beside stays.
blkdiscard -o 8388608 -l 1048576 /dev/diska || { fail "discard"; status=1; }
zeroout /dev/diska 4194304 1048576 || { fail "zeroes"; status=1; }
drop
[ "$(dd if=/dev/diska bs=1M skip=4 count=1 2>/dev/null | tr -d '\0' | wc -c)" = 0 ] || { fail "zeroes that are none"; status=1; }
[ "$(dd if=/dev/diska bs=1M count=4 2>/dev/null | sha256sum | cut -d' ' -f1)" = "$(word vdb_sum)" ] || { fail "zeroes too far"; status=1; }
# The controller starts anew while it is used, and nothing is lost.
dd if=/dev/diskb of=/dev/diska bs=4k seek=8192 conv=fsync,notrunc 2>/dev/null &
writer=$!
for i in 1 2 3; do
  echo 1 >"/sys/class/nvme/$first/reset_controller" || { fail "reset $i"; status=1; }
done
wait $writer
drop
[ "$(dd if=/dev/diska bs=4k skip=8192 count=1024 2>/dev/null | sha256sum | cut -d' ' -f1)" = "$(word vdb_sum)" ] ||
  { fail "a reset has lost something"; status=1; }
dmesg | grep -E 'nvme.*(timeout|I/O error|Identify.*failed|Removing|controller is down|globally duplicate|failure)' >/tmp/bad &&
  { cat /tmp/bad; fail "NVMe errors"; status=1; }
dmesg | grep nvme
