"""abide-data pack and export: every form holds the same bits; an exported volume lies where it belongs."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import ROOT, bare_records, small_record
from nilearn import image as nilearn_image

from data import pack
from data.base.errors import InputError
from data.cohorts import records
from data.cohorts.stored import open_cohort


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def packed(data_cli, tmp_path):
    """`packed(source, "zip")` gives the folder that the command writes."""

    def run(source: Path, form: str) -> Path:
        target = tmp_path / f"{source.name}-{form}"
        outcome = data_cli("pack", source, target, f"--{form}")
        assert outcome.status == 0, outcome.err
        return target

    return run


def write_folder(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, record in members.items():
        (folder / name).write_bytes(record)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "bin"])
@pytest.mark.parametrize("size", ["cohort", "full_cohort"])
def test_there_and_back_is_bit_exact_tables_included(form, size, packed, request):
    source = request.getfixturevalue(size)
    there = packed(source, form)
    assert content(packed(there, "bin")) == content(source)
    assert open_cohort(there).digest == open_cohort(source).digest


@pytest.mark.slow
def test_chunks_are_read_in_place_and_read_the_same(cohort, packed):
    whole = open_cohort(cohort)
    folder = packed(cohort, "zip")
    before = sorted(folder.rglob("*"))
    opened = open_cohort(folder)
    assert opened.rows == whole.rows
    for index in (0, 17, 39):
        label, phenotype, volume = opened.read(index)
        expected = np.fromfile(cohort / whole.rows[index].file, "<f4")
        assert label == expected[0]
        assert (phenotype == expected[1:30]).all()
        assert (volume.ravel() == expected[30:]).all()
    batch, expected = opened.batch([3, 1], volumes=False), whole.batch([3, 1], volumes=False)
    assert (batch["phenotype"] == expected["phenotype"]).all()
    assert sorted(folder.rglob("*")) == before


def test_chunks_are_as_large_as_asked_and_have_the_names_of_the_mission(cohort, tmp_path):
    folder = tmp_path / "chunks"
    folder.mkdir()
    pack.pack_zip(open_cohort(cohort), folder, chunk_bytes=300_000)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(f"compressed_{k}" for k in range(len(names)))
    assert len(names) >= 4
    members = []
    for k in range(len(names)):
        path = folder / f"compressed_{k}"
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            members += archive.namelist()
        assert path.stat().st_size < 300_000 + 150_000  # at most one record and the directory beyond
    assert members == [record.file for record in open_cohort(cohort).rows]
    assert sorted(record.file for record in open_cohort(folder).rows) == sorted(members)


@pytest.mark.slow
def test_the_same_cohort_gives_the_same_chunks(cohort, packed, tmp_path):
    first = content(packed(cohort, "zip"))
    assert content(packed(shutil.copytree(cohort, tmp_path / "again"), "zip")) == first


@pytest.mark.parametrize("form", ["zip", "bin"])
def test_a_bare_folder_gets_its_tables(form, packed, tmp_path):
    source = write_folder(tmp_path / "bare", bare_records(range(50001, 50006)))
    guessed = open_cohort(source)
    result = packed(source, form)
    assert open_cohort(result).rows == guessed.rows
    back = packed(result, "bin")
    assert {name: content(back)[name] for name in content(source)} == content(source)


@pytest.mark.parametrize("form", ["zip", "bin"])
def test_records_in_subfolders_of_a_chunk(form, packed, tmp_path):
    """As `zip -r` makes chunks: members lie in a folder; a packed cohort is flat."""
    (tmp_path / "nested").mkdir()
    with zipfile.ZipFile(tmp_path / "nested" / "compressed_0", "w") as archive:
        archive.mkdir("swap")
        for name, record in bare_records([1, 2, 3]).items():
            archive.writestr(f"swap/{name}", record)
    result = open_cohort(packed(tmp_path / "nested", form))
    assert [record.file for record in result.rows] == ["1.bin", "2.bin", "3.bin"]
    assert result.entries[2].read() == small_record(0, 3)


@pytest.mark.parametrize("verb", [("pack", "--bin"), ("pack", "--zip"), ("swap",)])
@pytest.mark.parametrize(
    "one, other",
    [
        ("a/1.bin", "b/1.bin"),
        ("1.bin", "b/1.bin"),
        ("x.bin", "X.bin"),
        ("a/\u00e9.bin", "E\u0301.bin"),
    ],
)
def test_records_whose_names_collide_in_one_folder_are_refused_with_both_named(one, other, verb, data_cli, tmp_path):
    """Neither is lost in silence, on file systems that fold capitals or compose letters either."""
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(source / "compressed_0", "w") as archive:
        for number, name in enumerate((one, other, "3.bin", "4.bin")):
            archive.writestr(name, small_record(number % 2, number))
    outcome = data_cli(verb[0], source, tmp_path / "out", *verb[1:])
    assert outcome.status == 2
    assert f"{source} has the records " in outcome.err
    told = outcome.err.replace("'", "")
    assert re.search(rf" ({one} and {other}|{other} and {one}), which are one file", told), outcome.err
    assert list(tmp_path.iterdir()) == [tmp_path / "source"]


@pytest.mark.parametrize("form", ["zip", "bin"])
def test_a_damaged_record_is_told_and_nothing_is_left(form, data_cli, tmp_path):
    values = np.frombuffer(small_record(), "<f4").copy()
    values[99] = np.nan
    source = write_folder(tmp_path / "bare", bare_records([1, 2]) | {"3.bin": values.tobytes()})
    outcome = data_cli("pack", source, tmp_path / "out", f"--{form}")
    assert outcome.status == 2
    assert "3.bin holds nan as volume value 69" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["bare"]


@pytest.mark.parametrize("verb", [("pack", "--zip"), ("swap",)])
def test_a_folder_that_exists_is_left_alone(verb, cohort, data_cli, tmp_path):
    write_folder(tmp_path / "out", {"thesis.tex": b"mine"})
    outcome = data_cli(verb[0], cohort, tmp_path / "out", *verb[1:])
    assert outcome.status == 2
    assert "out exists; remove it or name another folder" in outcome.err
    assert content(tmp_path / "out") == {"thesis.tex": b"mine"}


PACK_WITH_LIMITS = """
import resource, sys
from data.__main__ import main
for limit in sys.argv.pop().split():
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    print(main(), file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form, larger", [("bin", []), ("zip", [400_000, 800_000])])
def test_a_disk_that_fills_at_any_time_is_told_in_one_line_and_nothing_is_left(form, larger, cohort, tmp_path):
    """A limit of file sizes stands for a full disk; the program runs by itself."""
    limits = [0, 1000, 4096, 60_000, 140_000, *larger]
    arguments = ["pack", cohort, tmp_path / "out", f"--{form}", " ".join(map(str, limits))]
    finished = subprocess.run(
        [sys.executable, "-c", PACK_WITH_LIMITS, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    told = f"abide-data: error: {tmp_path / 'out'}: File too large.\n2\n"
    assert (finished.returncode, finished.stderr) == (0, told * len(limits))
    assert list(tmp_path.iterdir()) == []


# One volume as NIfTI


def test_an_exported_volume_has_its_true_affine(cohort, data_cli, tmp_path):
    subject = open_cohort(cohort).rows[4].subject
    outcome = data_cli("export", cohort, subject, tmp_path / "out.nii.gz")
    assert outcome.status == 0, outcome.err
    image = nibabel.load(tmp_path / "out.nii.gz")
    assert image.affine.tolist() == [[6, 0, 0, -90], [0, 6, 0, -126], [0, 0, 6, -72], [0, 0, 0, 1]]
    assert (image.header["sform_code"], image.header["qform_code"]) == (4, 4)  # MNI
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.get_qform().tolist() == image.affine.tolist()
    assert image.header.get_xyzt_units()[0] == "mm"
    expected = np.fromfile(cohort / f"{subject}.bin", "<f4")[30:].reshape(31, 37, 31)
    assert image.get_data_dtype() == np.float32
    assert (np.asarray(image.dataobj) == expected).all()
    assert list(tmp_path.iterdir()) == [tmp_path / "out.nii.gz"]


def test_nilearn_reads_an_export_as_mni_space(full_cohort, data_cli, tmp_path):
    """Warnings are errors here. Resampling onto the grid that it is on gives the same values."""
    record = open_cohort(full_cohort).rows[0]
    assert data_cli("export", full_cohort, record.file, tmp_path / "out.nii").status == 0
    image = nilearn_image.load_img(tmp_path / "out.nii")
    assert image.shape == (91, 109, 91)
    target = np.diag([2.0, 2.0, 2.0, 1.0])
    target[:3, 3] = -90, -126, -72
    again = nilearn_image.resample_img(image, target, image.shape, copy_header=True, force_resample=True)
    np.testing.assert_allclose(again.get_fdata(), image.get_fdata(), atol=1e-5)


@pytest.mark.parametrize(
    "grid, index, millimetres",
    [
        (records.REDUCED, (22, 30, 8), (42, 54, -24)),  # right, front, low
        (records.REDUCED, (3, 1, 29), (-72, -120, 102)),  # left, back, high
        (records.FULL, (66, 90, 24), (42, 54, -24)),
        (records.FULL, (9, 3, 87), (-72, -120, 102)),
    ],
)
def test_left_is_left(grid, index, millimetres, data_cli, tmp_path):
    """A volume with one bright voxel, at the place in mm that the grid of the design gives it."""
    volume = np.zeros(grid.shape, "<f4")
    volume[index] = 1
    write_folder(tmp_path / "bare", {"7.bin": bytes(small_record())[:120] + volume.tobytes()})
    assert data_cli("export", tmp_path / "bare", "7", tmp_path / "out.nii.gz").status == 0
    image = nibabel.load(tmp_path / "out.nii.gz")
    [bright] = np.argwhere(np.asarray(image.dataobj) == 1)
    assert tuple(nibabel.affines.apply_affine(image.affine, bright)) == millimetres


@pytest.mark.parametrize(
    "name, target, words",
    [
        ("nobody", "out.nii", "has 0 records of nobody.*name one subject or file"),
        ("9", "out.nii", r"has 2 records of 9 \(9_a\.bin, 9_b\.bin\); name one subject or file"),
        ("7", "out.img", r"out\.img is no NIfTI name; expected \.nii or \.nii\.gz"),
        ("7", "missing/out.nii", "missing is no folder; make it or name another one"),
    ],
)
def test_what_cannot_be_exported(name, target, words, data_cli, tmp_path):
    members = {"7.bin": small_record(), "9_a.bin": small_record(), "9_b.bin": small_record()}
    source = write_folder(tmp_path / "bare", members)
    outcome = data_cli("export", source, name, tmp_path / target)
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert re.search(words, outcome.err)


def test_one_record_of_several_is_chosen_by_its_file(data_cli, tmp_path):
    source = write_folder(tmp_path / "bare", {"9_a.bin": small_record(seed=1), "9_b.bin": small_record(seed=2)})
    assert data_cli("export", source, "9_b.bin", tmp_path / "out.nii").status == 0
    expected = np.frombuffer(small_record(seed=2), "<f4")[30:].reshape(31, 37, 31)
    assert (np.asarray(nibabel.load(tmp_path / "out.nii").dataobj) == expected).all()


def test_a_form_must_be_named_and_only_one(cohort, data_cli, tmp_path):
    assert data_cli("pack", cohort, tmp_path / "out").status == 2
    assert data_cli("pack", cohort, tmp_path / "out", "--zip", "--bin").status == 2
    with pytest.raises(InputError, match="out does not exist"):
        open_cohort(tmp_path / "out")
