# Images from addresses: the user's catalogue, a web server, what is cut off, killed, wrong, or finds no room.
export XDG_CACHE_HOME="$PWD/cache" XDG_DATA_HOME="$PWD/data" XDG_CONFIG_HOME="$PWD/config"
unset http_proxy https_proxy all_proxy
images=$XDG_CACHE_HOME/caisson/images
downloads=$XDG_CACHE_HOME/caisson/downloads
mkdir -p web config/caisson
# A disk that starts a kernel's test takes a boot loader; here it is enough that GRUB says hello and switches off.
printf 'serial\nterminal_output serial\necho hello from afar\nhalt\n' >early.cfg
grub-mkimage -O i386-pc -p / -c early.cfg -o core.img biosdisk serial terminal echo halt acpi
head -c 40M /dev/urandom >disk.raw
dd if=/usr/lib/grub/i386-pc/boot.img of=disk.raw bs=440 count=1 conv=notrunc status=none
printf '\125\252' | dd of=disk.raw bs=1 seek=510 conv=notrunc status=none
dd if=core.img of=disk.raw bs=512 seek=1 conv=notrunc status=none
xz -0 -T1 <disk.raw >web/disk.raw.xz
sum=$(sha256sum web/disk.raw.xz | cut -d ' ' -f 1)
free_port
busybox httpd -f -p "127.0.0.1:$port" -h web &
httpd=$!
trap 'kill "$httpd"; "$CAISSON" rm -f afar 2>/dev/null || :' EXIT
url=http://127.0.0.1:$port/disk.raw.xz
catalogue() {
  printf '{"version": 1, "images": [{"name": "afar", "url": "%s", "sha256": "%s", "about": "a test"}]}\n' "$1" "$2" >config/caisson/catalogue.json
}

"$CAISSON" image catalogue | grep -q '^debian:13 .*built here' || die "nothing is built in: $("$CAISSON" image catalogue)"
expect_error 2 "$CAISSON" run afar
grep -q catalogue.json refused.err || die "does not say where to add it"
catalogue "$url" "$sum"
"$CAISSON" image catalogue --json | grep -q '"name": "afar"' || die "the user's is not there"

# A run of what is in the catalogue gets it; killed pulls go on.
i=0
while [ "$i" -lt "${PULL_KILLS-15}" ]; do
  i=$((i + 1))
  "$CAISSON" image pull --force afar >/dev/null 2>&1 &
  pull=$!
  sleep "0.$(printf '%02d' $((i * 11 % 60)))"
  kill -9 "$pull" 2>/dev/null || :
  wait "$pull" 2>/dev/null || :
  "$CAISSON" image ls >ls.out
  if grep -q '^afar ' ls.out; then cmp disk.raw "$images/afar/disk.raw"; fi
done
"$CAISSON" image rm afar 2>/dev/null || :
status=0
timeout 120 "$CAISSON" run afar --memory 64M </dev/null >afar.out 2>afar.err || status=$?
[ "$status" = 0 ] || die "exit status $status: $(cat afar.err)"
grep -q 'hello from afar' afar.out || die "GRUB does not say hello: $(cat afar.out)"
cmp disk.raw "$images/afar/disk.raw"
[ -z "$(ls -A "$downloads")" ] || die "left: $(ls -A "$downloads")"
expect_error 1 "$CAISSON" image pull afar
expect_error 1 "$CAISSON" image pull --force afar
grep -q 'machine afar' refused.err || die "does not say which machine: $(cat refused.err)"
"$CAISSON" rm afar

# An address, with and without what it must be; a file.
expect_error 2 "$CAISSON" image pull "$url"
expect_error 2 "$CAISSON" image pull ftp://127.0.0.1/disk.raw --no-checksum
"$CAISSON" image pull "$url" --name second --sha256 "$sum" >/dev/null
"$CAISSON" image pull "file://$PWD/web/disk.raw.xz" --name third --no-checksum --json 2>/dev/null | grep -q '"image": "third"' || die "no JSON"
cmp disk.raw "$images/third/disk.raw"

# What is wrong: one line, nothing lost, nothing left.
catalogue "$url" "$(echo "$sum" | tr 0-9a-f 1-9a-f0)"
expect_error 1 "$CAISSON" image pull --force afar
grep -q 'SHA-256' refused.err || die "not said what is wrong"
cmp disk.raw "$images/afar/disk.raw"
catalogue "$url.missing" "$sum"
expect_error 1 "$CAISSON" image pull --force afar
grep -q 404 refused.err || die "not said that it is not there: $(cat refused.err)"
for text in '' '[]' '{"version": 1}' '{"version": 9}' '{"version": 1, "images": [{"name": "afar"}]}' "$(head -c 3000 /dev/urandom | base64 -w 0)"; do
  printf '%s' "$text" >config/caisson/catalogue.json
  expect_error 1 "$CAISSON" image catalogue
  grep -q catalogue.json refused.err || die "does not say which file: $(cat refused.err)"
done
rm config/caisson/catalogue.json
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=20m tmpfs small 2>/dev/null; then
  trap 'kill "$httpd"; umount small; "$CAISSON" rm -f afar 2>/dev/null || :' EXIT
  XDG_CACHE_HOME=$PWD/small expect_error 1 "$CAISSON" image pull "$url" --name full --sha256 "$sum"
  grep -q 'make room' refused.err || die "no remedy: $(cat refused.err)"
  [ -z "$(ls -A small/caisson/images 2>/dev/null | grep -v lock)" ] || die "left: $(ls -A small/caisson/images)"
fi
[ "$(ls -A "$images" | grep -v lock | tr '\n' ' ')" = 'afar second third ' ] || die "left: $(ls -A "$images")"
