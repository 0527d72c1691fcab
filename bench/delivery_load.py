"""Parts of bench/delivery.py that the C generators load: the backlog, many filters, poison.

A part takes the Bench and returns (lines of text, rows of its table with the head first, verdicts of
(what, target, measured, met)).
"""

import base64
import http.client
import json
import os
import signal
import statistics
import sys
import threading
import time

from broker import NAME, REPO, run, wait_for

sys.path.append(str(REPO / "tests" / "e2e"))
import bhp  # noqa: E402

SECRET = "whsec_" + base64.b64encode(b"b" * 32).decode()
HOUR_MS = 3600 * 1000
REPEAT = 3  # times a short comparison is made per round: rates of a shared disk vary
FILL = ("--connections", 8, "--pipeline", 8, "--batch", 64)


def show(what, value):
    print(f"  {what:58} {value}", flush=True)
    return value


def mib(kib):
    return f"{kib / 1024:,.1f} MiB"


def alternate(round_number, pair):
    return pair if round_number % 2 == 0 else pair[::-1]


class Peak:
    """The highest anonymous memory of a broker while the block runs, looked at 20 times a second."""

    def __init__(self, broker):
        self.broker, self.kib = broker, broker.anon_kib()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self.over.wait(0.05):
            self.kib = max(self.kib, self.broker.anon_kib())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def measured(broker, measure):
    """(rate, microseconds of the broker's processor per event: its own code, all)"""
    def taken():
        return broker.api("GET", "/v1/status")["totals"]["published"]

    events, cpu = taken(), broker.cpu_s()
    rate = measure(broker)["per_s"]
    own, system = (after - before for after, before in zip(broker.cpu_s(), cpu))
    per_us = 1e6 / (taken() - events)
    return rate, own * per_us, (own + system) * per_us


# -- backlog --

def backlog_subscriptions(broker):
    """One that reads everything and has no worker; one whose events are delayed."""
    broker.api("POST", "/v1/subscriptions", {"name": "backlog", "start": "first"})
    broker.api("POST", "/v1/subscriptions", {"name": "later", "filter": {"types": ["later.*"]}})


def fill_backlog(bench, broker, count, later, ids):
    """Publishes it all; the worker of the second subscription stays until the delayed events are
    parked. (publish rate, peak of the anonymous memory in KiB)"""
    worker = bhp.Client(broker.workers_port, heartbeat_ms=300000)
    worker.subscribe("later")
    with Peak(broker) as peak:
        filled = run(bench.build, "bench_workers", "publish", "--port", broker.workers_port, *FILL,
                     "--bytes", 1024, "--count", count, "--deadline", 1800, "--ids", ids,
                     "--type", "bulk.event", timeout=1900)
        run(bench.build, "bench_workers", "publish", "--port", broker.workers_port, *FILL,
            "--bytes", 1024, "--count", later, "--deadline", 1800, "--ids", ids, "--type",
            "later.event", "--deliver-after-ms", 4 * HOUR_MS, timeout=1900)
        wait_for(lambda: broker.api("GET", "/v1/subscriptions/later")["delayed"] == later, 600,
                 f"{later} delayed events in the subscription")
    assert not worker.items, "an event came before its time"
    worker.close()
    return filled["per_s"], peak.kib


def first_delivery_s(broker, name, *options):
    """Starts the broker and attaches at once: seconds from exec to ready, and to the DELIVER."""
    began = time.monotonic()
    broker.start(*options)
    ready = time.monotonic() - began
    worker = bhp.Client(broker.workers_port, timeout=60)
    worker.subscribe(name, window=1)
    took = worker.take_one().at - began
    worker.send(bhp.CLOSE, 0)  # not tried
    worker.wait_closed()
    worker.close()
    return ready, took


def forget_pages(broker):
    """Asks the system to drop the store's pages from its cache."""
    for path in (broker.directory / "data").rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def backlog_restarts(broker, idle_kib):
    """(rows, the slowest start to first delivery with a warm cache, highest memory after a start)"""
    rows, slowest, memory = [], 0, 0
    for signum in (signal.SIGKILL, signal.SIGTERM):
        for grace, cold in (("0", False), ("10000", False), ("0", True)):
            broker.stop(signum)
            if cold:
                forget_pages(broker)
            ready, took = first_delivery_s(broker, "backlog", "--restart-grace", grace)
            anon = broker.anon_kib() - idle_kib
            slowest = slowest if cold else max(slowest, took)
            memory = max(memory, anon)
            what = (f"{signum.name}, --restart-grace {grace}"
                    + (", pages dropped from the cache" if cold else ""))
            rows.append((f"restart after {what}: ready, first DELIVER, memory above empty",
                         f"{ready:.3f} s, {took:.3f} s, {mib(anon)}"))
            show(*rows[-1])
    return rows, slowest, memory


