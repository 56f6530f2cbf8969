"""How much of a score is what is missing: the values that are told alike, the floor that reads them, what is said."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import SMALL
from people import ROWS, write_people

from data.cohorts.cohort import Cohort
from data.cohorts.phenotype import recording
from data.cohorts.stored import open_cohort
from data.cohorts.variants import recorded_alike
from utils.evaluation.missingness import sentence
from utils.scores.features import MISSINGNESS, features
from utils.scores.floors import LOGISTIC, SVM
from utils.scores.results import ALIKE, MODEL

pytestmark = pytest.mark.usefixtures("undrawn")
NAMES = ("handedness_unknown", "handedness_score_missing", "fiq_missing", "viq_missing", "piq_missing", "bmi_missing")
TESTS = ("iq_test_wasi", "iq_test_wisc", "iq_test_wais", "iq_test_other")


@pytest.fixture(scope="module")
def lab(data_cli, once):
    """A cohort of 40 people, of whom many lack a value."""

    def make(folder):
        outcome = data_cli("convert", write_people(folder / "pcp", ROWS), folder / "cohort", "--grid", "reduced")
        assert outcome.status < 2, outcome.err

    return once("lab", make) / "cohort"


def test_values_are_told_as_of_most_training_people(lab):
    cohort = open_cohort(lab)
    raw, names = cohort.raw_phenotype, list(cohort.metadata.phenotype)
    training = raw.loc[[row.subject for row in cohort.rows if row.split == "train"]]
    family = training[list(TESTS)].idxmax(axis=1).where(training[list(TESTS)].any(axis=1), "none").mode()[0]
    usual = {name: training[name].mode()[0] for name in NAMES} | {name: float(name == family) for name in TESTS}
    found = recorded_alike(cohort)
    assert {names[at] for at in recording(cohort.metadata)} == {*usual, "wisc_missing"}
    before, after = (of.batch(range(40), volumes=False)["phenotype"] for of in (cohort, found))
    for at, name in enumerate(names):
        if name in usual and before[:, at].any():
            scaled = (usual[name] - training[name].mean()) / training[name].std(ddof=0)
            np.testing.assert_allclose(after[:, at], scaled, atol=1e-5)
        else:
            np.testing.assert_array_equal(after[:, at], before[:, at])
    columns = features(cohort)[MISSINGNESS]
    np.testing.assert_array_equal(columns, before[:, recording(cohort.metadata)])


def test_a_floor_reads_them_and_the_network_is_told_them_alike(lab, cli, tmp_path):
    folders = ("--dataDir", lab, "--chkPointDir", tmp_path / "ckpt", "--model", "nn", "--folds", "2")
    assert cli("--train", *folders, "--numIters", "20", "--outDir", tmp_path / "train").status == 0
    outcome = cli("--test", *folders, "--outDir", tmp_path / "test")
    rows = pd.read_csv(tmp_path / "test/floors.csv").set_index("floor")
    assert {f"{MISSINGNESS}, {LOGISTIC}", f"{MISSINGNESS}, {SVM}", ALIKE} <= set(rows.index)
    predicted = pd.read_csv(tmp_path / "test/predictions.csv", dtype={"file": str}).set_index("file")
    alike = pd.read_csv(tmp_path / "test/floor_predictions.csv").set_index("file")[ALIKE]
    raw = open_cohort(lab).raw_phenotype
    told = {}
    for fold, of_fold in predicted.groupby("fold"):
        training = raw.loc[predicted.index[predicted["fold"] != fold].str.removesuffix(".bin")]
        family = training[list(TESTS)].sum().idxmax()
        here = raw.loc[of_fold["subject"].astype(str)]
        usual = (here[list(NAMES)] == training[list(NAMES)].mode().iloc[0]).all(axis=1) & (here[family] == 1)
        told |= dict(zip(of_fold.index, usual, strict=True))
    same = np.isclose(alike, predicted["probability"].loc[alike.index], atol=1e-6)
    assert same.tolist() == [told[file] for file in alike.index] and 0 < same.sum() < 40
    said = json.loads((tmp_path / "test/run.json").read_text())["conclusion"]
    words = "How much of this is how records were kept?"
    assert words in said and words in outcome.out and words in (tmp_path / "test/report.html").read_text()
    alone = rows.loc[f"{MISSINGNESS}, {LOGISTIC}", "auc_sites"]
    assert f"Logistic regression on these values alone has {alone:.2f}" in said
    assert "Of 12 other floors" in said, "only floors are counted"


def test_volumes_are_read_once_for_both(lab, cli, no_floors, tmp_path, monkeypatch):
    folders = ("--dataDir", lab, "--chkPointDir", tmp_path / "ckpt", "--model", "mmnn")
    assert cli("--train", *folders, *SMALL["mmnn"], "--numIters", "2", "--outDir", tmp_path / "train").status == 0
    passes, batches = [], Cohort.batches
    monkeypatch.setattr(Cohort, "batches", lambda *given: passes.append(given[2]) or batches(*given))
    assert cli("--test", *folders, "--outDir", tmp_path / "test").status == 0
    found = [pd.read_csv(tmp_path / "test" / f"{name}.csv") for name in ("predictions", "floor_predictions")]
    assert passes == [True] and np.isfinite(found[1][ALIKE]).all()
    assert (found[1][ALIKE] != found[0]["probability"]).any()


def test_where_nothing_is_missing_nothing_is_said(lab, data_cli, tmp_path):
    table = ("--phenotype", "AGE_AT_SCAN,SEX", "--grid", "reduced")
    assert data_cli("convert", lab.parent / "pcp", tmp_path / "cohort", *table).status < 2
    cohort = open_cohort(tmp_path / "cohort")
    assert recorded_alike(cohort) is None and MISSINGNESS not in features(cohort)


def test_of_a_score_without_an_interval_nothing_is_said():
    cells = {"auc": 0.39, "auc_low": None, "auc_high": None}
    less = {"model_minus_floor_auc": 0.39, "model_minus_floor_auc_low": None, "model_minus_floor_auc_high": None}
    rows = [{"floor": name} | cells | less for name in (MODEL, ALIKE)]
    assert sentence(rows) == ""
    ends = {"model_minus_floor_auc_low": 0.1, "model_minus_floor_auc_high": 0.6}
    assert "the score minus this is 0.39 (0.10 to 0.60)" in sentence([row | ends for row in rows])


def test_of_equally_common_tests_one_is_told(lab):
    cohort = open_cohort(lab)
    names, mean = cohort.metadata.phenotype, list(cohort.metadata.phenotype_mean)
    for at, name in enumerate(names):
        mean[at] = {"iq_test_wasi": 0.5, "iq_test_wisc": 0.5}.get(name, 0.0 if name in TESTS else mean[at])
    even = replace(cohort, metadata=replace(cohort.metadata, phenotype_mean=tuple(mean)))
    told = recorded_alike(even).batch([0], volumes=False)["phenotype"][0]
    own = [told[names.index(name)] > 0 for name in TESTS]
    assert own.count(True) == 1


def test_what_separates_the_labels_is_not_said_of_few_people(data_cli, tmp_path):
    rows = [row | {"DX_GROUP": "1" if at % 7 == 0 else "2"} for at, row in enumerate(ROWS)]
    outcome = data_cli("convert", write_people(tmp_path / "pcp", rows), tmp_path / "cohort", "--grid", "reduced")
    assert "Phenotype: whether a value separates the training labels is not known, since 5 training" in outcome.out
    assert "no value separates" not in outcome.out
