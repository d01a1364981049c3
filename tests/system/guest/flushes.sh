# Writes to vda for ever: numbered slots of 4 KiB, each flushed and then told; and noise behind them. The VMM is killed.
size=$(cat /sys/block/vda/size)
noise() {
  i=0
  while :; do
    i=$((i + 1))
    dd if=/dev/urandom of=/dev/vda bs=64k seek=$((256 + i * 37 % (size / 128 - 272))) count=16 conv=notrunc 2>/dev/null
    [ $((i % 3)) = 0 ] && blkdiscard -o $((16777216 + i % 40 * 1048576)) -l 1048576 /dev/vda
    [ $((i % 5)) = 0 ] && sync
  done
}
noise &
start=$(word start)
n=${start:-0}
while :; do
  n=$((n + 1))
  slot=$((n * 7919 % 512 * 8 % 4093))
  echo "slot $slot number $n" | dd of=/dev/vda bs=4096 seek=$slot conv=sync,notrunc,fsync 2>/dev/null && echo "flushed $slot $n"
done
