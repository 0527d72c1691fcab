"""What the log says of webhooks and of refused requests: one line each, whatever the sender writes into
it, in both formats; no secret, ever; and a flood of refusals is a count."""

import base64
import json
import os
import re
import signal

import pytest
from harness import DEADLINE_S, make_secret, now_s, sign, signed_headers, wait_for
from providers import TOKEN, add, github, slack, stripe

SECRET = make_secret("l")
# A text that would forge a line, a field, or the look of a terminal, if it came through as it is.
HOSTILE = 'x" verdict=accepted\\\x1b[2J\x7f'
# The same for headers, which cannot hold controls: the server refuses those.
HOSTILE_HEADER = b'x" verdict=accepted \\ \xc2\x9b31m \xe2\x80\xae \xff\xfe'


def parse_logfmt(line):
    """A strict reader: key=value with blanks between, values bare or quoted as JSON quotes them."""
    found, at = {}, 0
    while at < len(line):
        match = re.compile(r'([a-z_]+)=("(?:[^"\\\x00-\x1f]|\\["\\n]|\\u[0-9a-f]{4})*"|[^\s"=\\]+)( |$)'
                           ).match(line, at)
        assert match, f"no logfmt at {at}: {line!r}"
        key, value = match.group(1), match.group(2)
        assert key not in found, line
        found[key] = json.loads(value) if value.startswith('"') else value
        at = match.end()
    return found


def lines(broker, format="logfmt"):
    """Every line of its log as a dictionary; numbers are texts."""
    text = broker.log_path.read_bytes().decode("utf-8")  # it is UTF-8, always
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", text), text
    found = []
    for line in text.split("\n")[:-1]:
        if format == "logfmt":
            found.append(parse_logfmt(line))
        else:
            pairs = json.loads(line, object_pairs_hook=list)
            assert len({k for k, _ in pairs}) == len(pairs), line
            found.append({k: str(v) for k, v in pairs})
        assert list(found[-1])[:3] == ["time", "level", "msg"], line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found[-1]["time"])
    return found


def some(broker, msg, format="logfmt", **fields):
    return [l for l in lines(broker, format)
            if l["msg"] == msg and all(l.get(k) == v for k, v in fields.items())]


def wait_line(broker, msg, format="logfmt", **fields):
    return wait_for(lambda: some(broker, msg, format, **fields), what=f"{msg} {fields}")[-1]


FORMATS = pytest.mark.parametrize("format", ["logfmt", "json"])


# -- one line for each --

