"""Tiny 4-D scans as fMRIPrep leaves them, made up: for tests of `derive`, the roads and the torture."""

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from helpers import COARSE, write_rows

SHAPE, VOLUMES, TR_S = (8, 9, 8), 120, 2.0
AFFINE = COARSE
SPACE = "task-rest_space-MNI152NLin6Asym"
REST = f"{SPACE}_desc-preproc_bold"


def inside(shape=SHAPE) -> np.ndarray:
    """An ellipsoid (x, y, z) bool."""
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    return sum(np.square(axes)) < 0.9


def bold(seed: int, volumes: int = VOLUMES, shape=SHAPE) -> np.ndarray:
    """Noise of which half is slow, and a slow signal of the whole brain that grows from left to right, (x, y, z,
    volumes) float32. The mean is 1000 in the brain, 0 outside."""
    noise = np.random.default_rng(seed).normal(size=(*shape, volumes))
    right = np.linspace(0, 3, shape[0])[:, None, None, None]
    shared = np.convolve(np.random.default_rng((seed, 1)).normal(size=volumes), np.ones(5) / 5, "same")
    slow = np.apply_along_axis(np.convolve, 3, noise, np.ones(5) / 5, "same")
    return np.where(inside(shape)[..., None], 1000 + 5 * (noise + 3 * slow + right * shared), 0).astype(np.float32)


def image(values: np.ndarray, affine=AFFINE, tr_s: float = TR_S, unit: str = "sec") -> nibabel.Nifti1Image:
    made = nibabel.Nifti1Image(values, affine)
    made.header.set_xyzt_units("mm", unit)
    if values.ndim > 3:
        made.header["pixdim"][4] = tr_s
    return made


def save(path: Path, made: nibabel.Nifti1Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(made, path)
    return path


def confounds(seed: int, volumes: int = VOLUMES, unsteady: int = 0, moved=()) -> pd.DataFrame:
    """fMRIPrep's columns that its strategies in nilearn read."""
    random = np.random.default_rng(100 + seed)
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"] + ["csf", "white_matter"]
    table = pd.DataFrame({"framewise_displacement": random.uniform(0.05, 0.2, volumes), "std_dvars": 1.0})
    table.loc[list(moved), "framewise_displacement"] = 2.0
    table.loc[0, "framewise_displacement"] = np.nan
    for name in names:
        table[name] = random.normal(size=volumes)
        table[f"{name}_derivative1"] = table[name].diff()
        table[f"{name}_power2"] = table[name] ** 2
        table[f"{name}_derivative1_power2"] = table[name].diff() ** 2
    table["cosine00"] = np.cos(np.pi * (np.arange(volumes) + 0.5) / volumes)
    for number in range(unsteady):
        table[f"non_steady_state_outlier{number:02}"] = (np.arange(volumes) == number).astype(int)
    return table


def write_person(folder: Path, label: str, name: str = REST, mask: bool = True, **scan) -> Path:
    """A scan with mask and JSON, as fMRIPrep leaves it."""
    path = save(folder / f"sub-{label}/func/sub-{label}_{name}.nii.gz", image(bold(int(label), **scan)))
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"RepetitionTime": TR_S}))
    if mask:
        of_mask = re.sub("desc-.*", "desc-brain_mask.nii.gz", path.name)
        save(path.with_name(of_mask), image(inside(scan.get("shape", SHAPE)).astype(np.uint8)))
    return path


def write_confounds(scan: Path, table: pd.DataFrame) -> Path:
    path = scan.with_name(re.sub("_space-.*", "_desc-confounds_timeseries.tsv", scan.name))
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


def write_people(folder: Path, labels=("1", "2", "3"), **scan) -> Path:
    for label in labels:
        write_person(folder, label, **scan)
    rows = [{"participant_id": f"sub-{label}", "group": "AC"[int(label) % 2]} for label in labels]
    write_rows(folder / "participants.tsv", rows)
    return folder
