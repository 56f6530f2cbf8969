"""A table with a row a person and a column an edge -> the edges of each, by ID.

Columns name two parcels each, in any order, or are numbered, and then hold the upper triangle of a matrix row by row.
Rows are known by their ID alone.
"""

import csv
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError, compose_accents, quote_text
from data.base.files import check_regular_file
from data.base.listing import join_names
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.connectomes import MAX_PARCELS, are_numbered, count_edges
from data.tables.people import is_id_column_name, normalise_id

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
DELIMITERS = (",", "\t", ";")
PAIR_SEPARATORS = ("--", "__", "<->", " - ", " vs ", "~", "|", ":", ",", " ", "-", "_", ".")  # of names of two parcels
EDGE_PREFIX = "edge "  # of names of columns, as `abide-data export` writes them
ROW_NUMBER_COLUMN = re.compile(r"(unnamed.*|index|rows?[ _.]?(names?|numbers?)?)?", re.IGNORECASE)
MAX_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class EdgeTable:
    """The edges of people, a row each."""

    path: Path
    row_ids: tuple[str, ...]  # as `normalise_id` has them
    parcel_names: tuple[str, ...]
    are_parcels_named: bool  # by the columns or the user, and not numbered here
    edge_rows: np.ndarray  # (people, edges) float64 in the order of `np.triu_indices`, NaN where unknown
    summary_row: SummaryRow

    def find_edges(self, row_path: Path) -> np.ndarray:
        """The edges (edges,) of the person whose row `row_path_by_id` calls so."""
        return self.edge_rows[self._row_index_by_path[row_path]]

    @property
    def row_path_by_id(self) -> dict[str, Path]:
        """What stands for a row where others have a file: `<table>/<ID>`."""
        return {row_id: self.path / row_id for row_id in self.row_ids}

    @cached_property
    def _row_index_by_path(self) -> dict[Path, int]:
        return {row_path: row_index for row_index, row_path in enumerate(self.row_path_by_id.values())}


@dataclass(frozen=True)
class EdgeColumns:
    """Which columns of a table are which edges."""

    column_indices: list[int]  # of each edge, in the order of `np.triu_indices`
    parcel_names: tuple[str, ...]
    are_parcels_named: bool


def read_edge_table(table_path: Path, requested_id_column: str, requested_names: Sequence[str]) -> EdgeTable:
    """The table; its IDs are in `requested_id_column`, if it has that, and its parcels are called `requested_names`, if
    there are any. Raises InputError, naming the table, if it has no IDs or other columns than edges."""
    check_regular_file(table_path)
    if table_path.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(
            f"{table_path} holds rows without IDs, so that nobody knows whose they are; expected a CSV or TSV with a "
            "column of IDs, or a file a person with the ID in its name."
        )
    column_names, delimiter = read_column_names(table_path)
    id_index = find_id_index(column_names, requested_id_column, table_path)
    edge_indices = [
        index for index, name in enumerate(column_names) if index != id_index and not ROW_NUMBER_COLUMN.fullmatch(name)
    ]
    edge_names = [column_names[index] for index in edge_indices]
    columns = find_edge_columns(edge_names, edge_indices, requested_names, table_path)

    try:
        table = pd.read_csv(
            table_path,
            sep=delimiter,
            header=None,
            skiprows=1,
            dtype={id_index: str},
            encoding="utf-8-sig",
            low_memory=False,
            names=range(len(column_names)),
            index_col=False,
        )
        edge_rows = table[columns.column_indices].to_numpy(float)
    except (ValueError, OverflowError) as error:
        read_error_reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{table_path} is not a table of edges: {read_error_reason}. Expected numbers, with decimal points."
        ) from error
    row_ids = check_row_ids(table[id_index], column_names[id_index], table_path)
    if not columns.are_parcels_named:
        check_diagonal_absence(edge_rows, len(columns.parcel_names), table_path)
    return EdgeTable(
        table_path,
        row_ids,
        columns.parcel_names,
        columns.are_parcels_named,
        edge_rows,
        describe_table(table_path, column_names[id_index], len(row_ids), columns),
    )


