"""Leases, lost workers, several workers, and how the two sides take leave."""

import collections
import time

import bhp
from bhp import FAIL
from harness import wait_for

FAST = {"backoff": {"min_ms": 1, "max_ms": 1, "factor": 1}}


# -- leases --

def test_a_lease_runs_out(broker, connect):
    broker.add_subscription(lease_ms=300, **FAST)
    broker.publish()
    one, two = connect(broker), connect(broker)
    one.subscribe(window=1)
    item = one.take_one()
    assert item.lease_ms == 300
    revoked = one.expect(bhp.REVOKE)
    # The lease began before the worker had the event.
    assert time.monotonic() - item.at >= 0.2
    assert (revoked[1], revoked[2], bhp.tags_of(revoked[3]), revoked[4]) == (
        0, 1, [item.tag], "expired")
    two.subscribe(window=1)
    again = two.take_one()
    assert (again.seq, again.fails, again.deliveries) == (1, 1, 2)
    assert two.ack([again]).ok == [again.tag]
    # The first worker comes back: too late, and that is no error.
    settled = one.ack([item])
    assert settled.stale + settled.already == [item.tag] and not settled.ok
    got = broker.subscription()
    assert (got["acked"], got["floor"]) == (1, 2)
    assert broker.ok("GET", "/v1/status")["totals"]["expired"] >= 1


def test_a_late_ack_counts_while_nobody_else_has_it(broker, connect):
    broker.add_subscription(lease_ms=200, backoff={"min_ms": 3600000, "max_ms": 3600000,
                                                   "factor": 1})
    broker.publish()
    client = connect(broker)
    client.subscribe(window=1)
    item = client.take_one()
    client.expect(bhp.REVOKE)
    assert broker.subscription()["delayed"] == 1
    assert client.ack([item]).ok == [item.tag]
    got = broker.subscription()
    assert (got["acked"], got["delayed"], got["floor"]) == (1, 0, 2)
    assert client.ack([item]).already == [item.tag]


def test_an_ack_is_stale_when_another_worker_has_the_event(broker, connect):
    broker.add_subscription(lease_ms=300, **FAST)
    broker.publish()
    one, two = connect(broker), connect(broker)
    one.subscribe(window=1)
    item = one.take_one()
    one.expect(bhp.REVOKE)
    two.subscribe(window=1)
    again = two.take_one()
    two.extend([again], 60000)
    assert one.ack([item]).stale == [item.tag]
    assert broker.subscription()["acked"] == 0
    assert two.ack([again]).ok == [again.tag]


def test_a_stuck_worker_is_not_filled_up_again(broker, connect):
    broker.add_subscription(lease_ms=150, max_fails=0, **FAST)
    broker.publish_many(10)
    client = connect(broker)
    client.subscribe(window=2)
    held = client.take(2)
    revoked = []
    while len(revoked) < len(held):  # one frame may name both
        revoked += client.expect_revoke().tags
    client.settle_down()
    assert not client.items  # the expired ones keep their places
    client.ack(held)
    assert len(client.take(2)) == 2


def test_extend_keeps_a_lease(broker, connect):
    broker.add_subscription(lease_ms=400, **FAST)
    broker.publish()
    client = connect(broker)
    client.subscribe(window=1)
    item = client.take_one()
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        settled = client.extend([item], 20000)
        if item.tag not in settled.ok:  # the machine stood still for 400 ms: nothing was shown
            return
        try:
            client.expect(bhp.REVOKE, timeout=0.2)
            raise AssertionError("an extended lease ran out")
        except TimeoutError:
            pass
    assert client.ack([item]).ok == [item.tag]


def test_extend_of_what_is_settled_or_unknown(broker, connect):
    broker.add_subscription()
    broker.publish()
    client = connect(broker)
    client.subscribe()
    item = client.take_one()
    assert client.extend([item], 0).ok == [item.tag]
    client.ack([item])
    settled = client.extend([item], 1000)
    assert not settled.ok and settled.already + settled.stale == [item.tag]
    assert client.error_of(bhp.EXTEND, 1, [item.tag + 5] * 2, 1000, True).number == 305
    assert client.error_of(bhp.EXTEND, 1, [item.tag] * 2, 43200001, True).number == 401


def test_expiry_counts_towards_max_fails(broker, connect):
    broker.add_subscription(lease_ms=100, max_fails=1, **FAST)
    broker.publish()
    client = connect(broker)
    client.subscribe()
    client.take_one()
    client.expect(bhp.REVOKE)
    dead = wait_for(broker.dead_letters, what="the dead letter")
    assert (dead[0]["reason"], dead[0]["fails"]) == ("max_fails", 1)


# -- losing workers --

