# A Multiboot kernel by --kernel, as an ELF file and as plain bytes, with a module.
printf 'what the module says\n' >module
for addresses in 0 1; do
  as --32 --defsym "ADDRESSES=$addresses" -o kernel.o "$TESTS/multiboot/kernel.S"
  ld -m elf_i386 -Ttext=0x200000 -e _start -o kernel kernel.o
  [ "$addresses" = 0 ] || objcopy -O binary kernel
  status=0
  name=kernel$addresses
  "$CAISSON" run --kernel ./kernel --initrd module --append 'one two=3' --debug-exit --memory 128M --engine jit \
    </dev/null >"$name.out" 2>"$name.err" || status=$?
  expect_status 71
  grep -q '^Caisson: console=ttyS0 panic=-1 one two=3' "$name.out" || die "not its command line: $(cat "$name.out")"
  grep -q 'what the module says' "$name.out" || die "not its module: $(cat "$name.out")"
done
# GNU Mach gets as far as it can without a bootstrap server.
"$TESTS/package" gnumach-image-1.8-486
zcat "$GUESTS/gnumach-image-1.8-486/boot/gnumach-1.8-486.gz" >gnumach
"$CAISSON" run --kernel ./gnumach --append console=com0 --memory 256M --no-reboot --stop-timeout 1 </dev/null >mach.out 2>mach.err &
vmm=$!
trap 'kill -9 "$vmm" 2>/dev/null || :' EXIT
wait_for mach.out 'No bootstrap code loaded with' 60
grep -q '^GNU Mach 1.8' mach.out || die "no first line of GNU Mach"
kill "$vmm"
wait "$vmm" || :
trap - EXIT
