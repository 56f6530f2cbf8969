"""The test of an output beside covariates against statsmodels' and simulated truths, and what is not in it."""

from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from helpers import make_predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from data.base.errors import InputError
from utils.evaluation.confounds import (
    correlate_residuals,
    correlate_within_diagnosis,
    make_confound_rows,
    make_covariate_result,
    make_group_score_rows,
    measure_confounds,
)
from utils.evaluation.sensitivity import CovariateTestInputs, find_critical_reliability, find_unmeasured_covariate
from utils.report.adjusted import make_adjusted_table
from utils.scores.adjustment import compute_regression_residuals, make_adjustment, make_basis_with_intercept
from utils.scores.features import make_covariate_table
from utils.scores.metrics import Predictions, estimate_scores
from utils.scores.results import UNDEFINED, Estimate


def simulate_motion(count: int = 200, seed: int = 0) -> dict:
    """People whose diagnosis goes with head motion alone; what `test_motion` needs beside the network's output."""
    random = np.random.default_rng(seed)
    fd = random.normal(size=count)
    label = (random.random(count) < 1 / (1 + np.exp(-1.5 * fd))).astype(float)
    table = pd.DataFrame(
        {"age": random.uniform(6, 40, count), "func_mean_fd": np.exp(fd)},
        index=[f"s{number}" for number in range(count)],
    ).astype(str)
    return {"label": label, "table": table, "site": random.choice(["A", "B", "C"], count), "subject": list(table.index)}


def measure_sample(sample: dict, probability: np.ndarray, fold: np.ndarray | None = None) -> dict | None:
    """The result of `measure_confounds`."""
    columns = {name: sample[name] for name in ("subject", "site", "same_scan") if name in sample}
    test = make_predictions(sample["label"], probability, fold="0" if fold is None else fold, **columns)
    return measure_confounds(test, sample["table"], 0)


def list_open_covariates(motion_result: dict) -> list[str]:
    """What may explain a result, since it is not in the test, or partly; without what nobody measured."""
    table = make_adjusted_table(motion_result["beside"])
    *open_covariates, nobody = table["covariate"][table["in_the_test"] != "yes"]
    assert nobody.startswith("what nobody measured")
    return open_covariates


def make_output(sample: dict, label_effect: float, motion_effect: float) -> np.ndarray:
    noise = np.random.default_rng(5).normal(size=len(sample["label"]))
    fd = np.log(sample["table"]["func_mean_fd"].astype(float).to_numpy())
    return 1 / (1 + np.exp(-(label_effect * sample["label"] + motion_effect * fd + noise)))


def test_an_output_reading_motion_carries_nothing_more_and_reading_the_label_does():
    sample = simulate_motion()
    probability = make_output(sample, 0, 2)
    assert roc_auc_score(sample["label"], probability) > 0.7
    motion_result = measure_sample(sample, probability)
    assert motion_result["partial"].low < 0 < motion_result["partial"].high and motion_result["p"] > 0.05
    correlation, p = motion_result["given_diagnosis"]["log func_mean_fd"]
    assert correlation.low > 0.5 and p < 0.01 < motion_result["given_diagnosis"]["age"][1]
    assert make_covariate_result(motion_result).carries_more_verdict == "not shown" and make_covariate_result(
        motion_result
    ).names == [
        "site",
        "age",
        "log func_mean_fd",
    ]
    motion_result = measure_sample(sample, make_output(sample, 2, 0))
    assert (motion_result["subjects"], motion_result["left_out"], motion_result["beside"].unusable_covariates) == (
        200,
        0,
        (),
    )
    assert make_covariate_result(motion_result).carries_more_verdict.startswith("yes") and list_open_covariates(
        motion_result
    ) == [
        "sex",
        "IQ",
        "handedness",
        "products of three",
    ]
    sample["table"] = sample["table"].assign(sex=["M", "F"] * 100, FIQ=np.arange(200).astype(str), hand=[*"RRLL"] * 50)
    assert list_open_covariates(measure_sample(sample, make_output(sample, 2, 0))) == ["products of three"]


@pytest.mark.parametrize("count", [80, 300])
@pytest.mark.parametrize("shape", ["threshold", "U-shape", "kink", "sex by age", "age by site", "age by motion", "IQ"])
def test_an_output_reading_a_covariate_nonlinearly_carries_nothing_more(shape, count):
    """Sums over covariates took the products for more: sex by age, age by site, and age by motion."""
    sample, random = simulate_motion(count, 2), np.random.default_rng(3)
    sex = random.choice([-1, 1], count)
    numbers = sample["table"].astype(float).assign(fiq=random.normal(100, 15, count), sex=sex)
    fd, age = np.log(numbers["func_mean_fd"]), (numbers["age"] - 23) / 10
    slope = pd.Series({"A": 2.0, "B": -2.0, "C": 1.0})[sample["site"]].to_numpy()
    read = {
        "threshold": 3.0 * (fd > 0.5),
        "U-shape": fd**2,
        "kink": 4 * np.maximum(age, 0),
        "sex by age": 2 * sex * age,
        "age by site": slope * age,
        "age by motion": 2 * age * fd,
        "IQ": 0.1 * (numbers["fiq"] - 100),
    }
    odds = (read[shape] - read[shape].mean()).to_numpy()
    sample |= {"label": (random.random(count) < 1 / (1 + np.exp(-odds))).astype(float), "table": numbers.astype(str)}
    fold = np.arange(count) % 5
    motion_result = measure_sample(sample, 1 / (1 + np.exp(-odds - random.normal(0, 0.3, count))), fold)
    assert motion_result["partial"].low < 0 and "fiq" in motion_result["beside"].covariates
    label_output = 1 / (1 + np.exp(-odds - random.normal(0, 0.3, count) - sample["label"]))
    assert measure_sample(sample, label_output, fold)["partial"].low > 0


