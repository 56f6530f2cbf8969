"""Blackout on cohorts whose truth is known: which regions are found, and how many of them carry nothing.

`python tests/benchmarks/truth.py [--only NAME] [--cohorts N] [--real COHORT] [--preset NAME] [--seed 0]`

one-tenth   500 simulated people, four planted regions; 50 test subjects.
folds       The same people in five folds, everybody blacked out.
nothing     240 simulated people with nothing planted; 24 test subjects.
random      `--real COHORT` (31x37x31) with its labels permuted over subjects; its test subjects.
suppressed  As `folds`, each region correlated at 0.8 with its mirror image; the difference is planted in one of them.
inherited   As `suppressed`, but the mirror image follows the planted region, difference included.

`cnn` is trained and blacked out by the user's own commands. Prints for each cohort the AUC and the regions that the
two p-values find at 0.05, and for mirror images all effects in standard errors; then one line per scenario with its
time.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import run as command_line
from data import demo
from data.cohorts.cohort import carry_tables, open_cohort, write_tables
from data.cohorts.records import DTYPE
from data.grids import REDUCED
from utils.blackout import effects
from utils.statistics import ALPHA

TESTS = ("reliance", "unique")
EFFECTS = (*TESTS, "background", "sufficiency")
CORRELATION = 0.8
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


def simulated(folder: Path, seed: int, subjects: int, kind: type[demo.Anatomy] = demo.Anatomy, **changes) -> None:
    demo.simulate(folder, REDUCED, demo.Simulation(subjects=subjects, seed=seed, **changes), kind)


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


@dataclass(frozen=True)
class Scenario:
    """How a cohort is made in a new folder from a seed, how many, how it is cut, and what is planted."""

    make: Callable[[Path, int], None]
    cohorts: int
    folds: tuple[str, ...] = ()
    planted: tuple[str, ...] = demo.PLANTED
    mirrored: bool = False


def scenarios(real: Path | None) -> dict[str, Scenario]:
    five = ("--folds", "5")
    people = partial(simulated, subjects=500)
    found = {
        "one-tenth": Scenario(people, 10),
        "folds": Scenario(people, 5, five),
        "nothing": Scenario(partial(simulated, subjects=240, effect=0.0), 40, planted=()),
        "suppressed": Scenario(partial(people, kind=Suppressed), 2, five, mirrored=True),
        "inherited": Scenario(partial(people, kind=Inherited), 2, five, mirrored=True),
    }
    return found | ({"random": Scenario(partial(permuted, real=real), 20, planted=())} if real else {})


def blacked_out(scenario: Scenario, seed: int, training: list[str]) -> tuple[pd.DataFrame, str]:
    """`regions.csv` of a cohort, and the printed line with its AUC."""
    with tempfile.TemporaryDirectory() as made:
        folder, printed = Path(made), io.StringIO()
        scenario.make(folder / "cohort", seed)
        places = ["--model", "cnn", "--dataDir", folder / "cohort", "--chkPointDir", folder / "ckpt", *scenario.folds]
        for job in (["--train", *training], ["--blackout"]):
            sys.argv = ["run.py", *map(str, [*job, *places, "--seed", seed, "--outDir", folder / job[0].strip("-")])]
            with contextlib.redirect_stdout(printed):
                status = command_line.main()
            if status:
                sys.exit(status)
        lines = reversed(printed.getvalue().splitlines())
        auc = next((line for line in lines if line.startswith("AUC")), "AUC undefined.")
        return pd.read_csv(folder / "blackout" / "regions.csv").set_index("name"), auc


def in_errors(row: pd.Series) -> str:
    """A region's effects in standard errors, and its two p-values."""
    scaled = {name: row[name] / (row[f"{name}_high"] - row[f"{name}_low"]) * INTERVAL_WIDTH for name in EFFECTS}
    effects = ", ".join(f"{name} {value:.1f}" for name, value in scaled.items())
    return f"{effects}, p {row['p_reliance']:.3f} and {row['p_unique']:.3f}"


def run_scenario(title: str, scenario: Scenario, training: list[str], first: int, cohorts: int) -> str:
    """Runs a scenario, prints one line per cohort, and returns the scenario's line."""
    start = time.time()
    found = dict.fromkeys(TESTS, 0)
    false, spoilt = dict.fromkeys(TESTS, 0), dict.fromkeys(TESTS, 0)
    for seed in range(first, first + cohorts):
        table, auc = blacked_out(scenario, seed, training)
        mirrors = set(map(mirror, scenario.planted)) if scenario.mirrored else set()
        for test in TESTS:
            # A network may rest on a mirror image; but only one that suppresses says something of its own.
            excused = mirrors if test == "reliance" or title == "suppressed" else set()
            significant = set(table.index[table[f"p_{test}"] < ALPHA])
            found[test] += len(significant & set(scenario.planted))
            wrong = significant - set(scenario.planted) - excused
            false[test], spoilt[test] = false[test] + len(wrong), spoilt[test] + bool(wrong)
            auc += f" {test}: {len(significant & set(scenario.planted))} planted, {sorted(wrong) or 'none'} false."
        print(f"{title} {seed}: {auc}", flush=True)
        for name in (*scenario.planted, *map(mirror, scenario.planted)) if scenario.mirrored else ():
            print(f"    {name}: {in_errors(table.loc[name])}", flush=True)
    line = f"{title}: {cohorts} cohorts"
    for test in TESTS:
        wrong = f"{false[test]} false regions in {spoilt[test]} cohorts"
        if scenario.planted:
            line += f"; {test}: {found[test]} of {cohorts * len(scenario.planted)} planted found, {wrong}"
        else:
            p = binomtest(spoilt[test], cohorts, ALPHA).pvalue
            line += f"; {test}: {wrong} (against 5 %: p = {p:.2f})"
    return f"{line}; {time.time() - start:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one scenario")
    parser.add_argument("--cohorts", type=int, help="of each scenario, in place of its own number")
    parser.add_argument("--iterations", type=int, default=60, help="batches to train on (default 60)")
    parser.add_argument("--preset", help="of cnn (default: its own)")
    parser.add_argument("--real", type=Path, metavar="COHORT", help="for the scenario `random`")
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort (default 0)")
    args = parser.parse_args()
    training = ["--numIters", str(args.iterations), *(["--preset", args.preset] if args.preset else [])]
    effects.BLOBS = 1  # they are not part of the question
    lines = [
        run_scenario(name, scenario, training, args.seed, args.cohorts or scenario.cohorts)
        for name, scenario in scenarios(args.real).items()
        if args.only in (None, name)
    ]
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
