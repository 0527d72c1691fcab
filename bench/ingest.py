#!/usr/bin/env python3
"""Measures Bellhop beside nginx and Redis on this machine and writes bench/results/.

    bench/ingest.py [--build build] [--seconds 3] [--rounds 3] [--quick] [--note TEXT]
                    [--beside BUILD] [--out FILE]

--beside names the build folder of another version: its ingest is measured in the same rounds.

Needs a release build, and the peers of `scripts/setup --bench`. Everything is on loopback, in a
directory of its own, and is ended by its pid. What is compared runs right after each other in every
round, and the median of the rounds counts: a machine that is slow for a while is slow for all.
"""

import argparse
import base64
import datetime
import os
import socket
import statistics
import subprocess
import tempfile
from pathlib import Path

from broker import (REPO, Processes, fdatasync_us, free_port, machine_rows, program, run, version,
                    wait_port)

SECRET = "whsec_" + base64.b64encode(b"b" * 32).decode()
CONNECTIONS = (16, 64, 256)
BESIDE = "ingest of the other version"
NGINX = """
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.err warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
    uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    keepalive_requests 100000000;
    server {{
        listen 127.0.0.1:{port};
        location / {{ default_type application/json; return 200 '{{"seq":1}}'; }}
    }}
}}
"""


class Peers(Processes):
    """The servers, each started for one measurement group and ended at the end."""

    def nginx(self):
        port = free_port()
        where = self.directory / f"nginx-{port}"
        where.mkdir()
        config = where / "nginx.conf"
        config.write_text(NGINX.format(dir=where, port=port))
        self.start([program("nginx"), "-p", str(where), "-c", str(config), "-e",
                    str(where / "start.err")])
        return wait_port(port)

    def redis(self):
        port = free_port()
        where = self.directory / f"redis-{port}"
        where.mkdir()
        self.start([program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir",
                    str(where), "--appendonly", "yes", "--appendfsync", "always", "--save", "",
                    "--loglevel", "warning"], stdout=subprocess.DEVNULL)
        return wait_port(port)

    def bellhop(self):
        """(HTTP port, workers port) of a broker with an empty journal and the source "bench"."""
        broker = self.broker()
        broker.api("POST", "/v1/sources", {"name": "bench", "secrets": [SECRET]})
        return broker.http_port, broker.workers_port

    def door(self, *, keys=True):
        """HTTP port of a broker that takes webhooks in, and asks for a key everywhere else."""
        broker = self.broker()
        broker.api("POST", "/v1/sources", {"name": "bench", "secrets": [SECRET]})
        if keys:
            broker.api("POST", "/v1/keys", {"name": "bench", "scopes": ["admin"]})
        return broker.http_port


class Figures:
    def __init__(self):
        self.rows = {}  # (what, shape) -> list of results

    def add(self, what, shape, result):
        self.rows.setdefault((what, shape), []).append(result)
        print(f"{what:28} {shape:14} {result['per_s']:>9,.0f}/s  p50 {result['p50_us']:>7,.0f} us  "
              f"p99 {result['p99_us']:>8,.0f} us  failed {result['failed']}", flush=True)

    def median(self, what, shape, field="per_s"):
        return statistics.median(r[field] for r in self.rows[what, shape])

    def ratio(self, a, b, shape):
        """The median of each round's ratio: both ran within seconds of each other."""
        pairs = zip(self.rows[a, shape], self.rows[b, shape])
        return statistics.median(x["per_s"] / y["per_s"] for x, y in pairs)


def measure_ingest(figures, build, doors, several):
    """`doors`: name -> port; who is first in one round is last in the next."""
    for name, port in doors:
        figures.add(name, f"{several[1]} conns", run(
            build, "bench_load", "http", "--port", port, "--secret", SECRET, *several))


def measure(build, beside, directory, rounds, seconds, count):
    figures = Figures()
    peers, others = Peers(build, directory), Peers(beside, directory)
    try:
        for number in range(rounds):
            nginx, redis, (_, workers_port) = peers.nginx(), peers.redis(), peers.bellhop()
            doors = [("bellhop ingest", peers.door())]
            if beside:
                doors.append((BESIDE, others.door(keys=False)))
            load = ("--seconds", seconds)
            for connections in CONNECTIONS:
                shape = f"{connections} conns"
                several = ("--connections", connections, *load)
                figures.add("nginx return 200", shape, run(
                    build, "bench_load", "http", "--port", nginx, "--secret", SECRET, *several))
                measure_ingest(figures, build, doors[::1 if number % 2 == 0 else -1], several)
                figures.add("redis XADD always 300 B", shape, run(
                    build, "bench_load", "redis", "--port", redis, *several))
            others.end()
            shape = "64 x 16"
            piped = ("--connections", 64, "--pipeline", 16, *load)
            figures.add("redis XADD always 300 B", shape, run(
                build, "bench_load", "redis", "--port", redis, *piped))
            figures.add("bellhop publish 300 B", shape, run(
                build, "bench_workers", "publish", "--port", workers_port, *piped))
            peers.end()
            # Consuming starts from nothing, so that neither has an older journal to carry.
            redis, (_, workers_port) = peers.redis(), peers.bellhop()
            shape = "8 conns x 64"
            figures.add("redis group read + ack", shape, run_redis_consume(build, redis, count))
            figures.add("bellhop consume + ack", shape, run(
                build, "bench_workers", "consume", "--port", workers_port, "--count", count))
            peers.end()
            _, workers_port = peers.bellhop()
            figures.add("bellhop consume + ack confirmed", shape, run(
                build, "bench_workers", "consume", "--port", workers_port, "--count", count,
                "--confirm", 1))
            peers.end()
    finally:
        others.end()
        peers.end()
    return figures


