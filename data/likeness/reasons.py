"""Ranges of training people, and measures of others -> deviations from the ranges, and reasons in plain words."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.cohorts.phenotype import LOGARITHMIC, MAX_NUMBER
from data.cohorts.rows import listed
from data.likeness.scans import CONNECTOME

PERSON = "person"  # a view beside maps and connectomes
AVERAGE = "maps on average"  # the same: by measure the mean deviation over maps
SLIGHT = 0.1  # of a range; each half counts as so much at least
TINY = 1e-9  # of a half range
ROUNDED = 1e-3  # of a number, how much its kept digits may leave out at most; a half range is no less
LARGEST_LOG = 100.0  # of a measure
NAMED = 3  # maps, regions in a reason
MOST = "nine in ten training people"
PLACE = ("shift_x", "shift_y", "shift_z", "x_mm", "y_mm", "z_mm")
LEAST = {  # half a range at least, in the unit of the measure: less means nothing
    **dict.fromkeys(PLACE, 1.0),
    **{"side": 0.05, "alike": 0.1, "log sd": 0.1, "log mean": 0.1, "mean_in_sds": 0.1, "level_in_sds": 0.1},
    **{"log coverage": 0.05, "log voxel_mm3": 0.1, "log roughness": 0.05, "lacking_regions": 0.3},
    **{"lacking_parcels": 0.01, "mean_z": 0.02, "sd_z": 0.02, "log mean_r": 0.1, "log volumes": 0.1},
}
EXTENT = ("log coverage", "lacking_regions", "lacking_parcels")  # how much of a brain there is
FAMILIES = ("scan", "extent", "person")  # of measures, each with a limit of its own, for their tails differ
TURNED = {"alike": "values look negated", "side": "left and right look exchanged"}  # by what changes its sign
WAYS = {"x": ("left", "right"), "y": ("back", "front"), "z": ("bottom", "top")}  # below the middle, above it
NOUNS = {
    "alike": "correlation with the mean of training people",
    "side": "correlation of what differs between left and right",
    "log sd": "spread",
    "log mean": "mean",
    "mean_in_sds": "mean in standard deviations",
    "level_in_sds": "background in standard deviations",
    "log coverage": "share of the grid that the brain fills",
    "log voxel_mm3": "size of a voxel in mm3",
    "log roughness": "roughness",
    "lacking_parcels": "share of parcels without a signal",
    "mean_z": "mean Fisher z",
    "sd_z": "spread of Fisher z",
    "log mean_r": "mean correlation",
    "log volumes": "number of volumes of the series",
    "lacking_regions": "number of missing regions",
    **{f"shift_{axis}": f"place in mm, from {below} to {above}" for axis, (below, above) in WAYS.items()},
    **{f"{axis}_mm": f"centre of the brain in mm, from {below} to {above}" for axis, (below, above) in WAYS.items()},
}


@dataclass(frozen=True)
class Range:
    """Three quantiles of a measure over training people."""

    low: float
    middle: float
    high: float

    def can_be(self, measure: str) -> bool:
        """Whether people may have it."""
        most = LARGEST_LOG if is_logarithm(measure) else MAX_NUMBER
        return -most <= self.low <= self.middle <= self.high <= most

    def deviation(self, measure: str, values: np.ndarray) -> np.ndarray:
        """How far values (n,) lie from the middle, in half ranges; 0 where unknown."""
        below, above = self.halves(measure)
        return np.nan_to_num((values - self.middle) / np.where(values < self.middle, below, above))

    def halves(self, measure: str) -> tuple[float, float]:
        """The half ranges below and above the middle."""
        rounded = ROUNDED * max(abs(self.low), abs(self.high))
        least = max(SLIGHT * (self.high - self.low), LEAST.get(measure, TINY), rounded)
        return max(self.middle - self.low, least), max(self.high - self.middle, least)


Ranges = dict[str, dict[str, Range]]  # by view (a map, the connectome, the person), then by measure


@dataclass(frozen=True)
class Finding:
    """A measure of a record that lies far from the range of training people."""

    view: str
    measure: str
    value: float
    range: Range

    @property
    def of_scan(self) -> bool:
        return self.view not in (PERSON, AVERAGE)

    @property
    def turned(self) -> bool:
        """Whether one of TURNED has changed its sign."""
        middle = self.range.middle
        return self.of_scan and self.measure in TURNED and self.value * np.sign(middle) < -abs(middle) / 2

    @property
    def moved(self) -> bool:
        return self.of_scan and self.measure in PLACE


def deviations(values: pd.DataFrame, ranges: Ranges) -> pd.DataFrame:
    """Deviations, in half ranges, of the columns (view, measure) that have a range; those of AVERAGE are what several
    maps share, such as more smoothing, though each of them may lie within its limit."""
    kept = [(view, measure) for view, measure in values if measure in ranges.get(view, {})]
    found = {(view, name): ranges[view][name].deviation(name, values[view, name].to_numpy()) for view, name in kept}
    of_maps: dict[str, list[np.ndarray]] = defaultdict(list)
    for (view, name), far in found.items():
        if family(view, name) == "scan" and view != CONNECTOME:
            of_maps[name].append(far)
    averages = {(AVERAGE, name): np.mean(far, axis=0) for name, far in of_maps.items() if len(far) > 1}
    return pd.DataFrame(found | averages, index=values.index)


def family(view: str, measure: str) -> str:
    """One of FAMILIES."""
    return "person" if view == PERSON else "extent" if measure in EXTENT else "scan"


def greatest(found: pd.DataFrame) -> dict[str, np.ndarray]:
    """The greatest of the `deviations` of each row (n,), by family; averages have limits of their own."""
    columns = {of: [np.zeros(len(found))] for of in FAMILIES}
    for column in (of for of in found if of[0] != AVERAGE):
        columns[family(*column)].append(found[column].abs().to_numpy())
    return {of: np.max(values, axis=0) for of, values in columns.items()}


def findings(
    values: pd.DataFrame, ranges: Ranges, limits: Mapping[str, float], of_average: Mapping[str, float]
) -> list[list[Finding]]:
    """For each row of measures those beyond the limits of families, or of averages, the greatest deviation first."""
    found, result = deviations(values, ranges), []
    limit = {of: of_average.get(of[1], np.inf) if of[0] == AVERAGE else limits[family(*of)] for of in found}
    allowed = {(AVERAGE, name): Range(-most, 0.0, most) for name, most in of_average.items()}
    known = allowed | {(view, name): of for view, by_measure in ranges.items() for name, of in by_measure.items()}
    every = values.join(found[[of for of in found if of[0] == AVERAGE]])
    for at, far in enumerate(found.abs().to_numpy()):
        columns = [found.columns[column] for column in np.argsort(-far)]
        beyond = [of for of in columns if abs(found[of].iloc[at]) > limit[of]]
        result.append([Finding(of[0], of[1], float(every[of].iloc[at]), known[of]) for of in beyond])
    return result


def sentences(found: Sequence[Finding], regions: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Findings on a record in plain words; `regions` names the regions that it lacks, by map. A measure is told once
    for all maps. It is not told if it follows from negated values, from exchanged sides or from a shift."""
    cause = next((measure for measure in TURNED if any(of.turned and of.measure == measure for of in found)), "")
    follows = (
        {"alike", "side", *PLACE} - {cause} if cause else {"alike", "side"} if any(of.moved for of in found) else ()
    )
    of_measure: dict[tuple[bool, str], list[Finding]] = defaultdict(list)
    told = {of.measure for of in found if of.of_scan}  # of single maps, so not of their average, too
    for of in found:
        if of.view == PERSON or of.measure not in (*follows, *(told if of.view == AVERAGE else ())):
            of_measure[of.view == PERSON, of.measure].append(of)
    return tuple(sentence(same, regions) for same in of_measure.values())


