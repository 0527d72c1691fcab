"""Sources of several projects: the same names, other secrets, other events, and nothing that one
project could learn of another one's (docs/http-api.md)."""

import hmac
import http.client
import json
import threading

import pytest
from harness import DEADLINE_S, LOCAL, make_secret, signed_headers, wait_for
from tenants import Tenant, expect_unknown, operator, tenants
from test_jwks import BODY, KeyServer, Signer, wait_known


@pytest.fixture
def three(broker):
    """The operator and two tenants, each with a source "src" whose secret is its own."""
    all = [operator(broker), *tenants(broker, "red", "blue")]
    for tenant in all:
        tenant.secret = make_secret(tenant.project[0])
        tenant.made = tenant.add_source("src", tenant.secret)
    return all


def body_of(tenant):
    return {"type": f"{tenant.project}.done", "data": {"id": "x"}}


def counters(tenant):
    source = tenant.ok("GET", "/v1/sources/src")
    return source["accepted"], source["duplicates"], source["refused"]


# -- who verifies, and whose events they are --


def test_each_verifies_with_its_own_secret_only(three, connect):
    readers = []
    for tenant in three:
        tenant.add_subscription()
        readers.append(connect(tenant, key=tenant.key))
        readers[-1].subscribe()
    for door in three:
        for signer in three:
            status, answer = door.take("src", signer.secret, body_of(door))
            assert status == (200 if door is signer else 401), (door.project, signer.project)
            assert door is signer or answer["error"]["code"] == "signature_mismatch"
    for tenant, reader in zip(three, readers):
        assert tenant.types() == [f"{tenant.project}.done"]
        assert [e["source"] for e in tenant.events()] == ["src"]
        assert counters(tenant) == (1, 0, 2)
        assert reader.take_one().type == f"{tenant.project}.done"
        reader.settle_down()
        assert not reader.items
        assert tenant.subscription()["leased"] == 1


def test_where_a_source_is(three):
    for tenant in three:
        path = "/in/" + tenant.place("src")
        for shown in (tenant.made, tenant.ok("GET", "/v1/sources/src"),
                      tenant.ok("PATCH", "/v1/sources/src", {"options": {"tolerance_s": 60}}),
                      *tenant.ok("GET", "/v1/sources")["sources"]):
            assert shown["url_path"] == path
            assert shown.get("project") == (None if tenant.project == "default"
                                            else tenant.project)
    op, red, _ = three
    for tenant in (op, red):
        for words in (("source", "show", "src"), ("source", "ls"),
                      ("source", "add", "two", "--scheme", "github", "--secret", "s3cret")):
            shown = tenant.run_cli(*words).stdout
            assert ("/in/red/" in shown) == (tenant is red), shown
            assert "/in/" in shown


def test_the_cli_sends_to_a_source_of_a_project(three):
    _, red, _ = three
    done = red.run_cli("send", "red/src", json.dumps(body_of(red)),
                       env={"BELLHOP_SECRET": red.secret})
    assert done.returncode == 0 and done.stdout.startswith("seq "), done
    assert red.types() == ["red.done"]
    done = red.run_cli("send", "red/src/x", "{}", env={"BELLHOP_SECRET": red.secret})
    assert done.returncode == 64 and "'src/x' is no name of a source" in done.stderr


