"""Dead letters over HTTP: narrowing a list, one of them, and putting them back or away."""

import json
from urllib.parse import quote

import pytest
from bhp import FAIL, REJECT
from harness import wait_for
from test_api import error_of

FLAG_REDRIVE = 4


def reject_all(broker, connect, count, name="sub", kind=REJECT, error=""):
    worker = connect(broker)
    worker.subscribe(name, window=count, window_bytes=1 << 24)
    worker.nack(worker.take(count), kind, error=error)
    return worker


def listed(broker, query="", page_size=1000, subscription="sub"):
    """Every dead letter that the query finds, over all pages."""
    found, token = [], ""
    while True:
        page = broker.ok("GET", f"/v1/dead-letters?subscription={subscription}"
                         f"&page_size={page_size}{query}" + (f"&page_token={token}" if token else ""))
        found += page["dead_letters"]
        token = page.get("next_page_token", "")
        if not token:
            return found


def seqs(dead_letters):
    return [d["seq"] for d in dead_letters]


def start(broker, verb, **fields):
    return broker.ok("POST", f"/v1/dead-letters:{verb}", {"subscription": "sub", **fields},
                     status=(201,))


def finished(broker, task):
    return wait_for(lambda: (lambda t: t["state"] != "running" and t)(
        broker.ok("GET", f"/v1/replays/{task['id']}")), what="the end of the task")


@pytest.fixture
def broker(brokers):
    """What is redriven waits on disk, and right after a start everything there waits for the grace."""
    return brokers("--restart-grace", "0")


@pytest.fixture
def dead(broker, connect):
    """Eight dead letters of `sub`: even ones video.*, each third high, 1 to 4 of batch/, rejected."""
    broker.add_subscription()
    for i in range(1, 9):
        broker.publish("batch.failed" if i % 2 else "video.failed",
                       subject=f"{'batch' if i <= 4 else 'x'}/{i}",
                       user_metadata={"n": i, "priority": "low" if i % 3 else "high"})
    reject_all(broker, connect, 8).close()
    return broker


# -- list and show --

def test_the_error_is_an_object_without_its_empty_parts(broker, connect):
    broker.add_subscription(max_fails=1)
    broker.publish_many(5)
    worker = connect(broker)
    worker.subscribe()
    one, two, three, four, five = worker.take(5)
    worker.nack([one], FAIL, error=["Timeout", "model did not answer", "line 1\nline 2"])
    worker.nack([two], FAIL, error="only a message")
    worker.nack([three], REJECT, error=["Timeout", "", ""])
    worker.nack([four], REJECT)
    worker.nack([five], REJECT, error=["", "", "d" * 2048])
    errors = {d["seq"]: d.get("error") for d in listed(broker)}
    assert errors == {
        1: {"type": "Timeout", "message": "model did not answer", "detail": "line 1\nline 2"},
        2: {"message": "only a message"}, 3: {"type": "Timeout"}, 4: None,
        5: {"detail": "d" * 2048}}
    assert [d["reason"] for d in listed(broker)] == ["max_fails"] * 2 + ["rejected"] * 3


def test_narrowing(dead):
    assert seqs(listed(dead)) == list(range(1, 9))
    assert seqs(listed(dead, "&type=video.*")) == [2, 4, 6, 8]
    assert seqs(listed(dead, "&type=batch.failed")) == [1, 3, 5, 7]
    assert seqs(listed(dead, "&subject_prefix=batch/")) == [1, 2, 3, 4]
    assert seqs(listed(dead, "&reason=rejected&type=*.failed")) == list(range(1, 9))
    assert listed(dead, "&reason=max_fails") == []
    high = quote(json.dumps({"user_metadata": {"priority": "high"}}))
    assert seqs(listed(dead, "&filter=" + high)) == [3, 6]
    assert seqs(listed(dead, "&filter=" + high + "&type=batch.*")) == [3]
    for size in (1, 2, 3):
        assert seqs(listed(dead, "&type=video.*", page_size=size)) == [2, 4, 6, 8]


def test_a_narrow_list_looks_at_so_much_per_request(broker, connect):
    """A page that found nothing has a token still, until the end is reached."""
    broker.add_subscription()
    broker.publish_many(5000)
    broker.publish("needle")
    reject_all(broker, connect, 5001)
    path = "/v1/dead-letters?subscription=sub&type=needle"
    page = broker.ok("GET", path)
    assert page["dead_letters"] == [] and page["next_page_token"]
    assert seqs(listed(broker, "&type=needle")) == [5001]


