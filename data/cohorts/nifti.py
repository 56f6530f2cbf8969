"""NIfTI maps in and out: any map in MNI space -> a full-size volume; a volume -> an image with its affine."""

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import apply_affine
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError

from data.base import files
from data.base.errors import InputError
from data.cohorts import records, resampling

MAX_VALUE = 1e7  # far above any ALFF, and labels are exact
SUFFIXES = (".nii", ".nii.gz", ".img", ".hdr")  # the last two: pairs of NIfTI, or of ANALYZE, which has no affine
MAX_OUTSIDE = 0.1  # of a brain; the bottom of the brain stem is cut off by some templates
SAMPLED = 2  # every second voxel along each axis suffices to locate a brain
UNREADABLE = (  # what nibabel raises for damaged files
    *(ImageFileError, HeaderDataError, OrientationError, zlib.error),
    *(OSError, EOFError, ValueError, KeyError, OverflowError, MemoryError),
)
SIDES_DIFFER = "sides_differ"  # in `extra` of an image: see `sides_differ`
MNI152 = 4  # NIfTI's code for coordinates in MNI space
logger.disabled = True  # nibabel prints what it repairs in a header; what it cannot repair it raises


@dataclass(frozen=True, slots=True)
class MapOnDisk:
    """Where a map lies: a NIfTI file, and which volume of it, from 0, if it is 4-D; None if it is 3-D."""

    path: Path
    number: int | None = None

    @property
    def name(self) -> str:
        """The name of the file, and the number of the volume."""
        return self.path.name + (f", volume {self.number}" if self.number is not None else "")

    def __str__(self) -> str:
        return str(self.path.with_name(self.name))


def num_volumes(image: nibabel.Nifti1Pair) -> int | None:
    """How many volumes an image (x, y, z, volumes) has; None if it is 3-D but for axes of length 1."""
    count = math.prod(image.shape[3:])
    return count if count > 1 else None


def check_header(image: nibabel.Nifti1Pair, path: Path, max_volumes: int) -> None:
    """Raises InputError unless an image holds numbers and has an affine. It must be 3-D, or 4-D with at most so many
    volumes."""
    shape, volumes = image.shape, math.prod(image.shape[3:])
    if len(shape) < 3 or min(shape[:3]) < 2 or max(shape[3:], default=1) != volumes or volumes < 1:
        raise InputError(f"{path} has the shape {shape}; expected one 3-D map, or several in a 4-D file.")
    if volumes > max_volumes:
        raise InputError(
            f"{path} holds {volumes} volumes, as a scan does; expected one map, or at most {max_volumes}. Make maps of "
            "it first: abide-data derive does, or C-PAC, DPABI and XCP-D."
        )
    if (dtype := image.get_data_dtype()).kind not in "iuf":
        raise InputError(f"{path} holds values of {dtype}; expected a map of numbers.")
    is_placed = (image.header["qform_code"] or image.header["sform_code"]) and not np.allclose(image.affine, np.eye(4))
    if not is_placed or not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine)) < 1e-6:
        raise InputError(f"{path} has no affine that places its voxels; expected a map in MNI space. Write its affine.")


