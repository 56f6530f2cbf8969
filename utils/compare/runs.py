"""Folders of finished tests of the same people -> the rows of `compare.csv`, one for each two of the tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pandas as pd

from data.base.errors import InputError
from utils.report.tables import EvaluationManifest, is_classifier_known, parse_evaluation_manifest, read_predictions
from utils.runs.record import read_finished_manifest
from utils.scores.conclusion import CANNOT_BE_TOLD, MODEL_BETTER, MODEL_WORSE, NO_DIFFERENCE, judge_auc_difference
from utils.scores.metrics import Predictions, choose_headline_metric, estimate_score_differences, estimate_scores
from utils.scores.results import (
    DETECTABLE_DIFFERENCE_COLUMN,
    RESULT_TABLE_BY_NAME,
    Estimate,
    find_detectable_difference,
    flatten_estimates,
)

PREDICTIONS_FILE = RESULT_TABLE_BY_NAME["predictions"].file_name
EXPECTED_FOLDER_TEXT = "expected the folder of a classifier's finished `run.py --test`"
MATCHING_COLUMNS = [
    "repeat",
    "file",
    "subject",
    "label",
    "site",
    "fold",
]  # columns that are the same in tests to be compared
BOOTSTRAP_SEED = 0  # of the bootstrap, whatever those of the runs are
DIFFERENCE_PREFIX = "a_minus_b_"  # begins the columns of differences
TEXT_BY_CONCLUSION = {
    MODEL_BETTER: "a is better",
    MODEL_WORSE: "b is better",
    NO_DIFFERENCE: NO_DIFFERENCE,
    CANNOT_BE_TOLD: CANNOT_BE_TOLD,
}


@dataclass(frozen=True, eq=False)
class FinishedTest:
    """A finished test, named by its `test_folder` as the user gave it. `predictions_table`: `predictions.csv`, a row a
    record and `repeat` (from 0), sorted by these."""

    test_folder: Path
    description: EvaluationManifest
    predictions_table: pd.DataFrame

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions of every repeat, without records of unknown label."""
        labelled_rows = self.predictions_table[self.predictions_table["label"].notna()]
        return Predictions.from_tables(*(repeat_rows for _, repeat_rows in labelled_rows.groupby("repeat")))

    @cached_property
    def score_by_metric(self) -> dict[str, Estimate]:
        """As in `metrics.json`."""
        return estimate_scores(self.predictions, self.description.seed)


def open_tests(test_folders: Sequence[Path]) -> list[FinishedTest]:
    """Raises InputError for a folder that is no finished test, and for tests that cannot be compared."""
    finished_tests = [read_finished_test(test_folder) for test_folder in test_folders]
    if finished_tests[0].predictions_table["label"].isna().all():
        raise InputError(
            f"{finished_tests[0].test_folder / PREDICTIONS_FILE} has no known label; nothing can be compared."
        )
    for finished_test in finished_tests[1:]:
        check_same_people(finished_tests[0], finished_test)
    return finished_tests


def read_finished_test(test_folder: Path) -> FinishedTest:
    """Raises InputError unless a classifier's test was finished there, and its files are unchanged."""
    test_manifest = read_finished_manifest(test_folder, EXPECTED_FOLDER_TEXT)
    if test_manifest.job != "test" or not is_classifier_known(test_manifest.settings):
        raise InputError(
            f"{test_folder} holds a {test_manifest.job} of {test_manifest.model_name or 'no model'}; "
            f"{EXPECTED_FOLDER_TEXT}."
        )
    if test_manifest.caveats.is_control:
        raise InputError(
            f"{test_folder} is a control, whose labels were permuted; {EXPECTED_FOLDER_TEXT} on the true labels. Leave "
            "it out."
        )
    predictions_table = read_predictions(test_folder / PREDICTIONS_FILE)
    predictions_table["repeat"] = predictions_table["repeat"].astype(int) if "repeat" in predictions_table else 0
    return FinishedTest(
        test_folder,
        parse_evaluation_manifest(test_manifest, test_folder),
        predictions_table.sort_values(["repeat", "file"], ignore_index=True),
    )


def check_same_people(first_test: FinishedTest, second_test: FinishedTest) -> None:
    """Raises InputError unless both were tested on the same people, with the same labels, sites, folds and repeats."""
    matching_tables = [
        finished_test.predictions_table.reindex(columns=MATCHING_COLUMNS, fill_value="none")
        for finished_test in (first_test, second_test)
    ]
    merged_rows = matching_tables[0].merge(matching_tables[1], how="outer", indicator="of")
    unmatched_rows = merged_rows[merged_rows["of"] != "both"]
    if len(unmatched_rows):
        first_unmatched_row = unmatched_rows.iloc[0]
        unmatched_folder = (first_test if first_unmatched_row["of"] == "left_only" else second_test).test_folder
        row_text = ", ".join(f"{column_name} {first_unmatched_row[column_name]}" for column_name in MATCHING_COLUMNS)
        raise InputError(
            f"{first_test.test_folder} and {second_test.test_folder} differ in participants, labels, sites, folds or "
            f"repeats: only {unmatched_folder} has {row_text} ({len(unmatched_rows)} such rows). Test both on the same "
            "cohort, folds and seed."
        )


def compare_pairs(finished_tests: Sequence[FinishedTest]) -> list[dict[str, Any]]:
    """A row for each two of the runs, `first_test` (a) and `second_test` (b). The intervals of the scores of a minus
    those of b, paired as in `metrics.estimate_score_differences`, hold for all rows together."""
    pair_rows = []
    pair_count = comb(len(finished_tests), 2)  # rows of compare.csv
    for first_test, second_test in combinations(finished_tests, 2):
        difference_by_metric = estimate_score_differences(
            first_test.predictions, second_test.predictions, BOOTSTRAP_SEED, pair_count
        )
        deciding_metric = choose_headline_metric(difference_by_metric)
        pair_value_by_column: dict[str, Any] = {
            "a": str(first_test.test_folder),
            "b": str(second_test.test_folder),
            "conclusion": TEXT_BY_CONCLUSION[judge_auc_difference(difference_by_metric[deciding_metric])],
            "by": deciding_metric,
            DETECTABLE_DIFFERENCE_COLUMN: find_detectable_difference(difference_by_metric[deciding_metric], pair_count),
            "among": pair_count,
            "subjects": len(set(first_test.predictions.subject)),
            "records": len(first_test.predictions.label),
        }
        score_by_column = {
            f"{metric_name}_{test_side}": finished_test.score_by_metric[metric_name].value
            for metric_name in difference_by_metric
            for test_side, finished_test in (("a", first_test), ("b", second_test))
        }
        pair_rows.append(
            pair_value_by_column
            | score_by_column
            | flatten_estimates(
                {
                    f"{DIFFERENCE_PREFIX}{metric_name}": metric_difference
                    for metric_name, metric_difference in difference_by_metric.items()
                }
            )
        )
    return pair_rows
