"""What the measurements share: brokers and peers that are started and ended, the load generators,
and what a report says about the machine.

Every process that is started here is ended here, by its pid.
"""

import http.client
import json
import os
import platform
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
NAME = Path(sys.argv[0]).stem  # in messages


class Processes:
    """Started for one group of measurements and ended at the end."""

    def __init__(self, build, directory):
        self.build, self.directory = build, directory
        self.running = []

    def start(self, args, **options):
        process = subprocess.Popen(args, stdin=subprocess.DEVNULL, **options)
        self.running.append(process)
        return process

    def end(self):
        for process in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(20)
        self.running = []

    def broker(self, *options):
        """A started broker with an empty data directory of its own."""
        where = self.directory / f"bellhop-{time.monotonic_ns()}"
        where.mkdir()
        return Broker(self, where, *options).start()


class Broker:
    def __init__(self, processes, directory, *options):
        self.processes, self.directory, self.options = processes, directory, options
        self.process = None
        self.http_port = self.workers_port = 0

    def start(self, *more):
        """Until it says that it is ready; `more` options count for this start only."""
        log = open(self.directory / "log", "ab")
        self.process = self.processes.start(
            [str(self.processes.build / "bellhopd"), "--http", "127.0.0.1:0", "--workers",
             "127.0.0.1:0", "--data", str(self.directory / "data"), *self.options, *more],
            stdout=subprocess.PIPE, stderr=log)
        log.close()
        text, end = b"", time.monotonic() + 60
        while b"ready" not in text:
            left = max(0, end - time.monotonic())
            piece = b""
            if select.select([self.process.stdout], [], [], left)[0]:
                piece = os.read(self.process.stdout.fileno(), 4096)
            if not piece:
                sys.exit(f"{NAME}: bellhopd did not start: {(self.directory / 'log').read_text()}")
            text += piece
        ports = [int(line.rsplit(":", 1)[1]) for line in text.decode().splitlines()[:2]]
        self.http_port, self.workers_port = ports
        return self

    def stop(self, signum=signal.SIGTERM):
        self.process.send_signal(signum)
        self.process.wait(60)
        self.process.stdout.close()

    def remove(self):
        """Ends it and removes what it had on disk."""
        self.stop()
        shutil.rmtree(self.directory)

    def api(self, method, path, body=None):
        """The JSON API; anything but success ends the program."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        if answer.status not in (200, 201):
            sys.exit(f"{NAME}: {method} {path}: {answer.status} {said.decode()}")
        return json.loads(said)

    def anon_kib(self):
        """Its anonymous memory: the heap; the map of the store is file memory."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
        sys.exit(f"{NAME}: /proc/PID/status has no RssAnon")

    def cpu_s(self):
        """Seconds of processor time that it has used: (in its own code, in the system)."""
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return tuple(int(fields[i]) / os.sysconf("SC_CLK_TCK") for i in (11, 12))


def wait_for(condition, timeout, what):
    """Calls condition() until it returns something true, and returns that."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            sys.exit(f"{NAME}: {what} did not come within {timeout} s")
        time.sleep(0.05)


def program(name):
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return path or sys.exit(f"{NAME}: {name} is not installed: run scripts/setup --bench")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port):
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return port
        except OSError:
            if time.monotonic() > end:
                sys.exit(f"{NAME}: nobody listens on port {port}")
            time.sleep(0.02)


def run(build, tool, *args, timeout=180):
    """One load generator to its end: the line of JSON that it prints."""
    done = subprocess.run([str(build / tool), *map(str, args)], capture_output=True, text=True,
                          timeout=timeout)
    if done.returncode != 0 or done.stderr:
        print(f"{NAME}: {tool} {' '.join(map(str, args))}: exit {done.returncode} {done.stderr}",
              file=sys.stderr)
    if not done.stdout:
        sys.exit(f"{NAME}: {tool} measured nothing")
    return json.loads(done.stdout)


def fdatasync_us(directory, count=400):
    """p50 and p99 of a 4 KiB write and its fdatasync, in microseconds."""
    fd = os.open(directory / "sync-probe", os.O_RDWR | os.O_CREAT, 0o600)
    took = []
    for i in range(count):
        began = time.monotonic_ns()
        os.pwrite(fd, b"x" * 4096, i % 64 * 4096)
        os.fdatasync(fd)
        took.append((time.monotonic_ns() - began) / 1000)
    os.close(fd)
    os.unlink(directory / "sync-probe")
    took.sort()
    return took[count // 2], took[count * 99 // 100]


def version(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def cpu_model():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def machine_rows(sync_before, sync_after, load_before):
    """The rows of a report's first table."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return [f"| machine | {os.cpu_count()} x {cpu_model()}, {memory} GiB |",
            f"| system | {platform.freedesktop_os_release()['PRETTY_NAME']}, "
            f"Linux {platform.release()} |",
            f"| 4 KiB write + fdatasync before | p50 {sync_before[0]:.0f} us, "
            f"p99 {sync_before[1]:.0f} us |",
            f"| and after | p50 {sync_after[0]:.0f} us, p99 {sync_after[1]:.0f} us |",
            f"| load average before and at the end | {load_before:.1f}, {os.getloadavg()[0]:.1f} "
            "(the run itself is about 2) |"]
