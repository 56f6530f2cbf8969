"""A zip of named parts with their SHA-256 sums: equal parts give equal bytes, and nothing that is read is executed.
Sums tell damage, not forgery: compare the digest of the whole file with what its maker says."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from data.base import files, manifest
from data.base.errors import InputError
from data.base.manifest import SUMS_FILE

ARCHIVE_MEMBER_TIME = (1980, 1, 1, 0, 0, 0)  # the time of all parts, so that equal parts give equal bytes
MemberContent = TypeVar("MemberContent")
DAMAGED_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IsADirectoryError,
)


@dataclass(frozen=True)
class Archive:
    """The parts of a zip by name, each as its sum says."""

    path: Path  # of the zip, or of what else holds these files
    bytes_by_member: Mapping[str, bytes]

    def read_json(self, member_name: str, json_class: type[MemberContent]) -> MemberContent:
        """A part as the dataclass `json_class`, every type checked. Raises InputError."""
        try:
            return files.parse_json(self.bytes_by_member.get(member_name, b""), json_class)
        except ValueError as error:
            raise make_damaged_archive_error(self.path, f"{member_name}: {error}") from error

    def read_arrays(self, member_name: str) -> dict[str, np.ndarray]:
        """The arrays of a part by name, in the order in which `make_npz` took them. Raises InputError."""
        try:
            with np.load(io.BytesIO(self.bytes_by_member.get(member_name, b"")), allow_pickle=False) as npz_file:
                return dict(npz_file)
        except (ValueError, EOFError) as error:
            raise make_damaged_archive_error(self.path, f"{member_name}: {error}") from error


def open_archive(path: Path) -> Archive:
    """The parts of a zip. Raises InputError for a file that is none, and for parts that are not as their sums say."""
    try:
        with zipfile.ZipFile(path) as zip_file:
            bytes_by_member = {member_name: zip_file.read(member_name) for member_name in zip_file.namelist()}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a bundle, as abide-bundle writes it.") from None
    except DAMAGED_ZIP_ERRORS as error:
        raise make_damaged_archive_error(path, str(error)) from error
    expected_checksum_by_member = manifest.parse_checksums(bytes_by_member.pop(SUMS_FILE, b""), f"{path}:{SUMS_FILE}")
    actual_checksum_by_member = {
        member_name: hashlib.sha256(member_bytes).hexdigest() for member_name, member_bytes in bytes_by_member.items()
    }
    if damaged_member_names := sorted(
        member_name
        for member_name in actual_checksum_by_member.keys() | expected_checksum_by_member.keys()
        if actual_checksum_by_member.get(member_name) != expected_checksum_by_member.get(member_name)
    ):
        raise make_damaged_archive_error(path, f"its {damaged_member_names[0]} is not what {SUMS_FILE} says")
    return Archive(path, bytes_by_member)


def make_damaged_archive_error(path: Path, damage_text: str) -> InputError:
    return InputError(f"{path} is no bundle, or not as it was written: {damage_text}. Copy it again, or make it again.")


def write_archive(path: Path, bytes_by_member: Mapping[str, bytes]) -> None:
    """Writes a zip of these parts and their sums."""
    bytes_by_member = dict(sorted(bytes_by_member.items()))
    checksums_text = manifest.format_checksums(
        {member_name: hashlib.sha256(member_bytes).hexdigest() for member_name, member_bytes in bytes_by_member.items()}
    )
    with zipfile.ZipFile(path, "w") as zip_file:
        for member_name, member_bytes in {**bytes_by_member, SUMS_FILE: checksums_text.encode()}.items():
            zip_info = zipfile.ZipInfo(member_name, ARCHIVE_MEMBER_TIME)
            zip_info.external_attr = 0o644 << 16
            zip_file.writestr(zip_info, member_bytes, zipfile.ZIP_DEFLATED, 9)


def make_npz(**arrays: np.ndarray) -> bytes:
    """Arrays as a part."""
    npz_buffer = io.BytesIO()
    np.savez(npz_buffer, **arrays)  # type: ignore[arg-type] # not its own options
    return npz_buffer.getvalue()
