"""The command line's webhooks: what is asked of the broker, what is printed, and all of it live."""

import json
import re

import pytest

from clitools import Api, Receiver, Terminal, cli, cli_json
from harness import make_secret, sign, wait_for

ALLOW = ("--webhook-allow", "127.0.0.0/8")
ID = "k0h9q38f6ejj1g9j7cgcdsauadmbewegl79f"
PATH = f"/v1/webhooks/{ID}"


@pytest.fixture
def api():
    made = Api()
    yield made
    made.close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def terminal():
    made = []

    def start(*args, **options):
        made.append(Terminal(*args, **options))
        return made[-1]

    yield start
    for screen in made:
        screen.close()


# --- what is asked of the broker ---

@pytest.mark.parametrize("args, body", [
    (["--event", "batch.*"], {"subscribed_events": ["batch.*"]}),
    (["--event", "a.b", "--event=*", "--name", "N", "--description", "D \u00e9"],
     {"subscribed_events": ["a.b", "*"], "name": "N", "description": "D \u00e9"}),
    (["--event", "*", "--header", "x-a:  b: c", "--header", "X-B:"],
     {"subscribed_events": ["*"], "headers": {"x-a": "b: c", "X-B": ""}}),
    (["--event", "*", "--rate", "0", "--concurrency", "64", "--filter", '{"sources":["s"]}'],
     {"subscribed_events": ["*"], "rate_per_s": 0, "concurrency": 64, "filter": {"sources": ["s"]}}),
])
def test_a_webhook_as_the_api_takes_it(api, args, body):
    uri = "https://example.com/hook?a=b"
    api.answers["POST /v1/webhooks"] = (200, {"id": ID, "new_signing_secret": "whsec_abc"})
    said = api.run("webhook", "create", uri, *args).stdout
    assert f"created webhook {ID}" in said and "secret whsec_abc" in said
    assert api.requests == [("POST", "/v1/webhooks", {"uri": uri, **body})]
    api.run("webhook", "update", ID, *args)
    assert api.requests[1] == ("PATCH", PATH, body)
    printed = json.loads(api.run("webhook", "create", uri, *args, "--json").stdout)
    assert printed == {"id": ID, "new_signing_secret": "whsec_abc"}


@pytest.mark.parametrize("args, request_", [
    (["update", ID, "--uri", "https://b.example/", "--state", "DISABLED"],
     ("PATCH", PATH, {"uri": "https://b.example/", "state": "DISABLED"})),
    (["enable", ID], ("PATCH", PATH, {"state": "enabled"})),
    (["disable", ID], ("PATCH", PATH, {"state": "disabled"})),
    (["pause", ID], ("POST", PATH + ":pause", {})),
    (["resume", ID], ("POST", PATH + ":resume", {})),
    (["ping", ID], ("POST", PATH + ":ping", {})),
    (["rotate", ID], ("POST", PATH + ":rotateSigningSecret",
                      {"revocation_behavior": "revoke_previous_secrets_after_h24"})),
    (["rotate", ID, "--now"], ("POST", PATH + ":rotateSigningSecret",
                               {"revocation_behavior": "revoke_previous_secrets_immediately"})),
    (["resend", ID, "17"], ("POST", PATH + ":resend", {"seq": 17})),
    (["recover", ID, "--since", "2026-11-21T10:00:00+01:00"],
     ("POST", PATH + ":recover", {"since": "2026-11-21T09:00:00.000Z"})),
    (["rm", ID, "--yes"], ("DELETE", PATH, None)),
    (["show", "a/../b"], ("GET", "/v1/webhooks/a%2F..%2Fb", None)),
])
def test_what_is_asked_of_the_broker(api, args, request_):
    api.run("webhook", *args)
    assert api.requests == [request_]


def test_rotating_the_key_shows_the_keys(api):
    api.answers["GET /v1/webhook-keys"] = (200, {"keys": [
        {"kid": "K1", "alg": "EdDSA", "state": "active", "from_file": True}]})
    said = api.run("webhook", "rotate-key").stdout
    assert re.search(r"K1 +EdDSA +active .*a file", said)
    assert [r[:2] for r in api.requests] == [("POST", "/v1/webhook-keys:rotate"),
                                             ("GET", "/v1/webhook-keys")]


