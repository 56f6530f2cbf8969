"""Filtered series -> regional homogeneity: Kendall's W of a voxel with its 26 neighbours (Zang et al. 2004,
doi:10.1016/j.neuroimage.2003.12.030).

Ties take their average rank; W is not corrected for them (series that are filtered have none). Voxels outside the mask
and those that do not vary are left out: K is the number of the others. Where K is below 9, a third of the 27, W is 0.
"""

import numpy as np
from scipy.stats import rankdata

LEAST_VOXELS = 9
BLOCK = 4096  # voxels whose series are ranked at a time
VOLUMES = 16  # whose ranks are summed at a time


def reho(basis: np.ndarray, points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """W (voxels,) float32 of the series basis @ points.T; basis (times, directions), points (voxels, directions), whose
    scale does not matter, for the voxels of a mask (x, y, z)."""
    ranks, varies = centred_ranks(basis, points), np.any(points, axis=1)
    box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(mask))
    inside = mask[box]
    squares = np.zeros(len(points))
    for start in range(0, len(ranks), VOLUMES):
        sums = neighbourhood_sums(inside, ranks[start : start + VOLUMES])
        squares += np.einsum("tv,tv->v", sums, sums)
    count = neighbourhood_sums(inside, varies[None].astype(np.float32))[0]
    times = len(basis)
    of_all = np.maximum(count, 1) ** 2 * (times**3 - times) / 12
    return np.where(varies & (count >= LEAST_VOXELS), squares / of_all, 0).astype(np.float32)


def centred_ranks(basis: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Ranks of each voxel's series, minus their mean, (times, voxels) float32; 0 if it does not vary."""
    ranks = np.empty((len(basis), len(points)), np.float32)
    for start in range(0, len(points), BLOCK):
        series = points[start : start + BLOCK] @ basis.T.astype(np.float32)
        ranks[:, start : start + BLOCK] = rankdata(series, axis=1).T - (len(basis) + 1) / 2
    return ranks


def neighbourhood_sums(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of values (times, voxels) float32 of a mask (x, y, z) over the 27 voxels around each, 0 outside the mask,
    (times, voxels): along one axis after the other."""
    volumes = np.zeros((len(values), *(size + 2 for size in mask.shape)), np.float32)
    volumes[:, 1:-1, 1:-1, 1:-1][:, mask] = values
    volumes = volumes[:, :-2] + volumes[:, 1:-1] + volumes[:, 2:]
    volumes = volumes[:, :, :-2] + volumes[:, :, 1:-1] + volumes[:, :, 2:]
    volumes = volumes[..., :-2] + volumes[..., 1:-1] + volumes[..., 2:]
    return volumes[:, mask]
