# caisson disk against qemu-img: what each makes the other reads.
"$CAISSON" disk create a.qcow2 64M
qemu-io -f qcow2 -c 'write -P 5 1M 3M' -c 'write -P 6 40M 64k' a.qcow2 >/dev/null
"$CAISSON" disk create b.qcow2 --backing a.qcow2
qemu-io -f qcow2 -c 'write -P 7 2M 64k' b.qcow2 >/dev/null
"$CAISSON" disk map b.qcow2 --json >map
grep -q '"start":2097152,"length":65536,"content":"data","depth":0' map || die "map: $(cat map)"
"$CAISSON" disk info b.qcow2 --json >info
grep -q '"backing_file": "a.qcow2"' info || die "info: $(cat info)"
for format in raw qcow2 vmdk vhdx vdi; do
  "$CAISSON" disk convert b.qcow2 "out.$format"
  qemu-img compare -q -f qcow2 -F "$format" b.qcow2 "out.$format" || die "$format differs"
  "$CAISSON" disk convert "out.$format" "back-$format.qcow2"
  qemu-img compare -q -f qcow2 -F qcow2 b.qcow2 "back-$format.qcow2" || die "$format differs on its way back"
done
"$CAISSON" disk info out.vmdk >/dev/null
"$CAISSON" disk resize b.qcow2 +64M
"$CAISSON" disk resize out.raw 80M
[ "$(stat -c %s out.raw)" = 83886080 ] || die "out.raw has not the size asked for"
expect_error 2 "$CAISSON" disk resize b.qcow2 32M
"$CAISSON" disk resize b.qcow2 32M --shrink
qemu-img check -q -f qcow2 b.qcow2
"$CAISSON" disk check b.qcow2
# What was not closed well, and what is lost.
printf '\003' | dd of=a.qcow2 bs=1 seek=$((2 * 65536 + 31)) conv=notrunc status=none
status=0
"$CAISSON" disk check a.qcow2 >check || status=$?
[ "$status" = 3 ] || [ "$status" = 1 ] || die "status $status: $(cat check)"
"$CAISSON" disk check --repair a.qcow2 >/dev/null
qemu-img check -q -f qcow2 a.qcow2
# Refused, each in one line.
expect_error 1 "$CAISSON" disk create a.qcow2 1G
expect_error 2 "$CAISSON" disk create new.qcow2
expect_error 2 "$CAISSON" disk create new 1G
expect_error 1 "$CAISSON" disk info missing.qcow2
expect_error 1 "$CAISSON" disk create evil.qcow2 --backing /etc/passwd --backing-format raw
ln -s /etc/passwd link
qemu-img create -q -u -f qcow2 -b link -F raw evil.qcow2 1M
expect_error 1 "$CAISSON" disk map evil.qcow2
printf '%s\n' '# Disk DescriptorFile' version=1 CID=fffffffe parentCID=ffffffff createType=\"monolithicFlat\" \
  'RW 8 FLAT "/etc/passwd" 0' >evil.vmdk
expect_error 1 "$CAISSON" disk convert evil.vmdk evil.raw
[ ! -e evil.raw ] && [ ! -e evil.raw.new ] || die "a file is left"
