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
from data.cohorts.derivation import STRATEGY_BY_CONFOUNDS
from data.cohorts.nifti import (
    convert_nifti_errors,
    count_volumes,
    has_contradicting_sides,
    make_sidecar_path,
    open_nifti,
    verify_compressed_end,
)
from data.cohorts.rows import join_names
from data.derivation.cleaning import UnsuitedError
from data.derivation.remarks import Remark
from data.derivation.scans import ScanFile

MAX_VOLUMES = 100_000
FEW_BYTES = 2**26  # read at once, as float64
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}  # NIfTI's units of time
MAX_TR_S = 30.0  # of a repetition time; more is milliseconds
DEFAULT_TR = 1.0  # in the unit of a header: what programs write that do not know it
UNSURE_TR = Remark(
    "repetition time of exactly 1 s, by the header alone, as programs write that do not know it. Look it up, and write "
    "it as RepetitionTime into a JSON beside each scan",
    warning=True,
)
TWO_SIDES = Remark(
    "qform and sform of the scan disagree on which side is left; the sform is taken. Check which is right, and write "
    "it as both",
    warning=True,
)
COARSE_MM = 6.0  # of an edge of a voxel: the grid of a reduced cohort, which networks read; scans have 2 to 5
SAME_TR = 0.01  # share by which header and JSON may differ, as rounded numbers do
MOST_OF_GRID = 0.6  # of all voxels; a brain fills less, so a scan that varies in more of them has no mask
LEAST_OF_GRID = 0.05  # a brain fills more; of a slab nilearn finds less
OLD_COLUMNS = ("FramewiseDisplacement", "RotX", "aCompCor00")  # names that fMRIPrep gave up with 1.2
MOTION = "framewise_displacement"  # mm; in XCP-D's table of outliers 1 where a volume moved too far


