#!/usr/bin/env python3
"""Clients that keep a server busy with next to nothing: many connections that send, or read, a byte
a second.

    slow_clients.py --port N [--connections 5000] [--mode head,body,chunks,read,idle,hello,leave]
                    [--path /in/src] [--again SECONDS] [--tls]

With --tls each connection makes its TLS handshake first, asks something now and then, and becomes slow when
all are there. The modes hello
and leave are for a port that speaks TLS: they send the first message of a handshake, which costs the
server its signature, and then nothing, or leave at once and, with --again, come back.

Each mode gets its share of the connections. Prints "ready" when all are open, and at the end one line of
JSON: for each mode how many connections there were, how many the server closed, the shortest and the
longest time it took, and how many times it answered with which status. It ends when the server has
closed every connection; with --again a closed one is opened again at once, for so many seconds.
"""

import argparse
import json
import resource
import select
import socket
import ssl
import sys
import time

GIVE_UP_S = 120
ASK_AFTER_S = 10
AT_ONCE = 100  # connections being opened


def opening(mode, path):
    """What a client sends before it becomes slow."""
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n"
    return {
        "head": head + b"X-Slow: ",
        "body": head + b"Content-Length: 100000\r\n\r\n",
        "chunks": head + b"Transfer-Encoding: chunked\r\n\r\n",
        # As many answers as it takes to fill what the kernel holds for it.
        "read": b"GET /v1/events?page_size=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40,
        "idle": b"",
        "hello": HELLO,
        "leave": HELLO,
    }[mode]


def trusting():
    """A context that believes any server: who it is does not matter here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def client_hello():
    """The same for every connection: making one costs more than sending it."""
    outgoing = ssl.MemoryBIO()
    try:
        trusting().wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


HELLO = client_hello()
LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Client:
    def __init__(self, mode):
        self.mode = mode
        self.sock = None
        self.opened = 0.0
        self.step = 0
        self.answer = b""
        self.asked = False  # in the time before it becomes slow


class Crowd:
    def __init__(self, args):
        self.args = args
        self.epoll = select.epoll()
        self.by_fd = {}
        self.tls = trusting() if args.tls else None
        self.figures = {m: {"connections": 0, "closed": 0, "least_s": None, "most_s": None,
                            "statuses": {}} for m in args.modes}

    def open(self, client):
        self.connect(client)
        self.shake_hands(client)

    def connect(self, client):
        client.sock = socket.socket()
        if client.mode == "read":
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.sock.settimeout(GIVE_UP_S)
        client.sock.connect(("127.0.0.1", self.args.port))
        client.opened, client.step, client.answer = time.monotonic(), 0, b""
        self.figures[client.mode]["connections"] += 1
        if self.tls:
            client.sock = self.tls.wrap_socket(client.sock, do_handshake_on_connect=False)
            client.sock.setblocking(False)
            try:
                client.sock.do_handshake()
            except LATER:
                pass
            except OSError:
                self.closed(client)

    def shake_hands(self, client):
        if client.sock is None:
            return
        if self.tls:
            client.sock.settimeout(GIVE_UP_S)
            try:
                client.sock.do_handshake()
            except OSError:
                self.closed(client)
                return
        client.sock.setblocking(False)
        self.by_fd[client.sock.fileno()] = client
        # One who reads slowly is not told that there is something to read.
        self.epoll.register(client.sock, 0 if client.mode == "read" else select.EPOLLIN)
        if not self.tls or self.args.again:
            self.begin(client)

    def stay(self, clients):
        """Those that have waited for the others for a while ask something, or they would be idle."""
        for client in clients:
            if client.sock is not None and time.monotonic() - client.opened > ASK_AFTER_S:
                client.opened, client.asked = time.monotonic(), True
                self.send(client, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")

    def begin(self, client):
        client.opened, client.answer = time.monotonic(), b""
        self.send(client, opening(client.mode, self.args.path))
        if client.mode == "leave":
            self.closed(client)

    def send(self, client, data):
        try:
            client.sock.send(data)
        except LATER:
            pass
        except OSError:
            self.closed(client)

    def drip(self, client):
        client.step += 1
        if client.mode == "chunks":
            at = (client.step - 1) % 6
            self.send(client, b"1\r\nx\r\n"[at:at + 1])
        elif client.mode == "read":
            self.read(client, 1)
        elif client.mode not in ("idle", "hello"):
            self.send(client, b"x")

    def read(self, client, size):
        try:
            piece = client.sock.recv(size)
        except LATER:
            return
        except OSError:
            piece = b""
        client.asked = False
        if len(client.answer) < 64:
            client.answer += piece
        if not piece:
            self.closed(client)

    def closed(self, client):
        if client.sock is None:
            return
        took = time.monotonic() - client.opened
        figures = self.figures[client.mode]
        figures["closed"] += 1
        figures["least_s"] = round(min(took, figures["least_s"] or took), 2)
        figures["most_s"] = round(max(took, figures["most_s"] or took), 2)
        status = client.answer[9:12].decode() if client.answer.startswith(b"HTTP/") else "none"
        figures["statuses"][status] = figures["statuses"].get(status, 0) + 1
        self.by_fd.pop(client.sock.fileno(), None)
        client.sock.close()
        client.sock = None

    def run(self):
        args = self.args
        clients = [Client(args.modes[i % len(args.modes)]) for i in range(args.connections)]
        for at in range(0, len(clients), AT_ONCE):
            # The server works on all of them while we do.
            for client in clients[at:at + AT_ONCE]:
                self.connect(client)
            for client in clients[at:at + AT_ONCE]:
                self.shake_hands(client)
            self.turn(0)
            if self.tls:
                self.stay(clients)
        if self.tls and not args.again:
            while any(client.asked and client.sock for client in clients):
                self.turn(0.1)
            for client in clients:
                if client.sock is not None:
                    self.begin(client)
        print("ready", flush=True)
        began = time.monotonic()
        due = [(began + i / len(clients), c) for i, c in enumerate(clients)]
        end = began + (args.again or GIVE_UP_S)
        while time.monotonic() < end and (self.by_fd or args.again):
            # Spread over the second, so that the drops do not fall at once.
            now, later = time.monotonic(), []
            for at, client in due:
                if at > now:
                    later.append((at, client))
                    continue
                if client.sock is None and args.again:
                    self.open(client)
                if client.sock is not None:
                    self.drip(client)
                    later.append((at + 1, client))
            due = later if args.again else [(at, c) for at, c in later if c.sock is not None]
            self.turn(0.05)
        print(json.dumps(self.figures), flush=True)

    def turn(self, wait_s):
        for fd, events in self.epoll.poll(wait_s):
            client = self.by_fd.get(fd)
            if client is None:
                continue
            if client.mode == "read" and events & (select.EPOLLHUP | select.EPOLLERR):
                self.closed(client)
            else:
                self.read(client, 4096)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--mode", default="head")
    parser.add_argument("--path", default="/in/src", type=str.encode)
    parser.add_argument("--again", type=float, default=0)
    parser.add_argument("--tls", action="store_true")
    args = parser.parse_args()
    args.modes = args.mode.split(",")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < args.connections + 100:
        sys.exit(f"slow_clients: {args.connections} connections need as many open files; this process "
                 f"may have {hard}: raise the hard limit (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Crowd(args).run()


if __name__ == "__main__":
    main()
