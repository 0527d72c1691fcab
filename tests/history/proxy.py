"""A TCP proxy that stands between clients and the broker, and breaks what it forwards on request.

One thread runs all of it; other threads ask it to do things with the methods of Proxy, which return
when it is done. What may go wrong on a link is a Faults; what may go wrong with a connection is a
method of Pipe. Bytes are never changed, dropped in the middle or reordered: TCP does not do that.
"""

import collections
import contextlib
import random
import select
import socket
import struct
import threading
import time

BUFFER_BYTES = 256 * 1024  # held in one direction; then the sender feels it
READ_BYTES = 64 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST

# delay_ms and up to jitter_ms more for every piece; bytes_per_s: 0 is no limit; piece_max: pieces
# of 1 to so many random bytes, each sent by itself; coalesce_ms: what came meanwhile goes at once.
Faults = collections.namedtuple("Faults", "delay_ms jitter_ms bytes_per_s piece_max coalesce_ms",
                                defaults=(0, 0, 0, 0, 0))
CALM = Faults()
UP, DOWN = "up", "down"  # from the client to the broker, and back


class Flow:
    """One direction of a connection."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.pieces = collections.deque()  # [when it may go, bytes]; b"" is the end of the stream
        self.bytes = 0
        self.stalled = False  # nothing gets through, and nobody is told
        self.ended = False    # the source has nothing more
        self.line_free = 0.0

    def take(self, data, faults, rng, now):
        """Puts what came in line."""
        while data:
            size = rng.randint(1, faults.piece_max) if faults.piece_max else len(data)
            if faults.bytes_per_s:
                size = min(size, max(1, faults.bytes_per_s // 50))
            piece, data = data[:size], data[size:]
            at = now + (faults.delay_ms + rng.random() * faults.jitter_ms) / 1000
            if faults.coalesce_ms:
                slot = faults.coalesce_ms / 1000
                at = (at // slot + 1) * slot
            at = max(at, self.line_free)  # never before what came earlier
            if faults.bytes_per_s:
                at += len(piece) / faults.bytes_per_s
            self.line_free = at
            self.pieces.append([at, piece])
            self.bytes += len(piece)

    def end(self, now):
        self.ended = True
        self.pieces.append([max(now, self.line_free), b""])

    def wants_to_read(self):
        return not self.ended and self.bytes < BUFFER_BYTES

    def due(self, now):
        return not self.stalled and bool(self.pieces) and self.pieces[0][0] <= now

    def next_at(self):
        return self.pieces[0][0] if self.pieces and not self.stalled else None

    def hurry(self, now):
        """What waits for its time may go."""
        for piece in self.pieces:
            piece[0] = min(piece[0], now)
        self.line_free = now


class Pipe:
    """A connection: a client's socket and ours to the broker."""

    def __init__(self, link, client, broker):
        self.link, self.client, self.broker = link, client, broker
        self.flows = {UP: Flow(client, broker), DOWN: Flow(broker, client)}
        self.cut_on_answer = False
        self.gone = set()  # sockets whose peer has reset while the other side must not know
        self.closed = False

    def cut(self, kind):
        """rst: both sides get a reset. fin: both see the end, bytes in line are lost. half_up,
        half_down: one side sees the end of the stream, the other direction goes on."""
        if kind == "half_up":
            self._shut(self.broker)
        elif kind == "half_down":
            self._shut(self.client)
        else:
            self.close(reset=kind == "rst")

    @staticmethod
    def _shut(sock):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)

    def close(self, reset=True):
        if self.closed:
            return
        self.closed = True
        for sock in (self.client, self.broker):
            with contextlib.suppress(OSError):
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()

    def stall(self, directions):
        for direction in directions:
            self.flows[direction].stalled = True

    def stalled(self):
        return any(flow.stalled for flow in self.flows.values())

    def heal(self, now):
        """A stalled connection goes on with all that was held, if both ends are still there."""
        if self.gone:
            self.close()
        for flow in self.flows.values():
            flow.stalled = False
            flow.hurry(now)

    def read(self, flow, rng, now):
        direction = UP if flow is self.flows[UP] else DOWN
        try:
            data = flow.source.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            flow.ended = True
            if self.stalled():
                self.gone.add(flow.source)  # the other side is not told
            else:
                self.close()
            return
        if not data:
            flow.end(now)
            return
        if direction == DOWN and self.cut_on_answer:
            self.close()  # the broker has done it, and the client will never know
            return
        flow.take(data, self.link.faults[direction], rng, now)

    def write(self, flow, now):
        while not self.closed and flow.due(now):
            piece = flow.pieces[0][1]
            if not piece:
                flow.pieces.popleft()
                self._shut(flow.sink)
                if all(f.ended and not f.pieces for f in self.flows.values()):
                    self.close(reset=False)
                return
            try:
                sent = flow.sink.send(piece)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            flow.bytes -= sent
            if sent < len(piece):
                flow.pieces[0][1] = piece[sent:]
                return
            flow.pieces.popleft()
            # Small pieces go one a turn, so that the receiver may see each of them.
            if self.link.faults[UP].piece_max or self.link.faults[DOWN].piece_max:
                return


