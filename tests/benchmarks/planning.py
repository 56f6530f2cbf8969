"""How many people a study needs: what more training people bring, and what is found with so many tested people.

`python tests/benchmarks/planning.py OUT [--cohort COHORT] [--results FOLDER] [--studies 60] [--seed 0]
[--people 50 100] [--only trained,tested,found,forecast,figure]`

- `trained` (with `--cohort`): `mmnn` and its floors, in ten folds, trained in memory on so many people of the other
  folds. They are drawn in proportion over sites and diagnoses, smaller draws within larger ones. With and without
  connectomes. Writes what each predicts, `trained.csv`, and the AUC within sites, `areas.csv`. What is there already is
  not done again.
- `tested` (with `--results`, a finished test of several sites): how wide the interval of the AUC within sites is of so
  many of its people, of the largest sites. Folds are cut anew. `tested.csv`; the correlation of the network with each
  floor within sites and diagnoses, `correlations.csv`.
- `found`: in simulated studies of equal sites, the AUC from which on 8 of 10 call a model 'better than chance', by the
  intervals of the program. People are tested in ten folds, each site by models of the others, or by one model of other
  people. In ten folds also the AUC from which on 8 of 10 call it better than another model of the same people, whose
  AUC is 0.70. `found.csv`.
- `forecast`: how often such studies, of sites as unequal as ABIDE's, are called 'better than chance' where the true AUC
  is the one that `abide-data check` forecasts for the people and folds of each, and where it is 0.50. `forecast.csv`.
- `figure`: `planning.png` of the tables that are there.

A simulated score is `level * label + noise`, where a label is 1 or -1 and noise is normal with a spread of 1. In folds,
noise is what models of very many features without effect say. Each pair of people of two folds has a normal number of
its own, which enters the score of either with the other's label. So it moves the AUC twice as much as chance alone, as
the program expects at worst. The noise of two models correlates as given.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from coverage import cut
from networks import group_of

from data.cohorts.cohort import Cohort
from data.cohorts.forecast import compared
from data.cohorts.rows import HELD_OUT
from data.cohorts.variants import resplit
from data.simulation import SITES as SITES_OF_ABIDE
from utils.machines import devices
from utils.scores import floors, metrics
from utils.scores.metrics import HEADLINES, Predictions, aucs, averaged, differences, headline, intervals
from utils.scores.results import CHANCE, Estimate
from utils.scores.statistics import log_odds, mean_auc
from utils.training.fit import predicted

PARTS = ("trained", "tested", "found", "forecast", "figure")
FOLDS = 10
TRAINED = (100, 200, 400, 0)  # people; 0: all
NETWORK, NAMED, LINEAR = MODELS = ("network", "floor named beforehand", "linear floor")
KINDS = {  # by what is read: the options of the network, and its two floors
    "with connectomes": ("", "regions with phenotype and connectome, mean of parts", "connectome, ridge"),
    "without connectomes": ("--set connectome=false", "regions and phenotype, mean of SVMs", "regions, ridge"),
}
TESTED, OF_SITES, DRAWS = (50, 100, 200, 400), (1, 5, 20), 20
PEOPLE, SITES = (50, 100, 200, 400, 800), (1, 5, 20)
WAYS = IN_FOLDS, LEFT_OUT, NEW = ("ten folds", "sites left out", "new people")
LINES = dict(zip(WAYS, ("-", "--", ":"), strict=True))
OTHER, CORRELATIONS = 0.70, (0.5, 0.8)  # the AUC of the other model; of the noise of both
POWER = 0.8
FORECAST = ((60, 3), (200, 6), (200, 16), (737, 16))  # people, sites
RESAMPLES = 300  # of 2,000 of a run
HIGHEST, CLOSE = 0.99, 0.006  # AUC; how closely it is looked for


def drawn(cohort: Cohort, people: int, seed: int) -> Cohort:
    """The fold's cohort with so many of its training people, in proportion over sites and diagnoses; 0: all. A group is
    not parted: it is left out unless all its people are drawn."""
    random, rows = np.random.default_rng(seed), {row.subject: row for row in cohort.rows}
    training = pd.DataFrame([(row.subject, row.site, row.label) for row in rows.values() if row.split == "train"])
    training = training.sample(frac=1, random_state=random)
    stratum = training.groupby([1, 2])
    place = (stratum.cumcount() + random.random(len(training))) / stratum[0].transform("size")
    chosen = set(training[0][place.sort_values().index[: people or None]])
    for group in cohort.groups:
        chosen -= set(group) if not chosen.issuperset(group) else set()
    split = {name: HELD_OUT if row.split == "train" and name not in chosen else row.split for name, row in rows.items()}
    return resplit(cohort, split)


def train(cohort: Path, out: Path, seed: int) -> None:
    """Adds to `trained.csv` what is not there: a row a tested person, with a column for each model of each kind."""
    path = out / "trained.csv"
    done = set(pd.read_csv(path)[["people", "fold"]].itertuples(index=False, name=None)) if path.exists() else set()
    with contextlib.redirect_stdout(io.StringIO()):
        groups = {kind: group_of(cohort, f"mmnn {options}", str(FOLDS), 0) for kind, (options, *_) in KINDS.items()}
        workers = next(iter(groups.values())).run.workers.started(devices.start_tensorflow("cpu"))
    for at, people in product(range(FOLDS), TRAINED):
        parts = {kind: replace(group.parts[at], workers=workers) for kind, group in groups.items()}
        fold = next(iter(parts.values())).fold
        if (people, int(fold)) in done:
            continue
        began, small = time.time(), drawn(next(iter(parts.values())).cohort, people, seed)
        with contextlib.redirect_stdout(io.StringIO()):
            of_floors = floors.predict(small)
            table = pd.DataFrame(index=of_floors.index)
            for kind, (_, *names) in KINDS.items():
                table[f"{NETWORK} {kind}"] = pd.Series(predicted(replace(parts[kind], cohort=small)))
                table[[f"{NAMED} {kind}", f"{LINEAR} {kind}"]] = of_floors[names]
        rows = {row.file: row for row in small.rows}
        for name in ("subject", "site", "label"):
            table[name] = [getattr(rows[file], name) for file in table.index]
        table = table.assign(people=people, fold=fold, trained=len(small.subjects("train")))
        table.to_csv(path, mode="a", header=not path.exists(), index=False)
        print(f"{people or 'all'} people, fold {fold}: {time.time() - began:.0f} s", flush=True)


def areas_of(out: Path) -> pd.DataFrame:
    """The AUC within sites of each model by how many people trained it; the network's minus it; it minus that of the
    fewest people."""
    every, rows = pd.read_csv(out / "trained.csv").sort_values("subject"), []
    for kind, name in product(KINDS, MODELS):
        fewest = None
        for people, table in sorted(every.groupby("people"), key=lambda of: of[0] or np.inf):
            network, one = (Predictions.of(table.assign(probability=table[f"{of} {kind}"])) for of in (NETWORK, name))
            fewest = fewest or one
            row = {
                "read": kind,
                "model": name,
                "people": people or round(table.groupby("fold")["trained"].first().mean()),
            }
            rows.append(row | area(one).columns("auc"))
            if name != NETWORK:
                rows[-1] |= differences(network, one, 0)["auc_sites"].columns("network_minus")
            if one is not fewest:
                rows[-1] |= differences(one, fewest, 0)["auc_sites"].columns("minus_fewest")
    return pd.DataFrame(rows)


def area(one: Predictions, seed: int = 0) -> Estimate:
    """The AUC that a verdict rests on, as a test has it."""
    found = intervals(one, partial(averaged, one, aucs), seed)
    return found[headline(found)]


def ways(sites: int) -> list[str]:
    """How people of so many sites are tested; one site is not left out."""
    return [way for way in WAYS if sites > 1 or way != LEFT_OUT]


def within(site: np.ndarray, sites: int) -> np.ndarray:
    """Which people (n,) bool are of the so many largest sites."""
    return np.isin(site, pd.Series(site).value_counts().index[:sites])


def test(results: Path, seed: int) -> pd.DataFrame:
    """The width of the interval of so many people of the largest sites, mean and 80 % range over draws."""
    whole, rows = pd.read_csv(results / "predictions.csv"), []
    for sites in OF_SITES:
        some = whole[within(whole["site"], sites)]
        for people in (*(of for of in TESTED if of < len(some)), len(some)):
            for way in ways(sites):
                widths, none = [], 0
                for number in range(DRAWS if people < len(some) else 1):
                    table = some.sample(people, random_state=seed + number)
                    found = area(study(table, way, seed + number), seed)
                    none += found.low is None
                    widths += [] if found.low is None else [found.high - found.low]
                spread = np.quantile(widths, (0.1, 0.5, 0.9)) if widths else [np.nan] * 3
                ends = dict(zip(("width_low", "width", "width_high"), spread, strict=True))
                rows.append({"sites": some["site"].nunique(), "people": people, "way": way} | ends | {"without": none})
        print(f"tested: {sites} sites", flush=True)
    return pd.DataFrame(rows)


def study(table: pd.DataFrame, way: str, seed: int) -> Predictions:
    """People with a `label`, `site` and `probability` as a study of their own."""
    label, site = table["label"].to_numpy(float), table["site"].to_numpy()
    how = "site" if way == LEFT_OUT else str(FOLDS)
    fold = None if way == NEW else cut(label, site, np.arange(len(label)), how, seed)
    return Predictions(label, table["probability"].to_numpy(), np.arange(len(label)), fold, site)


def correlations(results: Path) -> pd.Series:
    """Of the log odds of the network and each floor, minus their mean at each site and diagnosis."""
    known = pd.read_csv(results / "predictions.csv").set_index("file")
    table = pd.read_csv(results / "floor_predictions.csv").drop(columns="fold", errors="ignore").set_index("file")
    odds = table.join(known["probability"]).apply(lambda column: log_odds(column.to_numpy()))
    odds -= odds.groupby([known["site"][odds.index], known["label"][odds.index]]).transform("mean")
    return odds.drop(columns="majority").corr()["probability"].drop("probability").rename("correlation")


def noise(sign: np.ndarray, fold: np.ndarray | None, random: np.random.Generator) -> np.ndarray:
    """What a model that finds nothing says of people (n,) whose labels are 1 and -1, see above."""
    if fold is None:
        return random.normal(size=len(sign))
    pairs = np.triu(random.normal(size=(len(sign), len(sign))), 1)
    apart = fold[:, None] != fold
    return ((pairs + pairs.T) * apart) @ sign / np.sqrt(apart.sum(1))


def least(low: Callable[[float], float | None], start: float) -> float:
    """From which AUC on the low end is above 0; infinite if it is at none, NaN if there is no interval."""
    ends = [low(auc) for auc in (start, HIGHEST)]
    if ends[1] is None or ends[1] <= 0:
        return np.nan if ends[1] is None else np.inf
    if ends[0] is not None and ends[0] > 0:
        return start
    return brentq(lambda auc: -1.0 if (end := low(auc)) is None else end, start, HIGHEST, xtol=CLOSE)


def simulated(people: int, sites: int, way: str, seed: int) -> tuple[Predictions, np.ndarray, np.ndarray]:
    """The people of a study, and the noise of two models that have nothing in common."""
    random = np.random.default_rng([seed, people, sites])
    site = np.arange(people) % sites
    label = (random.random(people) < 0.5).astype(float)
    one = study(pd.DataFrame({"label": label, "site": site, "probability": 0.5}), way, seed)
    first, second = (noise(2 * label - 1, one.fold, random) for _ in range(2))
    return one, first, second


def scored(one: Predictions, auc: float, of_noise: np.ndarray) -> Predictions:
    """Scores whose true AUC is so high."""
    level = norm.ppf(auc) / np.sqrt(2)
    return replace(one, probability=expit(level * (2 * one.label - 1) + of_noise))


def verdict(one: Predictions, other: Predictions | None = None) -> float | None:
    """How far the low end of the AUC of a verdict lies above chance, or of the AUC minus that of another model above 0,
    as `with_intervals` and `differences` have it; None without an interval."""
    name = next((name for name in HEADLINES if name in one.groups), "auc")

    def value(of: Predictions, weight: np.ndarray) -> np.ndarray:
        group = one.groups.get(name, np.zeros(len(one.label)))
        return mean_auc(of.label, of.probability, weight, group)

    def less(weight: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value(one, weight) - (value(other, weight) if other else CHANCE)}

    return intervals(one, less, 0, lowest=-1.0)[name].low


def of_study(people: int, sites: int, way: str, seed: int) -> dict[str, float]:
    """From which AUC on a study calls a model better than chance and, in folds, better than another model."""
    one, first, second = simulated(people, sites, way, seed)
    result = {"chance": least(lambda auc: verdict(scored(one, auc, first)), CHANCE)}
    for common in CORRELATIONS if way == IN_FOLDS else ():
        of_noise = common * first + np.sqrt(1 - common**2) * second
        other = scored(one, OTHER, of_noise)
        result[f"other, {common}"] = least(lambda auc: verdict(scored(one, auc, first), other), OTHER)  # noqa: B023
    return result


def found(people: int, studies: int, seed: int) -> pd.DataFrame:
    """From which AUC on 8 of 10 studies call a model better, and the share that does so where it is not."""
    rows = []
    for sites, way in [(of, way) for of in SITES for way in ways(of)]:
        every = pd.DataFrame([of_study(people, sites, way, at) for at in range(seed, seed + studies)])
        for than, least_aucs in every.items():
            equal = least_aucs == (CHANCE if than == "chance" else OTHER)
            row = {"people": people, "sites": sites, "way": way, "better_than": than, "auc": power(least_aucs)}
            rows.append(row | {"if_equal": equal.mean(), "without": least_aucs.isna().mean(), "studies": studies})
    return pd.DataFrame(rows)


def power(every: Sequence[float]) -> float:
    """What 8 of 10 studies find; infinite if more than 2 of 10 find nothing."""
    return float(np.quantile(np.nan_to_num(every, nan=np.inf, posinf=np.inf), POWER, method="higher"))


def forecasts(people: int, sites: int, studies: int, seed: int) -> pd.DataFrame:
    """What is forecast for studies at the largest sites of ABIDE, and the share that is called better than chance."""
    shares, rows = np.array([size for size, _ in SITES_OF_ABIDE.values()][:sites]), []
    for at in range(seed, seed + studies):
        random = np.random.default_rng([at, people, sites])
        site, label = random.choice(sites, people, p=shares / shares.sum()), (random.random(people) < 0.5).astype(float)
        for kind in (IN_FOLDS, LEFT_OUT):
            one = study(pd.DataFrame({"label": label, "site": site, "probability": 0.5}), kind, at)
            of_noise = noise(2 * label - 1, one.fold, random)
            row = {"people": people, "sites": sites, "way": kind, "called": None, "at_chance": None}
            row["forecast"] = compared("", (label, site, np.arange(people)), one.fold).auc
            if np.isfinite(row["forecast"]):
                lows = {
                    "called": verdict(scored(one, row["forecast"], of_noise)),
                    "at_chance": verdict(scored(one, CHANCE, of_noise)),
                }
                row |= {name: float(low is not None and low > 0) for name, low in lows.items()}
            rows.append(row)
    table = pd.DataFrame(rows).groupby(["people", "sites", "way"], sort=False)
    columns = {"studies": ("way", "size"), "with_forecast": ("called", "count"), "forecast": ("forecast", "median")}
    return table.agg(**columns, called=("called", "mean"), at_chance=("at_chance", "mean")).reset_index()


def draw(out: Path) -> None:
    """`planning.png` of what is measured."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    areas, width, least_aucs = (pd.read_csv(out / f"{name}.csv") for name in ("areas", "tested", "found"))
    for at, ((kind, name), of) in enumerate(areas.groupby(["read", "model"], sort=False)):
        where, style = of["people"] * 1.02 ** (at - 2.5), {NETWORK: "o-", NAMED: "s--", LINEAR: "^:"}[name]
        ends = np.abs(of[["auc_low", "auc_high"]].to_numpy().T - of["auc"].to_numpy()) if name == NETWORK else None
        color = f"C{[*KINDS].index(kind)}"
        axes[0, 0].errorbar(where, of["auc"], ends, fmt=style, color=color, lw=1, ms=4, label=f"{name}, {kind}")
    words = {"xlabel": "people who trained", "ylabel": "AUC within sites", "ylim": (0.4, 0.9)}
    axes[0, 0].set(title="What more training people bring", **words)
    for (way, sites), of in width.groupby(["way", "sites"], sort=False):
        style = {"color": f"C{[*width['sites'].unique()].index(sites)}", "ls": LINES[way]}
        axes[0, 1].plot(of["people"], of["width"], marker="o", ms=4, label=named(sites, way), **style)
    axes[0, 1].set(xlabel="people who were tested", ylabel="width of the 95 % interval", title="How sure an AUC is")
    of_chance = least_aucs[least_aucs["better_than"] == "chance"]
    for (way, sites), of in of_chance.groupby(["way", "sites"], sort=False):
        style = {"color": f"C{SITES.index(sites)}", "ls": LINES[way]}
        axes[1, 0].plot(of["people"], of["auc"], marker="o", ms=4, label=named(sites, way), **style)
    axes[1, 0].set(xlabel="people who were tested", ylabel="AUC", title="AUC that 8 of 10 studies tell from chance")
    for (than, sites), of in least_aucs[least_aucs["better_than"] != "chance"].groupby(["better_than", "sites"]):
        style = {"color": f"C{SITES.index(sites)}", "ls": "-" if than.endswith(f"{CORRELATIONS[0]}") else ":"}
        label = f"{sites} site{'s'[: sites > 1]}, models correlate at {than.removeprefix('other, ')}"
        axes[1, 1].plot(of["people"], of["auc"] - OTHER, marker="o", ms=4, label=label, **style)
    title = f"Difference from an AUC of {OTHER:.2f} that 8 of 10 tell"
    axes[1, 1].set(xlabel="people who were tested, in ten folds", ylabel="difference of AUC", title=title)
    for axis in axes.flat:
        axis.set_xscale("log")
        ticks = PEOPLE if axis is not axes[0, 0] else sorted(areas["people"].unique())
        axis.set_xlim(ticks[0] / 1.2, ticks[-1] * 1.2)
        axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, handlelength=3.5, loc="lower right" if axis is axes[0, 0] else "upper right")
    figure.savefig(out / "planning.png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def named(sites: int, way: str) -> str:
    return f"{sites} site{'s'[: sites > 1]}, {way}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cohort", type=Path, help="with phenotype and connectomes")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="of run.py --test")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE, help="of simulated studies")
    parser.add_argument("--studies", type=int, default=60, help="of each setting (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(PARTS), metavar="A,B")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    only = args.only.split(",")
    floors.LINEAR = {floors.RIDGE: floors.by_ridge}  # logistic regressions take longer than all other floors
    if "trained" in only and args.cohort:
        train(args.cohort, args.out, args.seed)
        areas_of(args.out).to_csv(args.out / "areas.csv", index=False)
    if "forecast" in only:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        rows = [forecasts(*of, args.studies, args.seed) for of in FORECAST]
        of_run = {"seed": args.seed, "commit": commit.stdout.strip()}
        pd.concat(rows).assign(**of_run).round(3).to_csv(args.out / "forecast.csv", index=False)
    metrics.RESAMPLES = RESAMPLES
    if "tested" in only and args.results:
        test(args.results, args.seed).to_csv(args.out / "tested.csv", index=False)
        correlations(args.results).to_csv(args.out / "correlations.csv")
    for people in args.people if "found" in only else ():
        path, rows = args.out / "found.csv", found(people, args.studies, args.seed)
        known = pd.read_csv(path).query("people != @people") if path.exists() else rows[:0]
        pd.concat([known, rows]).sort_values(["people", "way", "sites", "better_than"]).to_csv(path, index=False)
        print(f"found: {people} people", flush=True)
    if "figure" in only:
        draw(args.out)
    for path in sorted(args.out.glob("*.csv")):
        if path.name != "trained.csv":
            print(path.stem, pd.read_csv(path).round(3).to_string(index=False), sep="\n")


if __name__ == "__main__":
    main()
