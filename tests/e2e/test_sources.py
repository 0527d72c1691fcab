"""/v1/sources: schemes and options, secrets that rotate and expire, and looking at a saved request."""

import base64
import datetime
import json

import pytest
from harness import make_secret, signed_headers, wait_for
from providers import PUBLIC_URL, TOKEN, add, code, github, post, slack, stripe

A, B = make_secret("a"), make_secret("b")


def at(seconds):
    """The time so many seconds from now."""
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def refused(broker, method, path, body, *words):
    status, answer = broker.api(method, path, body)
    assert (status, answer["error"]["code"]) in ((400, "invalid_request"),
                                                 (400, "parameter_unknown")), answer
    for word in words:
        assert word in answer["error"]["message"], answer


def test_what_is_shown(broker):
    made = add(broker, "slack", tolerance_s=600, dedupe_ms=5000)
    assert made["scheme"] == "slack" and made["options"] == {"tolerance_s": 600, "dedupe_ms": 5000}
    assert made["secrets"] == ["..." + TOKEN[-4:]] and "secret" not in made
    broker.restart()
    shown = broker.ok("GET", "/v1/sources/src")
    assert shown["options"] == {"tolerance_s": 600, "dedupe_ms": 5000}
    add(broker, "github", "short", name="gh")
    assert broker.ok("GET", "/v1/sources/gh")["secrets"] == ["..."]
    assert "short" not in json.dumps(broker.ok("GET", "/v1/sources"))


def test_a_secret_is_made_where_the_operator_chooses(broker):
    for scheme in ("standard-webhooks", "github", "hmac", "bearer"):
        options = {"signature_header": "x-s"} if scheme == "hmac" else {}
        made = broker.ok("POST", "/v1/sources", {"name": scheme, "scheme": scheme,
                                                 "options": options})
        assert made["secret"].startswith("whsec_")
        assert "secret" not in broker.ok("GET", f"/v1/sources/{scheme}")
    for scheme in ("stripe", "slack", "shopify", "openai"):
        refused(broker, "POST", "/v1/sources", {"name": "x", "scheme": scheme}, "secrets")
    made = broker.ok("POST", "/v1/sources", {"name": "gemini", "scheme": "gemini"})
    assert "secret" not in made and made["public_keys"]["url"].startswith("https://generative")


@pytest.mark.parametrize("body,words", [
    ({"scheme": "plain"}, ("scheme", "github", "none")),
    ({"scheme": "github", "secrets": [TOKEN], "options": {"tolerance_s": 5}}, ("tolerance_s", "github")),
    ({"options": {"tolerance": 5}}, ("tolerance",)),
    ({"options": {"tolerance_s": -1}}, ("options.tolerance_s",)),
    ({"options": {"tolerance_s": 604801}}, ("options.tolerance_s",)),
    ({"options": {"jwks_url": "http://a.example/"}}, ("jwks_url", "https")),
    ({"options": {"jwks_url": "file:///etc/passwd", "jwks_allow_http": True}}, ("jwks_url",)),
    ({"options": {"jwks_url": 7}}, ("options.jwks_url",)),
    ({"options": {"jwks_url": "https://" + "a" * 2048}}, ("options.jwks_url",)),
    ({"options": []}, ("options",)),
    ({"scheme": "twilio", "secrets": [TOKEN]}, ("public_url",)),
    ({"scheme": "hmac", "secrets": [TOKEN]}, ("signature_header",)),
    ({"scheme": "hmac", "options": {"signature_header": "x y"}}, ("signature_header",)),
    ({"scheme": "hmac", "options": {"signature_header": "x", "algorithm": "md5"}}, ("algorithm", "sha256")),
    ({"scheme": "hmac", "options": {"signature_header": "x", "encoding": "b64"}}, ("encoding", "hex")),
    ({"scheme": "hmac", "options": {"signature_header": "x", "signed_bytes": "{timestamp}"}}, ("{body}",)),
    ({"scheme": "hmac", "options": {"signature_header": "x", "signed_bytes": "{timestamp}.{body}"}},
     ("timestamp_header",)),
    ({"scheme": "hmac", "options": {"signature_header": "x", "timestamp_header": "t"}},
     ("timestamp_header",)),
    ({"scheme": "hmac", "options": {"signature_header": "x", "signed_bytes": "{id}{body}",
                                    "id_header": "i"}}, ("separator",)),
    ({"scheme": "none", "secrets": [TOKEN]}, ("secrets[0]", "no secrets")),
    ({"secrets": [{"secret": A, "expires": "x"}]}, ("expires",)),
    ({"secrets": [{"expire_time": "2030-01-01T00:00:00Z"}]}, ("secret",)),
    ({"secrets": [{"secret": A, "expire_time": "soon"}]}, ("expire_time",)),
], ids=lambda value: str(value)[:50])
def test_what_does_not_go_together(broker, body, words):
    refused(broker, "POST", "/v1/sources", {"name": "src", **body}, *words)
    assert broker.ok("GET", "/v1/sources")["sources"] == []


