"""Webhooks of several projects: an event reaches the endpoints of its own project and no other,
registered or brought along, also over a restart; and another project's webhook is not there."""

import http.server
import json
import socket
import threading

import pytest
from harness import LOCAL, make_secret, verify, wait_for
from receiver import HOLD
from tenants import expect_unknown, operator, tenants

FAST = (*LOCAL, "--webhook-backoff-min", "50ms", "--webhook-backoff-max", "200ms")


@pytest.fixture
def broker(brokers):
    return brokers(*FAST)


@pytest.fixture
def three(broker):
    return [operator(broker), *tenants(broker, "red", "blue")]


def config(*uris, **more):
    return {"webhook_config": {"uris": list(uris), **more}}


def whose(receiver, path):
    """What the bodies at this path say whose they are."""
    return [r.json()["data"]["of"] for r in receiver.requests(path)]


def ids(receiver, path):
    """Of the events that came here: what was under way at the end of a broker comes again."""
    return {r.id for r in receiver.requests(path)}


def publish(tenant, type="t", **fields):
    return tenant.publish(type, data={"of": tenant.project}, **fields)


# -- registered ones --


def test_an_event_goes_to_its_own_projects_webhooks(three, receiver):
    """Every webhook wants every type; the same event types are published in each project."""
    broker = three[0].broker
    for tenant in three:
        tenant.hook = tenant.add_webhook(receiver.url(f"/{tenant.project}"))
        tenant.add_source("src", make_secret(tenant.project[0]))
    for round_number in range(3):
        for tenant in three:
            publish(tenant, "batch.succeeded")
            status, _ = tenant.take("src", make_secret(tenant.project[0]), {
                "type": "batch.succeeded", "data": {"of": tenant.project}})
            assert status == 200
        for tenant in three:
            path, count = f"/{tenant.project}", 2 * (round_number + 1)
            wait_for(lambda p=path, n=count: len(ids(receiver, p)) == n,
                     what=f"{count} events at {path}")
            for request in receiver.requests(path):
                assert verify(tenant.hook["new_signing_secret"], request.headers, request.body)
            assert set(whose(receiver, path)) == {tenant.project}
        if round_number == 0:
            broker.restart()
        elif round_number == 1:
            broker.kill9()
            broker.start()


def test_what_waits_at_a_kill_is_delivered_to_its_own(three, receiver):
    broker = three[0].broker
    for tenant in three:
        receiver.script(f"/{tenant.project}", HOLD)
        receiver.script(f"/dynamic/{tenant.project}", HOLD)
        tenant.hook = tenant.add_webhook(receiver.url(f"/{tenant.project}"))
    for n in range(3):
        for tenant in three:
            publish(tenant, subject=f"{n}")
            publish(tenant, subject=f"{n}", **config(receiver.url(f"/dynamic/{tenant.project}"),
                                                     receiver.url(f"/second/{tenant.project}")))
    for tenant in three:
        receiver.wait(1, f"/{tenant.project}")
        receiver.wait(1, f"/dynamic/{tenant.project}")
    broker.kill9()
    for tenant in three:
        receiver.script(f"/{tenant.project}", 200)
        receiver.script(f"/dynamic/{tenant.project}", 200)
    broker.start()
    for tenant in three:
        for place in ("", "/dynamic", "/second"):
            path = f"{place}/{tenant.project}"
            wait_for(lambda p=path: len({r.id for r in receiver.requests(p)
                                         if r.answer.how == "whole"}) == 3, what=f"all at {path}")
            assert set(whose(receiver, path)) == {tenant.project}


def test_the_webhook_of_another_project_is_not_there(three, receiver):
    op, red, blue = three
    hook = red.add_webhook(receiver.url("/red"))
    seq = publish(red)
    receiver.wait(1, "/red")
    red.wait_attempts(hook["id"], lambda found: len(found) == 1)
    red.wait_webhook(hook["id"], lambda w: w["stats"]["in_flight"] == 0)
    before = red.webhook(hook["id"])
    none = "0" * 36
    routes = [("GET", "", None), ("PATCH", "", {"state": "disabled"}), ("PATCH", "", {}),
              ("POST", ":ping", None), ("POST", ":rotateSigningSecret", None),
              ("POST", "/rotate_secret", None), ("POST", ":pause", None), ("POST", ":resume", None),
              ("POST", ":resend", {"seq": seq}),
              ("POST", ":recover", {"since": "2020-01-01T00:00:00Z"}), ("GET", "/attempts", None),
              ("DELETE", "", None)]
    for other in (op, blue):
        for version in ("v1", "v1beta"):
            for method, verb, body in routes:
                data = None if body is None else json.dumps(body)
                expect_unknown(other, hook["id"], f"/{version}/webhooks/{{}}{verb}", method, data,
                               name=none)
        assert other.ok("GET", "/v1/webhooks") == {"webhooks": []}
        done = other.run_cli("webhook", "rm", hook["id"], "--yes")
        assert done.returncode == 1 and "there is no webhook" in done.stderr, done
        # Nor is what it is made of.
        sub = f"webhook.{hook['id']}"
        assert other.api("GET", f"/v1/subscriptions/{sub}")[0] == 404
        assert other.api("POST", "/v1/replays", {"subscription": sub, "from_seq": 1})[0] == 404
    assert red.webhook(hook["id"]) == before
    assert len(red.attempts(hook["id"])) == 1 and receiver.count() == 1


