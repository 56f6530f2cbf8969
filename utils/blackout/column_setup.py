"""An estimator and the table that it reads -> the same table with one part of each person replaced.

The table is that of `data/cohorts/inputs.py`. A part is a region, with its columns of maps and the edges that touch it,
which are replaced together; a pair of systems, with the edges between them; or a group of values, with its columns of
the phenotype and of the covariates. What replaces maps and edges is as for networks (`FILLS`), as far as a table has
it; the background is the training participants' mean.

A connectome with another person's edges in some of its rows need not be positive definite.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.connectomes import Connectomes
from data.cohorts.inputs import make_input_table
from data.cohorts.metadata import Metadata
from utils.blackout.connections import UnorderedPairs, find_unordered_pairs
from utils.blackout.donors import Donors
from utils.blackout.edges import AlternativeInputValues, RegionEdges, Replacement
from utils.blackout.fills import (
    BACKGROUND_FILL,
    FILL_BY_NAME,
    RELIANCE_FILL,
    UNIQUE_FILL,
    Fill,
    predict_expected_means,
)
from utils.blackout.options import get_blackout_options, select_network_cohort
from utils.blackout.systems import RegionSystems
from utils.blackout.values import MARKS_GROUP, find_value_group
from utils.predictors.estimator import EstimatorPredictor, ReadyEstimator
from utils.runs.run import Run

MAX_TABLE_BYTES = 2**28  # of the numbers, as float64, in a table that is given to an estimator at once
MAX_TABLE_ROWS = 2**13  # of it, so that progress shows where an estimator is slow
REGION_FILLS = tuple(FILL_BY_NAME[fill_name] for fill_name in (RELIANCE_FILL, UNIQUE_FILL, BACKGROUND_FILL))
SYSTEM_ARRAY = "system_reliance"
VALUE_ARRAY = "value_reliance"  # names in `blackout.h5`
MAP_PREFIX = "map "
EDGE_PREFIX = "edge "
PHENOTYPE_PREFIX = "phenotype "


@dataclass(frozen=True, eq=False)
class InputColumns:
    """The inputs of all records of a cohort: numbers of maps and edges, and the table of all other values."""

    map_names: pd.Index
    edge_names: pd.Index
    numbers: np.ndarray  # (records, map columns, then edges) float32
    value_table: pd.DataFrame  # phenotype and covariates, a row a record

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> "InputColumns":
        map_names = table.columns[table.columns.str.startswith(MAP_PREFIX)]
        edge_names = table.columns[table.columns.str.startswith(EDGE_PREFIX)]
        number_names = map_names.append(edge_names)
        numbers = table[number_names].to_numpy(np.float32)
        return cls(map_names, edge_names, numbers, table.drop(columns=number_names))

    @property
    def column_count(self) -> int:
        return self.numbers.shape[1] + self.value_table.shape[1]

    @property
    def rows_per_table(self) -> int:
        """How many rows a table has at most, so that its numbers take no more than `MAX_TABLE_BYTES`."""
        fitting_row_count = MAX_TABLE_BYTES // (self.column_count * np.dtype(float).itemsize)
        return max(1, min(MAX_TABLE_ROWS, fitting_row_count))

    def make_table(self, numbers: np.ndarray, value_table: pd.DataFrame) -> pd.DataFrame:
        """Rows (n, columns) of these numbers and values, in the order of the inputs, with a RangeIndex."""
        row_values = value_table.reset_index(drop=True)
        is_phenotype = row_values.columns.str.startswith(PHENOTYPE_PREFIX)
        map_table = pd.DataFrame(numbers[:, : len(self.map_names)], columns=self.map_names)
        edge_table = pd.DataFrame(numbers[:, len(self.map_names) :], columns=self.edge_names)
        tables = [map_table, row_values.loc[:, is_phenotype], edge_table, row_values.loc[:, ~is_phenotype]]
        return pd.concat(tables, axis=1)

    def select_records(self, record_indices: np.ndarray) -> pd.DataFrame:
        """The rows of records (n,), with nothing replaced."""
        return self.make_table(self.numbers[record_indices], self.value_table.iloc[record_indices])


@dataclass(frozen=True, eq=False)
class ColumnEffect:
    """What is measured by one replacement of each of some parts.

    `column_indices_by_part` are of `InputColumns.numbers`, or of its `value_table` if `replaces_values`. By the
    `part_levels` (records of the cohort, parts, levels) the chance of having drawn these donors is taken out of the
    effect; None: nothing is taken out.
    """

    array_name: str  # in `blackout.h5`
    fill: Fill
    column_indices_by_part: Sequence[np.ndarray]
    part_levels: np.ndarray | None
    replaces_values: bool = False

    def count_donors(self, donors: Donors) -> int:
        return donors.donors_per_record if self.fill.is_by_donor else 1

    def count_rows_per_record(self, donors: Donors) -> int:
        """How many rows of a record are predicted; a part without columns needs none."""
        return self.count_donors(donors) * sum(
            len(column_indices) > 0 for column_indices in self.column_indices_by_part
        )


class ReplacedRows(NamedTuple):
    """Rows of n records in which one part after another is replaced. `make_table` takes the positions of records (m,)
    among the n, and of parts (m,)."""

    effect: ColumnEffect
    donor_number: int
    make_table: Callable[[np.ndarray, np.ndarray], pd.DataFrame]


class RegionFills(NamedTuple):
    """What regions of all records are expected to have. `map_indices` are the maps that are replaced."""

    map_indices: np.ndarray  # (replaced maps,) int
    region_means: np.ndarray  # (records, regions, maps), no maps if the estimator reads none
    predicted_means: np.ndarray  # the same, as the other regions predict it
    region_edges: RegionEdges | None  # None if edges are not replaced


@dataclass(frozen=True, eq=False)
class ColumnSetup:
    """A fitted estimator, its inputs, and what replaces parts of them."""

    run: Run
    ready_estimator: ReadyEstimator
    donors: Donors
    inputs: InputColumns
    background_numbers: np.ndarray  # (map columns, then edges), means of the training people
    region_fills: RegionFills | None  # None if it reads neither maps nor edges that are replaced
    effects: Sequence[ColumnEffect]

    @classmethod
    def from_run(cls, run: Run) -> "ColumnSetup":
        """Fits the estimator. Raises InputError, see `EstimatorPredictor.make_ready` and `make_input_table`."""
        predictor = run.predictor
        if not isinstance(predictor, EstimatorPredictor):
            raise TypeError(f"{predictor.name} is no estimator")
        cohort = select_network_cohort(run)
        blackout_options = get_blackout_options(run)
        all_record_indices = np.arange(len(cohort.rows))
        atlas = predictor.load_atlas(cohort)
        inputs = InputColumns.from_table(make_input_table(cohort, all_record_indices, predictor.input_kinds, atlas))
        ready_estimator = predictor.make_ready(run.fold_data)
        donors = Donors(cohort, cohort.find_split_record_indices("test"), blackout_options.donors, run.seed)

        # What maps and edges are replaced, region by region
        region_count = len(atlas.region_numbers)
        map_count = len(inputs.map_names) // region_count
        region_means = inputs.numbers[:, : len(inputs.map_names)].reshape(len(cohort.rows), region_count, map_count)
        region_means = region_means.astype(float)
        region_edges = None
        if blackout_options.replaces_edges(cohort):
            region_edges = RegionEdges(cohort, atlas, region_means, run.seed)
        region_fills = None
        effects = list[ColumnEffect]()
        if map_count or region_edges:
            map_indices = np.flatnonzero(blackout_options.make_replaced_map_mask(cohort)[:map_count])
            predicted_means = predict_expected_means(cohort, region_means) if map_count else region_means
            region_fills = RegionFills(map_indices, region_means, predicted_means, region_edges)
            effects += make_region_effects(inputs, region_fills)
        if region_edges:
            effects.append(make_system_effect(run, cohort, inputs, region_edges))
        if not inputs.value_table.empty:
            effects.append(make_value_effect(cohort, inputs))

        training_numbers = pd.DataFrame(inputs.numbers[cohort.find_split_record_indices("train")])
        return cls(
            run, ready_estimator, donors, inputs, training_numbers.mean().to_numpy(np.float32), region_fills, effects
        )

    @property
    def tested_record_indices(self) -> np.ndarray:
        return self.donors.tested_record_indices

    @property
    def class_signs(self) -> np.ndarray:
        """The sign of the true class on the log odds of autism, (records, 1)."""
        labels = [self.run.cohort.rows[record_index].label for record_index in self.tested_record_indices]
        return np.where(np.array(labels) == 1, 1.0, -1.0)[:, None]

    @property
    def rows_per_record(self) -> int:
        """How many rows are predicted of each tested record, with that in which nothing is replaced."""
        return 1 + sum(effect.count_rows_per_record(self.donors) for effect in self.effects)

    def split_records(self) -> list[np.ndarray]:
        """The tested records, in batches of which a part fills about a table."""
        largest_part_count = max(len(effect.column_indices_by_part) for effect in self.effects)
        return split_into_batches(self.tested_record_indices, max(1, self.inputs.rows_per_table // largest_part_count))

    def iterate_replaced_rows(self, record_indices: np.ndarray) -> Iterator[ReplacedRows]:
        """All that is predicted of tested records (n,) with something replaced, by effect and donor."""
        donor_record_indices = self.donors.select_donor_indices(record_indices)  # (donors, n)
        alternatives_by_donor = self.make_alternative_numbers(record_indices, donor_record_indices)
        for effect in self.effects:
            for donor_number in range(effect.count_donors(self.donors)):
                if effect.replaces_values:
                    make_table = partial(
                        self.replace_values,
                        effect.column_indices_by_part,
                        record_indices,
                        donor_record_indices[donor_number],
                    )
                else:
                    alternative_numbers = alternatives_by_donor[donor_number]
                    replacement = Replacement(
                        alternative_numbers.person_values,
                        effect.fill.select_replacement(alternative_numbers),
                        effect.column_indices_by_part,
                    )
                    make_table = partial(self.replace_numbers, replacement, record_indices)
                yield ReplacedRows(effect, donor_number, make_table)

    def make_alternative_numbers(
        self, record_indices: np.ndarray, donor_record_indices: np.ndarray
    ) -> list[AlternativeInputValues]:
        """What the columns of maps and edges of records (n,) may become, by donor. Expected numbers are a function of
        the region's place, which returns (n, columns of the region)."""
        person_numbers = self.inputs.numbers[record_indices]
        region_fills = self.region_fills
        edges_by_donor = list[AlternativeInputValues]()
        if region_fills and region_fills.region_edges:
            edges_by_donor = region_fills.region_edges.load_alternative_edges(record_indices, donor_record_indices)

        def expect_numbers(donor_number: int, region_index: int) -> np.ndarray:
            assert region_fills
            donor_indices = donor_record_indices[donor_number]
            predicted_means = region_fills.predicted_means[:, region_index]  # (records of the cohort, maps)
            # The donor's level, shifted by how far the rest of the person predicts another one than that of the donor
            expected_means = region_fills.region_means[donor_indices, region_index]
            expected_means = expected_means + predicted_means[record_indices] - predicted_means[donor_indices]
            expected_columns = [expected_means[:, region_fills.map_indices]]
            if edges_by_donor:
                expect_edges = edges_by_donor[donor_number].expected_values
                assert callable(expect_edges)
                expected_columns.append(expect_edges(region_index))
            return np.concatenate(expected_columns, axis=1)

        return [
            AlternativeInputValues(
                person_numbers,
                self.background_numbers,
                self.inputs.numbers[donor_indices],
                partial(expect_numbers, donor_number),
            )
            for donor_number, donor_indices in enumerate(donor_record_indices)
        ]

    def replace_numbers(
        self,
        replacement: Replacement,
        record_indices: np.ndarray,
        record_positions: np.ndarray,
        part_indices: np.ndarray,
    ) -> pd.DataFrame:
        """The rows (m, columns) of records with one part of their maps and edges replaced."""
        numbers = replacement.input_values[record_positions]
        for part_index in np.unique(part_indices):
            (row_positions,) = np.nonzero(part_indices == part_index)
            part_numbers = replacement.get_replacement_values(part_index)  # (n, columns of the part)
            numbers[np.ix_(row_positions, replacement.selections[part_index])] = part_numbers[
                record_positions[row_positions]
            ]
        return self.inputs.make_table(numbers, self.inputs.value_table.iloc[record_indices[record_positions]])

    def replace_values(
        self,
        column_indices_by_group: Sequence[np.ndarray],
        record_indices: np.ndarray,
        donor_indices: np.ndarray,
        record_positions: np.ndarray,
        group_indices: np.ndarray,
    ) -> pd.DataFrame:
        """The rows (m, columns) of records with one group of values as their donors (n,) have it."""
        person_rows = record_indices[record_positions]
        donor_rows = donor_indices[record_positions]
        group_by_column = np.empty(self.inputs.value_table.shape[1], int)
        for group_index, column_indices in enumerate(column_indices_by_group):
            group_by_column[column_indices] = group_index
        column_by_name = {}
        for column_group, (column_name, column) in zip(group_by_column, self.inputs.value_table.items(), strict=True):
            value_rows = np.where(group_indices == column_group, donor_rows, person_rows)
            column_by_name[column_name] = column.iloc[value_rows].array
        return self.inputs.make_table(self.inputs.numbers[person_rows], pd.DataFrame(column_by_name))


