"""The disk is full: a small file system of its own, as root."""

import errno
import json
import subprocess

import bhp
import pytest
from faults import FragileBroker, need_root
from harness import make_secret, signed_headers, wait_for

SECRET = make_secret("r")
BODY = "x" * 100_000
DISK_MIB = 96  # the broker keeps 64 MiB of it for settlements


@pytest.fixture
def small_disk(tmp_path):
    need_root("a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "bellhop-test",
                           str(place)], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip("no file system can be mounted here: " + made.stderr.strip())
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def broker(tmp_path, small_disk):
    broker = FragileBroker(tmp_path)
    broker.data = small_disk / "data"
    yield broker.start()
    broker.end()


def room(broker):
    return broker.ok("GET", "/v1/status")["room"]


def publish(broker):
    """(status, headers, answer)."""
    status, headers, answer = broker.request(
        "POST", "/v1/events", json.dumps({"type": "large", "data": BODY}),
        {"content-type": "application/json"})
    return status, headers, json.loads(answer)


def fill(broker):
    """Publishes until refused; how many went in."""
    for count in range(10_000):
        status, headers, answer = publish(broker)
        if status != 200:
            assert (status, answer["error"]["code"]) == (503, "no_room"), answer
            assert int(headers["Retry-After"]) > 0
            return count
    raise AssertionError("the disk takes everything")


def take_all_space(place):
    """Somebody else's file grows until nothing is left."""
    path = place / "others"
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return path


def test_a_full_disk_refuses_new_events_and_keeps_moving(broker, small_disk):
    broker.add_source("src", SECRET)
    broker.add_subscription(start="first")
    count = fill(broker)
    assert count > 100 and not room(broker)

    # Every door says the same, and that it may be tried again.
    body = b'{"type":"small"}'
    status, headers, answer = broker.request("POST", "/in/src", body, signed_headers(SECRET, body))
    assert (status, json.loads(answer)["error"]["code"]) == (503, "no_room")
    assert int(headers["Retry-After"]) > 0
    with bhp.Client(broker.workers_port) as client:
        error = client.error_of(bhp.PUBLISH, [["small", "", "", "", "", 0, 0, b""]])
        assert error[:2] == (501, "no_room") and error.retry_ms > 0 and not error.fatal

        # Deliveries, acks, dead letters, retries.
        client.subscribe(window=64, window_bytes=64 << 20)
        rejected, delayed = client.take(2)
        assert client.nack([rejected], bhp.REJECT).ok == [rejected.tag]
        assert client.nack([delayed], bhp.FAIL, delay_ms=1).ok == [delayed.tag]
        acked = set()
        while len(acked) < count - 1:
            item = client.take_one()
            assert client.ack([item]).ok == [item.tag]
            acked.add(item.seq)
    assert not room(broker)
    assert [letter["seq"] for letter in broker.dead_letters()] == [rejected.seq]

    # A restart on the full disk, too.
    broker.restart()
    assert publish(broker)[0] == 503
    assert broker.subscription()["floor"] == count + 1

    # Space comes back: no restart is needed.
    pid = broker.process.pid
    subprocess.run(["mount", "-o", f"remount,size={2 * DISK_MIB}m", str(small_disk)], check=True)
    wait_for(lambda: publish(broker)[0] == 200, what="room")
    assert room(broker) and broker.process.pid == pid
    broker.stop()


def test_others_take_the_last_byte(broker, small_disk):
    """Nothing is left at all: acks reuse the store's own free pages as long as there are some. If
    they do not suffice the broker stops with the reason, and loses nothing."""
    broker.add_subscription(start="first")
    count = fill(broker)
    others = take_all_space(small_disk)
    confirmed, code = set(), None
    try:
        with bhp.Client(broker.workers_port) as client:
            client.subscribe(window=8, window_bytes=64 << 20)
            while len(confirmed) < count:
                item = client.take_one()
                assert client.ack([item]).ok == [item.tag]
                confirmed.add(item.seq)
        assert publish(broker)[0] == 503
    except (bhp.Closed, ConnectionError):
        code = broker.exit_code()
        assert code == 1 and "No space left on device" in broker.log(), broker.log_tail()
    print(f"nothing left: {len(confirmed)} of {count} acks confirmed, exit {code}")
    others.unlink()
    if code is not None:
        broker.start()
    subprocess.run(["mount", "-o", f"remount,size={2 * DISK_MIB}m", str(small_disk)], check=True)
    wait_for(lambda: publish(broker)[0] == 200, what="room")
    with bhp.Client(broker.workers_port) as client:
        client.subscribe(window=8, window_bytes=64 << 20)
        left = set(range(1, count + 2)) - confirmed
        while left:
            item = client.take_one()
            assert item.seq not in confirmed, f"{item.seq} came after its ack was confirmed"
            client.ack([item])
            left.discard(item.seq)
    broker.stop()
