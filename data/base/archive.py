"""A zip of named parts with their SHA-256 sums: written bit for bit the same of the same parts, read without trust.

Nothing of it is executed. Sums tell damage, not forgery: whoever edits a part can edit
its sum, so compare the digest of the whole file with what its maker says.
"""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from data.base import files
from data.base.errors import InputError
from data.base.sums import IN_FOLDERS, SUMS, parsed, sum_of
from data.base.text import is_plain, shown

MAX_BYTES = 2**30  # of a zip, and of all its parts together
MAX_PARTS = 2000
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of all parts, so that equal parts give equal bytes
ENCRYPTED = 1  # flag of a part
Content = TypeVar("Content")


@dataclass(frozen=True)
class Archive:
    """The parts of a zip by name, each as its sum says."""

    path: Path
    parts: Mapping[str, bytes]

    def json(self, name: str, kind: type[Content]) -> Content:
        """A part as the dataclass `kind`, every type checked. Raises InputError."""
        try:
            return files.typed(self.part(name), kind)
        except ValueError as error:
            raise InputError(f"{self.path} has a damaged {name} ({error}). Copy it again, or make it again.") from error

    def array(self, name: str, dtype: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A part that is an array, of this type and shape if it is given. Raises InputError."""
        content = io.BytesIO(self.part(name))
        try:
            version = np.lib.format.read_magic(content)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            found, by_column, kind = readers[version](content)
            if kind != np.dtype(dtype) or by_column or (shape is not None and found != shape):
                raise ValueError(f"it is {kind} of shape {found}; expected {np.dtype(dtype)} of {shape or 'any'}")
            return np.frombuffer(content.read(), kind).reshape(found)
        except (ValueError, KeyError, OverflowError, MemoryError, SyntaxError, TypeError) as error:
            raise InputError(f"{self.path} has a damaged {name} ({error}). Copy it again, or make it again.") from error

    def part(self, name: str) -> bytes:
        """Raises InputError if it is not there."""
        if name not in self.parts:
            raise InputError(f"{self.path} lacks {name}. Copy it again, or make it again.")
        return self.parts[name]

    @property
    def sha256(self) -> str:
        """Of the whole file."""
        return sum_of(self.path)


def opened(path: Path, named: str) -> Archive:
    """The parts of a zip, whose names match the pattern `named`. Raises InputError for a file that is none, for parts
    that are too large, of other names or not as their sums say."""
    try:
        with zipfile.ZipFile(files.regular(path)) as found:
            infos = checked(path, found.infolist(), named)
            parts = {name: found.read(info) for name, info in infos.items()}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a bundle, as python -m utils.bundle writes it.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise refused(path, str(error)) from error
    check_sums(path, parts)
    return Archive(path, parts)


def checked(path: Path, infos: list[zipfile.ZipInfo], named: str) -> dict[str, zipfile.ZipInfo]:
    """The parts by name, before any is read. Raises InputError."""
    size = sum(info.file_size for info in infos)
    if len(infos) > MAX_PARTS or size > MAX_BYTES or path.stat().st_size > MAX_BYTES:
        raise refused(path, f"it holds {len(infos)} parts of {size:,} bytes, more than any bundle")
    for info in infos:
        if info.filename != SUMS and not re.fullmatch(named, info.filename):
            raise refused(path, f"it holds {shown(info.filename)}, which is no part of one")
        if info.flag_bits & ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refused(path, f"its {info.filename} is encrypted, or compressed in another way than deflate")
    found = {info.filename: info for info in infos}
    if len(found) < len(infos):
        raise refused(path, "it holds two parts of one name")
    return found


def check_sums(path: Path, parts: Mapping[str, bytes]) -> None:
    """Raises InputError unless each part, and no other, has its sum."""
    try:
        sums = parsed(parts.get(SUMS, b"").decode().splitlines(), f"{path}:{SUMS}", IN_FOLDERS)
    except UnicodeDecodeError as error:
        raise refused(path, f"its {SUMS} is no text") from error
    now = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items() if name != SUMS}
    if odd := sorted(now.keys() ^ sums.keys()) or sorted(name for name in now if now[name] != sums[name]):
        name = odd[0] if is_plain(odd[0]) else shown(odd[0])
        raise refused(path, f"its {name} is not what {SUMS} says")


def refused(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no bundle, or not as it was written: {why}. Copy it again, or make it again.")


def write(target: Path, parts: Mapping[str, bytes]) -> None:
    """Writes a zip of these parts and their sums."""
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(parts.items())]
    with files.unfinished(target) as path, zipfile.ZipFile(path, "w") as archive:
        for name, content in [*sorted(parts.items()), (SUMS, "".join(sums).encode())]:
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED, 9)


def npy(values: np.ndarray) -> bytes:
    """An array as a part."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(values), allow_pickle=False)
    return content.getvalue()
