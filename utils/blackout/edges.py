"""Edges of connectomes in a blackout: which belong to a region, and what takes their place.

A parcel belongs to the region that holds most of its voxels, an edge to the regions of its two parcels. With a region,
all its edges are replaced, by the same donors as its voxels (`fills.py`). As its `Contents` they are:

`background`  Unknown, for which the network takes the mean of its training people.
`donor`       Those of another person; what the donor's scan lacks is unknown.
`expected`    The level that the rest of the person predicts, plus the donor's own deviation from the level that the
              rest of the donor predicts.

Edges are Fisher z, NaN where unknown. Those of all records are never held at once.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from data.cohorts.atlas import Atlas, find_dominant_places
from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.connectomes import Connectomes
from data.cohorts.duplicates import find_group_leaders

MAX_PEOPLE = 1000  # whom expected edges are fitted on: bounds memory and time
PENALTIES = np.logspace(-2, 2, 5)  # beside features whose squares sum to about 2 in each person
ROWS = 64  # of a cohort's connectomes read at once


class Replacement(NamedTuple):
    """What a network is shown of an input of n records, (n, ...), and what is `given` to replace a part of it. That may
    broadcast, such as one value for each map (n, 1, 1, 1, maps), or be a function of the part's number. `parts` index
    the axes after the first: a mask (x, y, z), or the numbers of edges or values."""

    shown: np.ndarray
    given: np.ndarray | Callable[[int], np.ndarray]
    parts: Sequence[np.ndarray]

    def given_to(self, part: int) -> np.ndarray:
        """What a part becomes, (n, size of the part, ...)."""
        if callable(self.given):
            return self.given(part)
        return np.broadcast_to(self.given, self.shown.shape)[:, self.parts[part]]

    def replaced(self, part: int) -> np.ndarray:
        """The input with a part replaced."""
        found = self.shown.copy()
        found[:, self.parts[part]] = self.given_to(part)
        return found


class Contents(NamedTuple):
    """What may stand in the regions of n records: volumes, or things that broadcast to them, or edges (n, edges).
    `expected` edges are given by the region's place in the atlas, (n, edges of the region)."""

    own: np.ndarray
    background: np.ndarray
    donor: np.ndarray
    expected: np.ndarray | Callable[[int], np.ndarray]


class Edges:
    """The edges of each region, and their substitutions.

    `of_region` has the numbers of each region's edges. `region_of` (parcels,) is each parcel's region by its place in
    the atlas, or the count of regions. `means` are those of `Fills`.
    """

    def __init__(self, cohort: Cohort, atlas: Atlas, means: np.ndarray, seed: int):
        self.connectomes = connectomes_of(cohort)
        self.region_of = regions_of_parcels(self.connectomes, atlas)
        self.of_region = edges_of_regions(self.region_of, self.connectomes.parcel_pairs, len(atlas.region_numbers))
        self._expected = ExpectedEdges(cohort, self.of_region, means, seed)

    def contents(self, indices: np.ndarray, positions: np.ndarray) -> list[Contents]:
        """What may stand in the regions of records (n,) with their donors (donors, n), by donor."""
        own, given = self.connectomes[indices], [self.connectomes[row] for row in positions]
        level, levels = self._expected(indices, own), [*map(self._expected, positions, given)]

        def moved(donor: np.ndarray, of_donor: list[np.ndarray]) -> Callable[[int], np.ndarray]:
            return lambda region: donor[:, self.of_region[region]] + level[region] - of_donor[region]

        unknown = np.full_like(own, np.nan)
        return [
            Contents(own, unknown, donor, moved(donor, of_donor)) for donor, of_donor in zip(given, levels, strict=True)
        ]


def connectomes_of(cohort: Cohort) -> Connectomes:
    """Those of a cohort, which must have some."""
    if cohort.connectomes is None:
        raise ValueError(f"{cohort.path} has no connectomes")
    return cohort.connectomes


def regions_of_parcels(connectomes: Connectomes, atlas: Atlas) -> np.ndarray:
    """The place in the atlas of each parcel's region (parcels,). This region holds more of its voxels on the full grid
    than any other, and than lie outside all regions. Without such a region, or without the image, it is the count of
    regions."""
    outside, parcels = len(atlas.region_numbers), len(connectomes.parcel_names)
    if connectomes.parcel_image is None:
        return np.full(parcels, outside)
    parcel = np.where(connectomes.parcel_image > 0, connectomes.parcel_image - 1, parcels)
    return find_dominant_places(parcel, parcels, atlas.full_region_indices, outside)


def edges_of_regions(region_of: np.ndarray, pairs: np.ndarray, regions: int) -> list[np.ndarray]:
    """For each region the numbers of the edges, between `pairs` (edges, 2) of parcels, of which a parcel is in it."""
    return [np.flatnonzero((region_of[pairs] == region).any(1)) for region in range(regions)]


