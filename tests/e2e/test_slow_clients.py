"""Thousands of clients that send or read a byte a second, and honest ones beside them.

The verdict: no honest POST fails, and the server ends every slow connection, none before its time. The
latencies of the honest ones are printed (pytest -s); bench/slow_clients.py measures them. Over TLS the same,
and a flood of handshakes that nobody finishes."""

import http.client
import json
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from certificates import Authority
from harness import DEADLINE_S, make_secret, signed_headers, wait_for

SECRET = make_secret()
SLOW = Path(__file__).resolve().parent / "slow_clients.py"
BODY = b'{"type":"t"}'


class Honest:
    """Posts signed webhooks, one after the other, until it is told to stop."""

    def __init__(self, broker, keep_alive):
        self.broker, self.keep_alive = broker, keep_alive
        self.took_ms, self.failures = [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def connect(self):
        if self.broker.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.broker.http_port, timeout=DEADLINE_S,
                                               context=self.broker.tls)
        return http.client.HTTPConnection("127.0.0.1", self.broker.http_port, timeout=DEADLINE_S)

    def run(self):
        connection = None
        while not self.stopping.is_set():
            if connection is None:
                connection = self.connect()
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


def crowd_beside_honest(broker, mode, connections, *flags, kept_only=False):
    """The figures of the slow clients, once the server has ended all of them. The honest ones come when the
    crowd is there; with kept_only they are connected before it and stay so."""
    broker.add_source("src", SECRET)
    honest = [Honest(broker, True), Honest(broker, kept_only)]
    if kept_only:
        for one in honest:
            one.thread.start()
            wait_for(lambda o=one: o.took_ms, what="the first POST")
    slow = subprocess.Popen([sys.executable, str(SLOW), "--port", str(broker.http_port), "--mode", mode,
                             "--connections", str(connections), *flags],
                            stdout=subprocess.PIPE, text=True)
    try:
        assert slow.stdout.readline() == "ready\n"
        for one in [] if kept_only else honest:
            one.thread.start()
        # (It gives up by itself long before the test would.)
        figures = json.loads(slow.stdout.readline())
        assert slow.wait(DEADLINE_S) == 0
        count = len(honest[-1].took_ms)
        wait_for(lambda: len(honest[-1].took_ms) > count + 10, what="a POST afterwards")
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
    return figures


def check_all_ended(figures):
    for name, row in figures.items():
        assert row["closed"] == row["connections"], (name, figures)


@pytest.fixture(autouse=True)
def enough_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard == resource.RLIM_INFINITY or hard >= 6000, \
        f"5,000 connections need as many open files; ulimit -Hn says {hard}"


@pytest.fixture
def tls_broker(brokers, tmp_path):
    """A broker that speaks TLS; its own requests, and honest clients, trust it."""
    authority = Authority(tmp_path)
    cert, key = authority.server("server", "first.example")
    broker = brokers("--tls-cert", str(cert), "--tls-key", str(key), start=False)
    broker.tls = ssl.create_default_context(cafile=str(authority.file))
    return broker.start()


def check_drips(figures, connections):
    check_all_ended(figures)
    assert sum(row["connections"] for row in figures.values()) == connections
    for row in figures.values():
        assert set(row["statuses"]) == {"408"}, figures
        assert row["least_s"] >= 4.9, figures  # the deadline is 5 s; the clocks are two


def test_heads_and_bodies_that_drip(broker):
    check_drips(crowd_beside_honest(broker, "head,body,chunks", 5000), 5000)


@pytest.mark.waits
def test_the_same_over_tls(tls_broker):
    check_drips(crowd_beside_honest(tls_broker, "head,body,chunks", 600, "--tls"), 600)


@pytest.mark.long
def test_the_same_over_tls_by_thousands(tls_broker):
    check_drips(crowd_beside_honest(tls_broker, "head,body,chunks", 5000, "--tls"), 5000)


@pytest.mark.waits
def test_handshakes_that_nobody_finishes(tls_broker):
    """Whoever is connected goes on: those who come with a first message and stall, and those who leave and
    come back, cost only what each turn has for handshakes. Afterwards new ones get in."""
    figures = crowd_beside_honest(tls_broker, "hello,leave", 1000, "--again", "5", kept_only=True)
    assert figures["leave"]["connections"] > 500, figures
    with tls_broker_connection(tls_broker) as connection:
        assert connection.version() == "TLSv1.3"


def tls_broker_connection(broker):
    raw = socket.create_connection(("127.0.0.1", broker.http_port), timeout=DEADLINE_S)
    return broker.tls.wrap_socket(raw, server_hostname="127.0.0.1")


@pytest.mark.long
def test_readers_that_sip(broker):
    """Their answers are far more than the kernel holds for them, and they take a byte a second."""
    body = json.dumps({"type": "t", "data": "x" * 100_000}).encode()
    for _ in range(20):
        status, answer = broker.api("POST", "/v1/events", body)
        assert status in (200, 201), answer
    figures = crowd_beside_honest(broker, "read", 100)
    check_all_ended(figures)
    assert figures["read"]["least_s"] >= 29, figures  # 30 s
