"""What a record holds: bytes <-> (label, phenotype, volume); which files of a folder are records; z-scores of volumes.

A record is one little-endian float32 row: the label (1 autism, 0 control, NaN unknown), 29 phenotype values, then the
volume. That is in C order (x, y, z; z runs fastest) on a grid of the MNI152 space, RAS+. If a scan has several maps,
such as fALFF and ALFF, their volumes follow one another.
"""

import hashlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from data.base.errors import InputError

BLOCK = 3  # a reduced voxel stands for BLOCK^3 full-size voxels
DTYPE = np.dtype("<f4")
PHENOTYPE_SIZE = 29
HEADER_SIZE = 1 + PHENOTYPE_SIZE
HEADER_BYTES = DTYPE.itemsize * HEADER_SIZE
MAX_MAPS = 64  # of a record, which bounds the memory that one takes
TELLING = 5  # people of a group, such as a site or a category: what is told of fewer nearly tells who they are
CLASSES = ("control", "autism")  # label 0.0, label 1.0
SMALLEST_SPREAD = 1e-6  # of z-scores; below it is rounding
LARGEST = 1e9  # of a value; the squares of greater ones, summed over a brain, may leave float32
OTHER_FILES = {".json", ".csv", ".md", ".txt"}  # by suffix: what may lie beside records, even zipped
ZIP_MAGIC = b"PK\x03\x04"
KEPT_DIGITS = 16  # of a volume's digest, in checkpoints
SETTLED_NS = 10**9  # a file that changed later than this before it was read may change again within one clock tick


@dataclass(frozen=True)
class Grid:
    """A grid of `shape` (x, y, z) voxels whose voxel (0, 0, 0) is centred at `origin_mm`."""

    name: str
    shape: tuple[int, int, int]
    spacing_mm: float
    origin_mm: tuple[float, float, float] = (-90.0, -126.0, -72.0)

    @property
    def affine(self) -> list[list[float]]:
        """Voxel index -> mm, 4x4."""
        rows = [[self.spacing_mm * (row == column) for column in range(3)] + [self.origin_mm[row]] for row in range(3)]
        return [*rows, [0.0, 0.0, 0.0, 1.0]]

    def lies_by(self, affine: Sequence[Sequence[float]]) -> bool:
        """Whether it is this grid's; any nested numbers can be asked for."""
        return [list(row) for row in affine] == self.affine

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


FULL = Grid("full", (91, 109, 91), 2.0)
REDUCED = Grid("reduced", (31, 37, 31), 6.0)
GRIDS = {"full": FULL, "reduced": REDUCED}
GRID_OF_SHAPE: dict[tuple[int, ...], Grid] = {FULL.shape: FULL, REDUCED.shape: REDUCED}


class Entry(Protocol):
    """Where a record's bytes lie: in a file, or as `data.cohorts.entries` says."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> int: ...

    def read(self, num_bytes: int = -1) -> bytes: ...


@dataclass(frozen=True)
class FileEntry:
    """A record in a file of its own."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, num_bytes: int = -1) -> bytes:
        try:
            with open(self.path, "rb") as file:
                return file.read(num_bytes)
        except OSError as error:
            raise InputError(f"{self} cannot be read ({error.strerror}); expected a record.") from error

    def __str__(self) -> str:
        return str(self.path)


Origin = tuple[str, tuple[str, ...]]  # digests of the volumes that an encoder reduced: of all maps, and of each
UNREDUCED: Origin = ("", ())


@dataclass(frozen=True)
class Digests:
    """SHA-256 of label and phenotype, of the volumes of all maps and, if an encoder reduced these, of those before; of
    the connectome, if there is one. Also of each of several maps that is not constant, and of each before."""

    header: str
    volume: str
    source: str = ""
    connectome: str = ""
    maps: tuple[str, ...] = ()
    source_maps: tuple[str, ...] = ()

    @property
    def origin(self) -> "Origin":
        """What the volumes are of if they are kept as they are."""
        return self.source, self.source_maps

    @property
    def scans(self) -> set[str]:
        """The beginnings of all digests by which a scan is known, as a whole or by one of its parts."""
        every = (self.volume, self.source, self.connectome, *self.maps, *self.source_maps)
        return {digest[:KEPT_DIGITS] for digest in every if digest}


@dataclass(frozen=True)
class Wrapped:
    """A record that lies where another entry says, and is read otherwise."""

    stored: Entry

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