@dataclass(frozen=True, eq=False)
class Bold:
    """An opened scan; no voxel is read yet."""

    path: Path
    image: nibabel.Nifti1Pair
    tr_s: float
    remarks: list[Remark]

    @property
    def volumes(self) -> int:
        return count_volumes(self.image) or 1

    @property
    def grid(self) -> tuple[tuple[int, ...], np.ndarray]:
        """Shape (x, y, z) and affine (4, 4)."""
        return self.image.shape[:3], self.image.affine

    def blocks(self) -> Iterator[np.ndarray]:
        """The scan in blocks of volumes (x, y, z, few) float32, the file read once, to its end. Raises InputError."""
        few = max(1, FEW_BYTES // (8 * int(np.prod(self.image.shape[:3]))))
        with convert_nifti_errors(self.path), np.errstate(all="ignore"):
            for start in range(0, self.volumes, few):
                values = np.asarray(self.image.dataobj[..., start : start + few], np.float32)
                yield values.reshape(*self.image.shape[:3], -1)
        if self.path.name.lower().endswith(".gz"):
            verify_compressed_end(self.image, self.path)


def open_bold(path: Path) -> Bold:
    """Raises InputError, naming the file, unless it is 4-D and its repetition time is known."""
    image = open_nifti(path, MAX_VOLUMES)
    if count_volumes(image) is None:
        raise InputError(f"{path} is 3-D, {image.shape}; expected a scan of many volumes. Name the preprocessed BOLD.")
    tr_s, remarks = repetition_time(image, path)
    edge_mm = round(float(voxel_sizes(image.affine).max()), 2)
    if edge_mm > COARSE_MM:
        text = f"voxels of {{}} mm; expected at most {COARSE_MM:g} mm, since larger ones mix regions. Take finer scans"
        remarks = [*remarks, Remark(text, edge_mm, warning=True)]
    if has_contradicting_sides(image):
        remarks = [*remarks, TWO_SIDES]
    return Bold(path, image, tr_s, remarks)


def repetition_time(image: nibabel.Nifti1Pair, path: Path) -> tuple[float, list[Remark]]:
    """In seconds, of the JSON beside a scan, or else of its header, and a remark if these differ. Raises InputError if
    neither says it."""
    described, header = make_sidecar_path(path, ".json"), header_tr(image)
    said = files.read_json(described, dict).get("RepetitionTime") if described.is_file() else None
    if said is None:
        if header is None:
            raise InputError(
                f"{path} does not say its repetition time: pixdim[4] of its header is {image.header['pixdim'][4]:g} "
                f"({image.header.get_xyzt_units()[1]}), and RepetitionTime in {described.name} is missing. Write it "
                "there, in seconds."
            )
        return header, [UNSURE_TR] * bool(image.header["pixdim"][4] == DEFAULT_TR)
    if not isinstance(said, int | float) or not 0 < said <= MAX_TR_S:
        raise InputError(
            f"{described}: RepetitionTime is {said!r}; expected seconds, from 0 to {MAX_TR_S:g}. Correct it."
        )
    differs = header is not None and abs(header - said) > SAME_TR * said
    differ = Remark("header and JSON differ in the repetition time; that of the JSON is taken")
    return float(said), [differ] * differs


def header_tr(image: nibabel.Nifti1Pair) -> float | None:
    """The repetition time in a header, s; None if it holds none: 0, the default without a unit, or more than a scan
    could have."""
    value, unit = float(image.header["pixdim"][4]), image.header.get_xyzt_units()[1]
    seconds = value * SECONDS.get(unit, 0)
    unset = unit == "unknown" and value == DEFAULT_TR
    return round(seconds, 6) if 0 < seconds <= MAX_TR_S and not unset else None


def read_mask(path: Path, bold: Bold) -> np.ndarray:
    """A mask (x, y, z) bool. Raises InputError, naming the file, if it is empty or of another grid."""
    image, (shape, affine) = open_nifti(path), bold.grid
    if image.shape[:3] != shape or count_volumes(image) or not np.allclose(image.affine, affine, atol=1e-3):
        raise InputError(
            f"{path} has another grid than {bold.path.name}: the shape {image.shape}, not {shape}, or another affine; "
            "expected the mask of this scan."
        )
    with convert_nifti_errors(path):
        mask = np.asarray(image.dataobj).reshape(shape) > 0
    if not mask.any():
        raise InputError(f"{path} is empty; expected a brain's mask. Preprocess the scan again.")
    return mask


def found_mask(bold: Bold) -> tuple[np.ndarray, list[Remark]]:
    """The voxels (x, y, z) bool that vary. If that is nearly all of the grid, the scan was not masked: then those that
    nilearn's `compute_epi_mask` finds by its mean. If it finds no brain, all that vary are taken, and a remark says
    so."""
    shape = bold.grid[0]
    sums, low, high = np.zeros(shape), np.full(shape, np.inf), np.full(shape, -np.inf)
    for block in bold.blocks():
        sums += block.sum(-1, dtype=np.float64)
        low, high = np.minimum(low, block.min(-1)), np.maximum(high, block.max(-1))
    finite = np.isfinite(low) & np.isfinite(high)
    varies = finite & (high > low)
    check_varies(bold, finite, varies)
    if varies.mean() <= MOST_OF_GRID:
        return varies, []
    from nilearn.masking import compute_epi_mask

    mean = nibabel.Nifti1Image(np.nan_to_num(sums / bold.volumes), bold.image.affine)
    with warnings.catch_warnings(action="ignore"):  # of an empty one, which the remark below tells
        found = compute_epi_mask(mean).get_fdata() > 0
    if found.mean() >= LEAST_OF_GRID:
        return found, []
    return varies, [Remark("compute_epi_mask finds no brain, so all voxels that vary are taken")]


def check_varies(bold: Bold, finite: np.ndarray, varies: np.ndarray) -> None:
    """Raises InputError, with the cause, if nothing of a scan varies; `finite` are the voxels without NaN."""
    if not varies.any():
        lost = (
            f"NaN or infinity in {(~finite).sum():,} of {finite.size:,} voxels, and else " if not finite.all() else ""
        )
        raise InputError(
            f"{bold.path} holds {lost}nothing that varies within its mask; expected a scan. Preprocess it again."
        )


def read_series(bold: Bold, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Remark]]:
    """The series (volumes, voxels) float32 of the voxels of a mask that hold numbers and vary, in C order. With them,
    the mask of these voxels, and a remark on the others. Raises InputError if none is left."""
    series, at = np.empty((bold.volumes, int(mask.sum())), np.float32), 0
    for block in bold.blocks():
        series[at : at + block.shape[-1]] = block[mask].T
        at += block.shape[-1]
    low, high = series.min(0), series.max(0)  # NaN where any is
    finite = np.isfinite(low) & np.isfinite(high)
    used = finite & (high > low)
    check_varies(bold, finite, used)
    lacking = Remark("voxels without a number in some volume are left out of the mask")
    remarks = [lacking] * bool((~finite).any())
    if used.all():
        return series, mask, remarks
    smaller = mask.copy()
    smaller[mask] = used
    return series[:, used], smaller, remarks


@dataclass(frozen=True, eq=False)
class Confounds:
    """What is known of each volume of a scan."""

    kept: np.ndarray  # (volumes,) bool
    regressors: np.ndarray | None  # (volumes, regressors) float64
    motion_mm: float | None  # mean framewise displacement; None if unknown


