cat /proc/uptime; ls -l /dev/kvm
caisson doctor | grep -A1 kvm
chmod +x caisson caisson-vmm
for n in 1 2; do
  cut -d' ' -f1 /proc/uptime
  timeout 200 caisson run --engine kvm --kernel vmlinuz --initrd initrd.gz --append "test=boot cpus=$n least_kib=100000" --cpus $n --memory 512M --json </dev/null 
  echo status $?
done
dmesg | tail -20
