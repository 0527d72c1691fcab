"""Judges a history. check(entries) returns the problems found and the numbers of the report.

Every rule is a function that yields Problem(kind, text, seq or token). A rule holds whatever the
timing: it calls something wrong only when no order of events inside the broker explains what the
clients saw. The kinds, and the promise of docs/guarantees.md behind each:

    lost            an event that was acknowledged, or is in the journal, never reached a
                    subscription that wants it, or was never finished (G1, G2)
    unexpected      somebody was given, or finds in the journal, what nobody sent, what was refused
                    or what the subscription does not want
    altered         an event with other bytes than were sent
    two-seqs        an id has two seqs, or a duplicate is none (G4)
    after-confirm   handed out, granted, confirmed again or dead although its ack was confirmed (G3)
    order           with order: key, an event came before an earlier one of its key was done (G5)
    together        two workers held an event, or a key, at the same time
    counters        fails or deliveries went back, or are more than can be
    early           handed out before its deliver_at
    unexplained     handed out twice without a cause that docs/guarantees.md names
    dead-letter     one that should not be there, or is missing
    refused         the broker called a worker's frame wrong
    unfinished      at the end something was not settled
"""

import collections

from events import COMMAND, COMMAND_CONCURRENCY, LEASE_MS, ORDERED, SUBSCRIPTIONS
from facts import LIVE, NEVER, REPLAY, Facts

Problem = collections.namedtuple("Problem", "kind text seq")
# ERR numbers that a worker may get though it did nothing wrong: timeout, shutting_down.
ERRORS_ALLOWED = {106, 503}


def published(f):
    """Acknowledgements agree with each other and with the journal."""
    owner = {}
    for p in f.publications.values():
        if len(p.seqs) > 1:
            yield Problem("two-seqs", f"{p.token} (id {p.id!r}) has seqs {sorted(p.seqs)}",
                          min(p.seqs))
        for seq in p.seqs:
            other = owner.setdefault(seq, p.token)
            if other != p.token:
                yield Problem("two-seqs", f"seq {seq} was said of {other} and {p.token}", seq)
            row = f.journal.get(seq)
            if row is None or row["tok"] != p.token:
                yield Problem("lost", f"{p.token} was acknowledged as seq {seq} and is not in the "
                                      f"journal there", seq)
    for e in f.entries:
        if e["f"] != "publish" or e["type"] != "ok":
            continue
        asked = f.operations[e["op"]]["i"]
        before = set()
        fresh = []
        for index, (token, seq) in enumerate(zip(e["toks"], e["seqs"])):
            p, duplicate = f.publications[token], index in e["dups"]
            if duplicate and p.tries[0] == asked and token not in before:
                yield Problem("two-seqs", f"{token} is called a duplicate at its first try", seq)
            if not duplicate and (token in before or p.seqs.get(seq, NEVER) < asked):
                yield Problem("two-seqs", f"{token} was taken in again as seq {seq}", seq)
            before.add(token)
            fresh += [] if duplicate else [seq]
        if fresh != sorted(fresh):
            yield Problem("two-seqs", f"the seqs of a batch are not in its order: {fresh}",
                          fresh[0])


def journal(f):
    """What is in the journal was sent, is unchanged, and is there once."""
    tokens = {}
    for row in f.journal_rows:
        yield from _known(f, row, "the journal has")
        other = tokens.setdefault(row["tok"], row["seq"])
        if other != row["seq"]:
            yield Problem("two-seqs", f"{row['tok']} is seq {other} and {row['seq']}", other)
    seqs = [row["seq"] for row in f.journal_rows]
    if seqs != list(range(1, len(seqs) + 1)):
        yield Problem("lost", f"the journal has gaps: {len(seqs)} events up to {max(seqs)}", None)


def _known(f, e, words):
    p = f.publications.get(e["tok"])
    if p is None:
        yield Problem("unexpected", f"{words} seq {e['seq']} ({e['tok']!r}), which nobody sent",
                      e["seq"])
    elif p.outcome() == "refused":
        yield Problem("unexpected", f"{words} seq {e['seq']}: {p.token}, which was refused",
                      e["seq"])
    if e.get("wrong"):
        yield Problem("altered", f"{words} seq {e['seq']}: {e['wrong']}", e["seq"])