def confounds_of(scan: ScanFile, strategy: str, volumes: int) -> Confounds:
    """Raises InputError, naming the table, if it does not fit the scan or is not read, or if there is none. Raises
    UnsuitedError if another strategy may serve: a column is lacking, or no volume is kept."""
    everything = Confounds(np.ones(volumes, bool), None, None)
    if scan.naming_rule.is_cleaned:
        moved = replace(everything, motion_mm=mean_motion(read_tsv(scan.motion)) if scan.motion else None)
        return censored(moved, scan.outliers, volumes) if scan.outliers else moved
    if not scan.confounds:
        if strategy == "none":
            return everything
        raise InputError(
            f"no table of confounds for --confounds {strategy}; expected *_desc-confounds_timeseries.tsv beside each "
            "scan. Copy it there, or take --confounds none for all, in another folder (without --like)."
        )
    table = read_tsv(scan.confounds)
    if len(table) != volumes:
        raise InputError(
            f"{scan.confounds} has {len(table)} rows, {scan.path.name} {volumes} volumes; expected a row a volume. Was "
            "one of them cut after it was written?"
        )
    if strategy != "none" and (old := [name for name in OLD_COLUMNS if name in table]):
        raise InputError(
            f"{scan.confounds} is of fMRIPrep 1.0 or 1.1, by its column {old[0]}; expected one of 1.2 or newer, which "
            "nilearn reads. Preprocess the scan again with a newer fMRIPrep, or move it away."
        )
    unsteady = table[[name for name in table if name.startswith("non_steady_state")]].sum(axis=1) > 0
    kept, regressors = ~unsteady.to_numpy(bool), None
    if strategy != "none":
        kept, regressors = chosen(scan.confounds, strategy, volumes)
    if not kept.any():
        raise UnsuitedError(
            f"{scan.confounds}: no volume is kept by --confounds {strategy}, since the head moved; expected some."
        )
    return Confounds(kept, regressors, mean_motion(table))


def chosen(path: Path, strategy: str, volumes: int) -> tuple[np.ndarray, np.ndarray]:
    """Volumes that are kept (volumes,) bool and regressors (volumes, n) by one of nilearn's strategies, from a table
    of fMRIPrep's. Raises UnsuitedError if it lacks columns, or the JSON that some need."""
    from nilearn.interfaces.fmriprep import load_confounds_strategy

    name, motion = STRATEGY_BY_CONFOUNDS[strategy]
    described = path.with_suffix(".json")
    if name == "compcor" and not described.is_file():
        raise UnsuitedError(
            f"{described} is missing; expected it beside the table, since it names the components for --confounds "
            f"{strategy}. fMRIPrep writes it from 1.4 on: copy it there if you have it."
        )
    if described.is_file():
        files.read_json(described, dict)
    try:  # under a name of its own, by itself, since nilearn would find the table of another run, too
        with warnings.catch_warnings(action="ignore"), TemporaryDirectory() as alone:
            for file in filter(Path.is_file, (path, described)):
                shutil.copy(file, f"{alone}/sub-1_desc-confounds_timeseries{file.suffix}")
            table, sample = load_confounds_strategy(f"{alone}/sub-1_desc-preproc_bold.nii.gz", name, motion=motion)
    except (ValueError, KeyError, IndexError) as error:
        lacking = sorted(set(re.findall(r"'(\w+)'", str(error))))  # nilearn names columns, or all of a kind, in quotes
        columns = f"it lacks {join_names(lacking, 3)}; " if lacking else ""
        raise UnsuitedError(
            f"{path} does not serve --confounds {strategy}: {columns}expected fMRIPrep's columns."
        ) from error
    kept = np.ones(volumes, bool)
    if sample is not None:
        kept = np.isin(np.arange(volumes), sample)
    return kept, table.to_numpy(np.float64)


def mean_motion(table: pd.DataFrame) -> float | None:
    """The mean framewise displacement, mm; None if there is none."""
    value = pd.to_numeric(table[MOTION], errors="coerce").mean() if MOTION in table else np.nan
    return None if np.isnan(value) else round(float(value), 6)


def censored(before: Confounds, path: Path, volumes: int) -> Confounds:
    """Without the volumes that XCP-D marked, which it leaves in the scan or takes out of it."""
    table = read_tsv(path)
    marks = pd.to_numeric(table[MOTION] if MOTION in table else table.iloc[:, 0], errors="coerce")
    kept = (marks == 0).to_numpy()
    if volumes not in (len(kept), kept.sum()) or not kept.any():
        raise InputError(
            f"{path} has {len(kept)} rows, {kept.sum()} of them kept; expected one of these numbers to be the "
            f"{volumes} volumes of the scan."
        )
    return replace(before, kept=kept)


def read_tsv(path: Path) -> pd.DataFrame:
    """A table of numbers by volume, `n/a` as NaN. Raises InputError, naming the file."""
    try:
        table = pd.read_csv(path, sep="\t", encoding="utf-8")
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a readable table ({' '.join(str(error).split())}). Copy it again.") from error
    for name, column in table.select_dtypes(exclude=["number", "bool"]).items():
        text = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()].iloc[0]
        raise InputError(
            f"{path} holds {quote_text(str(text))} in the column {name}; expected numbers, or n/a. Correct it."
        )
    return table
