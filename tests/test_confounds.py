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
from utils.evaluation.sensitivity import CovariateTestInputs, find_least_reliability, find_unmeasured_covariate
from utils.report.adjusted import make_adjusted_table
from utils.scores.adjustment import make_adjustment, make_basis_with_intercept, regression_residuals
from utils.scores.features import make_covariate_table
from utils.scores.metrics import Predictions, estimate_scores
from utils.scores.results import UNDEFINED, Estimate


def moving(count: int = 200, seed: int = 0) -> dict:
    """People whose diagnosis goes with head motion alone; what `of` needs beside the network's output."""
    random = np.random.default_rng(seed)
    fd = random.normal(size=count)
    label = (random.random(count) < 1 / (1 + np.exp(-1.5 * fd))).astype(float)
    table = pd.DataFrame(
        {"age": random.uniform(6, 40, count), "func_mean_fd": np.exp(fd)},
        index=[f"s{number}" for number in range(count)],
    ).astype(str)
    return {"label": label, "table": table, "site": random.choice(["A", "B", "C"], count), "subject": list(table.index)}


def of(known: dict, probability: np.ndarray, fold: np.ndarray | None = None) -> dict | None:
    """The result of `measure_confounds`."""
    columns = {name: known[name] for name in ("subject", "site", "same_scan") if name in known}
    test = make_predictions(known["label"], probability, fold="0" if fold is None else fold, **columns)
    return measure_confounds(test, known["table"], 0)


def left_open(found: dict) -> list[str]:
    """What may explain a result, since it is not in the test, or partly; without what nobody measured."""
    table = make_adjusted_table(found["beside"])
    *known, nobody = table["covariate"][table["in_the_test"] != "yes"]
    assert nobody.startswith("what nobody measured")
    return known


def output(known: dict, of_label: float, of_motion: float) -> np.ndarray:
    noise = np.random.default_rng(5).normal(size=len(known["label"]))
    fd = np.log(known["table"]["func_mean_fd"].astype(float).to_numpy())
    return 1 / (1 + np.exp(-(of_label * known["label"] + of_motion * fd + noise)))


def test_an_output_that_reads_motion_carries_nothing_more_and_one_that_reads_the_label_does():
    known = moving()
    probability = output(known, 0, 2)
    assert roc_auc_score(known["label"], probability) > 0.7
    found = of(known, probability)
    assert found["partial"].low < 0 < found["partial"].high and found["p"] > 0.05
    correlation, p = found["given_diagnosis"]["log func_mean_fd"]
    assert correlation.low > 0.5 and p < 0.01 < found["given_diagnosis"]["age"][1]
    assert make_covariate_result(found).carries_more == "not shown" and make_covariate_result(found).names == [
        "site",
        "age",
        "log func_mean_fd",
    ]
    found = of(known, output(known, 2, 0))
    assert (found["subjects"], found["left_out"], found["beside"].unusable_covariates) == (200, 0, ())
    assert make_covariate_result(found).carries_more.startswith("yes") and left_open(found) == [
        "sex",
        "IQ",
        "handedness",
        "products of three",
    ]
    known["table"] = known["table"].assign(sex=["M", "F"] * 100, FIQ=np.arange(200).astype(str), hand=[*"RRLL"] * 50)
    assert left_open(of(known, output(known, 2, 0))) == ["products of three"]


@pytest.mark.parametrize("count", [80, 300])
@pytest.mark.parametrize("shape", ["threshold", "U-shape", "kink", "sex by age", "age by site", "age by motion", "IQ"])
def test_an_output_that_reads_a_covariate_in_its_own_way_carries_nothing_more(shape, count):
    """Sums over covariates took the products for more: sex by age, age by site, and age by motion."""
    known, random = moving(count, 2), np.random.default_rng(3)
    sex = random.choice([-1, 1], count)
    numbers = known["table"].astype(float).assign(fiq=random.normal(100, 15, count), sex=sex)
    fd, age = np.log(numbers["func_mean_fd"]), (numbers["age"] - 23) / 10
    slope = pd.Series({"A": 2.0, "B": -2.0, "C": 1.0})[known["site"]].to_numpy()
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
    known |= {"label": (random.random(count) < 1 / (1 + np.exp(-odds))).astype(float), "table": numbers.astype(str)}
    fold = np.arange(count) % 5
    found = of(known, 1 / (1 + np.exp(-odds - random.normal(0, 0.3, count))), fold)
    assert found["partial"].low < 0 and "fiq" in found["beside"].covariates
    beside = 1 / (1 + np.exp(-odds - random.normal(0, 0.3, count) - known["label"]))
    assert of(known, beside, fold)["partial"].low > 0


