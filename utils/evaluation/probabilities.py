"""Predictions of people who were left out by groups -> `probabilities.csv`, what calibration on all other groups gives
for each person, and `calibration.csv`, how well that did."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from data.base.effort import EFFORT
from data.base.thresholds import MIN_CLASS_SUBJECTS
from data.tables.vocabulary import CLASS_NAMES
from utils.report.tables import (
    BOTH_LABELS,
    COLUMN_BY_PROBABILITY_KIND,
    COVERAGE_MEASURE,
    NO_LABEL,
    ONE_LABEL,
    make_label_set_column_name,
)
from utils.scores.calibration import (
    COVERAGE_LEVELS,
    MIN_CALIBRATED_SD,
    calibrate_left_out_groups,
    compute_calibration_measures,
    is_calibration_possible,
)
from utils.scores.metrics import Predictions
from utils.scores.results import CALIBRATION_COLUMNS, CLUSTER_COUNT_COLUMN, SAME_SCAN_COLUMN, UNDEFINED, Estimate
from utils.scores.statistics import estimate_share

CalibrationRow = dict[str, object]
CALIBRATION_TEXT_COLUMNS = ("probabilities", "group", "diagnosis")  # columns of text that not every row has
SET_SIZE_MEASURES = (NO_LABEL, ONE_LABEL, BOTH_LABELS)  # of a set, by its number of labels
MAX_INTERVAL_SLOPE = 1e3  # what the infinite slope of a resample counts as in an interval


def make_probability_table(prediction_table: pd.DataFrame) -> pd.DataFrame:
    """`probabilities.csv` of rows of `predictions.csv` whose label is known, with their folds: a row a person, by the
    first record; no rows if there are too few people for a calibration."""
    column_names = ["file", "subject", "site", "fold", "label", "probability"]
    if SAME_SCAN_COLUMN in prediction_table:
        column_names.append(SAME_SCAN_COLUMN)
    first_records = prediction_table.drop_duplicates("subject")[column_names]
    labels = first_records["label"].to_numpy()
    raw_probabilities = first_records["probability"].to_numpy()
    fold_names = first_records["fold"].to_numpy()
    if not is_calibration_possible(labels, fold_names):
        return first_records.iloc[:0]
    fold_count_by_site = first_records.groupby("site")["fold"].nunique()
    # whether sites were seen by the models that predict their people
    has_seen_sites = len(fold_count_by_site) > 1 and fold_count_by_site.max() > 1
    calibrated_probabilities, prevalence_per_person, label_sets = calibrate_left_out_groups(
        labels, raw_probabilities, fold_names, first_records["site"].to_numpy() if has_seen_sites else None
    )
    control_name, autism_name = CLASS_NAMES
    # by whether control is in the set, and autism
    set_name_by_membership = np.array([[NO_LABEL, autism_name], [control_name, BOTH_LABELS]])
    set_names_by_column = {}
    for coverage_level, level_label_sets in zip(COVERAGE_LEVELS, label_sets, strict=True):
        has_control, has_autism = level_label_sets.astype(int).T  # (people,) each
        column_name = make_label_set_column_name(coverage_level)
        set_names_by_column[column_name] = set_name_by_membership[has_control, has_autism]
    return first_records.assign(
        calibrated=calibrated_probabilities, prevalence=prevalence_per_person, **set_names_by_column
    )


def make_calibration_table(probability_table: pd.DataFrame, group_column: str, seed: int) -> pd.DataFrame:
    """`calibration.csv` of the table of `make_probability_table`: a row a number, coverage also by the groups in the
    column `group_column`."""
    raw_predictions = Predictions.from_tables(probability_table)
    calibration_rows = []
    group_name_per_person = probability_table[group_column].astype(str).replace("", "-")
    for (probability_kind, probability_column), min_log_odds_sd in zip(
        COLUMN_BY_PROBABILITY_KIND.items(), (0.0, MIN_CALIBRATED_SD), strict=True
    ):
        estimate_by_measure = estimate_label_agreement(
            raw_predictions.with_probabilities([probability_table[probability_column]]), seed, min_log_odds_sd
        )
        calibration_rows += [
            {"measure": measure, "probabilities": probability_kind}
            | make_estimate_cells(len(probability_table), estimate)
            for measure, estimate in estimate_by_measure.items()
        ]
    for coverage_level in COVERAGE_LEVELS:
        calibration_rows += make_coverage_level_rows(
            probability_table.assign(
                set=probability_table[make_label_set_column_name(coverage_level)],
                group=group_name_per_person,
                unit=raw_predictions.cluster,
            ),
            coverage_level,
        )
    return pd.DataFrame(calibration_rows, columns=[*CALIBRATION_COLUMNS]).fillna(
        dict.fromkeys(CALIBRATION_TEXT_COLUMNS, "")
    )


def estimate_label_agreement(predictions: Predictions, seed: int, min_log_odds_sd: float = 0.0) -> dict[str, Estimate]:
    """How probabilities agree with labels, each person once, by the first record: the numbers of
    `compute_calibration_measures`, with intervals like those of all scores; none with fewer than
    `MIN_CLASS_SUBJECTS` clusters of a class."""
    first_record_indices, _ = predictions.first_records_and_subject_indices
    is_first_record = np.isin(np.arange(len(predictions.label)), first_record_indices)
    subject_predictions = predictions.select_records(is_first_record)

    def compute_measures(record_weights: np.ndarray) -> dict[str, np.ndarray]:
        return compute_calibration_measures(
            subject_predictions.label, subject_predictions.mean_probability, record_weights, min_log_odds_sd
        )

    def compute_clipped_measures(record_weights: np.ndarray) -> np.ndarray:
        measure_columns = np.stack([*compute_measures(record_weights).values()], axis=1)  # (weightings, measures)
        return measure_columns.clip(-MAX_INTERVAL_SLOPE, MAX_INTERVAL_SLOPE)

    value_by_measure = compute_measures(np.ones((1, len(subject_predictions.label))))  # (1,) each
    # (measures,) each
    bootstrap_lows, bootstrap_highs = subject_predictions.bootstrap_interval(
        compute_clipped_measures, seed, EFFORT.resamples
    )

    cluster_counts = [
        subject_predictions.count_clusters(subject_predictions.label == class_label)
        for class_label in range(len(CLASS_NAMES))
    ]
    has_too_few_people = min(cluster_counts) < MIN_CLASS_SUBJECTS
    estimate_by_measure = {}
    for (measure, (point_value,)), bootstrap_low, bootstrap_high in zip(
        value_by_measure.items(), bootstrap_lows, bootstrap_highs, strict=True
    ):
        if has_too_few_people or not np.isfinite(point_value):
            estimate_by_measure[measure] = Estimate.from_numbers(point_value)
            continue
        widening = subject_predictions.compute_interval_widening(measure)
        low = point_value + widening * (bootstrap_low - point_value)
        high = point_value + widening * (bootstrap_high - point_value)
        if measure == "brier":
            low, high = np.clip((low, high), 0, 1)
        estimate_by_measure[measure] = Estimate.from_numbers(point_value, low, high)
    return estimate_by_measure


def make_coverage_level_rows(label_set_table: pd.DataFrame, coverage_level: float) -> Iterator[CalibrationRow]:
    """The sets of one level (`set`): for how many people of each class they contain the label, and how many labels they
    have. A row for all people, and one for each group. Clusters count once (`CLUSTER_COUNT_COLUMN`), in the group of
    their first person."""
    label_set_table = label_set_table.assign(first=~label_set_table.duplicated(["label", "unit"]))
    for group_name, group_rows in [
        ("", label_set_table),
        *(label_set_table.groupby("group") if label_set_table["group"].nunique() > 1 else ()),
    ]:
        group_cells = {"group": group_name, "level": coverage_level}
        for class_label, name in enumerate(CLASS_NAMES):
            class_rows = group_rows[group_rows["label"] == class_label]
            coverage_cells = make_share_cells(class_rows["set"].isin([name, BOTH_LABELS]), class_rows["unit"])
            yield (
                {"measure": COVERAGE_MEASURE, "diagnosis": name}
                | group_cells
                | coverage_cells
                | {CLUSTER_COUNT_COLUMN: int(class_rows["first"].sum())}
            )
        set_size_measures = group_rows["set"].map({NO_LABEL: NO_LABEL, BOTH_LABELS: BOTH_LABELS}).fillna(ONE_LABEL)
        for name in SET_SIZE_MEASURES:
            yield {"measure": name} | group_cells | make_share_cells(set_size_measures == name, group_rows["unit"])


def make_share_cells(holds_for_person: pd.Series, cluster_per_person: pd.Series) -> CalibrationRow:
    """The share of people (n,) bool, with the Wilson interval of as many people as there are clusters; undefined for
    nobody."""
    if not len(holds_for_person):
        return make_estimate_cells(0, UNDEFINED)
    cluster_share = estimate_share(holds_for_person.mean() * cluster_per_person.nunique(), cluster_per_person.nunique())
    return make_estimate_cells(
        len(holds_for_person), Estimate.from_numbers(holds_for_person.mean(), cluster_share.low, cluster_share.high)
    )


def make_estimate_cells(people_count: int, estimate: Estimate) -> CalibrationRow:
    return {"participants": people_count, **estimate.to_cells()}
