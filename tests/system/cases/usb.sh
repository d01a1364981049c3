# Debian's xHCI driver: two sticks at two CPUs, raw and qcow2, and a tablet.
flavour=amd64
"$GUESTS/../../tests/system/kernels" "$flavour"
head -c 4194304 /dev/urandom >b.raw
sum=$(sha256sum b.raw | cut -d' ' -f1)
words="vdb_sum=$sum tablet=1"
truncate -s 64M a.raw
name=raw
status=0
"$CAISSON" run --kernel "$GUESTS/$flavour/vmlinuz" --initrd "$GUESTS/$flavour/initrd.gz" --append "test=usb $words" --cpus 2 \
  --disk a.raw,bus=usb --disk b.raw,bus=usb,ro --tablet usb --control socket </dev/null >raw.out 2>raw.err &
pid=$!
trap 'kill -9 "$pid" 2>/dev/null || :' EXIT
wait_for raw.out 'ready for tablet' 400
"$CAISSON" click socket 512 384 --button right
wait "$pid" || status=$?
trap - EXIT
expect_passed
[ "$(head -c 4194304 a.raw | sha256sum | cut -d' ' -f1)" = "$sum" ] || die "what the guest wrote is not in the file"
[ "$(sha256sum b.raw | cut -d' ' -f1)" = "$sum" ] || die "the read-only stick has changed"
words="vdb_sum=$sum pci=nomsi"
"$CAISSON" disk create a.qcow2 64M
"$CAISSON" disk create b.qcow2 --backing b.raw
boot qcow2 usb --cpus 2 --disk a.qcow2,bus=usb --disk b.qcow2,bus=usb,ro
expect_passed
"$CAISSON" disk check a.qcow2
qemu-img check -q -f qcow2 a.qcow2
qemu-img convert -f qcow2 a.qcow2 back.raw
[ "$(head -c 4194304 back.raw | sha256sum | cut -d' ' -f1)" = "$sum" ] || die "what the guest wrote is not in the image"
# SeaBIOS starts from a stick: the second disk, which the first does not keep it from.
as --32 -o boot.o "$TESTS/firmware/boot_sector.S"
ld -m elf_i386 -Ttext=0x7c00 --oformat binary -o boot.raw boot.o
truncate -s 1M boot.raw
status=0
name=bios
"$CAISSON" run ./boot.raw,bus=usb --debug-exit --memory 64M </dev/null >bios.out 2>bios.err || status=$?
expect_status 71
grep -q 'hello from the boot sector' bios.out || die "the boot sector did not print"
# UEFI: a system partition (UEFI 13.3: also without a partition table) with GRUB, which says so.
cat >grub.cfg <<'END'
echo GRUB from the second stick
halt
END
grub-mkimage -O x86_64-efi -p / -c grub.cfg -o bootx64.efi echo halt fat
truncate -s 64M esp.raw
mformat -i esp.raw -F ::
mmd -i esp.raw ::/EFI ::/EFI/BOOT
mcopy -i esp.raw bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
status=0
name=uefi
"$CAISSON" run --firmware uefi --firmware-vars vars.fd --disk a.raw,bus=usb --disk esp.raw,bus=usb --memory 256M --net none \
  </dev/null >uefi.out 2>uefi.err || status=$?
expect_status 0
grep -a -q 'GRUB from the second stick' uefi.out || die "GRUB did not start"
for i in 1 2 3 4 5; do truncate -s 1M "s$i.raw"; done
expect_error 2 "$CAISSON" run --firmware bios --disk s1.raw,bus=usb --disk s2.raw,bus=usb --disk s3.raw,bus=usb --disk s4.raw,bus=usb --disk s5.raw,bus=usb
expect_error 2 "$CAISSON" run --firmware bios --tablet serial
