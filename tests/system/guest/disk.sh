# vda (or sda) is writable and empty, vdb is read-only and holds a pattern whose checksum the command line names.
[ "$(sha256sum /dev/${kind-vd}b | cut -d' ' -f1)" = "$(word vdb_sum)" ] || { fail "vdb reads wrong"; status=1; }
if [ "${kind-vd}" = vd ]; then # a SATA disk cannot say that it is read-only
  [ "$(cat /sys/block/vdb/ro)" = 1 ] || { fail "vdb is not read-only"; status=1; }
  dd if=/dev/zero of=/dev/vdb bs=512 count=1 conv=fsync 2>/dev/null && { fail "vdb can be written"; status=1; }
fi
dd if=/dev/${kind-vd}b of=/dev/${kind-vd}a bs=64k conv=fsync 2>/dev/null || { fail "cannot write vda"; status=1; }
echo 3 >/proc/sys/vm/drop_caches
size=$(($(cat /sys/block/${kind-vd}b/size) * 512))
[ "$(head -c "$size" /dev/${kind-vd}a | sha256sum | cut -d' ' -f1)" = "$(word vdb_sum)" ] || { fail "vda reads wrong"; status=1; }
# A virtio disk has a queue for each CPU; what one asks for comes back to it.
if [ "${kind-vd}" = vd ]; then
  [ "$(ls /sys/block/vda/mq | wc -l)" = "$(nproc)" ] || { fail "vda has $(ls /sys/block/vda/mq | wc -l) queues for $(nproc) CPUs"; status=1; }
  cpu=0
  while [ "$cpu" -lt "$(nproc)" ]; do
    [ "$(cat "/sys/block/vda/mq/$cpu/cpu_list")" = "$cpu" ] || { fail "queue $cpu is of CPU $(cat "/sys/block/vda/mq/$cpu/cpu_list")"; status=1; }
    # Both at once, each its own half.
    taskset $((1 << cpu)) dd if=/dev/vdb of=/dev/vda bs=4k count=256 skip=$((256 * cpu)) seek=$((256 * cpu)) iflag=direct oflag=direct conv=notrunc 2>/dev/null &
    cpu=$((cpu + 1))
  done
  wait
  grep -E 'virtio[0-9]+-req' /proc/interrupts
  idle=$(awk '/virtio[0-9]+-req/ { n = 0; for (i = 2; i <= 1 + '"$(nproc)"'; ++i) n += $i; if (n < 100) print $NF }' /proc/interrupts)
  [ -z "$idle" ] || { fail "queues that nothing came from: $idle"; status=1; }
fi
# Single sectors at odd places.
for sector in 1 7 4095 8191; do
  echo "sector $sector" | dd of=/dev/${kind-vd}a bs=512 seek=$((sector + 8192)) conv=sync,fsync,notrunc 2>/dev/null
  echo 3 >/proc/sys/vm/drop_caches
  [ "$(dd if=/dev/${kind-vd}a bs=512 skip=$((sector + 8192)) count=1 2>/dev/null | head -n 1)" = "sector $sector" ] ||
    { fail "sector $sector"; status=1; }
done
# Discarded blocks read as zeroes on a sparse file.
if [ "$(cat /sys/block/${kind-vd}a/queue/discard_max_bytes)" -gt 0 ]; then
  blkdiscard -o 12582912 -l 1048576 /dev/${kind-vd}a || { fail "discard"; status=1; }
fi
sync
