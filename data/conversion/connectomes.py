"""Files of series, matrices or a table of edges -> connectomes of one order of parcels, as Fisher z.

What files hold is decided by their names or, where these do not say it, by their shape: square tables are matrices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.listing import join_names
from data.base.manifest import compute_checksum
from data.base.pool import Pool
from data.base.terminal import SummaryRow
from data.cohorts.cohort import Cohort
from data.cohorts.connectomes import MAX_PARCELS, Connectomes, are_numbered
from data.conversion import edges, series
from data.conversion.connectome_files import ConnectomeReading
from data.conversion.discovery import MATRIX_PRODUCT
from data.conversion.edge_tables import EdgeTable
from data.conversion.leaks import REPETITION_TIME_COLUMN
from data.conversion.matrices import Z_UNIT, EdgeRange, convert_to_fisher_z, extract_edges, find_edge_unit
from data.conversion.number_tables import NumberTable, find_header_error, read_number_table
from data.conversion.series import ConvertedConnectomes

INSPECTED_FILES = 5  # whose shapes say whether files hold matrices
MATRICES = "matrices"
SERIES = "series"


@dataclass(frozen=True)
class PersonEdges:
    """What is known of a person's file; the edges lie in a file of float64, in the order of `parcel_names`."""

    file_text: str
    parcel_names: tuple[str, ...]
    are_parcels_named: bool  # and not numbered here
    edge_range: EdgeRange | None  # None for those of series, which are Fisher z
    file_sum: tuple[str, str]  # the name and the SHA-256 of the file
    series_measures: dict[str, float]  # of series


def count_parcels(file_paths: Sequence[Path], reading: ConnectomeReading) -> int:
    """How many parcels connectomes will be of, by their headers or the first file."""
    if reading.is_plain_series:
        return len(series.find_parcel_names(file_paths))
    if reading.edge_table:
        return len(reading.edge_table.parcel_names)
    number_table = read_number_table(file_paths[0], reading.variable_name)
    return number_table.values.shape[0 if reading.is_transposed else 1]


def make_connectomes(
    pool: Pool,
    file_paths: Sequence[Path],
    reading: ConnectomeReading,
    label_image_path: Path | None,
    connectome_row_folder: Path,
    template_cohort: Cohort | None,
) -> ConvertedConnectomes:
    """The connectomes of all subjects, from the files of each and the label image of their parcels, if any; their rows
    are written into `connectome_row_folder`. All are of the parcels of the person who has most, or of those of
    `template_cohort`. Raises InputError, naming the file, for one that is not as expected."""
    template_connectomes = template_cohort.connectomes if template_cohort else None
    if reading.is_plain_series:
        if template_connectomes:
            check_atlas_name(series.find_parcel_names(file_paths), reading.connectome_name, template_connectomes)
        return series.correlate_series(
            pool,
            pd.Series(list(file_paths), name=reading.connectome_name),
            label_image_path,
            connectome_row_folder,
            template_cohort,
        )

    # the edges of each, of the parcels in the file
    connectome_row_paths = [
        connectome_row_folder / f"{subject_index}.edges" for subject_index in range(len(file_paths))
    ]
    if reading.edge_table:
        table_sum = compute_checksum(reading.edge_table.path)
        people = [
            extract_table_row(file_path, reading.edge_table, table_sum, row_path)
            for file_path, row_path in zip(file_paths, connectome_row_paths, strict=True)
        ]
    else:
        read_person = read_person_matrix if find_content(file_paths, reading) == MATRICES else read_person_series
        read_tasks = [
            (file_path, reading, row_path) for file_path, row_path in zip(file_paths, connectome_row_paths, strict=True)
        ]
        people = pool.run("Reading connectomes", read_person, read_tasks)

    # the parcels and the unit of all
    parcel_names = max((person.parcel_names for person in people), key=len)
    parcel_image = None
    summary_rows = list[SummaryRow]()
    if template_connectomes:
        check_atlas_name(parcel_names, reading.connectome_name, template_connectomes)
        parcel_names = template_connectomes.parcel_names
        parcel_image = template_connectomes.parcel_image
    if label_image_path:
        parcel_image, summary_rows = series.make_parcel_image(label_image_path, parcel_names)
    unit = Z_UNIT
    edge_ranges = [person.edge_range for person in people if person.edge_range]
    if edge_ranges:
        unit, unit_summary_row = find_edge_unit(edge_ranges, reading.edge_unit)
        summary_rows = [unit_summary_row, *summary_rows]

    # the edges of each in one order and unit
    for person, row_path in zip(people, connectome_row_paths, strict=True):
        person_edges = convert_to_fisher_z(np.fromfile(row_path, np.float64), unit)
        row_path.write_bytes(order_edges(person_edges, person, parcel_names, template_connectomes).tobytes())
    return ConvertedConnectomes(
        template_connectomes.series_name if template_connectomes else reading.connectome_name,
        parcel_names,
        parcel_image,
        tuple(connectome_row_paths),
        tuple(person.file_sum for person in people),
        tuple(person.series_measures for person in people),
        summary_rows,
    )


