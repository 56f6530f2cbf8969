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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from data.base.listing import join_names
from data.cohorts.cohort import split_into_batches
from data.cohorts.connectomes import Connectomes
from utils.blackout import options
from utils.blackout.edges import RECORDS_PER_READ, find_parcel_region_indices, require_connectomes
from utils.blackout.effects import sum_by_group
from utils.blackout.families import Blackout, FeatureFamily, FeatureKind, FillEffect
from utils.blackout.fills import FILL_BY_NAME, RELIANCE_FILL
from utils.blackout.options import CONNECTOME_INPUT
from utils.blackout.people import BlackoutPeople
from utils.blackout.setup import BlackoutSetup, Measurements, RecomputationCheck
from utils.blackout.systems import OUTSIDE_SYSTEM, RegionSystems

if TYPE_CHECKING:
    from utils.blackout.edge_logits import EdgeLogits

SYSTEM_LEVEL = "systems"
REGION_LEVEL = "regions"  # levels of the table


class UnorderedPairs(NamedTuple):
    """Unordered pairs of places with links between them: of regions with edges, or of systems with pairs of regions."""

    pair_index_by_link: np.ndarray  # (links,) int, of each edge, or of each pair of regions
    place_indices_by_pair: np.ndarray  # (pairs, 2) int, regions or systems, the lower first; equal within one place


def find_unordered_pairs(place_index_by_end: np.ndarray, end_indices_by_link: np.ndarray) -> UnorderedPairs:
    """The pairs of regions, from each parcel's region (parcels,) and each edge's parcels (edges, 2).

    Or the pairs of systems, from each region's system (regions + 1,) and each pair's regions (pairs of regions, 2).
    """
    place_indices_by_link = np.sort(place_index_by_end[end_indices_by_link], axis=1)  # (links, 2)
    place_indices_by_pair, pair_index_by_link = np.unique(place_indices_by_link, axis=0, return_inverse=True)
    return UnorderedPairs(pair_index_by_link.ravel(), place_indices_by_pair)


def average_edges_by_pair(
    connectomes: Connectomes, record_indices: np.ndarray, pair_index_or_count_by_edge: np.ndarray, pair_count: int
) -> np.ndarray:
    """The mean Fisher z of the known edges of each of `pair_count` pairs, (records, pairs); NaN where none is known.
    `pair_index_or_count_by_edge` (edges,) int is the pair of each edge, `pair_count` if it is in none."""
    paired_edge_indices = np.flatnonzero(pair_index_or_count_by_edge < pair_count)
    # 1 where an edge is in a pair, (edges, pairs)
    edge_pair_matrix = sparse.csr_array(
        (np.ones(len(paired_edge_indices)), (paired_edge_indices, pair_index_or_count_by_edge[paired_edge_indices])),
        (len(pair_index_or_count_by_edge), pair_count),
    )
    mean_edge_blocks = [np.empty((0, pair_count))]
    for block_record_indices in split_into_batches(record_indices, RECORDS_PER_READ):
        edge_fisher_z = connectomes[block_record_indices]  # (records, edges)
        measured_edge_counts = np.asarray(~np.isnan(edge_fisher_z) @ edge_pair_matrix)  # (records, pairs)
        edge_sums = np.asarray(np.nan_to_num(edge_fisher_z) @ edge_pair_matrix)
        unmeasured_means = np.full(measured_edge_counts.shape, np.nan)
        mean_edges = np.divide(edge_sums, measured_edge_counts, out=unmeasured_means, where=measured_edge_counts > 0)
        mean_edge_blocks.append(mean_edges)
    return np.concatenate(mean_edge_blocks)


def format_pair_name(first_name: str, second_name: str) -> str:
    """The name of a pair, the same in either order."""
    return f"within {first_name}" if first_name == second_name else " and ".join(sorted((first_name, second_name)))


def measure_connections(setup: BlackoutSetup) -> Measurements:
    """How far the log odds fall if the edges between two regions become the mean of all possible donors."""
    donors = setup.donors
    region_edges = setup.region_edges
    if region_edges is None or setup.edge_logits is None:
        return Measurements()
    region_pairs = find_unordered_pairs(
        region_edges.region_index_by_parcel, region_edges.connectomes.parcel_index_pairs
    )
    pair_index_by_edge = region_pairs.pair_index_by_link
    edge_count = len(pair_index_by_edge)
    # 1 where an edge is in a pair, (edges, pairs)
    edge_pair_matrix = sparse.csr_array((np.ones(edge_count), (np.arange(edge_count), pair_index_by_edge)))
    pair_log_odds_contributions = np.concatenate(
        [
            setup.edge_logits.compute_edge_contributions(edge_block) @ edge_pair_matrix
            for edge_block in region_edges.connectomes.iterate_row_blocks()
        ]
    )  # (records of the cohort, pairs)
    donor_pool_contributions = donors.compute_donor_pool_means(pair_log_odds_contributions)
    log_odds_falls_by_pair = pair_log_odds_contributions[donors.tested_record_indices] - donor_pool_contributions
    return Measurements(
        {"pair_reliance": setup.class_signs * log_odds_falls_by_pair},
        partial(make_connection_checks, setup, setup.edge_logits, pair_index_by_edge, log_odds_falls_by_pair),
    )


