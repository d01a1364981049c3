"""What both benchmarks share: starting a guest, timing what it prints, medians, and the record of a run.

Caisson and QEMU run in turn, never at once, with the same kernel, initramfs, memory and CPUs.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each, in turn (default 5)")
    parser.add_argument("--caisson", default=os.path.join(ROOT, "build/release/bin/caisson"), metavar="PROGRAM")
    parser.add_argument("--qemu", default="qemu-system-x86_64", metavar="PROGRAM")
    parser.add_argument("--kernel", default=os.path.join(ROOT, "build/guests/cloud-amd64/vmlinuz"), metavar="FILE")
    parser.add_argument("--initrd", metavar="FILE")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", type=int, default=512, metavar="MIB")
    parser.add_argument("--timeout", type=int, default=900, metavar="SECONDS", help="for one run")
    parser.add_argument("--record", metavar="FILE", help="JSON; default build/bench/<name>-<time>.json")
    return parser


def caisson_command(options, append):
    return [options.caisson, "run", "--kernel", options.kernel, "--initrd", options.initrd, "--append", append,
            "--cpus", str(options.cpus), "--memory", f"{options.memory}M", "--net", "none", "--no-reboot"]


def qemu_command(options, append):
    return [options.qemu, "-accel", "tcg,thread=multi", "-cpu", "max", "-m", str(options.memory), "-smp", str(options.cpus),
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", options.kernel,
            "-initrd", options.initrd, "-append", "console=ttyS0 panic=-1 " + append]


def run(command, timeout):
    """Lines with the seconds after the start at which they came, and the seconds until the end."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.set_blocking(process.stdout.fileno(), False)
    lines, rest = [], b""
    while True:
        chunk = process.stdout.read()
        now = time.monotonic() - start
        if chunk == b"":
            break
        if chunk:
            *whole, rest = (rest + chunk).split(b"\n")
            lines += [(now, line.decode(errors="replace").strip()) for line in whole]
        elif now > timeout:
            process.kill()
            sys.exit(f"bench: error: {command[0]} was not done after {timeout} s; the last it said: {lines[-1:]}")
        else:
            time.sleep(0.001)
    error = process.stderr.read().decode(errors="replace").strip()
    if process.wait() != 0:
        sys.exit(f"bench: error: {command[0]} ended with status {process.returncode}: {error or lines[-3:]}")
    return lines, time.monotonic() - start


def time_of(lines, text):
    for when, line in lines:
        if text in line:
            return when
    sys.exit(f"bench: error: the guest never said \"{text}\"")


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


def record(options, name, samples):
    """Writes all samples; answers the medians: {row: {who: seconds}}."""
    dirty = "+changes" if output_of("git", "status", "--porcelain", "--untracked-files=no") not in ("", "unknown") else ""
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = options.record or os.path.join(ROOT, "build/bench", f"{name}-{when}.json")
    medians = {row: {who: statistics.median(values) for who, values in columns.items()} for row, columns in samples.items()}
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        json.dump({"bench": name, "time": when, "machine": machine(), "commit": output_of("git", "rev-parse", "HEAD") + dirty,
                   "caisson": output_of(options.caisson, "version"), "qemu": output_of(options.qemu, "--version"),
                   "cpus": options.cpus, "memory_mib": options.memory, "runs": options.runs, "medians": medians,
                   "samples": samples}, out, indent=1)
        out.write("\n")
    return medians, path


def table(medians, columns):
    """Seconds for each who; then Caisson's time as a multiple of each other's."""
    others = [who for who in columns if who != "caisson"]
    print(f"{'':14}" + "".join(f"{who + ' s':>14}" for who in columns) + "".join(f"{'/ ' + who:>12}" for who in others))
    for row, values in medians.items():
        print(f"{row:14}" + "".join(f"{values[who]:14.4f}" if who in values else f"{'-':>14}" for who in columns) +
              "".join(f"{values['caisson'] / values[who]:12.2f}" if who in values and "caisson" in values else f"{'-':>12}"
                      for who in others))


def progress(text):
    print(f"== {text}", file=sys.stderr, flush=True)
