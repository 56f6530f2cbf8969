"""A table of people -> 29 leak-free values and covariates of each subject; both on disk.

ABIDE's columns are described in its phenotypic data legend. Never used, not even whether they are missing: ADOS, ADI-R,
SRS, SCQ, AQ, VINELAND, DSM, medication, comorbidity, since they measure or follow from the diagnosis.
"""

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import tables
from data.base.errors import InputError
from data.base.listing import join_names
from data.tables.missing import clean_column
from data.tables.vocabulary import PHENOTYPE_SIZE

NUMBER_LIKE_PATTERN = re.compile(  # a number, or meant to be one: >18, 3,5, 40 %
    r"([<>~≤≥]=?|ca\.?)?\s*[-+]?(\d+([.,]\d+)*|[.,]\d+)(e[-+]?\d+)?\s*[%+?]?", re.IGNORECASE
)
HANDEDNESS_CODES = {"right": ("R",), "left": ("L",), "ambidextrous": ("Ambi",), "mixed": ("Mixed", "L->R")}
PREFIXES_BY_IQ_TEST = {"wasi": ("WASI",), "wisc": ("WISC", "HAWIK"), "wais": ("WAIS",)}  # HAWIK is the German WISC
MAX_PHENOTYPE_NUMBER = 1e12  # float32 can still sum its squares
WISC_INDICES = ("VCI", "PRI", "WMI", "PSI")
# By the first half of a value's name, the second, and the codes that it is 1 for.
CATEGORY_CODES_BY_VARIABLE: dict[str, Mapping[str, tuple]] = {
    "sex": {"male": (1,), "female": (2,)},
    "handedness": HANDEDNESS_CODES,
    "iq_test": {category_name: (category_name,) for category_name in (*PREFIXES_BY_IQ_TEST, "other")},
    "eyes": {"open": (1,), "closed": (2,)},
}
VALUE_NAMES_BY_INDICATOR = {  # by the name of ABIDE's indicator, the values that are all unknown where it is 1
    "handedness_unknown": tuple(f"handedness_{category_name}" for category_name in HANDEDNESS_CODES),
    "wisc_missing": tuple(f"wisc_{wisc_subscale.lower()}" for wisc_subscale in WISC_INDICES),
}
ABIDE_PHENOTYPE_COLUMNS = [
    *("AGE_AT_SCAN", "SEX", "HANDEDNESS_CATEGORY", "HANDEDNESS_SCORES", "FIQ", "VIQ", "PIQ"),
    *("FIQ_TEST_TYPE", "EYE_STATUS_AT_SCAN", "BMI", *(f"WISC_IV_{wisc_subscale}" for wisc_subscale in WISC_INDICES)),
]
SUBJECT_COLUMN = "subject"  # the column of tables by subject
LOGARITHMIC_COLUMN_PATTERN = re.compile(
    "mean_?fd|framewise", re.IGNORECASE
)  # head motion whose logarithm is kept, also in bundles
ABIDE_COVARIATES = ("SITE_ID", "AGE_AT_SCAN", "SEX", "func_mean_fd")  # the last is head motion in mm
INDICATOR_PATTERN = re.compile("_(missing|unknown)$")  # ends the name of a value that is 1 where another one is missing
UNUSED_PREFIX = "unused_"  # begins the name of a value that is always 0
IQ_TEST_VALUE_PREFIX = "iq_test_"  # begins the name of a value that is 1 where such a test measured the IQ


def match_fully(column_text: pd.Series, pattern: re.Pattern) -> pd.Series:
    """Which values of a column of text match the pattern entirely, bool."""
    return column_text.map(lambda cell_text: pattern.fullmatch(cell_text) is not None).astype(bool)


def is_mostly_numbers(column: pd.Series) -> bool:
    """Whether more than half of a column's known values are numbers, or look like them: `>18`, `3,5`."""
    measured_texts = clean_column(column).dropna()
    return measured_texts.empty or bool(match_fully(measured_texts, NUMBER_LIKE_PATTERN).mean() > 0.5)


def parse_number_column(table: pd.DataFrame, column_name: str) -> pd.Series:
    """A column as float64, NaN where missing. Raises InputError for text that is not a finite number."""
    column_text = clean_column(table[column_name])
    column_numbers = pd.to_numeric(column_text, errors="coerce").where(
        lambda parsed_numbers: parsed_numbers.abs() <= MAX_PHENOTYPE_NUMBER
    )
    if (wrong_texts := column_text[~np.isfinite(column_numbers) & column_text.notna()]).size:
        raise InputError(
            f"Column {column_name} holds {wrong_texts.iloc[0]!r}; expected numbers, or nothing where unknown, but "
            f"{wrong_texts.size} of {column_text.notna().sum()} values are none. Correct them in the table; write "
            "decimals with a point."
        )
    return column_numbers


