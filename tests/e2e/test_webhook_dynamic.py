"""webhook_config on an event and on a job: its URIs instead of the registered webhooks, signed with
a key that anybody can verify. Node is the receiver that verifies: it fetches the JWKS itself."""

import base64
import dataclasses
import hashlib
import json
import subprocess

import pytest
from harness import LOCAL, make_secret, run_node, wait_for

FAST = (*LOCAL, "--webhook-backoff-min", "50ms", "--webhook-backoff-max", "200ms")
JWKS = "/.well-known/jwks.json"


@pytest.fixture
def broker(brokers):
    return brokers(*FAST)


def node(requests, jwks, mode="v1a"):
    """What verify_dynamic.mjs prints; jwks: the broker, whose keys it fetches, or a JWKS."""
    where = jwks if isinstance(jwks, dict) else jwks.http + JWKS
    return run_node("verify_dynamic.mjs", {"jwks": where, "mode": mode, "requests": [
        {"headers": r.headers, "body": base64.b64encode(r.body).decode()} for r in requests]})


def config(*uris, **more):
    return {"webhook_config": {"uris": list(uris), **more}}


def keys(broker):
    return broker.ok("GET", "/v1/webhook-keys")["keys"]


# -- where an event goes --

def test_an_event_goes_to_its_own_uris_only(broker, receiver):
    broker.add_webhook(receiver.url("/static"))
    urls = [receiver.url(path) for path in ("/a", "/b?x=1", "/c")]
    seq = broker.publish("batch.succeeded", data={"id": "b1"},
                         **config(*urls, user_metadata={"team": "a"}))
    broker.publish("plain")
    requests = [receiver.wait(1, path)[0] for path in ("/a", "/b?x=1", "/c")]
    assert [r.json()["type"] for r in receiver.wait(1, "/static")] == ["plain"]
    for request in requests:
        assert request.json()["data"] == {"id": "b1"}
        assert request.json()["user_metadata"] == {"team": "a"}
        assert request.id.endswith(f"_{seq}")
        assert request.headers["content-type"] == "application/json"
    event = broker.ok("GET", f"/v1/events/{seq}")
    assert event["webhook_config"] == {"uris": urls} and event["user_metadata"] == {"team": "a"}
    assert "webhook_config" not in broker.ok("GET", f"/v1/events/{seq + 1}")
    wait_for(lambda: sum(e["delivered"] for e in
                         broker.ok("GET", "/v1/webhook-endpoints")["endpoints"]) == 3)
    assert [receiver.count(path) for path in ("/a", "/b?x=1", "/c", "/static")] == [1, 1, 1, 1]


def test_each_of_its_uris_has_retries_of_its_own(broker, receiver):
    receiver.script("/bad", 500, 503, 200)
    broker.publish(**config(receiver.url("/good"), receiver.url("/bad")))
    tries = receiver.wait(3, "/bad")
    assert receiver.count("/good") == 1
    assert len({r.id for r in tries}) == 1 and tries[0].id == receiver.requests("/good")[0].id
    assert all("kid" in v for v in node(tries, broker)["verdicts"])


def test_an_event_of_a_job_goes_to_the_jobs_uris(broker, receiver):
    broker.add_webhook(receiver.url("/static"))
    secret = make_secret("j")
    broker.add_source("src", secret)
    broker.ok("PUT", "/v1/jobs/batches/123",
              config(receiver.url("/job"), user_metadata={"group": "nightly"}))
    broker.publish("batch.started", subject="batches/123", data={"id": "batches/123"})
    body = b'{"type":"batch.succeeded",  "data":{"id":"batches/123"}}'
    assert broker.post_signed("src", secret, body)[0] == 200
    broker.publish("batch.succeeded", subject="batches/999")
    first, second = receiver.wait(2, "/job")
    started, done = sorted((first, second), key=lambda r: r.body == body)
    assert started.json()["user_metadata"] == {"group": "nightly"}
    assert done.body == body  # ingested: byte for byte, dynamic or not
    assert [r.json()["type"] for r in receiver.wait(1, "/static")] == ["batch.succeeded"]
    assert all("kid" in v for v in node([first, second], broker)["verdicts"])
    # An event that says where it goes itself goes there, and brings its own metadata.
    broker.publish("batch.late", subject="batches/123",
                   **config(receiver.url("/own"), user_metadata={"mine": 1}))
    assert receiver.wait(1, "/own")[0].json()["user_metadata"] == {"mine": 1}
    broker.publish("end")
    assert len(receiver.wait(2, "/static")) == 2
    assert receiver.count("/job") == 2
    job = broker.ok("GET", "/v1/jobs/batches/123")
    assert (job["state"], job["events_total"]) == ("succeeded", 3)


