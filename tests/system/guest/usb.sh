# Two sticks and a tablet at the USB controller: Linux' xhci_hcd, usb-storage and usbhid.
for module in xhci_pci usb_storage sd_mod usbhid hid_generic evdev bochs; do modprobe -q "$module"; done
for i in $(seq 60); do
  [ -b /dev/sda ] && [ -b /dev/sdb ] && break
  sleep 1
done
# The test's names. Sticks answer in any order; the serial number says which is which.
for disk in sda sdb; do
  device=$(readlink -f "/sys/block/$disk/device/../../../..")
  case $(cat "$device/serial") in
    63616973736F6E2D30) first=$disk; port=$device ;; # "caisson-0"
    63616973736F6E2D31) second=$disk ;;
  esac
done
[ -n "$first" ] && [ -n "$second" ] || { ls -l /sys/block; dmesg | grep -iE 'usb|xhci|scsi'; fail "no two sticks"; }
ln -s "/dev/$first" /dev/diska
ln -s "/dev/$second" /dev/diskb
[ "$(cat "$port/speed")" = 5000 ] || { fail "the stick is not at SuperSpeed"; status=1; }
[ "$(blockdev --getsize64 /dev/diska)" = 67108864 ] || { fail "the size of diska"; status=1; }
[ "$(cat "/sys/block/$second/ro")" = 1 ] || { fail "diskb is not read-only"; status=1; }
[ "$(cat "/sys/block/$first/removable")" = 1 ] || { fail "diska is not removable"; status=1; }
[ "$(sha256sum /dev/diskb | cut -d' ' -f1)" = "$(word vdb_sum)" ] || { fail "diskb reads wrong"; status=1; }
dd if=/dev/zero of=/dev/diskb bs=512 count=1 conv=fsync 2>/dev/null && { fail "diskb can be written"; status=1; }
drop() { echo 3 >/proc/sys/vm/drop_caches; }
# Large and small writes, by both CPUs at once.
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
# The driver forgets the controller while a stick is used, and finds all of it again.
dd if=/dev/diskb of=/dev/diska bs=4k seek=8192 conv=fsync,notrunc 2>/dev/null || { fail "write"; status=1; }
controller=$(basename /sys/bus/pci/drivers/xhci_hcd/0*)
echo "$controller" >/sys/bus/pci/drivers/xhci_hcd/unbind
[ -b "/dev/$first" ] && { fail "the stick is still there"; status=1; }
echo "$controller" >/sys/bus/pci/drivers/xhci_hcd/bind
for i in $(seq 30); do
  for disk in sda sdb sdc sdd; do
    [ -b "/dev/$disk" ] && [ "$(cat "/sys/block/$disk/ro")" = 0 ] && [ "$(cat "/sys/block/$disk/size")" = 131072 ] && break 2
  done
  sleep 1
done
[ "$(dd if="/dev/$disk" bs=4k skip=8192 count=1024 2>/dev/null | sha256sum | cut -d' ' -f1)" = "$(word vdb_sum)" ] ||
  { fail "the stick reads wrong after its controller came back"; status=1; }
grep xhci /proc/interrupts
if [ "$(word tablet)" = 1 ]; then
  for i in $(seq 30); do
    grep -q 'Caisson USB Tablet' /proc/bus/input/devices && break
    sleep 1
  done
  grep -A 8 'Caisson USB Tablet' /proc/bus/input/devices
  for d in /sys/class/input/event*; do
    grep -q 'Caisson USB Tablet' "$d/device/name" && file=/dev/input/${d##*/}
  done
  [ -n "$file" ] || { fail "no tablet"; status=1; }
  cat "$file" >/tmp/events &
  reader=$!
  sleep 1
  echo "caisson-test: ready for tablet"
  for i in $(seq 60); do
    sleep 1
    od -An -v -td2 -w24 /tmp/events | awk '$9 != 0 {print $9 ":" $10 ":" $11}' >/tmp/list
    # Half-way on the screen, the right button down and up.
    if awk -v wanted="3:0:16399 3:1:16404 1:273:1 1:273:0" 'BEGIN {n = split(wanted, w, " "); at = 1} $0 == w[at] {++at} END {exit at <= n}' /tmp/list; then break; fi
    [ "$i" -lt 60 ] || { fail "tablet: got $(tr '\n' ' ' </tmp/list)"; status=1; }
  done
  kill $reader
fi
dmesg | grep -E '(xhci_hcd|usb [0-9]|usb-storage|usb_storage|sd [0-9]|hid).*(WARN|ERROR|error|timeout|not responding|unable|reset .*speed|failed|died|FAILED)' |
  grep -vE 'sd .*(Write Protect|FAILED Result|Sense Key|Add. Sense|CDB:)|Data Protect' >/tmp/bad && { cat /tmp/bad; fail "USB errors"; status=1; }
dmesg | grep -E 'usb|xhci' | tail -n 40
