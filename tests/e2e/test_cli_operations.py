"""The command line of an operator: policies, positions, dead letters, replays, retention, top."""

import json
import signal
import termios

import pytest

from clitools import Api, Terminal, alone, cli, cli_json, end_of, running, sub, work
from harness import wait_for

NOWHERE = {"BELLHOP_URL": "http://127.0.0.1:1"}


@pytest.fixture
def api():
    made = Api()
    yield made
    made.close()


@pytest.fixture
def terminal():
    made = []

    def make(*args, **options):
        made.append(Terminal(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- what is sent ---

@pytest.mark.parametrize("args, body", [
    ([], {}),
    (["--type", "a.*", "--type=b", "--source", "s", "--subject-prefix", "x/"],
     {"filter": {"types": ["a.*", "b"], "sources": ["s"], "subject_prefix": "x/"}}),
    (["--meta", "job_group=nightly-eval", "--meta", "priority=high=er", "--meta", "/a/b="],
     {"filter": {"user_metadata": {"job_group": "nightly-eval", "priority": "high=er", "/a/b": ""}}}),
    (["--filter", '{"not": {"types": ["x"]}}'], {"filter": {"not": {"types": ["x"]}}}),
    (["--lease", "1.5m", "--max-hold", "12h", "--max-age", "7d", "--max-fails", "0"],
     {"lease_ms": 90000, "max_hold_ms": 43200000, "max_age_ms": 604800000, "max_fails": 0}),
    (["--max-age", "0", "--rate", "50"], {"max_age_ms": 0, "rate": 50}),
    (["--backoff", "1s..10m"], {"backoff": {"min_ms": 1000, "max_ms": 600000}}),
    (["--backoff", "1.5s..10mx2.5", "--jitter", "0"],
     {"backoff": {"min_ms": 1500, "max_ms": 600000, "factor": 2.5, "jitter": 0}}),
    (["--backoff", "1s,10m,2"], {"backoff": {"min_ms": 1000, "max_ms": 600000, "factor": 2}}),
    (["--backoff", "1s,5s,1m"], {"backoff": {"list_ms": [1000, 5000, 60000]}}),
    (["--backoff", "500ms", "--jitter", "1"], {"backoff": {"list_ms": [500], "jitter": 1}}),
    (["--backoff", ",".join(["1s"] * 32)], {"backoff": {"list_ms": [1000] * 32}}),
    (["--jitter", "0.25"], {"backoff": {"jitter": 0.25}}),
    (["--order", "key", "--lag", "expire"], {"order": "key", "lag": "expire"}),
    (["--order", "none", "--lag", "block"], {"order": "none", "lag": "block"}),
    (["--order", "key:user_metadata.customer"], {"order": {"key": "user_metadata.customer"}}),
    (["--start", "first"], {"start": "first"}),
    (["--start", "17"], {"start": {"seq": 17}}),
    (["--start", "2026-11-21T10:00:00+01:00"], {"start": {"time": "2026-11-21T09:00:00.000Z"}}),
])
def test_a_policy_as_the_api_takes_it(api, args, body):
    api.answers["POST /v1/subscriptions"] = (201, {})
    api.run("sub", "create", "s", *args)
    assert api.requests == [("POST", "/v1/subscriptions", {**body, "name": "s"})]
    if "start" in body or args[:1] == ["--jitter"]:
        return
    if body:
        api.run("sub", "update", "s", *args)
        assert api.requests[1] == ("PATCH", "/v1/subscriptions/s", body)


def test_a_filter_from_a_file(api, tmp_path):
    path = tmp_path / "filter.json"
    path.write_text('{\n "types": ["a"]\n}')
    api.run("sub", "create", "s", "--filter", f"@{path}")
    assert api.requests[0][2]["filter"] == {"types": ["a"]}
    path.write_text('{\n "types": [a]\n}')
    done = api.run("sub", "create", "s", "--filter", f"@{path}", code=65)
    assert f"{path} is not a filter" in done.stderr and "line 2" in done.stderr
    path.write_bytes(b"")
    api.run("sub", "create", "s", "--filter", f"@{path}", code=65)
    assert "No such file" in api.run("sub", "create", "s", "--filter", "@/nowhere", code=66).stderr
    assert len(api.requests) == 1


@pytest.mark.parametrize("args, requests", [
    (["sub", "pause", "s"], [("POST", "/v1/subscriptions/s:pause", None)]),
    (["sub", "resume", "s"], [("POST", "/v1/subscriptions/s:resume", None)]),
    (["sub", "seek", "s", "--to", "new", "--yes"],
     [("POST", "/v1/subscriptions/s:seek", {"to": "new"})]),
    (["sub", "seek", "s", "--to=17", "--yes"],
     [("POST", "/v1/subscriptions/s:seek", {"to": {"seq": 17}})]),
    (["sub", "seek", "s", "--yes", "--to", "2026-11-21T09:00:00Z"],
     [("POST", "/v1/subscriptions/s:seek", {"to": {"time": "2026-11-21T09:00:00.000Z"}})]),
    (["publish", "--type", "a", "--delay", "10m", "1"],
     [("POST", "/v1/events", {"type": "a", "deliver_after_ms": 600000, "data": 1})]),
    (["publish", "--type", "a", "--at", "2026-11-21T10:00:00+01:00"],
     [("POST", "/v1/events", {"type": "a", "deliver_at": "2026-11-21T09:00:00.000Z"})]),
    (["retention", "set", "--max-age", "7d", "--max-bytes", "10g", "--dead-max-age", "0"],
     [("PATCH", "/v1/retention",
       {"max_age_ms": 604800000, "max_bytes": 10 << 30, "dead_max_age_ms": 0})]),
    (["retention", "set", "--max-bytes", "1.5K"], [("PATCH", "/v1/retention", {"max_bytes": 1536})]),
    (["dlq", "redrive", "s", "--all", "--rate", "9"],
     [("POST", "/v1/dead-letters:redrive", {"subscription": "s", "rate": 9})]),
    (["dlq", "redrive", "s", "--seq", "18"],
     [("POST", "/v1/dead-letters:redrive", {"subscription": "s", "seq": 18})]),
    (["dlq", "redrive", "s", "--meta", "a=b"],
     [("POST", "/v1/dead-letters:redrive",
       {"subscription": "s", "filter": {"user_metadata": {"a": "b"}}})]),
    (["dlq", "purge", "s", "--yes", "--filter", '{"types":["x"]}'],
     [("POST", "/v1/dead-letters:purge", {"subscription": "s", "filter": {"types": ["x"]}})]),
    (["dlq", "show", "s", "18", "--replay", "7"],
     [("GET", "/v1/dead-letters/s/18?replay=7", None)]),
    (["replay", "s", "--from", "3", "--to", "5", "--type", "a.*", "--rate", "7"],
     [("POST", "/v1/replays", {"subscription": "s", "from_seq": 3, "to_seq": 5, "rate": 7,
                               "filter": {"types": ["a.*"]}})]),
    (["replay", "s", "--from-seq", "3", "--to-seq", "5"],
     [("POST", "/v1/replays", {"subscription": "s", "from_seq": 3, "to_seq": 5})]),
    (["replay", "show", "7"], [("GET", "/v1/replays/7", None)]),
    (["replay", "cancel", "7"], [("POST", "/v1/replays/7:cancel", None)]),
])
def test_what_is_asked_of_the_broker(api, args, requests):
    api.run(*args)
    assert api.requests == requests


def test_dlq_ls_narrows(api):
    api.answers["GET /v1/dead-letters"] = (200, {"dead_letters": []})
    api.run("dlq", "ls", "s", "--type", "a.*", "--reason", "expired", "--subject-prefix", "x y/",
            "--filter", '{"sources": ["s"]}')
    assert api.requests == [
        ("GET", "/v1/dead-letters?page_size=200&subscription=s&type=a.%2A&subject_prefix=x%20y%2F"
                "&reason=expired&filter=%7B%22sources%22%3A%5B%22s%22%5D%7D", None)]
    long = json.dumps({"types": ["x" * 250] * 40})
    done = api.run("dlq", "ls", "s", "--filter", long, code=64)
    assert "longer than a request may be" in done.stderr


@pytest.mark.parametrize("args, words", [
    (["sub", "create", "s", "--meta", "x"], "'x' is not KEY=VALUE"),
    (["sub", "create", "s", "--meta", "=x"], "'=x' is not KEY=VALUE"),
    (["sub", "create", "s", "--meta", "a=1", "--meta", "a=2"], "'a' is given twice"),
    (["sub", "create", "s", "--filter", "{}", "--type", "a"], "--type and --filter exclude"),
    (["sub", "create", "s", "--filter", "[]"], "is not an object"),
    (["sub", "create", "s", "--filter", "{"], "line 1, column 1"),
    (["sub", "create", "s", "--filter", '{"types":[],"types":[]}'], "duplicate"),
    (["sub", "create", "s", "--type", b"\xff"], "not UTF-8"),
    (["sub", "create", "s", "--subject-prefix", b"\xff"], "not UTF-8"),
    (["sub", "create", "s", "--meta", b"a=\xff"], "not UTF-8"),
    (["sub", "create", "s", "--order", b"key:user_metadata.\xff"], "not UTF-8"),
    (["source", "add", "s", "--scheme", b"\xff"], "not UTF-8"),
    (["source", "add", "s", "--secret", b"\xff"], "not UTF-8"),
    (["sub", "create", "s", "--lease", "30x"], "--lease: '30x' is not a duration"),
    (["sub", "create", "s", "--max-hold", "1 h"], "--max-hold: '1 h' is not a duration"),
    (["sub", "create", "s", "--max-age", "9999999999d"], "--max-age: '9999999999d'"),
    (["sub", "create", "s", "--max-fails", "1000001"], "from 0 to 1000000"),
    (["sub", "create", "s", "--rate", "1/s"], "--rate: '1/s' is not a whole number"),
    (["sub", "create", "s", "--backoff", "1s.."], "--backoff: '1s..' is neither"),
    (["sub", "create", "s", "--backoff", "..1s"], "--backoff"),
    (["sub", "create", "s", "--backoff", "2s..1s"], "--backoff"),
    (["sub", "create", "s", "--backoff", "1s..2sx0.5"], "--backoff"),
    (["sub", "create", "s", "--backoff", "1s..2sx"], "--backoff"),
    (["sub", "create", "s", "--backoff", "1s,,2s"], "--backoff"),
    (["sub", "create", "s", "--backoff", ""], "--backoff"),
    (["sub", "create", "s", "--backoff", ",".join(["1s"] * 33)], "a list of up to 32"),
    (["sub", "create", "s", "--jitter", "1.5"], "--jitter: '1.5' is not a number from 0 to 1"),
    (["sub", "create", "s", "--jitter", "-1"], "--jitter"),
    (["sub", "create", "s", "--order", "subject"], "--order: 'subject' is none of"),
    (["sub", "create", "s", "--order", "key:user_metadata."], "--order"),
    (["sub", "create", "s", "--lag", "drop"], "neither block nor expire"),
    (["sub", "update", "s"], "nothing to change was given"),
    (["sub", "update", "s", "--jitter", "0.5"], "--jitter needs --backoff"),
    (["sub", "update", "s", "--start", "new"], "unknown flag --start"),
    (["sub", "seek", "s"], "--to new, first, a seq or a time"),
    (["sub", "seek", "s", "--to", "soon", "--yes"], "--to (new, first, a seq or a time): 'soon'"),
    (["sub", "seek", "s", "--to", "new"], "add --yes to move the subscription"),
    (["sub", "pause", "a/b"], "no name of a subscription"),
    (["sub", "paus", "s"], "did you mean: bellhop sub pause"),
    (["publish", "--type", "a", "--delay", "10"], "--delay: '10' is not a duration"),
    (["publish", "--type", "a", "--at", "10m"], "from now on it is --delay 10m"),
    (["publish", "--type", "a", "--at", "2026-11-21T09:00:00Z", "--delay", "1s"], "exclude"),
    (["publish", "--ndjson", "--delay", "1s"], "--delay and --ndjson exclude each other"),
    (["dlq", "redrive", "s"], "say which dead letters"),
    (["dlq", "redrive", "s", "--all", "--seq", "1"], "exclude each other"),
    (["dlq", "redrive", "s", "--all", "--type", "a"], "exclude each other"),
    (["dlq", "redrive", "s", "--seq", "0"], "--seq: '0' is not a whole number from 1"),
    (["dlq", "purge", "s", "--all"], "add --yes to remove them for good"),
    (["dlq", "show", "s"], "something is missing"),
    (["dlq", "show", "s", "x"], "the seq: 'x' is not a whole number"),
    (["dlq", "ls", "s", "--source", "x"], "unknown flag --source"),
    (["replay", "s", "--from", "1", "--until", "1h"], "not both"),
    (["replay", "s", "--to", "1"], "say where the replay begins"),
    (["replay", "s", "--from", "1", "--from-seq", "2"], "--from is given twice"),
    (["replay", "s", "--from", "1", "--rate", "0"], "--rate: '0' is not a whole number from 1"),
    (["replay", "cancel", "x"], "the id of a replay: 'x'"),
    (["retention", "set"], "say what to keep"),
    (["retention", "set", "--max-bytes", "10q"], "--max-bytes: '10q' is not a size"),
    (["retention", "set", "--max-age", "7"], "--max-age: '7' is not a duration"),
    (["retention"], "retention what?"),
    (["work", "s", "--lease", "50ms", "--", "true"], "--lease: '50ms' is not from 100ms to 12h"),
    (["work", "s", "--lease", "13h", "--", "true"], "--lease: '13h'"),
    (["work", "s", "--resume", "11m", "--", "true"], "--resume: '11m' is more than 10m"),
    (["top", "--interval", "10ms"], "--interval: '10ms' is not from 100ms to 1h"),
    (["top", "--sort", "size"], "--sort: 'size' is neither trouble nor name"),
])
def test_nonsense_is_named(args, words):
    done = alone(*args, env=NOWHERE)
    assert done.returncode == 64, (done.stdout, done.stderr)
    assert words in done.stderr and not done.stdout


# --- asking before ---

QUESTIONS = [
    (["sub", "seek", "s", "--to", "first"], "Move it to first?",
     ("POST", "/v1/subscriptions/s:seek", {"to": "first"})),
    (["dlq", "purge", "s", "--all"], "Remove all of them for good?",
     ("POST", "/v1/dead-letters:purge", {"subscription": "s"})),
    (["dlq", "purge", "s", "--seq", "18"], "Remove that of seq 18 for good?",
     ("POST", "/v1/dead-letters:purge", {"subscription": "s", "seq": 18})),
]


@pytest.mark.parametrize("args, words, request_", QUESTIONS)
@pytest.mark.parametrize("answer", ["y\n", "n\n", "\n", "yellow\n", "\4"])
def test_an_act_without_a_way_back_asks(api, terminal, args, words, request_, answer):
    api.answers["GET /v1/subscriptions/s"] = (200, {"name": "s", "next": 9, "dead": 12, "leased": 4})
    screen = terminal(*args, env=api.env)
    seen = screen.wait("[y/N] ")
    assert words in seen and ("12 dead letters" in seen or "4 events are with workers" in seen)
    assert api.requests == [("GET", "/v1/subscriptions/s", None)]
    screen.type(answer)
    end = screen.end(0 if answer == "y\n" else 1)
    assert api.requests[1:] == ([request_] if answer == "y\n" else [])
    assert ("nothing was done" in end) == (answer != "y\n")


# --- tasks ---

def task(**fields):
    return {"id": 7, "kind": "replay", "subscription": "s", "state": "running", "from_seq": 1,
            "to_seq": 5000, "matched": 0, "outstanding": 0, "acked": 0, "expired": 0, **fields}


def in_turn(*answers):
    """Each answer once, the last one for ever."""
    left = list(answers)
    return lambda: (200, left.pop(0) if len(left) > 1 else left[0])


def test_a_dry_run_waits_for_the_count(api):
    api.answers["POST /v1/replays"] = (201, task(kind="count"))
    done = task(kind="count", matched=1234, state="finished")
    api.answers["GET /v1/replays/7"] = in_turn(task(kind="count"), done)
    out = api.run("replay", "s", "--from", "1", "--dry-run").stdout
    assert out == "1234 of 5000 events match: they would be delivered to s again\n"
    assert api.requests[0][2]["dry_run"] is True
    assert [r[:2] for r in api.requests[1:]] == [("GET", "/v1/replays/7")] * 2
    out = api.run("replay", "s", "--from", "1", "--dry-run", "--json").stdout
    assert json.loads(out) == done


@pytest.mark.parametrize("args, kind, first, last", [
    (["replay", "s", "--from", "1"], "replay", "started replay 7 to s: seq 1 to 5000\n",
     "finished replay 7 to s: seq 1 to 5000, 9 acked\n"),
    (["dlq", "redrive", "s", "--all"], "redrive", "started redrive 7 of the dead letters of s\n",
     "finished redrive 7 of the dead letters of s: 3 given back\n"),
    (["dlq", "purge", "s", "--all", "--yes"], "purge", "started purge 7 of the dead letters of s\n",
     "finished purge 7 of the dead letters of s: 3 removed\n"),
])
def test_waiting_for_a_task(api, args, kind, first, last):
    path = "/v1/replays" if kind == "replay" else f"/v1/dead-letters:{kind}"
    over = task(kind=kind, state="finished", matched=3, acked=9)
    api.answers[f"POST {path}"] = (201, task(kind=kind))
    api.answers["GET /v1/replays/7"] = in_turn(task(kind=kind), {**over, "outstanding": 2}, over)
    assert api.run(*args).stdout == first + "  how far it is: bellhop replay show 7\n"
    assert json.loads(api.run(*args, "--json").stdout)["id"] == 7
    api.requests.clear()
    assert api.run(*args, "--wait").stdout == first + last
    assert [r[:2] for r in api.requests[1:]] == [("GET", "/v1/replays/7")] * 3
    # It may be over at once.
    api.answers[f"POST {path}"] = (201, over)
    assert api.run(*args, "--wait").stdout == last
    # Or somebody cancels it.
    api.answers[f"POST {path}"] = (201, task(kind=kind))
    api.answers["GET /v1/replays/7"] = in_turn(task(kind=kind, state="cancelled"))
    assert "cancelled before its end" in api.run(*args, "--wait", code=1).stderr
    # Or the broker is not there to be asked; then nobody needs to start it again.
    api.answers["GET /v1/replays/7"] = (503, {"error": {"code": "shutting_down", "message": "no"}})
    done = api.run(*args, "--wait", code=1)
    assert done.stdout == first
    assert "what was started goes on: bellhop replay show 7\n" in done.stderr


def test_tasks_of_a_subscription_that_was_deleted(broker):
    sub(broker)
    broker.publish("a")
    cli(broker, "replay", "sub", "--from", "1", "--dry-run")
    cli(broker, "sub", "rm", "sub", "--yes")
    [task_shown] = cli_json(broker, "replay", "ls", "--json")
    assert "subscription" not in task_shown
    assert cli(broker, "replay", "ls").stdout.splitlines()[1].split()[:4] == [
        str(task_shown["id"]), "count", "(deleted)", "finished"]
    shown = cli(broker, "replay", "show", str(task_shown["id"])).stdout.splitlines()
    assert "subscription  (deleted)" in shown


# --- top ---

def add_top(api, subscriptions, **retention):
    api.answers["GET /v1/status"] = (200, {"connections": {"workers": 2}, "tasks_running": 1,
                                           "room": True})
    api.answers["GET /v1/retention"] = (200, {"oldest_seq": 17, "newest_seq": 99,
                                              "journal_bytes": 2048, "blocked_by": "", **retention})
    api.answers["GET /v1/subscriptions"] = (200, {"subscriptions": subscriptions})


def state(name, **fields):
    return {"name": name, "backlog": 6, "ready": 1, "leased": 2, "delayed": 3, "blocked": 0,
            "dead": 0, "oldest_ms": 5300, "in_per_s": 2.5, "out_per_s": 2.4, "why_idle": "busy",
            **fields}


def names_of(out):
    return [line.split()[0] for line in out.splitlines()[4:]]


def test_top_prints_once_into_a_pipe(api):
    add_top(api, [state("a"), state("b", dead=4), state("c", blocked=5), state("d", oldest_ms=9000),
                  state("e", oldest_ms=0), state("f\033[2J")], blocked_by="e")
    for args in ([], ["--once"]):
        out = api.run("top", *args).stdout
        lines = out.splitlines()
        assert lines[0] == "journal 2.0 KiB, seq 17 to 99; BLOCKED BY e"
        assert lines[1] == "6 subscriptions, 2 worker connections, 1 replay running"
        assert lines[3].split() == ["NAME", "BACKLOG", "READY", "LEASED", "DELAYED", "BLOCKED",
                                    "DEAD", "OLDEST", "IN/S", "OUT/S", "WHY", "IDLE"]
        assert names_of(out) == ["e", "c", "b", "d", "a", "f?[2J"]
        assert lines[5].split() == ["c", "6", "1", "2", "3", "5", "0", "5.3", "s", "2.5",
                                    "2.4", "busy"]
        assert lines[4].split()[7] == "-"
    assert names_of(api.run("top", "--sort", "name").stdout) == ["a", "b", "c", "d", "e", "f?[2J"]
    add_top(api, [])
    assert "no subscription yet" in api.run("top").stdout


def test_top_reads_every_page(api):
    add_top(api, [])
    api.answers["GET /v1/subscriptions"] = in_turn(
        {"subscriptions": [state("a")], "next_page_token": "x y"}, {"subscriptions": [state("b")]})
    [shown] = [json.loads(line) for line in api.run("top", "--json", "--once").stdout.splitlines()]
    assert [s["name"] for s in shown["subscriptions"]] == ["a", "b"]
    assert shown["retention"]["newest_seq"] == 99 and shown["status"]["room"] is True
    assert api.requests[-1][1] == "/v1/subscriptions?page_size=1000&page_token=x%20y"


def test_top_when_it_is_refused(api):
    add_top(api, [])
    api.answers["GET /v1/retention"] = (403, {"error": {"code": "permission_denied",
                                                        "message": "not yours"}})
    assert "not yours (permission_denied, HTTP 403)" in api.run("top", code=1).stderr
    assert "no broker answers" in alone("top", env=NOWHERE).stderr
    assert alone("top", "--once", env=NOWHERE).returncode == 69


@pytest.mark.parametrize("how", ["q", "\3", "sigterm"])
def test_top_draws_in_place(api, terminal, how):
    add_top(api, [state("one")])
    screen = terminal("top", "--interval", "100ms", env=api.env)
    assert screen.wait("busy").startswith("\033[?1049h\033[?25l\033[H")
    add_top(api, [state("one"), state("two", why_idle="paused")])
    seen = screen.wait("paused")
    assert "\033[H" in seen and "\n\n\n" not in seen
    attributes = termios.tcgetattr(screen.slave)
    assert not attributes[3] & termios.ECHO
    if how == "sigterm":
        screen.process.send_signal(signal.SIGTERM)
    else:
        screen.type("xyz" + how)
    assert screen.end().endswith("\033[?25h\033[?1049l")
    assert termios.tcgetattr(screen.slave) == screen.before


def test_top_fits_the_terminal(api, terminal):
    add_top(api, [state(f"sub-{i:03}", oldest_ms=1000 - i) for i in range(100)])
    screen = terminal("top", env={**api.env, "NO_COLOR": "1"}, rows=12, columns=40)
    seen = screen.wait("and 95 more")
    lines = seen.replace("\033[K", "").replace("\r", "").split("\n")[:-1]
    assert len(lines) == 10  # with the last one, and an empty line below
    assert all(len(line.split("\033[H")[-1]) <= 40 for line in lines)
    assert "sub-004" in seen and "sub-005" not in seen
    screen.type("q")
    screen.end()


def test_top_waits_for_a_broker_that_went(api, terminal):
    add_top(api, [state("one")])
    screen = terminal("top", "--interval", "100ms", env=api.env)
    screen.wait("one")
    api.answers["GET /v1/status"] = (503, {"error": {"code": "shutting_down", "message": "m"}})
    assert "one" in screen.wait("trying again") + screen.wait("one")
    add_top(api, [state("back")])
    assert "trying again" not in screen.wait("back").rpartition("\033[H")[2]
    api.answers["GET /v1/status"] = (403, {"error": {"code": "permission_denied", "message": "m"}})
    end = screen.end(1)
    assert end.rpartition("\033[?1049l")[2].strip() == "bellhop: m (permission_denied, HTTP 403)"


# --- over the real broker ---

def test_top_of_a_broker(broker):
    sub(broker)
    broker.publish_many(3)
    with running(broker, "top", "--json", "--interval", "100ms") as process:
        for _ in range(2):
            shown = json.loads(process.stdout.readline())
            assert [s["name"] for s in shown["subscriptions"]] == ["sub"]
            assert shown["retention"]["newest_seq"] == 3
    assert names_of(cli(broker, "top").stdout) == ["sub"]


def test_a_policy_of_everything(broker):
    args = ["--filter", '{"any":[{"types":["a.*"]},{"user_metadata":{"p":{"in":["x",1]}}}]}',
            "--lease", "1m", "--max-hold", "2h", "--max-age", "1d", "--max-fails", "3", "--backoff",
            "1s,5s,1m", "--jitter", "0.5", "--rate", "100", "--order", "key:user_metadata.customer",
            "--lag", "expire", "--start", "first"]
    [made] = cli_json(broker, "sub", "create", "s", *args, "--json")
    assert made["filter"]["any"][1]["user_metadata"] == {"p": {"in": ["x", 1]}}
    assert made["order"] == {"key": "user_metadata.customer"} and made["lag"] == "expire"
    assert "exists already" in cli(broker, "sub", "create", "s", *args).stdout
    out = cli(broker, "sub", "show", "s").stdout
    for line in ('takes      {"any":[{"types":["a.*"]},', "lease      1 m", "max hold   2 h",
                 "max age    1 d", "max fails  3", "rate       100 a second",
                 "backoff    1 s, 5 s, 1 m, jitter 0.5", "lag        expire",
                 "order      key user_metadata.customer"):
        assert line in out
    [changed] = cli_json(broker, "sub", "update", "s", "--meta", "p=x", "--rate", "0", "--json",
                         "--order", "key")
    assert changed["filter"] == {"user_metadata": {"p": "x"}} and changed["rate"] == 0
    assert changed["order"] == "key" and changed["max_fails"] == 3 and changed["lease_ms"] == 60000
    done = cli(broker, "sub", "update", "s", "--filter", '{"types":"a"}', code=1)
    assert "bad_filter" in done.stderr and "types" in done.stderr
    done = cli(broker, "sub", "update", "s", "--max-hold", "10s", code=1)
    assert "bad_policy" in done.stderr


def test_pause_and_resume(broker):
    sub(broker)
    assert "sub is paused" in cli(broker, "sub", "pause", "sub").stdout
    broker.publish("a")
    out = cli(broker, "sub", "stats", "sub").stdout
    assert "paused: an operator paused it" in out and "max fails" in out
    assert cli(broker, "sub", "ls").stdout.splitlines()[1].split()[-1] == "paused"
    assert cli_json(broker, "sub", "resume", "sub", "--json")[0]["paused"] is False
    assert [v["seq"] for v in work(broker, "--count", "1", program="exit 0")] == [1]
    assert "(not_found" in cli(broker, "sub", "pause", "nobody", code=1).stderr


def test_seek(broker):
    sub(broker)
    broker.publish_many(4)
    out = cli(broker, "sub", "seek", "sub", "--to", "new", "--yes").stdout
    assert out == "subscription sub reads on at seq 5\n"
    assert "at seq 3\n" in cli(broker, "sub", "seek", "sub", "--to", "3", "--yes").stdout
    assert sorted(v["seq"] for v in work(broker, "--count", "2", program="exit 0")) == [3, 4]
    assert broker.subscription()["acked"] == 2


def dead_letters(broker):
    """Three dead letters of a subscription, seq 1 to 3, of types a, b and b."""
    sub(broker)
    for number, type in enumerate(["a.x", "b.x", "b.y"], 1):
        broker.publish(type, subject=f"s{number}", data={"n": [number, 1.50]})
    work(broker, "--count", "3", program="echo why >&2; exit 65")


def test_dead_letters_are_shown(broker):
    dead_letters(broker)
    assert [letter["seq"] for letter in cli_json(broker, "dlq", "ls", "sub", "--type", "b.*",
                                                 "--json")] == [2, 3]
    rows = cli(broker, "dlq", "ls", "sub", "--reason", "rejected", "--subject-prefix", "s1").stdout
    assert rows.splitlines()[1].split()[:4] == ["1", "a.x", "s1", "rejected"]
    assert "exit status 65: why" in rows and len(rows.splitlines()) == 2
    assert "no dead letter" in cli(broker, "dlq", "ls", "sub", "--reason", "expired").stdout
    assert cli_json(broker, "dlq", "ls", "sub", "--json", "--filter", '{"types":["b.y"]}')[0][
        "seq"] == 3
    out = cli(broker, "dlq", "show", "sub", "2").stdout
    for line in ("subscription  sub\n", "reason        rejected\n", "type          b.x\n",
                 "error         exit status 65\n", "message       why\n",
                 '\nbody:\n{"n": [2, 1.5]}\n'):
        assert line in out
    assert cli_json(broker, "dlq", "show", "sub", "2", "--json")[0]["event"]["subject"] == "s2"
    assert "(not_found" in cli(broker, "dlq", "show", "sub", "9", code=1).stderr


def test_dead_letters_are_redriven(broker):
    dead_letters(broker)
    out = cli(broker, "dlq", "redrive", "sub", "--type", "b.*", "--wait").stdout
    assert out.endswith("of the dead letters of sub: 2 given back\n")
    again = work(broker, "--count", "2", program="exit 0")
    assert sorted(v["seq"] for v in again) == [2, 3] and {v["attempt"] for v in again} == {1}
    assert [letter["seq"] for letter in broker.dead_letters()] == [1]
    cli(broker, "dlq", "redrive", "sub", "--seq", "1", "--wait")
    assert [v["seq"] for v in work(broker, "--count", "1", program="exit 0")] == [1]


def test_dead_letters_are_purged(broker):
    dead_letters(broker)
    cli(broker, "dlq", "purge", "sub", "--seq", "2", "--yes", "--wait")
    assert [letter["seq"] for letter in broker.dead_letters()] == [1, 3]
    out = cli(broker, "dlq", "purge", "sub", "--all", "--yes", "--wait").stdout
    assert out.endswith(": 2 removed\n") and not broker.dead_letters()
    rows = cli(broker, "replay", "ls").stdout.splitlines()
    assert [row.split()[1:4] for row in rows[1:]] == [["purge", "sub", "finished"]] * 2


def test_a_replay_is_tried_first(broker):
    sub(broker)
    for i in range(10):
        broker.publish("a" if i % 2 else "b")
    work(broker, "--count", "10", program="exit 0")
    out = cli(broker, "replay", "sub", "--from", "2", "--to", "9", "--type", "a", "--dry-run").stdout
    assert out == "4 of 8 events match: they would be delivered to sub again\n"
    state_before = broker.subscription()
    out = cli(broker, "replay", "sub", "--since", "1h", "--type", "b", "--dry-run").stdout
    assert out == "5 of 10 events match: they would be delivered to sub again\n"
    assert broker.subscription()["ready"] == state_before["ready"] == 0
    assert "out_of_range" in cli(broker, "replay", "sub", "--from", "100", code=1).stderr


def test_a_replay_is_watched_and_cancelled(broker):
    sub(broker)
    broker.publish_many(5)
    work(broker, "--count", "5", program="exit 0")
    [made] = cli_json(broker, "replay", "sub", "--from", "1", "--json")
    name = str(made["id"])
    out = cli(broker, "replay", "show", name).stdout
    for line in ("kind          replay\n", "state         running\n", "takes         everything\n"):
        assert line in out
    assert cli(broker, "replay", "cancel", name).stdout.startswith(f"cancelled replay {name} to sub")
    assert "not_running" in cli(broker, "replay", "cancel", name, code=1).stderr
    assert "(not_found" in cli(broker, "replay", "show", "99", code=1).stderr


def test_publish_later(broker):
    sub(broker)
    cli(broker, "publish", "--type", "later", "--delay", "1h")
    cli(broker, "publish", "--type", "past", "--at", "2001-01-01T00:00:00Z")
    assert [v["type"] for v in work(broker, "--count", "1", program="exit 0")] == ["past"]
    wait_for(lambda: broker.subscription()["delayed"] == 1)
    done = cli(broker, "publish", "--type", "a", "--delay", "31d", code=1)
    assert "deliver_after_ms" in done.stderr


def test_retention(broker):
    out = cli(broker, "retention", "set", "--max-age", "7d", "--max-bytes", "10g",
              "--dead-max-age", "30d").stdout
    for line in ("max age       7 d\n", "max bytes     10.0 GiB\n", "dead letters  30 d\n"):
        assert line in out
    cli(broker, "retention", "set", "--max-bytes", "0")
    assert "max bytes     no limit\n" in cli(broker, "retention", "show").stdout
    [shown] = cli_json(broker, "retention", "show", "--json")
    assert shown["max_age_ms"] == 604800000 and shown["max_bytes"] == 0


def test_retention_shows_what_the_broker_was_started_with(brokers):
    broker = brokers("--retain-bytes", "1048576")
    cli(broker, "retention", "set", "--max-bytes", "10g")
    out = cli(broker, "retention", "show").stdout
    assert "max bytes     1.0 MiB, by the broker's flags; by retention set: 10.0 GiB\n" in out
    cli(broker, "retention", "set", "--max-bytes", "64k")
    assert "max bytes     64.0 KiB\n" in cli(broker, "retention", "show").stdout


def test_a_worker_only_gets_what_its_subscription_wants(broker):
    cli(broker, "sub", "create", "sub", "--meta", "job_group=nightly-eval", "--meta",
        "priority=high")
    for group, priority in (("nightly-eval", "low"), ("other", "high"), ("nightly-eval", "high")):
        broker.publish("a", user_metadata={"job_group": group, "priority": priority})
    with running(broker, "work", "sub", "--json", "--count", "1", "--", "true") as process:
        out, _ = end_of(process)
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [3]
