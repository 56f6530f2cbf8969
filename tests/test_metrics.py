"""Metrics against scikit-learn, intervals against a bootstrap by loop, explained variance by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from utils.metrics import ExplainedVariance, scores, with_intervals


def sample(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities, some of them tied and some exactly 0.5."""
    random = np.random.default_rng(seed)
    label = random.permutation(np.arange(count) % 2)
    return label.astype(float), np.clip(random.normal(0.5 + 0.1 * (label - 0.5), 0.2), 0, 1).round(1)


def expected(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    predicted = probability >= 0.5
    return {
        "accuracy": sklearn_metrics.accuracy_score(label, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(label, predicted),
        "recall": sklearn_metrics.recall_score(label, predicted),
        "specificity": sklearn_metrics.recall_score(label, predicted, pos_label=0),
        "precision": sklearn_metrics.precision_score(label, predicted),
        "f_score": sklearn_metrics.f1_score(label, predicted),
        "auc": sklearn_metrics.roc_auc_score(label, probability),
    }


@pytest.mark.parametrize("count, seed", [(10, 0), (75, 1), (200, 2)])
def test_values_are_those_of_scikit_learn(count, seed):
    label, probability = sample(count, seed)
    found = with_intervals(label, probability, [str(number) for number in range(count)], seed=0)
    assert {name: metric["value"] for name, metric in found.items()} == pytest.approx(expected(label, probability))


def test_weights_count_records_as_copies_do():
    label, probability = sample(20, 3)
    weight = np.random.default_rng(0).integers(0, 4, 20)
    copied = expected(np.repeat(label, weight), np.repeat(probability, weight))
    found = {name: value[0] for name, value in scores(label, probability, weight[None].astype(float)).items()}
    assert found == pytest.approx(copied)


def test_intervals_are_those_of_a_bootstrap_over_subjects_by_loop():
    """Each subject has two records, which stay together; resamples differ by chance, hence the tolerance."""
    label, probability = sample(60, 4)
    label = np.repeat(label[:30], 2)
    subject = np.repeat([f"s{number}" for number in range(30)], 2)
    found = with_intervals(label, probability, subject, seed=0)
    random, spread = np.random.default_rng(9), []
    for _ in range(2000):
        rows = np.concatenate([(2 * chosen, 2 * chosen + 1) for chosen in random.integers(0, 30, 30)])
        predicted = probability[rows] >= 0.5
        spread.append({"accuracy": (predicted == label[rows]).mean(), "recall": predicted[label[rows] == 1].mean()})
    for name in ("accuracy", "recall"):
        low, high = np.percentile([values[name] for values in spread], [2.5, 97.5])
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((low, high), abs=0.03)


def test_intervals_hold_the_value_narrow_with_subjects_and_repeat_with_the_seed():
    widths = []
    for count in (40, 400):
        label, probability = sample(count, 5)
        subject = [str(number) for number in range(count)]
        found = with_intervals(label, probability, subject, seed=1)
        assert found == with_intervals(label, probability, subject, seed=1)
        for metric in found.values():
            assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1
        widths.append(found["auc"]["high"] - found["auc"]["low"])
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize(
    "label, undefined",
    [(1.0, {"specificity", "balanced_accuracy", "auc"}), (0.0, {"recall", "balanced_accuracy", "auc"})],
)
def test_one_class_leaves_undefined_what_is_undefined(label, undefined):
    found = with_intervals(np.full(6, label), np.array([0.1, 0.2, 0.6, 0.7, 0.8, 0.9]), list("abcdef"), seed=0)
    assert {name for name, metric in found.items() if metric["value"] is None} == undefined
    for name in undefined:
        assert found[name] == {"value": None, "low": None, "high": None}
    assert found["accuracy"]["value"] == pytest.approx(4 / 6 if label else 2 / 6)


def test_nobody_predicted_positive_has_no_precision():
    found = with_intervals(np.array([1.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3]), list("abc"), seed=0)
    assert found["precision"]["value"] is None
    assert found["recall"]["value"] == 0.0
    assert found["auc"]["value"] == 0.5


def test_perfect_and_reversed_predictions():
    label = np.array([0.0, 0.0, 1.0, 1.0] * 5)
    subject = [str(number) for number in range(20)]
    assert with_intervals(label, label, subject, 0)["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert with_intervals(label, 1 - label, subject, 0)["auc"]["value"] == 0.0


def test_explained_variance_over_batches_is_scikit_learns_r2_over_all_values():
    random = np.random.default_rng(0)
    original = random.normal(3, 2, (7, 4, 5)).astype(np.float32)
    approximation = original + random.normal(0, 0.5, original.shape)
    measure = ExplainedVariance()
    for rows in (slice(0, 3), slice(3, 7)):
        measure.add(original[rows], approximation[rows])
    assert measure.value == pytest.approx(sklearn_metrics.r2_score(original.ravel(), approximation.ravel()))
    assert measure.mse == pytest.approx(sklearn_metrics.mean_squared_error(original.ravel(), approximation.ravel()))


def test_one_subject_has_no_interval():
    """Resampling one subject repeats its value: two records do not make it two subjects."""
    found = with_intervals(np.array([1.0, 1.0]), np.array([0.7, 0.4]), ["a", "a"], seed=0)
    assert found["accuracy"] == {"value": 0.5, "low": None, "high": None}
    assert found["recall"] == {"value": 0.5, "low": None, "high": None}
    json.dumps(found, allow_nan=False)


def test_a_metric_that_rests_on_one_subject_of_many_has_no_interval():
    """One person with autism: recall, AUC and balanced accuracy would look certain or almost so."""
    label, probability = np.array([1.0] + [0.0] * 9), np.array([0.9, *np.linspace(0.1, 0.49, 9)])
    found = with_intervals(label, probability, list("abcdefghij"), seed=0)
    without = {name for name, metric in found.items() if metric["low"] is None}
    assert without == {"recall", "precision", "f_score", "auc", "balanced_accuracy"}
    assert all(metric["value"] == 1.0 for metric in found.values())
