"""Blackout on cohorts whose truth is known: which regions are found, and how many of them carry nothing.

`python tests/benchmarks/truth.py [--only NAME] [--cohorts N] [--real COHORT] [--preset NAME] [--seed 0]`

one-tenth   500 simulated people, four planted regions; 50 test subjects.
folds       The same people in five folds, everybody blacked out.
nothing     240 simulated people with nothing planted; 24 test subjects.
random      `--real COHORT` (31x37x31) with its labels permuted over subjects; its test subjects.
age         240 people in three folds, four planted regions; one more carries age alone, which goes with the diagnosis.
motion      The same with head motion in place of age.
site        The same with the site: sites differ in the share of autism.
sex-age     The same with sex times age; half of the people are female.
age-site    The same with age times a slope that each site has of its own.
25/75       240 people in three folds, four planted regions; a quarter has autism.
suppressed  As `25/75` with equal classes; each region correlates at 0.8 with its mirror image, and the difference is
            planted in one of them.
inherited   As `suppressed`, but the mirror image follows the planted region, difference included.
one-map     240 people in three folds, five maps drawn apart; one region of one map differs. All pairs of a region
            and a map are tested.
connectome  240 people in three folds with nothing in their volumes; six regions correlate more with each other
            (`connectomes.py`). Any other region that is found is a false one.
no-edges    The same with nothing planted.

`cnn`, or `mmnn` where there are connectomes, is trained and blacked out by the user's own commands. Prints for each
cohort the AUC and the regions that the two p-values find at 0.05, adjusted for covariates and before, and for mirror
images all effects in standard errors; then one line per scenario with its time.
"""

import argparse
import contextlib
import io
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from scipy.stats import binomtest, zscore

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import run as command_line
from data import demo
from data.cohorts.atlas import load_atlas
from data.cohorts.records import DTYPE, FULL, REDUCED
from data.cohorts.stored import carry_tables, open_cohort, write_tables
from data.simulation import demographics
from tests.benchmarks import connectomes
from utils.blackout import figure, job, measure, page
from utils.scores.results import ALPHA

TESTS = ("reliance", "unique")
EFFECTS = (*TESTS, "background", "sufficiency")
CORRELATION = 0.8
CARRIER = "Postcentral_L"  # of a covariate
STREAM = 2  # of random numbers
WHEN = {"": "adjusted", "_plain": "before"}  # end of a column of `regions.csv`
INTERVAL_WIDTH = 2 * 1.96  # of a 95 % interval, in standard errors


def mirror(name: str) -> str:
    """The region on the other side."""
    return name[:-1] + {"L": "R", "R": "L"}[name[-1]]


class Suppressed(demo.Anatomy):
    """Regions correlated with their mirror images; a planted difference does not reach the mirror image."""

    inherits = False

    def region_values(self, subject: int, label: float) -> tuple[np.ndarray, np.random.Generator]:
        region, random = super().region_values(subject, label)
        number = {name: value for value, name in self.atlas.names.items()}
        deviation = region - self.region_mean
        for name, leading in number.items():
            leads = name in demo.PLANTED or (name.endswith("_L") and mirror(name) not in demo.PLANTED)
            if not leads or name[-1] not in "LR":
                continue
            planted = self.simulation.effect * (label - 0.5) * (name in demo.PLANTED) * (not self.inherits)
            own = deviation[number[mirror(name)]] * np.sqrt(1 - CORRELATION**2)
            deviation[number[mirror(name)]] = CORRELATION * (deviation[leading] - planted) + own
        return self.region_mean + deviation, random


class Inherited(Suppressed):
    """The same, but the mirror image follows the planted region."""

    inherits = True


