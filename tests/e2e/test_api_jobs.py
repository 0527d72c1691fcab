"""The API of jobs: registering, showing, and waiting for them."""

import json
import socket
import struct
import threading
import time
from urllib.parse import quote

import pytest
from harness import DEADLINE_S, LOCAL, make_secret, wait_for
from test_api import error_of

URI = "https://example.com/cb"
HOUR_MS = 3600 * 1000


def put(broker, id="job-1", **fields):
    return broker.ok("PUT", "/v1/jobs/" + quote(id), fields)


def job(broker, id="job-1"):
    return broker.ok("GET", "/v1/jobs/" + quote(id))


def wait(broker, id="job-1", **query):
    text = "&".join(f"{name}={value}" for name, value in query.items())
    return broker.ok("GET", f"/v1/jobs/{quote(id)}:wait" + ("?" + text if text else ""))


def held(broker, count):
    wait_for(lambda: broker.ok("GET", "/v1/status")["job_waits"] == count,
             what=f"{count} held requests")


class Waiter:
    """A wait in a thread of its own."""

    def __init__(self, broker, *args, **query):
        self.answer = None
        self.thread = threading.Thread(target=self._run, args=(broker, args, query), daemon=True)
        self.thread.start()

    def _run(self, broker, args, query):
        self.answer = wait(broker, *args, **query)

    def result(self):
        self.thread.join(DEADLINE_S)
        assert self.answer is not None, "the wait was not answered"
        return self.answer


# -- put and get --

def test_put_and_get(broker):
    config = {"uris": [URI, URI + "/2"], "user_metadata": {"team": "a"}}
    status, made = broker.api("PUT", "/v1/jobs/job-1", {"webhook_config": config, "ttl_ms": HOUR_MS})
    assert status == 201
    expected = {"id": "job-1", "state": "pending", "overdue": False, "webhook_config": config,
                "events": [], "events_total": 0}
    assert {key: made[key] for key in expected} == expected
    assert set(made) == {*expected, "create_time", "update_time", "due_time"}
    assert job(broker) == made
    first, second = (broker.publish(t, subject="job-1", time="2026-01-22T12:00:00Z")
                     for t in ("batch.progress", "batch.succeeded"))
    shown = job(broker)
    assert shown["state"] == "succeeded" and shown["events_total"] == 2
    assert shown["events"] == [
        {"seq": first, "type": "batch.progress", "time": "2026-01-22T12:00:00.000Z"},
        {"seq": second, "type": "batch.succeeded", "time": "2026-01-22T12:00:00.000Z"}]
    # Put again: what was registered is replaced, its events stay.
    status, again = broker.api("PUT", "/v1/jobs/job-1", {"webhook_config": {"uris": [URI]}})
    assert status == 200 and again["webhook_config"] == {"uris": [URI]}
    assert again["events"] == shown["events"] and again["create_time"] == made["create_time"]
    broker.restart()
    assert job(broker) == again
    assert broker.ok("GET", "/v1/status")["jobs"] == 1


@pytest.mark.parametrize("type, state", [
    ("batch.succeeded", "succeeded"), ("interaction.completed", "succeeded"),
    ("video.generated", "succeeded"), ("batch.failed", "failed"), ("batch.cancelled", "cancelled"),
    ("batch.expired", "expired"), ("interaction.requires_action", "requires_action"),
    ("batch.progress", "pending"), ("succeeded", "succeeded"),
])
def test_states(broker, type, state):
    put(broker)
    broker.publish(type, subject="job-1")
    assert job(broker)["state"] == state


@pytest.mark.parametrize("id", [
    "batches/123", "models/m/operations/7", "a b%", "\u00fcn\u00ef/\u2713", "a:b", "projects/x:waiting",
    "a?b#c", "x:wait", "//", "a/", ".", "j" * 1024,
])
def test_ids(broker, id):
    path = "/v1/jobs/" + quote(id, safe="/" if not id.endswith(":wait") else "")
    assert broker.ok("PUT", path)["id"] == id
    assert broker.ok("GET", path)["id"] == id
    seq = broker.publish("a.completed", subject=id)
    assert broker.ok("GET", path + ":wait?timeout=0")["event"]["seq"] == seq


def test_a_colon_need_not_be_escaped(broker):
    assert broker.ok("PUT", "/v1/jobs/projects/x:run")["id"] == "projects/x:run"
    assert broker.ok("GET", "/v1/jobs/projects%2Fx%3Arun")["id"] == "projects/x:run"
    assert broker.ok("GET", "/v1/jobs/projects/x:run:wait?timeout=0")["id"] == "projects/x:run"


