# --dry-run of what changes images, disks, forwards and files: it says what would be, or why not, and nothing is different.
XDG_CACHE_HOME=$WORK/cache
XDG_CONFIG_HOME=$WORK/config
export XDG_CACHE_HOME XDG_CONFIG_HOME
kernel=$GUESTS/cloud-amd64/vmlinuz
trap '"$CAISSON" rm -f one 2>/dev/null || :' EXIT
"$CAISSON" create --name one --kernel "$kernel" --memory 128M -p 18080:80 >/dev/null
"$CAISSON" disk create disk.qcow2 8M
truncate -s 1M disk.raw
printf '\125\252' | dd of=disk.raw bs=1 seek=510 conv=notrunc 2>/dev/null
"$CAISSON" image import mine disk.raw --firmware bios >/dev/null

picture() { find . -name '*.log' -o -name '*.err' -o -name '*.out' -o -name log -o -type f -print | sort | xargs sha256sum | grep -v ' ./said$\| ./before$\| ./after$\| ./log$'; }
would() { # TEXT COMMAND…
  text=$1
  shift
  "$CAISSON" "$@" --dry-run >said 2>&1 || die "$*: $(cat said)"
  grep -q -- "$text" said || die "$*: no $text in: $(cat said)"
}
picture >before
would 'would forward 127.0.0.1:9000 to port 90' port one --add 9000:90
would 'port 18080' port one --rm 18080 --add 18080:81
would 'would make other, qcow2 of 8388608 bytes' disk create other 8M --format qcow2
would '8388608 bytes one of 16777216' disk resize disk.qcow2 +8M
would '8388608 bytes one of 4194304' disk resize disk.qcow2 4M --shrink
would '1048576 bytes one of 2097152' disk resize disk.raw 2M
would 'would make new.raw' disk convert disk.qcow2 new.raw
would clean disk check disk.qcow2 --repair
would 'would make image other of disk.raw' image import other disk.raw
would 'would make image other of disk.raw' image import other disk.raw --force
would 'would write image mine into mine.tar' image export mine mine.tar
would 'would make image you of https://example.org/you.qcow2' image pull https://example.org/you.qcow2 --no-checksum
would 'would remove .*mine' image rm mine
for refused in 'port one --add 18080:81' 'port one --rm 99' 'disk create disk.qcow2 1M' 'disk convert none.qcow2 new.raw' \
  'disk convert disk.qcow2 disk.raw' 'image import mine disk.raw' 'image import other none.raw' 'image export mine disk.qcow2' \
  'image export none mine.tar' 'image rm none' 'cp disk.raw one:/' 'cp disk.raw none:/'; do
  # shellcheck disable=SC2086
  expect_error 1 "$CAISSON" $refused --dry-run
done
rm -f refused.out refused.err
picture >after
cmp before after || die "something has changed: $(diff before after)"
expect_error 2 "$CAISSON" create --name '' --kernel "$kernel"
"$CAISSON" man made/man1 >/dev/null && [ -s made/man1/caisson-run.1 ] || die "no manual pages in a new folder"
"$CAISSON" version --json | tr -d ' \n' | grep -q '^{"version":"[0-9.]*","machine_format":1,' || die "version: $("$CAISSON" version --json)"