def test_the_partial_correlation_and_interval_equal_statsmodels():
    random = np.random.default_rng(0)
    values = random.normal(size=(80, 3))
    label, logits = values @ [1, 0, 1] + random.normal(size=(2, 80)) * [[1], [2]]
    span = make_basis_with_intercept(values)
    label_residuals, logit_residuals = (
        column - sm.OLS(column, sm.add_constant(values)).fit().fittedvalues for column in (label, logits)
    )
    everybody = pd.Series(np.arange(80))
    partial, p = correlate_residuals(label_residuals, logit_residuals, span, 1.0, everybody)
    assert partial.value == pytest.approx(np.corrcoef(label_residuals, logit_residuals)[0, 1])
    expected = sm.OLS(label, sm.add_constant(np.column_stack([values, logits]))).fit(cov_type="HC3", use_t=True)
    assert p == pytest.approx(expected.pvalues[-1])
    scale = logit_residuals.std() / label_residuals.std()
    assert [partial.low, partial.high] == pytest.approx(expected.conf_int()[-1] * scale)
    wide, _ = correlate_residuals(label_residuals, logit_residuals, span, 1.5, everybody)
    assert wide.high - wide.low == pytest.approx(1.5 * (partial.high - partial.low))


def test_family_errors_equal_statsmodels():
    """Whose robust errors with groups have no correction for leverage: families of 400 people, three covariates."""
    random, family = np.random.default_rng(1), np.arange(400) // 4
    values, common = random.normal(size=(400, 3)), random.normal(size=(2, 100))[:, family]
    label, logits = values @ [1, 0, 1] + common + random.normal(size=(2, 400))
    label_residuals, logit_residuals = (
        column - sm.OLS(column, sm.add_constant(values)).fit().fittedvalues for column in (label, logits)
    )
    partial, _ = correlate_residuals(
        label_residuals, logit_residuals, make_basis_with_intercept(values), 1.0, pd.Series(family)
    )
    alone, _ = correlate_residuals(
        label_residuals, logit_residuals, make_basis_with_intercept(values), 1.0, pd.Series(np.arange(400))
    )
    model = sm.OLS(label, sm.add_constant(np.column_stack([values, logits])))
    expected = model.fit(cov_type="cluster", cov_kwds={"groups": family}, use_t=True)
    scale = logit_residuals.std() / label_residuals.std()
    assert [partial.low, partial.high] == pytest.approx(expected.conf_int()[-1] * scale, abs=0.005)
    assert partial.high - partial.low > 1.2 * (alone.high - alone.low)


def test_doubling_everybody_as_pairs_leaves_the_intervals():
    sample = simulate_motion()
    probability = make_output(sample, 1, 0)
    single_result = measure_sample(sample, probability)
    twice = {name: np.tile(sample[name], 2) for name in ("label", "site")} | {"same_scan": sample["subject"] * 2}
    twice["subject"] = [*sample["subject"], *(f"x{subject}" for subject in sample["subject"])]
    twice["table"] = pd.concat([sample["table"], sample["table"]]).set_axis(twice["subject"])
    paired_result = measure_sample(twice, np.tile(probability, 2))
    (pair_correlation, p), (single_correlation, same_p) = (
        motion_result["given_diagnosis"]["log func_mean_fd"] for motion_result in (paired_result, single_result)
    )
    assert pair_correlation.high - pair_correlation.low == pytest.approx(
        single_correlation.high - single_correlation.low, rel=0.05
    )
    assert p == pytest.approx(same_p, abs=0.1)
    width, single = (
        motion_result["partial"].high - motion_result["partial"].low for motion_result in (paired_result, single_result)
    )
    assert width == pytest.approx(single, rel=0.06)


def test_fold_intervals_are_wider():
    sample = simulate_motion()
    probability = make_output(sample, 1, 0)
    single_fold, several = measure_sample(sample, probability), measure_sample(sample, probability, np.arange(200) % 5)
    assert several["partial"].value == pytest.approx(single_fold["partial"].value)
    widths = [motion_result["partial"].high - motion_result["partial"].low for motion_result in (single_fold, several)]
    assert 1.2 < widths[1] / widths[0] < 1.5


