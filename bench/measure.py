"""What the parts of the benchmark share: starting a guest, timing what it prints, and the record of a run.

Caisson and QEMU run in turn, never at once, with the same kernel, initramfs, memory and CPUs.
"""
import math
import os
import platform
import select
import statistics
import subprocess
import sys
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))


class Guest:
    """What a guest is started with, by either program."""

    def __init__(self, options, kernel, initrd, append, cpus=1, disk=None):
        self.options, self.kernel, self.initrd, self.append = options, kernel, initrd, append
        self.cpus, self.disk = cpus, disk

    def command(self, who):
        memory = self.options.memory
        if who == "caisson":
            return [self.options.caisson, "run", "--kernel", self.kernel, "--initrd", self.initrd, "--append", self.append,
                    "--cpus", str(self.cpus), "--memory", f"{memory}M", "--net", "none", "--no-reboot"] + (
                        ["--disk", self.disk] if self.disk else [])
        return [self.options.qemu, "-accel", "tcg,thread=multi", "-cpu", "max", "-m", str(memory), "-smp", str(self.cpus),
                "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-kernel", self.kernel, "-initrd", self.initrd, "-append", "console=ttyS0 panic=-1 " + self.append] + (
                    ["-drive", f"file={self.disk},format=raw,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk"]
                    if self.disk else [])


def run(command, timeout, until=None, watch=None):
    """Lines with the seconds after the start at which they came, and the seconds until the end.

    With `until` the program is ended when that text appears, be it in a line not yet ended; else it has to end by itself.
    watch(pid, line) is called for each line, and for what has that text.
    """
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines, rest = [], b""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], max(0, start + timeout - time.monotonic()))
        now = time.monotonic() - start
        if not ready:
            process.kill()
            sys.exit(f"bench: error: {command[0]} was not done after {timeout} s; the last it said: {lines[-1:]}")
        chunk = os.read(process.stdout.fileno(), 65536)
        if chunk == b"":
            break
        *whole, rest = (rest + chunk).split(b"\n")
        new = [(now, line.decode(errors="replace").strip()) for line in whole]
        if until and until.encode() in rest:
            new.append((now, rest.decode(errors="replace").strip()))
        lines += new
        if watch:
            for _, line in new:
                watch(process.pid, line)
        if until and any(until in line for _, line in new):
            # The first presses the power button, the second ends at once.
            process.terminate()
            time.sleep(0.2)
            process.terminate()
            process.stdout.close()
            process.stderr.close()
            process.wait()
            return lines, now
    error = process.stderr.read().decode(errors="replace").strip()
    if process.wait() != 0:
        sys.exit(f"bench: error: {command[0]} ended with status {process.returncode}: {error or lines[-3:]}")
    return lines, time.monotonic() - start


def family(pid):
    """The process and all below it."""
    try:
        below = []
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as children:
                below += [each for child in children.read().split() for each in family(int(child))]
        return [pid] + below
    except OSError:
        return [pid]


def thread_seconds(pid):
    """CPU time of all threads that live now, of the process and all below it; in nanoseconds' resolution."""
    total = 0
    for each in family(pid):
        for thread in os.listdir(f"/proc/{each}/task"):
            try:
                with open(f"/proc/{each}/task/{thread}/schedstat", encoding="ascii") as times:
                    total += int(times.read().split()[0])
            except OSError:
                pass  # has just ended
    return total / 1e9


def resident_mib(pid, guest_memory):
    """Resident MiB of the process and all below it without mappings whose name has `guest_memory` in it.

    A page that is mapped twice, or shared with other processes, counts once, in parts.
    """
    total, counts = 0, True
    for each in family(pid):
        with open(f"/proc/{each}/smaps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                words = line.split()
                if "-" in words[0] and not words[0].endswith(":"):
                    counts = guest_memory not in line
                elif words[0] == "Pss:" and counts:
                    total += int(words[1])
    return total / 1024


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


def machine():
    cpu = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpu": cpu, "cpus": len(os.sched_getaffinity(0)), "memory_mib": memory >> 20, "kernel": platform.release()}


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip().split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def about(options):
    """What a record says of the circumstances."""
    dirty = "+changes" if output_of("git", "status", "--porcelain", "--untracked-files=no") not in ("", "unknown") else ""
    return {"time": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), "machine": machine(),
            "commit": output_of("git", "rev-parse", "HEAD") + dirty, "caisson": output_of(options.caisson, "version"),
            "qemu": output_of(options.qemu, "--version"), "memory_mib": options.memory, "runs": options.runs,
            "quick": options.quick}


def progress(text):
    print(f"== {text}", file=sys.stderr, flush=True)
