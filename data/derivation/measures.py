"""The measures by their names: a scan -> values of its voxels."""

from collections.abc import Callable

import numpy as np
from nibabel.affines import voxel_sizes
from scipy.ndimage import gaussian_filter

from data.derivation import centrality, homogeneity, spectra, symmetry
from data.derivation.cleaning import Scan
from data.derivation.networks import dual_regression, parcel_series

__all__ = ["MEASURES", "dual_regression", "parcel_series", "smoothed"]

FWHM = np.sqrt(8 * np.log(2))  # of a Gaussian, in standard deviations

MEASURES: dict[str, Callable[[Scan], np.ndarray]] = {  # PCP's names -> values (voxels,) float32
    "falff": lambda scan: spectra.falff(scan.amplitudes),
    "alff": lambda scan: spectra.alff(scan.amplitudes),
    "reho": lambda scan: homogeneity.reho(scan.basis, scan.points, scan.mask),
    "degree_weighted": lambda scan: centrality.degree(scan.neighbours.weighted, scan.points),
    "degree_binarize": lambda scan: centrality.degree(scan.neighbours.binarize, scan.points),
    "eigenvector_weighted": lambda scan: centrality.eigenvector(scan.points, "weighted", scan.neighbours.weighted),
    "eigenvector_binarize": lambda scan: centrality.eigenvector(scan.points, "binarize", scan.neighbours.binarize),
    "vmhc": lambda scan: symmetry.vmhc(scan.points, scan.mask, scan.affine),
}


def smoothed(values: np.ndarray, mask: np.ndarray, affine: np.ndarray, fwhm_mm: float) -> np.ndarray:
    """Values (x, y, z) after a Gaussian of this full width at half maximum within a mask: what comes from outside does
    not count, so that the edge does not fade; 0 outside the mask."""
    sigma = fwhm_mm / FWHM / voxel_sizes(affine)
    inside = mask.astype(np.float64)
    weight = gaussian_filter(inside, sigma, mode="constant")
    blurred = gaussian_filter(values * inside, sigma, mode="constant")
    return np.where(mask, blurred / np.where(mask, weight, 1), 0).astype(np.float32)
