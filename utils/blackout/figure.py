"""Results of a blackout -> `blackout.png`: a panel for each family on one page as wide as a journal's."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from data.base.thresholds import CONFIDENCE_LEVEL
from data.images.atlas import Atlas
from utils import figures
from utils.blackout.colours import (
    PALE_OPACITY,
    find_largest_absolute_effect,
    make_effect_matrix,
    paint_effects,
    rank_regions,
)
from utils.blackout.families import FeatureFamily, FillEffect
from utils.blackout.fills import RELIANCE_FILL
from utils.blackout.results import BlackoutResults
from utils.figures import shorten_text
from utils.scores.results import FAMILYWISE_ALPHA, Estimate

EFFECT_LABEL = "mean effect on the {output} of the true class"  # see `BlackoutResults.fill_words`
MAX_BARS = 20  # features with bars
MAX_MATRIX_CELLS = 20  # rows, and columns, of a matrix
MAX_FIGURE_NAME_LETTERS = 26  # letters of a name beside a bar or a row, or below a column
FIGURE_WIDTH_INCHES = 7.2  # two columns of a journal
DOTS_PER_INCH = 300
FONT_POINTS = 6.5
HEADING_POINTS = 8
LINE_INCHES = 0.12  # height of a line
LETTERS_PER_LINE = 135
BAR_INCHES = 0.125
CELL_INCHES = 0.13  # of a matrix
BRAIN_PANEL_INCHES = 2.4  # height of a panel with a brain, at least
BAR_MARGIN_INCHES = 0.8  # above and below bars
MATRIX_MARGIN_INCHES = 1.4  # around a matrix
BRAIN_SLICE_COUNT = 3
MATPLOTLIB_STYLE: dict[Any, Any] = {
    "font.size": FONT_POINTS,
    "axes.linewidth": 0.6,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "axes.titlesize": FONT_POINTS,
}


def compute_panel_height_inches(feature_family: FeatureFamily) -> float:
    """The height of a family's panel, in inches."""
    if feature_family.matrix_axis_columns:
        return CELL_INCHES * min(MAX_MATRIX_CELLS, count_matrix_rows(feature_family)) + MATRIX_MARGIN_INCHES
    bars_inches = BAR_INCHES * min(MAX_BARS, len(feature_family.feature_names)) + BAR_MARGIN_INCHES
    return max(bars_inches, BRAIN_PANEL_INCHES) if feature_family.atlas else bars_inches


def count_matrix_rows(feature_family: FeatureFamily) -> int:
    """How many rows the matrix of a family has, before any is left out; 0 without a matrix."""
    if not feature_family.matrix_axis_columns:
        return 0
    row_column, _ = feature_family.matrix_axis_columns
    return feature_family.feature_table[row_column].nunique()


def format_panel_heading(results: BlackoutResults, feature_family: FeatureFamily) -> str:
    """The heading of a family's panel: how many features are significant, and how many rows are shown if not all
    are."""
    panel_heading = feature_family.feature_kind.plural_feature_name.capitalize()
    count_row = results.family_counts.loc[feature_family.feature_kind.kind_name]
    if results.is_conclusive:
        significance_texts = (
            f"{count_row[RELIANCE_FILL]} of {count_row['things']:,} significant",
            results.describe_replication_in_halves(feature_family),
        )
        panel_heading += f": {', '.join(filter(None, significance_texts))}"
    matrix_row_count = count_matrix_rows(feature_family)
    if matrix_row_count > MAX_MATRIX_CELLS:
        panel_heading += f" ({MAX_MATRIX_CELLS} of {matrix_row_count} rows)"
    return panel_heading


def draw_blackout(results: BlackoutResults) -> Figure:
    """The page: a panel for each family, one below the other."""
    summary_lines = wrap_summary(results)
    panel_heights_inches = [
        LINE_INCHES * len(summary_lines) + 0.2,
        *map(compute_panel_height_inches, results.feature_families),
        LINE_INCHES,
    ]
    panel_headings = [f"{results.page_title}: mean over {results.sample_description}"]
    for panel_letter, feature_family in zip("abcd", results.feature_families, strict=False):
        panel_headings.append(f"{panel_letter}   {format_panel_heading(results, feature_family)}")

    with plt.rc_context(MATPLOTLIB_STYLE):
        # The summary, a panel for each family, and the legend
        blackout_figure = plt.figure(
            figsize=(FIGURE_WIDTH_INCHES, sum(panel_heights_inches)), dpi=DOTS_PER_INCH, layout="constrained"
        )
        panel_grid = blackout_figure.add_gridspec(len(panel_heights_inches), height_ratios=panel_heights_inches)
        panels = [blackout_figure.add_subfigure(panel_grid[index]) for index in range(len(panel_heights_inches))]
        summary_panel, *family_panels, legend_panel = panels
        summary_panel.text(0.01, 0, "\n".join(summary_lines), va="bottom")
        for panel, panel_heading in zip((summary_panel, *family_panels), panel_headings, strict=True):
            panel.suptitle(panel_heading, x=0.01, ha="left", fontsize=HEADING_POINTS, weight="bold")
        side_axes_by_family = [
            draw_family_panel(panel, feature_family, results.fill_words(EFFECT_LABEL))
            for panel, feature_family in zip(family_panels, results.feature_families, strict=True)
        ]
        legend_panel.legend(handles=make_legend_handles(results), loc="lower left", ncols=4, frameon=False)

        blackout_figure.draw_without_rendering()  # so that all axes have their places before brains are drawn in theirs
        for side_axes, feature_family in zip(side_axes_by_family, results.feature_families, strict=True):
            if feature_family.atlas:
                draw_brain(side_axes, feature_family, feature_family.atlas)
    return blackout_figure


