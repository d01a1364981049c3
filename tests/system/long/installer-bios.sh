# Debian's network installer, started from a CD by SeaBIOS, installs onto a qcow2 disk without being asked anything; what it
# installed starts by GRUB and gets to a login.
. "$TESTS/installer.sh"
"$TESTS/package" nginx
"$TESTS/installer" trixie 13 amd64
start_mirror trixie amd64
trap 'stop_mirror; kill -9 "$vmm" 2>/dev/null || :' EXIT
# On its screen; the words after the dashes are for the kernel that it installs.
installer_cd installer.iso trixie amd64 --- console=ttyS0,115200
"$CAISSON" disk create disk.qcow2 6G
"$CAISSON" run --firmware bios --cdrom installer.iso --disk disk.qcow2 --memory 1G --cpus 2 --no-reboot --control socket \
  </dev/null >install.out 2>install.err &
vmm=$!
# (A picture now and then: the last one is of the end of the installation.)
while kill -0 "$vmm" 2>/dev/null; do
  sleep 20
  ! "$CAISSON" screenshot socket next.png 2>/dev/null || { mv next.png screen.png; [ ! -e install.png ] && grep -q linux-image access.log && cp screen.png install.png; } || :
done
status=0
wait "$vmm" || status=$?
[ "$status" = 0 ] || die "exit status $status: $(cat install.err)"
[ -z "${PICTURES-}" ] || cp install.png "$PICTURES/debian-installer-bios.png"
qemu-img check disk.qcow2
installed_login 'echo "on $(findmnt -no SOURCE /) $(uname -m) $(cat /etc/debian_version) $(systemctl is-system-running --wait)"' \
  --firmware bios --disk disk.qcow2 --memory 512M --cpus 2
grep -q 'on /dev/vda1 x86_64 13.* running' login.out || die "no Debian 13 from the disk"