@pytest.mark.parametrize("query,code,place", [
    ("&reason=tired", "invalid_request", "reason"), ("&reason=" + "x" * 100, "invalid_request", "reason"),
    ("&reason=", "invalid_request", "reason"),
    ("&filter=%7B", "bad_filter", "filter"), ("&filter=%7B%22types%22:5%7D", "bad_filter", "types"),
    ("&filter=%zz", "invalid_request", "filter"), ("&type=" + "t" * 300, "invalid_request", "type"),
    ("&typ=a", "parameter_unknown", "typ"), ("&page_token=d1-x", "invalid_request", "page_token"),
    ("&page_token=d1-1-4294967296", "invalid_request", "page_token"),
])
def test_bad_lists(dead, query, code, place):
    status, got, message = error_of(dead, "GET", "/v1/dead-letters?subscription=sub" + query)
    assert (status, got) == (400, code), message
    assert place in message, message


def test_show(dead):
    for letter in listed(dead):
        assert dead.ok("GET", f"/v1/dead-letters/sub/{letter['seq']}") == letter
    for path in ("sub/9", "sub/0", "sub/x", "sub/18446744073709551615", "sub/18446744073709551616",
                 "sub/1?replay=5", "nobody/1", "sub/1/2", "sub/", "/1"):
        assert error_of(dead, "GET", f"/v1/dead-letters/{path}")[:2] == (404, "not_found"), path
    assert error_of(dead, "GET", "/v1/dead-letters/sub/1?replay=x")[:2] == (400, "invalid_request")
    assert error_of(dead, "GET", "/v1/dead-letters/sub/1?x=1")[:2] == (400, "parameter_unknown")


def test_a_dead_letter_of_a_replay(broker, connect):
    broker.add_subscription()
    broker.publish()
    worker = reject_all(broker, connect, 1, error="live")
    task = broker.ok("POST", "/v1/replays", {"subscription": "sub", "from_seq": 1})
    worker.nack(worker.take(1), REJECT, error="replayed")
    live, replayed = listed(broker)
    assert "replay" not in live and replayed["replay"] == task["id"]
    assert live["error"] == {"message": "live"} and replayed["error"] == {"message": "replayed"}
    assert broker.ok("GET", "/v1/dead-letters/sub/1") == live
    assert broker.ok("GET", f"/v1/dead-letters/sub/1?replay={task['id']}") == replayed
    assert seqs(listed(broker, page_size=1)) == [1, 1]
    missing = f"/v1/dead-letters/sub/1?replay={task['id'] + 1}"
    assert error_of(broker, "GET", missing)[2] == (
        f'"sub" has no dead letter with seq 1 that replay {task["id"] + 1} fed')
    assert error_of(broker, "GET", "/v1/dead-letters/sub/2")[2] == (
        '"sub" has no dead letter with seq 2')
    # The next seq is found behind both of them.
    broker.publish()
    worker.nack(worker.take(1), REJECT)
    assert broker.ok("GET", "/v1/dead-letters/sub/2")["seq"] == 2


def test_who_forgot_the_replay_is_told_which(broker, connect):
    broker.add_subscription()
    broker.publish()
    worker = connect(broker)
    worker.subscribe()
    worker.ack(worker.take(1))
    task = broker.ok("POST", "/v1/replays", {"subscription": "sub", "from_seq": 1})
    worker.nack(worker.take(1), REJECT)
    wait_for(lambda: listed(broker))
    status, code, message = error_of(broker, "GET", "/v1/dead-letters/sub/1")
    assert (status, code) == (404, "not_found")
    assert message == (f'"sub" has a dead letter with seq 1, but replay {task["id"]} fed it: '
                       'name that replay too')


# -- redrive --

