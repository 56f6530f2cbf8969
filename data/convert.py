"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from nibabel.filebasedimages import ImageFileError

from data import files, grids, phenotype, records
from data.cohort import METADATA, Record, assign_splits, write_tables
from data.errors import InputError
from data.progress import progress
from data.sources import Source


def load_map(path: Path) -> np.ndarray:
    """A NIfTI map of any orientation and spacing, resampled by its affine onto the full grid, (91, 109, 91) float32.

    Linear interpolation, 0 outside the map; NaN counts as outside the brain. Raises InputError, naming the file.
    """
    from nilearn.image import resample_img

    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        values = np.asarray(image.dataobj, np.float32)
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable NIfTI map: {' '.join(str(error).split())}. Copy it again."
        ) from error
    if values.ndim != 3:
        raise InputError(f"{path} has the shape {values.shape}; expected one 3-D map.")
    image = nibabel.Nifti1Image(np.nan_to_num(values, nan=0.0, posinf=np.nan, neginf=np.nan), image.affine)
    if not np.isfinite(image.dataobj).all():
        raise InputError(f"{path} holds infinite values; expected fALFF. Compute the map again.")
    options = {"interpolation": "linear", "copy_header": True, "force_resample": True}
    volume = resample_img(image, grids.FULL.affine, grids.FULL.shape, **options).get_fdata(dtype=np.float32)
    if not volume.std() > 0:
        raise InputError(f"{path} is empty or constant on the MNI grid; expected a brain. Check its affine.")
    return volume


def convert_map(path: Path, header: tuple[float, np.ndarray], target: Path, grid: grids.Grid) -> None:
    """Writes one record unless it is there; `header` is its label and scaled phenotype (29,)."""
    if target.exists() and target.stat().st_size == records.record_bytes(grid):
        return
    volume = records.normalise(load_map(path))
    volume = volume if grid == grids.FULL else records.block_mean(volume)
    with files.replacing(target, "wb") as file:
        file.write(records.pack(*header, volume))


def digest_of_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def start(target: Path, metadata: dict) -> None:
    """Makes the cohort's folder, or finds the one that an interrupted run of the same conversion left.

    Raises InputError if the folder holds anything else.
    """
    target.mkdir(parents=True, exist_ok=True)
    if (target / METADATA).exists():
        if json.loads((target / METADATA).read_text()) != metadata:
            raise InputError(f"{target} holds a cohort made otherwise; choose another folder or remove it.")
    elif any(path for path in target.iterdir() if not path.name.startswith(".")):
        raise InputError(f"{target} is not empty and holds no cohort; choose another folder.")
    files.write_json(target / METADATA, metadata)


def plan(
    subjects: pd.DataFrame, values: pd.DataFrame, grid: grids.Grid, seed: int, provenance: dict
) -> tuple[list[Record], np.ndarray, dict]:
    """The table of a new cohort, its scaled phenotype (subjects, 29) float32, and its metadata.

    `subjects` has the columns subject, site and label; `values` the same rows of the raw phenotype, NaN where unknown.
    """
    split = assign_splits(subjects["subject"].tolist(), subjects["site"].tolist(), subjects["label"].tolist(), seed)
    table = [
        Record(f"{row.subject}.bin", row.subject, row.site, row.label, split[row.subject])
        for row in subjects.itertuples()
    ]
    raw = values.to_numpy(float)
    scaler = phenotype.fit_scaler(raw[[record.split == "train" for record in table]])
    metadata = {
        "grid": list(grid.shape),
        "affine": grid.affine,
        "phenotype": values.columns.tolist(),
        "phenotype_median": scaler[0].statistics_.tolist(),
        "phenotype_mean": scaler[1].mean_.tolist(),
        "phenotype_scale": scaler[1].scale_.tolist(),
        "provenance": provenance | {"seed": seed},
    }
    return table, scaler.transform(raw).astype(np.float32), metadata


def convert(source: Source, target: Path, grid: grids.Grid, seed: int, command: str) -> list[Record]:
    """Writes the cohort `target`, using every core; an interrupted run is completed by repeating it."""
    subjects = source.subjects
    if subjects.empty:
        raise InputError(f"{source.table} and the maps have no subject in common; expected IDs that match.")
    provenance = {
        "command": command,
        "input_sha256": digest_of_files([source.table, *subjects["map"]]),
        "left_out": source.left_out,
    }
    table, headers, metadata = plan(subjects, source.phenotype, grid, seed, provenance)
    start(target, metadata)
    with (
        ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=partial(warnings.simplefilter, "error")) as pool,
        progress("Converting", len(table)) as shown,
    ):
        jobs = [
            pool.submit(convert_map, path, (record.label, header), target / record.file, grid)
            for record, path, header in zip(table, subjects["map"], headers, strict=True)
        ]
        try:
            for job in as_completed(jobs):
                job.result()
                shown.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_tables(target, table, metadata)
    return table
