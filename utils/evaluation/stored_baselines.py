"""What baselines predict, fitted once for all tests of the same people."""

import pandas as pd

from data.cohorts.cohort import Cohort
from utils.scores import baselines

CACHED_BASELINE_PREDICTIONS: dict[
    tuple, pd.DataFrame
] = {}  # what baselines predict, by the data, split, groups and standard


def predict_baselines_cached(tested_cohort: Cohort, training_cohort: Cohort | None = None) -> pd.DataFrame:
    """`baselines.predict_baselines`, once in a process: no seed decides it, and repeats with the same folds have the
    same baselines."""
    key_cohorts = filter(None, (tested_cohort, training_cohort))
    cache_key = tuple(
        (key_cohort.identity, key_cohort.rows, key_cohort.metadata.preparation, key_cohort.groups, key_cohort.standard)
        for key_cohort in key_cohorts
    )
    if cache_key not in CACHED_BASELINE_PREDICTIONS:
        CACHED_BASELINE_PREDICTIONS[cache_key] = baselines.predict_baselines(tested_cohort, training_cohort)
    return CACHED_BASELINE_PREDICTIONS[cache_key]
