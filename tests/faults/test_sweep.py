"""Every fallible file call of the broker fails once: the first one in one run, the second one in
the next, until a run has no such call left.

In each run the broker either serves all the same or exits with a reason, and a start without the
fault finds everything that was acknowledged. Two sweeps per error: on an empty directory, and on a
store that a broker left behind. BELLHOP_FAULTS_LONG=1 also sweeps every allocation, not only some.
"""

import shutil
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import LONG, FragileBroker, Gone, Story, need_preload, reason_named
from harness import DEADLINE_S

CALLS_MAX = 100000  # a sweep that has not ended by then never will
AT_A_TIME = 6  # rounds wait for disks and sockets most of the time
# The first allocations are the broker's and LMDB's, most of the others libcrypto's, which makes do.
SOME_ALLOCATIONS = [*range(1, 160, 8), *range(160, CALLS_MAX, 151)]


def old_store(tmp_path):
    """A data directory that a broker wrote and left, and the story it was told."""
    directory = tmp_path / "old"
    directory.mkdir()
    broker = FragileBroker(directory)
    try:
        broker.start()
        story = Story(broker)
        story.tell("old")
        broker.stop()
    finally:
        broker.end()
    return broker.data, story


def live(broker, story):
    """A start, the story, a clean stop. True: the broker lived through all of it."""
    if not broker.try_start():
        return False
    try:
        story.tell("new")
    except Gone:
        broker.process.wait(DEADLINE_S)  # its peer noticed before the process was gone
        return False
    broker.process.send_signal(signal.SIGTERM)
    return broker.process.wait(DEADLINE_S) == 0


def judge_exit(broker, fired):
    code = broker.exit_code()
    said = broker.log()
    assert code not in (0, None), f"{fired}: it ended with {code}\n{broker.log_tail()}"
    assert reason_named(said, fired), f"{fired}: exit {code} without a reason\n{broker.log_tail()}"
    assert not broker.after_failed_sync(), f"{fired}: {broker.after_failed_sync()[:3]}"


def one_round(tmp_path, template, base, number, error, calls):
    """(the fault's line or "", whether the broker lived), in a directory of its own."""
    directory = tmp_path / f"round{number}"
    directory.mkdir()
    broker = FragileBroker(directory)
    story = Story(broker)
    if template is not None:
        shutil.copytree(template, broker.data)
        story.take_over(base)
    broker.arm(at=number, error=error, calls=calls)
    try:
        lived = live(broker, story)
        fired = broker.fired()
        if not lived:
            assert fired, f"no fault, and yet it ended\n{broker.log_tail()}"
            judge_exit(broker, fired)
        broker.disarm()
        assert broker.try_start(), f"after {fired}:\n{broker.log_tail()}"
        story.holds()
        broker.publish("after")
        broker.stop()
    finally:
        broker.end()
    shutil.rmtree(directory)
    return fired, lived


def sweep(tmp_path, state, error, calls=None, numbers=range(1, CALLS_MAX)):
    """Runs rounds, a few at a time, until one has no fault left; tells what was swept."""
    need_preload()
    template, base = old_store(tmp_path) if state == "old" else (None, None)
    faults, lived_through = Counter(), Counter()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for first in range(0, len(numbers), AT_A_TIME):
            rounds = [pool.submit(one_round, tmp_path, template, base, number, error, calls)
                      for number in numbers[first:first + AT_A_TIME]]
            results = [r.result() for r in rounds]
            for fired, lived in results:
                assert fired or lived
                if fired:
                    faults[fired.split()[2]] += 1
                    lived_through[fired.split()[2]] += lived
            if not all(fired for fired, _ in results):
                break
        else:
            raise AssertionError("the sweep does not end")
    print(f"sweep {error}, {state} store: {faults.total()} faults {dict(faults)}; "
          f"served on after {dict(+lived_through)}; lost 0")
    assert faults


@pytest.mark.parametrize("state", ["empty", "old"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "SHORT", "ENOMEM"])
def test_every_file_call_fails_once(tmp_path, state, error):
    sweep(tmp_path, state, error)


@pytest.mark.parametrize("state", ["empty", "old"])
def test_every_allocation_fails_once(tmp_path, state):
    """Out of memory ends the process by design, with a message; or refuses the request."""
    numbers = range(1, CALLS_MAX) if LONG else SOME_ALLOCATIONS
    sweep(tmp_path, state, "ENOMEM", calls="malloc", numbers=numbers)
