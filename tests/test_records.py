"""Records: bytes <-> values, sizes, block means; digests in every form; each error of a damaged or changed record."""

import dataclasses
import hashlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    SMALL,
    bare_records,
    flip_a_bit,
    read_rows,
    small_record,
    training,
    write_bare,
    write_small,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from data.base.errors import InputError
from data.cohorts import records, resampling
from data.cohorts.records import FULL, HEADER_BYTES, REDUCED, FileEntry
from data.cohorts.stored import open_cohort, sealed

pytestmark = pytest.mark.usefixtures("undrawn")


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


@pytest.mark.parametrize("change, words", [(4, "4 more than"), (-142_348, "142,348 short of")])
def test_a_wrong_size_is_told_with_the_nearest_grid(change, words):
    with pytest.raises(InputError, match=f"x.bin holds .*{words} a 31x37x31 record"):
        records.form_of_size(142_348 + change, "x.bin")


@pytest.mark.parametrize("label", [0.5, float("nan")])
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


@pytest.mark.parametrize("share", [0.0, 0.4, 0.6, 1.0])
def test_the_background_is_the_median_of_the_outer_faces(share):
    random = np.random.default_rng(0)
    volume = np.where(random.random((4, 5, 6)) < share, -4, random.normal(size=(4, 5, 6))).astype(np.float32)
    volume[0, 0, 0] = -4
    faces = np.concatenate([volume[[0, -1]].ravel(), volume[:, [0, -1]].ravel(), volume[..., [0, -1]].ravel()])
    assert records.background(volume) == np.median(faces)


def expected(content: bytes) -> list[str]:
    return [hashlib.sha256(part).hexdigest() for part in (content[:HEADER_BYTES], content[HEADER_BYTES:])]


@pytest.mark.parametrize("form", ["bin", "zip"])
def test_the_table_has_the_digests_of_every_form(form, cohort, data_cli, tmp_path):
    assert data_cli("pack", cohort, tmp_path / form, f"--{form}").status == 0
    table = read_rows(tmp_path / form / "digests.csv")
    assert {row["file"]: [row["header_sha256"], row["volume_sha256"]] for row in table} == {
        path.name: expected(path.read_bytes()) for path in cohort.glob("*.bin")
    }
    packed, whole = open_cohort(tmp_path / form), open_cohort(cohort)
    assert packed.records_sha256 == whole.records_sha256 != ""
    assert not sealed(tmp_path / form).seal.computed