def taken(f):
    """What workers were given is what was sent and what their subscription wants."""
    for e in f.entries:
        if e["f"] != "take":
            continue
        yield from _known(f, e, f"{e['sub']} was given")
        p = f.publications.get(e["tok"])
        row = f.journal.get(e["seq"])
        if row is not None and row["tok"] != e["tok"]:
            yield Problem("unexpected", f"seq {e['seq']} is {row['tok']} in the journal and was "
                                        f"handed out as {e['tok']}", e["seq"])
        if row is None:
            yield Problem("lost", f"seq {e['seq']} was handed out and is not in the journal",
                          e["seq"])
        if p is not None and e["sub"] not in p.subs:
            yield Problem("unexpected", f"{e['sub']} does not want {p.token}", e["seq"])
        if p is not None and e["wall"] < p.due:
            yield Problem("early", f"{p.token} came {p.due - e['wall']} ms before its time",
                          e["seq"])


def delivered(f):
    """Everything in the journal was seen by each subscription that wants it, and finished."""
    dead = {(d["sub"], d["seq"], d["replay"] != 0) for d in f.dead}
    for row in f.journal_rows:
        p = f.publications.get(row["tok"])
        for sub in p.subs if p else ():
            if sub == COMMAND or (sub, row["seq"], False) in dead:
                continue
            holds = f.by_event[sub, row["seq"], LIVE]
            how = p.outcome()
            if not holds:
                yield Problem("lost", f"{p.token}, seq {row['seq']}, {how}: never seen by {sub}",
                              row["seq"])
            elif not any(h.asked("ack", "quiet-ack", "late", "reject") for h in holds):
                yield Problem("lost", f"{p.token}, seq {row['seq']}, {how}: {sub} saw it, nobody "
                                      f"acked it, and it did not come again", row["seq"])
    for task in f.tasks:
        if task["f"] == "replay":
            yield from _replayed(f, task, dead)


def _replayed(f, task, dead):
    sub = task["sub"]
    for seq in range(task["from_seq"], task["to_seq"] + 1):
        p = f.publications.get(f.journal.get(seq, {}).get("tok"))
        # A delayed one is left out when its time has not come.
        if p is None or sub not in p.subs or p.due or (sub, seq, True) in dead:
            continue
        if not f.by_event[sub, seq, REPLAY]:
            yield Problem("lost", f"replay {task['id']} did not bring seq {seq} to {sub}", seq)


def commands(f):
    """The same for what `bellhop work` was given."""
    seen = set()
    # When the command is killed, the programs that it runs see the end of a cut body.
    cut = COMMAND_CONCURRENCY * sum(e["f"] == "signal" and e["signal"] == 9 for e in f.entries)
    for e in f.programs:
        p = f.publications.get(f.journal.get(e["seq"], {}).get("tok"))
        if p is None or COMMAND not in p.subs:
            yield Problem("unexpected", f"the program was given seq {e['seq']}", e["seq"])
        elif p.sha == e["sha"] and p.id == e["id"]:
            seen.add(e["seq"])
        elif cut > 0 and p.id == e["id"]:
            cut -= 1
        else:
            yield Problem("altered", f"the program was given other bytes of {p.token}", e["seq"])
    acks = collections.Counter(v["seq"] for v in f.verdicts if v["verdict"] == "ack")
    for seq, count in acks.items():
        if count > 1:
            yield Problem("after-confirm", f"`bellhop work` had seq {seq} acknowledged {count} "
                                           f"times", seq)
    dead = {d["seq"] for d in f.dead if d["sub"] == COMMAND}
    for row in f.journal_rows:
        p = f.publications.get(row["tok"])
        if p and COMMAND in p.subs and row["seq"] not in seen | dead:
            yield Problem("lost", f"{p.token}, seq {row['seq']}: `bellhop work` never saw it",
                          row["seq"])
        if row["seq"] in acks and row["seq"] in dead:
            yield Problem("after-confirm", f"seq {row['seq']} was acknowledged and is dead",
                          row["seq"])


def confirmed(f):
    """A confirmed ack is final."""
    dead = {(d["sub"], d["seq"], REPLAY if d["replay"] else LIVE) for d in f.dead}
    for (sub, seq, domain), holds in f.by_event.items():
        acks = [(place, h) for h in holds for place in h.confirmed()]
        if not acks or not f.domain_is_one(sub, seq, domain):
            continue
        if len(acks) > 1:
            yield Problem("after-confirm", f"{sub} had seq {seq} ({domain}) confirmed twice, on "
                                           f"{[(h.c, h.tag) for _, h in acks]}", seq)
        if (sub, seq, domain) in dead:
            yield Problem("after-confirm", f"the ack of seq {seq} on {sub} was confirmed, and it "
                                           f"is a dead letter", seq)
        for place, acked in acks:
            for hold in holds:
                why = _after(f, acked, place, hold)
                if why:
                    yield Problem("after-confirm", f"{sub} was given seq {seq} ({domain}) on "
                                  f"{hold.c} tag {hold.tag} after its ack on {acked.c} tag "
                                  f"{acked.tag} was confirmed: {why}", seq)


