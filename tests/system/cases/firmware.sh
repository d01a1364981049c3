# SeaBIOS boots a disk: a boot sector that prints by the BIOS, on the serial port; and, past a disk that does not boot, GRUB from
# a CD, on a screen, by keys.
as --32 -o boot.o "$TESTS/firmware/boot_sector.S"
ld -m elf_i386 -Ttext=0x7c00 --oformat binary -o boot.raw boot.o
truncate -s 1M boot.raw
status=0
name=bios
"$CAISSON" run --firmware bios --disk boot.raw --debug-exit --memory 64M --firmware-log bios.log </dev/null >bios.out 2>bios.err || status=$?
expect_status 71
grep -q 'hello from the boot sector' bios.out || die "the boot sector did not print"
for file in boot.raw ./boot.raw,bus=sata ./boot.raw,bus=nvme; do # a file is started as it is
  status=0
  "$CAISSON" run "$file" --debug-exit --memory 64M </dev/null >file.out 2>file.err || status=$?
  expect_status 71
  grep -q 'hello from the boot sector' file.out || die "the boot sector of $file did not print"
done
expect_error 1 "$CAISSON" run ./nofile.iso
cp boot.raw no-disc.iso
expect_error 1 "$CAISSON" run ./no-disc.iso
expect_error 2 "$CAISSON" run boot.raw --kernel boot.raw
truncate -s 1M empty.raw
grep -q 'Running on QEMU (q35)' bios.log || die "SeaBIOS does not know the chipset"

start_pc /usr/lib/grub-rescue/grub-rescue-cdrom.iso --disk empty.raw,bus=sata --memory 128M
wait_screen 'Press enter to boot'
"$CAISSON" type socket c
wait_screen 'grub>'
"$CAISSON" type socket 'echo Hello "World; 1*2=2" $?<enter>'
wait_screen '^Hello World; 1\*2=2 0$'
"$CAISSON" screenshot socket screen.png
[ "$(head -c 8 screen.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || die "not a PNG file"
expect_error 1 "$CAISSON" type socket '<nokey>'
stop_pc
[ ! -e socket ] || die "the socket is still there"
