"""`bellhop work`: what becomes of an event when a program ends this way or that way."""

import json
import os
import signal

import pytest

from clitools import alone, cli, cli_json, end_of, lines_of, running, sub, work
from harness import DEADLINE_S, make_secret, wait_for


def test_work_gives_the_program_everything(broker):
    sub(broker)
    broker.add_source("gemini", make_secret())
    body = {"type": "batch.succeeded", "data": {"id": "b1"}, "user_metadata": {"team": "ä"}}
    broker.post_signed("gemini", make_secret(), body, id="msg_1")
    [verdict] = work(broker, "--count", "1", program="cat >body; env | grep ^BELLHOP_ | sort >env",
                     env={"BELLHOP_SUBJECT": "of somebody else"})
    assert verdict["verdict"] == "ack" and verdict["type"] == "batch.succeeded"
    assert verdict["id"] == "msg_1" and verdict["attempt"] == 1 and verdict["seq"] == 1
    assert json.loads((broker.directory / "body").read_text()) == body
    env = dict(line.split("=", 1) for line in lines_of(broker.directory / "env"))
    del env["BELLHOP_URL"]
    assert json.loads(env.pop("BELLHOP_METADATA")) == {"team": "ä"}
    assert env == {"BELLHOP_ID": "msg_1", "BELLHOP_TYPE": "batch.succeeded", "BELLHOP_SEQ": "1",
                   "BELLHOP_SUBJECT": "b1", "BELLHOP_ATTEMPT": "1", "BELLHOP_SOURCE": "gemini"}
    assert broker.subscription()["acked"] == 1


def test_work_prints_a_line_per_event(broker):
    sub(broker)
    broker.publish("a.b", id="x")
    done = cli(broker, "work", "sub", "--count", "1", "--", "echo", "hello")
    assert "hello\n" in done.stdout
    assert "seq 1  a.b  id x  attempt 1  ack  " in done.stdout
    broker.publish("a.b")
    done = cli(broker, "work", "sub", "--count", "1", "--quiet", "--", "true")
    assert not done.stdout and not done.stderr


def test_work_fails_and_tries_again(broker):
    sub(broker)
    broker.publish("a")
    program = 'echo noise >&2; echo "the $BELLHOP_ATTEMPT. time\n " >/dev/stderr; ' \
              '[ $BELLHOP_ATTEMPT -ge 3 ] || exit 3'
    verdicts = work(broker, "--count", "3", program=program)
    assert [v["verdict"] for v in verdicts] == ["nack", "nack", "ack"]
    assert [v["attempt"] for v in verdicts] == [1, 2, 3]
    assert verdicts[0]["error"] == "exit status 3: the 1. time"
    assert "error" not in verdicts[2]


def test_work_passes_stderr_through(broker):
    sub(broker)
    broker.publish("a")
    done = cli(broker, "work", "sub", "--count", "1", "--quiet", "--", "sh", "-c",
               "seq 1 20000 >&2; printf end >&2")
    assert done.stderr == "".join(f"{i}\n" for i in range(1, 20001)) + "end"


def test_work_rejects_with_65_and_the_dead_letters_show_it(broker):
    sub(broker)
    broker.publish("order.paid", subject="o1", data={"n": 1})
    broker.publish("order.paid", subject="o2")
    assert "no dead letter" in cli(broker, "dlq", "ls", "sub").stdout
    verdicts = work(broker, "--count", "2", program='echo "not for us" >&2; exit 65')
    assert [v["verdict"] for v in verdicts] == ["reject", "reject"]
    rows = cli(broker, "dlq", "ls", "sub").stdout.splitlines()
    assert rows[0].split()[:4] == ["SEQ", "TYPE", "SUBJECT", "REASON"] and len(rows) == 3
    assert rows[1].split()[:4] == ["1", "order.paid", "o1", "rejected"]
    assert "exit status 65: not for us" in rows[1]
    letters = cli_json(broker, "dlq", "ls", "sub", "--json")
    assert [letter["seq"] for letter in letters] == [1, 2]
    assert letters[0]["event"]["body"] == {"n": 1}


def test_work_until_max_fails(broker):
    sub(broker, max_fails=2)
    broker.publish("a")
    work(broker, "--count", "2", program="exit 1")
    [letter] = cli_json(broker, "dlq", "ls", "sub", "--json")
    assert letter["reason"] == "max_fails" and letter["error"]["type"] == "exit status 1"


