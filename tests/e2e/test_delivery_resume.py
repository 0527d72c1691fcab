"""Thousands of leases over a lost connection, a stop and a kill of the broker: workers that stay alive
go on with what they hold, and hardly anything is delivered twice. bench/delivery.py measures the
same with 50,000."""

import signal

import bhp
import pytest
from harness import wait_for

WORKERS, WINDOW = 4, 500
HELD = WORKERS * WINDOW
RESUME_MS = 600000
GRACE_MS = "600000"  # a test that waits for its end fails by its own deadline


class Holder:
    """A worker that outlives its connections: it remembers what it holds and claims it."""

    def __init__(self, broker, connect):
        self.broker, self.connect = broker, connect
        self.client = connect(broker, resume_ms=RESUME_MS)
        self.client.subscribe(window=WINDOW)
        self.held = []

    def come_back(self):
        """How many claims were granted."""
        session = self.client.welcome["session"]
        self.client.close()
        self.client = self.connect(self.broker, resume_ms=RESUME_MS, resume=session)
        claims = [bhp.claim_of(i) for i in self.held]
        granted = self.client.subscribe(window=WINDOW, claims=claims)["resumed"]
        lost = set()
        while len(lost) < len(self.held) - granted:
            revoked = self.client.expect_revoke()
            assert revoked.reason == "lost"
            lost |= set(revoked.tags)
        self.held = [i for i in self.held if i.tag not in lost]
        return granted


def hold_everything(broker, connect):
    """Workers that hold HELD events between them, all noted on disk."""
    broker.add_subscription(lease_ms=600000, max_fails=1)
    broker.publish_many(HELD + 1)
    holders = [Holder(broker, connect) for _ in range(WORKERS)]
    for holder in holders:
        holder.held = holder.client.take(WINDOW)
    # A confirmed ack has the position with it, and so every hand-out before it.
    first = holders[0].held.pop(0)
    assert holders[0].client.ack([first]).ok == [first.tag]
    holders[0].held += holders[0].client.take()
    holders[0].client.ack([holders[0].held.pop()])
    return holders, HELD - 1


def stop(broker):
    broker.stop()


def kill(broker):
    broker.kill9()


@pytest.mark.parametrize("end", [stop, kill])
def test_leases_survive_a_restart(brokers, connect, end):
    broker = brokers("--restart-grace", GRACE_MS, "--drain-ms", "600000")
    holders, total = hold_everything(broker, connect)
    end(broker)
    broker.start()
    # One without a past is first, and would take all of it.
    other = connect(broker)
    other.subscribe(window=16384)
    other.settle_down()
    assert not other.items
    granted = sum(holder.come_back() for holder in holders)
    assert granted > 0.99 * total
    twice = settle_all(broker, holders, other)
    assert len(twice) < 0.01 * total
    got = broker.subscription()
    assert (got["acked"], got["leased"], got["dead"]) == (HELD + 1, 0, 0)


def settle_all(broker, holders, other):
    """Acks everything; the seqs that somebody was given once more."""
    for holder in holders:
        holder.client.ack(holder.held)
    twice = set()

    def settled():
        for client in (other, *(holder.client for holder in holders)):
            client.settle_down()
            if client.items:
                twice.update(i.seq for i in client.items)
                client.ack(client.items)
                client.items.clear()
        return broker.subscription()["acked"] == HELD + 1
    wait_for(settled, what="the last ack")
    return twice


def test_a_fresh_event_does_not_wait_for_the_grace(brokers, connect):
    broker = brokers("--restart-grace", GRACE_MS)
    hold_everything(broker, connect)
    broker.kill9()
    broker.start()
    other = connect(broker)
    other.subscribe(window=16384)
    seq = broker.publish()
    item = other.take_one()
    assert (item.seq, item.deliveries, item.flags) == (seq, 1, 0)
    assert not other.items


def test_nobody_comes_back(brokers, connect):
    """After the grace others get everything, and it was nobody's fault."""
    broker = brokers("--restart-grace", "300")
    holders, total = hold_everything(broker, connect)
    broker.kill9()
    broker.start()
    other = connect(broker)
    other.subscribe(window=16384)
    items = other.take(total)
    assert {i.seq for i in items} == {i.seq for holder in holders for i in holder.held}
    assert {i.fails for i in items} == {0}


def test_leases_survive_a_lost_connection(broker, connect):
    """All connections break at once, and come back one after the other."""
    holders, total = hold_everything(broker, connect)
    for holder in holders:
        holder.client.close()
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["workers"] == 0)
    other = connect(broker)
    other.subscribe(window=16384)
    assert sum(holder.come_back() for holder in holders) == total
    assert settle_all(broker, holders, other) == set()
    assert broker.subscription()["acked"] == HELD + 1


def test_again_and_again(brokers, connect):
    """A lost connection, a kill, a stop and a kill: the same leases all the way."""
    broker = brokers("--restart-grace", GRACE_MS, "--drain-ms", "600000")
    holders, total = hold_everything(broker, connect)
    for signum in (None, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        if signum == signal.SIGKILL:
            broker.kill9()
        elif signum == signal.SIGTERM:
            broker.stop()
        if signum is not None:
            broker.start()
        granted = sum(holder.come_back() for holder in holders)
        assert granted > 0.99 * total
        total = granted
    other = connect(broker)
    other.subscribe(window=16384)
    assert len(settle_all(broker, holders, other)) < 0.01 * HELD