def test_a_job_that_is_overdue_tells_its_uris(broker, receiver):
    broker.ok("PUT", "/v1/jobs/j1", {"ttl_ms": 100, **config(receiver.url("/job"))})
    overdue = receiver.wait(1, "/job")[0].json()
    assert overdue["type"] == "job.overdue" and overdue["data"]["id"] == "j1"


@pytest.mark.parametrize("uris, words", [
    (["ftp://x/"], "ftp"), (["http://10.0.0.1/"], "10.0.0.0/8"), ([], "uris"),
    (["http://127.0.0.1:9/"] * 2, "uris[1]"),
    ([f"http://127.0.0.1:9/{n}" for n in range(9)], "8")])
def test_bad_uris_publish_nothing(broker, uris, words):
    for method, path, body in (("POST", "/v1/events", {"type": "t"}), ("PUT", "/v1/jobs/j", {})):
        status, answer = broker.api(method, path, {**body, **config(*uris)})
        assert (status, answer["error"]["code"]) == (400, "invalid_request"), answer
        assert words in answer["error"]["message"]
    assert broker.events() == []
    assert broker.api("GET", "/v1/jobs/j")[0] == 404


# -- v1a --

def test_node_verifies_with_the_keys_it_fetches(broker, receiver):
    broker.publish("t", data={"text": "é"}, **config(receiver.url("/hook")))
    good = receiver.wait(1, "/hook")[0]
    altered = dataclasses.replace(good, body=good.body.replace(b'"t"', b'"u"'))
    later = dataclasses.replace(good, headers={**good.headers, "webhook-timestamp": str(
        int(good.headers["webhook-timestamp"]) + 1)})
    answer = node([good, altered, later], broker)
    active = keys(broker)[0]
    assert answer["verdicts"][0] == {"kid": active["kid"]}
    assert all("error" in v for v in answer["verdicts"][1:])
    assert answer["type"] == "application/json"
    assert "public" in answer["cache"] and "max-age=600" in answer["cache"]
    assert len(answer["keys"]) == 2
    for key in answer["keys"]:
        assert (key["kty"], key["crv"], key["alg"]) == ("OKP", "Ed25519", "EdDSA")
        assert key["use"] == "sig"
        assert "d" not in key
        thumb = json.dumps({k: key[k] for k in ("crv", "kty", "x")}, separators=(",", ":"))
        hash = hashlib.sha256(thumb.encode()).digest()
        assert key["kid"] == base64.urlsafe_b64encode(hash).rstrip(b"=").decode()


