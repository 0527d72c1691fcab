"""The proxy does what it says: each fault is felt by the two ends, and nothing is changed."""

import contextlib
import random
import socket
import sys
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from harness import wait_for  # noqa: E402
from proxy import DOWN, UP, Faults, Flow, Proxy  # noqa: E402

DATA = bytes(range(256)) * 200


class Ends:
    """A proxy with a client's and a server's end of one connection."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(10)
        self.proxy = Proxy(1, "a")
        self.proxy.point_at(7, a=self.server.getsockname()[1])
        self.client, self.broker = self.connect()

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.proxy.port("a")), timeout=10)
        broker = self.server.accept()[0]
        broker.settimeout(10)
        return client, broker

    def close(self):
        for sock in (self.client, self.broker, self.server):
            sock.close()
        self.proxy.stop()


@pytest.fixture
def ends():
    made = Ends()
    yield made
    made.close()


def receive(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"it ended after {len(data)} bytes"
        data += piece
    return data


def both_ways(ends):
    """All bytes go both ways."""
    for a, b in ((ends.client, ends.broker), (ends.broker, ends.client)):
        sender = threading.Thread(target=a.sendall, args=(DATA,))
        sender.start()
        data = receive(b, len(DATA))
        sender.join(10)
        assert data == DATA


def is_silent(sock):
    sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(10)
    return True


@pytest.mark.parametrize("faults", [
    Faults(), Faults(delay_ms=5, jitter_ms=20), Faults(bytes_per_s=200_000), Faults(piece_max=400),
    Faults(coalesce_ms=30), Faults(1, 2, 500_000, 500, 10)], ids=str)
def test_bytes_stay_what_they_are(ends, faults):
    ends.proxy.set_faults("a", faults, faults)
    both_ways(ends)


def test_pieces_and_their_times():
    """What the receiver sees of it is the kernel's business."""
    flow = Flow(None, None)
    flow.take(DATA, Faults(delay_ms=100, jitter_ms=50, bytes_per_s=100_000, piece_max=50),
              random.Random(1), 5.0)
    times = [at for at, _ in flow.pieces]
    assert b"".join(piece for _, piece in flow.pieces) == DATA
    assert max(len(piece) for _, piece in flow.pieces) <= 50
    assert times == sorted(times) and times[0] > 5.1
    assert times[-1] - times[0] > 0.9 * len(DATA) / 100_000
    assert not flow.due(5.05) and flow.due(6)
    flow.hurry(5.0)
    assert flow.due(5.0)


def test_who_is_connected_to_which_broker(ends):
    assert ends.proxy.incarnation_of("a", ends.client.getsockname()[1]) == 7


def test_a_reset(ends):
    assert ends.proxy.each("a", 1, lambda pipe: pipe.cut("rst")) == 1
    for sock in (ends.client, ends.broker):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_an_end(ends):
    ends.proxy.each("a", 1, lambda pipe: pipe.cut("fin"))
    assert ends.client.recv(1) == ends.broker.recv(1) == b""


def test_half_of_a_connection(ends):
    ends.proxy.each("a", 1, lambda pipe: pipe.cut("half_up"))
    assert ends.broker.recv(1) == b""
    ends.broker.sendall(b"still")
    assert receive(ends.client, 5) == b"still"


def test_an_end_passes_through(ends):
    ends.client.sendall(b"bye")
    ends.client.shutdown(socket.SHUT_WR)
    assert receive(ends.broker, 3) == b"bye" and ends.broker.recv(1) == b""
    ends.broker.sendall(b"too")
    assert receive(ends.client, 3) == b"too"


def test_a_black_hole_that_heals(ends):
    ends.proxy.each("a", 1, lambda pipe: pipe.stall([UP]))
    ends.client.sendall(b"question")
    assert is_silent(ends.broker)
    ends.broker.sendall(b"other way")
    assert receive(ends.client, 9) == b"other way"
    ends.proxy.end_stalls(lambda pipe: "deliver")
    assert receive(ends.broker, 8) == b"question"


def test_half_open(ends):
    """The client goes, and the broker is not told until the hole is over."""
    ends.proxy.each("a", 1, lambda pipe: pipe.stall([UP, DOWN]))
    ends.client.close()
    assert is_silent(ends.broker)
    ends.proxy.end_stalls(lambda pipe: "reset")
    with pytest.raises(ConnectionResetError):
        ends.broker.recv(1)


def test_the_answer_is_lost(ends):
    def arm(pipe):
        pipe.cut_on_answer = True
    ends.proxy.each("a", 1, arm)
    ends.client.sendall(b"question")
    assert receive(ends.broker, 8) == b"question"
    ends.broker.sendall(b"answer")
    with pytest.raises(ConnectionResetError):
        ends.client.recv(1)


def test_refused_and_down(ends):
    def refused():
        with contextlib.suppress(ConnectionResetError):
            client = socket.create_connection(("127.0.0.1", ends.proxy.port("a")), timeout=10)
            with client:
                return not client.recv(1)
        return True
    ends.proxy.refuse("a", True)
    assert refused()
    ends.proxy.refuse("a", False)
    ends.proxy.point_at(8, a=None)
    assert refused()


def test_a_sender_feels_a_hole(ends):
    """What is held is bounded; after that the sender waits."""
    ends.proxy.each("a", 1, lambda pipe: pipe.stall([UP]))
    ends.client.setblocking(False)
    sent = 0

    def full():
        nonlocal sent
        try:
            sent += ends.client.send(bytes(65536))
        except BlockingIOError:
            return ends.proxy.do(lambda: max(
                p.flows[UP].bytes for p in ends.proxy.pipes)) >= 256 * 1024
        return False
    wait_for(full, 20, "a full pipe")
    ends.proxy.heal()
    assert len(receive(ends.broker, sent)) == sent
