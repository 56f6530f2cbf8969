"""Networks that read which values are missing -> their score if as much is missing of everybody as of most.

What is missing, and which test measured the IQ, says how a site kept its records. Where it goes with the diagnosis, a
network may read the diagnosis from it. So it is told, at the test, that these values are those of most training people.
The values themselves stay as they are: a number that is missing is still a median, by which a network may know it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.cohorts.cohort import Cohort
from data.cohorts.variants import recorded_alike
from utils.evaluation.comparisons import compared
from utils.report.tables import read_table, write_table
from utils.report.texts import paragraph
from utils.runs.run import Run
from utils.scores.baselines import LOGISTIC
from utils.scores.features import MISSINGNESS
from utils.scores.metrics import headline
from utils.scores.results import ALIKE


def told_alike(run: Run) -> tuple[Cohort, ...]:
    """The cohort whose records are told alike; none if the network reads no such values."""
    cohort = recorded_alike(run.cohort) if "phenotype" in run.model.reads else None
    return (cohort,) if cohort else ()


def write_alike(run: Run, probability: np.ndarray) -> None:
    """Adds what the network says of the tested records (n,) if these are told alike to `baseline_predictions.csv`."""
    files = [run.cohort.rows[at].file for at in run.cohort.indices("test")]
    baselines = read_table(run, "baseline_predictions")
    known = baselines.set_index("file") if len(baselines) else pd.DataFrame(index=pd.Index(files, name="file"))
    write_table(run, "baseline_predictions", known.assign(**{ALIKE: pd.Series(probability, files)}).reset_index())


def sentence(rows: Sequence[dict]) -> str:
    """How much of the score is what is missing, by the rows of `baselines.csv`. Empty if the network does not read it,
    or
    if nothing can be concluded of the score."""
    found = {one.name: one for one in compared(rows)}
    alike, baseline = found.get(ALIKE), found.get(f"{MISSINGNESS}, {LOGISTIC}")
    if alike is None or alike.less.low is None:
        return ""
    return paragraph("missingness", alike=alike, baseline=baseline, auc=headline(rows[0]))
