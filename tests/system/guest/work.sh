# A little of everything, on all CPUs at once.
cpu=0
while [ "$cpu" -lt "$(nproc)" ]; do
  (
    i=0
    while [ $i -lt 20 ]; do
      i=$((i + 1))
      # The whole file first: a pipe's stages start in any order.
      head -c 300000 /dev/urandom >"/tmp/random$cpu"
      gzip -1 <"/tmp/random$cpu" | gunzip | cmp - "/tmp/random$cpu" || exit 1
      sha256sum "/tmp/random$cpu" >/dev/null || exit 1
    done
  ) &
  pids="$pids $!"
  cpu=$((cpu + 1))
done
for pid in $pids; do wait "$pid" || { fail "a worker failed"; status=1; }; done
