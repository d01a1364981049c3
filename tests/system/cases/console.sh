# A line typed by a pipe reaches the guest, and nothing of what it prints is lost though it powers off right after.
(wait_for console.out 'caisson-test: type' 300; printf 'hello from the host\n'; sleep 1) |
  "$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --initrd "$GUESTS/cloud-amd64/initrd.gz" --append "test=console quiet" \
    >console.out 2>console.err || die "exit status $?"
grep -q 'got <hello from the host>' console.out || die "the line did not arrive"
i=0
while [ "$i" -lt 200 ]; do
  i=$((i + 1))
  grep -q "^line $i \.* end" console.out || die "line $i is missing"
done
grep -q 'caisson-test: PASSED' console.out || die "the last line is missing"