def test_the_partial_correlation_and_its_interval_are_those_of_statsmodels():
    random = np.random.default_rng(0)
    values = random.normal(size=(80, 3))
    label, logits = values @ [1, 0, 1] + random.normal(size=(2, 80)) * [[1], [2]]
    span = make_basis_with_intercept(values)
    left = [column - sm.OLS(column, sm.add_constant(values)).fit().fittedvalues for column in (label, logits)]
    everybody = pd.Series(np.arange(80))
    found, p = correlate_residuals(*left, span, 1.0, everybody)
    assert found.value == pytest.approx(np.corrcoef(*left)[0, 1])
    expected = sm.OLS(label, sm.add_constant(np.column_stack([values, logits]))).fit(cov_type="HC3", use_t=True)
    assert p == pytest.approx(expected.pvalues[-1])
    scale = left[1].std() / left[0].std()
    assert [found.low, found.high] == pytest.approx(expected.conf_int()[-1] * scale)
    wide, _ = correlate_residuals(*left, span, 1.5, everybody)
    assert wide.high - wide.low == pytest.approx(1.5 * (found.high - found.low))


def test_errors_of_a_family_are_as_those_of_statsmodels():
    """Whose robust errors with groups have no correction for leverage: families of 400 people, three covariates."""
    random, family = np.random.default_rng(1), np.arange(400) // 4
    values, common = random.normal(size=(400, 3)), random.normal(size=(2, 100))[:, family]
    label, logits = values @ [1, 0, 1] + common + random.normal(size=(2, 400))
    left = [column - sm.OLS(column, sm.add_constant(values)).fit().fittedvalues for column in (label, logits)]
    found, _ = correlate_residuals(*left, make_basis_with_intercept(values), 1.0, pd.Series(family))
    alone, _ = correlate_residuals(*left, make_basis_with_intercept(values), 1.0, pd.Series(np.arange(400)))
    model = sm.OLS(label, sm.add_constant(np.column_stack([values, logits])))
    expected = model.fit(cov_type="cluster", cov_kwds={"groups": family}, use_t=True)
    scale = left[1].std() / left[0].std()
    assert [found.low, found.high] == pytest.approx(expected.conf_int()[-1] * scale, abs=0.005)
    assert found.high - found.low > 1.2 * (alone.high - alone.low)


def test_everybody_twice_as_pairs_has_the_intervals_of_everybody_once():
    known = moving()
    probability = output(known, 1, 0)
    once = of(known, probability)
    twice = {name: np.tile(known[name], 2) for name in ("label", "site")} | {"same_scan": known["subject"] * 2}
    twice["subject"] = [*known["subject"], *(f"x{one}" for one in known["subject"])]
    twice["table"] = pd.concat([known["table"], known["table"]]).set_axis(twice["subject"])
    found = of(twice, np.tile(probability, 2))
    (of_pairs, p), (alone, same_p) = (of["given_diagnosis"]["log func_mean_fd"] for of in (found, once))
    assert of_pairs.high - of_pairs.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert p == pytest.approx(same_p, abs=0.1)
    width, single = (of["partial"].high - of["partial"].low for of in (found, once))
    assert width == pytest.approx(single, rel=0.06)


def test_intervals_of_folds_are_wider():
    known = moving()
    probability = output(known, 1, 0)
    one, several = of(known, probability), of(known, probability, np.arange(200) % 5)
    assert several["partial"].value == pytest.approx(one["partial"].value)
    widths = [found["partial"].high - found["partial"].low for found in (one, several)]
    assert 1.2 < widths[1] / widths[0] < 1.5


