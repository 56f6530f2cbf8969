"""Finds autism in brain activity and says where in the brain the evidence lies: trains, tests, reduces, blacks out."""

import argparse
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace

from data.base.cli import Parser, add_options, guarded, options_of
from data.base.errors import InputError
from data.base.processes import several_processes
from data.base.terminal import print_facts, start
from utils.evaluation.options import TestOptions
from utils.jobs import FULL_PASS, JOBS
from utils.runs import work
from utils.runs.plan import Asked, plan
from utils.runs.run import BundleOptions, pooled

ON_FOLDS = "--dataDir cohort --chkPointDir ckpt --folds 10"
EXAMPLES = {
    "train mmnn in ten folds of everybody, two at a time": f"--train {ON_FOLDS} --jobs 2",
    "test everybody, after that": f"--test {ON_FOLDS}",
    "say where in the brain the evidence lies, after that": f"--blackout {ON_FOLDS}",
}


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="run.py", description=__doc__, examples=EXAMPLES)
    top.set_defaults(job=FULL_PASS)
    group = top.add_argument_group(
        "job", "without --train, --test or --blackout: the full pass of cae, reduces a cohort"
    )
    mode = group.add_mutually_exclusive_group()
    for job in JOBS:
        if job.has_flag:
            mode.add_argument(job.flag, dest="job", action="store_const", const=job, help=job.help)
    add_options(top, Asked)
    add_options(top, BundleOptions, "--test and --blackout only")
    for job in JOBS:
        add_options(top, job.options, f"{job.flag} only")
    top.set_defaults(model=None)  # tells whether the user names one
    return top


def asked_for(top: argparse.ArgumentParser, args: argparse.Namespace) -> Asked:
    """What the user asks for, with the bundle or the test on folds that it names. Raises InputError."""
    given = frozenset(name for name, value in vars(args).items() if value != top.get_default(name))
    args.model = args.model or Asked.model
    asked = options_of(args, Asked, job=args.job, options=options_of(args, args.job.options), given=given)
    if isinstance(asked.options, BundleOptions) and asked.options.bundle:
        from utils.bundle.model import with_bundle

        return with_bundle(asked, asked.options.bundle)
    if asked.training and asked.training.score and asked.everybody:
        from utils.report.cross_validation import read_cross_validation

        return replace(asked, cross_validation=read_cross_validation(asked.training.score, asked.model))
    return asked


def execute() -> int:
    """Checks everything that can be checked without TensorFlow, then imports it and does the job."""
    top = parser()
    args = top.parse_args()
    if several_processes():
        check_together(args)
    asked = asked_for(top, args)
    if asked.dry_run and not asked.data_dir:
        raise InputError("--dryRun is about a cohort of yours, and writes none; name it with --dataDir.")
    permutations = asked.options.permutations if isinstance(asked.options, TestOptions) else None
    with redirect_stdout(None) if work.is_child() else nullcontext():  # who started it has said it
        runs = plan(asked, JOBS)
    if asked.dry_run:
        from utils.preview import preview

        print_facts(preview(runs, asked.jobs, permutations))
        return 0
    if several_processes():
        return work.train_together(runs, asked.share_GPU)
    status = 0
    if work.is_child() or not work.all_done(runs):
        status = work.perform(runs, asked.jobs, asked.share_GPU)
    elif not permutations:
        print("Everything is done.")
        pooled(runs).announce()
    if permutations and not status and asked.fold is None:
        from utils.permutations import permute

        status = permute(runs, permutations, asked.jobs, asked.share_GPU)
    return status


def check_together(args: argparse.Namespace) -> None:
    """Raises InputError if several processes were started for what one does."""
    alone = {
        args.job.flag: not args.job.takes_several_devices,
        "--choose": args.choose is not None,
        f"--jobs {args.jobs}": args.jobs > 1,
    }
    if named := next((what for what, is_alone in alone.items() if is_alone), None):
        raise InputError(
            f"{named} is for one process, but srun or TF_CONFIG names several, which only train a network together. "
            "Start one (srun --ntasks=1); an array over --fold shares folds among machines: docs/howto/run.md."
        )


def main() -> int:
    return guarded("run.py", execute)


if __name__ == "__main__":
    start(main, "run.py")
