"""What is known of a cohort's scans, as a table that any classifier can read: a row a scan, raw values, named columns.

Nothing is imputed, scaled or chosen: whoever fits a model does that, on the training people alone.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.base.effort import EFFORT
from data.base.errors import InputError, quote_text
from data.cohorts import parcel_means
from data.cohorts.cohort import Cohort
from data.cohorts.connectomes import Connectomes
from data.cohorts.metadata import Metadata
from data.cohorts.records import RECORD_DTYPE
from data.cohorts.scaling import list_value_names_by_indicator, list_value_names_by_variable
from data.cohorts.variants import standardise_cohort
from data.images.atlas import Atlas
from data.images.parcels import make_region_parcels
from data.tables.missing import clean_column
from data.tables.phenotype import UNUSED_PREFIX, is_mostly_numbers, parse_number_column
from data.tables.vocabulary import INPUT_KINDS

DEFAULT_INPUT_KINDS = ("maps", "phenotype", "connectome")  # as far as a cohort has them
BYTES_PER_GIB = 2**30


def choose_input_kinds(cohort: Cohort, requested_kinds_text: str | None) -> tuple[str, ...]:
    """The kinds of inputs that `A,B` names, in the order of `INPUT_KINDS`; without a text, those of
    `DEFAULT_INPUT_KINDS` that the cohort has. Raises InputError for an unknown word, and for a kind that the cohort
    lacks."""
    if requested_kinds_text is None:
        present_kinds = find_present_input_kinds(cohort)
        chosen_words = [kind for kind in DEFAULT_INPUT_KINDS if kind in present_kinds]
    else:
        chosen_words = [word.strip() for word in requested_kinds_text.split(",")]
    if unknown_words := [word for word in chosen_words if word not in INPUT_KINDS]:
        raise InputError(
            f"--inputs {quote_text(unknown_words[0])} is no kind of input; expected some of {','.join(INPUT_KINDS)}."
        )
    input_kinds = tuple(kind for kind in INPUT_KINDS if kind in chosen_words)
    check_input_kinds_present(cohort, input_kinds)
    return input_kinds


def make_input_table(
    cohort: Cohort, record_indices: Sequence[int] | np.ndarray, input_kinds: Sequence[str], atlas: Atlas | None
) -> pd.DataFrame:
    """The inputs of these records, a row a record in their order, with a RangeIndex; NaN where unknown. `input_kinds`
    are some of `INPUT_KINDS`; `atlas` may be None without maps. The columns are, in this order:

    - `map <map> <region>`: the mean of a map as it is stored, not standardised, in each region of `atlas`, which is on
      the cohort's grid and whose names differ (see `load_printable_atlas`), float32; the maps of a region side by side
    - `phenotype <column>`: `phenotype.csv` before imputation and scaling, with what columns of text became put together
      again: numbers as float64, text as categories
    - `edge <parcel> <parcel>`: the Fisher z of two parcels, float32, in the order of `connectomes.h5`
    - `covariate <column>`: `covariates.csv`, as for the phenotype

    Categories are those of the whole cohort, whichever records are chosen. Raises InputError for a kind that the cohort
    lacks, a record that cannot be read, text among numbers, and a table larger than `EFFORT.input_table_gib`.
    """
    check_input_kinds_present(cohort, input_kinds)
    check_input_table_size(cohort, len(record_indices), input_kinds, atlas)
    record_indices = np.asarray(record_indices, int)
    subjects = [cohort.rows[record_index].subject for record_index in record_indices]

    tables = []
    if "maps" in input_kinds:
        assert atlas is not None
        tables.append(make_region_table(cohort, record_indices, atlas))
    if "phenotype" in input_kinds:
        tables.append(select_subject_rows(make_phenotype_table(cohort), subjects, "phenotype"))
    if "connectome" in input_kinds:
        assert cohort.connectomes is not None
        edge_columns = list_edge_columns(cohort.connectomes)
        tables.append(pd.DataFrame(cohort.connectomes[record_indices], columns=edge_columns))
    if "covariates" in input_kinds:
        assert cohort.covariates is not None
        tables.append(select_subject_rows(parse_text_table(cohort.covariates), subjects, "covariate"))
    return pd.concat(tables, axis=1)


def check_input_kinds_present(cohort: Cohort, input_kinds: Sequence[str]) -> None:
    """Raises InputError if the cohort lacks one of these kinds of inputs, or there is none."""
    present_kinds = find_present_input_kinds(cohort)
    if lacking_kinds := [kind for kind in input_kinds if kind not in present_kinds]:
        raise InputError(
            f"{cohort.path} has no {lacking_kinds[0]}; expected some of what it has. Use --inputs "
            f"{','.join(present_kinds)}."
        )
    if not input_kinds:
        raise InputError(f"{cohort.path} has none of {', '.join(DEFAULT_INPUT_KINDS)}; expected one. Convert again.")


def find_present_input_kinds(cohort: Cohort) -> list[str]:
    """The kinds of inputs that a cohort has, in the order of `INPUT_KINDS`."""
    is_present_by_kind = {
        "maps": cohort.num_maps > 0,
        "phenotype": not make_phenotype_table(cohort).empty,
        "connectome": cohort.connectomes is not None,
        "covariates": cohort.covariates is not None and not cohort.covariates.empty,
    }
    return [kind for kind in INPUT_KINDS if is_present_by_kind[kind]]


def check_input_table_size(cohort: Cohort, record_count: int, input_kinds: Sequence[str], atlas: Atlas | None) -> None:
    """Raises InputError if the region means and edges of so many records would take more memory than is allowed; the
    columns of phenotype and covariates are few."""
    column_count_by_kind = {}
    if "maps" in input_kinds and atlas is not None:
        column_count_by_kind["maps"] = cohort.num_maps * len(atlas.region_numbers)
    if "connectome" in input_kinds and cohort.connectomes is not None:
        column_count_by_kind["connectome"] = cohort.connectomes.num_edges
    table_gib = record_count * sum(column_count_by_kind.values()) * RECORD_DTYPE.itemsize / BYTES_PER_GIB
    if table_gib > EFFORT.input_table_gib:
        column_counts_text = " and ".join(f"{count} of {kind}" for kind, count in column_count_by_kind.items())
        raise InputError(
            f"The inputs of {record_count} records of {cohort.path} would take {table_gib:.2g} GiB, with columns "
            f"{column_counts_text}; expected {EFFORT.input_table_gib:g} GiB at most. Leave a kind out by --inputs, or "
            "use a coarser atlas."
        )


def make_region_table(cohort: Cohort, record_indices: np.ndarray, atlas: Atlas) -> pd.DataFrame:
    """The means of the maps of these records in each region, as they are stored, (records, regions times maps)."""
    stored_cohort = standardise_cohort(cohort, "stored")
    region_means = parcel_means.load_parcel_means(stored_cohort, [make_region_parcels(atlas)])[0]
    region_columns = [
        f"map {map_name} {atlas.name_by_region[region_number]}"
        for region_number in atlas.region_numbers
        for map_name in cohort.map_names
    ]
    return pd.DataFrame(region_means[record_indices].reshape(len(record_indices), -1), columns=region_columns)


def make_phenotype_table(cohort: Cohort) -> pd.DataFrame:
    """`phenotype.csv` by subject, as the table of which it was made: a column of text, which became a 0/1 value for
    each category, is one column again, of these categories; the values that only say what is missing, and those that
    are not used, are left out. Without columns if there is none."""
    if cohort.unscaled_phenotype is None:
        return pd.DataFrame()
    metadata = cohort.metadata
    left_out_names = {*list_value_names_by_indicator(metadata), *list_unused_value_names(metadata)}
    value_names_by_variable = list_value_names_by_variable(metadata)
    variable_by_value_name = {
        value_name: variable for variable, value_names in value_names_by_variable.items() for value_name in value_names
    }

    column_by_name: dict[str, pd.Series] = {}
    for value_name in metadata.phenotype:
        if value_name in left_out_names:
            continue
        variable = variable_by_value_name.get(value_name)
        if variable is None:
            column_by_name[value_name] = cohort.unscaled_phenotype[value_name]
        elif variable not in column_by_name:
            category_values = cohort.unscaled_phenotype[value_names_by_variable[variable]]
            column_by_name[variable] = join_category_values(category_values, variable)
    return pd.DataFrame(column_by_name)


def list_unused_value_names(metadata: Metadata) -> list[str]:
    """The names of the values that fill a phenotype up and are always 0."""
    return [
        value_name
        for value_name in metadata.phenotype
        if value_name.startswith(UNUSED_PREFIX) and value_name not in metadata.phenotype_columns
    ]


def join_category_values(category_values: pd.DataFrame, variable: str) -> pd.Series:
    """The 0/1 values `<variable>_<category>` of people (people, categories) -> their category, NaN where none is 1."""
    has_category = category_values.eq(1)
    category_codes = np.where(has_category.any(axis=1), has_category.to_numpy().argmax(axis=1), -1)
    categories = [value_name.removeprefix(f"{variable}_") for value_name in category_values]
    return pd.Series(pd.Categorical.from_codes(category_codes, categories), category_values.index)


def parse_text_table(text_table: pd.DataFrame) -> pd.DataFrame:
    """A table of text by subject -> numbers as float64, text as categories, NaN where unknown. Raises InputError for
    text among numbers."""
    column_by_name = {}
    for column_name in text_table:
        if is_mostly_numbers(text_table[column_name]):
            column_by_name[column_name] = parse_number_column(text_table, column_name).astype(float)
        else:
            column_by_name[column_name] = clean_column(text_table[column_name]).astype("category")
    return pd.DataFrame(column_by_name)


def select_subject_rows(subject_table: pd.DataFrame, subjects: Sequence[str], column_prefix: str) -> pd.DataFrame:
    """The rows of these subjects, who may repeat, with a RangeIndex and prefixed columns."""
    return subject_table.loc[list(subjects)].reset_index(drop=True).add_prefix(f"{column_prefix} ")


def list_edge_columns(connectomes: Connectomes) -> list[str]:
    """The names of the columns of edges, in their order."""
    parcel_names = connectomes.parcel_names
    return [
        f"edge {parcel_names[first_index]} {parcel_names[second_index]}"
        for first_index, second_index in connectomes.parcel_index_pairs.tolist()
    ]
