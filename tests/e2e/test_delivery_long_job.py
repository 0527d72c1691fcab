"""A job of hours in scaled time: many leases long, renewed by a worker with heartbeats. With the worker
alive it is delivered once; with the worker killed, once more."""

import contextlib
import json
import os
import time

import bhp
import pytest
from clitools import cli, running, sub
from harness import DEADLINE_S, wait_for

pytestmark = pytest.mark.waits

LEASE_MS = 600
LEASES = 12  # so many the job is long
ATTEMPTS = 10
SOON = {"min_ms": 1, "max_ms": 1, "factor": 1}


class StoodStill(Exception):
    """The machine kept the test from renewing for most of a lease: nothing can be shown."""


def renew(client, item, since):
    """Holds the item for LEASES leases; the moment of the last renewal is returned."""
    end = since + LEASES * LEASE_MS / 1000
    while time.monotonic() < end:
        try:
            # The broker asks at a quarter of the lease; waiting for that would cut it fine.
            client.expect(bhp.REVOKE, timeout=LEASE_MS / 4000)
            revoked = True
        except TimeoutError:
            revoked = False
        settled = client.extend([item])
        now = time.monotonic()
        if now - since > 0.75 * LEASE_MS / 1000:
            raise StoodStill
        assert not revoked and settled.ok == [item.tag], f"the lease was lost: {settled}"
        since = now
    return since


def attempt(brokers, connect, number, killed):
    broker = brokers(name=f"n{number}")
    broker.add_subscription(lease_ms=LEASE_MS, backoff=SOON)
    broker.publish()
    one, two = connect(broker, heartbeat_ms=1000), connect(broker, heartbeat_ms=300000)
    one.subscribe(window=1)
    item = one.take_one()
    two.subscribe(window=1)
    last = renew(one, item, item.at)
    two.settle_down()
    assert not two.items and one.pings == 0  # who speaks needs no PING
    if killed:
        one.close()
        item = two.take_one()
        assert (item.seq, item.fails, item.deliveries) == (1, 1, 2)
        last = renew(two, item, item.at)
    holder = two if killed else one
    settled = holder.ack([item])
    if time.monotonic() - last > 0.75 * LEASE_MS / 1000:
        raise StoodStill
    assert settled.ok == [item.tag]
    for client in (two,) if killed else (one, two):
        client.settle_down()
        assert not client.items
    got = broker.subscription()
    status = broker.ok("GET", "/v1/status")["totals"]
    assert (got["acked"], got["dead"], got["leased"]) == (1, 0, 0)
    assert status["delivered"] == (2 if killed else 1)


@pytest.mark.parametrize("killed", [False, True])
def test_a_long_job(brokers, connect, killed):
    for number in range(ATTEMPTS):
        try:
            return attempt(brokers, connect, number, killed)
        except StoodStill:
            pass
    pytest.skip("this machine stood still for most of a lease each time")


@contextlib.contextmanager
def job(broker, *args):
    """A `bellhop work` whose program runs until the test says go: (process, go)."""
    started, gate = broker.directory / "started", broker.directory / "gate"
    os.mkfifo(started)
    os.mkfifo(gate)
    program = f"echo >started; exec timeout {DEADLINE_S} cat gate"
    with running(broker, "work", "sub", *args, "--", "sh", "-c", program) as worker:
        started.read_text()
        yield worker, lambda: gate.write_text("")


def yardstick(broker):
    """Waits until a lease LEASES times as long, which nobody renews, has run out."""
    broker.add_subscription("yardstick", lease_ms=LEASE_MS * LEASES, start="first")
    with bhp.Client(broker.workers_port) as client:
        client.subscribe("yardstick")
        item = client.take_one()
        assert client.expect_revoke().tags == [item.tag]
        client.ack([item])


def test_the_command_line_renews_while_its_program_runs(broker):
    sub(broker, lease_ms=LEASE_MS)
    broker.publish("job")
    with job(broker, "--count", "1", "--json") as (worker, go):
        yardstick(broker)
        assert worker.poll() is None
        go()
        [line] = worker.communicate()[0].splitlines()
    verdict = json.loads(line)
    # A machine that stands still for a whole lease may cost one; nothing else does.
    assert verdict["verdict"] == "ack"
    expired = broker.ok("GET", "/v1/status")["totals"]["expired"] - 1  # less the yardstick's own
    assert verdict["attempt"] == 1 and expired <= 1
    assert broker.subscription()["acked"] == 1


def test_a_killed_worker_process(broker):
    """SIGKILL in the middle: the job goes to the next worker at once, not when the lease is over."""
    sub(broker, lease_ms=600000, backoff=SOON)
    broker.publish("job")
    with job(broker, "--resume", "0") as (worker, go):
        worker.kill()
        worker.wait()
        wait_for(lambda: broker.subscription()["leased"] == 0, what="the end of the lease")
        done = cli(broker, "work", "sub", "--count", "1", "--json", "--", "true")
        go()  # the program outlived its worker
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert (verdict["verdict"], verdict["attempt"], verdict["seq"]) == ("ack", 2, 1)
    assert broker.subscription()["acked"] == 1
