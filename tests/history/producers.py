"""Producers: every publish ends as ok, fail or info (nobody knows), and what nobody knows is sent
again under the same id, or given up.

Each entry "publish" names an operation (op) and the tokens of its events; its end says which seqs
they got and which were duplicates.
"""

import http.client
import itertools
import json
import random
import subprocess
import threading

import bhp
from events import SOURCE
from harness import BUILD, broker_env

TIMEOUT_S = 2.5
LOST = (bhp.Closed, OSError, http.client.HTTPException)
TRIES_MAX = 8
OPS = itertools.count(1)


class Producer(threading.Thread):
    """What the kinds have in common. A kind has KIND, TYPES and send(events): ("ok", seqs,
    duplicates) or ("fail", why); it raises one of LOST when nobody knows."""

    def __init__(self, run, number):
        super().__init__(name=f"{self.NAME}-{number}")
        self.run_, self.history, self.book = run, run.history, run.book
        self.rng = random.Random(f"{run.seed} {self.name}")
        self.sent = []  # events that were acknowledged, to be sent again

    def run(self):
        try:
            while not self.run_.producers_stop.wait(self.rng.uniform(0, 2 * self.PAUSE_S)):
                self.publish(self.choose())
        except Exception as problem:
            self.run_.fail(self.name, problem)
        finally:
            self.disconnect()

    def choose(self):
        """Fresh events, sometimes one among them that was published before, or a wrong one."""
        if self.rng.random() < 0.02:
            return [self.book.make(self.name, self.rng, self.KIND, self.TYPES, bad=True)]
        count = self.rng.randint(1, self.BATCH)
        events = [self.book.make(self.name, self.rng, self.KIND, self.TYPES) for _ in range(count)]
        if self.sent and self.rng.random() < 0.08:
            events[-1] = self.rng.choice(self.sent)
        if self.BATCH > 1 and self.rng.random() < 0.05 and events[0].id:
            events.append(events[0])
        return events

    def publish(self, events):
        """Until it is ok or refused, unless it cannot be repeated or is given up."""
        patient = self.rng.random() < 0.85
        for _ in range(TRIES_MAX):
            outcome = self.attempt(events)
            if outcome[0] == "ok":
                self.sent = (self.sent + [e for e in events if e.id])[-50:]
            retry = outcome[0] == "info" or outcome[1] == "retry"
            if not retry or not patient or not all(e.id for e in events):
                return
            if self.run_.producers_stop.wait(self.rng.uniform(0, 0.3)):
                return

    def attempt(self, events):
        op = next(OPS)
        about = {"op": op, "door": self.NAME, "toks": [e.token for e in events]}
        self.history.add(self.name, "invoke", "publish", **about)
        try:
            outcome = self.send(events)
        except LOST as problem:
            self.disconnect()
            outcome = ("info", repr(problem))
        if outcome[0] == "ok":
            about |= {"seqs": outcome[1], "dups": sorted(outcome[2])}
        else:
            about["why"] = outcome[-1]
        self.history.add(self.name, outcome[0], "publish", **about)
        return outcome

    def disconnect(self):
        pass


