"""A scan with maps of networks, or with parcels -> dual regression; series of the parcels."""

import numpy as np

from data.base.errors import InputError
from data.derivation.cleaning import ROUNDING, Scan


def dual_regression(scan: Scan, networks: np.ndarray) -> np.ndarray:
    """How much of each network's time course is in each voxel's, (voxels, networks) float32 (Filippini et al. 2009,
    doi:10.1073/pnas.0811879106), for maps (x, y, z, networks) on the scan's grid, such as those of Smith et al. (2009).

    Filtered series are brought to variance 1. Their regression on the maps, volume by volume, gives the networks' time
    courses; the regression of each voxel's series on all of these together gives the values. 0 for a voxel that does
    not vary. Raises InputError if the maps or their time courses follow from each other within the mask.
    """
    maps = networks[scan.mask].astype(np.float64)
    maps -= maps.mean(0)
    size = np.linalg.norm(maps, axis=0)
    if (
        not np.isfinite(maps).all()
        or (size <= 0).any()
        or np.linalg.matrix_rank(maps, ROUNDING * size.max()) < len(size)
    ):
        raise InputError(
            f"The {maps.shape[1]} maps of networks do not differ within the scan's mask; expected maps in MNI space, "
            "each with other values there. Check them, and the mask."
        )
    if scan.points.shape[1] < maps.shape[1]:
        raise InputError(
            f"The scan has {scan.points.shape[1]} degrees of freedom in the band; expected one for each of "
            f"{maps.shape[1]} networks. Take fewer confounds, scrub less, or leave the scan out."
        )
    points = scan.points * np.sqrt(np.float32(len(scan.times)))
    courses = (np.linalg.pinv(maps).astype(np.float32) @ points).T  # in the basis: (directions, networks)
    return points @ np.linalg.pinv(courses).T.astype(np.float32)


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
