"""Malformed and hostile HTTP against the whole broker. The full corpus for the HTTP layer is in
tests/http; here is what must hold with the rooms behind it."""

import json

import pytest
from harness import make_secret, signed_headers

SECRET = make_secret()
HOST = b"Host: x\r\n"


@pytest.fixture
def door(broker):
    broker.add_source("src", SECRET)
    return broker


def exchange(broker, data):
    """Sends everything, then our end; the list of the answers' statuses until the broker closes."""
    with broker.raw_http() as raw:
        raw.send(data)
        raw.end_sending()
        statuses = []
        while True:
            answer = raw.response()
            if answer is None:
                return statuses
            status, headers, body = answer
            statuses.append(status)
            if status >= 400:
                error = json.loads(body)["error"]
                assert error["code"] and error["message"]


def post(path=b"/in/src", extra=b"", body=b"", length=True, version=b"HTTP/1.1", host=HOST):
    size = b"Content-Length: %d\r\n" % len(body) if length else b""
    return b"POST " + path + b" " + version + b"\r\n" + host + size + extra + b"\r\n" + body


# What is refused with 4xx or 5xx, after which nothing more of that connection is believed.
REFUSED = {
    "bare LF lines": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "bare LF after a header": b"GET /healthz HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "bare CR in a value": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n",
    "LF ends the head": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\n",
    "NUL in a value": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "control byte in a name": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA\x01: b\r\n\r\n",
    "space before the colon": b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
    "empty header name": b"GET /healthz HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
    "folded header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",
    "lower case version": b"GET /healthz http/1.1\r\nHost: x\r\n\r\n",
    "two blanks": b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab for a blank": b"GET\t/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "RTSP": b"OPTIONS /healthz RTSP/1.0\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "worker greeting": b"BHP1\x00\x00\x00\x05\x93\x01\x01\x80\x00",
    "unknown method": b"BREW /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "CL and TE": post(extra=b"Transfer-Encoding: chunked\r\n", body=b"0\r\n\r\n"),
    "two lengths": post(extra=b"Content-Length: 5\r\n", body=b"1234"),
    "length with plus": post(extra=b"Content-Length: +4\r\n", body=b"1234", length=False),
    "length minus": post(extra=b"Content-Length: -4\r\n", body=b"1234", length=False),
    "length list": post(extra=b"Content-Length: 4, 4\r\n", body=b"1234", length=False),
    "length hex": post(extra=b"Content-Length: 0x4\r\n", body=b"1234", length=False),
    "length empty": post(extra=b"Content-Length:\r\n", body=b"1234", length=False),
    "length overflow": post(extra=b"Content-Length: 18446744073709551620\r\n", length=False),
    "TE gzip": post(extra=b"Transfer-Encoding: gzip, chunked\r\n", body=b"0\r\n\r\n", length=False),
    "TE identity": post(extra=b"Transfer-Encoding: identity\r\n", length=False),
    "TE twice": post(extra=b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                     body=b"0\r\n\r\n", length=False),
    "TE on 1.0": post(extra=b"Transfer-Encoding: chunked\r\n", body=b"0\r\n\r\n", length=False,
                      version=b"HTTP/1.0"),
    "TE xchunked": post(extra=b"Transfer-Encoding: xchunked\r\n", body=b"0\r\n\r\n", length=False),
    "chunk size of nothing": post(extra=b"Transfer-Encoding: chunked\r\n", body=b"\r\n\r\n",
                                  length=False),
    "chunk size too big": post(extra=b"Transfer-Encoding: chunked\r\n",
                               body=b"fffffffffffffffff\r\nx", length=False),
    "chunk with LF": post(extra=b"Transfer-Encoding: chunked\r\n", body=b"1\nx\n0\n\n", length=False),
    "chunk too long": post(extra=b"Transfer-Encoding: chunked\r\n", body=b"1\r\nxyz\r\n0\r\n\r\n",
                           length=False),
    "fragment": b"GET /healthz#a HTTP/1.1\r\nHost: x\r\n\r\n",
    "8-bit target": b"GET /h\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "long target": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "endless header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40000,
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_refused(door, what):
    # A second request behind it must never be believed: that is how smuggling works.
    smuggled = (b"DELETE /v1/sources/src HTTP/1.1\r\nHost: localhost\r\n\r\n")
    statuses = exchange(door, REFUSED[what] + smuggled)
    assert len(statuses) <= 1, statuses
    assert not statuses or 400 <= statuses[0] < 600
    assert door.api("GET", "/v1/sources/src")[0] == 200
    assert door.events() == []


def test_refused_answers_and_does_not_just_close(door):
    # (The worker greeting has no line end: it could still become a request.)
    silent = [w for w in REFUSED if w != "worker greeting" and not exchange(door, REFUSED[w])]
    assert not silent


def test_a_body_that_stops_short_is_no_event(door):
    body = b'{"type":"t"}'
    headers = "".join(f"{k}: {v}\r\n" for k, v in signed_headers(SECRET, body).items()).encode()
    whole = post(extra=headers, body=body)
    for cut in range(len(whole)):
        assert 200 not in exchange(door, whole[:cut]), cut
    assert door.events() == []
    assert exchange(door, whole) == [200]
    assert len(door.events()) == 1


def test_a_chunked_body_without_its_end_is_no_event(door):
    body = b'{"type":"t"}'
    headers = "".join(f"{k}: {v}\r\n" for k, v in signed_headers(SECRET, body).items()).encode()
    whole = post(extra=headers + b"Transfer-Encoding: chunked\r\n", length=False,
                 body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    for cut in range(len(whole) - 20, len(whole)):
        assert 200 not in exchange(door, whole[:cut]), cut
    assert door.events() == []
    assert exchange(door, whole) == [200]


def test_connections_that_do_nothing(door):
    held = [door.raw_http() for _ in range(200)]
    try:
        for i, raw in enumerate(held):
            raw.send(b"POST /in/src HTTP/1.1\r\nHost: x\r\nContent-Le"[:i % 40])
        assert door.post_signed("src", SECRET, b'{"type":"t"}')[0] == 200
    finally:
        for raw in held:
            raw.close()
    assert door.api("GET", "/healthz")[0] == 200


@pytest.mark.waits
def test_a_slow_head_is_ended(door):
    """The head has 5 s in all, however steadily it drips."""
    with door.raw_http() as raw:
        raw.send(b"GET /healthz HTTP/1.1\r\n")
        answer = raw.response()
        assert answer is None or answer[0] == 408
        assert raw.at_end()


def test_reset_in_the_middle(door):
    import socket
    import struct
    for cut in (1, 10, 50, 100):
        raw = door.raw_http()
        raw.send(post(body=b"x" * 200)[:cut])
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
    assert door.api("GET", "/healthz")[0] == 200


def test_a_client_that_leaves_before_its_answer(door):
    for i in range(50):
        body = b'{"type":"t%d"}' % i
        headers = "".join(f"{k}: {v}\r\n" for k, v in signed_headers(SECRET, body).items()).encode()
        raw = door.raw_http()
        raw.send(post(extra=headers, body=body))
        raw.close()
    assert door.post_signed("src", SECRET, b'{"type":"last"}')[0] == 200


def test_http_1_0_and_head(door):
    assert exchange(door, b"GET /healthz HTTP/1.0\r\n\r\n") == [200]
    with door.raw_http() as raw:
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert raw.response()[0] == 200
        assert raw.at_end()


def test_many_pipelined_requests(door):
    count = 300
    statuses = exchange(door, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * count)
    assert statuses == [200] * count


def test_pipelining_without_reading_is_bounded(door):
    raw = door.raw_http()
    raw.socket.setblocking(False)
    data = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
    try:
        for _ in range(500):
            try:
                raw.socket.send(data)
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                break
        assert door.api("GET", "/healthz")[0] == 200
    finally:
        raw.close()
