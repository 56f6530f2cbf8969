"""A table of people -> 29 leak-free values and covariates of each subject; both on disk, and what is missing of them.

ABIDE's columns are described in its phenotypic data legend. Never used, not even whether they are missing: ADOS, ADI-R,
SRS, SCQ, AQ, VINELAND, DSM, medication, comorbidity, since they measure or follow from the diagnosis.
"""

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base import tables
from data.base.errors import InputError
from data.cohorts.records import PHENOTYPE_SIZE
from data.cohorts.rows import Metadata, Preparation, RecordRow, join_names

MISSING_VALUE_PATTERN = re.compile(
    r"|`|\.|\?|--?|na|n/a|#n/a|<na>|-?nan|null|#null!|#(div/0|value|ref|num)!|#name\?|-9{3,5}([.,]0*)?", re.IGNORECASE
)
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
MAX_MISSING_P_VALUE = 0.01  # over all columns and sites (Bonferroni)
INDICATOR_PATTERN = re.compile("_(missing|unknown)$")  # ends the name of a value that is 1 where another one is missing
IQ_TEST_VALUE_PREFIX = "iq_test_"  # begins the name of a value that is 1 where such a test measured the IQ


def clean_column(column: pd.Series) -> pd.Series:
    """Text with its missing values (empty, NA, -9999, a stray backtick and the like, see `MISSING_VALUE_PATTERN`) as
    NaN."""
    stripped_texts = map(str.strip, column.astype(str))
    cleaned_texts = [np.nan if MISSING_VALUE_PATTERN.fullmatch(text) else text for text in stripped_texts]
    return pd.Series(cleaned_texts, column.index, "str", column.name)


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
    handedness_text, iq_test_text = (
        clean_column(table["HANDEDNESS_CATEGORY"]),
        clean_column(table["FIQ_TEST_TYPE"]).str.upper(),
    )
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
        f"unused_{unused_number}": 0.0 for unused_number in range(len(value_series_by_name) + 1, PHENOTYPE_SIZE + 1)
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


def list_value_names_by_variable(metadata: Metadata) -> dict[str, list[str]]:
    """By variable, the names of the 0/1 values that its categories became."""
    if metadata.phenotype == list_abide_value_names():
        return {
            variable: [f"{variable}_{abide_category}" for abide_category in codes_by_category]
            for variable, codes_by_category in CATEGORY_CODES_BY_VARIABLE.items()
        }
    variable_items = metadata.phenotype_categories.items()
    return {variable: [f"{variable}_{category}" for category in categories] for variable, categories in variable_items}


def list_value_names_by_indicator(metadata: Metadata) -> dict[str, list[str]]:
    """By indicator, a value that is 1 where others are unknown and 0 elsewhere, the names of these others."""
    value_names_by_indicator = {f"{value_name}_missing": [value_name] for value_name in metadata.phenotype}
    if metadata.phenotype == list_abide_value_names():
        value_names_by_indicator |= {
            indicator: list(value_names) for indicator, value_names in VALUE_NAMES_BY_INDICATOR.items()
        }
    added_names = set(metadata.phenotype) - set(metadata.phenotype_columns)  # not a column of the user's own
    return {
        indicator: value_names
        for indicator, value_names in value_names_by_indicator.items()
        if indicator in added_names
    }


def compute_expected_indicators(raw_values: pd.DataFrame, metadata: Metadata) -> pd.DataFrame:
    """What the indicators (`list_value_names_by_indicator`) must be beside raw values (people, 29): 0.0 or 1.0."""
    category_value_names = [
        value_name for value_names in list_value_names_by_variable(metadata).values() for value_name in value_names
    ]
    is_measured = raw_values.notna() & ~(
        raw_values.eq(0) & raw_values.columns.isin(category_value_names)
    )  # a variable is unknown if none of its categories is 1
    value_names_by_indicator = list_value_names_by_indicator(metadata)
    return pd.DataFrame(
        {
            value_name: (~is_measured[value_names].any(axis=1)).astype(float)
            for value_name, value_names in value_names_by_indicator.items()
        },
        is_measured.index,
    )


def describe_impossible_values(raw_values: pd.DataFrame, metadata: Metadata) -> list[str]:
    """Sentences on raw values (people, 29) that no conversion gives: categories other than 0 and 1, several of one
    variable, indicators that contradict what they are about. Nothing is said of what no conversion made."""
    if not metadata.phenotype_columns:
        return []
    sentences = list[str]()
    for value_names in list_value_names_by_variable(metadata).values():
        rule_text = (
            f"expected 1 for one of {join_names(value_names)} and 0 for others, or 0 for all where it is unknown"
        )
        for value_name in value_names:
            if (wrong_values := raw_values[value_name][~raw_values[value_name].isin([0, 1])]).size:
                wrong_value_text = f"{wrong_values.iloc[0]:g}" if wrong_values.notna().iloc[0] else "empty"
                sentences.append(
                    f"{value_name} of {join_names(wrong_values.index.tolist())} is {wrong_value_text}; {rule_text}"
                )
        if (excess_category_counts := raw_values[value_names].eq(1).sum(axis=1).loc[lambda count: count > 1]).size:
            sentences.append(
                f"{join_names(excess_category_counts.index.tolist())} has several of one variable; {rule_text}"
            )
    expected_indicators, value_names_by_indicator = (
        compute_expected_indicators(raw_values, metadata),
        list_value_names_by_indicator(metadata),
    )
    for value_name in expected_indicators:
        if (wrong_values := raw_values[value_name][raw_values[value_name].ne(expected_indicators[value_name])]).size:
            rule_text = f"expected 1 if {join_names(value_names_by_indicator[value_name])} is unknown, else 0"
            sentences.append(
                f"{value_name} of {join_names(wrong_values.index.tolist())} is {wrong_values.iloc[0]:g}; {rule_text}"
            )
    return sentences


