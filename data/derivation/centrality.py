"""Points of voxels, whose products are correlations -> degree and eigenvector centrality (Zuo et al. 2012,
doi:10.1093/cercor/bhr269), by correlations above 0.25.

The matrix of voxels by voxels does not fit in memory. For each product with a vector it is made again, in blocks that
fit in a core's cache. A block above the diagonal serves both halves.
"""

from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

THRESHOLD = 0.25  # of a correlation; PCP's
TOLERANCE = 1e-5  # of the eigenvalue: length of what A v differs from it times v
BLOCK = 384  # voxels; two blocks of float32 for each core


class Products(NamedTuple):
    """The matrix of correlations above the threshold, times a vector, (voxels,) float64: its diagonal is 1."""

    weighted: np.ndarray  # by the correlations
    binarize: np.ndarray  # by 1 where they are above the threshold


def threads_of_blas() -> int:
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


def products(points: np.ndarray, vector: np.ndarray) -> Products:
    """Products of points (voxels, directions) float32 of length 1, or 0, with a vector (voxels,). They take as many
    threads as BLAS: `threadpoolctl` or OMP_NUM_THREADS set it."""
    threads = threads_of_blas()
    ones = np.ones((len(points), 1), np.float32)
    sides = np.hstack([points, ones]), np.hstack([points / 2, -THRESHOLD / 2 * ones]).T.copy()
    rows = iter(range(0, len(points), BLOCK))  # which the threads share
    with threadpool_limits(1, "blas"), ThreadPool(threads) as pool:
        parts = pool.map(lambda _: shares(sides, vector.astype(np.float32), rows), range(threads), chunksize=1)
    half_excess, count = np.sum(parts, axis=0)
    return Products(2 * half_excess + THRESHOLD * count, count)


def shares(sides: tuple[np.ndarray, np.ndarray], vector: np.ndarray, rows: Iterator[int]) -> np.ndarray:
    """What the blocks of these rows add to two products, (2, voxels) float64. The product of the sides is half of
    r - threshold: the first is of it where it is positive, the second of 1 there."""
    left, right = sides
    sums, room = np.zeros((2, len(left))), np.empty(2 * BLOCK * BLOCK, np.float32)
    for start in rows:
        here = slice(start, min(start + BLOCK, len(left)))
        for other in range(start, len(left), BLOCK):
            there = slice(other, min(other + BLOCK, len(left)))
            shape = 2, here.stop - here.start, there.stop - there.start
            blocks = room[: np.prod(shape)].reshape(shape)
            half, above = blocks
            np.matmul(left[here], right[:, there], out=half)
            np.ceil(half, out=above)  # 1 or 0, since half is between -0.625 and 0.375
            half *= above
            sums[:, here] += blocks @ vector[there]
            if other > start:
                sums[:, there] += vector[here] @ blocks
    return sums


def degree(sums: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Degree centrality of the sums with a vector of ones: over all other voxels of the mask, (voxels,) float32."""
    return (sums - points.any(1)).astype(np.float32)


def eigenvector(points: np.ndarray, kind: str, start: np.ndarray) -> np.ndarray:
    """The first eigenvector (voxels,) float32 of a kind in `Products`, of length 1, none negative, from a start such as
    the sums with ones; 0 for a voxel that does not vary.

    By Lanczos's method with full orthogonalisation, which takes the fewest products; SciPy's `eigsh` looks whether it
    has converged only once all its vectors are full."""
    vectors = [start / max(np.linalg.norm(start), np.finfo(float).tiny)]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = getattr(products(points, vectors[-1]), kind)
        diagonal.append(float(image @ vectors[-1]))
        known = np.stack(vectors)
        for _ in range(2):  # the second time takes errors of rounding away
            image = image - (known @ image) @ known
        beside.append(float(np.linalg.norm(image)))
        values, of_basis = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
        if beside[-1] * abs(of_basis[-1, -1]) <= TOLERANCE * abs(values[-1]):
            return normalised(of_basis[:, -1] @ known)
        vectors.append(image / beside[-1])


def normalised(vector: np.ndarray) -> np.ndarray:
    """Of the signs of an eigenvector, the one that makes it positive; length 1, float32."""
    positive = np.maximum(vector * np.sign(vector.sum()), 0)
    return (positive / max(np.linalg.norm(positive), np.finfo(float).tiny)).astype(np.float32)