def make_region_effects(inputs: InputColumns, region_fills: RegionFills) -> list[ColumnEffect]:
    """The effects of each fill of the regions, whose maps and edges are replaced together."""
    _, region_count, map_count = region_fills.region_means.shape
    column_indices_by_region = []
    for region_index in range(region_count):
        column_indices = region_index * map_count + region_fills.map_indices
        if region_fills.region_edges:
            edge_indices = region_fills.region_edges.edge_indices_by_region[region_index]
            column_indices = np.append(column_indices, len(inputs.map_names) + edge_indices)
        column_indices_by_region.append(column_indices)

    replaced_means = region_fills.region_means[..., region_fills.map_indices]
    reliance_levels = replaced_means
    if region_fills.region_edges:
        edge_levels = average_known_edges(inputs, region_fills.region_edges.edge_indices_by_region)
        reliance_levels = np.concatenate([replaced_means, edge_levels[..., None]], axis=-1)
    unexpected_means = replaced_means - region_fills.predicted_means[..., region_fills.map_indices]
    levels_by_fill = {
        RELIANCE_FILL: reliance_levels,
        UNIQUE_FILL: unexpected_means if unexpected_means.size else None,
        BACKGROUND_FILL: None,
    }
    return [
        ColumnEffect(fill.stored_array_name, fill, column_indices_by_region, levels_by_fill[fill.fill_name])
        for fill in REGION_FILLS
    ]


