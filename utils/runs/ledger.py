"""`runs.csv`: one row for every finished run, in the folder that holds the output folders."""

import csv
import io
import math
from pathlib import Path

from data.base import files
from data.base.errors import InputError
from data.base.text import in_spreadsheet, printable

COLUMNS = ("when", "job", "model", "preset", "cohort", "folds", "metric", "value", "low", "high", "folder")


def add(run_folder_parent: Path, row: dict) -> None:
    """Appends a row with all of `COLUMNS`; what cannot be written, or is not ours, is said in one line and left alone.

    Rows that are there stay byte by byte, and several processes lose none. None and NaN become an empty cell.
    """
    path = run_folder_parent / files.LEDGER
    line, header = as_line([cell(row[name]) for name in COLUMNS]), as_line(COLUMNS)
    try:
        with files.locked(path, wait=True):
            before = path.read_bytes() if path.exists() else header
            if before.partition(b"\n")[0].rstrip() != header.rstrip():
                print(f"{path} is not a table of runs of this program; no row was added. Rename it to have one.")
                return
            with files.replacing(path, "wb") as file:
                file.write(before + b"\n" * (not before.endswith(b"\n")) + line)
    except (OSError, InputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        print(f"{path} could not be written ({reason}); the run is not in it, its results are complete.")


def cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else in_spreadsheet(printable(str(value)))


def as_line(cells) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
