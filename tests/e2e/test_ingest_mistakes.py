"""Twelve mistakes that verifiers of webhooks are known for: each is a test that fails when the
mistake is put in. (The eleventh, a sender that signs a retry with the old time, is the outbound
side's: test_webhook_retries.py.)"""

import base64
import gzip
import json

import pytest
from harness import LOCAL, make_secret, now_s, sign, signed_headers
from providers import (OWN, PUBLIC_URL, TOKEN, add, code, github, mac, own, post, shopify, slack,
                       stripe, twilio, twilio_json)

SECRET = make_secret("k")


def everyone(body):
    """(scheme, options, headers) of every scheme that signs a body."""
    return [("github", {}, github(body)), ("stripe", {}, stripe(body)), ("slack", {}, slack(body)),
            ("shopify", {}, shopify(body)), ("hmac", OWN, own(body))]


def test_mistake_01_the_body_is_not_parsed_and_written_again(broker):
    body = b'{ "b" : 1.0,\r\n "a":"\\u00e9" }\n'
    again = json.dumps(json.loads(body)).encode()
    for i, (scheme, options, headers) in enumerate(everyone(body)):
        add(broker, scheme, name=scheme, **options)
        assert post(broker, body, headers, name=scheme) == (200, {"seq": i + 1})
        status, _, shown = broker.request("GET", f"/v1/events/{i + 1}")
        assert status == 200 and b'{ "b" : 1.0,\r\n' in shown
        assert code(post(broker, again, headers, name=scheme)) == (401, "signature_mismatch")


def test_mistake_02_the_signed_time_is_checked_both_ways(broker):
    makers = {"stripe": (stripe, {}), "slack": (slack, {}), "hmac": (own, OWN)}
    for scheme, (make, options) in makers.items():
        add(broker, scheme, name=scheme, **options)
        for timestamp, want in ((now_s() - 301, "timestamp_too_old"),
                                (now_s() + 330, "timestamp_in_future")):
            assert code(post(broker, b"{}", make(b"{}", timestamp=timestamp), name=scheme)) == (
                401, want)
            # A fresh time beside the old signature: not the one that was signed.
            stale = make(b"{}", timestamp=timestamp)
            for name, value in make(b"{}").items():
                if "signature" not in name:
                    stale[name] = value
            if scheme != "stripe":
                assert code(post(broker, b"{}", stale, name=scheme)) == (401, "signature_mismatch")
    assert broker.events() == []


def test_mistake_03_a_repeat_is_known_without_its_id(broker):
    body = b'{"a":1}'
    for i, (scheme, options, headers) in enumerate(everyone(body)):
        add(broker, scheme, name=scheme, **options)
        assert post(broker, body, headers, name=scheme) == (200, {"seq": i + 1})
        stripped = {k: v for k, v in headers.items()
                    if k not in ("x-github-delivery", "x-shopify-webhook-id")}
        more = {**headers, "x-github-delivery": "n", "x-shopify-webhook-id": "n", "ce-id": "n",
                "ce-specversion": "1.0", "webhook-id": "n"}
        for changed in (stripped, more):
            assert post(broker, body, changed, name=scheme) == (
                200, {"seq": i + 1, "duplicate": True}), scheme


def test_mistake_04_each_of_several_signatures_is_compared(broker):
    add(broker, "standard-webhooks", SECRET)
    headers = signed_headers(SECRET, b"{}", id="m")
    good = headers["webhook-signature"]
    junk = "v1," + base64.b64encode(b"j" * 32).decode()
    for listed in (f"{junk} {good}", f"v1a,AAAA {junk} {junk} {good}"):
        assert post(broker, b"{}", {**headers, "webhook-signature": listed})[0] == 200
    for wrong in (f"x{good}", f"v1{good}", good.replace("v1,", "v1,v1,"), f"{good},{good}",
                  good.replace("v1,", "v1=")):
        status, _ = post(broker, b"{}", {**headers, "webhook-signature": wrong})
        assert status == 401, wrong
    add(broker, "github", name="gh")
    headers = github(b"{}")
    good = headers["x-hub-signature-256"]
    for wrong in ("junk" + good, good[7:], "sha1=" + good[7:], good + "," + good, "sha256=" + good):
        assert code(post(broker, b"{}", {**headers, "x-hub-signature-256": wrong}, name="gh")) == (
            401, "signature_malformed"), wrong


