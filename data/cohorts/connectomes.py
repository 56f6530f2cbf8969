"""Connectomes of a cohort: how the mean signals of each two parcels of a brain correlate, a row a person.

Kept in `connectomes.h5` beside the records: `z` (people, edges) float32, Fisher z; `subject` and `parcels`, text; and,
if it is known where the parcels lie, `image` (91, 109, 91) int16. A row is verified each time it is read, by its digest
in `subjects.csv`; the names of the parcels and the image when it is opened, by `parcels_sha256` in `cohort.json`.
"""

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.base import files
from data.base.errors import InputError, compose_accents
from data.cohorts.rows import Metadata, Row

CONNECTOMES = "connectomes.h5"
DTYPE, IMAGE = np.dtype("<f4"), np.dtype("<i2")
MAX_PARCELS = 2000  # which bounds the memory that a row takes
BLOCK = 64  # rows read at once
AGAIN = "Copy it again, or convert again."
DAMAGES = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)  # as h5py tells them
HDF5_LOCK = threading.Lock()  # h5py reads a chunk without a lock of its own, and HDF5 does not bear two threads


@dataclass(frozen=True, eq=False)
class Connectomes:
    """Fisher z correlations of parcel series, of all records of a cohort. `image` (91, 109, 91) int16 is, on the full
    grid, 1 + the position in `parcels` of each voxel's parcel, 0 where there is none; None if that is not known."""

    path: Path
    name: str  # such as rois_cc200, seg-<atlas>
    parcels: tuple[str, ...]  # in the order of the columns of series
    image: np.ndarray | None
    rows: np.ndarray  # (records,) int: the row of each record's subject in the file
    digests: tuple[str, ...] = ()  # of each record's row; empty as long as they are not known

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Any) -> np.ndarray:
        """Positions of records -> their rows (n, edges) float32, NaN where a scan lacks a parcel. Raises InputError,
        naming the file and the row, if one is not what was written."""
        chosen = np.arange(len(self))[indices]
        found = read_rows(self.path, self.rows[chosen], self.num_edges)
        for index, row in zip(chosen.tolist() if self.digests else (), found, strict=False):
            if digest_of(row) != self.digests[index]:
                raise InputError(
                    f"{self.path} row {self.rows[index]} is not what was written: it differs from its digest. "
                    f"Was it damaged or replaced? {AGAIN}"
                )
        return found

    def blocks(self) -> Iterator[np.ndarray]:
        """The rows of all records (few, edges), one block after another; the file is opened once for each."""
        for start in range(0, len(self), BLOCK):
            yield self[start : start + BLOCK]

    @property
    def num_edges(self) -> int:
        return edges_of(len(self.parcels))

    @cached_property
    def pairs(self) -> np.ndarray:
        """The positions of each edge's two parcels, (edges, 2) int: the upper triangle, row by row."""
        return np.column_stack(np.triu_indices(len(self.parcels), 1))


def edges_of(num_parcels: int) -> int:
    return num_parcels * (num_parcels - 1) // 2


def digest_of(row: np.ndarray) -> str:
    """SHA-256 of a person's edges (edges,) or (1, edges)."""
    return hashlib.sha256(np.asarray(row, DTYPE).tobytes()).hexdigest()


def parcels_sha256(parcels: Sequence[str], image: np.ndarray | None) -> str:
    """SHA-256 over the names of parcels and where they lie."""
    placed = b"" if image is None else np.ascontiguousarray(image, IMAGE).tobytes()
    return hashlib.sha256(json.dumps(list(parcels)).encode() + placed).hexdigest()


def write(
    path: Path, subjects: Sequence[str], parcels: Sequence[str], image: np.ndarray | None, rows: Iterable[np.ndarray]
) -> None:
    """Writes `connectomes.h5`: for each of the subjects a row (edges,) of Fisher z values, taken one by one."""
    size = edges_of(len(parcels))
    with files.create_hdf5(path) as store:
        z = store.create_dataset("z", (len(subjects), size), DTYPE, chunks=(1, size))
        store["subject"] = np.array([subject.encode() for subject in subjects])
        store["parcels"] = np.array([parcel.encode() for parcel in parcels])
        if image is not None:
            store.create_dataset("image", data=np.asarray(image, IMAGE))
        for at, (_, row) in enumerate(zip(subjects, rows, strict=True)):
            z[at] = row


def opened(folder: Path, metadata: Metadata, subjects: Sequence[str], digests: Sequence[str] = ()) -> Connectomes:
    """The connectomes of a cohort's folder, of the `subjects` of its records in their order. Raises InputError, naming
    the file, if it is not what `write` writes, or of other people or parcels than the tables say."""
    import h5py

    path = folder / CONNECTOMES
    try:
        with HDF5_LOCK, h5py.File(path, "r") as store:
            people, parcels = ([name.decode() for name in store[of][:].tolist()] for of in ("subject", "parcels"))
            image = store["image"][:] if "image" in store else None
            shape, expected = store["z"].shape, (len(people), edges_of(len(parcels)))
    except DAMAGES as error:
        raise InputError(f"{path} is not a readable file of connectomes: {error}. {AGAIN}") from error
    if shape != expected or parcels_sha256(parcels, image) != metadata.parcels_sha256:
        raise InputError(f"{path} has other parcels than cohort.json says. {AGAIN}")
    row_of = {compose_accents(subject): row for row, subject in enumerate(people)}
    if odd := sorted(row_of.keys() ^ set(subjects)):
        raise InputError(f"{path} or the table of records lacks participant {odd[0]} ({len(odd)} such). {AGAIN}")
    rows = np.array([row_of[subject] for subject in subjects], int)
    return Connectomes(path, metadata.connectome, tuple(parcels), image, rows, tuple(digests))


def read_rows(path: Path, rows: np.ndarray, num_edges: int) -> np.ndarray:
    """Rows of the file (n, edges) float32, in the order asked for. Raises InputError, naming the file."""
    import h5py

    found = np.empty((len(rows), num_edges), DTYPE)
    try:
        with HDF5_LOCK, h5py.File(path, "r") as store:
            for at, row in enumerate(rows.tolist()):
                store["z"].read_direct(found, np.s_[row], np.s_[at])
    except DAMAGES as error:
        raise InputError(f"{path} cannot be read: {error}. Was it cut off? {AGAIN}") from error
    return found


def digests_by_file(folder: Path, metadata: Metadata, rows: Sequence[Row]) -> dict[str, str]:
    """The digests of a cohort's connectomes as they are in its folder, by the records' files; nothing without any."""
    if not metadata.connectome:
        return {}
    found = opened(folder, metadata, [row.subject for row in rows])
    every = (digest_of(edges) for block in found.blocks() for edges in block)
    return {row.file: digest for row, digest in zip(rows, every, strict=True)}
