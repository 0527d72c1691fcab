"""What must be so after a power cut: what was said at the wire (wire.py) held against what a restarted
broker knows and delivers (reopen.c)."""

import bisect
import collections
import json

from wire import NEVER, Event, matches


def unhex(field):
    return "" if field == "-" else bytes.fromhex(field).decode()


class Found:
    """One file of reopen.c."""

    def __init__(self, lines):
        self.first = self.last = 0
        self.journal = {}  # seq -> (Event, deliver_at)
        self.subs, self.tasks, self.config = {}, {}, {}
        self.dead = {}  # (sub, seq, cursor) -> (fails, reason, sum)
        self.delivered = collections.defaultdict(list)  # (sub, seq, replay) -> [(how, fails, sum)]
        self.wrong = []  # what no restart may say
        for line in lines:
            word, *f = line.split()
            if word == "journal":
                event = Event(*(unhex(x) for x in f[2:5]), f[5])
                self.journal[int(f[0])] = (event, int(f[1]))
            elif word == "deliver":
                key = (f[0], int(f[1]), f[2] == "replay")
                self.delivered[key].append((f[2], int(f[3]), f[4]))
            elif word == "dead":
                self.dead[f[0], int(f[1]), int(f[2])] = (int(f[3]), f[4], f[5])
            elif word == "sub":
                self.subs[f[0]] = {"paused": f[1] == "1", "lease_ms": int(f[2]),
                                   "max_fails": int(f[3])}
            elif word == "task":
                self.tasks[int(f[0])] = (f[1], f[2] == "1")
            elif word == "config":
                self.config[unhex(f[0])] = unhex(f[1])
            elif word == "range":
                self.first, self.last = int(f[0]), int(f[1])
            elif word != "again":
                self.wrong.append(line.strip())
        # What was held against it already. Later points ask more, and the same less strictly.
        self.checked = 0  # of the published events, in order
        self.checked_at = -1  # settlements: the record up to which
        self.dead_of = {(sub, seq): d for (sub, seq, _), d in self.dead.items()}