def test_the_same_id_in_two_projects_is_no_repeat(broker):
    """Not even with the same secret and the same bytes; also where the body tells a repeat."""
    all = [operator(broker), *tenants(broker, "red", "blue")]
    secret, body = make_secret(), {"type": "t"}
    by_body = {"x-signature": hmac.new(b"s3cret", b"same", "sha256").hexdigest()}
    seqs = []
    for tenant in all:
        tenant.add_source("src", secret)
        tenant.ok("POST", "/v1/sources", {"name": "idless", "scheme": "hmac", "secrets": ["s3cret"],
                                          "options": {"signature_header": "x-signature"}})
        status, answer = tenant.take("src", secret, body, id="msg_1")
        assert status == 200 and "duplicate" not in answer
        seqs.append(answer["seq"])
        status, _, text = tenant.request("POST", "/in/" + tenant.place("idless"), b"same", by_body)
        assert (status, list(json.loads(text))) == (200, ["seq"])
    for tenant, seq in zip(all, seqs):
        assert tenant.take("src", secret, body, id="msg_1") == (
            200, {"seq": seq, "duplicate": True})
        assert counters(tenant) == (1, 1, 0)
        text = tenant.request("POST", "/in/" + tenant.place("idless"), b"same", by_body)[2]
        assert json.loads(text) == {"seq": seq + 1, "duplicate": True}
        assert len(tenant.events()) == 2
    # The same after a restart, which reads the ids back.
    broker.restart()
    for tenant, seq in zip(all, seqs):
        assert tenant.take("src", secret, body, id="msg_1") == (
            200, {"seq": seq, "duplicate": True})


# -- what there is not --


def test_an_unknown_project_is_an_unknown_source(three):
    red, blue = three[1:]
    red.add_source("mine")
    for other in ("nosuch/src", "red/other", "blue/mine", "default/src", "red/", "red", "/src",
                  "red//src", "red/src/", "red/src/x", "red/red/src", "RED/src", "re%64/src",
                  "red%2Fsrc", "red/sr", "re/src", "2/src", "d" * 64 + "/src", ""):
        for method, body in (("POST", b"{}"), ("POST", b""), ("OPTIONS", None), ("GET", None)):
            headers = signed_headers(red.secret, body or b"")
            expect_unknown(blue, other, "/in/{}", method, body)
            status, _, text = blue.request(method, "/in/" + other, body, headers)
            assert (status, json.loads(text)["error"]["code"]) == (404, "not_found"), other
    for tenant in three:
        assert tenant.events() == [] and counters(tenant)[2] == 0


def test_the_source_of_another_project_is_not_there(three):
    _, red, blue = three
    secret = make_secret("m")
    red.add_source("mine", secret)
    before = red.ok("GET", "/v1/sources/mine")
    changes = json.dumps({"secrets": [make_secret("x")]})
    test = json.dumps({"body": "{}", "headers": signed_headers(secret, b"{}")})
    for method, path, body in (("GET", "/v1/sources/{}", None),
                               ("PATCH", "/v1/sources/{}", changes),
                               ("POST", "/v1/sources/{}:test", test),
                               ("DELETE", "/v1/sources/{}", None)):
        for other in (three[0], blue):
            expect_unknown(other, "mine", path, method, body)
    assert red.ok("GET", "/v1/sources/mine") == before
    assert red.take("mine", secret, {"type": "t"})[0] == 200
    assert red.ok("POST", "/v1/sources/mine:test", json.loads(test))["verified"]
    # A name that another project has is free.
    assert blue.add_source("mine")["url_path"] == "/in/blue/mine"
    blue.ok("DELETE", "/v1/sources/mine")
    assert red.take("mine", secret, {"type": "t"})[0] == 200
    for command in ("show", "test", "rm"):
        done = blue.run_cli("source", command, "mine")
        assert done.returncode == 1 and "there is no source" in done.stderr, done


def test_lists_and_their_pages(three):
    _, red, blue = three
    for n in range(5):
        red.add_source(f"a{n}")
        blue.add_source(f"b{n}")

    def names(tenant, token=""):
        page = tenant.ok("GET", f"/v1/sources?page_size=2{token}")
        return [s["name"] for s in page["sources"]], page.get("next_page_token")

    for tenant, letter in ((red, "a"), (blue, "b")):
        found, (page, token) = [], names(tenant)
        while True:
            found += page
            if token is None:
                break
            page, token = names(tenant, f"&page_token={token}")
        assert found == [f"{letter}{n}" for n in range(5)] + ["src"]
    # Another project's token is a place in the alphabet, and nothing else.
    assert names(blue, f"&page_token={names(red)[1]}")[0] == ["b0", "b1"]


