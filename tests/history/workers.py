"""Workers on the worker protocol, well-behaved and not.

A worker lives many lives: it connects through the proxy, resumes its session or not, claims what it
holds (sometimes also what it has settled), takes events, and settles each of them in one of many
ways; then it vanishes, says goodbye, stops reading, or finds its connection dead. What it asks and
what it is told goes into the history: `c` is the connection, `tag` the delivery on it.
"""

import contextlib
import random
import threading
import time

import bhp
from events import FRAGILE, ORDERED, PLAIN, token_of

TIMEOUT_S = 2.5
SILENT_S = 2.5  # a connection that says nothing for so long, although it was asked, is dead
RESUME_MS = 6000
LOST = (bhp.Closed, OSError, bhp.ProtocolError)
NACKS = {"fail": bhp.FAIL, "release": bhp.RELEASE, "reject": bhp.REJECT,
         "elsewhere": bhp.ELSEWHERE}
# What happens to an event, and how often. "late": acked after its lease ran out; "forget": never
# settled, but the lease is not renewed either; "hold": renewed, then acked.
FATES = {PLAIN: (("ack", 50), ("quiet-ack", 30), ("fail", 5), ("release", 4), ("elsewhere", 2),
                 ("hold", 4), ("late", 2), ("forget", 3)),
         ORDERED: (("ack", 50), ("quiet-ack", 30), ("fail", 8), ("release", 4), ("reject", 1),
                   ("elsewhere", 1), ("hold", 4), ("late", 1), ("forget", 1)),
         FRAGILE: (("ack", 45), ("quiet-ack", 25), ("fail", 14), ("release", 3), ("reject", 6),
                   ("elsewhere", 1), ("hold", 3), ("late", 2), ("forget", 1))}


class Held:
    """An event in a worker's hands."""

    def __init__(self, item, fate, at):
        self.item, self.fate, self.at = item, fate, at
        self.asked = False  # a settlement was sent and not answered


class Line(bhp.Client):
    """A client that remembers when it last heard something."""
    heard = 0.0

    def _take_in(self, end):
        super()._take_in(end)
        self.heard = time.monotonic()