def wrap_summary(results: BlackoutResults) -> list[str]:
    """The lines on top: what is concluded, with which cautions, and for how many covariates p is adjusted."""
    summary_texts = [results.conclusion, *results.cautions]
    covariate_count = len(results.people.adjuster.adjustment.nearly_complete_covariates)
    if covariate_count:
        covariates_text = f"{covariate_count} covariate{'s' if covariate_count > 1 else ''}"
        summary_texts.append(f"p adjusted for {covariates_text} (adjusted.csv)")
    return [
        summary_line for summary_text in summary_texts for summary_line in textwrap.wrap(summary_text, LETTERS_PER_LINE)
    ]


def draw_family_panel(panel: SubFigure, feature_family: FeatureFamily, effect_label: str) -> Axes:
    """Draws a matrix, or bars of each tested effect of the significant or strongest features, and next to the bars
    which way people differ. Returns the axes next to the matrix or bars."""
    largest_absolute_mean_effect = find_largest_absolute_effect(feature_family.reliance_effect.subject_effects.mean(0))
    if feature_family.matrix_axis_columns:
        all_effects, all_significance = make_effect_matrix(feature_family, feature_family.matrix_axis_columns)
        effect_matrix = all_effects.iloc[:MAX_MATRIX_CELLS, :MAX_MATRIX_CELLS]
        is_significant = all_significance.iloc[:MAX_MATRIX_CELLS, :MAX_MATRIX_CELLS]
        matrix_width_inches = CELL_INCHES * effect_matrix.shape[1] + MATRIX_MARGIN_INCHES
        plot_axes, side_axes = panel.subplots(
            1, 2, width_ratios=[matrix_width_inches, FIGURE_WIDTH_INCHES - matrix_width_inches]
        )
        draw_matrix(plot_axes, effect_matrix, is_significant, largest_absolute_mean_effect)
        colour_bar_bounds = (0.05, 0.75, 0.35, 0.12)  # left, bottom, width, height as shares of the side axes
    else:
        bar_feature_indices = feature_family.significant_first_order[:MAX_BARS][::-1]
        effect_count = len(feature_family.tested_effects)
        *effect_axes, side_axes = panel.subplots(
            1, effect_count + 1, width_ratios=[*[1] * effect_count, 5 - effect_count]
        )
        for plot_axes, fill_effect in zip(effect_axes, feature_family.tested_effects, strict=True):
            draw_bars(plot_axes, fill_effect, bar_feature_indices, effect_label)
            plot_axes.sharex(effect_axes[0])
            plot_axes.set_yticks([])
        bar_names = [
            shorten_text(feature_family.feature_names[feature_index], MAX_FIGURE_NAME_LETTERS)
            for feature_index in bar_feature_indices
        ]
        effect_axes[0].set_yticks(np.arange(len(bar_names)), bar_names)
        colour_bar_bounds = (0.3, 0.12, 0.4, 0.07)
    side_axes.axis("off")
    if feature_family.matrix_axis_columns or feature_family.atlas:
        colour_scale = ScalarMappable(Normalize(-largest_absolute_mean_effect, largest_absolute_mean_effect), "RdBu_r")
        panel.colorbar(
            colour_scale,
            cax=side_axes.inset_axes(colour_bar_bounds),
            orientation="horizontal",
            label=f"reliance: {effect_label}",
        )
    elif not np.isnan(feature_family.feature_values).all():
        write_directions(side_axes, feature_family)
    return side_axes


def write_directions(text_axes: Axes, feature_family: FeatureFamily) -> None:
    """Writes, next to the bars, which way people differ in the features that have one."""
    text_axes.set_title("autism minus control (within sites, where known), in standard deviations", loc="left")
    feature_rows = feature_family.feature_rows.iloc[feature_family.significant_first_order[:MAX_BARS]].to_dict(
        "records"
    )
    text_axes.set_ylim(len(feature_rows) - 0.4, -0.6)
    for row_index, feature_row in enumerate(feature_rows):
        direction_texts = (
            Estimate.from_row(feature_row, "difference").text(".2f"),
            feature_row.get("difference_of", ""),
            feature_row["direction"],
        )
        text_axes.text(0, row_index, "  ".join(filter(None, direction_texts)), va="center")


