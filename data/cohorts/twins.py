"""Means of AAL regions -> people who share a scan, and pairs who may be two sessions of one person.

Each map's region means are brought to length 1 and lose the group mean; then the directions in which people differ most
(sites, smoothing, the interpolation of a re-export) are scaled down, and cosines are compared, all maps together.

Measured on 737 people of ABIDE I (271,216 pairs). Different people reach 0.61 by fALFF, 0.71 by ALFF, 0.52 by degree
centrality, 0.54 by the three together. Copies with noise of up to 0.1 SD, or stored as int16, have 0.99 or more.
Scans were also exported again: on another grid, by nearest neighbour or cubic, smoothed with 4 mm, or shifted by
0.5 mm. If a third of the people are exported again, nine in ten of them have 0.84 or more. The shift of a single one
cannot be learnt: it has 0.6 to 0.9, so that some are only listed.
Two people of ABIDE, 50578 and 50602, share a scan, which their time series confirm (r = 0.94): 0.90, 0.81, 0.84 and
0.83. Two halves of a scan stand for two sessions: ALFF lists 69 % of them, fALFF 5 %. So two people who are not listed
may still be one. Tails of more people than 737 are not known.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from data.base.terminal import progress
from data.cohorts import atlas, records, resampling
from data.cohorts.cohort import Cohort
from data.cohorts.rows import Groups, named_groups

SAME_SCAN, SAME_PERSON = 0.75, 0.6  # cosines
LEAST_RIDGE = 0.03  # of the mean variance; a cohort of few people, whose directions are uncertain, takes more
NO_VARIANCE = 1e-6  # of a region mean, in units of a map's length; between people it is 100 times as much
BLOCK = 2048  # people compared with as many at a time
MOST_LISTED = 1000  # pairs


@dataclass(frozen=True)
class Twins:
    """Groups of subjects who share a scan, and pairs who may be one person, the most alike first."""

    same_scan: Groups = ()
    same_person: Groups = ()

    def notes(self) -> list[str]:
        """Possible second sessions, for the researcher to judge."""
        if not self.same_person:
            return []
        return [f"possibly two sessions of one person, by region means: {named_groups(self.same_person)}"]


@cache
def labelled() -> tuple[np.ndarray, np.ndarray]:
    """Where AAL has regions in a flattened volume on the reduced grid, and the number of the region there."""
    labels = atlas.load_atlas(None, records.REDUCED).labels.ravel()
    places = np.flatnonzero(labels)
    return places, labels[places].astype(np.intp)


def of_volume(volume: np.ndarray) -> np.ndarray:
    """Region means of a volume (x, y, z, maps) on either grid, (regions, maps)."""
    maps = np.moveaxis(volume, -1, 0)
    return np.column_stack([of_reduced(resampling.reduced(of_map)) for of_map in maps])


def of_reduced(volume: np.ndarray) -> np.ndarray:
    """Region means of a map (31, 37, 31), (regions,); 0 in a region without a voxel."""
    places, labels = labelled()
    counts = np.bincount(labels, minlength=atlas.AAL_REGIONS + 1)
    return (np.bincount(labels, volume.ravel()[places], len(counts)) / np.maximum(counts, 1))[1:]


def of_cohort(cohort: Cohort, indices: Iterable[int]) -> tuple[list[str], np.ndarray]:
    """The subjects of these records, once each, and the region means of their first one, (subjects, regions, maps)."""
    first = list({cohort.rows[index].subject: index for index in reversed(list(indices))}.values())[::-1]
    means = np.empty((len(first), atlas.AAL_REGIONS, cohort.num_maps), np.float32)
    with progress("Comparing people", len(first)) as shown:
        for at, index in enumerate(first):
            means[at] = of_volume(cohort.read(index)[2])
            shown.advance()
    return [cohort.rows[index].subject for index in first], means


def shared(known: tuple[list[str], np.ndarray], new: tuple[list[str], np.ndarray]) -> dict[str, str]:
    """New subjects -> the known one whose scan each has; of both the region means (subjects, regions, maps) are given,
    see `of_cohort`."""
    people = [*((name, False) for name in known[0]), *((name, True) for name in new[0])]
    found = alike([str(at) for at in range(len(people))], np.concatenate([known[1], new[1]]))
    groups = [[people[int(at)] for at in group] for group in found.same_scan]
    of_known = [next((name for name, is_new in group if not is_new), None) for group in groups]
    return {
        name: other for group, other in zip(groups, of_known, strict=True) if other for name, is_new in group if is_new
    }


def find_twins(cohort: Cohort) -> Twins:
    """The twins among the subjects of a cohort, whose records are read once. Raises InputError, naming the file."""
    return alike(*of_cohort(cohort, cohort.unswapped()))


def alike(subjects: Sequence[str], means: np.ndarray) -> Twins:
    """The twins among subjects with these region means (subjects, regions, maps); 50,000 people with three maps take a
    minute on two cores, and 0.5 GB."""
    count = len(subjects)
    if count < 2:
        return Twins()
    points, leader, close = embedded(means), np.arange(count), np.empty((0, 3))
    for start in range(0, count, BLOCK):
        for other in range(0, start + 1, BLOCK):
            cosines = np.tril(points[start : start + BLOCK] @ points[other : other + BLOCK].T, start - other - 1)
            one, two = np.nonzero(cosines > SAME_PERSON)
            pairs = np.column_stack([other + two, start + one, cosines[one, two]])
            same = pairs[:, 2] > SAME_SCAN
            leader = joined(leader, pairs[same, :2].astype(int)) if same.any() else leader
            close = np.concatenate([close, pairs[~same]])
            close = close[np.argsort(-close[:, 2], kind="stable")[:MOST_LISTED]]
    groups = [np.flatnonzero(leader == first) for first in np.flatnonzero(np.bincount(leader) > 1)]
    apart = [pair for pair in close[:, :2].astype(int) if np.ptp(leader[pair])]
    return Twins(*(tuple(tuple(subjects[int(at)] for at in found) for found in places) for places in (groups, apart)))


def joined(leader: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The first member of each one's group (n,), after the groups of further pairs (pairs, 2) are joined."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate([pairs.T, [np.arange(len(leader)), leader]], axis=1)
    _, group = connected_components(coo_array((np.ones(ends.shape[1]), ends), 2 * leader.shape), directed=False)
    return np.unique(group, return_index=True)[1][group]


def embedded(means: np.ndarray) -> np.ndarray:
    """Points (subjects, values) float32 of length 1, whose products are the cosines that are compared."""
    values = means - means.mean(1, keepdims=True)
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    values = values.reshape(len(means), -1).astype(np.float32)
    values -= values.mean(0)
    variance, directions = np.linalg.eigh(values.T @ values / np.float32(len(values)))
    ridge = max(LEAST_RIDGE, values.shape[1] / len(values)) * variance.mean()
    points = values @ (directions / np.sqrt(np.maximum(variance, 0) + ridge + NO_VARIANCE))
    points = np.column_stack([points, np.ones(len(points), np.float32)])  # so that a cohort of copies is alike
    return points / np.linalg.norm(points, axis=1, keepdims=True)
