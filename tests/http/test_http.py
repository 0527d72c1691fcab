"""The HTTP server, driven over raw sockets through http_echo."""

import json
import os
import re
import select
import signal
import socket
import ssl
import sys
import time
from pathlib import Path

import pytest

from corpus import BODY_MAX, CASES, get, post
from echo import PATIENCE_S, Reader, Server, crc32c

sys.path.append(str(Path(__file__).resolve().parents[1] / "e2e"))

from certificates import Authority  # noqa: E402

SHORT = 300  # longer requests are not split at every offset


@pytest.fixture(scope="module")
def server():
    s = Server("--body-max", BODY_MAX)
    yield s
    s.stop()


@pytest.fixture(scope="module")
def tls_flags(tmp_path_factory):
    """What a server that speaks TLS is started with, and who trusts it."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    cert, key = authority.server("server")
    context = ssl.create_default_context(cafile=str(authority.file))
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # an end without close_notify is an error
    return ("--tls-cert", cert, "--tls-key", key), context


@pytest.fixture(scope="module")
def tls_server(tls_flags):
    flags, trusting = tls_flags
    s = Server("--body-max", BODY_MAX, *flags, tls=trusting)
    yield s
    s.stop()


def start(request, *flags, **more):
    s = Server(*flags, **more)
    request.addfinalizer(s.stop)
    return s


def talk(server, pieces):
    """Sends the pieces and a last request that asks to close; the statuses of all answers, and
    whether the connection was closed before that last one was answered."""
    with server.connect() as s:
        reader = Reader(s)
        try:
            for piece in pieces:
                s.sendall(piece)
            s.sendall(b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed already: what it said is still to be read
        answers = []
        while (a := reader.answer()) is not None:
            answers.append(a)
    last = bool(answers) and answers[-1][0] == 200 and b'"path":"/last"' in answers[-1][2]
    if last:
        answers.pop()
    for status, headers, body in answers:
        if status >= 400:
            error = json.loads(body)["error"]
            assert set(error) == {"code", "message"} and error["message"]
            assert headers["connection"] == "close"
    return [a[0] for a in answers], not last, [a[2] for a in answers]


def check(server, pieces, statuses, closes):
    got, closed, bodies = talk(server, pieces)
    assert (got, closed) == (statuses, closes), bodies


IDS = [c[0] for c in CASES]
assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize("name,raw,statuses,closes", CASES, ids=IDS)
def test_whole(server, name, raw, statuses, closes):
    check(server, [raw], statuses, closes)


@pytest.mark.parametrize("name,raw,statuses,closes", CASES, ids=IDS)
def test_whole_over_tls(tls_server, name, raw, statuses, closes):
    check(tls_server, [raw], statuses, closes)


@pytest.mark.parametrize("name,raw,statuses,closes", CASES, ids=IDS)
def test_byte_by_byte(server, name, raw, statuses, closes):
    # The middle of a long one goes in one piece: its ends are where the rules are.
    if len(raw) > SHORT:
        head, middle, tail = raw[:100], raw[100:-100], raw[-100:]
    else:
        head, middle, tail = raw, b"", b""
    pieces = [bytes([b]) for b in head] + ([middle] if middle else []) + [bytes([b]) for b in tail]
    check(server, pieces, statuses, closes)


@pytest.mark.parametrize("name,raw,statuses,closes", CASES, ids=IDS)
def test_split_in_two(server, name, raw, statuses, closes):
    offsets = range(1, len(raw)) if len(raw) <= SHORT else [1, 100, len(raw) - 3, len(raw) - 1]
    reference = talk(server, [raw])
    assert reference[:2] == (statuses, closes)
    for at in offsets:
        assert talk(server, [raw[:at], raw[at:]]) == reference, at


@pytest.mark.parametrize("name,raw,statuses,closes", CASES, ids=IDS)
def test_pipelined_twice(server, name, raw, statuses, closes):
    check(server, [raw + raw], statuses if closes else statuses * 2, closes)


def echo(answer):
    assert answer[0] == 200
    return json.loads(answer[2])


def test_what_the_application_sees(server):
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(post(b"hello", b"Content-Length: 5", b"X-Test: \t v \t"))
        assert echo(reader.answer()) == {
            "method": "POST",
            "path": "/x",
            "query": "",
            "x": "v",
            "headers": 3,
            "body": 5,
            "crc": crc32c(b"hello"),
        }
        s.sendall(get(target=b"http://h:1/p?q=1&r"))
        seen = echo(reader.answer())
        assert (seen["path"], seen["query"]) == ("/p", "q=1&r")
        s.sendall(get(target=b"http://h?q"))
        seen = echo(reader.answer())
        assert (seen["path"], seen["query"]) == ("/", "q")
        body = b"5;x\r\nhello\r\n6\r\n world\r\n0\r\nX-Test: t\r\n\r\n"
        s.sendall(post(body, b"Transfer-Encoding: chunked"))
        seen = echo(reader.answer())
        assert (seen["body"], seen["crc"], seen["x"]) == (11, crc32c(b"hello world"), "")


def test_keep_alive(server):
    with server.connect() as s:
        reader = Reader(s)
        for i in range(200):
            s.sendall(get(target=b"/n%d" % i))
            assert echo(reader.answer())["path"] == f"/n{i}"


@pytest.mark.parametrize("path", [b"/x", b"/later"])
def test_pipelining_keeps_order(server, path):
    count = 500
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(b"".join(get(target=path + b"?%d" % i) for i in range(count)))
        for i in range(count):
            assert echo(reader.answer())["query"] == str(i)


def test_half_closed_client_gets_its_answers(server):
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(get(target=b"/later?1") + get(target=b"/later?2"))
        s.shutdown(socket.SHUT_WR)
        assert echo(reader.answer())["query"] == "1"
        assert echo(reader.answer())["query"] == "2"
        assert reader.answer() is None


@pytest.mark.parametrize("part", [get()[:-3], post(b"hel", b"Content-Length: 5")])
def test_half_a_request_is_no_request(server, part):
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(part)
        s.shutdown(socket.SHUT_WR)
        assert reader.answer() is None


def test_head_has_no_body(server):
    with server.connect() as s:
        reader = Reader(s)
        for _ in range(2):
            s.sendall(get().replace(b"GET", b"HEAD"))
            status, headers, _ = reader.answer(head_only=True)
            assert status == 200 and int(headers["content-length"]) > 0
        s.sendall(get())
        assert echo(reader.answer())["method"] == "GET"
        # An error that follows a HEAD has its body again.
        s.sendall(get().replace(b"GET", b"HEAD"))
        reader.answer(head_only=True)
        s.sendall(b"\n")
        assert json.loads(reader.answer()[2])["error"]["code"] == "bad_http"


def test_http_1_0_is_told_that_it_is_kept(server):
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(get(b"Connection: keep-alive", version=b"HTTP/1.0"))
        assert reader.answer()[1]["connection"] == "keep-alive"
        s.sendall(get(version=b"HTTP/1.0"))
        assert reader.answer()[1]["connection"] == "close"
        assert reader.answer() is None


def test_100_continue(server):
    head = post(b"", b"Content-Length: 5", b"Expect: 100-continue")
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(head)
        assert reader.answer()[0] == 100
        s.sendall(b"hello")
        assert echo(reader.answer())["body"] == 5
        # The body has begun to arrive: nobody waits for 100.
        s.sendall(head + b"hello")
        assert echo(reader.answer())["body"] == 5
        # Nothing to continue with.
        s.sendall(post(b"", b"Content-Length: 0", b"Expect: 100-continue"))
        assert echo(reader.answer())["body"] == 0
        s.sendall(post(b"", b"Transfer-Encoding: chunked", b"Expect: 100-Continue"))
        assert reader.answer()[0] == 100
        s.sendall(b"0\r\n\r\n")
        assert echo(reader.answer())["body"] == 0


@pytest.mark.parametrize(
    "head,status",
    [
        (post(b"", b"Content-Length: 5", b"Expect: 100-continue").replace(b"/x", b"/refuse"), 401),
        (post(b"", b"Content-Length: 99999", b"Expect: 100-continue"), 413),
    ],
)
def test_100_continue_refused(server, head, status):
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(head)
        assert reader.answer()[0] == status
        assert reader.answer() is None


def test_http_1_0_gets_no_100(server):
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(b"POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        s.sendall(b"ab")
        assert reader.answer()[0] == 200


def test_large_bodies(request):
    size = 16 * 1024 * 1024
    server = start(request, "--body-max", size)
    body = os.urandom(1 << 20) * 16
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(post(b"", b"Content-Length: %d" % size) + body)
        first = echo(reader.answer())
        assert first["body"] == size
        s.sendall(post(b"", b"Transfer-Encoding: chunked"))
        for at in range(0, size, 100000):
            piece = body[at : at + 100000]
            s.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
        s.sendall(b"0\r\n\r\n")
        second = echo(reader.answer())
        assert (second["body"], second["crc"]) == (size, first["crc"])


def test_the_answer_to_a_refused_upload_arrives(server):
    """The client is in the middle of sending: a reset would eat the answer."""
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(post(b"", b"Content-Length: 1000000"))
        s.sendall(b"x" * 500000)
        assert reader.answer()[0] == 413
        assert reader.answer() is None


def test_big_answers(server):
    with server.connect() as s:
        reader = Reader(s)
        for n in (0, 1, 65536, 30 * 1024 * 1024):
            s.sendall(get(target=b"/big?n=%d" % n))
            status, headers, body = reader.answer()
            assert (status, len(body), headers["x-big"]) == (200, n, "yes")
        s.sendall(b"".join(get(target=b"/big?n=3000000") for _ in range(20)))
        for _ in range(20):
            assert len(reader.answer()[2]) == 3000000
        s.sendall(get(b"Connection: close", target=b"/big?n=20000000"))
        assert len(reader.answer()[2]) == 20000000
        assert reader.answer() is None


def test_a_slow_head_is_refused(request):
    server = start(request, "--head-ms", 200)
    with server.connect() as idle, server.connect() as s:
        reader = Reader(s)
        # The deadline is absolute: a byte now and then does not move it.
        for b in get()[:-1]:
            if select.select([s], [], [], 0.02)[0]:
                break
            s.sendall(bytes([b]))
        else:
            pytest.fail("a head that drips was not refused")
        assert reader.answer()[0] == 408
        assert reader.answer() is None
        # A connection on which nothing was sent has the idle deadline instead.
        idle.sendall(get())
        assert Reader(idle).answer()[0] == 200


def test_a_slow_body_is_refused(request):
    server = start(request, "--grace-ms", 200, "--rate", 1000)
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(post(b"", b"Content-Length: 1000"))
        while not select.select([s], [], [], 0.02)[0]:
            s.sendall(b"x")
        assert reader.answer()[0] == 408
        assert reader.answer() is None


def test_a_body_at_the_minimum_rate_is_taken(request):
    server = start(request, "--grace-ms", 200, "--rate", 10000)
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(post(b"", b"Content-Length: 60000"))
        for _ in range(60):
            select.select([s], [], [], 0.01)  # about 100,000 bytes/s, three times the grace
            s.sendall(b"x" * 1000)
        assert echo(reader.answer())["body"] == 60000


def test_a_body_that_came_at_once_has_not_bought_an_hour(request):
    # At this rate the bytes that are there would pay for 3,999 seconds of silence.
    server = start(request, "--grace-ms", 100, "--idle-ms", 200, "--rate", 1)
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(post(b"x" * 3999, b"Content-Length: 4000"))
        assert reader.answer()[0] == 408
        assert reader.answer() is None


@pytest.mark.parametrize(
    "part",
    [
        b"1\r\na\r\n" * 20,  # data
        b"1;" + b"e" * 200,  # an extension
        b"0\r\nX-Trailer: " + b"t" * 200,  # trailers
        b"000000000000",  # a size
    ],
)
def test_a_chunked_body_that_drips_is_refused(request, part):
    server = start(request, "--grace-ms", 200, "--rate", 10000)
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(post(b"", b"Transfer-Encoding: chunked"))
        for b in part:
            if select.select([s], [], [], 0.02)[0]:
                break
            s.sendall(bytes([b]))
        assert reader.answer()[0] == 408
        assert reader.answer() is None


def test_a_head_that_follows_an_answer_has_its_own_deadline(request):
    server = start(request, "--head-ms", 200)
    with server.connect() as s:
        reader = Reader(s)
        s.sendall(get() + get()[:-2])
        assert reader.answer()[0] == 200
        assert reader.answer()[0] == 408
        assert reader.answer() is None


def test_idle_connections_are_closed(request):
    server = start(request, "--idle-ms", 100)
    with server.connect() as fresh, server.connect() as used:
        reader = Reader(used)
        used.sendall(get())
        assert reader.answer()[0] == 200
        assert reader.answer() is None
        assert Reader(fresh).answer() is None


def test_a_client_that_never_reads_is_closed(request):
    server = start(request, "--stall-ms", 400)
    with server.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(get(target=b"/big?n=60000000") + get() * 1000)
        # Others are served meanwhile.
        with server.connect() as other:
            other.sendall(get())
            assert Reader(other).answer()[0] == 200
        # It shows as an error of the socket: the bytes that wait are not even looked at.
        poll = select.poll()
        poll.register(s, 0)
        assert poll.poll(PATIENCE_S * 1000)


def test_answers_that_nobody_reads_do_not_pile_up(request):
    # A sanitizer would keep what was freed.
    server = start(request, env={"ASAN_OPTIONS": "quarantine_size_mb=1"})
    held = [server.connect() for _ in range(40)]
    for s in held:
        s.sendall(get(target=b"/big?n=1000000") * 100)
    # Each of these takes a turn, in which each of the others gets one answer if it may have one.
    with server.connect() as s:
        reader = Reader(s)
        for _ in range(100):
            s.sendall(get())
            assert reader.answer()[0] == 200
    with open(f"/proc/{server.process.pid}/status") as f:
        kib = int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1])
    assert kib < 200_000
    # They are served on as they read.
    reader = Reader(held[0])
    for _ in range(100):
        assert len(reader.answer()[2]) == 1000000
    for s in held:
        s.close()


def test_a_client_that_reads_too_slowly_is_closed(request):
    # Never a stall of 400 ms, but far below the rate.
    server = start(request, "--stall-ms", 400, "--write-rate", 100_000_000)
    with server.connect() as s:
        s.sendall(get(b"Connection: close", target=b"/big?n=60000000"))
        got = 0
        with pytest.raises(ConnectionResetError):
            while piece := s.recv(1 << 16):
                got += len(piece)
                select.select([], [], [], 0.02)
        assert 0 < got < 60000000


def test_a_client_that_reads_slowly_is_served(request):
    server = start(request, "--stall-ms", 400)
    with server.connect() as s:
        s.sendall(get(b"Connection: close", target=b"/big?n=20000000"))
        got, began = 0, time.monotonic()
        while piece := s.recv(1 << 19):
            got += len(piece)
            select.select([], [], [], 0.02)
        assert got > 20000000 and time.monotonic() - began > 0.4


def fill(server, count, part):
    """So many connections that were answered once and have sent a part of the next request."""
    made = [server.connect() for _ in range(count)]
    for s in made:
        s.sendall(get())
        assert Reader(s).answer()[0] == 200
        s.sendall(part)
    return made


def test_out_of_descriptors(request):
    """Accepting pauses, those inside are served, nothing spins, and it goes on when one leaves."""
    part, rest = get()[:10], get()[10:]
    server = start(request, "--head-ms", 60000, files=64)
    inside = fill(server, 48, part)  # 64 less a quarter
    outside = [server.connect() for _ in range(3)]
    for s in outside:
        s.sendall(get())
    assert not select.select(outside, [], [], 0.5)[0]
    before = server.cpu_s()
    inside[0].sendall(rest + part)
    assert Reader(inside[0]).answer()[0] == 200
    assert not select.select(outside, [], [], 0.5)[0]
    assert server.cpu_s() - before < 0.2
    for s in inside[:3]:
        s.close()
    for s in outside:
        assert Reader(s).answer()[0] == 200
        s.close()
    for s in inside[3:]:
        s.sendall(rest)
        assert Reader(s).answer()[0] == 200
        s.close()
    _, err = server.stop()
    assert err.count("no more connections are accepted") == 1


@pytest.mark.parametrize("tls", [False, True])
def test_idle_connections_make_room(request, tls_flags, tls):
    """When every place is taken, those that were idle longest go, one for each that comes; none that is in
    the middle of a request, and none that has just come. Over TLS they are told (close_notify)."""
    part, rest = get()[:10], get()[10:]
    flags, trusting = tls_flags if tls else ((), None)
    server = start(request, "--head-ms", 60000, *flags, files=64, tls=trusting)
    busy = fill(server, 8, part)
    idle = fill(server, 40, b"")
    came = fill(server, 25, b"")
    for s in idle[:25]:
        assert Reader(s).answer() is None
    for s in idle[25:] + came:
        s.sendall(get())
        assert Reader(s).answer()[0] == 200
    for s in busy:
        s.sendall(rest)
        assert Reader(s).answer()[0] == 200
    for s in busy + idle + came:
        s.close()
    _, err = server.stop()
    assert err.count("those that were idle longest are closed for new ones") == 1


def test_who_has_just_come_stays(request):
    """One place for three who come at once: none takes it from another who was not served yet."""
    part = get()[:10]
    server = start(request, "--head-ms", 60000, files=64)
    busy, idle = fill(server, 47, part), fill(server, 1, b"")
    came = [server.connect() for _ in range(3)]
    for s in came:
        s.sendall(get())
    for s in came:
        assert Reader(s).answer()[0] == 200
    for s in busy + idle + came:
        s.close()


def test_who_goes_idle_makes_room_too(request):
    """Nobody is idle when others come; then one is."""
    part, rest = get()[:10], get()[10:]
    server = start(request, "--head-ms", 60000, files=64)
    busy = fill(server, 48, part)
    with server.connect() as came:
        came.sendall(get())
        for s in busy:
            s.sendall(rest)
            assert Reader(s).answer()[0] == 200
        assert Reader(came).answer()[0] == 200
    assert Reader(busy[0]).answer() is None
    for s in busy:
        s.close()


def test_connections_of_one_address(request):
    server = start(request, "--per-ip", 3, "--loopback-counts", 1)
    began = time.monotonic()
    inside = [server.connect() for _ in range(3)]
    for s in inside:
        s.sendall(get())
        assert Reader(s).answer()[0] == 200
    for _ in range(20):
        with server.connect() as s:
            assert Reader(s).answer() is None  # closed at once, without a word
    # Others have their own count, and those inside are not touched.
    with server.connect("127.0.0.2") as s:
        s.sendall(get())
        assert Reader(s).answer()[0] == 200
    assert counts(server, "127.0.0.2")["refused"] == 20
    inside[0].sendall(get())
    assert Reader(inside[0]).answer()[0] == 200
    # One who leaves makes room.
    inside.pop().close()
    end = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < end
        with server.connect() as s:
            try:
                s.sendall(get())
            except ConnectionError:
                continue
            if Reader(s).answer() is not None:
                break
    for s in inside:
        s.close()
    _, err = server.stop()
    lines = err.count("connections already")
    assert 1 <= lines <= 2 + time.monotonic() - began, err
    assert "has 3 connections already" in err and "; 1 refused" in err


def test_loopback_has_no_cap_of_its_own(request):
    server = start(request, "--per-ip", 1)
    held = [server.connect() for _ in range(5)]
    for s in held:
        s.sendall(get())
        assert Reader(s).answer()[0] == 200
        s.close()


def counts(server, source="127.0.0.1"):
    with server.connect(source) as s:
        s.sendall(get(target=b"/counts"))
        return json.loads(Reader(s).answer()[2])


def wait_for(server, **wanted):
    end = time.monotonic() + PATIENCE_S
    while not wanted.items() <= counts(server).items():
        assert time.monotonic() < end, (counts(server), wanted)


def test_gone_clients_are_reported(request):
    server = start(request)
    with server.connect() as s:
        s.sendall(get(target=b"/never"))
        wait_for(server, waiting=1, gone=0)
        # The server finds bytes of a next request and the reset behind them at the same time.
        server.process.send_signal(signal.SIGSTOP)
        s.sendall(get())
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.process.send_signal(signal.SIGCONT)
    wait_for(server, waiting=0, gone=1)
    # One that is still waiting when the process ends is reported too: http_echo checks.
    s = server.connect()
    s.sendall(get(target=b"/never"))
    wait_for(server, waiting=1, gone=1)
    server.stop()
    s.close()


def test_drain(request):
    server = start(request)
    with server.connect() as idle, server.connect() as busy, server.connect() as partial:
        idle.sendall(get())
        assert Reader(idle).answer()[0] == 200
        partial.sendall(get()[:10])
        reader = Reader(busy)
        busy.sendall(get())
        assert reader.answer()[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert Reader(idle).answer() is None
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        # What had begun is finished, and then closed.
        partial.sendall(get()[10:])
        reader = Reader(partial)
        status, headers, _ = reader.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert reader.answer() is None
    assert server.process.wait(PATIENCE_S) == 0
    server.stop()
