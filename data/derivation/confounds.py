"""The tables beside a scan -> which volumes are kept, what is regressed out, and how much the head moved."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.derivation.scans import ScanFile

MOTION = "framewise_displacement"  # mm; in XCP-D's table of outliers 1 where a volume moved too far


@dataclass(frozen=True, eq=False)
class Confounds:
    """What is known of each volume of a scan."""

    kept: np.ndarray  # (volumes,) bool
    regressors: np.ndarray | None  # (volumes, regressors) float64
    motion_mm: float | None  # mean framewise displacement; None if unknown


def strategy_of(scan: ScanFile, wanted: str) -> str:
    """What is regressed out of a scan: what is wanted. If nothing is, nilearn's `simple`, and nothing of scans that
    were cleaned or have no table. Raises InputError if there is no table for what is wanted."""
    if not wanted:
        return "none" if scan.layout.cleaned or not scan.confounds else "simple"
    if wanted != "none" and not scan.confounds:
        raise InputError(
            f"{scan.path} has no table of confounds for --confounds {wanted}; expected *_desc-confounds_timeseries.tsv "
            "beside it. Take --confounds none for all, or choose with --only."
        )
    return wanted


def confounds_of(scan: ScanFile, strategy: str, volumes: int) -> Confounds:
    """Raises InputError, naming the table, if it does not fit the scan or lacks a column."""
    everything = Confounds(np.ones(volumes, bool), None, None)
    if scan.layout.cleaned:
        moved = replace(everything, motion_mm=mean_motion(read_tsv(scan.motion)) if scan.motion else None)
        return censored(moved, scan.outliers, volumes) if scan.outliers else moved
    if not scan.confounds:
        return everything
    table = read_tsv(scan.confounds)
    if len(table) != volumes:
        raise InputError(
            f"{scan.confounds} has {len(table)} rows, {scan.path.name} {volumes} volumes; expected a row a volume. Was "
            "one of them cut after it was written?"
        )
    unsteady = table[[name for name in table if name.startswith("non_steady_state")]].sum(axis=1) > 0
    kept, regressors = ~unsteady.to_numpy(bool), None
    if strategy != "none":
        kept, regressors = chosen(scan.confounds, strategy, volumes)
    if not kept.any():
        raise InputError(
            f"{scan.confounds}: no volume is kept by --confounds {strategy}, since the head moved; leave this scan out."
        )
    return Confounds(kept, regressors, mean_motion(table))


def chosen(path: Path, strategy: str, volumes: int) -> tuple[np.ndarray, np.ndarray]:
    """Volumes that are kept (volumes,) bool and regressors (volumes, n) by one of nilearn's strategies, from a table
    of fMRIPrep's."""
    from nilearn.interfaces.fmriprep import load_confounds_strategy

    scan = path.name.replace("_timeseries.tsv", "").replace("_regressors.tsv", "").replace("confounds", "preproc")
    try:  # the scan's name only serves to find the table
        with warnings.catch_warnings(action="ignore"):
            table, sample = load_confounds_strategy(str(path.with_name(f"{scan}_bold.nii.gz")), strategy)
    except (ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"{path} does not serve --confounds {strategy}: {' '.join(str(error).split())} Expected "
            "fMRIPrep's columns; take another strategy, or none."
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
            f"{path} has {len(kept)} rows, {kept.sum()} of them kept; expected one or the other to be the "
            f"{volumes} volumes of the scan."
        )
    return replace(before, kept=kept)


def read_tsv(path: Path) -> pd.DataFrame:
    """A table of BIDS, `n/a` as NaN. Raises InputError, naming the file."""
    try:
        return pd.read_csv(files.regular(path), sep="\t", encoding="utf-8")
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a readable table ({' '.join(str(error).split())}). Copy it again.") from error
