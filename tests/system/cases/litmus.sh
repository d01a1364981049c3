# No outcome that x86 forbids (tests/litmus); longer in ./dev check.
words=litmus=${LITMUS-0.5}
boot litmus litmus --cpus 2 --memory 512M
expect_passed
[ "$(grep -c '^litmus ' litmus.out)" = 13 ] || die "not 13 tests"
# Two readers and two writers that really run at once.
words=litmus=${LITMUS-0.5},iriw,mp
boot litmus-4 litmus --cpus 4 --memory 512M
expect_passed