@pytest.mark.parametrize("scheme,secret,word", [
    ("standard-webhooks", SECRET + "\n", "secrets[0]"), ("standard-webhooks", "whsec_", "secrets[0]"),
    ("github", TOKEN + "\n", "line end"), ("github", " " + TOKEN, "blank"), ("github", "", "empty"),
    ("stripe", TOKEN + "\r\n", "line end"), ("bearer", "short", "16"),
    ("standard-webhooks", "whpk_AAAA", "whpk_"),
], ids=lambda value: repr(value)[:30])
def test_mistake_05_a_secret_has_the_form_of_its_scheme(broker, scheme, secret, word):
    status, answer = broker.api("POST", "/v1/sources",
                                {"name": "src", "scheme": scheme, "secrets": [secret]})
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert word in answer["error"]["message"]
    assert secret.strip() == "" or secret.strip() not in answer["error"]["message"] or len(secret) < 7


def test_mistake_05_whsec_is_decoded_where_it_is_base64_only(broker):
    # Stripe's is used as it stands, prefix and all.
    add(broker, "stripe", SECRET, name="stripe")
    assert post(broker, b"{}", stripe(b"{}", SECRET), name="stripe")[0] == 200
    add(broker, "standard-webhooks", SECRET, name="sw")
    raw = {**signed_headers(SECRET, b"{}", id="m")}
    raw["webhook-signature"] = "v1," + mac(
        SECRET, f"m.{raw['webhook-timestamp']}.{{}}".encode(), hexadecimal=False)
    assert code(post(broker, b"{}", raw, name="sw")) == (401, "signature_mismatch")


def test_mistake_06_a_signature_is_whole(broker):
    """Either case of hex and absent padding are the same bytes; more or less of them is none."""
    add(broker, "github")
    headers = github(b"{}")
    upper = "sha256=" + headers["x-hub-signature-256"][7:].upper()
    assert post(broker, b"{}", {**headers, "x-hub-signature-256": upper})[0] == 200
    for cut in ("", headers["x-hub-signature-256"][:-2], headers["x-hub-signature-256"][:-1],
                headers["x-hub-signature-256"] + "00", "sha256="):
        assert post(broker, b"{}", {**headers, "x-hub-signature-256": cut})[0] == 401, cut
    add(broker, "shopify", name="shop")
    headers = shopify(b"{}")
    bare = headers["x-shopify-hmac-sha256"].rstrip("=")
    assert post(broker, b"{}", {**headers, "x-shopify-hmac-sha256": bare}, name="shop")[0] == 200
    for wrong in (bare[:-1], bare + "A", bare + "==", bare.replace(bare[3], "-")):
        assert post(broker, b"{}", {**headers, "x-shopify-hmac-sha256": wrong}, name="shop")[0] == 401


def test_mistake_07_a_missing_header_is_no_pass(broker):
    body = b'{"a":1}'
    for scheme, options, headers in everyone(body):
        add(broker, scheme, name=scheme, **options)
        needed = [n for n in headers if "signature" in n or "hmac" in n or "time" in n]
        for name in needed:
            if name == "x-shopify-triggered-at":
                continue
            for value in (None, ""):
                changed = {k: v for k, v in {**headers, name: value}.items() if v is not None}
                status, answer = post(broker, body, changed, name=scheme)
                assert (status, answer["error"]["code"]) == (401, "signature_missing"), name
                assert name in answer["error"]["message"]
        status, answer = broker.api("POST", "/v1/sources", {"name": "e", "scheme": scheme,
                                                            "secrets": [], "options": options})
        assert status == 400 and "secrets" in answer["error"]["message"]
    assert broker.events() == []


def test_mistake_08_a_coded_body_is_verified_as_it_came(broker):
    add(broker, "github")
    packed = gzip.compress(b'{"a":1}')
    headers = {**github(packed), "content-encoding": "gzip"}
    assert post(broker, packed, headers) == (200, {"seq": 1})
    assert base64.b64decode(broker.ok("GET", "/v1/events/1")["body_base64"]) == packed
    unpacked = {**github(b'{"a":1}'), "content-encoding": "gzip"}
    assert code(post(broker, packed, unpacked)) == (401, "signature_mismatch")
    # Line ends are nobody's to change.
    for body in (b"a\r\nb", b"a\nb", b"a\rb"):
        assert post(broker, body, github(body))[0] == 200
    assert code(post(broker, b"a\nb", github(b"a\r\nb"))) == (401, "signature_mismatch")


