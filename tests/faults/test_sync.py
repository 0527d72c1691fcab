"""The sync to disk: it fails once, and it is slow."""

import http.client
import json
import threading
import time

import bhp
import pytest
from faults import LONG, FragileBroker, Gone, Story, need_preload
from harness import DEADLINE_S, wait_for

SYNCS = "fdatasync,fsync"
SLOW_MS = 20


@pytest.fixture
def fragile(tmp_path):
    need_preload()
    broker = FragileBroker(tmp_path)
    yield broker
    broker.end()


def tell_until_gone(broker, story):
    """True: it lived through the whole story."""
    if not broker.try_start():
        return False
    try:
        story.tell()
    except Gone:
        return False
    broker.stop()
    return True


@pytest.mark.parametrize("onward", [False, True], ids=["once", "from_then_on"])
def test_a_failed_sync_is_never_tried_again(tmp_path, onward):
    """Each sync in turn: the process stops with the reason, touches its files no more, and nothing
    that it answered is lost."""
    need_preload()
    number = 0
    while True:
        number += 1
        directory = tmp_path / str(number)
        directory.mkdir()
        broker = FragileBroker(directory)
        story = Story(broker)
        broker.arm(at=number, error="EIO", calls=SYNCS, onward=onward)
        try:
            if tell_until_gone(broker, story):
                assert not broker.fired()
                break
            assert broker.fired(), broker.log_tail()
            assert broker.exit_code() == 1, broker.log_tail()
            assert "Input/output error" in broker.log() and "disk" in broker.log()
            assert not broker.after_failed_sync()
            broker.disarm().start()
            story.holds()
            broker.stop()
        finally:
            broker.end()
    assert number > 10, "the story has more syncs than that"


class Load:
    """Publishers and a worker until stop() is called."""

    def __init__(self, broker, publishers):
        self.broker = broker
        self.stopping = threading.Event()
        self.answered, self.wrong, self.acked = {}, [], set()
        self.shortest_s = float("inf")
        self.threads = [threading.Thread(target=self.publish, args=(i,)) for i in range(publishers)]
        self.threads.append(threading.Thread(target=self.work))
        for thread in self.threads:
            thread.start()

    def publish(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", self.broker.http_port,
                                                timeout=DEADLINE_S)
        count = 0
        while not self.stopping.is_set():
            count += 1
            msg_id = f"p{number}-{count}"
            body = json.dumps({"type": "t", "id": msg_id, "data": "x" * 2000})
            began = time.monotonic()
            connection.request("POST", "/v1/events", body)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            took = time.monotonic() - began
            if answer.status != 200:
                self.wrong.append(said)
                break
            self.shortest_s = min(self.shortest_s, took)
            self.answered[said["seq"]] = msg_id
        connection.close()

    def work(self):
        with bhp.Client(self.broker.workers_port) as client:
            client.subscribe("sub", window=64)
            while not self.stopping.is_set():
                try:
                    items = client.take(1, timeout=0.5)
                except TimeoutError:
                    continue
                items += client.items
                client.items.clear()
                for item in items:
                    if item.seq in self.acked:
                        self.wrong.append(f"{item.seq} came again")
                settled = client.ack(items)
                seqs = {item.tag: item.seq for item in items}
                self.acked.update(seqs[tag] for tag in settled.ok)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def test_a_slow_sync_costs_time_and_nothing_else(fragile):
    """20 ms per sync: batches grow, memory does not, and no answer is quicker than the disk."""
    fragile.arm(sync_ms=SLOW_MS).start()
    fragile.add_subscription()
    load = Load(fragile, publishers=16)
    try:
        first = 4000 if LONG else 500
        wait_for(lambda: len(load.answered) >= first, 120, what="the load")
        warm_kib = fragile.status_number("RssAnon")
        wait_for(lambda: len(load.answered) >= 3 * first, 240, what="the load")
        grown_kib = fragile.status_number("RssAnon") - warm_kib
    finally:
        load.stop()
    assert not load.wrong, load.wrong[:3]
    print(f"slow sync of {SLOW_MS} ms: {len(load.answered)} published, {len(load.acked)} acked, "
          f"shortest answer {load.shortest_s * 1000:.1f} ms, RssAnon {warm_kib} + {grown_kib} KiB")
    assert load.shortest_s >= SLOW_MS / 1000, "an answer left before its sync was over"
    assert grown_kib < 4096, f"{grown_kib} KiB more after {2 * first} events more"
    journal = {e["seq"]: e["id"] for e in fragile.events()}
    assert all(journal[seq] == msg_id for seq, msg_id in load.answered.items())
    fragile.stop()
