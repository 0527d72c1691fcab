"""A burst of events that fail again and again does not stop fresh ones: while one waits, at most half
of a window goes to redeliveries. bench/delivery.py measures the latency."""

import bhp
from bhp import FAIL

POISON, FRESH, WINDOW = 600, 20, 16
AT_ONCE = {"min_ms": 0, "max_ms": 0, "factor": 1}


def fail(client, item):
    client.send(bhp.NACK, 0, 1, [item.tag, item.tag], FAIL, None, "always", False)


def test_a_poison_burst_does_not_stop_fresh_events(broker, connect):
    broker.add_subscription(max_fails=0, backoff=AT_ONCE)
    broker.publish_many(POISON, "poison")
    worker, publisher = connect(broker), connect(broker)
    worker.subscribe(window=WINDOW)
    for _ in range(2 * POISON):  # all of it is redeliveries by now
        fail(worker, worker.take_one())
    seen = 0
    for n in range(FRESH):
        publisher.publish({"type": "fresh"})
        worker.settle_down()
        # What was handed out before the event was there, and then half a window at most beside it.
        before = 0
        while (item := worker.take_one()).type == "poison":
            fail(worker, item)
            before += 1
            assert before <= 2 * WINDOW, f"fresh event {n} waits behind redeliveries"
        assert (item.fails, item.deliveries) == (0, 1)
        worker.ack([item])
        seen += before
    assert seen > 0  # the poison did go on
    got = broker.subscription()
    assert (got["acked"], got["dead"]) == (FRESH, 0)
    assert got["ready"] + got["leased"] + got["delayed"] == POISON


def test_poison_ends_as_dead_letters_and_fresh_events_do_not(broker, connect):
    broker.add_subscription(max_fails=3, backoff=AT_ONCE)
    broker.publish_many(POISON // 4, "poison")
    broker.publish_many(FRESH, "fresh")
    worker = connect(broker)
    worker.subscribe(window=WINDOW)
    handed_out = {"poison": 0, "fresh": 0}
    while handed_out["poison"] < 3 * (POISON // 4) or handed_out["fresh"] < FRESH:
        item = worker.take_one()
        handed_out[item.type] += 1
        if item.type == "poison":
            fail(worker, item)
        else:
            worker.send(bhp.ACK, 0, 1, [item.tag, item.tag], False)
    worker.settle_down()
    assert not worker.items
    got = broker.subscription()
    assert handed_out == {"poison": 3 * (POISON // 4), "fresh": FRESH}
    assert (got["acked"], got["dead"], got["leased"]) == (FRESH, POISON // 4, 0)
