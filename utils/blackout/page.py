"""A blackout's pictures: `blackout.png`, and `blackout.html`, one page that opens from disk without a network."""

import base64
import json
import re
import warnings
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from data import files, grids, nifti
from data.atlas import Atlas
from data.cohort import Row
from utils import figures
from utils.runs import Run

CUTS_MM = (20, 40, 60)  # z in MNI space
BARS = 20


def write(
    run: Run, atlas: Atlas, table: pd.DataFrame, effect: np.ndarray, probability: np.ndarray, rows: list[Row]
) -> None:
    """Writes both pictures; `effect` is `delta_logit` (records, regions), `table` as in `regions.csv`."""
    group = atlas.paint(table.set_index("region").loc[atlas.regions, "delta_logit"].to_numpy())
    draw(run, table, group, len({row.subject for row in rows}))
    page = render(run, atlas, table, effect, probability, rows, group)
    with files.replacing(run.out_dir / "blackout.html", encoding="utf-8") as file:
        file.write(page)


def draw(run: Run, table: pd.DataFrame, group: np.ndarray, num_subjects: int) -> None:
    """Ranked bars with intervals beside the group map at z = 20, 40 and 60 mm."""
    from nilearn.plotting import plot_stat_map

    figure, (axis, brain) = plt.subplots(1, 2, figsize=(16, 6), width_ratios=(1, 2))
    figure.subplots_adjust(left=0.13, right=0.97)
    top = table.head(BARS).iloc[::-1]
    error = [top["delta_logit"] - top["delta_logit_low"], top["delta_logit_high"] - top["delta_logit"]]
    colours = np.where(top["p"] < 0.05, "C3", "0.6")
    axis.barh(top["name"], top["delta_logit"], xerr=np.maximum(error, 0), color=colours, ecolor="0.3")
    axis.set(xlabel="effect on the logit of the true class", title="red: family-wise p < 0.05")
    largest = float(np.abs(group).max()) or 1.0
    image = nifti.mni_image(group, grids.FULL)
    options = {"display_mode": "z", "cut_coords": CUTS_MM, "vmax": largest, "cmap": "RdBu_r", "black_bg": False}
    plot_stat_map(
        image,
        figure=figure,
        axes=brain,
        threshold=largest / 1e4,
        resampling_interpolation="nearest",
        title=f"{run.model.name}, mean over {num_subjects} test subjects{' (simulated)' * run.cohort.simulated}",
        **options,
    )
    figures.save(figure, run.out_dir / "blackout.png")


def viewer(group: np.ndarray) -> str:
    """nilearn's interactive viewer of the group map, a page of its own as text, without its link to an icon."""
    from nilearn.plotting import view_img

    largest = float(np.abs(group).max()) or 1.0
    image = nifti.mni_image(group, grids.FULL)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Warning: 'partition' will ignore the 'mask'"
        )  # of nilearn's own mask
        view = view_img(image, threshold=largest / 1e4, vmax=largest, cmap="RdBu_r", resampling_interpolation="nearest")
    return re.sub(r"<link[^>]*icon[^>]*>", "", view.get_standalone())


def render(
    run: Run,
    atlas: Atlas,
    table: pd.DataFrame,
    effect: np.ndarray,
    probability: np.ndarray,
    rows: list[Row],
    group: np.ndarray,
) -> str:
    """The page: viewer, sortable table, and a map of each record drawn from the atlas's slices."""
    levels = [round((z - grids.FULL.origin_mm[2]) / grids.FULL.spacing_mm) for z in CUTS_MM]
    slices = np.ascontiguousarray(atlas.full[:, ::-1, levels].transpose(2, 1, 0), "<i4")
    subjects = [
        {"name": row.file, "label": int(row.label), "probability": round(float(value), 4), "effect": effects.tolist()}
        for row, value, effects in zip(rows, probability, effect.round(5), strict=True)
    ]
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "page.html"
    )
    return template.render(
        title=f"Blackout of {run.model.name} on {run.cohort.path.name}",
        simulated=run.cohort.simulated,
        cuts=CUTS_MM,
        viewer=viewer(group),
        columns=table.columns.tolist(),
        table=table.to_dict("split")["data"],
        significant=int((table["p"] < 0.05).sum()),
        drawing=json.dumps({
            "shape": slices.shape,
            "slices": base64.b64encode(slices.tobytes()).decode(),
            "cuts": CUTS_MM,
            "regions": atlas.regions,
            "subjects": subjects,
        }),
    )  # fmt: skip
