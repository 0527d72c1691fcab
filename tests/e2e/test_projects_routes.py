"""Every route, asked with a name of another project: the answer is that to a name of nobody."""

import datetime
import re
from pathlib import Path

import pytest
from bhp import REJECT
from tenants import Tenant, operator as operator_of, tenants

ADMIN_C = Path(__file__).resolve().parents[2] / "broker" / "admin" / "admin.c"
JSON_ROUTE = re.compile(r'\{"([A-Z]+)",\s*"([^"]+)",\s*(\w+),\s*(NULL|"[^"]*"),\s*(\w+),'
                        r'\s*([A-Z_ |]+),\s*([A-Z_]+)\}')


def id_of(key):
    return key.split("_")[1]


@pytest.fixture
def three(broker):
    """The operator and two tenants."""
    return [operator_of(broker), *tenants(broker, "a", "b")]


class World:
    """Things of one project that another one asks for, and as many that nobody has. No name of
    those who ask lies between the two, so that a list goes on from the same place."""

    def __init__(self, a, b):
        a.add_subscription("a-sub", start="first")
        self.seq = a.publish("t", subject="a-job")
        a.ok("PUT", "/v1/jobs/a-job", {})
        with a.worker() as worker:
            worker.subscribe("a-sub")
            worker.nack([worker.take_one()], REJECT)
        a.ok("POST", "/v1/sources", {"name": "a-src", "scheme": "none"})
        webhook = a.ok("POST", "/v1/webhooks", {"uri": "https://example.invalid/w", "name": "a-hook",
                                                "subscribed_events": ["never"]})
        # Nobody is attached: it waits.
        task = a.ok("POST", "/v1/replays", {"subscription": "a-sub", "from_seq": 1})
        b.add_subscription("b-sub")
        created = str(json_time_ms(webhook["create_time"]))
        self.theirs = {"sub": "a-sub", "src": "a-src", "hook": webhook["id"], "task": str(task["id"]),
                       "seq": str(self.seq), "job": "a-job", "key": id_of(a.key), "project": "a",
                       "created": created, "own": "b-sub"}
        self.nobodys = {"sub": "a-nil", "src": "a-nul", "hook": "0" * 36, "task": "9999999",
                        "seq": "8888888", "job": "a-nob", "key": "0" * 12, "project": "z",
                        "created": created, "own": "b-sub"}
        # What no answer to b may hold.
        self.secrets = ["a-sub", "a-src", "a-job", "a-hook", webhook["id"], id_of(a.key)]


def json_time_ms(text):
    when = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    return round(when.timestamp() * 1000)


def forget(text, names):
    """The answer without the names that were asked for, where a message quotes them."""
    for kind, name in names.items():
        if kind != "own":
            text = re.sub(rf'(\\"|/|webhook\.|seq |replay ){name}(?![\w-])', r'\1NAME', text)
    return text


