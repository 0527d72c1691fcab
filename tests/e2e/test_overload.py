"""When memory for bodies, the store or the journal is used up: who is refused, when, and that it ends.
Also what /readyz says of it."""

import json
import signal

import pytest
from harness import make_secret, signed_headers, wait_for

SECRET = make_secret("o")
KIB = 1024


@pytest.fixture
def tight(brokers):
    """A broker that holds 512 KiB of bodies, of at most 256 KiB each: from 384 KiB on it is scarce."""
    broker = brokers("--max-body", "256k", "--max-body-memory", "512k", "--access-log", "none")
    broker.add_source("src", SECRET)
    return broker


def memory(broker):
    return broker.ok("GET", "/v1/status")["body_memory"]["bytes_used"]


def wait_memory(broker, used):
    wait_for(lambda: memory(broker) == used, what=f"{used} bytes of bodies, not {memory(broker)}")


def ready(broker):
    status, headers, body = broker.request("GET", "/readyz")
    assert ("Retry-After" in headers) == (status == 503)
    return status, json.loads(body)


def refused(answer, code="overloaded"):
    status, headers, body = answer
    assert status == 503 and json.loads(body)["error"]["code"] == code, answer
    assert int(headers["retry-after"]) >= 1 and headers["connection"] == "close"
    return json.loads(body)["error"]["message"]


class Half:
    """A webhook of which only the beginning has been sent. What it holds is a power of two."""

    def __init__(self, broker, sent, length=250 * KIB):
        self.raw = broker.raw_http()
        self.raw.send(b"POST /in/src HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length
                      + b"x" * sent)

    def more(self, count):
        self.raw.send(b"x" * count)


def post(broker, size):
    """An honest webhook of so many bytes: its status."""
    body = b'"' + b"x" * (size - 2) + b'"'
    return broker.post_signed("src", SECRET, body)[0]


def fill_to_scarce(broker):
    """448 of 512 KiB are held."""
    halves = [Half(broker, 200 * KIB), Half(broker, 100 * KIB), Half(broker, 60 * KIB)]
    wait_memory(broker, (256 + 128 + 64) * KIB)
    return halves


def close_all(broker, halves):
    for half in halves:
        half.raw.close()
    wait_memory(broker, 0)


# -- memory --

def test_large_ones_are_refused_by_their_head_and_small_ones_go_on(tight):
    halves = fill_to_scarce(tight)
    seq = tight.ok("GET", "/v1/status")["journal"]["last_seq"]
    for head in (b"Content-Length: %d" % (64 * KIB + 1), b"Transfer-Encoding: chunked",
                 b"Content-Length: 70000\r\nExpect: 100-continue"):
        with tight.raw_http() as raw:
            raw.send(b"POST /in/src HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n")
            message = refused(raw.response())  # and no 100 before it, nor a byte of the body
            assert "memory" in message and raw.at_end()
    for size in (2, 1000, 40 * KIB, 64 * KIB, 1000):
        assert post(tight, size) == 200, size
    # The API is no other door.
    status, _, body = tight.request("POST", "/v1/events", json.dumps(
        {"type": "t", "data": "x" * 70000}))
    assert status == 503 and b"overloaded" in body
    assert tight.publish() == seq + 6
    close_all(tight, halves)
    assert post(tight, 200 * KIB) == 200
    wait_memory(tight, 0)


def test_who_sends_a_large_body_meanwhile_can_read_the_answer(tight):
    halves = fill_to_scarce(tight)
    with tight.raw_http() as raw:  # a client that does not wait for 100
        raw.send(b"POST /in/src HTTP/1.1\r\nHost: localhost\r\nContent-Length: 250000\r\n\r\n")
        for _ in range(50):
            raw.send(b"x" * 5000)
        refused(raw.response())
    close_all(tight, halves)


