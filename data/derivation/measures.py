"""A scan -> values of its voxels, by the measures' names, which are those of the Preprocessed Connectomes Project.

A measure that a plain row of `MEASURES` makes needs nothing but the scan. The dual regression and the series of parcels
need an image, too.
"""

from collections.abc import Callable

import numpy as np
from nibabel.affines import voxel_sizes
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from data.base.errors import InputError
from data.derivation import centrality
from data.derivation.cleaning import BLOCK, ROUNDING, Amplitudes, Scan, UnsuitedError

FWHM = np.sqrt(8 * np.log(2))  # of a Gaussian, in standard deviations
LEAST_VOXELS = 9  # for ReHo, of the 27 around a voxel and itself
VOLUMES = 16  # whose ranks are summed at a time
MOST = 0.999  # of a correlation with a mirror image; Fisher's z is 3.8


def alff(of: Amplitudes) -> np.ndarray:
    """Amplitude of low-frequency fluctuation (Zang et al. 2007, doi:10.1016/j.braindev.2006.07.002), (voxels,) float32
    in units of the series. It is the sum of |FFT| over the band, by the number of volumes."""
    return of.in_band


def falff(of: Amplitudes) -> np.ndarray:
    """Fractional ALFF: the sum over the band as a share of the sum over all frequencies above 0, (voxels,) float32;
    0 where the series does not vary (Zou et al. 2008, doi:10.1016/j.jneumeth.2008.04.012)."""
    return of.in_band / np.where(of.above_zero > 0, of.above_zero, np.float32(1))


def reho(basis: np.ndarray, points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Regional homogeneity (Zang et al. 2004, doi:10.1016/j.neuroimage.2003.12.030) of the voxels of a mask (x, y, z).

    It is Kendall's W of a voxel with its 26 neighbours; (voxels,) float32.

    The series are basis (times, directions) @ points.T (voxels, directions), whose scale does not matter. Ties take
    their average rank. W is not corrected for them, since filtered series have none. Voxels outside the mask and those
    that do not vary are left out: K is the number of the others. Where K is below 9, a third of the 27, W is 0."""
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
    """Sums (times, voxels) of values (times, voxels) float32 of a mask (x, y, z) over the 27 voxels around each. They
    are made along one axis after the other, with 0 outside the mask."""
    volumes = np.zeros((len(values), *(size + 2 for size in mask.shape)), np.float32)
    volumes[:, 1:-1, 1:-1, 1:-1][:, mask] = values
    volumes = volumes[:, :-2] + volumes[:, 1:-1] + volumes[:, 2:]
    volumes = volumes[:, :, :-2] + volumes[:, :, 1:-1] + volumes[:, :, 2:]
    volumes = volumes[..., :-2] + volumes[..., 1:-1] + volumes[..., 2:]
    return volumes[:, mask]


def vmhc(points: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Voxel-mirrored homotopic connectivity (Zuo et al. 2010, doi:10.1523/JNEUROSCI.2612-10.2010): Fisher's z of the
    correlation of each voxel with its mirror image, (voxels,) float32.

    Points (voxels, directions) have length 1, in a mask (x, y, z) with its affine (4, 4). The mirror image is the voxel
    of the grid nearest to (-x, y, z) in mm.

    0 where the mirror image is outside the mask. Correlations beyond 0.999 count as 0.999, also that of a voxel that is
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


MEASURES: dict[str, Callable[[Scan], np.ndarray]] = {  # PCP's names -> values (voxels,) float32
    "falff": lambda scan: falff(scan.amplitudes),
    "alff": lambda scan: alff(scan.amplitudes),
    "reho": lambda scan: reho(scan.basis, scan.points, scan.mask),
    "degree_weighted": lambda scan: centrality.degree(scan.neighbours.weighted, scan.points),
    "degree_binarize": lambda scan: centrality.degree(scan.neighbours.binarize, scan.points),
    "eigenvector_weighted": lambda scan: centrality.eigenvector(scan.points, "weighted", scan.neighbours.weighted),
    "eigenvector_binarize": lambda scan: centrality.eigenvector(scan.points, "binarize", scan.neighbours.binarize),
    "vmhc": lambda scan: vmhc(scan.points, scan.mask, scan.affine),
}


def dual_regression(scan: Scan, networks: np.ndarray) -> np.ndarray:
    """How much of each network's time course is in each voxel's, (voxels, networks) float32 (Filippini et al. 2009,
    doi:10.1073/pnas.0811879106). Maps (x, y, z, networks) are on the scan's grid, such as those of Smith et al. (2009).

    Filtered series are brought to variance 1. Their regression on the maps and a constant, volume by volume, gives the
    networks' time courses, which are brought to variance 1, too. The regression of each voxel's series on all of them
    together gives the values. A voxel that does not vary is left out and has 0. Raises InputError if the maps do not
    differ in the mask, UnsuitedError if there are more of them than degrees of freedom.
    """
    varies = scan.points.any(1)
    maps = centred_maps(networks[scan.mask][varies].astype(np.float64))
    if scan.points.shape[1] < maps.shape[1]:
        raise UnsuitedError(
            f"The scan has {scan.points.shape[1]} degrees of freedom in the band; expected one for each of "
            f"{maps.shape[1]} networks, or fewer networks.",
            maps.shape[1],
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
    """Means of the filtered series in parcels, (kept, parcels) float64, in the order of the numbers that occur; NaN for
    a parcel without a voxel in the mask. Labels (x, y, z) int are 0 outside parcels."""
    numbers = np.unique(labels[labels != 0])
    within = labels[scan.mask]
    places = np.searchsorted(numbers, within[within != 0])
    sums = np.zeros((len(numbers), scan.basis.shape[1]))
    np.add.at(sums, places, scan.coordinates[within != 0])
    counts = np.bincount(places, minlength=len(numbers))[:, None]
    return scan.basis @ np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).T


def smoothed(values: np.ndarray, mask: np.ndarray, affine: np.ndarray, fwhm_mm: float) -> np.ndarray:
    """Values (x, y, z) after a Gaussian of this full width at half maximum within a mask, 0 outside of it. What comes
    from outside does not count, so that the edge does not fade."""
    sigma = fwhm_mm / FWHM / voxel_sizes(affine)
    inside = mask.astype(np.float64)
    weight = gaussian_filter(inside, sigma, mode="constant")
    blurred = gaussian_filter(values * inside, sigma, mode="constant")
    return np.where(mask, blurred / np.where(mask, weight, 1), 0).astype(np.float32)
