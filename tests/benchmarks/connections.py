"""Connections where the truth is known: simulated effects of pairs of regions, no network.

`python tests/benchmarks/connections.py [--sets 200] [--people 100] [--seed 0]`

Six systems of six regions each; 21 pairs of systems. In some pairs of systems one pair of regions speaks for the true
class. Prints how often those pairs of systems are significant, in how many sets another pair of systems is, and in how
many another pair of regions is.
"""

import argparse
import sys
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.blackout.connections import family_of, pair_name, pairs_of
from utils.blackout.effects import Adjusted
from utils.blackout.families import Family, People
from utils.blackout.systems import OUTSIDE, Systems
from utils.scores.adjustment import adjustment

SYSTEMS = REGIONS = 6  # regions of each system
PARCELS = 2  # of each region, so that it has an edge of its own
PLANTED = ((0, 0.0), (1, 1.0), (1, 1.6), (1, 2.2), (5, 1.6), (5, 2.2))  # pairs of systems, and the mean in SD


def drawn(people: int, planted: int, size: float, seed: int) -> tuple[Family, set[str]]:
    """Pairs of systems and of regions in them, and the names of those where something is planted."""
    random, count = np.random.default_rng([seed, people, planted, int(10 * size)]), SYSTEMS * REGIONS
    label, alike = (np.arange(people) % 2).astype(float), np.zeros(people, int)
    adjusted = Adjusted(adjustment(pd.DataFrame(index=range(people))), label)
    tested = People(label, alike, alike, np.arange(people), adjusted, seed)
    names = tuple(f"system {at}" for at in range(SYSTEMS))
    systems = Systems((*names, OUTSIDE), np.append(np.repeat(np.arange(SYSTEMS), REGIONS), SYSTEMS))
    regions, region_of = [f"region {at}" for at in range(count)], np.repeat(np.arange(count), PARCELS)
    pairs = np.column_stack(np.triu_indices(count))
    between = pairs_of(systems.of_region, pairs)
    first = [np.flatnonzero(between.of_edge == pair)[0] for pair in range(planted)]
    effect = random.normal(size=(people, len(pairs)))
    effect[:, first] += size
    own = {pair_name(names[one], names[other]) for one, other in between.regions[:planted]}
    own |= {pair_name(regions[one], regions[other]) for one, other in pairs[first]}
    return family_of(regions, region_of, systems, effect, lambda pair, count: np.zeros((people, count)), tested), own


def named(family: Family) -> set[str]:
    return set(compress(family.things, family.reliance.named))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for planted, size in PLANTED:
        right = systems = regions = 0
        for seed in range(args.seed, args.seed + args.sets):
            found, own = drawn(args.people, planted, size, seed)
            right += len(named(found) & own)
            systems += bool(named(found) - own)
            regions += found.inner is not None and bool(named(found.inner) - own)
        print(
            f"{planted} pairs of systems, {size:g} SD: found {right} of {planted * args.sets}; in {args.sets} sets "
            f"another pair of systems {systems}, another pair of regions {regions}",
            flush=True,
        )


if __name__ == "__main__":
    main()