def test_redrive_one(dead, connect):
    task = start(dead, "redrive", seq=3)
    assert (task["kind"], task["subscription"]) == ("redrive", "sub")
    worker = connect(dead)
    worker.subscribe()
    item = worker.take_one()
    assert (item.seq, item.fails, item.deliveries) == (3, 0, 2)
    assert item.flags & FLAG_REDRIVE
    done = finished(dead, task)
    assert (done["state"], done["matched"], done["progress"]) == ("finished", 1, 1)
    assert "acked" not in done and "outstanding" not in done
    worker.ack([item])
    worker.settle_down()
    assert not worker.items
    assert seqs(listed(dead)) == [1, 2, 4, 5, 6, 7, 8]
    assert dead.subscription()["dead"] == 7


def test_redrive_by_filter(dead, connect):
    wanted = {"user_metadata": {"priority": "high"}}
    task = start(dead, "redrive", filter=wanted, rate=1000)
    assert (task["filter"], task["rate"]) == (wanted, 1000)
    worker = connect(dead)
    worker.subscribe()
    assert sorted(i.seq for i in worker.take(2)) == [3, 6]
    assert finished(dead, task)["matched"] == 2
    assert seqs(listed(dead)) == [1, 2, 4, 5, 7, 8]


def test_redrive_all_and_fail_again(dead, connect):
    worker = connect(dead)
    worker.subscribe()
    assert finished(dead, start(dead, "redrive"))["matched"] == 8
    assert listed(dead) == []
    items = worker.take(8)
    worker.nack(items, REJECT, error="again")
    assert seqs(listed(dead)) == list(range(1, 9))
    assert {d["error"]["message"] for d in listed(dead)} == {"again"}
    got = dead.subscription()
    assert (got["dead"], got["dead_total"]) == (8, 16)


def test_a_redrive_outlives_a_restart(dead, connect):
    task = start(dead, "redrive")
    finished(dead, task)
    dead.kill9()
    dead.start()
    worker = connect(dead)
    worker.subscribe()
    items = worker.take(8)
    assert sorted(i.seq for i in items) == list(range(1, 9))
    assert all(i.fails == 0 and i.flags & FLAG_REDRIVE for i in items)
    assert dead.ok("GET", f"/v1/replays/{task['id']}")["state"] == "finished"


# -- purge --

def test_purge(dead):
    task = finished(dead, start(dead, "purge", seq=1))
    assert (task["kind"], task["matched"]) == ("purge", 1)
    assert seqs(listed(dead)) == list(range(2, 9))
    finished(dead, start(dead, "purge", filter={"types": ["video.*"]}))
    assert seqs(listed(dead)) == [3, 5, 7]
    finished(dead, start(dead, "purge"))
    assert listed(dead) == [] and dead.subscription()["dead"] == 0
    dead.restart()
    assert listed(dead) == []
    assert [t["kind"] for t in dead.ok("GET", "/v1/replays")["replays"]] == ["purge"] * 3


@pytest.mark.parametrize("verb,fields,want", [
    ("redrive", {"subscription": "nobody"}, (404, "not_found")),
    ("redrive", {"subscription": 5}, (400, "invalid_request")),
    ("redrive", {"seq": 99}, (404, "not_found")), ("redrive", {"seq": 0}, (400, "invalid_request")),
    ("redrive", {"seq": "1"}, (400, "invalid_request")),
    ("redrive", {"rate": -1}, (400, "invalid_request")),
    ("redrive", {"rate": 1000001}, (400, "invalid_request")),
    ("redrive", {"filter": {"types": "a"}}, (400, "bad_filter")),
    ("redrive", {"reason": "rejected"}, (400, "parameter_unknown")),
    ("purge", {"rate": 5}, (400, "parameter_unknown")),
    ("purge", {"filter": {"typ": []}}, (400, "bad_filter")), ("purge", {"seq": 99}, (404, "not_found")),
])
def test_bad_tasks_change_nothing(dead, verb, fields, want):
    body = {"subscription": "sub", **fields}
    assert error_of(dead, "POST", f"/v1/dead-letters:{verb}", body)[:2] == want
    assert seqs(listed(dead)) == list(range(1, 9))
    assert dead.ok("GET", "/v1/replays")["replays"] == []


def test_the_subscription_is_required(dead):
    for verb in ("redrive", "purge"):
        status, code, message = error_of(dead, "POST", f"/v1/dead-letters:{verb}", {})
        assert (status, code) == (400, "invalid_request") and "subscription" in message
        assert error_of(dead, "POST", f"/v1/dead-letters:{verb}")[:2] == (400, "invalid_request")
