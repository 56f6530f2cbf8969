"""Ways to divide the subjects of a cohort: into numbered folds, of participants or of whole sites, or by a column."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from data.base.errors import InputError, parse_natural_number
from data.base.terminal import format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.duplicates import Groups, leaders, tie, united
from data.cohorts.rows import Row, listed

SITE_COLUMN = "site"  # of subjects.csv
USUAL_FOLDS = 10  # where the classes are large enough
UNKNOWN_FOLD = "unknown"  # of subjects whose value of a covariate is missing
WHOLE_SITES = "-wholeSites"  # ends the name of numbered folds of whole sites


@dataclass(frozen=True)
class Division:
    """How people are divided: into `count` folds, of participants or of whole sites, or, if that is 0, by a column."""

    count: int
    whole_sites: bool
    column: str

    @classmethod
    def parse(cls, name: str) -> "Division":
        """`10`, `10-wholeSites` or a column, as `folds` in `run.json` has it."""
        count = parse_natural_number(name.removesuffix(WHOLE_SITES))
        return cls(0, False, name) if count is None else cls(count, name.endswith(WHOLE_SITES), "")

    @property
    def flags(self) -> str:
        """The options of run.py that say it."""
        return f"--folds {self.column or self.count}{' --wholeSites' if self.whole_sites else ''}"

    @property
    def holds_groups_out(self) -> bool:
        """Whether each person is predicted by a model that has seen nobody of the same site, or value of a column."""
        return self.whole_sites or bool(self.column)

    @property
    def words(self) -> str:
        """How people are left out."""
        if self.column:
            return f"leaving out one {self.column} at a time"
        return f"in {self.count} folds{' of whole sites' if self.whole_sites else ''}"


class Subjects(NamedTuple):
    """Subjects in the order of their first record, with their label and site, (n,) each; and the unit that is in one
    fold, by its first subject."""

    subjects: list[str]
    label: np.ndarray
    site: np.ndarray
    unit: np.ndarray

    @property
    def smaller_class(self) -> int:
        """How many subjects it has; a unit counts as its first one."""
        label = self.label[self.unit == np.array(self.subjects)]
        return min(int(np.count_nonzero(label == value)) for value in (0, 1))

    @property
    def advice(self) -> str:
        """Which number of folds is possible."""
        if self.smaller_class < 2:
            return f"Folds take two participants of each class; the smaller class has {self.smaller_class}. Add others."
        return f"Use --folds {min(USUAL_FOLDS, self.smaller_class)}."


def subjects_of(rows: Iterable[Row], groups: Groups) -> Subjects:
    first = {row.subject: row for row in reversed([*rows])}
    subjects = list(dict.fromkeys(row.subject for row in rows))
    label, site = (np.array([getattr(first[subject], name) for subject in subjects]) for name in ("label", "site"))
    return Subjects(subjects, label, site, np.array(list(leaders(subjects, groups).values())))


def by_number(cohort: Cohort, how: str, seed: int) -> dict[str, str]:
    """`how` folds, 0, 1, ..., in proportion over labels and sites; a group is in one."""
    people, count = subjects_of(cohort.rows, cohort.groups), int(how)
    fewest = people.smaller_class
    if not 2 <= count <= fewest:
        bounds = f"Its smaller class has {format_participants(fewest)}; expected 2 to {fewest}." if fewest > 1 else ""
        raise InputError(f"--folds {how} cannot cut {cohort.path}. {bounds or people.advice}")
    fold = numbered_folds(people.label, people.site, people.unit, count, seed)
    return dict(zip(people.subjects, map(str, fold), strict=True))


def numbered_folds(label: np.ndarray, site: np.ndarray, unit: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The number of the fold of each of n people, in proportion over labels and sites; a unit is in one."""
    stratum = np.array([f"{of} {where}" for of, where in zip(label, site, strict=True)])
    if max(Counter(stratum.tolist()).values()) < count:  # scikit-learn wants one that can be in every fold
        stratum = label
    return stratified(stratum, unit, count, seed)


def by_whole_sites(cohort: Cohort, count: int, seed: int) -> dict[str, str]:
    """`count` folds, 0, 1, ..., of whole sites; sites that share a group are in one."""
    people = subjects_of(cohort.rows, cohort.groups)
    site = joined_sites(people)
    sites = len(np.unique(site))
    if not 2 <= count <= sites:
        joined = ", of which those that share participants count once" if sites < len(np.unique(people.site)) else ""
        expected = f"expected 2 to {sites}. Use --folds {sites} --wholeSites."
        raise InputError(
            f"--folds {count} --wholeSites cannot cut {cohort.path}. It has {sites} site{'s'[: sites != 1]}{joined}; "
            f"{expected if sites > 1 else f'expected several. {people.advice}'}"
        )
    return dict(zip(people.subjects, map(str, site_folds(people.label, site, count, seed)), strict=True))


