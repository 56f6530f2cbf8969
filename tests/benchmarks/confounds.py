"""How often a network that reads covariates only is taken for more: `python tests/benchmarks/confounds.py [--sets 40]`.

Simulated people have a site, an age and head motion that differ between sites, a sex and an IQ. The diagnosis depends
on one of them, or on a product or a curve (`cases`). The output is this dependence and noise: it says nothing else of
the diagnosis. Ten folds have tested these people, so that intervals are those of folds. Printed are the share of the
sets in which it 'carries more' (less than 2.5 % are expected), and the same where the output also reads the diagnosis.

Where motion is measured with error (`error`: its reliability is 0.7), where IQ is not in the tables (`unseen`) or not
for everybody, and of a product of three, this test cannot know; of the last three is printed how often the sentence
says that this is not in the test. With `gaps` in the IQ, the output reads it where it is known.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.base.effort import EFFORT
from data.cohorts.covariates import known_covariates
from data.cohorts.stored import open_cohort
from data.simulation import SITES
from utils.evaluation.confounds import motion, motion_line
from utils.scores.metrics import Predictions

SITES_OF = {737: 16, 200: 6, 80: 3}  # how many of SITES, by people; of other numbers, 3
SIGNAL = 0.5  # of the diagnosis in the output: one standard deviation of what it has beside covariates
RELIABILITY = 0.7
FOLDS = 10
NAMED = {  # what may explain the output of a case
    "unseen": "IQ",
    "unknown at two sites": "fiq where it is unknown",
    "age by motion by sex": "products of three",
}


def cases(random: np.random.Generator, site: np.ndarray, known: pd.DataFrame) -> dict[str, np.ndarray]:
    """The log odds of the diagnosis (n,), by what they depend on."""
    names = ("age", "fiq", "func_mean_fd")
    age, iq, moved = (((known[name] - known[name].mean()) / known[name].std()).to_numpy() for name in names)
    several, threshold, shape = random.normal(size=(2, len(SITES))), 2 * (moved > 0.6) - 0.5, moved**2 - 1
    of_age, of_site = several[0][site] * age, 0.8 * several[1][site]
    return {
        "sex by age": 1.5 * age * np.where(known["sex"] == "M", 1, -1),
        "age by site": 1.5 * of_age,
        "age by motion": 1.5 * age * moved,
        "age with a kink": 2 * np.maximum(age, 0),
        "threshold": threshold,
        "U-shape": 0.8 * shape,
        "IQ": -0.9 * iq,
        "site": of_site,
        "all of these": 0.5 * (threshold + shape + of_age - iq + of_site),
        "error": moved,
        "unseen": -0.9 * iq,
        "unknown at two sites": -0.9 * iq,
        "age by motion by sex": 1.5 * age * moved * np.where(known["sex"] == "M", 1, -1),
        "gaps at random": -0.9 * iq,
        "gaps by site and label": -0.9 * iq,
    }


def simulated(count: int, random: np.random.Generator) -> pd.DataFrame:
    """People with a site, an age, a sex, an IQ and the logarithm of head motion."""
    people = np.array([people for people, _ in SITES.values()], float)[: SITES_OF.get(count, 3)]
    site = random.choice(len(people), count, p=people / people.sum())
    of_site = random.normal(size=(2, len(SITES)))
    age = np.clip(17 + 5 * of_site[0][site] + random.normal(0, 5, count), 6, 60)
    moved = 0.4 * of_site[1][site] - 0.07 * (age - 17) + random.normal(0, 0.9, count)
    known = pd.DataFrame({"age": age, "fiq": random.normal(105, 15, count), "func_mean_fd": moved})
    known["sex"] = random.choice(["F", "M"], count, p=[0.15, 0.85])
    return known.assign(site=site, beside=moved - 0.4 * of_site[1][site])


def real_people(path: Path) -> pd.DataFrame:
    """The same of people of ABIDE, from a cohort with its default covariates; an unknown number is the median."""
    cohort = open_cohort(path)
    table, site = known_covariates(cohort), {row.subject: row.site for row in cohort.rows}
    numbers = table[["AGE_AT_SCAN", "fiq", "func_mean_fd"]].apply(pd.to_numeric, errors="coerce")
    numbers = numbers.fillna(numbers.median()).set_axis(["age", "fiq", "func_mean_fd"], axis=1)
    moved = np.log(numbers["func_mean_fd"].clip(lower=0.001)) + 2
    sex = np.where(table["SEX"].str.startswith("1"), "M", "F")
    codes = pd.factorize(table.index.map(site))[0] % len(SITES)
    return numbers.assign(func_mean_fd=moved, sex=sex, site=codes, beside=moved).reset_index(drop=True)


def one_set(case: str, signal: float, seed: int, count: int, real: pd.DataFrame | None = None) -> dict:
    """The result of `motion` of one test of simulated or `real` people; its output is simulated."""
    random = np.random.default_rng([seed, count])
    known = simulated(count, random) if real is None else real.sample(count, random_state=random, ignore_index=True)
    site, beside = known.pop("site").to_numpy(), known.pop("beside")
    age, moved = known["age"], known["func_mean_fd"]
    odds = cases(random, site, known)[case]
    label = (random.random(count) < 1 / (1 + np.exp(-odds))).astype(float)
    if case.startswith("gaps"):
        share = 0.2 if case == "gaps at random" else np.where(label == 1, 0.1, np.where(site == 0, 0.9, 0.25))
        known["fiq"] = known["fiq"].mask(random.random(count) < share)
        odds = np.where(known["fiq"].isna(), 0, odds)
    if case == "unknown at two sites":
        known["fiq"] = known["fiq"].mask((site == 1) | (site == 2))
    output = 1.5 * (odds - odds.mean()) / odds.std() + random.normal(0, 0.5, count) + signal * (label - 0.5)
    if case == "error":
        beside = np.var(beside - np.poly1d(np.polyfit(age, moved, 1))(age))
        known["func_mean_fd"] += random.normal(0, np.sqrt(beside * (1 / RELIABILITY - 1)), count)
    known["func_mean_fd"] = np.exp(known["func_mean_fd"] - 2)
    known = known.astype(str).fillna("").drop(columns="fiq" if case == "unseen" else [])
    probability, fold = 1 / (1 + np.exp(-output)), np.arange(count) % FOLDS
    predictions = Predictions(label, probability, known.index.to_numpy(), fold, site.astype(str))
    return motion(predictions, known, seed) or {}


def explained(case: str, result: dict) -> bool:
    """Whether what cannot be known is said rightly."""
    return NAMED[case] in motion_line(result).partition("may explain the result")[2]


def carries_more(result: dict) -> bool:
    return "partial" in result and result["partial"].low > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--people", type=int, nargs="*", default=tuple(SITES_OF))
    parser.add_argument("--seed", type=int, default=0, help="of the first set of each case (default 0)")
    parser.add_argument("--only", default="", help="cases, such as IQ,unseen (default: all)")
    parser.add_argument("--resamples", type=int, default=400, help="of each interval (default 400)")
    parser.add_argument("--real", type=Path, metavar="COHORT", help="draw the covariates of its people")
    args = parser.parse_args()
    real = real_people(args.real) if args.real else None
    EFFORT.resamples = args.resamples
    print(f"share of {args.sets} sets in which the output 'carries more'; seeds from {args.seed}")
    for count in args.people:
        nobody = pd.DataFrame(np.eye(2, 3), columns=["age", "fiq", "func_mean_fd"]).assign(sex="M")
        every_case = cases(np.random.default_rng(0), np.arange(2), nobody)
        for case in args.only.split(",") if args.only else every_case:
            seeds = range(args.seed, args.seed + args.sets)
            sets = [[one_set(case, signal, seed, count, real) for seed in seeds] for signal in (0, SIGNAL)]
            shares = [np.mean([*map(carries_more, results)]) for results in sets]
            line = f"{count} people, {case}: {shares[0]:.1%}, with the diagnosis {shares[1]:.1%}"
            if case in NAMED:
                told = [explained(case, result) for result in sets[0] if carries_more(result)]
                line += f"; said rightly {sum(told)} of {len(told)}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
