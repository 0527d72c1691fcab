"""Parts of bench/delivery.py about workers that hold on: restarts, one that never reads, long jobs.

They return what the parts of delivery_load.py do.
"""

import collections
import signal
import statistics
import time

from broker import run, wait_for
from delivery_load import FILL, alternate, bhp, mib, show

RESUME_MS = 60000


# -- restart --

class Holder:
    """A worker that outlives its connections: it remembers what it holds and claims it."""

    def __init__(self, window):
        self.window, self.held, self.client = window, [], None

    def connect(self, broker):
        session = self.client.welcome["session"] if self.client else None
        self.client = bhp.Client(broker.workers_port, timeout=120, heartbeat_ms=300000,
                                 resume_ms=RESUME_MS, resume=session)
        return self.client.subscribe(window=self.window, window_bytes=64 << 20,
                                     claims=[bhp.claim_of(i) for i in self.held])

    def come_back(self, broker):
        """The number of claims that were granted; the others are forgotten."""
        self.client.close()
        claimed = self.held
        granted = self.connect(broker)["resumed"]
        lost = set()
        while len(lost) < len(claimed) - granted:
            lost |= set(self.client.expect_revoke().tags)
        self.held = [i for i in claimed if i.tag not in lost]
        return granted


def restart_once(bench, signum, at_once):
    """One restart under leases: a dict of what happened. at_once: in the moment when the last event
    came; else when the broker has had time to note all it handed out."""
    workers, window = bench.size(50, 10), bench.size(1000, 200)
    total = workers * window
    broker = bench.broker("--drain-ms", "5000")
    broker.api("POST", "/v1/subscriptions", {"name": "sub", "lease_ms": 600000})
    run(bench.build, "bench_workers", "publish", "--port", broker.workers_port, *FILL, "--bytes", 300,
        "--count", total)
    holders = [Holder(window) for _ in range(workers)]
    for holder in holders:
        holder.connect(broker)
    for holder in holders:
        holder.held = holder.client.take(window)
    if not at_once:
        time.sleep(1)
    broker.stop(signum)
    began = time.monotonic()
    broker.start()
    started = time.monotonic() - began
    # Nobody's worker is there first, and takes what it is given.
    other = bhp.Client(broker.workers_port, timeout=120, heartbeat_ms=300000)
    other.subscribe(window=16384, window_bytes=64 << 20)
    granted = sum(holder.come_back(broker) for holder in holders)
    resumed = time.monotonic() - began
    for holder in holders:
        if holder.held:
            holder.client.ack(holder.held)
    twice = set()

    def settled():
        for client in (other, *(holder.client for holder in holders)):
            client.settle_down()
            items = list(client.items)
            client.items.clear()
            if items:
                twice.update(i.seq for i in items)
                client.ack(items)
        return broker.api("GET", "/v1/subscriptions/sub")["acked"] >= total
    wait_for(settled, 120, "the last ack")
    for client in (other, *(holder.client for holder in holders)):
        client.close()
    broker.remove()
    return {"total": total, "granted": granted, "twice": len(twice), "started": started,
            "resumed": resumed}


def part_restart(bench):
    rows = [("signal", "leases", "claims granted", "delivered twice", "exec to ready",
             "exec to the last resume")]
    verdicts = []
    for signum, at_once in ((signal.SIGTERM, False), (signal.SIGKILL, False), (signal.SIGKILL, True)):
        what = signum.name + (" as the last one comes" if at_once else "")
        results = [restart_once(bench, signum, at_once) for _ in range(bench.rounds)]
        worst = max(results, key=lambda r: r["twice"])
        part = worst["twice"] / worst["total"]
        rows.append((what, f"{worst['total']:,}", f"{worst['granted']:,}", f"{worst['twice']:,}",
                     f"{statistics.median(r['started'] for r in results):.3f} s",
                     f"{statistics.median(r['resumed'] for r in results):.3f} s"))
        show(what, " ".join(rows[-1][1:]))
        if not at_once:
            verdicts.append((f"{what}: delivered twice, worst round", "< 1 %", f"{100 * part:.3f} %",
                             part < 0.01))
    lines = [f"{bench.size(50, 10)} workers with a window of {bench.size(1000, 200)} hold everything that was "
             "published, stay alive over the restart, and claim it with resume; a worker without a past attaches "
             "before they do. Delivered twice: events that anybody was given once more after the restart. What was "
             "handed out in the last 50 ms before a kill may be; in the third row the kill comes as soon as the "
             "last worker has read its last event."]
    return lines, rows, verdicts


# -- idle reader --

