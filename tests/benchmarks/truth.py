"""Blackout on cohorts whose truth is known: what is found, and how often something is named that carries nothing.

`python tests/benchmarks/truth.py [--only A,B] [--cohorts N] [--real COHORT] [--preset NAME] [--seed 0]`
`python tests/benchmarks/truth.py --only skewed,skewed-planted --estimator FILE.py:NAME [--cohorts N] [--regions 20]`

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
skewed      240 people in three folds with connectomes; three tenths have autism, more at some sites; age goes with it
            and is carried by a region and by four edges. Means of regions are skewed. Nothing else differs.
skewed-planted  The same; four planted regions, and four edges between two systems, differ.

With `--estimator` a scikit-learn classifier is blacked out in place of a network; estimators.py has some.

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
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import planted
from benchmarks.planted import mirror

import run as command_line
from data import demo
from data.images.atlas import load_atlas
from data.images.grids import FULL
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

    make_cohort: Callable[[Path, int], None]
    cohorts: int
    folds: tuple[str, ...] = ("--folds", "3")
    planted: Truth = field(default_factory=dict)
    excused: Truth = field(default_factory=dict)
    model: str = "mmnn"


def make_region_truth(
    regions: Iterable[str], tests: Iterable[str] = (RELIANCE, UNIQUE), place_name: str = "falff"
) -> Truth:
    """Regions that are higher in autism, by test; and where they are so, a map or the edges."""
    return {test: dict.fromkeys(regions, 1) for test in tests} | {
        MAPS: {f"{name} in {place_name}": 1 for name in regions}
    }


def make_pair_truth(pairs: planted.Pairs) -> Truth:
    """Pairs of regions whose edges are higher in autism, and the pairs of their systems."""
    systems, regions = (
        [*dict.fromkeys(AAL_SYSTEM_BY_REGION.values())],
        [*load_atlas(None, FULL).name_by_region.values()],
    )
    sorted_pairs = [
        sorted(pair, key=lambda name: (systems.index(AAL_SYSTEM_BY_REGION[name]), regions.index(name)))
        for pair in pairs
    ]
    truth_by_systems = {format_pair_name(*(AAL_SYSTEM_BY_REGION[name] for name in pair)): 1 for pair in sorted_pairs}
    return {CONNECTIONS: truth_by_systems, PAIRS: {format_pair_name(*pair): 1 for pair in sorted_pairs}}


def scenarios(real: Path | None) -> dict[str, Scenario]:
    planted_truth, mirrors = make_region_truth(demo.PLANTED_REGIONS), tuple(map(mirror, demo.PLANTED_REGIONS))
    volume_scenario = partial(Scenario, planted=planted_truth, model="cnn")
    simulate_kind = partial(partial, planted.simulate_kind)
    edge_end_truth = make_region_truth(
        {name for pair in planted.PLANTED_EDGES for name in pair}, place_name="connectome"
    )
    map_truth = {MAPS: {f"{planted.OneMap.planted_region} in {planted.OneMap.planted_map}": 1}}
    simulate_connected, mirror_truth = partial(partial, planted.simulate_connected), make_region_truth(mirrors)
    scenario_by_name = {
        **{name: volume_scenario(simulate_kind(kind=kind), 10) for name, kind in planted.KIND_BY_SCENARIO.items()},
        "suppressed": volume_scenario(simulate_kind(kind=planted.Suppressed), 10, excused=mirror_truth),
        "one-map": volume_scenario(simulate_kind(kind=planted.OneMap), 10, planted=map_truth),
        "no-edges": Scenario(simulate_connected(), 20),
        "connection": Scenario(
            simulate_connected(edges=planted.PLANTED_EDGES, effect=planted.EFFECT),
            20,
            planted=planted_truth | make_pair_truth(planted.PLANTED_EDGES),
            excused=edge_end_truth,
        ),
        "value": Scenario(simulate_connected(kind=planted.LowerIQ), 20, planted={VALUES: {"IQ": -1}}),
        "value-nn": Scenario(simulate_connected(kind=planted.LowerIQ), 20, planted={VALUES: {"IQ": -1}}, model="nn"),
        "repeated": Scenario(
            simulate_connected(kind=planted.Inherited, effect=planted.EFFECT),
            20,
            planted=make_region_truth((*demo.PLANTED_REGIONS, *mirrors), [RELIANCE]) | {UNIQUE: planted_truth[UNIQUE]},
        ),
        "age-edges": Scenario(
            simulate_connected(kind=planted.Age, effect=planted.EFFECT),
            20,
            planted=planted_truth | {VALUES: {"age": 1}},
        ),
        "sex-age-edges": Scenario(
            simulate_connected(kind=planted.SexByAge, effect=planted.EFFECT),
            20,
            planted=planted_truth,
            excused={VALUES: {"age": 1, "sex": 1}},
        ),
    }
    skewed_truth = {VALUES: {"age": 1}}
    scenario_by_name |= {
        "skewed": Scenario(simulate_connected(kind=planted.Skewed), 20, excused=skewed_truth),
        "skewed-planted": Scenario(
            simulate_connected(kind=planted.Skewed, edges=planted.PLANTED_EDGES, effect=planted.EFFECT),
            20,
            planted=planted_truth | make_pair_truth(planted.PLANTED_EDGES),
            excused=edge_end_truth | skewed_truth,
        ),
    }
    permuted = partial(planted.permute_labels, real=real)
    return scenario_by_name | ({"random": Scenario(permuted, 20, (), model="cnn")} if real else {})


@contextlib.contextmanager
def run_blackout(scenario: Scenario, seed: int, jobs: tuple) -> Iterator[Path]:
    """A cohort is made, a network is trained and blacked out: the folder of the blackout."""
    with tempfile.TemporaryDirectory() as temporary_folder:
        folder = Path(temporary_folder)
        scenario.make_cohort(folder / "cohort", seed)
        places = ["--dataDir", folder / "cohort", "--chkPointDir", folder / "ckpt", "--seed", seed]
        for words in jobs:
            model_options = () if "--estimator" in words else ("--model", scenario.model)
            arguments = [*words, *model_options, *places, *scenario.folds]
            sys.argv = ["run.py", *map(str, [*arguments, "--outDir", folder / words[0].strip("-")])]
            with contextlib.redirect_stdout(io.StringIO()):
                status = command_line.main()
            if status:
                sys.exit(status)
        yield folder / "blackout"


def read_verdicts(folder: Path, scenario: Scenario) -> pd.DataFrame:
    """What a blackout says of each thing: a row a thing of a test, with its p adjusted and before, the direction, and
    `out`, the share of halves that name it; whether it is planted (1, -1 or 0) or excused, and `concludes`."""
    test_tables, replication = [], pd.read_csv(folder / "replication.csv", keep_default_na=False)
    replication = replication[replication["between"] == BETWEEN_HALVES]
    for test, test_place in TESTS.items():
        if not (path := folder / f"{test_place.file}.csv").exists():
            continue
        table = pd.read_csv(path)
        table = table[table["level"] == test_place.level] if test_place.level else table
        cells = table[[*test_place.columns]].itertuples(index=False)
        finding_names = pd.Series(
            [format_pair_name(*cell) if test_place.level else " in ".join(cell) for cell in cells], table.index, str
        )
        test_table = pd.DataFrame(
            {
                "thing": finding_names,
                "p": table[f"p_{test_place.effect}"],
                "plain": table[f"p_{test_place.effect}_plain"],
            }
        )
        test_table["direction"] = table.get("direction", "")
        test_table["planted"] = finding_names.map(scenario.planted.get(test, {})).fillna(0).astype(int)
        test_table["excused"] = finding_names.isin([*scenario.excused.get(test, {})])
        rows = replication[replication["family"] == test_place.family].set_index("thing")["replicates"]
        test_table["out"] = pd.to_numeric(finding_names.map(rows)).fillna(0) if test_place.family else float("nan")
        test_tables.append(test_table.assign(test=test))
    run_results = json.loads((folder / "run.json").read_text())["blackout"]
    return pd.concat(test_tables, ignore_index=True).assign(concludes=run_results["better_than_chance"] is not False)


def judge_direction(direction: pd.Series, true_side: pd.Series) -> pd.Series:
    """Whether the side that is said of planted things (1 or -1) is right, wrong, or nothing is said of it."""
    claimed_side = direction.str.split(" ").str[0].map({"higher": 1, "lower": -1}).fillna(0).astype(int)
    is_reversed = direction.str.contains("read the other way")
    return (claimed_side * true_side * (1 - 2 * is_reversed)).map({1: "right", -1: "wrong", 0: "not shown"})


def describe_test(verdict_table: pd.DataFrame, cohorts: int) -> str:
    """The line of a test, of all cohorts of a scenario."""
    is_planted = verdict_table["planted"] != 0
    is_false = ~is_planted & ~verdict_table["excused"]
    is_significant, was_significant = verdict_table["p"] < FAMILYWISE_ALPHA, verdict_table["plain"] < FAMILYWISE_ALPHA
    is_listed, phrases = is_significant & verdict_table["concludes"], []
    if is_planted.any():
        total = verdict_table.loc[is_planted, "thing"].nunique() * cohorts
        planted_counts = [(row_mask & is_planted).sum() for row_mask in (is_listed, is_significant, was_significant)]
        phrases.append(
            "{} ({}) of {} planted found, {} before adjustment".format(*planted_counts[:2], total, planted_counts[2])
        )
        listed_planted = verdict_table[is_listed & is_planted]
        if listed_planted["direction"].any():
            sides = judge_direction(listed_planted["direction"], listed_planted["planted"]).value_counts()
            phrases.append("direction " + ", ".join(f"{side} of {count}" for side, count in sides.items()))
    spoilt_counts = [
        verdict_table.loc[row_mask & is_false, "seed"].nunique()
        for row_mask in (is_listed, is_significant, was_significant)
    ]
    binomial_p = binomtest(spoilt_counts[1], cohorts, FAMILYWISE_ALPHA).pvalue
    phrases.append(
        "a false one in {} ({}) of {} cohorts, {} before adjustment".format(
            *spoilt_counts[:2], cohorts, spoilt_counts[2]
        )
        + f" (against 5 %: p = {binomial_p:.2f})"
    )
    if verdict_table["out"].notna().any():
        counts_by_seed = (
            verdict_table.assign(named=is_listed, out=is_listed & (verdict_table["out"] > REPLICATION_THRESHOLD))
            .groupby("seed")[["named", "out"]]
            .sum()
        )
        unpublished = ((2 * counts_by_seed["out"] < counts_by_seed["named"]) | (counts_by_seed["named"] == 0)).sum()
        replicated_counts = [
            (row_mask & (verdict_table["out"] > REPLICATION_THRESHOLD)).sum()
            for row_mask in (is_listed & is_planted, is_listed & is_false)
        ]
        phrases.append(
            f"of the named {replicated_counts[0]} of {(is_listed & is_planted).sum()} planted and "
            f"{replicated_counts[1]} of {(is_listed & is_false).sum()} false replicate in halves; no list to publish "
            f"in {unpublished} cohorts"
        )
    return "; ".join(phrases)


def describe_cohort(verdict_table: pd.DataFrame) -> str:
    """What is found in a cohort: the significant things."""
    sentence = "" if verdict_table["concludes"].all() else " not better than chance, so none is named."
    for test, rows in verdict_table[verdict_table["p"] < FAMILYWISE_ALPHA].groupby("test", sort=False):
        false_names = rows.loc[(rows["planted"] == 0) & ~rows["excused"], "thing"].tolist()
        sentence += f" {test}: {(rows['planted'] != 0).sum()} planted, {false_names or 'none'} false."
    return sentence


def run_scenario(title: str, scenario: Scenario, jobs: tuple, seeds: range) -> tuple[pd.DataFrame, str]:
    """Runs a scenario and prints a line for each cohort; returns its verdicts and its lines."""
    start, cohort_verdicts = time.time(), []
    for seed in seeds:
        with run_blackout(scenario, seed, jobs) as folder:
            cohort_verdicts.append(read_verdicts(folder, scenario).assign(seed=seed))
        print(f"{title} {seed}:{describe_cohort(cohort_verdicts[-1])}", flush=True)
    verdict_table = pd.concat(cohort_verdicts)
    better_count = verdict_table.groupby("seed")["concludes"].first().sum()
    line = f"{title}: better than chance in {better_count} of {len(seeds)} cohorts; {time.time() - start:.0f} s"
    test_lines = [
        f"    {test}: {describe_test(rows, len(seeds))}" for test, rows in verdict_table.groupby("test", sort=False)
    ]
    return verdict_table.assign(scenario=title), "\n".join([line, *test_lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="these scenarios, A,B")
    parser.add_argument("--cohorts", type=int, help="of each scenario, in place of its own number")
    parser.add_argument("--iterations", type=int, default=60, help="batches to train on (default 60)")
    parser.add_argument("--preset", help="of `cnn` and `mmnn` (default: their own)")
    parser.add_argument("--donors", type=int, default=5, help="of a blackout (default 5)")
    parser.add_argument("--regions", type=int, help="occlude those that carry something and the first others only")
    parser.add_argument("--estimator", metavar="FILE.py:NAME", help="black it out in place of a network")
    parser.add_argument("--inputs", help="what the estimator reads, A,B")
    parser.add_argument("--real", type=Path, metavar="COHORT", help="for the scenario `random`")
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort (default 0)")
    parser.add_argument("--table", type=Path, metavar="CSV", help="add what is said of each thing")
    args = parser.parse_args()
    blackout, training = ["--blackout", "--donors", args.donors], ["--train", "--numIters", args.iterations]
    preset_options = ["--preset", args.preset] if args.preset else []
    atlas_options = ["--atlas", planted.write_few_aal(Path(tempfile.mkdtemp()), args.regions)] if args.regions else []
    # pictures are not part of the question
    page.render_blackout_page, job.write_effect_maps = (lambda *_: ""), (lambda *_: None)
    figure.draw_blackout = lambda *_: plt.figure()
    lines = []
    for name, scenario in scenarios(args.real).items():
        if args.only and name not in args.only.split(","):
            continue
        seeds = range(args.seed, args.seed + (args.cohorts or scenario.cohorts))
        jobs: tuple = (training + preset_options, blackout + atlas_options)
        if scenario.model == "nn":
            jobs = (training, blackout)
        if args.estimator:
            input_options = ["--inputs", args.inputs] if args.inputs else []
            jobs = ([*blackout, "--estimator", args.estimator, *input_options, *atlas_options],)
        verdict_table, line = run_scenario(name, scenario, jobs, seeds)
        if args.table:
            verdict_table.to_csv(args.table, mode="a", header=not args.table.exists(), index=False)
        lines.append(line)
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
