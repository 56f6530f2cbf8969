"""Reliance on each region in each map -> its table, `regions_by_map.png`, and the cells of the page's table.

A region is replaced by a donor's in one map alone, or in the edges of its connectome; all others stay. Effects by map
add up to the reliance on the region only in networks that read one map each.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data.cohorts.atlas import Atlas
from utils.blackout.adjustment import Adjustment
from utils.blackout.colours import colours, draw_colours, largest_effect, shading
from utils.blackout.effects import RELIANCE, Effects, mean_interval, sign_flip_test
from utils.figures import number, shortened
from utils.scores.results import ALPHA

ROWS = 30  # regions in the figure
NAME_WIDTH = 26  # letters of a name beside a row or below a column
ROW, COLUMN = 0.24, 0.36  # inches of a region, of a map
LEFT, RIGHT, BELOW, ABOVE = 2.6, 2.6, 1.9, 1.6  # inches around them


def map_table(
    atlas: Atlas, maps: Sequence[str], effects: Effects, seed: int, adjusted: Adjustment | None = None
) -> pd.DataFrame:
    """The columns of `regions_by_map.csv`, a row a pair of region and map: by reliance, equal ones in the order of the
    atlas and the cohort. p is family-wise over all pairs, of the effects that are `adjusted` for covariates;
    `p_reliance_plain` of the effects as they are. The index is the order of atlas and cohort."""
    effect = effects.of_subjects("reliance_by_map")
    effect = effect.reshape(len(effect), -1)
    label = effects.of_subjects("label")
    pairs = [(region, atlas.names[region], name) for region in atlas.regions for name in maps]
    table = pd.DataFrame(pairs, columns=["region", "name", "map"])
    table[RELIANCE], table[f"{RELIANCE}_low"], table[f"{RELIANCE}_high"] = mean_interval(effect, seed)
    table[f"p_{RELIANCE}"], _ = sign_flip_test(adjusted(effect) if adjusted else effect, label, seed)
    table[f"p_{RELIANCE}_plain"], _ = sign_flip_test(effect, label, seed)
    table = table.sort_values(RELIANCE, ascending=False, kind="stable")
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


@dataclass(frozen=True)
class ByMap:
    """`table` as of `map_table`, its `maps`, what it says in a sentence, and whether the network is not better than
    chance on these subjects. Regions come by their findings, then by their strongest effect in a map."""

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


def draw(heading: str, of: ByMap) -> Figure:
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
    beside = figure.add_axes(((LEFT + COLUMN * maps + 0.3) / wide, bottom, 0.3 / wide, height))
    draw_colours(beside, largest_effect(of[RELIANCE]), bool(of.significant.any()))
    letters = int(13 * wide)
    shown = f"The {rows} of {len(of.names)} regions with findings or the strongest effect in one map. {of.shading}"
    text = "\n".join(textwrap.fill(line, letters) for line in (heading, of.summary, shown) if line)
    figure.suptitle(text, fontsize=10, y=1 - 0.15 / high)
    return figure
