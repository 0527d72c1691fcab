#!/usr/bin/env python3
"""One run: producers and workers over the real broker through a breaking proxy, kills in between,
and the verdict over what everybody saw.

    tests/history/run.py --seed 7 --seconds 20     a run; the schedule of faults is the seed's
    tests/history/run.py --seed 7 --show           only prints that schedule
    tests/history/run.py --check FILE              judges the history of an earlier run again

The seed decides the faults, their times, and what producers and workers choose; threads and sockets
decide what that meets, so a second run is alike and not the same. That is why a run that failed
leaves its whole history: --check needs no broker and always says the same.
"""

import argparse
import base64
import contextlib
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import bhp  # noqa: E402
import checker  # noqa: E402
import commands  # noqa: E402
import events  # noqa: E402
import history as history_  # noqa: E402
import nemesis  # noqa: E402
import producers  # noqa: E402
import workers  # noqa: E402
from harness import Broker, wait_for  # noqa: E402
from proxy import Proxy  # noqa: E402

SETTLE_S = 60
FINISHED = ("ready", "leased", "delayed", "blocked", "backlog", "replays")


class Run:
    def __init__(self, directory, seed, seconds):
        self.directory, self.seed, self.seconds = Path(directory), seed, seconds
        self.history = history_.History()
        self.book = events.Book(self.history)
        self.broker = Broker(self.directory, "--restart-grace", "1500", "--drain-ms", "500")
        self.proxy = Proxy(seed, *nemesis.LINKS)
        self.incarnation = 0
        self.producers_stop, self.workers_stop = threading.Event(), threading.Event()
        self.calm = threading.Event()  # workers ack everything from here on
        self.failed = threading.Event()
        self.failures = []

    def fail(self, who, problem):
        """A participant ended by an error of its own: no verdict is possible."""
        self.failures.append(f"{who}: {problem!r}")
        self.history.add(who, "info", "failure", why=repr(problem))
        self.failed.set()

    # -- the broker --

    def start_broker(self, killed):
        self.broker.start()
        self.incarnation += 1
        self.history.add("nemesis", "info", "start", inc=self.incarnation, killed=killed)
        self.proxy.point_at(self.incarnation, http=self.broker.http_port,
                            workers=self.broker.workers_port)

    def restart_broker(self, kill, down_s):
        if kill:
            self.broker.kill9()
        else:
            self.broker.stop()
        self.proxy.point_at(self.incarnation, http=None, workers=None)
        self.failed.wait(down_s)
        self.start_broker(kill)

    def verb(self, subscription, verb):
        self.broker.ok("POST", f"/v1/subscriptions/{subscription}:{verb}")

    def replay(self, subscription, wire):
        """The older half of the journal once more."""
        last = self.broker.ok("GET", "/v1/status")["journal"]["last_seq"]
        bounds = {"from_seq": 1, "to_seq": max(1, last // 2)}
        if wire:
            with bhp.Client(self.broker.workers_port) as client:
                task = client.replay(subscription, **bounds)
        else:
            task = self.broker.ok("POST", "/v1/replays",
                                  {"subscription": subscription, **bounds})["id"]
        self.history.add("nemesis", "ok", "replay", sub=subscription, id=task, **bounds)

    def redrive(self, subscription):
        task = self.broker.ok("POST", "/v1/dead-letters:redrive", {"subscription": subscription})
        self.history.add("nemesis", "ok", "redrive", sub=subscription, id=task["id"])

    # -- the run --

    def carry_out(self):
        """Fills the history. Whatever it starts it also ends."""
        began = time.monotonic()
        self.start_broker(killed=False)
        self.broker.add_source(events.SOURCE, events.SECRET)
        events.create_subscriptions(self.broker)
        command = commands.CommandWorker(self)
        makers, crew = producers.make(self), [*workers.make(self), command]
        for thread in (*crew, *makers):
            thread.start()
        try:
            # It may be late: a restart takes its time.
            clock = lambda: time.monotonic() - began  # noqa: E731
            nemesis.Nemesis(self, nemesis.schedule(self.seed, self.seconds)).run(
                self.seconds, clock, lambda at: self.failed.wait(max(0, at - clock())))
            self.end(self.producers_stop, makers)
            self.calm.set()
            self.settle()
        finally:
            self.end(self.producers_stop, makers)
            self.end(self.workers_stop, crew)
        self.read_end()
        command.read_back()
        self.history.add("run", "info", "end", seed=self.seed,
                         seconds=round(time.monotonic() - began, 1))

    def end(self, stop, threads):
        stop.set()
        for thread in threads:
            thread.join(60)
            if thread.is_alive():
                self.fail(thread.name, AssertionError("it does not end"))

    def settle(self):
        """Faults are over: everything must be done within a deadline. If not, the checker says
        what; the state is in the history."""
        def settled():
            last = self.broker.ok("GET", "/v1/status")["journal"]["last_seq"]
            subs = [self.broker.subscription(name) for name in events.SUBSCRIPTIONS]
            return self.failed.is_set() or all(
                s["floor"] > last and not any(s[k] for k in FINISHED) for s in subs)
        with contextlib.suppress(AssertionError):
            wait_for(settled, SETTLE_S, "the end of all work")

    # -- what there is at the end --

    def read_end(self):
        for event in self.broker.events():
            self.note("journal", event["seq"], event)
        for name in events.SUBSCRIPTIONS:
            got = self.broker.subscription(name)
            self.history.add("run", "ok", "stats", sub=name, **{
                k: got[k] for k in (*FINISHED, "floor", "next", "dead", "acked", "why_idle")})
            for letter in self.dead_letters(name):
                self.note("dead", letter["seq"], letter["event"], sub=name,
                          reason=letter["reason"], fails=letter["fails"],
                          deliveries=letter["deliveries"], replay=letter.get("replay", 0))

    def dead_letters(self, name):
        found, token = [], ""
        while True:
            page = self.broker.ok("GET", f"/v1/dead-letters?subscription={name}&page_size=1000"
                                  + (f"&page_token={token}" if token else ""))
            found += page["dead_letters"]
            token = page.get("next_page_token", "")
            if not token:
                return found

    def note(self, f, seq, event, **fields):
        """An event as the HTTP API shows it."""
        token = events.token_of(api_body(event))
        known = self.book.get(token)
        wrong = known.differs_from_api(event) if known else ""
        self.history.add("run", "ok", f, seq=seq, tok=token, **fields,
                         **({"wrong": wrong} if wrong else {}))

    def close(self):
        self.broker.end()
        self.proxy.stop()


def api_body(event):
    """A body in which the token can be found."""
    if "body_base64" in event:
        return base64.b64decode(event["body_base64"])
    if "body_text" in event:
        return event["body_text"].encode()
    return event.get("body", b"")


def carry_out(directory, seed, seconds):
    """(entries, what kept the run from its end: text or "")."""
    run = Run(directory, seed, seconds)
    try:
        run.carry_out()
        if not run.failures:
            run.broker.finish()
    except Exception as problem:
        run.failures.append(f"{type(problem).__name__}: {problem}\n{run.broker.log_tail()}")
    finally:
        run.close()
    return run.history.entries, "\n".join(run.failures)


def verdict(entries, failure):
    """The report's text, and whether all is well."""
    if failure:
        lines = failure.splitlines()
        few = "\n".join(line[:400] for line in (*lines[:2], *lines[2:][-6:]))
        return f"the run did not come to its end:\n{few}", False
    problems, numbers, causes = checker.check(entries)
    text = checker.table(numbers, causes)
    for problem in problems[:20]:
        text += f"\n\n{problem.kind}: {problem.text}"
        if problem.seq is not None and problem in problems[:3]:
            text += "".join(f"\n{line}" for line in checker.trace(entries, problem.seq))
    if len(problems) > 20:
        text += f"\n\nand {len(problems) - 20} more"
    return text, not problems


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--seconds", type=float, default=20, help="of faults; then it settles")
    arguments.add_argument("--runs", type=int, default=1, help="this many seeds, from --seed on")
    arguments.add_argument("--history", help="keep the history here, also of a good run")
    arguments.add_argument("--show", action="store_true", help="only print the schedule")
    arguments.add_argument("--check", metavar="FILE", help="judge an earlier history")
    given = arguments.parse_args()
    if given.show:
        for at, what, parameters in nemesis.schedule(given.seed, given.seconds):
            print(f"{at:8.3f} s  {what:10} {parameters}")
        return 0
    if given.check:
        text, good = verdict(history_.read(given.check), "")
        print(text)
        return 0 if good else 1
    for seed in range(given.seed, given.seed + given.runs):
        directory = tempfile.mkdtemp(prefix="bellhop-history-")
        entries, failure = carry_out(directory, seed, given.seconds)
        text, good = verdict(entries, failure)
        print(text + "\n", flush=True)
        path = given.history or Path(directory) / "history.jsonl"
        if given.history or not good:
            history_.write(entries, path)
            print(f"the history is in {path}")
        if not good:
            print(f"the broker's directory is {directory}; again: {sys.argv[0]} --seed {seed} "
                  f"--seconds {given.seconds:g}")
            return 1
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
