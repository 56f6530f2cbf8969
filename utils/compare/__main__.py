"""abide-compare RUN RUN [RUN...]: whether one test is better than another of the same people."""

from pathlib import Path

from data.base import files
from data.base.cli import Parser, run_guarded
from data.base.errors import InputError
from data.base.terminal import run_program

PROGRAM = "abide-compare"
EXAMPLES = {
    "whether one of two tests of the same people is better": "results/mmnn-test-folds-10 results/nn-test-folds-10",
    "several tests, into a folder of your own": "results/a results/b results/c --outDir results/abc",
}


def main() -> int:
    return run_guarded(PROGRAM, compare)


def parser() -> Parser:
    told = "Compares classifiers that were tested on the same participants."
    found = Parser(prog=PROGRAM, description=told, examples=EXAMPLES)
    found.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --outDir of a run.py --test")
    found.add_argument("--outDir", type=Path, default=Path("results/compare"), help="default %(default)s")
    return found


def compare() -> int:
    args = parser().parse_args()
    from utils.compare import page, runs  # costs `--help` nothing
    from utils.runs.record import Manifest, claim_folder

    if len({run.resolve() for run in args.runs}) < max(2, len(args.runs)):
        named = " ".join(map(str, args.runs))
        raise InputError(f"There is nothing to compare in {named}; name two runs or more, each once.")
    opened = runs.opened(args.runs)
    with files.locked(args.outDir):
        claim_folder(args.outDir, Manifest(job=page.JOB))
        pairs = runs.compared(opened)
        path = page.write(args.outDir, opened, pairs)
        page.tell(opened, pairs)
        print(f"Comparison{page.marks(opened)}: {path}")
    return 0


if __name__ == "__main__":
    run_program(main, PROGRAM)