def test_work_tells_the_error_in_parts(broker):
    sub(broker, max_fails=1)
    broker.publish("a")
    work(broker, "--count", "1", program=r"printf 'Traceback:\n\tline 1\nno\033 luck\n\n' >&2; exit 3")
    [letter] = cli_json(broker, "dlq", "ls", "sub", "--json")
    assert letter["error"] == {"type": "exit status 3", "message": "no? luck",
                               "detail": "Traceback:\n\tline 1\nno? luck"}
    text = cli(broker, "dlq", "show", "sub", "1").stdout
    assert "error         exit status 3\n" in text and "message       no? luck\n" in text
    assert "\ndetail of the error:\nTraceback:\n\tline 1\nno? luck\n" in text


def test_work_keeps_the_end_of_a_long_stderr(broker):
    sub(broker, max_fails=1)
    broker.publish("a")
    work(broker, "--count", "1", "--quiet", program="seq 1 2000 >&2; exit 3")
    [letter] = cli_json(broker, "dlq", "ls", "sub", "--json")
    lines = letter["error"]["detail"].splitlines()
    assert lines == [str(n) for n in range(2001 - len(lines), 2001)] and len(lines) > 400
    assert len(letter["error"]["detail"]) <= 2048


def test_work_with_a_lease_of_its_own(broker, connect):
    """It lasts while the worker is stopped and renews nothing; the subscription's would not."""
    sub(broker, lease_ms=200, max_fails=1)
    broker.publish("a")
    with running(broker, "work", "sub", "--json", "--count", "1", "--lease", "10m", "--", "sh", "-c",
                 WAITING) as process:
        wait_for(lambda: lines_of(broker.directory / "begun"))
        process.send_signal(signal.SIGSTOP)
        other = connect(broker)
        other.subscribe()
        seq = broker.publish("b")
        assert other.take_one().seq == seq
        other.expect_revoke()  # handed out later, run out already: a dead letter
        assert broker.subscription()["leased"] == 1
        other.close()
        process.send_signal(signal.SIGCONT)
        (broker.directory / "go").touch()
        [verdict] = [json.loads(line) for line in end_of(process)[0].splitlines()]
    assert verdict["seq"] == 1 and verdict["attempt"] == 1 and verdict["verdict"] == "ack"


def test_work_names_the_signal(broker):
    sub(broker)
    broker.publish("a")
    [verdict] = work(broker, "--count", "1", program="echo bye >&2; kill -9 $$")
    assert verdict["verdict"] == "nack" and verdict["error"] == "signal 9 (Killed): bye"


def test_work_keeps_a_bounded_and_clean_tail(broker):
    sub(broker)
    broker.publish("a")
    program = r"head -c 300000 /dev/zero | tr '\0' x >&2; printf 'y\033[31m\377\n' >&2; exit 1"
    with running(broker, "work", "sub", "--count", "1", "--json", "--", "sh", "-c", program,
                 errors="replace") as process:
        out, err = end_of(process)
    assert len(err) > 300000
    error = json.loads(out)["error"]
    assert error.startswith("exit status 1: xxxx") and len(error) == len("exit status 1: ") + 512
    broker.publish("a")
    with running(broker, "work", "sub", "--count", "2", "--json", "--", "sh", "-c",
                 r"printf 'y\033[31m\377z\n' >&2; exit 65", errors="replace") as process:
        out, _ = end_of(process)
    assert {json.loads(line)["error"] for line in out.splitlines()} == {"exit status 65: y?[31m?z"}


def test_work_when_the_program_does_not_read(broker):
    sub(broker)
    broker.publish("a", data="x" * 500000)
    [verdict] = work(broker, "--count", "1", program="exec <&-; exit 0")
    assert verdict["verdict"] == "ack"
    broker.publish("a", data="x" * 500000)
    [verdict] = work(broker, "--count", "1", program="wc -c </dev/stdin >size")
    assert verdict["verdict"] == "ack"
    assert lines_of(broker.directory / "size") == ["500002"]


def test_work_does_not_wait_for_what_the_program_left_behind(broker):
    sub(broker)
    broker.publish("a")
    with running(broker, "work", "sub", "--count", "1", "--quiet", "--", "sh", "-c",
                 "while [ ! -e go ]; do sleep 0.05; done & exit 0") as process:
        process.wait(DEADLINE_S)
        (broker.directory / "go").touch()
        assert process.returncode == 0


def test_work_with_a_program_that_is_not_there(broker):
    sub(broker)
    broker.publish("a")
    (broker.directory / "plain").touch(0o644)
    (broker.directory / "later").mkdir()
    (broker.directory / "later" / "handler").symlink_to("/bin/true")
    path = {"PATH": f"/nowhere:{broker.directory}:{broker.directory / 'later'}"}
    for program, why in (("/nowhere/handler", "no such file or directory"),
                         ("nowhere-in-path", "no such file or directory"), ("plain", "permission denied"),
                         ("./plain", "permission denied"), ("/", "permission denied")):
        done = cli(broker, "work", "sub", "--json", "--", program, code=69, env=path)
        assert f"cannot start {program}: {why}" in done.stderr and not done.stdout, program
    # No event paid for it.
    done = cli(broker, "work", "sub", "--json", "--count", "1", "--", "handler", env=path)
    assert json.loads(done.stdout)["attempt"] == 1