def test_rotation_by_hand(broker):
    add(broker, "standard-webhooks", A)
    later = at(3600)
    made = broker.ok("PATCH", "/v1/sources/src", {"add_secrets": [B], "previous_expire_time": later})
    assert made["secrets"] == ["whsec_..." + A[-4:], "whsec_..." + B[-4:]]
    assert [e["secret"] for e in made["expiring_secrets"]] == ["whsec_..." + A[-4:]]
    for i, secret in enumerate((A, B)):
        assert post(broker, b"{}", signed_headers(secret, b"{}")) == (200, {"seq": i + 1})
    # Sooner than that is possible, later is not.
    broker.ok("PATCH", "/v1/sources/src", {"add_secrets": [make_secret("c")],
                                           "previous_expire_time": at(7200)})
    shown = broker.ok("GET", "/v1/sources/src")["expiring_secrets"]
    assert len(shown) == 2 and shown[0]["expire_time"] < shown[1]["expire_time"]
    broker.ok("PATCH", "/v1/sources/src", {"secrets": [B]})
    assert post(broker, b"{}", signed_headers(A, b"{}"))[0] == 401
    assert post(broker, b"{}", signed_headers(B, b"{}"))[0] == 200
    assert broker.ok("GET", "/v1/sources/src")["accepted"] == 3, "the counters go on"


def test_a_secret_expires(broker):
    broker.ok("POST", "/v1/sources", {"name": "src", "secrets": [
        B, {"secret": A, "expire_time": at(1.5)}]})
    broker.restart()
    wait_for(lambda: post(broker, b"{}", signed_headers(A, b"{}"))[0] == 401, what="its end")
    assert broker.ok("GET", "/v1/sources/src")["secrets"] == ["whsec_..." + B[-4:]]
    assert post(broker, b"{}", signed_headers(B, b"{}"))[0] == 200
    # Also over a restart: what is stored has a time.
    broker.restart()
    assert code(post(broker, b"{}", signed_headers(A, b"{}"))) == (401, "signature_mismatch")


def test_when_all_have_expired(broker):
    broker.ok("POST", "/v1/sources", {"name": "src", "scheme": "github", "secrets": [
        {"secret": TOKEN, "expire_time": at(0.5)}]})
    wait_for(lambda: post(broker, b"{}", github(b"{}"))[0] == 401, what="its end")
    status, answer = post(broker, b"{}", github(b"{}", secret=""))
    assert status == 401 and "expired" in answer["error"]["message"]
    refused(broker, "PATCH", "/v1/sources/src", {"options": {"dedupe_ms": 5}}, "secrets")
    broker.ok("PATCH", "/v1/sources/src", {"secrets": ["another"]})
    assert post(broker, b"{}", github(b"{}", secret="another"))[0] == 200


