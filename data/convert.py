"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from data import files, grids, phenotype, records
from data.cohort import METADATA, Metadata, Row, assign_splits, write_tables
from data.errors import InputError
from data.layouts import Source
from data.leaks import check_coding, check_names, check_values
from data.nifti import load_map
from data.progress import progress


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


def start(target: Path, metadata: Metadata) -> None:
    """Makes the cohort's folder, or finds the one that an interrupted run of the same conversion left.

    Raises InputError if the folder holds anything else.
    """
    target.mkdir(parents=True, exist_ok=True)
    if (target / METADATA).exists():
        if (target / METADATA).read_bytes() != files.json_text(metadata.json()).encode():
            raise InputError(f"{target} holds a cohort made otherwise; choose another folder or remove it.")
    elif any(path for path in target.iterdir() if not path.name.startswith(".")):
        raise InputError(f"{target} is not empty and holds no cohort; choose another folder.")
    for leftover in target.glob(".*.tmp"):  # of a run that was killed
        leftover.unlink()
    files.write_json(target / METADATA, metadata.json())


def plan(
    subjects: pd.DataFrame,
    encode: Callable[[np.ndarray], pd.DataFrame],
    grid: grids.Grid,
    seed: int,
    provenance: dict,
    allow_leak: bool = False,
) -> tuple[list[Row], np.ndarray, Metadata]:
    """The table of a new cohort, its scaled phenotype (subjects, 29) float32, and its metadata.

    `subjects` has the columns subject, site and label; `encode` takes which of its rows are for training, (subjects,)
    bool, and gives the same rows of the raw phenotype, NaN where unknown. Raises InputError for a leak.
    """
    split = assign_splits(subjects["subject"].tolist(), subjects["site"].tolist(), subjects["label"].tolist(), seed)
    table = [
        Row(f"{row.subject}.bin", row.subject, row.site, row.label, split[row.subject]) for row in subjects.itertuples()
    ]
    training = np.array([record.split == "train" for record in table])
    values = encode(training)
    separations = check_values(values[training], subjects["label"].to_numpy()[training], allow_leak)
    scaler = phenotype.fit_scaler(values.to_numpy(float)[training])
    metadata = Metadata(
        maps=("falff",),
        normalisation="z-scored over the whole volume",
        reduction="none" if grid == grids.FULL else "block mean",
        phenotype=tuple(values.columns),
        phenotype_median=tuple(scaler[0].statistics_.tolist()),
        phenotype_mean=tuple(scaler[1].mean_.tolist()),
        phenotype_scale=tuple(scaler[1].scale_.tolist()),
        phenotype_auc=separations,
        grid=grid.shape,
        affine=tuple(map(tuple, grid.affine)),
        provenance=provenance | {"seed": seed},
    )
    return table, scaler.transform(values.to_numpy(float)).astype(np.float32), metadata


def convert(
    source: Source, target: Path, grid: grids.Grid, seed: int, columns: list[str] | None, allow_leak: bool, command: str
) -> tuple[list[Row], Metadata]:
    """Writes the cohort `target`, using every core; an interrupted run is completed by repeating it.

    `columns` of the table are the phenotype, ABIDE's own if None. Returns the table of records and the metadata.
    """
    subjects = source.subjects
    if subjects.empty:
        raise InputError(f"{source.table} and the maps have no subject in common; expected IDs that match.")
    provenance = {
        "command": command,
        "input_sha256": digest_of_files([source.table, *subjects["map"]]),
        "left_out": source.left_out,
    }
    check_coding(source.rows, subjects["label"].to_numpy(), source.label_column)
    if columns and not allow_leak:
        check_names(columns, source.label_column)
    encode = partial(phenotype.encode, source.rows, columns)
    table, headers, metadata = plan(subjects, encode, grid, seed, provenance, allow_leak)
    start(target, metadata)
    with (
        ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=partial(warnings.simplefilter, "ignore")) as pool,
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
    return table, metadata