OPEN = "open"  # no key, and it names nothing
BROKER = "broker"  # the operator's: 403 for every other project
NEW = "new"  # makes something under a name of its own project: test_the_same_names and the like
# Requests with names of another project, each with the status that a name of nobody has.
ROUTES = {
    "POST /v1/events": NEW,
    "GET /v1/events": [(200, "/v1/events?page_token=e1-{seq}&subject={job}", None),
                       (200, "/v1/events?from_seq=1&source={src}", None)],
    "GET /v1/events/*": [(404, "/v1/events/{seq}", None)],
    "POST /v1/sources": NEW,
    "GET /v1/sources": [(200, "/v1/sources?page_token=s1-{src}", None)],
    "GET /v1/sources/*": [(404, "/v1/sources/{src}", None)],
    "PATCH /v1/sources/*": [(404, "/v1/sources/{src}", {"options": {}})],
    "DELETE /v1/sources/*": [(404, "/v1/sources/{src}", None)],
    "POST /v1/sources/*:test": [(404, "/v1/sources/{src}:test", {"headers": {}, "body": ""})],
    "POST /v1/subscriptions": NEW,
    "GET /v1/subscriptions": [(200, "/v1/subscriptions?page_token=n1-{sub}", None)],
    "GET /v1/subscriptions/*": [(404, "/v1/subscriptions/{sub}", None),
                                (404, "/v1/subscriptions/webhook.{hook}", None)],
    "PATCH /v1/subscriptions/*": [(404, "/v1/subscriptions/{sub}", {"lease_ms": 7000})],
    "DELETE /v1/subscriptions/*": [(404, "/v1/subscriptions/{sub}", None)],
    "POST /v1/subscriptions/*:pause": [(404, "/v1/subscriptions/{sub}:pause", None)],
    "POST /v1/subscriptions/*:resume": [(404, "/v1/subscriptions/{sub}:resume", None)],
    "POST /v1/subscriptions/*:seek": [(404, "/v1/subscriptions/{sub}:seek", {"to": "first"})],
    "GET /v1/dead-letters": [(404, "/v1/dead-letters?subscription={sub}", None),
                             (200, "/v1/dead-letters?subscription={own}&page_token=d1-{seq}-0", None)],
    "GET /v1/dead-letters/*/*": [(404, "/v1/dead-letters/{sub}/{seq}", None),
                                 (404, "/v1/dead-letters/{own}/{seq}", None),
                                 (404, "/v1/dead-letters/{own}/{seq}?replay={task}", None)],
    "POST /v1/dead-letters:redrive": [(404, "/v1/dead-letters:redrive", {"subscription": "{sub}"})],
    "POST /v1/dead-letters:purge": [(404, "/v1/dead-letters:purge", {"subscription": "{sub}"})],
    "POST /v1/replays": [(404, "/v1/replays", {"subscription": "{sub}", "from_seq": 1})],
    "GET /v1/replays": [(200, "/v1/replays?page_token=r1-{task}", None)],
    "GET /v1/replays/*": [(404, "/v1/replays/{task}", None)],
    "POST /v1/replays/*:cancel": [(404, "/v1/replays/{task}:cancel", None)],
    "GET /v1/retention": BROKER,
    "PATCH /v1/retention": BROKER,
    "GET /v1/status": [(200, "/v1/status", None)],
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "POST /v1/webhooks": NEW,
    "GET /v1/webhooks": [(200, "/v1/webhooks?page_token=w1-{created}-{hook}", None)],
    "GET /v1/webhooks/*": [(404, "/v1/webhooks/{hook}", None), (404, "/v1beta/webhooks/{hook}", None)],
    "PATCH /v1/webhooks/*": [(404, "/v1/webhooks/{hook}", {"name": "stolen"}),
                             (404, "/v1beta/webhooks/{hook}?updateMask=name", {"name": "stolen"})],
    "DELETE /v1/webhooks/*": [(404, "/v1/webhooks/{hook}", None)],
    "POST /v1/webhooks/*:ping": [(404, "/v1/webhooks/{hook}:ping", None)],
    "POST /v1/webhooks/*:rotateSigningSecret": [(404, "/v1/webhooks/{hook}:rotateSigningSecret", {})],
    "POST /v1/webhooks/*/rotate_secret": [(404, "/v1/webhooks/{hook}/rotate_secret", {})],
    "POST /v1/webhooks/*:pause": [(404, "/v1/webhooks/{hook}:pause", None)],
    "POST /v1/webhooks/*:resume": [(404, "/v1/webhooks/{hook}:resume", None)],
    "POST /v1/webhooks/*:resend": [(404, "/v1/webhooks/{hook}:resend", {"seq": 1})],
    "POST /v1/webhooks/*:recover": [(404, "/v1/webhooks/{hook}:recover",
                                     {"since": "2026-01-01T00:00:00Z"})],
    "GET /v1/webhooks/*/attempts": [(404, "/v1/webhooks/{hook}/attempts", None)],
    "GET /v1/webhook-endpoints": BROKER,
    "GET /.well-known/jwks.json": OPEN,
    "GET /v1/webhook-keys": BROKER,
    "POST /v1/webhook-keys:rotate": BROKER,
    "GET /v1/event-types": [(200, "/v1/event-types", None)],
    "PUT /v1/jobs/**": NEW,
    "GET /v1/jobs/**": [(404, "/v1/jobs/{job}", None)],
    "GET /v1/jobs/**:wait": [(404, "/v1/jobs/{job}:wait?timeout=0", None)],
    "POST /v1/keys": [(404, "/v1/keys", {"name": "k", "scopes": ["publish"], "project": "{project}"})],
    "GET /v1/keys": [(400, "/v1/keys?page_token=k1-{key}", None),
                     (404, "/v1/keys?project={project}", None)],
    "GET /v1/keys/*": [(404, "/v1/keys/{key}", None)],
    "PATCH /v1/keys/*": [(404, "/v1/keys/{key}", {"name": "stolen"})],
    "DELETE /v1/keys/*": [(404, "/v1/keys/{key}", None), (404, "/v1/keys/{key}?force=yes", None)],
    "POST /v1/projects": BROKER,
    "GET /v1/projects": BROKER,
    "GET /v1/projects/*": BROKER,
    "DELETE /v1/projects/*": BROKER,
}


