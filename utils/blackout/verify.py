"""--verify: what a blackout measured piece by piece, once more by full passes of the network."""

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np

from data.cohorts.cohort import Cohort
from utils.blackout import values
from utils.blackout.connections import pairs_of
from utils.blackout.donors import Donors
from utils.blackout.fills import RELIANCE, Fills, Substitution
from utils.blackout.measure import Measured, Setup
from utils.blackout.options import CONNECTOME, cohort_of, of
from utils.training.network import logit_of_autism


def verify(setup: Setup, measured: Measured) -> None:
    """Recomputes random pairs of a record with a region, a group of values and a pair of regions in full; prints the
    largest difference."""
    run, network, donors, fills = setup.run, setup.network, setup.donors, setup.fills
    random, apart, what = np.random.default_rng(run.seed), list[np.ndarray](), list[str]()
    cohort, count = cohort_of(run), of(run).verify
    chosen = [int(random.integers(len(donors.tested))) for _ in range(count)]
    if fills and measured.regions:
        regions = random.integers(len(fills.masks), size=count)
        for at, region in zip(chosen, regions.tolist(), strict=True):
            apart += differences(network, fills, measured, at, region)
        alone = f" and in each map{', or its edges,' if fills.edges else ''} alone" if fills.separate else ""
        what.append(f"a region with every fill{alone}")
    if measured.values:
        apart += [of_values(network, cohort, donors, measured.values, at) for at in chosen]
        what.append("groups of values")
    if fills and measured.pairs is not None:
        pairs = random.integers(measured.pairs.shape[1], size=count)
        apart += of_pairs(network, fills, measured.pairs, chosen, pairs.tolist())
        what.append("a pair of regions")
    largest = max(float(np.abs(each).max()) for each in apart)
    spread = float(np.ptp(base_of(measured)))
    relative = f", {largest / spread:.2g} of their spread over records" if spread else ""
    told = ", ".join(what[:-1]) + " and " + what[-1] if len(what) > 1 else what[0]
    print(f"{count} records recomputed in full, {told}: logits differ by at most {largest:.2g}{relative}.")


def base_of(measured: Measured) -> np.ndarray:
    """The log odds of autism of each record with everything shown."""
    if measured.regions:
        return logit_of_autism(measured.regions.base[:, 0])
    assert measured.values
    return measured.values.base


def whole_pass(network: Any, shown: list[dict[str, np.ndarray]]) -> np.ndarray:
    """The log odds of autism of all records of some batches."""
    together = {name: np.concatenate([each[name] for each in shown]) for name in network.input}
    return logit_of_autism(np.asarray(network(together, training=False)))


def differences(network: Any, fills: Fills, measured: Measured, at: int, region: int) -> list[np.ndarray]:
    """The log odds of autism by full passes, minus what was measured, of one record and region."""
    logits = measured.regions
    assert logits
    batch, substitutions = fills.of(fills.donors.tested[[at]])
    inside, given, of_edges = fills.masks[region][None, ..., None], fills.names == RELIANCE, logits.edges[at, :, region]
    donated = [*compress(substitutions, given)]

    def whole(chosen: list[Substitution], inside: np.ndarray, region: int | None) -> np.ndarray:
        return whole_pass(network, [batch | fills.inputs_with(one, inside, region) for one in chosen])

    expected = logit_of_autism(logits.occluded[at, :, region]) + of_edges.sum(-1)
    apart = [whole(substitutions, inside, region) - expected]
    for place, one in enumerate(fills.separate):
        alone = whole(donated, inside & (np.arange(len(fills.replaced)) == one), None)
        apart.append(alone - logits.by_map[at, :, region, place])
    if fills.edges:
        expected = logit_of_autism(logits.base[at, given]) + of_edges[given, 0]
        apart.append(whole(donated, np.zeros_like(inside), region) - expected)
    return apart


def batch_of(cohort: Cohort, at: int) -> dict[str, np.ndarray]:
    """One record, as networks read it."""
    return cohort.batch([at], tables={CONNECTOME: cohort.connectomes} if cohort.connectomes else {})


def of_values(network: Any, cohort: Cohort, donors: Donors, measured: values.ValueLogits, at: int) -> np.ndarray:
    """The same for all groups of values of one record, by every donor."""
    record = donors.tested[at]
    batch, groups = batch_of(cohort, record), values.groups_of(cohort.metadata)
    found = []
    for given in cohort.batch(donors.of(donors.tested[[at]])[:, 0], volumes=False)[values.PHENOTYPE]:
        for own in groups.values():
            shown = batch[values.PHENOTYPE].copy()
            shown[:, own] = given[own]
            found.append(whole_pass(network, [batch | {values.PHENOTYPE: shown}])[0])
    return np.array(found).reshape(measured.replaced[at].shape) - measured.replaced[at]


def of_pairs(
    network: Any, fills: Fills, levels: np.ndarray, chosen: Sequence[int], pairs: Sequence[int]
) -> list[np.ndarray]:
    """The same of each record for the edges of one of `pairs` of regions. These become the mean of all possible
    donors."""
    edges, donors, found = fills.edges, fills.donors, list[np.ndarray]()
    assert edges
    of_edge = pairs_of(edges.region_of, edges.connectomes.pairs).of_edge
    measured = levels[donors.tested] - donors.means_of_others(levels)
    mean = network.get_layer("connectome_logits").mean.numpy()  # in place of what is unknown
    places = [np.flatnonzero(of_edge == pair) for pair in pairs]
    every = np.concatenate(places)
    known = np.concatenate([block[:, every] for block in edges.connectomes.blocks()]).astype(float)
    expected = donors.means_of_others(np.where(np.isnan(known), mean[every], known))
    of_each = np.split(expected, np.cumsum([len(own) for own in places])[:-1], axis=1)
    for at, pair, own, given in zip(chosen, pairs, places, of_each, strict=True):
        batch = batch_of(fills.cohort, donors.tested[at])
        replaced = batch[CONNECTOME].copy()
        replaced[0, own] = given[at]
        change = np.diff(whole_pass(network, [batch | {CONNECTOME: replaced}, batch]))
        found.append(change - measured[at, pair])
    return found
