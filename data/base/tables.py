"""CSV files of this program's own: one reader, one writer, one way to add a row. Text is UTF-8, lines end with \\n; no
value that is written is one that is refused when it is read."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.base import files
from data.base.errors import PLAIN, InputError, is_plain, shown

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@")  # a cell that begins so is a formula to a spreadsheet


def read_rows(path: Path, columns: Sequence[str] = ()) -> dict[int, dict[str, str]]:
    """The rows of a table by the line on which each ends, column -> text. Raises InputError, naming the file and the
    line, if it is not UTF-8, lacks one of `columns`, or has a column twice; for a row that is not as long as the
    header; for a value that is not plain text."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); expected a CSV table in UTF-8. Copy it again.") from error
    if missing := [name for name in columns if name not in header]:
        raise InputError(
            f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(columns)}. Copy it again."
        )
    if len(set(header)) < len(header):
        raise InputError(f"{path} is damaged: it has a column twice ({', '.join(header)}). Copy it again.")
    if wrong := [(line, row) for line, row in rows if len(row) != len(header)]:
        line, row = wrong[0]
        raise InputError(
            f"{path} line {line} has {len(row)} values; expected {len(header)}: {', '.join(header)}. Copy it again."
        )
    for line, row in [(1, header), *rows]:
        if odd := next((text for text in row if not is_plain(text)), None):
            raise InputError(f"{path} line {line} holds the text {shown(odd)}; {PLAIN}. Copy it again.")
    return {line: dict(zip(header, row, strict=True)) for line, row in rows}


def read_frame(path: Path, columns: Sequence[str] = ()) -> "pd.DataFrame":
    """`read_rows` as a data frame of text (dtype object)."""
    import pandas as pd

    rows = list(read_rows(path, columns).values())
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else list(columns), dtype=object)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes a table whole or not at all; values are written as `str` makes them. Raises as `check_cells` does."""
    rows = [tuple(row) for row in rows]
    check_cells(path, columns, rows)
    with files.replacing(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_frame(path: Path, table: "pd.DataFrame", texts: Sequence[str] = (), digits: int | None = None) -> None:
    """Writes a data frame without its index, NaN as nothing, floats with so many significant `digits`; columns in
    `texts` hold names that users chose, which no spreadsheet is to compute. Raises as `check_cells` does."""
    check_cells(path, list(table), table.select_dtypes(exclude="number").itertuples(index=False))
    cells = table.assign(**{name: table[name].map(in_spreadsheet) for name in texts if name in table})
    with files.replacing(path, newline="") as file:
        cells.to_csv(file, index=False, float_format=digits and f"%.{digits}g", lineterminator="\n")


def check_cells(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Raises InputError for a column's name or a text that could not be read again."""
    for number, row in enumerate([columns, *rows]):
        if odd := next((text for text in row if isinstance(text, str) and not is_plain(text)), None):
            where = f"in row {number}" if number else "as the name of a column"
            raise InputError(f"{path} cannot hold {shown(odd)} {where}; {PLAIN}. Rename it where it comes from.")
    if len(set(columns)) < len(columns):
        raise InputError(f"{path} would have a column twice ({', '.join(columns)}); rename one.")


def add_row(path: Path, row: Mapping[str, object]) -> None:
    """Adds a row to a table, which need not exist; those before it stay byte by byte, several processes lose none. None
    and NaN become an empty cell. Raises InputError if the table has other columns."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([list(row), map(cell, row.values())])
    header, _, line = text.getvalue().encode().partition(b"\n")
    with files.locked(path, wait=True):
        before = path.read_bytes() if path.exists() else header
        if before.partition(b"\n")[0].rstrip() != header.rstrip():
            raise InputError(
                f"{path} has other columns than {', '.join(row)}; no row was added. Rename it to have one."
            )
        with files.replacing(path, "wb") as file:
            file.write(before + b"\n" * (not before.endswith(b"\n")) + line)


def cell(value: object) -> str:
    """A value for a table that is read by people: six significant digits, text on one line and not a formula."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else in_spreadsheet(printable(str(value)))


def printable(text: str) -> str:
    """On one line; control, bidirectional and invisible characters, which a terminal may obey, become spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def in_spreadsheet(text: str) -> str:
    """A cell of a CSV file; an apostrophe is put before a formula, so that no spreadsheet computes it."""
    return f"'{text}" if text.startswith(FORMULA) else text
