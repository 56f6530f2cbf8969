"""Dual regression against least squares by NumPy; means of parcels against a loop."""

import numpy as np
import pytest

from data.base.errors import InputError
from data.derivation.cleaning import Acquisition, scan_of
from data.derivation.networks import dual_regression, parcel_series

SHAPE = (6, 5, 4)


def drawn(networks=3, volumes=100):
    """A scan with planted networks, whose time courses are sines, and their maps, of length 1 in each voxel."""
    random = np.random.default_rng(0)
    mask = random.random(SHAPE) > 0.1
    maps = random.gamma(1, size=(*SHAPE, networks))
    maps /= np.linalg.norm(maps, axis=-1, keepdims=True)
    angles = 2 * np.pi * np.outer(np.arange(volumes), 3 + 2 * np.arange(networks)) / volumes
    series = np.sin(angles) @ maps[mask].T + 0.01 * random.normal(size=(volumes, mask.sum()))
    series[:, 4] = 7
    acquisition = Acquisition(mask, np.eye(4), np.ones(volumes, bool), 2.0, (0.01, 0.1))
    return scan_of(series.astype(np.float32), acquisition), maps


def test_dual_regression_is_two_regressions():
    scan, maps = drawn()
    varies = np.arange(scan.mask.sum()) != 4
    series = scan.filtered[:, varies].astype(float)
    series /= series.std(0)
    design = np.column_stack([np.ones(varies.sum()), maps[scan.mask][varies]])
    courses = np.linalg.lstsq(design, series.T, rcond=None)[0][1:].T
    expected = np.linalg.lstsq(courses / courses.std(0), series, rcond=None)[0].T
    found = dual_regression(scan, maps)
    np.testing.assert_allclose(found[varies], expected, atol=1e-4)
    assert not found[4].any()
    assert found.dtype == np.float32


def test_planted_networks_are_found():
    scan, maps = drawn()
    found = dual_regression(scan, maps)
    np.testing.assert_allclose(np.delete(found - maps[scan.mask], 4, axis=0), 0, atol=0.02)


@pytest.mark.parametrize("value", [1, np.nan, "copy"])
def test_networks_that_do_not_differ_are_refused(value):
    scan, maps = drawn()
    maps[..., 2] = 2 * maps[..., 0] + 3 if value == "copy" else value
    with pytest.raises(InputError, match="The 3 maps of networks do not differ within the scan's mask"):
        dual_regression(scan, maps)


def test_more_networks_than_degrees_of_freedom_are_refused():
    scan, _ = drawn(volumes=20)
    with pytest.raises(InputError, match="has 8 degrees of freedom in the band; expected one for each of 9 networks"):
        dual_regression(scan, np.random.default_rng(0).random((*SHAPE, 9)))


def test_parcels_have_the_mean_of_their_filtered_series():
    scan, _ = drawn()
    labels = np.random.default_rng(1).choice([0, 2, 3, 7, 9], SHAPE)
    labels[scan.mask & (labels == 7)] = 0
    labels[~scan.mask] = 7
    found = parcel_series(scan, labels)
    assert found.shape == (100, 4)
    assert np.isnan(found[:, 2]).all()
    for column, number in ((0, 2), (1, 3), (3, 9)):
        expected = scan.filtered[:, labels[scan.mask] == number].mean(1, dtype=float)
        np.testing.assert_allclose(found[:, column], expected, atol=1e-5)
