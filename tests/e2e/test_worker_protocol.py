"""The worker protocol as docs/protocol.md says: handshake, flow control, settling, publishing."""

import socket
import time

import bhp
import pytest
from bhp import FAIL, FLAG_AGAIN, FLAG_REPLAY, REJECT, RELEASE, Closed, Client
from harness import wait_for

FAST = {"backoff": {"min_ms": 1, "max_ms": 1, "factor": 1}}


# -- handshake --

def test_welcome(broker, connect):
    welcome = connect(broker).welcome
    assert welcome["version"] == 1
    assert welcome["auth"] == "none"
    assert welcome["heartbeat_ms"] == 10000
    assert welcome["max_frame_bytes"] == (1 << 20) + (64 << 10)
    assert abs(welcome["now_ms"] - time.time() * 1000) < 60000
    assert welcome["server"] and welcome["session"]


def test_frame_limit_follows_max_body(brokers, connect):
    broker = brokers("--max-body", "4096")
    assert connect(broker).welcome["max_frame_bytes"] == 4096 + (64 << 10)


def test_greeting_in_pieces(broker, connect):
    client = connect(broker, greeting=None, hello=False)
    for byte in bhp.GREETING + bhp.encode(bhp.HELLO, 9, {"min": 1, "max": 1}):
        client.send_bytes(bytes([byte]))
    assert client.answer(9)[0] == bhp.WELCOME


def test_no_common_version(broker, connect):
    client = connect(broker, hello=False)
    error = client.error_of(bhp.HELLO, {"min": 2, "max": 9, "name": "t", "version": "0"})
    assert (error.number, error.word, error.fatal) == (104, "bad_version", True)
    client.wait_closed()


def test_newer_client_meets_older_broker(broker, connect):
    client = connect(broker, hello=False)
    frame = client.request(bhp.HELLO, {"min": 1, "max": 9, "name": "t", "what": {"is": "this"}},
                           "a field of the future", want=bhp.WELCOME)
    assert frame[2]["version"] == 1


def test_hello_comes_first_and_once(broker, connect):
    client = connect(broker, hello=False)
    error = client.error_of(bhp.SUBSCRIBE, 1, "sub", 1, 1, {})
    assert (error.number, error.fatal) == (105, True)
    client.wait_closed()
    client = connect(broker)
    error = client.error_of(bhp.HELLO, {"min": 1, "max": 1})
    assert (error.number, error.fatal) == (105, True)
    client.wait_closed()


def test_auth_without_keys_is_ok(broker, connect):
    client = connect(broker)
    assert client.request(bhp.AUTH, "none", "id", b"proof")[0] == bhp.OK


@pytest.mark.waits
def test_handshake_has_a_deadline(broker, connect):
    silent, half = connect(broker, greeting=None, hello=False), connect(broker, hello=False)
    half.send_bytes(b"\x00\x00")
    for client in (silent, half):
        client.wait_closed(20)
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["workers"] == 0)


def test_unknown_ops_are_answered(broker, connect):
    client = connect(broker)
    for op in (12, 18, 63, 75, 90, 99, 4000):
        error = client.error_of(op, "whatever", {"a": [1]})
        assert (error.number, error.word, error.fatal) == (103, "unsupported_op", False), op
    client.ping()


@pytest.mark.waits
def test_heartbeat_of_the_broker(broker, connect):
    client = connect(broker, heartbeat_ms=1000)
    assert client.welcome["heartbeat_ms"] == 1000
    wait_for(lambda: take_pings(client), what="a PING")
    # Whoever does not answer is gone after three heartbeats.
    client.answer_pings = False
    began = time.monotonic()
    client.wait_closed(30)
    assert time.monotonic() - began >= 1.9


def take_pings(client):
    try:
        client.expect(-1, timeout=0.2)
    except TimeoutError:
        pass
    return client.pings


# -- subscriptions --