def test_work_with_a_program_that_goes_away(broker):
    sub(broker)
    for _ in range(3):
        broker.publish("a")
    handler = broker.directory / "handler"
    handler.write_text('#!/bin/sh\nrm "$0"\n')
    handler.chmod(0o755)
    done = cli(broker, "work", "sub", "--json", "--", "./handler", code=69)
    assert "cannot start ./handler: no such file or directory" in done.stderr
    assert {v["seq"]: v["verdict"] for v in map(json.loads, done.stdout.splitlines())} == {
        1: "ack", 2: "nack"}
    # One event paid for it, the other was never touched.
    wait_for(lambda: broker.subscription()["leased"] == 0)
    assert broker.subscription()["acked"] == 1
    assert [v["attempt"] for v in sorted(work(broker, "--count", "2", program="exit 0"),
                                         key=lambda v: v["seq"])] == [2, 1]


def test_work_on_a_subscription_that_is_not_there(broker):
    done = cli(broker, "work", "nobody", "--", "true", code=1)
    assert "nobody" in done.stderr


def test_work_ends_when_the_subscription_is_deleted(broker):
    sub(broker)
    with running(broker, "work", "sub", "--", "true") as process:
        wait_for(lambda: broker.subscription()["attachments"] == 1)
        cli(broker, "sub", "rm", "sub", "--yes")
        _, err = end_of(process, code=1)
    assert "sub" in err


def test_work_concurrency(broker):
    sub(broker)
    broker.publish_many(6)
    # Each program waits until three of them have begun: with fewer at once it would never end.
    program = 'echo x >>begun; until [ $(wc -l <begun) -ge 3 ]; do sleep 0.02; done'
    verdicts = work(broker, "--count", "6", "--concurrency", "3", program=program)
    assert sorted(v["seq"] for v in verdicts) == [1, 2, 3, 4, 5, 6]


def test_work_concurrency_is_one_without_being_asked(broker):
    sub(broker)
    broker.publish_many(5)
    program = 'mkdir lock && seq 1000 >/dev/null && rmdir lock'
    assert {v["verdict"] for v in work(broker, "--count", "5", program=program)} == {"ack"}


def test_work_count_takes_no_more(broker):
    sub(broker)
    broker.publish_many(10)
    verdicts = work(broker, "--count", "3", "--concurrency", "2", "--window", "8", program="exit 0")
    assert len(verdicts) == 3
    state = broker.subscription()
    assert state["acked"] == 3
    # The others went back without a fail.
    wait_for(lambda: broker.subscription()["leased"] == 0)
    assert {v["attempt"] for v in work(broker, "--count", "7", program="exit 0")} == {1}


def test_work_renews_the_lease(broker):
    sub(broker, lease_ms=300)
    broker.publish("a")
    [verdict] = work(broker, "--count", "1", program="sleep 1.5")
    assert verdict["verdict"] == "ack" and verdict["attempt"] == 1
    assert broker.subscription()["acked"] == 1


WAITING = "echo $BELLHOP_SEQ >>begun; while [ -d data ] && [ ! -e go ]; do sleep 0.02; done"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_work_finishes_what_runs_on_a_signal(broker, signum):
    sub(broker)
    broker.publish_many(4)
    with running(broker, "work", "sub", "--json", "--", "sh", "-c", WAITING) as process:
        wait_for(lambda: lines_of(broker.directory / "begun") == ["1"])
        process.send_signal(signum)
        assert "finishing what runs" in process.stderr.readline()
        (broker.directory / "go").touch()
        out, _ = end_of(process)
    assert [json.loads(line)["verdict"] for line in out.splitlines()] == ["ack"]
    assert lines_of(broker.directory / "begun") == ["1"]
    wait_for(lambda: broker.subscription()["leased"] == 0)
    assert broker.subscription()["acked"] == 1


def test_work_a_signal_to_the_group_does_not_reach_the_program(broker):
    """A Ctrl-C at the terminal goes to everyone in the foreground."""
    sub(broker)
    broker.publish("a")
    with running(broker, "work", "sub", "--json", "--", "sh", "-c", WAITING,
                 start_new_session=True) as process:
        wait_for(lambda: lines_of(broker.directory / "begun") == ["1"])
        os.killpg(process.pid, signal.SIGINT)
        assert "finishing what runs" in process.stderr.readline()
        (broker.directory / "go").touch()
        out, _ = end_of(process)
    assert [json.loads(line)["verdict"] for line in out.splitlines()] == ["ack"]


