"""Means of a cohort's volumes over parcels, computed once and kept.

The first, fixed layers of a network give means over parcels. Baselines are fitted on them, and the fills of a blackout
are predicted from them. A row depends on its own record alone. If volumes are z-scored within sites, it depends on the
site, too. The means are kept in `<chkPointDir>/means/`: `<parcels>-<key>.npy`, and a `.json` that says what it is and
its SHA-256. The key is made from the volumes' digests, how they are standardised, and the parcels. If any of these
changes, another table is made. A damaged one is made anew. The folder may be removed at any time.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from data.base import files, manifest
from data.base.errors import InputError
from data.base.terminal import open_progress_bar
from data.cohorts import records
from data.cohorts.cohort import Cohort, split_into_batches
from data.images.parcels import Parcels

PARCEL_MEANS_FOLDER = "means"
RECORDS_PER_CHUNK = 16  # records read at once
LOADED_MEANS_BY_PATH: dict[Path, np.ndarray] = {}  # of means that this process has verified or made, by their paths


def load_parcel_means(cohort: Cohort, parcellations: Sequence[Parcels]) -> list[np.ndarray]:
    """The means of all records of a cohort, standardised as its batches are, over each kind of parcels: (records,
    *means_shape, maps) float32, not to be changed; kept in `cohort.means_folder`, if there is one. Raises InputError
    for a record that cannot be read."""
    means_paths = [make_means_path(cohort, parcellation) for parcellation in parcellations]
    if missing_parcellation_by_path := {
        means_path: parcellation
        for means_path, parcellation in zip(means_paths, parcellations, strict=True)
        if not try_load_means_table(means_path)
    }:
        make_means_tables(cohort, missing_parcellation_by_path)
    return [
        LOADED_MEANS_BY_PATH[means_path].reshape(len(cohort.rows), *parcellation.means_shape, -1)
        for means_path, parcellation in zip(means_paths, parcellations, strict=True)
    ]


def make_means_path(cohort: Cohort, parcels: Parcels) -> Path:
    """The path of a table, named by what decides its content; only the name if the cohort keeps no means."""
    site_by_record = [row.site for row in cohort.rows] if cohort.moments_by_site else None
    moment_records_and_sites = [cohort.find_unswapped_record_indices(), site_by_record] if site_by_record else None
    volume_digests = [record_digests.volume for record_digests in cohort.digests]
    key_content = [
        files.FORMAT_VERSION,
        cohort.grid.name,
        cohort.num_maps,
        cohort.standard,
        moment_records_and_sites,
        volume_digests,
    ]
    table_key = hashlib.sha256(
        json.dumps(key_content).encode() + parcels.parcel_indices.astype("<i4").tobytes()
    ).hexdigest()
    return (cohort.means_folder or Path()) / f"{parcels.name}-{table_key[:16]}.npy"


def try_load_means_table(means_path: Path) -> bool:
    """Whether this process has a table, which it reads if it was kept and is as it was written."""
    if means_path not in LOADED_MEANS_BY_PATH:
        with suppress(InputError):
            table_description = files.read_json(means_path.with_suffix(".json"), dict)
            if table_description.get("sha256") == manifest.compute_checksum(means_path):
                LOADED_MEANS_BY_PATH[means_path] = np.load(means_path, mmap_mode="r")
    return means_path in LOADED_MEANS_BY_PATH


def make_means_tables(cohort: Cohort, parcellation_by_path: Mapping[Path, Parcels]) -> None:
    """Computes tables, and keeps them at their paths if that is possible; another process may have made them
    meanwhile."""
    try:
        if cohort.means_folder:
            with files.lock_exclusively(cohort.means_folder, wait=True):
                if missing_parcellation_by_path := {
                    means_path: parcellation
                    for means_path, parcellation in parcellation_by_path.items()
                    if not try_load_means_table(means_path)
                }:
                    write_means_tables(cohort, missing_parcellation_by_path)
            return
    except OSError as error:
        print(
            f"{cohort.means_folder} cannot keep means of volumes ({error.strerror}): computed for this run.", flush=True
        )
    LOADED_MEANS_BY_PATH.update(
        zip(
            parcellation_by_path,
            map(np.concatenate, zip(*average_parcels_in_chunks(cohort, parcellation_by_path.values()), strict=True)),
            strict=True,
        )
    )


def average_parcels_in_chunks(cohort: Cohort, parcellations: Collection[Parcels]) -> Iterator[list[np.ndarray]]:
    """For each chunk of records, which are read once, the rows of each table."""
    with open_progress_bar("Averaging volumes", len(cohort.rows)) as progress_bar:
        for batch in cohort.iterate_batches(split_into_batches(np.arange(len(cohort.rows)), RECORDS_PER_CHUNK)):
            yield [parcellation.average_volumes(batch["volume"]) for parcellation in parcellations]
            progress_bar.advance(steps=len(batch["volume"]))


def write_means_tables(cohort: Cohort, parcellation_by_path: Mapping[Path, Parcels]) -> None:
    """Computes tables and writes them, each (records, parcels, maps) with what it is."""
    for means_path in parcellation_by_path:
        means_path.parent.mkdir(parents=True, exist_ok=True)
        if means_path.exists():
            print(f"{means_path} is not as it was written, and is made anew.", flush=True)
    with ExitStack() as exit_stack:
        means_files = [
            exit_stack.enter_context(files.open_replacement(means_path, "wb")) for means_path in parcellation_by_path
        ]
        for means_file, parcellation in zip(means_files, parcellation_by_path.values(), strict=True):
            table_shape = len(cohort.rows), parcellation.parcel_count, cohort.num_maps
            npy_header = {"descr": records.RECORD_DTYPE.str, "fortran_order": False, "shape": table_shape}
            np.lib.format.write_array_header_1_0(means_file, npy_header)
        for chunk_means_by_table in average_parcels_in_chunks(cohort, parcellation_by_path.values()):
            for means_file, chunk_means in zip(means_files, chunk_means_by_table, strict=True):
                means_file.write(chunk_means.tobytes())
    for means_path, parcellation in parcellation_by_path.items():
        table_description = {"cohort": str(cohort.path), "standardise": cohort.standard, "parcels": parcellation.name}
        files.write_json(
            means_path.with_suffix(".json"), table_description | {"sha256": manifest.compute_checksum(means_path)}
        )
        LOADED_MEANS_BY_PATH[means_path] = np.load(means_path, mmap_mode="r")
