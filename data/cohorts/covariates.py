"""A cohort's covariates, those of its phenotype among them, and what is known of them.

Columns of `covariates.csv` come first. Of what these lack, the values of the phenotype are covariates, too, unless the
user named the covariates (`convert --covariates`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from data.cohorts.rows import RecordRow
from data.tables.vocabulary import find_recorded_sites

if TYPE_CHECKING:
    from data.cohorts.cohort import Cohort
from data.tables.covariates import COVARIATE_KIND_BY_NAME, find_phenotype_covariate, format_covariate_value


def load_all_covariates(cohort: "Cohort") -> pd.DataFrame | None:
    """All covariates, text by subject in the order of `Cohort.rows`, empty where unknown; None if there are none."""
    return add_phenotype_covariates(
        cohort.covariates, None if cohort.metadata.covariates_named else cohort.unscaled_phenotype
    )


def add_phenotype_covariates(
    covariates: pd.DataFrame | None, raw_phenotype: pd.DataFrame | None
) -> pd.DataFrame | None:
    """`Cohort.covariates`, and what they lack of the kinds in `COVARIATE_KIND_BY_NAME`, from
    `Cohort.unscaled_phenotype`, if that has it."""
    if raw_phenotype is None:
        return covariates
    covariates = pd.DataFrame(index=raw_phenotype.index) if covariates is None else covariates
    phenotype_covariates = [
        find_phenotype_covariate(raw_phenotype, kind)
        for kind in COVARIATE_KIND_BY_NAME.values()
        if not kind.find_matching_column_names(covariates)
    ]
    added_covariate_by_name = {
        str(covariate.name): covariate.map(format_covariate_value, "ignore").fillna("")
        for covariate in phenotype_covariates
        if covariate is not None
    }
    all_covariates = covariates.assign(
        **{
            column_name: covariate
            for column_name, covariate in added_covariate_by_name.items()
            if column_name not in covariates
        }
    )
    return all_covariates if all_covariates.shape[1] else None


def describe_covariates(
    covariates: pd.DataFrame, raw_phenotype: pd.DataFrame, rows: Sequence[RecordRow], are_chosen_by_user: bool
) -> str:
    """Which covariates the people of these rows have: those of the table, and those of the phenotype; and what is not
    known. If covariates are `are_chosen_by_user`, those of the phenotype are left out."""
    all_covariates = add_phenotype_covariates(covariates, raw_phenotype)
    all_covariates = pd.DataFrame() if all_covariates is None else all_covariates
    added_covariates_text = ", ".join(all_covariates.columns[covariates.shape[1] :])
    unmeasured_covariate_names = [] if find_recorded_sites(row.site for row in rows) else ["site"]
    unmeasured_covariate_names += [
        kind_name
        for kind_name, kind in COVARIATE_KIND_BY_NAME.items()
        if not kind.find_matching_column_names(all_covariates)
    ]

    sentences = [f"{'as named: ' if are_chosen_by_user else ''}{', '.join(covariates) or 'none'}"]
    if added_covariates_text:
        source_text = "not named, so left out" if are_chosen_by_user else "from the phenotype"
        sentences.append(f"{source_text}: {added_covariates_text}")
    if unmeasured_covariate_names:
        sentences.append(f"not known: {', '.join(unmeasured_covariate_names)}")
    return "; ".join(sentences)
