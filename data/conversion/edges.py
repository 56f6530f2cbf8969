"""Connectomes -> measures of each as a whole, and whatever in them would invalidate a result.

Networks learn first how scans were processed. It was measured on 737 people of ABIDE I, of whom a tenth to a half were
processed otherwise. Without the global signal, the mean correlation is a hundredth, 8 to 13 standard deviations below
all others'. Band-passed (0.01 to 0.1 Hz), the roughness of series is a third, 7 to 13 below. If all were processed
alike, people lie at most 4 apart in groups of 20, 3 in groups of 60; but people of two sites whose repetition times
differ by half a second or more lie as far apart as some who were filtered, in 7 of 171 pairs of sites.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.terminal import format_participants, open_progress_bar
from data.cohorts.cohort import SERIES_FILE, Cohort
from data.cohorts.findings import Findings
from data.cohorts.phenotype import read_subject_table
from data.cohorts.rows import join_names
from data.conversion import measures
from data.conversion.leaks import check_groups
from data.conversion.opposed import MIN_PARCELS, edges_to_compare, opposed_groups

TURNED_R = 0.9  # median r of two parcels: of 784 people of ABIDE 0.05 to 0.62; of two volumes, which are alike, 0.99
OPPOSED = "the connectome opposes those of others"


def measured(edges: np.ndarray) -> dict[str, float]:
    """Mean and spread of a connectome (edges,) of Fisher z, and the mean correlation of all parcels that have a signal.
    It counts each with itself, too: it is the variance of their mean, never negative. NaN without any edge."""
    known = edges[~np.isnan(edges)].astype(np.float64)
    if not known.size:
        return dict.fromkeys(("mean_z", "sd_z", "mean_r"), np.nan)
    count = (1 + np.sqrt(1 + 8 * known.size)) / 2
    mean_r = (count + 2 * np.tanh(known).sum()) / count**2
    return {"mean_z": known.mean(), "sd_z": known.std(), "mean_r": max(mean_r, measures.SMALLEST)}


def of_series(values: np.ndarray) -> dict[str, float]:
    """Measures of series (volumes, parcels): their length, and the roughness of the median parcel in time. That is the
    mean square of the differences between neighbours, by twice the variance: 1 for white noise, 0 if smooth."""
    values = values[:, np.ptp(values, axis=0) > 0]
    rough = np.square(np.diff(values, axis=0)).mean(0) / (2 * values.var(0))
    return {"volumes": len(values), "roughness": float(f"{np.median(rough):.6g}")}


def read_series_table(path: Path, subjects: list[str]) -> pd.DataFrame:
    """`series.csv` for these subjects, in their order; no columns if it is not there, NaN for what is no number."""
    if not path.is_file():
        return pd.DataFrame(index=range(len(subjects)))
    return read_subject_table(path, subjects).apply(pd.to_numeric, errors="coerce").reset_index(drop=True)


def check_connectomes(cohort: Cohort, findings: Findings) -> Counter[str]:
    """Findings on the connectomes, if there are any; each is read once. They may be damaged or empty, lack parcels,
    be of volumes in place of parcels, of several atlases, or of people who were processed otherwise, or tell the label
    or the site. Returns how many people lack each parcel."""
    if cohort.connectomes is None or cohort.tables_folder is None:
        return Counter()
    first = cohort.first_index_by_subject(range(len(cohort.rows)))
    found, lacking = dict[int, dict[str, float]](), Counter[str]()
    names, compared = cohort.connectomes.parcel_names, edges_to_compare(cohort.connectomes.num_edges)
    some_edges, median_z = dict[str, np.ndarray](), list[float]()
    with open_progress_bar("Checking connectomes", len(first)) as shown:
        for index in first.values():
            shown.advance()
            try:
                (edges,) = cohort.connectomes[[index]]
            except InputError as error:
                findings.problems.append(str(error))
                continue
            found[index] = measured(edges)
            if np.isfinite(edges).any():
                some_edges[cohort.rows[index].subject] = edges[compared]
                median_z.append(float(np.nanmedian(edges)))
            lacking.update(names[parcel] for parcel in lacking_parcels(edges, cohort.connectomes.parcel_pairs))
    findings.counts.append(
        f"{cohort.connectomes.series_name}, {len(names)} parcels of {format_participants(len(found))}"
    )
    if lacking:
        few = [f"{name} in {count}" for name, count in lacking.most_common()]
        findings.notes.append(
            f"parcels without a signal, by how many of {format_participants(len(found))}: {join_names(few)}"
        )
    if median_z and min(median_z) > np.arctanh(TURNED_R):
        findings.problems.append(
            f"half of all pairs of parcels correlate above {TURNED_R} in everybody, as volumes do: the files of series "
            "may be turned. Write a row a volume and a column a parcel, and convert again"
        )
    elif some_edges and len(names) >= MIN_PARCELS:
        check_opposed(some_edges, findings)
    check_measures(cohort, pd.DataFrame.from_dict(found, orient="index"), findings)
    return lacking


def check_opposed(edges: Mapping[str, np.ndarray], findings: Findings) -> None:
    """Groups of people whose connectomes oppose each other are a problem; `edges` of each subject are those that
    `edges_to_compare` names."""
    subjects = np.array([*edges])
    groups = [subjects[members].tolist() for members in opposed_groups(np.stack([*edges.values()]))]
    if not groups:
        return
    named = " and ".join(f"those of {format_participants(len(group))} ({join_names(group)})" for group in groups)
    findings.problems.append(
        f"connectomes oppose each other, as if their parcels were of {len(groups)} atlases: {named}. Convert series of "
        "one atlas: choose them with --only, or leave people out with --exclude"
    )
    for group in groups[1:]:
        findings.mark_outliers(OPPOSED, group)


def lacking_parcels(edges: np.ndarray, pairs: np.ndarray) -> list[int]:
    """The positions of parcels of which no edge (edges,) is known."""
    known = np.unique(pairs[~np.isnan(edges)])
    return np.setdiff1d(np.unique(pairs), known).tolist()


def check_measures(cohort: Cohort, found: pd.DataFrame, findings: Findings) -> None:
    """Empty connectomes, and measures that separate the training labels, are problems; people who look as if they alone
    were processed otherwise, and differences by site, are notes."""
    rows = [cohort.rows[index] for index in found.index]
    found = found.reset_index(drop=True)
    if cohort.tables_folder:
        found = pd.concat(
            [found, read_series_table(cohort.tables_folder / SERIES_FILE, [row.subject for row in rows])], axis=1
        )
    if empty := [row.subject for row, mean in zip(rows, found["mean_z"], strict=True) if np.isnan(mean)]:
        findings.problems.append(f"connectomes without any edge: {join_names(empty)}; convert again without them")
        return
    check_groups("connectomes", [found], rows, findings)
