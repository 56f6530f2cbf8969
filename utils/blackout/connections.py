"""What a blackout says of connections: between each two systems, then between the regions of significant pairs of
systems.

The part of a network that reads edges is linear. So the effect of replacing all edges between two systems is the sum of
the effects of their pairs of regions, exactly. Edges within a region or a system, and those of parcels outside all
regions, are pairs as well.

Pairs of systems are a family of their own. Regions are tested within the significant pairs of systems, over all such
pairs of regions; no p is below that of its systems, as in hierarchical testing (Meinshausen 2008, Biometrika 95:265).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from data.base.listing import join_names
from data.cohorts.cohort import split_into_batches
from data.cohorts.connectomes import Connectomes
from utils.blackout import options
from utils.blackout.edge_logits import EdgeLogits
from utils.blackout.edges import RECORDS_PER_READ, find_parcel_region_indices, require_connectomes
from utils.blackout.effects import sum_by_group
from utils.blackout.families import Blackout, FeatureFamily, FeatureKind, FillEffect
from utils.blackout.fills import FILL_BY_NAME, RELIANCE_FILL
from utils.blackout.options import CONNECTOME_INPUT
from utils.blackout.people import BlackoutPeople
from utils.blackout.setup import BlackoutSetup, Measurements, RecomputationCheck
from utils.blackout.systems import OUTSIDE_SYSTEM, RegionSystems

SYSTEM_LEVEL = "systems"
REGION_LEVEL = "regions"  # levels of the table


class RegionPairs(NamedTuple):
    """Unordered pairs of regions that have edges."""

    pair_index_by_edge: np.ndarray  # (edges,) int
    region_positions_by_pair: np.ndarray  # (pairs, 2) int, in the atlas, the lower first; equal within a region


def find_unordered_pairs(region_index_by_parcel: np.ndarray, parcel_indices_by_edge: np.ndarray) -> RegionPairs:
    """The pairs of regions, from each parcel's region (parcels,) and each edge's parcels (edges, 2).

    Given each region's system (regions + 1,) and pairs of regions (pairs, 2), it returns pairs of systems;
    `pair_index_by_edge` is then the pair of systems of each pair of regions.
    """
    region_positions_by_pair, pair_index_by_edge = np.unique(
        np.sort(region_index_by_parcel[parcel_indices_by_edge], axis=1), axis=0, return_inverse=True
    )
    return RegionPairs(pair_index_by_edge.ravel(), region_positions_by_pair)


def average_edges_by_pair(
    connectomes: Connectomes, record_indices: np.ndarray, pair_index_by_edge: np.ndarray, pair_count: int
) -> np.ndarray:
    """The mean Fisher z of the known edges of each of `pair_count` pairs, (records, pairs); NaN where none is known.
    `pair_index_by_edge` (edges,) int is the pair of each edge, `pair_count` if it is in none."""
    paired_edge_indices = np.flatnonzero(pair_index_by_edge < pair_count)
    # 1 where an edge is in a pair, (edges, pairs)
    edge_pair_matrix = sparse.csr_array(
        (np.ones(len(paired_edge_indices)), (paired_edge_indices, pair_index_by_edge[paired_edge_indices])),
        (len(pair_index_by_edge), pair_count),
    )
    mean_edge_blocks = [np.empty((0, pair_count))]
    for block_record_indices in split_into_batches(record_indices, RECORDS_PER_READ):
        edge_fisher_z = connectomes[block_record_indices]
        measured_edge_counts = np.asarray(~np.isnan(edge_fisher_z) @ edge_pair_matrix)
        edge_sums = np.asarray(np.nan_to_num(edge_fisher_z) @ edge_pair_matrix)
        mean_edge_blocks.append(
            np.divide(
                edge_sums,
                measured_edge_counts,
                out=np.full(measured_edge_counts.shape, np.nan),
                where=measured_edge_counts > 0,
            )
        )
    return np.concatenate(mean_edge_blocks)


def format_pair_name(first_name: str, second_name: str) -> str:
    """The name of a pair, the same in either order."""
    return f"within {first_name}" if first_name == second_name else " and ".join(sorted((first_name, second_name)))


def measure_connections(setup: BlackoutSetup) -> Measurements:
    """How far the log odds fall if the edges between two regions become the mean of all possible donors."""
    region_edges = setup.volume_occlusion.fills.region_edges if setup.volume_occlusion else None
    donors = setup.donors
    if region_edges is None or setup.edge_logits is None:
        return Measurements()
    region_pairs = find_unordered_pairs(
        region_edges.region_index_by_parcel, region_edges.connectomes.parcel_index_pairs
    )
    edge_pair_matrix = sparse.csr_array(
        (
            np.ones(len(region_pairs.pair_index_by_edge)),
            (np.arange(len(region_pairs.pair_index_by_edge)), region_pairs.pair_index_by_edge),
        )
    )
    pair_log_odds_contributions = np.concatenate(
        [
            setup.edge_logits.compute_edge_contributions(edge_block) @ edge_pair_matrix
            for edge_block in region_edges.connectomes.iterate_row_blocks()
        ]
    )
    log_odds_falls_by_pair = pair_log_odds_contributions[
        donors.tested_record_indices
    ] - donors.compute_donor_pool_means(pair_log_odds_contributions)
    return Measurements(
        {"pair_reliance": setup.class_signs * log_odds_falls_by_pair},
        partial(
            make_connection_checks, setup, setup.edge_logits, region_pairs.pair_index_by_edge, log_odds_falls_by_pair
        ),
    )


def make_connection_checks(
    setup: BlackoutSetup,
    edge_logits: EdgeLogits,
    pair_index_by_edge: np.ndarray,
    log_odds_falls_by_pair: np.ndarray,
    tested_position: int,
    rng: np.random.Generator,
) -> Iterable[RecomputationCheck]:
    """The edges of a pair of a record become the mean of all possible donors."""
    pair_index = int(rng.integers(log_odds_falls_by_pair.shape[1]))
    record_batch = setup.load_record_batch(int(setup.donors.tested_record_indices[tested_position]))
    pair_edge_indices = np.flatnonzero(pair_index_by_edge == pair_index)
    pair_edge_fisher_z = np.concatenate(
        [edge_block[:, pair_edge_indices] for edge_block in require_connectomes(setup.cohort).iterate_row_blocks()]
    ).astype(float)
    imputed_edges = np.where(
        np.isnan(pair_edge_fisher_z), edge_logits.training_edge_means[pair_edge_indices], pair_edge_fisher_z
    )
    replaced_edges = record_batch[CONNECTOME_INPUT].copy()
    replaced_edges[:, pair_edge_indices] = setup.donors.compute_donor_pool_means(imputed_edges)[tested_position]
    yield RecomputationCheck(
        record_batch | {CONNECTOME_INPUT: replaced_edges},
        float(setup.compute_autism_log_odds(record_batch)[0] - log_odds_falls_by_pair[tested_position, pair_index]),
    )


def make_connection_family(blackout: Blackout) -> FeatureFamily | None:
    """Pairs of systems and, within the significant ones, of regions; None if no edges were replaced."""
    if "pair_reliance" not in blackout.record_effects:
        return None
    atlas = blackout.atlas
    connectomes = require_connectomes(blackout.cohort)
    record_effects = blackout.record_effects
    region_systems = options.get_blackout_options(blackout.run).load_systems(blackout.cohort.grid)
    record_index_by_file = {
        record_row.file: record_index for record_index, record_row in enumerate(blackout.cohort.rows)
    }
    record_indices = np.array([record_index_by_file[record_row.file] for record_row in record_effects.record_rows])

    def compute_subject_mean_edges(pair_index_by_edge: np.ndarray, pair_count: int) -> np.ndarray:
        return record_effects.average_subject_records(
            average_edges_by_pair(connectomes, record_indices, pair_index_by_edge, pair_count)
        )

    region_names = [atlas.name_by_region[region_number] for region_number in atlas.region_numbers]
    region_index_by_parcel = find_parcel_region_indices(connectomes, atlas)
    region_pair_effects = blackout.average_subject_records("pair_reliance")
    return make_nested_connection_family(
        region_names,
        region_index_by_parcel,
        region_systems,
        region_pair_effects,
        compute_subject_mean_edges,
        blackout.people,
    )


def make_nested_connection_family(
    region_names: Sequence[str],
    region_index_by_parcel: np.ndarray,  # (parcels,) int
    region_systems: RegionSystems,
    region_pair_effects: np.ndarray,  # (subjects, pairs of regions)
    compute_subject_mean_edges: Callable[[np.ndarray, int], np.ndarray],
    people: BlackoutPeople,
) -> FeatureFamily:
    """The family of pairs of systems, whose inner family are the pairs of regions within the significant ones.

    `region_names` are those of the atlas in its order; `region_index_by_parcel` (parcels,) is each parcel's region by
    its place there. `region_pair_effects` (subjects, pairs of regions) are on the logit of the true class, in the
    order of `find_unordered_pairs`. `compute_subject_mean_edges` takes `pair_index_by_edge` and `pair_count` as
    `average_edges_by_pair` does, and returns the mean edges of each subject, (subjects, pairs).
    """
    region_pairs = find_unordered_pairs(
        region_index_by_parcel, np.column_stack(np.triu_indices(len(region_index_by_parcel), 1))
    )
    system_pairs = find_unordered_pairs(region_systems.system_index_by_region, region_pairs.region_positions_by_pair)
    # The effect of all edges together, so that correlations are an activation pattern (Haufe et al. 2014)
    total_autism_logit_effect = FillEffect(
        FILL_BY_NAME[RELIANCE_FILL], region_pair_effects.sum(axis=1, keepdims=True), people, people.adjuster
    ).autism_logit_effects

    def make_level_family(
        level_name: str,
        pair_end_names: np.ndarray,  # (pairs, 2)
        pair_end_system_names: np.ndarray,  # (pairs, 2)
        pair_index_by_edge: np.ndarray,
        fill_effect: FillEffect,
    ) -> FeatureFamily:
        """The family of one level. `pair_end_names` and `pair_end_system_names` (pairs, 2) are the names of both ends
        of each pair and their systems; `pair_index_by_edge` (edges,) is the pair of each edge, the count of pairs if
        it is in none."""
        (first_names, second_names), (first_system_names, second_system_names) = (
            pair_end_names.T,
            pair_end_system_names.T,
        )
        edge_count_by_pair = np.bincount(pair_index_by_edge, minlength=len(pair_end_names) + 1)[: len(pair_end_names)]
        identifying_columns = {
            "level": level_name,
            "a": first_names,
            "b": second_names,
            "system_a": first_system_names,
            "system_b": second_system_names,
            "edges": edge_count_by_pair,
        }
        subject_mean_edges = compute_subject_mean_edges(pair_index_by_edge, len(pair_end_names))
        pair_names = [format_pair_name(*pair_ends) for pair_ends in pair_end_names.tolist()]
        autism_logit_effects = np.broadcast_to(total_autism_logit_effect, subject_mean_edges.shape)
        return FeatureFamily(
            CONNECTION_KIND,
            pair_names,
            pd.DataFrame(identifying_columns),
            [fill_effect],
            subject_mean_edges,
            autism_logit_effects,
        )

    system_pair_effect = FillEffect(
        FILL_BY_NAME[RELIANCE_FILL],
        sum_by_group(region_pair_effects.T, system_pairs.pair_index_by_edge).T,
        people,
        people.adjuster,
    )
    region_family = None
    tested_region_pair_indices = np.flatnonzero(system_pair_effect.is_significant[system_pairs.pair_index_by_edge])
    system_names = np.array(region_systems.system_names)
    if len(tested_region_pair_indices):
        tested_position_by_pair = np.full(len(region_pairs.region_positions_by_pair), len(tested_region_pair_indices))
        tested_position_by_pair[tested_region_pair_indices] = np.arange(len(tested_region_pair_indices))
        end_region_positions = region_pairs.region_positions_by_pair[
            tested_region_pair_indices
        ]  # in the order of their systems
        end_region_positions = np.take_along_axis(
            end_region_positions,
            np.argsort(region_systems.system_index_by_region[end_region_positions], axis=1, kind="stable"),
            axis=1,
        )
        min_family_wise_p = system_pair_effect.family_wise_p[
            system_pairs.pair_index_by_edge[tested_region_pair_indices]
        ]
        region_pair_effect = FillEffect(
            FILL_BY_NAME[RELIANCE_FILL],
            region_pair_effects[:, tested_region_pair_indices],
            people,
            people.adjuster,
            min_family_wise_p,
        )
        end_names = np.array([*region_names, OUTSIDE_SYSTEM])[end_region_positions]
        region_family = make_level_family(
            REGION_LEVEL,
            end_names,
            system_names[region_systems.system_index_by_region[end_region_positions]],
            tested_position_by_pair[region_pairs.pair_index_by_edge],
            region_pair_effect,
        )
    system_pair_end_names = system_names[system_pairs.region_positions_by_pair]
    stored_arrays = {
        "pair": region_pairs.region_positions_by_pair.astype(np.int32),
        "system": np.array(region_systems.system_name_by_region, object),
    }
    footnote_by_column = {"a": describe_parcel_systems(region_names, region_index_by_parcel, region_systems)}
    system_family = make_level_family(
        SYSTEM_LEVEL,
        system_pair_end_names,
        system_pair_end_names,
        system_pairs.pair_index_by_edge[region_pairs.pair_index_by_edge],
        system_pair_effect,
    )
    return replace(
        system_family,
        inner_family=region_family,
        matrix_axis_columns=("a", "b"),
        footnote_by_column=footnote_by_column,
        stored_arrays=stored_arrays,
    )


def describe_parcel_systems(
    region_names: Sequence[str], region_index_by_parcel: np.ndarray, region_systems: RegionSystems
) -> str:
    """In which systems parcels lie, and what lies in none."""
    outside_parcel_count = int((region_index_by_parcel == len(region_names)).sum())
    occupied_system_indices = np.setdiff1d(
        region_systems.system_index_by_region[np.unique(region_index_by_parcel)], len(region_systems.system_names) - 1
    )
    sentences = [f"Parcels lie in {len(occupied_system_indices)} of {len(region_systems.system_names) - 1} systems."]
    if region_systems.is_system_per_region:
        sentences.append("Each region is a system of its own (--systems FILE tells others).")
    if len(region_systems.unplaced_region_positions):
        sentences.append(
            "In no system: "
            f"{join_names([region_names[position] for position in region_systems.unplaced_region_positions])}."
        )
    if outside_parcel_count:
        sentences.append(
            f"{outside_parcel_count} of {len(region_index_by_parcel)} parcels lie outside all regions, which counts as "
            "a system."
        )
    return " ".join(sentences)


CONNECTION_KIND = FeatureKind(
    "connections",
    "connections",
    "pairs of systems",
    make_connection_family,
    measure_connections,
    section_explanation="The edges between two systems of the brain are replaced by those of other participants; "
    "all else stays",
    no_finding_message="No connection is shown to matter alone; many may matter together.",
    plural_inner_feature_name="pairs of regions",
    identifying_column_names=("level", "a", "b"),
)
