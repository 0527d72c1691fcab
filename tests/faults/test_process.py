"""What is done to the process: it is stopped for a while, has no descriptors left, or little memory
while its peers claim a lot."""

import os
import resource
import signal
import socket
import struct
import threading
import time

import bhp
import pytest
from faults import LONG, FragileBroker, need_root
from harness import DEADLINE_S, wait_for

LEASE_MS = 500
STOPPED_S = 30 if LONG else 4  # longer than leases of 500 ms and three heartbeats of a second


@pytest.fixture
def fragile(tmp_path):
    broker = FragileBroker(tmp_path)
    yield broker
    broker.end()


# -- stopped --

def stopped_for(broker, seconds):
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        end = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() > end, seconds + DEADLINE_S)
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)


def renew(client, items, done):
    """Renews all along, also while nobody reads it."""
    while not done.wait(LEASE_MS / 5000):
        client.send(bhp.EXTEND, 0, 1, bhp.ranges_of(i.tag for i in items), None, False)


def test_a_stopped_broker_goes_on(fragile):
    """SIGSTOP for longer than every lease and the heartbeats: connections live, each event comes at
    most once more, none becomes a dead letter, and acks that waited in the socket count."""
    count = 40
    fragile.start().add_subscription(lease_ms=LEASE_MS, max_fails=3, start="first",
                                     backoff={"min_ms": 1, "max_ms": 1, "factor": 1, "jitter": 0})
    with bhp.Client(fragile.workers_port, heartbeat_ms=1000) as client, \
            bhp.Client(fragile.workers_port, heartbeat_ms=1000) as silent:
        fragile.add_subscription("quiet", lease_ms=LEASE_MS, max_fails=3)
        client.subscribe(window=count)
        silent.subscribe("quiet", window=count)
        fragile.publish_many(count)
        items = client.take(count)
        silent.take(count)
        done = threading.Event()
        renewing = threading.Thread(target=renew, args=(client, items, done))
        renewing.start()
        try:
            stopped_for(fragile, STOPPED_S)
        finally:
            done.set()
            renewing.join()
        # Its acks may come before or after the leases ran out: either way nothing is lost.
        client.settle(bhp.ACK, items)
        again = {}
        while fragile.subscription()["floor"] <= count:
            for item in client.take(1) + list(client.items):
                again[item.seq] = again.get(item.seq, 0) + 1
                client.ack([item])
            client.items.clear()
        # Nobody renewed these: they are the worker's no more, and it is connected still.
        lost = set()
        while len(lost) < count:
            lost.update(silent.expect_revoke().tags)
        silent.ping()
    print(f"SIGSTOP {STOPPED_S} s: {len(again)} of {count} renewed leases came again, "
          f"{len(lost)} of {count} others ran out once")
    assert all(times == 1 for times in again.values()), again
    assert fragile.subscription("quiet")["dead"] == 0 and not fragile.dead_letters()
    assert fragile.subscription()["acked"] == count
    fragile.stop()


def test_silence_while_it_was_stopped_is_forgiven(fragile):
    """It could not have heard anybody: a worker that had nothing to say is not taken for dead."""
    fragile.start().add_subscription()
    with bhp.Client(fragile.workers_port, heartbeat_ms=1000) as client:
        client.subscribe()
        stopped_for(fragile, STOPPED_S)
        with pytest.raises(TimeoutError):
            client.take_one(timeout=2)  # it says nothing of its own, and answers what it is asked
        assert client.pings
        fragile.publish()
        client.ack([client.take_one()])
    assert "no sign of life" not in fragile.log()
    fragile.stop()


# -- no descriptors --

def open_descriptors(broker):
    return len(os.listdir(f"/proc/{broker.process.pid}/fd"))


