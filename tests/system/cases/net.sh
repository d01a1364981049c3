mkdir www
head -c 3000000 /dev/urandom >www/file
free_port
busybox httpd -f -p "127.0.0.1:$port" -h www &
server=$!
trap 'kill $server' EXIT
forward=$((port + 1))
words="port=$port file_sum=$(sha256sum www/file | cut -d' ' -f1)"
(
  wait_for net.out 'caisson-test: serving' 300
  busybox wget -q -O back "http://127.0.0.1:$forward/back" && cmp back www/file && touch fetched
  touch www/done
) &
boot net net -p "$forward:80"
expect_passed
[ -e fetched ] || die "the port forward did not bring the file back"
