"""Effects of occlusion per record; over subjects their intervals and p-values, adjusted for covariates.

A region that carries the age alone speaks for the true class if age goes with the diagnosis. So the covariates z are
taken from the label y and from the effect d on the logit of autism, as `utils.scores.adjustment` says. The adjusted
effect is 2 (y - p(z)) (d - m(z)), with p and m by least squares.

Its mean is 0 if d is independent of y given z, where either p or m is right. This is the generalised covariance measure
(Shah & Peters 2020, Annals of Statistics 48:1514). Where covariates say nothing this is the effect on the true class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import stats

from data.cohorts.duplicates import SubjectGroups, find_group_leaders
from data.cohorts.rows import RecordRow
from utils.scores.adjustment import TOLD, Adjustment, residuals
from utils.scores.results import ALPHA
from utils.scores.statistics import blocks, bootstrap, orders

RESAMPLES = 5000
ROUNDING = 1e-5  # of what lies between -1 and 1, in float32


@dataclass(frozen=True)
class Effects:
    """Effects of a blackout by record, on the true class, and what goes with them: `arrays` as `blackout.h5` has them,
    by name. What the network does not read has none.

    Of each of `FILLS`: (records, regions) float64, on the logit; means over donors, with the control variate of
        `donors.control_variate_mean` if the fill has a `level`.
    `delta_probability`: (records, regions), the probability shown minus occluded with the background.
    `reliance_by_map`: (records, regions, maps) float32, `reliance` with the region of one map replaced; where edges of
        connectomes are replaced, these alone come last; no maps where nothing but one map is replaced.
    `region_means`: (records, regions, maps) float32, what people have in the regions, as the network reads it.
    `pair_reliance`: (records, pairs), `reliance` with the edges between two regions replaced (`connections.py`).
    `value_reliance`: (records, groups), `reliance` with a group of the phenotype's values replaced (`values.py`).
    `probability`: (records,) of autism with nothing occluded.

    Subjects of one of the `groups`, who share a scan or are of one family, are one unit of intervals and tests.
    """

    arrays: dict[str, np.ndarray]
    rows: Sequence[RecordRow]
    groups: SubjectGroups = ()

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    @property
    def label(self) -> np.ndarray:
        return np.array([row.label for row in self.rows])

    @property
    def subject(self) -> list[str]:
        return [row.subject for row in self.rows]

    @property
    def first(self) -> np.ndarray:
        """Of each record (records,) the first subject of its group, or its own."""
        leader = find_group_leaders(self.subject, self.groups)
        return np.array([leader[subject] for subject in self.subject])

    @property
    def unit(self) -> np.ndarray:
        """The number of the unit of each subject (subjects,)."""
        _, of_subject = np.unique(self.subject, return_index=True)
        return np.unique(self.first[of_subject], return_inverse=True)[1]

    def of_subjects(self, array: np.ndarray) -> np.ndarray:
        """The means over each subject's records, (records, ...) -> (subjects, ...)."""
        return by_subject(array, self.subject)


def joined(parts: Sequence[Effects]) -> Effects:
    """The effects of all folds, one fold after another."""
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].arrays}
    return Effects(arrays, [row for part in parts for row in part.rows])


def averaged(repeats: Sequence[Effects]) -> Effects:
    """The mean effects of each record over repeats, which may have the records in another order."""
    rows = repeats[0].rows
    places = [{row.file: at for at, row in enumerate(of.rows)} for of in repeats]
    orders = [[at[row.file] for row in rows] for at in places]
    aligned = [*zip(repeats, orders, strict=True)]
    names = repeats[0].arrays
    return Effects({name: np.mean([of[name][order] for of, order in aligned], axis=0) for name in names}, rows)


def by_subject(values: np.ndarray, subject: Sequence[str]) -> np.ndarray:
    """Means over the records of each subject, (records, ...) -> (subjects, ...), subjects in sorted order."""
    _, member = np.unique(subject, return_inverse=True)
    total = np.zeros((member.max() + 1, *values.shape[1:]))
    np.add.at(total, member, values)
    total /= np.bincount(member).reshape(-1, *[1] * (values.ndim - 1))
    return total


