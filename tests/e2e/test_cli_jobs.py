"""The command line's jobs: put, show, and a wait that is not a poll."""

import json
import subprocess

import pytest

from clitools import CLI, Api, cli, cli_json, end_of, running
from harness import broker_env, wait_for


@pytest.fixture
def api():
    made = Api()
    yield made
    made.close()


def held(broker, count=1):
    """So many waits are held at the broker."""
    wait_for(lambda: broker.ok("GET", "/v1/status")["job_waits"] == count, what="the wait")


@pytest.mark.parametrize("args, request_", [
    (["put", "b/1"], ("PUT", "/v1/jobs/b%2F1", {})),
    (["put", "b/1", "--ttl", "24h"], ("PUT", "/v1/jobs/b%2F1", {"ttl_ms": 86400000})),
    (["put", "x y:z", "--uri", "https://a/", "--uri", "https://b/", "--metadata", '{"k":[1]}'],
     ("PUT", "/v1/jobs/x%20y%3Az",
      {"webhook_config": {"uris": ["https://a/", "https://b/"], "user_metadata": {"k": [1]}}})),
    (["put", "b", "--metadata", '{"k":1}'], ("PUT", "/v1/jobs/b", {"user_metadata": {"k": 1}})),
    (["show", "b:wait"], ("GET", "/v1/jobs/b%3Await", None)),
])
def test_what_is_asked_of_the_broker(api, args, request_):
    api.run("job", *args)
    assert api.requests == [request_]


@pytest.mark.parametrize("args, words", [
    (["job", "put", "b", "--ttl", "soon"], "--ttl"),
    (["job", "put", "b", "--metadata", "[1]"], "not a JSON object"),
    (["job", "put", "b", "--metadata", "{"], "not a JSON object"),
    (["job", "put", "b", "--uri", b"\xff"], "not UTF-8"),
    (["wait", "b", "--timeout", "soon"], "--timeout"),
    (["wait", "b", "--type", "a,b"], "give --type for each"),
    (["wait", "b", "--type", ""], "--type"),
    (["wait", "b", "--after-seq", "x"], "--after-seq"),
    (["wait"], "something is missing"),
])
def test_nonsense_is_named(api, args, words):
    done = api.run(*args, code=64)
    assert words in done.stderr and not api.requests


def test_a_job_is_shown(broker):
    said = cli(broker, "job", "put", "batches/1", "--metadata", '{"k":1}', "--ttl", "1h").stdout
    assert "registered job batches/1" in said
    assert "updated job batches/1" in cli(broker, "job", "put", "batches/1").stdout
    broker.publish("batch.succeeded", subject="batches/1")
    shown = cli(broker, "job", "show", "batches/1").stdout
    assert "state    succeeded" in shown and "seq 1" in shown and "batch.succeeded" in shown
    assert cli_json(broker, "job", "show", "batches/1", "--json")[0]["events_total"] == 1
    assert "PUT /v1/jobs/ID" in cli(broker, "job", "show", "nope", code=1).stderr


def test_wait_ends_the_moment_the_event_is_there(broker):
    cli(broker, "job", "put", "batches/1")
    with running(broker, "wait", "batches/1", "--timeout", "10m") as waiting, \
            running(broker, "wait", "batches/1", "--json", "--type", "x.*", "--type", "batch.*") as other:
        held(broker, 2)
        broker.publish("batch.succeeded", subject="batches/1", data={"uri": "gs://r"})
        out, err = end_of(waiting)
        assert out.startswith("batches/1 is succeeded: batch.succeeded, seq 1, ")
        assert out.endswith('  {"uri":"gs://r"}\n') and not err
        job = json.loads(end_of(other)[0])
        assert job["event"]["type"] == "batch.succeeded" and job["state"] == "succeeded"


def test_what_is_there_is_told_at_once(broker):
    cli(broker, "job", "put", "b")
    broker.publish("batch.requires_action", subject="b", data="who?")
    broker.publish("batch.failed", subject="b")
    assert "requires_action" in cli(broker, "wait", "b", "--timeout", "0").stdout
    later = cli_json(broker, "wait", "b", "--timeout", "0", "--after-seq", "1", "--json")[0]
    assert later["event"]["seq"] == 2


def test_the_time_is_over(broker):
    cli(broker, "job", "put", "b")
    done = cli(broker, "wait", "b", "--timeout", "200ms", code=75)
    assert done.stderr == "bellhop: nothing came within 200ms: b is pending\n" and not done.stdout
    job = json.loads(cli(broker, "wait", "b", "--timeout", "0", "--json", code=75).stdout)
    assert "event" not in job and job["state"] == "pending"


def test_a_job_that_nobody_registered(broker):
    done = cli(broker, "wait", "nope", code=1)
    assert "PUT /v1/jobs/ID" in done.stderr and "not_found" in done.stderr


def test_wait_goes_on_over_a_restart(brokers):
    # An address that stays the same over the restart.
    first = brokers()
    cli(first, "job", "put", "b")
    address, workers = first.http_address, f"127.0.0.1:{first.workers_port}"
    with running(first, "wait", "b", "--timeout", "10m") as waiting:
        held(first)
        first.stop()
        first.args = ["--http", address, "--workers", workers]
        first.start()
        held(first)
        first.publish("batch.succeeded", subject="b")
        out, err = end_of(waiting)
        assert out.startswith("b is succeeded")


def test_long_times_are_asked_for_in_pieces(api):
    answers = [{"id": "b", "state": "pending"}, {"id": "b", "state": "succeeded",
                                                 "event": {"seq": 9, "type": "t"}}]
    api.answers["GET /v1/jobs/b:wait"] = lambda: (200, answers.pop(0))
    assert "seq 9" in api.run("wait", "b", "--timeout", "7d", "--type", "a.*", "--type", "b").stdout
    assert [path for _, path, _ in api.requests] == [
        "/v1/jobs/b:wait?timeout=600000ms&types=a.%2A%2Cb"] * 2


def test_nobody_answers():
    done = subprocess.run([CLI, "wait", "b"], capture_output=True, text=True, timeout=30,
                          env={**broker_env(), "BELLHOP_URL": "http://127.0.0.1:1"})
    assert done.returncode == 69 and "no broker answers" in done.stderr
