"""A blackout's pictures: `blackout.png`, and `blackout.html`, one page that opens from disk without a network."""

import base64
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from data import grids
from data.base import files
from data.base.text import interval, number, printable, shortened
from data.cohorts import nifti
from data.cohorts.atlas import Atlas
from data.cohorts.standards import BACKGROUND
from utils import figures
from utils.blackout.measure import RELIANCE, UNIQUE, Measured
from utils.runs.run import Run
from utils.statistics import ALPHA, CONFIDENCE

CUTS = 3
APART = 5  # voxels of 2 mm
BARS = 20
AT_CHANCE = "MODEL AT CHANCE"
NAME_WIDTH = 26  # letters of a region's name beside its bar
# nilearn's remarks on its own mask, and on maps that are painted everywhere or nowhere
EXPECTED = "Warning: 'partition' will ignore the 'mask'|Threshold given was|Given img is empty"
EFFECT = "logit of the true class"
# What the columns of the page say, those that need words, in their order
COLUMNS = {
    "reliance": "How much the logit of the true class falls when the region is another person's: positive where the "
    "network's evidence rests on this person's region. Mean over subjects, with its 95% interval.",
    "p": "Family-wise p of the reliance: signs flipped over subjects, one-sided, largest over regions.",
    "unique": "The same, with the other person's region moved to the level that the rest of this person's brain "
    "predicts: what the region says and the rest does not.",
    "unique p": "Family-wise p of that.",
    "sufficiency": "How much the logit of the true class rises when this region of the person is put into another "
    "person's brain: what it says alone. Sufficient but not unique is redundant; neither is unimportant.",
    "background": "How much the logit falls when the region becomes {background}. The network has never seen that, "
    "so no p-value is given.",
    "background rank": "The order by that, as in regions.csv.",
    "size percentile": "The share of random connected blobs of the region's size whose reliance is less; a dash where "
    "the brain has no room for one.",
    "q": "False discovery rate of the reliance.",
    "unique q": "False discovery rate of the unique effect.",
    "in autism, in control": "The effect of the background in each class.",
}


@dataclass(frozen=True)
class Findings:
    """What a blackout has found: `table` as in `regions.csv`, `summary` in words, and whether the network is no better
    than chance on these subjects."""

    atlas: Atlas
    table: pd.DataFrame
    measured: Measured
    summary: str
    at_chance: bool

    @property
    def by_reliance(self) -> pd.DataFrame:
        return self.table.sort_values(RELIANCE, ascending=False, kind="stable")

    @property
    def group(self) -> np.ndarray:
        """Mean reliance over subjects painted on the full grid, (x, y, z) float32."""
        return self.atlas.paint(self.table.set_index("region").loc[self.atlas.regions, RELIANCE])

    @property
    def cuts_mm(self) -> list[int]:
        """z of the axial slices that show the regions of most reliance, mm."""
        levels = widest_levels(self.atlas.full, self.by_reliance["region"])
        return [round(grids.FULL.origin_mm[2] + grids.FULL.spacing_mm * level) for level in levels]


def write(run: Run, findings: Findings) -> None:
    """Writes both pictures."""
    figures.save(draw(run, findings), run.out_dir / "blackout.png")
    page = render(run, findings)
    with files.replacing(run.out_dir / "blackout.html", encoding="utf-8") as file:
        file.write(page)


def title(run: Run, findings: Findings) -> str:
    """Model and cohort, the cohort as the user gave it, and what must stand beside every result."""
    given = printable(str(run.data_dir)) if run.data_dir else "the demo cohort"
    return f"Blackout of {run.model.name} on {given}{run.marks}" + f" ({AT_CHANCE})" * findings.at_chance


def counted(findings: Findings) -> str:
    """How many subjects and records the mean is of."""
    subjects, count = len(set(findings.measured.subject)), len(findings.measured.rows)
    return f"{subjects} test subject{'s' * (subjects != 1)}" + (f", {count} records" if count != subjects else "")


