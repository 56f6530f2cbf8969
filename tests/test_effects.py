"""Statistics of blackout effects, also beside covariates: against SciPy, statsmodels, and loops by hand."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from data.cohorts.metadata import Metadata
from data.tables import phenotype as phenotype_table
from utils.blackout import values
from utils.blackout.donors import compute_control_variate_mean
from utils.blackout.effects import (
    AdjustedEffects,
    CovariateAdjuster,
    average_by_subject,
    bootstrap_mean_interval,
    inflate_spread,
    run_family_permutation_test,
)
from utils.scores.adjustment import Adjustment, make_adjustment


def simulate_effects(random, subjects=40, regions=30, planted=0.0, share=0.5):
    """Effects on the true class (subjects, regions), and labels. What a region's content does to the logit of autism is
    skewed, alike in both classes, and dependent over regions; `planted` is added to the effect of the first."""
    label = (random.permutation(subjects) < share * subjects).astype(float)
    common = random.gamma(4, size=(subjects, 1)) - 4
    on_autism = common * random.choice([0.1, 0.5], (1, regions)) + random.gamma(4, size=(subjects, regions)) - 4
    effect = np.where(label == 1, 1.0, -1.0)[:, None] * on_autism
    effect[:, 0] += planted
    return effect, label


def make_plain_effects(effect, label) -> AdjustedEffects:
    return CovariateAdjuster(Adjustment(no_adjustment_reason="none"), label).make_unadjusted_effects(effect)


@pytest.mark.slow
@pytest.mark.parametrize("planted, share", [(0.0, 0.5), (3.0, 0.5), (0.0, 0.2), (0.0, 0.8)])
def test_family_wise_errors_are_five_percent_whatever_is_planted_elsewhere(planted, share):
    random = np.random.default_rng(0)
    drawn_sets = [make_plain_effects(*simulate_effects(random, planted=planted, share=share)) for _ in range(200)]
    p_values = [
        run_family_permutation_test(drawn_set, seed=seed, permutation_count=999)[0]
        for seed, drawn_set in enumerate(drawn_sets)
    ]
    empty = [p[1:] if planted else p for p in p_values]
    assert stats.binomtest(sum(p.min() < 0.05 for p in empty), 200, 0.05).pvalue > 0.01
    if planted:
        assert sum(p[0] < 0.05 for p in p_values) > 180


def p_over_all_orders(label, effect, unit=None):
    """p, family-wise and alone, by a loop over all orders of people, or of units of one size, and people in them."""
    count, r, d = len(effect), label - label.mean(), effect - effect.mean(0)
    unit = np.arange(count) if unit is None else unit
    members = [np.flatnonzero(unit == unit_number) for unit_number in np.unique(unit)]

    def t(order):
        unit_sums = np.array([(r[order[unit_people]][:, None] * d[unit_people]).sum(0) for unit_people in members])
        return unit_sums.sum(0) / np.sqrt(np.square(unit_sums).sum(0) * len(unit_sums))

    orders = [
        np.concatenate(within)[np.argsort(np.concatenate(members))]
        for places in itertools.permutations(members)
        if all(
            len(place_members) == len(unit_members) for place_members, unit_members in zip(places, members, strict=True)
        )
        for within in itertools.product(*(map(list, itertools.permutations(place_members)) for place_members in places))
    ]
    t_by_order, observed_t = np.array([t(order) for order in orders]), t(np.arange(count))
    return (t_by_order.max(1)[:, None] >= observed_t - 1e-9).mean(0), (t_by_order >= observed_t - 1e-9).mean(0)


def test_p_equals_the_rank_among_all_label_orders():
    """Of seven subjects there are 5,040, and as many studentised covariances."""
    effect, label = simulate_effects(np.random.default_rng(1), subjects=7, regions=4, planted=3.0)
    plain_effects = make_plain_effects(effect, label)
    family_wise, alone = p_over_all_orders(label, plain_effects.effect_residuals)
    p, q, *_ = run_family_permutation_test(plain_effects, seed=0)
    assert p == pytest.approx(family_wise, abs=0.02)
    assert q == pytest.approx(stats.false_discovery_control(alone), abs=0.03)


def test_p_agrees_with_a_permutation_test_by_scipy():
    """Welch's t, which rises with the studentised covariance about as that does."""
    effect, label = simulate_effects(np.random.default_rng(2), regions=1, planted=0.5)
    on_autism = np.where(label == 1, 1, -1) * effect[:, 0]
    independent = stats.permutation_test(
        (on_autism[label == 1], on_autism[label == 0]),
        lambda *samples, axis: stats.ttest_ind(*samples, equal_var=False, axis=axis).statistic,
        vectorized=True, alternative="greater", n_resamples=5000, rng=np.random.default_rng(3),
    ).pvalue  # fmt: skip
    assert run_family_permutation_test(make_plain_effects(effect, label), seed=0)[0][0] == pytest.approx(
        independent, abs=0.02
    )


