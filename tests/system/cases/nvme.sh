# Debian's NVMe driver: two disks at two CPUs, raw and qcow2.
head -c 4194304 /dev/urandom >b.raw
sum=$(sha256sum b.raw | cut -d' ' -f1)
words="vdb_sum=$sum"
truncate -s 64M a.raw
boot raw nvme --cpus 2 --disk a.raw,bus=nvme --disk b.raw,bus=nvme,ro
expect_passed
[ "$(head -c 4194304 a.raw | sha256sum | cut -d' ' -f1)" = "$sum" ] || die "what the guest wrote is not in the file"
[ "$(sha256sum b.raw | cut -d' ' -f1)" = "$sum" ] || die "the read-only disk has changed"
"$CAISSON" disk create a.qcow2 64M
"$CAISSON" disk create b.qcow2 --backing b.raw
boot qcow2 nvme --cpus 2 --disk a.qcow2,bus=nvme --disk b.qcow2,bus=nvme,ro
expect_passed
"$CAISSON" disk check a.qcow2
qemu-img check -q -f qcow2 a.qcow2
qemu-img convert -f qcow2 a.qcow2 back.raw
[ "$(head -c 4194304 back.raw | sha256sum | cut -d' ' -f1)" = "$sum" ] || die "what the guest wrote is not in the image"
# UEFI starts from it: a system partition (UEFI 13.3: also without a partition table) with GRUB, which says so.
cat >grub.cfg <<'END'
echo GRUB from the second disk
halt
END
grub-mkimage -O x86_64-efi -p / -c grub.cfg -o bootx64.efi echo halt fat
truncate -s 64M esp.raw
mformat -i esp.raw -F ::
mmd -i esp.raw ::/EFI ::/EFI/BOOT
mcopy -i esp.raw bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
status=0
name=uefi
"$CAISSON" run --firmware uefi --firmware-vars vars.fd --disk a.raw,bus=nvme --disk esp.raw,bus=nvme --memory 256M --net none \
  </dev/null >uefi.out 2>uefi.err || status=$?
expect_status 0
grep -a -q 'GRUB from the second disk' uefi.out || die "GRUB did not start"
