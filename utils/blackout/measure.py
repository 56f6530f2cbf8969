"""Test records -> effects of replacing each atlas region by each fill.

Effects are on the logit of the true class, log(p / (1 - p)), for probabilities saturate. For two classes it is the
difference of the network's two outputs.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
from scipy import sparse
from scipy.special import expit

from data.base.processes import ahead
from data.base.terminal import progress
from utils.blackout.connections import pairs_of
from utils.blackout.donors import Donors, control_variate_mean
from utils.blackout.edge_logits import EdgeLogits, edge_logits
from utils.blackout.edges import Edges
from utils.blackout.effects import Effects
from utils.blackout.fills import FILLS, RELIANCE, Fills, Substitution
from utils.blackout.occlusion import Occlusion
from utils.blackout.options import TOGETHER, cohort_of, of
from utils.blackout.values import PHENOTYPE, ValueLogits, groups_of, value_logits
from utils.runs.run import Run
from utils.training.network import check_finite, logit_of_autism, probability_of_autism


class Logits(NamedTuple):
    """Logits of (control, autism) per record. Substitutions are in the order of `Fills.names`.

    `base`: (records, substitutions, 2), before a region was replaced.
    `occluded`: (records, substitutions, regions, 2), after the voxels of a region were replaced.
    `by_map`: (records, donors, regions, maps), autism minus control, after a region was replaced by a donor's in one of
        `Fills.separate` alone.
    `edges`: (records, substitutions, regions, 1), what edges add to autism minus control if they are replaced, too;
        (..., 0) if they stay.
    """

    base: np.ndarray
    occluded: np.ndarray
    by_map: np.ndarray
    edges: np.ndarray

    def effects(self, sign: np.ndarray, fills: Fills) -> dict[str, np.ndarray]:
        """The arrays of `Effects`. `sign` (records, 1) is that of the true class on the logit of autism."""
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
        return arrays | {
            "delta_probability": sign * (probability[:, None] - after),
            "reliance_by_map": (sign[..., None] * by_map).astype(np.float32),
            "region_means": fills.means[fills.donors.tested].astype(np.float32),
            "probability": probability,
        }

    def decrease_by_map(self, fills: Fills) -> np.ndarray:
        """How far the logit of autism falls if a region is replaced in one map alone, a mean over donors: (records,
        regions, maps). If edges are replaced, these alone are one map more."""
        shown, deviations = logit_of_autism(self.base[:, fills.names == RELIANCE]), fills.deviations(fills.means)
        found = np.empty((len(shown), *self.by_map.shape[2:]))
        for at in range(found.shape[-1]):  # one after another, to save memory
            decrease = shown[..., None] - self.by_map[..., at]
            found[..., at] = control_variate_mean(decrease, deviations[..., [at]])
        return np.concatenate([found, -self.edges[:, fills.names == RELIANCE].mean(1)], axis=-1)


@dataclass(frozen=True, eq=False)
class Setup:
    """A network, and who gives what replaces parts of what it reads. `fills` and `occlusion` are those of regions, None
    of a network that reads no volume."""

    run: Run
    network: keras.Model
    donors: Donors
    fills: Fills | None
    occlusion: Occlusion | None
    edges: EdgeLogits | None = None

    @classmethod
    def of(cls, run: Run, network: keras.Model) -> "Setup":
        chosen, cohort = of(run), cohort_of(run)
        donors = Donors(cohort, run.cohort.indices("test"), chosen.donors, run.seed)
        if "volume" not in run.model.reads:
            return cls(run, network, donors, None, None)
        fills = Fills(cohort, chosen.regions(cohort.grid), donors, chosen, run.seed)
        return cls(run, network, donors, fills, Occlusion(network), edge_logits(network))

    @property
    def recomputed_layers(self) -> tuple[str, ...]:
        return self.occlusion.recomputed_layers if self.occlusion else ()


class Measured(NamedTuple):
    """What a network was seen to do, of regions and of the phenotype's values. `pairs` (records of the cohort, pairs)
    is what each pair of regions adds by its edges to the log odds of autism. None of what it does not read, or what
    stays."""

    regions: Logits | None
    values: ValueLogits | None
    pairs: np.ndarray | None


def measure(setup: Setup) -> tuple[Effects, Measured]:
    """Replaces all that the network reads, a part at a time, in all tested records; what was seen is for `verify`."""
    run, donors, fills, occlusion = setup.run, setup.donors, setup.fills, setup.occlusion
    cohort, rows = cohort_of(run), [run.cohort.rows[index] for index in donors.tested]
    sign = np.array([1.0 if row.label == 1 else -1.0 for row in rows])[:, None]
    arrays, regions, values, pairs = dict[str, np.ndarray](), None, None, None
    if fills and occlusion:
        regions = measured_regions(setup, occlusion, fills)
        arrays |= regions.effects(sign, fills)
        if fills.edges and setup.edges:
            pairs = pair_levels(fills.edges, setup.edges)
            arrays["pair_reliance"] = sign * (pairs[donors.tested] - donors.means_of_others(pairs))
    if PHENOTYPE in run.model.inputs(run.config):
        values = value_logits(cohort, setup.network, donors)
        check_finite(run, "outputs", values)
        arrays["value_reliance"] = sign * values.reliance(donors, groups_of(cohort.metadata))
        arrays.setdefault("probability", expit(values.base))
    return Effects(arrays, rows), Measured(regions, values, pairs)


def measured_regions(setup: Setup, occlusion: Occlusion, fills: Fills) -> Logits:
    """Occludes all regions."""
    tested = fills.donors.tested
    batches = np.array_split(tested, math.ceil(len(tested) / TOGETHER))
    parts = list(occluded_batches(setup, occlusion, fills, batches))
    return Logits(*map(np.concatenate, zip(*parts, strict=True)))


def pair_levels(edges: Edges, logits: EdgeLogits) -> np.ndarray:
    """What each pair of regions adds by its edges to the log odds of autism, (records of the cohort, pairs)."""
    pairs = pairs_of(edges.region_of, edges.connectomes.pairs)
    member = sparse.csr_array((np.ones(len(pairs.of_edge)), (np.arange(len(pairs.of_edge)), pairs.of_edge)))
    return np.concatenate([logits.contributions(block) @ member for block in edges.connectomes.blocks()])


def occluded_batches(setup: Setup, occlusion: Occlusion, fills: Fills, batches: list[np.ndarray]) -> Iterator[Logits]:
    """The logits of each batch of records."""
    with progress("Blacking out", len(batches) * len(fills.names)) as bar:
        for filled in ahead(fills.of, batches):
            logits = occlude(occlusion, setup.edges, fills, filled, bar.advance)
            check_finite(setup.run, "outputs", logits)
            yield logits


def occlude(
    occlusion: Occlusion,
    of_edges: EdgeLogits | None,
    fills: Fills,
    filled: tuple[dict[str, np.ndarray], list[Substitution]],
    advance: Callable[[], None] = lambda: None,
) -> Logits:
    """The logits of one batch, `filled` by `fills`. `advance` is called after each substitution."""
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
        edges.append(edge_changes(of_edges, fills, one))
        advance()
    return Logits(
        np.stack(base, axis=1),
        np.stack(occluded).transpose(2, 0, 1, 3),
        np.stack(by_map).transpose(2, 0, 1, 3),
        np.stack(edges).transpose(2, 0, 1, 3),
    )


def edge_changes(of_edges: EdgeLogits | None, fills: Fills, substitution: Substitution) -> np.ndarray:
    """How the logit of autism minus that of control changes with a region's edges: (regions, n, 1), or (regions, n, 0)
    if they stay."""
    if fills.edges is None or of_edges is None or substitution.edges is None:
        return np.zeros((len(fills.masks), len(substitution.volume), 0), np.float32)
    changes = of_edges.changes(fills.edges, substitution.edges)
    return logit_of_autism(changes).astype(np.float32)[..., None]
