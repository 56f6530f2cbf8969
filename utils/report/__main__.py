"""abide-report FOLDER: builds the page of a test again, from its saved tables; or an index of all runs in a folder."""

from pathlib import Path

from data.base.cli import Parser, run_guarded
from data.base.errors import InputError
from data.base.terminal import run_program
from utils.runs.record import MANIFEST_FILE

REPORT_PROGRAM = "abide-report"
REPORT_EXAMPLES = {
    "build the page of a test again": "results/mmnn-test-folds-10",
    "list all runs of a folder in index.html": "results",
}


def main() -> int:
    return run_guarded(REPORT_PROGRAM, build_report_or_index)


def make_parser() -> Parser:
    program_description = "Builds report.html from the tables of a test, or index.html of all runs in a folder."
    parser = Parser(prog=REPORT_PROGRAM, description=program_description, example_arguments_by_purpose=REPORT_EXAMPLES)
    parser.add_argument("folder", type=Path, help="the --outDir of a classifier's run.py --test; or a folder of runs")
    return parser


def build_report_or_index() -> int:
    folder = make_parser().parse_args().folder
    from utils.report import index  # costs `--help` nothing
    from utils.report.build import rewrite_report
    from utils.report.tables import read_test_folder
    from utils.scores.results import RESULT_TABLE_BY_NAME

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected that of a classifier's run.py --test, or one of runs.")
    is_test_folder = (
        folder / RESULT_TABLE_BY_NAME["predictions"].file_name
    ).exists()  # whatever became of its run.json
    if (
        not is_test_folder
        and not (folder / MANIFEST_FILE).is_file()
        and (finished_runs := index.find_finished_runs(folder))
    ):
        print(f"Index of {len(finished_runs)} runs: {index.write_index(folder, finished_runs)}")
    else:
        page_path = rewrite_report(folder)[0]
        print(f"Report: {page_path}{read_test_folder(folder).manifest.caveat_marks}")
    return 0


if __name__ == "__main__":
    run_program(main, REPORT_PROGRAM)
