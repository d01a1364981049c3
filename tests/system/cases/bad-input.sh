kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
run() {
  expected=$1
  shift
  expect_error "$expected" "$CAISSON" run "$@"
}
: >empty
head -c 100 "$kernel" >tiny
head -c 1000000 "$kernel" >cut
head -c 1000000 /dev/urandom >random
printf '\177ELF\002\001\001' >arm
head -c 1000 /dev/zero >>arm
printf '\267\000' | dd of=arm bs=1 seek=18 conv=notrunc 2>/dev/null
truncate -s 300M big
truncate -s 100 odd.raw
: >empty.raw
truncate -s 1M fine.raw
for file in missing empty tiny cut random arm .; do run 1 --kernel "$file"; done
for file in missing empty .; do run 1 --kernel "$kernel" --initrd "$file"; done
run 1 --kernel "$kernel" --initrd big --memory 256M
for memory in 0 1 513K -1 x 999999G 12T 99999999999999999999; do run 2 --kernel "$kernel" --memory="$memory"; done
for cpus in 0 65 -1 x 4294967297; do run 2 --kernel "$kernel" --cpus="$cpus"; done
for disk in missing empty.raw odd.raw . /dev/null; do run 1 --kernel "$kernel" --disk "$disk"; done
for forward in 0:22 22 70000:22 x:22 22:x 1.2.3:4:5; do run 2 --kernel "$kernel" -p "$forward"; done
run 2 --kernel "$kernel" --net none -p 2222:22
run 2 --kernel "$kernel" --engine magic
run 2 --kernel "$kernel" --engine kvm --jit-off simd
run 2 --kernel "$kernel" --cpu-model 486
run 2 --kernel "$kernel" --name ../x
run 2 --kernel "$kernel" --no-such-option
run 2 windows --cpus 1
expect_error 2 "$CAISSON" run
expect_error 2 "$CAISSON" frobnicate
expect_error 2 "$CAISSON" image build debian:3
if [ "$(id -u)" != 0 ]; then
  chmod 400 fine.raw
  run 1 --kernel "$kernel" --disk fine.raw
fi
[ "$(ls -A | grep -c core)" = 0 ] || die "a core file is left"