def widest_levels(labels: np.ndarray, ranked: Sequence[int]) -> list[int]:
    """Up to `CUTS` z indices of a label image (x, y, z), rising, that show the first regions of a ranking.

    A region counts as shown where it is at least half as wide as in its widest slice. Each cut shows the next region
    that none so far does, where it is widest, and is at least `APART` from the others; else that region is passed over.
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


def draw(run: Run, findings: Findings) -> Figure:
    """Bars of the regions of most reliance, with what is unique of it, beside the group map where they are."""
    figure, (bars, own, brain) = plt.subplots(1, 3, figsize=(18, 7), width_ratios=(1.6, 1.6, 5))
    figure.subplots_adjust(left=0.13, right=0.95, top=0.81, bottom=0.19, wspace=0.08)
    own.sharex(bars)
    top = findings.by_reliance.head(BARS).iloc[::-1]
    draw_bars(bars, top, RELIANCE)
    draw_bars(own, top, UNIQUE)
    bars.set_yticks(np.arange(len(top)), [shortened(name, NAME_WIDTH) for name in top["name"]])
    own.set_yticks([])
    figure.legend(handles=keys(top), loc="lower left", bbox_to_anchor=(0.05, 0.02), ncols=3, fontsize=9, frameon=False)
    draw_brain(figure, brain, findings)
    heading = textwrap.fill(f"{title(run, findings)}: mean over {counted(findings)}", 130)
    figure.suptitle(f"{heading}\n{textwrap.fill(findings.summary, 170, replace_whitespace=False)}", fontsize=11)
    return figure


def draw_bars(axis, top: pd.DataFrame, name: str) -> None:
    """Mean effects of regions with their intervals, from bottom to top, coloured by the p of the same effect."""
    places = np.arange(len(top))
    effect, significant = top[name].to_numpy(), (top[f"p_{name}"] < ALPHA).to_numpy()
    axis.barh(places, effect, color=np.where(significant, "C3", "0.6"))
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_title(name, fontsize=11)
    axis.set_xlabel(f"mean effect on the\n{EFFECT}")
    axis.locator_params(axis="x", nbins=4)
    known = top[f"{name}_low"].notna().to_numpy()
    if known.any():
        sides = [effect - top[f"{name}_low"], top[f"{name}_high"] - effect]
        error = np.maximum(np.array(sides)[:, known], 0)  # a mean may lie outside by rounding
        axis.errorbar(effect[known], places[known], xerr=error, fmt="none", ecolor="0.2")


def keys(top: pd.DataFrame) -> list:
    """What colours and whiskers mean."""
    found: list = [Patch(color="C3", label=f"family-wise p < {ALPHA:g}"), Patch(color="0.6", label="not significant")]
    if top[f"p_{RELIANCE}"].isna().all():
        found = [Patch(color="0.6", label="no p-values: one class")]
    if top[f"{RELIANCE}_low"].isna().all():
        return [*found, Patch(alpha=0, label="no whiskers: one subject")]
    return [*found, Line2D([], [], color="0.2", label=f"{CONFIDENCE:.0%} interval over subjects")]


def scale(group: np.ndarray) -> tuple[float, float | None]:
    """The effect of the deepest colour, and that up to which nothing is painted; none for an empty map."""
    largest = float(np.abs(group).max())
    return (largest, largest / 1e4) if largest else (1.0, None)


def draw_brain(figure: Figure, axis, findings: Findings) -> None:
    """The group map of reliance on axial slices, red where a region speaks for the true class."""
    from nilearn.plotting import plot_stat_map

    group = findings.group
    largest, threshold = scale(group)
    display = plot_stat_map(
        nifti.mni_image(group, grids.FULL),
        display_mode="z",
        cut_coords=findings.cuts_mm,
        figure=figure,
        axes=axis,
        threshold=threshold,
        vmin=-largest,
        vmax=largest,
        symmetric_cbar=True,
        cmap="RdBu_r",
        black_bg=False,
        annotate=False,
        resampling_interpolation="nearest",
    )
    display.annotate(left_right=True, positions=False)
    for z, cut in display.axes.items():
        cut.ax.set_title(f"z = {round(z)} mm")
    ticks = np.linspace(-largest, largest, 5)
    display._cbar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    display._cbar.set_label(f"reliance: mean effect on the {EFFECT}")
    display._colorbar_ax.yaxis.set_label_position("right")
    figure.text(0.63, 0.1, f"axial slices, MNI space; {figures.SIDES}", ha="center")


def viewer(group: np.ndarray) -> str:
    """nilearn's interactive viewer of the group map, a page of its own as text, without its link to an icon."""
    from nilearn.plotting import view_img

    largest, threshold = scale(group)
    image = nifti.mni_image(group, grids.FULL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED, UserWarning)
        view = view_img(image, threshold=threshold, vmax=largest, cmap="RdBu_r", resampling_interpolation="nearest")
    return re.sub(r"<link[^>]*icon[^>]*>", "", view.get_standalone())


