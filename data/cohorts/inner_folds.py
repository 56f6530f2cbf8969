"""Inner folds: the training subjects of an outer fold, divided as the outer folds are -> a cohort for each of them.

What is chosen by them has not seen whom the outer fold tests: these subjects are in neither split. If the outer folds
are the values of a column, such as sites, the inner ones are groups of the other values, so that here, too, models are
tested at sites that they have not seen.
"""

import warnings
from collections import Counter
from dataclasses import dataclass, replace

from sklearn.model_selection import StratifiedGroupKFold

from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.folds import Folds, by_number, check_classes, folds_of, smaller_class, split_of, subject_table
from data.cohorts.resplit import resplit
from data.cohorts.rows import ASIDE

MOST = 5  # inner folds; groups of values of a column
FEWEST = 2


@dataclass(frozen=True)
class InnerFolds:
    """`outer` is the cohort of an outer fold; `fold_of` gives each of its training subjects an inner fold."""

    outer: Cohort
    fold_of: dict[str, str]

    @property
    def names(self) -> list[str]:
        return sorted(set(self.fold_of.values()), key=int)

    def cohort(self, name: str, outer: Cohort) -> Cohort:
        """The cohort of the outer fold, as a model reads it, with an inner fold's subjects as test subjects; whom the
        outer fold tests are in no split."""
        inner = {subject: split_of(fold, name) for subject, fold in self.fold_of.items()}
        return resplit(outer, {row.subject: inner.get(row.subject, ASIDE) for row in outer.rows})


def inner_folds(folds: Folds, cohort: Cohort, seed: int) -> InnerFolds:
    """The inner folds of the cohort of one of these folds. Raises InputError if its training subjects are too few."""
    training = replace(cohort, rows=tuple(row for row in cohort.rows if row.split == "train"))
    values = {folds.fold_of[row.subject] for row in training.rows}
    count = min(MOST, smaller_class(training, folds.same_scan) if folds.are_numbered else len(values))
    if count < FEWEST:
        what = "subjects of a class" if folds.are_numbered else f"value of {folds.how}"
        raise InputError(
            f"--choose compares models within the training subjects of a fold, in {FEWEST} inner folds at least, and "
            f"without one fold {cohort.path} has {count} {what} left; use fewer or other --folds."
        )
    if folds.are_numbered:
        fold_of = by_number(training, str(count), seed, folds.same_scan)
    else:
        fold_of = by_value(training, folds, count, seed)
    try:
        check_classes(training, fold_of)
    except InputError as error:
        raise InputError(f"--choose cuts the training subjects of a fold into inner folds. {error}") from None
    return InnerFolds(cohort, fold_of)


def by_value(training: Cohort, folds: Folds, count: int, seed: int) -> dict[str, str]:
    """So many groups of values of the column, alike in size and in labels as far as that is possible."""
    subjects, label, _ = subject_table(training)
    value = [folds.fold_of[subject] for subject in subjects]
    stratum = label if min(Counter(label.tolist()).values()) >= count else [0] * len(label)
    splits = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(subjects, stratum, value)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return folds_of(subjects, [str(number) for number in range(count)], splits)
