#!/usr/bin/env python3
"""Measures what honest webhooks notice of thousands of slow clients.

    bench/slow_clients.py [--build build] [--connections 5000] [--seconds 10] [--rounds 3] [--tls KEY]
                          [--out FILE]

Needs a release build. bench_load posts signed webhooks over 8 connections, one after the other on each;
then the same again while tests/e2e/slow_clients.py holds that many connections of one kind and opens
each again when the broker has closed it. Everything is on loopback and ends by its pid.

--tls P-256 (or RSA-2048 ...) does it over TLS with such a key. The honest ones are then 8 threads of this
program, on connections that they made before the others came; two kinds more send the first message of a
handshake, and stall or leave.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from broker import REPO, Processes, fdatasync_us, machine_rows, run

KEY = b"b" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()
SLOW = REPO / "tests" / "e2e" / "slow_clients.py"
KINDS = ("head", "body", "chunks", "read", "idle")
TLS_KINDS = (*KINDS, "hello", "leave")
STAY_S = 5  # what an idle connection is asked for at the latest
KEYS = {"P-256": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        "RSA-2048": ("-newkey", "rsa:2048"), "RSA-4096": ("-newkey", "rsa:4096")}


def honest(build, port, seconds):
    return run(build, "bench_load", "http", "--port", port, "--secret", SECRET, "--connections", 8,
               "--seconds", seconds)


class Honest(threading.Thread):
    """Posts signed webhooks over one TLS connection: now and then, so that it stays, and from begin() on
    one after the other."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.connection = tls_connection(port)
        self.took_us, self.failed, self.end = [], 0, 0
        self.begun = threading.Event()
        self.start()

    def begin(self, seconds):
        self.end = time.monotonic() + seconds
        self.begun.set()

    def run(self):
        self.post()
        while not self.begun.wait(STAY_S):
            self.post()
        self.took_us, self.failed = [], 0
        while time.monotonic() < self.end:
            self.post()
        self.connection.close()

    def post(self):
        body = b'{"type":"bench"}'
        name, now = f"msg_{self.ident}_{time.monotonic_ns()}", str(int(time.time()))
        mac = hmac.new(KEY, f"{name}.{now}.".encode() + body, hashlib.sha256).digest()
        began = time.monotonic_ns()
        try:
            self.connection.request("POST", "/in/bench", body, {
                "webhook-id": name, "webhook-timestamp": now,
                "webhook-signature": "v1," + base64.b64encode(mac).decode()})
            answer = self.connection.getresponse()
            answer.read()
            self.failed += answer.status != 200
        except (OSError, http.client.HTTPException):
            self.failed += 1
            self.connection.close()
        self.took_us.append((time.monotonic_ns() - began) / 1000)


def honest_tls(threads, seconds):
    for thread in threads:
        thread.begin(seconds)
    for thread in threads:
        thread.join()
    took = sorted(us for thread in threads for us in thread.took_us)
    return {"per_s": len(took) / seconds, "p50_us": took[len(took) // 2],
            "p99_us": took[len(took) * 99 // 100], "failed": sum(t.failed for t in threads)}


def tls_connection(port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)


def tls_options(directory, key):
    cert, private = str(directory / "bench.pem"), str(directory / "bench.key")
    subprocess.run(["openssl", "req", "-x509", *KEYS[key], "-nodes", "-subj", "/CN=bench", "-days", "2",
                    "-out", cert, "-keyout", private], check=True, capture_output=True)
    return "--tls-cert", cert, "--tls-key", private


def call(broker, args, path, body):
    """Like Broker.api, on whatever the port speaks."""
    if not args.tls:
        broker.api("POST", path, body)
        return
    connection = tls_connection(broker.http_port)
    connection.request("POST", path, json.dumps(body))
    status = connection.getresponse().status
    connection.close()
    if status not in (200, 201):
        sys.exit(f"slow_clients: POST {path}: {status}")


def beside(processes, kind, args):
    """(what the honest ones got, what became of the slow ones)."""
    broker = processes.broker(*args.options)
    call(broker, args, "/v1/sources", {"name": "bench", "secrets": [SECRET]})
    if kind == "read":
        for _ in range(20):
            call(broker, args, "/v1/events", {"type": "t", "data": "x" * 20_000})
    threads = [Honest(broker.http_port) for _ in range(8)] if args.tls else []
    crowd = None
    if kind is not None:
        crowd = processes.start([sys.executable, str(SLOW), "--port", str(broker.http_port), "--mode", kind,
                                 "--path", "/in/bench", "--connections", str(args.connections),
                                 "--again", str(args.seconds + 3),
                                 *(["--tls"] if args.tls and kind in KINDS else [])],
                                stdout=subprocess.PIPE, text=True)
        if crowd.stdout.readline() != "ready\n":
            sys.exit("slow_clients: the slow clients did not start")
    if args.tls:
        result = honest_tls(threads, args.seconds)
    else:
        result = honest(args.build, broker.http_port, args.seconds)
    slow = json.loads(crowd.stdout.readline())[kind] if crowd else None
    processes.end()
    return result, slow


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=REPO / "build")
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tls", choices=KEYS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.build = args.build.resolve()
    load = os.getloadavg()[0]
    rows = {}
    with tempfile.TemporaryDirectory(prefix="bellhop-bench-") as text:
        directory = Path(text)
        before = fdatasync_us(directory)
        processes = Processes(args.build, directory)
        args.options = tls_options(directory, args.tls) if args.tls else ()
        try:
            for _ in range(args.rounds):
                for kind in (None, *(TLS_KINDS if args.tls else KINDS)):
                    result, slow = beside(processes, kind, args)
                    rows.setdefault(kind, []).append(result)
                    print(kind or "none", result, slow, flush=True)
        finally:
            processes.end()
        after = fdatasync_us(directory)
    over = f", over TLS with {args.tls}" if args.tls else ""
    out = [f"# Slow clients: {args.connections} connections beside honest webhooks{over}", "", "| | |",
           "|---|---|", *machine_rows(before, after, load), "",
           "| slow clients | honest per second | p50 | p99 | failed |", "|---|---|---|---|---|"]
    for kind, found in rows.items():
        middle = {f: statistics.median(r[f] for r in found) for f in ("per_s", "p50_us", "p99_us")}
        out.append(f"| {kind or 'none'} | {middle['per_s']:,.0f} | {middle['p50_us']:,.0f} us | "
                   f"{middle['p99_us']:,.0f} us | {sum(r['failed'] for r in found)} |")
    report = "\n".join(out) + "\n"
    print("\n" + report)
    if args.out:
        args.out.write_text(report)


if __name__ == "__main__":
    main()
