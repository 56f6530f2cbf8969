"""The network beside its baselines, against pairs by hand; what is concluded, and that its words say no more."""

import re
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import make_prediction_table, make_predictions
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from utils.evaluation import comparisons
from utils.report.tables import average_record_tables
from utils.scores import metrics
from utils.scores.conclusion import CovariateResult, judge_auc_difference
from utils.scores.results import UNDEFINED, Estimate, flatten_estimates

Predictions = metrics.Predictions
MAJORITY = "majority"
VOLUME, BOTH = ("volume",), ("volume", "phenotype")  # what networks read


def pool_predictions(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of 90 records after three folds, and baselines."""
    random = np.random.default_rng(seed)
    label, fold = np.arange(90) % 2.0, np.arange(90) // 30
    probability = 1 / (1 + np.exp(-random.normal(label, 1)))
    table = pd.DataFrame({MAJORITY: 0.5 - 0.01 * fold, "regions, SVM": random.random(90), "unfitted": np.nan})
    site = random.choice(["A", "B"], 90)
    return make_prediction_table(label, probability, fold=fold, site=site), table


def test_rows_hold_all_baselines_with_the_paired_difference():
    predicted, table = pool_predictions()
    test_predictions = Predictions.from_tables(predicted)
    majority, svm = comparisons.make_baseline_rows(test_predictions, [table], 0, VOLUME)
    baseline = test_predictions.with_probabilities([table["regions, SVM"]])
    model, expected = (
        metrics.estimate_scores(scored_predictions, 0) for scored_predictions in (test_predictions, baseline)
    )
    difference_by_metric = metrics.estimate_score_differences(test_predictions, baseline, 0)
    for name in ("auc", "accuracy", "balanced_accuracy", "brier", "auc_sites"):
        assert Estimate.from_row(svm, name) == expected[name]
    for name in ("auc", "auc_sites", "auc_folds"):
        assert Estimate.from_row(svm, f"model_minus_baseline_{name}") == difference_by_metric[name]
        assert difference_by_metric[name].value == pytest.approx(model[name].value - svm[name])
    assert list(majority) == list(svm) and "model_minus_baseline_brier" not in svm
    assert astuple(Estimate.from_row(majority, "auc")) == (0.5, 0.5, 0.5), "it ranks nobody, though it differs by fold"
    assert majority["auc_sites"] == 0.5 and majority["model_minus_baseline_auc_low"] > 0
    alone = Predictions.from_tables(predicted[["subject", "label", "probability"]])
    assert "auc_sites" not in comparisons.make_baseline_rows(alone, [table], 0, VOLUME)[0]


def test_a_baseline_is_pre_specified_and_the_remaining_intervals_hold_together():
    """As wide as those of a number alone times a ratio of normal quantiles. The named one is not the best."""
    predicted, table = pool_predictions()
    test_predictions = Predictions.from_tables(predicted)
    extra_baselines = {
        f"regions, {name}": np.roll(table["regions, SVM"], number) for number, name in enumerate("abcd", 1)
    }
    table = table.drop(columns="unfitted").assign(**extra_baselines, best=test_predictions.mean_probability)
    rows = comparisons.make_baseline_rows(test_predictions, [table], 0, VOLUME)
    assert [row["role"] for row in rows] == ["", "pre-specified", *["other"] * 5]
    for number, name in ((1, "regions, SVM"), (2, "regions, a")):
        difference = metrics.estimate_score_differences(
            test_predictions, test_predictions.with_probabilities([table[name]]), 0
        )["auc_sites"]
        among = 1 if number == 1 else 5
        wider = norm.ppf(1 - 0.025 / among) / norm.ppf(0.975)
        ends = [difference.value + wider * (end - difference.value) for end in (difference.low, difference.high)]
        stored_ends = [rows[number][f"model_minus_baseline_auc_sites_{end}"] for end in ("low", "high")]
        assert stored_ends == pytest.approx(np.clip(ends, -1, 1).tolist())


def test_repeated_baselines_are_averaged_as_the_model_is():
    (predicted, table), (_, second_table) = pool_predictions(), pool_predictions(1)
    more = table.assign(forest=predicted["probability"])  # which the other repeat lacks
    both = comparisons.make_baseline_rows(
        Predictions.from_tables(predicted, predicted), [more, second_table], 0, VOLUME
    )
    assert [row["baseline"] for row in both] == ["majority", "regions, SVM"]
    alone = [
        comparisons.make_baseline_rows(Predictions.from_tables(predicted), [baseline_table], 0, VOLUME)[1]["auc"]
        for baseline_table in (table, second_table)
    ]
    assert both[1]["auc"] == pytest.approx(np.mean(alone))


# What is concluded


def make_baseline_row(name: str, auc: Estimate, less: Estimate, area: str = "auc") -> dict:
    """A row of `baselines.csv`, with the AUC that counts and the model's minus it."""
    return {"baseline": name} | flatten_estimates({area: auc, f"model_minus_baseline_{area}": less})


def make_test_people(autism: int = 20, control: int = 20, **columns: Any) -> Predictions:
    label = np.arange(autism + control) < autism
    return make_predictions(label, np.full(len(label), 0.5), **columns)


HIGH, CHANCE, LOW = Estimate(0.7, 0.6, 0.8), Estimate(0.5, 0.4, 0.6), Estimate(0.3, 0.2, 0.4)
MORE, SAME, LESS, ALONE = (
    Estimate(0.1, 0.01, 0.2),
    Estimate(0.05, -0.02, 0.1),
    Estimate(-0.1, -0.15, -0.02),
    Estimate(1, None, None),
)
ALWAYS, LR = (
    make_baseline_row(MAJORITY, CHANCE, MORE),
    make_baseline_row("phenotype, logistic regression", CHANCE, MORE),
)
SVM, REGIONS = make_baseline_row("all, SVM", CHANCE, SAME), make_baseline_row("regions, ridge", CHANCE, LESS)


@pytest.mark.parametrize(
    "score, rows, words, first, expected_standing, expected_counts",
    [
        (HIGH, [ALWAYS], "better than chance", None, None, {}),
        (HIGH, [ALWAYS, LR], "better than chance", "phenotype, logistic regression", "better", {}),
        (HIGH, [LR | {"baseline": "covariates, SVM"}], "better than chance", None, None, {"better": 1}),
        (
            CHANCE,
            [ALWAYS, LR, SVM, REGIONS],
            "not shown better",
            "all, SVM",
            "no difference",
            {"better": 1, "worse": 1},
        ),
        (LOW, [REGIONS], "worse than chance", "regions, ridge", "worse", {}),
        (
            ALONE,
            [make_baseline_row("regions, ridge", HIGH, UNDEFINED)],
            "cannot be told",
            "regions, ridge",
            "cannot be told",
            {},
        ),
    ],
)
def test_the_score_is_judged_by_chance_and_by_the_pre_specified_baseline(
    score, rows, words, first, expected_standing, expected_counts
):
    conclusion = comparisons.make_conclusion({"auc": score}, make_test_people(), rows, BOTH)
    assert (
        conclusion.score_verdict.startswith(words)
        and conclusion.others == expected_counts
        and (conclusion.score, conclusion.metric) == (score, "auc")
    )
    assert (conclusion.baseline and conclusion.baseline.name) == first and bool(conclusion.why) == (score == ALONE)
    if conclusion.baseline:
        assert judge_auc_difference(conclusion.baseline.less).startswith(expected_standing)
        lacks = {"all, SVM": [], "regions, ridge": ["phenotype"], "phenotype, logistic regression": ["maps"]}
        assert (conclusion.baseline.lacks, conclusion.baseline.besides) == (lacks[first], [])


SITES = np.array(["A", "B"] * 20)
PAIRS = np.arange(40) // 2


SMALL = replace(make_test_people(site=SITES, same_scan=PAIRS, fold=np.arange(40) % 5), in_small_sites=True)


@pytest.mark.parametrize(
    "area, score, test, expected_words, absent_word",
    [
        ("auc_sites", UNDEFINED, make_test_people(20, 0), ("are of one class", "autism"), "site"),
        ("auc_folds", UNDEFINED, make_test_people(), ("in each fold", "the same diagnosis"), "site"),
        ("auc_sites", UNDEFINED, make_test_people(), ("at each site", "the same diagnosis"), "fold"),
        ("auc_sites", UNDEFINED, SMALL, ("at each site", "of a fold"), "class"),
        ("auc", ALONE, make_test_people(), ("10 participants", "each class"), "site"),
        ("auc_sites", ALONE, make_test_people(), ("10 participants", "at sites that have both"), "family"),
        ("auc", ALONE, make_test_people(same_scan=PAIRS), ("10 participants", "a family"), "site"),
        ("auc_sites", ALONE, SMALL, ("a family", "at sites and folds that have both"), "diagnosis"),
    ],
)
def test_nothing_is_concluded_without_an_interval_and_the_reason_is_reported(
    area, score, test, expected_words, absent_word
):
    conclusion = comparisons.make_conclusion({area: score}, test, [], BOTH)
    assert all(words in conclusion.why for words in expected_words) and absent_word not in conclusion.why, (
        conclusion.why
    )
    assert (
        conclusion.score_verdict == "cannot be told"
        and conclusion.why in conclusion.verdict
        and conclusion.terminal_summary_rows[0][2].endswith(conclusion.why)
    )


ONE_CLASS = ["A"] * 5 + ["B", "C"] * 15 + ["D"] * 5  # ten people are alone at A and D
NOTES = {  # key words of each, two of those of a pair that excludes each other
    "unknown": ("Site is unknown",),
    "within": ("same site", "averaged over sites"),
    "few": ("few participants", "same site and fold"),
    "at sites": ("10 of 40", "at sites of one class"),
    "there": ("10 of 40", "nobody of the other class there"),
    "new": ("had not seen",),
    "seen": ("were in the training", "nothing of a new site"),
    "folds": ("the same model", "averaged over folds"),
    "site": ("--wholeSites",),
    "repeats": ("over 2 repeats",),
}


def make_repeats(count: int) -> Predictions:
    return replace(
        make_test_people(site=SITES), probabilities=np.zeros((count, 40)), fold_names=np.full((count, 40), "")
    )


@pytest.mark.parametrize(
    "area, test, expected",
    [
        ("auc", make_test_people(site=SITES), ""),
        ("auc", make_test_people(site=["unknown"] * 40), "unknown"),
        ("auc", make_test_people(), "unknown"),
        ("auc_sites", make_test_people(site=SITES), "within"),
        ("auc_sites", make_test_people(site=ONE_CLASS), "within, at sites"),
        ("auc_sites", make_test_people(site=SITES, fold=SITES), "within, new"),
        (
            "auc_sites",
            replace(make_test_people(site=SITES, fold=np.arange(40) // 8), in_small_sites=False),
            "within, seen",
        ),
        ("auc_sites", replace(make_test_people(site=SITES), in_small_sites=True), "few, site"),
        ("auc_sites", replace(make_test_people(site=ONE_CLASS), in_small_sites=True), "few, there, site"),
        ("auc_folds", make_test_people(fold=np.arange(40) % 5), "unknown, folds"),
        ("auc", make_repeats(2), "repeats"),
        ("auc_sites", make_repeats(2), "within, repeats"),
    ],
)
def test_footnotes_say_whom_the_score_compares(area, test, expected):
    footnote_text = " ".join(comparisons.make_conclusion({area: HIGH}, test, [], BOTH).notes)
    assert [name for name, words in NOTES.items() if all(key_word in footnote_text for key_word in words)] == [
        name for name in NOTES if name in expected.split(", ")
    ], footnote_text


def test_a_pre_specified_baseline_lacking_an_input_says_so():
    """In the verdict and in the terminal."""
    for rows, lacks in (([LR, REGIONS, SVM], ""), ([REGIONS], "phenotype")):
        conclusion = comparisons.make_conclusion({"auc": HIGH}, make_test_people(), rows, BOTH)
        printed = next(text for name, _, text in conclusion.terminal_summary_rows if name.endswith(" baseline"))
        assert all(("lacks" in text) == bool(lacks) and lacks in text for text in (conclusion.verdict, printed))


def test_a_network_reading_the_site_alone_is_not_judged_better_than_chance():
    """Sites differ in diagnosis, 80 to 20 %: the pooled AUC is well above 0.5, and nothing is concluded from it."""
    random = np.random.default_rng(3)
    site = np.repeat(list("ABCD"), 60)
    label = (random.random(240) < np.repeat([0.8, 0.6, 0.4, 0.2], 60)).astype(float)
    probability = np.repeat([0.8, 0.6, 0.4, 0.2], 60) + random.normal(0, 0.05, 240)
    test = make_predictions(label, probability, fold=np.arange(240) % 5, site=site)
    score = metrics.estimate_scores(test, 0)
    assert score["auc"].low > 0.55
    assert comparisons.make_conclusion(score, test, [], VOLUME).score_verdict == "not shown better than chance"


# Its words


def draw_estimates(low: float) -> st.SearchStrategy[Estimate]:
    """Numbers between this and 1 with an interval, without one, or undefined."""
    ends = (
        st.tuples(*[st.floats(low, 1)] * 3)
        .map(sorted)
        .map(lambda sorted_ends: Estimate(sorted_ends[1], sorted_ends[0], sorted_ends[2]))
    )
    return st.one_of(ends, ends, st.just(Estimate(low, None, None)), st.just(UNDEFINED))


NAMES = st.sampled_from([MAJORITY, "all, SVM", "regions, ridge", "phenotype, SVM", "covariates, SVM"])
ROWS = st.lists(st.tuples(NAMES, draw_estimates(0), draw_estimates(-1)), unique_by=lambda drawn_row: drawn_row[0])
COVARIATES = st.builds(
    CovariateResult,
    names=st.just(["site", "age", "sex", "IQ", "hand", "log mean_fd"]),
    partial=draw_estimates(-1),
    reason=st.just("few " * 30),
    reliability=st.just(0.58),
)


CLAIMS = {  # what they rest on, and above what its interval must lie
    "does better than chance": ("score", 0.5),
    ") better than chance": ("score", 0.5),
    "is better than the pre-specified": ("less", 0),
    ") better;": ("less", 0),
    "It carries more": ("partial", 0),
    "more than covariates yes": ("partial", 0),
}


@settings(max_examples=400)
@given(
    st.sampled_from(["auc_sites", "auc"]), draw_estimates(0), ROWS, COVARIATES, draw_estimates(0), draw_estimates(-1)
)
@example("auc", HIGH, [("regions, ridge", CHANCE, MORE)], CovariateResult(partial=MORE), UNDEFINED, UNDEFINED)
def test_conclusions_claim_no_more_than_intervals_and_are_few(area, score, rows, covariates, masked, less):
    """The example claims all."""
    conclusion = comparisons.make_conclusion(
        {area: score},
        make_test_people(site=SITES),
        [make_baseline_row(name, auc, difference, area) for name, auc, difference in rows],
        BOTH,
    )
    conclusion = replace(conclusion, covariates=covariates, masked=masked, minus_masked=less)
    conclusion_text = "; ".join([conclusion.verdict, *map(" ".join, conclusion.terminal_summary_rows)])
    assert (
        len(f"Problems invalidate this. {conclusion.verdict}".split()) <= 60
        and len(conclusion.terminal_summary_rows) <= 6
    )
    estimate_by_basis = {
        "score": score,
        "less": conclusion.baseline and conclusion.baseline.less,
        "partial": covariates.partial,
    }
    claimed = [words for words in CLAIMS if words in conclusion_text]
    assert all(estimate_by_basis[basis].low > bound for basis, bound in map(CLAIMS.get, claimed)), claimed
    assert len(claimed) == len(CLAIMS) or (score, covariates.partial) != (HIGH, MORE)
    assert not re.search(r"\b(nan|None|inf)\b|[Nn]o difference(?![^.;]* shown)", conclusion_text)


# Repeats


ONE = pd.DataFrame({"file": ["a", "b"], "label": [1, 0], "probability": [0.2, 0.6], "fold": ["0", "1"], "x": [1, 1]})
OTHER = pd.DataFrame({"file": ["b", "a"], "label": [0, 1], "probability": [0.8, 0.1], "fold": ["1", "0"]})


def test_repeats_are_averaged_by_file_as_far_as_all_know():
    mean = average_record_tables([ONE, OTHER])
    assert list(mean) == ["file", "label", "probability", "fold"]  # not what only one of them has
    assert mean["file"].tolist() == ["a", "b"] and mean["label"].tolist() == [1, 0]
    assert mean["probability"].tolist() == pytest.approx([0.15, 0.7])
    assert average_record_tables([ONE, OTHER.assign(fold=["0", "0"])])["fold"].tolist() == ["0", "1"]  # of the first
    unknown = average_record_tables([ONE, OTHER.assign(probability=[0.8, None])])
    assert unknown["probability"].isna().tolist() == [True, False]
