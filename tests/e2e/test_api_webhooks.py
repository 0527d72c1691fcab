"""The API of registered webhooks: what it takes, what it answers, and what it refuses and how."""

import json
import re
import subprocess
import threading

import pytest
from harness import LOCAL, verify, wait_for
from test_api import error_of

URI = "https://example.com/cb"
TYPES = ["batch.succeeded", "batch.failed"]
NEW = {"uri": URI, "subscribed_events": TYPES}
NONE = {"delivered": 0, "failed": 0, "internal_errors": 0, "in_flight": 0, "backlog": 0,
        "delayed": 0, "dead": 0, "breaker": "closed"}


@pytest.fixture
def local(brokers):
    return brokers(*LOCAL)


def create(broker, **fields):
    return broker.ok("POST", "/v1/webhooks", {**NEW, **fields})


def path(webhook, verb="", version="v1"):
    return f"/{version}/webhooks/{webhook['id']}{verb}"


def without_secret(webhook):
    return {key: value for key, value in webhook.items() if key != "new_signing_secret"}


def timeless(webhook):
    return {key: value for key, value in webhook.items() if key not in ("update_time", "stats")}


# -- create, get, list --

@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_create_get_delete(broker, version):
    status, made = broker.api("POST", f"/{version}/webhooks", {**NEW, "name": "MyBatchWebhook"})
    assert status == 200
    assert re.fullmatch("[a-z0-9]{36}", made["id"])
    secret = made["new_signing_secret"]
    assert re.fullmatch("whsec_[A-Za-z0-9+/]{43}=", secret)
    assert made["signing_secrets"] == [{"truncated_secret": "whsec_..." + secret[-4:]}]
    assert made["create_time"] == made["update_time"]
    expected = {"name": "MyBatchWebhook", **NEW, "state": "enabled", "paused": False,
                "rate_per_s": 0, "concurrency": 8, "stats": NONE}
    assert {key: made[key] for key in expected} == expected
    assert set(made) == {*expected, "id", "signing_secrets", "new_signing_secret", "create_time",
                         "update_time"}
    shown = broker.ok("GET", path(made, version=version))
    assert shown == without_secret(made)
    assert broker.ok("GET", f"/{version}/webhooks") == {"webhooks": [shown]}
    broker.restart()
    assert broker.ok("GET", path(made, version=version)) == shown
    assert secret not in broker.log()
    assert broker.api("DELETE", path(made, version=version)) == (200, {})
    assert error_of(broker, "GET", path(made, version=version))[:2] == (404, "not_found")
    assert broker.ok("GET", f"/{version}/webhooks") == {"webhooks": []}
    broker.restart()
    assert broker.ok("GET", f"/{version}/webhooks") == {"webhooks": []}
    assert broker.ok("GET", "/v1/subscriptions") == {"subscriptions": []}


def test_everything_comes_back(broker):
    fields = {"name": "n\u00e4me", "description": "for \"tests\"", "rate_per_s": 50, "concurrency": 64,
              "headers": {"X-Team": "a b", "Authorization": "Bearer x"},
              "filter": {"user_metadata": {"job_group": "nightly"}, "sources": ["gemini"]},
              "subscribed_events": ["batch.*", "*", "video.generated", "a-b_c.*.d9"]}
    made = without_secret(create(broker, **fields))
    assert {key: made[key] for key in fields} == fields
    broker.restart()
    assert broker.webhook(made["id"]) == made
    status = broker.ok("GET", "/v1/status")
    assert status["webhooks"] == 1


