"""A test in which no tested person was used for training -> `external.csv` and `out_of_distribution.csv`: external
validity.

The score stands beside that of the training; calibration says whether probabilities are what they say here; the shift
says in what these people differ from the training people, and `out_of_distribution.csv` who of them is unlike all of
these. What a model of everybody says of each of them goes to `participants.csv`."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy import stats

from data.base.errors import InputError
from data.base.thresholds import CONFIDENCE_LEVEL, MIN_CLASS_SUBJECTS
from data.cohorts.cohort import Cohort
from data.likeness.reasons import PERSON_VIEW, SDS_TO_RANGE_END, find_measure
from data.likeness.reference import UNKNOWN_VALUE_CATEGORY, TrainingReference, compare_with_reference, parse_categories
from utils.evaluation import people
from utils.evaluation.comparisons import write_baseline_predictions
from utils.evaluation.probabilities import estimate_label_agreement
from utils.report.tables import EvaluationResults
from utils.runs.cross_validation import CrossValidation
from utils.runs.run import Run
from utils.scores.calibration import MIN_CALIBRATED_SD, Calibration
from utils.scores.conclusion import NOBODY_COMPARED_WARNING, UNKNOWN_TRAINING_PEOPLE_REASON
from utils.scores.metrics import Predictions, estimate_scores
from utils.scores.results import OUT_OF_DISTRIBUTION, OUT_OF_DISTRIBUTION_COLUMNS, UNDEFINED, Estimate
from utils.scores.statistics import estimate_share

EXTERNAL_METRICS = (
    "auc_sites",
    "auc",
    "accuracy",
    "balanced_accuracy",
    "brier",
)  # metrics that are shown beside those of the training
ExternalRow = dict[str, object]


def write_external_tables(results: EvaluationResults) -> list[str]:
    """Writes `baseline_predictions.csv`. If no tested person was used for training, it also writes `external.csv` and
    `out_of_distribution.csv`, as far as anything is known, and by a model of everybody `participants.csv`. Returns the
    warnings that belong beside these, or why there are none."""
    run = results.run
    if run.cohort.list_split_subjects("train") and not run.everybody:
        return write_baseline_predictions(results)
    prediction_table = results.table_by_name["predictions"]
    labelled_predictions = prediction_table[prediction_table["label"].notna()]
    calibration = people.load_calibration(run)
    reference, warnings = load_training_reference(run)
    warnings += write_baseline_predictions(results)

    external_rows: list[ExternalRow] = []
    if len(labelled_predictions):
        predictions = Predictions.from_tables(labelled_predictions)
        external_rows += make_external_score_and_calibration_rows(
            predictions, run.seed, run.cross_validation, calibration
        )
    out_of_distribution_records = None
    if reference:
        out_of_distribution_records, shift_rows = compare_with_training(reference, run.cohort)
        results.write_result_table("out_of_distribution", out_of_distribution_records)
        external_rows += shift_rows
    if external_rows:
        results.write_result_table("external", pd.DataFrame(external_rows))
    if not run.everybody:
        return warnings
    participant_warnings = people.add_participants_table(
        results, prediction_table, calibration, out_of_distribution_records
    )
    return [*participant_warnings, *warnings]


def load_training_reference(run: Run) -> tuple[TrainingReference | None, list[str]]:
    """What the people who trained a network are like, if their cohort is there unchanged, or a bundle says it, and has
    the same maps; and warnings of what is not known of them."""
    training_cohort = run.predictor.find_training_cohort()
    warnings = (
        []
        if training_cohort and training_cohort.map_names == run.cohort.map_names
        else [run.predictor.unknown_overlap_warning]
    )
    reason = UNKNOWN_TRAINING_PEOPLE_REASON
    try:
        training_reference = run.predictor.load_training_people_reference()
    except InputError as error:  # too few people
        training_reference = None
        reason = str(error)
    if training_reference and training_reference.constants.maps == run.cohort.map_names:
        return training_reference, warnings
    return None, [*warnings, NOBODY_COMPARED_WARNING.format(reason)]


def compare_with_training(reference: TrainingReference, cohort: Cohort) -> tuple[pd.DataFrame, list[ExternalRow]]:
    """`out_of_distribution.csv` of a cohort's test records, and rows of their share and of shifts."""
    test_indices = cohort.find_split_record_indices("test")
    reference_comparison = compare_with_reference(reference, cohort, test_indices)
    test_rows = [cohort.rows[test_index] for test_index in test_indices]
    reason_table = pd.DataFrame([(row.file, row.subject) for row in test_rows], columns=OUT_OF_DISTRIBUTION_COLUMNS[:2])
    reason_table[OUT_OF_DISTRIBUTION_COLUMNS[2]] = [
        "; ".join(reasons) for reasons in reference_comparison.reasons_per_record
    ]
    out_of_distribution_records = reason_table[reason_table[OUT_OF_DISTRIBUTION_COLUMNS[2]] != ""]
    is_first_record = ~reason_table["subject"].duplicated().to_numpy()
    outlier_share = estimate_share(len(out_of_distribution_records), len(reason_table))
    row: ExternalRow = {
        "kind": OUT_OF_DISTRIBUTION,
        "measure": OUT_OF_DISTRIBUTION,
        **outlier_share.to_cells(),
        "participants": len(reason_table),
    }
    return out_of_distribution_records, [
        row,
        *make_shift_rows(
            reference,
            reference_comparison.measure_table[is_first_record],
            reference_comparison.people_table[is_first_record],
        ),
    ]  # each person once