def _after(f, acked, place, hold):
    """Why this hold is certainly from after the answer at `place`; "" when it need not be. What
    was read later may have been handed out before, and waited in a slow connection."""
    if hold is acked:
        return ""
    if hold.incarnation > acked.incarnation:
        return "the broker was started again between them"
    if hold.incarnation < acked.incarnation:
        return ""
    if hold.c == acked.c and hold.place > place:
        return "it came later on the same connection"
    if f.connections[hold.c]["connect"]["i"] > place:
        return "its connection was made later"
    same_count = hold.taken and acked.taken and hold.redriven == acked.redriven
    if same_count and hold.taken["n"] > acked.taken["n"]:
        return f"it is hand-out {hold.taken['n']}, the ack was of {acked.taken['n']}"
    return ""


def in_order(f):
    """With order: key, an event comes when all earlier ones of its key are done."""
    given_up = {d["seq"] for d in f.dead if d["sub"] == ORDERED}
    given_up |= {h.seq for h in f.holds.values() if h.sub == ORDERED and h.redriven}
    latest = {}  # key -> (place of the last end, seq)
    for row in sorted(f.journal_rows, key=lambda r: r["seq"]):
        p, seq = f.publications.get(row["tok"]), row["seq"]
        if p is None or ORDERED not in p.subs:
            continue
        holds = [h for h in f.by_event[ORDERED, seq, LIVE]]
        first = min((h.place for h in holds if not h.redriven), default=NEVER)
        before = latest.get(p.key, (-1, 0))
        if first < before[0]:
            yield Problem("order", f"seq {seq} of {p.key} was handed out before seq {before[1]} "
                                   f"of the same key was done", seq)
        ends = [i for h in holds for i in h.asked("ack", "quiet-ack", "late", "reject")]
        end = -1 if seq in given_up else min(ends, default=NEVER)
        latest[p.key] = max(before, (end, seq))


def alone(f):
    """A delivery whose settlement was ok was held from when it came until that was asked. Two such
    times of one event, or of one key, must not overlap."""
    times = collections.defaultdict(list)
    for hold in f.holds.values():
        asked = [ask["i"] for ask, said, _ in hold.answers if said == "ok"]
        if not asked:
            continue
        span = (hold.place, max(asked), hold)
        if f.domain_is_one(hold.sub, hold.seq, hold.domain):
            times["event", hold.sub, hold.seq, hold.domain].append(span)
        p = f.publications.get(f.journal.get(hold.seq, {}).get("tok"))
        if hold.sub == ORDERED and p:
            times["key", hold.sub, p.key].append(span)
    for what, spans in times.items():
        spans.sort(key=lambda s: s[:2])
        until, a = -1, None
        for begin, end, b in spans:
            if begin < until:
                yield Problem("together", f"{what}: seq {a.seq} on {a.c} tag {a.tag} and seq "
                              f"{b.seq} on {b.c} tag {b.tag} were held at the same time", b.seq)
            until, a = max((until, a), (end, b), key=lambda one: one[0])


def counters(f):
    for (sub, seq, domain), holds in f.by_event.items():
        takes = [h for h in holds if h.taken]
        max_fails = SUBSCRIPTIONS[sub][0]["max_fails"] or NEVER
        for h in takes:
            if h.taken["fails"] >= h.taken["n"] or h.taken["fails"] >= max_fails:
                yield Problem("counters", f"{sub} seq {seq}: {h.taken['fails']} fails in hand-out "
                                          f"{h.taken['n']}", seq)
        if not f.domain_is_one(sub, seq, domain):
            continue
        takes.sort(key=_rank)
        for a, b in zip(takes, takes[1:]):
            again = b.redriven and (not a.redriven or f.redrives(sub) > 1)
            if b.taken["fails"] < a.taken["fails"] and not again:
                yield Problem("counters", f"{sub} seq {seq}: {a.taken['fails']} fails, later "
                                          f"{b.taken['fails']}", seq)
            if a.incarnation == b.incarnation and a.taken["n"] == b.taken["n"]:
                yield Problem("counters", f"{sub} seq {seq}: two hand-outs number {a.taken['n']}",
                              seq)
            if a.c == b.c and a.place > b.place:
                yield Problem("counters", f"{sub} seq {seq}: deliveries went back on {a.c}", seq)


