"""Finds autism in brain activity and says where in the brain the evidence lies: trains, tests, reduces, blacks out."""

import argparse
import sys
from pathlib import Path

from data.errors import InputError
from models import MODELS

JOBS = ("train", "test", "blackout")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a whole number above 0")
    return int(text)


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a whole number from 0 to 4294967295")
    return int(text)


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"run.py: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="run.py", description=__doc__, epilog="No mode flag: the full pass, cae only, reduces a cohort.")
    mode = top.add_mutually_exclusive_group()
    mode.add_argument("--train", dest="job", action="store_const", const="train", help="train on the training subjects")
    mode.add_argument("--test", dest="job", action="store_const", const="test", help="measure on the test subjects")
    mode.add_argument("--blackout", dest="job", action="store_const", const="blackout", help="occlude atlas regions")
    add = top.add_argument
    add("--model", choices=sorted(MODELS), default="mmnn", help="(default mmnn)")
    add("--numIters", type=positive, default=200, metavar="N", help="batches to have seen in all (default 200)")
    add("--chkPointDir", type=Path, default=Path("/data/ckpt"), metavar="DIR", help="checkpoints (default /data/ckpt)")
    add("--overrideChkpt", action="store_true", help="start from zero; the old checkpoint stays until the first save")
    add("--dataDir", type=Path, metavar="DIR", help="cohort, folder of records or JSON list (default: simulated demo)")
    add("--outDir", type=Path, metavar="DIR", help="results (default results/<model>-<job>)")
    add("--preset", metavar="NAME", help="named hyper-parameters of the model")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one hyper-parameter; may be repeated")
    add("--seed", type=seed, metavar="N", help="of weights and batch order (default 0)")
    add("--precision", choices=PRECISIONS, help="of the layers (default float32)")
    add("--subjects", metavar="A,B", help="black out these test subjects only")
    add("--atlas", type=Path, metavar="FILE", help="black out the regions of this label image (default AAL)")
    add(
        "--verify", type=positive, default=0, metavar="N", help="recompute N blackouts in full and print the difference"
    )
    add("--shareGPU", action="store_true", help="use a GPU although other processes hold it")
    return top


def execute(args: argparse.Namespace) -> int:
    """Checks everything that can be checked without TensorFlow, then imports it and does the job."""
    from utils.settle import settle

    run = settle(args)
    from utils import devices

    devices.start_tensorflow(devices.choose_device(args.shareGPU), run.precision, run.seed)
    if run.job == "train":
        from utils.train import train as job
    elif run.job == "test":
        from utils.test import test as job
    elif run.job == "encode":
        from utils.encode import encode as job
    else:
        from utils.blackout import blackout as job
    return job(run)


def main() -> int:
    try:
        return execute(parser().parse_args())
    except InputError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'input or output'}: {error.strerror or error}."
    except KeyboardInterrupt:
        print("run.py: interrupted.", file=sys.stderr)
        return 130
    print(f"run.py: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
