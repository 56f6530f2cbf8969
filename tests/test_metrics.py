"""Metrics against scikit-learn, intervals against a bootstrap by loop, explained variance by hand."""

import json
import math
import re
from dataclasses import astuple, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from helpers import make_prediction_table, make_predictions
from scipy import stats
from scipy.special import expit
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve
from statsmodels.stats.proportion import proportion_confint

from data.base.thresholds import CONFIDENCE_LEVEL
from data.cohorts.peers import MAX_PULL_LOG_ODDS, compute_pull_log_odds
from utils.evaluation import comparisons, confounds, external, probabilities
from utils.evaluation.autoencoders import ExplainedVariance
from utils.evaluation.confounds import make_site_score_rows, score_folds
from utils.report import drawings
from utils.report.cross_validation import find_lowest_coverage
from utils.report.tables import COVERAGE_MEASURE
from utils.scores import calibration, statistics
from utils.scores.metrics import (
    RANGE_BY_METRIC,
    Predictions,
    choose_headline_metric,
    compute_scores,
    estimate_score_differences,
    estimate_scores,
    estimate_statistics_with_intervals,
)
from utils.scores.results import UNDEFINED, Estimate, flatten_estimates, list_estimate_columns
from utils.scores.statistics import bootstrap_percentile_interval, to_log_odds


