"""Sources whose senders sign with public keys: a key server of our own on loopback, keys and
signatures made by Node's crypto."""

import base64
import http.server
import json
import threading
from pathlib import Path

import pytest
from harness import LOCAL, broker_env, make_secret, now_s, run_node, signed_headers, wait_for
from providers import add, code, post

BODY = '{"type":"batch.succeeded","data":{"id":"b"}}'


class KeyServer:
    """Serves `answer` = (status, body) and counts; no_answer holds requests until close()."""

    def __init__(self):
        self.answer = (200, b'{"keys":[]}')
        self.requests = []
        self.released = threading.Event()
        self.no_answer = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                if outer.no_answer:
                    outer.released.wait(30)
                status, body = outer.answer
                try:
                    self.send_response(status)
                    if status == 302:
                        self.send_header("location", "/elsewhere")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks.json"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def serve(self, *keys):
        self.answer = (200, json.dumps({"keys": list(keys)}).encode())

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.thread.join(30)
        self.server.server_close()


@pytest.fixture
def keys():
    server = KeyServer()
    yield server
    server.close()


@pytest.fixture
def broker(brokers):
    return brokers(*LOCAL)


class Signer:
    """A provider's key."""

    def __init__(self, alg, kid=None):
        self.alg, self.kid, self.key = alg, kid, None
        self.sign()

    def sign(self, body=BODY, id="msg_1", timestamp=None, head=None, **claims):
        made = run_node("sign_dynamic.mjs", {
            "alg": self.alg, "kid": self.kid, "key": self.key, "id": id, "body": body,
            "timestamp": now_s() if timestamp is None else timestamp, "claims": claims,
            "head": head or {}})
        self.key, self.jwk = made["key"], made["jwk"]
        return made["headers"]


def known(broker, name="src"):
    return broker.ok("GET", f"/v1/sources/{name}")["public_keys"]


def wait_known(broker, count=1, name="src"):
    wait_for(lambda: known(broker, name)["known"] == count, what=f"{count} keys")


def open_door(broker, keys, **options):
    add(broker, "gemini", jwks_url=keys.url, jwks_allow_http=True, **options)


def test_v1a_without_kid(broker, keys):
    """As Gemini does it: three keys without a kid, each is tried."""
    signers = [Signer("v1a") for _ in range(3)]
    keys.serve(*(s.jwk for s in signers))
    open_door(broker, keys)
    wait_known(broker, 3)
    for i, signer in enumerate(signers):
        headers = signer.sign(id=f"msg_{i}")
        assert post(broker, BODY.encode(), headers) == (200, {"seq": i + 1})
    headers = signers[0].sign(id="msg_x")
    assert code(post(broker, BODY.encode() + b" ", headers)) == (401, "signature_mismatch")
    assert code(post(broker, BODY.encode(), {**headers, "webhook-id": "y"})) == (
        401, "signature_mismatch")
    old = signers[0].sign(timestamp=now_s() - 400)
    assert code(post(broker, BODY.encode(), old)) == (401, "timestamp_too_old")
    assert len(keys.requests) == 1, "the keys are kept"
    assert keys.requests[0][0] == "/jwks.json"


def test_jwt(broker, keys):
    """As Gemini documents it: RS256, kid and aud."""
    signer, stranger = Signer("jwt", kid="a"), Signer("jwt", kid="a")
    keys.serve({**Signer("v1a").jwk}, {**signer.jwk, "alg": "RS256", "use": "sig"})
    open_door(broker, keys, audience="project-1")
    wait_known(broker, 2)
    assert post(broker, BODY.encode(), signer.sign(aud="project-1")) == (200, {"seq": 1})
    assert broker.ok("GET", "/v1/events/1")["id"] == "msg_1"
    assert post(broker, BODY.encode(), signer.sign(aud="project-1")) == (
        200, {"seq": 1, "duplicate": True})
    for wrong in (signer.sign(aud="project-2"), signer.sign(), stranger.sign(aud="project-1"),
                  signer.sign(aud="project-1", head={"alg": "EdDSA"}),
                  signer.sign(aud="project-1", head={"alg": "none"}),
                  signer.sign(aud="project-1", body_sha256="0" * 64),
                  signer.sign(aud="project-1", body_sha256=None)):
        assert post(broker, BODY.encode(), wrong)[0] == 401
    assert code(post(broker, BODY.encode() + b" ", signer.sign(aud="project-1"))) == (
        401, "signature_mismatch")
    assert code(post(broker, BODY.encode(), signer.sign(aud="project-1", exp=now_s() - 100))) == (
        401, "timestamp_too_old")
    assert len(broker.events()) == 1


