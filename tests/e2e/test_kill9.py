"""kill -9 under load, again and again. Every publish is ok, fail or unknown, every ack and reject
confirmed or not; after each start: what was ok is there and is delivered, not before its time, unless
its settlement was confirmed; what was confirmed is never delivered again, and what was rejected is a
dead letter; nothing is there that nobody sent.

BELLHOP_KILL_ROUNDS chooses how many rounds, BELLHOP_TEST_SEED when the kills come.
"""

import http.client
import json
import os
import random
import threading
import time

import bhp
from harness import DEADLINE_S, make_secret, signed_headers

ROUNDS = int(os.environ.get("BELLHOP_KILL_ROUNDS", "20"))
SEED = int(os.environ.get("BELLHOP_TEST_SEED", "20261121"))
SECRET = make_secret()
LOST = (bhp.Closed, ConnectionError, BrokenPipeError, TimeoutError, OSError,
        http.client.HTTPException, bhp.ProtocolError)


class History:
    """What every participant saw. One lock; the participants are threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.ok = {}  # id -> seq
        self.ok_http = 0
        self.fail, self.unknown = set(), set()
        self.delivered = {}  # seq -> id
        self.deliveries = 0
        self.confirmed = set()  # seqs
        self.rejected, self.buried = set(), set()  # seqs: asked for, confirmed
        self.due_ms = {}  # id -> when it may come
        self.wrong = []

    def published(self, msg_id, seq):
        with self.changed:
            if self.ok.get(msg_id, seq) != seq:
                self.wrong.append(f"{msg_id} had seq {self.ok[msg_id]} and now {seq}")
            self.ok[msg_id] = seq
            self.ok_http += msg_id.startswith("h")
            self.changed.notify_all()

    def delivery(self, item):
        with self.changed:
            if item.seq in self.confirmed:
                self.wrong.append(f"seq {item.seq} was delivered after its ack was confirmed")
            if self.delivered.setdefault(item.seq, item.id) != item.id:
                self.wrong.append(f"seq {item.seq} changed its id")
            if time.time() * 1000 + 1 < self.due_ms.get(item.id, 0):
                self.wrong.append(f"{item.id} came before its time")
            self.deliveries += 1
            self.changed.notify_all()

    def acked(self, seqs):
        with self.changed:
            self.confirmed.update(seqs)
            self.changed.notify_all()

    def rejects(self, seqs):
        with self.changed:
            self.rejected.update(seqs)

    def buries(self, seqs):
        with self.changed:
            self.buried.update(seqs)
            self.confirmed.update(seqs)  # a dead letter is not delivered either
            self.changed.notify_all()

    def wait(self, condition, timeout, what):
        with self.changed:
            assert self.changed.wait_for(condition, timeout), what


def http_producer(port, history, stop, names):
    """Signed webhooks, one at a time on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        while not stop.is_set():
            msg_id = next(names)
            body = json.dumps({"type": "batch.done", "data": {"id": msg_id}}).encode()
            try:
                connection.request("POST", "/in/src", body, signed_headers(SECRET, body, msg_id))
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (*LOST, ValueError):
                with history.lock:
                    history.unknown.add(msg_id)
                return
            if response.status == 200:
                history.published(msg_id, answer["seq"])
            else:
                with history.lock:
                    history.fail.add(msg_id)
    finally:
        connection.close()


def protocol_producer(port, history, stop, names):
    """Batches of 16 over the worker protocol, four batches in flight; one in 16 is for later."""
    in_flight = {}
    try:
        with bhp.Client(port, name="producer", timeout=DEADLINE_S) as client:
            while not stop.is_set():
                while len(in_flight) < 4:
                    ids = [next(names) for _ in range(16)]
                    rid = next(client.rids)
                    in_flight[rid] = ids
                    due_ms = int(time.time() * 1000) + 100
                    with history.lock:
                        history.due_ms[ids[0]] = due_ms
                    rows = [["t", "", i, "", "", 0, due_ms if i == ids[0] else 0, b"x" * 100]
                            for i in ids]
                    client.send(bhp.PUBLISH, rid, rows)
                rid = min(in_flight)
                frame = client.answer(rid)
                ids = in_flight.pop(rid)
                if frame[0] == bhp.PUBLISHED:
                    for msg_id, seq in zip(ids, frame[2]):
                        history.published(msg_id, seq)
                else:
                    with history.lock:
                        history.fail.update(ids)
    except LOST:
        pass
    with history.lock:
        history.unknown.update(i for ids in in_flight.values() for i in ids)


