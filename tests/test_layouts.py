"""abide-data convert: one set of subjects in every layout, orientation and table form gives the same records."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import LAS_6MM, PCP_COLUMNS, PCP_ROWS, ROOT, load_map, read_rows, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import orientations
from nilearn.image import resample_img

from data.base.errors import InputError
from data.cohorts.phenotype import custom_values
from data.cohorts.stored import open_cohort
from data.conversion.layouts import Listing, files_below, find_maps
from data.conversion.sites import Sites

SUBJECTS = [51450 + number for number in range(6)]
COLUMNS = ["SUB_ID", "SITE_ID", "FILE_ID", "DX_GROUP", *PCP_COLUMNS]
BOM = "\ufeff"


def blob_brain(seed: int, shape=(31, 37, 31)) -> np.ndarray:
    """A smooth ellipsoid between -1 and 1 on each axis, brighter on the right, with a blob of the subject's own."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    random = np.random.default_rng(seed)
    place = random.uniform(-0.4, 0.4, 3)
    blob = np.exp(-6 * sum((axis - at) ** 2 for axis, at in zip((x, y, z), place, strict=True)))
    ellipsoid = 1 / (1 + np.exp(12 * (np.sqrt(x**2 + y**2 + z**2) - 0.75)))
    values = ellipsoid * (1 + 0.5 * x + blob)
    return np.where(values > 0.05, values, 0).astype(np.float32)


def stored_las(seed: int) -> nibabel.Nifti1Image:
    """The brain as the project stores it: x runs to the left."""
    return nibabel.Nifti1Image(blob_brain(seed)[::-1], LAS_6MM)


def turned(image: nibabel.Nifti1Image, codes: str) -> nibabel.Nifti1Image:
    """The same map with its axes stored as `codes` says: LPS, or PSR for rotated axes."""
    wanted = orientations.axcodes2ornt(codes)
    change = orientations.ornt_transform(orientations.io_orientation(image.affine), wanted)
    result = image.as_reoriented(change)
    assert "".join(orientations.aff2axcodes(result.affine)) == codes
    return result


@dataclass
class Scene:
    """Maps and a table, before they are laid out."""

    images: dict[int, nibabel.Nifti1Image]
    rows: list[dict] = field(default_factory=list)


def simulated() -> Scene:
    """6 subjects at two sites, labels alternating, with the missing values that the conftest rows have."""
    rows = []
    for number, subject in enumerate(SUBJECTS):
        site = ("PITT", "NYU")[number // 2 % 2]
        keys = {"SUB_ID": str(subject), "SITE_ID": site, "FILE_ID": f"{site}_00{subject}"}
        values = dict(zip(PCP_COLUMNS, PCP_ROWS[number % len(PCP_ROWS)], strict=True))
        rows.append(keys | {"DX_GROUP": str(1 + number % 2)} | values)
    return Scene({subject: stored_las(subject) for subject in SUBJECTS}, rows)


@pytest.fixture
def scene() -> Scene:
    """Of a test, which may change it."""
    return simulated()


def save_maps(scene: Scene, name) -> None:
    """Writes each subject's map to the path `name(subject)`."""
    for subject, image in scene.images.items():
        path = name(subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(image, path)


def write_pcp(folder: Path, scene: Scene) -> list:
    """nilearn's layout; what the label means is known of ABIDE's own table."""
    site = {row["SUB_ID"]: row["FILE_ID"] for row in scene.rows}
    save_maps(scene, lambda subject: folder / "cpac" / "nofilt" / f"{site[str(subject)]}_falff.nii.gz")
    write_rows(folder / "Phenotypic_V1.csv", scene.rows)
    return []


def write_bids(folder: Path, scene: Scene) -> list:
    """Derivatives under a dataset whose participants.tsv was saved by Windows, with a byte-order mark."""
    for row in scene.rows:
        row["participant_id"] = f"sub-00{row.pop('SUB_ID')}"
        del row["FILE_ID"]
    save_maps(
        scene, lambda subject: folder / f"derivatives/sub-00{subject}/func/sub-00{subject}_task-rest_falff.nii.gz"
    )
    write_rows(folder / "participants.tsv", scene.rows, bom=True, line_end="\r\n")
    return ["--labelColumn", "DX_GROUP", "--positive", "1"]


def write_dpabi(folder: Path, scene: Scene) -> list:
    """A flat folder of uncompressed maps, the table elsewhere and in another order."""
    save_maps(scene, lambda subject: folder / f"zfALFFMap_{subject}.nii")
    rows = [{"ID": row["SUB_ID"], **{name: row[name] for name in COLUMNS[1:]}} for row in reversed(scene.rows)]
    table = folder.parent / "tables" / "subjects.csv"
    write_rows(table, rows)
    return ["--table", table, "--idColumn", "ID", "--labelColumn", "DX_GROUP", "--positive", "1"]


def write_plain(folder: Path, scene: Scene) -> list:
    """Files of any name that a column gives, the label as words."""
    for row in scene.rows:
        row["path"] = f"maps/scan{int(row['SUB_ID']) * 7}.nii.gz"
        row["diagnosis"] = {"1": "ASD", "2": "TD"}[row.pop("DX_GROUP")]
    save_maps(scene, lambda subject: folder / f"maps/scan{subject * 7}.nii.gz")
    write_rows(folder / "all.csv", scene.rows)
    return ["--mapColumn", "path", "--labelColumn", "diagnosis", "--positive", "ASD"]


LAYOUTS = {"BIDS": write_bids, "DPABI": write_dpabi, "plain": write_plain}


@pytest.fixture
def convert(data_cli, tmp_path):
    """`convert(folder, ...)` gives the reduced cohort of a folder that must convert."""

    def run(folder: Path, *arguments) -> Path:
        target = tmp_path / f"cohort-{folder.name}"
        outcome = data_cli("convert", folder, target, "--grid", "reduced", *arguments)
        assert outcome.status < 2, outcome.err
        assert outcome.err == ""
        return target

    return run


@pytest.fixture(scope="module")
def reference(data_cli, tmp_path_factory) -> Path:
    """The reduced cohort of the PCP layout."""
    folder = tmp_path_factory.mktemp("reference")
    arguments = write_pcp(folder / "pcp", simulated())
    outcome = data_cli("convert", folder / "pcp", folder / "cohort", "--grid", "reduced", *arguments)
    assert outcome.status < 2, outcome.err
    return folder / "cohort"


def content(cohort: Path) -> dict[str, bytes]:
    """All files but cohort.json, which names the command, its seal, and check.json, which names the time."""
    left_out = ("cohort.json", "seal.json", "check.json")
    return {path.name: path.read_bytes() for path in cohort.iterdir() if path.name not in left_out}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_records(layout, scene, reference, convert, tmp_path):
    folder = tmp_path / layout
    assert content(convert(folder, *LAYOUTS[layout](folder, scene))) == content(reference)
    tables = ("subjects.csv", "covariates.csv", "phenotype.csv", "maps.csv", "SHA256SUMS", "digests.csv")
    assert len(content(reference)) == len(SUBJECTS) + len(tables)


@pytest.mark.slow
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "ILA"])
def test_the_orientation_on_disk_does_not_matter(codes, scene, reference, convert, tmp_path):
    scene.images = {subject: turned(image, codes) for subject, image in scene.images.items()}
    folder = tmp_path / codes
    assert content(convert(folder, *write_pcp(folder, scene))) == content(reference)


