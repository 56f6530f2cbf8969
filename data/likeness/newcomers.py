"""New people beside the training people whom they were prepared like -> findings: what invalidates each, or all.

The comparison is that of a test (`reference.compare_with_reference`), with means and ranges that `convert --like` keeps
beside the records. So a mirrored map is found even if all other new ones are mirrored, too.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.base.terminal import format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.findings import CohortFindings, Findings
from data.cohorts.problems import Problem
from data.conversion.leaks import MIN_SITE_VALUES, MIN_UNIT_RATIO
from data.conversion.opposed import MIN_BETWEEN_TO_WITHIN_RATIO, MIN_COMPARED_PARCELS, MIN_GROUP_PEOPLE
from data.likeness.reasons import OTHER_ATLAS_WORDS, PERSON_VIEW, Range, Ranges, find_advice, find_measure
from data.likeness.reference import compare_with_reference, load_reference
from data.likeness.scans import CONNECTOME_VIEW

MAX_EXAMPLE_REASONS = 2  # of the person who is named
# correlation of training people with their mean connectome; below it, other parcels cannot be recognised
MIN_TRAINING_CORRELATION = 0.3


def check_newcomers(
    cohort: Cohort, usable_record_indices: Sequence[int], cohort_findings: CohortFindings
) -> list[list[str]] | None:
    """Findings on the new people of a cohort, and for each record at the positions `usable_record_indices` the
    sentences that invalidate it; None if no record is usable, or if the cohort does not describe the training people
    whom these were prepared like. Raises InputError for damage."""
    reference = load_reference(cohort)
    if reference is None or not usable_record_indices:
        return None
    comparison = compare_with_reference(reference, cohort, usable_record_indices)
    reference_ranges = reference.constants.ranges
    rows = [cohort.rows[record_index] for record_index in usable_record_indices]

    atypical_positions = [position for position, reasons in enumerate(comparison.reasons_per_record) if reasons]
    if atypical_positions:
        example_row = rows[atypical_positions[0]]
        example_reasons = comparison.reasons_per_record[atypical_positions[0]][:MAX_EXAMPLE_REASONS]
        cohort_findings.participants.notes.insert(
            0,
            f"unlike the training participants, as a test will list: {len(atypical_positions)} of "
            f"{format_participants(len(rows))}, such as {example_row.file}: {'; '.join(example_reasons)}",
        )

    is_repeated_subject = pd.Series([row.subject for row in rows]).duplicated().to_numpy()
    person_measures = comparison.measure_table[~is_repeated_subject]
    check_number_units(person_measures, reference_ranges, cohort_findings.phenotype)
    has_foreign_parcels = check_parcels(cohort, person_measures, reference_ranges, cohort_findings.connectomes)

    invalidating_sentences_per_record = list[list[str]]()
    for record_reasons in comparison.reasons_per_record:
        invalidating_sentences = [sentence for sentence in record_reasons if find_advice(sentence)]
        if has_foreign_parcels:  # which is reported once, of all
            invalidating_sentences = [
                sentence for sentence in invalidating_sentences if not sentence.endswith(OTHER_ATLAS_WORDS)
            ]
        invalidating_sentences_per_record.append(invalidating_sentences)
    return invalidating_sentences_per_record


def check_number_units(person_measures: pd.DataFrame, reference_ranges: Ranges, phenotype_findings: Findings) -> None:
    """Numbers of new people that are all far above or below those of the training people, as in another unit, are a
    problem. `person_measures` have a row a person and columns (view, measure)."""
    for measure_name, usual_range in reference_ranges.get(PERSON_VIEW, {}).items():
        if (PERSON_VIEW, measure_name) not in person_measures:
            continue
        to_plain_units = find_measure(PERSON_VIEW, measure_name).to_plain_units
        plain_values = person_measures[PERSON_VIEW, measure_name].dropna().map(to_plain_units)
        usual_low = to_plain_units(usual_range.low)
        usual_middle = to_plain_units(usual_range.middle)
        usual_high = to_plain_units(usual_range.high)
        if len(plain_values) < MIN_SITE_VALUES or min(plain_values.min(), usual_middle) <= 0:
            continue
        is_above = plain_values.median() > MIN_UNIT_RATIO * usual_middle and plain_values.min() > usual_high
        is_below = usual_middle > MIN_UNIT_RATIO * plain_values.median() and plain_values.max() < usual_low
        if is_above or is_below:
            problem_text = (
                f"{measure_name} has the median {plain_values.median():.3g}, that of the training participants "
                f"{usual_middle:.3g} (usually {usual_low:.3g} to {usual_high:.3g}): another unit, as months in place "
                "of years? Write the same, and convert again"
            )
            phenotype_findings.problems.append(Problem(f"another-unit: {measure_name}", problem_text))


def check_parcels(
    cohort: Cohort, person_measures: pd.DataFrame, reference_ranges: Ranges, connectome_findings: Findings
) -> bool:
    """Whether the connectomes of several new people have too little in common with the mean of the training people,
    which is a problem. `person_measures` are those of `check_number_units`."""
    if cohort.connectomes is None or len(cohort.connectomes.parcel_names) < MIN_COMPARED_PARCELS:
        return False
    usual_similarity_range: Range | None = reference_ranges.get(CONNECTOME_VIEW, {}).get("alike")
    if usual_similarity_range is None or (CONNECTOME_VIEW, "alike") not in person_measures:
        return False
    training_correlation = np.tanh(usual_similarity_range.middle)
    if training_correlation < MIN_TRAINING_CORRELATION:
        return False

    new_correlations = np.tanh(person_measures[CONNECTOME_VIEW, "alike"].dropna())  # of people with the training mean
    median_correlation = new_correlations.median()
    if len(new_correlations) < MIN_GROUP_PEOPLE:
        return False
    if median_correlation > MIN_BETWEEN_TO_WITHIN_RATIO * training_correlation:
        return False
    problem_text = (
        f"the connectomes of {format_participants(len(new_correlations), 'new')} correlate by "
        f"{max(median_correlation, 0):.2f} with the mean of the training participants, who do by "
        f"{training_correlation:.2f}, as if their parcels were those of another atlas, or in another order. Make the "
        "series again with the atlas of the training, and convert again"
    )
    connectome_findings.problems.append(Problem(f"other-parcels: {len(new_correlations)}", problem_text))
    return True
