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

from data.cohorts.atlas import Atlas
from utils import figures
from utils.blackout.colours import PALE, largest_effect, matrix, painted, ranked
from utils.blackout.families import Effect, Family
from utils.blackout.fills import RELIANCE
from utils.blackout.results import BlackoutResults
from utils.figures import shortened
from utils.scores.results import ALPHA, CONFIDENCE_LEVEL, Estimate

EFFECT = "mean effect on the logit of the true class"
BARS = CELLS = 20  # things with bars; rows and columns of a matrix
NAME_WIDTH = 26  # letters of a name beside a bar or a row, or below a column
WIDTH, DPI = 7.2, 300  # inches of two columns of a journal, dots an inch
FONT, BIG = 6.5, 8  # points of letters, and of headings
LINE, LETTERS = 0.12, 135  # inches of a line, its letters
BAR, CELL, BRAIN = 0.125, 0.13, 2.4  # inches of a bar, of a cell of a matrix, of a panel with a brain
AROUND, NAMES = 0.8, 1.4  # inches around bars, and around a matrix
CUTS = 3
STYLE: dict[Any, Any] = {
    "font.size": FONT,
    "axes.linewidth": 0.6,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "axes.titlesize": FONT,
}


def height_of(family: Family) -> float:
    """Of its panel, inches."""
    if family.axes:
        return CELL * min(CELLS, family.place[family.axes[0]].nunique()) + NAMES
    return max(BAR * min(BARS, len(family.things)) + AROUND, BRAIN if family.atlas else 0)


def heading_of(found: BlackoutResults, family: Family) -> str:
    """Of its panel: how many things are significant, and how many of these are shown."""
    heading, row = family.kind.many.capitalize(), found.counted.loc[family.kind.name]
    if found.is_open:
        told = (f"{row[RELIANCE]} of {row['things']:,} significant", found.replicates(family))
        heading += f": {', '.join(filter(None, told))}"
    if family.axes and (rows := family.place[family.axes[0]].nunique()) > CELLS:
        heading += f" ({CELLS} of {rows} rows)"
    return heading


def draw(found: BlackoutResults) -> Figure:
    """The page: a panel for each family, one below the other."""
    count = len(found.people.adjusted.beside.whole)
    adjusted = f"p adjusted for {count} covariate{'s' if count > 1 else ''} (adjusted.csv)"
    said = [found.verdict, *found.cautions, *([adjusted] if count else [])]
    lines = [line for text in said for line in textwrap.wrap(text, LETTERS)]
    heights = [LINE * len(lines) + 0.2, *map(height_of, found.families), LINE]
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout="constrained")
        grid = figure.add_gridspec(len(heights), height_ratios=heights)
        top, *parts, below = (figure.add_subfigure(grid[at]) for at in range(len(heights)))
        top.text(0.01, 0, "\n".join(lines), va="bottom")
        headings = [f"{found.title}: mean over {found.sample}"]
        headings += [f"{letter}   {heading_of(found, of)}" for letter, of in zip("abcd", found.families, strict=False)]
        for part, heading in zip((top, *parts), headings, strict=True):
            part.suptitle(heading, x=0.01, ha="left", fontsize=BIG, weight="bold")
        beside = [draw_family(part, family) for part, family in zip(parts, found.families, strict=True)]
        below.legend(handles=legend_handles(found), loc="lower left", ncols=4, frameon=False)
        figure.draw_without_rendering()  # so that all has its place before a brain fills its own
        for axis, family in zip(beside, found.families, strict=True):
            if family.atlas:
                draw_brain(axis, family, family.atlas)
    return figure


def draw_family(part: SubFigure, family: Family) -> Axes:
    """A matrix, or bars of each tested effect of what is significant or strongest, beside which way people differ. The
    axes beside these."""
    largest = largest_effect(family.reliance.of_people.mean(0))
    if family.axes:
        effects, marked = (grid.iloc[:CELLS, :CELLS] for grid in matrix(family, family.axes))
        wide = CELL * effects.shape[1] + NAMES
        axis, beside = part.subplots(1, 2, width_ratios=[wide, WIDTH - wide])
        draw_matrix(axis, effects, marked, largest)
        place = (0.05, 0.75, 0.35, 0.12)
    else:
        order, count = family.significant_first[:BARS][::-1], len(family.tested)
        *axes, beside = part.subplots(1, count + 1, width_ratios=[*[1] * count, 5 - count])
        for axis, of in zip(axes, family.tested, strict=True):
            draw_bars(axis, of, order)
            axis.sharex(axes[0])
            axis.set_yticks([])
        axes[0].set_yticks(np.arange(len(order)), [shortened(family.things[at], NAME_WIDTH) for at in order])
        place = (0.3, 0.12, 0.4, 0.07)
    beside.axis("off")
    if family.axes or family.atlas:
        colours = ScalarMappable(Normalize(-largest, largest), "RdBu_r")
        part.colorbar(colours, cax=beside.inset_axes(place), orientation="horizontal", label=f"reliance: {EFFECT}")
    elif not np.isnan(family.value).all():
        write_directions(beside, family)
    return beside


