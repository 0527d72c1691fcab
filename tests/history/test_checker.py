"""Small histories by hand: each rule of the checker finds what it is for, and leaves alone what
only looks like it."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import bhp  # noqa: E402
import checker  # noqa: E402
import events  # noqa: E402
from facts import FLAG_REDRIVEN, FLAG_REPLAY  # noqa: E402
from history import History, read, write  # noqa: E402


class Story:
    """Writes a history. What it does not say is as it should be."""

    def __init__(self):
        self.history = History()
        self.rids = 0
        self.rows, self.dead = {}, []
        self.note("start", inc=1, killed=False)
        self.incarnation = 1

    def note(self, f, type="info", **fields):
        self.history.add("p", type, f, **fields)

    def event(self, token, key="k", subs=("ordered",), due=0, id=None):
        self.note("event", tok=token, id=token if id is None else id, key=key, subs=list(subs),
                  due=due, sha="")

    def publish(self, *tokens, outcome="ok", seqs=(), dups=(), journaled=True):
        self.rids += 1
        about = {"op": self.rids, "door": "d", "toks": list(tokens)}
        self.note("publish", "invoke", **about)
        if outcome == "ok":
            about |= {"seqs": list(seqs), "dups": list(dups)}
            if journaled:
                self.rows.update(zip(seqs, tokens))
        self.note("publish", outcome, **about)

    def published(self, *tokens, **fields):
        """The usual beginning: these events, acknowledged, from seq 1 on."""
        for token in tokens:
            self.event(token, **fields)
        self.publish(*tokens, seqs=range(1, len(tokens) + 1))

    def connect(self, c):
        self.note("connect", c=c, inc=self.incarnation, resumes=False)

    def restart(self, killed=True):
        self.incarnation += 1
        self.note("start", inc=self.incarnation, killed=killed)

    def take(self, c, tag, seq, sub="ordered", n=1, fails=0, flags=0, wall=10**13, **fields):
        self.note("take", "ok", c=c, sub=sub, tag=tag, seq=seq, tok=fields.pop("tok", f"e{seq}"),
                  fails=fails, n=n, flags=flags, wall=wall, **fields)

    def ask(self, c, op, *tags, sub="ordered", kind=None, answer="oks"):
        self.rids += 1
        self.note(op, "invoke", c=c, rid=self.rids, sub=sub, tags=list(tags),
                  confirm=answer is not None, kind=kind or op)
        if answer:
            said = {"oks": [], "already": [], "stale": [], answer: list(tags)}
            self.note("settle", "ok", c=c, rid=self.rids, sub=sub, **said)

    def claim(self, c, *claims, resumed, sub="ordered"):
        self.note("subscribe", "ok", c=c, sub=sub, claims=[list(one) for one in claims],
                  resumed=resumed)

    def problems(self):
        for seq, token in sorted(self.rows.items()):
            self.note("journal", "ok", seq=seq, tok=token)
        for letter in self.dead:
            self.note("dead", "ok", tok=f"e{letter['seq']}", **letter)
        return [p.kind for p in checker.check(self.history.entries)[0]]

    def causes(self):
        return dict(checker.check(self.history.entries)[2])


def letter(seq, sub="ordered", reason="rejected", fails=0, deliveries=1, replay=0):
    return {"seq": seq, "sub": sub, "reason": reason, "fails": fails, "deliveries": deliveries,
            "replay": replay}


@pytest.fixture
def story():
    return Story()


@pytest.fixture
def two(story):
    """Two events of one key, two connections."""
    story.published("e1", "e2")
    story.connect("w1.1")
    story.connect("w2.1")
    return story


def finish(story, c, *seqs, tag=90):
    """Takes and acks what is left."""
    for seq in seqs:
        tag += 1
        story.take(c, tag, seq)
        story.ask(c, "ack", tag)


def test_all_is_well(two):
    finish(two, "w1.1", 1, 2)
    assert two.problems() == []


def test_an_acknowledged_event_that_is_not_seen_is_lost(two):
    finish(two, "w1.1", 1)
    assert two.problems() == ["lost"]


def test_one_that_was_seen_and_never_acked_is_lost_too(two):
    finish(two, "w1.1", 1)
    two.take("w1.1", 5, 2)
    assert two.problems() == ["lost"]


def test_a_dead_letter_is_not_lost(two):
    two.take("w1.1", 1, 1)
    two.ask("w1.1", "nack", 1, kind="reject")
    two.dead = [letter(1)]
    finish(two, "w1.1", 2)
    assert two.problems() == []


def test_an_acknowledged_event_that_the_journal_does_not_have_is_lost(story):
    story.event("e1")
    story.publish("e1", seqs=[1], journaled=False)
    assert story.problems() == ["lost"]


def test_a_gap_in_the_journal(two):
    finish(two, "w1.1", 1, 2)
    two.event("e4", subs=())
    two.publish("e4", seqs=[4])
    assert two.problems() == ["lost"]


@pytest.mark.parametrize("outcome,kinds", [("info", []), ("fail", ["unexpected"] * 2)])
def test_the_three_outcomes(story, outcome, kinds):
    """What nobody knows may turn up; what was refused may not, neither in the journal nor at a
    worker."""
    story.event("e1")
    story.publish("e1", outcome=outcome)
    story.rows[1] = "e1"
    story.connect("w1.1")
    finish(story, "w1.1", 1)
    assert story.problems() == kinds


def test_refused_after_unknown_stays_unknown(story):
    story.event("e1")
    story.publish("e1", outcome="info")
    story.publish("e1", outcome="fail")
    story.rows[1] = "e1"
    story.connect("w1.1")
    finish(story, "w1.1", 1)
    assert story.problems() == []


def test_what_nobody_sent(two):
    finish(two, "w1.1", 1, 2)
    two.rows[3] = "e3"
    two.take("w1.1", 7, 3)
    two.ask("w1.1", "ack", 7)
    assert two.problems() == ["unexpected"] * 2


def test_what_the_subscription_does_not_want(two):
    finish(two, "w1.1", 1, 2)
    two.take("w1.1", 7, 1, sub="fragile")
    assert two.problems() == ["unexpected"]


def test_other_bytes(two):
    two.take("w1.1", 1, 1, wrong="body: b'x' instead of b'y'")
    two.ask("w1.1", "ack", 1)
    finish(two, "w1.1", 2)
    assert two.problems() == ["altered"]


def test_unknown_and_sent_again(story):
    """The second try is answered with the first seq, as a duplicate or not."""
    story.event("e1", subs=())
    story.publish("e1", outcome="info")
    story.publish("e1", seqs=[1], dups=[0])
    story.publish("e1", seqs=[1], dups=[0])
    assert story.problems() == []


def test_two_seqs_for_an_id(story):
    story.event("e1", subs=())
    story.publish("e1", seqs=[1])
    story.publish("e1", seqs=[2])
    assert set(story.problems()) == {"two-seqs"}


def test_unknown_journaled_and_taken_in_again(story):
    """The producer sees one seq only; the journal has both."""
    story.event("e1", subs=())
    story.publish("e1", outcome="info")
    story.rows[1] = "e1"
    story.publish("e1", seqs=[2])
    assert story.problems() == ["two-seqs"]


def test_a_duplicate_at_the_first_try(story):
    story.event("e1", subs=())
    story.publish("e1", seqs=[1], dups=[0])
    assert story.problems() == ["two-seqs"]


def test_the_same_event_twice_in_a_batch(story):
    story.event("e1", subs=())
    story.publish("e1", "e1", seqs=[1, 1], dups=[1])
    assert story.problems() == []


def test_after_a_confirmed_ack_and_a_restart(two):
    finish(two, "w1.1", 1, 2)
    two.restart()
    two.connect("w2.2")
    two.take("w2.2", 1, 2)
    assert two.problems() == ["after-confirm"]


def test_a_late_frame_of_the_broker_before(two):
    """It was handed out before the restart and read after the ack."""
    two.restart()
    two.connect("w1.2")
    finish(two, "w1.2", 1, 2)
    two.take("w2.1", 1, 2)
    assert two.problems() == []


@pytest.mark.parametrize("n,kinds", [(3, ["after-confirm"]), (1, [])])
def test_the_number_of_the_hand_out_tells(two, n, kinds):
    """Read after the ack of hand-out 2: hand-out 1 waited in the connection, 3 cannot have."""
    finish(two, "w1.1", 1)
    two.take("w1.1", 5, 2, n=2)
    two.ask("w1.1", "ack", 5)
    two.take("w2.1", 1, 2, n=n)
    two.note("revoke", c="w2.1", sub="ordered", tags=[1], reason="expired")
    two.note("revoke", c="w1.1", sub="ordered", tags=[5], reason="expired")
    assert two.problems() == kinds


def test_an_ack_that_was_not_confirmed_and_a_kill(two):
    finish(two, "w1.1", 1)
    two.take("w1.1", 5, 2)
    two.ask("w1.1", "ack", 5, kind="quiet-ack", answer=None)
    two.restart()
    two.connect("w2.2")
    finish(two, "w2.2", 2)
    assert two.problems() == []
    assert two.causes() == {"kill -9, ack not confirmed": 1}


def test_confirmed_twice(two):
    finish(two, "w1.1", 1, 2)
    two.take("w2.1", 1, 2, n=2)
    two.ask("w2.1", "ack", 1)
    assert "after-confirm" in two.problems()


def test_confirmed_and_dead(two):
    finish(two, "w1.1", 1, 2)
    two.dead = [letter(2, reason="max_fails", fails=5, deliveries=5)]
    assert two.problems() == ["after-confirm"]


def test_a_settled_claim_is_granted(two):
    finish(two, "w1.1", 1, 2)
    two.note("lost", c="w1.1", why="bounce")
    two.connect("w1.2")
    two.claim("w1.2", (92, 2, 0), resumed=1)
    assert two.problems() == ["after-confirm"]


def test_a_settled_claim_is_refused(two):
    finish(two, "w1.1", 1, 2)
    two.note("lost", c="w1.1", why="bounce")
    two.connect("w1.2")
    two.claim("w1.2", (92, 2, 0), resumed=0)
    two.note("revoke", c="w1.2", sub="ordered", tags=[92], reason="lost")
    assert two.problems() == []


def test_settled_again_with_ok(two):
    finish(two, "w1.1", 1, 2)
    two.ask("w1.1", "ack", 91, kind="again", answer="already")
    assert two.problems() == []
    two.ask("w1.1", "ack", 92, kind="again")
    assert "after-confirm" in two.problems()


def test_order(two):
    """The second of a key came while nobody was done with the first."""
    two.take("w1.1", 1, 1)
    two.take("w2.1", 1, 2)
    two.ask("w1.1", "ack", 1, answer=None)
    two.ask("w2.1", "ack", 1, answer=None)
    assert two.problems() == ["order"]


def test_order_of_different_keys(story):
    story.event("e1", key="a")
    story.event("e2", key="b")
    story.publish("e1", "e2", seqs=[1, 2])
    story.connect("w1.1")
    finish(story, "w1.1", 2, 1)
    assert story.problems() == []


def test_one_that_was_given_up_holds_nothing(two):
    """Dead without having been seen: its frames were lost with their connections."""
    two.dead = [letter(1, reason="max_fails", fails=5, deliveries=5)]
    finish(two, "w1.1", 2)
    assert two.problems() == []


def test_two_of_a_key_at_once(two):
    two.dead = [letter(1, reason="max_fails", fails=5, deliveries=5)]
    two.take("w1.1", 1, 1)
    two.take("w2.1", 1, 2)
    two.ask("w1.1", "extend", 1, kind="hold")
    two.ask("w2.1", "ack", 1)
    assert two.problems() == ["together"]


def test_two_workers_with_one_event(two):
    finish(two, "w1.1", 1)
    two.take("w1.1", 5, 2)
    two.take("w2.1", 5, 2, n=2)
    two.ask("w1.1", "extend", 5, kind="hold")
    two.ask("w2.1", "ack", 5)
    assert "together" in two.problems()


def test_fails_that_go_back(two):
    finish(two, "w1.1", 1)
    for tag, n, fails in ((5, 3, 2), (6, 4, 1)):
        two.take("w1.1", tag, 2, n=n, fails=fails)
        two.ask("w1.1", "nack", tag, kind="fail")
    two.take("w1.1", 7, 2, n=5, fails=2)
    two.ask("w1.1", "ack", 7)
    assert two.problems() == ["counters"]


def test_more_fails_than_hand_outs(two):
    finish(two, "w1.1", 1)
    two.take("w1.1", 5, 2, n=2, fails=2)
    two.ask("w1.1", "ack", 5)
    assert two.problems() == ["counters"]


def test_before_its_time(story):
    story.published("e1", due=1000)
    story.connect("w1.1")
    story.take("w1.1", 1, 1, wall=999)
    story.ask("w1.1", "ack", 1)
    assert story.problems() == ["early"]


@pytest.mark.parametrize("happened,cause", [
    (lambda s: None, None),
    (lambda s: s.ask("w1.1", "nack", 5, kind="fail", answer=None), "nack"),
    (lambda s: s.note("revoke", c="w1.1", sub="ordered", tags=[5], reason="expired"), "lease"),
    (lambda s: s.note("lost", c="w1.1", why="Closed('reset')"), "connection"),
    (lambda s: s.note("lost", c="w1.1", why="vanish"), "worker left"),
])
def test_handed_out_again(two, happened, cause):
    finish(two, "w1.1", 1)
    two.take("w1.1", 5, 2)
    happened(two)
    two.take("w2.1", 1, 2, n=2)
    two.ask("w2.1", "ack", 1)
    assert two.problems() == ([] if cause else ["unexplained"])
    assert two.causes() == ({cause: 1} if cause else {})


def test_handed_out_again_though_it_was_granted(two):
    """Its connection was lost, but its worker came back for it: that explains nothing any more."""
    finish(two, "w1.1", 1)
    two.take("w1.1", 5, 2)
    two.note("lost", c="w1.1", why="Closed('reset')")
    two.connect("w1.2")
    two.claim("w1.2", (5, 2, 0), resumed=1)
    two.connect("w2.2")
    two.take("w2.2", 1, 2, n=2)
    two.ask("w2.2", "ack", 1)
    assert two.problems() == ["unexplained"]


def test_replayed_and_redriven(two):
    finish(two, "w1.1", 1)
    two.take("w1.1", 5, 2)
    two.ask("w1.1", "nack", 5, kind="reject")
    two.note("redrive", "ok", sub="ordered", id=1)
    two.take("w1.1", 6, 2, n=2, flags=FLAG_REDRIVEN)
    two.ask("w1.1", "ack", 6)
    two.note("replay", "ok", sub="ordered", id=2, from_seq=1, to_seq=1)
    two.take("w1.1", 7, 1, flags=FLAG_REPLAY)
    two.ask("w1.1", "ack", 7)
    assert two.problems() == []
    assert two.causes() == {"redrive": 1, "replay": 1}


def test_a_replay_that_leaves_one_out(two):
    finish(two, "w1.1", 1, 2)
    two.note("replay", "ok", sub="ordered", id=2, from_seq=1, to_seq=2)
    two.take("w1.1", 7, 1, flags=FLAG_REPLAY)
    two.ask("w1.1", "ack", 7)
    assert two.problems() == ["lost"]


def test_a_confirmed_reject_that_is_no_dead_letter(two):
    two.take("w1.1", 1, 1)
    two.ask("w1.1", "nack", 1, kind="reject")
    finish(two, "w1.1", 2)
    assert two.problems() == ["dead-letter"]


def test_a_dead_letter_that_nobody_rejected(two):
    finish(two, "w1.1", 2)
    two.dead = [letter(1)]
    assert two.problems() == ["dead-letter"]


def test_dead_too_soon(two):
    finish(two, "w1.1", 2)
    two.dead = [letter(1, reason="max_fails", fails=2, deliveries=2)]
    assert two.problems() == ["dead-letter"]


def test_an_error_that_the_worker_did_not_earn(two):
    finish(two, "w1.1", 1, 2)
    two.note("error", "fail", c="w1.1", number=305, why="tag 9 was never handed out")
    assert two.problems() == ["refused"]


def test_not_settled_at_the_end(two):
    finish(two, "w1.1", 1, 2)
    stats = dict.fromkeys(("ready", "delayed", "blocked", "backlog", "replays", "dead"), 0)
    two.note("stats", "ok", sub="ordered", leased=1, floor=3, **stats)
    assert two.problems() == ["unfinished"]


def test_commands(story):
    story.published("e1", "e2", "e3", subs=("command",))
    for seq, digest in ((1, ""), (2, "other")):
        story.note("program", "ok", seq=seq, attempt=1, id=f"e{seq}", sha=digest)
    for _ in range(2):
        story.note("verdict", "ok", seq=1, verdict="ack", attempt=1)
    assert sorted(story.problems()) == ["after-confirm", "altered", "lost", "lost"]


def test_a_killed_command_cuts_a_body(story):
    story.published("e1", subs=("command",))
    story.note("signal", signal=9)
    for digest in ("cut", ""):
        story.note("program", "ok", seq=1, attempt=1, id="e1", sha=digest)
    assert story.problems() == []


def test_a_history_survives_its_file(two, tmp_path):
    finish(two, "w1.1", 1)
    write(two.history.entries, tmp_path / "h.jsonl")
    assert read(tmp_path / "h.jsonl") == two.history.entries
    assert any("take" in line for line in checker.trace(two.history.entries, 1))


def test_events_know_whether_they_changed():
    """As a delivery and as the API shows them."""
    import json
    import random
    rng = random.Random(1)
    for kind in ("json", "binary", "signed"):
        event = events.Event("t_1", rng, kind, ("k.",))
        fields = {"type": event.type, "id": event.id, "source": event.source,
                  "subject": event.subject, "time_ms": event.time_ms,
                  "content_type": event.content_type, "metadata": json.dumps(event.metadata),
                  "body": event.body}
        item = bhp.Item(**{**dict.fromkeys(bhp.Item._fields), **fields})
        assert event.differs_from_item(item) == ""
        for name, other in (("body", event.body + b" "), ("type", "x"), ("metadata", "{}")):
            assert name in event.differs_from_item(item._replace(**{name: other})) or (
                name == "metadata" and not event.metadata)
        assert events.token_of(event.body) == "t_1"
