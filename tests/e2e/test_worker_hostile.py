"""What a broken or hostile peer may send to the worker port: the broker answers or closes, lives on,
and serves the others. The fixture reads its log for sanitizer reports afterwards."""

import copy
import itertools
import os
import random
import socket
import struct

import bhp
import msgpack
import pytest
from harness import wait_for

SEED = int(os.environ.get("BELLHOP_TEST_SEED", "20261121"))
MUTATIONS = int(os.environ.get("BELLHOP_TEST_MUTATIONS", "200"))

CREATE = {"filter": {"types": ["a.*"], "sources": ["s"]}, "lease_ms": 5000, "max_fails": 3,
          "backoff": {"min_ms": 5, "max_ms": 50, "factor": 1.5}, "start": {"time_ms": 1}}
EVENT = ["a.b", "subject", "id-1", "text/plain", '{"k":1}', 1700000000000, 0, b"body"]
HELLO_FIELDS = {"min": 1, "max": 1, "name": "t", "version": "0", "heartbeat_ms": 5000,
                "features": ["x"]}
# One of each frame that a client may send, in an order that makes sense.
CONVERSATION = [
    [bhp.HELLO, 1, HELLO_FIELDS],
    [bhp.AUTH, 2, "none", "key", b"proof"],
    [bhp.SUBSCRIBE, 3, 1, "made", 10, 100000, 
     {"concurrency": 2, "lease_ms": 4000, "create": bhp.json_text(CREATE), "claims": [1, 1, 0]}],
    [bhp.PUBLISH, 4, [EVENT, EVENT[:2] + [""] + EVENT[3:]]],
    [bhp.WINDOW, 5, 1, 20, 200000],
    [bhp.ACK, 6, 1, [1, 1], True],
    [bhp.NACK, 7, 1, [2, 2], 1, None, "error", True],
    [bhp.EXTEND, 8, 1, [1, 2], 1000, True],
    [bhp.REPLAY, 9, "made", {"from_seq": 1, "to_seq": 1, "from_time_ms": 0, "to_time_ms": 0}],
    [bhp.REDRIVE, 13, "made", {"seq": 1, "filter": '{"types":["a.*"]}', "rate": 10}],
    [bhp.STATE, 14, 1, True],
    [bhp.PING, 10],
    [bhp.PONG, 0],
    [bhp.UNSUBSCRIBE, 11, 1],
    [bhp.DRAIN, 12],
    [bhp.CLOSE, 0],
]


def still_serves(broker, connect):
    """A healthy client publishes, takes and acks one event."""
    assert broker.alive(), broker.log_tail()
    with bhp.Client(broker.workers_port) as client:
        client.subscribe("health", create={"filter": {"types": ["health"]}})
        seq = client.publish({"type": "health"})[0][0]
        item = client.take_one()
        assert item.seq == seq
        assert client.ack([item]).ok == [item.tag]
        client.send(bhp.CLOSE, 0)


def everyone_has_gone(broker):
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["workers"] == 0,
             what="the end of all connections")


def speak(broker, data, hello=True, whole=False):
    """Sends raw bytes after a good (or no) handshake, then our end, and reads to the broker's end.
    Returns the frames that came. With whole frames two pings come first, so that the broker has the
    time to answer them before it sees our end."""
    client = bhp.Client(broker.workers_port, hello=hello, greeting=bhp.GREETING if hello else None)
    try:
        client.send_bytes(data)
        if whole:
            client.rids = itertools.count(3000000000)  # not among those of the data
            try:
                client.settle_down()
            except (bhp.Closed, ConnectionError):
                return list(client.frames)
        try:
            client.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        client.answer_pings = False
        client.wait_closed()
        return list(client.frames)
    finally:
        client.close()


def fatal_error_of(frames):
    errors = [bhp.Client.as_err(f) for f in frames if f[0] == bhp.ERR]
    assert errors, frames
    return errors[-1]


def test_the_conversation_itself_is_valid(broker, connect):
    stream = b"".join(bhp.encode(*f) for f in CONVERSATION[:-1])
    frames = speak(broker, bhp.GREETING + stream, hello=False, whole=True)
    answered = {f[1]: f[0] for f in frames}
    assert answered[1] == bhp.WELCOME and answered[11] == bhp.OK
    assert answered[4] == bhp.PUBLISHED and answered[10] == bhp.PONG
    assert bhp.DRAINED in answered.values()
    still_serves(broker, connect)


def test_a_conversation_cut_at_every_byte(broker, connect):
    stream = bhp.GREETING + b"".join(bhp.encode(*f) for f in CONVERSATION)
    for cut in range(len(stream)):
        speak(broker, stream[:cut], hello=False)
        assert broker.alive(), f"cut at {cut}"
    everyone_has_gone(broker)
    still_serves(broker, connect)


