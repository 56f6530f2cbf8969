"""What is known of people beside their scans: phenotype and covariates -> numbers and categories to compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.cohorts.cohort import Cohort
from data.cohorts.phenotype import MAX_NUMBER, clean, mostly_numbers
from data.cohorts.side_tables import HEAD_MOTION

FEW_VALUES = 5  # of a number; it counts as a category
MIN_OF_CATEGORY = 2  # training people who have it, so that it is not that of one person
MIN_KNOWN = 20  # of whom a number is known
NEARLY_ALL = 0.99  # of training people
UNKNOWN = "unknown"
DIGITS = 3  # significant ones of a share
UNUSED = "unused_"  # begins the name of a phenotype value that is always 0


@dataclass(frozen=True)
class Expected:
    """What training people have, by column: the `categories` that several of them have, with their shares; `known`: the
    columns of numbers of the phenotype that are known of nearly all."""

    categories: dict[str, dict[str, float]]
    known: tuple[str, ...]


def table_of(cohort: Cohort, indices: np.ndarray) -> pd.DataFrame:
    """Raw phenotype and covariates of the people with these records as text, empty where unknown, a row a record; of a
    column that is in both, the former."""
    subjects, parts = [cohort.rows[index].subject for index in indices], []
    if cohort.raw_phenotype is not None:
        parts.append(as_text(cohort.raw_phenotype, cohort.metadata.phenotype_categories))
    if cohort.covariates is not None:
        parts.append(cohort.covariates.drop(columns=[name for part in parts for name in part], errors="ignore"))
    rows = [part.loc[subjects].reset_index(drop=True) for part in parts]
    return pd.concat(rows, axis=1) if rows else pd.DataFrame(index=range(len(subjects)))


def as_text(raw: pd.DataFrame, categories: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """A raw phenotype (subjects, 29) as text, without unused values; a column that was made 0/1 values is one again."""
    table = raw[[name for name in raw if not name.startswith(UNUSED)]].map("{:.12g}".format)
    for name, values in categories.items():
        coded = raw[[f"{name}_{value}" for value in values]].to_numpy()
        text = np.where(coded.any(axis=1), np.array(values)[coded.argmax(axis=1)], UNKNOWN)
        table = table.drop(columns=[f"{name}_{value}" for value in values]).assign(**{name: text})
    return table


def number(column: pd.Series) -> pd.Series:
    """A column of text as float64, of head motion the logarithm; NaN where it is none."""
    values = pd.to_numeric(clean(column), errors="coerce").astype(float)
    values = values.where(values.abs() <= MAX_NUMBER)
    return np.log(values.where(values > 0)) if HEAD_MOTION.search(str(column.name)) else values


def category(column: pd.Series) -> pd.Series:
    """A column of text, each number written in one way."""
    text = clean(column)
    values = pd.to_numeric(text, errors="coerce")
    return text.where(values.isna(), values.map("{:g}".format)).fillna(UNKNOWN)


def numbers(table: pd.DataFrame, sites: Sequence[str]) -> pd.DataFrame:
    """The columns of a `table_of` training people at these sites that are numbers of many values, float64. One that a
    column before it repeats is left out, and one that names the sites: a new site is nothing unusual."""
    found: dict[str, pd.Series] = {}
    for name, column in table.items():
        values = number(column)
        several = values.nunique() > FEW_VALUES and values.notna().sum() >= MIN_KNOWN and mostly_numbers(column)
        if several and column.tolist() != list(sites) and not any(values.equals(other) for other in found.values()):
            found[str(name)] = values
    return pd.DataFrame(found, table.index)


def expected(cohort: Cohort, table: pd.DataFrame, sites: Sequence[str], numeric: pd.DataFrame) -> Expected:
    """What is expected by a `table_of` training people at these sites, whose `numeric` columns are numbers. A column
    whose categories tell the site, or are each of hardly anybody, is left out, and one that is the same for all: of a
    phenotype it is scaled to 0 for everybody."""
    raw: set[str] = set()
    if cohort.raw_phenotype is not None:
        raw = set(as_text(cohort.raw_phenotype, cohort.metadata.phenotype_categories))
    known = tuple(name for name, values in numeric.items() if name in raw and values.notna().mean() >= NEARLY_ALL)
    categories: dict[str, dict[str, float]] = {}
    for name, column in table.items():
        text = category(column)
        if number(column).nunique() > FEW_VALUES or text.nunique() == 1:
            continue
        common = {value: count / len(text) for value, count in text.value_counts().items() if count >= MIN_OF_CATEGORY}
        common |= {} if name in raw else {UNKNOWN: common.get(UNKNOWN, 0.0)}
        if text.isin(common.keys()).mean() >= NEARLY_ALL and not tells(text, sites):
            categories[str(name)] = {value: float(f"{common[value]:.{DIGITS}g}") for value in sorted(common)}
    return Expected(categories, known)


def tells(text: pd.Series, sites: Sequence[str]) -> bool:
    """Whether each category of a column is of one site, of several sites, or the column is the site."""
    site = pd.Series(list(sites), text.index)
    named = text[text != UNKNOWN]
    apart = site.nunique() > 1 and site[named.index].groupby(named).nunique().max() == 1
    return bool(apart or (text == site).all())


def odd(expected: Expected, table: pd.DataFrame) -> list[list[str]]:
    """For each row of a `table_of` people, what of it nobody, or hardly anybody, of the training people has."""
    found: list[list[str]] = [[] for _ in range(len(table))]
    for name in expected.known:
        for at in np.flatnonzero(number(table[name]).isna()) if name in table else ():
            found[at].append(f"{name} is unknown, which is known of training people")
    for name, common in expected.categories.items():
        text = category(table[name]) if name in table else pd.Series([*common][:1] * len(table))
        for at in np.flatnonzero(~text.isin(common.keys())):
            found[at].append(f"{name} {text.iloc[at]}, training people {', '.join(common)}")
    return found
