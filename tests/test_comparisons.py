"""The network beside its baselines, against pairs by hand; the sentence that says what may be concluded."""

from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from utils.evaluation import comparisons
from utils.report.tables import mean_of
from utils.scores import metrics

Predictions = metrics.Predictions
ALIKE, MAJORITY, RULE = "model, missing values alike", "majority", "rule that made the data"

VOLUME, BOTH = ("volume",), ("volume", "phenotype")  # what networks read


def pooled(seed: int = 0) -> tuple[Predictions, list[pd.DataFrame]]:
    """Predictions of 90 records after three folds, and baselines."""
    random = np.random.default_rng(seed)
    label, fold = np.arange(90) % 2.0, np.arange(90) // 30
    probability = 1 / (1 + np.exp(-random.normal(label, 1)))
    table = pd.DataFrame({MAJORITY: 0.5 - 0.01 * fold, "regions, SVM": random.random(90), "unfitted": np.nan})
    site = random.choice(["A", "B"], 90)
    return Predictions(label, probability, [str(number) for number in range(90)], fold, site), [table]


def test_rows_hold_the_model_and_every_baseline_with_the_paired_difference():
    known, (table,) = pooled()
    model, majority, svm = comparisons.baselines_table(known, [table], 0, VOLUME)
    baseline = replace(known, probability=table["regions, SVM"])
    expected, less = metrics.with_intervals(baseline, 0), metrics.differences(known, baseline, 0)
    for name in ("auc", "accuracy", "balanced_accuracy", "brier", "auc_sites"):
        assert [svm[name], svm[f"{name}_low"], svm[f"{name}_high"]] == list(astuple(expected[name]))
    for name in ("auc", "auc_sites", "auc_folds"):
        minus = [svm[f"model_minus_baseline_{name}{end}"] for end in ("", "_low", "_high")]
        assert minus == list(astuple(less[name]))
        assert minus[0] == pytest.approx(model[name] - svm[name])
    assert model["baseline"] == "model" and model["model_minus_baseline_auc"] is None
    assert list(model) == list(majority) == list(svm) and "model_minus_baseline_brier" not in model
    assert "auc_sites" not in comparisons.baselines_table(replace(known, site=None, fold=None), [table], 0, VOLUME)[0]


def test_one_baseline_is_named_beforehand_and_the_intervals_of_the_others_hold_together():
    """As wide as those of a number alone times a ratio of normal quantiles. The named one is not the best."""
    known, (table,) = pooled()
    others = {f"regions, {name}": np.roll(table["regions, SVM"], at) for at, name in enumerate("abcd", 1)}
    table = table.drop(columns="unfitted").assign(**others, best=known.probability)
    rows = comparisons.baselines_table(known, [table], 0, VOLUME)
    assert [row["role"] for row in rows] == ["", "", "pre-specified", *["other"] * 5]
    for at, name in ((2, "regions, SVM"), (3, "regions, a")):
        less = metrics.differences(known, replace(known, probability=table[name]), 0)["auc_sites"]
        among = 1 if at == 2 else 5
        wider = norm.ppf(1 - 0.025 / among) / norm.ppf(0.975)
        ends = [less.value + wider * (end - less.value) for end in (less.low, less.high)]
        found = [rows[at][f"model_minus_baseline_auc_sites_{end}"] for end in ("low", "high")]
        assert found == pytest.approx(np.clip(ends, -1, 1).tolist())


def test_the_majority_ranks_nobody_though_its_constant_differs_between_folds():
    majority = comparisons.baselines_table(*pooled(), 0, VOLUME)[1]
    assert [majority["auc"], majority["auc_low"], majority["auc_high"], majority["auc_sites"]] == [0.5] * 4
    assert majority["model_minus_baseline_auc_low"] > 0


def test_baselines_of_repeats_are_averaged_like_the_model():
    known, (table,) = pooled()
    _, (other,) = pooled(1)
    more = table.assign(**{ALIKE: known.probability})  # which the other repeat lacks
    both = comparisons.baselines_table(replace(known, repeats=(known,)), [more, other], 0, VOLUME)
    assert [row["baseline"] for row in both] == ["model", "majority", "regions, SVM"]
    alone = [comparisons.baselines_table(known, [one], 0, VOLUME)[2]["auc"] for one in (table, other)]
    assert both[2]["auc"] == pytest.approx(np.mean(alone))


