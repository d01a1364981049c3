# What bash completes comes from the tree of commands; machines are completed by their names. set changes a machine.
kernel=$GUESTS/cloud-amd64/vmlinuz
trap '"$CAISSON" rm -f web work 2>/dev/null || :' EXIT
for shell in bash zsh fish; do "$CAISSON" completion $shell >completion.$shell; done
expect_error 2 "$CAISSON" completion tcsh
PATH=$(dirname "$CAISSON"):$PATH
completes() { # completes "WORD WORD…" EXPECTED: the last word is being typed
  got=$(bash -c '. ./completion.bash; COMP_WORDS=($1); case $1 in *" ") COMP_WORDS+=("") ;; esac
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _caisson; echo "${COMPREPLY[*]}"' - "$1")
  [ "$got" = "$2" ] || die "$1: completes to $got"
}
completes 'caisson inspe' inspect
completes 'caisson image b' build
completes 'caisson image build --mir' --mirror
completes 'caisson run --mem' --memory
completes 'caisson start w' ''
"$CAISSON" create --name web --kernel "$kernel" >/dev/null
"$CAISSON" create --name work --kernel "$kernel" >/dev/null
completes 'caisson start w' 'web work'
completes 'caisson start web wo' work
completes 'caisson stop --time' --timeout
# Each command's help has examples of that command.
commands() { "$CAISSON" "$@" --help | sed -n '/^Subcommands:/,/^$/s/^  \([a-z]*\) .*/\1/p'; }
[ "$(commands | wc -l)" -gt 20 ] || die "--help does not list the commands"
for command in $(commands) "image build" "image rm" "disk create" "disk check" "disk map"; do
  "$CAISSON" $command --help | grep -q "^  caisson $command" || die "$command --help has no example of it"
done
# The manual has a page for each command, and what it says is what --help says.
mkdir man1
"$CAISSON" man man1 >man.out
for page in caisson caisson-run caisson-disk-create caisson-top; do [ -s man1/$page.1 ] || die "no page $page"; done
[ "$(ls man1 | wc -l)" -eq "$(sed -n 's/ pages in .*//p' man.out)" ] || die "not all pages are there: $(cat man.out)"
for option in $("$CAISSON" run --help | grep -o '^  [-a-z,]*--[a-z-]*' | tr ',' '\n'); do
  sed 's/\\-/-/g' man1/caisson-run.1 | grep -q -- "$option" || die "the page of run does not have $option"
done
[ "$("$CAISSON" man | head -1)" = "$(head -1 man1/caisson.1)" ] || die "man prints another page than it writes"
expect_error 1 "$CAISSON" man /dev/null/nowhere
if command -v groff >/dev/null; then
  for page in man1/*; do
    complaints=$(groff -man -Tutf8 -ww "$page" 2>&1 >/dev/null)
    [ -z "$complaints" ] || die "$page: $complaints"
  done
fi
if command -v fish >/dev/null; then fish -n completion.fish; fi

"$CAISSON" set web --memory 256M --cpus 3 -p 8080:80 --stop-timeout 5
"$CAISSON" inspect web >web.json
for line in '"memory_bytes": 268435456' '"cpus": 3' '"host_port": 8080' '"stop_timeout_s": 5'; do
  grep -q "$line" web.json || die "set has not set $line"
done
"$CAISSON" set web --cpus 4
"$CAISSON" inspect web | grep -q '"memory_bytes": 268435456' || die "set has changed what it was not told to"
expect_error 2 "$CAISSON" set web --memory 1
expect_error 2 "$CAISSON" set web -p nonsense
expect_error 1 "$CAISSON" set nobody --cpus 1
