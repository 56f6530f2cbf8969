"""Grids: shapes, affines, and the place of reduced voxels among full-size ones."""

import numpy as np

from data.cohorts.records import FULL, REDUCED


def test_affines_are_those_of_the_contract():
    assert np.array_equal(FULL.affine, [[2, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    assert np.array_equal(REDUCED.affine, [[6, 0, 0, -90], [0, 6, 0, -126], [0, 0, 6, -72], [0, 0, 0, 1]])
    assert (str(FULL), str(REDUCED)) == ("91x109x91", "31x37x31")


def test_reduced_voxel_i_is_centred_on_full_size_voxel_3i():
    for index in ([0, 0, 0, 1], [30, 36, 30, 1], [4, 9, 2, 1]):
        full_index = np.array(index) * [3, 3, 3, 1]
        assert np.array_equal(np.array(REDUCED.affine) @ index, np.array(FULL.affine) @ full_index)
