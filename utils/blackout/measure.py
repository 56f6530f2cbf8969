"""Test records -> effects of replacing each atlas region by each fill, and of random blobs of the regions' sizes.

Effects are on the logit of the true class, log(p / (1 - p)), for probabilities saturate. For two classes it is the
difference of the network's two outputs.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.special import expit

from data.base.processes import ahead
from data.base.terminal import progress
from data.cohorts import records
from data.cohorts.cohort import Cohort
from data.cohorts.rows import Row
from utils.blackout.effects import Effects
from utils.blackout.fills import FILLS, RELIANCE, Fills, Substitution
from utils.blackout.occlusion import Occlusion
from utils.blackout.options import of
from utils.runs.run import Run
from utils.training.network import check_finite, probability_of_autism

TOGETHER = 16  # records occluded at a time: bounds the memory
BLOBS = 100  # of each region's size, at least, over all records
MIN_SHARE = 0.5  # of the records in which a voxel of the brain holds signal


class Logits(NamedTuple):
    """Logits of (control, autism) per record. Substitutions are in the order of `Fills.names`.

    `base`: (records, substitutions, 2), before a region was replaced.
    `occluded`: (records, substitutions, regions, 2), after the voxels of a region were replaced.
    `blobs`: (records, regions, blobs, 2), of blobs filled with a donor; NaN where there was no room for a blob.
    `by_map`: (records, donors, regions, maps), autism minus control, after a region was replaced by a donor's in one of
        `Fills.separate` alone.
    `edges`: (records, substitutions, regions, 1), what edges add to autism minus control if they are replaced, too;
        (..., 0) if they stay.
    """

    base: np.ndarray
    occluded: np.ndarray
    blobs: np.ndarray
    by_map: np.ndarray
    edges: np.ndarray

    def effects(self, rows: list[Row], group: np.ndarray, fills: Fills) -> Effects:
        """The effects on the true class, given the row and the group (see `Effects`) of each record."""
        sign = np.array([1.0 if row.label == 1 else -1.0 for row in rows])[:, None]  # of autism, on the true class
        base, of_edges = logit_of_autism(self.base), -self.edges.sum(-1)
        of_volume = base[..., None] - logit_of_autism(self.occluded)
        arrays: dict[str, np.ndarray] = {}
        for fill in FILLS:
            own = fills.names == fill.name
            if fill.level:
                decrease = control_variate_mean(of_volume[:, own], fills.deviations(fill.level(fills)))
                decrease = decrease + of_edges[:, own].mean(1)
            else:
                decrease = (of_volume[:, own] + of_edges[:, own]).mean(1)
            arrays[fill.stored] = -sign * decrease if fill.rises else sign * decrease
        probability, by_map = probability_of_autism(self.base[:, 0]), self.decrease_by_map(fills)
        after = expit(base[:, :1] - sign * arrays["delta_logit"])  # the background in place of each region
        of_blobs, given = base[:, :1, None] - logit_of_autism(self.blobs), of_volume[:, fills.names == RELIANCE]
        donors = np.arange(of_blobs.shape[2]) % given.shape[1]  # of the blobs, which have no edges
        return Effects(
            arrays
            | {
                "delta_probability": sign * (probability[:, None] - after),
                "reliance_by_map": (sign[..., None] * by_map).astype(np.float32),
                "blob_excess": sign[..., None] * (of_blobs - given[:, donors].swapaxes(1, 2)),
                "group": group,
                "probability": probability,
            },
            rows,
        )

    def decrease_by_map(self, fills: Fills) -> np.ndarray:
        """How far the logit of autism falls if a region is replaced in one map alone, a mean over donors: (records,
        regions, maps). If edges are replaced, these alone are one map more."""
        shown, deviations = logit_of_autism(self.base[:, fills.names == RELIANCE]), fills.deviations(fills.means)
        found = np.empty((len(shown), *self.by_map.shape[2:]))
        for at in range(found.shape[-1]):  # one after another, to save memory
            decrease = shown[..., None] - self.by_map[..., at]
            found[..., at] = control_variate_mean(decrease, deviations[..., [at]])
        return np.concatenate([found, -self.edges[:, fills.names == RELIANCE].mean(1)], axis=-1)


def logit_of_autism(logits: np.ndarray) -> np.ndarray:
    """Logits of (control, autism) (..., 2) -> the log odds of autism, (...) float64."""
    return logits[..., 1].astype(float) - logits[..., 0]


def control_variate_mean(change: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The mean change over donors, (records, donors, regions) -> (records, regions). A control variate removes most of
    the variance that is due to the random choice of donors.

    `deviation` is that of `Fills.deviations`. The change is regressed, without labels, on the difference between the
    record's region and the donor's. The slope times the donors' mean deviation from all people whom they were drawn
    from is added. The slope is shrunk by the weight of one more pair, so that it is stable with few records.
    """
    donor = deviation[:, 1:]
    apart = deviation[:, :1] - donor
    squares = np.einsum("idrm,idrk->rmk", apart, apart)
    squares += np.square(donor).mean((0, 1))[..., None] * np.eye(apart.shape[-1])
    slope = np.linalg.pinv(squares, hermitian=True) @ np.einsum("idrm,idr->rm", apart, change)[..., None]
    return change.mean(1) + np.einsum("irm,rm->ir", donor.mean(1), slope[..., 0])


