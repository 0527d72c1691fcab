#!/usr/bin/env python3
"""Measures the delivery of webhooks on this machine and writes bench/results/.

    bench/outbound.py [--only rate|dead] [--build build] [--rounds 3] [--quick] [--note TEXT]
                      [--out FILE]

Needs a release build; `rate` also the nginx of `scripts/setup --bench`. Everything is on loopback, in
a directory of its own, and is ended by its pid.

rate: deliveries per second to an nginx that returns 200 to everything. The events are in the journal
before the clock starts; every request is signed with the secret of its webhook.

dead: 1,000 webhooks, each with an origin of its own, and a steady stream of events, each for one of
them. In one run all are healthy, in the other 100 of them are dead: a third refuses connections, a
third never answers, a third answers 500. What counts is the time from the publish to the receipt at
the 900 that are healthy in both. The two runs of a round follow each other.
"""

import argparse
import datetime
import os
import resource
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from broker import (REPO, Processes, fdatasync_us, free_port, machine_rows, program, run, version,
                    wait_for, wait_port)
from outbound_receiver import ReceiverProcess

WEBHOOKS = (1, 8, 64)
ENDPOINTS, DEAD = 1000, 100
PER_S = 1000
SOCKETS = ENDPOINTS + DEAD + 50
NGINX = """
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.err warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
    uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    keepalive_requests 100000000;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200; }} }}
}}
"""


def nginx(processes):
    port = free_port()
    where = processes.directory / f"nginx-{port}"
    where.mkdir()
    config = where / "nginx.conf"
    config.write_text(NGINX.format(dir=where, port=port))
    processes.start([program("nginx"), "-p", str(where), "-c", str(config), "-e",
                     str(where / "start.err")])
    return wait_port(port)


def webhooks(broker):
    found, token = [], ""
    while True:
        page = broker.api("GET", f"/v1/webhooks?page_size=1000&page_token={token}" if token
                          else "/v1/webhooks?page_size=1000")
        found += page["webhooks"]
        token = page.get("next_page_token")
        if not token:
            return found


class Watch:
    """The most sockets and anonymous memory of a broker while the block runs."""

    def __init__(self, broker):
        self.broker, self.sockets, self.kib = broker, 0, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def _look(self):
        self.kib = max(self.kib, self.broker.anon_kib())
        where = f"/proc/{self.broker.process.pid}/fd"
        count = 0
        for name in os.listdir(where):
            try:
                count += os.readlink(f"{where}/{name}").startswith("socket:")
            except OSError:
                pass  # closed since
        self.sockets = max(self.sockets, count)

    def _watch(self):
        while not self.over.wait(0.25):
            self._look()

    def __enter__(self):
        self._look()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


# -- rate --

def measure_rate(processes, count, hooks):
    """One run: `hooks` webhooks to one nginx, each with count / hooks events."""
    port = nginx(processes)
    broker = processes.broker("--webhook-allow", "127.0.0.0/8")
    made = [broker.api("POST", "/v1/webhooks", {
        "uri": f"http://127.0.0.1:{port}/hook/{n}", "subscribed_events": ["*"], "concurrency": 64})
        for n in range(hooks)]
    for hook in made:
        broker.api("POST", f"/v1/webhooks/{hook['id']}:pause")
    events = count // hooks
    run(processes.build, "bench_workers", "publish", "--port", broker.workers_port, "--connections",
        4, "--pipeline", 4, "--batch", 64, "--count", events, "--bytes", 300)
    cpu = broker.cpu_s()
    began = time.monotonic()
    for hook in made:
        broker.api("POST", f"/v1/webhooks/{hook['id']}:resume")
    wait_for(lambda: sum(w["stats"]["delivered"] for w in webhooks(broker)) >= events * hooks, 180,
             "every delivery")
    took = time.monotonic() - began
    used = [after - before for before, after in zip(cpu, broker.cpu_s())]
    failed = sum(w["stats"]["failed"] for w in webhooks(broker))
    processes.end()
    result = {"per_s": events * hooks / took, "failed": failed, "cpu_us":
              sum(used) / (events * hooks) * 1e6, "own_us": used[0] / (events * hooks) * 1e6}
    print(f"  {hooks:3} webhooks  {result['per_s']:>9,.0f}/s  broker {result['cpu_us']:.1f} us each "
          f"({result['own_us']:.1f} own)  failed {failed}", flush=True)
    return result


def part_rate(processes, args):
    rows = {hooks: [] for hooks in WEBHOOKS}
    for _ in range(args.rounds):
        for hooks in WEBHOOKS:
            rows[hooks].append(measure_rate(processes, 20000 if args.quick else 128000, hooks))
    out = ["| webhooks | signed deliveries per second | broker CPU each | own | failed |",
           "|---|---|---|---|---|"]
    for hooks, found in rows.items():
        rates = [r["per_s"] for r in found]
        out.append(f"| {hooks} | {statistics.median(rates):,.0f} ({min(rates):,.0f} to "
                   f"{max(rates):,.0f}) | {statistics.median(r['cpu_us'] for r in found):.1f} us | "
                   f"{statistics.median(r['own_us'] for r in found):.1f} us | "
                   f"{sum(r['failed'] for r in found)} |")
    best = max(statistics.median(r["per_s"] for r in found) for found in rows.values())
    return out, [("signed deliveries per second to nginx", ">= 10,000", f"{best:,.0f}",
                  best >= 10000)]


# -- dead --

def origin(n, port):
    """Every address of 127/8 is this machine."""
    return f"http://127.{1 + n // 250}.{n % 250}.1:{port}"


