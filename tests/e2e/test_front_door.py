"""Who is let to the front door: web pages in browsers, callers of one address with many connections, and
those who come when every place is taken. What crosses the network in clear is told at the start."""

import json
import resource
import signal
import socket
import ssl
import subprocess

import pytest
from certificates import Authority
from harness import BUILD, DEADLINE_S, broker_env, wait_for

GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def tls_flags(tmp_path):
    authority = Authority(tmp_path)
    cert, key = authority.server("server", "hooks.example")
    flags = "--tls-cert", str(cert), "--tls-key", str(key)
    return flags, ssl.create_default_context(cafile=str(authority.file))


def start(brokers, tls_flags=None, *more):
    if tls_flags is None:
        return brokers(*more)
    broker = brokers(*tls_flags[0], *more, start=False)
    broker.tls = tls_flags[1]
    return broker.start()


# ---- web pages ----

def publishes(broker, **headers):
    """Whether a request with these headers may publish; {port} is the door's."""
    sent = {name.capitalize(): value.format(port=broker.http_port) for name, value in headers.items()}
    status, _, text = broker.request("POST", "/v1/events", b'{"type":"t"}',
                                     {"content-type": "application/json", **sent})
    assert status in (200, 403), text
    if status == 403:
        error = json.loads(text)["error"]
        assert error["code"] == "permission_denied"
        return error["message"].split(":")[0]
    return True


OWN = "127.0.0.1:{port}"


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("tls", [False, True])
def test_pages_of_this_origin(brokers, tls_flags, tls, keys):
    """https is the page's scheme also where a proxy in front of us has ended TLS; http is never that of a
    page which a port with TLS could have sent."""
    broker = start(brokers, tls_flags if tls else None)
    if keys:
        broker.key = broker.ok("POST", "/v1/keys", {"name": "k", "scopes": ["admin"]})["key"]
    assert publishes(broker) is True
    assert publishes(broker, origin="https://" + OWN, host=OWN) is True
    assert publishes(broker, origin="http://" + OWN, host=OWN) == ("Origin" if tls else True)
    for other in ("https://evil.example", "http://127.0.0.1:1", "https://127.0.0.1:1", "null", "",
                  "http://localhost:{port}", "HTTP://" + OWN, "ftp://" + OWN, OWN,
                  "https://" + OWN + ".evil.example", "https://" + OWN + "/"):
        assert publishes(broker, origin=other, host=OWN) == "Origin", other


def test_a_port_that_is_left_out(brokers):
    """https://NAME and a request to NAME: 443 and 80, which may be two servers. A key tells."""
    broker = start(brokers)
    assert publishes(broker, origin="https://localhost", host="localhost") == "Origin"
    assert publishes(broker, origin="http://localhost", host="localhost") is True
    assert publishes(broker, origin="https://[::1]", host="[::1]") == "Origin"
    assert publishes(broker, origin="https://[::1]:1", host="[::1]:1") is True
    broker.key = broker.ok("POST", "/v1/keys", {"name": "k", "scopes": ["admin"]})["key"]
    assert publishes(broker, origin="https://hooks.example", host="hooks.example") is True


def test_a_name_that_points_here_is_no_right(brokers):
    """DNS rebinding: the page's own name, made to mean 127.0.0.1, is in Origin and in Host."""
    broker = start(brokers)
    for name in ("evil.example:{port}", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                 "127.1", "localhost."):
        assert publishes(broker, origin="http://" + name, host=name) == "Host", name
        assert publishes(broker, host=name) == "Host", name
        host = {"Host": name.format(port=broker.http_port)}
        assert broker.request("GET", "/v1/events", headers=host)[0] == 403, name
        assert broker.request("GET", "/v1/nowhere", headers=host)[0] == 403, name
        assert broker.request("GET", "/healthz", headers=host)[0] == 200, name
    for name in ("localhost", "LOCALHOST:{port}", "a.localhost:1", "127.0.0.1", "127.9.9.9:{port}",
                 "[::1]:{port}", "[::1]", "10.0.0.1:80"):
        assert publishes(broker, host=name) is True, name
    assert len(broker.events()) == 8


