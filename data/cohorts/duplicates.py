"""Who is one person twice, or a relative -> groups, each of which takes one split and one fold.

Two subjects share a scan if a map or the connectome of both is equal, which digests tell, or nearly so, which region
means tell (`near_duplicates.py`). Relatives have one value in a column. Splits, folds, bootstrap and donors use groups;
what looks for leaks uses `find_people_in_common` of two sets of people."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from data.base.listing import join_group_names
from data.base.terminal import open_progress_bar
from data.cohorts.groups import (
    SubjectGroups,
    describe_group_ties,
    find_group_leaders,
    merge_groups,
    merge_recorded_groups,
)
from data.cohorts.metadata import DUPLICATES_APART

if TYPE_CHECKING:
    from data.cohorts.cohort import Cohort
    from data.cohorts.near_duplicates import NearDuplicates


@dataclass(frozen=True, eq=False)
class PeopleScans:
    """By what subjects are recognised whatever their names: of each the digests of maps and connectomes, see
    `Digests.scan_digests`; and region means (subjects, regions, maps), None if only digests are compared."""

    scan_digests_by_subject: dict[str, set[str]]
    region_means: np.ndarray | None = None  # (subjects, regions, maps); None if only digests are compared

    @property
    def subjects(self) -> list[str]:
        return list(self.scan_digests_by_subject)

    def exclude_subjects(self, excluded_subjects: Collection[str]) -> "PeopleScans":
        remaining_index_by_subject = {
            subject: index
            for index, subject in enumerate(self.scan_digests_by_subject)
            if subject not in excluded_subjects
        }
        region_means = None if self.region_means is None else self.region_means[[*remaining_index_by_subject.values()]]
        return PeopleScans(
            {subject: self.scan_digests_by_subject[subject] for subject in remaining_index_by_subject}, region_means
        )


def find_equal_scan_groups(people: PeopleScans) -> SubjectGroups:
    """Who has a map or the connectome of somebody else, equal to the last bit."""
    subjects_by_scan_digest: dict[str, list[str]] = {}
    for subject, scan_digests in people.scan_digests_by_subject.items():
        for scan_digest in sorted(scan_digests):
            subjects_by_scan_digest.setdefault(scan_digest, []).append(subject)
    return merge_groups(group for group in subjects_by_scan_digest.values() if len(group) > 1)


def find_duplicates(people: PeopleScans) -> "NearDuplicates":
    """Who shares a scan, each group in the order of the subjects; and pairs who may be one person in two sessions."""
    from data.cohorts import near_duplicates

    similar_scans = near_duplicates.NearDuplicates()
    if people.region_means is not None:
        similar_scans = near_duplicates.find_near_duplicates(people.subjects, people.region_means)
    same_scan_groups = merge_groups(
        [*([subject] for subject in people.subjects), *similar_scans.same_scan_groups, *find_equal_scan_groups(people)]
    )
    leader_by_subject = find_group_leaders(people.subjects, same_scan_groups)
    return near_duplicates.NearDuplicates(
        same_scan_groups,
        tuple(
            pair for pair in similar_scans.same_person_pairs if leader_by_subject[pair[0]] != leader_by_subject[pair[1]]
        ),
    )


def find_people_in_common(reference_people: PeopleScans, new_people: PeopleScans) -> dict[str, str]:
    """New subjects -> the first reference subject who has an equal map or connectome or, where both have region means
    of the same maps, nearly the same scan."""
    reference_subject_by_new_subject: dict[str, str] = {}
    if reference_people.region_means is not None and new_people.region_means is not None:
        from data.cohorts import near_duplicates

        all_subjects = [*reference_people.subjects, *new_people.subjects]
        all_region_means = np.concatenate([reference_people.region_means, new_people.region_means])
        for group in near_duplicates.find_near_duplicates(
            [str(index) for index in range(len(all_region_means))], all_region_means
        ).same_scan_groups:
            first_person_index, *later_person_indices = map(int, group)
            if first_person_index < len(reference_people.subjects):
                reference_subject_by_new_subject |= {
                    all_subjects[index]: all_subjects[first_person_index]
                    for index in later_person_indices
                    if index >= len(reference_people.subjects)
                }
    reference_subject_by_scan_digest = {
        scan_digest: subject
        for subject in reversed(reference_people.scan_digests_by_subject)
        for scan_digest in reference_people.scan_digests_by_subject[subject]
    }
    for subject, scan_digests in new_people.scan_digests_by_subject.items():
        if shared_digests := sorted(scan_digests & reference_subject_by_scan_digest.keys()):
            reference_subject_by_new_subject[subject] = reference_subject_by_scan_digest[shared_digests[0]]
    return reference_subject_by_new_subject


def load_people_scans(cohort: "Cohort", subjects: Iterable[str], with_region_means: bool = True) -> PeopleScans:
    """These subjects of a cohort, in this order; the first record of each is read for region means. Records in which
    regions were swapped do not count. Raises InputError, naming the file."""
    first_record_index_by_subject = cohort.find_first_record_indices(cohort.find_unswapped_record_indices())
    scan_digests_by_subject = cohort.collect_scan_digests()
    people = PeopleScans(
        {subject: scan_digests_by_subject[subject] for subject in subjects if subject in first_record_index_by_subject}
    )
    if not with_region_means or not cohort.num_maps:
        return people
    from data.cohorts import near_duplicates
    from data.images import atlas  # which nothing else needs of a cohort that convert made

    region_means = np.empty((len(people.scan_digests_by_subject), atlas.AAL_REGION_COUNT, cohort.num_maps), np.float32)
    with open_progress_bar("Comparing participants", len(region_means)) as progress_bar:
        for row_index, subject in enumerate(people.scan_digests_by_subject):
            region_means[row_index] = near_duplicates.average_volume_regions(
                cohort.read_volume(first_record_index_by_subject[subject])
            )
            progress_bar.advance()
    return replace(people, region_means=region_means)


def find_groups_without_volumes(cohort: "Cohort") -> SubjectGroups:
    """Who is not independent, as far as that is known without reading volumes."""
    recorded_groups = merge_recorded_groups(cohort.metadata)
    if cohort.metadata.duplicates == DUPLICATES_APART:
        return recorded_groups
    return merge_groups(
        [
            *recorded_groups,
            *find_equal_scan_groups(
                load_people_scans(cohort, [row.subject for row in cohort.rows], with_region_means=False)
            ),
        ]
    )


def add_subject_groups(cohort: "Cohort") -> "Cohort":
    """The cohort with its groups. Nearly equal scans are looked for, unless `convert` has done so or all people are
    simulated."""
    groups = find_groups_without_volumes(cohort)
    if cohort.is_simulated or cohort.metadata.duplicates:
        return replace(cohort, groups=groups)
    similar_scans = find_duplicates(load_people_scans(cohort, [row.subject for row in cohort.rows]))
    return replace(cohort, groups=merge_groups([*groups, *similar_scans.same_scan_groups]))


def keep_groups_together(cohort: "Cohort") -> "Cohort":
    """The cohort, in which subjects of a group take the split of the first of them, which is printed."""
    split_by_subject = {row.subject: row.split for row in reversed(cohort.rows)}
    for group in cohort.groups:
        if len({split_by_subject[subject] for subject in group}) > 1:
            common_split = split_by_subject[group[0]]
            tie_sentence = f"{join_group_names((group,))} {describe_group_ties((group,), cohort.metadata)}"
            print(f"{tie_sentence}, and were in train and test; they are in {common_split} now.")
            split_by_subject |= dict.fromkeys(group, common_split)
    return replace(cohort, rows=tuple(replace(row, split=split_by_subject[row.subject]) for row in cohort.rows))
