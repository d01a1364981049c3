truncate -s 1M a.raw b.raw
words="cpus=1 least_kib=100000"
(boot first wait --memory 256M --cpus 1 --disk a.raw; echo "$status" >first.status) &
one=$!
boot second wait --memory 256M --cpus 1 --disk b.raw
expect_passed
wait "$one"
[ "$(cat first.status)" = 0 ] || die "the first ended with $(cat first.status)"
grep -q 'caisson-test: PASSED' first.out || die "the first did not pass"
