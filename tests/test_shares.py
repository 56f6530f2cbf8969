"""What parts of a classifier count: against another optimiser, and trainings on labels that some members never saw."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from data.cohorts.rows import Row
from models.averaging import PartOfMean
from utils.scores import ridge
from utils.training import shares
from utils.training.loop import told

SITES = np.array(["A", "B", "C"])


@pytest.fixture(scope="module")
def people():
    """Log odds of three parts: one that tells the label, one that tells it as well but on another scale, and noise; and
    labels, unlike common at three sites."""
    random = np.random.default_rng(0)
    site = SITES[np.arange(600) % 3]
    label = (random.random(600) < np.array([0.3, 0.5, 0.7])[np.arange(600) % 3]).astype(int)
    noise = random.normal(size=(600, 3))
    odds = np.stack([label + noise[:, 0], 10 * (label + noise[:, 1]), 0.1 * noise[:, 2]], 1)
    return odds, label, site


def test_weights_are_those_of_the_penalised_regression_within_sites(people):
    """By a general optimiser, of the function as the docs give it."""
    odds, label, site = people
    before = np.array([0.25, 0.25, 0.5])
    found, _, parts = shares.weights_of(odds, label, site, before)
    scores, target = (odds - odds.mean(0)) / odds.std(0), 2.0 * label - 1
    for of_site in SITES:
        scores[site == of_site] -= scores[site == of_site].mean(0)
        target[site == of_site] -= target[site == of_site].mean()
    plain = scores @ before
    held = before * (plain @ target) / (plain @ plain)

    def loss(weights):
        return np.square(target - scores @ weights).mean() + shares.PENALTY * np.square(weights - held).sum()

    best = minimize(loss, before, bounds=[(0, None)] * 3, tol=1e-12).x
    np.testing.assert_allclose(parts, best / best.sum(), atol=1e-4)
    np.testing.assert_allclose(found * odds.std(0) / (found * odds.std(0)).sum(), best / best.sum(), atol=1e-4)


def test_a_part_that_tells_nothing_counts_little_and_probabilities_are_those_of_the_labels(people):
    odds, label, site = people
    found, bias, parts = shares.weights_of(odds, label, site, np.full(3, 1 / 3))
    assert parts[2] < 0.2 < parts[0] == pytest.approx(parts[1], abs=0.05)
    probability = expit(odds @ found + bias)
    assert probability.mean() == pytest.approx(label.mean(), abs=0.01)
    slope = np.polyfit(probability, label, 1)[0]
    assert slope == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_where_nothing_is_found_parts_count_as_before_and_the_order_of_people_stays(people, seed):
    """Log odds that go the wrong way have no better use than none."""
    _, label, site = people
    odds = np.random.default_rng(seed).normal(size=(600, 3)) - label[:, None]
    found, _, parts = shares.weights_of(odds, label, site, np.array([0.25, 0.25, 0.5]))
    assert (found > 0).all() and parts == pytest.approx([0.25, 0.25, 0.5])
    assert np.std(odds @ found) == pytest.approx(shares.LEAST, rel=1e-6)


@pytest.mark.parametrize("people_of_site", [1, 2, 5])
def test_few_people_change_weights_little(people_of_site):
    """The distance from the plain mean is at most what the data of few people ask for, and nothing is NaN."""
    random = np.random.default_rng(people_of_site)
    label = np.arange(3 * people_of_site) % 2
    odds = random.normal(size=(len(label), 2))
    found, bias, parts = shares.weights_of(odds, label, SITES.repeat(people_of_site), np.array([0.5, 0.5]))
    assert np.isfinite([*found, bias]).all() and (found >= 0).all() and parts.sum() == pytest.approx(1)


def made_run(label: np.ndarray, site: np.ndarray, members: int):
    from models import cnn

    rows = tuple(
        Row(f"{at}.bin", str(at // 2), of_site, float(of), "train")
        for at, (of, of_site) in enumerate(zip(label, site, strict=True))
    )
    cohort = SimpleNamespace(rows=rows, groups=())
    config = replace(cnn.PRESETS["combined"], members=members)
    return SimpleNamespace(cohort=cohort, config=config, training_records=lambda: np.arange(len(rows)))


@pytest.mark.parametrize("members", [2, 4, 7])
def test_each_member_leaves_out_a_fifth_of_the_people(members, monkeypatch):
    """Both records of a person are on one side; members count in turn."""
    monkeypatch.setattr(ridge, "INNER_FOLDS", 5)
    label = np.repeat(np.arange(40) % 2, 2)
    run = made_run(label, np.repeat(SITES, 80)[:80], members)
    weight = told(run, SimpleNamespace(learned=True))["weight"]
    assert weight.shape == (80, members) and (weight[::2] == weight[1::2]).all()
    np.testing.assert_allclose(weight.mean(0), 1, rtol=1e-6)
    assert ((weight == 0).sum(0) == 16).all()
    for one in range(members):
        for other in range(one):
            alike = one % 5 == other % 5
            assert (weight[:, one] == weight[:, other]).all() == alike
            assert ((weight[:, one] == 0) & (weight[:, other] == 0)).any() == alike
    assert (told(run, SimpleNamespace(learned=False))["weight"] == 1).all()


def test_site_log_odds_are_those_of_the_training_people():
    label, site = np.array([0, 0, 0, 1, 1, 1, 1, 0]), np.array(["A"] * 4 + ["B"] * 4)
    found = told(made_run(label, site, 2), SimpleNamespace(learned=False))["site_log_odds"]
    np.testing.assert_allclose(found, logit(np.where(site == "A", (1 + 1) / 6, (3 + 1) / 6)), rtol=1e-6)
    one_class = told(made_run(label * 0, site, 2), SimpleNamespace(learned=False))["site_log_odds"]
    assert not one_class.any()


@pytest.mark.parametrize("within_sites", [False, True])
def test_the_loss_of_a_part_is_that_of_its_networks_on_those_whom_they_learn_from(within_sites):
    """Three members of two maps, by hand."""
    import tensorflow as tf

    from models import losses

    random = np.random.default_rng(0)
    logits, label = random.normal(size=(5, 6, 2)), np.array([0, 1, 1, 0, 1])
    weight, at_site = random.random((5, 3)), random.normal(size=5)
    batch = {"label": label, "weight": weight, "site_log_odds": at_site}
    found = losses.of_networks(
        {name: tf.constant(values, "int32" if name == "label" else "float32") for name, values in batch.items()},
        tf.constant(logits, "float32"),
        PartOfMean("regions", 2, 1.0, within_sites),
    )
    odds = logits[..., 1] - logits[..., 0] + within_sites * at_site[:, None]
    each = np.log1p(np.exp(np.where(label[:, None] == 1, -odds, odds)))
    expected = sum((each[:, network] * weight[:, network % 3]).mean() for network in range(6))
    assert float(found) == pytest.approx(expected, rel=1e-5)
