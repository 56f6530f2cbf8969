"""abide-predict BUNDLE.zip: one person's maps -> the probability of autism, for research only."""

import argparse
import os
import re
from pathlib import Path

from data.base import files
from data.base.cli import Parser, guarded
from data.base.errors import InputError, shown
from data.base.processes import handled
from data.base.terminal import start
from utils.evaluation.options import rate
from utils.runs.guards import check_writable

PROGRAM = "abide-predict"
EXAMPLES = {
    "one person by a map": "model.zip --maps falff=new_falff.nii.gz --outDir results/person",
    "the same, with the phenotype and the series of parcels": "model.zip --maps falff=new_falff.nii.gz "
    "--phenotype AGE_AT_SCAN=12,SEX=1 --series new_timeseries.tsv",
}


def main() -> int:
    with handled(interrupt, ("SIGTERM",)):  # so that nothing of the person stays in the temporary folder
        return guarded(PROGRAM, predict)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def pairs(text: str, name: str = "[^,=]+") -> dict[str, str]:
    """`A=1,B=2` -> A: 1, B: 2; a comma that no such name follows is part of a value."""
    words = [word.partition("=") for word in re.split(f",(?={name}=)", text)]
    found = {name.strip(): value.strip() for name, _, value in words}
    if len(found) < len(words) or not all(name and sign and value for name, sign, value in words):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed; expected A=1,B=2, each name once")
    return found


def paths(text: str) -> dict[str, Path]:
    """`A=FILE,B=FILE`, of names of maps; a shell leaves a `~` as it is there."""
    return {name: Path(os.path.expanduser(path)) for name, path in pairs(text, r"\w[\w.-]*").items()}


def parser() -> Parser:
    told = "Predicts one person with a bundle. For research, not for a diagnosis."
    found = Parser(prog=PROGRAM, description=told, examples=EXAMPLES)
    add = found.add_argument
    add("bundle", type=Path, metavar="BUNDLE.zip")
    add("--maps", type=paths, required=True, metavar="NAME=FILE,...", help="NIfTI maps; a 4-D file is several of them")
    add(
        "--phenotype", type=pairs, default={}, metavar="NAME=VALUE,...", help="columns of the table; others are unknown"
    )
    add("--series", type=Path, metavar="FILE", help="the series of parcels, if the bundle reads connectomes")
    add("--prevalence", type=rate, metavar="P", help="the share of autism where it is used (default: as in training)")
    add("--outDir", type=Path, default=Path("results/predict"), metavar="DIR", help="default %(default)s")
    return found


def predict() -> int:
    args = parser().parse_args()
    check_out(args.outDir)
    from utils.bundle.model import Bundle  # costs `--help` nothing
    from utils.predict.given import Given
    from utils.predict.person import predicted

    bundle, given = Bundle.open(args.bundle), Given(args.maps, args.phenotype, args.series)
    print(*bundle.lines(), sep="\n", flush=True)
    with files.new_folder(args.outDir) as folder:
        try:
            found = predicted(bundle, given, args.prevalence)
        except InputError as error:
            raise InputError(parser().in_own_words(str(error))) from error
        print(*found.lines(), sep="\n", flush=True)
        from utils.predict import page  # figures, once there is something to draw

        page.write(folder, bundle, given, found)
    print(f"Page: {args.outDir / page.PAGE}")
    return 0


def check_out(folder: Path) -> None:
    """Raises InputError unless the folder is new, and can be made."""
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists; name another folder with --outDir, or remove it.")
    check_writable(folder, "--outDir")


if __name__ == "__main__":
    start(main, PROGRAM)