@pytest.mark.parametrize("args, words", [
    (["create", "https://example.com/"], "--event is missing"),
    (["create", "https://example.com/", "--event", "*", "--header", "novalue"], "NAME:VALUE"),
    (["create", "https://example.com/", "--event", "*", "--header", ":v"], "NAME:VALUE"),
    (["create", "https://example.com/", "--event", "*", "--header", "a:1", "--header", "a:2"],
     "a is given twice"),
    (["create", "https://example.com/", "--event", "*", "--rate", "-1"], "--rate"),
    (["create", "https://example.com/", "--event", "*", "--concurrency", "65"], "from 1 to 64"),
    (["create", "https://example.com/", "--event", b"\xff"], "not UTF-8"),
    (["create", b"\xff", "--event", "*"], "not UTF-8"),
    (["create", "https://example.com/", "--events", "*"], "did you mean --event?"),
    (["update", ID], "nothing to change was given"),
    (["resend", ID, "x"], "not a whole number"),
    (["recover", ID], "--since"),
    (["recover", ID, "--since", "yesterday"], "neither a time"),
    (["rm", ID], "add --yes"),
    (["rm", "a/b", "--yes"], "no name of a webhook"),
    (["key"], "did you mean: bellhop webhook keys"),
])
def test_nonsense_is_named(api, args, words):
    done = api.run("webhook", *args, code=64, input="")
    assert words in done.stderr and not done.stdout
    assert not api.requests


def test_removing_asks_before(api, terminal):
    api.answers[f"GET {PATH}"] = (200, {"uri": "https://example.com/", "stats": {
        "backlog": 3, "delayed": 2, "in_flight": 1, "dead": 12}})
    for answer, code in (("n\n", 1), ("y\n", 0)):
        screen = terminal("webhook", "rm", ID, env=api.env)
        seen = screen.wait("[y/N] ")
        assert "https://example.com/" in seen and "12 dead letters" in seen
        assert "3 undelivered events" in seen and "3 unread journal positions" in seen
        screen.type(answer)
        screen.end(code)
    assert [r[0] for r in api.requests] == ["GET", "GET", "DELETE"]


def test_what_a_broker_says_cannot_act_on_the_terminal(api):
    api.answers["GET /v1/webhooks"] = (200, {"webhooks": [
        {"id": ID, "name": "\x1b[2Jx", "uri": "https://e/", "state": "enabled",
         "subscribed_events": ["a\x1bb"], "stats": {"breaker": "open"}}]})
    said = api.run("webhook", "ls").stdout
    assert "\x1b" not in said and "breaker open" in said


# --- a real broker ---

def test_its_life(brokers, receiver):
    broker = brokers(*ALLOW)
    said = cli(broker, "webhook", "create", receiver.url, "--event", "batch.*", "--name", "mine",
               "--header", "x-team: video").stdout
    made, secret = re.search(r"created webhook (\S+)\n  secret (\S+)", said).groups()
    cli(broker, "publish", "--type", "batch.succeeded", '{"id":"b"}')
    cli(broker, "publish", "--type", "other", "1")
    wait_for(lambda: receiver.requests, what="the delivery")
    headers, body = receiver.requests[0]
    assert headers["webhook-signature"] == sign(secret, headers["webhook-id"],
                                                headers["webhook-timestamp"], body)
    assert headers["x-team"] == "video" and json.loads(body)["data"] == {"id": "b"}

    listed = cli(broker, "webhook", "ls").stdout
    assert re.search(rf"{made} +mine +{re.escape(receiver.url)} +batch\.\* +enabled", listed)
    wait_for(lambda: cli_json(broker, "webhook", "show", made, "--json")[0]["stats"]["delivered"])
    shown = cli(broker, "webhook", "show", made).stdout
    for words in ("name          mine", "header        x-team: video", "events        batch.*",
                  "delivered     1", f"secret        whsec_...{secret[-4:]}", "rate          no limit"):
        assert words in shown
    attempts = cli(broker, "webhook", "attempts", made).stdout
    assert re.search(r"1 +batch\.succeeded +1 .* 204", attempts)

    assert "is updated" in cli(broker, "webhook", "update", made, "--event", "*").stdout
    assert cli_json(broker, "webhook", "show", made, "--json")[0]["subscribed_events"] == ["*"]
    new = re.search(r"secret (\S+)", cli(broker, "webhook", "rotate", made).stdout)[1]
    assert new != secret and "sign beside it" in cli(broker, "webhook", "rotate", made).stdout
    assert " until " in cli(broker, "webhook", "show", made).stdout

    cli(broker, "webhook", "ping", made)
    wait_for(lambda: any(b'"webhook.ping"' in r[1] for r in receiver.requests), what="the ping")
    wait_for(lambda: "ping" in cli(broker, "webhook", "attempts", made).stdout, what="its attempt")

    cli(broker, "webhook", "resend", made, "1")
    wait_for(lambda: len([r for r in receiver.requests if r[0]["webhook-id"] ==
                          headers["webhook-id"]]) == 2, what="the same event again")
    assert "webhook.ping" not in cli(broker, "tail", "--from", "1", "--count", "2").stdout

    for act, state, paused in (("disable", "disabled", False), ("enable", "enabled", False),
                               ("pause", "enabled", True), ("resume", "enabled", False)):
        cli(broker, "webhook", act, made)
        now = cli_json(broker, "webhook", "show", made, "--json")[0]
        assert (now["state"], now["paused"]) == (state, paused), act
    assert "removed webhook" in cli(broker, "webhook", "rm", made, "--yes").stdout
    assert "no webhook yet" in cli(broker, "webhook", "ls").stdout


