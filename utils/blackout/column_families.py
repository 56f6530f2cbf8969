"""What a blackout says of the columns that an estimator reads: pairs of systems, and groups of values. Regions are as
those of a network (`regions.py`). Pairs of regions within systems are not tested, nor regions in one map."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from data.cohorts.inputs import make_input_table
from utils.blackout import options
from utils.blackout.column_setup import SYSTEM_ARRAY, VALUE_ARRAY, find_system_pairs, group_value_columns
from utils.blackout.connections import (
    CONNECTION_KIND,
    SYSTEM_LEVEL,
    average_subject_edges,
    describe_parcel_systems,
    make_level_family,
)
from utils.blackout.edges import find_parcel_region_indices, require_connectomes
from utils.blackout.families import Blackout, FeatureFamily, FillEffect
from utils.blackout.fills import FILL_BY_NAME, RELIANCE_FILL
from utils.blackout.values import ADJUSTMENT_FOOTNOTE, VALUE_KIND, adjust_each_group, drop_group_covariates
from utils.predictors.estimator import EstimatorPredictor

VALUE_INPUT_KINDS = ("phenotype", "covariates")
VALUE_FOOTNOTE = "Of one column of the group, as the difference: the first or, if it is text, its first category."


def make_system_family(blackout: Blackout) -> FeatureFamily | None:
    """Pairs of systems; None if no edges were replaced."""
    if SYSTEM_ARRAY not in blackout.record_effects:
        return None
    connectomes = require_connectomes(blackout.cohort)
    region_systems = options.get_blackout_options(blackout.run).load_systems(blackout.cohort.region_grid)
    region_index_by_parcel = find_parcel_region_indices(connectomes, blackout.atlas)
    system_pairs = find_system_pairs(region_systems, connectomes, region_index_by_parcel)

    # Edges are correlated with the sum of all effects: of a linear estimator that of all edges together, so that
    # correlations are an activation pattern
    reliance_fill = FILL_BY_NAME[RELIANCE_FILL]
    system_effects = blackout.average_subject_records(SYSTEM_ARRAY)
    total_effect = blackout.make_fill_effect(reliance_fill, system_effects.sum(axis=1, keepdims=True))
    system_names_by_pair = np.array(region_systems.system_names)[system_pairs.place_indices_by_pair]
    system_family = make_level_family(
        SYSTEM_LEVEL,
        system_names_by_pair,
        system_names_by_pair,
        system_pairs.pair_index_by_link,
        blackout.make_fill_effect(reliance_fill, system_effects),
        partial(average_subject_edges, blackout, connectomes),
        total_effect.autism_logit_effects,
    )
    region_names = [blackout.atlas.name_by_region[number] for number in blackout.atlas.region_numbers]
    return replace(
        system_family,
        feature_kind=replace(CONNECTION_KIND, identifying_column_names=("a", "b")),
        matrix_axis_columns=("a", "b"),
        footnote_by_column={"a": describe_parcel_systems(region_names, region_index_by_parcel, region_systems)},
        stored_arrays={
            "system_pair": system_pairs.place_indices_by_pair.astype(np.int32),
            "system": np.array(region_systems.system_names, object),
        },
    )


def make_column_value_family(blackout: Blackout) -> FeatureFamily | None:
    """Groups of values, each adjusted for all covariates except those that say the same; None if there are none."""
    predictor = blackout.run.predictor
    if VALUE_ARRAY not in blackout.record_effects or not isinstance(predictor, EstimatorPredictor):
        return None
    cohort = blackout.cohort
    subjects = sorted(set(blackout.record_effects.record_subjects))
    record_index_by_subject = cohort.find_first_record_indices(range(len(cohort.rows)))
    subject_record_indices = [record_index_by_subject[subject] for subject in subjects]
    value_kinds = [input_kind for input_kind in VALUE_INPUT_KINDS if input_kind in predictor.input_kinds]
    value_table = make_input_table(cohort, subject_record_indices, value_kinds, None)
    column_indices_by_group = group_value_columns(cohort.metadata, value_table)

    covariate_table = options.load_blackout_covariates(blackout.run.cohort, blackout.record_effects.record_rows)
    covariate_table_by_group = []
    group_rows = []
    value_by_group = {}
    for group_name, column_indices in column_indices_by_group.items():
        column_names = [str(value_table.columns[column_index]) for column_index in column_indices]
        value_by_group[group_name], value_text = summarise_column(value_table[column_names[0]])
        group_rows.append({"group": group_name, "values": "; ".join(column_names), "difference_of": value_text})
        other_covariates = drop_group_covariates(covariate_table, cohort.metadata, group_name)
        covariate_table_by_group.append(drop_same_covariates(other_covariates, column_names))

    reliance_effect = FillEffect(
        FILL_BY_NAME[RELIANCE_FILL],
        blackout.average_subject_records(VALUE_ARRAY),
        blackout.people,
        partial(adjust_each_group, covariate_table_by_group, blackout.people.subject_labels),
    )
    footnote_by_column = {"direction": VALUE_FOOTNOTE}
    if blackout.people.adjuster.adjustment.covariates:
        footnote_by_column["p_reliance"] = ADJUSTMENT_FOOTNOTE
    group_names = [*column_indices_by_group]
    return FeatureFamily(
        VALUE_KIND,
        group_names,
        pd.DataFrame(group_rows),
        [reliance_effect],
        pd.DataFrame(value_by_group).to_numpy(float),
        footnote_by_column=footnote_by_column,
        stored_arrays={"values": np.array(group_names, object)},
    )


def summarise_column(column: pd.Series) -> tuple[pd.Series, str]:
    """A column (subjects,) as numbers, and what they are: of text, whether it is the first category."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(float), str(column.name)
    first_category = column.cat.categories[0]
    is_first_category = column.eq(first_category).astype(float).where(column.notna())
    return is_first_category, f"{column.name}: {first_category}"


def drop_same_covariates(covariate_table: pd.DataFrame, column_names: Sequence[str]) -> pd.DataFrame:
    """The covariates of people without those that are among these columns of inputs."""
    bare_names = {column_name.partition(" ")[2] for column_name in column_names}
    same_names = [name for name in covariate_table if str(name).removeprefix("log ") in bare_names]
    return covariate_table.drop(columns=same_names)
