# CPUs, memory, clock and the devices every machine has.
cpus=$(nproc)
[ "$cpus" = "$(word cpus)" ] || { fail "$cpus CPUs"; status=1; }
kib=$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)
least=$(word least_kib)
[ "$kib" -ge "$least" ] || { fail "$kib KiB of memory, expected $least"; status=1; }
[ "$(date +%Y)" -ge 2024 ] || { fail "the year is $(date +%Y)"; status=1; }
start=$(cut -d. -f1 /proc/uptime)
sleep 1
[ "$(cut -d. -f1 /proc/uptime)" -gt "$start" ] || { fail "time stands still"; status=1; }
# Every CPU works, and each takes its own timer interrupts.
cpu=0
while [ "$cpu" -lt "$cpus" ]; do
  taskset "$(printf %x $((1 << cpu)))" sh -c 'i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); done' || { fail "CPU $cpu"; status=1; }
  cpu=$((cpu + 1))
done
echo "cpus $cpus memory $kib KiB clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
