"""Test metrics with 95 % intervals over subjects.

An interval is a bootstrap over subjects (`bootstrap`). The models of several folds share training subjects. Each pair
of subjects then meets twice: each of them helps to train the model that tests the other. What they have in common moves
the score twice. Resampling, which leaves the models as they are, sees it once. If models read noise, the variance is
therefore twice that of the bootstrap; Nadeau & Bengio (2003, Machine Learning 52:239) correct that of k folds by nearly
the same, 1 + k / (k - 1). `Predictions.widening` says how much wider an interval is made. How often it then holds the
truth, `tests/benchmarks/coverage.py` counts: that is the mean score on fresh people of models trained on as many.
"""

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from data.base.effort import EFFORT
from data.cohorts.peers import MAX_LOST_SHARE, MAX_PULL, compute_pull, mark_mixed_groups, number_site_folds
from utils.scores.results import (
    CHANCE_AUC,
    CONFIDENCE_LEVEL,
    HEADLINES,
    MIN_CLASS_SUBJECTS,
    SAME_SCAN,
    THRESHOLD,
    Estimate,
    simultaneous,
)
from utils.scores.statistics import Statistic, auc, bootstrap, mean_auc

COLUMNS = ("label", "probability", "subject", "site", "fold", SAME_SCAN)  # of `predictions.csv`, that are read
Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]  # weights of the records (k, n) -> (k,) each


class Repeat(NamedTuple):
    """What one repeat of a test is scored by: label (n,) and probability (n,) of autism, and the `groups` (n,) within
    which AUCs are taken, if there are several, by the name of that AUC."""

    label: np.ndarray
    probability: np.ndarray
    groups: dict[str, np.ndarray]


