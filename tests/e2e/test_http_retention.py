"""Retention over HTTP: setting it, what goes and what stays, and a subscription that lags behind it."""

import pytest
from bhp import REJECT
from harness import wait_for
from test_api import error_of

NONE = {"max_age_ms": 0, "max_bytes": 0, "dead_max_age_ms": 0}
BODY = "x" * 1000


def own(retention):
    return {field: retention[field] for field in NONE}


def patch(broker, **fields):
    return broker.ok("PATCH", "/v1/retention", fields, status=(200,))


def publish_kib(broker, count):
    return broker.ok("POST", "/v1/events",
                     {"events": [{"type": "t", "data": BODY} for _ in range(count)]})["events"]


def until(broker, condition, what):
    return wait_for(lambda: (lambda r: condition(r) and r)(broker.ok("GET", "/v1/retention")), what=what)


# -- setting it --

def test_get_and_patch(broker):
    got = broker.ok("GET", "/v1/retention")
    assert own(got) == NONE and set(got["configured"]) == set(NONE)
    assert (got["oldest_seq"], got["newest_seq"], got["trimmed"], got["blocked_by"]) == (1, 0, 0, "") \
        or (got["oldest_seq"], got["newest_seq"]) == (0, 0)
    broker.publish_many(3)
    got = patch(broker, max_age_ms=604800000)
    assert own(got) == {**NONE, "max_age_ms": 604800000}
    assert (got["oldest_seq"], got["newest_seq"]) == (1, 3) and got["journal_bytes"] > 0
    assert own(patch(broker, max_bytes=1 << 40)) == {
        **NONE, "max_age_ms": 604800000, "max_bytes": 1 << 40}
    assert own(patch(broker, max_age_ms=0, dead_max_age_ms=5)) == {
        "max_age_ms": 0, "max_bytes": 1 << 40, "dead_max_age_ms": 5}
    assert own(patch(broker)) == own(broker.ok("GET", "/v1/retention"))


def test_it_outlives_a_kill(broker):
    patch(broker, max_bytes=123456, dead_max_age_ms=7000)
    broker.kill9()
    broker.start()
    assert own(broker.ok("GET", "/v1/retention")) == {
        "max_age_ms": 0, "max_bytes": 123456, "dead_max_age_ms": 7000}
    assert broker.ok("GET", "/v1/status")["retention"]["max_bytes"] == 123456


def test_the_smaller_one_counts(brokers):
    broker = brokers("--retain-age", "1h", "--retain-bytes", "1m", "--retain-dead", "none")
    configured = {"max_age_ms": 3600000, "max_bytes": 1 << 20, "dead_max_age_ms": 0}
    got = broker.ok("GET", "/v1/retention")
    assert (own(got), got["configured"]) == (NONE, configured)
    assert broker.ok("GET", "/v1/status")["retention"] == configured
    got = patch(broker, max_age_ms=7200000, max_bytes=1000000, dead_max_age_ms=9)
    assert got["configured"] == configured
    counts = {"max_age_ms": 3600000, "max_bytes": 1000000, "dead_max_age_ms": 9}
    assert broker.ok("GET", "/v1/status")["retention"] == counts
    broker.restart()
    assert broker.ok("GET", "/v1/status")["retention"] == counts
    patch(broker, **NONE)
    assert broker.ok("GET", "/v1/status")["retention"] == configured


@pytest.mark.parametrize("fields,code,place", [
    ({"max_age": 1}, "parameter_unknown", "max_age"), ({"configured": {}}, "parameter_unknown", "configured"),
    ({"max_age_ms": -1}, "invalid_request", "max_age_ms"),
    ({"max_age_ms": 31622400001}, "invalid_request", "max_age_ms"),
    ({"max_bytes": "1g"}, "invalid_request", "max_bytes"),
    ({"max_bytes": None}, "invalid_request", "max_bytes"),
    ({"max_bytes": 5, "dead_max_age_ms": 1.5}, "invalid_request", "dead_max_age_ms"),
])
def test_bad_values_change_nothing(broker, fields, code, place):
    status, got, message = error_of(broker, "PATCH", "/v1/retention", fields)
    assert (status, got) == (400, code) and place in message, message
    assert own(broker.ok("GET", "/v1/retention")) == NONE
    assert error_of(broker, "GET", "/v1/retention?x=1")[:2] == (400, "parameter_unknown")
    assert broker.request("DELETE", "/v1/retention")[0] == 405


# -- what goes --

def test_the_journal_keeps_its_size(broker):
    publish_kib(broker, 100)
    patch(broker, max_bytes=20000)
    got = until(broker, lambda r: r["journal_bytes"] <= 22000, "the trimmed journal")
    oldest = got["oldest_seq"]
    assert oldest > 70 and got["newest_seq"] == 100 and got["trimmed"] == oldest - 1
    assert error_of(broker, "GET", "/v1/events/1")[:2] == (404, "not_found")
    assert [e["seq"] for e in broker.events()] == list(range(oldest, 101))
    status = broker.ok("GET", "/v1/status")
    assert status["journal"] == {"first_seq": oldest, "last_seq": 100}
    assert (status["trimmed"], status["journal_bytes"]) == (got["trimmed"], got["journal_bytes"])
    status, code, message = error_of(broker, "POST", "/v1/subscriptions",
                                     {"name": "sub", "start": {"seq": 1}})
    assert (status, code) == (400, "out_of_range") and str(oldest) in message
    assert broker.add_subscription(start="first")["next"] == oldest
    assert publish_kib(broker, 1) == [{"seq": 101}]  # a seq is never used twice


