"""Blackout on cohorts whose truth is known: what is found, and how often something is named that carries nothing.

`python tests/benchmarks/truth.py [--only A,B] [--cohorts N] [--real COHORT] [--preset NAME] [--seed 0]`

random      `--real COHORT` (31x37x31) with its labels permuted over subjects; its test subjects.
motion      240 people in three folds, four planted regions; one more carries head motion alone, which goes with the
            diagnosis.
site        The same with the site: sites differ in the share of autism.
sex-age     The same with sex times age; half of the people are female.
age-site    The same with age times a slope that each site has of its own.
25/75       240 people in three folds, four planted regions; a quarter has autism.
suppressed  As `25/75` with equal classes; each region correlates at 0.8 with its mirror image, and the difference is
            planted in one of them.
one-map     240 people in three folds, five maps drawn apart; one region of one map differs. All pairs of a region
            and a map are tested.
no-edges    240 people in three folds with connectomes, and nothing planted.
connection  As `no-edges`, with four planted regions; four edges between two systems differ.
value       As `no-edges`; IQ differs, on all three scales.
value-nn    The same, read by `nn`.
repeated    As `suppressed`, but the mirror image follows the planted region, difference included; with connectomes that
            hold nothing.
age-edges   As `motion` with age, and connectomes; four edges of one pair of systems carry age, too.
sex-age-edges  The same with sex times age.

`cnn`, or `mmnn` where there are connectomes, is trained and blacked out by the user's own commands. A thing is named if
its p is below 0.05 and the network is better than chance. Counts in brackets are without the latter, so these are what
5 % is of. Prints what is found in each cohort; then for each scenario a line of each test: of regions (`reliance`,
`unique`), of regions in one map, of pairs of systems and of regions in them, of groups of values.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib import pyplot as plt
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import run as command_line
from data import demo
from data.cohorts.atlas import load_atlas
from data.cohorts.records import FULL
from tests.benchmarks import planted
from tests.benchmarks.planted import mirror
from utils.blackout import figure, job, page
from utils.blackout.connections import REGION_LEVEL, SYSTEM_LEVEL, format_pair_name
from utils.blackout.replication import BETWEEN_HALVES, REPLICATION_THRESHOLD
from utils.blackout.systems import AAL_SYSTEM_BY_REGION
from utils.scores.results import FAMILYWISE_ALPHA

RELIANCE, UNIQUE, MAPS, CONNECTIONS, PAIRS, VALUES = (
    "reliance", "unique", "maps", "connections", "pairs of regions", "values",
)  # fmt: skip
Truth = dict[str, dict[str, int]]  # test -> thing -> 1 if it is higher in autism, -1 if lower


class Test(NamedTuple):
    """Where a test stands: the table, the columns that name a thing, the effect; the family of `replication.csv`."""

    file: str
    columns: tuple[str, ...]
    effect: str = "reliance"
    family: str = ""
    level: str = ""


TESTS = {
    RELIANCE: Test("regions", ("name",), family="regions"),
    UNIQUE: Test("regions", ("name",), "unique"),
    MAPS: Test("regions_by_map", ("name", "map"), family="maps"),
    CONNECTIONS: Test("connections", ("a", "b"), family="connections", level=SYSTEM_LEVEL),
    PAIRS: Test("connections", ("a", "b"), level=REGION_LEVEL),
    VALUES: Test("values", ("group",), family="values"),
}


@dataclass(frozen=True)
class Scenario:
    """How a cohort is made in a new folder from a seed, how many, how it is cut; of each test what is planted, and what
    else may be named."""

    make: Callable[[Path, int], None]
    cohorts: int
    folds: tuple[str, ...] = ("--folds", "3")
    planted: Truth = field(default_factory=dict)
    excused: Truth = field(default_factory=dict)
    model: str = "mmnn"


def differing(regions: Iterable[str], tests: Iterable[str] = (RELIANCE, UNIQUE), where: str = "falff") -> Truth:
    """Regions that are higher in autism, by test; and where they are so, a map or the edges."""
    return {test: dict.fromkeys(regions, 1) for test in tests} | {MAPS: {f"{name} in {where}": 1 for name in regions}}


def joining(pairs: planted.Pairs) -> Truth:
    """Pairs of regions whose edges are higher in autism, and the pairs of their systems."""
    systems, regions = (
        [*dict.fromkeys(AAL_SYSTEM_BY_REGION.values())],
        [*load_atlas(None, FULL).name_by_region.values()],
    )
    ends = [
        sorted(pair, key=lambda name: (systems.index(AAL_SYSTEM_BY_REGION[name]), regions.index(name)))
        for pair in pairs
    ]
    between = {format_pair_name(*(AAL_SYSTEM_BY_REGION[name] for name in pair)): 1 for pair in ends}
    return {CONNECTIONS: between, PAIRS: {format_pair_name(*pair): 1 for pair in ends}}


def scenarios(real: Path | None) -> dict[str, Scenario]:
    four, mirrors = differing(demo.PLANTED_REGIONS), tuple(map(mirror, demo.PLANTED_REGIONS))
    volumes = partial(Scenario, planted=four, model="cnn")
    of_kind = partial(partial, planted.simulated)
    ends = differing({name for pair in planted.PLANTED_EDGES for name in pair}, where="connectome")
    one_map = {MAPS: {f"{planted.OneMap.planted_region} in {planted.OneMap.planted_map}": 1}}
    made, both = partial(partial, planted.connected), differing(mirrors)
    found = {
        **{name: volumes(of_kind(kind=kind), 10) for name, kind in planted.KINDS.items()},
        "suppressed": volumes(of_kind(kind=planted.Suppressed), 10, excused=both),
        "one-map": volumes(of_kind(kind=planted.OneMap), 10, planted=one_map),
        "no-edges": Scenario(made(), 20),
        "connection": Scenario(
            made(edges=planted.PLANTED_EDGES, effect=planted.EFFECT),
            20,
            planted=four | joining(planted.PLANTED_EDGES),
            excused=ends,
        ),
        "value": Scenario(made(kind=planted.LowerIQ), 20, planted={VALUES: {"IQ": -1}}),
        "value-nn": Scenario(made(kind=planted.LowerIQ), 20, planted={VALUES: {"IQ": -1}}, model="nn"),
        "repeated": Scenario(
            made(kind=planted.Inherited, effect=planted.EFFECT),
            20,
            planted=differing((*demo.PLANTED_REGIONS, *mirrors), [RELIANCE]) | {UNIQUE: four[UNIQUE]},
        ),
        "age-edges": Scenario(made(kind=planted.Age, effect=planted.EFFECT), 20, planted=four | {VALUES: {"age": 1}}),
        "sex-age-edges": Scenario(
            made(kind=planted.SexByAge, effect=planted.EFFECT), 20, planted=four, excused={VALUES: {"age": 1, "sex": 1}}
        ),
    }
    permuted = partial(planted.permuted, real=real)
    return found | ({"random": Scenario(permuted, 20, (), model="cnn")} if real else {})


@contextlib.contextmanager
def blacked_out(scenario: Scenario, seed: int, jobs: tuple) -> Iterator[Path]:
    """A cohort is made, a network is trained and blacked out: the folder of the blackout."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        scenario.make(folder / "cohort", seed)
        places = ["--dataDir", folder / "cohort", "--chkPointDir", folder / "ckpt", "--seed", seed]
        for words in jobs:
            given = [*words, "--model", scenario.model, *places, *scenario.folds]
            sys.argv = ["run.py", *map(str, [*given, "--outDir", folder / words[0].strip("-")])]
            with contextlib.redirect_stdout(io.StringIO()):
                status = command_line.main()
            if status:
                sys.exit(status)
        yield folder / "blackout"


