"""4-D files as named maps: the records of files split by hand, names and numbers checked, each file read once."""

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import COARSE, brain_map, pcp_table, read_rows, write_rows

from data.base.errors import InputError
from data.cohorts import nifti, records
from data.cohorts.nifti import MapOnDisk
from data.cohorts.stored import open_cohort
from data.conversion.layouts import Listing
from data.conversion.options import SourceOptions
from data.conversion.plan import check_like
from data.conversion.source import read_source
from data.conversion.volumes import Wanted, maps_in, read_person, wanted

NETS = ("net_0", "net_1", "net_2")


def network(person: int, number: int) -> np.ndarray:
    """A map of either sign (8, 10, 8)."""
    values = brain_map((8, 10, 8), 100 * number + person)
    return np.where(values, values - 0.3 - 0.05 * (person % 7), 0).astype(np.float32)


def save(path: Path, *volumes: np.ndarray) -> None:
    """A 3-D file of one volume, a 4-D one of several."""
    values = volumes[0] if len(volumes) == 1 else np.stack(volumes, -1)
    nibabel.save(nibabel.Nifti1Image(values, COARSE), path)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """The PCP layout of 8 people with fALFF and a 4-D file of three networks, which columns of the table name, too."""
    folder = tmp_path_factory.mktemp("scans") / "pcp"
    rows = [row for row in pcp_table() if row["FILE_ID"] != "no_filename"][:8]
    columns = [row | {of: f"{row['FILE_ID']}_{of}.nii.gz" for of in ("falff", "net")} for row in rows]
    write_rows(folder / "Phenotypic_V1.csv", columns)
    for person, row in enumerate(rows):
        save(folder / f"{row['FILE_ID']}_falff.nii.gz", brain_map((8, 10, 8), person))
        save(folder / f"{row['FILE_ID']}_net.nii.gz", *(network(person, number) for number in range(3)))
    return folder


@pytest.fixture(scope="module")
def converted(scans, data_cli, tmp_path_factory):
    """A cohort of all maps of `scans`, and what its conversion printed."""
    folder = tmp_path_factory.mktemp("converted") / "cohort"
    outcome = data_cli("convert", scans, folder, "--grid", "reduced", "--maps", "falff,net")
    assert outcome.status < 2, outcome.err
    return folder, outcome.out


@pytest.mark.slow
def test_a_4d_file_gives_the_records_of_its_volumes_in_files_of_their_own(scans, converted, tmp_path):
    folder, told = converted
    assert "net: 3 volumes a person: net_0, net_1, net_2.\n" in told
    assert "net_2: Maps: of either sign.\n" in told
    assert open_cohort(folder).maps == ("falff", *NETS)
    assert {row["map"] for row in read_rows(folder / "maps.csv")} == {"falff", *NETS}
    (whole,) = scans.glob("*50004_net.nii.gz")
    split = [MapOnDisk(next(scans.glob("*50004_falff.nii.gz")))]
    for number, image in enumerate(nibabel.four_to_three(nibabel.load(whole))):
        nibabel.save(image, tmp_path / f"{number}.nii.gz")
        split.append(MapOnDisk(tmp_path / f"{number}.nii.gz"))
    read_person(split, records.REDUCED, tmp_path / "record.bin")
    assert (tmp_path / "record.bin").read_bytes()[120:] == (folder / "50004.bin").read_bytes()[120:]


