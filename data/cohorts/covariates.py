"""A cohort's covariates and phenotype -> what is known of age, sex, IQ, handedness and head motion; odd numbers.

Columns of `covariates.csv` come first. Of what these lack, the values of the phenotype are covariates, too, unless the
user named the covariates (`convert --covariates`).
"""

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data.cohorts.phenotype import INDICATOR, LOGARITHMIC, clean, mostly_numbers
from data.cohorts.rows import Row, known_sites

if TYPE_CHECKING:
    from data.cohorts.cohort import Cohort

ODD = "codes of a missing value, or numbers far from all others"
FAR, FEWEST_FAR = 5, 10  # times the range of all others, of at least as many; `odd_numbers`
FEWEST = 3  # others, beside which a code is told from a measurement
BEYOND = 0.5  # times that range: how far a number lies above all others that may be a code of a missing value
CODE = re.compile(r"-?9{2,5}|-[19]")  # 99, 999, -9999, -1, ...
EXCEL_DATE = 30_000  # days since 1900, in the year 1982; as days of age, 82 years
MOSTLY = 0.9  # of the people
WORD = re.compile("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # where one begins in AgeAtScan


@dataclass(frozen=True)
class Kind:
    """What is known of people, by the names of columns. In small letters these match the `pattern`, and do not match
    `without`. It is a number, unless it `may_be_text`."""

    pattern: str
    without: str = "(?!)"  # nothing
    may_be_text: bool = False

    def names(self, column: str) -> bool:
        """Whether a column is called so."""
        name = f"{column} {WORD.sub('_', column)}".lower()
        return bool(re.search(self.pattern, name)) and not re.search(f"{self.without}|{INDICATOR.pattern}", name)

    def of(self, table: pd.DataFrame) -> list[str]:
        """The columns of this kind. What must be a number is neither text nor 0 and 1, which are codes of text."""
        names = [str(name) for name in table if self.names(str(name))]
        if self.may_be_text:
            return names
        return [name for name in names if mostly_numbers(table[name].dropna()) and not table[name].isin([0, 1]).all()]


AGE = Kind("(?<![a-z])age(?![a-z])", "onset|diagnos|maternal|paternal|mother|father|parent|gestation|mental")
SEX = Kind("(?<![a-z])(sex|gender)(?![a-z])", may_be_text=True)
IQ = Kind("(?<![a-z])(f|fs|full_?scale_?|v|p)?iq(?![a-z])(?!_(missing|test))", "verbal|performance|(?<![a-z])[vp]iq")
STANDARD_SCORE = Kind(f"{IQ.pattern}|(?<![a-z])(wasi|wisc|wais)(?![a-z])(?!.*raw)")  # of an IQ, also of a part
BODY = Kind("(?<![a-z])(bmi|height|weight)(?![a-z])")
HANDEDNESS = Kind("(?<![a-z])hand(ed(ness)?)?(?![a-z])", may_be_text=True)
HEAD_MOTION = Kind(f"{LOGARITHMIC.pattern}|fd_?mean")
KINDS = {"age": AGE, "sex": SEX, "IQ": IQ, "handedness": HANDEDNESS, "head motion": HEAD_MOTION}


def odd_numbers(table: pd.DataFrame | None, among: pd.DataFrame | None = None) -> list[str]:
    """By column of numbers, those of people (rows, text or numbers) that are likely no measurements: `age 999 (2)`.
    Nothing is said of cells that are not `among` these (bool), if they are given.

    They are codes of a missing value that lie above all others, or below 0 where no other does; 0 far below all others;
    numbers that are far from all others; and negative ages, IQs or head motions, and ages that are dates of Excel.
    """
    if table is None:
        return []
    found: list[str] = []
    for name in map(str, table):
        text = clean(table[name].dropna())
        values = pd.to_numeric(text, errors="coerce").dropna().astype(float)
        if values.empty or not mostly_numbers(text.dropna()):
            continue
        odd = values[are_odd(values.to_numpy(), name)]
        if among is not None:
            odd = odd[among.loc[odd.index, name]]
        counts = odd.map("{:.12g}".format).value_counts()
        found += [f"{name} {value} ({count})" for value, count in counts.items()]
    return found


def are_odd(values: np.ndarray, name: str) -> np.ndarray:
    """Which numbers (n,) of a column of this name are odd, see `odd_numbers`."""
    measured = any(kind.names(name) for kind in (AGE, IQ, HEAD_MOTION))
    code = np.array([CODE.fullmatch(f"{value:.12g}") is not None for value in values], bool)
    far = np.zeros(len(values), bool)
    far[~code] = are_far(values[~code])
    others = values[~(code | far)]
    if zero_is_code(others[others != 0], name):
        far |= values == 0
        others = others[others != 0]
    if others.size >= FEWEST:
        above = values > others.max() + BEYOND * np.ptp(others)
        below = (values < 0) & (others.min() >= 0) & (measured | (values != -1))
        far |= code & (above | below)
    if measured and (values >= 0).mean() > MOSTLY:
        far |= values < 0
    return far | (values >= EXCEL_DATE) & AGE.names(name)


def zero_is_code(others: np.ndarray, name: str) -> bool:
    """Whether 0 beside these other numbers (n,) of a column of this name is likely the code of a missing value. Ages,
    IQs, heights, weights and mean head motions are not 0, unless that is the next step. Elsewhere it is a code if it
    lies farther from all others than these lie apart. Scores of ABIDE and of OpenNeuro's ds002748 that may be 0 lie at
    most a third as far. Fewer than FEWEST_FAR different numbers may be codes themselves."""
    numbers = np.unique(others)
    if others.size < FEWEST or numbers.size < 2 or numbers[0] < 0:
        return False
    is_mean_motion = HEAD_MOTION.names(name) and "mean" in name.lower()
    if is_mean_motion or any(kind.names(name) for kind in (AGE, STANDARD_SCORE, BODY)):
        return bool(numbers[0] > 1.5 * np.diff(numbers).min())  # more than a step, as rounding may have it
    return numbers.size >= FEWEST_FAR and bool(numbers[0] > np.ptp(numbers))


def are_far(values: np.ndarray) -> np.ndarray:
    """Which numbers (n,) are far from all others: beyond a gap of FAR times their range. The middle half is of them.
    Of 2,000 samples of 10 to 1,000 normal or log-normal values (0.6), 0.4 % or less had one."""
    if len(values) < FEWEST_FAR:
        return np.zeros(len(values), bool)
    low, high = np.quantile(values, (0.25, 0.75), method="nearest")
    while high > low:
        near = values[np.abs(values - (low + high) / 2) <= (FAR + 0.5) * (high - low)]
        if (near.min(), near.max()) == (low, high):
            return (values < low) | (values > high)
        low, high = near.min(), near.max()
    return np.zeros(len(values), bool)


def known_covariates(cohort: "Cohort") -> pd.DataFrame | None:
    """All covariates, text by subject in the order of `Cohort.rows`, empty where unknown; None if there are none."""
    return completed(cohort.covariates, None if cohort.metadata.covariates_named else cohort.raw_phenotype)


def completed(table: pd.DataFrame | None, phenotype: pd.DataFrame | None) -> pd.DataFrame | None:
    """`Cohort.covariates` with what they lack of KINDS, as far as `Cohort.raw_phenotype` tells it."""
    if phenotype is None:
        return table
    table = pd.DataFrame(index=phenotype.index) if table is None else table
    known = [of_kind(phenotype, kind) for kind in KINDS.values() if not kind.of(table)]
    added = {str(of.name): of.map(in_text, "ignore").fillna("") for of in known if of is not None}
    joined = table.assign(**{name: of for name, of in added.items() if name not in table})
    return joined if joined.shape[1] else None


def in_text(value: float | str) -> str:
    return f"{value:.12g}" if isinstance(value, float) else value


def of_kind(phenotype: pd.DataFrame, kind: Kind) -> pd.Series | None:
    """A value of the phenotype of this kind: a number, or the text of 0/1 values of one category, such as `sex_male`
    and `sex_female`. NaN where unknown; None if nothing is known."""
    named = phenotype[kind.of(phenotype)]
    codes = named.loc[:, named.isin([0, 1]).all()]
    if codes.shape[1] > 1 and (codes.sum(axis=1) <= 1).all():
        column = os.path.commonprefix(list(codes)).rpartition("_")[0]  # noqa: RUF071  text
        text = codes.idxmax(axis=1).str.removeprefix(f"{column}_")
        named = text.where(codes.any(axis=1)).to_frame(column or codes.columns[0])
    known = [name for name in named if named[name].notna().any()]
    return named[known[0]] if known else None


def told(table: pd.DataFrame, phenotype: pd.DataFrame, rows: Sequence[Row], named: bool) -> str:
    """Which covariates the people of these rows have: those of the table, and those of the phenotype; and what is not
    known. If the user `named` them, those of the phenotype are left out."""
    every = completed(table, phenotype)
    every = pd.DataFrame() if every is None else every
    added = ", ".join(every.columns[table.shape[1] :])
    unknown = [] if known_sites(row.site for row in rows) else ["site"]
    unknown += [name for name, kind in KINDS.items() if not kind.of(every)]
    parts = [f"{'as named: ' if named else ''}{', '.join(table) or 'none'}"]
    parts += [f"{'not named, so left out' if named else 'from the phenotype'}: {added}"] if added else []
    parts += [f"not known: {', '.join(unknown)}"] if unknown else []
    return "; ".join(parts)