def test_frames_cut_at_every_byte_with_a_right_length(broker, connect):
    """The length is that of the rest, so the msgpack inside ends too early."""
    for frame in CONVERSATION[1:]:
        body = msgpack.packb(frame, use_bin_type=True)
        for cut in range(len(body)):
            frames = speak(broker, struct.pack(">I", cut) + body[:cut])
            error = fatal_error_of(frames)
            assert (error.number, error.fatal) == (101, True), (frame, cut, error)
    still_serves(broker, connect)


WRONG = [None, True, -1, 2**32, 2**64 - 1, 1.5, "text", b"bytes", "", [], [[]], {}, {"a": 1}, [1, 2],
         [None], "x" * 3000, msgpack.ExtType(5, b"ext")]


@pytest.mark.parametrize("frame", CONVERSATION, ids=lambda f: f"op{f[0]}")
def test_wrong_types_in_each_field(broker, connect, frame):
    for place in range(len(frame)):
        for wrong in WRONG:
            changed = list(frame)
            changed[place] = wrong
            hello = frame[0] != bhp.HELLO
            start = b"" if hello else bhp.GREETING
            speak(broker, start + bhp.encode(*changed), hello, whole=True)
    assert broker.alive()
    still_serves(broker, connect)


@pytest.mark.parametrize("frame,path", [
    (CONVERSATION[2], (6,)), (CONVERSATION[2], (6, "claims")), (CONVERSATION[3], (2, 0)),
    (CONVERSATION[8], (3,)), (CONVERSATION[9], (3,)), (CONVERSATION[0], (2,)),
], ids=lambda v: "-".join(map(str, v)) if isinstance(v, tuple) else f"op{v[0]}")
def test_wrong_types_inside(broker, connect, frame, path):
    for wrong in WRONG:
        target = copy.deepcopy(frame)
        for step in path:
            target = target[step]
        keys = list(target) if isinstance(target, dict) else range(len(target))
        for key in keys:
            changed = copy.deepcopy(frame)
            inner = changed
            for step in path:
                inner = inner[step]
            inner[key] = wrong
            hello = frame[0] != bhp.HELLO
            speak(broker, (b"" if hello else bhp.GREETING) + bhp.encode(*changed), hello, whole=True)
    still_serves(broker, connect)


def test_wrong_policies_are_refused_and_not_fatal(broker, connect):
    client = connect(broker)
    wrong = (None, True, -1, 2**64, 1.5, 1e999, "text", [], {}, [None], {"a": 1}, "x" * 3000)
    texts = [bhp.json_text({**CREATE, key: value}) for key in CREATE for value in wrong]
    texts += ["", "{", "[]", "5", "nul", "{}x", '{"start":}', "[" * 30000, b"\xff\xfe", b"{\x00}"]
    for create in texts:
        answer = client.request(bhp.SUBSCRIBE, 1, "made", 1, 1, {"create": create})
        if answer[0] == bhp.SUBSCRIBED:
            client.request(bhp.UNSUBSCRIBE, 1, want=bhp.OK)
        else:
            assert answer[0] == bhp.ERR and not client.as_err(answer).fatal, (create, answer)
    still_serves(broker, connect)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, (1 << 20) + (64 << 10) + 1])
def test_length_too_big(broker, connect, length):
    error = fatal_error_of(speak(broker, struct.pack(">I", length) + b"x" * 100))
    assert (error.number, error.word, error.fatal) == (102, "frame_too_big", True)
    # Before WELCOME 4 KiB is the limit, and no memory is spent on a promise.
    frames = speak(broker, bhp.GREETING + struct.pack(">I", 4097) + b"x" * 4097, hello=False)
    assert fatal_error_of(frames).number == 102
    still_serves(broker, connect)


def test_claimed_lengths_cost_no_memory(broker, connect):
    """Promises of large frames, arrays and strings that never come."""
    clients = [bhp.Client(broker.workers_port) for _ in range(40)]
    try:
        for client in clients:
            client.send_bytes(struct.pack(">I", 1 << 20) + b"\xdd\xff\xff\xff\xff")
        for claim in (b"\x94\x09\x01\xdd\xff\xff\xff\xff", b"\x94\x09\x01\xdf\xff\xff\xff\xff",
                      b"\x93\x09\x01\x91\x97\xdb\xff\xff\xff\xff", b"\xdd\x00\x0f\xff\xff" + b"\x01" * 50,
                      b"\x95\x05\x01\x01\xdd\x7f\xff\xff\xff\xc3"):
            error = fatal_error_of(speak(broker, struct.pack(">I", len(claim)) + claim))
            assert error.number == 101, claim
        still_serves(broker, connect)
        rss_kib = int(next(line for line in open(f"/proc/{broker.process.pid}/status")
                           if line.startswith("VmRSS")).split()[1])
        if "sanitize" not in os.environ.get("BELLHOP_BUILD", ""):
            assert rss_kib < 100 * 1024, rss_kib
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01", b"\xdd\x00\x00\x00\x01", b"\xdc\x00\x01"])
def test_deep_nesting(broker, connect, opening):
    for depth in (9, 100, 1000, 100000):
        body = b"\x93\x09\x01" + opening * depth + b"\x01"
        error = fatal_error_of(speak(broker, struct.pack(">I", len(body)) + body))
        assert (error.number, error.fatal) == (101, True)
    # Also before the handshake, and also in a field that nobody knows.
    body = b"\x94\x01\x01\x80" + opening * 1000 + b"\x01"
    speak(broker, bhp.GREETING + struct.pack(">I", len(body)) + body, hello=False)
    still_serves(broker, connect)


