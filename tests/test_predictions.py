"""`--test --predictions`: what another test predicted has the same scores when it comes as a file. Folds, repeats and
scans are those of the file; training people, and folds that cut people apart, are refused."""

import hashlib
import json
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, read_manifest, read_page_text, refused
from sklearn.metrics import roc_auc_score

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

ESTIMATOR = """
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def make():
    numbers = (SimpleImputer(), make_column_selector(dtype_include="number"))
    return make_pipeline(make_column_transformer(numbers), LogisticRegression(C=0.01, max_iter=1000))
"""
TEST = "run.py --test --predictions {file} --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/out"
MAX_VERDICT_WORDS = 60
FAMILY = ("50002", "50003")  # of two sites


def write_predictions(path: Path, table: pd.DataFrame, columns: str = "id,probability,fold,repeat") -> Path:
    """Those of the columns that the table has, as somebody else's file."""
    named_table = table.rename(columns={"subject": "id"})
    named_table[[column for column in columns.split(",") if column in named_table]].to_csv(path, index=False)
    return path


def predict_at_random(cohort: Path, fold_count: int = 3) -> pd.DataFrame:
    """A row a record of a cohort, with a probability and a fold."""
    table = lab.read_table(cohort / "subjects.csv")[["file", "subject", "site", "label", "split"]]
    probabilities = np.random.default_rng(4).random(len(table))
    return table.assign(probability=probabilities, fold=np.arange(len(table)) % fold_count)


def read_scores(test: Path) -> dict:
    return json.loads((test / "metrics.json").read_text())


@pytest.fixture(scope="module")
def tests_of_estimator(tmp_path_factory, converted) -> Path:
    """The tests of an estimator, on `folds`, in `repeats` and on the `split`."""
    folder = tmp_path_factory.mktemp("of-estimator")
    (folder / "my_model.py").write_text(ESTIMATOR)
    command = "run.py --test --estimator {to}/my_model.py --dataDir {of} --chkPointDir {to}/ckpt --inputs phenotype"
    for name, options in {"folds": "--folds 3", "repeats": "--folds 3 --repeats 2", "split": ""}.items():
        done(f"{command} {options} --outDir {{to}}/{name}", of=converted, to=folder)
    return folder


@pytest.mark.parametrize("name", ["folds", "repeats", "split"])
def test_the_predictions_of_another_test_have_its_scores(tests_of_estimator, converted, tmp_path, name):
    """With the same folds intervals are as wide, and baselines were fitted on the same people."""
    expected_test = tests_of_estimator / name
    predictions = lab.read_table(expected_test / "predictions.csv").sample(frac=1, random_state=1)
    done(TEST, file=write_predictions(tmp_path / "mine.csv", predictions), of=converted, to=tmp_path)
    test = tmp_path / "out"
    assert read_scores(test) == read_scores(expected_test)
    for table_file in ("sites.csv", *(["probabilities.csv", "calibration.csv"] if name != "split" else [])):
        assert (test / table_file).read_text() == (expected_test / table_file).read_text()
    baselines, expected_baselines = (pd.read_csv(folder / "baselines.csv") for folder in (test, expected_test))
    columns = ["baseline", "auc", "auc_low", "auc_high"]
    pd.testing.assert_frame_equal(baselines[columns], expected_baselines[columns])


def test_the_verdict_says_that_nobody_knows_who_trained_it(tests_of_estimator, converted, tmp_path):
    predictions = lab.read_table(tests_of_estimator / "folds/predictions.csv")
    file = write_predictions(tmp_path / "mine.csv", predictions)
    command = "run.py --test --predictions {file} --dataDir {of} --chkPointDir {to}/ckpt"
    printed = done(command, file=file, of=converted, to=tmp_path)
    (test,) = Path("results").glob("mine-predictions-test-folds-*")
    page = read_page_text(test / "report.html")
    (verdict,) = [line for line in page.splitlines() if "Who trained it is not known" in line]
    assert len(verdict.removeprefix("Problems invalidate this. ").split()) <= MAX_VERDICT_WORDS
    assert f"(SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()})" in page  # in the methods
    manifest = read_manifest(test)
    baseline = manifest["conclusion"]["baseline"]
    assert baseline["name"] == "regions with phenotype and connectome, mean of parts"
    assert (baseline["lacks"], baseline["besides"]) == ([], [])
    assert "Everything is done" in done(command, file=file, of=converted, to=tmp_path) and "mine-predictions" in printed


def test_ids_as_spreadsheets_and_bids_write_them_and_folds_by_name(converted, tmp_path):
    """Folds are sites here, so that nobody is compared with people whom the other models tested."""
    table = predict_at_random(converted).assign(fold=lambda people: people["site"])
    spellings = ["sub-{}", "00{}", "{}.0", "{}"]
    ids = [spellings[row % 4].format(subject) for row, subject in enumerate(table["subject"])]
    file = write_predictions(tmp_path / "mine.csv", table.assign(subject=ids))
    done(TEST, file=file, of=converted, to=tmp_path)
    predictions = lab.read_table(tmp_path / "out/predictions.csv").set_index("subject")
    expected = table.set_index("subject")
    assert (predictions["fold"] == expected["fold"][predictions.index]).all()
    notes = read_manifest(tmp_path / "out")["conclusion"]["notes"]
    assert any("By the folds of the file" in note and "not seen it" in note for note in notes)
    labels, probabilities = expected["label"].astype(int), expected["probability"]
    assert read_scores(tmp_path / "out")["auc"]["value"] == pytest.approx(roc_auc_score(labels, probabilities))


