"""bellhop source: what an operator does with doors."""

import pytest
from clitools import cli, cli_json
from harness import make_secret, signed_headers
from providers import PUBLIC_URL, TOKEN, github, post, stripe


def header_args(headers):
    return [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]


def test_add_show_update(broker):
    cli(broker, "source", "add", "calls", "--scheme", "twilio", "--secret", TOKEN,
        "--set", f"public_url={PUBLIC_URL}", "--set", "dedupe_ms=5000")
    [shown] = cli_json(broker, "source", "show", "calls", "--json")
    assert shown["options"] == {"public_url": PUBLIC_URL, "dedupe_ms": 5000}
    text = cli(broker, "source", "show", "calls").stdout
    assert "source calls (twilio)" in text and "public_url" in text and TOKEN not in text
    cli(broker, "source", "update", "calls", "--set", "dedupe_ms=0")
    [shown] = cli_json(broker, "source", "show", "calls", "--json")
    assert shown["options"] == {"public_url": PUBLIC_URL}


def test_rotate(broker):
    old, new = make_secret("a"), make_secret("b")
    cli(broker, "source", "add", "src", "--secret", old)
    text = cli(broker, "source", "update", "src", "--add-secret", new,
               "--expire-previous", "24h").stdout
    assert "updated source src" in text
    for i, secret in enumerate((old, new)):
        assert post(broker, b"{}", signed_headers(secret, b"{}")) == (200, {"seq": i + 1})
    assert "expire_time" in cli(broker, "source", "show", "src").stdout


def test_test(broker):
    cli(broker, "source", "add", "gh", "--scheme", "github", "--secret", TOKEN)
    body = b'{"action":"opened"}\n'
    (broker.directory / "body.json").write_bytes(body)
    headers = github(body, event="issues")
    good = cli(broker, "source", "test", "gh", "--body", "body.json", *header_args(headers)).stdout
    assert good.startswith("verified by secrets[0]\n") and "issues.opened" in good
    [looked] = cli_json(broker, "source", "test", "gh", "--json", "--body", "body.json",
                        *header_args(headers))
    assert looked["event"]["id"] == headers["x-github-delivery"]
    bad = cli(broker, "source", "test", "gh", *header_args(headers), code=1).stdout
    assert bad.startswith("refused (signature_mismatch): ")
    assert broker.events() == []


def test_test_with_the_time_it_came(broker):
    cli(broker, "source", "add", "pay", "--scheme", "stripe", "--secret", TOKEN)
    (broker.directory / "body.json").write_bytes(b"{}")
    saved = ["source", "test", "pay", "--body", "body.json",
             *header_args(stripe(b"{}", timestamp=1700000000))]
    assert "timestamp_too_old" in cli(broker, *saved, code=1).stdout
    assert "verified" in cli(broker, *saved, "--at", "2023-11-14T22:13:20Z").stdout


@pytest.mark.parametrize("words,said", [
    (["update", "x"], "nothing to change"), (["update", "x", "--set", "nokey"], "KEY=VALUE"),
    (["update", "x", "--set", "=v"], "KEY=VALUE"), (["update", "x", "--set", "dedupe_ms=1h"], "dedupe_ms"),
    (["update", "x", "--set", "jwks_allow_http=yes"], "true or false"),
    (["test", "x", "--header", "none"], "NAME: VALUE"), (["test", ".x"], "no name of a source"),
    (["update", "x", "--expire-previous", "soon"], "--expire-previous"),
])
def test_words_that_are_wrong(broker, words, said):
    assert said in cli(broker, "source", *words, code=64).stderr
