# A Debian machine by one command: a shell, commands, files in and out, a server behind a forwarded port, three at once.
debian_image
trap '"$CAISSON" rm -f web two three 2>/dev/null || :' EXIT
free_port

[ "$("$CAISSON" run -d debian --name web --memory 512M -p "$port:80")" = web ] || die "no name"
"$CAISSON" run -d debian --name two --memory 512M >/dev/null
"$CAISSON" create debian --name three --memory 512M >/dev/null
"$CAISSON" start three
[ "$("$CAISSON" ps | grep -c ' running ')" = 3 ] || die "not three: $("$CAISSON" ps)"
expect_error 1 "$CAISSON" image rm debian:12
expect_error 1 "$CAISSON" image build --force debian:12
grep -q web refused.err || grep -q two refused.err || grep -q three refused.err || die "does not name a machine: $(cat refused.err)"

for name in web two three; do
  [ "$("$CAISSON" exec $name hostname)" = $name ] || die "$name has another name"
done
# Words arrive as they were given, and the status comes back.
[ "$("$CAISSON" exec web printf '%s|' 'a  b' "it's" '$HOME' -r)" = "a  b|it's|\$HOME|-r|" ] || die "words are changed"
status=0
"$CAISSON" exec web sh -c 'exit 7' || status=$?
[ "$status" = 7 ] || die "the command's status is $status"
[ "$(echo in | "$CAISSON" exec web cat)" = in ] || die "standard input"
[ "$(echo hostname | "$CAISSON" ssh two 2>/dev/null | tail -n 1)" = two ] || die "ssh"
status=0
"$CAISSON" exec nobody true 2>/dev/null || status=$?
[ "$status" = 255 ] || die "a machine that is not there: status $status"
expect_error 2 "$CAISSON" exec web
expect_error 2 "$CAISSON" cp a b

mkdir folder
head -c 300000 /dev/urandom >"folder/a file"
"$CAISSON" cp -r folder web:/srv/
"$CAISSON" cp 'web:/srv/folder/a file' back
cmp 'folder/a file' back || die "a copied file differs"

"$CAISSON" exec web sh -c 'cat >/root/serve; chmod +x /root/serve; nohup perl /root/serve >/dev/null 2>&1 </dev/null &' <<'SERVER'
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die;
while (my $client = $listener->accept) { print $client "HTTP/1.0 200 OK\r\n\r\nhello from inside\n"; close $client; }
SERVER
i=0
until printf 'GET / HTTP/1.0\r\n\r\n' | timeout 5 busybox nc 127.0.0.1 "$port" 2>/dev/null | grep -q 'hello from inside'; do
  i=$((i + 1))
  [ "$i" -lt 50 ] || {
    timeout 60 "$CAISSON" exec web sh -c 'ip address; ip neighbour; networkctl --no-pager; ss -tanp; cat /proc/interrupts; journalctl --no-pager -n 30' >guest.out 2>&1 || :
    die "no answer through the forwarded port"
  }
  sleep 0.2
done

# A forward comes and goes while the machine runs, and is there after a restart.
first=$port
free_port
fetch() { printf 'GET / HTTP/1.0\r\n\r\n' | timeout 5 busybox nc 127.0.0.1 "$1" 2>/dev/null; }
"$CAISSON" port web --add "$port:80"
fetch "$port" | grep -q 'hello from inside' || die "no answer through a forward that was added"
"$CAISSON" ps | grep -q "127.0.0.1:$port->80/tcp" || die "ps does not show it: $("$CAISSON" ps)"
expect_error 1 "$CAISSON" port web --add "$port:81"
expect_error 2 "$CAISSON" port web --add "$port"
"$CAISSON" port web --rm "$first"
fetch "$first" | grep -q . && die "a forward that was taken away still answers"
expect_error 1 "$CAISSON" port web --rm "$first"

# What is written stays, and stays its machine's own.
"$CAISSON" restart web 2>/dev/null
[ "$("$CAISSON" port web | grep -c -- '->80/tcp')" = 1 ] && "$CAISSON" port web | grep -q ":$port->80/tcp" ||
  die "after a restart: $("$CAISSON" port web)"
[ "$("$CAISSON" exec web sh -c 'ls /srv')" = folder ] || die "the disk has not kept what was written"
[ -z "$("$CAISSON" exec two ls /srv)" ] || die "two machines share what was written"

# The guest's monotonic clock does not count a pause: it has gone on for less than the host's by as long as that was.
start=$(date +%s.%N)
before=$("$CAISSON" exec two cut -d' ' -f1 /proc/uptime)
"$CAISSON" pause two
expect_error 255 "$CAISSON" exec two true
sleep 5
"$CAISSON" resume two
after=$("$CAISSON" exec two cut -d' ' -f1 /proc/uptime)
echo "$start $(date +%s.%N) $before $after" | awk '{
  host = $2 - $1; guest = $4 - $3
  printf "host %.2f s, guest %.2f s\n", host, guest
  exit !(guest >= 0 && guest <= host - 5 + 0.05)
}' || die "the guest's clock has counted the pause"
