"""Finds autism in brain activity and says where in the brain the evidence lies: trains, tests, reduces, blacks out."""

import argparse
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace

from data.base.cli import Parser, add_options, make_options, run_guarded
from data.base.errors import InputError
from data.base.processes import has_several_processes
from data.base.terminal import print_summary, run_program
from utils.evaluation.options import TestOptions
from utils.jobs import ENCODE_JOB, JOBS
from utils.runs import work
from utils.runs.plan import Request, plan_runs
from utils.runs.run import PredictorOptions

TEN_FOLD_FLAGS = "--dataDir cohort --chkPointDir ckpt --folds 10"
RUN_PY_EXAMPLES = {
    "train mmnn in ten folds of everybody, two at a time": f"--train {TEN_FOLD_FLAGS} --jobs 2",
    "test everybody, after that": f"--test {TEN_FOLD_FLAGS}",
    "say where in the brain the evidence lies, after that": f"--blackout {TEN_FOLD_FLAGS}",
}


def make_parser() -> argparse.ArgumentParser:
    job_parser = Parser(prog="run.py", description=__doc__, example_arguments_by_purpose=RUN_PY_EXAMPLES)
    job_parser.set_defaults(job=ENCODE_JOB)
    job_group = job_parser.add_argument_group(
        "job", "without --train, --test or --blackout: the full pass of cae, reduces a cohort"
    )
    exclusive_flag_group = job_group.add_mutually_exclusive_group()
    for job in JOBS:
        if job.has_flag:
            exclusive_flag_group.add_argument(job.flag, dest="job", action="store_const", const=job, help=job.help_text)
    add_options(job_parser, Request)
    add_options(job_parser, PredictorOptions, "--test and --blackout only")
    for job in JOBS:
        add_options(job_parser, job.options_class, f"{job.flag} only")
    job_parser.set_defaults(model=None)  # tells whether the user names one
    return job_parser


def make_request(job_parser: argparse.ArgumentParser, args: argparse.Namespace) -> Request:
    """What the user asks for, with the bundle or the cross-validation that the options name. Raises InputError."""
    non_default_option_names = frozenset(
        option_name
        for option_name, option_value in vars(args).items()
        if option_value != job_parser.get_default(option_name)
    )
    args.model = args.model or Request.model
    job_options = make_options(args, args.job.options_class)
    request = make_options(
        args, Request, job=args.job, options=job_options, non_default_options=non_default_option_names
    )
    if isinstance(request.options, TestOptions) and request.options.predictions:
        from utils.predictors.request import use_predictions_in_request

        return use_predictions_in_request(request, request.options.predictions, request.options.control)
    if isinstance(request.options, PredictorOptions) and request.options.estimator:
        from utils.predictors.request import use_estimator_in_request

        options = request.options
        return use_estimator_in_request(
            request, request.options.estimator, options.inputs, options.atlas, options.debug
        )
    if isinstance(request.options, PredictorOptions) and request.options.bundle:
        from utils.bundle.model import use_bundle_in_request

        return use_bundle_in_request(request, request.options.bundle)
    if request.train_options and request.train_options.score and request.everybody:
        from utils.report.cross_validation import read_cross_validation

        return replace(request, cross_validation=read_cross_validation(request.train_options.score, request.model))
    return request


def execute_job() -> int:
    """Checks everything that can be checked without TensorFlow, then imports it and does the job."""
    job_parser = make_parser()
    args = job_parser.parse_args()
    if has_several_processes():
        check_several_processes(args)
    request = make_request(job_parser, args)
    if request.dry_run and not request.data_dir:
        raise InputError("--dryRun is about a cohort of yours, and writes none; name it with --dataDir.")
    permutation_count = request.options.permutations if isinstance(request.options, TestOptions) else None
    with redirect_stdout(None) if work.is_child_process() else nullcontext():  # the parent process has printed it
        plan = plan_runs(request, JOBS)

    if request.dry_run:
        from utils.preview import preview_plan

        print_summary(preview_plan(plan, request.jobs, permutation_count))
        return 0
    if has_several_processes():
        return work.train_with_workers(plan, request.share_GPU)
    work.remove_abandoned_locks(plan)
    exit_status = 0
    if work.is_child_process() or not plan.is_everything_done:
        exit_status = work.perform_plan(plan, request.jobs, request.share_GPU)
    elif not permutation_count:
        print("Everything is done.")
        plan.group.joint_run.print_finished_results()
    if permutation_count and not exit_status and request.fold is None:
        from utils.permutations import run_permutation_test

        exit_status = run_permutation_test(plan.group.refresh(), permutation_count, request.jobs, request.share_GPU)
    return exit_status


def check_several_processes(args: argparse.Namespace) -> None:
    """Raises InputError if several processes were started for what one does."""
    needs_single_process_by_flag = {
        args.job.flag: not args.job.takes_several_devices,
        "--choose": args.choose is not None,
        f"--jobs {args.jobs}": args.jobs > 1,
    }
    refused_flags = [
        flag for flag, needs_single_process in needs_single_process_by_flag.items() if needs_single_process
    ]
    if refused_flags:
        raise InputError(
            f"{refused_flags[0]} is for one process, but srun or TF_CONFIG names several, which only train a network "
            "together. Start one (srun --ntasks=1); an array over --fold shares folds among machines: "
            "docs/howto/run.md."
        )


def main() -> int:
    return run_guarded("run.py", execute_job)


if __name__ == "__main__":
    run_program(main, "run.py")
