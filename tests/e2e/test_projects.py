"""Projects: the same names in each, what is shown of them, their life and their keys
(docs/http-api.md, "Projects"). Routes, workers, sources and webhooks have files of their own."""

import json
import re
import signal
import subprocess

import pytest
from bhp import FAIL, PUBLISH, REJECT
from harness import BUILD, broker_env, wait_for
from tenants import Tenant, operator as operator_of, tenants

OPERATOR_ONLY = ("pid", "journal", "journal_bytes", "trimmed", "retention", "blocked_by", "store",
                 "connections", "body_memory", "job_waits", "all_projects")


def id_of(key):
    return key.split("_")[1]


@pytest.fixture
def three(broker):
    """The operator and two tenants."""
    return [operator_of(broker), *tenants(broker, "a", "b")]


# -- the same names in each --


def test_the_same_names(broker, three):
    for number, project in enumerate(three):
        sub = project.add_subscription("orders", start="first", lease_ms=1000 * (number + 2))
        assert sub["name"] == "orders"
        assert project.api("PUT", "/v1/jobs/j", {"user_metadata": {"of": project.project}})[0] == 201
        project.publish("job.succeeded", subject="j", id="same", data={"of": project.project})
    # The same id is no repeat in another project, and is one in its own.
    assert three[1].ok("POST", "/v1/events", {"type": "again", "id": "same"})["duplicate"] is True
    check_same_names(three)
    broker.kill9()
    broker.start()
    check_same_names(three, fresh=False)
    three[1].ok("DELETE", "/v1/subscriptions/orders")
    assert three[1].api("GET", "/v1/subscriptions/orders")[0] == 404
    check_same_names([three[0], three[2]], fresh=False)


def check_same_names(projects, fresh=True):
    for number, project in enumerate(projects):
        shown = project.subscription("orders")
        assert [s["name"] for s in project.ok("GET", "/v1/subscriptions")["subscriptions"]] == ["orders"]
        assert shown["lease_ms"] == {"default": 2000, "a": 3000, "b": 4000}[project.project]
        assert [e["body"] for e in project.events()] == [{"of": project.project}]
        job = project.ok("GET", "/v1/jobs/j")
        assert job["user_metadata"] == {"of": project.project} and job["state"] == "succeeded"
        assert [e["seq"] for e in job["events"]] == [e["seq"] for e in project.events()]
        waited = project.ok("GET", "/v1/jobs/j:wait?timeout=0")
        assert waited["event"]["body"] == {"of": project.project}
        status = project.ok("GET", "/v1/status")
        assert (status["project"], status["subscriptions"], status["jobs"]) == (project.project, 1, 1)
        if fresh:
            assert status["totals"]["published"] == 1
            assert status["totals"]["duplicates"] == (project.project == "a")
        with project.worker() as worker:
            worker.subscribe("orders", lease_ms=60000)
            item = worker.take_one()
            assert json.loads(item.body) == {"of": project.project}
            assert worker.state().leased == 1
            worker.nack([item], FAIL, 0)
            worker.settle_down()
        assert project.subscription("orders")["leased"] == 0


