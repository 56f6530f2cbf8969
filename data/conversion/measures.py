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
from data.base.listing import join_names
from data.cohorts.cohort import MAP_MEASURES_FILE
from data.images import brain, grids
from data.images.nifti import SIDES_DIFFER_KEY

# columns of the table of measures that are compared by group
COMPARED_MEASURES = (
    "background",
    "mean",
    "sd",
    "min",
    "max",
    "coverage",
    "x_mm",
    "y_mm",
    "z_mm",
    "voxel_mm3",
)  # by group
MAP_MEASURES = (*COMPARED_MEASURES, "common_value", "common_share", SIDES_DIFFER_KEY)
SIGNED_KIND = "of either sign"  # such as networks of a dual regression, or negated maps
# kinds of maps, in words
UNIT_RANGE_KIND = "from 0 to 1"
Z_SCORED_KIND = "z-scored"
MEAN_ONE_KIND = "with a mean of 1"  # the first: such as fALFF, ReHo; the last: divided by the mean
POSITIVE_KIND = "from 0 to above 1"  # such as ALFF, degree centrality
MAX_UNIT_RANGE_VALUE = 1.1  # what is at most 1 overshoots in interpolation
# of the mean of a map that was divided by its mean, and smoothed; its values are above -MEAN_ONE_TOLERANCE
MEAN_ONE_TOLERANCE = 0.15
MIN_MEAN_RATIO = 1.3  # ratio of means: maps closer to each other than this are of one kind
# standard deviations from 0 to the mean of a z-scored map at most, even if it was smoothed
MAX_CENTRED_MEAN_DISTANCE_SD = 0.5
Z_SCORED_SD_RANGE = 0.4, 1.5  # of a z-scored map; smoothed with 8 mm it is 0.65 to 0.75, that of networks 0.1 to 0.5
# in standard deviations within the map
EXACT_ZERO_DISTANCE_SD = 0.001
NEAR_ZERO_DISTANCE_SD = (
    0.01  # from 0 to the mean of a map as it was z-scored; by chance, nine maps are nearly exact for each that is exact
)
MIN_EXACTLY_CENTRED_MAPS = 3  # maps
MAX_UNCLEAR_SHARE = 0.05  # of stored maps; if more are unclear, all are of one kind, of either sign
# shares of the brain's voxels below the background
MIN_Z_SCORED_BELOW_SHARE = 0.2
MAX_PLAIN_BELOW_SHARE = 0.05  # of a stored brain below the background: more in z-scored maps, less in others
MAX_SITE_P = 0.001  # over all measures (Bonferroni)
MIN_SITE_SUBJECTS = 5  # subjects
MIN_SITE_VARIANCE_SHARE = 0.5  # of the variance of ranks
# between the means of two groups of people
MIN_GROUP_DISTANCE_SD = 3.5
FEW_PEOPLE_DISTANCE_SD = (
    40.0  # standard deviations between smoothed and plain maps; the second / people is added, as for chance
)
MIN_MEASURE_SPREAD = 1e-9  # of a spread
# of the median difference from the background in a brain: a tail of smoothing, or next to a change of sign
FAINT_DIFFERENCE_SHARE = 0.1
EXAMPLE_MAP_COUNT = 3  # names of maps of each kind
SAMPLED_VOXEL_COUNT = 100_000  # voxels, in which the commonest value is looked for
# of voxels: one value other than 0 has at most 0.03 in 220 maps of grey matter, whose values are few, and 0.01 in maps
# of ABIDE and networks of Smith; outside of a brain are 0.5 to 0.8
MAX_COMMON_VALUE_SHARE = 0.1


