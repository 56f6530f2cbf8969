"""Folds beside each other: a row each, and what ends one ends all."""

import os
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from helpers import SMALL_BATCH, TINY_NN, Outcome, assert_bit_equal, cohort_of, read_rows, row, run_of

from data.base import files, terminal
from data.base.errors import InputError
from data.base.terminal import print_unless_quiet, progress
from utils.choice.job import ChoiceOptions
from utils.jobs import JOBS
from utils.runs import side_by_side as module
from utils.runs.run import Run
from utils.runs.side_by_side import FoldProgress, environments, side_by_side
from utils.scores.results import UNDEFINED, Estimate, Headline


@dataclass(frozen=True)
class Leaf:
    """A run on a fold, which says what it does, and fails or is killed if its fold is called so."""

    out_dir: Path
    fold: str
    wait: bool
    override: bool = False
    options: ClassVar = SimpleNamespace(cost=1)
    job: ClassVar = SimpleNamespace(has_flag=False, needs_checkpoint=False)

    def locked(self) -> AbstractContextManager:
        return nullcontext(self)

    def is_done(self) -> bool:
        return False

    def is_due(self) -> bool:
        if self.fold == "locked":
            raise InputError("another run is there")
        return self.fold != "done"

    def call(self, device: str) -> int:
        print("Donors: 5 per record.")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.out_dir.mkdir()
        with progress("Training nn", 2) as shown:
            shown.advance("loss 0.5")
        if self.wait:
            time.sleep(60)
        if self.fold == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fold == "bad":
            raise InputError("it went wrong")
        if self.fold == "mistaken":
            raise ZeroDivisionError("of the program")
        return 0


def group_of(folder: Path, names: tuple[str, ...], wait: bool, fold: str | None) -> SimpleNamespace:
    """As a command with `--fold` makes it."""
    print("said by the process that asks, too")
    leaves = [Leaf(folder / f"begun-{at}-{name}", name, wait) for at, name in enumerate(names)]
    return SimpleNamespace(leaves=leaves)