@pytest.mark.parametrize("body", [
    b"", b"\xc1", b"\x90", b"\x91\x01", b"\x80", b"\x01", b"\xa3abc", b"\x92\x0d\xff",
    b"\x92\x0d\x01\x00", b"\x92\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x92\x0d\xcf\x00\x00\x00\x01\x00\x00\x00\x00", b"\xc7\x05\x01abcde", b"\xdc\x00\x00",
], ids=repr)
def test_not_a_frame(broker, connect, body):
    frames = speak(broker, struct.pack(">I", len(body)) + body, whole=True)
    error = fatal_error_of(frames)
    assert error.number in (101, 103), error
    still_serves(broker, connect)


@pytest.mark.parametrize("greeting", [
    b"BHP2", b"bhp1", b"\x00\x00\x00\x05", b"SSH-2.0-OpenSSH\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
    b"\xff" * 4096, b"B", b"BHP", b"",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"type\":\"t\"}",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
], ids=lambda g: repr(g[:12]))
def test_wrong_greetings(broker, connect, greeting):
    frames = speak(broker, greeting, hello=False)
    if len(greeting) >= 4:
        error = fatal_error_of(frames)
        assert (error.number, error.word, error.fatal) == (104, "bad_version", True)
    everyone_has_gone(broker)
    still_serves(broker, connect)


def test_frames_of_the_broker_sent_by_a_client(broker, connect):
    for op in (64, 65, 66, 67, 68, 69, 71, 73, 74, 77, 78):
        frames = speak(broker, bhp.encode(op, 5, 1, [1, 1], [], "text"))
        error = fatal_error_of(frames)
        assert error.number in (101, 103), (op, error)
    still_serves(broker, connect)


def test_a_peer_that_never_reads(broker, connect):
    """Deliveries that nobody takes from the socket stay bounded in the broker's memory."""
    broker.add_subscription()
    lazy = bhp.Client(broker.workers_port)
    try:
        lazy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.subscribe(window=16384, window_bytes=64 << 20)
        with bhp.Client(broker.workers_port) as producer:
            for _ in range(64):
                producer.publish(*[{"type": "t", "body": b"x" * 100000}] * 8)
        still_serves(broker, connect)
        rss_kib = int(next(line for line in open(f"/proc/{broker.process.pid}/status")
                           if line.startswith("RssAnon")).split()[1])
        if "sanitize" not in os.environ.get("BELLHOP_BUILD", ""):
            assert rss_kib < 64 * 1024, rss_kib
    finally:
        lazy.close()


def test_pings_without_end(broker, connect):
    """A peer that asks and never reads the answers is stopped from asking, or closed."""
    lazy = bhp.Client(broker.workers_port)
    lazy.socket.setblocking(False)
    data = bhp.encode(bhp.PING, 1) * 10000
    sent = 0
    try:
        for _ in range(600):
            try:
                sent += lazy.socket.send(data)
            except BlockingIOError:
                break
            except (BrokenPipeError, ConnectionResetError):
                break
        still_serves(broker, connect)
    finally:
        lazy.close()


def test_random_mutations(broker, connect):
    """Seeded: BELLHOP_TEST_SEED and BELLHOP_TEST_MUTATIONS choose others."""
    random_source = random.Random(SEED)
    stream = bhp.GREETING + b"".join(bhp.encode(*f) for f in CONVERSATION)
    for round_number in range(MUTATIONS):
        data = bytearray(stream)
        for _ in range(random_source.randint(1, 6)):
            place = random_source.randrange(4, len(data))
            kind = random_source.randrange(5)
            if kind == 0:
                data[place] ^= 1 << random_source.randrange(8)
            elif kind == 1:
                data[place] = random_source.randrange(256)
            elif kind == 2:
                del data[place:place + random_source.randint(1, 20)]
            elif kind == 3:
                data[place:place] = random_source.randbytes(random_source.randint(1, 20))
            else:
                end = min(len(data), place + random_source.randint(1, 60))
                data[place:place] = data[place:end]
            if len(data) < 10:
                break
        speak(broker, bytes(data), hello=False)
        assert broker.alive(), f"seed {SEED}, mutation {round_number}: {bytes(data)!r}"
    everyone_has_gone(broker)
    still_serves(broker, connect)