def make_category_columns(
    column_text: pd.Series, codes_by_category: Mapping[str, tuple], name_prefix: str
) -> dict[str, pd.Series]:
    """One 0/1 column for each category; a missing value is 0 in all. Raises InputError for a value without a code."""
    if (
        uncoded_values := column_text[
            column_text.notna()
            & ~column_text.isin([code for category_codes in codes_by_category.values() for code in category_codes])
        ]
    ).size:
        expected_codes_text = ", ".join(
            str(code) for category_codes in codes_by_category.values() for code in category_codes
        )
        raise InputError(
            f"Column {column_text.name} holds {uncoded_values.iloc[0]}; expected {expected_codes_text}, or nothing "
            f"where unknown, but {uncoded_values.size} of {column_text.notna().sum()} values are others. Recode them, "
            "or name columns of your own: convert --phenotype"
        )
    return {
        f"{name_prefix}_{category}": column_text.isin(category_codes).astype(float)
        for category, category_codes in codes_by_category.items()
    }


def make_abide_values(table: pd.DataFrame) -> pd.DataFrame:
    """ABIDE's columns as text -> (subjects, 29) float64, NaN where unknown. Raises InputError for a missing column."""
    if missing_columns := [name for name in ABIDE_PHENOTYPE_COLUMNS if name not in table]:
        raise InputError(
            f"The phenotype table lacks {join_names(missing_columns)}; name columns of your own with convert "
            "--phenotype."
        )
    handedness_text = clean_column(table["HANDEDNESS_CATEGORY"])
    iq_test_text = clean_column(table["FIQ_TEST_TYPE"]).str.upper()
    wisc_scores_by_name = {
        f"wisc_{wisc_index.lower()}": parse_number_column(table, f"WISC_IV_{wisc_index}") for wisc_index in WISC_INDICES
    }
    iq_and_bmi_by_name = {name.lower(): parse_number_column(table, name) for name in ("FIQ", "VIQ", "PIQ", "BMI")}
    handedness_scores = parse_number_column(table, "HANDEDNESS_SCORES")
    iq_test_families = pd.Series(np.nan, table.index, dtype=object).mask(iq_test_text.notna(), "other")
    for name, test_prefixes in PREFIXES_BY_IQ_TEST.items():
        iq_test_families = iq_test_families.mask(iq_test_text.str.startswith(test_prefixes, na=False), name)
    column_by_value_name = {
        "age": parse_number_column(table, "AGE_AT_SCAN"),
        **make_category_columns(parse_number_column(table, "SEX"), CATEGORY_CODES_BY_VARIABLE["sex"], "sex"),
        **make_category_columns(handedness_text, CATEGORY_CODES_BY_VARIABLE["handedness"], "handedness"),
        "handedness_score": handedness_scores,
        **{name: iq_and_bmi_by_name[name] for name in ("fiq", "viq", "piq")},
        "handedness_unknown": handedness_text.isna().astype(float),
        "handedness_score_missing": handedness_scores.isna().astype(float),
        **{f"{name}_missing": iq_and_bmi_by_name[name].isna().astype(float) for name in ("fiq", "viq", "piq")},
        "wisc_missing": pd.DataFrame(wisc_scores_by_name).isna().all(axis=1).astype(float),
        "bmi_missing": iq_and_bmi_by_name["bmi"].isna().astype(float),
        **make_category_columns(iq_test_families, CATEGORY_CODES_BY_VARIABLE["iq_test"], "iq_test"),
        **wisc_scores_by_name,
        **make_category_columns(
            parse_number_column(table, "EYE_STATUS_AT_SCAN"), CATEGORY_CODES_BY_VARIABLE["eyes"], "eyes"
        ),
        "bmi": iq_and_bmi_by_name["bmi"],
    }
    return pd.DataFrame(column_by_value_name)


@functools.cache
def list_abide_value_names() -> tuple[str, ...]:
    """The names of ABIDE's 29 values."""
    return tuple(make_abide_values(pd.DataFrame(columns=ABIDE_PHENOTYPE_COLUMNS, dtype=str)))


def make_custom_values(table: pd.DataFrame, columns: Sequence[str], is_training: np.ndarray) -> pd.DataFrame:
    """The user's own columns -> (subjects, 29) float64, NaN where unknown; the unused ones are 0, named `unused_k`.

    A column of numbers becomes one value. If it is ever missing, a second value tells where. Text becomes a 0/1 value
    for each category. Both are learnt from the training rows, which `is_training` (n,) bool marks. Raises InputError
    for text among numbers, or more than 29 values.
    """
    columns_with_missing_values = [
        column_name for column_name in columns if clean_column(table[column_name])[is_training].isna().any()
    ]
    return encode_columns(table, columns, learn_categories(table, columns, is_training), columns_with_missing_values)


