"""Measures of people, and their ranges over others -> robust z, and what is far from the others in plain words.

There is one table: each measure, its words, and its limit. All that is reported of a person, beside the others of a
cohort or beside training people, is a measure beyond its limit. In a cohort a tenth may be odd, and sites differ, so
that limits that follow from the people would follow the odd ones; the limits are fixed.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from data.base.listing import join_names
from data.likeness.scans import CONNECTOME_VIEW, MIRROR_HALF_MEASURE_NAMES
from data.tables.phenotype import LOGARITHMIC_COLUMN_PATTERN

PERSON_VIEW = "person"
AVERAGE_VIEW = "maps on average"  # views beside maps and connectomes
SDS_TO_RANGE_END = float(stats.norm.ppf(0.95))  # robust standard deviations from the middle to the end of a range
NORMAL_MAD = float(stats.norm.ppf(0.75))  # the median absolute deviation of a normal distribution with SD 1
# robust SDs: 2 of 192 people of ABIDE, and none of 48 others, were beyond it in any measure of three maps
MEASURE_LIMIT_ROBUST_SDS = 6.0
PERSON_LIMIT_ROBUST_SDS = 4.0
AVERAGE_LIMIT_ROBUST_SDS = 5.0  # the same for numbers of the person, and for means over maps: there are fewer of these
MIN_MEAN_Z_ROBUST_SD = 0.12  # the SD of a mean z over maps counts as so much at least
# correlation with the halves of others: of real maps 0.5 to 1, or as much below 0 if they are turned
MIN_CLEAR_SIGN_CORRELATION = 0.3
# Fisher z of the correlation with the mean of others: below it, and far below theirs, a volume is elsewhere, or another
# map
MAX_UNRELATED_MAP_FISHER_Z = 0.5
# mm: centres of 220 maps of grey matter and 1,080 of ABIDE, plain or smoothed with 8 mm, lay up to 3.6 from the middle;
# six times this detects 95 % of them if they are shifted by 6 mm, and all if by 8 mm
MIN_CENTRE_ROBUST_SD_MM = 0.8
MIN_RELATIVE_HALF_RANGE = 1e-3  # of a number, how much its kept digits may leave out at most; a half range is no less
MIN_HALF_RANGE_FRACTION = 0.1  # of a range; each half counts as so much at least
# Fisher z of the correlation with the mean connectome: of 784 people of ABIDE 0.25 at least, and 0.11 if most volumes
# are left out; 0.08 at most if the parcels are in another order
MAX_UNRELATED_CONNECTOME_FISHER_Z = 0.1
MAX_NAMES_IN_REASON = 3  # maps, regions in a reason
NEGATED_WORDS = "values look negated"
EXCHANGED_WORDS = "left and right look exchanged"
UNRELATED_WORDS = "no likeness to the mean of the others"
OTHER_ATLAS_WORDS = "no likeness to the mean of the others, as if its parcels were those of another atlas"
ADVICE_BY_REASON = {  # what makes results invalid, and what to do
    EXCHANGED_WORDS: "check their affines",
    NEGATED_WORDS: "make these maps again, as those of the others",
    UNRELATED_WORDS: "check their affines, and what they are maps of",
    OTHER_ATLAS_WORDS: "check of which parcels their series are",
}
CODE_BY_REASON = {  # of a `Problem`
    EXCHANGED_WORDS: "sides-exchanged",
    NEGATED_WORDS: "values-negated",
    UNRELATED_WORDS: "map-unrelated",
    OTHER_ATLAS_WORDS: "parcels-unrelated",
}
DIRECTION_WORDS_BY_AXIS = {
    "x": ("left", "right"),
    "y": ("back", "front"),
    "z": ("bottom", "top"),
}  # below the middle, above it


def find_advice(sentence: str) -> str | None:
    """What to do about a sentence on a record that makes results invalid; None if it does not."""
    _, _, reason_words = sentence.partition(": ")  # after the name of the map
    return ADVICE_BY_REASON.get(reason_words)


def find_problem_code(sentence: str) -> str:
    """The code of the problem that a sentence with an advice stands for, with the maps that it names. Raises KeyError
    for other sentences."""
    map_names_text, _, reason_words = sentence.partition(": ")
    return f"{CODE_BY_REASON[reason_words]}: {map_names_text}"


@dataclass(frozen=True)
class Measure:
    """What people are compared by. Its robust SD counts as `min_robust_sd` at least: less means nothing."""

    description: str
    min_robust_sd: float  # of this measure; a smaller one counts as this
    limit_robust_sds: float = MEASURE_LIMIT_ROBUST_SDS
    to_plain_units: Callable[[float], float] = float  # as people know the number, from a logarithm or Fisher z


MEASURE_BY_NAME = {
    "alike": Measure("correlation with the mean of the others", 0.06, to_plain_units=np.tanh),
    "side": Measure("correlation of what differs between left and right", 0.03),
    "values": Measure("correlation within the brain", 0.03),
    **{
        f"shift_{axis}": Measure(f"place in mm, from {low_side} to {high_side}", 0.6)
        for axis, (low_side, high_side) in DIRECTION_WORDS_BY_AXIS.items()
    },
    **{
        f"{axis}_mm": Measure(f"centre in mm, from {low_side} to {high_side}", MIN_CENTRE_ROBUST_SD_MM)
        for axis, (low_side, high_side) in DIRECTION_WORDS_BY_AXIS.items()
    },
    "log coverage": Measure("share of the grid that the brain fills", 0.03, to_plain_units=np.exp),
    "log roughness": Measure("roughness", 0.03, to_plain_units=np.exp),
    "lacking_regions": Measure("number of missing regions", 0.16),
    "log sd": Measure("spread", 0.06, to_plain_units=np.exp),
    "log mean": Measure("mean", 0.06, to_plain_units=np.exp),
    "mean_in_sds": Measure("mean in standard deviations", 0.06),
    "level_in_sds": Measure("background in standard deviations", 0.06),
    "log voxel_mm3": Measure("size of a voxel in mm3", 0.06, to_plain_units=np.exp),
    "mean_z": Measure("mean Fisher z", 0.012),
    "sd_z": Measure("spread of Fisher z", 0.012),
    "log mean_r": Measure("mean correlation", 0.06, to_plain_units=np.exp),
    "lacking_parcels": Measure("share of parcels without a signal", 0.006),
    "log volumes": Measure("number of volumes of the series", 0.06, to_plain_units=np.exp),
}
PLACE_MEASURE_NAMES = [
    measure_name for measure_name in MEASURE_BY_NAME if measure_name.startswith("shift_") or measure_name[1:] == "_mm"
]
SHARED_MEASURE_NAMES = [*PLACE_MEASURE_NAMES, "log coverage", "lacking_regions"]  # by all maps, which are of one scan
CUT_BRAIN_MEASURE_NAMES = [
    *MIRROR_HALF_MEASURE_NAMES,
    "log coverage",
    "x_mm",
    "y_mm",
    "z_mm",
]  # what else is unusual of a brain that is cut


def find_measure(view: str, measure_name: str) -> Measure:
    """A measure in the table, its mean over maps, or a number of the person."""
    if view == PERSON_VIEW:
        to_plain_units = np.exp if LOGARITHMIC_COLUMN_PATTERN.search(measure_name) else float
        return Measure(measure_name, 0.0, PERSON_LIMIT_ROBUST_SDS, to_plain_units)
    map_measure = MEASURE_BY_NAME[measure_name]
    if view == AVERAGE_VIEW:
        return Measure(map_measure.description, MIN_MEAN_Z_ROBUST_SD, AVERAGE_LIMIT_ROBUST_SDS)
    return map_measure


@dataclass(frozen=True)
class Range:
    """Where the middle nine tenths of a measure lie over people."""

    low: float  # lower end of the middle nine tenths
    middle: float  # the median
    high: float  # upper end of the middle nine tenths

    def compute_half_ranges(self, min_robust_sd: float) -> tuple[float, float]:
        """The half ranges below and above the middle, each `SDS_TO_RANGE_END` robust SDs; a robust SD is
        `min_robust_sd` at least."""
        min_half_range = max(
            min_robust_sd * SDS_TO_RANGE_END,
            MIN_HALF_RANGE_FRACTION * (self.high - self.low),
            MIN_RELATIVE_HALF_RANGE * max(abs(self.low), abs(self.high)),
            1e-9,
        )
        return max(self.middle - self.low, min_half_range), max(self.high - self.middle, min_half_range)

    def robust_z(self, measure_values: np.ndarray, min_robust_sd: float) -> np.ndarray:
        """How far values (n,) lie from the middle, in robust SDs; 0 where unknown."""
        half_range_below, half_range_above = self.compute_half_ranges(min_robust_sd)
        half_ranges = np.where(measure_values < self.middle, half_range_below, half_range_above)  # (n,)
        return np.nan_to_num(SDS_TO_RANGE_END * (measure_values - self.middle) / half_ranges)


Ranges = dict[str, dict[str, Range]]  # by view (a map, the connectome, the person), then by measure


@dataclass(frozen=True)
class Deviation:
    """A measure of a record, and how many robust SDs it lies from the middle of the others."""

    view: str  # a map's name, or what else is measured
    measure_name: str
    measured_value: float  # in the unit of the measure
    usual_range: Range
    robust_z: float
    is_negated_or_mirrored: bool  # see `looks_negated_or_mirrored`

    @property
    def is_scan_measure(self) -> bool:
        return self.view not in (PERSON_VIEW, AVERAGE_VIEW)

    @property
    def is_far(self) -> bool:
        limit_robust_sds = find_measure(self.view, self.measure_name).limit_robust_sds
        return abs(self.robust_z) > limit_robust_sds or self.is_negated_or_mirrored

    @property
    def value_with_range_text(self) -> str:
        """The value and the range as people know them."""
        to_plain_units = find_measure(self.view, self.measure_name).to_plain_units
        plain_value = to_plain_units(self.measured_value)
        plain_low = to_plain_units(self.usual_range.low)
        plain_high = to_plain_units(self.usual_range.high)
        return f"{plain_value:.3g}, usually {plain_low:.3g} to {plain_high:.3g}"


def looks_negated_or_mirrored(
    view: str,
    measure_name: str,
    value_by_view_and_measure: Mapping[tuple[str, str], float],
    usual_range: Range,
    robust_z: float,
) -> bool:
    """Whether one of `MIRROR_HALF_MEASURE_NAMES` has another sign in a record than in most, whose sign is clear.

    Contrasts of a task really differ in sign between people, and some lie between. So values look negated only if they
    are far from those of all others, and sides exchanged only if the values are not doubtful themselves. Without these
    rules, 155 of 2,800 simulated contrasts were called negated, with them 18; of maps of ABIDE that are negated or
    mirrored, as many are found as without.
    """
    has_opposite_sign = (
        measure_name in MIRROR_HALF_MEASURE_NAMES
        and usual_range.middle > MIN_CLEAR_SIGN_CORRELATION
        and value_by_view_and_measure[view, measure_name] < -MIN_CLEAR_SIGN_CORRELATION
    )
    if view == AVERAGE_VIEW or not has_opposite_sign:
        return False
    if measure_name == "values":
        return robust_z < -MEASURE_LIMIT_ROBUST_SDS
    return value_by_view_and_measure.get((view, "values"), 1.0) > MIN_CLEAR_SIGN_CORRELATION


def compute_robust_z(measure_table: pd.DataFrame, ranges: Ranges) -> pd.DataFrame:
    """Robust z of the columns (view, measure) that have a range. Those of `AVERAGE_VIEW`, if there is a range, are of
    the mean over maps, which shows what several maps share, such as more smoothing, even if each lies within its
    limit."""
    robust_z_by_column = dict[tuple[str, str], np.ndarray]()
    for view, measure_name in measure_table:
        if measure_name in ranges.get(view, {}):
            min_robust_sd = find_measure(view, measure_name).min_robust_sd
            measure_values = measure_table[view, measure_name].to_numpy()
            robust_z_by_column[view, measure_name] = ranges[view][measure_name].robust_z(measure_values, min_robust_sd)

    mean_z_table = average_z_over_maps(pd.DataFrame(robust_z_by_column, index=measure_table.index))
    average_ranges = ranges.get(AVERAGE_VIEW, {})
    for _, measure_name in mean_z_table:
        if measure_name in average_ranges:
            mean_z_values = mean_z_table[AVERAGE_VIEW, measure_name].to_numpy()
            robust_z_by_column[AVERAGE_VIEW, measure_name] = average_ranges[measure_name].robust_z(
                mean_z_values, MIN_MEAN_Z_ROBUST_SD
            )
    return pd.DataFrame(robust_z_by_column, index=measure_table.index)


def average_z_over_maps(robust_z_table: pd.DataFrame) -> pd.DataFrame:
    """The mean z of each measure that several maps have."""
    views_by_measure = defaultdict[str, list[str]](list)
    for view, measure_name in robust_z_table:
        if view not in (PERSON_VIEW, AVERAGE_VIEW, CONNECTOME_VIEW) and measure_name not in SHARED_MEASURE_NAMES:
            views_by_measure[measure_name].append(view)
    mean_z_by_column = dict[tuple[str, str], pd.Series]()
    for measure_name, views in views_by_measure.items():
        if len(views) > 1:
            map_columns = [(view, measure_name) for view in views]
            mean_z_by_column[AVERAGE_VIEW, measure_name] = robust_z_table[map_columns].mean(axis=1)
    return pd.DataFrame(mean_z_by_column, index=robust_z_table.index)


def find_deviations(measure_table: pd.DataFrame, ranges: Ranges) -> list[list[Deviation]]:
    """For each row of measures those that are far from the others, the farthest first."""
    robust_z_table = compute_robust_z(measure_table, ranges)
    columns = list(robust_z_table)  # (view, measure)
    measure_and_mean_z_table = pd.concat([measure_table, average_z_over_maps(robust_z_table)], axis=1)
    values_per_row = measure_and_mean_z_table[columns].to_numpy().tolist()
    robust_z_per_row = robust_z_table.to_numpy().tolist()

    deviations_per_row = list[list[Deviation]]()
    for row_values, row_robust_z in zip(values_per_row, robust_z_per_row, strict=True):
        value_by_column = dict(zip(columns, row_values, strict=True))
        far_deviations = list[Deviation]()
        for (view, measure_name), measured_value, robust_z in zip(columns, row_values, row_robust_z, strict=True):
            usual_range = ranges[view][measure_name]
            is_negated_or_mirrored = looks_negated_or_mirrored(
                view, measure_name, value_by_column, usual_range, robust_z
            )
            deviation = Deviation(view, measure_name, measured_value, usual_range, robust_z, is_negated_or_mirrored)
            if deviation.is_far:
                far_deviations.append(deviation)
        far_deviations.sort(key=lambda deviation: -abs(deviation.robust_z))
        deviations_per_row.append(far_deviations)
    return deviations_per_row


def format_deviations(
    deviations: Sequence[Deviation], missing_region_names_by_map: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Findings on a record in plain words; `missing_region_names_by_map` names the regions that it lacks, by map. A
    measure is reported once for all maps. It is not reported if it follows from negated values, exchanged sides, a
    shift or missing regions."""
    opposite_sign_measure_names = {
        deviation.measure_name for deviation in deviations if deviation.is_negated_or_mirrored
    }
    far_scan_measure_names = {deviation.measure_name for deviation in deviations if deviation.is_scan_measure}
    consequent_measure_names = find_consequent_measure_names(opposite_sign_measure_names, far_scan_measure_names)

    deviations_by_measure: dict[tuple[bool, str], list[Deviation]] = defaultdict(list)
    for deviation in deviations:
        is_of_person = deviation.view == PERSON_VIEW
        is_consequence = not is_of_person and deviation.measure_name in consequent_measure_names
        # a mean over maps says nothing more if a map is far already
        is_repetition = deviation.view == AVERAGE_VIEW and deviation.measure_name in far_scan_measure_names
        if not is_consequence and not is_repetition:
            deviations_by_measure[is_of_person, deviation.measure_name].append(deviation)
    return tuple(
        format_measure_deviations(measure_deviations, missing_region_names_by_map)
        for measure_deviations in deviations_by_measure.values()
    )


