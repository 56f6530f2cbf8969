"""Maps -> what each is like as a whole: of which kind, how much of the brain, and where.

A network reads such things before it reads the brain, so they must not go with the diagnosis: maps of several kinds, or
masks or positions that differ between the groups, give perfect results that mean nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from data import grids
from data.base import files
from data.base.errors import InputError
from data.cohorts import nifti, records
from data.cohorts.cohort import MAPS

COLUMNS = ("background", "mean", "sd", "min", "max", "coverage", "x_mm", "y_mm", "z_mm", "voxel_mm3")
FALFF, Z_SCORED, MEAN_NORMALISED, AMPLITUDE = "fALFF from 0 to 1", "z-scored", "divided by its mean", "amplitude"
MAX_FALFF = 1.1  # fALFF is at most 1; interpolation overshoots
NEAR_ONE = 0.15  # of the mean of a map that was divided by its mean, and smoothed
GAP = 1.3  # ratio of means: maps closer to each other than this are of one kind
Z_SHARE, PLAIN_SHARE = 0.2, 0.05  # of a stored brain below the background: more in z-scored maps, less in others
ALPHA = 0.001  # over all measures (Bonferroni)
ENOUGH_OF_SITE = 5  # subjects
MOST_BY_SITE = 0.5  # of the variance of ranks
FAR_MM, OUTLIER = 10.0, 6.0  # from the median centre, and in robust standard deviations
SHOWN = 3


def describe(values: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Measures of a map (x, y, z) within its brain (x, y, z) bool; `affine` gives mm."""
    inside = values[brain].astype(np.float64)
    centre = affine[:3, :3] @ np.argwhere(brain).mean(0) + affine[:3, 3]
    volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
    full_mm3 = grids.FULL.spacing_mm**3 * np.prod(grids.FULL.shape)
    return {
        "background": records.background(values),
        "mean": inside.mean(),
        "sd": inside.std(),
        "min": inside.min(),
        "max": inside.max(),
        "coverage": brain.sum() * volume_mm3 / full_mm3,
        **dict(zip(("x_mm", "y_mm", "z_mm"), centre, strict=True)),
    }


def of_map(path: Path) -> dict[str, float]:
    """COLUMNS of a map on disk, as it is before anything is done to it. Raises InputError, naming the file."""
    image = nifti.read_brain(path)
    values = np.asarray(image.dataobj)
    voxel_mm3 = abs(np.linalg.det(image.affine[:3, :3]))
    measured = describe(values, values != records.background(values), image.affine) | {"voxel_mm3": voxel_mm3}
    return {name: float(f"{value:.6g}") for name, value in measured.items()}


def of_volume(volume: np.ndarray, grid: grids.Grid) -> dict[str, float]:
    """The same of a stored volume (x, y, z), and `below`: the share of its brain with less than the background."""
    brain = records.brain_of(volume)
    below = (volume[brain] < records.background(volume)).mean()
    return describe(volume, brain, np.array(grid.affine)) | {"below": below}


def kinds(measured: pd.DataFrame) -> pd.Series:
    """The kind of each map by its COLUMNS. Maps that are not z-scored form groups by their means; a group has one."""
    z_scored = (measured["min"] < 0) & (measured["mean"].abs() < 0.5 * measured["sd"])
    found = pd.Series(AMPLITUDE, measured.index).mask((measured["mean"] - 1).abs() < NEAR_ONE, MEAN_NORMALISED)
    found = found.mask(measured["max"] <= MAX_FALFF, FALFF).mask(z_scored, Z_SCORED)
    means = measured["mean"][~z_scored].clip(lower=1e-12).sort_values()
    group = (means / means.shift() > GAP).cumsum()
    found.update(found[means.index].groupby(group).transform(lambda names: Counter(names).most_common(1)[0][0]))
    return found


def stored_kinds(measured: pd.DataFrame) -> pd.Series:
    """Whether stored volumes were z-scored within the brain before; other kinds look alike in them. NaN if unclear."""
    return (
        pd.Series(np.nan, measured.index, dtype=object)
        .mask(measured["below"] > Z_SHARE, "z-scored within the brain")
        .mask(measured["below"] < PLAIN_SHARE, "positive in the brain")
    )


