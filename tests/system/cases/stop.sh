# A guest that does not listen is stopped after the time-out.
"$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --append "test=none" --stop-timeout 1 </dev/null >stop.out 2>stop.err &
pid=$!
sleep 1
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
name=stop
[ "$status" = 5 ] || [ "$status" = 3 ] || die "exit status $status"