class Confounded(demo.Anatomy):
    """One more region carries a covariate alone, which goes with the diagnosis; `share` has autism.

    `strength`: log odds of autism, and spreads of the region, a standard deviation of the covariate.
    """

    share, strength = 0.5, 1.5

    @classmethod
    def covariate(cls, table: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
        """What the region carries and the diagnosis goes with, (subjects,), as it stands in the table."""
        raise NotImplementedError

    @classmethod
    def people(cls, simulation: demo.Simulation) -> tuple[pd.DataFrame, np.ndarray]:
        """The table, with labels that go with the covariate, and the covariate as z-scores (subjects,)."""
        table, random = demographics(simulation), np.random.default_rng([simulation.seed, STREAM])
        values = zscore(cls.covariate(table, random))
        risk = cls.strength * values + random.logistic(size=len(values))
        return table.assign(label=(risk > np.quantile(risk, 1 - cls.share)).astype(float)), values

    def __init__(self, grid, simulation: demo.Simulation):
        super().__init__(grid, simulation)
        self.carried = self.people(simulation)[1]
        self.carrier = next(number for number, name in self.atlas.names.items() if name == CARRIER)

    def region_values(self, subject: int, label: float) -> tuple[np.ndarray, np.random.Generator]:
        region, random = super().region_values(subject, label)
        region[self.carrier] += self.strength * self.simulation.region_spread * self.carried[subject]
        return region, random


class Age(Confounded):
    strength = 1.2  # more of it would be refused as a leak

    @classmethod
    def covariate(cls, table, random):
        years = random.lognormal(np.log(15), 0.35, len(table)).round(2)  # of all sites, so that donors differ in age
        table["AGE_AT_SCAN"] = years.astype(str)
        return years


class Motion(Confounded):
    @classmethod
    def covariate(cls, table, random):
        return np.log(table["func_mean_fd"].to_numpy(float))


class Site(Confounded):
    @classmethod
    def covariate(cls, table, random):
        codes, _ = pd.factorize(table["site"])
        return random.normal(size=codes.max() + 1)[codes]


class SexByAge(Age):
    """Neither sex nor age goes with the diagnosis: what age does to one sex it undoes to the other."""

    @classmethod
    def covariate(cls, table, random):
        female = random.random(len(table)) < 0.5
        table["SEX"] = np.where(female, "2", "1")
        return zscore(np.log(super().covariate(table, random))) * np.where(female, 1, -1)


class AgeBySite(Age):
    @classmethod
    def covariate(cls, table, random):
        codes, _ = pd.factorize(table["site"])
        return zscore(np.log(super().covariate(table, random))) * random.normal(size=codes.max() + 1)[codes]


class Quarter(Confounded):
    """Nothing is carried, and nothing goes with the diagnosis."""

    share = 0.25

    @classmethod
    def covariate(cls, table, random):
        return random.normal(size=len(table))

    def region_values(self, subject: int, label: float) -> tuple[np.ndarray, np.random.Generator]:
        return demo.Anatomy.region_values(self, subject, label)


def simulated(folder: Path, seed: int, subjects: int, kind: type[demo.Anatomy] = demo.Anatomy, **changes) -> None:
    made = people_of(kind) if issubclass(kind, Confounded) else demographics
    with mock.patch.object(demo, "demographics", made):
        demo.simulate(folder, REDUCED, demo.Simulation(subjects=subjects, seed=seed, **changes), kind)


def connected(folder: Path, seed: int, effect: float) -> None:
    """240 people whose connectomes alone may differ."""
    simulated(folder, seed, 240, effect=0.0)
    connectomes.add(folder, seed, effect)


def people_of(kind: type[Confounded]) -> Callable[[demo.Simulation], pd.DataFrame]:
    return lambda simulation: kind.people(simulation)[0]


def permuted(folder: Path, seed: int, real: Path) -> None:
    """A real cohort with its labels permuted over subjects."""
    cohort = open_cohort(real)
    label = {row.subject: row.label for row in cohort.rows}
    new = dict(zip(label, np.random.default_rng(seed).permutation(list(label.values())).tolist(), strict=True))
    rows = [demo.Row(row.file, row.subject, row.site, new[row.subject], row.split) for row in cohort.rows]
    folder.mkdir()
    for row, entry in zip(rows, cohort.entries, strict=True):
        (folder / row.file).write_bytes(np.array(row.label, DTYPE).tobytes() + entry.read()[DTYPE.itemsize :])
    carry_tables(cohort, folder)
    write_tables(folder, rows, cohort.metadata)


class OneMap(demo.Anatomy):
    """Maps that are drawn apart; one region of one of them differs, by twice the usual effect."""

    maps = tuple(f"map_{at}" for at in range(5))
    planted_map, planted_region = "map_3", "Precuneus_R"

    def __init__(self, grid, simulation: demo.Simulation):
        super().__init__(grid, simulation)
        effects = [2 * simulation.effect * (name == self.planted_map) for name in self.maps]
        seeds = [1000 + 100 * simulation.seed + at for at in range(len(self.maps))]
        drawn = [replace(simulation, seed=seed, effect=one) for seed, one in zip(seeds, effects, strict=True)]
        self.of_maps = [demo.Anatomy(grid, one) for one in drawn]
        for anatomy in self.of_maps:
            anatomy.planted = [number for number, name in self.atlas.names.items() if name == self.planted_region]

    def volumes(self, subject: int, label: float) -> list[np.ndarray]:
        return [anatomy.volume(subject, label) for anatomy in self.of_maps]


KINDS = {"age": Age, "motion": Motion, "site": Site, "sex-age": SexByAge, "age-site": AgeBySite, "25/75": Quarter}


@dataclass(frozen=True)
class Scenario:
    """How a cohort is made in a new folder from a seed, how many, how it is cut, what is planted, what is looked at."""

    make: Callable[[Path, int], None]
    cohorts: int
    folds: tuple[str, ...] = ()
    planted: tuple[str, ...] = demo.PLANTED
    mirrored: bool = False
    tests: tuple[str, ...] = TESTS
    by_map: bool = False  # the table of regions by maps
    model: str = "cnn"


def scenarios(real: Path | None) -> dict[str, Scenario]:
    three, five = ("--folds", "3"), ("--folds", "5")
    people, few = partial(simulated, subjects=500), partial(simulated, subjects=240)
    found = {
        "one-tenth": Scenario(people, 10),
        "folds": Scenario(people, 5, five),
        "nothing": Scenario(partial(simulated, subjects=240, effect=0.0), 40, planted=()),
        **{name: Scenario(partial(few, kind=kind), 10, three) for name, kind in KINDS.items()},
        "suppressed": Scenario(partial(few, kind=Suppressed), 10, three, mirrored=True),
        "inherited": Scenario(partial(few, kind=Inherited), 10, three, mirrored=True),
        "one-map": Scenario(
            partial(few, kind=OneMap),
            10,
            three,
            (f"{OneMap.planted_region} in {OneMap.planted_map}",),
            tests=("reliance",),
            by_map=True,
        ),
        "connectome": Scenario(partial(connected, effect=0.2), 10, three, connectomes.PLANTED, model="mmnn"),
        "no-edges": Scenario(partial(connected, effect=0.0), 20, three, planted=(), model="mmnn"),
    }
    return found | ({"random": Scenario(partial(permuted, real=real), 20, planted=())} if real else {})


def blacked_out(scenario: Scenario, seed: int, jobs: tuple) -> tuple[pd.DataFrame, str]:
    """`regions.csv` or `regions_by_map.csv` of a cohort, and the printed line with its AUC."""
    with tempfile.TemporaryDirectory() as made:
        folder, printed = Path(made), io.StringIO()
        scenario.make(folder / "cohort", seed)
        places = [
            "--model",
            scenario.model,
            "--dataDir",
            folder / "cohort",
            "--chkPointDir",
            folder / "ckpt",
            *scenario.folds,
        ]
        for words in jobs:
            sys.argv = [
                "run.py",
                *map(str, [*words, *places, "--seed", seed, "--outDir", folder / words[0].strip("-")]),
            ]
            with contextlib.redirect_stdout(printed):
                status = command_line.main()
            if status:
                sys.exit(status)
        lines = reversed(printed.getvalue().splitlines())
        auc = next((line for line in lines if line.startswith("AUC")), "AUC undefined.")
        if scenario.by_map:
            table = pd.read_csv(folder / "blackout" / "regions_by_map.csv")
            return table.set_index(table["name"] + " in " + table["map"]), auc
        return pd.read_csv(folder / "blackout" / "regions.csv").set_index("name"), auc


def few_regions(folder: Path, count: int) -> Path:
    """A label image of so many regions of AAL, the planted ones and the carrier of a covariate among them."""
    aal = load_atlas(None, FULL)
    first = sorted(aal.names, key=lambda region: aal.names[region] not in (*demo.PLANTED, CARRIER))[:count]
    image = nibabel.Nifti1Image(np.where(np.isin(aal.full, first), aal.full, 0).astype(np.int16), FULL.affine)
    nibabel.save(image, folder / "few.nii.gz")
    (folder / "few.txt").write_text("".join(f"{region} {aal.names[region]}\n" for region in first))
    return folder / "few.nii.gz"


def in_errors(row: pd.Series) -> str:
    """A region's effects in standard errors, and its two p-values."""
    scaled = {name: row[name] / (row[f"{name}_high"] - row[f"{name}_low"]) * INTERVAL_WIDTH for name in EFFECTS}
    effects = ", ".join(f"{name} {value:.1f}" for name, value in scaled.items())
    return f"{effects}, p {row['p_reliance']:.3f} and {row['p_unique']:.3f}"


def run_scenario(title: str, scenario: Scenario, jobs: tuple, first: int, cohorts: int) -> str:
    """Runs a scenario, prints one line per cohort, and returns the scenario's line."""
    start = time.time()
    found, false, spoilt = Counter(), Counter(), Counter()
    planted, mirrors = set(scenario.planted), set(map(mirror, scenario.planted)) if scenario.mirrored else set()
    for seed in range(first, first + cohorts):
        table, line = blacked_out(scenario, seed, jobs)
        for test, when in itertools.product(scenario.tests, WHEN):
            # A network may rest on a mirror image; but only one that suppresses says something of its own.
            excused = mirrors if test == "reliance" or title == "suppressed" else set()
            significant = set(table.index[table[f"p_{test}{when}"] < ALPHA])
            wrong = significant - planted - excused
            found[test + when] += len(significant & planted)
            false[test + when] += len(wrong)
            spoilt[test + when] += bool(wrong)
            line += f" {test}, {WHEN[when]}: {len(significant & planted)} planted, {sorted(wrong) or 'none'} false."
        print(f"{title} {seed}: {line}", flush=True)
        for name in (*scenario.planted, *mirrors) if mirrors else ():
            print(f"    {name}: {in_errors(table.loc[name])}", flush=True)
    line = f"{title}: {cohorts} cohorts"
    for test, when in itertools.product(scenario.tests, WHEN):
        key = test + when
        line += f"; {test}, {WHEN[when]}: {false[key]} false regions in {spoilt[key]} cohorts"
        if planted:
            line += f", {found[key]} of {cohorts * len(planted)} planted found"
        else:
            line += f" (against 5 %: p = {binomtest(spoilt[key], cohorts, ALPHA).pvalue:.2f})"
    return f"{line}; {time.time() - start:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one scenario")
    parser.add_argument("--cohorts", type=int, help="of each scenario, in place of its own number")
    parser.add_argument("--iterations", type=int, default=60, help="batches to train on (default 60)")
    parser.add_argument("--preset", help="of the network (default: its own)")
    parser.add_argument("--donors", type=int, default=5, help="of a blackout (default 5)")
    parser.add_argument("--regions", type=int, help="occlude the planted ones, the carrier and the first others only")
    parser.add_argument("--real", type=Path, metavar="COHORT", help="for the scenario `random`")
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort (default 0)")
    args = parser.parse_args()
    blackout = ["--blackout", "--donors", str(args.donors)]
    training = ["--train", "--numIters", str(args.iterations), *(["--preset", args.preset] if args.preset else [])]
    if args.regions:
        blackout += ["--atlas", str(few_regions(Path(tempfile.mkdtemp()), args.regions))]
    measure.BLOBS = 1  # they are not part of the question, nor are pictures
    page.render, job.write_maps = (lambda *_: ""), (lambda *_: None)
    figure.draw = figure.draw_by_map = lambda *_: plt.figure()
    lines = [
        run_scenario(name, scenario, (training, blackout), args.seed, args.cohorts or scenario.cohorts)
        for name, scenario in scenarios(args.real).items()
        if args.only in (None, name)
    ]
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