@given(st.integers(0, 8 * (31 * 37 * 31 + 30) * 4 - 1))
def test_any_bit_that_changes_is_told(bit):
    """But for the kind of failure, it does not matter where the bit is."""
    content = bytearray(small_record(seed=3))
    of_record = records.digests_of(bytes(content))
    content[bit // 8] ^= 1 << bit % 8
    entry = records.VerifiedEntry(Held(bytes(content)), of_record)
    with pytest.raises(InputError, match=r"^held is not what was written: its .* differs from the digest"):
        entry.read()
    in_header = bit // 8 < HEADER_BYTES
    if in_header:
        with pytest.raises(InputError, match="its label and phenotype differs"):
            entry.read(HEADER_BYTES)
    else:
        assert len(entry.read(HEADER_BYTES)) == HEADER_BYTES


@dataclasses.dataclass(frozen=True)
class Held:
    """A record in memory, in a file that does not change."""

    content: bytes
    path: Path = Path(__file__)

    def read(self, num_bytes: int = -1) -> bytes:
        return self.content if num_bytes < 0 else self.content[:num_bytes]

    def __str__(self) -> str:
        return "held"


def test_a_volume_is_verified_again_only_if_its_file_has_changed(tmp_path, monkeypatch):
    path = write_bare(tmp_path / "bare", bare_records([1])) / "1.bin"
    entry = records.VerifiedEntry(FileEntry(path), records.digests_of(path.read_bytes()))
    hashed = []
    monkeypatch.setattr(records.VerifiedEntry, "check", lambda *arguments: hashed.append(arguments[-1]))
    monkeypatch.setattr(records, "SETTLED_NS", -1)
    for _ in range(3):
        entry.read()
    assert hashed.count("volume") == 1
    assert hashed.count("label and phenotype") == 3
    path.write_bytes(path.read_bytes())
    entry.read()
    assert hashed.count("volume") == 2
    monkeypatch.setattr(records, "SETTLED_NS", 10**18)  # it may be written once more within a tick of the clock
    path.write_bytes(path.read_bytes())
    entry.read(), entry.read()
    assert hashed.count("volume") == 4


def test_a_bare_folder_is_identified_when_a_run_needs_it_and_verified_from_then_on(tmp_path, capsys):
    folder = write_bare(tmp_path / "bare", bare_records([1, 2, 3]))
    opened = open_cohort(folder)
    assert opened.seal.digests == ()
    known = sealed(folder, together=False)
    assert "bare has no digests.csv: computed for 3 records, kept with the results." in capsys.readouterr().out
    assert [[of.header, of.volume] for of in known.seal.digests] == [
        expected((folder / f"{subject}.bin").read_bytes()) for subject in (1, 2, 3)
    ]
    known.read(1)
    flip_a_bit(folder / "2.bin")
    with pytest.raises(InputError, match=r"2\.bin is not what was written: its volume differs"):
        known.read(1)


@pytest.mark.parametrize(
    "content, words",
    [
        ("file,header_sha256,volume_sha256,source_sha256\n1.bin,abc,def,\n", "line 2 is damaged; expected SHA-256"),
        ("file,header_sha256,volume_sha256\n", "lacks the columns source_sha256"),
        (
            "file,header_sha256,volume_sha256,source_sha256\n",
            "has no digests of 1.bin, 2.bin, 3.bin, 5.bin; was that added by hand",
        ),
    ],
)
def test_a_table_of_digests_that_is_damaged_or_incomplete(content, words, tmp_path):
    write_small(tmp_path / "small")
    (tmp_path / "small" / "digests.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        open_cohort(tmp_path / "small")


@pytest.mark.parametrize("at, words", [(-3, "volume"), (50, "label and phenotype")])
def test_a_bit_of_a_test_record_is_told_before_any_result(at, words, cli, cohort, trained, tmp_path):
    """The bit is one of the mantissa: its value stays plausible."""
    copied = shutil.copytree(cohort, tmp_path / "copied")
    victim = next(row["file"] for row in read_rows(copied / "subjects.csv") if row["split"] == "test")
    flip_a_bit(copied / victim, at)
    outcome = cli("--test", "--model", "cnn", "--chkPointDir", trained, "--dataDir", copied, "--outDir", "out")
    assert outcome.status == 2
    assert f"{copied / victim} is not what was written: its {words} differs from the digest" in outcome.err
    assert not Path("out/predictions.csv").exists()


def test_the_same_files_under_other_names(cli, cohort, seen_two, tmp_path):
    """A nn reads no volumes, and still knows the people by them."""
    (tmp_path / "renamed").mkdir()
    for number, path in enumerate(sorted(cohort.glob("*.bin"))):
        shutil.copyfile(path, tmp_path / "renamed" / f"{number + 7000}.bin")
    places = ("--chkPointDir", seen_two / "ckpt", "--dataDir", tmp_path / "renamed")
    outcome = cli("--test", "--model", "nn", *places)
    assert outcome.status == 2
    assert "trained this checkpoint: " in outcome.err
    assert "By their scans, whatever their names: " in outcome.err
    assert "or leave them out (--exclude)" in outcome.err


@pytest.mark.slow
def test_a_bare_folder_that_was_filled_with_other_records(cli, tmp_path):
    """Both a set of folds and a training are of the records that they were made of, not of their names."""
    people = range(1, 25)
    bare = write_bare(tmp_path / "bare", bare_records(people))
    assert cli(*training(tmp_path, bare, "nn", 1)).status == 0
    in_folds = ("--model", "nn", "--folds", 2, "--chkPointDir", "folds", "--dataDir", bare)
    assert cli("--train", "--numIters", 1, *SMALL["nn"], *in_folds).status == 0
    assert cli("--test", *in_folds).status == 0
    assert "Everything is done." in cli("--test", *in_folds).out
    kept = [Path("results/nn-test-folds-2"), Path("folds/nn/folds-2"), tmp_path / "out"]
    assert all((folder / "digests.csv").is_file() for folder in kept)
    for subject in people:
        (bare / f"{subject}.bin").write_bytes(small_record(subject % 2 == 0, 100 + subject))
    outcome = cli("--test", *in_folds)
    assert outcome.status == 2
    assert "folds.csv belongs to other data than" in outcome.err
    assert "(1.bin, 10.bin, 11.bin, " in outcome.err
    outcome = cli(*training(tmp_path, bare, "nn", 2))
    assert outcome.status == 2
    assert "was trained on other records of the same names in" in outcome.err
    assert "(1.bin, 10.bin, " in outcome.err


def test_a_value_that_is_no_measurement(tmp_path):
    values = np.frombuffer(small_record(), "<f4").copy()
    values[30:] *= np.float32(1e30)
    (tmp_path / "1.bin").write_bytes(values.tobytes())
    with pytest.raises(InputError, match=r"1\.bin holds .*e\+.* as volume value 0; expected finite"):
        open_cohort(tmp_path).read(0)
