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
def cross_validation(everybody) -> dict:
    return read_manifest(everybody / "ckpt/mmnn/everybody")["cross_validation"]


@pytest.fixture(scope="module")
def predictions(on_folds) -> pd.DataFrame:
    return pd.read_csv(on_folds / "test/predictions.csv", dtype={"subject": str})


def test_scores_equal_the_predictions_scores(cross_validation, predictions, on_folds):
    conclusion = cross_validation["conclusion"]
    assert (conclusion["participants"], cross_validation["folds"], conclusion["metric"]) == (40, "3", "auc_sites")
    auc = roc_auc_score(predictions["label"], predictions["probability"])
    assert cross_validation["scores"]["auc"]["value"] == pytest.approx(auc)
    scores = json.loads((on_folds / "test/metrics.json").read_text())
    assert cross_validation["scores"] == {name: scores[name] for name in cross_validation["scores"]}
    assert conclusion == read_manifest(on_folds / "test")["conclusion"]


def test_groups_have_ten_people_per_class(cross_validation, on_folds):
    """Of three sites of 13 or 14 people none has; sexes may."""
    groups = pd.read_csv(on_folds / "test/groups.csv")
    enough = groups[(groups["autism"] >= 10) & (groups["control"] >= 10)]
    assert 0 < len(enough) < len(groups)
    assert [group_scores["group"] for group_scores in cross_validation["groups"]] == enough["group"].tolist()
    assert [group_scores["auc"]["value"] for group_scores in cross_validation["groups"]] == pytest.approx(
        enough["auc"].tolist()
    )


def test_the_calibration_equals_platts(cross_validation, predictions):
    """The cross-entropy with his targets, which are not quite 0 and 1, is least."""
    log_odds, label = logit(predictions["probability"]), predictions["label"]
    target = np.where(label == 1, 21 / 22, 1 / 22)

    def cross_entropy(line: np.ndarray) -> float:
        calibrated_log_odds = line[0] * log_odds + line[1]
        return float((np.logaddexp(0, calibrated_log_odds) - target * calibrated_log_odds).sum())

    line = minimize(cross_entropy, [1, 0], method="Nelder-Mead", options={"maxiter": 10_000, "xatol": 1e-7}).x
    calibration = cross_validation["calibration"]
    assert [calibration[name] for name in ("slope", "intercept")] == pytest.approx(line, abs=1e-3)
    assert calibration["prevalence"] == 0.5 and cross_validation["lowest_coverage"] is None, "no site was left out"


def test_cross_validation_holds_nothing_personal(cross_validation, predictions):
    text = json.dumps(cross_validation)
    assert not [subject for subject in predictions["subject"] if subject in text]
    assert not [value for value in predictions["probability"] if f"{value:.6g}" in text]
