"""Maps -> measures of each as a whole: its kind, how much of the brain it covers, and where that lies.

A network learns such differences before any in the brain, so they must not depend on the diagnosis. If kinds, masks or
positions differ between the groups, results are perfect and mean nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from data.base import tables
from data.base.errors import InputError
from data.cohorts import records
from data.cohorts.cohort import MAPS_FILE
from data.cohorts.nifti import SIDES_DIFFER_KEY
from data.cohorts.rows import join_names

COMPARED = ("background", "mean", "sd", "min", "max", "coverage", "x_mm", "y_mm", "z_mm", "voxel_mm3")  # by group
MEASURES = (*COMPARED, "common_value", "common_share", SIDES_DIFFER_KEY)
SIGNED = "of either sign"  # such as networks of a dual regression, or negated maps
TO_ONE, Z_SCORED, AROUND_ONE = "from 0 to 1", "z-scored", "with a mean of 1"  # such as fALFF, ReHo; divided by the mean
ABOVE_ONE = "from 0 to above 1"  # such as ALFF, degree centrality
MOST_TO_ONE = 1.1  # what is at most 1 overshoots in interpolation
NEAR_ONE = 0.15  # of the mean of a map that was divided by its mean, and smoothed; its values are above -NEAR_ONE
GAP = 1.3  # ratio of means: maps closer to each other than this are of one kind
CENTRED = 0.5  # standard deviations from 0 to the mean of a z-scored map at most, even if it was smoothed
Z_SD = 0.4, 1.5  # of a z-scored map; smoothed with 8 mm it is 0.65 to 0.75, that of networks 0.1 to 0.5
EXACT, AROUND = 0.001, 0.01  # the same of a map as z-scored; by chance, nine maps lie around for each that is exact
MIN_EXACT = 3  # maps
MOST_UNCLEAR = 0.05  # of stored maps; more if they are of one kind, of either sign
Z_SHARE, PLAIN_SHARE = 0.2, 0.05  # of a stored brain below the background: more in z-scored maps, less in others
SITE_P_VALUE = 0.001  # over all measures (Bonferroni)
MIN_OF_SITE = 5  # subjects
MOST_BY_SITE = 0.5  # of the variance of ranks
APART, APART_FEW = 3.5, 40.0  # standard deviations between smoothed and plain maps; more by this / people, as by chance
SMALLEST = 1e-9  # of a spread
FAINT = 0.1  # of the median difference from the background in a brain: a tail of smoothing, or next to a change of sign
EXAMPLES = 3  # names of maps of each kind
SAMPLED = 100_000  # voxels, in which the commonest value is looked for
MOST_COMMON = 0.1  # of voxels: one value other than 0 has at most 0.03 in 220 maps of grey matter, whose values are few
# and 0.01 in maps of ABIDE and networks of Smith; outside of a brain are 0.5 to 0.8


def describe(values: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Measures of a map (x, y, z) within its brain (x, y, z) bool; `affine` gives mm."""
    inside = values.T[brain.T].astype(np.float64)
    body = body_of(values, brain)
    planes = [body.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    voxel = [np.average(np.arange(len(counts)), weights=counts) for counts in planes]
    centre = affine[:3, :3] @ voxel + affine[:3, 3]
    volume_mm3 = abs(np.linalg.det(affine[:3, :3]))
    full_mm3 = records.FULL.spacing_mm**3 * np.prod(records.FULL.shape)
    return {
        "background": records.find_background(values),
        "mean": inside.mean(),
        "sd": inside.std(),
        "min": inside.min(),
        "max": inside.max(),
        "coverage": brain.sum() * volume_mm3 / full_mm3,
        **dict(zip(("x_mm", "y_mm", "z_mm"), centre, strict=True)),
    }


def body_of(values: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The voxels of a map (x, y, z) by which its place is told, (x, y, z) bool: those of its brain (x, y, z) bool that
    are not FAINT, and gaps of a voxel or two between them, such as where z-scores change their sign.

    The outline of a smoothed map is no such measure: it lies where the tail of smoothing reaches the precision of the
    file, and moves with the strength of a few voxels. By it, 11 of 220 good maps of grey matter lay 4 to 6 mm away.
    """
    from scipy import ndimage  # slow, and only here needed by the processes that read maps

    difference = np.abs(values - records.find_background(values))
    body = brain & (difference > FAINT * np.median(difference.T[brain.T]))
    edged = np.pad(body.astype(np.uint8), 1)  # so that a body is neither cut nor widened where the volume ends
    return ndimage.grey_closing(edged, 3, mode="constant")[1:-1, 1:-1, 1:-1].astype(bool)


def of_image(image: nibabel.Nifti1Image) -> dict[str, float]:
    """MEASURES of a map as `nifti.read_map_images` reads it, before it is resampled or z-scored: those of `describe`,
    the size of a voxel, the commonest value other than 0 with its share of all voxels, and whether SIDES_DIFFER, 0
    or 1."""
    values = np.asarray(image.dataobj)
    common = common_value(values)
    measured = describe(values, values != records.find_background(values), image.affine) | {
        "voxel_mm3": abs(np.linalg.det(image.affine[:3, :3])),
        "common_value": common,
        "common_share": np.count_nonzero(values == common) / values.size,
        SIDES_DIFFER_KEY: float(image.extra.get(SIDES_DIFFER_KEY, False)),
    }
    return {name: float(f"{value:.6g}") for name, value in measured.items()}


def common_value(values: np.ndarray) -> float:
    """The commonest value other than 0 of a map (x, y, z), by a sample of its voxels."""
    sample = values.ravel(order="K")[:: values.size // SAMPLED + 1]
    different, counts = np.unique(sample[sample != 0], return_counts=True)
    return float(different[counts.argmax()]) if different.size else 0.0


def of_volume(volume: np.ndarray, brain: np.ndarray, grid: records.Grid) -> dict[str, float]:
    """`describe` for a stored volume (x, y, z), and its `roughness`. `below` is the share of its brain (x, y, z) bool
    that is below the background."""
    below = (volume[brain] < records.find_background(volume)).mean()
    more = {"below": below, "roughness": roughness(volume, brain)}
    return describe(volume, brain, np.array(grid.affine)) | more


def roughness(volume: np.ndarray, brain: np.ndarray) -> float:
    """The mean square of the differences between neighbours in the brain (x, y, z) bool, in units of twice the
    variance. It is 1 for noise without any smoothness, and nearly 0 for a smooth volume."""
    squares, pairs = 0.0, 0
    for axis in range(3):
        inside, values = np.moveaxis(brain, axis, 0), np.moveaxis(volume, axis, 0)
        both = inside[1:] & inside[:-1]
        squares += np.square((values[1:] - values[:-1]) * both, dtype=np.float64).sum()
        pairs += int(np.count_nonzero(both))
    return float(squares / pairs / max(2 * volume[brain].var(dtype=np.float64), SMALLEST)) if pairs else 1.0


def kinds(measured: pd.DataFrame) -> pd.Series:
    """The kind of each map by its MEASURES. Maps that differ by degrees are of one kind: those of either sign, whatever
    their means, unless the means of some are exactly 0; and those of like means, which get their commonest kind."""
    distance = (measured["mean"] / measured["sd"]).abs()
    near = distance.where((measured["min"] < 0) & measured["sd"].between(*Z_SD), np.inf)
    centred = near < CENTRED
    either_sign = bool((measured["min"] < 0)[~centred].mean() > 0.5)  # also maps that were not z-scored
    exact, around = near < EXACT, distance.between(EXACT, AROUND)
    told_apart = exact if exact.sum() >= max(MIN_EXACT, around.sum()) else exact & False
    far_apart = centred.all() or distance[centred].max() < distance[~centred].min() / 2
    z_scored = centred if far_apart and not either_sign else told_apart
    divided = ((measured["mean"] - 1).abs() < NEAR_ONE) & (measured["min"] > -NEAR_ONE)
    found = pd.Series(ABOVE_ONE, measured.index).mask(divided, AROUND_ONE)
    found = found.mask(measured["max"] <= MOST_TO_ONE, TO_ONE).mask(measured["mean"] < 0, SIGNED)
    found = found.mask(z_scored, Z_SCORED)
    if either_sign:
        return found.where(z_scored, SIGNED)
    means = measured["mean"][~z_scored].clip(lower=1e-12).sort_values()
    group = (means / means.shift() > GAP).cumsum()
    found.update(found[means.index].groupby(group).transform(lambda names: Counter(names).most_common(1)[0][0]))
    return found


def stored_kinds(measured: pd.DataFrame) -> pd.Series:
    """Whether each stored volume is of a map that was z-scored within the brain, as text; NaN if unclear, as of maps
    of either sign."""
    found, below = pd.Series(np.nan, measured.index, dtype=object), measured["below"]
    if (~below.between(Z_SHARE, 1 - Z_SHARE) & (below > PLAIN_SHARE)).mean() > MOST_UNCLEAR:
        return found
    found = found.mask(below > Z_SHARE, "z-scored within the brain")
    return found.mask(below < PLAIN_SHARE, "positive in the brain")


def mixture(found: pd.Series, names: Sequence[str]) -> str:
    """The kinds with counts and examples, if there are several; empty otherwise. `names` are those of the maps."""
    named = pd.Series(list(names), found.index)
    kinds = Counter(found.dropna()).most_common()
    told = [f"{count} {kind} ({join_names(named[found == kind].tolist(), EXAMPLES)})" for kind, count in kinds]
    return " and ".join(told) if len(told) > 1 else ""


def voxel_sizes(measured: pd.DataFrame, names: Sequence[str]) -> str:
    """The sizes of voxels with counts and names, if maps have several; empty otherwise. Coarse maps are smoother."""
    told = mixture((measured["voxel_mm3"] ** (1 / 3)).round(1).map("of {:g} mm".format), names)
    return told and f"maps with voxels of several sizes, which are as different as smoothed and plain ones: {told}"


def filled(measured: pd.DataFrame, names: Sequence[str]) -> str:
    """Which maps hold one value, other than 0, in so many voxels that it must be outside of the brain, and what to do;
    empty if none do."""
    odd = measured["common_share"] > MOST_COMMON
    if not odd.any():
        return ""
    shares = measured["common_share"][odd]
    share = " to ".join(dict.fromkeys(f"{end:.0%}" for end in (shares.min(), shares.max())))
    value = f"{measured['common_value'][odd].iloc[0]:g}"
    return (
        f"one value other than 0 fills {share} of the voxels, as outside of a brain, and enters the z-scores: in "
        f"{join_names(named_at(names, odd), EXAMPLES)}, {value} in the first. Set it to 0, such as by "
        f'nilearn.image.math_img("np.where(np.isclose(img, {value}), 0, img)", img=FILE)'
    )


def two_sides(measured: pd.DataFrame, names: Sequence[str]) -> str:
    """Which maps have two affines that disagree on left and right, and what to do; empty if none do."""
    if not (odd := measured[SIDES_DIFFER_KEY] > 0).any():
        return ""
    return (
        f"qform and sform disagree on which side is left, and the sform was taken: {join_names(named_at(names, odd))}. "
        "Check which is right and write it as both, such as by image.set_qform(image.affine) of nibabel"
    )


def named_at(names: Sequence[str], chosen: pd.Series) -> list[str]:
    return [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]


def far_below(values: np.ndarray) -> np.ndarray:
    """The places of the lower ones of values (n,) that fall into two groups, which lie more than APART standard
    deviations apart; nothing otherwise. Of 10 to 500 normal values, one set in 1,000 does at most.

    By the logarithm of the roughness of maps, people of ABIDE lie up to 2.8 apart; half of them smoothed with 8 mm lie
    13 apart by fALFF, 3.8 by ALFF, 4.6 by degree centrality; with 6 mm 5.7, 2.7 and 3.1, so that ALFF alone does not
    tell (150 people, reduced grid).
    """
    order = np.argsort(values)
    values = values[order]
    cuts = range(MIN_OF_SITE, len(values) - MIN_OF_SITE + 1)
    if not cuts:
        return order[:0]
    within = [values[:cut].var() * cut + values[cut:].var() * (len(values) - cut) for cut in cuts]
    cut = cuts[int(np.argmin(within))]
    spread = max(np.sqrt(min(within) / len(values)), SMALLEST)
    apart = values[cut:].mean() - values[:cut].mean() >= (APART + APART_FEW / len(values)) * spread
    return order[:cut] if apart else order[:0]


def by_site(measured: pd.DataFrame, sites: Sequence[str]) -> list[str]:
    """The measures by which sites can be recognised. Sites explain most of the variance of their ranks
    (Kruskal-Wallis), or one site lies apart from all others."""
    from scipy.stats import kruskal  # slow, and the processes that read maps can do without

    of_row = np.asarray(sites)
    named = [site for site in np.unique(of_row) if (of_row == site).sum() >= MIN_OF_SITE]
    found = []
    for name, column in measured.items():
        groups = [column.to_numpy()[of_row == site] for site in named]
        values = np.concatenate(groups) if groups else np.empty(0)
        if len(groups) < 2 or not np.isfinite(values).all() or np.ptp(values) == 0:
            continue
        test = kruskal(*groups)
        lows, highs = np.sort([group.min() for group in groups]), np.sort([group.max() for group in groups])
        apart = lows[-1] > highs[-2] or highs[0] < lows[1]
        most = test.statistic / (values.size - 1) > MOST_BY_SITE
        if test.pvalue < SITE_P_VALUE / measured.shape[1] and (most or apart):
            found.append(str(name))
    return found


def write_measures(path: Path, subjects: Sequence[str], measured: Mapping[str, pd.DataFrame]) -> None:
    """Writes `maps.csv`: a row for each subject and map; the column `map` names the map if there are several."""
    columns = ["subject", *(["map"] if len(measured) > 1 else []), *MEASURES]
    table = pd.concat([of_map.assign(subject=list(subjects), map=name) for name, of_map in measured.items()])
    tables.write_frame(path, table[columns])


def read_measures(folder: Path, subjects: Sequence[str], maps: Sequence[str]) -> dict[str, pd.DataFrame] | None:
    """By map, `maps.csv` for these subjects; None if it, a subject or a value is missing. Raises InputError."""
    path = folder / MAPS_FILE
    if not path.is_file():
        return None
    try:
        table = tables.read_frame(path).set_index("subject")
        of_map = table["map"] if len(maps) > 1 else pd.Series(maps[0], table.index)
        table = table[list(MEASURES)].replace("", "nan").astype(float)
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}); expected {', '.join(MEASURES)}. Convert again.") from error
    found = {name: table[of_map == name] for name in maps}
    known = all(of_one.index.is_unique and set(subjects) <= set(of_one.index) for of_one in found.values())
    usable = known and np.isfinite(table.to_numpy()).all()
    return {name: of_one.loc[list(subjects)] for name, of_one in found.items()} if usable else None
