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
from utils.report.tables import average_tables
from utils.scores import metrics
from utils.scores.conclusion import CovariateResult, judge_auc_difference
from utils.scores.results import UNDEFINED, Estimate, flatten_estimates

Predictions = metrics.Predictions
MAJORITY = "majority"
VOLUME, BOTH = ("volume",), ("volume", "phenotype")  # what networks read


def pooled(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of 90 records after three folds, and baselines."""
    random = np.random.default_rng(seed)
    label, fold = np.arange(90) % 2.0, np.arange(90) // 30
    probability = 1 / (1 + np.exp(-random.normal(label, 1)))
    table = pd.DataFrame({MAJORITY: 0.5 - 0.01 * fold, "regions, SVM": random.random(90), "unfitted": np.nan})
    site = random.choice(["A", "B"], 90)
    return make_prediction_table(label, probability, fold=fold, site=site), table


def test_rows_hold_every_baseline_with_the_paired_difference():
    predicted, table = pooled()
    known = Predictions.from_tables(predicted)
    majority, svm = comparisons.make_baseline_rows(known, [table], 0, VOLUME)
    baseline = known.with_probabilities([table["regions, SVM"]])
    model, expected = (metrics.estimate_scores(of, 0) for of in (known, baseline))
    less = metrics.estimate_differences(known, baseline, 0)
    for name in ("auc", "accuracy", "balanced_accuracy", "brier", "auc_sites"):
        assert Estimate.from_row(svm, name) == expected[name]
    for name in ("auc", "auc_sites", "auc_folds"):
        assert Estimate.from_row(svm, f"model_minus_baseline_{name}") == less[name]
        assert less[name].value == pytest.approx(model[name].value - svm[name])
    assert list(majority) == list(svm) and "model_minus_baseline_brier" not in svm
    assert astuple(Estimate.from_row(majority, "auc")) == (0.5, 0.5, 0.5), "it ranks nobody, though it differs by fold"
    assert majority["auc_sites"] == 0.5 and majority["model_minus_baseline_auc_low"] > 0
    alone = Predictions.from_tables(predicted[["subject", "label", "probability"]])
    assert "auc_sites" not in comparisons.make_baseline_rows(alone, [table], 0, VOLUME)[0]


def test_one_baseline_is_named_beforehand_and_the_intervals_of_the_others_hold_together():
    """As wide as those of a number alone times a ratio of normal quantiles. The named one is not the best."""
    predicted, table = pooled()
    known = Predictions.from_tables(predicted)
    others = {f"regions, {name}": np.roll(table["regions, SVM"], at) for at, name in enumerate("abcd", 1)}
    table = table.drop(columns="unfitted").assign(**others, best=known.mean_probability)
    rows = comparisons.make_baseline_rows(known, [table], 0, VOLUME)
    assert [row["role"] for row in rows] == ["", "pre-specified", *["other"] * 5]
    for at, name in ((1, "regions, SVM"), (2, "regions, a")):
        less = metrics.estimate_differences(known, known.with_probabilities([table[name]]), 0)["auc_sites"]
        among = 1 if at == 1 else 5
        wider = norm.ppf(1 - 0.025 / among) / norm.ppf(0.975)
        ends = [less.value + wider * (end - less.value) for end in (less.low, less.high)]
        found = [rows[at][f"model_minus_baseline_auc_sites_{end}"] for end in ("low", "high")]
        assert found == pytest.approx(np.clip(ends, -1, 1).tolist())


def test_baselines_of_repeats_are_averaged_like_the_model():
    (known, table), (_, other) = pooled(), pooled(1)
    more = table.assign(forest=known["probability"])  # which the other repeat lacks
    both = comparisons.make_baseline_rows(Predictions.from_tables(known, known), [more, other], 0, VOLUME)
    assert [row["baseline"] for row in both] == ["majority", "regions, SVM"]
    alone = [
        comparisons.make_baseline_rows(Predictions.from_tables(known), [one], 0, VOLUME)[1]["auc"]
        for one in (table, other)
    ]
    assert both[1]["auc"] == pytest.approx(np.mean(alone))


# What is concluded


def row(name: str, auc: Estimate, less: Estimate, area: str = "auc") -> dict:
    """A row of `baselines.csv`, with the AUC that counts and the model's minus it."""
    return {"baseline": name} | flatten_estimates({area: auc, f"model_minus_baseline_{area}": less})


def people(autism: int = 20, control: int = 20, **columns: Any) -> Predictions:
    label = np.arange(autism + control) < autism
    return make_predictions(label, np.full(len(label), 0.5), **columns)


HIGH, CHANCE, LOW = Estimate(0.7, 0.6, 0.8), Estimate(0.5, 0.4, 0.6), Estimate(0.3, 0.2, 0.4)
MORE, SAME, LESS, ALONE = (
    Estimate(0.1, 0.01, 0.2),
    Estimate(0.05, -0.02, 0.1),
    Estimate(-0.1, -0.15, -0.02),
    Estimate(1, None, None),
)
ALWAYS, LR = row(MAJORITY, CHANCE, MORE), row("phenotype, logistic regression", CHANCE, MORE)
SVM, REGIONS = row("all, SVM", CHANCE, SAME), row("regions, ridge", CHANCE, LESS)


@pytest.mark.parametrize(
    "score, rows, words, first, its, others",
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
        (ALONE, [row("regions, ridge", HIGH, UNDEFINED)], "cannot be told", "regions, ridge", "cannot be told", {}),
    ],
)
def test_the_score_is_judged_by_chance_and_by_the_baseline_that_was_pre_specified(
    score, rows, words, first, its, others
):
    found = comparisons.make_conclusion({"auc": score}, people(), rows, BOTH)
    assert (
        found.score_verdict.startswith(words)
        and found.others == others
        and (found.score, found.metric) == (score, "auc")
    )
    assert (found.baseline and found.baseline.name) == first and bool(found.why) == (score == ALONE)
    if found.baseline:
        assert judge_auc_difference(found.baseline.less).startswith(its)
        lacks = {"all, SVM": [], "regions, ridge": ["phenotype"], "phenotype, logistic regression": ["maps"]}
        assert (found.baseline.lacks, found.baseline.besides) == (lacks[first], [])