def test_work_the_second_signal_kills(broker):
    sub(broker)
    broker.publish("a")
    program = "echo $$ >pid; trap '' TERM INT; sleep 1000 & echo $! >>pid; wait"
    with running(broker, "work", "sub", "--json", "--", "sh", "-c", program) as process:
        wait_for(lambda: len(lines_of(broker.directory / "pid")) == 2)
        process.send_signal(signal.SIGTERM)
        assert "finishing what runs" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        out, _ = end_of(process, code=128 + signal.SIGTERM)
    [verdict] = [json.loads(line) for line in out.splitlines()]
    assert verdict["verdict"] == "release"
    for pid in lines_of(broker.directory / "pid"):
        wait_for(lambda: is_gone(int(pid)))
    # It was not the event's fault: no fail was counted.
    assert [v["attempt"] for v in work(broker, "--count", "1", program="exit 0")] == [1]


def is_gone(pid):
    """Whether the process runs no more; a zombie that nobody reaps is gone too."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_work_idle_ends_on_a_signal(broker):
    sub(broker)
    with running(broker, "work", "sub", "--", "true") as process:
        wait_for(lambda: broker.subscription()["attachments"] == 1)
        process.send_signal(signal.SIGTERM)
        assert end_of(process) == ("", "")
    assert wait_for(lambda: broker.subscription()["attachments"] == 0)


def restart_at(broker, port):
    broker.args += ["--workers", f"127.0.0.1:{port}", "--restart-grace", "4000"]
    broker.start()
    assert broker.workers_port == port


def test_work_lives_through_a_broker_that_dies(broker):
    """What ran while it was away is claimed, and acknowledged once it is back: nothing runs twice."""
    sub(broker)
    seqs = broker.publish_many(4)
    port = broker.workers_port
    with running(broker, "work", "sub", "--json", "--count", "4", "--", "sh", "-c",
                 f'[ "$BELLHOP_SEQ" = {seqs[0]} ] || {{ {WAITING}; }}') as process:
        # Two are handed out at a time: the confirmed ack of the first says on disk who has the second.
        first = json.loads(process.stdout.readline())
        wait_for(lambda: lines_of(broker.directory / "begun") == [str(seqs[1])])
        broker.kill9()
        assert "disconnected" in process.stderr.readline()
        (broker.directory / "go").touch()
        restart_at(broker, port)
        out, err = end_of(process)
    verdicts = [first, *(json.loads(line) for line in out.splitlines())]
    assert [v["verdict"] for v in verdicts] == ["ack"] * 4
    assert sorted(v["seq"] for v in verdicts) == seqs
    assert sorted(map(int, lines_of(broker.directory / "begun"))) == seqs[1:]
    assert "connected again" in err
    assert idle(broker.subscription())


def test_work_without_resume(broker):
    sub(broker)
    seqs = broker.publish_many(3)
    port = broker.workers_port
    with running(broker, "work", "sub", "--json", "--count", "3", "--resume", "0", "--", "sh", "-c",
                 WAITING) as process:
        wait_for(lambda: lines_of(broker.directory / "begun"))
        broker.kill9()
        assert "disconnected" in process.stderr.readline()
        (broker.directory / "go").touch()
        first = json.loads(process.stdout.readline())
        restart_at(broker, port)
        out, err = end_of(process)
    # Nobody was there to confirm the first ack, so it does not count and the event came again.
    assert first["verdict"] == "unconfirmed" and first["seq"] == seqs[0]
    verdicts = [json.loads(line) for line in out.splitlines()]
    assert [v["verdict"] for v in verdicts] == ["ack"] * 3
    assert {v["seq"] for v in verdicts} == set(seqs)
    assert "connected again" in err
    assert idle(broker.subscription())


def idle(state):
    return state["backlog"] + state["ready"] + state["leased"] + state["delayed"] == 0


def test_work_with_the_worker_port_named(broker):
    sub(broker)
    broker.publish("a")
    env = {"BELLHOP_URL": "http://127.0.0.1:1",
           "BELLHOP_WORKERS": f"127.0.0.1:{broker.workers_port}"}
    [verdict] = work(broker, "--count", "1", program="exit 0", env=env)
    assert verdict["verdict"] == "ack"
    done = alone("work", "sub", "--", "true", env={"BELLHOP_WORKERS": "nonsense:port"})
    assert done.returncode == 64 and "BELLHOP_WORKERS" in done.stderr
