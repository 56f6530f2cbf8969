"""Results of a blackout -> `blackout.png`: a panel for each family on one page as wide as a journal's."""

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from data.cohorts import nifti, records
from data.cohorts.atlas import Atlas
from utils import figures
from utils.blackout.colours import PALE, Matrix, effect_ticks, largest_effect, painted, shades
from utils.blackout.families import Effect, Family
from utils.blackout.fills import RELIANCE
from utils.blackout.results import BlackoutResults
from utils.blackout.sentences import replicates
from utils.figures import shortened
from utils.scores.results import ALPHA, CONFIDENCE, Estimate

EFFECT = "logit of the true class"
BARS = 20
CELLS = 20  # rows and columns of a matrix
NAME_WIDTH = 26  # letters of a name beside a bar or a row, or below a column
WIDTH, DPI = 7.2, 300  # inches of two columns of a journal, dots an inch
FONT, BIG = 6.5, 8  # points of letters, and of headings
LINE, LETTERS = 0.115, 140  # inches of a line, its letters
NAMES, RIGHT_HALF = 1.55, 3.85  # inches left of bars and matrices; where the right half begins
BAR, WHISKERS = 0.125, 0.95  # inches of a bar, of the axis of bars
FOOT, LEGEND = 0.5, 0.25  # inches below bars, and of the legend
CUTS = 3
CELL = 0.13  # inches of a cell of a matrix


@dataclass(frozen=True)
class Panel:
    """A part of a figure, `top` inches below the figure's upper end; places in it are inches from its upper left."""

    figure: Figure
    top: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        wide, high = self.figure.get_size_inches()
        axis = self.figure.add_axes((left / wide, 1 - (self.top + top + height) / high, width / wide, height / high))
        axis.tick_params(labelsize=FONT, length=2, pad=2)
        return axis

    def write(self, left: float, top: float, text: str, **options: Any) -> None:
        wide, high = self.figure.get_size_inches()
        shown: dict[str, Any] = {"fontsize": FONT, "va": "top"} | options
        self.figure.text(left / wide, 1 - (self.top + top) / high, text, **shown)


def height_of(family: Family) -> float:
    """Of its panel, inches."""
    if family.axes:
        return CELL * min(CELLS, family.place[family.axes[0]].nunique()) + 1.2
    bars = BAR * min(BARS, len(family.things)) + 0.16 + FOOT
    return max(bars, 2.3) if family.atlas else bars


def heading_of(found: BlackoutResults, family: Family) -> str:
    """Of its panel: how many things are significant, and how many of these are shown."""
    heading, row = family.kind.title, found.counted.loc[family.kind.name]
    if found.is_open:
        told = (f"{row[RELIANCE]} of {row['things']:,} significant", replicates(row))
        heading += f": {', '.join(filter(None, told))}"
    if family.axes and (rows := family.place[family.axes[0]].nunique()) > CELLS:
        heading += f" ({CELLS} of {rows} rows)"
    return heading


def draw(found: BlackoutResults) -> Figure:
    """The page: a panel for each family, one below the other."""
    heading = folded(f"{found.title}: mean over {found.sample}", int(LETTERS * FONT / BIG))
    count = len(found.people.adjusted.beside.whole)
    adjusted = f"p adjusted for {count} covariate{'s' if count > 1 else ''} (adjusted.csv)"
    told = folded("\n".join([found.verdict, *found.cautions, *([adjusted] if count else [])]))
    below = 0.1 + 1.3 * inches(heading)
    tops = np.cumsum([below + inches(told) + 0.1, *(0.35 + height_of(family) for family in found.families)])
    figure = plt.figure(figsize=(WIDTH, tops[-1] + LEGEND), dpi=DPI)
    with plt.rc_context({"font.size": FONT, "axes.linewidth": 0.6}):
        Panel(figure, 0.08).write(0.1, 0, heading, fontsize=BIG, weight="bold")
        Panel(figure, below).write(0.1, 0, told)
        for letter, top, family in zip("abcdefgh", tops, found.families, strict=False):
            panel = Panel(figure, top)
            panel.write(0.1, 0, f"{letter}   {heading_of(found, family)}", fontsize=BIG, weight="bold")
            draw_family(Panel(figure, top + 0.27), family)
        handles = legend_handles(found)
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0), ncols=4, frameon=False)
    return figure


def folded(text: str, letters: int = LETTERS) -> str:
    """The text in lines of so many letters."""
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


def inches(text: str) -> float:
    """The height of a text, inches."""
    return LINE * (text.count("\n") + 1) if text else 0


def draw_family(panel: Panel, family: Family) -> None:
    """A matrix, or bars of each tested effect of what is strongest, beside a brain or which way people differ."""
    if family.axes:
        matrix = Matrix.of(family, family.axes)
        high, wide = (min(CELLS, len(names)) for names in (matrix.rows, matrix.columns))
        draw_matrix(panel.axes(NAMES, 0, CELL * wide, CELL * high), matrix)
        draw_colours(panel.axes(NAMES + CELL * wide + 0.5, 0, 1.7, 0.22), matrix.effect, bool(matrix.marked.any()))
        return
    order = family.order[:BARS][::-1]
    axes = [
        panel.axes(NAMES + (WHISKERS + 0.1) * at, 0.16, WHISKERS, BAR * len(order)) for at in range(len(family.tested))
    ]
    for axis, effect in zip(axes, family.tested, strict=True):
        if axis is not axes[0]:
            axis.sharex(axes[0])
        draw_bars(axis, effect, order)
        axis.set_yticks([])
    axes[0].set_yticks(np.arange(len(order)), [shortened(family.things[at], NAME_WIDTH) for at in order])
    if family.atlas:
        draw_brain(panel.axes(RIGHT_HALF, 0.1, 3.25, 1.3), family, family.atlas)
        panel.write(RIGHT_HALF, 1.42, f"axial slices, MNI space; {figures.SIDES}")
        effect = family.reliance.of_people.mean(0)
        draw_colours(panel.axes(4.3, 1.7, 1.7, 0.22), effect, bool(family.significant.any()))
    elif not np.isnan(family.value).all():
        write_directions(panel, family)