def test_whoever_works_gets_their_own(three):
    """A worker, a redrive, a replay, a seek and a purge of one project do nothing to the others."""
    operator, a, b = three
    seqs = {}
    for project in three:
        project.add_subscription("s", max_fails=1)
        seqs[project.project] = [project.publish("t", subject=str(i), data=project.project) for i in range(3)]
    with a.worker() as worker:
        worker.subscribe("s")
        items = worker.take(3)
        assert {json.loads(i.body) for i in items} == {"a"}
        assert [i.seq for i in items] == seqs["a"]
        worker.nack(items, REJECT)
        worker.settle_down()
        assert not worker.items
    assert [len(p.dead_letters("s")) for p in three] == [0, 3, 0]
    assert a.ok("GET", "/v1/status")["totals"]["dead"] == 3
    assert b.ok("GET", "/v1/status")["totals"]["dead"] == 0
    finished = lambda project, task: wait_for(  # noqa: E731
        lambda: project.ok("GET", f"/v1/replays/{task['id']}")["state"] == "finished")
    # A redrive and a purge of b's find nothing, those of a's all.
    task = b.ok("POST", "/v1/dead-letters:redrive", {"subscription": "s"})
    finished(b, task)
    assert b.ok("GET", f"/v1/replays/{task['id']}")["matched"] == 0
    task = b.ok("POST", "/v1/dead-letters:purge", {"subscription": "s"})
    finished(b, task)
    assert len(a.dead_letters("s")) == 3
    # A replay from the first seq feeds what is b's.
    with b.worker() as worker:
        worker.subscribe("s")
        worker.ack(worker.take(3))
        worker.replay("s", from_seq=1)
        again = worker.take(3)
        assert [i.seq for i in again] == seqs["b"]
        worker.ack(again)
        task = b.ok("POST", "/v1/replays", {"subscription": "s", "from_seq": 1, "dry_run": True})
        finished(b, task)
        assert b.ok("GET", f"/v1/replays/{task['id']}")["matched"] == 3
    b.ok("POST", "/v1/subscriptions/s:seek", {"to": "first"})
    with b.worker() as worker:
        worker.subscribe("s")
        assert [i.seq for i in worker.take(3)] == seqs["b"]
        worker.settle_down()
        assert not worker.items
    operator_sub = operator.subscription("s")
    assert (operator_sub["ready"] + operator_sub["backlog"] > 0, operator_sub["dead"]) == (True, 0)


# -- status --


def test_status_is_of_the_project(broker, three):
    operator, a, b = three
    a.add_subscription("s", start="first")
    for _ in range(3):
        a.publish()
    whole = operator.ok("GET", "/v1/status")
    assert whole["project"] == "default"
    assert (whole["subscriptions"], whole["totals"]["published"], whole["behind"]) == (0, 0, [])
    assert whole["all_projects"]["projects"] == 3
    assert whole["all_projects"]["subscriptions"] == 1
    assert whole["all_projects"]["totals"]["published"] == 3
    assert [name for name in OPERATOR_ONLY if name not in whole] == []
    mine, other = a.ok("GET", "/v1/status"), b.ok("GET", "/v1/status")
    assert (mine["project"], mine["subscriptions"], mine["totals"]["published"]) == ("a", 1, 3)
    assert [s["name"] for s in mine["behind"]] == ["s"]
    assert (other["project"], other["subscriptions"], other["totals"]["published"], other["behind"]) == ("b", 0, 0, [])
    # A key of default without manage, and one with limits, gets its project's part too.
    limited = Tenant(broker, "default", None).make_key("manage", subscriptions=["x"])
    for status in (mine, other, Tenant(broker, "default", Tenant(broker, "default", None).make_key("consume")).ok("GET", "/v1/status"),
                   Tenant(broker, "default", limited).ok("GET", "/v1/status")):
        assert [name for name in OPERATOR_ONLY if name in status] == []
        assert status["workers_port"] == broker.workers_port
        assert set(whole) - set(status) == set(OPERATOR_ONLY)
    manager = Tenant(broker, "default", Tenant(broker, "default", None).make_key("manage"))
    assert set(manager.ok("GET", "/v1/status")) == set(whole)


def test_who_blocks_is_told_to_its_own(broker, three):
    """And to the operator, with its project; another tenant hears that somebody does."""
    operator, a, b = three
    operator.add_subscription("lazy")  # what comes is not its, so that it is behind by nothing
    for name in ("lazy", "secret-name"):
        b.add_subscription(name)
    for _ in range(60):
        b.publish("t", data="x" * 1000)
    operator.ok("PATCH", "/v1/retention", {"max_bytes": 20000})
    wait_for(lambda: operator.ok("GET", "/v1/retention")["blocked_by"])
    for path in ("/v1/retention", "/v1/status"):
        said = operator.ok("GET", path)
        assert said["blocked_by"] in ("lazy", "secret-name") and said["blocked_by_project"] == "b"
    event = {"type": "t"}
    mine, others = b.refused("POST", "/v1/events", event), a.refused("POST", "/v1/events", event)
    assert mine[:2] == others[:2] == (503, "blocked")
    assert said["blocked_by"] in mine[2]
    assert "a subscription of another project" in others[2]
    assert "lazy" not in others[2] and "secret-name" not in others[2]
    with a.worker() as worker:
        error = worker.error_of(PUBLISH, [["t", "", "", "", "", 0, 0, b""]])
        assert error.word == "blocked" and "a subscription of another project" in error.message
    assert "lazy" not in a.ask("GET", "/readyz")[2] + json.dumps(a.ok("GET", "/v1/status"))
    assert f"subscription {said['blocked_by']} of project b still needs" in broker.log()
    shown = operator.run_cli("status").stdout
    assert f"because of {said['blocked_by']} of project b" in shown
    assert f"{said['blocked_by']} of project b: new events are refused" in operator.run_cli("retention", "show").stdout
    assert f"BLOCKED BY {said['blocked_by']} OF PROJECT b" in operator.run_cli("top", "--once").stdout
    for name in ("lazy", "secret-name"):
        b.ok("POST", f"/v1/subscriptions/{name}:seek", {"to": "new"})
    wait_for(lambda: not operator.ok("GET", "/v1/retention")["blocked_by"])
    assert a.publish() > 60


