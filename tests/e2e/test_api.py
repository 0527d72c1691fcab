"""The JSON API as docs/http-api.md says: sources, subscriptions and the shape of errors."""

import json

import pytest
from harness import make_secret


def error_of(broker, method, path, body=None):
    """(status, code, message) of a request that must be refused in the documented shape."""
    status, answer = broker.api(method, path, body)
    assert status >= 400, (method, path, answer)
    assert set(answer) == {"error"} and set(answer["error"]) == {"code", "message"}, answer
    assert answer["error"]["message"]
    return status, answer["error"]["code"], answer["error"]["message"]


def test_healthz_and_status(broker):
    assert broker.api("GET", "/healthz") == (200, {"status": "ok"})
    status = broker.ok("GET", "/v1/status")
    assert status["http"] == broker.http_address
    assert status["workers_port"] == broker.workers_port
    assert status["workers"] == f"127.0.0.1:{broker.workers_port}"
    assert status["pid"] == broker.process.pid
    assert status["room"] is True
    assert status["uptime_ms"] >= 0
    assert set(status["totals"]) == {"published", "duplicates", "refused", "delivered", "acked",
                                     "nacked", "expired", "dead"}
    assert set(status["store"]) == {"bytes_used", "bytes_max", "disk_free"}
    broker.publish()
    after = broker.ok("GET", "/v1/status")
    assert after["journal"] == {"first_seq": 1, "last_seq": 1}
    assert after["totals"]["published"] == 1
    assert after["connections"]["http"] >= 1 and after["connections"]["workers"] == 0


def test_unknown_paths_and_methods(broker):
    for path in ("/v1/nothing", "/v2/events", "/x", "/v1", "/v1/events/1/2"):
        assert error_of(broker, "GET", path)[:2] == (404, "not_found"), path
    status, headers, body = broker.request("PUT", "/v1/sources", b"{}")
    assert status == 405 and "GET" in headers["Allow"] and "POST" in headers["Allow"]
    assert json.loads(body)["error"]["code"] == "method_not_allowed"
    assert broker.request("POST", "/v1/status", b"{}")[0] == 405
    status, headers, body = broker.request("POST", "/healthz", b"")
    assert status == 405


def test_answers_are_json(broker):
    for path in ("/healthz", "/v1/status", "/v1/nothing"):
        _, headers, body = broker.request("GET", path)
        assert headers["Content-Type"].startswith("application/json"), path
        assert int(headers["Content-Length"]) == len(body)


# -- the shape of requests --

@pytest.mark.parametrize("text,line", [
    (b"", 1), (b"{", 1), (b'{"name":}', 1), (b'{\n  "name": "a",\n  oops\n}', 3),
    (b'{"name":"a"} x', 1), (b"\xff\xfe", 1), (b'{"name":"a",}', 1), (b'{"name":"\x01"}', 1),
])
def test_json_errors_say_where(broker, text, line):
    status, code, message = error_of(broker, "POST", "/v1/sources", text)
    assert (status, code) == (400, "invalid_request")
    if text:
        assert f"line {line}" in message and "column" in message, message


@pytest.mark.parametrize("text", [b"[]", b"5", b"null", b'"x"', b"true"])
def test_body_must_be_an_object(broker, text):
    for path in ("/v1/sources", "/v1/subscriptions", "/v1/events", "/v1/replays"):
        assert error_of(broker, "POST", path, text)[:2] == (400, "invalid_request"), path


def test_deep_json_is_refused(broker):
    assert error_of(broker, "POST", "/v1/sources", b"[" * 50000)[0] == 400
    assert error_of(broker, "POST", "/v1/sources", b'{"a":' * 50000)[0] == 400


