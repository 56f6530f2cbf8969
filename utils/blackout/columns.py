"""Tables of a blackout -> those of its page and of the terminal: headings, texts and meanings."""

from collections.abc import Sequence

import pandas as pd

from data.base.terminal import print_unless_quiet
from data.pages.page import Row
from utils.blackout.direction import CORRELATION, DIFFERENCE, DIRECTION
from utils.blackout.effects import ONE_SUBJECT
from utils.blackout.families import Family
from utils.blackout.fills import FILLS, RELIANCE
from utils.figures import number, shortened
from utils.scores.results import Estimate

COLUMNS = {  # of the page's tables -> its heading and format; others are text under their own name
    "name": ("region", ""),
    "named": ("named", "d"),
    "replicates": ("comes out", ".2f"),
    "in_the_other": ("in the other", ".2f"),
    **{fill.name: (fill.name, ".4f") for fill in FILLS},
    **{f"p_{fill.name}": (f"{fill.prefix}p", ".4f") for fill in FILLS},
    DIFFERENCE: (DIFFERENCE, ".2f"),
    CORRELATION: (CORRELATION, ".2f"),
    "difference_of": ("difference of", ""),
}
OF_REPLICATION = ("between", "family", "thing", "named", "replicates", "in_the_other", CORRELATION)
DIRECTED = (DIRECTION, DIFFERENCE)
FEW = "no interval"  # too few people of a class, or one correlation
MEANINGS = {  # by heading
    **{fill.name: fill.meaning for fill in FILLS},
    **{
        f"{fill.prefix}p": f"Family-wise p of {fill.name} over all rows of its level, and of no other family: labels "
        "permuted over participants, one-sided; adjusted for the covariates that are named above, if any."
        for fill in FILLS
        if fill.tested
    },
    DIRECTION: "Which way participants differ there, and how the network reads it.",
    DIFFERENCE: "Autism minus control, within sites where these are known, in standard deviations, with its 95% "
    "interval. It is of these participants, not of the network. It is not adjusted for covariates, so it may be one of "
    "age or motion.",
    "level": "Pairs of systems, or pairs of regions within the pairs of systems that are found.",
    "between": "Halves of these participants, drawn often within sites and folds. Repeats: networks trained again, "
    "on the same participants.",
    "thing": "What is named, or comes out. A row without a thing is of the whole family.",
    "named": "What is significant in all participants here is 1; of the whole family, their number.",
    "comes out": "The share of halves or repeats that name it, too. Of the whole family, the share of things "
    "that do in most.",
    "in the other": "Of the halves or repeats that name it, the share whose partners name it, too.",
    CORRELATION: "Of the mean effects of all things of a family in one half, or repeat, with those in the other. Below "
    "it stands the range of 95% of them, which is no interval.",
}
NAME_WIDTH = 23  # letters of a name in the terminal
TOP = 5  # things of a family in the terminal


def columns_of(family: Family) -> list[str]:
    """Those of a family that its page shows, without directions if nothing there has one."""
    of_effects = [name for effect in family.tested for name in (effect.fill.name, f"p_{effect.fill.name}")]
    of_effects += [effect.fill.name for effect in family.effects if not effect.fill.tested]
    directed = DIRECTED if family.table[DIRECTION].any() else ()
    also = ["difference_of"] if "difference_of" in family.table else []
    return [*family.kind.shown, *of_effects, *directed, *also]


def table_rows(table: pd.DataFrame, columns: Sequence[str]) -> list[Row]:
    """The rows of a table of the page."""
    shown = {name: COLUMNS.get(name, (name, "")) for name in columns}
    rows = table.to_dict("records")
    return [{heading: cell(row, name, form) for name, (heading, form) in shown.items()} for row in rows]


def cell(row: dict, column: str, form: str) -> str:
    """A value of a row as text, with its interval if there is one."""
    value = row[column]
    if not form:
        return "" if pd.isna(value) else str(value)
    if f"{column}_low" not in row:
        return number(value, form)
    without = FEW if column in (DIFFERENCE, CORRELATION) else ONE_SUBJECT
    return Estimate.in_row(row, column).text(form, no_interval=without)


def print_strongest(families: Sequence[Family]) -> None:
    """The things of most reliance of each family."""
    print_unless_quiet("The strongest of each family; an interval is for its row alone, p for all of its family.")
    for family in families:
        headings = [text for effect in family.tested for text in (effect.fill.name, "p")]
        print_line(f"{len(family.things):,} {family.kind.many}", *headings)
        for place, row in zip(family.order[:TOP], family.table.head(TOP).to_dict("records"), strict=False):
            cells = [Estimate.in_row(row, RELIANCE).text(".4f", no_interval=ONE_SUBJECT)]
            for effect in family.tested:
                name = effect.fill.name
                cells += [] if name == RELIANCE else [f"{row[name]:.4f}"]
                cells.append(number(row[f"p_{name}"], ".4f"))
            print_line(family.things[place], *cells)


def print_line(name: str, reliance: str, *cells: str) -> None:
    print_unless_quiet(f"{shortened(name, NAME_WIDTH):24}{reliance:>28}" + "".join(f"{cell:>9}" for cell in cells))
