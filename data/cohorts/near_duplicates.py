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
`docs/reference/evidence.md`. Tails of more people than 737 are not known; that they rise as `RISE` says is a guess from
65, 200 and 735 of these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from data.cohorts import atlas, records, resampling
from data.cohorts.duplicates import Groups
from data.cohorts.rows import named_groups

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Halves = tuple[np.ndarray, np.ndarray]  # of values: what mirroring leaves, and what it changes the sign of

SAME_SCAN, OF_ONE_MAP = 0.4, 0.36  # two people of m maps share a scan if the mean cosine is above 0.4 + 0.36 / m
MEASURED_PAIRS, RISE = 2.7e5, 0.02  # of the largest cosine of different people, for ten times as many pairs as these
NEAR = 0.05  # below SAME_SCAN: possibly one person
ONE_MAP = 0.92  # the cosine of a map that two people share, whatever their others are
LEAST_OF_REGION = 0.3  # of a region's voxels; a person who has less lacks it
LEAST_RIDGE = 0.03  # of the mean variance; a cohort of few people, whose directions are uncertain, takes more
NO_VARIANCE = 1e-6  # of a region mean, in units of a map's length; between people it is 100 times as much
PROFILES, FILLINGS = 2, 10  # rounds of two iterations
PAIRED = 108  # AAL's regions 1, 3, ... lie left, 2, 4, ... right; those behind lie in the middle
BLOCK = 512  # people compared with as many at a time
MOST_LISTED = 1000  # pairs
WEAKEST = 8  # the last of so many parts of the directions in which people differ is left out, to save time
ROOT_HALF = np.float32(math.sqrt(0.5))


@dataclass(frozen=True)
class NearDuplicates:
    """Groups of subjects who share a scan, and pairs who may be one person, the most alike first."""

    same_scan: Groups = ()
    same_person: Groups = ()

    def notes(self) -> list[str]:
        """Possible second sessions, for the researcher to judge."""
        if not self.same_person:
            return []
        return [f"possibly two sessions of one participant, by region means: {named_groups(self.same_person)}"]


@cache
def members() -> "csr_array":
    """The share that each voxel of the reduced grid has of a region, (regions, voxels) float32. The right ones are
    mirror images of the left ones, so that a mirrored map has the same means on the other side."""
    from scipy.sparse import csr_array

    labels = atlas.load_atlas(None, records.REDUCED).full.astype(np.intp)  # (x, y, z), x from left to right
    sided, middle = (labels > 0) & (labels <= PAIRED), len(labels) // 2
    labels = np.where(sided, labels - 1 + labels % 2, labels)  # all of the left
    labels[middle] = np.where(sided[middle], 0, labels[middle])
    mirrored = labels[middle - 1 :: -1]
    labels[middle + 1 :] = mirrored + ((mirrored > 0) & (mirrored <= PAIRED))
    block = np.ix_(*map(resampling.block_of, records.FULL.shape))
    voxel = np.ravel_multi_index(block, records.REDUCED.shape)[labels > 0]
    region = labels[labels > 0] - 1
    shares = (1 / np.bincount(region)[region]).astype(np.float32)
    return csr_array((shares, (region, voxel)), (atlas.AAL_REGIONS, math.prod(records.REDUCED.shape)))


def of_volume(volume: np.ndarray) -> np.ndarray:
    """Region means of a volume (x, y, z, maps) on either grid, (regions, maps), see `of_reduced`."""
    maps = np.moveaxis(volume, -1, 0)
    return np.column_stack([of_reduced(resampling.reduced(of_map)) for of_map in maps])


def of_reduced(volume: np.ndarray) -> np.ndarray:
    """Region means of a map (31, 37, 31) above its background, (regions,) float32; NaN in a region that it lacks. A
    voxel weighs as the square of its own value, so that those at an edge, which are partly brain, count for little."""
    brain = records.brain_of(volume)
    above = np.where(brain, volume - records.background(volume), 0).ravel()
    sums, weights, share = (members() @ np.column_stack([above**3, above**2, brain.ravel()])).T
    known = (share >= LEAST_OF_REGION) & (weights > 0)
    return np.divide(sums, weights, out=np.full_like(sums, np.nan, np.float32), where=known)


def thresholds(people: int, maps: int) -> tuple[float, float]:
    """The mean cosines above which two of so many people share a scan, and may be one person."""
    pairs = people * (people - 1) / 2
    same = SAME_SCAN + OF_ONE_MAP / maps + RISE * max(0, np.log10(pairs / MEASURED_PAIRS))
    return same, same - NEAR


def alike(subjects: Sequence[str], means: np.ndarray) -> NearDuplicates:
    """The near_duplicates among subjects with these region means (subjects, regions, maps). Three maps of 50,000 people
    take 15 s
    of processor time, and 0.4 GB."""
    count, maps = len(subjects), means.shape[-1]
    if count < 2:
        return NearDuplicates()
    points = [embedded(of_map) for of_map in np.moveaxis(means, -1, 0)]
    same_scan, same_person = thresholds(count, maps)
    leader, close = np.arange(count), np.empty((0, 3))
    for start in range(0, count, BLOCK):
        for other in range(0, start + 1, BLOCK):
            total, highest = compared(points, slice(start, start + BLOCK), slice(other, other + BLOCK))
            near = np.flatnonzero((total > same_person * maps) | (highest > ONE_MAP))
            if not near.size:
                continue
            one, two = divmod(near, total.shape[1])
            pairs = np.column_stack([other + two, start + one, total.ravel()[near] / maps, highest.ravel()[near]])
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            same = (pairs[:, 2] > same_scan) | (pairs[:, 3] > ONE_MAP)
            leader = joined(leader, pairs[same, :2].astype(int)) if same.any() else leader
            close = np.concatenate([close, pairs[~same, :3]])
            close = close[np.argsort(-close[:, 2], kind="stable")[:MOST_LISTED]]
    groups = [np.flatnonzero(leader == first) for first in np.flatnonzero(np.bincount(leader) > 1)]
    apart = [pair for pair in close[:, :2].astype(int) if np.ptp(leader[pair])]
    return NearDuplicates(
        *(tuple(tuple(subjects[int(at)] for at in found) for found in places) for places in (groups, apart))
    )


