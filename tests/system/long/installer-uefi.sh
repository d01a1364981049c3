# The same by UEFI, on the serial console; what is installed is found by the boot entry in this machine's variables.
. "$TESTS/installer.sh"
"$TESTS/package" nginx
"$TESTS/installer" trixie 13 amd64
start_mirror trixie amd64
trap 'stop_mirror; kill -9 "$vmm" 2>/dev/null || :' EXIT
installer_cd installer.iso trixie amd64 DEBIAN_FRONTEND=text console=ttyS0,115200 ---
"$CAISSON" disk create disk.qcow2 6G
status=0
"$CAISSON" run --firmware uefi --firmware-vars vars.fd --cdrom installer.iso --disk disk.qcow2 --memory 1G --cpus 2 --no-reboot \
  </dev/null >install.out 2>install.err &
vmm=$!
wait "$vmm" || status=$?
[ "$status" = 0 ] || die "exit status $status: $(cat install.err)"
qemu-img check disk.qcow2
installed_login 'echo "on $(findmnt -no SOURCE /) $(ls -d /sys/firmware/efi) $(systemctl is-system-running --wait)"; efibootmgr' \
  --firmware uefi --firmware-vars vars.fd --disk disk.qcow2 --memory 512M --cpus 2
grep -q 'on /dev/vda2 /sys/firmware/efi running' login.out || die "no Debian from the disk by UEFI"
grep -q '^Boot0.*debian' login.out || die "no boot entry of Debian's"
