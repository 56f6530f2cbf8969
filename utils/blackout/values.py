"""Groups of the phenotype's values in a blackout: each is replaced by that of the donors, while all else stays.

An unknown number is the imputed one, which the network reads in its place; this holds for donors, too. In ABIDE's table
the marks of what is unknown are a group of their own, so they stay if a number is replaced. In a user's own table each
column is a group, with its mark.
"""

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit

from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.metadata import Metadata
from data.tables.covariates import COVARIATE_KIND_BY_NAME
from data.tables.phenotype import INDICATOR_PATTERN, IQ_TEST_VALUE_PREFIX, list_abide_value_names
from data.tables.vocabulary import PHENOTYPE_SIZE
from utils.blackout import options
from utils.blackout.donors import compute_control_variate_mean
from utils.blackout.edges import Replacement
from utils.blackout.effects import AdjustedEffects, CovariateAdjuster
from utils.blackout.families import Blackout, FeatureFamily, FeatureKind, FillEffect
from utils.blackout.fills import FILL_BY_NAME, RELIANCE_FILL
from utils.blackout.options import RECORDS_PER_BATCH, make_connectome_tables
from utils.blackout.setup import BlackoutSetup, Measurements, RecomputationCheck
from utils.scores.adjustment import make_adjustment

if TYPE_CHECKING:
    import keras

PHENOTYPE_INPUT = "phenotype"  # what networks call the values that they read
MARKS_GROUP = "tests and missing values"
DIFFERENCE_FOOTNOTE = "Of one value of the group, as the difference: the first, or how much is unknown."
ADJUSTMENT_FOOTNOTE = "Each group is adjusted without the covariates that tell the same."
# group -> how the names of its values, and of their columns in ABIDE's table, begin; the first that matches
ABIDE_NAME_PATTERN_BY_GROUP = {
    MARKS_GROUP: f"{IQ_TEST_VALUE_PREFIX}|fiq_test|.*({INDICATOR_PATTERN.pattern})",
    "age": "age(?![a-z])",
    "sex": "sex(?![a-z])",
    "handedness": "handedness",
    "IQ": "fiq|viq|piq|wisc",
    "eyes": "eyes?_",
    "body mass index": "bmi",
}

ValuePositionsByGroup = dict[str, list[int]]


def list_phenotype_value_names(metadata: Metadata) -> tuple[str, ...]:
    """The names of the 29 values."""
    return metadata.phenotype or tuple(f"value {value_index + 1}" for value_index in range(PHENOTYPE_SIZE))


def group_phenotype_values(metadata: Metadata) -> ValuePositionsByGroup:
    """The positions of the values of each group, by its name. In ABIDE's table a group is the values that measure the
    same, in a user's own table those of a column. Without names each value is a group."""
    value_names = list_phenotype_value_names(metadata)
    group_by_value = [find_value_group(metadata, value_name) for value_name in value_names]
    is_abide = value_names == list_abide_value_names()
    ordered_group_names = [*ABIDE_NAME_PATTERN_BY_GROUP] if is_abide else [*dict.fromkeys(group_by_value)]
    value_positions_by_group: ValuePositionsByGroup = {
        group_name: [] for group_name in ordered_group_names if group_name
    }
    for value_position, value_group in enumerate(group_by_value):
        if value_group:
            value_positions_by_group[value_group].append(value_position)
    return value_positions_by_group


def find_value_group(metadata: Metadata, value_name: str) -> str:
    """The group of a value, or of a column of the table, by its name; empty if it is in none."""
    value_names = list_phenotype_value_names(metadata)
    lower_name = value_name.lower()
    if value_names == list_abide_value_names():
        for group_name, name_pattern in ABIDE_NAME_PATTERN_BY_GROUP.items():
            if re.match(name_pattern, lower_name):
                return group_name
        return ""
    if not metadata.phenotype_columns:
        return value_name if value_name in value_names else ""
    # Later entries win: names of categories over marks, marks over columns
    column_names = metadata.phenotype_columns
    column_by_lower_name = {column_name.lower(): column_name for column_name in column_names}
    column_by_lower_name |= {f"{column_name}_missing".lower(): column_name for column_name in column_names}
    for column_name, categories in metadata.phenotype_categories.items():
        for category in categories:
            column_by_lower_name[f"{column_name}_{category}".lower()] = column_name
    return column_by_lower_name.get(lower_name, "")


