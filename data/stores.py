"""Where records lie: a folder or list of files -> one entry a record, read in place.

An entry knows its name and size and reads its own bytes; nothing is ever unpacked to disk. Zip chunks are told by their
first bytes, since chunks such as `compressed_0` have no suffix.
"""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data import records
from data.errors import InputError

ZIP_MAGIC = b"PK\x03\x04"
HDF5_NAME = "cohort.h5"
HDF5_TEXTS = ("file", "subject", "site", "split")
MAX_RECORDS = 1_000_000
MAX_CHUNK_BYTES = 2**28
MAX_TEXT_BYTES = 2**12
ENCRYPTED = 0x1  # bit 0 of a zip entry's flags


@dataclass(frozen=True)
class FileEntry:
    """A record in a file of its own."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, num_bytes: int = -1) -> bytes:
        try:
            with open(self.path, "rb") as file:
                return file.read(num_bytes)
        except OSError as error:
            raise InputError(f"{self} cannot be read ({error.strerror}); expected a record.") from error

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class ZipEntry:
    """A record in a zip chunk. The declared size bounds what is inflated, so a bomb costs one record's memory."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    @property
    def size(self) -> int:
        return self.info.file_size

    def read(self, num_bytes: int = -1) -> bytes:
        limit = self.size if num_bytes < 0 else num_bytes
        try:
            with self.archive.open(self.info) as file:
                return file.read(limit)
        except (zipfile.BadZipFile, zipfile.zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise InputError(f"{self} cannot be read: {error}. Was the chunk cut off? Copy it again.") from error

    def __str__(self) -> str:
        return f"{self.archive.filename}:{self.info.filename}"


def zip_entries(path: Path) -> dict[str, ZipEntry]:
    """The `.bin` records of one zip chunk by member name. Raises InputError for anything that is not plain records."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable zip chunk: {error}. Copy it again.") from error
    entries = {}
    for info in archive.infolist():
        name = info.filename
        if info.is_dir():
            continue
        if info.flag_bits & ENCRYPTED:
            raise InputError(f"{path}:{name} is encrypted; expected plain records. Decrypt the chunk first.")
        if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
            raise InputError(f"{path}:{name} points outside its chunk; expected plain file names. Pack it again.")
        if not name.endswith(".bin"):
            raise InputError(f"{path}:{name} is not a record; expected only .bin files in a chunk. Pack it again.")
        if name in entries:
            raise InputError(f"{path} holds {name} twice; expected one record a name. Pack it again.")
        entries[name] = ZipEntry(archive, info)
    return entries


@dataclass(frozen=True)
class HDF5Entry:
    """A record that is a row of an HDF5 file's datasets."""

    store: object  # an open h5py.File
    row: int
    size: int

    def read(self, num_bytes: int = -1) -> bytes:
        try:
            header = self.store["label"][self.row].tobytes() + self.store["phenotype"][self.row].tobytes()
            if 0 <= num_bytes <= len(header):
                return header[:num_bytes]
            return (header + self.store["volume"][self.row].tobytes())[: num_bytes if num_bytes >= 0 else None]
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{self} cannot be read: {error}. Was the file cut off? Copy it again.") from error

    def __str__(self) -> str:
        return f"{self.store.filename}:row {self.row}"


def hdf5_store(path: Path) -> tuple[dict[str, HDF5Entry], dict[str, list[str]], dict]:
    """Entries by file name, the table's columns of text, and the metadata of a `cohort.h5`.

    Raises InputError, naming the dataset, for one that is missing, of the wrong type or shape, or kept elsewhere.
    """
    import h5py

    try:
        store = h5py.File(path, "r")
        shape = check_hdf5(store, path)
        texts = {name: [text.decode() for text in store[name][:].astype("S")] for name in HDF5_TEXTS}
        metadata = json.loads(store["metadata"][:].tobytes()) if "metadata" in store else {}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a readable cohort in HDF5: {error}. Pack it again.") from error
    size = records.HEADER_BYTES + records.DTYPE.itemsize * math.prod(shape)
    entries = {name: HDF5Entry(store, row, size) for row, name in enumerate(texts["file"])}
    if len(entries) < len(texts["file"]):
        raise InputError(f"{path} names a file twice; expected one row a record. Pack it again.")
    return entries, texts, metadata


def check_hdf5(store, path: Path) -> tuple[int, ...]:
    """The shape (x, y, z) of the volumes. Raises InputError unless every dataset is what `pack` writes."""
    import h5py

    numeric = {"volume": 4, "phenotype": 2, "label": 1}
    for name in (*numeric, *HDF5_TEXTS):
        if not isinstance(store.get(name, getlink=True), h5py.HardLink) or not isinstance(store[name], h5py.Dataset):
            raise InputError(
                f"{path} has no dataset {name}; expected {', '.join((*numeric, *HDF5_TEXTS))}. Pack it again."
            )
        dataset, rank = store[name], numeric.get(name, 1)
        right = dataset.dtype == records.DTYPE if name in numeric else dataset.dtype.kind in "SO"
        if not right or dataset.ndim != rank or dataset.is_virtual or dataset.external:
            raise InputError(
                f"{path}: {name} is {dataset.dtype} of shape {dataset.shape}; expected "
                f"{records.DTYPE if name in numeric else 'text'} of rank {rank}, kept in the file. Pack it again."
            )
        if dataset.shape[0] != store["label"].shape[0] or dataset.shape[0] > MAX_RECORDS:
            raise InputError(f"{path}: {name} has {dataset.shape[0]:,} rows; expected one a record. Pack it again.")
        chunk = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
        if chunk > MAX_CHUNK_BYTES or dataset.dtype.itemsize > MAX_TEXT_BYTES:
            raise InputError(f"{path}: {name} has chunks of {chunk:,} bytes; expected one record each. Pack it again.")
    if store["phenotype"].shape[1] != records.PHENOTYPE_SIZE:
        raise InputError(
            f"{path}: phenotype has {store['phenotype'].shape[1]} values; expected {records.PHENOTYPE_SIZE}."
        )
    return store["volume"].shape[1:]


Entry = FileEntry | ZipEntry | HDF5Entry


def folder_entries(folder: Path) -> dict[str, Entry]:
    """The records of a folder by file or member name, sorted; other files are not records and are left alone."""
    entries = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix in {".json", ".csv", ".md", ".txt"}:
            continue
        if FileEntry(path).read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            found = zip_entries(path)
        elif path.suffix == ".bin":
            found = {path.name: FileEntry(path)}
        else:
            continue
        if twice := entries.keys() & found.keys():
            raise InputError(f"{path} and {entries[min(twice)]} are the same record; expected each once. Remove one.")
        entries.update(found)
    return dict(sorted(entries.items()))


def list_entries(path: Path) -> dict[str, FileEntry]:
    """The records of a JSON list of paths (relative ones start at the list's folder)."""
    try:
        names = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}. Expected a list of record paths.") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} holds no list of strings; expected a JSON list of record paths.")
    entries = {name: FileEntry(path.parent / name) for name in names}
    if len(entries) < len(names):
        raise InputError(f"{path} names a record twice; expected each once.")
    return entries
