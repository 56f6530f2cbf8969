"""Files of numbers, as text, NumPy or MATLAB write them -> a table of numbers, with the names of its columns and rows.

AFNI, and so C-PAC, begins each line with a tab, and others end it with one. A first line is a header if it holds names,
or whole numbers, each once, above decimals.
"""

import csv
import re
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.base.errors import InputError, compose_accents, is_plain_text, parse_natural_number, quote_text
from data.base.files import check_regular_file
from data.base.listing import join_names
from data.cohorts.connectomes import MAX_PARCELS

NUMPY_SUFFIX = ".npy"
MATLAB_SUFFIX = ".mat"
DELIMITERS = ("\t", ",", ";")
MISSING_WORDS = ("", "n/a", "na", "nan")
DECIMAL_NUMBER = re.compile(r"[-+]?\d*\.\d+(e.*)?|[-+]?\d+(\.\d*)?e[-+]?\d+", re.IGNORECASE)
NUMBER_KINDS = "biuf"  # of NumPy's dtypes
MIN_MATRIX_EDGE = 2  # rows and columns of a variable that may be meant


@dataclass(frozen=True)
class NumberTable:
    """The numbers of a file, and the names in it."""

    values: np.ndarray  # (rows, columns) float64, NaN where unknown
    column_names: tuple[str, ...] = ()  # empty if they are not named
    row_names: tuple[str, ...] = ()

    @property
    def size_text(self) -> str:
        return " x ".join(map(str, self.values.shape))

    def transpose(self) -> "NumberTable":
        return NumberTable(self.values.T, self.row_names, self.column_names)


def read_number_table(path: Path, variable_name: str = "") -> NumberTable:
    """The numbers of a file; of a `.mat` those of a variable, which may be left unnamed if there is but one. Raises
    InputError, naming the file, for what is no table of numbers."""
    check_regular_file(path)
    suffix = path.suffix.lower()
    if variable_name and suffix != MATLAB_SUFFIX:
        raise InputError(
            f"{path} is no file of MATLAB, which alone has variables; leave :{variable_name} out of --connectome."
        )
    if suffix == MATLAB_SUFFIX:
        return NumberTable(check_array(read_matlab_variable(path, variable_name), path))
    if suffix == NUMPY_SUFFIX:
        return NumberTable(check_array(read_numpy_array(path), path))
    return read_text_numbers(path)


def read_matlab_variable(path: Path, variable_name: str) -> np.ndarray:
    """The variable of this name, or the only matrix of numbers. Raises InputError, naming the file."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        value_by_name = loadmat(path)
    except NotImplementedError as error:
        raise InputError(
            f"{path} is in the format of MATLAB 7.3, which is not read; expected that of 7. Save it again, with "
            "save(..., '-v7')."
        ) from error
    except (MatReadError, ValueError, OSError, TypeError, KeyError, IndexError, zlib.error, struct.error) as error:
        read_error_reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read as a file of MATLAB: {read_error_reason}. Save it again.") from error

    matrix_by_name = {
        name: value
        for name, value in value_by_name.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in NUMBER_KINDS and min(value.shape) >= MIN_MATRIX_EDGE
    }
    variable_texts = [f"{name} ({' x '.join(map(str, value.shape))})" for name, value in matrix_by_name.items()]
    if variable_name in matrix_by_name:
        return matrix_by_name[variable_name]
    if not matrix_by_name:
        other_names = [name for name in value_by_name if not name.startswith("__")]
        raise InputError(
            f"{path} holds no matrix of numbers, but {join_names(other_names) or 'nothing'}; expected one. Save it "
            "again, with the matrix as a variable."
        )
    if variable_name:
        raise InputError(
            f"{path} has no matrix {variable_name}; it has {join_names(variable_texts)}. Name one of these: "
            "--connectome NAME:VARIABLE."
        )
    if len(matrix_by_name) > 1:
        raise InputError(
            f"{path} holds several matrices, {join_names(variable_texts)}; name one: --connectome NAME:VARIABLE, such "
            f"as NAME:{next(iter(matrix_by_name))}."
        )
    return next(iter(matrix_by_name.values()))


def read_numpy_array(path: Path) -> np.ndarray:
    """The array of a `.npy`. Raises InputError, naming the file, also for one of Python's objects."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        read_error_reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read as an array of NumPy: {read_error_reason}. Save it again.") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays; expected one. Save it with numpy.save.")
    return array


