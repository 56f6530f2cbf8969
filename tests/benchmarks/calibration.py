"""What calibrated probabilities and sets of labels do for people of sites that were left out: simulated, and of a test.

`python tests/benchmarks/calibration.py [--sets 10] [--seed 0]`
`python tests/benchmarks/calibration.py --results FOLDER`

Cohorts are simulated as scores of 19 sites of 39 people, with an AUC within sites of 0.75 or of 0.5. Sites are alike,
or each has its own shift of all scores; probabilities say what they should, or are distorted in a known way. Prints the
mean of the constants of `scores/calibration.py` over cohorts; what these do on fresh people of new sites that are made
alike: slope, intercept (with the slope fixed at 1), Brier score before and after; coverage by class of 80 % sets (`!`:
outside of 76 to 84 %), the lowest of a site, how often both labels, one or none remain; and the coverage that was
observed by leaving sites out.

With `--results`, the same of the predictions of a finished test on folds, of each left-out site or value in a row.
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils.scores.calibration import FLAT, LEVELS, Agreement, Coverage, agreement, coverage, fit, left_out

SITES, PEOPLE = 19, 39
LEVEL = LEVELS[0]
ENDS = 0.76, 0.84  # of the mean coverage that is meant to be 0.8
SHIFT = 0.7  # SD over sites, in log odds


@dataclass(frozen=True)
class Setting:
    """The AUC of people of a site, how their log odds are distorted, and the SD of shifts of sites."""

    title: str
    auc: float
    slope: float = 1.0
    intercept: float = 0.0
    shift: float = 0.0


SETTINGS = (
    Setting("sites alike", 0.75),
    Setting("sites alike, too sure", 0.75, 2.5, 0.8),
    Setting("sites alike, not sure enough", 0.75, 0.4, -0.5),
    Setting("each site shifted", 0.75, shift=SHIFT),
    Setting("nothing to find, too sure", 0.5, 2.5),
)
People = tuple[np.ndarray, np.ndarray, np.ndarray]  # label, probability, site


def simulated(of: Setting, seed: int) -> People:
    """People whose values are normal with a variance of 1, the classes apart by what gives the AUC; each site has its
    own share of autism. Where there is nothing to find, log odds are these values."""
    random, apart = np.random.default_rng([seed, *of.title.encode()]), np.sqrt(2) * norm.ppf(of.auc)
    site = np.repeat(np.arange(SITES), PEOPLE)
    label = (random.random(len(site)) < random.uniform(0.35, 0.65, SITES)[site]).astype(float)
    value = random.normal(size=len(site)) + apart * (label - 0.5)
    odds = (apart or 1.0) * value + of.shift * random.normal(size=SITES)[site]
    return label, expit(of.slope * odds + of.intercept), site


def numbers(name: str, of: Agreement | Coverage) -> dict[str, float]:
    """All numbers of a result by their names, None as NaN."""
    flat = pd.json_normalize({name: asdict(of)}).iloc[0]
    return {str(key): np.nan if value is None else float(value) for key, value in flat.items()}


def one_set(of: Setting, seed: int) -> dict[str, float]:
    """The calibration of a cohort, and what it does on fresh people of new sites."""
    (label, raw, site), (new, its_raw, its_site) = (simulated(of, 2 * seed + fresh) for fresh in (0, 1))
    found = fit(label, raw, site, "site")
    assert found.observed
    its = coverage(LEVEL, new, found.sets(its_raw, LEVEL), its_site)
    result = {"slope": found.slope, "intercept": found.intercept}
    result |= numbers("before", agreement(new, its_raw)) | numbers(
        "after", agreement(new, found.probability(its_raw), FLAT)
    )
    return result | numbers("new", its) | numbers("left", found.observed.coverage[0])


def line(of: Setting, sets: pd.DataFrame) -> str:
    """What the cohorts of a setting show, on average."""
    mean = sets.mean()
    held = [mean[f"{where}.{name}.share"] for where in ("new", "left") for name in ("autism", "control")]
    mark = "" if all(ENDS[0] <= share <= ENDS[1] for share in held) else " !"
    lowest = sets[["new.autism.lowest", "new.control.lowest"]].min(axis=1).mean()
    return (
        f"{of.title}: {len(sets)} cohorts; slope {mean['slope']:.2f} (SD {sets['slope'].std():.2f}), intercept "
        f"{mean['intercept']:.2f}; new sites: slope {mean['before.slope']:.2f} -> {mean['after.slope']:.2f}, intercept "
        f"{mean['before.intercept']:.2f} -> {mean['after.intercept']:.2f}, Brier {mean['before.brier']:.3f} -> "
        f"{mean['after.brier']:.3f}; sets hold autism {held[0]:.1%}, control {held[1]:.1%} (observed before: "
        f"{held[2]:.1%}, {held[3]:.1%}){mark}, lowest of a site {lowest:.0%}; both labels {mean['new.both']:.0%}, one "
        f"{1 - mean['new.both'] - mean['new.none']:.0%}, none {mean['new.none']:.0%}"
    )


def of_results(folder: Path) -> None:
    """Prints what calibration does for the people of a test, whose folds are left out."""
    table = pd.read_csv(folder / "predictions.csv").dropna(subset="label").drop_duplicates("subject")
    label, raw, group = (table[name].to_numpy() for name in ("label", "probability", "fold"))
    found, sets = fit(label, raw, group, "fold"), left_out(label, raw, group).sets[0]
    assert found.observed
    print(f"{len(table)} people, {found.groups} left out: slope {found.slope:.3f}, intercept {found.intercept:.3f}")
    for name in ("before", "after"):
        of = getattr(found.observed, name)
        print(f"{name}: slope {of.slope or np.nan:.3f}, intercept {of.intercept:.3f}, Brier {of.brier:.4f}")
    for of in found.observed.coverage:
        print(
            f"{of.level:.0%} sets hold autism {of.autism.share:.1%}, control {of.control.share:.1%}; both labels "
            f"{of.both:.1%}, one {1 - of.both - of.none:.1%}, none {of.none:.1%}"
        )
    for name in np.unique(group):
        own = group == name
        held = [sets[own & (label == value)][:, value] for value in (1, 0)]
        told = [f"{of.mean():.0%} of {len(of)}" if len(of) else "nobody" for of in held]
        print(f"{name}: {LEVEL:.0%} sets hold autism {told[0]}, control {told[1]}; both {sets[own].all(1).mean():.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=10, help="cohorts of each setting (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort of each setting (default 0)")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="a finished run.py --test on folds")
    args = parser.parse_args()
    if args.results:
        of_results(args.results)
        return
    for of in SETTINGS:
        start = time.time()
        sets = pd.DataFrame([one_set(of, args.seed + number) for number in range(args.sets)])
        print(f"{line(of, sets)}; {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
