"""Connectomes of a cohort: how the mean signals of each two parcels of a brain correlate, a row a person.

Kept in `connectomes.h5` beside the records: `z` (people, edges) float32, Fisher z; `subject` and `parcels`, text; and,
if it is known where the parcels lie, `image` (91, 109, 91) int16. A row is verified each time it is read, by its digest
in `subjects.csv`; the names of the parcels and the image when it is opened, by `parcels_sha256` in `cohort.json`.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.base import files
from data.base.errors import InputError, compose_accents
from data.cohorts.metadata import Metadata
from data.cohorts.rows import RecordRow

CONNECTOMES_FILE = "connectomes.h5"
EDGE_DTYPE = np.dtype("<f4")
PARCEL_IMAGE_DTYPE = np.dtype("<i2")
MAX_PARCELS = 2000  # which bounds the memory that a row takes
ROWS_PER_BLOCK = 64  # rows read at once
COPY_AGAIN_ADVICE = "Copy it again, or convert again."
NUMBERED_NAME = re.compile(r"(\D*)\d+")
HDF5_DAMAGE_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)  # as h5py raises them
HDF5_LOCK = threading.Lock()  # h5py reads a chunk without a lock of its own, and HDF5 does not bear two threads


@dataclass(frozen=True, eq=False)
class Connectomes:
    """Fisher z correlations of parcel series, of all records of a cohort."""

    path: Path  # of `connectomes.h5`
    series_name: str  # such as rois_cc200, seg-<atlas>
    parcel_names: tuple[str, ...]  # in the order of the columns of series
    parcel_image: np.ndarray | None  # (91, 109, 91) int16: 1 + position in `parcel_names`, or 0; None: not known
    file_row_by_record: np.ndarray  # (records,) int: the row of each record's subject in the file
    digest_by_record: tuple[str, ...] = ()  # of each record's row; empty as long as they are not known

    def __len__(self) -> int:
        return len(self.file_row_by_record)

    def __getitem__(self, record_indices: Any) -> np.ndarray:
        """Positions of records -> their rows (n, edges) float32, NaN where a scan lacks a parcel. Raises InputError,
        naming the file and the row, if one is not what was written."""
        chosen_record_indices = np.arange(len(self))[record_indices]
        fisher_z_rows = read_connectome_rows(self.path, self.file_row_by_record[chosen_record_indices], self.num_edges)
        for record_index, edge_fisher_z in zip(
            chosen_record_indices.tolist() if self.digest_by_record else (), fisher_z_rows, strict=False
        ):
            if compute_row_digest(edge_fisher_z) != self.digest_by_record[record_index]:
                raise InputError(
                    f"{self.path} row {self.file_row_by_record[record_index]} is not what was written: it differs from "
                    f"its digest. Was it damaged or replaced? {COPY_AGAIN_ADVICE}"
                )
        return fisher_z_rows

    def iterate_row_blocks(self) -> Iterator[np.ndarray]:
        """The rows of all records (few, edges), one block after another; the file is opened once for each."""
        for block_start in range(0, len(self), ROWS_PER_BLOCK):
            yield self[block_start : block_start + ROWS_PER_BLOCK]

    @property
    def num_edges(self) -> int:
        return count_edges(len(self.parcel_names))

    @cached_property
    def parcel_index_pairs(self) -> np.ndarray:
        """The positions of each edge's two parcels, (edges, 2) int: the upper triangle, row by row."""
        return np.column_stack(np.triu_indices(len(self.parcel_names), 1))


def count_edges(parcel_count: int) -> int:
    return parcel_count * (parcel_count - 1) // 2


def compute_row_digest(edge_fisher_z: np.ndarray) -> str:
    """SHA-256 of a person's edges (edges,) or (1, edges)."""
    return hashlib.sha256(np.asarray(edge_fisher_z, EDGE_DTYPE).tobytes()).hexdigest()


def compute_parcels_sha256(parcel_names: Sequence[str], parcel_image: np.ndarray | None, atlas_name: str) -> str:
    """The identity of parcels: SHA-256 over their names and where they lie. If they are numbered and it is not known
    where they lie, `atlas_name`, as --connectome has it, is part of it, since most atlases have a parcel 1."""
    identifying_texts = list(parcel_names)
    image_bytes = b""
    if parcel_image is not None:
        image_bytes = np.ascontiguousarray(parcel_image, PARCEL_IMAGE_DTYPE).tobytes()
    elif are_numbered(parcel_names):
        identifying_texts.append(atlas_name)
    return hashlib.sha256(json.dumps(identifying_texts).encode() + image_bytes).hexdigest()


def are_numbered(parcel_names: Sequence[str]) -> bool:
    """Whether names of parcels are numbers alone: 1 and 2, or ROI_1 and ROI_2."""
    name_matches = [NUMBERED_NAME.fullmatch(parcel_name) for parcel_name in parcel_names]
    return None not in name_matches and len({name_match[1] for name_match in name_matches if name_match}) == 1