def worker(port, history, stop, random_source):
    """Takes, acks with confirmation most of the time, rejects some, and releases or fails the rest."""
    try:
        with bhp.Client(port, name="worker", timeout=DEADLINE_S) as client:
            client.subscribe("sub", window=32)
            waiting = {}
            while not stop.is_set():
                try:
                    items = client.take(1, timeout=0.2)
                except TimeoutError:
                    items = []
                items += client.items
                client.items.clear()
                for item in items:
                    history.delivery(item)
                by_tag = {i.tag: i.seq for i in items}
                chosen = [t for t in by_tag if random_source.random() < 0.9]
                rest = [t for t in by_tag if t not in chosen]
                bad = [t for t in rest if random_source.random() < 0.2]
                rest = [t for t in rest if t not in bad]
                if chosen:
                    rid = next(client.rids)
                    waiting[rid] = by_tag, history.acked
                    client.send(bhp.ACK, rid, 1, bhp.ranges_of(chosen), True)
                if bad:
                    rid = next(client.rids)
                    waiting[rid] = by_tag, history.buries
                    history.rejects(by_tag[t] for t in bad)
                    client.send(bhp.NACK, rid, 1, bhp.ranges_of(bad), bhp.REJECT, None, "bad", True)
                if rest:
                    kind = random_source.choice([bhp.RELEASE, bhp.FAIL])
                    client.send(bhp.NACK, 0, 1, bhp.ranges_of(rest), kind, None, "", False)
                while client.frames:
                    frame = client.frames.popleft()
                    if frame[0] == bhp.SETTLED:
                        tags = bhp.tags_of(frame[3])
                        seqs, settled = waiting.pop(frame[1])
                        settled(seqs[t] for t in tags)
                    elif frame[0] == bhp.ERR:
                        with history.lock:
                            history.wrong.append(f"a worker got {frame}")
    except LOST:
        pass


def names(prefix):
    n = 0
    while True:
        n += 1
        yield f"{prefix}-{n}"


def check_journal(broker, history, from_seq):
    """What was ok is in the journal under its seq; what is in the journal was sent by somebody."""
    in_journal = {e["seq"]: e["id"] for e in broker.events(f"&from_seq={from_seq}")}
    ok_here = {seq: i for i, seq in history.ok.items() if seq >= from_seq}
    lost = {seq: i for seq, i in ok_here.items() if in_journal.get(seq) != i}
    assert not lost, f"{len(lost)} events were said to be durable and are lost: {list(lost)[:5]}"
    strangers = set(in_journal.values()) - set(ok_here.values()) - history.unknown
    assert not strangers, f"the journal has what nobody sent: {list(strangers)[:5]}"
    seqs = sorted(in_journal)
    assert seqs == list(range(from_seq, from_seq + len(seqs))), "a gap in the journal"
    assert len(set(in_journal.values())) == len(in_journal), "an id is there twice"
    return from_seq + len(seqs)


def check_dead_letters(broker, history):
    """What was confirmed to be rejected is a dead letter, and nothing else but what was rejected."""
    dead, token = set(), ""
    while True:
        page = broker.ok("GET", "/v1/dead-letters?subscription=sub&page_size=1000"
                         + (f"&page_token={token}" if token else ""))
        dead.update(d["seq"] for d in page["dead_letters"])
        token = page.get("next_page_token", "")
        if not token:
            break
    lost = history.buried - dead
    assert not lost, f"{len(lost)} dead letters were confirmed and are lost: {list(lost)[:5]}"
    assert dead <= history.rejected, f"nobody rejected {list(dead - history.rejected)[:5]}"


