"""Labels and probabilities -> ROC curve with its band, calibration by bins."""

import numpy as np
import pandas as pd

from utils.metrics import BINS, RESAMPLES
from utils.statistics import ENOUGH, INTERVAL

FALSE_RATES = np.linspace(0, 1, 101)  # where the band is given


def rates(label: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate at every threshold, rising from 0 to 1; NaN without both classes. All are (n,)."""
    order = np.argsort(-probability, kind="stable")
    ends_tie = np.append(np.diff(probability[order]) != 0, True)
    both = []
    for member in (label == 0, label == 1):
        count = np.append(0, np.cumsum((weight * member)[order])[ends_tie])
        both.append(count / count[-1] if count[-1] else np.full(len(count), np.nan))
    return both[0], both[1]


def roc_band(table: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Low and high true positive rate at `FALSE_RATES`, each a percentile interval over subjects within their fold.

    `table` as `predictions.csv`, every label known. None if one of the classes has a single subject.
    """
    if (table.groupby("label")["subject"].nunique() < ENOUGH).any():
        return None
    label, probability = table["label"].to_numpy(), table["probability"].to_numpy()
    names, member = np.unique(table["subject"], return_inverse=True)
    fold = table["fold"] if "fold" in table else pd.Series("", table.index)
    strata = [np.unique(member[fold == name]) for name in fold.unique()]
    random, curves = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        weight = np.zeros(len(names))
        for stratum in strata:
            weight[stratum] = random.multinomial(len(stratum), np.full(len(stratum), 1 / len(stratum)))
        false, true = rates(label, probability, weight[member])
        if np.isfinite([false[-1], true[-1]]).all():
            curves.append(np.interp(FALSE_RATES, false, true))
    tail = 100 * (1 - INTERVAL) / 2
    low, high = np.percentile(curves, (tail, 100 - tail), axis=0)
    return low, high


def calibration(label: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """A row for each of `BINS` bins of equal width that holds a record.

    `bin`, `count`, `predicted` (mean probability), and `observed` (share of autism) with its Wilson interval `low`,
    `high`.
    """
    from scipy.stats import binomtest

    index = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(index):
        positive, count = int(label[index == number].sum()), int((index == number).sum())
        ends = binomtest(positive, count).proportion_ci(INTERVAL, method="wilson")
        predicted = probability[index == number].mean()
        rows.append((number, count, predicted, positive / count, ends.low, ends.high))
    return pd.DataFrame(rows, columns=["bin", "count", "predicted", "observed", "low", "high"])
