"""A URI that somebody else wrote does not reach this machine or its network: literal addresses are
refused when they are given, names when they are connected to, whatever a resolver says in between.

Names have the addresses that a test gives them (resolve.c, preloaded into the broker).
"""

import subprocess

import pytest
from harness import BUILD, DEADLINE_S, broker_env, wait_for
from receiver import redirect

FAST = ("--webhook-timeout", "2s", "--webhook-backoff-min", "50ms", "--webhook-backoff-max",
        "200ms")
# Of the addresses of this machine only this one may be reached.
GOOD = "127.0.0.2"
ALLOW_GOOD = ("--webhook-allow", GOOD + "/32")


@pytest.fixture
def resolving(brokers, tmp_path):
    """Makes brokers with a resolver of their own: resolving({"name": ["ADDRESS ...", ...]})."""
    library = BUILD / "tests" / "resolve.so"
    assert library.exists(), f"{library} is not there: build everything first"

    def make(answers, *args):
        broker = brokers(*FAST, *args, start=False)
        broker.answers, broker.lookups = tmp_path / "answers", tmp_path / "lookups"
        broker.answers.write_text("".join(f"{name} {line}\n" for name, lines in answers.items()
                                          for line in lines))
        broker.lookups.touch()
        options = broker_env()["ASAN_OPTIONS"] + ":verify_asan_link_order=0"
        broker.env = {"LD_PRELOAD": str(library), "RESOLVE_ANSWERS": str(broker.answers),
                      "RESOLVE_LOG": str(broker.lookups), "ASAN_OPTIONS": options}
        return broker.start()

    return make


def failure(broker, hook):
    return broker.wait_attempts(hook["id"], bool)[-1]


# -- when a URI is given --

FORBIDDEN = [
    ("http://127.0.0.1/", "127.0.0.0/8"), ("http://127.8.8.8:8080/x", "127.0.0.0/8"),
    ("https://10.1.2.3/", "10.0.0.0/8"), ("http://172.31.255.255/", "172.16.0.0/12"),
    ("http://192.168.1.1/", "192.168.0.0/16"), ("http://169.254.169.254/", "169.254.0.0/16"),
    ("http://100.64.0.1/", "100.64.0.0/10"), ("http://0.0.0.0/", "0.0.0.0"),
    ("http://203.0.113.9/", "203.0.113.0/24"), ("http://255.255.255.255/", "255.255.255.255"),
    ("http://[::1]/", "::1"), ("http://[::]/", "::"), ("http://[fd00::1]/", "fc00::/7"),
    ("http://[fe80::1]/", "fe80::/10"), ("http://[::ffff:127.0.0.1]/", "127.0.0.0/8"),
    ("http://[::ffff:a00:1]/", "10.0.0.0/8"), ("http://[64:ff9b::7f00:1]/", "64:ff9b::/96"),
    ("http://[2002:7f00:1::]/", "2002::/16"), ("http://127.1/", ""), ("http://0x7f.1/", ""),
    ("http://2130706433/", ""), ("http://017700000001/", ""), ("http://localhost/", ""),
    ("http://a.localhost:8080/", ""), ("http://LOCALHOST./", ""), ("http://127.0.0.1./", ""),
    ("http://example.com:25/", "25"), ("http://user@example.com/", "user"),
    ("http://example.com/#x", ""), ("http://exa mple.com/", ""), ("http://", ""),
    ("file:///etc/passwd", "file"), ("http://example.com\r\nX: y/", ""), ("//example.com/", ""),
    ("http://%31%32%37.0.0.1/", ""),
]


def test_forbidden_literals_are_refused(broker):
    for uri, word in FORBIDDEN:
        config = {"webhook_config": {"uris": [uri]}}
        for method, path, body in (
                ("POST", "/v1/webhooks", {"uri": uri, "subscribed_events": ["*"]}),
                ("POST", "/v1/events", {"type": "t", **config}), ("PUT", "/v1/jobs/j", config)):
            status, answer = broker.api(method, path, body)
            assert (status, answer["error"]["code"]) == (400, "invalid_request"), (uri, answer)
            message = answer["error"]["message"]
            assert "uri" in message and word in message, (uri, message)
    assert broker.ok("GET", "/v1/webhooks") == {"webhooks": []} and broker.events() == []
    hook = broker.add_webhook("https://example.com/hook")
    status, answer = broker.api("PATCH", f"/v1/webhooks/{hook['id']}", {"uri": "http://127.0.0.1/"})
    assert status == 400 and "127.0.0.1 is loopback (127.0.0.0/8)" in answer["error"]["message"]
    assert broker.webhook(hook["id"])["uri"] == "https://example.com/hook"


