"""kill -9 while webhooks are being delivered: nothing is lost, what waits for its next attempt goes
on with its count and its time, and how many come twice is said."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from harness import LOCAL, SANITIZED, wait_for
from receiver import HOLD

# Between attempts: so many events at each of so many endpoints. A fifth failure in a row would open
# an endpoint's breaker, and what waits behind that has not been tried yet.
ROUNDS = 4
ENDPOINTS = 1250
BACKOFF_S = 600
LONG_S = 120  # a deadline for many


def faketime():
    """The environment of a broker whose wall clock is 20 minutes ahead; its other one is right."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    assert library, "libfaketime is not installed: run scripts/setup"
    return {"LD_PRELOAD": str(library), "FAKETIME": f"+{2 * BACKOFF_S}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


class Many:
    """Half of the deliveries are of registered webhooks, half of URIs that the events bring along;
    each of these has an origin of its own, because every address of 127/8 is this machine."""

    def __init__(self, broker, receiver):
        self.broker, self.receiver = broker, receiver
        with ThreadPoolExecutor(8) as pool:
            self.hooks = list(pool.map(
                lambda n: broker.add_webhook(receiver.url(f"/s{n}"), "static")["id"],
                range(ENDPOINTS)))
        self.origins = [f"http://127.{1 + n // 250}.{n % 250}.1:{receiver.port}"
                        for n in range(ENDPOINTS)]

    def publish(self):
        for _ in range(ROUNDS):
            self.broker.publish("static")
            for first in range(0, ENDPOINTS, 625):
                self.broker.ok("POST", "/v1/events", {"events": [
                    {"type": "dynamic", "webhook_config": {"uris": [origin + "/d"]}}
                    for origin in self.origins[first:first + 625]]})

    def attempts(self):
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self.broker.attempts, self.hooks))

    def wait_attempts(self, condition):
        return wait_for(lambda: (lambda lists: condition(lists) and lists)(self.attempts()),
                        LONG_S, "every attempt in the books")


def deliveries(requests):
    """(static: path and id, dynamic: host and id) of these requests, one for each."""
    return [(r.path if r.path != "/d" else r.headers["host"], r.id) for r in requests]


