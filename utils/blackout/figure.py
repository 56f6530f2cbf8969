"""Results of a blackout -> `blackout.png`, one page of maps, connections and values as wide as a journal's, and
`regions_by_map.png` of several maps."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from utils import figures
from utils.blackout.connections import SYSTEMS
from utils.blackout.fills import RELIANCE, TESTED
from utils.blackout.results import (
    PALE,
    BlackoutResults,
    ByMap,
    Matrix,
    Pairs,
    Regions,
    Things,
    effect_ticks,
    largest_effect,
    mean_title,
    painted,
    shades,
)
from utils.figures import shortened
from utils.runs.run import Run
from utils.scores.results import ALPHA, CONFIDENCE, Estimate

EFFECT = "logit of the true class"
BARS = 20
ROWS = 30  # regions in the figure by map
NAME_WIDTH = 26  # letters of a name beside a bar or a row, or below a column
WIDTH, DPI = 7.2, 300  # inches of two columns of a journal, dots an inch
FONT, BIG = 6.5, 8  # points of letters, and of headings
LINE, LETTERS = 0.115, 140  # inches of a line, its letters
NAMES, RIGHT_HALF = 1.55, 3.85  # inches left of bars and matrices; where the right half begins
BAR, WHISKERS = 0.125, 0.95  # inches of a bar, of the axis of bars
FOOT, LEGEND = 0.5, 0.25  # inches below bars, and of the legend
SIDE = 1.8  # inches of the matrix of systems
CELL = 0.17  # inches of a region or map in the figure by map


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


@dataclass(frozen=True)
class Part:
    """What is tested together, with the texts above it, the height of its panel, inches, and what draws it."""

    name: str
    of: Things
    told: Sequence[str]
    height: float
    drawn: Callable[[Panel], None]

    @property
    def text(self) -> str:
        return folded("\n".join(filter(None, self.told)))


def parts_of(results: BlackoutResults) -> list[Part]:
    """Regions, connections and values, as far as they were replaced."""
    found = []
    if of := results.regions:
        told = (of.summary, f"{of.shading} Axial slices, MNI space; {figures.SIDES}.")
        height = max(BAR * min(BARS, len(of.table)) + 0.16 + FOOT, 2.3)
        found.append(Part("Regions", of, told, height, partial(draw_regions, of=of)))
    if pairs := results.connections:
        told = (pairs.summary, f"{pairs.of(SYSTEMS).shading} A significant pair has a frame.")
        drawn = partial(draw_connections, of=pairs)
        found.append(Part("Connections", pairs, told, 2.85, drawn))
    if groups := results.values:
        height = BAR * min(BARS, len(groups.table)) + FOOT
        name = "Values of the phenotype"
        found.append(Part(name, groups, (groups.summary,), height, partial(draw_values, of=groups)))
    return found


def draw(run: Run, results: BlackoutResults) -> Figure:
    """The page: what was replaced, one part below the other."""
    parts, heading = parts_of(results), folded(mean_title(run, results), int(LETTERS * FONT / BIG))
    told = folded("\n".join(filter(None, (results.first_sentence, results.summary))))
    below = 0.1 + 1.3 * inches(heading)
    heights = [0.35 + inches(part.text) + part.height for part in parts]
    tops = np.cumsum([below + inches(told) + 0.1, *heights])
    figure = plt.figure(figsize=(WIDTH, tops[-1] + LEGEND), dpi=DPI)
    with plt.rc_context({"font.size": FONT, "axes.linewidth": 0.6}):
        Panel(figure, 0.08).write(0.1, 0, heading, fontsize=BIG, weight="bold")
        Panel(figure, below).write(0.1, 0, told)
        for letter, top, part in zip("abc", tops[:-1], parts, strict=False):
            panel = Panel(figure, top)
            panel.write(0.1, 0, f"{letter}   {part.name}", fontsize=BIG, weight="bold")
            panel.write(0.1, 0.17, part.text)
            part.drawn(Panel(figure, top + 0.27 + inches(part.text)))
        handles = legend_handles([part.of.table for part in parts], results.at_chance)
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0), ncols=3, frameon=False)
    return figure


def folded(text: str, letters: int = LETTERS) -> str:
    """The text in lines of so many letters."""
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


def inches(text: str) -> float:
    """The height of a text, inches."""
    return LINE * (text.count("\n") + 1) if text else 0


def draw_regions(panel: Panel, of: Regions) -> None:
    """Bars of each tested effect of the regions of most reliance, beside the group map of reliance."""
    top = of.table.head(BARS).iloc[::-1]
    height = BAR * len(top)
    bars = [panel.axes(NAMES + (WHISKERS + 0.1) * at, 0.16, WHISKERS, height) for at in range(len(TESTED))]
    for axis, fill in zip(bars, TESTED, strict=True):
        if axis is not bars[0]:
            axis.sharex(bars[0])
        draw_bars(axis, top, fill.name, of.significant(fill.name)[: len(top)][::-1])
        axis.set_yticks([])
    name_bars(bars[0], top["name"])
    draw_brain(panel.axes(RIGHT_HALF, 0.1, 3.25, 1.3), of)
    draw_colours(panel.axes(4.3, 1.6, 1.7, 0.22), of.table[RELIANCE], bool(of.significant().any()))


def draw_connections(panel: Panel, of: Pairs) -> None:
    """Pairs of systems."""
    draw_matrix(panel.axes(NAMES, 0, SIDE, SIDE), of.matrix)
    scale = panel.axes(4.3, 0, 1.7, 0.22)
    draw_colours(scale, of.matrix.effect, bool(of.matrix.marked.any()))


def draw_values(panel: Panel, of: Things) -> None:
    """Bars of the groups of most reliance, beside which way people differ there."""
    first = of.table.head(BARS)
    axis = panel.axes(NAMES, 0.05, 1.6, BAR * len(first))
    draw_bars(axis, first.iloc[::-1], RELIANCE, of.significant()[: len(first)][::-1])
    axis.set_title("")
    name_bars(axis, first["group"].iloc[::-1])
    panel.write(3.3, -0.08, "autism minus control (within sites, where known), in standard deviations")
    for at, row in enumerate(first.to_dict("records")):
        difference = Estimate.in_row(row, "difference").text(".2f")
        told = f"{difference}  {row['difference_of']}: {row['direction']}" if row["direction"] else difference
        panel.write(3.3, 0.05 + BAR * (at + 0.5), told, va="center")


def name_bars(axis: Axes, names: pd.Series) -> None:
    """Names beside bars, from bottom to top."""
    axis.set_yticks(np.arange(len(names)), [shortened(name, NAME_WIDTH) for name in names])


def draw_bars(axis: Axes, top: pd.DataFrame, kind: str, significant: np.ndarray) -> None:
    """Mean effects with their intervals, from bottom to top, coloured by the p of the same effect."""
    places, effect = np.arange(len(top)), top[kind].to_numpy()
    axis.barh(places, effect, color=np.where(significant, "C3", "0.6"))
    axis.axvline(0, color="0.3", linewidth=0.6)
    axis.set_ylim(-0.6, len(top) - 0.4)
    axis.set_title(kind, fontsize=FONT, pad=2)
    axis.set_xlabel(f"mean effect on the\n{EFFECT}", fontsize=FONT, labelpad=1)
    axis.locator_params(axis="x", nbins=4)
    known = top[f"{kind}_low"].notna().to_numpy()
    if known.any():
        sides = [effect - top[f"{kind}_low"], top[f"{kind}_high"] - effect]
        error = np.maximum(np.array(sides)[:, known], 0)  # a mean may lie outside by rounding
        axis.errorbar(effect[known], places[known], xerr=error, fmt="none", ecolor="0.2", elinewidth=0.8)


def legend_handles(tables: list[pd.DataFrame], at_chance: bool) -> list[Patch | Line2D]:
    """What colours and whiskers mean."""
    shown = pd.concat([table[[f"p_{RELIANCE}", f"{RELIANCE}_low"]] for table in tables])
    if at_chance:
        kinds = [Patch(color="0.6", label="not marked: the network is at chance")]
    elif shown[f"p_{RELIANCE}"].isna().all():
        kinds = [Patch(color="0.6", label="no p-values: one class")]
    else:
        kinds = [Patch(color="C3", label=f"family-wise p < {ALPHA:g}"), Patch(color="0.6", label="not significant")]
    if shown[f"{RELIANCE}_low"].isna().all():
        return [*kinds, Patch(alpha=0, label="no whiskers: one subject")]
    return [*kinds, Line2D([], [], color="0.2", label=f"{CONFIDENCE:.0%} interval over subjects")]


def draw_brain(axis: Axes, of: Regions) -> None:
    """The group map of reliance on axial slices, red where a region speaks for the true class; significant regions are
    outlined."""
    from nilearn.plotting import plot_stat_map

    image, options = painted(of)
    options |= {"black_bg": False, "annotate": False, "figure": axis.figure, "axes": axis}
    display = plot_stat_map(image, display_mode="z", cut_coords=[*of.cuts.values()], **options)
    if of.significant().any():
        display.add_contours(image, levels=[0.5], colors="black", linewidths=0.6)
    display.annotate(left_right=True, positions=False, size=FONT)
    for z, cut in display.axes.items():
        cut.ax.set_title(f"z = {round(z)} mm", fontsize=FONT, pad=2)


def draw_by_map(heading: str, of: ByMap) -> Figure:
    """The first regions and all maps; significant pairs have their full colour and a frame."""
    matrix, shown = of.matrix, min(ROWS, len(of.matrix.rows))
    wide, width, height = 4.4 + CELL * len(of.maps), CELL * len(of.maps), CELL * shown
    told = f"The {shown} of {len(matrix.rows)} regions with findings or the strongest effect in one map. {of.shading}"
    text = folded("\n".join(filter(None, (heading, of.summary, told))), int(LETTERS * wide / WIDTH))
    figure = plt.figure(figsize=(wide, inches(text) + height + 1.7), dpi=DPI)
    Panel(figure, 0.1).write(0.1, 0, text)
    panel = Panel(figure, inches(text) + 0.2)
    draw_matrix(panel.axes(NAMES, 0, width, height), matrix, shown)
    scale = panel.axes(NAMES + width + 0.25, 0, 1.6, 0.22)
    draw_colours(scale, matrix.effect, bool(matrix.marked.any()))
    return figure


def draw_matrix(axis: Axes, of: Matrix, rows: int | None = None) -> None:
    """Effects of the first rows of pairs in colours; significant ones have their full colour and a frame."""
    axis.imshow(of.colours[:rows], aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(of.marked[:rows]):
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=0.9))
    names = [shortened(name, NAME_WIDTH) for name in of.rows[:rows]]
    axis.set_yticks(np.arange(len(names)), names)
    axis.set_xticks(np.arange(len(of.columns)), [shortened(name, NAME_WIDTH) for name in of.columns], rotation=90)
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
