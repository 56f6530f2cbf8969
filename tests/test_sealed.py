"""What is written is what is read: a cohort is sealed by all that it says, and an edit of any one file is told."""

import csv
import json
import random
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import add_connectomes, read_rows, resealed, row, small_record, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from data.base.errors import InputError
from data.base.files import write_sums
from data.base.tables import content_sha256
from data.check import full_and_stored
from data.cohorts.cohort import PHENOTYPE
from data.cohorts.records import digests_of
from data.cohorts.rows import Metadata
from data.cohorts.stored import open_cohort, sealed, write_tables
from data.pack import pack

COUNT = 8


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Eight records of two maps, with every table and a verdict."""
    folder = tmp_path_factory.mktemp("sealed") / "cohort"
    folder.mkdir()
    people = [row(f"p{at}", float(at % 2), ("train", "test")[at // 4], site="AB"[at % 2]) for at in range(COUNT)]
    names = tuple(f"value_{at}" for at in range(29))
    values = np.arange(COUNT * 29, dtype=float).reshape(COUNT, 29) / 7
    for number, person in enumerate(people):
        header, volume = small_record(person.label, number)[:120], small_record(0, number)[120:]
        (folder / person.file).write_bytes(header + volume + small_record(0, 100 + number)[120:])
    write_rows(folder / "covariates.csv", [{"subject": of.subject, "SITE": of.site, "AGE": 10.5} for of in people])
    write_rows(
        folder / "phenotype.csv",
        [{"subject": of.subject} | dict(zip(names, values[at], strict=True)) for at, of in enumerate(people)],
    )
    write_rows(folder / "series.csv", [{"subject": of.subject, "volumes": 90, "roughness": 0.5} for of in people])
    write_tables(
        folder, people, Metadata(grid=(31, 37, 31), maps=("falff", "alff"), phenotype=names, copies="together")
    )
    add_connectomes(folder)
    assert full_and_stored(open_cohort(folder)).every("problems") == []
    assert open_cohort(folder).seal.sha256 and open_cohort(folder).seal.verdict
    return folder


def test_an_image_of_the_derivation_that_is_gone_is_told(copy):
    (copy / "derivation").mkdir()
    (copy / "derivation" / "networks.nii.gz").write_bytes(b"image")
    write_sums(copy / "derivation", ["networks.nii.gz"])
    with pytest.raises(InputError, match="not what was sealed: derivation"):
        open_cohort(copy)
    resealed(copy)
    assert open_cohort(copy).seal.sha256
    (copy / "derivation" / "networks.nii.gz").unlink()
    with pytest.raises(InputError, match="not what was sealed: derivation"):
        open_cohort(copy)


def test_what_a_file_manager_leaves_in_the_derivation_is_no_edit(copy):
    (copy / "derivation").mkdir()
    (copy / "derivation" / "networks.nii.gz").write_bytes(b"image")
    write_sums(copy / "derivation", ["networks.nii.gz"])
    resealed(copy)
    (copy / "derivation" / ".DS_Store").write_bytes(b"")
    assert open_cohort(copy).seal.sha256


def test_exchanged_people_of_long_numbers_are_told(tmp_path):
    people = [{"subject": "1234567891", "age": 1}, {"subject": "1234567892", "age": 2}]
    write_rows(tmp_path / "a.csv", people)
    write_rows(tmp_path / "b.csv", [people[0] | {"subject": "1234567892"}, people[1] | {"subject": "1234567891"}])
    assert content_sha256(tmp_path / "a.csv") != content_sha256(tmp_path / "b.csv")


@pytest.fixture
def copy(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "copy")


def edit_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_rows(path: Path, change) -> None:
    rows = read_rows(path)
    change(rows)
    write_rows(path, rows)


def exchange(folder: Path) -> None:
    """The volumes of two people, and their digests and sums, but not their connectomes."""
    one, other = ((folder / f"p{at}.bin").read_bytes() for at in (1, 3))
    (folder / "p1.bin").write_bytes(one[:120] + other[120:])
    (folder / "p3.bin").write_bytes(other[:120] + one[120:])
    edges = {of["file"]: of["connectome_sha256"] for of in read_rows(folder / "digests.csv")}

    def again(rows):
        for of in rows:
            now = digests_of((folder / of["file"]).read_bytes())
            of |= {"volume_sha256": now.volume, "map_sha256": " ".join(now.maps)}
            assert of["connectome_sha256"] == edges[of["file"]]

    edit_rows(folder / "digests.csv", again)
    (folder / "SHA256SUMS").unlink()
    named = subprocess.run(
        ["sha256sum", "connectomes.h5", *(f"p{at}.bin" for at in range(COUNT))],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    (folder / "SHA256SUMS").write_bytes(named.stdout)


def reverse(said: dict) -> None:
    said["maps"].reverse()


def exchange_splits(rows: list[dict]) -> None:
    for of in rows:
        of["split"] = {"train": "test", "test": "train"}[of["split"]]


EDITS = {
    "the order of maps": (lambda of: edit_json(of / "cohort.json", reverse), "cohort.json"),
    "a site": (lambda of: edit_rows(of / "covariates.csv", lambda rows: rows[2].update(SITE="B")), "covariates.csv"),
    "train and test": (lambda of: edit_rows(of / "subjects.csv", exchange_splits), "subjects.csv"),
    "the series": (lambda of: edit_rows(of / "series.csv", lambda rows: rows[0].update(volumes="9")), "series.csv"),
    "a raw value": (lambda of: edit_rows(of / PHENOTYPE, lambda rows: rows[4].update(value_3=1)), PHENOTYPE),
    "volumes, digests and sums": (exchange, "SHA256SUMS, digests.csv"),
    "a table that is gone": (lambda of: (of / "covariates.csv").unlink(), "covariates.csv"),
    "a table that is new": (lambda of: shutil.copy(of / "series.csv", of / "maps.csv"), "maps.csv"),
    "the seal": (lambda of: edit_json(of / "seal.json", lambda said: said.update(sha256="0" * 64)), "seal.json"),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_what_was_edited_is_named_when_a_cohort_is_opened(what, copy, data_cli):
    change, named = EDITS[what]
    change(copy)
    for command in (("check", copy), ("export", copy, "p1", copy.parent / "x.nii", "--map", "falff")):
        outcome = data_cli(*command)
        assert outcome.status == 2 and f"is not what was sealed: {named}." in outcome.err, outcome
    assert not (copy.parent / "x.nii").exists()


def test_a_table_that_a_spreadsheet_saved_passes(copy, data_cli):
    before = open_cohort(copy).seal
    for path in (copy / "covariates.csv", copy / "phenotype.csv", copy / "subjects.csv", copy / "series.csv"):
        rows = read_rows(path)
        with open(path, "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
            writer.writerow(rows[0])
            for of in rows:
                writer.writerow(
                    [f"{float(text):.12G}" if "." in text and text[-1].isdigit() else text for text in of.values()]
                )
    assert open_cohort(copy).seal == before
    assert data_cli("check", copy).status == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1.50", "1.5", True),
        ("1e-05", "0.00001", True),
        ("0012", "12", False),
        ("", "0", False),
        ("a", "b", False),
        ("1.5", "1.6", False),
        ("12345678901234567", "12345678901234568", False),
    ],
)
def test_equal_numbers_are_equal_content(one, other, same, tmp_path):
    for name, cell in (("a", one), ("b", other)):
        write_rows(tmp_path / f"{name}.csv", [{"subject": "x", "value": cell}])
    assert (content_sha256(tmp_path / "a.csv") == content_sha256(tmp_path / "b.csv")) is same


def test_a_verdict_is_of_the_seal(copy):
    assert json.loads((copy / "check.json").read_text())["cohort_sha256"] == open_cohort(copy).seal.sha256


def test_tables_of_a_script_are_sealed_by_packing_and_refused_by_all_else(copy, data_cli, cli):
    for name in ("seal.json", "digests.csv", "SHA256SUMS", "check.json"):
        (copy / name).unlink()
    for command in (("check", copy), ("swap", copy, copy.parent / "swapped")):
        outcome = data_cli(*command)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert "no seal.json" in outcome.err and f"abide-data pack {copy} " in outcome.err
    outcome = cli("--train", "--model", "nn", "--dataDir", copy, "--chkPointDir", copy.parent / "ckpt")
    assert (outcome.status, f"abide-data pack {copy} " in outcome.err) == (2, True)
    assert data_cli("pack", copy, copy.parent / "packed", "--zip").status == 0
    packed = open_cohort(copy.parent / "packed")
    assert packed.seal.sha256 and packed.rows == open_cohort(copy, is_sealed=False).rows
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy", "packed"]


def test_a_cohort_of_another_format_is_refused(copy, data_cli, tmp_path):
    for number in (2, None):
        edit_json(copy / "seal.json", lambda said, number=number: said.update(format=number))
        for command in (("check", copy), ("pack", copy, tmp_path / "packed", "--bin")):
            outcome = data_cli(*command)
            assert (outcome.status, outcome.err.count("\n")) == (2, 1)
            assert f"has the format {number}, this program reads format 1" in outcome.err


@pytest.mark.parametrize("form", ["bin", "zip"])
def test_every_form_is_sealed(form, written, tmp_path):
    pack(open_cohort(written), tmp_path / "packed", form)
    packed = open_cohort(tmp_path / "packed")
    assert packed.seal.sha256
    edit_rows(tmp_path / "packed" / "covariates.csv", lambda rows: rows[2].update(SITE="B"))
    with pytest.raises(InputError, match=r"covariates\.csv"):
        open_cohort(tmp_path / "packed")


def changed(value, draw: random.Random):
    """Another JSON value in one place."""
    if isinstance(value, dict) and value:
        name = draw.choice(sorted(value))
        return value | {name: changed(value[name], draw)}
    if isinstance(value, list) and value:
        at = draw.randrange(len(value))
        return [*value[:at], changed(value[at], draw), *value[at + 1 :]]
    if isinstance(value, bool) or value is None or isinstance(value, (dict, list)):
        return "x"
    return value + 1 if isinstance(value, int | float) else f"{value}x"


def edit(path: Path, draw: random.Random) -> None:
    """Changes what a file says, in one random place."""
    if path.suffix == ".json":
        path.write_text(json.dumps(changed(json.loads(path.read_text()), draw)))
    elif path.suffix == ".csv":
        rows = list(csv.reader(path.read_text().splitlines()))
        line, cell = draw.choice(rows), draw.choice(draw.choice(rows))
        at = draw.randrange(len(line))
        line[at] = draw.choice([text for text in (f"7{line[at]}", "other", cell) if text != line[at]])
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    elif path.suffix == ".h5":
        with h5py.File(path, "r+") as store:
            place = draw.randrange(store["z"].shape[0]), draw.randrange(store["z"].shape[1])
            store["z"][place] = 9
    elif path.suffix == ".bin":
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
    else:
        lines = path.read_text().splitlines()
        at = draw.randrange(len(lines))
        lines[at] = ("0" if lines[at][0] != "0" else "1") + lines[at][1:]
        path.write_text("\n".join([*lines, ""]))


def told(folder: Path) -> bool:
    """Whether opening, reading or the stored verdict says that something is not as it was."""
    try:
        found = sealed(folder)
        for index in range(COUNT):
            found.read(index)
        found.connectomes.verify()
    except InputError:
        return True
    return found.seal.verdict is None


@given(st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_an_edit_of_any_one_file_is_told(written, tmp_path_factory, draw):
    folder = shutil.copytree(written, tmp_path_factory.mktemp("edited") / "copy")
    assert not told(folder)
    path = draw.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    edit(path, draw)
    assert told(folder), (path.name, path.read_bytes()[:3000])
    shutil.rmtree(folder)