def test_mistake_09_no_dot_in_id_or_time(broker):
    add(broker, "standard-webhooks", SECRET)
    now = str(now_s())
    # The same signed bytes, cut at another dot.
    body = b'{"a":1}'
    signature = sign(SECRET, "m", f"{now}.{now}", body)
    for msg_id, timestamp, sent in (("m", f"{now}.{now}", body), (f"m.{now}", now, body),
                                    ("m", now, f"{now}.".encode() + body)):
        status, _ = post(broker, sent, {"webhook-id": msg_id, "webhook-timestamp": timestamp,
                                        "webhook-signature": signature})
        if sent == body:
            assert status == 401, (msg_id, timestamp)
    add(broker, "hmac", name="own", **{**OWN, "signed_bytes": "{id}:{timestamp}:{body}",
                                       "id_header": "x-own-id"})
    status, answer = post(broker, body, {**own(body), "x-own-id": "a:b"}, name="own")
    assert (status, answer["error"]["code"]) == (401, "signature_malformed")


def test_mistake_10_keys_come_from_the_source_alone(brokers):
    """Algorithms, key ids and URLs that a request brings choose nothing: test_jwks.py has the
    server's side, the unit test test_scheme the tokens."""
    broker = brokers(*LOCAL)
    status, answer = broker.api("POST", "/v1/sources", {
        "name": "src", "scheme": "gemini", "options": {"jwks_url": "http://127.0.0.1:9/keys"}})
    assert status == 400 and "jwks_allow_http" in answer["error"]["message"]
    add(broker, "gemini", jwks_url="https://127.0.0.1:9/keys", audience="us")
    head = base64.urlsafe_b64encode(json.dumps(
        {"alg": "none", "jku": "http://127.0.0.1:9/", "jwk": {"kty": "oct", "k": "AA"}}).encode())
    claims = base64.urlsafe_b64encode(json.dumps({"aud": "us", "iat": now_s()}).encode())
    token = ".".join(part.decode().rstrip("=") for part in (head, claims))
    for text in (token + ".", token + ".AA"):
        assert code(post(broker, b"{}", {"webhook-signature": text}))[0] == 401
    assert broker.events() == []


def test_mistake_12_an_old_request_can_be_looked_at(broker):
    """A saved request is past its tolerance: the tool takes the time it came at, and journals
    nothing."""
    add(broker, "stripe")
    body = '{"id":"evt_1","type":"invoice.paid"}'
    headers = stripe(body.encode(), timestamp=1700000000)
    saved = {"headers": headers, "body": body}
    now = broker.ok("POST", "/v1/sources/src:test", saved)
    assert now["verified"] is False and now["error"]["code"] == "timestamp_too_old"
    then = broker.ok("POST", "/v1/sources/src:test", {**saved, "time": "2023-11-14T22:13:25Z"})
    assert then["verified"] is True and then["by"] == "secrets[0]"
    assert then["event"]["id"] == "evt_1" and then["event"]["type"] == "invoice.paid"
    wrong = {**saved, "body": body + "\n", "time": "2023-11-14T22:13:25Z"}
    assert broker.ok("POST", "/v1/sources/src:test", wrong)["error"]["code"] == "signature_mismatch"
    assert broker.events() == []
    source = broker.ok("GET", "/v1/sources/src")
    assert (source["accepted"], source["refused"]) == (0, 0)


def test_twilio_has_the_same_mistakes(broker):
    add(broker, "twilio", public_url=PUBLIC_URL)
    headers, body = twilio({"A": "1", "B": "2"})
    assert post(broker, body, headers)[0] == 200
    assert code(post(broker, b"A=1&B=3", headers)) == (401, "signature_mismatch")
    assert code(post(broker, body, {})) == (401, "signature_missing")
    headers, query = twilio_json(b"{}")
    assert code(post(broker, b"{ }", headers, query)) == (401, "signature_mismatch")
