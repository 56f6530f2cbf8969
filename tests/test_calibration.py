"""Calibration: constants against scikit-learn, SciPy and statsmodels, sets against counts by hand."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss
from statsmodels.api import GLM, add_constant, families

from utils.scores import calibration

SITES = np.repeat(np.arange(8), 40)


def people(separation=1.0, seed=0, site=SITES):
    """Labels, and probabilities that say the truth: log odds of two normal distributions that far apart (n,)."""
    random = np.random.default_rng(seed)
    label = (random.random(len(site)) < 0.5).astype(float)
    value = random.normal(size=len(site)) + separation * label
    return label, expit(separation * (value - separation / 2))


def agreement(label, probability, least=0.0) -> list[float]:
    """Slope, intercept and Brier score."""
    found = calibration.compute_agreements(label, probability, np.ones((1, len(label))), least)
    return [float(value[0]) for value in found.values()]


def test_a_known_distortion_is_found_and_undone():
    site = np.repeat(np.arange(10), 400)
    label, true = people(1.5, site=site)
    raw = expit((logit(true) - 0.7) / 0.4)
    found = calibration.fit_calibration(label, raw)
    assert (found.slope, found.intercept) == pytest.approx((0.4, 0.7), abs=0.1)
    np.testing.assert_allclose(found.calibrate(raw), true, atol=0.06)
    before, after = agreement(label, raw), agreement(label, calibration.calibrate_left_out_groups(label, raw, site)[0])
    assert before[0] == pytest.approx(found.slope, rel=0.01) and abs(before[1]) > 0.3
    assert after[:2] == pytest.approx((1, 0), abs=0.02) and after[2] < before[2]


def test_agreement_is_that_of_statsmodels_and_scikit_learn():
    label, raw = people(seed=1)
    weight = np.random.default_rng(2).integers(0, 4, (3, len(label))).astype(float)
    found = calibration.compute_agreements(label, raw, weight)
    for at, own in enumerate(weight):
        options = {"family": families.Binomial(), "freq_weights": own}
        slope = GLM(label, add_constant(logit(raw)), **options).fit().params[1]
        intercept = GLM(label, np.ones(len(label)), offset=logit(raw), **options).fit().params[0]
        expected = (slope, intercept, brier_score_loss(label, raw, sample_weight=own))
        assert [values[at] for values in found.values()] == pytest.approx(expected, abs=1e-6)


def test_nothing_to_find_gives_the_share_of_autism():
    label, _ = people(seed=3)
    raw = np.random.default_rng(4).random(len(label))
    raw = np.where(label == 1, raw**1.2, raw)  # the wrong way
    found, (left_out, *_) = (
        calibration.fit_calibration(label, raw),
        calibration.calibrate_left_out_groups(label, raw, SITES),
    )
    after = agreement(label, left_out, calibration.MIN_CALIBRATED_SD)
    assert found.slope == 0 and agreement(label, raw)[0] < 0 and np.isnan(after[0])
    np.testing.assert_allclose(found.calibrate(raw), label.mean())
    np.testing.assert_allclose(found.calibrate(raw, 0.02), 0.02)
    assert after[2] == pytest.approx(0.25, abs=0.01)


def test_probabilities_that_are_all_the_same_or_certain_are_no_trouble():
    label, _ = people()
    same = np.full(len(label), 0.9)
    assert calibration.fit_calibration(label, same).slope == 0 and np.isnan(agreement(label, same)[0])
    certain = calibration.fit_calibration(label, label)
    assert agreement(label, label)[0] == np.inf and np.isfinite(certain.calibrate(np.array([0.0, 1.0]))).all()
    assert (certain.find_label_sets(label, 0.8).sum(1) == 1).all()
    assert np.isnan(agreement(np.ones(len(label)), same)[:2]).all()


def test_odds_move_with_the_share_of_autism():
    label, raw = people()
    found = calibration.fit_calibration(label, raw)
    here, there = found.calibrate(raw), found.calibrate(raw, 0.1)
    bayes = here * 0.1 / found.prevalence
    np.testing.assert_allclose(there, bayes / (bayes + (1 - here) * 0.9 / (1 - found.prevalence)))
    np.testing.assert_allclose(found.calibrate(raw, found.prevalence), here)


def test_thresholds_are_counted_by_hand_and_lie_below_a_persons_own_value():
    own = np.arange(1, 101) / 101.0
    assert (
        calibration.find_set_threshold(own, 0.8) == 0.198
    )  # of 101 people a fifth are below the 20th, which is 20 / 101
    assert calibration.find_set_threshold(own[:9], 0.9) == 0.0099 and calibration.find_set_threshold(own[:8], 0.9) == 0
    found = calibration.Calibration(1.0, 0.0, 0.5, (calibration.LabelSetThresholds(0.8, 0.3, 0.45),))
    sets = found.find_label_sets(np.array([0.1, 0.5, 0.45, 0.7, 0.71]), 0.8)
    assert sets.tolist() == [[True, False], [True, True], [True, True], [True, True], [False, True]]


@pytest.mark.slow
@pytest.mark.parametrize("distorted", [False, True])
def test_sets_hold_the_label_as_often_as_they_say(distorted):
    held = []
    for seed in range(20):
        label, raw = people(seed=seed)
        new, its_raw = people(seed=1000 + seed)
        if distorted:
            raw, its_raw = (expit(4 * logit(of) - 3) for of in (raw, its_raw))
        found = calibration.fit_calibration(label, raw)
        for level in calibration.COVERAGE_LEVELS:
            own = found.find_label_sets(its_raw, level)[np.arange(len(new)), new.astype(int)]
            held.append([own[new == value].mean() for value in (0, 1)])
    means = np.reshape(held, (20, 2, 2)).mean(0)
    np.testing.assert_allclose(means, [[0.8, 0.8], [0.9, 0.9]], atol=0.03)


def test_each_group_is_calibrated_by_all_others():
    label, raw = people(seed=5)
    site = np.where(SITES == 7, 6, SITES)
    label[site == 3] = 1  # a site of one class
    probability, prevalence, sets = calibration.calibrate_left_out_groups(label, raw, site)
    for name in np.unique(site):
        own = site == name
        others = calibration.fit_calibration(label[~own], raw[~own])
        np.testing.assert_array_equal(probability[own], others.calibrate(raw[own]))
        np.testing.assert_array_equal(sets[1, own], others.find_label_sets(raw[own], 0.9))
        assert set(prevalence[own]) == {label[~own].mean()}


def known_sites(seed, shares=(0.2, 0.8, 0.5, 0.5), size=60):
    """Labels, sites, ten folds, and probabilities of models that know how common autism is at each site."""
    random = np.random.default_rng(seed)
    site, fold = np.repeat(np.arange(len(shares)), size), np.arange(len(shares) * size) % 10
    label = (random.random(len(site)) < np.array(shares)[site]).astype(float)
    odds = random.normal(size=len(site)) + 1.2 * label - 0.6 + logit(np.array(shares))[site]
    return label, site, fold, expit(odds)


@pytest.mark.slow
def test_at_a_known_site_sets_hold_the_rarer_class_as_often_as_the_other():
    held = []
    for seed in range(30):
        label, site, fold, raw = known_sites(seed)
        for where in (None, site):
            sets = calibration.calibrate_left_out_groups(label, raw, fold, where)[2][0]
            right = sets[np.arange(len(label)), label.astype(int)]
            held.append([[right[(site == name) & (label == value)].mean() for value in (0, 1)] for name in (0, 1)])
    before, after = np.reshape(held, (30, 2, 2, 2)).mean(0)
    assert before[0, 1] < 0.6 and before[1, 0] < 0.6  # the rarer class of each
    np.testing.assert_allclose(after, 0.8, atol=0.05)


def test_sets_at_known_sites_are_those_of_a_loop_over_people():
    """Each person is compared with the middle of both classes at the site, by other folds than the person's own, and
    than the one that is calibrated."""
    label, site, fold, raw = known_sites(3)
    label[site == 3] = 1  # a site of one class
    odds, (_, _, sets) = logit(raw), calibration.calibrate_left_out_groups(label, raw, fold, site)

    def middle(of: int, rows: np.ndarray) -> float:
        here = [rows & (site == site[of]) & (label == value) for value in (0, 1)]
        classes = here if all(rows.any() for rows in here) else [rows & (label == value) for value in (0, 1)]
        return np.mean([odds[rows].mean() for rows in classes])

    for name in (0, 7):
        rest = fold != name
        moved = expit([odds[of] - middle(of, rest & (fold != fold[of])) for of in range(len(label))])
        others = calibration.fit_calibration(label[rest], moved[rest])
        np.testing.assert_array_equal(sets[0, ~rest], others.find_label_sets(moved[~rest], 0.8))


def test_two_folds_at_known_sites_have_sets():
    """Beside the one that is calibrated and a person's own there is none."""
    label, site, _, raw = known_sites(4)
    sets = calibration.calibrate_left_out_groups(label, raw, np.arange(len(label)) % 2, site)[2][0]
    assert 0.7 < sets[np.arange(len(label)), label.astype(int)].mean() < 0.9