def consume(bench, broker, name, count):
    return run(bench.build, "bench_workers", "consume", "--port", broker.workers_port, "--name", name,
               "--count", count, "--fill", 0, "--create", "")["per_s"]


def publish_count(bench, broker, type, count):
    return run(bench.build, "bench_workers", "publish", "--port", broker.workers_port, *FILL, "--bytes",
               1024, "--count", count, "--type", type)["per_s"]


def publish_for(bench, broker, seconds, cpu):
    rate, _, cpu_us = measured(broker, lambda b: run(
        bench.build, "bench_workers", "publish", "--port", b.workers_port, "--seconds", seconds))
    cpu.setdefault(broker, []).append(cpu_us)
    return rate


def backlog_rates(bench, loaded):
    """Publish and consume beside the backlog and on an empty journal: ({what: [(empty, loaded)]},
    {broker: [processor time per published event in microseconds]})"""
    count, seconds = bench.size(200000, 20000), bench.size(2, 1)
    rates, cpu = {}, {}
    for n in range(bench.rounds):
        empty = bench.broker()
        backlog_subscriptions(empty)
        pair = {"empty": empty, "loaded": loaded}
        order = alternate(n, ("empty", "loaded"))
        publish_count(bench, empty, "bulk.event", count)

        def each(what, measure):
            got = {name: measure(pair[name]) for name in order}
            rates.setdefault(what, []).append((got["empty"], got["loaded"]))
            show(what, f"empty {got['empty']:,.0f}/s, with the backlog {got['loaded']:,.0f}/s")

        def fresh(broker):
            broker.api("POST", "/v1/subscriptions",
                       {"name": f"fresh-{n}", "filter": {"types": ["fresh.*"]}})
            return publish_count(bench, broker, "fresh.event", count)

        each("consume + ack the oldest unread, 1 KiB, 8 x 64",
             lambda broker: consume(bench, broker, "backlog", count))
        each("publish 1 KiB, 64 a frame, 8 x 8", fresh)
        each("consume + ack the newest, 1 KiB, 8 x 64",
             lambda broker: consume(bench, broker, f"fresh-{n}", count))
        for again in range(REPEAT):
            order = alternate(n + again, ("empty", "loaded"))
            each("publish 300 B, 64 x 16", lambda broker: publish_for(bench, broker, seconds, cpu))
        loaded.api("DELETE", f"/v1/subscriptions/fresh-{n}")
        empty.remove()
    return rates, cpu


def with_ids(bench, count, later):
    """The same memory when every event has an id: the table that finds repeats grows too."""
    broker = bench.broker()
    backlog_subscriptions(broker)
    idle = broker.anon_kib()
    _, peak = fill_backlog(bench, broker, count, later, 1)
    after = broker.anon_kib() - idle
    broker.remove()
    return show("anonymous memory when each event has an id: after, peak",
                f"{mib(after)}, {mib(peak - idle)}")


