#!/usr/bin/env python3
"""Writes frames.json: every frame of the worker protocol as bytes, made by an encoder that is not ours.

Run it when docs/protocol.md changes; every client's tests read the result. auth.json is one AUTH with
all that it is made of. A row of frames.json is
  name, direction ("client" or "broker"), hex (with the length in front),
  json: the msgpack array; bin is {"bin": hex}
and, where it says something else than "this is what an encoder writes",
  decode_only: true     valid, but not what ours writes (other widths, nil, more fields)
  error: "bad_frame"    a decoder answers with this
"""
import base64
import hashlib
import hmac
import json
import pathlib
import struct

import msgpack

ROWS = []


def jsonable(value):
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    return value


def raw(name, direction, body, value=None, **more):
    row = {"name": name, "direction": direction, "hex": (struct.pack(">I", len(body)) + body).hex()}
    if value is not None:
        row["json"] = jsonable(value)
    ROWS.append({**row, **more})


def frame(name, direction, value, **more):
    raw(name, direction, msgpack.packb(value, use_bin_type=True), value, **more)


def client(name, value, **more):
    frame(name, "client", value, **more)


def broker(name, value, **more):
    frame(name, "broker", value, **more)


LONG = "x" * 300  # needs str 16
POLICY = json.dumps({"filter": {"types": ["batch.*", "job.done"], "sources": ["gemini"]}, "max_fails": 5, "start": "first"})
FILTER = '{"types":["batch.*"]}'
ITEM = [7, 42, 1700000000123, 1, 2, 2, "batch.succeeded", "msg_1", "gemini", "batches/abc", 1700000000000,
        "application/json", '{"k":"v"}', '{"webhook-id":"msg_1"}', b'{"a":1}']



def authenticate():
    """What an AUTH says for one key and one pair of nonces (docs/protocol.md, "Keys")."""
    def mac(key, message):
        return hmac.new(key, message, hashlib.sha256).digest()

    secret = base64.urlsafe_b64encode(bytes(range(224, 256))).decode().rstrip("=")
    text = f"bh_0a1b2c3d4e5f_{secret}"
    broker_nonce, client_nonce = bytes(range(32)), bytes(range(100, 132))
    client_key = mac(text.encode(), b"Client Key")
    stored_key = hashlib.sha256(client_key).digest()
    mask = mac(stored_key, b"hmac-sha256" + broker_nonce + client_nonce)
    proof = bytes(a ^ b for a, b in zip(client_key, mask))
    return {"key": text, "id": "0a1b2c3d4e5f", "client_key": client_key.hex(), "stored_key": stored_key.hex(),
            "broker_nonce": broker_nonce.hex(), "client_nonce": client_nonce.hex(), "proof": proof.hex()}


AUTH = authenticate()

client("hello", [1, 1, {"min": 1, "max": 1, "name": "w1", "version": "0.1.0", "heartbeat_ms": 10000, "features": []}])
client("hello_resume", [1, 1, {"min": 1, "max": 1, "name": "w1", "version": "0.1.0", "heartbeat_ms": 0, "features": [],
                               "resume_ms": 600000, "resume": "s-" + "0123456789abcdef" * 2}])
