words="cpus=2 least_kib=900000"
boot boot boot --cpus 2 --memory 1G
expect_passed