def test_subscribe_creates(broker, connect):
    client = connect(broker)
    create = {"filter": {"types": ["a.*"], "sources": ["s"]}, "lease_ms": 5000, "max_fails": 3,
              "backoff": {"min_ms": 5, "max_ms": 50, "factor": 1.5}, "start": "new"}
    said = client.subscribe("made", create=create)
    assert said["created"] is True and said["lease_ms"] == 5000 and said["backlog"] == 0
    got = broker.subscription("made")
    assert got["filter"] == create["filter"] and got["max_fails"] == 3
    assert got["backoff"] == {**create["backoff"], "jitter": 0.1} and got["attachments"] == 1
    assert client.subscribe("made", sub=2, create=create)["created"] is False
    frame = client.request(bhp.SUBSCRIBE, 3, "made", 1, 1,
                           {"create": bhp.json_text({**create, "max_fails": 4})})
    assert frame[2:4] == [303, "policy_mismatch"]
    assert broker.subscription("made")["max_fails"] == 3


@pytest.mark.parametrize("start,seqs", [("first", [1, 2, 3]), ({"seq": 2}, [2, 3]),
                                        ({"time_ms": 1}, [1, 2, 3]), ("new", [])])
def test_subscribe_start(broker, connect, start, seqs):
    broker.publish_many(3)
    client = connect(broker)
    client.subscribe("made", create={"start": start})
    broker.publish("last")
    assert [i.seq for i in client.take(len(seqs) + 1)] == seqs + [4]


def test_subscribe_errors(broker, connect):
    client = connect(broker)
    assert client.error_of(bhp.SUBSCRIBE, 1, "nobody", 1, 1, {})[:2] == (301, "not_found")
    broker.add_subscription()
    client.subscribe()
    assert client.error_of(bhp.SUBSCRIBE, 1, "sub", 1, 1, {})[:2] == (302, "already_exists")
    for bad in ("", "a b", "-a", "x" * 65):
        error = client.error_of(bhp.SUBSCRIBE, 5, bad, 1, 1, {"create": "{}"})
        assert error.number in (301, 401), bad
    assert client.error_of(bhp.SUBSCRIBE, 6, "sub", 16385, 1, {})[:2] == (407, "window_too_large")
    short = {"create": bhp.json_text({"lease_ms": 5})}
    assert client.error_of(bhp.SUBSCRIBE, 7, "x", 1, 1, short)[:2] == (406, "bad_policy")
    for sub in range(2, 65):
        client.subscribe(sub=sub)
    assert client.error_of(bhp.SUBSCRIBE, 65, "sub", 1, 1, {})[:2] == (404, "limit_exceeded")
    client.ping()


def test_every_request_is_answered_however_fast_they_come(broker, connect):
    """Requests that arrive in one piece, the later ones undoing the earlier."""
    client = connect(broker)
    frames = [(bhp.SUBSCRIBE, 901, 5, "made", 10, 1000, {"create": "{}"}),
              (bhp.WINDOW, 902, 5, 1, 1),
              (bhp.UNSUBSCRIBE, 903, 5), (bhp.SUBSCRIBE, 904, 5, "made", 10, 1000, {}),
              (bhp.UNSUBSCRIBE, 905, 5), (bhp.PING, 906)]
    client.send_bytes(b"".join(bhp.encode(*f) for f in frames))
    client.settle_down()
    answered = {f[1]: f[0] for f in client.frames}
    assert answered == {901: bhp.SUBSCRIBED, 902: bhp.OK, 903: bhp.OK, 904: bhp.SUBSCRIBED,
                        905: bhp.OK, 906: bhp.PONG}


def test_an_event_is_published_with_text_that_is_text(broker, connect):
    """Other bytes in a DELIVER's str would end every worker whose msgpack checks them."""
    broker.add_subscription()
    client = connect(broker)
    client.subscribe()
    for name in ("type", "subject", "id", "content_type"):
        for text in (b"a\xff", b"\xc3", b"\xed\xa0\x80", b"12345678\x80"):
            row = [name == part and text or "x" for part in ("type", "subject", "id", "content_type")]
            error = client.error_of(bhp.PUBLISH, [[*row, "", 0, 0, b""]])
            assert (error.number, error.word) == (401, "invalid_request"), (name, text)
            assert error.message == f"{name}: must be UTF-8"
    client.publish({"type": "ä", "subject": "\U0001f600", "id": "ß", "content_type": "text/ö"})
    item = client.take_one()
    assert (item.seq, item.type, item.subject, item.id, item.content_type) == (
        1, "ä", "\U0001f600", "ß", "text/ö")


