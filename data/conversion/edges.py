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
from data.base.listing import join_names
from data.base.terminal import format_participants, open_progress_bar
from data.cohorts.cohort import SERIES_FILE, Cohort
from data.cohorts.findings import Findings
from data.cohorts.problems import Problem
from data.conversion import measures
from data.conversion.leaks import check_group_differences
from data.conversion.opposed import MIN_COMPARED_PARCELS, draw_compared_edge_indices, find_opposed_groups
from data.tables.phenotype import read_subject_table

# median r of two parcels: of 784 people of ABIDE 0.05 to 0.62; of two volumes, which are alike, 0.99
MIN_TRANSPOSED_MEDIAN_R = 0.9
OPPOSED_MARK = "the connectome opposes those of others"


def summarise_connectome(edge_fisher_z: np.ndarray) -> dict[str, float]:
    """Mean and spread of a connectome (edges,) of Fisher z, and the mean correlation of all parcels that have a signal.
    It counts each with itself, too: it is the variance of their mean, never negative. NaN without any edge."""
    finite_fisher_z = edge_fisher_z[~np.isnan(edge_fisher_z)].astype(np.float64)
    if not finite_fisher_z.size:
        return dict.fromkeys(("mean_z", "sd_z", "mean_r"), np.nan)
    parcel_count = (1 + np.sqrt(1 + 8 * finite_fisher_z.size)) / 2
    # over all pairs of parcels, each with itself too
    mean_r = (parcel_count + 2 * np.tanh(finite_fisher_z).sum()) / parcel_count**2
    return {
        "mean_z": finite_fisher_z.mean(),
        "sd_z": finite_fisher_z.std(),
        "mean_r": max(mean_r, measures.MIN_MEASURE_SPREAD),
    }


def measure_parcel_series(parcel_signals: np.ndarray) -> dict[str, float]:
    """Measures of series (volumes, parcels): their length, and the roughness of the median parcel in time. That is the
    mean square of the differences between neighbours, by twice the variance: 1 for white noise, 0 if smooth."""
    parcel_signals = parcel_signals[:, np.ptp(parcel_signals, axis=0) > 0]
    roughness_by_parcel = np.square(np.diff(parcel_signals, axis=0)).mean(0) / (2 * parcel_signals.var(0))
    return {"volumes": len(parcel_signals), "roughness": float(f"{np.median(roughness_by_parcel):.6g}")}


def read_series_measures(series_csv_path: Path, subject_ids: list[str]) -> pd.DataFrame:
    """`series.csv` for these subjects, in their order; no columns if it is not there, NaN for what is no number."""
    if not series_csv_path.is_file():
        return pd.DataFrame(index=range(len(subject_ids)))
    return read_subject_table(series_csv_path, subject_ids).apply(pd.to_numeric, errors="coerce").reset_index(drop=True)


def check_connectomes(cohort: Cohort, findings: Findings) -> Counter[str]:
    """Findings on the connectomes, if there are any; each is read once. They may be damaged or empty, lack parcels,
    be of volumes in place of parcels, of several atlases, or of people who were processed otherwise, or tell the label
    or the site. Returns how many people lack each parcel."""
    if cohort.connectomes is None or cohort.tables_folder is None:
        return Counter()
    first_record_index_by_subject = cohort.find_first_record_indices(range(len(cohort.rows)))
    measures_by_record_index = dict[int, dict[str, float]]()
    lacking_subject_count_by_parcel = Counter[str]()
    parcel_names = cohort.connectomes.parcel_names
    compared_edge_indices = draw_compared_edge_indices(cohort.connectomes.num_edges)
    compared_fisher_z_by_subject = dict[str, np.ndarray]()
    median_fisher_z_per_subject = list[float]()
    with open_progress_bar("Checking connectomes", len(first_record_index_by_subject)) as progress_bar:
        for record_index in first_record_index_by_subject.values():
            progress_bar.advance()
            try:
                (edge_fisher_z,) = cohort.connectomes[[record_index]]  # (edges,), NaN where unknown
            except InputError as error:
                subject = cohort.rows[record_index].subject
                findings.problems.append(Problem(f"unreadable-connectome: {subject}", str(error)))
                continue
            measures_by_record_index[record_index] = summarise_connectome(edge_fisher_z)
            if np.isfinite(edge_fisher_z).any():
                compared_fisher_z_by_subject[cohort.rows[record_index].subject] = edge_fisher_z[compared_edge_indices]
                median_fisher_z_per_subject.append(float(np.nanmedian(edge_fisher_z)))
            lacking_subject_count_by_parcel.update(
                parcel_names[parcel_index]
                for parcel_index in find_lacking_parcel_indices(edge_fisher_z, cohort.connectomes.parcel_index_pairs)
            )
    findings.counts.append(
        f"{cohort.connectomes.series_name}, {len(parcel_names)} parcels of "
        f"{format_participants(len(measures_by_record_index))}"
    )
    if lacking_subject_count_by_parcel:
        lacking_parcel_texts = [
            f"{parcel_name} in {subject_count}"
            for parcel_name, subject_count in lacking_subject_count_by_parcel.most_common()
        ]
        findings.notes.append(
            f"parcels without a signal, by how many of {format_participants(len(measures_by_record_index))}: "
            f"{join_names(lacking_parcel_texts)}"
        )
    if median_fisher_z_per_subject and min(median_fisher_z_per_subject) > np.arctanh(MIN_TRANSPOSED_MEDIAN_R):
        problem_text = (
            f"half of all pairs of parcels correlate above {MIN_TRANSPOSED_MEDIAN_R} in everybody, as volumes do: the "
            "files of series may be turned. Write a row a volume and a column a parcel, and convert again"
        )
        findings.problems.append(Problem("series-turned", problem_text))
    elif compared_fisher_z_by_subject and len(parcel_names) >= MIN_COMPARED_PARCELS:
        check_opposed_groups(compared_fisher_z_by_subject, findings)
    check_connectome_measures(cohort, pd.DataFrame.from_dict(measures_by_record_index, orient="index"), findings)
    return lacking_subject_count_by_parcel