def check_array(array: np.ndarray, path: Path) -> np.ndarray:
    """The array as float64. Raises InputError unless it is a table of numbers."""
    if array.dtype.kind not in NUMBER_KINDS:
        raise InputError(f"{path} holds values of the type {array.dtype}; expected real numbers. Save these.")
    if array.ndim != 2 or 0 in array.shape:
        shape_text = " x ".join(map(str, array.shape)) or "one number"
        raise InputError(
            f"{path} holds {shape_text}; expected the table of one person, rows x columns. Save a file for each, with "
            "the ID in its name."
        )
    return array.astype(np.float64)


def read_text_numbers(path: Path) -> NumberTable:
    """The numbers of a text. Raises InputError, naming the file, and where what is no number stands."""
    cell_rows = read_cell_rows(path)
    header_cells = list[str]()
    if is_header(cell_rows[0], cell_rows[1] if len(cell_rows) > 1 else []):
        header_cells, *cell_rows = cell_rows
    if not cell_rows:
        raise InputError(f"{path} has one line; expected a table of numbers. Save it again.")

    # the first column holds names if it has none of its own, or what are no numbers, or the names of the columns
    first_column = [cells[0] for cells in cell_rows]
    is_first_column_unnamed = len(header_cells) == len(cell_rows[0]) - 1 or header_cells[:1] == [""]
    has_row_names = (
        (bool(header_cells) and is_first_column_unnamed)
        or not all(map(is_number_text, first_column))
        or (len(cell_rows) > 1 and header_cells[1:] == first_column)
    )
    if has_row_names:
        cell_rows = [cells[1:] for cells in cell_rows]
        header_cells = header_cells[1:] if len(header_cells) > len(cell_rows[0]) else header_cells
    values = parse_numbers(cell_rows, path, 2 if header_cells else 1)
    if header_cells and len(header_cells) != values.shape[1]:
        raise InputError(
            f"{path} has {values.shape[1]} columns, its header {len(header_cells)} names; expected as many."
        )
    return NumberTable(
        values,
        tuple(map(clean_name, header_cells)),
        tuple(map(clean_name, first_column)) if has_row_names else (),
    )


def read_cell_rows(path: Path) -> list[list[str]]:
    """The cells of all lines of a text but its comments, without empty columns at either end. Raises InputError,
    naming the file, if there is nothing."""
    try:
        lines = compose_accents(path.read_text(encoding="utf-8-sig")).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected a table of numbers as text.") from error
    lines = [line for line in lines if line.strip()]
    comment_count = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if comment_count == len(lines):
        raise InputError(f"{path} holds no numbers; expected a table of them. Save it again.")

    # of several lines that begin with #, the last may be a header
    lines = lines[max(comment_count - 1, 0) :]
    lines[0] = re.sub(r"^#\s+", "", lines[0])
    delimiter = next((character for character in DELIMITERS if character in lines[:2][-1].strip()), None)
    if delimiter:
        cell_rows = [[cell.strip() for cell in cells] for cells in csv.reader(lines, delimiter=delimiter)]
    else:
        cell_rows = [line.split() for line in lines]
    is_first_column_empty = all(cells[0] == "" for cells in cell_rows[1:])
    is_last_column_empty = all(cells[-1] == "" for cells in cell_rows[1:]) and len(cell_rows) > 1
    if is_first_column_empty and len(cell_rows) > 1:
        has_empty_header_cell = cell_rows[0][0] == ""
        cell_rows = [cell_rows[0][has_empty_header_cell:], *(cells[1:] for cells in cell_rows[1:])]
    if is_last_column_empty:
        has_empty_header_cell = cell_rows[0][-1] == ""
        header_end = len(cell_rows[0]) - has_empty_header_cell
        cell_rows = [cell_rows[0][:header_end], *(cells[:-1] for cells in cell_rows[1:])]
    return cell_rows


