"""What a command shows: plain text, warnings, progress; in whatever it is shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

import lab as labs
import pytest
from commands import ROOT, done, end_in_terminal, run

BROKEN = """
import warnings

class NVMLError(Exception):
    pass

def nvmlInit():
    warnings.warn("odd\\nvalues")
    print("red")
    return 1 // 0
"""


def run_in_shell(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess:
    """Does a command in a shell, with redirections; `abide-data` and `run.py` are those of this Python."""
    programs = {"abide-data": f"{sys.executable} -m data", "run.py": f"{sys.executable} {ROOT}/run.py"}
    for name, program in programs.items():
        command = command.replace(name, program)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_warning_is_a_single_line_and_an_unforeseen_error_a_traceback(tmp_path):
    """Where a driver's library fails."""
    data = labs.records(tmp_path / "records")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pynvml.py").write_text(BROKEN)
    command = f"run.py --train --model nn --dataDir {data} --chkPointDir {tmp_path}/ckpt --outDir {tmp_path}/out"
    ended = run_in_shell(tmp_path, command, PYTHONPATH=f"{tmp_path}/broken:{ROOT}")
    assert ended.returncode == 1 and "red\n" in ended.stdout
    assert ended.stderr.startswith("run.py: warning: odd values\nTraceback")
    assert "in nvmlInit\n" in ended.stderr and "ZeroDivisionError" in ended.stderr


def squeeze_lines(text: str) -> list[str]:
    """Lines without alignment."""
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("job, score_words", [("test", "more than covariates"), ("blackout", "AUC")])
def test_a_finished_command_repeats_its_score(job, score_words, on_folds, converted, blackout):
    """In lines that it printed when it finished, and ten of them at most."""
    results = {"test": on_folds / "test", "blackout": blackout}[job]
    command = f"run.py --{job} --folds 3 --dataDir {{of}} --chkPointDir {{ckpt}}/ckpt --outDir {{to}}"
    command += " --donors 1" if job == "blackout" else ""
    repeated_output = done(command, of=converted, ckpt=on_folds, to=results)
    _, done_text, repeated_text = repeated_output.partition("Everything is done.\n")
    repeated_lines = squeeze_lines(repeated_text)
    assert done_text and 3 < len(repeated_lines) < 10 and score_words in repeated_text
    assert {*repeated_lines} <= {*squeeze_lines(results.with_name(f"{job}.out").read_text())}
    shown_lines = end_in_terminal(command, of=converted, ckpt=on_folds, to=results)
    assert len(shown_lines) - shown_lines.index("Everything is done.") <= 10 + len(str(results)) // 80


@pytest.mark.slow
def test_a_full_disk_under_the_output_is_bad_input_and_a_closed_reader_is_no_error(converted, tmp_path):
    ended = run_in_shell(tmp_path, f"abide-data check {converted} >/dev/full")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert run_in_shell(tmp_path, f"abide-data check {converted} >/dev/full 2>/dev/full").returncode == 2
    ended = run_in_shell(tmp_path, f"ulimit -f 10; abide-data pack {converted} packed --zip")
    assert ended.returncode == 2 and re.search(r"packed.*\(ulimit -f\)", ended.stderr)
    assert "space" not in ended.stderr and not (tmp_path / "packed").exists()
    ended = run_in_shell(tmp_path, f"abide-data check {converted} | true")
    assert ended.stderr == "" and not list(tmp_path.glob("*.log"))
    ended = run_in_shell(tmp_path, "abide-data check Zürich", PYTHONIOENCODING="ascii")
    assert ended.returncode == 2 and "Z\\xfcrich" in ended.stderr


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
    printed_steps = step.findall(first.out)
    assert (first.status, printed_steps[0], printed_steps[-1]) == (0, ("1", "5"), ("5", "5")), first.out
    assert "\x1b" not in first.out and "\r" not in first.out
    assert step.findall(run(f"{command} 7", of=cohort).out)[0] == ("6", "7")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's way to say that this is a terminal
    monkeypatch.setenv("TERM", "xterm")
    out = run(f"{command} 8", of=cohort).out
    assert "8/8" in out and "\x1b[" in out and "loss" in out


RUN = "run.py {how} --folds 3 --dataDir {of} --chkPointDir {by}/ckpt --outDir out"
COMMANDS_BY_NAME = {
    "test on folds": RUN.replace("{how}", "--test"),
    "test by a bundle": "run.py --test --bundle {model} --dataDir {others} --outDir out",
    "blackout": RUN.replace("{how}", "--blackout --donors 1"),
    "compare": "abide-compare {by}/test {other}/test --outDir out",
    "convert": "abide-data convert {lab} cohort --grid reduced",
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS_BY_NAME)
def test_a_command_ends_in_ten_lines_with_80_columns(
    command, undrawn, lab, converted, on_folds, nn_on_folds, bundle, newcomers
):
    """A test by a bundle warns in long sentences, and says why nothing can be concluded."""
    places = {"by": on_folds, "other": nn_on_folds, "of": converted, "model": bundle, "others": newcomers, "lab": lab}
    lines = end_in_terminal(COMMANDS_BY_NAME[command], **places)
    assert 2 <= len(lines) <= 10, "\n".join(lines)
