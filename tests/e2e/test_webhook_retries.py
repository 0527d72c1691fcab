"""Receivers that answer anything but 2xx, or not at all: what becomes of each, and what is told.

The times of the policy are scaled by flags; the 24 hours themselves are a unit test in virtual time
(tests/unit/test_engine_webhook_policy.c).
"""

import time
from datetime import datetime, timedelta
from email.utils import formatdate

import pytest
from harness import LOCAL, Broker, verify, wait_for
from receiver import (CLOSE, GARBAGE, HUGE, HUGE_BYTES, NEVER, Answer, Receiver, drip, free_port,
                      make_certificate, redirect, retry_after)

FAST = (*LOCAL, "--webhook-timeout", "700ms", "--webhook-backoff-min", "50ms",
        "--webhook-backoff-max", "200ms")
TEXT = b"x" * 600  # more than is kept of a response

# What the path answers before its 200, and what is told of each such attempt: (status, error).
ROWS = {
    "500": ([Answer(500, (), b"no luck " + TEXT)], (500, "status")),
    "404": ([404], (404, "status")),
    "400": ([400], (400, "status")),
    "429": ([retry_after(429, 1)], (429, "status")),
    "503": ([retry_after(503, 1)], (503, "status")),
    "503_date": ([lambda _: retry_after(503, formatdate(time.time() + 2, usegmt=True))],
                 (503, "status")),
    "502_bare": ([502], (502, "status")),
    "binary": ([Answer(500, (), bytes(range(256)))], (500, "status")),
    "cut_character": ([Answer(500, (), b"x" + "é".encode() * 300)], (500, "status")),
    "504_nonsense": ([retry_after(504, "soon")], (504, "status")),
    "301": ([redirect("/elsewhere", 301)], (301, "status")),
    "307": ([redirect("/elsewhere", 307)], (307, "status")),
    "304": ([304], (304, "status")),
    "never": ([NEVER], (0, "timeout")),
    "drip": ([drip(0.3)], (0, "timeout")),
    "drip_body": ([Answer(500, (), b"late", "drip", 0.02)], (0, "timeout")),
    "closed": ([CLOSE], (0, "broken")),
    "garbage": ([GARBAGE], (0, "broken")),
    "seventh": ([500, 503, 301, NEVER, 404, 500], None),
}
# On a connection of its own: on one that was used before, a request that is cut is sent once more.
ALONE = ("closed", "garbage")


class Table:
    """One broker and a webhook for every row, all at work at the same time on one event."""

    def __init__(self, directory):
        self.receiver, *others = (Receiver().start() for _ in range(1 + len(ALONE)))
        self.receivers = {name: self.receiver for name in ROWS} | dict(zip(ALONE, others))
        self.broker = Broker(directory, *FAST)
        self.broker.start()
        self.hooks = {}
        for name, (steps, _) in ROWS.items():
            receiver = self.receivers[name]
            receiver.script("/" + name, *steps, 200)
            self.hooks[name] = self.broker.add_webhook(receiver.url("/" + name), "first")
        self.hooks["refused"] = self.broker.add_webhook(f"http://127.0.0.1:{free_port()}/", "first")
        self.seq = self.broker.publish("first", data={"text": "é"})

    def end(self):
        try:
            self.broker.finish()
        finally:
            for receiver in self.receivers.values():
                receiver.close()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    made = Table(tmp_path_factory.mktemp("table"))
    yield made
    made.end()


@pytest.fixture
def broker(brokers):
    return brokers(*FAST)


def when(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@pytest.mark.parametrize("name", ROWS)
def test_a_failure_is_told_and_tried_again(table, name):
    steps, expected = ROWS[name]
    hook = table.hooks[name]
    requests = table.receivers[name].wait(len(steps) + 1, "/" + name)
    attempts = table.broker.wait_attempts(hook["id"], lambda a: len(a) == len(steps) + 1)
    success, *failures = attempts
    assert (success["ok"], success["status"], success["attempt"]) == (True, 200, len(steps) + 1)
    assert "error" not in success and "next_attempt_at" not in success
    for number, failure in enumerate(reversed(failures), 1):
        assert failure["ok"] is False and failure["attempt"] == number
        assert (failure["seq"], failure["type"]) == (table.seq, "first")
        assert when(failure["next_attempt_at"]) > when(failure["time"])
        if expected:
            assert (failure.get("status", 0), failure.get("error")) == expected
        if failure.get("error") != "status":
            assert failure["detail"]
    # One id, a fresh time and signature for each, and the same bytes.
    assert len({r.id for r in requests}) == 1 and len({r.body for r in requests}) == 1
    for request in requests:
        assert verify(hook["new_signing_secret"], request.headers, request.body)
        assert abs(int(request.headers["webhook-timestamp"]) - request.wall_s) <= 2
    stats = table.broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 1)["stats"]
    assert (stats["failed"], stats["internal_errors"]) == (len(steps), 0)
    assert table.receiver.count("/elsewhere") == 0