def test_left_is_left_whatever_the_orientation(tmp_path):
    """Full size: voxels right of the middle, x > 0 mm, are the brighter ones, as the brain was made."""
    for codes in ("LAS", "RAS", "LPS", "PSR"):
        nibabel.save(turned(stored_las(0), codes), tmp_path / "map.nii")
        volume = load_map(tmp_path / "map.nii")
        assert volume[46:].mean() > 1.2 * volume[:45].mean()


@pytest.mark.slow
@pytest.mark.parametrize("spacing_mm", [1, 2, 3, 4])
def test_resampled_copies_give_nearly_the_same_volume(spacing_mm, tmp_path):
    image = nibabel.as_closest_canonical(stored_las(1))
    affine = np.diag([-spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = 93, -128, -75
    shape = np.ceil(np.array([186, 220, 186]) / spacing_mm).astype(int)
    copy = resample_img(image, affine, shape, interpolation="linear", copy_header=True, force_resample=True)
    nibabel.save(image, tmp_path / "original.nii")
    nibabel.save(copy, tmp_path / "copy.nii")
    original, again = load_map(tmp_path / "original.nii"), load_map(tmp_path / "copy.nii")
    assert np.corrcoef(original.ravel(), again.ravel())[0, 1] > 0.99


def test_an_oblique_map_lies_where_its_affine_says(tmp_path):
    """A map sampled on axes turned by 20 degrees about z, against the same smooth function on the upright grid."""
    image = nibabel.as_closest_canonical(stored_las(1))
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= 3
    shape = (93, 111, 91)
    affine[:3, 3] = [0, -18, 18] - affine[:3, :3] @ (np.array(shape) - 1) / 2
    oblique = resample_img(image, affine, shape, interpolation="linear", copy_header=True, force_resample=True)
    nibabel.save(image, tmp_path / "upright.nii")
    nibabel.save(oblique, tmp_path / "oblique.nii")
    upright, turned_back = load_map(tmp_path / "upright.nii"), load_map(tmp_path / "oblique.nii")
    assert np.corrcoef(upright.ravel(), turned_back.ravel())[0, 1] > 0.99


def test_a_brain_outside_the_grid_is_refused_by_name(tmp_path):
    far = LAS_6MM.copy()
    far[1, 3] += 60
    nibabel.save(nibabel.Nifti1Image(blob_brain(0), far), tmp_path / "far.nii")
    with pytest.raises(InputError, match=r"far\.nii: \d\d% of its brain lies outside the MNI grid"):
        load_map(tmp_path / "far.nii")


# What is never guessed


@pytest.fixture
def plain(scene, tmp_path):
    """`plain(change)` writes the plain layout after changing its rows; gives the folder and its arguments."""

    def write(change=lambda rows: None):
        arguments = write_plain(tmp_path / "plain", scene)
        change(scene.rows)
        write_rows(tmp_path / "plain" / "all.csv", scene.rows)
        return tmp_path / "plain", arguments

    return write


@pytest.mark.parametrize("kept", [[], ["--labelColumn", "diagnosis"], ["--positive", "ASD"]])
def test_the_label_is_never_guessed(kept, plain, data_cli, tmp_path):
    folder, arguments = plain()
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments[:2], *kept)
    assert outcome.status == 2
    assert re.search(r"Which column of \S*all\.csv is the diagnosis.*--labelColumn NAME --positive VALUE", outcome.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "label, positive, words",
    [
        ("diagnosis", "autism", "diagnosis holds ASD, TD; expected two values, autism"),
        ("SITE_ID", "1", "SITE_ID holds NYU, PITT; expected two values, 1"),
        ("AGE_AT_SCAN", "14", "AGE_AT_SCAN holds 12.5, 14.*expected two values, 14"),
        ("dx", "1", r"has no column dx \(--labelColumn\); it has SUB_ID"),
    ],
)
def test_a_label_that_does_not_fit_the_table(label, positive, words, plain, data_cli, tmp_path):
    folder, arguments = plain()
    command = [*arguments[:2], "--labelColumn", label, "--positive", positive]
    outcome = data_cli("convert", folder, tmp_path / "out", *command)
    assert outcome.status == 2
    assert re.search(words, outcome.err)


@pytest.mark.slow
def test_the_positive_value_decides_what_is_autism(plain, convert):
    folder, arguments = plain()
    as_given = {row["subject"]: row["label"] for row in read_rows(convert(folder, *arguments) / "subjects.csv")}
    expected = {str(subject): str(1 - number % 2) for number, subject in enumerate(SUBJECTS)}
    assert as_given == expected
    flipped = shutil.copytree(folder, folder.with_name("flipped"))
    rows = read_rows(convert(flipped, *arguments[:-1], "TD") / "subjects.csv")
    assert {row["subject"]: row["label"] for row in rows} == {name: str(1 - int(of)) for name, of in expected.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "values, positive", [("12", "1.0"), (("1.0", "2.0"), "1"), (("1.0", "2"), " 1 "), (("01", "2"), "1")]
)
def test_a_number_is_the_same_label_however_it_is_written(values, positive, plain, convert):
    folder, arguments = plain(
        lambda rows: [row.update(diagnosis=values[number % 2]) for number, row in enumerate(rows)]
    )
    rows = read_rows(convert(folder, *arguments[:-1], positive) / "subjects.csv")
    assert {row["subject"]: row["label"] for row in rows} == {
        str(subject): str(1 - number % 2) for number, subject in enumerate(SUBJECTS)
    }


FOUR = ["ASD", "TD", "Asperger, mild", "TD", "3", "ADHD"]


@pytest.mark.slow
def test_several_values_a_side_and_the_others_left_out(plain, data_cli, tmp_path):
    folder, arguments = plain(lambda rows: [row.update(diagnosis=value) for row, value in zip(rows, FOUR, strict=True)])
    told = [*arguments[:-1], "ASD,3.0", "--negative", "TD"]
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced", *told)
    assert outcome.status < 2, outcome.err
    assert "Label: diagnosis, 3 (1 subjects), ASD (1 subjects) autism, TD (2 subjects) control." in outcome.out
    assert f"1 left out, diagnosis is ADHD: {SUBJECTS[5]}" in outcome.out
    assert f"1 left out, diagnosis is Asperger, mild: {SUBJECTS[2]}" in outcome.out
    labels = {row["subject"]: row["label"] for row in read_rows(tmp_path / "out" / "subjects.csv")}
    assert labels == {str(SUBJECTS[at]): label for at, label in ((0, "1"), (1, "0"), (3, "0"), (4, "1"))}


@pytest.mark.parametrize(
    "told, words",
    [
        (["ASD"], "diagnosis holds .*; expected two values, ASD .*name the controls with --negative"),
        (["ASD,3,ADHD"], "expected two values.*--negative"),
        (["ASD,TD,3,ADHD,Asperger"], "expected two values"),
        (["ASD", "--negative", "ASD,TD"], r"expected --negative ASD,TD \(control\).* none of --positive ASD"),
        (["ASD", "--negative", "healthy"], "expected --negative healthy"),
    ],
)
def test_sides_that_do_not_part_the_values(told, words, plain, data_cli, tmp_path):
    folder, arguments = plain(lambda rows: [row.update(diagnosis=value) for row, value in zip(rows, FOUR, strict=True)])
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments[:-1], *told)
    assert outcome.status == 2
    assert re.search(words, outcome.err)


