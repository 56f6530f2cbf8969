"""Maps on axes parallel to the grid's -> their volumes on it, or z-scored block means of these, by sparse matrices.

Linear interpolation along three axes is a product with a matrix for each; so are block means of the result, and its
mean and sum of squares follow from such products. SciPy's `affine_transform`, which samples each voxel of the grid by
itself, gives the same and takes 40 times as long.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from data.cohorts.records import BLOCK, FULL, REDUCED

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_TILT = 1e-6  # voxels by which a map's axes may leave the grid's over their length: rounding of an affine


def product(values: np.ndarray, matrices: Sequence["csr_array"]) -> np.ndarray:
    """Values (x, y, z), each axis multiplied by its matrix (new, old), in C order; fastest from Fortran order."""
    result = values.T  # so that the slowest axis comes first, and is not copied
    for axis, matrix in enumerate(reversed(matrices)):
        moved = np.moveaxis(result, axis, 0)
        result = (matrix @ moved.reshape(len(moved), -1)).reshape(-1, *moved.shape[1:])
    return result


def outer(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """The products (x, y, z) of a vector for each axis."""
    x, y, z = vectors
    return x[:, None, None] * y[:, None] * z


@dataclass(frozen=True)
class AxisAligned:
    """Linear interpolation of maps (x, y, z) of one shape and affine; a matrix (91 or 109, voxels) float32 an axis."""

    matrices: tuple["csr_array", ...]

    def full(self, values: np.ndarray) -> np.ndarray:
        """The volume (91, 109, 91) float32 on the full grid, 0 outside the map."""
        return product(values, self.matrices)

    def z_scored_blocks(self, values: np.ndarray) -> np.ndarray:
        """Block means (31, 37, 31) float32 of the volume on the full grid, after that is z-scored; it is not formed."""
        level = values[0, 0, 0]  # of most voxels; without it, rounding is that of what differs from it
        above, size = values - level, math.prod(FULL.shape)
        blocks = product(above, self._blocks) - level * self._outside
        mean = np.sum(blocks * block_sizes(), dtype=np.float64) / size
        squares = np.sum(above * product(above, self._squares), dtype=np.float64)
        squares += np.float64(level) ** 2 * np.sum(self._outside * block_sizes(), dtype=np.float64)
        variance = squares / size - mean**2
        return (blocks - np.float32(mean)) / np.float32(math.sqrt(variance) if variance > 0 else 1)

    @cached_property
    def _blocks(self) -> tuple["csr_array", ...]:
        """Block means of the interpolated values, (31 or 37, voxels) for each axis."""
        return tuple(averages(matrix.shape[0]) @ matrix for matrix in self.matrices)

    @cached_property
    def _squares(self) -> tuple["csr_array", ...]:
        """For each axis (voxels, voxels): v' S v is the sum of the squares of interpolated values v."""
        return tuple((matrix.T @ matrix).tocsr() for matrix in self.matrices)

    @cached_property
    def _outside(self) -> np.ndarray:
        """The share of each block that lies outside the map, (31, 37, 31) float32; exactly 0 where none does."""
        inside = [np.bincount(block_of(matrix.shape[0]), np.diff(matrix.indptr) > 0) for matrix in self.matrices]
        return 1 - (outer(inside) / block_sizes()).astype(np.float32)


@lru_cache(maxsize=8)
def axis_aligned(shape: tuple[int, ...], affine: bytes) -> AxisAligned | None:
    """For maps of this shape and affine (4x4 float64); None unless their axes are parallel to the grid's."""
    to_map = np.linalg.inv(np.frombuffer(affine).reshape(4, 4)) @ np.array(FULL.affine)
    steps = np.diag(to_map)[:3]
    if ((np.abs(to_map[:3, :3] - np.diag(steps)) @ FULL.shape) > MAX_TILT).any():
        return None
    axes = zip(to_map[:3, 3], steps, FULL.shape, shape, strict=True)
    return AxisAligned(tuple(between(start + step * np.arange(size), count) for start, step, size, count in axes))


def between(at: np.ndarray, count: int) -> "csr_array":
    """Linear interpolation between `count` values, two or more, (places, count) float32; `at` (places,) are indices.
    As in `affine_transform`, it is 0 outside, even less than a voxel from the outer values."""
    from scipy.sparse import csr_array

    (rows,) = np.nonzero((at >= 0) & (at <= count - 1))
    below = np.minimum(at[rows].astype(int), count - 2)
    share = at[rows] - below
    entries = np.concatenate([1 - share, share]).astype(np.float32)
    return csr_array((entries, (np.tile(rows, 2), np.concatenate([below, below + 1]))), (len(at), count))


def block_of(size: int) -> np.ndarray:
    """The block of each voxel along an axis, (size,): of BLOCK around every third, fewer at the border."""
    return (np.arange(size) + 1) // BLOCK


@cache
def averages(size: int) -> "csr_array":
    """Block means along an axis, (blocks, size) float32."""
    from scipy.sparse import csr_array

    entries = (1 / np.bincount(block_of(size))[block_of(size)]).astype(np.float32)
    return csr_array((entries, (block_of(size), np.arange(size))))


@cache
def block_sizes() -> np.ndarray:
    """How many voxels of the full grid each block has, (31, 37, 31) float32."""
    return outer([np.bincount(block_of(size)).astype(np.float32) for size in FULL.shape])


def block_mean(volume: np.ndarray) -> np.ndarray:
    """Full-size volume (91, 109, 91) -> (31, 37, 31) float32: voxel i is the mean of the full-size voxels 3i-1..3i+1
    that exist."""
    matrices = [averages(size) for size in volume.shape]
    return product(np.asarray(volume, np.float32).T, matrices[::-1]).T


def reduced(volume: np.ndarray) -> np.ndarray:
    """A volume (x, y, z) of either grid on the reduced one."""
    return volume if volume.shape == REDUCED.shape else block_mean(volume)


def repeat_blocks(volume: np.ndarray) -> np.ndarray:
    """(31, 37, 31) -> (91, 109, 91): every full-size voxel takes the value of the block that holds it."""
    for axis, size in enumerate(FULL.shape):
        volume = np.take(volume, block_of(size), axis)
    return volume