def test_a_lost_worker_s_events_go_to_another(broker, connect):
    broker.add_subscription(**FAST)
    broker.publish_many(3)
    one, two = connect(broker), connect(broker)
    one.subscribe(window=3)
    first = one.take(3)
    two.subscribe(window=3)
    one.close()
    again = two.take(3)
    assert sorted(i.seq for i in again) == [i.seq for i in first]
    # No concurrency was said: all of them counted as started.
    assert {(i.fails, i.deliveries) for i in again} == {(1, 2)}


def test_what_was_never_started_costs_nothing(broker, connect):
    broker.add_subscription(**FAST)
    broker.publish_many(5)
    one, two = connect(broker), connect(broker)
    one.subscribe(window=5, concurrency=2)
    one.take(5)
    two.subscribe(window=5)
    one.close()
    fails = {i.seq: i.fails for i in two.take(5)}
    assert fails == {1: 1, 2: 1, 3: 0, 4: 0, 5: 0}


def test_prefetched_events_start_when_older_ones_are_settled(broker, connect):
    broker.add_subscription(**FAST)
    broker.publish_many(4)
    one, two = connect(broker), connect(broker)
    one.subscribe(window=4, concurrency=1)
    items = one.take(4)
    one.ack(items[:2])
    two.subscribe(window=4)
    one.close()
    assert {i.seq: i.fails for i in two.take(2)} == {3: 1, 4: 0}


def test_a_poisonous_event_does_not_kill_its_neighbours(broker, connect):
    """Workers that crash again and again on event 1 must not send prefetched ones to the dead."""
    broker.add_subscription(max_fails=3, **FAST)
    broker.publish_many(4)
    crashes = 0
    while not broker.dead_letters():
        worker = connect(broker)
        worker.subscribe(window=4, concurrency=1)
        got = worker.take(4)
        # Whatever is before the poison in the line is done well; then it starts, and kills.
        before = [i for i in got if i.tag < next(p.tag for p in got if p.seq == 1)]
        if before:
            worker.nack(before, bhp.RELEASE, delay_ms=50)
        worker.close()
        crashes += 1
        wait_for(lambda: broker.subscription()["attachments"] == 0)
    assert crashes == 3
    assert [d["seq"] for d in broker.dead_letters()] == [1]
    last = connect(broker)
    last.subscribe(window=4)
    assert {(i.seq, i.fails) for i in last.take(3)} == {(2, 0), (3, 0), (4, 0)}


def test_close_releases_without_a_fail(broker, connect):
    broker.add_subscription(**FAST)
    broker.publish_many(3)
    one, two = connect(broker), connect(broker)
    one.subscribe(window=3)
    one.take(3)
    one.send(bhp.CLOSE, 0)
    one.wait_closed()
    two.subscribe()
    assert {i.fails for i in two.take(3)} == {0}


def test_acks_sent_right_before_the_end_count(broker, connect):
    """Settlements that were read before the connection's end are not lost with it."""
    broker.add_subscription(**FAST)
    broker.publish_many(50)
    one = connect(broker)
    one.subscribe(window=50)
    items = one.take(50)
    one.send(bhp.ACK, 0, 1, bhp.ranges_of([i.tag for i in items]), False)
    one.socket.shutdown(1)
    one.wait_closed()
    wait_for(lambda: broker.subscription()["acked"] == 50, what="the acks")


def test_unsubscribe(broker, connect):
    broker.add_subscription(**FAST)
    broker.publish_many(3)
    client = connect(broker)
    client.subscribe()
    items = client.take(3)
    assert client.request(bhp.UNSUBSCRIBE, 1)[0] == bhp.OK
    assert client.error_of(bhp.ACK, 1, bhp.ranges_of([i.tag for i in items]), True).number == 301
    assert client.error_of(bhp.UNSUBSCRIBE, 1).number == 301
    assert broker.subscription()["attachments"] == 0
    client.subscribe()
    assert {(i.seq, i.fails) for i in client.take(3)} == {(1, 0), (2, 0), (3, 0)}


def test_deleting_a_subscription_ends_its_attachments(broker, connect):
    broker.add_subscription()
    broker.add_subscription("other")
    broker.publish_many(2)
    client = connect(broker)
    client.subscribe(sub=7)
    client.subscribe("other", sub=8)
    items = client.take(4)
    broker.ok("DELETE", "/v1/subscriptions/sub")
    ended = client.expect(bhp.ENDED)
    assert (ended[2], ended[3]) == (7, 306)
    tag = items[0].tag
    assert client.error_of(bhp.ACK, 7, [tag, tag], True).number == 301
    assert len(client.ack([i for i in items if i.sub == 8], sub=8).ok) == 2
    # The same name again is another subscription, and sub 7 is free again.
    broker.add_subscription()
    client.subscribe(sub=7)
    broker.publish()
    assert sorted((i.sub, i.seq) for i in client.take(2)) == [(7, 3), (8, 3)]


