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
from data.cohorts import rows as cohort_rows
from data.cohorts.cohort import Cohort, RunningMoments, VolumeStandard
from data.cohorts.groups import describe_group_ties
from data.cohorts.metadata import Preparation
from data.images import brain
from data.tables.vocabulary import UNKNOWN_SITE, find_recorded_sites

if TYPE_CHECKING:
    from data.cohorts.scaling import Scaler

FILL_TEXT_BY_STANDARD = {  # by standard, what a region becomes that is blacked out
    "stored": "the value outside the brain",
    "brain": "0, the mean of the participant's brain",
    "site": "0, the mean of the participants of the site",
}
MIN_SITE_PEOPLE = 5  # people of a site that is standardised by itself


def resplit(cohort: Cohort, split_by_subject: Mapping[str, str]) -> Cohort:
    """The cohort with another split, subject -> train, test or `ASIDE_SPLIT`. Its phenotype is scaled on the training
    subjects, or stays if there is no `phenotype.csv`. Raises InputError for a subject without a split, a training
    subject of unknown label, or a group in both splits, and if nobody is left to train."""
    if absent_subjects := {row.subject for row in cohort.rows} - split_by_subject.keys():
        raise InputError(
            f"The split lacks {format_participants(len(absent_subjects))} of {cohort.path}, such as "
            f"{min(absent_subjects)}; add them."
        )
    for group in cohort.groups:
        group_splits = {split_by_subject.get(group_member) for group_member in group} - {None}
        if len(group_splits) > 1:
            raise InputError(
                f"The split parts {' and '.join(group)} of {cohort.path}, who "
                f"{describe_group_ties((group,), cohort.metadata)}; keep them together."
            )

    rows = [replace(row, split=split_by_subject[row.subject]) for row in cohort.rows]
    for row in rows:
        if row.split != cohort_rows.ASIDE_SPLIT:
            cohort_rows.check_row(str(cohort.path), row)
    resplit_cohort = replace(cohort, rows=tuple(rows), metadata=replace(cohort.metadata, phenotype_auc={}))
    resplit_cohort.find_split_record_indices("train")  # raises InputError if nobody is left to train

    unscaled_phenotype = resplit_cohort.unscaled_phenotype
    if unscaled_phenotype is None:
        return resplit_cohort
    from data.cohorts.scaling import fit_scaler  # pandas and scikit-learn, which `--help` can do without

    training_subjects = set(resplit_cohort.list_split_subjects("train"))
    is_training = [subject in training_subjects for subject in unscaled_phenotype.index]
    scaler = fit_scaler(unscaled_phenotype[is_training].to_numpy())
    return rescale_phenotype(resplit_cohort, scaler)


def train_on_everybody(cohort: Cohort) -> Cohort:
    """The cohort in which everybody is a training subject whose label is known, and so are those of the same group."""
    unlabelled_subjects = {row.subject for row in cohort.rows if not row.is_labelled}
    unlabelled_subjects |= {subject for group in cohort.groups if unlabelled_subjects & set(group) for subject in group}
    return resplit(
        cohort, {row.subject: "test" if row.subject in unlabelled_subjects else "train" for row in cohort.rows}
    )


def scale_phenotype_as(cohort: Cohort, preparation: Preparation) -> Cohort:
    """The cohort with its phenotype imputed and scaled as another one's. It stays as it is if it is so already, if it
    has no `phenotype.csv`, or if that holds other values."""
    from data.cohorts.scaling import Scaler

    metadata = cohort.metadata
    scaler = Scaler.from_preparation(preparation)
    current_fields = metadata.select_fields_for_inputs(["phenotype"])
    if (
        current_fields == preparation.select_fields_for_inputs(["phenotype"])
        or scaler is None
        or metadata.phenotype != preparation.phenotype
        or cohort.unscaled_phenotype is None
    ):
        return cohort
    return rescale_phenotype(cohort, scaler)


def rescale_phenotype(cohort: Cohort, scaler: "Scaler") -> Cohort:
    """The cohort, which has a `phenotype.csv`, with that imputed and scaled by these constants."""
    metadata = replace(cohort.metadata, **scaler.to_preparation_fields())
    return replace(cohort, metadata=metadata, scaled_phenotype=cohort.scale_phenotype(scaler))