class ExpectedEdges:
    """What the rest of a person predicts of a region's edges, by kernel ridge regression. Features are all edges that
    do not touch the region, and the means of the other regions, both standardised and of equal weight.

    Fitted on training people, at most `MAX_PEOPLE`, or on all if there are none. Those whom it is fitted on are
    predicted from fits without them, in closed form. Each region has the penalty that predicts them best. What is
    unknown is the mean.
    """

    def __init__(self, cohort: Cohort, of_region: list[np.ndarray], means: np.ndarray, seed: int):
        self._of_region, self._means = of_region, means
        fitting, people = people_to_fit_on(cohort, seed)
        self._place = {int(index): at for at, index in enumerate(fitting)}
        edges = np.concatenate([connectomes_of(cohort)[rows] for rows in split_into_batches(fitting, ROWS)])
        self._edge_scale, self._mean_scale = scale_of(edges), scale_of(means[fitting].reshape(len(fitting), -1))
        self._features = self._features_of(edges, fitting)
        kernel = self._features @ self._features.T
        self._fits = [self._fit(kernel, region, people) for region in range(len(of_region))]

    def __call__(self, indices: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
        """Of records and their edges (n, edges), the expected edges of each region, (n, edges of the region)."""
        features = self._features_of(edges, indices)
        kernel = features @ self._features.T
        inside = np.array([at for at, index in enumerate(indices) if int(index) in self._place], int)
        places = np.array([self._place[int(indices[at])] for at in inside], int)
        return [self._predicted(region, features, kernel, inside, places) for region in range(len(self._fits))]

    def _predicted(
        self, region: int, features: np.ndarray, kernel: np.ndarray, inside: np.ndarray, places: np.ndarray
    ) -> np.ndarray:
        coefficients, leaving_out = self._fits[region]
        own, (centre, spread) = self._columns(region), self._edge_scale
        found = (kernel - features[:, own] @ self._features[:, own].T) @ coefficients
        found[inside] = self._targets(region)[places] - leaving_out[places] @ coefficients
        chosen = self._of_region[region]
        return found * spread[chosen] + centre[chosen]

    def _fit(self, kernel: np.ndarray, region: int, people: list[np.ndarray]) -> tuple[np.ndarray, sparse.csr_array]:
        """The coefficients (people, edges of the region), and a matrix (people, people). Their product is how far each
        record is from its prediction without the same person's records. The matrix has blocks of the inverse, inverted.
        """
        own, targets = self._features[:, self._columns(region)], self._targets(region)
        kernel, best = kernel - own @ own.T, (np.inf, targets, sparse.csr_array(kernel.shape, dtype=np.float32))
        for penalty in PENALTIES if targets.size else ():
            inverse = inverted(kernel, float(penalty))
            leaving_out = blocks_inverted(inverse, people)
            coefficients = inverse @ targets
            error = float(np.square(leaving_out @ coefficients).sum())
            best = min(best, (error, coefficients, leaving_out), key=lambda fit: fit[0])
        return best[1:]

    def _features_of(self, edges: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """(n, edges + regions x maps + 1) float32, the squares of each part with a sum of about 1. The last is the
        intercept: without it z-scores, whose sum over all people is 0, would tell who is left out."""
        means = self._means[indices].reshape(len(indices), -1)
        parts = scaled(edges, *self._edge_scale), scaled(means, *self._mean_scale), np.ones((len(indices), 1))
        return np.concatenate([part / np.sqrt(part.shape[1]) for part in parts], axis=1, dtype=np.float32)

    def _columns(self, region: int) -> np.ndarray:
        """The features that are of a region: its edges and its means."""
        maps = self._means.shape[-1]
        return np.append(self._of_region[region], len(self._edge_scale[0]) + region * maps + np.arange(maps))

    def _targets(self, region: int) -> np.ndarray:
        """The region's standardised edges of those whom it is fitted on."""
        return self._features[:, self._of_region[region]] * np.float32(np.sqrt(len(self._edge_scale[0])))


def people_to_fit_on(cohort: Cohort, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The records of the training people, or of some of them drawn at random, those of a person one after another; and
    where in this each person's are. Of everybody, if nobody is in training. A group counts as a person."""
    usable = cohort.find_unswapped_indices()
    chosen = [at for at in usable if cohort.rows[at].split == "train"] or usable
    leader = find_group_leaders((row.subject for row in cohort.rows), cohort.groups)
    of_subject: dict[str, list[int]] = {}
    for at in chosen:
        of_subject.setdefault(leader[cohort.rows[at].subject], []).append(at)
    records = list(of_subject.values())
    if len(records) > MAX_PEOPLE:
        drawn = np.random.default_rng(seed).choice(len(records), MAX_PEOPLE, replace=False)
        records = [records[at] for at in np.sort(drawn)]
    ends = np.cumsum([len(own) for own in records])
    return np.concatenate(records), np.split(np.arange(ends[-1]), ends[:-1])


def blocks_inverted(matrix: np.ndarray, blocks: list[np.ndarray]) -> sparse.csr_array:
    """The inverses of square blocks on the diagonal of a matrix (n, n), where these were, 0 elsewhere."""
    entries, places = [], []
    for size in {len(block) for block in blocks}:  # all of a size at once
        own = np.stack([block for block in blocks if len(block) == size])
        at = np.broadcast_arrays(own[:, :, None], own[:, None, :])
        entries.append(np.linalg.inv(matrix[*at]).ravel())
        places.append(np.reshape(at, (2, -1)))
    return sparse.csr_array((np.concatenate(entries), np.concatenate(places, axis=1)), matrix.shape)


def scale_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the spread of what is known of each column (n, columns), (columns,) each; 0 and 1 of a column that
    is unknown in all, a spread of 1 where it is 0."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(0), 1)
    centre = np.where(known, values, 0).sum(0, dtype=float) / count
    spread = np.sqrt(np.square(np.where(known, values - centre, 0)).sum(0) / count)
    return centre, np.where(spread > 0, spread, 1)


def scaled(values: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """z-scores, 0 where unknown."""
    return np.nan_to_num((values - centre) / spread)


def inverted(kernel: np.ndarray, penalty: float) -> np.ndarray:
    """The inverse of a kernel (n, n) float32 plus a penalty on its diagonal."""
    factor, _ = lapack.spotrf(kernel + np.float32(penalty) * np.eye(len(kernel), dtype=np.float32), lower=True)
    inverse, _ = lapack.spotri(factor, lower=True)
    return np.tril(inverse) + np.tril(inverse, -1).T