class Oracle:
    def __init__(self, wire):
        self.wire = wire
        self.by_key = collections.defaultdict(list)  # (sub, seq, replay) -> settlements, as asked
        for s in sorted(wire.settlements, key=lambda s: s.asked):
            self.by_key[s.sub, s.seq, s.replay].append(s)
        self.told_keys = sorted((s.told, (s.sub, s.seq, s.replay)) for s in wire.settlements
                                if s.told != NEVER)
        self.of_sub = collections.defaultdict(list)
        self.times = collections.defaultdict(list)  # (sub, what) -> when it was asked, rising
        for o in sorted(wire.asked, key=lambda o: o.at):
            self.of_sub[o.sub].append(o)
            self.times[o.sub, o.what].append(o.at)
        self.events = {seq: event for _, seq, event, _ in wire.published}
        first_asked = {}  # a repeat is answered with the seq that is there already
        for _, seq, _, asked in wire.published:
            first_asked[seq] = min(asked, first_asked.get(seq, asked))
        self.owed = [self.subscriptions_of(event, first_asked[seq])
                     for _, seq, event, _ in wire.published]
        self.max_fails = {name: next((o.detail.get("max_fails", 20) for o in asked
                                      if o.what == "create"), 20)
                          for name, asked in self.of_sub.items()}

    def subscriptions_of(self, event, asked):
        """Who was there for certain when this was published, wants it, and holds the journal for it."""
        found = []
        for sub, types in self.wire.filters.items():
            created = next(o for o in self.of_sub[sub] if o.what == "create")
            if created.answered < asked and matches(types, event.type) and \
                    created.detail.get("lag") != "expire":
                found.append(sub)
        return found

    def was_asked(self, sub, at, *what, since=0):
        for w in what:
            times = self.times.get((sub, w), ())
            i = bisect.bisect_left(times, since)
            if i < len(times) and times[i] <= at:
                return True
        return False

    def check(self, found, at):
        """What is wrong with this state after a power cut behind record `at`. The points of one state
        must come in their order."""
        wrong = list(found.wrong)
        wrong += self.check_published(found, at)
        wrong += self.check_operators(found, at)
        begin = bisect.bisect_right(self.told_keys, (found.checked_at, ("~",)))
        end = bisect.bisect_right(self.told_keys, (at, ("~",)))
        for key in {key for _, key in self.told_keys[begin:end]}:
            wrong += self.check_settled(found, at, key, self.by_key[key])
        if not wrong:
            found.checked_at = at
        return wrong

    # -- events --

    def check_published(self, found, at):
        for seq, (event, _) in found.journal.items():
            if self.wire.requested.get(event.body_sum, NEVER) > at:
                yield f"event {seq} is there and nobody asked for it: {event}"
        published = self.wire.published
        trims = self.was_asked("", at, "retention")
        clean = True
        place = found.checked
        while place < len(published) and published[place][0] <= at:
            told, seq, event, _ = published[place]
            there = found.journal.get(seq, (None, 0))[0]
            if there != event and not (there is None and trims and seq < found.first):
                yield f"event {seq} was acknowledged in record {told}: {event}, and is {there}"
                clean = False
            for complaint in self.check_owed(found, at, seq, event, self.owed[place]):
                yield complaint
                clean = False
            place += 1
        if clean:  # what is asked and told later only asks less of these
            found.checked = place

    def check_owed(self, found, at, seq, event, subs):
        """Each subscription that was there gets it, or has settled it, or buried it."""
        for sub in subs:
            if (sub, seq, False) in found.delivered or (sub, seq) in found.dead_of or \
                    any(s.kind == "ack" and s.asked <= at
                        for s in self.by_key.get((sub, seq, False), ())) or \
                    self.was_asked(sub, at, "seek", "delete", "purge"):
                continue
            yield f"event {seq} ({event.id}) will never reach {sub}, which did not ack it"

    # -- settlements --

    def check_settled(self, found, at, key, settlements):
        sub, seq, replay = key
        asked = [s for s in settlements if s.asked <= at]
        told = [s for s in asked if s.told <= at]
        if not told or self.was_asked(sub, at, "seek", "delete"):
            return
        last = told[-1]
        again = found.delivered.get(key, [])
        unknown = asked[-1].asked > last.asked  # a later one that may or may not count
        if any(s.kind == "ack" for s in told):
            later = replay and self.was_asked(sub, at, "replay", since=last.asked)
            if (sub, seq, True) in self.by_key:  # buried by a replay and redriven: not this one
                again = [d for d in again if d[0] != "redrive"]
            if again and not later:
                yield f"{sub} confirmed the ack of event {seq} in record {last.told}, and gets it again"
            return
        buried = found.dead_of.get((sub, seq))
        out = unknown or self.was_asked(sub, at, "redrive", "purge", since=last.asked)
        most = self.max_fails[sub]
        if last.kind == "reject" or (last.kind == "fail" and most and last.fails + 1 >= most):
            if buried is None and not out:
                yield (f"{sub} had the {last.kind} of event {seq} confirmed in record {last.told}, and "
                       "it is no dead letter")
        elif last.kind == "fail" and buried is None and not out:
            if not any(fails > last.fails for _, fails, _ in again):
                yield (f"{sub} had the fail of event {seq} confirmed in record {last.told}, and it is "
                       f"not counted: {again}")
        event = self.events.get(seq)
        if event and buried and buried[2] != event.body_sum:
            yield f"the dead letter {seq} of {sub} has another body"

    # -- operators --

    def check_operators(self, found, at):
        for sub, asked in self.of_sub.items():
            if sub and asked[0].at <= at:
                yield from self.check_subscription(found, at, sub, asked)
        for told, task, kind, sub, first, last, _ in self.wire.tasks:
            if told > at:
                break
            if found.tasks.get(task, ("",))[0] != kind:
                yield f"{kind} {task} of {sub} was answered in record {told} and is gone"
            elif kind == "replay":
                yield from self.check_replay(found, at, sub, first, last or 0)
        wanted = {}
        for o in self.of_sub.get("", ()):
            if o.at <= at:
                wanted |= {k: (v if o.answered <= at else None) for k, v in o.detail.items()}
        config = json.loads(found.config.get("admin/retention", "{}"))
        for name, value in wanted.items():
            if value is not None and config.get(name) != value:
                yield f"retention's {name} was set to {value} and is {config.get(name)}"

    def check_subscription(self, found, at, sub, asked):
        wanted = {}
        for o in asked:
            if o.at > at:
                break
            change = {}
            if o.what in ("create", "update"):
                change = {k: v for k, v in o.detail.items() if k in ("lease_ms", "max_fails")}
            if o.what in ("pause", "resume"):
                change = {"paused": o.what == "pause"}
            if o.what in ("create", "delete", "source"):
                change[o.what if o.what == "source" else "there"] = o.what != "delete"
            known = o.answered <= at
            wanted |= {k: (v if known else None) for k, v in change.items()}
        is_there = sub in found.subs
        if wanted.get("source") and not any(k.endswith("/" + sub) for k in found.config):
            yield f"source {sub} was made and is gone"
        if wanted.get("there") is not None and wanted["there"] != is_there:
            yield f"subscription {sub} is {'' if is_there else 'not '}there"
        for name in ("paused", "lease_ms", "max_fails"):
            if is_there and wanted.get(name) is not None and found.subs[sub][name] != wanted[name]:
                yield f"{name} of {sub} was set to {wanted[name]} and is {found.subs[sub][name]}"

    def check_replay(self, found, at, sub, first, last):
        """Each event of the range comes, or was acked, or went by retention before it was read: below
        the trim point a record is there only for who had it out already."""
        if self.was_asked(sub, at, "seek", "delete", "purge", "cancel"):
            return
        for seq in range(max(first, found.first), last + 1):
            event, deliver_at = found.journal.get(seq, (None, 0))
            if event is None or deliver_at or not matches(self.wire.filters[sub], event.type):
                continue
            # What it buried may have been redriven, and is no replay's then.
            redriven = self.was_asked(sub, at, "redrive")
            settled = any(s.asked <= at and (s.kind == "ack" or (s.kind != "release" and redriven))
                          for s in self.by_key.get((sub, seq, True), ()))
            if not settled and (sub, seq, True) not in found.delivered and \
                    not any(k[:2] == (sub, seq) and k[2] for k in found.dead):
                yield f"a replay of {sub} has lost event {seq}"
