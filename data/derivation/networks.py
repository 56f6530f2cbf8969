"""A scan with maps of networks, or with parcels -> dual regression; series of the parcels."""

import numpy as np

from data.base.errors import InputError
from data.derivation.cleaning import ROUNDING, Scan


def dual_regression(scan: Scan, networks: np.ndarray) -> np.ndarray:
    """How much of each network's time course is in each voxel's, (voxels, networks) float32 (Filippini et al. 2009,
    doi:10.1073/pnas.0811879106), for maps (x, y, z, networks) on the scan's grid, such as those of Smith et al. (2009).

    Filtered series are brought to variance 1. Their regression on the maps and a constant, volume by volume, gives the
    networks' time courses, which are brought to variance 1, too; the regression of each voxel's series on all of them
    together gives the values. A voxel that does not vary is left out and has 0. Raises InputError if the maps do not
    differ in the mask, or there are more of them than degrees of freedom.
    """
    varies = scan.points.any(1)
    maps = centred_maps(networks[scan.mask][varies].astype(np.float64))
    if scan.points.shape[1] < maps.shape[1]:
        raise InputError(
            f"The scan has {scan.points.shape[1]} degrees of freedom in the band; expected one for each of "
            f"{maps.shape[1]} networks. Take fewer confounds, scrub less, or leave the scan out."
        )
    courses = np.linalg.solve(maps.T @ maps, maps.T).astype(np.float32) @ scan.points[varies]  # (networks, directions)
    courses /= np.maximum(np.linalg.norm(courses, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return scan.points @ np.linalg.pinv(courses)


def centred_maps(maps: np.ndarray) -> np.ndarray:
    """Maps (voxels, networks) without their means. Raises InputError if one follows from the others and a constant."""
    centred = maps - maps.mean(0)
    size = np.maximum(np.linalg.norm(maps, axis=0), np.finfo(float).tiny)
    if not np.isfinite(maps).all() or np.linalg.matrix_rank(centred / size, ROUNDING) < maps.shape[1]:
        raise InputError(
            f"The {maps.shape[1]} maps of networks do not differ within the scan's mask; expected maps in MNI space, "
            "each with other values there. Check them, and the mask."
        )
    return centred


def parcel_series(scan: Scan, labels: np.ndarray) -> np.ndarray:
    """Means of the filtered series in parcels, (kept, parcels) float64, of labels (x, y, z) int, 0 outside parcels, in
    the order of the numbers that occur; NaN for a parcel without a voxel in the mask."""
    numbers = np.unique(labels[labels != 0])
    within = labels[scan.mask]
    places = np.searchsorted(numbers, within[within != 0])
    sums = np.zeros((len(numbers), scan.basis.shape[1]))
    np.add.at(sums, places, scan.coordinates[within != 0])
    counts = np.bincount(places, minlength=len(numbers))[:, None]
    return scan.basis @ np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).T
