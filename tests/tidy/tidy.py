"""The rules of the house as functions: each takes the root of a tree and returns its complaints as
"path:line: what". test_tidy.py runs them on this repository and on small trees that break them."""

import re
from pathlib import Path

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 90
COLUMNS_MAX = 100
SEED_BYTES_MAX = 64 * 1024
SKIP = {".git", "build", "node_modules", ".cache", "__pycache__", ".pytest_cache", "corpus"}
TEXT = {".c", ".h", ".py", ".sh", ".md", ".txt", ".json", ".mjs", ".yaml", ".yml", ""}

# Directory -> what of our own it may include, as prefixes; its own directory is always allowed.
BROKER_ROOM = ("base/", "proto/", "storage/store.h", "storage/batch.h", "storage/record.h",
               "broker/engine/engine.h", "broker/json/")
MAY_INCLUDE = {
    "base/": (),
    "proto/": ("base/",),
    "storage/": ("base/", "proto/limits.h", "proto/err.h"),
    "broker/engine/": ("base/", "storage/store.h", "storage/batch.h", "storage/record.h",
                       "proto/limits.h", "proto/err.h", "broker/json/"),
    "broker/net/": ("base/", "proto/limits.h", "proto/err.h"),
    "broker/http/": ("base/", "proto/limits.h", "proto/err.h", "broker/net/"),
    "broker/json/": ("base/", "proto/limits.h", "proto/err.h"),
    "broker/signature/": ("base/", "proto/limits.h", "proto/err.h", "broker/json/"),
    "broker/ingest/": (*BROKER_ROOM, "broker/http/server.h", "broker/http/client.h",
                       "broker/http/guard.h", "broker/net/loop.h",
                       "broker/signature/", "broker/auth/projects.h"),
    "broker/auth/": (*BROKER_ROOM, "broker/fields/", "broker/signature/hmac.h"),
    "broker/jobs/": (*BROKER_ROOM, "broker/net/loop.h"),
    "broker/webhooks/": (*BROKER_ROOM, "broker/http/client.h", "broker/http/guard.h",
                         "broker/net/loop.h", "broker/signature/", "broker/fields/",
                         "broker/engine/filter.h", "broker/auth/projects.h"),
    "broker/fields/": BROKER_ROOM,
    "broker/workers/": (*BROKER_ROOM, "broker/net/", "broker/fields/", "broker/jobs/jobs.h",
                        "broker/auth/auth.h"),
    "broker/admin/": (*BROKER_ROOM, "broker/http/server.h", "broker/net/loop.h",
                      "broker/fields/", "broker/ingest/", "broker/workers/workers.h",
                      "broker/webhooks/", "broker/jobs/jobs.h", "broker/auth/",
                      "broker/signature/secret.h",
                      "broker/http/guard.h", "broker/engine/filter.h"),
    "broker/": ("base/", "proto/", "storage/", "broker/"),
    "clients/c/": ("base/", "proto/"),
    "clients/cli/": ("base/", "proto/", "clients/c/bellhop.h"),
}
# A library's header -> the only places that may include it (prefixes of paths).
LIBRARY = [
    (re.compile(r"uv\.h$|uv/"), ("broker/net/", "clients/", "tests/", "bench/")),
    (re.compile(r"openssl/ssl\.h$"), ("broker/net/", "clients/c/", "tests/")),
    (re.compile(r"openssl/"), ("broker/net/", "broker/auth/", "broker/signature/", "broker/ingest/",
                               "broker/workers/", "broker/webhooks/", "broker/broker.c",
                               "clients/", "tests/", "bench/", "examples/")),
    (re.compile(r"lmdb\.h$"), ("storage/lmdb", "tests/")),
    (re.compile(r"msgpack(\.h$|/)"), ("proto/frame", "tests/")),
    (re.compile(r"llhttp\.h$"), ("broker/http/",)),
    (re.compile(r"yajl/"), ("broker/json/",)),
    (re.compile(r"jansson\.h$"), ("broker/fields/", "broker/admin/", "clients/cli/", "tests/",
                                   "examples/")),
    (re.compile(r"curl/"), ("broker/http/client", "clients/cli/")),
    (re.compile(r"cyaml/"), ("broker/config", "broker/main")),
]
# The engine is pure: of the system's headers it may have only these.
PURE_HEADERS = {"assert.h", "inttypes.h", "limits.h", "stdalign.h", "stdarg.h", "stdbool.h",
                "stddef.h", "stdint.h", "stdio.h", "stdlib.h", "string.h"}