def consume_rate(bench, count, stuck):
    """The rate of the subscription that reads, and what is seen of the one that does not."""
    broker = bench.broker()
    seen = {}
    if stuck:
        worker = bhp.Client(broker.workers_port, heartbeat_ms=300000)
        worker.subscribe("stuck", window=16384, window_bytes=64 << 20, create={})
    for name in ("alive", "stuck")[:1 if stuck else 2]:
        broker.api("POST", "/v1/subscriptions", {"name": name})
    seen["before"] = broker.anon_kib()
    steps, rates = 4, []
    for step in range(steps):
        run(bench.build, "bench_workers", "publish", "--port", broker.workers_port, *FILL, "--bytes", 1024,
            "--count", count // steps)
        rates.append(run(bench.build, "bench_workers", "consume", "--port", broker.workers_port, "--name",
                         "alive", "--fill", 0, "--create", "", "--count", count // steps)["per_s"])
        seen[f"after {count * (step + 1) // steps:,}"] = broker.anon_kib()
    if stuck:
        info = {s["name"]: s for s in broker.api("GET", "/v1/subscriptions")["subscriptions"]}["stuck"]
        seen["why_idle"], seen["leased"], seen["backlog"] = (info[k] for k in ("why_idle", "leased", "backlog"))
        if not bench.quick:
            began = time.monotonic()
            wait_for(lambda: broker.api("GET", "/v1/subscriptions/stuck")["attachments"] == 0, 120,
                     "the end of the worker that does not read")
            seen["closed after"] = time.monotonic() - began
            seen["why_idle then"] = broker.api("GET", "/v1/subscriptions/stuck")["why_idle"]
        worker.close()
    broker.remove()
    return statistics.mean(rates), seen


def part_idle_reader(bench):
    count = bench.size(200000, 20000)
    got, seen = {True: [], False: []}, []
    for n in range(bench.rounds):
        for stuck in alternate(n, (False, True)):
            rate, what = consume_rate(bench, count, stuck)
            got[stuck].append(rate)
            if stuck:
                seen.append(what)
            show("with one that never reads" if stuck else "alone", f"{rate:,.0f}/s {what}")
    last = seen[-1]
    memory = {k: v for k, v in last.items() if k == "before" or k.startswith("after ")}
    steps = list(memory.values())
    growth = statistics.median(list(s.values())[4] - list(s.values())[1] for s in seen)
    ratio = statistics.median(b / a for a, b in zip(got[False], got[True]))
    rows = [("what", "measured"),
            ("anonymous memory: " + ", ".join(memory), ", ".join(mib(kib) for kib in steps)),
            ("the other's consume rate: alone, beside it",
             f"{statistics.median(got[False]):,.0f}/s, {statistics.median(got[True]):,.0f}/s"),
            ("the stuck one in GET /v1/subscriptions",
             f"why_idle {last['why_idle']}, leased {last['leased']:,}, backlog {last['backlog']:,}")]
    if "closed after" in last:
        rows.append(("closed by the broker, seconds after the last event; why_idle then",
                     f"{last['closed after']:.1f} s, {last['why_idle then']}"))
    verdicts = [("anonymous memory, growth from the first quarter to the last", "<= 4 MiB", mib(growth),
                 growth <= 4096),
                ("the other's rate, beside / alone", ">= 0.90", f"{ratio:.3f}", ratio >= 0.90),
                ("shown by name", "window", last["why_idle"], last["why_idle"] == "window")]
    lines = [f"{count:,} events of 1 KiB in four quarters, published and then consumed by one subscription; the "
             "worker of another one has the largest window and never reads its socket."]
    return lines, rows, verdicts


# -- long job --

def hold(client, item, seconds, lease_ms):
    """Renews four times per lease; how many times it did, and the longest time between two."""
    end, renewed, longest, last = time.monotonic() + seconds, 0, 0, item.at
    while time.monotonic() < end:
        time.sleep(lease_ms / 4000)
        assert client.extend([item]).ok == [item.tag], f"the lease was lost after {renewed} renewals"
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        renewed += 1
    return renewed, longest


def part_long_job(bench):
    seconds, lease_ms = bench.size(120, 10), 1000
    rows = [("worker", "leases long", "renewals", "longest pause between two", "deliveries", "fails")]
    verdicts = []
    for killed in (False, True):
        broker = bench.broker()
        broker.api("POST", "/v1/subscriptions", {"name": "sub", "lease_ms": lease_ms,
                                                 "backoff": {"min_ms": 1, "max_ms": 1, "factor": 1}})
        clients = [bhp.Client(broker.workers_port, heartbeat_ms=300000) for _ in range(2)]
        delivered = collections.Counter()
        clients[0].subscribe(window=1)
        broker.api("POST", "/v1/events", {"type": "job"})
        item = clients[0].take_one()
        delivered[item.seq] += 1
        clients[1].subscribe(window=1)
        renewed, longest = hold(clients[0], item, seconds, lease_ms)
        if killed:
            clients[0].close()  # to the broker that is what a killed process looks like
            item = clients[1].take_one()
            delivered[item.seq] += 1
            more, pause = hold(clients[1], item, seconds, lease_ms)
            renewed, longest = renewed + more, max(longest, pause)
        assert clients[1 if killed else 0].ack([item]).ok == [item.tag]
        for client in clients[1 if killed else 0:]:
            client.settle_down()
            delivered.update(i.seq for i in client.items)
            client.close()
        info = broker.api("GET", "/v1/subscriptions/sub")
        broker.remove()
        what = "killed once" if killed else "lives"
        want, got = 2 if killed else 1, delivered[1]
        rows.append((what, want * seconds * 1000 // lease_ms, renewed, f"{longest:.3f} s", got, item.fails))
        show(what, " ".join(map(str, rows[-1][1:])))
        verdicts.append((f"the worker {what}: deliveries", want, got,
                         got == want and item.fails == want - 1 and info["acked"] == 1))
    lines = [f"Scaled time: a lease of {lease_ms} ms, renewed for {seconds} s by a worker with heartbeats, while "
             "another one waits for work. With the default lease of 30 s as many leases are "
             f"{seconds * 30 * 1000 // lease_ms // 60} minutes."]
    return lines, rows, verdicts