def test_a_rotation_of_the_key(broker, receiver):
    """The next key was published before it signs, and the old one stays for what it signed."""
    def sign():
        count = receiver.count("/hook")
        broker.publish(**config(receiver.url("/hook")))
        return receiver.wait(count + 1, "/hook")[count]

    first, cached = sign(), broker.ok("GET", JWKS)
    assert [k["state"] for k in keys(broker)] == ["active", "next"]
    rotated = broker.ok("POST", "/v1/webhook-keys:rotate")["keys"]
    assert [k["state"] for k in rotated] == ["active", "next", "old"]
    assert rotated[0]["kid"] == cached["keys"][1]["kid"]
    assert rotated[2]["kid"] == cached["keys"][0]["kid"]
    second = sign()
    # Whoever fetched before the rotation verifies what was signed after it; and the reverse.
    expected = [{"kid": cached["keys"][0]["kid"]}, {"kid": cached["keys"][1]["kid"]}]
    assert node([first, second], cached)["verdicts"] == expected
    assert node([first, second], broker)["verdicts"] == expected
    broker.restart()
    assert keys(broker) == rotated
    third = sign()
    assert node([first, second, third], broker)["verdicts"] == [*expected, expected[1]]
    # A key of another broker verifies none of them.
    broker.ok("POST", "/v1/webhook-keys:rotate")
    fresh = {"keys": [broker.ok("GET", JWKS)["keys"][1]]}
    assert all("error" in v for v in node([first, second, third], fresh)["verdicts"])


def test_a_key_from_a_file(brokers, receiver, tmp_path):
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True,
                   capture_output=True, timeout=30)
    broker = brokers(*FAST, "--webhook-key", str(key))
    broker.publish(**config(receiver.url("/hook")))
    request = receiver.wait(1, "/hook")[0]
    text = subprocess.run(["openssl", "pkey", "-in", str(key), "-pubout", "-outform", "DER"],
                          check=True, capture_output=True, timeout=30).stdout
    own = {"kty": "OKP", "crv": "Ed25519",
           "x": base64.urlsafe_b64encode(text[-32:]).rstrip(b"=").decode()}
    assert "error" not in node([request], {"keys": [own]})["verdicts"][0]
    assert node([request], broker)["verdicts"] == [{"kid": keys(broker)[0]["kid"]}]
    assert keys(broker)[0]["from_file"] is True
    status, answer = broker.api("POST", "/v1/webhook-keys:rotate")
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert "file" in answer["error"]["message"]


# -- JWT --

@pytest.mark.parametrize("audience", [None, "my-project"])
def test_node_verifies_the_jwt(brokers, receiver, audience):
    broker = brokers(*FAST, "--webhook-signature", "jwt",
                     *(["--webhook-audience", audience] if audience else []))
    url = receiver.url("/hook?a=1")
    receiver.script("/hook?a=1", 500, 200)
    broker.publish(data={"id": "b"}, **config(url))
    first, again = receiver.wait(2, "/hook?a=1")
    altered = dataclasses.replace(again, body=again.body + b" ")
    head, claims, signature = again.headers["webhook-signature"].split(".")
    forged = dataclasses.replace(again, headers={**again.headers, "webhook-signature": ".".join(
        (head, claims[:-2] + ("AA" if claims[-2:] != "AA" else "BB"), signature))})
    answer = node([first, again, altered, forged], broker, "jwt")
    assert all("error" in v for v in answer["verdicts"][2:])
    for request, verdict in zip((first, again), answer["verdicts"]):
        assert verdict["kid"] == keys(broker)[0]["kid"]
        claims = verdict["claims"]
        assert claims["iss"] == "bellhop" and claims["aud"] == (audience or url)
        assert claims["jti"] == request.id
        assert claims["exp"] == claims["iat"] + 300 and abs(claims["iat"] - request.wall_s) < 60
        assert claims["body_sha256"] == hashlib.sha256(request.body).hexdigest()
    assert {k["alg"] for k in answer["keys"]} == {"RS256"}


def test_another_algorithm_keeps_the_old_keys_published(brokers, receiver):
    broker = brokers(*FAST)
    broker.publish(**config(receiver.url("/hook")))
    request = receiver.wait(1, "/hook")[0]
    broker.stop()
    broker.args += ["--webhook-signature", "jwt"]
    broker.start()
    broker.publish(**config(receiver.url("/hook")))
    other = receiver.wait(2, "/hook")[1]
    assert "kid" in node([request], broker)["verdicts"][0]
    assert "claims" in node([other], broker, "jwt")["verdicts"][0]