def _rank(hold):
    """The order of hand-outs inside the broker, as far as it can be known."""
    return hold.incarnation, hold.taken["n"], hold.place


def duplicates(f, causes):
    """Why was it handed out again? Counts the causes; without one it is a problem."""
    restarts = [e for e in f.entries if e["f"] == "start"]
    killed = {e["inc"]: e["killed"] for e in restarts}
    for (sub, seq, domain), holds in f.by_event.items():
        takes = sorted((h for h in holds if h.taken), key=_rank)
        if domain == REPLAY and takes:
            causes["replay"] += 1
        for a, b in zip(takes, takes[1:]):
            cause = _cause(f, a, b, killed)
            if cause:
                causes[cause] += 1
            else:
                yield Problem("unexplained", f"{sub} seq {seq} ({domain}) on {a.c} tag {a.tag} "
                              f"and again on {b.c} tag {b.tag}, though nothing had happened to "
                              f"the first", seq)


def _cause(f, a, b, killed):
    if b.redriven and (not a.redriven or f.redrives(a.sub) > 1):
        return "redrive"
    if not f.domain_is_one(a.sub, a.seq, a.domain):
        return "replay"
    # Who held it last: b came after it was granted to its worker again, or that is not known.
    for grant in a.grants:
        later = b.c == grant.c or f.connections[b.c]["connect"]["i"] > grant.place
        if later and b.incarnation >= grant.incarnation:
            a = grant
    if b.incarnation > a.incarnation:
        kills = [killed.get(i, False) for i in range(a.incarnation + 1, b.incarnation + 1)]
        unconfirmed = a.asked("quiet-ack") or a.asked("ack", "late")
        if any(kills):
            return "kill -9, ack not confirmed" if unconfirmed else "kill -9"
        return "stop"
    if a.asked("fail", "release", "elsewhere"):
        return "nack"
    if a.revoked:
        return "lease"
    connection = f.connections[a.c]
    if connection["left"] < b.place:
        return "worker left"
    if connection["broken"]:
        return "connection"  # the broker may have known of it before the worker did
    # A worker that vanishes has perhaps not read that its lease ran out. It did not run out before
    # its time, though.
    held_ms = f.entries[b.place]["t"] - connection["connect"]["t"]
    return "lease" if connection["deaf_end"] and held_ms >= LEASE_MS - 2 else ""


def dead_letters(f):
    seen = set()
    rejects = {(h.sub, h.seq, h.domain) for h in f.holds.values() if h.asked("reject")}
    for d in f.dead:
        yield from _known(f, d, f"the dead letters of {d['sub']} have")
        key = d["sub"], d["seq"], REPLAY if d["replay"] else LIVE
        if (d["sub"], d["seq"], d["replay"]) in seen:
            yield Problem("dead-letter", f"{key} is dead twice", d["seq"])
        seen.add((d["sub"], d["seq"], d["replay"]))
        max_fails = SUBSCRIPTIONS[d["sub"]][0]["max_fails"]
        if d["reason"] == "max_fails" and (d["fails"] != max_fails or d["deliveries"] < max_fails):
            yield Problem("dead-letter", f"{key} died of {d['fails']} fails in {d['deliveries']} "
                                         f"deliveries, {max_fails} are needed", d["seq"])
        if d["reason"] == "rejected" and d["sub"] != COMMAND and key not in rejects:
            yield Problem("dead-letter", f"{key} is called rejected, and nobody did", d["seq"])
    dead = {key[:2] for key in seen}
    for (sub, seq, domain), holds in f.by_event.items():
        rejected = any(ask["kind"] == "reject" for h in holds for ask, _ in h.answered("nack"))
        back = any(h.redriven for h in holds)
        if rejected and (sub, seq) not in dead and not back and domain == LIVE:
            yield Problem("dead-letter", f"the reject of seq {seq} on {sub} was confirmed, and it "
                                         f"is not a dead letter", seq)


def claims(f):
    for entry, lost in f.claims:
        if len(lost) > len(entry["claims"]) - entry["resumed"]:
            yield Problem("refused", f"{entry['c']}: {entry['resumed']} of "
                          f"{len(entry['claims'])} claims were granted and {len(lost)} refused",
                          None)
    for h in f.holds.values():
        if any(ask["kind"] == "again" for ask, _ in h.answered("ack")):
            yield Problem("after-confirm", f"{h.sub} seq {h.seq} on {h.c} tag {h.tag} was settled "
                                           f"before, and again with ok", h.seq)
    for e in f.errors:
        if e["number"] not in ERRORS_ALLOWED:
            yield Problem("refused", f"{e['c']}: ERR {e['number']}: {e['why']}", None)