@pytest.mark.slow
def test_a_value_with_a_comma_is_one_value(plain, convert):
    folder, arguments = plain(
        lambda rows: [row.update(diagnosis=FOUR[1 + number % 2]) for number, row in enumerate(rows)]
    )
    rows = read_rows(convert(folder, *arguments[:-1], "Asperger, mild") / "subjects.csv")
    assert [row["label"] for row in rows] == ["0", "1"] * 3


@pytest.mark.slow
def test_what_was_recognised_is_told(scene, data_cli, tmp_path):
    for number, row in enumerate(scene.rows):
        row.update(MRI_system="ABC"[number % 3], Institution="one", cohort=row["SITE_ID"], deviation=str(number))
    write_pcp(tmp_path / "pcp", scene)
    outcome = data_cli("convert", tmp_path / "pcp", tmp_path / "out", "--grid", "reduced")
    assert outcome.status < 2, outcome.err
    assert "Layout: PCP, 6 maps cpac/*_falff.nii*." in outcome.out
    assert re.search(r"Table \S*Phenotypic_V1\.csv, joined by FILE_ID\.", outcome.out)
    assert "Label: DX_GROUP, 1 (3 subjects) autism, 2 (3 subjects) control." in outcome.out
    assert "Site: SITE_ID, 2 sites. MRI_system, cohort looks like a site" in outcome.out
    assert "--siteColumn" in outcome.out
    for row in scene.rows:
        row["CENTRE"] = row.pop("SITE_ID")
    write_rows(tmp_path / "pcp" / "Phenotypic_V1.csv", scene.rows)
    arguments = ("convert", tmp_path / "pcp", tmp_path / "again", "--grid", "reduced")
    refused = data_cli(*arguments)
    assert refused.status == 2 and refused.err.count("\n") == 1
    assert "MRI_system, cohort, CENTRE" in refused.err and "--siteColumn ''" in refused.err
    assert not (tmp_path / "again").exists()
    told = data_cli(*arguments, "--siteColumn", "").out
    assert "CENTRE looks like a site" in told and told.count("Site is unknown, and may be the whole result") == 3


