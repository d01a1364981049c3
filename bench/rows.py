"""Programs inside a guest of one CPU, timed by themselves; the same files natively.

All three run side by side, but only one works at a time: each program runs natively, under Caisson and under TCG in turn, so
that whatever else the host does meets all of them alike.
"""
import os
import subprocess
import sys
import time

from measure import Guest, ROOT, progress, thread_seconds

TREE = os.path.join(ROOT, "build/bench/tree/bench")
INITRD = os.path.join(ROOT, "build/bench/initrd.cpio")
# How far the guest's clock may be from the host's: the times would mean nothing.
CLOCK_TOLERANCE = 0.02


class Server:
    """A running `bench --serve`, in a guest or natively."""

    def __init__(self, who, command, folder=None):
        self.who = who
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, text=True, errors="replace")
        self.groups = {}
        while True:
            words = self.answer("offer")
            if words == ["end"]:
                break
            self.groups[words[1]] = words[0]
        self.start = self.clocks()

    def answer(self, kind):
        """What follows the word `kind` in the next line that begins with it."""
        for line in self.process.stdout:
            words = line.split()
            if words[:1] == [kind]:
                return words[1:]
            if words[:1] == ["bench:"] and words[1:] != ["init"]:
                break
        sys.exit(f"bench: error: no answer from {self.who}")

    def ask(self, line, kind):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer(kind)

    def clocks(self):
        """The host's and the guest's."""
        before = time.monotonic()
        guest = float(self.ask("clock", "clock")[0])
        return (before + time.monotonic()) / 2, guest

    def run(self, name):
        """Seconds by the guest's clock, seconds of host CPU time, checksum."""
        before = thread_seconds(self.process.pid)
        _, seconds, cpu, checksum = self.ask(name, "row")
        after = thread_seconds(self.process.pid)
        return float(seconds), float(cpu) if self.who == "native" else after - before, checksum

    def end(self):
        host, guest = self.clocks()
        drift = (guest - self.start[1]) / (host - self.start[0]) - 1
        if host - self.start[0] > 5 and abs(drift) > CLOCK_TOLERANCE:
            sys.exit(f"bench: error: the clock under {self.who} is off by {drift:.1%}")
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        for _ in self.process.stdout:
            pass
        self.process.wait()


def measure(options):
    """{row: {"group": …, who: [seconds…], "cpu": {who: [seconds of host CPU time…]}}}"""
    guest = Guest(options, options.kernel, INITRD, "quiet bench=--serve")
    servers = [Server("native", ["./bench", "--serve"], TREE)] + [Server(who, guest.command(who)) for who in ("caisson", "tcg")]
    budget = 0.6 if options.quick else 8.0
    rows = {}
    for name in options.rows or servers[0].groups:
        if name not in servers[0].groups:
            sys.exit(f"bench: error: no row {name}; there are {' '.join(servers[0].groups)}")
        row = rows[name] = {"group": servers[0].groups[name], "cpu": {}}
        checksums = {server.run(name)[2] for server in servers}  # warms up
        begin = time.monotonic()
        while len(row.get("native", ())) < 2 * options.runs + 1 and (time.monotonic() - begin < budget or "native" not in row):
            for server in servers:
                seconds, cpu, checksum = server.run(name)
                checksums.add(checksum)
                row.setdefault(server.who, []).append(seconds)
                row["cpu"].setdefault(server.who, []).append(cpu)
        if len(checksums) != 1:
            sys.exit(f"bench: error: {name} has not the same result everywhere")
        progress(f"rows: {name}, {len(row['native'])} times each")
    for server in servers:
        server.end()
    return rows
