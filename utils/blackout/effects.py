"""Statistics of blackout effects over subjects: intervals, permutation p-values, and comparison with random blobs."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import ndimage, stats

from data.records import CLASSES, class_sign
from utils.statistics import ALPHA, CHANCE, bootstrap

RESAMPLES = 5000


def by_subject(values: np.ndarray, subject: Sequence[str]) -> np.ndarray:
    """Means over the records of each subject, (records, ...) -> (subjects, ...), subjects in sorted order."""
    _, member = np.unique(subject, return_inverse=True)
    total = np.zeros((member.max() + 1, *values.shape[1:]))
    np.add.at(total, member, values)
    return total / np.bincount(member).reshape(-1, *[1] * (values.ndim - 1))


def weighted_mean(effect: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Means of effects (subjects, regions) for each row of weights (resamples, subjects)."""
    return weight @ effect / len(effect)


def mean_intervals(effect: np.ndarray, label: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Mean effects (subjects, regions) in all, in autism and in control, with percentile bootstrap intervals.

    `""`, `"_low"`, `"_high"` for all and `"_<class>"`, ... for a class, (regions,); NaN for a class without subjects,
    and for the interval of a single subject.
    """
    random = np.random.default_rng(seed)
    result: dict[str, np.ndarray] = {}
    groups = {"": np.ones(len(label), bool)} | {f"_{name}": label == value for value, name in enumerate(CLASSES)}
    for name, member in groups.items():
        count = int(member.sum())
        if not count:
            result |= {f"{name}{end}": np.full(effect.shape[1], np.nan) for end in ("", "_low", "_high")}
            continue
        of_group = effect[member]
        low, high = bootstrap(partial(weighted_mean, of_group), count, random, RESAMPLES)
        result |= {name: of_group.mean(0), f"{name}_low": low, f"{name}_high": high}
    return result


def permutation_test(effect: np.ndarray, label: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """One-sided p-values (regions,) of the mean effect of the true class, by permuting the labels over subjects.

    The effect on the true class is the effect on autism, signed by the label: that is what a permutation changes.
    Regions are made comparable by the mean and spread of their own permutations. `p` is family-wise (the maximum over
    regions, Westfall & Young 1993), `p_uncorrected` of the region alone, `q` its false discovery rate (Benjamini &
    Hochberg 1995). NaN if all subjects have one label.
    """
    if len(np.unique(label)) < len(CLASSES):
        return dict.fromkeys(("p", "p_uncorrected", "q"), np.full(effect.shape[1], np.nan))
    random = np.random.default_rng(seed)
    sign = class_sign(label)
    permuted = random.permuted(np.tile(sign, (RESAMPLES, 1)), axis=1)
    on_autism = sign[:, None] * effect
    null, observed = permuted @ on_autism, sign @ on_autism
    spread = null.std(0)
    spread[spread == 0] = np.inf  # a region that never matters has no evidence
    observed, null = (observed - null.mean(0)) / spread, (null - null.mean(0)) / spread
    family_wise = (null.max(1)[:, None] >= observed).sum(0)
    uncorrected = (1 + (null >= observed).sum(0)) / (1 + RESAMPLES)
    return {
        "p": (1 + family_wise) / (1 + RESAMPLES),
        "p_uncorrected": uncorrected,
        "q": stats.false_discovery_control(uncorrected),
    }


def size_percentile(effect: np.ndarray, of_blobs: np.ndarray) -> np.ndarray:
    """The share in per cent of the mean effects of blobs (regions, blobs) below the region's own (regions,).

    NaN where a blob is NaN, that is where none of the region's size found a place.
    """
    share = 100 * (of_blobs < effect[:, None]).mean(1)
    return np.where(np.isnan(of_blobs).any(1), np.nan, share)


def summary(p: np.ndarray, auc: dict[str, float | None]) -> str:
    """What prediction and p-values (regions,) come to, said alike in the terminal, on the page and in the figure; one
    or two lines.

    `auc` is the network's on these subjects, with its interval, as of `utils.metrics.with_intervals`.
    """
    return "\n".join(text for text in (prediction_summary(auc), evidence(p)) if text)


def prediction_summary(auc: dict[str, float | None]) -> str:
    """How well the network predicts the subjects whose regions were occluded; empty where that is undefined."""
    if auc["value"] is None:
        return ""
    if auc["low"] is None:
        return f"AUC on these subjects {auc['value']:.2f} (no interval: one subject of a class)."
    known = f"AUC on these subjects {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f})"
    if auc["low"] > CHANCE:
        return f"{known}."
    return f"{known}: not better than chance, so the regions do not explain correct predictions."


def evidence(p: np.ndarray) -> str:
    """How many regions are significant."""
    if np.isnan(p).all():
        return "No p-values: the subjects are of one class."
    count, level = int((p < ALPHA).sum()), f"family-wise p < {ALPHA:g}"
    if not count:
        return f"None of {len(p)} regions is significant at {level}: nothing here says where autism is."
    return f"{count} of {len(p)} regions {'is' if count == 1 else 'are'} significant at {level}."


def random_blobs(inside: np.ndarray, sizes: Sequence[int] | np.ndarray, seed: int) -> list[np.ndarray | None]:
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
