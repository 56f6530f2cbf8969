"""Bad input is refused: a row a mistake, with two key words of the line that tells it.

`commands.refused` holds each to what every refusal promises. What follows an advice to its end stands in test_roads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lab
import pytest
from commands import refused


@dataclass(frozen=True)
class Row:
    """A command with {places} in it: rungs of the ladder (see conftest.py), or some of PLACES. `spoil` is done to a
    copy before: by file, such as "converted/subjects.csv", a change as `lab.edit` takes it, or a function of it."""

    command: str
    words: tuple[str, ...]
    spoil: dict[str, object]

    @property
    def names(self) -> set[str]:
        fields = {part.partition("}")[0] for part in self.command.split("{")[1:]}
        return fields | {name.partition("/")[0] for name in self.spoil}


def row(command: str, *words: str, spoil: dict[str, object] | None = None) -> Row:
    return Row(command, words, spoil or {})


def folder_with(name: str, content: bytes = b"precious") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / name).write_bytes(content)

    return make


PLACES: dict[str, Callable[[Path], object]] = {  # by name, made anew for each row; else what is missing
    "empty": Path.mkdir,
    "file": lambda path: path.write_bytes(b"precious"),
    "repository": folder_with("analysis.py"),
    "records": lab.records,
    "systems": lambda path: path.write_text("region,system\nPrecentral_L,a\n"),
    "missing": lambda path: None,
    "settings": lambda path: path.write_text("--preset combined\n--set mebmers=2\n"),
    "alike": lambda path: path.write_text("--preset combined\n--set members=4\n"),
}

CONVERT: list[Row] = [
    row("abide-data convert {missing} {empty}/new", "{missing}", "not a folder"),
]
DERIVE: list[Row] = []
COHORTS: list[Row] = [  # what every command finds on opening one
    row("run.py --train --dataDir {empty} --chkPointDir {missing}", "{empty}", "no records"),
]
RUNS: list[Row] = [
    row("run.py --train --test", "--train", "not allowed"),
    row("run.py --test --model nn --chkPointDir {empty} --dataDir {cohort}", "{empty}/nn", "run.py --train"),
]
SETTINGS: list[Row] = [
    row(f"run.py --train {said} --chkPointDir {{missing}} --dataDir {{cohort}}", *words)
    for said, *words in (
        ("--model cnn --set depth=3", "depth is unknown", "cubes"),
        ("--model nn --set filters=1", "filters is unknown", "phenotype_units"),
        ("--model cnn --set batch_size", "batch_size has no '='", "KEY=VALUE"),
        ("--model cnn --set batch_size=two", "batch_size=two", "whole number"),
        ("--model nn --set batch_size=٣", "batch_size", "whole number"),
        ("--model cnn --set learning_rate=fast", "learning_rate=fast", "a number"),
        ("--model cnn --set learning_rate=nan", "learning_rate is nan", "1e-12"),
        ("--model nn --set learning_rate=1e-60", "learning_rate is 1e-60", "1e-12"),
        ("--model nn --set half_rate_after=" + "9" * 400, "half_rate_after is 999", "1e+09"),
        ("--model cnn --preset residual --set batch_norm=1", "batch_norm", "true or false"),
        ("--model cnn --set batch_size=0", "batch_size is 0", "1 to 4096"),
        ("--model cnn --set standardise=scanner", "standardise", "stored, brain, site"),
        ("--model cnn --preset residual --set filters=8", "filters, kernels", "differ in length"),
        ("--model cnn --preset residual --set pools=0,0,-1", "pools is 0,0,-1", "0 to 31"),
        ("--model ae --set units=", "units is empty", "at least one layer"),
        ("--model nn --set phenotype_units=" + ",".join("1" * 99), "phenotype_units has 99", "64"),
        ("--model cnn --set region_units=4096,4096,4096", "weights", "100,000,000"),
        ("--model cnn --preset residual --set dropout=0.5", "dropout=0.5", "it needs global_average=false"),
        ("--model cnn --preset regions --set region_units= --set batch_norm=true", "changes nothing", "region_units"),
        ("--model nn --set initializer=he_normal", "changes nothing", "a second layer"),
    )
]
ON_FOLDS = "--folds 2 --model cnn --dataDir {cohort} --chkPointDir {missing}"
TWO_TESTS = "abide-compare {on_folds}/test {nn_on_folds}/test --outDir {missing}"
WHOM = "abide-data convert {lab} {missing} --grid reduced"
SCORES: list[Row] = [  # report, compare, choice, permutations
    row("abide-report {missing}", "{missing}", "no folder"),
    row("abide-report {on_folds}/train", "predictions.csv", "run.py --test"),
    row("abide-report {on_folds}/test", "run.json", "damaged", spoil={"on_folds/test/run.json": {"seed": "3"}}),
    row("abide-report {on_folds}/test", "not as", "floors.csv", spoil={"on_folds/test/floors.csv": "cut"}),
    row("abide-compare {on_folds}/test", "nothing to compare", "{on_folds}/test"),
    row("abide-compare {on_folds}/test {on_folds}/test", "same folder", "name two"),
    row("abide-compare" + 11 * " {on_folds}/test", "11 runs", "10 at most"),
    row("abide-compare {on_folds}/test {on_folds}/train", "train of mmnn", "run.py --test"),
    row("abide-compare {on_folds}/test {missing}", "{missing}", "not there"),
    row("abide-compare {on_folds}/test {split}/test", "differ in people", "such rows"),
    row(TWO_TESTS, "only", "such rows", spoil={"on_folds/test/run.json": {"folds": "site"}}),
    row(TWO_TESTS, "not as it was written", "predictions.csv", spoil={"on_folds/test/predictions.csv": "cut"}),
    row(TWO_TESTS, "not finished", "{on_folds}", spoil={"on_folds/test/run.json": {"finished": False}}),
    row(TWO_TESTS, "test of cae", "classifier", spoil={"on_folds/test/run.json": {"model": "cae"}}),
    row(TWO_TESTS, "repeat-0", "not there", spoil={"on_folds/test/run.json": {"repeats": 2}}),
    row(f"{TWO_TESTS} --outDir {{on_folds}}/test/new", "folder of results", "folders of their own"),
    row(f"{TWO_TESTS} --outDir {{on_folds}}/train", "train of mmnn", "--outDir"),
    row(f"{TWO_TESTS} --outDir {{file}}", "{file}", "name a folder"),
    row(f"run.py --train {ON_FOLDS} --choose combined", "one candidate", "2 to 64"),
    row(f"run.py --train {ON_FOLDS} --choose combined,sinus", "sinus", "combined, regions"),
    row(f"run.py --train {ON_FOLDS} --choose {{settings}}", "{settings} line 2", "mebmers"),
    row(f"run.py --train {ON_FOLDS} --choose {{alike}}", "same settings twice", "leave one out"),
    row(f"run.py --train {ON_FOLDS} --choose {{file}}", "{file} line 1", "--preset NAME"),
    row(f"run.py --train {ON_FOLDS} --choose --preset combined", "--choose", "leave --preset out"),
    row(f"run.py --train {ON_FOLDS} --choose --repeats 2", "one seed", "--repeats"),
    row(f"run.py --train {ON_FOLDS} --choose --model ae", "--choose", "ae"),
    row(f"run.py --test {ON_FOLDS} --choose", "no checkpoint", "--choose"),
    row(f"run.py --train {ON_FOLDS} --choose --folds SEX", "Without one fold", "--folds"),
    row("run.py --train --model cnn --dataDir {cohort} --chkPointDir {missing} --choose", "--choose", "--folds"),
    row("run.py --test --model nn --dataDir {cohort} --permutations 5", "--permutations 5", "--folds"),
    row(f"run.py --test {ON_FOLDS} --permutations 0", "--permutations", "from 1 to 100000"),
    row(f"run.py --test {ON_FOLDS} --permutations 5 --fold 1", "all folds", "--fold 1"),
    row(f"run.py --test {ON_FOLDS} --permutations 5 --repeats 2", "one run", "--repeats 2"),
    row(f"run.py --test {ON_FOLDS} --permutations 5 --model ae", "labels", "ae"),
    row(f"run.py --train {ON_FOLDS} --permutations 5", "--permutations", "--test"),
    row(f'{WHOM} --where "AGE < 18"', "no column AGE", "AGE_AT_SCAN"),
    row(f'{WHOM} --where "SEX = 1"', "--where", "columns"),
    row(f'{WHOM} --where "SITE_ID == 3"', "SITE_ID holds text", "quotes"),
    row(f"{WHOM} --where \"__import__('os').system('x') == 0\"", "--where", "neither a column nor a value"),
    row(f"{WHOM} --exclude {{lab}}/Phenotypic.csv", "Phenotypic.csv", "one ID a line"),
    row(f"{WHOM} --exclude absent.txt", "absent.txt", "no file"),
]
BLACKOUT: list[Row] = []
SYSTEMS: list[Row] = [
    row(
        "run.py --blackout --folds 3 --dataDir {converted} --chkPointDir {on_folds}/ckpt --systems {systems}",
        "{systems}",
        *words,
        spoil={"systems": table} if table else None,
    )
    for table, *words in (
        (None, "lacks 115 of the 116 regions", "expected each"),
        (b"region,system\nPrecentral_L,a\nup,b\n", "names the region up", "the atlas"),
        (b"region,system\nPrecentral_L,a\nPrecentral_L,b\n", "Precentral_L twice", "Remove"),
        (b"region,system\nPrecentral_L,\n", "no system for the region Precentral_L", "Fill it in"),
        (b"area,system\nPrecentral_L,a\n", "region"),
    )
]
BUNDLES: list[Row] = []
ROWS = [*CONVERT, *DERIVE, *COHORTS, *RUNS, *SETTINGS, *SCORES, *BLACKOUT, *SYSTEMS, *BUNDLES]


@pytest.mark.parametrize("of", ROWS, ids=lambda of: f"{' '.join(of.words)}: {of.command}"[:90])
def test_it_is_refused_in_one_line(of, request, tmp_path):
    spoilt = {name.partition("/")[0] for name in of.spoil}
    places = {}
    for name in sorted(of.names):
        places[name] = tmp_path / name
        if name in PLACES:
            PLACES[name](places[name])
        elif name not in spoilt:
            places[name] = request.getfixturevalue(name)
        else:
            lab.copy(request.getfixturevalue(name), places[name])
    for name, change in of.spoil.items():
        path = tmp_path / name
        if callable(change) and path.suffix not in lab.READ:
            change(path)
        else:
            lab.edit(path, change)
    refused(of.command, *of.words, **places)