# -- projects --


def test_the_life_of_a_project(broker):
    assert broker.ok("GET", "/v1/projects") == {"projects": [{"name": "default"}]}
    assert broker.ok("GET", "/v1/projects/default")["keys"] == 0
    operator = operator_of(broker)
    made = operator.ok("POST", "/v1/projects", {"name": "team.x"}, status=(201,))
    assert made == operator.ok("GET", "/v1/projects/team.x")
    assert {k: v for k, v in made.items() if k not in ("create_time", "totals")} == {
        "name": "team.x", "keys": 0, "sources": 0, "subscriptions": 0, "webhooks": 0, "jobs": 0,
        "tasks_running": 0, "attachments": 0}
    assert set(made["totals"].values()) == {0}
    for body, status, code in [({"name": "team.x"}, 409, "already_exists"), ({"name": "default"}, 409, "already_exists"),
                               ({"name": "a/b"}, 400, "invalid_request"), ({"name": ""}, 400, "invalid_request"),
                               ({}, 400, "invalid_request"), ({"name": "n", "x": 1}, 400, "parameter_unknown"),
                               ({"name": "n" * 65}, 400, "invalid_request")]:
        assert operator.refused("POST", "/v1/projects", body)[:2] == (status, code), body
    for name in ("c", "b", "a"):
        operator.ok("POST", "/v1/projects", {"name": name})
    names, token = [], ""
    while True:
        page = operator.ok("GET", f"/v1/projects?page_size=2{token}")
        names += [p["name"] for p in page["projects"]]
        if "next_page_token" not in page:
            break
        token = "&page_token=" + page["next_page_token"]
    assert names == ["a", "b", "c", "default", "team.x"]
    assert operator.refused("GET", "/v1/projects/none")[:2] == (404, "not_found")
    assert operator.refused("DELETE", "/v1/projects/none")[:2] == (404, "not_found")
    assert operator.refused("GET", "/v1/projects?x=1")[:2] == (400, "parameter_unknown")
    assert operator.refused("DELETE", "/v1/projects/default")[:2] == (400, "invalid_request")
    broker.kill9()
    broker.start()
    assert [p["name"] for p in operator.ok("GET", "/v1/projects")["projects"]] == names
    assert operator.ok("GET", "/v1/projects/team.x")["create_time"] == made["create_time"]


