"""A preprocessed 4-D scan on disk and the tables beside it -> its repetition time and the series of the voxels in its
mask; which volumes are kept, what is regressed out, how much the head moved."""

import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes

from data.base import files
from data.base.errors import InputError, quote_text
from data.base.listing import join_names
from data.cohorts.derivation import STRATEGY_BY_CONFOUNDS
from data.derivation.cleaning import UnsuitedOptionsError
from data.derivation.remarks import Remark
from data.derivation.scans import ScanFile
from data.images.nifti import (
    convert_nifti_errors,
    count_volumes,
    has_contradicting_sides,
    make_sidecar_path,
    open_nifti,
    verify_compressed_end,
)

MAX_SCAN_VOLUMES = 100_000
VOLUME_BLOCK_BYTES = 2**26  # read at once, as float64
SECONDS_BY_TIME_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}  # NIfTI's units of time
MAX_TR_S = 30.0  # of a repetition time; more is milliseconds
DEFAULT_HEADER_TR = 1.0  # in the unit of a header: what programs write that do not know it
UNSURE_TR_REMARK = Remark(
    "repetition time of exactly 1 s, by the header alone, as programs write that do not know it. Look it up, and write "
    "it as RepetitionTime into a JSON beside each scan",
    is_warning=True,
)
SIDES_DIFFER_REMARK = Remark(
    "qform and sform of the scan disagree on which side is left; the sform is taken. Check which is right, and write "
    "it as both",
    is_warning=True,
)
MAX_VOXEL_EDGE_MM = 6.0  # of an edge of a voxel: the grid of a reduced cohort, which networks read; scans have 2 to 5
TR_TOLERANCE = 0.01  # share by which header and JSON may differ, as rounded numbers do
MAX_VARYING_FRACTION = 0.6  # of all voxels; a brain fills less, so a scan that varies in more of them has no mask
MIN_BRAIN_GRID_FRACTION = 0.05  # a brain fills more; of a slab nilearn finds less
OLD_CONFOUND_COLUMNS = ("FramewiseDisplacement", "RotX", "aCompCor00")  # names that fMRIPrep gave up with 1.2
DISPLACEMENT_COLUMN = "framewise_displacement"  # mm; in XCP-D's table of outliers 1 where a volume moved too far


