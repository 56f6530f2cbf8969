"""Finds autism in brain activity and says where in the brain the evidence lies: trains, tests, reduces, blacks out."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from data.base.cli import Parser, add_options, guarded, positive, seed
from data.base.errors import InputError
from data.base.processes import several_processes
from data.base.terminal import start
from models import MODELS, PRECISIONS
from utils.evaluation.options import check_permutations
from utils.jobs import FULL_PASS, JOBS
from utils.runs.candidates import PRESETS
from utils.runs.run import BundleOptions
from utils.runs.validate import USUAL_CHECKPOINTS, Request, request, single_run

if TYPE_CHECKING:
    from utils.permutations import Permutations
    from utils.runs.group import Group
    from utils.runs.run import Run

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
    for job in JOBS.values():
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
    choose = "compare presets (default all) or the lines of a file in inner folds"
    add("--choose", nargs="?", const=PRESETS, metavar="A,B|FILE", help=choose)
    add("--jobs", type=positive, default=1, metavar="J", help="do J folds at a time (default 1)")
    everybody = "one model of all people, for use elsewhere; --test and --blackout use it on others"
    add("--everybody", action="store_true", help=everybody)
    add = top.add_argument_group("machine").add_argument
    add("--precision", choices=PRECISIONS, help="precision of the layers (default float32)")
    add("--shareGPU", action="store_true", help="use a GPU although other processes hold it")
    add_options(top, BundleOptions, "--test and --blackout only")
    for job in JOBS.values():
        add_options(top, job.options, f"{job.flag} only")
    return top


def execute() -> int:
    """Checks everything that can be checked without TensorFlow, then imports it and does the job."""
    top = parser()
    args = top.parse_args()
    given = {name for name, value in vars(args).items() if value != top.get_default(name)}
    if several_processes():
        check_together(args)
    if args.dryRun and not args.dataDir:
        raise InputError("--dryRun is about a cohort of yours, and writes none; name it with --dataDir.")
    if args.bundle and issubclass(args.job.options, BundleOptions):
        from utils.bundle.run import with_model

        with_model(args, given)
    asked = request(args, given, JOBS.values())
    if args.permutations:
        check_permutations(asked)
    work = settled(asked)
    if args.dryRun:
        from utils.preview import preview

        for line in preview(work):
            print(line, flush=True)
        return 0
    if work.nothing_to_do():
        print("Everything is done.")
        work.announce()
        return 0
    if several_processes():
        from utils.runs.group import train_together

        return train_together(cast("Run | Group", work), args.shareGPU)
    return work.perform(args.shareGPU)


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


def settled(asked: Request) -> "Run | Group | Permutations":
    """What the options ask for, with every choice made. What only some need is imported only for them."""
    args = asked.args
    if not (args.bundle or args.everybody or args.folds):
        return single_run(asked)
    if args.bundle:
        from utils.bundle.run import bundled_run

        return bundled_run(asked)
    if args.everybody:
        from utils.runs.everybody import everybody_run

        if getattr(args, "score", None):
            from utils.report.cross_validation import read_cross_validation

            asked = replace(asked, cross_validation=read_cross_validation(args.score, args.model))
        return everybody_run(asked)
    group = settled_on_folds(asked)
    if not args.permutations:
        return group
    from utils.permutations import permuted_run

    return permuted_run(group, args.permutations)


def settled_on_folds(asked: Request) -> "Group":
    """The group of runs on folds."""
    if asked.args.choose is not None:
        from utils.choice.chosen import chosen_run as of_options
    elif asked.is_repeated:
        from utils.runs.group import repeated_run as of_options
    else:
        from utils.runs.group import folded_run as of_options
    return of_options(asked)


def main() -> int:
    return guarded("run.py", execute)


if __name__ == "__main__":
    start(main, "run.py")
