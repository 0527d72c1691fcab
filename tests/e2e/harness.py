"""A real broker in a directory of its own, for one test.

Every process that is started here is ended here, by its pid. Every wait has a deadline, and the only
polling of the suite is wait_for().
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BELLHOP_BUILD", REPO / "build"))
if not BUILD.is_absolute():
    BUILD = REPO / BUILD
SANITIZED = "BELLHOP_SANITIZE:BOOL=ON" in (
    (BUILD / "CMakeCache.txt").read_text() if (BUILD / "CMakeCache.txt").exists() else "")
SANITIZER_WORDS = ("AddressSanitizer", "LeakSanitizer", "UndefinedBehaviorSanitizer",
                   "runtime error:", "check failed", "CHECK failed")
# A sanitized broker on a busy machine is slow; a deadline only ends what hangs.
DEADLINE_S = 30
# Flags of a broker whose webhooks may go to this machine.
LOCAL = ("--webhook-allow", "127.0.0.0/8", "--webhook-allow", "::1/128")
NODE = REPO / "tests" / "node"


def wait_for(condition, timeout=DEADLINE_S, what="the condition"):
    """Calls condition() until it returns something true, and returns that."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come within {timeout} s"
        time.sleep(0.01)


def now_s():
    return int(time.time())


def make_secret(fill="k"):
    """A whsec_ secret of 32 bytes that are all `fill`: which secret is meant stays readable."""
    return "whsec_" + base64.b64encode(fill.encode() * 32).decode()


