"""Statistics of arrays: the AUC, log odds, percentile intervals by resampling people, intervals of several numbers."""

import warnings
from collections.abc import Callable

import numpy as np
from scipy.special import logit
from scipy.stats import binomtest

from utils.scores.results import CONFIDENCE_LEVEL, MIN_SUBJECTS, UNDEFINED, Estimate

CLOSEST = 1e-7  # that a probability comes to 0 or 1 in log odds
BLOCK = 4_000_000  # weights that a statistic gets at once, 32 MB
Statistic = Callable[[np.ndarray], np.ndarray]


def bootstrap(
    statistic: Statistic, count: int, random: np.random.Generator, resamples: int, strata: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high end of the percentile interval of a statistic over `count` subjects (Efron 1979).

    `statistic` takes weights (k, count) float64, how often each subject is drawn, of some of the resamples, and gives
    (k, ...). A matrix product with weights does for all regions at once what SciPy's bootstrap does by copying
    the subjects; resamples in which the statistic is undefined (NaN) are left out. With `strata` (count,) each resample
    draws as many subjects of each stratum as it has. Both ends are (...); NaN where no stratum has two subjects or no
    resample is defined.
    """
    weight = resampled(count, random, resamples, strata)
    values = np.concatenate([np.asarray(statistic(weight[rows].astype(np.float64))) for rows in blocks(*weight.shape)])
    if count < MIN_SUBJECTS or (strata is not None and np.unique(strata, return_counts=True)[1].max() < MIN_SUBJECTS):
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    tail = 100 * (1 - CONFIDENCE_LEVEL) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        low, high = np.nanpercentile(values, (tail, 100 - tail), axis=0)
    return low, high


def resampled(count: int, random: np.random.Generator, resamples: int, strata: np.ndarray | None = None) -> np.ndarray:
    """Weights (resamples, count) of whole numbers: how often each subject is drawn, within its stratum."""
    stratum = np.zeros(count) if strata is None else np.asarray(strata)
    weight = np.empty((resamples, count), np.min_scalar_type(count))
    for value in np.unique(stratum):
        rows = np.flatnonzero(stratum == value)
        for block in blocks(resamples, count):
            share = np.full(len(rows), 1 / len(rows))
            weight[block, rows] = random.multinomial(len(rows), share, block.stop - block.start)
    return weight


def blocks(resamples: int, count: int) -> list[slice]:
    """Resamples of so many subjects, as many at a time as memory should hold."""
    size = max(1, BLOCK // max(count, 1))
    return [slice(start, min(start + size, resamples)) for start in range(0, resamples, size)]


def orders(unit: np.ndarray, site: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Orders of people (count, subjects) in which units of as many people at the same sites change places, and people
    of one site within each unit."""
    _, member, size = np.unique(unit, return_inverse=True, return_counts=True)
    by_unit, order = np.lexsort((site, member)), np.empty((count, len(unit)), int)
    for number in np.unique(size):
        units = by_unit[size[member[by_unit]] == number].reshape(-1, number)  # a row of people each
        site_lists, kind = np.unique(site[units], axis=0, return_inverse=True)
        for at, sites in enumerate(site_lists):
            people = units[kind == at]
            places = random.permuted(np.tile(np.arange(len(people)), (count, 1)), axis=1)
            drawn = people[places]
            for name in np.unique(sites) if number > 1 else ():
                drawn[..., sites == name] = random.permuted(drawn[..., sites == name], axis=2)
            order[:, people] = drawn
    return order


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


def share_of(count: float, total: int) -> Estimate:
    """A share of people with the interval of Wilson (1927); undefined of nobody."""
    if not total:
        return UNDEFINED
    ends = binomtest(round(count), total).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return Estimate.of(count / total, ends.low, ends.high)


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Of probabilities (n,), finite for 0 and 1 too."""
    return logit(np.clip(probability, CLOSEST, 1 - CLOSEST))
