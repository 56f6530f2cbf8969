"""Volumes whose axes are parallel to another grid's -> linear interpolation or block means, by a matrix for each axis.

Both are a product with one sparse matrix an axis, which takes a few hundredths of the time that SciPy's
`affine_transform` takes to sample each voxel by itself.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from data.grids import BLOCK, FULL

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MOST_ASIDE = 1e-6  # voxels that a map's axes may leave the grid's over their length: rounding of an affine


def product(values: np.ndarray, matrices: Sequence["csr_array"]) -> np.ndarray:
    """Values (x, y, z), each axis multiplied by its matrix (new, old), in C order; fastest from Fortran order."""
    result = values.T  # so that the slowest axis comes first, and is not copied
    for axis, matrix in enumerate(reversed(matrices)):
        moved = np.moveaxis(result, axis, 0)
        result = (matrix @ moved.reshape(len(moved), -1)).reshape(-1, *moved.shape[1:])
    return result


@lru_cache(maxsize=8)
def interpolation(shape: tuple[int, ...], affine: bytes) -> tuple["csr_array", ...] | None:
    """Linear interpolation on the full grid of maps of this shape and affine (4x4 float64), (91 or 109, voxels) float32
    for each axis; None if their axes are not parallel to the grid's."""
    to_map = np.linalg.inv(np.frombuffer(affine).reshape(4, 4)) @ np.array(FULL.affine)
    steps = np.diag(to_map)[:3]
    if ((np.abs(to_map[:3, :3] - np.diag(steps)) @ FULL.shape) > MOST_ASIDE).any():
        return None
    axes = zip(to_map[:3, 3], steps, FULL.shape, shape, strict=True)
    return tuple(between(start + step * np.arange(size), count) for start, step, size, count in axes)


def between(at: np.ndarray, count: int) -> "csr_array":
    """Linear interpolation between `count` values, two or more, (places, count) float32; `at` (places,) are indices.
    As in `affine_transform`, it is 0 outside, even less than a voxel from the outer values."""
    from scipy.sparse import csr_array

    (rows,) = np.nonzero((at >= 0) & (at <= count - 1))
    below = np.minimum(at[rows].astype(int), count - 2)
    share = at[rows] - below
    entries = np.concatenate([1 - share, share]).astype(np.float32)
    return csr_array((entries, (np.tile(rows, 2), np.concatenate([below, below + 1]))), (len(at), count))


@cache
def averages(size: int) -> "csr_array":
    """Block means along an axis, (blocks, size) float32: of BLOCK values around every third, at the border of those
    that exist."""
    from scipy.sparse import csr_array

    block = (np.arange(size) + 1) // BLOCK
    entries = (1 / np.bincount(block)[block]).astype(np.float32)
    return csr_array((entries, (block, np.arange(size))))
