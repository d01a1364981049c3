# The installer of Debian 12 for i386 by SeaBIOS: a 32-bit kernel and system on disk, started by GRUB.
. "$TESTS/installer.sh"
"$TESTS/installer-i386"
install bookworm i386 'DEBIAN_FRONTEND=text console=ttyS0,115200 ---' --firmware bios
installed_login ttyS0 'echo "on $(findmnt -no SOURCE /) $(uname -m) $(dpkg --print-architecture) $(cat /etc/debian_version) $(systemctl is-system-running --wait)"' \
  --firmware bios
grep -q 'on /dev/vda1 i686 i386 12.* running' login.out || die "no Debian 12 for i386 from the disk"
