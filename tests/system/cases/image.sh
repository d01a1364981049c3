# Images of the user's own: import, export and back; machines made of them; errors that lose nothing.
export XDG_CACHE_HOME="$PWD/cache"
export XDG_DATA_HOME="$PWD/data"
images=$XDG_CACHE_HOME/caisson/images
kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
trap '"$CAISSON" rm -f one two 2>/dev/null || :' EXIT

# A disk that GRUB starts: it says so and switches the machine off.
mkdir -p root
grub_disk() {
  printf 'serial\nterminal_output serial\necho hello from %s\nhalt\n' "$1" >early.cfg
  grub-mkimage -O i386-pc -p / -c early.cfg -o core.img biosdisk serial terminal echo halt acpi
  truncate -s 4M disk.raw
  dd if=/usr/lib/grub/i386-pc/boot.img of=disk.raw bs=440 count=1 conv=notrunc status=none
  printf '\125\252' | dd of=disk.raw bs=1 seek=510 conv=notrunc status=none
  dd if=core.img of=disk.raw bs=512 seek=1 conv=notrunc status=none
}
grub_disk import
"$CAISSON" image import mine disk.raw >imported
[ "$(cat imported)" = "$images/mine" ] || die "import printed $(cat imported)"
"$CAISSON" image ls | grep -q '^mine .* bios ' || die "ls: $("$CAISSON" image ls)"
cmp disk.raw "$images/mine/disk.raw"
status=0
timeout 120 "$CAISSON" run mine --name one --memory 64M </dev/null >one.out 2>one.err || status=$?
[ "$status" = 0 ] || die "exit status $status: $(cat one.err)"
grep -q 'hello from import' one.out || die "GRUB does not say hello: $(cat one.out)"
# The machine has a disk of its own over the image's, which stays, and stays as it is.
qemu-img info "$XDG_DATA_HOME/caisson/vms/one/disk.qcow2" | grep -q "backing file: $images/mine/disk.raw" || die "no overlay"
cmp disk.raw "$images/mine/disk.raw"
expect_error 1 "$CAISSON" image rm mine
grep -q 'machine one' refused.err || die "does not say which machine"
expect_error 1 "$CAISSON" image import --force mine disk.raw
"$CAISSON" rm one

# Export: the disk alone, which others can read; all of it; and back.
"$CAISSON" image export mine mine.qcow2 >/dev/null
qemu-img compare -q mine.qcow2 disk.raw || die "the exported disk is another"
"$CAISSON" image export --json mine mine.tar | grep -q '"file": "mine.tar"' || die "no JSON"
tar tf mine.tar | tr '\n' ' ' | grep -q '^manifest.json disk.qcow2 $' || die "tar: $(tar tf mine.tar)"
"$CAISSON" image rm mine
"$CAISSON" image import mine mine.tar >/dev/null
cmp disk.raw "$images/mine/disk.raw"
"$CAISSON" image import other mine.qcow2 --json | grep -q '"folder"' || die "no JSON"
cmp disk.raw "$images/other/disk.raw"
qemu-img convert -O vmdk disk.raw disk.vmdk
"$CAISSON" image import third disk.vmdk >/dev/null
cmp disk.raw "$images/third/disk.raw"

# A disk without a boot loader, with a kernel from outside.
truncate -s 16M plain.raw
expect_error 1 "$CAISSON" image import plain plain.raw
grep -q -- --kernel refused.err || die "no remedy: $(cat refused.err)"
"$CAISSON" image import plain plain.raw --kernel "$kernel" --initrd "$initrd" --append test=boot >/dev/null
status=0
timeout 300 "$CAISSON" run plain --name two --memory 128M </dev/null >two.out 2>two.err || status=$?
[ "$status" = 0 ] || die "exit status $status: $(cat two.err)"
"$CAISSON" rm two

# What is wrong is said in one line, and nothing is left of it.
expect_error 2 "$CAISSON" image import debian disk.raw
expect_error 2 "$CAISSON" image import ../x disk.raw
expect_error 2 "$CAISSON" image import x.qcow2 disk.raw
expect_error 1 "$CAISSON" image import mine disk.raw
expect_error 1 "$CAISSON" image import new missing.raw
expect_error 2 "$CAISSON" image export mine mine.zip
expect_error 1 "$CAISSON" image export mine mine.qcow2
expect_error 1 "$CAISSON" image export none none.tar
expect_error 2 "$CAISSON" run none
head -c 100000 mine.tar >cut.tar
expect_error 1 "$CAISSON" image import cut cut.tar
head -c 5000 mine.qcow2 >cut.qcow2
expect_error 1 "$CAISSON" image import cut cut.qcow2
sed -i 's/"version": 1/"version": 99/' "$images/third/manifest.json"
expect_error 2 "$CAISSON" run third
grep -q 'newer version' refused.err || die "not said that it is newer: $(cat refused.err)"
"$CAISSON" image ls 2>ls.err | grep -q '^third .* broken ' || die "ls: $("$CAISSON" image ls)"
"$CAISSON" image rm third
[ "$(ls -A "$images" | grep -v lock | tr '\n' ' ')" = 'mine other plain ' ] || die "left: $(ls -A "$images")"

# A file system that is full: one line, nothing left, what was there stays.
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=6m tmpfs small 2>/dev/null; then
  trap 'umount small; "$CAISSON" rm -f one two 2>/dev/null || :' EXIT
  head -c 8M /dev/urandom >full.raw
  XDG_CACHE_HOME=$PWD/small expect_error 1 "$CAISSON" image import full full.raw --firmware bios
  grep -q 'make room' refused.err || die "no remedy: $(cat refused.err)"
  [ -z "$(ls -A small/caisson/images | grep -v lock)" ] || die "left: $(ls -A small/caisson/images)"
fi

# Killed imports leave an image that is whole, or none, and what they began the next command removes.
head -c 64M /dev/urandom >large.raw
i=0
while [ "$i" -lt "${IMAGE_KILLS-20}" ]; do
  i=$((i + 1))
  "$CAISSON" image import killed large.raw --firmware bios --force >/dev/null 2>&1 &
  import=$!
  sleep "0.$(printf '%02d' $((i * 7 % 40)))"
  kill -9 "$import" 2>/dev/null || :
  wait "$import" 2>/dev/null || :
  "$CAISSON" image ls >ls.out
  [ ! -e "$images/.killed.import" ] || die "left behind"
  if grep -q '^killed ' ls.out; then cmp large.raw "$images/killed/disk.raw"; fi
done
