"""What several blackouts show -> `agreement.html`, one page that opens from disk, with its table and its picture."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from data.base import files
from data.base.listing import join_names
from data.base.tables import write_csv_frame
from data.base.terminal import format_participants, print_table
from data.pages.page import Link, Page, Section, render_page
from utils import figures
from utils.blackout.fills import RELIANCE_FILL
from utils.compare.agreement import FinishedBlackout
from utils.figures import shorten_text
from utils.machines.devices import git_commit
from utils.report.columns import ColumnSpec, make_table_section
from utils.runs import record
from utils.scores.results import BLACKOUT_PAGE_FILE, FAMILYWISE_ALPHA

AGREEMENT_JOB = "agreement"
AGREEMENT_PAGE = "agreement.html"
AGREEMENT_TABLE = "agreement.csv"
CORRELATION_TABLE = "rank_correlations.csv"
AGREEMENT_FIGURE = "agreement.png"
MAX_THINGS_LISTED = 5  # things of a family in a sentence
MAX_TABLE_ROWS = 200  # things of a family in the page's table
MAX_FIGURE_ROWS = 12  # things of a family in the picture, unless more are significant in all
MAX_NAME_LETTERS = 40  # of a thing in the picture
FIGURE_WIDTH_INCHES = 7.2
ROW_INCHES = 0.2
LARGEST_P_MEANING = (
    "The largest p over all blackouts. What one of them does not rely on is below the level with no larger chance than "
    "in that blackout alone."
)
DIFFERENCE_FOOTNOTE = (
    "Not significant in all does not say that models differ: one may miss what another finds. Models that read "
    "the same are not independent of each other."
)


def write_agreement(
    folder: Path,
    blackouts: Sequence[FinishedBlackout],
    agreement_table: pd.DataFrame,
    correlation_table: pd.DataFrame,
) -> Path:
    """Writes the tables, the picture, the page, whose path is returned, and the record of a comparison."""
    start_time = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_csv_frame(folder / AGREEMENT_TABLE, agreement_table, significant_digits=6)
    write_csv_frame(folder / CORRELATION_TABLE, correlation_table, significant_digits=6)
    page_links = []
    for blackout in blackouts:
        page_path = os.path.relpath(blackout.folder / BLACKOUT_PAGE_FILE, folder)
        page_links.append(Link(f"page of {blackout.folder}", quote(page_path)))
    agreement_figure = draw_agreement(blackouts, agreement_table)
    agreement_page = Page(
        "agreement",
        f"Agreement of {len(blackouts)} blackouts{join_caveat_marks(blackouts)}",
        f"{format_participants(len(set(blackouts[0].subjects)))}, {start_time}",
        [*make_agreement_sections(blackouts, agreement_table, correlation_table)],
        format_agreement_verdict(blackouts, agreement_table),
        figure=agreement_figure,
        links=page_links,
    )
    agreement_path = folder / AGREEMENT_PAGE
    with files.open_replacement(agreement_path) as page_file:
        page_file.write(render_page(agreement_page))
    figures.save_figure(agreement_figure, folder / AGREEMENT_FIGURE)
    agreement_manifest = record.Manifest(
        job=AGREEMENT_JOB,
        finished=True,
        command=(Path(sys.argv[0]).name, *sys.argv[1:]),
        started=start_time,
        versions=record.Versions(git_commit=git_commit()),
        outputs=record.fingerprint_outputs(folder),
    )
    record.write_manifest(folder / record.MANIFEST_FILE, agreement_manifest)
    return agreement_path


def join_caveat_marks(blackouts: Sequence[FinishedBlackout]) -> str:
    """The marks of all blackouts, such as ` (SIMULATED)`."""
    return "".join(dict.fromkeys(blackout.manifest.caveats.caveat_marks for blackout in blackouts))


def format_agreement_verdict(blackouts: Sequence[FinishedBlackout], agreement_table: pd.DataFrame) -> str:
    """What is significant in all blackouts, family by family; or that nothing is concluded."""
    inconclusive_folders = [str(blackout.folder) for blackout in blackouts if not blackout.is_concluded]
    if inconclusive_folders:
        return f"Nothing is significant in all: nothing is concluded in {join_names(inconclusive_folders)}."
    sentences = []
    for family_name, family_table in agreement_table.groupby("family", sort=False):
        agreed_names = family_table.query("in_all == 1")["thing"].tolist()
        names_text = f": {join_names(agreed_names, MAX_THINGS_LISTED)}" if agreed_names else ""
        sentences.append(
            f"Of {len(family_table):,} {family_name}, {len(agreed_names) or 'none'} "
            f"{'are' if len(agreed_names) > 1 else 'is'} significant in all {len(blackouts)} blackouts{names_text}."
        )
    return " ".join(sentences)


def print_agreement(
    blackouts: Sequence[FinishedBlackout], agreement_table: pd.DataFrame, correlation_table: pd.DataFrame
) -> None:
    """Prints the verdict, and how alike the effects of each family are."""
    print(format_agreement_verdict(blackouts, agreement_table))
    correlation_rows = []
    for family_name, family_rows in correlation_table.groupby("family", sort=False):
        lowest_text = f"{family_rows['rank_correlation'].min():.2f}"
        highest_text = f"{family_rows['rank_correlation'].max():.2f}"
        range_text = lowest_text if len(family_rows) == 1 else f"{lowest_text} to {highest_text}"
        correlation_rows.append([str(family_name), f"rank correlation of effects {range_text}"])
    print_table(correlation_rows, truncate_last_column=True)


def make_agreement_sections(
    blackouts: Sequence[FinishedBlackout], agreement_table: pd.DataFrame, correlation_table: pd.DataFrame
) -> Iterator[Section]:
    """In the order of the page."""
    conclusion_rows = []
    for blackout_number, blackout in enumerate(blackouts, 1):
        statement = blackout.manifest.blackout
        conclusion_rows.append(
            {
                "number": f"{blackout_number}",
                "blackout": str(blackout.folder),
                "model": blackout.manifest.model_name,
                "conclusion": statement.conclusion if statement else "",
            }
        )
    yield Section("The blackouts", table=conclusion_rows, open=True)

    column_specs = {"p_all": ColumnSpec("largest p", ".4f", LARGEST_P_MEANING)}
    column_specs["significant_in"] = ColumnSpec("significant in", ".0f")
    for blackout_number in range(1, len(blackouts) + 1):
        column_specs[f"{RELIANCE_FILL}_{blackout_number}"] = ColumnSpec(f"{RELIANCE_FILL} {blackout_number}", ".4f")
        column_specs[f"p_{blackout_number}"] = ColumnSpec(f"p {blackout_number}", ".4f")
    for family_name, family_table in agreement_table.groupby("family", sort=False):
        yield make_table_section(
            str(family_name).capitalize(),
            family_table.head(MAX_TABLE_ROWS),
            ["thing", *column_specs],
            f"Significant: family-wise p < {FAMILYWISE_ALPHA:g}, here in all blackouts. In full: {AGREEMENT_TABLE}.",
            column_specs,
            notes={"": DIFFERENCE_FOOTNOTE},
            open=True,
            filtered=len(family_table) > MAX_FIGURE_ROWS,
        )
    if not correlation_table.empty:
        yield make_table_section(
            "How alike effects are",
            correlation_table,
            ["family", "first", "second", "rank_correlation"],
            "Spearman's rank correlation of the mean effects of all things of a family.",
            {"rank_correlation": ColumnSpec("rank correlation", ".2f")},
        )


def draw_agreement(blackouts: Sequence[FinishedBlackout], agreement_table: pd.DataFrame) -> Figure:
    """A panel a family: a row a thing, a column a blackout, coloured by the mean effect as a share of the blackout's
    largest, and dotted where it is significant."""
    shown_tables = []
    for _, family_table in agreement_table.groupby("family", sort=False):
        shown_tables.append(family_table.head(max(MAX_FIGURE_ROWS, int(family_table["in_all"].sum()))))
    row_counts = [len(shown_table) for shown_table in shown_tables]
    figure_height = ROW_INCHES * sum(row_counts) + 0.6 * len(row_counts) + 0.6
    agreement_figure, panel_axes = plt.subplots(
        len(row_counts),
        1,
        figsize=(FIGURE_WIDTH_INCHES, figure_height),
        height_ratios=row_counts,
        layout="constrained",
        squeeze=False,
    )
    agreement_figure.set_label("agreement")
    column_numbers = range(1, len(blackouts) + 1)
    colour_mesh = None
    for axes, shown_table in zip(panel_axes[:, 0], shown_tables, strict=True):
        family_table = agreement_table[agreement_table["family"] == shown_table["family"].iloc[0]]
        effect_columns = [f"{RELIANCE_FILL}_{number}" for number in column_numbers]
        largest_effects = family_table[effect_columns].abs().max().replace(0, 1)
        colour_mesh = axes.imshow(
            shown_table[effect_columns] / largest_effects, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto"
        )
        for column_index, (number, blackout) in enumerate(zip(column_numbers, blackouts, strict=True)):
            is_significant = (shown_table[f"p_{number}"] < FAMILYWISE_ALPHA) & blackout.is_concluded
            row_positions = np.flatnonzero(is_significant)
            axes.plot(np.full(len(row_positions), column_index), row_positions, "o", color="black", markersize=4)
        axes.set_title(shown_table["family"].iloc[0], loc="left")
        thing_names = [shorten_text(name, MAX_NAME_LETTERS) for name in shown_table["thing"]]
        axes.set_yticks(range(len(thing_names)), thing_names)
        axes.set_xticks(range(len(blackouts)), [f"{number}" for number in column_numbers])
    assert colour_mesh is not None
    agreement_figure.colorbar(colour_mesh, ax=panel_axes[:, 0], label="mean effect, as a share of the largest")
    agreement_figure.supxlabel("blackout; a dot: significant there", fontsize="medium")
    return agreement_figure