def verifier_of(entry: Entry) -> VerifiedEntry:
    """The entry that verifies what `entry` reads; raises TypeError if none does."""
    while isinstance(entry, Wrapped) and not isinstance(entry, VerifiedEntry):
        entry = entry.stored
    if not isinstance(entry, VerifiedEntry):
        raise TypeError(f"{entry} is not verified; the cohort must be sealed.")
    return entry


def state_of(path: Path) -> tuple[int, ...]:
    """What changes with a file: its inode, size and times (ns), the last of which no program can choose. The number of
    a device is left out, since that of a network disk differs between machines."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected records. Copy it again.") from error
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def digests_of(content: bytes, origin: Origin = UNREDUCED, connectome: str = "") -> Digests:
    """The digests of a record's bytes, of volumes that an encoder reduced from an `origin`."""
    parts = memoryview(content)
    header, volume = (hashlib.sha256(part).hexdigest() for part in (parts[:HEADER_BYTES], parts[HEADER_BYTES:]))
    count = form_of_size(len(parts), "A record")[1]
    maps = digests_of_maps(np.frombuffer(parts, DTYPE, offset=HEADER_BYTES).reshape(count, -1)) if count > 1 else ()
    return Digests(header, volume, origin[0], connectome, maps, origin[1])


def digests_of_maps(volumes: np.ndarray) -> tuple[str, ...]:
    """SHA-256 of each of the stored volumes (maps, ...) that is not constant: those are alike in many people."""
    return tuple(hashlib.sha256(of_map).hexdigest() for of_map in volumes if of_map.min() < of_map.max())


