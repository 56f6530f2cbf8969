"""Resampling by matrices gives what nilearn gives, voxel by voxel, to the border of a map and beyond it."""

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nilearn.image import resample_img
from scipy import linalg, ndimage

from data.images import brain, grids, nifti, resampling

WITHIN = 1e-5  # of the values of a map of about 1, and of z-scores


def make_affine(steps_mm, start_mm) -> np.ndarray:
    affine = np.diag([*steps_mm, 1.0])
    affine[:3, 3] = start_mm
    return affine


def make_noise_image(shape, affine, background=0.0) -> nibabel.Nifti1Image:
    """Noise in an ellipsoid, as `read_images` gives it."""
    places = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    noise = np.random.default_rng(0).normal(size=shape)
    values = np.where(sum(axis**2 for axis in places) < 0.8, noise, 0) + background
    return nibabel.as_closest_canonical(nibabel.Nifti1Image(np.asfortranarray(values, np.float32), affine))


def resample_by_nilearn(image) -> np.ndarray:
    options = {"interpolation": "linear", "copy_header": True, "force_resample": True}
    return resample_img(image, np.array(grids.FULL.affine), grids.FULL.shape, **options).get_fdata(dtype=np.float32)


AFFINES = {  # shape, affine, and the background of the map
    "3 mm, x to the left": ((61, 73, 61), make_affine((-3, 3, 3), (90, -126, -72)), 0),
    "2 mm, the grid itself": (grids.FULL.shape, make_affine((-2, 2, 2), (90, -126, -72)), -0.4),
    "4 mm, far from 0": ((46, 55, 46), make_affine((4, 4, 4), (-90, -126, -72)), 1000),
    "1 mm": ((121, 131, 121), make_affine((1, 1, 1), (-60, -76, -52)), 0.4),
    "half a voxel aside": ((61, 73, 61), make_affine((3, 3, 3), (-91.5, -124.5, -73.5)), 0),
    "smaller than the grid": ((47, 56, 46), make_affine((3, 3, 3), (-70, -104, -50)), -0.4),
    "smaller, far from 0": ((47, 56, 46), make_affine((3, 3, 3), (-70, -104, -50)), 10),
    "larger than the grid": ((70, 80, 70), make_affine((3, 3.5, 3), (-110, -140, -90)), 1),
    "larger, far from 0": ((70, 80, 70), make_affine((3, 3.5, 3), (-110, -140, -90)), 1000),
    "axes in another order": ((61, 73, 61), make_affine((3, 3, 3), (-90, -126, -72))[[2, 0, 1, 3]], 0),
}


@pytest.mark.parametrize("name", AFFINES)
def test_volumes_equal_nilearns(name):
    shape, affine, background = AFFINES[name]
    image = make_noise_image(shape, affine, background)
    full = brain.z_score_volume(resample_by_nilearn(image))
    within = WITHIN * max(1, background / 10)  # float32 has no more digits
    np.testing.assert_allclose(nifti.make_z_scored_volume(image, grids.FULL), full, atol=within, rtol=0)
    reduced = nifti.make_z_scored_volume(image, grids.REDUCED)
    assert reduced.shape == grids.REDUCED.shape and reduced.dtype == np.float32
    np.testing.assert_allclose(reduced, resampling.average_blocks(full), atol=within, rtol=0)


@pytest.mark.slow
@given(
    st.sampled_from([1, 1.1, 1.5, 2, 2.4, 3, 3.3, 10 / 3, 4, 0.9765625]),
    st.sampled_from([0, 0.5, -1, 3, -7, 0.1, 20, 1 / 3]),
    st.integers(2, 250),
    st.booleans(),
)
@settings(max_examples=200)
def test_outside_planes_equal_scipys(step_mm, shift_mm, size, in_float32):
    """Along an axis, computed as nilearn does it: which planes lie outside may depend on rounding."""
    affine = make_affine([step_mm] * 3, np.array(grids.FULL.origin_mm) + shift_mm)
    affine = affine.astype(np.float32).astype(float) if in_float32 else affine
    transform = linalg.inv(affine) @ np.array(grids.FULL.affine)
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    sampled = ndimage.affine_transform(values, transform[:1, :1], transform[0, 3], (91,), order=1)
    x, _, _ = resampling.make_aligned_resampler((size, 2, 2), affine.tobytes()).axis_matrices
    np.testing.assert_allclose(x @ values, sampled, atol=1e-6)


def test_an_oblique_map_has_no_matrices():
    angle = np.deg2rad(2)
    affine = make_affine((3, 3, 3), (-90, -126, -72))
    affine[:2, :2] = 3 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    image = make_noise_image((31, 37, 31), affine)
    assert resampling.make_aligned_resampler(image.shape, image.affine.tobytes()) is None
    np.testing.assert_array_equal(nifti.resample_to_full_grid(image, "linear"), resample_by_nilearn(image))
    reduced = nifti.make_z_scored_volume(image, grids.REDUCED)
    np.testing.assert_array_equal(reduced, resampling.average_blocks(brain.z_score_volume(resample_by_nilearn(image))))


def test_interpolation_by_hand():
    weights = resampling.make_interpolation_matrix(np.array([-0.1, 0, 0.25, 1.5, 2, 2.1]), 3).toarray()
    assert weights.tolist() == [[0, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 1], [0, 0, 0]]


def test_blocks_hold_all_voxels_once():
    assert resampling.count_block_voxels().sum() == np.prod(grids.FULL.shape)
    assert resampling.make_averaging_matrix(91).sum(1).tolist() == pytest.approx([1] * 31)
    assert (resampling.make_averaging_matrix(91)[[0]].toarray() > 0).sum() == 2  # at the border
