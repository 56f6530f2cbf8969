"""VMHC against a loop over voxels, on grids of any orientation."""

import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from scipy.spatial.transform import Rotation

from data.derivation.symmetry import vmhc

AFFINES = {
    "radiological": from_matvec(np.diag([-3.0, 3, 3]), [9, -9, -6]),
    "neurological, not centred": from_matvec(np.diag([2.0, 3, 4]), [-6.6, 0, 0]),
    "axes in another order": from_matvec([[0, 0, 3.0], [3, 0, 0], [0, -3, 0]], [-7.5, 0, 0]),
    "oblique": from_matvec(Rotation.from_euler("xyz", [9, 14, 20], degrees=True).as_matrix() * 3, [-8, -10, -3]),
}


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
