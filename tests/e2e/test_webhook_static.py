"""Registered webhooks: what arrives at a receiver, how it is signed, and which events go where."""

import base64
import dataclasses
import json
import re
import subprocess
import time

import pytest
from harness import DEADLINE_S, LOCAL, NODE, make_secret, run_node, verify, wait_for
from receiver import HOLD, make_certificate

SECRET = make_secret("i")
FAST = (*LOCAL, "--webhook-backoff-min", "50ms", "--webhook-backoff-max", "200ms")


@pytest.fixture
def broker(brokers):
    return brokers(*FAST)


def node_verdicts(secret, requests):
    """What npm's standardwebhooks says of these requests: None, or an error's text, for each."""
    return run_node("verify_static.mjs", {"secret": secret, "requests": [
        {"headers": r.headers, "body": base64.b64encode(r.body).decode()} for r in requests]})


def types_at(receiver, path):
    return [request.json()["type"] for request in receiver.requests(path)]


# -- what arrives --

BODIES = {"spaced": b'  { "type":"batch.succeeded",\t"data" : {"id":"b1"}, "x":1.50 }\n',
          "unicode": '{"type":"t","data":{"id":"é\\u00e9世"}}'.encode(),
          "not_json": b"\x00\xff\xfe raw bytes \r\n", "empty": b"",
          "large": b"0123456789abcdef" * 60000}


@pytest.mark.parametrize("name", BODIES)
def test_an_ingested_event_arrives_byte_for_byte(broker, receiver, name):
    hook = broker.add_webhook(receiver.url("/hook"))
    broker.add_source("src", SECRET)
    content_type = "application/json" if name in ("spaced", "unicode") else "application/x-own"
    assert broker.post_signed("src", SECRET, BODIES[name], content_type=content_type)[0] == 200
    request = receiver.wait(1, "/hook")[0]
    assert request.body == BODIES[name]
    assert request.method == "POST" and request.headers["content-type"] == content_type
    assert verify(hook["new_signing_secret"], request.headers, request.body)


def test_a_published_event_arrives_in_the_envelope(broker, receiver):
    broker.add_webhook(receiver.url("/hook"))
    broker.publish("batch.succeeded", time="2026-01-22T12:00:00Z", subject="b1",
                   data={"id": "b1", "n": 1}, user_metadata={"team": "a"})
    broker.publish("bare")
    full, bare = receiver.wait(2, "/hook")
    assert list(full.json()) == ["type", "version", "timestamp", "data", "user_metadata"]
    assert full.json() == {"type": "batch.succeeded", "version": "v1",
                           "timestamp": "2026-01-22T12:00:00.000Z",
                           "data": {"id": "b1", "n": 1}, "user_metadata": {"team": "a"}}
    assert {k: bare.json()[k] for k in ("type", "version", "data")} == \
        {"type": "bare", "version": "v1", "data": {}}
    assert "user_metadata" not in bare.json()
    assert full.headers["content-type"] == "application/json"


