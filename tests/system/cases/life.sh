# The life of a machine that runs on its own, by its name; the store is this case's own.
kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
vms=$XDG_DATA_HOME/caisson/vms
state() { "$CAISSON" ps -a --json | tr -d ' \n' | sed -n "s/.*\"name\":\"$1\"[^}]*\"state\":\"\([a-z]*\)\".*/\1/p"; }
# state_is NAME STATE: as `ps` shows it.
state_is() { "$CAISSON" ps -a | grep -qE "^$1 +$2 " || die "$1 is not $2: $("$CAISSON" ps -a)"; }
trap '"$CAISSON" rm -f one two 2>/dev/null || :' EXIT

[ "$("$CAISSON" run -d --name one --memory 128M --kernel "$kernel" --initrd "$initrd" --append test=button)" = one ] || die "no name"
state_is one running
expect_error 1 "$CAISSON" run -d --name one --kernel "$kernel"
expect_error 1 "$CAISSON" start one
expect_error 1 "$CAISSON" rm one
expect_error 1 "$CAISSON" resume one
expect_error 1 "$CAISSON" screenshot one screen.png
grep -q 'no display' refused.err || die "not the machine's own answer: $(cat refused.err)"

# Paused, the guest prints nothing and its clock stands.
i=0
until "$CAISSON" logs one | grep -q 'caisson-test: init'; do
  i=$((i + 1))
  [ "$i" -lt 1200 ] || die "the guest does not boot"
  sleep 0.1
done
"$CAISSON" stats --json >stats.json
tr -d ' \n' <stats.json | grep -qE '^\[\{"balloon":\{[^}]*\},"cpu_percent":[0-9.]+,"cpu_seconds":[0-9.]+,"cpus":[0-9]+,"memory_bytes":134217728,"name":"one","resident_bytes":[1-9][0-9]+,"state":"running"\}\]$' ||
  die "stats: $(cat stats.json)"
"$CAISSON" stats | grep -qE '^one +running +[0-9.]+ % ' || die "stats has no table"
(timeout 5 "$CAISSON" top || :) >top.out # once a second, then every other
[ "$(grep -c '^one ' top.out)" -ge 2 ] || die "top does not go on: $(cat top.out)"
expect_error 1 "$CAISSON" stats nobody
"$CAISSON" pause one
state_is one paused
expect_error 1 "$CAISSON" pause one
sleep 0.3
"$CAISSON" logs one >paused-1
sleep 1
"$CAISSON" logs one >paused-2
cmp paused-1 paused-2 || die "a paused guest has printed"
"$CAISSON" resume one
state_is one running

"$CAISSON" logs -f one >followed.out &
follower=$!
wait_for followed.out 'caisson-test: waiting'
(sleep 2) | timeout 20 "$CAISSON" console one >attached.out 2>attached.err &
console=$!
wait_for attached.out 'caisson-test: waiting' 20
"$CAISSON" rename one two
expect_error 1 "$CAISSON" stop one
"$CAISSON" wait two &
waiter=$!
"$CAISSON" stop two 2>stop.err
grep -q 'two: power button pressed; 30 s to shut down' stop.err || die "stop does not say how long: $(cat stop.err)"
wait "$waiter" || die "wait: not the status of a guest that switched itself off"
wait "$console" || die "the console does not end with the machine"
grep -q 'caisson-test: pressed' attached.out || die "the console has not shown the end"
wait "$follower" || :
state_is two stopped
"$CAISSON" wait two || die "wait after the end"

# Again; a guest that does not listen is stopped after the time that it was given; and at once.
"$CAISSON" start two
state_is two running
"$CAISSON" restart -t 0 two
"$CAISSON" kill two
expect_error 1 "$CAISSON" kill two
status=0
"$CAISSON" wait two || status=$?
[ "$status" = 5 ] || die "a guest that was stopped: status $status"
"$CAISSON" rm two
[ -z "$(ls -A "$vms")" ] || die "left in the store: $(ls -A "$vms")"

# A killed VMM: said so, and it starts again.
"$CAISSON" run -d --name one --memory 128M --kernel "$kernel" --initrd "$initrd" --append test=wait >/dev/null
kill -KILL "$("$CAISSON" inspect one | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')"
i=0
until "$CAISSON" ps -a | grep -qE '^one +killed '; do
  i=$((i + 1))
  [ "$i" -lt 100 ] || die "a killed machine: $("$CAISSON" ps -a)"
  sleep 0.1
done
"$CAISSON" start one
state_is one running
"$CAISSON" rm -f one

# A panic is the status of wait. What cannot start is not kept.
"$CAISSON" run -d --name one --memory 128M --kernel "$kernel" --initrd "$initrd" --append test=panic >/dev/null
status=0
timeout 120 "$CAISSON" wait one || status=$?
[ "$status" = 3 ] || die "a panic: status $status"
state_is one panicked
"$CAISSON" rm one
expect_error 1 "$CAISSON" run -d --name one --kernel /nonexistent
[ -z "$(ls -A "$vms")" ] || die "left in the store: $(ls -A "$vms")"

# In the foreground it is a machine like others while it runs.
"$CAISSON" run --memory 128M --kernel "$kernel" --initrd "$initrd" --append test=button </dev/null >front.out 2>front.err &
front=$!
wait_for front.out 'caisson-test: waiting'
name=$("$CAISSON" ps | sed -n 's/^\(vm-[0-9]*\) .*/\1/p')
[ -n "$name" ] || die "not listed: $("$CAISSON" ps -a)"
"$CAISSON" stop "$name" 2>/dev/null
wait "$front" || die "stopped by its name: status $?"
[ -z "$(ls -A "$vms")" ] || die "left in the store: $(ls -A "$vms")"

# A guest that has not booted yet misses the power button; it is pressed again.
"$CAISSON" run -d --name one --memory 128M --kernel "$kernel" --initrd "$initrd" --append test=button >/dev/null
"$CAISSON" stop -t 120 one 2>stop.err
[ "$(wc -l <stop.err)" = 1 ] || die "not by itself: $(cat stop.err)"
"$CAISSON" rm one
