"""Results of a blackout -> `blackout.png`, and `blackout.html`, one page that opens from disk without a network."""

import base64
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
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
from utils.blackout.effects import RELIANCE, UNIQUE, Effects
from utils.figures import interval, number, shortened
from utils.runs.run import Run
from utils.statistics import ALPHA, CONFIDENCE, or_none

CUTS = 3
APART = 5  # voxels of 2 mm
BARS = 20
SHOWN = 5  # problems
NAME_WIDTH = 26  # letters of a region's name beside its bar
# nilearn's remarks on its own mask, and on maps that are painted everywhere or nowhere
EXPECTED = "Warning: 'partition' will ignore the 'mask'|Threshold given was|Given img is empty"
EFFECT = "logit of the true class"
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
    """`table` as in `regions.csv`, the effects per record, the summary in sentences, and whether the network is not
    better than chance on these subjects."""

    atlas: Atlas
    table: pd.DataFrame
    effects: Effects
    summary: str
    at_chance: bool

    @property
    def cuts(self) -> dict[int, int]:
        """The axial slices of the full grid that show the regions of most reliance: z index -> z, mm in MNI space."""
        levels = widest_levels(self.atlas.full, self.table["region"])
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
    figure.subplots_adjust(left=0.13, right=0.95, top=0.81, bottom=0.19, wspace=0.08)
    unique_bars.sharex(bars)
    top = results.table.head(BARS).iloc[::-1]
    draw_bars(bars, top, RELIANCE)
    draw_bars(unique_bars, top, UNIQUE)
    bars.set_yticks(np.arange(len(top)), [shortened(name, NAME_WIDTH) for name in top["name"]])
    unique_bars.set_yticks([])
    handles = legend_handles(top)
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.05, 0.02), ncols=3, fontsize=9, frameon=False)
    draw_brain(figure, brain, results)
    heading = textwrap.fill(f"{title(run, results)}: mean over {results.sample}", 130)
    figure.suptitle(f"{heading}\n{textwrap.fill(results.summary, 170, replace_whitespace=False)}", fontsize=11)
    return figure


def draw_bars(axis: Axes, top: pd.DataFrame, kind: str) -> None:
    """Mean effects of regions with their intervals, from bottom to top, coloured by the p of the same effect."""
    places = np.arange(len(top))
    effect, significant = top[kind].to_numpy(), (top[f"p_{kind}"] < ALPHA).to_numpy()
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


def legend_handles(top: pd.DataFrame) -> list[Patch | Line2D]:
    """What colours and whiskers mean."""
    if top[f"p_{RELIANCE}"].isna().all():
        colours = [Patch(color="0.6", label="no p-values: one class")]
    else:
        colours = [Patch(color="C3", label=f"family-wise p < {ALPHA:g}"), Patch(color="0.6", label="not significant")]
    if top[f"{RELIANCE}_low"].isna().all():
        return [*colours, Patch(alpha=0, label="no whiskers: one subject")]
    return [*colours, Line2D([], [], color="0.2", label=f"{CONFIDENCE:.0%} interval over subjects")]


def painted(results: BlackoutResults) -> tuple[Nifti1Image, dict[str, Any]]:
    """Mean reliance over subjects on the full grid, and nilearn's options: `vmax` is the effect of the deepest colour,
    up to `threshold` nothing is painted."""
    atlas = results.atlas
    values = atlas.paint(results.table.set_index("region").loc[atlas.regions, RELIANCE])
    largest = float(np.abs(values).max())
    options = {"vmax": largest or 1.0, "threshold": largest / 1e4 if largest else None, "cmap": "RdBu_r"}
    return nifti.mni_image(values, grids.FULL), options | {"resampling_interpolation": "nearest"}


def draw_brain(figure: Figure, axis: Axes, results: BlackoutResults) -> None:
    """The group map of reliance on axial slices, red where a region speaks for the true class."""
    from nilearn.plotting import plot_stat_map

    image, options = painted(results)
    options |= {"vmin": -options["vmax"], "symmetric_cbar": True, "black_bg": False, "annotate": False}
    cuts = [*results.cuts.values()]
    display = plot_stat_map(image, display_mode="z", cut_coords=cuts, figure=figure, axes=axis, **options)
    display.annotate(left_right=True, positions=False)
    for z, cut in display.axes.items():
        cut.ax.set_title(f"z = {round(z)} mm")
    ticks = np.linspace(options["vmin"], options["vmax"], 5)
    display._cbar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    display._cbar.set_label(f"reliance: mean effect on the {EFFECT}")
    display._colorbar_ax.yaxis.set_label_position("right")
    figure.text(0.63, 0.1, f"axial slices, MNI space; {figures.SIDES}", ha="center")


def table_cells(row: dict) -> dict[str, tuple[str, float | None]]:
    """A row of the page's table: heading -> the text, and the number to sort by (None: undefined, or sort by text)."""
    cells: dict[str, tuple[str, float | None]] = {}
    for heading, (column, form) in COLUMNS.items():
        value = row[column]
        cells[heading] = (number(value, form), or_none(value)) if form else (value, None)
        if f"{column}_low" in row:
            low, high = row[f"{column}_low"], row[f"{column}_high"]
            cells[f"{heading}: {CONFIDENCE:.0%} interval"] = interval(low, high), or_none(low)
    centre = (f"{row[axis]:.0f}" for axis in ("x_mm", "y_mm", "z_mm"))
    return cells | {"x, y, z (mm)": (", ".join(centre), or_none(row["x_mm"]))}


def record_maps(results: BlackoutResults) -> dict:
    """What the page draws a record's map from: slices of the atlas, front upward, and each record's effects."""
    slices = np.ascontiguousarray(results.atlas.full[:, ::-1, [*results.cuts]].transpose(2, 1, 0), "<i4")
    effects = results.effects
    rows = zip(effects.rows, effects.probability.tolist(), effects.reliance.round(5).tolist(), strict=True)
    return {
        "shape": slices.shape,
        "slices": base64.b64encode(slices.tobytes()).decode(),
        "cuts": [*results.cuts.values()],
        "regions": results.atlas.regions,
        "subjects": [
            {"name": row.file, "label": int(row.label), "probability": round(probability, 4), "effect": effect}
            for row, probability, effect in rows
        ],
    }


def render(run: Run, results: BlackoutResults) -> str:
    """The page: nilearn's interactive viewer of the group map (a page of its own as text, without its link to an icon),
    a sortable table, and a map of each record drawn from the atlas's slices."""
    from nilearn.plotting import view_img

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED, UserWarning)
        image, options = painted(results)
        viewer = view_img(image, **options).get_standalone()
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html").render(
        title=title(run, results),
        results=results,
        caveats=run.caveats,
        problems=listed(run.caveats.problems, SHOWN, "; "),
        background=BACKGROUND[run.standard],
        viewer=re.sub(r"<link[^>]*icon[^>]*>", "", viewer),
        table=[table_cells(row) for row in results.table.to_dict("records")],
        drawing=record_maps(results),
    )