@dataclass(frozen=True, eq=False)
class Bold:
    """An opened scan; no voxel is read yet."""

    scan_path: Path
    image: nibabel.Nifti1Pair
    tr_s: float  # repetition time, by the JSON or else the header
    header_remarks: list[Remark]  # on what the header and the JSON say

    @property
    def volume_count(self) -> int:
        return count_volumes(self.image) or 1

    @property
    def grid_shape_and_affine(self) -> tuple[tuple[int, ...], np.ndarray]:
        """Shape (x, y, z) and affine (4, 4)."""
        return self.image.shape[:3], self.image.affine

    def read_volume_blocks(self) -> Iterator[np.ndarray]:
        """The scan in blocks of volumes (x, y, z, few) float32, the file read once, to its end. Raises InputError."""
        volumes_per_block = max(1, VOLUME_BLOCK_BYTES // (8 * int(np.prod(self.image.shape[:3]))))
        with convert_nifti_errors(self.scan_path), np.errstate(all="ignore"):
            for first_volume in range(0, self.volume_count, volumes_per_block):
                volume_block = np.asarray(
                    self.image.dataobj[..., first_volume : first_volume + volumes_per_block], np.float32
                )
                yield volume_block.reshape(*self.image.shape[:3], -1)
        if self.scan_path.name.lower().endswith(".gz"):
            verify_compressed_end(self.image, self.scan_path)


def open_bold(scan_path: Path) -> Bold:
    """Raises InputError, naming the file, unless it is 4-D and its repetition time is known."""
    scan_image = open_nifti(scan_path, MAX_SCAN_VOLUMES)
    if count_volumes(scan_image) is None:
        raise InputError(
            f"{scan_path} is 3-D, {scan_image.shape}; expected a scan of many volumes. Name the preprocessed BOLD."
        )
    tr_s, header_remarks = read_repetition_time(scan_image, scan_path)
    longest_voxel_edge_mm = round(float(voxel_sizes(scan_image.affine).max()), 2)
    if longest_voxel_edge_mm > MAX_VOXEL_EDGE_MM:
        voxel_size_remark_text = (
            f"voxels of {{}} mm; expected at most {MAX_VOXEL_EDGE_MM:g} mm, since larger ones mix regions. Take finer "
            "scans"
        )
        header_remarks = [*header_remarks, Remark(voxel_size_remark_text, longest_voxel_edge_mm, is_warning=True)]
    if has_contradicting_sides(scan_image):
        header_remarks = [*header_remarks, SIDES_DIFFER_REMARK]
    return Bold(scan_path, scan_image, tr_s, header_remarks)


def read_repetition_time(scan_image: nibabel.Nifti1Pair, scan_path: Path) -> tuple[float, list[Remark]]:
    """In seconds, of the JSON beside a scan, or else of its header, and a remark if these differ. Raises InputError if
    neither says it."""
    json_path = make_sidecar_path(scan_path, ".json")
    header_tr_s = read_header_tr_s(scan_image)
    json_tr_s = files.read_json(json_path, dict).get("RepetitionTime") if json_path.is_file() else None
    if json_tr_s is None:
        if header_tr_s is None:
            raise InputError(
                f"{scan_path} does not say its repetition time: pixdim[4] of its header is "
                f"{scan_image.header['pixdim'][4]:g} ({scan_image.header.get_xyzt_units()[1]}), and RepetitionTime in "
                f"{json_path.name} is missing. Write it there, in seconds."
            )
        return header_tr_s, [UNSURE_TR_REMARK] * bool(scan_image.header["pixdim"][4] == DEFAULT_HEADER_TR)
    if not isinstance(json_tr_s, int | float) or not 0 < json_tr_s <= MAX_TR_S:
        raise InputError(
            f"{json_path}: RepetitionTime is {json_tr_s!r}; expected seconds, from 0 to {MAX_TR_S:g}. Correct it."
        )
    has_tr_conflict = header_tr_s is not None and abs(header_tr_s - json_tr_s) > TR_TOLERANCE * json_tr_s
    conflict_remark = Remark("header and JSON differ in the repetition time; that of the JSON is taken")
    return float(json_tr_s), [conflict_remark] * has_tr_conflict


def read_header_tr_s(scan_image: nibabel.Nifti1Pair) -> float | None:
    """The repetition time in a header, s; None if it holds none: 0, the default without a unit, or more than a scan
    could have."""
    raw_tr = float(scan_image.header["pixdim"][4])
    time_unit = scan_image.header.get_xyzt_units()[1]
    tr_s = raw_tr * SECONDS_BY_TIME_UNIT.get(time_unit, 0)
    is_tr_unset = time_unit == "unknown" and raw_tr == DEFAULT_HEADER_TR
    return round(tr_s, 6) if 0 < tr_s <= MAX_TR_S and not is_tr_unset else None


def read_scan_mask(mask_path: Path, bold: Bold) -> np.ndarray:
    """A mask (x, y, z) bool. Raises InputError, naming the file, if it is empty or of another grid."""
    mask_image = open_nifti(mask_path)
    scan_grid_shape, scan_affine = bold.grid_shape_and_affine
    if (
        mask_image.shape[:3] != scan_grid_shape
        or count_volumes(mask_image)
        or not np.allclose(mask_image.affine, scan_affine, atol=1e-3)
    ):
        raise InputError(
            f"{mask_path} has another grid than {bold.scan_path.name}: the shape {mask_image.shape}, not "
            f"{scan_grid_shape}, or another affine; expected the mask of this scan."
        )
    with convert_nifti_errors(mask_path):
        mask = np.asarray(mask_image.dataobj).reshape(scan_grid_shape) > 0
    if not mask.any():
        raise InputError(f"{mask_path} is empty; expected a brain's mask. Preprocess the scan again.")
    return mask


def compute_brain_mask(bold: Bold) -> tuple[np.ndarray, list[Remark]]:
    """The voxels (x, y, z) bool that vary. If that is nearly all of the grid, the scan was not masked: then those that
    nilearn's `compute_epi_mask` finds by its mean. If it finds no brain, all that vary are taken, and a remark says
    so."""
    grid_shape, affine = bold.grid_shape_and_affine
    # (x, y, z), over volumes
    voxel_sums = np.zeros(grid_shape)
    voxel_minima = np.full(grid_shape, np.inf)
    voxel_maxima = np.full(grid_shape, -np.inf)
    for volume_block in bold.read_volume_blocks():
        voxel_sums += volume_block.sum(-1, dtype=np.float64)
        voxel_minima = np.minimum(voxel_minima, volume_block.min(-1))
        voxel_maxima = np.maximum(voxel_maxima, volume_block.max(-1))
    is_finite_voxel = np.isfinite(voxel_minima) & np.isfinite(voxel_maxima)
    is_varying_voxel = is_finite_voxel & (voxel_maxima > voxel_minima)
    check_scan_varies(bold, is_finite_voxel, is_varying_voxel)
    if is_varying_voxel.mean() <= MAX_VARYING_FRACTION:
        return is_varying_voxel, []
    from nilearn.masking import compute_epi_mask

    mean_image = nibabel.Nifti1Image(np.nan_to_num(voxel_sums / bold.volume_count), affine)
    with warnings.catch_warnings(action="ignore"):  # of an empty mask, which the remark below reports
        brain_mask = compute_epi_mask(mean_image).get_fdata() > 0
    if brain_mask.mean() >= MIN_BRAIN_GRID_FRACTION:
        return brain_mask, []
    return is_varying_voxel, [Remark("compute_epi_mask finds no brain, so all voxels that vary are taken")]


def check_scan_varies(bold: Bold, is_finite_voxel: np.ndarray, is_varying_voxel: np.ndarray) -> None:
    """Raises InputError, with the cause, if nothing of a scan varies; `is_finite_voxel` are the voxels without NaN."""
    if not is_varying_voxel.any():
        missing_voxels_text = (
            f"NaN or infinity in {(~is_finite_voxel).sum():,} of {is_finite_voxel.size:,} voxels, and else "
            if not is_finite_voxel.all()
            else ""
        )
        raise InputError(
            f"{bold.scan_path} holds {missing_voxels_text}nothing that varies within its mask; expected a scan. "
            "Preprocess it again."
        )


def read_voxel_series(bold: Bold, brain_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Remark]]:
    """The series (volumes, voxels) float32 of the voxels of a mask that hold numbers and vary, in C order. With them,
    the mask of these voxels, and a remark on the others. Raises InputError if none is left."""
    voxel_series = np.empty((bold.volume_count, int(brain_mask.sum())), np.float32)
    next_volume_index = 0
    for volume_block in bold.read_volume_blocks():
        voxel_series[next_volume_index : next_volume_index + volume_block.shape[-1]] = volume_block[brain_mask].T
        next_volume_index += volume_block.shape[-1]
    voxel_minima = voxel_series.min(0)
    voxel_maxima = voxel_series.max(0)  # NaN where any is
    is_finite_voxel = np.isfinite(voxel_minima) & np.isfinite(voxel_maxima)
    is_usable_voxel = is_finite_voxel & (voxel_maxima > voxel_minima)
    check_scan_varies(bold, is_finite_voxel, is_usable_voxel)
    missing_remark = Remark("voxels without a number in some volume are left out of the mask")
    remarks = [missing_remark] * bool((~is_finite_voxel).any())
    if is_usable_voxel.all():
        return voxel_series, brain_mask, remarks
    usable_mask = brain_mask.copy()
    usable_mask[brain_mask] = is_usable_voxel
    return voxel_series[:, is_usable_voxel], usable_mask, remarks


