"""Effects -> colours: red for the true class and blue against it, full where significant and pale where not."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from nibabel import Nifti1Image

from data.cohorts import nifti, records
from data.cohorts.atlas import Atlas
from utils.blackout.families import Family

SHADES = 256  # colours from the largest effect against the true class (blue) to the largest for it (red)
PALE = 0.3  # opacity of what is not significant
SHADE = {False: -2, True: 2}  # what is added to a region's share of the largest effect, by whether it is significant


def shades(opacity: float) -> np.ndarray:
    """Colours (SHADES, 4), red, green, blue and opacity in 0..1, from the largest effect against the true class on."""
    return plt.get_cmap("RdBu_r")(np.linspace(0, 1, SHADES)) * (1, 1, 1, opacity)


def largest_effect(effect: np.ndarray) -> float:
    """The effect of the deepest colour; NaN is none."""
    return float(np.nanmax(np.abs(effect))) or 1.0


def matrix(family: Family, axes: tuple[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean reliance on the things of a family by two of its columns, (rows, columns), NaN where there is no such pair;
    and which are significant. Rows stand by their findings, then by their strongest effect. If a pair has no order, as
    of two systems, both are symmetric."""
    found = family.place[[*axes]].set_axis(["row", "column"], axis=1)
    found = found.assign(effect=family.reliance.of_people.mean(0), marked=family.reliance.significant)
    columns = found["column"].unique()
    if symmetric := not found["row"][found["row"].isin(columns)].empty:
        found = pd.concat([found, found.rename(columns={"row": "column", "column": "row"})])
        found = found.drop_duplicates(["row", "column"])
    best = found.groupby("row", sort=False)[["marked", "effect"]].max()
    rows = best.sort_values(["marked", "effect"], ascending=False, kind="stable").index
    grids = (found.pivot(index="row", columns="column", values=name) for name in ("effect", "marked"))
    effect, marked = (grid.loc[rows, rows if symmetric else columns] for grid in grids)
    return effect, marked.eq(True)


def painted(family: Family, atlas: Atlas) -> tuple[Nifti1Image, dict[str, Any]]:
    """Mean reliance on the regions of an atlas on the full grid, and nilearn's options, which make it pale where it is
    not significant.

    nilearn colours by value alone. So a voxel holds the effect as a share of the largest one, plus the `SHADE`. What is
    -3 to -1 is pale, 1 to 3 full, and 0, outside the regions, transparent. Shares are a hair less than 1, so that they
    fall on no other colours.
    """
    effect = family.reliance.of_people.mean(0)
    share = effect / largest_effect(effect) * (1 - 1 / SHADES)
    values = share + np.where(family.reliance.significant, SHADE[True], SHADE[False])
    pale_and_full = ListedColormap(np.concatenate([shades(PALE), shades(0), shades(1)]))
    image = nifti.make_mni_image(atlas.paint(values), records.FULL)
    ends = {"vmin": SHADE[False] - 1, "vmax": SHADE[True] + 1, "threshold": None, "colorbar": False}
    return image, ends | {"cmap": pale_and_full, "resampling_interpolation": "nearest"}


def ranked(family: Family, atlas: Atlas) -> list[int]:
    """The regions of an atlas by reliance, but those that are significant first, by p."""
    return np.array(atlas.region_numbers)[family.significant_first].tolist()
