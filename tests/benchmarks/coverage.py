"""How often 95 % intervals hold the truth: `python tests/benchmarks/coverage.py [--sets 200]`.

Test sets are drawn from two normals (binormal scores) whose AUC is known; subjects lie in sites of ABIDE's sizes, which
differ in the level of the score, and in five folds. The other classifier, of AUC 0.6, sees half of the same noise. The
probabilities are the true posteriors, so that the calibration error is 0. Prints the share of the intervals of each
metric that hold the truth; 90 to 98 % are expected.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.simulation import SITES
from utils.metrics import Predictions, difference, with_intervals

SIZES = (74, 500)
AUCS = (0.6, 0.75)
OTHER = 0.6
FOLDS = 5


def distance(auc: float) -> float:
    """Between the means of two normals of spread 1."""
    return float(np.sqrt(2) * norm.ppf(auc))


def posterior(score: np.ndarray, auc: float) -> np.ndarray:
    return 1 / (1 + np.exp(-distance(auc) * score))


def held(found: dict, truth: float) -> bool:
    return found["low"] <= truth <= found["high"]


def one_set(count: int, auc: float, seed: int) -> dict[str, bool]:
    """Which intervals of one simulated test set hold the truth."""
    random = np.random.default_rng([seed, count, int(100 * auc)])
    label = (random.random(count) < 0.5).astype(float)
    noise, own, others = random.normal(size=(3, count))
    score = distance(auc) * (label - 0.5) + np.sqrt(0.5) * (noise + own)
    other = distance(OTHER) * (label - 0.5) + np.sqrt(0.5) * (noise + others)
    share = np.array([site[0] for site in SITES.values()], float)
    site = random.choice(len(share), count, p=share / share.sum())
    level = random.normal(size=len(share))
    fold = random.permutation(np.arange(count) % FOLDS)
    predictions = Predictions(label, posterior(score, auc), np.arange(count), fold)
    shifted = replace(predictions, probability=1 / (1 + np.exp(-score - level[site])), site=site)
    found, found_within = with_intervals(predictions, seed), with_intervals(shifted, seed)
    minus = difference(predictions, posterior(other, OTHER), seed)
    return {
        "auc": held(found["auc"], auc),
        "auc_sites": held(found_within["auc_sites"], auc),
        "auc_folds": held(found["auc_folds"], auc),
        "difference": held(minus, auc - OTHER),
        "calibration_error": held(found["calibration_error"], 0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200)
    args = parser.parse_args()
    print(f"share of {args.sets} intervals that hold the truth")
    for count in SIZES:
        for auc in AUCS:
            results = [one_set(count, auc, seed) for seed in range(args.sets)]
            shares = {name: np.mean([result[name] for result in results]) for name in results[0]}
            print(f"{count} subjects, AUC {auc}: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))


if __name__ == "__main__":
    main()
