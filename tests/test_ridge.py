import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from utils import ridge

PEOPLE, STRENGTH = 60, 1.8
SITE = np.zeros(PEOPLE)


def people(features, seed, signal=STRENGTH):
    """Features of which the first five differ between labels, (people, features), and labels."""
    generator, label = np.random.default_rng(seed), np.arange(PEOPLE) % 2
    values = generator.normal(size=(PEOPLE, features))
    values[:, :5] += signal * label[:, None]
    return values, label.astype(float)


@pytest.mark.parametrize("features", [20, 400])
def test_weights_are_those_of_scikit_learn(features):
    values, label = people(features, 0)
    weights, bias = ridge.ridges(values, 2 * label - 1)
    for at, penalty in enumerate(ridge.PENALTIES):
        expected = Ridge(alpha=penalty).fit(values, 2 * label - 1)
        np.testing.assert_allclose(weights[:, at], expected.coef_, atol=1e-9)
        np.testing.assert_allclose(bias[at], expected.intercept_, atol=1e-9)


@pytest.mark.parametrize("features", [20, 400])
def test_the_penalty_has_the_least_error_in_the_inner_folds_and_the_log_odds_are_calibrated_there(features):
    values, label = people(features, 0)
    folds, site = ridge.inner_folds(label, np.arange(PEOPLE)), np.arange(PEOPLE) % 7 % 3
    apart = 2 * label - 1
    for one in range(3):
        apart[site == one] -= apart[site == one].mean()
    out_of_fold = np.empty((len(ridge.PENALTIES), PEOPLE))
    for at, penalty in enumerate(ridge.PENALTIES):
        for fitting, out in folds:
            out_of_fold[at, out] = Ridge(alpha=penalty).fit(values[fitting], apart[fitting]).predict(values[out])
    best = np.square(out_of_fold - apart).sum(1).argmin()
    decision = Ridge(alpha=ridge.PENALTIES[best]).fit(values, apart).predict(values)
    target = np.where(label == 1, 31 / 32, 1 / 32)  # Platt's, of 30 people a class

    def cross_entropy(line):
        log_odds = line[0] * out_of_fold[best] + line[1]
        return (np.logaddexp(0, log_odds) - target * log_odds).sum()

    platt = minimize(cross_entropy, [1, 0], method="Nelder-Mead", options={"maxiter": 10_000, "xatol": 1e-7}).x
    found = ridge.fit(values, label, site, folds).log_odds(values)
    assert np.corrcoef(found, decision)[0, 1] > 1 - 1e-9
    np.testing.assert_allclose(np.polyfit(decision, found, 1), platt, rtol=1e-3, atol=1e-3)


def test_a_fit_finds_a_difference_in_new_people_and_none_where_there_is_none():
    values, label = people(400, 0)
    new, truth = people(400, 1)
    folds = ridge.inner_folds(label, np.arange(PEOPLE))
    assert roc_auc_score(truth, ridge.fit(values, label, SITE, folds).log_odds(new)) > 0.75
    noise, _ = people(400, 2, signal=0)
    assert np.abs(ridge.fit(noise, label, SITE, folds).log_odds(new)).mean() < 1


def test_people_who_share_a_scan_are_in_one_inner_fold():
    label, group = np.tile([0.0, 1.0], 20), np.repeat(np.arange(10), 4)
    for fitting, out in ridge.inner_folds(label, group):
        assert not set(group[fitting]) & set(group[out])


def test_too_few_people_give_how_common_autism_is():
    label = np.array([1.0, 1, 1, 0])
    assert ridge.inner_folds(label, np.arange(4)) == []
    np.testing.assert_allclose(ridge.fit(np.eye(4), label, label, []).log_odds(np.eye(4)), np.log(3))


def test_of_many_records_some_are_drawn_whatever_the_order_of_calls(monkeypatch):
    monkeypatch.setattr(ridge, "MAX_RECORDS", 5)
    drawn = ridge.some(np.arange(100, 200))
    assert len(set(drawn)) == 5
    assert drawn.tolist() == sorted(drawn) == ridge.some(np.arange(100, 200)).tolist()


def test_labels_are_told_from_the_mean_of_their_site_unless_no_site_has_both():
    label = np.array([1.0, 1, 0, 0])
    np.testing.assert_allclose(ridge.within_sites(label, np.array(list("aaab"))), [2 / 3, 2 / 3, -4 / 3, 0])
    assert ridge.within_sites(label, np.array(list("abcd"))).tolist() == [1, 1, -1, -1]
