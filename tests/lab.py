"""The data of a laboratory: makes up people from a seed, writes their tables, maps, series, scans and records in each
layout of files that is read, reads records and tables back, copies folders, and damages files.

It imports nothing of the program, so that what the program reads is written, and what it writes is read, by other code;
helpers that use the program are in helpers.py. In people with autism left exceeds right in every map, and two parcels
agree.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd

SHAPE, AFFINE = (8, 10, 8), np.array([[-24.0, 0, 0, 84], [0, 24, 0, -120], [0, 0, 24, -66], [0, 0, 0, 1]])
PARCELS = 12
REDUCED_GRID = (31, 37, 31)  # of a reduced record
PHENOTYPE_COUNT = 29  # of its phenotype
SCAN, VOLUMES, TR_S = (8, 9, 8), 120, 2.0
SPACE = "task-rest_space-MNI152NLin6Asym"
REST_BOLD = f"{SPACE}_desc-preproc_bold"
TAB_SUFFIXES = {".tsv", ".1D"}  # files whose columns are apart by tabs
EDITABLE_SUFFIXES = {".csv", ".nii", ".gz", *TAB_SUFFIXES}  # what a function given to `edit` changes the content of


def people(count: int = 40, first: int = 50002) -> pd.DataFrame:
    """An ABIDE-like table of three sites as text, a fifth of whose values are missing, as an empty cell or -9999; the
    same values for the same place in the table. `hand` and `iq` are for --phenotype."""
    return pd.DataFrame([person(number, str(first + number)) for number in range(count)])


def person(table_place: int, subject: str) -> dict[str, str]:
    random = np.random.default_rng(table_place)
    is_present = random.random(8) < 0.8
    return {
        "SUB_ID": subject,
        "SITE_ID": ("PITT", "NYU", "USM")[table_place % 3],
        "FILE_ID": f"X_00{subject}",
        "DX_GROUP": str(1 + table_place // 2 % 2),
        "AGE_AT_SCAN": f"{random.uniform(7, 40):.2f}",
        "SEX": str(random.integers(1, 3)),
        "HANDEDNESS_CATEGORY": random.choice(["R", "L", "Ambi", ""]),
        "HANDEDNESS_SCORES": str(random.integers(-100, 101)) if is_present[0] else "-9999",
        **{
            name: str(random.integers(80, 130)) if is_present[value_index] else ""
            for value_index, name in enumerate(("FIQ", "VIQ", "PIQ"), 1)
        },
        "FIQ_TEST_TYPE": random.choice(["WASI", "WISC_III", "WAIS_III", ""]),
        "EYE_STATUS_AT_SCAN": str(random.integers(1, 3)),
        "BMI": f"{random.uniform(17, 31):.1f}" if is_present[4] else "-9999",
        **{f"WISC_IV_{index}": "" for index in ("VCI", "PRI", "WMI", "PSI")},
        "func_mean_fd": f"{random.lognormal(-2.3, 0.5):.5f}",
        "hand": random.choice(["right", "left", "both"]),
        "iq": str(random.integers(80, 130)) if is_present[5] else "",
    }


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """A NIfTI file; a fourth axis is time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    if values.ndim > 3:
        image.header["pixdim"][4] = TR_S
    nibabel.save(image, path)
    return path


def load_image(path: os.PathLike) -> nibabel.Nifti1Image:
    """The image of a NIfTI file, compressed or not."""
    return nibabel.Nifti1Image.from_filename(path)


def make_brain(shape: tuple = SHAPE) -> np.ndarray:
    """An ellipsoid, (x, y, z) bool."""
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    return np.square(axes).sum(0) < 0.9