def test_deleting_a_project(broker):
    operator = operator_of(broker)
    b = tenants(broker, "b")[0]
    for name in ("s1", "s2", "s3"):
        b.add_subscription(name)
    b.ok("POST", "/v1/sources", {"name": "src", "scheme": "none"})
    hook = b.ok("POST", "/v1/webhooks", {"uri": "https://example.invalid/w", "subscribed_events": ["never"]})
    b.ok("PUT", "/v1/jobs/j", {"webhook_config": {"uris": ["https://example.invalid/x"]}})
    seq = b.publish("t", subject="j")
    second = Tenant(broker, "b", None).make_key("publish")
    status, code, message = operator.refused("DELETE", "/v1/projects/b")
    assert (status, code) == (409, "not_empty")
    assert 'project "b" has 1 source, 3 subscriptions, 1 webhook, 2 keys: delete' in message
    shown = operator.ok("GET", "/v1/projects/b")
    assert [shown[k] for k in ("keys", "sources", "subscriptions", "webhooks", "jobs")] == [2, 1, 3, 1, 1]
    for path in ("subscriptions/s1", "subscriptions/s2", "subscriptions/s3", "sources/src",
                 f"webhooks/{hook['id']}"):
        b.ok("DELETE", "/v1/" + path)
    assert "has 2 keys: delete" in operator.refused("DELETE", "/v1/projects/b")[2]
    worker = b.worker()
    operator.ok("DELETE", f"/v1/keys/{id_of(second)}")
    assert operator.refused("DELETE", "/v1/projects/b")[:2] == (409, "not_empty")
    operator.ok("DELETE", f"/v1/keys/{id_of(b.key)}")
    worker.wait_closed()
    before = operator.ok("GET", "/v1/status")["all_projects"]
    assert operator.ok("DELETE", "/v1/projects/b") == {}
    assert operator.refused("GET", "/v1/projects/b")[:2] == (404, "not_found")
    assert operator.refused("POST", "/v1/keys", {"name": "k", "scopes": ["admin"], "project": "b"})[:2] == (404, "not_found")
    # Its lanes have gone with it.
    after = operator.ok("GET", "/v1/status")["all_projects"]
    assert before["subscriptions"] == 1 and after["subscriptions"] == 0
    # One of the same name is another one: it has nothing of the first.
    again = tenants(broker, "b")[0]
    for restart in (False, True):
        if restart:
            broker.kill9()
            broker.start()
        assert again.events() == [] and again.api("GET", f"/v1/events/{seq}")[0] == 404
        assert again.api("GET", "/v1/jobs/j")[0] == 404
        assert b.refused("GET", "/v1/status")[:2] == (401, "unauthenticated")
        assert operator.ok("GET", "/v1/projects/b")["jobs"] == 0
    again.add_subscription("s1", start="first")
    with again.worker() as worker:
        worker.subscribe("s1")
        worker.settle_down()
        assert not worker.items


