"""The folder of a test on folds -> its `CrossValidation`, which goes with a model that is trained on everybody."""

import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from data.base.errors import InputError
from data.cohorts.division import Division
from utils.report.tables import COVERAGE, Tables, read_test
from utils.runs import record
from utils.runs.cross_validation import MIN_PEOPLE_PER_GROUP, CrossValidation, GroupScore
from utils.scores import calibration
from utils.scores.results import MIN_CLASS_SUBJECTS, SITE_COUNTS, UNITS, Estimate, or_none

HOW = "expected the folder of a finished run.py --test on folds"


def read_cross_validation(folder: Path, model: str) -> CrossValidation:
    """The test in a folder. Raises InputError if it is not a whole test of this model on folds, with labels."""
    found = read_test(folder)
    run = found.run
    record.read_finished_manifest(folder, f"--score {HOW}")
    if run.folds is None or run.fold:
        raise InputError(f"--score {folder} is of one split, which leaves no score of everybody; {HOW}.")
    if run.model != model:
        raise InputError(f"--score {folder} is of model {run.model}, this run of {model}; {HOW} of {model}.")
    if run.conclusion is None:
        raise InputError(
            f"--score {folder} is of participants without labels, so that it says nothing of a model; {HOW}."
        )
    counts = Counter(of.name for of in run.chosen.values())
    most = next((of for of in run.chosen.values() if of.name == counts.most_common(1)[0][0]), run)
    return CrossValidation(
        folder=os.path.abspath(folder),
        preset=most.preset,
        config=most.config,
        precision=run.precision,
        num_iters=run.step,
        cohort_sha256=run.cohort_sha256,
        folds=run.folds,
        repeats=run.repeats,
        scores=found.scores,
        groups=groups_of(found),
        conclusion=run.conclusion,
        calibration=calibration_of(found),
        lowest_coverage=lowest_coverage(found),
        chosen=dict(counts),
        marks=run.marks,
    )


def calibration_of(found: Tables) -> dict[str, Any] | None:
    """The calibration by what folds predicted; None if there were too few people."""
    table = found.probabilities
    if table is None:
        return None
    return asdict(calibration.fit(table["label"].to_numpy(int), table["probability"].to_numpy()))


def lowest_coverage(found: Tables) -> float | None:
    """The lowest share of a class whose sets of the first level held their label, at a group that was left out; None
    of random folds, or if no group has enough people."""
    table = found.calibration
    if table is None or not Division.parse(found.run.folds or "").holds_groups_out:
        return None
    of_groups = table[
        (table["measure"] == COVERAGE) & (table["level"] == calibration.LEVELS[0]) & (table["group"] != "")
    ]
    return or_none(of_groups.loc[of_groups[UNITS] >= MIN_CLASS_SUBJECTS, "value"].min())


def groups_of(found: Tables) -> tuple[GroupScore, ...]:
    """The scores of sites and of other groups with enough people of both classes."""
    sites = None if found.sites is None else found.sites.assign(kind="site", group=found.sites["site"])
    rows = [row for table in (sites, found.groups) if table is not None for _, row in table.iterrows()]
    every = [group_of(row) for row in rows]
    return tuple(group for group in every if min(group.autism, group.control) >= MIN_PEOPLE_PER_GROUP)


def group_of(row: pd.Series) -> GroupScore:
    _, autism, control = (int(row[name]) for name in SITE_COUNTS)
    auc = Estimate.in_row(row, "auc")
    return GroupScore(kind=row["kind"], group=row["group"], autism=autism, control=control, auc=auc)
