words="cpus=1 least_kib=80000"
boot boot boot --cpus 1 --memory 128M
expect_passed
