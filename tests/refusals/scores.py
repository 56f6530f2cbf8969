"""What reports, comparisons, choices and permutations refuse."""

from collections.abc import Callable
from pathlib import Path

from refusals import Row, row

ON_FOLDS = "--folds 2 --model cnn --dataDir {cohort} --chkPointDir {missing}"
TWO_TESTS = "abide-compare {on_folds}/test {nn_on_folds}/test --outDir {missing}"
CONVERT_SELECTED = "abide-data convert {lab} {missing} --grid reduced"
SCORES: list[Row] = [  # report, compare, choice, permutations
    row("abide-report {missing}", "{missing}", "no folder"),
    row("abide-report {on_folds}/train", "predictions.csv", "run.py --test"),
    row("abide-report {on_folds}/test", "run.json", "damaged", spoil={"on_folds/test/run.json": {"step": "three"}}),
    row("abide-report {on_folds}/test", "not as", "baselines.csv", spoil={"on_folds/test/baselines.csv": "cut"}),
    row("abide-compare {on_folds}/test", "nothing to compare", "{on_folds}/test"),
    row("abide-compare {on_folds}/test {on_folds}/../on-folds/test", "nothing to compare", "each once"),
    row("abide-compare {on_folds}/test {on_folds}/train", "train of mmnn", "run.py --test"),
    row("abide-compare {on_folds}/test {missing}", "{missing}", "not there"),
    row("abide-compare {on_folds}/test {file}", "{file} is a file", "expected the folder"),
    row("abide-compare {on_folds}/test {split}/test", "differ in participants", "such rows"),
    row(TWO_TESTS, "not as it was written", "predictions.csv", spoil={"on_folds/test/predictions.csv": "cut"}),
    row(TWO_TESTS, "not finished", "{on_folds}", spoil={"on_folds/test/run.json": {"finished": False}}),
    row(TWO_TESTS, "test of no model", "classifier", spoil={"on_folds/test/run.json": {"settings": None}}),
    row(f"{TWO_TESTS} --outDir {{on_folds}}/test", "the results of another run (test of mmnn)", "--outDir"),
    row(f"{TWO_TESTS} --outDir {{on_folds}}/test/abc", "lies in the results of another run", "(test of mmnn)"),
    row(f"{TWO_TESTS} --outDir {{on_folds}}/train", "train of mmnn", "--outDir"),
    row(f"{TWO_TESTS} --outDir {{file}}", "{file}", "name a folder"),
    row(f"run.py --train {ON_FOLDS} --choose combined", "one candidate", "2 to 64"),
    row(f"run.py --train {ON_FOLDS} --choose combined,sinus", "sinus", "combined, regions"),
    row(f"run.py --train {ON_FOLDS} --choose {{settings}}", "{settings} line 2", "mebmers"),
    row(f"run.py --train {ON_FOLDS} --choose {{alike}}", "same settings twice", "leave one out"),
    row(f"run.py --train {ON_FOLDS} --choose {{file}}", "{file} line 1", "--preset NAME"),
    row(f"run.py --train {ON_FOLDS} --choose --preset combined", "--choose", "--preset"),
    row(f"run.py --train {ON_FOLDS} --choose --model ae", "--choose", "ae"),
    row(f"run.py --test {ON_FOLDS} --choose", "--choose", "--train"),
    row(f"run.py --train {ON_FOLDS} --choose --folds SEX", "Without one fold", "--folds"),
    row("run.py --train --model cnn --dataDir {cohort} --chkPointDir {missing} --choose", "--choose", "--folds"),
    row("run.py --test --model nn --dataDir {cohort} --permutations 5", "--permutations", "--folds"),
    row(f"run.py --test {ON_FOLDS} --permutations 0", "--permutations", "from 1 to 100000"),
    row(f"run.py --test {ON_FOLDS} --permutations 5 --fold 1", "--permutations", "--fold exclude"),
    row(f"run.py --test {ON_FOLDS} --permutations 5 --repeats 2", "--permutations", "--repeats exclude"),
    row(f"run.py --test {ON_FOLDS} --permutations 5 --model ae", "--permutations", "ae"),
    row(f"run.py --train {ON_FOLDS} --permutations 5", "--permutations", "--test"),
    row(f'{CONVERT_SELECTED} --where "AGE < 18"', "no column AGE", "AGE_AT_SCAN"),
    row(f'{CONVERT_SELECTED} --where "SEX = 1"', "--where", "columns"),
    row(f'{CONVERT_SELECTED} --where "SITE_ID == 3"', "SITE_ID holds text", "quotes"),
    row(f"{CONVERT_SELECTED} --where \"__import__('os').system('x') == 0\"", "--where", "neither a column nor a value"),
    row(f"{CONVERT_SELECTED} --exclude {{lab}}/Phenotypic.csv", "Phenotypic.csv", "one ID a line"),
    row(f"{CONVERT_SELECTED} --exclude absent.txt", "absent.txt", "no such file"),
]

PLACES: dict[str, Callable[[Path], object]] = {
    "settings": lambda path: path.write_text("--preset combined\n--set mebmers=2\n"),
    "alike": lambda path: path.write_text("--preset combined\n--set members=4\n"),
}
ROWS = [*SCORES]
