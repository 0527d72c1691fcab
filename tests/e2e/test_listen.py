"""bellhop listen: the events of a subscription at a server nearby, as webhooks."""

import base64
import json
import re
import signal
import threading

import pytest

from bhp import PUBLISH, PUBLISHED, Client
from clitools import Receiver, cli, cli_json, end_of, running
from harness import make_secret, sign, signed_headers, wait_for

SECRET = make_secret("l")


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def attached(broker):
    """The subscription that listen works on."""
    return wait_for(lambda: next((s for s in broker.ok("GET", "/v1/subscriptions")["subscriptions"]
                                  if s["attachments"] == 1 and not s["name"].startswith("webhook.")),
                         None), what="its attachment")


def lines_of(out):
    return [json.loads(line) for line in out.splitlines()]


def test_events_are_signed_and_acknowledged(broker, receiver):
    with running(broker, "listen", "--forward", receiver.url, "--type", "a.*", "--secret", SECRET,
                 "--count", "2") as listen:
        sub = attached(broker)
        assert sub["lag"] == "expire" and re.fullmatch("listen-[0-9a-f]{8}", sub["name"])
        broker.publish("a.x", data={"n": 1}, user_metadata={"k": "v"})
        broker.publish("b.x")
        broker.publish("a.y")
        out, err = end_of(listen)
    assert out.startswith(f"forwarding subscription {sub['name']} (deleted at the end) to ")
    assert "whsec_" not in out and not err
    assert re.search(r"seq 1  a\.x  attempt 1  204 ", out)
    assert re.search(r"seq 3  a\.y  attempt 1  204 ", out)
    assert len(receiver.requests) == 2
    for headers, body in receiver.requests:
        assert headers["webhook-signature"] == sign(SECRET, headers["webhook-id"],
                                                    headers["webhook-timestamp"], body)
        assert headers["user-agent"].startswith("bellhop/")
    assert receiver.requests[0][0]["webhook-id"] != receiver.requests[1][0]["webhook-id"]
    assert not broker.ok("GET", "/v1/subscriptions")["subscriptions"]


BODIES = [
    # publish: fields of POST /v1/events -> data of the envelope
    ({"data": {"a": 1.50}}, {"a": 1.5}),
    ({"data": [1, "x"]}, [1, "x"]),
    ({"data": "text"}, "text"),
    ({}, {}),
]


def test_bodies_are_those_of_a_webhook(brokers, receiver):
    """What listen sends is, byte for byte, what a webhook of the same broker sends."""
    broker = brokers("--webhook-allow", "127.0.0.0/8")
    direct = Receiver()
    try:
        broker.ok("POST", "/v1/webhooks", {"uri": direct.url, "subscribed_events": ["*"]})
        broker.add_source("src", SECRET)
        with running(broker, "listen", "--forward", receiver.url, "--json") as listen:
            attached(broker)
            for fields, _ in BODIES:
                broker.publish("t.u", **fields)
            broker.publish("t.u", time="2026-01-22T12:00:00Z", user_metadata={"k": "\u00e9"})
            rows = [["t.w", "", "", content_type, "", 0, 0, body] for content_type, body in (
                ("text/plain; charset=utf-8", b"plain \xe2\x82\xac"), ("image/png", b"\x89PNG\x00"),
                ("", b"not json"), ("application/cloudevents+json ; x=y", b' {"b": [1e2]} '),
                ("text/plain", b'{"json":1}'), ("", b"\xff"), ("", b'{"cut":'))]
            cli_rows(broker, rows)
            for content_type, body in (("application/json", b' { "type": "src.x" } '),
                                       ("text/plain", b"raw \xff")):
                headers = {**signed_headers(SECRET, body), "content-type": content_type}
                assert broker.request("POST", "/in/src", body, headers)[0] == 200
            count = len(BODIES) + 1 + len(rows) + 2
            wait_for(lambda: len(receiver.requests) == len(direct.requests) == count,
                     what=f"{count} requests")
            listen.send_signal(signal.SIGTERM)
            end_of(listen)
    finally:
        direct.close()
    for one in receiver.requests + direct.requests:
        one[0]["webhook-id"] = one[0]["webhook-id"].rsplit("_", 1)[1]  # the seq
    mine = {r[0]["webhook-id"]: (r[1], r[0]["content-type"]) for r in receiver.requests}
    theirs = {r[0]["webhook-id"]: (r[1], r[0]["content-type"]) for r in direct.requests}
    assert mine == theirs
    for seq, (_, data) in enumerate(BODIES, 1):
        assert json.loads(mine[str(seq)][0])["data"] == data
    assert json.loads(mine["7"][0])["data"]["base64"] == base64.b64encode(b"\x89PNG\x00").decode()


def cli_rows(broker, rows):
    with Client(broker.workers_port) as client:
        client.request(PUBLISH, rows, want=PUBLISHED)