@pytest.mark.parametrize("path,body,field", [
    ("/v1/sources", {"name": "a", "secrts": []}, "secrts"),
    ("/v1/subscriptions", {"name": "a", "lease": 5}, "lease"),
    ("/v1/subscriptions", {"name": "a", "backoff": {"min": 1}}, "min"),
    ("/v1/events", {"type": "t", "payload": 1}, "payload"),
    ("/v1/events", {"events": [{"type": "t"}, {"type": "t", "pay": 1}]}, "pay"),
    ("/v1/replays", {"subscription": "a", "form_seq": 1}, "form_seq"),
])
def test_unknown_fields_are_named(broker, path, body, field):
    status, code, message = error_of(broker, "POST", path, body)
    assert (status, code) == (400, "parameter_unknown")
    assert field in message


@pytest.mark.parametrize("path", [
    "/v1/events?form_seq=1", "/v1/sources?x=1", "/v1/subscriptions?pagesize=1",
    "/v1/dead-letters?subscription=a&foo=1", "/v1/replays?x",
])
def test_unknown_query_parameters(broker, path):
    broker.add_subscription("a")
    assert error_of(broker, "GET", path)[:2] == (400, "parameter_unknown")


@pytest.mark.parametrize("query", [
    "page_size=0", "page_size=1001", "page_size=x", "page_size=-1", "page_token=%%%",
    "page_token=nonsense", "from_seq=abc", "from_seq=-1", "since=yesterday", "wait_ms=60001",
    "wait_ms=x", "from_seq=1&since=2026-01-01T00:00:00Z", "type=%zz", "type=a%00b",
])
def test_bad_query_values(broker, query):
    status, code, _ = error_of(broker, "GET", "/v1/events?" + query)
    assert status == 400 and code in ("invalid_request", "out_of_range"), (query, code)


# -- sources --

def test_source_life(broker):
    secret = make_secret("s")
    status, made = broker.api("POST", "/v1/sources", {"name": "gemini", "secrets": [secret]})
    assert status == 201
    assert made["name"] == "gemini" and made["scheme"] == "standard-webhooks"
    assert made["url_path"] == "/in/gemini"
    assert made["create_time"].endswith("Z")
    assert "secret" not in made
    assert secret not in json.dumps(made)
    assert made["secrets"] == ["whsec_..." + secret[-4:]]
    got = broker.ok("GET", "/v1/sources/gemini")
    assert {k: got[k] for k in ("accepted", "duplicates", "refused")} == {
        "accepted": 0, "duplicates": 0, "refused": 0}
    assert secret not in json.dumps(got)
    assert error_of(broker, "POST", "/v1/sources", {"name": "gemini"})[:2] == (
        409, "already_exists")
    broker.post_signed("gemini", secret, {"type": "t"})
    assert broker.api("DELETE", "/v1/sources/gemini") == (200, {})
    assert error_of(broker, "GET", "/v1/sources/gemini")[:2] == (404, "not_found")
    assert error_of(broker, "DELETE", "/v1/sources/gemini")[:2] == (404, "not_found")
    assert broker.post_signed("gemini", secret, {"type": "t"})[0] == 404
    assert len(broker.events()) == 1


def test_generated_secret_is_shown_once_and_works(broker):
    made = broker.ok("POST", "/v1/sources", {"name": "a"})
    secret = made["secret"]
    assert secret.startswith("whsec_") and len(secret) > 30
    assert secret not in json.dumps(broker.ok("GET", "/v1/sources/a"))
    assert broker.post_signed("a", secret, {"type": "t"})[0] == 200
    assert broker.ok("POST", "/v1/sources", {"name": "b"})["secret"] != secret
    assert secret not in broker.log()


