# The disk for cloud-init: found as cloud-init finds it, read-only, with the files under their names.
modprobe -q isofs
seed=
for disk in /sys/block/vd*; do
  [ "$(dd if=/dev/"${disk##*/}" bs=1 skip=32808 count=6 2>/dev/null)" = CIDATA ] && seed=${disk##*/}
done
[ -n "$seed" ] || { fail "no disk has the label CIDATA"; status=1; }
[ "$(cat "/sys/block/$seed/ro")" = 1 ] || { fail "$seed is not read-only"; status=1; }
mkdir /tmp/seed
mount -t iso9660 -o ro "/dev/$seed" /tmp/seed || { fail "$seed is not mounted"; status=1; }
[ "$(ls /tmp/seed | tr '\n' ' ')" = 'caisson-setup meta-data user-data ' ] || { fail "files: $(ls /tmp/seed)"; status=1; }
[ "$(sha256sum /tmp/seed/user-data | cut -d' ' -f1)" = "$(word user_sum)" ] || { fail "user-data: $(cat /tmp/seed/user-data)"; status=1; }
grep -q "\"local-hostname\": \"$(word host)\"" /tmp/seed/meta-data || { fail "meta-data: $(cat /tmp/seed/meta-data)"; status=1; }
cat /tmp/seed/user-data