def sentence(found: Sequence[Finding], regions: Mapping[str, Sequence[str]]) -> str:
    """Findings on one measure of several maps, with the numbers of the first."""
    first = found[0]
    low, value, high = (readable(first.measure, number) for number in (first.range.low, first.value, first.range.high))
    if first.view == PERSON:
        return f"{first.measure} {value}, {MOST} {low} to {high}"
    if first.view == AVERAGE:
        way = "below" if first.value < 0 else "above"
        far = f"{abs(first.value):.2g} half ranges {way} the middle, of hardly any training person more than"
        return f"{AVERAGE}: {NOUNS[first.measure]} {far} {first.range.high:.2g}"
    maps = listed([of.view for of in found], NAMED)
    if first.turned and first.view != CONNECTOME:
        return f"{maps}: {TURNED[first.measure]}"
    if first.moved:
        return f"{maps}: {displaced(first)}"
    if first.measure == "lacking_regions":
        lacking = regions[first.view]
        missing = "1 region is missing" if len(lacking) == 1 else f"{len(lacking)} regions are missing"
        return f"{maps}: {missing}: {listed(lacking, NAMED)}"
    return f"{maps}: the {NOUNS[first.measure]} is {value}, of {MOST} {low} to {high}"


def spelled(view: str, measure: str) -> str:
    """A measure in words."""
    return measure if view == PERSON else f"{view}: {NOUNS[measure]}"


def displaced(of: Finding) -> str:
    """`12 mm too far to the left`."""
    off = of.value - of.range.middle
    way = WAYS[of.measure.removeprefix("shift_")[0]][int(off > 0)]
    what = "" if of.measure.startswith("shift_") else "the centre of the brain is "
    return f"{what}{abs(off):.0f} mm too far to the {way}"


def readable(measure: str, value: float) -> str:
    """A measure as people know it: not as a logarithm, nor as Fisher z."""
    if is_logarithm(measure):
        value = np.exp(value)
    return f"{np.tanh(value) if measure == 'alike' else value:.3g}"


def is_logarithm(measure: str) -> bool:
    return measure.startswith("log ") or bool(LOGARITHMIC.search(measure))
