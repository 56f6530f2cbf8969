"""`--predictions mine.csv`: the user's file -> a table of probabilities and folds, before any cohort is known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError, parse_natural_number, quote_text
from data.base.listing import join_names
from data.tables.people import canonicalise_value, check_columns_exist, find_delimiter, read_text_table
from utils.runs.record import compute_sha256

REQUIRED_COLUMNS = ("id", "probability")
COLUMNS_TEXT = "id,probability and, if cross-validated, fold (and repeat)"
MAX_PERCENTAGE = 100


@dataclass(frozen=True, eq=False)
class PredictionsFile:
    """A file of predictions, as it was read. Each row of `table` is a prediction: `id`; `file`, the record's name,
    empty if it is not named; `probability` of autism, float64; `fold`, empty without folds; `repeat`, its number from
    0."""

    path: Path
    sha256: str
    table: pd.DataFrame
    has_folds: bool
    has_repeats: bool
    control_seed: int | None  # that has permuted the labels which are predicted, if a column says so

    @property
    def repeat_count(self) -> int:
        return self.table["repeat"].nunique()

    @property
    def fold_count(self) -> int:
        """The number of folds of the first repeat."""
        return self.table["fold"][self.table["repeat"] == 0].nunique()


def read_predictions_file(file_path: Path) -> PredictionsFile:
    """Raises InputError for what is no table of probabilities, separated by commas."""
    if not file_path.is_file():
        raise InputError(
            f"--predictions {file_path} is no file; expected a CSV file with the columns {COLUMNS_TEXT}. Correct the "
            "path."
        )
    text_table = read_text_table(file_path)
    check_commas(file_path)
    check_columns_exist(text_table, {"": REQUIRED_COLUMNS}, file_path)
    if text_table.empty:
        raise InputError(f"{file_path} holds no predictions; expected a row for each tested participant.")

    has_folds = "fold" in text_table
    has_repeats = "repeat" in text_table
    if has_repeats and not has_folds:
        raise InputError(
            f"{file_path} has a column repeat and none named fold; expected the fold of each row, too. Add it, or "
            "leave repeat out."
        )
    for column_name in ("fold", "repeat", "control"):
        check_no_empty_cell(text_table, column_name, file_path)
    empty_column = pd.Series("", text_table.index)
    table = pd.DataFrame(
        {
            "id": text_table["id"],
            "file": text_table.get("file", empty_column),
            "probability": parse_probabilities(text_table, file_path),
            "fold": text_table.get("fold", empty_column).map(canonicalise_value),
            "repeat": number_repeats(text_table.get("repeat", empty_column).map(canonicalise_value)),
        }
    )
    control_seed = parse_control_seed(text_table, file_path)
    return PredictionsFile(file_path, compute_sha256(file_path), table, has_folds, has_repeats, control_seed)


def check_commas(file_path: Path) -> None:
    """Raises InputError unless commas separate the columns: with another separator, a comma may be a decimal one."""
    delimiter = find_delimiter(file_path.read_text(encoding="utf-8-sig"), file_path)
    if delimiter != ",":
        delimiter_name = {";": "semicolons", "\t": "tabs"}.get(delimiter, quote_text(delimiter))
        raise InputError(
            f"{file_path} has {delimiter_name} between its columns; expected commas, and points in numbers. Export it "
            "again as comma-separated values."
        )


def check_no_empty_cell(text_table: pd.DataFrame, column_name: str, file_path: Path) -> None:
    if column_name in text_table and (text_table[column_name] == "").any():
        first_id = text_table["id"][text_table[column_name] == ""].iloc[0]
        raise InputError(
            f"{file_path} has no {column_name} for {quote_text(first_id)}; expected one in each row. Add it, or leave "
            f"the column {column_name} out."
        )


def parse_probabilities(text_table: pd.DataFrame, file_path: Path) -> pd.Series:
    """The column of probabilities as float64. Raises InputError for what is none, such as percentages or labels."""
    probabilities = pd.to_numeric(text_table["probability"], errors="coerce").astype(float)
    is_no_number = ~np.isfinite(probabilities)
    if is_no_number.any():
        first_wrong_row = text_table[is_no_number].iloc[0]
        raise InputError(
            f"{file_path} has the probability {quote_text(first_wrong_row['probability'])} for "
            f"{quote_text(first_wrong_row['id'])}; expected a number from 0 to 1 in each row. Correct it."
        )

    lowest = probabilities.min()
    highest = probabilities.max()
    if lowest >= 0 and 1 < highest <= MAX_PERCENTAGE:
        raise InputError(
            f"{file_path} has probabilities up to {highest:g}, as percentages are; expected numbers from 0 to 1. "
            "Divide them by 100."
        )
    if lowest < 0 or highest > 1:
        raise InputError(
            f"{file_path} has probabilities from {lowest:g} to {highest:g}, as scores or log odds are; expected "
            "numbers from 0 to 1. Write probabilities of autism."
        )
    if probabilities.isin([0, 1]).all():
        raise InputError(
            f"{file_path} has only 0 and 1 as probabilities, as labels are; expected probabilities of autism, such as "
            "0.73, by which participants can be ranked. Write those (predict_proba, not predict)."
        )
    return probabilities


def parse_control_seed(text_table: pd.DataFrame, file_path: Path) -> int | None:
    """The one number in the column `control`; None without this column. Raises InputError for anything else."""
    if "control" not in text_table:
        return None
    control_texts = text_table["control"].map(canonicalise_value).unique().tolist()
    control_seed = parse_natural_number(control_texts[0])
    if len(control_texts) > 1 or control_seed is None:
        raise InputError(
            f"{file_path} has {join_names(control_texts)} in its column control; expected one number in all rows, the "
            "SEED of abide-data export --control. Correct it, or leave the column out."
        )
    return control_seed


def number_repeats(repeat_names: pd.Series) -> pd.Series:
    """The number of the repeat of each row, from 0, in the order of their names; of numbers in that of these."""
    distinct_names = set(repeat_names)
    has_numbers_only = all(parse_natural_number(repeat_name) is not None for repeat_name in distinct_names)
    sorted_names = sorted(distinct_names, key=int if has_numbers_only else str)
    number_by_name = {repeat_name: number for number, repeat_name in enumerate(sorted_names)}
    return repeat_names.map(number_by_name)
