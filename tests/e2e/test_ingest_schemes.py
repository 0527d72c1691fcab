"""Each provider's webhook: taken in, read into an event, told from a repeat."""

import json

import pytest
from harness import make_secret, now_s, signed_headers, wait_for
from providers import (OWN, PUBLIC_URL, TOKEN, add, code, event, github, own, post, shopify, slack,
                       stripe, twilio, twilio_json)


def test_github(broker):
    add(broker, "github")
    body = json.dumps({"action": "opened", "number": 7, "pull_request": {"number": 7},
                       "repository": {"full_name": "octo/hello"}}, indent=1).encode()
    headers = github(body, event="pull_request")
    assert post(broker, body, headers) == (200, {"seq": 1})
    made = event(broker)
    assert made["type"] == "pull_request.opened"
    assert made["subject"] == "octo/hello#7"
    assert made["id"] == headers["x-github-delivery"]
    assert made["headers"] == {"user-agent": "GitHub-Hookshot/044aadd",
                               "x-github-event": "pull_request",
                               "x-github-delivery": headers["x-github-delivery"]}
    push = b'{"ref":"refs/heads/main","repository":{"full_name":"octo/hello"}}'
    assert post(broker, push, github(push, delivery="d2")) == (200, {"seq": 2})
    assert (event(broker, 2)["type"], event(broker, 2)["subject"]) == ("push", "octo/hello")


def test_a_repeat_of_github_is_told_by_its_bytes(broker):
    """Nothing signs the delivery id: who sees one webhook could send it again under another."""
    add(broker, "github")
    body = b'{"zen":"Design for failure."}'
    assert post(broker, body, github(body)) == (200, {"seq": 1})
    for headers in (github(body), github(body, delivery="another"),
                    {k: v for k, v in github(body).items() if k != "x-github-delivery"}):
        assert post(broker, body, headers) == (200, {"seq": 1, "duplicate": True})
    # Two webhooks that one delivery id is claimed for are two.
    other = b'{"zen":"Keep it logically awesome."}'
    assert post(broker, other, github(other)) == (200, {"seq": 2})


def test_the_delivery_id_can_be_trusted(broker):
    add(broker, "github", trust_id_header=True)
    body = b"{}"
    assert post(broker, body, github(body, delivery="a")) == (200, {"seq": 1})
    assert post(broker, body, github(body, delivery="b")) == (200, {"seq": 2})
    assert post(broker, b"{ }", github(b"{ }", delivery="a")) == (200, {"seq": 1, "duplicate": True})


def test_stripe(broker):
    add(broker, "stripe", "whsec_of_stripe")
    body = b"""{
  "id": "evt_1", "object": "event", "created": 1769083200, "type": "invoice.paid",
  "data": {"object": {"id": "in_1", "metadata": {"team": "a"}}}
}
"""
    assert post(broker, body, stripe(body, "whsec_of_stripe")) == (200, {"seq": 1})
    made = event(broker)
    assert (made["id"], made["type"], made["subject"]) == ("evt_1", "invoice.paid", "in_1")
    assert made["time"] == "2026-01-22T12:00:00.000Z"
    assert made["user_metadata"] == {"team": "a"}
    # A retry is signed anew; the event's id is the same.
    again = stripe(body, "whsec_of_stripe", now_s() - 5)
    assert post(broker, body, again) == (200, {"seq": 1, "duplicate": True})


def test_slack(broker):
    add(broker, "slack")
    body = json.dumps({"type": "event_callback", "event_id": "Ev1", "event_time": 1769083200,
                       "team_id": "T1", "event": {"type": "app_mention", "channel": "C1"}}).encode()
    assert post(broker, body, slack(body)) == (200, {"seq": 1})
    made = event(broker)
    assert (made["id"], made["type"], made["subject"]) == ("Ev1", "app_mention", "C1")
    assert made["time"] == "2026-01-22T12:00:00.000Z"
    headers = {**slack(body, timestamp=now_s() + 1), "x-slack-retry-num": "1"}
    assert post(broker, body, headers) == (200, {"seq": 1, "duplicate": True})