def test_pages_are_in_order_of_creation(broker):
    made = [create(broker, name=str(n))["id"] for n in range(7)]

    def pages(size, query=""):
        found, token = [], ""
        while True:
            page = broker.ok("GET", f"/v1/webhooks?page_size={size}{query}"
                             + (f"&page_token={token}" if token else ""))
            assert len(page["webhooks"]) <= size
            found.append([webhook["id"] for webhook in page["webhooks"]])
            token = page.get("next_page_token")
            if token is None:
                return found

    def creation(id):
        return broker.webhook(id)["create_time"], id

    order = sorted(made, key=creation)
    assert sum(pages(3), []) == order and [len(p) for p in pages(3)] == [3, 3, 1]
    assert pages(7) == [order] == pages(1000) == pages(5000, "&alt=json&key=x")
    assert broker.ok("GET", "/v1/webhooks?page_size=0") == broker.ok("GET", "/v1/webhooks")
    # The one that a page ended with is gone: the next one goes on behind its place.
    page = broker.ok("GET", "/v1/webhooks?page_size=3")
    broker.ok("DELETE", f"/v1/webhooks/{order[2]}")
    rest = broker.ok("GET", f"/v1/webhooks?page_token={page['next_page_token']}")
    assert [webhook["id"] for webhook in rest["webhooks"]] == order[3:]
    for query in ("page_size=x", "page_size=-1", "page_token=x", "page_token=w1-", "page_token=w1-5",
                  "page_token=n1-5-x", "page_token=w1-x-" + "a" * 36):
        assert error_of(broker, "GET", "/v1/webhooks?" + query)[:2] == (400, "invalid_request"), query


# -- change --

def test_patch_changes_what_is_present(broker):
    made = without_secret(create(broker, name="a", headers={"X": "1"}, filter={"sources": ["s"]}))
    changes = [
        {"name": "b"}, {"name": ""}, {"uri": "https://example.org:8443/x?y=z"},
        {"subscribed_events": ["*"]}, {"description": "d"}, {"headers": {"Y": "2"}},
        {"headers": {}}, {"filter": {"types": ["c"]}}, {"filter": {}}, {"rate_per_s": 7},
        {"concurrency": 1}, {"state": "disabled"}, {"state": "ENABLED"},
        {"name": "c", "rate_per_s": 0},
    ]
    expected = timeless(made)
    for change in changes:
        got = broker.ok("PATCH", path(made, "?update_mask=name,state"), change)
        for key, value in change.items():
            if value in ("", {}):
                expected.pop(key, None)
            else:
                expected[key] = value.lower() if key == "state" else value
        assert timeless(got) == expected, change
        assert got["update_time"] >= made["update_time"]
    broker.restart()
    assert timeless(broker.webhook(made["id"])) == expected


def test_patch_with_nothing_changes_nothing(broker):
    made = without_secret(create(broker))
    assert broker.api("PATCH", path(made), {}) == (200, made)


def test_disabling_and_pausing(local, receiver):
    made = local.add_webhook(receiver.url("/cb"), "a")
    assert local.patch_webhook(made["id"], state="Disabled")["state"] == "disabled"
    assert local.subscription("webhook." + made["id"])["paused"] is True
    first = local.publish("a")
    local.restart()
    assert local.webhook(made["id"])["state"] == "disabled"
    assert receiver.count() == 0
    assert local.patch_webhook(made["id"], state="enabled")["state"] == "enabled"
    receiver.wait(1, "/cb")

    paused = local.ok("POST", path(made, ":pause"))
    assert paused["paused"] is True and paused["state"] == "enabled"
    second = local.publish("a")
    # Paused and disabled: only both undone let it go on.
    local.patch_webhook(made["id"], state="disabled")
    assert local.ok("POST", path(made, ":resume"), {})["paused"] is False
    assert local.subscription("webhook." + made["id"])["paused"] is True
    local.patch_webhook(made["id"], state="enabled")
    received = receiver.wait(2, "/cb")
    assert [int(r.id.rsplit("_", 1)[1]) for r in received] == [first, second]


# -- secrets --