@pytest.mark.slow
def test_new_people_get_the_same_volumes(scans, converted, data_cli, tmp_path):
    rows = read_rows(scans / "Phenotypic_V1.csv")
    new = [row | {"SUB_ID": str(60000 + at), "FILE_ID": f"X_{60000 + at}"} for at, row in enumerate(rows[:2])]
    write_rows(tmp_path / "new" / "new.csv", new)
    for at in range(2):
        save(tmp_path / "new" / f"X_{60000 + at}_falff.nii.gz", brain_map((8, 10, 8), 50 + at))
        save(tmp_path / "new" / f"X_{60000 + at}_net.nii.gz", *(network(50 + at, number) for number in range(3)))
    outcome = data_cli("convert", tmp_path / "new", tmp_path / "out", "--like", converted[0])
    assert outcome.status < 2, outcome.err
    assert open_cohort(tmp_path / "out").maps == ("falff", *NETS)
    source = read_source(scans, SourceOptions(maps=("net_2", "falff")))
    with pytest.raises(
        InputError, match=r"holds 4 maps a record \(falff, net_0, net_1, net_2\), but net_2, falff were"
    ):
        check_like(source, open_cohort(converted[0]))


def test_one_volume_is_a_map_by_itself(scans):
    source = read_source(scans, SourceOptions(maps=("net_2", "falff", "net_0")))
    assert source.maps.iloc[0].tolist() == [
        MapOnDisk(scans / "PITT_0050002_net.nii.gz", 2),
        MapOnDisk(scans / "PITT_0050002_falff.nii.gz"),
        MapOnDisk(scans / "PITT_0050002_net.nii.gz", 0),
    ]
    assert [*source.maps] == ["net_2", "falff", "net_0"]


@pytest.mark.parametrize(
    "maps, found",
    [
        (("f", "visual", "motor", "default"), ["f", "visual", "motor", "default"]),
        (("f", "n"), ["f", "n_0", "n_1", "n_2"]),
        (None, ["falff", "net_0", "net_1", "net_2"]),
    ],
)
def test_columns_of_4d_files(maps, found, scans):
    source = read_source(scans, SourceOptions(map_column="falff,net", maps=maps))
    assert [*source.maps] == found
    assert source.maps[found[2]].iloc[0] == MapOnDisk(scans / "PITT_0050002_net.nii.gz", 1)


@pytest.mark.parametrize(
    "maps, words",
    [
        (
            "f,visual,motor",
            "for the maps f, visual, motor; expected a name a column, or a name for each of the 4",
        ),
        ("all", "--maps all finds maps by their names"),
    ],
)
def test_names_that_do_not_fit_the_columns(maps, words, scans):
    with pytest.raises(InputError, match=words):
        read_source(scans, SourceOptions(map_column="falff,net", maps=tuple(maps.split(","))))


def test_a_volume_that_is_named_twice(scans):
    with pytest.raises(InputError, match="The maps are called net_0, net_1, net_2, net_1, one twice among them"):
        read_source(scans, SourceOptions(maps=("net", "net_1")))


def test_nobody_has_a_row_for_a_volume(scans, data_cli, tmp_path):
    outcome = data_cli("convert", scans, tmp_path / "out", "--maps", "net_1", "--where", "AGE_AT_SCAN > 200")
    assert outcome.status == 2
    assert "Nobody of" in outcome.err
    assert "--where AGE_AT_SCAN > 200 is false" in outcome.err


def test_all_takes_what_everybody_has_and_says_so(scans, tmp_path):
    folder = shutil.copytree(scans, tmp_path / "scans")
    for path in folder.glob("*_net.nii.gz"):
        path.rename(path.with_name(path.name.replace("_net", "_dual_regression")))
    for path in folder.glob("*_falff.nii.gz"):
        shutil.copy(path, path.with_name(path.name.replace("_falff", "_reho")))
    next(folder.glob("*50003_reho*")).unlink()
    next(folder.glob("*50004_falff*")).unlink()
    for path in folder.glob("*50006_*"):  # who has no map keeps nobody from theirs
        path.unlink()
    source = read_source(folder, SourceOptions(maps=("all",), exclude="50004"))
    assert "Left out: reho, which 1 of 6 people lack, 50003." in source.notes
    assert "Maps that all 6 people have: falff, dual_regression. Name others with --maps." in source.notes
    assert source.left_out["no map"] == ["50006"]
    assert [*source.maps] == ["falff", "dual_regression_0", "dual_regression_1", "dual_regression_2"]
    assert len(source.maps) == 6
    for path in folder.glob("*_dual_regression*"):
        path.unlink()
    with pytest.raises(InputError, match=r"No map is there for everybody\. .* falff, which 1 of 7 people lack, 50004"):
        read_source(folder, SourceOptions(maps=("all",)))