BANNED = re.compile(r"\b(strcpy|strcat|strncpy|strncat|sprintf|vsprintf|strtok|strtok_r|atoi|atol|atoll"
                    r"|gets|alloca|tmpnam|mktemp|localtime|gmtime|ctime|asctime|llhttp_set_lenient\w*)\s*\(")
# Chance comes from base/prng.h (seeded) or the system's source, checks from base/check.h (never
# compiled out); memory that cannot be had ends the broker in one place.
BANNED_IN_PRODUCT = re.compile(r"\b(rand|srand|random|srandom|drand48|assert|malloc|realloc|strdup"
                               r"|strndup|sscanf|fscanf|scanf|system|popen|setjmp|longjmp)\s*\(")
PRODUCT = ("base/", "proto/", "storage/", "broker/", "clients/")
MAKES_MEMORY = ("base/check.c", "clients/")
# stdio.h and stdlib.h are there for snprintf and free: the rest of them does I/O or stops the process.
NOT_PURE = re.compile(r"\b(v?f?printf|puts|putchar|fputs|fwrite|fopen|perror|getenv|setenv|exit|_exit"
                      r"|abort|atexit|log_\w+)\s*\(|\b(stdout|stderr|stdin|errno)\b")
MARKERS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE = re.compile(r"/(?:home|Users|root)/[a-z]|(?<![\w.-])/wo" r"rk/|\bref" r"erence/[a-z-]+\.md")
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')


def files(root, suffixes):
    root = Path(root)
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not path.is_symlink() and path.suffix in suffixes \
                and not SKIP.intersection(relative.parts):
            yield relative.as_posix(), path.read_text(errors="replace")


def c_files(root):
    return files(root, {".c", ".h"})


def without_comments(text):
    """Comments and the insides of literals become blanks; the lines stay where they are."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def lines_of(text):
    return enumerate(text.splitlines(), 1)


def layer_of(path):
    found = [prefix for prefix in MAY_INCLUDE if path.startswith(prefix)]
    return max(found, key=len) if found else None


def layers(root):
    """Who includes whom."""
    for path, text in c_files(root):
        layer = layer_of(path)
        for number, line in lines_of(text):
            match = INCLUDE.match(line)
            if not match:
                continue
            kind, target = match.groups()
            places = next((where for pattern, where in LIBRARY if pattern.match(target)), None)
            if places is not None and not path.startswith(places):
                yield f"{path}:{number}: only {', '.join(places)} may include {target}"
                continue
            if layer is None:
                continue
            own = path.rsplit("/", 1)[0] + "/"
            if kind == '"' and not target.startswith((own, layer)) \
                    and not ("/" not in target) and not target.startswith(MAY_INCLUDE[layer]):
                yield f"{path}:{number}: {layer} must not include {target}"
            if kind == "<" and layer == "broker/engine/" and target not in PURE_HEADERS:
                yield f"{path}:{number}: the engine is pure and must not include {target}"


def links(root):
    """CMake's link lists say the same as the includes."""
    cmake = Path(root) / "CMakeLists.txt"
    if not cmake.exists():
        return
    allowed = {"engine": {"record_and_memory", "json", "base"}, "base": set(),
               "net": {"base", "PkgConfig::UV", "PkgConfig::SSL", "PkgConfig::OPENSSL"},
               "http": {"net", "base", "llhttp", "proto", "PkgConfig::CURL"},
               "record_and_memory": {"base"}}
    for match in re.finditer(r"^layer\((\w+) [^\s)]+ ?([^)]*)\)", cmake.read_text(), re.M):
        name, words = match.group(1), set(match.group(2).split())
        if name in allowed and words - allowed[name]:
            yield f"CMakeLists.txt: {name} must not link {', '.join(sorted(words - allowed[name]))}"