Ends = tuple[float | None, ...]
UNKNOWN: Ends = (None, None, None)


def row(name: str, auc: Ends, less: Ends = UNKNOWN, area: str = "auc") -> dict:
    """A row of `baselines.csv`, with the AUC that counts and the model's minus it."""
    ends = ("", "_low", "_high")
    cells = {f"{area}{end}": value for end, value in zip(ends, auc, strict=True)}
    return (
        {"baseline": name}
        | cells
        | {f"model_minus_baseline_{area}{end}": of for end, of in zip(ends, less, strict=True)}
    )


def people(autism: int = 20, control: int = 20, site: list[str] | None = None) -> Predictions:
    count = autism + control
    return Predictions(np.arange(count) < autism, np.full(count, 0.5), range(count), site=site)


MODEL, LIKE_CHANCE = row("model", (0.7, 0.6, 0.8)), row("model", (0.55, 0.45, 0.65))
LR = row("phenotype, logistic regression", (0.6, 0.5, 0.7), (0.1, 0.01, 0.2))
SVM = row("all, SVM", (0.65, 0.55, 0.75), (0.05, -0.02, 0.1))
PHENOTYPE = {**LR, "baseline": "phenotype, SVM"}
REGIONS = row("regions, ridge", (0.8, 0.7, 0.9), (-0.1, -0.15, -0.02))
ABOVE = row("all, SVM", (0.8, 0.7, 0.9), (-0.1, -0.15, -0.02))
ALWAYS = row(MAJORITY, (0.5, 0.5, 0.5), (0.2, 0.1, 0.3))


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([MODEL, ALWAYS], ["does better than chance: AUC 0.70, 0.60 to 0.80"]),
        (
            [MODEL, ALWAYS, LR],
            [
                "does not read the maps",
                "no baseline reads just what",
                "0.10, 0.01 to 0.20",
                "so it beats this baseline",
            ],
        ),
        ([MODEL, {**LR, "baseline": "covariates, SVM"}], ["none is pre-specified", "Of 1 other baseline it beats 1"]),
        (
            [MODEL, PHENOTYPE, SVM, REGIONS, row(RULE, (0.97, 0.9, 1.0))],
            [
                *("pre-specified baseline is all by SVM, which reads what the network reads", "0.65, 0.55 to 0.75"),
                *(
                    "0.05, -0.02 to 0.10, so it is level with this baseline",
                    "Of 2 other baselines it beats 1 and is worse",
                ),
                *("regions by ridge", "hold for all 2 together", "reaches 0.97 (0.90 to 1.00)"),
            ],
        ),
        (
            [LIKE_CHANCE, REGIONS, SVM, {**REGIONS, "baseline": "phenotype, SVM"}],
            ["is not shown to do better than chance: AUC 0.55", "Of 2 other baselines it is worse than all"],
        ),
        ([row("model", (0.3, 0.2, 0.4))], ["does worse than chance: AUC 0.30", "exchanged labels"]),
        (
            [row("model", (1.0, None, None)), ABOVE],
            ["Nothing can be concluded", "1.00 (no interval: too few participants)", "10 participants of each class"],
        ),
    ],
)
def test_a_few_sentences_say_what_may_be_concluded(rows, expected):
    said = comparisons.verdict(rows, people(), BOTH)
    assert [words for words in expected if words not in said] == [], said


def test_of_one_class_nothing_is_defined():
    assert "undefined" in comparisons.verdict([row("model", UNKNOWN), ABOVE], people(20, 0), BOTH)


