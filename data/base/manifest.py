"""`SHA256SUMS` of a folder, in the form that `sha256sum -c` reads: whether its files are as they were written."""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.base.errors import InputError
from data.base.files import SUMS, check_regular, replacing

DIFFERENT = f"is not what was written, its sum in {SUMS} says. Was it damaged? Copy it again."
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
THREADS = 2  # that compute sums


def sum_of(path: Path) -> str:
    """SHA-256 of a file. Raises InputError if it cannot be read."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from error


def sums_of(paths: Iterable[Path]) -> list[str]:
    """`sum_of` each file, several at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(sum_of, paths))


def write(folder: Path, names: Iterable[str]) -> None:
    """Writes the sums of these files of a folder."""
    names = sorted(names)
    with replacing(folder / SUMS) as file:
        file.write(text(dict(zip(names, sums_of(map(folder.joinpath, names)), strict=True))))


def read(folder: Path) -> dict[str, str]:
    """The sums of a folder's files by name; none without a `SHA256SUMS`. Raises InputError if that is damaged."""
    path = folder / SUMS
    try:
        return parsed(path.read_bytes(), path) if path.exists() else {}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from error


def verify(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError that names the first file that is gone, has no sum, or differs from it; not of a folder without
    any sum."""
    different, unknown = compare(folder, names) if (folder / SUMS).exists() else ([], [])
    if different:
        raise InputError(f"{folder / different[0]} {DIFFERENT}")
    if unknown:
        raise InputError(f"{folder / unknown[0]} has no sum in {folder / SUMS}. Was it added? Copy the folder again.")


def compare(folder: Path, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The files of a folder that differ from their sums, and those without a sum, by name."""
    names, sums = sorted(names), read(folder)
    known = [name for name in names if name in sums]
    now = sums_of(map(folder.joinpath, known))
    different = [name for name, value in zip(known, now, strict=True) if value != sums[name]]
    return different, [name for name in names if name not in sums]


def identity(folder: Path) -> str:
    """SHA-256 of the folder's `SHA256SUMS`, which stands for all files that it names."""
    return sum_of(folder / SUMS)


def text(sums: dict[str, str]) -> str:
    """What a `SHA256SUMS` says of files by name."""
    return "".join(f"{value}  {name}\n" for name, value in sums.items())


def parsed(content: bytes, where: object) -> dict[str, str]:
    """Sums by name of the content of a `SHA256SUMS`. Raises InputError that names `where` it stands."""
    found = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        if not (match := LINE.fullmatch(line)):
            raise InputError(f"{where} line {number} is damaged; expected a SHA-256 sum and a name. Copy it again.")
        found[match[2]] = match[1]
    return found
