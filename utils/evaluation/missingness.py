"""Networks that read which values are missing -> what they predict if as much is missing of everybody as of most.

What is missing, and which test measured the IQ, says how a site kept its records. Where it goes with the diagnosis, a
network may read the diagnosis from it. So missingness is masked: the network is told, at the test, that these values
are those of most training people. The values themselves stay as they are: a number that is missing is still a median,
by which a network may know it.
"""

from collections.abc import Sequence

import pandas as pd

from data.cohorts.cohort import Cohort
from data.cohorts.variants import equalise_recording
from utils.runs.run import Run
from utils.scores.metrics import Predictions, differences, headline, with_intervals
from utils.scores.results import MASKED, UNDEFINED, Estimate


def masked_cohort(run: Run) -> tuple[Cohort, ...]:
    """The cohort in whose records missingness is masked; none if the network reads no such values."""
    cohort = equalise_recording(run.cohort) if "phenotype" in run.model.input_names else None
    return (cohort,) if cohort else ()


def masked(predictions: Predictions, every: Sequence[pd.DataFrame], seed: int) -> tuple[Estimate, Estimate]:
    """The AUC of the verdict where missingness is masked, and the score minus it, by the `predictions.csv` of each
    repeat; undefined if the network does not read what is missing."""
    if not all(MASKED in table for table in every):
        return UNDEFINED, UNDEFINED
    other = predictions.with_probabilities([table[MASKED].to_numpy() for table in every])
    found, less = with_intervals(other, seed), differences(predictions, other, seed)
    return found[headline(found)], less[headline(found)]
