"""The command line: what it prints, what it refuses, how it ends."""

import http.server
import json
import re
import subprocess
import threading

import pytest

from clitools import CLI, alone, cli, cli_json, end_of, running, sub, work
from harness import DEADLINE_S, broker_env, make_secret, now_s, wait_for

COMMANDS = ["status", "top", "source add", "source show",
            "source update", "source test", "source ls", "source rm", "sub create", "sub update",
            "sub ls", "sub show", "sub stats", "sub pause", "sub resume", "sub seek", "sub rm",
            "publish", "send", "work", "tail", "replay", "replay ls", "replay show",
            "replay cancel", "dlq ls", "dlq show", "dlq redrive", "dlq purge", "retention show",
            "retention set", "listen", "webhook create", "webhook ls", "webhook show",
            "webhook update", "webhook rm", "webhook ping", "webhook rotate", "webhook enable",
            "webhook disable", "webhook pause", "webhook resume", "webhook attempts",
            "webhook resend", "webhook recover", "webhook keys", "webhook rotate-key",
            "webhook endpoints", "key create", "key ls",
            "key revoke", "project create", "project ls", "project show", "project rm", "event-types", "job put", "job show", "wait"]


# --- words ---

def test_help_and_version():
    text = alone("help")
    assert text.returncode == 0
    for command in COMMANDS:
        assert f"  {command} " in text.stdout
    for code in ("64", "65", "66", "69", "70", "74", "75", "128+N"):
        assert f"\n  {code} " in text.stdout
    assert alone("--help").stdout == text.stdout == alone("-h").stdout
    version = alone("--version")
    assert version.returncode == 0 and version.stdout.startswith("bellhop 0.")
    nothing = alone()
    assert nothing.returncode == 64 and nothing.stderr == text.stdout and not nothing.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    # Also where words are missing: who asks for help does not know them yet.
    text = alone(*command.split(), "--help", env={"BELLHOP_URL": "http://127.0.0.1:1"})
    assert text.returncode == 0 and not text.stderr
    assert text.stdout.startswith(f"bellhop {command}: ")
    assert f"\nexample:\n  bellhop {command}" in text.stdout
    assert "--json" in text.stdout
    assert alone("help", *command.split()).stdout == text.stdout


@pytest.mark.parametrize("args, words", [
    (["statsu"], "did you mean: bellhop status"),
    (["souce", "add"], "did you mean: bellhop source add"),
    (["source", "ad", "x"], "did you mean: bellhop source add"),
    (["xyzzy"], "see: bellhop help"),
    (["source", "frobnicate"], "see: bellhop help source"),
    (["source"], "source what?"),
    (["--frobnicate"], "unknown flag --frobnicate"),
    (["status", "--jsno"], "did you mean --json?"),
    (["sub", "create", "x", "--lese", "3s"], "did you mean --lease?"),
    (["status", "--zzzzzzzzzz"], "see: bellhop status --help"),
    (["status", "extra"], "'extra' is one word too many"),
    (["sub", "show"], "something is missing"),
    (["status", "--json=1"], "--json takes no value"),
    (["publish", "--type"], "--type needs a value"),
    (["publish", "--type", "a", "--type", "b"], "--type is given twice"),
    (["publish", "{}"], "--type is missing"),
    (["publish", "--type", "a", "--file", "f", "{}"], "not both"),
    (["publish", "--ndjson", "--type", "a"], "exclude each other"),
    (["publish", "--type", "a", "--metadata", "[1]", "{}"], "--metadata is not a JSON object"),
    (["sub", "create", "../x"], "no name of a subscription"),
    (["sub", "create", "x", "--lease", "30"], "not a duration"),
    (["sub", "create", "x", "--lease", "-3s"], "not a duration"),
    (["sub", "create", "x", "--lease", "0x10s"], "not a duration"),
    (["sub", "create", "x", "--lease", "infs"], "not a duration"),
    (["sub", "create", "x", "--max-fails", "many"], "not a whole number"),
    (["sub", "create", "x", "--backoff", "1s,2"], "neither MIN..MAX"),
    (["sub", "create", "x", "--backoff", "2s,1s,2"], "neither MIN..MAX"),
    (["sub", "create", "x", "--start", "yesterday"], "neither a time"),
    (["source", "add", ".hidden"], "no name of a source"),
    (["send", "x", "--secret", "short", "{}"], "the secret is not whsec_"),
    (["send", "x", "{}"], "a secret is needed"),
    (["send", "x", "--secret", make_secret()], "the body is missing"),
    (["send", "x", "--secret", make_secret(), "--id", "a b", "{}"], "sent in a header"),
    (["send", "x", "--secret", make_secret(), "--timestamp", "noon", "{}"], "neither a time"),
    (["work", "x", "ls"], "put -- before the program"),
    (["work", "x"], "the program to run is missing"),
    (["work", "x", "--"], "the program to run is missing"),
    (["work", "x", "--count", "0", "--", "true"], "not a whole number from 1"),
    (["work", "x", "--concurrency", "99999", "--", "true"], "from 1 to 1024"),
    (["tail", "--from", "0"], "not a whole number"),
    (["tail", "--from", "18446744073709551616"], "not a whole number"),
    (["replay", "x"], "say where the replay begins"),
    (["replay", "x", "--from-seq", "1", "--since", "1h"], "not both"),
    (["dlq", "ls", "a/b"], "no name of a subscription"),
])
def test_nonsense_is_named(args, words):
    done = alone(*args, env={"BELLHOP_URL": "http://127.0.0.1:1"})
    assert done.returncode == 64, (done.stdout, done.stderr)
    assert words in done.stderr
    assert not done.stdout


