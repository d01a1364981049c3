words="cpus=8 least_kib=450000"
boot boot boot --cpus 8 --memory 512M
expect_passed