def sums(values: np.ndarray, unit: np.ndarray | None) -> np.ndarray:
    """The sums over the subjects of each unit, (subjects, ...) -> (units, ...); `unit` (subjects,) numbers them, and is
    None if each subject is one."""
    if unit is None:
        return values
    total = np.zeros((unit.max() + 1, *values.shape[1:]))
    np.add.at(total, unit, values)
    return total


def widened(effect: np.ndarray, by: float) -> np.ndarray:
    """Effects (subjects, regions) with the same means, and so many times as far from them."""
    mean = effect.mean(0)
    return mean + by * (effect - mean)


def mean_interval(
    effect: np.ndarray, seed: int, unit: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean effects (subjects, regions) with the low and high ends of their bootstrap intervals, (regions,) each. The
    subjects of a `unit`, see `sums`, are drawn together."""
    total, size = sums(effect, unit), sums(np.ones(len(effect)), unit)
    random = np.random.default_rng(seed)
    low, high = bootstrap(lambda weight: weight @ total / (weight @ size)[:, None], len(total), random, RESAMPLES)
    return effect.mean(0), low, high


class FamilyTest(NamedTuple):
    """A test of things that are tested together: family-wise `p` and false discovery rate `q` (things,), the statistic
    `t` (things,), and the `critical` t from which on a thing is significant. NaN where labels do not differ."""

    p: np.ndarray
    q: np.ndarray
    t: np.ndarray
    critical: float


def permutation_test(
    beside: "Beside",
    seed: int,
    unit: np.ndarray | None = None,
    widening: float = 1,
    permutations: int = RESAMPLES,
    site: np.ndarray | None = None,
) -> FamilyTest:
    """One-sided p-values: whether things speak for the true class.

    If a thing tells nothing of the label beside covariates, anybody could have anybody's label. So the residuals of
    labels are permuted over subjects, alike for all things, which keeps the dependence between these. Effects may be
    skewed and classes unequal. People of a `unit`, see `sums`, keep together and change places with units of as many
    people. `widening` is how much wider the spread of a mean is than that of independent people.

    With a `site` (subjects,) labels change places only within it: how residuals of labels are spread depends on the
    share of autism at a site, and effects may be larger at some sites.

    p compares the studentised covariance with the largest over things (Winkler et al. 2014). It is studentised since
    effects of one class may vary more (Chung & Romano 2013, Annals of Statistics 41:484). q is that of Benjamini &
    Hochberg (1995). NaN if labels do not differ.
    """
    label, effect = (of - of.mean(0) for of in (beside.label, beside.effect))
    count, things = effect.shape
    if np.ptp(label, axis=0).min() <= TOLD:
        undefined = np.full(things, np.nan)
        return FamilyTest(undefined, undefined, undefined, np.nan)
    size = np.sqrt(np.square(effect).mean(0))
    size[size <= TOLD * np.abs(beside.effect).max(0)] = np.inf  # a thing without any effect has no evidence
    label, effect = label.astype(np.float32), (effect / size).astype(np.float32)
    unit = np.arange(count) if unit is None else unit
    site = np.zeros(count, int) if site is None else np.unique(site, return_inverse=True)[1]
    observed = studentised(label, effect, unit, np.arange(count)[None])[0]
    rest = np.sqrt(np.maximum(1 - np.square(observed), 0))
    observed /= np.hypot(observed, widening * beside.widening * rest)
    random, alone, largest = np.random.default_rng(seed), np.ones(things), []
    for block in blocks(permutations, count):
        permuted = studentised(label, effect, unit, orders(unit, site, block.stop - block.start, random))
        alone += (permuted >= observed - ROUNDING).sum(0)
        largest.append(permuted.max(1))
    maxima = np.sort(np.concatenate(largest))
    as_large = len(maxima) - np.searchsorted(maxima, observed - ROUNDING)
    p, q = (1 + as_large) / (1 + permutations), stats.false_discovery_control(alone / (1 + permutations))
    units = len(np.unique(unit))
    return FamilyTest(p, q, as_t(observed, units), float(as_t(np.quantile(maxima, 1 - ALPHA), units)))


def as_t(studentised: np.ndarray, units: int) -> np.ndarray:
    """A studentised covariance between -1 and 1 as a t statistic of so many units."""
    return np.sqrt(units) * studentised / np.sqrt(np.maximum(1 - np.square(studentised), ROUNDING))


def studentised(label: np.ndarray, effect: np.ndarray, unit: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The sum of the products of effects (subjects, things) with the labels (subjects, 1 or things) of others, `order`
    (k, subjects) int, -> (k, things). It is over the root of the sum of squares over units, so that it rises with the
    studentised one, and lies between -1 and 1."""
    line, size = np.argsort(unit, kind="stable"), np.bincount(unit)
    apart = [np.stack([line[: len(line) - by], line[by:]]) for by in range(1, size.max())]
    one, other = np.hstack([np.empty((2, 0), int), *(two[:, unit[two[0]] == unit[two[1]]] for two in apart)])
    square, twice = np.square(effect), 2 * effect[one] * effect[other]  # of relatives, two at a time
    found = np.empty((len(order), effect.shape[1]), np.float32)
    for at, values in enumerate(label.T):
        drawn, things = values[order], slice(None) if label.shape[1] == 1 else [at]
        found[:, things] = drawn @ effect[:, things]
        scale = (drawn[:, one] * drawn[:, other]) @ twice[:, things] + np.square(drawn, out=drawn) @ square[:, things]
        found[:, things] /= np.sqrt((size > 0).sum() * np.maximum(scale, ROUNDING))
    return found


class Beside(NamedTuple):
    """What covariates leave. `net` (subjects, things) are the adjusted effects on the true class. `label` (subjects, 1
    or things) are the residuals of the labels, `effect` (subjects, things) those of the effects on the logit of autism.
    Regressions fit noise, too. So their covariance spreads `widening` (things,) times as far as they tell."""

    net: np.ndarray
    label: np.ndarray
    effect: np.ndarray
    widening: np.ndarray

    def of(self, people: np.ndarray) -> "Beside":
        """What they leave of these people, (subjects,) bool."""
        return Beside(self.net[people], self.label[people], self.effect[people], self.widening)


@dataclass(frozen=True)
class Adjusted:
    """Effects on the true class -> the same beside covariates; `label` (subjects,) has the order of `beside`."""

    beside: Adjustment
    label: np.ndarray

    def plain(self, effect: np.ndarray) -> Beside:
        """Effects (subjects, things) as they are."""
        on_autism = np.where(self.label == 1, 1, -1)[:, None] * effect
        return Beside(effect, self.label[:, None].astype(float), on_autism, np.ones(effect.shape[1]))

    def __call__(self, effect: np.ndarray) -> Beside:
        """Effects (subjects, things), in the same unit. Regressions fit noise, too. So the mean of the products of
        residuals is that of n - k people. Their distances from it are as in HC2 (MacKinnon & White 1985).
        """
        plain = self.plain(effect)
        if self.beside.reason:
            return plain
        followed, basis = self.beside.followed(self.label), cache(self.beside.basis)  # many things follow the same
        label = residuals(self.label, basis(frozenset(followed)))
        net, rest, widening = np.empty(effect.shape), np.empty(effect.shape), np.empty(effect.shape[1])
        for thing, values in enumerate(plain.effect.T):
            span = basis(frozenset(followed | self.beside.followed(values)))
            of_label, rest[:, thing] = residuals(np.column_stack([self.label, values]), span).T
            products, free = of_label * rest[:, thing], len(span) - span.shape[1]
            spread = products / np.sqrt(np.maximum(1 - np.square(span).sum(axis=1), TOLD))
            net[:, thing] = products.mean() + spread - spread.mean()
            net[:, thing] *= 2 * len(span) / max(free, 1)
            widening[thing] = np.sqrt(len(span) / (free + 1))
        return Beside(net, label[:, None], rest, widening)