@pytest.mark.parametrize("sites, told", [("AA", "1 site."), ("AB", "2 sites.")])
def test_sites_are_counted(sites, told):
    assert Sites("center", pd.Series(list(sites)), []).note == f"Site: center, {told}"


def test_a_site_that_only_some_people_have_is_refused(plain, data_cli, tmp_path):
    folder, arguments = plain(lambda rows: rows[2].update(SITE_ID="n/a"))
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments)
    assert outcome.status == 2 and "SITE_ID of 1 of 6 people" in outcome.err and "--exclude" in outcome.err


@pytest.mark.parametrize("given", [("ASD",), ("ASD", "--negative", "TD")])
def test_a_label_in_two_spellings_loses_nobody(given, plain, data_cli, tmp_path):
    spelled = ("ASD", "TD", "asd", "TD", "ASD", "td")
    folder, arguments = plain(lambda rows: [row.update(diagnosis=of) for row, of in zip(rows, spelled, strict=True)])
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments[:-1], *given)
    assert outcome.status == 2 and "--positive ASD,asd" in outcome.err and "name the controls" not in outcome.err


@pytest.mark.parametrize("column", ["diagnosis", "SUB_ID"])
def test_the_site_is_a_column_of_its_own(column, plain, data_cli, tmp_path):
    folder, arguments = plain()
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments, "--siteColumn", column)
    assert outcome.status == 2 and f"--siteColumn {column}" in outcome.err and "cannot be both" in outcome.err


@pytest.mark.slow
def test_each_spelling_of_a_label_can_be_named(plain, convert):
    spelled = ("ASD", "TD", "asd", "TD", "ASD", "td")
    folder, arguments = plain(lambda rows: [row.update(diagnosis=of) for row, of in zip(rows, spelled, strict=True)])
    rows = read_rows(convert(folder, *arguments[:-1], "ASD,asd", "--negative", "TD,td") / "subjects.csv")
    assert [row["label"] for row in rows] == ["1", "0"] * 3


@pytest.mark.slow
def test_codes_of_a_missing_value_are_asked_for(plain, data_cli, convert, tmp_path):
    def change(rows: list[dict]) -> None:
        for number, row in enumerate(rows):
            row.update(
                age=("999", "8", "999.0", "14", "11", "9")[number], iq=("99", "90", "101", "", "85", "120")[number]
            )

    folder, arguments = plain(change)
    arguments += ["--phenotype", "age,iq"]
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments)
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert "age 999 (2) people" in outcome.err and "--missing 'age=999'" in outcome.err and "iq" not in outcome.err
    cohort = convert(folder, *arguments, "--missing", "age=999")
    ages = [row["age"] for row in read_rows(cohort / "phenotype.csv")]
    assert sorted(ages) == ["", "", "11.0", "14.0", "8.0", "9.0"]
    kept = data_cli("convert", folder, tmp_path / "kept", "--grid", "reduced", *arguments, "--missing", "")
    assert kept.status < 2 and "note: codes of a missing value" in kept.out and "age 999 (2)" in kept.out
    nobody = data_cli("convert", folder, tmp_path / "out", *arguments, "--missing", "age=998")
    assert nobody.status == 2 and "nobody" in nobody.err


def test_categories_are_told(plain, data_cli, tmp_path):
    folder, arguments = plain(lambda rows: [row.update(hand="LR"[n % 2], years=str(n)) for n, row in enumerate(rows)])
    told = ("--grid", "reduced", *arguments, "--phenotype", "hand,years")
    outcome = data_cli("convert", folder, tmp_path / "out", *told)
    assert "hand is text and became 2 categories: L, R\n" in outcome.out
    assert "years is text" not in outcome.out


@pytest.mark.slow
def test_a_european_table_gives_the_same_records(plain, convert):
    folder, arguments = plain(lambda rows: [row.update(years=f"{10 + n}.5") for n, row in enumerate(rows)])
    expected = content(convert(folder, *arguments, "--phenotype", "years"))
    rows = [list(row.values()) for row in read_rows(folder / "all.csv")]
    lines = [list(read_rows(folder / "all.csv")[0]), *[[*row[:-1], row[-1].replace(".", ",")] for row in rows]]
    other = shutil.copytree(folder, folder.with_name("european"))
    (other / "all.csv").write_text("\n".join(";".join(line) for line in lines))
    assert content(convert(other, *arguments, "--phenotype", "years")) == expected


# Which of several maps


