"""Cleaned series -> fALFF and ALFF, from the amplitudes of sinusoids at the frequencies of the FFT.

Some volumes may be scrubbed: then an amplitude is that of the least-squares fit of a sinusoid to the others, as in the
periodogram of Lomb (1976) and Scargle (1982). Without scrubbing it is that of the FFT.
"""

from typing import NamedTuple

import numpy as np

NO_POWER = 1e-9  # of a sine or cosine at the kept volumes, such as the sine at half the sampling rate
BLOCK = 4096  # voxels at a time


class Amplitudes(NamedTuple):
    """Sums of amplitudes of each voxel over frequencies, (voxels,) float32; an amplitude is |FFT| / volumes."""

    in_band: np.ndarray
    above_zero: np.ndarray


def sinusoids(times: np.ndarray, bins: np.ndarray, count: int) -> np.ndarray:
    """Cosines and sines (times, 2 x bins) at the frequencies bins / count per volume; of length 1 each if `times` are
    all `count` volumes."""
    angles = 2 * np.pi / count * np.outer(times, bins)
    return np.hstack([np.cos(angles), np.sin(angles)]) * np.sqrt(np.tile(np.where(2 * bins == count, 1, 2), 2) / count)


def fits(times: np.ndarray) -> np.ndarray:
    """Rows (2, frequencies, times) whose products with a series are the cosine's and the sine's share of its amplitudes
    at the frequencies k / volumes, k = 1, 2, ..., in the sense of `Amplitudes`.

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


def alff(of: Amplitudes) -> np.ndarray:
    """Amplitude of low-frequency fluctuation: the sum of |FFT| over the band, divided by the number of volumes,
    (voxels,) float32 in units of the series (Zang et al. 2007, doi:10.1016/j.braindev.2006.07.002)."""
    return of.in_band


def falff(of: Amplitudes) -> np.ndarray:
    """Fractional ALFF: the sum over the band as a share of the sum over all frequencies above 0, (voxels,) float32;
    0 where the series does not vary (Zou et al. 2008, doi:10.1016/j.jneumeth.2008.04.012)."""
    return of.in_band / np.where(of.above_zero > 0, of.above_zero, np.float32(1))
