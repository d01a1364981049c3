words="cpus=1 least_kib=200000"
boot boot boot --cpus 1 --memory 256M
expect_passed
