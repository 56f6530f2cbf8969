"""A zip of named parts with their SHA-256 sums: written bit for bit the same of the same parts, read without trust.

Nothing of it is executed. Sums tell damage, not forgery: whoever edits a part can edit
its sum. Compare the digest of the whole file with what its maker says.
"""

import hashlib
import io
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data.base import files
from data.base.errors import InputError, is_plain, shown
from data.base.manifest import SUMS, parsed, sum_of

MAX_BYTES = 2**29  # of a zip, and of all its parts together
MAX_PART = 2**28  # bytes of one, which bounds what reading takes beside the parts
MAX_TEXT = 2**23  # bytes of one that is parsed
MAX_VALUES = 2**18  # of JSON, each of which may take 2 kB while it is checked
MAX_PARTS = 2000
MAX_LIST = 2**20  # bytes of the zip's list of parts
PARSED = re.compile(r".*\.json|" + SUMS)
END = struct.Struct("<4s8xLL2s")  # the record that ends a zip without a comment: size and place of the list of parts
END_MARK, LARGE_MARK, LARGE_END = b"PK\5\6", b"PK\6\7", 20  # the latter lie before the end of zips of more than 4 GB
ARRAY = re.compile(  # the beginning of an array as `npy` writes it
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|]\w\d)', 'fortran_order': False, 'shape': \(([\d, ]{0,100})\), \} *\n",
    re.DOTALL,
)
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
            check_json(self.part(name))
            return files.typed(self.part(name), kind)
        except (ValueError, RecursionError) as error:
            raise self.damaged(name, str(error)) from error

    def array(self, name: str, dtype: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A part that is an array of finite numbers, of this type and shape if it is given; read-only. Raises
        InputError."""
        content, kind = self.part(name), np.dtype(dtype)
        if not (match := ARRAY.match(content)) or match[1].decode() != kind.str:
            raise self.damaged(name, f"it does not begin as an array of {kind.name}")
        found = tuple(int(size) for size in match[2].decode().replace(",", " ").split())
        try:
            if shape not in (None, found):
                raise ValueError(f"it is of shape {found}; expected {shape}")
            values = np.frombuffer(content, kind, offset=match.end()).reshape(found)
            if not np.isfinite(values).all():
                raise ValueError("it holds numbers that are not finite")
            return values
        except (ValueError, OverflowError) as error:
            raise self.damaged(name, str(error)) from error

    def damaged(self, name: str, why: str) -> InputError:
        return InputError(f"{self.path} has a damaged {name} ({why}). Copy it again, or make it again.")

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
        with open(files.regular(path), "rb") as file:
            check_end(file)
            with zipfile.ZipFile(file) as found:
                infos = checked(path, found.infolist(), named)
                parts = {name: read(found, info) for name, info in infos.items()}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a bundle, as abide-bundle writes it.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise refused(path, str(error)) from error
    check_sums(path, parts)
    return Archive(path, parts)


def check_end(file: io.BufferedReader) -> None:
    """Raises ValueError unless a file ends as a zip whose list of parts, which is read at once, is short."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - END.size - LARGE_END))
    before, last = (rest := file.read())[: -END.size], rest[-END.size :]
    if len(last) < END.size or not last.startswith(END_MARK) or last[-2:] != bytes(2):
        raise ValueError("it does not end as a zip does")
    if END.unpack(last)[1] > MAX_LIST or before.startswith(LARGE_MARK) or size > MAX_BYTES:
        raise ValueError("it is larger than any bundle")


def read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A part. The declared size bounds what is inflated."""
    with archive.open(info) as file:
        return file.read(info.file_size)


def checked(path: Path, infos: list[zipfile.ZipInfo], named: str) -> dict[str, zipfile.ZipInfo]:
    """The parts by name, before any is read. Raises InputError."""
    if why := excess({info.filename: info.file_size for info in infos}):
        raise refused(path, why)
    for info in infos:
        if info.filename != SUMS and not re.fullmatch(named, info.filename):
            raise refused(path, f"it holds {shown(info.filename)}, which is no part of one")
        if info.flag_bits & ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refused(path, f"its {info.filename} is encrypted, or compressed in another way than deflate")
    found = {info.filename: info for info in infos}
    if len(found) < len(infos):
        raise refused(path, "it holds two parts of one name")
    return found


def excess(sizes: Mapping[str, int]) -> str:
    """Why parts with these numbers of bytes are too many or too large; nothing if they are not."""
    for name, size in sizes.items():
        if size > (most := MAX_TEXT if PARSED.fullmatch(name) else MAX_PART):
            return f"{shown(name)} holds {size:,} bytes, at most {most:,} are allowed"
    if len(sizes) > MAX_PARTS or sum(sizes.values()) > MAX_BYTES:
        return f"it holds {len(sizes):,} parts of {sum(sizes.values()):,} bytes, more than any bundle"
    return ""


def check_json(content: bytes) -> None:
    """Raises ValueError for JSON with too many values, a name that stands twice, an infinite number, or text that is
    not plain. Raises RecursionError if it is deep."""
    if (count := sum(map(content.count, (b",", b"[", b"{")))) > MAX_VALUES:
        raise ValueError(f"it holds about {count:,} values, at most {MAX_VALUES:,} are allowed")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("it names a value twice")
        return found

    def finite(text: str) -> float:
        if not math.isfinite(number := float(text)):
            raise ValueError(f"it holds {text[:20]}, which is not finite")
        return number

    parsed = json.loads(content.decode(), object_pairs_hook=once, parse_float=finite, parse_constant=finite)
    if odd := next((text for text in texts(parsed) if not is_plain(text)), None):
        raise ValueError(f"it holds the text {shown(odd)}")


def texts(content: object) -> Iterator[str]:
    """All texts in JSON that was read, those that name values, too."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for one in chain(content, content.values()) if isinstance(content, dict) else content:
            yield from texts(one)


def check_sums(path: Path, parts: Mapping[str, bytes]) -> None:
    """Raises InputError unless each part, and no other, has its sum."""
    sums = parsed(parts.get(SUMS, b""), f"{path}:{SUMS}")
    now = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items() if name != SUMS}
    if odd := sorted(now.keys() ^ sums.keys()) or sorted(name for name in now if now[name] != sums[name]):
        name = odd[0] if is_plain(odd[0]) else shown(odd[0])
        raise refused(path, f"its {name} is not what {SUMS} says")


def refused(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no bundle, or not as it was written: {why}. Copy it again, or make it again.")


def write(target: Path, parts: Mapping[str, bytes]) -> None:
    """Writes a zip of these parts and their sums. Raises InputError if they are more than `opened` reads."""
    if why := excess({name: len(content) for name, content in parts.items()}):
        raise InputError(f"{target} cannot be written: {why}. Bundle fewer networks, or smaller ones.")
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
