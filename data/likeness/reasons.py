"""Measures of people, and their ranges over others -> robust z, and what is far from the others in plain words.

There is one table: each measure, its words, and its limit. All that is told of a person, beside the others of a cohort
or beside those of a training, is a measure beyond its limit. In a cohort a tenth may be odd, and sites differ, so that
limits that follow from the people would follow the odd ones; the limits are fixed.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from data.cohorts.phenotype import LOGARITHMIC
from data.cohorts.rows import listed
from data.likeness.scans import CONNECTOME, HALVES

PERSON, AVERAGE = "person", "maps on average"  # views beside maps and connectomes
SDS = float(stats.norm.ppf(0.95))  # robust standard deviations from the middle to the end of a range
MAD_SD = float(stats.norm.ppf(0.75))  # the median absolute deviation of a normal distribution with SD 1
LIMIT = 6.0  # robust SDs: beyond that of any measure of three maps were 2 of 192 people of ABIDE, and none of 48 others
OF_PERSON, OF_AVERAGE = 4.0, 5.0  # the same of numbers of people, and of what all maps share: there are fewer of these
LEAST_AVERAGE = 0.12  # of a mean z over maps, its SD counts as so much at least
TURNED = 0.3  # correlation with the halves of others: of real maps 0.5 to 1, or as much below 0 if they are turned
UNRELATED = 0.5  # correlation with the mean of others: if it is far below theirs, a volume is elsewhere, or another map
# mm: centres of 220 maps of grey matter and 1,080 of ABIDE, plain or smoothed with 8 mm, lay up to 3.6 from the middle;
# six times this tells 95 % of them if they are shifted by 6 mm, and all if by 8 mm
LEAST_CENTRE = 0.8
ROUNDED = 1e-3  # of a number, how much its kept digits may leave out at most; half a range is no less
SLIGHT = 0.1  # of a range; each half counts as so much at least
NO_CONNECTOME = 0.1  # correlation with the mean connectome: of 784 people of ABIDE 0.25 at least, even if most volumes
# are left out 0.11; 0.08 at most if the parcels are in another order
NAMED = 3  # maps, regions in a reason
NEGATED, EXCHANGED = "values look negated", "left and right look exchanged"
UNRELATED_WORDS = "no likeness to the mean of the others"
OTHER_ATLAS = "no likeness to the mean of the others, as if its parcels were those of another atlas"
ADVICE = {  # what makes results invalid, and what to do
    EXCHANGED: "check their affines",
    NEGATED: "make these maps again, as those of the others",
    UNRELATED_WORDS: "check their affines, and what they are maps of",
    OTHER_ATLAS: "check of which parcels their series are",
}
WAYS = {"x": ("left", "right"), "y": ("back", "front"), "z": ("bottom", "top")}  # below the middle, above it


def advice_on(sentence: str) -> str | None:
    """What to do about a sentence on a record that makes results invalid; None if it does not."""
    return ADVICE.get(sentence.partition(": ")[2])


@dataclass(frozen=True)
class Measure:
    """What people are compared by. Its robust SD counts as `least` at least: less means nothing."""

    words: str
    least: float
    limit: float = LIMIT
    as_told: Callable[[float], float] = float  # as people know it, not as a logarithm, nor as Fisher z


MEASURES = {
    "alike": Measure("correlation with the mean of the others", 0.06, as_told=np.tanh),
    "side": Measure("correlation of what differs between left and right", 0.03),
    "values": Measure("correlation within the brain", 0.03),
    **{f"shift_{axis}": Measure(f"place in mm, from {low} to {high}", 0.6) for axis, (low, high) in WAYS.items()},
    **{
        f"{axis}_mm": Measure(f"centre in mm, from {low} to {high}", LEAST_CENTRE) for axis, (low, high) in WAYS.items()
    },
    "log coverage": Measure("share of the grid that the brain fills", 0.03, as_told=np.exp),
    "log roughness": Measure("roughness", 0.03, as_told=np.exp),
    "lacking_regions": Measure("number of missing regions", 0.16),
    "log sd": Measure("spread", 0.06, as_told=np.exp),
    "log mean": Measure("mean", 0.06, as_told=np.exp),
    "mean_in_sds": Measure("mean in standard deviations", 0.06),
    "level_in_sds": Measure("background in standard deviations", 0.06),
    "log voxel_mm3": Measure("size of a voxel in mm3", 0.06, as_told=np.exp),
    "mean_z": Measure("mean Fisher z", 0.012),
    "sd_z": Measure("spread of Fisher z", 0.012),
    "log mean_r": Measure("mean correlation", 0.06, as_told=np.exp),
    "lacking_parcels": Measure("share of parcels without a signal", 0.006),
    "log volumes": Measure("number of volumes of the series", 0.06, as_told=np.exp),
}
OF_PLACE = [name for name in MEASURES if name.startswith("shift_") or name[1:] == "_mm"]
SHARED = [*OF_PLACE, "log coverage", "lacking_regions"]  # by all maps, which are of one scan
OF_CUT = [*HALVES, "log coverage", "x_mm", "y_mm", "z_mm"]  # what else is unusual of a brain that is cut


def measure_of(view: str, name: str) -> Measure:
    """A measure in the table, its mean over maps, or a number of the person."""
    if view == PERSON:
        return Measure(name, 0.0, OF_PERSON, np.exp if LOGARITHMIC.search(name) else float)
    return Measure(MEASURES[name].words, LEAST_AVERAGE, OF_AVERAGE) if view == AVERAGE else MEASURES[name]


@dataclass(frozen=True)
class Range:
    """Where the middle nine tenths of a measure lie over people."""

    low: float
    middle: float
    high: float

    def halves(self, least: float) -> tuple[float, float]:
        """The half ranges below and above the middle, of which each is SDS robust SDs."""
        least = max(least * SDS, SLIGHT * (self.high - self.low), ROUNDED * max(abs(self.low), abs(self.high)), 1e-9)
        return max(self.middle - self.low, least), max(self.high - self.middle, least)

    def z(self, values: np.ndarray, least: float) -> np.ndarray:
        """How far values (n,) lie from the middle, in robust SDs; 0 where unknown."""
        below, above = self.halves(least)
        return np.nan_to_num(SDS * (values - self.middle) / np.where(values < self.middle, below, above))


Ranges = dict[str, dict[str, Range]]  # by view (a map, the connectome, the person), then by measure


@dataclass(frozen=True)
class Finding:
    """A measure of a record, and how many robust SDs it lies from the middle of the others."""

    view: str
    measure: str
    value: float
    range: Range
    z: float
    turned: bool  # see `looks_turned`

    @property
    def of_one_scan(self) -> bool:
        return self.view not in (PERSON, AVERAGE)

    @property
    def is_far(self) -> bool:
        return abs(self.z) > measure_of(self.view, self.measure).limit or self.turned

    @property
    def numbers(self) -> str:
        """The value and the range as people know them."""
        told = measure_of(self.view, self.measure).as_told
        value, low, high = (f"{told(of):.3g}" for of in (self.value, self.range.low, self.range.high))
        return f"{value}, usually {low} to {high}"


def looks_turned(view: str, measure: str, record: Mapping[tuple[str, str], float], usual: Range, z: float) -> bool:
    """Whether one of HALVES has another sign in a record, whose measures are given, than in most, whose sign is clear.

    Contrasts of a task really differ in sign between people, and some lie between. So values look negated only if they
    are far from those of all others, and sides exchanged only if the values are not doubtful themselves. Of 155
    of 2,800 simulated contrasts, 18 are still told; of maps of ABIDE that are negated or mirrored, as many as without.
    """
    is_opposite = measure in HALVES and usual.middle > TURNED and record[view, measure] < -TURNED
    if view == AVERAGE or not is_opposite:
        return False
    return z < -LIMIT if measure == "values" else record.get((view, "values"), 1.0) > TURNED


def z_of(values: pd.DataFrame, ranges: Ranges) -> pd.DataFrame:
    """Robust z of the columns (view, measure) that have a range. Those of AVERAGE, if there is a range, are of the mean
    over maps, which tells what several maps share, such as more smoothing, though each may lie within its limit."""
    found = {
        (view, name): ranges[view][name].z(values[view, name].to_numpy(), measure_of(view, name).least)
        for view, name in values
        if name in ranges.get(view, {})
    }
    means = mean_over_maps(pd.DataFrame(found, index=values.index))
    found |= {
        of: ranges[AVERAGE][of[1]].z(values_of.to_numpy(), LEAST_AVERAGE)
        for of, values_of in means.items()
        if of[1] in ranges.get(AVERAGE, {})
    }
    return pd.DataFrame(found, index=values.index)


def mean_over_maps(z: pd.DataFrame) -> pd.DataFrame:
    """The mean z of each measure that several maps have."""
    of_maps = defaultdict[str, list[str]](list)
    for view, name in z:
        if view not in (PERSON, AVERAGE, CONNECTOME) and name not in SHARED:
            of_maps[name].append(view)
    means = {
        (AVERAGE, name): z[[(view, name) for view in views]].mean(axis=1)
        for name, views in of_maps.items()
        if len(views) > 1
    }
    return pd.DataFrame(means, index=z.index)


def findings(values: pd.DataFrame, ranges: Ranges) -> list[list[Finding]]:
    """For each row of measures those that are far from the others, the farthest first."""
    z = z_of(values, ranges)
    every = pd.concat([values, mean_over_maps(z)], axis=1)[[*z]]
    known = [ranges[view][name] for view, name in z]
    found = []
    for of_row, far in zip(every.to_numpy().tolist(), z.to_numpy().tolist(), strict=True):
        record, one = dict(zip(z, of_row, strict=True)), list[Finding]()
        for (view, name), usual, distance in zip(z, known, far, strict=True):
            turned = looks_turned(view, name, record, usual, distance)
            one.append(Finding(view, name, record[view, name], usual, distance, turned))
        found.append(sorted((of for of in one if of.is_far), key=lambda of: -abs(of.z)))
    return found


def sentences(found: Sequence[Finding], regions: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Findings on a record in plain words; `regions` names the regions that it lacks, by map. A measure is told once
    for all maps. It is not told if it follows from negated values, exchanged sides, a shift or missing regions."""
    turned, far = {of.measure for of in found if of.turned}, {of.measure for of in found if of.of_one_scan}
    cause = "values" if "values" in turned else "side" if turned else ""
    follows = {"alike", *HALVES, *OF_PLACE} - {cause} if cause else {*HALVES} if far & {*OF_PLACE} else set()
    follows |= {*OF_CUT} - {cause} if {"lacking_regions", "log coverage"} <= far else set()
    follows |= {f"shift_{axis}" for axis in WAYS if f"{axis}_mm" in far - follows}
    of_measure: dict[tuple[bool, str], list[Finding]] = defaultdict(list)
    for of in found:
        if of.view == PERSON or of.measure not in (follows | far if of.view == AVERAGE else follows):
            of_measure[of.view == PERSON, of.measure].append(of)
    return tuple(sentence(same, regions) for same in of_measure.values())


