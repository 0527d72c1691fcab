"""Power cuts of the whole broker, rehearsed: it runs under load with every write, sync and answer
recorded (record.c), then thousands of disks that a power cut may leave are rebuilt and restarted on.

BELLHOP_POWER_STATES says how many, BELLHOP_TEST_SEED which. A failing state is one line to replay;
its log is kept in the build directory.
"""

import os
import shutil

import pytest
from crash import Crash, scratch
from harness import BUILD, Broker
from workload import RecordedBroker, run

STATES = int(os.environ.get("BELLHOP_POWER_STATES", "3000"))
SEED = int(os.environ.get("BELLHOP_TEST_SEED", "20261121"))
OPERATIONS = int(os.environ.get("BELLHOP_POWER_OPERATIONS", "24"))  # per producer and burst
STARTED = max(10, STATES // 400)  # states on which the broker itself starts


class Starter:
    """Starts the real broker on some of the states."""

    def __init__(self, directory):
        self.directory, self.next = directory, 0

    def __call__(self, crash, number, directory, digest):
        if crash.states < self.next or crash.sampled >= STARTED or not (directory / "data").exists():
            return
        self.next = crash.states + STATES // STARTED
        crash.sampled += 1
        home = self.directory / f"started-{crash.sampled}"
        home.mkdir()
        broker = Broker(home)
        shutil.copytree(directory / "data", broker.data)
        broker.start()
        try:
            found = crash.known[digest][0]
            here = {e["seq"]: e.get("id", "") for e in broker.events()}
            # It runs, so its retention may have gone on.
            missing = {s for s, (event, _) in found.journal.items()
                       if here.get(s, None if s in here else event.id) != event.id}
            assert not missing and set(here) <= set(found.journal), (number, sorted(missing)[:5])
            assert here or not found.journal
            broker.stop()
        finally:
            broker.end()


def test_what_was_acknowledged_survives_every_power_cut(tmp_path):
    broker = RecordedBroker(tmp_path)
    broker.start()
    try:
        log = run(broker, SEED, OPERATIONS)
    finally:
        broker.end()
    place = scratch()
    crash = Crash(log, SEED, place, Starter(tmp_path))
    try:
        crash.run(STATES)
    finally:
        crash.close()
        shutil.rmtree(place)
    report = crash.report()
    print(report)
    (tmp_path / "report.txt").write_text(report + "\n")
    if crash.failures:
        kept = BUILD / "power" / f"{SEED}.log"
        kept.parent.mkdir(exist_ok=True)
        shutil.copy(log, kept)
        pytest.fail(crash.complain(kept) + "\n" + report)
    # It was a broker at work that lost its power, not an idle one.
    wire = crash.oracle.wire
    kinds = {s.kind for s in wire.settlements}
    assert kinds == {"ack", "fail", "reject", "release"}
    assert {t[2] for t in wire.tasks} == {"replay", "redrive"}
    assert len(wire.published) > 20 * OPERATIONS and crash.sampled > 3
    assert any(found.dead for found, _ in crash.known.values())
    assert any(found.first > 1 for found, _ in crash.known.values()), "nothing was trimmed"
