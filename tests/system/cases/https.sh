# caissond by HTTPS: who gets in by a token or a certificate and who does not, a long answer, events, and a console by WebSocket.
XDG_CONFIG_HOME=$WORK/config
export XDG_CONFIG_HOME
socket=$WORK/daemon.sock
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || :; "$CAISSON" rm -f one 2>/dev/null || :' EXIT
trap 'exit 1' INT TERM

# certificate NAME SIGNER [EXTENSION]: NAME.pem and NAME.key; one that signs itself where SIGNER is NAME.
certificate() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj "/CN=$1" -out "$1.csr" 2>/dev/null
  echo "${3-basicConstraints=CA:FALSE}" >extension
  if [ "$1" = "$2" ]; then
    openssl x509 -req -in "$1.csr" -signkey "$1.key" -extfile extension -days 2 -out "$1.pem" 2>/dev/null
  else
    openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -extfile extension -days 2 -out "$1.pem" 2>/dev/null
  fi
}
certificate authority authority basicConstraints=critical,CA:TRUE
certificate server authority subjectAltName=IP:127.0.0.1
certificate ann authority
certificate bob authority
certificate eve eve
mkdir -p config/caisson
echo '{"certificates": {"ann": "operator"}}' >config/caisson/caissond.json

viewer=$("${CAISSON}d" token add looks --role viewer --expires 1d)
admin=$("${CAISSON}d" token add rules --role admin)
old=$("${CAISSON}d" token add gone --role admin)
"${CAISSON}d" token list | grep -q '^looks *viewer *in 23 h$' || die "tokens: $("${CAISSON}d" token list)"
"${CAISSON}d" token remove gone
! grep -rq -e "$viewer" -e "$admin" config data 2>/dev/null || die "a token is kept as it is"

expect_error 1 "${CAISSON}d" --socket "$socket" --listen 127.0.0.1:0
expect_error 1 "${CAISSON}d" --socket "$socket" --listen 127.0.0.1:0 --cert server.pem --key eve.key --client-ca authority.pem
"${CAISSON}d" --socket "$socket" --listen 127.0.0.1:0 --cert server.pem --key server.key --client-ca authority.pem >daemon.out 2>&1 &
daemon=$!
wait_for daemon.out 'listening at https://' 20
address=$(sed -n 's,listening at https://,,p' daemon.out)

# One that says nothing: it is not waited for longer than a handshake may take.
mkfifo silence
exec 4<>silence
(timeout 50 busybox nc "${address%:*}" "${address#*:}" <silence >/dev/null 2>&1 && touch let_go || :; touch ended) &

# ask STATUS METHOD PATH OPTIONS OF curl…: the answer is in answer.json.
ask() {
  wanted=$1
  method=$2
  path=$3
  shift 3
  got=$(curl -sS --cacert authority.pem -o answer.json -w '%{http_code}' -X "$method" "$@" "https://$address$path") || die "$method $path: no answer"
  [ "$got" = "$wanted" ] || die "$method $path: status $got, expected $wanted: $(cat answer.json)"
}
by_token() { # TOKEN STATUS METHOD PATH OPTIONS…
  token=$1
  shift
  ask "$@" -H "Authorization: Bearer $token"
}
as() { # NAME STATUS METHOD PATH OPTIONS…
  name=$1
  shift
  ask "$@" --cert "$name.pem" --key "$name.key"
}
json='Content-Type: application/json'
machine="{\"name\": \"one\", \"memory_bytes\": 134217728, \"kernel\": \"$GUESTS/cloud-amd64/vmlinuz\", \"initrd\": \"$GUESTS/cloud-amd64/initrd.gz\", \"append\": \"test=button\"}"

ask 401 GET /v1/machines
by_token wrong 401 GET /v1/machines
by_token "$old" 401 GET /v1/machines
by_token "$viewer" 200 GET /v1/machines
by_token "$viewer" 403 POST /v1/machines -H "$json" -d "$machine"
as bob 401 GET /v1/machines
# Nobody has signed for eve; what is no TLS gets no answer either. It goes on.
! curl -sS --cacert authority.pem --cert eve.pem --key eve.key "https://$address/v1/machines" >eve.out 2>&1 || die "eve got in: $(cat eve.out)"
! curl -sS "http://$address/v1/machines" >plain.out 2>&1 || die "without TLS: $(cat plain.out)"
head -c 100000 /dev/urandom | timeout 20 busybox nc "${address%:*}" "${address#*:}" >/dev/null 2>&1 || :
by_token "$admin" 201 POST /v1/machines -H "$json" -d "$machine"
as ann 403 DELETE /v1/machines/one

# An answer of many TLS records, and several on one connection.
curl -sS --unix-socket "$socket" http://x/v1/openapi.json >wanted.json
[ "$(stat -c %s wanted.json)" -gt 40000 ] || die "a short document"
curl -sS --cacert authority.pem --cert ann.pem --key ann.key -w '%{num_connects}\n' -o first.json "https://$address/v1/openapi.json" \
  -o second.json "https://$address/v1/openapi.json" >connects
cmp wanted.json first.json
cmp wanted.json second.json
[ "$(tr '\n' ' ' <connects)" = '1 0 ' ] || die "not on one connection: $(cat connects)"
ask 413 POST /v1/machines -H "Authorization: Bearer $admin" -H "$json" -d "$(head -c 100000 /dev/zero | tr '\0' ' ')"

# Events and the console while it runs.
curl -sSN --cacert authority.pem -H "Authorization: Bearer $viewer" "https://$address/v1/events" >events.out 2>/dev/null &
wait_for events.out listening 20
as ann 200 POST /v1/machines/one/start
wait_for events.out '^event: started$' 10
mkfifo request
openssl s_client -quiet -connect "$address" -CAfile authority.pem -verify_return_error -cert ann.pem -key ann.key \
  <request >console.out 2>console.err &
exec 3>request
printf 'GET /v1/machines/one/console HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' >&3
printf 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n' >&3
wait_for console.out 'HTTP/1.1 101' 20
grep -aq 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=' console.out || die "not the answer to that key (RFC 6455, 1.3)"
wait_for console.out 'Run /init as init' 120
"$CAISSON" kill one
wait_for events.out '^event: exited$' 10
exec 3>&-

# The silent one has been let go, by now or in a moment.
i=0
until [ -e ended ]; do
  i=$((i + 1))
  [ "$i" -lt 600 ] || die "a connection that says nothing is kept"
  sleep 0.1
done
[ -e let_go ] || die "a connection that says nothing is kept"
grep -q '"operation":"handshake"' data/caisson/audit.log || die "no handshake that failed in the audit log: $(cat data/caisson/audit.log)"
kill "$daemon"
wait "$daemon" || die "the daemon ended with $?"
daemon=
