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
from data.images import brain, grids, resampling

MAX_VOXEL_VALUE = 1e7  # far above any ALFF, and labels are exact
NIFTI_SUFFIXES = (".nii", ".nii.gz", ".img", ".hdr")  # the last two: pairs of NIfTI, or of ANALYZE, which has no affine
MAX_OUTSIDE_SHARE = 0.1  # of a brain; the bottom of the brain stem is cut off by some templates
SAMPLING_STEP = 2  # every second voxel along each axis suffices to locate a brain
NIFTI_READ_ERRORS = (  # what nibabel raises for damaged files
    *(ImageFileError, HeaderDataError, OrientationError, zlib.error),
    *(OSError, EOFError, ValueError, KeyError, OverflowError, MemoryError),
)
SIDES_DIFFER_KEY = "sides_differ"  # in `extra` of an image: see `has_contradicting_sides`
MNI152_CODE = 4  # NIfTI's code for coordinates in MNI space
logger.disabled = True  # nibabel prints what it repairs in a header; what it cannot repair it raises


@dataclass(frozen=True, slots=True)
class MapOnDisk:
    """Where a map lies: a NIfTI file, and which volume of it, from 0, if it is 4-D; None if it is 3-D."""

    path: Path  # of the NIfTI file
    volume_number: int | None = None  # from 0, in a 4-D file; None if it is 3-D

    @property
    def file_and_volume_text(self) -> str:
        """The name of the file, and the number of the volume."""
        return self.path.name + (f", volume {self.volume_number}" if self.volume_number is not None else "")

    def __str__(self) -> str:
        return str(self.path.with_name(self.file_and_volume_text))


def count_volumes(image: nibabel.Nifti1Pair) -> int | None:
    """How many volumes an image (x, y, z, volumes) has; None if it is 3-D but for axes of length 1."""
    volume_count = math.prod(image.shape[3:])
    return volume_count if volume_count > 1 else None


def check_nifti_header(image: nibabel.Nifti1Pair, path: Path, max_volumes: int) -> None:
    """Raises InputError unless an image holds numbers and has an affine. It must be 3-D, or 4-D with at most
    `max_volumes`."""
    image_shape = image.shape
    volume_count = math.prod(image.shape[3:])
    if (
        len(image_shape) < 3
        or min(image_shape[:3]) < 2
        or max(image_shape[3:], default=1) != volume_count
        or volume_count < 1
    ):
        raise InputError(f"{path} has the shape {image_shape}; expected one 3-D map, or several in a 4-D file.")
    if volume_count > max_volumes:
        raise InputError(
            f"{path} holds {volume_count} volumes, as a scan does; expected one map, or at most {max_volumes}. Make "
            "maps of it first: abide-data derive does, or C-PAC, DPABI and XCP-D."
        )
    if (dtype := image.get_data_dtype()).kind not in "iuf":
        raise InputError(f"{path} holds values of {dtype}; expected a map of numbers.")
    has_real_affine = (image.header["qform_code"] or image.header["sform_code"]) and not np.allclose(
        image.affine, np.eye(4)
    )
    if not has_real_affine or not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine)) < 1e-6:
        raise InputError(f"{path} has no affine that places its voxels; expected a map in MNI space. Write its affine.")


def open_nifti(path: Path, max_volumes: int = grids.MAX_MAPS) -> nibabel.Nifti1Pair:
    """An image whose header is in order; no voxel is read. Raises InputError, naming the file."""
    files.check_regular_file(path)
    with convert_nifti_errors(path):
        image = nibabel.load(path, keep_file_open=True)  # so that volumes are read one after another
        if not isinstance(image, nibabel.Nifti1Pair):
            raise InputError(f"{path} is {type(image).__name__}, not NIfTI; expected .nii. Convert it to NIfTI.")
        files.check_regular_file(Path(str(image.file_map["image"].filename)))  # not the header's, of a pair
        check_nifti_header(image, path, max_volumes)
    return image


@contextmanager
def convert_nifti_errors(path: Path) -> Iterator[None]:
    """Raises InputError for what nibabel raises."""
    try:
        yield
    except NIFTI_READ_ERRORS as error:
        raise InputError(
            f"{path} is not a readable NIfTI map: {' '.join(str(error).split())}. Copy it again."
        ) from error


