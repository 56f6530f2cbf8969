"""NIfTI maps in and out: any map in MNI space -> a full-size volume; a volume -> an image with its affine."""

import math
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError

from data import grids
from data.base import files
from data.base.errors import InputError
from data.cohorts import records

MAX_VOXELS = 2**24  # a head at 1 mm
MAX_INFLATION = 1032  # a byte of a deflated file gives no more
MAX_ITEM_BYTES = 8  # float64
MAX_CONDITION = 1e12  # of an affine; millimetres and a shift of thousands have less than 1e8
MAX_VALUE = 1e7  # far above any ALFF, and labels are exact
SUFFIXES = (".nii", ".nii.gz", ".img", ".hdr")  # the last two: pairs of NIfTI, or of ANALYZE, which has no affine
MAX_OUTSIDE = 0.1  # of a brain; the bottom of the brain stem is cut off by some templates
SAMPLED = 2  # every second voxel along each axis suffices to locate a brain
UNREADABLE: tuple[type[Exception], ...] = (  # what nibabel raises for damaged files
    *(ImageFileError, HeaderDataError, OrientationError, zlib.error),
    *(OSError, EOFError, ValueError, KeyError, OverflowError, MemoryError),
)
MNI152 = 4  # NIfTI's code for coordinates in MNI space
logger.disabled = True  # nibabel prints what it repairs in a header; what it cannot repair it raises


def check_header(image: nibabel.Nifti1Pair, path: Path) -> None:
    """Raises InputError, before memory is allocated, unless an image is one 3-D map of numbers with an affine, and of a
    size that its file can hold."""
    if len(image.shape) < 3 or min(image.shape[:3]) < 2 or max(image.shape[3:], default=1) > 1:
        raise InputError(f"{path} has the shape {image.shape}; expected one 3-D map.")
    dtype, count = image.get_data_dtype(), math.prod(image.shape)
    if count > MAX_VOXELS or dtype.kind not in "iuf" or dtype.itemsize > MAX_ITEM_BYTES:
        raise InputError(f"{path} claims {image.shape} voxels of {dtype}; expected a map of numbers.")
    promised = count * dtype.itemsize
    stored = files.regular(Path(str(image.file_map["image"].filename))).stat().st_size
    if promised > stored * (MAX_INFLATION if path.suffix == ".gz" else 1):
        raise InputError(f"{path} promises {promised:,} bytes of values in {stored:,}; was it cut off? Copy it again.")
    if not (image.header["qform_code"] or image.header["sform_code"]) or np.allclose(image.affine, np.eye(4)):
        raise InputError(f"{path} has no affine, only voxel indices; expected a map in MNI space. Write its affine.")
    finite = np.isfinite(image.affine).all()
    if not finite or abs(np.linalg.det(image.affine)) < 1e-6 or np.linalg.cond(image.affine) > MAX_CONDITION:
        raise InputError(f"{path} has an affine that cannot be inverted; expected a map in MNI space.")


@np.errstate(all="ignore")  # what overflows becomes infinite, which is an error below
def read_map(path: Path) -> nibabel.Nifti1Image:
    """A 3-D NIfTI map (x, y, z) float32 in the nearest RAS+ orientation; NaN becomes 0, further axes of length 1 are
    dropped. Raises InputError, naming the file."""
    if not path.name.lower().endswith(SUFFIXES):  # nibabel would read others with further libraries
        raise InputError(f"{path} is no NIfTI map by its name; expected .nii or .nii.gz. Convert it to NIfTI.")
    try:
        image = nibabel.load(files.regular(path))
        if not isinstance(image, nibabel.Nifti1Pair):
            raise InputError(f"{path} is {type(image).__name__}, not NIfTI; expected .nii. Convert it to NIfTI.")
        check_header(image, path)
        shape = image.shape[:3]
        orientation = nibabel.io_orientation(image.affine)
        affine = image.affine @ nibabel.orientations.inv_ornt_aff(orientation, shape)
        values = nibabel.apply_orientation(np.asarray(image.dataobj, np.float32).reshape(shape), orientation)
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a readable NIfTI map: {' '.join(str(error).split())}. Copy it again."
        ) from error
    values[np.isnan(values)] = 0
    if max(values.max(), -values.min()) > MAX_VALUE:
        raise InputError(
            f"{path} holds infinite values, or some above {MAX_VALUE:g}; expected fALFF or labels. Compute it again."
        )
    return nibabel.Nifti1Image(values, affine)


def share_outside(brain: np.ndarray, affine: np.ndarray, grid: grids.Grid) -> float:
    """The share of a brain's voxels outside the grid, by a sample of them; `brain` is (x, y, z) bool under `affine`."""
    voxels = SAMPLED * np.argwhere(brain[::SAMPLED, ::SAMPLED, ::SAMPLED])
    if not len(voxels):
        return 0.0
    to_grid = np.linalg.inv(np.array(grid.affine)) @ affine
    at = voxels @ to_grid[:3, :3].T + to_grid[:3, 3]
    return float(1 - ((at > -0.5) & (at < np.array(grid.shape) - 0.5)).all(1).mean())


def load_map(path: Path) -> np.ndarray:
    """`read_brain` on the full grid by linear interpolation, (91, 109, 91) float32. Raises InputError."""
    return on_full_grid(read_brain(path), "linear")


def read_brain(path: Path) -> nibabel.Nifti1Image:
    """`read_map`, which must hold a brain that lies mostly on the MNI grid. Raises InputError, naming the file."""
    image = read_map(path)
    values = np.asarray(image.dataobj)
    brain = values != records.background(values)
    if not brain.any() or np.ptp(values[brain]) == 0:
        raise InputError(f"{path} is empty or constant; expected the fALFF of a brain. Compute the map again.")
    if (outside := share_outside(brain, image.affine, grids.FULL)) > MAX_OUTSIDE:
        raise InputError(f"{path}: {outside:.0%} of its brain lies outside the MNI grid; check its affine.")
    return image


def on_full_grid(image: nibabel.Nifti1Image, interpolation: str) -> np.ndarray:
    """An image sampled by its affine on the full grid, (91, 109, 91) float32, 0 outside; "linear", or "nearest"."""
    from nilearn.image import resample_img

    options = {"interpolation": interpolation, "copy_header": True, "force_resample": True}
    resampled = resample_img(image, np.array(grids.FULL.affine), grids.FULL.shape, **options)
    return resampled.get_fdata(dtype=np.float32)


def mni_image(values: np.ndarray, grid: grids.Grid) -> nibabel.Nifti1Image:
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
