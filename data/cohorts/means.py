"""Means of volumes over parcels, such as the regions of an atlas, of all records of a cohort; computed once and kept.

The first, fixed layers of a network give them, floors are fitted on them, and the fills of a blackout are predicted
from them. A row depends on its own record alone; of volumes that are z-scored within sites, on their site too.

Kept in `<chkPointDir>/means/`: `<parcels>-<key>.npy`, and a `.json` that says what it is and its SHA-256. The key is of
the volumes' digests, of how they are standardised and of the parcels: if any of these changes, another table is made.
A damaged one is made anew. The folder may be removed at any time.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data.base import files
from data.base.errors import InputError
from data.base.processes import ahead
from data.base.terminal import progress
from data.cohorts import records
from data.cohorts.atlas import Atlas
from data.cohorts.cohort import Cohort, in_order

FOLDER = "means"
FORM = 1  # of the tables; a change of what they hold is another number
CHUNK = 16  # records read at once
STATE = 4  # numbers that tell a file's state, see `records.state_of`


@dataclass(frozen=True, eq=False)
class Parcels:
    """Parts of a grid. `position` (x, y, z) int is the number of each voxel's parcel; of those in none, the count of
    parcels. `shape` is that of one map's means, (parcels,) or that of a coarse volume."""

    name: str
    position: np.ndarray
    shape: tuple[int, ...]

    @cached_property
    def sizes(self) -> np.ndarray:
        """Voxels of each parcel (parcels,)."""
        return np.bincount(self.position.ravel(), minlength=self.count + 1)[:-1]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.position.astype("<i4").tobytes()).hexdigest()

    @cached_property
    def _members(self) -> Any:
        """(parcels, voxels) float32, 1 where a voxel is of a parcel."""
        from scipy import sparse

        flat = self.position.ravel()
        by_parcel = np.argsort(flat, kind="stable")[: np.count_nonzero(flat < self.count)]
        entries = np.ones(len(by_parcel), np.float32), by_parcel, np.cumsum([0, *self.sizes])
        return sparse.csr_array(entries, (self.count, flat.size))

    def of(self, volumes: np.ndarray) -> np.ndarray:
        """Volumes (n, x, y, z, maps) float32 -> the mean of each map in each parcel, (n, *shape, maps) float32; summed
        in the order of the voxels, as TensorFlow does on a CPU, so that the results are the same to the last bit."""
        sums_of = np.stack([self._members @ volume.reshape(self.position.size, -1) for volume in volumes])
        return (sums_of / self.sizes[:, None].astype(np.float32)).reshape(len(volumes), *self.shape, -1)


