"""A store that is full: every door refuses new events, what was accepted keeps moving, and room that retention
makes is used."""

import json

import bhp
from harness import make_secret, signed_headers, wait_for
from test_api import error_of

SECRET = make_secret("r")
LARGE = "x" * 1_000_000


def fill(broker):
    """Publishes until the store is full; the refusal's status, headers and code."""
    for _ in range(1000):
        status, headers, answer = broker.request(
            "POST", "/v1/events", json.dumps({"type": "large", "data": LARGE}),
            {"content-type": "application/json"})
        if status != 200:
            return status, headers, json.loads(answer)["error"]["code"]
    raise AssertionError("the store takes everything")


def room(broker):
    return broker.ok("GET", "/v1/status")["room"]


def test_a_full_store_refuses_new_events_and_keeps_moving(brokers, connect):
    broker = brokers("--max-store", "128m")  # of which 64 MiB are kept free for settlements
    broker.add_source("src", SECRET)
    broker.add_subscription(start="first")
    status, headers, code = fill(broker)
    assert (status, code) == (503, "no_room") and int(headers["Retry-After"]) > 0
    last = broker.ok("GET", "/v1/status")["journal"]["last_seq"]
    assert not room(broker) and 40 < last < 140

    # Nothing new by any door.
    assert error_of(broker, "POST", "/v1/events", {"type": "small"})[:2] == (503, "no_room")
    body = b'{"type":"small"}'
    status, _, answer = broker.request("POST", "/in/src", body, signed_headers(SECRET, body))
    assert (status, json.loads(answer)["error"]["code"]) == (503, "no_room")
    client = connect(broker)
    error = client.error_of(bhp.PUBLISH, [["small", "", "", "", "", 0, 0, b""]])
    assert error[:2] == (501, "no_room") and error.retry_ms > 0
    assert broker.ok("GET", "/v1/status")["journal"]["last_seq"] == last

    # What is there goes out, fails, dies and is settled; configuration still fits.
    client.subscribe(window=last, window_bytes=64 << 20)
    first, second, third = client.take(3)
    assert client.nack([first], bhp.FAIL, delay_ms=86_400_000).ok == [first.tag]
    assert client.nack([second], bhp.REJECT).ok == [second.tag]
    assert client.ack([third]).ok == [third.tag]
    for _ in range(last - 3):
        client.ack([client.take_one()])
    assert broker.subscription()["acked"] == last - 2
    assert [letter["seq"] for letter in broker.dead_letters()] == [second.seq]
    broker.add_subscription("another")

    # Retention makes room. The event that waits keeps its place in the journal.
    broker.ok("DELETE", "/v1/subscriptions/sub")
    broker.ok("PATCH", "/v1/retention", {"max_bytes": 10_000_000}, status=(200,))
    wait_for(lambda: room(broker), what="room")
    assert broker.publish("small") == last + 1
