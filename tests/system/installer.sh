# For the cases of Debian's installer. It gets its packages from this host: the mirror, with the list of the installer's
# packages over it that tests/system/installer made.

# start_mirror SUITE ARCHITECTURE: Debian's mirror at http://127.0.0.1:$port/debian/, by the process $mirror.
start_mirror() {
  made=$GUESTS/installer-$1-$2
  site=$(cat "$made/mirror")
  free_port
  mkdir -p www temporary
  ln -s "$made/www" www/debian
  cat >nginx.conf <<END
daemon off;
master_process off;
pid nginx.pid;
events { worker_connections 64; }
http {
  access_log access.log;
  client_body_temp_path temporary; proxy_temp_path temporary; fastcgi_temp_path temporary;
  uwsgi_temp_path temporary; scgi_temp_path temporary;
  server {
    listen 127.0.0.1:$port;
    location /debian/ { root www; try_files \$uri @mirror; }
    location @mirror {
      rewrite ^/debian/(.*)\$ $(echo "$site" | sed 's,^[a-z]*://[^/]*,,')/\$1 break;
      proxy_pass $(echo "$site" | sed 's,^\([a-z]*://[^/]*\).*,\1,');
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_max_temp_file_size 0;
    }
  }
}
END
  "$GUESTS/nginx/usr/sbin/nginx" -p "$PWD" -c nginx.conf -e stderr 2>mirror.out &
  mirror=$!
}

# install SUITE ARCHITECTURE WORDS OPTIONS OF caisson run…: the installer, started from a CD with these words for its kernel,
# installs on disk.qcow2 until it powers the machine off. Packages come through start_mirror.
install() {
  "$TESTS/package" nginx
  vmm=
  start_mirror "$1" "$2"
  trap 'kill "$mirror" 2>/dev/null || :; [ -z "$vmm" ] || kill -9 "$vmm" 2>/dev/null || :' EXIT
  installer_cd installer.iso "$1" "$2" "$3"
  shift 3
  "$CAISSON" disk create disk.qcow2 6G
  "$CAISSON" run "$@" --cdrom installer.iso --disk disk.qcow2 --memory 1G --cpus 2 --no-reboot \
    </dev/null >install.out 2>install.err &
  vmm=$!
  status=0
  wait "$vmm" || status=$?
  [ "$status" = 0 ] || die "exit status $status: $(cat install.err)"
  qemu-img check disk.qcow2
}

# installer_cd FILE SUITE ARCHITECTURE WORDS…: a CD that starts the installer by GRUB, with these words for its kernel and a
# file of answers to every question it asks: Debian without a task on the whole first disk, root's password is "caisson".
installer_cd() {
  cd_file=$1
  made=$GUESTS/installer-$2-$3
  shift 3
  mkdir -p cd answers
  cp "$made/linux" "$made/initrd.gz" cd/
  cat >answers/preseed.cfg <<END
d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string installed
d-i netcfg/get_domain string
d-i mirror/country string manual
d-i mirror/http/hostname string 10.0.2.2:$port
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i debian-installer/allow_unauthenticated boolean true
d-i passwd/root-password password caisson
d-i passwd/root-password-again password caisson
d-i passwd/make-user boolean false
d-i clock-setup/utc boolean true
d-i clock-setup/ntp boolean false
d-i time/zone string UTC
d-i partman-auto/method string regular
d-i partman-auto/choose_recipe select atomic
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i apt-setup/services-select multiselect
d-i apt-setup/cdrom/set-first boolean false
tasksel tasksel/first multiselect
d-i pkgsel/upgrade select none
popularity-contest popularity-contest/participate boolean false
d-i grub-installer/only_debian boolean true
d-i grub-installer/bootdev string default
d-i finish-install/reboot_in_progress note
d-i debian-installer/exit/poweroff boolean true
END
  (cd answers && echo preseed.cfg | cpio -o -H newc -R 0:0 --quiet) >cd/answers.cpio
  grub_cd "$cd_file" cd <<END
linux /linux auto=true priority=critical $*
initrd /initrd.gz /answers.cpio
boot
END
}

# installed_login CONSOLE COMMAND OPTIONS OF caisson run…: what was installed gets to a login on that console, by the password;
# the command's output there is in login.out; the machine powers itself off. What is typed goes to hvc0 as soon as the guest
# has opened that, and else to ttyS0.
installed_login() {
  console=$1
  command=$2
  shift 2
  mkfifo keys
  "$CAISSON" run "$@" --disk disk.qcow2 --memory 512M --cpus 2 --no-reboot <keys >login.out 2>login.err &
  vmm=$!
  exec 3>keys
  wait_for login.out "installed $console" 300
  in_time 60 sh -c "sed '1,/installed $console/d' login.out | grep -q 'installed login:'"
  echo root >&3
  wait_for login.out 'Password:' 60
  echo caisson >&3
  wait_for login.out 'root@installed.*#' 60
  echo "$command; poweroff" >&3
  exec 3>&-
  status=0
  wait "$vmm" || status=$?
  [ "$status" = 0 ] || die "exit status $status: $(cat login.err)"
}
