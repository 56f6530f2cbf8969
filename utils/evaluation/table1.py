"""A cohort's people -> `table1.csv`: age, sex, IQ, head motion and other covariates by diagnosis, and by site.

All people of the cohort whose diagnosis is known, each once, trained or tested. p-values are of two-sided tests and not
corrected for their number.
"""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from data.cohorts import phenotype
from data.cohorts.cohort import Cohort
from data.cohorts.covariates import IQ_KIND, SEX_KIND, CovariateKind, add_phenotype_covariates, find_phenotype_covariate
from data.cohorts.records import CLASS_NAMES
from utils.report.tables import PEOPLE, SITE

EVERY_IQ = replace(IQ_KIND, excluded_pattern=CovariateKind.excluded_pattern)  # the verbal and the performance IQ, too
BINARY = 2  # values of a number that is a code, such as 1 and 2 for the sexes
MAX_CATEGORIES = 10
MIN_EXPECTED = 5  # people in each cell of a chi-squared test by its distribution
RESAMPLES = 9999  # of the chi-squared test where fewer are expected


def table1(cohort: Cohort) -> pd.DataFrame:
    """A row for each variable, with a test, and for each category of it; the same at each site, without tests.

    `variable`, `site` (empty: all), `category`; of each class `_known`, `_missing` people, and `_mean`, `_sd`,
    `_median` of numbers or `_share` of a category; `test`, `statistic`, `p`, and for numbers `p_ranks`, of the
    Mann-Whitney test. Prints which columns have too many categories. Raises InputError for text among numbers.
    """
    first = [cohort.rows[at] for at in cohort.first_index_by_subject(range(len(cohort.rows))).values()]
    known = pd.DataFrame([row for row in first if row.is_labelled])
    if known.empty:
        return pd.DataFrame()
    known = known.set_index("subject")
    found = variables(cohort).reindex(known.index)
    if many := [name for name in found if is_text(found[name]) and found[name].nunique() > MAX_CATEGORIES]:
        print(f"Table 1 leaves out what has more than {MAX_CATEGORIES} categories: {', '.join(many)}.")
    found = found.drop(columns=many)
    sites = known["site"].value_counts()
    several = sites.index.tolist() if len(sites) > 1 else []
    label = known["label"].to_numpy()
    everybody = pd.Series(0.0, known.index)
    rows = [{"variable": PEOPLE, **counted(everybody, label)}]
    if several:
        of_site = as_category(known["site"])
        rows.append({"variable": SITE, **counted(of_site, label), **compared(of_site, label)})
    for name, values in found.items():
        head, *categories = described(str(name), values, label)
        rows += [head | compared(values, label), *categories]
    for site in several:
        here = (known["site"] == site).to_numpy()
        there = [{"variable": PEOPLE, **counted(everybody[here], label[here])}]
        for name, values in found.items():
            there += described(str(name), values[here], label[here])
        rows += [row | {"site": site} for row in there]
    columns = [
        "variable",
        "site",
        "category",
        *(f"{name}_{value}" for name in reversed(CLASS_NAMES) for value in VALUES),
    ]
    table = pd.DataFrame(rows).reindex(columns=[*columns, "test", "statistic", "p", "p_ranks"])
    counts = [name for name in columns if name.endswith(("_known", "_missing"))]
    texts = {name: table[name].astype(object).fillna("") for name in (SITE, "category", "test")}
    return table.astype(dict.fromkeys(counts, "Int64")).assign(**texts)


VALUES = ("known", "missing", "mean", "sd", "median", "share")  # of a class


def variables(cohort: Cohort) -> pd.DataFrame:
    """What is known of each subject (rows): numbers, or categories, NaN where unknown.

    The covariates, but for the site, also those that only the phenotype tells; and all of its IQs. A number with two
    values is a code, and so a category; the phenotype's names of the sexes replace codes.
    """
    site = {row.subject: row.site for row in cohort.rows}
    found: dict[str, pd.Series] = {}
    values = pd.DataFrame() if cohort.raw_phenotype is None else cohort.raw_phenotype
    given = add_phenotype_covariates(cohort.covariates, cohort.raw_phenotype)
    given = values[[]] if given is None else given
    for name in given:
        if (given[name] == given.index.map(site)).all():
            continue
        text = phenotype.clean_column(given[name])
        found[name] = phenotype.parse_number_column(given, name) if phenotype.is_mostly_numbers(given[name]) else text
    named = {name.casefold() for name in found}
    found |= {name: values[name] for name in EVERY_IQ.find_columns(values) if name.casefold() not in named}
    sexes, coded = find_phenotype_covariate(values, SEX_KIND), [name for name in found if SEX_KIND.matches_name(name)]
    if coded and sexes is not None and is_text(sexes) and not any(is_text(found[name]) for name in coded):
        found = {name: column for name, column in found.items() if name not in coded[1:]} | {coded[0]: sexes}
    return pd.DataFrame({name: as_category(column) for name, column in found.items()}, index=given.index)


