"""Means of AAL regions -> people who share a scan, and pairs who may be two sessions of one person.

Only what a person has is compared. Voxels of the background do not count, and those at an edge count for little. A
region that is mostly missing takes the value to be expected from the others. Each map's means lose the profile of the
group; the directions in which people differ most (sites, smoothing, the interpolation of a re-export) are scaled down.
Then cosines are compared. Left and right regions are mirror images. Their sums and their differences are scaled apart,
so that a mirrored map has the same sums, and differences of the other sign.

Measured on the reduced grid, on 737 people of ABIDE I (271,216 pairs) whose maps are means of 200 parcels. Different
people reach 0.52 by fALFF, 0.69 by ALFF, 0.58 by degree centrality, 0.46 by the three together, 0.25 by fifteen maps.
Two people of ABIDE, 50578 and 50602, share a scan, which their time series confirm (r = 0.94): 0.90, 0.77, 0.78, 0.81
and 0.77. By one of the other twelve maps alone, they are not always found. Which copies are found stands in
`docs/reference/evidence.md`. Tails of more people than 737 are not known; that they rise as `COSINE_RISE_PER_DECADE`
says is a guess from 65, 200 and 735 of these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from data.base.listing import join_group_names
from data.cohorts.groups import SubjectGroups
from data.images import atlas, brain, grids, resampling

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MirrorHalves = tuple[np.ndarray, np.ndarray]  # of values: what mirroring leaves, and what it changes the sign of

SAME_SCAN_COSINE = 0.4
SINGLE_MAP_COSINE_TERM = 0.36  # two people of m maps share a scan if the mean cosine is above 0.4 + 0.36 / m
MEASURED_PAIR_COUNT = 2.7e5
COSINE_RISE_PER_DECADE = (
    0.02  # the largest cosine of different people rises by so much for ten times as many pairs as these
)
SAME_PERSON_COSINE_MARGIN = 0.05  # below the cosine of a shared scan: possibly one person
SINGLE_MAP_COSINE = 0.92  # the cosine of a map that two people share, whatever their others are
MIN_REGION_VOXEL_SHARE = 0.3  # of a region's voxels; a person who has less lacks it
MIN_RIDGE = 0.03  # of the mean variance; a cohort of few people, whose directions are uncertain, takes more
VARIANCE_FLOOR = 1e-6  # of a region mean, in units of a map's length; between people it is 100 times as much
PROFILE_ROUNDS = 2  # of `subtract_profile`
FILLING_ROUNDS = 10  # of missing regions in `embed_people`
PAIRED_REGION_COUNT = 108  # AAL's regions 1, 3, ... lie left, 2, 4, ... right; those behind lie in the middle
PEOPLE_PER_BLOCK = 512  # people compared with as many at a time
MAX_LISTED_PAIRS = 1000  # of people who may be one person
# one in so many directions in which people differ, the weakest ones, is left out, to save time
WEAKEST_DIRECTIONS_DIVISOR = 8
ROOT_HALF = np.float32(math.sqrt(0.5))


@dataclass(frozen=True)
class NearDuplicates:
    """Groups of subjects who share a scan, and pairs who may be one person, the most alike first."""

    same_scan_groups: SubjectGroups = ()
    same_person_pairs: SubjectGroups = ()
    compared_by: str = "region means"

    def make_same_person_warnings(self) -> list[str]:
        """Possible second sessions, for the researcher to judge."""
        if not self.same_person_pairs:
            return []
        pairs_text = join_group_names(self.same_person_pairs)
        return [f"possibly two sessions of one participant, by {self.compared_by}: {pairs_text}"]


@cache
def make_region_weight_matrix() -> "csr_array":
    """The share that each voxel of the reduced grid has of a region, (regions, voxels) float32. The right regions are
    mirror images of the left ones, so that a mirrored map has the same means on the other side."""
    from scipy.sparse import csr_array

    aal_labels = atlas.load_atlas(None, grids.REDUCED).full_region_labels.astype(np.intp)  # (x, y, z), x to the right
    middle_x = len(aal_labels) // 2

    # Sided regions take the left one's odd number; those in the middle plane are in none
    is_in_sided_region = (aal_labels > 0) & (aal_labels <= PAIRED_REGION_COUNT)
    voxel_region_labels = np.where(is_in_sided_region, aal_labels - 1 + aal_labels % 2, aal_labels)
    voxel_region_labels[middle_x] = np.where(is_in_sided_region[middle_x], 0, voxel_region_labels[middle_x])

    # The right side becomes the mirror image of the left one, with even numbers
    mirrored_labels = voxel_region_labels[middle_x - 1 :: -1]
    is_mirrored_sided = (mirrored_labels > 0) & (mirrored_labels <= PAIRED_REGION_COUNT)
    voxel_region_labels[middle_x + 1 :] = mirrored_labels + is_mirrored_sided

    block_indices = np.ix_(*map(resampling.find_axis_block_indices, grids.FULL.shape))
    reduced_voxel_indices = np.ravel_multi_index(block_indices, grids.REDUCED.shape)[voxel_region_labels > 0]
    region_indices = voxel_region_labels[voxel_region_labels > 0] - 1
    voxel_weights = (1 / np.bincount(region_indices)[region_indices]).astype(np.float32)
    return csr_array(
        (voxel_weights, (region_indices, reduced_voxel_indices)),
        (atlas.AAL_REGION_COUNT, math.prod(grids.REDUCED.shape)),
    )


def average_volume_regions(volume: np.ndarray) -> np.ndarray:
    """Region means of a volume (x, y, z, maps) on either grid, (regions, maps), see `average_reduced_regions`."""
    map_volumes = np.moveaxis(volume, -1, 0)
    return np.column_stack(
        [average_reduced_regions(resampling.reduce_volume(map_volume)) for map_volume in map_volumes]
    )


def average_reduced_regions(map_volume: np.ndarray) -> np.ndarray:
    """Region means of a map (31, 37, 31) above its background, (regions,) float32; NaN in a region that it lacks. A
    voxel weighs as the square of its own value, so that those at an edge, which are partly brain, count for little."""
    brain_mask = brain.find_brain_mask(map_volume)
    above_background = np.where(brain_mask, map_volume - brain.find_background_value(map_volume), 0).ravel()
    weighted_sums, weight_sums, region_voxel_fractions = (
        make_region_weight_matrix() @ np.column_stack([above_background**3, above_background**2, brain_mask.ravel()])
    ).T
    has_region = (region_voxel_fractions >= MIN_REGION_VOXEL_SHARE) & (weight_sums > 0)
    return np.divide(weighted_sums, weight_sums, out=np.full_like(weighted_sums, np.nan, np.float32), where=has_region)


def compute_cosine_thresholds(people_count: int, map_count: int) -> tuple[float, float]:
    """The mean cosines above which two of so many people share a scan, and may be one person."""
    pair_count = people_count * (people_count - 1) / 2
    same_scan_cosine = (
        SAME_SCAN_COSINE
        + SINGLE_MAP_COSINE_TERM / map_count
        + COSINE_RISE_PER_DECADE * max(0, np.log10(pair_count / MEASURED_PAIR_COUNT))
    )
    return same_scan_cosine, same_scan_cosine - SAME_PERSON_COSINE_MARGIN


def find_near_duplicates(subjects: Sequence[str], region_means: np.ndarray) -> NearDuplicates:
    """The near duplicates among subjects with these region means (subjects, regions, maps). Three maps of 50,000 people
    take 15 s of processor time, and 0.4 GB."""
    people_count = len(subjects)
    map_count = region_means.shape[-1]
    if people_count < 2:
        return NearDuplicates()
    halves_by_map = [embed_people(map_means) for map_means in np.moveaxis(region_means, -1, 0)]
    same_scan_cosine, same_person_cosine = compute_cosine_thresholds(people_count, map_count)

    # Who shares a scan is joined into groups; of other pairs who may be one person, the most alike are listed
    first_member_by_person = np.arange(people_count)
    listed_index_pairs = np.empty((0, 2), int)
    listed_mean_cosines = np.empty(0)
    for row_start in range(0, people_count, PEOPLE_PER_BLOCK):
        for column_start in range(0, row_start + 1, PEOPLE_PER_BLOCK):
            index_pairs, mean_cosines, max_cosines = find_near_pairs(
                halves_by_map, row_start, column_start, same_person_cosine
            )
            is_same_scan = (mean_cosines > same_scan_cosine) | (max_cosines > SINGLE_MAP_COSINE)
            if is_same_scan.any():
                first_member_by_person = join_pairs_into_groups(first_member_by_person, index_pairs[is_same_scan])

            listed_index_pairs = np.concatenate([listed_index_pairs, index_pairs[~is_same_scan]])
            listed_mean_cosines = np.concatenate([listed_mean_cosines, mean_cosines[~is_same_scan]])
            most_alike_indices = np.argsort(-listed_mean_cosines, kind="stable")[:MAX_LISTED_PAIRS]
            listed_index_pairs = listed_index_pairs[most_alike_indices]
            listed_mean_cosines = listed_mean_cosines[most_alike_indices]

    # A listed pair may have been joined into one group by way of others
    same_person_pairs = [
        (subjects[earlier_index], subjects[later_index])
        for earlier_index, later_index in listed_index_pairs.tolist()
        if first_member_by_person[earlier_index] != first_member_by_person[later_index]
    ]
    return NearDuplicates(name_group_members(subjects, first_member_by_person), tuple(same_person_pairs))


def find_near_pairs(
    halves_by_map: Sequence[MirrorHalves], row_start: int, column_start: int, same_person_cosine: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs who are near by the mean of all maps, or by one map, of two blocks of people, which start at `row_start`
    and `column_start`: their indices (pairs, 2), the earlier person first, and the mean and the highest cosine of their
    maps, (pairs,) float64 each. A block with itself has each pair once."""
    row_people = slice(row_start, row_start + PEOPLE_PER_BLOCK)
    column_people = slice(column_start, column_start + PEOPLE_PER_BLOCK)
    cosine_sums, max_cosines = compare_people_blocks(halves_by_map, row_people, column_people)
    map_count = len(halves_by_map)
    is_near = (cosine_sums > same_person_cosine * map_count) | (max_cosines > SINGLE_MAP_COSINE)

    row_indices, column_indices = np.nonzero(is_near)
    index_pairs = np.column_stack([column_start + column_indices, row_start + row_indices])
    is_earlier_first = index_pairs[:, 0] < index_pairs[:, 1]
    mean_cosines = (cosine_sums[is_near] / map_count).astype(np.float64)
    max_pair_cosines = max_cosines[is_near].astype(np.float64)
    return index_pairs[is_earlier_first], mean_cosines[is_earlier_first], max_pair_cosines[is_earlier_first]