def make_connection_checks(
    setup: BlackoutSetup,
    edge_logits: "EdgeLogits",
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
    )  # (records of the cohort, edges of the pair)
    replaced_edges = record_batch[CONNECTOME_INPUT].copy()
    replaced_edges[:, pair_edge_indices] = setup.donors.compute_donor_pool_means(imputed_edges)[tested_position]
    intact_log_odds = setup.ready_network.compute_log_odds(record_batch)[0]
    yield RecomputationCheck(
        record_batch | {CONNECTOME_INPUT: replaced_edges},
        float(intact_log_odds - log_odds_falls_by_pair[tested_position, pair_index]),
    )


def make_connection_family(blackout: Blackout) -> FeatureFamily | None:
    """Pairs of systems and, within the significant ones, of regions; None if no edges were replaced."""
    if "pair_reliance" not in blackout.record_effects:
        return None
    atlas = blackout.atlas
    connectomes = require_connectomes(blackout.cohort)
    region_systems = options.get_blackout_options(blackout.run).load_systems(blackout.cohort.region_grid)
    region_names = [atlas.name_by_region[region_number] for region_number in atlas.region_numbers]
    region_index_by_parcel = find_parcel_region_indices(connectomes, atlas)
    region_pair_effects = blackout.average_subject_records("pair_reliance")
    return make_nested_connection_family(
        region_names,
        region_index_by_parcel,
        region_systems,
        region_pair_effects,
        partial(average_subject_edges, blackout, connectomes),
        blackout.people,
    )


def average_subject_edges(
    blackout: Blackout, connectomes: Connectomes, pair_index_or_count_by_edge: np.ndarray, pair_count: int
) -> np.ndarray:
    """`average_edges_by_pair` of the tested subjects, (subjects, pairs)."""
    record_index_by_file = {
        record_row.file: record_index for record_index, record_row in enumerate(blackout.cohort.rows)
    }
    record_effects = blackout.record_effects
    record_indices = np.array([record_index_by_file[record_row.file] for record_row in record_effects.record_rows])
    record_mean_edges = average_edges_by_pair(connectomes, record_indices, pair_index_or_count_by_edge, pair_count)
    return record_effects.average_subject_records(record_mean_edges)


def make_nested_connection_family(
    region_names: Sequence[str],  # in the order of the atlas
    region_index_by_parcel: np.ndarray,  # (parcels,) int
    region_systems: RegionSystems,
    region_pair_effects: np.ndarray,  # (subjects, pairs of regions)
    compute_subject_mean_edges: Callable[[np.ndarray, int], np.ndarray],
    people: BlackoutPeople,
) -> FeatureFamily:
    """The family of pairs of systems, whose inner family are the pairs of regions within the significant ones.

    `region_pair_effects` (subjects, pairs of regions) are on the logit of the true class, in the order of
    `find_unordered_pairs`. `compute_subject_mean_edges` takes `pair_index_or_count_by_edge` and `pair_count` as
    `average_edges_by_pair` does, and returns the mean edges of each subject, (subjects, pairs).
    """
    # 1. Which pairs of regions have edges, and in which pair of systems each of them lies
    parcel_indices_by_edge = np.column_stack(np.triu_indices(len(region_index_by_parcel), 1))  # (edges, 2)
    region_pairs = find_unordered_pairs(region_index_by_parcel, parcel_indices_by_edge)
    region_positions_by_pair = region_pairs.place_indices_by_pair  # (pairs of regions, 2)
    system_pairs = find_unordered_pairs(region_systems.system_index_by_region, region_positions_by_pair)
    system_pair_by_region_pair = system_pairs.pair_index_by_link  # (pairs of regions,)

    # 2. The test of all pairs of systems; the effect of one is the sum of those of its pairs of regions
    reliance_fill = FILL_BY_NAME[RELIANCE_FILL]
    system_pair_effects = sum_by_group(region_pair_effects.T, system_pair_by_region_pair).T  # (subjects, system pairs)
    system_pair_fill_effect = FillEffect(reliance_fill, system_pair_effects, people, people.adjuster)

    # 3. What the edges of both levels are correlated with: the effect of all edges together, so that correlations are
    # an activation pattern (Haufe et al. 2014)
    total_effects = region_pair_effects.sum(axis=1, keepdims=True)  # (subjects, 1)
    total_fill_effect = FillEffect(reliance_fill, total_effects, people, people.adjuster)
    total_autism_logit_effects = total_fill_effect.autism_logit_effects

    # 4. The test and the family of all pairs of regions within significant pairs of systems, if there are any
    system_names = np.array(region_systems.system_names)
    tested_pair_indices = np.flatnonzero(system_pair_fill_effect.is_significant[system_pair_by_region_pair])
    region_family = None
    if len(tested_pair_indices):
        # No p is below that of its systems
        min_family_wise_p = system_pair_fill_effect.family_wise_p[system_pair_by_region_pair[tested_pair_indices]]
        region_pair_fill_effect = FillEffect(
            reliance_fill,
            region_pair_effects[:, tested_pair_indices],
            people,
            people.adjuster,
            min_family_wise_p,
        )
        end_region_positions = sort_regions_by_system(region_positions_by_pair[tested_pair_indices], region_systems)
        tested_position_or_count_by_pair = np.full(len(region_positions_by_pair), len(tested_pair_indices))
        tested_position_or_count_by_pair[tested_pair_indices] = np.arange(len(tested_pair_indices))
        region_family = make_level_family(
            REGION_LEVEL,
            np.array([*region_names, OUTSIDE_SYSTEM])[end_region_positions],
            system_names[region_systems.system_index_by_region[end_region_positions]],
            tested_position_or_count_by_pair[region_pairs.pair_index_by_link],
            region_pair_fill_effect,
            compute_subject_mean_edges,
            total_autism_logit_effects,
        )

    # 5. The family of all pairs of systems, around it
    end_system_names_by_pair = system_names[system_pairs.place_indices_by_pair]  # (pairs of systems, 2)
    system_family = make_level_family(
        SYSTEM_LEVEL,
        end_system_names_by_pair,
        end_system_names_by_pair,
        system_pair_by_region_pair[region_pairs.pair_index_by_link],
        system_pair_fill_effect,
        compute_subject_mean_edges,
        total_autism_logit_effects,
    )
    return replace(
        system_family,
        inner_family=region_family,
        matrix_axis_columns=("a", "b"),
        footnote_by_column={"a": describe_parcel_systems(region_names, region_index_by_parcel, region_systems)},
        stored_arrays={
            "pair": region_positions_by_pair.astype(np.int32),
            "system": np.array(region_systems.system_name_by_region, object),
        },
    )


