"""Which way things differ and are read: against statsmodels, SciPy and loops by hand; and what is planted."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from utils.blackout.direction import (
    NO_DIFFERENCE_TEXT,
    correlate_values_with_effects,
    estimate_class_differences,
    make_direction_columns,
)
from utils.blackout.effects import CovariateAdjuster
from utils.blackout.people import BlackoutPeople
from utils.scores.adjustment import Adjustment

ESTIMATES = ["difference", "difference_low", "difference_high", "correlation", "correlation_low", "correlation_high"]


def make_people(label, site=None, unit=None) -> BlackoutPeople:
    count = len(label)
    return BlackoutPeople(
        subject_labels=np.asarray(label, float),
        subject_sites=np.full(count, "a") if site is None else np.asarray(site),
        subject_folds=np.zeros(count, int),
        subject_cluster_numbers=np.arange(count) if unit is None else unit,
        adjuster=CovariateAdjuster(Adjustment(no_adjustment_reason="none"), np.asarray(label, float)),
        resampling_seed=0,
    )


def simulate_values(
    count: int = 120, value_count: int = 6, seed: int = 0
) -> tuple[BlackoutPeople, np.ndarray, np.ndarray]:
    """People of five sites that differ in level and share of autism, with values and effects on autism."""
    random = np.random.default_rng(seed)
    site = random.choice(5, count, p=[0.4, 0.3, 0.2, 0.06, 0.04])
    label = (random.random(count) < 0.3 + 0.1 * site).astype(int)
    value = random.standard_normal((count, value_count)) + site[:, None] + 0.5 * label[:, None]
    effect = 0.5 * value + random.standard_normal((count, value_count)) - 2 * site[:, None]
    return make_people(label, np.array(list("abcde"))[site]), value, effect


def test_the_difference_equals_a_regression_on_label_and_site():
    people, value, _ = simulate_values()
    estimates, low, high = estimate_class_differences(value, people)
    design = pd.get_dummies(people.subject_sites, dtype=float).assign(label=people.subject_labels)
    cells = pd.DataFrame({"site": people.subject_sites, "label": people.subject_labels})
    for column, column_values in enumerate(value.T):
        fit = sm.OLS(column_values, design).fit(cov_type="HC1")
        residual = column_values - cells.assign(own=column_values).groupby(["site", "label"])["own"].transform("mean")
        spread = np.sqrt(np.square(residual).sum() / (len(column_values) - cells.drop_duplicates().shape[0]))
        assert estimates[column] == pytest.approx(fit.params["label"] / spread)
        plain = fit.bse["label"] / spread * stats.t.ppf(0.975, len(column_values) - 6)  # as if the spread were known
        assert (high[column] - low[column]) / 2 == pytest.approx(plain, rel=0.1)
        assert high[column] - estimates[column] == pytest.approx(estimates[column] - low[column])


def test_single_class_and_single_person_sites_leave_the_difference():
    people, value, _ = simulate_values()
    more = make_people([*people.subject_labels, 1, 1, 0], [*people.subject_sites, "f", "f", "g"])
    grown = np.concatenate([value, 100 + np.zeros((3, value.shape[1]))])
    np.testing.assert_allclose(estimate_class_differences(grown, more), estimate_class_differences(value, people))


def test_the_difference_interval_equals_a_jackknife_over_units():
    people, value, _ = simulate_values(200, 3)
    unit = np.arange(200) // 2
    related = make_people(people.subject_labels, people.subject_sites, unit)
    value[1::2] = value[::2] + 0.1 * value[1::2]  # relatives are alike
    _, low, high = estimate_class_differences(value, related)
    without = [
        estimate_class_differences(
            value[unit != left_unit],
            make_people(people.subject_labels[unit != left_unit], people.subject_sites[unit != left_unit]),
        )[0]
        for left_unit in range(100)
    ]
    error = np.sqrt(99 / 100 * np.square(without - np.mean(without, axis=0)).sum(0))
    np.testing.assert_allclose((high - low) / 2, error * stats.t.ppf(0.975, 100 - 6), rtol=0.1)


def test_the_correlation_is_within_sites():
    people, value, effect = simulate_values()
    estimates, low, high = correlate_values_with_effects(value, effect, people)
    for column in range(value.shape[1]):
        table = pd.DataFrame({"site": people.subject_sites, "value": value[:, column], "effect": effect[:, column]})
        left = table[["value", "effect"]] - table.groupby("site")[["value", "effect"]].transform("mean")
        assert estimates[column] == pytest.approx(stats.pearsonr(left["value"], left["effect"]).statistic)
        normal = stats.norm.isf(0.025) / np.sqrt(len(table) - 5 - 2)  # of Fisher's z, if both are normal
        assert (np.arctanh(high[column]) - np.arctanh(low[column])) / 2 == pytest.approx(normal, rel=0.25)
        assert np.arctanh(high[column]) + np.arctanh(low[column]) == pytest.approx(2 * np.arctanh(estimates[column]))


def test_unknown_values_are_left_out_column_by_column():
    people, value, effect = simulate_values()
    random = np.random.default_rng(1)
    holes = np.where(random.random(value.shape) < 0.2, np.nan, value)
    together = make_direction_columns(holes, effect, people)
    for column, column_values in enumerate(holes.T):
        is_measured = ~np.isnan(column_values)
        some = make_people(people.subject_labels[is_measured], people.subject_sites[is_measured])
        alone = make_direction_columns(column_values[is_measured, None], effect[is_measured, column, None], some)
        pd.testing.assert_series_equal(together.iloc[column], alone.iloc[0], check_names=False)


def test_undefined_estimates_are_nan_without_words():
    people, value, effect = simulate_values()
    value[:, 0], value[:, 1], value[:, 2], effect[:, 3] = 0.1, np.nan, (people.subject_sites == "a") / 3, 0.2
    direction_table = make_direction_columns(value, effect, people)
    assert direction_table.columns.tolist() == [*ESTIMATES, "direction"]
    assert (
        direction_table.loc[:2, ESTIMATES].isna().all(axis=None) and (direction_table.loc[:2, "direction"] == "").all()
    )
    assert direction_table.loc[3, ESTIMATES[3:]].isna().all() and direction_table.loc[3, ESTIMATES[:3]].notna().all()
    assert direction_table.loc[4:, ESTIMATES].notna().all(axis=None)


def test_a_single_class_has_a_correlation_and_no_difference():
    people, value, effect = simulate_values()
    direction_table = make_direction_columns(value, effect, make_people(np.ones(len(value)), people.subject_sites))
    assert direction_table[ESTIMATES[:3]].isna().all(axis=None) and (direction_table["direction"] == "").all()
    assert direction_table[ESTIMATES[3:]].notna().all(axis=None)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_people_have_no_interval(count):
    people, value, effect = simulate_values()
    few = make_people(people.subject_labels[:count], people.subject_sites[:count])
    direction_table = make_direction_columns(value[:count], effect[:count], few)
    assert (
        direction_table[["difference_low", "correlation_low"]].isna().all(axis=None)
        and (direction_table["direction"] == "").all()
    )


def test_a_value_read_linearly_has_correlation_1():
    people, value, _ = simulate_values()
    _, low, high = correlate_values_with_effects(value, -3 * value + people.subject_labels.mean(), people)
    np.testing.assert_allclose([low, high], -1)


@pytest.mark.parametrize("autism", [1, -1])
@pytest.mark.parametrize(("read", "words"), [(1, ", and read so"), (-1, ", but read the other way")])
def test_words_match_the_planted_effects(autism, read, words):
    """Read so: the person with the value of autism is taken for autism."""
    random, people = np.random.default_rng(0), simulate_values(400)[0]
    value = random.standard_normal((400, 6)) + autism * people.subject_labels[:, None]
    value[:, 0] = random.standard_normal(400)
    effect = read * autism * value + random.standard_normal((400, 6))
    effect[:, 1] = random.standard_normal(400) + people.subject_labels
    effect[:, 1] -= value[:, 1] * np.cov(value[:, 1], effect[:, 1])[0, 1] / value[:, 1].var()
    side = "higher in autism" if autism == 1 else "lower in autism"
    direction_words = make_direction_columns(value, effect, people)["direction"]
    assert direction_words[:2].tolist() == [NO_DIFFERENCE_TEXT, f"{side}; how it is read is not shown"]
    assert set(direction_words[2:]) == {side + words}


@pytest.mark.slow
def test_intervals_hold_the_truth():
    random, people = np.random.default_rng(3), simulate_values(150)[0]
    unit = np.arange(150)
    unit[1::2] = unit[::2]  # of any label and site
    people = make_people(people.subject_labels, people.subject_sites, np.unique(unit, return_inverse=True)[1])
    shared, individual_noise = (random.standard_normal((150, 2000)) for _ in range(2))
    noise = np.sqrt(0.5) * (shared[people.subject_cluster_numbers] + individual_noise)
    for truth, ends in (
        (0.7, estimate_class_differences(noise + 0.7 * people.subject_labels[:, None], people)),
        (0.6, correlate_values_with_effects(noise, 0.6 * noise + 0.8 * random.standard_normal(noise.shape), people)),
    ):
        assert 0.93 < ((ends[1] <= truth) & (truth <= ends[2])).mean() < 0.97
