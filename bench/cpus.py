"""Two virtual CPUs: how much more they do than one, and what the host pays when they do nothing."""
import os
import subprocess
import sys
import time

from measure import Guest, progress, run, thread_seconds
from rows import INITRD, TREE


def pair(options):
    """{who: [work of two CPUs over that of one…]}"""
    seconds = "1.5" if options.quick else "4"
    guest = Guest(options, options.kernel, INITRD, f"quiet bench=--pair,{seconds}", cpus=2)
    ratios = {}
    if len(os.sched_getaffinity(0)) < 2:
        return ratios
    for _ in range(options.runs):
        for who in ("native", "caisson") if options.quick else ("native", "caisson", "tcg"):
            if who == "native":
                lines = subprocess.run(["./bench", "--pair", seconds], cwd=TREE, capture_output=True, text=True, check=True).stdout
                lines = [(0, line) for line in lines.splitlines()]
            else:
                lines, _ = run(guest.command(who), options.timeout)
            found = [line.split() for _, line in lines if line.startswith("pair ")]
            if not found:
                sys.exit(f"bench: error: no result of two CPUs under {who}: {lines[-2:]}")
            ratios.setdefault(who, []).append(float(found[0][2]) / float(found[0][1]))
            progress(f"two CPUs over one: {who} {ratios[who][-1]:.2f}")
    return ratios


def idle(options):
    """{who: [share of one host CPU…]} while the guest's two CPUs sleep."""
    seconds = 5 if options.quick else 20
    guest = Guest(options, options.kernel, INITRD, f"quiet bench=--idle,{seconds}", cpus=2)
    shares = {}
    for who in ("caisson",) if options.quick else ("caisson", "tcg"):
        marks = []

        def look(pid, line):
            if line in ("idle begin", "idle end"):
                marks.append((time.monotonic(), thread_seconds(pid)))

        run(guest.command(who), options.timeout, watch=look)
        if len(marks) != 2:
            sys.exit(f"bench: error: {who} was not seen idle")
        (begin, used), (end, used_then) = marks
        shares[who] = [(used_then - used) / (end - begin)]
        progress(f"idle: {who} {shares[who][0]:.2%} of a host CPU")
    return shares
