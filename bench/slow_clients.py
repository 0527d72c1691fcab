#!/usr/bin/env python3
"""Measures what honest webhooks notice of thousands of slow clients.

    bench/slow_clients.py [--build build] [--connections 5000] [--seconds 10] [--rounds 3] [--out FILE]

Needs a release build. bench_load posts signed webhooks over 8 connections, one after the other on each;
then the same again while tests/e2e/slow_clients.py holds that many connections of one kind and opens
each again when the broker has closed it. Everything is on loopback and ends by its pid.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from broker import REPO, Processes, fdatasync_us, machine_rows, run

SECRET = "whsec_" + base64.b64encode(b"b" * 32).decode()
SLOW = REPO / "tests" / "e2e" / "slow_clients.py"
KINDS = ("head", "body", "chunks", "read", "idle")


def honest(build, port, seconds):
    return run(build, "bench_load", "http", "--port", port, "--secret", SECRET, "--connections", 8,
               "--seconds", seconds)


def beside(processes, kind, args):
    """(what the honest ones got, what became of the slow ones)."""
    broker = processes.broker()
    broker.api("POST", "/v1/sources", {"name": "bench", "secrets": [SECRET]})
    if kind == "read":
        for _ in range(20):
            broker.api("POST", "/v1/events", {"type": "t", "data": "x" * 20_000})
    crowd = None
    if kind is not None:
        crowd = processes.start([sys.executable, str(SLOW), "--port", str(broker.http_port), "--mode", kind,
                                 "--path", "/in/bench", "--connections", str(args.connections),
                                 "--again", str(args.seconds + 3)], stdout=subprocess.PIPE, text=True)
        if crowd.stdout.readline() != "ready\n":
            sys.exit("slow_clients: the slow clients did not start")
    result = honest(args.build, broker.http_port, args.seconds)
    slow = json.loads(crowd.stdout.readline())[kind] if crowd else None
    processes.end()
    return result, slow


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=REPO / "build")
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.build = args.build.resolve()
    load = os.getloadavg()[0]
    rows = {}
    with tempfile.TemporaryDirectory(prefix="bellhop-bench-") as text:
        directory = Path(text)
        before = fdatasync_us(directory)
        processes = Processes(args.build, directory)
        try:
            for _ in range(args.rounds):
                for kind in (None, *KINDS):
                    result, slow = beside(processes, kind, args)
                    rows.setdefault(kind, []).append(result)
                    print(kind or "none", result, slow, flush=True)
        finally:
            processes.end()
        after = fdatasync_us(directory)
    out = [f"# Slow clients: {args.connections} connections beside honest webhooks", "", "| | |",
           "|---|---|", *machine_rows(before, after, load), "",
           "| slow clients | honest per second | p50 | p99 | failed |", "|---|---|---|---|---|"]
    for kind, found in rows.items():
        middle = {f: statistics.median(r[f] for r in found) for f in ("per_s", "p50_us", "p99_us")}
        out.append(f"| {kind or 'none'} | {middle['per_s']:,.0f} | {middle['p50_us']:,.0f} us | "
                   f"{middle['p99_us']:,.0f} us | {sum(r['failed'] for r in found)} |")
    report = "\n".join(out) + "\n"
    print("\n" + report)
    if args.out:
        args.out.write_text(report)


if __name__ == "__main__":
    main()
