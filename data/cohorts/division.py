"""Ways to divide the subjects of a cohort: into numbered folds, or by a column, such as the site."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from data.base.errors import InputError
from data.base.terminal import participants
from data.cohorts.cohort import Cohort
from data.cohorts.duplicates import Groups, leaders, tie
from data.cohorts.rows import Row, listed

SITE_COLUMN = "site"  # of subjects.csv
USUAL_FOLDS = 10  # where the classes are large enough
UNKNOWN_FOLD = "unknown"  # of subjects whose value of a covariate is missing


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
        bounds = f"Its smaller class has {participants(fewest)}; expected 2 to {fewest}." if fewest > 1 else ""
        raise InputError(f"--folds {how} cannot cut {cohort.path}. {bounds or people.advice}")
    fold = numbered_folds(people.label, people.site, people.unit, count, seed)
    return dict(zip(people.subjects, map(str, fold), strict=True))


def numbered_folds(label: np.ndarray, site: np.ndarray, unit: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The number of the fold of each of n people, in proportion over labels and sites; a unit is in one."""
    stratum = np.array([f"{of} {where}" for of, where in zip(label, site, strict=True)])
    if max(Counter(stratum.tolist()).values()) < count:  # scikit-learn wants one that can be in every fold
        stratum = label
    return stratified(stratum, unit, count, seed)


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
            print(f"{how} is not known of {participants(unknown)}, in a fold of their own, {UNKNOWN_FOLD}.")
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
            f"--folds {how} has {len(names)} values among {participants(len(fold_of))} of {cohort.path}, "
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