@pytest.mark.parametrize("fields,place", [
    ({"name": ""}, "name"), ({"name": "-a"}, "name"), ({"name": "a b"}, "name"),
    ({"name": "x" * 65}, "name"), ({"name": "a/b"}, "name"), ({"name": 5}, "name"),
    ({"name": "a\u0000"}, "column"), ({}, "name"), ({"name": "\u00e9"}, "name"),
    ({"name": "a", "scheme": "plain"}, "scheme"), ({"name": "a", "secrets": "x"}, "secrets"),
    ({"name": "a", "secrets": [5]}, "secrets[0]"),
    ({"name": "a", "secrets": [make_secret(), "whsec_!!"]}, "secrets[1]"),
    ({"name": "a", "secrets": ["whsec_AAAA"]}, "secrets[0]"),
    ({"name": "a", "secrets": [make_secret() + "\n"]}, "secrets[0]"),
    ({"name": "a", "secrets": [make_secret()] * 9}, "secrets"),
])
def test_bad_sources(broker, fields, place):
    status, code, message = error_of(broker, "POST", "/v1/sources", fields)
    assert (status, code) == (400, "invalid_request")
    assert place in message, message
    assert broker.ok("GET", "/v1/sources")["sources"] == []


def test_error_text_never_echoes_a_secret(broker):
    secret = "whsec_" + "Q" * 43 + "!"
    _, _, message = error_of(broker, "POST", "/v1/sources", {"name": "a", "secrets": [secret]})
    assert "QQQQQQQQ" not in message


def test_names_at_their_limits(broker):
    for name in ("a", "A" * 64, "0.x_y-z"):
        broker.ok("POST", "/v1/sources", {"name": name})
        broker.ok("POST", "/v1/subscriptions", {"name": name})
        assert broker.ok("GET", f"/v1/sources/{name}")["name"] == name


def pages(broker, path, key, size):
    got, token, count = [], None, 0
    while True:
        page = broker.ok("GET", f"{path}?page_size={size}"
                         + (f"&page_token={token}" if token else ""))
        got += page[key]
        assert len(page[key]) <= size
        count += 1
        token = page.get("next_page_token")
        if not token:
            return got, count


@pytest.mark.parametrize("path,key", [("/v1/sources", "sources"),
                                      ("/v1/subscriptions", "subscriptions")])
def test_lists_have_pages(broker, path, key):
    names = [f"n{i:02d}" for i in range(7)]
    for name in names:
        broker.ok("POST", path, {"name": name})
    got, count = pages(broker, path, key, 3)
    assert [g["name"] for g in got] == names and count == 3
    assert "next_page_token" not in broker.ok("GET", path)
    # An item that appears while somebody turns pages neither repeats nor hides another.
    first = broker.ok("GET", f"{path}?page_size=3")
    broker.ok("DELETE", f"{path}/n01")
    second = broker.ok("GET", f"{path}?page_size=10&page_token={first['next_page_token']}")
    assert [g["name"] for g in second[key]] == names[3:]


# -- subscriptions --

def test_subscription_defaults(broker):
    status, made = broker.api("POST", "/v1/subscriptions", {"name": "a"})
    assert status == 201
    want = {"name": "a", "lease_ms": 30000, "max_fails": 20, "floor": 1, "next": 1, "backlog": 0,
            "ready": 0, "leased": 0, "delayed": 0, "attachments": 0, "replays": 0, "acked": 0,
            "dead": 0, "filter": {}, "max_hold_ms": 43200000, "max_age_ms": 0, "rate": 0,
            "order": "none", "lag": "block", "paused": False, "blocked": 0, "oldest_ms": 0,
            "in_per_s": 0, "out_per_s": 0, "dead_total": 0, "expired": 0}
    assert {k: made[k] for k in want} == want
    assert made["backoff"] == {"min_ms": 1000, "max_ms": 600000, "factor": 2, "jitter": 0.1}
    assert made["why_idle"] in ("empty", "no_workers")
    assert "start" not in made
    assert broker.ok("GET", "/v1/subscriptions/a") == made