@pytest.mark.skipif(SANITIZED, reason="a sanitized broker takes no other clock")
def test_between_attempts(brokers, receivers, capsys):
    receiver = receivers(host="0.0.0.0")
    receiver.host = "127.0.0.1"
    broker = brokers(*LOCAL, "--webhook-backoff-min", f"{BACKOFF_S}s")
    many = Many(broker, receiver)
    total = 2 * ROUNDS * ENDPOINTS
    receiver.script("/d", 500)
    for n in range(ENDPOINTS):
        receiver.script(f"/s{n}", 500)
    many.publish()
    failed = deliveries(receiver.wait(total, timeout=LONG_S))
    assert len(set(failed)) == len(failed) == total
    # The last answers are on their way: once each has been counted, all are between attempts.
    before = many.wait_attempts(lambda lists: sum(map(len, lists)) == total // 2)
    broker.kill9()
    # Not before their time.
    broker.start()
    broker.add_webhook(receiver.url("/now"), "now")
    broker.publish("now")
    receiver.wait(1, "/now")
    assert receiver.count() == total + 1
    after = many.attempts()
    assert after == before
    broker.kill9()
    # At their time: with the count that they had, and none is lost.
    for n in range(ENDPOINTS):
        receiver.script(f"/s{n}", 200)
    receiver.script("/d", 200)
    broker.env = faketime()
    broker.start()
    receiver.wait(2 * total + 1, timeout=LONG_S)
    again = [d for d in deliveries(receiver.requests()[total + 1:]) if d[0] != "/now"]
    assert set(again) == set(failed)
    for entries in many.wait_attempts(lambda lists: sum(map(len, lists)) == total):
        tried = {}
        for entry in reversed(entries):
            tried.setdefault(entry["seq"], []).append((entry["ok"], entry["attempt"]))
        assert list(tried.values()) == [[(False, 1), (True, 2)]] * ROUNDS
    with capsys.disabled():
        print(f"\n{total} between attempts at a kill -9, {len(again) - len(set(again))} "
              "delivered twice")


def test_short_waits(brokers, receiver):
    """What waits for less than a minute is kept in another way: the same holds for it."""
    broker = brokers(*LOCAL, "--webhook-backoff-min", "3s")
    hooks = [broker.add_webhook(receiver.url(f"/{n}"))["id"] for n in range(20)]
    for n in range(20):
        receiver.script(f"/{n}", 500)
    broker.publish_many(ROUNDS)
    failures = {}
    for n, hook in enumerate(hooks):
        for entry in broker.wait_attempts(hook, lambda a: len(a) >= ROUNDS):
            failures[n, entry["seq"]] = datetime.fromisoformat(
                entry["next_attempt_at"].replace("Z", "+00:00")).timestamp()
    broker.kill9()
    before = receiver.count()
    for n in range(20):
        receiver.script(f"/{n}", 200)
    broker.start()
    receiver.wait(before + len(failures))
    for n, hook in enumerate(hooks):
        entries = broker.wait_attempts(hook, lambda a: sum(e["ok"] for e in a) == ROUNDS)
        assert all(e["attempt"] == 2 for e in entries if e["ok"]), entries
    for request in receiver.requests()[before:]:
        due_s = failures[int(request.path[1:]), int(request.id.rsplit("_", 1)[1])]
        # What is told of the next attempt is without the jitter, which only adds.
        assert request.wall_s >= due_s - 0.05


def test_under_way(brokers, receiver, capsys):
    """What the receiver has and has not answered comes again, and nothing else."""
    broker = brokers(*LOCAL)
    hook = broker.add_webhook(receiver.url("/hook"), concurrency=16)
    broker.publish_many(100)
    broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 100)
    receiver.script("/hook", HOLD)
    seqs = broker.publish_many(50)
    wait_for(lambda: receiver.held_count("/hook") == 16, what="16 under way")
    uri = receiver.url("/dynamic")
    receiver.script("/dynamic", HOLD)
    dynamic = broker.publish(webhook_config={"uris": [uri]})
    wait_for(lambda: receiver.held_count("/dynamic") == 1)
    broker.kill9()
    receiver.script("/hook", 200)
    receiver.script("/dynamic", 200)
    broker.start()
    receiver.wait(100 + 16 + 50, "/hook")
    broker.wait_webhook(hook["id"], lambda w: w["stats"]["backlog"] == 0
                        and w["stats"]["in_flight"] == 0)
    requests = receiver.requests("/hook")
    again = {int(r.id.rsplit("_", 1)[1]) for r in requests[116:]}
    assert again >= set(seqs) and len({r.id for r in requests}) == 150
    # A hand-out that ended with the process is no failure of the endpoint.
    assert all(a["attempt"] == 1 for a in broker.attempts(hook["id"]))
    assert {r.id.rsplit("_", 1)[1] for r in receiver.wait(2, "/dynamic")} == {str(dynamic)}
    # Beside the 16, what was confirmed in the last 50 ms: its position was not written yet.
    with capsys.disabled():
        print(f"\n16 under way at a kill -9, {len(requests) - 150} delivered twice")


@pytest.mark.parametrize("stop", ["kill -9", "clean stop"])
def test_in_the_middle_of_it(brokers, receiver, capsys, stop):
    broker = brokers(*LOCAL)
    count = 500 if SANITIZED else 3000
    hooks = [broker.add_webhook(receiver.url(f"/{n}"), concurrency=32) for n in range(2)]
    broker.publish_many(count)
    receiver.wait(count // 2)
    broker.kill9() if stop == "kill -9" else broker.stop()
    at_stop = receiver.count()
    broker.start()
    for n, hook in enumerate(hooks):
        receiver.wait(count, f"/{n}", LONG_S)
        broker.wait_webhook(hook["id"], lambda w: w["stats"]["backlog"] == 0
                            and w["stats"]["in_flight"] == 0)
        assert len({r.id for r in receiver.requests(f"/{n}")}) == count
    twice = receiver.count() - 2 * count
    # Positions are written every 50 ms: what was confirmed since may come again.
    with capsys.disabled():
        print(f"\n{stop} after {at_stop} of {2 * count} deliveries: {twice} twice")
    if stop == "clean stop":
        assert twice == 0