def test_with_a_key_any_name_will_do(brokers):
    broker = start(brokers)
    broker.key = broker.ok("POST", "/v1/keys", {"name": "k", "scopes": ["admin"]})["key"]
    assert publishes(broker, host="hooks.example") is True
    assert publishes(broker, origin="http://hooks.example", host="hooks.example") is True
    assert publishes(broker, origin="http://evil.example", host="hooks.example") == "Origin"


# ---- what is told at the start ----

HTTP, WORKERS = "is plain HTTP: keys and webhooks cross", "is without TLS: events cross"


@pytest.mark.parametrize("args, tls, told", [
    ((), False, set()),
    (("--http", "0.0.0.0:0"), False, {HTTP}),
    (("--http", "[::]:0"), False, {HTTP}),
    (("--workers", "0.0.0.0:0"), False, {WORKERS}),
    (("--http", "0.0.0.0:0", "--workers", "0.0.0.0:0"), False, {HTTP, WORKERS}),
    (("--http", "0.0.0.0:0", "--workers", "0.0.0.0:0"), True, set()),
    (("--http", "0.0.0.0:0", "--workers", "0.0.0.0:0", "--tls-http", "no"), True, {HTTP}),
    (("--http", "0.0.0.0:0", "--workers", "0.0.0.0:0", "--tls-workers", "no"), True, {WORKERS}),
    (("--http", "127.9.9.9:0", "--workers", "[::1]:0"), False, set()),
])
@pytest.mark.parametrize("keys", [False, True])
def test_what_crosses_the_network_in_clear(brokers, tls_flags, args, tls, told, keys):
    if keys:
        done = subprocess.run([str(BUILD / "bellhopd"), "--make-key", "ops", "--data", "data"],
                              cwd=make_directory(brokers), env=broker_env(), capture_output=True,
                              timeout=DEADLINE_S)
        assert done.returncode == 0, done
    broker = start(brokers, tls_flags if tls else None, *args, *(() if keys else ("--insecure", "yes")))
    lines = [line for line in broker.log().splitlines() if "in clear" in line]
    assert {words for words in (HTTP, WORKERS) if any(words in line for line in lines)} == told
    assert len(lines) == len(told), lines
    for line in lines:
        flag, address = (args[i:i + 2] for i in (0, 2) if args[i] in line).__next__()
        assert f"{flag} {address} " in line and "--tls-" in line, line


def make_directory(brokers):
    """Where the next broker of this fixture has its data."""
    return brokers(start=False).directory


# ---- places ----

@pytest.fixture
def elsewhere(brokers):
    """Makes brokers to whom 127.A.B.C looks like 10.A.B.C (peer_address.c)."""
    library = BUILD / "tests" / "peer_address.so"
    assert library.exists(), f"{library} is not there: build everything first"

    def make(tls_flags=None, *args):
        broker = brokers(*(tls_flags[0] if tls_flags else ()), *args, start=False)
        broker.tls = tls_flags[1] if tls_flags else None
        options = broker_env()["ASAN_OPTIONS"] + ":verify_asan_link_order=0"
        broker.env = {"LD_PRELOAD": str(library), "ASAN_OPTIONS": options}
        return broker.start()

    return make


@pytest.fixture
def connect_from():
    """Makes connections: connect_from(broker, "127.1.0.1"). Closed when the test ends."""
    made = []

    def make(broker, source="127.0.0.1"):
        made.append(socket.create_connection(("127.0.0.1", broker.http_port), timeout=DEADLINE_S,
                                             source_address=(source, 0)))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


def is_served(connection):
    """Whether a request is answered; False: it was closed, perhaps before it was sent."""
    try:
        connection.sendall(GET)
        return connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    except ConnectionError:
        return False