def sort_regions_by_system(region_positions_by_pair: np.ndarray, region_systems: RegionSystems) -> np.ndarray:
    """Pairs of regions (pairs, 2), each with the region of the first system first."""
    system_indices_by_pair = region_systems.system_index_by_region[region_positions_by_pair]
    end_order_by_pair = np.argsort(system_indices_by_pair, axis=1, kind="stable")  # (pairs, 2)
    return np.take_along_axis(region_positions_by_pair, end_order_by_pair, axis=1)


def make_level_family(
    level_name: str,
    end_names_by_pair: np.ndarray,  # (pairs, 2), of systems or of regions
    end_system_names_by_pair: np.ndarray,  # (pairs, 2)
    pair_index_or_count_by_edge: np.ndarray,  # (edges,) int; the count of pairs for an edge in none
    fill_effect: FillEffect,
    compute_subject_mean_edges: Callable[[np.ndarray, int], np.ndarray],
    total_autism_logit_effects: np.ndarray,  # (subjects, 1), of all edges together
) -> FeatureFamily:
    """The family of the pairs of one level: of systems, or of regions."""
    pair_count = len(end_names_by_pair)
    edge_count_by_pair = np.bincount(pair_index_or_count_by_edge, minlength=pair_count + 1)[:pair_count]
    identifying_columns = {
        "level": level_name,
        "a": end_names_by_pair[:, 0],
        "b": end_names_by_pair[:, 1],
        "system_a": end_system_names_by_pair[:, 0],
        "system_b": end_system_names_by_pair[:, 1],
        "edges": edge_count_by_pair,
    }
    pair_names = [format_pair_name(first_name, second_name) for first_name, second_name in end_names_by_pair.tolist()]
    subject_mean_edges = compute_subject_mean_edges(pair_index_or_count_by_edge, pair_count)  # (subjects, pairs)
    return FeatureFamily(
        CONNECTION_KIND,
        pair_names,
        pd.DataFrame(identifying_columns),
        [fill_effect],
        subject_mean_edges,
        np.broadcast_to(total_autism_logit_effects, subject_mean_edges.shape),
    )


def describe_parcel_systems(
    region_names: Sequence[str], region_index_by_parcel: np.ndarray, region_systems: RegionSystems
) -> str:
    """In which systems parcels lie, and what lies in none."""
    outside_parcel_count = int((region_index_by_parcel == len(region_names)).sum())
    system_count = len(region_systems.system_names) - 1  # without that outside the regions, the last
    occupied_system_indices = np.setdiff1d(
        region_systems.system_index_by_region[np.unique(region_index_by_parcel)], system_count
    )
    sentences = [f"Parcels lie in {len(occupied_system_indices)} of {system_count} systems."]
    if region_systems.is_system_per_region:
        sentences.append("Each region is a system of its own (--systems FILE tells others).")
    if len(region_systems.unplaced_region_positions):
        unplaced_region_names = [region_names[position] for position in region_systems.unplaced_region_positions]
        sentences.append(f"In no system: {join_names(unplaced_region_names)}.")
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
