# What the scripts of the lab's machine share.
# QEMU 7.2 does not let a hypervisor intercept XSETBV, so KVM would not follow the guest's XCR0: a model without XSAVE.
model=x86-64-v2
export GUESTS=/lab/guests
mkdir -p /usr && ln -s /lab/share /usr/share
failed=0
check() { # check NAME COMMAND…: the command prints only what explains a failure
  name=$1
  shift
  start=$(cut -d. -f1 /proc/uptime)
  if "$@" >/tmp/log 2>&1; then verdict=ok; else verdict=FAILED failed=1; fi
  echo "$verdict $name ($(($(cut -d. -f1 /proc/uptime) - start)) s)"
  [ "$verdict" = ok ] || tail -n 60 /tmp/log
}
case_of() { # case_of CASE ENGINE
  printf '#!/bin/sh\nexec /lab/caisson "$@" --engine %s --cpu-model %s\n' "$2" "$model" >/tmp/caisson
  chmod +x /tmp/caisson
  mkdir -p "/tmp/$1" && cd "/tmp/$1"
  CAISSON=/tmp/caisson timeout 600 sh -eu -c '. "$1"; . "$2"' sh /lab/lib.sh "/lab/cases/$1.sh" || { tail -n 40 ./*.out; return 1; }
}
