"""Real file systems that lose their power: ext4 and xfs on a loop device are shut down under a broker
at work, without flushing their log, so that everything that was not synced is gone. Then umount, mount,
restart: what was acknowledged is there, and no event comes again whose ack was confirmed.

BELLHOP_POWER_ROUNDS says how often on each. Needs root, loop devices and mkfs.
"""

import contextlib
import errno
import fcntl
import os
import random
import shutil
import struct
import subprocess
import threading

import pytest
from harness import DEADLINE_S, Broker
from test_kill9 import (SECRET, History, check_dead_letters, check_journal, drain, http_producer,
                        names, protocol_producer, worker)

ROUNDS = int(os.environ.get("BELLHOP_POWER_ROUNDS", "5"))
SEED = int(os.environ.get("BELLHOP_TEST_SEED", "20261121"))
GOING_DOWN = 0x8004587D  # _IOR('X', 125, u32): EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN
NO_LOG_FLUSH = 2
PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs"}
IMAGE_BYTES = {"ext4": 128 << 20, "xfs": 320 << 20}  # sparse; xfs has no smaller one


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, check=False)


class FileSystem:
    """On a loop device; mounted while it is in use."""

    def __init__(self, kind, directory):
        self.image, self.place = directory / f"{kind}.img", directory / kind
        self.mounted = False
        self.place.mkdir()
        with open(self.image, "wb") as f:
            f.truncate(IMAGE_BYTES[kind])
        made = run(f"mkfs.{kind}", "-q", str(self.image))
        assert made.returncode == 0, made.stdout

    def mount(self):
        done = run("mount", "-o", "loop", str(self.image), str(self.place))
        self.mounted = done.returncode == 0
        return done

    def umount(self):
        if self.mounted:
            done = run("umount", str(self.place))
            assert done.returncode == 0, done.stdout
            self.mounted = False

    def lose_power(self):
        fd = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, GOING_DOWN, struct.pack("=I", NO_LOG_FLUSH))
        finally:
            os.close(fd)


@pytest.fixture(params=["ext4", "xfs"])
def file_system(request, tmp_path):
    kind = request.param
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("there are no loop devices here (/dev/loop-control)")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not there: apt-get install {PACKAGES[kind]}")
    fs = FileSystem(kind, tmp_path)
    done = fs.mount()
    if not fs.mounted:
        pytest.skip(f"{kind} cannot be mounted here: {done.stdout.strip()}")
    yield fs
    fs.umount()


@contextlib.contextmanager
def broker_on(fs, directory):
    broker = Broker(directory)
    broker.data = fs.place / "data"
    broker.start()
    try:
        yield broker
    finally:
        broker.end()


def load(broker, history, round_number, stop):
    """Threads: two workers, three senders of webhooks, one publisher."""
    def thread(work, *args):
        t = threading.Thread(target=work, args=args)
        t.start()
        return t

    port = broker.workers_port
    return [thread(worker, port, history, stop, random.Random(SEED + round_number * 10 + i))
            for i in range(2)] + \
        [thread(http_producer, broker.http_port, history, stop, names(f"h{round_number}-{i}"))
         for i in range(3)] + \
        [thread(protocol_producer, port, history, stop, names(f"p{round_number}"))]


def power_cut(fs, broker):
    """The disk is gone in one moment; the broker notices at its next commit and must stop."""
    try:
        fs.lose_power()
    except OSError as problem:
        if problem.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            pytest.skip(f"this kernel cannot shut the file system down: {problem}")
        raise
    broker.killed = True
    code = broker.process.wait(DEADLINE_S)
    broker.process.stdout.close()
    # 1: a write failed; a signal: a page of the map could not be read any more.
    assert code == 1 or code < 0, f"it ended with {code}\n{broker.log_tail()}"


def test_a_file_system_that_loses_power_keeps_what_was_acknowledged(file_system, tmp_path):
    history = History()
    random_source = random.Random(SEED)
    checked_to = 1
    with broker_on(file_system, tmp_path) as broker:
        broker.add_source("src", SECRET)
        broker.add_subscription(max_fails=0, lease_ms=600000,
                                backoff={"min_ms": 1, "max_ms": 20, "factor": 2})
        for round_number in range(ROUNDS):
            stop = threading.Event()
            target = history.ok_http + random_source.randint(30, 200)
            threads = load(broker, history, round_number, stop)
            history.wait(lambda: history.ok_http >= target, 60, "the load does not flow")
            power_cut(file_system, broker)
            stop.set()
            for thread in threads:
                thread.join(DEADLINE_S + 10)
                assert not thread.is_alive()
            file_system.umount()
            done = file_system.mount()
            assert file_system.mounted, done.stdout
            broker.start()
            checked_to = check_journal(broker, history, checked_to)
            check_dead_letters(broker, history)
            assert not history.wrong, history.wrong[:5]
        drain(broker, history)
        check_journal(broker, history, 1)
        broker.stop()
    report = (f"{file_system.place.name} shut down x {ROUNDS}: {len(history.ok)} ok, "
              f"{len(history.unknown)} unknown, {len(history.confirmed)} acks confirmed; lost 0")
    print(report)
    (tmp_path / "report.txt").write_text(report + "\n")