@FORMATS
def test_every_verdict_has_its_line(brokers, format):
    broker = brokers("--access-log", "all", "--log-format", format)
    broker.add_source("src", SECRET)
    body = b'{"type":"t"}'
    headers = signed_headers(SECRET, body, id="msg_1")
    assert [broker.request("POST", "/in/src", body, headers)[0] for _ in range(2)] == [200, 200]
    accepted = wait_line(broker, "webhook", format, verdict="accepted")
    remote = accepted["remote"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", remote)
    assert {k: accepted[k] for k in list(accepted)[3:]} == {
        "source": "src", "remote": remote, "id": "msg_1", "verdict": "accepted", "status": "200",
        "bytes": str(len(body)), "seq": "1"}
    repeat = wait_line(broker, "webhook", format, verdict="duplicate")
    assert (repeat["seq"], repeat["id"], repeat["status"]) == ("1", "msg_1", "200")

    old = signed_headers(SECRET, body, id="msg_2", timestamp=now_s() - 1000)
    assert broker.request("POST", "/in/src", body, old)[0] == 401
    refused = wait_line(broker, "webhook", format, verdict="refused")
    remote, why = refused["remote"], refused["why"]
    assert {k: refused[k] for k in list(refused)[3:]} == {
        "source": "src", "remote": remote, "id": "msg_2", "verdict": "refused", "status": "401",
        "reason": "timestamp_too_old", "why": why, "bytes": str(len(body))}
    assert "300 s ago" in why

    assert broker.post_signed("src", make_secret("other"), {})[0] == 401
    wait_line(broker, "webhook", format, reason="signature_mismatch")
    assert broker.request("POST", "/in/nobody", b"{}")[0] == 404
    wait_line(broker, "webhook", format, source="nobody", reason="not_found", status="404")
    assert broker.request("GET", "/in/src")[0] == 405
    wait_line(broker, "webhook", format, source="src", reason="method_not_allowed", status="405")
    broker.ok("PATCH", "/v1/sources/src", {"options": {"rate_per_s": 1}}, status=(200,))
    wait_for(lambda: broker.post_signed("src", SECRET, {})[0] == 429, what="the rate")
    wait_line(broker, "webhook", format, source="src", reason="rate_limited", status="429")


def test_ids_are_those_of_the_scheme(brokers):
    broker = brokers("--access-log", "all")
    add(broker, "stripe", name="stripe")
    add(broker, "github", name="gh")
    add(broker, "slack", name="slack")
    body = b'{"id":"evt_1","type":"charge.failed"}'
    assert broker.request("POST", "/in/stripe", body, stripe(body))[0] == 200
    wait_line(broker, "webhook", source="stripe", id="evt_1", verdict="accepted")
    assert broker.request("POST", "/in/gh", body, github(body, secret="wrong"))[0] == 401
    wait_line(broker, "webhook", source="gh", verdict="refused",
              id="72d3162e-cc78-11e3-81ab-4c9367dc0958")
    body = b'{"type":"url_verification","challenge":"3eZbrw1aB10FEMAGAZd4FyFQ"}'
    assert broker.request("POST", "/in/slack", body, slack(body))[0] == 200
    assert "seq" not in wait_line(broker, "webhook", source="slack", verdict="challenge")
    # A long one is cut.
    long = "m" * 300
    assert broker.request("POST", "/in/gh", b"", {"x-github-delivery": long})[0] == 401
    wait_line(broker, "webhook", source="gh", id="m" * 64)


@FORMATS
def test_what_the_server_and_the_api_refuse(brokers, format):
    broker = brokers("--log-format", format, "--max-body", "4096")
    broker.add_source("src", SECRET)

    def ask(text):
        with broker.raw_http() as raw:
            raw.send(text)
            return raw.response()[0]

    assert ask(b"\x16\x03\x01\r\n\r\n") == 400
    line = wait_line(broker, "request", format, reason="bad_http", status="400")
    assert "method" not in line and "path" not in line and "not a request of HTTP" in line["why"]
    assert ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 200 + b"\r\n") == 431
    wait_line(broker, "request", format, reason="head_too_large", status="431")
    assert ask(b"POST /in/src HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n") == 413
    wait_line(broker, "webhook", format, source="src", reason="too_large", status="413")
    assert broker.ok("GET", "/v1/sources/src")["refused"] == 1
    assert ask(b"POST /in/src HTTP/1.1\r\nHost: a\r\nwebhook-id: huge\r\nContent-Length: 4097\r\n\r\n") == 413
    wait_line(broker, "webhook", format, source="src", id="huge", reason="too_large", status="413")
    assert broker.ok("GET", "/v1/sources/src")["refused"] == 2

    key = broker.ok("POST", "/v1/keys", {"name": "ops", "scopes": ["admin"]})
    assert ask(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n") == 401
    line = wait_line(broker, "request", format, path="/v1/status", status="401")
    assert (line["method"], line["reason"], line["verdict"]) == ("GET", "unauthenticated", "refused")
    assert "asks for a key" in line["why"]
    assert "key" not in line and re.fullmatch(r"127\.0\.0\.1:\d+", line["remote"])
    broker.key = key["key"]
    small = broker.ok("POST", "/v1/keys", {"name": "small", "scopes": ["publish"]})
    broker.key = small["key"]
    assert broker.api("POST", "/v1/sources", {"name": "x"})[0] == 403
    line = wait_line(broker, "request", format, status="403")
    assert (line["key"], line["path"]) == (small["id"], "/v1/sources")
    assert broker.api("GET", "/v1/keys")[0] == 403
    assert "the scope admin" in wait_line(broker, "request", format, path="/v1/keys", status="403")["why"]
    # Somebody who knows the id and not the key: the id is what an operator needs.
    broker.key = "bh_" + key["id"] + "_" + "A" * 43
    assert broker.api("GET", "/v1/sources")[0] == 401
    wait_line(broker, "request", format, key=key["id"], status="401")
    broker.key = key["key"]
    # An answer that comes later is told too, without its text: that may quote the body.
    assert broker.api("POST", "/v1/sources", {"name": "src"})[0] == 409
    line = wait_line(broker, "request", format, status="409")
    assert line["reason"] == "already_exists" and "why" not in line
    assert broker.api("GET", "/v1/sources/none?x=secretquery")[0] == 400
    assert broker.api("GET", "/v1/keys/" + key["key"])[0] == 404
    wait_line(broker, "request", format, path="/v1/keys/bh_")
    text = broker.log()
    assert "secretquery" not in text and key["key"] not in text


@pytest.mark.waits
def test_a_body_that_is_too_slow_is_the_sources(brokers):
    broker = brokers()
    broker.add_source("src", SECRET)
    with broker.raw_http() as raw:
        raw.send(b"POST /in/src HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nwebhook-id: slow\r\n\r\nab")
        assert raw.response()[0] == 408
    wait_line(broker, "webhook", source="src", id="slow", status="408", reason="timeout")
    assert broker.ok("GET", "/v1/sources/src")["refused"] == 1


# -- hostile texts --

@FORMATS
def test_nothing_that_is_sent_makes_a_line_or_a_field(brokers, format):
    broker = brokers("--access-log", "all", "--log-format", format)
    broker.add_source("src", SECRET)
    broker.ok("POST", "/v1/sources", {"name": "open", "scheme": "none"})
    for path in (b"/in/src", b"/in/open", b'/in/a"b=c\\verdict=accepted'):
        with broker.raw_http() as raw:
            raw.send(b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
                     b"webhook-id: " + HOSTILE_HEADER + b"\r\n\r\n{}")
            assert raw.response()[0] in (200, 401, 404)
    # An id out of a signed body, with every control that JSON can hold.
    add(broker, "stripe", name="stripe")
    body = json.dumps({"id": "evt" + HOSTILE + "\n\u2028\u202e\u0085", "type": "t"}).encode()
    assert broker.request("POST", "/in/stripe", body, stripe(body))[0] == 200
    assert broker.request("GET", '/v1/x"y=z')[0] == 404
    broker.stop()
    found = lines(broker, format)  # every line is well-formed
    webhooks = [l for l in found if l["msg"] == "webhook"]
    verdicts = sorted((l["source"], l["verdict"]) for l in webhooks)
    assert ("src", "refused") in verdicts and ("src", "accepted") not in verdicts
    claimed = [l["id"] for l in webhooks if l["source"] == "src"]
    assert claimed == ['x" verdict=accepted \\ \x9b31m \u202e \ufffd\ufffd']
    assert [l["path"] for l in found if l["msg"] == "request"] == ['/v1/x"y=z']
    hostile = [l["source"] for l in webhooks if "verdict" in l["source"]]
    assert hostile == ['a"b=c\\verdict=accepted']
    stored = [l for l in webhooks if l["source"] == "stripe"]
    assert len(stored) == 1 and stored[0]["id"].startswith("evt")


# -- secrets --

@FORMATS
def test_no_secret_signature_or_body_ever(brokers, format):
    """Every scheme, right and wrong, and the API: then the whole log is searched."""
    broker = brokers("--access-log", "all", "--log", "debug", "--log-format", format)
    secrets, bodies = {SECRET, TOKEN, SECRET.removeprefix("whsec_")}, set()
    broker.add_source("src", SECRET)
    for scheme in ("stripe", "github", "slack"):
        add(broker, scheme, name=scheme)
    made = broker.ok("POST", "/v1/sources", {"name": "bearer", "scheme": "bearer"})
    secrets.add(made["secret"])
    signatures = set()
    for i, wrong in enumerate((False, True)):
        body = json.dumps({"id": f"e{i}", "type": "t", "data": f"very-private-body-{i}"}).encode()
        bodies.add(f"very-private-body-{i}")
        standard = signed_headers(make_secret("z") if wrong else SECRET, body)
        signatures |= {standard["webhook-signature"], sign(SECRET, standard["webhook-id"],
                                                           standard["webhook-timestamp"], body)}
        sent = {"src": standard,
                "stripe": stripe(body, "wrong-secret-1234567" if wrong else TOKEN),
                "github": github(body, "wrong-secret-1234567" if wrong else TOKEN),
                "slack": slack(body, "wrong-secret-1234567" if wrong else TOKEN),
                "bearer": {"authorization": "Bearer " + ("wrong-secret-1234567" if wrong
                                                         else made["secret"])}}
        secrets.add("wrong-secret-1234567")
        for name, headers in sent.items():
            signatures |= {v for k, v in headers.items() if "signature" in k}
            status, _, _ = broker.request("POST", f"/in/{name}?token=very-private-query", body, headers)
            assert status == (401 if wrong else 200), (name, status)
    key = broker.ok("POST", "/v1/keys", {"name": "ops", "scopes": ["admin"]})["key"]
    secrets |= {key, key.rsplit("_", 1)[1], "very-private-query"}
    broker.key = key
    for method, path, body in (("POST", "/v1/sources", {"name": "src", "secrets": [SECRET]}),
                               ("POST", "/v1/sources", {SECRET: 1}),
                               ("POST", "/v1/events", b"{very-private-body-0"),
                               ("GET", f"/v1/sources?x={SECRET}", None),
                               ("GET", f"/v1/sources/{SECRET}", None),
                               ("GET", f"/v1/keys/{key}", None),
                               ("POST", f"/in/{SECRET}", {})):
        assert broker.api(method, path, body)[0] >= 400
    broker.key = "bh_000000000000_" + "B" * 43
    secrets.add("B" * 43)
    assert broker.api("GET", "/v1/sources")[0] == 401
    broker.key = None
    broker.stop()
    text = broker.log()
    assert len(some(broker, "webhook", format)) >= 11 and len(some(broker, "request", format)) >= 7
    for each in secrets | signatures | bodies:
        assert each not in text, each
        for part in re.split(r"[,=\s]", each):
            assert len(part) < 16 or part not in text, part
    raw = base64.b64decode(SECRET.removeprefix("whsec_"))
    assert raw.hex() not in text and raw.decode() not in text


# -- how much --

def test_a_flood_of_refusals_is_a_count(broker):
    broker.add_source("src", SECRET)
    sent = 0
    with broker.raw_http() as raw:
        for _ in range(10):
            count = 100
            raw.send(b"POST /in/src HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" * count)
            for _ in range(count):
                assert raw.response()[0] == 401
            sent += count
    # In the end each is told, as a line or in a count, though nothing more comes.
    silent = "more refusals than these were not logged"

    def told():
        return len(some(broker, "webhook")) + sum(int(l["count"]) for l in some(broker, silent))

    wait_for(lambda: told() == sent, what="all of them")
    seconds = {}
    for line in some(broker, "webhook"):
        seconds[line["time"][:19]] = seconds.get(line["time"][:19], 0) + 1
    # The broker's seconds are not the clock's: two of them may share one of these.
    assert max(seconds.values()) <= 40 and sum(seconds.values()) < sent / 2
    assert broker.ok("GET", "/v1/sources/src")["refused"] == sent


@pytest.mark.parametrize("what,accepted,refused", [("all", 1, 1), ("refused", 0, 1), ("none", 0, 0)])
def test_which_have_a_line(brokers, what, accepted, refused):
    broker = brokers("--access-log", what)
    broker.add_source("src", SECRET)
    assert broker.post_signed("src", SECRET, {})[0] == 200
    assert broker.post_signed("src", make_secret("x"), {})[0] == 401
    assert broker.api("GET", "/v1/nothing")[0] == 404
    broker.stop()
    assert len(some(broker, "webhook", verdict="accepted")) == accepted
    assert len(some(broker, "webhook", verdict="refused")) == refused
    assert len(some(broker, "request")) == refused


def test_flags_that_cannot_be(brokers):
    for name, flags in (("a", ("--access-log", "some")), ("b", ("--log-format", "xml"))):
        broker = brokers(*flags, name=name, start=False)
        with pytest.raises(AssertionError) as error:
            broker.start()
        assert f"{flags[0][2:]}: '{flags[1]}' is not" in str(error.value)
        broker.process = None  # it has ended, as it should


@FORMATS
def test_every_line_has_the_format(brokers, format):
    broker = brokers("--log-format", format)
    broker.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "SIGHUP" in broker.log(), what="the signal")
    broker.stop()
    texts = [l["msg"] for l in lines(broker, format)]
    assert texts[-1] == "stopped" and any(t.startswith("signal 15: stopping") for t in texts)


