# kill -9 of the command, of the VMM or of the daemon at a random moment of a random command of a machine's life. Afterwards
# each machine is there or not, runs or not, its processes are those that the store knows, and the next command works.
# LIFE_KILLS tries, every third of them (LIFE_DAEMON_EACH) by the daemon.
kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
vms=$XDG_DATA_HOME/caisson/vms
options="--memory 96M --cpus 1 --kernel $kernel --initrd $initrd --append test=button"
tries=${LIFE_KILLS-25}
caissond=${CAISSON}d
daemon=
trap '[ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null || :
  "$CAISSON" rm -f a b c $("$CAISSON" ps | sed -n "s/^\(vm-[0-9]*\) .*/\1/p") 2>/dev/null || :' EXIT

random() { # random N: 0 to N - 1
  number=$(od -An -N4 -tu4 /dev/urandom)
  echo $((number % $1))
}
pick() { # pick WORD…
  shift "$(random $#)"
  echo "$1"
}
there() { [ -d "$vms/$1" ]; }
# Processes that hold a machine of this store alive; a machine's that was removed count as well.
holders() { find /proc/[0-9]*/fd -lname "$vms/*/alive*" 2>/dev/null | cut -d/ -f3 | sort -un; }
known() { "$CAISSON" ps --json | sed -n 's/^    "pid": \([0-9]*\).*/\1/p' | sort -un; }

try() {
  name=$(pick a b)
  command=$(pick run run create start start stop kill restart pause resume rm rename front)
  case $command in
    # shellcheck disable=SC2086
    run) set -- run -d --name "$name" $options ;;
    # shellcheck disable=SC2086
    front) set -- run --name c $options ;;
    # shellcheck disable=SC2086
    create) set -- create --name "$name" $options ;;
    stop | restart) set -- "$command" -t "$(random 2)" "$name" ;;
    rm) set -- rm -f "$name" ;;
    rename) set -- rename "$name" "$(pick a b)" ;;
    *) set -- "$command" "$name" ;;
  esac
  delay=$(pick 0 0.001 0.003 0.005 0.01 0.02 0.04 0.08 0.16)
  victim=$(pick command command vmm)
  echo "$*; kill the $victim after $delay s" >>tries.log
  "$CAISSON" "$@" </dev/null >/dev/null 2>command.err &
  pid=$!
  sleep "$delay"
  if [ "$victim" = vmm ]; then
    for holder in $(holders); do
      [ "$holder" = "$pid" ] || kill -KILL "$holder" 2>/dev/null || :
    done
    [ "$command" != front ] || kill -TERM "$pid" 2>/dev/null || :
    # A command whose machine is killed under it comes to an end by itself.
    i=0
    while kill -0 "$pid" 2>/dev/null && [ "$(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null)" != Z ]; do
      i=$((i + 1))
      [ "$i" -lt 600 ] || die "hangs: $(tail -n 1 tries.log)"
      sleep 0.05
    done
  else
    kill -KILL "$pid" 2>/dev/null || :
  fi
  wait "$pid" 2>/dev/null || :
}

start_daemon() {
  "$caissond" --socket "$PWD/s" 2>>daemon.err &
  daemon=$!
  i=0
  until curl -s -o /dev/null --unix-socket s http://x/v1/host; do
    i=$((i + 1))
    [ "$i" -lt 200 ] || die "caissond does not come up: $(tail -n 3 daemon.err)"
    sleep 0.05
  done
}
# The same by the daemon, which is killed meanwhile and comes back.
try_daemon() {
  name=$(pick a b)
  command=$(pick create create once start start start stop kill restart pause resume rm rename)
  body='{}'
  method=POST
  path=machines/$name/$command
  case $command in
    create)
      path=machines
      body="{\"name\": \"$name\", \"kernel\": \"$kernel\", \"initrd\": \"$initrd\", \"append\": \"test=button\", \"memory_bytes\": 100663296, \"cpus\": 1}"
      ;;
    once)
      path=machines
      body="{\"name\": \"c\", \"transient\": true, \"kernel\": \"$kernel\", \"initrd\": \"$initrd\", \"append\": \"test=button\", \"memory_bytes\": 100663296, \"cpus\": 1}"
      ;;
    stop | restart) body="{\"timeout_s\": $(random 2)}" ;;
    rename) body="{\"name\": \"$(pick a b)\"}" ;;
    rm)
      method=DELETE
      path="machines/$name?force=true"
      ;;
    *) body= ;;
  esac
  delay=$(pick 0 0.001 0.003 0.005 0.01 0.02 0.04 0.08 0.16)
  echo "$method $path; kill the daemon after $delay s" >>tries.log
  curl -s -m 30 -o answer.json --unix-socket s -X "$method" ${body:+-H "Content-Type: application/json" -d "$body"} "http://x/v1/$path" &
  pid=$!
  sleep "$delay"
  kill -KILL "$daemon"
  wait "$daemon" 2>/dev/null || :
  wait "$pid" || :
  start_daemon
}

consistent() {
  "$CAISSON" ps -a >table || { why="ps fails"; return 1; }
  why=$(grep -E '^[^ ]+ +(broken|starting) ' table) && return 1
  holders >held
  known >named
  why="processes: $(tr '\n' ' ' <held)known: $(tr '\n' ' ' <named)"
  cmp -s held named || return 1
  why="left in the store: $(ls -A "$vms")"
  for entry in $(ls -A "$vms"); do
    case $entry in
      .* | vm-*) return 1 ;;
      c) grep -q '^c ' table || return 1 ;;
    esac
  done
}

"$CAISSON" ps >/dev/null
[ ! -x "$caissond" ] || start_daemon
n=0
while [ "$n" -lt "$tries" ]; do
  n=$((n + 1))
  if [ -n "$daemon" ] && [ $((n % ${LIFE_DAEMON_EACH-3})) = 0 ]; then try_daemon; else try; fi
  # What was killed may need a moment to be gone.
  i=0
  until consistent; do
    i=$((i + 1))
    [ "$i" -lt 100 ] || die "after $(tail -n 1 tries.log): $why; $(cat table)"
    sleep 0.05
  done
  name=$(pick a b)
  before=$("$CAISSON" ps -a | sed -n "s/^$name  *\([a-z]*\) .*/\1/p")
  case $before in
    # shellcheck disable=SC2086
    '') next="create --name $name $options" ;;
    running | paused) next="$(pick kill "rm -f") $name" ;;
    *) next="$(pick start rm) $name" ;;
  esac
  # shellcheck disable=SC2086
  "$CAISSON" $next </dev/null >/dev/null 2>next.err || die "after $(tail -n 1 tries.log): $before, then $next: $(cat next.err)"
done
echo "$n tries"
