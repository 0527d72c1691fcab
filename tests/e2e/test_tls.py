"""TLS on both ports: who is let in, what is refused, and what a reload does."""

import http.client
import json
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from bhp import ERR, Client
from certificates import Authority
from harness import BUILD, DEADLINE_S, SANITIZED, broker_env, make_secret, wait_for

SECRET = make_secret("t")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def trusting(authority, *protocols, client=None):
    """A context that verifies the server by this authority and its address."""
    context = ssl.create_default_context(cafile=str(authority.file))
    if protocols:
        context.set_alpn_protocols(protocols)
    if client:
        context.load_cert_chain(*client)
    return context


def pair(paths):
    return "--tls-cert", str(paths[0]), "--tls-key", str(paths[1])


@pytest.fixture
def tls_broker(authority, brokers):
    """A broker with a certificate for 127.0.0.1 that its own requests trust."""

    def make(*args, paths=None, client=None):
        paths = paths or authority.server("server", "first.example")
        broker = brokers(*pair(paths), *args, start=False)
        broker.tls = trusting(authority, client=client)
        return broker.start()

    return make


def connect_to(port, context, host="127.0.0.1"):
    raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    return context.wrap_socket(raw, server_hostname=host)


def names_of(connection):
    return {value for kind, value in connection.getpeercert()["subjectAltName"] if kind == "DNS"}


def read_all(connection):
    """What comes until the end; a reset is an end too."""
    text = b""
    try:
        while piece := connection.recv(65536):
            text += piece
    except ConnectionResetError:
        pass
    return text


def wait_log(broker, text):
    wait_for(lambda: text in broker.log(), what=f"{text!r} in the log")


# ---- both ports at work ----

def test_webhook_to_worker(tls_broker, authority):
    broker = tls_broker()
    assert broker.ok("GET", "/v1/status")["workers_tls"] is True
    broker.add_source("src", SECRET)
    broker.add_subscription("sub")
    big = "x" * 700_000  # many records, and more than a socket takes at once
    with Client(broker.workers_port, tls=trusting(authority, "bellhop/1")) as worker:
        worker.subscribe("sub", window_bytes=16 << 20)
        for n in range(5):
            body = {"type": "t", "data": {"n": n, "text": big}}
            assert broker.post_signed("src", SECRET, body)[0] == 200
        items = worker.take(5)
        assert [json.loads(item.body)["data"]["n"] for item in items] == list(range(5))
        assert all(json.loads(item.body)["data"]["text"] == big for item in items)
        worker.ack(items)
    assert broker.subscription("sub")["backlog"] == 0
    assert len(broker.events()) == 5


def test_command_line_and_library(tls_broker, authority):
    broker = tls_broker()
    trust = {"BELLHOP_CA": str(authority.file)}
    assert broker.run_cli("sub", "create", "s", env=trust).returncode == 0
    assert broker.run_cli("publish", "--type", "x", '{"a":1}', env=trust).returncode == 0
    done = broker.run_cli("work", "s", "--count", "1", "--", "cat", env=trust)
    assert done.returncode == 0 and '{"a":1}' in done.stdout, done
    status = broker.run_cli("status", "--ca", str(authority.file))
    assert status.returncode == 0, status
    refused = broker.run_cli("status")
    assert refused.returncode == 69 and "--ca FILE" in refused.stderr, refused


