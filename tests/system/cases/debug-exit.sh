boot debug debug_exit --debug-exit
expect_status 69
