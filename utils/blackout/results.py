"""Results of a blackout, their colours and their figures: `blackout.png`, and `regions_by_map.png` of several maps.

Colours are red for the true class and blue against it, full where significant and pale where not.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from nibabel import Nifti1Image

from data.base.tables import printable
from data.cohorts import nifti, records
from data.cohorts.atlas import Atlas
from utils import figures
from utils.blackout.effects import Effects
from utils.blackout.fills import RELIANCE, TESTED
from utils.figures import number, shortened
from utils.runs.run import Run
from utils.scores.results import ALPHA, CONFIDENCE

SHADES = 256  # colours from the largest effect against the true class (blue) to the largest for it (red)
PALE = 0.3  # opacity of what is not significant
UNTESTED = "All regions are pale, for nothing is tested here: one person's map holds no p-value."
SHADE = {False: -2, True: 2}  # what is added to a region's share of the largest effect, by whether it is significant
EFFECT = "logit of the true class"
CUTS = 3
APART = 5  # voxels of 2 mm
BARS = 20
ROWS = 30  # regions in the figure by map
NAME_WIDTH = 26  # letters of a name beside a bar or a row, or below a column
ROW, COLUMN = 0.24, 0.36  # inches of a region, of a map
LEFT, RIGHT, BELOW, ABOVE = 2.6, 2.6, 1.9, 1.6  # inches around them


def shades(opacity: float) -> np.ndarray:
    """Colours (SHADES, 4), red, green, blue and opacity in 0..1, from the largest effect against the true class on."""
    return plt.get_cmap("RdBu_r")(np.linspace(0, 1, SHADES)) * (1, 1, 1, opacity)


def largest_effect(effect: np.ndarray) -> float:
    """The effect of the deepest colour."""
    return float(np.abs(effect).max()) or 1.0


def effect_ticks(largest: float) -> np.ndarray:
    """Five effects that are named beside the colours."""
    return largest * np.linspace(-1, 1, 5)


def colours(effect: np.ndarray, significant: np.ndarray) -> np.ndarray:
    """The colour of each effect, (...) -> (..., 4)."""
    share = (effect / largest_effect(effect) + 1) / 2
    found = shades(1)[np.rint(share * (SHADES - 1)).astype(int)]
    found[..., 3] = np.where(significant, 1, PALE)
    return found


def shading(p: pd.Series, at_chance: bool, what: str) -> str:
    """What pale and full colours of regions or other things, by their p, mean, in a sentence."""
    if at_chance:
        return f"All {what} are pale: the network is not shown to be better than chance on these subjects."
    if p.isna().all():
        return f"All {what} are pale: there are no p-values, since the subjects are of one class."
    if not (p < ALPHA).any():
        return f"All {what} are pale: none is significant (family-wise p < {ALPHA:g})."
    return f"Full colour: significant (family-wise p < {ALPHA:g}). Pale: not significant."


@dataclass(frozen=True)
class ByMap:
    """`table` as of `effects.map_table`, its `maps`, and what it says in a sentence. `at_chance`: the network is not
    better than chance on these subjects. Regions come by their findings, then by their strongest effect in a map."""

    table: pd.DataFrame
    maps: Sequence[str]
    summary: str
    at_chance: bool

    @cached_property
    def order(self) -> np.ndarray:
        """The regions by their place in the atlas (regions,)."""
        found = self.in_atlas(f"p_{RELIANCE}").min(1) < ALPHA
        return np.lexsort((-self.in_atlas(RELIANCE).max(1), ~found | self.at_chance))

    def in_atlas(self, column: str) -> np.ndarray:
        """A column (regions, maps), in the order of the atlas."""
        return self.table[column].sort_index().to_numpy().reshape(-1, len(self.maps))

    def __getitem__(self, column: str) -> np.ndarray:
        """A column (regions, maps)."""
        return self.in_atlas(column)[self.order]

    @property
    def names(self) -> list[str]:
        """Of the regions."""
        return self["name"][:, 0].tolist()

    @property
    def significant(self) -> np.ndarray:
        """Which pairs are marked, (regions, maps) bool: none if the network is at chance, or p is unknown."""
        return (self[f"p_{RELIANCE}"] < ALPHA) & (not self.at_chance)

    @property
    def shading(self) -> str:
        """What pale and full colours mean, in a sentence."""
        return shading(self.table[f"p_{RELIANCE}"], self.at_chance, "pairs")

    @property
    def rows(self) -> list[tuple[str, list[tuple[float, str, str, bool]]]]:
        """The page's table: the name of each region and, for each map, the effect, its p, its colour and whether it is
        marked."""
        effect, marked = self[RELIANCE], self.significant
        p = [[number(one, ".4f") for one in row] for row in self[f"p_{RELIANCE}"]]
        colour = [[to_hex(one, keep_alpha=True) for one in row] for row in colours(effect, marked)]
        columns = zip(self.names, effect.tolist(), p, colour, marked.tolist(), strict=True)
        return [(name, [*zip(*cells, strict=True)]) for name, *cells in columns]


@dataclass(frozen=True)
class BlackoutResults:
    """`table` as in `regions.csv`, the effects per record, and the summary in sentences. `at_chance`: the network is
    not better than chance on these subjects. `by_map`: the table of regions by maps, if there is one."""

    atlas: Atlas
    table: pd.DataFrame
    effects: Effects
    summary: str
    at_chance: bool
    by_map: ByMap | None = None

    def significant(self, kind: str) -> np.ndarray:
        """Which rows of the table are marked, (regions,) bool: none if the network is at chance, or p is unknown."""
        return (self.table[f"p_{kind}"] < ALPHA).to_numpy() & (not self.at_chance)

    @property
    def ranked(self) -> list[int]:
        """The regions as the table has them, but those of significant reliance first."""
        return self.table["region"].iloc[np.argsort(~self.significant(RELIANCE), kind="stable")].tolist()

    @property
    def shading(self) -> str:
        """What pale and full colours of the group map mean, in a sentence."""
        return shading(self.table[f"p_{RELIANCE}"], self.at_chance, "regions")

    @property
    def cuts(self) -> dict[int, int]:
        """The axial slices of the full grid that show the first regions of `ranked`: z index -> z, mm in MNI space."""
        levels = widest_levels(self.atlas.full, self.ranked)
        return {level: round(records.FULL.origin_mm[2] + records.FULL.spacing_mm * level) for level in levels}

    @property
    def sample(self) -> str:
        """How many subjects and records the mean is over."""
        subjects, count = len(set(self.effects.subject)), len(self.effects.rows)
        counted = "1 test subject" if subjects == 1 else f"{subjects} test subjects"
        return counted if count == subjects else f"{counted}, {count} records"


def title(run: Run, results: BlackoutResults) -> str:
    """Model, cohort as the user named it, and the warnings that belong beside every result."""
    cohort = printable(str(run.data_dir)) if run.data_dir else "the demo cohort"
    at_chance = " (MODEL AT CHANCE)" if results.at_chance else ""
    return f"Blackout of {run.model.name} on {cohort}{run.marks}{at_chance}"


def mean_title(run: Run, results: BlackoutResults) -> str:
    """The title of a figure of means."""
    return f"{title(run, results)}: mean over {results.sample}"


def widest_levels(labels: np.ndarray, ranked: Sequence[int]) -> list[int]:
    """Up to `CUTS` z indices of a label image (x, y, z), rising, that show the first regions of a ranking.

    A region counts as shown where it is at least half as wide as in its widest slice. Each cut shows the next region
    that is not shown yet, where it is widest, at least `APART` from the other cuts; a region for which that is
    impossible is skipped.
    """
    found: list[int] = []
    for region in ranked:
        area = (labels == region).sum((0, 1))
        shows = 2 * area >= area.max()
        free = [level for level in np.flatnonzero(shows) if all(abs(level - other) >= APART for other in found)]
        if free and not shows[found].any():
            found.append(int(free[area[free].argmax()]))
        if len(found) == CUTS:
            break
    return sorted(found)


def draw(run: Run, results: BlackoutResults) -> Figure:
    """Bars of each tested effect of the regions of most reliance, beside the group map of reliance."""
    widths = (*(1.6 for _ in TESTED), 5)
    figure, (*bars, brain) = plt.subplots(1, len(widths), figsize=(18, 7), width_ratios=widths)
    figure.subplots_adjust(left=0.13, right=0.905, top=0.81, bottom=0.19, wspace=0.08)
    top = results.table.head(BARS).iloc[::-1]
    for axis in bars[1:]:
        axis.sharex(bars[0])
    for axis, fill in zip(bars, TESTED, strict=True):
        draw_bars(axis, top, fill.name, results.significant(fill.name)[: len(top)][::-1])
        axis.set_yticks([])
    bars[0].set_yticks(np.arange(len(top)), [shortened(name, NAME_WIDTH) for name in top["name"]])
    handles = legend_handles(top, results.at_chance)
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.05, 0.02), ncols=3, fontsize=9, frameon=False)
    draw_brain(figure, brain, results)
    heading = textwrap.fill(mean_title(run, results), 130)
    figure.suptitle(f"{heading}\n{textwrap.fill(results.summary, 170, replace_whitespace=False)}", fontsize=11)
    return figure


def draw_bars(axis: Axes, top: pd.DataFrame, kind: str, significant: np.ndarray) -> None:
    """Mean effects of regions with their intervals, from bottom to top, coloured by the p of the same effect."""
    places, effect = np.arange(len(top)), top[kind].to_numpy()
    axis.barh(places, effect, color=np.where(significant, "C3", "0.6"))
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_title(kind, fontsize=11)
    axis.set_xlabel(f"mean effect on the\n{EFFECT}")
    axis.locator_params(axis="x", nbins=4)
    known = top[f"{kind}_low"].notna().to_numpy()
    if known.any():
        sides = [effect - top[f"{kind}_low"], top[f"{kind}_high"] - effect]
        error = np.maximum(np.array(sides)[:, known], 0)  # a mean may lie outside by rounding
        axis.errorbar(effect[known], places[known], xerr=error, fmt="none", ecolor="0.2")


def legend_handles(top: pd.DataFrame, at_chance: bool) -> list[Patch | Line2D]:
    """What colours and whiskers mean."""
    if at_chance:
        kinds = [Patch(color="0.6", label="not marked: the network is at chance")]
    elif top[f"p_{RELIANCE}"].isna().all():
        kinds = [Patch(color="0.6", label="no p-values: one class")]
    else:
        kinds = [Patch(color="C3", label=f"family-wise p < {ALPHA:g}"), Patch(color="0.6", label="not significant")]
    if top[f"{RELIANCE}_low"].isna().all():
        return [*kinds, Patch(alpha=0, label="no whiskers: one subject")]
    return [*kinds, Line2D([], [], color="0.2", label=f"{CONFIDENCE:.0%} interval over subjects")]


def painted(results: BlackoutResults) -> tuple[Nifti1Image, dict[str, Any]]:
    """Mean reliance over subjects on the full grid, and nilearn's options, which make it pale where it is not
    significant.

    nilearn colours by value alone. So a voxel holds the effect as a share of the largest one, plus the `SHADE`. What is
    -3 to -1 is pale, 1 to 3 full, and 0, outside the regions, transparent. Shares are a hair less than 1, so that they
    fall on no other colours.
    """
    atlas, significant = results.atlas, results.significant(RELIANCE)
    share = results.table[RELIANCE] / largest_effect(results.table[RELIANCE]) * (1 - 1 / SHADES)
    values = share + np.where(significant, SHADE[True], SHADE[False])
    pale_and_full = ListedColormap(np.concatenate([shades(PALE), shades(0), shades(1)]))
    image = nifti.mni_image(atlas.paint(values.set_axis(results.table["region"]).loc[atlas.regions]), records.FULL)
    ends = {"vmin": SHADE[False] - 1, "vmax": SHADE[True] + 1, "threshold": None, "colorbar": False}
    return image, ends | {"cmap": pale_and_full, "resampling_interpolation": "nearest"}


def draw_brain(figure: Figure, axis: Axes, results: BlackoutResults) -> None:
    """The group map of reliance on axial slices, red where a region speaks for the true class; significant regions are
    outlined."""
    from nilearn.plotting import plot_stat_map

    image, options = painted(results)
    options |= {"black_bg": False, "annotate": False}
    cuts = [*results.cuts.values()]
    display = plot_stat_map(image, display_mode="z", cut_coords=cuts, figure=figure, axes=axis, **options)
    if results.significant(RELIANCE).any():
        display.add_contours(image, levels=[0.5], colors="black", linewidths=1)
    display.annotate(left_right=True, positions=False)
    for z, cut in display.axes.items():
        cut.ax.set_title(f"z = {round(z)} mm")
    scale = figure.add_axes((0.925, 0.32, 0.012, 0.42))
    draw_colours(scale, largest_effect(results.table[RELIANCE]), bool(results.significant(RELIANCE).any()))
    figure.text(0.63, 0.1, f"{results.shading}\naxial slices, MNI space; {figures.SIDES}", ha="center", va="center")


def draw_by_map(heading: str, of: ByMap) -> Figure:
    """The first regions and all maps; significant pairs have their full colour and a frame."""
    effect, marked = of[RELIANCE][:ROWS], of.significant[:ROWS]
    rows, maps = effect.shape
    wide, high = LEFT + COLUMN * maps + RIGHT, BELOW + ROW * rows + ABOVE
    figure = plt.figure(figsize=(wide, high))
    bottom, height = BELOW / high, ROW * rows / high
    axis = figure.add_axes((LEFT / wide, bottom, COLUMN * maps / wide, height))
    axis.imshow(colours(of[RELIANCE], of.significant)[:ROWS], aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(marked):
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.2))
    axis.set_yticks(np.arange(rows), [shortened(name, NAME_WIDTH) for name in of.names[:ROWS]], fontsize=9)
    axis.set_xticks(np.arange(maps), [shortened(name, NAME_WIDTH) for name in of.maps], rotation=90, fontsize=9)
    axis.tick_params(length=0)
    scale = figure.add_axes(((LEFT + COLUMN * maps + 0.3) / wide, bottom, 0.3 / wide, height))
    draw_colours(scale, largest_effect(of[RELIANCE]), bool(of.significant.any()))
    letters = int(13 * wide)
    shown = f"The {rows} of {len(of.names)} regions with findings or the strongest effect in one map. {of.shading}"
    text = "\n".join(textwrap.fill(line, letters) for line in (heading, of.summary, shown) if line)
    figure.suptitle(text, fontsize=10, y=1 - 0.15 / high)
    return figure


def draw_colours(axis: Axes, largest: float, marked: bool) -> None:
    """The colours of reliance, pale beside full ones if something is `marked` as significant."""
    opacities = {"significant": 1.0, "not significant": PALE} if marked else {"": PALE}
    columns = np.stack([shades(opacity) for opacity in opacities.values()], axis=1)
    axis.imshow(
        columns, origin="lower", aspect="auto", interpolation="nearest", extent=(0, len(opacities), -largest, largest)
    )
    axis.set_xticks(np.arange(len(opacities)) + 0.5, opacities, rotation=90, fontsize=8)
    axis.tick_params(axis="x", length=0)
    ticks = effect_ticks(largest)
    axis.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axis.yaxis.tick_right()
    axis.yaxis.set_label_position("right")
    axis.set_ylabel(f"reliance: mean effect on the {EFFECT}")
