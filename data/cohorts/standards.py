"""How volumes are standardised as they are read: as stored, within the brain, or each site by itself without labels.

Whatever reads batches of a cohort then sees the same volumes: networks, floors, and what fills a region in a blackout.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from data.base.errors import InputError
from data.cohorts import records
from data.cohorts.cohort import Cohort, Row
from data.swap import unswapped

Standard = Literal["stored", "brain", "voxel", "site"]
BACKGROUND = {  # what a region becomes that is blacked out by it
    "stored": "the value outside the brain",
    "brain": "0, the mean of the person's brain",
    "voxel": "0, the mean of the person's brain",
    "site": "0, the mean of the people of the site",
}
SMALLEST_SPREAD = 1e-6  # of z-scores; below it is rounding
FEWEST = 5  # people of a site that is standardised by itself


class Moments:
    """Mean and spread of values that come in batches, (n, ...) each."""

    def __init__(self):
        self.count, self.mean, self._squares = 0, np.zeros(()), np.zeros(())

    def add(self, values: np.ndarray) -> None:
        """Takes a batch in (Chan et al. 1979, which loses no digits)."""
        values = np.asarray(values, np.float64)
        mean, total = values.mean(0), self.count + len(values)
        difference = mean - self.mean
        self._squares = self._squares + np.square(values - mean).sum(0)
        self._squares = self._squares + np.square(difference) * (self.count * len(values) / total)
        self.mean, self.count = self.mean + difference * (len(values) / total), total

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation; 1 where values do not vary, which are then only centred."""
        spread = np.sqrt(self._squares / self.count)
        return np.where(spread > SMALLEST_SPREAD, spread, 1)


def within_brain(volume: np.ndarray, row: Row) -> np.ndarray:
    """z-scores of each map (x, y, z, maps) over the voxels that are not its background, which becomes 0, their mean."""
    standardised = np.empty_like(volume)
    for at in range(volume.shape[-1]):
        brain = records.brain_of(volume[..., at])
        voxels = np.count_nonzero(brain)
        mean = np.where(brain, volume[..., at], 0).sum(dtype=np.float64) / voxels
        centred = np.where(brain, volume[..., at] - np.float32(mean), np.float32(0))
        spread = np.sqrt(np.square(centred).sum(dtype=np.float64) / voxels)
        standardised[..., at] = centred / np.float32(spread if spread > SMALLEST_SPREAD else 1)
    return standardised


@dataclass(frozen=True)
class WithinSite:
    """z-scores of each voxel over the people of a record's site, tested ones too, after those within the brain."""

    cohort: Cohort  # as it is stored

    def __call__(self, volume: np.ndarray, row: Row) -> np.ndarray:
        mean, spread = self._of_site[row.site]
        return (within_brain(volume, row) - mean) / spread

    @cached_property
    def _of_site(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and spread (x, y, z, maps) float32 by site; labels are not looked at."""
        moments: dict[str, Moments] = defaultdict(Moments)
        for index in unswapped(self.cohort):
            row = self.cohort.rows[index]
            moments[row.site].add(within_brain(self.cohort.read(index)[2], row)[None])
        return {site: (of.mean.astype(np.float32), of.spread.astype(np.float32)) for site, of in moments.items()}


def standardised(cohort: Cohort, how: Standard) -> Cohort:
    """The cohort whose batches are standardised.

    `voxel` is `brain` here: its z-scores over training subjects are weights of the network. Raises InputError where
    `site` has too few people to go by.
    """
    if how == "stored":
        return cohort
    if how != "site":
        return replace(cohort, standard=within_brain)
    people = defaultdict(set)
    for row in cohort.rows:
        people[row.site].add(row.subject)
    if not any(people):
        raise InputError(f"{cohort.path} does not say who is of which site; use standardise=voxel.")
    site = min(people, key=lambda name: len(people[name]))
    if len(people[site]) < FEWEST:
        raise InputError(
            f"{cohort.path} has {len(people[site])} people of site {site or 'unknown'}; standardise=site needs "
            f"{FEWEST} of each. Use standardise=voxel."
        )
    return replace(cohort, standard=WithinSite(cohort))
