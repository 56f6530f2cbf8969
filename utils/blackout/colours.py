"""Effects -> colours: red for the true class and blue against it, full where significant and pale where not."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from nibabel import Nifti1Image

from data.images import grids, nifti
from data.images.atlas import Atlas
from utils.blackout.families import FeatureFamily

COLOUR_COUNT = 256  # colours from the largest effect against the true class (blue) to the largest for it (red)
PALE_OPACITY = 0.3  # opacity of what is not significant
COLOUR_OFFSET_BY_SIGNIFICANCE = {
    False: -2,
    True: 2,
}  # what is added to a region's share of the largest effect, by whether it is significant


def make_effect_colours(opacity: float) -> np.ndarray:
    """Colours (COLOUR_COUNT, 4): red, green, blue and opacity in 0..1, from the largest effect against the true class
    to the largest for it."""
    return plt.get_cmap("RdBu_r")(np.linspace(0, 1, COLOUR_COUNT)) * (1, 1, 1, opacity)


def find_largest_absolute_effect(effects: np.ndarray) -> float:
    """The largest absolute effect, which has the deepest colour; NaN is ignored, and 1 stands in for 0."""
    return float(np.nanmax(np.abs(effects))) or 1.0


def make_effect_matrix(
    feature_family: FeatureFamily, axis_columns: tuple[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The mean reliance on the features of a family by two of its columns, (rows, columns), NaN where there is no such
    pair; and which pairs are significant. Rows with a significant pair come first; otherwise they are sorted by their
    strongest effect. If a pair has no order, as of two systems, both tables are symmetric."""
    pair_table = feature_family.feature_table[[*axis_columns]].set_axis(["row", "column"], axis=1)
    pair_table = pair_table.assign(
        effect=feature_family.reliance_effect.subject_effects.mean(0),
        marked=feature_family.reliance_effect.is_significant,
    )
    matrix_column_names = pair_table["column"].unique()
    if is_symmetric := not pair_table["row"][pair_table["row"].isin(matrix_column_names)].empty:
        pair_table = pd.concat([pair_table, pair_table.rename(columns={"row": "column", "column": "row"})])
        pair_table = pair_table.drop_duplicates(["row", "column"])
    strongest_by_row = pair_table.groupby("row", sort=False)[["marked", "effect"]].max()
    matrix_row_names = strongest_by_row.sort_values(["marked", "effect"], ascending=False, kind="stable").index
    pivot_tables = (
        pair_table.pivot(index="row", columns="column", values=value_column) for value_column in ("effect", "marked")
    )
    effect_matrix, is_significant = (
        pivot_table.loc[matrix_row_names, matrix_row_names if is_symmetric else matrix_column_names]
        for pivot_table in pivot_tables
    )
    return effect_matrix, is_significant.eq(True)


def paint_effects(feature_family: FeatureFamily, atlas: Atlas) -> tuple[Nifti1Image, dict[str, Any]]:
    """Mean reliance on the regions of an atlas on the full grid, and nilearn's options, which make it pale where it is
    not significant.

    nilearn colours by value alone. So the value of a voxel is the effect as a share of the largest one, plus the
    `COLOUR_OFFSET_BY_SIGNIFICANCE`. Values of -3 to -1 are pale, 1 to 3 full, and 0, outside the regions, is
    transparent. Shares are a hair less than 1, so that they fall on no other colours.
    """
    mean_effects = feature_family.reliance_effect.subject_effects.mean(0)
    relative_effects = mean_effects / find_largest_absolute_effect(mean_effects) * (1 - 1 / COLOUR_COUNT)
    region_colour_values = relative_effects + np.where(
        feature_family.reliance_effect.is_significant,
        COLOUR_OFFSET_BY_SIGNIFICANCE[True],
        COLOUR_OFFSET_BY_SIGNIFICANCE[False],
    )
    colour_map = ListedColormap(
        np.concatenate([make_effect_colours(PALE_OPACITY), make_effect_colours(0), make_effect_colours(1)])
    )
    effect_image = nifti.make_mni_image(atlas.paint_regions(region_colour_values), grids.FULL)
    colour_options = {
        "vmin": COLOUR_OFFSET_BY_SIGNIFICANCE[False] - 1,
        "vmax": COLOUR_OFFSET_BY_SIGNIFICANCE[True] + 1,
        "threshold": None,
        "colorbar": False,
    }
    return effect_image, colour_options | {"cmap": colour_map, "resampling_interpolation": "nearest"}


def rank_regions(feature_family: FeatureFamily, atlas: Atlas) -> list[int]:
    """The regions of an atlas by reliance, but those that are significant first, by p."""
    return np.array(atlas.region_numbers)[feature_family.significant_first_order].tolist()
