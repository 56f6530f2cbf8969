"""Tables -> sections of a page. What a column is called, how its numbers are written and what it means stands in one
registry, `COLUMNS`; so do metrics, which are columns of one table and rows of another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from data.pages.page import CellByHeading, Section
from utils.figures import number
from utils.scores.results import DETECTABLE, NO_INTERVAL, Estimate, columns_of, counted

COUNT, NAME = "count", "name"  # forms of cells: a number of participants, the label of another column


@dataclass(frozen=True)
class Column:
    """Its heading; the format of its numbers, COUNT or NAME, or none where it holds text; what it means."""

    label: str
    form: str = ""
    meaning: str = ""


AREA = "The chance that a participant with autism has the higher probability than a control"
DIFFERENCE = "The model minus the baseline. An interval that holds 0 shows no difference."
SCORE = ".3f"
COLUMNS = {
    "auc": Column(
        "AUC, all participants together", SCORE, f"{AREA} of any site. One that tells only sites apart can be high."
    ),
    "auc_sites": Column("AUC within sites", SCORE, f"{AREA} of the same site. 0.5 is guessing."),
    "auc_folds": Column("AUC within folds", SCORE, f"{AREA} whom the same model tested. 0.5 is guessing."),
    **{
        f"model_minus_baseline_{name}": Column(f"{label}, model minus baseline", SCORE, DIFFERENCE)
        for name, label in {"auc": "AUC", "auc_sites": "AUC within sites", "auc_folds": "AUC within folds"}.items()
    },
    DETECTABLE: Column(
        "minimum detectable difference",
        SCORE,
        "The true difference of this AUC that 8 of 10 such studies would show. Of smaller ones, no difference shown "
        "says little.",
    ),
    "accuracy": Column(
        "accuracy", SCORE, "The share whose diagnosis is predicted; compare the share of the larger class."
    ),
    "balanced_accuracy": Column("balanced accuracy", SCORE, "The mean of recall and specificity. 0.5 is guessing."),
    "recall": Column("recall", SCORE, "Sensitivity: the share of participants with autism who are predicted as such."),
    "specificity": Column("specificity", SCORE, "The share of controls who are predicted as such."),
    "precision": Column("precision", SCORE, "The share with autism among those who are predicted to have it."),
    "f_score": Column("F score", SCORE, "The harmonic mean of precision and recall."),
    "brier": Column(
        "Brier score", SCORE, "The mean squared distance of probability and diagnosis; always 0.5 has 0.25."
    ),
    "slope": Column(
        "calibration slope", ".2f", "1: as sure as they should be; below 1 too sure; below 0 look for exchanged labels."
    ),
    "intercept": Column(
        "calibration intercept",
        ".2f",
        "0: as many have autism as predicted. Above 0 more have it, as where it is more common than in the training.",
    ),
    "value": Column("value", SCORE),
    "p": Column("p", ".2g", "The chance of a value at least as far from none, if there were nothing to find."),
    "subjects": Column("participants", COUNT),
    "autism": Column("autism", COUNT),
    "control": Column("control", COUNT),
    "participants": Column("participants", COUNT),
    "repeat": Column("repeat", ".0f"),
    "seed": Column("seed", ".0f"),
}


def spelled(name: str) -> str:
    """The label of a column, or of a metric."""
    return COLUMNS[name].label if name in COLUMNS else name.replace("_", " ")


def cell(row: Mapping[str, Any], name: str, column: Column, no_interval: str = NO_INTERVAL) -> str:
    """A value of a row as text, with its interval if the row has one."""
    value = row[name]
    if column.form in ("", NAME):
        return "" if pd.isna(value) else spelled(value) if column.form else str(value)
    if column.form == COUNT:
        return "" if pd.isna(value) else counted(value)
    of = "" if name == "value" else name  # of a table that holds one estimate a row
    if columns_of(of)[1] in row:
        return Estimate.in_row(row, of).text(column.form, no_interval=no_interval)
    return "" if pd.isna(value) else number(value, column.form)


def rows_of(
    table: pd.DataFrame, names: Sequence[str], columns: Mapping[str, Column] = COLUMNS, no_interval: str = NO_INTERVAL
) -> list[CellByHeading]:
    """The rows of a page's table with these columns of a table."""
    shown = {name: columns.get(name, Column(name.replace("_", " "))) for name in names}
    rows = table.to_dict("records")
    return [{of.label: cell(row, name, of, no_interval) for name, of in shown.items()} for row in rows]


def section(
    title: str,
    table: pd.DataFrame,
    names: Sequence[str],
    about: str = "",
    columns: Mapping[str, Column] = COLUMNS,
    **of: Any,
) -> Section:
    """A section: a sentence about a table, and these columns of it."""
    rows = rows_of(table, names, columns)
    return Section(title, [about] if about else None, table=rows, meanings=meanings(columns), **of)


def meanings(columns: Mapping[str, Column] = COLUMNS) -> dict[str, str]:
    """What columns mean, by their headings."""
    return {column.label: column.meaning for column in columns.values() if column.meaning}
