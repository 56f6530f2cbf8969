"""Whether the p-value of permutations is at most what it says where there is nothing to find, and how often it finds.

`python tests/benchmarks/permutations.py [--sets 200] [--seed 0] [--asked 99 199]`

A cohort is simulated: 100 to 150 people of five sites that differ in the level of all 30 features. Labels tell nothing,
or so much that the AUC is about 0.65. A ridge regression with a fixed penalty is tested on three folds, cut by the
labels as `run.py` cuts them, then again on labels permuted within sites, with folds cut anew; `utils.permutations`
ends each series and gives its p-value. Prints for each number of permutations that is asked for, where there is nothing
to find, how often p is at most 0.05, 0.1 and 0.2, with the 95 % range of chance (`!`: above it), and where there is
something, how often it is at most 0.05; and how many permutations were drawn on average.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.cohorts.cohort import Cohort
from data.cohorts.division import by_number
from data.cohorts.folds import Folds, permuted_folds
from data.cohorts.records import REDUCED
from data.cohorts.rows import Metadata, Row
from utils.permutations import Permuted, permuted
from utils.scores.metrics import Predictions, aucs, headline
from utils.scores.results import ALPHA

SITES, SITE_LEVEL = 5, 0.7
PEOPLE = (100, 150)  # the fewest, the most
FEATURES, PENALTY, NUMBER_OF_FOLDS = 30, 30.0, 3
SEPARATION = 0.95  # of the classes over all features, in standard deviations, which gives an AUC of about 0.65
ASKED = (99, 199)
LEVELS = (ALPHA, 0.1, 0.2)


@dataclass(frozen=True)
class Simulated:
    """Folds of people, who have no records, and their features (people, features)."""

    folds: Folds
    values: np.ndarray


def simulated(separation: float, seed: int) -> Simulated:
    """A cohort whose labels are drawn anew for each site, with another share of autism in each."""
    random = np.random.default_rng([seed, int(100 * separation)])
    people = random.integers(*PEOPLE, endpoint=True)
    site, share = random.integers(SITES, size=people), random.uniform(0.35, 0.65, SITES)
    label = (random.random(people) < share[site]).astype(float)
    level = SITE_LEVEL * random.normal(size=(SITES, FEATURES))[site]
    shift = separation / np.sqrt(FEATURES) * (label[:, None] - 0.5)
    values = random.normal(size=(people, FEATURES)) + level + shift
    rows = [Row(f"{at}.bin", str(at), str(site[at]), label[at], "train") for at in range(people)]
    cohort = Cohort(Path("simulated"), REDUCED, tuple(rows), (), Metadata())
    how = str(NUMBER_OF_FOLDS)
    return Simulated(Folds(how, cohort, "", by_number(cohort, how, seed)), values)


def score(folds: Folds, values: np.ndarray) -> tuple[str, float]:
    """The AUC that a verdict rests on, by its name, of a ridge regression that is tested out of folds."""
    rows = folds.whole.rows
    label, site = np.array([row.label for row in rows]), np.array([row.site for row in rows])
    fold, found = np.array([folds.fold_of[row.subject] for row in rows]), np.zeros(len(rows))
    for name in np.unique(fold):
        rest = fold != name
        centre, spread = values[rest].mean(0), values[rest].std(0)
        known, new = ((values[of] - centre) / spread for of in (rest, ~rest))
        mean, squares = label[rest].mean(), known.T @ known + PENALTY * np.eye(values.shape[1])
        found[~rest] = mean + new @ np.linalg.solve(squares, known.T @ (label[rest] - mean))
    areas = aucs(Predictions(label, found, np.arange(len(rows)), fold, site), np.ones((1, len(rows))))
    name = headline(areas)
    return name, float(areas[name][0])


def one_set(separation: float, asked: Sequence[int], seed: int) -> dict[int, Permuted]:
    """The ends of the series of a cohort for each number that is asked for; none is longer than it must be."""
    cohort, scores, ends = simulated(separation, seed), [], {}
    metric, observed = score(cohort.folds, cohort.values)
    for most in sorted(asked):
        while (end := permuted(observed, scores, most, metric)) is None:
            drawn = permuted_folds(cohort.folds, seed, len(scores) + 1)
            scores.append(score(drawn, cohort.values)[1])
        ends[most] = end
    return ends


def shares(ends: Sequence[Permuted], levels: Sequence[float]) -> str:
    """How often p is at most each of these levels, and what chance allows where there is nothing to find."""
    count, texts = len(ends), []
    for level in levels:
        found, (low, high) = sum(end.p <= level for end in ends), binom.interval(0.95, count, level)
        mark = " !" if found > high else ""
        texts.append(f"p <= {level:g} in {found / count:.1%}{mark} ({low / count:.1%} to {high / count:.1%})")
    return ", ".join(texts)


def line(title: str, ends: Sequence[Permuted], separation: float) -> str:
    """What the series of one length show."""
    found = sum(end.p <= ALPHA for end in ends) / len(ends)
    said = f"p <= {ALPHA:g} in {found:.1%}" if separation else shares(ends, LEVELS)
    area, drawn = (np.mean([getattr(end, name) for end in ends]) for name in ("observed", "count"))
    return f"{title}, {ends[0].asked} permutations: {len(ends)} sets, AUC {area:.3f}; {said}; {drawn:.0f} drawn"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="cohorts with nothing, and with something (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort (default 0)")
    parser.add_argument("--asked", type=int, nargs="+", default=ASKED, help="permutations (default 99 and 199)")
    args = parser.parse_args()
    for title, separation in {"nothing to find": 0.0, "something to find": SEPARATION}.items():
        start, seeds = time.time(), range(args.seed, args.seed + args.sets)
        ends = [one_set(separation, args.asked, seed) for seed in seeds]
        for asked in args.asked:
            print(line(title, [of[asked] for of in ends], separation), flush=True)
        print(f"{time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
