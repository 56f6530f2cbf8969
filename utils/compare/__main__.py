"""abide-compare RUN RUN [RUN...]: whether one test is better than another of the same people."""

from pathlib import Path

from data.base import files
from data.base.cli import Parser, guarded
from data.base.errors import InputError
from data.base.terminal import start

PROGRAM = "abide-compare"
EXAMPLES = {
    "whether one of two tests of the same people is better": "results/mmnn-test-folds-10 results/nn-test-folds-10",
    "several tests, into a folder of your own": "results/a results/b results/c --outDir results/abc",
}


def main() -> int:
    return guarded(PROGRAM, compare)


def parser() -> Parser:
    told = "Compares classifiers that were tested on the same people."
    found = Parser(prog=PROGRAM, description=told, examples=EXAMPLES)
    found.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --outDir of a run.py --test")
    found.add_argument("--outDir", type=Path, default=Path("results/compare"), help="default %(default)s")
    return found


def compare() -> int:
    args = parser().parse_args()
    from utils.compare import page, runs  # costs `--help` nothing

    if len(args.runs) < 2:
        raise InputError(f"There is nothing to compare {args.runs[0]} with; name two runs or more.")
    opened = runs.opened(args.runs)
    page.check_place(args.outDir, args.runs)
    with files.locked(args.outDir):
        page.begin(args.outDir)
        found = runs.pairs(opened)
        print(*(f"{run.letter}: {run.folder}{run.described.marks}" for run in opened), sep="\n")
        print(*page.conclusions(found), sep="\n")
        print(f"Comparison: {page.write(args.outDir, opened, found)}")
    return 0


if __name__ == "__main__":
    start(main, PROGRAM)
