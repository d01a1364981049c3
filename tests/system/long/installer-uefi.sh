# Debian's network installer by UEFI; what it installed is found by the boot entry in this machine's variables.
. "$TESTS/installer.sh"
"$TESTS/installer" trixie 13 amd64
install trixie amd64 'DEBIAN_FRONTEND=text console=ttyS0,115200 ---' --firmware uefi --firmware-vars vars.fd
installed_login hvc0 'echo "on $(findmnt -no SOURCE /) $(ls -d /sys/firmware/efi) $(systemctl is-system-running --wait)"; efibootmgr' \
  --firmware uefi --firmware-vars vars.fd
grep -q 'on /dev/vda2 /sys/firmware/efi running' login.out || die "no Debian from the disk by UEFI"
grep -q '^Boot0.*debian' login.out || die "no boot entry of Debian's"