def write_connectomes(
    connectomes_path: Path,
    subjects: Sequence[str],
    parcel_names: Sequence[str],
    parcel_image: np.ndarray | None,
    fisher_z_rows: Iterable[np.ndarray],
) -> None:
    """Writes `connectomes.h5`: for each of the subjects a row (edges,) of Fisher z values, taken one by one."""
    edge_count = count_edges(len(parcel_names))
    with files.create_hdf5(connectomes_path) as hdf5_file:
        z_dataset = hdf5_file.create_dataset("z", (len(subjects), edge_count), EDGE_DTYPE, chunks=(1, edge_count))
        hdf5_file["subject"] = np.array([subject.encode() for subject in subjects])
        hdf5_file["parcels"] = np.array([parcel_name.encode() for parcel_name in parcel_names])
        if parcel_image is not None:
            hdf5_file.create_dataset("image", data=np.asarray(parcel_image, PARCEL_IMAGE_DTYPE))
        for row_index, (_, edge_fisher_z) in enumerate(zip(subjects, fisher_z_rows, strict=True)):
            z_dataset[row_index] = edge_fisher_z


def open_connectomes(
    cohort_folder: Path, metadata: Metadata, record_subjects: Sequence[str], digest_by_record: Sequence[str] = ()
) -> Connectomes:
    """The connectomes of a cohort's folder, of the `record_subjects` of its records in their order. Raises InputError,
    naming the file, if it is not what `write_connectomes` writes, or of other people or parcels than the tables say."""
    import h5py

    connectomes_path = cohort_folder / CONNECTOMES_FILE
    try:
        with HDF5_LOCK, h5py.File(connectomes_path, "r") as hdf5_file:
            stored_subjects = [subject.decode() for subject in hdf5_file["subject"][:].tolist()]
            parcel_names = [parcel_name.decode() for parcel_name in hdf5_file["parcels"][:].tolist()]
            parcel_image = hdf5_file["image"][:] if "image" in hdf5_file else None
            z_shape = hdf5_file["z"].shape
            expected_shape = (len(stored_subjects), count_edges(len(parcel_names)))
    except HDF5_DAMAGE_ERRORS as error:
        raise InputError(
            f"{connectomes_path} is not a readable file of connectomes: {error}. {COPY_AGAIN_ADVICE}"
        ) from error
    parcels_sha256 = compute_parcels_sha256(parcel_names, parcel_image, metadata.connectome)
    if z_shape != expected_shape or parcels_sha256 != metadata.parcels_sha256:
        raise InputError(f"{connectomes_path} has other parcels than cohort.json says. {COPY_AGAIN_ADVICE}")
    file_row_by_subject = {compose_accents(subject): file_row for file_row, subject in enumerate(stored_subjects)}
    if unmatched_subjects := sorted(file_row_by_subject.keys() ^ set(record_subjects)):
        raise InputError(
            f"{connectomes_path} or the table of records lacks participant {unmatched_subjects[0]} "
            f"({len(unmatched_subjects)} such). {COPY_AGAIN_ADVICE}"
        )
    file_row_by_record = np.array([file_row_by_subject[subject] for subject in record_subjects], int)
    return Connectomes(
        connectomes_path,
        metadata.connectome,
        tuple(parcel_names),
        parcel_image,
        file_row_by_record,
        tuple(digest_by_record),
    )


def read_connectome_rows(connectomes_path: Path, file_rows: np.ndarray, num_edges: int) -> np.ndarray:
    """Rows of the file (n, edges) float32, in the order of `file_rows`. Raises InputError, naming the file."""
    import h5py

    fisher_z_rows = np.empty((len(file_rows), num_edges), EDGE_DTYPE)
    try:
        with HDF5_LOCK, h5py.File(connectomes_path, "r") as hdf5_file:
            for output_row, file_row in enumerate(file_rows.tolist()):
                hdf5_file["z"].read_direct(fisher_z_rows, np.s_[file_row], np.s_[output_row])
    except HDF5_DAMAGE_ERRORS as error:
        raise InputError(f"{connectomes_path} cannot be read: {error}. Was it cut off? {COPY_AGAIN_ADVICE}") from error
    return fisher_z_rows


def compute_connectome_digests(cohort_folder: Path, metadata: Metadata, rows: Sequence[RecordRow]) -> dict[str, str]:
    """The digests of a cohort's connectomes as they are in its folder, by the records' files; nothing without any."""
    if not metadata.connectome:
        return {}
    connectomes = open_connectomes(cohort_folder, metadata, [row.subject for row in rows])
    row_digests = (
        compute_row_digest(edge_fisher_z)
        for fisher_z_block in connectomes.iterate_row_blocks()
        for edge_fisher_z in fisher_z_block
    )
    return {row.file: digest for row, digest in zip(rows, row_digests, strict=True)}
