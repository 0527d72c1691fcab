#!/usr/bin/python3
"""Measures what delivery promises (backlog, filters, poison, restarts, stuck and long workers).

    bench/delivery.py [--only PART ...] [--build build] [--dir DIR] [--rounds 3] [--quick]
                      [--note TEXT] [--out FILE]

Needs a release build and Debian's python3-msgpack (scripts/setup), and for the backlog about 12 GB in
DIR. Everything is on loopback, in a directory of its own, and is ended by its pid. What is compared
runs right after each other in every round, in alternating order, and the median of the rounds'
ratios counts. Each part prints a table and replaces its section in
bench/results/delivery-YYYY-MM-DD.md; with --quick (small sizes: a rehearsal, no figures) only with
--out.
"""

import argparse
import datetime
import os
import shutil
import sys
import tempfile
from pathlib import Path

from broker import NAME, REPO, Processes, fdatasync_us, machine_rows

from delivery_load import part_backlog, part_poison, part_subscriptions
from delivery_workers import part_idle_reader, part_long_job, part_restart

BACKLOG_BYTES = 12 << 30
PARTS = {"backlog": part_backlog, "subscriptions": part_subscriptions, "poison": part_poison,
         "restart": part_restart, "idle-reader": part_idle_reader, "long-job": part_long_job}


class Bench:
    """What a part is given: sizes, a directory and a way to start brokers."""

    def __init__(self, build, directory, rounds, quick):
        self.build, self.directory = build, directory
        self.rounds, self.quick = rounds, quick
        self.processes = Processes(build, directory)

    def size(self, full, quick):
        return quick if self.quick else full

    def broker(self, *options):
        return self.processes.broker(*options)


def section(name, lines, verdicts, rows):
    """A part's text: what was measured, its table, and what it says of the targets."""
    out = [f"## {name}", "", *lines, ""]
    if rows:
        out += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
        out.insert(out.index("") + len(lines) + 3, "|" + "---|" * len(rows[0]))
        out.append("")
    out += ["| | target | measured | |", "|---|---|---|---|"]
    for what, target, measured, met in verdicts:
        out.append(f"| {what} | {target} | {measured} | {'met' if met else '**missed**'} |")
    return "\n".join(out) + "\n"


def merged(path, sections):
    """The sections of the file, with these in their place; in the order of the parts."""
    old = {}
    if path.exists():
        for piece in path.read_text().split("\n## ")[1:]:
            old[piece.split("\n", 1)[0]] = "## " + piece.rstrip("\n") + "\n"
    old.update(sections)
    return "\n".join(old[name] for name in PARTS if name in old)


def room_for(directory, parts):
    free = shutil.disk_usage(directory).free
    print(f"{directory}: {free >> 30} GiB free")
    if "backlog" in parts and free < BACKLOG_BYTES:
        sys.exit(f"{NAME}: the backlog needs {BACKLOG_BYTES >> 30} GiB in {directory}: give another "
                 "directory with --dir, or leave the part out with --only")


def measure(args, directory, started):
    """Runs the parts; the text of each one's section."""
    sections = {}
    for name in args.only or PARTS:
        print(f"\n== {name}", flush=True)
        bench = Bench(args.build.resolve(), directory, args.rounds, args.quick)
        load, before = os.getloadavg()[0], fdatasync_us(directory)
        try:
            lines, rows, verdicts = PARTS[name](bench)
        finally:
            bench.processes.end()
            for left in directory.iterdir():
                shutil.rmtree(left)
        rounds = f"{args.rounds} rounds" if args.rounds > 1 else "1 round"
        command = f"`bench/delivery.py --only {name} --rounds {args.rounds}" + (
            " --quick`: small sizes, a rehearsal" if args.quick else "`")
        head = [f"{command}, {started:%Y-%m-%d %H:%M} UTC, {rounds}. {args.note or ''}".rstrip(), "",
                "| | |", "|---|---|", *machine_rows(before, fdatasync_us(directory), load), "", *lines]
        sections[name] = section(name, head, verdicts, rows)
        print("\n" + sections[name], flush=True)
    return sections


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, help="one part (repeatable)")
    parser.add_argument("--build", type=Path, default=REPO / "build")
    parser.add_argument("--dir", type=Path, help="where data goes (a new one in the build directory)")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="small sizes and one round")
    parser.add_argument("--note", help="a sentence for the report, on what else was going on")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    started = datetime.datetime.now(datetime.timezone.utc)
    with tempfile.TemporaryDirectory(prefix="bellhop-bench-", dir=args.dir or args.build) as text:
        room_for(Path(text), () if args.quick else args.only or tuple(PARTS))
        sections = measure(args, Path(text), started)
    out = args.out or REPO / "bench" / "results" / f"delivery-{started:%Y-%m-%d}.md"
    if args.out or not args.quick:
        out.write_text(f"# Delivery: {started:%Y-%m-%d}\n\nLoad and broker on the same machine, on "
                       "loopback; each part says how it was run.\n\n" + merged(out, sections))
        print(f"written to {out}")


if __name__ == "__main__":
    main()
