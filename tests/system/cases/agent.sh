# The agent in a machine of an image: commands, files, shutdown and clock without any network.
debian_image
trap '"$CAISSON" rm -f agent 2>/dev/null || :' EXIT
"$CAISSON" run -d debian --name agent --net none --memory 256M >/dev/null
run() { "$CAISSON" exec agent "$@"; }

[ "$(run hostname)" = agent ] || die "another name"
# Words, streams and statuses.
[ "$(run printf '%s|' 'a  b' "it's" '$HOME' -r --)" = "a  b|it's|\$HOME|-r|--|" ] || die "words are changed"
run sh -c 'echo out; echo err >&2; exit 9' >out 2>err && die "no status" || [ $? = 9 ] || die "another status"
[ "$(cat out)" = out ] && [ "$(cat err)" = err ] || die "the streams are mixed up: $(cat out err)"
status=0
run no-such-program 2>err || status=$?
[ "$status" = 127 ] && grep -q 'cannot run no-such-program' err || die "a missing program: $status, $(cat err)"
status=0
run sh -c 'kill -9 $$' || status=$?
[ "$status" = 137 ] || die "killed by a signal: status $status"
# Megabytes each way, as they are; and ends of streams.
head -c 8000000 /dev/urandom >bytes
sum=$(sha256sum <bytes)
[ "$(run sha256sum <bytes)" = "$sum" ] || die "standard input arrives changed"
"$CAISSON" cp bytes agent:
[ "$(run sh -c 'sha256sum <bytes')" = "$sum" ] || die "a file arrives changed"
run cat bytes | cmp - bytes || die "standard output arrives changed"
[ "$(yes | run head -c 100000 | wc -c)" = 100000 ] || die "a command that does not read to the end"
run yes | head -n 1 >/dev/null
i=0
while run sh -c 'cat /proc/[0-9]*/comm 2>/dev/null' | grep -qx yes; do
  i=$((i + 1))
  [ "$i" -lt 50 ] || die "a command goes on although nobody is there"
  sleep 0.2
done
# What it leaves running does not keep it.
[ "$(timeout 100 "$CAISSON" exec agent sh -c 'sleep 1000 & echo done')" = "done" ] || die "waits for what a command left"
# With a terminal on this side there is one on the other.
if command -v script >/dev/null; then
  script -qec "stty cols 123 rows 45; '$CAISSON' exec agent sh -c 'tty; stty size'" /dev/null </dev/null >terminal
  grep -q /dev/pts/ terminal && grep -q '45 123' terminal || die "no terminal: $(cat terminal)"
fi

# Trees.
mkdir -p tree/a/b
echo text >"tree/a/a file"
ln -s "../a file" tree/a/b/link
chmod 750 tree/a
touch -d '2020-01-02 03:04:05 UTC' "tree/a/a file"
"$CAISSON" cp -r tree agent:/srv/
[ "$(run cat /srv/tree/a/b/link)" = text ] || die "a tree arrives changed"
[ "$(run stat -c '%a %Y' '/srv/tree/a/a file')" = "$(stat -c '%a %Y' 'tree/a/a file')" ] || die "mode and time"
"$CAISSON" cp -r agent:/srv/tree back
[ "$(cd tree && find . -printf '%p %m %l\n' | sort)" = "$(cd back && find . -printf '%p %m %l\n' | sort)" ] || die "a tree comes back changed"
expect_error 1 "$CAISSON" cp tree agent:/srv/other
expect_error 1 "$CAISSON" cp bytes agent:/no/such/folder/file
expect_error 1 "$CAISSON" cp agent:/no/such/file .
run sh -c 'mount -t tmpfs -o size=1M none /mnt'
expect_error 1 "$CAISSON" cp bytes agent:/mnt/
grep -q 'No space left' refused.err || die "a full disk: $(cat refused.err)"
[ -z "$(run ls -A /mnt)" ] || die "half a file is left"

# By REST: a command with its input and output, and files.
if [ -x "${CAISSON}d" ]; then
  "${CAISSON}d" --socket "$PWD/s" >daemon.out 2>&1 &
  daemon=$!
  wait_for daemon.out 'listening at' 20
  rest() { curl -sS --unix-socket s "$@"; }
  rest -H 'Content-Type: application/json' -d '{"command": ["sh", "-c", "cat; echo err >&2; exit 9"], "input": "a\nb\n"}' \
    http://x/v1/machines/agent/exec >answer.json
  grep -qF '"status":9,"stderr":"err\n","stdout":"a\nb\n","truncated":false' answer.json || die "exec: $(cat answer.json)"
  rest -H 'Content-Type: application/json' -d '{"command": ["sleep", "100"], "timeout_s": 1}' http://x/v1/machines/agent/exec >answer.json
  grep -q 'has not ended within 1 s' answer.json || die "exec for ever: $(cat answer.json)"
  rest -f -T bytes 'http://x/v1/machines/agent/files?path=/srv/by-rest&mode=600' || die "cannot send a file"
  [ "$(run sh -c 'stat -c %a /srv/by-rest; sha256sum </srv/by-rest')" = "600
$sum" ] || die "a file arrives changed"
  rest -f -o got 'http://x/v1/machines/agent/files?path=/srv/by-rest' || die "cannot get a file"
  cmp got bytes || die "a file comes back changed"
  for path in /srv/none /srv /dev/zero; do
    [ "$(rest -o answer.json -w '%{http_code}' "http://x/v1/machines/agent/files?path=$path")" = 409 ] || die "$path: $(cat answer.json)"
  done
  [ "$(rest -o answer.json -w '%{http_code}' -T bytes 'http://x/v1/machines/agent/files?path=/mnt/x')" = 409 ] || die "a full disk"
  grep -q 'No space left' answer.json || die "a full disk: $(cat answer.json)"
  kill "$daemon"
  wait "$daemon" || die "the daemon ended with status $?"
fi

# After a pause the guest knows the time.
"$CAISSON" pause agent
sleep 6
"$CAISSON" resume agent
behind=$(($(date +%s) - $(run date +%s)))
[ "$behind" -le 3 ] || die "the guest's clock is $behind s behind after a pause"

"$CAISSON" stop agent 2>stop.err
grep -q 'its agent was told; 30 s to shut down' stop.err || die "stop did not go by the agent: $(cat stop.err)"
[ "$("$CAISSON" inspect agent | tr -d ' \n' | grep -c '"reason":"power_off"')" = 1 ] || "$CAISSON" inspect agent
