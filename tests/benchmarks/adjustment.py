"""Adjustment of regions' effects for covariates where the truth is known: simulated effects, no network.

`python tests/benchmarks/adjustment.py [--sets 40] [--people 80 200 737] [--seed 0]`

The first of 40 regions carries a covariate, a product or a curve of covariates that the diagnosis goes with, or the
diagnosis itself. Prints in how many sets it is significant, and in how many another region is: before adjustment, and
after it.

With `--relatives` effects of a family correlate at 0.5: pairs of one site and label, or two to four people of one site
with labels of their own. The first region carries the diagnosis. Prints the same with relatives taken for strangers,
and with families as units.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import zscore

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.blackout.effects import Adjusted, sign_flip_test
from utils.scores.adjustment import adjustment
from utils.scores.results import ALPHA

REGIONS = 40
SITES = {80: 4, 200: 8}  # of so many people; of more, MANY
MANY = 16
STRENGTH = 1.2  # log odds of autism a standard deviation of what is carried
DIAGNOSIS = 0.6  # what a region that carries it has of it, in standard deviations of what it has beside
ALIKE = 0.5  # correlation of relatives' effects
CARRIED = (
    *("sex by age", "age by site", "age by motion", "age with a kink", "age squared", "motion above a threshold"),
    *("age", "the diagnosis"),
)


def drawn(carried: str, people: int, seed: int) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Effects on the logit of autism (people, regions), labels, covariates; age goes with the site, motion with age."""
    random = np.random.default_rng([seed, people])
    sites = SITES.get(people, MANY)
    site = random.integers(sites, size=people)
    age = 10 + 0.8 * MANY / sites * site + random.gamma(2, 3, people)
    motion = random.normal(size=people) - 0.05 * (age - 15)
    male, iq = random.random(people) < 0.85, random.normal(105, 15, people)
    a, m, slope = zscore(age), zscore(motion), random.normal(size=sites)
    values = {
        "sex by age": a * np.where(male, 1, -1),
        "age by site": a * slope[site],
        "age by motion": a * m,
        "age with a kink": np.maximum(a, 0),
        "age squared": a**2,
        "motion above a threshold": m > 0.6,
    }.get(carried, a)
    values = zscore(np.asarray(values, float))
    label = (random.random(people) < 1 / (1 + np.exp(-STRENGTH * values))).astype(float)
    effect = random.normal(size=(people, REGIONS)) + random.normal(size=(people, 1)) / 2
    effect[:, 0] += values if carried != "the diagnosis" else DIAGNOSIS * (2 * label - 1)
    known = {"site": site.astype(str).astype(object), "age": age, "log motion": motion, "fiq": iq}
    return effect, label, pd.DataFrame(known).assign(sex=np.where(male, "M", "F").astype(object))


def related(same_label: bool, people: int, seed: int) -> tuple[np.ndarray, np.ndarray, pd.DataFrame, np.ndarray]:
    """`drawn`, and the number of each person's family (people,)."""
    _, label, known = drawn("the diagnosis", people, seed)
    random = np.random.default_rng([seed, people, same_label])
    sizes = [2] * people if same_label else random.choice([2, 3, 4], people)
    family = np.repeat(np.arange(people), sizes)[:people]
    known["site"], label = known["site"].to_numpy()[family], label[family] if same_label else label
    own, common = random.normal(size=(2, people, REGIONS))
    effect = np.sqrt(ALIKE) * common[family] + np.sqrt(1 - ALIKE) * own
    effect[:, 0] += DIAGNOSIS * (2 * label - 1)
    return effect, label, known, family


def of_relatives(people: int, seeds: range) -> None:
    """Prints the counts of `--relatives`."""
    for same_label, title in ((True, "pairs of one label"), (False, "families of any label")):
        first, others = np.zeros(2, int), np.zeros(2, int)
        for seed in seeds:
            on_autism, label, known, family = related(same_label, people, seed)
            net = Adjusted(adjustment(known), label)((2 * label[:, None] - 1) * on_autism)
            p = np.stack([sign_flip_test(net, label, seed, unit)[0] for unit in (None, family)])
            first, others = first + (p[:, 0] < ALPHA), others + (p[:, 1:].min(1) < ALPHA)
        counts = zip(("as strangers", "as families"), first, others, strict=True)
        texts = "; ".join(f"{way}: {one}, another region {other}" for way, one, other in counts)
        print(f"{people} people, {title}, significant in sets of {len(seeds)}: {texts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--people", type=int, nargs="*", default=(80, 200, 737))
    parser.add_argument("--seed", type=int, default=0, help="of the first set of each row (default 0)")
    parser.add_argument("--relatives", action="store_true", help="families in place of covariates")
    args = parser.parse_args()
    for people in args.people if args.relatives else ():
        of_relatives(people, range(args.seed, args.seed + args.sets))
    for people in args.people if not args.relatives else ():
        for carried in CARRIED:
            first, others = np.zeros(2, int), np.zeros(2, int)
            for seed in range(args.seed, args.seed + args.sets):
                on_autism, label, known = drawn(carried, people, seed)
                plain, beside = (2 * label[:, None] - 1) * on_autism, Adjusted(adjustment(known), label)
                p = np.stack([sign_flip_test(effect, label, seed)[0] for effect in (plain, beside(plain))])
                first, others = first + (p[:, 0] < ALPHA), others + (p[:, 1:].min(1) < ALPHA)
            counts = zip(("before", "adjusted"), first, others, strict=True)
            texts = "; ".join(f"{way}: {one}, another region {other}" for way, one, other in counts)
            print(f"{people} people, {carried}, significant in sets of {args.sets}: {texts}", flush=True)


if __name__ == "__main__":
    main()
