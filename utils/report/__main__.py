"""abide-report FOLDER: builds the page of a test again, from its saved tables."""

from pathlib import Path

from data.base import files
from data.base.cli import Parser, guarded
from data.base.errors import InputError
from data.base.terminal import start
from data.cohorts.rows import listed
from utils.runs.folders import changed, read_manifest, record

PROGRAM = "abide-report"
EXAMPLES = {
    "build the page of a test again": "results/mmnn-test-folds-10",
    "the same, with decisions where 1 in 100 is autistic": "results/mmnn-test-folds-10 --prevalence 0.01",
}


def main() -> int:
    return guarded(PROGRAM, build)


def parser() -> Parser:
    parser = Parser(prog=PROGRAM, description="Builds report.html from the tables of a test.", examples=EXAMPLES)
    parser.add_argument("folder", type=Path, help="the --outDir of a classifier's run.py --test")
    told = "share of autism where decisions are made, between 0 and 1 (default: that of the tested people)"
    parser.add_argument("--prevalence", type=float, metavar="SHARE", help=told)
    return parser


def build() -> int:
    args = parser().parse_args()
    from utils.report.build import write
    from utils.scores.calibration import check_prevalence  # costs `--help` nothing

    folder = args.folder
    if args.prevalence is not None:
        check_prevalence(args.prevalence)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected that of a classifier's run.py --test.")
    with files.locked(folder):
        check_as_written(folder)
        written = write(folder, args.prevalence)
        print(f"Report: {written[0]}")
        record(folder, *(path.name for path in written))
    return 0


def check_as_written(folder: Path) -> None:
    """Raises InputError if tables of a finished test are gone or not as it wrote them."""
    from utils.scores.results import DATA

    manifest = read_manifest(folder)
    if manifest and (odd := [name for name in changed(folder, manifest) if name in DATA]):
        raise InputError(f"{folder} is not as the test wrote it: {listed(odd)}; copy the folder again, or test again.")


if __name__ == "__main__":
    start(main, PROGRAM)
