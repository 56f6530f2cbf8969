"""The leak guard: phenotype columns that measure the diagnosis, or that separate the labels too well, are refused."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from data.base.errors import InputError
from data.cohorts.phenotype import clean

MAX_AUC = 0.85
ALPHA = 0.001  # over all measures of maps (Bonferroni)
ENOUGH_MAPS = 18  # training subjects of 20; fewer are parted by chance
ENOUGH = 10  # subjects in each class before an AUC says anything
OFTEN = 0.1  # share of subjects; ABIDE's WISC_IV_PSI, known for 6 %, has an AUC of 0.86 among these few
INSTRUMENTS = ("ADOS", "ADI", "ADIR", "SRS", "SCQ", "AQ", "VINELAND", "VABS", "DSM")  # they measure autism
CONSEQUENCES = (
    "MED",
    "MEDS",
    "MEDICATION",
    "MEDICATIONS",
    "COMORBIDITY",
    "COMORBIDITIES",
    "COMORBID",
    "STIMULANTS",
    "PSYDX",
    "DX",
    "DIAGNOSIS",
)


def measures_diagnosis(name: str) -> str | None:
    """The instrument, or consequence of the diagnosis, that a column's name speaks of; None if of none."""
    words = re.split(r"[^A-Z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).upper())  # ADOS2_total, adosTotal
    return next((word for word in (*INSTRUMENTS, *CONSEQUENCES) if word in words), None)


def check_names(columns: Sequence[str], label_column: str | None, flag: str = "--phenotype") -> None:
    """Raises InputError if a column that is offered as phenotype is the label or measures the diagnosis; `flag` is
    the one that offers it."""
    for name in columns:
        if name == label_column:
            raise InputError(f"{flag} {name} is the label itself; leave it out.")
        if word := measures_diagnosis(name):
            raise InputError(
                f"{flag} {name} measures or follows from the diagnosis ({word}); leave it out, or go ahead with "
                "--allowLeak if the result is not to be trusted."
            )


def separation(value: np.ndarray, label: np.ndarray) -> float:
    """AUC, in the better direction, at which a value (n,) tells label (n,) 1 from 0; 0.5 where it cannot be said."""
    if np.bincount(label.astype(int), minlength=2).min() < ENOUGH:
        return 0.5
    auc = roc_auc_score(label, value)
    return float(max(auc, 1 - auc))


def separations(values: pd.DataFrame, label: np.ndarray) -> dict[str, float]:
    """For each column the largest AUC of its values, with the median where unknown; of its being unknown; and of its
    known values, if they are known often enough for that to matter. The largest first."""
    result = {}
    for name, column in values.items():
        value = column.to_numpy(float)
        known = np.isfinite(value)
        views = [(known.astype(float), label)]
        if known.any():
            views.append((np.where(known, value, np.median(value[known])), label))
        if known.mean() >= OFTEN:
            views.append((value[known], label[known]))
        result[name] = max(separation(*view) for view in views)
    return dict(sorted(result.items(), key=lambda item: -item[1]))


def check_values(values: pd.DataFrame, label: np.ndarray, allow: bool) -> dict[str, float]:
    """AUC of each column on training subjects. Raises InputError if one is above 0.85, unless allowed."""
    found = separations(values, label)
    leaks = [f"{name} (AUC {auc:.2f})" for name, auc in found.items() if auc > MAX_AUC]
    if leaks and not allow:
        raise InputError(
            f"The phenotype separates the training labels: {', '.join(leaks)}; at most {MAX_AUC} is believable. "
            "Leave these columns out, or go ahead with --allowLeak if the result is not to be trusted."
        )
    return found


def telling(measured: pd.DataFrame, label: np.ndarray) -> dict[str, float]:
    """The measures of maps whose AUC for label (n,) is above 0.85 either way, and no chance (Mann-Whitney)."""
    found = {}
    for name, column in measured.items():
        autism, control = (column[label == value].dropna() for value in (1.0, 0.0))
        if (
            min(autism.size, control.size) == 0
            or autism.size + control.size < ENOUGH_MAPS
            or np.ptp(column.dropna()) == 0
        ):
            continue
        test = mannwhitneyu(autism, control)
        auc = max(test.statistic, autism.size * control.size - test.statistic) / (autism.size * control.size)
        if auc > MAX_AUC and test.pvalue < ALPHA / measured.shape[1]:
            found[str(name)] = auc
    return found


def check_measures(measured: pd.DataFrame, label: np.ndarray, allow: bool) -> list[str]:
    """The measures of maps as wholes that separate the training labels. Raises InputError for any, unless allowed."""
    found = [f"{name} (AUC {auc:.2f})" for name, auc in telling(measured, label).items()]
    if found and not allow:
        raise InputError(
            f"The maps tell the training labels by {', '.join(found)}, before any region is looked at; at most "
            f"{MAX_AUC} is believable. Were both groups scanned and processed alike? Make the maps again, or "
            "go ahead with --allowLeak if the result is not to be trusted."
        )
    return found


def check_coding(table: pd.DataFrame, label: np.ndarray, label_column: str | None) -> None:
    """Raises InputError if autism's instruments were given mostly to the subjects whose label says control.

    `table` is the phenotype table as text, `label` (rows,) 1.0 autism, 0.0 control.
    """
    for name in table.columns:
        if measures_diagnosis(name) not in ("ADOS", "ADI", "ADIR"):
            continue
        given = clean(table[name]).notna().to_numpy(float)
        if separation(given, label) <= MAX_AUC:
            continue
        if given[label == 0].mean() > given[label == 1].mean():
            raise InputError(
                f"The labels look flipped: {name} is known for {given[label == 0].mean():.0%} of the controls and for "
                f"{given[label == 1].mean():.0%} of the others. Is --positive the value of {label_column} for autism?"
            )
