# SIGTERM presses the power button; the guest powers off by itself.
"$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --initrd "$GUESTS/cloud-amd64/initrd.gz" --append test=button \
  --stop-timeout 60 </dev/null >button.out 2>button.err &
pid=$!
wait_for button.out 'caisson-test: waiting' 300
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
name=button
expect_status 0
grep -q 'caisson-test: pressed' button.out || die "the guest did not see the button"
