"""How a broker stops with workers connected: QUIET, what they may still do, GOAWAY, and what the
next start finds."""

import signal
import socket

import bhp
import pytest
from harness import wait_for

HOUR_MS = "600000"  # so long that a test which waits for it fails by its own deadline


def stop(broker, signum=signal.SIGTERM):
    broker.process.send_signal(signum)


def refuses(broker):
    """Nobody is accepted any more."""
    def refused():
        try:
            socket.create_connection(("127.0.0.1", broker.workers_port), timeout=5).close()
        except ConnectionRefusedError:
            return True
        return False
    return wait_for(refused, what="the listener's end")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_who_holds_nothing_goes_at_once(brokers, connect, signum):
    broker = brokers("--drain-ms", HOUR_MS)
    idle, subscribed = connect(broker), connect(broker)
    subscribed.subscribe(create={})
    stop(broker, signum)
    for client in (idle, subscribed):
        assert client.expect_quiet().deadline_ms == int(HOUR_MS)
        goaway = client.expect(bhp.GOAWAY)
        assert goaway[3] > 0
        client.wait_closed()
        client.close()
    broker.wait_exit()


def test_a_worker_finishes_what_it_holds(brokers, connect):
    broker = brokers("--drain-ms", HOUR_MS, "--restart-grace", "0")
    broker.add_subscription()
    broker.publish_many(6)
    client = connect(broker)
    client.subscribe(window=3)
    held = client.take(3)
    stop(broker)
    client.expect_quiet()
    refuses(broker)
    assert client.error_of(bhp.SUBSCRIBE, 2, "sub", 1, 1, {})[:2] == (503, "shutting_down")
    assert client.ack(held[:2]).ok == [1, 2]  # there is room in its window, and nothing comes
    client.settle_down()
    assert not client.items and not [f for f in client.frames if f[0] == bhp.GOAWAY]
    assert client.ack(held[2:]).ok == [3]  # answered before the goodbye
    client.expect(bhp.GOAWAY)
    client.wait_closed()
    assert not client.items
    client.close()
    broker.wait_exit()
    broker.start()
    assert broker.subscription()["acked"] == 3
    client = connect(broker)
    client.subscribe()
    assert [(i.seq, i.fails, i.deliveries) for i in client.take(3)] == [(4, 0, 1), (5, 0, 1), (6, 0, 1)]


def test_at_the_deadline_the_rest_goes(brokers, connect):
    """What is unsettled then comes again, and is nobody's fault."""
    broker = brokers("--drain-ms", "200", "--restart-grace", "0")
    broker.add_subscription(max_fails=1)
    broker.publish_many(2)
    client = connect(broker)
    client.subscribe()
    client.take(2)
    stop(broker)
    assert client.expect_quiet().deadline_ms == 200
    client.expect(bhp.GOAWAY)
    broker.wait_exit()
    broker.start()
    assert broker.dead_letters() == []
    client = connect(broker)
    client.subscribe()
    assert [(i.seq, i.fails) for i in client.take(2)] == [(1, 0), (2, 0)]


def test_a_second_signal_ends_at_once(brokers, connect):
    broker = brokers("--drain-ms", HOUR_MS, "--restart-grace", "0")
    broker.add_subscription()
    broker.publish()
    client = connect(broker)
    client.subscribe()
    client.take()
    stop(broker)
    client.expect_quiet()
    stop(broker)
    client.expect(bhp.GOAWAY)
    broker.wait_exit()


def test_held_http_requests_are_answered(brokers):
    broker = brokers("--drain-ms", HOUR_MS)
    http = broker.raw_http()
    http.send(b"GET /v1/events?from_seq=1&wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["http"] >= 2)
    stop(broker)
    assert http.response()[0] == 200
    http.close()
    broker.wait_exit()


def test_a_half_shaken_hand_does_not_hold_it_up(brokers, connect):
    broker = brokers("--drain-ms", HOUR_MS)
    client = connect(broker, hello=False)
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["workers"] == 1)
    stop(broker)
    error = client.as_err(client.expect(bhp.ERR))
    assert error[:2] == (503, "shutting_down") and error.fatal
    client.wait_closed()
    client.close()
    broker.wait_exit()


# -- sessions that may resume --