def check_opposed_groups(edge_fisher_z_by_subject: Mapping[str, np.ndarray], findings: Findings) -> None:
    """Groups of people whose connectomes oppose each other are a problem; `edge_fisher_z_by_subject` holds, for each
    subject, the Fisher z of the edges that `draw_compared_edge_indices` drew."""
    subject_ids = np.array([*edge_fisher_z_by_subject])
    opposed_subject_groups = [
        subject_ids[member_indices].tolist()
        for member_indices in find_opposed_groups(np.stack([*edge_fisher_z_by_subject.values()]))
    ]
    if not opposed_subject_groups:
        return
    opposed_groups_text = " and ".join(
        f"those of {format_participants(len(subject_group))} ({join_names(subject_group)})"
        for subject_group in opposed_subject_groups
    )
    problem_text = (
        f"connectomes oppose each other, as if their parcels were of {len(opposed_subject_groups)} atlases: "
        f"{opposed_groups_text}. Convert series of one atlas: choose them with --only, or leave people out with "
        "--exclude"
    )
    opposed_subjects_text = "; ".join(", ".join(subject_group) for subject_group in opposed_subject_groups)
    findings.problems.append(Problem(f"connectomes-opposed: {opposed_subjects_text}", problem_text))
    for subject_group in opposed_subject_groups[1:]:
        findings.mark_outliers(OPPOSED_MARK, subject_group)


def find_lacking_parcel_indices(edge_fisher_z: np.ndarray, parcel_index_pairs: np.ndarray) -> list[int]:
    """The positions of parcels of which no edge is known; `edge_fisher_z` (edges,) is NaN where unknown."""
    connected_parcel_indices = np.unique(parcel_index_pairs[~np.isnan(edge_fisher_z)])
    return np.setdiff1d(np.unique(parcel_index_pairs), connected_parcel_indices).tolist()


def check_connectome_measures(cohort: Cohort, measure_table: pd.DataFrame, findings: Findings) -> None:
    """Empty connectomes, and measures that separate the training labels, are problems; people who look as if they alone
    were processed otherwise, and differences by site, are notes."""
    subject_rows = [cohort.rows[record_index] for record_index in measure_table.index]
    measure_table = measure_table.reset_index(drop=True)
    if cohort.tables_folder:
        measure_table = pd.concat(
            [
                measure_table,
                read_series_measures(
                    cohort.tables_folder / SERIES_FILE, [subject_row.subject for subject_row in subject_rows]
                ),
            ],
            axis=1,
        )
    if edgeless_subject_ids := [
        subject_row.subject
        for subject_row, mean_z in zip(subject_rows, measure_table["mean_z"], strict=True)
        if np.isnan(mean_z)
    ]:
        problem_text = f"connectomes without any edge: {join_names(edgeless_subject_ids)}; convert again without them"
        findings.problems.append(Problem(f"connectomes-empty: {', '.join(edgeless_subject_ids)}", problem_text))
        return
    check_group_differences("connectomes", [measure_table], subject_rows, findings)