# -- leaving --

def test_drain(broker, connect):
    broker.add_subscription()
    broker.publish_many(5)
    client = connect(broker)
    client.subscribe(window=2)
    items = client.take(2)
    rid = 77
    client.send(bhp.DRAIN, rid)
    client.ack(items[:1])
    client.settle_down()
    assert not client.items and not [f for f in client.frames if f[0] == bhp.DRAINED]
    client.nack(items[1:], FAIL, error="x")
    client.expect(bhp.DRAINED)
    broker.publish()
    client.settle_down()
    assert not client.items


def test_drain_with_nothing_held(broker, connect):
    broker.add_subscription()
    client = connect(broker)
    client.subscribe()
    client.send(bhp.DRAIN, 5)
    client.expect(bhp.DRAINED)


def test_goaway_when_the_broker_stops(brokers, connect):
    broker = brokers()
    broker.add_subscription()
    broker.publish_many(3)
    client = connect(broker)
    client.subscribe()
    items = client.take(3)
    broker.process.terminate()
    goaway = client.expect(bhp.GOAWAY)
    assert isinstance(goaway[3], int)
    # What is settled while it stops still counts; what is not comes again after the start.
    try:
        settled = client.ack(items[:1])
        acked = len(settled.ok)
    except (bhp.Closed, BrokenPipeError, ConnectionResetError):
        acked = None
    client.close()
    broker.wait_exit()
    broker.start()
    got = broker.subscription()
    if acked is not None:
        assert got["acked"] == acked
    assert got["leased"] == 0
    client = connect(broker)
    client.subscribe()
    left = client.take(3 - got["acked"])
    assert {i.seq for i in left} == {i.seq for i in items[got["acked"]:]}


# -- several workers --

def test_two_attachments_on_one_connection(broker, connect):
    client = connect(broker)
    client.subscribe("one", sub=1, window=2, create={})
    client.subscribe("two", sub=9, window=5, create={})
    broker.publish_many(5)
    items = client.take(7)
    count = collections.Counter(i.sub for i in items)
    assert count == {1: 2, 9: 5}
    client.ack([i for i in items if i.sub == 1], sub=1)
    assert {i.sub for i in client.take(2)} == {1}


def test_workers_share_fairly(broker, connect):
    broker.add_subscription()
    workers = [connect(broker) for _ in range(2)]
    for worker in workers:
        worker.subscribe(window=20)
    broker.publish_many(40)
    seqs = [[i.seq for i in worker.take(20)] for worker in workers]
    assert sorted(seqs[0] + seqs[1]) == list(range(1, 41))
    # Half as many as there is room for: neither gets it all.
    for worker in workers:
        worker.send(bhp.CLOSE, 0)
        worker.wait_closed()
    broker.add_subscription("fresh")
    workers = [connect(broker) for _ in range(2)]
    for worker in workers:
        worker.subscribe("fresh", window=20)
    broker.publish_many(20)
    counts = []
    wait_for(lambda: broker.subscription("fresh")["leased"] == 20, what="20 leases")
    for worker in workers:
        worker.settle_down()
        counts.append(len(worker.items))
    assert sum(counts) == 20 and min(counts) >= 5, counts


def test_redeliveries_do_not_starve_fresh_events(broker, connect):
    broker.add_subscription(max_fails=0, backoff={"min_ms": 0, "max_ms": 0, "factor": 1})
    broker.publish_many(10)
    client = connect(broker)
    client.subscribe(window=4)
    fresh_seen = set()
    broker.publish_many(50, "fresh")
    for _ in range(400):
        item = client.take_one()
        if item.seq <= 10:
            client.send(bhp.NACK, 0, 1, [item.tag, item.tag], FAIL, None, "again", False)
        else:
            fresh_seen.add(item.seq)
            client.send(bhp.ACK, 0, 1, [item.tag, item.tag], False)
        if len(fresh_seen) == 50:
            break
    assert len(fresh_seen) == 50


def test_many_workers_drain_a_backlog_once(broker, connect):
    broker.add_subscription()
    broker.publish_many(3000)
    workers = [connect(broker) for _ in range(5)]
    for worker in workers:
        worker.subscribe(window=32)
    seen = collections.Counter()
    end = time.monotonic() + 60
    while len(seen) < 3000:
        assert time.monotonic() < end, len(seen)
        for worker in workers:
            try:
                batch = worker.take(1, timeout=0.05)
            except TimeoutError:
                continue
            batch += worker.items
            worker.items.clear()
            seen.update(i.seq for i in batch)
            worker.send(bhp.ACK, 0, 1, bhp.ranges_of([i.tag for i in batch]), False)
    assert set(seen.values()) == {1} and len(seen) == 3000
    wait_for(lambda: broker.subscription()["floor"] == 3001, what="the floor at the end")
