"""What a user does and sees: commands run in this process, what they left, what a refusal promises."""

import argparse
import importlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TextIO

import pytest

from data.base.errors import InputError

ROOT = Path(__file__).parent.parent
MODULE_BY_PROGRAM = {  # their modules
    "run.py": "run",
    "abide-data": "data.__main__",
    "abide-report": "utils.report.__main__",
    "abide-compare": "utils.compare.__main__",
    "abide-bundle": "utils.bundle.__main__",
}
OPTION = re.compile(r"(?<![\w-])--[A-Za-z][\w-]*")
THREE_LINES = 3 * 120  # characters of a terminal


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status and what it printed."""

    status: int
    out: str
    err: str


def split_command(command: str, **places: object) -> list[str]:
    """The words of a command, with `places` in place of {names}, whatever these hold."""
    return [word.format(**places) for word in shlex.split(command)]


def run(command: str, **places: object) -> Outcome:
    """Does a command as the user types it."""
    return run_words(*split_command(command, **places))


def run_words(program: str, *arguments: object, out: TextIO | None = None) -> Outcome:
    """Does a command of these words, which prints to `out`."""
    out, err = out or io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [program, *map(str, arguments)])
        patch.setattr(sys, "path", [*sys.path])  # an estimator's file adds its folder
        earlier_module_names = {*sys.modules}
        if program == "abide-data":
            patch.setattr("data.base.pool.Pool.submit", submit_directly)
        try:
            status = importlib.import_module(MODULE_BY_PROGRAM[program]).main()
        except SystemExit as exit_:
            status = exit_.code
        forget_user_modules(earlier_module_names)
    return Outcome(status, out.getvalue() if isinstance(out, io.StringIO) else "", err.getvalue())


def forget_user_modules(earlier_module_names: set[str]) -> None:
    """Files of estimators in folders of tests are run again by the next command, as in a new process."""
    importlib.invalidate_caches()
    for module_name in {*sys.modules} - earlier_module_names:
        module_file = getattr(sys.modules[module_name], "__file__", None)
        if module_file and Path(module_file).is_relative_to(Path(tempfile.gettempdir())):
            del sys.modules[module_name]


def end_in_terminal(command: str, **places: object) -> list[str]:
    """The lines that a command, which must succeed, shows after its last bar of progress in a terminal of 80 columns;
    one that is longer is several."""
    main, terminal = os.openpty()
    printed_chunks: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # it is closed
            while chunk := os.read(main, 1 << 16):
                printed_chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.MonkeyPatch.context() as patch, open(terminal, "w") as file:
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "xterm")
        outcome = run_words(*split_command(command, **places), out=file)
    reader.join()
    os.close(main)
    assert outcome.status < 2 and outcome.err == "", outcome.err
    *_, end = re.split(r"\x1b\[\?25h|No GPU.*", b"".join(printed_chunks).decode())  # where the cursor is back
    lines = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", end).replace("\r", "").strip("\n").splitlines()
    return [line[start : start + 80] for line in lines for start in range(0, max(len(line), 1), 80)]


def submit_directly(_: object, function: Callable, *arguments: object) -> Future:
    """In place of `Pool.submit`: to start other processes takes longer than what they do for a few people."""
    result: Future = Future()
    try:
        result.set_result(function(*arguments))
    except InputError as error:
        result.set_exception(error)
    return result


def done(command: str, **places: object) -> str:
    """Does a command that must succeed; exit status 1 is that of problems among the people. What it printed."""
    outcome, tells = run(command, **places), command.startswith(("abide-data c", "abide-data pack"))
    assert outcome.status == 0 or (outcome.status == 1 and tells), outcome.err
    assert outcome.err == ""
    return outcome.out


def listing(folder: Path) -> dict[Path, tuple]:
    """All that lies in a folder: size and time of change of each file; a lock that came and went changes a folder's."""
    stat_by_path = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {
        path: () if path.is_dir() else (file_stat.st_size, file_stat.st_mtime_ns)
        for path, file_stat in stat_by_path.items()
    }


def find_options(program: str, verb: str = "") -> set[str]:
    """The options of a program; of abide-data those of a verb."""
    parser = importlib.import_module(MODULE_BY_PROGRAM[program]).make_parser()
    groups = [candidate for candidate in parser._actions if isinstance(candidate, argparse._SubParsersAction)]
    verbs = [candidate for group in groups for name, candidate in group.choices.items() if verb in ("", name)]
    return set().union(parser._option_string_actions, *(candidate._option_string_actions for candidate in verbs))