def test_what_is_allowed_is_allowed(brokers):
    broker = brokers("--webhook-allow", "127.0.0.0/8,10.1.0.0/16", "--webhook-allow", "::1/128")
    for uri in ("http://127.0.0.1:25/", "http://localhost:9/", "http://10.1.2.3/",
                "http://[::1]:9/"):
        broker.add_webhook(uri)
    for uri in ("http://10.2.0.1/", "http://[fd00::1]/"):
        body = {"uri": uri, "subscribed_events": ["*"]}
        assert broker.api("POST", "/v1/webhooks", body)[0] == 400, uri


def test_the_allow_list_in_the_configuration_file(brokers, receiver):
    broker = brokers(config="webhook_allow: 127.0.0.0/8, ::1/128\nwebhook_timeout: 2s\n")
    broker.add_webhook(receiver.url("/hook"))
    broker.publish()
    receiver.wait(1, "/hook")


@pytest.mark.parametrize("block", ["10.0.0.0/40", "10.0.0.0.0/8", "example.com", "10.0.0.1/8x"])
def test_an_allow_list_that_cannot_be_read(tmp_path, block):
    done = subprocess.run([str(BUILD / "bellhopd"), "--data", str(tmp_path / "data"), "--http",
                           "127.0.0.1:0", "--workers", "127.0.0.1:0", "--webhook-allow",
                           "127.0.0.0/8," + block], env=broker_env(), capture_output=True, text=True,
                          timeout=DEADLINE_S)
    assert done.returncode == 1 and block in done.stderr and "10.0.0.0/8" in done.stderr


def test_https_only(brokers, receiver):
    broker = brokers("--webhook-allow", "127.0.0.0/8", "--webhook-https-only", "yes")
    status, answer = broker.api("POST", "/v1/webhooks", {"uri": receiver.url("/hook"),
                                                         "subscribed_events": ["*"]})
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert "https" in answer["error"]["message"]
    broker.add_webhook("https://127.0.0.1:9/hook")


def test_https_only_counts_for_what_was_taken_before(brokers, receiver):
    broker = brokers("--webhook-allow", "127.0.0.0/8", *FAST)
    hook = broker.add_webhook(receiver.url("/hook"))
    broker.publish(webhook_config={"uris": [receiver.url("/dynamic")]}, deliver_after_ms=500)
    broker.stop()
    broker.args += ["--webhook-https-only", "yes"]
    broker.start()
    broker.publish()
    failed = failure(broker, hook)
    assert failed["ok"] is False and "https" in failed["detail"]
    dead = wait_for(lambda: broker.dead_letters("webhook.dynamic.0"))
    assert dead[0]["reason"] == "rejected" and "https" in dead[0]["error"]["message"]
    assert receiver.connections == 0


# -- when it is connected to --

HIDDEN = {"loop.test": ("127.0.0.1", "127.0.0.0/8"), "any.test": ("0.0.0.0", "0.0.0.0"),
          "six.test": ("::1", "::1"), "mapped.test": ("::ffff:127.0.0.1", "127.0.0.0/8"),
          "private.test": ("10.255.255.1", "10.0.0.0/8"),
          "metadata.test": ("169.254.169.254", "169.254.0.0/16"),
          "both.test": ("127.0.0.1 ::1 10.0.0.1", "")}


