"""Controls: AUCs against scikit-learn, p against a loop over permutations, verdicts of known origins."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers import make_prediction_table, make_predictions
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from utils.scores.conclusion import ControlVerdict
from utils.scores.control import ACCUSING_P, PERMUTATION_COUNT, measure_control
from utils.scores.metrics import Predictions

SITE_COUNT, FOLD_COUNT = 4, 5


def make_people(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True label, label of the control, site and fold of people; folds have both true labels in proportion."""
    random = np.random.default_rng(seed)
    site = np.arange(count) % SITE_COUNT
    label = (random.random(count) < np.array([0.4, 0.5, 0.6, 0.5])[site]).astype(float)
    control = label.copy()
    for site_number in range(SITE_COUNT):
        control[site == site_number] = random.permutation(label[site == site_number])
    fold = np.zeros(count, int)
    strata = 2 * site + label if count > 100 else label
    splitter = StratifiedKFold(FOLD_COUNT, shuffle=True, random_state=seed)
    for fold_number, (_, tested) in enumerate(splitter.split(label, strata)):
        fold[tested] = fold_number
    return label, control, site, fold


def auc_by_site(label: np.ndarray, probability: np.ndarray, site: np.ndarray) -> float:
    """scikit-learn's AUC of each site, averaged by people."""
    site_names, site_sizes = np.unique(site, return_counts=True)
    site_aucs = [roc_auc_score(label[site == name], probability[site == name]) for name in site_names]
    return float(np.average(site_aucs, weights=site_sizes))


def permuted_z(label: np.ndarray, probability: np.ndarray, site: np.ndarray, seed: int) -> float:
    """How many standard deviations of permutations within sites the AUC lies above their mean."""
    random = np.random.default_rng(seed)
    aucs = []
    for _ in range(400):
        permuted = label.copy()
        for name in np.unique(site):
            permuted[site == name] = random.permutation(label[site == name])
        aucs.append(auc_by_site(permuted, probability, site))
    return float((auc_by_site(label, probability, site) - np.mean(aucs)) / np.std(aucs))


def test_auc_and_p_are_those_of_a_loop_with_the_spread_of_folds():
    """Folds are sites: each tests people who train the models of all others, so the variance is twice as large."""
    label, control, site, _ = make_people(120, seed=1)
    probability = (np.random.default_rng(3).normal(size=120) + 0.8 * control).round(1)  # some are equal
    sites_as_folds = make_predictions(control, probability, site=site, fold=site)
    result = measure_control(sites_as_folds, label, seed=0)
    assert result.auc == pytest.approx(auc_by_site(control, probability, site))
    assert result.true_label_auc == pytest.approx(auc_by_site(label, probability, site))

    z = permuted_z(control, probability, site, seed=5)
    assert result.p == pytest.approx(norm.sf(z / np.sqrt(2)), abs=0.02)
    single_model = make_predictions(control, probability, site=site, fold="")
    assert measure_control(single_model, label, seed=0).p == pytest.approx(norm.sf(z), abs=0.02)


def test_the_seed_decides():
    label, control, site, fold = make_people(120, seed=2)
    probability = np.random.default_rng(2).normal(size=120)
    predictions = make_predictions(control, probability, site=site, fold=fold)
    assert measure_control(predictions, label, seed=4) == measure_control(predictions, label, seed=4)
    assert measure_control(predictions, label, seed=4).p != measure_control(predictions, label, seed=5).p


def fit_to_control(features: np.ndarray, label: np.ndarray, control: np.ndarray, fold: np.ndarray) -> np.ndarray:
    return fit_folds(features, control, fold)


def fit_to_true_labels(features: np.ndarray, label: np.ndarray, control: np.ndarray, fold: np.ndarray) -> np.ndarray:
    return fit_folds(features, label, fold)


def select_on_everybody(features: np.ndarray, label: np.ndarray, control: np.ndarray, fold: np.ndarray) -> np.ndarray:
    differences = np.abs(features[control == 1].mean(0) - features[control == 0].mean(0))
    return fit_folds(features[:, np.argsort(-differences)[:20]], control, fold)


