"""The JSON API: publishing, listing and following events, dead letters, replays."""

import datetime
import threading
import time

import pytest
from bhp import FAIL, REJECT
from harness import DEADLINE_S, wait_for
from test_api import error_of


def test_publish_one(broker):
    event = {"type": "order.paid", "subject": "order-17", "id": "evt-1",
             "time": "2026-11-21T09:00:00Z", "data": {"total": 12},
             "user_metadata": {"team": "a"}}
    assert broker.api("POST", "/v1/events", event) == (200, {"seq": 1})
    assert broker.api("POST", "/v1/events", event) == (200, {"seq": 1, "duplicate": True})
    got = broker.ok("GET", "/v1/events/1")
    assert got.pop("received_at").endswith("Z")
    assert got == {"seq": 1, "id": "evt-1", "type": "order.paid", "subject": "order-17",
                   "time": "2026-11-21T09:00:00.000Z", "content_type": "application/json",
                   "user_metadata": {"team": "a"}, "body": {"total": 12}}


def test_publish_without_an_id_is_never_a_duplicate(broker):
    assert [broker.publish(data=1), broker.publish(data=1)] == [1, 2]


def test_publish_without_data(broker):
    got = broker.ok("GET", f"/v1/events/{broker.publish('t')}")
    assert "body" not in got and "body_text" not in got
    assert got["type"] == "t"


@pytest.mark.parametrize("text", ['{"a" : 1,  "b":[ ]}', '12345678901234567890.50', '"x\\u0041"',
                                  "null", "[1e2]", '{"a":1,"a":2}'])
def test_data_is_kept_as_it_was_sent(broker, connect, text):
    broker.add_subscription()
    body = ('{"type":"t","data":' + text + "}").encode()
    assert broker.api("POST", "/v1/events", body)[0] == 200
    worker = connect(broker)
    worker.subscribe()
    assert worker.take_one().body == text.encode()


def test_publish_batch(broker):
    events = [{"type": "a", "id": "1"}, {"type": "b"}, {"type": "a", "id": "1"},
              {"type": "c", "id": "2"}]
    answer = broker.ok("POST", "/v1/events", {"events": events})["events"]
    assert answer == [{"seq": 1}, {"seq": 2}, {"seq": 1, "duplicate": True}, {"seq": 3}]
    assert [e["type"] for e in broker.events()] == ["a", "b", "c"]


def test_batches_are_all_or_none(broker):
    events = [{"type": "a"}] * 5 + [{"subject": "no type"}]
    status, code, message = error_of(broker, "POST", "/v1/events", {"events": events})
    assert (status, code) == (400, "invalid_request")
    assert "events[5]" in message and "type" in message
    assert broker.events() == []
    assert error_of(broker, "POST", "/v1/events", {"events": []})[0] == 400
    too_many = {"events": [{"type": "a"}] * 1025}
    assert error_of(broker, "POST", "/v1/events", too_many)[0] in (400, 413, 429)
    assert broker.events() == []
    most = broker.ok("POST", "/v1/events", {"events": [{"type": "a"}] * 1024})
    assert [e["seq"] for e in most["events"]] == list(range(1, 1025))


@pytest.mark.parametrize("fields,place", [
    ({}, "type"), ({"type": ""}, "type"), ({"type": 5}, "type"), ({"type": "t" * 257}, "type"),
    ({"type": "t", "id": "i" * 257}, "id"), ({"type": "t", "subject": "s" * 1025}, "subject"),
    ({"type": "t", "time": "noon"}, "time"), ({"type": "t", "user_metadata": []}, "user_metadata"),
    ({"type": "t", "user_metadata": {"k": "v" * 17000}}, "user_metadata"),
    ({"type": "t", "events": []}, "events"),
    ({"type": "t", "deliver_at": "noon"}, "deliver_at"), ({"type": "t", "deliver_at": 5}, "deliver_at"),
    ({"type": "t", "deliver_at": "2099-01-01T00:00:00Z"}, "deliver_at"),
    ({"type": "t", "deliver_after_ms": -1}, "deliver_after_ms"),
    ({"type": "t", "deliver_after_ms": 2592000001}, "deliver_after_ms"),
    ({"type": "t", "deliver_after_ms": 1.5}, "deliver_after_ms"),
    ({"type": "t", "deliver_after_ms": "5s"}, "deliver_after_ms"),
    ({"type": "t", "deliver_after_ms": 5, "deliver_at": "2026-01-01T00:00:00Z"}, "deliver_at"),
])
def test_bad_events(broker, fields, place):
    status, code, message = error_of(broker, "POST", "/v1/events", fields)
    assert status in (400, 413), message
    assert code in ("invalid_request", "too_large", "parameter_unknown"), code
    assert place in message, message
    assert broker.events() == []


