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

from data.cohorts.cohort import Cohort
from data.cohorts.covariates import add_phenotype_covariates
from data.tables import missing
from data.tables import phenotype as phenotype_table
from data.tables.covariates import IQ_KIND, SEX_KIND, CovariateKind, find_phenotype_covariate
from data.tables.vocabulary import CLASS_NAMES
from utils.report.tables import PEOPLE_VARIABLE, SITE_VARIABLE

# the verbal and the performance IQ, too
ALL_IQ_KIND = replace(IQ_KIND, excluded_name_pattern=CovariateKind.excluded_name_pattern)
MAX_CODE_VALUES = 2  # values of a number that is a code, such as 1 and 2 for the sexes
MAX_CATEGORIES = 10
MIN_EXPECTED_COUNT = 5  # people in each cell of a chi-squared test by its distribution
CLASS_STATISTICS = ("known", "missing", "mean", "sd", "median", "share")  # of a class
CHI_SQUARED_RESAMPLES = 9999  # of the chi-squared test where fewer are expected


def make_table1(cohort: Cohort) -> pd.DataFrame:
    """A row for each variable, with a test, and for each category of it; the same at each site, without tests.

    `variable`, `site` (empty: all), `category`; of each class `_known`, `_missing` people, and `_mean`, `_sd`,
    `_median` of numbers or `_share` of a category; `test`, `statistic`, `p`, and for numbers `p_ranks`, of the
    Mann-Whitney test. Prints which columns have too many categories. Raises InputError for text among numbers.
    """
    first_row_index_by_subject = cohort.find_first_record_indices(range(len(cohort.rows)))
    first_record_rows = [cohort.rows[row_index] for row_index in first_row_index_by_subject.values()]
    labelled_people = pd.DataFrame([row for row in first_record_rows if row.is_labelled])
    if labelled_people.empty:
        return pd.DataFrame()
    labelled_people = labelled_people.set_index("subject")
    labels = labelled_people["label"].to_numpy()  # (people,)

    variable_table = make_variable_table(cohort).reindex(labelled_people.index)
    crowded_variables = [
        variable
        for variable in variable_table
        if is_text(variable_table[variable]) and variable_table[variable].nunique() > MAX_CATEGORIES
    ]
    if crowded_variables:
        print(f"Table 1 leaves out what has more than {MAX_CATEGORIES} categories: {', '.join(crowded_variables)}.")
    variable_table = variable_table.drop(columns=crowded_variables)

    sites = labelled_people["site"]
    site_names = sites.value_counts().index.tolist() if sites.nunique() > 1 else []
    table1_rows = make_cohort_rows(variable_table, sites, labels)
    for site_name in site_names:
        site_mask = (sites == site_name).to_numpy()  # (people,)
        site_rows = make_site_rows(variable_table[site_mask], labels[site_mask])
        table1_rows += [site_row | {"site": site_name} for site_row in site_rows]

    return arrange_columns(table1_rows)


def make_cohort_rows(variable_table: pd.DataFrame, sites: pd.Series, labels: np.ndarray) -> list[dict[str, Any]]:
    """Rows of all people: how many they are, of their sites (people,) if there are several, and of each variable, with
    tests."""
    cohort_rows = [make_people_row(labels)]
    if sites.nunique() > 1:
        site_categories = convert_codes_to_category(sites)
        site_row = {"variable": SITE_VARIABLE, **count_people_by_class(site_categories, labels)}
        cohort_rows.append(site_row | compare_variable_between_classes(site_categories, labels))
    for variable, variable_values in variable_table.items():
        variable_row, *category_rows = make_variable_rows(str(variable), variable_values, labels)
        cohort_rows += [variable_row | compare_variable_between_classes(variable_values, labels), *category_rows]
    return cohort_rows


def make_site_rows(variable_table: pd.DataFrame, labels: np.ndarray) -> list[dict[str, Any]]:
    """Rows of the people of one site: how many they are, and of each variable."""
    site_rows = [make_people_row(labels)]
    for variable, variable_values in variable_table.items():
        site_rows += make_variable_rows(str(variable), variable_values, labels)
    return site_rows


