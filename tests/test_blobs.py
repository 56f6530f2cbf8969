"""Random blobs: size, connection and place, by SciPy's labels."""

import numpy as np
from scipy import ndimage

from utils.blackout.blobs import random_blobs


def test_blobs_are_connected_inside_and_of_the_size_asked_for():
    inside = ndimage.binary_dilation(np.pad(np.ones((4, 5, 6), bool), 3), iterations=1)
    inside[5, 5, 5] = False
    sizes = [1, 7, 40, 90]
    blobs = random_blobs(inside, sizes, seed=0)
    for blob, size in zip(blobs, sizes, strict=True):
        assert blob.sum() == size and not (blob & ~inside).any()
        assert ndimage.label(blob)[1] == 1
    again = random_blobs(inside, sizes, seed=0)
    assert all((blob == other).all() for blob, other in zip(blobs, again, strict=True))


def test_a_size_without_a_connected_place_has_no_blob():
    """Two parts of 8 and 27 voxels: 27 always finds the larger part, 28 nothing, though 35 voxels are free."""
    inside = np.zeros((9, 9, 9), bool)
    inside[:2, :2, :2], inside[4:7, 4:7, 4:7] = True, True
    *placed, nothing = random_blobs(inside, [27] * 20 + [28], seed=0)
    assert nothing is None
    assert all((blob[4:7, 4:7, 4:7]).all() and blob.sum() == 27 for blob in placed)
    assert random_blobs(np.zeros((3, 3, 3), bool), [1], seed=0) == [None]