def test_metadata_and_endpoints_reach_the_events(brokers, receiver):
    broker = brokers(*LOCAL)
    secret = make_secret()
    broker.add_source("gemini", secret)
    put(broker, "batch_1", webhook_config={"uris": [receiver.url("/job")],
                                           "user_metadata": {"from": "job"}})
    status, answer = broker.post_signed(
        "gemini", secret, {"type": "batch.succeeded", "version": "v1", "data": {"id": "batch_1"}})
    assert status == 200
    event = broker.ok("GET", f"/v1/events/{answer['seq']}")
    assert event["webhook_config"] == {"uris": [receiver.url("/job")]}
    assert event["user_metadata"] == {"from": "job"}
    request, = receiver.wait(1, "/job")
    assert request.json()["data"] == {"id": "batch_1"}
    # What the event brings itself goes first.
    seq = broker.publish("batch.x", subject="batch_1", user_metadata={"from": "event"},
                         webhook_config={"uris": [receiver.url("/own")]})
    event = broker.ok("GET", f"/v1/events/{seq}")
    assert event["user_metadata"] == {"from": "event"}
    assert event["webhook_config"] == {"uris": [receiver.url("/own")]}
    receiver.wait(1, "/own")
    assert receiver.count("/job") == 1


def test_metadata_without_uris(broker):
    made = put(broker, user_metadata={"a": 1})
    assert made["user_metadata"] == {"a": 1} and "webhook_config" not in made
    seq = broker.publish("t", subject="job-1")
    assert broker.ok("GET", f"/v1/events/{seq}")["user_metadata"] == {"a": 1}
    made = put(broker, webhook_config={"user_metadata": {"b": 1}})
    assert made["user_metadata"] == {"b": 1}
    status, code, message = error_of(broker, "PUT", "/v1/jobs/job-1", {
        "user_metadata": {"a": 1}, "webhook_config": {"uris": [URI], "user_metadata": {"a": 1}}})
    assert (status, code) == (400, "invalid_request") and "not both" in message


def test_overdue(broker):
    made = put(broker, ttl_ms=50)
    event = wait(broker, types="job.overdue")["event"]
    assert (event["type"], event["subject"]) == ("job.overdue", "job-1")
    assert event["body"] == {"id": "job-1", "ttl_ms": 50, "registered_at": made["update_time"]}
    assert job(broker)["overdue"] is True and job(broker)["state"] == "pending"
    # Registered again it is not, and what comes late counts.
    assert put(broker)["overdue"] is False
    broker.publish("x.failed", subject="job-1")
    assert job(broker)["state"] == "failed"


@pytest.mark.parametrize("body, code, words", [
    (b"[]", "invalid_request", "object"), (b"{", "invalid_request", "JSON"),
    ({"ttl": 5}, "parameter_unknown", "ttl_ms"), ({"ttl_ms": 0}, "invalid_request", "ttl_ms"),
    ({"ttl_ms": 30 * 24 * HOUR_MS + 1}, "invalid_request", "2592000000"),
    ({"webhook_config": []}, "invalid_request", "webhook_config must be an object"),
    ({"webhook_config": {"uris": []}}, "invalid_request", "webhook_config.uris"),
    ({"webhook_config": {"uris": ["http://127.0.0.1/"]}}, "invalid_request", "127.0.0.0/8"),
    ({"webhook_config": {"uri": URI}}, "parameter_unknown", "webhook_config.uri"),
    ({"user_metadata": []}, "invalid_request", "user_metadata must be an object"),
    ({"user_metadata": {"a": "b" * 16384}}, "invalid_request", "16384"),
])
def test_bad_jobs(broker, body, code, words):
    status, got, message = error_of(broker, "PUT", "/v1/jobs/job-1", body)
    assert (status, got) == (400, code) and words in message, message
    status, got, message = error_of(broker, "GET", "/v1/jobs/job-1")
    assert (status, got) == (404, "not_found") and "PUT /v1/jobs/ID" in message