def read_column_names(table_path: Path) -> tuple[list[str], str]:
    """The header of a table, and what separates its columns. Raises InputError for one that is none."""
    try:
        with open(table_path, encoding="utf-8-sig", newline="") as table_file:
            first_lines = [compose_accents(table_file.readline()), table_file.readline()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{table_path} cannot be read ({error}); expected a table as text in UTF-8.") from error
    delimiter = max(DELIMITERS, key=first_lines[0].count)
    header_cells, first_cells = (next(csv.reader([line], delimiter=delimiter), []) for line in first_lines)
    column_names = [" ".join(cell.split()) for cell in header_cells]
    if len(first_cells) != len(column_names):
        raise InputError(
            f"{table_path} has {len(first_cells)} columns in line 2, its header {len(column_names)} names; expected as "
            "many. Name each column."
        )
    repeated_names = pd.Series(column_names)[pd.Series(column_names).duplicated()].tolist()
    if repeated_names:
        raise InputError(
            f"{table_path} has the column {quote_text(repeated_names[0])} twice; expected each once. If its first line "
            "is no header, write one: an ID, and the edges."
        )
    return column_names, delimiter


def find_id_index(column_names: Sequence[str], requested_id_column: str, table_path: Path) -> int:
    """The position of the column of IDs. Raises InputError if there is none."""
    if requested_id_column and requested_id_column in column_names:
        return column_names.index(requested_id_column)
    for index, column_name in enumerate(column_names):
        if is_id_column_name(column_name):
            return index
    raise InputError(
        f"{table_path} has no column of IDs, so that nobody knows whose its rows are; it has "
        f"{join_names(list(map(quote_text, column_names)), MAX_EXAMPLES)}. Expected one, such as subject, with the IDs "
        "of the table of participants: add it."
    )


def find_edge_columns(
    edge_names: Sequence[str], edge_indices: Sequence[int], requested_names: Sequence[str], table_path: Path
) -> EdgeColumns:
    """Which of the columns `edge_names`, which stand at `edge_indices`, are which edges. Raises InputError unless they
    are all pairs of parcels, each once, or numbered."""
    if are_numbered(edge_names):
        return find_numbered_columns(edge_names, edge_indices, requested_names, table_path)
    pair_by_position = split_pairs(edge_names, requested_names)
    if None in pair_by_position:
        other_names = [quote_text(name) for name, pair in zip(edge_names, pair_by_position, strict=True) if not pair]
        raise InputError(
            f"{table_path} has columns that are no edges, {join_names(other_names, MAX_EXAMPLES)}; expected an ID and "
            "edges, each called by its two parcels, as A--B, or numbered. Take other columns out."
        )
    pairs = [pair for pair in pair_by_position if pair]
    parcel_names = tuple(requested_names) or tuple(dict.fromkeys(name for pair in pairs for name in pair))
    if len(parcel_names) > MAX_PARCELS:
        raise InputError(
            f"{table_path} names {len(parcel_names)} parcels, {join_names(parcel_names, MAX_EXAMPLES)}; expected at "
            f"most {MAX_PARCELS}. Call each edge by its two parcels, as A--B."
        )
    index_by_pair = {
        frozenset(pair): index for pair, index in zip(pairs, edge_indices, strict=True) if pair[0] != pair[1]
    }
    expected_pairs = list(combinations(parcel_names, 2))
    missing_pairs = [pair for pair in expected_pairs if frozenset(pair) not in index_by_pair]
    distinct_pair_count = sum(pair[0] != pair[1] for pair in pairs)
    if missing_pairs or distinct_pair_count > len(expected_pairs):
        missing_text = f", not that of {' and '.join(missing_pairs[0])}" if missing_pairs else ", some of them twice"
        raise InputError(
            f"{table_path} has {distinct_pair_count} edges of {len(parcel_names)} parcels{missing_text}; expected "
            f"{len(expected_pairs)}, each once. Complete it."
        )
    return EdgeColumns([index_by_pair[frozenset(pair)] for pair in expected_pairs], parcel_names, True)


def find_numbered_columns(
    edge_names: Sequence[str], edge_indices: Sequence[int], requested_names: Sequence[str], table_path: Path
) -> EdgeColumns:
    """Numbered columns as the upper triangle of a matrix, row by row. Raises InputError unless they are as many as some
    parcels have, those of `requested_names` if there are any."""
    edge_numbers = [int("".join(character for character in name if character.isdecimal())) for name in edge_names]
    if edge_numbers != list(range(edge_numbers[0], edge_numbers[0] + len(edge_numbers))):
        raise InputError(
            f"{table_path} numbers its edges {join_names(edge_names, MAX_EXAMPLES)} in another order than 1, 2, 3; "
            "expected that of the upper triangle, row by row. Sort the columns, or call each by its two parcels, as "
            "A--B."
        )
    parcel_count = (1 + math.isqrt(1 + 8 * len(edge_names))) // 2
    if requested_names and count_edges(len(requested_names)) != len(edge_names):
        raise InputError(
            f"{table_path} has {len(edge_names)} edges, --parcelNames {len(requested_names)} names; expected "
            f"{count_edges(len(requested_names))} edges, the upper triangle without the diagonal. Correct one of both."
        )
    if count_edges(parcel_count) != len(edge_names) or not 2 <= parcel_count <= MAX_PARCELS:
        raise InputError(
            f"{table_path} has {len(edge_names)} columns of edges, as no number of parcels has: {parcel_count} have "
            f"{count_edges(parcel_count)}, {parcel_count + 1} have {count_edges(parcel_count + 1)}. Take other columns "
            "out."
        )
    numbered_names = tuple(str(number) for number in range(1, parcel_count + 1))
    return EdgeColumns(list(edge_indices), tuple(requested_names) or numbered_names, bool(requested_names))


def split_pairs(edge_names: Sequence[str], parcel_names: Collection[str]) -> list[tuple[str, str] | None]:
    """The two parcels of each name, by the separator that parts most of them; None if it does not part it. If
    `parcel_names` are known, both must be among these."""
    known_names = {*parcel_names}
    best_pairs: list[tuple[str, str] | None] = [None] * len(edge_names)
    for separator in PAIR_SEPARATORS:
        pairs = [split_pair(name.removeprefix(EDGE_PREFIX), separator, known_names) for name in edge_names]
        if pairs.count(None) < best_pairs.count(None):
            best_pairs = pairs
    return best_pairs


def split_pair(edge_name: str, separator: str, known_names: Collection[str]) -> tuple[str, str] | None:
    """The two parcels of a name that has a separator once; or, if it has it more often, that are both known."""
    pieces = edge_name.split(separator)
    for first_length in range(1, len(pieces)):
        first_name = separator.join(pieces[:first_length]).strip()
        second_name = separator.join(pieces[first_length:]).strip()
        is_pair = {first_name, second_name} <= {*known_names} if known_names else len(pieces) == 2
        if is_pair and first_name and second_name:
            return first_name, second_name
    return None


def check_row_ids(id_column: pd.Series, column_name: str, table_path: Path) -> tuple[str, ...]:
    """The IDs of rows. Raises InputError unless each row has its own."""
    row_ids = id_column.fillna("").map(normalise_id)
    if (id_column.fillna("") == "").any():
        row_number = int((id_column.fillna("") == "").to_numpy().argmax()) + 2
        raise InputError(f"{table_path} has no {column_name} in line {row_number}; expected an ID in each. Add it.")
    repeated_ids = row_ids[row_ids.duplicated()].unique().tolist()
    if repeated_ids:
        raise InputError(
            f"{table_path} has several rows of {join_names(repeated_ids, MAX_EXAMPLES)}; expected one a participant. "
            "Keep one, or name the column of IDs with --idColumn."
        )
    return tuple(row_ids)


def check_diagonal_absence(edge_rows: np.ndarray, parcel_count: int, table_path: Path) -> None:
    """Raises InputError if numbered edges (people, edges) are those of one parcel less with the diagonal: then the
    values at its places are the same in everybody."""
    diagonal_numbers = np.arange(parcel_count - 1)
    row_lengths = np.arange(parcel_count - 1, 0, -1)
    places_by_triangle = {
        "lower": diagonal_numbers * (diagonal_numbers + 3) // 2,
        "upper": np.cumsum(row_lengths) - row_lengths,
    }
    for triangle, places in places_by_triangle.items():
        diagonal_values = edge_rows[:, places]
        if len(edge_rows) > 1 and len(places) > 2 and (diagonal_values == diagonal_values.flat[0]).all():
            raise InputError(
                f"{table_path} has {diagonal_values.flat[0]:.3g} of everybody where the diagonal of the {triangle} "
                f"triangle of {parcel_count - 1} parcels stands; expected the upper triangle without it. Take it out."
            )


def describe_table(table_path: Path, id_column: str, row_count: int, columns: EdgeColumns) -> SummaryRow:
    """What was read."""
    order_text = "" if columns.are_parcels_named else ", numbered, as the upper triangle of a matrix row by row"
    return (
        "layout",
        f"{table_path}: {len(columns.column_indices)} edges of {len(columns.parcel_names)} parcels{order_text}, of "
        f"{format_participants(row_count)} by {id_column}",
    )