# Names and numbers


@pytest.fixture
def files(tmp_path):
    """A table of 4-D files of three volumes, `a_net.nii` to `d_net.nii`, by column."""
    for person, name in enumerate("abcd"):
        save(tmp_path / f"{name}_net.nii", *(network(person, number) for number in range(3)))
    return pd.DataFrame({"net": [tmp_path / f"{name}_net.nii" for name in "abcd"]})


def beside(folder: Path, people: str, labels: object) -> None:
    for name in people:
        (folder / f"{name}_net.json").write_text(json.dumps({"LabelMap": labels, "Sources": ["x"]}))


def test_volumes_have_the_names_of_a_listing_or_of_the_json_beside_each_file(files, tmp_path):
    every = [Wanted("net")]
    assert [*maps_in(files, every, tmp_path)[0]] == ["net_0", "net_1", "net_2"]
    beside(tmp_path, "abcd", ["visual", "motor", "default"])
    maps, notes = maps_in(files, every, tmp_path)
    assert [*maps] == ["net_visual", "net_motor", "net_default"]
    assert maps["net_motor"].tolist() == [MapOnDisk(tmp_path / f"{name}_net.nii", 1) for name in "abcd"]
    named = f"named by {tmp_path / 'a_net.json'}: net_visual, net_motor, net_default."
    assert notes == [f"net: 3 volumes a person, {named}"]
    assert [*maps_in(files, [Wanted("net", "default")], tmp_path)[0]] == ["net_default"]
    (tmp_path / "net.txt").write_bytes(b"\xef\xbb\xbfV1\r\nM1\r\n\r\nDMN\r\n")
    assert [*maps_in(files, every, tmp_path)[0]] == ["net_V1", "net_M1", "net_DMN"]


@pytest.mark.parametrize(
    "spoil, words",
    [
        (
            lambda folder: save(folder / "c_net.nii", network(0, 0), network(0, 1)),
            "c_net.nii holds 2 volumes, the net ",
        ),
        (lambda folder: save(folder / "a_net.nii", *[network(0, 0)] * 4), r"a_net.nii holds 4 .* of 3 other people 3;"),
        (lambda folder: save(folder / "d_net.nii", network(0, 0)), "d_net.nii holds 1 volumes, .* with --exclude"),
        (
            lambda folder: beside(folder, "abd", ["x", "y", "z"]),
            "beside .*c_net.nii and .*a_net.nii name their volumes",
        ),
        (lambda folder: beside(folder, "abcd", ["x", "y"]), "a_net.json names 2 volumes; expected 3 different names"),
        (
            lambda folder: beside(folder, "abcd", ["x", "y", "y"]),
            "a_net.json names 3 volumes, 'y' twice among them; expected",
        ),
        (lambda folder: beside(folder, "abcd", {"1": "x"}), r"a_net.json: LabelMap is .*; expected a list of names"),
        (lambda folder: (folder / "a_net.json").write_text("{"), "a_net.json is damaged"),
        (lambda folder: (folder / "net.txt").write_text("a\nb c\nd"), "net.txt names 3 volumes, 'b c' among them"),
        (lambda folder: (folder / "net.txt").write_text("a\n" * 10**6), "names 1000000 volumes, 'a' twice among them"),
        (lambda folder: (folder / "net.txt").touch(), "net.txt names 0 volumes; expected 3"),
        (
            lambda folder: save(folder / "a_net.nii", *[network(0, 0)] * 65),
            "a_net.nii holds 65 volumes, as a scan does",
        ),
    ],
)
def test_people_whose_volumes_differ_are_named(spoil, words, files, tmp_path):
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        maps_in(files, [Wanted("net")], tmp_path)


