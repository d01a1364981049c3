# A console on the screen, without a driver for the device; what is typed there comes in.
grep 'EFI VGA' /proc/fb || { fail "no frame buffer: $(cat /proc/fb)"; status=1; }
[ "$(cat /sys/class/graphics/fb0/virtual_size)" = 1024,768 ] || { fail "its size is $(cat /sys/class/graphics/fb0/virtual_size)"; status=1; }
echo "caisson-test: ready for tty1"
printf 'say something: ' >/dev/tty1
read -r line </dev/tty1
[ "$line" = 'Hello, tty1!' ] || { fail "tty1 got $line"; status=1; }
