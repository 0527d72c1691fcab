"""`bellhop work`, the real client, as a worker: its program notes what it was given and ends in
different ways; the command itself is killed and started again. Read back at the end."""

import contextlib
import json
import random
import signal
import subprocess
import threading

from events import COMMAND, COMMAND_CONCURRENCY
from harness import BUILD, DEADLINE_S, broker_env

# One line is one write, so that programs that run at once do not mix.
PROGRAM = """
sum=$(sha1sum | cut -c1-40)
printf '%s\\t%s\\t%s\\t%s\\n' "$BELLHOP_SEQ" "$BELLHOP_ATTEMPT" "$BELLHOP_ID" "$sum" >>"$TOOK"
[ $((BELLHOP_SEQ % 23)) -ne 0 ] || exit 65
[ $((BELLHOP_SEQ % 7)) -ne 0 ] || [ "$BELLHOP_ATTEMPT" -ge 2 ] || exit 3
"""


class CommandWorker(threading.Thread):
    """One `bellhop work` at a time."""

    def __init__(self, run):
        super().__init__(name="bellhop-work")
        self.run_ = run
        self.rng = random.Random(f"{run.seed} {self.name}")
        self.took = run.directory / "took.tsv"
        self.lives = 0
        self.process = None

    def start_process(self):
        self.lives += 1
        out = self.run_.directory / f"work-{self.lives}"
        env = {**broker_env(), "TOOK": str(self.took),
               "BELLHOP_WORKERS": f"127.0.0.1:{self.run_.proxy.port('workers')}"}
        with open(f"{out}.jsonl", "wb") as verdicts, open(f"{out}.err", "wb") as errors:
            self.process = subprocess.Popen(
                [str(BUILD / "bellhop"), "work", COMMAND, "--concurrency",
                 str(COMMAND_CONCURRENCY), "--json", "--", "sh", "-c", PROGRAM],
                stdin=subprocess.DEVNULL, stdout=verdicts, stderr=errors, env=env)

    def run(self):
        stop, calm = self.run_.workers_stop, self.run_.calm
        try:
            while not stop.is_set():
                if self.process is None or self.process.poll() is not None:
                    self.start_process()
                stop.wait(self.rng.uniform(2, 6))
                if not calm.is_set() and not stop.is_set():
                    self.end_process(self.rng.choice((signal.SIGKILL, signal.SIGTERM)))
        except Exception as problem:
            self.run_.fail(self.name, problem)
        finally:
            self.end_process(signal.SIGTERM)

    def end_process(self, signum):
        """Told once it waits for confirmations, told twice it does not: the broker may be gone."""
        for wait_s in (8, DEADLINE_S):
            if self.process is None or self.process.poll() is not None:
                return
            self.run_.history.add(self.name, "info", "signal", signal=int(signum))
            self.process.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)
                return
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.run_.fail(self.name, AssertionError("bellhop work did not stop"))

    def read_back(self):
        """What the programs and the command noted, into the history."""
        history = self.run_.history
        text = self.took.read_text() if self.took.exists() else ""
        for line in text.splitlines():
            seq, attempt, msg_id, digest = line.split("\t")
            history.add(self.name, "ok", "program", seq=int(seq), attempt=int(attempt), id=msg_id,
                        sha=digest)
        for life in range(1, self.lives + 1):
            path = self.run_.directory / f"work-{life}.jsonl"
            lines = path.read_bytes().split(b"\n")[:-1]  # the last one may be cut by a kill
            for line in lines:
                row = json.loads(line)
                if "verdict" in row:
                    history.add(self.name, "ok", "verdict", seq=row["seq"],
                                verdict=row["verdict"], attempt=row["attempt"])
