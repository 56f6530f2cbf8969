"""How often a blackout finds a region where there is none: `python tests/benchmarks/false_positives.py [--cohorts 40]`.

Each cohort is simulated like the demo cohort but with nothing planted; cnn is trained on it for a few iterations and
its test subjects are blacked out. Prints the share of cohorts with any region at family-wise p < 0.05, which should be
compatible with 5 %.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from pathlib import Path

import h5py
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import run as command_line
from data.demo import Simulation, simulate
from data.grids import REDUCED
from utils.blackout import effects
from utils.blackout import job as blackout
from utils.statistics import ALPHA


def smallest_p(folder: Path, seed: int, subjects: int, iterations: int) -> float:
    """The smallest family-wise p of the regions of one cohort, through the user's own commands."""
    simulate(folder / "cohort", REDUCED, Simulation(subjects=subjects, seed=seed, effect=0.0))
    places = ["--model", "cnn", "--dataDir", folder / "cohort", "--chkPointDir", folder / "ckpt", "--seed", seed]
    for job in (["--train", "--numIters", iterations], ["--blackout"]):
        sys.argv = ["run.py", *map(str, [*job, *places, "--outDir", folder / job[0].strip("-")])]
        with contextlib.redirect_stdout(io.StringIO()):
            status = command_line.main()
        if status:
            sys.exit(status)
    with h5py.File(folder / "blackout" / "blackout.h5") as store:
        return effects.permutation_test(store["delta_logit"][()], store["label"][()], seed)["p"].min()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=40)
    parser.add_argument("--subjects", type=int, default=240)
    parser.add_argument("--iterations", type=int, default=25)
    args = parser.parse_args()
    blackout.BLOBS = 1  # they are not part of the question
    found = 0
    for seed in range(args.cohorts):
        with tempfile.TemporaryDirectory() as folder:
            p = smallest_p(Path(folder), seed, args.subjects, args.iterations)
        found += p < ALPHA
        print(f"cohort {seed}: smallest p {p:.3f}; {found} of {seed + 1} below {ALPHA}", flush=True)
    print(f"binomial test against {ALPHA:.0%}: p = {binomtest(found, args.cohorts, ALPHA).pvalue:.2f}")


if __name__ == "__main__":
    main()
