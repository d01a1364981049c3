# caissond: a machine made, started and stopped by REST is the one that the command line lists; it outlives the daemon.
daemon=$(dirname "$CAISSON")/caissond
rest() { curl -s --max-time 60 --unix-socket "$WORK/rest.sock" "$@"; }
status_of() { rest -o answer -w '%{http_code}' "$@"; }
start_daemon() {
  "$daemon" --socket "$WORK/rest.sock" >daemon.out 2>&1 &
  pid=$!
  i=0
  until rest http://x/v1/machines >/dev/null; do
    i=$((i + 1))
    [ "$i" -lt 100 ] || die "caissond does not answer: $(cat daemon.out)"
    sleep 0.1
  done
}
end_daemon() { kill -9 "$pid" 2>/dev/null || :; wait "$pid" 2>/dev/null || :; }
trap 'end_daemon; "$CAISSON" rm -f rest 2>/dev/null || :' EXIT

start_daemon
machine="{\"name\": \"rest\", \"kernel\": \"$GUESTS/cloud-amd64/vmlinuz\", \"initrd\": \"$GUESTS/cloud-amd64/initrd.gz\",
  \"append\": \"test=wait\", \"cpus\": 1, \"memory_bytes\": 268435456}"
json='Content-Type: application/json'
status=$(status_of -X POST -H "$json" -d "$machine" http://x/v1/machines)
[ "$status" = 201 ] || die "making: $status $(cat answer)"
[ "$(status_of -X POST -H "$json" -d "$machine" http://x/v1/machines)" = 409 ] || die "made twice: $(cat answer)"
[ "$(status_of -X POST -H "$json" -d '{"name": "b", "colour": 1}' http://x/v1/machines)" = 422 ] || die "an unknown field: $(cat answer)"
grep -q colour answer || die "does not name the field: $(cat answer)"
[ "$(status_of http://x/v1/machines/nobody)" = 404 ] || die "who is not there: $(cat answer)"
[ "$(status_of -X POST http://x/v1/machines/rest/start)" = 200 ] || die "starting: $(cat answer)"
"$CAISSON" ps | grep -q '^rest .*running' || die "ps: $("$CAISSON" ps)"

end_daemon
"$CAISSON" ps | grep -q '^rest .*running' || die "the machine has gone with the daemon"
rm -f "$WORK/rest.sock"
start_daemon
rest http://x/v1/machines/rest | grep -q '"state":"running"' || die "not found again: $(rest http://x/v1/machines/rest)"
rest http://x/metrics | grep -q 'rest' || die "not in the metrics"
[ "$(status_of -X POST http://x/v1/machines/rest/kill)" = 204 ] || die "killing: $(cat answer)"
[ "$(status_of -X DELETE http://x/v1/machines/rest)" = 204 ] || die "removing: $(cat answer)"
[ -z "$("$CAISSON" ps -a | grep '^rest')" ] || die "still there"
