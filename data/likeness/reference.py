"""Training people -> constants that tell who is unlike them; people -> the reasons why each of them is.

Measures of maps before their conversion, of the stored volumes, of connectomes and of the person are each compared with
the range of the middle nine tenths of the training people, in half ranges from the median. The limit of the greatest
deviation over all measures is a quantile over training people, each compared with people of other sites only, so that
it counts how many measures there are, and how much a site that is not known differs. Quantiles are those of Harrell and
Davis (1982, Biometrika 69:635), means over many people, so that none is the value of one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.model_selection import GroupKFold

from data.base.errors import InputError
from data.base.terminal import progress
from data.cohorts import atlas
from data.cohorts.cohort import Cohort
from data.cohorts.rows import listed
from data.likeness import people
from data.likeness.reasons import PERSON, Range, Ranges, deviations, findings, greatest, told
from data.likeness.scans import NEARLY_ALL, Means, Sums, before_conversion, measured

FEWEST = 20  # training people, of whom ranges are taken
MOST_PEOPLE = 2000  # of whom they are taken, drawn at random
MIDDLE = 0.05, 0.5, 0.95  # the quantiles that are kept of a measure
FALSE_ALARMS = {"scan": 0.01, "extent": 0.02, "person": 0.01}  # shares of training people beyond the limits
LEAST_LIMIT = 1.5  # half ranges; 2.5 standard deviations of a normal distribution
GROUPS = 10  # of people, by site, of whom each is compared with the others
MIN_SITES = 5  # of which whole sites are left out
DIGITS = 4  # significant ones of constants: fewer than those of most people's IDs


@dataclass(frozen=True)
class Constants:
    """What is kept of training people, none of whom can be told from it: how many they were, their maps, the ranges of
    measures, the limits of deviations, what is expected of a person, the regions that nearly all maps cover."""

    count: int
    maps: tuple[str, ...]
    parcels_sha256: str  # empty without connectomes
    ranges: Ranges
    limits: dict[str, float]
    expected: people.Expected
    regions: dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Reference:
    """Training people: constants, the mean volume of each map (x, y, z, maps) float32 on the reduced grid, and the mean
    connectome (edges,) float32 of Fisher z, None if there is none."""

    constants: Constants
    volume: np.ndarray
    edges: np.ndarray | None

    @cached_property
    def means(self) -> Means:
        return Means(self.volume, self.edges, self.constants.regions)


def reference(cohort: Cohort, indices: Sequence[int] | np.ndarray) -> Reference:
    """The training people whose records are at these positions. Raises InputError if they are too few, and for a record
    that cannot be read."""
    chosen = people_at(cohort, indices)
    if len(chosen) < FEWEST:
        raise InputError(f"{cohort.path} has {len(chosen)} training people; expected {FEWEST} to tell who is unlike.")
    sites = [cohort.rows[index].site for index in chosen]
    table = people.table_of(cohort, chosen)
    numbers, parts = people.numbers(table, sites), groups(sites)
    means, scans = of_scans(cohort, chosen, parts)
    values = pd.concat([scans, before_conversion(cohort, chosen), viewed(numbers)], axis=1)
    constants = Constants(
        len(chosen),
        cohort.maps,
        cohort.metadata.parcels_sha256 if cohort.connectomes else "",
        ranges_of(values),
        limits_of(values, parts),
        people.expected(cohort, table, sites, numbers),
        means.regions,
    )
    return Reference(constants, means.volume, means.edges)


@dataclass(frozen=True, eq=False)
class Compared:
    """People beside training people, a row a record: measures, with columns (view, measure), `people.table_of` them,
    and the reasons why each is unlike training people, in plain words; none for most."""

    values: pd.DataFrame
    table: pd.DataFrame
    reasons: list[tuple[str, ...]]


def unlike(of: Reference, cohort: Cohort, indices: Sequence[int] | np.ndarray) -> list[tuple[str, ...]]:
    """The reasons why each of the records at these positions is unlike the training people; see `compared`."""
    return compared(of, cohort, indices).reasons


def compared(of: Reference, cohort: Cohort, indices: Sequence[int] | np.ndarray) -> Compared:
    """The records at these positions beside training people. Raises InputError if the cohort has other maps."""
    constants, chosen = of.constants, np.asarray(indices, int)
    if cohort.maps != constants.maps:
        raise InputError(
            f"{cohort.path} holds the maps {listed(cohort.maps)}; the training people have {listed(constants.maps)}. "
            "Convert the same ones, in the same order."
        )
    if cohort.connectomes and cohort.metadata.parcels_sha256 != constants.parcels_sha256:
        cohort = cohort.without_connectomes
    with progress("Comparing people", len(chosen)) as shown:
        scans, lacking = measured(cohort, chosen, of.means, shown)
    table = people.table_of(cohort, chosen)
    numbers = table[[name for name in constants.ranges.get(PERSON, {}) if name in table]].apply(people.number)
    values = pd.concat([scans, before_conversion(cohort, chosen), viewed(numbers)], axis=1)
    names = atlas.load_atlas(None, cohort.grid).names
    named = [{name: [names[region] for region in regions] for name, regions in one.items()} for one in lacking]
    found = findings(values, constants.ranges, constants.limits)
    odd = people.odd(constants.expected, table)
    reasons = [(*told(one, regions), *of_person) for one, regions, of_person in zip(found, named, odd, strict=True)]
    return Compared(values, table, reasons)


def people_at(cohort: Cohort, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """The position of the first record of each person among these, without records of swapped regions; of at most
    MOST_PEOPLE."""
    kept = np.intersect1d(indices, cohort.unswapped())
    first = np.array(list(cohort.first_records(kept.tolist()).values()), int)
    return np.sort(np.random.default_rng(0).permutation(first)[:MOST_PEOPLE])


def groups(sites: Sequence[str]) -> list[np.ndarray]:
    """The places of people in each of GROUPS: those of a site together, unless there are few sites."""
    several = len(set(sites)) >= MIN_SITES
    of = np.unique(sites, return_inverse=True)[1] if several else np.random.default_rng(0).permutation(len(sites))
    return [part for _, part in GroupKFold(min(GROUPS, len(set(of.tolist())))).split(of, groups=of)]


def of_scans(cohort: Cohort, chosen: np.ndarray, parts: Sequence[np.ndarray]) -> tuple[Means, pd.DataFrame]:
    """Means over all records at these positions; measures of each, beside the means of the other parts."""
    every = Sums.nothing(cohort)
    with progress("Measuring training people", 2 * len(chosen)) as shown:
        sums = [Sums.of(cohort, chosen[part], shown) for part in parts]
        for of_part in sums:
            every = every + of_part
        others = ((every - of_part).means() for of_part in sums)
        found = [measured(cohort, chosen[part], of, shown)[0] for part, of in zip(parts, others, strict=True)]
    return every.means(), pd.concat(found).set_axis(np.concatenate(parts)).sort_index()


def viewed(numbers: pd.DataFrame) -> pd.DataFrame:
    """Numbers of people as measures, a row a record."""
    return pd.DataFrame({(PERSON, name): values.to_numpy(float) for name, values in numbers.items()})


def quantiles(values: np.ndarray, shares: Sequence[float] | float) -> np.ndarray:
    """Of each column (n, columns), (shares, columns), or of values (n,), as Harrell and Davis have them."""
    of = np.reshape(shares, (-1, *np.ones(values.ndim - 1, int)))
    return stats.quantile(values, of, method="harrell-davis", axis=0, nan_policy="omit", keepdims=True)


def ranges_of(values: pd.DataFrame) -> Ranges:
    """Of the columns (view, measure) that are known of nearly all people, and of the numbers of persons."""
    kept = [column for column in values if column[0] == PERSON or values[column].notna().mean() >= NEARLY_ALL]
    found: Ranges = {}
    for (view, measure), ends in zip(kept, quantiles(values[kept].to_numpy(), MIDDLE).T.tolist(), strict=True):
        found.setdefault(view, {})[measure] = Range(*(float(f"{end:.{DIGITS}g}") for end in ends))
    return found


def limits_of(values: pd.DataFrame, parts: Sequence[np.ndarray]) -> dict[str, float]:
    """The deviations that FALSE_ALARMS of the people exceed, each part beside the ranges of the others."""
    found = [greatest(deviations(values.iloc[part], ranges_of(values.drop(index=part)))) for part in parts]
    every = {of: np.concatenate([one[of] for one in found]) for of in FALSE_ALARMS}
    limit = {of: quantiles(every[of], 1 - share).item() for of, share in FALSE_ALARMS.items()}
    return {of: float(f"{max(value, LEAST_LIMIT):.{DIGITS}g}") for of, value in limit.items()}


def least_factors(constants: Constants) -> dict[str, float]:
    """By map, by what its values must be multiplied, or divided, so that the median person's scale is beyond the limit:
    a smaller difference of scale is not told, since training people, and their sites, differ as much."""
    limit, found = constants.limits["scan"], {}
    for name in constants.maps:
        scales = {measure: constants.ranges[name].get(measure) for measure in ("log sd", "log mean")}
        halves = [max(of.halves(measure)) for measure, of in scales.items() if of]
        if halves:
            found[name] = float(np.exp(limit * min(halves)))
    return found
