"""`SHA256SUMS` of a folder, in the form that `sha256sum -c` reads: whether its files are as they were written."""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.base.errors import InputError
from data.base.files import SUMS_FILE, check_regular_file, open_replacement

DIFFERENT_FILE_MESSAGE = f"is not what was written, its sum in {SUMS_FILE} says. Was it damaged? Copy it again."
SUMS_LINE_PATTERN = re.compile(r"([0-9a-f]{64}) [ *](.+)")
SUM_THREADS = 2  # that compute sums


def compute_checksum(path: Path) -> str:
    """SHA-256 of a file. Raises InputError if it cannot be read."""
    check_regular_file(path)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from error


def compute_checksums(paths: Iterable[Path]) -> list[str]:
    """`compute_checksum` of each file, several at a time."""
    with ThreadPoolExecutor(SUM_THREADS) as thread_pool:
        return list(thread_pool.map(compute_checksum, paths))


def write_checksums(folder: Path, file_names: Iterable[str]) -> None:
    """Writes the sums of these files of a folder."""
    file_names = sorted(file_names)
    with open_replacement(folder / SUMS_FILE) as file:
        file.write(
            format_checksums(dict(zip(file_names, compute_checksums(map(folder.joinpath, file_names)), strict=True)))
        )


def read_checksums(folder: Path) -> dict[str, str]:
    """The sums of a folder's files by name; none without a `SHA256SUMS`. Raises InputError if that is damaged."""
    sums_path = folder / SUMS_FILE
    try:
        return parse_checksums(sums_path.read_bytes(), sums_path) if sums_path.exists() else {}
    except OSError as error:
        raise InputError(f"{sums_path} cannot be read ({error.strerror}). Copy it again.") from error


def verify_checksums(folder: Path, file_names: Iterable[str]) -> None:
    """Raises InputError, naming the first file that is gone, has no sum, or differs from it; nothing is verified in a
    folder without a `SHA256SUMS`."""
    different_file_names, file_names_without_checksum = (
        compare_checksums(folder, file_names) if (folder / SUMS_FILE).exists() else ([], [])
    )
    if different_file_names:
        raise InputError(f"{folder / different_file_names[0]} {DIFFERENT_FILE_MESSAGE}")
    if file_names_without_checksum:
        raise InputError(
            f"{folder / file_names_without_checksum[0]} has no sum in {folder / SUMS_FILE}. Was it added? Copy the "
            "folder again."
        )


def compare_checksums(folder: Path, file_names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The files of a folder that differ from their sums, and those without a sum, by name."""
    file_names = sorted(file_names)
    checksum_by_file = read_checksums(folder)
    file_names_with_checksum = [file_name for file_name in file_names if file_name in checksum_by_file]
    current_checksums = compute_checksums(map(folder.joinpath, file_names_with_checksum))
    different_file_names = [
        file_name
        for file_name, current_checksum in zip(file_names_with_checksum, current_checksums, strict=True)
        if current_checksum != checksum_by_file[file_name]
    ]
    return different_file_names, [file_name for file_name in file_names if file_name not in checksum_by_file]


def compute_sums_file_sha256(folder: Path) -> str:
    """SHA-256 of the folder's `SHA256SUMS`, which stands for all files that it names."""
    return compute_checksum(folder / SUMS_FILE)


def format_checksums(checksum_by_file: dict[str, str]) -> str:
    """What a `SHA256SUMS` says of files by name."""
    return "".join(f"{checksum}  {file_name}\n" for file_name, checksum in checksum_by_file.items())


def parse_checksums(sums_file_bytes: bytes, source_name: object) -> dict[str, str]:
    """The sums by file name in the content of a `SHA256SUMS`. Raises InputError, naming `source_name`."""
    checksum_by_file = {}
    for line_number, line in enumerate(sums_file_bytes.decode(errors="replace").splitlines(), 1):
        if not (line_match := SUMS_LINE_PATTERN.fullmatch(line)):
            raise InputError(
                f"{source_name} line {line_number} is damaged; expected a SHA-256 sum and a name. Copy it again."
            )
        checksum_by_file[line_match[2]] = line_match[1]
    return checksum_by_file
