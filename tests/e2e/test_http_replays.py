"""Replays over HTTP: what is fed, counting first, progress, cancelling, and ranges that are not there."""

import pytest
from harness import wait_for
from test_api import error_of

FLAG_REPLAY = 1


def replay(broker, **fields):
    return broker.ok("POST", "/v1/replays", {"subscription": "sub", **fields}, status=(201,))


def task(broker, made):
    return broker.ok("GET", f"/v1/replays/{made['id']}")


def ended(broker, made):
    return wait_for(lambda: (lambda t: "finish_time" in t and t)(task(broker, made)),
                    what="the end of the task")


@pytest.fixture
def ten(broker):
    """Ten events, a and b in turns, and `sub`, which has seen none of them and wants all."""
    for i in range(1, 11):
        broker.publish("a" if i % 2 else "b", user_metadata={"n": i})
    broker.add_subscription()
    return broker


# -- what is fed --

def test_a_replay_has_a_filter_beside_the_subscriptions(ten, connect):
    ten.ok("PATCH", "/v1/subscriptions/sub", {"filter": {"types": ["a"]}})
    made = replay(ten, from_seq=3, filter={"not": {"user_metadata": {"n": {"in": [5, 7]}}}})
    assert (made["kind"], made["from_seq"], made["to_seq"]) == ("replay", 3, 10)
    assert made["filter"] == {"not": {"user_metadata": {"n": {"in": [5, 7]}}}}
    worker = connect(ten)
    worker.subscribe()
    items = worker.take(2)
    assert [i.seq for i in items] == [3, 9] and all(i.flags & FLAG_REPLAY for i in items)
    got = task(ten, made)
    assert (got["state"], got["matched"], got["outstanding"], got["acked"]) == ("running", 2, 2, 0)
    worker.ack(items)
    got = ended(ten, made)
    assert (got["state"], got["matched"], got["outstanding"], got["acked"]) == ("finished", 2, 0, 2)
    assert (got["progress"], got["next"], got["expired"]) == (1, 11, 0)
    assert ten.subscription()["next"] == 11


def test_a_replay_by_time(ten, connect):
    first = ten.ok("GET", "/v1/events/1")["received_at"]
    made = replay(ten, since=first, until="2099-01-01T00:00:00Z")
    assert (made["from_seq"], made["to_seq"]) == (1, 10)
    made = replay(ten, since="1970-01-01T00:00:00Z", until="2099-01-01T00:00:00Z")
    assert (made["from_seq"], made["to_seq"]) == (1, 10)


def test_a_replay_with_a_rate_feeds_everything(ten, connect):
    made = replay(ten, from_seq=1, to_seq=5, rate=20)
    assert made["rate"] == 20
    worker = connect(ten)
    worker.subscribe()
    items = worker.take(5)
    assert [i.seq for i in items] == [1, 2, 3, 4, 5]
    worker.ack(items)
    assert ended(ten, made)["acked"] == 5


def test_a_delayed_event_is_left_out(ten, connect):
    ten.publish("later", deliver_after_ms=3600000)
    ten.publish("last")
    made = replay(ten, from_seq=10, dry_run=True)
    assert ended(ten, made)["matched"] == 2
    made = replay(ten, from_seq=10)
    worker = connect(ten)
    worker.subscribe()
    got = worker.take(3)  # the last one comes twice: live, and by the replay
    assert sorted((i.seq, i.flags & FLAG_REPLAY) for i in got) == [(10, 1), (12, 0), (12, 1)]


# -- dry run --

def test_a_dry_run_counts_and_feeds_nothing(ten, connect):
    worker = connect(ten)
    worker.subscribe()
    made = replay(ten, from_seq=1, to_seq=9, filter={"types": ["a"]}, rate=1, dry_run=True)
    assert made["kind"] == "count"
    got = ended(ten, made)
    assert (got["state"], got["matched"], got["progress"]) == ("finished", 5, 1)
    assert "acked" not in got and "outstanding" not in got
    worker.settle_down()
    assert not worker.items
    assert replay(ten, from_seq=1, dry_run=False)["kind"] == "replay"


# -- list --

def test_all_kinds_are_listed_by_id(ten):
    made = [replay(ten, from_seq=1), replay(ten, from_seq=2, dry_run=True),
            ten.ok("POST", "/v1/dead-letters:purge", {"subscription": "sub"}),
            ten.ok("POST", "/v1/dead-letters:redrive", {"subscription": "sub"})]
    listed = ten.ok("GET", "/v1/replays")["replays"]
    assert [t["id"] for t in listed] == sorted(t["id"] for t in made)
    assert [t["kind"] for t in listed] == ["replay", "count", "purge", "redrive"]
    got, token = [], ""
    while True:
        page = ten.ok("GET", "/v1/replays?page_size=3" + (f"&page_token={token}" if token else ""))
        got += page["replays"]
        token = page.get("next_page_token")
        if not token:
            break
    assert [t["id"] for t in got] == [t["id"] for t in listed]
    wait_for(lambda: ten.ok("GET", "/v1/status")["tasks_running"] == 1, what="the end of the short ones")
    assert ten.subscription()["replays"] == 1


# -- progress and cancel --