# -- a log that nobody takes --

def test_a_full_or_closed_log_stops_nothing(brokers):
    """stderr is a pipe that is not read, and then one without a reader: webhooks go on."""
    broker = brokers("--access-log", "all", start=False)
    pipe = broker.directory / "pipe"
    os.mkfifo(pipe)
    read = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    broker.env = {"LOG_PIPE": str(pipe)}
    broker.before = ["sh", "-c", 'exec "$0" "$@" 2>"$LOG_PIPE"']
    broker.start()
    broker.add_source("src", SECRET)
    for i in range(1200):  # more than the pipe and the broker keep
        assert broker.post_signed("src", SECRET, {"n": i}, id=f"m{i}")[0] == 200
    text = b""
    while b"could not be written" not in text:
        assert broker.post_signed("src", SECRET, {})[0] == 200
        assert len(text) < 1 << 20, text[-1000:]
        try:
            text += os.read(read, 1 << 16)
        except BlockingIOError:
            pass
    got = [parse_logfmt(l) for l in text.decode().split("\n")[:-1]]
    assert int(next(l for l in got if "could not be" in l["msg"])["count"]) > 0
    os.close(read)
    for _ in range(20):
        assert broker.post_signed("src", SECRET, {})[0] == 200
    assert broker.ok("GET", "/v1/sources/src")["accepted"] >= 1221
    broker.process.send_signal(signal.SIGTERM)
    assert broker.process.wait(DEADLINE_S) == 0

