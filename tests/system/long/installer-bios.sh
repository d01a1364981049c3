# Debian's network installer, started from a CD by SeaBIOS, installs onto a qcow2 disk without being asked anything; what it
# installed starts by GRUB and gets to a login.
. "$TESTS/installer.sh"
"$TESTS/installer" trixie 13 amd64
# It asks on the serial console, as soon as that is among the kernel's; so does what it installs.
install trixie amd64 '--- console=ttyS0,115200 console=tty0' --firmware bios
installed_login hvc0 'echo "on $(findmnt -no SOURCE /) $(uname -m) $(cat /etc/debian_version) $(systemctl is-system-running --wait)"' \
  --firmware bios
grep -q 'on /dev/vda1 x86_64 13.* running' login.out || die "no Debian 13 from the disk"
