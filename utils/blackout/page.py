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
from matplotlib.patches import Patch

from data import files, grids, nifti
from data.atlas import Atlas
from data.cohort import Row
from utils import figures
from utils.runs import Run
from utils.statistics import ALPHA, INTERVAL
from utils.text import interval, number, printable, shortened

CUTS = 3
APART = 5  # voxels of 2 mm
BARS = 20
NAME_WIDTH = 26  # letters of a region's name beside its bar
# nilearn's remarks on its own mask, and on maps that are painted everywhere or nowhere
EXPECTED = "Warning: 'partition' will ignore the 'mask'|Threshold given was|Given img is empty"
EFFECT = "effect on the logit of the true class"


@dataclass(frozen=True)
class Findings:
    """What a blackout has found.

    `table` as in `regions.csv`, `effect` the `delta_logit` (records, regions), `probability` (records,) of autism with
    nothing occluded, `rows` the records, `summary` of `effects.summary`.
    """

    atlas: Atlas
    table: pd.DataFrame
    effect: np.ndarray
    probability: np.ndarray
    rows: list[Row]
    summary: str

    @property
    def group(self) -> np.ndarray:
        """Mean effects over subjects painted on the full grid, (x, y, z) float32."""
        return self.atlas.paint(self.table.set_index("region").loc[self.atlas.regions, "delta_logit"])

    @property
    def cuts_mm(self) -> list[int]:
        """z of the axial slices that show the first regions of the table, mm."""
        levels = widest_levels(self.atlas.full, self.table["region"])
        return [round(grids.FULL.origin_mm[2] + grids.FULL.spacing_mm * level) for level in levels]


def write(run: Run, findings: Findings) -> None:
    """Writes both pictures."""
    figures.save(draw(run, findings), run.out_dir / "blackout.png")
    page = render(run, findings)
    with files.replacing(run.out_dir / "blackout.html", encoding="utf-8") as file:
        file.write(page)


def title(run: Run) -> str:
    """Model and cohort, the cohort as the user gave it."""
    given = printable(str(run.data_dir)) if run.data_dir else "the demo cohort"
    return f"Blackout of {run.model.name} on {given}{run.marks}"


def counted(findings: Findings) -> str:
    """How many subjects and records the mean is of."""
    subjects, count = len({row.subject for row in findings.rows}), len(findings.rows)
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
    """Ranked bars with their intervals beside the group map where the first regions are."""
    figure, (bars, brain) = plt.subplots(1, 2, figsize=(17, 6.5), width_ratios=(2, 5))
    figure.subplots_adjust(left=0.14, right=0.95, top=0.86, bottom=0.2, wspace=0.1)
    draw_bars(bars, findings.table.head(BARS).iloc[::-1])
    draw_brain(figure, brain, findings)
    heading = textwrap.fill(f"{title(run)}: mean over {counted(findings)}", 130)
    figure.suptitle(f"{heading}\n{findings.summary}", fontsize=11)
    return figure


def draw_bars(axis, top: pd.DataFrame) -> None:
    """Mean effects of regions, from bottom to top."""
    places = np.arange(len(top))
    effect, significant = top["delta_logit"].to_numpy(), (top["p"] < ALPHA).to_numpy()
    axis.barh(places, effect, color=np.where(significant, "C3", "0.6"))
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_yticks(places, [shortened(name, NAME_WIDTH) for name in top["name"]])
    axis.set_xlabel(f"mean {EFFECT}")
    axis.locator_params(axis="x", nbins=5)
    handles = [Patch(color="C3", label=f"family-wise p < {ALPHA:g}"), Patch(color="0.6", label="not significant")]
    if top["p"].isna().all():
        handles = [Patch(color="0.6", label="no p-values: one class")]
    known = top["delta_logit_low"].notna().to_numpy()
    if known.any():
        sides = [effect - top["delta_logit_low"], top["delta_logit_high"] - effect]
        error = np.maximum(np.array(sides)[:, known], 0)  # a mean may lie outside by rounding
        label = f"whiskers: {INTERVAL:.0%} interval over subjects"
        handles.append(axis.errorbar(effect[known], places[known], xerr=error, fmt="none", ecolor="0.2", label=label))
    else:
        handles.append(Patch(alpha=0, label="no whiskers: one subject"))
    axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.4, -0.11), ncols=2, fontsize=9, frameon=False)


def scale(group: np.ndarray) -> tuple[float, float | None]:
    """The effect of the deepest colour, and that up to which nothing is painted; none for an empty map."""
    largest = float(np.abs(group).max())
    return (largest, largest / 1e4) if largest else (1.0, None)


def draw_brain(figure: Figure, axis, findings: Findings) -> None:
    """The group map on axial slices, red where a region speaks for the true class."""
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
    display._cbar.set_label(f"mean {EFFECT}")
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


def cells(row) -> dict[str, tuple[str, float | None]]:
    """A row of the page's table: heading -> what is shown, and what a number is sorted by."""
    shown = {
        "rank": (str(row.rank), row.rank),
        "region": (row.name, None),
        "effect": (number(row.delta_logit, ".4f"), row.delta_logit),
        f"{INTERVAL:.0%} interval": (interval(row.delta_logit_low, row.delta_logit_high), row.delta_logit_low),
        "p (family-wise)": (number(row.p, ".4f"), row.p),
        "q": (number(row.q, ".3g"), row.q),
        "size percentile": (number(row.size_percentile, ".0f"), row.size_percentile),
        "hemisphere": (row.hemisphere, None),
        "voxels": (str(row.voxels), row.voxels),
        "x, y, z (mm)": (f"{row.x_mm:.0f}, {row.y_mm:.0f}, {row.z_mm:.0f}", row.x_mm),
        "in autism": (number(row.delta_logit_autism, ".4f"), row.delta_logit_autism),
        "in control": (number(row.delta_logit_control, ".4f"), row.delta_logit_control),
    }
    return {name: (text, None if by is None or math.isnan(by) else float(by)) for name, (text, by) in shown.items()}


def drawing(findings: Findings) -> dict:
    """What the page draws a record's map from: slices of the atlas, front upward, and each record's effects."""
    levels = [round((z - grids.FULL.origin_mm[2]) / grids.FULL.spacing_mm) for z in findings.cuts_mm]
    slices = np.ascontiguousarray(findings.atlas.full[:, ::-1, levels].transpose(2, 1, 0), "<i4")
    rows = zip(findings.rows, findings.probability, findings.effect.round(5), strict=True)
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
        title=title(run),
        counted=counted(findings),
        simulated=run.cohort.simulated,
        summary=findings.summary,
        viewer=viewer(findings.group),
        table=[cells(row) for row in findings.table.itertuples()],
        drawing=drawing(findings),
    )
