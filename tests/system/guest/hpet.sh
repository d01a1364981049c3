# The HPET as the clock: it goes as the RTC does, and timers come.
clock=/sys/devices/system/clocksource/clocksource0
[ "$(cat $clock/current_clocksource)" = hpet ] || { fail "the clock is $(cat $clock/current_clocksource)"; status=1; }
dmesg | grep -i hpet
dmesg | grep -q 'hpet0: 3 comparators, 64-bit 100.000000 MHz counter' || { fail "not what Linux makes of it"; status=1; }
# The RTC has its own time.
rtc() { cat /sys/class/rtc/rtc0/since_epoch; }
first=$(rtc)
while [ "$(rtc)" = "$first" ]; do :; done
a=$(cut -d' ' -f1 /proc/uptime)
first=$(rtc)
sleep 3
while [ "$(rtc)" -lt $((first + 4)) ]; do :; done
b=$(cut -d' ' -f1 /proc/uptime)
passed=$(awk "BEGIN { print int(($b - $a) * 100) }")
[ "$passed" -gt 300 ] && [ "$passed" -lt 500 ] || { fail "4 seconds took $passed hundredths"; status=1; }
