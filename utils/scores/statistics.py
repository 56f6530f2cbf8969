"""The statistical conventions of all results, and the one bootstrap: subjects resampled -> an interval."""

import warnings
from collections.abc import Callable

import numpy as np

ALPHA = 0.05  # family-wise p below which a region is significant
MODEL, MAJORITY, RULE = "model", "majority", "rule that made the data"  # rows beside those of floors
THRESHOLD = 0.5  # probability of autism from which on a record is predicted as autism
CONFIDENCE = 0.95  # of an interval: the share of the resamples that it holds
CHANCE = 0.5  # AUC of guessing
BLOCK = 4_000_000  # weights that a statistic gets at once, 32 MB
MIN_SUBJECTS = 2  # of a bootstrap: resampling a single one gives the same value every time
MIN_PER_CLASS = 10  # subjects, of an interval: percentiles of fewer are too narrow
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
    tail = 100 * (1 - CONFIDENCE) / 2
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
