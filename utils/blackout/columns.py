"""Tables of a blackout -> the tables of its page: their headings, texts, and what they are sorted by."""

import pandas as pd

from utils.blackout.direction import CORRELATION, DIFFERENCE, DIRECTION
from utils.blackout.effects import ONE_SUBJECT
from utils.blackout.fills import BACKGROUND, FILLS, RELIANCE, TESTED
from utils.blackout.results import CENTRE
from utils.figures import number
from utils.scores.results import Estimate, or_none

Cell = tuple[str, str, float | str | None]  # of a table: text, interval, what it is sorted by
ON_PAGE = (  # first what has p-values, last the background
    *TESTED,
    *(fill for fill in FILLS if fill.name != BACKGROUND and not fill.tested),
    *(fill for fill in FILLS if fill.name == BACKGROUND),
)
COLUMNS = {  # heading of the page's tables -> column and its format; a table shows those that it has
    **{name: (name, "") for name in ("between", "family", "thing")},
    "named": ("named", "d"),
    **{heading: (name, ".2f") for heading, name in (("comes out", "comes_out"), ("in the other", "in_the_other"))},
    **{name: (name, "") for name in ("a", "b", "level", "group")},
    "region": ("name", ""),
    "map": ("map", ""),
    RELIANCE: (RELIANCE, ".4f"),
    **{f"{of.prefix}p": (f"p_{of.name}", ".4f") for of in TESTED},
    **{of.name: (of.name, ".4f") for of in ON_PAGE[1:]},
    "difference of": ("difference_of", ""),
    DIRECTION: (DIRECTION, ""),
    DIFFERENCE: (DIFFERENCE, ".2f"),
    CORRELATION: (CORRELATION, ".2f"),
    "values": ("values", ""),
    "rank": ("rank", "d"),
    "size percentile": ("size_percentile", ".0f"),
    **{f"{of.prefix}q": (f"q_{of.name}", ".3g") for of in TESTED},
    **{f"{of.prefix}plain p": (f"p_{of.name}_plain", ".4f") for of in TESTED},
    **{f"{of.prefix}adjusted": (f"{of.name}_adjusted", ".4f") for of in TESTED},
    "remark": ("remark", ""),
    "hemisphere": ("hemisphere", ""),
    "voxels": ("voxels", "d"),
    "x, y, z (mm)": ("x_mm", ".0f"),
    "in autism": ("background_autism", ".4f"),
    "in control": ("background_control", ".4f"),
    "edges": ("edges", "d"),
    "system of a": ("system_a", ""),
    "system of b": ("system_b", ""),
}
DIRECTED = [DIFFERENCE, CORRELATION, DIRECTION]
FEW = "no interval"  # too few people of a class, or one correlation


def table_rows(table: pd.DataFrame) -> list[dict[str, Cell]]:
    """The rows of a table of the page, by heading; without directions if nothing there has one."""
    undirected = DIRECTION in table and not table[DIRECTION].any()
    return [table_cells(row) for row in table.drop(columns=DIRECTED if undirected else []).to_dict("records")]


def table_cells(row: dict) -> dict[str, Cell]:
    """A row of a table: heading -> the text, the interval below it if there is one, and what it is sorted by. That is a
    number, None if it is undefined, or the text itself."""
    cells: dict[str, Cell] = {}
    for heading, (column, form) in COLUMNS.items():
        if column not in row:
            continue
        value = row[column]
        known = f"{column}_low" in row and not pd.isna(value)
        ends = Estimate.in_row(row, column).ends(form, FEW if column in DIRECTED else ONE_SUBJECT) if known else ""
        text = "" if pd.isna(value) else str(value)
        cells[heading] = (number(value, form), ends, or_none(value)) if form else (text, "", text)
    if "x_mm" in row:
        centre = (f"{row[axis]:.0f}" for axis in CENTRE)
        cells["x, y, z (mm)"] = (", ".join(centre), "", or_none(row["x_mm"]))
    return cells
