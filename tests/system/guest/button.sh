# Waits for the power button.
modprobe -q evdev
modprobe -q button
for device in /sys/class/input/event*; do
  if grep -q 'Power Button' "$device/device/name"; then event=/dev/input/${device##*/}; fi
done
[ -n "$event" ] || { fail "no power button"; status=1; }
exec 4<"$event" # who opens it later does not hear what was pressed before
echo "caisson-test: waiting"
head -c 24 <&4 >/tmp/event
echo "caisson-test: pressed"