def test_an_event_is_held_back(brokers, connect):
    broker = brokers("--restart-grace", "0")
    broker.add_subscription()
    worker = connect(broker)
    worker.subscribe()
    began = time.monotonic()
    seq = broker.publish("later", deliver_after_ms=400)
    soon = broker.publish("soon")
    event = broker.ok("GET", f"/v1/events/{seq}")
    assert event["deliver_at"] > event["received_at"]
    assert "deliver_at" not in broker.ok("GET", f"/v1/events/{soon}")
    assert worker.take_one().seq == soon
    assert worker.take_one().seq == seq
    assert time.monotonic() - began >= 0.395


def test_held_back_at_a_time(broker, connect):
    """A time that is over is at once; each event of a batch has its own."""
    broker.add_subscription()
    in_an_hour = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    broker.ok("POST", "/v1/events", {"events": [
        {"type": "a", "deliver_at": in_an_hour.isoformat(timespec="milliseconds")},
        {"type": "b", "deliver_at": "2020-01-01T00:00:00Z"}, {"type": "c", "deliver_after_ms": 0},
        {"type": "d", "deliver_after_ms": 2592000000}]})
    worker = connect(broker)
    worker.subscribe()
    assert [i.type for i in worker.take(2)] == ["b", "c"]
    worker.settle_down()
    assert not worker.items
    wait_for(lambda: broker.subscription()["delayed"] == 2, what="the two that wait")
    assert [("deliver_at" in e) for e in broker.events()] == [True, False, False, True]
    shown = datetime.datetime.fromisoformat(broker.events()[0]["deliver_at"].replace("Z", "+00:00"))
    assert abs((shown - in_an_hour).total_seconds()) < 0.01


def test_a_query_parameter_is_given_once(broker):
    broker.publish("a")
    broker.publish("b")
    for query in ("type=a&type=b", "type=a&t%79pe=a", "page_size=1&type=a&page_size=2"):
        status, code, message = error_of(broker, "GET", f"/v1/events?{query}")
        assert (status, code) == (400, "invalid_request") and "is given twice" in message, query
    assert [e["type"] for e in broker.ok("GET", "/v1/events?type=a&&page_size=5")["events"]] == ["a"]


def test_get_event(broker):
    broker.publish()
    for path in ("/v1/events/2", "/v1/events/0", "/v1/events/18446744073709551615"):
        assert error_of(broker, "GET", path)[0] in (400, 404), path
    assert error_of(broker, "GET", "/v1/events/2")[1:] == (
        "not_found", 'there is no event "2": the oldest in the journal is 1, the newest 1')
    for path in ("/v1/events/abc", "/v1/events/18446744073709551616", "/v1/events/-1",
                 "/v1/events/1x"):
        assert error_of(broker, "GET", path)[0] in (400, 404), path


def test_list_filters(broker):
    broker.add_source("src")
    for i in range(6):
        broker.publish("a.x" if i % 2 else "b.y", subject=f"s{i % 3}")
    assert [e["seq"] for e in broker.events("&type=a.*")] == [2, 4, 6]
    assert [e["seq"] for e in broker.events("&type=*.y")] == [1, 3, 5]
    assert [e["seq"] for e in broker.events("&subject=s1")] == [2, 5]
    assert [e["seq"] for e in broker.events("&type=a.x&subject=s1")] == [2]
    assert [e["seq"] for e in broker.events("&from_seq=4")] == [4, 5, 6]
    assert broker.events("&source=src") == []
    assert broker.events("&from_seq=7") == []
    since = broker.ok("GET", "/v1/events/6")["received_at"]
    assert [e["seq"] for e in broker.events(f"&since={since}")][-1] == 6
    assert broker.events("&since=2099-01-01T00:00:00Z") == []


def test_list_pages(broker):
    broker.publish_many(120)
    got, token, requests = [], "", 0
    while True:
        page = broker.ok("GET", "/v1/events?page_size=50" + (f"&page_token={token}" if token else ""))
        got += [e["seq"] for e in page["events"]]
        requests += 1
        token = page.get("next_page_token")
        if not token:
            break
    assert got == list(range(1, 121)) and requests >= 3
    assert len(broker.ok("GET", "/v1/events")["events"]) == 50


def test_list_finds_a_needle(broker):
    """Pages that find nothing still have a token, until the end is reached."""
    broker.publish_many(3000)
    broker.publish("needle")
    assert [e["seq"] for e in broker.events("&type=needle")] == [3001]


def test_wait_holds_until_an_event_comes(broker):
    answer = {}

    def follow():
        answer.update(broker.ok("GET", "/v1/events?from_seq=1&wait_ms=30000"))

    reader = threading.Thread(target=follow)
    reader.start()
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["http"] >= 2,
             what="the held request")
    broker.publish("t")
    reader.join(DEADLINE_S)
    assert [e["seq"] for e in answer["events"]] == [1]
    token = answer["next_page_token"]
    broker.publish("u")
    page = broker.ok("GET", f"/v1/events?wait_ms=30000&page_token={token}")
    assert [e["seq"] for e in page["events"]] == [2]


