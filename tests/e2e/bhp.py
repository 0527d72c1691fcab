"""The worker protocol from the other side: a small client written from docs/protocol.md alone.

Blocking sockets with deadlines. It shares no code with the broker, so that an agreement between the
two is an agreement with the page.
"""

import collections
import hashlib
import hmac
import itertools
import json
import os
import socket
import struct
import time

import msgpack

GREETING = b"BHP1"

HELLO, AUTH, SUBSCRIBE, WINDOW, ACK, NACK, EXTEND, UNSUBSCRIBE = 1, 2, 3, 4, 5, 6, 7, 8
PUBLISH, REPLAY, REDRIVE, PING, PONG, DRAIN, CLOSE, WAIT = 9, 10, 11, 13, 14, 15, 16, 17
WELCOME, OK, ERR, SUBSCRIBED, DELIVER, SETTLED, LEASE, REVOKE = 64, 65, 66, 67, 68, 69, 70, 71
STATE, PUBLISHED, DRAINED, QUIET, GOAWAY, ENDED, JOB_EVENT = 72, 73, 74, 76, 77, 78, 79
CHALLENGE = 80

RELEASE, FAIL, REJECT, ELSEWHERE = 0, 1, 2, 3
FLAG_REPLAY, FLAG_AGAIN, FLAG_REDRIVEN = 1, 2, 4

Item = collections.namedtuple(
    "Item", "tag seq received_at_ms fails deliveries flags type id source subject time_ms "
            "content_type metadata headers body sub lease_ms at")
Err = collections.namedtuple("Err", "number word message retry_ms fatal")
Settled = collections.namedtuple("Settled", "sub ok already stale")
Lease = collections.namedtuple("Lease", "sub tags remaining_ms")
Revoke = collections.namedtuple("Revoke", "sub tags reason")
Quiet = collections.namedtuple("Quiet", "reason deadline_ms")
# item: None when nothing came, or it is gone.
JobEvent = collections.namedtuple("JobEvent", "state overdue seq item")
# The numbers and texts of STATE's map under their names.
State = collections.namedtuple(
    "State", "ready leased delayed blocked dead backlog oldest_ms in_per_s out_per_s paused why_idle")


class Closed(Exception):
    """The broker closed the connection."""


class ProtocolError(Exception):
    """The broker answered ERR where something else was expected; args[0] is the Err."""


def encode(*fields):
    """One frame: the length and a msgpack array."""
    body = msgpack.packb(list(fields), use_bin_type=True)
    return struct.pack(">I", len(body)) + body


def tags_of(ranges):
    """[1, 3, 7, 7] -> [1, 2, 3, 7]."""
    return [t for lo, hi in zip(ranges[::2], ranges[1::2]) for t in range(lo, hi + 1)]


def ranges_of(tags):
    """[3, 1, 2, 7] -> [1, 3, 7, 7]."""
    out = []
    for tag in sorted(set(tags)):
        if out and out[-1] == tag - 1:
            out[-1] = tag
        else:
            out += [tag, tag]
    return out


def prove(key, broker_nonce, client_nonce=None):
    """The fields of the AUTH that answers a CHALLENGE."""
    def mac(secret, message):
        return hmac.new(secret, message, hashlib.sha256).digest()

    client_nonce = client_nonce or os.urandom(32)
    client_key = mac(key.encode(), b"Client Key")
    stored_key = hashlib.sha256(client_key).digest()
    mask = mac(stored_key, b"hmac-sha256" + broker_nonce + client_nonce)
    proof = bytes(a ^ b for a, b in zip(client_key, mask))
    return "hmac-sha256", key.split("_")[1], proof, client_nonce


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def json_text(value):
    """A policy or filter as frames carry it; text stays as it is, so that tests may send nonsense."""
    return value if isinstance(value, (str, bytes)) else json.dumps(value)


def claim_of(item):
    """The claim for an item that is still held."""
    return item.tag, item.seq, item.flags


def given(**options):
    """The map of those options that are not None."""
    return {key: value for key, value in options.items() if value is not None}