def encode_columns(
    table: pd.DataFrame,
    columns: Sequence[str],
    categories_by_column: Mapping[str, Sequence[str]],
    columns_with_missing_values: Collection[str],
) -> pd.DataFrame:
    """As `make_custom_values`, with the categories of columns of text in `categories_by_column`, and the columns that
    may lack values in `columns_with_missing_values`."""
    value_series_by_name: dict[str, pd.Series] = {}
    for column_name in columns:
        column_text = clean_column(table[column_name])
        if column_name in categories_by_column:
            value_series_by_name |= make_category_columns(
                column_text.where(column_text.isin(categories_by_column[column_name])),
                {category: (category,) for category in categories_by_column[column_name]},
                column_name,
            )
            continue
        value_series_by_name[column_name] = parse_number_column(table, column_name)
        if column_name in columns_with_missing_values:
            value_series_by_name[f"{column_name}_missing"] = column_text.isna().astype(float)
    if len(value_series_by_name) > PHENOTYPE_SIZE:
        most_categories_column = max(
            categories_by_column, key=lambda column_name: len(categories_by_column[column_name]), default=None
        )
        most_categories_text = (
            f"; {most_categories_column} is text and gives {len(categories_by_column[most_categories_column])} of them"
            if most_categories_column
            else ""
        )
        raise InputError(
            f"--phenotype gives {len(value_series_by_name)} values; expected at most "
            f"{PHENOTYPE_SIZE}{most_categories_text}. Name fewer columns."
        )
    zero_by_unused_name = {
        f"{UNUSED_PREFIX}{unused_number}": 0.0
        for unused_number in range(len(value_series_by_name) + 1, PHENOTYPE_SIZE + 1)
    }
    return pd.DataFrame(value_series_by_name | zero_by_unused_name, index=table.index)


def learn_categories(
    table: pd.DataFrame, columns: Sequence[str], is_training: np.ndarray
) -> dict[str, tuple[str, ...]]:
    """The columns that are text, each with the values in the training rows, which `is_training` (n,) bool marks."""
    training_text_by_column = {
        column_name: clean_column(table[column_name])[is_training]
        for column_name in columns
        if not is_mostly_numbers(table[column_name])
    }
    return {
        column_name: tuple(sorted(column_text.dropna().unique()))
        for column_name, column_text in training_text_by_column.items()
    }


def extract_covariates(table: pd.DataFrame, columns: Sequence[str], subjects: Sequence[str]) -> pd.DataFrame:
    """Columns of a table as text by subject, empty if a value or the column is missing."""
    covariate_text = table.reindex(columns=list(columns), fill_value="").apply(clean_column).fillna("")
    return covariate_text.apply(lambda column_text: column_text.str.split().str.join(" ")).set_axis(list(subjects))


def refuse_subject_column(columns: Iterable[str]) -> None:
    """Raises InputError for a column with the name of the column of subjects."""
    if SUBJECT_COLUMN in columns:
        reason = "cannot be kept as a covariate or phenotype, whose tables name the participants so"
        raise InputError(f"The column {SUBJECT_COLUMN} {reason}; rename it in the table.")


def write_subject_table(table_path: Path, table: pd.DataFrame) -> None:
    """Writes a table whose index holds the subjects; floats with all their digits, NaN as an empty cell."""
    tables.write_csv_frame(table_path, table.rename_axis(SUBJECT_COLUMN).reset_index())


def read_subject_table(table_path: Path, subjects: Sequence[str]) -> pd.DataFrame:
    """The rows of these subjects, in their order, as text. Raises InputError unless there is one for each."""
    table = tables.read_csv_frame(table_path, [SUBJECT_COLUMN]).set_index(SUBJECT_COLUMN)
    row_counts = table.index.value_counts().reindex(list(subjects), fill_value=0)
    if (wrong_row_counts := row_counts[row_counts != 1]).size:
        raise InputError(
            f"{table_path} has {wrong_row_counts.iloc[0]} rows of participant {wrong_row_counts.index[0]}; expected "
            "one. Copy it again."
        )
    return table.loc[list(subjects)]


def read_phenotype(phenotype_path: Path, subjects: Sequence[str], value_names: Sequence[str]) -> pd.DataFrame:
    """The phenotype of these subjects, in their order, as float64, NaN where empty. Raises InputError unless the
    columns are `value_names` and hold numbers."""
    text_table = read_subject_table(phenotype_path, subjects)
    try:
        phenotype_values = text_table.map(lambda cell_text: float(cell_text or "nan"))
    except ValueError as error:
        raise InputError(f"{phenotype_path} is damaged: {error}. Convert again.") from error
    if (
        list(phenotype_values) != list(value_names)
        or len(value_names) != PHENOTYPE_SIZE
        or (phenotype_values.abs() > MAX_PHENOTYPE_NUMBER).any(axis=None)
    ):
        raise InputError(
            f"{phenotype_path} does not hold the {PHENOTYPE_SIZE} numbers that cohort.json names. Convert again."
        )
    return phenotype_values
