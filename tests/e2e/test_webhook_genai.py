"""The real @google/genai client, pointed at the broker by its baseUrl and nothing else: the version
that plain npm install gives, and the newest."""

import base64
import json
import re
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from harness import DEADLINE_S, LOCAL, NODE, Broker, verify

HOOK = "http://127.0.0.1:9/cb"
BATCH = ["batch.succeeded", "batch.failed"]


class GenAI:
    """ai.webhooks of one version of the client, in a node of its own."""

    def __init__(self, version):
        assert (NODE / "node_modules" / version).is_dir(), \
            "run `npm ci --prefix tests/node` first (scripts/test does)"
        self.prefix = {"genai": "/v1beta", "genai3": "/v1"}[version]
        self.node = subprocess.Popen(["node", "genai.mjs", version], cwd=NODE, text=True,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.base = None

    def _say(self, request):
        self.node.stdin.write(json.dumps({"base": self.base, **request}) + "\n")
        self.node.stdin.flush()
        line = self.node.stdout.readline()
        assert line, f"node ended with {self.node.wait(DEADLINE_S)}"
        return json.loads(line)

    def __getattr__(self, call):
        def run(*args):
            answer = self._say({"call": call, "args": args})
            assert "error" not in answer, (call, args, answer)
            return answer["ok"]
        return run

    def refused(self, call, *args):
        """What the client throws: (class, status, code, message)."""
        answer = self._say({"call": call, "args": args})
        assert "error" in answer, (call, args, answer)
        error = answer["error"]
        said = error["body"]["error"]
        assert json.dumps(said["message"])[1:-1] in error["message"]
        return error["name"], error["status"], said["code"], said["message"]

    def fetch(self, path, body):
        answer = self._say({"fetch": path, "body": body})
        return answer["status"], answer["body"]

    def end(self):
        self.node.stdin.close()
        self.node.stdout.close()
        self.node.wait(DEADLINE_S)


@pytest.fixture(scope="module", params=["genai", "genai3"])
def client(request):
    genai = GenAI(request.param)
    yield genai
    genai.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One broker for all, without a webhook before each test."""
    broker = Broker(tmp_path_factory.mktemp("genai"), *LOCAL).start()
    yield broker
    broker.finish()


@pytest.fixture
def ai(client, shared):
    client.base, client.broker = shared.http, shared
    yield client
    for webhook in client.list().get("webhooks"):
        client.delete(webhook["id"])


def parse_time(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def near_now(text, offset=timedelta(0)):
    return abs(parse_time(text) - datetime.now(timezone.utc) - offset) < timedelta(minutes=2)


def test_create_and_get(ai):
    made = ai.create({"name": "MyBatchWebhook", "uri": HOOK, "subscribed_events": BATCH})
    assert re.fullmatch(r"[a-z0-9]{36}", made["id"])
    assert (made["name"], made["uri"], made["subscribed_events"], made["state"]) == \
        ("MyBatchWebhook", HOOK, BATCH, "enabled")
    secret = made["new_signing_secret"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert made["signing_secrets"] == [{"truncated_secret": "whsec_..." + secret[-4:]}]
    assert near_now(made["create_time"]) and near_now(made["update_time"])
    got = ai.get(made["id"])
    # The secret is told once; what has changed since is how many events are behind, at the most.
    del made["new_signing_secret"]
    assert {k: v for k, v in got.items() if k != "stats"} == \
        {k: v for k, v in made.items() if k != "stats"}
    assert secret not in json.dumps([got, ai.list()])
    bare = ai.create({"uri": HOOK, "subscribed_events": ["video.generated"]})
    assert "name" not in ai.get(bare["id"])


def test_list_with_pages(ai):
    ids = [ai.create({"name": f"w{n}", "uri": HOOK, "subscribed_events": BATCH})["id"]
           for n in range(5)]
    pages, token = [], None
    while True:
        page = ai.list({"page_size": 2, **({"page_token": token} if token else {})})
        pages.append([w["id"] for w in page["webhooks"]])
        token = page.get("next_page_token")
        if token is None:
            break
    assert pages == [ids[:2], ids[2:4], ids[4:]]
    whole = ai.list()
    assert [w["id"] for w in whole["webhooks"]] == ids and "next_page_token" not in whole
    assert [w["id"] for w in ai.list({"page_size": 5})["webhooks"]] == ids


def test_an_empty_list(ai):
    assert ai.list() == {"webhooks": []}


def test_update(ai):
    made = ai.create({"name": "before", "uri": HOOK, "subscribed_events": BATCH})
    id = made["id"]

    def expect(answer, **fields):
        for got in (answer, ai.get(id)):
            assert {k: got[k] for k in fields} == fields
            assert "new_signing_secret" not in got

    expect(ai.update(id, {"name": "after"}), name="after", uri=HOOK, subscribed_events=BATCH,
           state="enabled")
    expect(ai.update(id, {"uri": HOOK + "/2"}), name="after", uri=HOOK + "/2")
    expect(ai.update(id, {"subscribed_events": ["interaction.completed"]}),
           subscribed_events=["interaction.completed"], name="after")
    expect(ai.update(id, {"state": "disabled"}), state="disabled", name="after")
    expect(ai.update(id, {"state": "ENABLED"}), state="enabled")
    # A mask that says less than the body changes nothing.
    answer = ai.update(id, {"name": "both", "subscribed_events": ["*"], "update_mask": "name"})
    expect(answer, name="both", subscribed_events=["*"])
    assert parse_time(answer["update_time"]) >= parse_time(answer["create_time"])
    assert answer["create_time"] == made["create_time"]


def test_ping_arrives(ai, receiver):
    made = ai.create({"uri": receiver.url("/cb"), "subscribed_events": BATCH})
    assert ai.ping(made["id"]) == {}
    assert ai.ping(made["id"], {"body": {}}) == {}
    pings = receiver.wait(2, "/cb")
    for ping in pings:
        assert ping.json()["type"] == "webhook.ping" and ping.json()["version"] == "v1"
        assert verify(made["new_signing_secret"], ping.headers, ping.body)
    # Where nobody listens it is answered all the same: it is sent behind the answer.
    dead = ai.create({"uri": HOOK, "subscribed_events": BATCH})
    assert ai.ping(dead["id"]) == {}
    failed = ai.broker.wait_attempts(dead["id"], bool)[0]
    assert (failed["ping"], failed["ok"], failed.get("error")) == (True, False, "connect")


@pytest.mark.parametrize("behaviour, overlap", [
    (None, True), ({}, True),
    ({"revocation_behavior": "revoke_previous_secrets_after_h24"}, True),
    ({"revocation_behavior": "REVOKE_PREVIOUS_SECRETS_AFTER_H24"}, True),
    ({"revocation_behavior": "revoke_previous_secrets_immediately"}, False),
    ({"revocation_behavior": "REVOKE_PREVIOUS_SECRETS_IMMEDIATELY"}, False)])
def test_rotate(ai, receiver, behaviour, overlap):
    made = ai.create({"uri": receiver.url("/cb"), "subscribed_events": BATCH})
    old = made["new_signing_secret"]
    answer = ai.rotateSigningSecret(made["id"], *([] if behaviour is None else [behaviour]))
    assert list(answer) == ["secret"]
    new = answer["secret"]
    assert new != old and len(base64.b64decode(new.removeprefix("whsec_"))) == 32
    shown = ai.get(made["id"])["signing_secrets"]
    assert shown[0] == {"truncated_secret": "whsec_..." + new[-4:]}
    if overlap:
        assert len(shown) == 2 and shown[1]["truncated_secret"] == "whsec_..." + old[-4:]
        assert near_now(shown[1]["expire_time"], timedelta(hours=24))
    else:
        assert len(shown) == 1
    ai.ping(made["id"])
    ping = receiver.wait(1, "/cb")[0]
    assert verify(new, ping.headers, ping.body)
    assert verify(old, ping.headers, ping.body) == overlap


def test_delete(ai):
    keep, gone = (ai.create({"uri": HOOK, "subscribed_events": BATCH})["id"] for _ in range(2))
    assert ai.delete(gone) == {}
    name, status, code, message = ai.refused("get", gone)
    assert (name, status, code) == ("NotFoundError", 404, "not_found") and gone in message
    assert [w["id"] for w in ai.list()["webhooks"]] == [keep]


def test_unknown_ids(ai):
    id = "k0h9q38f6ejj1g9j7cgcdsauadmbewegl79f"
    for call, *more in (("get",), ("update", {"name": "x"}), ("delete",), ("ping",),
                        ("rotateSigningSecret",)):
        name, status, code, message = ai.refused(call, id, *more)
        assert (name, status, code) == ("NotFoundError", 404, "not_found"), call
        assert id in message, call


@pytest.mark.parametrize("fields, words", [
    ({"uri": "ftp://example.com/x"}, ("uri", "ftp")),
    ({"uri": "not a uri"}, ("uri",)),
    ({"uri": "https://user:pw@example.com/"}, ("uri", "user")),
    ({"uri": "http://10.1.2.3/x"}, ("10.1.2.3", "10.0.0.0/8")),
    ({"uri": ""}, ("uri",)),
    ({"subscribed_events": ["x y"]}, ("x y", "subscribed_events[0]")),
    ({"subscribed_events": ["batch.succeeded", "batch..x"]}, ("batch..x", "subscribed_events[1]")),
    ({"subscribed_events": []}, ("subscribed_events",)),
])
def test_a_bad_value_makes_nothing(ai, fields, words):
    whole = {"uri": HOOK, "subscribed_events": BATCH}
    name, status, code, message = ai.refused("create", {**whole, **fields})
    assert (name, status, code) == ("BadRequestError", 400, "invalid_request"), message
    assert all(word in message for word in words), message
    assert ai.list() == {"webhooks": []}
    made = ai.create(whole)
    name, status, code, message = ai.refused("update", made["id"], {"name": "new", **fields})
    assert (name, status, code) == ("BadRequestError", 400, "invalid_request"), message
    assert all(word in message for word in words), message
    assert "name" not in ai.get(made["id"])


def test_bad_enums(ai):
    id = ai.create({"uri": HOOK, "subscribed_events": BATCH})["id"]
    for state in ("asleep", "disabled_due_to_failed_deliveries"):
        name, status, code, message = ai.refused("update", id, {"state": state})
        assert (name, status, code) == ("BadRequestError", 400, "invalid_request")
        assert state in message and "state" in message
    name, status, code, message = ai.refused("rotateSigningSecret", id,
                                             {"revocation_behavior": "never"})
    assert (name, status, code) == ("BadRequestError", 400, "invalid_request")
    assert "never" in message and "revoke_previous_secrets_immediately" in message
    got = ai.get(id)
    assert got["state"] == "enabled" and len(got["signing_secrets"]) == 1


def test_what_is_missing_is_named(ai):
    for field in ("uri", "subscribed_events"):
        whole = {"uri": HOOK, "subscribed_events": BATCH}
        del whole[field]
        status, answer = ai.fetch(ai.prefix + "/webhooks", whole)
        assert (status, answer["error"]["code"]) == (400, "invalid_request")
        assert field in answer["error"]["message"]
    assert ai.list() == {"webhooks": []}


@pytest.mark.parametrize("field, hint", [
    ("subscribedEvents", "subscribed_events"), ("newSigningSecret", None), ("colour", None),
    ("signing_secrets", None)])
def test_unknown_fields_are_named(ai, field, hint):
    body = {"uri": HOOK, "subscribed_events": BATCH, field: ["batch.failed"]}
    status, answer = ai.fetch(ai.prefix + "/webhooks", body)
    assert (status, answer["error"]["code"]) == (400, "parameter_unknown")
    message = answer["error"]["message"]
    assert message.startswith(f"Unknown parameter '{field}'")
    if hint:
        assert f"Did you mean '{hint}'?" in message
    assert ai.list() == {"webhooks": []}


def test_what_other_clients_send_is_taken(ai):
    """Unknown query parameters are ignored, and the path of the guide rotates too."""
    made = ai.create({"uri": HOOK, "subscribed_events": BATCH})
    path = f"{ai.prefix}/webhooks"
    status, answer = ai.fetch(f"{path}/{made['id']}/rotate_secret?key=abc&alt=json", {})
    assert status == 200 and answer["secret"].startswith("whsec_")
    assert len(ai.get(made["id"])["signing_secrets"]) == 2
    status, other = ai.fetch(f"{path}?key=abc", {"uri": HOOK, "subscribed_events": BATCH})
    assert status == 200
    # Both prefixes are one list.
    for prefix in ("/v1", "/v1beta"):
        got = ai.broker.ok("GET", prefix + "/webhooks?key=abc")["webhooks"]
        assert [w["id"] for w in got] == [made["id"], other["id"]]