def test_kill9_under_load(brokers):
    broker = brokers()
    broker.add_source("src", SECRET)
    broker.add_subscription(max_fails=0, lease_ms=600000,
                            backoff={"min_ms": 1, "max_ms": 20, "factor": 2})
    random_source = random.Random(SEED)
    history = History()
    checked_to = 1
    for round_number in range(ROUNDS):
        stop = threading.Event()
        port = broker.workers_port
        threads = [threading.Thread(target=worker, args=(
            port, history, stop, random.Random(SEED + round_number * 10 + i))) for i in range(2)]
        for thread in threads:
            thread.start()
        # First what is left from the rounds before: delivered, or its ack was confirmed.
        history.wait(lambda: all(s in history.delivered for s in history.ok.values()),
                     60, f"round {round_number}: events that were ok are not delivered")
        # Counted in webhooks: they come one by one, so that a kill falls into one of many turns.
        target = history.ok_http + random_source.randint(30, 250)
        producers = [threading.Thread(target=http_producer, args=(
            broker.http_port, history, stop, names(f"h{round_number}-{i}"))) for i in range(3)]
        producers.append(threading.Thread(target=protocol_producer, args=(
            port, history, stop, names(f"p{round_number}"))))
        for thread in producers:
            thread.start()
        history.wait(lambda: history.ok_http >= target, 60, "the load does not flow")
        broker.kill9()
        stop.set()
        for thread in threads + producers:
            thread.join(DEADLINE_S + 10)
            assert not thread.is_alive()
        broker.start()
        checked_to = check_journal(broker, history, checked_to)
        check_dead_letters(broker, history)
        repeat_unknown(broker, history, random_source)
        assert not history.wrong, history.wrong[:5]
    drain(broker, history)
    check_journal(broker, history, 1)
    check_dead_letters(broker, history)
    report = (f"kill -9 x {ROUNDS}: {len(history.ok)} ok, {len(history.fail)} fail, "
              f"{len(history.unknown)} unknown; {history.deliveries} deliveries, "
              f"{len(history.confirmed)} settlements confirmed, {len(history.buried)} of them rejects; "
              "lost 0, repeated after a confirmed settlement 0")
    print(report)
    (broker.directory / "report.txt").write_text(report + "\n")
    assert len(history.confirmed) > 50 * ROUNDS and len(history.ok) >= 50 * ROUNDS
    assert history.buried and history.due_ms


def repeat_unknown(broker, history, random_source):
    """What a provider does that got no answer: it sends the same again. Once is enough."""
    unknown = sorted(i for i in history.unknown if i.startswith("h") and i not in history.ok)
    for msg_id in random_source.sample(unknown, min(3, len(unknown))):
        body = json.dumps({"type": "batch.done", "data": {"id": msg_id}}).encode()
        status, answer = broker.post_signed("src", SECRET, body, id=msg_id)
        assert status == 200, answer
        history.published(msg_id, answer["seq"])


def drain(broker, history):
    """One worker takes and acks all that is left, until the floor is the journal's end."""
    last = broker.ok("GET", "/v1/status")["journal"]["last_seq"]
    end = time.monotonic() + 120
    with bhp.Client(broker.workers_port) as client:
        client.subscribe("sub", window=500)
        # The floor is the live cursor's: what waited on disk is above it, also when it is out.
        while ((said := broker.subscription())["floor"] <= last
               or said["delayed"] + said["ready"] + said["leased"] > 0):
            assert time.monotonic() < end, said
            try:
                items = client.take(1, timeout=0.1)
            except TimeoutError:
                continue
            items += client.items
            client.items.clear()
            for item in items:
                history.delivery(item)
            settled = client.ack(items)
            seqs = {i.tag: i.seq for i in items}
            history.acked(seqs[t] for t in settled.ok)
    assert not history.wrong, history.wrong[:5]
    missing = [i for i, seq in history.ok.items() if seq not in history.delivered]
    assert not missing, f"{len(missing)} events were never delivered: {missing[:5]}"
