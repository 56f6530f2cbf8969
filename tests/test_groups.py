"""Scores by head motion, sex and age against scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from utils.evaluation.groups import groups
from utils.scores import metrics
from utils.scores.metrics import Predictions


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 50)


def people(count: int = 121) -> tuple[pd.DataFrame, Predictions]:
    """Covariates, and predictions at two sites, of which one moves more than the other."""
    random = np.random.default_rng(0)
    site = np.where(np.arange(count) < 60, "A", "B")
    table = pd.DataFrame(
        {
            "age": random.permutation(np.linspace(6, 40, count)).round(1),
            "SEX": random.choice(["1", "2"], count),
            "mean_fd": np.exp(random.normal(size=count)) * np.where(site == "A", 1, 100),
        },
        index=[f"s{number}" for number in range(count)],
    ).astype(str)
    table.loc["s0", "mean_fd"] = ""
    label = random.permutation(np.arange(count) % 2).astype(float)
    probability = 1 / (1 + np.exp(-random.normal(label, 1.5)))
    return table, Predictions(label, probability, table.index.to_numpy(), site=site)


def test_the_halves_are_of_each_site_and_scores_are_scikit_learns():
    table, predictions = people()
    found = pd.DataFrame(groups(predictions, table, 0)).set_index("group")
    assert found["kind"].tolist() == ["head motion"] * 2 + ["sex"] * 2 + ["age"] * 3
    moved = pd.to_numeric(table["mean_fd"]).to_numpy()
    median = pd.Series(moved).groupby(predictions.site).median()[predictions.site].to_numpy()
    for name, rows in {
        "moved less": moved < median,
        "moved more": moved >= median,
        "SEX 1": (table["SEX"] == "1").to_numpy(),
    }.items():
        row, label = found.loc[name], predictions.label[rows]
        assert (row["subjects"], row["autism"], row["control"]) == (rows.sum(), label.sum(), (1 - label).sum())
        assert row["auc"] == pytest.approx(roc_auc_score(label, predictions.probability[rows]))
        assert row["auc_low"] < row["auc"] < row["auc_high"] and np.isfinite(row["auc_sites"])
    assert found["subjects"]["moved less":"moved more"].sum() == 120  # one person's motion is unknown
    assert abs(found["subjects"]["moved less"] - 60) <= 1


def test_thirds_of_age_are_named_by_where_they_are_cut():
    table, predictions = people()
    found = [row for row in groups(predictions, table, 0) if row["kind"] == "age"]
    ages = np.sort(table["age"].astype(float).to_numpy())
    assert [row["group"].split(",")[0] for row in found] == ["youngest third", "middle third", "oldest third"]
    low, high = np.quantile(ages, [1 / 3, 2 / 3])
    assert [row["group"].split(", ")[1] for row in found] == [
        f"below {low:.1f}", f"{low:.1f} to {high:.1f}", f"above {high:.1f}"
    ]  # fmt: skip
    assert sum(row["subjects"] for row in found) == 121 and min(row["subjects"] for row in found) == 40


def test_records_of_a_subject_stay_together_and_small_groups_have_no_interval():
    table, predictions = people()
    subject = np.repeat(predictions.subject[:12], 2)
    label, probability = (np.repeat(values[:12], 2) for values in (predictions.label, predictions.probability))
    found = groups(Predictions(label, probability, subject, site=np.repeat("A", 24)), table, 0)
    assert sum(row["subjects"] for row in found if row["kind"] == "sex") == 12
    assert all(row["auc_low"] is None and "auc_sites" not in row for row in found)


def test_nothing_is_grouped_by_what_is_unknown_or_text():
    table, predictions = people()
    assert groups(predictions, None, 0) == []
    assert groups(predictions, table[[]].assign(scanner="x", age="young", mean_fd="much"), 0) == []
    assert groups(predictions, table[["age"]].assign(age=""), 0) == []