def part_backlog(bench):
    count, later = bench.size(5000000, 50000), bench.size(1000000, 10000)
    ids_text = with_ids(bench, count, later)
    loaded = bench.broker()
    backlog_subscriptions(loaded)
    idle = show("anonymous memory of the empty broker, KiB", loaded.anon_kib())
    rate, peak = fill_backlog(bench, loaded, count, later, 0)
    filled = loaded.anon_kib() - idle
    info = loaded.api("GET", "/v1/subscriptions/backlog")
    store = loaded.api("GET", "/v1/status")["store"]["bytes_used"]
    show("published at", f"{rate:,.0f}/s")
    show("anonymous memory above empty: now, peak", f"{mib(filled)}, {mib(peak - idle)}")
    rates, cpu = backlog_rates(bench, loaded)
    cpu_text = "{:.2f} us, {:.2f} us".format(*(
        statistics.median(us for b, all_us in cpu.items() if (b is loaded) == with_it for us in all_us)
        for with_it in (False, True)))
    show("broker CPU per event published: empty, loaded", cpu_text)
    worked = show("anonymous memory above empty after the rates", mib(loaded.anon_kib() - idle))
    restarts, slowest, restarted = backlog_restarts(loaded, idle)
    rows = [("what", "measured"),
            ("unread events of 1 KiB; delayed ones", f"{info['backlog'] - later:,}; {later:,}"),
            ("store on disk", f"{store / (1 << 30):.2f} GiB"),
            ("published into it at", f"{rate:,.0f}/s"),
            ("anonymous memory of the empty broker", mib(idle)),
            ("above that with the backlog; highest while it was filled",
             f"{mib(filled)}; {mib(peak - idle)}"),
            ("above that after the rates below", worked),
            ("above that with the backlog when each event has an id; peak", ids_text.replace(",", ";")),
            *restarts]
    # The target's sentence is about the backlog; ids are shown beside it.
    verdicts = [("anonymous memory above empty, also after a restart", "<= 64 MiB",
                 mib(max(filled, restarted)), max(filled, restarted) <= 64 * 1024),
                ("restart to first delivery, warm cache, slowest", "<= 2 s", f"{slowest:.3f} s",
                 slowest <= 2)]
    for what, pairs in rates.items():
        rows.append((what + ": empty, with the backlog",
                     f"{statistics.median(p[0] for p in pairs):,.0f}/s, "
                     f"{statistics.median(p[1] for p in pairs):,.0f}/s"))
        ratio = statistics.median(b / a for a, b in pairs)
        verdicts.append((what + ", backlog / empty", ">= 0.90", f"{ratio:.3f}", ratio >= 0.90))
    rows.append(("broker CPU per event of that: empty, with the backlog", cpu_text))
    lines = [f"A subscription without a worker has {count:,} events of 1 KiB before it, another one "
             f"{later:,} that are due in four hours and that its worker let it park. Memory is RssAnon. "
             "Restart: from exec to the first DELIVER at a worker that connects as soon as the broker is "
             "ready. The empty broker has the same subscriptions."]
    return lines, rows, verdicts


# -- subscriptions --

SUBSCRIPTION_SHAPES = {
    "types, each its own": lambda n: {"types": [f"kind-{n:05d}.*"]},
    "one glob, each its own user_metadata": lambda n: {
        "types": ["batch.*"], "user_metadata": {"customer": f"tenant-{n:05d}"}},
    "one glob, each its own subject_prefix": lambda n: {
        "types": ["batch.*"], "subject_prefix": f"run_{n:05d}/"},
    "sources, each its own": lambda n: {"sources": [f"door-{n:05d}"]},
}
# What the HTTP generator's body says, so that both doors match the same things.
LIKE_INGEST = ("--type", "batch.succeeded", "--subject", "batch_0123456789abcdef", "--metadata",
               '{"team":"a","customer":"c-0042","k":1}')