def make_system_effect(run: Run, cohort: Cohort, inputs: InputColumns, region_edges: RegionEdges) -> ColumnEffect:
    """The effect of the edges between each two systems."""
    region_systems = get_blackout_options(run).load_systems(cohort.region_grid)
    system_pairs = find_system_pairs(region_systems, region_edges.connectomes, region_edges.region_index_by_parcel)
    edge_indices_by_pair = [
        np.flatnonzero(system_pairs.pair_index_by_link == pair_index)
        for pair_index in range(len(system_pairs.place_indices_by_pair))
    ]
    return ColumnEffect(
        SYSTEM_ARRAY,
        FILL_BY_NAME[RELIANCE_FILL],
        [len(inputs.map_names) + edge_indices for edge_indices in edge_indices_by_pair],
        average_known_edges(inputs, edge_indices_by_pair)[..., None],
    )


def find_system_pairs(
    region_systems: RegionSystems, connectomes: Connectomes, region_index_by_parcel: np.ndarray
) -> UnorderedPairs:
    """The pairs of systems, and that of each edge; `region_index_by_parcel` (parcels,) is each parcel's region."""
    system_index_by_parcel = region_systems.system_index_by_region[region_index_by_parcel]
    return find_unordered_pairs(system_index_by_parcel, connectomes.parcel_index_pairs)


