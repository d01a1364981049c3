# The balloon: memory that the guest frees goes back to the host by itself, and more of it when the host asks.
kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
trap '"$CAISSON" rm -f one 2>/dev/null || :' EXIT
mkfifo keys
"$CAISSON" run -d --name one --memory 512M --kernel "$kernel" --initrd "$initrd" --append test=balloon >/dev/null
"$CAISSON" console one <keys >console.out 2>&1 &
exec 3>keys
resident_mib() { "$CAISSON" stats --json one | tr -d ' \n' | sed -n 's/.*"resident_bytes":\([0-9]*\).*/\1/p' | awk '{ print int($1 / 1048576) }'; }
wait_log() {
  i=0
  until "$CAISSON" logs one | grep -q "$1"; do
    i=$((i + 1))
    [ "$i" -lt 1800 ] || die "the guest does not say $1: $("$CAISSON" logs -n 5 one)"
    sleep 0.1
  done
}
# until_mib COMMAND OPERATOR NUMBER: for a minute at most.
until_mib() {
  i=0
  until [ "$($1)" "$2" "$3" ]; do
    i=$((i + 1))
    [ "$i" -lt 30 ] || die "$1 is $($1), not $2 $3"
    sleep 1
  done
}
wait_log 'caisson-test: filled'
full=$(resident_mib)
echo free >&3
wait_log 'caisson-test: freed'
until_mib resident_mib -le $((full - 150))
echo "200 MiB filled: $full MiB resident; freed: $(resident_mib) MiB"

# What the guest says of itself.
free_mib() { "$CAISSON" stats --json one | tr -d ' \n' | sed -n 's/.*"free_bytes":\([0-9]*\).*/\1/p' | awk '{ print int($1 / 1048576) }'; }
until_mib free_mib -ge 200

# Less, now: the guest counts what is in the balloon as memory no longer.
memory_mib() { "$CAISSON" inspect one | tr -d ' \n' | sed -n 's/.*"balloon":{[^}]*"memory_bytes":\([0-9]*\).*/\1/p' | awk '{ print int($1 / 1048576) }'; }
"$CAISSON" set one --memory-now 300M
until_mib memory_mib -le 300
"$CAISSON" inspect one | grep -q '"target_bytes": 314572800' || die "no target: $("$CAISSON" inspect one)"
"$CAISSON" pause one
"$CAISSON" resume one
"$CAISSON" set one --memory-now 512M
until_mib memory_mib -ge 512
echo use >&3
wait_log 'caisson-test: used'
expect_error 2 "$CAISSON" set one --memory-now lots
echo end >&3
exec 3>&-
wait_log 'caisson-test: PASSED'
"$CAISSON" wait one
"$CAISSON" set one --no-balloon
"$CAISSON" start one
expect_error 1 "$CAISSON" set one --memory-now 300M
grep -q 'no balloon' refused.err || die "not why"
