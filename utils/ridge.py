"""Ridge regression as a classifier: features and labels of training records -> weights and a bias that give log odds.

The penalty and the calibration are chosen in inner folds of the training records, in which a group of subjects, such as
those who share a scan, is on one side. What is fitted is how far a label, -1 or 1, is from the mean of its site: how
common autism is at a site is not to be learnt from what a scanner does to features.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

INNER_FOLDS = 5  # by which penalties are chosen and probabilities calibrated; of fewer subjects a class, as many
PENALTIES = np.logspace(1, 5, 9)  # of squared weights, on features that are z-scored
InnerFolds = list[tuple[np.ndarray, np.ndarray]]  # positions of those who fit, and of those who are predicted


MAX_RECORDS = 4_000  # for training; the time of a decomposition grows with their cube


@dataclass(frozen=True)
class LinearClassifier:
    """`weights` (features,) and `bias` of the log odds of autism, float64."""

    weights: np.ndarray
    bias: float

    def log_odds(self, values: np.ndarray) -> np.ndarray:
        """Features (n, features) -> (n,)."""
        return values @ self.weights + self.bias


def some(records: np.ndarray) -> np.ndarray:
    """At most `MAX_RECORDS` of the records, drawn at random, in their order."""
    return np.sort(np.random.default_rng(0).permutation(records)[:MAX_RECORDS])


def inner_folds(label: np.ndarray, group: np.ndarray) -> InnerFolds:
    """Folds of training records with these labels and groups of subjects (n,), each group in one of them; none if not
    every fold can have both classes."""
    people = [set(group[label == value]) for value in (0, 1)]
    if (fewest := min(map(len, people))) < 2:
        return []
    folds = list(StratifiedGroupKFold(min(INNER_FOLDS, fewest)).split(label, label, group))
    return folds if all(len(set(label[part])) == 2 for fold in folds for part in fold) else []


def fit(known: np.ndarray, label: np.ndarray, site: np.ndarray, folds: InnerFolds) -> LinearClassifier:
    """Ridge on features (n, features), with the penalty of the least squared error in the folds, calibrated over them.
    Without folds, the log odds are those of the labels alone."""
    if not folds:
        return LinearClassifier(np.zeros(known.shape[1]), float(logit(label.mean())))
    axes = own_axes(known)
    values = known if axes is None else known @ axes
    target, decision = within_sites(label, site), np.empty((len(label), len(PENALTIES)))
    for fitting, out in folds:
        weights, bias = ridges(values[fitting], target[fitting])
        decision[out] = values[out] @ weights + bias
    best = np.square(decision - target[:, None]).mean(0).argmin()
    weights, bias = ridges(values, target)
    slope, shift = platt(decision[:, best], label)
    chosen = weights[:, best] if axes is None else axes @ weights[:, best]
    return LinearClassifier(slope * chosen, float(slope * bias[best] + shift))


def within_sites(label: np.ndarray, site: np.ndarray) -> np.ndarray:
    """Labels as -1 and 1, minus their mean at the same site (n,); as they are if no site has both classes."""
    target = 2 * label - 1
    _, place = np.unique(site, return_inverse=True)
    apart = target - (np.bincount(place, target) / np.bincount(place))[place]
    return apart if apart.any() else target


def own_axes(known: np.ndarray) -> np.ndarray | None:
    """Orthonormal axes (features, rank) of features (n, features) that are more than the records; None if they are
    fewer. An L2 penalty does not change with the axes."""
    if known.shape[1] <= len(known):
        return None
    power, left = np.linalg.eigh((known @ known.T).astype(float))
    used = power > power[-1] * len(known) * np.finfo(known.dtype).eps
    return known.T @ (left[:, used] / np.sqrt(power[used]))


def ridges(known: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights (features, penalties) and biases (penalties,) of ridge regressions, these not penalised; one
    decomposition serves all penalties."""
    centre = known.mean(0)
    values = known - centre
    power, axes = np.linalg.eigh(values.T @ values)
    along = axes.T @ (values.T @ (target - target.mean()))
    weights = axes @ (along[:, None] / (power[:, None] + PENALTIES))
    return weights, target.mean() - centre @ weights


def platt(decision: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """The slope and the shift that make log odds of autism of decision values (n,): a logistic regression of the
    labels, a little less than certain (Platt 1999). Values that go the wrong way in the inner folds count nothing."""
    spread, count = decision.std() or 1, np.bincount(label.astype(int), minlength=2)
    certain = np.where(label == 1, count[1] + 1, count[0] + 1) / np.where(label == 1, count[1] + 2, count[0] + 2)
    both, weight = np.tile(decision[:, None] / spread, (2, 1)), np.concatenate([certain, 1 - certain])
    fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(both, np.concatenate([label, 1 - label]), weight)
    slope = fitted.coef_[0, 0] / spread
    return (slope, fitted.intercept_[0]) if slope > 0 else (0.0, float(logit(label.mean())))
