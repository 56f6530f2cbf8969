"""How volumes are standardised as they are read: as stored, within the brain, or each site by itself without labels.

Networks, floors and the fills of a blackout read the same batches, and so see the same volumes.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from data.base.errors import InputError
from data.cohorts import records
from data.cohorts.cohort import Cohort

BACKGROUND = {  # what a region becomes that is blacked out by it
    "stored": "the value outside the brain",
    "brain": "0, the mean of the person's brain",
    "voxel": "0, the mean of the person's brain",
    "site": "0, the mean of the people of the site",
}
FEWEST = 5  # people of a site that is standardised by itself


@dataclass(frozen=True)
class SiteMoments(Mapping[str, tuple[np.ndarray, np.ndarray]]):
    """Mean and spread (x, y, z, maps) float32 of each voxel over the people of a site, tested ones too, of volumes that
    are z-scored within the brain. The volumes are read once, at the first use; labels are not read."""

    cohort: Cohort  # as it is stored

    def __getitem__(self, site: str) -> tuple[np.ndarray, np.ndarray]:
        return self._of_site[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of_site)

    def __len__(self) -> int:
        return len({row.site for row in self.cohort.rows})

    @cached_property
    def _of_site(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        moments: dict[str, records.Moments] = defaultdict(records.Moments)
        for index in self.cohort.unswapped():
            moments[self.cohort.rows[index].site].add(records.within_brain(self.cohort.read(index)[2])[None])
        return {site: (of.mean.astype(np.float32), of.spread.astype(np.float32)) for site, of in moments.items()}


def within_sites(cohort: Cohort) -> Cohort:
    """The cohort whose batches are z-scored within each site. Raises InputError if a site has too few people."""
    people = defaultdict(set)
    for row in cohort.rows:
        people[row.site].add(row.subject)
    if not any(people):
        raise InputError(f"{cohort.path} names no sites; use standardise=voxel.")
    site = min(people, key=lambda name: len(people[name]))
    if len(people[site]) < FEWEST:
        raise InputError(
            f"{cohort.path} has {len(people[site])} people of site {site or 'unknown'}; standardise=site needs "
            f"{FEWEST} of each. Use standardise=voxel."
        )
    return replace(cohort, standard="site", moments=SiteMoments(cohort))
