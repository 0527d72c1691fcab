"""What was said on the broker's sockets, read from the log of record.c: what clients asked, what they
were told, and when, in records of the log. Only this decides what a restarted broker must know.

Written from docs/protocol.md and docs/http-api.md alone, as tests/e2e/bhp.py is.
"""

import collections
import fnmatch
import hashlib
import json
import struct

import msgpack
from bhp import (ACK, DELIVER, FAIL, FLAG_REPLAY, GREETING, NACK, OK, PUBLISH, PUBLISHED, REDRIVE,
                 REJECT, REPLAY, SETTLED, SUBSCRIBE, SUBSCRIBED, tags_of, text)
from disk import RECEIVE, SEND

NEVER = 1 << 60

Event = collections.namedtuple("Event", "source id type body_sum")
# A request that changes what must be so, and from when on its answer was out (NEVER: it was not).
Asked = collections.namedtuple("Asked", "at answered what sub detail")


def sum_of(body):
    """As reopen.c says it."""
    return hashlib.sha256(body).hexdigest()[:32]


class Settlement:
    """One delivery that a worker settled. asked: when the broker read it; told: when SETTLED was out."""

    def __init__(self, sub, item, kind, asked):
        self.sub, self.seq, self.kind, self.asked = sub, item.seq, kind, asked
        self.replay, self.fails, self.told = item.replay, item.fails, NEVER


Item = collections.namedtuple("Item", "seq fails replay")


class Wire:
    """Everything that was said, in lists that rise by `at`."""

    def __init__(self):
        self.requested = {}  # body sum -> when somebody first asked to publish it
        self.published = []  # (told, seq, Event, asked)
        self.settlements = []
        self.asked = []  # of operators: Asked
        self.tasks = []  # (told, id, kind, sub, from, to, asked)
        self.filters = {}  # subscription -> types, as it was created

    def event_asked(self, at, event):
        self.requested.setdefault(event.body_sum, at)


class Stream:
    """One direction of a connection: bytes, and the record that brought each of them."""

    def __init__(self):
        self.data = bytearray()

    def take(self, n):
        piece = bytes(self.data[:n])
        del self.data[:n]
        return piece


class HttpConnection:
    def __init__(self, wire):
        self.wire = wire
        self.requests = collections.deque()
        self.streams = {RECEIVE: Stream(), SEND: Stream()}

    def feed(self, kind, at, data):
        stream = self.streams[kind]
        stream.data += data
        while True:
            head_end = stream.data.find(b"\r\n\r\n")
            if head_end < 0:
                return
            lines = stream.data[:head_end].decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (h.partition(":") for h in lines[1:])}
            length = int(headers.get("content-length", "0"))
            if len(stream.data) < head_end + 4 + length:
                return
            body = stream.take(head_end + 4 + length)[head_end + 4:]
            if kind == RECEIVE:
                self.requests.append((at, *lines[0].split(" ")[:2], headers, body))
                self.asked(*self.requests[-1])
            elif not lines[0].startswith("HTTP/1.1 100"):
                self.answered(at, int(lines[0].split(" ")[1]), body, *self.requests.popleft())

    def events_of(self, method, path, headers, body):
        """What a request wants published."""
        if method != "POST":
            return None
        if path.startswith("/in/"):
            value = json.loads(body)
            return [Event(path[4:], headers["webhook-id"], value.get("type", ""), sum_of(body))]
        if path != "/v1/events":
            return None
        value = json.loads(body)
        # The body is the text of `data` as it was sent: json.dumps gives it back.
        return [Event("", e.get("id", ""), e["type"],
                      sum_of(json.dumps(e["data"]).encode() if "data" in e else b""))
                for e in value.get("events", [value])]

    def asked(self, at, method, path, headers, body):
        for event in self.events_of(method, path, headers, body) or []:
            self.wire.event_asked(at, event)
        place = len(self.wire.asked)
        for what, sub, detail in self.operation(method, path, body):
            self.wire.asked.append(Asked(at, NEVER, what, sub, detail))
        # The answer finds them by number: the list only grows.
        self.requests[-1] += (range(place, len(self.wire.asked)),)

    @staticmethod
    def operation(method, path, body):
        value = json.loads(body) if body and path.startswith("/v1/") else {}
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["v1", "subscriptions"]:
            name, _, verb = (parts[2] if len(parts) == 3 else "").partition(":")
            if method == "POST" and not name:
                return [("create", value["name"], value)]
            if method == "PATCH":
                return [("update", name, value)]
            if method == "DELETE":
                return [("delete", name, None)]
            if method == "POST":
                return [(verb, name, value)]
        if method == "POST" and parts[1:] == ["dead-letters:redrive"]:
            return [("redrive", value["subscription"], value)]
        if method == "POST" and parts[1:] == ["dead-letters:purge"]:
            return [("purge", value["subscription"], value)]
        if method == "POST" and parts[1:] == ["replays"]:
            return [("replay", value["subscription"], value)]
        if method == "POST" and parts[1:] == ["sources"]:
            return [("source", value["name"], value)]
        if method == "PATCH" and parts[1:] == ["retention"]:
            return [("retention", "", value)]
        return []

    def answered(self, at, status, body, asked_at, method, path, headers, sent, operations):
        if status not in (200, 201):
            return
        answer = json.loads(body)
        for i in operations:
            self.wire.asked[i] = self.wire.asked[i]._replace(answered=at)
            o = self.wire.asked[i]
            if o.what in ("replay", "redrive", "purge"):
                self.wire.tasks.append((at, answer["id"], o.what, o.sub, answer.get("from_seq"),
                                        answer.get("to_seq"), asked_at))
            if o.what == "create":
                self.wire.filters[o.sub] = o.detail.get("filter", {}).get("types", ["*"])
        events = self.events_of(method, path, headers, sent) or []
        for event, told in zip(events, answer.get("events", [answer])):
            self.wire.published.append((at, told["seq"], event, asked_at))


