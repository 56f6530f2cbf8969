"""Test metrics with 95 % intervals over subjects.

An interval is a bootstrap over subjects (`bootstrap`). The models of several folds share training subjects. Each pair
of subjects then meets twice: each of them helps to train the model that tests the other. What they have in common moves
the score twice. Resampling, which leaves the models as they are, sees it once. If models read noise, the variance is
therefore twice that of the bootstrap; Nadeau & Bengio (2003, Machine Learning 52:239) correct that of k folds by nearly
the same, 1 + k / (k - 1). `Predictions.widening` says how much wider an interval is made. How often it then holds the
truth, `tests/benchmarks/coverage.py` counts: that is the mean score on fresh people of models trained on as many.
"""

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from data.base.effort import EFFORT
from data.cohorts.peers import MOST_LOST, of_both_classes, peers_of, within_folds
from utils.scores.results import CHANCE, CONFIDENCE, MIN_PER_CLASS, SAME_SCAN, THRESHOLD, Estimate
from utils.scores.statistics import Statistic, auc, bootstrap, mean_auc, simultaneous

BINS = 10  # of the predicted probability, in the calibration error
Groups = tuple[np.ndarray, ...]
Statistics = Callable[[np.ndarray], dict[str, np.ndarray]]  # weights of the records (k, n) -> (k,) each
Scored = Callable[["Predictions", np.ndarray], dict[str, np.ndarray]]
HEADLINES = {"auc_sites": "AUC within sites", "auc_folds": "AUC within folds", "auc": "AUC"}  # see `headline`


