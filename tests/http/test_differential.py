"""The same bytes read by others: nginx and haproxy as reverse proxies, Bellhop behind them.

    client -> nginx or haproxy -> tap, which records -> http_echo
    client -> http_echo

Requests are smuggled where two readers disagree about where one ends. Every stream of the corpus,
and mutations of it, goes both ways, and must keep two properties:

Behind. A proxy adds a header of its own (a secret word, the client's port, the method and the target
as it understood them) to each request that it forwards; nobody else can add it, so the number of
these headers is the number of requests that it meant. Bellhop, given the forwarded bytes, must see
exactly as many, with the same methods, targets and bodies. Where it refuses one the connection is
over, and what the proxy sent behind that was seen by nobody.

Beside. Bellhop and the proxy read the client's bytes request by request. Up to the first that either
refuses they must agree: the i-th request of one is the i-th of the other, with the same method,
target and body. Who refuses closes, so behind that there is nothing to compare: Bellhop may be
stricter than a proxy, and a proxy than Bellhop. Who saw one request more or less than the other, and
refused none, would have another i-th request sooner or later: a clean one is always last, padded so
that a body which somebody reads where there is none comes to its end in there and shows.
"""

import json
import os
import random
import re
import secrets
import select
import shutil
import socket
import subprocess
import threading
import time

import pytest

from corpus import BODY_MAX, CASES, get
from echo import PATIENCE_S, Server, crc32c

WORD = secrets.token_hex(8).encode()
MARK = re.compile(rb"\r\nx-mark: " + WORD + rb" (\d+) (\S+) ([^\r\n]*)\r\n", re.I)
SEED = int(os.environ.get("BELLHOP_TEST_SEED", "1"))
MUTATIONS = int(os.environ.get("BELLHOP_TEST_MUTATIONS", "200"))

NGINX = """
daemon off; master_process off;
pid {dir}/nginx.pid; error_log {dir}/nginx.err warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
    uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    large_client_header_buffers 4 32k;
    proxy_http_version 1.1;
    proxy_ignore_client_abort on;
    client_max_body_size 0;
    proxy_set_header Host $http_host;
    proxy_set_header X-Mark "{word} $remote_port $request_method $request_uri";
    server {{
        listen 127.0.0.1:{ports[0]};
        location / {{ proxy_pass http://127.0.0.1:{taps[0]}; }}
    }}
    server {{
        listen 127.0.0.1:{ports[1]};
        ignore_invalid_headers off;
        underscores_in_headers on;
        proxy_request_buffering off;
        location / {{ proxy_pass http://127.0.0.1:{taps[1]}; }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 500
    tune.bufsize 65536
defaults
    mode http
    timeout connect 10s
    timeout client 10s
    timeout server 10s
    retries 0
    option http-server-close
frontend strict
    bind 127.0.0.1:{ports[0]}
    http-request set-header X-Mark "{word} %[src_port] %[method] %[url]"
    default_backend strict
backend strict
    server echo 127.0.0.1:{taps[0]}
frontend lenient
    bind 127.0.0.1:{ports[1]}
    option accept-invalid-http-request
    http-request set-header X-Mark "{word} %[src_port] %[method] %[url]"
    default_backend lenient
backend lenient
    server echo 127.0.0.1:{taps[1]}
"""


class Tap:
    """Between a proxy and http_echo: passes bytes on and keeps them."""

    def __init__(self, to_port):
        self.to_port = to_port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.changed = threading.Condition()
        self.open = set()
        self.records = []  # [what the proxy sent, what came back]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            with self.changed:
                self.open.add(near)
            threading.Thread(target=self.carry, args=(near,), daemon=True).start()

    def carry(self, near):
        record = [b"", b""]
        with near, socket.create_connection(("127.0.0.1", self.to_port)) as far:
            ways = {near: (far, 0), far: (near, 1)}
            while ways:
                for one in select.select(list(ways), [], [])[0]:
                    other, way = ways[one]
                    try:
                        piece = one.recv(1 << 16)
                    except ConnectionResetError:
                        piece = b""
                    record[way] += piece
                    try:
                        if piece:
                            other.sendall(piece)
                        else:
                            other.shutdown(socket.SHUT_WR)
                    except OSError:
                        piece = b""
                    if not piece:
                        # An answer that has ended, or a proxy that is gone, is the end of both.
                        ways = {} if way == 1 else {far: (near, 1)}
                        break
        with self.changed:
            self.records.append(record)
            self.open.remove(near)
            self.changed.notify_all()

    def take(self, port):
        """The records of the client with that port, who has gone. A connection that the proxy keeps
        open ends here, behind what it has sent."""
        with self.changed:
            for near in self.open:
                try:
                    near.shutdown(socket.SHUT_RD)
                except OSError:
                    pass  # it has ended by itself
            assert self.changed.wait_for(lambda: not self.open, PATIENCE_S), "the tap never ended"
            found = [r for r in self.records
                     if any(int(m[0]) == port for m in MARK.findall(r[0]))]
            self.records.clear()
        return found

    def close(self):
        self.listener.close()


