"""Statistics of blackout effects over subjects: intervals, sign-flip p-values, and comparison with random blobs."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import ndimage, stats

from data.cohorts.records import CLASSES
from utils.statistics import ALPHA, CHANCE, bootstrap

RESAMPLES = 5000
BLOBS = 100  # random blobs of each region's size, at least, over all records
ROUNDING = 1e-12  # of a mean over a root mean square, which lies between -1 and 1
FEW = 5  # regions to name in a sentence
UNEQUAL = 0.4  # share of a class; at 0.3 and with a skewness of 2, three times as many false regions as there should be


def by_subject(values: np.ndarray, subject: Sequence[str]) -> np.ndarray:
    """Means over the records of each subject, (records, ...) -> (subjects, ...), subjects in sorted order."""
    _, member = np.unique(subject, return_inverse=True)
    total = np.zeros((member.max() + 1, *values.shape[1:]))
    np.add.at(total, member, values)
    return total / np.bincount(member).reshape(-1, *[1] * (values.ndim - 1))


def weighted_mean(effect: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Means of effects (subjects, regions) for each row of weights (resamples, subjects)."""
    return weight @ effect / len(effect)


def mean_of(effect: np.ndarray) -> np.ndarray:
    """Mean effects (subjects, regions) -> (regions,); NaN without subjects."""
    return effect.mean(0) if len(effect) else np.full(effect.shape[1], np.nan)


def mean_interval(effect: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean effects (subjects, regions) with the low and high ends of their bootstrap intervals, (regions,) each."""
    random = np.random.default_rng(seed)
    low, high = bootstrap(partial(weighted_mean, effect), len(effect), random, RESAMPLES)
    return effect.mean(0), low, high


def sign_flip_test(effect: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One-sided p-values, family-wise, and false discovery rates q (regions,) of mean effects (subjects, regions).

    If a region's content can be exchanged with that of others, what it does to the logit of autism has the mean 0, and
    signed by the true class (label (subjects,)) it is about as likely as its negative, the more so the more alike the
    classes are in number. So the signs of whole subjects are flipped, which leaves the dependence of regions as it is;
    p compares the studentised mean with the largest over regions (Winkler et al. 2014), q is of Benjamini & Hochberg
    (1995). The studentised mean rises with the mean over the root mean square, which is compared in its place, being
    finite. NaN if all subjects are of one class.
    """
    count = len(effect)
    if len(np.unique(label)) < len(CLASSES):
        return np.full(effect.shape[1], np.nan), np.full(effect.shape[1], np.nan)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (1 + RESAMPLES, count))
    signs[0] = 1
    size = np.sqrt(np.square(effect).mean(0))
    size[size == 0] = np.inf  # a region that never matters has no evidence
    found = signs @ effect / count / size
    reached = found[0] - ROUNDING
    family_wise = (found.max(1)[:, None] >= reached).mean(0)
    return family_wise, stats.false_discovery_control((found >= reached).mean(0))


def size_percentile(excess: np.ndarray, group: np.ndarray, subject: Sequence[str]) -> np.ndarray:
    """The share in per cent (regions,) of blobs whose mean effect is below that of the region on the same subjects.

    `excess` (records, regions, blobs) is the effect of a blob minus that of the region, `group` (records,) tells which
    records share their blobs. NaN for a region of whose size no blob found a place.
    """
    names = np.asarray(subject)
    means = [by_subject(excess[group == one], names[group == one]).mean(0) for one in np.unique(group)]
    every = np.concatenate(means, axis=1)
    below = (every < 0).sum(1) / np.maximum((~np.isnan(every)).sum(1), 1)
    return np.where(np.isnan(every).all(1), np.nan, 100 * below)


def beats_chance(auc: dict[str, float | None]) -> bool | None:
    """Whether an AUC's interval is above chance; None where there is none."""
    return None if auc["low"] is None else auc["low"] > CHANCE


def prediction_summary(auc: dict[str, float | None], name: str) -> str:
    """How well the network predicts the subjects whose regions were occluded."""
    unknown = "whether the network is better than chance is not known"
    if auc["value"] is None:
        return f"{name} on these subjects is undefined, since they are of one class: {unknown}."
    if auc["low"] is None:
        return f"{name} on these subjects {auc['value']:.2f}, without an interval: {unknown}."
    known = f"{name} on these subjects {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f})"
    if beats_chance(auc):
        return f"{known}."
    return f"{known}: the network is not better than chance, so there is nothing for the regions to explain."


def evidence(reliance: list[tuple[str, float]], unique: list[tuple[str, float]], label: np.ndarray) -> str:
    """Which regions are significant, given (name, family-wise p) of each, and the labels (subjects,)."""
    if np.isnan([p for _, p in reliance]).any():
        return "No p-values: the subjects are of one class."
    level = f"family-wise p < {ALPHA:g}"
    if 0.5 ** len(label) >= ALPHA:
        return f"{len(label)} subjects are too few for {level}."
    resting, own = ([name for name, p in values if p < ALPHA] for values in (reliance, unique))
    if not resting and not own:
        return f"None of {len(reliance)} regions is significant at {level}: nothing here says where autism is."
    fewest = min(np.mean(label == value) for value in range(len(CLASSES)))
    unequal = f" Only {fewest:.0%} are of one class: where effects are skewed, p is too small."
    unequal = unequal if fewest < UNEQUAL else ""
    rests = f"The network's evidence rests on {named(resting)} of {len(reliance)} regions (reliance, {level})"
    if not own:
        return f"{rests}; none is shown to say what the rest of the brain does not (unique).{unequal}"
    says = "says" if len(own) == 1 else "say"
    return f"{rests}; {named(own)} {says} what the rest of the brain does not (unique).{unequal}"


def named(regions: Sequence[str]) -> str:
    """How many, and which if they are few."""
    if not regions:
        return "none"
    return str(len(regions)) + (f" ({', '.join(regions)})" if len(regions) <= FEW else "")


def random_blobs(
    inside: np.ndarray, sizes: Sequence[int] | np.ndarray, seed: int | Sequence[int]
) -> list[np.ndarray | None]:
    """For each of `sizes`, a random face-connected blob of so many voxels within `inside` (x, y, z) bool.

    A blob grows from a random voxel; each step takes a random voxel of its border. None for a size that is larger than
    every connected part of `inside`.
    """
    random = np.random.default_rng(seed)
    padded = np.pad(inside, 1)
    steps = [sign * stride // padded.itemsize for stride in padded.strides for sign in (1, -1)]
    free, (parts, _) = padded.tobytes(), ndimage.label(padded)
    room = np.where(padded, np.bincount(parts.ravel())[parts], 0).ravel()
    blobs: list[np.ndarray | None] = []
    for size in sizes:
        starts = np.flatnonzero(room >= size)
        if not starts.size:
            blobs.append(None)
            continue
        flat = np.zeros(padded.size, bool)
        flat[grow(free, steps, int(random.choice(starts)), random.random(size))] = True
        blobs.append(flat.reshape(padded.shape)[1:-1, 1:-1, 1:-1])
    return blobs


def grow(free: bytes, steps: list[int], start: int, draws: np.ndarray) -> list[int]:
    """Flat indices of a blob of `len(draws)` voxels where `free` is 1, which must have room for it around `start`."""
    blob, seen, border = [], {start}, [start]
    for draw in draws.tolist():
        pick = int(draw * len(border))
        border[pick], border[-1] = border[-1], border[pick]
        voxel = border.pop()
        blob.append(voxel)
        for step in steps:
            near = voxel + step
            if free[near] and near not in seen:
                seen.add(near)
                border.append(near)
    return blob
