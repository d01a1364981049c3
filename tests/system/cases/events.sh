# What happened to machines and what happens now; what commands would do, which do nothing.
kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
vms=$XDG_DATA_HOME/caisson/vms
options="--memory 96M --cpus 1 --kernel $kernel --initrd $initrd"
follower=
trap '[ -z "$follower" ] || kill "$follower" 2>/dev/null || :; "$CAISSON" rm -f one two renamed 2>/dev/null || :' EXIT

# --dry-run first: nothing is there afterwards.
# shellcheck disable=SC2086
"$CAISSON" create --name one $options --append test=wait --dry-run >dry.out
grep -q '^would make one' dry.out || die "create: $(cat dry.out)"
grep -q '"memory_bytes": 100663296' dry.out || die "no configuration: $(cat dry.out)"
# shellcheck disable=SC2086
"$CAISSON" run -d --name one $options --dry-run | grep -q '^would make and start one' || die "run"
[ -z "$(ls -A "$vms" 2>/dev/null)" ] || die "a dry run has made $(ls -A "$vms")"
expect_error 1 "$CAISSON" create --name one --kernel missing --dry-run
expect_error 1 "$CAISSON" create --name one --kernel "$kernel" --disk missing.raw --dry-run
expect_error 2 "$CAISSON" create --name one --kernel "$kernel" --cpus 1000 --dry-run
expect_error 1 "$CAISSON" start one --dry-run

"$CAISSON" events --follow >follow.out &
follower=$!
"$CAISSON" events --follow --json two >two.out &
two=$!
trap 'kill "$follower" "$two" 2>/dev/null || :; "$CAISSON" rm -f one two renamed 2>/dev/null || :' EXIT
sleep 0.5
# shellcheck disable=SC2086
"$CAISSON" create --name one $options --append test=wait >/dev/null
wait_for follow.out '  one  *created' 20
"$CAISSON" start one
wait_for follow.out '  one  *started' 20
for would in 'stop one' 'kill one' 'restart one' 'reset one' 'pause one'; do
  # shellcheck disable=SC2086
  "$CAISSON" $would --dry-run | grep -qx "would $would" || die "$would --dry-run"
done
"$CAISSON" rm -f one --dry-run | grep -q 'would remove one (it runs' || die "rm -f --dry-run"
expect_error 1 "$CAISSON" rm one --dry-run
expect_error 1 "$CAISSON" start one --dry-run
"$CAISSON" ps | grep -q '^one  *running' || die "a dry run has done something: $("$CAISSON" ps -a)"
"$CAISSON" kill one
wait_for follow.out '  one  *exited  .*reason=stopped' 20
"$CAISSON" rename one renamed
wait_for follow.out '  one  *renamed  *name=renamed' 20
"$CAISSON" set renamed --memory 128M
wait_for follow.out '  renamed  *changed' 20

"$CAISSON" events renamed >past.out
grep -q '  renamed  *started' past.out || die "no start in $(cat past.out)"
grep -q '  renamed  *exited' past.out || die "no end in $(cat past.out)"
"$CAISSON" events --json --since 10m | grep -q '"machine":"renamed".*"type":"exited"\|"type":"exited".*"machine":"renamed"\|"detail".*"machine":"renamed"' ||
  die "JSON: $("$CAISSON" events --json)"
[ -z "$("$CAISSON" events --since 0s)" ] || die "news of the past"
expect_error 1 "$CAISSON" events nobody
expect_error 2 "$CAISSON" events --since yesterday
"$CAISSON" rm renamed
wait_for follow.out '  renamed  *removed' 20
[ ! -s two.out ] || die "another machine's events: $(cat two.out)"
# shellcheck disable=SC2086
"$CAISSON" create --name two $options >/dev/null
wait_for two.out '"type":"created"' 20
# One whose reader goes ends, also where nothing more happens.
mkfifo pipe
"$CAISSON" events --follow >pipe &
reader=$!
head -n 1 pipe >first.out &
sleep 0.5
"$CAISSON" rm two
wait_for first.out 'removed' 20
i=0
while [ -e "/proc/$reader" ] && [ "$(cut -d' ' -f3 "/proc/$reader/stat" 2>/dev/null)" != Z ]; do
  i=$((i + 1))
  [ "$i" -lt 100 ] || die "goes on without a reader"
  sleep 0.05
done
