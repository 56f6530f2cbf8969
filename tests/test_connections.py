"""Connections between systems and regions: sums and means by loops; a planted pair is found as that pair."""

from itertools import combinations_with_replacement
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import effects_of
from scipy import stats

from data.cohorts.rows import Row
from utils.blackout import connections, sentences
from utils.blackout.connections import Connections, connections_of, connections_table, mean_edges, pairs_of
from utils.blackout.effects import Adjusted
from utils.blackout.families import People
from utils.blackout.systems import OUTSIDE, Systems
from utils.scores.adjustment import adjustment

REGIONS = tuple("abcdef")
SYSTEMS = Systems(("front", "side", "back", OUTSIDE), np.array([0, 1, 0, 2, 1, 2, 3]))  # of `a` to `f`, and of none
REGION_OF = np.repeat(np.arange(7), (3, 2, 3, 2, 2, 1, 2))  # of each of 15 parcels; two lie outside
EDGES = np.column_stack(np.triu_indices(len(REGION_OF), 1))
SYSTEM_OF = SYSTEMS.of_region[REGION_OF]  # of each parcel


def people(count: int, concludes: bool = True) -> People:
    """As many of each class, without covariates."""
    label, alike = np.tile([0.0, 1.0], count // 2), np.zeros(count, int)
    adjusted = Adjusted(adjustment(pd.DataFrame(index=range(count))), label)
    return People(label, alike, alike, np.arange(count), adjusted, concludes, 0)


def between(system_of: np.ndarray, one: int, other: int) -> np.ndarray:
    """Which edges lie between two parts, or within one (edges,) bool."""
    return np.array([{one, other} == {system_of[first], system_of[last]} for first, last in EDGES])


def scored(z: np.ndarray, weight: np.ndarray, tested: People) -> Connections:
    """Of Fisher z (people, edges) and the weights of a linear score: each pair's effect on the true class beside the
    mean person."""
    pairs = pairs_of(REGION_OF, EDGES)
    score = (z - z.mean(0)) * weight
    effect = np.column_stack([score[:, pairs.of_edge == pair].sum(1) for pair in range(len(pairs.regions))])
    effect *= np.where(tested.label == 1, 1, -1)[:, None]

    def value_of(pair: np.ndarray, count: int) -> np.ndarray:
        return mean_edges(z, np.arange(len(z)), pair, count)

    return Connections(REGIONS, REGION_OF, SYSTEMS, effect, value_of, tested)


def no_direction(family) -> pd.DataFrame:
    return pd.DataFrame({"difference": family.value[-1]})


@pytest.fixture
def planted():
    """80 people; two edges between `a` and `b`, of front and side, are higher in autism. The score reads all."""
    random, tested = np.random.default_rng(3), people(80)
    z, weight = random.normal(size=(80, len(EDGES))), np.full(len(EDGES), 0.1)
    chosen = np.flatnonzero(between(REGION_OF, 0, 1))[:2]
    z[:, chosen] += tested.label[:, None]
    weight[chosen] = 1
    return scored(z, weight, tested)


def test_pairs_are_those_that_have_edges():
    pairs = pairs_of(REGION_OF, EDGES)
    found = {tuple(pair): edges for pair, edges in zip(pairs.regions.tolist(), pairs.sizes, strict=True)}
    counted = {
        pair: int(between(REGION_OF, *pair).sum()) for pair in combinations_with_replacement(range(7), 2)
    }  # fmt: skip
    assert found == {pair: count for pair, count in counted.items() if count} and (5, 5) not in found
    for edge, pair in enumerate(pairs.of_edge):
        assert pairs.regions[pair].tolist() == sorted(REGION_OF[EDGES[edge]])


def test_effects_of_systems_are_sums_and_values_means_of_known_edges(planted):
    z = np.random.default_rng(0).normal(size=(70, len(EDGES))).astype(np.float32)
    z[np.random.default_rng(1).random(z.shape) < 0.3] = np.nan
    z[5, between(SYSTEM_OF, 0, 2)] = np.nan
    systems = planted.between
    assert len(systems.regions) == len(planted.of_systems.things) == 10
    of_edge, regions = systems.of_edge[planted.pairs.of_edge], planted.pairs.regions
    records = np.array([5, 0, *range(69, 0, -1)])
    values = mean_edges(z, records, of_edge, 9)  # the last pair of systems is left out
    assert values.shape == (71, 9) and np.isnan(values[0]).sum() == 1
    for at, (one, other) in enumerate(systems.regions):
        own = [{one, other} == set(SYSTEMS.of_region[ends]) for ends in regions]
        effect = planted.effect[:, own].sum(1)
        np.testing.assert_allclose(planted.of_systems.effect[:, at], effect, atol=1e-12)
        if at < 9:
            edges = z[records][:, between(SYSTEM_OF, one, other)]
            expected = [np.mean(row[~np.isnan(row)]) if (~np.isnan(row)).any() else np.nan for row in edges]
            np.testing.assert_allclose(values[:, at], expected, rtol=1e-5, atol=1e-6)


def test_a_planted_pair_is_found_as_that_pair(planted):
    table = connections_table(planted, no_direction)
    columns = ["level", "a", "b", "system_a", "system_b", "edges", "reliance"]
    assert list(table)[:7] == columns and list(table)[-1] == "difference"
    systems, regions = (table[table["level"] == level] for level in ("systems", "regions"))
    assert len(systems) == 10 and systems["edges"].sum() == len(EDGES)
    found = systems[systems["p_reliance"] < 0.05]
    assert found[["a", "b", "system_a", "system_b"]].to_numpy().tolist() == [["front", "side"] * 2]
    assert found["edges"].item() == between(SYSTEM_OF, 0, 1).sum() and found.index[0] == 0
    pairs = {frozenset(pair) for pair in regions[["a", "b"]].to_numpy()}
    assert pairs == {frozenset(one + other) for one in "ac" for other in "be"} and len(regions) == 4
    assert (regions["system_a"] == "front").all() and set(regions["a"]) == {"a", "c"}  # each beside its system
    assert (regions["p_reliance"] >= found["p_reliance"].item()).all()
    named = regions[regions["p_reliance"] < 0.05]
    assert named[["a", "b"]].to_numpy().tolist() == [["a", "b"]]
    for part in (systems, regions):
        assert part["reliance"].is_monotonic_decreasing
    last = planted.value_of(np.where(between(REGION_OF, 0, 1), 0, 1), 1)[-1, 0]
    assert named["difference"].item() == pytest.approx(last)
    assert sentences.connections_sentence(planted) == (
        "Between systems, the evidence rests on 1 (front and side) of 10 pairs of systems (reliance, family-wise p < "
        "0.05 over all pairs of systems). Within these, 1 (a and b) of 4 pairs of regions is significant."
    )


def test_a_network_at_chance_has_no_pair_named(planted):
    found = Connections(REGIONS, REGION_OF, SYSTEMS, planted.effect, planted.value_of, people(80, concludes=False))
    table = connections_table(found, no_direction)
    assert len(table) == 10 and table["p_reliance"].min() < 0.05 and found.of_regions is None
    assert sentences.connections_sentence(found) == ""


def test_what_lies_in_which_systems_is_said(planted):
    outside = "2 of 15 parcels lie outside all regions, which counts as a system."
    assert sentences.systems_sentence(planted) == f"Parcels lie in 3 of 3 systems. {outside}"
    parts = (planted.effect, planted.value_of, planted.people)
    own = Connections(REGIONS, REGION_OF, Systems((*REGIONS, OUTSIDE), np.arange(7)), *parts)
    told = "Each region is a system of its own (--systems FILE tells others)."
    assert sentences.systems_sentence(own) == f"Parcels lie in 6 of 6 systems. {told} {outside}"
    some = Connections(REGIONS, REGION_OF, Systems(("x", "y", OUTSIDE), np.array([0, 0, 0, 0, 2, 2, 2])), *parts)
    assert sentences.systems_sentence(some) == (
        f"Parcels lie in 1 of 2 systems. In no system: 2 (e, f) of the regions. {outside}"
    )


@pytest.mark.slow
def test_nothing_planted_is_found_in_five_percent(planted):
    """Of 200 scores that read noise. Then no pair of regions is found, either, since none is tested."""
    random, tested, found = np.random.default_rng(8), people(40), []
    for _ in range(200):
        connected = scored(random.normal(size=(40, len(EDGES))), random.normal(size=len(EDGES)), tested)
        found.append(connected.of_systems.named.any())
        assert (connected.of_regions is None) == (not found[-1])
        assert found[-1] or "none of 10 pairs of systems is significant (" in sentences.connections_sentence(connected)
    assert stats.binomtest(sum(found), 200, 0.05).pvalue > 0.01


def test_connections_of_a_blackout_are_those_of_its_people(planted, monkeypatch):
    """Two scans of a person count as their mean; the cohort has more people, in another order."""
    z = np.random.default_rng(2).normal(size=(5, len(EDGES)))
    rows = [Row(f"{at}.bin", name, "A", float(name == "x"), "test") for at, name in enumerate("zyxyw")]
    cohort = SimpleNamespace(rows=rows, connectomes=z, path="here")
    atlas = SimpleNamespace(regions=[3, 5], names={3: "three", 5: "five"})
    monkeypatch.setattr(connections, "regions_of_parcels", lambda *_: REGION_OF)
    reliance = np.arange(8.0).reshape(4, 2)
    effects = effects_of([rows[3], rows[2], rows[1], rows[4]], 2, pair_reliance=reliance)
    found = connections_of(cohort, atlas, SYSTEMS, effects, people(4))
    assert found.regions == ["three", "five"] and found.region_of is REGION_OF
    np.testing.assert_array_equal(found.effect, [reliance[3], reliance[1], reliance[[0, 2]].mean(0)])
    value = found.value_of(np.where(between(REGION_OF, 0, 1), 0, 1), 1)
    own = z[:, between(REGION_OF, 0, 1)].mean(1)
    np.testing.assert_allclose(value[:, 0], [own[4], own[2], own[[1, 3]].mean()])