@pytest.mark.slow
def test_a_class_whose_effects_vary_more_is_no_evidence():
    """Of one in five subjects, whose effects have four times the variance, a plain permutation names too many."""
    random, label = np.random.default_rng(0), np.arange(100) % 5 // 4 * 1.0
    more = np.where(label == 1, 2, 1)[:, None]
    flagged_count = 0
    for seed in range(200):
        effect = np.where(label == 1, 1, -1)[:, None] * more * random.normal(size=(100, 10))
        flagged_count += (
            run_family_permutation_test(make_plain_effects(effect, label), seed, permutation_count=499)[0].min() < 0.05
        )
    assert stats.binomtest(int(flagged_count), 200, 0.05).pvalue > 0.01


def test_a_region_never_mattering_or_speaking_against_is_no_evidence():
    effect = np.column_stack([np.zeros(20), np.full(20, -1.0), np.random.default_rng(0).normal(size=20)])
    p = run_family_permutation_test(make_plain_effects(effect, np.arange(20) % 2), seed=0).family_wise_p
    assert p[:2].tolist() == [1.0, 1.0]


def test_a_single_class_has_no_p_and_a_single_subject_no_interval_but_a_mean():
    effect = np.array([[1.0, 2.0]])
    test = run_family_permutation_test(make_plain_effects(np.ones((4, 2)), np.ones(4)), seed=0)
    assert np.isnan([*test.family_wise_p, *test.false_discovery_q]).all()
    mean, low, high = bootstrap_mean_interval(effect, seed=0)
    assert mean.tolist() == [1.0, 2.0] and np.isnan([low, high]).all()