def fit_folds(features: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    splits = [(np.flatnonzero(fold != name), np.flatnonzero(fold == name)) for name in np.unique(fold)]
    return cross_val_predict(LogisticRegression(C=0.01), features, label, cv=splits, method="predict_proba")[:, 1]


@pytest.mark.parametrize(
    "predict, verdict",
    [
        (fit_to_control, ControlVerdict.NO_LEAK_SHOWN),
        (select_on_everybody, ControlVerdict.LEAK),
        (fit_to_true_labels, ControlVerdict.FROM_TRUE_LABELS),
    ],
)
def test_the_verdict_names_how_predictions_were_made(predict: Callable, verdict: ControlVerdict):
    label, control, site, fold = make_people(300, seed=4)
    features = np.random.default_rng(4).normal(size=(300, 1000)) + 0.1 * label[:, None]
    probability = predict(features, label, control, fold)
    result = measure_control(make_predictions(control, probability, site=site, fold=fold), label, seed=0)
    assert result.verdict == verdict
    assert (result.p == ACCUSING_P) == (verdict == ControlVerdict.LEAK)


def test_an_agreement_by_chance_is_no_refusal_of_a_leak():
    """Labels of the control that mostly agree with the true ones: who knows those of the control tells both."""
    label, control, site, fold = make_people(300, seed=6)
    agreeing = np.where(np.random.default_rng(6).random(300) < 0.6, label, control)
    result = measure_control(make_predictions(agreeing, agreeing, site=site, fold=fold), label, seed=0)
    assert result.true_label_auc > 0.7
    assert result.verdict == ControlVerdict.LEAK
    swapped = measure_control(make_predictions(agreeing, label, site=site, fold=fold), label, seed=0)
    assert swapped.auc > 0.7
    assert swapped.verdict == ControlVerdict.FROM_TRUE_LABELS


@pytest.mark.parametrize("count", [16, 24])
def test_few_permutations_cannot_tell(count):
    """A perfect prediction of people who hardly change places."""
    label, control, site, fold = make_people(count, seed=7)
    result = measure_control(make_predictions(control, control, site=site, fold=fold), label, seed=0)
    assert result.verdict == ControlVerdict.CANNOT_TELL


def test_nobody_compared_cannot_tell():
    label = np.repeat([0.0, 1.0], 10)
    predictions = make_predictions(label, np.linspace(0, 1, 20), site=label, fold=label)
    result = measure_control(predictions, label, seed=0)
    assert (result.p, result.verdict) == (None, ControlVerdict.CANNOT_TELL)


def test_families_and_scans_of_one_person_are_units():
    """Twice the people, each the same as their twin, or twice the scans: p is that of each once, not a smaller one."""
    label, control, site, fold = make_people(80, seed=8)
    probability = np.random.default_rng(8).normal(size=80) + control
    people = make_predictions(control, probability, site=site, fold=fold)
    p_of_each_once = measure_control(people, label, seed=0).p

    twice = {"site": np.tile(site, 2), "fold": np.tile(fold, 2)}
    leaders = np.tile(np.arange(80).astype(str), 2)
    tables = {
        "twins": make_prediction_table(np.tile(control, 2), np.tile(probability, 2), same_scan=leaders, **twice),
        "scans": make_prediction_table(np.tile(control, 2), np.tile(probability, 2), **twice).assign(subject=leaders),
        "strangers": make_prediction_table(np.tile(control, 2), np.tile(probability, 2), **twice),
    }
    p_by_kinship = {
        kinship: measure_control(Predictions.from_tables(table), np.tile(label, 2), seed=0).p
        for kinship, table in tables.items()
    }
    noise = 4 / np.sqrt(PERMUTATION_COUNT) * np.sqrt(p_of_each_once)
    assert p_by_kinship["twins"] == pytest.approx(p_of_each_once, abs=noise)
    assert p_by_kinship["scans"] == pytest.approx(p_of_each_once, abs=noise)
    assert p_by_kinship["strangers"] < p_of_each_once / 2


def test_repeats_are_averaged():
    label, control, site, fold = make_people(120, seed=9)
    probabilities = np.random.default_rng(9).normal(size=(2, 120)) + 0.5 * control
    other_fold = np.random.default_rng(9).permutation(fold)
    tables = [
        make_prediction_table(control, probability, site=site, fold=repeat_fold)
        for probability, repeat_fold in zip(probabilities, (fold, other_fold), strict=True)
    ]
    both = measure_control(Predictions.from_tables(*tables), label, seed=0)
    peers = Predictions.from_tables(*tables).peer_groups
    aucs = []
    for probability, groups in zip(probabilities, peers, strict=True):
        mixed = [rows for rows in (groups == name for name in set(groups)) if len(set(control[rows])) == 2]
        values = [roc_auc_score(control[rows], probability[rows]) for rows in mixed]
        aucs.append(np.average(values, weights=[rows.sum() for rows in mixed]))
    assert both.auc == pytest.approx(np.mean(aucs))
