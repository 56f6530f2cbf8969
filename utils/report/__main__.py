"""abide-report FOLDER: builds the page of a test again, from its saved tables; or an index of all runs in a folder."""

from pathlib import Path

from data.base.cli import Parser, run_guarded
from data.base.errors import InputError
from data.base.terminal import run_program
from utils.runs.record import MANIFEST_FILE

PROGRAM = "abide-report"
EXAMPLES = {
    "build the page of a test again": "results/mmnn-test-folds-10",
    "list all runs of a folder in index.html": "results",
}


def main() -> int:
    return run_guarded(PROGRAM, build)


def parser() -> Parser:
    about = "Builds report.html from the tables of a test, or index.html of all runs in a folder."
    parser = Parser(prog=PROGRAM, description=about, examples=EXAMPLES)
    parser.add_argument("folder", type=Path, help="the --outDir of a classifier's run.py --test; or a folder of runs")
    return parser


def build() -> int:
    folder = parser().parse_args().folder
    from utils.report import index  # costs `--help` nothing
    from utils.report.build import write_again
    from utils.report.tables import read_test
    from utils.scores.results import TABLES

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected that of a classifier's run.py --test, or one of runs.")
    tested = (folder / TABLES["predictions"].file).exists()  # whatever became of its run.json
    if not tested and not (folder / MANIFEST_FILE).is_file() and (runs := index.runs_in(folder)):
        print(f"Index of {len(runs)} runs: {index.write(folder, runs)}")
    else:
        page = write_again(folder)[0]
        print(f"Report: {page}{read_test(folder).run.marks}")
    return 0


if __name__ == "__main__":
    run_program(main, PROGRAM)