def sign(secret, msg_id, timestamp, body):
    """The Standard Webhooks v1 signature."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{msg_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def signed_headers(secret, body, id=None, timestamp=None):
    """The three headers of a right request."""
    msg_id = id if id is not None else "msg_" + uuid.uuid4().hex
    timestamp = str(now_s() if timestamp is None else timestamp)
    return {"webhook-id": msg_id, "webhook-timestamp": timestamp,
            "webhook-signature": sign(secret, msg_id, timestamp, body)}


def verify(secret, headers, body):
    """Whether one of the v1 entries of these headers was made with the secret."""
    right = sign(secret, headers["webhook-id"], headers["webhook-timestamp"], body)
    return right in headers["webhook-signature"].split(" ")


def run_node(script, request):
    """Runs tests/node/SCRIPT with a JSON request on its stdin; what it prints is JSON."""
    assert (NODE / "node_modules" / "standardwebhooks").is_dir(), \
        "run `npm ci --prefix tests/node` first (scripts/test does)"
    done = subprocess.run(["node", script], input=json.dumps(request), cwd=NODE, text=True,
                          capture_output=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Broker:
    def __init__(self, directory, *args, config=None):
        self.directory = Path(directory)
        self.data = self.directory / "data"
        self.args = list(args)
        if config is not None:
            path = self.directory / "bellhop.yaml"
            path.write_text(config)
            self.args += ["--config", str(path)]
        self.log_path = self.directory / "broker.log"
        self.env = {}  # added to its environment at the next start
        self.key = None  # sent with requests and by the command line
        self.before = []  # a command that runs it in its own place: limits, another clock
        self.process = None
        self.killed = False
        self.http = self.http_address = None
        self.tls = None  # the ssl.SSLContext of its clients
        self.http_port = self.workers_port = None

    # -- life --

    def start(self):
        assert self.process is None or self.process.poll() is not None, "it runs already"
        self.killed = False
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.before, str(BUILD / "bellhopd"), "--http", "127.0.0.1:0",
                 "--workers", "127.0.0.1:0", "--data", str(self.data), "--restart-grace", "0",
                 "--drain-ms", "1000", *self.args],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                env={**broker_env(), **self.env}, cwd=self.directory)
        lines = self._read_greeting()
        assert lines[0].startswith(("bellhopd: http on ", "bellhopd: https on ")), lines
        assert lines[1].startswith(("bellhopd: workers on ", "bellhopd: workers (TLS) on ")), lines
        assert lines[2] == "bellhopd: ready", lines
        self.http_address = lines[0].rsplit(" ", 1)[1]
        self.http_port = int(self.http_address.rsplit(":", 1)[1])
        self.http = ("https://" if "https on" in lines[0] else "http://") + self.http_address
        self.workers_port = int(lines[1].rsplit(":", 1)[1])
        return self

    def _read_greeting(self):
        fd = self.process.stdout.fileno()
        end = time.monotonic() + DEADLINE_S
        text = b""
        while text.count(b"\n") < 3:
            left = end - time.monotonic()
            ready = select.select([fd], [], [], max(left, 0))[0]
            piece = os.read(fd, 4096) if ready else b""
            if not piece:
                self.end()
                raise AssertionError(
                    f"the broker did not become ready; it said {text!r}\n{self.log_tail()}")
            text += piece
        return text.decode().splitlines()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill9(self):
        assert self.alive(), "it is gone already\n" + self.log_tail()
        self.killed = True
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.process.stdout.close()

    def stop(self, signum=signal.SIGTERM):
        """A clean stop: exit 0, and nothing bad in the log."""
        assert self.alive(), "it is gone already\n" + self.log_tail()
        self.process.send_signal(signum)
        self.wait_exit()

    def wait_exit(self):
        try:
            code = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError("the broker did not stop\n" + self.log_tail()) from None
        self.process.stdout.close()
        assert code == 0, f"the broker ended with {code}\n{self.log_tail()}"
        self.check_log()

    def restart(self):
        if self.alive():
            self.stop()
        return self.start()

    def end(self):
        """Whatever happened: it does not run any more."""
        if self.alive():
            self.killed = True
            self.process.kill()
            self.process.wait(DEADLINE_S)

    def finish(self):
        """The end of a test: the broker must have lived until now, and stop cleanly."""
        try:
            if self.process is None:
                return
            if self.alive():
                self.stop()
            elif not self.killed:
                code = self.process.returncode
                assert code == 0, f"the broker ended by itself with {code}\n{self.log_tail()}"
            self.check_log()
        finally:
            self.end()

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self):
        return "the end of its log:\n" + "\n".join(self.log().splitlines()[-60:])

    def check_log(self):
        text = self.log()
        for word in SANITIZER_WORDS:
            assert word not in text, f"the log has {word!r}\n{self.log_tail()}"

    # -- speaking to it --

    def request(self, method, path, body=None, headers=None):
        """One request on a connection of its own: (status, headers, body bytes)."""
        if self.http.startswith("https:"):
            connection = http.client.HTTPSConnection("127.0.0.1", self.http_port,
                                                     timeout=DEADLINE_S, context=self.tls)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=DEADLINE_S)
        if self.key is not None and not path.startswith("/in/"):
            headers = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def api(self, method, path, body=None):
        """The JSON API: (status, parsed answer). `body` is a value, or bytes to send as they are."""
        headers = {}
        if body is not None:
            headers["Content-Type"] = "application/json"
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
        status, _, text = self.request(method, path, body, headers)
        return status, json.loads(text)

    def ok(self, method, path, body=None, status=(200, 201)):
        got, answer = self.api(method, path, body)
        assert got in status, (method, path, got, answer)
        return answer

    def add_source(self, name="src", *secrets):
        return self.ok("POST", "/v1/sources",
                       {"name": name, "secrets": list(secrets) or [make_secret()]})

    def add_subscription(self, name="sub", **fields):
        return self.ok("POST", "/v1/subscriptions", {"name": name, **fields})

    def publish(self, type="t", **fields):
        """Publishes one event over HTTP and returns its seq."""
        return self.ok("POST", "/v1/events", {"type": type, **fields})["seq"]

    def publish_many(self, count, type="t"):
        seqs = []
        while len(seqs) < count:
            batch = [{"type": type, "data": {"n": len(seqs) + i}}
                     for i in range(min(1000, count - len(seqs)))]
            answer = self.ok("POST", "/v1/events", {"events": batch})
            seqs += [e["seq"] for e in answer["events"]]
        return seqs

    def subscription(self, name="sub"):
        return self.ok("GET", f"/v1/subscriptions/{name}")

    def dead_letters(self, name="sub"):
        return self.ok("GET", f"/v1/dead-letters?subscription={name}")["dead_letters"]

    def add_webhook(self, uri, *types, **fields):
        """The webhook as create answers it, with its secret in new_signing_secret."""
        return self.ok("POST", "/v1/webhooks",
                       {"uri": uri, "subscribed_events": list(types) or ["*"], **fields})

    def webhook(self, id):
        return self.ok("GET", f"/v1/webhooks/{id}")

    def patch_webhook(self, id, **fields):
        return self.ok("PATCH", f"/v1/webhooks/{id}", fields)

    def attempts(self, id):
        """Newest first."""
        return self.ok("GET", f"/v1/webhooks/{id}/attempts")["attempts"]

    def wait_attempts(self, id, condition, what="the attempt"):
        """The newest attempts, once condition(attempts) is true."""
        return wait_for(lambda: (lambda found: condition(found) and found)(self.attempts(id)),
                        what=what)

    def wait_webhook(self, id, condition, what="the webhook's state"):
        return wait_for(lambda: (lambda found: condition(found) and found)(self.webhook(id)),
                        what=what)

    def events(self, query=""):
        """Every event of the journal that the query finds, over all pages."""
        found, token = [], ""
        while True:
            page = self.ok("GET", f"/v1/events?page_size=1000{query}"
                           + (f"&page_token={token}" if token else ""))
            found += page["events"]
            token = page.get("next_page_token", "")
            if not token:
                return found

    def post_signed(self, source, secret, body, id=None, timestamp=None, headers=None,
                    content_type="application/json"):
        """A webhook as its provider would send it: (status, parsed answer). `headers` replaces single
        ones; a value of None leaves that header out."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {**signed_headers(secret, body, id, timestamp), "content-type": content_type,
                **(headers or {})}
        sent = {name: value for name, value in sent.items() if value is not None}
        status, _, text = self.request("POST", f"/in/{source}", body, sent)
        return status, json.loads(text)

    def raw_http(self):
        return RawHttp(self.http_port)

    def run_cli(self, *args, input=None, env=None, timeout=DEADLINE_S):
        """Runs `bellhop ...` against this broker to its end."""
        environment = {**broker_env(), "BELLHOP_URL": self.http, **(env or {})}
        if self.key is not None:
            environment.setdefault("BELLHOP_KEY", self.key)
        return subprocess.run([str(BUILD / "bellhop"), *args], input=input, env=environment,
                              capture_output=True, text=True, timeout=timeout, cwd=self.directory)