@dataclass(frozen=True)
class Scaler:
    """Constants that impute and scale a phenotype, each (29,) float64."""

    median: np.ndarray  # (29,) of raw values; replaces unknown ones
    mean: np.ndarray  # (29,) of imputed values
    scale: np.ndarray  # 0 for a value that was constant or wholly unknown

    def transform(self, raw_values: np.ndarray) -> np.ndarray:
        """Raw values (n, 29), NaN where unknown -> z-scores (n, 29) float64; values with a scale of 0 become 0."""
        imputed_values = np.where(np.isnan(raw_values), self.median, raw_values)
        return np.where(self.scale > 0, (imputed_values - self.mean) / np.where(self.scale > 0, self.scale, 1), 0)

    @classmethod
    def from_preparation(cls, preparation: Preparation) -> "Scaler | None":
        """The constants that a preparation holds; None if it holds none, or not one for each value."""
        constants = preparation.phenotype_median, preparation.phenotype_mean, preparation.phenotype_scale
        return cls(*map(np.array, constants)) if preparation.has_phenotype_constants else None

    def to_preparation_fields(self) -> dict[str, Any]:
        """The constants as fields of `Preparation`."""
        return {
            f"phenotype_{constant_name}": tuple(constant_values.tolist())
            for constant_name, constant_values in vars(self).items()
        }


def fit_scaler(raw_values: np.ndarray) -> Scaler:
    """Median imputation, then z-scores, fitted on training subjects (n, 29)."""
    from sklearn.impute import SimpleImputer  # slow, and the processes that read maps can do without
    from sklearn.preprocessing import StandardScaler

    raw_values = np.ascontiguousarray(raw_values)  # the last bit of a sum depends on the order in memory
    imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(raw_values)
    imputed_values = imputer.transform(raw_values)
    standard_scaler = StandardScaler().fit(imputed_values)
    return Scaler(
        imputer.statistics_,
        standard_scaler.mean_,
        np.where(np.ptp(imputed_values, axis=0) > 0, standard_scaler.scale_, 0),
    )


def find_recording_value_indices(preparation: Preparation) -> list[int]:
    """The positions of the values that say only what of a person is missing, and how it was measured; empty if they are
    the same for all training people."""
    indexed_names_and_scales = enumerate(zip(preparation.phenotype, preparation.phenotype_scale, strict=False))
    recording_indices_and_scales = [
        (index, scale)
        for index, (value_name, scale) in indexed_names_and_scales
        if INDICATOR_PATTERN.search(value_name) or value_name.startswith(IQ_TEST_VALUE_PREFIX)
    ]
    return (
        [index for index, _ in recording_indices_and_scales]
        if any(scale > 0 for _, scale in recording_indices_and_scales)
        else []
    )


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


def describe_missing_by_class(value_table: pd.DataFrame | None, rows: Sequence[RecordRow]) -> list[str]:
    """A sentence for each site at which one class lacks values more often than the other (Fisher's exact test), the
    clearest first. There, a classifier can read the label from the gap. `value_table` (people, columns) is NaN where a
    value is missing; without it, there are no sentences."""
    from scipy.stats import fisher_exact

    if value_table is None:
        return []
    row_by_subject = {row.subject: row for row in rows}
    labels, sites = (
        np.array([getattr(row_by_subject[name], field_name) for name in value_table.index])
        for field_name in ("label", "site")
    )
    columns_by_gap: dict[tuple[str, bytes], list[str]] = {}  # of a site, the columns that the same people lack
    p_value_and_text_by_gap: dict[tuple[str, bytes], tuple[float, str]] = {}
    for name, column in value_table.items():
        is_missing = (column.isna() | bool(INDICATOR_PATTERN.search(str(name))) & (column == 1)).to_numpy()
        for site_name in np.unique(sites):
            control_missing_mask, autism_missing_mask = (
                is_missing[(sites == site_name) & (labels == class_label)] for class_label in (0.0, 1.0)
            )
            both_classes_missing_mask = np.concatenate([control_missing_mask, autism_missing_mask])
            if (
                control_missing_mask.size == 0
                or autism_missing_mask.size == 0
                or both_classes_missing_mask.all()
                or not both_classes_missing_mask.any()
            ):
                continue
            gap_key = (str(site_name), both_classes_missing_mask.tobytes())
            columns_by_gap.setdefault(gap_key, []).append(INDICATOR_PATTERN.sub("", str(name)))
            fisher_result = fisher_exact(
                [
                    [control_missing_mask.sum(), (~control_missing_mask).sum()],
                    [autism_missing_mask.sum(), (~autism_missing_mask).sum()],
                ]
            )
            count_texts = [
                f"{class_missing_mask.sum()} of {class_missing_mask.size}"
                for class_missing_mask in (control_missing_mask, autism_missing_mask)
            ]
            p_value_and_text_by_gap[gap_key] = (
                float(fisher_result.pvalue),
                f"{count_texts[0]} controls and {count_texts[1]} participants with autism at {site_name}",
            )
    p_threshold = MAX_MISSING_P_VALUE / max(len(p_value_and_text_by_gap), 1)
    return [
        f"{join_names(list(dict.fromkeys(columns_by_gap[gap_key])))} missing in {counts_text} (p = {p_value:.1g})"
        for gap_key, (p_value, counts_text) in sorted(p_value_and_text_by_gap.items(), key=lambda item: item[1])
        if p_value < p_threshold
    ]
