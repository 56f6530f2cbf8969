"""Files with the mean signal of each parcel over time -> connectomes, and where the parcels lie.

The header has the names of parcels, or `#1`, `#2`, ... A row a volume, a column a parcel. A row of `n/a` is a volume
that was censored, a column of them a parcel that the scan lacks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from data.base.errors import InputError, compose_accents, parse_natural_number
from data.base.files import check_regular_file, read_json
from data.base.listing import join_names
from data.base.manifest import compute_checksum, compute_checksums
from data.base.pool import Pool
from data.base.processes import read_ahead
from data.base.terminal import SummaryRow
from data.cohorts.cohort import SERIES_FILE, Cohort
from data.cohorts.connectomes import (
    CONNECTOMES_FILE,
    EDGE_DTYPE,
    compute_parcels_sha256,
    write_connectomes,
)
from data.cohorts.metadata import Metadata
from data.conversion import edges
from data.conversion.discovery import FolderListing
from data.conversion.leaks import REPETITION_TIME_COLUMN
from data.conversion.number_tables import find_header_error
from data.conversion.volumes import PersonMaps
from data.images.atlas import read_label_image
from data.images.nifti import make_sidecar_path
from data.tables.people import read_text_table
from data.tables.phenotype import write_subject_table

MIN_SCAN_VOLUMES = 20  # of a scan; correlations of fewer are mostly chance
# of the largest value of a matrix: what is above its diagonal and below is equal but for rounding
SYMMETRY_TOLERANCE_SHARE = 1e-4
MAX_ABSOLUTE_R = 0.999999  # of two parcels, so that Fisher z is finite
ATLASES_FOLDER = "atlases"
LABEL_INDEX_COLUMN = "index"  # a folder of BIDS derivatives; the column of numbers in a table of labels


@dataclass(frozen=True)
class ConvertedConnectomes:
    """The connectomes of a conversion, whose rows lie in files until the cohort is planned."""

    connectome_name: str  # of the series, such as rois_cc200
    parcel_names: tuple[str, ...]
    parcel_image: np.ndarray | None  # (91, 109, 91) int16: 0, or 1 + the position of the parcel
    connectome_row_paths: tuple[Path, ...]  # of each subject
    series_sums: tuple[tuple[str, str], ...]  # the name and the SHA-256 of each one's series
    # `edges.measure_parcel_series` of each one's series, and its REPETITION_TIME_COLUMN
    series_measures: tuple[dict[str, float], ...]
    summary_rows: list[SummaryRow]

    def add_connectomes_to_people(self, people_maps: Sequence[PersonMaps]) -> list[PersonMaps]:
        """What is known of each person's files, with the series and the connectome among them."""
        people_with_sums = zip(people_maps, self.series_sums, compute_checksums(self.connectome_row_paths), strict=True)
        return [
            replace(person_maps, file_sums=[*person_maps.file_sums, series_sum], connectome_digest=connectome_sum)
            for person_maps, series_sum, connectome_sum in people_with_sums
        ]

    def add_to_metadata(self, metadata: Metadata) -> Metadata:
        """The metadata of a cohort with these connectomes."""
        return replace(
            metadata,
            connectome=self.connectome_name,
            parcels_sha256=compute_parcels_sha256(self.parcel_names, self.parcel_image, self.connectome_name),
        )

    def write_connectomes(self, cohort_folder: Path, subject_ids: list[str]) -> None:
        """Writes `connectomes.h5`, one row after another, and `series.csv` into the folder of a cohort."""
        edge_rows = (np.fromfile(row_path, EDGE_DTYPE) for row_path in self.connectome_row_paths)
        write_connectomes(
            cohort_folder / CONNECTOMES_FILE, subject_ids, self.parcel_names, self.parcel_image, edge_rows
        )
        if any(self.series_measures):  # matrices have none
            write_subject_table(
                cohort_folder / SERIES_FILE, pd.DataFrame(self.series_measures, subject_ids).dropna(axis=1, how="all")
            )


