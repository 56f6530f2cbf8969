"""Degree and eigenvector centrality against NumPy's correlations and SciPy's eigenvectors of a whole matrix."""

import numpy as np
import pytest
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from data.derivation import centrality

KINDS = ("weighted", "binarize")


def drawn(voxels=130, seed=0):
    """Points of length 1 with common causes, one of them 0, and their correlations above 0.25 (voxels, voxels)."""
    random = np.random.default_rng(seed)
    series = random.normal(size=(voxels, 40)) + random.normal(size=(voxels, 3)) @ random.normal(size=(3, 40))
    series -= series.mean(1, keepdims=True)
    points = series / np.linalg.norm(series, axis=1, keepdims=True)
    r = np.corrcoef(series)
    points[5], r[5], r[:, 5] = 0, 0, 0
    weighted = np.where(r > 0.25, r, 0)
    return points.astype(np.float32), {"weighted": weighted, "binarize": (weighted > 0).astype(float)}


@pytest.mark.parametrize("block", [384, 64, 37])
@pytest.mark.parametrize("threads", [1, 2])
def test_products_are_those_of_the_whole_matrix(block, threads, monkeypatch):
    monkeypatch.setattr(centrality, "BLOCK", block)
    points, matrices = drawn()
    vector = np.random.default_rng(1).random(len(points))
    with threadpool_limits(threads, "blas"):
        found = centrality.products(points, vector)
    for kind in KINDS:
        np.testing.assert_allclose(getattr(found, kind), matrices[kind] @ vector, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_degree_is_over_all_others(kind):
    points, matrices = drawn()
    matrix = matrices[kind]
    sums = getattr(centrality.products(points, np.ones(len(points))), kind)
    np.testing.assert_allclose(centrality.degree(sums, points), matrix.sum(1) - np.diag(matrix), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_eigenvector_is_scipy_s(kind):
    points, matrices = drawn()
    found = centrality.eigenvector(points, kind, np.ones(len(points)))
    expected = np.abs(eigh(matrices[kind])[1][:, -1])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1)


def test_eigenvector_takes_few_products(monkeypatch):
    points, _ = drawn(400, seed=2)
    taken, products = [], centrality.products
    monkeypatch.setattr(centrality, "products", lambda *given: taken.append(1) or products(*given))
    centrality.eigenvector(points, "weighted", products(points, np.ones(400)).weighted)
    assert len(taken) <= 12


@pytest.mark.parametrize("kind", KINDS)
def test_voxels_without_neighbours_are_alike(kind):
    points = np.vstack([np.eye(6), np.zeros(6)]).astype(np.float32)
    sums = getattr(centrality.products(points, np.ones(7)), kind)
    np.testing.assert_array_equal(centrality.degree(sums, points), 0)
    expected = [*[6**-0.5] * 6, 0]
    np.testing.assert_allclose(centrality.eigenvector(points, kind, sums), expected, atol=1e-6)


def test_a_scan_that_does_not_vary_is_0():
    points = np.zeros((20, 6), np.float32)
    assert not centrality.eigenvector(points, "weighted", np.zeros(20)).any()
