"""Families of a blackout -> its tables: `regions.csv`, `regions_by_map.csv` and `values.csv`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.cohorts import records
from data.cohorts.atlas import Atlas
from data.cohorts.records import CLASSES
from utils.blackout import direction
from utils.blackout.effects import Effects
from utils.blackout.families import Family, intervals
from utils.blackout.fills import BACKGROUND, FILLS, RELIANCE, UNIQUE
from utils.blackout.values import MARKS, Groups
from utils.scores.results import ALPHA

SUPPRESSOR = "possibly a suppressor"  # unique without reliance
ONE_SIDED = 0.7  # share of a region's voxels in one hemisphere that makes it left or right


def region_table(atlas: Atlas, effects: Effects, family: Family) -> pd.DataFrame:
    """The columns of `regions.csv`, a row a region, by reliance; equal ones stay in the order of the atlas. `family` is
    that of the regions' reliance. p and q are of effects adjusted for covariates, `p_..._plain` of those as they
    are."""
    table, last = pd.DataFrame([region_place(atlas, region) for region in atlas.regions]), []
    people = family.people
    for fill in FILLS:
        kind, effect = fill.name, effects.of_subjects(effects[fill.stored])
        if fill.tested:
            of_fill = family if kind == RELIANCE else Family(kind, family.things, effect, family.value, people)
            columns = of_fill.columns(kind)
            table = pd.concat([table, columns.iloc[:, :4].assign(**{f"q_{kind}": of_fill.q})], axis=1)
            last.append(columns.iloc[:, [5, 6, 7, 4]])
        else:
            table[[kind, f"{kind}_low", f"{kind}_high"]] = intervals(effect, people)
        if kind == BACKGROUND:
            for value, name in reversed([*enumerate(CLASSES)]):
                own = people.label == value
                table[f"{kind}_{name}"] = effect[own].mean(0) if own.any() else np.nan
    alone = (table[f"p_{UNIQUE}"] < ALPHA) & ~(table[f"p_{RELIANCE}"] < ALPHA)
    table = pd.concat([table, *last], axis=1).assign(remark=np.where(alone, SUPPRESSOR, ""))
    return ranked(table, family)


def map_table(atlas: Atlas, maps: Sequence[str], family: Family) -> pd.DataFrame:
    """The columns of `regions_by_map.csv`, a row a pair of region and map, by reliance. Equal ones stay in the order of
    the atlas and the cohort, which is the index. P-values are family-wise over all pairs."""
    pairs = [(region, atlas.names[region], name) for region in atlas.regions for name in maps]
    table = pd.DataFrame(pairs, columns=["region", "name", "map"])
    return ranked(pd.concat([table, family.columns()], axis=1), family, keep_index=True)


def value_table(groups: Groups, names: Sequence[str], family: Family) -> pd.DataFrame:
    """The columns of `values.csv`, a row a group of the phenotype's values, by reliance. P-values are family-wise over
    all groups."""
    of_group = ["; ".join(names[at] for at in own) for own in groups.values()]
    table = pd.DataFrame({"group": [*groups], "values": of_group})
    first = ["how much is unknown" if group == MARKS else names[own[0]] for group, own in groups.items()]
    return ranked(pd.concat([table, family.columns()], axis=1).assign(difference_of=first), family)


def ranked(table: pd.DataFrame, family: Family, keep_index: bool = False) -> pd.DataFrame:
    """The rows of a family's things with their direction, by reliance."""
    table = pd.concat([table, direction.columns(family)], axis=1)
    table = table.sort_values(RELIANCE, ascending=False, kind="stable", ignore_index=not keep_index)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


def region_place(atlas: Atlas, region: int) -> dict:
    """Number, name, hemisphere, voxels on the volume's grid, and centre in mm of MNI space."""
    affine = np.array(records.FULL.affine)
    mm = np.argwhere(atlas.full == region) @ affine[:3, :3].T + affine[:3, 3]
    left, right = (mm[:, 0] < 0).mean(), (mm[:, 0] > 0).mean()
    return {
        "region": region,
        "name": atlas.names[region],
        "hemisphere": "left" if left > ONE_SIDED else "right" if right > ONE_SIDED else "both",
        "voxels": int((atlas.labels == region).sum()),
        **dict(zip(("x_mm", "y_mm", "z_mm"), mm.mean(0).round(1), strict=True)),
    }
