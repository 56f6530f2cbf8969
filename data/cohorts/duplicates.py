"""Subjects who share a scan, or are of one family -> groups, each of which takes one split and one fold."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress

SHARED_SCAN, ONE_FAMILY = "share a scan", "are of one family"  # what those of a group do
Groups = tuple[tuple[str, ...], ...]  # subjects who are not independent, and so take one split


def leaders(subjects: Iterable[str], groups: Groups) -> dict[str, str]:
    """Each subject -> the first of its group that is among them, or itself if it is in none."""
    leader = {subject: subject for subject in subjects}
    for group in groups:
        present = [subject for subject in group if subject in leader]
        leader |= dict.fromkeys(present, present[0] if present else "")
    return leader


def united(groups: Iterable[Sequence[str]]) -> Groups:
    """Groups of two subjects or more, of which those with a subject in common become one; all in the order in which
    they are named."""
    found: dict[str, set[str]] = {}
    for group in groups:
        together = set(group).union(*(found.get(one, ()) for one in group))
        found |= dict.fromkeys([*group, *together], together)
    place, different = {one: at for at, one in enumerate(found)}, {id(group): group for group in found.values()}
    return tuple(tuple(sorted(group, key=place.__getitem__)) for group in different.values() if len(group) > 1)


def sharing(digests: Iterable[tuple[str, Iterable[str]]]) -> Groups:
    """Groups of subjects with a digest in common; of each subject all are given."""
    people: dict[str, dict[str, None]] = {}
    for subject, every in digests:
        for digest in every:
            people.setdefault(digest, {})[subject] = None
    return united(list(group) for group in people.values() if len(group) > 1)


def families_of(people: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The members of each family, of one member, too, by its name; of each subject the family's name is given, empty
    if it has none."""
    found: dict[str, list[str]] = {}
    for subject, family in people.items():
        if family:
            found.setdefault(family, []).append(subject)
    return {family: tuple(members) for family, members in found.items()}


def counted_families(families: Mapping[str, Sequence[str]], people: int) -> str:
    """How many of so many people are of families of two or more: `3 of 2 to 4 people, 8 of 60 in all`."""
    sizes = [len(members) for members in families.values() if len(members) > 1]
    if not sizes:
        return f"none of two or more of {people} people"
    several = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(max(sizes))
    return f"{len(sizes)} of {several} people, {sum(sizes)} of {people} in all"


def tie(groups: Groups, families: Mapping[str, Sequence[str]]) -> str:
    """What the members of each of these groups have in common, in words."""
    family_of = {one: family for family, members in families.items() for one in members}
    of_each = [{family_of.get(one, one) for one in group} for group in groups]
    by_scan = any(len(names) > 1 for names in of_each)
    by_family = any(len(names) < len(group) for names, group in zip(of_each, groups, strict=True))
    return " or ".join(compress((SHARED_SCAN, ONE_FAMILY), (by_scan, by_family)))