def test_a_socket_that_was_full_gets_the_rest(broker, connect):
    """More waits for the worker than its connection may queue, and all of it comes: also what is taken by the
    kernel in one go, and behind what the broker had to say meanwhile."""
    broker.add_subscription()
    for _ in range(40):
        broker.publish("t", data="x" * 1_000_000)
    client = connect(broker)
    client.subscribe(window=100, window_bytes=64 << 20)
    for _ in range(40):
        assert client.ack([client.take_one()]).ok
    broker.publish("t")
    assert client.take_one().seq == 41


def test_items_say_everything(broker, connect):
    broker.add_subscription()
    client = connect(broker)
    client.subscribe()
    seqs, duplicates = client.publish({
        "type": "a.b", "subject": "s", "id": "i", "content_type": "text/plain",
        "metadata": '{"k":1}', "time_ms": 1700000000123, "body": b"\x00body\xff"})
    assert (seqs, duplicates) == ([1], [])
    item = client.take_one()
    assert (item.seq, item.type, item.subject, item.id) == (1, "a.b", "s", "i")
    assert (item.content_type, item.metadata, item.time_ms) == ("text/plain", '{"k":1}',
                                                                1700000000123)
    assert (item.fails, item.deliveries, item.flags, item.source) == (0, 1, 0, "")
    assert item.body == b"\x00body\xff" and item.sub == 1 and item.lease_ms == 30000
    assert abs(item.received_at_ms - time.time() * 1000) < 60000


def test_filters(broker, connect):
    client = connect(broker)
    client.subscribe("types", sub=1, create={"filter": {"types": ["a.*", "z"]}})
    client.subscribe("sources", sub=2, create={"filter": {"sources": ["src"]}})
    broker.add_source("src")
    for kind in ("a.b", "b.a", "z", "zz", "a.b.c"):
        broker.publish(kind)
    from harness import make_secret
    broker.post_signed("src", make_secret(), {"type": "q"})
    got = client.take(4)
    assert sorted((i.sub, i.type) for i in got) == [(1, "a.b"), (1, "a.b.c"), (1, "z"), (2, "q")]
    client.settle_down()
    assert not client.items


def test_each_subscription_gets_every_event(broker, connect):
    client = connect(broker)
    client.subscribe("one", sub=1, create={})
    client.subscribe("two", sub=2, create={})
    broker.publish_many(10)
    items = client.take(20)
    for sub in (1, 2):
        assert sorted(i.seq for i in items if i.sub == sub) == list(range(1, 11))
    assert client.ack([i for i in items if i.sub == 2], sub=2).ok
    assert broker.subscription("one")["acked"] == 0
    assert broker.subscription("two")["acked"] == 10


def test_live_events_come_in_order(broker, connect):
    broker.add_subscription()
    client = connect(broker)
    client.subscribe(window=1000)
    for _ in range(20):
        client.publish(*[{"type": "t"}] * 25)
    items = client.take(500)
    assert [i.seq for i in items] == list(range(1, 501))
    tags = [i.tag for i in items]
    assert tags == sorted(set(tags))


# -- window --

def test_window_is_a_limit(broker, connect):
    broker.add_subscription()
    broker.publish_many(20)
    client = connect(broker)
    client.subscribe(window=3)
    first = client.take(3)
    client.settle_down()
    assert not client.items
    assert broker.subscription()["leased"] == 3 and broker.subscription()["why_idle"] == "window"
    client.ack(first[:2])
    assert [i.seq for i in client.take(2)] == [4, 5]
    client.settle_down()
    assert not client.items


def test_window_zero_pauses(broker, connect):
    broker.add_subscription()
    broker.publish_many(5)
    client = connect(broker)
    client.subscribe(window=0)
    client.settle_down()
    assert not client.items
    assert client.request(bhp.WINDOW, 1, 2, 1 << 20)[0] == bhp.OK
    assert len(client.take(2)) == 2
    client.send(bhp.WINDOW, 0, 1, 5, 1 << 20)
    assert len(client.take(3)) == 3
    assert client.error_of(bhp.WINDOW, 9, 1, 1).number == 301
    assert client.error_of(bhp.WINDOW, 1, 16385, 1)[:2] == (407, "window_too_large")


def test_window_in_bytes(broker, connect):
    broker.add_subscription()
    client = connect(broker)
    client.publish(*[{"type": "t", "body": b"x" * 1000}] * 10)
    client.subscribe(window=10, window_bytes=2500)
    got = client.take(2)
    client.settle_down()
    got += list(client.items)
    assert 2 <= len(got) <= 3  # one may pass the limit, so that a large one cannot get stuck
    client.items.clear()
    client.ack(got)
    assert client.take_one().seq == len(got) + 1


