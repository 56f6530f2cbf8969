"""`--bundle FILE.zip`: a test or a blackout by the networks of a bundle, with nothing of who trained them at hand.

What the networks say of each person in a test goes to `people.csv`: the calibrated probability, its range, the set of
labels.
`predictions.csv` has the networks' own probabilities, as a test by the checkpoint would write them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.tables import read_frame, write_frame
from data.cohorts.cohort import Cohort
from data.cohorts.records import CLASSES
from data.cohorts.rows import listed
from data.cohorts.variants import with_phenotype
from utils.bundle.model import Bundle, BundleFolder, Member
from utils.runs.plan import Asked
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


def bundle_of(run: Run) -> Bundle | None:
    """The bundle whose networks do the job; None if those of a checkpoint do."""
    return run.checkpoints.bundle if isinstance(run.checkpoints, BundleFolder) else None


def networks_of(run: Run) -> list[tuple[Run, Any]]:
    """Each network that does the job, and the run on the cohort as this network reads it. TensorFlow must have been
    started."""
    if (bundle := bundle_of(run)) is None:
        from utils.training.network import restored_network

        return [(run, restored_network(run))]
    return [(of, network_of(bundle, at, run)) for at, of in enumerate(readers(run))]


def readers(run: Run) -> list[Run]:
    """The run on the cohort as each network of `networks_of` reads it."""
    if (bundle := bundle_of(run)) is None:
        return [run]
    return [replace(run, cohort=read_by(of, run.cohort)) for of in bundle.model.members]


def read_by(member: Member, cohort: Cohort) -> Cohort:
    """The cohort, with the phenotype as a network reads it."""
    return with_phenotype(cohort, member.phenotype_scale, member.phenotype_shift) if member.phenotype_scale else cohort


def network_of(bundle: Bundle, number: int, run: Run) -> Any:
    """A trained network of a bundle. Raises InputError if its weights are of another network."""
    network = run.model.build(run.config, run.cohort)
    weights = bundle.weights(number)
    if [values.shape for values in weights] != [values.shape for values in network.weights]:
        raise bundle.of_another_network()
    network.set_weights(weights)
    return network


def with_bundle(asked: Asked, path: Path) -> Asked:
    """The same by the networks of a bundle, as by a checkpoint. Raises InputError for what a bundle decides."""
    bundle = Bundle.open(path)
    model = bundle.model.model
    if "model" in asked.given and asked.model != model:
        raise InputError(f"{path} is of {model}, not {asked.model}; leave --model out.")
    if isinstance(prevalence := getattr(asked.options, "prevalence", None), float):
        bundle.check_prevalence(prevalence)
    print(*bundle.lines(), sep="\n")
    return replace(asked, model=model, trained=BundleFolder(path, "abide-bundle", bundle=bundle))


@dataclass(frozen=True)
class PersonPrediction:
    """`raw` is the mean of the networks' probabilities of autism, `probability` the calibrated one at the prevalence of
    use. `low` and `high` are the least and the greatest of single networks, calibrated. `labels` is the set. All but
    `raw` are None without a calibration."""

    raw: float
    probability: float | None
    low: float | None
    high: float | None
    labels: tuple[str, ...] | None


def predictions_of(
    calibration: Calibration | None, each: np.ndarray, prevalence: float | None
) -> list[PersonPrediction]:
    """Probabilities of autism by each network (networks, n) -> what is said of each person."""
    raw = each.mean(0)
    if calibration is None:
        return [PersonPrediction(float(value), None, None, None, None) for value in raw]
    moved = np.stack([calibration.probability(values, prevalence) for values in (raw, *each)])
    sets = calibration.sets(raw, LEVEL)
    labels = [tuple(name for name, is_in in zip(CLASSES, row, strict=True) if is_in) for row in sets]
    columns = zip(raw.tolist(), moved[0].tolist(), moved.min(0).tolist(), moved.max(0).tolist(), labels, strict=True)
    return [PersonPrediction(*values) for values in columns]


def write_people(run: Run, each: np.ndarray, indices: np.ndarray, prevalence: float | None) -> list[str]:
    """Writes `people.csv` of the records at these positions, with the reasons of `unlike.csv`, for a `prevalence`;
    returns what must be said of it."""
    bundle, path, own = bundle_of(run), run.out_dir / TABLES["unlike"].file, TABLES["people"]
    assert bundle
    found = predictions_of(bundle.calibration, each, prevalence)
    rows = [run.cohort.rows[index] for index in indices]
    names = pd.DataFrame({"file": [row.file for row in rows], "subject": [row.subject for row in rows]})
    table = pd.concat([names, pd.DataFrame(found).assign(labels=[labels_of(person) for person in found])], axis=1)
    notes = [*bundle.notes, promises_of(bundle.calibration, prevalence)]
    if bundle.reference is None:
        notes.append(NOT_COMPARED)
    else:
        reasons = read_frame(path).set_index("file")["reasons"] if path.is_file() else pd.Series(dtype=str)
        table["unlike"] = table["file"].map(reasons).astype(object).fillna("")
        flagged = table.loc[table["unlike"] != "", "subject"].unique().tolist()
        why = f", so that less is known of their predictions; {own.file} says why: {listed(flagged)}" if flagged else ""
        notes.append(f"Unlike the training people: {len(flagged)} of {table['subject'].nunique()} people{why}.")
    write_frame(run.out_dir / own.file, table, DIGITS)
    return notes


def labels_of(person: PersonPrediction) -> str:
    """The set of labels as text; nothing without a calibration."""
    return "" if person.labels is None else " or ".join(person.labels) or "none"


def promises_of(calibration: Calibration | None, prevalence: float | None) -> str:
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
