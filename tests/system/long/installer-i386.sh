# The installer of Debian 12 for i386 by SeaBIOS: a 32-bit kernel and system on disk, started by GRUB.
. "$TESTS/installer.sh"
"$TESTS/package" nginx
"$TESTS/installer-i386"
start_mirror bookworm i386
trap 'stop_mirror; kill -9 "$vmm" 2>/dev/null || :' EXIT
installer_cd installer.iso bookworm i386 DEBIAN_FRONTEND=text console=ttyS0,115200 ---
"$CAISSON" disk create disk.qcow2 6G
status=0
"$CAISSON" run --firmware bios --cdrom installer.iso --disk disk.qcow2 --memory 1G --cpus 2 --no-reboot \
  </dev/null >install.out 2>install.err &
vmm=$!
wait "$vmm" || status=$?
[ "$status" = 0 ] || die "exit status $status: $(cat install.err)"
qemu-img check disk.qcow2
installed_login 'echo "on $(findmnt -no SOURCE /) $(uname -m) $(dpkg --print-architecture) $(cat /etc/debian_version) $(systemctl is-system-running --wait)"' \
  --firmware bios --disk disk.qcow2 --memory 512M --cpus 2
grep -q 'on /dev/vda1 i686 i386 12.* running' login.out || die "no Debian 12 for i386 from the disk"
