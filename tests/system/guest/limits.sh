# Reads, writes and spins as the host says on the console: "read", "spin", "stop", "end".
mebibytes=$(word mebibytes)
echo "caisson-test: ready"
spinner=
while read -r command; do
  case $command in
    read*)
      echo 3 >/proc/sys/vm/drop_caches
      start=$(cut -d' ' -f1 /proc/uptime)
      dd if=/dev/vda of=/dev/null bs=64k iflag=direct count=$((mebibytes * 16)) 2>/dev/null || { fail "cannot read vda"; status=1; }
      # Milliseconds, whatever the number of its digits.
      end=$(cut -d' ' -f1 /proc/uptime)
      echo "caisson-test: read in $(((${end%.*} - ${start%.*}) * 1000 + (1${end#*.} - 1${start#*.}) * 10)) ms"
      ;;
    spin*)
      (while :; do :; done) &
      spinner=$!
      (while :; do :; done) &
      spinner="$spinner $!"
      echo "caisson-test: spinning"
      ;;
    stop*)
      kill $spinner
      # Its timers still work.
      start=$(cut -d. -f1 /proc/uptime)
      sleep 2
      echo "caisson-test: slept $(($(cut -d. -f1 /proc/uptime) - start)) s"
      ;;
    end*) break ;;
  esac
done
