"""Test records -> effects of replacing each atlas region by each fill, and of random blobs of the regions' sizes.

Effects are on the logit of the true class, log(p / (1 - p)), which for two classes is the difference of the network's
two outputs: probabilities saturate.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import compress
from typing import NamedTuple

import numpy as np

from data.base.progress import progress
from data.base.threads import ahead
from data.cohorts import records
from data.cohorts.rows import Row
from utils.blackout import effects
from utils.blackout.effects import RELIANCE, SUFFICIENCY, UNIQUE, Effects
from utils.blackout.fills import Fills, Substitution
from utils.blackout.occlusion import Occlusion
from utils.blackout.options import of
from utils.inference import check_finite, probability_of_autism, restored_network
from utils.runs.run import Run

TOGETHER = 16  # records occluded at a time: bounds the memory


class Logits(NamedTuple):
    """Logits of (control, autism) per record: `base` (records, substitutions, 2) before and `occluded` (records,
    substitutions, regions, 2) after a region was replaced, substitutions in the order of `Fills.kinds`; `blobs`
    (records, regions, blobs, 2), NaN where there was no room for a blob. `by_map` (records, donors, regions, maps) is
    that of autism minus that of control after a region was replaced by a donor's in one of `Fills.separate` alone."""

    base: np.ndarray
    occluded: np.ndarray
    blobs: np.ndarray
    by_map: np.ndarray

    def effects(self, rows: list[Row], group: np.ndarray, fills: Fills) -> Effects:
        """The effects on the true class, given the row and the group (see `Effects`) of each record."""
        sign = records.class_sign(np.array([row.label for row in rows]))[:, None]
        decrease = logit_of_autism(self.base)[..., None] - logit_of_autism(self.occluded)
        reliance, unique = decrease[:, fills.kinds == RELIANCE], decrease[:, fills.kinds == UNIQUE]
        of_blobs = logit_of_autism(self.base[:, :1])[..., None] - logit_of_autism(self.blobs)  # first: nothing replaced
        of_regions = reliance[:, np.arange(of_blobs.shape[2]) % reliance.shape[1]].swapaxes(1, 2)  # the blobs' donors
        probability = probability_of_autism(self.base[:, 0])
        return Effects(
            delta_logit=sign * decrease[:, 0],
            delta_probability=sign * (probability[:, None] - probability_of_autism(self.occluded[:, 0])),
            reliance=sign * control_variate_mean(reliance, fills.deviations(fills.means)),
            reliance_by_map=(sign[..., None] * self.decrease_by_map(fills)).astype(np.float32),
            unique=sign * control_variate_mean(unique, fills.deviations(fills.means - fills.expected)),
            sufficiency=sign * -decrease[:, fills.kinds == SUFFICIENCY].mean(1),
            blob_excess=sign[..., None] * (of_blobs - of_regions),
            group=group,
            probability=probability,
            rows=rows,
        )

    def decrease_by_map(self, fills: Fills) -> np.ndarray:
        """The decrease of the logit of autism, a mean over donors, if a region is replaced in one map alone: (records,
        regions, maps)."""
        shown, deviations = logit_of_autism(self.base[:, fills.kinds == RELIANCE]), fills.deviations(fills.means)
        found = np.empty((len(shown), *self.by_map.shape[2:]))
        for at in range(found.shape[-1]):  # one after another, to save memory
            decrease = shown[..., None] - self.by_map[..., at]
            found[..., at] = control_variate_mean(decrease, deviations[..., [at]])
        return found


def logit_of_autism(logits: np.ndarray) -> np.ndarray:
    """Logits of (control, autism) (..., 2) -> the log odds of autism, (...) float64."""
    return logits[..., 1].astype(float) - logits[..., 0]