def test_progress(ten, connect):
    made = replay(ten, from_seq=1)
    assert (made["progress"], made["next"]) == (0, 1)
    worker = connect(ten)
    worker.subscribe(window=4)
    items = worker.take(4)
    got = task(ten, made)
    assert (got["next"], got["progress"], got["outstanding"]) == (5, 0.4, 4)
    worker.ack(items)
    worker.take(4)
    assert task(ten, made)["progress"] == 0.8


def test_cancel(ten, connect):
    made = replay(ten, from_seq=1)
    worker = connect(ten)
    worker.subscribe(window=2)
    items = worker.take(2)
    cancelled = ten.ok("POST", f"/v1/replays/{made['id']}:cancel")
    assert (cancelled["id"], cancelled["state"]) == (made["id"], "cancelled")
    assert cancelled["outstanding"] == 2  # what is out stays out
    assert worker.ack(items).ok == [i.tag for i in items]
    worker.settle_down()
    assert not worker.items
    got = ended(ten, made)
    assert (got["state"], got["acked"], got["outstanding"], got["progress"]) == (
        "cancelled", 2, 0, 0.2)
    path = f"/v1/replays/{made['id']}:cancel"
    assert error_of(ten, "POST", path)[:2] == (409, "not_running")
    worker.close()
    ten.restart()
    assert task(ten, made)["state"] == "cancelled"
    assert error_of(ten, "POST", path)[:2] == (409, "not_running")


def test_cancel_what_is_not_there_or_over(ten):
    for path in ("/v1/replays/99:cancel", "/v1/replays/x:cancel", "/v1/replays/4294967296:cancel",
                 "/v1/replays/" + "0" * 100 + ":cancel"):
        assert error_of(ten, "POST", path)[:2] == (404, "not_found"), path
    for path in ("/v1/replays/99:cancel", "/v1/replays/99"):
        message = error_of(ten, "GET" if path.endswith("9") else "POST", path)[2]
        assert message == 'there is no replay "99": it never was, or it ended long ago and is forgotten'
    assert "named by its id, a number" in error_of(ten, "GET", "/v1/replays/x")[2]
    made = replay(ten, from_seq=1, dry_run=True)
    ended(ten, made)
    path = f"/v1/replays/{made['id']}:cancel"
    assert error_of(ten, "POST", path)[:2] == (409, "not_running")
    assert error_of(ten, "POST", path, {"now": True})[:2] == (400, "parameter_unknown")


def test_a_replay_outlives_a_restart(ten, connect):
    made = replay(ten, from_seq=2, to_seq=7, filter={"types": ["b"]}, rate=500)
    ten.kill9()
    ten.start()
    got = task(ten, made)
    assert {k: got[k] for k in ("kind", "state", "from_seq", "to_seq", "filter", "rate")} == {
        "kind": "replay", "state": "running", "from_seq": 2, "to_seq": 7,
        "filter": {"types": ["b"]}, "rate": 500}
    worker = connect(ten)
    worker.subscribe()
    items = worker.take(3)
    assert [i.seq for i in items] == [2, 4, 6]
    worker.ack(items)
    assert ended(ten, made)["acked"] == 3


def test_a_deleted_subscription_ends_its_tasks(ten):
    made = replay(ten, from_seq=1)
    ten.ok("DELETE", "/v1/subscriptions/sub")
    got = task(ten, made)
    assert got["state"] == "cancelled" and "subscription" not in got


# -- what is refused --

@pytest.mark.parametrize("fields", [
    {"from_seq": 11}, {"from_seq": 1, "to_seq": 11}, {"since": "2099-01-01T00:00:00Z"},
    {"since": "1999-01-01T00:00:00Z", "until": "2000-01-01T00:00:00Z"},
    {"since": "1970-01-01T00:00:00Z", "until": "1970-01-01T00:00:00Z"},
    {"from_seq": 11, "dry_run": True},
])
def test_a_range_outside_the_journal_names_what_there_is(ten, fields):
    status, code, message = error_of(ten, "POST", "/v1/replays", {"subscription": "sub", **fields})
    assert (status, code) == (400, "out_of_range")
    assert "oldest" in message and " 1" in message and "newest" in message and " 10" in message


@pytest.mark.parametrize("fields,code,place", [
    ({"to_seq": 5}, "invalid_request", "from_seq or since"),
    ({"from_seq": 1, "until": "2099-01-01T00:00:00Z"}, "invalid_request", "since"),
    ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "invalid_request", "until"),
    ({"from_seq": 0}, "invalid_request", "from_seq"),
    ({"from_seq": 1, "to_seq": 0}, "invalid_request", "to_seq"),
    ({"from_seq": 1, "rate": 1.5}, "invalid_request", "rate"),
    ({"from_seq": 1, "rate": 1000001}, "invalid_request", "rate"),
    ({"from_seq": 1, "dry_run": 1}, "invalid_request", "dry_run"),
    ({"from_seq": 1, "filter": {"types": "a"}}, "bad_filter", "filter.types"),
    ({"from_seq": 1, "filter": "a"}, "bad_filter", "filter"),
    ({"from_seq": 1, "dryrun": True}, "parameter_unknown", "dryrun"),
])
def test_bad_replays(ten, fields, code, place):
    status, got, message = error_of(ten, "POST", "/v1/replays", {"subscription": "sub", **fields})
    assert (status, got) == (400, code), message
    assert place in message, message
    assert ten.ok("GET", "/v1/replays")["replays"] == []
