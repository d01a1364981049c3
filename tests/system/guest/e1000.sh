# The network test by Linux's e1000 driver, with and without what the card can do by itself.
modprobe -q e1000
ls /sys/class/net | grep -q eth0 || { fail "no network card"; status=1; }
[ "$(basename "$(readlink /sys/class/net/eth0/device/driver)")" = e1000 ] || { fail "another driver"; status=1; }
[ "$(cat /sys/class/net/eth0/address)" = 52:54:00:12:34:56 ] || { fail "the address in the EEPROM"; status=1; }
. /tests/net.sh
[ "$(cat /sys/class/net/eth0/carrier)" = 1 ] || { fail "no link"; status=1; }
[ "$(cat /sys/class/net/eth0/speed)" = 1000 ] || { fail "not a gigabit"; status=1; }
for errors in rx_errors tx_errors rx_dropped tx_dropped rx_crc_errors; do
  [ "$(cat /sys/class/net/eth0/statistics/$errors)" = 0 ] || { fail "$errors: $(cat /sys/class/net/eth0/statistics/$errors)"; status=1; }
done
# Unloaded and loaded once more, the card works again.
ip link set eth0 down
rmmod e1000
modprobe -q e1000
network || { fail "no lease after the driver came again"; status=1; }
dmesg | grep -E 'e1000.*(Tx Unit Hang|Reset adapter|EEPROM|checksum|Hardware Error)|eth0: .*hang' >/tmp/bad && { cat /tmp/bad; fail "e1000 errors"; status=1; }