def correlate_series(
    pool: Pool,
    series_path_column: pd.Series,
    label_image_path: Path | None,
    connectome_row_folder: Path,
    template_cohort: Cohort | None,
) -> ConvertedConnectomes:
    """The connectomes of all subjects, from the paths of their series and of the label image, if any; their rows are
    written into `connectome_row_folder`. All are of the parcels of the most complete series, or of those of
    `template_cohort`. Raises InputError, naming the file, for one that is not as expected."""
    series_path_per_subject = series_path_column.tolist()
    summary_rows = list[SummaryRow]()
    template_connectomes = template_cohort.connectomes if template_cohort else None
    if template_connectomes is None:
        parcel_names = find_parcel_names(series_path_per_subject)
        parcel_image = None
    else:
        parcel_names = template_connectomes.parcel_names
        parcel_image = template_connectomes.parcel_image
    if label_image_path:
        parcel_image, summary_rows = make_parcel_image(label_image_path, parcel_names)
    connectome_row_paths = tuple(
        connectome_row_folder / f"{subject_index}.edges" for subject_index in range(len(series_path_per_subject))
    )
    write_tasks = [
        (series_path, parcel_names, connectome_row_path)
        for series_path, connectome_row_path in zip(series_path_per_subject, connectome_row_paths, strict=True)
    ]
    series_sums, series_measures = zip(*pool.run("Correlating", write_connectome_row, write_tasks), strict=True)
    return ConvertedConnectomes(
        template_connectomes.series_name if template_connectomes else str(series_path_column.name),
        parcel_names,
        parcel_image,
        connectome_row_paths,
        series_sums,
        series_measures,
        summary_rows,
    )


def find_parcel_names(series_paths: Sequence[Path]) -> tuple[str, ...]:
    """The names of parcels in the header that has most of them."""
    return max(dict.fromkeys(parcel_names for parcel_names, _ in read_ahead(read_series_header, series_paths)), key=len)


def read_series_header(series_path: Path) -> tuple[tuple[str, ...], str]:
    """The names of a series' columns, `#12` as `12`, and the pattern of what separates them. Raises InputError, naming
    the file, if it has none."""
    check_regular_file(series_path)
    try:
        with open(series_path, encoding="utf-8-sig") as series_file:
            header_line = compose_accents(series_file.readline())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{series_path} cannot be read ({error}); expected the series of parcels as text.") from error
    separator_pattern = next((delimiter for delimiter in "\t," if delimiter in header_line), r"\s+")
    header_cells = re.split(separator_pattern, re.sub(r"^(#\s+| +)", "", header_line).rstrip())
    parcel_names = tuple(cell.strip().strip('"').removeprefix("#").strip() for cell in header_cells)
    if header_error_text := find_header_error(parcel_names):
        raise InputError(f"{series_path} {header_error_text}")
    return parcel_names, separator_pattern


