"""Time and memory of the measures of a scan: `python tests/benchmarks/derive.py [--mm 3] [--volumes 200] [--only a,b]`.

The scan is simulated: smooth maps with slow courses and noise, 24 confounds, in a brain of 66,869 voxels at 3 mm, a
volume every 2 s. Prints seconds by the clock and of all cores, then how fast degree centrality is in comparison with
nothing but the matrix products it needs, by seconds of the cores, in turns in this run; last, the most memory that the
process took, the series and the measures together.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.base.cli import positive
from data.derivation import centrality
from data.derivation.cleaning import Acquisition, Scan, scan_of
from data.derivation.measures import MEASURES, dual_regression

FIELD_MM = (183, 219, 183)
RADIUS = 0.79  # of half of the field
MODES, CONFOUNDS, NETWORKS = 12, 24, 10
TURNS = 3


def drawn(mm: int, volumes: int) -> tuple[np.ndarray, Acquisition, np.ndarray]:
    """A series (volumes, voxels) float32, how it was acquired, and maps of networks (x, y, z, networks)."""
    random = np.random.default_rng(0)
    shape = tuple(size // mm for size in FIELD_MM)
    places = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij", sparse=True)
    mask = sum(place**2 for place in places) <= RADIUS**2
    maps = [gaussian_filter(random.normal(size=shape).astype(np.float32), 20 / mm) for _ in range(MODES)]
    maps = np.stack([of / of[mask].std() for of in maps], -1)
    series = 1000 + random.standard_normal((volumes, mask.sum()), np.float32)
    series += 0.5 * np.cumsum(random.standard_normal((volumes, MODES), np.float32), 0) @ maps[mask].T / volumes**0.5
    affine = np.diag([mm, mm, mm, 1.0])
    affine[0, 3] = -mm * (shape[0] - 1) / 2
    return series, Acquisition(mask, affine, np.ones(volumes, bool), 2.0, (0.01, 0.1)), maps[..., :NETWORKS]


def bare(points: np.ndarray) -> None:
    """The products of blocks of correlations that a degree needs, by as many threads."""
    threads, block, rows = centrality.threads_of_blas(), centrality.BLOCK, iter(range(0, len(points), centrality.BLOCK))

    def work(_: int) -> None:
        right, room = points.T.copy(), np.empty(block * block, np.float32)
        for start in rows:
            for other in range(start, len(points), block):
                here, there = points[start : start + block], right[:, other : other + block]
                np.matmul(here, there, out=room[: len(here) * there.shape[1]].reshape(len(here), -1))

    with threadpool_limits(1, "blas"), ThreadPool(threads) as pool:
        pool.map(work, range(threads), chunksize=1)


def timed(name: str, function: Callable[[], Any]) -> Any:
    wall, cores = time.perf_counter(), time.process_time()
    result = function()
    print(f"{name}: {time.perf_counter() - wall:.1f} s, of all cores {time.process_time() - cores:.1f} s", flush=True)
    return result


def comparison(scan: Scan) -> str:
    """Degree and the products alone in turns, the fastest of each, in 1e9 multiplications and additions a second."""
    points, ones, seconds = scan.points, np.ones(len(scan.points)), np.empty((TURNS, 2))
    for turn in seconds:
        for at, function in enumerate((lambda: centrality.products(points, ones), lambda: bare(points))):
            started = time.process_time()
            function()
            turn[at] = time.process_time() - started
    degree, product = (points.shape[1] * float(len(points)) ** 2 / seconds.min(0) / 1e9).tolist()
    return f"degree {degree:.3g} GFLOP/s a core, products alone {product:.3g} GFLOP/s, ratio {degree / product:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mm", type=positive, default=3)
    parser.add_argument("--volumes", type=positive, default=200)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*MEASURES, "dual_regression"])
    args = parser.parse_args()
    *measured, networks = drawn(args.mm, args.volumes)
    confounds = np.random.default_rng(1).normal(size=(args.volumes, CONFOUNDS))
    scan = timed("cleaning", lambda: scan_of(*measured, confounds))
    measured.clear()
    print(f"{len(scan.points):,} voxels, {scan.basis.shape[1]} degrees of freedom")
    for name in args.only:
        timed(name, lambda name=name: dual_regression(scan, networks) if name not in MEASURES else MEASURES[name](scan))
    print(comparison(scan))
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
