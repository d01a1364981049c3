"""Boot time: from the start of the program to init, and to the login of a Debian with systemd; memory at that login."""
import os
import subprocess
import sys
import time

from measure import Guest, ROOT, progress, resident_mib, run, thread_seconds
from rows import INITRD


def image(options):
    """The folder of the Debian image, built when it is not there."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(cache, "caisson/images/debian-12")
    if not os.path.exists(os.path.join(folder, "manifest.json")):
        progress("building a Debian image")
        subprocess.run([options.caisson, "image", "build", "debian:12"], check=True, stdout=sys.stderr)
    return folder


def boot(guest, who, until, settle=0):
    """Seconds, seconds of host CPU time, and resident MiB above guest memory `settle` seconds later."""
    seen = {}

    def look(pid, line):
        if until in line and not seen:
            seen["cpu"] = thread_seconds(pid)
            time.sleep(settle)
            seen["resident"] = resident_mib(pid, "caisson-guest-ram")

    _, seconds = run(guest.command(who), guest.options.timeout, until=until, watch=look)
    progress(f"boot to {until}: {who} {seconds:.2f} s, {seen['cpu']:.2f} s of CPU time")
    return seconds, seen["cpu"], seen["resident"]


def measure(options):
    """{"init": {who: [(seconds, CPU seconds, MiB)…]}, "login": …}"""
    folder = image(options)
    disk = os.path.join(ROOT, "build/bench/login.raw")
    # The programs' initramfs: the same bytes for both, and not compressed.
    init = Guest(options, options.kernel, INITRD, "quiet bench=--serve")
    login = Guest(options, os.path.join(folder, "vmlinuz"), os.path.join(folder, "initrd.img"), "quiet root=/dev/vda rw", disk=disk)
    samples = {"init": {}, "login": {}}
    for _ in range(options.runs):
        for who in ("caisson", "tcg"):
            samples["init"].setdefault(who, []).append(boot(init, who, "bench: init"))
            # Each boot is the first of its disk; the copy's pages are in the host's cache for both.
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", os.path.join(folder, "disk.raw"), disk], check=True)
            # What systemd still starts behind the login counts as memory.
            samples["login"].setdefault(who, []).append(boot(login, who, "login:", settle=2 if who == "caisson" else 0))
    os.unlink(disk)
    return samples
