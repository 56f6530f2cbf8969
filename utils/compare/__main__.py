"""abide-compare RUN RUN [RUN...]: whether one test is better than another of the same people, or what all blackouts of
them show."""

from collections.abc import Sequence
from pathlib import Path

from data.base import files
from data.base.cli import Parser, run_guarded
from data.base.errors import InputError
from data.base.terminal import run_program

COMPARE_PROGRAM = "abide-compare"
COMPARE_EXAMPLES = {
    "whether one of two tests of the same people is better": "results/mmnn-test-folds-10 results/nn-test-folds-10",
    "several tests, into a folder of your own": "results/a results/b results/c --outDir results/abc",
    "what several blackouts of the same people show": "results/a-blackout results/b-blackout",
}


def main() -> int:
    return run_guarded(COMPARE_PROGRAM, compare_runs)


def make_parser() -> Parser:
    program_description = "Compares classifiers that were tested, or blacked out, on the same participants."
    argument_parser = Parser(
        prog=COMPARE_PROGRAM, description=program_description, example_arguments_by_purpose=COMPARE_EXAMPLES
    )
    runs_help = "the --outDir of a run.py --test, or --blackout"
    argument_parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=runs_help)
    argument_parser.add_argument("--outDir", type=Path, default=Path("results/compare"), help="default %(default)s")
    return argument_parser


def compare_runs() -> int:
    args = make_parser().parse_args()
    from utils.compare import agreement, page, runs  # costs `--help` nothing
    from utils.runs.record import Manifest, check_outside_other_results, claim_results_folder

    if len({run_folder.resolve() for run_folder in args.runs}) < max(2, len(args.runs)):
        run_folders_text = " ".join(map(str, args.runs))
        raise InputError(f"There is nothing to compare in {run_folders_text}; name two runs or more, each once.")
    check_outside_other_results(args.outDir)
    if agreement.are_all_blackouts(args.runs):
        return compare_blackouts(args.runs, args.outDir)
    finished_tests = runs.open_tests(args.runs)
    with files.lock_exclusively(args.outDir):
        claim_results_folder(args.outDir, Manifest(job=page.COMPARE_JOB))
        pair_rows = runs.compare_pairs(finished_tests)
        page_path = page.write_comparison(args.outDir, finished_tests, pair_rows)
        page.print_comparison(finished_tests, pair_rows)
        print(f"Comparison{page.join_caveat_marks(finished_tests)}: {page_path}")
    return 0


def compare_blackouts(blackout_folders: Sequence[Path], out_folder: Path) -> int:
    """What several blackouts of the same people show."""
    from utils.compare import agreement, agreement_page
    from utils.runs.record import Manifest, claim_results_folder

    blackouts = agreement.open_blackouts(blackout_folders)
    agreement_table = agreement.make_agreement_table(blackouts)
    correlation_table = agreement.make_correlation_table(blackouts, agreement_table)
    with files.lock_exclusively(out_folder):
        claim_results_folder(out_folder, Manifest(job=agreement_page.AGREEMENT_JOB))
        page_path = agreement_page.write_agreement(out_folder, blackouts, agreement_table, correlation_table)
        agreement_page.print_agreement(blackouts, agreement_table, correlation_table)
        print(f"Agreement{agreement_page.join_caveat_marks(blackouts)}: {page_path}")
    return 0


if __name__ == "__main__":
    run_program(main, COMPARE_PROGRAM)
