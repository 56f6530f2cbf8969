"""Adjustment of regions' effects for covariates where the truth is known: simulated effects, no network.

`python tests/benchmarks/adjustment.py [--sets 20] [--people 300]`

The first of 40 regions carries a covariate that the diagnosis goes with, or the diagnosis itself. Prints in how many
sets it is significant, and in how many another region is: before adjustment, with 2 (y - p) d, and as the program does.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import zscore

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.blackout.effects import adjustment, sign_flip_test
from utils.scores.results import ALPHA

REGIONS, SITES = 40, 16
CARRIED = ("age", "age squared", "motion", "the diagnosis")


def drawn(carried: str, people: int, seed: int) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Effects on the logit of autism (people, regions), labels, covariates; age goes with the site, motion with age."""
    random = np.random.default_rng(seed)
    site = random.integers(SITES, size=people)
    age = 10 + 0.8 * site + random.gamma(2, 3, people)
    motion = random.normal(size=people) - 0.05 * (age - 15)
    known = pd.DataFrame({"site": site.astype(str).astype(object), "age": age, "log motion": motion})
    values = {"age": zscore(age), "age squared": zscore(age) ** 2 - 1, "motion": zscore(motion)}
    risk = values.get(carried, values["age"])
    label = (random.random(people) < 1 / (1 + np.exp(-risk))).astype(float)
    effect = random.normal(size=(people, REGIONS)) + random.normal(size=(people, 1)) / 2
    effect[:, 0] += values.get(carried, label - label.mean())
    return effect, label, known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--people", type=int, default=300)
    args = parser.parse_args()
    for carried in CARRIED:
        first, others = np.zeros(3, int), np.zeros(3, int)
        for seed in range(args.sets):
            on_autism, label, known = drawn(carried, args.people, seed)
            plain, beside = (2 * label[:, None] - 1) * on_autism, adjustment(known, label)
            ways = plain, 2 * (label - beside.probability())[:, None] * on_autism, beside(plain)
            p = np.stack([sign_flip_test(effect, label, seed)[0] for effect in ways])
            first, others = first + (p[:, 0] < ALPHA), others + (p[:, 1:].min(1) < ALPHA)
        counts = zip(("before", "2 (y - p) d", "adjusted"), first, others, strict=True)
        texts = "; ".join(f"{way}: {one}, another region {other}" for way, one, other in counts)
        print(f"{carried}, significant in sets of {args.sets}: {texts}", flush=True)


if __name__ == "__main__":
    main()
