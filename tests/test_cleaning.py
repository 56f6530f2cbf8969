"""Cleaning of a scan: the filter against the FFT, confounds against a regression, scrubbing, and what is refused;
amplitudes against NumPy's FFT, SciPy's Lomb-Scargle and closed forms."""

from typing import Any

import numpy as np
import pytest
from scipy.signal import lombscargle

from data.base.errors import InputError
from data.derivation.cleaning import Acquisition, clean_scan, make_amplitude_weights, sum_amplitudes
from data.derivation.measures import compute_alff, compute_falff

BAND_HZ = (0.01, 0.1)
SHAPE = (4, 5, 3)


def acquisition(retained_volumes, tr_s=2.0, band=BAND_HZ):
    retained_volumes = np.ones(retained_volumes, bool) if isinstance(retained_volumes, int) else retained_volumes
    return Acquisition(retained_volumes, tr_s, band, np.ones(SHAPE, bool), np.diag([3.0, 3, 3, 1]))


def noise(volumes, voxels=60, seed=0):
    return np.random.default_rng(seed).normal(1000, 10, (volumes, voxels)).astype(np.float32)


def fft_filtered(series, tr_s, band):
    spectrum, hertz = np.fft.rfft(series.astype(float), axis=0), np.fft.rfftfreq(len(series), tr_s)
    spectrum[(hertz < band[0]) | (hertz > band[1])] = 0
    return np.fft.irfft(spectrum, len(series), axis=0)


def make_scrub_mask(volumes=120):
    is_retained = np.random.default_rng(3).random(volumes) > 0.25
    is_retained[[0, 1, -1, 60, 61, 62, 63, 64]] = False
    return is_retained


@pytest.mark.parametrize(
    ("volumes", "tr_s", "band"), [(100, 2.0, BAND_HZ), (101, 0.8, BAND_HZ), (60, 3.0, (0.02, 0.16))]
)
def test_without_scrubbing_the_filter_equals_the_fft(volumes, tr_s, band):
    series = noise(volumes)
    scan = clean_scan(series, acquisition(volumes, tr_s, band))
    np.testing.assert_allclose(scan.filtered_series, fft_filtered(series, tr_s, band), atol=2e-4)
    np.testing.assert_allclose(scan.cleaned_series, series - series.mean(0, dtype=float), atol=1e-4)


def test_both_band_ends_are_included():
    assert acquisition(50).frequency_indices.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]  # 0.01 Hz apart