def test_rotation(local, receiver):
    made = local.add_webhook(receiver.url("/cb"), "a")
    first = made["new_signing_secret"]
    answer = local.ok("POST", path(made, ":rotateSigningSecret"), {})
    assert set(answer) == {"secret"} and answer["secret"] != first
    shown = local.webhook(made["id"])
    new, old = shown["signing_secrets"]
    assert new == {"truncated_secret": "whsec_..." + answer["secret"][-4:]}
    assert old["truncated_secret"] == "whsec_..." + first[-4:]
    assert old["expire_time"][:10] > shown["update_time"][:10]
    local.publish("a", data={})
    request, = receiver.wait(1, "/cb")
    assert verify(first, request.headers, request.body)
    assert verify(answer["secret"], request.headers, request.body)

    # The alias, and every spelling of what it takes.
    body = {"revocation_behavior": "REVOKE_PREVIOUS_SECRETS_AFTER_H24"}
    second = local.ok("POST", path(made, "/rotate_secret", "v1beta"), body)["secret"]
    assert len(local.webhook(made["id"])["signing_secrets"]) == 3
    body = {"revocation_behavior": "revoke_previous_secrets_immediately"}
    third = local.ok("POST", path(made, ":rotateSigningSecret"), body)["secret"]
    assert local.webhook(made["id"])["signing_secrets"] == [
        {"truncated_secret": "whsec_..." + third[-4:]}]
    local.publish("a", data={})
    request = receiver.wait(2, "/cb")[-1]
    assert verify(third, request.headers, request.body)
    assert not verify(second, request.headers, request.body)
    local.restart()
    assert local.webhook(made["id"])["signing_secrets"] == [
        {"truncated_secret": "whsec_..." + third[-4:]}]


def test_rotating_more_often_than_secrets_expire(broker):
    made = create(broker)
    for _ in range(7):
        broker.ok("POST", path(made, ":rotateSigningSecret"))
    secrets = broker.webhook(made["id"])["signing_secrets"]
    assert len(secrets) == 8
    status, code, message = error_of(broker, "POST", path(made, ":rotateSigningSecret"))
    assert (status, code) == (429, "limit_exceeded")
    assert "revoke_previous_secrets_immediately" in message
    assert broker.webhook(made["id"])["signing_secrets"] == secrets
    broker.ok("POST", path(made, ":rotateSigningSecret"),
              {"revocation_behavior": "revoke_previous_secrets_immediately"})
    assert len(broker.webhook(made["id"])["signing_secrets"]) == 1


# -- ping, attempts, resend, recover --

def test_ping_and_attempts(local, receiver):
    made = local.add_webhook(receiver.url("/cb"), "batch.*", headers={"X-Team": "a"})
    local.patch_webhook(made["id"], state="disabled")
    assert local.api("POST", path(made, ":ping")) == (200, {})
    assert local.api("POST", path(made, ":ping"), {}) == (200, {})
    ping = receiver.wait(2, "/cb")[0]
    assert ping.json()["type"] == "webhook.ping" and ping.headers["x-team"] == "a"
    assert verify(made["new_signing_secret"], ping.headers, ping.body)
    attempts = local.wait_attempts(made["id"], lambda found: len(found) == 2)
    for attempt in attempts:
        assert attempt["ping"] is True and "seq" not in attempt
        assert (attempt["type"], attempt["attempt"], attempt["ok"], attempt["status"]) == (
            "webhook.ping", 1, True, 200)
        assert attempt["duration_ms"] >= 0 and attempt["time"].endswith("Z")


