"""Tables of a blackout -> the tables of its page and of the terminal: their headings, texts and meanings."""

from collections.abc import Sequence

import pandas as pd

from data.base.terminal import print_unless_quiet
from data.cohorts.records import CLASSES
from data.pages.page import Row
from utils.blackout.direction import CORRELATION, DIFFERENCE, DIRECTION
from utils.blackout.effects import ONE_SUBJECT
from utils.blackout.fills import BACKGROUND, FILLS, RELIANCE, TESTED, UNIQUE
from utils.blackout.results import BlackoutResults
from utils.figures import number, shortened
from utils.scores.results import Estimate

ON_PAGE = (  # first what has p-values, last the background
    *TESTED,
    *(fill for fill in FILLS if fill.name != BACKGROUND and not fill.tested),
    *(fill for fill in FILLS if fill.name == BACKGROUND),
)
COLUMNS = {  # heading of the page's tables -> column and its format
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
CENTRE = ["x_mm", "y_mm", "z_mm"]  # of a region, MNI space
DIRECTED = [DIFFERENCE, CORRELATION, DIRECTION]
FEW = "no interval"  # too few people of a class, or one correlation
ALL_PEOPLE = "labels permuted over subjects, one-sided. Adjusted for the covariates that are named above, if any."
MEANINGS = {
    RELIANCE: "How much the logit of the true class falls if those of other people take the place of a person's own. "
    "Mean over subjects, with its 95% interval for this row alone.",
    DIRECTION: "Which way people differ there, and how the network reads it.",
    DIFFERENCE: "Autism minus control, within sites where these are known, in standard deviations, with its 95% "
    "interval. It is of these people, not of the network. It is not adjusted for covariates, so it may be one of "
    "age or motion.",
    CORRELATION: "Within sites where these are known, of a person's value with its effect on the logit of autism, with "
    "its 95% interval. It is positive where more of it speaks for autism.",
    "rank": "The order by reliance, as in regions.csv; equal regions in the order of the atlas.",
    **{f"{of.prefix}p": f"Family-wise p of {of.called} over all regions: {ALL_PEOPLE}" for of in TESTED},
    **{f"{of.prefix}q": f"False discovery rate of {of.called}." for of in TESTED},
    **{f"{of.prefix}plain p": "The family-wise p before adjustment for covariates." for of in TESTED},
    **{
        f"{of.prefix}adjusted": "The mean effect that p tests: what goes with the diagnosis among people with similar "
        "covariates. Mean over subjects, with its 95% interval."
        for of in TESTED
    },
    "remark": "Possibly a suppressor: unique, but without significant reliance. Such a region need not differ between "
    "the classes, but tells the network how to read others.",
    **{f"in {name}": "The effect of the background in this class." for name in CLASSES},
    "level": "Pairs of systems, or pairs of regions within the pairs of systems that are found.",
    "edges": "How many edges there are between a and b.",
    "difference of": "Direction and difference are of this value: the first of the group, or how much is unknown.",
}
OF_REPLICATION = {
    "between": "Halves of these people, drawn many times within sites and folds. Repeats: networks trained again, on "
    "the same people.",
    "thing": "What is named, or comes out. A row without a thing is of the whole family.",
    "named": "What is significant in all people here is 1; of the whole family, their number.",
    "comes out": "The share of halves or repeats that name it, too. Of the whole family, the share of things "
    "that do in most.",
    "in the other": "Of the halves or repeats that name it, the share whose partners name it, too.",
    CORRELATION: "Of the mean effects of all things of a family in one half, or repeat, with those in the other. Below "
    "it stands their range.",
}
FIRST = ("region", RELIANCE, "p", UNIQUE, f"{UNIQUE} p", DIRECTION)
BY_MAP = ("region", "map", RELIANCE, "p", DIRECTION, DIFFERENCE)
CONNECTIONS = ("a", "b", "level", RELIANCE, "p", DIRECTION, DIFFERENCE, "edges")
VALUES = ("group", RELIANCE, "p", DIRECTION, DIFFERENCE, "difference of")
NAME_WIDTH = 23  # letters of a region's name in the terminal
TOP = 10  # regions in the terminal
LINE = "{:24}{:>28}{:>9}{:>9}{:>9}{:>12}"  # of its table
HEADINGS = ("region", "reliance", "p", "unique", "p", "background")


def table_rows(table: pd.DataFrame, headings: Sequence[str] = tuple(COLUMNS)) -> list[Row]:
    """The rows of a table of the page, with those of the headings that it has; without directions if nothing there has
    one."""
    undirected = DIRECTED if DIRECTION in table and not table[DIRECTION].any() else []
    shown = [name for name in headings if COLUMNS[name][0] in table and COLUMNS[name][0] not in undirected]
    return [{name: cell(row, *COLUMNS[name]) for name in shown} for row in table.to_dict("records")]


def cell(row: dict, column: str, form: str) -> str:
    """A value of a row as text, with its interval if there is one."""
    value = row[column]
    if not form:
        return "" if pd.isna(value) else str(value)
    if column == CENTRE[0]:
        return ", ".join(f"{row[axis]:{form}}" for axis in CENTRE)
    if f"{column}_low" not in row:
        return number(value, form)
    return Estimate.in_row(row, column).text(form, no_interval=FEW if column in DIRECTED else ONE_SUBJECT)


def print_tables(results: BlackoutResults) -> None:
    """The strongest regions, and all groups of values."""
    if results.regions:
        print_table(results.regions.table)
    if results.values:
        print_unless_quiet(LINE.format("values", *HEADINGS[1:3], *[""] * 3).rstrip())
        for row in results.values.table.to_dict("records"):
            line = LINE.format(*reliance_cells(row["group"], row), *[""] * 3).rstrip()
            print_unless_quiet(f"{line}  {row['difference_of']}: {row['direction'] or 'direction not known'}")


def reliance_cells(name: str, row: dict) -> tuple[str, str, str]:
    """The first cells of a row of the terminal's table."""
    reliance = Estimate.in_row(row, RELIANCE).text(".4f", no_interval=ONE_SUBJECT)
    return shortened(name, NAME_WIDTH), reliance, number(row[f"p_{RELIANCE}"], ".4f")


def print_table(table: pd.DataFrame) -> None:
    """The ten regions of most reliance."""
    print_unless_quiet(f"The strongest of {len(table)} regions; an interval is for its region alone, p for all.")
    print_unless_quiet(LINE.format(*HEADINGS))
    for row in table.head(TOP).to_dict("records"):
        cells = (
            *reliance_cells(row["name"], row), f"{row['unique']:.4f}",
            number(row["p_unique"], ".4f"), f"{row['background']:.4f}",
        )  # fmt: skip
        print_unless_quiet(LINE.format(*cells))
