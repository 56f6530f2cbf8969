"""Tables -> sections of a page. What a column is called, how its numbers are written and what it means is in one
registry, `SPEC_BY_COLUMN`; metrics are there, too, as they are columns of one table and rows of another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from data.pages.page import CellByHeading, Section
from utils.figures import format_number
from utils.scores.results import (
    DETECTABLE_DIFFERENCE_COLUMN,
    NO_INTERVAL_TEXT,
    Estimate,
    format_people_count,
    list_estimate_columns,
)

COUNT_FORMAT = "count"  # of a cell: a number of participants
NAME_FORMAT = "name"  # of a cell: the name of another column, whose heading is shown


@dataclass(frozen=True)
class ColumnSpec:
    """The heading of a column; the format of its numbers, `COUNT_FORMAT` or `NAME_FORMAT`, or none where it contains
    text; what it means."""

    heading: str
    cell_format: str = ""
    column_meaning: str = ""


AUC_MEANING = "The chance that a participant with autism has the higher probability than a control"
DIFFERENCE_MEANING = "The model minus the baseline. An interval that holds 0 shows no difference."
SCORE_FORMAT = ".3f"
SPEC_BY_COLUMN = {
    "auc": ColumnSpec(
        "AUC, all participants together",
        SCORE_FORMAT,
        f"{AUC_MEANING} of any site. One that tells only sites apart can be high.",
    ),
    "auc_sites": ColumnSpec("AUC within sites", SCORE_FORMAT, f"{AUC_MEANING} of the same site. 0.5 is guessing."),
    "auc_folds": ColumnSpec(
        "AUC within folds", SCORE_FORMAT, f"{AUC_MEANING} whom the same model tested. 0.5 is guessing."
    ),
    **{
        f"model_minus_baseline_{auc_name}": ColumnSpec(
            f"{auc_heading}, model minus baseline", SCORE_FORMAT, DIFFERENCE_MEANING
        )
        for auc_name, auc_heading in {
            "auc": "AUC",
            "auc_sites": "AUC within sites",
            "auc_folds": "AUC within folds",
        }.items()
    },
    DETECTABLE_DIFFERENCE_COLUMN: ColumnSpec(
        "minimum detectable difference",
        SCORE_FORMAT,
        "The true difference of this AUC that 8 of 10 such studies would show. Of smaller ones, no difference shown "
        "says little.",
    ),
    "accuracy": ColumnSpec(
        "accuracy", SCORE_FORMAT, "The share whose diagnosis is predicted; compare the share of the larger class."
    ),
    "balanced_accuracy": ColumnSpec(
        "balanced accuracy", SCORE_FORMAT, "The mean of recall and specificity. 0.5 is guessing."
    ),
    "recall": ColumnSpec(
        "recall", SCORE_FORMAT, "Sensitivity: the share of participants with autism who are predicted as such."
    ),
    "specificity": ColumnSpec("specificity", SCORE_FORMAT, "The share of controls who are predicted as such."),
    "precision": ColumnSpec(
        "precision", SCORE_FORMAT, "The share with autism among those who are predicted to have it."
    ),
    "f_score": ColumnSpec("F score", SCORE_FORMAT, "The harmonic mean of precision and recall."),
    "brier": ColumnSpec(
        "Brier score", SCORE_FORMAT, "The mean squared distance of probability and diagnosis; always 0.5 has 0.25."
    ),
    "slope": ColumnSpec(
        "calibration slope", ".2f", "1: as sure as they should be; below 1 too sure; below 0 look for exchanged labels."
    ),
    "intercept": ColumnSpec(
        "calibration intercept",
        ".2f",
        "0: as many have autism as predicted. Above 0 more have it, as where it is more common than in the training.",
    ),
    "value": ColumnSpec("value", SCORE_FORMAT),
    "p": ColumnSpec("p", ".2g", "The chance of a value at least as far from none, if there were nothing to find."),
    "subjects": ColumnSpec("participants", COUNT_FORMAT),
    "autism": ColumnSpec("autism", COUNT_FORMAT),
    "control": ColumnSpec("control", COUNT_FORMAT),
    "participants": ColumnSpec("participants", COUNT_FORMAT),
    "repeat": ColumnSpec("repeat", ".0f"),
    "seed": ColumnSpec("seed", ".0f"),
}


def find_heading(column_name: str) -> str:
    """The label of a column, or of a metric."""
    return SPEC_BY_COLUMN[column_name].heading if column_name in SPEC_BY_COLUMN else column_name.replace("_", " ")


def format_cell(
    row: Mapping[str, Any], column_name: str, column_spec: ColumnSpec, no_interval_text: str = NO_INTERVAL_TEXT
) -> str:
    """A value of a row as text, with its interval if the row has one."""
    cell_value = row[column_name]
    if column_spec.cell_format == "":
        return "" if pd.isna(cell_value) else str(cell_value)
    if column_spec.cell_format == NAME_FORMAT:
        return "" if pd.isna(cell_value) else find_heading(cell_value)
    if column_spec.cell_format == COUNT_FORMAT:
        return "" if pd.isna(cell_value) else format_people_count(cell_value)
    estimate_name = "" if column_name == "value" else column_name  # of a table that holds one estimate a row
    if list_estimate_columns(estimate_name)[1] in row:
        return Estimate.from_row(row, estimate_name).text(column_spec.cell_format, no_interval_text=no_interval_text)
    return "" if pd.isna(cell_value) else format_number(cell_value, column_spec.cell_format)


def make_page_rows(
    table: pd.DataFrame,
    column_names: Sequence[str],
    spec_by_column: Mapping[str, ColumnSpec] = SPEC_BY_COLUMN,
    no_interval_text: str = NO_INTERVAL_TEXT,
) -> list[CellByHeading]:
    """The rows of a page's table with these columns of a table."""
    spec_by_selected_column = {
        column_name: spec_by_column.get(column_name, ColumnSpec(column_name.replace("_", " ")))
        for column_name in column_names
    }
    page_rows = []
    for table_row in table.to_dict("records"):
        text_by_heading = {
            column_spec.heading: format_cell(table_row, column_name, column_spec, no_interval_text)
            for column_name, column_spec in spec_by_selected_column.items()
        }
        page_rows.append(text_by_heading)
    return page_rows


def make_table_section(
    section_title: str,
    table: pd.DataFrame,
    column_names: Sequence[str],
    introduction_sentence: str = "",
    spec_by_column: Mapping[str, ColumnSpec] = SPEC_BY_COLUMN,
    **section_options: Any,
) -> Section:
    """A section: a sentence about a table, and these columns of it."""
    page_rows = make_page_rows(table, column_names, spec_by_column)
    return Section(
        section_title,
        [introduction_sentence] if introduction_sentence else None,
        table=page_rows,
        meanings=make_meaning_by_heading(spec_by_column),
        **section_options,
    )


def make_meaning_by_heading(spec_by_column: Mapping[str, ColumnSpec] = SPEC_BY_COLUMN) -> dict[str, str]:
    """What columns mean, by their headings."""
    return {
        column_spec.heading: column_spec.column_meaning
        for column_spec in spec_by_column.values()
        if column_spec.column_meaning
    }
