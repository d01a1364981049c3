# Memtest86+ passes over 64 MiB without an error. Left out is test 10, which waits for ten minutes for bits to fade.
"$TESTS/package" memtest86+
start_pc --cdrom "$GUESTS/memtest86+/usr/lib/memtest86+/memtest86+x64.iso" --memory 64M --cpus 1
wait_screen '<F1> Configuration'
menu() { # menu KEYS TEXT: presses keys until a menu shows the text
  "$CAISSON" type socket "$1"
  wait_screen "$2" 20
}
menu '<f1>' 'Test selection'
menu '<f1>' 'Remove one test'
menu '<f2>' 'Enter'
menu '10<enter>' '\*\.\*\*\*\*\*\*\*\*\.$'
"$CAISSON" type socket '<f10>'
wait_screen 'Test selection' 20
"$CAISSON" type socket '<f10>'
wait_screen 'Pass:  *1 *Errors: 0' 500
cp screen.txt last.out
"$CAISSON" screenshot socket "${PICTURE-screen.png}"
stop_pc