class HttpProducer(Producer):
    """POST /v1/events with one event, on a connection that is kept."""
    NAME, KIND, TYPES, BATCH, PAUSE_S = "http", "json", ("k.", "p.", "m."), 1, 0.02
    connection = None

    def request(self, path, body, headers):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(
                "127.0.0.1", self.run_.proxy.port("http"), timeout=TIMEOUT_S)
        self.connection.request("POST", path, body, headers)
        response = self.connection.getresponse()
        text = response.read()
        if response.will_close:
            self.disconnect()
        try:
            answer = json.loads(text)
        except ValueError as problem:
            raise http.client.HTTPException(f"{response.status} {text[:80]!r}") from problem
        if response.status == 200:
            return "ok", answer
        retry = "retry" if response.status in (408, 429, 503) else ""
        return "fail", retry, answer["error"]["code"]

    def send(self, events):
        body = events[0].as_json().encode()
        outcome = self.request("/v1/events", body, {"content-type": "application/json"})
        return one_answer(outcome)

    def disconnect(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def one_answer(outcome):
    if outcome[0] != "ok":
        return outcome
    return "ok", [outcome[1]["seq"]], [0] if outcome[1].get("duplicate") else []


class BatchProducer(HttpProducer):
    """The same with {"events": [...]}: all or none."""
    NAME, BATCH, PAUSE_S = "batch", 12, 0.1

    def send(self, events):
        body = ('{"events":[' + ",".join(e.as_json() for e in events) + "]}").encode()
        outcome = self.request("/v1/events", body, {"content-type": "application/json"})
        if outcome[0] != "ok":
            return outcome
        rows = outcome[1]["events"]
        return ("ok", [r["seq"] for r in rows],
                [i for i, r in enumerate(rows) if r.get("duplicate")])


class SignedProducer(HttpProducer):
    """Webhooks as a provider sends them."""
    NAME, KIND, PAUSE_S = "signed", "signed", 0.03

    def send(self, events):
        return one_answer(self.request(f"/in/{SOURCE}", events[0].body,
                                       events[0].signed_headers()))


class FrameProducer(Producer):
    """PUBLISH of the worker protocol. JSON events may have been tried at the HTTP door before."""
    NAME, KIND, TYPES, BATCH, PAUSE_S = "frame", "binary", ("k.", "p.", "m."), 16, 0.12
    client = None

    def send(self, events):
        if self.client is None:
            self.client = bhp.Client(self.run_.proxy.port("workers"), name=self.name,
                                     timeout=TIMEOUT_S)
        frame = self.client.request(bhp.PUBLISH, [e.as_row() for e in events])
        if frame[0] == bhp.PUBLISHED:
            return "ok", frame[2], frame[3] if len(frame) > 3 and frame[3] else []
        err = bhp.Client.as_err(frame)
        if err.fatal:
            self.disconnect()
        return "fail", "retry" if err.number >= 500 else "", err.word

    def disconnect(self):
        if self.client is not None:
            self.client.close()
            self.client = None


class TwoDoorProducer(FrameProducer):
    """JSON events that go to one of two doors, and again to any of them when nobody knows: it is
    the same id at both."""
    NAME, KIND, BATCH, PAUSE_S = "doors", "json", 6, 0.12

    def __init__(self, run, number):
        super().__init__(run, number)
        self.other = BatchProducer(run, f"of-{self.name}")

    def send(self, events):
        if self.rng.random() < 0.5:
            return super().send(events)
        return self.other.send(events)

    def disconnect(self):
        super().disconnect()
        self.other.disconnect()


class CommandProducer(Producer):
    """`bellhop publish --ndjson`: what it printed was answered, of the rest nobody knows."""
    NAME, KIND, TYPES, BATCH, PAUSE_S = "command", "json", ("c.",), 5, 0.5

    def send(self, events):
        lines = "".join(e.as_json() + "\n" for e in events).encode()
        url = f"http://127.0.0.1:{self.run_.proxy.port('http')}"
        try:
            done = subprocess.run([str(BUILD / "bellhop"), "publish", "--ndjson", "--json"],
                                  input=lines, capture_output=True, timeout=3 * TIMEOUT_S,
                                  env={**broker_env(), "BELLHOP_URL": url})
        except subprocess.TimeoutExpired as problem:
            raise TimeoutError("bellhop publish") from problem
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode == 1 and not rows:  # the broker refused, and said so
            return "fail", "retry", done.stderr.decode()[:200]
        # A long input goes in several requests; what was answered before one failed is not worth
        # a case of its own.
        if done.returncode != 0 or len(rows) != len(events):
            raise ConnectionError(f"{len(rows)} answers, {done.stderr.decode()[:200]}")
        return ("ok", [r["seq"] for r in rows],
                [i for i, r in enumerate(rows) if r.get("duplicate")])


KINDS = ((HttpProducer, 2), (BatchProducer, 1), (SignedProducer, 2), (FrameProducer, 1),
         (TwoDoorProducer, 1), (CommandProducer, 1))


def make(run):
    return [kind(run, n + 1) for kind, count in KINDS for n in range(count)]