def test_a_body_that_cannot_grow_is_refused_in_the_middle(tight):
    halves = fill_to_scarce(tight)
    halves[2].more(10 * KIB)  # 64 -> 128 KiB: all is taken
    wait_memory(tight, 512 * KIB)
    halves[1].more(30 * KIB)  # 128 -> 256 KiB
    refused(halves[1].raw.response())
    wait_memory(tight, 384 * KIB)
    assert post(tight, 1000) == 200
    # So is one that comes in chunks, which began when there was room.
    close_all(tight, halves)
    chunked = tight.raw_http()
    chunked.send(b"POST /in/src HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                 b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
    wait_memory(tight, 32 * KIB)
    halves = [Half(tight, 200 * KIB), Half(tight, 60 * KIB, 64 * KIB), Half(tight, 30 * KIB, 64 * KIB),
              Half(tight, 60 * KIB, 64 * KIB), Half(tight, 60 * KIB, 64 * KIB)]
    wait_memory(tight, 512 * KIB)
    chunked.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
    refused(chunked.response())
    assert chunked.at_end()
    chunked.close()
    close_all(tight, halves)


def test_what_was_only_announced_costs_nothing(tight):
    halves = [Half(tight, 0) for _ in range(50)] + [Half(tight, 100) for _ in range(50)]
    wait_memory(tight, 50 * 256)
    assert post(tight, 250 * KIB) == 200
    close_all(tight, halves)


def test_bodies_of_requests_that_wait_for_their_answer_count(tight):
    """A held request keeps what came behind it; what has no room ends with the connection."""
    with tight.raw_http() as raw:
        raw.send(b"GET /v1/events?from_seq=1&wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                 + b"POST /in/src HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12000\r\n\r\n"
                 + b"x" * 10000)
        wait_memory(tight, 16 * KIB)
        halves = [Half(tight, 200 * KIB), Half(tight, 100 * KIB), Half(tight, 60 * KIB, 64 * KIB),
                  Half(tight, 30 * KIB, 64 * KIB), Half(tight, 15 * KIB, 64 * KIB)]
        wait_memory(tight, 512 * KIB)
        with tight.raw_http() as late:
            late.send(b"GET /v1/events?from_seq=1&wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                      + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
            assert ready(tight)[0] == 503  # the broker has read the above by now
            with tight.raw_http() as other:
                other.send(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n"
                           b'{"type":"t"}')
                assert other.response()[0] == 503  # not even a small one: then something must go
            halves.pop().raw.close()
            wait_memory(tight, 496 * KIB)
            tight.publish()
            status, headers, _ = late.response()
            assert (status, headers["connection"]) == (200, "close") and late.at_end()
        status, headers, _ = raw.response()
        assert status == 200 and "connection" not in headers
    close_all(tight, halves)


def test_pipelined_requests_without_room_are_refused(tight):
    halves = fill_to_scarce(tight)
    halves[2].more(10 * KIB)
    wait_memory(tight, 512 * KIB)
    with tight.raw_http() as raw:
        raw.send(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                 b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.head()[0] == 200
        refused(raw.response())
        assert raw.at_end()
    close_all(tight, halves)


def test_the_budget_is_given_back_on_every_way_out(tight):
    for end in ("finish", "malformed", "close", "reset"):
        halves = [Half(tight, 50 * KIB, 60 * KIB) for _ in range(6)]
        wait_memory(tight, 6 * 64 * KIB)
        for half in halves:
            if end == "finish":
                half.more(10 * KIB)
                assert half.raw.response()[0] == 401
            elif end == "malformed":
                half.more(10 * KIB)
                half.raw.send(b"\x16\x03\x01 rubbish behind it\r\n\r\n")
            elif end == "reset":
                half.raw.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: a reset
        close_all(tight, halves)
    halves = [Half(tight, 50 * KIB) for _ in range(3)]
    wait_memory(tight, 3 * 64 * KIB)
    tight.stop()  # in the middle; the broker checks its sum


def test_a_budget_below_two_bodies_is_refused(brokers):
    broker = brokers("--max-body", "256k", "--max-body-memory", "511k", start=False)
    with pytest.raises(AssertionError) as error:
        broker.start()
    assert "max-body-memory: must be at least twice max-body: 524288 bytes" in str(error.value)
    broker.process = None  # it has ended, as it should


# -- the store and the journal --

def expect_refused_heads(broker, code, *words):
    """By its head alone, on both doors; no byte of a body is sent."""
    for path in (b"/in/src", b"/v1/events"):
        with broker.raw_http() as raw:
            raw.send(b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                     b"Expect: 100-continue\r\n\r\n")
            message = refused(raw.response(), code)
            assert all(word in message for word in words), message
            assert raw.at_end()


def test_a_blocked_journal_refuses_by_the_head(broker):
    broker.add_source("src", SECRET)
    broker.add_subscription("lazy")
    assert ready(broker) == (200, {"ready": True})
    for _ in range(50):
        broker.publish(data="x" * 1000)
    broker.ok("PATCH", "/v1/retention", {"max_bytes": 20000})
    wait_for(lambda: broker.ok("GET", "/v1/status")["blocked_by"] == "lazy", what="the block")
    expect_refused_heads(broker, "blocked", "lazy", "still needs its oldest events")
    assert ready(broker) == (503, {"ready": False, "reasons": ["blocked"]})  # names nobody
    source = broker.ok("GET", "/v1/sources/src")
    assert (source["refused"], source["accepted"]) == (1, 0)
    broker.ok("POST", "/v1/subscriptions/lazy:seek", {"to": "new"})
    wait_for(lambda: ready(broker)[0] == 200, what="the way being free")
    assert broker.post_signed("src", SECRET, {})[0] == 200


def test_a_full_store_refuses_by_the_head(brokers):
    broker = brokers("--max-store", "128m")
    broker.add_source("src", SECRET)
    for _ in range(1000):
        status, _, _ = broker.request("POST", "/v1/events",
                                      json.dumps({"type": "t", "data": "x" * 1_000_000}))
        if status == 503:
            break
    expect_refused_heads(broker, "no_room", "store is nearly full")
    assert ready(broker) == (503, {"ready": False, "reasons": ["no_room"]})
    assert broker.request("GET", "/healthz")[0] == 200
    assert broker.ok("GET", "/v1/sources/src")["refused"] == 1


# -- readyz --

def test_readyz_says_memory(tight):
    assert ready(tight) == (200, {"ready": True})
    halves = fill_to_scarce(tight)
    assert ready(tight) == (503, {"ready": False, "reasons": ["memory"]})
    assert tight.request("GET", "/healthz")[0] == 200
    close_all(tight, halves)
    assert ready(tight) == (200, {"ready": True})


def test_readyz_says_draining_to_who_is_connected(brokers):
    broker = brokers("--drain-ms", "20000")
    with broker.raw_http() as raw:
        raw.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n")
        # The broker has read it when a later connection is answered.
        assert ready(broker)[0] == 200
        broker.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "signal 15" in broker.log(), what="the signal")
        raw.send(b"\r\n")
        status, headers, body = raw.response()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert json.loads(body) == {"ready": False, "reasons": ["draining"]}
    broker.wait_exit()


def test_readyz_needs_no_key_and_takes_no_query(broker):
    broker.key = broker.ok("POST", "/v1/keys", {"name": "ops", "scopes": ["admin"]})["key"]
    for path in ("/readyz", "/healthz"):
        key, broker.key = broker.key, None
        assert broker.request("GET", path)[0] == 200
        assert broker.request("HEAD", path)[0] == 200
        status, answer = broker.api("GET", path + "?verbose=1")
        assert (status, answer["error"]["code"]) == (400, "parameter_unknown")
        status, headers, _ = broker.request("POST", path)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        broker.key = key


# -- the rate of a source --

def rate_source(broker, **options):
    return broker.ok("POST", "/v1/sources", {"name": "src", "secrets": [SECRET], "options": options})


def head_only(broker, headers=b""):
    """Only a head: what is answered before the body comes."""
    with broker.raw_http() as raw:
        raw.send(b"POST /in/src HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                 b"Expect: 100-continue\r\n" + headers + b"\r\n")
        return raw.response()


def test_more_than_the_rate_is_refused_before_the_body(broker):
    rate_source(broker, rate_per_s=1, rate_burst=3)
    # Nobody uses it up but who signs.
    for _ in range(10):
        assert broker.post_signed("src", make_secret("forged"), {})[0] == 401
    body = b"{}"
    first = signed_headers(SECRET, body, id="first")
    # A repeat counts as well.
    answers = [broker.request("POST", "/in/src", body, first)[0] for _ in range(3)]
    assert answers == [200] * 3
    status, headers, text = head_only(broker)
    error = json.loads(text)["error"]
    assert (status, error["code"], headers["connection"]) == (429, "rate_limited", "close")
    assert "1 webhooks a second" in error["message"]
    # What it says is when the next one is there: not before, and then at once.
    assert headers["retry-after"] == "1"
    status = wait_for(lambda: head_only(broker)[0] == 100, what="the next one")
    assert broker.post_signed("src", SECRET, {})[0] == 200
    shown = broker.ok("GET", "/v1/sources/src")
    assert shown["options"] == {"rate_per_s": 1, "rate_burst": 3}
    assert (shown["accepted"], shown["duplicates"]) == (2, 2)
    assert shown["refused"] >= 11  # 10 forged, and those that came too soon


def test_what_was_sent_before_the_head_was_looked_at_counts(broker):
    """Heads that have passed do not make tokens: of three bodies only one is taken."""
    rate_source(broker, rate_per_s=1)
    body = b"{}"
    raws = [broker.raw_http() for _ in range(3)]
    for i, raw in enumerate(raws):
        head = "".join(f"{n}: {v}\r\n" for n, v in signed_headers(SECRET, body, id=f"m{i}").items())
        raw.send(b"POST /in/src HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
                 b"Expect: 100-continue\r\n" + head.encode() + b"\r\n")
        assert raw.head()[0] == 100
    for raw in raws:
        raw.send(body)
    got = sorted(raw.response()[0] for raw in raws)
    assert got == [200, 429, 429]
    for raw in raws:
        raw.close()


def test_a_change_of_the_source_gives_no_new_tokens(broker):
    rate_source(broker, rate_per_s=1, rate_burst=60)
    for _ in range(60):
        assert broker.post_signed("src", SECRET, {})[0] == 200
    used = wait_for(lambda: head_only(broker)[0] == 429, what="the end of the burst")
    broker.ok("PATCH", "/v1/sources/src", {"options": {"tolerance_s": 100}}, status=(200,))
    wait_for(lambda: head_only(broker)[0] == 429, what="still no more")
    broker.ok("PATCH", "/v1/sources/src", {"options": {"rate_burst": 0}}, status=(200,))
    # 60 at once are a minute of this rate, but nobody waits for more than the next one.
    status, headers, _ = head_only(broker)
    assert used and (status, headers["retry-after"]) == (429, "1")
    broker.ok("PATCH", "/v1/sources/src", {"options": {"rate_per_s": 0}}, status=(200,))
    assert broker.post_signed("src", SECRET, {})[0] == 200
    assert "rate_per_s" not in broker.ok("GET", "/v1/sources/src")["options"]


def test_rates_that_cannot_be(broker):
    for options, word in (({"rate_per_s": 1_000_001}, "rate_per_s"), ({"rate_per_s": -1}, "rate_per_s"),
                          ({"rate_burst": 5}, "goes with"), ({"rate_per_s": "5"}, "rate_per_s"),
                          ({"rate_per_s": 5, "rate_burst": 1_000_001}, "rate_burst")):
        status, answer = broker.api("POST", "/v1/sources", {"name": "x", "options": options})
        assert (status, answer["error"]["code"]) == (400, "invalid_request"), answer
        assert word in answer["error"]["message"]


def test_the_rate_from_the_command_line_and_in_the_handshake(broker):
    done = broker.run_cli("source", "add", "src", "--scheme", "none", "--set", "rate_per_s=5",
                          "--set", "rate_burst=9")
    assert done.returncode == 0, done.stderr
    assert broker.ok("GET", "/v1/sources/src")["options"] == {"rate_per_s": 5, "rate_burst": 9}
    for asked, said in (("1000", "300"), ("60", "60"), (None, "300")):
        headers = {"WebHook-Request-Origin": "a.example"}
        if asked is not None:
            headers["WebHook-Request-Rate"] = asked
        status, got, _ = broker.request("OPTIONS", "/in/src", headers=headers)
        assert (status, got["WebHook-Allowed-Rate"]) == (200, said)
