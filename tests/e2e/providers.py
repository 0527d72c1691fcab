"""What providers send: headers over a body, made with Python's own hashes. One function per scheme,
and the source that takes it."""

import base64
import hashlib
import hmac
import json
import urllib.parse

from harness import now_s

TOKEN = "a-secret-of-the-provider"
PUBLIC_URL = "https://broker.example/in/src"


def mac(key, message, digest="sha256", hexadecimal=True):
    found = hmac.new(key.encode(), message, digest)
    return found.hexdigest() if hexadecimal else base64.b64encode(found.digest()).decode()


def github(body, secret=TOKEN, event="push", delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958"):
    return {"x-hub-signature-256": "sha256=" + mac(secret, body), "x-github-event": event,
            "x-github-delivery": delivery, "user-agent": "GitHub-Hookshot/044aadd"}


def stripe(body, secret=TOKEN, timestamp=None):
    timestamp = now_s() if timestamp is None else timestamp
    signature = mac(secret, f"{timestamp}.".encode() + body)
    return {"stripe-signature": f"t={timestamp},v1={signature},v0=6ffbb59b2300aae63f272406069a9788"}


def slack(body, secret=TOKEN, timestamp=None):
    timestamp = now_s() if timestamp is None else timestamp
    return {"x-slack-signature": "v0=" + mac(secret, f"v0:{timestamp}:".encode() + body),
            "x-slack-request-timestamp": str(timestamp)}


def shopify(body, secret=TOKEN, topic="orders/create", id="b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"):
    return {"x-shopify-hmac-sha256": mac(secret, body, hexadecimal=False),
            "x-shopify-topic": topic, "x-shopify-webhook-id": id,
            "x-shopify-triggered-at": "2026-11-21T09:00:00.5Z"}


def twilio(params, secret=TOKEN, url=PUBLIC_URL):
    """(headers, body) of a form."""
    signed = url + "".join(k + v for k, v in sorted(params.items()))
    return ({"x-twilio-signature": mac(secret, signed.encode(), "sha1", False),
             "content-type": "application/x-www-form-urlencoded"},
            urllib.parse.urlencode(params).encode())


def twilio_json(body, secret=TOKEN, url=PUBLIC_URL):
    """(headers, query) of a body that is no form."""
    query = "bodySHA256=" + hashlib.sha256(body).hexdigest()
    return {"x-twilio-signature": mac(secret, f"{url}?{query}".encode(), "sha1", False),
            "content-type": "application/json"}, query


OWN = {"signature_header": "x-own-signature", "signature_prefix": "v2=", "algorithm": "sha512",
       "signed_bytes": "{timestamp}|{body}", "timestamp_header": "x-own-time"}


def own(body, secret=TOKEN, timestamp=None):
    timestamp = now_s() if timestamp is None else timestamp
    return {"x-own-signature": "v2=" + mac(secret, f"{timestamp}|".encode() + body, "sha512"),
            "x-own-time": str(timestamp)}


def add(broker, scheme, *secrets, name="src", **options):
    """A source of a scheme: the answer."""
    body = {"name": name, "scheme": scheme, "options": options}
    if scheme != "none" and (secrets or scheme != "gemini"):
        body["secrets"] = list(secrets) or [TOKEN]
    return broker.ok("POST", "/v1/sources", body)


def post(broker, body, headers, query="", name="src"):
    """(status, parsed answer)."""
    path = f"/in/{name}" + (f"?{query}" if query else "")
    status, _, text = broker.request("POST", path, body, headers)
    return status, json.loads(text)


def code(answer):
    status, answer = answer
    return status, answer.get("error", {}).get("code")


def event(broker, seq=1):
    return broker.ok("GET", f"/v1/events/{seq}")
