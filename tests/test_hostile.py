"""Hostile and damaged files end in a record or in a one-line error: known tricks, one by one."""

import gzip
import os
import resource
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import COARSE, bare_records, brain_map, load_map, small_record, write_small

from data import pack
from data.base.errors import InputError
from data.cohorts import phenotype, records
from data.cohorts.atlas import label_image
from data.cohorts.cohort import SIDE_TABLES, Cohort
from data.cohorts.stored import open_cohort
from data.conversion.tables import read_table

FEW_BYTES = 30 * 2**20


@contextmanager
def few_bytes():
    """Fails if the block allocates more than 30 MB at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < FEW_BYTES
    finally:
        tracemalloc.stop()


def refused(call: Callable, words: str) -> None:
    """The call must end in one InputError of one line that says `words`, at no cost in memory."""
    with few_bytes(), pytest.raises(InputError, match=words) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


def read_all(path: Path) -> Cohort:
    """Opens a cohort and reads every record, as a check or an epoch does."""
    opened = open_cohort(path)
    for index in range(len(opened.rows)):
        opened.read(index)
    return opened


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Four compressible records with their tables."""
    folder = tmp_path_factory.mktemp("small") / "cohort"
    write_small(folder)
    return folder


# Zip chunks


def write_zip(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "compressed_0", "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder


def edit_directory(folder: Path, offset: int, layout: str, value: int) -> None:
    """Changes one field of the first entry in a chunk's central directory."""
    path = folder / "compressed_0"
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, content.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name, words",
    [
        ("../50002.bin", "points outside its chunk"),
        ("/etc/50002.bin", "points outside its chunk"),
        ("\\\\server\\50002.bin", "points outside its chunk"),
        ("50002\n.bin", r"names a record '50002\\n\.bin'; expected one line of UTF-8 text"),
        ("50002.exe", "is not a record"),
    ],
)
def test_zip_names_that_are_not_plain(name, words, tmp_path):
    folder = write_zip(tmp_path / "zip", {"50001.bin": small_record(), name: small_record()})
    refused(lambda: open_cohort(folder), words)


def test_an_encrypted_zip_entry(tmp_path):
    folder = write_zip(tmp_path / "zip", {"50001.bin": small_record()})
    edit_directory(folder, 8, "<H", 1)
    refused(lambda: open_cohort(folder), r"compressed_0:50001\.bin is encrypted; expected plain records")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_may_ask_for_any_memory(method, tmp_path):
    folder = write_zip(tmp_path / "zip", {"50001.bin": small_record()}, method)
    refused(lambda: open_cohort(folder), rf"compressed by method {method}; expected stored or deflated")


@pytest.mark.slow
def test_an_honest_bomb_says_its_size_and_is_not_inflated(tmp_path):
    """60 MB of zeros in 60 kB."""
    folder = write_zip(tmp_path / "zip", {"50001.bin": bytes(60 * 10**6)})
    refused(lambda: open_cohort(folder), "holds 60,000,000 bytes, .* short of a 91x109x91 record")


@pytest.mark.parametrize("size", [42 * 10**8, 2**32 - 1])
def test_a_declared_size_alone_costs_nothing(size, tmp_path):
    folder = write_zip(tmp_path / "zip", {"50001.bin": small_record()})
    edit_directory(folder, 24, "<I", size)
    refused(lambda: open_cohort(folder), "holds|is not a readable zip chunk")


@pytest.mark.slow
def test_a_bomb_that_lies_about_its_size_is_cut_off_at_one_record(tmp_path):
    folder = write_zip(tmp_path / "zip", {"50001.bin": np.float32(1).tobytes() + bytes(60 * 10**6)})
    edit_directory(folder, 24, "<I", records.record_bytes(records.REDUCED))
    refused(lambda: read_all(folder), r"50001\.bin cannot be read: Bad CRC-32|holds")