def measure(run: Run, occlusion: Occlusion, fills: Fills) -> tuple[Effects, Logits]:
    """Occludes all regions, and blobs of their sizes, in all tested records; the logits are for `verify`."""
    batches = np.array_split(fills.tested, math.ceil(len(fills.tested) / TOGETHER))
    own = (logits._asdict() for logits in occluded_batches(run, occlusion, fills, batches))
    parts = [Logits(**arrays) for arrays in run.workers.in_turn(own, len(batches))]
    logits = Logits(*map(np.concatenate, zip(*parts, strict=True)))
    group = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    return logits.effects([run.cohort.rows[index] for index in fills.tested], group, fills), logits


def occluded_batches(run: Run, occlusion: Occlusion, fills: Fills, batches: list[np.ndarray]) -> Iterator[Logits]:
    """The logits of this worker's share of the batches of records."""
    own, count = batches[run.workers.shares], len(batches)
    if run.folds and of(run).subjects is None:  # all batches of all folds together have `BLOBS` of each size
        count = sum(math.ceil(subjects / TOGETHER) for subjects in Counter(run.folds.fold_of.values()).values())
    sizes = np.repeat([int(mask.sum()) for mask in fills.masks], math.ceil(BLOBS / count))
    inside = brain(run.cohort, fills.tested)
    steps = len(fills.names) + fills.count  # per batch: the substitutions, and the blobs of each donor
    with progress("Blacking out", len(own) * steps) as bar:
        for batch, filled in zip(own, ahead(fills.of, own), strict=True):
            placed = random_blobs(inside, sizes, [run.seed, int(batch[0])])
            logits = occlude(occlusion, fills, filled, placed, bar.advance)
            check_finite(run, "outputs", (logits.base, logits.occluded, logits.by_map, logits.edges))
            yield logits


def occlude(
    occlusion: Occlusion,
    fills: Fills,
    filled: tuple[dict[str, np.ndarray], list[Substitution]],
    placed: list[np.ndarray | None],
    advance: Callable[[], None] = lambda: None,
) -> Logits:
    """The logits of one batch, `filled` by `fills`. `placed` are the blobs, those of the first region, then of the
    second, and so on; the donors fill them in turn. `advance` is called after each step."""
    batch, substitutions = filled
    shown, base, occluded, by_map, edges = occlusion.keep(batch), [], [], [], []
    for kind, one in zip(fills.names, substitutions, strict=True):
        kept = shown if one.volume is batch["volume"] else occlusion.keep(batch | one.inputs)
        base.append(occlusion.logits(kept))
        if kind == RELIANCE:
            in_all, in_one = occlusion.logits_by_map(kept, one.fill, fills.masks, fills.separate)
            by_map.append(logit_of_autism(in_one).astype(np.float32))
        else:
            in_all = occlusion.occluded_logits(kept, one.fill, fills.masks)
        occluded.append(in_all)
        edges.append(edge_changes(occlusion, fills, one))
        advance()
    of_blobs = np.full((len(placed), *base[0].shape), np.nan, np.float32)
    per_region, count = len(placed) // len(fills.masks), fills.count
    for donor, at_fill in enumerate(np.flatnonzero(fills.names == RELIANCE)):
        own = {at: blob for at, blob in enumerate(placed) if blob is not None and at % per_region % count == donor}
        if own:
            of_blobs[[*own]] = occlusion.occluded_logits(shown, substitutions[at_fill].fill, own.values())
        advance()
    return Logits(
        np.stack(base, axis=1),
        np.stack(occluded).transpose(2, 0, 1, 3),
        of_blobs.reshape(len(fills.masks), per_region, *base[0].shape).transpose(2, 0, 1, 3),
        np.stack(by_map).transpose(2, 0, 1, 3),
        np.stack(edges).transpose(2, 0, 1, 3),
    )


