"""Test records -> how their predictions move as regions are occluded with each fill, and random blobs of their sizes.

The effect is on the logit of the true class, log(p / (1 - p)), which for two classes is the difference of the network's
two outputs: probabilities saturate.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data.base.progress import progress
from data.cohorts import records
from data.cohorts.cohort import ahead
from data.cohorts.rows import Row
from utils.blackout import effects
from utils.blackout.fills import Filled, Fills
from utils.blackout.occlusion import Occlusion
from utils.blackout.options import of
from utils.inference import check_finite, probability_of_autism, restored_network
from utils.runs.run import Run

TOGETHER = 16  # records occluded at a time: bounds the memory
SIGNAL = 0.5  # share of the records in which a voxel of the brain holds signal


@dataclass(frozen=True)
class Measured:
    """What occlusion gave of each record. All effects are on the true class, float64; those of donors are means over
    them, `reliance` and `unique` as steady as over all people whom they were drawn from (`steadied`).

    `delta_logit`, `delta_probability`: (records, regions), shown minus occluded with the background.
    `reliance`, `unique`: (records, regions), shown minus occluded with `donor` and `expected`, on the logit.
    `sufficiency`: (records, regions), the logit of a donor's volume with this region of the record minus without it.
    `blob_excess`: (records, regions, blobs), the effect of a blob of the region's size minus that of the region, both
        filled with the same donor; NaN where a blob found no place.
    `group`: (records,) int, the records that share their blobs.
    `probability`: (records,) of autism with nothing occluded.
    """

    delta_logit: np.ndarray
    delta_probability: np.ndarray
    reliance: np.ndarray
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


ARRAYS = tuple(name for name in Measured.__dataclass_fields__ if name != "rows")


class Substitution(NamedTuple):
    """An effect, and the volumes whose regions take those of `fill`."""

    effect: str
    volume: np.ndarray
    fill: np.ndarray


BACKGROUND, RELIANCE, UNIQUE, SUFFICIENCY = "background", "reliance", "unique", "sufficiency"


def substitutions(filled: Filled) -> list[Substitution]:
    """All of a batch; those of an effect lie together, in the order of the donors."""
    volume = filled.batch["volume"]
    pairs = [
        Substitution(BACKGROUND, volume, filled.background),
        *(Substitution(RELIANCE, volume, fill) for fill in filled.donor),
        *(Substitution(UNIQUE, volume, fill) for fill in filled.expected),
        *(Substitution(SUFFICIENCY, donor, volume) for donor in filled.donor),
    ]
    return [pair._replace(fill=filled.within(pair.volume, pair.fill)) for pair in pairs]


@dataclass(frozen=True)
class Logits:
    """Logits of (control, autism) of each record: `base` (records, substitutions, 2) before and `occluded` (records,
    substitutions, regions, 2) after one of its regions was replaced; `blobs` (records, regions, blobs, 2), NaN where a
    blob found no place. `names` are the substitutions' effects."""

    names: np.ndarray
    base: np.ndarray
    occluded: np.ndarray
    blobs: np.ndarray

    def change(self, effect: str) -> np.ndarray:
        """How much the logit of autism falls, (records, substitutions of this effect, regions) float64."""
        own = self.names == effect
        return margin(self.base[:, own])[..., None] - margin(self.occluded[:, own])

    def measured(self, rows: list[Row], group: np.ndarray, fills: Fills) -> Measured:
        """The effects on the true class."""
        sign = records.class_sign(np.array([row.label for row in rows]))[:, None]
        donor = self.change(RELIANCE)
        of_blobs = margin(self.base[:, :1])[..., None] - margin(self.blobs)  # the first is the record as it is
        of_regions = donor[:, donor_of_blobs(of_blobs.shape[2], donor.shape[1])].swapaxes(1, 2)
        probability = probability_of_autism(self.base[:, 0])
        return Measured(
            delta_logit=sign * self.change(BACKGROUND)[:, 0],
            delta_probability=sign * (probability[:, None] - probability_of_autism(self.occluded[:, 0])),
            reliance=sign * steadied(donor, fills.deviations(fills.means)),
            unique=sign * steadied(self.change(UNIQUE), fills.deviations(fills.means - fills.expected)),
            sufficiency=sign * -self.change(SUFFICIENCY).mean(1),
            blob_excess=sign[..., None] * (of_blobs - of_regions),
            group=group,
            probability=probability,
            rows=rows,
        )


def margin(logits: np.ndarray) -> np.ndarray:
    """(..., 2) -> (...) float64: the logit of autism, in units of its log odds."""
    return logits[..., 1].astype(float) - logits[..., 0]


