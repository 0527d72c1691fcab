"""Running the command line in tests: to its end, or in the background."""

import contextlib
import json
import subprocess
import threading

from harness import BUILD, DEADLINE_S, SANITIZER_WORDS, broker_env

CLI = str(BUILD / "bellhop")


def cli(broker, *args, code=0, **options):
    """Runs a command to its end; the exit code must be this one."""
    done = broker.run_cli(*args, **options)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    assert not any(word in done.stderr for word in SANITIZER_WORDS), done.stderr
    return done


def cli_json(broker, *args, **options):
    """The objects that a command prints with --json, one per line."""
    return [json.loads(line) for line in cli(broker, *args, **options).stdout.splitlines()]


def alone(*args, env=None, input=None):
    """Runs a command that needs no broker."""
    return subprocess.run([CLI, *args], env={**broker_env(), **(env or {})}, input=input,
                          capture_output=True, text=True, timeout=DEADLINE_S)


@contextlib.contextmanager
def running(broker, *args, env=None, **options):
    """A command that goes on; it is gone when the block ends, or when reading from it takes too
    long."""
    options = {"stdin": subprocess.DEVNULL, **options}
    process = subprocess.Popen([CLI, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, cwd=broker.directory,
                               env={**broker_env(), "BELLHOP_URL": broker.http, **(env or {})},
                               **options)
    watchdog = threading.Timer(DEADLINE_S, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        if not process.stdout.closed:
            process.communicate(timeout=DEADLINE_S)


def end_of(process, code=0):
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, (process.returncode, out, err)
    assert not any(word in err for word in SANITIZER_WORDS), err
    return out, err


def sub(broker, name="sub", **fields):
    """A subscription whose retries come at once."""
    backoff = {"min_ms": 10, "max_ms": 50, "factor": 1}
    broker.add_subscription(name, **{"backoff": backoff, **fields})


def work(broker, *args, program, name="sub", code=0, **options):
    """Runs a worker with a shell program to its end; its verdicts."""
    done = cli(broker, "work", name, "--json", *args, "--", "sh", "-c", program, code=code,
               **options)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"seq"')]


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []
