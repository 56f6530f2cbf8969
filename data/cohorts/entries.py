"""A zip chunk -> the records in it, each read in place: nothing is ever unpacked to disk."""

import errno
import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.base.errors import InputError, check_plain

HIDDEN = re.compile(r"(^|/)\.[^/\\]*$")  # what a Mac adds to an archive
ENCRYPTED = 0x1  # bit 0 of a zip entry's flags
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for any amount of memory


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
