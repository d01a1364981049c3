"""Boot time: from the start of the program to init, and to the login of a Debian with systemd; memory at that login."""
import os
import subprocess
import sys
import time

from measure import Guest, ROOT, progress, resident_mib, run, time_of
from rows import INITRD


def image(options):
    """The folder of the Debian image, built when it is not there."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(cache, "caisson/images/debian-12")
    if not os.path.exists(os.path.join(folder, "manifest.json")):
        progress("building a Debian image")
        subprocess.run([options.caisson, "image", "build", "debian:12"], check=True, stdout=sys.stderr)
    return folder


def to_init(options):
    """{who: [seconds…]}. The programs' initramfs: the same bytes, not compressed."""
    guest = Guest(options, options.kernel, INITRD, "quiet bench=--true")
    seconds = {}
    for _ in range(options.runs):
        for who in ("caisson", "tcg"):
            lines, _ = run(guest.command(who), options.timeout)
            seconds.setdefault(who, []).append(time_of(lines, "bench: init"))
            progress(f"boot to init: {who} {seconds[who][-1]:.2f} s")
    return seconds


def to_login(options):
    """{who: [seconds…]}, and Caisson's resident MiB above guest memory at that point."""
    folder = image(options)
    disk = os.path.join(ROOT, "build/bench/login.raw")
    guest = Guest(options, os.path.join(folder, "vmlinuz"), os.path.join(folder, "initrd.img"), "quiet root=/dev/vda rw", disk=disk)
    seconds, resident = {}, []

    def look(pid):
        time.sleep(2)  # what systemd still starts behind the login
        resident.append(resident_mib(pid, "caisson-guest-ram"))

    for _ in range(options.runs):
        for who in ("caisson", "tcg"):
            # Each boot is the first of its disk; the copy's pages are in the host's cache for both.
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", os.path.join(folder, "disk.raw"), disk], check=True)
            _, login = run(guest.command(who), options.timeout, until="login:", watch=look if who == "caisson" else None)
            seconds.setdefault(who, []).append(login)
            progress(f"boot to login: {who} {login:.2f} s")
    os.unlink(disk)
    return seconds, resident
