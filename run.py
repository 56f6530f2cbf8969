"""Finds autism in brain activity and says where in the brain the evidence lies: trains, tests, reduces, blacks out."""

import argparse
from dataclasses import replace
from pathlib import Path

from data.base.cli import MAX_JOBS, MAX_REPEATS, Parser, add_options, guarded, seed, whole
from data.base.processes import several_processes
from data.base.terminal import start
from models import MODELS
from models.settings import PRECISIONS
from utils.evaluation.options import check_permutations
from utils.jobs import FULL_PASS, JOBS
from utils.machines.devices import choose_device
from utils.runs.candidates import PRESETS, QUICK
from utils.runs.everybody import everybody_run
from utils.runs.folded import folded_run
from utils.runs.pooled import PooledRun
from utils.runs.repeated import repeated_run
from utils.runs.requests import request
from utils.runs.run import Run
from utils.runs.side_by_side import end_with_parent
from utils.runs.validate import CHECKPOINTS, Request, single_run

EXAMPLES = """examples:
  run.py --train --dataDir cohort --chkPointDir ckpt              train mmnn on a cohort that is reduced
  run.py --test --dataDir cohort --chkPointDir ckpt --folds 10    test everybody, after --train with the same --folds
  run.py --blackout --dataDir cohort --chkPointDir ckpt           say where in the brain the evidence lies
"""


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="run.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    add("--seed", type=seed, metavar="N", help="of weights, batch order, folds and resampling (default 0)")
    add = top.add_argument_group("data").add_argument
    add("--dataDir", type=Path, metavar="DIR", help="cohort, folder of records or JSON list (default: simulated demo)")
    add("--chkPointDir", type=Path, default=CHECKPOINTS, metavar="DIR", help="checkpoints (default /data/ckpt)")
    add("--outDir", type=Path, metavar="DIR", help="results (default results/<model>-<job>)")
    add = top.add_argument_group("folds").add_argument
    add("--folds", metavar="N|COLUMN", help="test everybody: N folds, or leave out one site, or covariate's value")
    add("--fold", metavar="K", help="do this one of the folds: its number from 0, or the site")
    repeats = "so often, each time by the next seed, and the mean of all (default 1)"
    add("--repeats", type=whole(1, MAX_REPEATS), default=1, metavar="R", help=repeats)
    choose = f"compare presets (default all) or the lines of a file in inner folds; '{QUICK}[,...]': without these"
    add("--choose", nargs="?", const=PRESETS, metavar="A,B|FILE", help=choose)
    add("--jobs", type=whole(1, MAX_JOBS), default=1, metavar="J", help="so many folds at a time (default 1)")
    everybody = "one model of all people, for use elsewhere; --test and --blackout use it on others"
    add("--everybody", action="store_true", help=everybody)
    add = top.add_argument_group("machine").add_argument
    add("--precision", choices=PRECISIONS, help="of the layers (default float32)")
    add("--shareGPU", action="store_true", help="use a GPU although other processes hold it")
    for job in JOBS.values():
        add_options(top, job.options, f"{job.flag} only")
    return top


def execute() -> int:
    """Checks everything that can be checked without TensorFlow, then imports it and does the job."""
    end_with_parent()
    top = parser()
    args = top.parse_args()
    given = {name for name, value in vars(args).items() if value != top.get_default(name)}
    if args.bundle and args.job is JOBS["test"]:
        from utils.bundle.run import with_model

        with_model(args, given)
    asked = request(args, given, JOBS.values())
    if args.permutations:
        check_permutations(asked)
    return perform(settled(asked), args.shareGPU)


def settled(asked: Request) -> Run:
    """The run that the options ask for. What chooses and permutes is imported only where it is wanted."""
    args = asked.args
    if args.bundle:
        from utils.bundle.run import bundled_run as of_options
    elif args.choose is not None:
        from utils.choice.chosen import chosen_run as of_options
    elif args.everybody:
        of_options = everybody_run
        if getattr(args, "score", None):
            from utils.report import internal

            asked = replace(asked, internal=internal.read(args.score, args.model))
    else:
        of_options = repeated_run if asked.is_repeated else folded_run if args.folds else single_run
    if not args.permutations or args.fold:  # a process of --jobs tests its fold
        return of_options(asked)
    from utils.permutations.permuted import permuted_run

    return permuted_run(of_options(asked), args.permutations)


def perform(run: Run, share_gpu: bool) -> int:
    """Does the job on a free GPU or the CPU, with other workers if there are any; returns the exit status."""
    if isinstance(run, PooledRun) and run.is_done() and not run.override:
        print("Everything is done.")
        run.announce()
        return 0
    if several_processes():
        from utils.machines.workers import find_workers
        from utils.runs.team import perform_together

        workers = find_workers()
        if not (run.job.is_shared or workers.is_chief):
            print(f"Worker {workers.index} of {workers.count}: nothing to do, the first one does all of this job.")
            return 0
        if workers.count > 1 and run.job.is_shared:
            return perform_together(run, workers, share_gpu)
    if isinstance(run, PooledRun) and run.jobs > 1:
        return run.perform_side_by_side(share_gpu)
    return run.perform_on(choose_device(share_gpu, several=run.job.takes_several_gpus))


def main() -> int:
    return guarded("run.py", execute)


if __name__ == "__main__":
    start(main, "run.py")
