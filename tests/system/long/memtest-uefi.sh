# Memtest86+ by UEFI passes over 64 MiB without an error, the test that waits for bits to fade included.
"$TESTS/package" memtest86+
mkdir -p cd/boot/grub
cp "$GUESTS/memtest86+/boot/memtest86+x64.efi" cd/memtest.efi
cat >cd/boot/grub/grub.cfg <<END
chainloader /memtest.efi console=ttyS0,115200
boot
END
start_uefi_cd cd
wait_for pc.out 'Pass: *1 *Errors: 0' 600
"$CAISSON" screenshot socket "${PICTURE-screen.png}"
! grep -a -q 'Errors: *[1-9]' pc.out || die "memtest86+ found errors"
stop_pc
