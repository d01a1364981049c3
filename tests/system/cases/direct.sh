# All 64-bit user code runs directly from its first instruction on, where this host can do it: programs, signals, threads,
# page-table changes under load, and what two and four CPUs may see of each other's stores.
boot work work --cpus 2 --memory 512M --jit-off patience
expect_passed
words=litmus=0.3
boot litmus litmus --cpus 4 --memory 512M --jit-off patience
expect_passed
