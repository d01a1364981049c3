# The second serial port: says something, and hears what the host answers, if it does.
grep -q '^1: uart:16550A port:000002F8 irq:3 ' /proc/tty/driver/serial || { cat /proc/tty/driver/serial; fail "no second port"; status=1; }
stty -F /dev/ttyS1 raw -echo 2>/dev/null || stty raw -echo </dev/ttyS1
exec 5<>/dev/ttyS1
i=0
while [ $i -lt 200 ]; do
  echo "line $i of what the guest says on its second port" >&5
  i=$((i + 1))
done
if [ "$(word answers)" = 1 ]; then
  read -r answer <&5
  [ "$answer" = "good morning" ] || { fail "heard $answer"; status=1; }
fi
