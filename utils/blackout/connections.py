"""What a blackout says of connections: between each two systems, then between the regions of those that are found.

The part of a network that reads edges is linear. So the effect of replacing all edges between two systems is the sum of
the effects of their pairs of regions, exactly. Edges within a region or a system, and those of parcels outside all
regions, are pairs as well.

Pairs of systems are a family of their own. Regions are tested within the pairs of systems that are found, over all such
pairs of regions; no p is below that of its systems, as in hierarchical testing (Meinshausen 2008, Biometrika 95:265).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from data.cohorts.cohort import split_into_batches
from data.cohorts.connectomes import Connectomes
from data.cohorts.rows import join_names
from utils.blackout import options
from utils.blackout.edge_logits import EdgeLogits
from utils.blackout.edges import ROWS, connectomes_of, regions_of_parcels
from utils.blackout.effects import sums
from utils.blackout.families import Blackout, Effect, Family, Kind, People
from utils.blackout.fills import FILL_OF, RELIANCE
from utils.blackout.options import CONNECTOME
from utils.blackout.setup import Check, Measured, Setup
from utils.blackout.systems import OUTSIDE, Systems

SYSTEMS, REGIONS = "systems", "regions"  # levels of the table


class RegionPairs(NamedTuple):
    """Unordered pairs of regions that have edges. `of_edge` (edges,) int is the pair of each edge, `regions` (pairs, 2)
    int the places of both regions in the atlas, the lower first; they are one if the edge lies within a region."""

    of_edge: np.ndarray
    regions: np.ndarray


def pairs_of(region_of: np.ndarray, pairs: np.ndarray) -> RegionPairs:
    """Of each parcel's region (parcels,) and each edge's parcels (edges, 2).

    Given each region's system (regions + 1,) and pairs of regions (pairs, 2), it gives pairs of systems. Then `of_edge`
    is that of each pair of regions.
    """
    regions, of_edge = np.unique(np.sort(region_of[pairs], axis=1), axis=0, return_inverse=True)
    return RegionPairs(of_edge.ravel(), regions)


def mean_edges(connectomes: Connectomes, records: np.ndarray, pair: np.ndarray, count: int) -> np.ndarray:
    """The mean Fisher z of the known edges of each of `count` pairs, (records, count); NaN where none is known. `pair`
    (edges,) int is that of each edge, `count` if it is of none."""
    chosen = np.flatnonzero(pair < count)
    members = sparse.csr_array((np.ones(len(chosen)), (chosen, pair[chosen])), (len(pair), count))
    found = [np.empty((0, count))]
    for rows in split_into_batches(records, ROWS):
        edges = connectomes[rows]
        known = np.asarray(~np.isnan(edges) @ members)
        total = np.asarray(np.nan_to_num(edges) @ members)
        found.append(np.divide(total, known, out=np.full(known.shape, np.nan), where=known > 0))
    return np.concatenate(found)


def pair_name(one: str, other: str) -> str:
    """What a pair is called, whichever comes first."""
    return f"within {one}" if one == other else " and ".join(sorted((one, other)))


def measure(setup: Setup) -> Measured:
    """How far the log odds fall if the edges between two regions become the mean of all possible donors."""
    edges, donors = setup.volume.fills.edges if setup.volume else None, setup.donors
    if edges is None or setup.edges is None:
        return Measured()
    pairs = pairs_of(edges.region_of, edges.connectomes.parcel_pairs)
    member = sparse.csr_array((np.ones(len(pairs.of_edge)), (np.arange(len(pairs.of_edge)), pairs.of_edge)))
    levels = np.concatenate([setup.edges.contributions(block) @ member for block in edges.connectomes.iterate_blocks()])
    fall = levels[donors.tested] - donors.means_of_others(levels)
    return Measured({"pair_reliance": setup.sign * fall}, partial(checks, setup, setup.edges, pairs.of_edge, fall))


def checks(
    setup: Setup, logits: EdgeLogits, of_edge: np.ndarray, fall: np.ndarray, at: int, random: np.random.Generator
) -> Iterable[Check]:
    """The edges of a pair of a record become the mean of all possible donors."""
    pair, batch = int(random.integers(fall.shape[1])), setup.batch(int(setup.donors.tested[at]))
    own = np.flatnonzero(of_edge == pair)
    values = np.concatenate([block[:, own] for block in connectomes_of(setup.cohort).iterate_blocks()]).astype(float)
    known = np.where(np.isnan(values), logits.mean[own], values)
    replaced = batch[CONNECTOME].copy()
    replaced[:, own] = setup.donors.means_of_others(known)[at]
    yield Check(batch | {CONNECTOME: replaced}, float(setup.log_odds(batch)[0] - fall[at, pair]))


def family(of: Blackout) -> Family | None:
    """Pairs of systems and, within the significant ones, of regions; None if no edges were replaced."""
    if "pair_reliance" not in of.effects:
        return None
    atlas, connectomes, effects = of.atlas, connectomes_of(of.cohort), of.effects
    systems = options.of(of.run).systems_of(of.cohort.grid)
    place = {row.file: at for at, row in enumerate(of.cohort.rows)}
    records = np.array([place[row.file] for row in effects.rows])

    def value_of(pair: np.ndarray, count: int) -> np.ndarray:
        return effects.of_subjects(mean_edges(connectomes, records, pair, count))

    names = [atlas.name_by_region[region] for region in atlas.region_numbers]
    region_of, effect = regions_of_parcels(connectomes, atlas), of.of_subjects("pair_reliance")
    return family_of(names, region_of, systems, effect, value_of, of.people)


def family_of(
    regions: Sequence[str],
    region_of: np.ndarray,
    systems: Systems,
    effect: np.ndarray,
    value_of: Callable[[np.ndarray, int], np.ndarray],
    people: People,
) -> Family:
    """`regions` are the names of the atlas in its order; `region_of` (parcels,) is each parcel's region by its place.
    `effect` (subjects, pairs of regions) is on the logit of the true class, in the order of `pairs_of`. `value_of`
    gives what people have in pairs: see `mean_edges`, (subjects, count)."""
    pairs = pairs_of(region_of, np.column_stack(np.triu_indices(len(region_of), 1)))
    between = pairs_of(systems.of_region, pairs.regions)
    # All that the part says, so that correlations are an activation pattern (Haufe et al. 2014)
    read = Effect(FILL_OF[RELIANCE], effect.sum(axis=1, keepdims=True), people, people.adjusted).on_autism

    def of_level(level: str, ends: np.ndarray, of_systems: np.ndarray, pair: np.ndarray, effect: Effect) -> Family:
        """Of the names of both `ends` (pairs, 2) and of their systems; `pair` (edges,) is that of each edge, or their
        count."""
        (a, b), (system_a, system_b) = ends.T, of_systems.T
        edges = np.bincount(pair, minlength=len(ends) + 1)[: len(ends)]
        told = {"level": level, "a": a, "b": b, "system_a": system_a, "system_b": system_b, "edges": edges}
        value = value_of(pair, len(ends))
        things = [pair_name(*names) for names in ends.tolist()]
        of_all = np.broadcast_to(read, value.shape)
        return Family(CONNECTIONS, things, pd.DataFrame(told), [effect], value, of_all)

    of_systems = Effect(FILL_OF[RELIANCE], sums(effect.T, between.of_edge).T, people, people.adjusted)
    inner, chosen = None, np.flatnonzero(of_systems.significant[between.of_edge])
    names = np.array(systems.names)
    if len(chosen):
        place = np.full(len(pairs.regions), len(chosen))
        place[chosen] = np.arange(len(chosen))
        ends = pairs.regions[chosen]  # in the order of their systems
        ends = np.take_along_axis(ends, np.argsort(systems.of_region[ends], axis=1, kind="stable"), axis=1)
        least = of_systems.p[between.of_edge[chosen]]
        within = Effect(FILL_OF[RELIANCE], effect[:, chosen], people, people.adjusted, least)
        ends_called = np.array([*regions, OUTSIDE])[ends]
        inner = of_level(REGIONS, ends_called, names[systems.of_region[ends]], place[pairs.of_edge], within)
    both = names[between.regions]
    stored = {"pair": pairs.regions.astype(np.int32), "system": np.array(systems.of_each, object)}
    notes = {"a": systems_sentence(regions, region_of, systems)}
    found = of_level(SYSTEMS, both, both, between.of_edge[pairs.of_edge], of_systems)
    return replace(found, inner=inner, axes=("a", "b"), notes=notes, stored=stored)


def systems_sentence(regions: Sequence[str], region_of: np.ndarray, systems: Systems) -> str:
    """In which systems parcels lie, and what lies in none."""
    outside = int((region_of == len(regions)).sum())
    having = np.setdiff1d(systems.of_region[np.unique(region_of)], len(systems.names) - 1)
    told = [f"Parcels lie in {len(having)} of {len(systems.names) - 1} systems."]
    if systems.are_regions:
        told.append("Each region is a system of its own (--systems FILE tells others).")
    if len(systems.unplaced):
        told.append(f"In no system: {join_names([regions[at] for at in systems.unplaced])}.")
    if outside:
        told.append(f"{outside} of {len(region_of)} parcels lie outside all regions, which counts as a system.")
    return " ".join(told)


CONNECTIONS = Kind(
    "connections",
    "connections",
    "pairs of systems",
    family,
    measure,
    about="The edges between two systems of the brain are replaced by those of other participants; all else stays",
    none="No connection is shown to matter alone; many may matter together.",
    inner="pairs of regions",
    shown=("level", "a", "b"),
)
