"""Running the command line in tests: to its end, or in the background."""

import contextlib
import fcntl
import http.server
import json
import os
import pty
import select
import struct
import subprocess
import termios
import threading
import time

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


class Api:
    """Answers as it is told instead of a broker, and keeps what it was asked."""

    def __init__(self):
        self.requests = []  # (method, path, parsed body or None)
        self.answers = {}   # "METHOD /path" without the query -> (status, value), or a function
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                outer.requests.append((self.command, self.path, json.loads(body) if body else None))
                answer = outer.answers.get(f"{self.command} {self.path.split('?')[0]}", (200, {}))
                status, value = answer() if callable(answer) else answer
                text = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.env = {"BELLHOP_URL": f"http://127.0.0.1:{self.server.server_port}"}
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def run(self, *args, code=0, **options):
        done = alone(*args, env=self.env, **options)
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        assert not any(word in done.stderr for word in SANITIZER_WORDS), done.stderr
        return done

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Receiver:
    """An HTTP server that takes webhooks: keeps (lower-case headers, body), and answers as `answer`
    says: a status, or a function of the body."""

    def __init__(self):
        self.requests = []
        self.answer = 204
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status = outer.answer(body) if callable(outer.answer) else outer.answer
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((headers, body))
                text = b"" if status < 400 else b"this went wrong\nand more\n"
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Terminal:
    """A command on a terminal of its own: what it writes is read as it comes."""

    def __init__(self, *args, env, rows=24, columns=80):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen([CLI, *args], stdin=slave, stdout=slave, stderr=slave,
                                        env={**broker_env(), "TERM": "xterm", **env},
                                        start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.text = ""

    def wait(self, words):
        """Reads until the words came after what was waited for before; returns what came."""
        end = time.monotonic() + DEADLINE_S
        while words not in self.text:
            left = end - time.monotonic()
            ready = select.select([self.master], [], [], max(left, 0))[0]
            assert ready, f"{words!r} did not come: {self.text!r}"
            self.text += os.read(self.master, 65536).decode()
        seen, _, self.text = self.text.partition(words)
        return seen + words

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self, code=0):
        """Waits for the end; what was not read yet."""
        assert self.process.wait(DEADLINE_S) == code, self.text
        while select.select([self.master], [], [], 0)[0]:
            self.text += os.read(self.master, 65536).decode()
        return self.text

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
        os.close(self.master)
        os.close(self.slave)
