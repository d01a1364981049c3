// What a built Debian has beyond its packages: the files laid over it, and the script that turns the archive mmdebstrap
// writes into a disk image. docs/images.md says why each is there.
//   Threads  constants
#pragma once

#include <array>
#include <string_view>

namespace caisson::cli {

struct ImageFile {
  std::string_view path;
  unsigned mode;
  std::string_view text;
};

inline constexpr std::array<ImageFile, 14> image_files{{
    {"etc/hostname", 0644, "debian\n"},
    {"etc/hosts", 0644, "127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n"},
    {"etc/fstab", 0644, "/dev/vda / ext4 errors=remount-ro 0 1\n"},
    // Until the first DHCP answer; the user-mode network's name server.
    {"etc/resolv.conf", 0644, "nameserver 10.0.2.3\n"},
    {"etc/systemd/network/80-dhcp.network", 0644,
     "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n"},
    {"usr/local/lib/caisson/resolv-conf", 0755,
     "#!/bin/sh\n"
     "# Writes the name servers that systemd-networkd got by DHCP to /etc/resolv.conf; without any it stays as it is.\n"
     "set -eu\n"
     "state=/run/systemd/netif/state\n"
     "[ -r \"$state\" ] || exit 0\n"
     "servers=$(sed -n 's/^DNS=//p' \"$state\")\n"
     "[ -n \"$servers\" ] || exit 0\n"
     "new=$(mktemp /etc/resolv.conf.XXXXXX)\n"
     "for server in $servers; do echo \"nameserver $server\"; done >\"$new\"\n"
     "chmod 644 \"$new\"\n"
     "mv \"$new\" /etc/resolv.conf\n"},
    {"etc/systemd/system/caisson-resolv-conf.service", 0644,
     "[Unit]\nDescription=Name servers from DHCP\nAfter=systemd-networkd.service\n\n"
     "[Service]\nType=oneshot\nExecStart=/usr/local/lib/caisson/resolv-conf\n\n"
     "[Install]\nWantedBy=multi-user.target\n"},
    {"etc/systemd/system/caisson-resolv-conf.path", 0644,
     "[Unit]\nDescription=Name servers from DHCP\n\n[Path]\nPathChanged=/run/systemd/netif/state\n\n"
     "[Install]\nWantedBy=multi-user.target\n"},
    {"usr/local/lib/caisson/seed", 0755,
     "#!/bin/sh\n"
     "# What the kernel's command line says of this machine: its name, and the key that root is reached with.\n"
     "set -eu\n"
     "word() { tr ' ' '\\n' </proc/cmdline | sed -n \"s/^caisson\\.$1=//p\" | tail -n 1; }\n"
     "# What was asked for the first start, from the disc that caisson makes for it; late does what needs the "
     "network.\n"
     "if disc=$(blkid -L CIDATA) && mkdir -p -m 700 /run/caisson /run/caisson/disc && "
     "mount -o ro \"$disc\" /run/caisson/disc; then\n"
     "  id=$(cksum </run/caisson/disc/meta-data)\n"
     "  if [ -e /run/caisson/disc/caisson-setup ] && [ \"$id\" != \"$(cat /var/lib/caisson/done 2>/dev/null)\" ]; "
     "then\n"
     "    cp /run/caisson/disc/* /run/caisson/\n"
     "    echo \"$id\" >/run/caisson/id\n"
     "    sh /run/caisson/caisson-setup early || echo 'caisson: the first start: not all could be done' >&2\n"
     "  fi\n"
     "  umount /run/caisson/disc\n"
     "fi\n"
     "name=$(word hostname)\n"
     "[ ! -s /var/lib/caisson/hostname ] || name=$(cut -d. -f1 /var/lib/caisson/hostname)\n"
     "if [ -n \"$name\" ] && [ \"$name\" != \"$(cat /etc/hostname)\" ]; then\n"
     "  echo \"$name\" >/etc/hostname\n"
     "  sed -i \"s/^127\\.0\\.1\\.1 .*/127.0.1.1 $name/\" /etc/hosts\n"
     "  echo \"$name\" >/proc/sys/kernel/hostname\n"
     "fi\n"
     "key=$(word key)\n"
     "if [ -n \"$key\" ]; then\n"
     "  line=\"ssh-ed25519 $key caisson\"\n"
     "  mkdir -p -m 700 /root/.ssh\n"
     "  touch /root/.ssh/authorized_keys\n"
     "  chmod 600 /root/.ssh/authorized_keys\n"
     "  grep -qxF \"$line\" /root/.ssh/authorized_keys || echo \"$line\" >>/root/.ssh/authorized_keys\n"
     "fi\n"
     "# Each machine has a key of its own, not the image's.\n"
     "host=/etc/ssh/ssh_host_ed25519_key\n"
     "[ -s \"$host\" ] || ssh-keygen -q -t ed25519 -N '' -f \"$host\"\n"},
    {"etc/systemd/system/caisson-seed.service", 0644,
     "[Unit]\nDescription=This machine's name and keys\nBefore=ssh.service\n"
     "After=local-fs.target\n\n"
     "[Service]\nType=oneshot\nExecStart=/usr/local/lib/caisson/seed\n\n"
     "[Install]\nWantedBy=multi-user.target\n"},
    {"usr/local/lib/caisson/late", 0755,
     "#!/bin/sh\n"
     "set -eu\n"
     "i=0\n"
     "until ip route show default | grep -q . || [ $i = 60 ]; do i=$((i + 1)); sleep 1; done\n"
     "sh /run/caisson/caisson-setup late\n"
     "mkdir -p /var/lib/caisson\n"
     "cp /run/caisson/id /var/lib/caisson/done\n"},
    {"etc/systemd/system/caisson-late.service", 0644,
     "[Unit]\nDescription=Packages and scripts of this machine's first start\n"
     "After=caisson-seed.service systemd-networkd.service caisson-resolv-conf.service\n"
     "ConditionPathExists=/run/caisson/id\n\n"
     "[Service]\nType=oneshot\nExecStart=/usr/local/lib/caisson/"
     "late\nStandardOutput=journal+console\nStandardError=journal+console\n\n"
     "[Install]\nWantedBy=multi-user.target\n"},
    {"etc/systemd/system/caisson-agent.service", 0644,
     "[Unit]\nDescription=Caisson's agent: exec, cp and stop from outside\n"
     "After=caisson-seed.service\n\n"
     "[Service]\nExecStartPre=-/sbin/modprobe vmw_vsock_virtio_transport\n"
     "ExecStart=/usr/local/lib/caisson/agent\nRestart=on-failure\nRestartSec=1\n\n"
     "[Install]\nWantedBy=multi-user.target\n"},
    {"etc/motd", 0644,
     "\nDebian in Caisson. root has no password on this console; from outside: caisson ssh.\n"
     "The kernel is started from outside, so its package is on hold; poweroff ends the machine.\n\n"},
}};

// Packages beyond mmdebstrap's "minbase".
inline constexpr std::string_view image_packages =
    "systemd-sysv,udev,dbus,kmod,login,iproute2,iputils-ping,procps,nano,less,netbase,ca-certificates,initramfs-tools,"
    "lz4,openssh-server,sudo,"
    "e2fsprogs,linux-image-cloud-amd64";

// mmdebstrap --essential-hook: before the kernel's package makes its initramfs. The cloud kernel has ext4 built in; its
// virtio drivers are modules. lz4 unpacks fastest, which matters on a CPU in software.
inline constexpr std::string_view essential_hook =
    "mkdir -p \"$1/etc/initramfs-tools/conf.d\" && "
    "printf 'MODULES=list\\nCOMPRESS=lz4\\nFSTYPE=ext4\\n' >\"$1/etc/initramfs-tools/conf.d/caisson\" && "
    "printf 'virtio_pci\\nvirtio_blk\\next4\\n' >\"$1/etc/initramfs-tools/modules\"";

// mmdebstrap --customize-hook: what needs the guest's own programs. The host's added certificates come along, since its
// mirror or proxy may need them.
inline constexpr std::string_view customize_hook =
    "chroot \"$1\" apt-mark -q hold linux-image-cloud-amd64 >/dev/null && "
    "if ls /usr/local/share/ca-certificates/*.crt >/dev/null 2>&1; then "
    "cp -L /usr/local/share/ca-certificates/*.crt \"$1/usr/local/share/ca-certificates/\" && "
    "chroot \"$1\" update-ca-certificates >/dev/null; fi";

// Runs as root, or as what passes for it (own user namespace, or fakeroot), with the archive on standard input.
//   $1 work folder   $2 disk size in bytes   $3 extra options for tar
inline constexpr std::string_view pack_script = R"sh(
set -eu
work=$1 size=$2 tar_options=$3
tree=$work/tree
mkdir "$tree"
echo "@unpack"
tar -xpf - --numeric-owner --exclude='./dev/*' $tar_options -C "$tree"
echo "@settle"
cp -R "$work/overlay/." "$tree/"
chown -R -h 0:0 "$tree/etc/systemd" "$tree/usr/local/lib/caisson"
for file in hostname hosts fstab resolv.conf motd apt/sources.list; do
  chown 0:0 "$tree/etc/$file"
  chmod 644 "$tree/etc/$file"
done
chown 0:0 "$tree/etc/apt/apt.conf.d/90caisson"
rm -f "$tree/etc/apt/apt.conf.d/99mmdebstrap" "$tree/etc/apt/sources.list.d"/*.list "$tree/etc/apt/sources.list.d"/*.sources
for file in "$tree/etc/apt/auth.conf" "$tree/etc/apt/auth.conf.d"/*.conf; do
  if [ -f "$file" ]; then
    sed -i -E 's/(machine[[:space:]]+([a-z]+:\/\/)?)(localhost|127(\.[0-9]+){3})/\110.0.2.2/' "$file"
    chown 0:0 "$file"
    chmod 600 "$file"
  fi
done
rm -f "$tree"/etc/ssh/ssh_host_*
sed -i 's/^root:[^:]*:/root::/' "$tree/etc/shadow"
wants=$tree/etc/systemd/system/multi-user.target.wants
mkdir -p "$wants" "$tree/etc/systemd/system/sockets.target.wants"
units=/lib/systemd/system
ln -sf $units/systemd-networkd.service "$wants/systemd-networkd.service"
ln -sf $units/systemd-networkd.socket "$tree/etc/systemd/system/sockets.target.wants/systemd-networkd.socket"
ln -sf $units/systemd-networkd.service "$tree/etc/systemd/system/dbus-org.freedesktop.network1.service"
for unit in caisson-resolv-conf.service caisson-resolv-conf.path caisson-seed.service caisson-late.service caisson-agent.service; do
  ln -sf "/etc/systemd/system/$unit" "$wants/$unit"
done
# There is no screen for a login on tty1, nobody wants apt to wake up in a short-lived machine, and without LVM there is
# nothing for e2scrub to look for.
rm -f "$tree/etc/systemd/system/getty.target.wants/getty@tty1.service"
rm -f "$tree/etc/systemd/system/timers.target.wants"/apt-daily*.timer
rm -f "$tree/etc/systemd/system/timers.target.wants/e2scrub_all.timer"
rm -f "$tree/etc/systemd/system"/*.target.wants/e2scrub_reap.service
for unit in systemd-networkd-wait-online.service getty@tty1.service; do
  ln -sf /dev/null "$tree/etc/systemd/system/$unit"
done
kernel=$(ls "$tree"/boot/vmlinuz-* | sort -V | tail -n 1)
cp "$kernel" "$work/out/vmlinuz"
cp "$tree/boot/initrd.img-${kernel##*/vmlinuz-}" "$work/out/initrd.img"
dpkg-query --admindir="$tree/var/lib/dpkg" -W -f '${db:Status-Abbrev}|${Package}|${Version}\n' >"$work/packages"
echo "@image"
rm -f "$work/out/disk.raw"
make_image() { mke2fs -q -F -t ext4 -L debian -m 1 -E "$1" -d "$tree" "$work/out/disk.raw" "$((size / 1024))k"; }
# Prezeroed: a new sparse file reads as zeroes, so neither mke2fs nor the guest's kernel need write the inode tables.
make_image lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1 2>"$work/mke2fs" ||
  make_image lazy_itable_init=1,lazy_journal_init=1
chmod 600 "$work/out"/*
echo "@end"
)sh";

}  // namespace caisson::cli
