flavour=rt-amd64
"$GUESTS/../../tests/system/kernels" "$flavour"
words="cpus=2 least_kib=400000"
boot boot boot --cpus 2 --memory 512M
expect_passed
