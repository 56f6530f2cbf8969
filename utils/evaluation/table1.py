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

ALL_IQ_KIND = replace(
    IQ_KIND, excluded_name_pattern=CovariateKind.excluded_name_pattern
)  # the verbal and the performance IQ, too
MAX_CODE_VALUES = 2  # values of a number that is a code, such as 1 and 2 for the sexes
MAX_CATEGORIES = 10
MIN_EXPECTED_COUNT = 5  # people in each cell of a chi-squared test by its distribution
CHI_SQUARED_RESAMPLES = 9999  # of the chi-squared test where fewer are expected


def make_table1(cohort: Cohort) -> pd.DataFrame:
    """A row for each variable, with a test, and for each category of it; the same at each site, without tests.

    `variable`, `site` (empty: all), `category`; of each class `_known`, `_missing` people, and `_mean`, `_sd`,
    `_median` of numbers or `_share` of a category; `test`, `statistic`, `p`, and for numbers `p_ranks`, of the
    Mann-Whitney test. Prints which columns have too many categories. Raises InputError for text among numbers.
    """
    first_record_rows = [
        cohort.rows[row_index] for row_index in cohort.find_first_record_indices(range(len(cohort.rows))).values()
    ]
    labelled_people = pd.DataFrame([row for row in first_record_rows if row.is_labelled])
    if labelled_people.empty:
        return pd.DataFrame()
    labelled_people = labelled_people.set_index("subject")
    variable_table = make_variable_table(cohort).reindex(labelled_people.index)
    if crowded_variable_names := [
        name
        for name in variable_table
        if is_text(variable_table[name]) and variable_table[name].nunique() > MAX_CATEGORIES
    ]:
        print(
            f"Table 1 leaves out what has more than {MAX_CATEGORIES} categories: {', '.join(crowded_variable_names)}."
        )
    variable_table = variable_table.drop(columns=crowded_variable_names)
    people_count_by_site = labelled_people["site"].value_counts()
    site_names = people_count_by_site.index.tolist() if len(people_count_by_site) > 1 else []
    labels = labelled_people["label"].to_numpy()  # (people,)
    constant_values = pd.Series(0.0, labelled_people.index)  # known of all, to count people
    table1_rows = [{"variable": PEOPLE_VARIABLE, **count_people_by_class(constant_values, labels)}]
    if site_names:
        site_by_subject = convert_codes_to_category(labelled_people["site"])
        table1_rows.append(
            {
                "variable": SITE_VARIABLE,
                **count_people_by_class(site_by_subject, labels),
                **compare_variable_between_classes(site_by_subject, labels),
            }
        )
    for name, variable_values in variable_table.items():
        variable_row, *category_rows = make_variable_rows(str(name), variable_values, labels)
        table1_rows += [variable_row | compare_variable_between_classes(variable_values, labels), *category_rows]
    for site_name in site_names:
        site_mask = (labelled_people["site"] == site_name).to_numpy()
        site_rows = [
            {"variable": PEOPLE_VARIABLE, **count_people_by_class(constant_values[site_mask], labels[site_mask])}
        ]
        for name, variable_values in variable_table.items():
            site_rows += make_variable_rows(str(name), variable_values[site_mask], labels[site_mask])
        table1_rows += [row | {"site": site_name} for row in site_rows]
    column_names = [
        "variable",
        "site",
        "category",
        *(f"{name}_{statistic}" for name in reversed(CLASS_NAMES) for statistic in CLASS_STATISTICS),
    ]
    table = pd.DataFrame(table1_rows).reindex(columns=[*column_names, "test", "statistic", "p", "p_ranks"])
    count_columns = [name for name in column_names if name.endswith(("_known", "_missing"))]
    text_column_by_name = {name: table[name].astype(object).fillna("") for name in (SITE_VARIABLE, "category", "test")}
    return table.astype(dict.fromkeys(count_columns, "Int64")).assign(**text_column_by_name)


CLASS_STATISTICS = ("known", "missing", "mean", "sd", "median", "share")  # of a class