def test_static_and_dynamic_at_one_door(broker, keys):
    signer, secret = Signer("v1a"), make_secret("s")
    keys.serve(signer.jwk)
    broker.ok("POST", "/v1/sources", {"name": "src", "scheme": "gemini", "secrets": [secret],
                                      "options": {"jwks_url": keys.url, "jwks_allow_http": True}})
    assert post(broker, b"{}", signed_headers(secret, b"{}", id="s"))[0] == 200
    wait_known(broker)
    assert post(broker, BODY.encode(), signer.sign())[0] == 200


def test_no_key_known_yet(broker, keys):
    """503 and Retry-After while the fetch goes on, so that the sender comes back; a secret's
    signature does not wait for it."""
    signer, secret = Signer("v1a"), make_secret("s")
    keys.serve(signer.jwk)
    keys.no_answer = True
    broker.ok("POST", "/v1/sources", {"name": "src", "scheme": "gemini", "secrets": [secret],
                                      "options": {"jwks_url": keys.url, "jwks_allow_http": True}})
    status, headers, text = broker.request("POST", "/in/src", BODY.encode(), signer.sign())
    assert (status, json.loads(text)["error"]["code"]) == (503, "keys_unavailable")
    assert "Retry-After" in headers
    assert post(broker, b"{}", signed_headers(secret, b"{}", id="s"))[0] == 200
    assert code(post(broker, b"", {"webhook-signature": "v1a,AAAA"}))[0] == 401
    assert post(broker, BODY.encode(), signer.sign())[0] == 503
    assert len(keys.requests) == 1
    keys.no_answer = False
    keys.released.set()
    wait_known(broker)
    assert post(broker, BODY.encode(), signer.sign())[0] == 200


def test_a_key_server_that_cannot_be_reached(broker, keys):
    signer = Signer("v1a")
    add(broker, "gemini", jwks_url="http://127.0.0.1:9/jwks.json", jwks_allow_http=True)
    assert code(post(broker, BODY.encode(), signer.sign())) == (503, "keys_unavailable")
    wait_for(lambda: "connect" in known(broker).get("trouble", ""), what="the failure")
    assert code(post(broker, BODY.encode(), signer.sign())) == (503, "keys_unavailable")
    assert "could not be fetched" in broker.log()


def test_private_addresses_need_leave(brokers, keys):
    broker = brokers()
    open_door(broker, keys)
    wait_for(lambda: "loopback" in known(broker).get("trouble", ""), what="the guard's word")
    assert keys.requests == []


@pytest.mark.parametrize("what,answer", [
    ("500", (500, b"{}")), ("404", (404, b'{"keys":[]}')), ("redirect", (302, b"")),
    ("html", (200, b"<html>")), ("empty", (200, b'{"keys":[]}')),
    ("octets", (200, b'{"keys":[{"kty":"oct","k":"AAAA","alg":"HS256"}]}')),
    ("nested", (200, b'{"keys":' + b"[" * 5000)),
    ("large", (200, b'{"keys":[' + b" " * 70000 + b"]}")),
])
def test_a_hostile_key_server(broker, keys, what, answer):
    keys.answer = answer
    open_door(broker, keys)
    wait_for(lambda: known(broker).get("trouble"), what="the trouble")
    assert known(broker)["known"] == 0
    signer = Signer("v1a")
    assert post(broker, BODY.encode(), signer.sign())[0] == 503
    assert [path for path, _ in keys.requests] == ["/jwks.json"] * len(keys.requests)
    assert broker.events() == []


