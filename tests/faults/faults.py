"""What the tests of faults share: a broker that may fail, and the story it is told meanwhile.

The story is a script of requests with everything that may be asked of a broker's storage in it. It
notes what was acknowledged. Whatever happens to the broker, afterwards all of that must be true:
holds() asks a broker that started without a fault.
"""

import contextlib
import http.client
import json
import os
import subprocess
import time

import bhp
import pytest
from harness import BUILD, DEADLINE_S, Broker, make_secret, now_s, wait_for

LONG = os.environ.get("BELLHOP_FAULTS_LONG") == "1"
SEED = int(os.environ.get("BELLHOP_TEST_SEED", "20261121"))
SECRET = make_secret("f")
INJECT = BUILD / "tests" / "inject.so"
# What a peer sees of a broker that went away.
GONE = (bhp.Closed, ConnectionError, TimeoutError, OSError, http.client.HTTPException)


def need_preload():
    """Skips where a library cannot be preloaded."""
    if b"__asan_init" in (BUILD / "bellhopd").read_bytes():
        pytest.skip("a sanitized broker takes no other preloaded library")
    assert INJECT.exists(), f"{INJECT} is not built: cmake --build {BUILD}"


def need_root(what):
    if os.geteuid() != 0:
        pytest.skip(f"{what} needs root")


class FragileBroker(Broker):
    """A broker that may exit by itself: at its start, or later."""

    def arm(self, at=0, error=None, calls=None, onward=False, sync_ms=0):
        """From the next start on this fault is waiting (inject.c)."""
        self.report_path = self.directory / "faults.txt"
        self.report_path.unlink(missing_ok=True)
        self.env = {"LD_PRELOAD": str(INJECT), "FAULT_AT": str(at),
                    "FAULT_DIRECTORY": str(self.data), "FAULT_REPORT": str(self.report_path),
                    "FAULT_SYNC_MS": str(sync_ms)}
        if error:
            self.env["FAULT_ERROR"] = error
        if calls:
            self.env["FAULT_CALLS"] = calls
        if onward:
            self.env["FAULT_ONWARD"] = "1"
        return self

    def disarm(self):
        """From the next start on nothing fails, and a log of its own must be clean."""
        self.env = {}
        self.log_path = self.directory / "after.log"
        return self

    def fired(self):
        """The fault's line: "fired 17 pwrite /path EIO"; empty when it did not fire."""
        lines = self.report_path.read_text().splitlines() if self.report_path.exists() else []
        return next((line for line in lines if line.startswith("fired ")), "")

    def after_failed_sync(self):
        lines = self.report_path.read_text().splitlines() if self.report_path.exists() else []
        return [line for line in lines if line.startswith("after ")]

    def end(self):
        """The harness ends it when its greeting was cut; what it said by exiting is kept."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01 if self.ready else DEADLINE_S)
        super().end()

    ready = True

    def try_start(self):
        """True: it serves. False: it exited, and exit_code says how."""
        self.ready = False
        try:
            self.start()
        except (AssertionError, IndexError):
            assert self.process.poll() is not None
            return False
        finally:
            self.ready = True
        return True

    def exit_code(self):
        """Waits for its end."""
        code = self.process.wait(DEADLINE_S)
        if self.process.stdout:
            self.process.stdout.close()
        self.killed = True  # so that the fixture does not take this end for a surprise
        return code

    def status_number(self, name):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name + ":"))

    def cpu_s(self):
        """Processor time that it used, of both kinds."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


OUT_OF_MEMORY = ("out of memory", "Cannot allocate memory", "memory ran out",
                 "cannot make an event loop", "libcrypto has no HMAC")


class Gone(Exception):
    """The broker ended in the middle of the story."""


