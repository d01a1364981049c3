# A Debian disk with a partition table and GRUB in front of it starts by SeaBIOS and gets to a login.
debian_disk 1
# The boot sector, which reads GRUB from the sectors after it; a partition from 1 MiB on.
grub-mkimage -O i386-pc -p /boot/grub -c grub.cfg -o core.img biosdisk part_msdos ext2 linux
bytes=$(stat -c %s "$image/disk.raw")
truncate -s $((bytes + 1048576)) debian.raw
dd if=/usr/lib/grub/i386-pc/boot.img of=debian.raw bs=440 count=1 conv=notrunc status=none
printf "\\200\\376\\377\\377\\203\\376\\377\\377$(little 2048)$(little $((bytes / 512)))" |
  dd of=debian.raw bs=1 seek=446 conv=notrunc status=none
printf '\125\252' | dd of=debian.raw bs=1 seek=510 conv=notrunc status=none
dd if=core.img of=debian.raw bs=512 seek=1 conv=notrunc status=none
dd if="$image/disk.raw" of=debian.raw bs=1M seek=1 conv=notrunc,sparse status=none

mkfifo keys
"$CAISSON" run --firmware bios --disk debian.raw --memory 512M --no-reboot --control socket <keys >login.out 2>login.err &
vmm=$!
exec 3>keys
wait_for login.out 'login:' 300
echo root >&3
wait_for login.out 'root@.*#' 60
echo 'echo "by $(findmnt -no SOURCE /)"; poweroff' >&3
exec 3>&-
status=0
wait "$vmm" || status=$?
[ "$status" = 0 ] || die "exit status $status"
grep -q 'by /dev/vda1' login.out || die "not from the disk"

disk_comes_and_goes --firmware bios --disk debian.raw
