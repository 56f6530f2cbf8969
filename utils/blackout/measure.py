"""Test records -> effects of replacing each atlas region by each fill, and of random blobs of the regions' sizes.

Effects are on the logit of the true class, log(p / (1 - p)), which for two classes is the difference of the network's
two outputs: probabilities saturate.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data.base.progress import progress
from data.cohorts import records
from data.cohorts.cohort import ahead
from data.cohorts.rows import Row
from utils.blackout import blobs
from utils.blackout.effects import BACKGROUND, RELIANCE, SUFFICIENCY, UNIQUE, Effects
from utils.blackout.fills import FilledBatch, Fills
from utils.blackout.occlusion import Occlusion
from utils.blackout.options import of
from utils.inference import check_finite, probability_of_autism, restored_network
from utils.runs.run import Run

TOGETHER = 16  # records occluded at a time: bounds the memory


class Design(NamedTuple):
    """What a blackout replaces, and by what: the `tested` records (records,), by position in the cohort; each region's
    mask (x, y, z) bool; the fills."""

    tested: np.ndarray
    masks: list[np.ndarray]
    fills: Fills


class Substitution(NamedTuple):
    """The kind of an effect, and the volumes (n, x, y, z, maps) whose regions are replaced by those of `fill`."""

    kind: str
    volume: np.ndarray
    fill: np.ndarray


def substitutions(filled: FilledBatch) -> list[Substitution]:
    """All substitutions of a batch: kind by kind, in each kind donor by donor."""
    volume = filled.batch["volume"]
    pairs = [
        Substitution(BACKGROUND, volume, filled.background),
        *(Substitution(RELIANCE, volume, fill) for fill in filled.donor),
        *(Substitution(UNIQUE, volume, fill) for fill in filled.expected),
        *(Substitution(SUFFICIENCY, donor, volume) for donor in filled.donor),
    ]
    return [pair._replace(fill=filled.in_chosen_maps(pair.fill, pair.volume)) for pair in pairs]


@dataclass(frozen=True)
class Logits:
    """Logits of (control, autism) per record: `base` (records, substitutions, 2) before and `occluded` (records,
    substitutions, regions, 2) after a region was replaced; `blobs` (records, regions, blobs, 2), NaN where there was
    no room for a blob. `kinds` (substitutions,) are the kinds of effect."""

    kinds: np.ndarray
    base: np.ndarray
    occluded: np.ndarray
    blobs: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Logits"]) -> "Logits":
        """The logits of several batches."""
        arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in ("base", "occluded", "blobs"))
        return cls(parts[0].kinds, *arrays)

    def decrease(self, kind: str) -> np.ndarray:
        """How much the logit of autism falls, (records, substitutions of this kind, regions) float64."""
        chosen = self.kinds == kind
        return logit_of_autism(self.base[:, chosen])[..., None] - logit_of_autism(self.occluded[:, chosen])

    def effects(self, rows: list[Row], group: np.ndarray, fills: Fills) -> Effects:
        """The effects on the true class, given the row and the group (see `Effects`) of each record."""
        sign = records.class_sign(np.array([row.label for row in rows]))[:, None]
        by_donor = self.decrease(RELIANCE)
        of_blobs = logit_of_autism(self.base[:, :1])[..., None] - logit_of_autism(self.blobs)  # first: nothing replaced
        of_regions = by_donor[:, donor_of_blobs(of_blobs.shape[2], by_donor.shape[1])].swapaxes(1, 2)
        probability = probability_of_autism(self.base[:, 0])
        return Effects(
            delta_logit=sign * self.decrease(BACKGROUND)[:, 0],
            delta_probability=sign * (probability[:, None] - probability_of_autism(self.occluded[:, 0])),
            reliance=sign * control_variate_mean(by_donor, fills.deviations(fills.means)),
            unique=sign * control_variate_mean(self.decrease(UNIQUE), fills.deviations(fills.means - fills.expected)),
            sufficiency=sign * -self.decrease(SUFFICIENCY).mean(1),
            blob_excess=sign[..., None] * (of_blobs - of_regions),
            group=group,
            probability=probability,
            rows=rows,
        )


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


def donor_of_blobs(count: int, donors: int) -> np.ndarray:
    """Which donor fills each of a region's blobs, (count,) int."""
    return np.arange(count) % donors


