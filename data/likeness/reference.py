"""Training people -> constants that tell who is atypical; people beside them -> the reasons why each of them is.

There are measures of maps before their conversion, of the stored volumes, of connectomes and of the person. Each is
compared with the range of the middle nine tenths of the training people, in half ranges from the median. A limit holds
for the greatest deviation over all measures of a family. The mean deviation of a measure over maps has a limit of its
own: it tells what all maps share. Limits are quantiles over training people, who are compared with people of other
sites only. So they count how many measures there are, and how much an unknown site differs.
Quantiles are those of Harrell and Davis (1982, Biometrika 69:635): means over many people, never one person's value.
"""

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.model_selection import GroupKFold

from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.terminal import progress
from data.cohorts import atlas
from data.cohorts.cohort import Cohort
from data.cohorts.phenotype import LOGARITHMIC, MAX_NUMBER, clean, mostly_numbers
from data.cohorts.records import TELLING
from data.cohorts.rows import listed
from data.likeness.reasons import AVERAGE, PERSON, Range, Ranges, deviations, findings, greatest, sentences
from data.likeness.scans import NEARLY_ALL, Means, Sums, before_conversion, measured

MOST_PEOPLE = 2000  # of whom they are taken, drawn at random
MIDDLE = 0.05, 0.5, 0.95  # the quantiles that are kept of a measure
FALSE_ALARMS = {"scan": 0.01, "extent": 0.02, "person": 0.01}  # shares of training people beyond the limits
OF_AVERAGES = 0.0125  # the same, of those beyond no other limit: beyond that of any average
OF_ONE_AVERAGE = 0.005  # beyond that of one average
LEAST_AVERAGE = 0.2  # half ranges, limit of an average
LEAST_LIMIT = 1.5  # half ranges; 2.5 standard deviations of a normal distribution
GROUPS = 10  # of people, by site, of whom each is compared with the others
MIN_SITES = 5  # of which whole sites are left out
DIGITS = 4  # significant ones of constants: fewer than those of most people's IDs
SHARE_DIGITS = 3  # the same of a share
FEW_VALUES = 5  # of a number; it counts as a category
MIN_OF_CATEGORY = 2  # training people who have it, so that it is not that of one person
MIN_KNOWN = 20  # of whom a number is known
UNKNOWN = "unknown"
UNUSED = "unused_"  # begins the name of a phenotype value that is always 0


@dataclass(frozen=True)
class Expected:
    """What is usual among training people: by column, the `categories` that several of them have, with their shares.
    `known` are the phenotype's columns of numbers that hardly anybody lacks."""

    categories: dict[str, dict[str, float]]
    known: tuple[str, ...]


@dataclass(frozen=True)
class Constants:
    """What is kept of training people; nobody can be recognised by it. `regions` are those that nearly all maps cover,
    by map."""

    count: int  # of the people
    maps: tuple[str, ...]
    parcels_sha256: str  # empty without connectomes
    ranges: Ranges
    limits: dict[str, float]  # of deviations, by the family of measures
    expected: Expected
    regions: dict[str, tuple[int, ...]]
    of_averages: dict[str, float]  # limits by measure; none of one map

    @property
    def can_be(self) -> bool:
        """Whether people may have been so."""
        ranges = [of.can_be(name) for of_view in self.ranges.values() for name, of in of_view.items()]
        limits = [LEAST_LIMIT <= limit <= MAX_NUMBER for limit in self.limits.values()]
        regions = [1 <= at <= atlas.AAL_REGIONS for of_map in self.regions.values() for at in of_map]
        shares = [0 <= share <= 1 for of in self.expected.categories.values() for share in of.values()]
        averages = [0 < limit <= MAX_NUMBER for limit in self.of_averages.values()]
        complete = self.limits.keys() == FALSE_ALARMS.keys() and self.regions.keys() == {*self.maps}
        return complete and all([*ranges, *limits, *averages, *regions, *shares])


@dataclass(frozen=True, eq=False)
class Reference:
    """Training people: constants, and two means. `volume` (x, y, z, maps) float32 has the mean of each map on the
    reduced grid; `edges` (edges,) float32 is the mean connectome in Fisher z, None if there is none."""

    constants: Constants
    volume: np.ndarray
    edges: np.ndarray | None

    @functools.cached_property
    def means(self) -> Means:
        return Means(self.volume, self.edges, self.constants.regions)