def verdicts(folder: Path, scenario: Scenario) -> pd.DataFrame:
    """What a blackout says of each thing: a row a thing of a test, with its p adjusted and before, the direction, and
    `out`, the share of halves that name it; whether it is planted (1, -1 or 0) or excused, and `concludes`."""
    parts, again = [], pd.read_csv(folder / "replication.csv", keep_default_na=False)
    again = again[again["between"] == BETWEEN_HALVES]
    for test, where in TESTS.items():
        if not (path := folder / f"{where.file}.csv").exists():
            continue
        table = pd.read_csv(path)
        table = table[table["level"] == where.level] if where.level else table
        cells = table[[*where.columns]].itertuples(index=False)
        thing = pd.Series([format_pair_name(*of) if where.level else " in ".join(of) for of in cells], table.index, str)
        part = pd.DataFrame(
            {"thing": thing, "p": table[f"p_{where.effect}"], "plain": table[f"p_{where.effect}_plain"]}
        )
        part["direction"] = table.get("direction", "")
        part["planted"] = thing.map(scenario.planted.get(test, {})).fillna(0).astype(int)
        part["excused"] = thing.isin([*scenario.excused.get(test, {})])
        rows = again[again["family"] == where.family].set_index("thing")["replicates"]
        part["out"] = pd.to_numeric(thing.map(rows)).fillna(0) if where.family else float("nan")
        parts.append(part.assign(test=test))
    told = json.loads((folder / "run.json").read_text())["told"]
    return pd.concat(parts, ignore_index=True).assign(concludes=told["better_than_chance"] is not False)


def sure(direction: pd.Series, side: pd.Series) -> pd.Series:
    """Whether the side that is said of planted things (1 or -1) is right, wrong, or nothing is said of it."""
    said = direction.str.split(" ").str[0].map({"higher": 1, "lower": -1}).fillna(0).astype(int)
    other = direction.str.contains("read the other way")
    return (said * side * (1 - 2 * other)).map({1: "right", -1: "wrong", 0: "not shown"})


