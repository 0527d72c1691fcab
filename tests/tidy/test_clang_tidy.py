"""clang-tidy, by the rules of .clang-tidy, on the product's C files.

It takes two seconds per file, so by default only files that differ from the last commit are looked
at (or those of the last commit, when nothing does), at most CHANGED_MAX of them. BELLHOP_TIDY=all
takes every file; scripts/test --long sets it. build/compile_commands.json says how each is built."""

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
BUILD = REPO / os.environ.get("BELLHOP_BUILD", "build")
PRODUCT = ("base/", "proto/", "storage/", "broker/", "clients/")
CHANGED_MAX = 30
FILE_S = 120

CLANG_TIDY = shutil.which("clang-tidy") or shutil.which("clang-tidy-14")
needs_clang_tidy = pytest.mark.skipif(
    CLANG_TIDY is None, reason="clang-tidy is not installed: scripts/setup, or apt install clang-tidy")


def git(*words):
    done = subprocess.run(["git", "-C", str(REPO), *words], capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def built_files():
    commands = json.loads((BUILD / "compile_commands.json").read_text())
    files = {os.path.relpath(os.path.join(c["directory"], c["file"]), REPO) for c in commands}
    return sorted(f for f in files if f.startswith(PRODUCT) and (REPO / f).exists())


def changed_files():
    changed = git("diff", "--name-only", "HEAD") + git("ls-files", "-o", "--exclude-standard")
    if not any(f.endswith((".c", ".h")) for f in changed):
        changed = git("diff", "--name-only", "HEAD~1", "HEAD")
    # A header is seen through the file that implements it.
    return {f[:-2] + ".c" if f.endswith(".h") else f for f in changed}


def look_at(source, *options):
    """What clang-tidy says of one file; empty: nothing. One file per process: with more of them
    version 14 takes every va_list of the later ones for uninitialized."""
    done = subprocess.run([CLANG_TIDY, "--quiet", *options, str(source)], cwd=REPO,
                          capture_output=True, text=True, timeout=FILE_S)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@needs_clang_tidy
def test_the_product_is_clean():
    if not (BUILD / "compile_commands.json").exists():
        pytest.skip(f"{BUILD.name}/compile_commands.json is not there: build first")
    files = built_files()
    if os.environ.get("BELLHOP_TIDY") != "all":
        changed = changed_files()
        files = [f for f in files if f in changed][:CHANGED_MAX]
    if not files:
        pytest.skip("no C file of the product was changed; BELLHOP_TIDY=all takes every one")
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda f: look_at(f, "-p", str(BUILD)), files))
    bad = [text for text in said if text]
    assert not bad, "\n" + "\n".join(bad)


# What must be found, one for each family of checks.
BUGS = [
    ("bugprone-suspicious-memset-usage", "memset(out, 300, 4);"),
    ("bugprone-infinite-loop", "int i = 0; while (i < n) out[0] = 1;"),
    ("clang-analyzer-unix.Malloc", "char *p = malloc(4); if (n > 0) return; free(p);"),
    ("clang-analyzer-core.NullDereference", "char *p = NULL; if (n > 0) p = out; *p = 1;"),
    ("clang-analyzer-deadcode.DeadStores", "int i = n; i = 3;"),
    ("cert-flp30-c", "for (float f = 0; f < 1.0f; f += 0.1f) out[n]++;"),
    ("readability-misleading-indentation", "if (n > 0)\n        out[0] = 1;\n        out[1] = 1;"),
]


@needs_clang_tidy
@pytest.mark.parametrize("check,body", BUGS, ids=[b[0] for b in BUGS])
def test_it_bites(tmp_path, check, body):
    (tmp_path / "a.c").write_text("#include <stdlib.h>\n#include <string.h>\n"
                                  "void f(char *out, int n);\n"
                                  "void f(char *out, int n) {\n    " + body + "\n}\n")
    said = look_at(tmp_path / "a.c", f"--config-file={REPO / '.clang-tidy'}")
    assert check in said, said or "nothing was said"


@needs_clang_tidy
def test_it_lets_good_code_be(tmp_path):
    (tmp_path / "a.c").write_text("int f(int n);\nint f(int n) {\n    return n > 0 ? n : 0;\n}\n")
    assert look_at(tmp_path / "a.c", f"--config-file={REPO / '.clang-tidy'}") == ""