def test_mistake_11_a_retry_is_signed_with_its_own_time(brokers, receiver):
    """Of the mistakes of test_ingest_mistakes.py the one that a sender makes: a receiver refuses a
    time that is minutes old, so a retry that repeats the first one's fails for ever."""
    broker = brokers(*LOCAL, "--webhook-backoff-min", "1200ms", "--webhook-backoff-max", "1200ms")
    receiver.script("/hook", 500, 200)
    hook = broker.add_webhook(receiver.url("/hook"))
    broker.publish()
    first, again = receiver.wait(2, "/hook")
    assert first.id == again.id and first.body == again.body
    assert int(again.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    secret = hook["new_signing_secret"]
    assert verify(secret, again.headers, again.body)
    mixed = {**again.headers, "webhook-signature": first.headers["webhook-signature"]}
    assert not verify(secret, mixed, again.body)


def test_the_first_bytes_of_a_response_are_kept(table):
    table.receiver.wait(2, "/500")
    failure = table.broker.wait_attempts(table.hooks["500"]["id"], lambda a: len(a) == 2)[1]
    assert failure["response"] == ("no luck " + TEXT.decode())[:512]
    assert failure["duration_ms"] >= 0


@pytest.mark.parametrize("name", ["429", "503", "503_date"])
def test_retry_after_is_waited_for(table, name):
    first, second = table.receiver.wait(2, "/" + name)[:2]
    # Seconds are whole ones: a date two of them ahead is more than one away.
    assert second.time_s - first.time_s >= 0.95
    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])


def test_nobody_listens(table):
    failure = table.broker.wait_attempts(table.hooks["refused"]["id"], bool)[-1]
    assert (failure["ok"], failure.get("error"), failure.get("status", 0)) == (False, "connect", 0)
    assert failure["detail"] and failure["attempt"] == 1


def test_retry_after_has_an_upper_bound(broker, receiver):
    receiver.script("/hook", retry_after(429, 86400))
    hook = broker.add_webhook(receiver.url("/hook"))
    broker.publish()
    failure = broker.wait_attempts(hook["id"], bool)[0]
    waits = when(failure["next_attempt_at"]) - when(failure["time"])
    assert timedelta(hours=1) <= waits <= timedelta(hours=1.3)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_success(broker, receiver, status):
    receiver.script("/hook", status)
    hook = broker.add_webhook(receiver.url("/hook"))
    broker.publish()
    got = broker.wait_attempts(hook["id"], bool)
    assert [(a["ok"], a["status"]) for a in got] == [(True, status)]


def test_a_response_without_end_is_a_success_and_left(broker, receiver):
    receiver.script("/hook", HUGE)
    hook = broker.add_webhook(receiver.url("/hook"))
    broker.publish()
    got = broker.wait_attempts(hook["id"], bool)
    assert [(a["ok"], a["status"], a["attempt"]) for a in got] == [(True, 200, 1)]
    wait_for(lambda: receiver.open == 0, what="the end of the connection")
    # What the kernel's buffers held has gone; the rest was never sent.
    assert receiver.huge_sent < HUGE_BYTES / 4
    receiver.script("/hook", 200)
    broker.publish()
    receiver.wait(2, "/hook")
    broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 2
                        and w["stats"]["failed"] == 0)


def test_410_disables_at_once(broker, receiver):
    receiver.script("/gone", 410)
    gone = broker.add_webhook(receiver.url("/gone"), "t", name="mine")
    watch = broker.add_webhook(receiver.url("/watch"), "webhook.*")
    broker.publish()
    got = broker.wait_webhook(gone["id"], lambda w: w["state"] != "enabled")
    assert got["state"] == "disabled_due_to_failed_deliveries" and "410" in got["disabled_reason"]
    told = receiver.wait(1, "/watch")[0].json()
    assert told["type"] == "webhook.disabled" and told["data"]["id"] == gone["id"]
    assert told["data"]["uri"] == receiver.url("/gone") and "410" in told["data"]["reason"]
    event = broker.events("&type=webhook.disabled")[0]
    assert event["subject"] == gone["id"] and event["body"] == told["data"]
    broker.publish()
    broker.ok("POST", f"/v1/webhooks/{watch['id']}:ping")
    receiver.wait(2, "/watch")
    assert receiver.count("/gone") == 1
    # Nothing is lost: enabled again it gets both, and the reason is gone.
    receiver.script("/gone", 200)
    broker.restart()
    assert broker.webhook(gone["id"])["state"] == "disabled_due_to_failed_deliveries"
    assert "disabled_reason" not in broker.patch_webhook(gone["id"], state="enabled")
    receiver.wait(3, "/gone")
    assert len({r.id for r in receiver.requests("/gone")}) == 2
    assert len(broker.events("&type=webhook.disabled")) == 1


