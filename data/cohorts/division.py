"""Ways to divide the subjects of a cohort: into numbered folds, or by a column, such as the site."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

import numpy as np

from data.base.errors import InputError, shown, taken_for_one
from data.cohorts.cohort import Cohort
from data.cohorts.duplicates import leaders
from data.cohorts.rows import Row, listed

SITE_COLUMN = "site"  # of subjects.csv
MAX_FOLDER_NAME = 200  # of 255 characters, some of which are of the names of locks and unfinished folders
USUAL_FOLDS = 10  # where the classes are large enough
UNKNOWN_FOLD = "unknown"  # of subjects whose value of a covariate is missing


def subject_table(cohort: Cohort) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Subjects in the order of their first record, with their label and site. Raises InputError for one with two."""
    first: dict[str, Row] = {}
    differing = dict[str, dict[str, None]]()
    for row in cohort.rows:
        other = first.setdefault(row.subject, row)
        for name in ("label", "site"):
            if getattr(row, name) != getattr(other, name):
                differing.setdefault(name, {})[row.subject] = None
    if differing:
        told = " and ".join(f"two {name}s for subject {listed(list(of))}" for name, of in differing.items())
        raise InputError(f"{cohort.path} has {told}; folds need one. Correct the table.")
    rows = first.values()
    return list(first), np.array([row.label for row in rows]), np.array([row.site for row in rows])


def smaller_class(cohort: Cohort) -> int:
    """How many subjects it has; a group counts as its first one."""
    subjects, label, _ = subject_table(cohort)
    leader = leaders(subjects, cohort.groups)
    return min(Counter(of for subject, of in zip(subjects, label, strict=True) if leader[subject] == subject).values())


def by_number_advice(cohort: Cohort) -> str:
    """Which number of folds is possible."""
    count = min(USUAL_FOLDS, smaller_class(cohort))
    return f"Use --folds {count}." if count > 1 else "No folds are possible: one class has a single subject."


def by_number(cohort: Cohort, how: str, seed: int) -> dict[str, str]:
    """`how` folds, 0, 1, ..., in proportion over labels and sites; a group is in one."""
    subjects, label, site = subject_table(cohort)
    leader = leaders(subjects, cohort.groups)
    count, fewest = int(how), smaller_class(cohort)
    if not 2 <= count <= fewest:
        raise InputError(
            f"--folds {how} cannot cut {cohort.path}: its smaller class has {fewest} subjects; expected 2 to {fewest}."
        )
    fold = numbered(label, site, [*leader.values()], count, seed)
    return dict(zip(subjects, map(str, fold.tolist()), strict=True))


def numbered(
    label: np.ndarray, site: np.ndarray, unit: Sequence[str] | np.ndarray, count: int, seed: int
) -> np.ndarray:
    """The number of the fold of each of n people, in proportion over labels and sites; a unit is in one."""
    from sklearn.model_selection import StratifiedGroupKFold

    stratum, fold = [f"{of} {where}" for of, where in zip(label, site, strict=True)], np.zeros(len(label), int)
    if max(Counter(stratum).values()) < count:  # scikit-learn wants one that can be in every fold
        stratum = label.tolist()
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # a small site cannot be everywhere
        for number, (_, tested) in enumerate(splitter.split(stratum, stratum, unit)):
            fold[tested] = number
    return fold


def by_column(cohort: Cohort, how: str, seed: int) -> dict[str, str]:
    """A fold for each value of a column of `covariates.csv`, or for each site. A group goes to the fold of its first
    subject, which is printed."""
    from sklearn.model_selection import LeaveOneGroupOut

    subjects, _, site = subject_table(cohort)
    table, group = cohort.covariates, site.tolist()
    if table is not None and how in table:
        group = [value or UNKNOWN_FOLD for value in table[how]]
        if (unknown := group.count(UNKNOWN_FOLD)) and UNKNOWN_FOLD not in set(table[how]):
            print(f"{how} is not known of {unknown} subjects, who are a fold of their own, {UNKNOWN_FOLD}.")
    elif how != SITE_COLUMN:
        known = listed([SITE_COLUMN, *([] if table is None else table.columns)])
        raise InputError(f"--folds {how} is neither a number nor a column of {cohort.path}; it has {known}.")
    own, leader = dict(zip(subjects, group, strict=True)), leaders(subjects, cohort.groups)
    if moved := [
        f"{one} ({own[one]}) with {first} ({own[first]})" for one, first in leader.items() if own[one] != own[first]
    ]:
        told = f"Subjects who {cohort.tie(cohort.groups)} with one of another {how}"
        print(f"{told}, and are tested there: {listed(moved)}.")
        group = [own[first] for first in leader.values()]
    names = sorted(set(group))
    if len(names) < 2:
        raise InputError(
            f"--folds {how} has one value in {cohort.path}, {names[0] or 'an empty one'}; expected two or more. "
            f"{by_number_advice(cohort)}"
        )
    if 2 * len(names) > len(subjects):
        raise InputError(
            f"--folds {how} has {len(names)} values among {len(subjects)} subjects of {cohort.path}; expected groups. "
            f"{by_number_advice(cohort)}"
        )
    if long := [shown(name) for name in names if len(folder_name(name)) > MAX_FOLDER_NAME]:
        raise InputError(
            f"--folds {how} has the values {listed(long, 3)}, too long for names of folders; shorten them."
        )
    if alike := taken_for_one(names):
        raise InputError(
            f"--folds {how} has values in {cohort.path} that differ only in capitals or accents' encoding, "
            f"{listed(alike)}; expected names of folders. Write them alike."
        )
    return folds_of(subjects, names, LeaveOneGroupOut().split(subjects, groups=group))


def folds_of(subjects: list[str], names: list[str], splits: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, str]:
    """Subject -> the name of the split that tests it, in the order of `subjects`."""
    tested = {subjects[at]: name for name, (_, test) in zip(names, splits, strict=True) for at in test}
    return {subject: tested[subject] for subject in subjects}


def check_classes(cohort: Cohort, fold_of: Mapping[str, str]) -> None:
    """Raises InputError if a fold would be trained on one class."""
    label = {row.subject: row.label for row in cohort.rows}
    for name in set(fold_of.values()):
        if len({label[subject] for subject, fold in fold_of.items() if fold != name}) < 2:
            raise InputError(
                f"Without fold {name}, {cohort.path} has one class only; cut it otherwise. {by_number_advice(cohort)}"
            )


def folder_name(name: str) -> str:
    """A fold's name as the name of a folder, whatever characters a site's name has."""
    return quote(name, safe=" ()+,").replace(".", "%2E", name.startswith("."))