client("auth", [2, 2, "hmac-sha256", AUTH["id"], bytes.fromhex(AUTH["proof"]), bytes.fromhex(AUTH["client_nonce"])])
client("auth_short", [2, 2, "none"], decode_only=True)
client("auth_nils", [2, 2, "none", None, None, None], decode_only=True)
client("subscribe", [3, 3, 1, "batches", 64, 16777216, {"concurrency": 8}])
client("subscribe_create", [3, 4, 2, "batches", 64, 16777216, {"concurrency": 8, "lease_ms": 60000, "create": POLICY}])
client("subscribe_create_plain", [3, 5, 3, "all", 1, 0, {"concurrency": 0, "create": "{}"}])
client("subscribe_claims", [3, 6, 4, "batches", 16, 1048576, {"concurrency": 2, "claims": [1, 42, 0, 7, 43, 2, 4294967296, 12345678901, 7]}])
client("subscribe_all", [3, 7, 5, "all", 16384, 67108864, {"concurrency": 16384, "lease_ms": 43200000, "create": POLICY, "claims": [1, 1, 0]}])
client("window", [4, 0, 1, 0, 65536])
client("ack", [5, 0, 1, [1, 5, 9, 9, 4294967296, 4294967300], False])
client("ack_confirm", [5, 8, 4294967295, [200, 200], True])
client("nack_release", [6, 0, 1, [1, 2], 0, None, None, False])
client("nack_fail", [6, 0, 1, [3, 3], 1, 30000, "exit status 1", False])
client("nack_reject", [6, 9, 1, [4, 4], 2, None, LONG, True])
client("nack_typed", [6, 18, 1, [3, 3], 1, 0, ["Timeout", "no answer", "after 30 s\n" * 30], True])
client("nack_type_only", [6, 0, 1, [3, 3], 1, None, ["Timeout", "", ""], False])
client("nack_elsewhere", [6, 0, 1, [5, 5], 3, 86400000, "no graphics card", False])
client("extend", [7, 0, 1, [1, 16384], 0, False])
client("extend_confirm", [7, 10, 1, [1, 2], 43200000, True])
client("unsubscribe", [8, 11, 1])
client("publish", [9, 12, [["job.done", "jobs/1", "id-1", "application/json", '{"a":1}', 1700000000000, 0, b"{}"],
                           ["", "", "", "", "", 0, 0, b""]]])
client("publish_long", [9, 13, [["t", LONG, "", "", "", 0, 0, b"\x00" * 300]]])
client("publish_later", [9, 13, [["t", "", "", "", "", 0, 1700003600000, b""], ["t", "", "", "", "", 0, 2**53 - 1, b""]]])
client("replay", [10, 14, "batches", {"from_seq": 1, "to_seq": 100}])
client("replay_time", [10, 15, "batches", {"from_time_ms": 1700000000000, "to_time_ms": 1700000001000}])
client("replay_all", [10, 19, "batches", {"from_seq": 1, "filter": FILTER, "rate": 50, "dry_run": True}])
client("redrive", [11, 20, "batches", {}])
client("redrive_one", [11, 21, "batches", {"seq": 12345678901}])
client("redrive_some", [11, 22, "batches", {"filter": FILTER, "rate": 1000000}])
client("state_request", [72, 23, 1, False])
client("state_watch", [72, 24, 4294967295, True])
client("ping", [13, 16])
client("pong", [14, 17])
client("drain", [15, 18])
client("close", [16, 0])
client("wait", [17, 25, "batches/abc", {"timeout_ms": 60000}])
client("wait_types", [17, 26, "a", {"timeout_ms": 600000, "after_seq": 12345678901, "types": ["batch.*", LONG[:256], "video.generated"]}])
client("wait_not", [17, 27, "a", {"timeout_ms": 0}])

broker("welcome", [64, 1, {"version": 1, "server": "bellhopd/0.1.0", "session": "s-1", "auth": "none", "nonce": b"\x01\x02",
                           "heartbeat_ms": 10000, "max_frame_bytes": 1114112, "now_ms": 1700000000000, "resume_ms": 60000,
                           "features": []}])
broker("challenge", [80, 1, "hmac-sha256", bytes.fromhex(AUTH["broker_nonce"])])
broker("ok", [65, 11, 0])
broker("ok_replay", [65, 14, 3])
broker("err", [66, 3, 301, "not_found", "no subscription batches", 0, False])
broker("err_retry", [66, 12, 501, "no_room", "the store is nearly full", 1000, False])
broker("err_fatal", [66, 0, 101, "bad_frame", "sub: want an unsigned integer of 32 bits", 0, True])
broker("subscribed", [67, 3, 1, {"lease_ms": 30000, "backlog": 17, "created": True, "resumed": 2}])
body = msgpack.packb([68, 0, 1, 30000, [ITEM, ITEM]], use_bin_type=True)
at = body.index(b"\x92\x9f")  # the items: an encoder that streams them writes array 32
raw("deliver", "broker", body[:at] + b"\xdd\x00\x00\x00\x02" + body[at + 1:], [68, 0, 1, 30000, [ITEM, ITEM]])
broker("deliver_short", [68, 0, 1, 30000, [ITEM]], decode_only=True)
broker("settled", [69, 8, 1, [1, 5, 9, 9], [6, 6], [7, 8]])
broker("settled_none", [69, 8, 1, [], [], []])
broker("lease", [70, 0, 1, [3, 4, 9, 9], 7500])
broker("revoke", [71, 0, 1, [3, 4], "expired"])
STATE = {"ready": 3, "leased": 16, "delayed": 2, "blocked": 1, "dead": 4, "backlog": 5000000, "oldest_ms": 86400000,
         "in_per_s": 12.5, "out_per_s": 0.0, "paused": False, "why_idle": "busy"}
