"""Finds autism in brain activity and says where in the brain the evidence lies: trains, tests, reduces, blacks out."""

import argparse
import sys
from pathlib import Path

from data.base.cli import Parser, guarded, positive, seed, share
from models import MODELS
from utils.runs.jobs import FULL_PASS, JOBS

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="run.py", description=__doc__, epilog="No mode flag: the full pass, cae only, reduces a cohort.")
    top.set_defaults(job=FULL_PASS)
    mode = top.add_mutually_exclusive_group()
    for job in JOBS.values():
        if job.name != FULL_PASS:
            mode.add_argument(job.flag, dest="job", action="store_const", const=job.name, help=job.help)
    add = top.add_argument
    add("--model", choices=sorted(MODELS), default="mmnn", help="(default mmnn)")
    add("--numIters", type=positive, default=200, metavar="N", help="batches to have seen in all (default 200)")
    add("--chkPointDir", type=Path, default=Path("/data/ckpt"), metavar="DIR", help="checkpoints (default /data/ckpt)")
    add("--overrideChkpt", action="store_true", help="start from zero; the old checkpoint stays until the first save")
    add("--dataDir", type=Path, metavar="DIR", help="cohort, folder of records or JSON list (default: simulated demo)")
    add("--outDir", type=Path, metavar="DIR", help="results (default results/<model>-<job>)")
    add(
        "--folds",
        metavar="N|COLUMN",
        help="test everybody: N folds, or leave out one site, or covariate's value",
    )
    add("--fold", metavar="K", help="do this one of the folds: its number from 0, or the site")
    add("--jobs", type=positive, default=1, metavar="J", help="so many folds at a time (default 1)")
    add(
        "--validation",
        type=share,
        metavar="SHARE",
        help="of the training subjects, to choose the checkpoint (default 0)",
    )
    add("--shuffleLabels", action="store_true", help="permute the training labels: all results must come out at chance")
    add("--preset", metavar="NAME", help="named hyper-parameters of the model")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one hyper-parameter; may be repeated",
    )
    add("--seed", type=seed, metavar="N", help="of weights, batch order, folds and resampling (default 0)")
    add("--precision", choices=PRECISIONS, help="of the layers (default float32)")
    add("--subjects", metavar="A,B", help="black out these test subjects only")
    add("--maps", metavar="A,B", help="black out regions in these maps only, the others stay (default all)")
    add("--atlas", type=Path, metavar="FILE", help="black out the regions of this label image (default AAL)")
    add("--donors", type=positive, default=5, metavar="N", help="people whose regions fill each blackout (default 5)")
    add("--verify", type=positive, default=0, metavar="N", help="recompute N blackouts in full, print the difference")
    add("--shareGPU", action="store_true", help="use a GPU although other processes hold it")
    return top


def execute(top: argparse.ArgumentParser) -> int:
    """Checks everything that can be checked without TensorFlow, then imports it and does the job."""
    args = top.parse_args()
    from utils.runs.validate import validate

    run = validate(args, {name for name, value in vars(args).items() if value != top.get_default(name)})
    from utils.runs.perform import perform

    return perform(run, args.shareGPU)


def main() -> int:
    return guarded("run.py", lambda: execute(parser()))


if __name__ == "__main__":
    sys.exit(main())
