boot reset reset --no-reboot
expect_status 4
truncate -s 1M mark.raw
boot again reset --disk mark.raw
expect_status 0
[ "$(grep -c 'caisson-test: init' again.out)" = 2 ] || die "it did not boot twice"
grep -q 'caisson-test: second boot' again.out || die "the second boot did not see the disk's mark"
