# A console on the screen by Linux's virtio_gpu; what is typed there comes in.
modprobe -q virtio_gpu
for i in $(seq 60); do
  [ -e /sys/class/graphics/fb0/virtual_size ] && break
  sleep 1
done
grep virtio_gpu /proc/fb || { fail "no frame buffer: $(cat /proc/fb)"; status=1; }
[ "$(cat /sys/class/graphics/fb0/virtual_size)" = 1024,768 ] || { fail "its size is $(cat /sys/class/graphics/fb0/virtual_size)"; status=1; }
connector=$(echo /sys/class/drm/card*-Virtual-1)
[ "$(head -n 1 "$connector/modes")" = 1024x768 ] || { fail "its modes are $(tr '\n' ' ' <"$connector/modes")"; status=1; }
[ "$(wc -c <"$connector/edid")" = 128 ] || { fail "no EDID"; status=1; }
# A blank console, then one with text.
printf '\033[9;0]\033[?25l\033[2J' >/dev/tty1
sleep 1
echo "caisson-test: ready for blank"
read -r line </dev/tty1
[ "$line" = blank ] || { fail "tty1 got $line"; status=1; }
for i in 1 2 3 4 5 6 7 8 9 10; do echo "line $i: The quick brown fox jumps over the lazy dog." >/dev/tty1; done
sleep 1
echo "caisson-test: ready for text"
read -r line </dev/tty1
[ "$line" = text ] || { fail "tty1 got $line"; status=1; }
# A pointer above the picture; who has a tablet and draws it himself gets it apart.
modprobe -q virtio_input
cursor &
cursor=$!
read -r line </dev/tty1
[ "$line" = cursor ] || { fail "tty1 got $line"; status=1; }
kill "$cursor"
dmesg | grep -E 'virtio_gpu.*(\*ERROR\*|response 0x12)' >/tmp/bad && { cat /tmp/bad; fail "GPU errors"; status=1; }
dmesg | grep -E 'drm|virtio_gpu'
