"""Cuts the power of a recorded broker again and again: at every sync of its log (record.c) rebuilds
disks that may be left (disk.py), restarts on them (reopen.c) and holds what is there against what was
said on the wire (oracle.py).

    python3 tests/power/crash.py LOG --state 812.5       one state, as a failing test printed it
    python3 tests/power/crash.py LOG --states 20000      more of them

A state is RECORD.NUMBER: the power goes when that record of the log has happened but for its being
durable, and NUMBER is the place in the list of choices that this seed makes there.
"""

import argparse
import collections
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "e2e")]

from disk import (CREATE, MKDIR, SEND, SYNC, WRITE, Disk, Image, capacity, choices,  # noqa: E402
                  read_log)
from harness import BUILD, now_s  # noqa: E402
from oracle import Found, Oracle  # noqa: E402
from wire import read_wire  # noqa: E402

DATA = "data"  # the data directory's name below the recorded root
LATER_S = 40 * 24 * 3600  # so far ahead a restart looks: every delay is over
FULL_EVERY = 12  # of the states whose rows are known already: read and written to all the same
FAILURES_MAX = 5
Failure = collections.namedtuple("Failure", "state choice complaints")


class Reopen:
    """The process of reopen.c."""

    def __init__(self, wall_ms):
        self.process = subprocess.Popen([str(BUILD / "tests" / "reopen"), str(wall_ms)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, *words):
        """(digest, None), or (None, why not)."""
        print(*words, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, "reopen has gone"
        word, _, rest = line.strip().partition(" ")
        return (rest, None) if word == "ok" else (None, rest)

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


class Crash:
    def __init__(self, log, seed, place, sample=None):
        self.records = read_log(log)
        self.seed = seed
        self.place = Path(place)
        self.oracle = Oracle(read_wire(self.records))
        self.root = next(r.directory for r in self.records if r.kind in (MKDIR, CREATE))
        self.reopen = Reopen((now_s() + LATER_S) * 1000)
        self.known = {}  # digest -> (Found, text)
        self.sample = sample  # called with a directory and what was found there
        self.sampled = 0
        self.states = self.points = self.reads = 0
        self.failures = []

    def close(self):
        self.reopen.close()

    # -- where the power goes --

    @staticmethod
    def is_point(disk, r):
        """Before anything becomes durable; and when something was said that may still be lost."""
        if r.kind in (SYNC, SEND) or (r.kind == WRITE and r.through):
            return disk.unsettled()
        return False

    def walk(self):
        """Yields (number of a record, disk) for every point: the record has happened, and if it makes
        something durable, that has not."""
        disk = Disk(self.root)
        for number, r in enumerate(self.records, 1):
            if r.kind == WRITE and r.through:
                disk.apply(r._replace(through=0))
                if self.is_point(disk, r):
                    yield number, disk
                disk.number -= 1
                disk.apply(r)
            elif r.kind == SYNC:
                if self.is_point(disk, r):
                    yield number, disk
                disk.apply(r)
            else:
                disk.apply(r)
                if self.is_point(disk, r):
                    yield number, disk
        yield len(self.records) + 1, disk

    def share(self, wanted):
        """How many choices a point may have, so that all together have about as many as wanted."""
        capacities = [capacity(disk, wanted) for _, disk in self.walk()]
        most = 2
        while most < 4096 and sum(min(c, most) for c in capacities) < wanted:
            most += 1
        return most

    # -- one state --

    def copy(self, directory):
        """The files of a state somewhere else, where they may be written to."""
        target = self.place / "copy" / DATA
        if target.parent.exists():
            shutil.rmtree(target.parent)
        target.parent.mkdir(parents=True)
        if (directory / DATA).exists():
            shutil.copytree(directory / DATA, target)
        return target

    def read(self, directory):
        """(Found, None) of a state, or (None, why not)."""
        self.reads += 1
        facts = self.place / "facts"
        digest, why = self.reopen.ask("read", self.copy(directory), facts)
        if why:
            return None, None, why
        text = facts.read_text()
        return digest, text, None

    def look(self, directory):
        """The digest of a state, or why there is none. What is behind the digest is in `known`."""
        full = self.states % FULL_EVERY == 0
        if not full:
            digest, why = self.reopen.ask("digest", directory / DATA)
            if why or digest in self.known:
                return digest, why
        digest, text, why = self.read(directory)
        if why:
            return None, why
        if digest not in self.known:
            self.known[digest] = (Found(text.splitlines()), text)
        elif self.known[digest][1] != text:
            return None, "two stores with the same rows do not deliver the same"
        return digest, None

    def try_point(self, number, disk, image, most, only=None):
        """Restarts on each choice of a point. What is neither the state before the turn nor the one
        after it is wrong whatever was said."""
        allowed, said = set(), {}  # said: complaints by digest
        self.points += 1
        for i, choice in enumerate(choices(disk, most, f"{self.seed}.{number}")):
            if only is not None and i != only and i > 1:
                continue
            self.states += 1
            directory = image.enter(choice)
            digest, why = self.look(directory)
            if why:
                complaints = [why]
            else:
                if i < 2:
                    allowed.add(digest)
                complaints = [] if digest in allowed else ["it is a part of a turn"]
                if digest not in said:
                    said[digest] = self.oracle.check(self.known[digest][0], number)
                complaints += said[digest]
                if self.sample and not complaints:
                    self.sample(self, number, directory, digest)
            if complaints and (only is None or i == only):
                self.failures.append(Failure(f"{number}.{i}", choice.name, complaints))
            if only is not None and i == only:
                return
            image.leave(choice)
            if len(self.failures) >= FAILURES_MAX:
                return

    def run(self, states):
        """Tries about so many states; stops early when enough have failed."""
        most = self.share(states)
        image = None
        for number, disk in self.walk():
            image = image or Image(disk, self.place)
            self.try_point(number, disk, image, most)
            if len(self.failures) >= FAILURES_MAX:
                return

    def run_one(self, state):
        """Builds one state again. Returns the directory that holds it."""
        wanted, _, index = state.partition(".")
        for number, disk in self.walk():
            if number == int(wanted):
                image = Image(disk, self.place)
                self.try_point(number, disk, image, int(index) + 1, int(index))
                return image.directory / DATA
        raise SystemExit(f"the log has no point at record {wanted}")

    # -- saying --

    def report(self):
        told = self.oracle.wire
        confirmed = sum(s.told < len(self.records) for s in told.settlements)
        return (f"power loss: {self.states} states at {self.points} points, {self.reads} read and "
                f"drained, {self.sampled} started; {len(told.published)} publishes answered, "
                f"{confirmed} settlements confirmed, {len(self.known)} different stores; "
                f"wrong {len(self.failures)}")

    def complain(self, log):
        lines = []
        for f in self.failures:
            lines.append(f"state {f.state} ({f.choice}): " + "; ".join(f.complaints[:3]) +
                         (f" and {len(f.complaints) - 3} more" if len(f.complaints) > 3 else ""))
            lines.append(f"  BELLHOP_BUILD={BUILD} /usr/bin/python3 {Path(__file__).resolve()} {log} "
                         f"--seed {self.seed} --state {f.state}")
        return "\n".join(lines)


def scratch():
    """A directory in memory, where syncs cost nothing."""
    memory = "/dev/shm"
    return tempfile.mkdtemp(prefix="bellhop-power-", dir=memory if os.access(memory, os.W_OK) else None)


def main():
    parser = argparse.ArgumentParser(description="Tries crash states of a recorded broker.")
    parser.add_argument("log")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--state", help="RECORD.NUMBER: that one; its directory is kept")
    parser.add_argument("--states", type=int, default=4000)
    options = parser.parse_args()
    place = scratch()
    crash = Crash(options.log, options.seed, place)
    if options.state:
        print("the state is in", crash.run_one(options.state))
        for f in crash.failures:
            print(f"state {f.state} ({f.choice}):", *f.complaints, sep="\n  ")
    else:
        crash.run(options.states)
        print(crash.report())
        print(crash.complain(options.log))
        shutil.rmtree(place)
    crash.close()
    return 1 if crash.failures else 0


if __name__ == "__main__":
    sys.exit(main())
