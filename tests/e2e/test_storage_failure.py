"""A write that the disk refuses: the broker stops with the reason, and nobody was told 200 for it."""

import http.client
import json
import subprocess

from harness import BUILD, DEADLINE_S, broker_env

LIMIT_KIB = 2048  # of a file: the store meets it after a few hundred events of 4 KiB


def read_greeting(process):
    said = {}
    for line in process.stdout:
        if line.strip() == "bellhopd: ready":
            return said
        what, _, address = line.strip().removeprefix("bellhopd: ").partition(" on ")
        said[what] = address
    raise AssertionError("the broker did not start")


def publish(connection, number):
    """The seq that the broker answered, or None when it went away without an answer."""
    body = json.dumps({"type": "t", "id": f"e{number}", "data": "x" * 4000})
    try:
        connection.request("POST", "/v1/events", body)
        answer = connection.getresponse()
        said = json.loads(answer.read())
    except (http.client.HTTPException, ConnectionError, OSError):
        return None
    assert answer.status == 200, said
    return said["seq"]


def test_a_failed_write_stops_the_broker_and_no_answer_leaves(brokers, tmp_path):
    data = tmp_path / "data"
    log = tmp_path / "limited.log"
    # With SIGXFSZ ignored a write past the limit fails with EFBIG, as on a disk that refuses it.
    command = (f"trap '' XFSZ; ulimit -f {LIMIT_KIB}; exec {BUILD / 'bellhopd'} "
               f"--http 127.0.0.1:0 --workers 127.0.0.1:0 --data {data} 2>>{log}")
    process = subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, text=True,
                               env=broker_env())
    answered = []
    try:
        host, port = read_greeting(process)["http"].split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)
        for number in range(2 * LIMIT_KIB):
            seq = publish(connection, number)
            if seq is None:
                break
            answered.append(seq)
        else:
            raise AssertionError("the limit was never met")
        connection.close()
        assert process.wait(DEADLINE_S) == 1
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    said = log.read_text()
    # A page that fits in part is a short write, which the store's library calls an I/O error.
    assert "the store failed" in said, said
    assert "File too large" in said or "Input/output error" in said, said

    assert answered == list(range(1, len(answered) + 1)) and len(answered) > 50
    broker = brokers("--data", str(data))  # without the limit: a restart is the recovery
    last_seq = broker.ok("GET", "/v1/status")["journal"]["last_seq"]
    assert last_seq == len(answered), "what was not answered may be there only if it was synced"
    assert broker.ok("GET", f"/v1/events/{last_seq}")["id"] == f"e{last_seq - 1}"
    assert broker.publish() == last_seq + 1