def test_there_are_ten_thousand_sources_at_most(broker):
    """Of all projects together, those that are being stored too."""
    red, blue = tenants(broker, "red", "blue")

    def requests(tenant, names):
        for name in names:
            body = json.dumps({"name": name, "scheme": "none"})
            yield (f"POST /v1/sources HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {tenant.key}\r\n"
                   f"Content-Length: {len(body)}\r\n\r\n{body}").encode()

    def make(tenant, letter, count):
        """On many connections: they are stored together."""
        statuses = []
        raws = [broker.raw_http() for _ in range(40)]
        try:
            for begin in range(0, count, 1020):
                names = [f"{letter}{n:05}" for n in range(begin, min(begin + 1020, count))]
                shares = [names[k::len(raws)] for k in range(len(raws))]
                for raw, share in zip(raws, shares):
                    raw.send(b"".join(requests(tenant, share)))
                statuses += [raw.response()[0] for raw, share in zip(raws, shares) for _ in share]
        finally:
            for raw in raws:
                raw.close()
        return statuses

    assert make(red, "r", 9000) == [201] * 9000
    statuses = make(blue, "b", 1020)
    assert (statuses.count(201), statuses.count(429)) == (1000, 20)
    status, code, message = blue.refused("POST", "/v1/sources", {"name": "more", "scheme": "none"})
    assert (status, code) == (429, "limit_exceeded") and "there are 10000 sources" in message
    assert "9" not in message
    blue.ok("PATCH", "/v1/sources/b00000", {"options": {"dedupe_ms": 1000}})
    red.ok("DELETE", "/v1/sources/r00000")
    blue.ok("POST", "/v1/sources", {"name": "more", "scheme": "none"})


def test_a_project_goes_when_its_sources_are_gone(three):
    _, red, blue = three
    red.take("src", red.secret, {"type": "t"})
    status, answer = red.broker.api("DELETE", "/v1/projects/red")
    assert status == 409 and "1 source" in answer["error"]["message"], answer
    red.ok("DELETE", "/v1/sources/src")
    for key in red.broker.ok("GET", "/v1/keys?project=red")["keys"]:
        red.broker.ok("DELETE", f"/v1/keys/{key['id']}")
    red.broker.ok("DELETE", "/v1/projects/red")
    assert red.take("src", red.secret, {"type": "t"})[0] == 404
    # One of the same name is another one: it has nothing of the old one's.
    again, = tenants(red.broker, "red")
    assert again.ok("GET", "/v1/sources") == {"sources": []} and again.events() == []
    assert again.take("src", red.secret, {"type": "t"})[0] == 404
    again.add_source("src", red.secret)
    assert again.take("src", red.secret, {"type": "again"}, id="msg_1")[0] == 200
    assert again.types() == ["again"]
    assert blue.take("src", blue.secret, {"type": "t"})[0] == 200


# -- restarts --


def test_after_a_kill_each_has_its_own(three):
    """Names that look like numbers of projects are stored beside them."""
    op, red, blue = three
    for tenant in three:
        for name in ("2", "3", "1"):
            tenant.add_source(name, tenant.secret)
    red.ok("DELETE", "/v1/sources/3")
    blue.ok("PATCH", "/v1/sources/2", {"secrets": [make_secret("z")]})
    broker = red.broker
    broker.kill9()
    broker.start()
    assert [s["name"] for s in op.ok("GET", "/v1/sources")["sources"]] == ["1", "2", "3", "src"]
    assert [s["name"] for s in red.ok("GET", "/v1/sources")["sources"]] == ["1", "2", "src"]
    for door in three:
        for signer in three:
            want = 200 if door is signer else 401
            assert door.take("1", signer.secret, {"type": "t"})[0] == want
    assert red.take("3", red.secret, {})[0] == 404
    assert blue.take("2", blue.secret, {"type": "t"})[0] == 401
    assert blue.take("2", make_secret("z"), {"type": "t"})[0] == 200