@pytest.mark.parametrize(
    "model, sites, expected",
    [
        (UNKNOWN, ["A"] * 20 + ["B"] * 20, "at each site all test participants have the same diagnosis"),
        ((0.7, 0.6, 0.8), ["A", "B"] * 20, "better than chance: AUC within sites 0.70"),
        ((0.7, 0.6, 0.8), ["A"] * 5 + ["B", "C"] * 15 + ["D"] * 5, "; 10 of 40 participants are at sites of one class"),
        ((0.9, None, None), ["A"] * 18 + ["B"] * 22, "needs 10 participants of each class at sites that have both"),
        ((0.7, 0.6, 0.8), ["unknown"] * 40, "Site is unknown, and may be the whole"),
        ((0.7, 0.6, 0.8), [""] * 40, "Site is unknown, and may be the whole"),
    ],
)
def test_several_sites_are_judged_within_them(model, sites, expected):
    said = comparisons.verdict([row("model", model, area="auc_sites")], people(site=sites), BOTH)
    assert expected in said and ("Site is unknown" in said) == ("Site" in expected)
    assert ("Nothing can be concluded" in said) == (model[1] is None)


def test_a_network_that_reads_the_site_alone_is_not_shown_to_do_better_than_chance():
    """Sites differ in diagnosis, 80 to 20 %: the pooled AUC is well above 0.5, and nothing is concluded from it."""
    random = np.random.default_rng(3)
    site = np.repeat(list("ABCD"), 60)
    label = (random.random(240) < np.repeat([0.8, 0.6, 0.4, 0.2], 60)).astype(float)
    probability = np.repeat([0.8, 0.6, 0.4, 0.2], 60) + random.normal(0, 0.05, 240)
    predictions = Predictions(label, probability, range(240), np.arange(240) % 5, site)
    rows = comparisons.baselines_table(predictions, [pd.DataFrame(index=range(240))], 0, VOLUME)
    assert rows[0]["auc_low"] > 0.55
    said = comparisons.verdict(rows, predictions, VOLUME)
    assert said.startswith("The network is not shown to do better than chance")


ONE = pd.DataFrame({"file": ["a", "b"], "label": [1, 0], "probability": [0.2, 0.6], "fold": ["0", "1"], "x": [1, 1]})
OTHER = pd.DataFrame({"file": ["b", "a"], "label": [0, 1], "probability": [0.8, 0.1], "fold": ["1", "0"]})


def test_repeats_are_averaged_by_file_as_far_as_all_know():
    mean = mean_of([ONE, OTHER])
    assert list(mean) == ["file", "label", "probability", "fold"]  # not what only one of them has
    assert mean["file"].tolist() == ["a", "b"] and mean["label"].tolist() == [1, 0]
    assert mean["probability"].tolist() == pytest.approx([0.15, 0.7])
    assert "fold" not in mean_of([ONE, OTHER.assign(fold=["0", "0"])])
    unknown = mean_of([ONE, OTHER.assign(probability=[0.8, None])])
    assert unknown["probability"].isna().tolist() == [True, False]


SITES, BETTER = np.array(["A", "B"] * 20), (0.7, 0.6, 0.8)
NEEDS = "10 participants of each class (a family, or participants who share a scan, count once) at sites"


@pytest.mark.parametrize(
    "changes, area, values, expected",
    [
        ({"site": None}, "auc_folds", BETTER, "better than chance: AUC within folds"),
        ({"site": None}, "auc_folds", BETTER, "is the mean over 2 repeats."),
        ({"fold": SITES}, "auc_sites", BETTER, "Each site was tested by a model that had not seen it."),
        ({"fold": np.arange(40) // 8}, "auc_sites", BETTER, "does not say how the network does at a new site."),
        ({"person": np.arange(40) // 2}, "auc_sites", (0.7, None, None), f"{NEEDS} that have both"),
        (
            {"person": np.arange(40) // 2, "fold": np.arange(40) % 5, "peers": np.arange(40) // 8},
            *("auc_sites", (0.7, None, None), f"{NEEDS} and folds that have both"),
        ),
    ],
)
def test_folds_repeats_and_families_are_named(changes, area, values, expected):
    once = replace(people(site=SITES), **changes)
    said = comparisons.verdict([row("model", values, area=area)], replace(once, repeats=(once,)), BOTH)
    assert expected in said, said
