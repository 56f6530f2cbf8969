"""abide-bundle CHECKPOINT OUT.zip: a trained model as one file that can leave the lab."""

import os
from dataclasses import replace
from pathlib import Path

from data.base import files
from data.base.cli import Parser, run_guarded
from data.base.errors import InputError
from data.base.terminal import print_summary, run_program

BUNDLE_PROGRAM = "abide-bundle"
BUNDLE_EXAMPLES = {
    "the network of everybody as one file": "ckpt/mmnn/everybody model.zip --licence CC-BY-4.0",
    "with the score of a test on folds": "ckpt/mmnn/everybody model.zip --score results/mmnn-test-folds-10",
}


def main() -> int:
    return run_guarded(BUNDLE_PROGRAM, write_bundle)


def make_parser() -> Parser:
    program_description = "Writes one file with all that prediction needs, and nobody's data."
    argument_parser = Parser(
        prog=BUNDLE_PROGRAM, description=program_description, example_arguments_by_purpose=BUNDLE_EXAMPLES
    )
    add_argument = argument_parser.add_argument
    add_argument("checkpoint", type=Path, help="of run.py --train --everybody, such as CKPT/mmnn/everybody")
    add_argument("out", type=Path, metavar="OUT.zip", help="file to write")
    add_argument(
        "--score", type=Path, metavar="DIR", help="the --outDir of the test on folds (default: the checkpoint's)"
    )
    add_argument(
        "--licence", default="", metavar="TEXT", help="of the weights, for the model card (default: not stated)"
    )
    return argument_parser


def write_bundle() -> int:
    args = make_parser().parse_args()
    from data.base import archive  # what follows costs `--help` nothing
    from data.conversion.template import BUNDLE_SUFFIX
    from utils.bundle import make
    from utils.bundle.model import BundleFile
    from utils.machines.devices import start_tensorflow
    from utils.runs.checkpoints import CheckpointFolder

    if args.out.suffix != BUNDLE_SUFFIX:
        raise InputError(f"{args.out} does not end in {BUNDLE_SUFFIX}; name the bundle such as model{BUNDLE_SUFFIX}.")
    files.check_target_is_new(args.out)
    checkpoint_folder = CheckpointFolder(args.checkpoint, "run.py --train --everybody")
    checkpoint_manifest, cohort = make.load_everybody_checkpoint(checkpoint_folder)
    checkpoint_manifest = replace(
        checkpoint_manifest, cross_validation=make.load_cross_validation(checkpoint_manifest, args.score)
    )
    with files.lock_exclusively(args.out):
        files.check_target_is_new(args.out)  # another command may have written it meanwhile
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a GPU would gain nothing
        start_tensorflow("cpu")
        bytes_by_file = make.make_bundle_files(checkpoint_folder, checkpoint_manifest, cohort, args.licence)
        with files.make_unfinished_path(args.out) as unfinished_path:
            archive.write_archive(unfinished_path, bytes_by_file)
    size_text = f"{args.out.stat().st_size:,} bytes, without scans, IDs or tables of anybody"
    print_summary([*BundleFile(args.out).make_summary_rows(), ("size", size_text)])
    return 0


if __name__ == "__main__":
    run_program(main, BUNDLE_PROGRAM)