def broker_env():
    keep = {k: v for k, v in os.environ.items() if not k.startswith("BELLHOP_")}
    keep["ASAN_OPTIONS"] = "exitcode=99:detect_leaks=1:abort_on_error=0"
    keep["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1:exitcode=98"
    return keep


class RawHttp:
    """Bytes on a socket, and answers read as HTTP/1.1 with a Content-Length."""

    def __init__(self, port, timeout=DEADLINE_S):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        """Sends what the peer still takes: it may answer and close in the middle."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def end_sending(self):
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _more(self):
        try:
            piece = self.socket.recv(65536)
        except ConnectionResetError:
            piece = b""
        self.buffer += piece
        return bool(piece)

    def head(self):
        """Reads one head: (status, headers with names in lower case), or None at the end."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                assert not self.buffer, f"the answer was cut: {self.buffer[:200]!r}"
                return None
        text, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = text.decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ", 2)[:2]
        assert version == "HTTP/1.1", lines[0]
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            headers[name.strip().lower()] = value.strip()
        return int(status), headers

    def response(self):
        """Reads one answer: (status, headers, body), or None when the peer closed instead."""
        head = self.head()
        if head is None:
            return None
        status, headers = head
        want = int(headers.get("content-length", 0)) if status >= 200 else 0
        while len(self.buffer) < want:
            assert self._more(), "the answer's body was cut"
        body, self.buffer = self.buffer[:want], self.buffer[want:]
        return status, headers, body

    def at_end(self):
        """True when the peer closes without another byte (the socket's timeout is the deadline)."""
        if self.buffer:
            return False
        return not self._more()
