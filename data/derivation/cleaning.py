"""A scan's series and confounds -> a `Scan`, from which every measure is made: cleaned, and within the band.

Only volumes that are kept are used. Those before the first one and after the last one do not exist for this program;
the frequencies of a scan are those of an FFT of all volumes between, k / (volumes x repetition time).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from data.base.errors import InputError
from data.derivation import centrality

LEAST_DIRECTIONS = 3  # of the series in the band; correlations of two values are 1 or -1
ON_KEPT = 0.01  # least share of the energy of a mixture of sinusoids on the kept volumes; others cannot be told
ROUNDING = 1e-6  # of a length; what is shorter is an error of rounding
BLOCK = 4096  # voxels at a time
LEAST_CHANGE, MOST_CHANGE = 1e-9, 1e12  # of a series from its mean; squares of others leave float32
NO_POWER = 1e-9  # of a sine or cosine at the kept volumes, such as the sine at half the sampling rate


class UnsuitedError(InputError):
    """A scan of which the confounds, or the band, leave too little; what would leave enough is for the caller to find.
    `least` is the number of directions in the band that are needed."""

    def __init__(self, text: str, least: int = LEAST_DIRECTIONS):
        super().__init__(text)
        self.least = least


class Amplitudes(NamedTuple):
    """Sums of amplitudes of each voxel over frequencies, (voxels,) float32; an amplitude is |FFT| / volumes."""

    in_band: np.ndarray
    above_zero: np.ndarray


@dataclass(frozen=True, eq=False)
class Sampling:
    """When a scan was measured, and the band that is wanted of it."""

    kept: np.ndarray  # (volumes,) bool: after the steady state was reached, and not scrubbed
    tr_s: float  # repetition time
    band: tuple[float, float]  # Hz, both ends included

    @cached_property
    def times(self) -> np.ndarray:
        """When the kept volumes were measured, (kept,) int, in volumes after the first one of them."""
        places = np.flatnonzero(self.kept)
        return places - places[0]

    @cached_property
    def count(self) -> int:
        """The number of volumes from the first kept one to the last, scrubbed ones included."""
        return int(self.times[-1]) + 1

    @cached_property
    def bins(self) -> np.ndarray:
        """The numbers k of the frequencies k / (count x tr_s) within the band, (bins,) int, without 0."""
        k = np.arange(1, self.count // 2 + 1)
        hertz = k / (self.count * self.tr_s)
        return k[(hertz >= self.band[0] * (1 - ROUNDING)) & (hertz <= self.band[1] * (1 + ROUNDING))]


@dataclass(frozen=True, eq=False)
class Acquisition(Sampling):
    """When and where a scan was measured."""

    mask: np.ndarray  # (x, y, z) bool; the voxels of a series are those of the mask in C order
    affine: np.ndarray  # (4, 4), voxel -> mm in MNI space, in any orientation


@dataclass(frozen=True, eq=False)
class Scan(Acquisition):
    """One scan, or one run of it, as the measures read it."""

    cleaned: np.ndarray  # (kept, voxels) float32: without mean and confounds, not filtered; 0 if it does not vary
    basis: np.ndarray  # (kept, directions) float64, orthonormal: the band, without mean and confounds

    @cached_property
    def coordinates(self) -> np.ndarray:
        """The filtered series in the basis, (voxels, directions) float32. Lengths, angles and correlations are those of
        the filtered series, since it has the mean 0."""
        return self.cleaned.T @ self.basis.astype(np.float32)

    @cached_property
    def points(self) -> np.ndarray:
        """The coordinates at length 1, whose products are correlations, (voxels, directions) float32; 0 for a voxel
        that does not vary in the band."""
        length = np.linalg.norm(self.coordinates, axis=1)
        varies = length > ROUNDING * np.sqrt(np.einsum("tv,tv->v", self.cleaned, self.cleaned))
        return self.coordinates * (varies / np.where(varies, length, 1))[:, None].astype(np.float32)

    @property
    def filtered(self) -> np.ndarray:
        """The cleaned series in the band, (kept, voxels) float32, mean 0; made anew each time."""
        return self.basis.astype(np.float32) @ self.coordinates.T

    @cached_property
    def amplitudes(self) -> Amplitudes:
        return amplitudes(self.cleaned, self.times, self.bins)

    @cached_property
    def neighbours(self) -> centrality.Products:
        """Sums over the voxels whose correlation is above the threshold, the voxel itself included."""
        return centrality.products(self.points, np.ones(len(self.points)))


def scan_of(series: np.ndarray, acquisition: Acquisition, confounds: np.ndarray | None = None) -> Scan:
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
    if not acquisition.kept.any():
        raise InputError("All volumes are scrubbed; expected some that are kept. Scrub less, or move the scan away.")
    regressors = unit_regressors(confounds, acquisition)
    basis = band_basis(acquisition, regressors)
    cleaned = residuals(series, acquisition.kept, regressors)
    if not cleaned.any():
        raise InputError("The scan does not vary within its mask; expected signals. Check the scan and its mask.")
    if not LEAST_CHANGE <= (change := float(np.abs(cleaned).max())) <= MOST_CHANGE:
        raise InputError(
            f"The scan varies by {change:.1g}; expected {LEAST_CHANGE:g} to {MOST_CHANGE:g}, of whose squares sums are "
            "exact. Was it scaled by mistake? Check scl_slope in its header."
        )
    of = acquisition
    return Scan(of.kept, of.tr_s, of.band, of.mask, of.affine, cleaned, basis)


def unit_regressors(confounds: np.ndarray | None, sampling: Sampling) -> np.ndarray:
    """Orthonormal directions (kept, regressors) float64 of the constant and of the confounds on the kept volumes."""
    constant = np.full((len(sampling.times), 1), len(sampling.times) ** -0.5)
    if confounds is None:
        return constant
    values = kept_confounds(confounds, sampling.kept)
    size = np.linalg.norm(values, axis=0)
    values = values - values.mean(0)
    length = np.linalg.norm(values, axis=0)
    varies = length > ROUNDING * size
    return np.hstack([constant, directions(values[:, varies] / length[varies])])


def kept_confounds(confounds: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Confounds (volumes, regressors) of the kept volumes, float64. Raises InputError if rows are missing,
    UnsuitedError if values are."""
    if len(confounds) != len(kept):
        raise InputError(
            f"The confounds have {len(confounds)} rows, the scan has {len(kept)} volumes; expected a row for each "
            "volume. Take the table of this scan."
        )
    values = np.array(confounds, np.float64)
    values[:1] = np.where(np.isnan(values[:1]), values[1:2], values[:1])
    if not np.isfinite(values[kept]).all():
        raise UnsuitedError("The confounds lack a value after the first row; expected numbers.")
    return values[kept]