def steadied(change: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The mean change over donors, (records, donors, regions) -> (records, regions), freed of most of the chance of
    having drawn these donors (a control variate).

    `deviation` as of `Fills.deviations`. The change is regressed, without labels, on how far the record's region is
    from the donor's; the slope, times the donors' mean distance from all people they were drawn from, is added. It is
    shrunk by the weight of one more pair, so that few records do not mislead.
    """
    donor = deviation[:, 1:]
    apart = deviation[:, :1] - donor
    squares = np.einsum("idrm,idrk->rmk", apart, apart)
    squares += np.square(donor).mean((0, 1))[..., None] * np.eye(apart.shape[-1])
    slope = np.linalg.pinv(squares, hermitian=True) @ np.einsum("idrm,idr->rm", apart, change)[..., None]
    return change.mean(1) + np.einsum("irm,rm->ir", donor.mean(1), slope[..., 0])


def donor_of_blobs(blobs: int, donors: int) -> np.ndarray:
    """Which donor fills each blob of a region, (blobs,) int."""
    return np.arange(blobs) % donors


def measure(run: Run, occlusion: Occlusion, fills: Fills, regions: list[np.ndarray]) -> tuple[Measured, Logits]:
    """Occludes `regions`, masks (x, y, z), and blobs in all records that the run tests; the logits are for `verify`."""
    indices = of(run).tested(run.cohort)
    selections = np.array_split(indices, math.ceil(len(indices) / TOGETHER))
    own = map(vars, occluded(run, occlusion, fills, regions, selections))
    found = [Logits(**of_batch) for of_batch in run.workers.in_turn(own, len(selections))]
    arrays = (np.concatenate([getattr(part, name) for part in found]) for name in ("base", "occluded", "blobs"))
    logits = Logits(found[0].names, *arrays)
    group = np.repeat(np.arange(len(selections)), [len(selection) for selection in selections])
    rows = [run.cohort.rows[index] for index in indices]
    return logits.measured(rows, group, fills), logits


def occluded(
    run: Run, occlusion: Occlusion, fills: Fills, regions: list[np.ndarray], selections: list[np.ndarray]
) -> Iterator[Logits]:
    """The logits of this worker's share of the `selections` of records."""
    count, inside = blobs_a_batch(run, len(selections)), brain(run, of(run).tested(run.cohort))
    sizes = np.repeat([int(region.sum()) for region in regions], count)
    own = selections[run.workers.shares]
    steps = 1 + 4 * fills.count  # of a batch: the background, and for each donor three substitutions and the blobs
    with progress("Blacking out", len(own) * steps) as bar:
        for selection, filled in zip(own, ahead(fills.of, own), strict=True):
            blobs = effects.random_blobs(inside, sizes, [run.seed, int(selection[0])])
            logits = occlude(run, occlusion, filled, regions, blobs, bar.advance)
            check_finite(run, "outputs", (logits.base, logits.occluded))
            yield logits


def blobs_a_batch(run: Run, batches: int) -> int:
    """Blobs of each region's size for a batch of records: all batches, of all folds, have `effects.BLOBS` together."""
    if run.folds and of(run).subjects is None:
        batches = sum(math.ceil(subjects / TOGETHER) for subjects in Counter(run.folds.fold_of.values()).values())
    return math.ceil(effects.BLOBS / batches)


def brain(run: Run, indices: np.ndarray) -> np.ndarray:
    """Voxels (x, y, z) that hold signal, in any map, in half of the records or more: where blobs may lie."""
    count = np.zeros(run.cohort.grid.shape)
    for index in indices:
        _, _, volume = run.cohort.read(index)
        count += np.any([of_map != records.background(of_map) for of_map in np.moveaxis(volume, -1, 0)], axis=0)
    return count >= SIGNAL * len(indices)


def occlude(
    run: Run,
    occlusion: Occlusion,
    filled: Filled,
    regions: list[np.ndarray],
    blobs: list[np.ndarray | None],
    advance: Callable[[], None],
) -> Logits:
    """The logits of one batch; `blobs` are those of the first region, then of the second, and so on."""
    inputs = {name: filled.batch[name] for name in run.model.reads}
    shown = occlusion.keep(inputs)
    base, occluded = [], []
    pairs = substitutions(filled)
    for _, volume, fill in pairs:
        kept = shown if volume is inputs["volume"] else occlusion.keep(inputs | {"volume": volume})
        base.append(occlusion.logits(kept))
        occluded.append(occlusion.occluded_logits(kept, fill, regions))
        advance()
    per_region = len(blobs) // len(regions)
    of_blobs = np.full((len(regions), per_region, *base[0].shape), np.nan, np.float32)
    donor_of = donor_of_blobs(per_region, len(filled.donor))
    for number, fill in enumerate(filled.donor):
        own = {
            divmod(at, per_region): blob
            for at, blob in enumerate(blobs)
            if blob is not None and donor_of[at % per_region] == number
        }
        if own:
            within = filled.within(inputs["volume"], fill)
            of_blobs[tuple(np.transpose(list(own)))] = occlusion.occluded_logits(shown, within, own.values())
        advance()
    return Logits(
        np.array([pair.effect for pair in pairs]),
        np.stack(base, axis=1),
        np.stack(occluded).transpose(2, 0, 1, 3),
        of_blobs.transpose(2, 0, 1, 3),
    )


def verify(run: Run, fills: Fills, regions: list[np.ndarray], logits: Logits) -> None:
    """Recomputes random pairs of record and region in full, with every fill, and prints the largest difference."""
    network, indices = restored_network(run), of(run).tested(run.cohort)
    random = np.random.default_rng(run.seed)
    largest = 0.0
    for _ in range(of(run).verify):
        at, region = int(random.integers(len(indices))), int(random.integers(len(regions)))
        filled = fills.of(indices[[at]])
        inside = regions[region][None, ..., None]
        volume = np.concatenate([np.where(inside, fill, volume) for _, volume, fill in substitutions(filled)])
        inputs = {name: np.repeat(filled.batch[name], len(volume), axis=0) for name in run.model.reads}
        expected = np.asarray(network(inputs | {"volume": volume}, training=False))
        largest = max(largest, float(np.abs(expected - logits.occluded[at, :, region]).max()))
    shown = margin(logits.base[:, 0])
    spread = shown.max() - shown.min()
    relative = f", {largest / spread:.2g} of their spread over records" if spread else ""
    print(
        f"{of(run).verify} pairs recomputed in full, with every fill: logits differ by at most {largest:.2g}{relative}."
    )