def test_bad_ids_and_paths(broker):
    for id in ("a%2", "a%zz", "%00", "a%00b", "%ff", "j" * 1025, "%C3%28"):
        for method, verb in (("PUT", ""), ("GET", ""), ("GET", ":wait")):
            assert error_of(broker, method, f"/v1/jobs/{id}{verb}")[:2] == (400, "invalid_request"), id
    for method, path in (("PUT", "/v1/jobs"), ("PUT", "/v1/jobs/"), ("GET", "/v1/jobs/:wait")):
        assert error_of(broker, method, path)[:2] == (404, "not_found"), path
    assert broker.request("POST", "/v1/jobs/x")[1]["Allow"] == "PUT, GET, HEAD"
    assert broker.request("PUT", "/v1/jobs/x:wait")[1]["Allow"] == "GET, HEAD"
    assert error_of(broker, "GET", "/v1/jobs/x?y=1")[:2] == (400, "parameter_unknown")


# -- wait --

def test_what_is_there_is_answered_at_once(broker):
    put(broker)
    seqs = [broker.publish(t, subject="job-1", data={"n": n}) for n, t in enumerate(
        ["a.progress", "a.requires_action", "a.progress", "a.succeeded"])]
    assert wait(broker)["event"]["seq"] == seqs[1]
    assert wait(broker, after_seq=seqs[1])["event"]["seq"] == seqs[3]
    assert wait(broker, types="a.progress")["event"] == broker.ok("GET", f"/v1/events/{seqs[0]}")
    assert wait(broker, types="b.*,*.progress", after_seq=seqs[0])["event"]["seq"] == seqs[2]
    answer = wait(broker)
    event = answer.pop("event")
    assert answer == job(broker) and event["body"] == {"n": 1}
    for query in ({"after_seq": seqs[3], "timeout": "0"}, {"types": "nix", "timeout": "0s"},
                  {"types": "nix.*", "timeout": "1ms"}):
        assert wait(broker, **query) == job(broker)


def test_it_is_answered_when_the_event_comes(broker):
    put(broker)
    put(broker, "other")
    final, progress = Waiter(broker), Waiter(broker, types="a.progress", timeout="10m")
    held(broker, 2)
    broker.publish("a.succeeded", subject="other")
    broker.publish("a.succeeded")
    seq = broker.publish("a.progress", subject="job-1")
    assert progress.result()["event"]["seq"] == seq
    held(broker, 1)
    seq = broker.publish("a.failed", subject="job-1")
    answer = final.result()
    assert answer["event"]["seq"] == seq and answer["state"] == "failed"
    assert [e["seq"] for e in answer["events"]] == [seq - 1, seq]
    held(broker, 0)


def test_it_ends_when_its_time_is_over(broker):
    put(broker)
    began = time.monotonic()
    answer = wait(broker, timeout="300ms")
    assert time.monotonic() - began >= 0.298
    assert answer == job(broker)
    held(broker, 0)


def test_a_stop_answers_it(broker):
    put(broker)
    waiter = Waiter(broker, timeout="10m")
    held(broker, 1)
    broker.stop()
    assert "event" not in waiter.result()


def test_clients_that_go_away(broker):
    put(broker)
    raws = [broker.raw_http() for _ in range(20)]
    for raw in raws:
        raw.send(b"GET /v1/jobs/job-1:wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
    held(broker, 20)
    for raw in raws[:10]:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
    held(broker, 10)
    seq = broker.publish("a.succeeded", subject="job-1")
    for raw in raws[10:]:
        status, _, body = raw.response()
        assert status == 200 and json.loads(body)["event"]["seq"] == seq
        raw.close()
    held(broker, 0)


@pytest.mark.parametrize("query", [
    "timeout=x", "timeout=-1s", "timeout=601", "timeout=11m", "timeout=600001ms", "timeout=1h",
    "timeout=", "timeout=s", "timeout=1.5s", "after_seq=x", "types=a,", "types=a..b", "types=a%20b",
    "types=" + ",".join("a" for _ in range(17)), "timeout=1s&timeout=2s", "types=" + "a" * 257,
])
def test_bad_waits(broker, query):
    put(broker)
    assert error_of(broker, "GET", "/v1/jobs/job-1:wait?" + query)[:2] == (400, "invalid_request")


def test_waiting_for_an_unknown_job(broker):
    status, code, message = error_of(broker, "GET", "/v1/jobs/batches/9:wait")
    assert (status, code) == (404, "not_found") and '"batches/9"' in message
    assert error_of(broker, "GET", "/v1/jobs/x:wait?wait=1")[:2] == (400, "parameter_unknown")
    held(broker, 0)