@pytest.mark.parametrize("case, words", [
    ("nobody it trusts", "certificate is refused"),
    ("another host", "certificate is refused"),
    ("plain to TLS", "this port speaks TLS: connect with bellhops://"),
    ("TLS to plain", "does not speak TLS: is it bellhop://"),
    ("no such file", "cannot use the authorities in"),
])
def test_library_says_why(tls_broker, authority, case, words):
    other = Authority(authority.directory, "other")
    plain = ("--tls-workers", "no") if case == "TLS to plain" else ()
    paths = authority.server("elsewhere", "elsewhere.example", addresses=()) \
        if case == "another host" else None
    # The requests of the CLI itself go to a plain port: only the worker port matters here.
    broker = tls_broker("--tls-http", "no", *plain, paths=paths)
    broker.add_subscription("s")
    ca = {"nobody it trusts": other.file, "no such file": "/nowhere.pem"}.get(case, authority.file)
    scheme = "bellhop" if case == "plain to TLS" else "bellhops"
    process = subprocess.Popen(
        [str(BUILD / "bellhop"), "work", "s", "--", "true"],
        env={**broker_env(), "BELLHOP_URL": broker.http, "BELLHOP_CA": str(ca),
             "BELLHOP_WORKERS": f"{scheme}://127.0.0.1:{broker.workers_port}"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert select.select([process.stderr], [], [], DEADLINE_S)[0], "it says nothing"
        line = process.stderr.readline()
        assert words in line, line
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        process.stderr.close()


@pytest.mark.parametrize("case, code, words", [
    ("TLS to plain", 69, "does not speak TLS"),
    ("the workers' port", 69, "wants the HTTP port"),
    ("no certificate", 69, "wants a client certificate: BELLHOP_CERT"),
    ("a stranger's certificate", 69, "does not know who signed"),
    ("no key", 66, "BELLHOP_CERT_KEY"),
    ("no such authorities", 66, "'/nowhere.pem' cannot be read"),
])
def test_command_line_says_what_to_do(tls_broker, authority, case, code, words):
    other = Authority(authority.directory, "other")
    args = {"TLS to plain": ("--tls-http", "no"), "no certificate": ("--tls-client-ca", str(authority.file)),
            "a stranger's certificate": ("--tls-client-ca", str(authority.file))}.get(case, ())
    good = authority.client("good")
    broker = tls_broker(*args, client=good)
    env = {"BELLHOP_CA": "/nowhere.pem" if case == "no such authorities" else str(authority.file)}
    port = broker.workers_port if case == "the workers' port" else broker.http_port
    env["BELLHOP_URL"] = f"https://127.0.0.1:{port}"
    if case == "a stranger's certificate":
        cert, key = other.client("stranger")
        env |= {"BELLHOP_CERT": str(cert), "BELLHOP_CERT_KEY": str(key)}
    if case == "no key":
        env["BELLHOP_CERT"] = str(good[0])
    for command in (["status"], ["top"], ["tail"]):
        done = broker.run_cli(*command, env=env)
        assert done.returncode == code and words in done.stderr, (command, done)


# ---- what is refused ----

def test_plain_http_to_the_tls_port(tls_broker):
    broker = tls_broker()
    with socket.create_connection(("127.0.0.1", broker.http_port), timeout=DEADLINE_S) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = read_all(plain)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"use https://" in answer, answer
    wait_log(broker, "it does not speak TLS, and this port does")


def test_plain_worker_to_the_tls_port(tls_broker):
    broker = tls_broker()
    with Client(broker.workers_port, hello=False) as client:
        frame = client._read_frame(time.monotonic() + DEADLINE_S)
        assert frame[0] == ERR and frame[6] is True and b"bellhops://" in bytes(str(frame[4]), "utf8")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions(tls_broker, authority):
    broker = tls_broker()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION|protocol version"):
        connect_to(broker.http_port, context)
    wait_log(broker, "TLS handshake: unsupported protocol")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trusting(authority)
        context.minimum_version = context.maximum_version = version
        with connect_to(broker.http_port, context) as connection:
            assert connection.version() == version.name.replace("_", ".")


def test_ciphers_of_tls_1_2(tls_broker, authority):
    broker = tls_broker()
    for weak in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "AES256-SHA"):
        context = trusting(authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(weak + ":@SECLEVEL=0")
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE|handshake failure"):
            connect_to(broker.http_port, context)


def test_alpn(tls_broker, authority):
    broker = tls_broker()
    for port, name in ((broker.http_port, "http/1.1"), (broker.workers_port, "bellhop/1")):
        with connect_to(port, trusting(authority, "h2", name)) as connection:
            assert connection.selected_alpn_protocol() == name
        with connect_to(port, trusting(authority)) as connection:
            assert connection.selected_alpn_protocol() is None
        with pytest.raises(ssl.SSLError, match="NO_APPLICATION_PROTOCOL|no application protocol"):
            connect_to(port, trusting(authority, "h2"))
    # A request that was meant for the other port does not get through.
    with pytest.raises(ssl.SSLError):
        connect_to(broker.workers_port, trusting(authority, "http/1.1"))


def test_handshake_that_stalls(tls_broker, authority):
    """Nothing, half a hello, or a byte now and then: closed at the deadline, which nothing moves."""
    broker = tls_broker()
    hello = client_hello(authority)
    stalled = []
    for sent in (b"", hello[:1], hello[:40], hello[:-1]):
        stalled.append(socket.create_connection(("127.0.0.1", broker.http_port), timeout=DEADLINE_S))
        stalled[-1].sendall(sent)
    dripping = socket.create_connection(("127.0.0.1", broker.workers_port), timeout=0.2)
    sent = 0
    while True:  # as long as the broker lets it, which must end
        try:
            dripping.sendall(hello[sent:sent + 1])
            sent += sent < len(hello) - 1
            if not dripping.recv(1):
                break
        except socket.timeout:
            continue
        except OSError:
            break
    for connection in stalled:
        assert read_all(connection) == b""
        connection.close()
    dripping.close()
    wait_log(broker, "TLS handshake: not done within 5 seconds")
    assert broker.api("GET", "/healthz")[0] == 200


def client_hello(authority):
    """The first bytes of a client, as its TLS makes them."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    shaking = trusting(authority).wrap_bio(incoming, outgoing, server_hostname="first.example")
    with pytest.raises(ssl.SSLWantReadError):
        shaking.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("what, words", [
    ("a message of 16 MiB", "a message is longer than 32 KiB"),
    ("the same, a byte per record", "a message is longer than 32 KiB"),
    ("garbage after a hello", "TLS handshake: "),
    ("an alert", "TLS handshake: "),
])
def test_hostile_handshakes(tls_broker, authority, what, words):
    broker = tls_broker()
    head = b"\x01\xff\xff\xff"
    sent = {
        "a message of 16 MiB": b"\x16\x03\x01\x40\x00" + head + b"x" * 0x3ffc,
        "the same, a byte per record": b"".join(
            b"\x16\x03\x01\x00\x01" + bytes([byte]) for byte in head),
        "garbage after a hello": client_hello(authority) + b"\xff" * 600,
        "an alert": client_hello(authority)[:5] + b"\x02\x00\x00\x02\x03\x03" + b"z" * 600,
    }[what]
    with socket.create_connection(("127.0.0.1", broker.http_port), timeout=DEADLINE_S) as connection:
        connection.sendall(sent)
        read_all(connection)
    wait_log(broker, words)
    assert broker.api("GET", "/healthz")[0] == 200


def test_records_of_one_byte(tls_broker, authority):
    """A request whose every byte is a record of its own, the socket's pieces cut anywhere."""
    broker = tls_broker()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting(authority).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", broker.http_port), timeout=DEADLINE_S) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def drive(call, piece):
            while True:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    data = outgoing.read()
                    for at in range(0, len(data), piece):
                        raw.sendall(data[at:at + piece])
                    incoming.write(raw.recv(65536))

        drive(tls.do_handshake, 7)
        for byte in b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n":
            tls.write(bytes([byte]))
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += drive(lambda: tls.read(65536), 13)
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def test_key_updates_without_end(tls_broker, authority):
    """Each one asks for an answer; the broker stops that, and its memory stays as it was."""
    broker = tls_broker()
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.http_port}", "-tls1_3",
         "-CAfile", str(authority.file)], input=b"K\n" * 200, capture_output=True,
        timeout=DEADLINE_S)
    assert b"CONNECTED" in done.stdout
    assert broker.api("GET", "/healthz")[0] == 200


