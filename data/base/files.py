"""Writing without loss: a file or folder appears whole under its name or not at all; one process writes a folder.

An unfinished file lies beside its target under a fixed name: the next attempt replaces that of a killed process.
"""

import errno
import io
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from data.base.errors import InputError, compose_accents

if TYPE_CHECKING:
    import h5py
    from pydantic import TypeAdapter

JsonContent = TypeVar("JsonContent")
LEDGER_FILE = "runs.csv"  # of finished runs, in the folder that holds their folders
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: a limit of file sizes
FILE_TOO_LARGE_ADVICE = (
    "Files may not be so large here: raise the limit (ulimit -f), or name another disk, and repeat the command."
)
SUMS_FILE = "SHA256SUMS"  # what is written last into a folder that is complete
NO_LOCKS_ERRNOS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # how a file system says that it has none
FORMAT_VERSION = 2  # of what this program writes and reads again; nothing of another number is read


@contextmanager
def make_unfinished_path(target: Path) -> Iterator[Path]:
    """A path beside `target` for a file or a folder that replaces it when the block succeeds."""
    unfinished_path = target.with_name(f".unfinished.{target.name}")  # with the suffix, by which NIfTI is recognised
    remove_file_or_folder(unfinished_path)
    try:
        with name_file_in_errors(target):
            yield unfinished_path
            os.replace(unfinished_path, target)
    finally:
        remove_file_or_folder(unfinished_path)


@contextmanager
def name_file_in_errors(target: Path) -> Iterator[None]:
    """Adds the file to an OSError, such as that of a full disk, if it names none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(target)
        raise


def remove_file_or_folder(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def open_replacement(target: Path, mode: str = "w", **open_options: Any) -> Iterator[IO]:
    """Opens a file that replaces `target` when the block succeeds; text is UTF-8 whatever the locale."""
    if "b" not in mode:
        open_options.setdefault("encoding", "utf-8")
    with make_unfinished_path(target) as unfinished_path, open(unfinished_path, mode, **open_options) as file:
        yield file


class Hdf5Storage(io.FileIO):
    """A file for HDF5, which crashes if it cannot write when it closes: after a failed write, later ones do nothing."""

    write_error: OSError | None = None

    def write(self, content: Any) -> int:
        bytes_left = memoryview(content).cast("B")
        while bytes_left and self.write_error is None:
            bytes_left = bytes_left[self.call_recording_error(super().write, bytes_left) :]
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        return self.call_recording_error(super().truncate, size) if self.write_error is None else size or 0

    def call_recording_error(self, file_method: Callable[..., int], argument: object) -> int:
        try:
            return file_method(argument)
        except OSError as error:
            self.write_error = error
            raise


@contextmanager
def create_hdf5(target: Path) -> Iterator["h5py.File"]:
    """Opens an HDF5 file that replaces `target` when the block succeeds. Raises OSError on a full disk."""
    import h5py  # costs `--help` nothing

    with make_unfinished_path(target) as unfinished_path, Hdf5Storage(unfinished_path, "w+b") as storage:
        try:
            with h5py.File(storage, "w") as hdf5_file:
                yield hdf5_file
        finally:
            if storage.write_error:
                raise storage.write_error


@contextmanager
def create_folder(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` when the block succeeds. Raises InputError if that exists or is being made."""
    check_target_is_new(target)
    with lock_exclusively(target), make_unfinished_path(target) as unfinished_folder:
        unfinished_folder.mkdir()
        yield unfinished_folder


def check_target_is_new(target: Path) -> None:
    """Raises InputError if there is anything at `target`; of a complete folder, which a command leaves that is killed
    at its last step, the error says that it need not be made again."""
    if (target / SUMS_FILE).is_file():
        raise InputError(
            f"{target} exists and is complete, by its {SUMS_FILE}: check it (abide-data check "
            f"{shlex.quote(str(target))}), or remove it or name another folder."
        )
    if target.exists() or target.is_symlink():
        raise InputError(f"{target} exists; remove it or name another folder.")


def check_folder_writable(target: Path, advice: str = "name another folder") -> None:
    """Raises InputError with `advice` unless a file can be made in the folder `target`; if it is none, in the nearest
    one above it. Permissions do not tell: those of /proc allow it."""
    nearest_parent = next(parent for parent in target.absolute().parents if os.path.lexists(parent))
    nearest_existing_folder = target if target.is_dir() else nearest_parent
    if not nearest_existing_folder.is_dir():
        raise InputError(f"{target} cannot be written ({nearest_existing_folder} is a file); {advice}.")
    try:
        with tempfile.TemporaryFile(dir=nearest_existing_folder):
            pass
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            reason = f"no file can be made in {nearest_existing_folder}: {error.strerror}"
            raise InputError(f"{target} cannot be written ({reason}); {advice}.") from error


def find_file(folder: Path, relative_path: str) -> Path | None:
    """The file at a path in a folder, also if its accents are written otherwise on disk, see `compose_accents`; None
    if there is none."""
    if relative_path and os.path.isfile(folder / relative_path):  # Path.is_file raises for a name that is too long
        return folder / relative_path
    path_so_far = folder
    for path_component in () if relative_path.isascii() else Path(relative_path).parts:
        names_on_disk = os.listdir(path_so_far) if os.path.isdir(path_so_far) else []
        if path_component not in ("..", *names_on_disk):
            path_component = next(
                (
                    name_on_disk
                    for name_on_disk in names_on_disk
                    if compose_accents(name_on_disk) == compose_accents(path_component)
                ),
                path_component,
            )
        path_so_far = path_so_far / path_component
    return path_so_far if not relative_path.isascii() and os.path.isfile(path_so_far) else None