def test_the_correlation_by_diagnosis_is_within_diagnosis_and_site():
    """By pandas; and p by SciPy's permutations of a single cell."""
    random = np.random.default_rng(0)
    site, label = np.repeat(["A", "B", "C"], 50), np.arange(150) % 2.0
    level = np.repeat([0.0, 5.0, 10.0], 50) + 3 * label
    moved = random.normal(size=150)
    logits = 0.2 * moved + random.normal(size=150) + level
    people = pd.DataFrame({"site": site, "label": label, "logit": logits, "unit": np.arange(150)})
    covariate_table = pd.DataFrame(
        {"motion": pd.Series(moved - level).mask(np.arange(150) == 149), "sex": ["F", "M", "M"] * 50}
    )
    correlation_by_covariate = correlate_within_diagnosis(people, covariate_table, 0)
    assert list(correlation_by_covariate) == ["motion", "sex (M)"]
    correlation, p = correlation_by_covariate["motion"]
    left = people.assign(moved=covariate_table["motion"])[:149].groupby(["site", "label"])[["logit", "moved"]]
    expected = left.transform(lambda sample_values: sample_values - sample_values.mean()).corr().iloc[0, 1]
    assert correlation.value == pytest.approx(expected)
    assert correlation.low < correlation.value < correlation.high and correlation.high - correlation.low < 0.4
    alone = people[(people["site"] == "A") & (people["label"] == 1)]
    (_, p), values = (
        correlate_within_diagnosis(alone, covariate_table.loc[alone.index, ["motion"]], 0)["motion"],
        moved[alone.index],
    )
    independent = stats.permutation_test(
        (values,),
        lambda sample_values: np.corrcoef(sample_values, alone["logit"])[0, 1],
        permutation_type="pairings",
        n_resamples=5000,
        rng=np.random.default_rng(1),
    ).pvalue  # fmt: skip
    assert p == pytest.approx(independent, abs=0.08)  # of 200 permutations
    assert correlate_within_diagnosis(people[:5], covariate_table[:5], 0) == {}  # too few


@pytest.mark.slow
def test_an_output_following_the_diagnosis_alone_is_not_blamed_on_correlated_motion():
    accused = np.zeros(2, int)
    for seed in range(100):
        sample, random = simulate_motion(150, seed), np.random.default_rng((seed, 1))
        fd = np.log(sample["table"]["func_mean_fd"].astype(float).to_numpy())
        for number, follows in enumerate((2 * sample["label"], fd)):
            odds = follows + random.normal(size=150)
            accused[number] += (
                measure_sample(sample, 1 / (1 + np.exp(-odds)))["given_diagnosis"]["log func_mean_fd"][1] <= 0.05
            )
    assert stats.binomtest(int(accused[0]), 100, 0.05).pvalue > 0.01 and accused[1] > 95


def test_several_records_per_subject_count_once():
    sample = simulate_motion()
    probability = make_output(sample, 1, 0)
    twice = {name: np.repeat(sample[name], 2) for name in ("label", "site", "subject")} | {"table": sample["table"]}
    spread = np.repeat(np.log(probability / (1 - probability)), 2) + np.tile([-0.3, 0.3], 200)
    repeated_result = measure_sample(twice, 1 / (1 + np.exp(-spread)))
    single_result = measure_sample(sample, probability)
    assert repeated_result.keys() == single_result.keys()
    assert astuple(repeated_result["partial"]) == pytest.approx(astuple(single_result["partial"]))
    for name, (correlation, p) in single_result["given_diagnosis"].items():
        assert astuple(repeated_result["given_diagnosis"][name][0]) == pytest.approx(astuple(correlation))
        assert repeated_result["given_diagnosis"][name][1] == p


def test_excluded_people_are_counted_and_unused_covariates_listed():
    sample = simulate_motion(60)
    sample["table"]["scanner"] = [""] * 50 + ["x"] * 10  # too rarely known
    sample["table"].iloc[:5, 0] = "-9999"
    sample["site"] = np.array([f"site {number % 12}" for number in range(60)])
    motion_result = measure_sample(sample, make_output(sample, 1, 0))
    assert (motion_result["subjects"], motion_result["left_out"]) == (60, 0)
    assert motion_result["beside"].covariates == ("age", "log func_mean_fd")
    assert motion_result["beside"].unusable_covariates == ("site", "scanner") and motion_result[
        "beside"
    ].imputed_count_by_covariate == {"age": 5}
    assert {"site", "scanner"} <= {*list_open_covariates(motion_result)} and "age" not in list_open_covariates(
        motion_result
    )


def test_numbers_measured_in_different_people_leave_nobody_out():
    """IQ and handedness known for opposite halves, motion for most: 0 people were left, 'of one class'."""
    sample, half = simulate_motion(), np.arange(200) < 100
    values = np.random.default_rng(3).normal(100, 15, 200).round(2).astype(str)
    sample["table"] = sample["table"].assign(fiq=np.where(half, values, ""), hand=np.where(~half, values, ""))
    probability = make_output(sample, 2, 0)
    sample["table"].iloc[::5, 1] = ""
    motion_result = measure_sample(sample, probability)
    assert (motion_result["subjects"], motion_result["left_out"]) == (200, 0)
    assert motion_result["beside"].imputed_count_by_covariate == {"log func_mean_fd": 40, "fiq": 100, "hand": 100}
    assert motion_result["partial"].low > 0 and motion_result["beside"].unmeasured_kinds == ("sex",)
    assert make_covariate_result(motion_result).names == ["site", "age"] and {"log func_mean_fd", "fiq", "hand"} <= {
        *list_open_covariates(motion_result)
    }


