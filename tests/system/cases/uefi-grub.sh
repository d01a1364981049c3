# UEFI starts a CD: GRUB's EFI build gets to its prompt and takes keys, and starts memtest86+'s EFI binary, which tests memory.
"$TESTS/package" memtest86+
mkdir -p cd/boot/grub
cp "$GUESTS/memtest86+/boot/memtest86+x64.efi" cd/memtest.efi
start_uefi_cd cd
wait_for pc.out 'grub> '
# The answer is not among the characters typed.
"$CAISSON" type socket 'echo "by:$grub_cpu-$grub_platform"<enter>'
wait_for pc.out 'by:x86_64-efi' 30
"$CAISSON" screenshot socket "${PICTURE-screen.png}"
[ "$(head -c 8 "${PICTURE-screen.png}" | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || die "not a PNG file"
"$CAISSON" type socket 'chainloader /memtest.efi console=ttyS0,115200<enter>boot<enter>'
# Tests go by in order; the seventh comes after six that found nothing.
wait_for pc.out '#\(7\|8\|9\|10\)  *\[' 120 # (its picture of progress is seldom: a short test may be missing)
grep -a -q 'Errors: 0' pc.out || die "no count of errors"
! grep -a -q 'Errors: *[1-9]' pc.out || die "memtest86+ found errors"
stop_pc
