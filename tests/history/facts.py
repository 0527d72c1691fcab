"""A history put in order: what was published, handed out, settled and claimed. No judgement here.

"Place" is an entry's index in the history: A before B means that A was noted before B. What a
client asks is noted before it is sent, and what it is told after it came, so the broker did it
between the two.
"""

import collections
import dataclasses

FLAG_REPLAY, FLAG_REDRIVEN = 1, 4
LIVE, REPLAY = "live", "replay"
NEVER = float("inf")
WORKER_LEFT = ("vanish", "goodbye", "bounce", "end")  # why a connection ended that nothing broke


@dataclasses.dataclass
class Publication:
    """An event that somebody tried to publish."""
    token: str
    id: str
    key: str
    subs: list
    due: int
    sha: str
    tries: list = dataclasses.field(default_factory=list)  # places of the invokes
    seqs: dict = dataclasses.field(default_factory=dict)   # seq -> place of the first ok
    unknown: bool = False

    def outcome(self):
        if self.seqs:
            return "acknowledged"
        return "unknown" if self.unknown else "refused"


@dataclasses.dataclass
class Hold:
    """A delivery in a worker's hands: taken, or granted to it when it came back."""
    place: int
    c: str
    sub: str
    tag: int
    seq: int
    domain: str
    incarnation: int
    redriven: bool
    taken: dict = None  # the entry, None for a granted one
    asks: list = dataclasses.field(default_factory=list)      # settling entries
    answers: list = dataclasses.field(default_factory=list)   # (ask, "ok"|"already"|"stale", place)
    revoked: str = ""   # the reason
    grants: list = dataclasses.field(default_factory=list)    # holds that go on from this one

    def answered(self, op, outcome="ok"):
        """(ask, place of the answer) of each such answer."""
        return [(ask, place) for ask, said, place in self.answers
                if ask["f"] == op and said == outcome]

    def confirmed(self):
        """Places where an ack of it was confirmed."""
        return [place for _, place in self.answered("ack")]

    def asked(self, *kinds):
        """Places where it was settled in one of these ways, whatever came of it."""
        return [ask["i"] for ask in self.asks if ask["kind"] in kinds]