def banned(root):
    for path, text in c_files(root):
        for number, line in lines_of(without_comments(text)):
            match = BANNED.search(line)
            if match:
                yield f"{path}:{number}: {match.group(1)} is banned"


def banned_in_product(root):
    for path, text in c_files(root):
        if not path.startswith(PRODUCT):
            continue
        for number, line in lines_of(without_comments(text)):
            match = BANNED_IN_PRODUCT.search(line)
            if match and not (match.group(1) in ("malloc", "realloc", "strdup", "strndup")
                              and path.startswith(MAKES_MEMORY)):
                yield f"{path}:{number}: {match.group(1)} is banned in the product"


def pure_calls(root):
    """The engine, and what encodes its records, talk to nobody."""
    for path, text in c_files(root):
        if not path.startswith(("broker/engine/", "broker/json/", "storage/record")):
            continue
        for number, line in lines_of(without_comments(text)):
            match = NOT_PURE.search(line)
            if match:
                yield f"{path}:{number}: {match.group(1) or match.group(2)} is not pure"


def sizes(root):
    for path, text in files(root, {".c", ".h", ".py", ".sh", ".mjs"}):
        count = text.count("\n")
        if count > FILE_LINES_MAX:
            yield f"{path}:1: {count} lines, the limit is {FILE_LINES_MAX}"
    for path, text in c_files(root):
        start = None
        for number, line in lines_of(without_comments(text)):
            # A brace in column 1 ends what a line that ends in ") {" in column 1 began.
            if re.match(r"\w.*\)\s*\{\s*$|^\{\s*$", line):
                start = number
            elif line.startswith("    ") and start is None and line.rstrip().endswith(") {"):
                start = number if re.match(r"^\s{8,}\w.*\) \{$", line) else None
            if line.startswith("}") and start is not None:
                if number - start > FUNCTION_LINES_MAX:
                    yield (f"{path}:{start}: a function of {number - start} lines, the limit is "
                           f"{FUNCTION_LINES_MAX}")
                start = None


def layout(root):
    for path, text in c_files(root):
        if text and not text.endswith("\n"):
            yield f"{path}: no line end at the end"
        for number, line in lines_of(text):
            if "\t" in line:
                yield f"{path}:{number}: a tab"
            # clang-format leaves one kind of long line: a comment behind a macro's value.
            if len(line) > COLUMNS_MAX and "http" not in line and not line.endswith("*/"):
                yield f"{path}:{number}: {len(line)} columns"
            if line != line.rstrip():
                yield f"{path}:{number}: blanks at the end of the line"


def markers(root):
    for path, text in files(root, TEXT):
        for number, line in lines_of(text):
            if MARKERS.search(line) and not path.startswith("tests/tidy/"):
                yield f"{path}:{number}: a leftover marker: {line.strip()[:60]}"


def headers(root):
    """A header opens by saying what it is, and is guarded."""
    for path, text in c_files(root):
        if not path.endswith(".h"):
            continue
        name = path.rsplit("/", 1)[1]
        if not text.startswith(f"/* {name}: "):
            yield f'{path}:1: must open with "/* {name}: what it is"'
        if "#ifndef" not in text and "#pragma once" not in text:
            yield f"{path}:1: no include guard"


# What a header outside base/ and proto/ says of its place: whom it may call, or who may include it.
PLACE = re.compile(r"\b(calls?|pure|only|nobody|knows?)\b", re.I)
PROSE_WORDS_MIN = 10


def prose(root):
    """A header of the product says in words what it is, and where it stands."""
    for path, text in c_files(root):
        if not path.endswith(".h") or not path.startswith(PRODUCT):
            continue
        opening = text.split("*/")[0]
        if len(re.findall(r"[A-Za-z']+", opening)) < PROSE_WORDS_MIN:
            yield f"{path}:1: says too little of what it is"
        elif not path.startswith(("base/", "proto/")) and not PLACE.search(opening):
            yield f"{path}:1: must say what it may call, or who may include it"