def test_who_may_resume_takes_its_leases_along(brokers, connect):
    """It is not waited for, and what it holds is its own again after the start."""
    broker = brokers("--drain-ms", HOUR_MS, "--restart-grace", HOUR_MS)
    broker.add_subscription(max_fails=1)
    broker.publish_many(3)
    client = connect(broker, resume_ms=60000)
    assert client.welcome["resume_ms"] == 60000
    client.subscribe(window=3)
    held = client.take(3)
    stop(broker)
    client.expect_quiet()
    client.expect(bhp.GOAWAY)
    client.wait_closed()
    client.close()
    broker.wait_exit()
    broker.start()
    again = connect(broker, resume_ms=60000, resume=client.welcome["session"])
    claims = [bhp.claim_of(i) for i in held[:2]]
    assert again.subscribe(claims=claims, window=3)["resumed"] == 2
    assert again.ack(held[:2]).ok == [i.tag for i in held[:2]]
    got = broker.subscription()
    assert (got["acked"], got["dead"]) == (2, 0)


def test_a_connection_that_is_lost(brokers, connect):
    """Its leases wait for it; what it does not claim goes to others at once, without a fail."""
    broker = brokers()
    broker.add_subscription(max_fails=1)
    broker.publish_many(3)
    client = connect(broker, resume_ms=10**9)
    assert client.welcome["resume_ms"] == 600000  # what the limit allows
    client.subscribe(window=3)
    held = client.take(3)
    client.close()
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["workers"] == 0)
    other = connect(broker)
    other.subscribe(window=3)
    other.settle_down()
    assert not other.items
    again = connect(broker, resume_ms=60000, resume=client.welcome["session"])
    assert again.welcome["session"] == client.welcome["session"]  # it goes on
    stranger = held[2]._replace(seq=99)
    answer = again.subscribe(claims=[bhp.claim_of(i) for i in (held[0], stranger)], window=2)
    assert answer["resumed"] == 1
    revoked = again.expect_revoke()
    assert revoked == (1, [stranger.tag], "lost")
    assert again.extend([held[0]], 5000).ok == [held[0].tag]
    # Fairness decides who gets which.
    wait_for(lambda: broker.subscription()["leased"] == 3)
    for worker in (again, other):
        worker.settle_down()
    assert {i.seq for worker in (again, other) for i in worker.items} == {2, 3}
    assert {i.fails for worker in (again, other) for i in worker.items} == {0}
    assert again.ack([held[0]]).ok == [held[0].tag]
    assert broker.subscription()["dead"] == 0


def test_a_connection_that_only_the_worker_knows_to_be_dead(brokers, connect):
    broker = brokers()
    broker.add_subscription(max_fails=1)
    broker.publish()
    client = connect(broker, resume_ms=60000)
    client.subscribe()
    item = client.take_one()
    again = connect(broker, resume_ms=60000, resume=client.welcome["session"])
    client.wait_closed()
    assert again.subscribe(claims=[bhp.claim_of(item)])["resumed"] == 1
    assert again.ack([item]).ok == [item.tag]
    assert broker.subscription()["acked"] == 1


@pytest.mark.parametrize("claims", [[1, 1, 0, 1, 2, 0], [2, 1, 0, 1, 2, 0], [0, 1, 0]])
def test_claims_that_cannot_be(broker, connect, claims):
    client = connect(broker, resume_ms=1000, resume="x" * 32)
    options = {"create": "{}", "claims": claims}
    assert client.error_of(bhp.SUBSCRIBE, 1, "made", 1, 1, options).word == "invalid_request"
    client.ping()


@pytest.mark.parametrize("tag,first", [(41, 42), (2**63, 1), (2**64 - 1, 1)])
def test_claims_of_nothing(broker, connect, tag, first):
    """They are refused by name, and new tags begin above them, but for what was never a tag."""
    client = connect(broker, resume_ms=1000, resume="x" * 32)
    assert client.subscribe("made", create={}, claims=[(tag, 7, 0)])["resumed"] == 0
    assert client.expect_revoke() == (1, [tag], "lost")
    broker.publish()
    assert client.take_one().tag == first


def test_close_gives_everything_back(broker, connect):
    """CLOSE is the worker's word that it holds nothing, whatever it asked for in HELLO."""
    broker.add_subscription(max_fails=1)
    broker.publish()
    client = connect(broker, resume_ms=60000)
    client.subscribe()
    client.take_one()
    client.send(bhp.CLOSE, 0)
    client.wait_closed()
    other = connect(broker)
    other.subscribe()
    assert other.take_one().fails == 0
