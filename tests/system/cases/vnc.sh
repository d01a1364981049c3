# A viewer by VNC sees SeaBIOS's and GRUB's screen, and its keys arrive: over the socket in the machine's folder by
# caisson vnc --stdio, and over TCP for who knows the password.
start_pc /usr/lib/grub-rescue/grub-rescue-cdrom.iso --memory 128M --name pc --vnc unix
wait_screen 'Press enter to boot'
[ -S "$("$CAISSON" vnc pc)" ] || die "no socket where caisson vnc says: $("$CAISSON" vnc pc)"
mkfifo viewer
"$CAISSON" vnc pc --stdio <viewer >seen.bin &
relay=$!
exec 3>viewer
printf 'RFB 003.008\n\001\001' >&3
printf '\003\000\000\000\000\000\377\377\377\377' >&3 # the whole picture
wait_bytes() { # wait_bytes COUNT: so many have come at least
  i=0
  until [ "$(wc -c <seen.bin)" -ge "$1" ]; do
    i=$((i + 1))
    [ "$i" -lt 300 ] || die "only $(wc -c <seen.bin) bytes came, not $1"
    sleep 0.1
  done
}
at() { od -An -tu1 -j"$1" -N"$2" seen.bin | tr -s ' ' | sed 's/^ //'; }
wait_bytes 64
[ "$(head -c 11 seen.bin)" = 'RFB 003.008' ] || die "not this protocol"
# After 12 bytes of version, 2 of security types and 4 of its result: width and height.
set -- $(at 18 4)
width=$(($1 * 256 + $2))
height=$(($3 * 256 + $4))
"$CAISSON" screenshot socket screen.png
[ "$(od -An -tu1 -j16 -N8 screen.png | awk '{print $3 * 256 + $4, $7 * 256 + $8}')" = "$width $height" ] ||
  die "the viewer is told another size than the screenshot has: $width x $height"
wait_bytes $((48 + width * height * 4))
# Text: few colours, but more than one.
colours=$(tail -c +100000 seen.bin | od -An -v -tx4 -w4 | sort | uniq -c | awk '$1 > 500' | wc -l)
[ "$colours" -gt 1 ] && [ "$colours" -le 16 ] || die "$colours colours are not a text screen"
before=$(wc -c <seen.bin)
printf '\003\001\000\000\000\000\377\377\377\377' >&3 # what changes
printf '\004\001\000\000\000\000\000c\004\000\000\000\000\000\000c' >&3
wait_screen 'grub>'
wait_bytes $((before + 1000))
for key in 'e' 'c' 'h' 'o' ' ' 'A' '"' '|' '"'; do
  printf '\004\001\000\000\000\000\000%s\004\000\000\000\000\000\000%s' "$key" "$key" >&3
done
printf '\004\001\000\000\000\000\377\015\004\000\000\000\000\000\377\015' >&3 # Return
wait_screen '^A|$'
exec 3>&-
wait "$relay" || die "the relay failed"
stop_pc

echo secret >password
free_port
chmod 644 password
expect_error 1 "$CAISSON" run --firmware bios --memory 64M --vnc 127.0.0.1:$port --vnc-password-file password
chmod 600 password
expect_error 1 "$CAISSON" run --firmware bios --memory 64M --vnc 127.0.0.1:$port
expect_error 2 "$CAISSON" run --firmware bios --memory 64M --vnc 0.0.0.0:$port --vnc-password-file password
expect_error 2 "$CAISSON" run --firmware bios --memory 64M --keyboard-layout xx
expect_error 1 "$CAISSON" vnc pc
start_pc /usr/lib/grub-rescue/grub-rescue-cdrom.iso --memory 64M --name tcp --vnc 127.0.0.1:$port --vnc-password-file password
wait_screen 'Press enter to boot'
[ "$("$CAISSON" vnc tcp)" = "127.0.0.1:$port" ] || die "caisson vnc says $("$CAISSON" vnc tcp)"
{ printf 'RFB 003.008\n\002................'; sleep 4; } | "$CAISSON" vnc tcp --stdio >seen.bin
grep -q 'wrong password' seen.bin || die "not asked for the password"
"$CAISSON" set tcp --vnc none
expect_error 1 "$CAISSON" vnc tcp
stop_pc
