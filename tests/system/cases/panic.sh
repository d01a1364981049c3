boot panic panic
expect_status 3
