# caissond by curl over its unix socket: a machine's whole life, its events, and the daemon killed under it.
kernel=$GUESTS/cloud-amd64/vmlinuz
initrd=$GUESTS/cloud-amd64/initrd.gz
XDG_CONFIG_HOME=$WORK/config
XDG_CACHE_HOME=$WORK/cache
export XDG_CONFIG_HOME XDG_CACHE_HOME
socket=$WORK/daemon.sock
audit=$XDG_DATA_HOME/caisson/audit.log
daemon=
trap '[ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null || :; "$CAISSON" rm -f one two once 2>/dev/null || :' EXIT
trap 'exit 1' INT TERM

start_daemon() {
  : >daemon.out # an earlier one has said the same
  "${CAISSON}d" --socket "$socket" "$@" >daemon.out 2>&1 &
  daemon=$!
  wait_for daemon.out "listening at $socket" 20
}
# ask STATUS METHOD PATH [JSON]: the answer is in answer.json.
ask() {
  wanted=$1
  method=$2
  path=$3
  shift 3
  [ $# = 0 ] || set -- -H 'Content-Type: application/json' -d "$1"
  got=$(curl -sS -o answer.json -w '%{http_code}' --unix-socket "$socket" -X "$method" "$@" "http://caisson$path") || die "$method $path: no answer"
  [ "$got" = "$wanted" ] || die "$method $path: status $got, expected $wanted: $(cat answer.json)"
}
answer_has() { grep -q -- "$1" answer.json || die "no $1 in: $(cat answer.json)"; }
job_ends() { # of answer.json, with state $1
  id=$(sed -n 's/.*"id":\([0-9]*\).*/\1/p' answer.json)
  i=0
  until ask 200 GET "/v1/jobs/$id" && grep -q '"ended_ms"' answer.json; do
    i=$((i + 1))
    [ "$i" -lt 1200 ] || die "job $id does not end: $(cat answer.json)"
    sleep 0.1
  done
  answer_has "\"state\":\"$1\""
}
job() { # STATE PATH BODY: what is asked for becomes a job, which ends so
  ask 202 POST "$2" "$3"
  job_ends "$1"
}

start_daemon
[ "$(stat -c %a "$socket")" = 600 ] || die "the socket's mode is $(stat -c %a "$socket")"
expect_error 1 "${CAISSON}d" --socket "$socket"
curl -sSN --unix-socket "$socket" http://caisson/v1/events >events.out 2>/dev/null &
watcher=$!
wait_for events.out listening 20

ask 201 POST /v1/machines "{\"name\": \"one\", \"memory_bytes\": 134217728, \"kernel\": \"$kernel\", \"initrd\": \"$initrd\", \"append\": \"test=button\"}"
answer_has '"state":"created"'
wait_for events.out '^event: created$' 10
ask 409 POST /v1/machines "{\"name\": \"one\", \"kernel\": \"$kernel\"}"
ask 422 POST /v1/machines "{\"name\": \"two\", \"kernel\": \"$kernel\", \"colour\": 1}"
answer_has colour
ask 404 GET /v1/machines/two
ask 405 PUT /v1/machines
ask 200 PATCH /v1/machines/one '{"cpus": 1}'
answer_has '"cpus":1'
ask 200 POST /v1/machines/one/start
answer_has '"state":"running"'
ask 409 POST /v1/machines/one/start
"$CAISSON" ps | grep -qE '^one +running ' || die "ps does not agree: $("$CAISSON" ps -a)"
ask 204 POST /v1/machines/one/pause
ask 200 GET /v1/machines/one
answer_has '"state":"paused"'
ask 204 POST /v1/machines/one/resume
curl -sS --unix-socket "$socket" http://caisson/metrics >metrics
grep -q '^caisson_machine_state{machine="one",state="running"} 1$' metrics || die "metrics: $(cat metrics)"
grep -q '^caisson_machine_resident_bytes{machine="one"} [1-9]' metrics || die "metrics: $(cat metrics)"
for event in changed started paused resumed; do wait_for events.out "^event: $event$" 10; done

# One that goes when it ends; nobody has to ask.
ask 200 POST '/v1/machines?dry_run=true' "{\"name\": \"once\", \"kernel\": \"$kernel\", \"transient\": true}"
answer_has '"would":"make once and start it"'
ask 404 GET /v1/machines/once
ask 201 POST /v1/machines "{\"name\": \"once\", \"memory_bytes\": 134217728, \"kernel\": \"$kernel\", \"initrd\": \"$initrd\", \"append\": \"test=button\", \"transient\": true}"
answer_has '"state":"running"'
ask 204 POST /v1/machines/once/kill
i=0
while [ -e "$XDG_DATA_HOME/caisson/vms/once" ]; do
  i=$((i + 1))
  [ "$i" -lt 100 ] || die "is still there: $("$CAISSON" ps -a)"
  sleep 0.1
done

# Disk images and images of the host, by jobs.
job done /v1/disks/create "{\"path\": \"$WORK/d.qcow2\", \"bytes\": 8388608}"
answer_has '"size":8388608'
job failed /v1/disks/create "{\"path\": \"$WORK/d.qcow2\", \"bytes\": 8388608}"
answer_has 'exists already'
ask 200 POST '/v1/disks/resize?dry_run=true' "{\"path\": \"$WORK/d.qcow2\", \"bytes\": 16777216}"
answer_has '"would":"make disk .*16777216"'
job done /v1/disks/resize "{\"path\": \"$WORK/d.qcow2\", \"bytes\": 16777216}"
job done /v1/disks/convert "{\"path\": \"$WORK/d.qcow2\", \"to\": \"$WORK/d.raw\"}"
[ "$(stat -c %s d.raw)" = 16777216 ] || die "converted to $(stat -c %s d.raw) bytes"
job done /v1/disks/check "{\"path\": \"$WORK/d.qcow2\"}"
answer_has '"corruptions":0'
job done /v1/disks/info "{\"path\": \"$WORK/d.raw\"}"
answer_has '"format":"raw"'
printf '\125\252' | dd of=d.raw bs=1 seek=510 conv=notrunc 2>/dev/null
job done /v1/images/mine/import "{\"file\": \"$WORK/d.raw\", \"firmware\": \"bios\"}"
ask 200 POST '/v1/images/mine/export?dry_run=true' "{\"file\": \"$WORK/mine.tar\"}"
[ ! -e mine.tar ] || die "a dry run has written"
job done /v1/images/mine/export "{\"file\": \"$WORK/mine.tar\"}"
tar -tf mine.tar | grep -q manifest.json || die "exported: $(tar -tf mine.tar)"
ask 204 DELETE /v1/images/mine

# Killed, the daemon takes nothing with it; started again it finds all within two seconds.
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || :
wait "$watcher" 2>/dev/null || :
"$CAISSON" ps | grep -qE '^one +running ' || die "went with the daemon: $("$CAISSON" ps -a)"
start_daemon
ask 200 GET /v1/machines/one
answer_has '"state":"running"'

# A running machine's process is no zombie after its end, whoever started it; stop waits in a job.
: >events.out
curl -sSN --unix-socket "$socket" http://caisson/v1/events >events.out 2>/dev/null &
wait_for events.out listening 20
ask 202 POST /v1/machines/one/stop '{"timeout_s": 120}'
job_ends done
wait_for events.out '^event: exited$' 10
ask 200 GET /v1/machines/one/logs?lines=5
ask 200 PATCH /v1/machines/one '{"autostart": true}'
ask 200 POST /v1/machines/one/start
ask 204 POST /v1/machines/one/kill
i=0
while [ -n "$(cat /proc/"$daemon"/task/*/children 2>/dev/null)" ]; do
  i=$((i + 1))
  [ "$i" -lt 50 ] || die "the daemon has children left: $(cat /proc/"$daemon"/task/*/children)"
  sleep 0.1
done

# Ends in order; what is to start with it does.
kill "$daemon"
wait "$daemon" || die "the daemon ended with status $?"
[ ! -e "$socket" ] || die "the socket is left"
start_daemon
i=0
until "$CAISSON" ps | grep -qE '^one +running '; do
  i=$((i + 1))
  [ "$i" -lt 100 ] || die "not started with the daemon: $(cat daemon.out "$audit")"
  sleep 0.1
done
ask 409 DELETE /v1/machines/one
ask 204 DELETE '/v1/machines/one?force=true'
ask 404 GET /v1/machines/one
grep -q '"object":"one","operation":"removeMachine","result":"ok","role":"admin","status":204,"who":"uid [0-9]*"' "$audit" || die "not in the record: $(cat "$audit")"
kill "$daemon"
wait "$daemon" || die "the daemon ended with status $?"
daemon=