@pytest.fixture
def folds(tmp_path, monkeypatch):
    """`folds(["0", "bad"], 2)` does these folds, two at a time; no line says what they are at."""
    monkeypatch.setattr(terminal, "NOTE_INTERVAL_S", float("inf"))

    def run(names, jobs, wait=False) -> int:
        again = partial(group_of, tmp_path, tuple(names), wait)
        repeats = [f"repeat {at}" for at in range(len(names) // len(set(names)))]
        progress = FoldProgress(again(None).leaves, repeats if len(repeats) > 1 else (), jobs)
        return side_by_side(again, progress, "cpu", share_gpu=False)

    return run


def test_each_fold_prints_a_row_when_it_has_ended(folds, capsys):
    assert folds(["0", "1", "2"], 2) == 0
    out, err = capsys.readouterr()
    said, first, *rows = [line for line in out.splitlines() if line != "Donors: 5 per record."]
    assert said.startswith("said")
    assert first == "To do: 3 of 3 folds, 2 at a time; each prints a row when it ends."
    assert sorted(row.partition(":")[0] for row in rows) == [f"Fold {at} ({at + 1} of 3)" for at in range(3)]
    assert ["left for all" in row for row in rows] == [True, True, False]
    assert out.count("Donors") == 1 and not err


def test_what_folds_in_other_processes_are_at_is_shown(folds, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "NOTE_INTERVAL_S", 0)
    assert folds(["0", "1"], 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "Fold 0 (1 of 2): Training nn 1/2, loss 0.5" in line]
    assert [line for line in lines if "Fold 1 (2 of 2): Training nn 1/2, loss 0.5" in line]


def test_a_fold_of_several_repeats_is_one_process(folds, capsys):
    assert folds(["0", "1", "0", "1"], 2) == 0
    told = capsys.readouterr().out
    assert "To do: 4 of 4 folds, of each of repeat 0 to repeat 1, 2 at a time;" in told
    titles = [line.partition(":")[0] for line in told.splitlines() if "Fold " in line]
    assert sorted(titles) == [f"Fold {fold} ({fold + 1} of 2), repeat {repeat}" for fold in (0, 1) for repeat in (0, 1)]


def test_after_a_fold_that_fails_no_other_is_begun(folds, capsys, tmp_path):
    assert folds(["bad", "1", "2"], 1) == 2
    out, err = capsys.readouterr()
    assert err == "run.py: error: it went wrong\n" and "Fold bad (1 of 3): not done, after " in out
    assert [path.name for path in tmp_path.glob("begun-*")] == ["begun-0-bad"]


def test_folds_that_another_command_did_or_does_are_told(folds, capsys):
    """One that is being done elsewhere does not keep those that were begun from ending."""
    assert folds(["done", "locked", "0"], 3) == 2
    out, err = capsys.readouterr()
    assert "Fold done (1 of 3): done." in out and "Fold locked (2 of 3): not done, after " in out
    assert "Fold 0 (3 of 3): " in out and err == "run.py: error: another run is there\n"


def test_a_mistake_of_the_program_is_raised_with_its_trace(folds, capsys):
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError: of the program$") as raised:
        folds(["mistaken", "0"], 2)
    assert "in call" in str(raised.value.__cause__)
    assert "Fold 0 (2 of 2): " in capsys.readouterr().out


def test_a_process_that_is_killed_is_named(folds, capsys):
    assert folds(["0", "killed"], 2) == 128 + signal.SIGKILL
    words = "run.py: error: Fold killed was killed by SIGKILL; is the memory too small for 2 jobs?\n"
    assert capsys.readouterr().err == words


def test_a_signal_stops_all_that_run_and_no_other_is_begun(folds, tmp_path):
    def stop():
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("begun-*"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop).start()
    assert folds(["0", "1", "2"], 2, wait=True) == 128 + signal.SIGTERM
    assert len(list(tmp_path.glob("begun-*"))) == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_each_process_has_its_share_of_the_cores(monkeypatch):
    for name in module.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(module, "cpu_count", lambda: 7)
    assert environments(3, False) == [dict.fromkeys(module.THREADS, "2") | {"CUDA_VISIBLE_DEVICES": "-1"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in environments(3, False)[0]


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in environments(2, False)] == ["GPU-a", "GPU-b"]
    with pytest.raises(InputError, match="--jobs 4 needs as many free GPUs, but 3 are free; use fewer jobs, or"):
        environments(4, False)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in environments(4, True)][3] == "GPU-a"


@pytest.mark.slow
@pytest.mark.bits
def test_folds_side_by_side_are_those_one_after_another(cli, cohort, tmp_path):
    """Also where they override others; the results are pooled once, when all are done."""
    settings = ("--model", "nn", "--numIters", 3, *TINY_NN, *SMALL_BATCH, "--folds", 2, "--dataDir", cohort)

    def train(name, *more, status=0) -> Outcome:
        outcome = cli(
            "--train", *settings, "--chkPointDir", tmp_path / name, "--outDir", tmp_path / f"out-{name}", *more
        )
        assert outcome.status == status, outcome.err
        return outcome

    train("one")
    train("other", "--set", "learning_rate=0.1")
    train("other", "--jobs", 2, "--overrideChkpt")
    for fold in ("0", "1"):
        assert_bit_equal(*(tmp_path / name / "nn" / "folds-2" / fold for name in ("one", "other")))
    with files.locked(tmp_path / "out-other.jobs"):  # as another command does that has begun
        assert (
            "out-other.jobs is being written by process" in train("other", "--jobs", 2, "--numIters", 5, status=2).err
        )
    pooled = [row for row in read_rows(tmp_path / "runs.csv") if row["folder"] == str(tmp_path / "out-other")]
    assert len(pooled) == 2  # once each time


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Three folds of a test, of two subjects each; a fold that is done took 30 s by a clock of our own."""
    clock = iter(range(0, 3000, 30))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    rows = [row("a.bin", split="test"), row("b.bin", split="test"), row("c.bin", split="train")]
    runs = [run_of(cohort=cohort_of(*rows), folder=tmp_path / name) for name in "012"]
    return [replace(run, job=JOBS["test"], fold=name) for run, name in zip(runs, "012", strict=True)]


def done(part, headline=None):
    """Does a fold as a test does: progress, results and where they are, a note, a file."""

    def call() -> int:
        with progress("Testing", 1) as shown:
            shown.advance()
        print_unless_quiet("2 test records: accuracy 0.5\nThe network does better than chance.")
        print("Floors left out: covariates.")
        part.out_dir.mkdir(parents=True)
        part.finish(headline)
        return 0

    return call


def test_a_fold_is_one_row_and_what_all_say_is_said_once(parts, capsys):
    """No row has a score of so few people, defined or not."""
    rows = FoldProgress(parts)
    assert rows.of(parts[0], done(parts[0], Headline("auc", Estimate(0.714, 0.5, 0.91)))) == 0
    assert rows.of(parts[1], done(parts[1])) == 0
    assert rows.of(parts[2], done(parts[2], Headline("auc", UNDEFINED))) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"To do: 3 of 3 folds; each prints a row when it ends. {module.ALL_FOLDS}",
        "Floors left out: covariates.",
        "Fold 0 (1 of 3): 2 subjects tested, 30 s; 60 s left for all",
        "Fold 1 (2 of 3): 2 subjects tested, 30 s; 30 s left for all",
        "Fold 2 (3 of 3): 2 subjects tested, 30 s",
    ]


def test_the_row_of_a_training_has_its_loss(parts, capsys):
    part = replace(parts[0], job=JOBS["train"])
    FoldProgress([part]).of(part, done(part, Headline("loss after 4 batches", Estimate(0.3, None, None))))
    assert capsys.readouterr().out.splitlines() == [
        "To do: 1 of 1 folds; each prints a row when it ends.",
        "Floors left out: covariates.",
        "Fold 0 (1 of 1): 1 subject trained on, loss after 4 batches 0.30, 30 s",
    ]


def test_what_a_fold_is_at_is_shown_every_half_minute_where_there_is_no_terminal(parts, capsys, monkeypatch):
    rows, clock = FoldProgress(parts), iter([0.0, 10.0, 31.0, 40.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    rows.shown = terminal.PlainNotes()
    for text in ("Training 1/9", "Training 2/9", "Training 3/9"):
        rows.tell(parts[1].out_dir, text)
    assert capsys.readouterr().out.splitlines()[1:] == ["Fold 1 (2 of 3): Training 2/9"]


def test_two_at_a_time_take_half_the_time(parts, capsys):
    rows = FoldProgress(parts, jobs=2)
    rows.ended(parts[0].out_dir, 200, 0)
    assert capsys.readouterr().out.splitlines()[1] == "Fold 0 (1 of 3): 2 subjects tested, 3 min; 3 min left for all"


def test_several_runs_on_the_folds_have_names_and_those_that_cost_more_take_longer(parts, capsys, tmp_path):
    """The time that is left is counted in trainings: a choice takes ten of them."""
    first, second, third = parts
    choosing = replace(third, out_dir=tmp_path / "c", options=ChoiceOptions({"a": first, "b": second}))
    assert (first.options.cost, choosing.options.cost) == (1, 10)
    rows = FoldProgress([first, choosing], ["candidate a", "choice"])
    rows.ended(first.out_dir, 20, 0)
    assert capsys.readouterr().out.splitlines() == [
        f"To do: 2 of 2 folds, of each of candidate a to choice; each prints a row when it ends. {module.ALL_FOLDS}",
        "Fold 0 (1 of 1), candidate a: 2 subjects tested, 20 s; 3 min left for all",
    ]
    assert rows.title(choosing.out_dir) == "Fold 2 (1 of 1), choice"


def test_a_fold_that_was_done_or_fails_is_named(parts, capsys, monkeypatch):
    rows = FoldProgress(parts)
    monkeypatch.setattr(Run, "is_due", lambda run: False)
    assert rows.perform(parts[0], "cpu") == 0
    with pytest.raises(ZeroDivisionError):
        rows.of(parts[1], lambda: 1 // 0)
    assert rows.of(parts[2], lambda: 143) == 143
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Fold 0 (1 of 3): done.",
        "Fold 1 (2 of 3): not done, after 30 s.",
        "Fold 2 (3 of 3): not done, after 30 s.",
    ]


def test_one_fold_that_was_asked_for_prints_all(parts, capsys):
    FoldProgress(parts, alone=True).of(parts[0], done(parts[0]))
    out = capsys.readouterr().out
    assert out.startswith("Fold 0 (1 of 3):\nTesting 1/1") and "better than chance" in out and "Results: " in out


def test_what_folds_said_in_other_processes_is_said_once_and_errors_go_to_stderr(parts, capsys):
    rows = FoldProgress(parts)
    rows.print_said("Donors: 5 per record.\nnote\n", "")
    rows.print_said("Donors: 5 per record.\n", "run.py: error: bad\n")
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == ["Donors: 5 per record.", "note"]
    assert err == "run.py: error: bad\n"
