"""The tree keeps the rules, and each rule can fail."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import tidy  # noqa: E402

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("rule", tidy.RULES, ids=lambda r: r.__name__)
def test_this_tree(rule):
    complaints = list(rule(REPO))
    assert not complaints, "\n" + "\n".join(complaints)


def test_the_tree_is_really_read():
    assert len(list(tidy.c_files(REPO))) > 30


def in_function(lines):
    return "static void f(void) {\n" + "    g();\n" * lines + "}\n"


# rule, file, content, part of the complaint
BROKEN = [
    ("layers", "broker/engine/a.c", "#include <uv.h>\n", "uv.h"),
    ("layers", "broker/engine/a.c", "#include <time.h>\n", "pure"),
    ("layers", "broker/engine/a.c", "#include <lmdb.h>\n", "lmdb.h"),
    ("layers", "broker/engine/a.c", '#include "broker/net/loop.h"\n', "must not"),
    ("layers", "broker/engine/a.c", '#include "proto/frame.h"\n', "must not"),
    ("layers", "broker/http/a.c", '#include "broker/engine/engine.h"\n', "must not"),
    ("layers", "broker/net/a.c", '#include "broker/engine/engine.h"\n', "must not"),
    ("layers", "broker/ingest/a.c", '#include "broker/engine/state.h"\n', "must not"),
    ("layers", "broker/workers/a.c", '#include "broker/http/server.h"\n', "must not"),
    ("layers", "broker/workers/a.c", "#  include <uv.h>\n", "uv.h"),
    ("layers", "storage/a.c", '#include "broker/engine/engine.h"\n', "must not"),
    ("layers", "storage/record.c", "#include <lmdb.h>\n", "lmdb.h"),
    ("layers", "base/a.c", '#include "proto/limits.h"\n', "must not"),
    ("layers", "proto/a.c", '#include "storage/store.h"\n', "must not"),
    ("layers", "proto/other.c", "#include <msgpack.h>\n", "msgpack.h"),
    ("layers", "broker/admin/a.c", "#include <llhttp.h>\n", "llhttp.h"),
    ("layers", "broker/ingest/a.c", "#include <jansson.h>\n", "jansson.h"),
    ("layers", "broker/ingest/a.c", "#include <yajl/yajl_parse.h>\n", "yajl"),
    ("layers", "broker/ingest/a.c", "#include <openssl/ssl.h>\n", "ssl.h"),
    ("layers", "broker/admin/a.c", "#include <curl/curl.h>\n", "curl"),
    ("layers", "clients/c/a.c", '#include "broker/net/loop.h"\n', "must not"),
    ("layers", "clients/cli/a.c", '#include "clients/c/internal.h"\n', "must not"),
    ("links", "CMakeLists.txt", "layer(engine broker/engine base PkgConfig::UV)\n", "engine"),
    ("links", "CMakeLists.txt", "layer(http broker/http net engine)\n", "http"),
    ("banned", "base/a.c", "    strcpy(a, b);\n", "strcpy"),
    ("banned", "base/a.c", "    sprintf (a, b);\n", "sprintf"),
    ("banned", "base/a.c", "    int n = atoi(a);\n", "atoi"),
    ("banned", "base/a.c", "    char *p = alloca(n);\n", "alloca"),
    ("banned", "broker/http/a.c", "    llhttp_set_lenient_headers(p, 1);\n", "lenient"),
    ("banned_in_product", "clients/cli/a.c", "    if (sscanf(text, \"%d\", &n) != 1) return;\n", "sscanf"),
    ("banned", "bench/a.c", "    struct tm *t = localtime(&now);\n", "localtime"),
    ("banned_in_product", "broker/net/a.c", "    int n = rand();\n", "rand"),
    ("banned_in_product", "base/a.c", "    assert(n > 0);\n", "assert"),
    ("banned_in_product", "broker/http/a.c", "    char *p = malloc(n);\n", "malloc"),
    ("banned_in_product", "clients/c/a.c", "    srandom(1);\n", "srandom"),
    ("pure_calls", "broker/engine/a.c", "    fprintf(out, text);\n", "fprintf"),
    ("pure_calls", "broker/engine/a.c", "    printf(text);\n", "printf"),
    ("pure_calls", "broker/engine/a.c", "    log_info(text);\n", "log_info"),
    ("pure_calls", "storage/record.c", "    if (errno != 0) return;\n", "errno"),
    ("pure_calls", "broker/json/a.c", "    char *p = getenv(name);\n", "getenv"),
    ("sizes", "base/a.c", "int a;\n" * 801, "801 lines"),
    ("sizes", "base/a.c", in_function(95), "a function of"),
    ("layout", "base/a.c", "int\ta;\n", "tab"),
    ("layout", "base/a.c", "int a; " + "b" * 100 + "\n", "columns"),
    ("layout", "base/a.c", "int a; \n", "blanks"),
    ("layout", "base/a.c", "int a;", "line end"),
    ("markers", "docs/a.md", "TO" "DO: later\n", "marker"),
    ("markers", "base/a.c", "/* FIX" "ME */\n", "marker"),
    ("dead_code", "base/a.c", "#if 0\nint a;\n#endif\n", "not compiled"),
    ("dead_code", "base/a.c", "    // count = 0;\n", "not compiled"),
    ("dead_code", "base/a.c", "    /* buf_free(&b); */\n", "not compiled"),
    ("dead_code", "base/a.c", "    // if (n > 0) {\n", "not compiled"),
    ("dead_code", "base/a.c", "    /* return n; */\n", "not compiled"),
    ("leftovers", "broker/a.c.orig", "", "leftover"),
    ("leftovers", "tests/fuzz/corpus/frame/crash-0123456789abcdef", "", "leftover"),
    ("registered", "tests/unit/test_a.c", "", "unit_test()"),
    ("registered", "tests/fuzz/fuzz_a.c", "", "fuzzer()"),
    ("registered", "tests/fuzz/corpus/a/large", "x" * 65537, "a seed above"),
    ("doc_links", "docs/a.md", "see [it](nothing.md#there)\n", "nothing.md"),
    ("prose", "broker/net/a.h", "/* a.h: sockets. */\n", "too little"),
    ("prose", "broker/net/a.h", "/* a.h: one two three four five six seven eight nine ten. */\n",
     "may call"),
    ("headers", "base/a.h", "#ifndef A\n#define A\n#endif\n", "must open"),
    ("headers", "base/a.h", "/* a.h: nothing. */\n", "guard"),
    ("machine_paths", "docs/a.md", "see /home/ann/notes\n", "/home/"),
    ("machine_paths", "scripts/a", "cd /wo" "rk/main\n", "one machine"),
    ("sleeps", "tests/e2e/test_a.py", "time.sleep(1)\n", "sleep"),
    ("sleeps", "tests/unit/test_a.c", "    usleep(1);\n", "sleep"),
    ("sleeps", "tests/e2e/harness.py", "time.sleep(1)\ntime.sleep(2)\n", ":2:"),
]


@pytest.mark.parametrize("rule,path,text,part", BROKEN,
                         ids=[f"{i}-{b[0]}-{b[3]}" for i, b in enumerate(BROKEN)])
def test_each_rule_fails_where_it_should(tmp_path, rule, path, text, part):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    complaints = list(getattr(tidy, rule)(tmp_path))
    assert len(complaints) == 1 and part in complaints[0], complaints
    assert complaints[0].startswith(path)


ALLOWED = [
    ("broker/engine/a.c", '#include "base/heap.h"\n#include "storage/store.h"\n'
                          '#include "broker/engine/state.h"\n#include <string.h>\n'),
    ("broker/net/a.c", "#include <uv.h>\n#include <openssl/ssl.h>\n"),
    ("storage/lmdb_open.c", "#include <lmdb.h>\n"),
    ("proto/frame_read.c", "#include <msgpack.h>\n"),
    ("base/a.c", '/* strcpy(a, b) */\nconst char *s = "sprintf(x)"; // atoi(x)\n'),
    ("base/b.c", in_function(80)),
    ("base/a.h", "/* a.h: something that is told in a few words, as a header does it. */\n#ifndef A\n#define A\n#endif\n"),
    ("tests/e2e/harness.py", "time.sleep(0.01)\n"),
    ("broker/net/a.h", "/* a.h: sockets and what they say.\n *\n * May call: base, libuv. */\n"
                       "#ifndef A\n#define A\n#endif\n"),
    ("broker/net/a.c", "    p = mem_alloc(n); /* not malloc(n) */\n    abort();\n"),
    ("broker/engine/a.c", "    snprintf(text, size, fmt);\n    free(text);\n"),
    ("clients/c/a.c", "    char *p = strdup(text);\n"),
    ("base/c.c", "/* Gives up when n == 0; then close() is next. */\nint a; /* a = b, mostly */\n"),
    ("clients/c/a.h", "/* a.h: a library whose header shows how it is used; it may call base.\n *\n"
                      " *   client_run(c);\n */\n#ifndef A\n#define A\n#endif\n"),
    ("docs/a.md", "[web](https://example.org/x) [top](#top) [itself](a.md#b) [up](../docs)\n"),
]


@pytest.mark.parametrize("path,text", ALLOWED, ids=[a[0] for a in ALLOWED])
def test_no_rule_complains_about_what_is_right(tmp_path, path, text):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert [c for rule in tidy.RULES for c in rule(tmp_path)] == []