@dataclass(frozen=True, eq=False)
class Confounds:
    """What is known of each volume of a scan."""

    is_retained: np.ndarray  # (volumes,) bool
    regressors: np.ndarray | None  # (volumes, regressors) float64
    motion_mm: float | None  # mean framewise displacement; None if unknown


def load_confounds(scan_file: ScanFile, confounds_key: str, volume_count: int) -> Confounds:
    """Raises InputError, naming the table, if it does not fit the scan or is not read, or if there is none. Raises
    UnsuitedError if another strategy may serve: a column is lacking, or no volume is kept."""
    empty_confounds = Confounds(np.ones(volume_count, bool), None, None)
    if scan_file.naming_rule.is_cleaned:
        confounds = empty_confounds
        if scan_file.motion_table_path:
            motion_mm = compute_mean_motion_mm(read_number_table(scan_file.motion_table_path))
            confounds = replace(confounds, motion_mm=motion_mm)
        if scan_file.outliers_table_path:
            confounds = mark_censored_volumes(confounds, scan_file.outliers_table_path, volume_count)
        return confounds

    if not scan_file.confounds_table_path:
        if confounds_key == "none":
            return empty_confounds
        raise InputError(
            f"no table of confounds for --confounds {confounds_key}; expected *_desc-confounds_timeseries.tsv beside "
            "each scan. Copy it there, or take --confounds none for all, in another folder (without --like)."
        )
    confounds_table = read_number_table(scan_file.confounds_table_path)
    if len(confounds_table) != volume_count:
        raise InputError(
            f"{scan_file.confounds_table_path} has {len(confounds_table)} rows, {scan_file.path.name} {volume_count} "
            "volumes; expected a row a volume. Was one of them cut after it was written?"
        )
    old_column_names = [column for column in OLD_CONFOUND_COLUMNS if column in confounds_table]
    if confounds_key != "none" and old_column_names:
        raise InputError(
            f"{scan_file.confounds_table_path} is of fMRIPrep 1.0 or 1.1, by its column {old_column_names[0]}; "
            "expected one of 1.2 or newer, which nilearn reads. Preprocess the scan again with a newer fMRIPrep, or "
            "move it away."
        )

    regressors = None
    if confounds_key == "none":
        unsteady_columns = [column for column in confounds_table if column.startswith("non_steady_state")]
        is_unsteady_volume = confounds_table[unsteady_columns].sum(axis=1) > 0
        is_retained = ~is_unsteady_volume.to_numpy(bool)
    else:
        is_retained, regressors = load_strategy_confounds(scan_file.confounds_table_path, confounds_key, volume_count)
    if not is_retained.any():
        raise UnsuitedOptionsError(
            f"{scan_file.confounds_table_path}: no volume is kept by --confounds {confounds_key}, since the head "
            "moved; expected some."
        )
    return Confounds(is_retained, regressors, compute_mean_motion_mm(confounds_table))


