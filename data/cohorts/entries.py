"""A folder -> the records in it, each read where it lies: in a file of its own or in a zip chunk, which is never
unpacked to disk."""

import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from data.base.errors import InputError, compose_accents

NON_RECORD_SUFFIXES = {".json", ".csv", ".npz", ".md", ".txt"}  # of files that may lie beside records, even zip files
ZIP_MAGIC = b"PK\x03\x04"
HIDDEN_FILE_PATTERN = re.compile(r"(^|/)\.[^/\\]*$")  # what a Mac adds to an archive
ARCHIVE_DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


class ReopenedFile:
    """A file that is open only while it is read, so that any number of zip chunks takes one handle at a time."""

    def __init__(self, path: Path):
        self.name = str(path)
        self.read_position = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.read_position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin_position = {os.SEEK_SET: 0, os.SEEK_CUR: self.read_position, os.SEEK_END: os.path.getsize(self.name)}[
            whence
        ]
        if origin_position + offset < 0:
            raise OSError(f"position {origin_position + offset}")
        self.read_position = origin_position + offset
        return self.read_position

    def read(self, num_bytes: int = -1) -> bytes:
        with open(self.name, "rb", buffering=0) as file:
            file.seek(self.read_position)
            content = file.read(num_bytes)
        self.read_position += len(content)
        return content


@dataclass(frozen=True)
class RecordEntry:
    """Where a record's bytes lie: in a file, or in a member of a zip chunk."""

    path: Path  # of the record's file, or of the zip chunk that holds it
    byte_count: int
    zip_chunk: zipfile.ZipFile | None = None  # None if the record is a file
    member_name: str = ""  # of the record in the zip chunk

    def read(self, num_bytes: int = -1) -> bytes:
        """The record, or its first bytes. Raises InputError if it cannot be read."""
        try:
            with self.zip_chunk.open(self.member_name) if self.zip_chunk else open(self.path, "rb") as file:
                return file.read(self.byte_count if num_bytes < 0 else num_bytes)
        except ARCHIVE_DAMAGE_ERRORS as error:
            raise InputError(f"{self} cannot be read: {error}. Was it cut off? Copy it again.") from error

    def __str__(self) -> str:
        return f"{self.path}:{self.member_name}" if self.zip_chunk else str(self.path)


def find_folder_entries(folder: Path) -> dict[str, RecordEntry]:
    """The records of a folder by file or member name, sorted. Other files are left alone. Raises InputError for a chunk
    that cannot be read, holds anything else, or has a record that is there already."""
    entry_by_name: dict[str, RecordEntry] = {}
    for file_path in sorted(folder.iterdir()):
        if file_path.name.startswith(".") or file_path.suffix in NON_RECORD_SUFFIXES or not file_path.is_file():
            continue
        file_entry = RecordEntry(file_path, file_path.stat().st_size)
        if file_entry.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            name_entry_pairs = list_chunk_entries(file_path)
        elif file_path.suffix == ".bin":
            name_entry_pairs = [(file_path.name, file_entry)]
        else:
            continue
        for record_name, entry in ((compose_accents(record_name), entry) for record_name, entry in name_entry_pairs):
            if record_name in entry_by_name:
                raise InputError(
                    f"{entry} and {entry_by_name[record_name]} are the same record; expected each once. Remove one."
                )
            entry_by_name[record_name] = entry
    return dict(sorted(entry_by_name.items()))


def list_chunk_entries(chunk_path: Path) -> list[tuple[str, RecordEntry]]:
    """The `.bin` records of one zip chunk by name. Raises InputError for anything else."""
    try:
        zip_chunk = zipfile.ZipFile(ReopenedFile(chunk_path))
    except ARCHIVE_DAMAGE_ERRORS as error:
        raise InputError(f"{chunk_path} is not a readable zip chunk: {error}. Copy it again.") from error
    member_infos = [
        member_info
        for member_info in zip_chunk.infolist()
        if not member_info.filename.endswith("/") and not HIDDEN_FILE_PATTERN.search(member_info.filename)
    ]
    if foreign_member_name := next(
        (member_info.filename for member_info in member_infos if not member_info.filename.endswith(".bin")), None
    ):
        raise InputError(
            f"{chunk_path}:{foreign_member_name} is not a record; expected only .bin files in a chunk. Pack it again."
        )
    return [
        (member_info.filename, RecordEntry(chunk_path, member_info.file_size, zip_chunk, member_info.filename))
        for member_info in member_infos
    ]