def reference(cohort: Cohort, indices: Sequence[int] | np.ndarray) -> Reference:
    """The training people whose records are at these positions. Raises InputError if they are too few, or if a record
    cannot be read."""
    chosen = people_at(cohort, indices)
    if len(chosen) < EFFORT.describe_from:
        raise InputError(
            f"{cohort.path} has {len(chosen)} training people; expected {EFFORT.describe_from} to tell who is unlike."
        )
    sites = [cohort.rows[index].site for index in chosen]
    table = table_of(cohort, chosen)
    numbers, parts = numeric_columns(table, sites), groups(sites)
    means, scans = of_scans(cohort, chosen, parts)
    values = all_measures(cohort, chosen, scans, numbers)
    far = beside_others(values, parts)
    limits = limits_of(far)
    constants = Constants(
        len(chosen),
        cohort.maps,
        cohort.metadata.parcels_sha256 if cohort.connectomes else "",
        ranges_of(values),
        limits,
        expected_of(cohort, table, sites, numbers),
        means.regions,
        limits_of_averages(far, parts, limits),
    )
    return Reference(constants, means.volume, means.edges)


@dataclass(frozen=True, eq=False)
class Compared:
    """People beside training people, a row a record. `values` are measures, with columns (view, measure); `table` is
    what `table_of` gives; `reasons` say in plain words why somebody is atypical, and are empty for most."""

    values: pd.DataFrame
    table: pd.DataFrame
    reasons: list[tuple[str, ...]]


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
    table = table_of(cohort, chosen)
    numbers = table[[name for name in constants.ranges.get(PERSON, {}) if name in table]].apply(as_number)
    values = all_measures(cohort, chosen, scans, numbers)
    names = atlas.load_atlas(None, cohort.grid).names
    named = [{name: [names[region] for region in regions] for name, regions in one.items()} for one in lacking]
    found = findings(values, constants.ranges, constants.limits, constants.of_averages)
    other = atypical_values(constants.expected, table)
    reasons = [(*sentences(one, regions), *more) for one, regions, more in zip(found, named, other, strict=True)]
    return Compared(values, table, reasons)