def counted(found: pd.DataFrame, cohorts: int) -> str:
    """The line of a test, of all cohorts of a scenario."""
    planted_things = found["planted"] != 0
    false = ~planted_things & ~found["excused"]
    here, before = found["p"] < FAMILYWISE_ALPHA, found["plain"] < FAMILYWISE_ALPHA
    named, line = here & found["concludes"], []
    if planted_things.any():
        total = found.loc[planted_things, "thing"].nunique() * cohorts
        ours = [(which & planted_things).sum() for which in (named, here, before)]
        line.append("{} ({}) of {} planted found, {} before adjustment".format(*ours[:2], total, ours[2]))
        of_found = found[named & planted_things]
        if of_found["direction"].any():
            sides = sure(of_found["direction"], of_found["planted"]).value_counts()
            line.append("direction " + ", ".join(f"{side} of {count}" for side, count in sides.items()))
    spoilt = [found.loc[which & false, "seed"].nunique() for which in (named, here, before)]
    against = binomtest(spoilt[1], cohorts, FAMILYWISE_ALPHA).pvalue
    line.append(
        "a false one in {} ({}) of {} cohorts, {} before adjustment".format(*spoilt[:2], cohorts, spoilt[2])
        + f" (against 5 %: p = {against:.2f})"
    )
    if found["out"].notna().any():
        little = (
            found.assign(named=named, out=named & (found["out"] > REPLICATION_THRESHOLD))
            .groupby("seed")[["named", "out"]]
            .sum()
        )
        unpublished = ((2 * little["out"] < little["named"]) | (little["named"] == 0)).sum()
        outs = [
            (which & (found["out"] > REPLICATION_THRESHOLD)).sum() for which in (named & planted_things, named & false)
        ]
        line.append(
            f"of the named {outs[0]} of {(named & planted_things).sum()} planted and {outs[1]} of "
            f"{(named & false).sum()} false replicate in halves; no list to publish in {unpublished} cohorts"
        )
    return "; ".join(line)


def told(found: pd.DataFrame) -> str:
    """What is found in a cohort: the significant things."""
    line = "" if found["concludes"].all() else " not better than chance, so none is named."
    for test, rows in found[found["p"] < FAMILYWISE_ALPHA].groupby("test", sort=False):
        wrong = rows.loc[(rows["planted"] == 0) & ~rows["excused"], "thing"].tolist()
        line += f" {test}: {(rows['planted'] != 0).sum()} planted, {wrong or 'none'} false."
    return line


def run_scenario(title: str, scenario: Scenario, jobs: tuple, seeds: range) -> tuple[pd.DataFrame, str]:
    """Runs a scenario and prints a line for each cohort; returns its verdicts and its lines."""
    start, parts = time.time(), []
    for seed in seeds:
        with blacked_out(scenario, seed, jobs) as folder:
            parts.append(verdicts(folder, scenario).assign(seed=seed))
        print(f"{title} {seed}:{told(parts[-1])}", flush=True)
    found = pd.concat(parts)
    better = found.groupby("seed")["concludes"].first().sum()
    line = f"{title}: better than chance in {better} of {len(seeds)} cohorts; {time.time() - start:.0f} s"
    each = [f"    {test}: {counted(rows, len(seeds))}" for test, rows in found.groupby("test", sort=False)]
    return found.assign(scenario=title), "\n".join([line, *each])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="these scenarios, A,B")
    parser.add_argument("--cohorts", type=int, help="of each scenario, in place of its own number")
    parser.add_argument("--iterations", type=int, default=60, help="batches to train on (default 60)")
    parser.add_argument("--preset", help="of `cnn` and `mmnn` (default: their own)")
    parser.add_argument("--donors", type=int, default=5, help="of a blackout (default 5)")
    parser.add_argument("--regions", type=int, help="occlude those that carry something and the first others only")
    parser.add_argument("--real", type=Path, metavar="COHORT", help="for the scenario `random`")
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort (default 0)")
    parser.add_argument("--table", type=Path, metavar="CSV", help="add what is said of each thing")
    args = parser.parse_args()
    blackout, training = ["--blackout", "--donors", args.donors], ["--train", "--numIters", args.iterations]
    preset = ["--preset", args.preset] if args.preset else []
    few = ["--atlas", planted.few_regions(Path(tempfile.mkdtemp()), args.regions)] if args.regions else []
    # pictures are not part of the question
    page.render_blackout_page, job.write_effect_maps = (lambda *_: ""), (lambda *_: None)
    figure.draw_blackout = lambda *_: plt.figure()
    lines = []
    for name, scenario in scenarios(args.real).items():
        if args.only and name not in args.only.split(","):
            continue
        seeds = range(args.seed, args.seed + (args.cohorts or scenario.cohorts))
        jobs = (training, blackout) if scenario.model == "nn" else (training + preset, blackout + few)
        found, line = run_scenario(name, scenario, jobs, seeds)
        if args.table:
            found.to_csv(args.table, mode="a", header=not args.table.exists(), index=False)
        lines.append(line)
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