def test_a_volume_that_is_not_there(files, tmp_path):
    with pytest.raises(InputError, match=r"holds no net_7 maps, and .*a_net\.nii holds 0, 1, 2; name one of these"):
        maps_in(files, [Wanted("net", "7")], tmp_path)
    assert wanted(Listing(tmp_path), "net_") == Wanted("net", "")
    save(tmp_path / "a_net.nii", network(0, 0))
    with pytest.raises(InputError, match=r"holds no net_7 maps, and .*a_net\.nii is 3-D; name its maps with --maps"):
        maps_in(files, [Wanted("net", "7")], tmp_path)
    maps, notes = maps_in(files, [Wanted("net")], tmp_path)
    assert notes == []
    with pytest.raises(InputError, match=r"b_net\.nii has the shape \(8, 10, 8, 3\); expected one 3-D map"):
        next(nifti.read_maps(maps.iloc[1].tolist()))


# Reading


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_volumes_are_those_that_nibabel_reads_whole(suffix, dtype, tmp_path):
    random, path = np.random.default_rng(0), tmp_path / f"map{suffix}"
    kind = nibabel.Nifti1Pair if suffix == ".img" else nibabel.Nifti1Image
    image = kind(random.normal(size=(5, 6, 7, 1, 4)), COARSE)
    image.set_data_dtype(dtype)  # integers are stored with a slope
    nibabel.save(image, path)
    whole = np.asarray(nibabel.load(path).dataobj, np.float32)[::-1, :, :, 0]
    for number, of_map in zip((2, 3, 0), nifti.read_maps([MapOnDisk(path, at) for at in (2, 3, 0)]), strict=True):
        np.testing.assert_allclose(np.asarray(of_map.dataobj), whole[..., number], rtol=1e-6)
        assert nibabel.aff2axcodes(of_map.affine) == ("R", "A", "S")


@pytest.mark.parametrize("number", [0, 2])
def test_values_that_are_not_those_compressed_are_refused(number, tmp_path):
    path = tmp_path / "map.nii.gz"
    save(path, *(network(0, at) for at in range(3)))
    whole = path.read_bytes()
    damaged = bytearray(gzip.decompress(whole))
    damaged[-100] ^= 1  # in the last volume
    stream = gzip.compress(bytes(damaged))
    for content in (whole[:-6], stream[:-8] + whole[-8:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"map\.nii\.gz is not a readable NIfTI map: .*Copy it again"):
            next(nifti.read_maps([MapOnDisk(path, number)]))


def test_a_file_is_read_once_a_person(files, monkeypatch, tmp_path):
    save(tmp_path / "a_falff.nii", brain_map((8, 10, 8), 0))
    opened = Counter()
    monkeypatch.setattr(nifti, "open_image", lambda path, real=nifti.open_image: (opened.update([path]), real(path))[1])
    maps = [MapOnDisk(tmp_path / "a_falff.nii"), *(MapOnDisk(tmp_path / "a_net.nii", number) for number in range(3))]
    found = read_person(maps, records.REDUCED, tmp_path / "record.bin").measured
    assert opened == {tmp_path / "a_falff.nii": 1, tmp_path / "a_net.nii": 1}
    for number, measured in enumerate(found[1:]):
        values = network(0, number)
        assert measured["mean"] == pytest.approx(values[values != 0].mean(), rel=1e-4)


def test_an_empty_volume_is_named(tmp_path):
    save(tmp_path / "a_net.nii", network(0, 0), np.zeros((8, 10, 8), np.float32))
    with pytest.raises(InputError, match=r"a_net\.nii, volume 1 is empty or constant"):
        list(nifti.read_brains([MapOnDisk(tmp_path / "a_net.nii", number) for number in range(2)]))
