"""Subscriptions over HTTP: the whole policy, changing it, pausing, seeking, and what an answer says."""

import bhp
import pytest
from bhp import FAIL, REJECT
from harness import wait_for
from test_api import error_of

FULL = {
    "filter": {"types": ["batch.*"], "user_metadata": {"job_group": "nightly-eval"}},
    "lease_ms": 5000, "max_hold_ms": 60000, "max_age_ms": 3600000, "max_fails": 3,
    "backoff": {"list_ms": [1000, 5000, 60000], "jitter": 0.25},
    "rate": 100, "order": {"key": "user_metadata.customer"}, "lag": "expire",
}
FAST = {"min_ms": 1, "max_ms": 1, "factor": 1, "jitter": 0}


def policy_of(subscription):
    return {field: subscription[field] for field in FULL}


def patch(broker, **fields):
    return broker.ok("PATCH", "/v1/subscriptions/sub", fields)


# -- create --

def test_a_whole_policy_comes_back(broker):
    status, made = broker.api("POST", "/v1/subscriptions", {"name": "sub", **FULL})
    assert status == 201 and policy_of(made) == FULL
    assert broker.api("POST", "/v1/subscriptions", {"name": "sub", **FULL}) == (200, made)
    assert broker.subscription() == made
    assert broker.ok("GET", "/v1/subscriptions")["subscriptions"] == [made]
    broker.restart()
    assert policy_of(broker.subscription()) == FULL


@pytest.mark.parametrize("change", [
    {"filter": {"types": ["batch.*"]}}, {"filter": {}}, {"lease_ms": 5001}, {"max_hold_ms": 60001},
    {"max_age_ms": 0}, {"max_fails": 0}, {"backoff": {"list_ms": [1000, 5000], "jitter": 0.25}},
    {"backoff": {}}, {"rate": 0}, {"order": "key"}, {"order": "none"}, {"lag": "block"},
])
def test_another_policy_is_a_mismatch(broker, change):
    made = broker.add_subscription(**FULL)
    assert error_of(broker, "POST", "/v1/subscriptions", {"name": "sub", **FULL, **change})[:2] == (
        409, "policy_mismatch")
    assert policy_of(broker.subscription()) == policy_of(made)


def test_the_same_filter_written_otherwise(broker):
    broker.add_subscription(filter={"types": ["a"], "sources": ["s"]})
    text = b'{"name":"sub", "filter" : { "sources":["s"],\n "types" : [ "\\u0061" ] } }'
    assert broker.api("POST", "/v1/subscriptions", text)[0] == 200


BAD = [
    ({"lease_ms": 99}, "bad_policy", "lease_ms"),
    ({"max_hold_ms": 29999}, "bad_policy", "max_hold_ms"),
    ({"max_hold_ms": 604800001}, "bad_policy", "max_hold_ms"),
    ({"max_age_ms": 31622400001}, "bad_policy", "max_age_ms"),
    ({"max_fails": 1000001}, "bad_policy", "max_fails"),
    ({"rate": 1000001}, "bad_policy", "rate"),
    ({"backoff": {"list_ms": [1], "factor": 2}}, "bad_policy", "backoff"),
    ({"backoff": {"list_ms": []}}, "bad_policy", "backoff.list_ms"),
    ({"backoff": {"list_ms": [1, 86400001]}}, "bad_policy", "backoff.list_ms[1]"),
    ({"backoff": {"min_ms": 2, "max_ms": 1}}, "bad_policy", "backoff"),
    ({"backoff": {"jitter": 2}}, "bad_policy", "backoff.jitter"),
    ({"order": {"key": "customer"}}, "bad_policy", "order.key"),
    ({"order": "subject"}, "invalid_request", "order"),
    ({"lag": "drop"}, "invalid_request", "lag"),
    ({"rate": "fast"}, "invalid_request", "rate"),
    ({"backoff": {"list_ms": [1, "2"]}}, "invalid_request", "backoff.list_ms[1]"),
    ({"backoff": {"steps": [1]}}, "parameter_unknown", "backoff.steps"),
    ({"leese_ms": 5}, "parameter_unknown", "leese_ms"),
    ({"filter": {"types": ["a", 5]}}, "bad_filter", "filter.types[1]"),
    ({"filter": {"type": "a"}}, "bad_filter", "type"),
    ({"filter": {"user_metadata": {"k": {"in": []}}}}, "bad_filter", "filter.user_metadata.k"),
    ({"filter": {"any": [{"not": 5}]}}, "bad_filter", "filter.any[0].not"),
    ({"filter": []}, "bad_filter", "filter"),
]