def test_people_of_a_cohort_made_like_another(converted, tmp_path):
    """Nobody of it is a training participant, so that everybody is predicted; there is nobody to fit baselines on."""
    lab.pcp(tmp_path / "lab", lab.people(12, 60002), ("falff", "alff"), series=True)
    done("abide-data convert {to}/lab {to}/others --like {of}", to=tmp_path, of=converted)
    others = tmp_path / "others"
    table = predict_at_random(others)
    done(TEST, file=write_predictions(tmp_path / "mine.csv", table, "id,probability"), of=others, to=tmp_path)
    expected_auc = roc_auc_score(table["label"].astype(int), table["probability"])
    assert read_scores(tmp_path / "out")["auc"]["value"] == pytest.approx(expected_auc)
    manifest = read_manifest(tmp_path / "out")
    assert any("who trained the model is not known" in warning for warning in manifest["warnings"])
    assert not (tmp_path / "out/baselines.csv").exists()


def test_two_scans_of_a_participant_are_told_apart_by_the_file(tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    for number in range(1, 13):
        for scan in ("a", "b"):
            (records / f"{number}_{scan}.bin").write_bytes(lab.record(number))
    rows = [(number, f"{number}_{scan}.bin", number % 3) for number in range(1, 13) for scan in ("a", "b")]
    table = pd.DataFrame(rows, columns=["id", "file", "fold"])
    table["probability"] = np.random.default_rng(1).random(len(table))
    columns = "id,file,probability,fold"
    file = write_predictions(tmp_path / "mine.csv", table.sample(frac=1, random_state=2), columns)
    done(TEST, file=file, of=records, to=tmp_path)
    predictions = lab.read_table(tmp_path / "out/predictions.csv").set_index("file")["probability"].astype(float)
    np.testing.assert_allclose(predictions[table["file"]], table["probability"])

    places = {"of": records, "to": tmp_path / "refused"}
    refused(TEST, "which scan of participant", "column file", file=write_predictions(file, table), **places)
    in_two_folds = table.assign(fold=table["fold"].where(table["file"] != "5_b.bin", 0))
    refused(TEST, "participant 5", "folds 2 and 0", file=write_predictions(file, in_two_folds, columns), **places)
    elsewhere = table.replace({"file": {"5_b.bin": "6_b.bin"}})
    refused(TEST, "6_b.bin of participant 5", "5_a.bin", file=write_predictions(file, elsewhere, columns), **places)


def test_folds_that_cut_a_family_in_two(tmp_path):
    people = lab.people()
    family_names = ["A" if subject in FAMILY else "" for subject in people["SUB_ID"].str.lstrip("0")]
    lab.pcp(tmp_path / "lab", people.assign(FAM=family_names))
    done("abide-data convert {to}/lab {to}/cohort --grid reduced --maps all --family FAM", to=tmp_path)
    table = predict_at_random(tmp_path / "cohort")
    folds = table["fold"].mask(table["subject"].isin(FAMILY), 1)
    places = {"of": tmp_path / "cohort", "to": tmp_path}
    apart = table.assign(fold=folds.mask(table["subject"] == FAMILY[1], 2))
    file = write_predictions(tmp_path / "mine.csv", apart)
    refused(TEST, "one family", f"{FAMILY[0]} (fold 1)", f"{FAMILY[1]} (fold 2)", file=file, **places)
    done(TEST, file=write_predictions(tmp_path / "mine.csv", table.assign(fold=folds)), **places)


@pytest.fixture
def table(converted) -> pd.DataFrame:
    return predict_at_random(converted)


def drop_folds(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["split"] == "test"].drop(columns="fold")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.assign(subject=range(len(table))), ["none of the IDs", "50002"]),
        (lambda table: table.replace({"subject": {"50003": "7"}}), ["1 IDs that", ": 7;"]),
        (lambda table: table[1:], ["lacks 1 of 40 participants", "50002"]),
        (lambda table: pd.concat([table, table[:1]]), ["predicts 50002 twice", "column repeat"]),
        (lambda table: table.assign(fold=0), ["1 folds of 40", "two folds"]),
        (lambda table: table.assign(fold=range(40)), ["40 folds of 40", "two participants"]),
        (lambda table: table.assign(fold=table["label"]), ["one class", "Without fold"]),
        (lambda table: table.drop(columns="fold"), ["training participants", "column fold"]),
        (lambda table: drop_folds(table)[1:], ["lacks 1 of", "prediction of each scan"]),
        (lambda table: pd.concat([drop_folds(table)] * 2), ["twice", "one row for each scan"]),
        (
            lambda table: pd.concat([table.assign(repeat=1), table[2:].assign(repeat=2)]),
            ["lacks 2 of 40 participants", "in repeat 1", "50003"],
        ),
    ],
)
def test_predictions_that_do_not_fit_the_cohort(table, converted, tmp_path, change, words):
    file = write_predictions(tmp_path / "mine.csv", change(table))
    refused(TEST, *words, file=file, of=converted, to=tmp_path)