def test_a_dynamic_410_is_a_dead_letter(broker, receiver):
    receiver.script("/gone", 410)
    seq = broker.publish(webhook_config={"uris": [receiver.url("/gone")]})
    dead = wait_for(lambda: broker.dead_letters("webhook.dynamic.0"))
    assert [(d["seq"], d["reason"], d["fails"]) for d in dead] == [(seq, "rejected", 0)]
    assert dead[0]["error"] == {"type": "status", "message": "HTTP 410"}
    assert receiver.count("/gone") == 1


# -- TLS --

def test_tls_is_verified(brokers, receivers, tmp_path):
    certificate = make_certificate(tmp_path)
    receiver = receivers(tls=certificate)
    broker = brokers(*FAST)
    hook = broker.add_webhook(receiver.url("/hook"))
    broker.publish(data={"n": 1})
    failure = broker.wait_attempts(hook["id"], bool)[-1]
    assert (failure["ok"], failure.get("error")) == (False, "tls") and failure["detail"]
    assert receiver.count() == 0
    broker.stop()
    broker.args += ["--webhook-ca", str(certificate[0])]
    broker.start()
    request = receiver.wait(1, "/hook")[0]
    assert verify(hook["new_signing_secret"], request.headers, request.body)
    # What an authority says of one name it does not say of another.
    other = broker.add_webhook(f"https://localhost:{receiver.port}/other")
    broker.publish(data={"n": 2})
    receiver.wait(2, "/hook")
    assert broker.wait_attempts(other["id"], bool)[-1]["error"] == "tls"
    assert receiver.count("/other") == 0


def test_a_connection_is_used_again(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"), concurrency=1)
    broker.publish_many(50)
    broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 50)
    assert receiver.connections == 1


def test_a_connection_that_ends_under_a_request_is_replaced(broker, receiver):
    """One that was used before may have been closed by then: that is nobody's failure."""
    hook = broker.add_webhook(receiver.url("/hook"), concurrency=1)
    receiver.script("/hook", 200, CLOSE, 200)
    broker.publish()
    broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 1)
    broker.publish()
    got = broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 2)
    assert got["stats"]["failed"] == 0
    _, cut, again = receiver.requests("/hook")
    assert cut.id == again.id and cut.connection != again.connection


# -- the end of trying --

def test_what_is_too_old_is_a_dead_letter_and_comes_back(brokers, receiver):
    broker = brokers(*FAST, "--webhook-max-age", "1s")
    receiver.script("/hook", 500)
    hook = broker.add_webhook(receiver.url("/hook"))
    name = "webhook." + hook["id"]
    first = broker.publish(data={"n": 1})
    dead = wait_for(lambda: broker.dead_letters(name), what="the dead letter")
    assert [(d["seq"], d["reason"]) for d in dead] == [(first, "expired")]
    assert dead[0]["fails"] == receiver.count("/hook") > 1
    assert dead[0]["error"] == {"type": "status", "message": "HTTP 500"}
    last = broker.attempts(hook["id"])[0]
    assert "next_attempt_at" not in last and last["attempt"] == dead[0]["fails"]
    second = broker.publish(data={"n": 2})
    wait_for(lambda: len(broker.dead_letters(name)) == 2, what="the second dead letter")
    assert broker.webhook(hook["id"])["stats"]["dead"] == 2
    receiver.script("/hook", 200)
    count = receiver.count("/hook")
    # Since the second was received: the first stays dead.
    since = broker.ok("GET", f"/v1/events/{second}")["received_at"]
    made = broker.ok("POST", f"/v1/webhooks/{hook['id']}:recover", {"since": since})
    task = wait_for(lambda: (lambda t: t["state"] == "finished" and t)(
        broker.ok("GET", f"/v1/replays/{made['redrive_id']}")))
    assert (task["kind"], task["matched"]) == ("redrive", 1)
    assert receiver.wait(count + 1, "/hook")[-1].json()["data"] == {"n": 2}
    assert [d["seq"] for d in broker.dead_letters(name)] == [first]
    since = broker.ok("GET", f"/v1/events/{first}")["received_at"]
    broker.ok("POST", f"/v1/webhooks/{hook['id']}:recover", {"since": since})
    assert receiver.wait(count + 2, "/hook")[-1].json()["data"] == {"n": 1}
    wait_for(lambda: broker.dead_letters(name) == [])