@pytest.mark.parametrize("fields,code,place", BAD)
def test_bad_policies_name_the_place(broker, fields, code, place):
    status, got, message = error_of(broker, "POST", "/v1/subscriptions", {"name": "sub", **fields})
    assert (status, got) == (400, code), message
    assert place in message, message
    assert broker.ok("GET", "/v1/subscriptions")["subscriptions"] == []


# -- change --

def test_patch_changes_what_is_there_and_nothing_else(broker):
    broker.add_subscription(**FULL)
    for change in ({"lease_ms": 7000}, {"max_fails": 0}, {"filter": {"sources": ["s"]}},
                   {"rate": 5, "lag": "block"}, {"order": "none"},
                   {"backoff": {"list_ms": [7], "jitter": 0}}):
        before = broker.subscription()
        after = patch(broker, **change)
        assert policy_of(after) == {**policy_of(before), **change}
        assert (after["id"], after["create_time"]) == (before["id"], before["create_time"])
    last = policy_of(broker.subscription())
    assert patch(broker)["lease_ms"] == 7000
    broker.restart()
    assert policy_of(broker.subscription()) == last


def test_patch_takes_filter_and_backoff_as_a_whole(broker):
    broker.add_subscription(**FULL)
    got = patch(broker, filter={"types": ["a"]}, backoff={"max_ms": 5000})
    assert got["filter"] == {"types": ["a"]}
    assert got["backoff"] == {"min_ms": 1000, "max_ms": 5000, "factor": 2, "jitter": 0.1}


@pytest.mark.parametrize("fields,code,place", BAD + [
    ({"name": "other"}, "parameter_unknown", "name"), ({"start": "new"}, "parameter_unknown", "start"),
    # What stays must go together with what is new.
    ({"lease_ms": 43200000, "max_hold_ms": 43199999}, "bad_policy", "max_hold_ms"),
])
def test_a_bad_patch_changes_nothing(broker, fields, code, place):
    made = broker.add_subscription()
    status, got, message = error_of(broker, "PATCH", "/v1/subscriptions/sub", fields)
    assert (status, got) == (400, code), message
    assert place in message, message
    assert policy_of(broker.subscription()) == policy_of(made)


def test_patch_of_nobody_and_of_nothing(broker):
    assert error_of(broker, "PATCH", "/v1/subscriptions/sub", {})[:2] == (404, "not_found")
    broker.add_subscription()
    assert error_of(broker, "PATCH", "/v1/subscriptions/sub")[:2] == (400, "invalid_request")
    assert error_of(broker, "PATCH", "/v1/subscriptions/sub?x=1", {})[1] == "parameter_unknown"
    assert broker.request("PUT", "/v1/subscriptions/sub", b"{}")[0] == 405


def test_a_patched_policy_is_the_one_that_counts(broker, connect):
    broker.add_subscription(filter={"types": ["a"]})
    worker = connect(broker)
    worker.subscribe()
    broker.publish("a")
    assert worker.take_one().lease_ms == 30000
    patch(broker, filter={"types": ["b"]}, lease_ms=12345)
    broker.publish("a")
    broker.publish("b")
    item = worker.take_one()
    assert (item.type, item.lease_ms) == ("b", 12345)
    worker.settle_down()
    assert not worker.items


def test_order_changes_only_while_nothing_is_out(broker, connect):
    broker.add_subscription()
    broker.publish(subject="s")
    worker = connect(broker)
    worker.subscribe()
    item = worker.take_one()
    assert error_of(broker, "PATCH", "/v1/subscriptions/sub", {"order": "key"})[:2] == (
        409, "policy_mismatch")
    assert broker.subscription()["order"] == "none"
    patch(broker, order="none", rate=50)  # the same order is no change
    worker.ack([item])
    assert patch(broker, order="key")["order"] == "key"


# -- pause and resume --

