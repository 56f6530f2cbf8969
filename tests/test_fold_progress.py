"""A job on folds in the terminal: a row a fold, what all say once, and nothing of what stands in their files."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import cohort_of, row, run_of

from data.base.progress import progress, tell
from utils.choice.job import ChoiceOptions
from utils.jobs import JOBS
from utils.runs import fold_progress
from utils.runs.fold_progress import FoldProgress
from utils.runs.run import Run
from utils.scores.results import UNDEFINED, Estimate, Headline


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Three folds of a test, of two subjects each; a fold that is done took 30 s by a clock of our own."""
    clock = iter(range(0, 3000, 30))
    monkeypatch.setattr(fold_progress, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    rows = [row("a.bin", split="test"), row("b.bin", split="test"), row("c.bin", split="train")]
    runs = [run_of(cohort=cohort_of(*rows), folder=tmp_path / name) for name in "012"]
    return [replace(run, job=JOBS["test"], fold=name) for run, name in zip(runs, "012", strict=True)]


def done(part, headline=None):
    """Does a fold as a test does: progress, results and where they are, a note, a file."""

    def call() -> int:
        with progress("Testing", 1) as shown:
            shown.advance()
        tell("2 test records: accuracy 0.5\nThe network does better than chance.")
        print("Floors left out: covariates.")
        part.out_dir.mkdir(parents=True)
        part.finish(headline)
        return 0

    return call


def test_a_fold_is_one_row_and_what_all_say_is_said_once(parts, capsys):
    rows = FoldProgress(parts)
    assert rows.of(parts[0], done(parts[0], Headline("auc", Estimate(0.714, 0.5, 0.91)))) == 0
    assert rows.of(parts[1], done(parts[1], Headline("loss after 4 batches", Estimate(0.3, None, None)))) == 0
    assert rows.of(parts[2], done(parts[2], Headline("auc", UNDEFINED))) == 0
    assert capsys.readouterr().out.splitlines() == [
        "To do: 3 of 3 folds; each prints a row when it ends.",
        "Floors left out: covariates.",
        "Fold 0 (1 of 3): 2 subjects tested, AUC 0.71 (0.50 to 0.91), 30 s; 60 s left for all",
        "Fold 1 (2 of 3): 2 subjects tested, loss after 4 batches 0.30, 30 s; 30 s left for all",
        "Fold 2 (3 of 3): 2 subjects tested, AUC undefined, 30 s",
    ]


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
        "To do: 2 of 2 folds, of each of candidate a to choice; each prints a row when it ends.",
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
    rows.tell("Donors: 5 per record.\nnote\n", "")
    rows.tell("Donors: 5 per record.\n", "run.py: error: bad\n")
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == ["Donors: 5 per record.", "note"]
    assert err == "run.py: error: bad\n"