def test_an_entry_that_holds_less_than_it_says(tmp_path):
    folder = write_zip(tmp_path / "zip", {"50001.bin": small_record()[:1000]})
    edit_directory(folder, 24, "<I", records.record_bytes(records.REDUCED))
    refused(lambda: read_all(folder), r"compressed_0:50001\.bin")


@pytest.mark.parametrize("share", [0.1, 0.999])
def test_a_truncated_zip(share, tmp_path):
    folder = write_zip(tmp_path / "zip", bare_records([1, 2]))
    path = folder / "compressed_0"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(lambda: open_cohort(folder), "compressed_0 is not a readable zip chunk")


@contextmanager
def few_handles():
    """Lets this process open at most 8 more files at a time."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as file:
        lowest_free = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 8, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
def test_more_chunks_than_files_may_be_open(tmp_path):
    """An augmented cohort has a hundred chunks, and a login shell of a cluster may allow few open files."""
    members = bare_records(range(1, 41))
    for name, record in members.items():
        write_zip(tmp_path / "zip", {name: record}).joinpath("compressed_0").rename(tmp_path / "zip" / f"chunk_{name}")
    with few_handles():
        opened = read_all(tmp_path / "zip")
    assert {row.file: entry.read() for row, entry in zip(opened.rows, opened.entries, strict=True)} == members


def test_a_chunk_that_vanishes_or_changes_after_opening_is_named(tmp_path):
    opened = open_cohort(write_zip(tmp_path / "zip", {"50001.bin": small_record(seed=1)}))
    write_zip(tmp_path / "zip", {"50001.bin": small_record(seed=2)})
    refused(lambda: opened.read(0), r"compressed_0:50001\.bin cannot be read")
    (tmp_path / "zip" / "compressed_0").unlink()
    refused(lambda: opened.read(0), r"compressed_0:50001\.bin cannot be read: .*No such file")


# Names

STRANGE_NAMES = [
    "sub-01 (2nd scan), Zürich.bin",
    "</script><script>alert(1)</script>.bin",
    "=cmd|' /C calc'!A0.bin",
    "50001'; DROP TABLE--.bin",
    '50001".bin',
    "50001{{7*7}}.bin",
    "50001.tar.gz.bin",
    "-rf.bin",
    "50001\\.bin",
    "脳.bin",
    "%s%n.bin",
]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "bin"])
def test_printable_names_of_all_kinds_survive_every_form(form, tmp_path):
    members = {name.replace("/", ""): small_record(at % 2, at) for at, name in enumerate(STRANGE_NAMES)}
    pack.pack(open_cohort(write_zip(tmp_path / "zip", members)), tmp_path / "out", form)
    opened = read_all(tmp_path / "out")
    assert {row.file: entry.read() for row, entry in zip(opened.rows, opened.entries, strict=True)} == members


def test_a_name_that_is_markup_is_text_on_the_page(data_cli, tmp_path):
    folder = write_zip(tmp_path / "zip", {"</script><script>alert(1)</script>/1.bin": small_record()})
    content = np.frombuffer(small_record(0, 2), "<f4").copy()
    content[30:] = 0
    with zipfile.ZipFile(folder / "compressed_0", "a") as archive:
        archive.writestr("<script>alert(2)</script>2.bin", content.tobytes())
    data_cli("check", folder, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "alert(2)" in page
    assert page.count("<script") == 1  # that of every page


@pytest.mark.parametrize("name", ["a\nb.bin", "\x1b[2J1.bin", os.fsdecode(b"\xff1.bin")])
def test_names_that_would_write_to_the_terminal_or_the_table(name, tmp_path):
    """A folder's own file names are the file system's, which takes anything."""
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "1.bin").write_bytes(small_record())
    (folder / name).write_bytes(small_record())
    refused(lambda: open_cohort(folder), "bare names a record .*; expected one line of UTF-8 text")


HIDDEN = [".1.bin", "._1.bin", ".unfinished.1.bin", ".out.lock", ".unfinished.compressed_0", ".DS_Store"]
OTHERS = [
    "SHA256SUMS",
    "maps.csv",
    "run.json",
    "README.md",
    "notes.txt",
    "covariates.csv",
    "phenotype.csv",
    "Thumbs.db",
]


@pytest.mark.parametrize("with_tables", [True, False])
def test_what_lies_beside_records_is_no_record(with_tables, small, tmp_path):
    folder = shutil.copytree(small, tmp_path / "copy")
    if not with_tables:
        (folder / "cohort.json").unlink()
        (folder / "subjects.csv").unlink()
    before = [row.file for row in open_cohort(folder).rows]
    others = [name for name in OTHERS if not (folder / name).exists() and not (with_tables and name in SIDE_TABLES)]
    for name in HIDDEN + others:
        (folder / name).write_bytes(b"PK\x03\x04" if name.startswith(".unf") else b"Mac OS X")
    (folder / ".unfinished.out").mkdir()
    (folder / "earlier.bin").mkdir()
    assert [row.file for row in open_cohort(folder).rows] == before


def test_what_a_mac_adds_to_a_chunk_is_no_record(tmp_path):
    members = {"1.bin": small_record(1, 1), "__MACOSX/._1.bin": b"Mac OS X", ".DS_Store": b"", "a/.DS_Store": b""}
    assert [row.file for row in open_cohort(write_zip(tmp_path / "zip", members)).rows] == ["1.bin"]


# The two tables of a cohort


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("cohort.json", "[" * 100_000, r"cohort\.json is damaged"),
        ("cohort.json", '{"grid": ' + "1" * 5000 + "}", r"cohort\.json is damaged"),
        ("subjects.csv", "file,subject,site,label,split\n" + "x" * 200_000 + ",1,NYU,1,train\n", r"subjects\.csv"),
        (
            "subjects.csv",
            'file,subject,site,label,split\n"a\nb.bin",1,NYU,1,train\n',
            r"line 3 holds the text 'a\\nb\.bin'; expected one line",
        ),
        ("subjects.csv", "label,split,file,subject,site\n1,train\n0,train,1.bin,1,NYU\n", r"subjects\.csv"),
    ],
)
def test_hostile_tables(name, content, words, small, tmp_path):
    folder = shutil.copytree(small, tmp_path / "copy")
    (folder / name).write_text(content)
    refused(lambda: open_cohort(folder), words)


# NIfTI


def nifti_bytes(change: Callable = lambda header: None) -> bytes:
    """A tiny NIfTI file in memory after `change(header as a structured array)`."""
    image = nibabel.Nifti1Image(brain_map((8, 9, 8), 0), COARSE)
    image.header["sform_code"] = 4
    content = image.to_bytes()
    header = np.frombuffer(content[:348], image.header.template_dtype).copy()
    change(header[0])
    return header.tobytes() + content[348:]


def set_field(name: str, value) -> Callable:
    def change(header):
        header[name] = value

    return change


def huge(shape: tuple[int, ...], dtype: int = 16, bits: int = 32) -> Callable:
    """A header that promises `shape` numbers of a NIfTI type."""

    def change(header):
        header["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
        header["datatype"], header["bitpix"] = dtype, bits

    return change


def no_affine(header) -> None:
    header["sform_code"] = header["qform_code"] = 0


def write_map(folder: Path, content: bytes, suffix: str) -> Path:
    path = folder / f"map{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    return path


def infinite_affine(header) -> None:
    header["srow_x"] = [np.inf, 0, 0, 0]


def endless_affine(header) -> None:
    header["srow_x"] = [1e30, 0, 0, 0]


def flat_affine(header) -> None:
    header["srow_x"] = header["srow_y"]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "change, words",
    [
        (huge((250, 250, 250)), r"promises 62,500,000 bytes of values"),
        (huge((400, 400, 400)), r"claims \(400, 400, 400\) voxels of float32"),
        (huge((32767, 32767, 2), 64, 64), "claims"),
        (huge((9, 9, 9), 1536, 128), "claims .* voxels of float128|not a readable NIfTI map"),
        (huge((8, 9, 8), 32, 64), r"claims .* voxels of complex64"),
        (huge((8, 9, 4, 2)), r"has the shape \(8, 9, 4, 2\); expected one 3-D map"),
        (huge((576, 1, 1)), r"has the shape \(576, 1, 1\)"),
        (huge((-8, 9, 8)), "not a readable NIfTI map|has the shape"),
        (no_affine, "has no affine, only voxel indices; expected a map in MNI space"),
        (infinite_affine, "has an affine that cannot be inverted"),
        (flat_affine, "has an affine that cannot be inverted"),
        (endless_affine, "has an affine that cannot be inverted"),
        (set_field("vox_offset", 2e9), "not a readable NIfTI map|promises"),
        (set_field("vox_offset", np.nan), "not a readable NIfTI map"),
        (set_field("magic", b"xyz"), "not a readable NIfTI map"),
        (set_field("datatype", 4242), "not a readable NIfTI map"),
    ],
)
def test_nifti_headers_that_cannot_be_believed(change, words, suffix, tmp_path):
    path = write_map(tmp_path, nifti_bytes(change), suffix)
    refused(lambda: load_map(path), rf"map\{suffix}.*{words}")


def test_a_repaired_header_is_no_further_line_on_stderr(tmp_path, capfd, caplog):
    path = write_map(tmp_path, nifti_bytes(set_field("qform_code", 127)), ".nii")
    assert load_map(path).std() > 0
    refused(lambda: load_map(write_map(tmp_path, nifti_bytes(set_field("datatype", 4242)), ".nii")), "not a readable")
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.05, 0.7])
def test_a_truncated_map(share, suffix, tmp_path):
    path = write_map(tmp_path, nifti_bytes(), suffix)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(lambda: load_map(path), "not a readable NIfTI map|promises")


def test_an_extension_longer_than_its_file(tmp_path):
    content = nifti_bytes(set_field("vox_offset", 2**30))
    path = write_map(tmp_path, content[:348] + b"\1\0\0\0" + struct.pack("<ii", 2**30, 6) + content[360:], ".nii")
    with pytest.raises(InputError, match=r"not a readable NIfTI map|promises"):
        load_map(path)


@pytest.mark.parametrize("value", [1e300, 3e10, -np.inf])
def test_values_that_cannot_be_normalised_are_an_error_not_a_warning(value, tmp_path):
    values = brain_map((8, 9, 8), 0).astype(float)
    values[4, 4, 4] = value
    nibabel.save(nibabel.Nifti1Image(values, COARSE), tmp_path / "map.nii")
    refused(lambda: load_map(tmp_path / "map.nii"), "holds infinite values")


def test_a_map_of_two_values_is_read_without_a_warning(tmp_path):
    """nilearn warns of binary images; a mask is a strange map, but no accident."""
    values = (brain_map((8, 9, 8), 0) > 0.5).astype(np.float32) + (brain_map((8, 9, 8), 0) > 0)
    nibabel.save(nibabel.Nifti1Image(values, COARSE), tmp_path / "map.nii")
    assert load_map(tmp_path / "map.nii").std() > 0
    nibabel.save(nibabel.Nifti1Image(np.minimum(values, 1), COARSE), tmp_path / "mask.nii")
    refused(lambda: load_map(tmp_path / "mask.nii"), "is empty or constant")


def negative_sizes(header) -> None:
    header["pixdim"][1:4] *= -1


def test_what_is_odd_and_harmless_is_read(tmp_path):
    """Compressed or not, with further axes of length 1, with negative sizes of voxels, in two files."""
    expected = load_map(write_map(tmp_path, nifti_bytes(), ".nii"))
    assert expected.std() > 0
    nibabel.save(nibabel.Nifti1Pair(brain_map((8, 9, 8), 0), COARSE), tmp_path / "map.img")
    for path in (write_map(tmp_path, nifti_bytes(), ".nii.gz"), tmp_path / "map.img", tmp_path / "map.hdr"):
        np.testing.assert_array_equal(load_map(path), expected)
    for change in (huge((8, 9, 8, 1)), huge((8, 9, 8, 1, 1, 1, 1)), negative_sizes):
        np.testing.assert_array_equal(load_map(write_map(tmp_path, nifti_bytes(change), ".nii")), expected)
    refused(lambda: load_map(write_map(tmp_path, nifti_bytes(huge((8, 9, 4, 1, 2))), ".nii")), "expected one 3-D map")


def in_format(folder: Path, suffix: str) -> Path:
    """The map of the other tests in another format, or a beginning of one where nibabel writes none."""
    path, values = folder / f"map{suffix}", brain_map((8, 9, 8), 0)
    kinds = {".mgz": nibabel.MGHImage, ".mgh": nibabel.MGHImage, ".img": nibabel.AnalyzeImage}
    texts = {".PAR": b"# === DATA DESCRIPTION FILE ===", ".mnc": b"CDF\1" + bytes(99), ".mnc2": b"\x89HDF\r\n\x1a\n"}
    if suffix in kinds:
        nibabel.save(kinds[suffix](values, COARSE if suffix != ".img" else None), path)
    elif suffix == ".gii":
        nibabel.save(nibabel.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(values[0])]), path)
    else:
        path.write_bytes(texts.get(suffix, b"type = string-attribute"))
    return path


FORMATS = [".gii", ".mgz", ".img", ".mnc", ".mnc2", ".PAR", ".HEAD", ""]


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_formats_end_in_one_line(suffix, tmp_path):
    """Under their own name, where --mapColumn or --atlas may point, and under NIfTI's."""
    path = in_format(tmp_path, suffix)
    for call in (load_map, label_image):
        refused(lambda call=call: call(path), "is no NIfTI map by its name|is Spm2AnalyzeImage, not NIfTI")
    for name in ("renamed.nii", "renamed.nii.gz", "renamed.dscalar.nii"):
        shutil.copy(path, tmp_path / name)
        refused(
            lambda name=name: load_map(tmp_path / name), "is not a readable NIfTI map|has the shape|not NIfTI|has no"
        )
    refused(lambda: load_map(tmp_path), "is no NIfTI map by its name")


