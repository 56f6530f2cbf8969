"""What is said of a network beside thirteen baselines that are as good as it is, and of one that is better.

`python tests/benchmarks/baselines.py [--sets 200] [--only TEXT] [--seed 7000]`

Cohorts are those of `coverage.py`: simulated people of several sites. The network and thirteen baselines are ridge
regressions, trained anew for each cohort and tested on ten folds, or leaving sites out. Each reads 348 features of its
own, or shares half of them with the network. All are equally good, or the network's AUC on fresh people of a site is
higher by about 0.05 or 0.1 (the baselines stay). Prints for each setting how often which sentence is said. Before: the
baseline with the highest AUC is the one that counts, and each interval is for its baseline alone. After: the first
baseline was pre-specified, and the intervals of the other twelve hold together. "One" is one baseline at least."""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.effort import EFFORT

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from coverage import FEATURES, NUMBER_OF_FOLDS, RESAMPLES, Setting, cut, simulated, tested

from utils.scores.metrics import Predictions, differences
from utils.scores.statistics import mean_auc, simultaneous

BASELINES = 13
AREA = "auc_sites"
SEPARATION = {200: 1.75, 737: 1.45}  # by the number of people; AUC about 0.7 and 0.75, see `coverage.tested`
GAINS = {0.0: {200: 0.0, 737: 0.0}, 0.05: {200: 0.27, 737: 0.25}, 0.1: {200: 0.56, 737: 0.54}}  # of AUC; of separation


@dataclass(frozen=True)
class Case:
    """So many people, how they are cut, and the share of its features that each baseline shares with the network."""

    people: int
    folds: str
    shared: float

    @property
    def title(self) -> str:
        how = "sites left out" if self.folds == "site" else f"{self.folds} folds"
        return f"{self.people} people, {how}, {self.shared:.0%} shared"


def cases() -> Iterator[Case]:
    for shared in (0.0, 0.5):
        for people in SEPARATION:
            for folds in (str(NUMBER_OF_FOLDS), "site"):
                yield Case(people, folds, shared)


def one_set(case: Case, seed: int) -> list[dict[str, float]]:
    """What is said of the networks of a cohort, a row for each of GAINS."""
    random, separation = np.random.default_rng([seed, case.people, len(case.folds)]), SEPARATION[case.people]
    label, site, (own, *others) = simulated(Setting(case.people, case.folds, separation, ""), random, BASELINES + 1)
    fold, shared = cut(label, site, np.arange(len(label)), case.folds, seed), int(case.shared * FEATURES)
    for values in others:
        values[:, :shared] = own[:, :shared]
    gains = [of[case.people] for of in GAINS.values()]
    better = [own + gain / np.sqrt(FEATURES) * (label[:, None] - 0.5) for gain in gains]
    found = [tested(label, fold, values, separation + gain) for values, gain in zip(better, gains, strict=True)]
    found += [tested(label, fold, values, separation) for values in others]
    scores, truth = np.array([one[0] for one in found]), [one[1] for one in found]
    model = Predictions(label, scores[0], np.arange(len(label)), fold, site)

    def areas(weight: np.ndarray) -> np.ndarray:
        return np.stack([mean_auc(label, of, weight, site) for of in scores], axis=1)

    def less(weight: np.ndarray) -> np.ndarray:
        every = areas(weight)
        return every[:, : len(gains), None] - every[:, None, len(gains) :]

    at, ends = less(np.ones((1, len(label))))[0], model.bootstrap(less, seed, EFFORT.resamples)
    reach = model.widening(AREA) * (np.array(ends) - at)
    if seed % 50 == 0:  # these are the intervals of `differences`, which counts each pair anew
        its = [differences(model, replace(model, probability=scores[-1]), seed, among)[AREA] for among in (1, 12)]
        mine = [at[0, -1] + simultaneous(among) * reach[:, 0, -1] for among in (1, 12)]
        np.testing.assert_allclose(mine, [(one.low, one.high) for one in its])
    best = int(areas(np.ones((1, len(label))))[0, len(gains) :].argmax())
    rows = []
    for number, gain in enumerate(GAINS):
        alone, together = (at[number] + simultaneous(among) * reach[:, number] for among in (1, BASELINES - 1))
        said = {"before: better than the best": alone[0, best] > 0, "before: worse than the best": alone[1, best] < 0}
        said |= {"before: beats one": (alone[0] > 0).any(), "before: worse than one": (alone[1] < 0).any()}
        said |= {"before: beaten of 13": (alone[0] > 0).sum()}
        said |= {"after: better than the named": alone[0, 0] > 0, "after: worse than the named": alone[1, 0] < 0}
        said |= {"after: beats one": (together[0, 1:] > 0).any(), "after: worse than one": (together[1, 1:] < 0).any()}
        said |= {"after: beaten of 12": (together[0, 1:] > 0).sum()}
        rows.append({"gain": gain, "truth": truth[number] - np.mean(truth[len(gains) :])} | said)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="cohorts of each setting (default 200)")
    parser.add_argument("--only", default="", metavar="TEXT", help="settings with this text in their title")
    parser.add_argument("--seed", type=int, default=7000, help="of the first cohort of each setting (default 7000)")
    args = parser.parse_args()
    EFFORT.resamples = RESAMPLES
    for case in cases():
        if args.only in case.title:
            began = time.time()
            rows = [row for number in range(args.sets) for row in one_set(case, args.seed + number)]
            for gain, table in pd.DataFrame(rows).astype(float).groupby("gain"):
                said = table.drop(columns=["gain", "truth"]).mean()
                told = ", ".join(
                    f"{name} {value:.2f}" if " of " in name else f"{name} {value:.1%}" for name, value in said.items()
                )
                print(f"{case.title}, better by {table['truth'].mean():.3f} ({gain}): {len(table)} sets; {told}")
            print(f"{time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
