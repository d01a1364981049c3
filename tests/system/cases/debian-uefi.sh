# A Debian disk with an EFI system partition and GRUB in it starts by UEFI and gets to a login.
debian_disk 2
grub-mkimage -O x86_64-efi -p /EFI/BOOT -c grub.cfg -o bootx64.efi part_msdos ext2 fat linux
# From 1 MiB on the system partition (UEFI 5.2.2: type 0xef), 64 MiB of FAT; then Debian's.
truncate -s 64M esp.raw
mformat -i esp.raw -F ::
mmd -i esp.raw ::/EFI ::/EFI/BOOT
mcopy -i esp.raw bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
entry() { printf "\\0\\376\\377\\377\\$1\\376\\377\\377$(little "$2")$(little "$3")"; } # TYPE FIRST SECTORS
bytes=$(stat -c %s "$image/disk.raw")
truncate -s $((bytes + 65 * 1048576)) debian.raw
{ entry 357 2048 131072; entry 203 133120 $((bytes / 512)); } | dd of=debian.raw bs=1 seek=446 conv=notrunc status=none
printf '\125\252' | dd of=debian.raw bs=1 seek=510 conv=notrunc status=none
dd if=esp.raw of=debian.raw bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$image/disk.raw" of=debian.raw bs=1M seek=65 conv=notrunc,sparse status=none

mkfifo keys
"$CAISSON" run --firmware uefi --firmware-vars vars.fd --disk debian.raw --memory 512M --cpus 2 --no-reboot <keys >login.out 2>login.err &
vmm=$!
trap 'kill -9 "$vmm" 2>/dev/null || :' EXIT
trap 'exit 1' INT TERM
exec 3>keys
wait_for login.out 'login:' 300
echo root >&3
wait_for login.out 'root@.*#' 60
echo 'echo "by $(findmnt -no SOURCE /) $(ls -d /sys/firmware/efi) $(nproc)"' >&3
wait_for login.out 'by /dev/vda2 /sys/firmware/efi 2' 30
echo poweroff >&3
exec 3>&-
status=0
wait "$vmm" || status=$?
expect_status 0

disk_comes_and_goes --firmware uefi --disk debian.raw
