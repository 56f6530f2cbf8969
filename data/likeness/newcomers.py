"""New people beside those whom they were prepared like -> findings: what each would be invalid by, and what all are.

The comparison is that of a test (`reference.compared`), with means and ranges that `convert --like` keeps beside the
records. So a mirrored map is told though all other new ones are mirrored, too.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.base.terminal import participants
from data.cohorts.cohort import Cohort
from data.cohorts.findings import CohortFindings, Findings
from data.conversion.leaks import MIN_OF_SITE, MIN_RATIO
from data.conversion.opposed import LEAST_IN_COMMON, MIN_GROUP, MIN_PARCELS
from data.likeness.reasons import OTHER_ATLAS, PERSON, Range, Ranges, advice_on, measure_of
from data.likeness.reference import compared, kept_reference
from data.likeness.scans import CONNECTOME

REASONS = 2  # of the person who is named
LEAST_USUAL = 0.3  # correlation of training people with their mean connectome; without any likeness nothing can oppose


def check_newcomers(cohort: Cohort, usable: Sequence[int], findings: CohortFindings) -> list[list[str]] | None:
    """Findings on the new people of a cohort, and for each record at the `usable` positions the sentences that
    invalidate it; None if those are not known whom the people were prepared like. Raises InputError for damage."""
    reference = kept_reference(cohort)
    if reference is None or not usable:
        return None
    beside = compared(reference, cohort, usable)
    ranges, reasons = reference.constants.ranges, [list(of_record) for of_record in beside.reasons]
    rows = [cohort.rows[index] for index in usable]
    if atypical := [(row, texts) for row, texts in zip(rows, reasons, strict=True) if texts]:
        row, texts = atypical[0]
        findings.participants.notes.insert(
            0,
            f"unlike the training participants, as a test will list: {len(atypical)} of {participants(len(rows))}, "
            f"such as {row.file}: {'; '.join(texts[:REASONS])}",
        )
    of_people = beside.values[~pd.Series([row.subject for row in rows]).duplicated().to_numpy()]
    check_units(of_people, ranges, findings.phenotype)
    invalid = [[text for text in texts if advice_on(text)] for texts in reasons]
    if check_parcels(cohort, of_people, ranges, findings.connectomes):  # which tells all of them as one
        invalid = [[text for text in texts if not text.endswith(OTHER_ATLAS)] for texts in invalid]
    return invalid


def check_units(values: pd.DataFrame, ranges: Ranges, findings: Findings) -> None:
    """Numbers of new people that are all far above or below those of the training people, as in another unit, are a
    problem. `values` have a row a person and columns (view, measure)."""
    for name, usual in ranges.get(PERSON, {}).items():
        if (PERSON, name) not in values:
            continue
        as_told = measure_of(PERSON, name).as_told
        numbers = values[PERSON, name].dropna().map(as_told)
        low, middle, high = map(as_told, (usual.low, usual.middle, usual.high))
        if len(numbers) < MIN_OF_SITE or min(numbers.min(), middle) <= 0:
            continue
        is_above = numbers.median() > MIN_RATIO * middle and numbers.min() > high
        is_below = middle > MIN_RATIO * numbers.median() and numbers.max() < low
        if is_above or is_below:
            findings.problems.append(
                f"{name} has the median {numbers.median():.3g}, that of the training participants {middle:.3g} "
                f"(usually {low:.3g} to {high:.3g}): another unit, as months in place of years? Write the same, and "
                "convert again"
            )


def check_parcels(cohort: Cohort, values: pd.DataFrame, ranges: Ranges, findings: Findings) -> bool:
    """Whether the connectomes of several new people have too little in common with the mean of the training people,
    which is a problem. `values` are those of `check_units`."""
    usual: Range | None = ranges.get(CONNECTOME, {}).get("alike")
    if cohort.connectomes is None or len(cohort.connectomes.parcels) < MIN_PARCELS:
        return False
    if usual is None or (CONNECTOME, "alike") not in values or np.tanh(usual.middle) < LEAST_USUAL:
        return False
    likeness = np.tanh(values[CONNECTOME, "alike"].dropna())
    middle = likeness.median()
    if len(likeness) < MIN_GROUP or middle > LEAST_IN_COMMON * np.tanh(usual.middle):
        return False
    findings.problems.append(
        f"the connectomes of {participants(len(likeness), 'new')} correlate by {max(middle, 0):.2f} with the mean "
        f"of the training participants, who do by {np.tanh(usual.middle):.2f}, as if their parcels were those of "
        "another atlas, or in another order. Make the series again with the atlas of the training, and convert again"
    )
    return True