def control_variate_mean(change: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The mean change over donors, (records, donors, regions) -> (records, regions), with most of the variance due to
    the random choice of donors removed by a control variate.

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
    if run.folds and of(run).subjects is None:  # all batches of all folds together have `effects.BLOBS` of each size
        count = sum(math.ceil(subjects / TOGETHER) for subjects in Counter(run.folds.fold_of.values()).values())
    sizes = np.repeat([int(mask.sum()) for mask in fills.masks], math.ceil(effects.BLOBS / count))
    inside = effects.brain(run.cohort, fills.tested)
    steps = len(fills.kinds) + fills.count  # per batch: the substitutions, and the blobs of each donor
    with progress("Blacking out", len(own) * steps) as bar:
        for batch, filled in zip(own, ahead(fills.of, own), strict=True):
            placed = effects.random_blobs(inside, sizes, [run.seed, int(batch[0])])
            logits = occlude(occlusion, fills, filled, placed, bar.advance)
            check_finite(run, "outputs", (logits.base, logits.occluded, logits.by_map))
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
    batch, pairs = filled
    shown, base, occluded, by_map = occlusion.keep(batch), [], [], []
    for kind, (volume, fill) in zip(fills.kinds, pairs, strict=True):
        kept = shown if volume is batch["volume"] else occlusion.keep(batch | {"volume": volume})
        base.append(occlusion.logits(kept))
        if kind == RELIANCE:
            in_all, in_one = occlusion.logits_by_map(kept, fill, fills.masks, fills.separate)
            by_map.append(logit_of_autism(in_one).astype(np.float32))
        else:
            in_all = occlusion.occluded_logits(kept, fill, fills.masks)
        occluded.append(in_all)
        advance()
    of_blobs = np.full((len(placed), *base[0].shape), np.nan, np.float32)
    per_region, count = len(placed) // len(fills.masks), fills.count
    for donor, at_fill in enumerate(np.flatnonzero(fills.kinds == RELIANCE)):
        own = {at: blob for at, blob in enumerate(placed) if blob is not None and at % per_region % count == donor}
        if own:
            of_blobs[[*own]] = occlusion.occluded_logits(shown, pairs[at_fill][1], own.values())
        advance()
    return Logits(
        np.stack(base, axis=1),
        np.stack(occluded).transpose(2, 0, 1, 3),
        of_blobs.reshape(len(fills.masks), per_region, *base[0].shape).transpose(2, 0, 1, 3),
        np.stack(by_map).transpose(2, 0, 1, 3),
    )


def verify(run: Run, fills: Fills, logits: Logits) -> None:
    """Recomputes random pairs of record and region in full, with every fill and in each map alone, and prints the
    largest difference."""
    largest, random, network = 0.0, np.random.default_rng(run.seed), restored_network(run)
    for _ in range(of(run).verify):
        at, region = int(random.integers(len(fills.tested))), int(random.integers(len(fills.masks)))
        batch, pairs = fills.of(fills.tested[[at]])
        inputs = {name: batch[name] for name in run.model.reads}
        inside, given = fills.masks[region][None, ..., None], list(compress(pairs, fills.kinds == RELIANCE))
        apart = [recomputed(network, inputs, pairs, inside) - logits.occluded[at, :, region]]
        for place, one in enumerate(fills.separate):
            alone = recomputed(network, inputs, given, inside & (np.arange(len(fills.replaced)) == one))
            apart.append(logit_of_autism(alone) - logits.by_map[at, :, region, place])
        largest = max(largest, *(float(np.abs(each).max()) for each in apart))
    spread = float(np.ptp(logit_of_autism(logits.base[:, 0])))
    relative = f", {largest / spread:.2g} of their spread over records" if spread else ""
    what = "with every fill and in each map alone" if fills.separate else "with every fill"
    print(f"{of(run).verify} pairs recomputed in full, {what}: logits differ by at most {largest:.2g}{relative}.")


def recomputed(
    network: Callable, inputs: dict[str, np.ndarray], pairs: list[Substitution], inside: np.ndarray
) -> np.ndarray:
    """The logits (substitutions, 2) of one record by full passes; `inside` (1, x, y, z, 1 or maps) is replaced."""
    volume = np.concatenate([np.where(inside, fill, volume) for volume, fill in pairs])
    repeated = {name: np.repeat(values, len(volume), axis=0) for name, values in inputs.items()}
    return np.asarray(network(repeated | {"volume": volume}, training=False))