def test_options_change(broker):
    add(broker, "twilio", public_url=PUBLIC_URL)
    made = broker.ok("PATCH", "/v1/sources/src", {"options": {"dedupe_ms": 1000}})
    assert made["options"] == {"public_url": PUBLIC_URL, "dedupe_ms": 1000}
    made = broker.ok("PATCH", "/v1/sources/src", {"options": {"dedupe_ms": 0}})
    assert made["options"] == {"public_url": PUBLIC_URL}
    refused(broker, "PATCH", "/v1/sources/src", {"options": {"public_url": ""}}, "public_url")
    for body, words in (({"scheme": "github"}, ("scheme",)), ({"name": "x"}, ("name",)),
                        ({"previous_expire_time": at(5)}, ("add_secrets",)),
                        ({"secrets": [A], "add_secrets": [B]}, ("add_secrets",)),
                        ({"add_secrets": [TOKEN] * 8}, ("add_secrets[7]",))):
        refused(broker, "PATCH", "/v1/sources/src", body, *words)
    assert broker.ok("GET", "/v1/sources/src")["options"] == {"public_url": PUBLIC_URL}
    assert broker.api("PATCH", "/v1/sources/other", {})[0] == 404


def test_looking_at_a_request(broker):
    add(broker, "github")
    body = json.dumps({"action": "opened", "repository": {"full_name": "o/r"}})
    headers = github(body.encode(), event="issues")
    looked = broker.ok("POST", "/v1/sources/src:test", {"headers": headers, "body": body})
    assert looked == {"verified": True, "by": "secrets[0]", "repeats_told_by": "body", "event": {
        "id": headers["x-github-delivery"], "type": "issues.opened", "subject": "o/r",
        "headers": {k: v for k, v in headers.items() if "signature" not in k}}}
    packed = base64.b64encode(body.encode()).decode()
    assert broker.ok("POST", "/v1/sources/src:test",
                     {"headers": headers, "body_base64": packed})["verified"]
    for changed, want in (({"body": body + "\n"}, "signature_mismatch"),
                          ({"headers": {}}, "signature_missing"),
                          ({"headers": {"X-Hub-Signature-256": "x"}}, "signature_malformed")):
        looked = broker.ok("POST", "/v1/sources/src:test",
                           {"headers": headers, "body": body, **changed})
        assert (looked["verified"], looked["error"]["code"]) == (False, want)
        assert headers["x-hub-signature-256"][7:] not in json.dumps(looked)
    for wrong, word in (({"bodies": 1}, "bodies"), ({"headers": []}, "headers"),
                        ({"body": "x", "body_base64": "eA=="}, "body_base64"),
                        ({"body_base64": "?"}, "base64"), ({"method": "GET"}, "POST"),
                        ({"time": "x"}, "time")):
        refused(broker, "POST", "/v1/sources/src:test", wrong, word)
    assert broker.api("POST", "/v1/sources/other:test", {})[0] == 404
    source = broker.ok("GET", "/v1/sources/src")
    assert (source["accepted"], source["refused"]) == (0, 0) and broker.events() == []


def test_looking_with_another_time_changes_nothing(broker):
    broker.ok("POST", "/v1/sources", {"name": "src", "scheme": "stripe", "secrets": [
        {"secret": TOKEN, "expire_time": at(3600)}]})
    looked = broker.ok("POST", "/v1/sources/src:test", {
        "headers": stripe(b"{}"), "body": "{}", "time": "2099-01-01T00:00:00Z"})
    assert looked["error"]["code"] == "timestamp_too_old"
    assert post(broker, b"{}", stripe(b"{}"))[0] == 200


def test_looking_at_a_challenge(broker):
    add(broker, "slack")
    body = '{"type":"url_verification","challenge":"c"}'
    looked = broker.ok("POST", "/v1/sources/src:test",
                       {"headers": slack(body.encode()), "body": body})
    assert looked == {"verified": True, "by": "secrets[0]", "challenge": True}
