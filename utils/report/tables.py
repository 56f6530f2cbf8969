"""The tables of a classifier's test in its folder. A test writes them, and reads them again to pool them. The report
reads and checks them, with the description in `run.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.tables import read_csv_frame, write_csv_frame
from models import MODELS
from utils.runs import record
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import MANIFEST_FILE, Caveats, Choices, Manifest
from utils.runs.run import Run
from utils.runs.statements import PermutationResult, TestStatement
from utils.scores.results import METRICS_FILE, RESULT_TABLE_BY_NAME, RESULT_TABLES, Estimate, ResultTable

PEOPLE_VARIABLE = "participants"
SITE_VARIABLE = "site"  # rows of table1.csv that are not covariates
DIAGNOSIS_COUNT_FIELDS = ("autism", "control", "unknown")
COLUMN_BY_PROBABILITY_KIND = {
    "as predicted": "probability",
    "calibrated": "calibrated",
}  # kinds of probabilities, and their columns in probabilities.csv
COVERAGE_MEASURE = "coverage"
NO_LABEL = "none"
ONE_LABEL = "one"
BOTH_LABELS = "both"  # measures of calibration.csv
FOLDS_KEY = "folds"  # of metrics.json: the scores of each fold
TABLE_DIGITS = 8  # of numbers in tables, significant ones
MODEL_MINUS_PREFIX = "model_minus_baseline_"  # before the name of an AUC, a column of `baselines.csv`


@dataclass(frozen=True, kw_only=True)
class EvaluationManifest(Choices, Caveats, TestStatement):
    """The record of a test with all fields on one level."""

    command: list[str]  # its words, as they were typed
    cohort: str  # path of its folder
    cohort_sha256: str
    simulated: bool
    checkpoint_folder: str
    weights: str | dict[str, str] | None  # SHA-256 of the checkpoint, of several by fold
    git_commit: str | None
    packages: dict[str, str]  # version by name
    started: str  # date and time, as text
    step: int  # batches that the tested network had seen
    folds: str | None  # the name of a `Division`
    fold: str | None  # the one that was tested, if only one was
    maps: tuple[str, ...]  # in a record, where they have names
    num_maps: int  # in a record; 0 in a cohort without maps
    repeats: int  # number of them
    permutations: PermutationResult | None = None
    cross_validation: CrossValidation | None = None  # the test on folds that goes with a model of everybody

    @property
    def small_sites(self) -> bool:
        return bool(self.conclusion and self.conclusion.small_sites)

    @property
    def cohort_name(self) -> str:
        """The cohort as a page names it: its folder without the folders above, which say who made it."""
        return Path(self.cohort).name


@dataclass(frozen=True)
class EvaluationTables:
    """All of a test's tables; `scores` is empty where no label is known, `scores_by_fold` unless folds were pooled.

    `predictions`: `label` 1 autism, 0 control, NaN unknown; `probability` of autism, of repeats the mean, and the fold
    of the first. `table_by_name`: the tables that there are, by their names in `RESULT_TABLE_BY_NAME` of
    `utils/scores/results.py`. Such a name is also an attribute, None where there is no table or it has no row.
    """

    manifest: EvaluationManifest
    predictions: pd.DataFrame  # a row a record, probabilities averaged over repeats
    scores: dict[str, Estimate]  # by metric; empty where no label is known
    scores_by_fold: dict[str, dict[str, Estimate]]  # by fold, then by metric
    table_by_name: dict[str, pd.DataFrame]

    @classmethod
    def from_tables(
        cls,
        manifest: EvaluationManifest,
        typed_table_by_name: Mapping[str, pd.DataFrame],
        metrics_json: Mapping[str, Any],
    ) -> "EvaluationTables":
        """From typed tables by name, and the content of `metrics.json`."""
        table_by_name = {
            name: table for name, table in typed_table_by_name.items() if len(table) or name == "out_of_distribution"
        }
        predictions = average_record_tables(split_table_by_repeat(table_by_name.pop("predictions")))
        overall_metrics_json = {
            name: json_value
            for name, json_value in metrics_json.items()
            if name != FOLDS_KEY and isinstance(json_value, dict)
        }
        scores_by_fold = {
            fold: parse_estimates(json_value) for fold, json_value in metrics_json.get(FOLDS_KEY, {}).items()
        }
        return cls(manifest, predictions, parse_estimates(overall_metrics_json), scores_by_fold, table_by_name)

    def __getattr__(self, table_name: str) -> pd.DataFrame | None:
        """One of `table_by_name`. Raises AttributeError if no table has this name."""
        if table_name not in RESULT_TABLE_BY_NAME:
            raise AttributeError(f"a test has no table {table_name}")
        return self.table_by_name.get(table_name)

    @property
    def labelled_predictions(self) -> pd.DataFrame:
        """The predictions whose label is known."""
        return self.predictions[self.predictions["label"].notna()]


def parse_estimates(metrics_json: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    """Scores by name, from `metrics.json`."""
    return {metric: Estimate(**estimate_fields) for metric, estimate_fields in metrics_json.items()}


def read_test_folder(test_folder: Path) -> EvaluationTables:
    """Reads a folder. Raises InputError, naming the file, for what is missing or damaged."""
    if not (test_folder / RESULT_TABLE_BY_NAME["predictions"].file_name).is_file():
        raise InputError(
            f"{test_folder} holds no predictions.csv; expected the folder of a classifier's `run.py --test`."
        )
    stored_manifest = record.read_manifest(test_folder)
    if stored_manifest is None:
        raise InputError(f"{test_folder / MANIFEST_FILE} cannot be read (No such file or directory). Copy it again.")
    if not is_classifier_known(stored_manifest.settings):
        raise InputError(
            f"{test_folder / MANIFEST_FILE} has the model {stored_manifest.model_name}; expected a classifier. Test "
            "one."
        )
    manifest = parse_evaluation_manifest(stored_manifest, test_folder)
    existing_result_tables = [
        result_table for result_table in RESULT_TABLES if (test_folder / result_table.file_name).exists()
    ]
    table_by_name = {
        result_table.name: convert_column_types(read_csv_frame(test_folder / result_table.file_name), result_table)
        for result_table in existing_result_tables
    }
    has_labels = table_by_name["predictions"]["label"].notna().any()
    metrics_json = files.read_json(test_folder / METRICS_FILE, dict[str, Any]) if has_labels else {}
    return EvaluationTables.from_tables(manifest, table_by_name, metrics_json)


def is_classifier_known(settings: Choices | None) -> bool:
    """Whether a test is of what predicts the label: a network that this version has, or whatever else the user
    brought."""
    if settings is None:
        return False
    return not settings.is_network or (settings.model in MODELS and MODELS[settings.model].classifies)


def parse_evaluation_manifest(manifest: Manifest, test_folder: Path) -> EvaluationManifest:
    """The record of the test in a folder. Raises InputError if it is damaged."""
    try:
        return files.parse_json(files.format_json(manifest.flat_fields), EvaluationManifest)
    except ValueError as error:
        raise InputError(f"{test_folder / MANIFEST_FILE} is damaged ({error}). Copy it again.") from error


def convert_column_types(table: pd.DataFrame, result_table: ResultTable) -> pd.DataFrame:
    """A table as it was written: texts, none of which is unknown, and numbers, NaN where unknown."""
    converted_columns = {
        column_name: column.astype(object).where(column.notna(), "").astype(str)
        if column_name in result_table.text_columns
        else pd.to_numeric(column, errors="coerce").astype(float)
        for column_name, column in table.items()
    }
    return pd.DataFrame(converted_columns, index=table.index)


def make_label_set_column_name(coverage_level: float) -> str:
    """The column of probabilities.csv with the sets of a level."""
    return f"set_{100 * coverage_level:.0f}"


@dataclass(frozen=True)
class RepeatPredictions:
    """What one repeat of a test predicts, a row a record: `predictions.csv` and `baseline_predictions.csv`, which is
    empty where no baseline could be fitted."""

    predictions: pd.DataFrame  # `predictions.csv` of the repeat
    baseline_predictions: pd.DataFrame  # `baseline_predictions.csv` of the repeat; empty without baselines

    def select_records(self, record_files: pd.Series) -> "RepeatPredictions":
        """The rows of some records, in their order; of baselines the probabilities only."""
        selected_predictions = self.predictions.set_index("file").loc[record_files].reset_index()
        if not len(self.baseline_predictions):
            return RepeatPredictions(selected_predictions, pd.DataFrame(index=record_files))
        return RepeatPredictions(
            selected_predictions,
            self.baseline_predictions.drop(columns="fold", errors="ignore").set_index("file").loc[record_files],
        )


def split_predictions_by_repeat(table_by_name: Mapping[str, pd.DataFrame]) -> list[RepeatPredictions]:
    """The predictions of each repeat, from the tables of a test by name."""
    prediction_tables = split_table_by_repeat(table_by_name["predictions"])
    baseline_tables = split_table_by_repeat(table_by_name.get("baseline_predictions", pd.DataFrame()))
    if len(baseline_tables) != len(prediction_tables):
        baseline_tables = [pd.DataFrame()] * len(prediction_tables)
    return [
        RepeatPredictions(prediction_table, baseline_table)
        for prediction_table, baseline_table in zip(prediction_tables, baseline_tables, strict=True)
    ]


def split_table_by_repeat(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each repeat; all if there is one."""
    if "repeat" not in table:
        return [table]
    return [repeat_rows.drop(columns="repeat").reset_index(drop=True) for _, repeat_rows in table.groupby("repeat")]


