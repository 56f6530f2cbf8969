"""Who is one person twice, or a relative -> groups, each of which takes one split and one fold.

Two subjects share a scan if a map or the connectome of both is equal, which digests tell, or nearly so, which region
means tell (`near_duplicates.py`) or, without maps, edges (`near_connectomes.py`). Relatives have one value in a
column. Splits, folds, bootstrap and donors use groups; what looks for leaks uses `find_people_in_common` of two sets of
people.
"""

from collections.abc import Collection, Iterable, Sequence
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
    `Digests.scan_digests`; and region means or, without maps, Fisher z of some edges, unless only digests are
    compared."""

    scan_digests_by_subject: dict[str, set[str]]
    region_means: np.ndarray | None = None  # (subjects, regions, maps)
    edge_fisher_z: np.ndarray | None = None  # (subjects, edges), of those that `near_connectomes` draws
    parcel_names: tuple[str, ...] = ()  # of these edges

    @property
    def subjects(self) -> list[str]:
        return list(self.scan_digests_by_subject)

    def exclude_subjects(self, excluded_subjects: Collection[str]) -> "PeopleScans":
        remaining_index_by_subject = {
            subject: index
            for index, subject in enumerate(self.scan_digests_by_subject)
            if subject not in excluded_subjects
        }
        remaining_indices = [*remaining_index_by_subject.values()]
        return replace(
            self,
            scan_digests_by_subject={
                subject: self.scan_digests_by_subject[subject] for subject in remaining_index_by_subject
            },
            region_means=None if self.region_means is None else self.region_means[remaining_indices],
            edge_fisher_z=None if self.edge_fisher_z is None else self.edge_fisher_z[remaining_indices],
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

    similar_scans = find_similar_scans(people)
    same_scan_groups = merge_groups(
        [*([subject] for subject in people.subjects), *similar_scans.same_scan_groups, *find_equal_scan_groups(people)]
    )
    leader_by_subject = find_group_leaders(people.subjects, same_scan_groups)
    return near_duplicates.NearDuplicates(
        same_scan_groups,
        tuple(
            pair for pair in similar_scans.same_person_pairs if leader_by_subject[pair[0]] != leader_by_subject[pair[1]]
        ),
        similar_scans.compared_by,
    )


def find_similar_scans(people: PeopleScans) -> "NearDuplicates":
    """The near duplicates by region means or, without these, by edges; none if there are neither."""
    from data.cohorts import near_connectomes, near_duplicates

    if people.region_means is not None:
        return near_duplicates.find_near_duplicates(people.subjects, people.region_means)
    if people.edge_fisher_z is not None:
        return near_connectomes.find_near_connectomes(people.subjects, people.edge_fisher_z)
    return near_duplicates.NearDuplicates()


def join_people(first_people: PeopleScans, second_people: PeopleScans) -> PeopleScans:
    """Both, as `0`, `1`, ..., with the region means or edges that can be compared, and without digests."""
    people_count = len(first_people.subjects) + len(second_people.subjects)
    joined_people = PeopleScans({str(index): set() for index in range(people_count)})
    if first_people.region_means is not None and second_people.region_means is not None:
        region_means = np.concatenate([first_people.region_means, second_people.region_means])
        return replace(joined_people, region_means=region_means)
    has_edges = first_people.edge_fisher_z is not None and second_people.edge_fisher_z is not None
    if has_edges and first_people.parcel_names == second_people.parcel_names:
        edge_fisher_z = np.concatenate([first_people.edge_fisher_z, second_people.edge_fisher_z])
        return replace(joined_people, edge_fisher_z=edge_fisher_z, parcel_names=first_people.parcel_names)
    return joined_people


def find_people_in_common(reference_people: PeopleScans, new_people: PeopleScans) -> dict[str, str]:
    """New subjects -> the first reference subject who has an equal map or connectome or, where both have region means
    of the same maps, or edges of the same parcels, nearly the same scan."""
    reference_subject_by_new_subject: dict[str, str] = {}
    all_subjects = [*reference_people.subjects, *new_people.subjects]
    for group in find_similar_scans(join_people(reference_people, new_people)).same_scan_groups:
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


def load_people_scans(cohort: "Cohort", subjects: Iterable[str], with_near_scans: bool = True) -> PeopleScans:
    """These subjects of a cohort, in this order; the first record of each is read for region means or, without maps,
    its edges, unless only equal scans are looked for. Records in which regions were swapped do not count. Raises
    InputError, naming the file."""
    first_record_index_by_subject = cohort.find_first_record_indices(cohort.find_unswapped_record_indices())
    scan_digests_by_subject = cohort.collect_scan_digests()
    people = PeopleScans(
        {subject: scan_digests_by_subject[subject] for subject in subjects if subject in first_record_index_by_subject}
    )
    if not with_near_scans:
        return people
    if not cohort.num_maps:
        record_indices = [first_record_index_by_subject[subject] for subject in people.subjects]
        return add_edges(people, cohort, record_indices)
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


def add_edges(people: PeopleScans, cohort: "Cohort", record_indices: Sequence[int]) -> PeopleScans:
    """The people, whose records are at these positions, with their edges, if the cohort has connectomes."""
    from data.cohorts.connectomes import ROWS_PER_BLOCK
    from data.cohorts.near_connectomes import draw_edge_indices

    connectomes = cohort.connectomes
    if connectomes is None:
        return people
    edge_indices = draw_edge_indices(connectomes.num_edges)
    edge_fisher_z = np.empty((len(record_indices), len(edge_indices)), np.float32)
    for block_start in range(0, len(record_indices), ROWS_PER_BLOCK):
        block = slice(block_start, block_start + ROWS_PER_BLOCK)
        edge_fisher_z[block] = connectomes[record_indices[block]][:, edge_indices]
    return replace(people, edge_fisher_z=edge_fisher_z, parcel_names=connectomes.parcel_names)


def find_groups_without_volumes(cohort: "Cohort") -> SubjectGroups:
    """Who is not independent, as far as that is known without reading volumes."""
    recorded_groups = merge_recorded_groups(cohort.metadata)
    if cohort.metadata.duplicates == DUPLICATES_APART:
        return recorded_groups
    return merge_groups(
        [
            *recorded_groups,
            *find_equal_scan_groups(
                load_people_scans(cohort, [row.subject for row in cohort.rows], with_near_scans=False)
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