def joined_sites(people: Subjects) -> np.ndarray:
    """The site of each person (n,); of sites that share a family or a scan, the first."""
    units: dict[str, set[str]] = {}
    for unit, site in zip(people.unit.tolist(), people.site.tolist(), strict=True):
        units.setdefault(unit, set()).add(site)
    sites = np.unique(people.site).tolist()
    first = leaders(sites, united([sorted(names) for names in units.values() if len(names) > 1]))
    return np.array([first[site] for site in people.site.tolist()])


def site_folds(label: np.ndarray, site: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The number of the fold of each of n people, of whole sites: the largest first, each goes to the fold that has
    fewest of the people that it adds, by class and in all. The seed orders sites of one size.

    scikit-learn's StratifiedGroupKFold takes large sites with as many of both classes last: ten folds of sites of 16 to
    150 people then had 55 to 178, these 65 to 150.
    """
    names, place = np.unique(site, return_inverse=True)
    kinds = (label == 0, label == 1, np.ones(len(label)))
    sizes = np.stack([np.bincount(place, kind, len(names)) for kind in kinds], axis=1)  # (sites, kinds)
    weight = 1 / np.maximum(sizes.sum(0), 1) ** 2

    shuffled = np.random.default_rng(seed).permutation(len(names))
    largest_first = shuffled[np.argsort(-sizes[shuffled, -1], kind="stable")]
    fold_of_site = np.zeros(len(names), int)
    held = np.zeros((count, len(kinds)))  # by each fold so far
    for number in largest_first:
        fold_of_site[number] = np.argmin(held @ (weight * sizes[number]))
        held[fold_of_site[number]] += sizes[number]
    return fold_of_site[place]


def stratified(stratum: np.ndarray, unit: Sequence[str] | np.ndarray, count: int, seed: int) -> np.ndarray:
    """The number of the fold of each of n people, in proportion over strata; a unit is in one."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.zeros(len(stratum), int)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # a small site cannot be everywhere
        for number, (_, tested) in enumerate(splitter.split(stratum, stratum, unit)):
            fold[tested] = number
    return fold


def by_column(cohort: Cohort, how: str) -> dict[str, str]:
    """A fold for each value of a column of `covariates.csv`, or for each site. A group goes to the fold of its first
    subject, which is printed."""
    people, table = subjects_of(cohort.rows, cohort.groups), cohort.covariates
    value = dict(zip(people.subjects, people.site.tolist(), strict=True))
    if table is not None and how in table:
        value = table[how].replace("", UNKNOWN_FOLD).to_dict()
        if unknown := (table[how] == "").sum():
            print(f"{how} is not known of {format_participants(unknown)}, in a fold of their own, {UNKNOWN_FOLD}.")
    elif how != SITE_COLUMN:
        known = listed(list(dict.fromkeys([SITE_COLUMN, *([] if table is None else table.columns)])))
        raise InputError(f"--folds {how} is neither a number nor a column of {cohort.path}; it has {known}.")
    fold_of = {subject: value[first] for subject, first in zip(people.subjects, people.unit.tolist(), strict=True)}
    if moved := [f"{one} ({value[one]}) to {fold}" for one, fold in fold_of.items() if fold != value[one]]:
        told = f"Participants who {tie(cohort.groups, cohort.metadata)} with one of another {how}"
        print(f"{told}, and are tested there: {listed(moved)}.")
    names = sorted(set(fold_of.values()))
    if not 2 <= len(names) <= len(fold_of) / 2:
        raise InputError(
            f"--folds {how} has {len(names)} values among {format_participants(len(fold_of))} of {cohort.path}, "
            f"{listed(names, 3)}; expected two groups or more. {people.advice}"
        )
    return fold_of


def check_classes(cohort: Cohort, fold_of: Mapping[str, str], what: str = "fold") -> None:
    """Raises InputError if a fold would be trained on one class; `what` is it, in words."""
    label = {row.subject: row.label for row in cohort.rows}
    for name in set(fold_of.values()):
        if len({label[subject] for subject, fold in fold_of.items() if fold != name}) < 2:
            advice = subjects_of(cohort.rows, cohort.groups).advice
            raise InputError(f"Without {what} {name}, {cohort.path} has one class only; cut it otherwise. {advice}")


def folder_name(name: str) -> str:
    """A fold's name as the name of a folder, whatever characters a site's name has."""
    return quote(name, safe=" ()+,").replace(".", "%2E", name.startswith("."))
