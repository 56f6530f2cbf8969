"""Records: bytes <-> values, the two sizes, block means, and every error of a damaged record."""

import struct

import numpy as np
import pytest
from helpers import small_record
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from data.base.errors import InputError
from data.cohorts import records, resampling
from data.cohorts.records import FULL, REDUCED


def with_value(position: int, value: float) -> bytes:
    """A record with one float32 replaced."""
    record = bytearray(small_record())
    struct.pack_into("<f", record, 4 * position, value)
    return bytes(record)


def test_sizes_are_those_of_the_contract():
    assert records.record_bytes(REDUCED) == 142_348
    assert records.record_bytes(FULL) == 3_610_636


def test_layout_is_label_phenotype_volume_with_z_fastest():
    volume = np.arange(np.prod(REDUCED.shape), dtype=np.float32).reshape(REDUCED.shape)
    record = records.pack(1.0, np.arange(29) / 7, volume)
    values = struct.unpack(f"<{len(record) // 4}f", record)
    assert values[0] == 1.0
    assert values[1:30] == pytest.approx([number / 7 for number in range(29)])
    assert values[30 + (2 * 37 + 5) * 31 + 3] == volume[2, 5, 3]
    assert values[30:33] == (volume[0, 0, 0], volume[0, 0, 1], volume[0, 0, 2])


@settings(max_examples=20)
@given(
    label=st.sampled_from([0.0, 1.0]),
    phenotype=st.lists(st.floats(-100, 100, width=32), min_size=29, max_size=29),
    seed=st.integers(0, 1000),
)
def test_unpack_returns_what_was_packed(label, phenotype, seed):
    volume = np.random.default_rng(seed).normal(size=REDUCED.shape).astype(np.float32)
    unpacked = records.unpack(records.pack(label, np.array(phenotype), volume), REDUCED, "x.bin")
    assert unpacked[0] == label
    assert unpacked[1].tolist() == phenotype
    assert (unpacked[2][..., 0] == volume).all()


@pytest.mark.parametrize("change, words", [(-4, "4 short of"), (4, "4 more than"), (-142_348, "142,348 short of")])
def test_a_wrong_size_is_told_with_the_nearest_grid(change, words):
    with pytest.raises(InputError, match=f"x.bin holds .*{words} a 31x37x31 record"):
        records.form_of_size(142_348 + change, "x.bin")


def test_a_cut_full_size_record_is_told_as_in_the_style_guide():
    with pytest.raises(InputError, match=r"holds 3,610,632 bytes, 4 short of a 91x109x91 record.*Was the copy cut off"):
        records.form_of_size(3_610_632, "51572.bin")


@pytest.mark.parametrize("label", [0.5, 2.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_label_is_refused(label):
    with pytest.raises(InputError, match=rf"x.bin has the label {label:g}; expected 1 \(autism\) or 0 \(control\)"):
        records.unpack(with_value(0, label), REDUCED, "x.bin")


@pytest.mark.parametrize(
    "position, value, words",
    [
        (1, np.nan, "nan as phenotype value 0"),
        (29, np.inf, "inf as phenotype value 28"),
        (30, np.nan, "nan as volume value 0"),
        (35586, -np.inf, "-inf as volume value 35556"),
    ],
)
def test_a_value_that_is_not_finite_is_named(position, value, words):
    with pytest.raises(InputError, match=f"x.bin holds {words}; expected finite"):
        records.unpack(with_value(position, value), REDUCED, "x.bin")


def test_a_record_of_the_other_grid_is_refused():
    with pytest.raises(InputError, match="expected 3,610,636, a 91x109x91 record"):
        records.unpack(small_record(), FULL, "x.bin")


def test_normalised_volumes_have_mean_0_and_spread_1():
    volume = np.random.default_rng(0).gamma(2, 3, (7, 8, 9))
    expected = (volume - np.mean(volume)) / np.sqrt(np.mean((volume - np.mean(volume)) ** 2))
    np.testing.assert_allclose(records.normalise(volume), expected, rtol=1e-5, atol=1e-6)
    assert (records.normalise(np.full((3, 3, 3), 5.0)) == 0).all()


def test_block_mean_is_a_box_filter_seen_at_every_third_voxel():
    """Inside, the mean of 27 voxels is SciPy's uniform filter; at the border only existing voxels count."""
    volume = np.random.default_rng(1).normal(size=FULL.shape)
    total = ndimage.uniform_filter(volume, 3, mode="constant")[::3, ::3, ::3]
    share = ndimage.uniform_filter(np.ones(FULL.shape), 3, mode="constant")[::3, ::3, ::3]
    assert resampling.block_mean(volume).shape == REDUCED.shape
    np.testing.assert_allclose(resampling.block_mean(volume), total / share, rtol=1e-5, atol=1e-6)
    assert resampling.block_mean(volume)[4, 0, 30] == pytest.approx(volume[11:14, 0:2, 89:91].mean(), rel=1e-5)


def test_repeated_blocks_put_reduced_voxel_i_around_full_size_voxel_3i():
    reduced = np.random.default_rng(2).normal(size=REDUCED.shape)
    full = resampling.repeat_blocks(reduced)
    assert full.shape == FULL.shape
    assert (full[::3, ::3, ::3] == reduced).all()
    assert (full[2:91:3, 1:109:3, ::3] == reduced[1:, :36, :]).all()
    np.testing.assert_allclose(resampling.block_mean(full), reduced, rtol=1e-6)


def test_background_is_the_value_outside_the_brain():
    volume = np.full((9, 9, 9), -0.4)
    volume[2:7, 2:7, 2:] = 3.0  # reaches one face, as a brain cut off at its top does
    assert records.background(volume) == pytest.approx(-0.4)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.49, 0.5, 0.51, 1.0])
def test_the_background_is_the_median_of_the_outer_faces(share):
    random = np.random.default_rng(0)
    volume = np.where(random.random((4, 5, 6)) < share, -0.4, random.normal(size=(4, 5, 6))).astype(np.float32)
    faces = np.concatenate([volume[[0, -1]].ravel(), volume[:, [0, -1]].ravel(), volume[..., [0, -1]].ravel()])
    assert records.background(volume) == np.median(faces)
