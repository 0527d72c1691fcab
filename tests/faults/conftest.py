"""The fixtures of the end-to-end tests: a broker per test, or several."""

import importlib.util
import sys
from pathlib import Path

E2E = Path(__file__).resolve().parents[1] / "e2e"
sys.path.insert(0, str(E2E))

# By its path: every directory of tests has a module named conftest.
spec = importlib.util.spec_from_file_location("e2e_fixtures", E2E / "conftest.py")
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)

pytest_sessionstart = fixtures.pytest_sessionstart
brokers = fixtures.brokers
broker = fixtures.broker
connect = fixtures.connect
