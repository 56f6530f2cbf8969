"""What a record holds: bytes <-> (label, phenotype, volume), and their digests.

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
from data.images.grids import GRID_BY_NAME, MAX_MAPS, Grid
from data.tables.vocabulary import PHENOTYPE_SIZE

RECORD_DTYPE = np.dtype("<f4")
HEADER_VALUE_COUNT = 1 + PHENOTYPE_SIZE
HEADER_BYTES = RECORD_DTYPE.itemsize * HEADER_VALUE_COUNT
MAX_ABS_RECORD_VALUE = 1e9  # of a value; the squares of greater ones, summed over a brain, may leave float32
DIGEST_PREFIX_LENGTH = 16  # of a volume's digest, in checkpoints


@dataclass(frozen=True)
class Digests:
    """SHA-256 of what a record holds, as text; empty where there is nothing."""

    volume: str = ""  # of the volumes of all maps
    source: str = ""  # of these volumes before an encoder reduced them
    connectome: str = ""  # of its Fisher z values
    maps: tuple[str, ...] = ()  # of each map that is not constant, if there are several
    source_maps: tuple[str, ...] = ()  # as `maps`, before an encoder reduced them
    header: str = ""  # of label and phenotype, if no table says them
    row: str = ""  # of the ID and the phenotype of a person without a scan

    @property
    def scan_digests(self) -> set[str]:
        """The beginnings of all digests by which a scan is known, as a whole or by one of its parts; without a scan,
        that by which the person is known."""
        all_digests = (self.volume, self.source, self.connectome, *self.maps, *self.source_maps, self.row)
        return {digest[:DIGEST_PREFIX_LENGTH] for digest in all_digests if digest}

    def make_encoded_digests(self, encoded_content: bytes) -> "Digests":
        """The digests of the record that an encoder made of this one."""
        source_digest = self.source or self.volume
        return replace(
            compute_record_digests(encoded_content), source=source_digest, source_maps=self.source_maps or self.maps
        )


def compute_digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def compute_record_digests(record_content: bytes | memoryview) -> Digests:
    """The digests of a record's bytes."""
    record_view = memoryview(record_content)
    header_digest = compute_digest(record_view[:HEADER_BYTES])
    volume_digest = compute_digest(record_view[HEADER_BYTES:])
    map_count = infer_record_form(len(record_view), "A record")[1]
    map_digests = (
        compute_map_digests(np.frombuffer(record_view, RECORD_DTYPE, offset=HEADER_BYTES).reshape(map_count, -1))
        if map_count > 1
        else ()
    )
    return Digests(volume_digest, maps=map_digests, header=header_digest)


def compute_map_digests(map_volumes: np.ndarray) -> tuple[str, ...]:
    """SHA-256 of each of the stored volumes (maps, ...) that is not constant: constant ones are alike in many
    people."""
    return tuple(
        hashlib.sha256(map_volume).hexdigest() for map_volume in map_volumes if map_volume.min() < map_volume.max()
    )


def count_record_bytes(grid: Grid, num_maps: int = 1) -> int:
    """The size of one record."""
    return HEADER_BYTES + RECORD_DTYPE.itemsize * math.prod(grid.shape) * num_maps


def describe_record_form(grid: Grid, num_maps: int) -> str:
    """A record's grid and number of maps, in words."""
    return f"{grid} record" + f" of {num_maps} maps" * (num_maps > 1)


def infer_record_form(record_byte_count: int, record_name: str) -> tuple[Grid, int]:
    """The grid and the number of maps of a record, from its size. Raises InputError if no record has this size."""
    candidate_forms = []  # (grid, number of maps) each
    for grid in reversed(GRID_BY_NAME.values()):
        map_count = round((record_byte_count - HEADER_BYTES) / (count_record_bytes(grid) - HEADER_BYTES))
        candidate_forms.append((grid, min(max(1, map_count), MAX_MAPS)))
    nearest_form = min(candidate_forms, key=lambda form: abs(count_record_bytes(*form) - record_byte_count))
    byte_difference = record_byte_count - count_record_bytes(*nearest_form)
    if byte_difference:
        comparison_text = "more than" if byte_difference > 0 else "short of"
        raise InputError(
            f"{record_name} holds {record_byte_count:,} bytes, {abs(byte_difference):,} {comparison_text} a "
            f"{describe_record_form(*nearest_form)} ({count_record_bytes(*nearest_form):,}). Was the copy cut off? "
            "Convert the participant again."
        )
    return nearest_form