def test_input_that_cannot_be_used():
    done = alone("publish", "--type", "a", "{\"a\":")
    assert done.returncode == 65 and "not JSON" in done.stderr and "line 1" in done.stderr
    done = alone("publish", "--type", "a", "--file", "/nowhere/at/all")
    assert done.returncode == 66 and "/nowhere/at/all: No such file" in done.stderr
    done = alone("publish", "--type", "a", "--file", "/")
    assert done.returncode == 66


@pytest.mark.parametrize("url, code, words", [
    ("http://127.0.0.1:1", 69, "no broker answers at http://127.0.0.1:1"),
    ("127.0.0.1:8420", 64, "it has no http://"),
    ("ftp://127.0.0.1", 64, "neither http nor https"),
    ("http://127.0.0.1:99999", 64, "BELLHOP_URL is"),
    ("http://127.0.0.1/?a=b", 64, "BELLHOP_URL is"),
])
def test_where_the_broker_is_not(url, code, words):
    done = alone("status", env={"BELLHOP_URL": url})
    assert done.returncode == code and words in done.stderr
    if code == 69:
        assert "bellhopd" in done.stderr and "BELLHOP_URL" in done.stderr
        for command in (["tail"], ["work", "x", "--", "true"], ["source", "ls"]):
            assert alone(*command, env={"BELLHOP_URL": url}).returncode == 69


def test_a_full_disk_is_not_success(broker):
    with open("/dev/full", "w") as full:
        done = subprocess.run([CLI, "status"], stdout=full, stderr=subprocess.PIPE, text=True,
                              env={**broker_env(), "BELLHOP_URL": broker.http}, timeout=DEADLINE_S)
    assert done.returncode == 74 and "writing to stdout failed" in done.stderr


# --- sources, subscriptions, status ---

def test_status(broker):
    broker.add_subscription("slow")
    broker.publish("a")
    text = cli(broker, "status").stdout
    assert "journal        seq 1 to 1, " in text and broker.http_address in text
    assert re.search(r"^behind +slow by 1 event, oldest .* \(no_workers\)$", text, re.M)
    assert "\033" not in text
    [status] = cli_json(broker, "status", "--json")
    assert status["workers_port"] == broker.workers_port
    assert status["journal"]["last_seq"] == 1


def test_a_slash_at_the_end_of_the_url_is_no_matter(broker):
    cli(broker, "status", env={"BELLHOP_URL": broker.http + "/"})


def test_sources(broker):
    assert "no source yet" in cli(broker, "source", "ls").stdout
    assert cli(broker, "source", "ls", "--json").stdout == ""
    text = cli(broker, "source", "add", "gemini").stdout
    assert "created source gemini (standard-webhooks)" in text
    assert f"{broker.http}/in/gemini" in text and "whsec_" in text
    [made] = cli_json(broker, "source", "add", "two", "--json", "--secret", make_secret("a"),
                      "--secret=" + make_secret("b"), "--scheme", "standard-webhooks")
    assert len(made["secrets"]) == 2 and "secret" not in made
    again = cli(broker, "source", "add", "two", code=1)
    assert "(already_exists, HTTP 409)" in again.stderr and not again.stdout
    refused = cli(broker, "source", "add", "three", "--scheme", "smoke-signals", code=1)
    assert "scheme" in refused.stderr and "HTTP 400" in refused.stderr
    table = cli(broker, "source", "ls").stdout.splitlines()
    assert table[0].split() == ["NAME", "SCHEME", "PATH", "ACCEPTED", "DUPLICATES", "REFUSED"]
    assert [row.split()[0] for row in table[1:]] == ["gemini", "two"]
    assert table[1].index("standard-webhooks") == table[2].index("standard-webhooks")
    assert [s["name"] for s in cli_json(broker, "source", "ls", "--json")] == ["gemini", "two"]
    assert cli(broker, "source", "rm", "two").stdout == "removed source two\n"
    assert cli_json(broker, "source", "rm", "gemini", "--json") == [{"removed": "gemini"}]
    assert "(not_found, HTTP 404)" in cli(broker, "source", "rm", "two", code=1).stderr