def make_variable_table(cohort: Cohort) -> pd.DataFrame:
    """What is known of each subject (rows): numbers, or categories, NaN where unknown.

    The covariates except the site, including those that only the phenotype has, and all of the phenotype's IQs. A
    number with two values is a code, and so a category; the phenotype's names of the sexes replace codes.
    """
    site_by_subject = {row.subject: row.site for row in cohort.rows}
    values_by_variable: dict[str, pd.Series] = {}
    raw_phenotype = pd.DataFrame() if cohort.unscaled_phenotype is None else cohort.unscaled_phenotype
    covariate_table = add_phenotype_covariates(cohort.covariates, cohort.unscaled_phenotype)
    covariate_table = raw_phenotype[[]] if covariate_table is None else covariate_table
    for variable in covariate_table:
        if (covariate_table[variable] == covariate_table.index.map(site_by_subject)).all():
            continue
        text_values = missing.clean_column(covariate_table[variable])
        values_by_variable[variable] = (
            phenotype_table.parse_number_column(covariate_table, variable)
            if phenotype_table.is_mostly_numbers(covariate_table[variable])
            else text_values
        )
    casefolded_names = {variable.casefold() for variable in values_by_variable}
    values_by_variable |= {
        variable: raw_phenotype[variable]
        for variable in ALL_IQ_KIND.find_matching_column_names(raw_phenotype)
        if variable.casefold() not in casefolded_names
    }
    phenotype_sex_values = find_phenotype_covariate(raw_phenotype, SEX_KIND)
    sex_variable_names = [variable for variable in values_by_variable if SEX_KIND.matches_column_name(variable)]
    if (
        sex_variable_names
        and phenotype_sex_values is not None
        and is_text(phenotype_sex_values)
        and not any(is_text(values_by_variable[variable]) for variable in sex_variable_names)
    ):
        values_by_variable = {
            variable: variable_values
            for variable, variable_values in values_by_variable.items()
            if variable not in sex_variable_names[1:]
        } | {sex_variable_names[0]: phenotype_sex_values}
    return pd.DataFrame(
        {
            variable: convert_codes_to_category(variable_values)
            for variable, variable_values in values_by_variable.items()
        },
        index=covariate_table.index,
    )


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
    values_by_class = {
        class_name: variable_values[labels == class_label] for class_label, class_name in enumerate(CLASS_NAMES)
    }
    return {
        f"{class_name}_known": int(class_values.notna().sum()) for class_name, class_values in values_by_class.items()
    } | {
        f"{class_name}_missing": int(class_values.isna().sum()) for class_name, class_values in values_by_class.items()
    }


def make_variable_rows(name: str, variable_values: pd.Series, labels: np.ndarray) -> list[dict[str, Any]]:
    """The row of a variable (n,), then one for each of its categories; `labels` (n,) is 1 autism, 0 control."""
    values_by_class = {
        class_name: variable_values[labels == class_label].dropna()
        for class_label, class_name in enumerate(CLASS_NAMES)
    }
    variable_row: dict[str, Any] = {"variable": name, **count_people_by_class(variable_values, labels)}
    if is_text(variable_values):
        frequencies_by_column = {
            f"{class_name}_share": class_values.value_counts(normalize=True)
            for class_name, class_values in values_by_class.items()
        }
        frequency_cells = [
            {name: frequencies.get(category) for name, frequencies in frequencies_by_column.items()}
            for category in variable_values.cat.categories
        ]
        categories_with_cells = zip(variable_values.cat.categories, frequency_cells, strict=True)
        return [
            variable_row,
            *(
                {"variable": name, "category": category} | frequencies
                for category, frequencies in categories_with_cells
            ),
        ]
    for class_name, class_values in values_by_class.items():
        variable_row |= {
            f"{class_name}_mean": class_values.mean(),
            f"{class_name}_sd": class_values.std(),
            f"{class_name}_median": class_values.median(),
        }
    return [variable_row]


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
