# For the cases: every one runs in a folder of its own, with -eu; a command that fails fails the case.

die() { echo "$*"; exit 1; }

# boot NAME TEST [OPTIONS OF caisson run…]: runs the guest test; NAME.out has the console, NAME.err the rest. Sets $status.
# Kernel words go in $words; the kernel's flavour in $flavour.
flavour=cloud-amd64
words=
boot() {
  name=$1
  test=$2
  shift 2
  status=0
  "$CAISSON" run --kernel "$GUESTS/$flavour/vmlinuz" --initrd "$GUESTS/$flavour/initrd.gz" --append "test=$test $words" "$@" \
    </dev/null >"$name.out" 2>"$name.err" || status=$?
}

expect_status() { [ "$status" = "$1" ] || die "exit status $status, expected $1: $(tail -n 3 "$name.err")"; }
expect_passed() {
  expect_status 0
  grep -q 'caisson-test: PASSED' "$name.out" || die "the guest did not say PASSED"
  ! grep -q 'caisson-test: FAILED' "$name.out" || die "$(grep 'caisson-test: FAILED' "$name.out")"
  [ ! -s "$name.err" ] || die "unexpected: $(cat "$name.err")"
}

# expect_error STATUS COMMAND…: it fails with one line on standard error, at once.
expect_error() {
  wanted=$1
  shift
  status=0
  timeout 20 "$@" </dev/null >refused.out 2>refused.err || status=$?
  [ "$status" = "$wanted" ] || die "exit status $status, expected $wanted: $*: $(cat refused.err)"
  [ "$(wc -l <refused.err)" = 1 ] || die "not one line: $*: $(cat refused.err)"
  grep -q '^caisson: error: ' refused.err || die "not an error line: $(cat refused.err)"
  cat refused.err
}

# wait_for FILE TEXT [SECONDS]
wait_for() {
  i=0
  until grep -q "$2" "$1" 2>/dev/null; do
    i=$((i + 1))
    [ "$i" -lt $((${3-120} * 10)) ] || die "\"$2\" does not appear in $1"
    sleep 0.1
  done
}

# A free TCP port, and one after it: listening there would succeed right now. Cases that run at once look in other places.
free_port() {
  port=$((20000 + $$ * 16 % 12000)) # below those that connections get
  while grep -q "$(printf ':%04X ' "$port")" /proc/net/tcp; do port=$((port + 1)); done
}

# grub_cd FILE FOLDER: a CD that starts GRUB, with what is in the folder; its boot/grub/grub.cfg comes from standard input.
grub_cd() {
  mkdir -p "$2/boot/grub"
  cat >"$2/boot/grub/grub.cfg"
  grub-mkrescue -o "$1" "$2" >grub-mkrescue.log 2>&1 || die "grub-mkrescue failed: $(cat grub-mkrescue.log)"
}

# network_case NAME OPTIONS…: the guest of that name, which has an address by DHCP, gets a file by HTTP from this host,
# and gives it back through a forwarded port.
network_case() {
  name=$1
  shift
  mkdir www
  head -c 3000000 /dev/urandom >www/file
  free_port
  busybox httpd -f -p "127.0.0.1:$port" -h www &
  server=$!
  trap 'kill $server' EXIT
  forward=$((port + 1))
  words="port=$port file_sum=$(sha256sum www/file | cut -d' ' -f1)"
  (
    wait_for "$name.out" 'caisson-test: serving' 300
    busybox wget -q -O back "http://127.0.0.1:$forward/back" && cmp back www/file && touch fetched
    touch www/done
  ) &
  boot "$name" "$name" "$@" -p "$forward:80"
  expect_passed
  [ -e fetched ] || die "the port forward did not bring the file back"
}

