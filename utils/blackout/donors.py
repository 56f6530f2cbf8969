"""Who gives what replaces a part of a tested person in a blackout: other people, drawn without regard to the label."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data.cohorts.cohort import Cohort
from data.cohorts.duplicates import find_group_leaders
from data.cohorts.rows import RecordRow, find_recorded_sites

PEOPLE_PER_DONOR = 2  # to draw from, at least: else all records would share the same donors
CALLED = {"train": "training participants", "test": "tested participants"}  # by split
ORDER = (("train", True), ("test", True), ("train", False), ("test", False))  # split, and whether of the same site
Origin = tuple[str, str | None]  # of a donor: split and site; None: any site
People = dict[str, list[int]]  # person -> positions of the records


class Donors:
    """The donors of the records `tested` of a cohort, `count` or, if one of them has fewer possible donors, fewer for
    each. Whose they are depends on no other tested record.

    `drawn` maps a record to its donors (count,), and `origin` to the split and the site (None: any) that they are of;
    `subjects_of_origin` counts subjects. Records are known by position in the cohort.
    """

    def __init__(self, cohort: Cohort, tested: np.ndarray, count: int, seed: int):
        self.tested, self._people, rows = tested, people_by_origin(cohort), rows_by_person(cohort)
        self._person = person = {index: rows[index].subject for index in tested.tolist()}
        self.origin = {index: donor_origin(self._people, rows[index], count) for index in person}
        people = {index: self._people[origin] for index, origin in self.origin.items()}
        self.count = min(count, *(len(people[index].keys() - {name}) for index, name in person.items()))
        self.drawn = {index: draw(people[index], name, self.count, [seed, index]) for index, name in person.items()}
        of_subject = {cohort.rows[index].subject: origin for index, origin in self.origin.items()}
        self.subjects_of_origin = Counter(of_subject.values())

    def of(self, indices: np.ndarray) -> np.ndarray:
        """The donors (donors, n) of tested records (n,)."""
        return np.stack([self.drawn[int(index)] for index in indices], axis=1)

    @property
    def told(self) -> str:
        """Who they are."""
        origins: Counter = Counter()
        for (split, site), count in self.subjects_of_origin.items():
            where = "any" if site is None else "the same" if find_recorded_sites([site]) else "unknown"
            origins[f"{CALLED[split]} of {where} site"] += count
        subjects = origins.total()
        several = "; ".join(f"for {count} of {subjects} participants {who}" for who, count in origins.items())
        return f"Donors: {self.count} per record, {several if len(origins) > 1 else next(iter(origins))}."

    def means_of_others(self, level: np.ndarray) -> np.ndarray:
        """Of each tested record, the mean of `level` (records of the cohort, ...) over all people who could give:
        (records, ...). These are whom its donors were drawn from, without its own subject."""
        of_people = {
            origin: {name: level[own].mean(0) for name, own in self._people[origin].items()}
            for origin in set(self.origin.values())
        }
        total, found = {origin: sum(values.values()) for origin, values in of_people.items()}, []
        for index, origin in self.origin.items():
            person = self._person[index]
            rest = total[origin] - of_people[origin].get(person, 0.0)
            found.append(rest / len(of_people[origin].keys() - {person}))
        return np.stack(found)

    def deviations(self, level: np.ndarray) -> np.ndarray:
        """How far each record and its donors are from `means_of_others`, (records, 1 + donors, ...)."""
        found = level[np.array([(index, *positions) for index, positions in self.drawn.items()])]
        found -= self.means_of_others(level)[:, None]
        return found


def control_variate_mean(change: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The mean change over donors, (records, donors, things) -> (records, things). A control variate removes most of
    the variance that is due to the random choice of donors.

    `deviation` (records, 1 + donors, things, maps) is that of `Donors.deviations`. The change is regressed, without
    labels, on the difference between what the record has and what the donor has. The slope times the donors' mean
    deviation from all people whom they were drawn from is added. The slope is shrunk by the weight of one more pair, so
    that it is stable with few records.
    """
    donor = deviation[:, 1:]
    spread = np.square(donor).mean((0, 1))  # before there are as many differences, to save memory
    apart = deviation[:, :1] - donor
    squares = np.einsum("idrm,idrk->rmk", apart, apart) + spread[..., None] * np.eye(apart.shape[-1])
    slope = np.linalg.pinv(squares, hermitian=True) @ np.einsum("idrm,idr->rm", apart, change)[..., None]
    return change.mean(1) + np.einsum("irm,rm->ir", donor.mean(1), slope[..., 0])


def rows_by_person(cohort: Cohort) -> list[RecordRow]:
    """The rows of a cohort; the subjects of a group are called as the first of them."""
    leader = find_group_leaders((row.subject for row in cohort.rows), cohort.groups)
    return [replace(row, subject=leader[row.subject]) for row in cohort.rows]


def people_by_origin(cohort: Cohort) -> dict[Origin, People]:
    """Who may be a donor, by split and site. The subjects of a group are one person."""
    found: dict[Origin, People] = {}
    rows = rows_by_person(cohort)
    for position in cohort.find_unswapped_indices():
        row = rows[position]
        for site in (row.site, None):
            found.setdefault((row.split, site), {}).setdefault(row.subject, []).append(position)
    return found


def draw(people: People, subject: str, count: int, seed: Sequence[int]) -> np.ndarray:
    """`count` records (count,) of different people other than `subject`, whatever their labels."""
    random, names = np.random.default_rng(seed), np.array(sorted(people))
    chosen = random.choice(names[names != subject], count, replace=False)
    return np.array([random.choice(people[name]) for name in chosen])


def donor_origin(people: dict[Origin, People], row: RecordRow, count: int) -> Origin:
    """Where the donors of a record are drawn from: the first in `ORDER` that has enough other people. If none has, the
    one with most."""
    origins = [(split, row.site if same_site else None) for split, same_site in ORDER]
    sizes = {origin: len(people[origin].keys() - {row.subject}) for origin in origins if origin in people}
    enough = [origin for origin, size in sizes.items() if size >= PEOPLE_PER_DONOR * count]
    return enough[0] if enough else max(sizes, key=lambda origin: sizes[origin])
