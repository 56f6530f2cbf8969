"""Effects of occlusion per record; their intervals and p-values over subjects; random blobs for size percentiles."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import pandas as pd
from scipy import ndimage, stats

from data import grids
from data.cohorts.atlas import Atlas
from data.cohorts.cohort import Cohort
from data.cohorts.records import CLASSES, background
from data.cohorts.rows import Row
from utils.blackout.adjustment import Adjustment
from utils.scores.metrics import bootstrap
from utils.scores.results import ALPHA

RELIANCE, UNIQUE, BACKGROUND, SUFFICIENCY = KINDS = ("reliance", "unique", "background", "sufficiency")
ONE_SUBJECT = "no interval: one subject"
SUPPRESSOR = "possibly a suppressor"  # unique without reliance
RESAMPLES = 5000
BLOBS = 100  # of each region's size, at least, over all records
MIN_SHARE = 0.5  # of the records in which a voxel of the brain holds signal
ONE_SIDED = 0.7  # share of a region's voxels in one hemisphere that makes it left or right
ROUNDING = 1e-12  # of a mean over a root mean square, which lies between -1 and 1


@dataclass(frozen=True)
class Effects:
    """Effects of occlusion per record, float64, all on the true class. Those that use donors are means over the donors
    (`reliance` and `unique` with the control variate of `measure.control_variate_mean`).

    `delta_logit` (`background`), `delta_probability`: (records, regions), shown minus occluded with the background.
    `reliance`, `unique`: (records, regions), shown minus occluded with `donor` and `expected`, on the logit.
    `reliance_by_map`: (records, regions, maps) float32, `reliance` with the region of one map replaced; where edges of
        connectomes are replaced, these alone come last; no maps where nothing but one map is replaced.
    `sufficiency`: (records, regions), the logit of a donor's volume with this region of the record minus without it.
    `blob_excess`: (records, regions, blobs), the effect of a blob of the region's size minus that of the region, both
        filled with the same donor; NaN where there was no room for a blob. Of repeats, (repeats x records, ...).
    `group`: (records,) int, the records that share their blobs; of repeats, (repeats x records,).
    `probability`: (records,) of autism with nothing occluded.
    """

    delta_logit: np.ndarray
    delta_probability: np.ndarray
    reliance: np.ndarray
    reliance_by_map: np.ndarray
    unique: np.ndarray
    sufficiency: np.ndarray
    blob_excess: np.ndarray
    group: np.ndarray
    probability: np.ndarray
    rows: list[Row]

    @property
    def label(self) -> np.ndarray:
        return np.array([row.label for row in self.rows])

    @property
    def subject(self) -> list[str]:
        return [row.subject for row in self.rows]

    @property
    def blob_subject(self) -> list[str]:
        """The subject of each row of `blob_excess`."""
        return self.subject * (len(self.group) // len(self.rows))

    def of_subjects(self, name: str) -> np.ndarray:
        """The mean effect of one of `KINDS` per subject, (subjects, regions), or their "label" (subjects,)."""
        return by_subject(getattr(self, "delta_logit" if name == BACKGROUND else name), self.subject)


OF_BLOBS = ("blob_excess", "group")
ARRAYS = tuple(field.name for field in fields(Effects) if field.name != "rows")


def joined(parts: Sequence[Effects]) -> Effects:
    """The effects of all folds, one fold after another. Where a fold has fewer blobs, the others are NaN."""
    arrays = {name: [getattr(part, name) for part in parts] for name in ARRAYS}
    first_group = np.cumsum([0, *(group.max() + 1 for group in arrays["group"])])
    arrays["group"] = [group + first for group, first in zip(arrays["group"], first_group, strict=False)]
    blobs = max(excess.shape[2] for excess in arrays["blob_excess"])
    for at, excess in enumerate(arrays["blob_excess"]):
        missing = ((0, 0), (0, 0), (0, blobs - excess.shape[2]))
        arrays["blob_excess"][at] = np.pad(excess, missing, constant_values=np.nan)
    rows = [row for part in parts for row in part.rows]
    return Effects(**{name: np.concatenate(values) for name, values in arrays.items()}, rows=rows)


def averaged(repeats: Sequence[Effects]) -> Effects:
    """The mean effects of each record over repeats, which may have the records in another order; the blobs of all
    repeats, one repeat after another."""
    rows = repeats[0].rows
    places = [{row.file: at for at, row in enumerate(of.rows)} for of in repeats]
    orders = [[at[row.file] for row in rows] for at in places]
    aligned = [
        Effects(**{name: getattr(of, name)[order] for name in ARRAYS}, rows=rows)
        for of, order in zip(repeats, orders, strict=True)
    ]
    means = {name: np.mean([getattr(of, name) for of in aligned], axis=0) for name in ARRAYS if name not in OF_BLOBS}
    every = joined(aligned)
    return Effects(**means, **{name: getattr(every, name) for name in OF_BLOBS}, rows=rows)


def by_subject(values: np.ndarray, subject: Sequence[str]) -> np.ndarray:
    """Means over the records of each subject, (records, ...) -> (subjects, ...), subjects in sorted order."""
    _, member = np.unique(subject, return_inverse=True)
    total = np.zeros((member.max() + 1, *values.shape[1:]))
    np.add.at(total, member, values)
    return total / np.bincount(member).reshape(-1, *[1] * (values.ndim - 1))


def mean_interval(effect: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean effects (subjects, regions) with the low and high ends of their bootstrap intervals, (regions,) each."""
    count, random = len(effect), np.random.default_rng(seed)
    low, high = bootstrap(lambda weight: weight @ effect / count, count, random, RESAMPLES)
    return effect.mean(0), low, high


