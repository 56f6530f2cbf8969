"""Labels and probabilities -> the band of a ROC curve, calibration by bins."""

import numpy as np
import pandas as pd

from utils.metrics import BINS, Predictions
from utils.statistics import CONFIDENCE, MIN_SUBJECTS, bootstrap

BAND_RESAMPLES = 500  # a quarter of the metrics': each draws a whole curve
FALSE_RATES = np.linspace(0, 1, 101)  # where the band is given


def roc_band(predictions: Predictions, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Low and high true positive rate at `FALSE_RATES`, each a percentile interval over subjects within their fold.

    None if there is no interval, as where one of the classes has a single subject.
    """
    from sklearn.metrics import roc_curve

    label, probability = predictions.label, predictions.probability
    names, first, member = np.unique(predictions.subject, return_index=True, return_inverse=True)
    if any(len(np.unique(member[label == value])) < MIN_SUBJECTS for value in (0, 1)):
        return None

    def curve(weight: np.ndarray) -> np.ndarray:
        if len(np.unique(label[weight > 0])) < 2:
            return np.full(len(FALSE_RATES), np.nan)
        return np.interp(FALSE_RATES, *roc_curve(label, probability, sample_weight=weight)[:2])

    strata = None if predictions.fold is None else predictions.fold[first]
    low, high = bootstrap(
        lambda weight: np.stack([curve(row) for row in weight[:, member]]),
        len(names), np.random.default_rng(seed), BAND_RESAMPLES, strata,
    )  # fmt: skip
    return None if np.isnan(low).any() else (low, high)


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
        ends = binomtest(positive, count).proportion_ci(CONFIDENCE, method="wilson")
        predicted = probability[index == number].mean()
        rows.append((number, count, predicted, positive / count, ends.low, ends.high))
    return pd.DataFrame(rows, columns=["bin", "count", "predicted", "observed", "low", "high"])
