"""Results of a blackout as its page and figures take them, and their colours.

Colours are red for the true class and blue against it, full where significant and pale where not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap, to_hex
from nibabel import Nifti1Image

from data.base.tables import printable
from data.cohorts import nifti, records
from data.cohorts.atlas import Atlas
from utils.blackout.connections import SYSTEMS
from utils.blackout.effects import Effects
from utils.blackout.fills import RELIANCE
from utils.figures import number
from utils.runs.run import Run
from utils.scores.results import ALPHA, Headline

SHADES = 256  # colours from the largest effect against the true class (blue) to the largest for it (red)
PALE = 0.3  # opacity of what is not significant
SHADE = {False: -2, True: 2}  # what is added to a region's share of the largest effect, by whether it is significant
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (WCAG 2.2)
HALF_LIGHT = 0.179  # from here on black letters stand out more than white ones
CUTS = 3
APART = 5  # voxels of 2 mm
STRONGEST = 20  # pairs that are listed if none is significant


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


@dataclass(frozen=True)
class Matrix:
    """Effects of pairs, `effect`, `p` and `marked` (rows, columns); NaN where there is no such pair."""

    rows: Sequence[str]
    columns: Sequence[str]
    effect: np.ndarray
    p: np.ndarray
    marked: np.ndarray

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
class Things:
    """What is tested together: its table, as written. `at_chance`: the network is not better than chance on these
    subjects; `few`: they are too few of a class. Then nothing is marked. `summary`: what is found, in sentences."""

    table: pd.DataFrame
    at_chance: bool
    summary: str = ""
    few: bool = False
    called: ClassVar[str] = "groups of values"  # in sentences

    def significant(self, kind: str = RELIANCE) -> np.ndarray:
        """Which rows of the table are marked, (rows,) bool: none if nothing is concluded, or p is unknown."""
        return (self.table[f"p_{kind}"] < ALPHA).to_numpy() & (not (self.at_chance or self.few))

    @property
    def is_tested(self) -> bool:
        """Whether something could be marked."""
        return not (self.at_chance or self.few or self.table[f"p_{RELIANCE}"].isna().all())

    @property
    def first(self) -> pd.DataFrame:
        """The significant rows; if none is, the strongest."""
        found = self.significant()
        return self.table[found] if found.any() else self.table.nlargest(STRONGEST, RELIANCE)

    @property
    def shading(self) -> str:
        """What pale and full colours mean, in a sentence."""
        if self.at_chance:
            return f"All {self.called} are pale: the network is not shown to be better than chance on these subjects."
        if self.table[f"p_{RELIANCE}"].isna().all():
            return f"All {self.called} are pale: there are no p-values, since the subjects are of one class."
        if self.few:
            return f"All {self.called} are pale: a class has too few subjects to conclude anything."
        if not self.significant().any():
            return f"All {self.called} are pale: none is significant (family-wise p < {ALPHA:g})."
        return f"Full colour: significant (family-wise p < {ALPHA:g}). Pale: not significant."


@dataclass(frozen=True, kw_only=True)
class Regions(Things):
    """`table` as in `regions.csv`."""

    atlas: Atlas
    called: ClassVar[str] = "regions"

    @property
    def ranked(self) -> list[int]:
        """The regions as the table has them, but those of significant reliance first."""
        return self.table["region"].iloc[np.argsort(~self.significant(), kind="stable")].tolist()

    @property
    def cuts(self) -> dict[int, int]:
        """The axial slices of the full grid that show the first regions of `ranked`: z index -> z, mm in MNI space."""
        levels = widest_levels(self.atlas.full, self.ranked)
        return {level: round(records.FULL.origin_mm[2] + records.FULL.spacing_mm * level) for level in levels}


@dataclass(frozen=True, kw_only=True)
class ByMap(Things):
    """`table` as of `tables.map_table`, and its `maps`."""

    maps: Sequence[str]
    called: ClassVar[str] = "pairs"

    @cached_property
    def matrix(self) -> Matrix:
        """Regions by maps. Regions come by their findings, then by their strongest effect in a map."""
        in_atlas = self.table.assign(marked=self.significant()).sort_index()
        columns = ("name", RELIANCE, f"p_{RELIANCE}", "marked")
        name, effect, p, marked = (in_atlas[column].to_numpy().reshape(-1, len(self.maps)) for column in columns)
        order = np.lexsort((-effect.max(1), ~marked.any(1)))
        return Matrix(name[order, 0].tolist(), self.maps, effect[order], p[order], marked[order])


@dataclass(frozen=True)
class Pairs(Things):
    """`table` as in `connections.csv`: pairs of systems, then pairs of regions, by `level`."""

    called: ClassVar[str] = "pairs"

    def of(self, level: str) -> "Pairs":
        """The pairs of a level alone: of systems, or of regions."""
        return Pairs(self.table[self.table["level"] == level], self.at_chance, few=self.few)

    @cached_property
    def matrix(self) -> Matrix:
        """Systems by systems, in the order of their names; symmetric."""
        pairs = self.of(SYSTEMS)
        names = sorted({*pairs.table["a"], *pairs.table["b"]})
        a, b = (pairs.table[side].map(names.index).to_numpy() for side in "ab")
        effect, p, marked = (np.full((len(names), len(names)), empty) for empty in (np.nan, np.nan, False))
        columns = pairs.table[RELIANCE], pairs.table[f"p_{RELIANCE}"], pairs.significant()
        for array, values in zip((effect, p, marked), columns, strict=True):
            array[a, b] = array[b, a] = values
        return Matrix(names, names, effect, p, marked)


@dataclass(frozen=True)
class BlackoutResults:
    """The effects per record, the summary in sentences, and what is tested together, as far as it was replaced.
    `judged`: how well the network predicts these subjects. `replication`: as in `replication.csv`, and `first_sentence`
    what it says."""

    effects: Effects
    summary: str
    judged: Headline
    regions: Regions | None = None
    by_map: ByMap | None = None
    connections: Pairs | None = None
    values: Things | None = None
    replication: pd.DataFrame | None = None
    first_sentence: str = ""
    more: Sequence[str] = ()  # what else is said of replication

    @property
    def at_chance(self) -> bool:
        """Whether the network is not better than chance on these subjects."""
        return self.judged.score.beats_chance is False

    @property
    def told(self) -> str:
        """All that is said, for the terminal and `run.json`."""
        others = [part.summary for part in (self.connections, self.values, self.by_map) if part]
        return "\n".join(filter(None, (self.summary, *others, self.first_sentence)))

    @property
    def families(self) -> list[str]:
        """What was replaced one at a time."""
        parts = (self.regions, self.by_map, self.connections, self.values)
        names = ("regions", "regions in each map", "connections", "groups of values")
        return [name for name, part in zip(names, parts, strict=True) if part]

    @property
    def sample(self) -> str:
        """How many subjects and records the mean is over."""
        subjects, count = len(set(self.effects.subject)), len(self.effects.rows)
        counted = "1 test subject" if subjects == 1 else f"{subjects} test subjects"
        return counted if count == subjects else f"{counted}, {count} records"


def title(run: Run, results: BlackoutResults) -> str:
    """Model, the name of the cohort, and the warnings that belong beside every result."""
    cohort = printable(run.data_dir.absolute().name) if run.data_dir else "the demo cohort"
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


def painted(regions: Regions) -> tuple[Nifti1Image, dict[str, Any]]:
    """Mean reliance over subjects on the full grid, and nilearn's options, which make it pale where it is not
    significant.

    nilearn colours by value alone. So a voxel holds the effect as a share of the largest one, plus the `SHADE`. What is
    -3 to -1 is pale, 1 to 3 full, and 0, outside the regions, transparent. Shares are a hair less than 1, so that they
    fall on no other colours.
    """
    atlas, effect = regions.atlas, regions.table[RELIANCE]
    share = effect / largest_effect(effect) * (1 - 1 / SHADES)
    values = share + np.where(regions.significant(), SHADE[True], SHADE[False])
    pale_and_full = ListedColormap(np.concatenate([shades(PALE), shades(0), shades(1)]))
    image = nifti.mni_image(atlas.paint(values.set_axis(regions.table["region"]).loc[atlas.regions]), records.FULL)
    ends = {"vmin": SHADE[False] - 1, "vmax": SHADE[True] + 1, "threshold": None, "colorbar": False}
    return image, ends | {"cmap": pale_and_full, "resampling_interpolation": "nearest"}
