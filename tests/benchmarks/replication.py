"""Direction and replication where the truth is known: simulated values and effects, no network.

`python tests/benchmarks/replication.py [--sets 200] [--people 80 200 737] [--seed 0]`

People are of 16 sites that differ in size and level; tails are those of Student's t with 5 degrees of freedom. With
relatives, pairs of one label and site correlate at 0.5. First it prints how often the 95 % intervals hold the truth:

- the difference, of 0.5 standard deviations
- the correlation within sites, of 0.4

Then it counts for 40 things, of which 4 carry the diagnosis or none does, what all people name and what comes out in
halves of them. A thing that carries it has an effect of 4 standard errors over all people, or of 6.
"""

import argparse
import time
from collections import Counter

import numpy as np

from utils.blackout.direction import correlations, differences
from utils.blackout.effects import Adjusted
from utils.blackout.families import Effect, People
from utils.blackout.fills import FILL_OF, RELIANCE
from utils.blackout.replication import MOST, halves
from utils.scores.adjustment import Adjustment

SITES, THINGS, PLANTED = 16, 40, 4
DIFFERENCE, CORRELATION = 0.5, 0.4
DEGREES, RELATED = 5, 0.5


def drawn(count: int, random: np.random.Generator, related: bool = False) -> People:
    """People, in pairs of one label and site if they are `related`."""
    unit = np.arange(count) // 2 if related else np.arange(count)
    size = random.dirichlet(np.full(SITES, 2.0))
    site, label = random.choice(SITES, count, p=size)[unit], (random.random(count) < 0.5).astype(int)[unit]
    fold = random.permutation(count)[unit] % 10
    adjusted = Adjusted(Adjustment(reason="none"), label)
    return People(label, site.astype(str), fold.astype(str), unit, adjusted, int(random.integers(2**32)))


def noise(people: People, things: int, random: np.random.Generator) -> np.ndarray:
    """Values (people, things) of variance 1, that correlate within units at `RELATED`."""
    scale = np.sqrt(1 - 2 / DEGREES)
    unit = people.unit
    own, shared = (scale * random.standard_t(DEGREES, (len(unit), things)) for _ in range(2))
    alone = np.bincount(unit)[unit, None] == 1
    return np.where(alone, own, np.sqrt(1 - RELATED) * own + np.sqrt(RELATED) * shared[unit])


def held(ends: tuple[np.ndarray, ...], truth: float) -> float:
    """The share of intervals that hold the truth."""
    _, low, high = ends
    return float(((low <= truth) & (truth <= high)).mean())


def intervals(count: int, related: bool, sets: int, random: np.random.Generator) -> str:
    """How often the intervals of sets of people hold the truth."""
    found = []
    for _ in range(sets):
        people = drawn(count, random, related)
        level, value = people.site.astype(float)[:, None], noise(people, THINGS, random)
        effect = CORRELATION * value + np.sqrt(1 - CORRELATION**2) * noise(people, THINGS, random)
        differ = differences(value + level / 2 + DIFFERENCE * people.label[:, None], people)
        follow = correlations(value + level / 2, effect + level, people)
        found.append((held(differ, DIFFERENCE), held(follow, CORRELATION)))
    shares = zip(("difference", "correlation"), np.mean(found, axis=0), strict=True)
    return ", ".join(f"{name} {share:.1%}" for name, share in shares)


def fates(count: int, size: float, sets: int, random: np.random.Generator) -> Counter:
    """What sets of people name, and what of it comes out; planted things have effects of `size` standard errors."""
    found: Counter = Counter()
    for _ in range(sets):
        people = drawn(count, random)
        effect = noise(people, THINGS, random)
        effect[:, :PLANTED] += size / np.sqrt(count)
        rows = halves("regions", range(THINGS), Effect(FILL_OF[RELIANCE], effect, people, people.adjusted))
        things, planted = rows.iloc[1:], rows["thing"].iloc[1:].isin(range(PLANTED)) & (size > 0)
        named, out = things["significant"] == 1, things["replicates"] > MOST
        found["correlation"] += rows["correlation"].iloc[0] / sets
        for name, which in (("planted", planted), ("others", ~planted)):
            found[f"{name} named"] += int((which & named).sum())
            found[f"{name} named and come out"] += int((which & named & out).sum())
        found["sets that name something else"] += int((named & ~planted).any())
        found["sets where something else is named and comes out"] += int((named & out & ~planted).any())
        found["named in one half"] += float(things["replicates"].sum())
        found["and in the other"] += float((things["replicates"] * things["positive_agreement"].fillna(0)).sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="sets of people of each row (default 200)")
    parser.add_argument("--people", type=int, nargs="+", default=[80, 200, 737], help="(default 80 200 737)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for count in args.people:
        for related in (False, True):
            random, start = np.random.default_rng([args.seed, count, related]), time.time()
            told = intervals(count, related, args.sets, random)
            print(f"{count} people{', relatives' * related}: {told}; {time.time() - start:.0f} s", flush=True)
    for count in args.people:
        for size in (0, 4, 6):
            random, start = np.random.default_rng([args.seed, count, size]), time.time()
            told = ", ".join(f"{name} {of:.4g}" for name, of in fates(count, size, args.sets, random).items())
            print(f"{count} people, {size} standard errors: {told}; {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