def find_consequent_measure_names(opposite_sign_measure_names: set[str], far_scan_measure_names: set[str]) -> set[str]:
    """The measures that are far only because others are. Negated values or exchanged sides look unrelated and shifted;
    a shifted brain has other halves; a cut one has another centre, too; another centre looks like a shift."""
    consequent_measure_names = set[str]()
    if opposite_sign_measure_names:
        consequent_measure_names |= {"alike", *MIRROR_HALF_MEASURE_NAMES, *PLACE_MEASURE_NAMES}
    elif far_scan_measure_names & {*PLACE_MEASURE_NAMES}:
        consequent_measure_names |= {*MIRROR_HALF_MEASURE_NAMES}
    if {"lacking_regions", "log coverage"} <= far_scan_measure_names:
        consequent_measure_names |= {*CUT_BRAIN_MEASURE_NAMES}

    if "values" in opposite_sign_measure_names:
        consequent_measure_names.discard("values")
    elif opposite_sign_measure_names:
        consequent_measure_names.discard("side")

    for axis in DIRECTION_WORDS_BY_AXIS:
        if f"{axis}_mm" in far_scan_measure_names - consequent_measure_names:
            consequent_measure_names.add(f"shift_{axis}")
    return consequent_measure_names


def format_measure_deviations(
    deviations: Sequence[Deviation], missing_region_names_by_map: Mapping[str, Sequence[str]]
) -> str:
    """Findings on one measure of several maps, with the numbers of the first."""
    first_deviation = deviations[0]
    measure_description = find_measure(first_deviation.view, first_deviation.measure_name).description
    if first_deviation.view == PERSON_VIEW:
        return f"{measure_description} {first_deviation.value_with_range_text}"
    if first_deviation.view == AVERAGE_VIEW:
        is_low = first_deviation.measured_value < first_deviation.usual_range.middle
        return f"{AVERAGE_VIEW}: the {measure_description} is {'lower' if is_low else 'higher'} than usual"
    map_names_text = join_names([deviation.view for deviation in deviations], MAX_NAMES_IN_REASON)
    deviation_words = describe_deviation(first_deviation, measure_description, missing_region_names_by_map)
    return f"{map_names_text}: {deviation_words}"


