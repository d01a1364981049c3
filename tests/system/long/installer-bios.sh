# Debian's network installer, started from a CD by SeaBIOS, installs onto a qcow2 disk without being asked anything; what it
# installed starts by GRUB and gets to a login.
. "$TESTS/installer.sh"
"$TESTS/package" nginx
"$TESTS/installer" trixie 13 amd64
start_mirror trixie amd64
trap 'stop_mirror; kill -9 "$vmm" 2>/dev/null || :' EXIT
# It asks on the serial console, as soon as that is among the kernel's; so does what it installs.
installer_cd installer.iso trixie amd64 --- console=ttyS0,115200 console=tty0
"$CAISSON" disk create disk.qcow2 6G
"$CAISSON" run --firmware bios --cdrom installer.iso --disk disk.qcow2 --memory 1G --cpus 2 --no-reboot --control socket \
  </dev/null >install.out 2>install.err &
vmm=$!
status=0
wait "$vmm" || status=$?
[ "$status" = 0 ] || die "exit status $status: $(cat install.err)"
qemu-img check disk.qcow2
installed_login 'echo "on $(findmnt -no SOURCE /) $(uname -m) $(cat /etc/debian_version) $(systemctl is-system-running --wait)"' \
  --firmware bios --disk disk.qcow2 --memory 512M --cpus 2
grep -q 'on /dev/vda1 x86_64 13.* running' login.out || die "no Debian 13 from the disk"
