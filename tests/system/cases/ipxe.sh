# iPXE, started by GRUB from a CD, gets an address by its virtio driver.
"$TESTS/package" ipxe
mkdir cd
cp "$GUESTS/ipxe/boot/ipxe.lkrn" cd/
cat >cd/script <<'END'
#!ipxe
dhcp && echo Address ${net0/ip} by ${net0.dhcp/dhcp-server}
shell
END
grub_cd ipxe.iso cd <<'END'
insmod linux16
linux16 /ipxe.lkrn
initrd16 /script
boot
END
start_pc --cdrom ipxe.iso --memory 256M
wait_screen '^Address 10.0.2.15 by 10.0.2.2'
wait_screen '^iPXE>'
"$CAISSON" type socket 'ifstat<enter>'
wait_screen 'Link:up'
stop_pc