def average_known_edges(inputs: InputColumns, edge_indices_by_part: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the known edges of each part, (records, parts); where none is known, the mean over records."""
    edge_table = pd.DataFrame(inputs.numbers[:, len(inputs.map_names) :])
    part_means = pd.DataFrame(
        {
            part_index: edge_table.iloc[:, edge_indices].mean(axis=1)
            for part_index, edge_indices in enumerate(edge_indices_by_part)
        }
    )
    return part_means.fillna(part_means.mean()).fillna(0).to_numpy(float)


def make_value_effect(cohort: Cohort, inputs: InputColumns) -> ColumnEffect:
    """The effect of each group of values."""
    column_indices_by_group = [
        np.array(column_indices) for column_indices in group_value_columns(cohort.metadata, inputs.value_table).values()
    ]
    levels_by_group = []
    for column_indices in column_indices_by_group:
        coded_table = pd.get_dummies(inputs.value_table.iloc[:, column_indices], dtype=float)
        levels_by_group.append(coded_table.fillna(coded_table.mean()).fillna(0).to_numpy(float))
    level_count = max(group_levels.shape[1] for group_levels in levels_by_group)
    padded_levels = [
        np.pad(group_levels, ((0, 0), (0, level_count - group_levels.shape[1]))) for group_levels in levels_by_group
    ]
    return ColumnEffect(
        VALUE_ARRAY,
        FILL_BY_NAME[RELIANCE_FILL],
        column_indices_by_group,
        np.stack(padded_levels, axis=1),
        replaces_values=True,
    )


def group_value_columns(metadata: Metadata, value_table: pd.DataFrame) -> dict[str, list[int]]:
    """The positions of the columns of each group of values, by its name: a column of the phenotype or of the covariates
    or, of ABIDE's table, those that measure the same. What phenotype and covariates both have is one group."""
    column_indices_by_group: dict[str, list[int]] = {}
    for column_index, column_name in enumerate(value_table):
        bare_name = str(column_name).partition(" ")[2]  # without the kind of input
        group_name = find_value_group(metadata, bare_name)
        if group_name in ("", MARKS_GROUP):
            group_name = bare_name
        column_indices_by_group.setdefault(group_name, []).append(column_index)
    return column_indices_by_group