class Life:
    """One connection of a worker."""

    def __init__(self, worker, connection):
        self.worker, self.c = worker, connection
        self.history, self.rng = worker.history, worker.rng
        self.pending = {}  # rid -> (sub, tags, op)
        self.held = {}     # (sub, tag) -> Held
        self.settled = {}  # sub -> the last (tag, seq, flags) that were settled
        self.asked_at = 0.0
        session = worker.session if worker.comes_back else None
        self.client = Line(worker.run_.proxy.port("workers"), name=worker.name, timeout=TIMEOUT_S,
                           heartbeat_ms=1000, resume_ms=RESUME_MS if worker.resumes else None,
                           resume=session)
        port = self.client.socket.getsockname()[1]
        self.client.socket.settimeout(TIMEOUT_S)
        worker.session = self.client.welcome["session"]
        self.note("info", "connect", inc=worker.run_.proxy.incarnation_of("workers", port),
                  resumes=session is not None)

    def note(self, type, f, **fields):
        self.history.add(self.worker.name, type, f, c=self.c, **fields)

    def subscribe(self, number, name, claims):
        claims = sorted(claims)
        self.note("invoke", "subscribe", sub=name, claims=claims)
        window = 4 if self.rng.random() < 0.2 else 40
        concurrency = self.rng.choice((None, None, 1, 4))
        said = self.client.subscribe(name, number, window=window, concurrency=concurrency,
                                     claims=claims or None)
        self.note("ok", "subscribe", sub=name, claims=claims, resumed=said["resumed"])

    def read(self, until):
        """Everything that comes until then, in the order in which it comes."""
        while True:
            while self.client.items:
                self.on_item(self.client.items.popleft())
            while self.client.frames:
                self.on_frame(self.client.frames.popleft())
            try:
                self.client._take_in(until)
            except TimeoutError:
                return

    def close(self):
        """Says goodbye and reads to the end."""
        self.note("invoke", "close")
        self.client.send(bhp.CLOSE, 0)
        with contextlib.suppress(bhp.Closed):
            self.read(time.monotonic() + TIMEOUT_S)
            raise TimeoutError("the broker did not close")

    def on_item(self, item):
        name = self.worker.subs[item.sub - 1]
        token = token_of(item.body)
        event = self.worker.run_.book.get(token)
        wrong = event.differs_from_item(item) if event else f"nobody sent {item!r:.300}"
        self.note("ok", "take", sub=name, tag=item.tag, seq=item.seq, tok=token, fails=item.fails,
                  n=item.deliveries, flags=item.flags, wall=int(time.time() * 1000),
                  **({"wrong": wrong} if wrong else {}))
        fate, work_s = self.worker.fate(name)
        self.held[item.sub, item.tag] = Held(item, fate, time.monotonic() + work_s)

    def on_frame(self, frame):
        if frame[0] == bhp.SETTLED:
            sub, tags, op = self.pending.pop(frame[1])
            outcome = [bhp.tags_of(f or []) for f in (*frame[3:6], *[[]] * (6 - len(frame)))]
            self.note("ok", "settle", rid=frame[1], sub=self.worker.subs[sub - 1],
                      oks=outcome[0], already=outcome[1], stale=outcome[2])
            for tag in tags:
                if op != "extend" and (sub, tag) in self.held:
                    self.drop(sub, tag)
        elif frame[0] == bhp.REVOKE:
            name, tags = self.worker.subs[frame[2] - 1], bhp.tags_of(frame[3])
            reason = bhp.text(frame[4])
            self.note("info", "revoke", sub=name, tags=tags, reason=reason)
            for tag in tags:
                held = self.held.get((frame[2], tag))
                if held and (held.fate != "late" or reason == "lost"):
                    self.held.pop((frame[2], tag))
        elif frame[0] == bhp.GOAWAY:
            raise bhp.Closed("goaway")
        elif frame[0] == bhp.ERR:
            err = bhp.Client.as_err(frame)
            self.note("fail", "error", rid=frame[1], number=err.number, why=err.message)
            self.pending.pop(frame[1], None)
            if err.fatal:
                raise bhp.Closed(err.message)

    def drop(self, sub, tag):
        held = self.held.pop((sub, tag))
        last = self.settled.setdefault(sub, [])
        last.append(bhp.claim_of(held.item))
        del last[:-4]

    def settle_again(self):
        """Asks for what was done already: the answer is not ok."""
        for sub, last in self.settled.items():
            if last and self.rng.random() < 0.02:
                self.settle(sub, "again", [self.rng.choice(last)[0]])

    def settle_due(self):
        """Sends what is due, like with like."""
        now, groups = time.monotonic(), {}
        for (sub, tag), held in self.held.items():
            if held.at <= now and not held.asked:
                groups.setdefault((sub, held.fate), []).append(tag)
        for (sub, fate), tags in groups.items():
            self.settle(sub, fate, tags)

    def settle(self, sub, fate, tags):
        client, rid = self.client, next(self.client.rids)
        name, ranges = self.worker.subs[sub - 1], bhp.ranges_of(tags)
        confirm = (fate in ("ack", "late", "hold", "again")
                   or fate in NACKS and self.rng.random() < 0.5)
        op = "extend" if fate == "hold" else "nack" if fate in NACKS else "ack"
        if fate == "forget":
            return
        self.note("invoke", op, rid=rid, sub=name, tags=tags, confirm=confirm, kind=fate)
        for tag in tags:
            held = self.held.get((sub, tag))
            if held is None:
                continue
            if fate == "hold":
                held.fate, held.at = "ack", time.monotonic() + 0.3
            elif confirm:
                held.asked = True
            else:
                self.drop(sub, tag)
        if confirm:
            self.pending[rid] = (sub, tags, op)
        if op == "extend":
            client.send(bhp.EXTEND, rid, sub, ranges, None, True)
        elif op == "nack":
            delay = self.rng.choice((None, None, 0, 50))
            client.send(bhp.NACK, rid, sub, ranges, NACKS[fate], delay, "not now", confirm)
        else:
            client.send(bhp.ACK, rid, sub, ranges, confirm)

    def keep_alive(self):
        now = time.monotonic()
        if now - self.client.heard > 0.5 and now - self.asked_at > 0.5:
            self.asked_at = now
            self.client.send(bhp.PING, 0)
        if now - self.client.heard > SILENT_S:
            raise bhp.Closed("nothing was heard")