def draw_bars(bar_axes: Axes, fill_effect: FillEffect, bar_feature_indices: np.ndarray, effect_label: str) -> None:
    """Mean effects of features with their intervals, from bottom to top, coloured by the p of the same effect."""
    bar_positions = np.arange(len(bar_feature_indices))
    mean_effects, interval_lows, interval_highs = fill_effect.means_with_intervals[bar_feature_indices].T
    bar_colours = np.where(fill_effect.is_significant[bar_feature_indices], "C3", "0.6")
    bar_axes.barh(bar_positions, mean_effects, color=bar_colours)
    bar_axes.axvline(0, color="0.3", linewidth=0.6)
    bar_axes.set_ylim(-0.6, len(bar_feature_indices) - 0.4)
    bar_axes.set_title(fill_effect.fill.fill_name)
    bar_axes.set_xlabel(textwrap.fill(effect_label, 24))
    bar_axes.locator_params(axis="x", nbins=4)
    if np.isfinite(interval_lows).all():
        # a mean may lie outside by rounding
        error_lengths = np.maximum([mean_effects - interval_lows, interval_highs - mean_effects], 0)
        bar_axes.errorbar(mean_effects, bar_positions, xerr=error_lengths, fmt="none", ecolor="0.2", elinewidth=0.8)


def make_legend_handles(results: BlackoutResults) -> list[Patch | Line2D]:
    """What colours, frames and whiskers mean."""
    legend_handles = list[Patch | Line2D]()
    if results.is_conclusive:
        legend_handles.append(Patch(color="C3", label=f"family-wise p < {FAMILYWISE_ALPHA:g}"))
        legend_handles.append(Patch(color="0.6", label="not significant, or pale"))
    else:
        legend_handles.append(Patch(color="0.6", label="nothing is concluded"))
    has_framed_cells = any(
        feature_family.matrix_axis_columns and feature_family.reliance_effect.is_significant.any()
        for feature_family in results.feature_families
    )
    if has_framed_cells:
        legend_handles.append(Patch(fill=False, edgecolor="black", label="framed: significant"))
    if len(results.people.subject_labels) == 1:
        legend_handles.append(Patch(alpha=0, label="no whiskers: one participant"))
    else:
        legend_handles.append(Line2D([], [], color="0.2", label=f"{CONFIDENCE_LEVEL:.0%} interval over participants"))
    return legend_handles


def draw_brain(panel_axes: Axes, feature_family: FeatureFamily, atlas: Atlas) -> None:
    """The group map of reliance on axial slices through the first regions, in the upper part of its axes: red where a
    region speaks for the true class. Significant regions are outlined."""
    from nilearn.plotting import plot_stat_map

    z_mm_by_region = feature_family.feature_table.set_index("region")["z_mm"].round()
    slice_z_mm = np.unique(z_mm_by_region[rank_regions(feature_family, atlas)[:BRAIN_SLICE_COUNT]])
    effect_image, plot_options = paint_effects(feature_family, atlas)
    parent_figure = panel_axes.figure.figure  # of which the panel is a part
    # shares of the figure
    panel_left, panel_bottom, panel_width, panel_height = (
        panel_axes.get_window_extent().transformed(parent_figure.transFigure.inverted()).bounds
    )
    plot_options |= {
        "axes": (panel_left, panel_bottom + 0.35 * panel_height, panel_width, 0.55 * panel_height),
        "figure": parent_figure,
        "black_bg": False,
        "annotate": False,
    }
    brain_display = plot_stat_map(effect_image, display_mode="z", cut_coords=slice_z_mm, **plot_options)
    if feature_family.reliance_effect.is_significant.any():
        brain_display.add_contours(effect_image, levels=[0.5], colors="black", linewidths=0.6)
    brain_display.annotate(left_right=True, positions=False, size=FONT_POINTS)
    for z_mm, slice_axes in brain_display.axes.items():
        slice_axes.ax.set_title(f"z = {round(z_mm)} mm", pad=2)
    panel_axes.set_title(f"axial slices, MNI space; {figures.LEFT_RIGHT_CAPTION}")


def draw_matrix(
    matrix_axes: Axes, effect_matrix: pd.DataFrame, is_significant: pd.DataFrame, largest_absolute_mean_effect: float
) -> None:
    """Effects of pairs in colours; significant ones have their full colour and a frame."""
    cell_opacity = np.where(is_significant, 1, PALE_OPACITY)
    matrix_axes.imshow(
        effect_matrix,
        "RdBu_r",
        alpha=cell_opacity,
        vmin=-largest_absolute_mean_effect,
        vmax=largest_absolute_mean_effect,
        aspect="auto",
        interpolation="nearest",
    )
    for row_index, column_index in np.argwhere(is_significant.to_numpy()):
        matrix_axes.add_patch(
            Rectangle((column_index - 0.5, row_index - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=0.9)
        )
    short_row_names = [shorten_text(row_name, MAX_FIGURE_NAME_LETTERS) for row_name in effect_matrix.index]
    short_column_names = [shorten_text(column_name, MAX_FIGURE_NAME_LETTERS) for column_name in effect_matrix.columns]
    matrix_axes.set_yticks(np.arange(len(short_row_names)), short_row_names)
    matrix_axes.set_xticks(np.arange(len(short_column_names)), short_column_names, rotation=90)
    matrix_axes.tick_params(length=0)
