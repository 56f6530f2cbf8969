"""What a command shows: plain text, progress, one line for an error that nobody foresaw."""

import io
import os
import re
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from helpers import ROOT

from data.base import terminal
from data.base.cli import guarded
from data.base.errors import InputError
from data.base.terminal import Plain

HOSTILE = """
import sys, threading, warnings
from data.base.terminal import start
from data.base.cli import guarded

def work():
    warnings.warn("odd\\nvalues")
    for target in (sys.exit, lambda: {}["in a thread"]):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    print("\\x1b[31mred")
    return 1 // 0

start(lambda: guarded("run.py", work), "run.py")
"""


def python(folder: Path, code: str, redirections: str = "") -> subprocess.CompletedProcess:
    """Runs Python as a shell would, with its redirections."""
    return subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {redirections}', sys.executable, code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_control_characters_are_shown_by_their_escapes():
    stream = io.StringIO()
    print("a\x1b[31m\u202eb\tc\rd\udcff", file=Plain(stream))
    assert stream.getvalue() == "a\\x1b[31m\\u202eb\tc\\rd\\udcff\n"


def test_what_a_stream_cannot_encode_is_shown_by_its_escape():
    written = io.BytesIO()
    stream = Plain(io.TextIOWrapper(written, encoding="ascii"))
    print("Zürich", file=stream, flush=True)
    assert written.getvalue() == b"Z\\xfcrich\n"