broker("state", [72, 23, 1, STATE])
broker("state_changed", [72, 0, 1, {**STATE, "paused": True, "why_idle": "paused"}])
broker("published", [73, 12, [42, 43, 40], [2]])
broker("published_fresh", [73, 12, [42], []])
broker("ping_broker", [13, 0])
broker("drained", [74, 18])
broker("quiet", [76, 0, "the broker is stopping", 20000])
broker("goaway", [77, 0, "the broker is stopping", 1000])
broker("ended", [78, 0, 1, 306, "the subscription was deleted"])
OF_JOB = [0, *ITEM[1:3], 0, 0, 0, *ITEM[6:]]
broker("job_event", [79, 25, {"state": "succeeded", "overdue": False, "seq": 42}, OF_JOB])
broker("job_event_gone", [79, 25, {"state": "failed", "overdue": True, "seq": 12345678901}])
broker("job_event_nothing", [79, 25, {"state": "pending", "overdue": False}])

# Valid, but not what our encoders write.
client("hello_empty", [1, 1, {}], decode_only=True)
client("hello_more", [1, 1, {"min": 1, "max": 3, "name": "w1", "new": {"a": [1, 2.5, -3, None]}}, "more", [1, [2]]], decode_only=True)
client("ack_short", [5, 0, 1, [1, 1]], decode_only=True)
client("ack_nil", [5, 0, 1, [1, 1], None, 5], decode_only=True)
client("nack_short", [6, 0, 1, [1, 1], 1], decode_only=True)
client("extend_short", [7, 0, 1, [1, 1]], decode_only=True)
client("subscribe_short", [3, 3, 1, "batches", 64, 1024], decode_only=True)
client("subscribe_bin_name", [3, 3, 1, b"batches", 64, 1024, None], decode_only=True)
client("subscribe_nils", [3, 3, 1, "a", 1, 1, {"concurrency": None, "lease_ms": None, "create": None, "claims": None, "new": [1]}], decode_only=True)
client("subscribe_bin_create", [3, 3, 1, "a", 1, 1, {"create": b"{}", "claims": []}], decode_only=True)
client("hello_resume_above", [1, 1, {"resume_ms": 2**53 - 1, "resume": None}], decode_only=True)
client("nack_empty_text", [6, 0, 1, [1, 1], 1, None, ""], decode_only=True)
client("nack_failure_short", [6, 0, 1, [1, 1], 1, None, ["Timeout"]], decode_only=True)
client("nack_failure_nils", [6, 0, 1, [1, 1], 1, None, [None, "m", None, "more"], True], decode_only=True)
client("nack_failure_full", [6, 0, 1, [1, 1], 1, None, ["t" * 128, "m" * 512, "d" * 2048], True], decode_only=True)
client("replay_nils", [10, 1, "a", {"from_seq": 1, "to_seq": None, "filter": None, "rate": None, "dry_run": None}], decode_only=True)
client("redrive_nils", [11, 1, "a", {"seq": None, "filter": "", "rate": 0, "new": 1}], decode_only=True)
client("state_short", [72, 1, 1], decode_only=True)
client("state_nil", [72, 1, 1, None], decode_only=True)
broker("state_short_answer", [72, 1, 1, {"ready": 1, "in_per_s": 2, "out_per_s": None, "new": {}}], decode_only=True)
raw("state_float_32", "broker", b"\x94\x48\x01\x01\x81\xa8in_per_s\xca\x3f\xc0\x00\x00", [72, 1, 1, {"in_per_s": 1.5}], decode_only=True)
broker("quiet_short", [76, 0], decode_only=True)
broker("subscribed_short", [67, 3, 1, {}], decode_only=True)
client("wait_short", [17, 1, "a"], decode_only=True)
client("wait_nils", [17, 1, b"a", {"timeout_ms": None, "after_seq": None, "types": None, "new": [1]}], decode_only=True)
broker("job_event_nils", [79, 1, {"state": None, "overdue": None, "seq": None, "new": 1}, None, 5], decode_only=True)
client("publish_str_body", [9, 12, [["t", None, None, None, None, None, None, "text"]]], decode_only=True)
client("unknown_op", [12, 99, "what", {"is": "this"}], decode_only=True)
raw("wide_ints", "client", bytes.fromhex("95cf0000000000000005ce00000000d2000000019200d3000000000000007fc2"),
    [5, 0, 1, [0, 127], False], decode_only=True)