def directions(columns: np.ndarray, least: float = ROUNDING) -> np.ndarray:
    """An orthonormal basis (rows, rank) of columns (rows, columns) of a length near 1. Directions whose singular values
    are below the least follow from the others, and are left out."""
    left, size, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, size > least]


def band_basis(sampling: Sampling, regressors: np.ndarray) -> np.ndarray:
    """An orthonormal basis (kept, directions) float64 of the band on the kept volumes, without the filtered regressors.

    Sinusoids lose their mean over the kept volumes, as if a constant were fitted with them. What the basis spans is
    orthogonal to the regressors themselves, too. For b in the band and a regressor z, filtered Pz: b . z = b . Pz = 0.
    Raises InputError if the band has no frequency, UnsuitedError if too few directions are left."""
    sinusoids = sinusoids_of(sampling)
    in_band = directions(sinusoids - sinusoids.mean(0), ON_KEPT**0.5)
    left, size, _ = np.linalg.svd(in_band.T @ regressors)
    basis = in_band @ left[:, int((size > ROUNDING).sum()) :]
    if basis.shape[1] < LEAST_DIRECTIONS:
        raise UnsuitedError(
            f"{len(basis)} kept volumes with {regressors.shape[1] - 1} confounds leave {basis.shape[1]} degrees of "
            f"freedom in {sampling.band[0]:g}-{sampling.band[1]:g} Hz; expected {LEAST_DIRECTIONS} at least."
        )
    return basis