Scored = Callable[[Repeat, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Records whose label is known, and what a classifier predicts of them in each repeat of a test.

    Of each record (n,): `label`, 1 autism, 0 control; `subject`; `site`; `unit`, its subject, or the first of a group
    of subjects, who are drawn together. Of each repeat and record (repeats, n): the probability of autism, and the
    fold, which is the model that predicted it. Every score is the mean over repeats; the intervals are those of the
    folds of the first one. There, `trained` (n,) says how many units of the test were in the training of a record's
    model; they are 0 if all records have one model. `in_small_sites`: whether sites are so small (`compute_pull`), in
    any repeat, that the AUC within sites compares people of one fold only.
    """

    label: np.ndarray
    subject: np.ndarray
    site: np.ndarray
    unit: np.ndarray
    probabilities: np.ndarray
    folds: np.ndarray
    trained: np.ndarray
    in_small_sites: bool

    @classmethod
    def of(cls, *repeats: pd.DataFrame) -> "Predictions":
        """From tables with the columns of `predictions.csv`, one a repeat, of the same records in the same order, no
        label unknown. Without a column, all records are of one site, one fold, or a unit for each subject."""
        tables = [repeat.reindex(columns=COLUMNS, fill_value="") for repeat in repeats]
        label, site, subject = (tables[0][name].to_numpy() for name in ("label", "site", "subject"))
        leader = tables[0][SAME_SCAN]
        unit = np.where(leader.isna() | (leader == ""), subject, leader)
        probabilities, folds = (
            np.stack([table[name].to_numpy() for table in tables]) for name in ("probability", "fold")
        )
        sizes = Counter(folds[0, first_and_place(unit)[0]].tolist())
        trained = np.array([sizes.total() - sizes[fold] for fold in folds[0].tolist()])
        small = any(compute_pull(label, site, fold) > MAX_PULL for fold in folds)
        return cls(label.astype(float), subject, site, unit, probabilities.astype(float), folds, trained, small)

    @property
    def probability(self) -> np.ndarray:
        """The mean over repeats (n,)."""
        return self.probabilities.mean(0)

    @cached_property
    def peers(self) -> np.ndarray:
        """Whom the AUC within sites compares, in each repeat (repeats, n): people of one site, or of one fold there."""
        return np.stack(
            [number_site_folds(self.site, fold) if self.in_small_sites else self.site for fold in self.folds]
        )

    @cached_property
    def repeats(self) -> tuple[Repeat, ...]:
        """What each repeat is scored by."""
        found = []
        for probability, fold, peers in zip(self.probabilities, self.folds, self.peers, strict=True):
            groups = {"auc_sites": (self.site, peers), "auc_folds": (fold, fold)}
            several = {name: within for name, (of, within) in groups.items() if len(np.unique(of)) > 1}
            found.append(Repeat(self.label, probability, several))
        return tuple(found)

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """Those of the first repeat."""
        return self.repeats[0].groups

    @property
    def people(self) -> tuple[np.ndarray, np.ndarray]:
        """The first record of each subject (subjects,), and the place of each record's subject there (n,)."""
        return first_and_place(self.subject)

    @cached_property
    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """`people`, of whom those of a group count as one: the units of a bootstrap."""
        return first_and_place(self.unit)

    @property
    def in_one_class_sites(self) -> int:
        """Subjects whose peers are all of one class, in every repeat."""
        alone = [~mark_mixed_groups(self.label, peers) for peers in self.peers]
        return len(np.unique(self.subject[np.all(alone, axis=0)]))

    def with_probabilities(self, probabilities: ArrayLike) -> "Predictions":
        """Those of another classifier (repeats, n)."""
        return replace(self, probabilities=np.array(probabilities, float))

    def subset(self, rows: np.ndarray) -> "Predictions":
        """The records in `rows` (n,) bool; models and peers stay those of the whole test."""
        arrays = {of.name: getattr(self, of.name) for of in fields(self) if of.name != "in_small_sites"}
        return replace(self, **{name: array[..., rows] for name, array in arrays.items()})

    def count(self, rows: np.ndarray) -> int:
        """How many subjects the records in `rows` (n,) bool are of."""
        return len(np.unique(self.subject[rows]))

    def units(self, rows: np.ndarray) -> int:
        """How many units of a bootstrap they are of, whom an interval rests on."""
        return len(np.unique(self.unit[rows]))

    def bootstrap(self, statistic: Statistic, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of a statistic's interval over subjects; `statistic` takes records' weights. Those of a whole test
        are drawn within their fold, whose size is fixed. How many of a part, such as a site, are in a fold is chance;
        few are, and they hardly vary among themselves."""
        (first, member), random = self.drawn, np.random.default_rng(seed)
        strata = self.folds[0, first]
        is_part = len(first) < self.trained[0] + (strata == self.folds[0, 0]).sum()
        return bootstrap(
            lambda weight: statistic(weight[:, member]), len(first), random, resamples, None if is_part else strata
        )

    def widening(self, name: str) -> float:
        """How much wider the interval of a score of several folds is than that of the bootstrap; 1 for a single model.

        The variance grows by a share of a unit's training units: those who are themselves in the score, tested by
        another model. It is 1 if all are. An AUC within groups loses two degrees of freedom a group, one a class. A
        bootstrap loses one a fold: of units, of which a fold has few, more than of as many people.
        """
        if not self.trained.any():
            return 1.0
        first, _ = self.drawn
        own = Counter(self.folds[0, first].tolist())
        trained = dict(zip(self.folds[0].tolist(), self.trained.tolist(), strict=True))
        shares = [count * (len(first) - count) / max(trained[fold], 1) for fold, count in own.items()]
        of_people, of_units = (max(1 - len(own) / len(of), 1 / 2) for of in (self.people[0], first))
        variance = (1 + sum(shares) / len(first)) * of_people / of_units
        if name in self.groups:
            used = np.any(needed_groups(self.repeats[0], name), axis=0)
            lost = 2 * len(np.unique(self.groups[name][used])) / max(self.units(used), 1)
            variance /= 1 - min(lost, MAX_LOST_SHARE)
        return float(np.sqrt(variance))


def first_and_place(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of the different names (n,) stands first, in sorted order, and the place of each there (n,)."""
    _, first, place = np.unique(names, return_index=True, return_inverse=True)
    return first, place


def headline(scores: Container[str]) -> str:
    """The name of the AUC that a verdict rests on: within sites where there are several, else within folds."""
    return next(name for name in HEADLINES if name in scores)


def aucs(one: Repeat, weight: np.ndarray) -> dict[str, np.ndarray]:
    """The AUC of all records, and within each of the groups, (k,) each; see `mean_auc`."""
    within = {name: mean_auc(one.label, one.probability, weight, group) for name, group in one.groups.items()}
    return {"auc": auc(one.label, one.probability, weight)} | within


def headline_of(predictions: Predictions) -> tuple[str, float]:
    """The AUC that a verdict rests on, by its name; that of guessing if it is undefined."""
    areas = averaged(predictions, aucs, np.ones((1, len(predictions.label))))
    name = headline(areas)
    return name, float(np.nan_to_num(areas[name], nan=CHANCE_AUC)[0])


def brier(one: Repeat, weight: np.ndarray) -> np.ndarray:
    """The mean squared difference of probability and label, (k,)."""
    return weight @ np.square(one.probability - one.label) / weight.sum(1)


def scores(one: Repeat, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric of binary predictions (k,), one number for each of the weightings (k, n); NaN where a denominator is
    0. Probabilities are cut at THRESHOLD; for the AUCs see `aucs`."""
    positive, predicted = one.label == 1, one.probability >= THRESHOLD
    true_positive = weight @ (positive & predicted)
    false_positive = weight @ (~positive & predicted)
    false_negative = weight @ (positive & ~predicted)
    true_negative = weight @ (~positive & ~predicted)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = true_positive / (true_positive + false_negative)
        specificity = true_negative / (true_negative + false_positive)
        return {
            "accuracy": (true_positive + true_negative) / weight.sum(1),
            "balanced_accuracy": (recall + specificity) / 2,
            "recall": recall,
            "specificity": specificity,
            "precision": true_positive / (true_positive + false_positive),
            "f_score": 2 * true_positive / (2 * true_positive + false_positive + false_negative),
            "brier": brier(one, weight),
            **aucs(one, weight),
        }


def needed_groups(one: Repeat, name: str) -> tuple[np.ndarray, ...]:
    """The groups of records, (n,) bool each, without which a metric is undefined."""
    positive, everybody = one.label == 1, np.ones(len(one.label), bool)
    both = mark_mixed_groups(one.label, one.groups[name]) if name in one.groups else everybody
    needed = {
        **dict.fromkeys(("accuracy", "brier"), (everybody,)),
        **dict.fromkeys(("recall", "f_score"), (positive,)),
        "specificity": (~positive,),
        "precision": (one.probability >= THRESHOLD,),
    }
    return needed.get(name, (positive & both, ~positive & both))


def averaged(predictions: Predictions, scored: Scored, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Each score (k,) as its mean over the repeats that have it.
    A site may be in one fold of a repeat, whose AUC is then that within folds."""
    every = [scored(one, weight) for one in predictions.repeats]
    names = dict.fromkeys(name for one in every for name in one)
    found = {name: np.array([one.get(name, one["auc"]) for one in every]) for name in names}
    with np.errstate(invalid="ignore"):
        return {name: np.nansum(of, axis=0) / (~np.isnan(of)).sum(axis=0) for name, of in found.items()}


def intervals(
    predictions: Predictions, statistics: Statistics, seed: int, lowest: float = 0.0, among: int = 1
) -> dict[str, Estimate]:
    """The estimate of each statistic, which lies between `lowest` and 1.

    The interval is that of a bootstrap over subjects, within folds if given, made wider by `Predictions.widening`. Of a
    number that is read `among` others it is made `simultaneous`. There is none if one of the `needed_groups` of a
    statistic, of any repeat, has fewer subjects than MIN_CLASS_SUBJECTS; those who are drawn together count as one. All
    resamples of a perfect score are perfect. So no score is surer than that so many subjects pass all alike: that has
    probability 0.025 at its low end (Clopper & Pearson 1934). Differences, whose `lowest` is -1, have no such limit.
    """
    value, result = statistics(np.ones((1, len(predictions.label)))), {}
    ends = predictions.bootstrap(
        lambda weight: np.stack([*statistics(weight).values()], axis=1), seed, EFFORT.resamples
    )
    for name, at, *sides in zip(value, np.concatenate([*value.values()]), *ends, strict=True):
        fewest = min(predictions.units(rows) for one in predictions.repeats for rows in needed_groups(one, name))
        low, high = at + predictions.widening(name) * simultaneous(among) * (np.array(sides) - at)
        if lowest == 0:
            perfect = ((1 - CONFIDENCE_LEVEL) / 2) ** (1 / max(fewest, 1))
            low, high = min(low, perfect), max(high, 1 - perfect)
        within = np.clip((low, high), lowest, 1)
        result[name] = Estimate.of(at, *within) if fewest >= MIN_CLASS_SUBJECTS else Estimate.of(at)
    return result


def with_intervals(predictions: Predictions, seed: int) -> dict[str, Estimate]:
    """The estimate of each metric of `scores`, see `intervals`."""
    found = intervals(predictions, lambda weight: averaged(predictions, scores, weight), seed)
    return found | as_wide_as_shares(predictions, found)


def as_wide_as_shares(predictions: Predictions, found: dict[str, Estimate]) -> dict[str, Estimate]:
    """Balanced accuracy and F score. If recall or specificity is exactly 0 or 1, it is so in all resamples, too. Then
    each interval is at least what those of both make of it (Zou & Donner 2008, Stat Med 27:1693)."""
    names, shares = ("balanced_accuracy", "f_score"), [found[name].numbers for name in ("recall", "specificity")]
    if not any(value in (0, 1) for value, _, _ in shares):
        return {}
    controls = (predictions.label == 0).sum() / max((predictions.label == 1).sum(), 1)

    def of_both(recall: float, specificity: float) -> np.ndarray:
        return np.array([(recall + specificity) / 2, 2 * recall / (recall + 1 + (1 - specificity) * controls)])

    (recall, *recalls), (specificity, *specificities) = shares
    centre, result = of_both(recall, specificity), {}
    apart = [[of_both(one, specificity), of_both(recall, its)] for one, its in zip(recalls, specificities, strict=True)]
    reach = np.hypot(*np.nan_to_num(np.array(apart) - centre).swapaxes(0, 1))  # below and above, of each name
    for name, below, above in zip(names, *reach, strict=True):
        value, low, high = found[name].numbers
        result[name] = Estimate.of(value, min(low, value - below), max(high, value + above))
    return result


def differences(predictions: Predictions, other: Predictions, seed: int, among: int = 1) -> dict[str, Estimate]:
    """Each AUC, and the Brier score, minus that of another classifier of the same records: paired, see `intervals`."""

    def scored(one: Repeat, weight: np.ndarray) -> dict[str, np.ndarray]:
        return aucs(one, weight) | {"brier": brier(one, weight)}

    def statistics(weight: np.ndarray) -> dict[str, np.ndarray]:
        mine, its = (averaged(one, scored, weight) for one in (predictions, other))
        return {name: mine[name] - its[name] for name in mine}

    return intervals(predictions, statistics, seed, lowest=-1.0, among=among)