def named_files(folder: Path, names: list[str]) -> Path:
    """Empty files; which are chosen is told by their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


ALL = range(1, 5)
SEVERAL = {
    "DPABI in one folder": [f"{kind}fALFFMap_{n}.nii" for n in ALL for kind in ("", "m", "z")],
    "DPABI below": [f"Results/{kind}fALFFMap_00{n}.nii.gz" for n in ALL for kind in ("", "m", "z")],
    "DPABI in folders": [f"Results/{of}/fALFFMap_{n}.nii" for n in ALL for of in ("fALFF_ARWC", "fALFF_ARglobalWC")],
    "BIDS sessions": [f"sub-0{n}/ses-{s}/func/sub-0{n}_ses-{s}_falff.nii.gz" for n in ALL for s in "12"],
    "BIDS runs": [f"sub-0{n}/func/sub-0{n}_task-rest_run-{r}_falff.nii.gz" for n in ALL for r in "12"],
    "BIDS desc": [f"sub-{n}/sub-{n}_space-MNI_desc-{d}_falff.nii.gz" for n in ALL for d in ("raw", "smooth")],
    "BIDS space": [
        f"sub-{n}/sub-{n}_space-{s}_falff.nii.gz" for n in ALL for s in ("MNI152NLin6Asym", "MNI152NLin2009cAsym")
    ],
    "PCP": [
        f"{p}/{s}/NYU_{n}_falff.nii.gz"
        for n in ALL
        for p in ("cpac", "dparsf")
        for s in ("filt_global", "nofilt_global")
    ],
    "DPABI sessions": [f"fALFFMap_Sub_00{n}_ses-{s}.nii" for n in ALL for s in "12"],
    "PCP sessions": [f"NYU_00{n}_session_{s}_falff.nii.gz" for n in ALL for s in "12"],
    "with and without compression": [f"{n}_falff{suffix}" for n in ALL for suffix in (".nii", ".nii.gz")],
    "any folders": [f"{of}/{n}_falff.nii" for n in ALL for of in ("old [1]", "new")],
}


def advised(words: str) -> str:
    return re.search(r"--only '([^']+)' \(4 maps\)", words)[1]


@pytest.mark.parametrize("name", SEVERAL)
def test_several_maps_of_a_subject_are_refused_with_an_option_that_works(name, tmp_path):
    folder = named_files(tmp_path, SEVERAL[name])
    with pytest.raises(InputError, match=r"has two maps for .*; expected one a subject") as refusal:
        find_maps(Listing(folder))
    advice = advised(str(refusal.value)) if name != "PCP" else "cpac/filt_global/*"
    maps, notes = find_maps(Listing(folder), advice)
    assert len(maps) == 4
    assert "Layout: " in notes[0]
    assert {path.relative_to(folder).as_posix() for path in maps.values()} <= set(SEVERAL[name])
    assert len({re.sub(r"[1-4]", "", re.sub(r"(ses|run)-|session_", "", str(path))) for path in maps.values()}) == 1


XCP = "sub-0{n}/func/sub-0{n}_task-rest_space-MNI152NLin2009cAsym_stat-{map}_{rest}boldmap.nii.gz"


@pytest.mark.parametrize("smoothed", [("alff",), ("alff", "reho"), ("reho",)])
def test_the_maps_of_xcp_d_are_chosen_as_the_refusal_says(smoothed, tmp_path):
    names = [XCP.format(n=n, map=of, rest="") for n in ALL for of in ("alff", "reho")]
    names += [XCP.format(n=n, map=of, rest="desc-smooth_") for n in ALL for of in smoothed]
    folder, maps = named_files(tmp_path, names), ("alff", "reho")
    with pytest.raises(InputError, match=r"for 1, 2, 3, 4: such as .*; expected one a subject") as refusal:
        [find_maps(Listing(folder), None, name, maps) for name in maps]
    only = advised(str(refusal.value))
    assert [len(find_maps(Listing(folder), only, name, maps)[0]) for name in maps] == [4, 4]


def test_a_folder_of_other_maps_is_answered_with_their_names(tmp_path):
    folder = named_files(tmp_path, [XCP.format(n=n, map=of, rest="") for n in ALL for of in ("alff", "reho")])
    with pytest.raises(InputError, match=r"holds no fALFF maps; expected .* It holds alff, reho: choose with --maps"):
        find_maps(Listing(folder))


def test_a_glob_that_would_lose_most_people_is_no_advice(tmp_path):
    """One person's ID is spelt in two ways, so that no glob leaves one map each."""
    folder = named_files(tmp_path, [f"sub-{n}/sub-{n}_falff.nii.gz" for n in ("0012", "12", "13", "14", "15")])
    with pytest.raises(InputError, match=r"two maps for 12: .* Remove or rename one, or name the map"):
        find_maps(Listing(folder))


