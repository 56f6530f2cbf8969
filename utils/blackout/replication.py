"""Effects of things (`families.py`) -> whether they replicate: `replication.csv`.

`halves`   These people are cut into two halves many times. Significant in most halves is a second, stricter threshold
           on the same people, which most true effects miss that are found with a power of 80 %. The networks are the
           same in both halves. So this says how much the list hangs on who is tested, not on who was trained on.
`repeats`  The same people with other networks and other cuts.

Things that are significant nowhere have no row. The first row of a family is of all its things.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from utils.blackout.effects import permutation_test, sums
from utils.blackout.families import Effect, Family, People, Verdict
from utils.scores.results import ALPHA, CONFIDENCE_LEVEL, MIN_SUBJECTS, Estimate, columns_of

SPLITS, PERMUTATIONS = 100, 500  # into halves; of labels in each half
FEWEST = 4  # numbers that have a range
MOST = 0.5  # share of halves or repeats from which on a thing replicates
HALVES, REPEATS, EXPECTED = "halves", "repeats", "expected"
COLUMNS = [
    *("between", "family", "thing", "significant", "replicates", "expected", "positive_agreement"),
    *columns_of("correlation"),
]


def replication_of(families: Sequence[Family], repeats: Iterable[Sequence[Family]]) -> pd.DataFrame:
    """`replication.csv`: of each family between halves of these people, and between repeats if there are some. These
    may come one after another, to save memory."""
    found = [halves(family.kind.name, family.things, family.reliance) for family in families]
    outcomes = [[(of.reliance.significant, of.reliance.net.mean(0)) for of in every] for every in repeats]
    for family, *of in zip(families, *outcomes, strict=True) if outcomes else ():
        found.append(between_repeats(family.kind.name, family.things, of, family.reliance))
    return pd.concat(found, ignore_index=True)


def halves(name: str, things: Sequence[str], effect: Effect, splits: int = SPLITS) -> pd.DataFrame:
    """Rows of `replication.csv` between halves of these people, for the things of the family `name`. `replicates` is
    the share of all halves in which a thing is significant by a test of their own. The correlation is the mean over
    splits, its ends hold 95 % of them."""
    people, random = effect.people, np.random.default_rng(effect.people.seed)
    total, size = sums(effect.net, people.unit), sums(np.ones(len(effect.net)), people.unit)
    chosen = cut(people, splits if len(size) >= 2 * MIN_SUBJECTS else 0, random)
    pairs = np.stack([chosen, ~chosen], axis=1)  # (splits, 2, units)
    seeds = random.integers(2**32, size=pairs.shape[:2])
    named = np.zeros((*pairs.shape[:2], len(things)), bool)
    critical = []
    for split, side in np.argwhere(pairs.any(2) & (people.verdict is Verdict.OPEN)):
        half, seed = pairs[split, side][people.unit], int(seeds[split, side])
        own, unit, widening = effect.beside.of(half), people.unit[half], people.widening(share=0.5)
        site = None if people.exchanged_within is None else people.exchanged_within[half]
        test = permutation_test(own, seed, unit, widening, PERMUTATIONS, site)
        named[split, side] = test.p < ALPHA
        critical.append(test.critical)
    means = (pairs @ total) / (pairs @ size)[..., None]
    found = spread([correlation(one, other) for one, other in means])
    counts = Counts(named.sum((0, 1)), 2 * named.all(1).sum(0), 2 * len(named))
    expected = in_most_halves(effect, float(np.mean(critical))) if critical else np.full(len(things), np.nan)
    return table(HALVES, name, things, effect.significant, counts, found, expected)


def in_most_halves(effect: Effect, critical: float) -> np.ndarray:
    """The chance (things,) that a true effect of this size is significant in most halves of other people like these: of
    half of them, t is smaller by the root of two, and has to reach the `critical` t of a half."""
    people = effect.people
    needed = critical * np.sqrt(2) * people.widening(share=0.5) / people.widening()
    return stats.norm.cdf(effect.tested.t - needed)


def between_repeats(
    name: str, things: Sequence[str], repeats: Sequence[tuple[np.ndarray, np.ndarray]], whole: Effect
) -> pd.DataFrame:
    """The same between repeats, two or more: what is significant in each and its mean effects, (things,); `whole` is
    their mean."""
    named, means = zip(*repeats, strict=True)
    times, found = np.sum(named, axis=0), spread([correlation(one, other) for one, other in combinations(means, 2)])
    both = times * (times - 1) / (len(repeats) - 1)
    return table(REPEATS, name, things, whole.significant, Counts(times, both, len(repeats)), found)


@dataclass(frozen=True)
class Counts:
    """How often things were significant (things,), of so many `trials`; of these, the mean number (things,) in which
    they are in another trial, too."""

    times: np.ndarray
    both: np.ndarray
    trials: int


def table(
    between: str,
    name: str,
    things: Sequence[str],
    significant: np.ndarray,
    counts: Counts,
    found: Estimate,
    expected: np.ndarray | float = np.nan,
) -> pd.DataFrame:
    """The row of a family, then those of the things that are significant anywhere. In the row of the family
    `significant` is the number of things that are. `replicates` is the share of these that are in most trials, and
    `expected` the share that would be if all of them were true. `positive_agreement` is over all things."""
    share = counts.times / max(counts.trials, 1)
    other = np.divide(counts.both, counts.times, where=counts.times > 0, out=np.full(len(share), np.nan))
    rows = pd.DataFrame({"thing": things, "significant": significant, "replicates": share, "expected": expected})
    rows = rows.assign(positive_agreement=other)
    rows = rows[significant | (counts.times > 0)].astype({"significant": int})
    come = share[significant] > MOST
    whole = {"thing": "", "significant": len(come), "replicates": come.mean() if len(come) else np.nan}
    whole["expected"] = rows.loc[rows["significant"] == 1, "expected"].mean()
    whole["positive_agreement"] = counts.both.sum() / counts.times.sum() if counts.times.any() else np.nan
    head = pd.DataFrame([whole | found.columns("correlation")])
    rows = pd.concat([head, rows], ignore_index=True)
    return rows.assign(between=between, family=name)[COLUMNS]


def cut(people: People, splits: int, random: np.random.Generator) -> np.ndarray:
    """Which units are in the first half, (splits, units) bool. Units are lined up by site and by fold, all else in
    random order, and go to the halves in turn. So at each site, and in each of its folds, halves differ by one at
    most. A unit of several sites is of that of its first person."""
    _, first = np.unique(people.unit, return_index=True)
    site, fold = (np.unique(names[first], return_inverse=True)[1] for names in (people.site, people.fold))
    found = np.empty((splits, len(first)), bool)
    for split in range(splits):
        drawn, (of_site, of_fold) = random.random(len(first)), (random.permutation(len(first)) for _ in range(2))
        line = np.lexsort((drawn, of_fold[fold], of_site[site]))
        found[split, line] = (np.arange(len(line)) + random.integers(2)) % 2 == 0
    return found


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's, over the last axis; NaN where one is constant or undefined."""
    one, other = (of - of.mean(-1, keepdims=True) for of in (one, other))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (one * other).sum(-1) / np.sqrt(np.square(one).sum(-1) * np.square(other).sum(-1))


def spread(values: Sequence[np.ndarray]) -> Estimate:
    """The mean of numbers, and the ends that hold 95 % of them: a range, no interval."""
    known = np.array([value for value in values if np.isfinite(value)])
    if len(known) < FEWEST:
        return Estimate(float(known.mean()) if len(known) else None, None, None)
    tail = (1 - CONFIDENCE_LEVEL) / 2
    return Estimate.of(known.mean(), *np.quantile(known, (tail, 1 - tail)))