class Link:
    """One port of the broker."""

    def __init__(self, name):
        self.name = name
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.upstream = None  # the broker's port, None while it is down
        self.faults = {UP: CALM, DOWN: CALM}
        self.refusing = False


class Proxy:
    """links: names. Start it, point it at a broker, connect clients to port(name)."""

    def __init__(self, seed, *links):
        self.rng = random.Random(seed)
        self.links = {name: Link(name) for name in links}
        self.pipes = []
        self.incarnation = 0  # of the broker: which one a connection goes to
        self.incarnations = {}  # (link, client's port) -> incarnation
        self.jobs = collections.deque()
        self.wake, self.woken = socket.socketpair()
        self.woken.setblocking(False)
        self.stopping = False
        self.failure = None
        self.thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self.thread.start()

    # -- for other threads --

    def port(self, name):
        return self.links[name].port

    def do(self, job):
        """Runs job() in the proxy's thread and returns its result."""
        done, result = threading.Event(), []

        def run():
            result.append(job())
            done.set()
        self.jobs.append(run)
        self.wake.send(b".")
        assert done.wait(30) and not self.failure, f"the proxy does not answer: {self.failure}"
        return result[0]

    def point_at(self, incarnation, **ports):
        """The broker is there, under these ports."""
        def job():
            self.incarnation = incarnation
            for name, port in ports.items():
                self.links[name].upstream = port
        self.do(job)

    def set_faults(self, name, up=CALM, down=CALM):
        def job():
            self.links[name].faults = {UP: up, DOWN: down}
        self.do(job)

    def refuse(self, name, refusing):
        """Connections are accepted and reset."""
        def job():
            self.links[name].refusing = refusing
        self.do(job)

    def each(self, name, share, action):
        """action(pipe) for this share of the link's connections, but one at least; how many."""
        def job():
            here = [p for p in self.pipes if p.link.name == name and not p.closed]
            chosen = [p for p in here if self.rng.random() < share]
            chosen = chosen or here and [self.rng.choice(here)]
            for pipe in chosen:
                action(pipe)
            return len(chosen)
        return self.do(job)

    def end_stalls(self, how):
        """how(pipe) is "deliver": what was held goes on, or "reset"."""
        def job():
            now = time.monotonic()
            for pipe in [p for p in self.pipes if p.stalled()]:
                if how(pipe) == "reset":
                    pipe.close()
                else:
                    pipe.heal(now)
        self.do(job)

    def heal(self):
        """No faults from here on."""
        def job():
            now = time.monotonic()
            for link in self.links.values():
                link.faults = {UP: CALM, DOWN: CALM}
                link.refusing = False
            for pipe in self.pipes:
                pipe.cut_on_answer = False
                pipe.heal(now)
        self.do(job)

    def incarnation_of(self, name, client_port):
        return self.incarnations.get((name, client_port), 0)

    def stop(self):
        self.stopping = True
        self.wake.send(b".")
        self.thread.join(10)
        for pipe in self.pipes:
            pipe.close()
        for link in self.links.values():
            link.listener.close()
        self.wake.close()
        self.woken.close()

    # -- the thread --

    def _run(self):
        try:
            while not self.stopping:
                self._turn()
        except Exception as problem:  # whoever asks next is told
            self.failure = repr(problem)
            raise

    def _turn(self):
        now = time.monotonic()
        reads, writes, ends = {self.woken: None}, {}, [now + 1]
        for link in self.links.values():
            reads[link.listener] = link
        for pipe in self.pipes:
            for flow in pipe.flows.values():
                if flow.wants_to_read():
                    reads[flow.source] = (pipe, flow)
                if flow.due(now):
                    writes[flow.sink] = (pipe, flow)
                elif flow.next_at() is not None:
                    ends.append(flow.next_at())
        timeout = 0 if self.jobs else max(0, min(ends) - now)
        readable, writable, _ = select.select(list(reads), list(writes), [], timeout)
        now = time.monotonic()
        for sock in readable:
            if sock is self.woken:
                with contextlib.suppress(BlockingIOError):
                    self.woken.recv(4096)
            elif isinstance(reads[sock], Link):
                self._accept(reads[sock])
            elif not reads[sock][0].closed:
                reads[sock][0].read(reads[sock][1], self.rng, now)
        for sock in writable:
            pipe, flow = writes[sock]
            if not pipe.closed:
                pipe.write(flow, now)
        while self.jobs:
            self.jobs.popleft()()
        self.pipes = [p for p in self.pipes if not p.closed]

    def _accept(self, link):
        try:
            client, address = link.listener.accept()
        except OSError:
            return
        broker = None
        if link.upstream is not None and not link.refusing:
            broker = self._connect(link.upstream)
        if broker is None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        for sock in (client, broker):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incarnations[link.name, address[1]] = self.incarnation
        self.pipes.append(Pipe(link, client, broker))

    @staticmethod
    def _connect(port):
        """On loopback a listening port answers at once, also one of a stopped process."""
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            return None