@pytest.mark.parametrize("reads", ["IQ where it is known", "whether it is missing"])
def test_an_output_reading_a_number_with_gaps_carries_nothing_more(reads):
    """The IQ is missing by site and label."""
    random, sample = np.random.default_rng(0), simulate_motion(300)
    gone = random.random(300) < np.where(sample["label"] == 1, 0.1, np.where(sample["site"] == "A", 0.9, 0.2))
    iq = random.normal(size=300) - 0.8 * sample["label"]
    sample["table"]["fiq"] = np.where(gone, "", (100 + 15 * iq).astype(str))
    read = np.where(gone, 0, -iq) if reads == "IQ where it is known" else 1.0 * ~gone
    noise = random.normal(0, 0.3, 300)
    assert measure_sample(sample, 1 / (1 + np.exp(-2 * read - noise)))["partial"].low < 0
    assert measure_sample(sample, 1 / (1 + np.exp(-2 * read - noise - sample["label"])))["partial"].low > 0


def test_a_number_unknown_in_entire_sites_may_explain_an_output_reading_it():
    """The output 'carried more than' the IQ of people whose IQ nobody knows."""
    random, sample = np.random.default_rng(7), simulate_motion(300)
    iq = random.normal(size=300)
    sample["label"] = (random.random(300) < 1 / (1 + np.exp(2 * iq))).astype(float)
    read = 1 / (1 + np.exp(2 * iq + random.normal(0, 0.3, 300)))
    everywhere, values = sample["table"], (100 + 15 * iq).astype(str)
    for gone, more in ((sample["site"] == "A", True), (np.arange(300) % 20 == 0, False)):
        sample["table"] = everywhere.assign(fiq=np.where(gone, "", values))
        motion_result = measure_sample(sample, read)
        assert (
            (motion_result["partial"].low > 0)
            == more
            == ("fiq" in list_open_covariates(motion_result))
            == ("fiq" not in make_covariate_result(motion_result).names)
        )
        assert motion_result["beside"].imputed_count_by_covariate["fiq"] == gone.sum()


def test_an_output_reading_a_triple_product_carries_more_and_the_table_names_it():
    sample, random = simulate_motion(300), np.random.default_rng(7)
    age, moved = sample["table"].astype(float).to_numpy().T
    sex = random.choice([-1, 1], 300)
    odds = 2 * sex * stats.zscore(age) * stats.zscore(np.log(moved))
    sample["label"] = (random.random(300) < 1 / (1 + np.exp(-odds))).astype(float)
    sample["table"] = sample["table"].assign(sex=np.where(sex > 0, "M", "F"))
    motion_result = measure_sample(sample, 1 / (1 + np.exp(-odds - random.normal(0, 0.3, 300))))
    assert motion_result["partial"].low > 0 and "products of three" in list_open_covariates(motion_result)
    assert make_covariate_result(motion_result).names == ["site", "age", "log func_mean_fd", "sex"]


def test_products_without_room_are_listed_by_their_second_factor():
    sample = simulate_motion()
    sample["site"] = np.array([f"site {number % 20}" for number in range(200)])
    assert "age, log func_mean_fd by site" in list_open_covariates(measure_sample(sample, make_output(sample, 1, 0)))


def test_people_from_single_class_sites_are_left_out_where_the_site_enters():
    sample = simulate_motion()
    sample["site"] = np.where(np.arange(200) < 20, np.where(sample["label"] == 1, "all autism", "A"), sample["site"])
    motion_result = measure_sample(sample, make_output(sample, 1, 0))
    assert (
        motion_result["left_out"]
        == make_covariate_result(motion_result).left_out
        == (sample["site"] == "all autism").sum()
        > 0
        and "partial" in motion_result
    )
    sample = simulate_motion(60)
    sample["site"] = np.array([f"site {number // 4}" for number in range(60)])
    sample["label"][:4] = 1
    motion_result = measure_sample(sample, make_output(sample, 1, 0))
    assert (motion_result["subjects"], motion_result["left_out"]) == (60, 0) and motion_result[
        "beside"
    ].unusable_covariates == ("site",)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"probability": np.full(200, 0.3)}, "the same for everybody"),
        (
            {"probability": 1 / (1 + np.exp(-simulate_motion()["table"]["age"].astype(float) / 40))},
            "output follows from",
        ),
        ({"label": (np.arange(200) % 2).astype(float), "sex": True}, "the diagnosis follows from the covariates"),
        ({"label": np.ones(200)}, "one class"),
    ],
)
def test_uncomputable_results_are_explained(change, reason):
    sample = simulate_motion() | {"probability": make_output(simulate_motion(), 1, 0)} | change
    if "sex" in sample:
        sample["table"]["sex"] = np.where(sample["label"] == 1, "M", "F")
    motion_result = measure_sample(sample, np.asarray(sample["probability"]))
    assert "partial" not in motion_result and reason in motion_result["reason"]
    assert (
        make_covariate_result(motion_result).carries_more_verdict == "cannot be told"
        and reason in make_covariate_result(motion_result).reason
    )


def test_the_label_as_output_has_a_partial_correlation_equal_to_1():
    sample = simulate_motion()
    motion_result = measure_sample(sample, np.where(sample["label"] == 1, 0.9, 0.1))
    assert astuple(motion_result["partial"]) == pytest.approx((1, 1, 1)) and motion_result["p"] == 0


