"""A cohort that is read otherwise: with another split, phenotype, or standard of its volumes.

A standard says how volumes are z-scored as they are read. Networks, baselines and the fills of a blackout read the same
batches, and so see the same volumes.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from data.base.errors import InputError
from data.base.terminal import format_participants
from data.cohorts import records
from data.cohorts import rows as rows_of
from data.cohorts.cohort import Cohort, Moments, Standard
from data.cohorts.duplicates import tie
from data.cohorts.rows import UNKNOWN_SITE, Preparation, known_sites

if TYPE_CHECKING:
    from data.cohorts.phenotype import Scaler

BACKGROUND = {  # what a region becomes that is blacked out by it
    "stored": "the value outside the brain",
    "brain": "0, the mean of the participant's brain",
    "site": "0, the mean of the participants of the site",
}
FEWEST = 5  # people of a site that is standardised by itself


def resplit(cohort: Cohort, split: Mapping[str, str]) -> Cohort:
    """The cohort with another split, subject -> train, test or HELD_OUT. Its phenotype is scaled on the training
    subjects, or stays if there is no `phenotype.csv`. Raises InputError for a subject without a split, a
    training subject of unknown label, or a group in both splits. Also if nobody is left to train."""
    if absent := {row.subject for row in cohort.rows} - split.keys():
        raise InputError(
            f"The split lacks {format_participants(len(absent))} of {cohort.path}, such as {min(absent)}; add them."
        )
    if parted := [group for group in cohort.groups if len({split.get(one) for one in group} - {None}) > 1]:
        raise InputError(
            f"The split parts {' and '.join(parted[0])} of {cohort.path}, who {tie((parted[0],), cohort.metadata)}; "
            "keep them together."
        )
    rows = [replace(row, split=split[row.subject]) for row in cohort.rows]
    rows = [row if row.split == rows_of.HELD_OUT else rows_of.checked(str(cohort.path), row) for row in rows]
    cut = replace(cohort, rows=tuple(rows), metadata=replace(cohort.metadata, phenotype_auc={}))
    cut.indices("train")
    if (raw := cut.raw_phenotype) is None:
        return cut
    from data.cohorts.phenotype import fit_scaler  # pandas and scikit-learn, which `--help` can do without

    training = set(cut.subjects("train"))
    return rescaled(cut, fit_scaler(raw[[subject in training for subject in raw.index]].to_numpy()))


def everybody(cohort: Cohort) -> Cohort:
    """The cohort with everybody to train on whose label is known, as are those of the others of a group."""
    unknown = {row.subject for row in cohort.rows if not row.known}
    unknown |= {one for group in cohort.groups if unknown & set(group) for one in group}
    return resplit(cohort, {row.subject: "test" if row.subject in unknown else "train" for row in cohort.rows})


def prepared_as(cohort: Cohort, preparation: Preparation) -> Cohort:
    """The cohort with its phenotype imputed and scaled as another one's. It stays as it is if it is so already, if it
    has no `phenotype.csv`, or if that holds other values."""
    from data.cohorts.phenotype import Scaler

    own, scaler = cohort.metadata, Scaler.of(preparation)
    same = own.of_inputs(["phenotype"]) == preparation.of_inputs(["phenotype"])
    if same or scaler is None or own.phenotype != preparation.phenotype or cohort.raw_phenotype is None:
        return cohort
    return rescaled(cohort, scaler)


def rescaled(cohort: Cohort, scaler: "Scaler") -> Cohort:
    """The cohort, which has a `phenotype.csv`, with that imputed and scaled by these constants."""
    metadata = replace(cohort.metadata, **scaler.constants())
    return replace(cohort, metadata=metadata, scaled=cohort.scaled_by(scaler))


def recorded_alike(cohort: Cohort) -> Cohort | None:
    """The cohort with the values of `phenotype.recording` set to what most training people have, of families of tests
    to the commonest. What is missing stays imputed. None if there are no such values, or no constants that scale
    them."""
    from data.cohorts.phenotype import TEST, Scaler, recording

    where, scaler = recording(cohort.metadata), Scaler.of(cohort.metadata)
    if not where or scaler is None:
        return None
    usual = np.round(scaler.median)
    tests = [at for at in where if cohort.metadata.phenotype[at].startswith(TEST)]
    if tests and (shares := scaler.mean[tests]).max() >= 1 - shares.sum():  # more have it than have none
        usual[tests] = np.arange(len(tests)) == shares.argmax()  # of equal ones the first
    told = cohort.phenotype.copy()
    told[:, where] = scaler.transform(usual)[where]
    return replace(cohort, scaled=told)


@dataclass(frozen=True)
class SiteMoments(Mapping[str, tuple[np.ndarray, np.ndarray]]):
    """By site: mean and spread (x, y, z, maps) float32 of each voxel over its people, tested ones too. Their volumes
    are z-scored within the brain, and read once, at the first use; labels are not read."""

    cohort: Cohort  # as it is stored

    def __getitem__(self, site: str) -> tuple[np.ndarray, np.ndarray]:
        return self._of_site[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of_site)

    def __len__(self) -> int:
        return len({row.site for row in self.cohort.rows})

    @cached_property
    def _of_site(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        moments: dict[str, Moments] = defaultdict(Moments)
        for index in self.cohort.unswapped():
            moments[self.cohort.rows[index].site].add(records.within_brain(self.cohort.volume(index))[None])
        return {site: (of.mean.astype(np.float32), of.spread.astype(np.float32)) for site, of in moments.items()}


def standardised(cohort: Cohort, standard: Standard) -> Cohort:
    """The cohort whose volumes are read by a standard. Raises InputError if a site has too few people for its own."""
    if standard == cohort.standard:
        return cohort
    return within_sites(cohort) if standard == "site" else replace(cohort, standard=standard, moments=None)


def within_sites(cohort: Cohort) -> Cohort:
    """The cohort whose batches are z-scored within each site. Raises InputError if a site has too few people."""
    people = defaultdict(set)
    for row in cohort.rows:
        people[row.site].add(row.subject)
    if not known_sites(people):
        raise InputError(f"{cohort.path} names no sites; use standardise=brain.")
    site = min(people, key=lambda name: len(people[name]))
    if len(people[site]) < FEWEST:
        raise InputError(
            f"{cohort.path} has {format_participants(len(people[site]))} of site {site or UNKNOWN_SITE}; "
            f"standardise=site needs {FEWEST} of each. Use standardise=brain."
        )
    return replace(cohort, standard="site", moments=SiteMoments(cohort))