def sentence(found: Sequence[Finding], regions: Mapping[str, Sequence[str]]) -> str:
    """Findings on one measure of several maps, with the numbers of the first."""
    first = found[0]
    words, maps = measure_of(first.view, first.measure).words, listed([of.view for of in found], NAMED)
    if first.view == PERSON:
        return f"{words} {first.numbers}"
    if first.view == AVERAGE:
        return f"{AVERAGE}: the {words} is {'lower' if first.value < first.range.middle else 'higher'} than usual"
    return f"{maps}: {said(first, words, regions)}"


def said(of: Finding, words: str, regions: Mapping[str, Sequence[str]]) -> str:
    """What is far from the others in a map or connectome."""
    if of.turned:
        return NEGATED if of.measure == "values" else EXCHANGED
    if of.measure == "alike" and of.value < (NO_CONNECTOME if of.view == CONNECTOME else UNRELATED):
        return OTHER_ATLAS if of.view == CONNECTOME else UNRELATED_WORDS
    if of.measure in OF_PLACE:
        off = of.value - of.range.middle
        what = "" if of.measure.startswith("shift_") else "the centre of the brain is "
        axis = of.measure.removeprefix("shift_")[0]
        return f"{what}{abs(off):.0f} mm too far to the {WAYS[axis][int(off > 0)]}"
    if of.measure == "lacking_regions":
        lacking = regions[of.view]
        missing = "1 region is missing" if len(lacking) == 1 else f"{len(lacking)} regions are missing"
        return f"{missing}: {listed(lacking, NAMED)}"
    return f"the {words} is {of.numbers}"