def test_the_correlation_given_the_diagnosis_is_of_people_of_one_diagnosis_and_site():
    """By pandas; and p by SciPy's permutations of a single cell."""
    random = np.random.default_rng(0)
    site, label = np.repeat(["A", "B", "C"], 50), np.arange(150) % 2.0
    level = np.repeat([0.0, 5.0, 10.0], 50) + 3 * label
    moved = random.normal(size=150)
    logits = 0.2 * moved + random.normal(size=150) + level
    people = pd.DataFrame({"site": site, "label": label, "logit": logits, "unit": np.arange(150)})
    known = pd.DataFrame({"motion": pd.Series(moved - level).mask(np.arange(150) == 149), "sex": ["F", "M", "M"] * 50})
    found = correlate_within_diagnosis(people, known, 0)
    assert list(found) == ["motion", "sex (M)"]
    correlation, p = found["motion"]
    left = people.assign(moved=known["motion"])[:149].groupby(["site", "label"])[["logit", "moved"]]
    expected = left.transform(lambda of: of - of.mean()).corr().iloc[0, 1]
    assert correlation.value == pytest.approx(expected)
    assert correlation.low < correlation.value < correlation.high and correlation.high - correlation.low < 0.4
    alone = people[(people["site"] == "A") & (people["label"] == 1)]
    (_, p), values = (
        correlate_within_diagnosis(alone, known.loc[alone.index, ["motion"]], 0)["motion"],
        moved[alone.index],
    )
    independent = stats.permutation_test(
        (values,), lambda of: np.corrcoef(of, alone["logit"])[0, 1], permutation_type="pairings", n_resamples=5000,
        rng=np.random.default_rng(1),
    ).pvalue  # fmt: skip
    assert p == pytest.approx(independent, abs=0.08)  # of 200 permutations
    assert correlate_within_diagnosis(people[:5], known[:5], 0) == {}  # too few


@pytest.mark.slow
def test_an_output_that_follows_the_diagnosis_alone_is_not_accused_of_motion_that_goes_with_it():
    accused = np.zeros(2, int)
    for seed in range(100):
        known, random = moving(150, seed), np.random.default_rng((seed, 1))
        fd = np.log(known["table"]["func_mean_fd"].astype(float).to_numpy())
        for number, follows in enumerate((2 * known["label"], fd)):
            odds = follows + random.normal(size=150)
            accused[number] += of(known, 1 / (1 + np.exp(-odds)))["given_diagnosis"]["log func_mean_fd"][1] <= 0.05
    assert stats.binomtest(int(accused[0]), 100, 0.05).pvalue > 0.01 and accused[1] > 95


def test_several_records_of_a_subject_count_once():
    known = moving()
    probability = output(known, 1, 0)
    twice = {name: np.repeat(known[name], 2) for name in ("label", "site", "subject")} | {"table": known["table"]}
    spread = np.repeat(np.log(probability / (1 - probability)), 2) + np.tile([-0.3, 0.3], 200)
    found = of(twice, 1 / (1 + np.exp(-spread)))
    once = of(known, probability)
    assert found.keys() == once.keys()
    assert astuple(found["partial"]) == pytest.approx(astuple(once["partial"]))
    for name, (correlation, p) in once["given_diagnosis"].items():
        assert astuple(found["given_diagnosis"][name][0]) == pytest.approx(astuple(correlation))
        assert found["given_diagnosis"][name][1] == p


def test_who_is_left_out_is_counted_and_what_is_not_used_is_named():
    known = moving(60)
    known["table"]["scanner"] = [""] * 50 + ["x"] * 10  # too rarely known
    known["table"].iloc[:5, 0] = "-9999"
    known["site"] = np.array([f"site {number % 12}" for number in range(60)])
    found = of(known, output(known, 1, 0))
    assert (found["subjects"], found["left_out"]) == (60, 0)
    assert found["beside"].covariates == ("age", "log func_mean_fd")
    assert found["beside"].unusable_covariates == ("site", "scanner") and found[
        "beside"
    ].imputed_count_by_covariate == {"age": 5}
    assert {"site", "scanner"} <= {*left_open(found)} and "age" not in left_open(found)


def test_numbers_that_are_known_for_different_people_leave_nobody_out():
    """IQ and handedness known for opposite halves, motion for most: 0 people were left, 'of one class'."""
    known, half = moving(), np.arange(200) < 100
    values = np.random.default_rng(3).normal(100, 15, 200).round(2).astype(str)
    known["table"] = known["table"].assign(fiq=np.where(half, values, ""), hand=np.where(~half, values, ""))
    probability = output(known, 2, 0)
    known["table"].iloc[::5, 1] = ""
    found = of(known, probability)
    assert (found["subjects"], found["left_out"]) == (200, 0)
    assert found["beside"].imputed_count_by_covariate == {"log func_mean_fd": 40, "fiq": 100, "hand": 100}
    assert found["partial"].low > 0 and found["beside"].unmeasured_kinds == ("sex",)
    assert make_covariate_result(found).names == ["site", "age"] and {"log func_mean_fd", "fiq", "hand"} <= {
        *left_open(found)
    }