def test_end_is_told_by_close_notify(tls_broker, authority):
    """Python's ssl says an error for an end without one, when it is told to mind."""
    broker = tls_broker()
    context = trusting(authority)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    with connect_to(broker.http_port, context) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        connection.suppress_ragged_eofs = False
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")
    with connect_to(broker.http_port, context) as connection:
        connection.suppress_ragged_eofs = False
        connection.sendall(b"nonsense\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_cut_off_request_is_no_request(tls_broker, authority):
    """The body's end is missing, or everything is there but the end of TLS: only what was whole
    counts."""
    broker = tls_broker()
    body = b'{"type":"t","data":1}'
    head = b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    connection = connect_to(broker.http_port, trusting(authority))
    connection.sendall(head + b"content-length: %d\r\n\r\n" % (len(body) + 1) + body)
    os.close(connection.detach())  # the socket below TLS: no close_notify
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["http"] <= 1,
             what="the end of the cut connection")
    assert broker.events() == []


# ---- certificates of clients ----

def test_client_certificates_required(tls_broker, authority):
    other = Authority(authority.directory, "other")
    good = authority.client("good")
    broker = tls_broker("--tls-client-ca", str(authority.file), client=good)
    assert broker.api("GET", "/healthz")[0] == 200
    with Client(broker.workers_port, tls=trusting(authority, client=good)) as client:
        assert client.welcome is not None
    for client, words in (
            (None, "peer did not return a certificate"),
            (authority.client("late", expired=True), "certificate has expired"),
            (other.client("stranger"), "unable to get local issuer certificate")):
        for port in (broker.http_port, broker.workers_port):
            # Again and again: the log takes one line per second.
            wait_for(lambda p=port, c=client, w=words: is_refused(p, trusting(authority, client=c))
                     and w in broker.log(), what=words)
    trust = {"BELLHOP_CA": str(authority.file), "BELLHOP_CERT": str(good[0]),
             "BELLHOP_CERT_KEY": str(good[1])}
    assert broker.run_cli("sub", "create", "s", env=trust).returncode == 0
    assert broker.run_cli("publish", "--type", "x", "1", env=trust).returncode == 0
    done = broker.run_cli("work", "s", "--count", "1", "--", "true", env=trust)
    assert done.returncode == 0, done
    del trust["BELLHOP_CERT"], trust["BELLHOP_CERT_KEY"]
    assert broker.run_cli("status", env=trust).returncode == 69


