"""What is known of people -> tables of features for plain classifiers: covariates, phenotype, region means."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from data.cohorts import atlas, phenotype
from data.cohorts.cohort import Cohort
from data.cohorts.phenotype import LOGARITHMIC_PATTERN

UNKNOWN = "unknown"  # the category of unknown text
MISSINGNESS = "missingness"  # the features that say what is missing, and how it was measured


def covariates(subject: Sequence[str], site: Sequence[str], table: pd.DataFrame | None) -> pd.DataFrame:
    """The covariates of each of the subjects (n,), in their order, and their site, if there are several.

    Numbers are float64, head motion its logarithm, text is object; NaN where unknown. `table` is as
    `known_covariates` gives it; a column that repeats the site is left out. Raises InputError for text among numbers.
    """
    columns: dict[str, np.ndarray] = {"site": np.array(site, object)} if len(set(site)) > 1 else {}
    table = pd.DataFrame(index=sorted(set(subject))) if table is None else table
    for name in table:
        if (table[name].reindex(subject).to_numpy(object) == np.array(site, object)).all():
            continue
        if not phenotype.is_mostly_numbers(table[name]):
            columns[name] = phenotype.clean_column(table[name]).reindex(subject).to_numpy(object)
            continue
        values = phenotype.parse_number_column(table, name).reindex(subject)
        if LOGARITHMIC_PATTERN.search(name):
            name, values = f"log {name}", np.log(values.where(values > 0))
        columns[name] = values.to_numpy(float)
    return pd.DataFrame(columns, index=pd.Index(subject))


def encoder() -> ColumnTransformer:
    """The encoder of tables of `covariates`: medians and indicators for missing numbers, z-scores, dummies."""
    median = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    unknown = SimpleImputer(strategy="constant", fill_value=UNKNOWN)
    numbers = make_pipeline(median, StandardScaler())
    categories = make_pipeline(unknown, OneHotEncoder(handle_unknown="ignore", sparse_output=False))
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_exclude="number")),
    )


def features(*cohorts: Cohort) -> dict[str, pd.DataFrame]:
    """What each kind of baseline reads, which holds no label: a row a record, in the order of one or several cohorts,
    the first of which has the training people.

    `covariates` (see there), `phenotype` (29), `make_region_parcels` (the volume's mean in each AAL region; of several
    maps, those of a region lie side by side), and `all` of them; then `missingness`, the part of the phenotype that
    says only what is missing and how it was measured. Unknown ones, such as a phenotype that is zero in all records,
    are left out.
    """
    headers = [cohort.make_batch(range(len(cohort.rows)), with_volumes=False) for cohort in cohorts]
    phenotypes = np.concatenate([of_all["phenotype"] for of_all in headers])
    atlases = [atlas.load_atlas(None, cohort.grid) for cohort in cohorts]
    of_cohorts = [
        atlas.load_parcel_means(one, [atlas.make_region_parcels(its)])[0]
        for one, its in zip(cohorts, atlases, strict=True)
    ]
    regions = np.concatenate(of_cohorts).reshape(len(phenotypes), -1)
    rows = [row for cohort in cohorts for row in cohort.rows]
    subject, site = [row.subject for row in rows], [row.site for row in rows]
    known_of = [cohort.covariates for cohort in cohorts if cohort.covariates is not None]
    table = pd.concat(known_of) if known_of else None
    if table is not None:  # one who is in both cohorts is the same person, see `no_leak`
        table = table[~table.index.duplicated(keep="last")]
    tables = {
        "covariates": covariates(subject, site, table).reset_index(drop=True),
        "phenotype": pd.DataFrame(phenotypes, dtype=float),
        "regions": pd.DataFrame(regions, dtype=float),
    }
    tables = {name: table.add_prefix(f"{name} ") for name, table in tables.items()}
    where = phenotype.find_recording_values(cohorts[0].metadata)
    recorded = {MISSINGNESS: tables["phenotype"].iloc[:, where]} if where else {}
    if not phenotypes.any():
        del tables["phenotype"]
    known = {name: table for name, table in tables.items() if table.shape[1]}
    return known | {"all": pd.concat(known.values(), axis=1)} | recorded
