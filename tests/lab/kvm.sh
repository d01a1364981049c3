# The kvm engine's tests, and the cases of tests/system on it.
. /lab/parts.sh
# What is skipped elsewhere for want of a good /dev/kvm must run here.
unit_tests() { "$@" >/tmp/tests 2>&1 && ! grep SKIPPED /tmp/tests || { tail -n 60 /tmp/tests; return 1; }; }
chosen() { caisson doctor >/tmp/doctor 2>&1; grep -q 'the kvm engine runs machines' /tmp/doctor || { cat /tmp/doctor; return 1; }; }
beyond() { caisson run --kernel beyond_kvm --memory 64M --cpus 1 --net none --debug-exit "$@" </dev/null 2>/tmp/err; }
# In the middle of a machine's life KVM meets what it cannot run: the choice was ours, so the machine goes on.
goes_on() {
  status=0
  beyond --engine auto --json || status=$?
  [ "$status" = 69 ] && grep -q '"engine":"kvm"' /tmp/err && grep -q 'the jit engine runs this machine' /tmp/err ||
    { cat /tmp/err; return 1; }
}
ends() {
  status=0
  beyond --engine kvm || status=$?
  [ "$status" = 1 ] && [ "$(wc -l </tmp/err)" = 1 ] && grep -q 'code 66 0f fe 05.*use --engine jit' /tmp/err ||
    { cat /tmp/err; return 1; }
}
no_device() { # no_device ENGINE STATUS
  mv /dev/kvm /dev/kvm-away
  status=0
  beyond --engine "$1" || status=$?
  mv /dev/kvm-away /dev/kvm
  [ "$status" = "$2" ] && [ "$(wc -l </tmp/err)" = 1 ] || { cat /tmp/err; return 1; }
}

# A machine of the store stands still and goes on: its CPUs' and local APICs' state leaves the kernel and comes back.
pause() {
  export XDG_DATA_HOME=/tmp/data
  caisson run -d --name paused --kernel $GUESTS/cloud-amd64/vmlinuz --initrd $GUESTS/cloud-amd64/initrd.gz \
    --append 'quiet test=button' --engine kvm --cpu-model $model --cpus 2 --memory 256M --net none || return 1
  waited=0
  until caisson logs paused | grep -q 'caisson-test: waiting'; do
    waited=$((waited + 1))
    [ "$waited" -lt 120 ] || { caisson logs paused; return 1; }
    sleep 1
  done
  for round in 1 2 3; do
    caisson pause paused && caisson ps | grep -q '^paused *paused' && sleep 1 && caisson resume paused || return 1
  done
  caisson stop --timeout 60 paused && caisson logs paused | grep -q 'caisson-test: pressed' || { caisson logs paused; return 1; }
}

# Of the VMM after a boot: what it shares with nobody, less the guest's memory. Printed; the aim is 5 MiB.
footprint() {
  caisson run --kernel $GUESTS/cloud-amd64/vmlinuz --initrd $GUESTS/cloud-amd64/initrd.gz --append 'quiet test=wait' \
    --engine kvm --cpu-model $model --cpus 1 --memory 512M --net none </dev/null >/tmp/out 2>&1 &
  command=$!
  waited=0
  until grep -q 'caisson-test: init' /tmp/out; do
    waited=$((waited + 1))
    [ "$waited" -lt 120 ] && kill -0 "$command" || { cat /tmp/out; return 1; }
    sleep 1
  done
  vmm=$(cat /proc/$command/task/$command/children)
  kib=$(awk '/^[0-9a-f]+-/ { ours = !/memfd:caisson-guest-ram/ } ours && /^Private_/ { kib += $2 } END { print kib }' "/proc/${vmm%% *}/smaps")
  kill -9 "${vmm%% *}"
  wait "$command" || true
  echo "     private to caisson-vmm after boot on kvm: $kib KiB" >/dev/console
  [ "$kib" -gt 0 ] && [ "$kib" -le 5120 ]
}

# SeaBIOS runs from read-only memory, with the display's window below it, and starts a disk.
bios() {
  status=0
  caisson run --firmware bios --disk /lab/boot.raw --debug-exit --engine kvm --cpu-model $model --cpus 2 --memory 64M --net none \
    </dev/null >/tmp/out 2>&1 || status=$?
  [ "$status" = 71 ] && grep -q 'hello from the boot sector' /tmp/out || { cat /tmp/out; return 1; }
}

# QEMU 7.2 does not arm the breakpoints that VMRUN loads with DR7.
check "unit tests" unit_tests caisson_kvm_test --gtest_filter=-KvmDebug.BreakpointsStopBeforeTheirInstruction
check "states between engines" unit_tests caisson_machine_test
check "auto chooses kvm" chosen
check "auto goes on with jit" goes_on
check "forced kvm ends with one line" ends
check "no /dev/kvm, auto" no_device auto 69
check "no /dev/kvm, forced" no_device kvm 1
# Not debug-exit: QEMU 7.2 refuses port accesses of user code after VMRUN, since it takes a busy TSS for no TSS.
for case in boot-1 boot-2 boot-4 work disk net console reset panic button stop; do
  check "$case" case_of "$case" kvm
done
check "firmware bios" bios
check "pause" pause
check "footprint" footprint
check "boot-2, auto" case_of boot-2 auto
exit $failed
