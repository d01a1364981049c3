# caisson-vmm is killed at random moments while a guest writes to a qcow2 disk ($KILLS times; default 3): nothing that the
# guest was told is on the disk is lost, and the image is whole.
"$CAISSON" disk create base.qcow2 64M
"$CAISSON" disk create disk.qcow2 --backing base.qcow2
kills=0
last=0
: >flushed
while [ "$kills" -lt "${KILLS-3}" ]; do
  kills=$((kills + 1))
  "$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --initrd "$GUESTS/cloud-amd64/initrd.gz" --append "test=flushes start=$last quiet" \
    --cpus 2 --memory 128M --disk disk.qcow2 </dev/null >kill.out 2>kill.err &
  pid=$!
  wait_for kill.out '^flushed' 300
  sleep "0.$(($(od -An -N2 -tu2 /dev/urandom) % 90 + 10))"
  vmm=$(cat "/proc/$pid/task/$pid/children")
  # shellcheck disable=SC2086
  kill -KILL $vmm
  status=0
  wait "$pid" || status=$?
  name=kill
  expect_status 5
  # Whole lines only: the last may be cut.
  tr -d '\r' <kill.out | sed -n 's/^flushed \([0-9]*\) \([0-9]*\)$/\1 \2/p' | sed '$d' >>flushed
  last=$(($(tail -n 1 flushed | cut -d' ' -f2) + 1000))
  qemu-img check -f qcow2 disk.qcow2 >check 2>&1 || [ $? = 3 ] || die "kill $kills: $(cat check)"
  "$CAISSON" disk convert disk.qcow2 disk.raw --force
  head -c 16777216 disk.raw | tr -d '\0' | sed -n 's/^slot \([0-9]*\) number \([0-9]*\)$/\1 \2/p' >found
  awk 'NR == FNR { found[$1] = $2; next } { told[$1] = $2; count++ }
    END { for (slot in told) if (found[slot] + 0 < told[slot]) { print "slot " slot ": told " told[slot] ", found " found[slot]; bad = 1 }
      print count " flushes"; exit bad }' found flushed || die "kill $kills lost something"
done
"$CAISSON" disk check --repair disk.qcow2
qemu-img check -q -f qcow2 disk.qcow2
