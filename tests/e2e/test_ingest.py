"""POST /in/{source}: what is taken in, what is refused, and that a refusal leaves nothing behind."""

import base64
import hashlib
import hmac
import json
import threading

import pytest
from harness import make_secret, now_s, sign, signed_headers

SECRET = make_secret("k")
OTHER = make_secret("o")
BODY = (b'{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z",'
        b'"data":{"id":"batch_123456","output_file_uri":"gs://bucket/out.jsonl"},'
        b'"user_metadata":{"team":"a"}}')


@pytest.fixture
def door(broker):
    broker.add_source("src", SECRET)
    return broker


def journal_is_empty(broker):
    return broker.events() == [] and broker.ok("GET", "/v1/status")["journal"]["last_seq"] == 0


def test_accepts_and_keeps_everything(door):
    assert door.post_signed("src", SECRET, BODY, id="msg_1") == (200, {"seq": 1})
    event = door.ok("GET", "/v1/events/1")
    assert event["id"] == "msg_1"
    assert event["type"] == "batch.succeeded"
    assert event["source"] == "src"
    assert event["subject"] == "batch_123456"
    assert event["time"] == "2026-01-22T12:00:00.000Z"
    assert event["user_metadata"] == {"team": "a"}
    assert event["content_type"] == "application/json"
    assert event["body"] == json.loads(BODY)
    assert event["received_at"].endswith("Z")
    assert door.ok("GET", "/v1/sources/src")["accepted"] == 1


def test_metadata_inside_data(door):
    body = {"type": "t", "data": {"id": "x", "user_metadata": {"k": [1, 2]}}}
    seq = door.post_signed("src", SECRET, body)[1]["seq"]
    assert door.ok("GET", f"/v1/events/{seq}")["user_metadata"] == {"k": [1, 2]}


def test_repeat_is_a_duplicate(door):
    assert door.post_signed("src", SECRET, BODY, id="msg_1") == (200, {"seq": 1})
    assert door.post_signed("src", SECRET, BODY, id="msg_1") == (200, {"seq": 1, "duplicate": True})
    # The id decides, not the body: a provider that repeats may have changed a byte.
    assert door.post_signed("src", SECRET, BODY + b" ", id="msg_1") == (
        200, {"seq": 1, "duplicate": True})
    assert door.post_signed("src", SECRET, BODY, id="msg_2") == (200, {"seq": 2})
    assert [e["id"] for e in door.events()] == ["msg_1", "msg_2"]
    source = door.ok("GET", "/v1/sources/src")
    assert (source["accepted"], source["duplicates"]) == (2, 2)


def test_same_id_at_another_door_is_another_event(door):
    door.add_source("two", SECRET)
    assert door.post_signed("src", SECRET, BODY, id="msg_1") == (200, {"seq": 1})
    assert door.post_signed("two", SECRET, BODY, id="msg_1") == (200, {"seq": 2})


def test_repeats_at_the_same_moment(door):
    answers = []

    def post():
        answers.append(door.post_signed("src", SECRET, BODY, id="msg_same"))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 8 and all(status == 200 for status, _ in answers)
    assert {a["seq"] for _, a in answers} == {1}
    assert sum("duplicate" not in a for _, a in answers) == 1


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_missing_header(door, name):
    status, answer = door.post_signed("src", SECRET, BODY, headers={name: None})
    assert (status, answer["error"]["code"]) == (401, "signature_missing")
    assert name in answer["error"]["message"]
    assert journal_is_empty(door)


@pytest.mark.parametrize("value", ["", "garbage", "v1", "v1,", "v1,***", "v1,AAAA", "v1;AAAA"])
def test_signature_that_is_none(door, value):
    status, answer = door.post_signed("src", SECRET, BODY, headers={"webhook-signature": value})
    assert status == 401
    assert answer["error"]["code"] in ("signature_malformed", "signature_mismatch",
                                       "signature_missing")
    assert journal_is_empty(door)


@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "+1700000000", " ", "99999999999999999999"])
def test_timestamp_that_is_none(door, value):
    # Signed as it stands: only its form is wrong.
    headers = signed_headers(SECRET, BODY, "msg_1", value)
    status, answer = door.post_signed("src", SECRET, BODY, headers=headers)
    assert status == 401
    assert answer["error"]["code"] in ("signature_malformed", "signature_missing",
                                       "timestamp_in_future")
    assert journal_is_empty(door)


