import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import add_connectomes
from scipy.optimize import minimize
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from utils.scores import ridge

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


def test_each_inner_fold_has_both_classes_or_there_is_none():
    label = np.array([0, 0, 0, 1, 1, 1, 1])
    assert len(ridge.inner_folds(label, np.arange(7))) == 3
    assert ridge.inner_folds(label, np.array([0, 0, 0, 1, 2, 3, 4])) == []  # one subject is all of a class
    assert ridge.inner_folds(label, np.array([0, 1, 2, 0, 1, 1, 1])) != []
    assert ridge.inner_folds(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])) == []


def test_labels_are_told_from_the_mean_of_their_site_unless_no_site_has_both():
    label = np.array([1.0, 1, 0, 0])
    np.testing.assert_allclose(ridge.within_sites(label, np.array(list("aaab"))), [2 / 3, 2 / 3, -4 / 3, 0])
    assert ridge.within_sites(label, np.array(list("abcd"))).tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize("block_bytes", [2**27, 8 * 28 * 7], ids=["whole", "blocks"])
def test_a_fit_on_edges_is_that_on_their_z_scores(block_bytes, cohort, monkeypatch, tmp_path):
    """Also if edges are unknown, one is constant, and new people lack others."""
    monkeypatch.setattr(ridge, "BLOCK_BYTES", block_bytes)
    folder = shutil.copytree(cohort, tmp_path / "cohort")
    made = add_connectomes(folder)
    train, test = made.indices("train"), made.indices("test")
    edges, label = made.connectomes[np.arange(len(made.rows))].astype(float), np.array([row.label for row in made.rows])
    scaler = StandardScaler().fit(edges[train])
    scores = np.nan_to_num((edges - scaler.mean_) / np.nanstd(np.where(np.isnan(edges), scaler.mean_, edges)[train], 0))
    scores *= np.sqrt(ridge.WEIGHT / 28)
    folds = ridge.inner_folds(label[train], np.array([made.rows[at].subject for at in train]))
    expected = ridge.fit(scores[train], label[train], np.array([made.rows[at].site for at in train]), folds)
    found = ridge.fit_edges(made, made.connectomes, train)
    np.testing.assert_allclose(found.log_odds(made.connectomes, test), expected.log_odds(scores[test]), atol=1e-7)


def test_a_constant_edge_and_an_unknown_one_count_nothing():
    edges = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    edges[:, 1], edges[:, 2] = 0.25, np.nan
    fake = SimpleNamespace(num_edges=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ridge, "blocks", lambda *_: [(np.arange(9), edges.astype(float))])
        scale = ridge.edge_scale(fake, np.arange(9))
    assert scale.scale[1:].tolist() == [0, 0] and scale.scale[0] > 0
    assert not scale.of(np.full((2, 3), 7.0))[:, 1:].any()