def read_parcel_series(series_path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of parcels and their series (volumes, parcels) float64 without censored volumes; NaN in the columns of
    parcels that the scan lacks. Raises InputError, naming the file."""
    parcel_names, separator_pattern = read_series_header(series_path)
    try:
        with open(series_path, encoding="utf-8-sig") as series_file:
            series_file.readline()
            parcel_signals = pd.read_csv(
                series_file, sep=separator_pattern, header=None, dtype=float, na_values=["n/a"]
            ).to_numpy()
    except (ValueError, OverflowError) as error:
        read_error_reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{series_path} is not the series of {len(parcel_names)} parcels: {read_error_reason}. Make it again."
        ) from error
    if (
        parcel_signals.shape[1] == len(parcel_names) + 1 and np.isnan(parcel_signals[:, -1]).all()
    ):  # a tab that ends each line
        parcel_signals = parcel_signals[:, :-1]
    if parcel_signals.shape[1] != len(parcel_names):
        raise InputError(
            f"{series_path} has {parcel_signals.shape[1]} columns, its header {len(parcel_names)} names; expected as "
            "many."
        )
    return parcel_names, check_parcel_signals(series_path, parcel_names, parcel_signals)


def check_parcel_signals(series_path: Path, parcel_names: Sequence[str], parcel_signals: np.ndarray) -> np.ndarray:
    """The series (volumes, parcels) float64 of a file without censored volumes. Raises InputError, naming the file, for
    a matrix in their place, for values that are missing or infinite though no whole volume or parcel is, and for too
    few volumes."""
    if is_correlation_matrix(parcel_signals):
        raise InputError(
            f"{series_path} is a matrix of {len(parcel_signals)} parcels, such as of their correlations, and not their "
            "series; expected a row a volume. Give the series, or leave --connectome out."
        )
    parcel_signals = parcel_signals[~np.isnan(parcel_signals).all(axis=1)]
    is_partly_missing_parcel = np.isnan(parcel_signals).any(axis=0) & ~np.isnan(parcel_signals).all(axis=0)
    if is_partly_missing_parcel.any() or np.isinf(parcel_signals).any():
        is_wrong_parcel = is_partly_missing_parcel | np.isinf(parcel_signals).any(axis=0)
        raise InputError(
            f"{series_path} has values of parcel {parcel_names[is_wrong_parcel.argmax()]} that are missing or "
            "infinite, though the volumes are not censored; expected numbers, or n/a in a whole row or column. Make it "
            "again, or --exclude the person."
        )
    if len(parcel_signals) < MIN_SCAN_VOLUMES:
        raise InputError(
            f"{series_path} has {len(parcel_signals)} volumes that are not censored; expected at least "
            f"{MIN_SCAN_VOLUMES}. Leave the person out with --exclude."
        )
    return parcel_signals


def is_correlation_matrix(series_values: np.ndarray) -> bool:
    """Whether a table (rows, columns) is square, and symmetric or with one value in its diagonal, also NaN or inf."""
    absolute_values = np.abs(series_values[np.isfinite(series_values)])
    if series_values.shape[0] != series_values.shape[1] or not absolute_values.any():
        return False
    diagonal = np.diagonal(series_values)
    is_symmetric = np.allclose(
        series_values, series_values.T, rtol=0, atol=SYMMETRY_TOLERANCE_SHARE * absolute_values.max(), equal_nan=True
    )
    return is_symmetric or np.array_equal(diagonal, np.full_like(diagonal, diagonal[0]), equal_nan=True)


def correlate_parcels(parcel_signals: np.ndarray) -> np.ndarray:
    """Series (volumes, parcels) -> the Fisher z of the correlation of each two parcels, (edges,) float32 in the order
    of `np.triu_indices`; NaN where a series is constant or unknown."""
    is_varying_parcel = np.ptp(parcel_signals, axis=0) > 0
    # (volumes, varying parcels)
    centred_signals = parcel_signals[:, is_varying_parcel] - parcel_signals[:, is_varying_parcel].mean(0)
    unit_signals = centred_signals / np.linalg.norm(centred_signals, axis=0)
    parcel_correlations = np.full(2 * parcel_signals.shape[1:], np.nan)  # (parcels, parcels) r
    with threadpool_limits(1, "blas"):
        parcel_correlations[np.ix_(is_varying_parcel, is_varying_parcel)] = unit_signals.T @ unit_signals
    edge_correlations = parcel_correlations[np.triu_indices(parcel_signals.shape[1], 1)]  # (edges,) r
    return np.arctanh(np.clip(edge_correlations, -MAX_ABSOLUTE_R, MAX_ABSOLUTE_R)).astype(EDGE_DTYPE)


def write_connectome_row(
    series_path: Path, parcel_names: tuple[str, ...], connectome_row_path: Path
) -> tuple[tuple[str, str], dict[str, float]]:
    """Writes a person's connectome of these parcels as the file `connectome_row_path`; returns the name and the
    SHA-256 of the series, and its measures. Raises InputError, naming it, for a parcel that is not among them, and if
    no two parcels have a signal."""
    header_parcel_names, parcel_signals = read_parcel_series(series_path)
    index_by_parcel = {parcel_name: parcel_index for parcel_index, parcel_name in enumerate(parcel_names)}
    if foreign_parcels := [parcel_name for parcel_name in header_parcel_names if parcel_name not in index_by_parcel]:
        raise InputError(
            f"{series_path} has other parcels than the rest: it has {join_names(foreign_parcels, 3)}; expected "
            f"{join_names(parcel_names, 3)}. Was it made with another atlas? Choose with --only, or leave the person "
            "out with --exclude."
        )
    ordered_parcel_signals = np.full((len(parcel_signals), len(parcel_names)), np.nan)  # (volumes, parcels)
    ordered_parcel_signals[:, [index_by_parcel[parcel_name] for parcel_name in header_parcel_names]] = parcel_signals
    edge_fisher_z = correlate_parcels(ordered_parcel_signals)
    if np.isnan(edge_fisher_z).all():
        raise InputError(f"{series_path} has no two parcels with a signal. Leave the person out with --exclude.")
    connectome_row_path.write_bytes(edge_fisher_z.tobytes())
    return (series_path.name, compute_checksum(series_path)), edges.measure_parcel_series(parcel_signals) | {
        REPETITION_TIME_COLUMN: read_series_repetition_time(series_path)
    }


def read_series_repetition_time(series_path: Path) -> float:
    """The seconds from one volume of a series to the next, by the JSON beside it; NaN if that does not say one number.
    Raises InputError if it is damaged."""
    json_path = series_path.with_suffix(".json")
    json_content = read_json(json_path, dict) if json_path.is_file() else {}
    repetition_seconds = json_content.get("RepetitionTime")
    volumes_per_second = json_content.get("SamplingFrequency")
    if isinstance(repetition_seconds, int | float) and repetition_seconds > 0:
        return float(repetition_seconds)
    if isinstance(volumes_per_second, int | float) and volumes_per_second > 0:
        return 1 / volumes_per_second
    return np.nan


def find_parcel_image_path(
    listing: FolderListing, series_name: str | None, requested_image_path: Path | None
) -> tuple[Path | None, list[SummaryRow]]:
    """The image of the parcels of a kind of series: `requested_image_path`, or the one of `seg-<atlas>` that XCP-D
    leaves in `atlases/`. If there is none: None and a fact. Raises InputError if there are several."""
    if requested_image_path or series_name is None:
        return requested_image_path, []
    atlas_pattern = re.escape(series_name.removeprefix("seg-"))
    image_name_pattern = re.compile(rf"(?i:(?:.*_)?(?:atlas|seg)-{atlas_pattern}_(?:.*_)?dseg\.nii(?:\.gz)?)")
    image_paths = [
        image_path
        for image_path in listing.all_file_paths
        if ATLASES_FOLDER in image_path.parts and image_name_pattern.fullmatch(image_path.name)
    ]
    if len(image_paths) > 1:
        image_paths_text = join_names(list(map(str, image_paths)))
        raise InputError(
            f"{listing.root_folder} has several images of {series_name} ({image_paths_text}); name one with --parcels."
        )
    if image_paths:
        return image_paths[0], []
    message = "parcels: where they lie is not known, so a blackout leaves the edges as they are; --parcels names it"
    return None, [("maps", message)]


def make_parcel_image(image_path: Path, parcel_names: Sequence[str]) -> tuple[np.ndarray, list[SummaryRow]]:
    """The image of a connectome's parcels (91, 109, 91) int16, 1 + the position of each voxel's parcel, and facts; from
    an image of labels on any grid, by nearest neighbour. The label of a parcel is that in the table beside the image,
    else its name if that is a number. Raises InputError if a parcel is not in it."""
    label_volume, region_name_by_label = read_label_image(image_path)  # (91, 109, 91) int
    label_number_by_name = read_label_numbers(image_path)
    parcel_label_numbers = [
        label_number_by_name.get(parcel_name, parse_natural_number(parcel_name)) for parcel_name in parcel_names
    ]
    if absent_parcel_names := [
        parcel_name
        for parcel_name, label_number in zip(parcel_names, parcel_label_numbers, strict=True)
        if label_number not in region_name_by_label
    ]:
        raise InputError(
            f"{image_path} has no label for {len(absent_parcel_names)} of {len(parcel_names)} parcels of the series, "
            f"{join_names(absent_parcel_names)}; expected the image that the series were made with, and a table "
            "index,name beside it if parcels have names."
        )
    if len(set(parcel_label_numbers)) < len(parcel_label_numbers):
        raise InputError(
            f"{image_path}: the table beside it gives two parcels one number; expected one each. Correct it."
        )
    parcel_position_by_label = np.zeros(max(region_name_by_label) + 1, np.int16)  # from 1; 0 for other labels
    for parcel_position, label_number in enumerate(parcel_label_numbers, 1):
        parcel_position_by_label[label_number] = parcel_position
    parcel_position_volume = parcel_position_by_label[label_volume]
    lost_parcel_positions = sorted(
        set(range(1, len(parcel_names) + 1)) - set(np.unique(parcel_position_volume).tolist())
    )
    lost_parcels_text = (
        f"; without a voxel on the 2 mm grid: "
        f"{join_names([parcel_names[parcel_position - 1] for parcel_position in lost_parcel_positions])}"
        if lost_parcel_positions
        else ""
    )
    return parcel_position_volume, [
        (
            "maps",
            f"parcels: {image_path}, {len(parcel_names)} of its {len(region_name_by_label)} labels{lost_parcels_text}",
        )
    ]


def read_label_numbers(image_path: Path) -> dict[str, int]:
    """The numbers of labels by their names, in the `.tsv` beside an image or the only `*dseg.tsv` of its folder; empty
    without one. Raises InputError if it has no column of numbers."""
    image_label_table_path = make_sidecar_path(image_path, ".tsv")
    folder_label_table_paths = list(image_path.parent.glob("*dseg.tsv"))
    if image_label_table_path.is_file():
        label_table_path = image_label_table_path
    elif len(folder_label_table_paths) == 1:
        label_table_path = folder_label_table_paths[0]
    else:
        return {}
    label_table = read_text_table(label_table_path)
    label_numbers = None
    if LABEL_INDEX_COLUMN in label_table:
        label_numbers = label_table[LABEL_INDEX_COLUMN].map(parse_natural_number)
    if label_numbers is None or label_numbers.isna().any():
        raise InputError(
            f"{label_table_path} has no column {LABEL_INDEX_COLUMN} of whole numbers; expected "
            f"{LABEL_INDEX_COLUMN},name of each label."
        )
    number_by_label_name = dict[str, int]()
    for column_name in label_table.columns.drop(LABEL_INDEX_COLUMN)[::-1]:  # the first columns have the last word
        for label_name, label_number in zip(label_table[column_name], label_numbers, strict=True):
            if label_name:
                number_by_label_name[label_name] = int(label_number)
    return number_by_label_name