def test_an_event_of_another_project_cannot_be_resent(three, receiver):
    _, red, blue = three
    hook = red.add_webhook(receiver.url("/red"))
    seq = publish(blue)
    for wrong in (seq, 12345):
        status, answer = red.api("POST", f"/v1/webhooks/{hook['id']}:resend", {"seq": wrong})
        assert (status, answer["error"]["message"]) == (
            404, f"the journal has no event with seq {wrong}")
    mine = publish(red)
    red.ok("POST", f"/v1/webhooks/{hook['id']}:resend", {"seq": mine})
    red.ok("POST", f"/v1/webhooks/{hook['id']}:recover", {"since": "2020-01-01T00:00:00Z"})
    receiver.wait(2, "/red")
    assert whose(receiver, "/red") == ["red", "red"]


def test_lists_and_their_pages(three, receiver):
    """Made in turns, so that the order of creation runs through all projects."""
    made = {tenant.project: [] for tenant in three}
    for _ in range(3):
        for tenant in three:
            hook = tenant.add_webhook(receiver.url(f"/{tenant.project}"), "x")
            made[tenant.project].append(hook["id"])

    def page(tenant, token=""):
        answer = tenant.ok("GET", f"/v1/webhooks?page_size=2{token}")
        return [w["id"] for w in answer["webhooks"]], answer.get("next_page_token")

    for tenant in three:
        first, token = page(tenant)
        second, end = page(tenant, f"&page_token={token}")
        assert end is None
        # Two of the same millisecond are in order of their ids.
        assert sorted(first + second) == sorted(made[tenant.project])
    token = page(three[0])[1]
    assert set(page(three[2], f"&page_token={token}")[0]) <= set(made["blue"])
    three[0].broker.restart()
    for tenant in three:
        assert {w["id"] for w in tenant.ok("GET", "/v1/webhooks")["webhooks"]} == set(
            made[tenant.project])


def test_what_is_disabled_is_told_in_its_project(three, receiver):
    """By the receiver's 410; the event is journaled in the webhook's own project, where a webhook
    that wants it gets it."""
    _, red, blue = three
    receiver.script("/gone", 410)
    for tenant in three:
        tenant.add_webhook(receiver.url(f"/{tenant.project}"), "webhook.disabled")
    hook = red.add_webhook(receiver.url("/gone"), "t")
    same = blue.add_webhook(receiver.url("/blue-t"), "t")
    publish(red)
    red.wait_webhook(hook["id"], lambda w: w["state"] == "disabled_due_to_failed_deliveries")
    told = receiver.wait(1, "/red")[0].json()
    assert told["data"]["id"] == hook["id"]
    assert red.types() == ["t", "webhook.disabled"]
    publish(blue)
    receiver.wait(1, "/blue-t")
    assert blue.types() == ["t"] and three[0].types() == []
    assert blue.webhook(same["id"])["state"] == "enabled"
    # It stays disabled, in its project, after a restart.
    red.broker.restart()
    assert red.webhook(hook["id"])["state"] == "disabled_due_to_failed_deliveries"
    publish(red)
    publish(blue)
    receiver.wait(2, "/blue-t")
    assert red.subscription(f"webhook.{hook['id']}")["paused"] is True
    assert [len(ids(receiver, path))
            for path in ("/gone", "/red", "/blue", "/default")] == [1, 1, 0, 0]


def test_other_options_reach_every_project(three, receiver):
    """What the broker is started with is what every webhook goes by, older ones too."""
    broker = three[0].broker
    for tenant in three:
        tenant.hook = tenant.add_webhook(receiver.url(f"/{tenant.project}"))
        publish(tenant, **config(receiver.url("/dynamic")))
    broker.args += ["--webhook-max-age", "1h"]
    broker.restart()
    for tenant in three:
        for name in (tenant.hook["id"], "dynamic.0"):
            assert tenant.subscription(f"webhook.{name}")["max_age_ms"] == 3600000


# -- those that events and jobs bring along --