def drop_group_covariates(covariate_table: pd.DataFrame, metadata: Metadata, group_name: str) -> pd.DataFrame:
    """The covariates of people without those that say what a group of values says: those of the same column, or of the
    same kind, such as age. The group of marks says what the phenotype's covariates say that are unknown for some, such
    as the IQ."""
    is_marks_group = group_name == MARKS_GROUP
    all_value_names = list_phenotype_value_names(metadata)
    if is_marks_group:
        group_value_names = all_value_names
    else:
        same_group_names = [name for name in all_value_names if find_value_group(metadata, name) == group_name]
        group_value_names = (group_name, *same_group_names)
    covariate_kinds = [
        covariate_kind
        for covariate_kind in COVARIATE_KIND_BY_NAME.values()
        if any(map(covariate_kind.matches_column_name, group_value_names))
    ]

    def is_redundant(covariate_name: str) -> bool:
        bare_name = covariate_name.removeprefix("log ")
        covariate_group = find_value_group(metadata, bare_name)
        is_same_kind = any(covariate_kind.matches_column_name(bare_name) for covariate_kind in covariate_kinds)
        if is_marks_group and covariate_group != group_name:
            return bool(covariate_group or is_same_kind) and bool(covariate_table[covariate_name].isna().any())
        return covariate_group == group_name or is_same_kind

    return covariate_table.drop(columns=[name for name in covariate_table if is_redundant(str(name))])


def load_subject_phenotypes(cohort: Cohort, subjects: Sequence[str]) -> pd.DataFrame:
    """The 29 values of these subjects, NaN where unknown; if the cohort stores only what networks read, these
    values."""
    if (raw_phenotype := cohort.unscaled_phenotype) is not None:
        return raw_phenotype.loc[[*subjects]]
    record_index_by_subject = cohort.find_first_record_indices(range(len(cohort.rows)))
    record_indices = [record_index_by_subject[subject] for subject in subjects]
    phenotype_values = cohort.make_batch(record_indices, with_volumes=False)[PHENOTYPE_INPUT]
    return pd.DataFrame(phenotype_values.astype(float), index=[*subjects])


def summarise_value_groups(
    phenotype_table: pd.DataFrame, value_positions_by_group: ValuePositionsByGroup
) -> np.ndarray:
    """One number a group of the values (subjects, 29): (subjects, groups). For a group of marks it is how many values
    are unknown, else the first value. A category of which all values are 0 is unknown, NaN."""
    summary_by_group = {}
    for group_name, value_positions in value_positions_by_group.items():
        group_table = phenotype_table.iloc[:, value_positions]
        mark_names = [column_name for column_name in group_table if INDICATOR_PATTERN.search(str(column_name))]
        mark_columns = group_table[mark_names]
        if group_name == MARKS_GROUP:
            summary_by_group[group_name] = mark_columns.sum(axis=1)
            continue

        # Several columns of 0 and 1 are the codes of a category
        unmarked_columns = group_table.drop(columns=mark_columns.columns)
        code_columns = unmarked_columns.loc[:, unmarked_columns.isin([0, 1]).all()]
        first_column = group_table.iloc[:, 0]
        is_category_code = code_columns.shape[1] > 1 and first_column.name in code_columns
        summary_by_group[group_name] = (
            first_column.where(code_columns.any(axis=1)) if is_category_code else first_column
        )
    return pd.DataFrame(summary_by_group).to_numpy(float)


class PhenotypeFunction:
    """A classifier as a function of its phenotype. What does not depend on it is computed once for each record."""

    def __init__(self, network: "keras.Model"):
        import keras

        from utils.blackout.graph import list_graph_nodes  # imports Keras, which is slow

        (phenotype_tensor,) = (tensor for tensor in network.inputs if tensor.name == PHENOTYPE_INPUT)
        reached_tensor_ids = {id(phenotype_tensor)}
        rest_tensor_by_id = dict[int, keras.KerasTensor]()
        for node in list_graph_nodes(network):
            if reached_tensor_ids.isdisjoint(map(id, node.input_tensors)):
                continue
            rest_tensor_by_id |= {
                id(tensor): tensor for tensor in node.input_tensors if id(tensor) not in reached_tensor_ids
            }
            reached_tensor_ids.update(map(id, node.output_tensors))
        self._input_names = [tensor.name for tensor in network.inputs]
        self._compute_rest_tensors = (
            keras.Function(network.inputs, [*rest_tensor_by_id.values()]) if rest_tensor_by_id else None
        )
        self._compute_logits = keras.Function([phenotype_tensor, *rest_tensor_by_id.values()], network.outputs[0])

    @property
    def has_further_inputs(self) -> bool:
        """Whether the network reads more than the phenotype."""
        return self._compute_rest_tensors is not None

    def __call__(self, batch: dict[str, np.ndarray], phenotypes: np.ndarray) -> np.ndarray:
        """The log odds of autism (n, any) of n records with other phenotypes (n, any, 29)."""
        from utils.runs.inference import compute_autism_log_odds  # imports Keras, which is slow

        record_count, phenotypes_per_record = phenotypes.shape[:2]
        rest_tensors = []
        if self._compute_rest_tensors:
            rest_tensors = self._compute_rest_tensors([batch[input_name] for input_name in self._input_names])
        repeated_rest_tensors = [
            np.repeat(np.asarray(rest_tensor), phenotypes_per_record, axis=0) for rest_tensor in rest_tensors
        ]
        flat_phenotypes = phenotypes.reshape(record_count * phenotypes_per_record, -1)
        logits = self._compute_logits([flat_phenotypes, *repeated_rest_tensors])
        return compute_autism_log_odds(np.asarray(logits)).reshape(record_count, phenotypes_per_record)


