"""Records that are no plain files: in zip chunks, in an HDF5 file, in a JSON list; each is an entry, read in place.

An entry knows its name and size and reads its own bytes; nothing is ever unpacked to disk.
"""

import errno
import json
import math
import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data.base import files
from data.base.errors import InputError, check_plain
from data.cohorts import records
from data.cohorts.records import FileEntry
from data.cohorts.rows import MAX_RECORDS

HIDDEN = re.compile(r"(^|/)\.[^/\\]*$")  # what a Mac adds to an archive
HDF5_TEXTS = ("file", "subject", "site", "split")
MAX_CHUNK_BYTES = 2**28
MAX_DATASET_BYTES = 2**28  # of all but the volumes, which are read one by one
ENCRYPTED = 0x1  # bit 0 of a zip entry's flags
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for any amount of memory
DEFLATE, SHUFFLE = 1, 2  # HDF5's numbers for filters
FILTERS: tuple[list[int], ...] = ([], [DEFLATE], [SHUFFLE, DEFLATE])  # of a chunk, in the order of writing


class Reopened:
    """A file that is open only while it is read, so that any number of zip chunks takes one handle at a time."""

    def __init__(self, path: Path):
        self.name, self.position = str(path), 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: os.path.getsize(self.name)}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self.name)
        self.position = start + offset
        return self.position

    def read(self, num_bytes: int = -1) -> bytes:
        with open(self.name, "rb", buffering=0) as file:
            file.seek(self.position)
            content = file.read(num_bytes)
        self.position += len(content)
        return content


@dataclass(frozen=True)
class ZipEntry:
    """A record in a zip chunk. The declared size bounds what is inflated, so a bomb costs one record's memory."""

    path: Path
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    size: int

    def read(self, num_bytes: int = -1) -> bytes:
        try:
            with self.archive.open(self.info) as file:
                return file.read(self.size if num_bytes < 0 else num_bytes)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError) as error:
            raise InputError(f"{self} cannot be read: {error}. Was the chunk cut off? Copy it again.") from error

    def __str__(self) -> str:
        return f"{self.path}:{self.info.filename}"


def check_name(path: Path, name: str) -> None:
    """Raises InputError unless a record's name within `path` is a plain relative one that ends in .bin."""
    check_plain(name, f"{path} names a record")
    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise InputError(f"{path}:{name} points outside its chunk; expected plain file names. Pack it again.")
    if not name.endswith(".bin"):
        raise InputError(f"{path}:{name} is not a record; expected only .bin files in a chunk. Pack it again.")


def zip_entries(path: Path) -> dict[str, ZipEntry]:
    """The `.bin` records of one zip chunk by member name. Raises InputError for anything that is not plain records."""
    try:
        archive = zipfile.ZipFile(Reopened(path))
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable zip chunk: {error}. Copy it again.") from error
    entries = {}
    for info in archive.infolist():
        name = info.filename
        if name.endswith("/") or HIDDEN.search(name):
            continue
        check_name(path, name)
        if info.flag_bits & ENCRYPTED:
            raise InputError(f"{path}:{name} is encrypted; expected plain records. Decrypt the chunk first.")
        if info.compress_type not in METHODS:
            raise InputError(
                f"{path}:{name} is compressed by method {info.compress_type}; expected stored or deflated records. "
                "Pack it again."
            )
        if name in entries:
            raise InputError(f"{path} holds {name} twice; expected one record a name. Pack it again.")
        entries[name] = ZipEntry(path, archive, info, info.file_size)
    return entries


@dataclass(frozen=True)
class HDF5Entry:
    """A record that is a row of an HDF5 file's datasets."""

    path: Path
    store: Any  # an open h5py.File
    row: int
    size: int

    def read(self, num_bytes: int = -1) -> bytes:
        try:
            with files.HDF5_LOCK:  # also while the objects of h5py are made and thrown away
                header = self.store["label"][self.row].tobytes() + self.store["phenotype"][self.row].tobytes()
                stored = None if 0 <= num_bytes <= len(header) else chunk_of(self.store["volume"], self.row)
            content = header + (inflated(*stored, self.row) if stored else b"")
            return content[: num_bytes if num_bytes >= 0 else None]
        except (OSError, RuntimeError, ValueError, zlib.error) as error:
            raise InputError(f"{self} cannot be read: {error}. Was the file cut off? Copy it again.") from error

    def __str__(self) -> str:
        return f"{self.path}:row {self.row}"


def chunk_of(volume: Any, row: int) -> tuple[bytes, list[int], int]:
    """One row of an HDF5 dataset as it is stored, its filters, and its size in bytes without them."""
    filters, itemsize = filters_of(volume), volume.dtype.itemsize
    size, place = itemsize * math.prod(volume.shape[1:]), (row, *[0] * (volume.ndim - 1))
    if not filters or (chunk := volume.id.get_chunk_info_by_coord(place)).byte_offset is None:  # None: never written
        return volume[row].tobytes(), [], size
    if chunk.filter_mask or chunk.size > 2 * size:
        raise ValueError(f"the chunk of row {row} is stored otherwise than its dataset")
    return volume.id.read_direct_chunk(place)[1], filters, size


def inflated(stored: bytes, filters: list[int], size: int, row: int) -> bytes:
    """The content of a chunk of float32. It is inflated here, since HDF5 itself inflates without a bound."""
    if not filters:
        return stored
    inflater = zlib.decompressobj()
    content = inflater.decompress(stored, size + 1)
    if len(content) != size or not inflater.eof:
        raise ValueError(f"the chunk of row {row} does not inflate to {size:,} bytes")
    if SHUFFLE not in filters:
        return content
    return np.frombuffer(content, np.uint8).reshape(records.DTYPE.itemsize, -1).T.tobytes()


