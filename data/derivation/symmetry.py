"""Points of voxels -> voxel-mirrored homotopic connectivity (Zuo et al. 2010, doi:10.1523/JNEUROSCI.2612-10.2010)."""

import numpy as np

MOST = 0.999  # of a correlation; Fisher's z is 3.8


def vmhc(points: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Fisher's z (voxels,) float32 of the correlation of each voxel with its mirror image, the voxel of the grid
    nearest to (-x, y, z) in mm, for points (voxels, directions) of length 1 in a mask (x, y, z) with its affine (4, 4).

    0 where the mirror image is outside the mask; correlations beyond 0.999 count as 0.999, also that of a voxel that is
    its own mirror image."""
    places = np.argwhere(mask)
    mirror = np.linalg.inv(affine) @ np.diag([-1, 1, 1, 1]) @ affine
    images = np.rint(places @ mirror[:3, :3].T + mirror[:3, 3]).astype(int)
    within = ((images >= 0) & (images < mask.shape)).all(1)
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(len(places))
    other = np.full(len(places), -1)
    other[within] = number[tuple(images[within].T)]
    has_image = other >= 0
    r = np.einsum("vd,vd->v", points, points[other]) * has_image
    return np.arctanh(np.clip(r, -MOST, MOST)).astype(np.float32)
