free_port
mkdir www
busybox httpd -f -p "127.0.0.1:$port" -h www &
server=$!
trap 'kill $server' EXIT
sleep 0.5
expect_error 1 "$CAISSON" run --kernel "$GUESTS/cloud-amd64/vmlinuz" -p "$port:80"
grep -q "$port" refused.err || die "the port is not named"