def test_pause_keeps_the_queue(broker, connect):
    broker.add_subscription()
    worker = connect(broker)
    worker.subscribe()
    broker.publish()
    held = worker.take_one()
    assert broker.ok("POST", "/v1/subscriptions/sub:pause")["paused"] is True
    broker.publish_many(3)
    worker.settle_down()
    assert not worker.items
    got = broker.subscription()
    assert (got["paused"], got["why_idle"], got["backlog"]) == (True, "paused", 3)
    assert worker.ack([held]).ok == [held.tag]  # what is out can be settled
    assert broker.ok("POST", "/v1/subscriptions/sub:resume", {})["paused"] is False
    assert [i.seq for i in worker.take(3)] == [2, 3, 4]


def test_a_pause_outlives_a_restart(broker, connect):
    broker.add_subscription()
    broker.ok("POST", "/v1/subscriptions/sub:pause")
    broker.publish()
    broker.restart()
    assert broker.subscription()["paused"] is True
    worker = connect(broker)
    worker.subscribe()
    worker.settle_down()
    assert not worker.items
    broker.ok("POST", "/v1/subscriptions/sub:resume")
    assert worker.take_one().seq == 1


def test_pause_and_resume_are_idempotent(broker):
    broker.add_subscription()
    for verb, paused in (("resume", False), ("pause", True), ("pause", True), ("resume", False)):
        assert broker.ok("POST", f"/v1/subscriptions/sub:{verb}")["paused"] is paused
    for verb in ("pause", "resume"):
        path = f"/v1/subscriptions/sub:{verb}"
        assert error_of(broker, "POST", path, {"x": 1})[:2] == (400, "parameter_unknown")
        assert error_of(broker, "POST", path, b"[]")[:2] == (400, "invalid_request")
        assert error_of(broker, "POST", f"/v1/subscriptions/no:{verb}")[:2] == (404, "not_found")


# -- verbs in paths --

def test_verbs(broker):
    broker.add_subscription("a.b_c-d")
    assert broker.ok("POST", "/v1/subscriptions/a.b_c-d:pause")["name"] == "a.b_c-d"
    for path in ("/v1/subscriptions/a.b_c-d:stop", "/v1/subscriptions/a.b_c-d:",
                 "/v1/subscriptions/a.b_c-d:pause:pause", "/v1/subscriptions:pause",
                 "/v1/subscriptions/:pause", "/v1/subscriptions/a.b_c-d:pause/",
                 "/v1/subscriptions/a.b_c-d/x:pause", "/v1/sources/a:pause", "/healthz:x",
                 "/v1/replays:cancel", "/v1/dead-letters:drop", "/v1/dead-letters/a:redrive"):
        assert error_of(broker, "POST", path)[:2] == (404, "not_found"), path
    for path, allow in (("/v1/subscriptions/a.b_c-d:pause", "POST"), ("/v1/replays/1:cancel", "POST"),
                        ("/v1/dead-letters:purge", "POST")):
        status, headers, _ = broker.request("GET", path)
        assert (status, headers["Allow"]) == (405, allow), path
    status, headers, _ = broker.request("POST", "/v1/subscriptions/a.b_c-d", b"{}")
    assert status == 405
    assert headers["Allow"] == "GET, HEAD, PATCH, DELETE"


# -- seek --

def seek(broker, to):
    return broker.ok("POST", "/v1/subscriptions/sub:seek", {"to": to})


def test_seek(broker):
    broker.publish_many(5)
    third = broker.ok("GET", "/v1/events/3")["received_at"]
    assert broker.add_subscription()["next"] == 6
    assert seek(broker, "first")["next"] == 1
    assert seek(broker, {"seq": 4})["next"] == 4
    assert 1 <= seek(broker, {"time": third})["next"] <= 3  # several may share the millisecond
    assert seek(broker, {"time": "2099-01-01T00:00:00Z"})["next"] == 6
    assert seek(broker, {"seq": 2})["backlog"] == 4
    got = seek(broker, "new")
    assert (got["next"], got["backlog"], got["floor"]) == (6, 0, 6)


def test_seek_forgets_what_is_out(broker, connect):
    broker.add_subscription()
    broker.publish_many(3)
    worker = connect(broker)
    worker.subscribe(window=2)
    held = worker.take(2)
    got = seek(broker, {"seq": 3})
    assert (got["floor"], got["next"]) == (3, 3) or got["leased"] == 1
    revoked = worker.expect(bhp.REVOKE)
    assert revoked[4] == "seek"
    tags = bhp.tags_of(revoked[3])
    while len(tags) < 2:
        tags += bhp.tags_of(worker.expect(bhp.REVOKE)[3])
    assert sorted(tags) == [i.tag for i in held]
    settled = worker.ack(held)
    assert not settled.ok
    assert worker.take_one().seq == 3