def test_old_events_go(broker):
    broker.publish_many(10)
    patch(broker, max_age_ms=1)
    # The newest one stays, whatever its age: the next seq is known from it.
    got = until(broker, lambda r: r["trimmed"] >= 9, "the end of the old events")
    assert (got["oldest_seq"], got["newest_seq"]) == (10, 10)


def test_what_is_leased_stays(broker, connect):
    broker.add_subscription()
    publish_kib(broker, 50)
    worker = connect(broker)
    worker.subscribe(window=1)
    item = worker.take_one()
    broker.ok("PATCH", "/v1/subscriptions/sub", {"lag": "expire"})
    patch(broker, max_bytes=10000)
    until(broker, lambda r: r["trimmed"] > 30, "the trimmed journal")
    assert worker.ack([item]).ok == [item.tag]
    assert worker.take_one().seq > 30


def test_a_dead_letter_outlives_its_event(brokers, connect):
    broker = brokers("--restart-grace", "0")
    broker.add_subscription()
    publish_kib(broker, 50)
    worker = connect(broker)
    worker.subscribe(window=50)
    items = worker.take(50)
    worker.nack(items[:1], REJECT)
    worker.ack(items[1:])
    patch(broker, max_bytes=10000)
    until(broker, lambda r: r["trimmed"] > 30, "the trimmed journal")
    assert error_of(broker, "GET", "/v1/events/1")[0] == 404
    assert broker.ok("GET", "/v1/dead-letters/sub/1")["event"]["body"] == BODY
    broker.ok("POST", "/v1/dead-letters:redrive", {"subscription": "sub", "seq": 1})
    assert worker.take_one().seq == 1


def test_dead_letters_go_by_age(broker, connect):
    broker.add_subscription()
    broker.publish_many(5)
    worker = connect(broker)
    worker.subscribe()
    worker.nack(worker.take(5), REJECT)
    assert len(broker.dead_letters()) == 5
    patch(broker, dead_max_age_ms=3600000)
    assert len(broker.dead_letters()) == 5

    def gone():
        patch(broker, dead_max_age_ms=1)
        return broker.dead_letters() == []

    wait_for(gone, what="the end of the dead letters")
    got = broker.subscription()
    assert (got["dead"], got["dead_total"]) == (0, 5)


# -- who lags behind --

def test_a_subscription_that_blocks_is_named(broker, connect):
    broker.add_subscription("other")
    worker = connect(broker)
    worker.subscribe("other", window=1000)
    broker.add_subscription("lazy")
    publish_kib(broker, 50)
    worker.ack(worker.take(50))
    patch(broker, max_bytes=20000)
    got = until(broker, lambda r: r["blocked_by"], "the subscription in the way")
    assert (got["blocked_by"], got["trimmed"]) == ("lazy", 0)
    assert broker.ok("GET", "/v1/status")["blocked_by"] == "lazy"
    status, headers, body = broker.request("POST", "/v1/events", b'{"type":"t"}')
    assert status == 503 and int(headers["Retry-After"]) >= 1
    assert b'"blocked"' in body and b"lazy" in body
    assert broker.ok("GET", "/v1/retention")["newest_seq"] == 50
    refused = "publishes are refused: the journal has its full size and subscription lazy"
    assert broker.log().count(refused) == 1
    # What frees it: here a seek; its events are read by nobody any more.
    broker.ok("POST", "/v1/subscriptions/lazy:seek", {"to": "new"})
    until(broker, lambda r: not r["blocked_by"] and r["trimmed"] > 0, "the way being free")
    assert broker.publish() == 51
    assert "publishes are taken again" in broker.log()


def test_a_subscription_that_expires_is_counted(broker, connect):
    broker.add_subscription("lazy", lag="expire", filter={"types": ["t"]})
    publish_kib(broker, 50)
    broker.publish("u")
    patch(broker, max_bytes=20000)
    got = until(broker, lambda r: r["trimmed"] > 20, "the trimmed journal")
    assert got["blocked_by"] == ""
    lazy = broker.subscription("lazy")
    assert lazy["expired"] == got["trimmed"] and lazy["next"] >= got["oldest_seq"]
    worker = connect(broker)
    worker.subscribe("lazy")
    assert worker.take_one().seq == got["oldest_seq"]
    worker.close()
    broker.restart()
    assert broker.subscription("lazy")["expired"] == lazy["expired"]


def test_a_policy_that_stops_blocking(broker):
    broker.add_subscription("lazy")
    publish_kib(broker, 50)
    patch(broker, max_bytes=20000)
    until(broker, lambda r: r["blocked_by"] == "lazy", "the subscription in the way")
    broker.ok("PATCH", "/v1/subscriptions/lazy", {"lag": "expire"})
    until(broker, lambda r: not r["blocked_by"] and r["trimmed"] > 0, "the way being free")
    assert broker.publish() == 51
    assert broker.subscription("lazy")["expired"] > 0