def test_one_large_event_passes_a_small_window(broker, connect):
    broker.add_subscription()
    client = connect(broker)
    client.publish({"type": "t", "body": b"x" * 900000})
    client.subscribe(window=4, window_bytes=1000)
    assert len(client.take_one().body) == 900000


# -- settling --

def test_ack_ranges(broker, connect):
    broker.add_subscription()
    broker.publish_many(10)
    client = connect(broker)
    client.subscribe()
    items = client.take(10)
    chosen = [items[i] for i in (0, 1, 2, 5, 9)]
    settled = client.ack(chosen)
    assert settled.ok == [i.tag for i in chosen] and not settled.already and not settled.stale
    got = broker.subscription()
    assert (got["acked"], got["leased"], got["floor"]) == (5, 5, 4)
    settled = client.ack([items[0], items[3], items[9]])
    assert settled.ok == [items[3].tag]
    assert settled.already == [items[0].tag, items[9].tag]


def test_ack_without_confirmation(broker, connect):
    broker.add_subscription()
    broker.publish_many(3)
    client = connect(broker)
    client.subscribe()
    items = client.take(3)
    client.send(bhp.ACK, 0, 1, bhp.ranges_of([i.tag for i in items]), False)
    wait_for(lambda: broker.subscription()["acked"] == 3, what="the ack")
    client.send(bhp.ACK, 0, 1, [items[0].tag, items[0].tag])
    client.ping()
    assert not client.frames


def test_unknown_tags(broker, connect):
    broker.add_subscription()
    broker.publish_many(2)
    client = connect(broker)
    client.subscribe()
    one, two = client.take(2)
    beyond = two.tag + 1000
    error = client.error_of(bhp.ACK, 1, [one.tag, one.tag, beyond, beyond], True)
    assert (error.number, error.word, error.fatal) == (305, "unknown_tag", False)
    assert broker.subscription()["acked"] == 0  # nothing of that frame counted
    assert client.error_of(bhp.ACK, 7, [1, 1], True).number == 301
    assert client.ack([one, two]).ok == [one.tag, two.tag]


@pytest.mark.parametrize("ranges", [[5, 1], [1], [1, 2, 3], [0, 2**64 - 1]])
def test_ranges_that_cannot_be(broker, connect, ranges):
    broker.add_subscription()
    broker.publish_many(3)
    client = connect(broker)
    client.subscribe()
    client.take(3)
    frame = client.request(bhp.ACK, 1, ranges, True)
    assert frame[0] == bhp.ERR and frame[2] in (101, 305, 401), frame
    assert broker.subscription()["acked"] == 0


def test_too_many_ranges(broker, connect):
    broker.add_subscription()
    client = connect(broker)
    client.subscribe()
    frame = client.request(bhp.ACK, 1, [1, 1] * 1025, True)
    assert frame[0] == bhp.ERR and frame[2] in (101, 401, 404), frame


def test_nack_release(broker, connect):
    broker.add_subscription(max_fails=1)
    broker.publish()
    client = connect(broker)
    client.subscribe()
    for deliveries in range(1, 6):
        item = client.take_one()
        assert (item.fails, item.deliveries) == (0, deliveries)
        assert bool(item.flags & FLAG_AGAIN) == (deliveries > 1)
        assert client.nack([item], RELEASE).ok == [item.tag]
    assert broker.dead_letters() == []


def test_nack_fail_waits_for_the_backoff(broker, connect):
    broker.add_subscription(backoff={"min_ms": 300, "max_ms": 100000, "factor": 2})
    broker.publish()
    client = connect(broker)
    client.subscribe()
    item = client.take_one()
    for fails, at_least_s in ((1, 0.3), (2, 0.6)):
        before = time.monotonic()
        client.nack([item], FAIL, error="not yet")
        client.settle_down()
        got = broker.subscription()
        if not client.items:
            assert got["delayed"] == 1 and got["why_idle"] == "backoff"
        item = client.take_one()
        # Never before its time; how much later depends on the machine. 2 ms: both clocks cut off.
        assert item.at - before >= at_least_s - 0.002
        assert (item.fails, item.deliveries) == (fails, fails + 1)
        assert item.flags & FLAG_AGAIN


