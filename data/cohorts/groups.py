"""Groups of subjects who are not independent: who share a scan, or are of one family."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress

from data.cohorts.metadata import Metadata

SHARED_SCAN_WORDS = "share a scan"
SAME_FAMILY_WORDS = "are of one family"  # what those of a group do
SubjectGroups = tuple[tuple[str, ...], ...]  # subjects who are not independent, and so take one split


def merge_groups(subject_groups: Iterable[Sequence[str]]) -> SubjectGroups:
    """Groups of two subjects or more, of which those with a subject in common become one; all in the order in which
    they are named."""
    group_by_subject: dict[str, set[str]] = {}
    for group in subject_groups:
        merged_group = set(group).union(*(group_by_subject.get(subject, ()) for subject in group))
        group_by_subject |= dict.fromkeys([*group, *merged_group], merged_group)
    position_by_subject = {subject: position for position, subject in enumerate(group_by_subject)}
    group_by_object_id = {id(group): group for group in group_by_subject.values()}
    return tuple(
        tuple(sorted(group, key=position_by_subject.__getitem__))
        for group in group_by_object_id.values()
        if len(group) > 1
    )


def find_group_leaders(subjects: Iterable[str], groups: SubjectGroups) -> dict[str, str]:
    """Each subject -> the first of its group that is among them, or itself if it is in none."""
    leader_by_subject = {subject: subject for subject in subjects}
    for group in groups:
        present_subjects = [subject for subject in group if subject in leader_by_subject]
        leader_by_subject |= dict.fromkeys(present_subjects, present_subjects[0] if present_subjects else "")
    return leader_by_subject


def merge_recorded_groups(metadata: Metadata) -> SubjectGroups:
    """Who is not independent, as `convert` recorded it: who shares a scan, and who is of one family."""
    return merge_groups([*metadata.same_scan, *metadata.families.values()])


def describe_group_ties(groups: SubjectGroups, metadata: Metadata) -> str:
    """What the members of each of these groups have in common, in words."""
    family_by_subject = {subject: family for family, members in metadata.families.items() for subject in members}
    is_tied_by_scan = False
    is_tied_by_family = False
    for group in groups:
        group_families = {family_by_subject.get(subject, subject) for subject in group}
        is_tied_by_scan = is_tied_by_scan or len(group_families) > 1
        is_tied_by_family = is_tied_by_family or len(group_families) < len(group)
    return " or ".join(compress((SHARED_SCAN_WORDS, SAME_FAMILY_WORDS), (is_tied_by_scan, is_tied_by_family)))


def format_family_counts(members_by_family: Mapping[str, Sequence[str]], people_count: int) -> str:
    """How many of so many people are of families of two or more: `3 of two participants or more, 8 of 60 in all`."""
    family_sizes = [len(members) for members in members_by_family.values() if len(members) > 1]
    return f"{len(family_sizes)} of two participants or more, {sum(family_sizes)} of {people_count} in all"
