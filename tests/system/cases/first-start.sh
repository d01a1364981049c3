# What is asked for a first start, in a machine of an image that is built here.
debian_image
trap '"$CAISSON" rm -f one two 2>/dev/null || :' EXIT
ssh-keygen -q -t ed25519 -N '' -C "ann's" -f key
head -c 100000 /dev/urandom >payload
printf '#!/bin/sh\necho "it was $(id -un)" >/srv/own\n' >own
printf '#cloud-config\n' >config
"$CAISSON" run debian -d --name one --memory 512M --user ann --ssh-key key.pub --hostname alpha.example.org --file payload:/srv/deep/data >/dev/null
"$CAISSON" run debian -d --name two --memory 512M --cloud-init own >/dev/null
expect_error 1 "$CAISSON" run debian -d --name three --cloud-init config
grep -q 'begins with #!' refused.err || die "no remedy"
[ ! -e "$XDG_DATA_HOME/caisson/vms/three" ] || die "a machine is left"

check() {
  [ "$("$CAISSON" exec one hostname -f)" = alpha.example.org ] || die "its name is $("$CAISSON" exec one hostname -f)"
  "$CAISSON" cp one:/srv/deep/data back && cmp payload back || die "not the file"
  port=$("$CAISSON" port one | sed -n 's/127.0.0.1:\([0-9]*\)->22.*/\1/p')
  [ "$(ssh -i key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p "$port" ann@127.0.0.1 sudo -n id -un)" = root ] ||
    die "ann cannot log in, or not become root"
}
"$CAISSON" exec one systemctl is-system-running --wait || die "$("$CAISSON" exec one systemctl --failed)"
check
"$CAISSON" exec two systemctl is-system-running --wait >/dev/null || :
[ "$("$CAISSON" exec two cat /srv/own)" = "it was root" ] || die "the script has not run"
# Once only; what it did stays.
"$CAISSON" exec one rm /srv/deep/data
"$CAISSON" restart one
"$CAISSON" exec one systemctl is-system-running --wait >/dev/null || :
! "$CAISSON" exec one test -e /srv/deep/data || die "done again at the second start"
"$CAISSON" cp payload one:/srv/deep/data
check