def average_record_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables with a row a record (`file`), in any order, as one in the order of the first, with its texts, such as the
    fold, and the mean of numbers that all have."""
    first_table = tables[0].set_index("file")
    aligned_tables = [table.set_index("file").loc[first_table.index] for table in tables[1:]]
    mean_table = first_table.copy()
    for column in first_table:
        if not all(column in aligned_table for aligned_table in aligned_tables):
            del mean_table[column]
    for column in mean_table.select_dtypes("number"):
        column_sum = sum((aligned_table[column] for aligned_table in aligned_tables), first_table[column])
        mean_table[column] = column_sum / len(tables)
    return mean_table.reset_index()


class EvaluationResults:
    """The tables of a test: each is written, and passed on to all that follows from it, and to the report."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.table_by_name = dict[str, pd.DataFrame]()  # as their files have them
        self.calibration_promise = ""  # see `EvaluationManifest`

    def write_result_table(self, table_name: str, table: pd.DataFrame) -> None:
        """A table by its name in `RESULT_TABLE_BY_NAME`."""
        table_path = self.run.out_dir / RESULT_TABLE_BY_NAME[table_name].file_name
        digits = self.run.predictor.probability_digits if table_name == "predictions" else TABLE_DIGITS
        write_csv_frame(table_path, table, digits)
        # Read back once, since a file has so many digits: what is passed on has the same, so that results from the file
        # and from memory are equal
        self.table_by_name[table_name] = convert_column_types(
            read_csv_frame(table_path, list(table)), RESULT_TABLE_BY_NAME[table_name]
        )


def read_predictions(predictions_path: Path) -> pd.DataFrame:
    """`predictions.csv`."""
    return convert_column_types(read_csv_frame(predictions_path), RESULT_TABLE_BY_NAME["predictions"])


def read_result_table(run: Run, table_name: str) -> pd.DataFrame:
    """A table that a run on a fold wrote, texts as they are; no rows if it is not there."""
    result_table = RESULT_TABLE_BY_NAME[table_name]
    table_path = run.out_dir / result_table.file_name
    if not table_path.is_file():
        return pd.DataFrame()
    try:
        return read_csv_frame(table_path).apply(
            lambda column: column if column.name in result_table.text_columns else pd.to_numeric(column)
        )
    except (InputError, ValueError) as error:
        raise InputError(
            f"{table_path} is damaged ({error}); remove {table_path.parent} and repeat the command."
        ) from error
