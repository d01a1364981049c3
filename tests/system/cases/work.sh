boot work work --cpus 2 --memory 512M
expect_passed
