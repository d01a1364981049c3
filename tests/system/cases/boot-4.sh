words="cpus=4 least_kib=450000"
boot boot boot --cpus 4 --memory 512M
expect_passed