ENTITIES = [
    f"_{entity}-{value}" for entity, value in (("ses", 1), ("ses", 2), ("run", 1), ("run", 2), ("desc", "smooth"))
]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_a_glob_that_a_refusal_gives_always_works(data):
    """For all maps together, of people who have several each: sessions, runs, smoothed or compressed, in folders."""
    kinds = st.tuples(
        st.lists(st.sampled_from(ENTITIES), unique=True, max_size=2), st.sampled_from([".nii", ".nii.gz"])
    )
    maps = data.draw(st.sampled_from([("alff",), ("alff", "reho"), ("falff", "alff", "reho")]))
    of_map = {name: data.draw(st.lists(kinds, min_size=1, max_size=3, unique_by=str)) for name in maps}
    place = data.draw(st.sampled_from(["sub-{n}/func/", "", "old's [1]/"]))
    names = [
        f"{place}sub-{{n}}{''.join(entities)}_{name}{end}".format(n=n)
        for name, several in of_map.items() for entities, end in several for n in ("01", "02", "11")
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        named_files(Path(folder), names)
        try:
            [find_maps(Listing(Path(folder)), None, name, maps) for name in maps]
        except InputError as refusal:
            (given,) = re.findall(r"such as --only (.*) \(3 maps\); or", str(refusal)) or [None]
            if given:
                (only,) = shlex.split(given)
                assert [len(find_maps(Listing(Path(folder)), only, name, maps)[0]) for name in maps] == [3] * len(maps)
            else:
                assert "Remove or rename one, or name the map of each subject in a column" in str(refusal)


@pytest.mark.parametrize(
    "names",
    [
        [f"{kind}fALFFMap_{n}.nii" for n, kind in enumerate("mmzz")],
        [f"sub-{n}/ses-{s}/func/sub-{n}_ses-{s}_falff.nii.gz" for n, s in enumerate("1122")],
        [f"sub-{n}/func/sub-{n}{s}_falff.nii.gz" for n, s in enumerate(["", "_ses-1", "", ""])],
        [f"{p}/NYU_{n}_falff.nii.gz" for n, p in enumerate(["cpac/filt_global", "cpac/nofilt_global"])],
        [f"{p}/NYU_{n}_falff.nii.gz" for n, p in enumerate(["cpac/x", "dparsf/x"])],
        [f"fALFFMap_{n}{s}.nii" for n, s in enumerate(["_ses1", "_ses1", "_ses2"])],
    ],
)
def test_different_maps_of_different_subjects_are_refused(names, tmp_path):
    with pytest.raises(
        InputError, match=r"maps of 2 kinds, each for other subjects: .*--only '.*--mapColumn"
    ) as refusal:
        find_maps(Listing(named_files(tmp_path, names)))
    glob, count = re.search(r"--only '([^']+)' \((\d) maps\)", str(refusal.value)).groups()
    assert len(find_maps(Listing(tmp_path), glob)[0]) == int(count)


def test_sites_in_folders_and_both_compressions_are_one_kind(tmp_path):
    names = ["NYU/1_falff.nii", "NYU/2_falff.nii.gz", "USM/3_falff.nii.gz"]
    assert len(find_maps(Listing(named_files(tmp_path, names)))[0]) == 3


def test_hidden_files_are_no_maps_and_broken_links_are(tmp_path):
    """What macOS leaves beside a file, and what git-annex leaves in place of one that was not fetched."""
    named_files(tmp_path, ["NYU_1_falff.nii.gz", "._NYU_1_falff.nii.gz"])
    (tmp_path / "NYU_2_falff.nii.gz").symlink_to("nowhere")
    assert find_maps(Listing(tmp_path))[0].keys() == {"NYU_1", "NYU_2"}


def test_a_glob_that_fits_nothing(tmp_path):
    with pytest.raises(InputError, match=r"--only '\*ses-9\*' matches none of the 8 maps in .*, such as sub-01/ses-1"):
        find_maps(Listing(named_files(tmp_path, SEVERAL["BIDS sessions"])), "*ses-9*")


def test_files_of_another_layout_are_told(tmp_path):
    notes = find_maps(Listing(named_files(tmp_path, ["fALFFMap_1.nii", "fALFFMap_2.nii", "group_falff.nii"])), "*")[1]
    assert "Left alone: 2 files named otherwise, such as fALFFMap_1.nii; choose with --only." in notes


def test_maps_in_another_format_are_told(tmp_path):
    with pytest.raises(InputError, match=r"no fALFF maps as NIfTI .* but fALFFMap_1\.img, which must be converted"):
        find_maps(Listing(named_files(tmp_path, ["fALFFMap_1.img", "readme.txt"])))


@pytest.mark.slow
def test_the_users_choice(scene, data_cli, tmp_path):
    """Without it the command names it; with it, the chosen maps are converted."""
    folder = tmp_path / "dpabi"
    arguments = write_dpabi(folder, scene)
    for path in list(folder.glob("*.nii")):
        shutil.copy(path, path.with_name(path.name.replace("zf", "mf")))
    refused = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced", *arguments)
    assert refused.status == 2
    only = re.search(r"--only '([^']+)'", refused.err)[1]
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced", *arguments, "--only", only)
    assert outcome.status < 2, outcome.err
    both = data_cli("convert", folder, tmp_path / "x", *arguments, "--only", only, "--mapColumn", "path")
    assert both.status == 2
    assert "--only chooses among maps that are found by name" in both.err


def test_one_map_for_two_subjects_is_refused(plain, data_cli, tmp_path):
    folder, arguments = plain(lambda rows: rows[3].update(path=rows[1]["path"]))
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments)
    assert outcome.status == 2
    assert re.search(
        rf"column path of .* gives the map scan\d+\.nii\.gz to {SUBJECTS[1]} and {SUBJECTS[3]}", outcome.err
    )


def test_a_label_is_not_taken_for_an_id(scene, data_cli, tmp_path):
    """Maps numbered anew from 1: DX_GROUP and SEX hold 1 and 2, the subjects have IDs of their own."""
    folder = tmp_path / "dpabi"
    save_maps(scene, lambda subject: folder / f"fALFFMap_{subject - SUBJECTS[0] + 1}.nii")
    write_rows(folder / "Phenotypic_V1.csv", scene.rows)
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced")
    assert outcome.status == 2
    assert "--idColumn" in outcome.err
    told = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced", "--idColumn", "DX_GROUP")
    assert told.status == 2
    assert "column DX_GROUP of" in told.err
    assert "gives the map fALFFMap_1.nii to 51450 and 51452" in told.err


