"""Results of a blackout -> `blackout.png`, and `blackout.html`, one page that opens from disk without a network."""

import base64
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from nibabel import Nifti1Image

from data import grids
from data.base.tables import printable
from data.cohorts import nifti
from data.cohorts.atlas import Atlas
from data.cohorts.rows import listed
from data.cohorts.standards import BACKGROUND
from utils import figures
from utils.blackout import colours
from utils.blackout.by_map import ByMap
from utils.blackout.colours import EFFECT, PALE, SHADES, effect_ticks, largest_effect, shades
from utils.blackout.effects import ONE_SUBJECT, RELIANCE, UNIQUE, Effects
from utils.blackout.options import CONNECTOME
from utils.figures import number, shortened
from utils.runs.run import Run
from utils.scores.results import ALPHA, CONFIDENCE, Estimate, or_none

CUTS = 3
APART = 5  # voxels of 2 mm
BARS = 20
SHOWN = 5  # problems
NAME_WIDTH = 26  # letters of a region's name beside its bar
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([Path(__file__).parent, figures.TABLES_CSS.parent]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
)
EXPECTED = "Warning: 'partition' will ignore the 'mask'"  # nilearn on its own mask
SHADE = {False: -2, True: 2}  # what is added to a region's share of the largest effect, by whether it is significant
COLUMNS = {  # heading of the page's table -> column of `regions.csv` and its format
    "region": ("name", ""),
    "reliance": ("reliance", ".4f"),
    "p": ("p_reliance", ".4f"),
    "unique p": ("p_unique", ".4f"),
    "unique": ("unique", ".4f"),
    "sufficiency": ("sufficiency", ".4f"),
    "background": ("background", ".4f"),
    "rank": ("rank", "d"),
    "size percentile": ("size_percentile", ".0f"),
    "q": ("q_reliance", ".3g"),
    "unique q": ("q_unique", ".3g"),
    "plain p": ("p_reliance_plain", ".4f"),
    "unique plain p": ("p_unique_plain", ".4f"),
    "adjusted": ("reliance_adjusted", ".4f"),
    "unique adjusted": ("unique_adjusted", ".4f"),
    "remark": ("remark", ""),
    "hemisphere": ("hemisphere", ""),
    "voxels": ("voxels", "d"),
    "x, y, z (mm)": ("x_mm", ".0f"),
    "in autism": ("background_autism", ".4f"),
    "in control": ("background_control", ".4f"),
}


@dataclass(frozen=True)
class BlackoutResults:
    """`table` as in `regions.csv`, the effects per record, the summary in sentences, whether the network is not better
    than chance on these subjects, and the table of regions by maps if there is one."""

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
        return colours.shading(self.table[f"p_{RELIANCE}"], self.at_chance, "regions")

    @property
    def cuts(self) -> dict[int, int]:
        """The axial slices of the full grid that show the first regions of `ranked`: z index -> z, mm in MNI space."""
        levels = widest_levels(self.atlas.full, self.ranked)
        return {level: round(grids.FULL.origin_mm[2] + grids.FULL.spacing_mm * level) for level in levels}

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
    """Bars of the regions of most reliance and of their unique effect, beside the group map of reliance."""
    figure, (bars, unique_bars, brain) = plt.subplots(1, 3, figsize=(18, 7), width_ratios=(1.6, 1.6, 5))
    figure.subplots_adjust(left=0.13, right=0.905, top=0.81, bottom=0.19, wspace=0.08)
    unique_bars.sharex(bars)
    top = results.table.head(BARS).iloc[::-1]
    for axis, kind in ((bars, RELIANCE), (unique_bars, UNIQUE)):
        draw_bars(axis, top, kind, results.significant(kind)[: len(top)][::-1])
    bars.set_yticks(np.arange(len(top)), [shortened(name, NAME_WIDTH) for name in top["name"]])
    unique_bars.set_yticks([])
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

    nilearn colours by value alone, so a voxel holds the effect as a share of the largest one, a hair less so that it
    falls on no other colours, plus the `SHADE`: -3 to -1 is pale, 1 to 3 full, and what is no region, 0, transparent.
    """
    atlas, significant = results.atlas, results.significant(RELIANCE)
    share = results.table[RELIANCE] / largest_effect(results.table[RELIANCE]) * (1 - 1 / SHADES)
    values = share + np.where(significant, SHADE[True], SHADE[False])
    pale_and_full = ListedColormap(np.concatenate([shades(PALE), shades(0), shades(1)]))
    image = nifti.mni_image(atlas.paint(values.set_axis(results.table["region"]).loc[atlas.regions]), grids.FULL)
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
    beside = figure.add_axes((0.925, 0.32, 0.012, 0.42))
    colours.draw_colours(beside, largest_effect(results.table[RELIANCE]), bool(results.significant(RELIANCE).any()))
    figure.text(0.63, 0.1, f"{results.shading}\naxial slices, MNI space; {figures.SIDES}", ha="center", va="center")


def table_cells(row: dict) -> dict[str, tuple[str, str, float | None]]:
    """A row of the page's table: heading -> the text, the interval below it if there is one, and the number to sort by
    (None: undefined, or sort by text)."""
    cells: dict[str, tuple[str, str, float | None]] = {}
    for heading, (column, form) in COLUMNS.items():
        value = row[column]
        ends = Estimate.in_row(row, column).ends(".4f", ONE_SUBJECT) if f"{column}_low" in row else ""
        cells[heading] = (number(value, form), ends, or_none(value)) if form else (value, ends, None)
    centre = (f"{row[axis]:.0f}" for axis in ("x_mm", "y_mm", "z_mm"))
    return cells | {"x, y, z (mm)": (", ".join(centre), "", or_none(row["x_mm"]))}


def record_maps(results: BlackoutResults) -> dict:
    """What the page draws a record's map from: slices of the atlas and of the MNI152 template, front upward, each
    record's effects, and the colours."""
    effects = results.effects
    rows = zip(effects.rows, effects.probability.tolist(), effects.reliance.round(5).tolist(), strict=True)
    return {
        "shape": [len(results.cuts), *results.atlas.full.shape[1::-1]],
        "slices": encoded_slices(results.atlas.full, results, "<i4"),
        "anatomy": encoded_slices(anatomy(), results, "u1"),
        "colours": [to_hex(colour) for colour in shades(1)],
        "cuts": [*results.cuts.values()],
        "regions": results.atlas.regions,
        "subjects": [
            {"name": row.file, "label": int(row.label), "probability": round(probability, 4), "effect": effect}
            for row, probability, effect in rows
        ],
    }


