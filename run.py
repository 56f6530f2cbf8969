"""Finds autism in brain activity and says where in the brain the evidence lies: trains, tests, reduces, blacks out."""

import argparse
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path

from data.base.cli import Parser, add_options, guarded, options_of, positive, seed
from data.base.errors import InputError
from data.base.processes import several_processes
from data.base.terminal import start
from models import MODELS, PRECISIONS
from utils.evaluation.options import TestOptions, check_permutations
from utils.jobs import FULL_PASS, JOBS
from utils.runs import work
from utils.runs.plan import USUAL_CHECKPOINTS, Asked, plan
from utils.runs.run import BundleOptions, whole

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
    add = group.add_argument
    add("--model", choices=sorted(MODELS), default="mmnn", help="(default mmnn)")
    add("--preset", metavar="NAME", help="named hyper-parameters of the model")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one hyper-parameter; may be repeated")
    add("--seed", type=seed, metavar="N", help="seed of weights, batch order, folds and resampling (default 0)")
    add("--dryRun", action="store_true", help="say who and how many trainings; write nothing")
    add = top.add_argument_group("data").add_argument
    add("--dataDir", type=Path, metavar="DIR", help="cohort or folder of records (default: simulated demo)")
    add("--chkPointDir", type=Path, default=USUAL_CHECKPOINTS, metavar="DIR", help="checkpoints (default /data/ckpt)")
    add("--outDir", type=Path, metavar="DIR", help="results (default results/<model>-<job>)")
    add = top.add_argument_group("folds").add_argument
    add("--folds", metavar="N|COLUMN", help="test everybody: in N folds, or leaving out one value of COLUMN at a time")
    add("--fold", metavar="K", help="do one fold only: its number from 0, or its site")
    repeats = "do it R times, each with the next seed, and take the mean (default 1)"
    add("--repeats", type=positive, default=1, metavar="R", help=repeats)
    add("--jobs", type=positive, default=1, metavar="J", help="do J folds at a time (default 1)")
    everybody = "one model of all people, for use elsewhere; --test and --blackout use it on others"
    add("--everybody", action="store_true", help=everybody)
    add = top.add_argument_group("machine").add_argument
    add("--precision", choices=PRECISIONS, help="precision of the layers (default float32)")
    add("--shareGPU", action="store_true", help="use a GPU although other processes hold it")
    add_options(top, BundleOptions, "--test and --blackout only")
    for job in JOBS:
        add_options(top, job.options, f"{job.flag} only")
    return top


def asked_for(top: argparse.ArgumentParser, args: argparse.Namespace) -> Asked:
    """What the user asks for, with the bundle or the test on folds that it names. Raises InputError."""
    asked = Asked(
        job=args.job,
        options=options_of(args, args.job.options),
        given=frozenset(name for name, value in vars(args).items() if value != top.get_default(name)),
        model_name=args.model,
        preset=args.preset,
        changes=tuple(args.set),
        seed=args.seed,
        data_dir=args.dataDir,
        chk_point_dir=args.chkPointDir,
        out_dir=args.outDir,
        folds=args.folds,
        fold=args.fold,
        repeats=args.repeats,
        jobs=args.jobs,
        everybody=args.everybody,
        precision=args.precision,
    )
    if isinstance(asked.options, BundleOptions) and asked.options.bundle:
        from utils.bundle.run import with_bundle

        asked = with_bundle(asked, asked.options.bundle)
    elif asked.training and asked.training.score and asked.everybody:
        from utils.report.cross_validation import read_cross_validation

        asked = replace(asked, cross_validation=read_cross_validation(asked.training.score, args.model))
    return asked


def execute() -> int:
    """Checks everything that can be checked without TensorFlow, then imports it and does the job."""
    top = parser()
    args = top.parse_args()
    if several_processes():
        check_together(args)
    if args.dryRun and not args.dataDir:
        raise InputError("--dryRun is about a cohort of yours, and writes none; name it with --dataDir.")
    asked = asked_for(top, args)
    permutations = asked.options.permutations if isinstance(asked.options, TestOptions) else None
    if permutations:
        check_permutations(asked)
    with redirect_stdout(None) if work.is_part() else nullcontext():  # who started it has said it
        runs = plan(asked, JOBS)
    only = None if asked.fold is None or not runs[0].folds else runs[0].folds.named(asked.fold)
    if args.dryRun:
        from utils.preview import preview

        for line in preview(runs, only, asked.jobs, permutations):
            print(line, flush=True)
        return 0
    if several_processes():
        return work.train_together(runs, only, args.shareGPU)
    status = 0
    if work.is_part() or not work.all_done(runs):
        status = work.perform(runs, only, asked.jobs, args.shareGPU)
    else:
        print("Everything is done.")
        whole(runs).announce()
    if permutations and not status:
        from utils.permutations import permute

        status = permute(runs, permutations, asked.jobs, args.shareGPU)
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
            "Start one (srun --ntasks=1); an array over --fold shares folds among machines: docs/scale.md."
        )


def main() -> int:
    return guarded("run.py", execute)


if __name__ == "__main__":
    start(main, "run.py")