@pytest.mark.slow
def test_an_unknown_label_is_left_out_and_named(plain, data_cli, tmp_path):
    folder, arguments = plain(lambda rows: rows[2].update(diagnosis="-9999"))
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced", *arguments)
    assert outcome.status < 2, outcome.err
    assert f"1 left out, diagnosis unknown: {SUBJECTS[2]}" in outcome.out
    assert len(read_rows(tmp_path / "out" / "subjects.csv")) == len(SUBJECTS) - 1


@pytest.mark.slow
def test_rows_without_a_map_and_maps_without_a_row_are_named(scene, data_cli, tmp_path):
    dropped = scene.rows.pop(1)
    scene.rows.append(scene.rows[0] | {"SUB_ID": "60001", "FILE_ID": "NYU_0060001"})
    folder = tmp_path / "pcp"
    scene.rows.insert(0, dropped)
    write_pcp(folder, scene)
    write_rows(folder / "Phenotypic_V1.csv", scene.rows[1:])
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced")
    assert outcome.status < 2, outcome.err
    assert "1 left out, no map: 60001" in outcome.out
    assert f"1 left out, a map without a row in the table: {dropped['FILE_ID']}" in outcome.out
    left_out = json.loads((tmp_path / "out" / "cohort.json").read_text())["provenance"]["left_out"]
    assert left_out["no map"] == ["60001"]
    assert len(read_rows(tmp_path / "out" / "subjects.csv")) == len(SUBJECTS) - 1


@pytest.mark.slow
def test_tables_as_spreadsheets_save_them(scene, reference, convert, tmp_path):
    """A BOM, Windows line ends, blanks around values, and all forms of "unknown" mean the same."""
    folder = tmp_path / "saved"
    write_pcp(folder, scene)
    unknown = {"": "`", "`": "-9999", "-9999": "-9999.0"}
    keys = COLUMNS[:4]
    changed = [
        {name: of if name in keys else f" {unknown.get(of, of)} " for name, of in row.items()} for row in scene.rows
    ]
    write_rows(folder / "Phenotypic_V1.csv", changed, bom=True, line_end="\r\n")
    assert content(convert(folder)) == content(reference)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda folder: shutil.copy(folder / "Phenotypic_V1.csv", folder / "Phenotypic_V2.csv"), "has several tables"),
        (
            lambda folder: shutil.copytree(folder / "cpac", folder / "dparsf"),
            r"has two maps for NYU_0051452, .*: such as .*cpac.* and .*dparsf.*--mapColumn",
        ),
        (lambda folder: (folder / "Phenotypic_V1.csv").unlink(), "has no table of subjects.*--table"),
        (
            lambda folder: (folder / "Phenotypic_V1.csv").write_text("SUB_ID,DX_GROUP\n1,1\n2,2\n"),
            "No column of .* holds the IDs of the maps, such as NYU_0051452",
        ),
        (
            lambda folder: (folder / "Phenotypic_V1.csv").write_text("A,B,B \n1,2,3\n"),
            "has the column B twice",
        ),
        (
            lambda folder: (folder / "Phenotypic_V1.csv").write_text("FILE_ID,DX_GROUP\nNYU_0051452,1,\nx,2,\n"),
            "line 2 has 3 values, the header names 2 columns",
        ),
        (
            lambda folder: (folder / "Phenotypic_V1.csv").write_text('FILE_ID,DX_GROUP\n"NYU_0051452,1\n'),
            "not a readable table",
        ),
    ],
)
def test_what_is_ambiguous_is_an_error(spoil, words, scene, data_cli, tmp_path):
    folder = tmp_path / "pcp"
    write_pcp(folder, scene)
    spoil(folder)
    outcome = data_cli("convert", folder, tmp_path / "out")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert re.search(words, outcome.err)


@pytest.mark.slow
def test_a_row_that_ends_early_is_unknown_where_it_ends(scene, convert, tmp_path):
    """The last row lacks its trailing empty cells, and a blank line follows, as some programs write."""
    folder = tmp_path / "pcp"
    write_pcp(folder, scene)
    path = folder / "Phenotypic_V1.csv"
    path.write_text(path.read_text() + "60001\n\n")
    assert len(read_rows(convert(folder) / "subjects.csv")) == len(SUBJECTS)


# Phenotype columns of the user's own


IQ = ("-9999", "99", "104", "99", "87", "120")


def test_own_columns_are_encoded_in_order(plain, convert):
    """Numbers, numbers with gaps, and text; each value against the table, scaled by training subjects."""

    def change(rows):
        for number, row in enumerate(rows):
            row.update(years=str(10 + number), hand="RLR?RL"[number].replace("?", "`"), iq=IQ[number])

    folder, arguments = plain(change)
    cohort = open_cohort(convert(folder, *arguments, "--phenotype", "iq,hand,years"))
    training = cohort.subjects("train")
    gaps = ["iq", "iq_missing"] if str(SUBJECTS[0]) in training else ["iq"]
    names = [*gaps, "hand_L", "hand_R", "years"]
    assert cohort.metadata.phenotype == (*names, *(f"unused_{k}" for k in range(len(names) + 1, 30)))
    raw = {
        str(subject): [float("RLR?RL"[at] == code) for code in "LR"] + [10 + at] for at, subject in enumerate(SUBJECTS)
    }
    known = np.array([raw[name] for name in training])
    iq = {str(subject): float(IQ[at]) if at else np.nan for at, subject in enumerate(SUBJECTS)}
    median = np.nanmedian([iq[name] for name in training])
    filled = {name: median if np.isnan(value) else value for name, value in iq.items()}
    of_training = np.array([filled[name] for name in training])
    for index, record in enumerate(cohort.rows):
        phenotype = cohort.read(index)[1]
        scaled = (np.array(raw[record.subject]) - known.mean(0)) / known.std(0)
        np.testing.assert_allclose(phenotype[len(gaps) : len(names)], scaled, atol=1e-5)
        assert (phenotype[len(names) :] == 0).all()
        expected = (filled[record.subject] - of_training.mean()) / of_training.std()
        assert phenotype[0] == pytest.approx(expected, abs=1e-5)