broker("err_short", [66, 3, 999], decode_only=True)
broker("welcome_short", [64, 1, {"version": 1, "auth": "none"}], decode_only=True)

# What a decoder refuses. The first group closes the connection.
raw("bad_empty", "client", b"", error="bad_frame")
raw("bad_not_array", "client", b"\x01", error="bad_frame")
raw("bad_map", "client", msgpack.packb({"op": 1}), error="bad_frame")
raw("bad_no_rid", "client", msgpack.packb([13]), error="bad_frame")
raw("bad_op_text", "client", msgpack.packb(["PING", 1]), error="bad_frame")
raw("bad_op_negative", "client", msgpack.packb([-1, 1]), error="bad_frame")
raw("bad_op_float", "client", msgpack.packb([13.0, 1]), error="bad_frame")
raw("bad_rid_wide", "client", msgpack.packb([13, 2**32]), error="bad_frame")
raw("bad_rid_nil", "client", msgpack.packb([13, None]), error="bad_frame")
raw("bad_trailing", "client", msgpack.packb([13, 1]) + b"\x00", error="bad_frame")
raw("bad_truncated", "client", msgpack.packb([13, 1])[:-1], error="bad_frame")
raw("bad_array_4g", "client", b"\x93\x05\x01\xdd\xff\xff\xff\xff" + b"\x00" * 12, error="bad_frame")
raw("bad_map_4g", "client", b"\x93\x01\x01\xdf\xff\xff\xff\xff" + b"\x00" * 12, error="bad_frame")
raw("bad_bin_4g", "client", b"\x93\x02\x01\xc6\xff\xff\xff\xff" + b"\x00" * 12, error="bad_frame")
raw("bad_str_past_end", "client", b"\x93\x02\x01\xa5abc", error="bad_frame")
raw("bad_ext", "client", b"\x93\x0d\x01" + msgpack.packb(msgpack.ExtType(5, b"abcd")), error="bad_frame")
raw("bad_c1", "client", b"\x93\x0d\x01\xc1", error="bad_frame")
raw("bad_deep", "client", b"\x93\x0d\x01" + b"\x91" * 8 + b"\x00", error="bad_frame")
client("deep_enough", [13, 1, [[[[[[[0]]]]]]]], decode_only=True)
raw("bad_sub_negative", "client", msgpack.packb([5, 1, -1, [1, 1], False]), error="bad_frame")
raw("bad_sub_float", "client", msgpack.packb([5, 1, 1.0, [1, 1], False]), error="bad_frame")
raw("bad_sub_wide", "client", msgpack.packb([5, 1, 2**32, [1, 1], False]), error="bad_frame")
raw("bad_ranges_odd", "client", msgpack.packb([5, 1, 1, [1, 1, 2], False]), error="bad_frame")
raw("bad_ranges_text", "client", msgpack.packb([5, 1, 1, "1-1", False]), error="bad_frame")
raw("bad_confirm", "client", msgpack.packb([5, 1, 1, [1, 1], 1]), error="bad_frame")
raw("bad_event_short", "client", msgpack.packb([9, 1, [["t", "", "", "", "", 0, b""]]]), error="bad_frame")
raw("bad_event_type", "client", msgpack.packb([9, 1, [[5, "", "", "", "", 0, 0, b""]]]), error="bad_frame")
raw("bad_deliver_at", "client", msgpack.packb([9, 1, [["t", "", "", "", "", 0, -1, b""]]]), error="bad_frame")
raw("bad_create_map", "client", msgpack.packb([3, 1, 1, "a", 1, 1, {"create": {"start": "new"}}]), error="bad_frame")
raw("bad_claims_pair", "client", msgpack.packb([3, 1, 1, "a", 1, 1, {"claims": [1, 2]}]), error="bad_frame")
raw("bad_claims_nested", "client", msgpack.packb([3, 1, 1, "a", 1, 1, {"claims": [[1, 2, 3]] * 3}]), error="bad_frame")
raw("bad_claims_4g", "client", b"\x97\x03\x01\x01\xa1a\x01\x01\x81\xa6claims\xdd\xff\xff\xff\xff" + b"\x00" * 12, error="bad_frame")
raw("bad_resume", "client", msgpack.packb([1, 1, {"resume": 5}]), error="bad_frame")
raw("bad_resume_ms", "client", msgpack.packb([1, 1, {"resume_ms": -1}]), error="bad_frame")
raw("bad_failure_map", "client", msgpack.packb([6, 1, 1, [1, 1], 1, None, {"type": "t"}]), error="bad_frame")
raw("bad_failure_part", "client", msgpack.packb([6, 1, 1, [1, 1], 1, None, ["t", 5]]), error="bad_frame")
raw("bad_replay_no_map", "client", msgpack.packb([10, 1, "a"]), error="bad_frame")
raw("bad_replay_dry_run", "client", msgpack.packb([10, 1, "a", {"from_seq": 1, "dry_run": 1}]), error="bad_frame")
raw("bad_redrive_no_map", "client", msgpack.packb([11, 1, "a"]), error="bad_frame")
raw("bad_redrive_filter", "client", msgpack.packb([11, 1, "a", {"filter": {"types": ["a"]}}]), error="bad_frame")
raw("bad_watch", "client", msgpack.packb([72, 1, 1, 1]), error="bad_frame")
raw("bad_auth_proof", "client", msgpack.packb([2, 1, "hmac-sha256", "k", 5]), error="bad_frame")
raw("bad_auth_nonce", "client", msgpack.packb([2, 1, "hmac-sha256", "k", b"", {}]), error="bad_frame")
raw("bad_challenge", "broker", msgpack.packb([80, 1, "hmac-sha256"]), error="bad_frame")
raw("bad_wait_job", "client", msgpack.packb([17, 1, 5]), error="bad_frame")
raw("bad_wait_types", "client", msgpack.packb([17, 1, "a", {"types": "batch.*"}]), error="bad_frame")
raw("bad_wait_type", "client", msgpack.packb([17, 1, "a", {"types": [5]}]), error="bad_frame")
raw("bad_wait_timeout", "client", msgpack.packb([17, 1, "a", {"timeout_ms": 1.5}]), error="bad_frame")
raw("bad_wait_array", "client", msgpack.packb([17, 1, "a", [1]]), error="bad_frame")
raw("bad_job_event", "broker", msgpack.packb([79, 1, "pending"]), error="bad_frame")
raw("bad_job_event_item", "broker", msgpack.packb([79, 1, {"seq": 1}, [1, 2]]), error="bad_frame")
raw("bad_state_nan", "broker", msgpack.packb([72, 1, 1, {"in_per_s": float("nan")}]), error="bad_frame")
raw("bad_state_infinite", "broker", msgpack.packb([72, 1, 1, {"out_per_s": float("inf")}]), error="bad_frame")
raw("bad_lease_short", "broker", msgpack.packb([70, 0, 1, [1, 1]]), error="bad_frame")
raw("bad_quiet", "broker", msgpack.packb([76, 0, "stop", "soon"]), error="bad_frame")
raw("bad_item_short", "broker", msgpack.packb([68, 0, 1, 1, [[1, 2]]]), error="bad_frame")
raw("bad_duplicate_index", "broker", msgpack.packb([73, 1, [1], [1]]), error="bad_frame")


