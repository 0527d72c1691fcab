"""Ten thousand requests that wait for a job cost little, and its event answers all of them."""

import selectors
import socket
import struct
import time

import pytest
from harness import DEADLINE_S, SANITIZED, wait_for

WAITS = 1000 if SANITIZED else 10000
KIB_MAX = 10  # of memory for each
BATCH = 500  # connected at a time: the listener's queue is finite


class Held:
    """Connections with one GET /v1/jobs/ID:wait each, and their answers."""

    def __init__(self, port):
        self.port = port
        self.sockets = []

    def add(self, count, job):
        request = (f"GET /v1/jobs/{job}:wait?timeout=600s HTTP/1.1\r\nHost: localhost\r\n"
                   "User-Agent: test\r\nAccept: application/json\r\n\r\n").encode()
        fresh = []
        for _ in range(count):
            fresh.append(socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S))
            fresh[-1].sendall(request)
        self.sockets += fresh

    def answers(self, deadline_s=DEADLINE_S):
        """One answer from each connection."""
        selector, got = selectors.DefaultSelector(), {}
        for s in self.sockets:
            s.setblocking(False)
            selector.register(s, selectors.EVENT_READ)
        end = time.monotonic() + deadline_s
        while len(got) < len(self.sockets):
            ready = selector.select(max(0, end - time.monotonic()))
            assert ready, f"{len(got)} of {len(self.sockets)} were answered"
            for key, _ in ready:
                text = key.fileobj.recv(65536)
                assert text, "closed without an answer"
                got[key.fileobj] = got.get(key.fileobj, b"") + text
                selector.unregister(key.fileobj)
        selector.close()
        return list(got.values())

    def close(self):
        for s in self.sockets:
            s.close()


@pytest.fixture
def held(broker):
    made = Held(broker.http_port)
    yield made
    made.close()


def anonymous_kib(broker):
    """The heap and what is like it; the map of the store is file memory."""
    for line in open(f"/proc/{broker.process.pid}/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("/proc/PID/status has no RssAnon")


def test_ten_thousand_wait_for_one_event(broker, held, capsys):
    broker.ok("PUT", "/v1/jobs/batches/1", {})
    broker.ok("PUT", "/v1/jobs/batches/2", {})
    held.add(1, "batches/1")
    before = anonymous_kib(broker)
    while len(held.sockets) < WAITS:
        held.add(min(BATCH, WAITS - len(held.sockets)), "batches/1")
        # An answer behind them: they have been read.
        broker.ok("GET", "/v1/status")
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["http"] >= WAITS)
    each = (anonymous_kib(broker) - before) / (WAITS - 1)
    with capsys.disabled():
        print(f"\n{WAITS} held waits: {each:.2f} KiB each")
    if not SANITIZED:
        assert each <= KIB_MAX
    # What is not theirs does not wake them.
    broker.publish("batch.succeeded", subject="batches/2")
    broker.publish("batch.progress", subject="batches/1")
    seq = broker.publish("batch.succeeded", subject="batches/1", data={"id": "batches/1"})
    answers = held.answers()
    assert len(answers) == WAITS
    for answer in set(answers):
        assert answer.startswith(b"HTTP/1.1 200 ") and f'"seq":{seq}'.encode() in answer
        assert b'"state":"succeeded"' in answer
    # The next one need not wait.
    job = broker.ok("GET", "/v1/jobs/batches/1:wait?timeout=10m")
    assert job["event"]["seq"] == seq and job["event"]["type"] == "batch.succeeded"


def test_a_stop_answers_who_waits(broker, held):
    broker.ok("PUT", "/v1/jobs/j", {})
    held.add(100, "j")
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["http"] >= 100)
    broker.stop()
    for answer in held.answers():
        assert answer.startswith(b"HTTP/1.1 200 ") and b'"event"' not in answer


def test_who_goes_away_is_forgotten(broker, held):
    broker.ok("PUT", "/v1/jobs/j", {})
    held.add(500, "j")
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["http"] >= 500)
    # By a reset: one that only ends its sending still gets its answer.
    for s in held.sockets[:499]:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    del held.sockets[:499]
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["http"] < 10)
    broker.publish("j.completed", subject="j")
    assert len(held.answers()) == 1
