"""Verifies what Bellhop sends to a webhook. Python 3.9 or newer.

Static webhooks (HMAC) need nothing but the standard library; dynamic ones (Ed25519, or RS256 in the
JWT mode) need the package `cryptography` (Debian: python3-cryptography).

`headers` is any mapping with lower-case names, `body` the bytes of the request as they came: parse
them afterwards. Every function returns the webhook-id, or raises NotVerified.
"""
import base64
import binascii
import hashlib
import hmac
import json
import time
import urllib.request

TOLERANCE_S = 300


class NotVerified(Exception):
    """Answer 400 or 401, and do nothing else with the request."""


def _signed(headers, body, now):
    """The signed bytes, the signatures by kind, and the id."""
    try:
        msg_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        signature = headers["webhook-signature"]
    except KeyError as missing:
        raise NotVerified(f"the header {missing.args[0]} is missing") from None
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise NotVerified("webhook-timestamp is not a whole number")
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE_S:
        raise NotVerified("webhook-timestamp is more than five minutes away")
    entries = [entry.partition(",") for entry in signature.split(" ")]
    return (f"{msg_id}.{timestamp}.".encode() + body,
            [(kind, text) for kind, _, text in entries], msg_id)


def verify_static(secrets, headers, body, now=None):
    """secrets: the whsec_ texts that are valid now: one, or during a rotation the old and the new."""
    signed, signatures, msg_id = _signed(headers, body, now)
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
        for kind, text in signatures:
            if kind == "v1" and hmac.compare_digest(text.encode(), expected):
                return msg_id
    raise NotVerified("no signature matches")


def _unpad64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify_dynamic(jwks, headers, body, now=None):
    """jwks: the parsed object of /.well-known/jwks.json (see Keys). v1a names no key: each is tried."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    signed, signatures, msg_id = _signed(headers, body, now)
    for jwk in jwks["keys"]:
        if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
            continue
        key = Ed25519PublicKey.from_public_bytes(_unpad64(jwk["x"]))
        for kind, text in signatures:
            if kind != "v1a":
                continue
            try:
                key.verify(base64.b64decode(text, validate=True), signed)
                return msg_id
            except (InvalidSignature, binascii.Error):
                continue
    raise NotVerified("no signature matches")


def verify_jwt(jwks, audience, headers, body, now=None):
    """The JWT mode: webhook-signature is a token that is bound to the body by its hash."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    now = time.time() if now is None else now
    try:
        token = headers["webhook-signature"]
        signed, _, signature = token.rpartition(".")
        head, claims = (json.loads(_unpad64(part)) for part in signed.split("."))
        jwk = next(k for k in jwks["keys"] if k.get("kid") == head["kid"] and k["kty"] == "RSA")
        n, e = (int.from_bytes(_unpad64(jwk[part]), "big") for part in "ne")
        RSAPublicNumbers(e, n).public_key().verify(_unpad64(signature), signed.encode(), PKCS1v15(),
                                                   hashes.SHA256())
        good = (head["alg"] == "RS256"  # the only one; never the token's choice
                and claims["aud"] == audience and claims["jti"] == headers["webhook-id"]
                and claims["iat"] - TOLERANCE_S <= now <= claims["exp"]
                and hmac.compare_digest(claims["body_sha256"], hashlib.sha256(body).hexdigest()))
    except (InvalidSignature, KeyError, StopIteration, TypeError, ValueError) as error:
        raise NotVerified("the token cannot be verified") from error
    if not good:
        raise NotVerified("the token is not for this request")
    return claims["jti"]


class Keys:
    """The key set of the broker: kept for ten minutes, and loaded anew at most once a minute when a
    signature does not match, because the broker may have rotated (and because anybody can send a
    wrong signature)."""

    def __init__(self, url):
        self.url, self.jwks, self.loaded_at = url, None, 0.0

    def get(self, fresh=False):
        age = time.monotonic() - self.loaded_at
        if self.jwks is None or age > (60 if fresh else 600):
            with urllib.request.urlopen(self.url, timeout=10) as answer:
                self.jwks = json.load(answer)
            self.loaded_at = time.monotonic()
        return self.jwks

    def verify(self, headers, body):
        try:
            return verify_dynamic(self.get(), headers, body)
        except NotVerified:
            return verify_dynamic(self.get(fresh=True), headers, body)