def test_resend(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"))
    other = broker.add_webhook(receiver.url("/other"))
    seqs = [broker.publish(data={"n": n}) for n in range(3)]
    sent = {r.json()["data"]["n"]: r for r in receiver.wait(3, "/hook")}
    answer = broker.ok("POST", f"/v1/webhooks/{hook['id']}:resend", {"seq": seqs[1]})
    assert answer["replay_id"]
    again = receiver.wait(4, "/hook")[3]
    # The same event: the same id, so that who has it already can tell.
    assert (again.id, again.body) == (sent[1].id, sent[1].body)
    assert verify(hook["new_signing_secret"], again.headers, again.body)
    receiver.wait(3, "/other")
    broker.ok("POST", f"/v1/webhooks/{other['id']}:ping")
    assert receiver.wait(4, "/other")[3].json()["type"] == "webhook.ping"
    for seq, status in ((10 ** 6, 404), (0, 400), ("x", 400)):
        got, answer = broker.api("POST", f"/v1/webhooks/{hook['id']}:resend", {"seq": seq})
        assert got == status and "seq" in answer["error"]["message"], answer


def test_nothing_but_failure_for_long_disables(brokers, receiver):
    broker = brokers(*FAST, "--webhook-disable-after", "400ms")
    receiver.script("/hook", 500)
    hook = broker.add_webhook(receiver.url("/hook"), "t")
    broker.publish_many(10)
    got = broker.wait_webhook(hook["id"], lambda w: w["state"] != "enabled")
    assert got["state"] == "disabled_due_to_failed_deliveries" and got["disabled_reason"]
    assert len(broker.events("&type=webhook.disabled")) == 1
    broker.wait_webhook(hook["id"], lambda w: w["stats"]["in_flight"] == 0)
    count = receiver.count("/hook")
    beside = broker.add_webhook(receiver.url("/beside"), "t")
    broker.publish("t", data={"n": 10})
    receiver.wait(1, "/beside")
    assert receiver.count("/hook") == count
    receiver.script("/hook", 200)
    got = broker.patch_webhook(hook["id"], state="enabled")
    assert got["state"] == "enabled" and "disabled_reason" not in got
    broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 11
                        and w["stats"]["backlog"] == 0 and w["stats"]["delayed"] == 0)
    arrived = {r.json()["data"]["n"] for r in receiver.requests("/hook") if r.answer.status == 200}
    assert arrived == set(range(11))
    assert broker.webhook(hook["id"])["state"] == "enabled"
    broker.ok("DELETE", f"/v1/webhooks/{beside['id']}")


def test_a_success_in_between_keeps_it_enabled(brokers, receiver):
    broker = brokers(*FAST, "--webhook-disable-after", "400ms")
    receiver.script("/hook", lambda _: 500 if receiver.count("/hook") % 3 else 200)
    hook = broker.add_webhook(receiver.url("/hook"), "t", concurrency=1)
    events, began_s = 0, time.monotonic()
    while not events or receiver.requests("/hook")[-1].time_s < began_s + 1:
        broker.publish_many(5)
        events += 5
        broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == events)
    got = broker.webhook(hook["id"])
    assert got["state"] == "enabled" and got["stats"]["failed"] >= events
    assert broker.events("&type=webhook.disabled") == []


# -- what is told --

def test_failed_attempts_outlive_a_restart(broker, receiver):
    receiver.script("/hook", 500, NEVER, 404, 200)
    hook = broker.add_webhook(receiver.url("/hook"))
    broker.publish()
    before = broker.wait_attempts(hook["id"], lambda a: len(a) == 4)
    assert [a["ok"] for a in before] == [True, False, False, False]
    broker.restart()
    assert [a for a in broker.attempts(hook["id"]) if not a["ok"]] == before[1:]


def test_so_many_attempts_are_kept(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"), concurrency=1)
    receiver.script("/hook", *[500, 200] * 80, 200)
    broker.publish_many(80)
    broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 80)
    kept = broker.attempts(hook["id"])
    failed = [a for a in kept if not a["ok"]]
    assert len(failed) == 64 and 1 <= len(kept) - 64 <= 64
    assert [a["time"] for a in kept] == sorted((a["time"] for a in kept), reverse=True)
    broker.restart()
    assert [a for a in broker.attempts(hook["id"]) if not a["ok"]] == failed
    broker.ok("DELETE", f"/v1/webhooks/{hook['id']}")
    assert broker.api("GET", f"/v1/webhooks/{hook['id']}/attempts")[0] == 404
