"""Bits of the stopped store's file flip. What a broker says afterwards is what was published, or it
says that the store is damaged; it never lists or delivers a body that nobody sent, nor one under
another seq, though no checksum covers keys: the values say whose they are. What checksums do not
cover is counted and told: keys and the pages of LMDB's trees (events "missing", or a crash inside
LMDB, which the broker's last words name).

A flip is anywhere in the file, in a page of LMDB's trees, in the head of one (which has no
checksum), or in one of the two meta pages. BELLHOP_FAULTS_LONG=1 tries more of them,
BELLHOP_TEST_SEED others.
"""

import json
import random
import shutil
import signal
import struct
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bhp
from faults import GONE, LONG, SEED, SECRET, FragileBroker
from harness import wait_for

FLIPS = 4000 if LONG else 160
AT_A_TIME = 6
PAGE = 4096
HEAD = 64  # LMDB's page header of 16 bytes, and where the first entries are
BRANCH, LEAF = 1, 2  # of the flags in it
META = 152  # bytes of a meta page that mean something
EVENTS = 300
# What a broker may say of a damaged store.
NAMED = ("damaged", "fails its checksum", "cannot be read", "MDB_", "not made by Bellhop",
         "no data in data.mdb", "has format", "cannot open the store", "check failed: ",
         "does not fit together", "raise its maximum size", "cannot commit to the store")


def body_of(number):
    words = number * 7 % (600 if number % 5 == 0 else 40)  # of some pages, or several in one
    return {"n": number, "text": f"event {number} " * (1 + words)}


def make_store(directory):
    """Every table has rows, some of many pages; half of the pages were freed again."""
    broker = FragileBroker(directory)
    broker.start()
    try:
        broker.add_source("src", SECRET)
        broker.add_subscription(start="first", max_fails=2)
        for number in range(1, EVENTS + 1):
            broker.publish("t", id=f"e{number}", subject=f"s{number}", data=body_of(number))
        broker.publish("later", id="later", data=body_of(0), deliver_after_ms=86_400_000)
        with bhp.Client(broker.workers_port) as client:
            client.subscribe(window=64)
            for number in range(1, 101):
                item = client.take_one()
                if number % 10 == 1:
                    client.nack([item], bhp.REJECT, error=("type", "message", "detail"))
                elif number % 10 == 2:
                    client.nack([item], bhp.FAIL, delay_ms=86_400_000, error="later")
                else:
                    client.ack([item])
        task = broker.ok("POST", "/v1/replays", {"subscription": "sub", "from_seq": 1,
                                                 "dry_run": True})
        wait_for(lambda: broker.ok("GET", f"/v1/replays/{task['id']}")["state"] == "finished")
        broker.stop()
    finally:
        broker.end()
    return broker.data


def seen_of(broker, deliveries=None):
    """Everything that a broker says about its store, each piece under a name of its own. Waits for
    that many deliveries; None: until no more comes for a second."""
    seen = {}
    for event in broker.events():
        seen["event", event["seq"]] = json.dumps(event, sort_keys=True)
    for letter in broker.dead_letters():
        seen["dead", letter["seq"]] = json.dumps(letter, sort_keys=True)
    for source in broker.ok("GET", "/v1/sources")["sources"]:
        seen["source", source["name"]] = json.dumps(source, sort_keys=True)
    subscription = broker.subscription()
    for field in ("id", "name", "filter", "lease_ms", "max_fails", "backoff", "acked", "dead"):
        seen["subscription", field] = str(subscription[field])
    with bhp.Client(broker.workers_port) as client:
        client.subscribe(window=1000, window_bytes=64 << 20)
        count = 0
        while deliveries is None or count < deliveries:
            try:
                item = client.take_one(timeout=1 if deliveries is None else 3)
            except TimeoutError:
                break
            seen["delivery", item.seq] = (item.id, item.type, item.subject, item.body)
            count += 1
        client.ack(range(1, count + 1))
    return seen