def measure(run: Run, occlusion: Occlusion, design: Design) -> tuple[Effects, Logits]:
    """Occludes all regions, and blobs of their sizes, in all tested records; the logits are for `verify`."""
    batches = np.array_split(design.tested, math.ceil(len(design.tested) / TOGETHER))
    own = map(vars, occluded_batches(run, occlusion, design, batches))
    logits = Logits.joined([Logits(**arrays) for arrays in run.workers.in_turn(own, len(batches))])
    group = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    return logits.effects([run.cohort.rows[index] for index in design.tested], group, design.fills), logits


def occluded_batches(run: Run, occlusion: Occlusion, design: Design, batches: list[np.ndarray]) -> Iterator[Logits]:
    """The logits of this worker's share of the batches of records."""
    (tested, masks, fills), own = design, batches[run.workers.shares]
    count, inside = blobs_per_batch(run, len(batches)), blobs.brain(run.cohort, tested)
    sizes = np.repeat([int(mask.sum()) for mask in masks], count)
    steps = 1 + 4 * fills.count  # per batch: the background, and per donor three substitutions and the blobs
    with progress("Blacking out", len(own) * steps) as bar:
        for batch, filled in zip(own, ahead(fills.of, own), strict=True):
            placed = blobs.random_blobs(inside, sizes, [run.seed, int(batch[0])])
            logits = occlude(occlusion, filled, masks, placed, bar.advance)
            check_finite(run, "outputs", (logits.base, logits.occluded))
            yield logits


def blobs_per_batch(run: Run, batches: int) -> int:
    """Blobs of each region's size for a batch of records: all batches of all folds together have `blobs.BLOBS`."""
    if run.folds and of(run).subjects is None:
        batches = sum(math.ceil(subjects / TOGETHER) for subjects in Counter(run.folds.fold_of.values()).values())
    return math.ceil(blobs.BLOBS / batches)


def occlude(
    occlusion: Occlusion,
    filled: FilledBatch,
    masks: list[np.ndarray],
    placed: list[np.ndarray | None],
    advance: Callable[[], None] = lambda: None,
) -> Logits:
    """The logits of one batch. `placed` are the blobs, those of the first region, then of the second, and so on;
    `advance` is called after each step."""
    shown = occlusion.keep(filled.batch)
    volume, pairs = filled.batch["volume"], substitutions(filled)
    base, occluded = [], []
    for pair in pairs:
        kept = shown if pair.volume is volume else occlusion.keep(filled.batch | {"volume": pair.volume})
        base.append(occlusion.logits(kept))
        occluded.append(occlusion.occluded_logits(kept, pair.fill, masks))
        advance()
    of_blobs = np.full((len(placed), *base[0].shape), np.nan, np.float32)
    per_region = len(placed) // len(masks)
    donor_of = np.tile(donor_of_blobs(per_region, len(filled.donor)), len(masks))
    for donor, fill in enumerate(filled.donor):
        own = {at: blob for at, blob in enumerate(placed) if blob is not None and donor_of[at] == donor}
        if own:
            fill = filled.in_chosen_maps(fill, volume)
            of_blobs[[*own]] = occlusion.occluded_logits(shown, fill, own.values())
        advance()
    return Logits(
        np.array([pair.kind for pair in pairs]),
        np.stack(base, axis=1),
        np.stack(occluded).transpose(2, 0, 1, 3),
        of_blobs.reshape(len(masks), per_region, *base[0].shape).transpose(2, 0, 1, 3),
    )


def verify(run: Run, design: Design, logits: Logits) -> None:
    """Recomputes random pairs of record and region in full, with every fill, and prints the largest difference."""
    (tested, masks, fills), network = design, restored_network(run)
    largest, random = 0.0, np.random.default_rng(run.seed)
    for _ in range(of(run).verify):
        at, region = int(random.integers(len(tested))), int(random.integers(len(masks)))
        filled = fills.of(tested[[at]])
        inside = masks[region][None, ..., None]
        volume = np.concatenate([np.where(inside, fill, volume) for _, volume, fill in substitutions(filled)])
        inputs = {name: np.repeat(filled.batch[name], len(volume), axis=0) for name in run.model.reads}
        expected = np.asarray(network(inputs | {"volume": volume}, training=False))
        largest = max(largest, float(np.abs(expected - logits.occluded[at, :, region]).max()))
    spread = float(np.ptp(logit_of_autism(logits.base[:, 0])))
    relative = f", {largest / spread:.2g} of their spread over records" if spread else ""
    print(
        f"{of(run).verify} pairs recomputed in full, with every fill: logits differ by at most {largest:.2g}{relative}."
    )
