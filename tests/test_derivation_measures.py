"""The measures of a scan against independent ones: SciPy's Friedman test, least squares by NumPy, loops over voxels."""

import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from scipy.spatial.transform import Rotation
from scipy.stats import friedmanchisquare

from data.base.errors import InputError
from data.conversion.layouts import KNOWN_MAPS
from data.derivation import measures
from data.derivation.cleaning import Acquisition, scan_of
from data.derivation.measures import MEASURES, centred_ranks, dual_regression, parcel_series, reho, smoothed, vmhc

TIMES = 30
SHAPE = (6, 5, 4)
AFFINES = {
    "radiological": from_matvec(np.diag([-3.0, 3, 3]), [9, -9, -6]),
    "neurological, not centred": from_matvec(np.diag([2.0, 3, 4]), [-6.6, 0, 0]),
    "axes in another order": from_matvec([[0, 0, 3.0], [3, 0, 0], [0, -3, 0]], [-7.5, 0, 0]),
    "oblique": from_matvec(Rotation.from_euler("xyz", [9, 14, 20], degrees=True).as_matrix() * 3, [-8, -10, -3]),
}


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


def test_convert_finds_each_map_that_derive_makes():
    assert {*MEASURES, "dual_regression"} <= {*KNOWN_MAPS}


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


# ReHo


def brute_force(series, mask):
    """W by a loop over voxels: the Friedman statistic over K (times - 1)."""
    volume = np.full((*mask.shape, TIMES), np.nan)
    volume[mask] = series
    found = []
    for x, y, z in np.argwhere(mask):
        around = volume[max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2, max(z - 1, 0) : z + 2].reshape(-1, TIMES)
        around = around[np.isfinite(around[:, 0]) & (np.ptp(around, axis=1) > 0)]
        whole = len(around) >= 9 and np.ptp(volume[x, y, z]) > 0
        found.append(friedmanchisquare(*around.T).statistic / len(around) / (TIMES - 1) if whole else 0)
    return found


def grid_with_holes():
    mask = np.random.default_rng(0).random((7, 6, 8)) > 0.25
    mask[:2] = mask[:, :, 7] = False  # the brain does not fill the grid
    return mask


def test_w_is_that_of_scipy(monkeypatch):
    monkeypatch.setattr(measures, "BLOCK", 50)
    monkeypatch.setattr(measures, "VOLUMES", 7)
    mask, random = grid_with_holes(), np.random.default_rng(1)
    points = random.normal(size=(mask.sum(), 5)) + random.normal(size=5)
    basis = np.linalg.qr(random.normal(size=(TIMES, 5)))[0]
    points[3] = 0
    found = reho(basis, points.astype(np.float32), mask)
    expected = brute_force(points @ basis.T, mask)
    assert 0 < np.count_nonzero(expected) < len(expected) - 1  # some have fewer than 9 voxels
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_series_that_are_alike_give_1_and_random_ones_1_of_k():
    mask = np.ones((8, 8, 8), bool)
    random = np.random.default_rng(2)
    basis = np.eye(200)
    alike = np.tile(random.normal(size=200), (512, 1)).astype(np.float32)
    np.testing.assert_allclose(reho(basis, alike, mask)[mask[mask]].reshape(mask.shape)[1:-1], 1, rtol=1e-6)
    apart = reho(basis, random.normal(size=(512, 200)).astype(np.float32), mask).reshape(mask.shape)
    assert apart[1:-1, 1:-1, 1:-1].mean() == pytest.approx(1 / 27, rel=0.02)


def test_ties_take_their_average_rank():
    ranks = centred_ranks(np.eye(4), np.array([[1, 2, 2, 5], [3, 3, 3, 3]], np.float32))
    np.testing.assert_array_equal(ranks.T, [[-1.5, 0, 0, 1.5], [0, 0, 0, 0]])


# VMHC


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_vmhc_is_that_of_a_loop(affine):
    random = np.random.default_rng(0)
    mask = random.random((7, 6, 5)) > 0.2
    points = random.normal(size=(mask.sum(), 30)) + random.normal(size=30)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    places = np.argwhere(mask)
    every = np.argwhere(np.ones(mask.shape, bool))
    found = vmhc(points.astype(np.float32), mask, affine)
    for value, point, place in zip(found, points, places, strict=True):
        mirror = apply_affine(np.linalg.inv(affine), apply_affine(affine, place) * [-1, 1, 1])
        nearest = every[np.linalg.norm(every - mirror, axis=1).argmin()]
        is_inside = np.abs(nearest - mirror).max() <= 0.5 and mask[tuple(nearest)]
        r = point @ points[(places == nearest).all(1)][0] if is_inside else 0
        assert value == pytest.approx(np.arctanh(min(r, 0.999)), abs=1e-5)
    assert np.count_nonzero(found)


def test_a_voxel_on_the_midline_has_the_largest_value():
    mask = np.ones((3, 1, 1), bool)
    points = np.eye(3, dtype=np.float32)
    points[2] = points[0]
    found = vmhc(points, mask, from_matvec(np.eye(3), [-1, 0, 0]))
    np.testing.assert_allclose(found, np.arctanh(0.999), rtol=1e-4)
    assert not vmhc(points, mask, np.eye(4))[1:].any()  # x = 1 and 2 mm have no mirror image


# Dual regression, and series of parcels


def with_networks(networks=3, volumes=100):
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
    scan, maps = with_networks()
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
    scan, maps = with_networks()
    found = dual_regression(scan, maps)
    np.testing.assert_allclose(np.delete(found - maps[scan.mask], 4, axis=0), 0, atol=0.02)


@pytest.mark.parametrize("value", [1, np.nan, "copy"])
def test_networks_that_do_not_differ_are_refused(value):
    scan, maps = with_networks()
    maps[..., 2] = 2 * maps[..., 0] + 3 if value == "copy" else value
    with pytest.raises(InputError, match="The 3 maps of networks do not differ within the scan's mask"):
        dual_regression(scan, maps)


def test_more_networks_than_degrees_of_freedom_are_refused():
    scan, _ = with_networks(volumes=20)
    with pytest.raises(InputError, match="has 8 degrees of freedom in the band; expected one for each of 9 networks"):
        dual_regression(scan, np.random.default_rng(0).random((*SHAPE, 9)))


def test_parcels_have_the_mean_of_their_filtered_series():
    scan, _ = with_networks()
    labels = np.random.default_rng(1).choice([0, 2, 3, 7, 9], SHAPE)
    labels[scan.mask & (labels == 7)] = 0
    labels[~scan.mask] = 7
    found = parcel_series(scan, labels)
    assert found.shape == (100, 4)
    assert np.isnan(found[:, 2]).all()
    for column, number in ((0, 2), (1, 3), (3, 9)):
        expected = scan.filtered[:, labels[scan.mask] == number].mean(1, dtype=float)
        np.testing.assert_allclose(found[:, column], expected, atol=1e-5)
