# The kvm engine's tests, and Debian's cloud kernel on it.
failed=0
check() { # check NAME COMMAND…
  name=$1
  shift
  start=$(cut -d. -f1 /proc/uptime)
  if "$@" >/tmp/log 2>&1; then verdict=ok; else verdict=FAILED failed=1; fi
  echo "$verdict $name ($(($(cut -d. -f1 /proc/uptime) - start)) s)"
  [ "$verdict" = ok ] || tail -n 60 /tmp/log
}
unit_tests() { caisson_kvm_test >/tmp/tests 2>&1 && ! grep SKIPPED /tmp/tests || { tail -n 60 /tmp/tests; return 1; }; }
chosen() { caisson doctor | grep -q 'the kvm engine runs machines'; }
# QEMU 7.2 does not let a hypervisor intercept XSETBV, so KVM would not follow the guest's XCR0: a model without XSAVE.
boot() { # boot CPUS [OPTIONS…]
  words="test=boot cpus=$1 least_kib=100000"
  timeout 200 caisson run --kernel vmlinuz --initrd initrd.gz --cpu-model x86-64-v2 --memory 512M --append "$words" \
    --cpus "$@" </dev/null --json >/tmp/out 2>&1 || { tail -n 40 /tmp/out; return 1; }
  grep -q 'caisson-test: PASSED' /tmp/out && grep -q '"engine":"kvm"' /tmp/out || { grep -n -A12 'WARNING\|caisson-test\|engine' /tmp/out; return 1; }
}
check "unit tests" unit_tests
check "auto chooses kvm" chosen
check "boot, 1 CPU" boot 1 --engine kvm
check "boot, 2 CPUs" boot 2 --engine kvm
check "boot, auto" boot 2 --engine auto
exit $failed
