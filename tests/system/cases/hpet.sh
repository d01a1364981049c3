# Linux takes the HPET as its clock when told to.
words="clocksource=hpet tsc=unstable"
boot hpet hpet --cpus 2
expect_passed
