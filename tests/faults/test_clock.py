"""The wall clock jumps under a live broker; the monotonic one goes on (libfaketime).

Leases and backoffs are monotonic time and feel nothing. What is due at a wall time follows the wall
clock. Ids, stamps and signatures are the wall clock's.
"""

from pathlib import Path

import bhp
import pytest
from faults import SECRET, FragileBroker, need_preload
from harness import now_s, wait_for

HOUR_S, DAY_S = 3600, 86400
JUMPS = {"hour_on": HOUR_S, "hour_back": -HOUR_S, "month_on": 30 * DAY_S}


def library():
    for place in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
        return place
    return pytest.skip("libfaketime is not installed (Debian package libfaketime)")


class Clock:
    """The broker's wall clock: the real one and an offset."""

    def __init__(self, path):
        self.path = path
        self.jump(0)

    def jump(self, offset_s):
        new = self.path.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.rename(self.path)

    def env(self):
        return {"LD_PRELOAD": str(library()), "FAKETIME_TIMESTAMP_FILE": str(self.path),
                "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.fixture
def clock(tmp_path):
    need_preload()
    return Clock(tmp_path / "clock")


@pytest.fixture
def broker(tmp_path, clock):
    broker = FragileBroker(tmp_path)
    broker.env = clock.env()
    broker.start()
    broker.add_source("src", SECRET)
    yield broker
    broker.end()


def jump(broker, clock, offset_s):
    """Jumps, and waits until the broker lives in the new time: it takes a webhook of then."""
    def taken():
        return broker.post_signed("src", SECRET, b'{"type":"probe"}',
                                  timestamp=now_s() + offset_s)[0] == 200
    clock.jump(offset_s)
    wait_for(taken, what="the new time")


@pytest.mark.parametrize("offset_s", JUMPS.values(), ids=JUMPS)
def test_leases_and_backoffs_feel_nothing(broker, clock, offset_s):
    broker.add_subscription("sub", filter={"types": ["t"]}, lease_ms=600_000, max_fails=0,
                            backoff={"min_ms": 300, "max_ms": 300, "factor": 1, "jitter": 0})
    broker.add_subscription("short", filter={"types": ["t"]}, lease_ms=1500, max_fails=0)
    with bhp.Client(broker.workers_port) as client:
        broker.publish("t")
        client.subscribe("sub", sub=1, window=4)
        held = client.take_one()
        broker.publish("t")
        failed = client.take_one()
        assert client.nack([failed], bhp.FAIL).ok == [failed.tag]
        client.subscribe("short", sub=2, window=1)
        client.take_one()
        jump(broker, clock, offset_s)
        client.settle_down()
        revoked = [f for f in client.frames if f[0] == bhp.REVOKE and f[2] == 1]
        assert not revoked, "a lease of ten minutes ended with the jump"
        # The backoff of 300 ms and the lease of 1.5 s end in real time, whatever the clock says.
        while (again := client.take_one()).sub != 1:
            pass
        assert (again.seq, again.fails) == (failed.seq, 1)
        assert client.wait_frame(lambda f: f[0] == bhp.REVOKE and f[2] == 2)
        assert client.ack([held, again]).ok == [held.tag, again.tag]
    broker.stop()


def test_what_is_due_follows_the_wall_clock(broker, clock):
    """deliver_at is a lower bound by the broker's clock: not before it, and at once when the clock
    jumps over it."""
    broker.add_subscription("sub", filter={"types": ["t"]})
    seq = broker.publish("t", deliver_after_ms=HOUR_S * 1000)
    with bhp.Client(broker.workers_port) as client:
        client.subscribe("sub", window=4)
        jump(broker, clock, -HOUR_S)
        client.settle_down()
        assert not client.items
        jump(broker, clock, HOUR_S - 60)
        client.settle_down()
        assert not client.items, "a minute too early"
        jump(broker, clock, HOUR_S + 1)
        assert client.take_one().seq == seq
        # Back again: what is due in a second now does not wait for the time that has been before.
        jump(broker, clock, 0)
        second = broker.publish("t", deliver_after_ms=300)
        item = client.take_one()
        assert item.seq == second
        client.ack(client.take(0) + [item])
    broker.stop()


def test_ids_stamps_and_signatures(broker, clock):
    """A jump never makes a seq come twice or forgets the ids of the last day; a restart in between
    changes nothing. Signatures are checked against the broker's clock."""
    broker.add_subscription("sub", start="first")
    seqs, body = [], b'{"type":"t"}'
    first = broker.publish("t", id="same")
    for offset_s in (HOUR_S, -HOUR_S, 30 * DAY_S, 0):
        jump(broker, clock, offset_s)
        seqs.append(broker.publish("t"))
        status, answer = broker.post_signed("src", SECRET, body, id=f"w{offset_s}",
                                            timestamp=now_s() + offset_s)
        assert status == 200, answer
        if offset_s:
            status, answer = broker.post_signed("src", SECRET, body, timestamp=now_s())
            code = "timestamp_too_old" if offset_s > 0 else "timestamp_in_future"
            assert (status, answer["error"]["code"]) == (401, code)
        if abs(offset_s) <= HOUR_S:
            answer = broker.ok("POST", "/v1/events", {"type": "t", "id": "same"})
            assert answer == {"seq": first, "duplicate": True}
        broker.kill9() if offset_s > 0 else broker.stop()
        broker.start()
    assert seqs == sorted(set(seqs))
    last = broker.ok("GET", "/v1/status")["journal"]["last_seq"]
    assert [e["seq"] for e in broker.events()] == list(range(1, last + 1))
    with bhp.Client(broker.workers_port) as client:
        client.subscribe("sub", window=1000)
        assert {item.seq for item in client.take(last)} == set(range(1, last + 1))
    broker.stop()