def is_text(values: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(values)


def as_category(values: pd.Series) -> pd.Series:
    """Text, or numbers that are codes, as categories in their order; other numbers as they are."""
    if not is_text(values):
        if not 0 < values.nunique() <= BINARY:
            return values
        values = values.map("{:g}".format, na_action="ignore")
    return values.astype(pd.CategoricalDtype(sorted(values.dropna().unique())))


def counted(values: pd.Series, label: np.ndarray) -> dict[str, int]:
    """How many people of each class have a value, and how many have none."""
    of_class = {name: values[label == number] for number, name in enumerate(CLASS_NAMES)}
    return {f"{name}_known": int(found.notna().sum()) for name, found in of_class.items()} | {
        f"{name}_missing": int(found.isna().sum()) for name, found in of_class.items()
    }


def described(name: str, values: pd.Series, label: np.ndarray) -> list[dict[str, Any]]:
    """The row of a variable (n,), then one for each of its categories; `label` (n,) is 1 autism, 0 control."""
    of_class = {kind: values[label == number].dropna() for number, kind in enumerate(CLASS_NAMES)}
    head: dict[str, Any] = {"variable": name, **counted(values, label)}
    if is_text(values):
        shares = {f"{kind}_share": found.value_counts(normalize=True) for kind, found in of_class.items()}
        of_category = [{name: share.get(one) for name, share in shares.items()} for one in values.cat.categories]
        named = zip(values.cat.categories, of_category, strict=True)
        return [head, *({"variable": name, "category": one} | share for one, share in named)]
    for kind, found in of_class.items():
        head |= {f"{kind}_mean": found.mean(), f"{kind}_sd": found.std(), f"{kind}_median": found.median()}
    return [head]


def compared(values: pd.Series, label: np.ndarray) -> dict[str, Any]:
    """Whether the classes differ in a variable: Welch's t-test and the Mann-Whitney test of numbers; Pearson's
    chi-squared test of categories. Where few people are expected in a cell: Fisher's exact test of two categories, a
    Monte Carlo p of more. Empty if there are too few people or no differences to test."""
    control, autism = (values[label == number].dropna() for number in range(len(CLASS_NAMES)))
    if is_text(values):
        return compared_counts(pd.crosstab(values.dropna(), label[values.notna()]).to_numpy())
    if min(len(control), len(autism)) < 2 or pd.concat([control, autism]).nunique() < 2:
        return {}
    with warnings.catch_warnings():  # of two constants, or nearly so
        warnings.simplefilter("ignore", RuntimeWarning)
        welch = stats.ttest_ind(autism, control, equal_var=False)
    ranks = stats.mannwhitneyu(autism, control)
    found = {"test": "Welch's t", "statistic": float(welch.statistic), "p": float(welch.pvalue)}
    return (found if np.isfinite(welch.statistic) else {}) | {"p_ranks": float(ranks.pvalue)}


def compared_counts(counts: np.ndarray) -> dict[str, Any]:
    """The test of people by category (rows) and class (columns)."""
    if min(counts.shape) < 2:
        return {}
    few = stats.contingency.expected_freq(counts).min() < MIN_EXPECTED
    if few and len(counts) == 2:
        return {"test": "Fisher's exact", "p": float(stats.fisher_exact(counts).pvalue)}
    drawn = stats.MonteCarloMethod(RESAMPLES, rng=np.random.default_rng(0)) if few else None
    squared = stats.chi2_contingency(counts, correction=False, method=drawn)
    name = "chi-squared, Monte Carlo" if few else "chi-squared"
    return {"test": name, "statistic": float(squared.statistic), "p": float(squared.pvalue)}