def make_external_score_and_calibration_rows(
    predictions: Predictions,
    seed: int,
    cross_validation: CrossValidation | None = None,
    calibration: Calibration | None = None,
) -> Iterator[ExternalRow]:
    """Rows of the scores, with those of the training's test, `cross_validation`, beside them; and of how well
    probabilities agree with labels, as the networks predict them and after `calibration`."""
    estimate_by_metric = estimate_scores(predictions, seed)
    for measure_name in EXTERNAL_METRICS:
        training_score = cross_validation.scores.get(measure_name) if cross_validation else None
        training_cells: ExternalRow = {}
        if cross_validation and training_score:
            training_cells = {
                "training_people": cross_validation.conclusion.participants,
                "how": cross_validation.division_text,
                **training_score.to_cells("training"),
            }
        if measure_name in estimate_by_metric or training_score:
            yield {
                "kind": "score",
                "measure": measure_name,
                **estimate_by_metric.get(measure_name, UNDEFINED).to_cells(),
                **training_cells,
            }
    estimates_by_kind = {"calibration": estimate_label_agreement(predictions, seed)}
    if calibration:
        calibrated_probabilities = calibration.calibrate(predictions.probabilities)
        estimates_by_kind["calibrated"] = estimate_label_agreement(
            predictions.with_probabilities(calibrated_probabilities), seed, MIN_CALIBRATED_SD
        )
    for calibration_kind, estimate_by_measure in estimates_by_kind.items():
        for measure_name, estimate in estimate_by_measure.items():
            yield {"kind": calibration_kind, "measure": measure_name, **estimate.to_cells()}


def make_shift_rows(
    reference: TrainingReference, measure_values: pd.DataFrame, covariate_table: pd.DataFrame
) -> Iterator[ExternalRow]:
    """How far people with these measures (people, (view, measure)) and covariates lie from the training people: the
    median of each measure, with the interval of a sign test, and the share of each category."""
    for (view, name), measure_column in measure_values.items():
        measured_values = measure_column.dropna()
        training_range = reference.constants.ranges.get(view, {}).get(name)
        if training_range is None or measured_values.empty:
            continue
        measure = find_measure(view, name)
        shift_kind, measure_text = (
            ("shift", name) if view == PERSON_VIEW else ("shift of maps", f"{view}: {measure.description}")
        )
        interval_ends = stats.quantile_test(measured_values, p=0.5).confidence_interval(CONFIDENCE_LEVEL)
        training_sd = sum(training_range.compute_half_ranges(measure.min_robust_sd)) / (2 * SDS_TO_RANGE_END)
        yield {"kind": shift_kind, "measure": measure_text} | make_shift_cells(
            measured_values.median(), interval_ends, training_range.middle, training_sd, len(measured_values)
        )
    for name, reference_share_by_category in reference.constants.categories.items():
        category_by_person = (
            parse_categories(covariate_table[name]) if name in covariate_table else pd.Series(dtype=str)
        )
        category_by_person = category_by_person[category_by_person != UNKNOWN_VALUE_CATEGORY]
        training_share_by_category = pd.Series(reference_share_by_category, dtype=float).drop(
            UNKNOWN_VALUE_CATEGORY, errors="ignore"
        )
        training_share_by_category /= training_share_by_category.sum()  # of those who are known
        for category, training_share in (
            training_share_by_category[-1:].items()
            if len(training_share_by_category) == 2
            else training_share_by_category.items()
        ):
            if measured_count := len(category_by_person):
                tested_share, *interval_ends = estimate_share(
                    (category_by_person == category).sum(), measured_count
                ).value_low_high
                shift_cells = make_shift_cells(
                    tested_share,
                    interval_ends,
                    training_share,
                    np.sqrt(max(training_share * (1 - training_share), 1e-4)),
                    measured_count,
                )
                yield {"kind": "shift", "measure": f"{name} {category}"} | shift_cells


def make_shift_cells(
    tested_value: float, interval_ends: Iterable[float], training_value: float, training_sd: float, people_count: int
) -> ExternalRow:
    """A value of `people_count` people minus that of the training people, in standard deviations of the latter. Its
    interval ignores that the training people are a sample."""
    low, high = interval_ends if people_count >= MIN_CLASS_SUBJECTS else (np.nan, np.nan)
    shift_estimate = Estimate.from_numbers(
        *((interval_value - training_value) / training_sd for interval_value in (tested_value, low, high))
    )
    return {**shift_estimate.to_cells(), "participants": people_count}