class Client:
    def __init__(self, port, name="test", heartbeat_ms=None, hello=True, greeting=GREETING,
                 timeout=30, resume_ms=None, resume=None, tls=None, key=None):
        self.timeout = timeout
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.buffer = bytearray()
        self.items = collections.deque()  # delivered and not yet taken
        self.frames = collections.deque()  # everything else that nobody asked for yet
        self.rids = itertools.count(1)
        self.answer_pings = True
        self.pings = 0
        self.welcome = None
        self.key = key
        if greeting:
            self.socket.sendall(greeting)
        if hello:
            self.hello(name, heartbeat_ms, resume_ms, resume)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # -- frames --

    def send(self, *fields):
        self.socket.sendall(encode(*fields))

    def send_bytes(self, data):
        """Sends what the broker still takes."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _read_frame(self, end):
        """The next frame from the socket; TimeoutError at `end` (monotonic seconds)."""
        while True:
            if len(self.buffer) >= 4:
                length = struct.unpack(">I", self.buffer[:4])[0]
                if len(self.buffer) >= 4 + length:
                    body = bytes(self.buffer[4:4 + length])
                    del self.buffer[:4 + length]
                    return msgpack.unpackb(body, raw=False, strict_map_key=False)
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("no frame came")
            self.socket.settimeout(left)
            try:
                piece = self.socket.recv(262144)
            except socket.timeout:
                raise TimeoutError("no frame came") from None
            except ConnectionResetError:
                raise Closed("reset") from None
            finally:
                self.socket.settimeout(self.timeout)
            if not piece:
                raise Closed(f"{len(self.buffer)} bytes of a frame were left")
            self.buffer += piece

    def _take_in(self, end):
        """Reads one frame and files it: items, pings, or the list of other frames."""
        frame = self._read_frame(end)
        if frame[0] == DELIVER:
            assert frame[1] == 0, f"DELIVER answers nothing: {frame[:3]}"
            self.items += [self.as_item(raw, frame[2], frame[3]) for raw in frame[4]]
        elif frame[0] == PING:
            self.pings += 1
            if self.answer_pings:
                self.send(PONG, frame[1])
        else:
            self.frames.append(frame)

    def wait_frame(self, match, timeout=None):
        """The first frame (no delivery) for which match(frame) is true; others stay in line."""
        end = time.monotonic() + (timeout or self.timeout)
        looked_at = 0
        while True:
            while looked_at < len(self.frames):
                frame = self.frames[looked_at]
                if match(frame):
                    del self.frames[looked_at]
                    return frame
                looked_at += 1
            self._take_in(end)

    def expect(self, op, timeout=None):
        """The next frame of that op."""
        return self.wait_frame(lambda f: f[0] == op, timeout)

    def answer(self, rid, want=None, timeout=None):
        """The answer to rid; an ERR that is not wanted raises."""
        frame = self.wait_frame(lambda f: f[1] == rid, timeout)
        if want is not None and frame[0] != want:
            raise ProtocolError(self.as_err(frame) if frame[0] == ERR else frame)
        return frame

    def request(self, op, *fields, want=None, timeout=None):
        rid = next(self.rids)
        self.send(op, rid, *fields)
        return self.answer(rid, want, timeout)

    @staticmethod
    def as_item(raw, sub=None, lease_ms=None):
        fields = list(raw[:15])
        for i in range(6, 14):
            if i != 10:
                fields[i] = text(fields[i])
        return Item(*fields, sub=sub, lease_ms=lease_ms, at=time.monotonic())

    @staticmethod
    def as_err(frame):
        return Err(frame[2], text(frame[3]), text(frame[4]), frame[5], frame[6])

    def error_of(self, op, *fields):
        """Sends a request that must be refused, and returns the Err."""
        frame = self.request(op, *fields)
        assert frame[0] == ERR, f"op {op} was not refused: {frame}"
        return self.as_err(frame)

    def wait_closed(self, timeout=None):
        """Reads until the broker closes; the frames before that stay readable."""
        end = time.monotonic() + (timeout or self.timeout)
        try:
            while True:
                self._take_in(end)
        except Closed:
            return

    # -- what workers do --

    def hello(self, name="test", heartbeat_ms=None, resume_ms=None, resume=None):
        """The map of WELCOME; its "session" is the `resume` of the connection after this one."""
        options = {"min": 1, "max": 1, "name": name, "version": "0", "features": []}
        options |= given(heartbeat_ms=heartbeat_ms, resume_ms=resume_ms, resume=resume)
        frame = self.request(HELLO, options)
        if frame[0] == CHALLENGE and self.key is not None:
            frame = self.request(AUTH, *prove(self.key, frame[3]))
        if frame[0] != WELCOME:
            raise ProtocolError(self.as_err(frame) if frame[0] == ERR else frame)
        self.welcome = frame[2]
        return self.welcome

    def ping(self):
        self.request(PING, want=PONG)

    def settle_down(self):
        """Two round trips: what the broker had to say because of earlier frames has come."""
        self.ping()
        self.ping()

    def subscribe(self, name="sub", sub=1, window=16, window_bytes=1 << 20, concurrency=None,
                  create=None, lease_ms=None, claims=None):
        """create: a policy (dict) or JSON text; claims: [(tag, seq, flags)], see claim_of."""
        options = given(concurrency=concurrency, lease_ms=lease_ms)
        if create is not None:
            options["create"] = json_text(create)
        if claims is not None:
            options["claims"] = [number for claim in claims for number in claim]
        return self.request(SUBSCRIBE, sub, name, window, window_bytes, options,
                            want=SUBSCRIBED)[3]

    def take(self, count=1, timeout=None):
        """The next `count` delivered items."""
        end = time.monotonic() + (timeout or self.timeout)
        while len(self.items) < count:
            self._take_in(end)
        return [self.items.popleft() for _ in range(count)]

    def take_one(self, timeout=None):
        return self.take(1, timeout)[0]

    def settle(self, op, items_or_tags, *fields, sub=1):
        """A confirmed ACK, NACK or EXTEND: Settled, with tags instead of ranges."""
        tags = [getattr(t, "tag", t) for t in items_or_tags]
        frame = self.request(op, sub, ranges_of(tags), *fields, True, want=SETTLED)
        return Settled(frame[2], *(tags_of(frame[i]) for i in (3, 4, 5)))

    def ack(self, items, sub=1):
        return self.settle(ACK, items, sub=sub)

    def nack(self, items, kind=FAIL, delay_ms=None, error=None, sub=1):
        """error: None, a text (the message) or (type, message, detail)."""
        if isinstance(error, tuple):
            error = list(error)
        return self.settle(NACK, items, kind, delay_ms, error, sub=sub)

    def extend(self, items, lease_ms=None, sub=1):
        return self.settle(EXTEND, items, lease_ms, sub=sub)

    def publish(self, *events):
        """events: dicts with type, subject, id, content_type, metadata, time_ms, deliver_at_ms,
        body. Returns (seqs, indexes of duplicates)."""
        rows = [[e.get("type", "t"), e.get("subject", ""), e.get("id", ""),
                 e.get("content_type", ""), e.get("metadata", ""), e.get("time_ms", 0),
                 e.get("deliver_at_ms", 0), e.get("body", b"")] for e in events]
        frame = self.request(PUBLISH, rows, want=PUBLISHED)
        return frame[2], frame[3]

    def replay(self, name="sub", from_seq=None, to_seq=None, from_time_ms=None, to_time_ms=None,
               filter=None, rate=None, dry_run=None):
        """The replay's id."""
        options = given(from_seq=from_seq, to_seq=to_seq, from_time_ms=from_time_ms,
                        to_time_ms=to_time_ms, rate=rate, dry_run=dry_run)
        if filter is not None:
            options["filter"] = json_text(filter)
        return self.request(REPLAY, name, options, want=OK)[2]

    def redrive(self, name="sub", seq=None, filter=None, rate=None):
        """The redrive's id. Nothing given: all dead letters of the subscription."""
        options = given(seq=seq, rate=rate)
        if filter is not None:
            options["filter"] = json_text(filter)
        return self.request(REDRIVE, name, options, want=OK)[2]

    def ask_wait(self, job, types=None, after_seq=None, timeout_ms=None):
        """Sends WAIT; the rid that waited() takes."""
        rid = next(self.rids)
        self.send(WAIT, rid, job, given(types=types, after_seq=after_seq, timeout_ms=timeout_ms))
        return rid

    def waited(self, rid, timeout=None):
        frame = self.answer(rid, JOB_EVENT, timeout)
        job = frame[2]
        item = self.as_item(frame[3]) if len(frame) > 3 and frame[3] is not None else None
        return JobEvent(text(job["state"]), job["overdue"], job.get("seq"), item)

    def wait(self, job, **options):
        return self.waited(self.ask_wait(job, **options))

    def state(self, sub=1, watch=False):
        return self.as_state(self.request(STATE, sub, watch, want=STATE))

    # -- what the broker says by itself --

    @staticmethod
    def as_state(frame):
        said = dict(frame[3], why_idle=text(frame[3]["why_idle"]))
        return State(**{name: said[name] for name in State._fields})

    def expect_state(self, timeout=None):
        """The next STATE of a watch."""
        return self.as_state(self.wait_frame(lambda f: f[0] == STATE and f[1] == 0, timeout))

    def expect_lease(self, timeout=None):
        frame = self.expect(LEASE, timeout)
        return Lease(frame[2], tags_of(frame[3]), frame[4])

    def expect_revoke(self, timeout=None):
        frame = self.expect(REVOKE, timeout)
        return Revoke(frame[2], tags_of(frame[3]), text(frame[4]))

    def expect_quiet(self, timeout=None):
        frame = self.expect(QUIET, timeout)
        return Quiet(text(frame[2]), frame[3])
