"""python -m data convert: one set of subjects in every layout, orientation and table form gives the same records."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import LAS_6MM, PCP_COLUMNS, PCP_ROWS, ROOT, read_rows
from nibabel import orientations
from nilearn.image import resample_img

from data.cohort import open_cohort
from data.errors import InputError
from data.nifti import load_map
from data.phenotype import custom_values

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


@pytest.fixture
def scene() -> Scene:
    """6 subjects at two sites, labels alternating, with the missing values that the conftest rows have."""
    rows = []
    for number, subject in enumerate(SUBJECTS):
        site = ("PITT", "NYU")[number // 2 % 2]
        keys = {"SUB_ID": str(subject), "SITE_ID": site, "FILE_ID": f"{site}_00{subject}"}
        values = dict(zip(PCP_COLUMNS, PCP_ROWS[number % len(PCP_ROWS)], strict=True))
        rows.append(keys | {"DX_GROUP": str(1 + number % 2)} | values)
    return Scene({subject: stored_las(subject) for subject in SUBJECTS}, rows)


def write_rows(path: Path, rows: list[dict], bom: bool = False, line_end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)


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
        assert outcome.status == 0, outcome.err
        assert outcome.err == ""
        return target

    return run


@pytest.fixture
def reference(scene, convert, tmp_path) -> Path:
    folder = tmp_path / "reference"
    return convert(folder, *write_pcp(folder, scene))


def content(cohort: Path) -> dict[str, bytes]:
    """All files but cohort.json, which names the command."""
    return {path.name: path.read_bytes() for path in cohort.iterdir() if path.name != "cohort.json"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_records(layout, scene, reference, convert, tmp_path):
    folder = tmp_path / layout
    assert content(convert(folder, *LAYOUTS[layout](folder, scene))) == content(reference)
    assert len(content(reference)) == len(SUBJECTS) + 1


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
        ("dx", "1", "has no column dx; it has SUB_ID"),
    ],
)
def test_a_label_that_does_not_fit_the_table(label, positive, words, plain, data_cli, tmp_path):
    folder, arguments = plain()
    command = [*arguments[:2], "--labelColumn", label, "--positive", positive]
    outcome = data_cli("convert", folder, tmp_path / "out", *command)
    assert outcome.status == 2
    assert re.search(words, outcome.err)


def test_the_positive_value_decides_what_is_autism(plain, convert):
    folder, arguments = plain()
    as_given = {row["subject"]: row["label"] for row in read_rows(convert(folder, *arguments) / "subjects.csv")}
    expected = {str(subject): str(1 - number % 2) for number, subject in enumerate(SUBJECTS)}
    assert as_given == expected
    flipped = shutil.copytree(folder, folder.with_name("flipped"))
    rows = read_rows(convert(flipped, *arguments[:-1], "TD") / "subjects.csv")
    assert {row["subject"]: row["label"] for row in rows} == {name: str(1 - int(of)) for name, of in expected.items()}


def test_an_unknown_label_is_left_out_and_named(plain, data_cli, tmp_path):
    folder, arguments = plain(lambda rows: rows[2].update(diagnosis="-9999"))
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced", *arguments)
    assert outcome.status == 0, outcome.err
    assert f"1 left out, diagnosis unknown: {SUBJECTS[2]}" in outcome.out
    assert len(read_rows(tmp_path / "out" / "subjects.csv")) == len(SUBJECTS) - 1


def test_rows_without_a_map_and_maps_without_a_row_are_named(scene, data_cli, tmp_path):
    dropped = scene.rows.pop(1)
    scene.rows.append(scene.rows[0] | {"SUB_ID": "60001", "FILE_ID": "NYU_0060001"})
    folder = tmp_path / "pcp"
    scene.rows.insert(0, dropped)
    write_pcp(folder, scene)
    write_rows(folder / "Phenotypic_V1.csv", scene.rows[1:])
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced")
    assert outcome.status == 0, outcome.err
    assert "1 left out, no map: 60001" in outcome.out
    assert f"1 left out, a map without a row in the table: {dropped['FILE_ID']}" in outcome.out
    left_out = json.loads((tmp_path / "out" / "cohort.json").read_text())["provenance"]["left_out"]
    assert left_out["no map"] == ["60001"]
    assert len(read_rows(tmp_path / "out" / "subjects.csv")) == len(SUBJECTS) - 1


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
            r"has two maps for NYU_0051452: .*cpac.* and .*dparsf.*--mapColumn",
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
            "not a readable table",
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


def test_a_row_that_ends_early_is_unknown_where_it_ends(scene, convert, tmp_path):
    """The last row lacks its trailing empty cells, and a blank line follows, as some programs write."""
    folder = tmp_path / "pcp"
    write_pcp(folder, scene)
    path = folder / "Phenotypic_V1.csv"
    path.write_text(path.read_text() + "60001\n\n")
    assert len(read_rows(convert(folder) / "subjects.csv")) == len(SUBJECTS)


# Phenotype columns of the user's own


def test_own_columns_are_encoded_in_order(plain, convert):
    """Numbers, numbers with gaps, and text; each value against the table, scaled by training subjects."""

    def change(rows):
        for number, row in enumerate(rows):
            row.update(years=str(10 + number), hand="RLR?RL"[number].replace("?", "`"), iq="99" if number else "-9999")

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
    for index, record in enumerate(cohort.rows):
        phenotype = cohort.read(index)[1]
        scaled = (np.array(raw[record.subject]) - known.mean(0)) / known.std(0)
        np.testing.assert_allclose(phenotype[len(gaps) : len(names)], scaled, atol=1e-5)
        assert (phenotype[len(names) :] == 0).all()
        assert phenotype[0] == 0  # every known iq is 99, the median too


def test_categories_are_learnt_on_training_rows_only():
    import pandas as pd

    table = pd.DataFrame({"scanner": ["B", "A", "C", "B"], "iq": ["90", "95", "-9999", "100"]})
    training = np.array([True, True, False, True])
    values = custom_values(table, ["scanner", "iq"], training)
    assert values.columns.tolist() == ["scanner_A", "scanner_B", "iq"] + [f"unused_{k}" for k in range(4, 30)]
    assert values.iloc[2, :2].tolist() == [0, 0]
    assert np.isnan(values.iloc[2, 2])


def test_more_than_29_values_are_refused(plain, data_cli, tmp_path):
    folder, arguments = plain(lambda rows: [row.update({f"x{k}": str(k) for k in range(30)}) for row in rows])
    columns = ",".join(f"x{k}" for k in range(30))
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments, "--phenotype", columns)
    assert outcome.status == 2
    assert "--phenotype gives 30 values; expected at most 29" in outcome.err


def test_an_unknown_phenotype_column_is_refused(plain, data_cli, tmp_path):
    folder, arguments = plain()
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments, "--phenotype", "shoe_size")
    assert outcome.status == 2
    assert "--phenotype shoe_size is no column of the table; it has SUB_ID" in outcome.err


def test_infinite_phenotype_values_are_refused(plain, data_cli, tmp_path):
    folder, arguments = plain(lambda rows: rows[0].update(AGE_AT_SCAN="inf"))
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments, "--phenotype", "AGE_AT_SCAN")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert "AGE_AT_SCAN" in outcome.err


def test_no_phenotype_at_all(plain, convert):
    folder, arguments = plain()
    cohort = open_cohort(convert(folder, *arguments, "--phenotype", ""))
    assert cohort.metadata.phenotype == tuple(f"unused_{k}" for k in range(1, 30))
    assert (cohort.read(0)[1] == 0).all()


def test_tensorflow_is_never_imported(scene, tmp_path):
    """The user's command in a process of its own, which fails if anything imports TensorFlow."""
    write_pcp(tmp_path / "pcp", scene)
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "data"]
    for verb in (
        ["convert", "pcp", "cohort", "--grid", "reduced"],
        ["check", "cohort"],
        ["pack", "cohort", "h5", "--hdf5"],
    ):
        finished = subprocess.run([*command, *verb], env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert "TensorFlow was imported" not in finished.stderr
        assert finished.returncode in (0, 1), finished.stderr