def test_slack_asks_who_is_there(broker):
    add(broker, "slack")
    body = b'{"token":"x","challenge":"3eZbrw1a\\"B","type":"url_verification"}'
    assert code(post(broker, body, slack(body, "not the secret"))) == (401, "signature_mismatch")
    assert post(broker, body, slack(body)) == (200, {"challenge": '3eZbrw1a"B'})
    assert broker.events() == []
    assert broker.ok("GET", "/v1/sources/src")["accepted"] == 0


def test_slack_commands(broker):
    """A form has no event id: two of them are two, the same one sent again is one."""
    add(broker, "slack")
    body = b"command=%2Fweather&text=94070"
    first = slack(body, timestamp=now_s() - 3)
    assert post(broker, body, first) == (200, {"seq": 1})
    assert post(broker, body, first) == (200, {"seq": 1, "duplicate": True})
    assert post(broker, body, slack(body)) == (200, {"seq": 2})
    assert event(broker)["id"].startswith("sha256:") and len(event(broker)["id"]) == 39


def test_shopify(broker):
    add(broker, "shopify")
    body = b'{"id":820982911946154508,"email":"jon@example.com"}'
    headers = shopify(body)
    assert post(broker, body, headers) == (200, {"seq": 1})
    made = event(broker)
    assert (made["type"], made["subject"]) == ("orders.create", "820982911946154508")
    assert made["time"] == "2026-11-21T09:00:00.500Z"
    assert made["id"] == headers["x-shopify-webhook-id"]
    assert set(made["headers"]) == {"x-shopify-topic", "x-shopify-webhook-id",
                                    "x-shopify-triggered-at"}
    assert post(broker, body, shopify(body, id="x")) == (200, {"seq": 1, "duplicate": True})


def test_twilio(broker):
    add(broker, "twilio", public_url=PUBLIC_URL)
    headers, body = twilio({"MessageSid": "SM1", "MessageStatus": "delivered", "To": "+1 800",
                            "Body": "a&b=c ä"})
    assert post(broker, body, headers) == (200, {"seq": 1})
    made = event(broker)
    assert (made["type"], made["subject"]) == ("message.delivered", "SM1")
    assert made["id"].startswith("sha256:")
    assert post(broker, body, headers) == (200, {"seq": 1, "duplicate": True})
    # Written otherwise it is the same webhook.
    assert post(broker, body.replace(b"+", b"%20"), headers) == (200, {"seq": 1, "duplicate": True})
    assert code(post(broker, body + b"&x=1", headers)) == (401, "signature_mismatch")
    assert code(post(broker, body, headers, query="a=1")) == (401, "signature_mismatch")


def test_twilio_json(broker):
    add(broker, "twilio", public_url=PUBLIC_URL)
    body = b'{"type":"conversation.ended","id":"CH1"}'
    headers, query = twilio_json(body)
    assert post(broker, body, headers, query) == (200, {"seq": 1})
    assert event(broker)["type"] == "conversation.ended"
    assert code(post(broker, body + b" ", headers, query)) == (401, "signature_mismatch")
    assert code(post(broker, body, headers)) == (401, "signature_malformed")


def test_openai(broker):
    secret = make_secret("a")
    add(broker, "openai", secret)
    body = json.dumps({"object": "event", "id": "evt_1", "type": "batch.completed",
                       "created_at": 1769083200, "data": {"id": "batch_1"}}).encode()
    assert post(broker, body, signed_headers(secret, body, id="wh_1")) == (200, {"seq": 1})
    made = event(broker)
    assert (made["id"], made["type"], made["subject"]) == ("wh_1", "batch.completed", "batch_1")
    assert made["time"] == "2026-01-22T12:00:00.000Z"


