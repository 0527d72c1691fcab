"""Everything that a broker can promise, asked of one broker in a few seconds: publishes through every
door, settlements of every kind, delays, dead letters, replays and redrives, retention, operators, a
kill -9 and a clean restart. Nothing here is checked: what the broker answered is read from the log.
"""

import http.client
import itertools
import json
import os
import random
import threading
from pathlib import Path

import bhp
import harness
from harness import DEADLINE_S, make_secret, signed_headers, wait_for

SECRET = make_secret()
LOST = (bhp.Closed, ConnectionError, BrokenPipeError, TimeoutError, OSError,
        http.client.HTTPException, bhp.ProtocolError, ValueError)
TYPES = ("a.one", "a.two", "b.one", "c")
RETAIN_BYTES = 300_000


class RecordedBroker(harness.Broker):
    """A broker whose disk and sockets are recorded. Its data lie in a directory of their own."""

    def __init__(self, directory, *args):
        super().__init__(directory, *args)
        self.root = self.directory / "disk"
        self.root.mkdir()
        self.data = self.root / "data"
        self.power_log = self.directory / "power.log"

    def start(self):
        env = {"LD_PRELOAD": str(harness.BUILD / "tests" / "record.so"), "POWER_ROOT": str(self.root),
               "POWER_LOG": str(self.power_log)}
        before = {name: os.environ.get(name) for name in env}
        os.environ.update(env)
        try:
            return super().start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class Burst:
    """One stretch of load: producers with a number of requests each, workers until they are done."""

    def __init__(self, broker, seed, operations):
        self.broker, self.seed, self.operations = broker, seed, operations
        self.stop = threading.Event()
        self.problems = []

    def body(self, rng):
        size = rng.choice((0, 10, 200, 200, 1500, 6000))
        return {"n": rng.randrange(1 << 60), "text": "x" * size}

    def event(self, rng, name):
        event = {"type": rng.choice(TYPES), "data": self.body(rng), "subject": f"s{rng.randrange(8)}"}
        if rng.random() < 0.9:
            event["id"] = name
        if rng.random() < 0.1:
            event["deliver_after_ms"] = rng.choice((1, 30, 300, 3600000))
        return event

    def http(self, rng, names, kind):
        connection = http.client.HTTPConnection("127.0.0.1", self.broker.http_port,
                                                timeout=DEADLINE_S)
        last = None
        for _ in range(self.operations):
            path, headers = "/v1/events", {}
            if kind == "single":
                body = self.event(rng, next(names))
            elif kind == "batch":
                body = {"events": [self.event(rng, next(names)) for _ in range(rng.randint(1, 20))]}
            else:
                path = "/in/src"
                body = {"type": rng.choice(TYPES), "data": self.body(rng)}
            if last is None or rng.random() > 0.1:  # else the same again
                data = json.dumps(body).encode()
                if kind == "signed":
                    headers = signed_headers(SECRET, data, next(names))
                last = path, data, headers
            connection.request("POST", *last)
            response = connection.getresponse()
            response.read()
            assert response.status in (200, 503), response.status
        connection.close()

    def protocol(self, rng, names):
        with bhp.Client(self.broker.workers_port, name="producer", timeout=DEADLINE_S) as client:
            for _ in range(self.operations):
                later = client.welcome["now_ms"] + 500 if rng.random() < 0.1 else 0
                rows = [[rng.choice(TYPES), "", next(names), "", "", 0, later,
                         rng.randbytes(rng.choice((9, 300, 5000)))] for _ in range(rng.randint(1, 20))]
                client.request(bhp.PUBLISH, rows)

    def worker(self, rng, subscription, create=None):
        with bhp.Client(self.broker.workers_port, name="worker", timeout=DEADLINE_S) as client:
            client.subscribe(subscription, window=24, create=create)
            while not self.stop.is_set():
                try:
                    items = client.take(1, timeout=0.05) + list(client.items)
                except TimeoutError:
                    continue
                finally:
                    client.frames.clear()
                client.items.clear()
                self.settle(rng, client, items)

    def settle(self, rng, client, items):
        """Mostly with confirmation; its answer comes when it comes."""
        by_kind = {}
        for item in items:
            draw = rng.random()
            kind = ("ack" if draw < 0.78 else bhp.FAIL if draw < 0.92 else
                    bhp.REJECT if draw < 0.96 else bhp.RELEASE)
            by_kind.setdefault(kind, []).append(item.tag)
        for kind, tags in by_kind.items():
            confirm = rng.random() < 0.85
            rid = next(client.rids) if confirm else 0
            if kind == "ack":
                client.send(bhp.ACK, rid, 1, bhp.ranges_of(tags), confirm)
            else:
                client.send(bhp.NACK, rid, 1, bhp.ranges_of(tags), kind, None, "it failed", confirm)

    def operator(self, rng):
        """What people do, one thing at a time."""
        b = self.broker
        for n in range(max(2, self.operations // 8)):
            last = b.ok("GET", "/v1/status")["journal"]["last_seq"]
            b.ok("PATCH", "/v1/subscriptions/all", {"lease_ms": 60000 + n + self.seed % 1000})
            b.ok("POST", "/v1/subscriptions/idle:pause", {})
            if last > self.replayed[0] + 20:  # ranges that do not meet: one task per event
                status, answer = b.api("POST", "/v1/replays", {
                    "subscription": "some", "from_seq": self.replayed[0] + 1, "to_seq": last - 5})
                assert status in (201, 400), answer
                self.replayed[0] = last - 5
            b.ok("POST", "/v1/dead-letters:redrive", {"subscription": "some"})
            b.ok("POST", "/v1/subscriptions/idle:resume", {})

    def guarded(self, work, *args):
        def run():
            try:
                work(*args)
            except LOST as problem:  # a kill -9, or the end of the burst
                if not self.broker.killed and not self.stop.is_set():
                    self.problems.append(problem)
        return threading.Thread(target=run)

    def rng(self, n):
        return random.Random(f"{self.seed}.{n}")

    def run(self, names, replayed, kill):
        """With kill, the broker is gone at the end, in the middle of it all."""
        self.replayed = replayed
        create = {"max_fails": 2, "backoff": {"min_ms": 1, "max_ms": 5}, "filter": {"types": ["c"]}}
        workers = [self.guarded(self.worker, self.rng(n), *args) for n, args in enumerate(
            (("all",), ("all",), ("some",), ("late", create)))]
        producers = [self.guarded(self.http, self.rng(10 + n), names, kind)
                     for n, kind in enumerate(("single", "batch", "signed"))]
        producers.append(self.guarded(self.protocol, self.rng(20), names))
        producers.append(self.guarded(self.operator, self.rng(21)))
        for thread in workers + producers:
            thread.start()
        if kill:
            producers[kill % 3].join(60)
            self.broker.kill9()
        for thread in producers:
            thread.join(60)
        self.stop.set()
        for thread in workers:
            thread.join(60)
        assert not any(t.is_alive() for t in workers + producers)
        assert not self.problems, self.problems[:3]


class Names:
    """Ids that every thread may ask for."""

    def __init__(self):
        self.lock, self.numbers = threading.Lock(), itertools.count()

    def __next__(self):
        with self.lock:
            return f"e{next(self.numbers)}"


def prepare(broker):
    broker.add_source("src", SECRET)
    quick = {"min_ms": 1, "max_ms": 20}
    broker.add_subscription("all", max_fails=3, lease_ms=60000, backoff=quick)
    broker.add_subscription("some", max_fails=2, lease_ms=60000, filter={"types": ["a.*"]},
                            order="key", backoff=quick)
    broker.add_subscription("idle", lag="expire")


def run(broker, seed, operations):
    """Leaves the broker stopped; its log is at broker.power_log."""
    names, replayed = Names(), [0]
    prepare(broker)
    Burst(broker, seed, operations).run(names, replayed, kill=0)
    broker.ok("PATCH", "/v1/retention", {"max_bytes": RETAIN_BYTES})
    wait_for(lambda: broker.ok("GET", "/v1/status")["trimmed"] > 0, what="the trimming")
    Burst(broker, seed + 1, operations).run(names, replayed, kill=1 + seed % 3)
    broker.start()
    Burst(broker, seed + 2, operations).run(names, replayed, kill=0)
    broker.restart()
    Burst(broker, seed + 3, operations // 2).run(names, replayed, kill=0)
    broker.ok("DELETE", "/v1/subscriptions/idle")
    broker.stop()
    return Path(broker.power_log)