def filters_of(dataset: Any) -> list[int]:
    """HDF5's numbers for the filters of a dataset's chunks, in the order of writing."""
    plan = dataset.id.get_create_plist()
    return [plan.get_filter(position)[0] for position in range(plan.get_nfilters())]


def hdf5_store(path: Path) -> tuple[dict[str, HDF5Entry], dict[str, list[str]], bytes]:
    """Entries by file name, the table's columns of text, and the metadata (JSON) of a `cohort.h5`. Raises InputError,
    naming the dataset, for one that is missing, of the wrong type or shape, or kept elsewhere."""
    import h5py

    try:
        store = h5py.File(files.regular(path), "r")
        shape = check_hdf5(store, path)
        texts = {name: [text.decode() for text in store[name][:].astype("S")] for name in HDF5_TEXTS}
        metadata = store["metadata"][:].tobytes() if "metadata" in store else b"{}"
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a readable cohort in HDF5: {error}. Pack it again.") from error
    for name in texts["file"]:
        check_name(path, name)
    size = records.HEADER_BYTES + records.DTYPE.itemsize * math.prod(shape)
    entries = {name: HDF5Entry(path, store, row, size) for row, name in enumerate(texts["file"])}
    if len(entries) < len(texts["file"]):
        raise InputError(f"{path} names a file twice; expected one row a record. Pack it again.")
    return entries, texts, metadata


NUMBERS = {"volume": (4, 5), "phenotype": (2,), "label": (1,)}  # of float32; ranks, the greater one for several maps


def check_hdf5(store: Any, path: Path) -> tuple[int, ...]:
    """The shape ([maps,] x, y, z) of the volumes. Raises InputError unless every dataset is what `pack` writes."""
    for name in (*NUMBERS, *HDF5_TEXTS, *(["metadata"] if "metadata" in store else [])):
        check_dataset(store, name, path)
    rows = store["label"].shape[0]
    for name in (*NUMBERS, *HDF5_TEXTS):
        if store[name].shape[0] != rows or rows > MAX_RECORDS:
            raise InputError(
                f"{path}: {name} has {store[name].shape[0]:,} rows, label {rows:,}; expected one a record, at most "
                f"{MAX_RECORDS:,}. Pack it again."
            )
    shapes, shape, values = (
        [grid.shape for grid in records.GRIDS.values()],
        store["volume"].shape[1:],
        store["phenotype"],
    )
    if shape[-3:] not in shapes or values.shape[1] != records.PHENOTYPE_SIZE:
        raise InputError(
            f"{path} has volumes of {shape} and {values.shape[1]} phenotype values; "
            f"expected {' or '.join(map(str, shapes))}, and {records.PHENOTYPE_SIZE}. Pack it again."
        )
    return shape


def check_dataset(store: Any, name: str, path: Path) -> None:
    """Raises InputError unless a dataset lies in the file itself, has its type, and asks for no more than its size."""
    import h5py

    if not isinstance(store.get(name, getlink=True), h5py.HardLink) or not isinstance(store[name], h5py.Dataset):
        raise InputError(f"{path} has no dataset {name}; expected {', '.join((*NUMBERS, *HDF5_TEXTS))}. Pack it again.")
    dataset, ranks = store[name], NUMBERS.get(name, (1,))
    if name in HDF5_TEXTS:
        wanted, right = "text", h5py.check_string_dtype(dataset.dtype) is not None
    else:
        number = records.DTYPE if name in NUMBERS else np.dtype(np.uint8)
        wanted, right = str(number), dataset.dtype == number
    if not right or dataset.ndim not in ranks or dataset.is_virtual or dataset.external:
        raise InputError(
            f"{path}: {name} is {dataset.dtype} of shape {dataset.shape}; expected {wanted} of rank "
            f"{' or '.join(map(str, ranks))}, kept in the file. Pack it again."
        )
    if name != "volume" and dataset.nbytes > MAX_DATASET_BYTES:
        raise InputError(f"{path}: {name} holds {dataset.nbytes:,} bytes; expected one short value a record.")
    filters = filters_of(dataset)
    if filters not in (FILTERS if name == "volume" else FILTERS[:1]):
        raise InputError(f"{path}: {name} has the filters {filters}; expected gzip of volume only. Pack it again.")
    chunk = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
    if chunk > MAX_CHUNK_BYTES or (filters and dataset.chunks != (1, *dataset.shape[1:])):
        raise InputError(f"{path}: {name} has chunks of {chunk:,} bytes; expected one record each. Pack it again.")


def list_entries(path: Path) -> dict[str, FileEntry]:
    """The records of a JSON list of paths (relative ones start at the list's folder)."""
    try:
        names = json.loads(files.regular(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}. Expected a list of record paths.") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} holds no list of strings; expected a JSON list of record paths.")
    for name in names:
        check_plain(name, f"{path} names a record")
    if absent := [name for name in names if not os.path.isfile(path.parent / name)]:
        raise InputError(f"{path} names {absent[0]!r}, which is no file ({len(absent)} such names); correct it.")
    entries = {name: FileEntry(path.parent / name) for name in names}
    if len({os.path.realpath(entry.path) for entry in entries.values()}) < len(names):
        raise InputError(f"{path} names a record twice; expected each once.")
    return entries
