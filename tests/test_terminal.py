"""What a command shows: plain text, progress, one line for an error that nobody foresaw; in whatever it is shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

import lab as labs
import pytest
from commands import ROOT, run

BROKEN = """
import warnings

class NVMLError(Exception):
    pass

def nvmlInit():
    warnings.warn("odd\\nvalues")
    print("red")
    return 1 // 0
"""


def shell(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess:
    """Does a command in a shell, with redirections; `abide-data` and `run.py` are those of this Python."""
    programs = {"abide-data": f"{sys.executable} -m data", "run.py": f"{sys.executable} {ROOT}/run.py"}
    for name, program in programs.items():
        command = command.replace(name, program)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_process_never_ends_with_a_traceback(tmp_path):
    """Where a driver's library fails as nobody foresaw: what happened is in a log, in the current folder if it can be
    written, else in the temporary one."""
    data = labs.records(tmp_path / "records")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pynvml.py").write_text(BROKEN)
    command = f"run.py --train --model nn --dataDir {data} --chkPointDir {tmp_path}/ckpt --outDir {tmp_path}/out"
    (tmp_path / "at").mkdir()
    ended = shell(tmp_path / "at", command, PYTHONPATH=f"{tmp_path}/broken:{ROOT}")
    assert ended.returncode == 1 and "red\n" in ended.stdout
    warning, error = ended.stderr.splitlines()
    assert warning == "run.py: warning: odd values"
    (log,) = (tmp_path / "at").glob("run.py-error-*.log")
    assert "ZeroDivisionError" in error and "a mistake of the program, not yours" in error and log.name in error
    told = log.read_text()
    for words in ("Traceback", "in nvmlInit\n", "autism-blackout", "tensorflow", "Python 3."):
        assert words in told


@pytest.mark.slow
@pytest.mark.parametrize("redirections", ["2>&-", "<&- >&- 2>&-", "2>&1 | true", ">&- 2>/dev/full"])
def test_streams_that_are_closed_take_no_file_with_them(redirections, tmp_path):
    """The next file that is opened would have the number of standard error, and whatever is printed in it."""
    labs.records(tmp_path / "records")
    ended = shell(tmp_path, f"abide-data pack records copy --bin {redirections}")
    assert "Traceback" not in ended.stderr and "ignored" not in ended.stderr
    if "|" not in redirections and "full" not in redirections:
        for number in range(1, 9):
            assert (tmp_path / f"copy/{number}.bin").read_bytes() == labs.record(number)


@pytest.mark.slow
def test_a_full_disk_under_the_output_is_bad_input_and_a_reader_that_goes_is_no_error(converted, tmp_path):
    ended = shell(tmp_path, f"abide-data check {converted} >/dev/full")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert shell(tmp_path, f"abide-data check {converted} >/dev/full 2>/dev/full").returncode == 2
    ended = shell(tmp_path, f"abide-data check {converted} | true")
    assert ended.stderr == "" and not list(tmp_path.glob("*.log"))
    ended = shell(tmp_path, "abide-data check Zürich", PYTHONIOENCODING="ascii")
    assert ended.returncode == 2 and "Z\\xfcrich" in ended.stderr


def test_an_error_is_shown_without_what_steers_a_terminal_and_not_at_any_length(cohort, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a\x1b[31mb").touch()
    outcome = run("run.py --train --model nn --dataDir {of} --chkPointDir ckpt --outDir out", of=cohort)
    assert outcome.status == 2 and "out holds a\\x1b[31mb, and no run.json" in outcome.err
    outcome = run("run.py --train --model nn --set {long}=1", long="x" * 10_000)
    assert outcome.status == 2 and len(outcome.err) < 2100


@pytest.mark.parametrize("command", ["run.py --outDir={word}", "abide-data swap x {word}"])
def test_an_argument_that_no_file_could_hold_is_refused(command):
    outcome = run(command, word="a\udcff")
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert "is not allowed; expected one line" in outcome.err and outcome.err.strip().isprintable()


def test_a_current_folder_that_is_gone_is_told(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "The current folder does not exist any more" in run("run.py --train").err


def test_some_options_may_be_empty_and_beginnings_are_enough(tmp_path):
    """`--phenotype ""` says that there is none."""
    labs.pcp(tmp_path / "lab", labs.people(4))
    assert run("abide-data convert lab cohort --grid reduced --phenotype ''").status < 2
    outcome = run("run.py --train --numIter x")
    assert outcome.status == 2 and "argument --numIters: 'x' is not allowed" in outcome.err


@pytest.mark.slow
def test_progress_is_a_bar_in_a_terminal_and_lines_in_a_log(undrawn, cohort, monkeypatch):
    """The first step, one line an interval, and the last, each with the time that is left; a run that is continued
    counts on."""
    command = "run.py --train --model nn --set members=1 --dataDir {of} --chkPointDir ckpt --numIters "
    step = re.compile(r"^Training nn (\d+)/(\d+), loss [\d.]+, (?:.*, )?\d+ s left$", re.MULTILINE)
    first = run(f"{command} 5", of=cohort)
    found = step.findall(first.out)
    assert (first.status, found[0], found[-1]) == (0, ("1", "5"), ("5", "5")), first.out
    assert "\x1b" not in first.out and "\r" not in first.out
    assert step.findall(run(f"{command} 7", of=cohort).out)[0] == ("6", "7")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's way to say that this is a terminal
    monkeypatch.setenv("TERM", "xterm")
    out = run(f"{command} 8", of=cohort).out
    assert "8/8" in out and "\x1b[" in out and "loss" in out
