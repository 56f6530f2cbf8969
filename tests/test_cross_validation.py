"""What a test on folds says of a model of everybody: the numbers of its own tables, and nothing of a person."""

import json

import numpy as np
import pandas as pd
import pytest
from commands import read_manifest
from scipy.optimize import minimize
from scipy.special import logit
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(everybody) -> dict:
    return read_manifest(everybody / "ckpt/mmnn/everybody")["cross_validation"]


@pytest.fixture(scope="module")
def predictions(on_folds) -> pd.DataFrame:
    return pd.read_csv(on_folds / "test/predictions.csv", dtype={"subject": str})


def test_its_scores_are_those_of_the_predictions(found, predictions, on_folds):
    of = found["conclusion"]
    assert (of["participants"], found["folds"], of["metric"]) == (40, "3", "auc_sites")
    auc = roc_auc_score(predictions["label"], predictions["probability"])
    assert found["scores"]["auc"]["value"] == pytest.approx(auc)
    scores = json.loads((on_folds / "test/metrics.json").read_text())
    assert found["scores"] == {name: scores[name] for name in found["scores"]}
    assert of == read_manifest(on_folds / "test")["conclusion"]


def test_groups_are_those_with_ten_people_of_each_class(found, on_folds):
    """Of three sites of 13 or 14 people none has; sexes may."""
    groups = pd.read_csv(on_folds / "test/groups.csv")
    enough = groups[(groups["autism"] >= 10) & (groups["control"] >= 10)]
    assert 0 < len(enough) < len(groups)
    assert [of["group"] for of in found["groups"]] == enough["group"].tolist()
    assert [of["auc"]["value"] for of in found["groups"]] == pytest.approx(enough["auc"].tolist())


def test_the_calibration_is_that_of_platt(found, predictions):
    """The cross-entropy with his targets, which are not quite 0 and 1, is least."""
    log_odds, label = logit(predictions["probability"]), predictions["label"]
    target = np.where(label == 1, 21 / 22, 1 / 22)

    def cross_entropy(line: np.ndarray) -> float:
        told = line[0] * log_odds + line[1]
        return float((np.logaddexp(0, told) - target * told).sum())

    line = minimize(cross_entropy, [1, 0], method="Nelder-Mead", options={"maxiter": 10_000, "xatol": 1e-7}).x
    calibration = found["calibration"]
    assert [calibration[name] for name in ("slope", "intercept")] == pytest.approx(line, abs=1e-3)
    assert calibration["prevalence"] == 0.5 and found["lowest_coverage"] is None, "no site was left out"


def test_nothing_of_a_person_is_in_it(found, predictions):
    text = json.dumps(found)
    assert not [subject for subject in predictions["subject"] if subject in text]
    assert not [value for value in predictions["probability"] if f"{value:.6g}" in text]