def test_resend_and_recover(brokers, receiver):
    broker = brokers(*LOCAL, "--webhook-max-age", "1s", "--webhook-backoff-min", "1s")
    made = broker.add_webhook(receiver.url("/cb"), "a.*")
    receiver.script("/cb", 500)
    seq = broker.publish("a.b", data={"n": 1})
    other = broker.publish("c", data={"n": 2})
    dead = broker.wait_webhook(made["id"], lambda w: w["stats"]["dead"] == 1)
    assert dead["stats"]["failed"] >= 1 and "last_failure_time" in dead["stats"]
    failed = broker.attempts(made["id"])[-1]
    assert (failed["seq"], failed["ok"], failed["status"], failed["error"]) == (
        seq, False, 500, "status")
    first = receiver.requests("/cb")[0]

    receiver.script("/cb", 200)
    count = receiver.count("/cb")
    answer = broker.ok("POST", path(made, ":resend"), {"seq": seq})
    assert broker.ok("GET", f"/v1/replays/{answer['replay_id']}")["kind"] == "replay"
    assert receiver.wait(count + 1, "/cb")[-1].id == first.id
    answer = broker.ok("POST", path(made, ":recover"), {"since": "2020-01-01T00:00:00Z"})
    assert broker.ok("GET", f"/v1/replays/{answer['redrive_id']}")["kind"] == "redrive"
    assert receiver.wait(count + 2, "/cb")[-1].id == first.id
    broker.wait_webhook(made["id"], lambda w: w["stats"]["dead"] == 0)

    assert error_of(broker, "POST", path(made, ":resend"), {"seq": other})[:2] == (
        400, "invalid_request")
    assert error_of(broker, "POST", path(made, ":resend"), {"seq": 99})[:2] == (404, "not_found")
    for body in ({}, {"seq": 0}, {"seq": "1"}):
        assert error_of(broker, "POST", path(made, ":resend"), body)[:2] == (400, "invalid_request")
    for body in ({}, {"since": "yesterday"}, {"since": 5}):
        assert error_of(broker, "POST", path(made, ":recover"), body)[:2] == (400, "invalid_request")
    assert receiver.count("/cb") == count + 2


# -- what is refused: nothing is half made --

def bad(change, code, *words):
    return pytest.param(change, code, words, id=json.dumps(change)[:60])


BAD = [
    bad({"uri": None}, "invalid_request", "uri"),
    bad({"uri": 5}, "invalid_request", "uri"),
    bad({"uri": ""}, "invalid_request", "uri"),
    bad({"uri": "ftp://example.com/"}, "invalid_request", "'uri'", "ftp://example.com/"),
    bad({"uri": "http://127.0.0.1/"}, "invalid_request", "127.0.0.1", "127.0.0.0/8"),
    bad({"uri": "http://[::ffff:10.0.0.1]/"}, "invalid_request", "10.0.0.0/8"),
    bad({"uri": "http://2130706433/"}, "invalid_request", "127.0.0.0/8"),
    bad({"uri": "http://localhost/"}, "invalid_request", "localhost"),
    bad({"uri": "https://user:pass@example.com/"}, "invalid_request", "'uri'"),
    bad({"uri": "https://example.com/" + "a" * 2048}, "invalid_request", "2048"),
    bad({"subscribed_events": []}, "invalid_request", "subscribed_events"),
    bad({"subscribed_events": "batch.*"}, "invalid_request", "subscribed_events"),
    bad({"subscribed_events": ["a", 5]}, "invalid_request", "subscribed_events[1]"),
    bad({"subscribed_events": ["x y"]}, "invalid_request", "The value 'x y'",
        "'subscribed_events[0]'"),
    bad({"subscribed_events": ["a", ""]}, "invalid_request", "subscribed_events[1]"),
    bad({"subscribed_events": ["a..b"]}, "invalid_request", "'a..b'"),
    bad({"subscribed_events": [".a"]}, "invalid_request", "'.a'"),
    bad({"subscribed_events": ["a."]}, "invalid_request", "'a.'"),
    bad({"subscribed_events": ["a" * 257]}, "invalid_request", "subscribed_events[0]"),
    bad({"subscribed_events": ["a"] * 65}, "invalid_request", "64"),
    bad({"subscribedEvents": TYPES}, "parameter_unknown",
        "Unknown parameter 'subscribedEvents'. Did you mean 'subscribed_events'?"),
    bad({"SubscribedEvents": TYPES}, "parameter_unknown", "'subscribed_events'?"),
    bad({"colour": "red"}, "parameter_unknown", "Unknown parameter 'colour'", "subscribed_events"),
    bad({"name": 5}, "invalid_request", "name"),
    bad({"name": "n" * 1025}, "invalid_request", "name", "1024"),
    bad({"description": "n" * 1025}, "invalid_request", "description"),
    bad({"rate_per_s": -1}, "invalid_request", "rate_per_s"),
    bad({"concurrency": 0}, "invalid_request", "concurrency", "64"),
    bad({"concurrency": 65}, "invalid_request", "concurrency"),
    bad({"filter": {"type": "a"}}, "bad_filter", "filter.type"),
    bad({"filter": "a"}, "bad_filter", "filter"),
    bad({"headers": ["a"]}, "invalid_request", "headers"),
    bad({"headers": {"X": 5}}, "invalid_request", "headers.X"),
    bad({"headers": {"": "a"}}, "invalid_request", "headers"),
    bad({"headers": {"a b": "c"}}, "invalid_request", "'a b'"),
    bad({"headers": {"Host": "a"}}, "invalid_request", "'Host'"),
    bad({"headers": {"WEBHOOK-Extra": "a"}}, "invalid_request", "'WEBHOOK-Extra'"),
    bad({"headers": {"Proxy-Authorization": "a"}}, "invalid_request", "Proxy"),
    bad({"headers": {"Content-Length": "5"}}, "invalid_request", "Content-Length"),
    bad({"headers": {"X": "a\r\nY: b"}}, "invalid_request", "'X'"),
    bad({"headers": {"X": ""}}, "invalid_request", "'X'"),
    bad({"headers": {"X": "\u00e4"}}, "invalid_request", "'X'"),
    bad({"headers": {"X": "a", "x": "b"}}, "invalid_request", "twice"),
    bad({"headers": {"X": "a" * 1025}}, "invalid_request", "'X'"),
    bad({"headers": {f"X-{n}": "a" for n in range(17)}}, "invalid_request", "16"),
    bad({"headers": {f"X-{n}": "a" * 1024 for n in range(16)}}, "invalid_request", "too large"),
]