def finished(f):
    for sub, s in f.stats.items():
        open_ = {k: s[k] for k in ("ready", "leased", "delayed", "blocked", "backlog", "replays")
                 if s[k]}
        if open_ or s["floor"] <= len(f.journal):
            yield Problem("unfinished", f"{sub} did not settle: {open_}, floor {s['floor']}", None)
        dead = sum(d["sub"] == sub for d in f.dead)
        if s["dead"] != dead:
            yield Problem("unfinished", f"{sub} counts {s['dead']} dead letters, it has {dead}",
                          None)


RULES = (published, journal, taken, delivered, commands, confirmed, in_order, alone, counters,
         dead_letters, claims, finished)


def check(entries):
    """(problems, numbers, causes of duplicates)."""
    f = Facts(entries)
    causes = collections.Counter()
    problems = [problem for rule in RULES for problem in rule(f)]
    problems += duplicates(f, causes)
    outcomes = collections.Counter(p.outcome() for p in f.publications.values())
    kinds = collections.Counter(p.kind for p in problems)
    numbers = {
        "acknowledged": outcomes["acknowledged"], "refused": outcomes["refused"],
        "unknown": outcomes["unknown"],
        "  of them journaled": len(f.journal) - outcomes["acknowledged"],
        "delivered": sum(e["f"] == "take" for e in entries), "programs run": len(f.programs),
        "acks confirmed": sum(len(h.confirmed()) for h in f.holds.values()),
        "claims granted": len(f.granted), "dead letters": len(f.dead),
        "duplicates": sum(causes.values()), "lost": kinds["lost"],
        "unexpected": kinds["unexpected"], "other problems": len(problems) - kinds["lost"]
        - kinds["unexpected"],
        "kills": f.counts["kill"], "stops": f.counts["stop"],
        "cuts": sum(e.get("touched") or 0 for e in entries if e["f"] in ("cut", "mute")),
        "half-opens": sum(e.get("touched") or 0 for e in entries if e["f"] == "half_open"),
        **{k: f.end[k] for k in ("seconds", "seed") if k in f.end}}
    return problems, numbers, causes


def table(numbers, causes):
    """The report as text."""
    rows = []
    for name, value in numbers.items():
        rows.append((name, value))
        if name == "duplicates":
            rows += [(f"  {cause}", count) for cause, count in sorted(causes.items())]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value:>9}" for name, value in rows)


def trace(entries, seq, most=60):
    """The entries that tell of a seq, as lines of text."""
    tags, connections, found = set(), set(), []
    for e in entries:
        about = e.get("seq") == seq or seq in e.get("seqs", ())
        claims = [claim for claim in e.get("claims", ()) if claim[1] == seq]
        if e["f"] == "take" and about:
            tags.add((e["c"], e["sub"], e["tag"]))
            connections.add(e["c"])
        if claims:
            tags.update((e["c"], e["sub"], claim[0]) for claim in claims)
            connections.add(e["c"])
        mentioned = [tag for name in ("tags", "oks", "already", "stale") for tag in e.get(name, ())
                     if (e.get("c"), e.get("sub"), tag) in tags]
        ends = e["f"] in ("lost", "close") and e["c"] in connections
        if about or claims or mentioned or ends or e["f"] in ("kill", "stop"):
            found.append((e, claims, mentioned))
    first = next((n for n, row in enumerate(found) if row[0]["f"] not in ("kill", "stop")), 0)
    return [_line(*row) for row in found[first:][:most]]


def _line(entry, claims, mentioned):
    left_out = ("i", "t", "process", "type", "f", "tags", "claims", "toks", "seqs", "dups")
    rest = {k: v for k, v in entry.items() if k not in left_out and v not in ([], None)}
    for name in ("oks", "already", "stale"):
        if name in rest:
            rest[name] = [tag for tag in rest[name] if tag in mentioned]
    if claims:
        rest["claims"] = claims
    elif mentioned:
        rest["tags"] = mentioned
    text = " ".join(f"{k}={v}" for k, v in rest.items())
    return (f"{entry['i']:>6} {entry['t'] / 1000:8.3f} s  {entry['process']:<10} "
            f"{entry['type']:<6} {entry['f']:<9} {text}")
