"""A cohort: every form of it holds the same records, its tables say what they hold, a volume lies where it belongs."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import lab
import nibabel
import numpy as np
import pytest
from commands import ROOT, done, listing, read_page_text, run
from lab import load_image

SHAPES = {"reduced": (31, 37, 31), "full": (91, 109, 91)}
PLAN = "run.py --train --model nn --dryRun --dataDir {of} --chkPointDir {of}-ckpt"


def content(folder: Path) -> dict[str, bytes]:
    """All files but the verdict, which says when."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "check.json"}


def pack_cohort(source_folder: Path, target_folder: Path, form: str) -> Path:
    done(f"abide-data pack {{of}} {{to}} --{form}", of=source_folder, to=target_folder)
    return target_folder


def read_records(folder: Path) -> dict[str, bytes]:
    return {name: record_bytes for name, record_bytes in content(folder).items() if name.endswith(".bin")}


def zip_records(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, number: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"compressed_{number}", "w", method) as chunk:
        for name, record_bytes in members.items():
            chunk.writestr(name, record_bytes)
    return folder


def write_bare_records(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, record_bytes in members.items():
        (folder / name).write_bytes(record_bytes)
    return folder


MEMBERS = {f"{number}.bin": lab.record(number) for number in range(1, 9)}
FORMS = {
    "records": lambda folder: write_bare_records(folder, MEMBERS),
    "deflated": lambda folder: zip_records(folder, MEMBERS),
    "stored": lambda folder: zip_records(folder, MEMBERS, zipfile.ZIP_STORED),
    "in folders": lambda folder: zip_records(
        folder, {f"{name[0]}/{name}": member_bytes for name, member_bytes in MEMBERS.items()}
    ),
    "two chunks": lab.write_chunks,
}


# Forms


@pytest.mark.parametrize("form", FORMS)
def test_bare_forms_give_the_same_records_and_tables(form, tmp_path):
    """It is read in place: nothing is unpacked or changed."""
    bare_folder = FORMS[form](tmp_path / "bare")
    before = listing(bare_folder)
    packed_folder = pack_cohort(bare_folder, tmp_path / "to", "bin")
    assert read_records(packed_folder) == MEMBERS
    table = lab.read_table(packed_folder / "subjects.csv")
    assert table.set_index("subject")["label"].to_dict() == {f"{number}": f"{number % 2}" for number in range(1, 9)}
    assert set(table["site"]) == {"unknown"}
    assert listing(bare_folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("size", ["cohort", "full_cohort"])
def test_packing_and_unpacking_is_bit_exact_tables_included(size, request, tmp_path):
    source = request.getfixturevalue(size)
    zip_folder = pack_cohort(source, tmp_path / "there", "zip")
    assert content(pack_cohort(zip_folder, tmp_path / "back", "bin")) == content(source)
    assert content(pack_cohort(shutil.copytree(source, tmp_path / "copy"), tmp_path / "again", "zip")) == content(
        zip_folder
    )
    for number in range(len(list(zip_folder.glob("compressed*")))):
        with zipfile.ZipFile(zip_folder / f"compressed_{number}") as chunk:
            assert chunk.testzip() is None


STRANGE = ["sub-01 (2nd scan), Zürich.bin", "=cmd.bin", '50001".bin', "50001.tar.gz.bin", "-rf.bin", "脳.bin"]
STRANGE += ["back\\slash.bin", "tail\\\\.bin", "*star.bin", "n\\n.bin", "%s%n.bin"]


@pytest.mark.slow
def test_unusual_names_survive_all_forms_and_have_sums(tmp_path):
    members = {name: lab.record(number) for number, name in enumerate(STRANGE)}
    folder = zip_records(tmp_path / "given", members)
    for form in ("zip", "bin"):
        folder = pack_cohort(folder, tmp_path / form, form)
        assert agrees(folder)
    assert read_records(folder) == members


def test_a_bare_records_subject_is_the_first_number_in_the_name(tmp_path):
    subject_by_file = {
        "0051573.bin": "51573",
        "swap_51574_2.bin": "51574",
        "NYU_0051575_falff.bin": "51575",
        "new.bin": "new",
    }
    bare_folder = write_bare_records(
        tmp_path / "bare", {name: lab.record(subject_number) for subject_number, name in enumerate(subject_by_file)}
    )
    table = lab.read_table(pack_cohort(bare_folder, tmp_path / "to", "bin") / "subjects.csv")
    assert dict(zip(table["file"], table["subject"], strict=True)) == subject_by_file


@pytest.mark.slow
def test_a_subjects_records_share_a_split_and_a_tenth_are_test_subjects(tmp_path):
    numbers = range(50000, 50100)
    members = {f"{form}{number}.bin": lab.record(number) for number in numbers for form in ("", "swap_00")}
    table = lab.read_table(
        pack_cohort(write_bare_records(tmp_path / "bare", members), tmp_path / "to", "zip") / "subjects.csv"
    )
    assert (table.groupby("subject")["split"].nunique() == 1).all() and table["subject"].nunique() == 100
    assert 0.04 < (table["split"] == "test").mean() < 0.18


def check_lines(cohort_folder: Path) -> list[str]:
    """What a check says."""
    return [line for line in run("abide-data check {of}", of=cohort_folder).out.splitlines() if " s left" not in line]


LEFT = [".1.bin", "._1.bin", ".unfinished.1.bin", ".out.lock", ".DS_Store", "README.md", "notes.txt", "Thumbs.db"]


@pytest.mark.parametrize("form", ["bare", "with tables", "zip"])
def test_file_manager_leftovers_are_no_records(form, tmp_path):
    cohort_folder = (
        zip_records(tmp_path / "of", MEMBERS) if form == "zip" else write_bare_records(tmp_path / "of", MEMBERS)
    )
    if form == "with tables":
        cohort_folder = pack_cohort(cohort_folder, tmp_path / "packed", "bin")
    before = check_lines(cohort_folder)
    for name in LEFT:
        (cohort_folder / name).write_bytes(b"Mac OS X")
    (cohort_folder / ".unfinished.out").mkdir()
    (cohort_folder / "earlier.bin").mkdir()
    if form == "zip":
        with zipfile.ZipFile(cohort_folder / "compressed_0", "a") as chunk:
            for name in ("__MACOSX/._1.bin", ".DS_Store", "a/.DS_Store"):
                chunk.writestr(name, b"Mac OS X")
    assert check_lines(cohort_folder) == before


@pytest.mark.slow
def test_more_chunks_than_files_may_be_open(tmp_path):
    """An augmented cohort has a hundred chunks, and a login shell of a cluster may allow few open files."""
    for number in range(60):
        zip_records(tmp_path / "of", {f"{number}.bin": lab.record(number)}, number=number)
    command = f"ulimit -n 48; {sys.executable} -m data pack {tmp_path}/of {tmp_path}/to --bin"
    subprocess.run(["bash", "-c", command], cwd=ROOT, check=True, capture_output=True)
    assert read_records(tmp_path / "to") == {f"{number}.bin": lab.record(number) for number in range(60)}


# Sums and digests


def agrees(folder: Path) -> bool:
    """Whether coreutils finds every file as its sum says."""
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0


def sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["bin", "zip"])
def test_all_forms_have_file_sums_and_record_digests(form, converted, tmp_path):
    folder = pack_cohort(converted, tmp_path / "to", form)
    names = {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert {line[66:] for line in lines} == names and agrees(folder)
    size = 4 * np.prod(SHAPES["reduced"])
    for row in lab.read_table(folder / "subjects.csv").to_dict("records"):
        volume = (converted / row["file"]).read_bytes()[120:]
        assert row["volume_sha256"] == sha256(volume)
        assert row["map_sha256"].split() == [sha256(volume[:size]), sha256(volume[size:])]


def test_bare_records_without_sums_are_noted(tmp_path):
    records_folder = lab.records(tmp_path / "records", 2)
    done("abide-data check {of} --html check.html", of=records_folder)
    assert "so damage cannot be detected: 1.bin, 2.bin" in read_page_text(Path("check.html"))


@pytest.mark.slow
def test_a_flipped_bit_is_reported_by_name_whoever_wrote_the_cohort(cohort, swapped, tmp_path):
    for cohort_folder in (
        lab.copy(swapped, tmp_path / "swapped"),
        pack_cohort(cohort, tmp_path / "packed", "zip"),
        lab.copy(cohort, tmp_path / "demo"),
    ):
        victim = max(path for path in cohort_folder.iterdir() if path.suffix == ".bin" or "compressed" in path.name)
        lab.edit(victim, "flipped")
        outcome = run("abide-data check {of}", of=cohort_folder)
        assert outcome.status == 1
        assert f"PROBLEM       {victim} is not what was written, its sum in SHA256SUMS says." in outcome.out


# What a check says


@pytest.mark.slow
def test_people_are_counted_and_the_verdict_names_the_cohort(converted, tmp_path):
    cohort_folder = lab.copy(converted, tmp_path / "of")
    check_output = done("abide-data check {of}", of=cohort_folder)
    table = lab.read_table(cohort_folder / "subjects.csv")
    for split, rows in table.groupby("split"):
        labels = rows["label"].value_counts()
        assert f"{split} {len(rows)} ({labels['0']} control, {labels['1']} autism)" in check_output
    sites = [
        f"{name} {sum(site_labels == '1')}/{sum(site_labels == '0')}"
        for name, site_labels in table.groupby("site")["label"]
    ]
    assert f"autism/control by site: {', '.join(sites)}" in check_output
    verdict = json.loads((cohort_folder / "check.json").read_text())
    assert verdict["cohort_sha256"] == sha256((cohort_folder / "SHA256SUMS").read_bytes())
    assert f"on {verdict['when'][:10]}: 1 problem" in done(PLAN, of=cohort_folder)
    lab.edit(cohort_folder / "check.json", {"cohort_sha256": "0" * 64})
    assert " no: abide-data check " in done(PLAN, of=cohort_folder)
    (cohort_folder / "check.json").unlink()
    (cohort_folder / "check.json").mkdir()  # such a file cannot be replaced
    assert "check.json: Is a directory" in done("abide-data check {of}", of=cohort_folder)


def test_faults_in_bare_records_are_reported(tmp_path):
    """The site is unknown; one subject has both labels; a split that lacks a class matters unless there are folds."""
    cohort_folder = write_bare_records(tmp_path / "of", MEMBERS | {"3_b.bin": lab.record(77, 0.0)})
    outcome = run("abide-data check {of}", of=cohort_folder)
    assert outcome.status == 1 and "PROBLEM       both labels for one participant, of 1 participant: 3" in outcome.out
    assert "Site is unknown" in outcome.out and "9 records of 8 participants" in outcome.out
    few = write_bare_records(
        tmp_path / "few", {f"{number}.bin": lab.record(number, float(number > 4)) for number in range(1, 9)}
    )
    split = lab.read_table(pack_cohort(few, tmp_path / "packed", "bin") / "subjects.csv")
    lacks = "the test split lacks a class"
    assert (lacks in done("abide-data check {of}", of=tmp_path / "packed")) == (split["split"] == "test").any()
    assert lacks not in done(f"{PLAN} --folds 2", of=tmp_path / "packed")


# One volume as NIfTI


@pytest.mark.parametrize("grid, size", [("reduced", 6), ("full", 2)])
def test_an_exported_volume_has_the_true_affine_and_values(grid, size, tmp_path):
    """One bright voxel lies at the place in mm that the design gives it: right, front, low; left, back, high."""
    for case_number, (right, front, high) in enumerate([(42, 54, -24), (-72, -120, 102)]):
        volume = np.zeros(SHAPES[grid], "<f4")
        volume[tuple(np.add((right, front, high), (90, 126, 72)) // size)] = 1
        write_bare_records(tmp_path / f"of{case_number}", {"7.bin": lab.record(7)[:120] + volume.tobytes()})
        done("abide-data volume {of} 7 {of}.nii.gz", of=tmp_path / f"of{case_number}")
        image = load_image(tmp_path / f"of{case_number}.nii.gz")
        assert image.affine.tolist() == [[size, 0, 0, -90], [0, size, 0, -126], [0, 0, size, -72], [0, 0, 0, 1]]
        assert (image.header["sform_code"], image.header["qform_code"]) == (4, 4)  # MNI
        assert image.get_qform().tolist() == image.affine.tolist()
        assert image.header.get_xyzt_units()[0] == "mm" and image.get_data_dtype() == np.float32
        [bright] = np.argwhere(np.asarray(image.dataobj) == 1)
        assert tuple(nibabel.affines.apply_affine(image.affine, bright)) == (right, front, high)


def test_a_record_among_several_is_chosen_by_name(tmp_path):
    write_bare_records(tmp_path / "of", {"9_a.bin": lab.record(1), "9_b.bin": lab.record(2)})
    done("abide-data volume {of} 9_b.bin {to}.nii", of=tmp_path / "of", to=tmp_path / "x")
    volume = lab.read_record(tmp_path / "of/9_b.bin")[2][0]
    np.testing.assert_array_equal(load_image(tmp_path / "x.nii").dataobj, volume)