def test_subscriptions(broker):
    assert "no subscription yet" in cli(broker, "sub", "ls").stdout
    broker.publish("a")
    policy = ["--type", "batch.*", "--type", "video.*", "--source", "gemini", "--lease", "1.5m",
              "--max-fails", "5", "--backoff", "100ms,10m,2.5"]
    [made] = cli_json(broker, "sub", "create", "batches", "--json", *policy)
    assert made["filter"] == {"types": ["batch.*", "video.*"], "sources": ["gemini"]}
    assert made["lease_ms"] == 90000 and made["max_fails"] == 5
    backoff = made["backoff"]
    assert [backoff["min_ms"], backoff["max_ms"], backoff["factor"]] == [100, 600000, 2.5]
    assert "exists already" in cli(broker, "sub", "create", "batches", *policy).stdout
    other = cli(broker, "sub", "create", "batches", "--lease", "10s", code=1)
    assert "(policy_mismatch, HTTP 409)" in other.stderr
    assert "created subscription all" in cli(broker, "sub", "create", "all").stdout
    rows = cli(broker, "sub", "ls").stdout.splitlines()
    assert rows[0].split()[:3] == ["NAME", "FILTER", "BACKLOG"]
    assert "batch.*,video.* from gemini" in "\n".join(rows) and "everything" in "\n".join(rows)
    assert sorted(s["name"] for s in cli_json(broker, "sub", "ls", "--json")) == ["all", "batches"]
    text = cli(broker, "sub", "show", "batches").stdout
    assert "lease      1 m 30 s\n" in text and "100 ms to 10 m, times 2.5" in text
    [shown] = cli_json(broker, "sub", "show", "batches", "--json")
    assert shown["id"] == made["id"]
    cli(broker, "sub", "rm", "batches", "--yes")
    assert "(not_found" in cli(broker, "sub", "show", "batches", code=1).stderr
    assert "(not_found" in cli(broker, "sub", "rm", "batches", "--yes", code=1).stderr


@pytest.mark.parametrize("start, first", [("new", 4), ("first", 1), ("2", 2), ("1h", 1),
                                          ("2026-01-01T00:00:00Z", 1)])
def test_where_a_subscription_starts(broker, start, first):
    for _ in range(3):
        broker.publish("a")
    cli(broker, "sub", "create", "s", "--start", start)
    assert broker.publish("a") == 4
    done = work(broker, "--count", str(4 - first + 1), name="s", program="exit 0")
    assert sorted(v["seq"] for v in done) == list(range(first, 5))


# --- publish and send ---

def test_publish_keeps_the_text_of_the_data(broker):
    data = '{ "n": 123456789012345678901234567890, "x": 1.0e2, "s": "\\u00e4\\u0000" }'
    assert cli(broker, "publish", "--type", "a.b", "--subject", "s 1", "--metadata", '{"k":[1,2]}',
               data).stdout == "seq 1\n"
    [got] = cli_json(broker, "tail", "--from", "1", "--count", "1", "--json")
    assert got["type"] == "a.b" and got["subject"] == "s 1"
    assert got["user_metadata"] == {"k": [1, 2]}
    status, _, text = broker.request("GET", "/v1/events/1")
    assert status == 200 and data in text.decode()
    # --json is on one line, and numbers are as they were.
    line = cli(broker, "tail", "--from", "1", "--count", "1", "--json").stdout
    assert '"n":123456789012345678901234567890,"x":1.0e2' in line and line.count("\n") == 1


def test_publish_reads_files_and_stdin(broker):
    (broker.directory / "data.json").write_text('{"from":"file"}')
    cli(broker, "publish", "--type", "a", "--file", "data.json")
    cli(broker, "publish", "--type", "a", "-", input='{"from":"stdin"}')
    cli(broker, "publish", "--type", "a", "--", "-5")
    cli(broker, "publish", "--type", "a")
    bodies = [e.get("body") for e in broker.events()]
    assert bodies == [{"from": "file"}, {"from": "stdin"}, -5, None]


