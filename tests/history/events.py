"""What is published in a run: events whose every byte is known, and the subscriptions that want
them. Each event carries a token in its body, by which it is known wherever it turns up."""

import base64
import hashlib
import json
import re
import threading
import time

import harness

SECRET = harness.make_secret("h")
SOURCE = "src"
TOKEN = re.compile(rb'tok[":=]+([a-z0-9_-]+)')
PLAIN, ORDERED, FRAGILE, COMMAND = "plain", "ordered", "fragile", "command"
RETRY = {"min_ms": 20, "max_ms": 200, "factor": 2}

# name -> (policy, does it want this event?)
SUBSCRIPTIONS = {
    PLAIN: ({"filter": {"types": ["k.*", "p.*", "m.*"]}, "max_fails": 0},
            lambda e: e.type[:2] in ("k.", "p.", "m.")),
    ORDERED: ({"filter": {"types": ["k.*"]}, "max_fails": 5, "order": "key"},
              lambda e: e.type.startswith("k.")),
    FRAGILE: ({"filter": {"user_metadata": {"class": "a"}}, "max_fails": 3},
              lambda e: e.metadata.get("class") == "a"),
    COMMAND: ({"filter": {"types": ["c.*"]}, "max_fails": 4},
              lambda e: e.type.startswith("c.")),
}
LEASE_MS = 2000
COMMAND_CONCURRENCY = 3


def create_subscriptions(broker):
    for name, (policy, _) in SUBSCRIPTIONS.items():
        broker.add_subscription(name, start="first", lease_ms=LEASE_MS, backoff=RETRY, **policy)


class Event:
    """One event. `kind` says through which doors it may go: "json" (HTTP, protocol, command line),
    "binary" (protocol) or "signed" (ingest)."""

    def __init__(self, token, rng, kind, types, bad=False):
        self.token, self.kind, self.bad = token, kind, bad
        self.type = rng.choice(types) + str(rng.randrange(4))
        self.subject = f"key-{rng.randrange(10)}"
        # Without an id nobody may send it again.
        self.id = "" if kind != "signed" and rng.random() < 0.06 else f"id-{token}"
        self.metadata = {"class": rng.choice("aabc"), "n": rng.randrange(1000)}
        if rng.random() < 0.1:
            self.metadata = {}
        self.source = SOURCE if kind == "signed" else ""
        self.deliver_at_ms = 0
        if kind != "signed" and rng.random() < 0.08:
            self.deliver_at_ms = int(time.time() * 1000) + rng.randrange(3000)
        self.time_ms = 1_700_000_000_000 + rng.randrange(10**9)
        pad = rng.choice((0, 10, 100, 300)) if rng.random() < 0.97 else rng.randrange(60000)
        self._make_body(rng, pad)

    def _make_body(self, rng, pad):
        self.content_type = "application/json"
        if self.kind == "binary":
            self.content_type = rng.choice(("application/octet-stream", "", "text/plain"))
            self.body = b"tok=" + self.token.encode() + b"\0" + rng.randbytes(pad)
            return
        # Blanks and numbers that a JSON tree would change.
        data = (f'{{ "tok":"{self.token}",  "pad" : "{"é" * (pad // 2)}",'
                f'"x": [1e2, 1.50,{rng.randrange(10**18)}] }}')
        if self.kind == "signed":
            data = (f'{{"type":"{self.type}", "timestamp":"{self.rfc3339()}",'
                    f'"data":{{"tok":"{self.token}","id":"{self.subject}","pad":"{"z" * pad}"}},'
                    f'"user_metadata":{json.dumps(self.metadata)}}}')
        self.body = data.encode()

    def rfc3339(self, ms=None):
        ms = self.time_ms if ms is None else ms
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}Z"

    # -- through the doors --

    def as_json(self):
        """The text that POST /v1/events takes."""
        fields = {"type": "" if self.bad else self.type, "subject": self.subject,
                  "time": self.rfc3339()}
        if self.id:
            fields["id"] = self.id
        if self.metadata:
            fields["user_metadata"] = self.metadata
        if self.deliver_at_ms:
            fields["deliver_at"] = self.rfc3339(self.deliver_at_ms)
        return json.dumps(fields)[:-1] + ', "data":' + self.body.decode() + "}"

    def as_row(self):
        """The array that PUBLISH takes."""
        metadata = json.dumps(self.metadata) if self.metadata else ""
        return [self.type, self.subject, self.id, self.content_type,
                "[1]" if self.bad else metadata, self.time_ms, self.deliver_at_ms, self.body]

    def signed_headers(self):
        headers = harness.signed_headers(SECRET, self.body, self.id)
        if self.bad:
            headers["webhook-signature"] = harness.sign(harness.make_secret("x"), self.id,
                                                        headers["webhook-timestamp"], self.body)
        return {**headers, "content-type": self.content_type}

    # -- is it unchanged? Each returns what differs, or "" --

    def differs_from_item(self, item):
        """A delivery's."""
        return self._differs(item.type, item.subject, item.id, item.source, item.content_type,
                             json.loads(item.metadata or "{}"), item.time_ms, item.body)

    def differs_from_api(self, event):
        """An event's of the HTTP API, which shows JSON bodies as values."""
        body = self.body
        if "body" in event:
            body = self.body if json.loads(self.body) == event["body"] else b"other JSON"
        elif "body_base64" in event:
            body = base64.b64decode(event["body_base64"])
        elif "body_text" in event:
            body = event["body_text"].encode()
        time_ms = self.time_ms if event.get("time") == self.rfc3339() else event.get("time")
        return self._differs(event.get("type", ""), event.get("subject", ""), event.get("id", ""),
                             event.get("source", ""), event.get("content_type", ""),
                             event.get("user_metadata", {}), time_ms, body)

    def _differs(self, *got):
        want = (self.type, self.subject, self.id, self.source, self.content_type, self.metadata,
                self.time_ms, self.body)
        names = ("type", "subject", "id", "source", "content_type", "metadata", "time_ms", "body")
        return "; ".join(f"{n}: {g!r:.200} instead of {w!r:.200}"
                         for n, w, g in zip(names, want, got) if w != g)

    def wanted_by(self):
        return [name for name, (_, wants) in SUBSCRIPTIONS.items() if wants(self)]

    def digest(self):
        return hashlib.sha1(self.body).hexdigest()


def token_of(body):
    """The token in a body (bytes, or a value out of JSON), or ""."""
    if not isinstance(body, bytes):
        body = json.dumps(body, separators=(",", ":")).encode()
    match = TOKEN.search(body[:4096])
    return match.group(1).decode() if match else ""


class Book:
    """All events that anybody tried to publish, by token."""

    def __init__(self, history):
        self.history = history
        self.events = {}
        self.lock = threading.Lock()

    def make(self, process, rng, kind, types, bad=False):
        with self.lock:
            event = Event(f"{process}_{len(self.events)}", rng, kind, types, bad)
            self.events[event.token] = event
        self.history.add(process, "info", "event", tok=event.token, id=event.id, key=event.subject,
                         subs=event.wanted_by(), due=event.deliver_at_ms, sha=event.digest())
        return event

    def get(self, token):
        return self.events.get(token)