def check_label(label: float, record_name: str, allow_unknown: bool = False) -> None:
    """Raises InputError, naming the file, unless the label is 0.0, 1.0 or, with `allow_unknown`, NaN."""
    if label not in (0.0, 1.0) and not (allow_unknown and math.isnan(label)):
        raise InputError(
            f"{record_name} has the label {label:g}; expected 1 (autism) or 0 (control). "
            "ABIDE's DX_GROUP (1 autism, 2 control) must be converted: abide-data convert."
        )


def pack_header(label: float, phenotype: np.ndarray) -> bytes:
    """The first bytes of a record: its label and phenotype (29,)."""
    return np.array([label, *phenotype], RECORD_DTYPE).tobytes()


def pack_record(label: float, phenotype: np.ndarray, *volumes: np.ndarray) -> memoryview:
    """One record's bytes from a label, phenotype (29,) and the volume (x, y, z) of each map."""
    record_values = np.empty(HEADER_VALUE_COUNT + sum(volume.size for volume in volumes), RECORD_DTYPE)
    record_values[0] = label
    record_values[1:HEADER_VALUE_COUNT] = phenotype
    record_values[HEADER_VALUE_COUNT:].reshape(-1, *volumes[0].shape)[...] = volumes
    return record_values.data.cast("B")


def check_record_values(values: np.ndarray, record_name: str, value_noun: str) -> None:
    """Raises InputError, naming the file and the first value that is NaN, infinite, or no measurement."""
    if not (values.min() >= -MAX_ABS_RECORD_VALUE and values.max() <= MAX_ABS_RECORD_VALUE):
        bad_index = int(np.argmin(np.abs(values) <= MAX_ABS_RECORD_VALUE))
        raise InputError(
            f"{record_name} holds {values[bad_index]} as {value_noun} {bad_index}; expected finite numbers up to "
            f"{MAX_ABS_RECORD_VALUE:g}. Convert the participant again."
        )


def unpack_header(header_bytes: bytes, record_name: str) -> tuple[float, np.ndarray]:
    """Label and phenotype (29,) of a record's first bytes. Raises InputError, naming the file, for a value that is not
    finite."""
    label, *_ = header_values = np.frombuffer(header_bytes, RECORD_DTYPE, HEADER_VALUE_COUNT)
    check_record_values(header_values[1:], record_name, "phenotype value")
    return float(label), header_values[1:]


def unpack_volume(record_content: bytes, grid: Grid, num_maps: int, record_name: str) -> np.ndarray:
    """The volume (x, y, z, maps) float32 of a record, a read-only view. Raises InputError, naming the file, for another
    size, and for a value that is not finite."""
    if len(record_content) != (expected_byte_count := count_record_bytes(grid, num_maps)):
        raise InputError(
            f"{record_name} holds {len(record_content):,} bytes; expected {expected_byte_count:,}, a "
            f"{describe_record_form(grid, num_maps)}."
        )
    volume_values = np.frombuffer(record_content, RECORD_DTYPE, offset=HEADER_BYTES)
    check_record_values(volume_values, record_name, "volume value")
    return np.moveaxis(volume_values.reshape(num_maps, *grid.shape), 0, -1)


def check_digest(content: bytes | memoryview, expected_digest: str, record_name: str, content_noun: str) -> None:
    """Raises InputError, naming the file, unless the content is what was written."""
    if compute_digest(content) != expected_digest:
        raise InputError(
            f"{record_name} is not what was written: its {content_noun} differs from the digest. Was it damaged or "
            "replaced? Copy it again, or convert again."
        )


def volume_to_bytes_map_by_map(volume: np.ndarray) -> bytes:
    """A volume (x, y, z, maps) float32 as the bytes of a record: one map after another."""
    return np.moveaxis(volume, -1, 0).tobytes()
