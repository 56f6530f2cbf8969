"""A preprocessed 4-D scan on disk -> its repetition time, its mask, and the series of the voxels in it."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from data.base import files
from data.base.errors import InputError
from data.cohorts.nifti import beside, num_volumes, open_image, read_to_end, readable

MAX_VOLUMES = 100_000
FEW_BYTES = 2**26  # read at once, as float64
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}  # NIfTI's units of time
MAX_TR_S = 30.0  # of a repetition time; more is milliseconds
SAME_TR = 0.01  # share by which header and JSON may differ, as rounded numbers do
MOST_OF_GRID = 0.6  # of all voxels; a brain fills less, so a scan that varies in more of them has no mask
LEAST_OF_GRID = 0.05  # a brain fills more; of a slab nilearn finds less


@dataclass(frozen=True, eq=False)
class Bold:
    """An opened scan; no voxel is read yet."""

    path: Path
    image: nibabel.Nifti1Pair
    tr_s: float
    notes: list[str]

    @property
    def volumes(self) -> int:
        return num_volumes(self.image) or 1

    @property
    def grid(self) -> tuple[tuple[int, ...], np.ndarray]:
        """Shape (x, y, z) and affine (4, 4)."""
        return self.image.shape[:3], self.image.affine

    def blocks(self) -> Iterator[np.ndarray]:
        """The scan in blocks of volumes (x, y, z, few) float32, the file read once, to its end. Raises InputError."""
        few = max(1, FEW_BYTES // (8 * int(np.prod(self.image.shape[:3]))))
        with readable(self.path), np.errstate(all="ignore"):
            for start in range(0, self.volumes, few):
                values = np.asarray(self.image.dataobj[..., start : start + few], np.float32)
                yield values.reshape(*self.image.shape[:3], -1)
        if self.path.name.lower().endswith(".gz"):
            read_to_end(self.image, self.path)


def open_bold(path: Path) -> Bold:
    """Raises InputError, naming the file, unless it is 4-D and its repetition time is known."""
    image = open_image(path, MAX_VOLUMES)
    if num_volumes(image) is None:
        raise InputError(f"{path} is 3-D, {image.shape}; expected a scan of many volumes. Name the preprocessed BOLD.")
    tr_s, notes = repetition_time(image, path)
    return Bold(path, image, tr_s, notes)


def repetition_time(image: nibabel.Nifti1Pair, path: Path) -> tuple[float, list[str]]:
    """In seconds, of the JSON beside a scan, or else of its header, and a note if these differ. Raises InputError if
    neither says it."""
    described, header = beside(path, ".json"), header_tr(image)
    said = files.read_json(described, dict).get("RepetitionTime") if described.is_file() else None
    if said is None:
        if header is None:
            raise InputError(
                f"{path} does not say its repetition time: pixdim[4] of its header is {image.header['pixdim'][4]:g} "
                f"({image.header.get_xyzt_units()[1]}), and RepetitionTime in {described.name} is missing. Write it "
                "there, in seconds."
            )
        return header, []
    if not isinstance(said, int | float) or not 0 < said <= MAX_TR_S:
        raise InputError(
            f"{described}: RepetitionTime is {said!r}; expected seconds, from 0 to {MAX_TR_S:g}. Correct it."
        )
    differs = header is not None and abs(header - said) > SAME_TR * said
    return float(said), ["header and JSON differ in the repetition time; that of the JSON is taken"] * differs


def header_tr(image: nibabel.Nifti1Pair) -> float | None:
    """The repetition time in a header, s; None if it holds none: 0, 1 without a unit, which programs write that do not
    know it, or more than a scan could have."""
    value, unit = float(image.header["pixdim"][4]), image.header.get_xyzt_units()[1]
    seconds = value * SECONDS.get(unit, 0)
    unset = unit == "unknown" and value == 1
    return round(seconds, 6) if 0 < seconds <= MAX_TR_S and not unset else None


def read_mask(path: Path, bold: Bold) -> np.ndarray:
    """A mask (x, y, z) bool. Raises InputError, naming the file, if it is empty or of another grid."""
    image, (shape, affine) = open_image(path), bold.grid
    if image.shape[:3] != shape or num_volumes(image) or not np.allclose(image.affine, affine, atol=1e-3):
        raise InputError(
            f"{path} has another grid than {bold.path.name}: the shape {image.shape}, not {shape}, or another affine; "
            "expected the mask of this scan."
        )
    with readable(path):
        mask = np.asarray(image.dataobj).reshape(shape) > 0
    if not mask.any():
        raise InputError(f"{path} is empty; expected a brain's mask. Preprocess the scan again.")
    return mask


def found_mask(bold: Bold) -> tuple[np.ndarray, list[str]]:
    """The voxels (x, y, z) bool that vary; where that is nearly all of the grid, so that the scan was not masked, those
    of nilearn's `compute_epi_mask` of its mean, unless it finds no brain, which a note says."""
    shape = bold.grid[0]
    sums, low, high = np.zeros(shape), np.full(shape, np.inf), np.full(shape, -np.inf)
    for block in bold.blocks():
        sums += block.sum(-1, dtype=np.float64)
        low, high = np.minimum(low, block.min(-1)), np.maximum(high, block.max(-1))
    with np.errstate(invalid="ignore"):
        varies = np.nan_to_num(high - low) > 0
    if varies.mean() <= MOST_OF_GRID:
        return varies, []
    from nilearn.masking import compute_epi_mask

    mean = nibabel.Nifti1Image(np.nan_to_num(sums / bold.volumes), bold.image.affine)
    with warnings.catch_warnings(action="ignore"):  # of an empty one, which a note tells
        found = compute_epi_mask(mean).get_fdata() > 0
    if found.mean() >= LEAST_OF_GRID:
        return found, []
    return varies, ["compute_epi_mask finds no brain, so all voxels that vary are taken"]


def read_series(bold: Bold, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The series (volumes, voxels) float32 of the voxels of a mask that hold numbers and vary, in C order, the mask of
    these voxels, and a note on the others. Raises InputError if none is left."""
    series, at = np.empty((bold.volumes, int(mask.sum())), np.float32), 0
    for block in bold.blocks():
        series[at : at + block.shape[-1]] = block[mask].T
        at += block.shape[-1]
    low, high = series.min(0), series.max(0)  # NaN where any is
    finite = np.isfinite(low) & np.isfinite(high)
    used = finite & (high > low)
    if not used.any():
        raise InputError(
            f"{bold.path} holds nothing that varies within its mask; expected a scan. Preprocess it again."
        )
    notes = ["voxels without a number in some volume are left out of the mask"] * bool((~finite).any())
    if used.all():
        return series, mask, notes
    smaller = mask.copy()
    smaller[mask] = used
    return series[:, used], smaller, notes
