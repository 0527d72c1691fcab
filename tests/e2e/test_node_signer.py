"""A signer that we did not write: npm's standardwebhooks signs, and the broker must agree."""

import json
import subprocess

import pytest
from harness import REPO, make_secret, now_s

NODE = REPO / "tests" / "node"
SECRET = make_secret("n")


@pytest.fixture(scope="module")
def sign_with_node():
    assert (NODE / "node_modules" / "standardwebhooks").is_dir(), \
        "run `npm ci --prefix tests/node` first (scripts/test does)"

    def sign(body, secret=SECRET, id="msg_node", timestamp=None):
        request = {"secret": secret, "id": id, "timestamp": timestamp or now_s(), "body": body}
        done = subprocess.run(["node", "sign.mjs"], input=json.dumps(request), cwd=NODE, text=True,
                              capture_output=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return sign


@pytest.fixture
def door(broker):
    broker.add_source("src", SECRET)
    return broker


@pytest.mark.parametrize("body", ['{"type":"batch.succeeded","data":{"id":"b"}}', "", "not json",
                                  '{"type":"\u00e9\u4e16"}', "x" * 100000])
def test_signed_by_node_is_accepted(door, sign_with_node, body):
    status, _, text = door.request("POST", "/in/src", body.encode(), sign_with_node(body))
    assert (status, json.loads(text)) == (200, {"seq": 1})
    assert door.ok("GET", "/v1/events/1")["id"] == "msg_node"


def test_signed_by_node_and_altered_is_refused(door, sign_with_node):
    body = '{"type":"t","data":{"amount":10}}'
    headers = sign_with_node(body)
    for changed in (body.replace("10", "11"), body + "\n", ""):
        status, _, text = door.request("POST", "/in/src", changed.encode(), headers)
        assert (status, json.loads(text)["error"]["code"]) == (401, "signature_mismatch")
    headers = sign_with_node(body, secret=make_secret("z"))
    assert door.request("POST", "/in/src", body.encode(), headers)[0] == 401
    headers = sign_with_node(body, timestamp=now_s() - 400)
    status, _, text = door.request("POST", "/in/src", body.encode(), headers)
    assert (status, json.loads(text)["error"]["code"]) == (401, "timestamp_too_old")
    assert door.events() == []


def test_a_secret_made_by_the_broker_works_in_node(broker, sign_with_node):
    secret = broker.ok("POST", "/v1/sources", {"name": "src"})["secret"]
    headers = sign_with_node("{}", secret=secret)
    assert broker.request("POST", "/in/src", b"{}", headers)[0] == 200


def test_both_sides_agree_on_the_signature(sign_with_node):
    from harness import sign
    headers = sign_with_node('{"a":1}', id="msg_x", timestamp=1700000000)
    assert headers["webhook-signature"] == sign(SECRET, "msg_x", "1700000000", b'{"a":1}')
