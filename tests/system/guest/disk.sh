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
