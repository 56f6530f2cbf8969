"""Amplitudes against NumPy's FFT, SciPy's Lomb-Scargle and closed forms."""

import numpy as np
import pytest
from scipy.signal import lombscargle

from data.derivation import spectra

COUNT = 120
BINS = np.arange(3, 25)  # 0.0125 to 0.1 Hz at 2 s


def centred(series):
    return (series - series.mean(0)).astype(np.float32)


def white(times, voxels=40, seed=0):
    return centred(np.random.default_rng(seed).normal(size=(times, voxels)))


@pytest.mark.parametrize("count", [120, 121])
def test_without_scrubbing_amplitudes_are_those_of_the_fft(count):
    series = white(count)
    series += np.cos(np.pi * np.arange(count))[:, None].astype(np.float32)  # half the sampling rate
    series = centred(series)
    amplitude = np.abs(np.fft.rfft(series.astype(float), axis=0))
    of = spectra.amplitudes(series, np.arange(count), BINS)
    np.testing.assert_allclose(spectra.alff(of), amplitude[BINS].sum(0) / count, rtol=1e-6)
    np.testing.assert_allclose(spectra.falff(of), amplitude[BINS].sum(0) / amplitude[1:].sum(0), rtol=1e-6)


def test_with_scrubbing_amplitudes_are_those_of_lomb_scargle():
    kept = np.random.default_rng(1).random(COUNT) > 0.3
    kept[[0, -1]] = True
    times = np.flatnonzero(kept)
    series = white(len(times), 1)
    found = np.sqrt(((spectra.fits(times) @ series[:, 0].astype(float)) ** 2).sum(0))
    angular = 2 * np.pi * np.arange(1, COUNT // 2 + 1) / COUNT
    given = times.astype(float), series[:, 0].astype(float)
    expected = np.abs(lombscargle(*given, angular, normalize="amplitude", floating_mean=True))
    np.testing.assert_allclose(found[:-1], expected[:-1] / 2, rtol=1e-6)
    at_nyquist = np.polyfit(np.cos(np.pi * times), series[:, 0], 1)[0]  # where SciPy also fits a sine, which is 0
    np.testing.assert_allclose(found[-1], abs(at_nyquist), rtol=1e-6)


@pytest.mark.parametrize("share", [0, 0.2, 0.4])
def test_scrubbing_leaves_the_amplitude_of_a_sine(share):
    kept = np.random.default_rng(2).random(COUNT) >= share
    kept[[0, -1]] = True
    times = np.flatnonzero(kept)
    wave = 100 + 3 * np.sin(2 * np.pi * 10 * times / COUNT + 0.7)
    found = np.sqrt(((spectra.fits(times) @ wave) ** 2).sum(0))
    assert found[9] == pytest.approx(1.5)  # |FFT| / volumes is half of the amplitude
    if not share:
        assert found.sum() == pytest.approx(1.5)


def test_a_mixture_has_the_shares_of_its_sines():
    times = np.arange(COUNT)
    series = sum(height * np.sin(2 * np.pi * k * times / COUNT + k) for k, height in ((5, 2), (20, 1), (40, 3)))
    of = spectra.amplitudes(centred(series[:, None]), times, BINS)
    assert spectra.alff(of)[0] == pytest.approx(1.5, rel=1e-5)
    assert spectra.falff(of)[0] == pytest.approx(0.5, rel=1e-5)


def test_white_noise_has_the_band_s_share_of_the_frequencies():
    of = spectra.amplitudes(white(COUNT, 4000), np.arange(COUNT), BINS)
    nyquist = np.sqrt(2 / np.pi) / np.sqrt(np.pi / 4)  # mean of a normal amplitude by that of a Rayleigh one
    assert spectra.falff(of).mean() == pytest.approx(len(BINS) / (COUNT / 2 - 1 + nyquist), abs=1e-3)
    assert spectra.alff(of).mean() == pytest.approx(len(BINS) * np.sqrt(np.pi / 4 / COUNT), rel=5e-3)


def test_a_voxel_that_does_not_vary_is_0():
    of = spectra.amplitudes(np.zeros((COUNT, 2), np.float32), np.arange(COUNT), BINS)
    assert not spectra.alff(of).any()
    assert not spectra.falff(of).any()