def find_content(file_paths: Sequence[Path], reading: ConnectomeReading) -> str:
    """MATRICES or SERIES: what files hold by their names, or by the shapes of the first ones. Raises InputError for
    options that are about the other."""
    inspected_paths = file_paths[:INSPECTED_FILES]
    content = SERIES
    if reading.product is MATRIX_PRODUCT:
        square_count = 0
        for inspected_path in inspected_paths:
            row_count, column_count = read_number_table(inspected_path, reading.variable_name).values.shape
            square_count += row_count == column_count
        content = MATRICES if 2 * square_count > len(inspected_paths) else SERIES
    if content == MATRICES and reading.is_transposed:
        raise InputError(f"--transpose is about series; {file_paths[0]} is square, as a matrix is. Leave it out.")
    if content == SERIES and reading.edge_unit:
        raise InputError(f"--edges is about matrices; {file_paths[0]} holds series of parcels. Leave it out.")
    if content == SERIES:  # what is wrong with the options is told once, not of everybody
        turn_series(file_paths[0], read_number_table(file_paths[0], reading.variable_name), reading)
    return content


def extract_table_row(row_path: Path, edge_table: EdgeTable, table_sum: str, connectome_row_path: Path) -> PersonEdges:
    """The edges of the person whom `row_path` names in a table of edges. Raises InputError as `extract_edges` does."""
    parcel_count = len(edge_table.parcel_names)
    matrix = np.full((parcel_count, parcel_count), np.nan)
    upper_indices = np.triu_indices(parcel_count, 1)
    matrix[upper_indices] = matrix.T[upper_indices] = edge_table.find_edges(row_path)
    file_text = f"{edge_table.path}, {row_path.name},"
    person_edges, edge_range = extract_edges(matrix, edge_table.parcel_names, file_text)
    connectome_row_path.write_bytes(person_edges.tobytes())
    return PersonEdges(
        file_text,
        edge_table.parcel_names,
        edge_table.are_parcels_named,
        edge_range,
        (edge_table.path.name, table_sum),
        {},
    )


def read_person_matrix(file_path: Path, reading: ConnectomeReading, connectome_row_path: Path) -> PersonEdges:
    """Writes the edges of a person's matrix into `connectome_row_path`. Raises InputError, naming the file, for what
    is no matrix of parcels."""
    number_table = read_number_table(file_path, reading.variable_name)
    row_count, column_count = number_table.values.shape
    if row_count != column_count:
        header_text = ""
        if row_count == column_count + 1:
            header_text = " Is a header among them? Take it out, or name the parcels in it."
        raise InputError(
            f"{file_path} holds {number_table.size_text} numbers; expected as many rows as columns.{header_text} Make "
            "it again, or leave the person out with --exclude."
        )
    named_rows = number_table.row_names
    if number_table.column_names and are_numbered(named_rows):
        named_rows = ()  # the numbers of rows, as programs write them
    if named_rows and number_table.column_names and named_rows != number_table.column_names:
        raise InputError(
            f"{file_path} names its rows {join_names(named_rows, 3)}, its columns "
            f"{join_names(number_table.column_names, 3)}; expected the same parcels in the same order. Sort them alike."
        )
    named_table = replace(number_table, column_names=number_table.column_names or named_rows)
    parcel_names, are_parcels_named = find_parcel_names(file_path, named_table, reading)
    person_edges, edge_range = extract_edges(named_table.values, parcel_names, str(file_path))
    connectome_row_path.write_bytes(person_edges.tobytes())
    file_sum = (file_path.name, compute_checksum(file_path))
    return PersonEdges(str(file_path), parcel_names, are_parcels_named, edge_range, file_sum, {})


def read_person_series(file_path: Path, reading: ConnectomeReading, connectome_row_path: Path) -> PersonEdges:
    """Writes the edges of a person's series, Fisher z, into `connectome_row_path`. Raises InputError, naming the file,
    for series that are turned or whose parcels are not named, and as `series.check_parcel_signals` does."""
    number_table = read_number_table(file_path, reading.variable_name)
    number_table = turn_series(file_path, number_table, reading)
    parcel_names, are_parcels_named = find_parcel_names(file_path, number_table, reading)
    parcel_signals = series.check_parcel_signals(file_path, parcel_names, number_table.values)
    edge_fisher_z = series.correlate_parcels(parcel_signals)
    if np.isnan(edge_fisher_z).all():
        raise InputError(f"{file_path} has no two parcels with a signal. Leave the person out with --exclude.")
    connectome_row_path.write_bytes(edge_fisher_z.astype(np.float64).tobytes())
    series_measures = edges.measure_parcel_series(parcel_signals)
    series_measures[REPETITION_TIME_COLUMN] = series.read_series_repetition_time(file_path)
    file_sum = (file_path.name, compute_checksum(file_path))
    return PersonEdges(str(file_path), parcel_names, are_parcels_named, None, file_sum, series_measures)


