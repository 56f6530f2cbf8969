"""The table of measures on one scan, and smoothing within the mask."""

import numpy as np
import pytest
from nibabel.affines import from_matvec

from data.derivation.cleaning import Acquisition, scan_of
from data.derivation.measures import MEASURES, smoothed


@pytest.fixture(scope="module")
def scan():
    random = np.random.default_rng(0)
    mask = random.random((6, 7, 5)) > 0.1
    series = random.normal(1000, 10, (80, mask.sum())).astype(np.float32)
    series[:, 7] = 1000
    kept = random.random(80) > 0.1
    return scan_of(series, Acquisition(mask, from_matvec(np.diag([3.0, 3, 3]), [-7.5, 0, 0]), kept, 2.0, (0.01, 0.1)))


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_has_a_number_for_each_voxel(name, scan):
    values = MEASURES[name](scan)
    assert (values.shape, values.dtype) == ((scan.mask.sum(),), np.float32)
    assert np.isfinite(values).all()
    assert values.std() > 0
    assert values[7] == 0  # which does not vary


def test_smoothing_has_the_width_that_is_asked_for():
    volume = np.zeros((41, 41, 41))
    volume[20, 20, 20] = 1
    found = smoothed(volume, np.ones(volume.shape, bool), np.diag([2.0, 1, 3, 1]), 6)
    assert found[20, 23, 20] / found[20, 20, 20] == pytest.approx(0.5, rel=1e-5)  # 3 mm
    assert found[21, 20, 20] / found[20, 20, 20] == pytest.approx(0.5 ** (4 / 9), rel=1e-5)  # 2 mm
    assert found.sum() == pytest.approx(1, rel=1e-3)


def test_smoothing_keeps_to_the_mask():
    mask = np.random.default_rng(0).random((12, 12, 12)) > 0.3
    volume = np.where(mask, 5.0, 999.0)
    np.testing.assert_allclose(smoothed(volume, mask, np.eye(4), 4), np.where(mask, 5, 0), rtol=1e-6)
