# Keyboard and pointer: at the PS/2 ports, then virtio's. The host types and clicks when it is told to.
modprobe -q evdev
modprobe -q bochs # gives the screen a size
# device NAME: its file
device() {
  for d in /sys/class/input/event*; do
    if grep -q "$1" "$d/device/name"; then echo "/dev/input/${d##*/}"; return; fi
  done
}
# gets NAME WHAT EVENTS…: tells the host to begin, and waits until the device has sent these events (TYPE:CODE:VALUE) in this order.
gets() {
  what=$2
  for i in $(seq 30); do # probing takes its time
    file=$(device "$1")
    [ -z "$file" ] || break
    sleep 1
  done
  shift 2
  [ -n "$file" ] || { fail "no device for $what"; status=1; return; }
  cat "$file" >/tmp/events &
  reader=$!
  sleep 1
  echo "caisson-test: ready for $what"
  for i in $(seq 60); do
    sleep 1
    od -An -v -td2 -w24 /tmp/events | awk '$9 != 0 {print $9 ":" $10 ":" $11}' >/tmp/list
    if awk -v wanted="$*" 'BEGIN {n = split(wanted, w, " "); at = 1} $0 == w[at] {++at} END {exit at <= n}' /tmp/list; then break; fi
    [ "$i" -lt 60 ] || { fail "$what: got $(tr '\n' ' ' </tmp/list)"; status=1; }
  done
  kill $reader
  echo "caisson-test: got $what"
}
if modprobe -q psmouse; then
  gets 'PS/2' mouse 2:0:100 2:1:50 1:272:1 1:272:0
fi
gets 'AT .*keyboard' keyboard 1:30:1 1:30:0
modprobe -q virtio_input
gets 'Caisson Virtio Tablet' tablet 3:0:16399 3:1:16404 1:273:1 1:273:0
gets 'Caisson Virtio Keyboard' virtio-keyboard 1:48:1 1:48:0