def measure_values(setup: BlackoutSetup) -> Measurements:
    """Replaces each group of values in all tested records."""
    from utils.runs.inference import check_network_finite  # imports Keras, which is slow

    run = setup.run
    donors = setup.donors
    cohort = setup.cohort
    if PHENOTYPE_INPUT not in run.predictor.input_names:
        return Measurements()
    value_positions_by_group = group_phenotype_values(cohort.metadata)
    phenotypes = cohort.make_batch(np.arange(len(cohort.rows)), with_volumes=False)[PHENOTYPE_INPUT]
    log_odds = compute_group_log_odds(setup, phenotypes, value_positions_by_group)
    check_network_finite(run.trained_network, "outputs", log_odds)
    intact_log_odds = log_odds[:, 0]
    group_count = len(value_positions_by_group)
    replaced_log_odds = log_odds[:, 1:].reshape(len(log_odds), donors.donors_per_record, group_count)

    # The mean fall over donors, without the chance of having drawn these donors
    largest_group_size = max(map(len, value_positions_by_group.values()))
    group_levels = np.zeros((len(phenotypes), group_count, largest_group_size))  # 0 behind a smaller group's values
    for group_index, value_positions in enumerate(value_positions_by_group.values()):
        group_levels[:, group_index, : len(value_positions)] = phenotypes[:, value_positions]
    log_odds_falls_by_group = compute_control_variate_mean(
        intact_log_odds[:, None, None] - replaced_log_odds, donors.compute_donor_pool_deviations(group_levels)
    )
    record_array_by_name = {
        "value_reliance": setup.class_signs * log_odds_falls_by_group,
        "probability": expit(intact_log_odds),
    }
    return Measurements(
        record_array_by_name, partial(make_value_checks, setup, value_positions_by_group, phenotypes, replaced_log_odds)
    )


def compute_group_log_odds(
    setup: BlackoutSetup, phenotypes: np.ndarray, value_positions_by_group: ValuePositionsByGroup
) -> np.ndarray:
    """The log odds of autism of the tested records (records, 1 + donors * groups): with nothing replaced, then with
    each group replaced by each donor's. `phenotypes` (records, 29) are those of all records of the cohort."""
    phenotype_function = PhenotypeFunction(setup.network)
    log_odds_by_batch = []
    for record_indices in split_into_batches(setup.donors.tested_record_indices, RECORDS_PER_BATCH):
        batch = setup.cohort.make_batch(
            record_indices,
            with_volumes=phenotype_function.has_further_inputs and setup.cohort.num_maps > 0,
            record_table_by_name=make_connectome_tables(setup.cohort),
        )
        intact_phenotypes = phenotypes[record_indices]  # (n, 29)
        donor_phenotypes = phenotypes[setup.donors.select_donor_indices(record_indices)]  # (donors, n, 29)
        replaced_phenotypes = replace_value_groups(intact_phenotypes, donor_phenotypes, value_positions_by_group)
        flat_phenotypes = replaced_phenotypes.reshape(len(intact_phenotypes), -1, intact_phenotypes.shape[1])
        shown_phenotypes = np.concatenate([intact_phenotypes[:, None], flat_phenotypes], axis=1)
        log_odds_by_batch.append(phenotype_function(batch, shown_phenotypes))
    return np.concatenate(log_odds_by_batch)