class Facts:
    def __init__(self, entries):
        self.entries = entries
        self.publications = {}  # token -> Publication
        self.operations = {}    # op -> its invoke
        # c -> its entry; the place where its worker began to leave; whether it broke; whether
        # something that was said on it may never have been read
        self.connections = {}
        self.holds = {}         # (c, sub, tag) -> Hold
        self.asks = {}          # (c, rid) -> entry
        self.claims = []        # [entry of subscribe, revoked tags]
        self.claimed = {}       # (c, sub) -> that
        self.tasks = []         # replays and redrives
        self.journal, self.dead, self.stats = {}, [], {}
        self.journal_rows = []
        self.programs, self.verdicts, self.errors = [], [], []
        self.counts = collections.Counter()
        self.end = {}
        for entry in entries:
            read = getattr(self, f"on_{entry['f'].replace('-', '_')}", None)
            if read:
                read(entry)
            else:
                self.counts[entry["f"]] += 1
        self._grant()
        self.by_event = collections.defaultdict(list)  # (sub, seq, domain) -> holds
        for hold in self.holds.values():
            self.by_event[hold.sub, hold.seq, hold.domain].append(hold)

    # -- publishing --

    def on_event(self, e):
        self.publications[e["tok"]] = Publication(e["tok"], e["id"], e["key"], e["subs"], e["due"],
                                                  e["sha"])

    def on_publish(self, e):
        if e["type"] == "invoke":
            self.operations[e["op"]] = e
            for token in e["toks"]:
                self.publications[token].tries.append(e["i"])
        elif e["type"] == "ok":
            for token, seq in zip(e["toks"], e["seqs"]):
                self.publications[token].seqs.setdefault(seq, e["i"])
        elif e["type"] == "info":
            for token in e["toks"]:
                self.publications[token].unknown = True

    # -- working --

    def on_connect(self, e):
        self.connections[e["c"]] = {"connect": e, "left": NEVER, "broken": False,
                                     "deaf_end": False}

    def on_lost(self, e):
        connection = self.connections[e["c"]]
        if e["why"] in WORKER_LEFT:
            connection["left"] = min(connection["left"], e["i"])
            connection["deaf_end"] = e["why"] != "end"
        else:
            connection["broken"] = True

    def on_close(self, e):
        self.connections[e["c"]]["left"] = e["i"]

    on_unsubscribe = on_close

    def on_subscribe(self, e):
        if e["type"] == "ok" and e["claims"]:
            self.claimed[e["c"], e["sub"]] = [e, set()]
            self.claims.append(self.claimed[e["c"], e["sub"]])
            for tag, seq, flags in e["claims"]:
                self._hold(e, tag, seq, flags, None)

    def on_take(self, e):
        self._hold(e, e["tag"], e["seq"], e["flags"], e)

    def _hold(self, e, tag, seq, flags, taken):
        self.holds[e["c"], e["sub"], tag] = Hold(
            e["i"], e["c"], e["sub"], tag, seq, REPLAY if flags & FLAG_REPLAY else LIVE,
            self.connections[e["c"]]["connect"]["inc"], bool(flags & FLAG_REDRIVEN), taken)

    def _on_ask(self, e):
        self.asks[e["c"], e["rid"]] = e
        for tag in e["tags"]:
            self.holds[e["c"], e["sub"], tag].asks.append(e)

    on_ack = on_nack = on_extend = _on_ask

    def on_settle(self, e):
        ask = self.asks[e["c"], e["rid"]]
        for outcome, name in (("ok", "oks"), ("already", "already"), ("stale", "stale")):
            for tag in e[name]:
                self.holds[e["c"], e["sub"], tag].answers.append((ask, outcome, e["i"]))

    def on_revoke(self, e):
        for tag in e["tags"]:
            if e["reason"] == "lost":
                self.claimed[e["c"], e["sub"]][1].add(tag)
            else:
                self.holds[e["c"], e["sub"], tag].revoked = e["reason"]

    def on_error(self, e):
        self.errors.append(e)

    def _grant(self):
        """Which claims were granted. Those of which that is not known hold nothing for certain."""
        latest = {}
        for hold in self.holds.values():
            if hold.taken:
                latest.setdefault((hold.sub, hold.seq, hold.domain), []).append(hold)
        self.granted = []
        for entry, lost in self.claims:
            known = len(lost) == len(entry["claims"]) - entry["resumed"]
            for tag, _, _ in entry["claims"]:
                hold = self.holds[entry["c"], entry["sub"], tag]
                if tag in lost or not known:
                    del self.holds[entry["c"], entry["sub"], tag]
                    continue
                self.granted.append(hold)
                for old in latest.get((hold.sub, hold.seq, hold.domain), ()):
                    if old.tag == tag and old.place < hold.place and same_worker(old, hold):
                        old.grants.append(hold)

    # -- the rest --

    def on_replay(self, e):
        if "id" in e:
            self.tasks.append(e)

    on_redrive = on_replay

    def on_journal(self, e):
        self.journal_rows.append(e)
        self.journal[e["seq"]] = e

    def on_dead(self, e):
        self.dead.append(e)

    def on_stats(self, e):
        self.stats[e["sub"]] = e

    def on_program(self, e):
        self.programs.append(e)

    def on_verdict(self, e):
        self.verdicts.append(e)

    def on_end(self, e):
        self.end = e

    def redrives(self, sub):
        return sum(t["f"] == "redrive" and t["sub"] == sub for t in self.tasks)

    def replays_of(self, sub, seq):
        return [t for t in self.tasks if t["f"] == "replay" and t["sub"] == sub
                and t["from_seq"] <= seq <= t["to_seq"]]

    def domain_is_one(self, sub, seq, domain):
        """Not several replays that feed it: their deliveries cannot be told apart."""
        return domain == LIVE or len(self.replays_of(sub, seq)) == 1


def same_worker(a, b):
    return a.c.rsplit(".", 1)[0] == b.c.rsplit(".", 1)[0]