class Proxy:
    """A process with two ways in: as it comes, and as lenient as it can be told to be."""

    def __init__(self, program, config, directory, echo):
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        assert path, f"{program} is not installed: run scripts/setup"
        self.taps = [Tap(echo.port), Tap(echo.port)]
        reserved = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.ports = [s.getsockname()[1] for s in reserved]
        for s in reserved:
            s.close()
        file = directory / f"{program}.conf"
        file.write_text(config.format(dir=directory, word=WORD.decode(), ports=self.ports,
                                      taps=[t.port for t in self.taps]))
        args = {"nginx": ["-p", str(directory), "-c", str(file), "-e", str(directory / "start.err")],
                "haproxy": ["-db", "-f", str(file)]}[program]
        self.log = directory / f"{program}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([path, *args], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        end = time.monotonic() + PATIENCE_S
        for port in self.ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
                    break
                except ConnectionRefusedError:
                    assert self.process.poll() is None and time.monotonic() < end, \
                        f"{program} does not listen: {self.log.read_text()}"
                    select.select([], [], [], 0.02)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for tap in self.taps:
            tap.close()


@pytest.fixture(scope="module")
def echo():
    server = Server("--body-max", BODY_MAX)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def proxies(tmp_path_factory, echo):
    directory = tmp_path_factory.mktemp("proxies")
    made = {}
    try:
        for program, config in (("nginx", NGINX), ("haproxy", HAPROXY)):
            made[program] = Proxy(program, config, directory, echo)
        yield made
    finally:
        for proxy in made.values():
            proxy.stop()


def converse(port, data):
    """Sends all of it and our end: (our port, everything that came back)."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as s:
        own = s.getsockname()[1]
        back = b""
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass  # closed already: what it said is still to be read
        try:
            while piece := s.recv(1 << 16):
                back += piece
        except ConnectionResetError:
            pass
        return own, back


HEAD = ("HEAD",)  # seen, but there is no body to say what


def seen_of(status, body):
    """What Bellhop says it saw; None: this one was refused by somebody."""
    if status != 200:
        return None
    if not body:
        return HEAD
    seen = json.loads(body)
    return seen["method"], seen["path"], seen["query"], seen["body"], seen["crc"]


def answers_of(data):
    """One entry for each answer: what Bellhop saw, or None."""
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            break  # cut: the connection was reset
        status = int(head.split()[1])
        if status < 200:
            data = rest
            continue
        match = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        # The answer to HEAD has a length and no body; every body here begins with one of these.
        length = int(match[1]) if match and rest[:1] in (b"{", b"<") else 0
        if len(rest) < length:
            break
        found.append(seen_of(status, rest[:length]))
        data = rest[length:]
    return found


def split_target(target):
    target = re.sub(rb"^http://[^/?]*", b"", target)
    path, _, query = target.partition(b"?")
    return (path or b"/").decode("latin-1"), query.decode("latin-1")


def cut_chunks(data):
    """(body, what follows), or None when there is no end, or no sense."""
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        digits = line.split(b";")[0]
        if not end or not re.fullmatch(rb"[0-9a-fA-F]+", digits):
            return None
        size = int(digits, 16)
        if size == 0:
            break
        if data[size:size + 2] != b"\r\n":
            return None
        body, data = body + data[:size], data[size + 2:]
    while not data.startswith(b"\r\n"):
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
    return body, data[2:]


def forwarded_of(data):
    """What a proxy has written: its whole requests, as seen_of() tells them, and its marks' idea of
    each (method, path, query), the last of them perhaps without its end."""
    marks = [(m[1].decode(), *split_target(m[2])) for m in MARK.findall(data)]
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            break
        words = head.split(b"\r\n")[0].split(b" ")
        if len(words) != 3:
            break
        method, target, _ = words
        fields = {}
        for field in head.split(b"\r\n")[1:]:
            name, _, value = field.partition(b":")
            fields[name.strip().lower()] = value.strip()
        if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            cut = cut_chunks(rest)
        else:
            length = int(fields.get(b"content-length", b"0"))
            cut = (rest[:length], rest[length:]) if len(rest) >= length else None
        if cut is None:
            break
        body, data = cut
        found.append((method.decode(), *split_target(target), len(body), crc32c(body)))
    return found, marks


def check_behind(record):
    """A connection between a proxy and Bellhop. The number of requests that were compared."""
    whole, marks = forwarded_of(record[0])
    answers = answers_of(record[1])
    assert len(whole) <= len(marks) <= len(whole) + 1, ("not the proxy's number", record)
    for i, (method, path, query, *_) in enumerate(whole):
        assert (method, path, query) == marks[i], ("another request than the proxy meant", record)
    for i, answer in enumerate(answers):
        if answer is None:
            assert i == len(answers) - 1, ("went on behind a refusal", record)
            return i
        assert i < len(whole), ("Bellhop saw one more", record)
        assert answer == whole[i] or answer[:1] == HEAD == whole[i][:1], \
            ("Bellhop saw another one", record)
    assert len(answers) == len(whole), ("Bellhop saw fewer", record)
    return len(answers)


def check_beside(own, proxied):
    """What Bellhop saw of a client's bytes, and what came back through a proxy."""
    for i, (one, other) in enumerate(zip(own, proxied)):
        if one is None or other is None:
            return
        assert one == other, f"request {i} is not the same: {own} {proxied}"