def replace_value_groups(
    person_phenotypes: np.ndarray, donor_phenotypes: np.ndarray, value_positions_by_group: ValuePositionsByGroup
) -> np.ndarray:
    """Phenotypes (n, 29) with each group in turn replaced by that of each of their donors (donors, n, 29): (n, donors,
    groups, 29)."""
    group_masks = np.array(
        [
            np.isin(np.arange(person_phenotypes.shape[1]), value_positions)
            for value_positions in value_positions_by_group.values()
        ]
    )
    return np.where(group_masks, donor_phenotypes.swapaxes(0, 1)[:, :, None], person_phenotypes[:, None, None])


def make_value_checks(
    setup: BlackoutSetup,
    value_positions_by_group: ValuePositionsByGroup,
    phenotypes: np.ndarray,  # (records of the cohort, 29)
    replaced_log_odds: np.ndarray,  # (tested records, donors, groups)
    tested_position: int,
    rng: np.random.Generator,
) -> Iterable[RecomputationCheck]:
    """A group of values of a record replaced by that of each donor."""
    group_index = int(rng.integers(len(value_positions_by_group)))
    record_index = int(setup.donors.tested_record_indices[tested_position])
    record_batch = setup.load_record_batch(record_index)
    value_positions_per_group = [*map(np.array, value_positions_by_group.values())]
    for donor_number, donor_record_index in enumerate(setup.donors.donor_indices_by_record[record_index]):
        replacement = Replacement(
            phenotypes[[record_index]], phenotypes[[donor_record_index]], value_positions_per_group
        )
        yield RecomputationCheck(
            record_batch | {PHENOTYPE_INPUT: replacement.apply_replacement(group_index)},
            replaced_log_odds[tested_position, donor_number, group_index],
        )


def make_value_family(blackout: Blackout) -> FeatureFamily | None:
    """The family of groups of values, each adjusted for all covariates except those that say the same."""
    if "value_reliance" not in blackout.record_effects:
        return None
    metadata = blackout.cohort.metadata
    covariate_table = options.load_blackout_covariates(blackout.run.cohort, blackout.record_effects.record_rows)
    value_positions_by_group = group_phenotype_values(metadata)
    value_names = list_phenotype_value_names(metadata)

    covariate_table_by_group = [
        drop_group_covariates(covariate_table, metadata, group_name) for group_name in value_positions_by_group
    ]
    reliance_effect = FillEffect(
        FILL_BY_NAME[RELIANCE_FILL],
        blackout.average_subject_records("value_reliance"),
        blackout.people,
        partial(adjust_each_group, covariate_table_by_group, blackout.people.subject_labels),
    )
    subjects = sorted(set(blackout.record_effects.record_subjects))
    feature_values = summarise_value_groups(
        load_subject_phenotypes(blackout.cohort, subjects), value_positions_by_group
    )  # (subjects, groups)

    group_names = [*value_positions_by_group]
    values_text_by_group = []
    summary_name_by_group = []  # whose difference is shown
    for group_name, value_positions in value_positions_by_group.items():
        group_value_names = [value_names[value_position] for value_position in value_positions]
        values_text_by_group.append("; ".join(group_value_names))
        summary_name_by_group.append("how much is unknown" if group_name == MARKS_GROUP else group_value_names[0])
    footnote_by_column = {"direction": DIFFERENCE_FOOTNOTE}
    if blackout.people.adjuster.adjustment.covariates:
        footnote_by_column["p_reliance"] = ADJUSTMENT_FOOTNOTE
    return FeatureFamily(
        VALUE_KIND,
        group_names,
        pd.DataFrame({"group": group_names, "values": values_text_by_group, "difference_of": summary_name_by_group}),
        [reliance_effect],
        feature_values,
        footnote_by_column=footnote_by_column,
        stored_arrays={"values": np.array(group_names, object)},
    )


def adjust_each_group(
    covariate_table_by_group: Sequence[pd.DataFrame], subject_labels: np.ndarray, group_effects: np.ndarray
) -> AdjustedEffects:
    """The effects (subjects, groups), those of each group adjusted for covariates of its own."""
    adjusted_effects_by_group = []
    for group_index, covariate_table in enumerate(covariate_table_by_group):
        adjust_for_covariates = CovariateAdjuster(make_adjustment(covariate_table), subject_labels)
        adjusted_effects_by_group.append(adjust_for_covariates(group_effects[:, [group_index]]))
    # Features side by side, array by array
    return AdjustedEffects(*map(np.hstack, zip(*adjusted_effects_by_group, strict=True)))


VALUE_KIND = FeatureKind(
    "values",
    "values",
    "groups of values",
    make_value_family,
    measure_values,
    section_explanation="A group of values of the phenotype is replaced by that of other participants; all else stays",
    identifying_column_names=("group",),
)