def describe_deviation(
    deviation: Deviation, measure_description: str, missing_region_names_by_map: Mapping[str, Sequence[str]]
) -> str:
    """What is far from the others in a map or connectome."""
    if deviation.is_negated_or_mirrored:
        return NEGATED_WORDS if deviation.measure_name == "values" else EXCHANGED_WORDS
    if deviation.measure_name == "alike":
        if deviation.view == CONNECTOME_VIEW and deviation.measured_value < MAX_UNRELATED_CONNECTOME_FISHER_Z:
            return OTHER_ATLAS_WORDS
        if deviation.view != CONNECTOME_VIEW and deviation.measured_value < MAX_UNRELATED_MAP_FISHER_Z:
            return UNRELATED_WORDS
    if deviation.measure_name in PLACE_MEASURE_NAMES:
        offset_mm = deviation.measured_value - deviation.usual_range.middle
        opening_words = "" if deviation.measure_name.startswith("shift_") else "the centre of the brain is "
        axis = deviation.measure_name.removeprefix("shift_")[0]
        low_side, high_side = DIRECTION_WORDS_BY_AXIS[axis]
        return f"{opening_words}{abs(offset_mm):.0f} mm too far to the {high_side if offset_mm > 0 else low_side}"
    if deviation.measure_name == "lacking_regions":
        missing_region_names = missing_region_names_by_map[deviation.view]
        missing_count_text = (
            "1 region is missing"
            if len(missing_region_names) == 1
            else f"{len(missing_region_names)} regions are missing"
        )
        return f"{missing_count_text}: {join_names(missing_region_names, MAX_NAMES_IN_REASON)}"
    return f"the {measure_description} is {deviation.value_with_range_text}"