def sinusoids_of(sampling: Sampling) -> np.ndarray:
    """The sinusoids of the band at the kept volumes, (kept, sinusoids). Raises InputError if there are none, or the
    band ends above the highest frequency of the scan. Raises UnsuitedError if they are as many as kept volumes, since
    they would then fit whatever these hold."""
    low, high = sampling.band
    if high * 2 * sampling.tr_s > 1 + ROUNDING:
        raise InputError(
            f"{low:g}-{high:g} Hz ends above the highest frequency of a scan of {sampling.tr_s:g} s a volume, "
            f"{0.5 / sampling.tr_s:g} Hz; expected a band below it. Choose one with --band."
        )
    sinusoids = sinusoids_at(sampling.times, sampling.bins, sampling.count)
    if not sinusoids.size:
        raise InputError(
            f"{sampling.count} volumes of {sampling.tr_s:g} s have no frequency in {low:g}-{high:g} Hz; expected "
            "one at least. Take a wider --band, for all in another folder, or move the scan away."
        )
    if len(sinusoids) < min(sinusoids.shape[1] + 1, sampling.count):
        raise UnsuitedError(
            f"{len(sinusoids)} of {sampling.count} volumes are kept; expected more than the {sinusoids.shape[1]} "
            f"sinusoids in {low:g}-{high:g} Hz."
        )
    return sinusoids


def residuals(series: np.ndarray, kept: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    """What regression on orthonormal regressors (kept, regressors) leaves of a series (volumes, voxels), (kept, voxels)
    float32; 0 where that is an error of rounding. Raises InputError if values are missing."""
    left, missing = np.empty((len(regressors), series.shape[1]), np.float32), 0
    for start in range(0, series.shape[1], BLOCK):
        block = series[kept, start : start + BLOCK].astype(np.float64)
        missing += int((~np.isfinite(block)).any(0).sum())
        size = np.linalg.norm(block, axis=0)
        block -= regressors @ (regressors.T @ block)
        left[:, start : start + BLOCK] = np.where(np.linalg.norm(block, axis=0) > ROUNDING * size, block, 0)
    if missing:
        raise InputError(
            f"{missing:,} of {series.shape[1]:,} voxels of the mask hold no number in some volume; expected numbers. "
            "Take these voxels out of the mask."
        )
    return left


def sinusoids_at(times: np.ndarray, bins: np.ndarray, count: int) -> np.ndarray:
    """Cosines and sines (times, 2 x bins) at the frequencies bins / count per volume; of length 1 each if `times` are
    all `count` volumes."""
    angles = 2 * np.pi / count * np.outer(times, bins)
    return np.hstack([np.cos(angles), np.sin(angles)]) * np.sqrt(np.tile(np.where(2 * bins == count, 1, 2), 2) / count)


def fits(times: np.ndarray) -> np.ndarray:
    """Rows (2, frequencies, times). Their products with a series are the cosine's and the sine's share of its
    amplitudes, see `Amplitudes`, at the frequencies k / volumes, k = 1, 2, ...

    A constant is fitted, too (Zechmeister and Kürster 2009, doi:10.1051/0004-6361:200811296). Scargle's shift of time
    makes cosine and sine orthogonal at the times, so that each is fitted alone."""
    count = int(times[-1]) + 1
    k = np.arange(1, count // 2 + 1)
    waves = np.exp(2j * np.pi / count * np.outer(k, times))
    waves -= waves.mean(1, keepdims=True)
    waves *= np.exp(-0.5j * np.angle((waves**2).sum(1, keepdims=True)))
    waves = np.stack([waves.real, waves.imag])
    power = (waves**2).sum(-1, keepdims=True)
    weights = np.where(2 * k == count, 1, 0.5)[:, None]  # two frequencies of the FFT, k and -k, share an amplitude
    return np.where(power > NO_POWER * len(times), weights * waves / np.maximum(power, NO_POWER), 0)


def amplitudes(cleaned: np.ndarray, times: np.ndarray, bins: np.ndarray) -> Amplitudes:
    """Of a series (times, voxels) float32 at these times in volumes, the first one 0; `bins` are the k in the band."""
    rows = fits(times).astype(np.float32)
    sums = np.empty((2, cleaned.shape[1]), np.float32)
    for start in range(0, cleaned.shape[1], BLOCK):
        parts = rows @ cleaned[:, start : start + BLOCK]
        of_each = np.sqrt((parts**2).sum(0))
        sums[:, start : start + BLOCK] = of_each[bins - 1].sum(0), of_each.sum(0)
    return Amplitudes(*sums)
