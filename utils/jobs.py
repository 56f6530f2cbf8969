"""The jobs of run.py in one table. A new job is a module, three functions here, which import it when it is done, and a
row."""

from collections.abc import Sequence

from data.cohorts.folds import divide_into_inner_folds
from utils.blackout import options as blackout
from utils.evaluation.options import TestOptions, check_prevalence
from utils.runs import guards
from utils.runs.plan import TrainOptions
from utils.runs.record import Record
from utils.runs.run import Job, Run


def check_train(run: Run, saved: Record | None) -> None:
    guards.no_leak_by_encoder(run)
    guards.two_classes(run)
    guards.as_scored(run)
    guards.free_output(run)
    if saved:
        guards.same_settings(run, saved)
        guards.same_training(run, saved)
        guards.no_leak(run, saved)
    if run.candidates and run.folds:  # there are people enough
        divide_into_inner_folds(run.folds, run.cohort, run.seed)
        for one in run.candidates:
            run.by(one)


def train(run: Run) -> int:
    from utils.training.train import train

    return train(run)


def pool_train(whole: Run, runs: Sequence[Run]) -> None:
    from utils.training.train import pool

    pool(whole, runs)


def check_test(run: Run, saved: Record | None) -> None:
    guards.no_leak_by_encoder(run)
    guards.free_output(run)
    guards.by_checkpoint(run, saved)
    check_prevalence(run)


def test(run: Run) -> int:
    from utils.evaluation.test import test

    return test(run)


def pool_test(whole: Run, runs: Sequence[Run]) -> None:
    from utils.evaluation.test import pool

    pool(whole, runs)


def check_blackout(run: Run, saved: Record | None) -> None:
    check_test(run, saved)
    blackout.possible_blackout(run)
    guards.distinct_names(run)


def black_out(run: Run) -> int:
    from utils.blackout.job import blackout

    return blackout(run)


def pool_blackout(whole: Run, runs: Sequence[Run]) -> None:
    from utils.blackout.job import pool

    pool(whole, runs)


def check_encode(run: Run, saved: Record | None) -> None:
    guards.code_fits(run)
    guards.distinct_names(run)
    guards.new_output(run)
    if saved:
        guards.same_settings(run, saved)
        guards.same_preparation(run, saved)


def encode(run: Run) -> int:
    from utils.training.encode import encode

    return encode(run)


def pool_encode(whole: Run, runs: Sequence[Run]) -> None:
    from utils.training.encode import pool

    pool(whole, runs)


TRAIN = Job(
    name="train",
    help="train on the training participants",
    check=check_train,
    do=train,
    pool=pool_train,
    options=TrainOptions,
    needs_checkpoint=False,
    takes_several_devices=True,
)
TEST = Job(
    name="test",
    help="measure on the test participants",
    check=check_test,
    do=test,
    pool=pool_test,
    options=TestOptions,
)
BLACKOUT = Job(
    name="blackout",
    help="replace regions, connections and values one at a time",
    check=check_blackout,
    do=black_out,
    pool=pool_blackout,
    options=blackout.BlackoutOptions,
    needs="classifies",
    refusal="{model} cannot be blacked out, since it predicts no label; use --model {able}.",
)
FULL_PASS = Job(
    name="encode",
    help="reduce the whole cohort",
    check=check_encode,
    do=encode,
    pool=pool_encode,
    needs="reduces",
    refusal="A full pass reduces a cohort, and only {able} does that, not {model}; did you mean: "
    "run.py --train --model {model}?",
    has_flag=False,
    is_repeated=False,
    out_dir="{data}_reduced",
)
JOBS = (TRAIN, TEST, BLACKOUT, FULL_PASS)