def people_at(cohort: Cohort, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """The positions of the first record of each person among these, of MOST_PEOPLE at most. Records of swapped regions
    do not count."""
    kept = np.intersect1d(indices, cohort.unswapped())
    first = np.array(list(cohort.first_records(kept.tolist()).values()), int)
    return np.sort(np.random.default_rng(0).permutation(first)[:MOST_PEOPLE])


def groups(sites: Sequence[str]) -> list[np.ndarray]:
    """The places of people in each of GROUPS. People of one site stay together, unless there are few sites."""
    several = len(set(sites)) >= MIN_SITES
    of = np.unique(sites, return_inverse=True)[1] if several else np.random.default_rng(0).permutation(len(sites))
    return [part for _, part in GroupKFold(min(GROUPS, len(set(of.tolist())))).split(of, groups=of)]


def of_scans(cohort: Cohort, chosen: np.ndarray, parts: Sequence[np.ndarray]) -> tuple[Means, pd.DataFrame]:
    """The means over all records at these positions; the measures of each record beside the means of the other
    parts."""
    with progress("Measuring training people", 2 * len(chosen)) as shown:
        sums = [Sums.of(cohort, chosen[part], shown) for part in parts]
        every = functools.reduce(operator.add, sums)
        others = ((every - of_part).means() for of_part in sums)
        found = [measured(cohort, chosen[part], of, shown)[0] for part, of in zip(parts, others, strict=True)]
    return every.means(), pd.concat(found).set_axis(np.concatenate(parts)).sort_index()


def all_measures(cohort: Cohort, indices: np.ndarray, scans: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """Measures of scans, those of maps before their conversion, and numbers of the person, (view, measure)."""
    person = pd.DataFrame({(PERSON, name): values.to_numpy(float) for name, values in numbers.items()})
    return pd.concat([scans, before_conversion(cohort, indices), person], axis=1)


def quantiles(values: np.ndarray, shares: Sequence[float] | float) -> np.ndarray:
    """The quantiles by Harrell and Davis: of values (n,), or of each column (n, columns) -> (shares, columns)."""
    of = np.reshape(shares, (-1, *np.ones(values.ndim - 1, int)))
    return stats.quantile(values, of, method="harrell-davis", axis=0, nan_policy="omit", keepdims=True)


def ranges_of(values: pd.DataFrame) -> Ranges:
    """The ranges of the columns (view, measure) that nearly all people have; of numbers of persons in any case."""
    kept = [column for column in values if column[0] == PERSON or values[column].notna().mean() >= NEARLY_ALL]
    found: Ranges = {}
    for (view, measure), ends in zip(kept, quantiles(values[kept].to_numpy(), MIDDLE).T.tolist(), strict=True):
        found.setdefault(view, {})[measure] = Range(*(float(f"{end:.{DIGITS}g}") for end in ends))
    return found


def beside_others(values: pd.DataFrame, parts: Sequence[np.ndarray]) -> pd.DataFrame:
    """The `deviations` of people, of whom each part is compared with the ranges of the others."""
    found = [deviations(values.iloc[part], ranges_of(values.drop(index=part))) for part in parts]
    return pd.concat(found).sort_index()


def limits_of(far: pd.DataFrame) -> dict[str, float]:
    """By family the deviation that FALSE_ALARMS of the people exceed; `far` as of `beside_others`."""
    limit = {of: quantiles(values, 1 - FALSE_ALARMS[of]).item() for of, values in greatest(far).items()}
    return {of: float(f"{max(value, LEAST_LIMIT):.{DIGITS}g}") for of, value in limit.items()}


def limits_of_averages(far: pd.DataFrame, parts: Sequence[np.ndarray], limits: Mapping[str, float]) -> dict[str, float]:
    """By measure the mean deviation over maps that OF_ONE_AVERAGE of the people exceed, times a factor. With it,
    OF_AVERAGES of those within the other `limits` exceed any of these: each part is beside the limits of the others.
    If nobody is within, which happens if few people are compared, it is of all people.
    """
    if AVERAGE not in far:
        return {}
    found = far[AVERAGE].abs()

    def own(people: pd.DataFrame) -> np.ndarray:
        return np.maximum(quantiles(people.to_numpy(), 1 - OF_ONE_AVERAGE)[0], LEAST_AVERAGE)

    shares = pd.concat([(found.iloc[part] / own(found.drop(index=part))).max(axis=1) for part in parts]).sort_index()
    within = np.all([values <= limits[of] for of, values in greatest(far).items()], axis=0)
    factor = quantiles(shares.to_numpy()[within | ~within.any()], 1 - OF_AVERAGES).item()
    return {name: float(f"{factor * most:.{DIGITS}g}") for name, most in zip(found, own(found), strict=True)}


def least_factors(constants: Constants) -> dict[str, float]:
    """By map: the least factor of its values, or divisor, that takes the scale of the median person beyond the limit.
    A smaller one is not told: training people, and their sites, differ as much."""
    limit, found = constants.limits["scan"], {}
    for name in constants.maps:
        scales = {measure: constants.ranges[name].get(measure) for measure in ("log sd", "log mean")}
        halves = [max(of.halves(measure)) for measure, of in scales.items() if of]
        if halves:
            found[name] = float(np.exp(limit * min(halves)))
    return found


def table_of(cohort: Cohort, indices: np.ndarray) -> pd.DataFrame:
    """Raw phenotype and covariates of the people with these records, a row a record: text, empty where unknown. A
    column that is in both is that of the phenotype."""
    subjects, parts = [cohort.rows[index].subject for index in indices], []
    if cohort.raw_phenotype is not None:
        parts.append(as_text(cohort.raw_phenotype, cohort.metadata.phenotype_categories))
    if cohort.covariates is not None:
        parts.append(cohort.covariates.drop(columns=[name for part in parts for name in part], errors="ignore"))
    rows = [part.loc[subjects].reset_index(drop=True) for part in parts]
    return pd.concat(rows, axis=1) if rows else pd.DataFrame(index=range(len(subjects)))


def as_text(raw: pd.DataFrame, categories: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """A raw phenotype (subjects, 29) as text, without unused values. The 0/1 values of a category are one column
    again."""
    table = raw[[name for name in raw if not name.startswith(UNUSED)]].map("{:.12g}".format)
    for name, values in categories.items():
        coded = raw[[f"{name}_{value}" for value in values]].to_numpy()
        text = np.where(coded.any(axis=1), np.array(values)[coded.argmax(axis=1)], UNKNOWN)
        table = table.drop(columns=[f"{name}_{value}" for value in values]).assign(**{name: text})
    return table


def as_number(column: pd.Series) -> pd.Series:
    """A column of text as float64, NaN where it is no number; of head motion the logarithm."""
    values = pd.to_numeric(clean(column), errors="coerce").astype(float)
    values = values.where(values.abs() <= MAX_NUMBER)
    return np.log(values.where(values > 0)) if LOGARITHMIC.search(str(column.name)) else values


def as_category(column: pd.Series) -> pd.Series:
    """A column of text, each number written in one way."""
    text = clean(column)
    values = pd.to_numeric(text, errors="coerce")
    return text.where(values.isna(), values.map("{:g}".format)).fillna(UNKNOWN)


def numeric_columns(table: pd.DataFrame, sites: Sequence[str]) -> pd.DataFrame:
    """The columns of a `table_of` training people at these sites that are numbers of many values, float64. A column
    that repeats an earlier one is left out. So is one that names the sites: a new site is nothing unusual."""
    found: dict[str, pd.Series] = {}
    for name, column in table.items():
        values = as_number(column)
        several = values.nunique() > FEW_VALUES and values.notna().sum() >= MIN_KNOWN and mostly_numbers(column)
        if several and column.tolist() != list(sites) and not any(values.equals(other) for other in found.values()):
            found[str(name)] = values
    return pd.DataFrame(found, table.index)


def expected_of(cohort: Cohort, table: pd.DataFrame, sites: Sequence[str], numeric: pd.DataFrame) -> Expected:
    """What is usual in a `table_of` training people at these sites, whose `numeric` columns are numbers.

    A column is left out if its categories tell the site, if hardly anybody shares them, or if it is the same for all.
    The share of fewer than TELLING people, or of all but these, is told as if they were so many. A phenotype
    value that is the same for all is scaled to 0 for everybody.
    """
    raw: set[str] = set()
    if cohort.raw_phenotype is not None:
        raw = set(as_text(cohort.raw_phenotype, cohort.metadata.phenotype_categories))
    known = tuple(name for name, values in numeric.items() if name in raw and values.notna().mean() >= NEARLY_ALL)
    categories: dict[str, dict[str, float]] = {}
    for name, column in table.items():
        text = as_category(column)
        if as_number(column).nunique() > FEW_VALUES or text.nunique() == 1:
            continue
        several = {value: count for value, count in text.value_counts().items() if count >= MIN_OF_CATEGORY}
        most = max(TELLING, len(text) - TELLING)
        common = {value: min(max(count, TELLING), most) / len(text) for value, count in several.items()}
        common |= {} if name in raw else {UNKNOWN: common.get(UNKNOWN, 0.0)}
        if text.isin(common.keys()).mean() >= NEARLY_ALL and not tells_site(text, sites):
            categories[str(name)] = {value: float(f"{common[value]:.{SHARE_DIGITS}g}") for value in sorted(common)}
    return Expected(categories, known)


def tells_site(text: pd.Series, sites: Sequence[str]) -> bool:
    """Whether the column is the site, or, if there are several sites, each of its categories is of one site only."""
    site = pd.Series(list(sites), text.index)
    named = text[text != UNKNOWN]
    apart = site.nunique() > 1 and site[named.index].groupby(named).nunique().max() == 1
    return bool(apart or (text == site).all())


def atypical_values(expected: Expected, table: pd.DataFrame) -> list[list[str]]:
    """For each row of a `table_of` people, the values that hardly any training person has, in words."""
    found: list[list[str]] = [[] for _ in range(len(table))]
    for name in expected.known:
        for at in np.flatnonzero(as_number(table[name]).isna()) if name in table else ():
            found[at].append(f"{name} is unknown, which is known of training people")
    for name, common in expected.categories.items():
        text = as_category(table[name]) if name in table else pd.Series([*common][:1] * len(table))
        for at in np.flatnonzero(~text.isin(common.keys())):
            found[at].append(f"{name} {text.iloc[at]}, training people {', '.join(common)}")
    return found
