"""SHA256SUMS: what `sha256sum` itself says of every form, and that a flipped bit is told and never passed on."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import bare_records, small_record

from data import demo
from data.base.errors import InputError
from data.base.files import read_sums, verify_sums, write_sums
from data.cohorts import records
from data.cohorts.rows import Metadata
from data.cohorts.stored import open_cohort, write_tables


def agrees(folder: Path) -> bool:
    """Whether coreutils finds every file as its sum says."""
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0


def flip(path: Path) -> None:
    """Flips one bit in the middle of a file: of a record, the lowest of a value, which nothing else can tell."""
    content = bytearray(path.read_bytes())
    content[len(content) // 8 * 4] ^= 1
    path.write_bytes(content)


def write_cohort(folder: Path, members: dict[str, bytes]) -> Path:
    """A cohort of its records as a program of this version writes it."""
    folder.mkdir()
    for name, record in members.items():
        (folder / name).write_bytes(record)
    write_tables(folder, open_cohort(folder).rows, Metadata(grid=(31, 37, 31)))
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """9 simulated subjects on the reduced grid, so that the middle of a zip is in a record."""
    target = tmp_path_factory.mktemp("few") / "reduced"
    demo.simulate(target, records.REDUCED, demo.Simulation(subjects=9, seed=1))
    return target


@pytest.fixture
def made(few, pcp, data_cli, tmp_path) -> Callable[[str], Path]:
    """`made(how)` gives a cohort that a command wrote."""
    commands = {
        "bin": ("pack", few, tmp_path / "bin", "--bin"),
        "zip": ("pack", few, tmp_path / "zip", "--zip"),
        "hdf5": ("pack", few, tmp_path / "hdf5", "--hdf5"),
        "swap": ("swap", few, tmp_path / "swap", "--copies", 1),
        "convert": ("convert", pcp, tmp_path / "convert", "--grid", "reduced"),
    }

    def run(how: str) -> Path:
        if how == "demo":
            return shutil.copytree(few, tmp_path / "demo")
        outcome = data_cli(*commands[how])
        assert outcome.status == 0, outcome.err
        return tmp_path / how

    return run


@pytest.mark.slow
@pytest.mark.parametrize("how", ["demo", "bin", "zip", "hdf5", "swap", "convert"])
def test_every_form_has_sums_that_tell_a_flipped_bit_by_name(how, made, data_cli):
    folder = made(how)
    paths = open_cohort(folder).paths
    assert {path.name for path in paths} == read_sums(folder).keys()
    assert agrees(folder)
    assert "SHA256SUMS" not in data_cli("check", folder).out
    victim = max(paths)
    flip(victim)
    assert not agrees(folder)
    outcome = data_cli("check", folder)
    assert outcome.status == 1
    assert f"PROBLEM: {victim} is not what was written, its sum in SHA256SUMS says." in outcome.out


def test_sums_are_of_the_contents_and_in_the_order_of_names(tmp_path):
    members = bare_records([3, 1, 2])
    folder = write_cohort(tmp_path / "cohort", members)
    expected = [f"{hashlib.sha256(members[name]).hexdigest()}  {name}" for name in ("1.bin", "2.bin", "3.bin")]
    assert (folder / "SHA256SUMS").read_text().splitlines() == expected


def test_names_that_sha256sum_must_escape(tmp_path):
    names = ["back\\slash.bin", "tail\\\\.bin", "sp ace.bin", "*star.bin", "ü→.bin", "-c.bin", "n\\n.bin"]
    folder = write_cohort(tmp_path / "cohort", {name: small_record(seed=at) for at, name in enumerate(names)})
    assert agrees(folder)
    assert read_sums(folder).keys() == set(names)
    flip(folder / "n\\n.bin")
    assert verify_sums(open_cohort(folder).paths) == ([folder / "n\\n.bin"], [])


def test_sums_are_no_part_of_the_digest_nor_needed(cohort, data_cli, tmp_path):
    """A cohort of an earlier version has none, which is worth a note."""
    older = shutil.copytree(cohort, tmp_path / "older")
    for name in ("SHA256SUMS", "digests.csv"):
        (older / name).unlink()
    assert open_cohort(older).digest == open_cohort(cohort).digest
    outcome = data_cli("check", older)
    assert outcome.status == 0
    first = min(path.name for path in older.glob("*.bin"))
    assert f"note: no sum in SHA256SUMS, so damage cannot be detected: {first}, " in outcome.out


def test_a_list_of_records_is_held_to_the_sums_beside_them(tmp_path):
    folder = write_cohort(tmp_path / "cohort", bare_records([1, 2, 3]))
    (tmp_path / "some.json").write_text('["cohort/1.bin", "cohort/2.bin"]')
    flip(folder / "2.bin")
    flip(folder / "3.bin")
    assert verify_sums(open_cohort(tmp_path / "some.json").paths) == ([folder / "2.bin"], [])


@pytest.mark.parametrize("arguments", [("pack", "--zip"), ("pack", "--hdf5"), ("pack", "--bin"), ("swap",)])
def test_damage_is_not_passed_on_under_new_sums(arguments, cohort, data_cli, tmp_path):
    source = shutil.copytree(cohort, tmp_path / "source")
    victim = max(source.glob("*.bin"))
    flip(victim)
    outcome = data_cli(arguments[0], source, tmp_path / "out", *arguments[1:])
    assert outcome.status == 2
    assert f"{victim} is not what was written, its sum in SHA256SUMS says. Was it damaged?" in outcome.err
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.slow
def test_a_conversion_that_is_repeated_does_not_sum_up_damage(pcp, data_cli, tmp_path):
    arguments = ("convert", pcp, tmp_path / "out", "--grid", "reduced")
    assert data_cli(*arguments).status == 0
    before = (tmp_path / "out" / "SHA256SUMS").read_text()
    victim = min((tmp_path / "out").glob("*.bin"))
    flip(victim)
    outcome = data_cli(*arguments)
    assert outcome.status == 2
    assert f"{victim} is not what SHA256SUMS says that was written" in outcome.err
    assert (tmp_path / "out" / "SHA256SUMS").read_text() == before
    victim.unlink()
    assert data_cli(*arguments).status == 0
    assert (tmp_path / "out" / "SHA256SUMS").read_text() == before


@pytest.mark.slow
def test_a_conversion_into_a_folder_whose_metadata_is_damaged_is_refused(pcp, data_cli, tmp_path):
    arguments = ("convert", pcp, tmp_path / "out", "--grid", "reduced")
    assert data_cli(*arguments).status == 0
    (tmp_path / "out" / "cohort.json").write_bytes(b"\xff\xfe")
    outcome = data_cli(*arguments)
    assert outcome.status == 2
    assert "out holds a cohort converted differently; choose another folder or remove it" in outcome.err


def test_the_table_that_marks_a_complete_cohort_comes_last(tmp_path):
    folder = write_cohort(tmp_path / "cohort", bare_records([1, 2]))
    rows = open_cohort(folder).rows
    (folder / "subjects.csv").unlink()
    flip(folder / "1.bin")
    with pytest.raises(InputError, match=r"1\.bin is not what SHA256SUMS says that was written"):
        write_tables(folder, rows, Metadata(grid=(31, 37, 31)))
    assert not (folder / "subjects.csv").exists()


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"abc  1.bin\n", b"0" * 64 + b"  ../1.bin\n", b"0" * 64 + b"  /etc/passwd\n", b"0" * 64 + b"\n"],
)
def test_damaged_sums_are_a_problem(content, data_cli, tmp_path):
    folder = write_cohort(tmp_path / "cohort", bare_records([1, 2]))
    (folder / "SHA256SUMS").write_bytes(content)
    outcome = data_cli("check", folder)
    assert outcome.status == 1
    assert [line for line in outcome.out.splitlines() if line.startswith(f"PROBLEM: {folder / 'SHA256SUMS'} ")]


def test_sums_of_files_that_are_gone_are_left_behind(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    write_sums(tmp_path, ["a", "b"])
    (tmp_path / "a").unlink()
    write_sums(tmp_path, ["b"])
    assert read_sums(tmp_path) == {"b": hashlib.sha256(b"b").hexdigest()}
