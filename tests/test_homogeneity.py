"""ReHo against Kendall's W by SciPy's Friedman test, voxel by voxel."""

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from data.derivation import homogeneity

TIMES = 30


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


def masked():
    mask = np.random.default_rng(0).random((7, 6, 8)) > 0.25
    mask[:2] = mask[:, :, 7] = False  # the brain does not fill the grid
    return mask


def test_w_is_that_of_scipy(monkeypatch):
    monkeypatch.setattr(homogeneity, "BLOCK", 50)
    monkeypatch.setattr(homogeneity, "VOLUMES", 7)
    mask, random = masked(), np.random.default_rng(1)
    points = random.normal(size=(mask.sum(), 5)) + random.normal(size=5)
    basis = np.linalg.qr(random.normal(size=(TIMES, 5)))[0]
    points[3] = 0
    found = homogeneity.reho(basis, points.astype(np.float32), mask)
    expected = brute_force(points @ basis.T, mask)
    assert 0 < np.count_nonzero(expected) < len(expected) - 1  # some have fewer than 9 voxels
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_series_that_are_alike_give_1_and_random_ones_1_of_k():
    mask = np.ones((8, 8, 8), bool)
    random = np.random.default_rng(2)
    basis = np.eye(200)
    alike = np.tile(random.normal(size=200), (512, 1)).astype(np.float32)
    np.testing.assert_allclose(homogeneity.reho(basis, alike, mask)[mask[mask]].reshape(mask.shape)[1:-1], 1, rtol=1e-6)
    apart = homogeneity.reho(basis, random.normal(size=(512, 200)).astype(np.float32), mask).reshape(mask.shape)
    assert apart[1:-1, 1:-1, 1:-1].mean() == pytest.approx(1 / 27, rel=0.02)


def test_ties_take_their_average_rank():
    ranks = homogeneity.centred_ranks(np.eye(4), np.array([[1, 2, 2, 5], [3, 3, 3, 3]], np.float32))
    np.testing.assert_array_equal(ranks.T, [[-1.5, 0, 0, 1.5], [0, 0, 0, 0]])
