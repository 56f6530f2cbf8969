"""Tables beside a cohort's records, by subject: `covariates.csv` (text) and `phenotype.csv` (29 raw values)."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import tables
from data.base.errors import InputError
from data.cohorts.phenotype import MAX_NUMBER, Scaler, clean
from data.cohorts.records import PHENOTYPE_SIZE
from data.cohorts.rows import Metadata, listed

SUBJECT = "subject"
ROUNDING = 1e-3  # of a scaled value in a record, which is float32
HEAD_MOTION = re.compile("mean_?fd|framewise", re.IGNORECASE)  # in the name of a column
ABIDE_COVARIATES = ("SITE_ID", "AGE_AT_SCAN", "SEX", "func_mean_fd")  # the last is head motion in mm


def covariates_of(table: pd.DataFrame, columns: Sequence[str], subjects: Sequence[str]) -> pd.DataFrame:
    """Columns of a table as text by subject, empty if a value or the column is missing."""
    text = table.reindex(columns=list(columns), fill_value="").apply(clean).fillna("")
    return text.apply(lambda column: column.str.split().str.join(" ")).set_axis(list(subjects))


def check_columns(columns: Iterable[str]) -> None:
    """Raises InputError for a column with the name of the column of subjects."""
    if SUBJECT in columns:
        reason = "cannot be kept as a covariate or phenotype, whose tables name the subjects so"
        raise InputError(f"The column {SUBJECT} {reason}; rename it in the table.")


def write(path: Path, table: pd.DataFrame) -> None:
    """Writes a table whose index holds the subjects; floats with all their digits, NaN as an empty cell."""
    tables.write_frame(path, table.rename_axis(SUBJECT).reset_index())


def read(path: Path, subjects: Sequence[str]) -> pd.DataFrame:
    """The rows of these subjects, in their order, as text. Raises InputError, naming the file, if it is damaged."""
    table = tables.read_frame(path)
    if SUBJECT not in table:
        raise damaged(path, f"its columns are {listed(list(table)) or 'none'}, not '{SUBJECT}' and others")
    table = table.set_index(SUBJECT)
    if (twice := table.index[table.index.duplicated()]).size:
        raise damaged(path, f"it names subject {twice[0]} twice")
    if absent := [subject for subject in subjects if subject not in table.index]:
        raise damaged(path, f"it lacks subject {absent[0]} ({len(absent)} missing)")
    return table.loc[list(subjects)]


def read_phenotype(path: Path, subjects: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """`read` as float64, NaN where empty. Raises InputError unless the columns are `names` and hold numbers."""
    table = read(path, subjects)
    if list(table.columns) != list(names) or len(names) != PHENOTYPE_SIZE:
        raise damaged(path, f"its {table.shape[1]} columns are not the {PHENOTYPE_SIZE} values that cohort.json names")
    try:
        values = table.map(lambda text: float(text or "nan"))
    except ValueError as error:
        raise damaged(path, str(error)) from error
    if (values.abs() > MAX_NUMBER).any(axis=None):
        raise damaged(path, f"it holds a value above {MAX_NUMBER:g}")
    return values


def damaged(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is damaged: {reason}; expected a row a subject. Convert again.")


def check_values(path: Path, values: pd.DataFrame, stored: np.ndarray, metadata: Metadata) -> None:
    """Raises InputError, naming a subject, if the raw values of `phenotype.csv` (subjects, 29), imputed and scaled, are
    not the `stored` ones of the same subjects' records, which digests verify."""
    constants = metadata.phenotype_median, metadata.phenotype_mean, metadata.phenotype_scale
    if not all(constants):
        return
    expected = Scaler(*map(np.array, constants)).transform(values.to_numpy(float))
    other = np.abs(expected - stored) > ROUNDING * np.maximum(1, np.abs(stored))
    if other.any():
        at, which = np.argwhere(other)[0]
        raise InputError(
            f"{path} is not what the records hold: {values.columns[which]} of {values.index[at]}, and values of "
            f"{other.any(axis=1).sum()} subjects in all. Was it edited? Convert again."
        )
