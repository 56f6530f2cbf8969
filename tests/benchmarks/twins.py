"""Time and memory to find copies among many people: `python tests/benchmarks/twins.py [--people 50000] [--maps 3]`.

Region means are drawn at random; 60 people are copied with noise. Prints seconds, GB and how many copies were found.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.base.cli import positive
from data.cohorts import twins

COPIES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=positive, default=50_000)
    parser.add_argument("--maps", type=positive, default=3)
    args = parser.parse_args()
    random = np.random.default_rng(0)
    means = random.normal(size=(args.people, 116, args.maps)).astype(np.float32)
    means += 3 * random.normal(size=(116, args.maps)).astype(np.float32)
    means[-COPIES:] = means[:COPIES] + 1e-6 * random.normal(size=means[:COPIES].shape)
    started = time.perf_counter()
    found = twins.alike([str(number) for number in range(args.people)], means)
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    shown = f"{seconds:.1f} s, {peak:.1f} GB, {len(found.same_scan)} of {COPIES} copies"
    print(f"{args.people} people, {args.maps} maps: {shown}")


if __name__ == "__main__":
    main()
