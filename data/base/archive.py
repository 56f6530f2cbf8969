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
from data.base.manifest import SUMS

EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of all parts, so that equal parts give equal bytes
Content = TypeVar("Content")
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, IsADirectoryError)


@dataclass(frozen=True)
class Archive:
    """The parts of a zip by name, each as its sum says."""

    path: Path
    parts: Mapping[str, bytes]

    def json(self, name: str, kind: type[Content]) -> Content:
        """A part as the dataclass `kind`, every type checked. Raises InputError."""
        try:
            return files.typed(self.parts.get(name, b""), kind)
        except ValueError as error:
            raise refused(self.path, f"{name}: {error}") from error

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a part by name, in the order in which `npz` took them. Raises InputError."""
        try:
            with np.load(io.BytesIO(self.parts.get(name, b"")), allow_pickle=False) as found:
                return dict(found)
        except (ValueError, EOFError) as error:
            raise refused(self.path, f"{name}: {error}") from error


def opened(path: Path) -> Archive:
    """The parts of a zip. Raises InputError for a file that is none, and for parts that are not as their sums say."""
    try:
        with zipfile.ZipFile(path) as found:
            parts = {name: found.read(name) for name in found.namelist()}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a bundle, as abide-bundle writes it.") from None
    except DAMAGE as error:
        raise refused(path, str(error)) from error
    sums = manifest.parsed(parts.pop(SUMS, b""), f"{path}:{SUMS}")
    now = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    if different := sorted(name for name in now.keys() | sums.keys() if now.get(name) != sums.get(name)):
        raise refused(path, f"its {different[0]} is not what {SUMS} says")
    return Archive(path, parts)


def refused(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no bundle, or not as it was written: {why}. Copy it again, or make it again.")


def write(path: Path, parts: Mapping[str, bytes]) -> None:
    """Writes a zip of these parts and their sums."""
    parts = dict(sorted(parts.items()))
    sums = manifest.text({name: hashlib.sha256(content).hexdigest() for name, content in parts.items()})
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, SUMS: sums.encode()}.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED, 9)


def npz(**arrays: np.ndarray) -> bytes:
    """Arrays as a part."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type] # not its own options
    return content.getvalue()