@pytest.mark.parametrize("reads", ["IQ where it is known", "whether it is missing"])
def test_an_output_that_reads_a_number_with_gaps_carries_nothing_more(reads):
    """The IQ is missing by site and label."""
    random, known = np.random.default_rng(0), moving(300)
    gone = random.random(300) < np.where(known["label"] == 1, 0.1, np.where(known["site"] == "A", 0.9, 0.2))
    iq = random.normal(size=300) - 0.8 * known["label"]
    known["table"]["fiq"] = np.where(gone, "", (100 + 15 * iq).astype(str))
    read = np.where(gone, 0, -iq) if reads == "IQ where it is known" else 1.0 * ~gone
    noise = random.normal(0, 0.3, 300)
    assert of(known, 1 / (1 + np.exp(-2 * read - noise)))["partial"].low < 0
    assert of(known, 1 / (1 + np.exp(-2 * read - noise - known["label"])))["partial"].low > 0


def test_a_number_that_is_unknown_at_whole_sites_may_explain_an_output_that_reads_it_through_the_brain():
    """The output 'carried more than' the IQ of people whose IQ nobody knows."""
    random, known = np.random.default_rng(7), moving(300)
    iq = random.normal(size=300)
    known["label"] = (random.random(300) < 1 / (1 + np.exp(2 * iq))).astype(float)
    read = 1 / (1 + np.exp(2 * iq + random.normal(0, 0.3, 300)))
    everywhere, values = known["table"], (100 + 15 * iq).astype(str)
    for gone, more in ((known["site"] == "A", True), (np.arange(300) % 20 == 0, False)):
        known["table"] = everywhere.assign(fiq=np.where(gone, "", values))
        found = of(known, read)
        assert (
            (found["partial"].low > 0)
            == more
            == ("fiq" in left_open(found))
            == ("fiq" not in make_covariate_result(found).names)
        )
        assert found["beside"].imputed_count_by_covariate["fiq"] == gone.sum()


def test_an_output_that_reads_a_product_of_three_carries_more_and_the_table_names_it():
    known, random = moving(300), np.random.default_rng(7)
    age, moved = known["table"].astype(float).to_numpy().T
    sex = random.choice([-1, 1], 300)
    odds = 2 * sex * stats.zscore(age) * stats.zscore(np.log(moved))
    known["label"] = (random.random(300) < 1 / (1 + np.exp(-odds))).astype(float)
    known["table"] = known["table"].assign(sex=np.where(sex > 0, "M", "F"))
    found = of(known, 1 / (1 + np.exp(-odds - random.normal(0, 0.3, 300))))
    assert found["partial"].low > 0 and "products of three" in left_open(found)
    assert make_covariate_result(found).names == ["site", "age", "log func_mean_fd", "sex"]


def test_products_without_room_are_named_by_their_second_factor():
    known = moving()
    known["site"] = np.array([f"site {number % 20}" for number in range(200)])
    assert "age, log func_mean_fd by site" in left_open(of(known, output(known, 1, 0)))


def test_people_at_sites_of_one_class_are_left_out_where_the_site_enters():
    known = moving()
    known["site"] = np.where(np.arange(200) < 20, np.where(known["label"] == 1, "all autism", "A"), known["site"])
    found = of(known, output(known, 1, 0))
    assert (
        found["left_out"] == make_covariate_result(found).left_out == (known["site"] == "all autism").sum() > 0
        and "partial" in found
    )
    known = moving(60)
    known["site"] = np.array([f"site {number // 4}" for number in range(60)])
    known["label"][:4] = 1
    found = of(known, output(known, 1, 0))
    assert (found["subjects"], found["left_out"]) == (60, 0) and found["beside"].unusable_covariates == ("site",)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"probability": np.full(200, 0.3)}, "the same for everybody"),
        ({"probability": 1 / (1 + np.exp(-moving()["table"]["age"].astype(float) / 40))}, "output follows from"),
        ({"label": (np.arange(200) % 2).astype(float), "sex": True}, "the diagnosis follows from the covariates"),
        ({"label": np.ones(200)}, "one class"),
    ],
)
def test_what_cannot_be_computed_is_said(change, reason):
    known = moving() | {"probability": output(moving(), 1, 0)} | change
    if "sex" in known:
        known["table"]["sex"] = np.where(known["label"] == 1, "M", "F")
    found = of(known, np.asarray(known["probability"]))
    assert "partial" not in found and reason in found["reason"]
    assert (
        make_covariate_result(found).carries_more == "cannot be told" and reason in make_covariate_result(found).reason
    )


