# Debian's cloud kernel, which has no driver for the screen, has a console there.
"$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --initrd "$GUESTS/cloud-amd64/initrd.gz" --append test=display \
  --memory 256M --display --control socket </dev/null >display.out 2>display.err &
pid=$!
trap 'kill -9 "$pid" 2>/dev/null || :' EXIT
wait_for display.out 'ready for tty1' 120
sleep 1
"$CAISSON" screenshot socket screen.png
[ "$(od -An -tu1 -j16 -N8 screen.png | awk '{print $3 * 256 + $4, $7 * 256 + $8}')" = '1024 768' ] || die "not the size it was given"
# A black screen has a thousand times fewer bytes than pixels.
[ "$(wc -c <screen.png)" -gt 2600 ] || die "the screen is black: $(wc -c <screen.png) bytes"
"$CAISSON" type socket 'Hello, tty1!<enter>'
status=0
wait "$pid" || status=$?
trap - EXIT
name=display
expect_passed
