"""An HTTP or HTTPS server that plays the receivers of webhooks, good and bad, on loopback.

    with Receiver() as receiver:
        receiver.script("/hook", 500, retry_after(429, 1), 200)
        ... a webhook to receiver.url("/hook") ...
        receiver.wait(3, "/hook")

It runs in a thread of its own and keeps every request with its headers, body and time. What a path
answers is a list of steps, one for each request; the last one stays. A step is a status, an Answer,
or a function that makes one from the request. A path without a script answers 200.
"""

import asyncio
import dataclasses
import itertools
import json
import socket
import ssl
import subprocess
import threading
import time

from harness import DEADLINE_S, wait_for

PIECE = b"x" * 65536
HUGE_BYTES = 100 << 20


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: tuple = ()  # pairs
    body: bytes = b""
    # How it is sent: "whole"; "hold": when release() says so; "drip": a byte every drip_s; "huge":
    # followed by 100 MiB; "never"; "close": nothing, and the connection is closed; "garbage".
    how: str = "whole"
    drip_s: float = 1.0


NEVER = Answer(how="never")
CLOSE = Answer(how="close")
GARBAGE = Answer(how="garbage")
HUGE = Answer(how="huge")
HOLD = Answer(how="hold")


def drip(seconds=1.0):
    return Answer(how="drip", drip_s=seconds)


def retry_after(status, value):
    return Answer(status, (("Retry-After", str(value)),))


def redirect(uri, status=301):
    return Answer(status, (("Location", uri),))


@dataclasses.dataclass
class Request:
    method: str
    path: str
    headers: dict  # names in lower case
    names: list  # as they came
    body: bytes
    connection: int  # which connection it came on, from 0
    time_s: float  # monotonic
    wall_s: float
    answer: Answer = None

    @property
    def id(self):
        return self.headers["webhook-id"]

    def json(self):
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """Requests one after the other: POST with Content-Length is all that is spoken here."""

    def __init__(self, receiver):
        self.receiver = receiver
        self.buffer = bytearray()
        self.busy = False
        self.left = 0  # bytes of a huge answer that are still to be sent
        self.paused = False

    def connection_made(self, transport):
        self.transport = transport
        self.number = self.receiver._made(self)

    def connection_lost(self, _error):
        self.receiver._lost(self)
        self.left = 0

    def data_received(self, data):
        self.buffer += data
        self._next()

    def _next(self):
        while not self.busy and not self.transport.is_closing():
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = self.buffer[:end].decode("latin-1").split("\r\n")
            method, path, version = lines[0].split(" ")
            assert version == "HTTP/1.1", lines[0]
            pairs = [line.split(": ", 1) if ": " in line else (line.rstrip(":"), "")
                     for line in lines[1:]]
            headers = {name.lower(): value for name, value in pairs}
            length = int(headers.get("content-length", 0))
            if len(self.buffer) < end + 4 + length:
                return
            body = bytes(self.buffer[end + 4:end + 4 + length])
            del self.buffer[:end + 4 + length]
            self.busy = True
            request = Request(method, path, headers, [name for name, _ in pairs], body, self.number,
                              time.monotonic(), time.time())
            self.receiver._answer(self, request)

    def send(self, answer):
        """The answer to the request that is under way."""
        if self.transport.is_closing():
            return
        how = answer.how
        if how == "never":
            return
        if how == "close":
            self.transport.close()
            return
        if how == "garbage":
            self.transport.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            self.transport.close()
            return
        length = HUGE_BYTES if how == "huge" else len(answer.body)
        head = f"HTTP/1.1 {answer.status} X\r\nContent-Length: {length}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in answer.headers) + "\r\n"
        data = head.encode("latin-1") + answer.body
        if how == "drip":
            self._drip(data, answer.drip_s)
            return
        self.transport.write(data)
        if how == "huge":
            self.left = HUGE_BYTES
            self._huge()
            return
        self.busy = False

    def _drip(self, data, seconds):
        if self.transport.is_closing():
            return
        self.transport.write(data[:1])
        self.receiver.dripped += 1
        if len(data) > 1:
            self.receiver.loop.call_later(seconds, self._drip, data[1:], seconds)
        else:
            self.busy = False

    def _huge(self):
        while self.left > 0 and not self.paused and not self.transport.is_closing():
            size = min(len(PIECE), self.left)
            self.transport.write(PIECE[:size])
            self.left -= size
            self.receiver.huge_sent += size
        if self.left == 0 and not self.transport.is_closing():
            self.busy = False

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        self._huge()