SITES = np.array(["A", "B"] * 20)
PAIRS = np.arange(40) // 2


SMALL = replace(people(site=SITES, same_scan=PAIRS, fold=np.arange(40) % 5), in_small_sites=True)


@pytest.mark.parametrize(
    "area, score, test, here, elsewhere",
    [
        ("auc_sites", UNDEFINED, people(20, 0), ("are of one class", "autism"), "site"),
        ("auc_folds", UNDEFINED, people(), ("in each fold", "the same diagnosis"), "site"),
        ("auc_sites", UNDEFINED, people(), ("at each site", "the same diagnosis"), "fold"),
        ("auc_sites", UNDEFINED, SMALL, ("at each site", "of a fold"), "class"),
        ("auc", ALONE, people(), ("10 participants", "each class"), "site"),
        ("auc_sites", ALONE, people(), ("10 participants", "at sites that have both"), "family"),
        ("auc", ALONE, people(same_scan=PAIRS), ("10 participants", "a family"), "site"),
        ("auc_sites", ALONE, SMALL, ("a family", "at sites and folds that have both"), "diagnosis"),
    ],
)
def test_nothing_is_concluded_without_an_interval_and_the_reason_is_told(area, score, test, here, elsewhere):
    found = comparisons.make_conclusion({area: score}, test, [], BOTH)
    assert all(words in found.why for words in here) and elsewhere not in found.why, found.why
    assert (
        found.score_verdict == "cannot be told"
        and found.why in found.verdict
        and found.summary_rows[0][2].endswith(found.why)
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


def of_repeats(count: int) -> Predictions:
    return replace(people(site=SITES), probabilities=np.zeros((count, 40)), fold_names=np.full((count, 40), ""))


@pytest.mark.parametrize(
    "area, test, expected",
    [
        ("auc", people(site=SITES), ""),
        ("auc", people(site=["unknown"] * 40), "unknown"),
        ("auc", people(), "unknown"),
        ("auc_sites", people(site=SITES), "within"),
        ("auc_sites", people(site=ONE_CLASS), "within, at sites"),
        ("auc_sites", people(site=SITES, fold=SITES), "within, new"),
        ("auc_sites", replace(people(site=SITES, fold=np.arange(40) // 8), in_small_sites=False), "within, seen"),
        ("auc_sites", replace(people(site=SITES), in_small_sites=True), "few, site"),
        ("auc_sites", replace(people(site=ONE_CLASS), in_small_sites=True), "few, there, site"),
        ("auc_folds", people(fold=np.arange(40) % 5), "unknown, folds"),
        ("auc", of_repeats(2), "repeats"),
        ("auc_sites", of_repeats(2), "within, repeats"),
    ],
)
def test_footnotes_say_whom_the_score_compares(area, test, expected):
    said = " ".join(comparisons.make_conclusion({area: HIGH}, test, [], BOTH).notes)
    assert [name for name, words in NOTES.items() if all(of in said for of in words)] == [
        name for name in NOTES if name in expected.split(", ")
    ], said


def test_a_pre_specified_baseline_that_lacks_an_input_says_so():
    """In the verdict and in the terminal."""
    for rows, lacks in (([LR, REGIONS, SVM], ""), ([REGIONS], "phenotype")):
        found = comparisons.make_conclusion({"auc": HIGH}, people(), rows, BOTH)
        printed = next(text for name, _, text in found.summary_rows if name.endswith(" baseline"))
        assert all(("lacks" in text) == bool(lacks) and lacks in text for text in (found.verdict, printed))


def test_a_network_that_reads_the_site_alone_is_not_shown_to_do_better_than_chance():
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


def estimates(low: float) -> st.SearchStrategy[Estimate]:
    """Numbers between this and 1 with an interval, without one, or undefined."""
    ends = st.tuples(*[st.floats(low, 1)] * 3).map(sorted).map(lambda of: Estimate(of[1], of[0], of[2]))
    return st.one_of(ends, ends, st.just(Estimate(low, None, None)), st.just(UNDEFINED))


NAMES = st.sampled_from([MAJORITY, "all, SVM", "regions, ridge", "phenotype, SVM", "covariates, SVM"])
ROWS = st.lists(st.tuples(NAMES, estimates(0), estimates(-1)), unique_by=lambda of: of[0])
COVARIATES = st.builds(
    CovariateResult,
    names=st.just(["site", "age", "sex", "IQ", "hand", "log mean_fd"]),
    partial=estimates(-1),
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
@given(st.sampled_from(["auc_sites", "auc"]), estimates(0), ROWS, COVARIATES, estimates(0), estimates(-1))
@example("auc", HIGH, [("regions, ridge", CHANCE, MORE)], CovariateResult(partial=MORE), UNDEFINED, UNDEFINED)
def test_its_words_claim_no_more_than_intervals_and_are_few(area, score, rows, covariates, masked, less):
    """The example claims all."""
    found = comparisons.make_conclusion({area: score}, people(site=SITES), [row(*one, area=area) for one in rows], BOTH)
    found = replace(found, covariates=covariates, masked=masked, minus_masked=less)
    said = "; ".join([found.verdict, *map(" ".join, found.summary_rows)])
    assert len(f"Problems invalidate this. {found.verdict}".split()) <= 60 and len(found.summary_rows) <= 6
    its = {"score": score, "less": found.baseline and found.baseline.less, "partial": covariates.partial}
    claimed = [words for words in CLAIMS if words in said]
    assert all(its[of].low > bound for of, bound in map(CLAIMS.get, claimed)), claimed
    assert len(claimed) == len(CLAIMS) or (score, covariates.partial) != (HIGH, MORE)
    assert not re.search(r"\b(nan|None|inf)\b|[Nn]o difference(?![^.;]* shown)", said)


# Repeats


ONE = pd.DataFrame({"file": ["a", "b"], "label": [1, 0], "probability": [0.2, 0.6], "fold": ["0", "1"], "x": [1, 1]})
OTHER = pd.DataFrame({"file": ["b", "a"], "label": [0, 1], "probability": [0.8, 0.1], "fold": ["1", "0"]})


def test_repeats_are_averaged_by_file_as_far_as_all_know():
    mean = average_tables([ONE, OTHER])
    assert list(mean) == ["file", "label", "probability", "fold"]  # not what only one of them has
    assert mean["file"].tolist() == ["a", "b"] and mean["label"].tolist() == [1, 0]
    assert mean["probability"].tolist() == pytest.approx([0.15, 0.7])
    assert average_tables([ONE, OTHER.assign(fold=["0", "0"])])["fold"].tolist() == ["0", "1"]  # of the first
    unknown = average_tables([ONE, OTHER.assign(probability=[0.8, None])])
    assert unknown["probability"].isna().tolist() == [True, False]
