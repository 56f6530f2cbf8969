"""CSV files of this program's own: one reader, one writer, one way to add a row. Text is UTF-8, lines end with \\n."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.base import files
from data.base.errors import InputError, composed

if TYPE_CHECKING:
    import pandas as pd


def read_rows(path: Path, columns: Sequence[str] = ()) -> dict[int, dict[str, str]]:
    """The rows of a table by the line on which each ends, column -> text. Raises InputError, naming the file and the
    line, if it is not UTF-8, lacks one of `columns`, or has a column twice; for a row that is not as long as the
    header."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = list(map(composed, next(reader, [])))
            rows = [(reader.line_num, list(map(composed, row))) for row in reader if row]
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
    return {line: dict(zip(header, row, strict=True)) for line, row in rows}


def read_frame(path: Path, columns: Sequence[str] = ()) -> "pd.DataFrame":
    """`read_rows` as a data frame of text (dtype object)."""
    import pandas as pd

    rows = list(read_rows(path, columns).values())
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else list(columns), dtype=object)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes a table whole or not at all; values are written as `str` makes them."""
    with files.replacing(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_frame(path: Path, table: "pd.DataFrame", digits: int | None = None) -> None:
    """Writes a data frame without its index, NaN as nothing, floats with so many significant `digits`."""
    with files.replacing(path, newline="") as file:
        table.to_csv(file, index=False, float_format=digits and f"%.{digits}g", lineterminator="\n")


def add_row(path: Path, row: Mapping[str, object]) -> None:
    """Adds a row to a table, which need not exist; those before it stay byte by byte, several processes lose none. None
    and NaN become an empty cell. Raises InputError if the table has other columns."""
    import pandas as pd

    text = pd.DataFrame([row]).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    header, _, line = text.encode().partition(b"\n")
    with files.locked(path, wait=True):
        before = path.read_bytes() if path.exists() else header
        if before.partition(b"\n")[0].rstrip() != header:
            raise InputError(
                f"{path} has other columns than {', '.join(row)}; no row was added. Rename it to have one."
            )
        with files.replacing(path, "wb") as file:
            file.write(before + b"\n" * (not before.endswith(b"\n")) + line)


def printable(text: str) -> str:
    """On one line; control, bidirectional and invisible characters, which a terminal may obey, become spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
