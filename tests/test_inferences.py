"""Every interval and p that a person can read has a row in docs/intervals.md, which says over what it is corrected.

What prints them is found by the names that all of them go through: of templates by macro, of modules by function. So a
new sentence with an interval, or a p, fails here until its row says of which family it is.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT
from pages import text_of

PAGE, HEADING = ROOT / "docs" / "intervals.md", "## Every interval and test"
FILES = sorted(path for top in ("utils", "data") for path in (ROOT / top).rglob("*.*"))
TEMPLATES = [path for path in FILES if path.suffix in (".jinja", ".html")]
MODULES = [path for path in FILES if path.suffix == ".py" and path.parent.name != "scores"]  # these only compute
MACRO = re.compile(r"\{% macro (\w+)\(.*?\{%-? endmacro", re.DOTALL)
CODE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
STYLE = re.compile(r"<(style|script).*?</\1>|\{#.*?#\}", re.DOTALL)
IN_CODE = re.compile(r"\bends\b|\.text\(|\.(?:p|low|high|bound)\b|\b(?:p|low|high)\b(?=\s*(?:\||\}\}))")
IN_TEXT = re.compile(r"\bp (?:=|<|>|&lt;|\{\{)")
METHODS = {"ends", "text", "proportion_ci", "confidence_interval"}  # of an estimate; of a test of SciPy
FUNCTIONS = {"p_value"}  # of Table 1
NAME = re.compile(r"`([\w.]+)`")


def in_template(text: str) -> bool:
    """Whether a piece of a template prints an interval or a p."""
    return bool(any(map(IN_CODE.search, CODE.findall(text))) or IN_TEXT.search(text))


def of_templates(name: str, text: str) -> Iterator[str]:
    text = STYLE.sub("", text)
    yield from (f"{name}.{macro[1]}" for macro in MACRO.finditer(text) if in_template(macro[0]))
    if in_template(MACRO.sub("", text)):
        yield name


def of_module(name: str, source: str) -> Iterator[str]:
    """Functions that ask an estimate for its text or a test for its p, or draw the ends of an interval."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and any(map(prints, ast.walk(function))):
            yield f"{name}.{function.name}"


def prints(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and len(node.args) < 3:  # the text of a figure has a place, too
        return getattr(node.func, "attr", "") in METHODS or getattr(node.func, "id", "") in FUNCTIONS
    if isinstance(node, ast.Attribute):
        return node.attr in ("p", "pvalue")
    if isinstance(node, ast.FormattedValue):
        return getattr(node.value, "attr", "") in ("low", "high")
    return isinstance(node, ast.Starred) and getattr(node.value, "id", "") in ("ends", "band")


def key(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("utils.")


def printed() -> set[str]:
    found = {name for path in TEMPLATES for name in of_templates(key(path), path.read_text())}
    return found | {name for path in MODULES for name in of_module(key(path), path.read_text())}


def rows() -> list[list[str]]:
    """The cells of each row of the table."""
    section = text_of(PAGE).partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_what_prints_an_interval_or_a_p_has_a_row():
    listed = {name for *_, makers in rows() for name in NAME.findall(makers)}
    assert not (missing := printed() - listed), f"add a row, with its family, to {HEADING} of {PAGE.name}: {missing}"


def test_what_a_row_names_is_there():
    assert not {name for *_, makers in rows() for name in NAME.findall(makers)} - printed()


def test_each_row_says_of_what_unit_and_of_which_family():
    for row in rows():
        assert len(row) == 5 and all(row[:4]), row
        assert re.match("none|all |both |no interval", row[2]), row


@pytest.mark.parametrize(
    "template, name",
    [
        ("{% macro a(less) %}{{ less.ends() }}{% endmacro %}", "x.a"),
        ('{% macro a(less) %}{{ less.text(".2f") }}{% endmacro %}', "x.a"),
        ("{% macro a(test) %}(p = {{ test }}){% endmacro %}", "x.a"),
        ("{% macro a(test) %}{{ test.p }}{% endmacro %}", "x.a"),
        ("{% macro a(low, of) %}{{ low | number }}{% endmacro %}{% macro b() %}text{% endmacro %}", "x.a"),
        ("{% macro a(of) %}no number{% endmacro %}{{ of.low }} to {{ of.high }}", "x"),
    ],
)
def test_a_new_sentence_with_an_interval_is_found(template, name):
    assert [*of_templates("x", template)] == [name]


@pytest.mark.parametrize(
    "source",
    [
        "def a(row): return Estimate.in_row(row).text()",
        "def a(count): return binomtest(count, 9).proportion_ci(0.9)",
        "def a(test): return f'{test.low:.2f} to 1'",
        "def a(both): return float(ttest_ind(*both).pvalue)",
        "def a(axis, value, ends): axis.plot(*ends)",
    ],
)
def test_a_new_function_that_prints_one_is_found(source):
    assert [*of_module("x", source)] == ["x.a"]
    assert [*of_module("x", "def a(axis, at): axis.text(0, 1, str(at))")] == []
