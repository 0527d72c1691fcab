"""examples/receiving: each of the three verifies the published vectors and what a broker delivers, and
nothing that was altered."""

import base64
import hashlib
import json
import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from clitools import Receiver
from harness import DEADLINE_S, REPO, SANITIZER_WORDS, make_secret, now_s, sign, wait_for

ALLOW = ("--webhook-allow", "127.0.0.0/8")
EXAMPLES = REPO / "examples" / "receiving"
sys.path.insert(0, str(EXAMPLES))
import verify  # noqa: E402

# Published vectors: two of Standard Webhooks' libraries (v1), one of svix-server's tests (v1a).
SW1 = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330",
       b'{"test": 2432232314}', "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
SW2 = ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", "1649367553",
       b'{"email":"test@example.com","username":"test_user"}',
       "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=")
V1A = ("v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg"
       "==")
JWKS = {"keys": [
    {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    {"kty": "OKP", "crv": "Ed25519", "x": "1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4"}]}
WRONG = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="


def headers_of(msg_id, timestamp, signature):
    return {"webhook-id": msg_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


class Python:
    def __init__(self, tmp_path):
        pass

    def run(self, call, *args):
        try:
            return bool(call(*args))
        except verify.NotVerified:
            return False

    def static(self, secrets, headers, body, now):
        return self.run(verify.verify_static, secrets, headers, body, now)

    def dynamic(self, jwks, headers, body, now):
        return self.run(verify.verify_dynamic, jwks, headers, body, now)

    def jwt(self, jwks, audience, headers, body, now):
        return self.run(verify.verify_jwt, jwks, audience, headers, body, now)


class Node:
    SCRIPT = """
        import { readFileSync } from "node:fs";
        import * as v from %s;
        const q = JSON.parse(readFileSync(0, "utf8"));
        const rest = [q.headers, Buffer.from(q.body, "base64"), q.now];
        try {
          const id = q.call === "static" ? v.verifyStatic(q.key, ...rest)
                   : q.call === "dynamic" ? v.verifyDynamic(q.key, ...rest)
                   : v.verifyJwt(q.key, q.audience, ...rest);
          console.log("verified " + id);
        } catch (error) {
          if (!(error instanceof v.NotVerified)) throw error;
          console.log("refused");
        }"""

    def __init__(self, tmp_path):
        self.script = self.SCRIPT % json.dumps((EXAMPLES / "verify.mjs").as_uri())

    def run(self, **question):
        question["body"] = base64.b64encode(question["body"]).decode()
        done = subprocess.run(["node", "--input-type=module", "-e", self.script],
                              input=json.dumps(question), capture_output=True, text=True,
                              timeout=DEADLINE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout == f"verified {question['headers']['webhook-id']}\n"

    def static(self, secrets, headers, body, now):
        return self.run(call="static", key=secrets, headers=headers, body=body, now=now)

    def dynamic(self, jwks, headers, body, now):
        return self.run(call="dynamic", key=jwks, headers=headers, body=body, now=now)

    def jwt(self, jwks, audience, headers, body, now):
        return self.run(call="jwt", key=jwks, audience=audience, headers=headers, body=body, now=now)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    program = tmp_path_factory.mktemp("verify") / "verify"
    subprocess.run(["cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-g",
                    "-fsanitize=address,undefined", "-o", program, EXAMPLES / "verify.c",
                    "-lcrypto", "-ljansson"], check=True, timeout=60)
    return program


class C:
    program = None

    def __init__(self, tmp_path):
        self.jwks = tmp_path / "jwks.json"

    def run(self, mode, key, headers, fourth, body, now):
        done = subprocess.run([self.program, mode, key, headers["webhook-id"], fourth,
                               headers["webhook-signature"]], input=body, capture_output=True,
                              env={**os.environ, "NOW": str(now)}, timeout=DEADLINE_S)
        words = done.stderr.decode()
        assert not any(word in words for word in SANITIZER_WORDS), words
        assert done.stdout == (b"NOT verified\n" if done.returncode else b"verified\n")
        return done.returncode == 0

    def static(self, secrets, headers, body, now):
        return self.run("static", " ".join(secrets), headers, headers["webhook-timestamp"], body, now)

    def dynamic(self, jwks, headers, body, now):
        self.jwks.write_text(json.dumps(jwks))
        return self.run("dynamic", self.jwks, headers, headers["webhook-timestamp"], body, now)

    def jwt(self, jwks, audience, headers, body, now):
        self.jwks.write_text(json.dumps(jwks))
        return self.run("jwt", self.jwks, headers, audience, body, now)


@pytest.fixture(params=[Python, Node, C])
def receiver(request, tmp_path, built):
    C.program = built
    return request.param(tmp_path)


def test_static(receiver):
    for secret, msg_id, timestamp, body, signature in (SW1, SW2):
        now = int(timestamp)
        headers = headers_of(msg_id, timestamp, signature)
        other = make_secret("o")
        assert receiver.static([secret], headers, body, now)
        assert receiver.static([secret.removeprefix("whsec_")], headers, body, now)
        assert receiver.static([other, secret], headers, body, now)  # a receiver that changes over
        assert not receiver.static([other], headers, body, now)
        assert not receiver.static([secret], headers, body + b" ", now)
        assert not receiver.static([secret], {**headers, "webhook-id": msg_id + "x"}, body, now)


def test_static_signatures_of_a_rotation_and_of_others(receiver):
    secret, msg_id, timestamp, body, good = SW1
    now = int(timestamp)

    def verdict(signature):
        return receiver.static([secret], headers_of(msg_id, timestamp, signature), body, now)

    old = sign(make_secret("o"), msg_id, timestamp, body)
    assert verdict(f"{old} {good}") and verdict(f"{good} {old}")
    assert verdict(f"v1a,AAAA {WRONG} {good}")  # in the third place
    for wrong in (WRONG, "v2," + WRONG[3:], "v2," + good[3:], "v1,", good[:8], "v1", ",", good[3:],
                  V1A):
        assert not verdict(wrong), wrong


def test_static_time(receiver):
    secret, msg_id, timestamp, body, signature = SW1
    headers = headers_of(msg_id, timestamp, signature)
    for off in (-300, 300):
        assert receiver.static([secret], headers, body, int(timestamp) + off)
    for off in (-301, 301):
        assert not receiver.static([secret], headers, body, int(timestamp) + off)
    for odd in ("", "-5", "1614265330.0", "soon"):
        headers = headers_of(msg_id, odd, sign(secret, msg_id, odd, body))
        assert not receiver.static([secret], headers, body, int(timestamp)), odd


def test_dynamic(receiver):
    _, msg_id, timestamp, body, _ = SW1
    now = int(timestamp)
    headers = headers_of(msg_id, timestamp, V1A)
    assert receiver.dynamic(JWKS, headers, body, now)
    assert receiver.dynamic(JWKS, headers_of(msg_id, timestamp, f"{WRONG} {V1A}"), body, now)
    assert not receiver.dynamic(JWKS, headers, body + b"\n", now)
    assert not receiver.dynamic(JWKS, headers, body, now + 301)
    assert not receiver.dynamic({"keys": JWKS["keys"][:1]}, headers, body, now)
    assert not receiver.dynamic({"keys": []}, headers, body, now)
    altered = V1A[:20] + ("A" if V1A[20] != "A" else "B") + V1A[21:]
    for wrong in (altered, "v1," + V1A[4:], "v1a,", "v1a,AAAA"):
        assert not receiver.dynamic(JWKS, headers_of(msg_id, timestamp, wrong), body, now), wrong


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


def jwks_of(key, kid="k1"):
    numbers = key.public_key().public_numbers()
    return {"keys": [JWKS["keys"][0],
                     {"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig",
                      "n": url64(numbers.n.to_bytes(256, "big")), "e": url64(b"\x01\x00\x01")}]}


def token(key, claims, **head):
    head = {"alg": "RS256", "typ": "JWT", "kid": "k1", **head}
    signed = ".".join(url64(json.dumps(part).encode()) for part in (head, claims))
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{url64(signature)}"


def test_jwt(receiver, rsa_key):
    now, body, aud = 1800000000, b'{"type":"t"}', "https://example.com/hook"
    claims = {"iss": "bellhop", "aud": aud, "iat": now, "exp": now + 300, "jti": "msg_1",
              "body_sha256": hashlib.sha256(body).hexdigest()}
    jwks = jwks_of(rsa_key)

    def verdict(text, said=body, audience=aud, at=now, msg_id="msg_1", keys=jwks):
        return receiver.jwt(keys, audience, headers_of(msg_id, str(now), text), said, at)

    good = token(rsa_key, claims)
    assert verdict(good) and verdict(good, at=now + 300)
    assert not verdict(good, said=body + b" ")
    assert not verdict(good, audience="https://example.com/other")
    assert not verdict(good, at=now + 301)
    assert not verdict(good, at=now - 301)
    assert not verdict(good, msg_id="msg_2")
    assert not verdict(good, keys=jwks_of(rsa_key, kid="k2"))
    assert not verdict(good, keys=jwks_of(rsa.generate_private_key(65537, 2048)))
    assert not verdict(token(rsa_key, claims, alg="none"))
    assert not verdict(token(rsa_key, claims, alg="HS256"))
    head, payload, signature = good.split(".")
    forged = url64(json.dumps({**claims, "exp": now + 9999}).encode())
    for wrong in (f"{head}.{forged}.{signature}", f"{head}.{payload}.", f"{head}.{payload}", "",
                  "a.b.c", ".."):
        assert not verdict(wrong), wrong


# --- what a broker sends ---

@pytest.fixture
def server():
    made = Receiver()
    yield made
    made.close()


def delivered(server, count=1):
    """The last request: (headers, body, about now)."""
    wait_for(lambda: len(server.requests) >= count, what="the delivery")
    return (*server.requests[count - 1], now_s())


def test_a_static_delivery_also_in_a_rotation(brokers, server, receiver):
    broker = brokers(*ALLOW)
    made = broker.ok("POST", "/v1/webhooks", {"uri": server.url, "subscribed_events": ["*"]})
    old = made["new_signing_secret"]
    broker.publish("t", data={"n": 1})
    assert receiver.static([old], *delivered(server))
    path = f"/v1/webhooks/{made['id']}:rotateSigningSecret"
    new = broker.ok("POST", path, {})["secret"]
    broker.publish("t", data={"n": 2})
    assert receiver.static([old], *delivered(server, 2))
    assert receiver.static([new], *delivered(server, 2))
    assert not receiver.static([make_secret("x")], *delivered(server, 2))
    last = broker.ok("POST", path, {"revocation_behavior":
                                    "revoke_previous_secrets_immediately"})["secret"]
    broker.publish("t", data={"n": 3})
    assert receiver.static([last], *delivered(server, 3))
    assert not receiver.static([old, new], *delivered(server, 3))


def publish_to(broker, server, n):
    broker.publish("t", data={"n": n}, webhook_config={"uris": [server.url]})


def test_a_dynamic_delivery_also_after_a_rotation(brokers, server, receiver):
    broker = brokers(*ALLOW)
    jwks = broker.ok("GET", "/.well-known/jwks.json")
    publish_to(broker, server, 1)
    headers, body, now = delivered(server)
    assert receiver.dynamic(jwks, headers, body, now)
    assert not receiver.dynamic(jwks, headers, body + b" ", now)
    broker.ok("POST", "/v1/webhook-keys:rotate", {})
    publish_to(broker, server, 2)
    assert receiver.dynamic(jwks, *delivered(server, 2))  # the set that was there before
    later = broker.ok("GET", "/.well-known/jwks.json")
    assert receiver.dynamic(later, headers, body, now) and len(later["keys"]) == 3


def test_a_jwt_delivery(brokers, server, receiver):
    broker = brokers(*ALLOW, "--webhook-signature", "jwt", "--webhook-audience", "my-project")
    publish_to(broker, server, 1)
    headers, body, now = delivered(server)
    jwks = broker.ok("GET", "/.well-known/jwks.json")
    assert receiver.jwt(jwks, "my-project", headers, body, now)
    assert not receiver.jwt(jwks, "another", headers, body, now)
    assert not receiver.jwt(jwks, "my-project", headers, body + b" ", now)


def test_the_keys_of_a_broker_are_kept(brokers, server):
    broker = brokers(*ALLOW)
    keys = verify.Keys(broker.http + "/.well-known/jwks.json")
    publish_to(broker, server, 1)
    headers, body, _ = delivered(server)
    assert keys.verify(headers, body) == headers["webhook-id"]
    broker.stop()
    assert keys.verify(headers, body) == headers["webhook-id"]  # from what is kept
    with pytest.raises(verify.NotVerified):
        keys.verify(headers, body + b" ")  # and it is not loaded again for each of these
