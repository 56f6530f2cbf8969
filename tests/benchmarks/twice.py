"""p of a blackout in folds, where each pair of people meets twice: ridge regressions of known truth, no network.

`python tests/benchmarks/twice.py [--sets 150] [--people 240] [--seed 0]`

A ridge regression in folds reads 45 things of so many features each; several are independent or correlate at 0.3. The
first thing differs between the classes. Prints in how many sets another one is significant, and in how many the first
one is: as if people were independent, and as a blackout tests them (`People.widening`).
"""

import argparse
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.blackout.effects import Adjusted
from utils.blackout.families import Family, People
from utils.scores.adjustment import Adjustment

THINGS = 45
FOLDS, FEATURES, COMMON = (3, 10), (1, 10, 50), (0.0, 0.3)
PLANTED = 1.2  # standard deviations in all features of the first thing together


def blacked_out(values: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The effects (people, things) on the logit of the true class of things (people, things, features), whose values
    are replaced by the training people's means."""
    rows, sign = values.reshape(len(values), -1), np.where(label == 1, 1.0, -1.0)
    alike, effect = rows @ rows.T, np.zeros(values.shape[:2])
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        own = alike[np.ix_(train, train)] + alike.trace() / len(rows) * np.eye(train.sum())
        weight = np.linalg.solve(own, sign[train] - sign[train].mean()) @ rows[train]
        deviation = values[test] - values[train].mean(0)
        effect[test] = sign[test, None] * np.einsum("ntf,tf->nt", deviation, weight.reshape(values.shape[1:]))
    return effect


def significant(values: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """Which things (things,) bool are significant, as if people were independent, and as a blackout tests them. The
    first half of the people have autism."""
    count = len(values)
    label, alike = (np.arange(count) < count / 2).astype(float), np.zeros(count, int)
    fold = np.random.default_rng(seed).permutation(count) % folds
    adjusted = Adjusted(Adjustment(reason="none"), label)
    people = People(label, alike, fold, np.arange(count), adjusted, True, seed)
    effect, names = blacked_out(values, label, fold), range(values.shape[1])
    return [Family("regions", names, effect, effect, one).named for one in (people, replace(people, twice=True))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=150, help="of each row (default 150)")
    parser.add_argument("--people", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for folds, features, common in product(FOLDS, FEATURES, COMMON):
        if common and features == 1:
            continue
        random, found = np.random.default_rng([args.seed, folds, features, int(10 * common)]), []
        for seed in range(args.seed, args.seed + args.sets):
            values = np.sqrt(1 - common) * random.normal(size=(args.people, THINGS, features))
            values += np.sqrt(common) * random.normal(size=(args.people, THINGS, 1))
            values[: args.people // 2, 0] += PLANTED / np.sqrt(features)
            found.append(significant(values, folds, seed))
        named = np.array(found)  # (sets, 2, things)
        false, right = named[..., 1:].any(2).sum(0), named[..., 0].sum(0)
        print(
            f"{folds} folds, {features} features, correlated at {common:g}: another thing in {false[0]} of {args.sets} "
            f"sets as if independent, in {false[1]} as tested; the planted one in {right[0]} and {right[1]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