def write_directions(axis: Axes, family: Family) -> None:
    """Which way people differ in what has bars, beside these."""
    axis.set_title("autism minus control (within sites, where known), in standard deviations", loc="left")
    rows = family.rows.iloc[family.significant_first[:BARS]].to_dict("records")
    axis.set_ylim(len(rows) - 0.4, -0.6)
    for at, row in enumerate(rows):
        told = (Estimate.in_row(row, "difference").text(".2f"), row.get("difference_of", ""), row["direction"])
        axis.text(0, at, "  ".join(filter(None, told)), va="center")


def draw_bars(axis: Axes, effect: Effect, order: np.ndarray) -> None:
    """Mean effects of things with their intervals, from bottom to top, coloured by the p of the same effect."""
    places, (mean, low, high) = np.arange(len(order)), effect.interval[order].T
    axis.barh(places, mean, color=np.where(effect.significant[order], "C3", "0.6"))
    axis.axvline(0, color="0.3", linewidth=0.6)
    axis.set_ylim(-0.6, len(order) - 0.4)
    axis.set_title(effect.fill.name)
    axis.set_xlabel(textwrap.fill(EFFECT, 24))
    axis.locator_params(axis="x", nbins=4)
    if np.isfinite(low).all():
        error = np.maximum([mean - low, high - mean], 0)  # a mean may lie outside by rounding
        axis.errorbar(mean, places, xerr=error, fmt="none", ecolor="0.2", elinewidth=0.8)


def legend_handles(found: BlackoutResults) -> list[Patch | Line2D]:
    """What colours, frames and whiskers mean."""
    kinds = [Patch(color="0.6", label="not significant, or pale" if found.is_open else "nothing is concluded")]
    if found.is_open:
        kinds.insert(0, Patch(color="C3", label=f"family-wise p < {ALPHA:g}"))
    if any(family.axes and family.reliance.significant.any() for family in found.families):
        kinds.append(Patch(fill=False, edgecolor="black", label="framed: significant"))
    if len(found.people.label) == 1:
        return [*kinds, Patch(alpha=0, label="no whiskers: one participant")]
    return [*kinds, Line2D([], [], color="0.2", label=f"{CONFIDENCE_LEVEL:.0%} interval over participants")]


def draw_brain(axis: Axes, family: Family, atlas: Atlas) -> None:
    """The group map of reliance on axial slices through the first regions, in the upper part of its axes: red where a
    region speaks for the true class. Significant regions are outlined."""
    from nilearn.plotting import plot_stat_map

    centre = family.place.set_index("region")["z_mm"].round()
    slices = np.unique(centre[ranked(family, atlas)[:CUTS]])
    image, options = painted(family, atlas)
    figure = axis.figure.figure  # of which the panel is a part
    left, low, wide, high = axis.get_window_extent().transformed(figure.transFigure.inverted()).bounds
    options |= {"axes": (left, low + 0.35 * high, wide, 0.55 * high), "figure": figure}
    options |= {"black_bg": False, "annotate": False}
    display = plot_stat_map(image, display_mode="z", cut_coords=slices, **options)
    if family.reliance.significant.any():
        display.add_contours(image, levels=[0.5], colors="black", linewidths=0.6)
    display.annotate(left_right=True, positions=False, size=FONT)
    for z, cut in display.axes.items():
        cut.ax.set_title(f"z = {round(z)} mm", pad=2)
    axis.set_title(f"axial slices, MNI space; {figures.SIDES}")


def draw_matrix(axis: Axes, effects: pd.DataFrame, marked: pd.DataFrame, largest: float) -> None:
    """Effects of pairs in colours; significant ones have their full colour and a frame."""
    alpha = np.where(marked, 1, PALE)
    axis.imshow(effects, "RdBu_r", alpha=alpha, vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(marked.to_numpy()):
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=0.9))
    rows, columns = ([shortened(name, NAME_WIDTH) for name in names] for names in (effects.index, effects.columns))
    axis.set_yticks(np.arange(len(rows)), rows)
    axis.set_xticks(np.arange(len(columns)), columns, rotation=90)
    axis.tick_params(length=0)
