"""http_echo as a process, and its answers read strictly. HTTP_ECHO names the binary; without it the
build that BELLHOP_BUILD names is used."""

import os
import re
import resource
import signal
import socket
import subprocess
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BUILD = REPO / os.environ.get("BELLHOP_BUILD", "build")
ECHO = os.environ.get("HTTP_ECHO", str(BUILD / "tests/http_echo"))
PATIENCE_S = 20  # only ever waited for when something is broken


class Server:
    """With `tls`, the ssl.SSLContext that trusts it, every connection speaks TLS."""

    def __init__(self, *flags, files=None, env=None, tls=None):
        def limit():
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        command = [ECHO] + [str(f) for f in flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit,
            env={**os.environ, **(env or {})},
        )
        self.tls = tls
        self.port = int(self.process.stdout.readline().split()[1])

    def connect(self, source="127.0.0.1"):
        s = socket.create_connection(
            ("127.0.0.1", self.port), timeout=PATIENCE_S, source_address=(source, 0)
        )
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is None:
            return s
        return self.tls.wrap_socket(s, server_hostname="127.0.0.1", suppress_ragged_eofs=False)

    def cpu_s(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, signum=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            out, err = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        assert self.process.returncode == 0, err
        return out, err


class Reader:
    """Reads answers off a socket, strictly."""

    def __init__(self, sock):
        self.sock = sock
        self.bytes = bytearray()

    def more(self):
        try:
            got = self.sock.recv(1 << 16)
        except ConnectionResetError:
            got = b""
        self.bytes += got
        return len(got) > 0

    def answer(self, head_only=False):
        """(status, headers, body), or None when the server has closed."""
        while b"\r\n\r\n" not in self.bytes:
            if not self.more():
                assert not self.bytes, self.bytes
                return None
        end = self.bytes.index(b"\r\n\r\n")
        head = bytes(self.bytes[:end])
        del self.bytes[: end + 4]
        lines = head.split(b"\r\n")
        assert re.fullmatch(rb"HTTP/1\.1 \d\d\d [A-Za-z ]+", lines[0]), lines[0]
        status = int(lines[0].split()[1])
        headers = {}
        for text in lines[1:]:
            name, value = text.decode().split(": ", 1)
            assert name.lower() not in headers
            headers[name.lower()] = value
        if status == 100:
            assert headers == {}
            return status, headers, b""
        assert "server" not in headers and "date" in headers
        length = 0 if head_only else int(headers["content-length"])
        while len(self.bytes) < length:
            assert self.more(), "closed in the middle of a body"
        body = bytes(self.bytes[:length])
        del self.bytes[:length]
        return status, headers, body


def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc ^= b
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