def test_publish_twice_with_an_id(broker):
    assert cli(broker, "publish", "--type", "a", "--id", "x", "1").stdout == "seq 1\n"
    assert "seq 1 (duplicate" in cli(broker, "publish", "--type", "a", "--id", "x", "1").stdout
    assert cli_json(broker, "publish", "--type", "a", "--id", "x", "--json", "1") == [
        {"seq": 1, "duplicate": True}]
    assert len(broker.events()) == 1


def test_publish_many(broker):
    lines = [json.dumps({"type": "a", "id": f"e{i % 1100}", "data": {"n": i}}) for i in range(1201)]
    text = "\n".join(lines[:600]) + "\r\n\n" + "\n".join(lines[600:])
    done = cli(broker, "publish", "--ndjson", input=text)
    assert done.stdout == "published 1100 events (seq 1 to 1100), 101 duplicates\n"
    assert [e["body"]["n"] for e in broker.events()] == list(range(1100))
    done = cli(broker, "publish", "--ndjson", input=lines[0])
    assert done.stdout == "published 0 events, 1 duplicate\n"
    got = cli_json(broker, "publish", "--ndjson", "--json", input='{"type":"b"}\n{"type":"b"}')
    assert [e["seq"] for e in got] == [1101, 1102]
    assert cli(broker, "publish", "--ndjson", input="").stdout == "published 0 events\n"


def test_publish_many_stops_at_the_first_bad_line(broker):
    lines = ['{"type":"a"}'] * 501 + ["[1]"] + ['{"type":"a"}']
    done = cli(broker, "publish", "--ndjson", input="\n".join(lines), code=65)
    assert "line 502 is not a JSON object" in done.stderr
    assert done.stdout == "published 500 events (seq 1 to 500)\n"
    assert len(broker.events()) == 500
    done = cli(broker, "publish", "--ndjson", input='\n\n{"type":', code=65)
    assert "line 3 is not a JSON object: " in done.stderr and "line 3, column 8" in done.stderr
    refused = cli(broker, "publish", "--ndjson", input='{"tipe":"a"}\n', code=1)
    assert "tipe" in refused.stderr and "parameter_unknown" in refused.stderr


