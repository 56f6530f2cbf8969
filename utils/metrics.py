"""Test metrics with 95 % intervals over subjects, and the explained variance of autoencoders."""

from collections.abc import Callable, Sequence

import numpy as np

from utils.statistics import ENOUGH, THRESHOLD, bootstrap, or_none

RESAMPLES = 2000
BINS = 10  # of the predicted probability, in the calibration error
Groups = tuple[np.ndarray, ...]


def auc(label: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Area under the ROC curve (k,) under each of the weightings (k, n); NaN where a class is absent.

    It is the share of the pairs of both classes that are in the right order, those with equal probabilities half: at
    each probability, its positives times the negatives below. No list of the pairs is made.
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


def scores(
    label: np.ndarray,
    probability: np.ndarray,
    weight: np.ndarray,
    fold: np.ndarray | None = None,
    site: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Weighted metrics of binary predictions; NaN where a metric is undefined.

    `label` (n,) 1 autism, 0 control; `probability` (n,) of autism, cut at THRESHOLD; `weight` (k, n), a row for each of
    k weightings; every metric is (k,). `auc` compares all records, `auc_sites` and `auc_folds`, where `site` and `fold`
    (n,) are given, only those of one site or fold: see `mean_auc`.
    """
    positive, predicted = label == 1, probability >= THRESHOLD
    true_positive = weight @ (positive & predicted)
    false_positive = weight @ (~positive & predicted)
    false_negative = weight @ (positive & ~predicted)
    true_negative = weight @ (~positive & ~predicted)
    groups = {"auc_sites": site, "auc_folds": fold}
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
        } | {name: mean_auc(label, probability, weight, group) for name, group in groups.items() if group is not None}


def rests_on(
    label: np.ndarray, probability: np.ndarray, fold: np.ndarray | None = None, site: np.ndarray | None = None
) -> dict[str, Groups]:
    """The groups of records, (n,) bool each, that each metric of `scores` rests on."""
    positive, predicted = label == 1, probability >= THRESHOLD
    everybody = np.ones_like(positive)
    result: dict[str, Groups] = {
        "accuracy": (everybody,),
        "balanced_accuracy": (positive, ~positive),
        "recall": (positive,),
        "specificity": (~positive,),
        "precision": (predicted,),
        "f_score": (positive | predicted,),
        "auc": (positive, ~positive),
        "brier": (everybody,),
        "calibration_error": (everybody,),
    }
    for name, group in (("auc_sites", site), ("auc_folds", fold)):
        if group is not None:
            both = np.isin(group, np.intersect1d(group[positive], group[~positive]))
            result[name] = (positive & both, ~positive & both)
    return result


def intervals(
    statistics: Callable[[np.ndarray], dict[str, np.ndarray]],
    groups: dict[str, Groups],
    subject: Sequence[str],
    seed: int,
    fold: np.ndarray | None = None,
) -> dict[str, dict]:
    """Each statistic as `{"value", "low", "high"}`: bootstrap over subjects, within folds if given; None if undefined.

    `statistics` takes weights of the records (k, n) and gives (k,) each. There is no interval, `low` and `high` None,
    if one of the `groups` of records that a statistic rests on is a single subject.
    """
    names, first, member = np.unique(subject, return_index=True, return_inverse=True)
    value = statistics(np.ones((1, len(member))))
    low, high = bootstrap(
        lambda weight: np.stack(list(statistics(weight[:, member]).values()), axis=1),
        len(names), np.random.default_rng(seed), RESAMPLES, None if fold is None else fold[first],
    )  # fmt: skip
    result = {}
    for name, *ends in zip(value, low, high, strict=True):
        if any(len(np.unique(member[group])) < ENOUGH for group in groups[name]):
            ends = [np.nan, np.nan]
        numbers = zip(("value", "low", "high"), (*value[name], *ends), strict=True)
        result[name] = {key: or_none(number) for key, number in numbers}
    return result


def with_intervals(
    label: np.ndarray,
    probability: np.ndarray,
    subject: Sequence[str],
    seed: int,
    fold: Sequence | None = None,
    site: Sequence[str] | None = None,
) -> dict[str, dict]:
    """Each metric of `scores` as `{"value", "low", "high"}`, see `intervals`; all arguments but `seed` are (n,).

    Noise alone makes a calibration error, and percentiles of resamples, which are noisier than the sample, would never
    hold 0. Its interval is the value and, on both sides, how far the gaps of resamples are from those of the sample.
    """
    folds, sites = (None if group is None else np.asarray(group) for group in (fold, site))
    groups = rests_on(label, probability, folds, sites)
    gaps = calibration_gaps(label, probability, np.ones((1, len(label))))

    def statistics(weight: np.ndarray) -> dict[str, np.ndarray]:
        noise = np.abs(calibration_gaps(label, probability, weight) - gaps).sum(1)
        return scores(label, probability, weight, folds, sites) | {"noise": noise}

    found = intervals(statistics, groups | {"noise": groups["calibration_error"]}, subject, seed, folds)
    value, noise = found["calibration_error"]["value"], found.pop("noise")["high"]
    if noise is not None:
        found["calibration_error"] |= {"low": max(value - noise, 0.0), "high": min(value + noise, 1.0)}
    return found


def difference(
    label: np.ndarray,
    probability: np.ndarray,
    other: np.ndarray,
    subject: Sequence[str],
    seed: int,
    fold: Sequence | None = None,
    within: bool = False,
) -> dict[str, float | None]:
    """AUC minus the AUC of another classifier's probabilities (n,) of the same records: paired, see `intervals`.

    `within` folds both are means of the folds' own AUC, since probabilities of different folds need not agree.
    """
    folds = None if fold is None else np.asarray(fold)

    def area(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return auc(label, values, weight) if folds is None or not within else mean_auc(label, values, weight, folds)

    return intervals(
        lambda weight: {"auc": area(probability, weight) - area(other, weight)},
        {"auc": (label == 1, label == 0)}, subject, seed, folds,
    )["auc"]  # fmt: skip


def by_site(
    label: np.ndarray, probability: np.ndarray, subject: Sequence[str], site: Sequence[str], seed: int
) -> list[dict]:
    """A row a site, the largest first: counts of subjects, AUC and accuracy with `_low`, `_high`; None if undefined."""
    subjects, sites = np.asarray(subject), np.asarray(site)
    rows = []
    for name in np.unique(sites):
        at = sites == name
        found = with_intervals(label[at], probability[at], subjects[at], seed)
        count = {"subjects": at, "autism": at & (label == 1), "control": at & (label == 0)}
        rows.append(
            {"site": str(name)}
            | {key: len(np.unique(subjects[group])) for key, group in count.items()}
            | flat(found, ("auc", "accuracy"))
        )
    return sorted(rows, key=lambda row: -row["subjects"])


def by_fold(
    label: np.ndarray, probability: np.ndarray, subject: Sequence[str], fold: Sequence, seed: int
) -> dict[str, dict]:
    """The metrics of each fold, in the order in which folds appear, by the fold's name as text."""
    subjects, folds = np.asarray(subject), np.asarray(fold)
    return {
        str(name): with_intervals(label[folds == name], probability[folds == name], subjects[folds == name], seed)
        for name in dict.fromkeys(folds.tolist())
    }


def flat(found: dict[str, dict], names: Sequence[str]) -> dict[str, float | None]:
    """Metrics as columns of a table: `auc`, `auc_low`, `auc_high`."""
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {f"{name}{end}": found[name][key] for name in names for end, key in ends.items()}


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
