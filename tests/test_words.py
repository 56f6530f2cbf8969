"""Plain words: no sentence of pages, docstrings, messages, comments or templates has more than 25 words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from helpers import ROOT
from pages import PAGES
from test_architecture import SOURCES

MOST = 25
TEMPLATES = sorted((ROOT / "utils").rglob("*.jinja")) + sorted((ROOT / "utils").rglob("*.html"))
ENDS = re.compile(r"(?<=[.!?])\s+(?=\W*[A-Z]|\d+ ?%|`|run\.py)|;\s|:\n|\n\s*\n|\n\s*(?:[-*]|\d+\.)\s|\s?\|\s|\|\n")
CODE = re.compile(r"```.*?```|\{#.*?#\}|\{%.*?%\}|<(style|script).*?</\1>", re.DOTALL)  # between sentences
TAGS = re.compile(r"</?(?:p|h\d|t[dhr]|li|div|section|details|summary|figure|figcaption|d[td])\b[^>]*>")
WITHIN = re.compile(r"`[^`\n]*`|\{\{.*?\}\}|\]\([^)]*\)", re.DOTALL)  # a word of a sentence, or the place of a link
WORD = re.compile(r"[\w{}'./%-]*[^\W_][\w{}'./%-]*")
OTHER = re.compile(
    r"\brun\.py\b|\babide-\w|python -m \w|--\w+ .*--\w+ |\\\."
)  # no sentences: commands, regular expressions


def sentences(text: str) -> list[str]:
    text = WITHIN.sub(" X ", TAGS.sub("\n\n", CODE.sub("\n\n", text)))
    return [" ".join(part.split()) for part in ENDS.split(re.sub(r"<[^>]+>", "", text)) if part]


def spoken(source: str) -> Iterator[str]:
    """Docstrings, other texts with `{x}` for what is put into them, and comments; those at the ends of lines by
    themselves."""
    inside = set[int]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in ast.walk(node)}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{x}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    whole = [token for token in comments if token.line.lstrip().startswith("#")]
    yield from (token.string.lstrip("# ") for token in comments if token not in whole)
    for _, block in groupby(enumerate(whole), lambda one: one[1].start[0] - one[0]):
        yield " ".join(token.string.lstrip("# ") for _, token in block)


@pytest.mark.parametrize("path", [*PAGES, *TEMPLATES, *SOURCES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sentences_are_short(path: Path):
    content = path.read_text()
    texts = spoken(content) if path.suffix == ".py" else [content]
    found = [sentence for text in texts for sentence in sentences(text)]
    long = [one for one in found if len(WORD.findall(one)) > MOST and not OTHER.search(one)]
    assert not long


def test_a_long_sentence_is_found():
    many = "word " * MOST
    assert [len(WORD.findall(one)) for one in sentences(f"{many}more. A few words; {many}| more")] == [26, 3, 25, 1]
    source = f'def f():\n    """{many}more."""\n    x = f"{many}{{y}}"  # {many}\n    # {many}\n    # more\n'
    assert sorted(len(WORD.findall(text)) for text in spoken(source)) == [25, 26, 26, 26]
