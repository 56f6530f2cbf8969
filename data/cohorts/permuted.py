"""Labels permuted within sites: a cohort on which there is nothing to find, with the same people, scans and sites."""

from collections import defaultdict

import numpy as np

from data.cohorts.folds import Folds, by_number, check_classes, subject_table
from data.cohorts.rows import leaders


def permuted_labels(folds: Folds, random: np.random.Generator) -> dict[str, float]:
    """Subject -> label, drawn anew. Subjects who share a scan are one unit, whose labels go together to another unit of
    as many subjects; units are exchanged within their site."""
    subjects, label, site = subject_table(folds.whole)
    leader, members = leaders(subjects, folds.same_scan), defaultdict(list)
    for at, subject in enumerate(subjects):
        members[leader[subject]].append(at)
    alike = defaultdict(list)  # units that may be exchanged
    for unit in members.values():
        alike[site[unit[0]], len(unit)].append(unit)
    found: dict[str, float] = {}
    for units in alike.values():
        for unit, source in zip(units, random.permutation(np.array(units)), strict=True):
            found |= {subjects[to]: float(label[of]) for to, of in zip(unit, source, strict=True)}
    return found


def permuted_folds(folds: Folds, seed: int, number: int) -> Folds:
    """The folds of the cohort with permuted labels: numbered ones are cut anew by these labels, as before by the true
    ones; others, and those of reduced cohorts, stay. `number` tells one permutation of a seed."""
    label = permuted_labels(folds, np.random.default_rng((seed, number)))
    whole, fold_of = folds.whole.relabelled(label), folds.fold_of
    if folds.are_numbered and not folds.reduced:
        fold_of = by_number(whole, folds.how, seed, folds.same_scan)
    check_classes(whole, fold_of)
    reduced = {name: cohort.relabelled(label) for name, cohort in folds.reduced.items()}
    return Folds(folds.how, whole, folds.digest, fold_of, reduced, folds.same_scan)
