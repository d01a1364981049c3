# A kernel's beginning, each block by translator and interpreter: no difference in the time that there is. (./dev check boots
# all of it.)
words="cpus=1 least_kib=200000"
if [ "${LOCKSTEP_WHOLE-}" = 1 ]; then
  boot boot boot --cpus 1 --memory 256M --lockstep
  expect_status 0
else
  "$CAISSON" run --kernel "$GUESTS/$flavour/vmlinuz" --initrd "$GUESTS/$flavour/initrd.gz" --append "test=boot $words" \
    --cpus 1 --memory 256M --net none --lockstep </dev/null >boot.out 2>boot.err &
  pid=$!
  wait_for boot.out 'Memory: ' 300
  kill "$pid"
  kill "$pid"
  wait "$pid" || true
fi
! grep -q lock-step boot.err || die "$(cat boot.err)"