# Tables


def table_text() -> str:
    lines = ["ID,DX,SITE_ID,age,hand", "1,1,NYU,12.5,R", "2,2,NYU,-9999,L", '3,1,"a, b",`,', "4,2,USM,30,R"]
    return "\r\n".join(lines) + "\r\n"


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "not a readable table: it is empty"),
        (b"\n\n", "not a readable table: it is empty"),
        (b"ID,DX\n1,1,2,3\n", r"table\.csv line 2 has 4 values, the header names 2 columns"),
        (b'ID,DX\n"1,1\n', "not a readable table"),
        (b"ID,DX\nM\xfcnchen,1\n", "not a readable table: 'utf-8' codec"),
        (table_text().encode("utf-16"), "not a readable table"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not a readable table"),
        (b"ID,ID\n1,1\n", "has the column ID twice"),
        (b'"I\nD","I\nD"\n1,1\n', "has the column I D twice"),
    ],
)
def test_an_unreadable_table(content, words, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    refused(lambda: read_table(tmp_path / "table.csv"), words)


@pytest.mark.parametrize("value", ["-1e300", "9" * 400, "inf"])
def test_a_number_that_cannot_be_scaled_is_no_number(value):
    table = pd.DataFrame({"age": ["12", value, "", "30"]})
    refused(lambda: phenotype.numbers(table, "age"), rf"Column age holds '{value}'; expected numbers")
