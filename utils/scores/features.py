"""What is known of people -> tables of features for plain classifiers: covariates, phenotype, region means."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from data.cohorts import parcel_means, scaling
from data.cohorts.cohort import Cohort
from data.images import atlas, parcels
from data.tables import missing
from data.tables import phenotype as phenotype_table
from data.tables.phenotype import LOGARITHMIC_COLUMN_PATTERN

UNKNOWN_CATEGORY = "unknown"  # the category of unknown text
MISSINGNESS_FEATURE_KIND = "missingness"  # the features that say what is missing, and how it was measured


def make_covariate_table(
    subjects: Sequence[str], sites: Sequence[str], source_table: pd.DataFrame | None
) -> pd.DataFrame:
    """The covariates of each of the subjects (n,), in their order, and their site, if there are several.

    Numbers are float64, head motion its logarithm, text is object; NaN where unknown. `source_table` is as
    `load_all_covariates` returns it; a column that repeats the site is left out. Raises InputError for text among
    numbers.
    """
    values_by_column: dict[str, np.ndarray] = {"site": np.array(sites, object)} if len(set(sites)) > 1 else {}
    source_table = pd.DataFrame(index=sorted(set(subjects))) if source_table is None else source_table
    for column_name in source_table:
        if (source_table[column_name].reindex(subjects).to_numpy(object) == np.array(sites, object)).all():
            continue
        if not phenotype_table.is_mostly_numbers(source_table[column_name]):
            values_by_column[column_name] = (
                missing.clean_column(source_table[column_name]).reindex(subjects).to_numpy(object)
            )
            continue
        column_values = phenotype_table.parse_number_column(source_table, column_name).reindex(subjects)
        if LOGARITHMIC_COLUMN_PATTERN.search(column_name):
            column_name = f"log {column_name}"
            column_values = np.log(column_values.where(column_values > 0))
        values_by_column[column_name] = column_values.to_numpy(float)
    return pd.DataFrame(values_by_column, index=pd.Index(subjects))


def make_feature_encoder() -> ColumnTransformer:
    """The encoder of tables of `make_covariate_table`: medians and indicators for missing numbers, z-scores,
    dummies."""
    median_imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    unknown_imputer = SimpleImputer(strategy="constant", fill_value=UNKNOWN_CATEGORY)
    number_pipeline = make_pipeline(median_imputer, StandardScaler())
    category_pipeline = make_pipeline(unknown_imputer, OneHotEncoder(handle_unknown="ignore", sparse_output=False))
    return make_column_transformer(
        (number_pipeline, make_column_selector(dtype_include="number")),
        (category_pipeline, make_column_selector(dtype_exclude="number")),
    )


def make_feature_tables(*cohorts: Cohort) -> dict[str, pd.DataFrame]:
    """What each kind of baseline reads, which contains no label: a row a record, in the order of one or several
    cohorts, the first of which has the training people.

    `covariates` (see `make_covariate_table`), `phenotype` (29), `regions` (the volume's mean in each AAL region; with
    several maps, those of a region lie side by side), and `all` of them; then `missingness`, the part of the phenotype
    that says only what is missing and how it was measured. Unknown ones, such as a phenotype that is zero in all
    records, or regions of a cohort without maps, are left out.
    """
    header_batches = [
        feature_cohort.make_batch(range(len(feature_cohort.rows)), with_volumes=False) for feature_cohort in cohorts
    ]
    phenotype_values = np.concatenate([header_batch["phenotype"] for header_batch in header_batches])  # (records, 29)
    cohort_region_means = [load_region_means(feature_cohort) for feature_cohort in cohorts]
    region_means = np.concatenate(cohort_region_means)  # (records, regions times maps)
    record_rows = [row for feature_cohort in cohorts for row in feature_cohort.rows]
    subjects = [row.subject for row in record_rows]
    sites = [row.site for row in record_rows]
    covariate_tables = [
        feature_cohort.covariates for feature_cohort in cohorts if feature_cohort.covariates is not None
    ]
    table = pd.concat(covariate_tables) if covariate_tables else None
    if table is not None:  # a subject who is in both cohorts is the same person, see `guards.check_no_leak`
        table = table[~table.index.duplicated(keep="last")]
    feature_tables = {
        "covariates": make_covariate_table(subjects, sites, table).reset_index(drop=True),
        "phenotype": pd.DataFrame(phenotype_values, dtype=float),
        "regions": pd.DataFrame(region_means, dtype=float),
    }
    feature_tables = {
        feature_kind: table.add_prefix(f"{feature_kind} ") for feature_kind, table in feature_tables.items()
    }
    missingness_column_indices = scaling.find_recording_value_indices(cohorts[0].metadata)
    missingness_tables = (
        {MISSINGNESS_FEATURE_KIND: feature_tables["phenotype"].iloc[:, missingness_column_indices]}
        if missingness_column_indices
        else {}
    )
    if not phenotype_values.any():
        del feature_tables["phenotype"]
    nonempty_tables = {feature_kind: table for feature_kind, table in feature_tables.items() if table.shape[1]}
    if not nonempty_tables:
        return {}
    return nonempty_tables | {"all": pd.concat(nonempty_tables.values(), axis=1)} | missingness_tables


def load_region_means(cohort: Cohort) -> np.ndarray:
    """The mean of each map in each AAL region (records, regions times maps), without columns if there are no maps."""
    if not cohort.num_maps:
        return np.empty((len(cohort.rows), 0))
    region_parcels = parcels.make_region_parcels(atlas.load_atlas(None, cohort.grid))
    region_means = parcel_means.load_parcel_means(cohort, [region_parcels])[0]
    return region_means.reshape(len(cohort.rows), -1)