def publish_steadily(broker, seconds):
    """PER_S events a second for so long, to each endpoint in turn."""
    step = PER_S // 50
    began, n = time.monotonic(), 0
    while n < PER_S * seconds:
        now = time.monotonic_ns()
        broker.api("POST", "/v1/events", {"events": [
            {"type": f"e.{(n + i) % ENDPOINTS}", "data": {"at": now}} for i in range(step)]})
        n += step
        wait = began + n / PER_S - time.monotonic()
        if wait > 0:
            time.sleep(wait)
    return n


def measure_dead(processes, seconds, dead):
    refused = free_port()
    receiver = ReceiverProcess()
    broker = processes.broker("--webhook-allow", "127.0.0.0/8")
    bad = range(0, ENDPOINTS, ENDPOINTS // DEAD)

    def uri(n):
        how = "ok"
        if dead and n in bad:
            how = ("refused", "never", "500")[n // (ENDPOINTS // DEAD) % 3]
        return origin(n, refused if how == "refused" else receiver.port) + f"/{how}/{n}"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: broker.api("POST", "/v1/webhooks", {
            "uri": uri(n), "subscribed_events": [f"e.{n}"]}), range(ENDPOINTS)))
    with Watch(broker) as watch:
        sent = publish_steadily(broker, seconds)
        healthy = [n for n in range(ENDPOINTS) if n not in bad]
        want = sum(len(range(n, sent, ENDPOINTS)) for n in healthy)
        wait_for(lambda: receiver.count(healthy) >= want, 60, "every event at the healthy endpoints")
    took = sorted(receiver.times_ms(healthy))
    receiver.end()
    processes.end()
    result = {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "max": took[-1],
              "sockets": watch.sockets, "kib": watch.kib, "count": len(took)}
    print(f"  {DEAD if dead else 0:3} dead  {result['count']:,} deliveries  "
          f"p50 {result['p50']:.1f} ms  p99 {result['p99']:.1f} ms  max {result['max']:.1f} ms  sockets {result['sockets']}  "
          f"memory {result['kib'] / 1024:.1f} MiB", flush=True)
    return result


def part_dead(processes, args):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    runs = {False: [], True: []}
    for round_number in range(args.rounds):
        for dead in (False, True) if round_number % 2 == 0 else (True, False):
            runs[dead].append(measure_dead(processes, 5 if args.quick else 20, dead))
    out = ["| | p50 | p99 | slowest | sockets, at most | anonymous memory, at most |",
           "|---|---|---|---|---|---|"]
    for dead, name in ((False, "all healthy"), (True, f"{DEAD} dead")):
        def middle(key, found=runs[dead]):
            return statistics.median(r[key] for r in found)
        out.append(f"| {name} | {middle('p50'):.1f} ms | {middle('p99'):.1f} ms | {middle('max'):.1f}"
                   f" ms | {middle('sockets'):,.0f} | {middle('kib') / 1024:.1f} MiB |")
    ratio = statistics.median(b["p99"] / a["p99"] for a, b in zip(runs[False], runs[True]))
    sockets = max(r["sockets"] for r in runs[True])
    kib = max(b["kib"] - a["kib"] for a, b in zip(runs[False], runs[True]))
    return out, [(f"p99 at the healthy ones, {DEAD} dead / all healthy", "<= 2", f"{ratio:.2f}",
                  ratio <= 2),
                 ("sockets, at most: one for each, two for a dead one, 50 of the broker",
                  f"<= {SOCKETS:,}", f"{sockets:,}", sockets <= SOCKETS),
                 (f"memory that {DEAD} dead ones cost", "<= 16 MiB", f"{kib / 1024:.1f} MiB",
                  kib <= 16 * 1024)]


PARTS = {"rate": part_rate, "dead": part_dead}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--build", type=Path, default=REPO / "build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round, nothing is written")
    parser.add_argument("--note", help="a sentence for the report, on what else was going on")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.rounds = 1
    load, started = os.getloadavg()[0], datetime.datetime.now(datetime.timezone.utc)
    text, verdicts = [], []
    with tempfile.TemporaryDirectory(prefix="bellhop-bench-") as name:
        directory = Path(name)
        before = fdatasync_us(directory)
        processes = Processes(args.build.resolve(), directory)
        for part in [args.only] if args.only else PARTS:
            print(f"== {part}", flush=True)
            try:
                rows, said = PARTS[part](processes, args)
            finally:
                processes.end()
            text += [f"## {part}", "", *rows, ""]
            verdicts += said
        after = fdatasync_us(directory)
    peers = [f"| peer | {version(program('nginx'), '-v')} |"] if args.only != "dead" else []
    head = [f"# Outbound webhooks: {started:%Y-%m-%d}", "",
            f"`bench/outbound.py{f' --only {args.only}' if args.only else ''} --rounds "
            f"{args.rounds}`, {started:%H:%M} UTC. Load, broker and "
            "receivers on the same machine; medians of the rounds, in brackets the lowest and the "
            "highest.", "", *([args.note, ""] if args.note else []), "| | |", "|---|---|",
            *machine_rows(before, after, load), *peers, "", *text, "| | target | measured | |",
            "|---|---|---|---|"]
    head += [f"| {what} | {target} | {got} | {'met' if met else '**missed**'} |"
             for what, target, got, met in verdicts]
    head += ["", *__doc__.strip().split("\n\n", 3)[3].split("\n"), ""]
    report = "\n".join(head)
    print("\n" + report)
    out = args.out or REPO / "bench" / "results" / f"outbound-{started:%Y-%m-%d}.md"
    if args.out or not args.quick:
        out.write_text(report)
        print(f"written to {out}")


if __name__ == "__main__":
    main()