@pytest.mark.parametrize("change, code, words", BAD)
def test_bad_input(broker, change, code, words):
    made = without_secret(create(broker))
    body = {key: value for key, value in {**NEW, **change}.items() if value is not None}
    for method, where, sent in (("POST", "/v1/webhooks", body), ("PATCH", path(made), change)):
        if sent.get("uri", "") is None:
            continue
        status, got, message = error_of(broker, method, where, sent)
        assert (status, got) == (400, code), message
        for word in words:
            assert word in message, message
    assert broker.ok("GET", "/v1/webhooks") == {"webhooks": [made]}
    assert len(broker.ok("GET", "/v1/subscriptions")["subscriptions"]) == 1


def test_bad_bodies_and_states(broker):
    made = create(broker)
    for body in (b"", b"[]", b"{", b'{"uri":"a","uri":"b"}', b'"x"', b"\xff"):
        assert error_of(broker, "POST", "/v1/webhooks", body)[:2] == (400, "invalid_request"), body
    for state in ("disabled_due_to_failed_deliveries", "paused", "", 5):
        status, code, message = error_of(broker, "PATCH", path(made), {"state": state})
        assert (status, code) == (400, "invalid_request") and "state" in message
    assert error_of(broker, "POST", "/v1/webhooks", {**NEW, "state": "enabled"})[:2] == (
        400, "parameter_unknown")
    for verb in (":ping", ":pause", ":resume", ":rotateSigningSecret"):
        assert error_of(broker, "POST", path(made, verb), {"x": 1})[:2] == (
            400, "parameter_unknown")
        assert error_of(broker, "POST", path(made, verb), b"{")[:2] == (400, "invalid_request")
    status, code, message = error_of(broker, "POST", path(made, ":rotateSigningSecret"),
                                     {"revocation_behavior": "never"})
    assert (status, code) == (400, "invalid_request") and "revoke_previous_secrets_after_h24" in message
    assert error_of(broker, "POST", path(made, ":rotateSigningSecret"),
                    {"revocationBehavior": "x"})[2].endswith("'revocation_behavior'?")
    assert timeless(broker.webhook(made["id"])) == timeless(without_secret(made))


