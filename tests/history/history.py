"""The history of a run: what every participant asked, and what it was told.

A list of entries that only grows; the checker reads nothing else, so that a run can be judged again
from its file. Each entry is a dict with

    i        its place in the list: the order in which things were noted
    t        milliseconds since the run began (for people; no verdict depends on it)
    process  who: "http-1", "worker-3", "nemesis", ...
    type     "invoke": asked; "ok": done and answered; "fail": answered with a refusal, nothing was
             done; "info": nobody knows (the connection died), or a remark
    f        what: publish, connect, subscribe, take, ack, nack, extend, revoke, lost, kill, ...

and the fields of what was done. checker.py says which it reads.
"""

import json
import threading
import time


class History:
    def __init__(self):
        self.entries = []
        self.began = time.monotonic()
        self.lock = threading.Lock()

    def add(self, process, type, f, **fields):
        """Appends an entry and returns its place."""
        with self.lock:
            entry = {"i": len(self.entries), "t": round((time.monotonic() - self.began) * 1000),
                     "process": process, "type": type, "f": f, **fields}
            self.entries.append(entry)
            return entry["i"]


def write(entries, path):
    """One entry a line."""
    with open(path, "w") as file:
        for entry in entries:
            file.write(json.dumps(entry, separators=(",", ":")) + "\n")


def read(path):
    with open(path) as file:
        return [json.loads(line) for line in file]