def is_refused(port, context):
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        with connect_to(port, context) as connection:  # TLS 1.3 hears of it after its handshake
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            connection.recv(1)
    return True


def test_client_certificates_optional(tls_broker, authority):
    other = Authority(authority.directory, "other")
    broker = tls_broker("--tls-client-ca", str(authority.file), "--tls-client", "optional")
    assert broker.api("GET", "/healthz")[0] == 200
    broker.tls = trusting(authority, client=authority.client("good"))
    assert broker.api("GET", "/healthz")[0] == 200
    broker.tls = trusting(authority, client=other.client("stranger"))
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        broker.api("GET", "/healthz")


# ---- several certificates, and new ones ----

def test_sni_chooses(authority, brokers):
    first = authority.server("first", "first.example", "www.first.example")
    second = authority.server("second", "*.second.example")
    broker = brokers(*pair(first), *pair(second))
    context = trusting(authority)
    context.check_hostname = False
    for host, expected in (
            ("first.example", "first.example"), ("www.first.example", "first.example"),
            ("a.second.example", "*.second.example"), ("A.SECOND.EXAMPLE", "*.second.example"),
            ("second.example", "first.example"), ("a.b.second.example", "first.example"),
            ("unknown.example", "first.example"), (None, "first.example")):
        with connect_to(broker.http_port, context, host=host) as connection:
            assert expected in names_of(connection), (host, names_of(connection))


class Load(threading.Thread):
    """Publishes over connections that stay, and over new ones, until it is told to stop."""

    def __init__(self, broker):
        super().__init__()
        self.broker, self.over, self.published, self.problem = broker, threading.Event(), 0, None

    def run(self):
        try:
            kept = http.client.HTTPSConnection("127.0.0.1", self.broker.http_port,
                                               timeout=DEADLINE_S, context=self.broker.tls)
            while not self.over.is_set():
                kept.request("POST", "/v1/events", b'{"type":"kept"}',
                             {"content-type": "application/json"})
                response = kept.getresponse()
                assert response.status == 200 and response.read()
                assert kept.sock is not None, "the connection was not kept"
                self.broker.publish("fresh")
                self.published += 2
            kept.close()
        except Exception as problem:  # told by the test's own thread
            self.problem = problem