def test_unknown_ids_and_paths(broker):
    for id in ("nix", "a" * 36, "a" * 500, "A" * 36):
        for method, verb in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", ":ping"),
                             ("POST", ":rotateSigningSecret"), ("POST", "/rotate_secret"),
                             ("POST", ":pause"), ("POST", ":resume"), ("POST", ":resend"),
                             ("POST", ":recover"), ("GET", "/attempts")):
            status, code, message = error_of(broker, method, f"/v1/webhooks/{id}{verb}",
                                             {"name": "x"} if method == "PATCH" else None)
            assert (status, code) == (404, "not_found") and "webhook" in message
    for method, where in (("POST", "/v1/webhooks/a:explode"), ("GET", "/v1/webhooks/"),
                          ("GET", "/v1beta/webhook-keys"), ("GET", "/v1/webhooks/a/b/c"),
                          ("GET", "/v2/webhooks"), ("GET", "/v1betawebhooks")):
        assert error_of(broker, method, where)[:2] == (404, "not_found")
    status, headers, _ = broker.request("PUT", "/v1beta/webhooks/x")
    assert status == 405 and headers["Allow"] == "GET, HEAD, PATCH, DELETE"
    assert broker.request("GET", "/v1/webhooks/x:ping")[1]["Allow"] == "POST"
    assert broker.request("POST", "/v1/webhooks/x/attempts")[1]["Allow"] == "GET, HEAD"


def test_its_subscription_is_read_only(local, receiver):
    made = local.add_webhook(receiver.url("/cb"), "a")
    name = "webhook." + made["id"]
    assert local.subscription(name)["lag"] == "expire"
    seen = json.dumps(local.ok("GET", "/v1/subscriptions"))
    for method, where, body in (
            ("POST", "", {"name": "webhook.mine"}), ("POST", "", {"name": name}),
            ("PATCH", "/" + name, {"max_fails": 1}), ("DELETE", "/" + name, None),
            ("POST", f"/{name}:pause", None), ("POST", f"/{name}:resume", None),
            ("POST", f"/{name}:seek", {"to": "first"})):
        status, code, message = error_of(local, method, "/v1/subscriptions" + where, body)
        assert (status, code) == (400, "invalid_request"), message
        assert "/v1/webhooks" in message
    assert json.dumps(local.ok("GET", "/v1/subscriptions")) == seen
    # Replays and dead letters are its own too.
    local.publish("a")
    receiver.wait(1, "/cb")
    local.ok("POST", "/v1/replays", {"subscription": name, "from_seq": 1})
    receiver.wait(2, "/cb")
    assert local.dead_letters(name) == []


# -- many at once --

def test_many_changes_at_once(broker):
    """Whatever turn they fall into: each is answered, and the last one counts."""
    made = create(broker)
    answers = []

    def work(n):
        for i in range(10):
            one = create(broker, name=f"{n}-{i}")
            answers.append(broker.ok("PATCH", path(made), {"name": f"{n}-{i}"})["id"])
            if i % 2 == 0:
                broker.ok("DELETE", path(one))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [made["id"]] * 80
    names = {w["name"] for w in broker.ok("GET", "/v1/webhooks?page_size=1000")["webhooks"][1:]}
    assert names == {f"{n}-{i}" for n in range(8) for i in range(1, 10, 2)}
    shown = broker.ok("GET", "/v1/webhooks?page_size=1000")
    broker.restart()
    assert broker.ok("GET", "/v1/webhooks?page_size=1000") == shown
    assert len(broker.ok("GET", "/v1/subscriptions?page_size=1000")["subscriptions"]) == 41