def test_svix_names(broker):
    secret = make_secret("a")
    add(broker, "standard-webhooks", secret)
    headers = {k.replace("webhook-", "svix-"): v
               for k, v in signed_headers(secret, b"{}", id="m1").items()}
    assert post(broker, b"{}", headers) == (200, {"seq": 1})
    assert event(broker)["id"] == "m1"
    # Names of both families: those of the standard count, and must all be there.
    mixed = {**headers, "webhook-signature": headers["svix-signature"]}
    assert code(post(broker, b"{}", mixed)) == (401, "signature_missing")


def test_own_hmac(broker):
    add(broker, "hmac", **OWN)
    body = b'{"type":"t","data":{"id":"x"}}'
    headers = own(body)
    assert post(broker, body, headers) == (200, {"seq": 1})
    assert event(broker)["type"] == "t" and event(broker)["id"].startswith("sha256:")
    assert post(broker, body, headers) == (200, {"seq": 1, "duplicate": True})
    assert code(post(broker, body, own(body, timestamp=now_s() - 400))) == (401, "timestamp_too_old")


def test_bearer(broker):
    made = broker.ok("POST", "/v1/sources", {"name": "src", "scheme": "bearer"})
    headers = {"authorization": f"Bearer {made['secret']}"}
    assert post(broker, b"{}", headers) == (200, {"seq": 1})
    # Without an id two webhooks of the same bytes are two: a sensor may have nothing new to say.
    assert post(broker, b"{}", headers) == (200, {"seq": 2})
    assert post(broker, b"{}", {**headers, "webhook-id": "a"}) == (200, {"seq": 3})
    assert post(broker, b"1", {**headers, "webhook-id": "a"}) == (200, {"seq": 3, "duplicate": True})
    for wrong in ("Bearer x" + made["secret"], "Bearer " + made["secret"][:-1], "Bearer",
                  "Basic " + made["secret"], made["secret"]):
        status, answer = post(broker, b"{}", {"authorization": wrong})
        assert status == 401, (wrong, answer)
        assert made["secret"] not in json.dumps(answer)
    assert code(post(broker, b"{}", {})) == (401, "signature_missing")
    assert "headers" not in event(broker)


def test_token_header(broker):
    add(broker, "bearer", "gitlab-token-0123456789", token_header="X-Gitlab-Token")
    assert post(broker, b"{}", {"x-gitlab-token": "gitlab-token-0123456789"}) == (200, {"seq": 1})
    assert code(post(broker, b"{}", {"authorization": "Bearer gitlab-token-0123456789"})) == (
        401, "signature_missing")


def test_none(broker):
    add(broker, "none")
    assert post(broker, b"x", {"cookie": "c=1", "authorization": "Bearer t"}) == (200, {"seq": 1})
    assert "headers" not in event(broker)


@pytest.mark.parametrize("scheme", ["none", "github"])
def test_cloudevents_binary(broker, scheme):
    add(broker, scheme)
    body = b'{"type":"not this one"}'
    headers = {"ce-specversion": "1.0", "ce-type": "com.example.made", "ce-source": "/a",
               "ce-id": "1", "ce-subject": "s", "ce-time": "2026-01-22T12:00:00Z",
               "ce-tenant": "x", **(github(body) if scheme == "github" else {})}
    assert post(broker, body, headers)[0] == 200
    made = event(broker)
    assert (made["type"], made["subject"]) == ("com.example.made", "s")
    assert made["time"] == "2026-01-22T12:00:00.000Z"
    assert made["id"] == ("/a#1" if scheme == "none" else github(body)["x-github-delivery"])
    assert made["headers"]["ce-tenant"] == "x"
    again = post(broker, b"other", {**headers, "ce-source": "/b"}) if scheme == "none" else None
    assert again in (None, (200, {"seq": 2})), "an id is unique within its source only"


