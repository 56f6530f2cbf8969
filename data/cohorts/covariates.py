"""A cohort's covariates and phenotype -> what is known of age, sex, IQ, handedness and head motion.

Columns of `covariates.csv` come first. Of what these lack, the values of the phenotype are covariates, too, unless the
user named the covariates (`convert --covariates`).
"""

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from data.cohorts.phenotype import INDICATOR, LOGARITHMIC, mostly_numbers
from data.cohorts.rows import UNKNOWN_SITE, Row

if TYPE_CHECKING:
    from data.cohorts.cohort import Cohort

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
        return [name for name in names if self.may_be_text or is_measure(table[name])]


def is_measure(values: pd.Series) -> bool:
    return mostly_numbers(values.dropna()) and not values.isin([0, 1]).all()


AGE = Kind("(?<![a-z])age(?![a-z])", "onset|diagnos|maternal|paternal|mother|father|parent|gestation|mental")
SEX = Kind("(?<![a-z])(sex|gender)(?![a-z])", may_be_text=True)
IQ = Kind("(?<![a-z])(f|fs|full_?scale_?|v|p)?iq(?![a-z])(?!_(missing|test))", "verbal|performance|(?<![a-z])[vp]iq")
HANDEDNESS = Kind("(?<![a-z])hand(ed(ness)?)?(?![a-z])", may_be_text=True)
HEAD_MOTION = Kind(f"{LOGARITHMIC.pattern}|fd_?mean")
KINDS = {"age": AGE, "sex": SEX, "IQ": IQ, "handedness": HANDEDNESS, "head motion": HEAD_MOTION}


def known_covariates(cohort: "Cohort") -> pd.DataFrame | None:
    """All covariates, text by subject in the order of `Cohort.rows`, empty where unknown; None if there are none."""
    return completed(cohort.covariates, None if cohort.metadata.covariates_named else cohort.raw_phenotype)


def completed(table: pd.DataFrame | None, phenotype: pd.DataFrame | None) -> pd.DataFrame | None:
    """`Cohort.covariates` with what they lack of KINDS, as far as `Cohort.raw_phenotype` tells it."""
    if phenotype is None:
        return table
    table = pd.DataFrame(index=phenotype.index) if table is None else table
    lacking = [kind for kind in KINDS.values() if not kind.of(table)]
    found = [values for kind in lacking if (values := of_kind(phenotype, kind)) is not None]
    joined = table.assign(**{str(values.name): as_text(values) for values in found if values.name not in table})
    return joined if joined.shape[1] else None


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


def as_text(values: pd.Series) -> pd.Series:
    """Numbers or text as text, empty where unknown."""
    return values.map(lambda value: f"{value:.12g}" if isinstance(value, float) else value, "ignore").fillna("")


def told(table: pd.DataFrame, phenotype: pd.DataFrame, rows: Sequence[Row], named: bool) -> str:
    """Which covariates the people of these rows have: those of the table, and those of the phenotype; and what is not
    known. If the user `named` them, those of the phenotype are left out."""
    every = completed(table, phenotype)
    every = pd.DataFrame() if every is None else every
    added = ", ".join(every.columns[table.shape[1] :])
    unknown = ["site"] if {row.site for row in rows} == {UNKNOWN_SITE} else []
    unknown += [name for name, kind in KINDS.items() if not kind.of(every)]
    parts = [f"Covariates{', as named' if named else ''}: {', '.join(table) or 'none'}"]
    parts += [f"{'not named, so left out' if named else 'from the phenotype'}: {added}"] if added else []
    parts += [f"not known: {', '.join(unknown)}"] if unknown else []
    return "; ".join(parts) + "."