def compared(points: Sequence[Halves], these: slice, those: slice) -> tuple[np.ndarray, np.ndarray]:
    """The cosines of these people with those, (these, those) float32: their sum over all maps, the highest of a map."""
    of_maps = list[np.ndarray]()
    for symmetric, sided in points:
        cosines = sided[these] @ sided[those].T
        np.abs(cosines, out=cosines)  # one of both may be mirrored
        cosines += symmetric[these] @ symmetric[those].T
        of_maps.append(cosines)
    total, highest = of_maps[0].copy(), of_maps[0]
    for cosines in of_maps[1:]:
        total += cosines
        np.maximum(highest, cosines, out=highest)
    return total, highest


def joined(leader: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The first member of each one's group (n,), after the groups of further pairs (pairs, 2) are joined."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate([pairs.T, [np.arange(len(leader)), leader]], axis=1)
    _, group = connected_components(coo_array((np.ones(ends.shape[1]), ends), 2 * leader.shape), directed=False)
    return np.unique(group, return_index=True)[1][group]


def embedded(means: np.ndarray) -> Halves:
    """Region means of a map (subjects, regions), NaN where one lacks a region -> points of length 1, in two parts. Both
    are (subjects, values) float32. Mirroring leaves the first as it is, and changes the sign of the second."""
    deviations, known = from_profile(means)
    bases = [directions(half) for half in parted(deviations)]
    lacking = np.flatnonzero(~known.all(1))
    for _ in range(FILLINGS if lacking.size else 0):  # towards what is to be expected, given the regions that one has
        halves = zip(parted(deviations[lacking]), bases, strict=True)
        expected = united(*((half @ axes * (variance / ridged)) @ axes.T for half, (axes, variance, ridged) in halves))
        deviations[lacking] = np.where(known[lacking], deviations[lacking], expected)
    halves = zip(parted(deviations), bases, strict=True)
    symmetric, sided = (half @ (axes / np.sqrt(ridged)) for half, (axes, _, ridged) in halves)
    symmetric = np.column_stack([symmetric, np.ones(len(means), np.float32)])  # so that a cohort of copies is alike
    length = np.hypot(*(np.linalg.norm(half, axis=1, keepdims=True) for half in (symmetric, sided)))
    return symmetric / length, sided / length


def from_profile(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How people differ from the mean profile of all, (subjects, regions) float32, 0 where one lacks a region; which
    regions each has. Each person takes the mean and the spread of the profile over the same regions."""
    known = np.isfinite(means)
    own = centred(np.where(known, means, 0).astype(np.float32), known)
    own /= lengths(own)
    for _ in range(PROFILES):
        symmetric, sided = parted(own.sum(0, keepdims=True) / np.maximum(known.sum(0, dtype=np.float32), 1))
        profile = centred(united(symmetric, 0 * sided), np.ones((1, known.shape[1]), bool))
        expected = centred(np.where(known, profile, 0), known)
        own *= lengths(expected) / lengths(own) / lengths(profile)
    return own - expected, known


def centred(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values (subjects, regions), 0 where not known, without the mean of those that each has."""
    counts = np.maximum(known.sum(1, keepdims=True, dtype=np.float32), 1)
    return np.where(known, values - values.sum(1, keepdims=True) / counts, 0)


def lengths(values: np.ndarray) -> np.ndarray:
    """The length of each row, (rows, 1) float32, above 0."""
    return np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def parted(values: np.ndarray) -> Halves:
    """Values of regions (subjects, regions) -> what left and right have in common, and how they differ."""
    left, right, middle = values[:, :PAIRED:2], values[:, 1:PAIRED:2], values[:, PAIRED:]
    return np.column_stack([(left + right) * ROOT_HALF, middle]), (left - right) * ROOT_HALF


def united(symmetric: np.ndarray, sided: np.ndarray) -> np.ndarray:
    """The values of regions that `parted` takes apart."""
    values, pairs = np.empty((len(sided), symmetric.shape[1] + sided.shape[1]), np.float32), sided.shape[1]
    values[:, :PAIRED:2] = (symmetric[:, :pairs] + sided) * ROOT_HALF
    values[:, 1:PAIRED:2] = (symmetric[:, :pairs] - sided) * ROOT_HALF
    values[:, PAIRED:] = symmetric[:, pairs:]
    return values


def directions(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The directions in which people (subjects, values) differ, as columns, the variance of each, and with a ridge."""
    variance, axes = np.linalg.eigh(values.T @ values / np.float32(len(values)))
    variance = np.maximum(variance, 0)
    ridge = max(LEAST_RIDGE, values.shape[1] / len(values)) * variance.mean()
    told = slice(len(axes) // WEAKEST, None)
    return axes[:, told], variance[told], variance[told] + ridge + NO_VARIANCE
