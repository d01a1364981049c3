# Commands that race for one machine, names and configurations that are nonsense: one clear line, nothing lost.
kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
config=$XDG_DATA_HOME/caisson/vms/one/config.json
trap '"$CAISSON" rm -f one 2>/dev/null || :' EXIT

for name in ../one .hidden -x 'a b' "$(printf 'a\nb')" "$(printf '\033[31m')" "$(printf 'x%.0s' $(seq 65))"; do
  expect_error 2 "$CAISSON" create --kernel "$kernel" "--name=$name"
  expect_error 1 "$CAISSON" start -- "$name"
done
"$CAISSON" create --name one --memory 128M --kernel "$kernel" --initrd "$initrd" --append test=wait >/dev/null
expect_error 1 "$CAISSON" create --name one --kernel "$kernel"
expect_error 1 "$CAISSON" rename one ../two
expect_error 1 "$CAISSON" rename one one
expect_error 1 "$CAISSON" stop one
expect_error 1 "$CAISSON" pause one
expect_error 1 "$CAISSON" console one

# Of many that start it at once one does.
for i in 1 2 3 4 5 6; do
  (status=0; "$CAISSON" start one 2>"race-$i.err" || status=$?; echo "$status" >"race-$i.status") &
done
wait
[ "$(cat race-*.status | grep -c '^0$')" = 1 ] || die "started $(cat race-*.status | grep -c '^0$') times"
for i in 1 2 3 4 5 6; do
  [ "$(cat race-$i.status)" = 0 ] || [ "$(wc -l <race-$i.err)" = 1 ] || die "not one line: $(cat race-$i.err)"
done
# Of many that remove it one does.
for i in 1 2 3 4; do
  (status=0; "$CAISSON" rm -f one 2>"rm-$i.err" || status=$?; echo "$status" >"rm-$i.status") &
done
wait
[ "$(cat rm-*.status | grep -c '^0$')" = 1 ] || die "removed $(cat rm-*.status | grep -c '^0$') times: $(cat rm-*.err)"
expect_error 1 "$CAISSON" inspect one

"$CAISSON" create --name one --memory 128M --kernel "$kernel" --initrd "$initrd" --append test=wait >/dev/null
cp "$config" good.json
for text in '' '{' '[]' '{"version":1}' '{"version":1,"cpus":"many","memory_bytes":1}' '{"version":99,"future":true}'; do
  printf '%s' "$text" >"$config"
  expect_error 1 "$CAISSON" start one
  grep -q config.json refused.err || die "does not say which file: $(cat refused.err)"
  "$CAISSON" ps -a | grep -qE '^one +broken ' || die "ps: $("$CAISSON" ps -a)"
done
grep -q 'newer version' refused.err || die "does not say that it is newer: $(cat refused.err)"
grep -q 'correct that file' refused.err && die "blames a newer file: $(cat refused.err)"
sed 's/"cpus": [0-9]*/"cpus": 1000/' good.json >"$config"
expect_error 1 "$CAISSON" start one
grep -q '1 to 64' refused.err || die "does not say what is allowed: $(cat refused.err)"
cp good.json "$config"
"$CAISSON" start one
"$CAISSON" rm -f one
