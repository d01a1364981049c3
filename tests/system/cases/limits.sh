# Alone: it compares what takes how long, and who gets how much of the CPUs.
# Limits of disk, network and CPUs: at the start, and changed while the machine runs. Rates are compared with wide bounds:
# a limit's time cannot be undercut, without one the same work takes a fraction.
kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
trap '"$CAISSON" rm -f one 2>/dev/null || :' EXIT
head -c 8388608 /dev/urandom >disk.raw
mkfifo keys

# say COMMAND ANSWER: types it on the guest's console, and waits for an answer that was not there before.
say() {
  before=$("$CAISSON" logs one | grep -c "$2" || :)
  echo "$1" >&3
  i=0
  until [ "$("$CAISSON" logs one | grep -c "$2" || :)" -gt "$before" ]; do
    i=$((i + 1))
    [ "$i" -lt 1200 ] || die "no answer to $1: $("$CAISSON" logs -n 5 one)"
    sleep 0.1
  done
}
last_read() { "$CAISSON" logs one | sed -n 's/.*read in \([0-9]*\) ms.*/\1/p' | tail -n 1; }
cpu_of() { "$CAISSON" stats --json "${1-one}" | tr -d ' \n' | sed -n 's/.*"cpu_seconds":\([0-9]*\)\.\([0-9]\).*/\1\2/p'; } # tenths of a second

"$CAISSON" run -d --name one --cpus 2 --memory 128M --kernel "$kernel" --initrd "$initrd" --append "test=limits mebibytes=8" \
  --disk disk.raw,bps=2M,iops=5000 --net user,bps=1M >/dev/null
"$CAISSON" inspect one | tr -d ' \n' >inspect.json
grep -q '"limit":{"bytes_per_s":2097152,"ops_per_s":5000}' inspect.json || die "inspect: $(cat inspect.json)"
grep -q '"net_limit":{"bytes_per_s":1048576,"ops_per_s":0}' inspect.json || die "inspect: $(cat inspect.json)"
"$CAISSON" console one <keys >console.out 2>&1 &
exec 3>keys
i=0
until "$CAISSON" logs one | grep -q 'caisson-test: ready'; do
  i=$((i + 1))
  [ "$i" -lt 1200 ] || die "the guest does not boot"
  sleep 0.1
done

# Disk: 8 MiB at 2 MiB a second. A pause in the middle changes nothing.
before=$("$CAISSON" logs one | grep -c 'read in' || :)
echo read >&3
sleep 1
"$CAISSON" pause one
sleep 1
"$CAISSON" resume one
i=0
until [ "$("$CAISSON" logs one | grep -c 'read in' || :)" -gt "$before" ]; do
  i=$((i + 1))
  [ "$i" -lt 600 ] || die "the disk does not go on after a pause"
  sleep 0.1
done
limited=$(last_read)
[ "$limited" -ge 2000 ] || die "8 MiB at 2 MiB a second, read in $limited ms"
"$CAISSON" set one --disk-limit disk.raw,none 2>set.err
[ ! -s set.err ] || die "set says: $(cat set.err)"
say read 'read in'
[ $(($(last_read) * 2)) -lt "$limited" ] || die "without a limit $(last_read) ms, with one $limited"
"$CAISSON" set one --disk-limit 0,iops=50
say read 'read in' # 128 requests, five of them at once
[ "$(last_read)" -ge 2000 ] || die "128 requests at 50 a second, read in $(last_read) ms"
"$CAISSON" set one --disk-limit 0,none --net-limit none
! "$CAISSON" inspect one | grep -q 'ops_per_s' || die "a limit is left: $("$CAISSON" inspect one)"
expect_error 1 "$CAISSON" set one --disk-limit other.raw,bps=1M
grep -q 'there are: 0 (disk.raw)' refused.err || die "not which there are"
expect_error 2 "$CAISSON" set one --disk-limit 0
expect_error 2 "$CAISSON" set one --net-limit fast
expect_error 2 "$CAISSON" set one --cpu-cap 50
expect_error 2 "$CAISSON" set one --cpu-share 0

# CPUs: two spin, with a quarter of one between them.
say spin 'spinning'
"$CAISSON" set one --cpu-cap 25%
by=vmm
! "$CAISSON" doctor | grep -q 'control groups (version' || by=cgroup
"$CAISSON" inspect one | grep -q "\"cpu_limits_by\": \"$by\"" || die "inspect does not say who keeps the cap"
sleep 1
start=$(cpu_of)
sleep 8
used=$(($(cpu_of) - start)) # stats itself takes a second
echo "25 % by $by: $used tenths of a second in 8 to 10 s"
[ "$used" -ge 12 ] && [ "$used" -le 35 ] || die "25 % of a CPU over 8 to 10 s: $used tenths of a second"
# A pause and its end keep the cap.
"$CAISSON" pause one
"$CAISSON" resume one
start=$(cpu_of)
sleep 4
used=$(($(cpu_of) - start))
[ "$used" -ge 5 ] && [ "$used" -le 21 ] || die "25 % of a CPU over 4 to 6 s, after a pause: $used tenths of a second"
"$CAISSON" set one --cpu-share 50
nice=$(cut -d' ' -f19 "/proc/$("$CAISSON" inspect one | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')/stat")
group=$(cut -d' ' -f2 "$XDG_DATA_HOME/caisson/vms/one/cpu-group" 2>/dev/null || :)
if [ "$by" = vmm ]; then
  [ "$nice" -ge 3 ] || die "half the share has nice $nice"