@pytest.mark.parametrize("case", ["rare", "rare at sites", "apart", "families"])
def test_where_no_verdict_is_possible_none_is_reported_with_covariates(case):
    sample, person_numbers, half = simulate_motion(), np.arange(200), np.arange(200) < 100
    rare = {
        "rare": person_numbers % 23 == 0,
        "rare at sites": np.where(half, person_numbers % 20 == 0, True),
        "apart": half,
    }
    sample["label"] = rare.get(case, sample["label"]).astype(float)
    sample["site"] = np.full(200, "A") if case == "rare" else np.where(half, "A", "B")
    if case == "families":
        sample["same_scan"] = np.where(sample["label"] == 1, "s1", sample["subject"])
    probability = np.where(sample["label"] == 1, 0.8, 0.2) + np.random.default_rng(1).normal(0, 0.02, 200)
    reason = measure_sample(sample, probability)["reason"]
    assert ("the same diagnosis" in reason) == (case == "apart") != ("it needs 10 participants" in reason)
    assert ("at sites that have both" in reason) == (case in ("rare at sites", "families"))


def test_unknown_covariates_and_unknown_motion_are_reported():
    sample = simulate_motion()
    assert (
        measure_sample(sample | {"table": None}, make_output(sample, 1, 0)) is None
        and make_covariate_result(None) is None
    )
    probability = make_output(sample, 1, 0)
    sample["table"] = sample["table"][["age"]]
    motion_result = measure_sample(sample, probability)
    assert (
        list(motion_result["given_diagnosis"]) == ["age"]
        and make_covariate_result(motion_result).partial.value is not None
    )
    assert list_open_covariates(motion_result) == ["sex", "IQ", "handedness", "head motion", "products of three"]


def test_rows_hold_the_computed_values():
    sample = simulate_motion()
    result = measure_sample(sample, make_output(sample, 1, 0))
    still = {"kind": "head motion", "group": "moved less", "auc": 0.7, "auc_low": 0.6, "auc_high": 0.8}
    masked, nothing = (Estimate(0.6, 0.5, 0.7), Estimate(0.1, 0, 0.2)), (UNDEFINED, UNDEFINED)
    measure_rows = make_confound_rows(result, [still, still | {"group": "moved more", "auc": 0.5}], nothing)
    strong = result["unmeasured"]
    limits = [("reliability", ""), ("unmeasured", strong.strongest_measured_covariate)]
    diagnosis_keys = [("given_diagnosis", "age"), ("given_diagnosis", "log func_mean_fd")]
    assert [(row["measure"], row["covariate"]) for row in measure_rows] == [
        ("partial", ""),
        *limits,
        *diagnosis_keys,
        ("auc", ""),
    ]
    assert (measure_rows[1]["value"], measure_rows[2]["value"]) == (result["reliability"], strong.needed_correlation)
    assert measure_rows[0] == {"measure": "partial", "covariate": "", **result["partial"].to_cells(), "p": result["p"]}
    assert measure_rows[5]["value"] == 0.7
    within = {"auc_sites": 0.65, "auc_sites_low": None, "auc_sites_high": None}
    assert [row["measure"] for row in make_confound_rows(None, [still | within], masked)] == [
        "auc_sites",
        "masked",
        "minus_masked",
    ]
    assert make_confound_rows(None, [], nothing) == []


COLUMNS = {  # what a covariate may hold
    "unknown": st.just(""),
    "constant": st.just("1"),
    "number": st.integers(-2, 9).map(str),
    "text": st.sampled_from(["M", "F", "", "n/a"]),
}


@st.composite
def few_people(draw) -> dict:
    count = draw(st.integers(1, 60))
    several = {"min_size": count, "max_size": count}
    site = draw(st.lists(st.sampled_from(draw(st.sampled_from(["A", "AB", "ABC"]))), **several))
    names = draw(st.lists(st.sampled_from(["site", "age", "mean_fd", "sex"]), unique=True))
    columns = {
        name: site if name == "site" else draw(st.lists(COLUMNS[draw(st.sampled_from(sorted(COLUMNS)))], **several))
        for name in names
    }
    subject = [f"s{number}" for number in range(count)]
    label = draw(st.lists(st.sampled_from([0.0, 1.0]), **several))
    probability = draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), **several))
    sample = {"label": np.array(label), "subject": subject, "site": np.array(site)}
    return sample | {"table": pd.DataFrame(columns, index=subject), "probability": np.array(probability)}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(few_people())
def test_few_people_with_any_covariates_get_a_result_or_a_reason(sample):
    motion_result = measure_sample(sample, sample["probability"])
    assert (
        ("partial" in motion_result)
        != ("reason" in motion_result)
        == (make_covariate_result(motion_result).carries_more_verdict == "cannot be told")
    )


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
    return table, make_predictions(label, probability, subject=table.index, site=site)