def test_connections_of_one_address(elsewhere, connect_from):
    broker = elsewhere(None, "--max-per-ip", "3")
    for first, second in (("127.1.0.1", "127.1.0.2"), ("127.200.1.1", "127.200.2.1")):
        inside = [connect_from(broker, first) for _ in range(3)]
        assert all(is_served(connection) for connection in inside)
        for _ in range(5):
            assert not is_served(connect_from(broker, first))
        assert is_served(connect_from(broker, second))
        assert all(is_served(connection) for connection in inside)
        inside.pop().close()
        wait_for(lambda f=first: is_served(connect_from(broker, f)), what="the place of one that left")
    # All of a /64 are one caller.
    assert not is_served(connect_from(broker, "127.200.1.9"))
    local = [connect_from(broker) for _ in range(10)]
    assert all(is_served(connection) for connection in local)
    assert "10.1.0.1:" in broker.log() and "has 3 connections already and gets no more" in broker.log()


def test_connections_of_one_address_count_before_their_handshake(elsewhere, tls_flags, connect_from):
    broker = elsewhere(tls_flags, "--max-per-ip", "2")
    silent = [connect_from(broker, "127.1.0.1") for _ in range(2)]
    assert connect_from(broker, "127.1.0.1").recv(1) == b""
    served = broker.tls.wrap_socket(connect_from(broker, "127.1.0.2"), server_hostname="127.0.0.1")
    assert is_served(served)
    served.close()
    silent[0].close()
    wait_for(lambda: shakes_hands(broker, connect_from(broker, "127.1.0.1")), what="its place")


def shakes_hands(broker, connection):
    try:
        with broker.tls.wrap_socket(connection, server_hostname="127.0.0.1") as served:
            return is_served(served)
    except OSError:
        return False


def enough_files(count):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard == resource.RLIM_INFINITY or hard >= count, f"this needs {count} open files: ulimit -Hn"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.mark.parametrize("source, most", [("127.1.0.1", 256), ("127.0.0.1", 2048)])
def test_unfinished_handshakes(elsewhere, tls_flags, connect_from, source, most):
    """At so many, of one address or of all, who has been silent longest goes for a new one: those who came
    last are still there, and who answers is served."""
    enough_files(most + 200)
    broker = elsewhere(tls_flags, "--max-per-ip", "none")
    silent = [connect_from(broker, source) for _ in range(most)]
    newest = [connect_from(broker, source) for _ in range(20)]
    for connection in silent[:20]:
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    wait_for(lambda: "too many wait for their end" in broker.log(), what="the line")
    assert shakes_hands(broker, connect_from(broker, source))
    assert shakes_hands(broker, newest[-1])


def test_who_is_idle_makes_room(brokers, connect_from):
    """75 places: those that are idle longest go, one for each that comes; none that is in a request."""
    broker = brokers(start=False)
    broker.before = ["bash", "-c", 'ulimit -n 100; exec "$@"', "bash"]
    broker.start()
    busy = [connect_from(broker) for _ in range(5)]
    for connection in busy:
        connection.sendall(b"GET /v1/events?type=late&wait_ms=60000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    idle = []
    for _ in range(70):
        idle.append(connect_from(broker))
        assert is_served(idle[-1])
    came = [connect_from(broker) for _ in range(30)]
    for connection in came:
        assert is_served(connection)
    for connection in idle[:30]:
        assert connection.recv(1) == b""
    assert all(is_served(connection) for connection in idle[30:])
    assert "those that were idle longest are closed for new ones" in broker.log()
    broker.publish("late")
    for connection in busy:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_has_just_come_is_not_given_up(brokers, connect_from):
    """Of those that are idle longest some send their next request in the moment that somebody comes: the
    others go."""
    broker = brokers(start=False)
    broker.before = ["bash", "-c", 'ulimit -n 100; exec "$@"', "bash"]
    broker.start()
    idle = [connect_from(broker) for _ in range(75)]
    assert all(is_served(connection) for connection in idle)
    came = [connect_from(broker)]
    assert is_served(came[0]) and idle.pop(0).recv(1) == b""
    broker.process.send_signal(signal.SIGSTOP)
    try:
        came += [connect_from(broker) for _ in range(5)]  # the broker hears of them first
        for connection in idle[:5]:
            connection.sendall(GET)
    finally:
        broker.process.send_signal(signal.SIGCONT)
    for connection in idle[:5]:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert all(is_served(connection) for connection in came)
    assert all(connection.recv(1) == b"" for connection in idle[5:10])
    assert all(is_served(connection) for connection in idle[10:])

