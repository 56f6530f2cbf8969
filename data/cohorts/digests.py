"""What a record holds, as SHA-256 digests: of its header, its volume and, if there is one, of its person's connectome.
`digests.csv` of a cohort has them.

People are known by their volumes' digests, whatever their names. A record is verified as it is read.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from data.base import tables
from data.base.errors import InputError
from data.base.progress import progress
from data.cohorts.records import HEADER_BYTES

DIGESTS = "digests.csv"
COLUMNS = ("file", "header_sha256", "volume_sha256", "source_sha256")
CONNECTOME = "connectome_sha256"  # a further column, if the cohort has connectomes
SHA256 = re.compile(r"[0-9a-f]{64}")
KEPT_DIGITS = 16  # of a volume's digest, in checkpoints
SETTLED_NS = 10**9  # a file that changed later than this before it was read may change again within one clock tick
THREADS = 2


class Stored(Protocol):
    """A record in some form of storage; see `data.cohorts.entries`."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> int: ...

    def read(self, num_bytes: int = -1) -> bytes: ...


@dataclass(frozen=True)
class Digests:
    """SHA-256 of label and phenotype, of the volumes of all maps and, if an encoder reduced these, of those before; of
    the connectome, if there is one."""

    header: str
    volume: str
    source: str = ""
    connectome: str = ""

    @property
    def scans(self) -> set[str]:
        """The beginnings of the digests of this scan's volume, and of the one that it was reduced from."""
        return {digest[:KEPT_DIGITS] for digest in (self.volume, self.source) if digest}


@dataclass(frozen=True)
class Wrapped:
    """A record that lies where another entry says, and is read otherwise."""

    stored: Stored

    @property
    def path(self) -> Path:
        return self.stored.path

    @property
    def size(self) -> int:
        return self.stored.size

    def __str__(self) -> str:
        return str(self.stored)


@dataclass(frozen=True)
class VerifiedEntry(Wrapped):
    """A record whose header is verified each time it is read, and whose volume is whenever its file has changed."""

    digests: Digests
    seen: list[tuple[int, ...]] = field(default_factory=lambda: [()])  # the state of the file that was verified last

    def read(self, num_bytes: int = -1) -> bytes:
        """The record, or its first bytes. Raises InputError if what is read is not what was written."""
        before = state_of(self.path)
        content = self.stored.read(num_bytes)
        if len(content) >= HEADER_BYTES:
            self.check(content[:HEADER_BYTES], self.digests.header, "label and phenotype")
        if num_bytes < 0 and not before == state_of(self.path) == self.seen[0]:
            self.check(memoryview(content)[HEADER_BYTES:], self.digests.volume, "volume")
            self.seen[0] = before if time.time_ns() - before[-1] > SETTLED_NS else ()
        return content

    def confirm(self) -> None:
        """Verifies the volume, without giving it, if its file has changed. Raises InputError as `read` does."""
        if state_of(self.path) != self.seen[0]:
            self.read()

    def check(self, content: bytes | memoryview, expected: str, what: str) -> None:
        if hashlib.sha256(content).hexdigest() != expected:
            raise InputError(
                f"{self} is not what was written: its {what} differs from the digest. Was it damaged or replaced? "
                "Copy it again, or convert again."
            )


def verified(entry: Stored) -> VerifiedEntry:
    """The entry that verifies what `entry` reads; raises TypeError if none does."""
    while isinstance(entry, Wrapped) and not isinstance(entry, VerifiedEntry):
        entry = entry.stored
    if not isinstance(entry, VerifiedEntry):
        raise TypeError(f"{entry} is not verified; the cohort must be `identified`.")
    return entry


def state_of(path: Path) -> tuple[int, ...]:
    """What changes with a file: its inode, size and times (ns), the last of which no program can choose. The number of
    a device is left out, since that of a network disk differs between machines."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected records. Copy it again.") from error
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def digests_of(content: bytes, source: str = "") -> Digests:
    """The digests of a record's bytes."""
    parts = memoryview(content)
    header, volume = (hashlib.sha256(part).hexdigest() for part in (parts[:HEADER_BYTES], parts[HEADER_BYTES:]))
    return Digests(header, volume, source)


def computed(
    entries: Mapping[str, Stored],
    sources: Mapping[str, str] = MappingProxyType({}),
    connectomes: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Digests]:
    """The digests of all records, by file; `sources` are those of the volumes that they were reduced from,
    `connectomes` those of their people's."""

    def one(name: str) -> Digests:
        return replace(digests_of(entries[name].read(), sources.get(name, "")), connectome=connectomes.get(name, ""))

    found = {}
    with ThreadPoolExecutor(THREADS) as pool, progress("Computing digests", len(entries)) as shown:
        for name, digests in zip(entries, pool.map(one, entries), strict=True):
            found[name] = digests
            shown.advance()
    return found


def write(folder: Path, digests: Mapping[str, Digests]) -> None:
    """Writes `digests.csv`."""
    columns = (*COLUMNS, CONNECTOME) if any(of_record.connectome for of_record in digests.values()) else COLUMNS
    rows = ([name, *astuple(of_record)][: len(columns)] for name, of_record in digests.items())
    tables.write_rows(folder / DIGESTS, columns, rows)


def read(folder: Path) -> dict[str, Digests] | None:
    """`digests.csv` by file; None if there is none. Raises InputError, naming the line, if it is damaged."""
    path = folder / DIGESTS
    if not path.is_file():
        return None
    found = {}
    for line, row in tables.read_rows(path, COLUMNS).items():
        name, header, volume, source = (row[column] for column in COLUMNS)
        connectome = row.get(CONNECTOME, "")
        if not all(map(SHA256.fullmatch, (header, volume, source or header, connectome or header))):
            raise InputError(f"{path} line {line} is damaged; expected SHA-256 digests. Copy it again.")
        found[name] = Digests(header, volume, source, connectome)
    return found


def of_all(digests: Iterable[Digests]) -> str:
    """SHA-256 over the digests of records in their order: equal if and only if the contents are."""
    every = (f"{of.header}{of.volume}{of.source}{of.connectome}" for of in digests)
    return hashlib.sha256("".join(every).encode()).hexdigest()


def changed(folder: Path, digests: Mapping[str, Digests]) -> list[str]:
    """Which of the records, by file, are others than those of a `digests.csv` that an earlier run kept in `folder`."""
    before = read(folder) or {}
    return [name for name, now in digests.items() if before.get(name, now) != now]