def test_an_output_that_is_the_label_has_a_partial_correlation_of_one():
    known = moving()
    found = of(known, np.where(known["label"] == 1, 0.9, 0.1))
    assert astuple(found["partial"]) == pytest.approx((1, 1, 1)) and found["p"] == 0


@pytest.mark.parametrize("case", ["rare", "rare at sites", "apart", "families"])
def test_where_no_verdict_can_be_said_none_is_said_beside_covariates(case):
    known, at, half = moving(), np.arange(200), np.arange(200) < 100
    rare = {"rare": at % 23 == 0, "rare at sites": np.where(half, at % 20 == 0, True), "apart": half}
    known["label"] = rare.get(case, known["label"]).astype(float)
    known["site"] = np.full(200, "A") if case == "rare" else np.where(half, "A", "B")
    if case == "families":
        known["same_scan"] = np.where(known["label"] == 1, "s1", known["subject"])
    probability = np.where(known["label"] == 1, 0.8, 0.2) + np.random.default_rng(1).normal(0, 0.02, 200)
    reason = of(known, probability)["reason"]
    assert ("the same diagnosis" in reason) == (case == "apart") != ("it needs 10 participants" in reason)
    assert ("at sites that have both" in reason) == (case in ("rare at sites", "families"))


def test_unknown_covariates_and_unknown_motion_are_told():
    known = moving()
    assert of(known | {"table": None}, output(known, 1, 0)) is None and make_covariate_result(None) is None
    probability = output(known, 1, 0)
    known["table"] = known["table"][["age"]]
    found = of(known, probability)
    assert list(found["given_diagnosis"]) == ["age"] and make_covariate_result(found).partial.value is not None
    assert left_open(found) == ["sex", "IQ", "handedness", "head motion", "products of three"]


def test_rows_are_of_what_is_known():
    known = moving()
    result = of(known, output(known, 1, 0))
    still = {"kind": "head motion", "group": "moved less", "auc": 0.7, "auc_low": 0.6, "auc_high": 0.8}
    masked, nothing = (Estimate(0.6, 0.5, 0.7), Estimate(0.1, 0, 0.2)), (UNDEFINED, UNDEFINED)
    found = make_confound_rows(result, [still, still | {"group": "moved more", "auc": 0.5}], nothing)
    strong = result["unmeasured"]
    limits = [("reliability", ""), ("unmeasured", strong.strongest_measured)]
    given = [("given_diagnosis", "age"), ("given_diagnosis", "log func_mean_fd")]
    assert [(row["measure"], row["covariate"]) for row in found] == [("partial", ""), *limits, *given, ("auc", "")]
    assert (found[1]["value"], found[2]["value"]) == (result["reliability"], strong.correlation)
    assert found[0] == {"measure": "partial", "covariate": "", **result["partial"].to_cells(), "p": result["p"]}
    assert found[5]["value"] == 0.7
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
    known = {"label": np.array(label), "subject": subject, "site": np.array(site)}
    return known | {"table": pd.DataFrame(columns, index=subject), "probability": np.array(probability)}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(few_people())
