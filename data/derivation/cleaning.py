"""A scan's series and confounds -> a `CleanedScan`, from which every measure is made: cleaned, and within the band.

Only volumes that are kept are used. Those before the first one and after the last one do not exist for this program;
the frequencies of a scan are those of an FFT of all volumes between, k / (volumes x repetition time).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from data.base.errors import InputError
from data.derivation import centrality

MIN_DIRECTIONS = 3  # of the series in the band; correlations of two values are 1 or -1
# least share of the energy of a mixture of sinusoids on the kept volumes; others cannot be told
MIN_RETAINED_ENERGY = 0.01
RELATIVE_ROUNDING = 1e-6  # of a length; what is shorter is an error of rounding
VOXELS_PER_CHUNK = 4096  # voxels at a time
MIN_SERIES_DEVIATION = 1e-9
MAX_SERIES_DEVIATION = 1e12  # of a series from its mean; squares of others leave float32
MIN_SINUSOID_POWER = 1e-9  # of a sine or cosine at the kept volumes, such as the sine at half the sampling rate


class UnsuitedOptionsError(InputError):
    """A scan of which the confounds, or the band, leave too little; what would leave enough is for the caller to find.
    `min_directions` is the number of directions in the band that are needed."""

    def __init__(self, message: str, min_directions: int = MIN_DIRECTIONS):
        super().__init__(message)
        self.min_directions = min_directions


class AmplitudeSums(NamedTuple):
    """Sums of amplitudes of each voxel over frequencies, (voxels,) float32; an amplitude is |FFT| / volumes."""

    in_band: np.ndarray  # (voxels,), over frequencies in the band
    above_zero: np.ndarray  # (voxels,), over all frequencies above 0


@dataclass(frozen=True, eq=False)
class Sampling:
    """When a scan was measured, and the band that is wanted of it."""

    is_retained: np.ndarray  # (volumes,) bool: after the steady state was reached, and not scrubbed
    tr_s: float  # repetition time
    band_hz: tuple[float, float]  # Hz, both ends included

    @cached_property
    def retained_volume_offsets(self) -> np.ndarray:
        """When the kept volumes were measured, (kept,) int, in volumes after the first one of them."""
        retained_volume_indices = np.flatnonzero(self.is_retained)
        return retained_volume_indices - retained_volume_indices[0]

    @cached_property
    def spanned_volume_count(self) -> int:
        """The number of volumes from the first kept one to the last, scrubbed ones included."""
        return int(self.retained_volume_offsets[-1]) + 1

    @cached_property
    def frequency_indices(self) -> np.ndarray:
        """The numbers k of the frequencies k / (volume_count x tr_s) within the band, (bins,) int, without 0."""
        positive_frequency_indices = np.arange(1, self.spanned_volume_count // 2 + 1)
        frequencies_hz = positive_frequency_indices / (self.spanned_volume_count * self.tr_s)
        return positive_frequency_indices[
            (frequencies_hz >= self.band_hz[0] * (1 - RELATIVE_ROUNDING))
            & (frequencies_hz <= self.band_hz[1] * (1 + RELATIVE_ROUNDING))
        ]


@dataclass(frozen=True, eq=False)
class Acquisition(Sampling):
    """When and where a scan was measured."""

    mask: np.ndarray  # (x, y, z) bool; the voxels of a series are those of the mask in C order
    affine: np.ndarray  # (4, 4), voxel -> mm in MNI space, in any orientation


@dataclass(frozen=True, eq=False)
class CleanedScan(Acquisition):
    """One scan, or one run of it, as the measures read it."""

    cleaned_series: np.ndarray  # (kept, voxels) float32, without mean and confounds, unfiltered; 0 if it does not vary
    band_basis: np.ndarray  # (kept, directions) float64, orthonormal: the band, without mean and confounds

    @cached_property
    def series_coordinates(self) -> np.ndarray:
        """The filtered series in the basis, (voxels, directions) float32. Lengths, angles and correlations are those of
        the filtered series, since it has the mean 0."""
        return self.cleaned_series.T @ self.band_basis.astype(np.float32)

    @cached_property
    def unit_series_coordinates(self) -> np.ndarray:
        """The coordinates at length 1, whose products are correlations, (voxels, directions) float32; 0 for a voxel
        that does not vary in the band."""
        coordinate_lengths = np.linalg.norm(self.series_coordinates, axis=1)
        is_varying_voxel = coordinate_lengths > RELATIVE_ROUNDING * np.sqrt(
            np.einsum("tv,tv->v", self.cleaned_series, self.cleaned_series)
        )
        return self.series_coordinates * (is_varying_voxel / np.where(is_varying_voxel, coordinate_lengths, 1))[
            :, None
        ].astype(np.float32)

    @property
    def filtered_series(self) -> np.ndarray:
        """The cleaned series in the band, (kept, voxels) float32, mean 0; made anew each time."""
        return self.band_basis.astype(np.float32) @ self.series_coordinates.T

    @cached_property
    def amplitude_sums(self) -> AmplitudeSums:
        return sum_amplitudes(self.cleaned_series, self.retained_volume_offsets, self.frequency_indices)

    @cached_property
    def thresholded_row_sums(self) -> centrality.MatrixProducts:
        """Sums over the voxels whose correlation is above the threshold, the voxel itself included."""
        return centrality.multiply_thresholded_matrix(
            self.unit_series_coordinates, np.ones(len(self.unit_series_coordinates))
        )


def clean_scan(
    voxel_series: np.ndarray, acquisition: Acquisition, confound_regressors: np.ndarray | None = None
) -> CleanedScan:
    """The scan of a series (volumes, voxels) float32 and of confounds (volumes, regressors), whose first row may lack
    values, as those of derivatives do; like nilearn, this takes the second row's instead.

    Mean and confounds are regressed out of the kept volumes. The filter is a least-squares fit of the sinusoids of the
    band to the kept volumes; without scrubbing, it is that of the FFT. Confounds are filtered and regressed out in the
    same step, so that nothing of them comes back (Lindquist et al. 2019, doi:10.1002/hbm.24528).

    Raises InputError if nothing is kept or varies, values are missing, or too few volumes are kept for the band and
    the confounds.
    """
    if not acquisition.mask.any():
        raise InputError("The mask has no voxel; expected a brain. Check the mask.")
    if not acquisition.is_retained.any():
        raise InputError("All volumes are scrubbed; expected some that are kept. Scrub less, or move the scan away.")
    orthonormal_regressors = orthonormalise_regressors(confound_regressors, acquisition)
    band_basis = make_band_basis(acquisition, orthonormal_regressors)
    cleaned_series = regress_out_confounds(voxel_series, acquisition.is_retained, orthonormal_regressors)
    if not cleaned_series.any():
        raise InputError("The scan does not vary within its mask; expected signals. Check the scan and its mask.")
    if not MIN_SERIES_DEVIATION <= (max_deviation := float(np.abs(cleaned_series).max())) <= MAX_SERIES_DEVIATION:
        raise InputError(
            f"The scan varies by {max_deviation:.1g}; expected {MIN_SERIES_DEVIATION:g} to {MAX_SERIES_DEVIATION:g}, "
            "of whose squares sums are exact. Was it scaled by mistake? Check scl_slope in its header."
        )
    acq = acquisition
    return CleanedScan(acq.is_retained, acq.tr_s, acq.band_hz, acq.mask, acq.affine, cleaned_series, band_basis)


def orthonormalise_regressors(confound_regressors: np.ndarray | None, sampling: Sampling) -> np.ndarray:
    """Orthonormal directions (kept, regressors) float64 of the constant and of the confounds on the kept volumes."""
    constant_column = np.full((len(sampling.retained_volume_offsets), 1), len(sampling.retained_volume_offsets) ** -0.5)
    if confound_regressors is None:
        return constant_column
    confound_columns = select_confound_rows(confound_regressors, sampling.is_retained)
    raw_norms = np.linalg.norm(confound_columns, axis=0)
    confound_columns = confound_columns - confound_columns.mean(0)
    centred_norms = np.linalg.norm(confound_columns, axis=0)
    is_varying_column = centred_norms > RELATIVE_ROUNDING * raw_norms
    return np.hstack(
        [
            constant_column,
            orthonormalise_columns(confound_columns[:, is_varying_column] / centred_norms[is_varying_column]),
        ]
    )


def select_confound_rows(confound_regressors: np.ndarray, is_retained: np.ndarray) -> np.ndarray:
    """Confounds (volumes, regressors) of the kept volumes, float64. Raises InputError if rows are missing,
    UnsuitedError if values are."""
    if len(confound_regressors) != len(is_retained):
        raise InputError(
            f"The confounds have {len(confound_regressors)} rows, the scan has {len(is_retained)} volumes; expected a "
            "row for each volume. Take the table of this scan."
        )
    confound_rows = np.array(confound_regressors, np.float64)
    confound_rows[:1] = np.where(np.isnan(confound_rows[:1]), confound_rows[1:2], confound_rows[:1])
    if not np.isfinite(confound_rows[is_retained]).all():
        raise UnsuitedOptionsError("The confounds lack a value after the first row; expected numbers.")
    return confound_rows[is_retained]


def orthonormalise_columns(unit_columns: np.ndarray, min_singular_value: float = RELATIVE_ROUNDING) -> np.ndarray:
    """An orthonormal basis (rows, rank) of columns (rows, columns) of a length near 1. Directions whose singular values
    are not above `min_singular_value` follow from the others, and are left out."""
    left_vectors, singular_values, _ = np.linalg.svd(unit_columns, full_matrices=False)
    return left_vectors[:, singular_values > min_singular_value]


def make_band_basis(sampling: Sampling, orthonormal_regressors: np.ndarray) -> np.ndarray:
    """An orthonormal basis (kept, directions) float64 of the band on the kept volumes, without the filtered regressors.

    Sinusoids lose their mean over the kept volumes, as if a constant were fitted with them. What the basis spans is
    orthogonal to the regressors themselves, too. For b in the band and a regressor z, filtered Pz: b . z = b . Pz = 0.
    Raises InputError if the band has no frequency, UnsuitedError if too few directions are left."""
    band_sinusoids = make_band_sinusoids(sampling)
    sinusoid_basis = orthonormalise_columns(band_sinusoids - band_sinusoids.mean(0), MIN_RETAINED_ENERGY**0.5)
    left_vectors, singular_values, _ = np.linalg.svd(sinusoid_basis.T @ orthonormal_regressors)
    reduced_basis = sinusoid_basis @ left_vectors[:, int((singular_values > RELATIVE_ROUNDING).sum()) :]
    if reduced_basis.shape[1] < MIN_DIRECTIONS:
        raise UnsuitedOptionsError(
            f"{len(reduced_basis)} kept volumes with {orthonormal_regressors.shape[1] - 1} confounds leave "
            f"{reduced_basis.shape[1]} degrees of freedom in {sampling.band_hz[0]:g}-{sampling.band_hz[1]:g} Hz; "
            f"expected {MIN_DIRECTIONS} at least."
        )
    return reduced_basis


def make_band_sinusoids(sampling: Sampling) -> np.ndarray:
    """The sinusoids of the band at the kept volumes, (kept, sinusoids). Raises InputError if there are none, or the
    band ends above the highest frequency of the scan. Raises UnsuitedError if they are as many as kept volumes, since
    they would then fit whatever these hold."""
    low_hz, high_hz = sampling.band_hz
    if high_hz * 2 * sampling.tr_s > 1 + RELATIVE_ROUNDING:
        raise InputError(
            f"{low_hz:g}-{high_hz:g} Hz ends above the highest frequency of a scan of {sampling.tr_s:g} s a volume, "
            f"{0.5 / sampling.tr_s:g} Hz; expected a band below it. Choose one with --band."
        )
    band_sinusoids = make_sinusoids(
        sampling.retained_volume_offsets, sampling.frequency_indices, sampling.spanned_volume_count
    )
    if not band_sinusoids.size:
        raise InputError(
            f"{sampling.spanned_volume_count} volumes of {sampling.tr_s:g} s have no frequency in "
            f"{low_hz:g}-{high_hz:g} Hz; expected one at least. Take a wider --band, for all in another folder, or "
            "move the scan away."
        )
    if len(band_sinusoids) < min(band_sinusoids.shape[1] + 1, sampling.spanned_volume_count):
        raise UnsuitedOptionsError(
            f"{len(band_sinusoids)} of {sampling.spanned_volume_count} volumes are kept; expected more than the "
            f"{band_sinusoids.shape[1]} sinusoids in {low_hz:g}-{high_hz:g} Hz."
        )
    return band_sinusoids


def regress_out_confounds(
    voxel_series: np.ndarray, is_retained: np.ndarray, orthonormal_regressors: np.ndarray
) -> np.ndarray:
    """What regression on orthonormal regressors (kept, regressors) leaves of a series (volumes, voxels), (kept, voxels)
    float32; 0 where that is an error of rounding. Raises InputError if values are missing."""
    residual_series = np.empty((len(orthonormal_regressors), voxel_series.shape[1]), np.float32)
    missing_voxel_count = 0
    for first_voxel in range(0, voxel_series.shape[1], VOXELS_PER_CHUNK):
        series_block = voxel_series[is_retained, first_voxel : first_voxel + VOXELS_PER_CHUNK].astype(np.float64)
        missing_voxel_count += int((~np.isfinite(series_block)).any(0).sum())
        original_norms = np.linalg.norm(series_block, axis=0)
        series_block -= orthonormal_regressors @ (orthonormal_regressors.T @ series_block)
        residual_series[:, first_voxel : first_voxel + VOXELS_PER_CHUNK] = np.where(
            np.linalg.norm(series_block, axis=0) > RELATIVE_ROUNDING * original_norms, series_block, 0
        )
    if missing_voxel_count:
        raise InputError(
            f"{missing_voxel_count:,} of {voxel_series.shape[1]:,} voxels of the mask hold no number in some volume; "
            "expected numbers. Take these voxels out of the mask."
        )
    return residual_series


def make_sinusoids(volume_offsets: np.ndarray, frequency_indices: np.ndarray, spanned_volume_count: int) -> np.ndarray:
    """Cosines and sines (times, 2 x bins) at `frequency_indices` / `spanned_volume_count` cycles per volume; of length
    1 each if `volume_offsets` are all `spanned_volume_count` volumes."""
    phase_angles = 2 * np.pi / spanned_volume_count * np.outer(volume_offsets, frequency_indices)
    return np.hstack([np.cos(phase_angles), np.sin(phase_angles)]) * np.sqrt(
        np.tile(np.where(2 * frequency_indices == spanned_volume_count, 1, 2), 2) / spanned_volume_count
    )


def make_amplitude_weights(volume_offsets: np.ndarray) -> np.ndarray:
    """Rows (2, frequencies, times). Their products with a series are the cosine's and the sine's share of its
    amplitudes, see `AmplitudeSums`, at the frequencies k / volumes, k = 1, 2, ...

    A constant is fitted, too (Zechmeister and Kürster 2009, doi:10.1051/0004-6361:200811296). Scargle's shift of time
    makes cosine and sine orthogonal at the times, so that each is fitted alone."""
    spanned_volume_count = int(volume_offsets[-1]) + 1
    positive_frequency_indices = np.arange(1, spanned_volume_count // 2 + 1)
    # (frequencies, times), complex
    waves = np.exp(2j * np.pi / spanned_volume_count * np.outer(positive_frequency_indices, volume_offsets))
    waves -= waves.mean(1, keepdims=True)
    waves *= np.exp(-0.5j * np.angle((waves**2).sum(1, keepdims=True)))
    waves = np.stack([waves.real, waves.imag])
    wave_power = (waves**2).sum(-1, keepdims=True)  # (2, frequencies, 1)
    # two frequencies of the FFT, k and -k, share an amplitude
    frequency_weights = np.where(2 * positive_frequency_indices == spanned_volume_count, 1, 0.5)[:, None]
    return np.where(
        wave_power > MIN_SINUSOID_POWER * len(volume_offsets),
        frequency_weights * waves / np.maximum(wave_power, MIN_SINUSOID_POWER),
        0,
    )


def sum_amplitudes(
    cleaned_series: np.ndarray, volume_offsets: np.ndarray, frequency_indices: np.ndarray
) -> AmplitudeSums:
    """The sums of a series (times, voxels) float32 at these times in volumes, the first one 0; `frequency_indices` are
    the k in the band."""
    amplitude_weights = make_amplitude_weights(volume_offsets).astype(np.float32)
    amplitude_sums = np.empty((2, cleaned_series.shape[1]), np.float32)  # (in the band or above 0, voxels)
    for first_voxel in range(0, cleaned_series.shape[1], VOXELS_PER_CHUNK):
        cos_sin_amplitudes = amplitude_weights @ cleaned_series[:, first_voxel : first_voxel + VOXELS_PER_CHUNK]
        frequency_amplitudes = np.sqrt((cos_sin_amplitudes**2).sum(0))
        amplitude_sums[:, first_voxel : first_voxel + VOXELS_PER_CHUNK] = (
            frequency_amplitudes[frequency_indices - 1].sum(0),
            frequency_amplitudes.sum(0),
        )
    return AmplitudeSums(*amplitude_sums)