def routes_of_the_broker():
    """Every row of the table of routes: {"GET /v1/events/*": (scopes, touch)}."""
    text = ADMIN_C.read_text()
    table = text[text.index("static const struct route_row routes[] = {"):text.index("#define ROUTES")]
    rows = {}
    for method, path, segments, verb, _, scopes, touch in JSON_ROUTE.findall(table):
        tail = "/**" if segments == "SEGMENTS_REST" else "/*" * int(segments)
        verb = "" if verb == "NULL" else verb.strip('"')
        rows[f"{method} {path}{tail}{verb if verb.startswith('/') or not verb else ':' + verb}"] = (scopes, touch)
    assert len(rows) == table.count("{\""), "a row that this test cannot read"
    return rows


def fill(template, names):
    if isinstance(template, dict):
        return {k: fill(v, names) for k, v in template.items()}
    if not isinstance(template, str):
        return template
    for name, value in names.items():
        template = template.replace("{" + name + "}", value)
    return template


def test_every_route_has_its_line():
    rows = routes_of_the_broker()
    assert set(rows) == set(ROUTES), "a route of broker/admin/admin.c without a line in ROUTES, or the other way"
    for route, (scopes, touch) in rows.items():
        assert (touch == "TOUCHES_BROKER") == (ROUTES[route] == BROKER), route
        assert (scopes == "OPEN") == (ROUTES[route] == OPEN), route


def test_what_is_anothers_is_not_there(three):
    """Each route, asked with a name of a's and with one of nobody's: b's key gets the same answer."""
    _, a, b = three
    world = World(a, b)
    before = picture(a)
    asked = 0
    for route, cases in ROUTES.items():
        if isinstance(cases, str):
            continue
        method = route.split(" ")[0]
        for status, path, body in cases:
            theirs = b.ask(method, fill(path, world.theirs), fill(body, world.theirs))
            nobodys = b.ask(method, fill(path, world.nobodys), fill(body, world.nobodys))
            assert theirs[0] == status, (route, path, theirs)
            assert nobodys[0] == status, (route, path, nobodys)
            if "uptime_ms" in theirs[2]:
                theirs, nobodys = [(s, h, re.sub(r'"uptime_ms":\d+', "", t)) for s, h, t in (theirs, nobodys)]
            assert theirs[1] == nobodys[1], (route, path)
            assert forget(theirs[2], world.theirs) == forget(nobodys[2], world.nobodys), (route, path)
            asked += 1
            if status == 200:
                for name in world.secrets:
                    assert name not in theirs[2], (route, name)
    assert asked > 45
    assert picture(a) == before, "b has changed something of a's"


def picture(project):
    """All that is shown of a project, without what time alone changes."""
    passing = re.compile(r'"(uptime_ms|oldest_ms|in_per_s|out_per_s|last_used_day)":[^,}]*,?')
    paths = ["/v1/subscriptions", "/v1/sources", "/v1/webhooks", "/v1/replays", "/v1/keys", "/v1/events",
             "/v1/jobs/a-job", "/v1/dead-letters?subscription=a-sub", "/v1/status"]
    return [passing.sub("", project.ask("GET", path)[2]) for path in paths]


def test_what_is_the_brokers_is_the_operators(broker, three):
    operator, a, b = three
    for route, cases in ROUTES.items():
        if cases != BROKER:
            continue
        method, path = route.split(" ")
        path = path.replace("/*", "/a")
        for scope in ("admin", "manage"):
            key = Tenant(broker, "a", None).make_key(scope)
            status, code, message = Tenant(broker, "a", key).refused(method, path, None if method == "GET" else {})
            assert (status, code) == (403, "permission_denied"), (route, message)
            if scope == "admin":
                assert f"a key of the project default, and {id_of(key)} is of another one" in message
    for path in ("/v1/retention", "/v1/webhook-keys", "/v1/webhook-endpoints", "/v1/projects"):
        assert operator.ask("GET", path)[0] == 200
    # What is held open to all, and the head of a request with a body, say nothing either.
    with broker.raw_http() as raw:
        raw.send(f"POST /v1/projects HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {b.key}\r\n"
                 "Content-Length: 12\r\n\r\n{\"name\":\"x\"}".encode())
        assert raw.response()[0] == 403
    assert operator.api("GET", "/v1/projects/x")[0] == 404