def test_halves_are_within_site_thirds_show_their_ends_and_scores_are_scikit_learns():
    table, test = people()
    group_table = pd.DataFrame(make_group_score_rows(test, table, 0)).set_index("group")
    assert group_table["kind"].tolist() == ["head motion"] * 2 + ["sex"] * 2 + ["age"] * 3
    moved = pd.to_numeric(table["mean_fd"]).to_numpy()
    median = pd.Series(moved).groupby(test.site).median()[test.site].to_numpy()
    for name, members in {
        "moved less": moved < median,
        "moved more": moved >= median,
        "SEX 1": (table["SEX"] == "1").to_numpy(),
    }.items():
        row, label = group_table.loc[name], test.label[members]
        assert (row["subjects"], row["autism"], row["control"]) == (members.sum(), label.sum(), (1 - label).sum())
        assert row["auc"] == pytest.approx(roc_auc_score(label, test.mean_probability[members]))
        assert row["auc_low"] < row["auc"] < row["auc_high"] and np.isfinite(row["auc_sites"])
    assert group_table["subjects"]["moved less":"moved more"].sum() == 120  # one person's motion is unknown
    assert abs(group_table["subjects"]["moved less"] - 60) <= 1
    low, high = np.quantile(table["age"].astype(float), [1 / 3, 2 / 3])
    thirds = {"youngest": f"below {low:.1f}", "middle": f"{low:.1f} to {high:.1f}", "oldest": f"above {high:.1f}"}
    assert [*group_table.index[4:]] == [f"{name} third, {ends}" for name, ends in thirds.items()]
    assert group_table["subjects"].iloc[4:].sum() == 121 and group_table["subjects"].iloc[4:].min() == 40


def test_a_subjects_records_stay_together_and_small_groups_have_no_interval():
    table, test = people()
    subject = np.repeat(test.subject[:12], 2)
    label, probability = (np.repeat(values[:12], 2) for values in (test.label, test.mean_probability))
    group_rows = make_group_score_rows(make_predictions(label, probability, subject=subject, site="A"), table, 0)
    assert sum(row["subjects"] for row in group_rows if row["kind"] == "sex") == 12
    assert all(row["auc_low"] is None and "auc_sites" not in row for row in group_rows)


def test_nothing_is_grouped_by_unknown_values_or_text():
    table, test = people()
    assert make_group_score_rows(test, None, 0) == []
    assert make_group_score_rows(test, table[[]].assign(scanner="x", age="young", mean_fd="much"), 0) == []
    assert make_group_score_rows(test, table[["age"]].assign(age=""), 0) == []


def test_small_site_groups_are_compared_within_site_and_fold_only():
    table, test = people()
    site, fold = (np.random.default_rng(seed).integers(0, count, 121).astype(str) for seed, count in ((1, 12), (2, 5)))
    small = make_predictions(test.label, test.mean_probability, subject=test.subject, site=site, fold=fold)
    assert small.in_small_sites
    members = (table["SEX"] == "1").to_numpy()
    row = next(row for row in make_group_score_rows(small, table, 0) if row["group"] == "SEX 1")
    expected = estimate_scores(small.select_records(members), 0)["auc_sites"]
    assert (row["auc"], row["auc_sites"]) == (None, expected.value)
    assert [
        row["measure"]
        for row in make_confound_rows(None, make_group_score_rows(small, table, 0), (UNDEFINED, UNDEFINED))
    ] == ["auc_sites"]


# What covariates are, and what they leave of values


def test_covariates_are_numbers_logarithms_and_categories():
    table = pd.DataFrame(
        {"age": ["9", "NA", "30"], "MeanFD_Jenkinson": ["0.5", "0", ""], "scanner": ["x", "y", "?"]}, index=list("abc")
    )
    covariate_table = make_covariate_table(["c", "a", "unheard of"], ["S", "S", "T"], table)
    assert covariate_table["site"].tolist() == ["S", "S", "T"]
    assert covariate_table["age"].tolist() == pytest.approx([30, 9, np.nan], nan_ok=True)
    assert covariate_table["log MeanFD_Jenkinson"].tolist() == pytest.approx([np.nan, np.log(0.5), np.nan], nan_ok=True)
    assert covariate_table["scanner"].fillna("unknown").tolist() == ["unknown", "x", "unknown"]
    assert make_covariate_table(["a"], ["S"], None).shape == (1, 0)
    table["age"] = ["9", "old", "30"]
    with pytest.raises(InputError, match="Column age holds 'old'"):
        make_covariate_table(["a"], ["S"], table)


def simulate_covariates(count: int = 200, sites: int = 2) -> tuple[pd.DataFrame, np.random.Generator]:
    random = np.random.default_rng(0)
    site = np.array([f"site {number % sites}" for number in range(count)], object)
    sex = random.choice(np.array(["F", "M"], object), count)
    return pd.DataFrame({"site": site, "age": random.normal(20, 5, count), "sex": sex}), random


@pytest.mark.parametrize("read", ["sex by age", "age by site", "square", "kink", "step"])
def test_only_terms_followed_by_a_value_enter(read):
    """Beside the terms that enter, nothing of the term is left; of noise, nothing enters."""
    covariate_table, random = simulate_covariates()
    age = (covariate_table["age"] - 20) / 5
    sign = {"sex by age": covariate_table["sex"] == "M", "age by site": covariate_table["site"] == "site 0"}
    terms = {name: np.where(mask, 1, -1) * age for name, mask in sign.items()}
    terms |= {"square": age**2, "kink": np.maximum(age, 0.5), "step": 2.0 * (age > 0)}
    fitted_adjustment, noise = make_adjustment(covariate_table), random.normal(size=200)
    term = terms[read].to_numpy()
    assert fitted_adjustment.select_term_indices(noise) == set()
    left = compute_regression_residuals(
        term, fitted_adjustment.make_basis_with_terms(fitted_adjustment.select_term_indices(3 * term + noise))
    )
    assert left.std() < 0.35 * compute_regression_residuals(term, fitted_adjustment.covariate_basis).std()


