"""abide-report FOLDER: builds the page of a test again, from its saved tables; or an index of all runs in a folder."""

from pathlib import Path

from data.base.cli import Parser, guarded
from data.base.errors import InputError
from data.base.terminal import start
from utils.runs.folders import read_manifest

PROGRAM = "abide-report"
EXAMPLES = {
    "build the page of a test again": "results/mmnn-test-folds-10",
    "the same, with decisions where 1 in 100 is autistic": "results/mmnn-test-folds-10 --prevalence 0.01",
    "list all runs of a folder in index.html": "results",
}


def main() -> int:
    return guarded(PROGRAM, build)


def parser() -> Parser:
    about = "Builds report.html from the tables of a test, or index.html of all runs in a folder."
    parser = Parser(prog=PROGRAM, description=about, examples=EXAMPLES)
    parser.add_argument("folder", type=Path, help="the --outDir of a classifier's run.py --test; or a folder of runs")
    told = "share of autism where decisions are made, between 0 and 1 (default: that of the tested people)"
    parser.add_argument("--prevalence", type=float, metavar="SHARE", help=told)
    return parser


def build() -> int:
    args = parser().parse_args()
    from utils.report import index  # costs `--help` nothing
    from utils.report.beside import runs_in
    from utils.report.build import write_again
    from utils.report.tables import read_test
    from utils.scores.calibration import check_prevalence

    folder = args.folder
    if args.prevalence is not None:
        check_prevalence(args.prevalence)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected that of a classifier's run.py --test, or one of runs.")
    if read_manifest(folder) is None and (runs := runs_in(folder)):
        if args.prevalence is not None:
            raise InputError("--prevalence goes with the folder of one test, not with a folder of runs; leave it out.")
        print(f"Index of {len(runs)} runs: {index.write(folder, runs)}")
    else:
        page = write_again(folder, args.prevalence)[0]
        print(f"Report: {page}{read_test(folder).run.marks}")
    return 0


if __name__ == "__main__":
    start(main, PROGRAM)