def producer(tenant, port, stop, said):
    """Webhooks with the same ids as the other projects' until the broker is gone; `said`: the ids
    that were answered 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    n = 0
    try:
        while not stop.is_set():
            body = json.dumps({"type": tenant.project, "data": {"id": n}}).encode()
            connection.request("POST", "/in/" + tenant.place("src"), body,
                               signed_headers(tenant.secret, body, f"msg_{n}"))
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert response.status == 200 and "duplicate" not in answer, answer
            said.append((f"msg_{n}", answer["seq"]))
            n += 1
    except (OSError, http.client.HTTPException, ValueError):
        pass
    finally:
        connection.close()


def test_a_kill_in_the_middle(three):
    broker = three[0].broker
    stop = threading.Event()
    said = {tenant.project: [] for tenant in three}
    threads = [threading.Thread(target=producer,
                                args=(tenant, broker.http_port, stop, said[tenant.project]))
               for tenant in three]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(len(each) >= 50 for each in said.values()), what="the load")
    broker.kill9()
    stop.set()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
    broker.start()
    for tenant in three:
        mine = said[tenant.project]
        events = {e["id"]: e for e in tenant.events()}
        assert {e["type"] for e in events.values()} == {tenant.project}
        assert all(events[id]["seq"] == seq for id, seq in mine)
        assert len(events) <= len(mine) + 1, "one may be unknown"
        # What was taken is a repeat in its own project, and there only.
        body = json.dumps({"type": tenant.project, "data": {"id": 0}}).encode()
        assert tenant.take("src", tenant.secret, body, id="msg_0") == (
            200, {"seq": mine[0][1], "duplicate": True})


# -- public keys --


def test_two_projects_share_the_fetches_of_a_key_server(brokers):
    """A key set is as public for one as for the other: it is fetched once, and once a minute for
    keys that it does not have, whatever is sent to whom, or is made anew."""
    server = KeyServer()
    try:
        broker = brokers(*LOCAL)
        red, blue = tenants(broker, "red", "blue")
        signer, stranger = Signer("v1a"), Signer("v1a", kid="other")
        server.serve(signer.jwk)
        source = {"name": "src", "scheme": "gemini",
                  "options": {"jwks_url": server.url, "jwks_allow_http": True}}
        for tenant in (red, blue):
            tenant.ok("POST", "/v1/sources", source)
            wait_known(tenant)

        def post(tenant, headers):
            status, _, text = tenant.request("POST", "/in/" + tenant.place("src"), BODY.encode(),
                                             headers)
            return status, json.loads(text)

        for tenant in (red, blue):
            assert post(tenant, signer.sign())[0] == 200
        assert len(server.requests) == 1
        for n in range(3):
            for tenant in (red, blue):
                assert post(tenant, stranger.sign(id=f"msg_{n}"))[0] in (401, 503)
            for method, path, body in (("DELETE", "/v1/sources/src", None),
                                       ("POST", "/v1/sources", source)):
                for tenant in (red, blue):
                    tenant.ok(method, path, body)
        wait_known(red)
        assert len(server.requests) == 1, "the first fetch was less than a minute ago"
        assert post(red, signer.sign(id="msg_last"))[0] == 200
    finally:
        server.close()


def test_a_tenant_is_the_broker_with_another_key(broker):
    """What the tests above rest on."""
    red, = tenants(broker, "red")
    assert isinstance(red, Tenant) and red.key != broker.key
    assert red.ok("GET", "/v1/status")["project"] == "red"
    broker.restart()
    assert red.ok("GET", "/v1/status")["project"] == "red"