class Story:
    """What was asked of a broker, and what it acknowledged."""

    def __init__(self, broker):
        self.broker = broker
        self.published = {}  # seq -> id, of what was answered 200
        self.settled, self.dead = set(), set()  # seqs, of what was confirmed
        self.maybe_settled = set()  # asked for, not confirmed
        self.subscriptions, self.sources = [], []
        self.delayed = set()
        self.refused = []  # answers that said "later"

    def take_over(self, before):
        """The store already has what another story left there."""
        self.published, self.settled = dict(before.published), set(before.settled)
        self.dead, self.maybe_settled = set(before.dead), set(before.maybe_settled)
        self.subscriptions, self.sources = list(before.subscriptions), list(before.sources)
        self.delayed = set(before.delayed)

    # -- requests; what the broker refuses for now is asked again --

    def _api(self, method, path, body):
        def once():
            status, answer = self.broker.api(method, path, body)
            if status == 503:
                self.refused.append((path, answer["error"]["code"]))
                return None
            assert status in (200, 201), (method, path, status, answer)
            return answer
        try:
            return wait_for(once, what=f"{method} {path}")
        except GONE:
            raise Gone from None

    def publish(self, msg_id, **fields):
        answer = self._api("POST", "/v1/events", {"type": "t", "id": msg_id, **fields})
        self.published[answer["seq"]] = msg_id
        return answer["seq"]

    def webhook(self, msg_id):
        body = json.dumps({"type": "hook", "data": {"id": msg_id}}).encode()

        def once():
            status, answer = self.broker.post_signed("src", SECRET, body, id=msg_id)
            assert status in (200, 503), answer
            return answer if status == 200 else None
        try:
            self.published[wait_for(once, what="a webhook")["seq"]] = msg_id
        except GONE:
            raise Gone from None

    def subscribe(self, name, **fields):
        self._api("POST", "/v1/subscriptions", {"name": name, **fields})
        self.subscriptions.append(name)

    # -- the script --

    def tell(self, prefix="a"):
        """All of it. Gone: the broker is."""
        if not self.sources:
            self._api("POST", "/v1/sources", {"name": "src", "secrets": [SECRET]})
            self.sources = ["src"]
        if "sub" not in self.subscriptions:
            self.subscribe("sub", start="first", max_fails=3,
                           backoff={"min_ms": 1, "max_ms": 1, "factor": 1})
        # A few pages each, so that values beyond a page are written too.
        for number in range(3):
            self.publish(f"{prefix}{number}", data={"text": f"{prefix}{number} " * 1500})
        self.webhook(f"{prefix}-hook")
        later = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s() + 86400)))
        self.delayed.add(self.publish(f"{prefix}-later", deliver_at=later))
        try:
            self._work()
        except GONE:
            raise Gone from None
        self._api("POST", "/v1/replays", {"subscription": "sub", "from_seq": 1})

    def _work(self):
        with bhp.Client(self.broker.workers_port) as client:
            client.subscribe("sub", window=8)
            items = client.take(4)
            for item in items:
                self.check_item(item)
            first, second, third, _ = items
            self.maybe_settled |= {first.seq, second.seq, third.seq}
            assert client.ack([first]).ok == [first.tag]
            self.settled.add(first.seq)
            assert client.nack([second], bhp.REJECT, error="no").ok == [second.tag]
            self.dead.add(second.seq)
            assert client.nack([third], bhp.FAIL, error="again").ok == [third.tag]
            while client.take_one().seq != third.seq:
                pass
            self.maybe_settled.discard(third.seq)

    # -- the judgement --

    def check_item(self, item):
        """What is delivered was published so, and was not settled for good."""
        assert self.published.get(item.seq, item.id) == item.id, item
        if item.flags & bhp.FLAG_REPLAY:
            return
        assert item.seq not in self.settled | self.dead, f"{item.seq} came after its settlement"
        assert item.seq not in self.delayed, "a delayed event came early"

    def holds(self):
        """Everything that was acknowledged is there, and everything open is delivered."""
        broker = self.broker
        journal = {e["seq"]: e["id"] for e in broker.events()}
        lost = {seq: i for seq, i in self.published.items() if journal.get(seq) != i}
        assert not lost, f"acknowledged and lost: {lost}"
        names = {s["name"] for s in broker.ok("GET", "/v1/subscriptions")["subscriptions"]}
        assert set(self.subscriptions) <= names, names
        sources = {s["name"] for s in broker.ok("GET", "/v1/sources")["sources"]}
        assert set(self.sources) <= sources, sources
        if not self.subscriptions:
            return
        letters = {letter["seq"] for letter in broker.dead_letters()}
        assert self.dead <= letters, (self.dead, letters)
        open_seqs = set(self.published) - self.maybe_settled - self.delayed
        seen = set()
        with bhp.Client(broker.workers_port) as client:
            client.subscribe("sub", window=64)
            while not open_seqs <= seen:
                item = client.take_one()
                assert journal[item.seq] == item.id
                self.check_item(item)
                client.ack([item])
                seen.add(item.seq)


def reason_named(said, fired):
    """A log that ends a broker says what failed, and why in the words of the system."""
    call, error = fired.split()[2], fired.split()[-1]
    if call == "malloc":
        # libcrypto does not say that it had no memory, it fails; or crashes at its first use.
        return any(word in said for word in OUT_OF_MEMORY)
    whys = {"EIO": ["Input/output error"], "ENOSPC": ["No space left"],
            "SHORT": ["Input/output error", "No space left"],
            "ENOMEM": ["Cannot allocate memory"]}[error]
    if call == "fcntl":  # LMDB asks for another lock then, and says what came of that
        whys = [""]
    if (call, error) == ("pread", "SHORT"):
        whys = ["not an LMDB file"]
    words = "cannot ", "the store failed"
    return any(why in said for why in whys) and any(word in said for word in words)
