"""python -m utils.report FOLDER: builds the page of a test again, from its saved tables."""

from pathlib import Path

from data.base import files
from data.base.cli import Parser, guarded
from data.base.errors import InputError
from data.base.terminal import start
from utils.runs.results import record

PROGRAM = "python -m utils.report"


def main() -> int:
    return guarded(PROGRAM, build)


def build() -> int:
    parser = Parser(prog=PROGRAM, description="Builds report.html from the tables of a test.")
    parser.add_argument("folder", type=Path, help="the --outDir of a classifier's run.py --test")
    parser.add_argument(
        "--prevalence",
        type=float,
        metavar="SHARE",
        help="share of autism where decisions are made, from 0 to 1 (default: that among the tested people)",
    )
    args = parser.parse_args()
    folder = args.folder
    from utils.calibration import check_prevalence  # costs `--help` nothing
    from utils.report.build import write

    if args.prevalence is not None:
        check_prevalence(args.prevalence)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected that of a classifier's run.py --test.")
    with files.locked(folder):
        written = write(folder, args.prevalence)
        print(f"Report: {written[0]}")
        record(folder, *(path.name for path in written))
    return 0


if __name__ == "__main__":
    start(main, PROGRAM)