@pytest.mark.parametrize("is_retained", [np.ones(120, bool), make_scrub_mask()], ids=["all", "scrubbed"])
def test_confounds_are_filtered_and_regressed_out_together(is_retained):
    series, confounds = noise(120), noise(120, 5, seed=1).astype(float)
    scan = clean_scan(series, acquisition(is_retained), confounds)
    np.testing.assert_allclose(
        scan.cleaned_series.T @ confounds[is_retained], 0, atol=0.2
    )  # of lengths of 100 and 10,000
    np.testing.assert_allclose(scan.filtered_series.T @ confounds[is_retained], 0, atol=0.2)
    np.testing.assert_allclose(scan.filtered_series.mean(0), 0, atol=1e-5)
    times = np.arange(120)[is_retained] - np.argmax(is_retained)
    count = times[-1] + 1
    angles = 2 * np.pi * np.outer(times, [k for k in range(1, count // 2) if 0.01 <= k / count / 2 <= 0.1]) / count
    waves = np.hstack([np.cos(angles), np.sin(angles)])
    waves -= waves.mean(0)
    fit = waves @ np.linalg.pinv(waves)
    filtered, regressors = fit @ series[is_retained].astype(float), fit @ confounds[is_retained]
    expected = filtered - regressors @ np.linalg.pinv(regressors) @ filtered
    np.testing.assert_allclose(scan.filtered_series, expected, atol=2e-3)


def test_a_sine_in_the_band_is_left_as_it_is_by_scrubbing():
    is_retained = make_scrub_mask()
    first, last = np.flatnonzero(is_retained)[[0, -1]]
    angles = 2 * np.pi * 9 * np.arange(120) / (last - first + 1)
    series = np.tile(1000 + 5 * np.sin(angles + 0.4)[:, None], 60).astype(np.float32)
    expected = series[is_retained] - series[is_retained].mean(0, dtype=float)
    np.testing.assert_allclose(clean_scan(series, acquisition(is_retained)).filtered_series, expected, atol=1e-3)


def test_volumes_before_the_first_and_after_the_last_retained_do_not_count():
    series, is_retained = noise(120), np.zeros(120, bool)
    is_retained[4:110] = True
    padded_scan, trimmed_scan = (
        clean_scan(series, acquisition(is_retained)),
        clean_scan(series[4:110], acquisition(106)),
    )
    np.testing.assert_array_equal(padded_scan.filtered_series, trimmed_scan.filtered_series)
    np.testing.assert_array_equal(padded_scan.amplitude_sums, trimmed_scan.amplitude_sums)


def test_a_long_gap_is_not_filled_with_unmeasured_values():
    is_retained = np.ones(200, bool)
    is_retained[60:110] = False
    scan = clean_scan(noise(200), acquisition(is_retained))
    share = scan.band_basis.shape[1] / 150
    assert share == pytest.approx(0.36, abs=0.06)  # of white noise is in the band of 0.09 out of 0.25 Hz


def test_the_first_derivative_row_takes_the_second():
    confounds = noise(120, 3, seed=1).astype(float)
    lacking = confounds.copy()
    lacking[0, 1] = np.nan
    confounds[0, 1] = confounds[1, 1]
    scans = [clean_scan(noise(120), acquisition(120), values) for values in (lacking, confounds)]
    np.testing.assert_array_equal(scans[0].filtered_series, scans[1].filtered_series)


def test_a_constant_voxel_is_0():
    series, confounds = noise(120), noise(120, 2, seed=1).astype(float)
    series[:, 0], series[:, 1] = 1234.5678, 3 * confounds[:, 0]
    series[:, 2] = 1000 + np.cos(np.pi * np.arange(120))  # half the sampling rate
    scan = clean_scan(series, acquisition(120), np.column_stack([confounds, np.full(120, 0.1), confounds]))
    assert scan.unit_series_coordinates[:3].any(1).tolist() == [False, False, False]
    assert not scan.cleaned_series[:, :2].any()
    assert scan.cleaned_series[:, 2].any()


def with_value(values, place, value):
    values = values.copy()
    values[place] = value
    return values


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no voxel": ({"mask": np.zeros(SHAPE, bool)}, {}),
    "All volumes are scrubbed": ({"is_retained": np.zeros(120, bool)}, {}),
    "1 of 60 voxels of the mask hold no number": ({}, {"series": with_value(noise(120), (5, 7), np.nan)}),
    "does not vary within its mask": ({}, {"series": np.full((120, 60), 7.1, np.float32)}),
    "119 rows, the scan has 120 volumes": ({}, {"confounds": np.ones((119, 1))}),
    "lack a value after the first row": ({}, {"confounds": with_value(np.ones((120, 1)), 3, np.nan)}),
    "0.01-5 Hz ends above the highest frequency of a scan of 2 s a volume, 0.25 Hz": ({"band_hz": (0.01, 5)}, {}),
    "no frequency in 0.001-0.002 Hz": ({"band_hz": (0.001, 0.002)}, {}),
    r"\d+ of 120 volumes are kept; expected more than the 44 sinusoids in": (
        {"is_retained": np.arange(120) % 17 % 7 < 1},
        {},
    ),
    "120 kept volumes with 70 confounds leave 0 degrees": ({}, {"confounds": noise(120, 70, seed=1).astype(float)}),
}


@pytest.mark.parametrize("text", REFUSED)
def test_uncleanable_scans_are_refused(text):
    changed_fields, scan_arguments = REFUSED[text]
    fields: dict[str, Any] = {
        "mask": np.ones(SHAPE, bool),
        "affine": np.eye(4),
        "is_retained": np.ones(120, bool),
        "tr_s": 2.0,
        "band_hz": BAND_HZ,
    } | changed_fields
    series = scan_arguments.get("series", noise(120))
    with pytest.raises(InputError, match=text):
        clean_scan(series, Acquisition(**fields), scan_arguments.get("confounds"))


def test_twenty_volumes_are_enough_without_confounds():
    assert clean_scan(noise(20), acquisition(20)).band_basis.shape == (20, 8)


# Amplitudes

COUNT = 120
BINS = np.arange(3, 25)  # 0.0125 to 0.1 Hz at 2 s


def centred(series) -> np.ndarray:
    return (series - series.mean(0)).astype(np.float32)


def white(times, voxels=40, seed=0):
    return centred(np.random.default_rng(seed).normal(size=(times, voxels)))


@pytest.mark.parametrize("count", [120, 121])
def test_without_scrubbing_amplitudes_equal_the_fft(count):
    series = white(count)
    series += np.cos(np.pi * np.arange(count))[:, None].astype(np.float32)  # half the sampling rate
    series = centred(series)
    amplitude = np.abs(np.fft.rfft(series.astype(float), axis=0))
    scan_amplitudes = sum_amplitudes(series, np.arange(count), BINS)
    np.testing.assert_allclose(compute_alff(scan_amplitudes), amplitude[BINS].sum(0) / count, rtol=1e-6)
    np.testing.assert_allclose(compute_falff(scan_amplitudes), amplitude[BINS].sum(0) / amplitude[1:].sum(0), rtol=1e-6)


def test_with_scrubbing_amplitudes_equal_lomb_scargle():
    is_retained = np.random.default_rng(1).random(COUNT) > 0.3
    is_retained[[0, -1]] = True
    times = np.flatnonzero(is_retained)
    series = white(len(times), 1)
    fitted_amplitudes = np.sqrt(((make_amplitude_weights(times) @ series[:, 0].astype(float)) ** 2).sum(0))
    angular = 2 * np.pi * np.arange(1, COUNT // 2 + 1) / COUNT
    samples = times.astype(float), series[:, 0].astype(float)
    expected = np.abs(lombscargle(*samples, angular, normalize="amplitude", floating_mean=True))
    np.testing.assert_allclose(fitted_amplitudes[:-1], expected[:-1] / 2, rtol=1e-6)
    nyquist_amplitude = np.polyfit(np.cos(np.pi * times), series[:, 0], 1)[
        0
    ]  # where SciPy also fits a sine, which is 0
    np.testing.assert_allclose(fitted_amplitudes[-1], abs(nyquist_amplitude), rtol=1e-6)


@pytest.mark.parametrize("share", [0, 0.2, 0.4])
def test_scrubbing_leaves_a_sine_amplitude(share):
    is_retained = np.random.default_rng(2).random(COUNT) >= share
    is_retained[[0, -1]] = True
    times = np.flatnonzero(is_retained)
    wave = 100 + 3 * np.sin(2 * np.pi * 10 * times / COUNT + 0.7)
    fitted_amplitudes = np.sqrt(((make_amplitude_weights(times) @ wave) ** 2).sum(0))
    assert fitted_amplitudes[9] == pytest.approx(1.5)  # |FFT| / volumes is half of the amplitude
    if not share:
        assert fitted_amplitudes.sum() == pytest.approx(1.5)


def test_a_mixture_has_the_fractions_from_the_sines():
    times = np.arange(COUNT)
    sines = [height * np.sin(2 * np.pi * k * times / COUNT + k) for k, height in ((5, 2), (20, 1), (40, 3))]
    series = np.sum(sines, axis=0)
    scan_amplitudes = sum_amplitudes(centred(series[:, None]), times, BINS)
    assert compute_alff(scan_amplitudes)[0] == pytest.approx(1.5, rel=1e-5)
    assert compute_falff(scan_amplitudes)[0] == pytest.approx(0.5, rel=1e-5)


def test_white_noise_has_the_band_fraction_among_frequencies():
    scan_amplitudes = sum_amplitudes(white(COUNT, 4000), np.arange(COUNT), BINS)
    nyquist = np.sqrt(2 / np.pi) / np.sqrt(np.pi / 4)  # mean of a normal amplitude by that of a Rayleigh one
    assert compute_falff(scan_amplitudes).mean() == pytest.approx(len(BINS) / (COUNT / 2 - 1 + nyquist), abs=1e-3)
    assert compute_alff(scan_amplitudes).mean() == pytest.approx(len(BINS) * np.sqrt(np.pi / 4 / COUNT), rel=5e-3)
