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

from data.images.grids import BLOCK_EDGE, FULL, REDUCED

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_TILT_VOXELS = 1e-6  # voxels by which a map's axes may leave the grid's over their length: rounding of an affine


def multiply_axes(map_values: np.ndarray, axis_matrices: Sequence["csr_array"]) -> np.ndarray:
    """Values (x, y, z), each axis multiplied by its matrix (new, old), in C order; fastest from Fortran order."""
    product_values = map_values.T  # so that the slowest axis comes first, and is not copied
    for transposed_axis, axis_matrix in enumerate(reversed(axis_matrices)):
        leading_axis_values = np.moveaxis(product_values, transposed_axis, 0)
        product_values = (axis_matrix @ leading_axis_values.reshape(len(leading_axis_values), -1)).reshape(
            -1, *leading_axis_values.shape[1:]
        )
    return product_values


def outer_product(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """The products (x, y, z) of a vector for each axis."""
    x, y, z = vectors
    return x[:, None, None] * y[:, None] * z


@dataclass(frozen=True)
class AxisAlignedResampler:
    """Linear interpolation of maps (x, y, z) of one shape and affine; a matrix (91 or 109, voxels) float32 an axis."""

    axis_matrices: tuple["csr_array", ...]  # for each axis (91 or 109, voxels of the map)

    def resample_full(self, map_values: np.ndarray) -> np.ndarray:
        """The volume (91, 109, 91) float32 on the full grid, 0 outside the map."""
        return multiply_axes(map_values, self.axis_matrices)

    def compute_z_scored_blocks(self, map_values: np.ndarray) -> np.ndarray:
        """Block means (31, 37, 31) float32 of the z-scored volume on the full grid, which is not formed."""
        background_level = map_values[0, 0, 0]  # of most voxels; without it, only what differs from it is rounded
        above_level = map_values - background_level
        voxel_count = math.prod(FULL.shape)
        block_means = multiply_axes(above_level, self._block_mean_matrices) - background_level * self._outside_fractions
        full_mean = np.sum(block_means * count_block_voxels(), dtype=np.float64) / voxel_count
        square_sum = np.sum(above_level * multiply_axes(above_level, self._square_sum_matrices), dtype=np.float64)
        square_sum += np.float64(background_level) ** 2 * np.sum(
            self._outside_fractions * count_block_voxels(), dtype=np.float64
        )
        variance = square_sum / voxel_count - full_mean**2
        return (block_means - np.float32(full_mean)) / np.float32(math.sqrt(variance) if variance > 0 else 1)

    @cached_property
    def _block_mean_matrices(self) -> tuple["csr_array", ...]:
        """Block means of the interpolated values, (31 or 37, voxels) for each axis."""
        return tuple(make_averaging_matrix(matrix.shape[0]) @ matrix for matrix in self.axis_matrices)

    @cached_property
    def _square_sum_matrices(self) -> tuple["csr_array", ...]:
        """For each axis (voxels, voxels): v' S v is the sum of the squares of interpolated values v."""
        return tuple((matrix.T @ matrix).tocsr() for matrix in self.axis_matrices)

    @cached_property
    def _outside_fractions(self) -> np.ndarray:
        """The share of each block that lies outside the map, (31, 37, 31) float32; exactly 0 where none does."""
        inside_voxel_counts = [
            np.bincount(find_axis_block_indices(matrix.shape[0]), np.diff(matrix.indptr) > 0)
            for matrix in self.axis_matrices
        ]
        return 1 - (outer_product(inside_voxel_counts) / count_block_voxels()).astype(np.float32)


@lru_cache(maxsize=8)
def make_aligned_resampler(map_shape: tuple[int, ...], affine_bytes: bytes) -> AxisAlignedResampler | None:
    """For maps of this shape and affine (4x4 float64); None unless their axes are parallel to the grid's."""
    grid_to_map_affine = np.linalg.inv(np.frombuffer(affine_bytes).reshape(4, 4)) @ np.array(FULL.affine)
    axis_steps_voxels = np.diag(grid_to_map_affine)[:3]
    if ((np.abs(grid_to_map_affine[:3, :3] - np.diag(axis_steps_voxels)) @ FULL.shape) > MAX_TILT_VOXELS).any():
        return None
    axis_parameters = zip(grid_to_map_affine[:3, 3], axis_steps_voxels, FULL.shape, map_shape, strict=True)
    return AxisAlignedResampler(
        tuple(
            make_interpolation_matrix(start_position + position_step * np.arange(grid_length), map_length)
            for start_position, position_step, grid_length, map_length in axis_parameters
        )
    )


def make_interpolation_matrix(sampled_positions: np.ndarray, value_count: int) -> "csr_array":
    """Linear interpolation between `value_count` values, two or more, (places, value_count) float32;
    `sampled_positions` (places,) are indices. As in `affine_transform`, it is 0 outside, even less than a voxel from
    the outer values."""
    from scipy.sparse import csr_array

    (inside_rows,) = np.nonzero((sampled_positions >= 0) & (sampled_positions <= value_count - 1))
    lower_indices = np.minimum(sampled_positions[inside_rows].astype(int), value_count - 2)
    upper_weights = sampled_positions[inside_rows] - lower_indices
    matrix_entries = np.concatenate([1 - upper_weights, upper_weights]).astype(np.float32)
    return csr_array(
        (matrix_entries, (np.tile(inside_rows, 2), np.concatenate([lower_indices, lower_indices + 1]))),
        (len(sampled_positions), value_count),
    )


def find_axis_block_indices(axis_length: int) -> np.ndarray:
    """The block of each voxel along an axis, (axis_length,): of `BLOCK_EDGE` around every third, fewer at the
    border."""
    return (np.arange(axis_length) + 1) // BLOCK_EDGE


@cache
def make_averaging_matrix(axis_length: int) -> "csr_array":
    """Block means along an axis, (blocks, axis_length) float32."""
    from scipy.sparse import csr_array

    matrix_entries = (
        1 / np.bincount(find_axis_block_indices(axis_length))[find_axis_block_indices(axis_length)]
    ).astype(np.float32)
    return csr_array((matrix_entries, (find_axis_block_indices(axis_length), np.arange(axis_length))))


@cache
def count_block_voxels() -> np.ndarray:
    """How many voxels of the full grid each block has, (31, 37, 31) float32."""
    return outer_product(
        [np.bincount(find_axis_block_indices(axis_length)).astype(np.float32) for axis_length in FULL.shape]
    )


def average_blocks(full_volume: np.ndarray) -> np.ndarray:
    """Full-size volume (91, 109, 91) -> (31, 37, 31) float32: voxel i is the mean of the full-size voxels 3i-1..3i+1
    that exist."""
    averaging_matrices = [make_averaging_matrix(axis_length) for axis_length in full_volume.shape]
    return multiply_axes(np.asarray(full_volume, np.float32).T, averaging_matrices[::-1]).T


def reduce_volume(volume: np.ndarray) -> np.ndarray:
    """A volume (x, y, z) of either grid on the reduced one."""
    return volume if volume.shape == REDUCED.shape else average_blocks(volume)


def repeat_blocks(volume: np.ndarray) -> np.ndarray:
    """(31, 37, 31) -> (91, 109, 91): every full-size voxel takes the value of the block that holds it."""
    for axis, axis_length in enumerate(FULL.shape):
        volume = np.take(volume, find_axis_block_indices(axis_length), axis)
    return volume
