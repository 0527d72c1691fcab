"""Thousands of clients that send or read a byte a second, and honest ones beside them.

The verdict: no honest POST fails, and the server ends every slow connection, none before its time. The
latencies of the honest ones are printed (pytest -s); bench/slow_clients.py measures them."""

import http.client
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from harness import DEADLINE_S, make_secret, signed_headers, wait_for

SECRET = make_secret()
SLOW = Path(__file__).resolve().parent / "slow_clients.py"
BODY = b'{"type":"t"}'


class Honest:
    """Posts signed webhooks, one after the other, until it is told to stop."""

    def __init__(self, port, keep_alive):
        self.port, self.keep_alive = port, keep_alive
        self.took_ms, self.failures = [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        connection = None
        while not self.stopping.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
            began = time.monotonic()
            try:
                connection.request("POST", "/in/src", BODY, signed_headers(SECRET, BODY))
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failures.append(answer.status)
            except (OSError, http.client.HTTPException) as problem:
                self.failures.append(repr(problem))
                connection = None
                continue
            self.took_ms.append((time.monotonic() - began) * 1000)
            if not self.keep_alive:
                connection.close()
                connection = None
            # Many small steps aside: the interpreter is shared with the other thread.
            self.stopping.wait(0.005)

    def summary(self):
        took = sorted(self.took_ms)
        return (f"{len(took)} honest POSTs: p50 {took[len(took) // 2]:.1f} ms, p99 "
                f"{took[len(took) * 99 // 100]:.1f} ms, longest {took[-1]:.1f} ms")


def crowd_beside_honest(broker, mode, connections):
    """The figures of the slow clients, once the server has ended all of them."""
    broker.add_source("src", SECRET)
    honest = [Honest(broker.http_port, True), Honest(broker.http_port, False)]
    slow = subprocess.Popen([sys.executable, str(SLOW), "--port", str(broker.http_port), "--mode", mode,
                             "--connections", str(connections)], stdout=subprocess.PIPE, text=True)
    try:
        assert slow.stdout.readline() == "ready\n"
        for one in honest:
            one.thread.start()
        # (It gives up by itself long before the test would.)
        figures = json.loads(slow.stdout.readline())
        assert slow.wait(DEADLINE_S) == 0
        count = len(honest[1].took_ms)
        wait_for(lambda: len(honest[1].took_ms) > count + 10, what="a POST afterwards")
    finally:
        slow.kill()
        slow.wait()
        slow.stdout.close()
        for one in honest:
            one.stopping.set()
            if one.thread.ident is not None:
                one.thread.join()
    for one in honest:
        assert one.failures == []
        print(f"\n{mode}: {one.summary()}")
    print(json.dumps(figures))
    for name, row in figures.items():
        assert row["closed"] == row["connections"], (name, figures)
    return figures


@pytest.fixture(autouse=True)
def enough_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard == resource.RLIM_INFINITY or hard >= 6000, \
        f"5,000 connections need as many open files; ulimit -Hn says {hard}"


def test_heads_and_bodies_that_drip(broker):
    figures = crowd_beside_honest(broker, "head,body,chunks", 5000)
    assert sum(row["connections"] for row in figures.values()) == 5000
    for row in figures.values():
        assert set(row["statuses"]) == {"408"}, figures
        assert row["least_s"] >= 4.9, figures  # the deadline is 5 s; the clocks are two


@pytest.mark.long
def test_readers_that_sip(broker):
    """Their answers are far more than the kernel holds for them, and they take a byte a second."""
    body = json.dumps({"type": "t", "data": "x" * 100_000}).encode()
    for _ in range(20):
        status, answer = broker.api("POST", "/v1/events", body)
        assert status in (200, 201), answer
    figures = crowd_beside_honest(broker, "read", 100)
    assert figures["read"]["least_s"] >= 29, figures  # 30 s
