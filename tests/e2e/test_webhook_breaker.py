"""An endpoint that is down costs a request now and then, and nobody else anything."""

import pytest
from harness import LOCAL, wait_for
from receiver import HOLD, NEVER, retry_after

FAST = (*LOCAL, "--webhook-backoff-min", "50ms", "--webhook-backoff-max", "200ms")
EVENTS = 300


@pytest.fixture
def broker(brokers):
    """With the times that it has by itself: nothing is probed while a test runs."""
    return brokers(*LOCAL)


@pytest.fixture
def fast(brokers):
    return brokers(*FAST)


def stats(broker, hook):
    return broker.webhook(hook["id"])["stats"]


def wait_stats(broker, hook, **wanted):
    return wait_for(lambda: (lambda s: all(s[k] == v for k, v in wanted.items()) and s)(
        stats(broker, hook)), what=f"stats {wanted}")


def test_a_dead_one_gets_a_few_and_its_neighbour_all(broker, receiver):
    receiver.script("/dead", 500)
    dead, good = (broker.add_webhook(receiver.url(path)) for path in ("/dead", "/good"))
    broker.publish_many(EVENTS)
    receiver.wait(EVENTS, "/good")
    got = wait_stats(broker, dead, breaker="open", in_flight=0)
    # Five in a row open it; one more may have been under way then.
    assert 5 <= receiver.count("/dead") <= 6
    assert got["failed"] == receiver.count("/dead") and got["delivered"] == 0
    assert got["next_probe_at"] > got["last_failure_time"] and got["failing_since"]
    assert got["backlog"] + got["delayed"] == EVENTS
    wait_stats(broker, good, delivered=EVENTS, failed=0, backlog=0)


def test_one_probe_then_everything(fast, receiver):
    receiver.script("/hook", 500, 500, 500, 500, 500, HOLD)
    hook, beside = (fast.add_webhook(receiver.url(path)) for path in ("/hook", "/beside"))
    fast.publish_many(EVENTS)
    wait_for(lambda: receiver.held_count("/hook") == 1, what="the probe")
    wait_stats(fast, hook, breaker="probing", in_flight=1)
    # While it is under way nothing else goes there, whatever comes.
    fast.publish_many(10)
    receiver.wait(EVENTS + 10, "/beside")
    assert receiver.held_count("/hook") == 1 and receiver.count("/hook") == 6
    receiver.script("/hook", 200)
    receiver.release("/hook")
    wait_stats(fast, hook, breaker="closed", backlog=0, delivered=EVENTS + 10)
    requests = receiver.requests("/hook")
    assert len({r.id for r in requests}) == EVENTS + 10
    assert len(requests) == EVENTS + 10 + 5
    assert "next_probe_at" not in stats(fast, hook)
    wait_stats(fast, beside, failed=0)


def test_probes_that_fail_are_further_and_further_apart(fast, receiver):
    receiver.script("/hook", 500)
    hook = fast.add_webhook(receiver.url("/hook"))
    fast.publish_many(20)
    times = [r.time_s for r in receiver.wait(7, "/hook")]
    # The sixth and seventh are probes: 300 and 600 ms after the failure before.
    gaps = [times[n] - times[n - 1] for n in (5, 6)]
    # A retry without a breaker would come within 220 ms.
    assert gaps[0] >= 0.25 and gaps[1] >= 0.5, gaps
    receiver.script("/hook", 200)
    wait_stats(fast, hook, breaker="closed", delivered=20)


def test_who_asks_for_time_gets_it_at_once(broker, receiver):
    receiver.script("/hook", retry_after(503, 600), 200)
    hook = broker.add_webhook(receiver.url("/hook"), concurrency=1)
    broker.publish_many(20)
    got = wait_stats(broker, hook, breaker="open")
    assert receiver.count("/hook") <= 2 and got["failed"] == 1
    assert got["next_probe_at"] > got["last_failure_time"]
    # Enabling it again asks at once.
    broker.patch_webhook(hook["id"], state="disabled")
    broker.patch_webhook(hook["id"], state="enabled")
    wait_stats(broker, hook, breaker="closed", backlog=0)


def test_one_that_never_answers_holds_two_connections(broker, receiver):
    receiver.script("/never", NEVER)
    hook = broker.add_webhook(receiver.url("/never"), concurrency=64)
    beside = broker.add_webhook(receiver.url("/beside"))
    broker.publish_many(EVENTS)
    receiver.wait(EVENTS, "/beside")
    assert receiver.count("/never") == 2
    assert stats(broker, hook)["in_flight"] == 2
    wait_stats(broker, beside, delivered=EVENTS)


def test_a_success_widens_the_window(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"), concurrency=64)
    broker.publish_many(100)
    wait_stats(broker, hook, delivered=100)
    receiver.script("/hook", HOLD)
    broker.publish_many(100)
    wait_for(lambda: receiver.held_count("/hook") == 64, what="64 at a time")
    receiver.script("/hook", 200)
    receiver.release("/hook")
    wait_stats(broker, hook, delivered=200)
    assert receiver.held_max["/hook"] == 64


def test_dynamic_endpoints_are_kept_apart_by_origin(fast, receivers):
    good, dead = receivers(), receivers()
    dead.script("/hook", 500)

    def endpoints():
        return {e["origin"]: e for e in fast.ok("GET", "/v1/webhook-endpoints")["endpoints"]}

    def publish(receiver, count):
        fast.ok("POST", "/v1/events", {"events": [
            {"type": "t", "webhook_config": {"uris": [receiver.url("/hook")]}}
            for _ in range(count)]})

    publish(dead, EVENTS)
    wait_for(lambda: endpoints().get(dead.origin, {}).get("breaker") == "open", what="the breaker")
    publish(good, EVENTS)
    good.wait(EVENTS, "/hook")
    wait_for(lambda: endpoints()[good.origin]["delivered"] == EVENTS)
    assert endpoints()[good.origin]["breaker"] == "closed"
    assert endpoints()[dead.origin]["delivered"] == 0
    dead.script("/hook", 200)
    wait_for(lambda: len({r.id for r in dead.requests() if r.answer.status == 200}) == EVENTS,
             what="what waited for the endpoint that was down")
    wait_for(lambda: endpoints()[dead.origin]["breaker"] == "closed")
