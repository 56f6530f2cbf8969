"""CSV files of this program's own: one reader, one writer, one way to add a row. Text is UTF-8, lines end with \\n."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.base import files
from data.base.errors import InputError, compose_accents

if TYPE_CHECKING:
    import pandas as pd


def read_csv_rows(path: Path, required_columns: Sequence[str] = ()) -> dict[int, dict[str, str]]:
    """The rows of a table by the line on which each ends, column -> text. Raises InputError, naming the file and the
    line, if it is not UTF-8, lacks one of `required_columns`, has a column twice, or has a row that is not as long as
    the header."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = list(map(compose_accents, next(reader, [])))
            numbered_rows = [(reader.line_num, list(map(compose_accents, cells))) for cells in reader if cells]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Copy it again.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); expected a CSV table in UTF-8. Copy it again.") from error
    if missing_columns := [column for column in required_columns if column not in header]:
        raise InputError(
            f"{path} lacks the columns {', '.join(missing_columns)}; expected {', '.join(required_columns)}. Copy it "
            "again."
        )
    if len(set(header)) < len(header):
        raise InputError(f"{path} is damaged: it has a column twice ({', '.join(header)}). Copy it again.")
    if misshapen_rows := [(line_number, cells) for line_number, cells in numbered_rows if len(cells) != len(header)]:
        line_number, cells = misshapen_rows[0]
        raise InputError(
            f"{path} line {line_number} has {len(cells)} values; expected {len(header)}: {', '.join(header)}. Copy it "
            "again."
        )
    return {line_number: dict(zip(header, cells, strict=True)) for line_number, cells in numbered_rows}


def read_csv_frame(path: Path, required_columns: Sequence[str] = ()) -> "pd.DataFrame":
    """`read_csv_rows` as a data frame of text (dtype object)."""
    import pandas as pd

    rows = list(read_csv_rows(path, required_columns).values())
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else list(required_columns), dtype=object)


def write_csv_rows(path: Path, column_names: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes a table whole or not at all; values are written as `str` makes them."""
    with files.open_replacement(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(column_names)
        writer.writerows(rows)


def write_csv_frame(path: Path, table: "pd.DataFrame", significant_digits: int | None = None) -> None:
    """Writes a data frame without its index, NaN as nothing, floats with `significant_digits`, by default with all
    digits."""
    with files.open_replacement(path, newline="") as file:
        table.to_csv(
            file, index=False, float_format=significant_digits and f"%.{significant_digits}g", lineterminator="\n"
        )


def add_csv_row(path: Path, value_by_column: Mapping[str, object]) -> None:
    """Adds a row to a table, which need not exist; those before it stay byte by byte, several processes lose none. None
    and NaN become an empty cell. Raises InputError if the table has other columns."""
    import pandas as pd

    csv_text = pd.DataFrame([value_by_column]).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    header_line, _, row_line = csv_text.encode().partition(b"\n")
    with files.lock_exclusively(path, wait=True):
        content_before = path.read_bytes() if path.exists() else header_line
        if content_before.partition(b"\n")[0].rstrip() != header_line:
            raise InputError(
                f"{path} has other columns than {', '.join(value_by_column)}; no row was added. Rename it to have one."
            )
        with files.open_replacement(path, "wb") as file:
            file.write(content_before + b"\n" * (not content_before.endswith(b"\n")) + row_line)


def make_printable(text: str) -> str:
    """On one line; control, bidirectional and invisible characters, which a terminal may obey, become spaces."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
