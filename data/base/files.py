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

from data.base.errors import InputError, composed

if TYPE_CHECKING:
    import h5py
    from pydantic import TypeAdapter

Content = TypeVar("Content")
LEDGER = "runs.csv"  # of finished runs, in the folder that holds their folders
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: a limit of file sizes
TOO_LARGE = "Files may not be so large here: raise the limit (ulimit -f), or name another disk, and repeat the command."
SUMS = "SHA256SUMS"  # what is written last into a folder that is complete
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # how a file system says that it has none
FORMAT = 1  # of what this program writes and reads again; nothing of another number is read


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A path beside `target` for a file or a folder that replaces it when the block succeeds."""
    path = target.with_name(f".unfinished.{target.name}")  # with the suffix, by which NIfTI is recognised
    remove(path)
    try:
        with naming(target):
            yield path
            os.replace(path, target)
    finally:
        remove(path)


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Adds the file to the error of a disk, such as a full one, where that names none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(target)
        raise


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(target: Path, mode: str = "w", **options: Any) -> Iterator[IO]:
    """Opens a file that replaces `target` when the block succeeds; text is UTF-8 whatever the locale."""
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    with unfinished(target) as path, open(path, mode, **options) as file:
        yield file


class Storage(io.FileIO):
    """A file for HDF5, which crashes if it cannot write when it closes: after a failed write, later ones do nothing."""

    failure: OSError | None = None

    def write(self, content: Any) -> int:
        rest = memoryview(content).cast("B")
        while rest and self.failure is None:
            rest = rest[self.trying(super().write, rest) :]
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        return self.trying(super().truncate, size) if self.failure is None else size or 0

    def trying(self, call: Callable[..., int], value: object) -> int:
        try:
            return call(value)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def new_hdf5(target: Path) -> Iterator["h5py.File"]:
    """Opens an HDF5 file that replaces `target` when the block succeeds. Raises OSError on a full disk."""
    import h5py  # costs `--help` nothing

    with unfinished(target) as path, Storage(path, "w+b") as storage:
        try:
            with h5py.File(storage, "w") as store:
                yield store
        finally:
            if storage.failure:
                raise storage.failure


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` when the block succeeds. Raises InputError if that exists or is being made."""
    check_new(target)
    with locked(target), unfinished(target) as folder:
        folder.mkdir()
        yield folder


def check_new(target: Path) -> None:
    """Raises InputError if there is anything at `target`; a complete one, as a command leaves that is killed at its
    last step, need not be made again."""
    if (target / SUMS).is_file():
        raise InputError(
            f"{target} exists and is complete, by its {SUMS}: check it (abide-data check {shlex.quote(str(target))}), "
            "or remove it or name another folder."
        )
    if target.exists() or target.is_symlink():
        raise InputError(f"{target} exists; remove it or name another folder.")


def check_writable(target: Path, advice: str = "name another folder") -> None:
    """Raises InputError with `advice` unless a file can be made in the folder `target`; if it is none, in the nearest
    one above it. Permissions do not tell: those of /proc allow it."""
    above = next(parent for parent in target.absolute().parents if os.path.lexists(parent))
    nearest = target if target.is_dir() else above
    if not nearest.is_dir():
        raise InputError(f"{target} cannot be written ({nearest} is a file); {advice}.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        if error.errno not in DISK_FULL:
            reason = f"no file can be made in {nearest}: {error.strerror}"
            raise InputError(f"{target} cannot be written ({reason}); {advice}.") from error


def file_in(folder: Path, name: str) -> Path | None:
    """The file at a path in a folder, also if its accents are written otherwise on disk, see `composed`; None if there
    is none."""
    if name and os.path.isfile(folder / name):  # Path.is_file raises for a name that is too long
        return folder / name
    place = folder
    for part in () if name.isascii() else Path(name).parts:
        names = os.listdir(place) if os.path.isdir(place) else []
        if part not in ("..", *names):
            part = next((other for other in names if composed(other) == composed(part)), part)
        place = place / part
    return place if not name.isascii() and os.path.isfile(place) else None


def check_regular(path: Path) -> None:
    """Raises InputError for a pipe, a device or a socket, of which a reader may wait without end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(
            f"{path} is a pipe, a device or a socket, not a file; remove it, or put a copy of the file there."
        )


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Gives this process exclusive access to `folder`, which need not exist, until the block ends. Raises InputError
    naming the process that has it, unless to `wait` for it; the lock of a process that died is free. If the file system
    has no locks, as on some clusters, a warning is printed, and access is not exclusive."""
    from filelock import FileLock, Timeout

    folder = Path(os.path.realpath(folder))  # Path.resolve raises an error for a loop of links
    path = folder.with_name(f".{folder.name}.lock")
    if not folder.is_dir():
        check_writable(folder)  # where no file can be made, a lock would be waited for without end
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise InputError(f"{folder} is being written by {holder_of(path)}; wait for it to end.") from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        path.unlink(missing_ok=True)
        print(f"{folder} lies on a file system without locks; make sure that no other run writes it.", flush=True)
        yield
        return
    try:
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        with naming(folder):
            path.write_text(f"{this_process()} ({command})", encoding="utf-8")
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: a process that waits for it opens it again
        lock.release()


def writer_of(folder: Path) -> str | None:
    """The other process that has the folder `locked`, as it says itself; None if there is none, or nobody can tell."""
    from filelock import FileLock, Timeout

    folder = Path(os.path.realpath(folder))
    path = folder.with_name(f".{folder.name}.lock")
    if path.is_file():
        lock = FileLock(path, fallback_to_soft=False)
        try:
            lock.acquire(blocking=False)
            lock.release()  # of a process that died
        except Timeout:
            holder = holder_of(path)
            return None if holder.startswith(this_process()) else holder
        except OSError:  # a disk without locks, or a file of others
            return None
    return None


def this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def holder_of(lock: Path) -> str:
    """Who has a lock, as it says itself."""
    with suppress(FileNotFoundError):  # it has ended meanwhile
        return lock.read_text(encoding="utf-8", errors="replace") or "another process"
    return "another process"


def read_json(path: Path, kind: type[Content]) -> Content:
    """A JSON file as the dataclass `kind`, every type checked. Raises InputError, naming the file."""
    try:
        return typed(path.read_bytes(), kind)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Copy it again.") from error


def check_format(path: Path, found: object, again: str) -> None:
    """Raises InputError unless a file says this FORMAT; `again` says what to do."""
    if found != FORMAT:
        raise InputError(f"{path} has the format {str(found)[:20]}, this program reads format {FORMAT}; {again}.")


def typed(text: str | bytes, kind: type[Content], strict: bool = True) -> Content:
    """JSON as the dataclass `kind`; unless `strict`, numbers may be texts. Raises ValueError, in one line, if it does
    not fit."""
    from pydantic import ValidationError  # costs `--help` nothing

    checked: Any = kind
    try:
        return adapter(checked).validate_json(text, strict=strict)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where, reason = ".".join(map(str, first["loc"])), first["msg"]
        if first["type"] == "too_short":
            reason = f"expected {first['ctx']['min_length']} or more values, got {first['ctx']['actual_length']}"
        raise ValueError(f"{where + ': ' if where else ''}{reason}") from None


@cache
def adapter(kind: Any) -> "TypeAdapter":
    """What checks a type, built once: that takes 10 ms, and a run on folds reads hundreds of files."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def write_json(path: Path, content: object) -> None:
    with replacing(path) as file:
        file.write(json_text(content))


def json_text(content: object) -> str:
    return json.dumps(content, indent=2) + "\n"