def test_categories_are_learnt_on_training_rows_only():
    import pandas as pd

    table = pd.DataFrame({"scanner": ["B", "A", "C", "B"], "iq": ["90", "95", "-9999", "100"]})
    training = np.array([True, True, False, True])
    values = custom_values(table, ["scanner", "iq"], training)
    assert values.columns.tolist() == ["scanner_A", "scanner_B", "iq"] + [f"unused_{k}" for k in range(4, 30)]
    assert values.iloc[2, :2].tolist() == [0, 0]
    assert np.isnan(values.iloc[2, 2])


@pytest.mark.parametrize(
    "columns, words",
    [
        ([f"x{k}" for k in range(30)], "--phenotype gives 30 values; expected at most 29"),
        (
            ["shoe_size", "IQ"],
            "has no columns shoe_size, IQ (--phenotype); it has SUB_ID",
        ),
        (["AGE_AT_SCAN"], "AGE_AT_SCAN"),  # which is infinite
    ],
)
def test_a_phenotype_that_cannot_be(columns, words, plain, data_cli, tmp_path):
    def change(rows):
        for at, row in enumerate(rows):
            row.update({f"x{k}": str(k + at % 2) for k in range(30)})
        rows[0]["AGE_AT_SCAN"] = "inf"

    folder, arguments = plain(change)
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments, "--phenotype", ",".join(columns))
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err
    assert ("Did you mean FIQ, VIQ, PIQ" in outcome.err) == ("IQ" in columns)


def test_no_phenotype_at_all(plain, convert):
    folder, arguments = plain()
    cohort = open_cohort(convert(folder, *arguments, "--phenotype", ""))
    assert cohort.metadata.phenotype == tuple(f"unused_{k}" for k in range(1, 30))
    assert (cohort.read(0)[1] == 0).all()
    assert cohort.metadata.phenotype_auc == {}  # so that no unused value is told of


def test_ids_that_match_no_map_are_shown_beside_those_of_maps(data_cli, tmp_path):
    folder = tmp_path / "maps"
    paths = [f"sub-{n}_falff.nii.gz" for n in ALL]
    named_files(folder, paths)
    write_rows(folder / "participants.tsv", [{"ID": f"P{n}", "group": "AC"[n % 2]} for n in ALL])
    for named in ((), ("--idColumn", "ID")):
        outcome = data_cli("convert", folder, tmp_path / "out", "--labelColumn", "group", "--positive", "A", *named)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert "the IDs of the maps, such as 1, 2; ID holds 'P1', 'P2'" in outcome.err
        assert "--phenotype" not in outcome.err


def test_maps_in_a_space_of_their_own_are_left_alone_or_refused(tmp_path):
    named_files(tmp_path, [f"sub-{n}/sub-{n}_space-{s}_falff.nii.gz" for n in ALL for s in ("MNI", "T1w")])
    maps, notes = find_maps(Listing(tmp_path))
    assert len(maps) == 4 and "Left alone: 4 in space T1w." in notes
    for path in maps.values():
        path.unlink()
    with pytest.raises(InputError, match=r"no map falff in MNI space: 4 in space T1w.*--mapColumn"):
        find_maps(Listing(tmp_path))


@pytest.mark.slow
def test_tensorflow_is_never_imported(scene, tmp_path):
    """The user's commands in a process of their own, which fails if anything imports TensorFlow."""
    write_pcp(tmp_path / "pcp", scene)
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    (tmp_path / "both.py").write_text(BOTH)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "both.py"]
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "TensorFlow was imported" not in finished.stderr
    assert finished.returncode == 0 and "autism/control by site" in finished.stdout, finished.stderr


BOTH = """
import sys
from data.__main__ import main

if __name__ == "__main__":
    for words in ("convert pcp cohort --grid reduced", "check cohort"):
        sys.argv = ["data", *words.split()]
        if main() not in (0, 1):
            sys.exit(words)
"""


def test_links_to_folders_are_followed_but_not_in_a_circle(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "bids"
    for place in (elsewhere, folder / "sub-2" / "func"):
        place.mkdir(parents=True)
    (elsewhere / "sub-1_falff.nii.gz").write_bytes(b"")
    (folder / "sub-2" / "func" / "sub-2_falff.nii.gz").write_bytes(b"")
    (folder / "sub-1").symlink_to(elsewhere)
    (folder / "sub-2" / "back").symlink_to(folder)
    found = {path.relative_to(folder).as_posix() for path in files_below(folder)}
    assert found == {"sub-1/sub-1_falff.nii.gz", "sub-2/func/sub-2_falff.nii.gz"}
