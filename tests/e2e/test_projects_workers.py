"""Workers and held requests of several projects: each gets what is its own."""

import json
import threading

import pytest
from bhp import REDRIVE, REPLAY, SUBSCRIBE, WAIT, claim_of
from harness import wait_for
from tenants import Tenant, operator as operator_of, tenants


@pytest.fixture
def three(broker):
    """The operator and two tenants."""
    return [operator_of(broker), *tenants(broker, "a", "b")]


# -- held requests --


def in_thread(project, path, answers):
    def run():
        answers[project.project] = project.ask("GET", path)
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def held(operator):
    return operator.ok("GET", "/v1/status")["connections"]["http"] - 1


def test_held_lists_get_their_own(three):
    operator, a, b = three
    answers = {}
    threads = [in_thread(p, "/v1/events?wait_ms=60000", answers) for p in (a, b)]
    wait_for(lambda: held(operator) == 2)
    operator.publish("t")
    seq = a.publish("t")
    threads[0].join(30)
    assert [e["seq"] for e in json.loads(answers["a"][2])["events"]] == [seq]
    assert "b" not in answers
    own = b.publish("t")
    threads[1].join(30)
    assert [e["seq"] for e in json.loads(answers["b"][2])["events"]] == [own]


def test_held_waits_get_their_own(three):
    operator, a, b = three
    for project in (a, b):
        project.ok("PUT", "/v1/jobs/j", {})
    answers = {}
    threads = [in_thread(p, "/v1/jobs/j:wait?timeout=60s", answers) for p in (a, b)]
    wait_for(lambda: operator.ok("GET", "/v1/status")["job_waits"] == 2)
    operator.publish("t.succeeded", subject="j")
    seq = a.publish("t.succeeded", subject="j")
    threads[0].join(30)
    answer = json.loads(answers["a"][2])
    assert (answer["state"], answer["event"]["seq"]) == ("succeeded", seq)
    assert "b" not in answers and b.ok("GET", "/v1/jobs/j")["state"] == "pending"
    own = b.publish("t.failed", subject="j")
    threads[1].join(30)
    answer = json.loads(answers["b"][2])
    assert (answer["state"], answer["event"]["seq"]) == ("failed", own)


def test_a_long_journal_of_others_is_passed(three):
    """A list goes on behind what others have published, page by page, and so does a held one."""
    operator, a, b = three
    for _ in range(21):
        a.publish_many(1000)
    seq = b.publish("own")
    found, token, pages = [], "", 0
    while True:
        page = b.ok("GET", f"/v1/events?page_size=10{token}")
        found += [e["seq"] for e in page["events"]]
        pages += 1
        assert pages < 10, "it does not get on"
        if "next_page_token" not in page:
            break
        token = "&page_token=" + page["next_page_token"]
    assert found == [seq]
    end = b.ok("GET", "/v1/events?since=9999-12-31T23:59:59Z&wait_ms=0")["next_page_token"]
    assert end == f"e1-{seq + 1}"
    answers = {}
    thread = in_thread(b, f"/v1/events?wait_ms=60000&page_token={end}", answers)
    wait_for(lambda: held(operator) == 1)
    for _ in range(21):
        a.publish_many(1000)
    own = b.publish("own")
    thread.join(30)
    assert [e["seq"] for e in json.loads(answers["b"][2])["events"]] == [own]


# -- the worker protocol --


def same_error(worker, op, theirs, nobodys, names):
    """An ERR that does not tell another project's name from that of nobody."""
    one, two = worker.error_of(op, *theirs), worker.error_of(op, *nobodys)
    assert (one.number, one.message.replace(names[0], "N"), one.fatal) == (
        two.number, two.message.replace(names[1], "N"), two.fatal)
    assert one.word == "not_found", one
    return one


