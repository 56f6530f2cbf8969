"""Adjustment of regions' effects for covariates where the truth is known: simulated effects, no network.

`python tests/benchmarks/adjustment.py [--sets 40] [--people 80 200 737] [--seed 0]`

The first of 40 regions carries a covariate, a product or a curve of covariates that the diagnosis goes with, or the
diagnosis itself. Prints in how many sets it is significant, and in how many another region is: before adjustment, and
after it.

With `--relatives` effects of a family correlate at 0.5: pairs of one site and label, or two to four people of one site
with labels of their own. The first region carries the diagnosis. Prints the same with relatives taken for strangers,
and with families as units.

With `--skewed` effects are skewed, classes unequal, or one class varies more. Nothing is carried, or the first of 20
regions differs between the classes. Prints the share of sets in which a region is significant, with its 95 % interval,
and the share in which the one that differs is. `--table CSV` adds them to a table.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest, zscore

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.blackout.effects import Adjusted, Beside, permutation_test
from utils.scores.adjustment import Adjustment, adjustment
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
            beside = Adjusted(adjustment(known), label)((2 * label[:, None] - 1) * on_autism)
            p = np.stack([permutation_test(beside, seed, unit)[0] for unit in (None, family)])
            first, others = first + (p[:, 0] < ALPHA), others + (p[:, 1:].min(1) < ALPHA)
        counts = zip(("as strangers", "as families"), first, others, strict=True)
        texts = "; ".join(f"{way}: {one}, another region {other}" for way, one, other in counts)
        print(f"{people} people, {title}, significant in sets of {len(seeds)}: {texts}", flush=True)


@dataclass(frozen=True)
class Skewed:
    """Effects of one of NOISE; the share of autism; whether z, a sum of covariates, goes with the label and the
    effects, for which these are adjusted; the variance in controls, beside 1; the correlation of regions; who are in
    pairs of one label."""

    noise: str
    share: float
    people: int = 200
    adjusted: bool = False
    carried: float = 0.0
    variance: float = 1.0
    alike: float = 0.0
    related: bool = False

    def drawn(self, random: np.random.Generator, planted: float) -> tuple[Beside, np.ndarray | None]:
        """What covariates leave of effects, and who belongs together."""
        unit = np.arange(self.people) // 2 if self.related else np.arange(self.people)
        known = pd.DataFrame({"site": random.choice(list("abcdef"), self.people, p=[0.3, 0.25, 0.2, 0.1, 0.1, 0.05])})
        known["age"], known["log motion"] = random.gamma(2, 3, self.people), random.normal(size=self.people)
        known["sex"] = np.where(random.random(self.people) < 0.85, 1.0, 2.0)
        z = zscore(zscore(known["age"]) + known["log motion"] + zscore(known["sex"]) + known["site"].isin(["a", "d"]))
        z = np.asarray(z)
        risk = 2 * self.carried * z[2 * unit if self.related else unit]
        risk = risk + random.logistic(size=self.people)[unit]
        label = (risk > np.quantile(risk, 1 - self.share)).astype(float)
        own, common = (NOISE[self.noise](random, (self.people, width)) for width in (SKEWED, 1))
        effect = np.sqrt(1 - self.alike) * own + np.sqrt(self.alike) * common
        if self.related:
            effect = np.sqrt(1 - ALIKE) * effect + np.sqrt(ALIKE) * NOISE[self.noise](random, effect.shape)[unit]
        effect = np.where(label[:, None] == 1, 1, np.sqrt(self.variance)) * effect + self.carried * z[:, None]
        effect[:, 0] += planted * zscore(label)
        adjusted = Adjusted(adjustment(known) if self.adjusted else Adjustment(reason="none"), label)
        return adjusted((2 * label[:, None] - 1) * effect), unit if self.related else None


NOISE = {  # (random, size) -> effects of mean 0 and variance 1
    "normal": lambda random, size: random.normal(size=size),
    "exponential": lambda random, size: random.exponential(size=size) - 1,
    "log-normal": lambda random, size: (random.lognormal(size=size) - np.exp(0.5)) / np.sqrt(np.exp(2) - np.exp(1)),
    "90 % zeros": lambda random, size: (random.exponential(size=size) * (random.random(size) < 0.1) - 0.1) / 0.19**0.5,
}
SKEWED, DIFFERS, PERMUTATIONS = 20, 0.24, 199  # regions; standard deviations that one goes with the label; of labels


def skewed_cases() -> Iterator[Skewed]:
    """First the adjusted ones."""
    for adjusted in (True, False):
        kinds = ("log-normal", "90 % zeros", "exponential")
        yield from (Skewed(noise, 0.8, adjusted=adjusted) for noise in kinds)
        yield from (Skewed(noise, 0.2, adjusted=adjusted) for noise in kinds[:2])
        yield from (
            Skewed(noise, share, adjusted=adjusted, variance=3)
            for noise in ("normal", "exponential")
            for share in (0.8, 0.2)
        )
        yield from (Skewed(noise, 0.5, adjusted=adjusted) for noise in NOISE)
        yield Skewed("log-normal", 0.65, adjusted=adjusted)
        yield Skewed("log-normal", 0.8, 800, adjusted)
        yield Skewed("log-normal", 0.8, adjusted=adjusted, alike=0.5)
        yield from (Skewed("log-normal", share, adjusted=adjusted, related=True) for share in (0.8, 0.2))
    yield from (Skewed("log-normal", share, adjusted=True, carried=0.5) for share in (0.8, 0.2, 0.5))


def of_skewed(case: Skewed, seeds: range) -> dict[str, object]:
    """A row of `--skewed`."""
    found = np.zeros(2, int)
    for seed in seeds:
        for at, planted in enumerate((0.0, DIFFERS)):
            beside, unit = case.drawn(np.random.default_rng([seed, at]), planted)
            p, _ = permutation_test(beside, seed, unit, permutations=PERMUTATIONS)
            found[at] += (p[0] if planted else p.min()) < ALPHA
    ends = binomtest(int(found[0]), len(seeds)).proportion_ci()
    rates = {"error": found[0] / len(seeds), "error_low": ends.low, "error_high": ends.high}
    return vars(case) | {"sets": len(seeds), "seed": seeds.start} | rates | {"power": found[1] / len(seeds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--people", type=int, nargs="*", default=(80, 200, 737))
    parser.add_argument("--seed", type=int, default=0, help="of the first set of each row (default 0)")
    parser.add_argument("--relatives", action="store_true", help="families in place of covariates")
    parser.add_argument("--skewed", action="store_true", help="skewed effects and unequal classes in their place")
    parser.add_argument("--table", type=Path, metavar="CSV", help="of --skewed")
    args = parser.parse_args()
    if args.skewed:
        for case in skewed_cases():
            row = pd.DataFrame([of_skewed(case, range(args.seed, args.seed + args.sets))])
            print(row.to_string(index=False, header=False), flush=True)
            if args.table:
                row.to_csv(args.table, mode="a", header=not args.table.exists(), index=False)
        return
    for people in args.people if args.relatives else ():
        of_relatives(people, range(args.seed, args.seed + args.sets))
    for people in args.people if not args.relatives else ():
        for carried in CARRIED:
            first, others = np.zeros(2, int), np.zeros(2, int)
            for seed in range(args.seed, args.seed + args.sets):
                on_autism, label, known = drawn(carried, people, seed)
                effect, beside = (2 * label[:, None] - 1) * on_autism, Adjusted(adjustment(known), label)
                p = np.stack([permutation_test(of, seed)[0] for of in (beside.plain(effect), beside(effect))])
                first, others = first + (p[:, 0] < ALPHA), others + (p[:, 1:].min(1) < ALPHA)
            counts = zip(("before", "adjusted"), first, others, strict=True)
            texts = "; ".join(f"{way}: {one}, another region {other}" for way, one, other in counts)
            print(f"{people} people, {carried}, significant in sets of {args.sets}: {texts}", flush=True)


if __name__ == "__main__":
    main()