def test_the_covariates_enter_as_lines_and_dummies():
    covariate_table, random = simulate_covariates(sites=3)
    value = random.normal(size=200)
    dummies = pd.get_dummies(covariate_table[["site", "sex"]], drop_first=True, dtype=float).assign(
        age=covariate_table["age"]
    )
    expected = sm.OLS(value, sm.add_constant(dummies.to_numpy())).fit().resid
    fitted_adjustment = make_adjustment(covariate_table)
    assert compute_regression_residuals(value, fitted_adjustment.covariate_basis) == pytest.approx(expected)
    assert np.abs(
        fitted_adjustment.covariate_basis.T @ fitted_adjustment.term_columns
    ).max() < 1e-9 and fitted_adjustment.term_columns.std(axis=0) == pytest.approx(1)
    square = np.square(covariate_table["age"].to_numpy() - covariate_table["age"].mean())
    assert (
        compute_regression_residuals(
            square, fitted_adjustment.make_basis_with_terms(fitted_adjustment.select_term_indices(square))
        ).std()
        < 1e-6 * square.std()
    ), "a curve leaves nothing"


def test_an_unknown_value_takes_the_median_and_a_mark():
    covariate_table, _ = simulate_covariates()
    covariate_table.loc[:59, "age"], covariate_table.loc[::9, "sex"] = np.nan, np.nan
    filled = covariate_table.assign(
        age=covariate_table["age"].fillna(covariate_table["age"].median()), sex=covariate_table["sex"].fillna("unknown")
    )
    marked = filled.assign(mark=covariate_table["age"].isna().astype(float))
    filled_projection, marked_projection = (
        np.round(fitted_adjustment.covariate_basis @ fitted_adjustment.covariate_basis.T, 9)
        for fitted_adjustment in (make_adjustment(covariate_table), make_adjustment(marked))
    )
    fitted_adjustment = make_adjustment(covariate_table)
    assert (filled_projection == marked_projection).all() and (
        fitted_adjustment.imputed_count_by_covariate,
        fitted_adjustment.incomplete_covariates,
    ) == (
        {"age": 60, "sex": 23},
        ("age", "sex"),
    )
    assert fitted_adjustment.covariates == ("site", "age", "sex") and fitted_adjustment.nearly_complete_covariates == (
        "site",
    )
    assert make_adjustment(covariate_table[["age", "sex"]]).no_adjustment_reason == "no covariate can be used", (
        "nothing would go beyond these"
    )


@pytest.mark.parametrize(
    "sites, count, used, no_room",
    [
        (2, 60, ("site", "age", "sex"), {}),
        (15, 60, ("age", "sex"), {}),
        (14, 95, ("site", "age", "sex"), {"site": ["age", "sex"]}),
        (8, 65, ("site", "age", "sex"), {"site": ["age", "sex"]}),
    ],
)
def test_with_fewer_people_less_is_adjusted_for_and_the_rest_listed(sites, count, used, no_room):
    fitted_adjustment = make_adjustment(simulate_covariates(count, sites)[0])
    assert fitted_adjustment.covariates == used and fitted_adjustment.oversized_products == no_room
    assert fitted_adjustment.unusable_covariates == (() if "site" in used else ("site",))


def test_a_text_with_many_values_alone_is_left_out():
    """Names of people, or of 70 scanners: nothing was adjusted, though age and sex would have had room."""
    covariate_table, random = simulate_covariates()
    text_table = covariate_table.assign(
        note=covariate_table.index.astype(str), scanner=random.choice([*"abcdefghij"], 200)
    )
    fitted_adjustment = make_adjustment(text_table)
    assert (
        fitted_adjustment.covariates == ("site", "age", "sex", "scanner")
        and fitted_adjustment.unusable_covariates == ("note",)
        and not fitted_adjustment.no_adjustment_reason
    )
    assert fitted_adjustment.covariate_basis == pytest.approx(
        make_adjustment(text_table.drop(columns="note")).covariate_basis
    )


def test_a_product_mostly_carried_by_an_outlier_enters():
    """One person is much older than all others: sex by age was left out, and an output that reads it said more."""
    covariate_table, random = simulate_covariates()
    covariate_table.iloc[0, covariate_table.columns.get_loc("age")] = 64
    sign = np.where(covariate_table["sex"] == covariate_table["sex"].iloc[0], 1, -1)
    term = sign * (covariate_table["age"] - covariate_table["age"].mean()).to_numpy() / covariate_table["age"].std()
    fitted_adjustment = make_adjustment(covariate_table)
    left = compute_regression_residuals(
        term,
        fitted_adjustment.make_basis_with_terms(
            fitted_adjustment.select_term_indices(term + random.normal(0, 0.3, 200))
        ),
    )
    assert left.std() < 1e-6 and compute_regression_residuals(term, fitted_adjustment.covariate_basis).std() > 0.5


def test_too_few_people_for_any_product_lead_to_the_sufficient_number():
    """One covariate, the intercept, the value and a product: 4 parameters of 5 people each."""
    fitted_adjustments = [
        make_adjustment(simulate_covariates(count, 1)[0][["age", "sex"]]) for count in (19, 20, 24, 25)
    ]
    assert (
        fitted_adjustments[0].no_adjustment_reason
        == "19 participants are too few for curves and products of covariates; 20 would do"
    )
    assert [fitted_adjustment.covariates for fitted_adjustment in fitted_adjustments] == [
        (),
        ("sex",),
        ("sex",),
        ("age", "sex"),
    ]
    assert [fitted_adjustment.unusable_covariates for fitted_adjustment in fitted_adjustments] == [
        ("age", "sex"),
        ("age",),
        ("age",),
        (),
    ]
    assert not any(fitted_adjustment.no_adjustment_reason for fitted_adjustment in fitted_adjustments[1:])