def check_regular_file(path: Path) -> None:
    """Raises InputError for a pipe, a device or a socket, of which a reader may wait without end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(
            f"{path} is a pipe, a device or a socket, not a file; remove it, or put a copy of the file there."
        )


@contextmanager
def lock_exclusively(folder: Path, wait: bool = False) -> Iterator[None]:
    """Gives this process exclusive access to `folder`, which need not exist, until the block ends. Raises InputError,
    naming the process that has it, unless told to `wait` for it; the lock of a process that died is free. If the file
    system has no locks, as on some clusters, a warning is printed, and access is not exclusive."""
    from filelock import FileLock, Timeout

    folder = Path(os.path.realpath(folder))  # Path.resolve raises an error for a loop of links
    lock_path = folder.with_name(f".{folder.name}.lock")
    if not folder.is_dir():
        check_folder_writable(folder)  # where no file can be made, a lock would be waited for without end
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise InputError(f"{folder} is being written by {read_lock_holder(lock_path)}; wait for it to end.") from None
    except OSError as error:
        if error.errno not in NO_LOCKS_ERRNOS:
            raise
        lock_path.unlink(missing_ok=True)
        print(f"{folder} lies on a file system without locks; make sure that no other run writes it.", flush=True)
        yield
        return
    try:
        command_line = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        with name_file_in_errors(folder):
            lock_path.write_text(f"{describe_process()} ({command_line})", encoding="utf-8")
        yield
    finally:
        lock_path.unlink(missing_ok=True)  # while it is held: a process that waits for it opens it again
        lock.release()


def remove_abandoned_lock(folder: Path) -> None:
    """Removes the lock of a process that died while it had the folder `lock_exclusively`, if there is one."""
    from filelock import FileLock, Timeout

    folder = Path(os.path.realpath(folder))
    lock_path = folder.with_name(f".{folder.name}.lock")
    if lock_path.is_file():
        lock = FileLock(lock_path, fallback_to_soft=False)
        with suppress(Timeout, OSError):  # it is another's, on a disk without locks, or cannot be removed
            lock.acquire(blocking=False)
            lock_path.unlink(missing_ok=True)
            lock.release()


def find_writing_process(folder: Path) -> str | None:
    """The other process that has the folder `lock_exclusively`, as it says itself; None if there is none, or nobody
    can tell."""
    from filelock import FileLock, Timeout

    folder = Path(os.path.realpath(folder))
    lock_path = folder.with_name(f".{folder.name}.lock")
    if lock_path.is_file():
        lock = FileLock(lock_path, fallback_to_soft=False)
        try:
            lock.acquire(blocking=False)
            lock.release()  # of a process that died
        except Timeout:
            lock_holder = read_lock_holder(lock_path)
            return None if lock_holder.startswith(describe_process()) else lock_holder
        except OSError:  # a disk without locks, or a file of others
            return None
    return None


def describe_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def read_lock_holder(lock_path: Path) -> str:
    """Who has a lock, as it says itself."""
    with suppress(FileNotFoundError):  # it has ended meanwhile
        return lock_path.read_text(encoding="utf-8", errors="replace") or "another process"
    return "another process"


def read_json(path: Path, json_class: type[JsonContent]) -> JsonContent:
    """A JSON file as the dataclass `json_class`, every type checked. Raises InputError, naming the file."""
    try:
        return parse_json(path.read_bytes(), json_class)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Copy it again.") from error


def check_format_version(path: Path, format_version: object, advice: str) -> None:
    """Raises InputError unless the `format_version` of a file is `FORMAT_VERSION`; `advice` says what to do."""
    if format_version != FORMAT_VERSION:
        raise InputError(
            f"{path} has the format {str(format_version)[:20]}, this program reads format {FORMAT_VERSION}; {advice}."
        )


def parse_json(json_content: str | bytes, json_class: type[JsonContent], strict: bool = True) -> JsonContent:
    """JSON as the dataclass `json_class`; unless `strict`, numbers may be texts. Raises ValueError, in one line, if it
    does not fit."""
    from pydantic import ValidationError  # costs `--help` nothing

    json_type: Any = json_class
    try:
        return make_type_adapter(json_type).validate_json(json_content, strict=strict)
    except ValidationError as error:
        first_error = error.errors(include_url=False, include_input=False)[0]
        key_path = ".".join(map(str, first_error["loc"]))
        reason = first_error["msg"]
        if first_error["type"] == "too_short":
            reason = (
                f"expected {first_error['ctx']['min_length']} or more values, got {first_error['ctx']['actual_length']}"
            )
        raise ValueError(f"{key_path + ': ' if key_path else ''}{reason}") from None


@cache
def make_type_adapter(checked_type: Any) -> "TypeAdapter":
    """What checks a type, built once: that takes 10 ms, and a run on folds reads hundreds of files."""
    from pydantic import TypeAdapter

    return TypeAdapter(checked_type)


def write_json(path: Path, json_content: object) -> None:
    with open_replacement(path) as file:
        file.write(format_json(json_content))


def format_json(json_content: object) -> str:
    return json.dumps(json_content, indent=2) + "\n"
