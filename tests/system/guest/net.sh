# An address by DHCP, a file from a server on the host, names, and a server of the guest's own behind a port forward.
network || { fail "no lease"; status=1; }
cat /tmp/udhcpc
port=$(word port)
wget -q -O /tmp/file "http://10.0.2.2:$port/file" || { fail "wget"; status=1; }
[ "$(sha256sum /tmp/file | cut -d' ' -f1)" = "$(word file_sum)" ] || { fail "the file is damaged"; status=1; }
nslookup localhost >/dev/null 2>&1 || echo "nslookup of localhost does not work"
mkdir -p /tmp/www
cp /tmp/file /tmp/www/back
httpd -p 80 -h /tmp/www || { fail "httpd"; status=1; }
echo "caisson-test: serving"
i=0
while [ $i -lt 60 ] && [ ! -e /tmp/fetched ]; do
  i=$((i + 1))
  sleep 1
  # The host says that it is done by fetching the end of its own server.
  wget -q -O /tmp/fetched "http://10.0.2.2:$port/done" 2>/dev/null || rm -f /tmp/fetched
done
[ -e /tmp/fetched ] || { fail "nobody came"; status=1; }