def sign_flip_test(effect: np.ndarray, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One-sided p-values, family-wise, and false discovery rates q (regions,) of mean effects (subjects, regions).

    If a region's content can be exchanged with that of other people, its effect on the logit of autism has the mean 0.
    Signed by the true class (`label` (subjects,)), the effect is then about as likely as its negative; the more equal
    the classes are in number, the better this holds. So the signs of whole subjects are flipped, which keeps the
    dependence between regions. p compares the studentised mean with the largest over regions (Winkler et al. 2014), q
    is that of Benjamini & Hochberg (1995). The mean over the root mean square replaces the studentised mean: each rises
    with the other, and it is always finite. NaN if all subjects are of one class.
    """
    count, regions = effect.shape
    if len(np.unique(label)) < len(CLASSES):
        return np.full(regions, np.nan), np.full(regions, np.nan)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (1 + RESAMPLES, count))
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


def region_table(atlas: Atlas, effects: Effects, seed: int, adjusted: Adjustment | None = None) -> pd.DataFrame:
    """The columns of `regions.csv`, a row a region: by reliance, equal ones in the order of the atlas. p and q are of
    the effects that are `adjusted` for covariates; `p_..._plain` of the effects as they are."""
    table = pd.DataFrame([region_place(atlas, region) for region in atlas.regions])
    label, beside = effects.of_subjects("label"), pd.DataFrame()
    for kind in KINDS:
        effect = effects.of_subjects(kind)
        table[kind], table[f"{kind}_low"], table[f"{kind}_high"] = mean_interval(effect, seed)
        if kind in (RELIANCE, UNIQUE):
            net = adjusted(effect) if adjusted else effect
            table[f"p_{kind}"], table[f"q_{kind}"] = sign_flip_test(net, label, seed)
            name = f"{kind}_adjusted"
            beside[name], beside[f"{name}_low"], beside[f"{name}_high"] = mean_interval(net, seed)
            beside[f"p_{kind}_plain"], _ = sign_flip_test(effect, label, seed)
        if kind == BACKGROUND:
            for value, name in reversed([*enumerate(CLASSES)]):
                table[f"{kind}_{name}"] = effect[label == value].mean(0) if value in label else np.nan
    table["size_percentile"] = size_percentile(effects.blob_excess, effects.group, effects.blob_subject)
    alone = (table[f"p_{UNIQUE}"] < ALPHA) & ~(table[f"p_{RELIANCE}"] < ALPHA)
    table = pd.concat([table, beside], axis=1).assign(remark=np.where(alone, SUPPRESSOR, ""))
    table = table.sort_values(RELIANCE, ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


def region_place(atlas: Atlas, region: int) -> dict:
    """Number, name, hemisphere, voxels on the volume's grid, and centre in mm of MNI space."""
    affine = np.array(grids.FULL.affine)
    mm = np.argwhere(atlas.full == region) @ affine[:3, :3].T + affine[:3, 3]
    left, right = (mm[:, 0] < 0).mean(), (mm[:, 0] > 0).mean()
    return {
        "region": region,
        "name": atlas.names[region],
        "hemisphere": "left" if left > ONE_SIDED else "right" if right > ONE_SIDED else "both",
        "voxels": int((atlas.labels == region).sum()),
        **dict(zip(("x_mm", "y_mm", "z_mm"), mm.mean(0).round(1), strict=True)),
    }


def brain(cohort: Cohort, indices: np.ndarray) -> np.ndarray:
    """Voxels (x, y, z) bool that hold signal, in any map, in half of the records or more: where blobs may lie."""
    count = np.zeros(cohort.grid.shape)
    for index in indices:
        _, _, volume = cohort.read(index)
        count += np.any([values != background(values) for values in np.moveaxis(volume, -1, 0)], axis=0)
    return count >= MIN_SHARE * len(indices)


def random_blobs(
    inside: np.ndarray, sizes: Sequence[int] | np.ndarray, seed: int | Sequence[int]
) -> list[np.ndarray | None]:
    """For each of `sizes`, a random face-connected blob (x, y, z) bool of so many voxels within `inside`, alike.

    A blob grows from a random voxel; each step takes a random voxel of its border. None for a size that is larger than
    every connected part of `inside`.
    """
    random = np.random.default_rng(seed)
    padded = np.pad(inside, 1)
    steps = [sign * stride // padded.itemsize for stride in padded.strides for sign in (1, -1)]
    free, (parts, _) = padded.tobytes(), ndimage.label(padded)
    room = np.where(padded, np.bincount(parts.ravel())[parts], 0).ravel()
    blobs: list[np.ndarray | None] = []
    starts_of = cache(lambda size: np.flatnonzero(room >= size))
    for size in sizes:
        starts = starts_of(int(size))
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
            neighbour = voxel + step
            if free[neighbour] and neighbour not in seen:
                seen.add(neighbour)
                border.append(neighbour)
    return blob