def run_redis_consume(build, port, count):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"XGROUP CREATE bench g 0 MKSTREAM\r\n")
        assert s.recv(100).startswith(b"+OK")
    return run(build, "bench_load", "redis-consume", "--port", port, "--connections", 8, "--bytes",
               1024, "--count", count)


def report(figures, args, sync_before, sync_after, started):
    out = [f"# Ingest, publish and consume: {started:%Y-%m-%d}", "",
           f"`bench/ingest.py --rounds {args.rounds} --seconds {args.seconds}`, "
           f"{started:%H:%M} UTC. Load generator and server on the same machine; medians of "
           f"{args.rounds} rounds, in brackets the lowest and the highest; a ratio is the median of the "
           "rounds' ratios.", "", *([args.note, ""] if args.note else []),
           "| | |", "|---|---|",
           *machine_rows(sync_before, sync_after, args.load),
           f"| peers | {version(program('nginx'), '-v')}; {version(program('redis-server'), '-v').split(' sha')[0]} |",
           "", "| what | shape | per second | p50 | p99 | failed |", "|---|---|---|---|---|---|"]
    for (what, shape), rows in figures.rows.items():
        rates = [r["per_s"] for r in rows]
        p50, p99 = figures.median(what, shape, "p50_us"), figures.median(what, shape, "p99_us")
        times = f"{p50:,.0f} us | {p99:,.0f} us" if p99 > 0 else "- | -"
        out.append(f"| {what} | {shape} | {statistics.median(rates):,.0f} "
                   f"({min(rates):,.0f} to {max(rates):,.0f}) | {times} | "
                   f"{sum(r['failed'] for r in rows)} |")
    out += ["", "| ratio | target | measured | |", "|---|---|---|---|"]
    ingest, redis = "bellhop ingest", "redis XADD always 300 B"
    targets = [
        ("ingest / nginx, 256 conns", 0.70, figures.ratio(ingest, "nginx return 200", "256 conns")),
        ("ingest / Redis XADD always, 256", 1.2, figures.ratio(ingest, redis, "256 conns")),
        ("ingest / Redis XADD always, 64", 0.9, figures.ratio(ingest, redis, "64 conns")),
        ("publish / Redis XADD always, 64 x 16", 1.5,
         figures.ratio("bellhop publish 300 B", redis, "64 x 16")),
        ("consume + ack / Redis always, 8 x 64", 2.0,
         figures.ratio("bellhop consume + ack", "redis group read + ack", "8 conns x 64")),
    ]
    for what, target, got in targets:
        out.append(f"| {what} | >= {target} | {got:.3f} | {'met' if got >= target else '**missed**'} |")
    for connections in CONNECTIONS if args.beside else ():
        got = figures.ratio(ingest, BESIDE, f"{connections} conns")
        out.append(f"| ingest / {BESIDE}, {connections} | >= 0.9 | {got:.3f} | "
                   f"{'met' if got >= 0.9 else '**missed**'} |")
    out += ["", "What is measured: ingest is a signed 219-byte POST, verified, scanned, deduplicated and "
            "durable before the 200, one request outstanding per connection, every webhook-id new. nginx "
            "answers the same bytes with a fixed 200: its figure is also the ceiling of the load "
            "generator. Redis is XADD with appendfsync always. Publish is one event per frame. "
            "Consume is the time from the first subscribe to the last delivery with its ack sent, from a "
            "journal that was filled before. The broker of the ingest rows asks for a key everywhere but at its doors. The signatures are made before the clock starts."]
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=REPO / "build")
    parser.add_argument("--beside", type=Path, help="build folder of another version")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=200000, help="events to consume")
    parser.add_argument("--quick", action="store_true", help="one short round, nothing is written")
    parser.add_argument("--note", help="a sentence for the report, on what else was going on")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.rounds, args.count = 1, 1, 50000
    args.load = os.getloadavg()[0]
    started = datetime.datetime.now(datetime.timezone.utc)
    with tempfile.TemporaryDirectory(prefix="bellhop-bench-") as text:
        directory = Path(text)
        before = fdatasync_us(directory)
        print(f"fdatasync: p50 {before[0]:.0f} us, p99 {before[1]:.0f} us")
        beside = args.beside and args.beside.resolve()
        figures = measure(args.build.resolve(), beside, directory, args.rounds, args.seconds,
                          args.count)
        text = report(figures, args, before, fdatasync_us(directory), started)
    print("\n" + text)
    if not args.quick:
        out = args.out or REPO / "bench" / "results" / f"ingest-{started:%Y-%m-%d}.md"
        out.write_text(text)
        print(f"written to {out}")


if __name__ == "__main__":
    main()