def make_map(subject_row: dict, map_number: int = 0, shape: tuple = SHAPE) -> np.ndarray:
    """The map of a person, (x, y, z) float32: 0 outside of the brain, else 0.2 to 1, 50 times as much in the next."""
    random, has_autism = np.random.default_rng((int(subject_row["SUB_ID"]), map_number)), subject_row["DX_GROUP"] == "1"
    side_difference = np.where(np.arange(shape[0]) < shape[0] // 2, 0.08, -0.08)[:, None, None]  # x runs to the left
    values = np.clip(random.uniform(0.2, 1, shape) * (1 + has_autism * side_difference), 0.2, 1)
    values[tuple(np.argwhere(make_brain(shape))[[0, -1]].T)] = 0.2, 1  # the extremes tell nothing
    return (50**map_number * values * make_brain(shape)).round(3).astype(np.float32)


def make_series(subject_row: dict, volume_count: int = 60) -> pd.DataFrame:
    """The mean series of the parcels of a person, (volumes, parcels)."""
    random = np.random.default_rng(int(subject_row["SUB_ID"]))
    series = random.normal(size=(volume_count, PARCELS)) + random.normal(size=(volume_count, 1))
    series[:, 1] += (subject_row["DX_GROUP"] == "1") * series[:, 0]
    return pd.DataFrame(series.round(5), columns=[f"#{number}" for number in range(1, PARCELS + 1)])


def parcels(path: Path) -> Path:
    """The image of the parcels, blocks of the whole field of view, from 1."""
    block_indices = np.indices(SHAPE) // np.reshape((4, 4, 4), (3, 1, 1, 1))
    return save(path, 1 + np.ravel_multi_index(tuple(block_indices), (2, 3, 2)).astype(np.int16))


# Layouts


def pcp(folder: Path, table: pd.DataFrame, maps: tuple = ("falff",), series: bool = False) -> Path:
    """As the Preprocessed Connectomes Project has them, with the image of the parcels beside."""
    (folder / "cpac").mkdir(parents=True)
    table.to_csv(folder / "Phenotypic.csv", index=False)
    for subject_row in table.to_dict("records"):
        for map_number, map_name in enumerate(maps):
            save(folder / f"cpac/{subject_row['FILE_ID']}_{map_name}.nii.gz", make_map(subject_row, map_number))
        if series:
            make_series(subject_row).to_csv(
                folder / f"cpac/{subject_row['FILE_ID']}_rois_made.1D", sep="\t", index=False
            )
    if series:
        parcels(folder / "parcels.nii.gz")
    return folder


def write_network_maps(folder: Path, table: pd.DataFrame) -> Path:
    """`pcp` with a 4-D map of three networks each, of either sign."""
    pcp(folder, table)
    for subject_row in table.to_dict("records"):
        values = np.stack([make_map(subject_row, number) / 50**number for number in range(3)], -1)
        save(folder / f"cpac/{subject_row['FILE_ID']}_net.nii.gz", np.where(values, values - np.float32(0.6), 0))
    return folder


def write_maps_under_names(folder: Path, names: Iterable[str]) -> Path:
    """One map of a brain under each of these names."""
    content = nibabel.Nifti1Image(make_map(person(0, "1")), AFFINE).to_bytes()
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def bids(folder: Path, table: pd.DataFrame, maps: tuple = ("falff",)) -> Path:
    """A derivative below a dataset, whose table names the groups A and C."""
    for subject_row in table.to_dict("records"):
        name = f"sub-{subject_row['SUB_ID']}/func/sub-{subject_row['SUB_ID']}_task-rest"
        for number, kind in enumerate(maps):
            save(folder / f"derivatives/lab/{name}_{kind}.nii.gz", make_map(subject_row, number))
    participants(folder, table)
    return folder


def xcpd(folder: Path, table: pd.DataFrame, entities: str = "seg-Toy_stat-mean") -> Path:
    """`bids` with series of parcels with names, and the image and the table of these. The second person has two
    censored volumes, and no signal in the third parcel."""
    bids(folder, table)
    parcel_names = [f"P{number}" for number in range(PARCELS, 0, -1)]
    for row_index, subject_row in enumerate(table.to_dict("records")):
        series = make_series(subject_row).set_axis(parcel_names, axis=1)
        if row_index == 1:
            series.loc[[3, 4]] = np.nan
            series["P10"] = np.nan
        place = (
            folder / f"derivatives/lab/sub-{subject_row['SUB_ID']}/func/"
            f"sub-{subject_row['SUB_ID']}_task-rest_{entities}_timeseries.tsv"
        )
        series.to_csv(place, sep="\t", index=False, na_rep="n/a")
    atlas = folder / "derivatives/lab/atlases/atlas-Toy"
    parcels(atlas / "atlas-Toy_space-MNI_dseg.nii.gz")
    parcel_table = pd.DataFrame({"index": range(1, PARCELS + 1), "label": parcel_names})
    parcel_table.to_csv(atlas / "atlas-Toy_dseg.tsv", sep="\t", index=False)
    return folder


def participants(folder: Path, table: pd.DataFrame) -> None:
    """BIDS's table of these people."""
    participants_table = table.drop(columns=["FILE_ID", "SUB_ID", "DX_GROUP"]).replace("", "n/a")
    participants_table.insert(0, "participant_id", "sub-" + table["SUB_ID"])
    participants_table["group"] = table["DX_GROUP"].map({"1": "A", "2": "C"})
    participants_table.to_csv(folder / "participants.tsv", sep="\t", index=False)


def flat(folder: Path, table: pd.DataFrame) -> Path:
    """As DPABI leaves them: one folder of uncompressed maps; a table in another order beside it."""
    for subject_row in table.to_dict("records"):
        save(folder / f"zfALFFMap_{subject_row['SUB_ID']}.nii", make_map(subject_row))
    table.iloc[::-1].to_csv(folder.with_suffix(".csv"), index=False)
    return folder


def write_maps_by_column(folder: Path, table: pd.DataFrame) -> Path:
    """Files of any name, which the column `path` gives; the label in words."""
    table = table.assign(path=[f"maps/scan{7 * number}.nii.gz" for number in range(len(table))])
    for subject_row in table.to_dict("records"):
        save(folder / subject_row["path"], make_map(subject_row))
    diagnosis_words = table["DX_GROUP"].map({"1": "ASD", "2": "TD"})
    table.assign(diagnosis=diagnosis_words).drop(columns="DX_GROUP").to_csv(folder / "all.csv", index=False)
    return folder


def bold(
    folder: Path, table: pd.DataFrame, shape: tuple = (8, 9, 8), volumes: int = VOLUMES, unsteady: int = 0
) -> Path:
    """Preprocessed scans as fMRIPrep leaves them, with masks, JSON and confounds."""
    for subject_row in table.to_dict("records"):
        stem = folder / f"sub-{subject_row['SUB_ID']}/func/sub-{subject_row['SUB_ID']}"
        scan = save(
            stem.with_name(f"{stem.name}_{REST_BOLD}.nii.gz"), make_scan(int(subject_row["SUB_ID"]), shape, volumes)
        )
        scan.with_name(f"{stem.name}_{REST_BOLD}.json").write_text(json.dumps({"RepetitionTime": TR_S}))
        save(stem.with_name(f"{stem.name}_{SPACE}_desc-brain_mask.nii.gz"), make_brain(shape).astype(np.uint8))
        confounds = make_confounds(int(subject_row["SUB_ID"]), volumes, unsteady)
        place = stem.with_name(f"{stem.name}_task-rest_desc-confounds_timeseries.tsv")
        confounds.to_csv(place, sep="\t", index=False, na_rep="n/a")
    participants(folder, table)
    return folder


def write_images(folder: Path) -> Path:
    """Maps of two networks and an atlas of four parcels on the grid of scans, with the names of each."""
    save(folder / "nets.nii.gz", np.random.default_rng(0).normal(size=(*SCAN, 2)).astype(np.float32))
    (folder / "nets.txt").write_text("visual\nmotor\n")
    save(folder / "my_atlas.nii.gz", (np.arange(np.prod(SCAN)).reshape(SCAN) % 5).astype(np.int16))
    (folder / "my_atlas.tsv").write_text(
        "index\tname\n" + "".join(f"{parcel}\tparcel{parcel}\n" for parcel in range(1, 5))
    )
    return folder


def make_scan(seed: int, shape: tuple, volumes: int) -> np.ndarray:
    """Noise of which half is slow, and a slow signal of the whole brain that grows from left to right, (x, y, z,
    volumes) float32. The mean is 1000 in the brain, 0 outside."""
    smoothing_kernel = np.ones(5) / 5
    noise = np.random.default_rng(seed).normal(size=(*shape, volumes))
    global_signal = np.convolve(np.random.default_rng((seed, 1)).normal(size=volumes), smoothing_kernel, "same")
    left_right_gradient = np.linspace(0, 3, shape[0])[:, None, None, None]
    slow_noise = np.apply_along_axis(np.convolve, 3, noise, smoothing_kernel, "same")
    return np.where(
        make_brain(shape)[..., None], 1000 + 5 * (noise + 3 * slow_noise + left_right_gradient * global_signal), 0
    ).astype(np.float32)


def make_confounds(seed: int, volumes: int = VOLUMES, unsteady: int = 0) -> pd.DataFrame:
    """fMRIPrep's columns that its strategies in nilearn read."""
    random = np.random.default_rng((seed, 2))
    table = pd.DataFrame({"framewise_displacement": random.uniform(0.05, 0.2, volumes), "std_dvars": 1.0})
    table.loc[0, "framewise_displacement"] = np.nan
    for name in (*(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"), "csf", "white_matter"):
        table[name] = random.normal(size=volumes)
        table[f"{name}_derivative1"] = table[name].diff()
        table[f"{name}_power2"] = table[name] ** 2
        table[f"{name}_derivative1_power2"] = table[f"{name}_derivative1"] ** 2
    for number in range(unsteady):
        table[f"non_steady_state_outlier{number:02}"] = (np.arange(volumes) == number).astype(int)
    return table.assign(cosine00=np.cos(np.pi * (np.arange(volumes) + 0.5) / volumes))


def record(number: int, label: float | None = None, shape: tuple = REDUCED_GRID) -> bytes:
    """A record as the mission has it: label, 29 phenotype values, volume, little-endian float32."""
    random = np.random.default_rng(number)
    values = [
        float(number % 2) if label is None else label,
        *random.normal(size=PHENOTYPE_COUNT),
        *random.normal(size=shape).flat,
    ]
    return np.array(values, "<f4").tobytes()


def records(folder: Path, count: int = 8) -> Path:
    """Records alone, without any table."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        (folder / f"{number}.bin").write_bytes(record(number))
    return folder


def write_chunks(folder: Path, count: int = 8, records_per_chunk: int = 4) -> Path:
    """The same records in zip chunks."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        with zipfile.ZipFile(
            folder / f"compressed_{(number - 1) // records_per_chunk}", "a", zipfile.ZIP_DEFLATED
        ) as chunk:
            chunk.writestr(f"{number}.bin", record(number))
    return folder


# What a user gets


def read_record(path: Path, maps: int = 1, shape: tuple = REDUCED_GRID) -> tuple[float, np.ndarray, np.ndarray]:
    """A record: its label, 29 phenotype values, and volumes (maps, x, y, z), float32."""
    values = np.frombuffer(path.read_bytes(), "<f4")
    return float(values[0]), values[1 : PHENOTYPE_COUNT + 1], values[PHENOTYPE_COUNT + 1 :].reshape(maps, *shape)


def read_table(path: Path) -> pd.DataFrame:
    """A table as text, an empty cell as ""."""
    return pd.read_csv(path, sep="\t" if path.suffix in TAB_SUFFIXES else ",", dtype=str, keep_default_na=False)


def copy_test(source: Path, to: Path, predictions: pd.DataFrame | None = None, **manifest_changes: object) -> Path:
    """A copy of the folder of a test that holds other predictions, and whose `run.json` says otherwise; its marks are
    those of what is there."""
    copy(source, to)
    if predictions is not None:
        edit(to / "predictions.csv", predictions.to_csv(index=False).encode())
    output_names = json.loads((to / "run.json").read_text())["outputs"]
    edit_manifest(
        to / "run.json",
        outputs={name: compute_mark(to / name) for name in output_names if (to / name).exists()},
        **manifest_changes,
    )
    return to


def compute_mark(path: Path) -> str:
    """By what a record knows a file again."""
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest() if path.suffix in (".csv", ".json") else f"{len(content)} bytes"


def edit_manifest(manifest_path: Path, **manifest_changes: Any) -> Path:
    """A record that says otherwise, in whichever of its groups; what is new is said by its test."""
    content = json.loads(manifest_path.read_text())
    groups = [content[name] or {} for name in ("test", "versions", "caveats", "settings")] + [content]
    for name, value in manifest_changes.items():
        next((group for group in groups if name in group), content["test"])[name] = value
    return edit(manifest_path, json.dumps(content).encode())


# Faults


def copy(source: Path, to: Path) -> Path:
    """A copy that costs nothing: links, which `edit` replaces."""
    if source.is_dir():
        return shutil.copytree(source, to, copy_function=os.link)
    os.link(source, to)
    return to


def edit(path: Path, change: str | bytes | dict | Callable) -> Path:
    """Spoils one file: "gone", "cut", "flipped" (one bit), "empty"; other bytes; keys of a JSON file (None takes one
    out); a function of a table of text, or of the values and affine of an image. The file is a new one, so that links
    to it keep what they had."""
    content = path.read_bytes()
    path.unlink()
    if change == "gone":
        return path
    if isinstance(change, dict):
        remaining_items = {name: value for name, value in json.loads(content).items() if name not in change}
        change = json.dumps(
            remaining_items | {name: value for name, value in change.items() if value is not None}
        ).encode()
    if callable(change) and ".nii" in path.suffixes[-2:]:
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content) if path.suffix == ".gz" else content)
        return save(path, *change(np.asanyarray(image.dataobj), image.affine))
    path.write_bytes(spoil_content(path, content, change))
    return path


def spoil_content(path: Path, content: bytes, change: str | bytes | Callable) -> bytes:
    if callable(change):
        separator = "\t" if path.suffix in TAB_SUFFIXES else ","
        table = pd.read_csv(io.BytesIO(content), sep=separator, dtype=str, keep_default_na=False)
        return change(table).to_csv(sep=separator, index=False).encode()
    if isinstance(change, bytes):
        return change
    middle = len(content) // 8 * 4
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    return {"cut": content[: -max(4, len(content) // 3)], "flipped": flipped, "empty": b""}[change]
