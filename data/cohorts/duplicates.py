"""Who is one person twice, or a relative -> groups, each of which takes one split and one fold.

Two subjects share a scan if a map or the connectome of both is equal, which digests tell, or nearly so, which region
means tell (`near_duplicates.py`). Relatives have one value in a column. Splits, folds, bootstrap and donors ask for
groups, and what looks for leaks asks whom two sets of people have `in_common`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from data.base.terminal import open_progress_bar
from data.cohorts.rows import APART, Metadata, named_groups

if TYPE_CHECKING:
    from data.cohorts.cohort import Cohort
    from data.cohorts.near_duplicates import NearDuplicates

SHARED_SCAN, ONE_FAMILY = "share a scan", "are of one family"  # what those of a group do
Groups = tuple[tuple[str, ...], ...]  # subjects who are not independent, and so take one split


@dataclass(frozen=True, eq=False)
class People:
    """By what subjects are recognised whatever their names: of each the digests of maps and connectomes, see
    `Digests.scans`; and region means (subjects, regions, maps), None if only digests are compared."""

    scans: dict[str, set[str]]
    means: np.ndarray | None = None

    @property
    def subjects(self) -> list[str]:
        return list(self.scans)

    def without(self, subjects: Collection[str]) -> "People":
        kept = {subject: at for at, subject in enumerate(self.scans) if subject not in subjects}
        means = None if self.means is None else self.means[[*kept.values()]]
        return People({subject: self.scans[subject] for subject in kept}, means)


def united(groups: Iterable[Sequence[str]]) -> Groups:
    """Groups of two subjects or more, of which those with a subject in common become one; all in the order in which
    they are named."""
    found: dict[str, set[str]] = {}
    for group in groups:
        together = set(group).union(*(found.get(one, ()) for one in group))
        found |= dict.fromkeys([*group, *together], together)
    place, different = {one: at for at, one in enumerate(found)}, {id(group): group for group in found.values()}
    return tuple(tuple(sorted(group, key=place.__getitem__)) for group in different.values() if len(group) > 1)


def leaders(subjects: Iterable[str], groups: Groups) -> dict[str, str]:
    """Each subject -> the first of its group that is among them, or itself if it is in none."""
    leader = {subject: subject for subject in subjects}
    for group in groups:
        present = [subject for subject in group if subject in leader]
        leader |= dict.fromkeys(present, present[0] if present else "")
    return leader


def equal(people: People) -> Groups:
    """Who has a map or the connectome of somebody else, equal to the last bit."""
    owners: dict[str, list[str]] = {}
    for subject, scans in people.scans.items():
        for scan in sorted(scans):
            owners.setdefault(scan, []).append(subject)
    return united(group for group in owners.values() if len(group) > 1)


def search(people: People) -> "NearDuplicates":
    """Who shares a scan, each group in the order of the subjects; and pairs who may be one person in two sessions."""
    from data.cohorts import near_duplicates

    assert people.means is not None
    near = near_duplicates.alike(people.subjects, people.means)
    groups = united([*([subject] for subject in people.subjects), *near.same_scan, *equal(people)])
    leader = leaders(people.subjects, groups)
    return near_duplicates.NearDuplicates(
        groups, tuple(pair for pair in near.same_person if leader[pair[0]] != leader[pair[1]])
    )


def in_common(known: People, new: People) -> dict[str, str]:
    """New subjects -> the first known one who has an equal map or connectome or, where both have region means of the
    same maps, nearly the same scan."""
    found: dict[str, str] = {}
    if known.means is not None and new.means is not None:
        from data.cohorts import near_duplicates

        everybody, means = [*known.subjects, *new.subjects], np.concatenate([known.means, new.means])
        for group in near_duplicates.alike([str(at) for at in range(len(means))], means).same_scan:
            first, *others = map(int, group)
            if first < len(known.subjects):
                found |= {everybody[at]: everybody[first] for at in others if at >= len(known.subjects)}
    owner = {scan: subject for subject in reversed(known.scans) for scan in known.scans[subject]}
    for subject, scans in new.scans.items():
        if shared := sorted(scans & owner.keys()):
            found[subject] = owner[shared[0]]
    return found


def people_of(cohort: "Cohort", subjects: Iterable[str], with_means: bool = True) -> People:
    """These subjects of a cohort, in this order; the first record of each is read for region means. Records in which
    regions were swapped do not count. Raises InputError, naming the file."""
    first, scans = cohort.first_records(cohort.unswapped()), cohort.scans()
    people = People({subject: scans[subject] for subject in subjects if subject in first})
    if not with_means:
        return people
    from data.cohorts import atlas, near_duplicates  # which nothing else needs of a cohort that convert made

    means = np.empty((len(people.scans), atlas.AAL_REGIONS, cohort.num_maps), np.float32)
    with open_progress_bar("Comparing participants", len(means)) as shown:
        for at, subject in enumerate(people.scans):
            means[at] = near_duplicates.of_volume(cohort.volume(first[subject]))
            shown.advance()
    return replace(people, means=means)


def told_groups(metadata: Metadata) -> Groups:
    """Who is not independent as `convert` told it: who shares a scan, and who is of a family."""
    return united([*metadata.same_scan, *metadata.families.values()])


def known_groups(cohort: "Cohort") -> Groups:
    """Who is not independent, as far as that is known without reading volumes."""
    told = told_groups(cohort.metadata)
    if cohort.metadata.duplicates == APART:
        return told
    return united([*told, *equal(people_of(cohort, [row.subject for row in cohort.rows], with_means=False))])


def with_groups(cohort: "Cohort") -> "Cohort":
    """The cohort with its groups. Near likeness is looked for unless `convert` has, or all people are simulated."""
    known = known_groups(cohort)
    if cohort.simulated or cohort.metadata.duplicates:
        return replace(cohort, groups=known)
    near = search(people_of(cohort, [row.subject for row in cohort.rows]))
    return replace(cohort, groups=united([*known, *near.same_scan]))


def kept_together(cohort: "Cohort") -> "Cohort":
    """The cohort, in which subjects of a group take the split of the first of them, which is printed."""
    split = {row.subject: row.split for row in reversed(cohort.rows)}
    for group in cohort.groups:
        if len({split[one] for one in group}) > 1:
            taken = split[group[0]]
            together = f"{named_groups((group,))} {tie((group,), cohort.metadata)}"
            print(f"{together}, and were in train and test; they are in {taken} now.")
            split |= dict.fromkeys(group, taken)
    return replace(cohort, rows=tuple(replace(row, split=split[row.subject]) for row in cohort.rows))


def tie(groups: Groups, metadata: Metadata) -> str:
    """What the members of each of these groups have in common, in words."""
    family_of = {one: family for family, members in metadata.families.items() for one in members}
    of_each = [{family_of.get(one, one) for one in group} for group in groups]
    by_scan = any(len(names) > 1 for names in of_each)
    by_family = any(len(names) < len(group) for names, group in zip(of_each, groups, strict=True))
    return " or ".join(compress((SHARED_SCAN, ONE_FAMILY), (by_scan, by_family)))


def counted_families(families: Mapping[str, Sequence[str]], people: int) -> str:
    """How many of so many people are of families of two or more: `3 of two participants or more, 8 of 60 in all`."""
    sizes = [len(members) for members in families.values() if len(members) > 1]
    return f"{len(sizes)} of two participants or more, {sum(sizes)} of {people} in all"