def read_map_images(maps: Iterable[MapOnDisk]) -> Iterator[nibabel.Nifti1Image]:
    """Each map (x, y, z) float32, in Fortran order, in the nearest RAS+ orientation; NaN becomes 0. Its `extra` holds
    `SIDES_DIFFER_KEY`. If maps in a row are of one file, it is read once, a volume at a time. Raises InputError, naming
    the file."""
    for nifti_path, file_group in groupby(maps, key=lambda map_on_disk: map_on_disk.path):
        file_image = open_nifti(nifti_path)
        file_maps = list(file_group)
        for map_on_disk in file_maps:
            map_image = read_map_image(file_image, map_on_disk)
            if map_on_disk is file_maps[-1] and nifti_path.name.lower().endswith(".gz"):
                verify_compressed_end(file_image, nifti_path)
            yield map_image


def strip_nifti_suffix(image_path: Path) -> str:
    """The name of an image without its ending."""
    return next(
        (image_path.name[: -len(suffix)] for suffix in NIFTI_SUFFIXES if image_path.name.lower().endswith(suffix)),
        image_path.name,
    )


def make_sidecar_path(image_path: Path, suffix: str) -> Path:
    """The file beside an image that has its name with another ending, such as `.json`."""
    return image_path.with_name(strip_nifti_suffix(image_path) + suffix)


def verify_compressed_end(image: nibabel.Nifti1Pair, path: Path) -> None:
    """Reads on to the end of a compressed file, where the checksum of its values is: nibabel stops before. Raises
    InputError, naming the file, if they are not what was compressed."""
    array_proxy: Any = image.dataobj
    with convert_nifti_errors(path), array_proxy._get_fileobj() as compressed_file:
        while compressed_file.read(2**20):
            pass


@np.errstate(all="ignore")  # what overflows becomes infinite, which is an error below
def read_map_image(image: nibabel.Nifti1Pair, map_on_disk: MapOnDisk) -> nibabel.Nifti1Image:
    """One map of an opened file, see `read_map_images`."""
    if map_on_disk.volume_number is None and count_volumes(image):
        raise InputError(f"{map_on_disk} has the shape {image.shape}; expected one 3-D map.")
    with convert_nifti_errors(map_on_disk.path):
        stored_values = image.dataobj
        if map_on_disk.volume_number is not None:
            stored_values = stored_values[(..., *np.unravel_index(map_on_disk.volume_number, image.shape[3:]))]
        voxel_values = np.asarray(stored_values, np.float32).reshape(image.shape[:3])
        canonical_image = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxel_values, image.affine))
    voxel_values = np.asarray(canonical_image.dataobj)
    if np.isnan(voxel_values.max()):
        voxel_values = np.where(np.isnan(voxel_values), np.float32(0), voxel_values)
    voxel_values = np.asfortranarray(voxel_values)  # as files have it, which is fastest to read through
    if max(voxel_values.max(), -voxel_values.min()) > MAX_VOXEL_VALUE:
        raise InputError(
            f"{map_on_disk} holds infinite values, or some above {MAX_VOXEL_VALUE:g}; expected a map or labels. "
            "Compute it again."
        )
    return nibabel.Nifti1Image(
        voxel_values, canonical_image.affine, extra={SIDES_DIFFER_KEY: has_contradicting_sides(image)}
    )


def has_contradicting_sides(image: nibabel.Nifti1Pair) -> bool:
    """Whether a header holds two affines, a qform and an sform, of which one calls left what the other calls right.
    nibabel takes the sform, some programs take the qform."""
    try:
        affines_with_codes = image.get_qform(coded=True), image.get_sform(coded=True)
        if not all(code for _, code in affines_with_codes):
            return False
        (qform_axes, sform_axes) = (nibabel.aff2axcodes(affine) for affine, _ in affines_with_codes)
    except NIFTI_READ_ERRORS:  # a qform that is no rotation
        return False
    return any({*axis_ends} == {"L", "R"} for axis_ends in zip(qform_axes, sform_axes, strict=True))