def measure_volume(map_values: np.ndarray, brain_mask: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Measures of a map (x, y, z) within its brain (x, y, z) bool; `affine` gives mm."""
    brain_values = map_values.T[brain_mask.T].astype(np.float64)
    body_mask = find_body_mask(map_values, brain_mask)
    centre_voxel_position = []  # (x, y, z)
    for other_axes in ((1, 2), (0, 2), (0, 1)):
        plane_voxel_counts = body_mask.sum(axis=other_axes)  # (planes,)
        plane_indices = np.arange(len(plane_voxel_counts))
        centre_voxel_position.append(np.average(plane_indices, weights=plane_voxel_counts))
    centre_mm = affine[:3, :3] @ centre_voxel_position + affine[:3, 3]
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    full_grid_mm3 = grids.FULL.spacing_mm**3 * np.prod(grids.FULL.shape)
    return {
        "background": brain.find_background_value(map_values),
        "mean": brain_values.mean(),
        "sd": brain_values.std(),
        "min": brain_values.min(),
        "max": brain_values.max(),
        "coverage": brain_mask.sum() * voxel_mm3 / full_grid_mm3,
        **dict(zip(("x_mm", "y_mm", "z_mm"), centre_mm, strict=True)),
    }


def find_body_mask(map_values: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """The voxels of a map (x, y, z) by which its place is told, (x, y, z) bool: those of its brain (x, y, z) bool that
    are not faint (FAINT_DIFFERENCE_SHARE), and gaps of a voxel or two between them, such as where z-scores change sign.

    The outline of a smoothed map is no such measure: it lies where the tail of smoothing reaches the precision of the
    file, and moves with the strength of a few voxels. By it, 11 of 220 good maps of grey matter lay 4 to 6 mm away.
    """
    from scipy import ndimage  # slow, and only here needed by the processes that read maps

    background_difference = np.abs(map_values - brain.find_background_value(map_values))
    median_difference = np.median(background_difference.T[brain_mask.T])
    body_mask = brain_mask & (background_difference > FAINT_DIFFERENCE_SHARE * median_difference)
    # so that a body is neither cut nor widened where the volume ends
    padded_body = np.pad(body_mask.astype(np.uint8), 1)
    return ndimage.grey_closing(padded_body, 3, mode="constant")[1:-1, 1:-1, 1:-1].astype(bool)


def measure_image(map_image: nibabel.Nifti1Image) -> dict[str, float]:
    """MAP_MEASURES of a map as `nifti.read_map_images` reads it, before it is resampled or z-scored: those of
    `measure_volume`, the size of a voxel, the commonest value other than 0 with its share of all voxels, and
    SIDES_DIFFER_KEY, 0 or 1."""
    map_values = np.asarray(map_image.dataobj)
    commonest_nonzero_value = find_commonest_nonzero_value(map_values)
    brain_mask = map_values != brain.find_background_value(map_values)
    value_by_measure = measure_volume(map_values, brain_mask, map_image.affine) | {
        "voxel_mm3": abs(np.linalg.det(map_image.affine[:3, :3])),
        "common_value": commonest_nonzero_value,
        "common_share": np.count_nonzero(map_values == commonest_nonzero_value) / map_values.size,
        SIDES_DIFFER_KEY: float(map_image.extra.get(SIDES_DIFFER_KEY, False)),
    }
    return {measure_name: float(f"{measure_value:.6g}") for measure_name, measure_value in value_by_measure.items()}


def find_commonest_nonzero_value(map_values: np.ndarray) -> float:
    """The commonest value other than 0 of a map (x, y, z), by a sample of its voxels."""
    sampled_values = map_values.ravel(order="K")[:: map_values.size // SAMPLED_VOXEL_COUNT + 1]
    distinct_values, value_counts = np.unique(sampled_values[sampled_values != 0], return_counts=True)
    return float(distinct_values[value_counts.argmax()]) if distinct_values.size else 0.0


def measure_stored_volume(volume: np.ndarray, brain_mask: np.ndarray, grid: grids.Grid) -> dict[str, float]:
    """`measure_volume` for a stored volume (x, y, z), and its `compute_roughness`. `below_share` is the share of its
    brain (x, y, z) bool that is below the background."""
    below_share = (volume[brain_mask] < brain.find_background_value(volume)).mean()
    extra_measures = {"below": below_share, "roughness": compute_roughness(volume, brain_mask)}
    return measure_volume(volume, brain_mask, np.array(grid.affine)) | extra_measures


def compute_roughness(volume: np.ndarray, brain_mask: np.ndarray) -> float:
    """The mean square of the differences between neighbours in the brain (x, y, z) bool, in units of twice the
    variance. It is 1 for noise without any smoothness, and nearly 0 for a smooth volume."""
    squared_neighbour_difference_sum = 0.0
    neighbour_pair_count = 0
    for axis in range(3):
        moved_mask = np.moveaxis(brain_mask, axis, 0)
        moved_volume = np.moveaxis(volume, axis, 0)
        is_brain_pair = moved_mask[1:] & moved_mask[:-1]
        squared_neighbour_difference_sum += np.square(
            (moved_volume[1:] - moved_volume[:-1]) * is_brain_pair, dtype=np.float64
        ).sum()
        neighbour_pair_count += int(np.count_nonzero(is_brain_pair))
    if not neighbour_pair_count:
        return 1.0
    double_variance = max(2 * volume[brain_mask].var(dtype=np.float64), MIN_MEASURE_SPREAD)
    return float(squared_neighbour_difference_sum / neighbour_pair_count / double_variance)


def find_map_kinds(measure_table: pd.DataFrame) -> pd.Series:
    """The kind of each map by its MAP_MEASURES. Maps that differ by degrees are of one kind: those of either sign,
    whatever their means, unless the means of some are exactly 0; and those of like means, which get their commonest
    kind."""
    mean_distance_sd = (measure_table["mean"] / measure_table["sd"]).abs()
    # inf for maps that cannot be z-scored
    z_scored_mean_distance_sd = mean_distance_sd.where(
        (measure_table["min"] < 0) & measure_table["sd"].between(*Z_SCORED_SD_RANGE), np.inf
    )
    is_centred = z_scored_mean_distance_sd < MAX_CENTRED_MEAN_DISTANCE_SD
    has_either_sign = bool((measure_table["min"] < 0)[~is_centred].mean() > 0.5)  # also maps that were not z-scored
    has_exact_zero_mean = z_scored_mean_distance_sd < EXACT_ZERO_DISTANCE_SD
    has_nearly_zero_mean = mean_distance_sd.between(EXACT_ZERO_DISTANCE_SD, NEAR_ZERO_DISTANCE_SD)
    min_exact_maps = max(MIN_EXACTLY_CENTRED_MAPS, has_nearly_zero_mean.sum())
    is_exactly_z_scored = has_exact_zero_mean & (has_exact_zero_mean.sum() >= min_exact_maps)  # else none is
    has_clear_gap = is_centred.all() or mean_distance_sd[is_centred].max() < mean_distance_sd[~is_centred].min() / 2
    is_z_scored = is_centred if has_clear_gap and not has_either_sign else is_exactly_z_scored
    is_divided_by_mean = ((measure_table["mean"] - 1).abs() < MEAN_ONE_TOLERANCE) & (
        measure_table["min"] > -MEAN_ONE_TOLERANCE
    )

    # the last kind that fits
    map_kinds = pd.Series(POSITIVE_KIND, measure_table.index)
    map_kinds = map_kinds.mask(is_divided_by_mean, MEAN_ONE_KIND)
    map_kinds = map_kinds.mask(measure_table["max"] <= MAX_UNIT_RANGE_VALUE, UNIT_RANGE_KIND)
    map_kinds = map_kinds.mask(measure_table["mean"] < 0, SIGNED_KIND)
    map_kinds = map_kinds.mask(is_z_scored, Z_SCORED_KIND)
    if has_either_sign:
        return map_kinds.where(is_z_scored, SIGNED_KIND)

    # of maps with like means, the commonest kind
    sorted_means = measure_table["mean"][~is_z_scored].clip(lower=1e-12).sort_values()
    mean_group_by_map = (sorted_means / sorted_means.shift() > MIN_MEAN_RATIO).cumsum()  # numbers of groups, from 0
    map_kinds.update(
        map_kinds[sorted_means.index]
        .groupby(mean_group_by_map)
        .transform(lambda group_kinds: Counter(group_kinds).most_common(1)[0][0])
    )
    return map_kinds


def find_stored_volume_kinds(measure_table: pd.DataFrame) -> pd.Series:
    """Whether each stored volume is of a map that was z-scored within the brain, as text; NaN if unclear, as of maps
    of either sign."""
    map_kinds = pd.Series(np.nan, measure_table.index, dtype=object)
    below_share = measure_table["below"]
    is_like_z_scored = below_share.between(MIN_Z_SCORED_BELOW_SHARE, 1 - MIN_Z_SCORED_BELOW_SHARE)
    is_unclear = ~is_like_z_scored & (below_share > MAX_PLAIN_BELOW_SHARE)
    if is_unclear.mean() > MAX_UNCLEAR_SHARE:
        return map_kinds
    map_kinds = map_kinds.mask(below_share > MIN_Z_SCORED_BELOW_SHARE, "z-scored within the brain")
    return map_kinds.mask(below_share < MAX_PLAIN_BELOW_SHARE, "positive in the brain")


def describe_kind_mixture(map_kinds: pd.Series, map_file_names: Sequence[str]) -> str:
    """The kinds with counts and examples, if there are several; empty otherwise. `map_file_names` are those of the
    maps."""
    file_name_by_map = pd.Series(list(map_file_names), map_kinds.index)
    map_kind_texts = []
    for map_kind, map_count in Counter(map_kinds.dropna()).most_common():
        kind_file_names = file_name_by_map[map_kinds == map_kind].tolist()
        map_kind_texts.append(f"{map_count} {map_kind} ({join_names(kind_file_names, EXAMPLE_MAP_COUNT)})")
    return " and ".join(map_kind_texts) if len(map_kind_texts) > 1 else ""


def describe_voxel_sizes(measure_table: pd.DataFrame, map_file_names: Sequence[str]) -> str:
    """The sizes of voxels with counts and names, if maps have several; empty otherwise. Coarse maps are smoother."""
    voxel_edges_mm = (measure_table["voxel_mm3"] ** (1 / 3)).round(1)
    voxel_sizes_text = describe_kind_mixture(voxel_edges_mm.map("of {:g} mm".format), map_file_names)
    if not voxel_sizes_text:
        return ""
    return f"maps with voxels of several sizes, which are as different as smoothed and plain ones: {voxel_sizes_text}"


def describe_filled_backgrounds(measure_table: pd.DataFrame, map_file_names: Sequence[str]) -> str:
    """Which maps hold one value, other than 0, in so many voxels that it must be outside of the brain, and what to do;
    empty if none do."""
    has_filled_background = measure_table["common_share"] > MAX_COMMON_VALUE_SHARE
    if not has_filled_background.any():
        return ""
    filled_voxel_share_by_map = measure_table["common_share"][has_filled_background]
    min_share_text = f"{filled_voxel_share_by_map.min():.0%}"
    max_share_text = f"{filled_voxel_share_by_map.max():.0%}"
    share_range_text = min_share_text if min_share_text == max_share_text else f"{min_share_text} to {max_share_text}"
    filled_file_names = select_map_file_names(map_file_names, has_filled_background)
    common_value_text = f"{measure_table['common_value'][has_filled_background].iloc[0]:g}"
    return (
        f"one value other than 0 fills {share_range_text} of the voxels, as outside of a brain, and enters the "
        f"z-scores: in {join_names(filled_file_names, EXAMPLE_MAP_COUNT)}, {common_value_text} in the first. Set it "
        f'to 0, such as by nilearn.image.math_img("np.where(np.isclose(img, {common_value_text}), 0, img)", img=FILE)'
    )


def describe_side_conflicts(measure_table: pd.DataFrame, map_file_names: Sequence[str]) -> str:
    """Which maps have two affines that disagree on left and right, and what to do; empty if none do."""
    has_side_conflict = measure_table[SIDES_DIFFER_KEY] > 0
    if not has_side_conflict.any():
        return ""
    return (
        f"qform and sform disagree on which side is left, and the sform was taken: "
        f"{join_names(select_map_file_names(map_file_names, has_side_conflict))}. Check which is right and write it as "
        "both, such as by image.set_qform(image.affine) of nibabel"
    )


def select_map_file_names(map_file_names: Sequence[str], chosen_mask: pd.Series) -> list[str]:
    return [map_file_name for map_file_name, is_chosen in zip(map_file_names, chosen_mask, strict=True) if is_chosen]


def find_lower_group_indices(measure_values: np.ndarray) -> np.ndarray:
    """The positions of the lower group, if values (n,) fall into two groups that lie at least MIN_GROUP_DISTANCE_SD +
    FEW_PEOPLE_DISTANCE_SD / n standard deviations apart; nothing otherwise. Of sets of 10 to 500 normal values, one in
    1,000 does at most.

    By the logarithm of the roughness of maps, people of ABIDE lie up to 2.8 apart; half of them smoothed with 8 mm lie
    13 apart by fALFF, 3.8 by ALFF, 4.6 by degree centrality; with 6 mm 5.7, 2.7 and 3.1, so that ALFF alone does not
    tell (150 people, reduced grid).
    """
    value_count = len(measure_values)
    sorted_indices = np.argsort(measure_values)
    sorted_values = measure_values[sorted_indices]
    candidate_lower_sizes = range(MIN_SITE_SUBJECTS, value_count - MIN_SITE_SUBJECTS + 1)
    if not candidate_lower_sizes:
        return sorted_indices[:0]
    within_group_square_sums = [
        sorted_values[:lower_size].var() * lower_size + sorted_values[lower_size:].var() * (value_count - lower_size)
        for lower_size in candidate_lower_sizes
    ]
    best_lower_size = candidate_lower_sizes[int(np.argmin(within_group_square_sums))]
    within_group_sd = max(np.sqrt(min(within_group_square_sums) / value_count), MIN_MEASURE_SPREAD)
    group_distance = sorted_values[best_lower_size:].mean() - sorted_values[:best_lower_size].mean()
    min_group_distance = (MIN_GROUP_DISTANCE_SD + FEW_PEOPLE_DISTANCE_SD / value_count) * within_group_sd
    return sorted_indices[:best_lower_size] if group_distance >= min_group_distance else sorted_indices[:0]


def find_site_dependent_measures(measure_table: pd.DataFrame, site_by_row: Sequence[str]) -> list[str]:
    """The measures by which sites can be recognised. Sites explain most of the variance of their ranks
    (Kruskal-Wallis), or one site lies apart from all others."""
    from scipy.stats import kruskal  # slow, and the processes that read maps can do without

    site_array = np.asarray(site_by_row)
    large_sites = [site for site in np.unique(site_array) if (site_array == site).sum() >= MIN_SITE_SUBJECTS]
    site_dependent_measure_names = []
    for measure_name, measure_values in measure_table.items():
        values_per_site = [measure_values.to_numpy()[site_array == site] for site in large_sites]
        pooled_values = np.concatenate(values_per_site) if values_per_site else np.empty(0)
        if len(values_per_site) < 2 or not np.isfinite(pooled_values).all() or np.ptp(pooled_values) == 0:
            continue
        kruskal_test = kruskal(*values_per_site)
        # ascending, not by site
        sorted_site_minima = np.sort([site_values.min() for site_values in values_per_site])
        sorted_site_maxima = np.sort([site_values.max() for site_values in values_per_site])
        is_site_apart = sorted_site_minima[-1] > sorted_site_maxima[-2] or sorted_site_maxima[0] < sorted_site_minima[1]
        is_mostly_explained_by_site = kruskal_test.statistic / (pooled_values.size - 1) > MIN_SITE_VARIANCE_SHARE
        if kruskal_test.pvalue < MAX_SITE_P / measure_table.shape[1] and (is_mostly_explained_by_site or is_site_apart):
            site_dependent_measure_names.append(str(measure_name))
    return site_dependent_measure_names


def write_map_measures(csv_path: Path, subject_ids: Sequence[str], measures_by_map: Mapping[str, pd.DataFrame]) -> None:
    """Writes `maps.csv`: a row for each subject and map; the column `map` names the map if there are several."""
    column_names = ["subject", *(["map"] if len(measures_by_map) > 1 else []), *MAP_MEASURES]
    measure_table = pd.concat(
        [
            map_measures.assign(subject=list(subject_ids), map=map_name)
            for map_name, map_measures in measures_by_map.items()
        ]
    )
    tables.write_csv_frame(csv_path, measure_table[column_names])


def read_map_measures(
    cohort_folder: Path, subject_ids: Sequence[str], map_names: Sequence[str]
) -> dict[str, pd.DataFrame] | None:
    """By map, `maps.csv` for these subjects; None if it, a subject or a value is missing. Raises InputError."""
    csv_path = cohort_folder / MAP_MEASURES_FILE
    if not csv_path.is_file():
        return None
    try:
        measure_table = tables.read_csv_frame(csv_path).set_index("subject")
        map_name_by_row = measure_table["map"] if len(map_names) > 1 else pd.Series(map_names[0], measure_table.index)
        measure_table = measure_table[list(MAP_MEASURES)].replace("", "nan").astype(float)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{csv_path} is damaged ({error}); expected {', '.join(MAP_MEASURES)}. Convert again."
        ) from error
    measures_by_map = {map_name: measure_table[map_name_by_row == map_name] for map_name in map_names}
    has_all_subjects = all(
        map_measures.index.is_unique and set(subject_ids) <= set(map_measures.index)
        for map_measures in measures_by_map.values()
    )
    is_usable = has_all_subjects and np.isfinite(measure_table.to_numpy()).all()
    if not is_usable:
        return None
    return {map_name: map_measures.loc[list(subject_ids)] for map_name, map_measures in measures_by_map.items()}