def cells(row: dict) -> dict[str, tuple[str, float | None]]:
    """A row of the page's table: heading -> what is shown, and what a number is sorted by."""

    def effect(name: str) -> dict[str, tuple[str, float]]:
        ends = row[f"{name}_low"], row[f"{name}_high"]
        return {name: (number(row[name], ".4f"), row[name]), f"{name}: 95% interval": (interval(*ends), ends[0])}

    def of(heading: str, name: str, form: str) -> dict[str, tuple[str, float]]:
        return {heading: (number(row[name], form), row[name])}

    shown = {
        "region": (row["name"], None),
        **effect("reliance"),
        **of("p", "p_reliance", ".4f"),
        **of("unique p", "p_unique", ".4f"),
        **effect("unique"),
        **effect("sufficiency"),
        **effect("background"),
        "background rank": (str(row["rank"]), row["rank"]),
        **of("size percentile", "size_percentile", ".0f"),
        **of("q", "q_reliance", ".3g"),
        **of("unique q", "q_unique", ".3g"),
        "hemisphere": (row["hemisphere"], None),
        "voxels": (str(row["voxels"]), row["voxels"]),
        "x, y, z (mm)": (f"{row['x_mm']:.0f}, {row['y_mm']:.0f}, {row['z_mm']:.0f}", row["x_mm"]),
        **of("in autism", "background_autism", ".4f"),
        **of("in control", "background_control", ".4f"),
    }
    return {name: (text, None if by is None or math.isnan(by) else float(by)) for name, (text, by) in shown.items()}


def drawing(findings: Findings) -> dict:
    """What the page draws a record's map from: slices of the atlas, front upward, and each record's effects."""
    levels = [round((z - grids.FULL.origin_mm[2]) / grids.FULL.spacing_mm) for z in findings.cuts_mm]
    slices = np.ascontiguousarray(findings.atlas.full[:, ::-1, levels].transpose(2, 1, 0), "<i4")
    measured = findings.measured
    rows = zip(measured.rows, measured.probability, measured.reliance.round(5), strict=True)
    return {
        "shape": slices.shape,
        "slices": base64.b64encode(slices.tobytes()).decode(),
        "cuts": findings.cuts_mm,
        "regions": findings.atlas.regions,
        "subjects": [
            {
                "name": row.file,
                "label": int(row.label),
                "probability": round(float(value), 4),
                "effect": effect.tolist(),
            }
            for row, value, effect in rows
        ],
    }


def render(run: Run, findings: Findings) -> str:
    """The page: viewer, sortable table, and a map of each record drawn from the atlas's slices."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html").render(
        title=title(run, findings),
        counted=counted(findings),
        simulated=run.cohort.simulated,
        at_chance=findings.at_chance,
        summary=findings.summary,
        viewer=viewer(findings.group),
        columns=COLUMNS | {"background": COLUMNS["background"].format(background=BACKGROUND[run.standard])},
        table=[cells(row) for row in findings.by_reliance.to_dict("records")],
        drawing=drawing(findings),
    )
