"""The receivers of bench/outbound.py: one process that plays all of them, on every address of 127/8.

The path says how one behaves and which it is: /ok/17 answers 200, /500/17 answers 500, /never/17
nothing. Of each request to an /ok/ it keeps how long ago its body says that it was published.
"""

import asyncio
import multiprocessing
import re
import time

PUBLISHED = re.compile(rb'"at":\s*(\d+)')
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)


class Connection(asyncio.Protocol):
    def __init__(self, times):
        self.times, self.buffer = times, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        now = time.monotonic_ns()
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = int(LENGTH.search(head).group(1))
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4:end + 4 + length]
            self.buffer = self.buffer[end + 4 + length:]
            _, how, number = head.split(b" ", 2)[1].split(b"/")
            if how == b"never":
                continue
            if how == b"ok":
                at = int(PUBLISHED.search(body).group(1))
                self.times.setdefault(int(number), []).append(now - at)
            self.transport.write(b"HTTP/1.1 %s X\r\nContent-Length: 0\r\n\r\n"
                                 % (b"200" if how == b"ok" else b"500"))


def serve(pipe):
    """Until the pipe says so; answers what it asks."""
    times, loop = {}, asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(
        lambda: Connection(times), "0.0.0.0", 0, backlog=4096))

    def ask():
        try:
            numbers = pipe.recv()
        except EOFError:
            numbers = None
        if numbers is None:
            loop.stop()
        else:
            pipe.send([took for n in numbers for took in times.get(n, ())])

    loop.add_reader(pipe.fileno(), ask)
    pipe.send(server.sockets[0].getsockname()[1])
    loop.run_forever()


class ReceiverProcess:
    def __init__(self):
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=serve, args=(other,), daemon=True)
        self.process.start()
        other.close()
        self.port = self.pipe.recv()

    def times_ms(self, numbers):
        """Of every request to these endpoints: from its publish to its receipt."""
        self.pipe.send(list(numbers))
        return [ns / 1e6 for ns in self.pipe.recv()]

    def count(self, numbers):
        return len(self.times_ms(numbers))

    def end(self):
        self.pipe.send(None)
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()