@lru_cache(4)
def cubes(grid: records.Grid, size: int) -> Parcels:
    """Cubes of `size` voxels, fewer at the border, as a pooling with padding "same" lays them."""
    counts = [math.ceil(length / size) for length in grid.shape]
    before = [(count * size - length) // 2 for count, length in zip(counts, grid.shape, strict=True)]
    at = [(np.arange(length) + pad) // size for length, pad in zip(grid.shape, before, strict=True)]
    return Parcels(f"cubes{size}", np.ravel_multi_index(np.meshgrid(*at, indexing="ij"), counts), tuple(counts))


def regions(atlas: Atlas) -> Parcels:
    """The regions of an atlas, in its order."""
    return Parcels("regions", atlas.places(atlas.labels), (len(atlas.regions),))


def means_of(cohort: Cohort, parcels: Sequence[Parcels]) -> list[np.ndarray]:
    """The means of all records of a cohort, standardised as its batches are, over each kind of parcels: (records,
    *shape, maps) float32, read-only; kept where `cohort.kept_in` says. Raises InputError for a record that cannot be
    read."""
    paths = [table_path(cohort, one) for one in parcels]
    found = [kept(path) for path in paths]
    tables = [table for table in found if table is not None]
    if len(tables) < len(parcels):
        tables = made(cohort, parcels, paths)
    for entry, state in zip(cohort.entries, tables[0]["state"].tolist(), strict=True):
        seen = records.verifier_of(entry).seen
        seen[0] = seen[0] or tuple(state)
    return [table["means"].reshape(len(table), *one.shape, -1) for table, one in zip(tables, parcels, strict=True)]


def table_path(cohort: Cohort, parcels: Parcels) -> Path:
    """Where a table is kept, by what decides its content; of a cohort that keeps none, only its name."""
    sites = [row.site for row in cohort.rows] if cohort.moments else None
    moments = [cohort.unswapped(), sites] if sites else None
    of_all = [FORM, cohort.grid.name, cohort.num_maps, cohort.standard, moments, parcels.digest]
    key = hashlib.sha256(json.dumps([of_all, [of.volume for of in cohort.seal.digests]]).encode()).hexdigest()
    return (cohort.kept_in or Path()) / f"{parcels.name}-{key[:16]}.npy"


MADE: dict[Path, np.ndarray] = {}  # tables that could not be kept, in this process


def kept(path: Path) -> np.ndarray | None:
    """A table that was kept; None if there is none, or it is not as it was written."""
    if path in MADE:
        return MADE[path]
    about = path.with_suffix(".json")
    if not (path.is_file() and about.is_file()):
        return None
    try:
        if sum_of_state(path, records.state_of(path)) == files.read_json(about, dict).get("sha256"):
            return np.load(path, mmap_mode="r")
    except (InputError, ValueError):
        pass
    return None


@lru_cache(64)
def sum_of_state(path: Path, state: tuple[int, ...]) -> str:
    """SHA-256 of a file in a state, so that one that did not change is read once."""
    return files.sum_of(path)


def made(cohort: Cohort, parcels: Sequence[Parcels], paths: Sequence[Path]) -> list[np.ndarray]:
    """The tables, computed from the volumes, which are read once, and kept if that is possible; another process may
    have made them meanwhile."""
    if cohort.kept_in is None:
        return in_memory(cohort, parcels)
    try:
        with files.locked(cohort.kept_in, wait=True):
            left = [at for at, path in enumerate(paths) if kept(path) is None]
            write(cohort, [parcels[at] for at in left], [paths[at] for at in left])
    except OSError as error:
        print(f"{cohort.kept_in} cannot keep means of volumes ({error.strerror}): computed for this run.", flush=True)
        MADE.update(zip(paths, in_memory(cohort, parcels), strict=True))
    return [table for path in paths if (table := kept(path)) is not None]


def in_memory(cohort: Cohort, parcels: Sequence[Parcels]) -> list[np.ndarray]:
    return [np.concatenate(chunks) for chunks in zip(*computed(cohort, parcels), strict=True)]


def computed(cohort: Cohort, parcels: Sequence[Parcels]) -> Iterator[list[np.ndarray]]:
    """For each chunk of records, the rows of each table: `means` (parcels, maps), and the `state` of the record's file
    when it was verified."""
    chunks = in_order(np.arange(len(cohort.rows)), CHUNK)
    forms = [np.dtype([("state", "<i8", STATE), ("means", "<f4", (one.count, cohort.num_maps))]) for one in parcels]
    with progress("Averaging volumes", len(cohort.rows)) as shown:
        for chunk, batch in zip(chunks, ahead(cohort.batch, chunks), strict=True):
            tables = [np.empty(len(chunk), form) for form in forms]
            for table, one in zip(tables, parcels, strict=True):
                table["means"] = one.of(batch["volume"]).reshape(len(chunk), one.count, -1)
                table["state"] = [records.verifier_of(cohort.entries[at]).seen[0] or (0,) * STATE for at in chunk]
            shown.advance(steps=len(chunk))
            yield tables


def write(cohort: Cohort, parcels: Sequence[Parcels], paths: Sequence[Path]) -> None:
    """Computes tables and writes them, each with what it is."""
    if not parcels:
        return
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path in filter(Path.exists, paths):
        print(f"{path} is not as it was written, and is made anew.", flush=True)
    with ExitStack() as stack:
        written = [stack.enter_context(files.replacing(path, "wb")) for path in paths]
        for at, tables in enumerate(computed(cohort, parcels)):
            for file, table in zip(written, tables, strict=True):
                if not at:
                    described = np.lib.format.dtype_to_descr(table.dtype)
                    header = {"descr": described, "fortran_order": False, "shape": (len(cohort.rows),)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(table.tobytes())
    for path, one in zip(paths, parcels, strict=True):
        about = {"cohort": str(cohort.path), "standardise": cohort.standard, "parcels": one.name}
        files.write_json(path.with_suffix(".json"), about | {"sha256": files.sum_of(path)})
