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

LEAST_IN_COMMON = 0.4  # see above
LEAST_WITHIN = 0.1  # mean correlation within a group; that of connectomes of noise is 0.08 at most
MIN_GROUP = 3  # people; a single one who is unlike the others may have moved
MIN_PARCELS = 20  # of 12, people with and without the global signal have 0.05 in common at least
MOST_EDGES = 2000  # drawn at random: half find groups, the others judge them
MOST_PEOPLE = 2000  # drawn at random, among whom groups are looked for; the others join these


def edges_to_compare(num_edges: int) -> np.ndarray:
    """The positions of edges by which people are compared, (edges,) int: MOST_EDGES at most, in any order."""
    return np.random.default_rng(0).permutation(num_edges)[:MOST_EDGES]


def opposed_groups(edges: np.ndarray) -> list[np.ndarray]:
    """The positions of the people of each group, the largest first; nothing if all connectomes are alike. `edges`
    (people, edges) are Fisher z values, NaN where unknown, in a random order."""
    finding, judging = unit_rows(edges[:, ::2]), unit_rows(edges[:, 1::2])
    drawn = np.sort(np.random.default_rng(0).permutation(len(edges))[:MOST_PEOPLE])
    groups = [drawn[members] for members in split(finding[drawn], judging[drawn])]
    if len(groups) < 2:
        return []
    means = np.stack([finding[members].mean(0) for members in groups])
    nearest = (finding @ means.T).argmax(1)
    return sorted((np.flatnonzero(nearest == group) for group in range(len(groups))), key=len, reverse=True)


def unit_rows(edges: np.ndarray) -> np.ndarray:
    """Rows (people, edges) with mean 0 and length 1, so that products are correlations; 0 where an edge is unknown."""
    known = np.isfinite(edges)
    means = np.where(known, edges, 0).sum(1, keepdims=True) / np.maximum(known.sum(1, keepdims=True), 1)
    centred = np.where(known, edges - means, 0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def split(finding: np.ndarray, judging: np.ndarray) -> Iterator[list[int]]:
    """The positions of people of each group, without those who are unlike all others. Clusters of `unit_rows` of some
    edges (people, edges) are parted as long as those of other edges say that they have too little in common."""
    if len(finding) < 2 * MIN_GROUP:
        return
    correlation = judging @ judging.T
    distances = squareform(1 - finding @ finding.T, checks=False)
    clusters: list[ClusterNode] = [to_tree(linkage(distances, "average"))]
    while clusters:
        cluster = clusters.pop()
        smaller, larger = sorted((cluster.left, cluster.right), key=lambda side: side.count)
        if smaller.count < MIN_GROUP <= larger.count:  # those who are unlike all others are left out one by one
            clusters.append(larger)
        elif larger.count >= MIN_GROUP and are_opposed(correlation, smaller.pre_order(), larger.pre_order()):
            clusters += [smaller, larger]
        else:
            yield cluster.pre_order()


def are_opposed(correlation: np.ndarray, one: list[int], other: list[int]) -> bool:
    """Whether two groups of people, at these positions of a matrix (people, people), have too little in common."""
    between = correlation[np.ix_(one, other)].mean()
    within = [mean_within(correlation[np.ix_(members, members)]) for members in (one, other)]
    return bool(min(within) > LEAST_WITHIN and between < LEAST_IN_COMMON * np.mean(within))


def mean_within(correlation: np.ndarray) -> float:
    """The mean over pairs of different people of a matrix (people, people)."""
    count = len(correlation)
    return float((correlation.sum() - np.trace(correlation)) / (count * (count - 1)))