def test_an_event_that_brings_uris(three, receiver):
    """Lanes are a project's: the registered webhooks of none get it, and each has places of its own
    in the subscriptions that the API shows."""
    for tenant in three:
        tenant.add_webhook(receiver.url(f"/static/{tenant.project}"))
    for _ in range(2):
        for tenant in three:
            publish(tenant, **config(*[receiver.url(f"/{tenant.project}/{k}") for k in range(3)]))
        three[0].broker.restart()
    for tenant in three:
        publish(tenant, "plain")
    for tenant in three:
        for k in range(3):
            path = f"/{tenant.project}/{k}"
            wait_for(lambda p=path: len(ids(receiver, p)) == 2, what=f"both at {path}")
            assert set(whose(receiver, path)) == {tenant.project}
        static = f"/static/{tenant.project}"
        assert {r.json()["type"] for r in receiver.wait(1, static)} == {"plain"}
        assert len(ids(receiver, static)) == 1
        assert [tenant.api("GET", f"/v1/subscriptions/webhook.dynamic.{k}")[0]
                for k in range(4)] == [200, 200, 200, 404]


def test_a_project_that_never_had_one_has_no_lanes(three, receiver):
    op, red, blue = three
    publish(red, **config(receiver.url("/red")))
    receiver.wait(1, "/red")
    for tenant, count in ((op, 0), (red, 1), (blue, 0)):
        assert len(tenant.ok("GET", "/v1/subscriptions")["subscriptions"]) == count


def test_a_jobs_uris_get_its_own_projects_events(three, receiver):
    """The subject of an event of another project is another one's job."""
    op, red, blue = three
    secret = make_secret("s")
    for tenant in three:
        tenant.add_source("src", secret)
        tenant.add_webhook(receiver.url(f"/static/{tenant.project}"))
    blue.ok("PUT", "/v1/jobs/batches/1",
            config(receiver.url("/job/blue"), user_metadata={"of": "blue's job"}))
    body = {"type": "batch.succeeded", "data": {"id": "batches/1"}}
    for tenant in (op, red):
        tenant.publish("batch.started", subject="batches/1", data={"of": tenant.project})
        assert tenant.take("src", secret, body)[0] == 200
        for request in receiver.wait(2, f"/static/{tenant.project}"):
            assert b"blue" not in request.body
        assert tenant.api("GET", "/v1/jobs/batches/1")[0] == 404
    assert receiver.count("/job/blue") == 0
    assert blue.ok("GET", "/v1/jobs/batches/1")["events_total"] == 0
    # The same job in two projects: each has its own URIs, also after a restart.
    red.ok("PUT", "/v1/jobs/batches/1", config(receiver.url("/job/red")))
    for _ in range(2):
        for tenant in (red, blue):
            assert tenant.take("src", secret, body)[0] == 200
        red.broker.kill9()
        red.broker.start()
    for tenant in (red, blue):
        wait_for(lambda t=tenant: len(ids(receiver, f"/job/{t.project}")) == 2)
    assert not ids(receiver, "/job/red") & ids(receiver, "/job/blue")
    assert [len(ids(receiver, f"/static/{t.project}")) for t in three] == [2, 2, 0]


def test_a_job_that_is_overdue_tells_its_own_project(three, receiver):
    op, red, blue = three
    for tenant in three:
        tenant.add_webhook(receiver.url(f"/static/{tenant.project}"), "job.overdue")
    red.ok("PUT", "/v1/jobs/j1", {"ttl_ms": 100, **config(receiver.url("/job"))})
    blue.ok("PUT", "/v1/jobs/j1", {"ttl_ms": 100})
    assert receiver.wait(1, "/job")[0].json()["data"]["id"] == "j1"
    receiver.wait(1, "/static/blue")
    assert red.types() == blue.types() == ["job.overdue"] and op.types() == []
    assert [receiver.count(f"/static/{t.project}") for t in three] == [0, 0, 1]


# -- the end of a project --


def remove(tenant):
    """Revokes its keys and deletes the project."""
    op = tenant.broker
    for key in op.ok("GET", f"/v1/keys?project={tenant.project}")["keys"]:
        op.ok("DELETE", f"/v1/keys/{key['id']}")
    op.ok("DELETE", f"/v1/projects/{tenant.project}")


def subscriptions(op):
    return op.ok("GET", "/v1/status")["all_projects"]["subscriptions"]