# start_pc OPTIONS…: a machine that $firmware (bios) starts, in the background; pc.out has its serial console, `socket` takes requests.
start_pc() {
  "$CAISSON" run --firmware "${firmware-bios}" --stop-timeout 1 --control socket "$@" </dev/null >pc.out 2>pc.err &
  vmm=$!
  # A case that fails leaves nothing behind.
  trap 'kill -9 "$vmm" 2>/dev/null || :' EXIT
  trap 'exit 1' INT TERM
}
# start_uefi_cd FOLDER: a machine that OVMF starts from a CD with what is in the folder, and GRUB, which reads its
# boot/grub/grub.cfg. Only GRUB's EFI build is on it, so that it is not SeaBIOS's that runs.
start_uefi_cd() {
  grub-mkrescue -d /usr/lib/grub/x86_64-efi -o grub.iso "$1" >mkrescue.log 2>&1 || die "grub-mkrescue failed: $(cat mkrescue.log)"
  firmware=uefi
  start_pc --firmware-vars vars.fd --cdrom grub.iso --memory 64M --cpus 1 --net none
}
# wait_screen TEXT [SECONDS]: until it is on the text screen, which screen.txt then has.
wait_screen() {
  i=0
  until "$CAISSON" screenshot socket screen.txt --text 2>/dev/null && grep -q -- "$1" screen.txt; do
    i=$((i + 1))
    [ "$i" -lt $((${2-60} * 10)) ] || die "\"$1\" is not on the screen: $(cat screen.txt pc.err)"
    sleep 0.1
  done
}
stop_pc() {
  kill "$vmm"
  kill "$vmm" 2>/dev/null || :
  wait "$vmm" || :
  trap - EXIT
}

# debian_image: an image debian:12 that this source built (a minute or two), kept in build/guests/ until its recipe changes.
debian_image() {
  XDG_CACHE_HOME=$GUESTS/cache
  export XDG_CACHE_HOME
  source=$TESTS/../../src
  stamp=$(cat "$source"/cli/image_files.h "$source"/cli/image_build.cpp "$source"/agent/*.[hc]* "$source"/guest/* | sha256sum | cut -c1-16)
  mkdir -p "$XDG_CACHE_HOME"
  ( # one builds it, others wait
    flock 9
    [ "$(cat "$XDG_CACHE_HOME/stamp" 2>/dev/null)" != "$stamp" ] || exit 0
    "$CAISSON" image build debian:12 --force 9>&-
    echo "$stamp" >"$XDG_CACHE_HOME/stamp"
  ) 9>"$XDG_CACHE_HOME/lock"
}

# debian_disk NUMBER: Debian's image is in $image, built if it has to be; grub.cfg starts it from that partition. For
# a boot sector or partition table: little NUMBER gives printf's text for 32 bits.
debian_disk() {
  debian_image
  image=$XDG_CACHE_HOME/caisson/images/debian-12
  PATH=$PATH:/usr/sbin:/sbin
  version=$(debugfs -R 'ls -p /boot' "$image/disk.raw" 2>/dev/null | sed -n 's,.*/vmlinuz-\([^/]*\)/.*,\1,p' | head -n 1)
  [ -n "$version" ] || die "no kernel on Debian's disk"
  cat >grub.cfg <<END
set root=(hd0,msdos$1)
linux /boot/vmlinuz-$version root=/dev/vda$1 rw console=ttyS0
initrd /boot/initrd.img-$version
boot
END
}
little() { printf '\\%03o\\%03o\\%03o\\%03o' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }

# disk_comes_and_goes OPTIONS OF caisson run…: a Debian disk that firmware starts, as a machine that gets another disk while it
# runs, without a rescan in the guest, and gives it back.
disk_comes_and_goes() {
  trap '"$CAISSON" rm -f plugged >/dev/null 2>&1 || :' EXIT
  "$CAISSON" run -d --name plugged --vsock --memory 512M --net none "$@"
  in_time 120 "$CAISSON" exec plugged true
  truncate -s 64M more.raw
  "$CAISSON" attach plugged --disk more.raw
  in_time 30 "$CAISSON" exec plugged test -b /dev/vdb
  [ "$("$CAISSON" exec plugged blockdev --getsize64 /dev/vdb)" = 67108864 ] || die "not the disk that was attached"
  "$CAISSON" detach plugged more.raw
  in_time 30 "$CAISSON" exec plugged sh -c '! test -e /dev/vdb'
}
# in_time SECONDS COMMAND…: until it succeeds.
in_time() {
  i=$(($1 * 5))
  shift
  until "$@" >/dev/null 2>&1; do
    i=$((i - 1))
    [ "$i" -gt 0 ] || die "does not become true: $*"
    sleep 0.2
  done
}