def record_files(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The files of a folder that hold records, sorted, and whether each is a zip chunk; others are left alone."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix in OTHER_FILES or not path.is_file():
            continue
        zipped = FileEntry(path).read(len(ZIP_MAGIC)) == ZIP_MAGIC
        if zipped or path.suffix == ".bin":
            yield path, zipped


def record_bytes(grid: Grid, num_maps: int = 1) -> int:
    """The size of one record."""
    return HEADER_BYTES + DTYPE.itemsize * math.prod(grid.shape) * num_maps


def kind(grid: Grid, num_maps: int) -> str:
    """A record's grid and number of maps, in words."""
    return f"{grid} record" + f" of {num_maps} maps" * (num_maps > 1)


def form_of_size(num_bytes: int, name: str) -> tuple[Grid, int]:
    """The grid and the number of maps of a record, from its size. Raises InputError if no record has this size."""
    forms = []
    for grid in reversed(GRIDS.values()):
        count = round((num_bytes - HEADER_BYTES) / (record_bytes(grid) - HEADER_BYTES))
        forms.append((grid, min(max(1, count), MAX_MAPS)))
    nearest = min(forms, key=lambda form: abs(record_bytes(*form) - num_bytes))
    difference = num_bytes - record_bytes(*nearest)
    if difference:
        raise InputError(
            f"{name} holds {num_bytes:,} bytes, {abs(difference):,} {'more' if difference > 0 else 'short'} "
            f"{'than' if difference > 0 else 'of'} a {kind(*nearest)} ({record_bytes(*nearest):,}). "
            "Was the copy cut off? Convert the subject again."
        )
    return nearest


def check_label(label: float, name: str, unknown: bool = False) -> None:
    """Raises InputError, naming the file, unless the label is 0.0 or 1.0, or NaN where it may be `unknown`."""
    if label not in (0.0, 1.0) and not (unknown and math.isnan(label)):
        raise InputError(
            f"{name} has the label {label:g}; expected 1 (autism) or 0 (control). "
            "ABIDE's DX_GROUP (1 autism, 2 control) must be converted: abide-data convert."
        )


def pack_header(label: float, phenotype: np.ndarray) -> bytes:
    """The first bytes of a record: its label and phenotype (29,)."""
    return np.array([label, *phenotype], DTYPE).tobytes()


def pack(label: float, phenotype: np.ndarray, *volumes: np.ndarray) -> memoryview:
    """One record's bytes from a label, phenotype (29,) and the volume (x, y, z) of each map."""
    values = np.empty(HEADER_SIZE + sum(volume.size for volume in volumes), DTYPE)
    values[0], values[1:HEADER_SIZE] = label, phenotype
    values[HEADER_SIZE:].reshape(-1, *volumes[0].shape)[...] = volumes
    return values.data.cast("B")


def header_label(record: bytes, name: str, unknown: bool = False) -> float:
    """The label of a record or of its first bytes. Raises InputError as `check_label` does."""
    if len(record) < DTYPE.itemsize:
        raise InputError(f"{name} is empty; expected a record. Convert the subject again.")
    label = float(np.frombuffer(record, DTYPE, 1)[0])
    check_label(label, name, unknown)
    return label


def check_finite(values: np.ndarray, name: str, what: str) -> None:
    """Raises InputError, naming the file and the first value that is NaN, infinite, or no measurement."""
    if not (values.min() >= -LARGEST and values.max() <= LARGEST):
        at = int(np.argmin(np.abs(values) <= LARGEST))
        raise InputError(
            f"{name} holds {values[at]} as {what} {at}; expected finite numbers up to {LARGEST:g}. "
            "Convert the subject again."
        )


def unpack_phenotype(header: bytes, name: str, unknown: bool = False) -> np.ndarray:
    """The phenotype (29,) of a record or of its first 120 bytes. Raises InputError, naming the file."""
    if len(header) < HEADER_BYTES:
        raise InputError(f"{name} holds {len(header)} bytes; expected a record. Was the copy cut off? Copy it again.")
    header_label(header, name, unknown)
    phenotype = np.frombuffer(header, DTYPE, PHENOTYPE_SIZE, offset=DTYPE.itemsize)
    check_finite(phenotype, name, "phenotype value")
    return phenotype


def unpack(
    record: bytes, grid: Grid, name: str, unknown: bool = False, num_maps: int = 1
) -> tuple[float, np.ndarray, np.ndarray]:
    """Label, phenotype (29,) float32 and volume (x, y, z, maps) float32 of one record; the arrays are read-only views.
    Raises InputError, naming the file, for another size, a value that is not finite, or as `check_label` does."""
    if len(record) != (size := record_bytes(grid, num_maps)):
        raise InputError(f"{name} holds {len(record):,} bytes; expected {size:,}, a {kind(grid, num_maps)}.")
    phenotype = unpack_phenotype(record, name, unknown)
    volume = np.frombuffer(record, DTYPE, offset=HEADER_BYTES)
    check_finite(volume, name, "volume value")
    return header_label(record, name, unknown), phenotype, np.moveaxis(volume.reshape(num_maps, *grid.shape), 0, -1)


def stored(volume: np.ndarray) -> bytes:
    """A volume (x, y, z, maps) float32 as the bytes of a record: one map after another."""
    return np.moveaxis(volume, -1, 0).tobytes()


def normalise(volume: np.ndarray) -> np.ndarray:
    """z-scores over the whole volume, background included, (x, y, z) float32. A constant volume becomes zero."""
    volume = np.asarray(volume, np.float32)
    centred = volume - np.float32(volume.mean(dtype=np.float64))
    spread = math.sqrt(np.vecdot(centred, centred).sum(dtype=np.float64) / volume.size)
    centred /= spread if spread > 0 else 1.0
    return centred


def background(volume: np.ndarray) -> float:
    """The value of the voxels outside the brain: the median over the six outer faces of a volume (x, y, z)."""
    faces = np.concatenate([volume.swapaxes(0, axis)[index].ravel() for axis in range(3) for index in (0, -1)])
    if 2 * np.count_nonzero(faces == faces[0]) > faces.size:  # without sorting, in almost every volume
        return float(faces[0])
    return float(np.median(faces))


def brain_of(volume: np.ndarray) -> np.ndarray:
    """The voxels of a stored volume that differ from its background, (x, y, z) bool; all if none do."""
    brain = np.abs(volume - background(volume)) > 1e-4 * np.ptp(volume)
    return brain if brain.any() else np.ones_like(brain)


def within_brain(volume: np.ndarray) -> np.ndarray:
    """z-scores of each map (x, y, z, maps) over the voxels that are not its background, which becomes 0, their mean."""
    standardised = np.empty_like(volume)
    for at in range(volume.shape[-1]):
        brain = brain_of(volume[..., at])
        voxels = np.count_nonzero(brain)
        mean = np.where(brain, volume[..., at], 0).sum(dtype=np.float64) / voxels
        centred = np.where(brain, volume[..., at] - np.float32(mean), np.float32(0))
        spread = np.sqrt(np.square(centred).sum(dtype=np.float64) / voxels)
        standardised[..., at] = centred / np.float32(spread if spread > SMALLEST_SPREAD else 1)
    return standardised