def compute_share_outside_grid(brain_mask: np.ndarray, brain_affine: np.ndarray) -> float:
    """The share of a brain's voxels outside the full grid, by a sample of them; `brain_mask` is (x, y, z) bool under
    `brain_affine`."""
    voxel_to_grid_affine = np.linalg.inv(np.array(grids.FULL.affine)) @ brain_affine

    def is_within_grid(voxel_indices: np.ndarray) -> np.ndarray:
        grid_positions = apply_affine(voxel_to_grid_affine, voxel_indices)
        return ((grid_positions > -0.5) & (grid_positions < np.array(grids.FULL.shape) - 0.5)).all(1)

    if is_within_grid(np.array(list(product(*((0, axis_length - 1) for axis_length in brain_mask.shape))))).all():
        return 0.0
    sampled_voxel_indices = (
        SAMPLING_STEP * np.argwhere(brain_mask.T[::SAMPLING_STEP, ::SAMPLING_STEP, ::SAMPLING_STEP])[:, ::-1]
    )
    return float(1 - is_within_grid(sampled_voxel_indices).mean()) if len(sampled_voxel_indices) else 0.0


def read_brain_maps(maps: Sequence[MapOnDisk]) -> Iterator[nibabel.Nifti1Image]:
    """`read_map_images`, each of which must hold a brain that lies mostly on the MNI grid. Raises InputError."""
    for map_on_disk, image in zip(maps, read_map_images(maps), strict=True):
        voxel_values = np.asarray(image.dataobj)
        brain_mask = voxel_values != brain.find_background_value(voxel_values)
        if not brain_mask.any() or np.ptp(voxel_values.T[brain_mask.T]) == 0:
            raise InputError(
                f"{map_on_disk} is empty or constant (NaN is 0); expected the map of a brain. Compute it again."
            )
        if (outside_share := compute_share_outside_grid(brain_mask, image.affine)) > MAX_OUTSIDE_SHARE:
            raise InputError(
                f"{map_on_disk}: {outside_share:.0%} of its brain lies outside the MNI grid; check its affine."
            )
        yield image


def make_z_scored_volume(image: nibabel.Nifti1Image, grid: grids.Grid) -> np.ndarray:
    """What a record holds of a map: (x, y, z) float32 on a grid, z-scored over the full one."""
    aligned_resampler = resampling.make_aligned_resampler(image.shape, image.affine.tobytes())
    if aligned_resampler and grid == grids.REDUCED:
        return aligned_resampler.compute_z_scored_blocks(np.asarray(image.dataobj))
    full_volume = brain.z_score_volume(resample_to_full_grid(image, "linear"))
    return full_volume if grid == grids.FULL else resampling.average_blocks(full_volume)


def resample_to_full_grid(image: nibabel.Nifti1Image, interpolation: str) -> np.ndarray:
    """An image sampled by its affine on the full grid, (91, 109, 91) float32, 0 outside; "linear", or "nearest"."""
    if interpolation == "linear" and (
        aligned_resampler := resampling.make_aligned_resampler(image.shape, image.affine.tobytes())
    ):
        return aligned_resampler.resample_full(np.asarray(image.dataobj))
    from nilearn.image import resample_img

    resample_options = {"interpolation": interpolation, "copy_header": True, "force_resample": True}
    resampled_image = resample_img(image, np.array(grids.FULL.affine), grids.FULL.shape, **resample_options)
    return resampled_image.get_fdata(dtype=np.float32)


def make_mni_image(voxel_values: np.ndarray, grid: grids.Grid) -> nibabel.Nifti1Image:
    """A volume or label image (x, y, z) on a grid as NIfTI, RAS+, with the grid's affine in MNI space, mm."""
    image = nibabel.Nifti1Image(voxel_values, np.array(grid.affine))
    image.set_sform(grid.affine, MNI152_CODE)
    image.set_qform(grid.affine, MNI152_CODE)
    image.header.set_xyzt_units("mm")
    return image


def save_nifti(image: nibabel.Nifti1Image, path: Path) -> None:
    """Writes an image whole or not at all."""
    with files.make_unfinished_path(path) as unfinished_path:
        nibabel.save(image, unfinished_path)
