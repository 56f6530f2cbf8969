"""abide-compare RUN RUN [RUN...]: whether one test is better than another of the same people."""

from pathlib import Path

from data.base import files
from data.base.cli import Parser, run_guarded
from data.base.errors import InputError
from data.base.terminal import run_program

COMPARE_PROGRAM = "abide-compare"
COMPARE_EXAMPLES = {
    "whether one of two tests of the same people is better": "results/mmnn-test-folds-10 results/nn-test-folds-10",
    "several tests, into a folder of your own": "results/a results/b results/c --outDir results/abc",
}


def main() -> int:
    return run_guarded(COMPARE_PROGRAM, compare_runs)


def make_parser() -> Parser:
    program_description = "Compares classifiers that were tested on the same participants."
    argument_parser = Parser(
        prog=COMPARE_PROGRAM, description=program_description, example_arguments_by_purpose=COMPARE_EXAMPLES
    )
    argument_parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --outDir of a run.py --test")
    argument_parser.add_argument("--outDir", type=Path, default=Path("results/compare"), help="default %(default)s")
    return argument_parser


def compare_runs() -> int:
    args = make_parser().parse_args()
    from utils.compare import page, runs  # costs `--help` nothing
    from utils.runs.record import Manifest, check_outside_other_results, claim_results_folder

    if len({run_folder.resolve() for run_folder in args.runs}) < max(2, len(args.runs)):
        run_folders_text = " ".join(map(str, args.runs))
        raise InputError(f"There is nothing to compare in {run_folders_text}; name two runs or more, each once.")
    check_outside_other_results(args.outDir)
    finished_tests = runs.open_tests(args.runs)
    with files.lock_exclusively(args.outDir):
        claim_results_folder(args.outDir, Manifest(job=page.COMPARE_JOB))
        pair_rows = runs.compare_pairs(finished_tests)
        page_path = page.write_comparison(args.outDir, finished_tests, pair_rows)
        page.print_comparison(finished_tests, pair_rows)
        print(f"Comparison{page.join_caveat_marks(finished_tests)}: {page_path}")
    return 0


if __name__ == "__main__":
    run_program(main, COMPARE_PROGRAM)
