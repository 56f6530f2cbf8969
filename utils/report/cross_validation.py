"""The folder of a test on folds -> its `CrossValidation`, which goes with a model that is trained on everybody."""

import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from data.base.errors import InputError
from data.base.thresholds import MIN_CLASS_SUBJECTS
from data.cohorts.division import Division
from utils.report.tables import COVERAGE_MEASURE, EvaluationTables, read_test_folder
from utils.runs import record
from utils.runs.cross_validation import MIN_PEOPLE_PER_GROUP, CrossValidation, GroupScore
from utils.scores import calibration
from utils.scores.results import CLUSTER_COUNT_COLUMN, SITE_COUNT_COLUMNS, Estimate, finite_or_none

EXPECTED_TEST_FOLDER_TEXT = "expected the folder of a finished run.py --test on folds"


def read_cross_validation(test_folder: Path, model_name: str) -> CrossValidation:
    """The test in a folder. Raises InputError if it is not a whole test of this model on folds, with labels."""
    tables = read_test_folder(test_folder)
    manifest = tables.manifest
    record.read_finished_manifest(test_folder, f"--score {EXPECTED_TEST_FOLDER_TEXT}")
    if manifest.folds is None or manifest.fold:
        raise InputError(
            f"--score {test_folder} is of one split, which leaves no score of everybody; {EXPECTED_TEST_FOLDER_TEXT}."
        )
    if manifest.model != model_name:
        raise InputError(
            f"--score {test_folder} is of model {manifest.model}, this run of {model_name}; "
            f"{EXPECTED_TEST_FOLDER_TEXT} of {model_name}."
        )
    if manifest.conclusion is None:
        raise InputError(
            f"--score {test_folder} is of participants without labels, so that it says nothing of a model; "
            f"{EXPECTED_TEST_FOLDER_TEXT}."
        )
    fold_count_by_candidate = Counter(choice.name for choice in manifest.chosen.values())
    commonest_choice = next(
        (choice for choice in manifest.chosen.values() if choice.name == fold_count_by_candidate.most_common(1)[0][0]),
        manifest,
    )
    return CrossValidation(
        folder=os.path.abspath(test_folder),
        preset=commonest_choice.preset,
        config=commonest_choice.config,
        precision=manifest.precision,
        num_iters=manifest.step,
        cohort_sha256=manifest.cohort_sha256,
        folds=manifest.folds,
        repeats=manifest.repeats,
        scores=tables.scores,
        groups=make_group_scores(tables),
        conclusion=manifest.conclusion,
        calibration=fit_fold_calibration(tables),
        lowest_coverage=find_lowest_coverage(tables),
        chosen=dict(fold_count_by_candidate),
        marks=manifest.caveat_marks,
    )


def fit_fold_calibration(tables: EvaluationTables) -> dict[str, Any] | None:
    """The calibration, fitted on what the folds predicted; None if there were too few people."""
    probability_table = tables.probabilities
    if probability_table is None:
        return None
    return asdict(
        calibration.fit_calibration(
            probability_table["label"].to_numpy(int), probability_table["probability"].to_numpy()
        )
    )


def find_lowest_coverage(tables: EvaluationTables) -> float | None:
    """The lowest share, over groups that were left out and classes, of people whose set of the first level contained
    their label; None for random folds, or if no group has enough people."""
    calibration_measure_table = tables.calibration
    if (
        calibration_measure_table is None
        or not Division.parse_folds_option(tables.manifest.folds or "").holds_groups_out
    ):
        return None
    group_first_level_coverage_rows = calibration_measure_table[
        (calibration_measure_table["measure"] == COVERAGE_MEASURE)
        & (calibration_measure_table["level"] == calibration.COVERAGE_LEVELS[0])
        & (calibration_measure_table["group"] != "")
    ]
    return finite_or_none(
        group_first_level_coverage_rows.loc[
            group_first_level_coverage_rows[CLUSTER_COUNT_COLUMN] >= MIN_CLASS_SUBJECTS, "value"
        ].min()
    )


def make_group_scores(tables: EvaluationTables) -> tuple[GroupScore, ...]:
    """The scores of sites and of other groups with enough people of both classes."""
    site_table = None if tables.sites is None else tables.sites.assign(kind="site", group=tables.sites["site"])
    group_rows = [
        group_row
        for score_table in (site_table, tables.groups)
        if score_table is not None
        for _, group_row in score_table.iterrows()
    ]
    group_scores = [make_group_score(group_row) for group_row in group_rows]
    return tuple(
        group_score
        for group_score in group_scores
        if min(group_score.autism, group_score.control) >= MIN_PEOPLE_PER_GROUP
    )


def make_group_score(group_row: pd.Series) -> GroupScore:
    _, autism_count, control_count = (int(group_row[column]) for column in SITE_COUNT_COLUMNS)
    auc = Estimate.from_row(group_row, "auc")
    return GroupScore(
        kind=group_row["kind"], group=group_row["group"], autism=autism_count, control=control_count, auc=auc
    )
