"""AAL: 116 regions on both grids, placed where anatomy says, reduced by the most common label of a block."""

from collections import Counter

import nibabel
import numpy as np
import pytest
from helpers import LAS_6MM

from data.base.errors import InputError
from data.cohorts import atlas
from data.cohorts.records import FULL, REDUCED


@pytest.fixture(scope="module")
def full():
    return atlas.load_atlas(None, FULL)


@pytest.fixture(scope="module")
def reduced():
    return atlas.load_atlas(None, REDUCED)


def centre_mm(found: atlas.Atlas, name: str) -> np.ndarray:
    """The centre of mass of a region in MNI coordinates."""
    number = next(region for region, other in found.names.items() if other == name)
    return np.argwhere(found.labels == number).mean(0) * found.grid.spacing_mm + found.grid.origin_mm


def test_both_grids_hold_all_116_regions(full, reduced):
    for found in (full, reduced):
        assert found.labels.shape == found.grid.shape
        assert found.regions == list(range(1, 117))
        assert sorted(set(found.labels.ravel().tolist())) == list(range(117))


def test_the_smallest_reduced_region_has_5_voxels(reduced):
    assert np.bincount(reduced.labels.ravel())[1:].min() == 5


@pytest.mark.parametrize("grid", ["full", "reduced"])
def test_left_is_left_and_both_sides_mirror(grid, full, reduced):
    found = {"full": full, "reduced": reduced}[grid]
    for name in ("Precentral", "Hippocampus", "Putamen", "Calcarine"):
        left, right = centre_mm(found, f"{name}_L"), centre_mm(found, f"{name}_R")
        assert left[0] < 0 < right[0]
        np.testing.assert_allclose(left * [-1, 1, 1], right, atol=9)


@pytest.mark.parametrize(
    "name, place",
    # Tzourio-Mazoyer et al. 2002: published centres of mass of AAL regions, mm
    [("Hippocampus_L", (-25, -21, -10)), ("Precuneus_R", (10, -56, 44)), ("Cerebelum_Crus1_L", (-36, -67, -29))],
)
def test_regions_lie_where_the_literature_puts_them(full, reduced, name, place):
    np.testing.assert_allclose(centre_mm(full, name), place, atol=2)
    np.testing.assert_allclose(centre_mm(reduced, name), place, atol=4)


def test_a_reduced_voxel_takes_the_most_common_label_of_its_block(full, reduced):
    random = np.random.default_rng(0)
    places = [*random.permutation(np.argwhere(reduced.labels))[:200].tolist(), [0, 0, 0], [30, 36, 30], [15, 0, 15]]
    for place in places:
        block = full.labels[tuple(slice(max(3 * index - 1, 0), 3 * index + 2) for index in place)]
        counts = Counter(block[block > 0].tolist())
        expected = min(counts, key=lambda region: (-counts[region], region)) if counts else 0
        assert reduced.labels[tuple(place)] == expected


def test_painting_fills_each_region_with_its_value_and_nothing_else():
    """Region numbers with gaps, one of them huge, one that has vanished from the reduced grid and so has no value."""
    labels = np.zeros(FULL.shape, np.int32)
    labels[:10], labels[20:30], labels[50, 50, 50] = 2_000_000_000, 3, 7
    own = atlas.Atlas(atlas.reduce_labels(labels), {2_000_000_000: "b", 3: "a"}, REDUCED, labels, ["c"])
    painted = own.paint(np.array([1.5, -2.0]))
    assert painted.dtype == np.float32 and painted.shape == FULL.shape
    assert (painted[:10] == -2).all() and (painted[20:30] == 1.5).all()
    painted[:10], painted[20:30] = 0, 0
    assert not painted.any()


def test_painting_wants_one_value_a_region(full):
    with pytest.raises(ValueError, match=r"shape \(5,\); expected one a region, \(116,\)"):
        full.paint(np.ones(5))


def label_file(path, labels: np.ndarray, shift_mm: float = 0.0):
    """A label image of 6 mm over the brain, moved along x."""
    affine = LAS_6MM.copy()
    affine[0, 3] += shift_mm
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16), affine), path)
    return path


def two_halves() -> np.ndarray:
    labels = np.zeros(REDUCED.shape)
    labels[5:15, 5:30, 5:25], labels[15:25, 5:30, 5:25] = 1, 2
    return labels


def test_a_label_image_lies_where_its_affine_says(tmp_path):
    path = label_file(tmp_path / "two.nii.gz", two_halves()[..., None])
    found = atlas.load_atlas(path, FULL)
    assert found.regions == [1, 2]
    assert centre_mm(found, "region 1")[0] > 20  # stored from right to left
    assert centre_mm(found, "region 2")[0] < -20


@pytest.mark.parametrize(
    "labels, shift_mm, words",
    [
        (two_halves(), 500, "has no region on the MNI grid"),
        (np.ones((41, 47, 41)), -30, "has no voxel outside its regions|is no label image"),
        (np.pad(np.ones((1, 37, 31)), ((0, 30), (0, 0), (0, 0))), 0, "has no region within the brain"),
        (np.pad(np.ones((29, 35, 29)), 1), 0, "region 1 covers the whole brain"),
    ],
)
def test_label_images_that_tell_nothing(labels, shift_mm, words, tmp_path):
    path = label_file(tmp_path / "atlas.nii", labels, shift_mm)
    with pytest.raises(InputError, match=words):
        atlas.load_atlas(path, FULL)


def test_a_name_given_twice_is_told(tmp_path):
    label_file(tmp_path / "two.nii.gz", two_halves())
    (tmp_path / "two.txt").write_text("1 a\n1 b\n")
    with pytest.raises(InputError, match=r"two\.txt names a region twice"):
        atlas.load_atlas(tmp_path / "two.nii.gz", FULL)