def test_publish_many_does_not_hold_a_slow_line_back(broker):
    with running(broker, "publish", "--ndjson", "--json", stdin=subprocess.PIPE) as process:
        process.stdin.write('{"type":"a"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"seq": 1}
        process.communicate('{"type":"a"}\n', timeout=DEADLINE_S)
        assert process.returncode == 0 and len(broker.events()) == 2


def test_send(broker):
    broker.add_source("gemini", make_secret())
    body = '{"type":"batch.succeeded","data":{"id":"b1"},"user_metadata":{"team":"a"}}'
    secret = {"BELLHOP_SECRET": make_secret()}
    done = cli(broker, "send", "gemini", "--id", "msg_1", body, env=secret)
    assert done.stdout == "seq 1  id msg_1\n"
    done = cli(broker, "send", "gemini", "--id", "msg_1", "--secret", make_secret(), "-",
               input=body)
    assert "duplicate" in done.stdout
    assert cli_json(broker, "send", "gemini", "--json", body, env=secret) == [{"seq": 2}]
    cli(broker, "send", "gemini", "not json at all", env=secret)
    events = broker.events()
    assert events[0]["id"] == "msg_1" and events[0]["subject"] == "b1"
    assert events[1]["id"].startswith("msg_") and events[1]["id"] != "msg_1"
    assert events[2]["content_type"] == "application/octet-stream"


@pytest.mark.parametrize("args, code", [
    (["--secret", make_secret("x")], "signature_mismatch"),
    (["--secret", make_secret(), "--timestamp", "1h"], "timestamp_too_old"),
    (["--secret", make_secret(), "--timestamp", str(now_s() + 4000)], "timestamp_in_future"),
])
def test_send_is_refused(broker, args, code):
    broker.add_source("gemini", make_secret())
    done = cli(broker, "send", "gemini", *args, "{}", code=1)
    assert f"({code}, HTTP 401)" in done.stderr and not broker.events()


def test_send_to_nobody(broker):
    done = cli(broker, "send", "gemni", "--secret", make_secret(), "{}", code=1)
    assert "gemni" in done.stderr and "HTTP 404" in done.stderr


# --- tail and replay ---

def test_tail_begins_at_the_end_and_follows(broker):
    broker.publish("old")
    with running(broker, "tail", "--json", "--count", "2") as process:
        # Nobody can see from outside when it has begun: something new comes until it has shown two.
        wait_for(lambda: broker.publish("new") and process.poll() is not None)
        out, _ = end_of(process)
    got = [json.loads(line) for line in out.splitlines()]
    assert [e["type"] for e in got] == ["new", "new"]
    assert got[1]["seq"] == got[0]["seq"] + 1


def test_tail_filters_and_pages(broker):
    broker.publish_many(120, "a.x")
    broker.publish_many(5, "b.x")
    broker.publish_many(120, "a.y")
    broker.add_source("gemini", make_secret())
    broker.post_signed("gemini", make_secret(), {"type": "a.z"})
    got = cli_json(broker, "tail", "--from", "1", "--type", "a.*", "--count", "240", "--json")
    assert [e["seq"] for e in got] == [*range(1, 121), *range(126, 246)]
    got = cli_json(broker, "tail", "--from", "1", "--source", "gemini", "--count", "1", "--json")
    assert [e["type"] for e in got] == ["a.z"]


def test_tail_for_people(broker):
    broker.publish("a.b", subject="s\033[31m1", id="x", user_metadata={"k": "v"})
    out = cli(broker, "tail", "--from", "1", "--count", "1").stdout
    assert out.startswith("1 ") and out.count("\n") == 1 and "\033" not in out
    for part in ("  a.b ", "  s?[31m1", "  id x", '  {"k":"v"}'):
        assert part in out


def test_tail_survives_a_restart(broker):
    http = broker.http_address
    with running(broker, "tail", "--json", "--from", "1") as process:
        broker.publish("one")
        assert json.loads(process.stdout.readline())["type"] == "one"
        broker.kill9()
        assert "bellhop: " in process.stderr.readline()
        broker.args += ["--http", http]
        broker.start()
        broker.publish("two")
        assert json.loads(process.stdout.readline())["type"] == "two"


def test_tail_ends_with_its_reader(broker):
    broker.publish_many(200)
    done = subprocess.run(f"{CLI} tail --from 1 --count 200 | head -n 1", shell=True, text=True,
                          env={**broker_env(), "BELLHOP_URL": broker.http}, capture_output=True,
                          timeout=DEADLINE_S)
    assert done.stdout.startswith("1 ") and done.stdout.count("\n") == 1


def test_replay(broker):
    sub(broker)
    assert "no replay yet" in cli(broker, "replay", "ls").stdout
    broker.publish_many(6)
    work(broker, "--count", "6", program="exit 0")
    with running(broker, "work", "sub", "--json", "--count", "3", "--", "true") as worker:
        lines = cli_json(broker, "replay", "sub", "--from-seq", "2", "--to-seq", "4", "--wait",
                         "--json")
        out, _ = end_of(worker)
    assert sorted(json.loads(line)["seq"] for line in out.splitlines()) == [2, 3, 4]
    assert lines[0]["id"] == lines[-1]["id"] and lines[-1]["state"] == "finished"
    assert lines[-1]["acked"] == 3
    [row] = cli_json(broker, "replay", "ls", "--json")
    assert row["subscription"] == "sub" and row["from_seq"] == 2 and row["to_seq"] == 4
    assert "sub" in cli(broker, "replay", "ls").stdout.splitlines()[1].split()


def test_replay_by_time(broker):
    sub(broker)
    broker.publish_many(3)
    work(broker, "--count", "3", program="exit 0")
    assert "started replay" in cli(broker, "replay", "sub", "--since", "1h").stdout
    assert sorted(v["seq"] for v in work(broker, "--count", "3", program="exit 0")) == [1, 2, 3]


def test_replay_is_refused(broker):
    done = cli(broker, "replay", "nobody", "--from-seq", "1", code=1)
    assert "nobody" in done.stderr and "not_found" in done.stderr


def test_a_key_is_sent(broker, tmp_path):
    """What the server sees, from a server that shows it."""
    seen = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.update({k.lower(): v for k, v in self.headers.items()})
            body = b'{"error":{"code":"teapot","message":"short\\u001b[31m and stout"}}'
            self.send_response(418)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        done = alone("status", env={"BELLHOP_URL": f"http://127.0.0.1:{server.server_port}",
                                    "BELLHOP_KEY": "k1", "http_proxy": "http://127.0.0.1:1"})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.returncode == 1
    assert done.stderr == "bellhop: short?[31m and stout (teapot, HTTP 418)\n"
    assert seen["authorization"] == "Bearer k1"
    assert seen["user-agent"].startswith("bellhop/")