@dataclass(frozen=True)
class Predictions:
    """Records whose label is known, and what a classifier predicts of them; all arrays are (n,).

    `label`: 1 autism, 0 control; `probability` of autism; `fold`: the model that predicted a record, None if there is
    one model only; `site`: None if it plays no part; `person`: the first of a group of subjects, who are drawn
    together, None if there are no groups. `tested`: the fold of each unit whom these folds test, if the
    records are of some of them. `several`: whether models of several folds predicted, also where no `fold` says which,
    as of means over repeats. `repeats`: the same records, predicted by the models of other folds; every score is the
    mean over these and this. `peers`: those whom the AUC within sites compares, made of the others unless it is given.
    They are people of one site. Where sites are small (`pull`), in this or a repeat, they are of one site and fold.
    Sequences are converted to arrays.
    """

    label: np.ndarray
    probability: np.ndarray
    subject: np.ndarray
    fold: np.ndarray | None = None
    site: np.ndarray | None = None
    tested: tuple = ()
    several: bool = False
    repeats: tuple["Predictions", ...] = ()
    person: np.ndarray | None = None
    peers: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("label", "probability", "subject", "fold", "site", "person", "peers"):
            values = getattr(self, name)
            object.__setattr__(self, name, None if values is None else np.asarray(values))
        if self.peers is None and self.site is not None:
            object.__setattr__(self, "peers", peers_of(self.label, self.site, self.fold))
        small = [one.in_small_sites for one in self.all]
        if any(small) and not all(small):  # else a mean over repeats would be one of two different scores
            object.__setattr__(self, "peers", within_folds(self.site, self.fold))
            others = tuple(replace(one, peers=within_folds(one.site, one.fold)) for one in self.repeats)
            object.__setattr__(self, "repeats", others)

    @classmethod
    def of(cls, table: pd.DataFrame, several: bool = False) -> "Predictions":
        """From a table with the columns of `predictions.csv`, no label unknown. Some of the columns may be absent."""
        label, probability = table["label"].to_numpy(float), table["probability"].to_numpy(float)
        fold, site, person = (table[name].to_numpy() if name in table else None for name in ("fold", "site", SAME_SCAN))
        person = None if person is None else np.where(pd.isna(person) | (person == ""), table["subject"], person)
        return cls(label, probability, table["subject"].to_numpy(), fold, site, several=several, person=person)

    @property
    def all(self) -> tuple["Predictions", ...]:
        """This and its repeats."""
        return self, *self.repeats

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """The sites and folds, where there are several, by the name of the AUC within them."""
        groups = {"auc_sites": self.peers, "auc_folds": self.fold}
        of = {"auc_sites": self.site, "auc_folds": self.fold}
        several = [name for name, group in of.items() if group is not None and len(np.unique(group)) > 1]
        return {name: group for name, group in groups.items() if group is not None and name in several}

    @property
    def people(self) -> tuple[np.ndarray, np.ndarray]:
        """The first record of each subject (subjects,), and the place of each record's subject there (n,)."""
        return first_and_place(self.subject)

    @property
    def unit(self) -> np.ndarray:
        """Who is drawn with each record (n,): the first of its group, or its subject."""
        return self.subject if self.person is None else self.person

    @property
    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """`people`, of whom those of a group count as one: the units of a bootstrap."""
        return first_and_place(self.unit)

    @property
    def in_one_class_sites(self) -> int:
        """Subjects whose peers are all of one class, in every repeat."""
        if self.peers is None:
            return 0
        alone = [~of_both_classes(one.label, one.peers) for one in self.all if one.peers is not None]
        return len(np.unique(self.subject[np.all(alone, axis=0)]))

    @property
    def in_small_sites(self) -> bool:
        """Whether sites are so small that only people of one fold are compared."""
        return self.peers is not None and self.site is not None and not np.array_equal(self.peers, self.site)

    def with_probabilities(self, probabilities: Sequence[np.ndarray]) -> "Predictions":
        """Those of another classifier (n,), for this and each of the repeats."""
        every = [replace(one, probability=own) for one, own in zip(self.all, probabilities, strict=True)]
        return replace(every[0], repeats=tuple(every[1:]))

    def subset(self, rows: np.ndarray) -> "Predictions":
        """The records in `rows` (n,) bool as a test of their own."""
        each = (self.fold, self.site, self.person, self.peers)
        fold, site, person, peers = (None if of is None else of[rows] for of in each)
        tested = () if self.fold is None else self.tested or tuple(self.fold[self.drawn[0]])
        of_records = {name: getattr(self, name)[rows] for name in ("label", "probability", "subject")}
        repeats = tuple(one.subset(rows) for one in self.repeats)
        own = replace(self, **of_records, fold=fold, site=site, person=person, peers=peers, repeats=())
        return replace(own, tested=tested, repeats=repeats)

    def count(self, rows: np.ndarray) -> int:
        """How many subjects the records in `rows` (n,) bool are of."""
        return len(np.unique(self.subject[rows]))

    def units(self, rows: np.ndarray) -> int:
        """How many units of a bootstrap they are of, whom an interval rests on."""
        return len(np.unique(self.unit[rows]))

    def bootstrap(self, statistic: Statistic, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of a statistic's interval over subjects, within their fold; `statistic` takes records' weights."""
        first, member = self.drawn
        strata, random = None if self.fold is None else self.fold[first], np.random.default_rng(seed)
        return bootstrap(lambda weight: statistic(weight[:, member]), len(first), random, resamples, strata)

    def widening(self, name: str) -> float:
        """How much wider the interval of a score of several folds is than that of the bootstrap; 1 for a single model.

        The variance grows by a share of a unit's training units: those who are themselves in the score, tested by
        another model. It is 1 if all are. An AUC within groups loses two degrees of freedom a group, one a class. A
        bootstrap loses one a fold: of units, of which a fold has few, more than of as many people.
        """
        if self.fold is None:
            return float(np.sqrt(1 + self.several))
        fold = self.fold[self.drawn[0]]
        own, every = Counter(fold.tolist()), Counter(self.tested or fold.tolist())
        shares = [count * (len(fold) - count) / max(every.total() - every[of], 1) for of, count in own.items()]
        of_people, of_units = (max(1 - len(own) / len(first), 1 / 2) for first in (self.people[0], fold))
        variance = (1 + sum(shares) / len(fold)) * of_people / of_units
        if name in self.groups:
            used = np.any(needed_groups(self)[name], axis=0)
            lost = 2 * len(np.unique(self.groups[name][used])) / max(self.units(used), 1)
            variance /= 1 - min(lost, MOST_LOST)
        return float(np.sqrt(variance))


def first_and_place(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of the different names (n,) stands first, in sorted order, and the place of each there (n,)."""
    _, first, place = np.unique(names, return_index=True, return_inverse=True)
    return first, place


def headline(scores: Container[str]) -> str:
    """The name of the AUC that a verdict rests on: within sites where there are several, else within folds."""
    return next(name for name in HEADLINES if name in scores)


def aucs(predictions: Predictions, weight: np.ndarray) -> dict[str, np.ndarray]:
    """The AUC of all records, and within each of `Predictions.groups`, (k,) each; see `mean_auc`."""
    label, probability = predictions.label, predictions.probability
    within = {name: mean_auc(label, probability, weight, group) for name, group in predictions.groups.items()}
    return {"auc": auc(label, probability, weight)} | within


def headline_of(predictions: Predictions) -> tuple[str, float]:
    """The AUC that a verdict rests on, by its name; that of guessing if it is undefined."""
    areas = aucs(predictions, np.ones((1, len(predictions.label))))
    name = headline(areas)
    return name, float(np.nan_to_num(areas[name], nan=CHANCE)[0])


def brier(predictions: Predictions, weight: np.ndarray) -> np.ndarray:
    """The mean squared difference of probability and label, (k,)."""
    return weight @ np.square(predictions.probability - predictions.label) / weight.sum(1)


def calibration_gaps(label: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(k, BINS) mean probability minus share of autism in each bin, times the bin's share of the records.

    Their absolute values add up to the expected calibration error.
    """
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gap = (probability - label)[:, None] * (bins[:, None] == np.arange(BINS))
    return weight @ gap / weight.sum(1, keepdims=True)


def scores(predictions: Predictions, weight: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of `measured`, (k,) each."""
    return {name: value for name, (value, _) in measured(predictions, weight).items()}


def needed_groups(predictions: Predictions) -> dict[str, Groups]:
    """The groups of records, (n,) bool each, without which each metric is undefined."""
    found = measured(predictions, np.ones((1, len(predictions.label))))
    return {name: groups for name, (_, groups) in found.items()} | {"noise": found["calibration_error"][1]}


def measured(predictions: Predictions, weight: np.ndarray) -> dict[str, tuple[np.ndarray, Groups]]:
    """Each metric of binary predictions, and the groups of records, (n,) bool each, without which it is undefined. The
    metric is (k,), one number for each of the weightings (k, n); NaN where a denominator is 0.

    Probabilities are cut at THRESHOLD. `auc` compares all records. `auc_sites` and `auc_folds` compare those of one
    site or fold, if there are several: see `mean_auc`.
    """
    label, probability = predictions.label, predictions.probability
    positive, predicted, everybody = label == 1, probability >= THRESHOLD, np.ones(len(label), bool)
    true_positive = weight @ (positive & predicted)
    false_positive = weight @ (~positive & predicted)
    false_negative = weight @ (positive & ~predicted)
    true_negative = weight @ (~positive & ~predicted)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = true_positive / (true_positive + false_negative)
        specificity = true_negative / (true_negative + false_positive)
        f_score = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
        gaps = calibration_gaps(label, probability, weight)
        result: dict[str, tuple[np.ndarray, Groups]] = {
            "accuracy": ((true_positive + true_negative) / weight.sum(1), (everybody,)),
            "balanced_accuracy": ((recall + specificity) / 2, (positive, ~positive)),
            "recall": (recall, (positive,)),
            "specificity": (specificity, (~positive,)),
            "precision": (true_positive / (true_positive + false_positive), (predicted,)),
            "f_score": (f_score, (positive,)),
            "auc": (auc(label, probability, weight), (positive, ~positive)),
            "brier": (brier(predictions, weight), (everybody,)),
            "calibration_error": (np.abs(gaps).sum(1), (everybody,)),
        }
    for name, group in predictions.groups.items():
        both = of_both_classes(label, group)
        result[name] = mean_auc(label, probability, weight, group), (positive & both, ~positive & both)
    return result


def averaged(predictions: Predictions, scored: Scored, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Each score (k,) as its mean over the repeats that have it.
    A site may be in one fold of a repeat, whose AUC is then that within folds."""
    every = [scored(one, weight) for one in predictions.all]
    names = dict.fromkeys(name for one in every for name in one)
    found = {name: np.array([one.get(name, one["auc"]) for one in every]) for name in names}
    with np.errstate(invalid="ignore"):
        return {name: np.nansum(of, axis=0) / (~np.isnan(of)).sum(axis=0) for name, of in found.items()}


def least_of_all(units: int) -> float:
    """Low end of the share that passes, if all of so many units did (Clopper & Pearson 1934)."""
    return ((1 - CONFIDENCE) / 2) ** (1 / max(units, 1))


def intervals(
    predictions: Predictions, statistics: Statistics, seed: int, lowest: float = 0.0, among: int = 1
) -> dict[str, Estimate]:
    """The estimate of each statistic, which lies between `lowest` and 1.

    The interval is that of a bootstrap over subjects, within folds if given, made wider by `Predictions.widening`. Of a
    number that is read `among` others it is made `simultaneous`. There is none if one of the `needed_groups` of a
    statistic, of any repeat, has fewer subjects than MIN_PER_CLASS; those who are drawn together count as one. All
    resamples of a perfect score are perfect. So no score is surer than that so many subjects pass all alike: that has
    probability 0.025 at its low end (Clopper & Pearson 1934). Differences, whose `lowest` is -1, have no such limit.
    """
    needed, result = [needed_groups(one) for one in predictions.all], {}
    value = statistics(np.ones((1, len(predictions.label))))
    ends = predictions.bootstrap(
        lambda weight: np.stack([*statistics(weight).values()], axis=1), seed, EFFORT.resamples
    )
    for name, at, *sides in zip(value, np.concatenate([*value.values()]), *ends, strict=True):
        fewest = min(predictions.units(rows) for of in needed for rows in of.get(name, of["auc"]))
        low, high = at + predictions.widening(name) * simultaneous(among) * (np.array(sides) - at)
        if lowest == 0:
            perfect = least_of_all(fewest)
            low, high = min(low, perfect), max(high, 1 - perfect)
        within = np.clip((low, high), lowest, 1)
        result[name] = Estimate.of(at, *within) if fewest >= MIN_PER_CLASS else Estimate.of(at)
    return result


def with_intervals(predictions: Predictions, seed: int) -> dict[str, Estimate]:
    """The estimate of each metric of `scores`, see `intervals`.

    Noise alone makes a calibration error, and percentiles of resamples, which are noisier than the sample, would never
    hold 0. Its interval is the value and, on both sides, how far the gaps of resamples are from those of the sample.
    """
    everybody = np.ones((1, len(predictions.label)))

    def scored(one: Predictions, weight: np.ndarray) -> dict[str, np.ndarray]:
        gaps = [calibration_gaps(one.label, one.probability, of) for of in (weight, everybody)]
        return scores(one, weight) | {"noise": np.abs(gaps[0] - gaps[1]).sum(1)}

    found = intervals(predictions, lambda weight: averaged(predictions, scored, weight), seed)
    found |= as_wide_as_shares(predictions, found)
    value, noise = found["calibration_error"].value, found.pop("noise").high
    if value is not None and noise is not None:
        found["calibration_error"] = Estimate(value, max(value - noise, 0.0), min(value + noise, 1.0))
    return found


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

    def scored(one: Predictions, weight: np.ndarray) -> dict[str, np.ndarray]:
        return aucs(one, weight) | {"brier": brier(one, weight)}

    def statistics(weight: np.ndarray) -> dict[str, np.ndarray]:
        mine, its = (averaged(one, scored, weight) for one in (predictions, other))
        return {name: mine[name] - its[name] for name in mine}

    return intervals(predictions, statistics, seed, lowest=-1.0, among=among)
