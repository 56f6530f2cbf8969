"""Connectomes -> people who share a scan, and pairs who may be two sessions of one person; for cohorts without maps.

Two numbers compare each two people. One is the cosine of how both differ from the mean connectome of the group; the
directions in which people differ most (sites, processing, motion) are scaled down, as in `near_duplicates`. It finds a
scan that was processed again, or has a little noise in all edges. The other is the share of edges that both have in
common: the mean, over edges, of cos(3 d), where d is their difference in standard deviations between people. That is 1
of an equal edge, and 0 on average of different people. It finds a copy half of whose edges are anything else.

Measured on 737 people of ABIDE I (200 parcels). Apart from 50578 and 50602, who share a scan (0.80 and 0.18),
different people reach a cosine of 0.21 and a share of 0.13. None of 315 random sets, of 20 to 736 of them and of 12 to
200 parcels, had a false group. Copies half of whose edges were noise were all found with 20 parcels or more, all but
about a tenth with 12.
"""

from collections.abc import Sequence

import numpy as np

from data.cohorts.near_duplicates import (
    COSINE_RISE_PER_DECADE,
    MAX_LISTED_PAIRS,
    MEASURED_PAIR_COUNT,
    PEOPLE_PER_BLOCK,
    SAME_PERSON_COSINE_MARGIN,
    NearDuplicates,
    centre_people,
    compute_row_lengths,
    find_principal_directions,
    join_pairs_into_groups,
    name_group_members,
)

MAX_COMPARED_EDGES = 1000  # drawn at random
SAME_SCAN_COSINE = 0.2
SAME_SCAN_SHARE = 0.25
# what few edges add to both by chance, divided by the root of their number
COSINE_CHANCE_TERM = 4.5
SHARE_CHANCE_TERM = 1.4
SHARE_FREQUENCY = 3.0  # per standard deviation: an edge that differs by a quarter of one counts three quarters
MIN_EDGE_SD = 0.03  # Fisher z; between people it is 0.2, but copies of one scan do not differ


def draw_edge_indices(edge_count: int) -> np.ndarray:
    """The positions of the edges by which people are compared, (edges,) int, MAX_COMPARED_EDGES at most."""
    return np.random.default_rng(0).permutation(edge_count)[:MAX_COMPARED_EDGES]


def find_near_connectomes(subjects: Sequence[str], edge_fisher_z: np.ndarray) -> NearDuplicates:
    """The near duplicates among subjects with these Fisher z values (subjects, edges), NaN where unknown, of the edges
    that `draw_edge_indices` drew."""
    people_count, edge_count = edge_fisher_z.shape
    if people_count < 2:
        return NearDuplicates()
    points = embed_connectomes(edge_fisher_z)
    waves = make_edge_waves(edge_fisher_z)
    pair_count = people_count * (people_count - 1) / 2
    cosine_rise = COSINE_RISE_PER_DECADE * max(0, np.log10(pair_count / MEASURED_PAIR_COUNT))
    same_scan_cosine = SAME_SCAN_COSINE + COSINE_CHANCE_TERM / np.sqrt(edge_count) + cosine_rise
    same_scan_share = SAME_SCAN_SHARE + SHARE_CHANCE_TERM / np.sqrt(edge_count) + cosine_rise

    # Who shares a scan is joined into groups; of other pairs who may be one person, the most alike are listed
    first_member_by_person = np.arange(people_count)
    cosine_by_listed_pair = dict[tuple[int, int], float]()
    for row_start in range(0, people_count, PEOPLE_PER_BLOCK):
        for column_start in range(0, row_start + 1, PEOPLE_PER_BLOCK):
            row_people = slice(row_start, row_start + PEOPLE_PER_BLOCK)
            column_people = slice(column_start, column_start + PEOPLE_PER_BLOCK)
            cosines = points[row_people] @ points[column_people].T  # (rows, columns)
            shares = waves[row_people] @ waves[column_people].T
            is_same_scan = (cosines > same_scan_cosine) | (shares > same_scan_share)
            is_listed = ~is_same_scan & (cosines > same_scan_cosine - SAME_PERSON_COSINE_MARGIN)

            row_indices, column_indices = np.nonzero(is_same_scan)
            same_scan_pairs = np.column_stack([column_start + column_indices, row_start + row_indices])
            first_member_by_person = join_pairs_into_groups(first_member_by_person, same_scan_pairs)
            for row_index, column_index in np.argwhere(is_listed).tolist():
                index_pair = (column_start + column_index, row_start + row_index)
                if index_pair[0] < index_pair[1]:  # a block with itself has each pair twice
                    cosine_by_listed_pair[index_pair] = float(cosines[row_index, column_index])

    # A listed pair may have been joined into one group by way of others
    index_pairs_most_alike_first = sorted(cosine_by_listed_pair, key=lambda pair: -cosine_by_listed_pair[pair])
    same_person_pairs = [
        (subjects[earlier_index], subjects[later_index])
        for earlier_index, later_index in index_pairs_most_alike_first[:MAX_LISTED_PAIRS]
        if first_member_by_person[earlier_index] != first_member_by_person[later_index]
    ]
    return NearDuplicates(
        name_group_members(subjects, first_member_by_person), tuple(same_person_pairs), compared_by="connectomes"
    )


def embed_connectomes(edge_fisher_z: np.ndarray) -> np.ndarray:
    """Fisher z (subjects, edges), NaN where unknown -> points of length 1, (subjects, values) float32, whose products
    are cosines."""
    is_known = np.isfinite(edge_fisher_z)
    centred_edges = centre_people(np.where(is_known, edge_fisher_z, 0).astype(np.float32), is_known)
    centred_edges /= compute_row_lengths(centred_edges)

    # each person loses as much of the mean connectome as there is in the same edges
    known_counts = np.maximum(is_known.sum(0), 1)  # (edges,)
    profile_by_person = np.where(is_known, centred_edges.sum(0) / known_counts, 0).astype(np.float32)
    profile_lengths = compute_row_lengths(profile_by_person)
    profile_gains = (centred_edges * profile_by_person).sum(1, keepdims=True) / profile_lengths**2
    deviations = centred_edges - profile_gains * profile_by_person

    direction_axes, _, ridged_variances = find_principal_directions(deviations)
    points = deviations @ (direction_axes / np.sqrt(ridged_variances))
    return points / compute_row_lengths(points)


def make_edge_waves(edge_fisher_z: np.ndarray) -> np.ndarray:
    """Fisher z (subjects, edges), NaN where unknown -> (subjects, 2 * edges) float32, whose products are the shares of
    edges that two people have in common: cos(a - b) = cos(a) cos(b) + sin(a) sin(b)."""
    is_known = np.isfinite(edge_fisher_z)
    known_counts = np.maximum(is_known.sum(0), 1)
    edge_means = np.where(is_known, edge_fisher_z, 0).sum(0) / known_counts
    deviations = np.where(is_known, edge_fisher_z - edge_means, 0)
    edge_sds = np.sqrt(np.square(deviations).sum(0) / known_counts)
    phases = SHARE_FREQUENCY * deviations / np.maximum(edge_sds, MIN_EDGE_SD)
    waves = np.concatenate([np.where(is_known, np.cos(phases), 0), np.where(is_known, np.sin(phases), 0)], axis=1)
    known_edge_counts = np.maximum(is_known.sum(1, keepdims=True), 1)  # of each person
    return (waves / np.sqrt(known_edge_counts)).astype(np.float32)