def test_headers_that_are_no_text(door):
    """Workers get the id and the content type as text; 8-bit bytes of headers may be anything."""
    def headers_of(msg_id, content_type):
        now = str(now_s()).encode()
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        mac = hmac.new(key, msg_id + b"." + now + b"." + BODY, hashlib.sha256).digest()
        return {"webhook-id": msg_id, "webhook-timestamp": now, "content-type": content_type,
                "webhook-signature": b"v1," + base64.b64encode(mac)}

    status, answer = door.post_signed("src", SECRET, BODY, headers=headers_of(b"msg_\xe9", b"a/b"))
    assert (status, answer["error"]["code"]) == (401, "signature_malformed")
    assert "webhook-id" in answer["error"]["message"] and journal_is_empty(door)
    for i, content_type in enumerate((b"text/\xe9", b"text/\xc3\xa9")):
        headers = headers_of(f"msg_ä{i}".encode(), content_type)
        assert door.post_signed("src", SECRET, BODY, headers=headers)[0] == 200
    assert [(e["id"], e.get("content_type")) for e in door.events()] == [
        ("msg_ä0", None), ("msg_ä1", "text/é")]


def test_malformed_has_its_code(door):
    headers = signed_headers(SECRET, BODY, "msg_1", "abc")
    status, answer = door.post_signed("src", SECRET, BODY, headers=headers)
    assert (status, answer["error"]["code"]) == (401, "signature_malformed")


def test_mismatches(door):
    right = signed_headers(SECRET, BODY, "msg_1")
    cases = {
        "another secret": (BODY, {"webhook-signature": sign(OTHER, "msg_1",
                                                            right["webhook-timestamp"], BODY)}),
        "another id": (BODY, {"webhook-id": "msg_2"}),
        "another time": (BODY, {"webhook-timestamp": str(int(right["webhook-timestamp"]) - 1)}),
        "another body": (BODY[:-1] + b" ", {}),
        "a byte more": (BODY + b"\n", {}),
        "no body": (b"", {}),
        "cut short": (BODY, {"webhook-signature": right["webhook-signature"][:11]}),
        "only the version": (BODY, {"webhook-signature": "v1,"}),
        "right value, other version": (
            BODY, {"webhook-signature": right["webhook-signature"].replace("v1,", "v2,")}),
    }
    for what, (body, changed) in cases.items():
        status, answer = door.post_signed("src", SECRET, body, headers={**right, **changed})
        assert status == 401, (what, answer)
        assert answer["error"]["code"] in ("signature_mismatch", "signature_malformed"), what
    changed = {**right, "webhook-id": "msg_2"}
    assert door.post_signed("src", SECRET, BODY, headers=changed)[1]["error"]["code"] \
        == "signature_mismatch"
    assert journal_is_empty(door)
    assert door.ok("GET", "/v1/sources/src")["refused"] == len(cases) + 1
    assert door.post_signed("src", SECRET, BODY, headers=right) == (200, {"seq": 1})


def test_an_error_never_says_what_was_expected(door):
    right = signed_headers(SECRET, BODY, "msg_1")
    wrong = {**right, "webhook-signature": "v1," + base64.b64encode(b"x" * 32).decode()}
    _, answer = door.post_signed("src", SECRET, BODY, headers=wrong)
    said = json.dumps(answer) + door.log()
    assert right["webhook-signature"][3:] not in said
    assert SECRET.removeprefix("whsec_") not in said


def test_signature_lists(door):
    right = signed_headers(SECRET, BODY, "msg_1")
    good = right["webhook-signature"]
    junk = "v1," + base64.b64encode(b"j" * 32).decode()
    for i, listed in enumerate([f"{junk} {good}", f"{junk} v1a,AAAA {good}", f"{good} {junk}",
                                f"v2,AAAA {good}"]):
        status, answer = door.post_signed("src", SECRET, BODY,
                                          headers={**right, "webhook-signature": listed})
        assert status == 200, (i, answer)
    wrong = {**right, "webhook-signature": f"{junk} {junk}"}
    assert door.post_signed("src", SECRET, BODY, headers=wrong)[0] == 401


