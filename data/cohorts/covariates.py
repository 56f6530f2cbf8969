"""A cohort's covariates and phenotype -> what is known of age, sex, IQ, handedness and head motion.

Columns of `covariates.csv` come first. Of what these lack, the values of the phenotype are covariates, too, unless the
user named the covariates (`convert --covariates`).
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from data.cohorts.phenotype import HEAD_MOTION, INDICATOR
from data.cohorts.rows import UNKNOWN_SITE, Row

if TYPE_CHECKING:
    from data.cohorts.cohort import Cohort

AGE = re.compile("(?<![a-z])age(?![a-z])", re.IGNORECASE)
SEX = re.compile("(?<![a-z])(sex|gender)(?![a-z])", re.IGNORECASE)
IQ = re.compile("(?<![a-z])(f|fs|full_?scale_?)?iq(?![a-z])(?!_(missing|test))", re.IGNORECASE)
HANDEDNESS = re.compile("(?<![a-z])hand(ed(ness)?)?(?![a-z])", re.IGNORECASE)
KINDS = {"age": AGE, "sex": SEX, "IQ": IQ, "handedness": HANDEDNESS, "head motion": HEAD_MOTION}


def known_covariates(cohort: "Cohort") -> pd.DataFrame | None:
    """All covariates, text by subject in the order of `Cohort.rows`, empty where unknown; None if there are none."""
    return completed(cohort.covariates, None if cohort.metadata.covariates_named else cohort.raw_phenotype)


def completed(table: pd.DataFrame | None, phenotype: pd.DataFrame | None) -> pd.DataFrame | None:
    """`Cohort.covariates` with what they lack of KINDS, as far as `Cohort.raw_phenotype` tells it."""
    if phenotype is None:
        return table
    table = pd.DataFrame(index=phenotype.index) if table is None else table
    lacking = [pattern for pattern in KINDS.values() if not any(map(pattern.search, table))]
    found = [values for pattern in lacking if (values := of_kind(phenotype, pattern)) is not None]
    joined = table.assign(**{str(values.name): as_text(values) for values in found})
    return joined if joined.shape[1] else None


def of_kind(phenotype: pd.DataFrame, pattern: re.Pattern) -> pd.Series | None:
    """A value of the phenotype whose name matches: a number, or the text of 0/1 values of one category, such as
    `sex_male` and `sex_female`. NaN where unknown; None if nothing is known."""
    named = phenotype[[name for name in phenotype if pattern.search(name) and not INDICATOR.search(name)]]
    codes = named.loc[:, named.isin([0, 1]).all()]
    if codes.shape[1] > 1 and (codes.sum(axis=1) <= 1).all():
        ends = {name: found.end() for name in codes if (found := pattern.search(name))}
        text = codes.idxmax(axis=1).map({name: name[end:].strip("_") for name, end in ends.items()})
        first, end = next(iter(ends.items()))
        named = text.where(codes.any(axis=1)).to_frame(first[:end])
    known = [name for name in named if named[name].notna().any()]
    return named[known[0]] if known else None


def as_text(values: pd.Series) -> pd.Series:
    """Numbers or text as text, empty where unknown."""
    return values.map(lambda value: f"{value:.12g}" if isinstance(value, float) else value, "ignore").fillna("")


def told(table: pd.DataFrame, phenotype: pd.DataFrame, rows: Sequence[Row], named: bool) -> str:
    """Which covariates the people of these rows have: those of the table, and those of the phenotype; and what is not
    known. If the user `named` them, those of the phenotype are left out."""
    every = completed(table, phenotype)
    names = [] if every is None else [str(name) for name in every]
    added = ", ".join(names[table.shape[1] :])
    unknown = ["site"] if {row.site for row in rows} == {UNKNOWN_SITE} else []
    unknown += [kind for kind, pattern in KINDS.items() if not any(map(pattern.search, names))]
    parts = [f"Covariates{', as named' if named else ''}: {', '.join(table) or 'none'}"]
    parts += [f"{'not named, so left out' if named else 'from the phenotype'}: {added}"] if added else []
    parts += [f"not known: {', '.join(unknown)}"] if unknown else []
    return "; ".join(parts) + "."
