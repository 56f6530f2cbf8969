"""A folder -> the records in it, each read where it lies: in a file of its own or in a zip chunk, which is never
unpacked to disk."""

import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from data.base.errors import InputError, compose_accents

OTHER_FILES = {".json", ".csv", ".npz", ".md", ".txt"}  # by suffix: what may lie beside records, even zipped
ZIP_MAGIC = b"PK\x03\x04"
HIDDEN = re.compile(r"(^|/)\.[^/\\]*$")  # what a Mac adds to an archive
DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError)


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
            raise OSError(f"position {start + offset}")
        self.position = start + offset
        return self.position

    def read(self, num_bytes: int = -1) -> bytes:
        with open(self.name, "rb", buffering=0) as file:
            file.seek(self.position)
            content = file.read(num_bytes)
        self.position += len(content)
        return content


@dataclass(frozen=True)
class Entry:
    """Where a record's bytes lie: in a file, or in the `member` of a zip `chunk`."""

    path: Path
    size: int
    chunk: zipfile.ZipFile | None = None
    member: str = ""

    def read(self, num_bytes: int = -1) -> bytes:
        """The record, or its first bytes. Raises InputError if it cannot be read."""
        try:
            with self.chunk.open(self.member) if self.chunk else open(self.path, "rb") as file:
                return file.read(self.size if num_bytes < 0 else num_bytes)
        except DAMAGES as error:
            raise InputError(f"{self} cannot be read: {error}. Was it cut off? Copy it again.") from error

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.chunk else str(self.path)


def entries_of(folder: Path) -> dict[str, Entry]:
    """The records of a folder by file or member name, sorted. Other files are left alone. Raises InputError for a chunk
    that cannot be read, holds anything else, or has a record that is there already."""
    found: dict[str, Entry] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix in OTHER_FILES or not path.is_file():
            continue
        file = Entry(path, path.stat().st_size)
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            entries = members_of(path)
        elif path.suffix == ".bin":
            entries = [(path.name, file)]
        else:
            continue
        for name, entry in ((compose_accents(name), entry) for name, entry in entries):
            if name in found:
                raise InputError(f"{entry} and {found[name]} are the same record; expected each once. Remove one.")
            found[name] = entry
    return dict(sorted(found.items()))


def members_of(path: Path) -> list[tuple[str, Entry]]:
    """The `.bin` records of one zip chunk by name. Raises InputError for anything else."""
    try:
        chunk = zipfile.ZipFile(Reopened(path))
    except DAMAGES as error:
        raise InputError(f"{path} is not a readable zip chunk: {error}. Copy it again.") from error
    members = [of for of in chunk.infolist() if not of.filename.endswith("/") and not HIDDEN.search(of.filename)]
    if odd := next((of.filename for of in members if not of.filename.endswith(".bin")), None):
        raise InputError(f"{path}:{odd} is not a record; expected only .bin files in a chunk. Pack it again.")
    return [(of.filename, Entry(path, of.file_size, chunk, of.filename)) for of in members]
