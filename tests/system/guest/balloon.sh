# Fills memory and frees it, and says what the guest has; then waits for the host to change it.
modprobe -q virtio_balloon || { fail "no driver for the balloon"; status=1; }
free_mib() { sed -n 's/^MemFree: *\([0-9]*\) kB/\1/p' /proc/meminfo; }
total_mib() { echo $(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024)); }
echo "caisson-test: total $(total_mib) MiB"
mount -t tmpfs -o size=300m fill /tmp
head -c 209715200 /dev/urandom >/tmp/fill
echo "caisson-test: filled"
read -r command
rm /tmp/fill
echo "caisson-test: freed"
while read -r command; do
  case $command in
    total*) echo "caisson-test: total $(total_mib) MiB" ;;
    use*)
      # Memory that came back can be used.
      head -c 209715200 /dev/zero >/tmp/fill
      [ "$(head -c 209715200 /dev/zero | sha256sum)" = "$(sha256sum </tmp/fill)" ] || { fail "memory lost its content"; status=1; }
      rm /tmp/fill
      echo "caisson-test: used"
      ;;
    end*) break ;;
  esac
done
