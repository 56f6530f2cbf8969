"""Calibration: constants against scikit-learn, SciPy and statsmodels, sets against counts by hand."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss
from statsmodels.api import GLM, add_constant, families

from utils.scores import calibration

SITES = np.repeat(np.arange(8), 40)


def simulate_labels(separation=1.0, seed=0, site=SITES):
    """Labels, and probabilities that say the truth: log odds of two normal distributions that far apart (n,)."""
    random = np.random.default_rng(seed)
    label = (random.random(len(site)) < 0.5).astype(float)
    value = random.normal(size=len(site)) + separation * label
    return label, expit(separation * (value - separation / 2))


def measure_agreement(label, probability, least=0.0) -> list[float]:
    """Slope, intercept and Brier score."""
    values_by_measure = calibration.compute_calibration_measures(label, probability, np.ones((1, len(label))), least)
    return [float(value[0]) for value in values_by_measure.values()]


def test_a_simulated_distortion_is_estimated_and_undone():
    site = np.repeat(np.arange(10), 400)
    label, true_probability = simulate_labels(1.5, site=site)
    raw = expit((logit(true_probability) - 0.7) / 0.4)
    fitted_calibration = calibration.fit_calibration(label, raw)
    assert (fitted_calibration.slope, fitted_calibration.intercept) == pytest.approx((0.4, 0.7), abs=0.1)
    np.testing.assert_allclose(fitted_calibration.calibrate(raw), true_probability, atol=0.06)
    before, after = (
        measure_agreement(label, raw),
        measure_agreement(label, calibration.calibrate_left_out_groups(label, raw, site)[0]),
    )
    assert before[0] == pytest.approx(fitted_calibration.slope, rel=0.01) and abs(before[1]) > 0.3
    assert after[:2] == pytest.approx((1, 0), abs=0.02) and after[2] < before[2]


def test_agreement_equals_statsmodels_and_scikit_learn():
    label, raw = simulate_labels(seed=1)
    weight = np.random.default_rng(2).integers(0, 4, (3, len(label))).astype(float)
    values_by_measure = calibration.compute_calibration_measures(label, raw, weight)
    for draw_index, draw_weights in enumerate(weight):
        options = {"family": families.Binomial(), "freq_weights": draw_weights}
        slope = GLM(label, add_constant(logit(raw)), **options).fit().params[1]
        intercept = GLM(label, np.ones(len(label)), offset=logit(raw), **options).fit().params[0]
        expected = (slope, intercept, brier_score_loss(label, raw, sample_weight=draw_weights))
        assert [values[draw_index] for values in values_by_measure.values()] == pytest.approx(expected, abs=1e-6)


def test_nothing_to_find_gives_the_autism_rate():
    label, _ = simulate_labels(seed=3)
    raw = np.random.default_rng(4).random(len(label))
    raw = np.where(label == 1, raw**1.2, raw)  # the wrong way
    fitted_calibration, (left_out, *_) = (
        calibration.fit_calibration(label, raw),
        calibration.calibrate_left_out_groups(label, raw, SITES),
    )
    after = measure_agreement(label, left_out, calibration.MIN_CALIBRATED_SD)
    assert fitted_calibration.slope == 0 and measure_agreement(label, raw)[0] < 0 and np.isnan(after[0])
    np.testing.assert_allclose(fitted_calibration.calibrate(raw), label.mean())
    np.testing.assert_allclose(fitted_calibration.calibrate(raw, 0.02), 0.02)
    assert after[2] == pytest.approx(0.25, abs=0.01)


def test_equal_or_certain_probabilities_are_no_trouble():
    label, _ = simulate_labels()
    constant_probability = np.full(len(label), 0.9)
    assert calibration.fit_calibration(label, constant_probability).slope == 0 and np.isnan(
        measure_agreement(label, constant_probability)[0]
    )
    certain_calibration = calibration.fit_calibration(label, label)
    assert (
        measure_agreement(label, label)[0] == np.inf
        and np.isfinite(certain_calibration.calibrate(np.array([0.0, 1.0]))).all()
    )
    assert (certain_calibration.find_label_sets(label, 0.8).sum(1) == 1).all()
    assert np.isnan(measure_agreement(np.ones(len(label)), constant_probability)[:2]).all()


def test_odds_move_with_the_autism_rate():
    label, raw = simulate_labels()
    fitted_calibration = calibration.fit_calibration(label, raw)
    fitted_probability, tenth_probability = fitted_calibration.calibrate(raw), fitted_calibration.calibrate(raw, 0.1)
    bayes = fitted_probability * 0.1 / fitted_calibration.prevalence
    np.testing.assert_allclose(
        tenth_probability, bayes / (bayes + (1 - fitted_probability) * 0.9 / (1 - fitted_calibration.prevalence))
    )
    np.testing.assert_allclose(fitted_calibration.calibrate(raw, fitted_calibration.prevalence), fitted_probability)


def test_thresholds_are_counted_by_hand_and_lie_below_a_persons_value():
    scores = np.arange(1, 101) / 101.0
    assert (
        calibration.find_set_threshold(scores, 0.8) == 0.198
    )  # of 101 people a fifth are below the 20th, which is 20 / 101
    assert (
        calibration.find_set_threshold(scores[:9], 0.9) == 0.0099
        and calibration.find_set_threshold(scores[:8], 0.9) == 0
    )
    calibration_by_hand = calibration.Calibration(1.0, 0.0, 0.5, (calibration.LabelSetThresholds(0.8, 0.3, 0.45),))
    sets = calibration_by_hand.find_label_sets(np.array([0.1, 0.5, 0.45, 0.7, 0.71]), 0.8)
    assert sets.tolist() == [[True, False], [True, True], [True, True], [True, True], [False, True]]


@pytest.mark.slow
@pytest.mark.parametrize("distorted", [False, True])
def test_sets_hold_the_label_as_often_as_they_say(distorted):
    coverages = []
    for seed in range(20):
        label, raw = simulate_labels(seed=seed)
        new_label, new_raw = simulate_labels(seed=1000 + seed)
        if distorted:
            raw, new_raw = (expit(4 * logit(probability) - 3) for probability in (raw, new_raw))
        fitted_calibration = calibration.fit_calibration(label, raw)
        for level in calibration.COVERAGE_LEVELS:
            is_covered = fitted_calibration.find_label_sets(new_raw, level)[
                np.arange(len(new_label)), new_label.astype(int)
            ]
            coverages.append([is_covered[new_label == value].mean() for value in (0, 1)])
    means = np.reshape(coverages, (20, 2, 2)).mean(0)
    np.testing.assert_allclose(means, [[0.8, 0.8], [0.9, 0.9]], atol=0.03)


def test_a_group_is_calibrated_by_the_remaining_groups():
    label, raw = simulate_labels(seed=5)
    site = np.where(SITES == 7, 6, SITES)
    label[site == 3] = 1  # a site of one class
    probability, prevalence, sets = calibration.calibrate_left_out_groups(label, raw, site)
    for site_number in np.unique(site):
        in_site = site == site_number
        remaining_fit = calibration.fit_calibration(label[~in_site], raw[~in_site])
        np.testing.assert_array_equal(probability[in_site], remaining_fit.calibrate(raw[in_site]))
        np.testing.assert_array_equal(sets[1, in_site], remaining_fit.find_label_sets(raw[in_site], 0.9))
        assert set(prevalence[in_site]) == {label[~in_site].mean()}


def simulate_sites(seed, autism_rates=(0.2, 0.8, 0.5, 0.5), size=60):
    """Labels, sites, ten folds, and probabilities of models that know how common autism is at each site."""
    random = np.random.default_rng(seed)
    site, fold = np.repeat(np.arange(len(autism_rates)), size), np.arange(len(autism_rates) * size) % 10
    label = (random.random(len(site)) < np.array(autism_rates)[site]).astype(float)
    odds = random.normal(size=len(site)) + 1.2 * label - 0.6 + logit(np.array(autism_rates))[site]
    return label, site, fold, expit(odds)


@pytest.mark.slow
def test_with_sites_both_classes_are_covered_equally_often():
    coverages = []
    for seed in range(30):
        label, site, fold, raw = simulate_sites(seed)
        for where in (None, site):
            sets = calibration.calibrate_left_out_groups(label, raw, fold, where)[2][0]
            right = sets[np.arange(len(label)), label.astype(int)]
            coverages.append([[right[(site == name) & (label == value)].mean() for value in (0, 1)] for name in (0, 1)])
    before, after = np.reshape(coverages, (30, 2, 2, 2)).mean(0)
    assert before[0, 1] < 0.6 and before[1, 0] < 0.6  # the rarer class of each
    np.testing.assert_allclose(after, 0.8, atol=0.05)


def test_sets_with_sites_equal_a_loop_over_people():
    """Each person is compared with the middle of both classes at the site, by other folds than the person's own, and
    than the one that is calibrated."""
    label, site, fold, raw = simulate_sites(3)
    label[site == 3] = 1  # a site of one class
    odds, (_, _, sets) = logit(raw), calibration.calibrate_left_out_groups(label, raw, fold, site)

    def compute_middle(person_index: int, rows: np.ndarray) -> float:
        masks_in_site = [rows & (site == site[person_index]) & (label == value) for value in (0, 1)]
        classes = (
            masks_in_site
            if all(rows.any() for rows in masks_in_site)
            else [rows & (label == value) for value in (0, 1)]
        )
        return np.mean([odds[rows].mean() for rows in classes])

    for left_fold in (0, 7):
        rest = fold != left_fold
        moved = expit(
            [
                odds[person_index] - compute_middle(person_index, rest & (fold != fold[person_index]))
                for person_index in range(len(label))
            ]
        )
        remaining_fit = calibration.fit_calibration(label[rest], moved[rest])
        np.testing.assert_array_equal(sets[0, ~rest], remaining_fit.find_label_sets(moved[~rest], 0.8))


def test_two_folds_with_sites_have_sets():
    """Beside the one that is calibrated and a person's own there is none."""
    label, site, _, raw = simulate_sites(4)
    sets = calibration.calibrate_left_out_groups(label, raw, np.arange(len(label)) % 2, site)[2][0]
    assert 0.7 < sets[np.arange(len(label)), label.astype(int)].mean() < 0.9