def equalise_recording_values(cohort: Cohort) -> Cohort | None:
    """The cohort with the values of `phenotype.find_recording_value_indices` set to what most training people have;
    those of families of IQ tests, to the most common family. What is missing stays imputed. None if there are no such
    values, or no constants that scale them."""
    from data.cohorts.scaling import Scaler, find_recording_value_indices
    from data.tables.phenotype import IQ_TEST_VALUE_PREFIX

    recording_indices = find_recording_value_indices(cohort.metadata)
    scaler = Scaler.from_preparation(cohort.metadata)
    if not recording_indices or scaler is None:
        return None
    usual_raw_values = np.round(scaler.median)
    iq_test_value_indices = [
        index for index in recording_indices if cohort.metadata.phenotype[index].startswith(IQ_TEST_VALUE_PREFIX)
    ]
    if (
        iq_test_value_indices
        and (iq_test_frequencies := scaler.mean[iq_test_value_indices]).max() >= 1 - iq_test_frequencies.sum()
    ):  # more people have it than have none
        usual_raw_values[iq_test_value_indices] = (
            np.arange(len(iq_test_value_indices)) == iq_test_frequencies.argmax()
        )  # of equally common ones, the first
    equalised_phenotype = cohort.phenotype.copy()
    equalised_phenotype[:, recording_indices] = scaler.transform(usual_raw_values)[recording_indices]
    return replace(cohort, scaled_phenotype=equalised_phenotype)


@dataclass(frozen=True)
class SiteMoments(Mapping[str, tuple[np.ndarray, np.ndarray]]):
    """By site: mean and spread (x, y, z, maps) float32 of each voxel over its people, tested ones too. Their volumes
    are z-scored within the brain, and read once, at the first use; labels are not read."""

    cohort: Cohort  # as it is stored

    def __getitem__(self, site: str) -> tuple[np.ndarray, np.ndarray]:
        return self._moments_by_site[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._moments_by_site)

    def __len__(self) -> int:
        return len({row.site for row in self.cohort.rows})

    @cached_property
    def _moments_by_site(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        running_moments_by_site: dict[str, RunningMoments] = defaultdict(RunningMoments)
        for index in self.cohort.find_unswapped_record_indices():
            running_moments_by_site[self.cohort.rows[index].site].add_batch(
                brain.z_score_within_brain(self.cohort.read_volume(index))[None]
            )
        return {
            site: (site_moments.mean.astype(np.float32), site_moments.nonzero_sd.astype(np.float32))
            for site, site_moments in running_moments_by_site.items()
        }


def standardise_cohort(cohort: Cohort, volume_standard: VolumeStandard) -> Cohort:
    """The cohort whose volumes are read by a standard. Raises InputError if a site has too few people for its own."""
    if volume_standard == cohort.standard:
        return cohort
    if volume_standard == "site":
        return standardise_within_sites(cohort)
    return replace(cohort, standard=volume_standard, moments_by_site=None)


def standardise_within_sites(cohort: Cohort) -> Cohort:
    """The cohort whose batches are z-scored within each site. Raises InputError if a site has too few people."""
    subjects_by_site = defaultdict(set)
    for row in cohort.rows:
        subjects_by_site[row.site].add(row.subject)
    if not find_recorded_sites(subjects_by_site):
        raise InputError(f"{cohort.path} names no sites; use standardise=brain.")
    smallest_site = min(subjects_by_site, key=lambda site_name: len(subjects_by_site[site_name]))
    if len(subjects_by_site[smallest_site]) < MIN_SITE_PEOPLE:
        raise InputError(
            f"{cohort.path} has {format_participants(len(subjects_by_site[smallest_site]))} of site "
            f"{smallest_site or UNKNOWN_SITE}; standardise=site needs {MIN_SITE_PEOPLE} of each. Use standardise=brain."
        )
    return replace(cohort, standard="site", moments_by_site=SiteMoments(cohort))
