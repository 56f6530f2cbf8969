"""A scan -> values of its voxels, by the measures' names, which are those of the Preprocessed Connectomes Project.

A measure that a plain row of `MEASURE_FUNCTIONS` makes needs nothing but the scan. The dual regression and the series
of parcels need an image, too.
"""

from collections.abc import Callable

import numpy as np
from nibabel.affines import voxel_sizes
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from data.base.errors import InputError
from data.derivation import centrality
from data.derivation.cleaning import (
    RELATIVE_ROUNDING,
    VOXELS_PER_CHUNK,
    AmplitudeSums,
    CleanedScan,
    UnsuitedOptionsError,
)

FWHM_PER_SD = np.sqrt(8 * np.log(2))  # of a Gaussian, in standard deviations
MIN_REHO_VOXELS = 9  # for ReHo, of the 27 around a voxel and itself
VOLUMES_PER_BLOCK = 16  # whose ranks are summed at a time
MAX_MIRROR_CORRELATION = 0.999  # of a correlation with a mirror image; Fisher's z is 3.8


def compute_alff(amplitude_sums: AmplitudeSums) -> np.ndarray:
    """Amplitude of low-frequency fluctuation (Zang et al. 2007, doi:10.1016/j.braindev.2006.07.002), (voxels,) float32
    in units of the series. It is the sum of |FFT| over the band, by the number of volumes."""
    return amplitude_sums.in_band


def compute_falff(amplitude_sums: AmplitudeSums) -> np.ndarray:
    """Fractional ALFF: the sum over the band as a share of the sum over all frequencies above 0, (voxels,) float32;
    0 where the series does not vary (Zou et al. 2008, doi:10.1016/j.jneumeth.2008.04.012)."""
    return amplitude_sums.in_band / np.where(amplitude_sums.above_zero > 0, amplitude_sums.above_zero, np.float32(1))


