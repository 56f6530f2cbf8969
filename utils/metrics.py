"""Test metrics with 95 % intervals over subjects, and the explained variance of autoencoders."""

from collections.abc import Sequence

import numpy as np

from utils.statistics import ENOUGH, THRESHOLD, bootstrap, or_none

RESAMPLES = 2000


def scores(label: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Weighted metrics of binary predictions; NaN where a metric is undefined.

    `label` (n,) 1 autism, 0 control; `probability` (n,) of autism, cut at THRESHOLD; `weight` (k, n), a row for each of
    k weightings; every metric is (k,).
    """
    positive, predicted = label == 1, probability >= THRESHOLD
    true_positive = weight @ (positive & predicted)
    false_positive = weight @ (~positive & predicted)
    false_negative = weight @ (positive & ~predicted)
    true_negative = weight @ (~positive & ~predicted)
    difference = probability[positive][:, None] - probability[~positive][None]
    ordered = (difference > 0) + 0.5 * (difference == 0)
    pairs = weight[:, positive].sum(1) * weight[:, ~positive].sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = true_positive / (true_positive + false_negative)
        specificity = true_negative / (true_negative + false_positive)
        return {
            "accuracy": (true_positive + true_negative) / weight.sum(1),
            "balanced_accuracy": (recall + specificity) / 2,
            "recall": recall,
            "specificity": specificity,
            "precision": true_positive / (true_positive + false_positive),
            "f_score": 2 * true_positive / (2 * true_positive + false_positive + false_negative),
            "auc": np.einsum("kp,pn,kn->k", weight[:, positive], ordered, weight[:, ~positive], optimize=True) / pairs,
        }


def rests_on(label: np.ndarray, probability: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
    """The groups of records, (n,) bool each, that each metric rests on, in the order of `scores`."""
    positive, predicted = label == 1, probability >= THRESHOLD
    return {
        "accuracy": (np.ones_like(positive),),
        "balanced_accuracy": (positive, ~positive),
        "recall": (positive,),
        "specificity": (~positive,),
        "precision": (predicted,),
        "f_score": (positive | predicted,),
        "auc": (positive, ~positive),
    }


def with_intervals(label: np.ndarray, probability: np.ndarray, subject: Sequence[str], seed: int) -> dict[str, dict]:
    """Each metric as `{"value", "low", "high"}`: percentile bootstrap over subjects; None where undefined.

    A metric has no interval, `low` and `high` None, if one of the groups that it rests on is a single subject.
    """
    names, member = np.unique(subject, return_inverse=True)
    value = scores(label, probability, np.ones((1, len(label))))
    low, high = bootstrap(
        lambda weight: np.stack(list(scores(label, probability, weight[:, member]).values()), axis=1),
        len(names), np.random.default_rng(seed), RESAMPLES,
    )  # fmt: skip
    result = {}
    for (name, groups), *ends in zip(rests_on(label, probability).items(), low, high, strict=True):
        if any(len(np.unique(member[group])) < ENOUGH for group in groups):
            ends = [np.nan, np.nan]
        numbers = zip(("value", "low", "high"), (*value[name], *ends), strict=True)
        result[name] = {key: or_none(number) for key, number in numbers}
    return result


class ExplainedVariance:
    """1 - (sum of squared errors) / (sum of squares about the mean), over all values of all batches added."""

    def __init__(self):
        self.count = self.total = self.squares = self.errors = 0.0

    def add(self, original: np.ndarray, approximation: np.ndarray) -> None:
        original = np.asarray(original, np.float64)
        self.count += original.size
        self.total += original.sum()
        self.squares += np.square(original).sum()
        self.errors += np.square(original - approximation).sum()

    @property
    def mse(self) -> float:
        return float(self.errors / self.count)

    @property
    def value(self) -> float:
        """NaN if the original does not vary."""
        variance = self.squares - self.total**2 / self.count
        return float(1 - self.errors / variance) if variance > 0 else float("nan")
