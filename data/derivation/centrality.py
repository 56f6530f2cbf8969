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

CORRELATION_THRESHOLD = 0.25  # of a correlation; PCP's
EIGENVALUE_TOLERANCE = 1e-5  # of the eigenvalue: length of what A v differs from it times v
VOXELS_PER_BLOCK = 384  # voxels; two blocks of float32 for each core


class MatrixProducts(NamedTuple):
    """The matrix of correlations above the threshold, times a vector, (voxels,) float64: its diagonal is 1."""

    weighted: np.ndarray  # by the correlations
    binarize: np.ndarray  # by 1 where they are above the threshold


def count_blas_threads() -> int:
    return max(
        (
            threaded_library["num_threads"]
            for threaded_library in threadpool_info()
            if threaded_library["user_api"] == "blas"
        ),
        default=1,
    )


def multiply_thresholded_matrix(unit_series_coordinates: np.ndarray, voxel_vector: np.ndarray) -> MatrixProducts:
    """The products with a vector (voxels,), from points (voxels, directions) float32 of length 1, or 0. They take as
    many threads as BLAS: `threadpoolctl` or OMP_NUM_THREADS set it."""
    thread_count = count_blas_threads()
    ones_column = np.ones((len(unit_series_coordinates), 1), np.float32)
    matrix_factors = (
        np.hstack([unit_series_coordinates, ones_column]),
        np.hstack([unit_series_coordinates / 2, -CORRELATION_THRESHOLD / 2 * ones_column]).T.copy(),
    )
    block_starts = iter(range(0, len(unit_series_coordinates), VOXELS_PER_BLOCK))  # which the threads share
    with threadpool_limits(1, "blas"), ThreadPool(thread_count) as thread_pool:
        product_sums_per_thread = thread_pool.map(
            lambda _: sum_block_products(matrix_factors, voxel_vector.astype(np.float32), block_starts),
            range(thread_count),
            chunksize=1,
        )
    half_excess_sums, binarized_sums = np.sum(product_sums_per_thread, axis=0)
    return MatrixProducts(2 * half_excess_sums + CORRELATION_THRESHOLD * binarized_sums, binarized_sums)


def sum_block_products(
    matrix_factors: tuple[np.ndarray, np.ndarray], voxel_vector: np.ndarray, block_starts: Iterator[int]
) -> np.ndarray:
    """What the blocks of rows from `block_starts` add to two products with the vector, (2, voxels) float64. The product
    of the factors is half of r - threshold: the first is with it where it is positive, the second with 1 there."""
    left_factor, right_factor = matrix_factors
    # (2, voxels) float64; scratch of one pair of blocks
    product_sums = np.zeros((2, len(left_factor)))
    block_buffer = np.empty(2 * VOXELS_PER_BLOCK * VOXELS_PER_BLOCK, np.float32)
    for row_start in block_starts:
        row_slice = slice(row_start, min(row_start + VOXELS_PER_BLOCK, len(left_factor)))
        for column_start in range(row_start, len(left_factor), VOXELS_PER_BLOCK):
            column_slice = slice(column_start, min(column_start + VOXELS_PER_BLOCK, len(left_factor)))
            block_shape = 2, row_slice.stop - row_slice.start, column_slice.stop - column_slice.start
            block_pair = block_buffer[: np.prod(block_shape)].reshape(block_shape)
            half_excess, is_above_threshold = block_pair
            np.matmul(left_factor[row_slice], right_factor[:, column_slice], out=half_excess)
            np.ceil(half_excess, out=is_above_threshold)  # 1 or 0, since `half_excess` is between -0.625 and 0.375
            half_excess *= is_above_threshold
            product_sums[:, row_slice] += block_pair @ voxel_vector[column_slice]
            if column_start > row_start:
                product_sums[:, column_slice] += voxel_vector[row_slice] @ block_pair
    return product_sums


def compute_degree_centrality(thresholded_row_sums: np.ndarray, unit_series_coordinates: np.ndarray) -> np.ndarray:
    """Degree centrality, (voxels,) float32, from the products with a vector of ones: over all other voxels."""
    return (thresholded_row_sums - unit_series_coordinates.any(1)).astype(np.float32)


def compute_eigenvector_centrality(
    unit_series_coordinates: np.ndarray, matrix_product_name: str, start_vector: np.ndarray
) -> np.ndarray:
    """The first eigenvector (voxels,) float32 of a matrix in `MatrixProducts`, of length 1, none negative, from a start
    such as the sums with ones; 0 for a voxel that does not vary.

    By Lanczos's method with full orthogonalisation, which takes the fewest products; SciPy's `eigsh` looks whether it
    has converged only once all its vectors are full."""
    lanczos_vectors = [start_vector / max(np.linalg.norm(start_vector), np.finfo(float).tiny)]
    lanczos_diagonal: list[float] = []
    lanczos_off_diagonal: list[float] = []
    while True:
        product_vector = getattr(
            multiply_thresholded_matrix(unit_series_coordinates, lanczos_vectors[-1]), matrix_product_name
        )
        lanczos_diagonal.append(float(product_vector @ lanczos_vectors[-1]))
        lanczos_basis = np.stack(lanczos_vectors)
        for _ in range(2):  # the second time takes errors of rounding away
            product_vector = product_vector - (lanczos_basis @ product_vector) @ lanczos_basis
        lanczos_off_diagonal.append(float(np.linalg.norm(product_vector)))
        eigenvalues, basis_eigenvectors = np.linalg.eigh(
            np.diag(lanczos_diagonal) + np.diag(lanczos_off_diagonal[:-1], 1) + np.diag(lanczos_off_diagonal[:-1], -1)
        )
        if lanczos_off_diagonal[-1] * abs(basis_eigenvectors[-1, -1]) <= EIGENVALUE_TOLERANCE * abs(eigenvalues[-1]):
            return normalise_eigenvector(basis_eigenvectors[:, -1] @ lanczos_basis)
        lanczos_vectors.append(product_vector / lanczos_off_diagonal[-1])


def normalise_eigenvector(signed_vector: np.ndarray) -> np.ndarray:
    """Of the signs of an eigenvector, the one that makes it positive; length 1, float32."""
    positive_vector = np.maximum(signed_vector * np.sign(signed_vector.sum()), 0)
    return (positive_vector / max(np.linalg.norm(positive_vector), np.finfo(float).tiny)).astype(np.float32)