def make_sample(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities, some of them tied and some exactly 0.5."""
    random = np.random.default_rng(seed)
    label = random.permutation(np.arange(count) % 2)
    return label.astype(float), np.clip(random.normal(0.5 + 0.1 * (label - 0.5), 0.2), 0, 1).round(2)


def expected(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    predicted = probability >= 0.5
    return {
        "accuracy": sklearn_metrics.accuracy_score(label, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(label, predicted),
        "recall": sklearn_metrics.recall_score(label, predicted),
        "specificity": sklearn_metrics.recall_score(label, predicted, pos_label=0),
        "precision": sklearn_metrics.precision_score(label, predicted),
        "f_score": sklearn_metrics.f1_score(label, predicted),
        "auc": sklearn_metrics.roc_auc_score(label, probability),
        "brier": sklearn_metrics.brier_score_loss(label, probability),
    }


def auc_within(label: np.ndarray, probability: np.ndarray, group: np.ndarray) -> float:
    """scikit-learn's AUC of each group that has both classes, averaged by records; NaN without such a group."""
    both = [rows for rows in (group == name for name in set(group)) if len(set(label[rows])) == 2]
    values = [sklearn_metrics.roc_auc_score(label[rows], probability[rows]) for rows in both]
    return float(np.average(values, weights=[rows.sum() for rows in both])) if both else np.nan


@pytest.mark.parametrize("count, seed", [(10, 0), (75, 1), (200, 2)])
def test_values_equal_scikit_learns(count, seed):
    label, probability = make_sample(count, seed)
    estimate_by_score = estimate_scores(make_predictions(label, probability), seed=0)
    assert {name: metric.value for name, metric in estimate_by_score.items()} == pytest.approx(
        expected(label, probability)
    )


def test_weights_count_records_as_copies_do():
    label, probability = make_sample(20, 3)
    weight = np.random.default_rng(0).integers(0, 4, 20)
    copied_scores = expected(np.repeat(label, weight), np.repeat(probability, weight))
    (repeat,) = make_predictions(label, probability).repeats_to_score
    value_by_score = {name: value for name, (value,) in compute_scores(repeat, weight[None].astype(float)).items()}
    assert value_by_score == pytest.approx(copied_scores)


def test_intervals_hold_the_value_narrow_with_subjects_and_repeat_with_the_seed():
    widths = []
    for count in (40, 400):
        label, probability = make_sample(count, 5)
        estimate_by_score = estimate_scores(make_predictions(label, probability), seed=1)
        assert estimate_by_score == estimate_scores(make_predictions(label, probability), seed=1)
        for metric in estimate_by_score.values():
            assert 0 <= metric.low <= metric.value <= metric.high <= 1
        widths.append(estimate_by_score["auc"].high - estimate_by_score["auc"].low)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize(
    "label, undefined_scores",
    [(1.0, {"specificity", "balanced_accuracy", "auc"}), (0.0, {"recall", "balanced_accuracy", "auc"})],
)
def test_a_single_class_leaves_scores_undefined(label, undefined_scores):
    estimate_by_score = estimate_scores(make_predictions(np.full(6, label), [0.1, 0.2, 0.6, 0.7, 0.8, 0.9]), seed=0)
    assert {name for name, metric in estimate_by_score.items() if metric.value is None} == undefined_scores
    for name in undefined_scores:
        assert estimate_by_score[name] == UNDEFINED
    assert estimate_by_score["accuracy"].value == pytest.approx(4 / 6 if label else 2 / 6)


def test_nobody_predicted_positive_has_no_precision():
    estimate_by_score = estimate_scores(make_predictions([1.0, 0.0, 1.0], [0.1, 0.2, 0.3]), seed=0)
    assert estimate_by_score["precision"].value is None
    assert estimate_by_score["recall"].value == 0.0
    assert estimate_by_score["auc"].value == 0.5


def test_perfect_and_reversed_predictions():
    label = np.array([0.0, 0.0, 1.0, 1.0] * 5)
    passed = binomtest(10, 10).proportion_ci(method="exact")
    for probability, value, low, high in ((label, 1.0, passed.low, 1.0), (1 - label, 0.0, 0.0, 1 - passed.low)):
        auc_estimate = estimate_scores(make_predictions(label, probability), 0)["auc"]
        assert astuple(auc_estimate) == pytest.approx((value, low, high))


@pytest.mark.parametrize("output", ["perfect", "reversed", "noise"])
def test_a_metric_of_another_range_has_the_same_interval_on_it(output, monkeypatch):
    """Youden's J, from -1 to 1, is twice the balanced accuracy minus 1, and so are the ends of its interval."""
    monkeypatch.setitem(RANGE_BY_METRIC, "youden", (-1.0, 1.0))
    label, noise = make_sample(60, 4)
    probability = {"perfect": label, "reversed": 1 - label, "noise": noise}[output]
    predictions = make_predictions(label, probability)

    def compute_both(record_weights):
        (repeat,) = predictions.repeats_to_score
        balanced_accuracy = compute_scores(repeat, record_weights)["balanced_accuracy"]
        return {"balanced_accuracy": balanced_accuracy, "youden": 2 * balanced_accuracy - 1}

    estimate_by_metric = estimate_statistics_with_intervals(predictions, compute_both, 0)
    expected_ends = [2 * end - 1 for end in astuple(estimate_by_metric["balanced_accuracy"])]
    assert astuple(estimate_by_metric["youden"]) == pytest.approx(expected_ends)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_score_with_a_share_equal_to_0_or_1_is_no_surer_than_the_share(share):
    """Recall of 18 people 0.000, specificity of 44 0.864: the balanced accuracy was 0.432 (0.368 to 0.472)."""
    label, passed = np.repeat([1.0, 0.0], [18, 44]), np.repeat([share, 1, 0], [18, 6, 38])
    estimate_by_score = estimate_scores(make_predictions(label, 0.2 + 0.6 * passed), 0)
    limits = binomtest(int(18 * share), 18).proportion_ci(method="exact")
    for recall in limits:
        value_by_score = {"balanced_accuracy": (recall + 38 / 44) / 2, "f_score": 36 * recall / (18 * recall + 6 + 18)}
        assert all(
            estimate_by_score[name].low - 1e-9 <= value <= estimate_by_score[name].high + 1e-9
            for name, value in value_by_score.items()
        )


def test_explained_variance_over_batches_is_scikit_learns_r2_over_all_values():
    random = np.random.default_rng(0)
    original = random.normal(3, 2, (7, 4, 5)).astype(np.float32)
    approximation = original + random.normal(0, 0.5, original.shape)
    measure = ExplainedVariance()
    for rows in (slice(0, 3), slice(3, 7)):
        measure.add_batch(original[rows], approximation[rows])
    assert measure.explained_variance == pytest.approx(
        sklearn_metrics.r2_score(original.ravel(), approximation.ravel())
    )
    assert measure.mse == pytest.approx(sklearn_metrics.mean_squared_error(original.ravel(), approximation.ravel()))


def test_a_single_subject_has_no_interval():
    """Resampling one subject repeats its value: two records do not make it two subjects."""
    estimate_by_score = estimate_scores(make_predictions([1.0, 1.0], [0.7, 0.4], subject="a"), seed=0)
    assert estimate_by_score["accuracy"] == Estimate(0.5, None, None)
    assert estimate_by_score["recall"] == Estimate(0.5, None, None)
    json.dumps({name: metric.to_cells() for name, metric in estimate_by_score.items()}, allow_nan=False)


@pytest.mark.parametrize("autism", [1, 9])
def test_a_metric_based_on_few_subjects_has_no_interval(autism):
    """Nine people with autism: recall, AUC and balanced accuracy would look certain or almost so."""
    label = np.array([1.0] * autism + [0.0] * 10)
    probability = np.array([0.9] * autism + [*np.linspace(0.1, 0.49, 10)])
    estimate_by_score = estimate_scores(make_predictions(label, probability), seed=0)
    without = {name for name, metric in estimate_by_score.items() if metric.low is None}
    assert without == {"recall", "precision", "f_score", "auc", "balanced_accuracy"}
    assert {estimate_by_score[name].value for name in without} == {1.0}


def make_grouped_sample(count: int, seed: int) -> tuple[np.ndarray, ...]:
    """`make_sample`, and a site and a fold of each record: two sites of one class, whose level goes with it."""
    label, probability = make_sample(count, seed)
    random = np.random.default_rng(seed)
    site = np.where(random.random(count) < 0.5, "A", random.choice(["B", "C"], count)).astype(object)
    for name, value in (("only autism", 1), ("only control", 0)):
        site[np.flatnonzero(label == value)[:3]] = name
    return label, probability, site, random.permutation(np.arange(count) % 3)


def test_auc_within_sites_and_folds_is_scikit_learns_mean():
    label, probability, site, fold = make_grouped_sample(90, 6)
    estimate_by_score = estimate_scores(
        replace(make_predictions(label, probability, fold=fold, site=site), in_small_sites=False), 0
    )
    assert estimate_by_score["auc_sites"].value == pytest.approx(auc_within(label, probability, site))
    assert estimate_by_score["auc_folds"].value == pytest.approx(auc_within(label, probability, fold))
    assert estimate_by_score["auc"].value == pytest.approx(sklearn_metrics.roc_auc_score(label, probability))


def compute_autism_fraction_elsewhere(label: np.ndarray, site: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The share of autism among people of the same site in other folds, by a loop; 0.5 if there are none."""
    elsewhere_masks = [
        (site == site_name) & (fold != fold_number) for site_name, fold_number in zip(site, fold, strict=True)
    ]
    return np.array([label[rows].mean() if rows.any() else 0.5 for rows in elsewhere_masks])


@pytest.mark.parametrize("size, is_small", [(5, True), (10, True), (40, False)])
def test_people_in_small_sites_are_compared_in_their_fold_only(size, is_small):
    """Who knows nothing but the others at a site is at chance, not far below it."""
    random = np.random.default_rng(size)
    label, site = random.permutation(np.arange(200) % 2).astype(float), np.arange(200) // size
    order = np.lexsort((random.random(200), label, site))
    fold = np.empty(200, int)
    fold[order] = np.arange(200) % (10 if is_small else 5)
    fold = random.permutation(fold) if is_small else fold
    autism_fraction = compute_autism_fraction_elsewhere(label, site, fold)
    both = [site_number for site_number in np.unique(site) if len(set(label[site == site_number])) == 2]
    gaps = [
        autism_fraction[(site == site_number) & (label == 0)].mean()
        - autism_fraction[(site == site_number) & (label == 1)].mean()
        for site_number in both
    ]
    slopes = [1 / label[site == site_number].var() for site_number in both]  # of log odds over a share
    assert compute_pull_log_odds(label, site, fold) == pytest.approx(np.average(np.multiply(gaps, slopes)))
    test_predictions = make_predictions(label, autism_fraction, fold=fold, site=site)
    assert test_predictions.in_small_sites == is_small == (compute_pull_log_odds(label, site, fold) > MAX_PULL_LOG_ODDS)
    if is_small:
        assert auc_within(label, autism_fraction, site) < 0.2
        assert estimate_scores(test_predictions, 0)["auc_sites"].value == 0.5
    half = test_predictions.select_records(np.arange(200) % 2 == 0)
    assert half.in_small_sites == is_small


@pytest.mark.parametrize("autism, is_small", [(0.1, True), (0.2, False), (0.5, False), (0.9, True)])
def test_a_rare_class_makes_a_site_with_40_people_small(autism, is_small):
    """With nothing to find, 7 % of such cohorts were 'worse than chance': 0.016 is a sixth of a tenth."""
    site, fold = np.arange(200) // 40, np.arange(200) % 10
    label = (np.arange(200) % 40 < 40 * autism).astype(float)
    test_predictions = make_predictions(
        label, compute_autism_fraction_elsewhere(label, site, fold), fold=fold, site=site
    )
    assert test_predictions.in_small_sites == is_small
    assert (estimate_scores(test_predictions, 0)["auc_sites"].value == 0.5) == (is_small or autism == 0.5)


def test_left_out_sites_are_compared_entirely():
    label, probability, site, _ = make_grouped_sample(90, 6)
    assert not make_predictions(label, probability, fold=site, site=site).in_small_sites
    assert not make_predictions(label, probability, site=site).in_small_sites


def test_single_class_sites_leave_no_auc_within_sites():
    label, probability = make_sample(10, 0)
    estimate_by_score = estimate_scores(make_predictions(label, probability, site=np.where(label == 1, "A", "B")), 0)
    assert estimate_by_score["auc_sites"] == UNDEFINED


def test_an_interval_needs_ten_subjects_per_class_in_sites_with_both():
    label = np.array([1] * 5 + [0] * 15 + [1] * 15)
    test = make_predictions(label, np.linspace(0.9, 0.1, 35), site=["A"] * 20 + ["B"] * 15)
    estimate_by_score = estimate_scores(test, 0)
    assert estimate_by_score["auc_sites"] == Estimate(1.0, None, None)
    assert estimate_by_score["auc"].low is not None
    assert test.uncompared_subject_count == 15


def test_conclusions_rest_on_the_auc_within_sites_if_several():
    label, probability, site, fold = make_grouped_sample(90, 6)
    for grouping, name in (({"fold": fold, "site": site}, "auc_sites"), ({"fold": fold}, "auc_folds"), ({}, "auc")):
        assert choose_headline_metric(estimate_scores(make_predictions(label, probability, **grouping), 0)) == name


def strata_by_loop(fold: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A resample's records: within each fold as many subjects as it has; two records a subject, next to each other."""
    first = [random.choice(rows, len(rows)) for rows in (np.flatnonzero(fold[::2] == name) for name in np.unique(fold))]
    return np.concatenate([(2 * chosen, 2 * chosen + 1) for chosen in np.concatenate(first)])


@pytest.mark.slow
@pytest.mark.parametrize("is_small", [True, False], ids=["within sites and folds", "within whole sites"])
def test_intervals_within_folds_equal_a_loop(is_small, effort):
    """Folds differ in their level, by chance also in their share of autism at a site, so that the strata matter."""
    effort(resamples=2000)
    label, probability, site, fold = make_grouped_sample(60, 7)
    if not is_small:  # each fold has its share of both classes at each site
        fold[np.lexsort((label, site.astype(str)))] = np.arange(60) % 3
    label, probability, site, fold = (np.repeat(values, 2) for values in (label, probability, site, fold))
    probability = np.clip(probability + np.random.default_rng(0).normal(0, 0.1, 120) + 0.2 * (fold - 1), 0, 1)
    second_probability = np.clip(probability + np.random.default_rng(1).normal(0, 0.3, 120), 0, 1)
    subject = np.repeat([f"s{number}" for number in range(60)], 2)
    test = make_predictions(label, probability, subject=subject, fold=fold, site=site)
    assert test.in_small_sites == is_small
    estimate_by_score = estimate_scores(test, 0)
    less = estimate_score_differences(test, test.with_probabilities([second_probability]), 0)
    estimate_by_score |= {"difference": less["auc"], "brier difference": less["brier"]}
    assert estimate_by_score["difference"].value == pytest.approx(
        estimate_by_score["auc"].value - sklearn_metrics.roc_auc_score(label, second_probability)
    )
    widening = dict.fromkeys(estimate_by_score, np.sqrt(2))  # each pair of people of two folds meets twice
    groups = {"auc_sites": name_cells(site, fold) if is_small else site, "auc_folds": fold}
    for name, group in groups.items():
        both = [rows for rows in (group == group_name for group_name in set(group)) if len(set(label[rows])) == 2]
        assert len(both) == (9 if name == "auc_sites" and is_small else 3)
        lost = 2 * len(both) / len(set(subject[np.any(both, axis=0)]))
        widening[name] /= np.sqrt(1 - min(lost, 1 / 4))
    random, spread = np.random.default_rng(9), []
    for _ in range(300):
        rows = strata_by_loop(fold, random)
        auc = sklearn_metrics.roc_auc_score(label[rows], probability[rows])
        spread.append(
            {
                "accuracy": ((probability[rows] >= 0.5) == label[rows]).mean(),
                "auc": auc,
                **{name: auc_within(label[rows], probability[rows], group[rows]) for name, group in groups.items()},
                "brier": (brier := np.square(probability[rows] - label[rows]).mean()),
                "brier difference": brier - np.square(second_probability[rows] - label[rows]).mean(),
                "difference": auc - sklearn_metrics.roc_auc_score(label[rows], second_probability[rows]),
            }
        )
    for name, group in groups.items():
        assert estimate_by_score[name].value == pytest.approx(auc_within(label, probability, group))
    for name in spread[0]:
        ends = np.nanpercentile([values[name] for values in spread], [2.5, 97.5])
        value = estimate_by_score[name].value
        low, high = value + widening[name] * (ends - value)
        assert (estimate_by_score[name].low, estimate_by_score[name].high) == pytest.approx(
            (low, min(high, 1)), abs=0.03
        ), name


def test_the_difference_is_paired_between_the_two_aucs():
    label, probability = make_sample(80, 8)
    second_probability = np.clip(probability + np.random.default_rng(0).normal(0, 0.05, 80), 0, 1)
    test = make_predictions(label, probability)
    both = estimate_score_differences(test, test.with_probabilities([second_probability]), 0)
    briers = [sklearn_metrics.brier_score_loss(label, values) for values in (probability, second_probability)]
    assert both["brier"].value == pytest.approx(briers[0] - briers[1])
    auc_difference = both["auc"]
    aucs = [sklearn_metrics.roc_auc_score(label, values) for values in (probability, second_probability)]
    assert auc_difference.value == pytest.approx(aucs[0] - aucs[1])
    alone = estimate_scores(test, 0)["auc"]
    assert auc_difference.high - auc_difference.low < (alone.high - alone.low) / 2
    assert estimate_score_differences(test, test, 0)["auc"] == Estimate(0.0, 0.0, 0.0)


def test_a_difference_among_thirteen_is_as_wide_as_all_need():
    label, probability = make_sample(80, 8)
    test = make_predictions(label, probability)
    second_test = test.with_probabilities([np.clip(probability + np.random.default_rng(0).normal(0, 0.1, 80), 0, 1)])
    alone, among_thirteen = (estimate_score_differences(test, second_test, 0, among)["auc"] for among in (1, 13))
    wider = stats.norm.ppf(1 - 0.025 / 13) / stats.norm.ppf(0.975)
    assert among_thirteen.high - among_thirteen.value == pytest.approx(wider * (alone.high - alone.value))
    assert among_thirteen.value - among_thirteen.low == pytest.approx(wider * (alone.value - alone.low))


def test_a_difference_stays_within_the_possible():
    label, fold = np.tile([0, 1], 20), np.repeat([0, 1], 20)
    right, wrong = np.random.default_rng(0).random((2, 40)) / 2 + [label / 3, (1 - label) / 3]
    test = make_predictions(label, right, fold=fold)
    auc_difference = estimate_score_differences(test, test.with_probabilities([wrong]), 0, comparison_count=1000)["auc"]
    assert auc_difference.low < auc_difference.value < auc_difference.high == 1


def test_log_odds_are_finite_for_certain_probabilities():
    log_odds_values = to_log_odds(np.array([0.0, 0.25, 0.5, 1.0]))
    assert log_odds_values.tolist() == pytest.approx([np.log(1e-7), np.log(1 / 3), 0, -np.log(1e-7)], abs=1e-6)


def test_people_tested_by_further_models_widen_an_interval_by_their_share_in_the_training():
    """60 people in three folds of 20: each trains with 40. Of the 30 of a subset, 20 are in another fold than one."""
    label, probability, _, fold = make_grouped_sample(60, 7)
    all_predictions, half = make_predictions(label, probability, fold=fold), np.arange(60) % 2 == 0
    half_counts = [((fold == name) & half).sum() for name in range(3)]
    widening_terms = [count * (half.sum() - count) / 40 for count in half_counts]
    assert all_predictions.compute_interval_widening("accuracy") == pytest.approx(np.sqrt(2))
    assert all_predictions.select_records(half).compute_interval_widening("accuracy") == pytest.approx(
        np.sqrt(1 + sum(widening_terms) / half.sum())
    )
    assert (
        all_predictions.select_records(half).select_records(fold[half] == 0).compute_interval_widening("accuracy") == 1
    )
    assert (
        all_predictions.select_records(fold == 0).compute_interval_widening("auc")
        == make_predictions(label, probability).compute_interval_widening("auc")
        == 1
    )


def name_cells(site: np.ndarray, fold: np.ndarray) -> np.ndarray:
    return np.array([f"{fold_number}, {site_name}" for site_name, fold_number in zip(site, fold, strict=True)])


@pytest.mark.parametrize("is_small_first", [True, False], ids=["the first is small", "another is small"])
def test_a_small_repeat_makes_all_compare_people_within_a_fold(is_small_first):
    """Otherwise the mean would be of two scores, and the sentences those of the first repeat only."""
    label, site = np.tile([0.0, 1.0], 60), np.repeat(list("abcdef"), 20)
    probability = np.random.default_rng(0).random(120)
    even_fold, shifted_fold = np.arange(120) // 2 % 5, (np.arange(120) // 2 + 2 * (np.arange(120) % 10 == 1)) % 5
    shifted_fold[site == "a"] = np.where(label[site == "a"] == 1, 0, 1)  # nobody of both classes there
    large, small = (
        make_prediction_table(label, probability, fold=fold, site=site) for fold in (even_fold, shifted_fold)
    )
    assert [Predictions.from_tables(table).in_small_sites for table in (large, small)] == [False, True]
    both = Predictions.from_tables(*((small, large) if is_small_first else (large, small)))
    means = [auc_within(label, probability, name_cells(site, fold)) for fold in (even_fold, shifted_fold)]
    assert estimate_scores(both, 0)["auc_sites"].value == pytest.approx(np.mean(means))
    assert both.in_small_sites and both.select_records(label >= 0).in_small_sites
    assert Predictions.from_tables(small).uncompared_subject_count >= 20 and both.uncompared_subject_count == 0, (
        "in the other repeat"
    )


def test_a_repeat_without_anybody_to_compare_hides_no_score_and_leaves_no_interval():
    label, site, probability = np.tile([0.0, 1.0], 20), np.repeat(["a", "b"], 20), np.random.default_rng(0).random(40)
    tables = [
        make_prediction_table(label, probability, fold=fold, site=site) for fold in (np.arange(40) // 2 % 2, label)
    ]
    tests = [replace(Predictions.from_tables(*repeats), in_small_sites=True) for repeats in (tables[:1], tables)]
    alone, auc_estimate = (estimate_scores(repeats, 0)["auc_sites"] for repeats in tests)
    assert alone.low is not None and (auc_estimate.value, auc_estimate.low) == (pytest.approx(alone.value), None)


def test_the_auc_in_a_small_site_compares_people_within_a_fold():
    """A model that knows nothing but the others at a site is at chance, in a table of sites too."""
    label, site = np.tile([0.0, 1.0], 60), np.repeat(list("abcdefghij"), 12)
    fold = np.random.default_rng(0).permutation(120) % 5
    fold[site == "j"] = label[site == "j"]
    autism_fraction = compute_autism_fraction_elsewhere(label, site, fold)
    test = make_predictions(label, autism_fraction, fold=fold, site=site)
    assert test.in_small_sites
    rows = {row["site"]: row["auc"] for row in make_site_score_rows(test, 0)}
    assert rows.pop("j") is None, "nobody there is of the same fold as one of the other class"
    assert [*rows.values()] == [0.5] * 9
    assert auc_within(label, autism_fraction, site) < 0.25


def test_scores_over_repeats_are_means_and_their_people_are_drawn_together():
    label, probability, site, fold = make_grouped_sample(60, 7)
    second_probability = probability[np.random.default_rng(1).permutation(60)]
    once = make_prediction_table(label, probability, fold=fold, site=site)
    again = make_prediction_table(label, second_probability, fold=(fold + label) % 3, site=site)
    assert [Predictions.from_tables(repeat_data).in_small_sites for repeat_data in (once, again)] == [True, False]
    both = Predictions.from_tables(once, again)
    alone = [
        estimate_scores(replace(Predictions.from_tables(repeat_data), in_small_sites=True), 0)
        for repeat_data in (once, again)
    ]
    for name, estimate in estimate_scores(both, 0).items():
        assert estimate.value == pytest.approx(np.mean([estimate_by_score[name].value for estimate_by_score in alone]))
    half = np.arange(60) % 2 == 0
    values = [expected(label[half], repeat_data[half])["auc"] for repeat_data in (probability, second_probability)]
    assert estimate_scores(both.select_records(half), 0)["auc"].value == pytest.approx(np.mean(values))
    assert estimate_scores(Predictions.from_tables(once, once), 0)["auc"] == pytest.approx(alone[0]["auc"])


def test_sites_in_a_table():
    label, probability, site, _ = make_grouped_sample(90, 6)
    rows = make_site_score_rows(make_predictions(label, probability, site=site), seed=0)
    sizes = [row["subjects"] for row in rows]
    assert rows[0]["site"] == "A" and sizes == sorted(sizes, reverse=True)
    assert [sum(row[name] for row in rows) for name in ("subjects", "autism", "control")] == [90, 45, 45]
    is_site_a = site == "A"
    assert rows[0]["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(label[is_site_a], probability[is_site_a]))
    assert rows[0]["accuracy_low"] < rows[0]["accuracy"] < rows[0]["accuracy_high"]
    alone = next(row for row in rows if row["site"] == "only autism")
    assert (alone["auc"], alone["auc_low"], alone["control"]) == (None, None, 0)
    assert list(alone) == [
        *("site", "subjects", "autism", "control"),
        *("auc", "auc_low", "auc_high", "accuracy", "accuracy_low", "accuracy_high"),
    ]


def test_the_interval_in_a_site_is_no_narrower_where_errors_lie_in_a_single_fold():
    """Three of 30 people of a site are predicted wrongly, all of one fold, or of three folds."""
    label, site = np.arange(300) % 2.0, np.repeat(["small", "large"], [30, 270])
    accuracy_estimates = []
    for wrong_indices in ([0, 1, 2], [0, 3, 6]):
        probability = np.where(np.isin(np.arange(300), wrong_indices), 1 - label, label)
        fold = np.append(np.arange(30) // 3, np.arange(270) % 10)
        all_predictions = make_predictions(label, probability, fold=fold, site=site)
        accuracy_estimates.append(estimate_scores(all_predictions.select_records(site == "small"), 0)["accuracy"])
    assert accuracy_estimates[0].value == 0.9 and accuracy_estimates[0].high - accuracy_estimates[0].low > 0.15
    assert astuple(accuracy_estimates[0])[1:] == pytest.approx(astuple(accuracy_estimates[1])[1:], abs=0.04)


def test_folds_by_name():
    label, probability, _, fold = make_grouped_sample(90, 6)
    estimates_by_fold = score_folds(make_predictions(label, probability, fold=9 + fold), seed=0)
    assert set(estimates_by_fold) == {"9", "10", "11"}
    is_fold_1 = fold == 1
    assert {name: metric.value for name, metric in estimates_by_fold["10"].items()} == pytest.approx(
        expected(label[is_fold_1], probability[is_fold_1])
    )
    json.dumps(
        [metric.to_cells() for fold_estimates in estimates_by_fold.values() for metric in fold_estimates.values()],
        allow_nan=False,
    )


def test_a_site_within_a_single_fold_in_some_repeats_has_no_auc_within_folds():
    label, site = np.tile([0.0, 1.0], 6), np.repeat(["a", "b"], 6)
    fold, second_fold = np.tile(["0", "0", "1", "1"], 3), np.repeat(["0", "1"], 6)
    tables = [
        make_prediction_table(label, np.linspace(0, 1, 12), fold=fold_column, site=site)
        for fold_column in (fold, second_fold)
    ]
    rows = make_site_score_rows(Predictions.from_tables(*tables), 0)
    assert [row["subjects"] for row in rows] == [6, 6]
    assert rows[0]["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(label[:6], np.linspace(0, 1, 12)[:6]))


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(0).normal(size=25)
    low, high = bootstrap_percentile_interval(lambda weight: weight @ values / 25, 25, np.random.default_rng(1), 20_000)
    options = {"method": "percentile", "confidence_level": CONFIDENCE_LEVEL, "n_resamples": 20_000}
    expected = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(2), **options).confidence_interval
    assert (low, high) == pytest.approx(tuple(expected), abs=0.02)


def test_resamples_in_blocks_equal_a_single_go(monkeypatch):
    strata = np.array([0, 1, 0, 1, 1, 0])

    def draw_blocks():
        blocks = []

        def statistic(weight):
            blocks.append(weight)
            return weight[:, :2]

        ends = bootstrap_percentile_interval(statistic, 6, np.random.default_rng(0), 50, strata)
        return blocks, ends

    (full_block,), ends = draw_blocks()
    monkeypatch.setattr(statistics, "MAX_BLOCK_WEIGHTS", 6 * 8)
    blocks, same_ends = draw_blocks()
    assert [len(block) for block in blocks] == [8] * 6 + [2]
    np.testing.assert_array_equal(full_block, np.concatenate(blocks))
    np.testing.assert_array_equal(ends, same_ends)


def test_undefined_resamples_are_left_out_and_nothing_defined_is_no_interval():
    def statistic(weight):
        first = np.where(weight[:, 0] > 0, weight[:, 1], np.nan)
        return np.stack([first, np.full(len(weight), np.nan)], axis=1)

    low, high = bootstrap_percentile_interval(statistic, 3, np.random.default_rng(0), 500)
    assert low[0] == 0 and high[0] == 2  # of three draws, one is the first subject
    assert np.isnan(low[1]) and np.isnan(high[1])


def test_strata_keep_their_sizes_and_single_strata_have_no_interval():
    drawn = []
    strata = np.array(["b", "a", "b", "a", "a"])

    def statistic(weight):
        drawn.append(weight)
        return weight[:, 0]

    bootstrap_percentile_interval(statistic, 5, np.random.default_rng(0), 200, strata)
    assert (drawn[0][:, strata == "a"].sum(1) == 3).all() and (drawn[0][:, strata == "b"].sum(1) == 2).all()
    assert {0, 1, 2} == set(drawn[0][:, 0])
    low, high = bootstrap_percentile_interval(
        lambda weight: weight[:, 0], 3, np.random.default_rng(0), 20, np.arange(3)
    )
    assert np.isnan(low) and np.isnan(high)


# Texts, and tests of few people


def test_calibration_equals_scikit_learn_with_wilson_intervals():
    label, probability = make_sample(120, 0)
    inside = (probability * 100).round() % 10 != 0  # scikit-learn's bins are closed at their other end
    table = drawings.make_calibration_bins(label[inside], probability[inside])
    observed, predicted = calibration_curve(label[inside], probability[inside], n_bins=10, strategy="uniform")
    assert table["observed"].to_numpy() == pytest.approx(observed)
    assert table["predicted"].to_numpy() == pytest.approx(predicted)
    z, row = 1.959964, table.iloc[4]
    share, count = row["observed"], row["count"]
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    assert (row["low"], row["high"]) == pytest.approx((centre - half, centre + half), abs=1e-5)


SMALL_TESTS = 100  # 1,000 take some minutes, and found no more
UNIT, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
ANY = ("slope", "intercept")  # and counts, of which nothing is asked but that they are numbers
SIGNED = ("model_minus", "partial", "correlation", "difference")


def small_test(random: np.random.Generator) -> tuple[Predictions, list[np.ndarray]]:
    """2 to 40 people of 1 to 19 sites, with or without folds and repeats, and what a baseline says of each repeat;
    probabilities may be noise, constant, right, wrong or certain, and labels of one class."""
    count, sites = random.integers(2, 41), random.integers(1, 20)
    label = random.choice(
        [(random.random(count) < random.random()), np.ones(count), np.zeros(count)], p=[0.9, 0.05, 0.05]
    )
    label = label.astype(float)
    site = np.array([f"S{site_number}" for site_number in random.integers(sites, size=count)])
    folds = [site, None, *(random.integers(fold_count, size=count) for fold_count in (2, 3, 10))]
    unit = [None, np.arange(count) // 2][random.integers(2)]
    kind, repeats = random.integers(5), random.integers(1, 3)

    def draw_probability() -> np.ndarray:
        noise = random.random(count)
        return [noise, np.full(count, 0.5), label * 0.8 + 0.1, 1 - label, noise.round()][kind]

    fold, groupings = folds[random.integers(5)], {"site": site} | ({} if unit is None else {"same_scan": unit})
    groupings |= {} if fold is None else {"fold": fold}
    tables = [make_prediction_table(label, draw_probability(), **groupings) for _ in range(repeats)]
    return Predictions.from_tables(*tables), [random.permutation(draw_probability()) for _ in tables]


def outside(name: str, value: Any) -> bool:
    """Whether a number is no number, or outside of what is possible."""
    if value is None or isinstance(value, str | bool) or any(name_fragment in name for name_fragment in ANY):
        return False
    low, high = DIFFERENCE if any(name_fragment in name for name_fragment in SIGNED) else UNIT
    return not low <= float(value) <= high


def collect_rows_and_sentences(
    test: Predictions, baselines: list[np.ndarray], random: np.random.Generator
) -> tuple[list[dict], list[str]]:
    """The rows of the tables of a test, and its sentences."""
    baseline = [pd.DataFrame({"majority": 0.5, "regions": baseline_or_fold}) for baseline_or_fold in baselines]
    table = comparisons.make_baseline_rows(test, baseline, 0, ("volume",))
    baseline_predictions = test.with_probabilities(baselines)
    count = {"subjects", "autism", "control"}
    by = make_site_score_rows(test, 0) if random.random() < 0.05 else []
    by += (
        [flatten_estimates(baseline_or_fold) for baseline_or_fold in score_folds(test, 0).values()]
        if random.random() < 0.05
        else []
    )
    score = estimate_scores(test, 0)
    rows = [*table, flatten_estimates(score), *({name: row[name] for name in row.keys() - count} for row in by)]
    rows += [
        {
            f"difference {name}": value
            for name, value in flatten_estimates(estimate_score_differences(test, baseline_predictions, 0)).items()
        }
    ]
    rows += [
        {f"{row['measure']}{end}": row[end] for end in list_estimate_columns()}
        for row in external.make_external_score_and_calibration_rows(test, 0)
    ]
    rows += [probabilities.make_share_cells(pd.Series(random.random(len(test.label)) < 0.8), pd.Series(test.cluster))]
    return rows, [comparisons.make_conclusion(score, test, table, ("volume",)).verdict]


@pytest.mark.slow
def test_in_small_tests_no_number_is_impossible(effort):
    """Nor is one NaN, in a table or a sentence."""
    effort(resamples=20)
    for seed in range(SMALL_TESTS):
        random = np.random.default_rng(seed)
        rows, texts = collect_rows_and_sentences(*small_test(random), random)
        impossible_values = [
            (name, value)
            for row in rows
            for name, value in row.items()
            if name != "participants" and outside(name, value)
        ]
        assert not impossible_values, (seed, impossible_values)
        assert not re.search(r"\b(nan|inf|None)\b", " ".join(texts)), (seed, texts)


@pytest.mark.slow
def test_in_small_calibrations_and_covariates_no_number_is_impossible(effort):
    """The same of tables that need more people: probabilities, and what is beside covariates."""
    effort(resamples=20)
    for seed in range(5):
        random = np.random.default_rng(seed)
        label, site = np.arange(170) % 2.0, random.choice(list("ABCDEFGHIJ")[: 2 + seed % 9], 170)
        nearly_wrong = np.abs(label - (random.random(170) < 0.98))
        probability = [label * 0.98 + 0.01, 1 - label, nearly_wrong, np.full(170, 0.5), random.random(170)][seed % 5]
        people = pd.DataFrame({"file": np.arange(170), "subject": np.arange(170), "site": site, "label": label})
        people_table = probabilities.make_probability_table(
            people.assign(probability=probability, fold=np.arange(170) % 3)
        )
        rows = probabilities.make_calibration_table(people_table, "site", 0).to_dict("records")
        cells = [(row["measure"], row[end]) for row in rows for end in list_estimate_columns() if row[end] == row[end]]
        assert not [cell for cell in cells if outside(*cell)]
        covariates = pd.DataFrame({"age": random.normal(size=170), "mean_fd": random.random(170)}, range(170))
        test = make_predictions(
            label, probability * 0.9 + 0.05 * random.random(170), fold=np.arange(170) % 3, site=site
        )
        result = confounds.measure_confounds(test, covariates.astype(str), 0)
        adjusted_correlations = [correlation for correlation, _ in result["given_diagnosis"].values()]
        for estimate in (result.get("partial", UNDEFINED), *adjusted_correlations):
            assert not [end for end in astuple(estimate) if outside("correlation", end)]
        rows = confounds.make_group_score_rows(test, covariates.astype(str), 0)
        counts = {"subjects", "autism", "control"}
        assert not [
            (column, value)
            for row in rows
            for column, value in row.items()
            if column not in counts and outside(column, value)
        ]


SURE, ALONE = Estimate(0.61, 0.5, 0.7204), Estimate(0.61, None, None)


@pytest.mark.parametrize(
    ("estimate", "text_options", "text"),
    [
        (SURE, {}, "0.610 (0.500 to 0.720)"),
        (SURE, {"number_format": ".2f"}, "0.61 (0.50 to 0.72)"),
        (ALONE, {}, "0.610 (no interval: too few participants)"),
        (ALONE, {"no_interval_text": "too few"}, "0.610 (too few)"),
        (UNDEFINED, {}, "-"),
        (UNDEFINED, {"undefined_text": "undefined", "no_interval_text": "too few"}, "undefined"),
    ],
)
def test_texts(estimate, text_options, text):
    assert estimate.text(**text_options) == text


def test_ends_alone():
    assert (
        SURE.format_interval(".0%") == "50% to 72%" and ALONE.format_interval() == "no interval: too few participants"
    )


# Calibrated probabilities and sets


SIZES = (30, 40, 24, 60, 50, 12, 44, 40, 36, 24)  # of sites


def make_site_predictions(seed=0) -> pd.DataFrame:
    """Predictions of people whose sites are left out, with an AUC of 0.76 or so."""
    random = np.random.default_rng(seed)
    site = np.repeat(np.arange(len(SIZES)), SIZES)
    label = np.arange(len(site)) % 2
    odds = random.normal(label - 0.5, 1)
    columns = {
        "file": [f"{person_index}.bin" for person_index in range(len(site))],
        "subject": [f"s{person_index}" for person_index in range(len(site))],
    }
    site_names = np.char.add("site ", site.astype(str))
    return pd.DataFrame(columns | {"site": site_names, "label": label, "probability": expit(odds), "fold": site_names})


@pytest.fixture
def site_predictions(effort) -> pd.DataFrame:
    """Few resamples."""
    effort(resamples=50)
    return make_site_predictions()


def test_a_person_counts_once_and_is_calibrated_by_all_remaining_folds(site_predictions):
    twice = pd.concat([site_predictions, site_predictions.assign(file="again", probability=0.5)])
    table = probabilities.make_probability_table(twice)
    assert table["file"].tolist() == site_predictions["file"].tolist()
    is_in_site_3 = (site_predictions["site"] == "site 3").to_numpy()
    label, raw = site_predictions["label"].to_numpy(), site_predictions["probability"].to_numpy()
    calibrator = calibration.fit_calibration(label[~is_in_site_3], raw[~is_in_site_3])
    np.testing.assert_allclose(table["calibrated"][is_in_site_3], calibrator.calibrate(raw[is_in_site_3]))
    assert table["prevalence"][is_in_site_3].unique() == pytest.approx([label[~is_in_site_3].mean()])
    names = {(True, False): "control", (False, True): "autism", (True, True): "both", (False, False): "none"}
    for column, level in (("set_80", 0.8), ("set_90", 0.9)):
        assert table[column][is_in_site_3].tolist() == [
            names[tuple(set_members)] for set_members in calibrator.find_label_sets(raw[is_in_site_3], level).tolist()
        ]


def test_few_people_have_no_table(site_predictions, effort):
    effort(calibrate_from=50)
    few = site_predictions.groupby("site").head(11)
    assert (
        probabilities.make_probability_table(few).empty
        and probabilities.make_probability_table(site_predictions.assign(fold="one")).empty
    )


def test_observed_frequencies_are_counted_by_hand(site_predictions):
    site_predictions = site_predictions.assign(
        label=site_predictions["label"].where(site_predictions["site"] != "site 5", 1)
    )  # a site of one class
    table = probabilities.make_probability_table(site_predictions)
    observed_table = probabilities.make_calibration_table(table, "site", 0)
    assert (observed_table["group"].nunique(), len(observed_table)) == (1 + len(SIZES), 6 + 2 * 5 * (1 + len(SIZES)))
    is_control_in_set = table["set_90"].isin(["control", "both"])
    for group, rows in {"": table["site"] != "", "site 3": table["site"] == "site 3"}.items():
        is_control_covered = is_control_in_set[rows & (table["label"] == 0)]
        where = {"measure": "coverage", "group": group, "diagnosis": "control", "level": 0.9}
        (row,) = observed_table[(observed_table[list(where)] == pd.Series(where)).all(axis=1)].to_dict("records")
        low, high = proportion_confint(is_control_covered.sum(), len(is_control_covered), method="wilson")
        row_values = (row["participants"], row["value"], row["low"], row["high"])
        assert row_values == pytest.approx((len(is_control_covered), is_control_covered.mean(), low, high))
    nobody = observed_table[(observed_table["group"] == "site 5") & (observed_table["diagnosis"] == "control")]
    assert nobody["participants"].tolist() == [0, 0] and nobody["value"].isna().all()
    both = observed_table[
        (observed_table["measure"] == "both") & (observed_table["group"] == "") & (observed_table["level"] == 0.8)
    ]["value"]
    assert both.tolist() == pytest.approx([(table["set_80"] == "both").mean()])
    slope = observed_table[observed_table["measure"] == "slope"].set_index("probabilities")
    assert (slope["low"] < slope["value"]).all() and (slope["value"] < slope["high"]).all()
    raw = sm.Logit(table["label"], sm.add_constant(to_log_odds(table["probability"].to_numpy()))).fit(disp=0)
    assert slope["value"]["as predicted"] == pytest.approx(raw.params.iloc[1])


@pytest.mark.slow
def test_intervals_hold_the_true_slope(effort, monkeypatch):
    effort(resamples=100)
    monkeypatch.setattr(
        "utils.scores.metrics.Predictions.compute_interval_widening", lambda *_: 1
    )  # these labels share no models
    rows = [
        probabilities.estimate_label_agreement(Predictions.from_tables(simulation), 0)
        for simulation in map(make_site_predictions, range(100))
    ]
    slope, intercept = (
        pd.DataFrame([simulation[name].to_cells() for simulation in rows]) for name in ("slope", "intercept")
    )
    for table, true in ((slope, 1), (intercept, 0)):  # log odds of normal values 1 apart are what they say
        assert ((table["low"] <= true) & (true <= table["high"])).mean() == pytest.approx(0.95, abs=0.06)


def observed_in(table: pd.DataFrame) -> pd.DataFrame:
    return probabilities.make_calibration_table(probabilities.make_probability_table(table), "fold", 0)


def test_the_lowest_coverage_is_in_a_left_out_site_with_ten_people_in_a_class(site_predictions):
    table = probabilities.make_probability_table(site_predictions)
    cross_validation: Any = SimpleNamespace(
        calibration=probabilities.make_calibration_table(table, "site", 0), manifest=SimpleNamespace(folds="site")
    )
    is_covered_by_class = [
        table["set_80"].isin([name, "both"]) & (table["label"] == class_label)
        for class_label, name in enumerate(("control", "autism"))
    ]
    coverages = [
        is_covered[rows].sum() / (table["label"][rows] == class_label).sum()
        for class_label, is_covered in enumerate(is_covered_by_class)
        for rows in (table["site"] == name for name in table["site"].unique())
        if (table["label"][rows] == class_label).sum() >= 10
    ]
    assert len(coverages) == 18 and find_lowest_coverage(cross_validation) == pytest.approx(min(coverages))
    cross_validation.manifest.folds = "5"
    assert find_lowest_coverage(cross_validation) is None


def test_people_sharing_a_scan_count_once(site_predictions):
    """Each person is there five times."""
    table = site_predictions.loc[site_predictions.index.repeat(5)].reset_index(drop=True)
    copies = [f"{name}-{row_index % 5}" for row_index, name in enumerate(table["subject"])]
    table = table.assign(same_scan=table["subject"] + "-0", subject=copies, file=copies)
    copied_observed, single_observed = (
        observed_in(table),
        observed_in(site_predictions.assign(subject=site_predictions["subject"] + "-0")),
    )
    width = [
        (rows["high"] - rows["low"])[rows["measure"] == COVERAGE_MEASURE].tolist()
        for rows in (copied_observed, single_observed)
    ]
    assert width[0] == pytest.approx(width[1], abs=0.06)


def test_intervals_need_ten_families_per_class():
    label, probability = np.repeat([0.0, 1.0], 16), np.linspace(0, 1, 32) % 0.7
    family_predictions, alone = (
        make_predictions(label, probability, same_scan=np.arange(32) // 2),
        make_predictions(label, probability),
    )
    assert family_predictions.count_clusters(label >= 0) == 16 and alone.count_clusters(label >= 0) == 32
    assert estimate_scores(family_predictions, 0)["auc"].low is None
    assert estimate_scores(alone, 0)["auc"].low is not None


def test_intervals_over_several_folds_are_made_wider_by_their_families():
    """As if each family were one person; a family is in one fold."""
    family = np.arange(120) // 2
    label, fold, site = family % 2, family % 5, np.repeat(["a", "b"], 60)
    table = make_prediction_table(label, np.linspace(0, 1, 120), fold=fold, site=site, same_scan=family)
    twice, once = Predictions.from_tables(table), Predictions.from_tables(table[::2])
    fewer = np.sqrt((1 - 5 / 120) / (1 - 5 / 60))  # degrees of freedom of the bootstrap, one a fold
    for name in ("auc", "auc_sites", "auc_folds"):
        assert twice.compute_interval_widening(name) == pytest.approx(once.compute_interval_widening(name) * fewer)
