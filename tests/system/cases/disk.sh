truncate -s 16M vda.raw
head -c 4194304 /dev/urandom >vdb.raw
sum=$(sha256sum vdb.raw | cut -d' ' -f1)
words="vdb_sum=$sum"
boot disk disk --cpus 2 --disk vda.raw --disk vdb.raw,ro
expect_passed
[ "$(head -c 4194304 vda.raw | sha256sum | cut -d' ' -f1)" = "$sum" ] || die "what the guest wrote is not in the file"
[ "$(sha256sum vdb.raw | cut -d' ' -f1)" = "$sum" ] || die "the read-only disk has changed"
[ "$(tail -c +$(((8191 + 8192) * 512 + 1)) vda.raw | head -n 1 | tr -d '\0')" = "sector 8191" ] || die "a sector is missing"