def is_header(first_cells: Sequence[str], second_cells: Sequence[str]) -> bool:
    """Whether the first line of a text names columns: some of its cells, but for the first, are no numbers, or all are
    whole numbers, each once, above decimals."""
    column_cells = first_cells[1:]  # the first cell may stand above names of rows
    if not all(map(is_number_text, column_cells)):
        return True
    are_whole_numbers = all(parse_natural_number(cell) is not None for cell in column_cells)
    are_distinct = len({*first_cells}) == len(first_cells) > 1
    has_decimals_below = any(DECIMAL_NUMBER.fullmatch(cell) for cell in second_cells)
    return are_whole_numbers and are_distinct and has_decimals_below and not DECIMAL_NUMBER.fullmatch(first_cells[0])


def is_number_text(cell_text: str) -> bool:
    """Whether a cell holds a number, or says that it is missing."""
    if cell_text.casefold() in MISSING_WORDS:
        return True
    try:
        float(cell_text)
    except ValueError:
        return False
    return True


def parse_numbers(cell_rows: Sequence[Sequence[str]], path: Path, first_line_number: int) -> np.ndarray:
    """The numbers of rows of cells, (rows, columns) float64. Raises InputError for rows of other lengths than the first
    and for what is no number."""
    for line_number, cells in enumerate(cell_rows, first_line_number):
        if len(cells) != len(cell_rows[0]):
            raise InputError(
                f"{path} has {len(cells)} columns in line {line_number}, {len(cell_rows[0])} in line "
                f"{first_line_number}; expected as many. Save it again."
            )
    number_texts = [["nan" if cell.casefold() in MISSING_WORDS else cell for cell in cells] for cells in cell_rows]
    try:
        return np.array(number_texts, float)
    except ValueError:
        for line_number, cells in enumerate(cell_rows, first_line_number):
            if not all(map(is_number_text, cells)):
                wrong_cell = next(cell for cell in cells if not is_number_text(cell))
                raise InputError(
                    f"{path} holds {quote_text(wrong_cell)} in line {line_number}; expected numbers, with decimal "
                    "points. Correct it."
                ) from None
        raise


def clean_name(cell_text: str) -> str:
    """The name in a cell, `12` for `#12`."""
    return cell_text.removeprefix("#").strip()


def read_parcel_names(names_path: Path) -> tuple[str, ...]:
    """The names of parcels in a text, one a line. Raises InputError, naming it, if it is none."""
    check_regular_file(names_path)
    try:
        lines = compose_accents(names_path.read_text(encoding="utf-8-sig")).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{names_path} cannot be read ({error}); expected names of parcels, one a line.") from error
    return tuple(clean_name(line.strip()) for line in lines if line.strip())


def find_header_error(parcel_names: Sequence[str]) -> str:
    """What is wrong with the names of parcels in the first line of a file; empty if nothing is."""
    if invalid_parcel_names := [
        parcel_name
        for parcel_name in parcel_names
        if not is_plain_text(parcel_name) or DECIMAL_NUMBER.fullmatch(parcel_name)
    ]:
        return (
            f"has {quote_text(invalid_parcel_names[0])} in its first line; expected the names of parcels. Write a line "
            "of these above, or a file: --parcelNames."
        )
    if not all(parcel_names) and any(parcel_names):
        column_number = parcel_names.index("") + 1
        return (
            f"has no name for column {column_number} of {len(parcel_names)}; expected that of a parcel. Name it, or "
            "take it out."
        )
    if not 2 <= len(parcel_names) <= MAX_PARCELS:
        return f"has {len(parcel_names)} columns in its first line; expected the names of 2 to {MAX_PARCELS} parcels."
    if repeated_name_texts := [
        f"{parcel_name} ({name_count} times)"
        for parcel_name, name_count in Counter(parcel_names).items()
        if name_count > 1
    ]:
        repeated_name = next(parcel_name for parcel_name, name_count in Counter(parcel_names).items() if name_count > 1)
        return (
            f"names {join_names(repeated_name_texts)} in its first line; expected each parcel once. Rename these "
            f"columns, such as to {repeated_name}_1 and {repeated_name}_2, in the files of everybody."
        )
    return ""