def test_several_secrets(broker):
    secrets = [make_secret(c) for c in "abc"]
    broker.add_source("src", *secrets)
    for i, secret in enumerate(secrets):
        assert broker.post_signed("src", secret, BODY) == (200, {"seq": i + 1})
    status, answer = broker.post_signed("src", make_secret("d"), BODY)
    assert (status, answer["error"]["code"]) == (401, "signature_mismatch")


def test_secret_without_its_prefix(broker):
    broker.add_source("src", SECRET.removeprefix("whsec_"))
    assert broker.post_signed("src", SECRET, BODY) == (200, {"seq": 1})


def test_a_secret_of_one_source_opens_no_other(door):
    door.add_source("two", OTHER)
    assert door.post_signed("two", SECRET, BODY)[0] == 401
    assert door.post_signed("two", OTHER, BODY)[0] == 200


def test_time_tolerance(door):
    # 300 s both ways, with room for the time that the test itself takes.
    assert door.post_signed("src", SECRET, BODY, timestamp=now_s() - 270)[0] == 200
    assert door.post_signed("src", SECRET, BODY, timestamp=now_s() + 300)[0] == 200
    status, answer = door.post_signed("src", SECRET, BODY, timestamp=now_s() - 301)
    assert (status, answer["error"]["code"]) == (401, "timestamp_too_old")
    status, answer = door.post_signed("src", SECRET, BODY, timestamp=now_s() + 330)
    assert (status, answer["error"]["code"]) == (401, "timestamp_in_future")
    assert len(door.events()) == 2


@pytest.mark.parametrize("bad", ["a.b", "x" * 257, ""], ids=["dot", "long", "empty"])
def test_unusable_id(door, bad):
    status, answer = door.post_signed("src", SECRET, BODY, id=bad)
    assert 400 <= status < 500, answer
    assert answer["error"]["code"] in ("signature_malformed", "signature_missing",
                                       "invalid_request")
    assert journal_is_empty(door)


def test_longest_id(door):
    assert door.post_signed("src", SECRET, BODY, id="x" * 256) == (200, {"seq": 1})


def test_repeated_signature_headers_are_refused(door):
    right = signed_headers(SECRET, BODY, "msg_1")
    lines = "".join(f"{k}: {v}\r\n" for k, v in right.items())
    head = ("POST /in/src HTTP/1.1\r\nHost: x\r\n" + lines + "webhook-id: msg_2\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n").encode()
    with door.raw_http() as raw:
        raw.send(head + BODY)
        status, _, text = raw.response()
        assert 400 <= status < 500, text
    assert journal_is_empty(door)


def test_unknown_source(door):
    status, answer = door.post_signed("nobody", SECRET, BODY)
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert "nobody" in answer["error"]["message"]
    for path in ("/in/", "/in", "/in/src/x", "/in/%73rc", "/in/" + "n" * 200):
        status, _, _ = door.request("POST", path, BODY, signed_headers(SECRET, BODY))
        assert status == 404, path


def test_other_methods(door):
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        status, headers, _ = door.request(method, "/in/src")
        assert (status, headers.get("Allow")) == (405, "POST"), method


