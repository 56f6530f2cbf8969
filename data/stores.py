"""Where records lie: a folder or list of files -> one entry a record, read in place.

An entry knows its name and size and reads its own bytes; nothing is ever unpacked to disk. Zip chunks are told by their
first bytes, since chunks such as `compressed_0` have no suffix.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.errors import InputError

ZIP_MAGIC = b"PK\x03\x04"
ENCRYPTED = 0x1  # bit 0 of a zip entry's flags


@dataclass(frozen=True)
class FileEntry:
    """A record in a file of its own."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, num_bytes: int = -1) -> bytes:
        with open(self.path, "rb") as file:
            return file.read(num_bytes)

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


def folder_entries(folder: Path) -> dict[str, FileEntry | ZipEntry]:
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
