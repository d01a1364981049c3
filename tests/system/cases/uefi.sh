# UEFI firmware gets to its shell on the serial console, and what is written to its variables is there at the next start.
guid=0c4a5ea8-3f5e-4c1e-9d1b-5a0de53c9d11
shell() { # shell OUT COMMAND: types it into the shell of a new start, then switches off
  mkfifo "$1.keys"
  timeout 200 "$CAISSON" run --firmware uefi --firmware-vars vars.fd --memory 256M --net none --no-reboot <"$1.keys" >"$1" 2>"$1.err" &
  vmm=$!
  exec 3>"$1.keys"
  wait_for "$1" 'Shell>' 120
  printf '%s\r' "$2" >&3
  sleep 2
  printf 'reset -s\r' >&3
  exec 3>&-
  status=0
  wait "$vmm" || status=$?
  [ "$status" = 0 ] || die "exit status $status: $(cat "$1.err")"
}
shell first.out "setvar marker -guid $guid -bs -nv =0x4b455054"
shell second.out "setvar marker -guid $guid"
grep -a -q -i '54.50.45.4b\|4b.45.50.54\|4B455054\|5450454B' second.out || die "the variable is gone"
expect_error 1 "$CAISSON" run --firmware uefi --firmware-vars second.out --memory 256M --net none
