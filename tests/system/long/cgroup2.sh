# CPU limits by control groups of version 2, as systemd delegates them: in a Debian machine, whose kernel and systemd are
# real ones, this caisson runs a machine of its own below a unit with Delegate=yes.
debian_image
trap '"$CAISSON" rm -f outer 2>/dev/null || :' EXIT
"$CAISSON" run -d debian --name outer --cpus 2 --memory 1G --net none >/dev/null
mkdir inner
bin=$(dirname "$CAISSON")
cp "$CAISSON" "$bin/caisson-vmm" "$GUESTS/cloud-amd64/vmlinuz" "$GUESTS/cloud-amd64/initrd.gz" inner/
mkdir inner/lib
ldd "$CAISSON" "$bin/caisson-vmm" | awk '$3 ~ /^\// { print $3 }' | sort -u | grep -v '/lib[cm]\.so' | xargs -I{} cp -L {} inner/lib/
cat >inner/run.sh <<'END'
set -eu
cd /root/inner
export LD_LIBRARY_PATH=$PWD/lib XDG_DATA_HOME=/root/data XDG_RUNTIME_DIR=/run
say() { echo "inner: $*"; }
group=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
mkdir "$group/shell"
echo $$ >"$group/shell/cgroup.procs"
echo +cpu >"$group/cgroup.subtree_control"
say "$(./caisson doctor | grep 'control groups')"
./caisson run -d --name one --memory 128M --net none --kernel vmlinuz --initrd initrd.gz --append "test=limits mebibytes=1" \
  --cpu-cap 40% --cpu-share 200 >/dev/null
say "$(./caisson inspect one | grep cpu_limits_by)"
of=$(ls -d "$group"/*caisson*)
say "max $(cat "$of/cpu.max") weight $(cat "$of/cpu.weight") processes $(wc -l <"$of/cgroup.procs")"
used() { sed -n 's/^usage_usec //p' "$of/cpu.stat"; }
measure() { # the starting kernel is busy enough
  from=$(used) at=$(date +%s%N)
  sleep 10
  say "used $((($(used) - from) * 100000 / ($(date +%s%N) - at))) % of $1"
}
measure 40
./caisson set one --cpu-cap 20%
say "max $(cat "$of/cpu.max")"
measure 20
./caisson set one --cpu-cap none --cpu-share 100
say "max $(cat "$of/cpu.max") weight $(cat "$of/cpu.weight")"
./caisson set one --cpu-cap 20%
./caisson kill one
./caisson rm one
[ ! -e "$of" ] && say "no group is left"
END
tar -c inner | "$CAISSON" exec outer tar -x -C /root
"$CAISSON" exec outer systemd-run -q --wait --pipe -p Delegate=yes sh /root/inner/run.sh >inner.out 2>&1 || die "$(cat inner.out)"
cat inner.out
expect() { grep -q "$1" inner.out || die "\"$1\" is not there"; }
expect 'control groups (version 2)'
expect '"cpu_limits_by": "cgroup"'
expect 'max 40000 100000 weight 200 processes [1-9]'
expect 'max 20000 100000'
expect 'max max 100000 weight 100'
expect 'no group is left'
# (What is left over from before counts as well: a period's worth.)
sed -n 's/.*used \([0-9]*\) % of \([0-9]*\)/\1 \2/p' inner.out | while read -r used cap; do
  [ "$used" -le $((cap + 5)) ] && [ "$used" -ge $((cap / 2)) ] || die "$used % of a CPU where $cap are allowed"
done
