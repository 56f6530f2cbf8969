"""Test metrics with 95 % intervals over subjects, and the explained variance of autoencoders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from utils.statistics import MIN_SUBJECTS, THRESHOLD, Statistic, bootstrap, or_none

RESAMPLES = 2000
BINS = 10  # of the predicted probability, in the calibration error
Groups = tuple[np.ndarray, ...]
Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]  # weights of the records (k, n) -> (k,) each


@dataclass(frozen=True)
class Predictions:
    """Records whose label is known, and what a classifier predicts of them; all arrays are (n,).

    `label`: 1 autism, 0 control; `probability` of autism; `fold`: the model that predicted a record, None if there is
    one model only; `site`: None if it plays no part. Sequences are converted to arrays.
    """

    label: np.ndarray
    probability: np.ndarray
    subject: np.ndarray
    fold: np.ndarray | None = None
    site: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, values in vars(self).copy().items():
            object.__setattr__(self, name, None if values is None else np.asarray(values))

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Predictions":
        """From a table with the columns of `predictions.csv`, no label unknown; `fold` and `site` may be absent."""
        label, probability = table["label"].to_numpy(float), table["probability"].to_numpy(float)
        fold, site = (table[name].to_numpy() if name in table else None for name in ("fold", "site"))
        return cls(label, probability, table["subject"].to_numpy(), fold, site)

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """The sites and folds, if given, by the name of the AUC within them."""
        groups = {"auc_sites": self.site, "auc_folds": self.fold}
        return {name: group for name, group in groups.items() if group is not None}

    def subset(self, rows: np.ndarray) -> "Predictions":
        """The records in `rows` (n,) bool as a test of its own, without folds and sites."""
        return Predictions(self.label[rows], self.probability[rows], self.subject[rows])

    def suffices(self, rows: np.ndarray) -> bool:
        """Whether the records in `rows` (n,) bool are of enough subjects for an interval."""
        return len(np.unique(self.subject[rows])) >= MIN_SUBJECTS

    def bootstrap(self, statistic: Statistic, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of a statistic's interval over subjects, within their fold; `statistic` takes records' weights."""
        names, first, member = np.unique(self.subject, return_index=True, return_inverse=True)
        strata, random = None if self.fold is None else self.fold[first], np.random.default_rng(seed)
        return bootstrap(lambda weight: statistic(weight[:, member]), len(names), random, resamples, strata)