class Tally:
    def __init__(self):
        self.streams = self.forwarded = self.refused = 0
        self.problems = []


def compare(echo, proxy, streams):
    tally = Tally()
    for name, data in streams:
        own = answers_of(converse(echo.port, data)[1])
        tally.refused += None in own or not own
        for port, tap in zip(proxy.ports, proxy.taps):
            tally.streams += 1
            client, back = converse(port, data)
            try:
                for record in tap.take(client):
                    tally.forwarded += check_behind(record)
                check_beside(own, answers_of(back))
            except AssertionError as problem:
                tally.problems.append(f"{name}: {data[:300]!r}: {str(problem)[:2000]}")
    assert proxy.process.poll() is None, "the proxy ended: " + proxy.log.read_text()
    return tally


LAST = get(b"Connection: close", b"X-Pad: " + b"p" * 5000, target=b"/last")


@pytest.mark.parametrize("program", ["nginx", "haproxy"])
@pytest.mark.parametrize("how", ["alone", "before another"])
def test_corpus(echo, proxies, program, how):
    behind = LAST if how == "before another" else b""
    tally = compare(echo, proxies[program], [(c[0], c[1] + behind) for c in CASES])
    assert not tally.problems, "\n".join(tally.problems)
    # It means something only while much is forwarded and much refused.
    assert tally.forwarded > 100 and tally.refused > 100, vars(tally)


PIECES = [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\x0b", b":", b";", b",", b'"', b"0", b"5",
          b"\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 5\r\n", b"content-length: 0\r\n",
          b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"chunked",
          b"Host: b\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"\x85", b"\xa0",
          b"GET /y HTTP/1.1\r\nHost: c\r\n\r\n"]


def mutate(chance):
    data = chance.choice(CASES)[1]
    while len(data) > 2000:
        data = chance.choice(CASES)[1]
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(data))
        to = at + chance.choice([0, 0, 1, 1, 2, 5])
        data = data[:at] + chance.choice(PIECES) + data[to:]
    if chance.random() < 0.3:
        data += chance.choice(CASES)[1][:2000]
    return data + LAST


@pytest.mark.parametrize("program", ["nginx", "haproxy"])
def test_mutations(echo, proxies, program):
    chance = random.Random(f"{program} {SEED}")
    streams = [(f"seed {SEED}, stream {i}", mutate(chance)) for i in range(MUTATIONS)]
    tally = compare(echo, proxies[program], streams)
    assert not tally.problems, "\n".join(tally.problems)
    assert tally.forwarded > 0 and tally.refused > 0, vars(tally)