def test_unknown_or_constant_covariates_are_listed():
    covariate_table, random = simulate_covariates()
    rare = pd.Series(random.normal(size=200)).where(np.arange(200) < 99)
    fitted_adjustment = make_adjustment(
        covariate_table.assign(same=3.0, fiq=rare, func_mean_fd=random.normal(size=200))
    )
    assert fitted_adjustment.covariates == ("site", "age", "sex", "func_mean_fd")
    assert fitted_adjustment.unusable_covariates[:2] == ("same", "fiq") and fitted_adjustment.unmeasured_kinds == (
        "IQ",
        "handedness",
    )
    group = np.where(covariate_table["age"] < 15, "child", "adult")
    assert make_adjustment(covariate_table[["sex"]].assign(age_group=group, verbal_iq=rare.fillna(0))).unmeasured_kinds[
        :2
    ] == (
        "age",
        "IQ",
    )
    assert (
        make_adjustment(covariate_table[["site"]].assign(site="one")).no_adjustment_reason == "no covariate can be used"
    )
    assert [make_adjustment(covariate_table[["age"]], sites).unmeasured_kinds[0] for sites in (["unknown"], ["A"])] == [
        "site",
        "sex",
    ]
    assert make_adjustment(covariate_table[["site"]]).unmeasured_kinds == (
        "age",
        "sex",
        "IQ",
        "handedness",
        "head motion",
    )
    assert make_adjustment(covariate_table[[]]).covariate_basis == pytest.approx(
        make_basis_with_intercept(np.empty((200, 0)))
    )


def test_slopes_for_many_small_sites_enter_together():
    """Of 16 sites with 20 people each."""
    covariate_table, random = simulate_covariates(320, 16)
    slope = dict(zip(covariate_table["site"].unique(), random.choice([-0.6, 0.6], 16), strict=True))
    term = (covariate_table["site"].map(slope) * (covariate_table["age"] - 20) / 5).to_numpy()
    fitted_adjustment = make_adjustment(covariate_table)
    left = compute_regression_residuals(
        term,
        fitted_adjustment.make_basis_with_terms(fitted_adjustment.select_term_indices(term + random.normal(size=320))),
    )
    assert left.std() < 1e-6 and compute_regression_residuals(term, fitted_adjustment.covariate_basis).std() > 0.5
    few = make_adjustment(simulate_covariates(120, 16)[0])
    assert few.oversized_products == {"site": ["age", "sex"]}


def test_the_explaining_strength_equals_the_sensemakr_robustness_value():
    """Cinelli and Hazlett's own example: t 4.18 of 783 degrees of freedom has 0.076 at a level of 5 %."""
    covariate_table, random = pd.DataFrame({"age": np.arange(800.0)}), np.random.default_rng(0)
    label = (random.random(800) < 0.5).astype(float)
    output, unit = label + random.normal(size=800), np.arange(800)
    tested = CovariateTestInputs(
        stats.zscore(label),
        stats.zscore(output),
        unit,
        covariate_table,
        make_adjustment(covariate_table),
        frozenset(),
        1.0,
    )
    unmeasured_limit = find_unmeasured_covariate(tested, 4.18, 783)
    assert (
        unmeasured_limit.needed_correlation**2 == pytest.approx(0.076, abs=0.0005)
        and unmeasured_limit.strongest_measured_covariate == "age"
    )
    assert unmeasured_limit.times_strongest_measured * min(
        abs(np.corrcoef(covariate_table["age"], outcome)[0, 1]) for outcome in (label, output)
    ) == pytest.approx(unmeasured_limit.needed_correlation)


@pytest.mark.parametrize("reliability", [0.6, 0.9])
def test_a_covariate_explains_an_output_down_to_the_measured_reliability(reliability):
    """Of so many people that chance hardly matters; the output follows the true IQ, or the diagnosis itself."""
    random, count = np.random.default_rng(1), 20_000
    iq, motion_values = random.normal(size=(2, count))
    label = (random.random(count) < 1 / (1 + np.exp(-iq))).astype(float)
    seen = np.sqrt(reliability) * iq + np.sqrt(1 - reliability) * random.normal(size=count)
    covariate_table = pd.DataFrame({"age": random.normal(size=count), "fiq": seen, "log mean_fd": motion_values})
    for output, expected in ((iq, reliability), (label, 0.3)):
        noisy = output + 0.5 * random.normal(size=count)
        tested = CovariateTestInputs(
            stats.zscore(label),
            stats.zscore(noisy),
            np.arange(count),
            covariate_table,
            make_adjustment(covariate_table),
            frozenset(),
            1.0,
        )
        assert find_critical_reliability(tested) == pytest.approx(expected, abs=0.05)
    alone = make_adjustment(covariate_table[["age"]])
    assert (
        find_critical_reliability(replace(tested, subject_covariates=covariate_table[["age"]], adjustment=alone))
        is None
    )
