# A guest on qcow2 disks: one of its own, one that is based on another; then what QEMU says of them.
head -c 4194304 /dev/urandom >base.raw
sum=$(sha256sum base.raw | cut -d' ' -f1)
"$CAISSON" disk create vda.qcow2 16M
"$CAISSON" disk create vdb.qcow2 --backing base.raw
words="vdb_sum=$sum"
boot disk disk --disk vda.qcow2 --disk vdb.qcow2,ro
expect_passed
"$CAISSON" disk check vda.qcow2
qemu-img check -q -f qcow2 vda.qcow2
qemu-img convert -f qcow2 vda.qcow2 vda.raw
[ "$(head -c 4194304 vda.raw | sha256sum | cut -d' ' -f1)" = "$sum" ] || die "what the guest wrote is not in the image"
# A raw disk on which a guest has put a qcow2 header stays raw.
"$CAISSON" disk create hole.qcow2 16M --backing /etc/passwd --backing-folder /etc --backing-format raw
mv hole.qcow2 vda.raw
words="cpus=1 least_kib=200000"
boot hole boot --disk vda.raw --cpus 1 --memory 256M
expect_passed
expect_error 1 "$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --disk vda.raw,format=qcow2
cp vda.raw unnamed
expect_error 1 "$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" --disk unnamed
