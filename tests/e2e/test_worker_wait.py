"""WAIT of the worker protocol: the events of a job without polling; and names that webhooks own."""

import json
import socket
import struct
import subprocess

import pytest
from bhp import ERR, JOB_EVENT, WAIT, ProtocolError
from harness import BUILD, DEADLINE_S, SANITIZER_WORDS, broker_env, wait_for


@pytest.fixture
def job(broker):
    broker.ok("PUT", "/v1/jobs/batches/1", {})
    return broker


def published(broker, type, subject="batches/1", **more):
    return broker.ok("POST", "/v1/events", {"type": type, "subject": subject, **more})["seq"]


def test_it_ends_the_moment_the_event_is_there(job, connect):
    with connect(job) as client:
        rid = client.ask_wait("batches/1")
        client.settle_down()
        assert not client.frames  # nothing is there yet
        seq = published(job, "batch.succeeded", data={"n": 1}, user_metadata={"k": "v"})
        got = client.waited(rid)
        assert (got.state, got.overdue, got.seq) == ("succeeded", False, seq)
        assert (got.item.type, got.item.subject, got.item.seq) == ("batch.succeeded", "batches/1", seq)
        assert json.loads(got.item.body) == {"n": 1}
        assert json.loads(got.item.metadata) == {"k": "v"}
        assert got.item[0] == got.item.fails == got.item.deliveries == got.item.flags == 0


def test_what_is_there_is_told_at_once(job, connect):
    first = published(job, "batch.requires_action")
    last = published(job, "batch.failed")
    with connect(job) as client:
        assert client.wait("batches/1", timeout_ms=0).seq == first
        got = client.wait("batches/1", after_seq=first, timeout_ms=0)
        assert (got.seq, got.state, got.item.type) == (last, "failed", "batch.failed")
        assert client.wait("batches/1", types=["*.failed"], timeout_ms=0).seq == last
        nothing = client.wait("batches/1", after_seq=last, timeout_ms=0)
        assert (nothing.seq, nothing.item, nothing.state) == (None, None, "failed")


def test_types_and_time(job, connect):
    with connect(job) as client:
        late = client.ask_wait("batches/1", types=["video.*", "job.done"], timeout_ms=600000)
        soon = client.ask_wait("batches/1", timeout_ms=50)
        assert client.waited(soon).item is None
        published(job, "batch.succeeded")
        client.settle_down()
        assert not [f for f in client.frames if f[1] == late]
        seq = published(job, "job.done")
        assert client.waited(late).seq == seq


def test_what_cannot_be_waited_for(job, connect):
    with connect(job) as client:
        err = client.error_of(WAIT, "batches/2", {})
        assert (err.word, err.fatal) == ("not_found", False)
        assert "batches/2" in err.message and "PUT /v1/jobs/ID" in err.message
        assert client.error_of(WAIT, b"\xff", {}).word == "invalid_request"
        assert client.error_of(WAIT, "batches/1", {"timeout_ms": 600001}).word == "invalid_request"
        client.send(WAIT, 0, "batches/1", {})
        err = client.as_err(client.expect(ERR))
        assert err.word == "invalid_request" and "rid" in err.message
        client.ping()


def test_at_most_1024_on_a_connection(job, connect):
    with connect(job) as client:
        rids = [client.ask_wait("batches/1") for _ in range(1024)]
        assert client.error_of(WAIT, "batches/1", {}).word == "limit_exceeded"
        published(job, "batch.succeeded")
        assert all(client.waited(rid).state == "succeeded" for rid in rids)
        assert client.wait("batches/1", timeout_ms=0).seq == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_ends_takes_its_waits_along(job, connect, reset):
    with connect(job) as client:
        for _ in range(10):
            client.ask_wait("batches/1")
        client.settle_down()
        if reset:  # instead of an orderly end
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: job.ok("GET", "/v1/status")["job_waits"] == 0)
    with connect(job) as other:
        rid = other.ask_wait("batches/1")
        other.settle_down()
        published(job, "batch.succeeded")
        assert other.waited(rid).state == "succeeded"


def test_a_broker_that_stops_answers(job, connect):
    with connect(job) as client:
        rid = client.ask_wait("batches/1", timeout_ms=600000)
        client.settle_down()
        job.stop()
        got = client.waited(rid)
        assert (got.state, got.item) == ("pending", None)
        client.wait_closed()


def test_jobs_outlive_a_restart(job, connect):
    seq = published(job, "batch.succeeded")
    job.stop()
    job.start()
    with connect(job) as client:
        got = client.wait("batches/1", timeout_ms=0)
        assert (got.seq, got.state) == (seq, "succeeded")


def test_subscriptions_of_webhooks_are_not_for_workers(broker, connect):
    webhook = broker.ok("POST", "/v1/webhooks", {"uri": "https://example.com/hook",
                                                 "subscribed_events": ["batch.*"]})
    with connect(broker) as client:
        for name in (f"webhook.{webhook['id']}", "webhook.mine"):
            for create in (None, {}):
                with pytest.raises(ProtocolError) as refused:
                    client.subscribe(name, create=create)
                assert refused.value.args[0].word == "invalid_request"
                assert "belongs to a webhook" in refused.value.args[0].message
        broker.publish("t")
        assert client.replay(f"webhook.{webhook['id']}", from_seq=1) > 0
        client.subscribe("webhooks", create={})  # another name


def test_the_frame_is_as_documented(job, connect):
    with connect(job) as client:
        frame = client.request(WAIT, "batches/1", {"timeout_ms": 0})
        assert frame[0] == JOB_EVENT
        assert frame[2] == {"state": "pending", "overdue": False}


# --- libbellhop's bellhop_wait, by the program that shows it ---

def waiting(broker, job, seconds):
    return subprocess.Popen([str(BUILD / "example_wait"),
                             f"bellhop://127.0.0.1:{broker.workers_port}", job, str(seconds)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=broker_env())


def said(process, code):
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, (out, err)
    assert not any(word in err for word in SANITIZER_WORDS), err
    return out + err


def held(broker):
    wait_for(lambda: broker.ok("GET", "/v1/status")["job_waits"] == 1, what="the wait")


def test_the_library_waits(job):
    process = waiting(job, "batches/1", 60)
    held(job)
    published(job, "batch.succeeded", data={"n": 1})
    assert said(process, 0) == 'succeeded: batch.succeeded, seq 1: {"n": 1}\n'
    assert "there is no job" in said(waiting(job, "nope", 60), 1)


def test_the_library_waits_over_a_restart(job):
    job.args += ["--workers", f"127.0.0.1:{job.workers_port}"]
    process = waiting(job, "batches/1", 60)
    held(job)
    job.kill9()
    job.start()
    held(job)
    published(job, "batch.failed", data="why")
    assert said(process, 0) == 'failed: batch.failed, seq 1: "why"\n'