def open_image(path: Path, max_volumes: int = records.MAX_MAPS) -> nibabel.Nifti1Pair:
    """An image whose header is in order; no voxel is read. Raises InputError, naming the file."""
    files.check_regular_file(path)
    with readable(path):
        image = nibabel.load(path, keep_file_open=True)  # so that volumes are read one after another
        if not isinstance(image, nibabel.Nifti1Pair):
            raise InputError(f"{path} is {type(image).__name__}, not NIfTI; expected .nii. Convert it to NIfTI.")
        files.check_regular_file(Path(str(image.file_map["image"].filename)))  # not the header's, of a pair
        check_header(image, path, max_volumes)
    return image


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises InputError for what nibabel raises."""
    try:
        yield
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a readable NIfTI map: {' '.join(str(error).split())}. Copy it again."
        ) from error


def read_images(maps: Iterable[MapOnDisk]) -> Iterator[nibabel.Nifti1Image]:
    """Each map (x, y, z) float32, in Fortran order, in the nearest RAS+ orientation; NaN becomes 0. Its `extra` holds
    SIDES_DIFFER. If maps in a row are of one file, it is read once, a volume at a time. Raises InputError, naming the
    file."""
    for path, of_file in groupby(maps, key=lambda of_map: of_map.path):
        image, wanted = open_image(path), list(of_file)
        for of_map in wanted:
            volume = read_volume(image, of_map)
            if of_map is wanted[-1] and path.name.lower().endswith(".gz"):
                read_to_end(image, path)
            yield volume


def stem_of(path: Path) -> str:
    """The name of an image without its ending."""
    return next((path.name[: -len(end)] for end in SUFFIXES if path.name.lower().endswith(end)), path.name)


def beside(path: Path, ending: str) -> Path:
    """The file beside an image that has its name with another ending, such as `.json`."""
    return path.with_name(stem_of(path) + ending)


def read_to_end(image: nibabel.Nifti1Pair, path: Path) -> None:
    """Reads on to the end of a compressed file, where the checksum of its values is: nibabel stops before. Raises
    InputError, naming the file, if they are not what was compressed."""
    stored: Any = image.dataobj
    with readable(path), stored._get_fileobj() as file:
        while file.read(2**20):
            pass


@np.errstate(all="ignore")  # what overflows becomes infinite, which is an error below
def read_volume(image: nibabel.Nifti1Pair, of_map: MapOnDisk) -> nibabel.Nifti1Image:
    """One map of an opened file, see `read_images`."""
    if of_map.number is None and num_volumes(image):
        raise InputError(f"{of_map} has the shape {image.shape}; expected one 3-D map.")
    with readable(of_map.path):
        stored = image.dataobj
        if of_map.number is not None:
            stored = stored[(..., *np.unravel_index(of_map.number, image.shape[3:]))]
        values = np.asarray(stored, np.float32).reshape(image.shape[:3])
        canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, image.affine))
    values = np.asarray(canonical.dataobj)
    if np.isnan(values.max()):
        values = np.where(np.isnan(values), np.float32(0), values)
    values = np.asfortranarray(values)  # as files have it, which is fastest to read through
    if max(values.max(), -values.min()) > MAX_VALUE:
        raise InputError(
            f"{of_map} holds infinite values, or some above {MAX_VALUE:g}; expected a map or labels. Compute it again."
        )
    return nibabel.Nifti1Image(values, canonical.affine, extra={SIDES_DIFFER: sides_differ(image)})


def sides_differ(image: nibabel.Nifti1Pair) -> bool:
    """Whether a header holds two affines, a qform and an sform, of which one calls left what the other calls right.
    nibabel takes the sform, some programs take the qform."""
    try:
        forms = image.get_qform(coded=True), image.get_sform(coded=True)
        if not all(code for _, code in forms):
            return False
        (one, other) = (nibabel.aff2axcodes(affine) for affine, _ in forms)
    except UNREADABLE:  # a qform that is no rotation
        return False
    return any({*ends} == {"L", "R"} for ends in zip(one, other, strict=True))


def share_outside(brain: np.ndarray, affine: np.ndarray) -> float:
    """The share of a brain's voxels outside the full grid, by a sample of them; `brain` is (x, y, z) bool under
    `affine`."""
    to_grid = np.linalg.inv(np.array(records.FULL.affine)) @ affine

    def within(voxels: np.ndarray) -> np.ndarray:
        at = apply_affine(to_grid, voxels)
        return ((at > -0.5) & (at < np.array(records.FULL.shape) - 0.5)).all(1)

    if within(np.array(list(product(*((0, size - 1) for size in brain.shape))))).all():
        return 0.0
    voxels = SAMPLED * np.argwhere(brain.T[::SAMPLED, ::SAMPLED, ::SAMPLED])[:, ::-1]
    return float(1 - within(voxels).mean()) if len(voxels) else 0.0


def read_brains(maps: Sequence[MapOnDisk]) -> Iterator[nibabel.Nifti1Image]:
    """`read_images`, each of which must hold a brain that lies mostly on the MNI grid. Raises InputError."""
    for of_map, image in zip(maps, read_images(maps), strict=True):
        values = np.asarray(image.dataobj)
        brain = values != records.background(values)
        if not brain.any() or np.ptp(values.T[brain.T]) == 0:
            raise InputError(
                f"{of_map} is empty or constant (NaN is 0); expected the map of a brain. Compute it again."
            )
        if (outside := share_outside(brain, image.affine)) > MAX_OUTSIDE:
            raise InputError(f"{of_map}: {outside:.0%} of its brain lies outside the MNI grid; check its affine.")
        yield image


def stored_volume(image: nibabel.Nifti1Image, grid: records.Grid) -> np.ndarray:
    """What a record holds of a map: (x, y, z) float32 on a grid, z-scored over the full one."""
    aligned = resampling.axis_aligned(image.shape, image.affine.tobytes())
    if aligned and grid == records.REDUCED:
        return aligned.z_scored_blocks(np.asarray(image.dataobj))
    volume = records.normalise(on_full_grid(image, "linear"))
    return volume if grid == records.FULL else resampling.block_mean(volume)


def on_full_grid(image: nibabel.Nifti1Image, interpolation: str) -> np.ndarray:
    """An image sampled by its affine on the full grid, (91, 109, 91) float32, 0 outside; "linear", or "nearest"."""
    if interpolation == "linear" and (aligned := resampling.axis_aligned(image.shape, image.affine.tobytes())):
        return aligned.full(np.asarray(image.dataobj))
    from nilearn.image import resample_img

    options = {"interpolation": interpolation, "copy_header": True, "force_resample": True}
    resampled = resample_img(image, np.array(records.FULL.affine), records.FULL.shape, **options)
    return resampled.get_fdata(dtype=np.float32)


def mni_image(values: np.ndarray, grid: records.Grid) -> nibabel.Nifti1Image:
    """A volume or label image (x, y, z) on a grid as NIfTI, RAS+, with the grid's affine in MNI space, mm."""
    image = nibabel.Nifti1Image(values, np.array(grid.affine))
    image.set_sform(grid.affine, MNI152)
    image.set_qform(grid.affine, MNI152)
    image.header.set_xyzt_units("mm")
    return image


def save(image: nibabel.Nifti1Image, path: Path) -> None:
    """Writes an image whole or not at all."""
    with files.unfinished(path) as unfinished:
        nibabel.save(image, unfinished)
