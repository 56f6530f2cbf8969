"""python -m utils.predict BUNDLE.zip: one person's maps -> the probability of autism, for research only."""

import argparse
import os
from pathlib import Path

from data.base import files
from data.base.cli import Parser, guarded
from data.base.errors import InputError
from data.base.terminal import start
from data.base.text import shown
from utils.evaluation.options import rate

PROGRAM = "python -m utils.predict"


def main() -> int:
    return guarded(PROGRAM, predict)


def pairs(text: str) -> dict[str, str]:
    """`A=1,B=2` -> A: 1, B: 2."""
    words = [word.partition("=") for word in text.split(",")]
    found = {name.strip(): value.strip() for name, _, value in words}
    if len(found) < len(words) or not all(name and sign and value for name, sign, value in words):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed; expected A=1,B=2, each name once")
    return found


def parser() -> Parser:
    found = Parser(prog=PROGRAM, description="Predicts one person with a bundle. For research, not for a diagnosis.")
    add = found.add_argument
    add("bundle", type=Path, metavar="BUNDLE.zip")
    add("--maps", type=pairs, default={}, metavar="NAME=FILE,...", help="NIfTI maps; a 4-D file is several of them")
    add(
        "--phenotype", type=pairs, default={}, metavar="NAME=VALUE,...", help="columns of the table; others are unknown"
    )
    add("--series", type=Path, metavar="FILE", help="the series of parcels, if the bundle reads connectomes")
    add("--prevalence", type=rate, metavar="P", help="the share of autism where it is used (default: as in training)")
    add("--outDir", type=Path, default=Path("results/predict"), metavar="DIR", help="default %(default)s")
    return found


def predict() -> int:
    args = parser().parse_args()
    from utils.bundle.model import Bundle  # costs `--help` nothing
    from utils.predict import page, person

    if os.path.lexists(args.outDir):
        raise InputError(f"{args.outDir} exists; name another folder with --outDir, or remove it.")
    bundle = Bundle.open(args.bundle)
    given = person.Given(args.maps, args.phenotype, args.series)
    found = person.predicted(bundle, given, args.prevalence)
    with files.new_folder(args.outDir) as folder:
        page.write(folder, bundle, found)
    print(*bundle.lines(), *found.lines(), sep="\n")
    print(f"Page: {args.outDir / page.PAGE}")
    return 0


if __name__ == "__main__":
    start(main, PROGRAM)