def load_strategy_confounds(
    confounds_path: Path, confounds_key: str, volume_count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Volumes that are kept (volumes,) bool and regressors (volumes, n) by one of nilearn's strategies, from a table
    of fMRIPrep's. Raises UnsuitedError if it lacks columns, or the JSON that some need."""
    from nilearn.interfaces.fmriprep import load_confounds_strategy

    nilearn_strategy_name, nilearn_motion_name = STRATEGY_BY_CONFOUNDS[confounds_key]
    json_path = confounds_path.with_suffix(".json")
    if nilearn_strategy_name == "compcor" and not json_path.is_file():
        raise UnsuitedOptionsError(
            f"{json_path} is missing; expected it beside the table, since it names the components for --confounds "
            f"{confounds_key}. fMRIPrep writes it from 1.4 on: copy it there if you have it."
        )
    if json_path.is_file():
        files.read_json(json_path, dict)
    try:  # under a name of its own, by itself, since nilearn would find the table of another run, too
        with warnings.catch_warnings(action="ignore"), TemporaryDirectory() as temporary_folder:
            for source_path in filter(Path.is_file, (confounds_path, json_path)):
                shutil.copy(source_path, f"{temporary_folder}/sub-1_desc-confounds_timeseries{source_path.suffix}")
            regressor_table, retained_volume_indices = load_confounds_strategy(
                f"{temporary_folder}/sub-1_desc-preproc_bold.nii.gz", nilearn_strategy_name, motion=nilearn_motion_name
            )
    except (ValueError, KeyError, IndexError) as error:
        # nilearn names columns, or all of a kind, in quotes
        missing_column_names = sorted(set(re.findall(r"'(\w+)'", str(error))))
        missing_columns_text = f"it lacks {join_names(missing_column_names, 3)}; " if missing_column_names else ""
        raise UnsuitedOptionsError(
            f"{confounds_path} does not serve --confounds {confounds_key}: {missing_columns_text}expected fMRIPrep's "
            "columns."
        ) from error
    is_retained = np.ones(volume_count, bool)
    if retained_volume_indices is not None:
        is_retained = np.isin(np.arange(volume_count), retained_volume_indices)
    return is_retained, regressor_table.to_numpy(np.float64)


def compute_mean_motion_mm(displacement_table: pd.DataFrame) -> float | None:
    """The mean framewise displacement, mm; None if there is none."""
    if DISPLACEMENT_COLUMN not in displacement_table:
        return None
    mean_displacement_mm = pd.to_numeric(displacement_table[DISPLACEMENT_COLUMN], errors="coerce").mean()
    return None if np.isnan(mean_displacement_mm) else round(float(mean_displacement_mm), 6)


def mark_censored_volumes(confounds: Confounds, outliers_path: Path, volume_count: int) -> Confounds:
    """Confounds without the volumes that XCP-D marked, which it leaves in the scan or takes out of it."""
    outliers_table = read_number_table(outliers_path)
    outlier_marks = outliers_table.iloc[:, 0]  # 0 for volumes to keep
    if DISPLACEMENT_COLUMN in outliers_table:
        outlier_marks = outliers_table[DISPLACEMENT_COLUMN]
    is_retained = (pd.to_numeric(outlier_marks, errors="coerce") == 0).to_numpy()
    if volume_count not in (len(is_retained), is_retained.sum()) or not is_retained.any():
        raise InputError(
            f"{outliers_path} has {len(is_retained)} rows, {is_retained.sum()} of them kept; expected one of these "
            f"numbers to be the {volume_count} volumes of the scan."
        )
    return replace(confounds, is_retained=is_retained)


def read_number_table(table_path: Path) -> pd.DataFrame:
    """A table of numbers by volume, `n/a` as NaN. Raises InputError, naming the file."""
    try:
        table = pd.read_csv(table_path, sep="\t", encoding="utf-8")
    except (ValueError, OSError) as error:
        raise InputError(
            f"{table_path} is not a readable table ({' '.join(str(error).split())}). Copy it again."
        ) from error
    for column_name, column_values in table.select_dtypes(exclude=["number", "bool"]).items():
        bad_cell = column_values[pd.to_numeric(column_values, errors="coerce").isna() & column_values.notna()].iloc[0]
        raise InputError(
            f"{table_path} holds {quote_text(str(bad_cell))} in the column {column_name}; expected numbers, or n/a. "
            "Correct it."
        )
    return table