def auc(label: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Area under the ROC curve (k,) under each of the weightings (k, n); NaN where a class is absent.

    The AUC is the share of pairs (one record of each class) in the right order; a pair with equal probabilities counts
    half. Counting the negatives below each probability avoids a list of all pairs.
    """
    order = np.argsort(probability)
    starts = np.flatnonzero(np.diff(probability[order], prepend=np.nan))  # of records with equal probabilities
    positive, negative = (np.add.reduceat(weight[:, order] * (label == value)[order], starts, 1) for value in (1, 0))
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore"):
        return (positive * (negative.cumsum(1) - negative / 2)).sum(1) / pairs


def mean_auc(label: np.ndarray, probability: np.ndarray, weight: np.ndarray, group: np.ndarray) -> np.ndarray:
    """AUC within each group, averaged over the groups that have both classes by their number of records, (k,)."""
    total, records = np.zeros(len(weight)), np.zeros(len(weight))
    for name in np.unique(group):
        rows = group == name
        within = auc(label[rows], probability[rows], weight[:, rows])
        size = np.where(np.isnan(within), 0, weight[:, rows].sum(1))
        total += size * np.nan_to_num(within)
        records += size
    with np.errstate(invalid="ignore"):
        return total / records


def calibration_gaps(label: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(k, BINS) mean probability minus share of autism in each bin, times the bin's share of the records.

    Their absolute values add up to the expected calibration error.
    """
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gap = (probability - label)[:, None] * (bins[:, None] == np.arange(BINS))
    return weight @ gap / weight.sum(1, keepdims=True)


def scores(predictions: Predictions, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Weighted metrics of binary predictions, (k,) each; NaN where a denominator is 0. Each needs its groups in
    `needed_groups`.

    `weight` (k, n) holds k weightings of the records. Probabilities are cut at THRESHOLD. `auc` compares all records;
    `auc_sites` and `auc_folds`, where sites and folds are given, only those of one site or fold: see `mean_auc`.
    """
    label, probability = predictions.label, predictions.probability
    positive, predicted = label == 1, probability >= THRESHOLD
    true_positive = weight @ (positive & predicted)
    false_positive = weight @ (~positive & predicted)
    false_negative = weight @ (positive & ~predicted)
    true_negative = weight @ (~positive & ~predicted)
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
            "auc": auc(label, probability, weight),
            "brier": weight @ np.square(probability - label) / weight.sum(1),
            "calibration_error": np.abs(calibration_gaps(label, probability, weight)).sum(1),
        } | {name: mean_auc(label, probability, weight, group) for name, group in predictions.groups.items()}


def needed_groups(predictions: Predictions) -> dict[str, Groups]:
    """The groups of records, (n,) bool each, without which each metric of `scores` is undefined."""
    positive, predicted = predictions.label == 1, predictions.probability >= THRESHOLD
    everybody = np.ones_like(positive)
    result: dict[str, Groups] = dict.fromkeys(("accuracy", "brier", "calibration_error"), (everybody,))
    result |= dict.fromkeys(("auc", "balanced_accuracy"), (positive, ~positive))
    result |= {"recall": (positive,), "specificity": (~positive,)}
    result |= {"precision": (predicted,), "f_score": (positive | predicted,)}
    for name, group in predictions.groups.items():
        both = np.isin(group, np.intersect1d(group[positive], group[~positive]))
        result[name] = (positive & both, ~positive & both)
    return result


def intervals(
    predictions: Predictions, statistics: Statistics, groups: dict[str, Groups], seed: int
) -> dict[str, dict]:
    """Each statistic as `{"value", "low", "high"}`: bootstrap over subjects, within folds if given; None if undefined.

    There is no interval, `low` and `high` None, if one of the `groups` of records that a statistic needs is a single
    subject.
    """
    value = statistics(np.ones((1, len(predictions.label))))
    low, high = predictions.bootstrap(lambda weight: np.stack([*statistics(weight).values()], axis=1), seed, RESAMPLES)
    result = {}
    for name, *ends in zip(value, low, high, strict=True):
        if not all(map(predictions.suffices, groups[name])):
            ends = [np.nan, np.nan]
        result[name] = dict(zip(("value", "low", "high"), map(or_none, (*value[name], *ends)), strict=True))
    return result


def with_intervals(predictions: Predictions, seed: int) -> dict[str, dict]:
    """Each metric of `scores` as `{"value", "low", "high"}`, see `intervals`.

    Noise alone makes a calibration error, and percentiles of resamples, which are noisier than the sample, would never
    hold 0. Its interval is the value and, on both sides, how far the gaps of resamples are from those of the sample.
    """
    label, probability = predictions.label, predictions.probability
    groups = needed_groups(predictions)
    gaps = calibration_gaps(label, probability, np.ones((1, len(label))))

    def statistics(weight: np.ndarray) -> dict[str, np.ndarray]:
        noise = np.abs(calibration_gaps(label, probability, weight) - gaps).sum(1)
        return scores(predictions, weight) | {"noise": noise}

    found = intervals(predictions, statistics, groups | {"noise": groups["calibration_error"]}, seed)
    value, noise = found["calibration_error"]["value"], found.pop("noise")["high"]
    if noise is not None:
        found["calibration_error"] |= {"low": max(value - noise, 0.0), "high": min(value + noise, 1.0)}
    return found


def difference(predictions: Predictions, other: np.ndarray, seed: int, within: bool = False) -> dict[str, float | None]:
    """AUC minus the AUC of another classifier's probabilities (n,) of the same records: paired, see `intervals`.

    `within` folds both are means of the folds' own AUC, since probabilities of different folds need not agree.
    """
    label, fold = predictions.label, predictions.fold
    area = partial(mean_auc, group=fold) if within and fold is not None else auc

    def statistics(weight: np.ndarray) -> dict[str, np.ndarray]:
        return {"auc": area(label, predictions.probability, weight) - area(label, other, weight)}

    return intervals(predictions, statistics, {"auc": (label == 1, label == 0)}, seed)["auc"]


def by_site(predictions: Predictions, seed: int) -> list[dict]:
    """A row a site, the largest first: counts of subjects, AUC and accuracy with `_low`, `_high`; None if undefined."""
    rows, sites = [], np.asarray(predictions.site)
    for name in np.unique(sites):
        site = predictions.subset(sites == name)
        members = {"subjects": site.label >= 0, "autism": site.label == 1, "control": site.label == 0}
        counts = {key: len(np.unique(site.subject[group])) for key, group in members.items()}
        rows.append({"site": str(name)} | counts | flat(with_intervals(site, seed), ("auc", "accuracy")))
    return sorted(rows, key=lambda row: -row["subjects"])


def by_fold(predictions: Predictions, seed: int) -> dict[str, dict]:
    """The metrics of each fold, in the order in which folds appear, by the fold's name as text."""
    fold = np.asarray(predictions.fold)
    return {str(name): with_intervals(predictions.subset(fold == name), seed) for name in dict.fromkeys(fold.tolist())}


def flat(found: dict[str, dict], names: Sequence[str]) -> dict[str, float | None]:
    """Metrics as columns of a table: `auc`, `auc_low`, `auc_high`."""
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {f"{name}{end}": found[name][key] for name in names for end, key in ends.items()}


class ExplainedVariance:
    """1 - (sum of squared errors) / (sum of squares about the mean), over all values of all batches added."""

    def __init__(self) -> None:
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
