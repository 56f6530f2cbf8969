"""How long a training takes: what is said of it before, what moves meanwhile, and how soon it stops."""

import itertools
import re
import signal
from types import SimpleNamespace

import pytest
from commands import done, run
from helpers import assert_bit_equal

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]
BATCH_S = 30
TRAIN = "run.py --train --model {model} --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/out "
FORECAST = re.compile(r"^time +about (.+) for (.+) of (\w+ \w+), measured over 3 batches of (.+?);", re.MULTILINE)


@pytest.fixture
def slow(monkeypatch):
    """Each batch takes half a minute, but for the second, which waited for something else."""
    clock = itertools.accumulate(itertools.cycle([BATCH_S, 20 * BATCH_S, BATCH_S, BATCH_S]))
    monkeypatch.setattr("utils.runs.duration.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))


@pytest.mark.parametrize(
    "how, expected",
    [
        ("--numIters 20", [("10 min", "the training", "nn sine", "30 s")]),
        ("--numIters 20 --folds 3", [("30 min", "3 trainings", "nn sine", "30 s")]),
        ("--numIters 20 --folds 2 --choose {lines}", [("40 min", "4 trainings", "nn sine", "30 s")] * 2),
    ],
)
def test_the_first_batches_tell_once_how_long_it_takes(how, expected, slow, cohort, tmp_path, effort):
    """Of a choice, for each of two candidates: two folds of two inner ones."""
    effort(told_from_s=599)
    (tmp_path / "lines").write_text("--set members=1\n--set members=2\n")
    members = "" if "--choose" in how else "--set members=1 "
    outcome = run(TRAIN + members + how, model="nn", of=cohort, to=tmp_path, lines=tmp_path / "lines")
    assert outcome.status == 0, outcome.err
    assert FORECAST.findall(outcome.out) == expected


def test_nothing_is_forecast_below_ten_minutes(slow, cohort, tmp_path):
    train_output = done(f"{TRAIN}--set members=1 --numIters 19", model="nn", of=cohort, to=tmp_path)
    assert "time " not in train_output


def test_in_a_log_folds_say_how_far_the_training_is(cohort, tmp_path):
    train_output = done(f"{TRAIN}--set members=1 --numIters 3 --folds 2", model="nn", of=cohort, to=tmp_path)
    assert re.search(r"^Folds 0/2, Fold 0: Training nn \d/3, loss", train_output, re.MULTILINE)


def test_a_stopped_training_does_not_wait_for_many_batch_means(cohort, tmp_path, monkeypatch):
    """And ends, continued, with the weights of one that was not stopped."""
    monkeypatch.setattr("data.base.terminal.LINE_INTERVAL_S", 0)
    means = re.compile(r"means for batch norm: (\d of \d)")
    uninterrupted_output = done(f"{TRAIN}--numIters 6", model="ae", of=cohort, to=tmp_path / "whole")
    assert means.findall(uninterrupted_output) == [f"{batch} of 6" for batch in range(1, 7)]

    from utils.training.train import Training

    def check_loss(training: Training, seen: int, loss: float) -> None:
        if seen == 4:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "check_loss", check_loss)
        patch.setattr("utils.training.train.STOPPING_S", 0)
        stopped = run(f"{TRAIN}--numIters 6", model="ae", of=cohort, to=tmp_path / "parts")
    assert stopped.status == 128 + signal.SIGTERM and "Stopped at iteration 4 and saved" in stopped.out
    assert means.findall(stopped.out) == ["1 of 4"]
    done(f"{TRAIN}--numIters 6", model="ae", of=cohort, to=tmp_path / "parts")
    assert_bit_equal(tmp_path / "whole/ckpt/ae", tmp_path / "parts/ckpt/ae")