def compare_people_blocks(
    halves_by_map: Sequence[MirrorHalves], row_people: slice, column_people: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines between each person of `row_people` and each of `column_people`, (rows, columns) float32: summed over all
    maps, and the highest of any map. A mirrored map counts as equal."""
    cosine_sums = np.zeros((), np.float32)
    max_cosines = np.full((), -np.inf, np.float32)
    for symmetric_half, sided_half in halves_by_map:
        symmetric_cosines = symmetric_half[row_people] @ symmetric_half[column_people].T
        sided_cosines = sided_half[row_people] @ sided_half[column_people].T
        map_cosines = symmetric_cosines + np.abs(sided_cosines)  # mirroring changes the sign of the sided half
        cosine_sums = cosine_sums + map_cosines
        max_cosines = np.maximum(max_cosines, map_cosines)
    return cosine_sums, max_cosines


def join_pairs_into_groups(first_member_by_person: np.ndarray, new_index_pairs: np.ndarray) -> np.ndarray:
    """The first member of each one's group (n,), after the groups of further pairs (pairs, 2) are joined."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # People are the nodes of a graph, linked by the new pairs, and each with the first member of the group
    people_count = len(first_member_by_person)
    group_links = np.stack([np.arange(people_count), first_member_by_person])
    all_links = np.concatenate([new_index_pairs.T, group_links], axis=1)  # (2, links), person indices
    graph = coo_array((np.ones(all_links.shape[1]), all_links), (people_count, people_count))

    _, group_numbers = connected_components(graph, directed=False)
    _, first_members = np.unique(group_numbers, return_index=True)  # (groups,)
    return first_members[group_numbers]


def name_group_members(subjects: Sequence[str], first_member_by_person: np.ndarray) -> SubjectGroups:
    """The groups of two or more subjects, by the first member of each one's group (n,)."""
    groups = []
    for first_member in np.flatnonzero(np.bincount(first_member_by_person) > 1):
        member_indices = np.flatnonzero(first_member_by_person == first_member)
        groups.append(tuple(subjects[person_index] for person_index in member_indices.tolist()))
    return tuple(groups)


def embed_people(map_means: np.ndarray) -> MirrorHalves:
    """Region means of a map (subjects, regions), NaN where one lacks a region -> points of length 1, in two parts. Both
    are (subjects, values) float32. Mirroring leaves the first as it is, and changes the sign of the second."""
    deviations, has_region = subtract_profile(map_means)
    half_bases = [find_principal_directions(half) for half in split_mirror_halves(deviations)]

    # Missing regions move towards what is to be expected, given the regions that one has
    incomplete_person_indices = np.flatnonzero(~has_region.all(1))
    for _ in range(FILLING_ROUNDS if incomplete_person_indices.size else 0):
        incomplete_deviations = deviations[incomplete_person_indices]
        expected_halves = []
        for half, half_basis in zip(split_mirror_halves(incomplete_deviations), half_bases, strict=True):
            direction_axes, direction_variances, ridged_variances = half_basis
            shrunk_points = half @ direction_axes * (direction_variances / ridged_variances)
            expected_halves.append(shrunk_points @ direction_axes.T)
        deviations[incomplete_person_indices] = np.where(
            has_region[incomplete_person_indices], incomplete_deviations, merge_mirror_halves(*expected_halves)
        )

    # Directions in which people differ most are scaled down
    scaled_halves = []
    for half, half_basis in zip(split_mirror_halves(deviations), half_bases, strict=True):
        direction_axes, _, ridged_variances = half_basis
        scaled_halves.append(half @ (direction_axes / np.sqrt(ridged_variances)))
    symmetric_points, sided_points = scaled_halves
    constant_values = np.ones(len(map_means), np.float32)  # so that a cohort of copies is alike
    symmetric_points = np.column_stack([symmetric_points, constant_values])

    symmetric_lengths = np.linalg.norm(symmetric_points, axis=1, keepdims=True)
    sided_lengths = np.linalg.norm(sided_points, axis=1, keepdims=True)
    point_lengths = np.hypot(symmetric_lengths, sided_lengths)
    return symmetric_points / point_lengths, sided_points / point_lengths


def subtract_profile(map_means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How people differ from the mean profile of all, (subjects, regions) float32, 0 where one lacks a region; which
    regions each has. Each person takes the mean and the spread of the profile over the same regions."""
    has_region = np.isfinite(map_means)
    scaled_means = centre_people(np.where(has_region, map_means, 0).astype(np.float32), has_region)
    scaled_means /= compute_row_lengths(scaled_means)
    people_counts = np.maximum(has_region.sum(0, dtype=np.float32), 1)  # (regions,)
    all_regions = np.ones((1, has_region.shape[1]), bool)
    for _ in range(PROFILE_ROUNDS):
        symmetric_half, sided_half = split_mirror_halves(scaled_means.sum(0, keepdims=True) / people_counts)
        mean_profile = centre_people(merge_mirror_halves(symmetric_half, 0 * sided_half), all_regions)
        profile_by_person = centre_people(np.where(has_region, mean_profile, 0), has_region)
        scaled_means *= (
            compute_row_lengths(profile_by_person)
            / compute_row_lengths(scaled_means)
            / compute_row_lengths(mean_profile)
        )
    return scaled_means - profile_by_person, has_region


def centre_people(region_values: np.ndarray, has_region: np.ndarray) -> np.ndarray:
    """Values (subjects, regions), 0 where not known, without the mean of those that each has."""
    region_counts = np.maximum(has_region.sum(1, keepdims=True, dtype=np.float32), 1)
    return np.where(has_region, region_values - region_values.sum(1, keepdims=True) / region_counts, 0)


def compute_row_lengths(vectors: np.ndarray) -> np.ndarray:
    """The length of each row, (rows, 1) float32, above 0."""
    return np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def split_mirror_halves(region_values: np.ndarray) -> MirrorHalves:
    """Values of regions (subjects, regions) -> what left and right have in common, and how they differ."""
    left_values = region_values[:, :PAIRED_REGION_COUNT:2]
    right_values = region_values[:, 1:PAIRED_REGION_COUNT:2]
    middle_values = region_values[:, PAIRED_REGION_COUNT:]
    symmetric_half = np.column_stack([(left_values + right_values) * ROOT_HALF, middle_values])
    sided_half = (left_values - right_values) * ROOT_HALF
    return symmetric_half, sided_half


def merge_mirror_halves(symmetric_half: np.ndarray, sided_half: np.ndarray) -> np.ndarray:
    """The values of regions that `split_mirror_halves` takes apart."""
    region_values = np.empty((len(sided_half), symmetric_half.shape[1] + sided_half.shape[1]), np.float32)
    region_pair_count = sided_half.shape[1]
    region_values[:, :PAIRED_REGION_COUNT:2] = (symmetric_half[:, :region_pair_count] + sided_half) * ROOT_HALF
    region_values[:, 1:PAIRED_REGION_COUNT:2] = (symmetric_half[:, :region_pair_count] - sided_half) * ROOT_HALF
    region_values[:, PAIRED_REGION_COUNT:] = symmetric_half[:, region_pair_count:]
    return region_values


def find_principal_directions(deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The directions in which people (subjects, values) differ, as columns; the variance of each; and this variance
    with a ridge."""
    variances, axes = np.linalg.eigh(deviations.T @ deviations / np.float32(len(deviations)))
    variances = np.maximum(variances, 0)
    ridge_variance = max(MIN_RIDGE, deviations.shape[1] / len(deviations)) * variances.mean()
    strong_directions = slice(len(axes) // WEAKEST_DIRECTIONS_DIVISOR, None)
    strong_variances = variances[strong_directions]
    return axes[:, strong_directions], strong_variances, strong_variances + ridge_variance + VARIANCE_FLOOR
