"""What messages advise: each option that a text of the source names is one of the program that can say it."""

import argparse
import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import run
from data import __main__ as data
from utils.bundle import __main__ as bundle
from utils.compare import __main__ as compare
from utils.report import __main__ as report

OPTION = r"--[A-Za-z]\w*"
ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "run.py", *(path for folder in ("data", "models", "utils") for path in (ROOT / folder).rglob("*.py"))]
(verbs,) = [action for action in data.parser()._actions if isinstance(action, argparse._SubParsersAction)]
PARSERS = {("run", "main"): run.parser()}
PARSERS |= {(of.__name__, "main"): of.parser() for of in (bundle, compare, report)}
PARSERS |= {("data.__main__", verb): parser for verb, parser in verbs.choices.items()}
BY_JOB = ("run", "main")  # which calls the functions of jobs by their names
SIMULATED = ("data.demo", "demo_cohort")  # nothing is wrong with it
# Whose the option after it is, in the same part of a sentence
OF = re.compile(r"(run\.py|abide-\w+|convert|derive|fMRIPrep:|srun|pip install|{[^}]*\btraining})[^.;]*[ (]$")
Unit = tuple[str, str]  # a module, and what it defines


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def names_of(node: ast.stmt) -> list[str]:
    """What a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    stored = [part for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]
    return [part.id for part in stored] if isinstance(node, ast.Assign | ast.AnnAssign) else []


UNITS = {(module, name): node for module, tree in TREES.items() for node in tree.body for name in names_of(node)}


def imported(node: ast.AST) -> dict[str, str]:
    """Names -> what they are imported from: a module, or a module and a name in it."""
    from_modules = [part for part in ast.walk(node) if isinstance(part, ast.ImportFrom)]
    return {alias.asname or alias.name: f"{part.module}.{alias.name}" for part in from_modules for alias in part.names}


OF_MODULES = {module: imported(tree) for module, tree in TREES.items()}


def resolved(path: str) -> Unit | None:
    """What `data.base.errors.InputError` is, also if another module passes it on."""
    module, _, name = path.rpartition(".")
    passed_on = OF_MODULES.get(module, {}).get(name, path)
    return (module, name) if (module, name) in UNITS or passed_on == path else resolved(passed_on)


@cache
def used(unit: Unit) -> frozenset[Unit]:
    """What a unit names: its own module's, what it imports, and attributes of modules."""
    module, node = unit[0], UNITS[unit]
    known, paths = OF_MODULES[module] | imported(node), set[str]()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            paths.add(f"{module}.{part.id}" if (module, part.id) in UNITS else known.get(part.id, ""))
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            paths.add(f"{known.get(part.value.id)}.{part.attr}")
    return frozenset(found for path in paths if (found := resolved(path)) in UNITS)


def reached(start: Unit) -> set[Unit]:
    """Whatever a unit may call."""
    found, left = {start}, [start]
    while left:
        new = used(left.pop()) - found - {SIMULATED}
        found |= new
        left += new
    return found


def helps(node: ast.AST) -> set[int]:
    """The texts in it that are the help of an option."""
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    texts = [word.value for call in calls for word in call.keywords if word.arg == "help"]
    texts += [call.args[1] for call in calls if getattr(call.func, "id", "") == "option" and len(call.args) > 1]
    tables = [part for part in ast.walk(node) if isinstance(part, ast.Dict)]
    pairs = [pair for table in tables for pair in zip(table.keys, table.values, strict=True)]
    texts += [text for key, text in pairs if isinstance(key, ast.Constant) and key.value == "help"]
    return {id(part) for text in texts for part in ast.walk(text)}


def messages_in(node: ast.AST) -> list[str]:
    """Texts of several words that are no docstrings and no help, with expressions in braces."""
    inside, found = helps(node), []
    inside |= {id(part.value) for part in ast.walk(node) if isinstance(part, ast.Expr)}
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr) and id(part) not in inside:
            inside |= {id(value) for value in part.values}
            found.append(ast.unparse(part)[2:-1])
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in inside:
            found.append(part.value)
    return [text for text in found if " " in text.strip()]


def lacking(text: str, options: set[str]) -> set[str]:
    """The options that a message names as if the program had them; it may begin with one, which the user gave."""
    named = [(found[0], text[: found.start()]) for found in re.finditer(OPTION, text)]
    return {option for option, before in named if option not in options and before and not OF.search(before)}


def test_each_option_that_a_message_names_is_one_of_the_program_that_says_it():
    speakers = defaultdict(set)
    for program in PARSERS:
        for unit in reached(program):
            speakers[unit].add(program)
    wrong = []
    for unit, node in UNITS.items():
        programs = speakers[unit] or {BY_JOB}
        for program, text in [
            (one, text) for one in programs for text in messages_in(node) if unit[1] not in ("parser", "EXAMPLES")
        ]:
            missing = lacking(text, set(PARSERS[program]._option_string_actions))
            wrong += [f"{'.'.join(program)}: {option} in {unit}: {text[:99]}" for option in missing]
    assert not wrong, "\n".join(wrong)
    assert sum(len(of) > 1 for of in speakers.values()) > 300  # what programs share is known


def test_what_is_looked_for_is_found():
    options = {"--only"}
    assert lacking("Choose with --only, or leave it out with --exclude.", options) == {"--exclude"}
    assert not lacking("--exclude names nobody.", options)
    assert not lacking("Leave it out: abide-data convert --exclude A.", options)