def test_a_reader_that_goes_is_no_error(capsys):
    """As after `| head`: the status of other tools, and nothing on stderr."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe, redirect_stdout(pipe):
        assert guarded("run.py", lambda: print("Results: out") or 0) == terminal.UNREAD
    assert capsys.readouterr().err == ""


def test_a_full_disk_under_the_output_is_one_line(capsys):
    with open("/dev/full", "w") as full, redirect_stdout(full):
        assert guarded("run.py", lambda: print("Results: out") or 0) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_error_is_shown_without_what_steers_a_terminal_and_not_at_any_length(capsys):
    def work() -> int:
        raise InputError(f"a column \x1b[31m and {'x' * 10_000}; rename it.")

    assert guarded("run.py", work) == 2
    line = capsys.readouterr().err
    assert line.startswith("run.py: error: a column \\x1b[31m and xxx") and line.endswith("x; rename it.\n")
    assert len(line) < 2100


def test_the_log_of_an_error_lies_in_the_current_folder_or_in_the_temporary_one(tmp_path, monkeypatch):
    try:
        raise ValueError("odd\nvalue \ud800")
    except ValueError as error:
        caught = error
    line = terminal.last_words("abide-data", ValueError, caught, caught.__traceback__)
    (log,) = tmp_path.glob("*data-error-*.log")
    assert "a mistake of the program, not yours" in line and log.name in line and "\n" not in line
    told = log.read_text()
    assert "Traceback" in told and "autism-blackout" in told and "tensorflow" in told and "Python 3." in told
    other, gone = tmp_path / "other", tmp_path / "gone"
    other.mkdir()
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    assert str(other) in terminal.last_words("run.py", ValueError, caught, caught.__traceback__)
    assert list(other.glob("run.py-error-*.log"))
    assert "interrupted" in terminal.last_words("run.py", KeyboardInterrupt, None, None)


def test_a_process_never_ends_with_a_traceback(tmp_path):
    done = python(tmp_path, HOSTILE)
    assert (done.returncode, done.stdout) == (1, "\\x1b[31mred\n")
    warning, in_thread, escaped = done.stderr.splitlines()
    assert warning == "run.py: warning: odd values"
    assert "KeyError: 'in a thread'" in in_thread and "ZeroDivisionError" in escaped
    told = "".join(log.read_text() for log in tmp_path.glob("run.py-error-*.log"))
    assert "in work\n" in told and "ZeroDivisionError: " in told and "in a thread" in told


@pytest.mark.parametrize("redirections", ["2>&-", "<&- >&- 2>&-", "2>&1 | true", ">&- 2>/dev/full"])
def test_streams_that_are_closed_take_no_file_with_them(redirections, tmp_path):
    """The next file that is opened would have the number of standard error, and whatever is printed in it."""
    code = (
        "import os, sys; from data.base.cli import guarded\n"
        "def work():\n"
        "    file = open('kept', 'wb', buffering=0)\n"
        "    print('out'); print('err', file=sys.stderr, flush=True); os.write(2, b'raw')\n"
        "    assert file.fileno() > 2 and file.write(b'kept')\n"
        "    return 0\n"
        "sys.exit(guarded('run.py', work))"
    )
    done = python(tmp_path, code, redirections)
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr
    ended_before = "|" in redirections or "full" in redirections
    assert (tmp_path / "kept").read_bytes() == b"kept" or ended_before


@pytest.mark.parametrize("flush", [True, False])
def test_a_full_disk_under_both_streams_is_bad_input(flush, tmp_path):
    code = "import sys; from data.base.cli import guarded\n"
    code += f"sys.exit(guarded('run.py', lambda: print('out', flush={flush}) or print('err', file=sys.stderr) or 0))"
    assert python(tmp_path, code, ">/dev/full 2>/dev/full").returncode == 2
    assert not list(tmp_path.glob("*.log"))


@pytest.mark.parametrize("word", ["a\udcff", "a\nb"])
def test_an_argument_that_no_file_could_hold_is_refused(word, cli, data_cli):
    for outcome in (
        cli("--train", "--dataDir", word),
        cli(f"--outDir={word}"),
        data_cli("check", word),
        data_cli("swap", "cohort", word),
    ):
        assert outcome.status == 2
        assert "is not allowed; expected one line" in outcome.err and outcome.err.count("\n") == 1
        assert outcome.err.strip().isprintable()


def test_the_current_folder_has_a_name_that_can_be_written(cli, tmp_path, monkeypatch):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert r"The current folder is" in (outcome := cli("--train")).err and outcome.status == 2
    odd.rmdir()
    assert "The current folder does not exist any more" in cli("--train").err


def test_the_root_is_no_target(cohort, data_cli):
    outcome = data_cli("swap", cohort, "/", "--copies", 1)
    assert (outcome.status, outcome.err) == (
        2,
        "abide-data: error: / cannot be written; name a folder or a file in it.\n",
    )


def lines_of(total: int, interval: float, monkeypatch, capsys) -> list[str]:
    """What `total` steps print, a second apart by a clock of our own."""
    clock = iter(range(1000))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(terminal, "PLAIN_INTERVAL_S", interval)
    with terminal.progress("Training nn", total) as shown:
        for step in range(total):
            shown.advance(f"loss {step}")
    return capsys.readouterr().out.splitlines()


def test_a_log_file_gets_the_first_step_one_line_an_interval_and_the_last_each_with_the_time_left(monkeypatch, capsys):
    lines = lines_of(25, 10.0, monkeypatch, capsys)
    assert [line.split(",")[0] for line in lines] == [f"Training nn {step}/25" for step in (1, 11, 21, 25)]
    assert "loss 10" in lines[1]
    assert not any("\x1b" in line or "\r" in line for line in lines)
    assert [line.rsplit(", ", 1)[1] for line in lines] == ["24 s left", "14 s left", "4 s left", "0 s left"]


def test_a_continued_run_counts_on_from_what_is_done(capsys):
    with terminal.progress("Training nn", 10, done=8) as shown:
        shown.advance()
        shown.advance()
    assert re.findall(r"(\d+)/10", capsys.readouterr().out) == ["9", "10"]


def test_quietly_a_log_file_gets_nothing(capsys):
    with terminal.quietly(), terminal.progress("Training nn", 1) as shown:
        shown.advance()
        terminal.print_unless_quiet("a result")
        print("a note")
    terminal.print_unless_quiet("after it")
    assert capsys.readouterr().out == "a note\nafter it\n"


def test_a_duration_has_a_fitting_unit():
    assert [terminal.duration(seconds) for seconds in (0.4, 99.4, 100, 5990, 12240)] == [
        *("0 s", "99 s", "2 min", "100 min", "3.4 h")
    ]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's way to say that this is a terminal
    monkeypatch.setenv("TERM", "xterm")
    with terminal.progress("Training nn", 3) as shown:
        shown.advance("loss 1", steps=3)
    out = capsys.readouterr().out
    assert "3/3" in out
    assert "loss 1" in out
    assert "\x1b[" in out
