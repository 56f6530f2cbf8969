"""Bad input is refused: a row a mistake, with two key words of the line that tells it.

`commands.refused` holds each to what every refusal promises. What follows an advice to its end stands in test_roads.
"""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lab
import numpy as np
import pytest
from bundles import parts_of, rebuilt
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
SCORES: list[Row] = []  # report, compare, choice, permutations
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
OF_BUNDLE = "run.py --blackout --bundle {bundle} --dataDir {newcomers}"
BLACKOUT: list[Row] = [
    row(f"{OF_BUNDLE} --maps reho", "--maps reho", "falff, alff"),
    row(f"{OF_BUNDLE} --donors 0", "--donors"),
    row(f"{OF_BUNDLE} --folds 2", "--folds is not for --bundle"),
    row(f"{OF_BUNDLE} --prevalence 0.1", "--prevalence goes with --test"),
    row(f"{OF_BUNDLE} --atlas {{file}}", "{file}"),
    row(f"{OF_BUNDLE} --systems {{file}}", "{file}"),
    row(f"{OF_BUNDLE} --maps falff --systems {{file}}", "--systems {file}", "Leave --systems out"),
    row("run.py --blackout --bundle {bundle} --dataDir {converted}", "{converted} trained {bundle}"),
    row("run.py --blackout --folds 3 --chkPointDir {empty} --dataDir {converted}", "{empty}", "run.py --train"),
    row(
        "run.py --blackout --model nn --chkPointDir {seen_two}/ckpt --dataDir {cohort} --atlas {file}",
        *("--atlas tells of regions", "nn reads no volume"),
    ),
]
EVERYBODY, FOLDS = "everybody/ckpt/mmnn/everybody", "on_folds/ckpt/mmnn/folds-3"
OF_EVERYBODY = "abide-bundle {everybody}/ckpt/mmnn/everybody {empty}/a.zip"
OF_FOLDS = "abide-bundle {on_folds}/ckpt/mmnn/folds-3 {empty}/a.zip"
BY_BUNDLE = "run.py --test --bundle {bundle} --dataDir {newcomers}"


def model_with(**changes: object) -> Callable[[Path], None]:
    """A bundle of which these keys of `model.json` are others, as a program of another version writes them."""

    def change(path: Path) -> None:
        model = json.loads(parts_of(path)["model.json"]) | changes
        rebuilt(path, path, {"model.json": json.dumps(model).encode()})

    return change


def pickled(path: Path) -> None:
    weights = io.BytesIO()
    np.save(weights, np.array([{}], object))
    rebuilt(path, path, {"weights/0.npy": weights.getvalue()})


BUNDLES: list[Row] = [
    row("abide-bundle {everybody}/ckpt/mmnn/everybody {empty}/a.txt", "a.txt", ".zip"),
    row("abide-bundle {everybody}/ckpt/mmnn/everybody {bundle}", "{bundle} exists"),
    row("abide-bundle {everybody}/ckpt {empty}/a.zip", "holds no checkpoint", "CKPT/mmnn/everybody"),
    row(f"{OF_EVERYBODY} --score {{on_folds}}/train", "{on_folds}/train"),
    row(f"{OF_EVERYBODY} --score {{on_folds}}/test", "report.html", spoil={"on_folds/test/report.html": "flipped"}),
    row(OF_EVERYBODY, "gone or was changed", spoil={f"{EVERYBODY}/run.json": {"cohort": "gone"}}),
    row(OF_EVERYBODY, "predicts no label", spoil={f"{EVERYBODY}/run.json": {"model": "ae"}}),
    row(OF_EVERYBODY, "not as it was saved", spoil={f"{EVERYBODY}/ckpt-1.data-00000-of-00001": "cut"}),
    row(OF_FOLDS, "differ in preset", spoil={f"{FOLDS}/1/run.json": {"preset": "regions"}}),
    row(OF_FOLDS, "lacks a checkpoint of fold 1", spoil={f"{FOLDS}/1": shutil.rmtree}),
    row(BY_BUNDLE, "{bundle}", "Copy it again", spoil={"bundle": "cut"}),
    row(BY_BUNDLE, "{bundle}", "no bundle", spoil={"bundle": b"PK precious"}),
    row(BY_BUNDLE, "format 2", "format 1", spoil={"bundle": model_with(format=2)}),
    row(BY_BUNDLE, "another AAL", spoil={"bundle": model_with(aal_sha256="0" * 64)}),
    row(BY_BUNDLE, "weights/0.npy", "array of float32", spoil={"bundle": pickled}),
    row("run.py --test --bundle {missing} --dataDir {newcomers}", "{missing}", "does not exist"),
    row("run.py --test --bundle {bundle} --dataDir {converted}", "{converted} trained {bundle}"),
    row("run.py --test --bundle {bundle} --dataDir {cohort}", "{cohort}", "--like {bundle}"),
    row("run.py --train --bundle {bundle} --dataDir {newcomers}", "--bundle goes with"),
    row("run.py --test --prevalence 0.1 --dataDir {newcomers}", "--prevalence goes with --bundle"),
    row(f"{BY_BUNDLE} --set l2=1", "--set is not for --bundle"),
    row(f"{BY_BUNDLE} --model cnn", "is of mmnn, not cnn"),
    row(f"{BY_BUNDLE} --prevalence 1", "expected a share between 0 and 1"),
]
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