def tree_pages(image):
    """The pages that say of themselves that they are branches or leaves (some were freed since)."""
    pages = range(2, len(image) // PAGE)
    heads = {page: struct.unpack_from("<QHH", image, page * PAGE) for page in pages}
    return [page for page, (number, _, flags) in heads.items()
            if number == page and flags & 0xf in (BRANCH, LEAF)]


def flips(image):
    """(where, position, bit), the same for the same seed and store."""
    source = random.Random(SEED)
    trees = tree_pages(image)
    for number in range(FLIPS):
        where = ("anywhere", "tree page", "page head", "meta page")[number % 4]
        position = {"anywhere": lambda: source.randrange(len(image)),
                    "tree page": lambda: source.choice(trees) * PAGE + source.randrange(PAGE),
                    "page head": lambda: source.choice(trees) * PAGE + source.randrange(HEAD),
                    "meta page": lambda: source.randrange(2) * PAGE + source.randrange(META)}
        yield where, position[where](), source.randrange(8)


def outcome_of(broker, truth, deliveries):
    """(what happened in a word, details)."""
    try:
        if not broker.try_start():
            return "refused", broker.exit_code()
        seen = seen_of(broker, deliveries)
        broker.publish("after", id="after")
    except (*GONE, bhp.ProtocolError):
        return "stopped", broker.exit_code()
    except AssertionError as problem:  # an answer of 500 refuses that value
        if "'store'" in str(problem) or "'internal'" in str(problem):
            return "value refused", 0
        raise
    return compare(truth, seen)


def content(kind, value):
    """What somebody published, without the seq it is kept under."""
    if kind == "delivery":
        return value
    event = json.loads(value)
    event.pop("seq", None)
    event.get("event", {}).pop("seq", None)
    return json.dumps(event, sort_keys=True)


def compare(truth, seen):
    """altered: something was said that nobody published. moved: what was published is found under
    another key. missing: it is not found any more."""
    known = {(kind, content(kind, value)) for (kind, _), value in truth.items()
             if kind in ("event", "dead", "delivery")}
    moved = []
    for key, value in seen.items():
        if truth.get(key) == value:
            continue
        kind = key[0]
        if kind not in ("event", "dead", "delivery") or (kind, content(kind, value)) not in known:
            return "altered", (key, value, truth.get(key))
        moved.append(key)
    if moved:
        return "moved", moved[:5]
    missing = sorted(truth.keys() - seen.keys())
    return ("missing", missing[:5]) if missing else ("harmless", 0)


def one_flip(tmp_path, store, truth, deliveries, flip):
    where, position, bit = flip
    # The same flip may come twice, and at the same time.
    directory = Path(tempfile.mkdtemp(prefix=f"at-{position}-{bit}-", dir=tmp_path))
    shutil.copytree(store, directory / "data")
    with open(directory / "data" / "store" / "data.mdb", "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))
    broker = FragileBroker(directory)
    try:
        what, details = outcome_of(broker, truth, deliveries)
        said = broker.log()
    finally:
        broker.end()
    if what in ("refused", "stopped"):
        assert details != 0, f"{flip}: it ended with 0"
        if details in (-signal.SIGBUS, -signal.SIGSEGV):
            what += " by a crash inside LMDB"
        assert "SIG" in said or any(word in said for word in NAMED), f"{flip}: {details}, {said}"
    shutil.rmtree(directory)
    return where, what, (flip, details)


def test_flipped_bits_never_become_events(tmp_path):
    (tmp_path / "made").mkdir()
    store = make_store(tmp_path / "made")
    whole = FragileBroker(tmp_path / "made")
    shutil.copytree(store, tmp_path / "whole")
    whole.data = tmp_path / "whole"
    try:
        truth = seen_of(whole.start())
        whole.stop()
    finally:
        whole.end()
    deliveries = sum(kind == "delivery" for kind, _ in truth)
    assert deliveries == EVENTS - 100 and len(truth) > EVENTS * 1.5
    assert json.loads(truth["delivery", 107][3]) == body_of(107)
    assert json.loads(truth["event", 107])["body"] == body_of(107)

    counted, details = Counter(), {}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        image = (store / "store" / "data.mdb").read_bytes()
        for where, what, detail in pool.map(
                lambda flip: one_flip(tmp_path, store, truth, deliveries, flip), flips(image)):
            counted[where, what] += 1
            details.setdefault(what, []).append(detail)
    for (where, what), count in sorted(counted.items()):
        print(f"bit flips, {where}: {count} {what}")
    print(f"missing: {details.get('missing', [])[:3]}")
    assert "altered" not in details, details["altered"][:5]
    assert "moved" not in details, details["moved"][:5]
    found = sum(count for (_, what), count in counted.items() if what != "harmless")
    assert found > FLIPS / 10, "the flips do not meet what the store keeps"