def test_a_project_goes_with_what_its_events_brought_along(three, receiver):
    """In the middle of attempts, with more waiting for the same origin: those end, what others send
    there goes on, and nothing of it comes back after a restart."""
    op, red, blue = three
    broker = red.broker
    receiver.script("/red", HOLD)
    for _ in range(40):  # more than an origin has at a time, so that some wait
        publish(red, **config(receiver.url("/red")))
    receiver.wait(2, "/red")
    publish(blue, **config(receiver.url("/blue")))
    assert subscriptions(op) == 2
    remove(red)
    assert subscriptions(op) == 1
    wait_for(lambda: receiver.held_count("/red") == 0, what="the end of the attempts")
    receiver.wait(1, "/blue")
    tried = receiver.count("/red")
    for _ in range(20):
        publish(blue, **config(receiver.url("/blue")))
    receiver.wait(21, "/blue")
    endpoint, = op.ok("GET", "/v1/webhook-endpoints")["endpoints"]
    wait_for(lambda: op.ok("GET", "/v1/webhook-endpoints")["endpoints"][0]["in_flight"] == 0)
    assert endpoint["origin"] == receiver.origin
    for _ in range(2):
        broker.restart()
        publish(blue, **config(receiver.url("/blue")))
    receiver.wait(23, "/blue")
    assert receiver.count("/red") == tried
    # One of the same name begins with nothing.
    again, = tenants(broker, "red")
    assert again.ok("GET", "/v1/subscriptions") == {"subscriptions": []} and again.events() == []
    receiver.script("/red", 200)
    publish(again, **config(receiver.url("/red")))
    assert receiver.wait(tried + 1, "/red")[-1].id not in {
        r.id for r in receiver.requests("/red")[:-1]}


def test_a_project_with_a_webhook_stays(three, receiver):
    red = three[1]
    hook = red.add_webhook(receiver.url("/red"))
    status, answer = red.broker.api("DELETE", "/v1/projects/red")
    assert status == 409 and "1 webhook" in answer["error"]["message"], answer
    red.ok("DELETE", f"/v1/webhooks/{hook['id']}")
    remove(red)
    red.broker.restart()


# -- load --


def test_many_of_all_projects_at_once(three, receiver):
    """Registered and brought along, over two kills: every delivery is of its own project, and
    nothing is lost."""
    broker = three[0].broker
    for tenant in three:
        tenant.add_webhook(receiver.url(f"/static/{tenant.project}"), "static")
        tenant.sent = []
    for _ in range(2):
        ready = threading.Barrier(4)

        def load(tenant):
            ready.wait()
            try:
                for n in range(60):
                    # The answer may be lost with the kill, and the event may then be there.
                    if n % 2 == 0:
                        tenant.sent.append(publish(tenant, "static"))
                    else:
                        tenant.sent.append(publish(tenant, "dynamic", **config(
                            receiver.url(f"/dynamic/{tenant.project}"))))
            except (OSError, ValueError):
                pass

        threads = [threading.Thread(target=load, args=(tenant,)) for tenant in three]
        for thread in threads:
            thread.start()
        ready.wait()
        wait_for(lambda: receiver.count() > 20, what="the load")
        broker.kill9()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        broker.start()
    for tenant in three:
        paths = f"/static/{tenant.project}", f"/dynamic/{tenant.project}"
        want = {e["seq"] for e in tenant.events()}
        assert set(tenant.sent) <= want
        wait_for(lambda p=paths, w=want: {int(r.id.rsplit("_", 1)[1]) for path in p
                                          for r in receiver.requests(path)} == w, timeout=60,
                 what="every delivery")
        for path in paths:
            assert set(whose(receiver, path)) <= {tenant.project}


class Loopback(http.server.ThreadingHTTPServer):
    """Answers at every address of 127.0.0.0/8, each of which is an origin of its own: at 127.0.0.1
    it takes what comes, at the others it asks for an hour."""
    daemon_threads = True
    request_queue_size = 1024

    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        self.asked, self.taken = set(), threading.Event()
        super().server_bind()


class Answers(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        host = self.headers["Host"].rsplit(":", 1)[0]
        good = host == "127.0.0.1"
        self.send_response(200 if good else 503)
        if not good:
            self.send_header("Retry-After", "3600")
        self.send_header("Content-Length", "0")
        self.end_headers()
        if good:
            self.server.taken.set()
        else:
            self.server.asked.add(host)

    def log_message(self, *args):
        pass


@pytest.mark.long
def test_many_origins_that_are_down_keep_nobody_out(three):
    """The broker remembers 10,000 origins; one project names as many that are all down."""
    _, red, blue = three
    server = Loopback(("", 0), Answers)
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hosts = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(10000)]
    try:
        for begin in range(0, len(hosts), 8 * 250):
            red.ok("POST", "/v1/events", {"events": [
                {"type": "t", **config(*[f"http://{host}:{port}/" for host in hosts[at:at + 8]])}
                for at in range(begin, begin + 8 * 250, 8)]})
        wait_for(lambda: len(server.asked) == len(hosts), timeout=300, what="each of them")
        publish(blue, **config(f"http://127.0.0.1:{port}/"))
        assert server.taken.wait(60), "another project's origin is kept out"
    finally:
        server.shutdown()
        server.server_close()
