"""Predictors that read which values are missing -> what they predict if the same is missing for everybody as for most.

What is missing, and which test measured the IQ, says how a site kept its records. Where it goes with the diagnosis, a
model may read the diagnosis from it. So missingness is masked: at the test, these values are those of most training
people. The values themselves stay as they are: a number that is missing is still a median, by which a network may know
it.
"""

from collections.abc import Sequence

import pandas as pd

from utils.scores.metrics import Predictions, choose_headline_metric, estimate_score_differences, estimate_scores
from utils.scores.results import MASKED_PROBABILITY_COLUMN, UNDEFINED, Estimate


def estimate_masked_auc_and_difference(
    predictions: Predictions, repeat_prediction_tables: Sequence[pd.DataFrame], seed: int
) -> tuple[Estimate, Estimate]:
    """The AUC of the verdict where missingness is masked, and the score minus it, by the `predictions.csv` of each
    repeat; undefined if the model does not read what is missing."""
    if not all(MASKED_PROBABILITY_COLUMN in prediction_table for prediction_table in repeat_prediction_tables):
        return UNDEFINED, UNDEFINED
    masked_predictions = predictions.with_probabilities(
        [prediction_table[MASKED_PROBABILITY_COLUMN].to_numpy() for prediction_table in repeat_prediction_tables]
    )
    masked_estimate_by_metric = estimate_scores(masked_predictions, seed)
    difference_by_metric = estimate_score_differences(predictions, masked_predictions, seed)
    headline_metric = choose_headline_metric(masked_estimate_by_metric)
    return masked_estimate_by_metric[headline_metric], difference_by_metric[headline_metric]
