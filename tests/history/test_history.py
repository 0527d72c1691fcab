"""Whole runs, short: what everybody was told must fit together, whatever broke.

BELLHOP_HISTORY_SECONDS (10) is how long faults last in each run, BELLHOP_HISTORY_SEEDS ("1 2 3")
which schedules are played, or BELLHOP_HISTORY_RUNS how many, from BELLHOP_TEST_SEED on.
"""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import checker  # noqa: E402
import history  # noqa: E402
import nemesis  # noqa: E402
import run  # noqa: E402

SECONDS = float(os.environ.get("BELLHOP_HISTORY_SECONDS", "10"))
SEEDS = [int(s) for s in os.environ.get("BELLHOP_HISTORY_SEEDS", "1 2 3").split()]
if "BELLHOP_HISTORY_RUNS" in os.environ:
    first = int(os.environ.get("BELLHOP_TEST_SEED", "1"))
    SEEDS = range(first, first + int(os.environ["BELLHOP_HISTORY_RUNS"]))


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost(seed, tmp_path):
    entries, failure = run.carry_out(tmp_path, seed, SECONDS)
    text, good = run.verdict(entries, failure)
    print(text)
    if good:
        # A run in which nothing happened proves nothing. No speed is asked for.
        numbers = checker.check(entries)[1]
        for name in ("acknowledged", "delivered", "programs run", "acks confirmed", "kills"):
            assert numbers[name] > 0, f"{name}: 0\n{text}"
        return
    path = Path(os.environ.get("BELLHOP_HISTORY_FILE", tmp_path / "history.jsonl"))
    history.write(entries, path)
    pytest.fail(f"{text}\n\nits history: {path}; judge it again: tests/history/run.py --check "
                f"{path}; play the schedule again: tests/history/run.py --seed {seed} --seconds "
                f"{SECONDS:g}", pytrace=False)


def test_a_schedule_is_its_seeds():
    assert nemesis.schedule(5, 30) == nemesis.schedule(5, 30) != nemesis.schedule(6, 30)
    for seed in SEEDS:
        kinds = {what for _, what, _ in nemesis.schedule(seed, SECONDS)}
        assert {"replay", "redrive", "kill"} <= kinds
    seen = {what for seed in range(1, 9) for _, what, _ in nemesis.schedule(seed, 10)}
    assert seen == {*nemesis.WEIGHTS, "replay", "redrive"}
