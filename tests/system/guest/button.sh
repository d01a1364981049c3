# Waits for the power button.
modprobe -q evdev
modprobe -q button
for device in /sys/class/input/event*; do
  if grep -q 'Power Button' "$device/device/name"; then event=/dev/input/${device##*/}; fi
done
[ -n "$event" ] || { fail "no power button"; status=1; }
echo "caisson-test: waiting"
head -c 24 "$event" >/tmp/event
echo "caisson-test: pressed"
