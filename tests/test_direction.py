"""Which way things differ and are read: against statsmodels, SciPy and loops by hand; and what is planted."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from utils.blackout.direction import (
    NO_DIFFERENCE_TEXT,
    estimate_class_differences,
    estimate_correlations,
    make_direction_columns,
)
from utils.blackout.effects import CovariateAdjuster
from utils.blackout.families import BlackoutPeople
from utils.scores.adjustment import Adjustment

ESTIMATES = ["difference", "difference_low", "difference_high", "correlation", "correlation_low", "correlation_high"]


def people_of(label, site=None, unit=None) -> BlackoutPeople:
    count = len(label)
    return BlackoutPeople(
        subject_labels=np.asarray(label, float),
        subject_sites=np.full(count, "a") if site is None else np.asarray(site),
        subject_folds=np.zeros(count, int),
        cluster_numbers=np.arange(count) if unit is None else unit,
        adjuster=CovariateAdjuster(Adjustment(reason="none"), np.asarray(label, float)),
        seed=0,
    )


def drawn(count: int = 120, things: int = 6, seed: int = 0) -> tuple[BlackoutPeople, np.ndarray, np.ndarray]:
    """People of five sites that differ in level and share of autism, with values and effects on autism."""
    random = np.random.default_rng(seed)
    site = random.choice(5, count, p=[0.4, 0.3, 0.2, 0.06, 0.04])
    label = (random.random(count) < 0.3 + 0.1 * site).astype(int)
    value = random.standard_normal((count, things)) + site[:, None] + 0.5 * label[:, None]
    effect = 0.5 * value + random.standard_normal((count, things)) - 2 * site[:, None]
    return people_of(label, np.array(list("abcde"))[site]), value, effect


def test_the_difference_is_that_of_a_regression_on_label_and_site():
    people, value, _ = drawn()
    found, low, high = estimate_class_differences(value, people)
    design = pd.get_dummies(people.subject_sites, dtype=float).assign(label=people.subject_labels)
    cells = pd.DataFrame({"site": people.subject_sites, "label": people.subject_labels})
    for at, own in enumerate(value.T):
        fit = sm.OLS(own, design).fit(cov_type="HC1")
        residual = own - cells.assign(own=own).groupby(["site", "label"])["own"].transform("mean")
        spread = np.sqrt(np.square(residual).sum() / (len(own) - cells.drop_duplicates().shape[0]))
        assert found[at] == pytest.approx(fit.params["label"] / spread)
        plain = fit.bse["label"] / spread * stats.t.ppf(0.975, len(own) - 6)  # as if the spread were known
        assert (high[at] - low[at]) / 2 == pytest.approx(plain, rel=0.1)
        assert high[at] - found[at] == pytest.approx(found[at] - low[at])


def test_a_site_of_one_class_or_of_one_person_tells_nothing_of_the_difference():
    people, value, _ = drawn()
    more = people_of([*people.subject_labels, 1, 1, 0], [*people.subject_sites, "f", "f", "g"])
    grown = np.concatenate([value, 100 + np.zeros((3, value.shape[1]))])
    np.testing.assert_allclose(estimate_class_differences(grown, more), estimate_class_differences(value, people))


def test_the_interval_of_the_difference_is_that_of_jackknifed_units():
    people, value, _ = drawn(200, 3)
    unit = np.arange(200) // 2
    related = people_of(people.subject_labels, people.subject_sites, unit)
    value[1::2] = value[::2] + 0.1 * value[1::2]  # relatives are alike
    _, low, high = estimate_class_differences(value, related)
    without = [
        estimate_class_differences(
            value[unit != one], people_of(people.subject_labels[unit != one], people.subject_sites[unit != one])
        )[0]
        for one in range(100)
    ]
    error = np.sqrt(99 / 100 * np.square(without - np.mean(without, axis=0)).sum(0))
    np.testing.assert_allclose((high - low) / 2, error * stats.t.ppf(0.975, 100 - 6), rtol=0.1)


def test_the_correlation_is_that_of_what_sites_leave():
    people, value, effect = drawn()
    found, low, high = estimate_correlations(value, effect, people)
    for at in range(value.shape[1]):
        table = pd.DataFrame({"site": people.subject_sites, "value": value[:, at], "effect": effect[:, at]})
        left = table[["value", "effect"]] - table.groupby("site")[["value", "effect"]].transform("mean")
        assert found[at] == pytest.approx(stats.pearsonr(left["value"], left["effect"]).statistic)
        normal = stats.norm.isf(0.025) / np.sqrt(len(table) - 5 - 2)  # of Fisher's z, if both are normal
        assert (np.arctanh(high[at]) - np.arctanh(low[at])) / 2 == pytest.approx(normal, rel=0.25)
        assert np.arctanh(high[at]) + np.arctanh(low[at]) == pytest.approx(2 * np.arctanh(found[at]))


def test_unknown_values_are_left_out_thing_by_thing():
    people, value, effect = drawn()
    random = np.random.default_rng(1)
    holes = np.where(random.random(value.shape) < 0.2, np.nan, value)
    together = make_direction_columns(holes, effect, people)
    for at, own in enumerate(holes.T):
        known = ~np.isnan(own)
        some = people_of(people.subject_labels[known], people.subject_sites[known])
        alone = make_direction_columns(own[known, None], effect[known, at, None], some)
        pd.testing.assert_series_equal(together.iloc[at], alone.iloc[0], check_names=False)


def test_what_is_undefined_is_nan_and_has_no_words():
    people, value, effect = drawn()
    value[:, 0], value[:, 1], value[:, 2], effect[:, 3] = 0.1, np.nan, (people.subject_sites == "a") / 3, 0.2
    found = make_direction_columns(value, effect, people)
    assert found.columns.tolist() == [*ESTIMATES, "direction"]
    assert found.loc[:2, ESTIMATES].isna().all(axis=None) and (found.loc[:2, "direction"] == "").all()
    assert found.loc[3, ESTIMATES[3:]].isna().all() and found.loc[3, ESTIMATES[:3]].notna().all()
    assert found.loc[4:, ESTIMATES].notna().all(axis=None)


def test_of_one_class_there_is_a_correlation_and_no_difference():
    people, value, effect = drawn()
    found = make_direction_columns(value, effect, people_of(np.ones(len(value)), people.subject_sites))
    assert found[ESTIMATES[:3]].isna().all(axis=None) and (found["direction"] == "").all()
    assert found[ESTIMATES[3:]].notna().all(axis=None)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_people_have_no_interval(count):
    people, value, effect = (of[:count] if isinstance(of, np.ndarray) else of for of in drawn())
    few = people_of(people.subject_labels[:count], people.subject_sites[:count])
    found = make_direction_columns(value, effect, few)
    assert found[["difference_low", "correlation_low"]].isna().all(axis=None) and (found["direction"] == "").all()


def test_a_value_that_is_read_as_it_is_has_a_correlation_of_one():
    people, value, _ = drawn()
    _, low, high = estimate_correlations(value, -3 * value + people.subject_labels.mean(), people)
    np.testing.assert_allclose([low, high], -1)


@pytest.mark.parametrize("autism", [1, -1])
@pytest.mark.parametrize(("read", "words"), [(1, ", and read so"), (-1, ", but read the other way")])
def test_words_of_what_is_planted(autism, read, words):
    """Read so: the person with the value of autism is taken for autism."""
    random, people = np.random.default_rng(0), drawn(400)[0]
    value = random.standard_normal((400, 6)) + autism * people.subject_labels[:, None]
    value[:, 0] = random.standard_normal(400)
    effect = read * autism * value + random.standard_normal((400, 6))
    effect[:, 1] = random.standard_normal(400) + people.subject_labels
    effect[:, 1] -= value[:, 1] * np.cov(value[:, 1], effect[:, 1])[0, 1] / value[:, 1].var()
    side = "higher in autism" if autism == 1 else "lower in autism"
    found = make_direction_columns(value, effect, people)["direction"]
    assert found[:2].tolist() == [NO_DIFFERENCE_TEXT, f"{side}; how it is read is not shown"]
    assert set(found[2:]) == {side + words}


@pytest.mark.slow
def test_intervals_hold_the_truth():
    random, people = np.random.default_rng(3), drawn(150)[0]
    unit = np.arange(150)
    unit[1::2] = unit[::2]  # of any label and site
    people = people_of(people.subject_labels, people.subject_sites, np.unique(unit, return_inverse=True)[1])
    shared, own = (random.standard_normal((150, 2000)) for _ in range(2))
    noise = np.sqrt(0.5) * (shared[people.cluster_numbers] + own)
    for truth, ends in (
        (0.7, estimate_class_differences(noise + 0.7 * people.subject_labels[:, None], people)),
        (0.6, estimate_correlations(noise, 0.6 * noise + 0.8 * random.standard_normal(noise.shape), people)),
    ):
        assert 0.93 < ((ends[1] <= truth) & (truth <= ends[2])).mean() < 0.97
