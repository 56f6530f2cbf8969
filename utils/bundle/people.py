"""What a bundle says of each person that it is shown -> `people.csv`: calibrated probability, its range, set of labels.

`predictions.csv` has the networks' own probabilities, as a test by the checkpoint would write them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.base.tables import read_frame, write_frame
from data.cohorts.records import CLASSES
from data.cohorts.rows import listed
from utils.bundle.run import bundle_of
from utils.runs.run import Run
from utils.scores.calibration import LEVELS, Calibration
from utils.scores.results import TABLES

LEVEL = LEVELS[0]
NO_CALIBRATION = (
    "Probabilities are not calibrated and there are no sets of labels, since no test on folds with enough people goes "
    "with this bundle."
)
NOT_COMPARED = "Whether people are like the training people is not known: these were too few to tell."
DIGITS = 6


@dataclass(frozen=True)
class Person:
    """`raw` is the mean of the networks' probabilities of autism, `probability` the calibrated one at the prevalence of
    use, `low` and `high` the least and the greatest of single networks, calibrated; `labels` is the set. All but `raw`
    are None without a calibration."""

    raw: float
    probability: float | None
    low: float | None
    high: float | None
    labels: tuple[str, ...] | None


def people(calibration: Calibration | None, each: np.ndarray, prevalence: float | None) -> list[Person]:
    """Probabilities of autism by each network (networks, n) -> what is said of each person."""
    raw = each.mean(0)
    if calibration is None:
        return [Person(float(value), None, None, None, None) for value in raw]
    moved = np.stack([calibration.probability(values, prevalence) for values in (raw, *each)])
    sets = calibration.sets(raw, LEVEL)
    labels = [tuple(name for name, is_in in zip(CLASSES, row, strict=True) if is_in) for row in sets]
    columns = zip(raw.tolist(), moved[0].tolist(), moved.min(0).tolist(), moved.max(0).tolist(), labels, strict=True)
    return [Person(*values) for values in columns]


def write(run: Run, each: np.ndarray, indices: np.ndarray, prevalence: float | None) -> list[str]:
    """Writes `people.csv` of the records at these positions, with the reasons of `unlike.csv`, for a `prevalence`;
    returns what must be said of it."""
    bundle, path, own = bundle_of(run), run.out_dir / TABLES["unlike"].file, TABLES["people"]
    assert bundle
    found = people(bundle.calibration, each, prevalence)
    rows = [run.cohort.rows[index] for index in indices]
    names = pd.DataFrame({"file": [row.file for row in rows], "subject": [row.subject for row in rows]})
    table = pd.concat([names, pd.DataFrame(found).assign(labels=[said(person) for person in found])], axis=1)
    notes = [explained(bundle.calibration, prevalence)]
    if bundle.reference is None:
        notes.append(NOT_COMPARED)
    else:
        reasons = read_frame(path).set_index("file")["reasons"] if path.is_file() else pd.Series(dtype=str)
        table["unlike"] = table["file"].map(reasons).astype(object).fillna("")
        flagged = table.loc[table["unlike"] != "", "subject"].unique().tolist()
        why = f", so that less is known of their predictions; {own.file} says why: {listed(flagged)}" if flagged else ""
        notes.append(f"Unlike the training people: {len(flagged)} of {table['subject'].nunique()} people{why}.")
    write_frame(run.out_dir / own.file, table, own.texts, DIGITS)
    return notes


def said(person: Person) -> str:
    """The set of labels as text; nothing without a calibration."""
    return "" if person.labels is None else " or ".join(person.labels) or "none"


def explained(calibration: Calibration | None, prevalence: float | None) -> str:
    """What probabilities and sets promise, and to whom."""
    if calibration is None:
        return NO_CALIBRATION
    promise = (
        f"Calibrated probabilities are for a share of autism of {prevalence or calibration.prevalence:.3g}"
        f"{'' if prevalence else ', that of the training people; --prevalence names another one'}."
    )
    sets = f" Sets of labels hold the true one for {LEVEL:.0%} of each class"
    observed = [of for of in calibration.observed.coverage if of.level == LEVEL] if calibration.observed else []
    lowest = [of.lowest for both in observed for of in (both.control, both.autism) if of.lowest is not None]
    if calibration.how.isdigit() or not lowest:
        return f"{promise}{sets}, of people of sites that trained the networks; at a new site nobody knows."
    return (
        f"{promise}{sets}, if people are like those of the sites by which they were found; at one site that was left "
        f"out they held it for {min(lowest):.0%} of a class, and at yours nobody knows."
    )
