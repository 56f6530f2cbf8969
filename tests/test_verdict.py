"""The network beside its floors, against pairs by hand; the sentence that says what may be concluded."""

import csv
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from utils.evaluation import verdict
from utils.metrics import Predictions, difference, with_intervals
from utils.report.tables import MAJORITY, RULE


def pooled(seed: int = 0) -> tuple[Predictions, pd.DataFrame]:
    """Predictions of 90 records after three folds, and floors."""
    random = np.random.default_rng(seed)
    label, fold = np.arange(90) % 2.0, np.arange(90) // 30
    probability = 1 / (1 + np.exp(-random.normal(label, 1)))
    table = pd.DataFrame({MAJORITY: 0.5 - 0.01 * fold, "regions, SVM": random.random(90), "unfitted": np.nan})
    site = random.choice(["A", "B"], 90)
    return Predictions(label, probability, [str(number) for number in range(90)], fold, site), table


@pytest.mark.slow
def test_rows_hold_the_model_and_every_floor_with_the_paired_difference():
    known, table = pooled()
    model, majority, svm = verdict.compare(known, table, 0)
    expected = with_intervals(replace(known, probability=table["regions, SVM"]), 0)
    for name in ("auc", "accuracy", "balanced_accuracy", "brier", "auc_sites"):
        assert [svm[name], svm[f"{name}_low"], svm[f"{name}_high"]] == list(expected[name].values())
    minus = difference(known, table["regions, SVM"].to_numpy(), 0)
    assert [svm[f"model_minus_floor_auc{end}"] for end in ("", "_low", "_high")] == list(minus.values())
    assert model["floor"] == "model" and model["model_minus_floor_auc"] is None
    assert svm["model_minus_floor_auc"] == pytest.approx(model["auc"] - svm["auc"])
    assert list(model) == list(majority) == list(svm)
    assert "auc_sites" not in verdict.compare(replace(known, site=None, fold=None), table, 0)[0]


def test_the_majority_ranks_nobody_though_its_constant_differs_between_folds():
    majority = verdict.compare(*pooled(), 0)[1]
    assert [majority["auc"], majority["auc_low"], majority["auc_high"], majority["auc_sites"]] == [0.5] * 4
    assert majority["model_minus_floor_auc_low"] > 0


def test_rows_are_a_csv_table():
    rows = verdict.compare(*pooled(), 0)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    read = pd.read_csv(io.StringIO(text.getvalue()))
    assert read["model_minus_floor_auc"].isna().tolist() == [True, False, False]


def row(name: str, auc: float | None, low: float | None = None, high: float | None = None, minus_low=None) -> dict:
    values = {"auc": auc, "auc_low": low, "auc_high": high, "model_minus_floor_auc_low": minus_low}
    return {"floor": name} | values


GOOD, CHANCE = row("model", 0.7, 0.6, 0.8), row("model", 0.55, 0.45, 0.65)
LR, SVM = row("phenotype, logistic regression", 0.6, 0.5, 0.7, 0.01), row("all, SVM", 0.65, 0.55, 0.75, -0.02)
ALWAYS = row(MAJORITY, 0.5, 0.5, 0.5, -0.05)


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([GOOD, ALWAYS], "The network does better than chance: AUC 0.70, 0.60 to 0.80."),
        (
            [GOOD, ALWAYS, LR],
            "The network does better than chance: AUC 0.70, 0.60 to 0.80; it beats the only floor, phenotype by "
            "logistic regression (AUC 0.60, 0.50 to 0.70).",
        ),
        (
            [GOOD, LR, {**SVM, "model_minus_floor_auc_low": 0.01}],
            "The network does better than chance: AUC 0.70, 0.60 to 0.80; it beats all 2 floors, of which the best is "
            "all by SVM (AUC 0.65, 0.55 to 0.75).",
        ),
        (
            [GOOD, LR, SVM, row(RULE, 0.97, 0.9, 1.0, -0.4)],
            "The network does better than chance: AUC 0.70, 0.60 to 0.80; it does not beat 1 of 2 floors (all by SVM), "
            "the best is all by SVM (AUC 0.65, 0.55 to 0.75); the rule that made the data reaches 0.97.",
        ),
        (
            [CHANCE, {**LR, "model_minus_floor_auc_low": -0.1}, SVM],
            "The network does not do better than chance: AUC 0.55, 0.45 to 0.65; it does not beat any of 2 floors, of "
            "which the best is all by SVM (AUC 0.65, 0.55 to 0.75).",
        ),
        (
            [CHANCE, SVM],
            "The network does not do better than chance: AUC 0.55, 0.45 to 0.65; it does not beat the only floor, "
            "all by SVM (AUC 0.65, 0.55 to 0.75).",
        ),
        (
            [row("model", 1.0), row("all, SVM", 0.5)],
            "The network's AUC is 1.00, without an interval, since one class has a single test subject: nothing can be "
            "concluded.",
        ),
        (
            [row("model", None), row("all, SVM", None), row(RULE, None)],
            "The network's AUC is undefined, since the test subjects are of one class.",
        ),
    ],
)
def test_one_sentence_says_what_may_be_concluded(rows, expected):
    assert verdict.verdict(rows) == expected


@pytest.mark.parametrize("count, autism", [(6, 6), (6, 1)])
def test_few_subjects_are_compared_and_judged(count, autism):
    label = (np.arange(count) < autism).astype(float)
    table = pd.DataFrame({MAJORITY: 0.5, "all, SVM": np.linspace(0, 1, count)})
    rows = verdict.compare(Predictions(label, np.linspace(1, 0, count), list("abcdef")), table, 0)
    assert ("undefined" if autism == 6 else "nothing can be concluded") in verdict.verdict(rows)
