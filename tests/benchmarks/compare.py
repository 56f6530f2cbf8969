"""How often `abide-compare` calls equal runs level, and finds a difference that is there.

`python tests/benchmarks/compare.py [--sets 200] [--only TEXT] [--seed 0]`

Cohorts are those of `coverage.py`: 737 simulated people of several sites, and two ridge regressions, trained anew for
each of them and tested on ten folds, or leaving sites out. Each reads 348 features of its own, or shares half of them
with the other. Either both are equally informative, or the features of the first tell more, so that its AUC on fresh
people of a site is higher by about 0.05. Prints for each setting how often the runs are called level, or which one
better; the standard deviation of the difference over cohorts beside half the width of its interval; and how often the
first should be found better, if differences are normal with that deviation and all intervals had their mean width.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binom, norm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from coverage import FEATURES, NUMBER_OF_FOLDS, Setting, cut, simulated, tested

from utils.compare.runs import CONCLUSIONS, SEED
from utils.evaluation.comparisons import standing
from utils.scores.metrics import Predictions, differences, headline

PEOPLE = 737
SEPARATION = 1.45  # of each, or of the better one; see `coverage.tested`
LOST = {0.0: 0.222, 0.5: 0.487}  # by the features of its own of the worse one, by the share of the others


@dataclass(frozen=True)
class Contest:
    """How people are cut, the share of features that both read, and whether those of the first tell more."""

    folds: str
    shared: float
    differ: bool

    @property
    def title(self) -> str:
        how = "sites left out" if self.folds == "site" else f"{self.folds} folds"
        kind = "the first is better" if self.differ else "equal"
        return f"{kind}, {how}, {self.shared:.0%} of the features shared"


def contests() -> Iterator[Contest]:
    for differ in (False, True):
        for folds in (str(NUMBER_OF_FOLDS), "site"):
            for shared in LOST:
                yield Contest(folds, shared, differ)


def one_pair(contest: Contest, seed: int) -> dict[str, float | str]:
    """What the comparison says of the two runs of a cohort: the difference, its ends, the truth, the conclusion."""
    random = np.random.default_rng([seed, len(contest.folds), int(100 * contest.shared), contest.differ])
    label, site, (mine, its) = simulated(Setting(PEOPLE, contest.folds, SEPARATION, ""), random)
    shared = int(contest.shared * FEATURES)
    its[:, :shared] = mine[:, :shared]
    tells = np.full((2, FEATURES), SEPARATION)
    if contest.differ:
        tells[1, shared:] -= LOST[contest.shared]
    its -= (tells[0] - tells[1]) / np.sqrt(FEATURES) * (label[:, None] - 0.5)
    fold = cut(label, site, np.arange(len(label)), contest.folds, seed)
    (scores, truth), (others, its_truth) = (
        tested(label, fold, of, separation) for of, separation in zip((mine, its), tells, strict=True)
    )
    model = Predictions(label, scores, np.arange(len(label)), fold, site)
    found = differences(model, replace(model, probability=others), SEED)
    less = found[headline(found)]
    return less.columns() | {"truth": truth - its_truth, "conclusion": CONCLUSIONS[standing(less)]}


def line(contest: Contest, pairs: pd.DataFrame, seconds: float) -> str:
    """What the pairs of a contest show."""
    counts = pairs["conclusion"].value_counts().reindex(CONCLUSIONS.values(), fill_value=0)
    low, high = binom.interval(0.99, len(pairs), 0.95)
    mark = " !" if not contest.differ and not low <= counts["level"] <= high else ""
    said = ", ".join(f"{name} {count / len(pairs):.1%}" for name, count in counts.items() if name != "unknown")
    half, spread, mean = (pairs["high"] - pairs["low"]).mean() / 2, pairs["value"].std(), pairs["value"].mean()
    truth = pairs["truth"].mean()
    held = ((pairs["low"] <= truth) & (truth <= pairs["high"])).mean()
    return (
        f"{contest.title}: {len(pairs)} pairs; {said}{mark}; difference {mean:.3f} (true {truth:.3f}, "
        f"held {held:.1%}), over cohorts +-{spread:.3f}, half an interval {half:.3f}; expected of the first: better "
        f"{norm.sf((half - truth) / spread):.1%}; {seconds:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="pairs of each setting (default 200)")
    parser.add_argument("--only", default="", metavar="TEXT", help="settings with this text in their title")
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort of each setting (default 0)")
    args = parser.parse_args()
    for contest in contests():
        if args.only in contest.title:
            began = time.time()
            pairs = pd.DataFrame([one_pair(contest, args.seed + number) for number in range(args.sets)])
            print(line(contest, pairs, time.time() - began), flush=True)


if __name__ == "__main__":
    main()
