# Debian's virtio_gpu driver has its console on the screen; OVMF and GRUB have theirs there, too, without a VGA.
flavour=amd64
"$GUESTS/../../tests/system/kernels" "$flavour"
shot() {
  "$CAISSON" screenshot socket "$1"
  [ "$(od -An -tu1 -j16 -N8 "$1" | awk '{print $3 * 256 + $4, $7 * 256 + $8}')" = "${2-1024 768}" ] || die "not the size it was given"
}
"$CAISSON" run --kernel "$GUESTS/$flavour/vmlinuz" --initrd "$GUESTS/$flavour/initrd.gz" --append test=gpu \
  --memory 512M --graphics virtio --control socket --name gpu --vnc unix </dev/null >gpu.out 2>gpu.err &
pid=$!
trap 'kill -9 "$pid" 2>/dev/null || :' EXIT
wait_for gpu.out 'ready for blank' 200
shot blank.png
"$CAISSON" type socket 'blank<enter>'
wait_for gpu.out 'ready for text'
shot text.png
[ "$(wc -c <text.png)" -gt $(($(wc -c <blank.png) + 500)) ] || die "no text: $(wc -c blank.png text.png)"
"$CAISSON" type socket 'text<enter>'
wait_for gpu.out 'ready for the cursor'
sleep 1
# viewer FILE ENCODINGS: what a viewer that says it knows these gets as its first picture, in hexadecimal.
viewer() {
  { printf "RFB 003.008\n\001\001\002\000$2\003\000\000\000\000\000\004\000\003\000"; sleep 2; } |
    timeout 60 "$CAISSON" vnc gpu --stdio | od -An -v -tx1 | tr -d ' \n' >"$1"
}
pointer=0005000700400040ffffff110000ff000000ff00 # hot spot, size, encoding, red
red() { grep -o 0000ff00 "$1" | wc -l; }
viewer draws '\000\001\377\377\377\021'
grep -q "$pointer" draws || die "no pointer for a viewer that draws it"
[ "$(red draws)" = 4096 ] || die "the pointer is in the picture as well: $(red draws) red pixels"
viewer plain '\000\000'
! grep -q "$pointer" plain || die "a pointer for a viewer that knows none"
[ "$(red plain)" = 4096 ] || die "the pointer is not in the picture: $(red plain) red pixels"
"$CAISSON" type socket 'cursor<enter>'
status=0
wait "$pid" || status=$?
trap - EXIT
name=gpu
expect_passed
cat >grub.cfg <<'END'
terminal_output console
echo GRUB on a screen of virtio
sleep 600
END
grub-mkimage -O x86_64-efi -p / -c grub.cfg -o bootx64.efi echo sleep terminal fat
truncate -s 64M esp.raw
mformat -i esp.raw -F ::
mmd -i esp.raw ::/EFI ::/EFI/BOOT
mcopy -i esp.raw bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
"$CAISSON" run --firmware uefi --firmware-vars vars.fd --graphics virtio --disk esp.raw --memory 256M --net none --stop-timeout 1 \
  --control socket2 </dev/null >uefi.out 2>uefi.err &
pid=$!
trap 'kill -9 "$pid" 2>/dev/null || :' EXIT
wait_for uefi.out 'GRUB on a screen of virtio' 200
sleep 1
"$CAISSON" screenshot socket2 grub.png
[ "$(wc -c <grub.png)" -gt 3500 ] || die "the screen is black: $(wc -c <grub.png) bytes"
kill "$pid"
kill "$pid" 2>/dev/null || :
wait "$pid" || :
trap - EXIT
expect_error 2 "$CAISSON" run --firmware bios --graphics virtio --disk esp.raw
expect_error 2 "$CAISSON" run --firmware bios --graphics cirrus --disk esp.raw
