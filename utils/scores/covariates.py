"""Covariates of subjects, and the encoder of tables whose columns are numbers, text or unknown."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from data.cohorts import phenotype
from data.cohorts.phenotype import HEAD_MOTION

AGE = re.compile("(?<![a-z])age(?![a-z])", re.IGNORECASE)
SEX = re.compile("(?<![a-z])(sex|gender)(?![a-z])", re.IGNORECASE)
IQ = re.compile("(?<![a-z])(f|fs|full_?scale_?)?iq(?![a-z])(?!_missing)", re.IGNORECASE)


def with_iq(table: pd.DataFrame | None, phenotype: pd.DataFrame | None) -> pd.DataFrame | None:
    """`Cohort.covariates` with the full-scale IQ of `Cohort.raw_phenotype`, unless they hold one or it is unknown."""
    if table is None or phenotype is None or any(map(IQ.search, table)):
        return table
    found = [name for name in phenotype if IQ.search(name) and phenotype[name].notna().any()]
    return table.assign(
        **{name: phenotype[name].map("{:g}".format, na_action="ignore").fillna("") for name in found[:1]}
    )


def covariates(subject: Sequence[str], site: Sequence[str], table: pd.DataFrame | None) -> pd.DataFrame:
    """The covariates of each of the subjects (n,), in their order, and their site, if there are several.

    Numbers are float64, head motion its logarithm, text is object; NaN where unknown. `table` is
    `Cohort.covariates`; a column of it that repeats the site is left out. Raises InputError for text among numbers.
    """
    columns: dict[str, np.ndarray] = {"site": np.array(site, object)} if len(set(site)) > 1 else {}
    table = pd.DataFrame(index=sorted(set(subject))) if table is None else table
    for name in table:
        if (table[name].reindex(subject).to_numpy(object) == np.array(site, object)).all():
            continue
        if not phenotype.mostly_numbers(table[name]):
            columns[name] = phenotype.clean(table[name]).reindex(subject).to_numpy(object)
            continue
        values = phenotype.numbers(table, name).reindex(subject)
        if HEAD_MOTION.search(name):
            name, values = f"log {name}", np.log(values.where(values > 0))
        columns[name] = values.to_numpy(float)
    return pd.DataFrame(columns, index=pd.Index(subject))


def encoder() -> ColumnTransformer:
    """The encoder of tables of `covariates`: medians and indicators for missing numbers, z-scores, dummies."""
    median = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    unknown = SimpleImputer(strategy="constant", fill_value="unknown")
    numbers = make_pipeline(median, StandardScaler())
    categories = make_pipeline(unknown, OneHotEncoder(handle_unknown="ignore", sparse_output=False))
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_exclude="number")),
    )
