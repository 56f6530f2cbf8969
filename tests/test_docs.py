"""README.md, docs/ and CHANGELOG.md: commands parse, options and files that they name exist, links lead somewhere."""

import argparse
import os
import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest
from commands import ROOT
from pages import COMMAND_LINE, FENCED_BLOCK, PAGES, README, read_page_source, split_module

import data
import run
from data import __main__ as data_main
from models import MODELS, override_settings
from utils.bundle import __main__ as bundle_main
from utils.compare import __main__ as compare_main
from utils.report import __main__ as report_main

LINKED = [*PAGES, *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CONTRIBUTING", "CHANGELOG"))]
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROGRAMS = {
    "utils.bundle": bundle_main,
    "utils.compare": compare_main,
    "utils.report": report_main,
}
FOREIGN = {"--gpus", "--install", "--nv", "--output-spaces", "--volume"}  # of Docker, Apptainer, WSL and fMRIPrep


def code_spans(page: Path) -> list[str]:
    return CODE_SPAN.findall(FENCED_BLOCK.sub("", read_page_source(page)))


def find_commands(page: Path) -> list[str]:
    """The commands that start a program with arguments, in blocks of code and within lines."""
    lines = [
        line
        for block in FENCED_BLOCK.findall(read_page_source(page))
        for line in block.splitlines()
        if not line.startswith("#")
    ]
    command_lines = [match[0] for text in lines + code_spans(page) if (match := COMMAND_LINE.search(text))]
    command_lines = [command.replace("$SLURM_ARRAY_TASK_ID", "1") for command in command_lines]
    return [re.sub(r"\s+#.*", "", command) for command in command_lines if "--help" not in command]


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


EVERY_COMMAND = [
    pytest.param(command, id=f"{page_name(page)}: {command}") for page in PAGES for command in find_commands(page)
]


def verb_parsers() -> dict[str, argparse.ArgumentParser]:
    """The parsers of `abide-data convert` and so on."""
    actions = data_main.make_parser()._actions
    return next(action.choices for action in actions if isinstance(action, argparse._SubParsersAction))


def list_options(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}


def list_all_options() -> set[str]:
    parsers = (*verb_parsers().values(), *(program.make_parser() for program in PROGRAMS.values()))
    return list_options(run.make_parser()).union(*map(list_options, parsers))


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_a_command_parses(command):
    """Presets and settings, too, which the parser takes as text."""
    words = shlex.split(command)
    if words[0] != "run.py":
        module, module_arguments = split_module(words)
        if module in PROGRAMS:
            PROGRAMS[module].make_parser().parse_args(module_arguments)
            return
        verb, *arguments = module_arguments
        assert verb in verb_parsers()
        if arguments:  # else the text only names the command
            data_main.make_parser().parse_args([verb, *arguments])
        return
    args = run.make_parser().parse_args(words[1:])
    presets = MODELS[args.model or run.Request.model].module.PRESETS
    if args.preset or args.set:
        override_settings(presets[args.preset or next(iter(presets))], args.set)


def test_all_help_texts_end_with_valid_commands():
    programs = [run.make_parser(), *(program.make_parser() for program in PROGRAMS.values())]
    for parser in (*programs, *verb_parsers().values()):
        assert len(parser.example_arguments_by_purpose) > 1, parser.prog
        for words in parser.example_arguments_by_purpose.values():
            parser.parse_args(shlex.split(words))
            assert parser.format_help().count(f"  {parser.prog} {words}\n") == 1


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_options_in_the_text_exist(page):
    ours = [span for span in code_spans(page) if not re.match(r"pip|python tests/", span)]
    flags = {flag for span in ours for flag in re.findall(r"(?<!\S)--[A-Za-z][\w-]*", span)}
    assert flags - FOREIGN <= list_all_options()


def test_all_programs_are_in_the_reference():
    """Whose options the site takes from the parsers."""
    programs = tomllib.loads(read_page_source(ROOT / "pyproject.toml"))["project"]["scripts"]
    assert re.findall(r'^    "[\w.]+": "([\w.-]+)"', read_page_source(ROOT / "docs/conf.py"), re.MULTILINE) == [
        *programs
    ]
    assert re.findall(r"^- `(.+?)`", read_page_source(ROOT / "docs/reference/commands.md"), re.MULTILINE) == [*programs]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_files_in_the_text_exist(page):
    spans = " ".join(code_spans(page))
    for path in re.findall(r"(?<![\w/.])(?:docs|tests|data|models|utils)/[\w/]+\.py", spans):
        assert (ROOT / path).is_file(), path
    for target in re.findall(r"`make (\w+)", read_page_source(page)):
        assert re.search(rf"^{target}:", read_page_source(ROOT / "Makefile"), re.MULTILINE), target


def test_the_readme_names_the_commands_proving_the_program():
    assert {"demo", "test"} <= set(re.findall(r"`make (\w+)`", read_page_source(README)))
    assert "make test" in read_page_source(ROOT / ".ci/run").splitlines()


def test_result_tables_equal_their_files():
    """So nobody has typed a number, or made a table anew and forgotten the page."""
    numbers = runpy.run_path(str(ROOT / "docs/results.py"))
    for page in numbers["PAGES"]:
        assert read_page_source(page).count("<!-- table ") and numbers["with_tables"](
            read_page_source(page)
        ) == read_page_source(page)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings: small letters, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", FENCED_BLOCK.sub("", read_page_source(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=page_name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCED_BLOCK.sub("", read_page_source(page))):
        path, _, anchor = link.partition("#")
        if ":" in path:  # the web
            continue
        target = Path(os.path.normpath(page.parent / path)) if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads(read_page_source(ROOT / "pyproject.toml"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "data.__version__"}
    cited = re.findall(r"^(?:version|date-released): (\S+)$", read_page_source(ROOT / "CITATION.cff"), re.MULTILINE)
    newest = re.search(
        r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", read_page_source(ROOT / "CHANGELOG.md"), re.MULTILINE
    )
    assert newest and cited == [*newest.groups()]
    assert cited[0] == data.__version__