def test_the_headers_of_the_standard(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"))
    receiver.script("/hook", 500, 200)
    seqs = broker.publish("a"), broker.publish("b")
    first, *rest = receiver.wait(3, "/hook")
    again = next(r for r in rest if r.body == first.body)
    other = next(r for r in rest if r.body != first.body)
    # The id is the event's and stays over retries; the time is the attempt's.
    assert first.id == again.id != other.id
    ids = {int(re.fullmatch(r"msg_[A-Za-z0-9]+_(\d+)", r.id).group(1)) for r in (first, other)}
    assert ids == set(seqs)
    for request in (first, *rest):
        assert abs(int(request.headers["webhook-timestamp"]) - request.wall_s) < 60
        assert "user-agent" in request.headers and "expect" not in request.headers
        assert len(request.names) == len(set(request.headers))
    assert node_verdicts(hook["new_signing_secret"], [first, *rest]) == [None] * 3


# -- signatures --

def rotate(broker, hook, behaviour="revoke_previous_secrets_after_h24"):
    return broker.ok("POST", f"/v1/webhooks/{hook['id']}:rotateSigningSecret",
                     {"revocation_behavior": behaviour})["secret"]


def test_node_verifies_before_in_and_after_a_rotation(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"))
    first = hook["new_signing_secret"]
    broker.publish(data={"text": "é" * 100})
    before = receiver.wait(1, "/hook")[0]
    second = rotate(broker, hook)
    broker.publish()
    within = receiver.wait(2, "/hook")[1]
    third = rotate(broker, hook, "REVOKE_PREVIOUS_SECRETS_IMMEDIATELY")
    broker.publish()
    after = receiver.wait(3, "/hook")[2]
    right = {first: (True, True, False), second: (False, True, False), third: (False, False, True)}
    for secret, verdicts in right.items():
        said = node_verdicts(secret, [before, within, after])
        assert tuple(v is None for v in said) == verdicts, said
    assert len(within.headers["webhook-signature"].split(" ")) == 2
    assert len(after.headers["webhook-signature"].split(" ")) == 1


def test_an_altered_request_is_refused_by_node(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"))
    broker.publish()
    good = receiver.wait(1, "/hook")[0]
    bad_body = dataclasses.replace(good, body=good.body + b" ")
    bad_id = dataclasses.replace(good, headers={**good.headers, "webhook-id": "msg_other"})
    said = node_verdicts(hook["new_signing_secret"], [good, bad_body, bad_id])
    assert said[0] is None and said[1] and said[2]


def test_http2_is_spoken_where_it_is_offered(brokers, tmp_path):
    certificate, key = make_certificate(tmp_path)
    node = subprocess.Popen(["node", "receive_http2.mjs", str(certificate), str(key)], cwd=NODE,
                            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        port = int(node.stdout.readline())
        broker = brokers(*FAST, "--webhook-ca", str(certificate))
        hook = broker.add_webhook(f"https://127.0.0.1:{port}/hook", headers={"X-Own": "1"})
        broker.publish_many(20)
        requests = [json.loads(node.stdout.readline()) for _ in range(20)]
        for request in requests:
            assert request["version"] == "2.0" and request["headers"]["x-own"] == "1"
            body = base64.b64decode(request["body"])
            assert verify(hook["new_signing_secret"], request["headers"], body)
        got = broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 20)["stats"]
        assert got["failed"] == 0
        # One connection for each of those under way at a time, or fewer.
        assert len({r["port"] for r in requests}) <= 8
    finally:
        node.stdin.close()
        node.wait(DEADLINE_S)
        node.stdout.close()


# -- what goes where --

def test_types_and_filters(broker, receiver):
    events = [("batch.succeeded", "b1"), ("batch.failed", "b2"), ("video.generated", "v1"),
              ("batch.sub.done", "b1"), ("batch", "b1")]
    wants = {"/batch": (["batch.*"], None),
             "/failed": (["*.failed", "video.generated"], None),
             "/all": (["*"], None),
             "/subject": (["*"], {"subject_prefix": "b1"}),
             "/both": (["batch.*"], {"not": {"types": ["batch.failed"]}}),
             "/metadata": (["*"], {"user_metadata": {"team": "a"}})}
    for path, (types, filter) in wants.items():
        broker.add_webhook(receiver.url(path), *types, **({"filter": filter} if filter else {}))
    for n, (type, subject) in enumerate(events):
        broker.publish(type, subject=subject, user_metadata={"team": "ab"[n % 2]})
    broker.publish("end.failed", subject="b1.batch")  # the last one in every lane but /batch's
    broker.publish("batch.end", subject="b1", user_metadata={"team": "a"})
    expected = {
        "/batch": ["batch.succeeded", "batch.failed", "batch.sub.done", "batch.end"],
        "/failed": ["batch.failed", "video.generated", "end.failed"],
        "/all": [t for t, _ in events] + ["end.failed", "batch.end"],
        "/subject": ["batch.succeeded", "batch.sub.done", "batch", "end.failed", "batch.end"],
        "/both": ["batch.succeeded", "batch.sub.done", "batch.end"],
        "/metadata": ["batch.succeeded", "video.generated", "batch", "batch.end"]}
    for path, types in expected.items():
        receiver.wait(len(types), path)
    # The breaker of none has opened, so what has not come by now was not meant to.
    wait_for(lambda: all(broker.webhook(w["id"])["stats"]["backlog"] == 0
                         and broker.webhook(w["id"])["stats"]["in_flight"] == 0
                         for w in broker.ok("GET", "/v1/webhooks")["webhooks"]))
    for path, types in expected.items():
        assert sorted(types_at(receiver, path)) == sorted(types), path


def test_an_event_fans_out(broker, receiver):
    hooks = [broker.add_webhook(receiver.url(f"/{n}")) for n in range(5)]
    broker.publish(data={"n": 1})
    requests = [receiver.wait(1, f"/{n}")[0] for n in range(5)]
    assert len({r.body for r in requests}) == 1 and len({r.id for r in requests}) == 1
    for n, request in enumerate(requests):
        for m, hook in enumerate(hooks):
            # Each has its own secret.
            assert verify(hook["new_signing_secret"], request.headers, request.body) == (n == m)


def test_own_headers(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"),
                              headers={"Authorization": "Bearer abc", "X-Team": "a b"})
    broker.publish()
    request = receiver.wait(1, "/hook")[0]
    assert request.headers["authorization"] == "Bearer abc"
    assert request.headers["x-team"] == "a b"
    broker.patch_webhook(hook["id"], headers={"X-Other": "1"})
    broker.publish()
    request = receiver.wait(2, "/hook")[1]
    assert request.headers["x-other"] == "1" and "x-team" not in request.headers


def test_what_is_changed_counts_from_the_next_event(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"), "a")
    broker.add_webhook(receiver.url("/beside"))
    for fields, arrives in (({"subscribed_events": ["b", "c"]}, "bc"),
                            ({"filter": {"not": {"types": ["c"]}}}, "b"),
                            ({"subscribed_events": ["*"]}, "ab"), ({"filter": {}}, "abc")):
        broker.patch_webhook(hook["id"], **fields)
        before, beside = receiver.count("/hook"), receiver.count("/beside")
        for type in ("a", "b", "c"):
            broker.publish(type)
        receiver.wait(beside + 3, "/beside")
        receiver.wait(before + len(arrives), "/hook")
        broker.wait_webhook(hook["id"], lambda w: w["stats"]["backlog"] == 0
                            and w["stats"]["in_flight"] == 0)
        assert sorted(types_at(receiver, "/hook")[before:]) == list(arrives), fields


def test_a_new_uri_counts_from_the_next_attempt(broker, receiver):
    hook = broker.add_webhook(receiver.url("/old"))
    receiver.script("/old", 500)
    broker.publish()
    receiver.wait(1, "/old")
    broker.patch_webhook(hook["id"], uri=receiver.url("/new"))
    assert receiver.wait(1, "/new")[0].id == receiver.requests("/old")[0].id


# -- when nothing goes --

@pytest.fixture
def pair(broker, receiver):
    """A webhook, and one beside it that shows when an event would have come."""
    hook, beside = (broker.add_webhook(receiver.url(path)) for path in ("/hook", "/beside"))
    broker.publish()
    receiver.wait(1, "/hook")
    receiver.wait(1, "/beside")
    return hook


def test_a_disabled_one_gets_nothing(broker, receiver, pair):
    assert broker.patch_webhook(pair["id"], state="disabled")["state"] == "disabled"
    for n in range(3):
        broker.publish(data={"n": n})
    receiver.wait(4, "/beside")
    assert receiver.count("/hook") == 1
    broker.restart()
    broker.publish(data={"n": 3})
    receiver.wait(5, "/beside")
    assert receiver.count("/hook") == 1
    broker.patch_webhook(pair["id"], state="enabled")
    numbers = [r.json()["data"]["n"] for r in receiver.wait(5, "/hook")[1:]]
    assert sorted(numbers) == [0, 1, 2, 3]


def test_a_paused_one_keeps_its_queue(broker, receiver, pair):
    path = f"/v1/webhooks/{pair['id']}"
    answer = broker.ok("POST", path + ":pause")
    assert (answer["paused"], answer["state"]) == (True, "enabled")
    for n in range(3):
        broker.publish(data={"n": n})
    receiver.wait(4, "/beside")
    assert receiver.count("/hook") == 1
    assert broker.webhook(pair["id"])["stats"]["backlog"] == 3
    assert broker.ok("POST", path + ":resume")["paused"] is False
    numbers = [r.json()["data"]["n"] for r in receiver.wait(4, "/hook")[1:]]
    assert sorted(numbers) == [0, 1, 2]
    broker.wait_webhook(pair["id"], lambda w: w["stats"]["backlog"] == 0)


def test_a_deleted_one_is_gone(broker, receiver, pair):
    receiver.script("/hook", 500)
    broker.publish()
    receiver.wait(2, "/hook")
    broker.ok("DELETE", f"/v1/webhooks/{pair['id']}")
    count = receiver.count("/hook")
    broker.publish()
    receiver.wait(3, "/beside")
    # What was under way at the delete may have arrived just before it, and nothing after.
    assert receiver.count("/hook") <= count + 1
    assert broker.api("GET", f"/v1/webhooks/{pair['id']}")[0] == 404


# -- how much at a time --

def test_never_more_than_its_concurrency(broker, receiver):
    broker.add_webhook(receiver.url("/hook"), concurrency=3)
    receiver.script("/hook", HOLD)
    broker.publish_many(40)
    done = 0
    while done < 40:
        wait_for(lambda: receiver.held_count("/hook") > 0, what="another request")
        done += 1
        receiver.release("/hook", 1)
    assert receiver.held_max["/hook"] == 3
    assert len({r.id for r in receiver.wait(40, "/hook")}) == 40


def test_never_faster_than_its_rate(broker, receiver):
    broker.add_webhook(receiver.url("/hook"), rate_per_s=10)
    broker.publish_many(11)
    requests = receiver.wait(11, "/hook")
    # 10 gaps of 100 ms; half of it leaves room for a first one that was slow to arrive.
    assert requests[-1].time_s - requests[0].time_s >= 0.5


def test_stats_count(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"))
    receiver.script("/hook", 500, 200)
    began = time.time()
    broker.publish_many(3)
    receiver.wait(4, "/hook")
    got = broker.wait_webhook(hook["id"], lambda w: w["stats"]["delivered"] == 3)["stats"]
    assert (got["failed"], got["internal_errors"], got["in_flight"], got["backlog"]) == (1, 0, 0, 0)
    assert (got["dead"], got["delayed"], got["breaker"]) == (0, 0, "closed")
    assert "failing_since" not in got
    for field in ("last_success_time", "last_failure_time"):
        assert got[field] >= time.strftime("%Y-%m-%dT%H:%M", time.gmtime(began))


def test_its_subscription_can_be_looked_at_and_not_changed(broker, receiver):
    hook = broker.add_webhook(receiver.url("/hook"))
    name = "webhook." + hook["id"]
    assert broker.subscription(name)["paused"] is False
    for method, path, body in (("POST", "", {"name": name}), ("PATCH", "/" + name, {"rate": 1}),
                               ("DELETE", "/" + name, None), ("POST", f"/{name}:pause", None),
                               ("POST", f"/{name}:seek", {"to": "first"}),
                               ("POST", "", {"name": "webhook.mine"})):
        status, answer = broker.api(method, "/v1/subscriptions" + path, body)
        assert (status, answer["error"]["code"]) == (400, "invalid_request"), (method, path)
        assert "/v1/webhooks" in answer["error"]["message"]
    broker.publish()
    assert json.loads(receiver.wait(1, "/hook")[0].body)["type"] == "t"