def test_of_few_people_and_any_covariates_there_is_a_result_or_a_reason(known):
    found = of(known, known["probability"])
    assert (
        ("partial" in found) != ("reason" in found) == (make_covariate_result(found).carries_more == "cannot be told")
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


def test_the_halves_are_of_each_site_thirds_are_told_by_their_ends_and_scores_are_scikit_learns():
    table, test = people()
    found = pd.DataFrame(make_group_score_rows(test, table, 0)).set_index("group")
    assert found["kind"].tolist() == ["head motion"] * 2 + ["sex"] * 2 + ["age"] * 3
    moved = pd.to_numeric(table["mean_fd"]).to_numpy()
    median = pd.Series(moved).groupby(test.site).median()[test.site].to_numpy()
    for name, members in {
        "moved less": moved < median,
        "moved more": moved >= median,
        "SEX 1": (table["SEX"] == "1").to_numpy(),
    }.items():
        row, label = found.loc[name], test.label[members]
        assert (row["subjects"], row["autism"], row["control"]) == (members.sum(), label.sum(), (1 - label).sum())
        assert row["auc"] == pytest.approx(roc_auc_score(label, test.mean_probability[members]))
        assert row["auc_low"] < row["auc"] < row["auc_high"] and np.isfinite(row["auc_sites"])
    assert found["subjects"]["moved less":"moved more"].sum() == 120  # one person's motion is unknown
    assert abs(found["subjects"]["moved less"] - 60) <= 1
    low, high = np.quantile(table["age"].astype(float), [1 / 3, 2 / 3])
    thirds = {"youngest": f"below {low:.1f}", "middle": f"{low:.1f} to {high:.1f}", "oldest": f"above {high:.1f}"}
    assert [*found.index[4:]] == [f"{name} third, {ends}" for name, ends in thirds.items()]
    assert found["subjects"].iloc[4:].sum() == 121 and found["subjects"].iloc[4:].min() == 40


def test_records_of_a_subject_stay_together_and_small_groups_have_no_interval():
    table, test = people()
    subject = np.repeat(test.subject[:12], 2)
    label, probability = (np.repeat(values[:12], 2) for values in (test.label, test.mean_probability))
    found = make_group_score_rows(make_predictions(label, probability, subject=subject, site="A"), table, 0)
    assert sum(row["subjects"] for row in found if row["kind"] == "sex") == 12
    assert all(row["auc_low"] is None and "auc_sites" not in row for row in found)


def test_nothing_is_grouped_by_what_is_unknown_or_text():
    table, test = people()
    assert make_group_score_rows(test, None, 0) == []
    assert make_group_score_rows(test, table[[]].assign(scanner="x", age="young", mean_fd="much"), 0) == []
    assert make_group_score_rows(test, table[["age"]].assign(age=""), 0) == []


def test_groups_of_small_sites_are_compared_within_site_and_fold_only():
    table, test = people()
    site, fold = (np.random.default_rng(at).integers(0, count, 121).astype(str) for at, count in ((1, 12), (2, 5)))
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
    found = make_covariate_table(["c", "a", "unheard of"], ["S", "S", "T"], table)
    assert found["site"].tolist() == ["S", "S", "T"]
    assert found["age"].tolist() == pytest.approx([30, 9, np.nan], nan_ok=True)
    assert found["log MeanFD_Jenkinson"].tolist() == pytest.approx([np.nan, np.log(0.5), np.nan], nan_ok=True)
    assert found["scanner"].fillna("unknown").tolist() == ["unknown", "x", "unknown"]
    assert make_covariate_table(["a"], ["S"], None).shape == (1, 0)
    table["age"] = ["9", "old", "30"]
    with pytest.raises(InputError, match="Column age holds 'old'"):
        make_covariate_table(["a"], ["S"], table)


def covaried(count: int = 200, sites: int = 2) -> tuple[pd.DataFrame, np.random.Generator]:
    random = np.random.default_rng(0)
    site = np.array([f"site {number % sites}" for number in range(count)], object)
    sex = random.choice(np.array(["F", "M"], object), count)
    return pd.DataFrame({"site": site, "age": random.normal(20, 5, count), "sex": sex}), random


@pytest.mark.parametrize("read", ["sex by age", "age by site", "square", "kink", "step"])
def test_what_a_value_follows_enters_and_nothing_else_does(read):
    """Beside the terms that enter, nothing of the term is left; of noise, nothing enters."""
    known, random = covaried()
    age = (known["age"] - 20) / 5
    sign = {"sex by age": known["sex"] == "M", "age by site": known["site"] == "site 0"}
    terms = {name: np.where(mask, 1, -1) * age for name, mask in sign.items()}
    terms |= {"square": age**2, "kink": np.maximum(age, 0.5), "step": 2.0 * (age > 0)}
    found, noise = make_adjustment(known), random.normal(size=200)
    term = terms[read].to_numpy()
    assert found.select_terms(noise) == set()
    left = regression_residuals(term, found.make_basis(found.select_terms(3 * term + noise)))
    assert left.std() < 0.35 * regression_residuals(term, found.covariate_basis).std()


def test_the_covariates_enter_as_lines_and_dummies():
    known, random = covaried(sites=3)
    value = random.normal(size=200)
    dummies = pd.get_dummies(known[["site", "sex"]], drop_first=True, dtype=float).assign(age=known["age"])
    expected = sm.OLS(value, sm.add_constant(dummies.to_numpy())).fit().resid
    found = make_adjustment(known)
    assert regression_residuals(value, found.covariate_basis) == pytest.approx(expected)
    assert np.abs(found.covariate_basis.T @ found.term_columns).max() < 1e-9 and found.term_columns.std(
        axis=0
    ) == pytest.approx(1)
    square = np.square(known["age"].to_numpy() - known["age"].mean())
    assert regression_residuals(square, found.make_basis(found.select_terms(square))).std() < 1e-6 * square.std(), (
        "a curve leaves nothing"
    )


def test_an_unknown_value_takes_the_median_and_a_mark():
    known, _ = covaried()
    known.loc[:59, "age"], known.loc[::9, "sex"] = np.nan, np.nan
    filled = known.assign(age=known["age"].fillna(known["age"].median()), sex=known["sex"].fillna("unknown"))
    marked = filled.assign(mark=known["age"].isna().astype(float))
    one, other = (
        np.round(found.covariate_basis @ found.covariate_basis.T, 9)
        for found in (make_adjustment(known), make_adjustment(marked))
    )
    found = make_adjustment(known)
    assert (one == other).all() and (found.imputed_count_by_covariate, found.incomplete_covariates) == (
        {"age": 60, "sex": 23},
        ("age", "sex"),
    )
    assert found.covariates == ("site", "age", "sex") and found.complete_covariates == ("site",)
    assert make_adjustment(known[["age", "sex"]]).reason == "no covariate can be used", "nothing would go beyond these"


@pytest.mark.parametrize(
    "sites, count, used, no_room",
    [
        (2, 60, ("site", "age", "sex"), {}),
        (15, 60, ("age", "sex"), {}),
        (14, 95, ("site", "age", "sex"), {"site": ["age", "sex"]}),
        (8, 65, ("site", "age", "sex"), {"site": ["age", "sex"]}),
    ],
)
def test_the_fewer_people_the_less_is_adjusted_for_and_what_is_not_is_named(sites, count, used, no_room):
    found = make_adjustment(covaried(count, sites)[0])
    assert found.covariates == used and found.oversized_products == no_room
    assert found.unusable_covariates == (() if "site" in used else ("site",))


def test_a_text_of_many_values_is_left_out_and_not_all_else():
    """Names of people, or of 70 scanners: nothing was adjusted, though age and sex would have had room."""
    known, random = covaried()
    named = known.assign(note=known.index.astype(str), scanner=random.choice([*"abcdefghij"], 200))
    found = make_adjustment(named)
    assert (
        found.covariates == ("site", "age", "sex", "scanner")
        and found.unusable_covariates == ("note",)
        and not found.reason
    )
    assert found.covariate_basis == pytest.approx(make_adjustment(named.drop(columns="note")).covariate_basis)


def test_a_product_that_one_outlier_carries_most_of_enters():
    """One person is much older than all others: sex by age was left out, and an output that reads it said more."""
    known, random = covaried()
    known.iloc[0, known.columns.get_loc("age")] = 64
    sign = np.where(known["sex"] == known["sex"].iloc[0], 1, -1)
    term = sign * (known["age"] - known["age"].mean()).to_numpy() / known["age"].std()
    found = make_adjustment(known)
    left = regression_residuals(term, found.make_basis(found.select_terms(term + random.normal(0, 0.3, 200))))
    assert left.std() < 1e-6 and regression_residuals(term, found.covariate_basis).std() > 0.5


def test_too_few_people_for_any_product_are_told_how_many_would_do():
    """One covariate, the intercept, the value and a product: 4 parameters of 5 people each."""
    found = [make_adjustment(covaried(count, 1)[0][["age", "sex"]]) for count in (19, 20, 24, 25)]
    assert found[0].reason == "19 participants are too few for curves and products of covariates; 20 would do"
    assert [of.covariates for of in found] == [(), ("sex",), ("sex",), ("age", "sex")]
    assert [of.unusable_covariates for of in found] == [("age", "sex"), ("age",), ("age",), ()]
    assert not any(of.reason for of in found[1:])


def test_what_is_unknown_or_alike_in_all_is_named():
    known, random = covaried()
    rare = pd.Series(random.normal(size=200)).where(np.arange(200) < 99)
    found = make_adjustment(known.assign(same=3.0, fiq=rare, func_mean_fd=random.normal(size=200)))
    assert found.covariates == ("site", "age", "sex", "func_mean_fd")
    assert found.unusable_covariates[:2] == ("same", "fiq") and found.unmeasured_kinds == ("IQ", "handedness")
    group = np.where(known["age"] < 15, "child", "adult")
    assert make_adjustment(known[["sex"]].assign(age_group=group, verbal_iq=rare.fillna(0))).unmeasured_kinds[:2] == (
        "age",
        "IQ",
    )
    assert make_adjustment(known[["site"]].assign(site="one")).reason == "no covariate can be used"
    assert [make_adjustment(known[["age"]], sites).unmeasured_kinds[0] for sites in (["unknown"], ["A"])] == [
        "site",
        "sex",
    ]
    assert make_adjustment(known[["site"]]).unmeasured_kinds == ("age", "sex", "IQ", "handedness", "head motion")
    assert make_adjustment(known[[]]).covariate_basis == pytest.approx(make_basis_with_intercept(np.empty((200, 0))))


def test_slopes_at_many_sites_enter_together_where_each_is_too_small():
    """Of 16 sites with 20 people each."""
    known, random = covaried(320, 16)
    slope = dict(zip(known["site"].unique(), random.choice([-0.6, 0.6], 16), strict=True))
    term = (known["site"].map(slope) * (known["age"] - 20) / 5).to_numpy()
    found = make_adjustment(known)
    left = regression_residuals(term, found.make_basis(found.select_terms(term + random.normal(size=320))))
    assert left.std() < 1e-6 and regression_residuals(term, found.covariate_basis).std() > 0.5
    few = make_adjustment(covaried(120, 16)[0])
    assert few.oversized_products == {"site": ["age", "sex"]}


def test_what_would_explain_a_result_is_the_robustness_value_of_sensemakr():
    """Cinelli and Hazlett's own example: t 4.18 of 783 degrees of freedom has 0.076 at a level of 5 %."""
    known, random = pd.DataFrame({"age": np.arange(800.0)}), np.random.default_rng(0)
    label = (random.random(800) < 0.5).astype(float)
    output, unit = label + random.normal(size=800), np.arange(800)
    tested = CovariateTestInputs(
        stats.zscore(label), stats.zscore(output), unit, known, make_adjustment(known), frozenset(), 1.0
    )
    found = find_unmeasured_covariate(tested, 4.18, 783)
    assert found.correlation**2 == pytest.approx(0.076, abs=0.0005) and found.strongest_measured == "age"
    assert found.times_strongest * min(
        abs(np.corrcoef(known["age"], of)[0, 1]) for of in (label, output)
    ) == pytest.approx(found.correlation)


@pytest.mark.parametrize("reliability", [0.6, 0.9])
def test_a_covariate_explains_an_output_down_to_the_reliability_that_it_has(reliability):
    """Of so many people that chance hardly matters; the output follows the true IQ, or the diagnosis itself."""
    random, count = np.random.default_rng(1), 20_000
    iq, motion_of = random.normal(size=(2, count))
    label = (random.random(count) < 1 / (1 + np.exp(-iq))).astype(float)
    seen = np.sqrt(reliability) * iq + np.sqrt(1 - reliability) * random.normal(size=count)
    known = pd.DataFrame({"age": random.normal(size=count), "fiq": seen, "log mean_fd": motion_of})
    for output, expected in ((iq, reliability), (label, 0.3)):
        noisy = output + 0.5 * random.normal(size=count)
        tested = CovariateTestInputs(
            stats.zscore(label), stats.zscore(noisy), np.arange(count), known, make_adjustment(known), frozenset(), 1.0
        )
        assert find_least_reliability(tested) == pytest.approx(expected, abs=0.05)
    alone = make_adjustment(known[["age"]])
    assert find_least_reliability(replace(tested, subject_covariates=known[["age"]], adjustment=alone)) is None