def test_backoff_has_a_maximum(broker, connect):
    broker.add_subscription(backoff={"min_ms": 50, "max_ms": 60, "factor": 100}, max_fails=0)
    broker.publish()
    client = connect(broker)
    client.subscribe()
    for _ in range(6):
        client.nack([client.take_one()], FAIL)
    assert client.take_one().fails == 6


def test_nack_with_a_delay_of_its_own(broker, connect):
    broker.add_subscription(backoff={"min_ms": 3600000, "max_ms": 3600000, "factor": 1})
    broker.publish()
    client = connect(broker)
    client.subscribe()
    before = time.monotonic()
    client.nack([client.take_one()], FAIL, delay_ms=250)
    item = client.take_one()
    assert item.at - before >= 0.248 and item.fails == 1
    client.nack([item], FAIL, delay_ms=0)
    item = client.take_one()
    assert item.fails == 2
    before = time.monotonic()
    client.nack([item], RELEASE, delay_ms=200)
    item = client.take_one()
    assert item.at - before >= 0.198 and item.fails == 2
    error = client.error_of(bhp.NACK, 1, [item.tag, item.tag], FAIL, 86400001, "", True)
    assert error.number == 401


def test_nack_values_that_cannot_be(broker, connect):
    broker.add_subscription()
    broker.publish()
    client = connect(broker)
    client.subscribe()
    tag = client.take_one().tag
    assert client.error_of(bhp.NACK, 1, [tag, tag], FAIL, None, "e" * 513, True)[:2] == (
        403, "too_large")
    frame = client.request(bhp.NACK, 1, [tag, tag], 4, None, "", True)
    assert frame[2:4] == [401, "invalid_request"]


def test_max_fails_leads_to_the_dead_letters(broker, connect):
    broker.add_subscription(max_fails=3, **FAST)
    broker.publish("t", id="x")
    client = connect(broker)
    client.subscribe()
    for i in range(3):
        client.nack([client.take_one()], FAIL, error=f"error {i}")
    dead = broker.dead_letters()
    assert len(dead) == 1
    assert (dead[0]["seq"], dead[0]["reason"], dead[0]["fails"], dead[0]["deliveries"],
            dead[0]["error"]) == (1, "max_fails", 3, 3, {"message": "error 2"})
    client.settle_down()
    assert not client.items
    got = broker.subscription()
    assert (got["floor"], got["dead"], got["delayed"]) == (2, 1, 0)
    assert broker.ok("GET", "/v1/status")["totals"]["dead"] == 1


def test_reject(broker, connect):
    broker.add_subscription()
    broker.publish()
    client = connect(broker)
    client.subscribe()
    item = client.take_one()
    client.nack([item], REJECT, error="never")
    assert broker.dead_letters()[0]["reason"] == "rejected"
    assert client.ack([item]).already == [item.tag]
    assert broker.subscription()["acked"] == 0


# -- publishing --

def test_publish_batches_and_duplicates(broker, connect):
    client = connect(broker)
    assert client.publish({"id": "a"}, {"id": "b"}, {}, {"id": "a"}) == ([1, 2, 3, 1], [3])
    assert client.publish({"id": "b"}, {"id": "c"}, {}) == ([2, 4, 5], [0])
    assert [e.get("id", "") for e in broker.events()] == ["a", "b", "", "c", ""]
    # Both doors of publishing know the same ids.
    assert broker.api("POST", "/v1/events", {"type": "t", "id": "c"})[1] == {
        "seq": 4, "duplicate": True}
    assert client.publish(*[{"type": "t"}] * 1024)[0] == list(range(6, 1030))


def test_publish_limits(broker, connect):
    client = connect(broker)
    row = ["t", "", "", "", "", 0, 0, b""]

    def refused(*rows):
        frame = client.request(bhp.PUBLISH, list(rows))
        assert frame[0] == bhp.ERR and not frame[6], frame
        assert frame[2] in (401, 403, 404), frame

    refused(["t" * 257] + row[1:])
    refused(row, row[:1] + ["s" * 1025] + row[2:])
    refused(row[:2] + ["i" * 257] + row[3:])
    refused(row[:3] + ["c" * 257] + row[4:])
    refused(row[:4] + ['{"k":"' + "v" * 20000 + '"}'] + row[5:])
    refused(row[:4] + ["not json"] + row[5:])
    refused(row[:4] + ["[]"] + row[5:])
    assert broker.events() == []
    assert client.publish({"type": "", "body": b"x" * (1 << 20)})[0] == [1]


