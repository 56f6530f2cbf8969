"""A zip of named parts with their SHA-256 sums: written bit for bit the same of the same parts; of what is read nothing
is executed. Sums tell damage, not forgery: compare the digest of the whole file with what its maker says."""

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


@dataclass(frozen=True)
class Archive:
    """The parts of a zip by name, each as its sum says."""

    path: Path
    parts: Mapping[str, bytes]

    @property
    def sha256(self) -> str:
        """That of the whole file."""
        return manifest.sum_of(self.path)

    def json(self, name: str, kind: type[Content]) -> Content:
        """A part as the dataclass `kind`, every type checked. Raises InputError."""
        try:
            return files.typed(self.part(name), kind)
        except ValueError as error:
            raise self.damaged(name, str(error)) from error

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """A part that is an array of finite numbers, of this type and shape. Raises InputError."""
        try:
            values = np.load(io.BytesIO(self.part(name)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise self.damaged(name, str(error)) from error
        if (values.dtype, values.shape) != (np.dtype(dtype), shape):
            raise self.damaged(name, f"{values.dtype} of shape {values.shape}; expected {np.dtype(dtype)} of {shape}")
        if not np.isfinite(values).all():
            raise self.damaged(name, "it holds numbers that are not finite")
        return values

    def damaged(self, name: str, why: str) -> InputError:
        return InputError(f"{self.path} has a damaged {name} ({why}). Copy it again, or make it again.")

    def part(self, name: str) -> bytes:
        """Raises InputError if it is not there."""
        if name not in self.parts:
            raise InputError(f"{self.path} lacks {name}. Copy it again, or make it again.")
        return self.parts[name]


def opened(path: Path) -> Archive:
    """The parts of a zip. Raises InputError for a file that is none, and for parts that are not as their sums say."""
    try:
        with zipfile.ZipFile(path) as found:
            parts = {name: found.read(name) for name in found.namelist()}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a bundle, as abide-bundle writes it.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise refused(path, str(error)) from error
    sums = manifest.parsed(parts.pop(SUMS, b""), f"{path}:{SUMS}")
    now = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    if different := sorted(name for name in now.keys() | sums.keys() if now.get(name) != sums.get(name)):
        raise refused(path, f"its {different[0]} is not what {SUMS} says")
    return Archive(path, parts)


def refused(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no bundle, or not as it was written: {why}. Copy it again, or make it again.")


def write(target: Path, parts: Mapping[str, bytes]) -> None:
    """Writes a zip of these parts and their sums."""
    parts = dict(sorted(parts.items()))
    sums = manifest.text({name: hashlib.sha256(content).hexdigest() for name, content in parts.items()})
    with files.unfinished(target) as path, zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, SUMS: sums.encode()}.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED, 9)


def npy(values: np.ndarray) -> bytes:
    """An array as a part."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(values), allow_pickle=False)
    return content.getvalue()