def refused(name, value, error):
    raw(name, "client", msgpack.packb(value, use_bin_type=True), error=error)


def event(**parts):
    names = ["type", "subject", "id", "content_type", "metadata", "time_ms", "deliver_at_ms", "body"]
    return [parts.get(n, 0 if n.endswith("_ms") else b"" if n == "body" else "") for n in names]


# These leave the connection open.
refused("range_backwards", [5, 1, 1, [2, 1], False], "invalid_request")
refused("ranges_1025", [5, 1, 1, [1, 1] * 1025, False], "limit_exceeded")
refused("kind_4", [6, 1, 1, [1, 1], 4], "invalid_request")
refused("delay_above", [6, 1, 1, [1, 1], 1, 86400001], "invalid_request")
refused("error_text_513", [6, 1, 1, [1, 1], 1, None, "e" * 513], "too_large")
refused("error_type_129", [6, 1, 1, [1, 1], 1, None, ["e" * 129, "", ""]], "too_large")
refused("error_message_513", [6, 1, 1, [1, 1], 1, None, ["", "e" * 513, ""]], "too_large")
refused("error_detail_2049", [6, 1, 1, [1, 1], 1, None, ["", "", "e" * 2049]], "too_large")
refused("lease_99", [7, 1, 1, [1, 1], 99], "invalid_request")
refused("name_empty", [3, 1, 1, "", 1, 1], "invalid_request")
refused("name_65", [3, 1, 1, "n" * 65, 1, 1], "invalid_request")
refused("name_dot", [3, 1, 1, ".a", 1, 1], "invalid_request")
refused("name_slash", [10, 1, "a/b", {}], "invalid_request")
refused("window_16385", [4, 1, 1, 16385, 1], "window_too_large")
refused("window_64m", [3, 1, 1, "a", 1, 67108865], "window_too_large")
refused("worker_lease_99", [3, 1, 1, "a", 1, 1, {"lease_ms": 99}], "invalid_request")
refused("worker_lease_above", [3, 1, 1, "a", 1, 1, {"lease_ms": 43200001}], "invalid_request")
refused("create_49153", [3, 1, 1, "a", 1, 1, {"create": " " * 49153}], "too_large")
refused("claims_equal", [3, 1, 1, "a", 1, 1, {"claims": [5, 1, 0, 5, 2, 0]}], "invalid_request")
refused("claims_falling", [3, 1, 1, "a", 1, 1, {"claims": [5, 1, 0, 4, 2, 0]}], "invalid_request")
refused("claims_tag_0", [3, 1, 1, "a", 1, 1, {"claims": [0, 1, 0]}], "invalid_request")
refused("replay_filter_32769", [10, 1, "a", {"from_seq": 1, "filter": " " * 32769}], "too_large")
refused("replay_rate_above", [10, 1, "a", {"from_seq": 1, "rate": 1000001}], "invalid_request")
refused("redrive_filter_32769", [11, 1, "a", {"filter": " " * 32769}], "too_large")
refused("redrive_rate_above", [11, 1, "a", {"rate": 1000001}], "invalid_request")
refused("redrive_name", [11, 1, "", {}], "invalid_request")
refused("wait_job_empty", [17, 1, ""], "invalid_request")
refused("wait_job_1025", [17, 1, "j" * 1025], "too_large")
refused("wait_types_17", [17, 1, "a", {"types": ["t"] * 17}], "limit_exceeded")
refused("wait_type_257", [17, 1, "a", {"types": ["t" * 257]}], "too_large")
refused("wait_type_empty", [17, 1, "a", {"types": ["t", ""]}], "invalid_request")
refused("wait_timeout_above", [17, 1, "a", {"timeout_ms": 600001}], "invalid_request")
refused("publish_none", [9, 1, []], "invalid_request")
refused("publish_1025", [9, 1, [event()] * 1025], "limit_exceeded")
refused("type_257", [9, 1, [event(type="t" * 257)]], "too_large")
refused("subject_1025", [9, 1, [event(subject="t" * 1025)]], "too_large")
refused("id_257", [9, 1, [event(id="t" * 257)]], "too_large")
refused("content_type_257", [9, 1, [event(content_type="t" * 257)]], "too_large")
refused("metadata_16385", [9, 1, [event(metadata="t" * 16385)]], "too_large")
refused("hello_name_65", [1, 1, {"name": "n" * 65}], "too_large")
refused("hello_resume_65", [1, 1, {"resume": "r" * 65}], "too_large")

path = pathlib.Path(__file__).with_name("frames.json")
path.write_text("[\n" + ",\n".join(json.dumps(r) for r in ROWS) + "\n]\n")

path.with_name("auth.json").write_text(json.dumps(AUTH, indent=2) + "\n")

# The same frames, without their length, are the seeds of tests/fuzz/fuzz_frame.c.
seeds = path.parent.parent / "fuzz" / "corpus" / "frame"
seeds.mkdir(parents=True, exist_ok=True)
for row in ROWS:
    if len(row["hex"]) < 2 * 1024:
        (seeds / row["name"]).write_bytes(bytes.fromhex(row["hex"])[4:])
print(f"{path}: {len(ROWS)} frames")
