"""What reports, comparisons, choices and permutations refuse."""

from collections.abc import Callable
from pathlib import Path

from refusals import Row, row

ON_FOLDS = "--folds 2 --model cnn --dataDir {cohort} --chkPointDir {missing}"
TWO_TESTS = "abide-compare {on_folds}/test {nn_on_folds}/test --outDir {missing}"
CONVERT_SELECTED = "abide-data convert {lab} {missing} --grid reduced"
PREDICTIONS = "run.py --test --dataDir {cohort} --outDir {missing} --predictions"
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
    row(f"{PREDICTIONS} {{missing}}.csv", "no file", "id,probability"),
    row(f"{PREDICTIONS} {{percentages}}", "up to 85", "Divide them by 100"),
    row(f"{PREDICTIONS} {{log_odds}}", "from -1.5 to 0.8", "probabilities of autism"),
    row(f"{PREDICTIONS} {{labels}}", "only 0 and 1", "predict_proba"),
    row(f"{PREDICTIONS} {{unknown}}", "the probability 'nan' for '2'", "a number from 0 to 1"),
    row(f"{PREDICTIONS} {{semicolons}}", "semicolons", "expected commas"),
    row(f"{PREDICTIONS} {{no_probability}}", "no column probability", "it has id, p"),
    row(f"{PREDICTIONS} {{no_rows}}", "holds no predictions", "a row for each"),
    row(f"{PREDICTIONS} {{no_fold}}", "no fold for '2'", "column fold"),
    row(f"{PREDICTIONS} {{repeats_alone}}", "column repeat", "none named fold"),
    row(f"{PREDICTIONS} {{probable}} --folds 2", "--predictions", "--folds exclude"),
    row(f"{PREDICTIONS} {{probable}} --repeats 2", "--predictions", "--repeats exclude"),
    row(f"{PREDICTIONS} {{probable}} --permutations 5", "--predictions", "--permutations exclude"),
    row(f"{PREDICTIONS} {{probable}} --estimator mine.py", "--predictions", "--estimator exclude"),
    row(f"{PREDICTIONS} {{of_control}}", "its column control holds 2", "expected --control 2"),
    row(f"{PREDICTIONS} {{of_control}} --control 3", "has --control 3", "expected --control 2"),
    row(f"{PREDICTIONS} {{of_two_controls}} --control 2", "has 2, 3 in", "one number in all rows"),
    row(f"{PREDICTIONS} {{of_any_control}} --control 2", "yes in its column control", "the SEED"),
    row(f"{PREDICTIONS} {{probable}} --control first", "--control", "first"),
    row(
        "run.py --test --dataDir {cohort} --outDir {missing} --model nn --control 2", "--control", "with --predictions"
    ),
    row("run.py --train --dataDir {cohort} --outDir {missing} --model nn --control 2", "--control", "with --test"),
    row("run.py --test --dataDir {cohort} --outDir {missing} --folds 3-fromFile", "3-fromFile", "--predictions"),
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
    "percentages": lambda path: path.write_text("id,probability\n1,20\n2,85\n"),
    "log_odds": lambda path: path.write_text("id,probability\n1,-1.5\n2,0.8\n"),
    "labels": lambda path: path.write_text("id,probability\n1,0\n2,1\n"),
    "probable": lambda path: path.write_text("id,probability\n1,0.5\n2,0.7\n"),
    "unknown": lambda path: path.write_text("id,probability\n1,0.5\n2,nan\n"),
    "semicolons": lambda path: path.write_text("id;probability\n1;0,5\n2;0,7\n"),
    "no_probability": lambda path: path.write_text("id,p\n1,0.5\n"),
    "no_rows": lambda path: path.write_text("id,probability\n"),
    "no_fold": lambda path: path.write_text("id,probability,fold\n1,0.5,0\n2,0.7,\n"),
    "of_control": lambda path: path.write_text("id,probability,control\n1,0.5,2\n2,0.7,2\n"),
    "of_two_controls": lambda path: path.write_text("id,probability,control\n1,0.5,2\n2,0.7,3\n"),
    "of_any_control": lambda path: path.write_text("id,probability,control\n1,0.5,yes\n2,0.7,yes\n"),
    "repeats_alone": lambda path: path.write_text("id,probability,repeat\n1,0.5,0\n2,0.7,0\n"),
}
ROWS = [*SCORES]
