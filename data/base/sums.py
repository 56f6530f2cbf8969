"""SHA-256 sums of the files that hold a cohort's records: `SHA256SUMS` beside them, as `sha256sum -c` reads it."""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.base import files
from data.base.errors import InputError
from data.base.text import check_plain

SUMS = "SHA256SUMS"
DIFFERENT = f"is not what was written, its sum in {SUMS} says. Was it damaged? Copy it again."
THREADS = 2
BACKSLASH = "\\"
LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *]([^/]+)")  # of files in one folder
IN_FOLDERS = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")


def sum_of(path: Path) -> str:
    try:
        with open(files.regular(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from error


def sums_of(paths: Iterable[Path]) -> list[str]:
    """`sum_of` each file, several at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(sum_of, paths))


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Writes the sums of a folder's files. Raises InputError if an earlier `SHA256SUMS` has another one, or for a name
    that is not plain text."""
    names = sorted(names)
    for name in names:
        check_plain(name, f"{folder} has the file")
    before, now = read_sums(folder) or {}, dict(zip(names, sums_of(map(folder.joinpath, names)), strict=True))
    if changed := [name for name in now if before.get(name, now[name]) != now[name]]:
        raise InputError(
            f"{folder / changed[0]} is not what {SUMS} says that was written; was it damaged? "
            f"Remove it and {SUMS} and repeat the command."
        )
    with files.replacing(folder / SUMS) as file:
        for name, value in now.items():  # a name's backslashes are doubled, and its line begins with one
            escaped = name.replace(BACKSLASH, 2 * BACKSLASH)
            file.write(f"{'' if escaped == name else BACKSLASH}{value}  {escaped}\n")


def read_sums(folder: Path) -> dict[str, str] | None:
    """Sums by name; None if the folder has none. Raises InputError for a line that is no sum of a file beside it."""
    if not (folder / SUMS).is_file():
        return None
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / SUMS} cannot be read ({error}). Copy it again.") from error
    return parsed(lines, str(folder / SUMS))


def parsed(lines: Iterable[str], where: str, line: re.Pattern = LINE) -> dict[str, str]:
    """Sums by name of the lines of a `SHA256SUMS`. Raises InputError that names where they stand."""
    found = {}
    for number, text in enumerate(lines, 1):
        if not (match := line.fullmatch(text)):
            raise InputError(f"{where} line {number} is damaged; expected a SHA-256 sum and a name.")
        escaped, value, name = match.groups()
        found[name.replace(2 * BACKSLASH, BACKSLASH) if escaped else name] = value.lower()
    return found


def verify_sums(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The files that differ from the `SHA256SUMS` beside them, and those that it does not name."""
    paths = sorted(set(paths))
    known = {folder: read_sums(folder) or {} for folder in {path.parent for path in paths}}
    sums = {path: value for path in paths if (value := known[path.parent].get(path.name))}
    different = [path for path, now in zip(sums, sums_of(sums), strict=True) if now != sums[path]]
    return different, [path for path in paths if path not in sums]


def check_sums(paths: Iterable[Path]) -> None:
    """Raises InputError, naming the file, if one differs from its sum."""
    if different := verify_sums(paths)[0]:
        raise InputError(f"{different[0]} {DIFFERENT}")
