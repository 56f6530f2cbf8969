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

import numpy as np
from scipy import stats

from data.cohorts.records import CLASSES
from data.cohorts.rows import Groups, Row, leaders
from utils.blackout.fills import FILLS
from utils.scores.adjustment import TOLD, Adjustment, residuals
from utils.scores.statistics import bootstrap

ONE_SUBJECT = "no interval: one subject"
RESAMPLES = 5000
ROUNDING = 1e-12  # of a mean over a root mean square, which lies between -1 and 1


OF_BLOBS = ("blob_excess", "group")
ARRAYS = (
    *(fill.stored for fill in FILLS), "delta_probability", "reliance_by_map", "region_means", *OF_BLOBS,
    "pair_reliance", "value_reliance", "probability",
)  # fmt: skip


@dataclass(frozen=True)
class Effects:
    """Effects of a blackout by record, all on the true class: `arrays` as `blackout.h5` has them, by name. What the
    network does not read has none.

    Of each of `FILLS`: (records, regions) float64, on the logit; means over donors, with the control variate of
        `measure.control_variate_mean` if the fill has a `level`.
    `delta_probability`: (records, regions), the probability shown minus occluded with the background.
    `reliance_by_map`: (records, regions, maps) float32, `reliance` with the region of one map replaced; where edges of
        connectomes are replaced, these alone come last; no maps where nothing but one map is replaced.
    `blob_excess`: (records, regions, blobs), the effect of a blob of the region's size minus that of the region, both
        filled with the same donor; NaN where there was no room for a blob. Of repeats, (repeats x records, ...).
    `group`: (records,) int, the records that share their blobs; of repeats, (repeats x records,).
    `region_means`: (records, regions, maps) float32, what people have in the regions, as the network reads it.
    `pair_reliance`: (records, pairs), `reliance` with the edges between two regions replaced (`connections.py`).
    `value_reliance`: (records, groups), `reliance` with a group of the phenotype's values replaced (`values.py`).
    `probability`: (records,) of autism with nothing occluded.

    Subjects of one of the `groups`, who share a scan or are of one family, are one unit of intervals and tests.
    """

    arrays: dict[str, np.ndarray]
    rows: Sequence[Row]
    groups: Groups = ()

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
    def blob_subject(self) -> list[str]:
        """The subject of each row of `blob_excess`."""
        return self.subject * (len(self["group"]) // len(self.rows))

    @property
    def first(self) -> np.ndarray:
        """Of each record (records,) the first subject of its group, or its own."""
        leader = leaders(self.subject, self.groups)
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
    """The effects of all folds, one fold after another. Where a fold has fewer blobs, the others are NaN."""
    arrays = {name: [part[name] for part in parts] for name in parts[0].arrays}
    if "group" in arrays:
        first_group = np.cumsum([0, *(group.max() + 1 for group in arrays["group"])])
        arrays["group"] = [group + first for group, first in zip(arrays["group"], first_group, strict=False)]
        blobs = max(excess.shape[2] for excess in arrays["blob_excess"])
        for at, excess in enumerate(arrays["blob_excess"]):
            missing = ((0, 0), (0, 0), (0, blobs - excess.shape[2]))
            arrays["blob_excess"][at] = np.pad(excess, missing, constant_values=np.nan)
    rows = [row for part in parts for row in part.rows]
    return Effects({name: np.concatenate(values) for name, values in arrays.items()}, rows)


def averaged(repeats: Sequence[Effects]) -> Effects:
    """The mean effects of each record over repeats, which may have the records in another order; the blobs of all
    repeats, one repeat after another."""
    rows = repeats[0].rows
    places = [{row.file: at for at, row in enumerate(of.rows)} for of in repeats]
    orders = [[at[row.file] for row in rows] for at in places]
    aligned = [
        Effects({name: array[order] for name, array in of.arrays.items()}, rows)
        for of, order in zip(repeats, orders, strict=True)
    ]
    every = joined(aligned).arrays
    means = {name: np.mean([of[name] for of in aligned], axis=0) for name in every if name not in OF_BLOBS}
    return Effects(every | means, rows)


def by_subject(values: np.ndarray, subject: Sequence[str]) -> np.ndarray:
    """Means over the records of each subject, (records, ...) -> (subjects, ...), subjects in sorted order."""
    _, member = np.unique(subject, return_inverse=True)
    total = np.zeros((member.max() + 1, *values.shape[1:]))
    np.add.at(total, member, values)
    return total / np.bincount(member).reshape(-1, *[1] * (values.ndim - 1))


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


def sign_flip_test(
    effect: np.ndarray, label: np.ndarray, seed: int, unit: np.ndarray | None = None, flips: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """One-sided p-values, family-wise, and false discovery rates q (regions,) of mean effects (subjects, regions).

    If a region's content can be exchanged with that of other people, its effect on the logit of autism has the mean 0.
    Signed by the true class (`label` (subjects,)), the effect is then about as likely as its negative; the more equal
    the classes are in number, the better this holds. So the signs of whole subjects are flipped, which keeps the
    dependence between regions. Those of a `unit`, see `sums`, are flipped together.

    p compares the studentised mean with the largest over regions (Winkler et al. 2014). q is that of Benjamini &
    Hochberg (1995). The mean over the root mean square replaces the studentised mean: each rises with the other, and it
    is always finite. NaN if all subjects are of one class.
    """
    effect = sums(effect, unit)
    count, regions = effect.shape
    if len(np.unique(label)) < len(CLASSES):
        return np.full(regions, np.nan), np.full(regions, np.nan)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (1 + flips, count))
    signs[0] = 1
    size = np.sqrt(np.square(effect).mean(0))
    size[size == 0] = np.inf  # a region without any effect has no evidence
    means = signs @ (effect / (count * size))
    observed = means[0] - ROUNDING
    family_wise = (means.max(1)[:, None] >= observed).mean(0)
    return family_wise, stats.false_discovery_control((means >= observed).mean(0))


def size_percentile(excess: np.ndarray, group: np.ndarray, subject: Sequence[str]) -> np.ndarray:
    """The share in per cent (regions,) of blobs whose mean effect is below that of the region on the same subjects.

    `excess` (records, regions, blobs) is the effect of a blob minus that of the region; records with the same `group`
    (records,) share their blobs. NaN for a region whose blobs had no room.
    """
    names = np.asarray(subject)
    means = [by_subject(excess[group == one], names[group == one]).mean(0) for one in np.unique(group)]
    every = np.concatenate(means, axis=1)
    below = (every < 0).sum(1) / np.maximum((~np.isnan(every)).sum(1), 1)
    return np.where(np.isnan(every).all(1), np.nan, 100 * below)


@dataclass(frozen=True)
class Adjusted:
    """Effects on the true class -> the same beside covariates; `label` (subjects,) has the order of `beside`."""

    beside: Adjustment
    label: np.ndarray

    def __call__(self, effect: np.ndarray) -> np.ndarray:
        """Effects (subjects, regions), in the same unit. Regressions fit noise, too. So the mean of the products of
        residuals is that of n - k people. Their distances from it are as in HC2 (MacKinnon & White 1985).
        """
        if self.beside.reason:
            return effect
        on_autism = np.where(self.label == 1, 1, -1)[:, None] * effect
        followed, net = self.beside.followed(self.label), np.zeros(effect.shape)
        basis = cache(self.beside.basis)  # many regions follow the same
        for region, values in enumerate(on_autism.T):
            span = basis(frozenset(followed | self.beside.followed(values)))
            both = residuals(np.column_stack([self.label, values]), span)
            spread = both.prod(axis=1) / np.sqrt(np.maximum(1 - np.square(span).sum(axis=1), TOLD))
            net[:, region] = both.prod(axis=1).mean() + spread - spread.mean()
            net[:, region] *= 2 * len(span) / max(len(span) - span.shape[1], 1)
        return net
