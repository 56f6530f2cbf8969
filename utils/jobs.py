"""The jobs of run.py in one table. A new job is a module, three functions here, which import it when the job is done,
and a row."""

from collections.abc import Sequence

from data.cohorts.folds import divide_into_inner_folds
from utils.blackout import options as blackout_options
from utils.evaluation.options import TestOptions, check_estimator_options, check_prevalence
from utils.runs import guards
from utils.runs.plan import TrainOptions
from utils.runs.record import Manifest
from utils.runs.run import Job, Run


def check_train(run: Run, checkpoint_manifest: Manifest | None) -> None:
    guards.check_encoder_leak(run)
    guards.check_two_classes(run)
    guards.check_run_cross_validation(run)
    guards.check_output_folder_free(run)
    if checkpoint_manifest:
        guards.check_same_settings(run, checkpoint_manifest)
        guards.check_same_training(run, checkpoint_manifest)
        guards.check_checkpoint_leak(run, checkpoint_manifest)
    if run.candidates and run.folds:  # raises InputError if there are too few people
        divide_into_inner_folds(run.folds, run.cohort, run.seed)
        for candidate in run.candidates:
            run.with_single_candidate(candidate)


def do_train(run: Run) -> int:
    from utils.training.train import train_network

    return train_network(run)


def record_fold_trainings(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    from utils.training.train import pool_trainings

    pool_trainings(pooled_run, fold_runs)


def check_test(run: Run, checkpoint_manifest: Manifest | None) -> None:
    guards.check_encoder_leak(run)
    guards.check_output_folder_free(run)
    guards.check_checkpoint_use(run, checkpoint_manifest)
    check_prevalence(run)
    check_estimator_options(run)
    if run.predictor.is_fitted_when_used:
        guards.check_training_people(run)
        guards.check_two_classes(run)


def do_test(run: Run) -> int:
    from utils.evaluation.test import run_test

    return run_test(run)


def pool_test(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    from utils.evaluation.test import pool_tests

    pool_tests(pooled_run, fold_runs)


def check_blackout(run: Run, checkpoint_manifest: Manifest | None) -> None:
    check_test(run, checkpoint_manifest)
    blackout_options.check_blackout_possible(run)
    guards.check_distinct_record_files(run)


def do_blackout(run: Run) -> int:
    from utils.blackout.job import run_blackout

    return run_blackout(run)


def pool_blackout(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    from utils.blackout.job import pool_blackout_folds

    pool_blackout_folds(pooled_run, fold_runs)


def check_encode(run: Run, checkpoint_manifest: Manifest | None) -> None:
    guards.check_code_fits_models(run)
    guards.check_distinct_record_files(run)
    guards.check_output_folder_new(run)
    if checkpoint_manifest:
        guards.check_same_settings(run, checkpoint_manifest)
        guards.check_same_preparation(run, checkpoint_manifest)


def do_encode(run: Run) -> int:
    from utils.training.encode import encode_cohort

    return encode_cohort(run)


def pool_encode(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    from utils.training.encode import pool_reduced_cohorts

    pool_reduced_cohorts(pooled_run, fold_runs)


TRAIN_JOB = Job(
    job_name="train",
    help_text="train on the training participants",
    check_run=check_train,
    perform=do_train,
    pool_results=record_fold_trainings,
    options_class=TrainOptions,
    needs_checkpoint=False,
    takes_several_devices=True,
)
TEST_JOB = Job(
    job_name="test",
    help_text="measure on the test participants",
    check_run=check_test,
    perform=do_test,
    pool_results=pool_test,
    options_class=TestOptions,
)
BLACKOUT_JOB = Job(
    job_name="blackout",
    help_text="replace regions, connections and values one at a time",
    check_run=check_blackout,
    perform=do_blackout,
    pool_results=pool_blackout,
    options_class=blackout_options.BlackoutOptions,
    required_property="classifies",
    refusal_template="{model} cannot be blacked out, since it predicts no label; use --model {able}.",
)
ENCODE_JOB = Job(
    job_name="encode",
    help_text="reduce the whole cohort",
    check_run=check_encode,
    perform=do_encode,
    pool_results=pool_encode,
    required_property="reduces",
    refusal_template="A full pass reduces a cohort, and only {able} does that, not {model}; did you mean: "
    "run.py --train --model {model}?",
    has_flag=False,
    may_be_repeated=False,
    results_path_pattern="{data}_reduced",
)
JOBS = (TRAIN_JOB, TEST_JOB, BLACKOUT_JOB, ENCODE_JOB)