def turn_series(file_path: Path, number_table: NumberTable, reading: ConnectomeReading) -> NumberTable:
    """The series of a file with a row a volume. Raises InputError, naming the file, if they seem to be turned, or if
    their parcels are not named."""
    if reading.is_transposed:
        number_table = number_table.transpose()
    volume_count, column_count = number_table.values.shape
    if reading.parcel_names and len(reading.parcel_names) == volume_count != column_count:
        if reading.is_transposed:
            raise InputError(
                f"{file_path} has {column_count} rows and {volume_count} columns, as many as --parcelNames has names; "
                "expected a row a parcel, as --transpose says. Leave that out."
            )
        raise InputError(
            f"{file_path} has {volume_count} rows, as many as --parcelNames has names, and {column_count} columns; "
            "expected a row a volume and a column a parcel. If a row is a parcel, add --transpose."
        )
    if not reading.parcel_names and not number_table.column_names:
        raise InputError(
            f"{file_path} holds {number_table.size_text} numbers and names no parcels; expected as many rows as "
            "columns of a matrix, or, of series, the names of parcels: --parcelNames FILE, one a line (and --transpose "
            "if a row is a parcel)."
        )
    return number_table


def find_parcel_names(
    file_path: Path, number_table: NumberTable, reading: ConnectomeReading
) -> tuple[tuple[str, ...], bool]:
    """The names of the parcels in the columns of a file, and whether they are named, by it or by --parcelNames; else
    they are numbered from 1. Raises InputError, naming the file, for names that do not fit."""
    column_count = number_table.values.shape[1]
    if number_table.column_names:
        if header_error_text := find_header_error(number_table.column_names):
            raise InputError(f"{file_path} {header_error_text}")
        if reading.parcel_names and reading.parcel_names != number_table.column_names:
            raise InputError(
                f"{file_path} names its parcels {join_names(number_table.column_names, 3)}, --parcelNames "
                f"{join_names(reading.parcel_names, 3)}; expected files without names. Leave --parcelNames out."
            )
        return number_table.column_names, True
    if reading.parcel_names:
        if len(reading.parcel_names) != column_count:
            raise InputError(
                f"{file_path} has {column_count} columns, --parcelNames {len(reading.parcel_names)} names; expected a "
                "column a parcel. Correct one of both, or leave the person out with --exclude."
            )
        return reading.parcel_names, True
    if not 2 <= column_count <= MAX_PARCELS:
        raise InputError(f"{file_path} has {column_count} columns; expected 2 to {MAX_PARCELS} parcels.")
    return tuple(str(number) for number in range(1, column_count + 1)), False


def check_atlas_name(parcel_names: Sequence[str], atlas_name: str, template_connectomes: Connectomes) -> None:
    """Raises InputError if parcels are numbered and of another atlas, by its name, than those of a template: then a
    number says nothing."""
    if are_numbered(parcel_names) and atlas_name != template_connectomes.series_name:
        raise InputError(
            f"The parcels of {atlas_name} are numbered, and those that new ones must equal are of "
            f"{template_connectomes.series_name}; expected one atlas by its name, or names of parcels. If they are the "
            f"same, call the files as those of {template_connectomes.series_name}."
        )


def order_edges(
    person_edges: np.ndarray,
    person: PersonEdges,
    parcel_names: tuple[str, ...],
    template_connectomes: Connectomes | None,
) -> np.ndarray:
    """A person's edges (edges,) of their own parcels as those of `parcel_names` (edges,), NaN for parcels that the
    person lacks. Raises InputError, naming the file, for other parcels, and for a different number of them if they are
    not named."""
    expectation_text = f"those of {template_connectomes.path}" if template_connectomes else "the rest"
    if not person.are_parcels_named and are_numbered(parcel_names):
        if len(person.parcel_names) != len(parcel_names):
            raise InputError(
                f"{person.file_text} has {len(person.parcel_names)} parcels, {expectation_text} "
                f"{len(parcel_names)}; expected as many, of one atlas. Choose with --only, or leave the person out "
                "with --exclude."
            )
        return person_edges
    index_by_parcel = {parcel_name: index for index, parcel_name in enumerate(parcel_names)}
    if foreign_parcels := [name for name in person.parcel_names if name not in index_by_parcel]:
        names_advice = "" if person.are_parcels_named else " Files without names of parcels need --parcelNames FILE."
        raise InputError(
            f"{person.file_text} has other parcels than {expectation_text}: it has {join_names(foreign_parcels, 3)}; "
            f"expected {join_names(parcel_names, 3)}. Was it made with another atlas?{names_advice} Choose with "
            "--only, or leave the person out with --exclude."
        )
    own_indices = [index_by_parcel[parcel_name] for parcel_name in person.parcel_names]
    own_upper_indices = np.triu_indices(len(own_indices), 1)
    first_indices, second_indices = (np.array(own_indices)[indices] for indices in own_upper_indices)
    matrix = np.full((len(parcel_names), len(parcel_names)), np.nan, person_edges.dtype)
    matrix[first_indices, second_indices] = matrix[second_indices, first_indices] = person_edges
    return matrix[np.triu_indices(len(parcel_names), 1)]