def test_no_project_goes_while_something_is_stored_in_it(broker):
    """A source is counted when it is durable: until then the project stays."""
    operator = operator_of(broker)
    b = tenants(broker, "b")[0]
    body = b'{"name":"src","scheme":"none"}'
    requests = [(b.key, "POST /v1/sources", body), (operator.key, f"DELETE /v1/keys/{id_of(b.key)}", b""),
                (operator.key, "DELETE /v1/projects/b", b"")]
    raws = [broker.raw_http() for _ in requests]
    try:
        operator.ok("GET", "/v1/status")  # the connections are taken in
        broker.process.send_signal(signal.SIGSTOP)  # so that it finds all three at once
        for raw, (key, line, data) in zip(raws, requests):
            raw.send(f"{line} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
                     f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        broker.process.send_signal(signal.SIGCONT)
        answers = [raw.response() for raw in raws]
    finally:
        for raw in raws:
            raw.close()
    assert [a[0] for a in answers[:2]] == [201, 200]
    assert answers[2][0] == 429 and b"is being stored: try again" in answers[2][2]
    broker.restart()
    assert operator.ok("GET", "/v1/projects/b")["sources"] == 1


def test_there_are_a_thousand_projects_at_most(broker):
    operator = operator_of(broker)
    with broker.raw_http() as raw:
        for batch in range(10):
            names = [f"p{batch}.{i}" for i in range(100)][:99 if batch == 9 else 100]
            for name in names:
                body = json.dumps({"name": name})
                raw.send(f"POST /v1/projects HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {operator.key}\r\n"
                         f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
            assert [raw.response()[0] for _ in names] == [201] * len(names)
    status, code, message = operator.refused("POST", "/v1/projects", {"name": "one.more"})
    assert (status, code) == (429, "limit_exceeded") and "there are 1000 projects" in message
    operator.ok("DELETE", "/v1/projects/p0.0")
    operator.ok("POST", "/v1/projects", {"name": "one.more"})
    assert len(operator.ok("GET", "/v1/projects?page_size=1000")["projects"]) == 1000


# -- keys of projects --


def test_keys_of_projects(broker, three):
    operator, a, b = three
    in_a = a.ok("POST", "/v1/keys", {"name": "worker", "scopes": ["consume"]})
    assert in_a["project"] == "a"
    assert a.ok("POST", "/v1/keys", {"name": "said", "scopes": ["consume"], "project": "a"})["project"] == "a"
    assert a.refused("POST", "/v1/keys", {"name": "x", "scopes": ["admin"], "project": "default"})[:2] == (404, "not_found")
    assert a.refused("POST", "/v1/keys", {"name": "x", "scopes": ["admin"], "project": 7})[:2] == (400, "invalid_request")
    listed = lambda project, query="": [k["id"] for k in project.ok("GET", "/v1/keys" + query)["keys"]]  # noqa: E731
    mine = sorted(listed(a))
    assert len(mine) == 3 and id_of(a.key) in mine and in_a["id"] in mine
    assert listed(b) == [id_of(b.key)]
    assert sorted(listed(operator)) == sorted(mine + [id_of(b.key), id_of(operator.key)])
    assert sorted(listed(operator, "?project=a")) == mine
    assert listed(operator, "?project=default") == [id_of(operator.key)]
    assert sorted(listed(a, "?project=a")) == mine
    paged, token = [], ""
    while True:
        page = a.ok("GET", f"/v1/keys?page_size=1{token}")
        paged += [k["id"] for k in page["keys"]]
        if "next_page_token" not in page:
            break
        token = "&page_token=" + page["next_page_token"]
    assert sorted(paged) == mine
    # The operator may change and end any; a tenant its own, its last admin too.
    assert operator.ok("PATCH", f"/v1/keys/{in_a['id']}", {"name": "renamed"})["name"] == "renamed"
    assert a.ok("GET", f"/v1/keys/{in_a['id']}")["name"] == "renamed"
    assert a.ok("DELETE", f"/v1/keys/{id_of(a.key)}") == {}
    assert a.refused("GET", "/v1/status")[:2] == (401, "unauthenticated")
    operator.ok("DELETE", f"/v1/keys/{id_of(b.key)}")
    # An admin of a tenant's is none that could make another.
    Tenant(broker, "b", None).make_key()
    status, code, message = operator.refused("DELETE", f"/v1/keys/{id_of(operator.key)}")
    assert (status, code) == (400, "invalid_request") and "last one of the project default" in message


def test_a_tenant_leaves_keys_for_the_operator(broker):
    operator, (red,) = operator_of(broker), tenants(broker, "red")

    def make(tenant, count):
        body = json.dumps({"name": "k", "scopes": ["publish"]})
        with broker.raw_http() as raw:
            raw.send((f"POST /v1/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {tenant.key}\r\n"
                      f"Content-Length: {len(body)}\r\n\r\n{body}" * count).encode())
            return [raw.response()[0] for _ in range(count)]

    for begin in range(0, 4030, 130):
        assert make(red, 130) == [201] * 130, begin
    assert make(red, 3) == [429] * 3
    assert red.refused("POST", "/v1/keys", {"name": "k", "scopes": ["publish"]})[1] == "limit_exceeded"
    assert make(operator, 65) == [201] * 64 + [429]


def test_the_first_key_is_the_operators(broker):
    broker.ok("POST", "/v1/projects", {"name": "a"})
    for fields in ({"project": "a", "scopes": ["admin"]}, {"scopes": ["manage"]}, {"project": "default", "scopes": ["consume"]}):
        status, answer = broker.api("POST", "/v1/keys", {"name": "k", **fields})
        assert (status, answer["error"]["code"]) == (400, "invalid_request"), fields
        assert "the first key must be one of the project default with the scope admin" in answer["error"]["message"]
    assert broker.ok("GET", "/v1/keys") == {"keys": []}
    operator_of(broker)
    project = Tenant(broker, "a", Tenant(broker, "a", None).make_key())
    assert project.ok("GET", "/v1/status")["project"] == "a"


def test_a_key_that_is_made_offline_is_the_operators(broker):
    operator = operator_of(broker)
    tenants(broker, "a")[0]
    operator.ok("DELETE", f"/v1/keys/{id_of(operator.key)}?force=yes")
    broker.stop()
    done = subprocess.run([str(BUILD / "bellhopd"), "--data", str(broker.data), "--make-key", "rescue"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    broker.start()
    rescued = Tenant(broker, "default", done.stdout.strip())
    assert rescued.ok("GET", "/v1/status")["project"] == "default"
    assert len(rescued.ok("GET", "/v1/keys?project=a")["keys"]) == 1


# -- the command line --


def test_the_command_line(broker):
    operator = operator_of(broker)
    made = operator.run_cli("project", "create", "billing")
    assert made.returncode == 0 and "bellhop key create NAME --scope admin --project billing" in made.stdout
    key = json.loads(operator.run_cli("key", "create", "boss", "--scope", "admin", "--project", "billing", "--json").stdout)
    billing = Tenant(broker, "billing", key["key"])
    listed = operator.run_cli("project", "ls").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["NAME", "billing", "default"]
    assert [line.split()[2] for line in operator.run_cli("key", "ls").stdout.splitlines()] == ["PROJECT", "default", "billing"]
    assert len(operator.run_cli("key", "ls", "--project", "billing").stdout.splitlines()) == 2
    assert operator.run_cli("sub", "create", "s").returncode == 0
    assert billing.run_cli("sub", "create", "s", "--start", "first").returncode == 0
    billing.publish("t")
    shown = dict(line.split(None, 1) for line in operator.run_cli("project", "show", "billing").stdout.splitlines()
                 if len(line.split()) == 2)
    assert (shown["project"], shown["keys"], shown["subscriptions"], shown["journaled"]) == ("billing", "1", "1", "1")
    # status and top with a tenant's key leave out what is the broker's.
    text = billing.run_cli("status").stdout
    assert re.search(r"^project +billing$", text, re.M) and re.search(r"^in +1 journaled", text, re.M)
    for word in ("journal ", "store", "connections", "process"):
        assert word not in text, text
    whole = operator.run_cli("status").stdout
    assert re.search(r"^all projects +2 projects, 2 subscriptions, 1 journaled, 0 acked$", whole, re.M), whole
    assert re.search(r"^journal +seq 1 to 1", whole, re.M)
    top = billing.run_cli("top", "--once").stdout.splitlines()
    assert top[0] == "project billing" and top[1] == "1 subscription, 0 replays running"
    assert [line.split()[0] for line in top[3:]] == ["NAME", "s"]
    seen = json.loads(billing.run_cli("top", "--once", "--json").stdout)
    assert "retention" not in seen and [s["name"] for s in seen["subscriptions"]] == ["s"]
    tail = billing.run_cli("tail", "--from", "1", "--count", "1", "--json")
    assert json.loads(tail.stdout)["type"] == "t", tail.stderr
    worked = billing.run_cli("work", "s", "--count", "1", "--", "true")
    assert worked.returncode == 0, worked.stderr
    refused = billing.run_cli("project", "ls")
    assert refused.returncode == 1 and "permission_denied" in refused.stderr
    kept = operator.run_cli("project", "rm", "billing", "--yes")
    assert kept.returncode == 1 and "1 subscription, 1 key" in kept.stderr
    assert operator.run_cli("project", "rm", "billing").returncode == 64
    assert operator.run_cli("project", "show", "../x").returncode == 64
    billing.run_cli("sub", "rm", "s", "--yes")
    operator.run_cli("key", "revoke", key["id"], "--yes")
    gone = operator.run_cli("project", "rm", "billing", "--yes")
    assert gone.returncode == 0 and gone.stdout == "removed project billing\n", gone.stderr


def test_tail_begins_at_the_end(broker):
    """Also with a key that hears nothing of the journal."""
    operator = operator_of(broker)
    b = tenants(broker, "b")[0]
    b.publish_many(60, "old")
    process = subprocess.Popen([str(BUILD / "bellhop"), "tail", "--count", "1", "--json"], stdout=subprocess.PIPE,
                               text=True, env={**broker_env(), "BELLHOP_URL": broker.http, "BELLHOP_KEY": b.key})
    wait_for(lambda: operator.publish("others") and b.publish("new") and process.poll() is not None)
    assert json.loads(process.communicate()[0])["type"] == "new"