def test_subscription_again(broker):
    fields = {"name": "a", "filter": {"types": ["batch.*"], "sources": ["gemini"]},
              "lease_ms": 5000, "max_fails": 3,
              "backoff": {"min_ms": 10, "max_ms": 100, "factor": 1.5, "jitter": 0.1},
              "start": "first"}
    status, made = broker.api("POST", "/v1/subscriptions", fields)
    assert status == 201 and made["filter"] == fields["filter"]
    assert made["backoff"] == fields["backoff"]
    status, again = broker.api("POST", "/v1/subscriptions", fields)
    assert (status, again["id"]) == (200, made["id"])
    assert broker.api("POST", "/v1/subscriptions", {**fields, "start": "new"})[0] == 200
    for change in ({"lease_ms": 5001}, {"max_fails": 4}, {"filter": {"types": ["batch.*"]}},
                   {"backoff": {"min_ms": 11, "max_ms": 100, "factor": 1.5}}):
        assert error_of(broker, "POST", "/v1/subscriptions", {**fields, **change})[:2] == (
            409, "policy_mismatch"), change
    got = broker.ok("GET", "/v1/subscriptions/a")
    assert got["lease_ms"] == 5000 and got["max_fails"] == 3


@pytest.mark.parametrize("fields,place", [
    ({"lease_ms": 99}, "lease_ms"), ({"lease_ms": 43200001}, "lease_ms"),
    ({"lease_ms": "5s"}, "lease_ms"), ({"lease_ms": 1.5}, "lease_ms"), ({"lease_ms": -1}, "lease_ms"),
    ({"max_fails": -1}, "max_fails"), ({"max_fails": 1000001}, "max_fails"),
    ({"backoff": {"min_ms": 10, "max_ms": 5}}, "backoff"),
    ({"backoff": {"max_ms": 86400001}}, "backoff"), ({"backoff": {"factor": 0.5}}, "backoff"),
    ({"backoff": 5}, "backoff"), ({"filter": []}, "filter"), ({"filter": {"types": "a"}}, "types"),
    ({"filter": {"types": ["a", "b", 5]}}, "filter.types[2]"),
    ({"filter": {"types": ["a"] * 513}}, "types"),
    ({"filter": {"types": ["t" * 257]}}, "types[0]"),
    ({"start": "last"}, "start"), ({"start": 5}, "start"), ({"start": {"seq": "x"}}, "start"),
    ({"start": {"time": "noon"}}, "start"), ({"start": {}}, "start"),
    ({"start": {"seq": 1, "time": "2026-01-01T00:00:00Z"}}, "start"),
])
def test_bad_subscriptions(broker, fields, place):
    status, code, message = error_of(broker, "POST", "/v1/subscriptions", {"name": "a", **fields})
    assert status == 400, (code, message)
    assert code in ("invalid_request", "bad_policy", "bad_filter", "out_of_range"), (code, message)
    assert place in message, message
    assert broker.ok("GET", "/v1/subscriptions")["subscriptions"] == []


def test_start_positions(broker):
    for _ in range(5):
        broker.publish()
    third = broker.ok("GET", "/v1/events/3")["received_at"]
    assert broker.add_subscription("new")["next"] == 6
    assert broker.add_subscription("first", start="first")["next"] <= 1
    assert broker.add_subscription("seq", start={"seq": 4})["next"] == 4
    at_time = broker.add_subscription("time", start={"time": third})["next"]
    assert 1 <= at_time <= 3  # several events may share the millisecond
    assert broker.ok("GET", "/v1/subscriptions/seq")["backlog"] == 2
    assert broker.ok("GET", "/v1/subscriptions/new")["why_idle"] in ("empty", "no_workers")


def test_delete_subscription(broker):
    made = broker.add_subscription("a")
    assert broker.api("DELETE", "/v1/subscriptions/a") == (200, {})
    for method in ("GET", "DELETE"):
        assert error_of(broker, method, "/v1/subscriptions/a")[:2] == (404, "not_found")
    assert broker.add_subscription("a")["id"] != made["id"]