def test_body_limit(brokers):
    broker = brokers("--max-body", "4096")
    broker.add_source("src", SECRET)
    assert broker.post_signed("src", SECRET, b"x" * 4096)[0] == 200
    status, answer = broker.post_signed("src", SECRET, b"x" * 4097)
    assert (status, answer["error"]["code"]) == (413, "too_large")
    # The length is not said in advance.
    with broker.raw_http() as raw:
        raw.send(b"POST /in/src HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                 + headers_bytes(signed_headers(SECRET, b"x" * 5000)) + b"\r\n")
        raw.send(b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n")
        assert raw.response()[0] == 413
    # An announced size alone is enough: nobody waits for the body.
    with broker.raw_http() as raw:
        raw.send(b"POST /in/src HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert raw.response()[0] == 413
    assert len(broker.events()) == 1


def headers_bytes(headers):
    return "".join(f"{k}: {v}\r\n" for k, v in headers.items()).encode()


def test_head_limit(door):
    status, answer = door.post_signed("src", SECRET, BODY, headers={"x-long": "a" * 20000})
    assert (status, answer["error"]["code"]) == (431, "head_too_large")
    many = {f"x-{i}": "a" for i in range(150)}
    assert door.post_signed("src", SECRET, BODY, headers=many)[0] == 431
    assert journal_is_empty(door)


@pytest.mark.parametrize("body,content_type,field,want", [
    (b"plain text \xc3\xa9", "text/plain", "body_text", "plain text \u00e9"),
    (b"\x00\xff\xfe binary", "application/octet-stream", "body_base64",
     base64.b64encode(b"\x00\xff\xfe binary").decode()),
    (b'{"type":"half', "application/json", "body_text", '{"type":"half'),
    (b'{"type":"two"} {"type":"values"}', "application/json", "body_text",
     '{"type":"two"} {"type":"values"}'),
])
def test_body_that_is_not_json(door, body, content_type, field, want):
    status, answer = door.post_signed("src", SECRET, body, content_type=content_type)
    assert status == 200
    event = door.ok("GET", f"/v1/events/{answer['seq']}")
    assert event[field] == want
    assert event["content_type"] == content_type
    assert "type" not in event and "body" not in event


def test_empty_body(door):
    status, answer = door.post_signed("src", SECRET, b"")
    assert (status, answer) == (200, {"seq": 1})


@pytest.mark.parametrize("body", [
    b"[" * 100000,
    b'{"a":' * 50000 + b"1" + b"}" * 50000,
    b'{"type":' + b'"' + b"t" * 5000 + b'"}',
    b'{"type":5,"data":[],"timestamp":{},"user_metadata":"no"}',
    b'{"type":"t","type":"u"}',
    b'{"type":"a\\u0000b"}',
    b'{"type":"\\ud800"}',
    b'{"user_metadata":{"k":"' + b"v" * 40000 + b'"}}',
    b'"just text"', b"null", b"-0", b"[]",
    b'{"timestamp":"yesterday","type":"t"}',
], ids=lambda b: b[:24].decode())
def test_strange_json_is_still_an_event(door, body):
    """A signed body is journaled whatever its envelope looks like; what cannot be read from it is
    left out."""
    status, answer = door.post_signed("src", SECRET, body)
    assert status == 200, answer
    event = door.ok("GET", f"/v1/events/{answer['seq']}")
    kept = event.get("body_text", "").encode() or base64.b64decode(event.get("body_base64", ""))
    if kept:
        assert kept == body
    else:
        assert event["body"] == json.loads(body)


def test_chunked(door):
    headers = headers_bytes(signed_headers(SECRET, BODY, "msg_1"))
    with door.raw_http() as raw:
        raw.send(b"POST /in/src HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + headers
                 + b"\r\n")
        for i in range(0, len(BODY), 50):
            piece = BODY[i:i + 50]
            raw.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        raw.send(b"0\r\n\r\n")
        status, _, text = raw.response()
        assert (status, json.loads(text)) == (200, {"seq": 1})
    assert door.ok("GET", "/v1/events/1")["body"] == json.loads(BODY)


def test_expect_continue(door):
    headers = headers_bytes(signed_headers(SECRET, BODY, "msg_1"))
    head = (b"POST /in/%s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: " + str(len(BODY)).encode() + b"\r\n" + headers + b"\r\n")
    with door.raw_http() as raw:
        raw.send(head.replace(b"%s", b"src"))
        assert raw.head()[0] == 100
        raw.send(BODY)
        assert raw.response()[0] == 200
    with door.raw_http() as raw:
        raw.send(head.replace(b"%s", b"nobody"))
        assert raw.response()[0] == 404


def test_byte_by_byte_and_pipelined(door):
    def request(n):
        return (b"POST /in/src HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(BODY)
                + headers_bytes(signed_headers(SECRET, BODY, f"msg_{n}")) + b"\r\n" + BODY)

    with door.raw_http() as raw:
        for byte in request(0):
            raw.send(bytes([byte]))
        assert json.loads(raw.response()[2]) == {"seq": 1}
        raw.send(b"".join(request(n) for n in range(1, 21)))
        seqs = [json.loads(raw.response()[2])["seq"] for _ in range(20)]
        assert seqs == list(range(2, 22))


def test_large_body_comes_through_whole(door):
    body = json.dumps({"type": "big", "pad": "x" * 900000}).encode()
    seq = door.post_signed("src", SECRET, body)[1]["seq"]
    assert door.ok("GET", f"/v1/events/{seq}")["body"] == json.loads(body)
