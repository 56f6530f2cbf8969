"""abide-bundle CHECKPOINT OUT.zip: a trained model as one file that can leave the lab."""

import os
from pathlib import Path

from data.base import archive, files
from data.base.cli import Parser, guarded
from data.base.errors import InputError
from data.base.terminal import start

PROGRAM = "abide-bundle"
EXAMPLES = {
    "the networks of ten folds as one file": "ckpt/mmnn/folds-10 model.zip --licence CC-BY-4.0",
    "the network of everybody": "ckpt/mmnn/everybody model.zip",
}


def main() -> int:
    return guarded(PROGRAM, bundle)


def parser() -> Parser:
    told = "Writes one file with all that prediction needs, and nobody's data."
    found = Parser(prog=PROGRAM, description=told, examples=EXAMPLES)
    add = found.add_argument
    add("checkpoint", type=Path, help="such as CKPT/mmnn/everybody, or CKPT/mmnn/folds-10: the mean of its networks")
    add("out", type=Path, metavar="OUT.zip", help="file to write")
    add("--score", type=Path, metavar="DIR", help="the --outDir of the test on folds (default: the checkpoint's)")
    add("--licence", default="", metavar="TEXT", help="of the weights, for the model card (default: not stated)")
    return found


def bundle() -> int:
    args = parser().parse_args()
    from data.conversion.template import SUFFIX  # costs `--help` nothing
    from utils.bundle import make, trained
    from utils.bundle.model import Bundle

    if args.out.suffix != SUFFIX:
        raise InputError(f"{args.out} does not end in {SUFFIX}; name the bundle such as model{SUFFIX}.")
    files.check_new(args.out)
    networks = trained.trained_in(args.checkpoint)
    internal = trained.cross_validation_of(networks, args.score)
    cohort = trained.cohort_of(networks)
    trained.check_left_out(networks, cohort)
    from utils.machines.devices import start_tensorflow

    with files.locked(args.out):
        files.check_new(args.out)  # another command may have written it meanwhile
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a GPU would gain nothing
        start_tensorflow("cpu")
        parts = make.parts_of(networks, cohort, make.Told(internal, args.licence))
        with files.unfinished(args.out) as path:
            archive.write(path, parts)
            Bundle.open(path)  # nothing is called done that cannot be read
    print(*Bundle.open(args.out).lines(), *make.content_of(args.out), sep="\n")
    return 0


if __name__ == "__main__":
    start(main, PROGRAM)