def test_what_fails_comes_again(broker, receiver):
    receiver.answer = 500
    broker.add_subscription("dev", backoff={"min_ms": 10, "max_ms": 20, "factor": 1})
    with running(broker, "listen", "--forward", receiver.url, "--subscription", "dev",
                 "--secret", SECRET, "--json", "--count", "3") as listen:
        attached(broker)
        broker.publish("t")
        wait_for(lambda: len(receiver.requests) >= 2, what="the second attempt")
        receiver.answer = 200
        if listen.poll() is None:
            broker.publish("u")
        out, _ = end_of(listen)
    said = lines_of(out)
    assert said[0] == {"subscription": "dev", "created": False, "forward": receiver.url}
    assert said[1]["verdict"] == "nack" and said[1]["status"] == 500
    assert said[1]["error"] == "HTTP 500: this went wrong"
    assert [s["attempt"] for s in said[1:] if s["seq"] == 1][:2] == [1, 2]
    ids = {r[0]["webhook-id"] for r in receiver.requests if b'"t"' in r[1]}
    assert len(ids) == 1  # the same over its attempts
    assert [s["name"] for s in broker.ok("GET", "/v1/subscriptions")["subscriptions"]] == ["dev"]


def test_a_failure_is_told_to_the_broker(broker, receiver):
    receiver.answer = 503
    broker.add_subscription("dev", max_fails=1)
    with running(broker, "listen", "--forward", receiver.url, "--subscription", "dev",
                 "--count", "1") as listen:
        attached(broker)
        broker.publish("t")
        out, _ = end_of(listen)
    assert "nack" in out and "HTTP 503: this went wrong" in out and "signed with whsec_" in out
    dead = wait_for(lambda: cli_json(broker, "dlq", "ls", "dev", "--json"))[0]
    assert dead["error"]["type"] == "status 503"


def test_nobody_at_the_other_end(broker):
    with running(broker, "listen", "--forward", "http://127.0.0.1:1/", "--count", "1") as listen:
        attached(broker)
        broker.publish("t")
        out, _ = end_of(listen)
    assert re.search(r"seq 1  t  attempt 1  nack .*(connect|refused)", out, re.I)


def test_from_begins_earlier(broker, receiver):
    for n in range(3):
        broker.publish(f"t.{n}")
    with running(broker, "listen", "--forward", receiver.url, "--from", "2", "--count", "2") as listen:
        out, _ = end_of(listen)
    assert "seq 2  t.1" in out and "seq 3  t.2" in out and "seq 1 " not in out


def test_a_subscription_that_it_makes_by_name_goes_with_it(broker, receiver):
    with running(broker, "listen", "--forward", receiver.url, "--subscription", "dev", "--filter",
                 '{"types":["a"]}') as listen:
        assert attached(broker)["name"] == "dev"
        listen.send_signal(signal.SIGINT)
        end_of(listen)
    assert not broker.ok("GET", "/v1/subscriptions")["subscriptions"]
    broker.add_subscription("dev", filter={"types": ["a"]})
    with running(broker, "listen", "--forward", receiver.url, "--subscription", "dev", "--type",
                 "a") as listen:
        attached(broker)
        listen.send_signal(signal.SIGINT)
        end_of(listen)
    assert broker.ok("GET", "/v1/subscriptions")["subscriptions"]
    done = cli(broker, "listen", "--forward", receiver.url, "--subscription", "dev", "--type", "b",
               code=1)
    assert "policy_mismatch" in done.stderr
    assert broker.ok("GET", "/v1/subscriptions")["subscriptions"]


def test_a_request_that_hangs_can_be_given_up(broker, receiver):
    go_on = threading.Event()
    receiver.answer = lambda body: 200 if go_on.wait(30) else 500
    broker.add_subscription("dev")
    try:
        with running(broker, "listen", "--forward", receiver.url, "--subscription", "dev",
                     "--json") as listen:
            attached(broker)
            broker.publish("t")
            wait_for(lambda: broker.ok("GET", "/v1/subscriptions/dev")["leased"] == 1)
            listen.send_signal(signal.SIGINT)
            assert "once more to give up" in listen.stderr.readline()
            listen.send_signal(signal.SIGINT)
            out, _ = end_of(listen, code=128 + signal.SIGINT)
    finally:
        go_on.set()
    assert lines_of(out)[-1]["verdict"] == "release"
    with Client(broker.workers_port) as client:
        client.subscribe("dev")
        assert client.take_one().fails == 0  # given back, not failed


def test_a_subscription_that_is_deleted_ends_it(broker, receiver):
    broker.add_subscription("dev")
    with running(broker, "listen", "--forward", receiver.url, "--subscription", "dev") as listen:
        attached(broker)
        broker.ok("DELETE", "/v1/subscriptions/dev")
        _, err = end_of(listen, code=1)
    assert "deleted" in err


@pytest.mark.parametrize("args, words", [
    ([], "--forward is missing"),
    (["--forward", "127.0.0.1:3000"], "not a URL"),
    (["--forward", "ftp://a/"], "not a URL"),
    (["--forward", "http://127.0.0.1:1/", "--secret", "whsec_short"], "24 to 64 bytes"),
    (["--forward", "http://127.0.0.1:1/", "--concurrency", "0"], "--concurrency"),
    (["--forward", "http://127.0.0.1:1/", "--from", "never"], "--from"),
    (["--forward", "http://127.0.0.1:1/", "--filter", "{"], "not a filter"),
    (["--forward", "http://127.0.0.1:1/", "--subscription", "a b"], "no name"),
])
def test_nonsense_is_named(broker, args, words):
    done = broker.run_cli("listen", *args)
    assert done.returncode in (64, 65) and words in done.stderr, done.stderr
    assert not broker.ok("GET", "/v1/subscriptions")["subscriptions"]


def test_an_unknown_subscription(broker):
    done = cli(broker, "listen", "--forward", "http://127.0.0.1:1/", "--subscription", "x", code=1)
    assert "not_found" in done.stderr or "no subscription" in done.stderr