@pytest.mark.parametrize("how", ["known_at_start", "taken_away"])
def test_no_descriptors_left(fragile, how):
    """200 clients, each with a request under way, and 64 descriptors: those who are connected are served,
    the others wait in the backlog, nothing spins, and when descriptors come back all are served."""
    if how == "known_at_start":
        fragile.before = ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash"]
    fragile.start()
    served = bhp.Client(fragile.workers_port)
    served.publish({})
    if how == "taken_away":
        # The broker has counted on more: accept(2) itself fails.
        soft = open_descriptors(fragile) + 20
        hard = resource.prlimit(fragile.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(fragile.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
    clients = [socket.create_connection(("127.0.0.1", fragile.http_port), timeout=DEADLINE_S)
               for _ in range(200)]
    try:
        for client in clients:
            client.sendall(b"GET /v1/events?type=late&wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n"
                           b"Connection: close\r\n\r\n")
        wait_for(lambda: "no more connections are accepted" in fragile.log(), what="the pause")
        if how == "taken_away":
            assert "Too many open files" in fragile.log()
        before_s = fragile.cpu_s()
        for _ in range(50):
            served.publish({})
        busy_s = fragile.cpu_s() - before_s
        before_s, began = fragile.cpu_s(), time.monotonic()
        wait_for(lambda: time.monotonic() - began > 2, what="two idle seconds")
        idle_s = fragile.cpu_s() - before_s
        print(f"descriptors {how}: {open_descriptors(fragile)} open; processor time of 50 "
              f"publishes {busy_s:.2f} s, of 2 idle seconds {idle_s:.2f} s")
        # A loop that spins uses all of the two seconds.
        assert idle_s < 0.5, "it is busy while it waits"
        assert fragile.log().count("no more connections are accepted") < 5
        # Each that is served and goes makes place for the next: all of them are.
        served.publish({"type": "late"})
        for number, client in enumerate(clients):
            assert client.recv(100).startswith(b"HTTP/1.1 200"), number
            client.close()
    finally:
        for client in clients:
            client.close()
    served.publish({})
    served.close()
    fragile.stop()


# -- little memory --

MEMORY_MIB = 64
ROUNDS = 100 if LONG else 10


class MemoryGroup:
    """A control group of version 1 or 2 with a limit of memory."""

    def __init__(self, name):
        v1, v2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
        if os.path.exists(f"{v1}/memory.limit_in_bytes"):
            self.path, limit = f"{v1}/{name}", "memory.limit_in_bytes"
            self.events = "memory.oom_control"
        elif "memory" in read(f"{v2}/cgroup.subtree_control").split():
            self.path, limit, self.events = f"{v2}/{name}", "memory.max", "memory.events"
        else:
            pytest.skip("there is no control group of memory here")
        try:
            os.mkdir(self.path)
            with open(f"{self.path}/{limit}", "w") as file:
                file.write(str(MEMORY_MIB << 20))
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        self.procs = f"{self.path}/cgroup.procs"

    def kills(self):
        for line in read(f"{self.path}/{self.events}").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def remove(self):
        wait_for(lambda: not read(self.procs), what="the group's last process to go")
        os.rmdir(self.path)


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


@pytest.fixture
def memory_group():
    need_root("a control group")
    group = MemoryGroup(f"bellhop-test-{os.getpid()}")
    yield group
    group.remove()


# Frames whose length or whose insides claim more than there is: each is refused by its claim.
HUGE_FRAMES = [
    struct.pack(">I", 0xffffffff),
    struct.pack(">I", 0x7fffffff) + b"\x93\x09",
    struct.pack(">I", 2 << 20) + b"\x00" * 4096,
    struct.pack(">I", 9) + b"\x93\x09\x01\xdd\xff\xff\xff\xff\xc0",  # an array of 2^32 - 1 events
    struct.pack(">I", 8) + b"\x93\x09\x01\xc6\xff\xff\xff\xff",  # bytes
    struct.pack(">I", 8) + b"\x93\x09\x01\xdf\xff\xff\xff\xff",  # a map
]
HUGE_REQUESTS = [
    b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 4294967295\r\n\r\n{",
    b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /v1/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n{",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: " + b"b" * 100_000 + b"\r\n\r\n",
]
# Within the limits: each may ask for a body of a MiB and never send it.
HALF_REQUEST = b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n{"
HALF_FRAME = struct.pack(">I", 1 << 20) + b"\x93\x09"


def send_and_read(data, *address):
    """Sends it and reads until the broker closes; what it said."""
    said = b""
    with socket.create_connection(address, timeout=DEADLINE_S) as peer:
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while piece := peer.recv(65536):
                said += piece
        except ConnectionError:
            pass
    return said


def test_claims_do_not_become_memory(fragile, memory_group):
    """64 MiB for everything, and frames and requests that claim gigabytes: all refused."""
    fragile.before = ["bash", "-c", f'echo $$ > {memory_group.procs}; exec "$@"', "bash"]
    fragile.start()
    fragile.add_subscription()
    half = []
    try:
        for _ in range(ROUNDS):
            for data in HUGE_REQUESTS:
                said = send_and_read(data, "127.0.0.1", fragile.http_port)
                status = said.split(b" ")[1]
                assert status in (b"400", b"413", b"414", b"431"), (data[:60], said[:80])
            for frame in HUGE_FRAMES:
                with bhp.Client(fragile.workers_port) as client:
                    client.send_bytes(frame)
                    client.wait_closed()
                    assert client.frames and client.frames[-1][0] in (bhp.ERR, bhp.GOAWAY)
            for data, port in ((HALF_REQUEST, fragile.http_port),
                               (bhp.GREETING + HALF_FRAME, fragile.workers_port)):
                half.append(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
                half[-1].sendall(data)
        fragile.publish_many(2000)
        with bhp.Client(fragile.workers_port) as client:
            client.subscribe(window=500)
            for _ in range(2000):
                client.ack([client.take_one()])
        print(f"{MEMORY_MIB} MiB: {ROUNDS * len(HUGE_REQUESTS + HUGE_FRAMES)} huge claims refused, "
              f"RssAnon {fragile.status_number('RssAnon')} KiB, killed {memory_group.kills()}")
        assert memory_group.kills() == 0
    finally:
        for peer in half:
            peer.close()
    fragile.stop()
