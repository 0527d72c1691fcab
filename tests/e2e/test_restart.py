"""What a stop and a start keep, clean or not, and that a directory has one broker."""

import signal
import subprocess
import time

import bhp
import pytest
from bhp import FAIL, REJECT
from harness import BUILD, DEADLINE_S, broker_env, make_secret, wait_for

SECRET = make_secret()


def again(broker, how):
    broker.kill9() if how == "kill -9" else broker.stop()
    broker.start()


@pytest.fixture(params=["clean stop", "kill -9"])
def how(request):
    return request.param


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_cleanly(broker, signum):
    broker.publish()
    broker.stop(signum)
    broker.start()
    assert len(broker.events()) == 1


def test_a_signal_right_after_ready(broker):
    """Whoever reads "ready" may send a signal at once."""
    for _ in range(20):
        broker.stop()
        broker.start()


def test_stop_with_open_connections(broker, connect):
    broker.add_subscription()
    clients = [connect(broker) for _ in range(10)]
    for client in clients:
        client.subscribe()
    held = [broker.raw_http() for _ in range(5)]
    held[0].send(b"GET /v1/events?wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    broker.stop()
    for raw in held:
        raw.close()


def test_everything_is_kept(broker, connect, how):
    broker.add_source("src", SECRET)
    broker.add_source("gone")
    broker.add_subscription("kept", filter={"types": ["t*"]}, lease_ms=5000, max_fails=3)
    broker.add_subscription("gone")
    broker.ok("DELETE", "/v1/sources/gone")
    broker.ok("DELETE", "/v1/subscriptions/gone")
    assert broker.post_signed("src", SECRET, {"type": "t1"}, id="m1") == (200, {"seq": 1})
    broker.publish("t2", id="p1", data={"n": 1}, user_metadata={"k": "v"})
    before = broker.events()
    policy = broker.subscription("kept")
    again(broker, how)
    assert broker.events() == before
    after = broker.subscription("kept")
    same = ("id", "name", "filter", "lease_ms", "max_fails", "backoff", "create_time")
    assert {k: after[k] for k in same} == {k: policy[k] for k in same}
    assert [s["name"] for s in broker.ok("GET", "/v1/sources")["sources"]] == ["src"]
    assert [s["name"] for s in broker.ok("GET", "/v1/subscriptions")["subscriptions"]] == ["kept"]
    # What was taken in is known by its id, at both doors; seqs go on.
    assert broker.post_signed("src", SECRET, {"type": "t1"}, id="m1") == (
        200, {"seq": 1, "duplicate": True})
    assert broker.api("POST", "/v1/events", {"type": "t2", "id": "p1"})[1] == {
        "seq": 2, "duplicate": True}
    assert broker.publish() == 3


def test_an_empty_journal_starts_again(broker, how):
    again(broker, how)
    assert broker.events() == [] and broker.publish() == 1


def test_positions(broker, connect, how):
    broker.add_subscription()
    broker.publish_many(20)
    client = connect(broker)
    client.subscribe(window=20)
    items = client.take(20)
    done = [i for i in items if i.seq <= 5 or i.seq in (9, 10, 15)]
    client.ack(done)
    again(broker, how)
    got = broker.subscription()
    assert (got["acked"], got["floor"], got["leased"]) == (8, 6, 0)
    client = connect(broker)
    client.subscribe(window=20)
    left = client.take(12)
    assert sorted(i.seq for i in left) == [6, 7, 8, 11, 12, 13, 14, 16, 17, 18, 19, 20]
    client.settle_down()
    assert not client.items
    client.ack(left)
    assert broker.subscription()["floor"] == 21


def test_position_of_a_subscription_that_started_new(broker, connect, how):
    broker.publish_many(5)
    broker.add_subscription()
    again(broker, how)
    broker.publish("later")
    client = connect(broker)
    client.subscribe()
    assert client.take_one().seq == 6


def test_retries_keep_their_fails_and_their_time(broker, connect, how):
    # 3 s: longer than the stop and the start take, so that the delay is still running afterwards.
    broker.add_subscription(backoff={"min_ms": 3000, "max_ms": 3000, "factor": 1}, max_fails=2)
    broker.publish()
    client = connect(broker)
    client.subscribe()
    before = time.monotonic()
    client.nack([client.take_one()], FAIL, error="first error")
    again(broker, how)
    started = time.monotonic()
    if started - before < 2.5:
        got = broker.subscription()
        assert (got["delayed"], got["floor"]) == (1, 1)
    client = connect(broker)
    client.subscribe()
    item = client.take_one()
    # Due times that outlive a restart are wall times: 10 ms for what the two clocks disagree.
    assert item.at - before >= 2.99
    assert (item.seq, item.fails) == (1, 1)
    client.nack([item], FAIL, error="second error")
    dead = broker.dead_letters()
    assert (dead[0]["fails"], dead[0]["error"]) == (2, {"message": "second error"})


def test_a_far_delay(broker, connect, how):
    broker.add_subscription()
    broker.publish_many(3)
    client = connect(broker)
    client.subscribe()
    items = client.take(3)
    client.nack(items[:1], FAIL, delay_ms=3600000)
    client.ack(items[1:])
    again(broker, how)
    client = connect(broker)
    client.subscribe()
    client.settle_down()
    assert not client.items
    got = broker.subscription()
    # It waits on disk, with a copy of the event: the position goes past it.
    assert (got["delayed"], got["floor"], got["why_idle"]) == (1, 4, "backoff")


def test_dead_letters(broker, connect, how):
    broker.add_subscription()
    broker.publish("t", id="x", data={"n": 1})
    client = connect(broker)
    client.subscribe()
    client.nack([client.take_one()], REJECT, error="never")
    before = broker.dead_letters()
    again(broker, how)
    assert broker.dead_letters() == before and before[0]["error"] == {"message": "never"}
    assert broker.subscription()["dead"] == 1
    client = connect(broker)
    client.subscribe()
    client.settle_down()
    assert not client.items


def test_replays(broker, connect, how):
    broker.publish_many(10)
    broker.add_subscription()
    client = connect(broker)
    client.subscribe(window=4)
    replay = client.request(bhp.REPLAY, "sub", {"from_seq": 1, "to_seq": 8}, want=bhp.OK)[2]
    items = client.take(4)
    client.ack(items[:2])
    again(broker, how)
    got = broker.ok("GET", f"/v1/replays/{replay}")
    assert (got["state"], got["acked"], got["from_seq"], got["to_seq"]) == ("running", 2, 1, 8)
    client = connect(broker)
    client.subscribe(window=10)
    left = client.take(6)
    assert sorted(i.seq for i in left) == [3, 4, 5, 6, 7, 8]
    assert all(i.flags & bhp.FLAG_REPLAY for i in left)
    client.ack(left)
    wait_for(lambda: broker.ok("GET", f"/v1/replays/{replay}")["state"] == "finished")
    got = broker.subscription()
    assert (got["floor"], got["next"]) == (11, 11)
    again(broker, how)
    got = broker.ok("GET", f"/v1/replays/{replay}")
    assert (got["state"], got["acked"]) == ("finished", 8)


def test_what_was_leased_comes_back_without_a_fail(broker, connect, how):
    """The broker's own end is not the worker's fault."""
    broker.add_subscription(max_fails=1)
    broker.publish_many(3)
    client = connect(broker)
    client.subscribe()
    client.take(3)
    again(broker, how)
    assert broker.dead_letters() == []
    client = connect(broker)
    client.subscribe()
    assert sorted(i.seq for i in client.take(3)) == [1, 2, 3]


def test_times_never_fall(broker, how):
    broker.publish()
    again(broker, how)
    broker.publish()
    stamps = [e["received_at"] for e in broker.events()]
    assert stamps == sorted(stamps)


def test_a_second_broker_is_refused(broker):
    broker.publish()
    second = subprocess.run(
        [str(BUILD / "bellhopd"), "--http", "127.0.0.1:0", "--workers", "127.0.0.1:0", "--data",
         str(broker.data)], capture_output=True, text=True, timeout=DEADLINE_S, env=broker_env())
    assert second.returncode not in (0, 98, 99) and second.returncode > 0, second
    assert "ready" not in second.stdout
    assert str(broker.data) in second.stderr
    assert broker.publish() == 2
    broker.kill9()
    broker.start()  # a dead broker leaves no lock behind


@pytest.mark.parametrize("args,word", [
    (["--http", "nonsense"], "nonsense"), (["--http", "127.0.0.1:99999"], "99999"),
    (["--workers", "127.0.0.1"], "127.0.0.1"), (["--max-body", "-5"], "max"),
    (["--max-body", "99999999999"], "16777216"), (["--what"], "--what"),
    (["--config", "/nonexistent.yaml"], "/nonexistent.yaml"), (["stray"], "stray"),
    (["--data"], "--data"), (["--http", "8.8.8.8:1"], "8.8.8.8"),
    (["--http", "0.0.0.0:0"], "loopback"),
])
def test_bad_arguments(tmp_path, args, word):
    base = ["--http", "127.0.0.1:0", "--workers", "127.0.0.1:0", "--data", str(tmp_path / "d")]
    done = subprocess.run([str(BUILD / "bellhopd"), *base, *args], capture_output=True, text=True,
                          timeout=DEADLINE_S, env=broker_env())
    assert done.returncode > 0 and done.returncode not in (98, 99), done
    assert word in done.stderr
    assert "ready" not in done.stdout


def test_a_port_in_use(broker, tmp_path):
    done = subprocess.run([str(BUILD / "bellhopd"), "--http", broker.http_address, "--workers",
                           "127.0.0.1:0", "--data", str(tmp_path / "other")], capture_output=True,
                          text=True, timeout=DEADLINE_S, env=broker_env())
    assert done.returncode > 0 and broker.http_address in done.stderr


def test_data_directory_is_private(broker):
    assert broker.data.stat().st_mode & 0o077 == 0


def test_config_file(brokers, tmp_path):
    """What the file says holds, a flag wins over it, and a key that does not exist is named."""
    broker = brokers(config="max_body: 2048\nlog: debug\ndata: /nonexistent/never\n")
    assert broker.api("POST", "/v1/events", {"type": "t", "data": "x" * 3000})[0] == 413
    assert broker.publish() == 1
    assert (broker.data / "store").is_dir()
    (tmp_path / "typo.yaml").write_text("max_bdoy: 2048\n")
    done = subprocess.run([str(BUILD / "bellhopd"), "--config", str(tmp_path / "typo.yaml"),
                           "--data", str(tmp_path / "d")], capture_output=True, text=True,
                          timeout=DEADLINE_S, env=broker_env())
    assert done.returncode == 2 and "max_bdoy" in done.stderr and "typo.yaml" in done.stderr
