"""Connectomes of people -> groups whose connectomes oppose each other, as if their parcels were those of two atlases.

Connectomes are alike between any two people, sites and ways of processing. How much two groups have in common is the
mean correlation of a person of one with a person of the other, in units of that within the groups. It was measured on
784 people of ABIDE I (200 parcels): in 171 pairs of sites, and between people with and without the global signal, a
filter, or most of their volumes, it is 0.53 at least. If the parcels of one group are in another order, it is -0.02 to
0.2; if both orders are by hemisphere and network, of 7, 10 or 17 networks, up to 0.45.
"""

from collections.abc import Iterator

import numpy as np
from scipy.cluster.hierarchy import ClusterNode, linkage, to_tree
from scipy.spatial.distance import squareform

MIN_BETWEEN_TO_WITHIN_RATIO = 0.4  # see above
MIN_WITHIN_R = 0.1  # mean correlation within a group; that of connectomes of noise is 0.08 at most
MIN_GROUP_PEOPLE = 3  # people; a single one who is unlike the others may have moved
MIN_COMPARED_PARCELS = 20  # of 12, people with and without the global signal have 0.05 in common at least
MAX_COMPARED_EDGES = 2000  # drawn at random: half find groups, the others judge them
MAX_CLUSTERED_PEOPLE = 2000  # drawn at random, among whom groups are looked for; the others join these


def draw_compared_edge_indices(edge_count: int) -> np.ndarray:
    """The positions of edges by which people are compared, (edges,) int: MAX_COMPARED_EDGES at most, in any order."""
    return np.random.default_rng(0).permutation(edge_count)[:MAX_COMPARED_EDGES]


def find_opposed_groups(edge_fisher_z: np.ndarray) -> list[np.ndarray]:
    """The positions of the people of each group, the largest first; nothing if all connectomes are alike.
    `edge_fisher_z` (people, edges) are Fisher z values, NaN where unknown, in a random order."""
    # (people, edges)
    normalised_grouping_edges = normalise_connectome_rows(edge_fisher_z[:, ::2])
    normalised_judging_edges = normalise_connectome_rows(edge_fisher_z[:, 1::2])
    drawn_person_indices = np.sort(np.random.default_rng(0).permutation(len(edge_fisher_z))[:MAX_CLUSTERED_PEOPLE])
    person_indices_per_group = [
        drawn_person_indices[member_indices]
        for member_indices in iterate_opposed_group_members(
            normalised_grouping_edges[drawn_person_indices], normalised_judging_edges[drawn_person_indices]
        )
    ]
    if len(person_indices_per_group) < 2:
        return []
    # (groups, edges)
    grouping_edge_means = np.stack(
        [normalised_grouping_edges[member_indices].mean(0) for member_indices in person_indices_per_group]
    )
    nearest_group_per_person = (normalised_grouping_edges @ grouping_edge_means.T).argmax(1)
    return sorted(
        (
            np.flatnonzero(nearest_group_per_person == group_number)
            for group_number in range(len(person_indices_per_group))
        ),
        key=len,
        reverse=True,
    )


def normalise_connectome_rows(edge_fisher_z: np.ndarray) -> np.ndarray:
    """Rows (people, edges) with mean 0 and length 1, so that products are correlations; 0 where an edge is unknown."""
    is_finite = np.isfinite(edge_fisher_z)
    # (people, 1)
    person_means = np.where(is_finite, edge_fisher_z, 0).sum(1, keepdims=True) / np.maximum(
        is_finite.sum(1, keepdims=True), 1
    )
    centred_fisher_z = np.where(is_finite, edge_fisher_z - person_means, 0)
    return centred_fisher_z / np.maximum(
        np.linalg.norm(centred_fisher_z, axis=1, keepdims=True), np.finfo(np.float32).tiny
    )


def iterate_opposed_group_members(
    normalised_grouping_edges: np.ndarray, normalised_judging_edges: np.ndarray
) -> Iterator[list[int]]:
    """The positions of people of each group, without those who are unlike all others. `normalised_grouping_edges` and
    `normalised_judging_edges` (people, edges) are `normalise_connectome_rows` of different edges: clusters by the
    first are parted as long as the second says that they have too little in common."""
    if len(normalised_grouping_edges) < 2 * MIN_GROUP_PEOPLE:
        return
    person_correlation = normalised_judging_edges @ normalised_judging_edges.T  # (people, people)
    # condensed: a value a pair of people
    person_distances = squareform(1 - normalised_grouping_edges @ normalised_grouping_edges.T, checks=False)
    cluster_nodes: list[ClusterNode] = [to_tree(linkage(person_distances, "average"))]
    while cluster_nodes:
        cluster_node = cluster_nodes.pop()
        smaller_node, larger_node = sorted(
            (cluster_node.left, cluster_node.right), key=lambda child_node: child_node.count
        )
        if (
            smaller_node.count < MIN_GROUP_PEOPLE <= larger_node.count
        ):  # those who are unlike all others are left out one by one
            cluster_nodes.append(larger_node)
        elif larger_node.count >= MIN_GROUP_PEOPLE and are_groups_opposed(
            person_correlation, smaller_node.pre_order(), larger_node.pre_order()
        ):
            cluster_nodes += [smaller_node, larger_node]
        else:
            yield cluster_node.pre_order()


def are_groups_opposed(
    person_correlation: np.ndarray, first_member_indices: list[int], second_member_indices: list[int]
) -> bool:
    """Whether two groups of people, at these positions of a matrix (people, people), have too little in common."""
    between_r = person_correlation[np.ix_(first_member_indices, second_member_indices)].mean()
    within_r_per_group = [
        mean_off_diagonal(person_correlation[np.ix_(member_indices, member_indices)])
        for member_indices in (first_member_indices, second_member_indices)
    ]
    return bool(
        min(within_r_per_group) > MIN_WITHIN_R and between_r < MIN_BETWEEN_TO_WITHIN_RATIO * np.mean(within_r_per_group)
    )


def mean_off_diagonal(group_correlation: np.ndarray) -> float:
    """The mean over pairs of different people of a matrix (people, people)."""
    person_count = len(group_correlation)
    return float((group_correlation.sum() - np.trace(group_correlation)) / (person_count * (person_count - 1)))