def test_reload_under_load(tls_broker, authority):
    paths = authority.server("live", "old.example")
    broker = tls_broker(paths=paths)

    def names():
        with connect_to(broker.http_port, broker.tls) as connection:
            return names_of(connection)

    assert names() == {"old.example"}
    load = [Load(broker) for _ in range(3)]
    with Client(broker.workers_port, tls=broker.tls) as worker:
        for thread in load:
            thread.start()
        for n in range(10):
            fresh = authority.server("fresh", f"new{n}.example")
            shutil.copy(fresh[0], paths[0])
            shutil.copy(fresh[1], paths[1])
            before = sum(thread.published for thread in load)
            broker.process.send_signal(signal.SIGHUP)
            wait_for(lambda n=n: names() == {f"new{n}.example"}, what="the new certificate")
            wait_for(lambda b=before: sum(t.published for t in load) > b + 20
                     or any(t.problem for t in load), what="load after the reload")
        for thread in load:
            thread.over.set()
        for thread in load:
            thread.join(DEADLINE_S)
        assert [thread.problem for thread in load] == [None] * 3
        worker.publish({})  # a connection from before ten reloads
    assert len(broker.events()) == sum(thread.published for thread in load) + 1


@pytest.mark.parametrize("case, words", [
    ("gone", "No such file or directory"),
    ("garbage", "cannot use the certificate"),
    ("another key", "is not that of the certificate"),
    ("empty", "cannot use the certificate"),
    ("pass phrase", "wants a pass phrase"),
])
def test_bad_file_at_reload_changes_nothing(tls_broker, authority, case, words):
    paths = authority.server("live", "old.example")
    broker = tls_broker(paths=paths)
    if case == "gone":
        paths[1].unlink()
    elif case == "garbage":
        paths[0].write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    elif case == "another key":
        shutil.copy(authority.server("fresh", "new.example")[1], paths[1])
    elif case == "empty":
        paths[0].write_text("")
    else:
        subprocess.run(["openssl", "ec", "-in", paths[1], "-aes256", "-passout", "pass:x",
                        "-out", paths[1].with_suffix(".locked")], check=True, capture_output=True)
        paths[1].with_suffix(".locked").rename(paths[1])
    broker.process.send_signal(signal.SIGHUP)
    wait_log(broker, "the certificates stay as they were")
    assert words in broker.log(), broker.log_tail()
    with connect_to(broker.http_port, broker.tls) as connection:
        assert names_of(connection) == {"old.example"}


# ---- the start ----

@pytest.mark.parametrize("args, words", [
    (["--tls-cert", "a.pem"], "give one key for each certificate"),
    (["--tls-cert", "no.pem", "--tls-key", "no.key"], "cannot use the certificate no.pem: No such"),
    (["--tls-client-ca", "ca.pem"], "client certificates need TLS"),
    (["--tls-client", "perhaps"], "is not required or optional"),
])
def test_flags_that_cannot_be(tmp_path, args, words):
    done = subprocess.run([str(BUILD / "bellhopd"), "--http", "127.0.0.1:0", "--workers",
                           "127.0.0.1:0", "--data", str(tmp_path / "data"), *args],
                          capture_output=True, text=True, timeout=DEADLINE_S, cwd=tmp_path,
                          env=broker_env())
    assert done.returncode in (1, 2) and words in done.stderr, done


def test_many_handshakes_leave_no_memory(tls_broker, authority):
    """After a warm-up, 2,000 handshakes more make the process at most 8 MiB larger. A sanitizer keeps
    what is freed for a while, and looks for leaks at the end instead."""
    broker = tls_broker()

    def resident_kib():
        with open(f"/proc/{broker.process.pid}/status") as status:
            return int(next(line for line in status if line.startswith("VmRSS")).split()[1])

    def shake_hands(count):
        for n in range(count):
            context = broker.tls
            connection = connect_to(broker.http_port, context)
            if n % 3 == 0:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
                connection.recv(4096)
            connection.close()

    shake_hands(100 if SANITIZED else 500)
    wait_for(lambda: broker.ok("GET", "/v1/status")["connections"]["http"] <= 1,
             what="the ends of the connections")
    before = resident_kib()
    shake_hands(100 if SANITIZED else 2000)
    after = resident_kib()
    assert SANITIZED or after < before + 8 * 1024, (before, after)
