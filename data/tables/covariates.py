"""Columns of covariates -> which hold age, sex, IQ, handedness and head motion; odd numbers in them."""

import os.path
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.tables.missing import clean_column
from data.tables.phenotype import INDICATOR_PATTERN, LOGARITHMIC_COLUMN_PATTERN, is_mostly_numbers

IMPLAUSIBLE_NUMBERS_TEXT = "codes of a missing value, or numbers far from all others"
FAR_DISTANCE_IN_RANGES = 5
MIN_NUMBERS_TO_CALL_FAR = (
    10  # a number is far if it lies so many ranges of all others away; of at least so many numbers
)
MIN_PLAIN_NUMBERS = 3  # so many others are needed to tell a code from a measurement
# times the range of all others: a number so far above them may be a code of a missing value
CODE_DISTANCE_IN_RANGES = 0.5
MISSING_CODE_PATTERN = re.compile(r"-?9{2,5}|-[19]")  # 99, 999, -9999, -1, ...
MIN_EXCEL_DATE = 30_000  # days since 1900, in the year 1982; as days of age, 82 years
MIN_NONNEGATIVE_SHARE = 0.9  # of the people
WORD_START_PATTERN = re.compile("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # where a word begins, as in AgeAtScan


@dataclass(frozen=True)
class CovariateKind:
    """A kind of covariate, known by the names of its columns: in small letters, these match `column_name_pattern`, and
    do not match `excluded_name_pattern`. It is a number, unless it `may_be_text`."""

    column_name_pattern: str
    excluded_name_pattern: str = "(?!)"  # nothing
    may_be_text: bool = False

    def matches_column_name(self, column_name: str) -> bool:
        """Whether a column is called so."""
        spaced_name = f"{column_name} {WORD_START_PATTERN.sub('_', column_name)}".lower()
        return bool(re.search(self.column_name_pattern, spaced_name)) and not re.search(
            f"{self.excluded_name_pattern}|{INDICATOR_PATTERN.pattern}", spaced_name
        )

    def find_matching_column_names(self, table: pd.DataFrame) -> list[str]:
        """The columns of this kind. What must be a number is neither text nor 0 and 1, which are codes of text."""
        column_names = [str(column_name) for column_name in table if self.matches_column_name(str(column_name))]
        if self.may_be_text:
            return column_names
        return [
            column_name
            for column_name in column_names
            if is_mostly_numbers(table[column_name].dropna()) and not table[column_name].isin([0, 1]).all()
        ]


AGE_KIND = CovariateKind(
    "(?<![a-z])age(?![a-z])", "onset|diagnos|maternal|paternal|mother|father|parent|gestation|mental"
)
SEX_KIND = CovariateKind("(?<![a-z])(sex|gender)(?![a-z])", may_be_text=True)
IQ_KIND = CovariateKind(
    "(?<![a-z])(f|fs|full_?scale_?|v|p)?iq(?![a-z])(?!_(missing|test))", "verbal|performance|(?<![a-z])[vp]iq"
)
STANDARD_SCORE_KIND = CovariateKind(
    f"{IQ_KIND.column_name_pattern}|(?<![a-z])(wasi|wisc|wais)(?![a-z])(?!.*raw)"
)  # of an IQ, also of a part
BODY_KIND = CovariateKind("(?<![a-z])(bmi|height|weight)(?![a-z])")
HANDEDNESS_KIND = CovariateKind("(?<![a-z])hand(ed(ness)?)?(?![a-z])", may_be_text=True)
HEAD_MOTION_KIND = CovariateKind(f"{LOGARITHMIC_COLUMN_PATTERN.pattern}|fd_?mean")
COVARIATE_KIND_BY_NAME = {
    "age": AGE_KIND,
    "sex": SEX_KIND,
    "IQ": IQ_KIND,
    "handedness": HANDEDNESS_KIND,
    "head motion": HEAD_MOTION_KIND,
}


def describe_implausible_numbers(table: pd.DataFrame | None, is_checked: pd.DataFrame | None = None) -> list[str]:
    """The numbers of each column that are likely no measurements, and how many people have them: `age 999 (2)`. `table`
    has a row a person, text or numbers. If `is_checked` (bool) is given, only the cells that it marks are reported.

    They are codes of a missing value that lie above all others, or below 0 where no other does; 0 far below all others;
    numbers that are far from all others; and negative ages, IQs or head motions, and ages that are dates of Excel.
    """
    if table is None:
        return []
    implausible_number_texts: list[str] = []
    for column_name in map(str, table):
        column_text = clean_column(table[column_name].dropna())
        column_numbers = pd.to_numeric(column_text, errors="coerce").dropna().astype(float)
        if column_numbers.empty or not is_mostly_numbers(column_text.dropna()):
            continue
        implausible_numbers = column_numbers[mark_implausible_numbers(column_numbers.to_numpy(), column_name)]
        if is_checked is not None:
            implausible_numbers = implausible_numbers[is_checked.loc[implausible_numbers.index, column_name]]
        count_by_number = implausible_numbers.map("{:.12g}".format).value_counts()
        implausible_number_texts += [
            f"{column_name} {number_text} ({count})" for number_text, count in count_by_number.items()
        ]
    return implausible_number_texts


def mark_implausible_numbers(known_numbers: np.ndarray, column_name: str) -> np.ndarray:
    """Which numbers (n,) of a column of this name are odd, see `describe_implausible_numbers`."""
    is_nonnegative_kind = any(kind.matches_column_name(column_name) for kind in (AGE_KIND, IQ_KIND, HEAD_MOTION_KIND))
    may_be_missing_code = np.array(
        [MISSING_CODE_PATTERN.fullmatch(f"{number:.12g}") is not None for number in known_numbers], bool
    )
    is_implausible = np.zeros(len(known_numbers), bool)
    is_implausible[~may_be_missing_code] = mark_far_numbers(known_numbers[~may_be_missing_code])
    plain_numbers = known_numbers[~(may_be_missing_code | is_implausible)]
    if is_zero_missing_code(plain_numbers[plain_numbers != 0], column_name):
        is_implausible |= known_numbers == 0
        plain_numbers = plain_numbers[plain_numbers != 0]
    if plain_numbers.size >= MIN_PLAIN_NUMBERS:
        is_above = known_numbers > plain_numbers.max() + CODE_DISTANCE_IN_RANGES * np.ptp(plain_numbers)
        is_below = (known_numbers < 0) & (plain_numbers.min() >= 0) & (is_nonnegative_kind | (known_numbers != -1))
        is_implausible |= may_be_missing_code & (is_above | is_below)
    if is_nonnegative_kind and (known_numbers >= 0).mean() > MIN_NONNEGATIVE_SHARE:
        is_implausible |= known_numbers < 0
    return is_implausible | (known_numbers >= MIN_EXCEL_DATE) & AGE_KIND.matches_column_name(column_name)


def is_zero_missing_code(plain_numbers: np.ndarray, column_name: str) -> bool:
    """Whether 0 beside these other numbers (n,) of a column of this name is likely the code of a missing value. Ages,
    IQs, heights, weights and mean head motions are not 0, unless 0 is the next step of the scale. Elsewhere it is a
    code if it lies farther from all others than these lie apart. Scores of ABIDE and of OpenNeuro's ds002748 that may
    be 0 lie at most a third as far. Fewer than `MIN_NUMBERS_TO_CALL_FAR` different numbers may be codes themselves."""
    distinct_numbers = np.unique(plain_numbers)
    if plain_numbers.size < MIN_PLAIN_NUMBERS or distinct_numbers.size < 2 or distinct_numbers[0] < 0:
        return False
    is_mean_motion = HEAD_MOTION_KIND.matches_column_name(column_name) and "mean" in column_name.lower()
    if is_mean_motion or any(
        kind.matches_column_name(column_name) for kind in (AGE_KIND, STANDARD_SCORE_KIND, BODY_KIND)
    ):
        return bool(
            distinct_numbers[0] > 1.5 * np.diff(distinct_numbers).min()
        )  # more than a step, as rounding may have it
    return distinct_numbers.size >= MIN_NUMBERS_TO_CALL_FAR and bool(distinct_numbers[0] > np.ptp(distinct_numbers))


def mark_far_numbers(column_numbers: np.ndarray) -> np.ndarray:
    """Which numbers (n,) are far from all others: beyond a gap of `FAR_DISTANCE_IN_RANGES` times the range of these
    others, which include the middle half. Of 2,000 samples of 10 to 1,000 normal or log-normal values (0.6), 0.4 % or
    less had one."""
    if len(column_numbers) < MIN_NUMBERS_TO_CALL_FAR:
        return np.zeros(len(column_numbers), bool)
    near_low, near_high = np.quantile(column_numbers, (0.25, 0.75), method="nearest")
    while near_high > near_low:
        near_numbers = column_numbers[
            np.abs(column_numbers - (near_low + near_high) / 2)
            <= (FAR_DISTANCE_IN_RANGES + 0.5) * (near_high - near_low)
        ]
        if (near_numbers.min(), near_numbers.max()) == (near_low, near_high):
            return (column_numbers < near_low) | (column_numbers > near_high)
        near_low = near_numbers.min()
        near_high = near_numbers.max()
    return np.zeros(len(column_numbers), bool)


def format_covariate_value(value: float | str) -> str:
    return f"{value:.12g}" if isinstance(value, float) else value


def find_phenotype_covariate(raw_phenotype: pd.DataFrame, kind: CovariateKind) -> pd.Series | None:
    """A value of the phenotype of this kind: a number, or the text of 0/1 values of one category, such as `sex_male`
    and `sex_female`. NaN where unknown; None if nothing is known."""
    candidate_columns = raw_phenotype[kind.find_matching_column_names(raw_phenotype)]
    binary_columns = candidate_columns.loc[:, candidate_columns.isin([0, 1]).all()]
    if binary_columns.shape[1] > 1 and (binary_columns.sum(axis=1) <= 1).all():
        variable_name = os.path.commonprefix(list(binary_columns)).rpartition("_")[0]  # noqa: RUF071  text
        category_text = binary_columns.idxmax(axis=1).str.removeprefix(f"{variable_name}_")
        candidate_columns = category_text.where(binary_columns.any(axis=1)).to_frame(
            variable_name or binary_columns.columns[0]
        )
    measured_column_names = [
        column_name for column_name in candidate_columns if candidate_columns[column_name].notna().any()
    ]
    return candidate_columns[measured_column_names[0]] if measured_column_names else None
