# Memtest86+ by UEFI passes over 64 MiB without an error, the test that waits for bits to fade included.
"$TESTS/package" memtest86+
mkdir -p cd/boot/grub
cp "$GUESTS/memtest86+/boot/memtest86+x64.efi" cd/memtest.efi
cat >cd/boot/grub/grub.cfg <<END
chainloader /memtest.efi console=ttyS0,115200
boot
END
# Only the EFI build, so that it is not SeaBIOS's that runs.
grub-mkrescue -d /usr/lib/grub/x86_64-efi -o grub.iso cd >mkrescue.log 2>&1 || die "grub-mkrescue failed: $(cat mkrescue.log)"
"$CAISSON" run --firmware uefi --firmware-vars vars.fd --cdrom grub.iso --memory 64M --cpus 1 --net none --stop-timeout 1 \
  --control socket </dev/null >pc.out 2>pc.err &
vmm=$!
trap 'kill -9 "$vmm" 2>/dev/null || :' EXIT
trap 'exit 1' INT TERM
wait_for pc.out 'Pass: *1 *Errors: 0' 600
"$CAISSON" screenshot socket "${PICTURE-screen.png}"
! grep -a -q 'Errors: *[1-9]' pc.out || die "memtest86+ found errors"
stop_pc