def edge_changes(occlusion: Occlusion, fills: Fills, substitution: Substitution) -> np.ndarray:
    """How the logit of autism minus that of control changes with a region's edges: (regions, n, 1), or (regions, n, 0)
    if they stay."""
    if fills.edges is None or occlusion.edges is None or substitution.edges is None:
        return np.zeros((len(fills.masks), len(substitution.volume), 0), np.float32)
    changes = occlusion.edges.changes(fills.edges, substitution.edges)
    return logit_of_autism(changes).astype(np.float32)[..., None]


def brain(cohort: Cohort, indices: np.ndarray) -> np.ndarray:
    """Voxels (x, y, z) bool that hold signal, in any map, in half of the records or more: where blobs may lie."""
    count = np.zeros(cohort.grid.shape)
    for index in indices:
        _, _, volume = cohort.read(index)
        count += np.any([values != records.background(values) for values in np.moveaxis(volume, -1, 0)], axis=0)
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


def verify(run: Run, network: Any, fills: Fills, logits: Logits) -> None:
    """Recomputes random pairs of record and region in full, with every fill, in each map alone and in edges alone, and
    prints the largest difference."""
    largest, random = 0.0, np.random.default_rng(run.seed)
    for _ in range(of(run).verify):
        at, region = int(random.integers(len(fills.tested))), int(random.integers(len(fills.masks)))
        apart = differences(network, fills, logits, at, region)
        largest = max(largest, *(float(np.abs(each).max()) for each in apart))
    spread = float(np.ptp(logit_of_autism(logits.base[:, 0])))
    relative = f", {largest / spread:.2g} of their spread over records" if spread else ""
    what = "with every fill"
    if fills.separate:
        what += f" and in each map{', or its edges,' if fills.edges else ''} alone"
    print(f"{of(run).verify} pairs recomputed in full, {what}: logits differ by at most {largest:.2g}{relative}.")


def differences(network: Any, fills: Fills, logits: Logits, at: int, region: int) -> list[np.ndarray]:
    """The logit of autism minus that of control by full passes, minus what was measured, of one record and region."""
    batch, substitutions = fills.of(fills.tested[[at]])
    inside, given, of_edges = fills.masks[region][None, ..., None], fills.names == RELIANCE, logits.edges[at, :, region]
    donated = [*compress(substitutions, given)]

    def whole(chosen: list[Substitution], inside: np.ndarray, region: int | None) -> np.ndarray:
        shown = [batch | fills.inputs_with(one, inside, region) for one in chosen]
        together = {name: np.concatenate([each[name] for each in shown]) for name in network.input}
        return logit_of_autism(np.asarray(network(together, training=False)))

    expected = logit_of_autism(logits.occluded[at, :, region]) + of_edges.sum(-1)
    apart = [whole(substitutions, inside, region) - expected]
    for place, one in enumerate(fills.separate):
        alone = whole(donated, inside & (np.arange(len(fills.replaced)) == one), None)
        apart.append(alone - logits.by_map[at, :, region, place])
    if fills.edges:
        expected = logit_of_autism(logits.base[at, given]) + of_edges[given, 0]
        apart.append(whole(donated, np.zeros_like(inside), region) - expected)
    return apart