def answered(command: str, **places: object) -> Outcome:
    """Does a command that succeeds, with exit status 1 where it finds problems, or is refused; holds a refusal to what
    each promises: exit status 2; one line, not longer than three of a terminal and without a traceback; no option that
    the program lacks, unless the line names another program; nothing written, nothing of the user's changed."""
    folders = {Path.cwd(), *(path if path.is_dir() else path.parent for path in map(Path, map(str, places.values())))}
    listing_by_folder = {folder: listing(folder) for folder in folders if folder.exists()}
    outcome = run(command, **places)
    line = outcome.err
    if outcome.status in (0, 1):
        assert line == ""
        return outcome
    assert outcome.status == 2, f"exit {outcome.status}: {outcome.out}{line}"
    assert line.count("\n") == 1 and line.endswith("\n") and " error: " in line and "Traceback" not in line, line
    shortened_line = line
    for name, place in sorted(places.items(), key=lambda item: -len(str(item[1]))):
        shortened_line = shortened_line.replace(str(place), name)
    assert len(shortened_line) <= THREE_LINES, f"{len(shortened_line)} characters: {line}"
    words = split_command(command, **places)
    program_match = re.search(r"run\.py|abide-|convert|derive", line.partition(" error: ")[2])
    valid_options = (
        set.union(*map(find_options, MODULE_BY_PROGRAM)) if program_match else find_options(words[0], words[1])
    )
    typed_words = {word.partition("=")[0] for word in words}
    assert set(OPTION.findall(line)) <= valid_options | typed_words, line
    assert {folder: listing(folder) for folder in listing_by_folder} == listing_by_folder
    return outcome


def refused(command: str, *key_words: str, **places: object) -> str:
    """Does a command that must be refused, see `answered`, with these key words in the line. The line."""
    outcome = answered(command, **places)
    assert outcome.status == 2, f"exit {outcome.status}: {outcome.out}"
    for word in key_words:
        assert word.format(**places) in outcome.err, f"{word!r} is not in {outcome.err!r}"
    return outcome.err


def read_manifest(folder: Path) -> dict:
    """What `run.json` in results, or the record of the latest checkpoint in a folder of these, says; without groups."""
    manifest_paths = [folder / "run.json"] if (folder / "run.json").is_file() else folder.glob("ckpt*-*.json")
    latest_path = max(manifest_paths, key=lambda path: int("0" + path.stem.partition("-")[2]))
    content = json.loads(latest_path.read_text())
    groups = [content.pop(name) or {} for name in ("settings", "caveats", "versions", "test", "blackout")]
    return {name: value for group in (content, *groups) for name, value in group.items()}


class PageText(HTMLParser):
    """What a page says, as `lines`: a heading, a paragraph, an item or a row of a table each. Without scripts, styles,
    pictures, contents, and what shows on a click only."""

    LINES = ("title", "h1", "h2", "h3", "h4", "p", "li", "dt", "dd", "tr", "figcaption", "summary", "div", "pre")
    UNSEEN = ("script", "style", "svg", "nav", "button")
    VOID = ("meta", "link", "br", "hr", "img", "input")

    def __init__(self, page: str):
        super().__init__()
        self.lines: list[str] = []
        self.line = ""
        self.open: list[tuple[str, bool]] = []  # of what is open: the tag, whether it is seen
        self.feed(page)
        self.end_line()

    def end_line(self) -> None:
        if text := " ".join(self.line.split()).strip("| "):
            self.lines.append(text)
        self.line = ""

    @property
    def is_seen(self) -> bool:
        return all(is_seen for _, is_seen in self.open)

    def handle_starttag(self, tag, attributes):
        if tag in self.VOID:
            return
        attribute_by_name = dict(attributes)
        is_heading = attribute_by_name.get("class") == "sort"
        self.open.append(
            (
                tag,
                is_heading
                or not (tag in self.UNSEEN or "popover" in attribute_by_name or "aria-hidden" in attribute_by_name),
            )
        )
        if self.is_seen and tag in self.LINES:
            self.end_line()
        self.line += {"th": " | ", "td": " | ", "span": " ", "small": " "}.get(tag, "")

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass
        if self.is_seen and tag in self.LINES:
            self.end_line()

    def handle_data(self, data):
        if self.is_seen:
            self.line += data


def read_page_text(page: Path) -> str:
    """What a page says, see `PageText`."""
    return "\n".join(PageText(page.read_text()).lines)
