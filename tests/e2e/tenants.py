"""Projects for tests: one broker, spoken to by keys of several of them.

    red, blue = tenants(broker, "red", "blue")
    red.add_source("src")        # as broker.add_source, with red's key
    red.place("src")             # what its address has behind /in/

A tenant is the broker seen with another key; the broker itself has one of the operator's.
"""

import json

from bhp import Client
from harness import Broker


class Tenant(Broker):
    def __init__(self, broker, project, key):
        self.broker, self.project, self.key = broker, project, key

    def __getattr__(self, name):  # what is not here is the broker's: ports change with a restart
        return getattr(self.__dict__["broker"], name)

    def place(self, name):
        return name if self.project == "default" else f"{self.project}/{name}"

    def make_key(self, *scopes, **fields):
        return self.broker.ok("POST", "/v1/keys", {"name": "k", "scopes": list(scopes) or ["admin"],
                                                   "project": self.project, **fields})["key"]

    def take(self, source, secret, body, **options):
        """A signed webhook to the project's own source of this name: (status, answer)."""
        return self.post_signed(self.place(source), secret, body, **options)

    def ask(self, method, path, body=None):
        """(status, the headers that say something, text)."""
        data = None if body is None else json.dumps(body).encode()
        status, headers, text = self.request(method, path, data)
        said = {name: headers.get(name) for name in ("Content-Type", "Allow", "Retry-After",
                                                     "WWW-Authenticate")}
        return status, said, text.decode()

    def refused(self, method, path, body=None):
        """(status, code, message) of a request that is not answered 2xx."""
        status, _, text = self.ask(method, path, body)
        error = json.loads(text)["error"]
        return status, error["code"], error["message"]

    def worker(self, **options):
        return Client(self.workers_port, key=self.key, **options)

    def types(self):
        return [e["type"] for e in self.events()]


def operator(broker):
    """The broker with a key of the default project, which is made when there is none."""
    if broker.key is None:
        broker.key = broker.ok("POST", "/v1/keys", {"name": "op", "scopes": ["admin"]})["key"]
    return Tenant(broker, "default", broker.key)


def tenants(broker, *names):
    operator(broker)
    made = []
    for name in names:
        broker.ok("POST", "/v1/projects", {"name": name})
        tenant = Tenant(broker, name, None)
        tenant.key = tenant.make_key()
        made.append(tenant)
    return made


def expect_unknown(mine, other, path, method="GET", body=None, name="none-such"):
    """The answer for `other` is the one for what never existed, byte for byte but for the name.
    `path` has a {} for it, `name` is of what there is not."""
    def ask(named):
        status, headers, text = mine.request(method, path.format(named), body,
                                             {"Content-Type": "application/json"})
        for changing in ("Date", "Content-Length"):
            headers.pop(changing, None)
        return status, headers, text.decode()

    status, headers, text = ask(name)
    assert status == 404, (method, path, status, text)
    assert ask(other) == (status, headers, text.replace(name, other)), (method, path)