def test_workers_see_their_project(three):
    operator, a, b = three
    a.add_subscription("a-sub", start="first")
    b.add_subscription("b-sub", start="first")
    a.ok("PUT", "/v1/jobs/a-job", {})
    seq = a.publish("t", subject="a-job")
    names = ("a-sub", "a-nil")
    with b.worker() as worker:
        same_error(worker, SUBSCRIBE, (1, names[0], 1, 1 << 20, {}), (2, names[1], 1, 1 << 20, {}), names)
        same_error(worker, REPLAY, (names[0], {"from_seq": 1}), (names[1], {"from_seq": 1}), names)
        same_error(worker, REDRIVE, (names[0], {}), (names[1], {}), names)
        same_error(worker, WAIT, ("a-job", {}), ("a-nob", {}), ("a-job", "a-nob"))
        # What b publishes is b's, whatever it says; a's worker does not get it.
        worker.subscribe("b-sub")
        own = worker.publish({"subject": "a-job", "type": "job.failed"})[0][0]
        assert worker.take_one().seq == own
        worker.settle_down()
        assert not worker.items
        # Neither a replay from the first seq nor a redrive of a's seq feeds what is a's.
        worker.replay("b-sub", from_seq=1)
        assert worker.take_one().seq == own
        same_error(worker, REDRIVE, ("b-sub", {"seq": seq}), ("b-sub", {"seq": 77}), (f"seq {seq}", "seq 77"))
        worker.settle_down()
        assert not worker.items
    assert a.ok("GET", "/v1/jobs/a-job")["state"] == "pending"
    with a.worker() as worker:
        worker.subscribe("a-sub")
        assert worker.take_one().seq == seq
        worker.settle_down()
        assert not worker.items
        state = worker.state()
        assert (state.leased, state.ready) == (1, 0)


def test_create_of_a_name_that_another_has(three):
    """SUBSCRIBE with `create` makes it in the project of the key, beside the other's."""
    _, a, b = three
    a.add_subscription("s", start="first")
    a.publish("t")
    with b.worker() as worker:
        assert worker.subscribe("s", create={"start": "first"})["created"] is True
        worker.settle_down()
        assert not worker.items
    assert b.subscription("s")["attachments"] == 0
    assert a.ok("GET", "/v1/status")["subscriptions"] == b.ok("GET", "/v1/status")["subscriptions"] == 1
    consumer = Tenant(b.broker, "b", b.make_key("consume"))
    with consumer.worker() as worker:
        error = worker.error_of(SUBSCRIBE, 1, "none", 1, 1 << 20, {"create": "{}"})
        assert error.word == "permission_denied"


def test_a_token_of_another_project_resumes_nothing(broker, three):
    operator, a, b = three
    for project in (a, b):
        project.add_subscription("s", start="first")
        project.publish("t", data=project.project)
    first = a.worker(resume_ms=60000)
    first.subscribe("s")
    item = first.take_one()
    token = first.welcome["session"]
    with b.worker(resume=token, resume_ms=60000) as thief:
        # The session of the token goes on, whose worker would have been replaced in its own project.
        first.settle_down()
        answer = thief.subscribe("s", claims=[claim_of(item)])
        assert answer["resumed"] == 0
        assert thief.expect_revoke().tags == [item.tag]
        got = thief.take_one()
        assert json.loads(got.body) == "b"
        assert thief.ack([got]).ok == [got.tag]
        first.settle_down()
        first.close()
        wait_for(lambda: operator.ok("GET", "/v1/status")["connections"]["workers"] == 1)
        assert a.subscription("s")["leased"] == 1
        # With the first one gone, and after a restart, it is the same.
        with b.worker(resume=token, resume_ms=60000) as again:
            assert again.subscribe("s", claims=[claim_of(item)])["resumed"] == 0
    broker.args += ["--restart-grace", "60s"]
    broker.restart()
    with b.worker(resume=token, resume_ms=60000) as again:
        assert again.subscribe("s", claims=[claim_of(item)])["resumed"] == 0
        again.settle_down()
        assert not again.items
    with a.worker(resume=token, resume_ms=60000) as back:
        assert back.subscribe("s", claims=[claim_of(item)])["resumed"] == 1
        assert back.ack([item]).ok == [item.tag]