def test_publish_pipelined(broker, connect):
    client = connect(broker)
    for rid in range(1000, 1100):
        client.send(bhp.PUBLISH, rid, [["t", "", "", "", "", 0, 0, b"x"]] * 3)
    seqs = [s for rid in range(1000, 1100) for s in client.answer(rid, bhp.PUBLISHED)[2]]
    assert seqs == list(range(1, 301))


def test_an_own_subscription_sees_what_was_published(broker, connect):
    """A worker that publishes what it also takes: no deadlock, nothing twice."""
    broker.add_subscription()
    client = connect(broker)
    client.subscribe(window=1)
    client.publish({"type": "0"})
    for n in range(1, 50):
        item = client.take_one()
        assert item.type == str(n - 1)
        client.publish({"type": str(n)})
        client.ack([item])
    assert broker.subscription()["floor"] == 50


# -- replay --

def test_replay_has_its_flag_and_leaves_the_position_alone(broker, connect):
    broker.publish_many(10)
    broker.add_subscription()
    client = connect(broker)
    client.subscribe()
    broker.publish("live")
    live = client.take_one()
    assert (live.seq, live.flags) == (11, 0)
    replay = client.request(bhp.REPLAY, "sub", {"from_seq": 2, "to_seq": 4}, want=bhp.OK)[2]
    again = client.take(3)
    assert [(i.seq, i.flags & FLAG_REPLAY) for i in again] == [(2, 1), (3, 1), (4, 1)]
    client.ack(again + [live])
    wait_for(lambda: broker.ok("GET", f"/v1/replays/{replay}")["state"] == "finished")
    got = broker.subscription()
    assert (got["floor"], got["next"], got["replays"]) == (12, 12, 0)
    error = client.error_of(bhp.REPLAY, "sub", {"from_seq": 100, "to_seq": 200})
    assert error.number == 304
    assert client.error_of(bhp.REPLAY, "nobody", {"from_seq": 1}).number == 301


def test_replay_of_one_event_that_is_out(broker, connect):
    """The live delivery and the replayed one are two deliveries with tags of their own."""
    broker.add_subscription()
    broker.publish()
    client = connect(broker)
    client.subscribe()
    live = client.take_one()
    client.request(bhp.REPLAY, "sub", {"from_seq": 1, "to_seq": 1}, want=bhp.OK)
    again = client.take_one()
    assert again.seq == 1 and again.tag != live.tag and again.flags & FLAG_REPLAY
    assert client.ack([again]).ok == [again.tag]
    assert broker.subscription()["floor"] == 1
    assert client.ack([live]).ok == [live.tag]
    assert broker.subscription()["floor"] == 2


def test_closed_connections_are_noticed(broker):
    with Client(broker.workers_port) as client:
        client.send(bhp.CLOSE, 0)
        with pytest.raises(Closed):
            client.expect(bhp.OK)
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["workers"] == 0)


@pytest.mark.parametrize("last", ["close", "half-close"])
def test_what_was_asked_before_the_end_is_answered(broker, connect, last):
    """A publisher that says goodbye in the same breath still learns what became of its events."""
    client = connect(broker)
    event = ["a.b", "", "", "", "", 0, 0, b"body"]
    burst = [bhp.encode(bhp.PUBLISH, 901, [event, event]),
             bhp.encode(bhp.SUBSCRIBE, 902, 5, "made", 10, 1000, {"create": "{}"})]
    if last == "close":
        burst.append(bhp.encode(bhp.CLOSE, 0))
    client.send_bytes(b"".join(burst))
    if last == "half-close":
        client.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(Closed):
        client.expect(bhp.GOAWAY)
    answered = {f[1]: f[0] for f in client.frames}
    assert answered == {901: bhp.PUBLISHED, 902: bhp.SUBSCRIBED}
    assert broker.ok("GET", "/v1/status")["journal"]["last_seq"] == 2


def test_replay_needs_a_beginning(broker, connect):
    broker.add_subscription()
    broker.publish("a.b")
    client = connect(broker)
    for bad in ({}, {"to_seq": 1}, {"from_seq": 1, "from_time_ms": 1}):
        assert client.error_of(bhp.REPLAY, "sub", bad).number == 401
    client.ping()