class Receiver:
    def __init__(self, host="127.0.0.1", tls=None, port=0):
        """tls: (certificate, key) paths, for HTTPS. port: 0 lets the system choose; that of an
        ended one takes its place."""
        self.host, self.port, self.tls = host, port, tls
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self.ready = threading.Event()
        self.failed = None
        self.lock = threading.Lock()
        self.scripts, self.by_path, self.all = {}, {}, []
        self.connections = self.open = 0
        self.dripped = self.huge_sent = 0
        self.held, self.held_max = {}, {}  # path -> [(connection, answer)], and the most at a time
        self.live = set()
        self.counter = itertools.count()

    # -- life --

    def start(self):
        self.thread.start()
        assert self.ready.wait(DEADLINE_S), "the receiver did not start"
        if self.failed:
            raise self.failed
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def _run(self):
        asyncio.set_event_loop(self.loop)
        context = None
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
        # A handshake that fails is what some tests want; asyncio need not print it.
        self.loop.set_exception_handler(lambda _loop, _context: None)
        try:
            self.server = self.loop.run_until_complete(self.loop.create_server(
                lambda: Connection(self), self.host, self.port, ssl=context, backlog=4096))
            self.port = self.server.sockets[0].getsockname()[1]
        except OSError as problem:
            self.failed = problem
            self.ready.set()
            return
        self.ready.set()
        self.loop.run_forever()
        for connection in list(self.live):
            connection.transport.abort()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def close(self):
        """Ends it and every connection; its records stay."""
        if self.thread.is_alive():
            self._call(self.server.close)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(DEADLINE_S)
            assert not self.thread.is_alive(), "the receiver did not end"

    def _call(self, function, *args):
        """Runs function in the loop's thread and waits until it has."""
        done = threading.Event()

        def run():
            try:
                function(*args)
            finally:
                done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(DEADLINE_S), "the receiver hangs"

    # -- what connections tell, in the loop's thread --

    def _made(self, connection):
        self.live.add(connection)
        self.connections += 1
        self.open += 1
        return next(self.counter)

    def _lost(self, connection):
        self.live.discard(connection)
        self.open -= 1
        for held in self.held.values():
            held[:] = [entry for entry in held if entry[0] is not connection]

    def _answer(self, connection, request):
        with self.lock:
            steps = self.scripts.get(request.path)
            step = 200 if not steps else steps[0]
            if steps and len(steps) > 1:
                steps.pop(0)
        answer = step(request) if callable(step) else step
        if isinstance(answer, int):
            answer = Answer(answer)
        request.answer = answer
        if answer.how == "hold":
            held = self.held.setdefault(request.path, [])
            held.append((connection, dataclasses.replace(answer, how="whole")))
            self.held_max[request.path] = max(self.held_max.get(request.path, 0), len(held))
        else:
            connection.send(answer)
        with self.lock:
            self.by_path.setdefault(request.path, []).append(request)
            self.all.append(request)

    # -- for tests --

    @property
    def origin(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def url(self, path="/"):
        return self.origin + path

    def script(self, path, *steps):
        """From now on this path answers so."""
        with self.lock:
            self.scripts[path] = list(steps)

    def requests(self, path=None):
        with self.lock:
            return list(self.all if path is None else self.by_path.get(path, []))

    def count(self, path=None):
        with self.lock:
            return len(self.all if path is None else self.by_path.get(path, []))

    def wait(self, count=1, path=None, timeout=DEADLINE_S):
        """The requests of this path (None: all), once there are so many."""
        wait_for(lambda: self.count(path) >= count, timeout,
                 f"request {count} at {path or 'any path'} of {self.origin}")
        return self.requests(path)

    def held_count(self, path):
        return len(self.held.get(path, []))

    def release(self, path, count=None, **changes):
        """Answers the requests that are held there, or the first `count`; changes: of the Answer."""
        def run():
            held = self.held.get(path, [])
            now, held[:] = held[:count], held[count:] if count is not None else []
            for connection, answer in now:
                connection.send(dataclasses.replace(answer, **changes))
                connection._next()
        self._call(run)


def make_certificate(directory, name="127.0.0.1"):
    """A self-signed certificate for that address or name: (certificate, key) paths."""
    kind = "IP" if name.replace(".", "").isdigit() else "DNS"
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName={kind}:{name}", "-keyout", str(key), "-out",
                    str(certificate)], check=True, capture_output=True, timeout=DEADLINE_S)
    return certificate, key


def free_port(host="127.0.0.1"):
    """A port on which nobody listens."""
    with socket.socket() as s:
        s.bind((host, 0))
        return s.getsockname()[1]
