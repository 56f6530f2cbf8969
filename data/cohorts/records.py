"""What a record holds: bytes <-> (label, phenotype, volume), and their digests; z-scores of volumes.

A record is one little-endian float32 row: the label (1 autism, 0 control, NaN unknown), 29 phenotype values, then the
volume. That is in C order (x, y, z; z runs fastest) on a grid of the MNI152 space, RAS+. If a scan has several maps,
such as fALFF and ALFF, their volumes follow one another. Where there are tables, these say label and phenotype, and the
first 30 values of a record are not read.
"""

import hashlib
import math
from dataclasses import dataclass, replace

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
KEPT_DIGITS = 16  # of a volume's digest, in checkpoints


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

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


FULL = Grid("full", (91, 109, 91), 2.0)
REDUCED = Grid("reduced", (31, 37, 31), 6.0)
GRIDS = {"full": FULL, "reduced": REDUCED}
GRID_OF_SHAPE: dict[tuple[int, ...], Grid] = {FULL.shape: FULL, REDUCED.shape: REDUCED}


@dataclass(frozen=True)
class Digests:
    """SHA-256 of what a record holds, as text: of the volumes of all maps, and of each of several maps that is not
    constant; if an encoder reduced these, of those before; of the connectome, if there is one; of label and phenotype
    (`header`), if no table says them."""

    volume: str
    source: str = ""
    connectome: str = ""
    maps: tuple[str, ...] = ()
    source_maps: tuple[str, ...] = ()
    header: str = ""

    @property
    def scans(self) -> set[str]:
        """The beginnings of all digests by which a scan is known, as a whole or by one of its parts."""
        every = (self.volume, self.source, self.connectome, *self.maps, *self.source_maps)
        return {digest[:KEPT_DIGITS] for digest in every if digest}

    def encoded(self, content: bytes) -> "Digests":
        """The digests of the record that an encoder made of this one."""
        before = self.source or self.volume
        return replace(digests_of(content), source=before, source_maps=self.source_maps or self.maps)


def digest_of(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def digests_of(content: bytes | memoryview) -> Digests:
    """The digests of a record's bytes."""
    parts = memoryview(content)
    header, volume = digest_of(parts[:HEADER_BYTES]), digest_of(parts[HEADER_BYTES:])
    count = form_of_size(len(parts), "A record")[1]
    maps = digests_of_maps(np.frombuffer(parts, DTYPE, offset=HEADER_BYTES).reshape(count, -1)) if count > 1 else ()
    return Digests(volume, maps=maps, header=header)


def digests_of_maps(volumes: np.ndarray) -> tuple[str, ...]:
    """SHA-256 of each of the stored volumes (maps, ...) that is not constant: those are alike in many people."""
    return tuple(hashlib.sha256(of_map).hexdigest() for of_map in volumes if of_map.min() < of_map.max())


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
            "Was the copy cut off? Convert the participant again."
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


def check_finite(values: np.ndarray, name: str, what: str) -> None:
    """Raises InputError, naming the file and the first value that is NaN, infinite, or no measurement."""
    if not (values.min() >= -LARGEST and values.max() <= LARGEST):
        at = int(np.argmin(np.abs(values) <= LARGEST))
        raise InputError(
            f"{name} holds {values[at]} as {what} {at}; expected finite numbers up to {LARGEST:g}. "
            "Convert the participant again."
        )


def unpack_header(header: bytes, name: str) -> tuple[float, np.ndarray]:
    """Label and phenotype (29,) of a record's first bytes. Raises InputError, naming the file, for a value that is not
    finite."""
    label, *_ = phenotype = np.frombuffer(header, DTYPE, HEADER_SIZE)
    check_finite(phenotype[1:], name, "phenotype value")
    return float(label), phenotype[1:]


def unpack_volume(record: bytes, grid: Grid, num_maps: int, name: str) -> np.ndarray:
    """The volume (x, y, z, maps) float32 of a record, a read-only view. Raises InputError, naming the file, for another
    size, and for a value that is not finite."""
    if len(record) != (size := record_bytes(grid, num_maps)):
        raise InputError(f"{name} holds {len(record):,} bytes; expected {size:,}, a {kind(grid, num_maps)}.")
    volume = np.frombuffer(record, DTYPE, offset=HEADER_BYTES)
    check_finite(volume, name, "volume value")
    return np.moveaxis(volume.reshape(num_maps, *grid.shape), 0, -1)


def check_digest(content: bytes | memoryview, digest: str, name: str, what: str) -> None:
    """Raises InputError, naming the file, unless the content is what was written."""
    if digest_of(content) != digest:
        raise InputError(
            f"{name} is not what was written: its {what} differs from the digest. Was it damaged or replaced? "
            "Copy it again, or convert again."
        )


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
