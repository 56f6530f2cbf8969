"""abide-bundle CHECKPOINT OUT.zip: a trained model as one file that can leave the lab."""

import os
from dataclasses import replace
from pathlib import Path

from data.base import files
from data.base.cli import Parser, run_guarded
from data.base.errors import InputError
from data.base.terminal import print_summary, run_program

PROGRAM = "abide-bundle"
EXAMPLES = {
    "the network of everybody as one file": "ckpt/mmnn/everybody model.zip --licence CC-BY-4.0",
    "with the score of a test on folds": "ckpt/mmnn/everybody model.zip --score results/mmnn-test-folds-10",
}


def main() -> int:
    return run_guarded(PROGRAM, bundle)


def parser() -> Parser:
    told = "Writes one file with all that prediction needs, and nobody's data."
    found = Parser(prog=PROGRAM, description=told, examples=EXAMPLES)
    add = found.add_argument
    add("checkpoint", type=Path, help="of run.py --train --everybody, such as CKPT/mmnn/everybody")
    add("out", type=Path, metavar="OUT.zip", help="file to write")
    add("--score", type=Path, metavar="DIR", help="the --outDir of the test on folds (default: the checkpoint's)")
    add("--licence", default="", metavar="TEXT", help="of the weights, for the model card (default: not stated)")
    return found


def bundle() -> int:
    args = parser().parse_args()
    from data.base import archive  # what follows costs `--help` nothing
    from data.conversion.template import BUNDLE_SUFFIX
    from utils.bundle import make
    from utils.bundle.model import BundleFolder
    from utils.machines.devices import start_tensorflow
    from utils.runs.checkpoints import CheckpointFolder

    if args.out.suffix != BUNDLE_SUFFIX:
        raise InputError(f"{args.out} does not end in {BUNDLE_SUFFIX}; name the bundle such as model{BUNDLE_SUFFIX}.")
    files.check_new(args.out)
    folder = CheckpointFolder(args.checkpoint, "run.py --train --everybody")
    saved, cohort = make.of_everybody(folder)
    saved = replace(saved, cross_validation=make.cross_validation_of(saved, args.score))
    with files.locked(args.out):
        files.check_new(args.out)  # another command may have written it meanwhile
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a GPU would gain nothing
        start_tensorflow("cpu")
        parts = make.parts_of(folder, saved, cohort, args.licence)
        with files.unfinished(args.out) as path:
            archive.write_archive(path, parts)
    size = f"{args.out.stat().st_size:,} bytes, without scans, IDs or tables of anybody"
    print_summary([*BundleFolder(args.out).facts(), ("size", size)])
    return 0


if __name__ == "__main__":
    run_program(main, PROGRAM)
