"""Keys: who gets in, and how far, over HTTP and the worker protocol (docs/operations.md, "Keys")."""

import copy
import datetime
import json
import re
import subprocess
import threading

import pytest
from bhp import (AUTH, CHALLENGE, ERR, HELLO, OK, PING, REDRIVE, REPLAY, SUBSCRIBE, WAIT,
                 Client, ProtocolError, encode, prove)
from harness import BUILD, DEADLINE_S, broker_env, make_secret, wait_for

KEY = re.compile(r"^bh_[a-z0-9]{12}_[A-Za-z0-9_-]{43}$")


def make(broker, *scopes, **fields):
    """A key's text; the first one becomes the broker's own."""
    answer = broker.ok("POST", "/v1/keys", {"name": "k", "scopes": list(scopes) or ["admin"], **fields})
    assert KEY.match(answer["key"]), answer
    if broker.key is None:
        broker.key = answer["key"]
    return answer["key"]


def id_of(key):
    return key.split("_")[1]


def ask(broker, key, method, path, body=None, headers=None):
    """(status, error code, message) of a request with that key; None: with none."""
    mine, broker.key = broker.key, None
    sent = {**({} if key is None else {"Authorization": f"Bearer {key}"}), **(headers or {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        status, got, text = broker.request(method, path, data, sent)
    finally:
        broker.key = mine
    answer = json.loads(text)
    if status == 401:
        assert got["WWW-Authenticate"] == "Bearer"
    error = answer.get("error", {})
    return status, error.get("code"), error.get("message", "")


def in_future(seconds):
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# -- who gets in --


def test_without_keys_nothing_is_asked(broker, connect):
    assert broker.ok("GET", "/v1/keys") == {"keys": []}
    assert broker.api("GET", "/v1/status")[0] == 200
    client = connect(broker)
    assert client.welcome["auth"] == "none"
    assert client.request(AUTH, "none")[0] == OK
    assert "bellhop key create NAME --scope admin" in broker.log()


def test_the_first_key_must_be_an_admin(broker):
    status, answer = broker.api("POST", "/v1/keys", {"name": "k", "scopes": ["manage"]})
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert "first key must be one of the project default with the scope admin" in answer["error"]["message"]
    assert broker.api("GET", "/v1/status")[0] == 200


OPEN = [("GET", "/healthz"), ("GET", "/.well-known/jwks.json")]
CLOSED = [("GET", "/v1/status"), ("GET", "/v1/keys"), ("POST", "/v1/events"), ("GET", "/v1/events"),
          ("GET", "/v1/nothing"), ("GET", "/v1"), ("PUT", "/v1/status"), ("GET", "/v1beta/webhooks"),
          ("POST", "/v1beta/webhooks"), ("HEAD", "/v1/sources"), ("GET", "/v1/jobs/a:wait")]


def test_with_a_key_everything_is_asked(broker):
    make(broker)
    for method, path in OPEN:
        assert ask(broker, None, method, path)[0] == 200, path
    for method, path in CLOSED:
        if method == "HEAD":
            mine, broker.key = broker.key, None
            assert broker.request(method, path)[0] == 401
            broker.key = mine
            continue
        assert ask(broker, None, method, path) == (
            401, "unauthenticated",
            "this broker asks for a key: send Authorization: Bearer KEY, or x-goog-api-key: KEY"), path
    assert ask(broker, None, "GET", "/nothing")[0] == 404
    assert ask(broker, broker.key, "GET", "/v1/nothing")[0] == 404
    assert ask(broker, broker.key, "PUT", "/v1/status")[0] == 405
    # Webhooks in have signatures of their own.
    broker.add_source("src", make_secret())
    assert broker.post_signed("src", make_secret(), {"type": "a"})[0] == 200


UNKNOWN = (401, "unauthenticated", "the key is not known here: it is mistyped, or it was revoked")


def test_keys_that_are_none(broker):
    key = make(broker)
    other = "bh_" + "a" * 12 + "_" + "A" * 43
    for wrong in [other, key[:-1], key + "a", key.upper(), "", "x", key[:-1] + ("A" if key[-1] != "A" else "B")]:
        assert ask(broker, wrong, "GET", "/v1/status") == UNKNOWN, wrong
    for scheme in ["Basic ", "", "Bearer,", "BearerX "]:
        assert ask(broker, None, "GET", "/v1/status", headers={"Authorization": scheme + key}) == UNKNOWN
    for header in [{"Authorization": "bearer   " + key}, {"X-Goog-Api-Key": key}]:
        assert ask(broker, None, "GET", "/v1/status", headers=header)[0] == 200
    status, code, message = ask(broker, key, "GET", "/v1/status", headers={"x-goog-api-key": key})
    assert (status, code) == (401, "unauthenticated") and "more than one key" in message
    with broker.raw_http() as raw:
        raw.send(f"GET /v1/status HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
                 f"Authorization: Bearer {key}\r\n\r\n".encode())
        assert raw.response()[0] == 401
    # No key travels in a URL.
    assert ask(broker, None, "GET", f"/v1/webhooks?key={key}")[0] == 401


def test_no_body_is_read_without_a_key(broker):
    make(broker)
    with broker.raw_http() as raw:
        raw.send(b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")
        status, headers, body = raw.response()
        assert status == 401 and headers["www-authenticate"] == "Bearer"
        assert b"asks for a key" in body
    consumer = make(broker, "consume")
    with broker.raw_http() as raw:
        raw.send(f"POST /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {consumer}\r\n"
                 "Content-Length: 900000\r\n\r\n".encode())
        status, _, body = raw.response()
        assert status == 403 and b"scope publish" in body


# -- scopes, over HTTP --

ROUTES = [  # what a key of the scopes may ask for; None: any key
    ("publish", "POST", "/v1/events", {"type": "t"}),
    ("publish", "PUT", "/v1/jobs/j1", {}),
    ("consume", "GET", "/v1/events", None),
    ("consume", "GET", "/v1/events/1", None),
    ("consume", "GET", "/v1/jobs/j1", None),
    ("consume", "GET", "/v1/jobs/j1:wait?timeout=0", None),
    ("consume manage", "GET", "/v1/subscriptions", None),
    ("consume manage", "GET", "/v1/subscriptions/s", None),
    ("manage", "POST", "/v1/subscriptions", {"name": "s"}),
    ("manage", "PATCH", "/v1/subscriptions/s", {}),
    ("manage", "POST", "/v1/subscriptions/s:pause", None),
    ("manage", "POST", "/v1/subscriptions/s:resume", None),
    ("manage", "POST", "/v1/subscriptions/s:seek", {"to": "new"}),
    ("manage", "DELETE", "/v1/subscriptions/none", None),
    ("manage", "GET", "/v1/sources", None),
    ("manage", "POST", "/v1/sources", {"name": "x"}),
    ("manage", "GET", "/v1/sources/x", None),
    ("manage", "PATCH", "/v1/sources/x", {}),
    ("manage", "POST", "/v1/sources/x:test", {}),
    ("manage", "DELETE", "/v1/sources/none", None),
    ("manage", "GET", "/v1/dead-letters?subscription=s", None),
    ("manage", "GET", "/v1/dead-letters/s/1", None),
    ("manage", "POST", "/v1/dead-letters:redrive", {"subscription": "s"}),
    ("manage", "POST", "/v1/dead-letters:purge", {"subscription": "s"}),
    ("manage", "GET", "/v1/replays", None),
    ("manage", "POST", "/v1/replays", {"subscription": "s", "from_seq": 1}),
    ("manage", "GET", "/v1/replays/1", None),
    ("manage", "POST", "/v1/replays/1:cancel", None),
    ("manage", "GET", "/v1/retention", None),
    ("manage", "PATCH", "/v1/retention", {}),
    ("manage", "GET", "/v1/webhooks", None),
    ("manage", "POST", "/v1/webhooks", {}),
    ("manage", "GET", "/v1beta/webhooks/none", None),
    ("manage", "POST", "/v1/webhooks/none:ping", None),
    ("manage", "GET", "/v1/webhooks/none/attempts", None),
    ("manage", "GET", "/v1/webhook-endpoints", None),
    ("manage", "GET", "/v1/webhook-keys", None),
    ("manage", "POST", "/v1/webhook-keys:rotate", None),
    ("admin", "GET", "/v1/keys", None),
    ("admin", "POST", "/v1/keys", {"name": "n", "scopes": ["publish"]}),
    ("admin", "GET", "/v1/keys/none", None),
    ("admin", "PATCH", "/v1/keys/none", {}),
    ("admin", "DELETE", "/v1/keys/none", None),
    ("admin", "GET", "/v1/projects", None),
    ("admin", "POST", "/v1/projects", {"name": "p"}),
    ("admin", "GET", "/v1/projects/none", None),
    ("admin", "DELETE", "/v1/projects/none", None),
    (None, "GET", "/v1/status", None),
    (None, "GET", "/v1/event-types", None),
]


def test_every_route_and_every_scope(broker):
    make(broker)
    broker.add_subscription("s")
    for scope in ["publish", "consume", "manage", "admin"]:
        key = make(broker, scope)
        for scopes, method, path, body in ROUTES:
            status, code, message = ask(broker, key, method, path, body)
            place = f"{scope}: {method} {path}: {status} {message}"
            if scope == "admin" or scopes is None or scope in scopes.split():
                assert status not in (401, 403), place
            else:
                assert (status, code) == (403, "permission_denied"), place
                assert "scope " + scopes.replace(" ", " or ") in message, place
                assert id_of(key) in message and key not in message


# -- globs, over HTTP --


def test_subscription_globs(broker):
    make(broker)
    for name in ["team.a", "team.b", "other"]:
        broker.add_subscription(name)
    hook = broker.add_webhook("https://example.com/x")["id"]
    key = make(broker, "manage", "consume", subscriptions=["team.*"])
    broker.publish()
    replay = broker.ok("POST", "/v1/replays", {"subscription": "other", "from_seq": 1})["id"]
    mine = broker.ok("POST", "/v1/replays", {"subscription": "team.a", "from_seq": 1})["id"]
    refused = [
        ("GET", "/v1/subscriptions/other", None),
        ("PATCH", "/v1/subscriptions/other", {}),
        ("DELETE", "/v1/subscriptions/other", None),
        ("POST", "/v1/subscriptions/other:pause", None),
        ("POST", "/v1/subscriptions", {"name": "others"}),
        ("GET", "/v1/dead-letters?subscription=other", None),
        ("GET", "/v1/dead-letters?subscription=%6fther", None),
        ("GET", "/v1/dead-letters/other/1", None),
        ("POST", "/v1/dead-letters:redrive", {"subscription": "other"}),
        ("POST", "/v1/dead-letters:purge", {"subscription": "other"}),
        ("POST", "/v1/replays", {"subscription": "other", "from_seq": 1}),
        ("GET", f"/v1/replays/{replay}", None),
        ("POST", f"/v1/replays/{replay}:cancel", None),
        ("GET", f"/v1/webhooks/{hook}", None),
        ("DELETE", f"/v1beta/webhooks/{hook}", None),
        ("GET", f"/v1/webhooks/{hook}/attempts", None),
        ("POST", "/v1/webhooks", {"uri": "https://example.com/y", "subscribed_events": ["*"]}),
        ("GET", "/v1/webhooks", None),
        ("GET", "/v1/webhook-keys", None),
        ("GET", "/v1/events", None),
        ("GET", "/v1/events/1", None),
        ("GET", "/v1/jobs/j", None),
        ("GET", "/v1/jobs/j:wait", None),
        ("PATCH", "/v1/retention", {}),
        ("GET", "/v1/sources", None),
    ]
    for method, path, body in refused:
        status, code, message = ask(broker, key, method, path, body)
        assert (status, code) == (403, "permission_denied"), (method, path, status, message)
        assert "limited to" in message
    allowed = [
        ("GET", "/v1/subscriptions/team.a", None),
        ("POST", "/v1/subscriptions", {"name": "team.c"}),
        ("GET", "/v1/dead-letters?subscription=team.a", None),
        ("POST", "/v1/replays", {"subscription": "team.b", "from_seq": 1}),
        ("GET", f"/v1/replays/{mine}", None),
        ("POST", "/v1/sources", {"name": "free"}),
    ]
    for method, path, body in allowed:
        assert ask(broker, key, method, path, body)[0] in (200, 201), (method, path)
    # What cannot be read as a name is the handler's to refuse.
    assert ask(broker, key, "POST", "/v1/replays", {"from_seq": 1})[0] == 400
    assert ask(broker, key, "POST", "/v1/subscriptions", [])[0] == 400
    # Lists show what is its own.
    admin, broker.key = broker.key, key
    names = [s["name"] for s in broker.ok("GET", "/v1/subscriptions")["subscriptions"]]
    assert names == ["team.a", "team.b", "team.c"]
    first = broker.ok("GET", "/v1/subscriptions?page_size=1")
    assert [s["name"] for s in first["subscriptions"]] == ["team.a"]
    assert {r["subscription"] for r in broker.ok("GET", "/v1/replays")["replays"]} == {"team.a", "team.b"}
    broker.key = admin
    hooks = make(broker, "manage", subscriptions=["webhook.*"])
    assert ask(broker, hooks, "GET", "/v1/webhooks")[0] == 200
    assert ask(broker, hooks, "GET", f"/v1/webhooks/{hook}")[0] == 200


def test_source_globs(broker):
    make(broker)
    broker.add_source("pay.a")
    broker.add_source("chat")
    key = make(broker, "manage", sources=["pay.*"])
    for method, path, body in [("GET", "/v1/sources/chat", None), ("DELETE", "/v1/sources/chat", None),
                               ("PATCH", "/v1/sources/chat", {}), ("POST", "/v1/sources/chat:test", {}),
                               ("POST", "/v1/sources", {"name": "chat2"}), ("GET", "/v1/sources", None)]:
        status, code, _ = ask(broker, key, method, path, body)
        assert (status, code) == (403, "permission_denied"), (method, path)
    assert ask(broker, key, "GET", "/v1/sources/pay.a")[0] == 200
    assert ask(broker, key, "POST", "/v1/sources", {"name": "pay.b"})[0] == 201
    assert ask(broker, key, "POST", "/v1/subscriptions", {"name": "any"})[0] == 201


# -- the life of a key --


def test_what_is_shown(broker):
    make(broker)
    when = in_future(3600)
    made = broker.ok("POST", "/v1/keys", {"name": "billing é", "scopes": ["publish", "consume"],
                                          "subscriptions": ["a.*"], "expire_time": when})
    key = made.pop("key")
    assert made["id"] == id_of(key) and made["expire_time"] == when and "last_used_day" not in made
    assert broker.ok("GET", f"/v1/keys/{made['id']}") == made
    assert [k["id"] for k in broker.ok("GET", "/v1/keys")["keys"]] == [id_of(broker.key), made["id"]]
    assert ask(broker, key, "GET", "/v1/status")[0] == 200
    used = broker.ok("GET", f"/v1/keys/{made['id']}")["last_used_day"]
    assert used[:10] in (in_future(0)[:10], in_future(-60)[:10]) and used.endswith("T00:00:00.000Z")
    changed = broker.ok("PATCH", f"/v1/keys/{made['id']}", {"name": "new", "expire_time": None})
    assert changed["name"] == "new" and "expire_time" not in changed
    for body, why in [({"expire_time": "2020-01-01T00:00:00Z"}, "future"), ({"scopes": ["admin"]}, "scopes"),
                      ({"name": ""}, "name"), ({"name": "x" * 129}, "name"), ({"name": None}, "name")]:
        status, answer = broker.api("PATCH", f"/v1/keys/{made['id']}", body)
        assert status == 400 and why in answer["error"]["message"], body
    page = broker.ok("GET", "/v1/keys?page_size=1")
    rest = broker.ok("GET", f"/v1/keys?page_token={page['next_page_token']}")
    assert [k["id"] for k in page["keys"] + rest["keys"]] == [id_of(broker.key), made["id"]]
    assert broker.api("GET", "/v1/keys?page_token=k1-nobody")[0] == 400
    broker.restart()
    assert broker.ok("GET", f"/v1/keys/{made['id']}")["name"] == "new"
    assert ask(broker, key, "GET", "/v1/status")[0] == 200
    # No answer, no log and no file has the secret of a key.
    for text in (key, broker.key):
        secret = text.split("_", 2)[2]
        assert secret not in broker.log()
        for name in broker.data.rglob("*"):
            if name.is_file():
                assert secret.encode() not in name.read_bytes(), name


def test_the_last_admin_stays(broker):
    admin = make(broker)
    worker = make(broker, "consume")
    status, code, message = ask(broker, admin, "DELETE", f"/v1/keys/{id_of(admin)}")
    assert (status, code) == (400, "invalid_request") and "last one of the project default" in message
    assert ask(broker, admin, "DELETE", f"/v1/keys/{id_of(admin)}?force=maybe")[0] == 400
    assert ask(broker, admin, "DELETE", f"/v1/keys/{id_of(admin)}?force=yes")[0] == 200
    assert ask(broker, admin, "GET", "/v1/status") == UNKNOWN
    assert ask(broker, worker, "GET", "/v1/status")[0] == 200
    # Locked out: a key is made where the data is.
    busy = run_make_key(broker)
    assert busy.returncode == 1 and busy.stdout == "" and "in use by the broker" in busy.stderr
    broker.stop()
    made = run_make_key(broker)
    assert made.returncode == 0, made.stderr
    assert KEY.match(made.stdout.strip()) and made.stdout.strip() not in made.stderr
    broker.start()
    broker.key = made.stdout.strip()
    assert [k["scopes"] for k in broker.ok("GET", "/v1/keys")["keys"]] == [["consume"], ["admin"]]


def run_make_key(broker, name="rescue"):
    return subprocess.run([str(BUILD / "bellhopd"), "--data", str(broker.data), "--make-key", name],
                          env=broker_env(), capture_output=True, text=True, timeout=DEADLINE_S)


def test_the_broker_does_not_fall_open(broker):
    admin = make(broker)
    assert ask(broker, admin, "DELETE", f"/v1/keys/{id_of(admin)}?force=yes")[0] == 200
    broker.key = None
    assert broker.api("GET", "/v1/status")[0] == 401
    broker.restart()
    assert broker.api("GET", "/v1/status")[0] == 200


def test_keys_expire(broker, connect):
    make(broker)
    broker.add_subscription("s")
    key = make(broker, "consume", "publish", expire_time=in_future(2))
    client = connect(broker, key=key)
    client.subscribe("s")
    wait_for(lambda: ask(broker, key, "GET", "/v1/status") ==
             (401, "unauthenticated", "the key has expired: ask for a new one"), what="its end")
    client.wait_closed()
    error = client.as_err(client.expect(ERR))
    assert (error.word, error.fatal) == ("unauthenticated", True) and "expired" in error.message
    with pytest.raises(ProtocolError) as late:
        connect(broker, key=key)
    assert "expired" in late.value.args[0].message


# -- exposure --


def test_an_exposed_broker_wants_keys(brokers, tmp_path):
    base = [str(BUILD / "bellhopd"), "--data", str(tmp_path / "d"), "--drain-ms", "0"]
    for flags in [["--http", "0.0.0.0:0", "--workers", "127.0.0.1:0"],
                  ["--http", "127.0.0.1:0", "--workers", "[::]:0"]]:
        done = subprocess.run([*base, *flags], env=broker_env(), capture_output=True, text=True,
                              timeout=DEADLINE_S)
        assert done.returncode == 1
        assert "there is no key" in done.stderr and "--make-key" in done.stderr
    for more in (["--insecure", "yes"], "key"):
        if more == "key":
            made = subprocess.run([*base, "--make-key", "a"], env=broker_env(), capture_output=True,
                                  text=True, timeout=DEADLINE_S)
            assert made.returncode == 0
            more = []
        running = subprocess.Popen([*base, "--http", "0.0.0.0:0", "--workers", "127.0.0.1:0", *more],
                                   env=broker_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = [running.stdout.readline() for _ in range(3)]
        running.terminate()
        _, log = running.communicate(timeout=DEADLINE_S)
        assert lines[2] == "bellhopd: ready\n" and running.returncode == 0, log
        assert ("anyone who reaches it" in log) == bool(more)


# -- the worker protocol --


def challenge(broker):
    client = Client(broker.workers_port, hello=False)
    frame = client.request(HELLO, {"min": 1, "max": 1})
    assert frame[0] == CHALLENGE and frame[2] == "hmac-sha256" and len(frame[3]) == 32
    return client, frame[3]


def refused(client, *auth):
    frame = client.request(*auth)
    error = client.as_err(frame)
    assert (error.word, error.fatal) == ("unauthenticated", True)
    client.wait_closed()
    client.close()
    return error.message


def test_workers_prove_their_key(broker, connect):
    key = make(broker, "admin")
    client = connect(broker, key=key)
    assert client.welcome["auth"] == "hmac-sha256"
    client.subscribe("s", create={})
    client.publish({"type": "a"})
    client.ack([client.take_one()])
    assert client.request(AUTH, "none")[0] == OK


def test_proofs_that_are_none(broker):
    key = make(broker, "admin")
    seen, old_nonce = challenge(broker)
    old = prove(key, old_nonce)
    assert seen.request(AUTH, *old)[0] != ERR
    seen.close()
    unknown = UNKNOWN[2]
    nobody = "bh_" + "z" * 12 + "_" + "A" * 43
    for make_auth in [
            lambda nonce: old,                                             # replayed
            lambda nonce: prove(key, old_nonce),                           # of another challenge
            lambda nonce: (*prove(key, nonce)[:3], bytes(32)),             # another nonce of ours
            lambda nonce: (*prove(key, nonce)[:3], b"short"),
            lambda nonce: prove(key, nonce)[:3],                           # none
            lambda nonce: prove(key, nonce)[:2],
            lambda nonce: prove(nobody, nonce),
            lambda nonce: ("hmac-sha256", id_of(nobody), *prove(key, nonce)[2:]),
            lambda nonce: ("hmac-sha256", id_of(key), key.encode(), bytes(32)),  # the key itself
            lambda nonce: ("hmac-sha256", id_of(key), bytes(32), bytes(32)),
    ]:
        client, nonce = challenge(broker)
        assert refused(client, AUTH, *make_auth(nonce)) == unknown
    client, nonce = challenge(broker)
    assert "mechanism" in refused(client, AUTH, "none", *prove(key, nonce)[1:])
    # Without AUTH nothing goes, and the nonce is never the same.
    for frame in [(SUBSCRIBE, 1, "s", 1, 1), (PING,), (WAIT, "j"), (HELLO, {})]:
        client, nonce = challenge(broker)
        assert nonce != old_nonce
        assert "AUTH" in refused(client, *frame)
    client = Client(broker.workers_port, hello=False)
    assert client.as_err(client.request(AUTH, *old)).word == "out_of_order"
    client.close()


def test_a_frame_before_auth_is_small(broker):
    make(broker)
    client, _ = challenge(broker)
    client.send_bytes(encode(AUTH, 1, "x" * 5000))
    assert client.as_err(client.expect(ERR)).word == "frame_too_big"
    client.wait_closed()
    client.close()


@pytest.mark.waits
def test_the_handshake_has_five_seconds(broker):
    make(broker)
    client, _ = challenge(broker)
    client.wait_closed()
    assert client.as_err(client.expect(ERR)).word == "timeout"
    client.close()


def denied(client, *frame):
    error = client.error_of(*frame)
    assert (error.word, error.fatal) == ("permission_denied", False)
    return error.message


def test_scopes_of_workers(broker, connect):
    make(broker)
    broker.add_subscription("s")
    publisher = connect(broker, key=make(broker, "publish"))
    publisher.publish({"type": "a"})
    assert "scope consume" in denied(publisher, SUBSCRIBE, 1, "s", 1, 1000)
    assert "scope consume" in denied(publisher, WAIT, "j")
    assert "scope manage" in denied(publisher, REPLAY, "s", {"from_seq": 1})
    assert "scope manage" in denied(publisher, REDRIVE, "s", {})
    consumer = connect(broker, key=make(broker, "consume"))
    assert "scope publish" in denied(consumer, 9, [["t", "", "", "", "", 0, 0, b""]])
    assert "scope manage" in denied(consumer, REPLAY, "s", {"from_seq": 1})
    assert "scope manage" in denied(consumer, SUBSCRIBE, 1, "fresh", 1, 1000, {"create": "{}"})
    assert broker.api("GET", "/v1/subscriptions/fresh")[0] == 404
    consumer.subscribe("s", create={})
    consumer.ack([consumer.take_one()])
    manager = connect(broker, key=make(broker, "manage", "consume"))
    manager.subscribe("fresh", create={})
    assert manager.replay("s", from_seq=1) > 0
    assert manager.redrive("s") > 0


def test_globs_of_workers(broker, connect):
    make(broker)
    for name in ["team.a", "other"]:
        broker.add_subscription(name)
    client = connect(broker, key=make(broker, "consume", "manage", subscriptions=["team.*"]))
    for frame in [(SUBSCRIBE, 1, "other", 1, 1000), (SUBSCRIBE, 1, "x", 1, 1000, {"create": "{}"}),
                  (REPLAY, "other", {"from_seq": 1}), (REDRIVE, "other", {}), (WAIT, "j")]:
        assert "limited to" in denied(client, *frame), frame
    client.subscribe("team.a")
    client.subscribe("team.b", sub=2, create={})
    limited = connect(broker, key=make(broker, "consume", sources=["x"]))
    assert "limited to" in denied(limited, WAIT, "j")


# -- revoked --


def test_a_revoked_key_is_out_at_once(broker, connect):
    make(broker)
    broker.add_subscription("s")
    key, other = make(broker, "consume", "publish"), make(broker, "consume")
    workers = [connect(broker, key=key, resume_ms=60000), connect(broker, key=key)]
    bystander = connect(broker, key=other)
    for worker in workers:
        worker.subscribe("s", window=1)
    broker.publish("a")
    holder = wait_for(lambda: next((w for w in workers if holds(w)), None), what="the delivery")
    broker.ok("PUT", "/v1/jobs/j", {})
    answers = []
    threads = [threading.Thread(target=lambda path=path: answers.append(ask(broker_copy(broker), key, "GET", path)))
               for path in ("/v1/events?wait_ms=60000&page_token=" + token_at_end(broker), "/v1/jobs/j:wait?timeout=10m")]
    for thread in threads:
        thread.start()
    wait_for(lambda: held(broker) >= 2, what="the held requests")
    broker.ok("DELETE", f"/v1/keys/{id_of(key)}")
    for worker in workers:
        worker.wait_closed()
        error = worker.as_err(worker.expect(ERR))
        assert (error.word, error.message, error.fatal) == ("unauthenticated", "the key was revoked", True)
    for thread in threads:
        thread.join(DEADLINE_S)
    assert answers == [UNKNOWN, UNKNOWN]
    assert ask(broker, key, "GET", "/v1/status") == UNKNOWN
    with pytest.raises(ProtocolError):
        connect(broker, key=key)
    bystander.ping()
    # What it held is somebody else's, although it had asked to resume.
    assert holder is not None
    bystander.subscribe("s")
    bystander.ack([bystander.take_one()])
    broker.restart()
    assert ask(broker, key, "GET", "/v1/status") == UNKNOWN
    assert broker.api("GET", f"/v1/keys/{id_of(key)}")[0] == 404


def broker_copy(broker):
    """Another view of the same broker, for a thread."""
    return copy.copy(broker)


def holds(worker):
    worker.ping()
    return len(worker.items) > 0


def token_at_end(broker):
    page = broker.ok("GET", "/v1/events?page_size=1000&wait_ms=0")
    return page["next_page_token"]


def held(broker):
    """Connections of HTTP that are open beside the one that asks."""
    return broker.ok("GET", "/v1/status")["connections"]["http"] - 1


def test_the_first_key_ends_what_came_without(broker, connect):
    broker.add_subscription("s")
    client = connect(broker)
    client.subscribe("s")
    make(broker)
    client.wait_closed()
    assert client.as_err(client.expect(ERR)).word == "unauthenticated"


# -- the command line, and libbellhop behind it --


def test_the_command_line(broker):
    first = broker.run_cli("key", "create", "ops", "--scope", "admin")
    assert first.returncode == 0, first.stderr
    broker.key = re.search(r"bh_\S+", first.stdout).group()
    assert KEY.match(broker.key)
    none = broker.run_cli("status", env={"BELLHOP_KEY": ""})
    assert none.returncode == 1 and "asks for a key" in none.stderr and "export BELLHOP_KEY=" in none.stderr
    made = broker.run_cli("key", "create", "billing", "--scope", "consume", "--scope", "publish", "--subscription",
                          "billing.*", "--expire", "90d", "--json")
    key = json.loads(made.stdout)
    listed = broker.run_cli("key", "ls").stdout
    assert key["id"] in listed and "consume" in listed and "billing.*" in listed and key["key"] not in listed
    # libbellhop takes the key from the URL that `work` makes.
    broker.add_subscription("billing.x")
    broker.publish("a")
    worked = broker.run_cli("work", "billing.x", "--count", "1", "--", "true", env={"BELLHOP_KEY": key["key"]})
    assert worked.returncode == 0, worked.stderr
    wrong = broker.run_cli("work", "other", "--count", "1", "--", "true", env={"BELLHOP_KEY": key["key"]})
    assert wrong.returncode == 1 and "permission_denied" in wrong.stderr
    workers = {"BELLHOP_WORKERS": f"127.0.0.1:{broker.workers_port}"}
    for bad, words in [("", "asks for a key"), ("nonsense", "bh_ID_SECRET"), (key["key"][:-2] + "xx", "unauthenticated")]:
        done = broker.run_cli("work", "billing.x", "--count", "1", "--", "true", env={**workers, "BELLHOP_KEY": bad})
        assert done.returncode != 0 and words in done.stderr, (bad, done.stderr)
        assert not bad or bad not in done.stderr or bad == "nonsense"
    asked = broker.run_cli("key", "revoke", key["id"])
    assert asked.returncode == 64 and "--yes" in asked.stderr
    # Who gives the whole key is told its id; it is not sent, nor shown again.
    whole = broker.run_cli("key", "revoke", key["key"], "--yes", env={"BELLHOP_URL": "http://127.0.0.1:1"})
    assert whole.returncode == 64 and key["id"] in whole.stderr and key["key"][15:] not in whole.stderr
    last = broker.run_cli("key", "revoke", id_of(broker.key), "--yes")
    assert last.returncode == 1 and "last one" in last.stderr
    gone = broker.run_cli("key", "revoke", key["id"], "--yes")
    assert gone.returncode == 0 and gone.stdout == f"revoked key {key['id']}\n"
    assert key["id"] not in broker.run_cli("key", "ls").stdout
    assert broker.run_cli("key", "create", "x").returncode == 64
