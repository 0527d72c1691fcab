"""Fixtures: a broker per test, or several."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bhp import Client  # noqa: E402
from harness import BUILD, Broker  # noqa: E402
from receiver import Receiver  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "waits: spends its time on a real deadline; scripts/test runs "
                                       "it without sanitizers only")
    config.addinivalue_line("markers", "long: for scripts/test --long only")


def pytest_sessionstart(session):
    if not (BUILD / "bellhopd").exists():
        pytest.exit(f"{BUILD}/bellhopd is not there: build it first (scripts/test does)", 3)


@pytest.fixture
def brokers(tmp_path):
    """Makes brokers: brokers("--max-body", "4096", name="b", config="yaml text")."""
    made = []

    def make(*args, name="a", config=None, start=True):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        broker = Broker(directory, *args, config=config)
        made.append(broker)
        return broker.start() if start else broker

    yield make
    problems = []
    for broker in made:
        try:
            broker.finish()
        except AssertionError as problem:
            problems.append(str(problem))
    assert not problems, "\n".join(problems)


@pytest.fixture
def broker(brokers):
    return brokers()


@pytest.fixture
def connect():
    """Makes worker-protocol clients: connect(broker). Closed when the test ends."""
    made = []

    def make(broker, **options):
        client = Client(broker.workers_port, **options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def receivers():
    """Makes receivers of webhooks: receivers(host="127.0.0.2", tls=(certificate, key))."""
    made = []

    def make(*args, **options):
        made.append(Receiver(*args, **options).start())
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture
def receiver(receivers):
    return receivers()