def test_cloudevents_structured(broker):
    add(broker, "none")
    body = json.dumps({"specversion": "1.0", "type": "com.example.made", "source": "/a", "id": "1",
                       "subject": "s\n", "time": "2026-01-22T12:00:00Z",
                       "data": {"id": "not this one"}}).encode()
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    assert post(broker, body, headers) == (200, {"seq": 1})
    made = event(broker)
    assert (made["type"], made["subject"], made["id"]) == ("com.example.made", "s\n", "/a#1")
    assert post(broker, body, headers) == (200, {"seq": 1, "duplicate": True})


def test_cloudevents_handshake(broker):
    add(broker, "github")
    status, headers, _ = broker.request("OPTIONS", "/in/src", headers={
        "webhook-request-origin": "events.example", "webhook-request-rate": "120"})
    assert status == 200
    assert headers["WebHook-Allowed-Origin"] == "events.example"
    assert headers["WebHook-Allowed-Rate"] == "120" and headers["Allow"] == "POST"
    assert broker.request("OPTIONS", "/in/src")[0] == 405
    assert broker.request("OPTIONS", "/in/other", headers={
        "webhook-request-origin": "events.example"})[0] == 404


def test_dedupe_window_of_a_source(broker):
    """What is older than the source's window is no repeat; within it, it is one."""
    for name, window in (("short", 1), ("long", 3600_000), ("usual", 0)):
        broker.ok("POST", "/v1/sources", {"name": name, "scheme": "bearer", "secrets": [TOKEN],
                                          "options": {"dedupe_ms": window}})
    headers = {"authorization": f"Bearer {TOKEN}", "webhook-id": "a"}
    for name in ("short", "long", "usual"):
        assert "duplicate" not in post(broker, b"{}", headers, name=name)[1]
    # The broker's clock moves on with each turn: by now the first is a millisecond old, or soon.
    wait_for(lambda: "duplicate" not in post(broker, b"{}", headers, name="short")[1])
    for name in ("long", "usual"):
        assert post(broker, b"{}", headers, name=name)[1]["duplicate"]


def test_dedupe_window_of_a_source_by_count(broker):
    """With so many events after it, of any source, a repeat is a new event."""
    for name, window in (("three", 3), ("usual", 0)):
        broker.ok("POST", "/v1/sources", {"name": name, "scheme": "bearer", "secrets": [TOKEN],
                                          "options": {"dedupe_events": window}})
    def send(name, event_id):
        headers = {"authorization": f"Bearer {TOKEN}", "webhook-id": event_id}
        status, answer = post(broker, b"{}", headers, name=name)
        return status == 200 and (answer["seq"], answer.get("duplicate", False))
    assert send("three", "a") == (1, False) and send("usual", "a") == (2, False)
    assert send("usual", "b") == (3, False)
    assert send("three", "a") == (1, True)  # two have come after it
    assert send("usual", "c") == (4, False)
    assert send("three", "a") == (5, False) and send("usual", "a") == (2, True)
    broker.restart()
    assert send("three", "a") == (5, True)


def test_as_many_ids_are_known_as_the_broker_was_told(brokers):
    """What is known beyond that is a matter of generations: at most twice as many."""
    broker = brokers("--dedupe-ids", "1000")
    broker.ok("POST", "/v1/events", {"type": "t", "id": "first"})
    for start in range(0, 2500, 500):
        broker.ok("POST", "/v1/events", {"events": [
            {"type": "t", "id": f"n{start + k}"} for k in range(500)]})
    again = broker.ok("POST", "/v1/events", {"type": "t", "id": "n2400"})
    assert again.get("duplicate") is True
    forgotten = broker.ok("POST", "/v1/events", {"type": "t", "id": "first"})
    assert "duplicate" not in forgotten


def test_repeats_are_known_after_a_restart(broker):
    add(broker, "github")
    body = b'{"a":1}'
    assert post(broker, body, github(body)) == (200, {"seq": 1})
    broker.restart()
    assert post(broker, body, github(body, delivery="x")) == (200, {"seq": 1, "duplicate": True})