def add_many(broker, count, filter_of):
    """Creates the subscriptions, several requests in flight."""
    failed = []

    def some(numbers):
        connection = http.client.HTTPConnection("127.0.0.1", broker.http_port, timeout=60)
        for n in numbers:
            connection.request("POST", "/v1/subscriptions",
                               json.dumps({"name": f"s{n}", "filter": filter_of(n)}))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 201:
                failed.append(text)
                break
        connection.close()

    threads = [threading.Thread(target=some, args=(range(i, count + 1, 8),)) for i in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit(f"{NAME}: a subscription was refused: {failed[0].decode()}")


def compare(rounds, pair, measure):
    """{"none": [measured() of each round], "many": ...}"""
    got = {"none": [], "many": []}
    # One round before the first that counts: files and buffers become warm.
    for n in range(-1, rounds * REPEAT):
        for name in alternate(n, ("none", "many")):
            what = measured(pair[name], measure)
            if n >= 0:
                got[name].append(what)
    return got


def part_subscriptions(bench):
    count, seconds = bench.size(10000, 500), bench.size(2, 1)
    doors = {
        "publish 300 B, 64 x 16": lambda broker: run(
            bench.build, "bench_workers", "publish", "--port", broker.workers_port, "--seconds", seconds,
            *LIKE_INGEST),
        "signed ingest, 64 connections": lambda broker: run(
            bench.build, "bench_load", "http", "--port", broker.http_port, "--secret", SECRET,
            "--connections", 64, "--seconds", seconds)}
    rows = [("filters that do not match", "door", "none", f"{count:,}", "ratio",
             "broker CPU per event: none", f"{count:,}", "memory of the many")]
    verdicts = []
    for shape, filter_of in SUBSCRIPTION_SHAPES.items():
        pair = {"none": bench.broker(), "many": bench.broker()}
        for broker in pair.values():
            broker.api("POST", "/v1/sources", {"name": "bench", "secrets": [SECRET]})
        idle = pair["many"].anon_kib()
        began = time.monotonic()
        add_many(pair["many"], count, filter_of)
        show(f"{shape}: created in", f"{time.monotonic() - began:.1f} s")
        memory = mib(pair["many"].anon_kib() - idle)
        for door, measure in doors.items():
            got = compare(bench.rounds, pair, measure)
            ratio = statistics.median(b[0] / a[0] for a, b in zip(got["none"], got["many"]))
            (none, none_own, none_cpu), (many, many_own, many_cpu) = (
                tuple(statistics.median(column) for column in zip(*got[name])) for name in ("none", "many"))
            rows.append((shape, door, f"{none:,.0f}/s", f"{many:,.0f}/s", f"{ratio:.3f}",
                         f"{none_cpu:.2f} us ({none_own:.2f} own)", f"{many_cpu:.2f} us ({many_own:.2f} own)",
                         memory))
            show(f"{shape}: {door}", ", ".join(rows[-1][2:7]))
            verdicts.append((f"{shape}: {door}", ">= 0.95", f"{ratio:.3f}", ratio >= 0.95))
        for broker in pair.values():
            broker.remove()
    lines = [f"Two brokers side by side, one without subscriptions and one with {count:,}, loaded in turn; "
             "both journals grow alike. The events have a type, a subject, a source (at the HTTP door) and "
             "user_metadata of the names that the filters ask for, with other values. Of the broker's processor "
             "time per event, \"own\" is what is not the system's."]
    return lines, rows, verdicts


# -- poison --

POISON_KINDS = {
    "settled at once, backoff 1 s x 2": (0, {"min_ms": 1000, "max_ms": 600000, "factor": 2}),
    "settled at once, again every second": (0, {"min_ms": 1000, "max_ms": 1000, "factor": 1}),
    "20 ms of work each, backoff 1 s x 2": (20000, {"min_ms": 1000, "max_ms": 600000, "factor": 2}),
}


def ms(us):
    return f"{us / 1000:,.2f} ms"


def part_poison(bench):
    seconds = bench.size(20, 4)
    rows = [("worker and backoff", "phase", "p50", "p99", "highest", "p50 of its slowest second", "came")]
    verdicts = []
    for kind, (service_us, backoff) in POISON_KINDS.items():
        results = []
        for _ in range(bench.rounds):
            broker = bench.broker()
            results.append(run(
                bench.build, "bench_poison", "--port", broker.workers_port, "--seconds", seconds,
                "--burst", bench.size(10000, 2000), "--service-us", service_us, "--create",
                json.dumps({"max_fails": 0, "backoff": backoff})))
            broker.remove()
        for phase, text in (("calm", "without"), ("burst", "with the burst")):
            def median(field):
                return statistics.median(r[phase][field] for r in results)
            slowest = statistics.median(max(r[phase]["seconds_p50_us"]) for r in results)
            came = f"{sum(r[phase]['came'] for r in results)}/{sum(r[phase]['sent'] for r in results)}"
            rows.append((kind, text, ms(median("p50_us")), ms(median("p99_us")), ms(median("max_us")),
                         ms(slowest), came))
            show(f"{kind}: {text}", " ".join(rows[-1][2:]))
        slow = statistics.median(sum(s > 3 * r["calm"]["p50_us"] for s in r["burst"]["seconds_p50_us"])
                                 for r in results)
        show("seconds whose p50 is above 3 x, nacks", f"{slow:.0f}, {results[0]['nacks']}")
        ratio = statistics.median(r["burst"]["p50_us"] / r["calm"]["p50_us"] for r in results)
        verdicts.append((f"{kind}: p50 with / without (seconds above 3 x: {slow:.0f} of {seconds})",
                         "<= 3", f"{ratio:.2f}", ratio <= 3))
    lines = [f"One subscription, two workers with a window of 100. Fresh events at 500/s, open loop; after "
             f"{seconds} s a burst of {bench.size(10000, 2000):,} events that are nacked (fail) each time they "
             "come, and as many seconds more. Latency is from the moment when an event was to be published to its "
             "DELIVER. In the first second after the burst its events are as fresh as the others and come "
             "before them; from then on they are redeliveries."]
    return lines, rows, verdicts
