# GNU Mach, started by GRUB from a CD as a Multiboot kernel, gets as far as it can without a bootstrap server.
"$TESTS/package" gnumach-image-1.8-486
mkdir cd
cp "$GUESTS/gnumach-image-1.8-486/boot/gnumach-1.8-486.gz" cd/
grub_cd gnumach.iso cd <<'END'
multiboot /gnumach-1.8-486.gz
boot
END
start_pc --cdrom gnumach.iso --memory 256M
wait_screen 'No bootstrap code loaded with'
grep -q '^GNU Mach 1.8' screen.txt || die "GNU Mach's first line is not on the screen"
stop_pc