def test_dead_letters_are_recovered(brokers, receiver):
    broker = brokers(*ALLOW)
    receiver.answer = 500
    made = cli_json(broker, "webhook", "create", receiver.url, "--event", "*", "--json")[0]["id"]
    broker.publish("t")
    wait_for(lambda: receiver.requests)
    failed = wait_for(lambda: [line for line in cli(broker, "webhook", "attempts", made)
                               .stdout.splitlines() if "500" in line])[0]
    assert re.search(r" t +1 .* 20\d\d-.*Z +500: ", failed)  # with the time of the next one
    said = cli(broker, "webhook", "recover", made, "--since", "1h").stdout
    assert "bellhop replay show" in said
    receiver.answer = 204


def test_refusals_are_said(brokers):
    broker = brokers()
    done = cli(broker, "webhook", "create", "http://10.1.2.3/", "--event", "*", code=1)
    assert "10.1.2.3" in done.stderr
    done = cli(broker, "webhook", "create", "https://example.com/", "--event", "a..b", code=1)
    assert "a..b" in done.stderr
    assert "not_found" in cli(broker, "webhook", "show", "nope", code=1).stderr
    assert "no webhook yet" in cli(broker, "webhook", "ls").stdout


def test_keys_types_and_dynamic_endpoints(brokers, receiver):
    broker = brokers(*ALLOW)
    before = {k["kid"]: k["state"] for k in cli_json(broker, "webhook", "keys", "--json")}
    assert sorted(before.values()) == ["active", "next"]
    after = {k["kid"]: k["state"] for k in cli_json(broker, "webhook", "rotate-key", "--json")}
    upcoming = [kid for kid, state in before.items() if state == "next"][0]
    assert after[upcoming] == "active" and len(after) == 3
    types = {t["type"]: t for t in cli_json(broker, "event-types", "--json")}
    assert {"batch.succeeded", "webhook.ping", "job.overdue"} <= set(types)
    assert "output_file_uri" in cli(broker, "event-types").stdout
    assert "no event has brought" in cli(broker, "webhook", "endpoints").stdout
    cli(broker, "publish", "--type", "t", "--webhook-uri", receiver.url, "--metadata", '{"k":1}', "2")
    wait_for(lambda: receiver.requests, what="the dynamic delivery")
    headers, body = receiver.requests[0]
    assert headers["webhook-signature"].startswith("v1a,")
    assert json.loads(body)["user_metadata"] == {"k": 1}
    origin = receiver.url.removesuffix("/hook")
    wait_for(lambda: origin in cli(broker, "webhook", "endpoints").stdout)


def test_publish_with_uris_of_its_own(api):
    api.answers["POST /v1/events"] = (200, {"seq": 1})
    api.run("publish", "--type", "t", "--webhook-uri", "https://a/", "--webhook-uri", "https://b/",
            "--metadata", '{"k":1}', "7")
    assert api.requests[0][2] == {"type": "t", "data": 7, "webhook_config": {
        "uris": ["https://a/", "https://b/"], "user_metadata": {"k": 1}}}
    done = api.run("publish", "--ndjson", "--webhook-uri", "https://a/", code=64, input="")
    assert "--webhook-uri and --ndjson" in done.stderr


def test_make_secret_is_not_printed_again(brokers):
    broker = brokers()
    said = cli_json(broker, "webhook", "create", "https://example.com/", "--event", "*", "--json")[0]
    assert said["new_signing_secret"] not in cli(broker, "webhook", "show", said["id"]).stdout
    assert make_secret() not in said["new_signing_secret"]
