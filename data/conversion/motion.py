"""The JSON files beside maps -> head motion, for tables of subjects that do not hold it."""

import math
from pathlib import Path

import pandas as pd

from data.base import files
from data.base.errors import InputError, shown
from data.cohorts.nifti import beside
from data.cohorts.phenotype import HEAD_MOTION

KEY, COLUMN = "MeanFramewiseDisplacement", "mean_fd"  # mm


def with_motion(rows: pd.DataFrame, maps: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table of subjects with a column of the mean framewise displacement that `derive` wrote beside their maps (a
    column of MapOnDisk for each map, rows as in the table), and a note; as it is if it has head motion or nobody has
    such a file. Raises InputError for what is no number."""
    if maps.empty or any(map(HEAD_MOTION.search, rows)):
        return rows, []
    values = [motion_beside(of_map.path) for of_map in maps.iloc[:, 0]]
    known = sum(value is not None for value in values)
    if not known:
        return rows, []
    told = f"Head motion: {COLUMN}, mm, by the JSON beside the maps of {known} of {len(values)} people."
    return rows.assign(**{COLUMN: ["" if value is None else f"{value:g}" for value in values]}), [told]


def motion_beside(path: Path) -> float | None:
    """In mm; None if it is not known."""
    described = beside(path, ".json")
    value = files.read_json(described, dict).get(KEY) if described.is_file() else None
    if value is not None and (not isinstance(value, int | float) or not 0 <= value < math.inf):
        raise InputError(f"{described}: {KEY} is {shown(str(value))}; expected millimetres. Correct it, or remove it.")
    return value