class Worker(threading.Thread):
    def __init__(self, run, number, subs):
        super().__init__(name=f"worker-{number}")
        self.run_, self.history, self.subs = run, run.history, subs
        self.rng = random.Random(f"{run.seed} {self.name}")
        self.connections = 0
        self.session = None
        self.comes_back = self.resumes = False
        self.left = []  # claims that the last life left: (sub, (tag, seq, flags))

    def fate(self, name):
        """What to do with an event and after how many seconds."""
        if self.run_.calm.is_set():
            return "ack", 0
        names, weights = zip(*FATES[name])
        fate = self.rng.choices(names, weights)[0]
        if fate == "late":
            return fate, self.rng.uniform(1.8, 2.6)
        return fate, self.rng.random() ** 4 * 0.4

    def run(self):
        try:
            while not self.run_.workers_stop.wait(self.rng.uniform(0, 0.15)):
                self.live()
        except Exception as problem:
            self.run_.fail(self.name, problem)

    def live(self):
        self.connections += 1
        connection = f"{self.name}.{self.connections}"
        if not self.comes_back:
            self.session, self.resumes = None, self.rng.random() < 0.7
        life, why = None, "vanish"
        try:
            life = Life(self, connection)
            for number, name in enumerate(self.subs, 1):
                claims = [c for sub, c in self.left if sub == number] if self.comes_back else []
                life.subscribe(number, name, claims)
                self.take_back(life, number, claims)
                self.left = [one for one in self.left if one[0] != number]
            why = self.serve(life)
        except LOST as problem:
            why = repr(problem)
        if life is not None:
            life.note("info", "lost", why=why)
            life.client.close()
        self.remember(life, why)

    def take_back(self, life, sub, claims):
        """The claimed events go on under their tags; a REVOKE names those that were not granted."""
        for tag, seq, flags in claims:
            item = bhp.Item(tag, seq, *[None] * 3, flags, *[None] * 9, sub, 0, 0)
            fate, work_s = self.fate(self.subs[sub - 1])
            life.held[sub, tag] = Held(item, fate, time.monotonic() + work_s)

    def remember(self, life, why):
        """Will the next life go on with what this one had?"""
        if life is None:
            return  # nobody answered: what was left before is left still
        self.comes_back = self.resumes and why not in ("vanish", "goodbye", "end")
        if not self.comes_back:
            self.left = []
            return
        for (sub, tag), held in life.held.items():
            if not held.asked or self.rng.random() < 0.5:
                self.left.append((sub, bhp.claim_of(held.item)))
        for sub, last in life.settled.items():
            known = {claim[0] for s, claim in self.left if s == sub}
            for claim in last:
                if claim[0] not in known and self.rng.random() < 0.15:
                    self.left.append((sub, claim))

    def serve(self, life):
        """Until the end of this life; says how it ended."""
        end = time.monotonic() + self.rng.uniform(0.4, 5)
        while not self.run_.workers_stop.is_set():
            life.read(time.monotonic() + 0.02)
            life.settle_due()
            life.settle_again()
            life.keep_alive()
            if self.run_.calm.is_set():
                self.sober(life)
            elif time.monotonic() > end:
                return self.depart(life)
        life.close()
        return "end"

    @staticmethod
    def sober(life):
        """From now on everything is acked."""
        for held in life.held.values():
            if not held.asked and held.fate != "ack":
                held.fate, held.at = "ack", 0

    def depart(self, life):
        how = self.rng.choices(("vanish", "bounce", "goodbye", "drain", "unsubscribe", "deaf"),
                               (25, 35, 10, 10, 10, 10))[0]
        if how == "goodbye":
            life.close()
        elif how == "drain":
            life.client.send(bhp.DRAIN, 0)
            life.read(time.monotonic() + 0.3)
            life.settle_due()
            life.read(time.monotonic() + 0.2)
        elif how == "unsubscribe":
            life.note("invoke", "unsubscribe", sub=self.subs[0])
            life.client.send(bhp.UNSUBSCRIBE, next(life.client.rids), 1)
            life.read(time.monotonic() + 0.2)
            return "vanish"
        elif how == "deaf":
            self.run_.workers_stop.wait(self.rng.uniform(0.5, 3))
            return self.serve(life)
        return how if how in ("vanish", "goodbye") else "bounce"


CREWS = ((PLAIN,), (PLAIN, ORDERED), (ORDERED,), (ORDERED, FRAGILE), (FRAGILE,))


def make(run):
    return [Worker(run, n + 1, list(subs)) for n, subs in enumerate(CREWS)]