def test_names_of_forbidden_addresses(resolving, receivers):
    four = receivers()
    six = receivers(host="::1", port=four.port)
    broker = resolving({name: [address] for name, (address, _) in HIDDEN.items()})
    hooks = {name: broker.add_webhook(f"http://{name}:{four.port}/hook") for name in HIDDEN}
    broker.publish()
    broker.publish(webhook_config={"uris": [f"http://loop.test:{four.port}/dynamic"]})
    for name, (address, word) in HIDDEN.items():
        failed = failure(broker, hooks[name])
        assert (failed["ok"], failed.get("error")) == (False, "forbidden_address"), (name, failed)
        assert word in failed["detail"], failed
        if " " not in address and name != "mapped.test":
            assert address in failed["detail"]
        stats = broker.webhook(hooks[name]["id"])["stats"]
        assert stats["delivered"] == 0 and stats["internal_errors"] == 0
    wait_for(lambda: sum(e["failed"] for e in
                         broker.ok("GET", "/v1/webhook-endpoints")["endpoints"]) > 0)
    assert four.connections == six.connections == 0
    assert "loop.test 127.0.0.1\n" in broker.lookups.read_text()


def test_an_answer_that_changes_after_the_check(resolving, receivers):
    """Whoever resolves once to check and once more to connect ends up at the second address."""
    good = receivers(host=GOOD)
    evil = receivers(host="127.0.0.1", port=good.port)
    broker = resolving({"rebind.test": [GOOD, "127.0.0.1"], "back.test": ["127.0.0.1", GOOD]},
                       *ALLOW_GOOD)
    uri = f"http://rebind.test:{good.port}/hook"
    hook = broker.add_webhook(uri)
    back = broker.add_webhook(f"http://back.test:{good.port}/back")
    broker.publish()
    good.wait(1, "/hook")
    assert good.requests("/hook")[0].headers["host"] == f"rebind.test:{good.port}"
    assert failure(broker, back)["error"] == "forbidden_address"
    assert evil.connections == 0
    # Another process asks again, and is told the other address from the start.
    broker.stop()
    broker.answers.write_text("rebind.test 127.0.0.1\n")
    broker.start()
    good.close()
    broker.publish()
    failed = broker.wait_attempts(hook["id"], lambda a: any(not x["ok"] for x in a))
    assert [x["error"] for x in failed if not x["ok"]][-1] == "forbidden_address"
    assert evil.connections == 0


def test_of_several_addresses_the_good_one_is_taken(resolving, receivers):
    good = receivers(host=GOOD)
    evil = receivers(host="127.0.0.1", port=good.port)
    broker = resolving({"a.test": [f"127.0.0.1 {GOOD}"], "b.test": [f"{GOOD} 127.0.0.1"],
                        "c.test": [f"::1 10.0.0.1 {GOOD}"]}, *ALLOW_GOOD)
    for name in "abc":
        broker.add_webhook(f"http://{name}.test:{good.port}/{name}")
    broker.publish()
    for name in "abc":
        good.wait(1, "/" + name)
    # The next one after it is not tried either when the good one does not answer.
    evil_port = good.port
    good.close()
    hook = broker.add_webhook(f"http://b.test:{evil_port}/late")
    broker.publish()
    assert failure(broker, hook)["ok"] is False
    assert evil.connections == 0


def test_a_name_without_an_address(resolving):
    broker = resolving({"none.test": ["-"]})
    hook = broker.add_webhook("http://none.test/hook")
    broker.publish()
    failed = failure(broker, hook)
    assert (failed["ok"], failed.get("error")) == (False, "dns") and "none.test" in failed["detail"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(brokers, receivers, status):
    good = receivers(host=GOOD)
    evil = receivers(host="127.0.0.1", port=good.port)
    broker = brokers(*FAST, *ALLOW_GOOD)
    good.script("/hook", redirect(evil.url("/secret"), status),
                redirect(good.url("/other"), status))
    hook = broker.add_webhook(good.url("/hook"))
    broker.publish()
    good.wait(2, "/hook")
    failed = broker.wait_attempts(hook["id"], lambda a: len(a) >= 2)
    assert all((f["ok"], f["status"], f["error"]) == (False, status, "status") for f in failed)
    assert evil.connections == 0 and good.count("/other") == 0


def test_no_proxy_of_the_environment_is_used(brokers, receivers):
    good, proxy = receivers(), receivers()
    broker = brokers(*FAST, "--webhook-allow", "127.0.0.0/8", start=False)
    broker.env = {name: proxy.origin for name in ("http_proxy", "HTTP_PROXY", "all_proxy")}
    broker.start()
    broker.add_webhook(good.url("/hook"))
    broker.publish()
    good.wait(1, "/hook")
    assert proxy.connections == 0