def test_killed_at_any_time_nothing_is_half_made(broker):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            try:
                made = create(broker)
                broker.api("PATCH", path(made), {"state": "disabled"})
                broker.api("DELETE", path(made))
                create(broker)
            except OSError:
                return

    for _ in range(3):
        before = len(broker.ok("GET", "/v1/webhooks?page_size=1000")["webhooks"])
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(broker.ok("GET", "/v1/webhooks?page_size=1000")["webhooks"])
                 > before + 8, what="some webhooks")
        broker.kill9()
        stop.set()
        for thread in threads:
            thread.join()
        stop.clear()
        broker.start()
        webhooks = broker.ok("GET", "/v1/webhooks?page_size=1000")["webhooks"]
        subscriptions = broker.ok("GET", "/v1/subscriptions?page_size=1000")["subscriptions"]
        assert {"webhook." + w["id"] for w in webhooks} == {s["name"] for s in subscriptions}
        paused = {s["name"] for s in subscriptions if s["paused"]}
        assert paused == {"webhook." + w["id"] for w in webhooks if w["state"] == "disabled"}


# -- keys and event types --

def test_keys(broker):
    status, headers, body = broker.request("GET", "/.well-known/jwks.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert headers["Cache-Control"] == "public, max-age=600"
    keys = json.loads(body)["keys"]
    assert len(keys) == 2
    for key in keys:
        assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
        assert "d" not in key
    listed = broker.ok("GET", "/v1/webhook-keys")["keys"]
    assert [(k["kid"], k["state"], k["alg"], k["from_file"]) for k in listed] == [
        (keys[0]["kid"], "active", "EdDSA", False), (keys[1]["kid"], "next", "EdDSA", False)]
    rotated = broker.ok("POST", "/v1/webhook-keys:rotate")["keys"]
    assert [(k["state"]) for k in rotated] == ["active", "next", "old"]
    assert rotated[0]["kid"] == keys[1]["kid"] and rotated[2]["kid"] == keys[0]["kid"]
    assert "retire_time" in rotated[2] and "retire_time" not in rotated[0]
    published = json.loads(broker.request("GET", "/.well-known/jwks.json")[2])["keys"]
    assert [key["kid"] for key in published] == [key["kid"] for key in rotated]
    broker.kill9()
    broker.start()
    assert broker.ok("GET", "/v1/webhook-keys")["keys"] == rotated
    assert error_of(broker, "POST", "/v1/webhook-keys:rotate", {"x": 1})[:2] == (
        400, "parameter_unknown")


def test_a_key_from_a_file_is_not_rotated(brokers, tmp_path):
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "key.pem"],
                   check=True, capture_output=True)
    broker = brokers("--webhook-key", str(tmp_path / "key.pem"))
    first = broker.ok("GET", "/v1/webhook-keys")["keys"][0]
    assert (first["state"], first["from_file"]) == ("active", True)
    status, code, message = error_of(broker, "POST", "/v1/webhook-keys:rotate")
    assert (status, code) == (400, "invalid_request") and "file" in message


def test_event_types(broker):
    types = {t["type"]: t for t in broker.ok("GET", "/v1/event-types")["event_types"]}
    assert {"batch.succeeded", "batch.failed", "batch.cancelled", "batch.expired",
            "interaction.requires_action", "interaction.completed", "interaction.failed",
            "interaction.cancelled", "video.generated", "webhook.ping", "webhook.disabled",
            "job.overdue"} == set(types)
    for t in types.values():
        assert t["description"] and t["fields"][0]["name"] == "id"
    assert [f["name"] for f in types["batch.failed"]["fields"]] == [
        "id", "error_code", "error_message"]


# -- webhook_config of an event --