elif [ -e "$group/cpu.weight" ]; then
  [ "$(cat "$group/cpu.weight") $(cat "$group/cpu.max")" = "50 25000 100000" ] || die "not the limits of $group"
else
  [ "$(cat "$group/cpu.shares") $(cat "$group/cpu.cfs_quota_us")" = "512 25000" ] || die "not the limits of $group"
fi
say stop 'slept [2-9]' # however slowly
"$CAISSON" set one --cpu-cap none
say end 'caisson-test: PASSED'
exec 3>&-
"$CAISSON" wait one
# A group goes with its machine: at the latest the next command removes it.
"$CAISSON" ps -a >/dev/null
[ ! -d "$group" ] || [ -z "$group" ] || die "$group is still there"
if [ "$by" = cgroup ]; then
  "$CAISSON" run -d --name killed --cpu-cap 50% --memory 128M --kernel "$kernel" >/dev/null
  trap '"$CAISSON" rm -f one killed 2>/dev/null || :' EXIT
  "$CAISSON" inspect killed | grep -q '"cpu_limits_by": "cgroup"' || die "a machine does not start in a group"
  group=$(cut -d' ' -f2 "$XDG_DATA_HOME/caisson/vms/killed/cpu-group")
  "$CAISSON" rename killed dead
  trap '"$CAISSON" rm -f one dead 2>/dev/null || :' EXIT
  "$CAISSON" set dead --cpu-cap none
  [ "$(cat "$group/cpu.cfs_quota_us" "$group/cpu.max" 2>/dev/null | cut -d' ' -f1)" = "$([ -e "$group/cpu.max" ] && echo max || echo -1)" ] ||
    die "no cap, and $group has one"
  kill -9 "$("$CAISSON" inspect dead | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')"
  "$CAISSON" wait dead >/dev/null 2>&1 || :
  "$CAISSON" start dead
  [ ! -d "$group" ] || die "the group of a killed machine outlives its next start"
  "$CAISSON" set dead --cpu-share 200
  group=$(cut -d' ' -f2 "$XDG_DATA_HOME/caisson/vms/dead/cpu-group")
  [ -d "$group" ] || die "set made no group"
  "$CAISSON" rm -f dead
  [ ! -d "$group" ] || die "rm leaves $group"
  trap '"$CAISSON" rm -f one 2>/dev/null || :' EXIT
fi
# Where nobody may make groups the VMM keeps the cap, and goes on doing so.
if [ "$by" = cgroup ] && unshare -m true 2>/dev/null; then
  unshare -m sh -c 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"' sh "$CAISSON" run -d --name alone --cpu-cap 50% \
    --memory 128M --kernel "$kernel" --initrd "$initrd" --append "test=limits mebibytes=8" >/dev/null
  trap '"$CAISSON" rm -f one alone 2>/dev/null || :' EXIT
  "$CAISSON" set alone --cpu-cap 10%
  "$CAISSON" inspect alone | grep -q '"cpu_limits_by": "vmm"' || die "without groups: $("$CAISSON" inspect alone)"
  [ ! -e "$XDG_DATA_HOME/caisson/vms/alone/cpu-group" ] || die "there is a group"
  start=$(cpu_of alone)
  sleep 4 # it boots
  used=$(($(cpu_of alone) - start))
  echo "10 % by vmm: $used tenths of a second in 4 to 6 s"
  [ "$used" -ge 1 ] && [ "$used" -le 9 ] || die "10 % of a CPU over 4 to 6 s: $used tenths of a second"
  "$CAISSON" rm -f alone
fi
# What was set is there at the next start.
"$CAISSON" set one --cpu-cap 150% --disk-limit 0,bps=1M
"$CAISSON" inspect one | tr -d ' \n' >inspect.json
grep -q '"cpu_cap_percent":150,"cpu_model":"auto","cpu_share":50' inspect.json || die "not kept: $(cat inspect.json)"
expect_error 1 "$CAISSON" set one --memory-now 64M
# What is not said stays; and what would be done is only said.
"$CAISSON" set one --autostart
"$CAISSON" set one --cpus 1
"$CAISSON" inspect one | grep -q '"autostart": true' || die "set has changed what it was not asked for"
"$CAISSON" set one --memory 64M --net-limit pps=9 --dry-run >dry.out
grep -q '"ops_per_s": 9' dry.out || die "set --dry-run: $(cat dry.out)"
"$CAISSON" rename one two --dry-run >/dev/null
expect_error 1 "$CAISSON" rename one one --dry-run
"$CAISSON" inspect one | grep -q '"memory_bytes": 134217728' || die "--dry-run has changed something"
