"""`SHA256SUMS` of a folder, in the form that `sha256sum -c` reads: whether its files are as they were written."""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.base.errors import InputError
from data.base.files import SUMS, check_regular_file, open_replacement

DIFFERENT_MESSAGE = f"is not what was written, its sum in {SUMS} says. Was it damaged? Copy it again."
SUMS_LINE_PATTERN = re.compile(r"([0-9a-f]{64}) [ *](.+)")
SUM_THREADS = 2  # that compute sums


def compute_sum(path: Path) -> str:
    """SHA-256 of a file. Raises InputError if it cannot be read."""
    check_regular_file(path)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from error


def compute_sums(paths: Iterable[Path]) -> list[str]:
    """`compute_sum` of each file, several at a time."""
    with ThreadPoolExecutor(SUM_THREADS) as pool:
        return list(pool.map(compute_sum, paths))


def write_sums(folder: Path, file_names: Iterable[str]) -> None:
    """Writes the sums of these files of a folder."""
    file_names = sorted(file_names)
    with open_replacement(folder / SUMS) as file:
        file.write(format_sums(dict(zip(file_names, compute_sums(map(folder.joinpath, file_names)), strict=True))))


def read_sums(folder: Path) -> dict[str, str]:
    """The sums of a folder's files by name; none without a `SHA256SUMS`. Raises InputError if that is damaged."""
    sums_path = folder / SUMS
    try:
        return parse_sums(sums_path.read_bytes(), sums_path) if sums_path.exists() else {}
    except OSError as error:
        raise InputError(f"{sums_path} cannot be read ({error.strerror}). Copy it again.") from error


def verify_sums(folder: Path, file_names: Iterable[str]) -> None:
    """Raises InputError, naming the first file that is gone, has no sum, or differs from it; nothing is verified in a
    folder without a `SHA256SUMS`."""
    different_files, files_without_sum = compare_sums(folder, file_names) if (folder / SUMS).exists() else ([], [])
    if different_files:
        raise InputError(f"{folder / different_files[0]} {DIFFERENT_MESSAGE}")
    if files_without_sum:
        raise InputError(
            f"{folder / files_without_sum[0]} has no sum in {folder / SUMS}. Was it added? Copy the folder again."
        )


def compare_sums(folder: Path, file_names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The files of a folder that differ from their sums, and those without a sum, by name."""
    file_names, sum_by_file = sorted(file_names), read_sums(folder)
    files_with_sum = [file_name for file_name in file_names if file_name in sum_by_file]
    current_sums = compute_sums(map(folder.joinpath, files_with_sum))
    different_files = [
        file_name
        for file_name, current_sum in zip(files_with_sum, current_sums, strict=True)
        if current_sum != sum_by_file[file_name]
    ]
    return different_files, [file_name for file_name in file_names if file_name not in sum_by_file]


def compute_identity(folder: Path) -> str:
    """SHA-256 of the folder's `SHA256SUMS`, which stands for all files that it names."""
    return compute_sum(folder / SUMS)


def format_sums(sum_by_file: dict[str, str]) -> str:
    """What a `SHA256SUMS` says of files by name."""
    return "".join(f"{checksum}  {file_name}\n" for file_name, checksum in sum_by_file.items())


def parse_sums(content: bytes, source_name: object) -> dict[str, str]:
    """The sums by file name in the content of a `SHA256SUMS`. Raises InputError, naming `source_name`."""
    sum_by_file = {}
    for line_number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        if not (match := SUMS_LINE_PATTERN.fullmatch(line)):
            raise InputError(
                f"{source_name} line {line_number} is damaged; expected a SHA-256 sum and a name. Copy it again."
            )
        sum_by_file[match[2]] = match[1]
    return sum_by_file