def mixture(found: pd.Series, names: Sequence[str]) -> str:
    """The kinds with counts and examples, if there are several; empty otherwise. `names` are those of the maps."""
    names = pd.Series(list(names), found.index)
    groups = [(kind, names[found == kind].tolist()) for kind, _ in Counter(found.dropna()).most_common()]
    if len(groups) < 2:
        return ""
    return " and ".join(f"{len(maps)} {kind} ({', '.join(maps[:SHOWN])})" for kind, maps in groups)


def by_site(measured: pd.DataFrame, sites: Sequence[str]) -> list[str]:
    """The measures that differ by site so much that they tell it: most of their variance (Kruskal-Wallis), or a site
    apart from all others."""
    of_row = np.asarray(sites)
    named = [site for site in np.unique(of_row) if (of_row == site).sum() >= ENOUGH_OF_SITE]
    telling = []
    for name, column in measured.items():
        groups = [column.to_numpy()[of_row == site] for site in named]
        values = np.concatenate(groups) if groups else np.empty(0)
        if len(groups) < 2 or not np.isfinite(values).all() or np.ptp(values) == 0:
            continue
        test = stats.kruskal(*groups)
        if test.pvalue < ALPHA / measured.shape[1] and (
            test.statistic / (values.size - 1) > MOST_BY_SITE or any(apart(groups, at) for at in range(len(groups)))
        ):
            telling.append(str(name))
    return telling


def apart(groups: list[np.ndarray], at: int) -> bool:
    """Whether one group lies above or below all others."""
    rest = np.concatenate(groups[:at] + groups[at + 1 :])
    return groups[at].min() > rest.max() or groups[at].max() < rest.min()


def far(measured: pd.DataFrame) -> pd.Series:
    """Whether a map's centre or coverage is far from the others', bool."""
    centres = measured[["x_mm", "y_mm", "z_mm"]]
    distance = np.sqrt(((centres - centres.median()) ** 2).sum(axis=1))
    coverage = np.log(measured["coverage"]).pipe(lambda column: column - column.median()).abs()
    return outlying(distance, FAR_MM) | outlying(coverage, np.log(GAP))


def outlying(deviation: pd.Series, least: float) -> pd.Series:
    return deviation > max(least, OUTLIER * 1.4826 * deviation.median())


def where(measured: pd.Series) -> str:
    """A map's centre in mm and its coverage, to be read."""
    centre = ", ".join(f"{measured[axis]:.0f}" for axis in ("x_mm", "y_mm", "z_mm"))
    return f"{centre} mm, {measured['coverage']:.0%} of the grid"


def write(path: Path, subjects: Sequence[str], measured: Mapping[str, pd.DataFrame]) -> None:
    """Writes `maps.csv`, a row a subject of each map, whose name stands in a column `map` if there are several."""
    tables = [table.assign(subject=list(subjects), map=name) for name, table in measured.items()]
    columns = ["subject", *["map"] * (len(tables) > 1), *COLUMNS]
    with files.replacing(path, newline="") as file:
        pd.concat(tables)[columns].to_csv(file, index=False, lineterminator="\n")


def read(folder: Path, subjects: Sequence[str], maps: Sequence[str]) -> dict[str, pd.DataFrame] | None:
    """`maps.csv` for these subjects, in their order, by map; None if there is none, or not of them all.

    Raises InputError, naming the file, if it is damaged.
    """
    path = folder / MAPS
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("subject")  # a subject may be called NA
        of_map = table.pop("map") if len(maps) > 1 else pd.Series(maps[0], table.index)
        table = table[list(COLUMNS)].replace("", "nan").astype(float)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); expected {', '.join(COLUMNS)}. Convert again.") from error
    found = {name: table[of_map == name] for name in maps}
    known = np.isfinite(table.to_numpy()).all() and all(
        of_one.index.is_unique and set(subjects) <= set(of_one.index) for of_one in found.values()
    )
    return {name: of_one.loc[list(subjects)] for name, of_one in found.items()} if known else None