def test_wait_ends_when_its_time_is_over(broker):
    broker.publish("other")
    began = time.monotonic()
    page = broker.ok("GET", "/v1/events?from_seq=1&type=t&wait_ms=300")
    assert time.monotonic() - began >= 0.298
    assert page["events"] == [] and page["next_page_token"]
    # The reader goes on from where it was, and misses nothing.
    broker.publish("t")
    page = broker.ok("GET", f"/v1/events?type=t&wait_ms=30000&page_token={page['next_page_token']}")
    assert [e["seq"] for e in page["events"]] == [2]


def test_held_readers_come_and_go(broker):
    for _ in range(20):
        with broker.raw_http() as raw:
            raw.send(b"GET /v1/events?wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    broker.publish("t")
    assert broker.api("GET", "/healthz")[0] == 200


def test_dead_letters(broker, connect):
    broker.add_subscription(max_fails=1)
    broker.publish("a", id="one", data={"n": 1})
    broker.publish("b", data={"n": 2})
    worker = connect(broker)
    worker.subscribe()
    one, two = worker.take(2)
    worker.nack([one], FAIL, error="exit status 1")
    worker.nack([two], REJECT, error="no such customer")
    first, second = broker.dead_letters()
    assert first["subscription"] == "sub" and first["seq"] == 1
    assert (first["reason"], first["error"], first["fails"], first["deliveries"]) == (
        "max_fails", {"message": "exit status 1"}, 1, 1)
    assert first["event"]["id"] == "one" and first["event"]["body"] == {"n": 1}
    assert first["died_at"].endswith("Z") and "replay" not in first
    assert (second["reason"], second["error"]) == ("rejected", {"message": "no such customer"})
    assert broker.subscription()["dead"] == 2
    broker.ok("DELETE", "/v1/subscriptions/sub")
    assert error_of(broker, "GET", "/v1/dead-letters?subscription=sub")[:2] == (404, "not_found")
    assert error_of(broker, "GET", "/v1/dead-letters")[:2] == (400, "invalid_request")


def test_dead_letter_pages(broker, connect):
    broker.add_subscription(max_fails=1)
    broker.publish_many(25)
    worker = connect(broker)
    worker.subscribe(window=25)
    worker.nack(worker.take(25), REJECT, error="x")
    got, token = [], ""
    while True:
        page = broker.ok("GET", "/v1/dead-letters?subscription=sub&page_size=10"
                         + (f"&page_token={token}" if token else ""))
        got += [d["seq"] for d in page["dead_letters"]]
        token = page.get("next_page_token")
        if not token:
            break
    assert got == list(range(1, 26))


def test_replay_over_http(broker, connect):
    broker.publish_many(10)
    broker.add_subscription()
    status, made = broker.api("POST", "/v1/replays",
                              {"subscription": "sub", "from_seq": 3, "to_seq": 6})
    assert status == 201
    assert (made["subscription"], made["from_seq"], made["to_seq"]) == ("sub", 3, 6)
    assert made["state"] == "running" and made["acked"] == 0
    worker = connect(broker)
    worker.subscribe()
    items = worker.take(4)
    assert sorted(i.seq for i in items) == [3, 4, 5, 6]
    assert all(i.flags & 1 for i in items)
    worker.ack(items)
    done = wait_for(lambda: (lambda r: r["state"] == "finished" and r)(
        broker.ok("GET", f"/v1/replays/{made['id']}")), what="the end of the replay")
    assert done["acked"] == 4 and done["outstanding"] == 0 and done["finish_time"].endswith("Z")
    assert broker.subscription()["next"] == 11
    assert [r["id"] for r in broker.ok("GET", "/v1/replays")["replays"]] == [made["id"]]


@pytest.mark.parametrize("fields", [
    {}, {"subscription": "nobody", "from_seq": 1}, {"subscription": "sub"},
    {"subscription": "sub", "from_seq": 1, "since": "2026-01-01T00:00:00Z"},
    {"subscription": "sub", "from_seq": 5, "to_seq": 3},
    {"subscription": "sub", "from_seq": 100}, {"subscription": "sub", "since": "noon"},
    {"subscription": "sub", "from_seq": -1}, {"subscription": 5, "from_seq": 1},
])
def test_bad_replays(broker, fields):
    broker.publish_many(5)
    broker.add_subscription()
    status, code, _ = error_of(broker, "POST", "/v1/replays", fields)
    assert status in (400, 404) and code in ("invalid_request", "out_of_range", "not_found")
    assert broker.ok("GET", "/v1/replays")["replays"] == []


def test_replay_get(broker):
    assert error_of(broker, "GET", "/v1/replays/1")[:2] == (404, "not_found")
    assert error_of(broker, "GET", "/v1/replays/x")[0] in (400, 404)