def test_a_seek_outlives_a_restart(broker):
    broker.publish_many(5)
    broker.add_subscription()
    seek(broker, {"seq": 2})
    broker.kill9()
    broker.start()
    assert broker.subscription()["next"] == 2


@pytest.mark.parametrize("body,code,place", [
    ({}, "invalid_request", "to is required"), ({"to": "last"}, "invalid_request", "to must"),
    ({"to": 5}, "invalid_request", "to must"), ({"to": {}}, "invalid_request", "to must"),
    ({"to": {"seq": 0}}, "invalid_request", "to.seq"),
    ({"to": {"sek": 1}}, "parameter_unknown", "to.sek"),
    ({"to": {"time": "noon"}}, "invalid_request", "to.time"),
    ({"to": "new", "at": 1}, "parameter_unknown", "at"), ({"seq": 1}, "parameter_unknown", "seq"),
    ({"to": {"seq": 7}}, "out_of_range", "5"),
])
def test_bad_seeks(broker, body, code, place):
    broker.publish_many(5)
    made = broker.add_subscription()
    status, got, message = error_of(broker, "POST", "/v1/subscriptions/sub:seek", body)
    assert (status, got) == (400, code), message
    assert place in message, message
    assert broker.subscription()["next"] == made["next"]


def test_seek_of_nobody(broker):
    assert error_of(broker, "POST", "/v1/subscriptions/sub:seek", {"to": "new"})[:2] == (
        404, "not_found")


# -- what an answer says --

def test_counters(broker, connect):
    broker.add_subscription(max_fails=2, backoff={"list_ms": [3600000]})
    broker.publish_many(6)
    broker.publish(deliver_after_ms=3600000)
    worker = connect(broker)
    worker.subscribe(window=4)
    a, b, c, d = worker.take(4)
    worker.ack([a])
    worker.nack([b], FAIL)
    worker.nack([c], REJECT)
    worker.settle_down()
    worker.subscribe(sub=2, window=0)
    got = wait_for(lambda: (lambda s: s["delayed"] == 2 and s)(broker.subscription()),
                   what="the delayed ones")
    assert (got["acked"], got["dead"], got["dead_total"], got["expired"]) == (1, 1, 1, 0)
    assert (got["leased"], got["attachments"], got["blocked"]) == (3, 2, 0)
    assert got["floor"] >= 2 and got["oldest_ms"] >= 0 and got["paused"] is False
    assert isinstance(got["in_per_s"], float) and isinstance(got["out_per_s"], float)
    assert got["why_idle"] in ("backoff", "window")
    worker.ack([d])


def test_rates_in_and_out(broker, connect):
    broker.add_subscription(filter={"types": ["a"]})
    worker = connect(broker)
    worker.subscribe(window=100)
    for _ in range(20):
        broker.publish("a")
    broker.publish("b")
    worker.ack(worker.take(20))
    got = broker.subscription()
    assert 0 < got["in_per_s"] <= 20 and 0 < got["out_per_s"] <= 20


def test_order_by_key(broker, connect):
    broker.add_subscription(order={"key": "user_metadata.customer"}, backoff=FAST)
    for customer in ("x", "x", "y"):
        broker.publish(user_metadata={"customer": customer})
    worker = connect(broker)
    worker.subscribe()
    first, other = worker.take(2)
    assert (first.seq, other.seq) == (1, 3)
    worker.settle_down()
    assert not worker.items
    got = broker.subscription()
    assert (got["blocked"], got["leased"], got["why_idle"]) == (1, 2, "order")
    worker.ack([first])
    assert worker.take_one().seq == 2


def test_a_rate_limit_shows_why(broker, connect):
    broker.add_subscription(rate=1)
    broker.publish_many(20)
    worker = connect(broker)
    worker.subscribe(window=20)
    worker.take_one()
    got = broker.subscription()
    assert got["why_idle"] == "rate" and got["leased"] < 20
    patch(broker, rate=0)
    worker.take(19)
