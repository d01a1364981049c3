# Linux's drivers get what is typed and clicked: psmouse and atkbd, then virtio_input's tablet and keyboard once they are loaded.
flavour=amd64
"$GUESTS/../../tests/system/kernels" "$flavour"
status=0
"$CAISSON" run --kernel "$GUESTS/$flavour/vmlinuz" --initrd "$GUESTS/$flavour/initrd.gz" --append test=input \
  --display --control socket </dev/null >input.out 2>input.err &
pid=$!
trap 'kill -9 "$pid" 2>/dev/null || :' EXIT
wait_for input.out 'ready for mouse' 300
expect_error 1 "$CAISSON" click socket 60000 10
expect_error 2 "$CAISSON" click socket 10 10 --button lower
"$CAISSON" click socket 100 50
wait_for input.out 'ready for keyboard'
"$CAISSON" type socket a
wait_for input.out 'ready for tablet'
# Half-way on the screen of 1024 x 768 that the driver makes.
"$CAISSON" click socket 512 384 --button right
wait_for input.out 'ready for virtio-keyboard'
"$CAISSON" type socket b
status=0
wait "$pid" || status=$?
trap - EXIT
name=input
expect_passed
