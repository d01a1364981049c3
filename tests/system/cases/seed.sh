# What cloud-init finds: a disk with the label CIDATA, which xorriso reads, and a guest by Linux' isofs.
kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
trap '"$CAISSON" rm -f one two 2>/dev/null || :' EXIT
vms=$XDG_DATA_HOME/caisson/vms

# User-data of the user's own, in a guest.
printf '#cloud-config\npackages: [nginx]\nruncmd:\n- echo "it%ss there"\n' "'" >user.yaml
words="user_sum=$(sha256sum user.yaml | cut -d ' ' -f 1) host=web.example.org"
boot own seed --memory 128M --cloud-init user.yaml --hostname web.example.org
expect_passed

# Made of options; looked at from outside.
ssh-keygen -q -t ed25519 -N '' -C 'ann at home' -f key
printf 'hello "there"\n' >motd
"$CAISSON" create --name one --memory 128M --kernel "$kernel" --initrd "$initrd" --append test=seed --user ann --ssh-key key.pub \
  --packages nginx,curl --packages git --file motd:/etc/motd --file "$initrd:/srv/large" 2>refused.err && die "a large file is taken"
grep -q 'caisson cp' refused.err || die "no remedy: $(cat refused.err)"
"$CAISSON" create --name one --memory 128M --kernel "$kernel" --initrd "$initrd" --user ann --ssh-key key.pub \
  --packages nginx,curl --packages git --file motd:/etc/motd >/dev/null
xorriso -indev "$vms/one/seed.iso" -osirrox on -extract / out >xorriso.out 2>&1 || die "xorriso: $(cat xorriso.out)"
! grep -qi 'sorry\|failure\|warning' xorriso.out || die "xorriso: $(cat xorriso.out)"
grep -q "Volume id    : 'CIDATA'" xorriso.out || die "no label: $(cat xorriso.out)"
chmod -R u+w out
head -n 1 out/user-data | grep -qx '#cloud-config' || die "user-data: $(cat out/user-data)"
for text in '"name": "ann"' "$(cut -d ' ' -f 1,2 key.pub)" '"nginx"' '"curl"' '"git"' '"path": "/etc/motd"' "$(base64 -w 0 motd)" '"name": "root"'; do
  grep -qF "$text" out/user-data || die "no $text in $(cat out/user-data)"
done
grep -q '"local-hostname": "one"' out/meta-data || die "meta-data: $(cat out/meta-data)"
"$CAISSON" inspect one | grep -q seed.iso || die "not a disk of the machine"

# The first start only; what is wrong is said, and nothing is left.
expect_error 2 "$CAISSON" create --name two --kernel "$kernel" --user 'Ann!'
expect_error 2 "$CAISSON" create --name two --kernel "$kernel" --ssh-key key
grep -q key.pub refused.err || die "no remedy: $(cat refused.err)"
expect_error 2 "$CAISSON" create --name two --kernel "$kernel" --ssh-key missing.pub
expect_error 2 "$CAISSON" create --name two --kernel "$kernel" --cloud-init motd
expect_error 2 "$CAISSON" create --name two --kernel "$kernel" --cloud-init user.yaml --user ann
expect_error 2 "$CAISSON" create --name two --kernel "$kernel" --file motd
expect_error 2 "$CAISSON" create --name two --kernel "$kernel" --hostname a..b
[ ! -e "$vms/two" ] || die "a machine is left"
