truncate -s 1M disk.raw
"$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --initrd "$GUESTS/cloud-amd64/initrd.gz" --append test=wait --disk disk.raw \
  </dev/null >first.out 2>first.err &
pid=$!
wait_for first.out 'Linux version' 60
expect_error 1 "$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --disk disk.raw
expect_error 1 "$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --disk disk.raw,ro
wait "$pid"