def make_people_row(labels: np.ndarray) -> dict[str, Any]:
    """How many people of each class there are: what is known of all."""
    return {"variable": PEOPLE_VARIABLE, **count_people_by_class(pd.Series(0.0, range(len(labels))), labels)}


def arrange_columns(table1_rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows with all columns in their order: counts are whole numbers or missing, texts are empty where unknown."""
    class_columns = [
        f"{class_name}_{statistic}" for class_name in reversed(CLASS_NAMES) for statistic in CLASS_STATISTICS
    ]
    test_columns = ["test", "statistic", "p", "p_ranks"]
    table1 = pd.DataFrame(table1_rows).reindex(columns=["variable", "site", "category", *class_columns, *test_columns])
    count_columns = [column for column in class_columns if column.endswith(("_known", "_missing"))]
    text_columns = {column: table1[column].astype(object).fillna("") for column in ("site", "category", "test")}
    return table1.astype(dict.fromkeys(count_columns, "Int64")).assign(**text_columns)


def make_variable_table(cohort: Cohort) -> pd.DataFrame:
    """What is known of each subject (rows): numbers, or categories, NaN where unknown.

    The covariates except the site, including those that only the phenotype has, and all of the phenotype's IQs. A
    number with two values is a code, and so a category; the phenotype's names of the sexes replace codes.
    """
    site_by_subject = {row.subject: row.site for row in cohort.rows}
    raw_phenotype = pd.DataFrame() if cohort.unscaled_phenotype is None else cohort.unscaled_phenotype
    covariate_table = add_phenotype_covariates(cohort.covariates, cohort.unscaled_phenotype)
    covariate_table = raw_phenotype[[]] if covariate_table is None else covariate_table

    values_by_variable: dict[str, pd.Series] = {}
    for variable in covariate_table:
        is_site = (covariate_table[variable] == covariate_table.index.map(site_by_subject)).all()
        if is_site:
            continue
        if phenotype_table.is_mostly_numbers(covariate_table[variable]):
            values_by_variable[variable] = phenotype_table.parse_number_column(covariate_table, variable)
        else:
            values_by_variable[variable] = missing.clean_column(covariate_table[variable])

    casefolded_names = {variable.casefold() for variable in values_by_variable}
    for variable in ALL_IQ_KIND.find_matching_column_names(raw_phenotype):
        if variable.casefold() not in casefolded_names:
            values_by_variable[variable] = raw_phenotype[variable]

    phenotype_sex_values = find_phenotype_covariate(raw_phenotype, SEX_KIND)
    sex_variables = [variable for variable in values_by_variable if SEX_KIND.matches_column_name(variable)]
    has_sex_names = any(is_text(values_by_variable[variable]) for variable in sex_variables)
    if sex_variables and not has_sex_names and phenotype_sex_values is not None and is_text(phenotype_sex_values):
        first_sex_variable, *repeated_sex_variables = sex_variables
        values_by_variable[first_sex_variable] = phenotype_sex_values
        for variable in repeated_sex_variables:
            del values_by_variable[variable]

    category_or_number_by_variable = {
        variable: convert_codes_to_category(variable_values) for variable, variable_values in values_by_variable.items()
    }
    return pd.DataFrame(category_or_number_by_variable, index=covariate_table.index)


def is_text(variable_values: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(variable_values)


def convert_codes_to_category(variable_values: pd.Series) -> pd.Series:
    """Text, or numbers that are codes, as categories in their order; other numbers as they are."""
    if not is_text(variable_values):
        if not 0 < variable_values.nunique() <= MAX_CODE_VALUES:
            return variable_values
        variable_values = variable_values.map("{:g}".format, na_action="ignore")
    return variable_values.astype(pd.CategoricalDtype(sorted(variable_values.dropna().unique())))


def count_people_by_class(variable_values: pd.Series, labels: np.ndarray) -> dict[str, int]:
    """How many people of each class have a value, and how many have none."""
    known_count_by_column: dict[str, int] = {}
    missing_count_by_column: dict[str, int] = {}
    for class_label, class_name in enumerate(CLASS_NAMES):
        class_values = variable_values[labels == class_label]
        known_count_by_column[f"{class_name}_known"] = int(class_values.notna().sum())
        missing_count_by_column[f"{class_name}_missing"] = int(class_values.isna().sum())
    return known_count_by_column | missing_count_by_column


def make_variable_rows(variable: str, variable_values: pd.Series, labels: np.ndarray) -> list[dict[str, Any]]:
    """The row of a variable (n,), then one for each of its categories; `labels` (n,) is 1 autism, 0 control."""
    values_by_class = {
        class_name: variable_values[labels == class_label].dropna()
        for class_label, class_name in enumerate(CLASS_NAMES)
    }
    variable_row: dict[str, Any] = {"variable": variable, **count_people_by_class(variable_values, labels)}
    if not is_text(variable_values):
        for class_name, class_values in values_by_class.items():
            variable_row[f"{class_name}_mean"] = class_values.mean()
            variable_row[f"{class_name}_sd"] = class_values.std()
            variable_row[f"{class_name}_median"] = class_values.median()
        return [variable_row]

    shares_by_class = {
        class_name: class_values.value_counts(normalize=True) for class_name, class_values in values_by_class.items()
    }
    category_rows = []
    for category in variable_values.cat.categories:
        category_row = {"variable": variable, "category": category}
        for class_name, category_shares in shares_by_class.items():
            category_row[f"{class_name}_share"] = category_shares.get(category)
        category_rows.append(category_row)
    return [variable_row, *category_rows]


def compare_variable_between_classes(variable_values: pd.Series, labels: np.ndarray) -> dict[str, Any]:
    """Whether the classes differ in a variable: Welch's t-test and the Mann-Whitney test of numbers; Pearson's
    chi-squared test of categories. Where few people are expected in a cell: Fisher's exact test of two categories, a
    Monte Carlo p of more. Empty if there are too few people or no differences to test."""
    control_values, autism_values = (
        variable_values[labels == class_label].dropna() for class_label in range(len(CLASS_NAMES))
    )
    if is_text(variable_values):
        return compare_category_counts(
            pd.crosstab(variable_values.dropna(), labels[variable_values.notna()]).to_numpy()
        )
    if min(len(control_values), len(autism_values)) < 2 or pd.concat([control_values, autism_values]).nunique() < 2:
        return {}
    with warnings.catch_warnings():  # of two constants, or nearly so
        warnings.simplefilter("ignore", RuntimeWarning)
        welch_test = stats.ttest_ind(autism_values, control_values, equal_var=False)
    rank_test = stats.mannwhitneyu(autism_values, control_values)
    test_cells = {"test": "Welch's t", "statistic": float(welch_test.statistic), "p": float(welch_test.pvalue)}
    return (test_cells if np.isfinite(welch_test.statistic) else {}) | {"p_ranks": float(rank_test.pvalue)}


def compare_category_counts(contingency_table: np.ndarray) -> dict[str, Any]:
    """The test of people by category (rows) and class (columns)."""
    if min(contingency_table.shape) < 2:
        return {}
    is_sparse = stats.contingency.expected_freq(contingency_table).min() < MIN_EXPECTED_COUNT
    if is_sparse and len(contingency_table) == 2:
        return {"test": "Fisher's exact", "p": float(stats.fisher_exact(contingency_table).pvalue)}
    monte_carlo_method = (
        stats.MonteCarloMethod(CHI_SQUARED_RESAMPLES, rng=np.random.default_rng(0)) if is_sparse else None
    )
    chi_squared = stats.chi2_contingency(contingency_table, correction=False, method=monte_carlo_method)
    test_name = "chi-squared, Monte Carlo" if is_sparse else "chi-squared"
    return {"test": test_name, "statistic": float(chi_squared.statistic), "p": float(chi_squared.pvalue)}