def compute_reho(band_basis: np.ndarray, unit_series_coordinates: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Regional homogeneity (Zang et al. 2004, doi:10.1016/j.neuroimage.2003.12.030) of the voxels of a mask (x, y, z).

    It is Kendall's W of a voxel with its 26 neighbours; (voxels,) float32.

    The series are `band_basis` (times, directions) @ `unit_series_coordinates`.T (directions, voxels), whose scale
    does not matter. Ties take their average rank. W is not corrected for them, since filtered series have none. Voxels
    outside the mask and those that do not vary are left out: K is the number of the others. Where K is below 9, a
    third of the 27, W is 0."""
    # (times, voxels); (voxels,) bool
    centred_voxel_ranks = compute_centred_ranks(band_basis, unit_series_coordinates)
    is_varying_voxel = np.any(unit_series_coordinates, axis=1)
    bounding_box = tuple(slice(axis_positions.min(), axis_positions.max() + 1) for axis_positions in np.nonzero(mask))
    box_mask = mask[bounding_box]
    squared_rank_sums = np.zeros(len(unit_series_coordinates))  # (voxels,), over all volumes
    for first_volume in range(0, len(centred_voxel_ranks), VOLUMES_PER_BLOCK):
        neighbourhood_rank_sums = sum_neighbourhoods(
            box_mask, centred_voxel_ranks[first_volume : first_volume + VOLUMES_PER_BLOCK]
        )
        squared_rank_sums += np.einsum("tv,tv->v", neighbourhood_rank_sums, neighbourhood_rank_sums)
    # (voxels,), of the 27 around each and itself
    varying_voxel_counts = sum_neighbourhoods(box_mask, is_varying_voxel[None].astype(np.float32))[0]
    volume_count = len(band_basis)
    max_squared_sums = np.maximum(varying_voxel_counts, 1) ** 2 * (volume_count**3 - volume_count) / 12
    return np.where(
        is_varying_voxel & (varying_voxel_counts >= MIN_REHO_VOXELS), squared_rank_sums / max_squared_sums, 0
    ).astype(np.float32)


def compute_centred_ranks(band_basis: np.ndarray, unit_series_coordinates: np.ndarray) -> np.ndarray:
    """Ranks of each voxel's series, minus their mean, (times, voxels) float32; 0 if it does not vary."""
    centred_ranks = np.empty((len(band_basis), len(unit_series_coordinates)), np.float32)
    for first_voxel in range(0, len(unit_series_coordinates), VOXELS_PER_CHUNK):
        chunk_series = unit_series_coordinates[first_voxel : first_voxel + VOXELS_PER_CHUNK] @ band_basis.T.astype(
            np.float32
        )
        centred_ranks[:, first_voxel : first_voxel + VOXELS_PER_CHUNK] = (
            rankdata(chunk_series, axis=1).T - (len(band_basis) + 1) / 2
        )
    return centred_ranks


def sum_neighbourhoods(mask: np.ndarray, values_in_mask: np.ndarray) -> np.ndarray:
    """Sums (times, voxels) of values (times, voxels) float32 of a mask (x, y, z) over the 27 voxels around each. They
    are made along one axis after the other, with 0 outside the mask."""
    # (times, x + 2, y + 2, z + 2)
    padded_sums = np.zeros((len(values_in_mask), *(axis_length + 2 for axis_length in mask.shape)), np.float32)
    padded_sums[:, 1:-1, 1:-1, 1:-1][:, mask] = values_in_mask
    padded_sums = padded_sums[:, :-2] + padded_sums[:, 1:-1] + padded_sums[:, 2:]
    padded_sums = padded_sums[:, :, :-2] + padded_sums[:, :, 1:-1] + padded_sums[:, :, 2:]
    padded_sums = padded_sums[..., :-2] + padded_sums[..., 1:-1] + padded_sums[..., 2:]
    return padded_sums[:, mask]


def compute_vmhc(unit_series_coordinates: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Voxel-mirrored homotopic connectivity (Zuo et al. 2010, doi:10.1523/JNEUROSCI.2612-10.2010): Fisher's z of the
    correlation of each voxel with its mirror image, (voxels,) float32.

    `unit_series_coordinates` (voxels, directions) have length 1, in a mask (x, y, z) with its affine (4, 4). The mirror
    image is the voxel of the grid nearest to (-x, y, z) in mm.

    0 where the mirror image is outside the mask. Correlations beyond 0.999 count as 0.999, also that of a voxel that is
    its own mirror image."""
    voxel_positions = np.argwhere(mask)
    mirrored_voxel_affine = np.linalg.inv(affine) @ np.diag([-1, 1, 1, 1]) @ affine
    mirror_positions = np.rint(voxel_positions @ mirrored_voxel_affine[:3, :3].T + mirrored_voxel_affine[:3, 3]).astype(
        int
    )
    is_in_grid = ((mirror_positions >= 0) & (mirror_positions < mask.shape)).all(1)
    mask_voxel_indices = np.full(mask.shape, -1)  # (x, y, z): index within the mask, -1 outside
    mask_voxel_indices[mask] = np.arange(len(voxel_positions))
    mirror_voxel_indices = np.full(len(voxel_positions), -1)  # (voxels,), -1 without a mirror image
    mirror_voxel_indices[is_in_grid] = mask_voxel_indices[tuple(mirror_positions[is_in_grid].T)]
    has_mirror = mirror_voxel_indices >= 0
    mirror_correlations = (
        np.einsum("vd,vd->v", unit_series_coordinates, unit_series_coordinates[mirror_voxel_indices]) * has_mirror
    )
    return np.arctanh(np.clip(mirror_correlations, -MAX_MIRROR_CORRELATION, MAX_MIRROR_CORRELATION)).astype(np.float32)


MEASURE_FUNCTIONS: dict[str, Callable[[CleanedScan], np.ndarray]] = {  # PCP's names -> values (voxels,) float32
    "falff": lambda cleaned_scan: compute_falff(cleaned_scan.amplitude_sums),
    "alff": lambda cleaned_scan: compute_alff(cleaned_scan.amplitude_sums),
    "reho": lambda cleaned_scan: compute_reho(
        cleaned_scan.band_basis, cleaned_scan.unit_series_coordinates, cleaned_scan.mask
    ),
    "degree_weighted": lambda cleaned_scan: centrality.compute_degree_centrality(
        cleaned_scan.thresholded_row_sums.weighted, cleaned_scan.unit_series_coordinates
    ),
    "degree_binarize": lambda cleaned_scan: centrality.compute_degree_centrality(
        cleaned_scan.thresholded_row_sums.binarize, cleaned_scan.unit_series_coordinates
    ),
    "eigenvector_weighted": lambda cleaned_scan: centrality.compute_eigenvector_centrality(
        cleaned_scan.unit_series_coordinates, "weighted", cleaned_scan.thresholded_row_sums.weighted
    ),
    "eigenvector_binarize": lambda cleaned_scan: centrality.compute_eigenvector_centrality(
        cleaned_scan.unit_series_coordinates, "binarize", cleaned_scan.thresholded_row_sums.binarize
    ),
    "vmhc": lambda cleaned_scan: compute_vmhc(
        cleaned_scan.unit_series_coordinates, cleaned_scan.mask, cleaned_scan.affine
    ),
}


def compute_dual_regression(cleaned_scan: CleanedScan, network_maps: np.ndarray) -> np.ndarray:
    """How much of each network's time course is in each voxel's, (voxels, networks) float32 (Filippini et al. 2009,
    doi:10.1073/pnas.0811879106). Maps (x, y, z, networks) are on the scan's grid, such as those of Smith et al. (2009).

    Filtered series are brought to variance 1. Their regression on the maps and a constant, volume by volume, gives the
    networks' time courses, which are brought to variance 1, too. The regression of each voxel's series on all of them
    together gives the values. A voxel that does not vary is left out and has 0. Raises InputError if the maps do not
    differ in the mask, UnsuitedError if there are more of them than degrees of freedom.
    """
    is_varying_voxel = cleaned_scan.unit_series_coordinates.any(1)
    # (varying voxels, networks)
    centred_network_maps = centre_network_maps(network_maps[cleaned_scan.mask][is_varying_voxel].astype(np.float64))
    if cleaned_scan.unit_series_coordinates.shape[1] < centred_network_maps.shape[1]:
        raise UnsuitedOptionsError(
            f"The scan has {cleaned_scan.unit_series_coordinates.shape[1]} degrees of freedom in the band; expected "
            f"one for each of {centred_network_maps.shape[1]} networks, or fewer networks.",
            centred_network_maps.shape[1],
        )
    network_course_coordinates = (
        np.linalg.solve(centred_network_maps.T @ centred_network_maps, centred_network_maps.T).astype(np.float32)
        @ cleaned_scan.unit_series_coordinates[is_varying_voxel]
    )  # (networks, directions)
    network_course_coordinates /= np.maximum(
        np.linalg.norm(network_course_coordinates, axis=1, keepdims=True), np.finfo(np.float32).tiny
    )
    return cleaned_scan.unit_series_coordinates @ np.linalg.pinv(network_course_coordinates)


def centre_network_maps(masked_network_maps: np.ndarray) -> np.ndarray:
    """Maps (voxels, networks) without their means. Raises InputError if one follows from the others and a constant."""
    centred_maps = masked_network_maps - masked_network_maps.mean(0)
    map_norms = np.maximum(np.linalg.norm(masked_network_maps, axis=0), np.finfo(float).tiny)
    if (
        not np.isfinite(masked_network_maps).all()
        or np.linalg.matrix_rank(centred_maps / map_norms, RELATIVE_ROUNDING) < masked_network_maps.shape[1]
    ):
        raise InputError(
            f"The {masked_network_maps.shape[1]} maps of networks do not differ within the scan's mask; expected maps "
            "in MNI space, each with other values there. Check them, and the mask."
        )
    return centred_maps


def average_parcel_series(cleaned_scan: CleanedScan, parcel_label_volume: np.ndarray) -> np.ndarray:
    """Means of the filtered series in parcels, (kept, parcels) float64, in the order of the numbers that occur; NaN for
    a parcel without a voxel in the mask. Labels (x, y, z) int are 0 outside parcels."""
    parcel_numbers = np.unique(parcel_label_volume[parcel_label_volume != 0])
    voxel_parcel_numbers = parcel_label_volume[cleaned_scan.mask]  # (voxels,), 0 outside parcels
    voxel_parcel_indices = np.searchsorted(parcel_numbers, voxel_parcel_numbers[voxel_parcel_numbers != 0])
    parcel_coordinate_sums = np.zeros((len(parcel_numbers), cleaned_scan.band_basis.shape[1]))  # (parcels, directions)
    np.add.at(parcel_coordinate_sums, voxel_parcel_indices, cleaned_scan.series_coordinates[voxel_parcel_numbers != 0])
    voxel_counts = np.bincount(voxel_parcel_indices, minlength=len(parcel_numbers))[:, None]
    return (
        cleaned_scan.band_basis
        @ np.where(voxel_counts > 0, parcel_coordinate_sums / np.maximum(voxel_counts, 1), np.nan).T
    )


def smooth_map(volume: np.ndarray, mask: np.ndarray, affine: np.ndarray, fwhm_mm: float) -> np.ndarray:
    """Values (x, y, z) after a Gaussian of this full width at half maximum within a mask, 0 outside of it. What comes
    from outside does not count, so that the edge does not fade."""
    sigmas_in_voxels = fwhm_mm / FWHM_PER_SD / voxel_sizes(affine)
    mask_weights = mask.astype(np.float64)
    smoothed_mask = gaussian_filter(mask_weights, sigmas_in_voxels, mode="constant")
    smoothed_volume = gaussian_filter(volume * mask_weights, sigmas_in_voxels, mode="constant")
    return np.where(mask, smoothed_volume / np.where(mask, smoothed_mask, 1), 0).astype(np.float32)
