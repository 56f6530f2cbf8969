"""Options of the command lines: a dataclass in, the same dataclass out; a mistake is one line that says what to do."""

import argparse
import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from data.base import cli
from data.base.cli import Parser, add_options, guarded, option, options_of
from data.base.errors import InputError


@dataclass(frozen=True)
class Measured:
    """Options of all kinds."""

    num_iters: int = option(200, "batches", type=cli.positive, metavar="N")
    override_chkpt: bool = option(False, "from zero", action="store_true")
    subjects: tuple[str, ...] | None = option(None, "only these", type=cli.names, metavar="A,B")
    atlas: Path | None = option(None, "label image", type=Path)
    unit: str = option("mm", "of lengths", choices=("mm", "cm"))


@dataclass(frozen=True)
class Nothing:
    """No options."""


@pytest.fixture
def parser() -> Parser:
    top = Parser(prog="run.py")
    add_options(top, Measured, "--measure only")
    add_options(top, Nothing, "--idle only")
    return top


@pytest.mark.parametrize(
    "words, expected",
    [
        ("", Measured()),
        ("--numIters 3 --overrideChkpt", Measured(num_iters=3, override_chkpt=True)),
        ("--subjects 7,a --atlas x/y.nii --unit=cm", Measured(subjects=("7", "a"), atlas=Path("x/y.nii"), unit="cm")),
    ],
)
def test_what_the_user_said_comes_out_as_the_dataclass(words, expected, parser):
    args = parser.parse_args(words.split())
    assert options_of(args, Measured) == expected
    assert options_of(args, Nothing) == Nothing()


def test_help_has_a_group_for_the_options_of_a_job_and_none_for_no_options(parser):
    text = parser.format_help()
    assert "--measure only:" in text and "--idle only" not in text
    assert "--numIters N" in text and "only these" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["--numIter", "3", "--qqqqq"], "unrecognized arguments: --qqqqq; see --help."),  # beginnings are enough
        (["x"], "unrecognized arguments: x"),
        (["--atlsa", "x"], "unrecognized arguments: --atlsa x; did you mean --atlas?"),
        (["--subject=", "7"], "--subject has nothing as its value; give one, or leave it out."),
        (["--atlas", ""], "--atlas has nothing as its value; give one, or leave it out."),
        (["--atlas", "x", ""], "an argument has nothing as its value; give one, or leave it out."),
        (
            ["--numIters", "0"],
            f"argument --numIters: '0' is not allowed; expected a whole number from 1 to {cli.MAX_COUNT}",
        ),
    ],
)
def test_a_mistake_is_one_line(words, message, parser, capsys):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"run.py: error: {message}\n"


def test_some_options_may_be_empty(capsys):
    """`--phenotype ""` says that there is none."""
    top = Parser(prog="data")
    top.add_argument("--phenotype")
    assert top.parse_args(["--phenotype", ""]).phenotype == ""
    assert top.parse_args(["--phenotype="]).phenotype == ""


@pytest.mark.parametrize(
    "kind, good, bad",
    [
        (cli.positive, {"1": 1, "007": 7}, ["0", "-1", "1.5", "", "x", "²"]),
        (cli.seed, {"0": 0, "4294967295": 2**32 - 1}, ["-1", "4294967296", "1e3", "x"]),
    ],
)
def test_numbers_within_bounds(kind, good, bad):
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="is not allowed; expected a"):
            kind(text)


@pytest.mark.parametrize(
    "error, message",
    [
        (InputError("two\nlines  of it."), "two lines of it."),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.bin"), "x.bin: {}. Free space and repeat the command."),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x.bin"), "x.bin: {}."),
        (OSError("odd"), "input or output: odd."),
        (MemoryError(), "The memory is full; close other programs or use a machine with more."),
    ],
)
def test_what_went_wrong_is_one_line_and_status_2(error, message, capsys):
    def work() -> int:
        raise error

    assert guarded("run.py", work) == 2
    expected = message.format(getattr(error, "strerror", ""))
    assert capsys.readouterr().err == f"run.py: error: {expected}\n"


def test_after_ctrl_c_the_status_is_130(capsys):
    before = signal.getsignal(signal.SIGINT)
    try:
        assert guarded("run.py", lambda: signal.default_int_handler(signal.SIGINT, None)) == 130
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a second one does not disturb the closing of files
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "run.py: interrupted; repeat the command.\n"


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        guarded("run.py", lambda: 1 // 0)
    assert guarded("run.py", lambda: 7) == 7


def test_windows_is_said_not_to_be_supported(parser, monkeypatch, capsys):
    monkeypatch.setattr("sys.platform", "win32")
    parser.parse_args([])
    assert capsys.readouterr().err == "run.py: Windows is not supported, and nothing was tried on it; use WSL.\n"