# A statement in a comment, or code that is switched off. Prose does not end with a semicolon
# behind a call or an assignment.
DEAD = re.compile(r"^\s*#\s*if\s+0\b"
                  r"|^\s*(?://\s*|/\*+\s*|\*\s(?=\S))(?:[A-Za-z_][\w>.\[\]*-]*\s*(?:\(.*\)|[-+|&]?=[^=].*)\s*;"
                  r"|(?:if|for|while|switch)\s*\(.*\)\s*\{|return\b[^.]*;)\s*(?:\*/)?$")


def dead_code(root):
    for path, text in c_files(root):
        for number, line in lines_of(text):
            if DEAD.search(line):
                yield f"{path}:{number}: code that is not compiled: {line.strip()[:60]}"


LEFTOVERS = re.compile(r"(\.(orig|rej|swp|bak|tmp|log|gcda|gcno|profraw|o|core)|~)$"
                       r"|^(crash|leak|timeout|oom|slow-unit)-[0-9a-f]{8,}$")


def leftovers(root):
    """What tools leave behind."""
    root = Path(root)
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not (SKIP - {"corpus"}).intersection(relative.parts) \
                and LEFTOVERS.search(path.name):
            yield f"{relative.as_posix()}: a leftover file"


def registered(root):
    """A test that no build file names never runs; a fuzzer without seeds starts from nothing."""
    root = Path(root)
    cmake = root / "tests" / "CMakeLists.txt"
    named = cmake.read_text() if cmake.exists() else ""
    for path in sorted((root / "tests").glob("unit/test_*.c")):
        if not re.search(rf"^\s*unit_test\({path.stem.removeprefix('test_')}\b", named, re.M):
            yield f"tests/unit/{path.name}: no unit_test() in tests/CMakeLists.txt names it"
    for path in sorted((root / "tests").glob("fuzz/fuzz_*.c")):
        name = path.stem.removeprefix("fuzz_")
        if not re.search(rf"^\s*fuzzer\({name}\b", named, re.M):
            yield f"tests/fuzz/{path.name}: no fuzzer() in tests/CMakeLists.txt names it"
        elif not any((root / "tests/fuzz/corpus" / name).glob("*")):
            yield f"tests/fuzz/{path.name}: no seeds in tests/fuzz/corpus/{name}"
    for path in sorted((root / "tests/fuzz/corpus").glob("*/*")):
        if path.stat().st_size > SEED_BYTES_MAX:
            yield f"tests/fuzz/corpus/{path.parent.name}/{path.name}: a seed above {SEED_BYTES_MAX} bytes"


def doc_links(root):
    """What the documents point to is there."""
    root = Path(root)
    for path, text in files(root, {".md"}):
        for number, line in lines_of(text):
            for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", line):
                if not (root / path).parent.joinpath(target).exists():
                    yield f"{path}:{number}: {target} is not there"


def machine_paths(root):
    for path, text in files(root, TEXT):
        if path.startswith("tests/tidy/"):
            continue
        for number, line in lines_of(text):
            match = MACHINE.search(line)
            if match:
                yield f"{path}:{number}: a path of one machine: {match.group()}"


def sleeps(root):
    """Tests wait for conditions. The one loop that polls is wait_for() in tests/e2e/harness.py."""
    allowed = {"tests/e2e/harness.py": 1}
    for path, text in files(root, {".py", ".c", ".sh", ".mjs"}):
        if not path.startswith("tests/") or path.startswith("tests/tidy/"):
            continue
        found = [n for n, line in lines_of(text) if re.search(r"\b(u|nano)?sleep\s*\(", line)]
        for number in found[allowed.get(path, 0):]:
            yield f"{path}:{number}: a sleep in a test"


RULES = [layers, links, banned, banned_in_product, pure_calls, sizes, layout, markers, dead_code,
         leftovers, headers, prose, registered, doc_links, machine_paths, sleeps]