def encoded_slices(volume: np.ndarray, results: BlackoutResults, kind: str) -> str:
    """The slices at `cuts` of a volume on the full grid, (slice, row, column) with the front upward, as base64."""
    slices = np.ascontiguousarray(volume[:, ::-1, [*results.cuts]].transpose(2, 1, 0), kind)
    return base64.b64encode(slices.tobytes()).decode()


@cache
def anatomy() -> np.ndarray:
    """The MNI152 template that nilearn carries, on the full grid, 0 to 255 (Fonov et al. 2011); read-only, since the
    pages of all folds share it."""
    from nilearn.datasets import load_mni152_template
    from nilearn.image import resample_img

    affine, shape = np.array(grids.FULL.affine), grids.FULL.shape
    template = resample_img(load_mni152_template(2), affine, shape, interpolation="nearest").get_fdata()
    found = np.clip(255 * template / template.max(), 0, 255)
    found.setflags(write=False)
    return found


def heart(labels: np.ndarray, region: int) -> tuple[float, ...]:
    """The voxel of a region on the full grid that is nearest to its centre, which may lie outside: mm in MNI space."""
    voxels = np.argwhere(labels == region)
    nearest = voxels[np.square(voxels - voxels.mean(0)).sum(1).argmin()]
    return tuple(float(at) for at in grids.FULL.origin_mm + grids.FULL.spacing_mm * nearest)


def viewer(results: BlackoutResults) -> str:
    """nilearn's interactive viewer of the group map: a page of its own, without its link to an icon."""
    from nilearn.plotting import view_img

    image, options = painted(results)
    crossed = heart(results.atlas.full, results.ranked[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED, UserWarning)
        page = view_img(image, cut_coords=crossed, **options).get_standalone()
    return re.sub(r"<link[^>]*icon[^>]*>", "", page)


def render(run: Run, results: BlackoutResults) -> str:
    """The page: the interactive viewer, a sortable table, and a map of each record drawn from the atlas's slices."""
    return TEMPLATES.get_template("page.html").render(
        title=title(run, results),
        results=results,
        caveats=run.caveats,
        problems=listed(run.caveats.problems, SHOWN, "; "),
        background=BACKGROUND[run.standard],
        connectome=CONNECTOME,
        viewer=viewer(results),
        table=[table_cells(row) for row in results.table.to_dict("records")],
        drawing=record_maps(results),
        ticks=[f"{tick:.3g}" for tick in effect_ticks(largest_effect(results.table[RELIANCE]))],
        start=results.table.set_index("region")["name"][results.ranked[0]],
        pale=PALE,
        marked=results.significant(RELIANCE).any(),
    )
