"""The harness of tests/e2e serves here too."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from harness import BUILD  # noqa: E402


def pytest_sessionstart(session):
    for name in ("bellhopd", "tests/reopen", "tests/record.so"):
        if not (BUILD / name).exists():
            pytest.exit(f"{BUILD}/{name} is not there: build it first (scripts/test does)", 3)
