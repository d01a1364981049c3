# Across the hole below 4 GiB. Memory that the guest does not touch costs the host nothing.
mib=$(($(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo) / 1024))
size=8192
[ "$mib" -gt 10000 ] || size=4608
[ "$mib" -gt 6000 ] || { echo "skipped: the host has only $mib MiB"; exit 0; }
words="cpus=2 least_kib=$((size * 1024 * 95 / 100))"
boot boot boot --cpus 2 --memory "${size}M"
expect_passed
