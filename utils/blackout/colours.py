"""Effects -> colours: red for the true class and blue against it, full where significant and pale where not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap, to_hex
from nibabel import Nifti1Image

from data.cohorts import nifti, records
from data.cohorts.atlas import Atlas
from utils.blackout.families import Family
from utils.figures import number

SHADES = 256  # colours from the largest effect against the true class (blue) to the largest for it (red)
PALE = 0.3  # opacity of what is not significant
SHADE = {False: -2, True: 2}  # what is added to a region's share of the largest effect, by whether it is significant
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (WCAG 2.2)
HALF_LIGHT = 0.179  # from here on black letters stand out more than white ones
CUTS = 3
APART = 5  # voxels of 2 mm


def shades(opacity: float) -> np.ndarray:
    """Colours (SHADES, 4), red, green, blue and opacity in 0..1, from the largest effect against the true class on."""
    return plt.get_cmap("RdBu_r")(np.linspace(0, 1, SHADES)) * (1, 1, 1, opacity)


def largest_effect(effect: np.ndarray) -> float:
    """The effect of the deepest colour; NaN is none."""
    return float(np.nanmax(np.abs(effect))) or 1.0


def effect_ticks(largest: float) -> np.ndarray:
    """Five effects that are named beside the colours."""
    return largest * np.linspace(-1, 1, 5)


def colours(effect: np.ndarray, significant: np.ndarray) -> np.ndarray:
    """The colour of each effect, (...) -> (..., 4); none where it is NaN."""
    share = (np.nan_to_num(effect) / largest_effect(effect) + 1) / 2
    found = shades(1)[np.rint(share * (SHADES - 1)).astype(int)]
    found[..., 3] = np.where(np.isnan(effect), 0, np.where(significant, 1, PALE))
    return found


def on_white(colour: np.ndarray) -> np.ndarray:
    """Colours (..., 4) as they look on white (..., 3)."""
    return 1 - colour[..., 3:] * (1 - colour[..., :3])


def style_of(colour: np.ndarray) -> str:
    """A colour (4,) on white behind letters in CSS, black or white ones, whichever stand out more."""
    shown = on_white(colour)
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    letters = "#000" if linear @ LUMINANCE > HALF_LIGHT else "#fff"
    return f"background: {to_hex(tuple(shown))}; color: {letters}"


@dataclass(frozen=True)
class Matrix:
    """Effects of pairs, `effect`, `p` and `marked` (rows, columns); NaN where there is no such pair."""

    rows: Sequence[str]
    columns: Sequence[str]
    effect: np.ndarray
    p: np.ndarray
    marked: np.ndarray

    @classmethod
    def of(cls, family: Family, axes: tuple[str, str]) -> "Matrix":
        """Of a family by two of its columns, rows by their findings, then by their strongest effect. If a pair has no
        order, as of two systems, the matrix is symmetric."""
        row, column = (family.place[axis] for axis in axes)
        of = family.reliance
        cells = {"effect": of.of_people.mean(0), "p": of.p, "marked": of.significant}
        found, symmetric = pd.DataFrame({"row": row, "column": column} | cells), bool(set(row) & set(column))
        if symmetric:
            found = pd.concat([found, found.rename(columns={"row": "column", "column": "row"})])
            found = found.drop_duplicates(["row", "column"])
        best = found.groupby("row", sort=False)[["marked", "effect"]].max()
        rows = best.sort_values(["marked", "effect"], ascending=False, kind="stable").index
        columns = rows if symmetric else column.unique()
        grid = found.set_index(["row", "column"])
        grids = {name: grid[name].unstack("column").loc[rows, columns] for name in cells}
        marked = grids["marked"].eq(True).to_numpy()
        return cls([*rows], [*columns], grids["effect"].to_numpy(), grids["p"].to_numpy(), marked)

    @property
    def colours(self) -> np.ndarray:
        """(rows, columns, 4)."""
        return colours(self.effect, self.marked)

    @property
    def cells(self) -> list[tuple[str, list[tuple[float, str, str, bool]]]]:
        """The page's table: the name of each row and, for each column, the effect, its p, its colours in CSS, and
        whether it is marked."""
        p = [[number(one, ".4f") for one in row] for row in self.p]
        style = [[style_of(one) for one in row] for row in self.colours]
        columns = zip(self.rows, self.effect.tolist(), p, style, self.marked.tolist(), strict=True)
        return [(name, [*zip(*cells, strict=True)]) for name, *cells in columns]


def cuts(atlas: Atlas, ranked: Sequence[int]) -> list[int]:
    """z, mm in MNI space, of the axial slices of the full grid that show the first regions of a ranking."""
    levels = widest_levels(atlas.full, ranked)
    return [round(records.FULL.origin_mm[2] + records.FULL.spacing_mm * level) for level in levels]


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
    image = nifti.mni_image(atlas.paint(values), records.FULL)
    ends = {"vmin": SHADE[False] - 1, "vmax": SHADE[True] + 1, "threshold": None, "colorbar": False}
    return image, ends | {"cmap": pale_and_full, "resampling_interpolation": "nearest"}


def ranked(family: Family, atlas: Atlas) -> list[int]:
    """The regions of an atlas by reliance, but those that are significant first."""
    order = family.order[np.argsort(~family.significant, kind="stable")]
    return np.array(atlas.regions)[order].tolist()
