"""Every sentence that a webhook or a malformed request is refused with stands in the docs."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
TEXT = r'"(?:[^"\\\n]|\\.)*"'
# A call or an assignment that makes a sentence, up to its end.
MAKES = re.compile(r"(?:\brefuse\w*\(|\bbad\(|\bverification_refuse\(|\bwhy = |\.message =)(?:"
                   + TEXT + r"|[^;\"])*;")
SERVER = ["strict", "parser", "chunk", "conn"]
INGEST = ["ingest", "admission", "scheme", "scheme_hmac", "scheme_jwt", "scheme_standard", "scheme_token",
          "scheme_twilio"]


def pieces(path):
    """What a sentence has between its blanks to fill in; in the order of the file."""
    source = re.sub(r"/\*.*?\*/", " ", (REPO / path).read_text(), flags=re.S)
    for statement in MAKES.findall(source):
        for literal in re.findall(TEXT + r"(?:\s*" + TEXT + r")*", statement):
            text = "".join(t[1:-1] for t in re.findall(TEXT, literal)).replace('\\"', '"')
            for piece in re.split(r"%[-+ .*0-9a-z]*[a-zA-Z]", text):
                if len(piece.strip()) > 12:
                    yield piece.strip(' ":')


class Doc:
    """A page whose sentences may have NAME for a name and N for a number."""

    def __init__(self, name):
        self.text = " ".join((REPO / "docs" / name).read_text().split())
        cells = [s.strip() for s in re.split(r"[;|]", self.text)]
        patterns = [re.sub(r"\bN\b", r"\\d+", re.escape(s).replace("NAME", r"[\w-]+")) for s in cells
                    if re.search(r"\bN(AME)?\b", s)]
        self.pattern = re.compile("|".join(patterns))

    def has(self, sentence):
        return sentence in self.text or self.pattern.fullmatch(sentence) is not None


# What stands in these files and is no refusal of a request: an option's, and a header.
OTHERS = ("may hold {id}", "needs a separator beside", "has a piece twice", "must hold {body}", "Allow: ")


@pytest.mark.parametrize("path,doc", [(f"broker/http/{n}.c", "http-strictness.md") for n in SERVER]
                         + [(f"broker/ingest/{n}.c", "http-api.md") for n in INGEST]
                         + [("broker/signature/standard_webhooks.c", "http-api.md"),
                            ("broker/signature/jwt.c", "http-api.md")],
                         ids=lambda v: Path(v).stem)
def test_every_sentence_is_in_the_docs(path, doc):
    page = Doc(doc)
    missing = [p for p in pieces(path) if not page.has(p) and not p.startswith(OTHERS)]
    assert not missing, f"{doc} does not have these of {path}: {missing}"


def test_the_sentences_are_found():
    found = {n: len(list(pieces(f"broker/{n}.c"))) for n in
             ("http/strict", "http/parser", "http/chunk", "ingest/scheme_jwt", "signature/standard_webhooks")}
    assert all(count > 7 for count in found.values()), found
    assert "the Host header is missing" in set(pieces("broker/http/parser.c"))