def test_webhook_config_of_an_event(local, receiver):
    uris = [receiver.url(f"/{n}") for n in range(8)]
    seq = local.publish("a", data={"n": 1},
                        webhook_config={"uris": uris, "user_metadata": {"k": [1.50, "\u00e4"]}})
    shown = local.ok("GET", f"/v1/events/{seq}")
    assert shown["webhook_config"] == {"uris": uris}
    assert shown["user_metadata"] == {"k": [1.50, "\u00e4"]}
    for n in range(8):
        received, = receiver.wait(1, f"/{n}")
        assert received.json()["data"] == {"n": 1}
    batch = local.ok("POST", "/v1/events", {"events": [
        {"type": "b"}, {"type": "c", "user_metadata": {"x": 1}, "webhook_config": {"uris": uris[:1]}}]})
    plain, own = [local.ok("GET", f"/v1/events/{e['seq']}") for e in batch["events"]]
    assert "webhook_config" not in plain
    assert own["webhook_config"] == {"uris": uris[:1]} and own["user_metadata"] == {"x": 1}
    endpoint, = local.ok("GET", "/v1/webhook-endpoints")["endpoints"]
    assert endpoint["origin"] == receiver.origin and endpoint["breaker"] == "closed"
    names = [s["name"] for s in local.ok("GET", "/v1/subscriptions")["subscriptions"]]
    assert names == [f"webhook.dynamic.{n}" for n in range(8)]


BAD_CONFIGS = [
    ({}, "invalid_request", "webhook_config.uris"),
    ([], "invalid_request", "webhook_config must be an object"),
    ("https://example.com", "invalid_request", "webhook_config must be an object"),
    (None, "invalid_request", "webhook_config must be an object"),
    ({"uris": []}, "invalid_request", "webhook_config.uris"),
    ({"uris": "https://example.com"}, "invalid_request", "webhook_config.uris"),
    ({"uris": [URI] * 2}, "invalid_request", "webhook_config.uris[1]"),
    ({"uris": [f"{URI}/{n}" for n in range(9)]}, "invalid_request", "at most 8"),
    ({"uris": [URI, "http://10.1.2.3/"]}, "invalid_request", "webhook_config.uris[1]"),
    ({"uris": [URI + "\nhttps://example.org"]}, "invalid_request", "webhook_config.uris[0]"),
    ({"uris": [""]}, "invalid_request", "webhook_config.uris[0]"),
    ({"uris": [URI + "a" * 2048]}, "invalid_request", "webhook_config.uris[0]"),
    ({"uris": [URI], "userMetadata": {}}, "parameter_unknown",
     "'webhook_config.userMetadata'. Did you mean 'webhook_config.user_metadata'?"),
    ({"uris": [URI], "user_metadata": 5}, "invalid_request", "webhook_config.user_metadata"),
    ({"uris": [URI], "user_metadata": {"a": "b" * 16384}}, "invalid_request", "16384"),
]


@pytest.mark.parametrize("config, code, words", BAD_CONFIGS)
def test_bad_webhook_configs(broker, config, code, words):
    status, got, message = error_of(broker, "POST", "/v1/events",
                                    {"type": "a", "webhook_config": config})
    assert (status, got) == (400, code), message
    assert words in message, message
    status, got, message = error_of(broker, "POST", "/v1/events", {"events": [
        {"type": "a"}, {"type": "b", "webhook_config": config}]})
    assert (status, got) == (400, code) and "events[1].webhook_config" in message
    assert broker.events() == []
    assert broker.ok("GET", "/v1/subscriptions")["subscriptions"] == []


def test_user_metadata_twice(broker):
    config = {"uris": [URI], "user_metadata": {"a": 1}}
    for body in ({"type": "a", "user_metadata": {"b": 1}, "webhook_config": config},
                 {"type": "a", "webhook_config": config, "user_metadata": {}}):
        status, code, message = error_of(broker, "POST", "/v1/events", body)
        assert (status, code) == (400, "invalid_request") and "user_metadata" in message
