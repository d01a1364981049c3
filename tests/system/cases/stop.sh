# A guest that does not listen to the power button is stopped after the time-out.
"$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --initrd "$GUESTS/cloud-amd64/initrd.gz" --append test=deaf \
  --stop-timeout 1 </dev/null >stop.out 2>stop.err &
pid=$!
wait_for stop.out 'caisson-test: waiting' 300
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
name=stop
expect_status 5