def write_directions(panel: Panel, family: Family) -> None:
    """Which way people differ in what is strongest, beside its bars."""
    panel.write(3.3, 0.03, "autism minus control (within sites, where known), in standard deviations")
    for at, row in enumerate(family.table.head(min(BARS, len(family.things))).to_dict("records")):
        told = (Estimate.in_row(row, "difference").text(".2f"), row.get("difference_of", ""), row["direction"])
        panel.write(3.3, 0.16 + BAR * (at + 0.5), "  ".join(filter(None, told)), va="center")


def draw_bars(axis: Axes, effect: Effect, order: np.ndarray) -> None:
    """Mean effects of things with their intervals, from bottom to top, coloured by the p of the same effect."""
    places, (mean, low, high) = np.arange(len(order)), effect.interval[order].T
    axis.barh(places, mean, color=np.where(effect.significant[order], "C3", "0.6"))
    axis.axvline(0, color="0.3", linewidth=0.6)
    axis.set_ylim(-0.6, len(order) - 0.4)
    axis.set_title(effect.fill.name, fontsize=FONT, pad=2)
    axis.set_xlabel(f"mean effect on the\n{EFFECT}", fontsize=FONT, labelpad=1)
    axis.locator_params(axis="x", nbins=4)
    if np.isfinite(low).all():
        error = np.maximum([mean - low, high - mean], 0)  # a mean may lie outside by rounding
        axis.errorbar(mean, places, xerr=error, fmt="none", ecolor="0.2", elinewidth=0.8)


def legend_handles(found: BlackoutResults) -> list[Patch | Line2D]:
    """What colours, frames and whiskers mean."""
    kinds = [Patch(color="0.6", label="not significant" if found.is_open else "not marked: nothing is concluded")]
    if found.is_open:
        kinds.insert(0, Patch(color="C3", label=f"family-wise p < {ALPHA:g}"))
    if any(family.axes and family.significant.any() for family in found.families):
        kinds.append(Patch(fill=False, edgecolor="black", label="framed, or in full colour: significant"))
    if len(found.people.label) == 1:
        return [*kinds, Patch(alpha=0, label="no whiskers: one participant")]
    return [*kinds, Line2D([], [], color="0.2", label=f"{CONFIDENCE:.0%} interval over participants")]


def draw_brain(axis: Axes, family: Family, atlas: Atlas) -> None:
    """The group map of reliance on the axial slices where it is largest, red where a region speaks for the true class;
    significant regions are outlined."""
    from nilearn.plotting import find_cuts, plot_stat_map

    reliance = nifti.mni_image(atlas.paint(family.reliance.of_people.mean(0)), records.FULL)
    slices = find_cuts.find_cut_slices(reliance, "z", CUTS)
    image, options = painted(family, atlas)
    options |= {"black_bg": False, "annotate": False, "figure": axis.figure, "axes": axis}
    display = plot_stat_map(image, display_mode="z", cut_coords=slices, **options)
    if family.significant.any():
        display.add_contours(image, levels=[0.5], colors="black", linewidths=0.6)
    display.annotate(left_right=True, positions=False, size=FONT)
    for z, cut in display.axes.items():
        cut.ax.set_title(f"z = {round(z)} mm", fontsize=FONT, pad=2)


def draw_matrix(axis: Axes, of: Matrix) -> None:
    """Effects of the first pairs in colours; significant ones have their full colour and a frame."""
    axis.imshow(of.colours[:CELLS, :CELLS], aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(of.marked[:CELLS, :CELLS]):
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=0.9))
    rows, columns = ([shortened(name, NAME_WIDTH) for name in names[:CELLS]] for names in (of.rows, of.columns))
    axis.set_yticks(np.arange(len(rows)), rows)
    axis.set_xticks(np.arange(len(columns)), columns, rotation=90)
    axis.tick_params(length=0)


def draw_colours(axis: Axes, effect: np.ndarray, marked: bool) -> None:
    """The colours of reliance, pale below full ones if something is `marked` as significant."""
    opacities = {"not significant": PALE, "significant": 1.0} if marked else {"": PALE}
    rows, largest = np.stack([shades(opacity) for opacity in opacities.values()]), largest_effect(effect)
    axis.imshow(
        rows, origin="lower", aspect="auto", interpolation="nearest", extent=(-largest, largest, 0, len(opacities))
    )
    axis.set_yticks(np.arange(len(opacities)) + 0.5, opacities)
    axis.yaxis.tick_right()
    axis.tick_params(axis="y", length=0)
    ticks = effect_ticks(largest)
    axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axis.set_xlabel(f"reliance:\nmean effect on the {EFFECT}", fontsize=FONT, labelpad=1)
