"""What a blackout says of connections: between each two systems, then between the regions of those that are found.

The part of a network that reads edges is linear. So the effect of replacing all edges between two systems is the sum of
the effects of their pairs of regions, exactly. Edges within a region or a system, and those of parcels outside all
regions, are pairs as well.

Pairs of systems are a family of their own. Regions are tested within the pairs of systems that are found, over all such
pairs of regions; no p is below that of its systems, as in hierarchical testing (Meinshausen 2008, Biometrika 95:265).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from data.cohorts.atlas import Atlas
from data.cohorts.cohort import Cohort, in_order
from data.cohorts.connectomes import Connectomes
from utils.blackout.edges import ROWS, connectomes_of, regions_of_parcels
from utils.blackout.effects import Effects, sums
from utils.blackout.families import Family, People
from utils.blackout.fills import RELIANCE
from utils.blackout.systems import OUTSIDE, Systems

SYSTEMS, REGIONS = "systems", "regions"  # levels of the table


class RegionPairs(NamedTuple):
    """Unordered pairs of regions that have edges. `of_edge` (edges,) int is the pair of each edge, `regions` (pairs, 2)
    int the places of both regions in the atlas, the lower first; they are one if the edge lies within a region."""

    of_edge: np.ndarray
    regions: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """The edges of each pair (pairs,)."""
        return np.bincount(self.of_edge, minlength=len(self.regions))


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
    for rows in in_order(records, ROWS):
        edges = connectomes[rows]
        known = np.asarray(~np.isnan(edges) @ members)
        total = np.asarray(np.nan_to_num(edges) @ members)
        found.append(np.divide(total, known, out=np.full(known.shape, np.nan), where=known > 0))
    return np.concatenate(found)


def pair_name(one: str, other: str) -> str:
    """What a pair is called, whichever comes first."""
    return f"within {one}" if one == other else " and ".join(sorted((one, other)))


@dataclass(frozen=True, eq=False)
class OfEdges(Family):
    """Pairs that a linear part reads. `whole` (subjects, 1) is what this part says of each person, on the logit of the
    true class. No p is below `least` (things,), the p of the systems of pairs of regions."""

    whole: np.ndarray
    least: np.ndarray | float = 0.0

    @cached_property
    def p(self) -> np.ndarray:
        return np.maximum(super().p, self.least)

    @property
    def read(self) -> np.ndarray:
        """All that the part says, so that correlations are an activation pattern (Haufe et al. 2014)."""
        return np.broadcast_to(replace(self, effect=self.whole).on_autism, self.value.shape)


@dataclass(frozen=True, eq=False)
class Connections:
    """`regions` are the names of the atlas in its order; `region_of` (parcels,) is each parcel's region by its place.
    `effect` (subjects, pairs of regions) is on the logit of the true class, in the order of `pairs`. `value_of` gives
    what people have there: see `mean_edges`, (subjects, count)."""

    regions: Sequence[str]
    region_of: np.ndarray
    systems: Systems
    effect: np.ndarray
    value_of: Callable[[np.ndarray, int], np.ndarray]
    people: People

    @cached_property
    def pairs(self) -> RegionPairs:
        """The pairs of regions."""
        return pairs_of(self.region_of, np.column_stack(np.triu_indices(len(self.region_of), 1)))

    @cached_property
    def between(self) -> RegionPairs:
        """The pairs of systems; its `of_edge` is that of each pair of regions."""
        return pairs_of(self.systems.of_region, self.pairs.regions)

    @cached_property
    def of_systems(self) -> Family:
        """Pairs of systems; the effect of each is the sum over its pairs of regions."""
        things = [pair_name(*(self.systems.names[at] for at in pair)) for pair in self.between.regions]
        value = self.value_of(self.between.of_edge[self.pairs.of_edge], len(things))
        effect = sums(self.effect.T, self.between.of_edge).T
        return OfEdges("connections", things, effect, value, self.people, self.whole)

    @property
    def whole(self) -> np.ndarray:
        """The effect (subjects, 1) of all edges."""
        return self.effect.sum(axis=1, keepdims=True)

    @cached_property
    def chosen(self) -> np.ndarray:
        """The pairs of regions, by number, within the pairs of systems that are named."""
        return np.flatnonzero(self.of_systems.named[self.between.of_edge])

    @cached_property
    def ends(self) -> np.ndarray:
        """The places of both regions of the `chosen` pairs (chosen, 2), in the order of their systems."""
        ends = self.pairs.regions[self.chosen]
        return np.take_along_axis(ends, np.argsort(self.systems.of_region[ends], axis=1, kind="stable"), axis=1)

    @cached_property
    def of_regions(self) -> Family | None:
        """Pairs of regions within the pairs of systems that are named; None if none is."""
        names, chosen = [*self.regions, OUTSIDE], self.chosen
        if not len(chosen):
            return None
        things = [pair_name(*(names[at] for at in pair)) for pair in self.ends]
        place = np.full(len(self.pairs.regions), len(chosen))
        place[chosen] = np.arange(len(chosen))
        value = self.value_of(place[self.pairs.of_edge], len(chosen))
        least = self.of_systems.p[self.between.of_edge[chosen]]
        return OfEdges("connections of regions", things, self.effect[:, chosen], value, self.people, self.whole, least)


def connections_of(cohort: Cohort, atlas: Atlas, systems: Systems, effects: Effects, people: People) -> Connections:
    """The connections of a blackout that replaced edges, from `pair_reliance` of its effects."""
    connectomes, place = connectomes_of(cohort), {row.file: at for at, row in enumerate(cohort.rows)}
    records = np.array([place[row.file] for row in effects.rows])

    def value_of(pair: np.ndarray, count: int) -> np.ndarray:
        return effects.of_subjects(mean_edges(connectomes, records, pair, count))

    regions, region_of = [atlas.names[region] for region in atlas.regions], regions_of_parcels(connectomes, atlas)
    effect = effects.of_subjects(effects["pair_reliance"])
    return Connections(regions, region_of, systems, effect, value_of, people)


def connections_table(found: Connections, direction: Callable[[Family], pd.DataFrame]) -> pd.DataFrame:
    """The columns of `connections.csv`: a row a pair of systems, then a row a pair of regions within the named ones,
    each by reliance. `direction` gives the last columns of a family."""
    names, ends, within = np.array(found.systems.names), found.ends, found.of_regions
    both = names[found.between.regions]
    edges = np.bincount(found.between.of_edge, found.pairs.sizes).astype(int)
    parts = [rows_of(found.of_systems, direction, level=SYSTEMS, ends=both, systems=both, edges=edges)]
    if within:
        regions, systems = np.array([*found.regions, OUTSIDE])[ends], names[found.systems.of_region[ends]]
        edges = found.pairs.sizes[found.chosen]
        parts.append(rows_of(within, direction, level=REGIONS, ends=regions, systems=systems, edges=edges))
    return pd.concat(parts, ignore_index=True)


def rows_of(family: Family, direction: Callable[[Family], pd.DataFrame], **of: Any) -> pd.DataFrame:
    """The rows of a level, by reliance."""
    (a, b), (system_a, system_b) = of["ends"].T, of["systems"].T
    told = {"level": of["level"], "a": a, "b": b, "system_a": system_a, "system_b": system_b, "edges": of["edges"]}
    table = pd.concat([pd.DataFrame(told), family.columns(), direction(family)], axis=1)
    return table.sort_values(RELIANCE, ascending=False, kind="stable")