def test_intervals_against_scipy():
    effect, _ = simulate_effects(np.random.default_rng(2))
    mean, low, high = bootstrap_mean_interval(effect, seed=0)
    independent = stats.bootstrap(
        (effect[:, 4],), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert mean[4] == pytest.approx(effect[:, 4].mean())
    assert (low[4], high[4]) == pytest.approx((independent.low, independent.high), abs=0.06)


def test_widened_effects_have_the_same_mean_a_wider_interval_and_a_smaller_t():
    effect, _ = simulate_effects(np.random.default_rng(3), planted=1.0)
    wide = inflate_spread(effect, 2)
    t = [stats.ttest_1samp(effect_values, 0).statistic for effect_values in (effect, wide)]
    np.testing.assert_allclose(t[1], t[0] / 2)
    (mean, low, high), (same, lower, higher) = (
        bootstrap_mean_interval(effect_values, 0) for effect_values in (effect, wide)
    )
    np.testing.assert_allclose(same, mean)
    np.testing.assert_allclose([lower - mean, higher - mean], [2 * (low - mean), 2 * (high - mean)])


def test_a_family_is_permuted_and_drawn_together():
    """Everybody twice, as pairs, gives what everybody once gives; of whom each counts, p is too low."""
    effect, label = simulate_effects(np.random.default_rng(4), subjects=30, planted=1.0)
    once, twice = make_plain_effects(effect, label), make_plain_effects(np.tile(effect, (2, 1)), np.tile(label, 2))
    pairs = np.tile(np.arange(30), 2)
    once_result: Any
    twice_result: Any
    for once_result, twice_result in zip(
        run_family_permutation_test(once, 0), run_family_permutation_test(twice, 0, pairs), strict=True
    ):
        np.testing.assert_allclose(once_result, twice_result, rtol=1e-4)  # sums of float32
    for once_result, twice_result in zip(
        bootstrap_mean_interval(effect, 0), bootstrap_mean_interval(twice.true_class_effects, 0, pairs), strict=True
    ):
        np.testing.assert_allclose(once_result, twice_result)
    assert run_family_permutation_test(twice, 0)[0][0] < run_family_permutation_test(once, 0)[0][0]


def test_p_with_mixed_families_equals_the_rank_among_all_family_orders():
    effect, label = simulate_effects(np.random.default_rng(5), subjects=9, regions=3, planted=1.0)
    family = np.array([0, 0, 0, 1, 1, 2, 3, 4, 4])
    plain_effects = make_plain_effects(effect, label)
    family_wise, _ = p_over_all_orders(label, plain_effects.effect_residuals, family)
    assert run_family_permutation_test(plain_effects, 0, family)[0] == pytest.approx(family_wise, abs=0.03)


def test_a_subjects_records_count_once():
    values = np.array([[1.0], [3.0], [5.0]])
    assert average_by_subject(values, ["b", "b", "a"]).tolist() == [[5.0], [2.0]]


def simulate_labelled_covariates(count=200, seed=0):
    """Covariates of people, and labels that go with the square of age."""
    random = np.random.default_rng(seed)
    covariate_table = pd.DataFrame({"site": random.choice(list("ab"), count), "age": random.normal(size=count)})
    label = (covariate_table["age"] ** 2 + random.logistic(size=count) / 2 > 1).to_numpy(float)
    return covariate_table, label, random


def adjust(covariate_table: pd.DataFrame, label: np.ndarray) -> CovariateAdjuster:
    return CovariateAdjuster(make_adjustment(covariate_table), label)


def test_an_effect_is_the_product_with_the_diagnosis_after_covariates():
    """By the residuals of statsmodels: their covariance with n - k degrees of freedom, spread as HC2 does."""
    covariate_table, label, random = simulate_labelled_covariates()
    effect, adjuster = random.normal(size=(200, 3)), adjust(covariate_table, label)
    on_autism = effect * (2 * label[:, None] - 1)
    for region in range(3):
        followed = adjuster.adjustment.select_term_indices(label) | adjuster.adjustment.select_term_indices(
            on_autism[:, region]
        )
        assert followed  # the square of age, or kinks in place of it
        site = (covariate_table["site"] == "b").to_numpy(float)
        columns = sm.add_constant(
            np.column_stack([site, covariate_table["age"], adjuster.adjustment.term_columns[:, sorted(followed)]])
        )
        label_fit, effect_fit = (sm.OLS(values, columns).fit() for values in (label, on_autism[:, region]))
        net, products = adjuster(effect).true_class_effects[:, region], label_fit.resid * effect_fit.resid
        assert net.mean() == pytest.approx(2 * products.sum() / effect_fit.df_resid)
        weighted_products = products / np.sqrt(1 - effect_fit.get_influence().hat_matrix_diag)
        assert net - net.mean() == pytest.approx(
            2 * 200 / effect_fit.df_resid * (weighted_products - weighted_products.mean())
        )
    assert adjuster(effect[:, :1]).true_class_effects == pytest.approx(adjuster(effect).true_class_effects[:, :1])


@pytest.mark.parametrize("carried", ["square", "sex by age", "age by site"])
def test_a_region_carrying_covariates_alone_is_flagged_before_and_a_true_region_before_and_after(carried):
    """A sum over covariates flagged the products of them."""
    covariate_table, _, random = simulate_labelled_covariates(300, seed=1)
    covariate_table = covariate_table.assign(sex=random.choice([-1.0, 1.0], 300))
    age = covariate_table["age"].to_numpy()
    values = {
        "square": (age**2 - 1) / np.sqrt(2),
        "sex by age": covariate_table["sex"].to_numpy() * age,
        "age by site": np.where(covariate_table["site"] == "a", 1, -1) * age,
    }[carried]
    label = (1.5 * values + random.logistic(size=300) > 0).astype(float)
    truth = 1.5 * (label - label.mean())
    effect = (2 * label[:, None] - 1) * (random.normal(size=(300, 3)) + np.column_stack([values, truth, np.zeros(300)]))
    adjuster = adjust(covariate_table, label)
    plain_flags, adjusted_flags = (
        run_family_permutation_test(tested_effects, 0)[0] < 0.05
        for tested_effects in (adjuster.make_unadjusted_effects(effect), adjuster(effect))
    )
    assert plain_flags.tolist() == [True, True, False] and adjusted_flags.tolist() == [False, True, False]
    assert adjuster.adjustment.covariates == ("site", "age", "sex") and not adjuster.adjustment.unusable_covariates


def test_uninformative_covariates_leave_an_effect_unchanged():
    random = np.random.default_rng(1)
    covariate_table, label = pd.DataFrame({"age": random.normal(size=400)}), np.arange(400) % 2.0
    effect = random.normal(1, 1, (400, 2))
    assert adjust(covariate_table, label)(effect).true_class_effects.mean(0) == pytest.approx(effect.mean(0), abs=0.15)


def test_where_nothing_is_adjusted_effects_stay_as_they_are():
    adjuster = CovariateAdjuster(make_adjustment(pd.DataFrame(index=range(40))), np.arange(40) % 2.0)
    assert adjuster.adjustment.no_adjustment_reason and (adjuster(np.eye(40)).true_class_effects == np.eye(40)).all()


def test_missing_values_are_not_adjusted_for_missingness():
    """A covariate with unknown values has a mark of its own, which tells what the group of marks tells."""
    random, metadata = np.random.default_rng(0), Metadata(phenotype=phenotype_table.list_abide_value_names())
    unknown = random.random(240) < 0.5
    iq = np.where(unknown, np.nan, random.normal(100, 15, 240))
    covariate_table = pd.DataFrame({"fiq": iq, "age": random.normal(size=240)})
    covariate_table["log func_mean_fd"] = np.where(np.arange(240), random.normal(size=240), np.nan)
    label = (random.random(240) < np.where(unknown, 0.7, 0.3)).astype(float)
    effect = np.where(label == 1, 1, -1) * (unknown - 0.5) + random.normal(0, 0.5, 240)
    rest = values.drop_group_covariates(covariate_table, metadata, values.MARKS_GROUP)
    assert list(rest) == ["age", "log func_mean_fd"]
    t = []
    for table in (covariate_table, rest):
        net = CovariateAdjuster(make_adjustment(table), label)(effect[:, None]).true_class_effects[:, 0]
        t.append(net.mean() / net.std() * np.sqrt(240))
    assert abs(t[0]) < 2 and t[1] > 4


def test_donor_sampling_noise_is_removed():
    """Of a network that is linear in two maps' means the mean over five donors becomes that over all people; of another
    one the mean over records stays what it is on average, and is steadier."""
    random, weight = np.random.default_rng(0), np.array([2.0, -1.0])
    deviation = random.normal(size=(300, 6, 1, 2))
    linear = (deviation[:, :1] - deviation[:, 1:]) @ weight
    everybody = deviation[:, 0] @ weight
    assert compute_control_variate_mean(linear, deviation) == pytest.approx(everybody, abs=0.02)
    assert np.abs(linear.mean(1) - everybody).max() > 1
    bent = np.exp(deviation @ weight / 4)
    bent = bent[:, :1] - bent[:, 1:]
    assert compute_control_variate_mean(bent, deviation).mean() == pytest.approx(bent.mean(), abs=0.05)
    assert compute_control_variate_mean(bent, deviation).std() < 0.95 * bent.mean(1).std()


def test_a_single_pair_does_not_mislead():
    deviation = np.array([[[[1.0]], [[0.999]]]])
    assert abs(compute_control_variate_mean(np.array([[[5.0]]]), deviation)[0, 0]) < 6