def test_strangers_do_not_make_it_fetch(broker, keys):
    """A signature that fits no key asks for the keys anew, but once a minute whatever is sent; the
    minute began with the first fetch."""
    signer = Signer("v1a")
    keys.serve(signer.jwk)
    open_door(broker, keys, audience="us")
    wait_known(broker)
    stranger, other = Signer("v1a"), Signer("jwt", kid="unknown")
    for _ in range(5):
        assert code(post(broker, BODY.encode(), stranger.sign())) == (401, "signature_mismatch")
        assert code(post(broker, BODY.encode(), other.sign(aud="us"))) == (401, "signature_mismatch")
    assert len(keys.requests) == 1
    assert post(broker, BODY.encode(), signer.sign())[0] == 200


def test_rotation(brokers, keys, tmp_path):
    """A minute after the last fetch a new key is found by the first webhook that it signed, which is
    told to come again. Within the minute it is refused. Both clocks of the broker jump."""
    old, new = Signer("v1a"), Signer("v1a")
    broker = brokers(*LOCAL, start=False)
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    assert library, "libfaketime is not installed: run scripts/setup"
    clock = tmp_path / "clock"
    clock.write_text("+0")
    broker.env = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock),
                  "FAKETIME_NO_CACHE": "1",
                  "ASAN_OPTIONS": broker_env()["ASAN_OPTIONS"] + ":verify_asan_link_order=0"}
    broker.start()
    keys.serve(old.jwk)
    open_door(broker, keys)
    wait_known(broker)
    keys.serve(old.jwk, new.jwk)
    assert code(post(broker, BODY.encode(), new.sign())) == (401, "signature_mismatch")
    assert len(keys.requests) == 1
    clock.write_text("+61")
    assert code(post(broker, BODY.encode(), new.sign())) == (503, "keys_unavailable")
    wait_known(broker, 2)
    assert post(broker, BODY.encode(), new.sign()) == (200, {"seq": 1})
    assert post(broker, BODY.encode(), old.sign(id="msg_2")) == (200, {"seq": 2})
    # Ten minutes on they are fetched again; while that fails, the old ones do.
    keys.answer = (500, b"")
    clock.write_text("+720")
    headers = old.sign(id="msg_3", timestamp=now_s() + 720)
    assert post(broker, BODY.encode(), headers) == (200, {"seq": 3})
    wait_for(lambda: "500" in known(broker).get("trouble", ""), what="the failure")
    headers = old.sign(id="msg_4", timestamp=now_s() + 720)
    assert post(broker, BODY.encode(), headers) == (200, {"seq": 4})


def test_own_public_key(broker):
    """A public key as a source's secret, without any server."""
    signer = Signer("v1a")
    x = base64.urlsafe_b64decode(signer.jwk["x"] + "=")
    add(broker, "standard-webhooks", "whpk_" + base64.b64encode(x).decode())
    assert post(broker, BODY.encode(), signer.sign()) == (200, {"seq": 1})
    assert code(post(broker, BODY.encode(), Signer("v1a").sign())) == (401, "signature_mismatch")


def test_a_source_goes_while_its_keys_are_fetched(broker, keys):
    keys.no_answer = True
    open_door(broker, keys)
    wait_for(lambda: keys.requests, what="the fetch")
    broker.ok("DELETE", "/v1/sources/src")
    broker.stop()


def test_our_own_webhooks_come_in(brokers):
    """One broker's dynamic webhooks are another one's gemini source."""
    there = brokers(*LOCAL, name="there")
    here = brokers(*LOCAL, name="here")
    add(here, "gemini", jwks_url=f"{there.http}/.well-known/jwks.json", jwks_allow_http=True)
    wait_for(lambda: known(here)["known"] > 0, what="the keys")
    there.publish("batch.succeeded", data={"id": "b1"},
                  webhook_config={"uris": [f"{here.http}/in/src"]})
    wait_for(lambda: here.events(), what="the webhook")
    assert here.events()[0]["type"] == "batch.succeeded"
