# Xen, started by GRUB, starts Debian's kernel as its dom0, which gets to a login.
"$TESTS/package" xen-hypervisor-4.17-amd64
"$TESTS/kernels" amd64
debian_disk 1
cp --sparse=always "$image/disk.raw" dom0.raw
# Debian's image has the kernel for clouds, which cannot be a dom0; the other kernel finds its root with this.
mkdir -p tree/bin tree/root tree/dev tree/proc tree/cd cd
cp /bin/busybox tree/bin/
cat >tree/init <<'INIT'
#!/bin/busybox sh
busybox mount -t devtmpfs none /dev
busybox mount -t proc none /proc
for module in virtio_pci virtio_blk crc32c_generic ext4; do busybox modprobe $module; done
until busybox mount -t ext4 /dev/vda /root; do busybox sleep 0.1; done
busybox umount /proc
exec busybox switch_root /root /sbin/init
INIT
chmod +x tree/init
gzip -dc "$GUESTS/amd64/initrd.gz" | (cd tree && cpio -id --quiet 'lib/*')
(cd tree && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >cd/initrd.gz
cp "$GUESTS/amd64/vmlinuz" cd/
gzip -dc "$GUESTS/xen-hypervisor-4.17-amd64/boot/xen-4.17-amd64.gz" >cd/xen
# GRUB's multiboot2 leaves the program's name out; Xen skips the first word of each line as if it were there.
grub_cd xen.iso cd <<'GRUB'
multiboot2 /xen placeholder com1=115200,8n1 console=com1,vga dom0_mem=512M
module2 /vmlinuz placeholder root=/dev/vda rw console=tty0 console=hvc0
module2 /initrd.gz
boot
GRUB
mkfifo keys
"$CAISSON" run --firmware bios --cdrom xen.iso --disk dom0.raw --memory 1G --cpus 2 --no-reboot --control socket <keys >xen.out 2>xen.err &
vmm=$!
trap 'kill -9 "$vmm" 2>/dev/null || :' EXIT
exec 3>keys
wait_for xen.out "login:" 400
echo root >&3
wait_for xen.out 'root@.*#' 60
echo 'echo "below $(cat /sys/hypervisor/type) $(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)"' >&3
wait_for xen.out 'below xen' 60
# Line by line: Xen keeps 128 characters that dom0 has not taken.
echo 'setterm --clear all >/dev/tty1; echo clea""red' >&3
wait_for xen.out cleared 60
echo 'dmesg -t | grep -iE "xen|hypervisor" | cut -c1-79 | tail -n 22 >/dev/tty1; echo sho""wn' >&3
wait_for xen.out shown 60
"$CAISSON" screenshot socket xen.png
[ -z "${PICTURES-}" ] || cp xen.png "$PICTURES/xen-dom0.png"
echo poweroff >&3
exec 3>&-
status=0
wait "$vmm" || status=$?
trap - EXIT
[ "$status" = 0 ] || die "exit status $status"
grep -q 'Xen version 4.17' xen.out || die "no first line of Xen"
grep -q 'below xen 4.17' xen.out || die "dom0 does not see Xen"