class WorkerConnection:
    def __init__(self, wire):
        self.wire = wire
        self.streams = {RECEIVE: Stream(), SEND: Stream()}
        self.greeted = False
        self.requests = {}  # rid -> (op, when, what)
        self.names = {}  # sub -> subscription's name
        self.items = {}  # (sub, tag) -> Item

    def feed(self, kind, at, data):
        stream = self.streams[kind]
        stream.data += data
        if kind == RECEIVE and not self.greeted and len(stream.data) >= len(GREETING):
            stream.take(len(GREETING))
            self.greeted = True
        while len(stream.data) >= 4:
            length = struct.unpack(">I", stream.data[:4])[0]
            if len(stream.data) < 4 + length:
                return
            frame = msgpack.unpackb(stream.take(4 + length)[4:], raw=False, strict_map_key=False)
            (self.asked if kind == RECEIVE else self.answered)(at, *frame)

    def asked(self, at, op, rid=0, *fields):
        if op == PUBLISH:
            events = [Event("", text(e[2]), text(e[0]), sum_of(bytes(e[7]))) for e in fields[0]]
            for event in events:
                self.wire.event_asked(at, event)
            self.requests[rid] = (op, at, events)
        elif op == SUBSCRIBE:
            self.names[fields[0]] = text(fields[1])
            create = (fields[4] if len(fields) > 4 else {} or {}).get("create")
            policy = None if create is None else json.loads(create)
            if policy is not None:
                self.wire.asked.append(Asked(at, NEVER, "create", text(fields[1]), policy))
                self.requests[rid] = (op, at, len(self.wire.asked) - 1)
        elif op in (ACK, NACK):
            kind = "ack" if op == ACK else {FAIL: "fail", REJECT: "reject"}.get(fields[2], "release")
            items = {t: self.items[fields[0], t] for t in tags_of(fields[1])
                     if (fields[0], t) in self.items}
            settled = {t: Settlement(self.names[fields[0]], item, kind, at)
                       for t, item in items.items()}
            self.wire.settlements += settled.values()
            self.requests[rid] = (op, at, settled)
        elif op in (REPLAY, REDRIVE):
            what = "replay" if op == REPLAY else "redrive"
            self.wire.asked.append(Asked(at, NEVER, what, text(fields[0]), fields[1]))
            self.requests[rid] = (op, at, len(self.wire.asked) - 1)

    def answered(self, at, op, rid=0, *fields):
        if op == DELIVER:
            for item in fields[2]:
                self.items[fields[0], item[0]] = Item(item[1], item[3], bool(item[5] & FLAG_REPLAY))
            return
        wanted, asked_at, what = self.requests.pop(rid, (None, 0, None)) if rid else (None, 0, None)
        if op == PUBLISHED:
            for event, seq in zip(what, fields[0]):
                self.wire.published.append((at, seq, event, asked_at))
        elif op == SETTLED:
            for tag in tags_of(fields[1]):
                what[tag].told = at
        elif op == SUBSCRIBED and wanted == SUBSCRIBE and fields[1]["created"]:
            o = self.wire.asked[what] = self.wire.asked[what]._replace(answered=at)
            self.wire.filters[o.sub] = o.detail.get("filter", {}).get("types", ["*"])
        elif op == OK and wanted in (REPLAY, REDRIVE):
            o = self.wire.asked[what] = self.wire.asked[what]._replace(answered=at)
            self.wire.tasks.append((at, fields[0], o.what, o.sub, o.detail.get("from_seq"),
                                    o.detail.get("to_seq"), asked_at))


def read_wire(records):
    """What was said on every socket of the log; `at` counts records from 1, as disk.py does."""
    wire, connections = Wire(), {}
    for at, r in enumerate(records, 1):
        if r.kind not in (SEND, RECEIVE):
            continue
        if r.object not in connections:
            connections[r.object] = \
                (WorkerConnection if r.data.startswith(GREETING[:3]) else HttpConnection)(wire)
        connections[r.object].feed(r.kind, at, r.data)
    wire.published.sort(key=lambda p: p[0])
    return wire


def matches(types, event_type):
    return any(fnmatch.fnmatchcase(event_type, t) for t in types)
