"""Training people -> constants that tell who is atypical; people beside them -> the reasons why each of them is.

There are measures of maps before their conversion, of the stored volumes, of connectomes and of the person. Of each
measure the median is kept, and where the middle nine tenths of people lie: of scans by the median absolute deviation,
which a tenth of odd maps does not widen; of numbers of people, which are skewed or pile up at one value, by quantiles.
Quantiles are those of Harrell and Davis (1982, Biometrika 69:635): means over many people, never one person's value.
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

from data.base import files
from data.base.archive import Archive, npz
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.terminal import participants, progress
from data.cohorts import atlas
from data.cohorts.cohort import LIKENESS, MEANS, Cohort
from data.cohorts.phenotype import LOGARITHMIC, MAX_NUMBER, clean, mostly_numbers
from data.cohorts.records import TELLING
from data.cohorts.rows import listed
from data.conversion.template import TemplateCohort
from data.likeness.reasons import (
    MAD_SD,
    MEASURES,
    PERSON,
    SDS,
    Range,
    Ranges,
    findings,
    mean_over_maps,
    sentences,
    z_of,
)
from data.likeness.scans import (
    HALVES,
    NEARLY_ALL,
    Lacking,
    Means,
    MeanVolume,
    Scans,
    before_conversion,
    measured,
    volumes_of,
)

MOST_PEOPLE = 2000  # of whom they are taken, drawn at random
MIDDLE = 0.05, 0.5, 0.95  # the quantiles that are kept of a number
DIGITS = 4  # significant ones of constants: fewer than those of most people's IDs
SHARE_DIGITS = 3  # the same of a share
FEW_VALUES = 5  # of a number; it counts as a category
MIN_OF_CATEGORY = 2  # training people who have it, so that it is not that of one person
MIN_KNOWN = 20  # of whom a number is known
UNKNOWN = "unknown"
UNUSED = "unused_"  # begins the name of a phenotype value that is always 0


@dataclass(frozen=True)
class Constants:
    """What is kept of training people; nobody can be recognised by it. `regions` are those that nearly all maps cover,
    by map; `categories`, by column, those that several people have, with their shares; `known` the phenotype's columns
    of numbers that hardly anybody lacks."""

    count: int  # of the people
    maps: tuple[str, ...]
    parcels_sha256: str  # empty without connectomes
    ranges: Ranges
    regions: dict[str, tuple[int, ...]]
    categories: dict[str, dict[str, float]]
    known: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Reference:
    """Training people: constants, and two means. `volume` (x, y, z, maps) float32 has the mean of each map on the
    reduced grid; `edges` (edges,) float32 is the mean connectome in Fisher z, None if there is none."""

    constants: Constants
    volume: np.ndarray
    edges: np.ndarray | None

    @functools.cached_property
    def means(self) -> Means:
        of_maps = zip(self.constants.maps, np.moveaxis(self.volume, -1, 0), strict=True)
        return Means({name: MeanVolume(mean) for name, mean in of_maps}, self.edges, self.constants.regions)

    @property
    def parts(self) -> dict[str, bytes]:
        """The files that `reference_in` reads."""
        means = {"volume": self.volume} | ({} if self.edges is None else {"edges": self.edges})
        return {LIKENESS: files.json_text(asdict(self.constants)).encode(), MEANS: npz(**means)}


def reference_in(archive: Archive) -> Reference | None:
    """What a bundle says of training people, or the folder of people who were prepared like these; None if it says
    nothing. Raises InputError for damage."""
    if LIKENESS not in archive.parts:
        return None
    means = archive.arrays(MEANS)
    return Reference(archive.json(LIKENESS, Constants), means["volume"], means.get("edges"))


def parts_like(like: TemplateCohort) -> tuple[dict[str, bytes], str]:
    """The `parts` of the training people whom new people are prepared `like`; if there are none, why. Raises InputError
    for a record that cannot be read."""
    cohort = like.cohort
    if like.bundle:
        told = reference_in(like.bundle)
        return (told.parts, "") if told else ({}, f"{cohort.path} does not say what these are like.")
    training = [index for index, row in enumerate(cohort.rows) if row.split == "train"]
    if why := too_few(cohort, people_at(cohort, training)):
        return {}, why
    return reference(cohort, training).parts, ""


def kept_reference(cohort: Cohort) -> Reference | None:
    """What those are like whom the people of a cohort were prepared like; None if it does not say that, or holds the
    volumes of an encoder. Raises InputError for damage."""
    paths = [cohort.side_tables[name] for name in (LIKENESS, MEANS) if name in cohort.side_tables]
    if cohort.metadata.reduction.startswith("encoder"):
        return None
    return reference_in(Archive(cohort.path, {path.name: path.read_bytes() for path in paths}))


def too_few(cohort: Cohort, chosen: Sequence[int]) -> str:
    """Why people, at these positions, are too few to be described; empty if they are enough."""
    if len(chosen) >= EFFORT.describe_from:
        return ""
    return (
        f"{cohort.path} has {participants(len(chosen), 'training')}; expected {EFFORT.describe_from} to tell who is "
        "out of distribution."
    )


def reference(cohort: Cohort, indices: Sequence[int] | np.ndarray) -> Reference:
    """The training people whose records are at these positions. Raises InputError if they are too few, or if a record
    cannot be read."""
    chosen = people_at(cohort, indices)
    if why := too_few(cohort, chosen):
        raise InputError(why)
    scans = Scans(cohort, chosen)
    with progress("Measuring training participants", len(chosen)) as shown:
        for index in chosen:
            scans.add(index, volumes_of(cohort, index))
            shown.advance()
    table, sites = table_of(cohort, chosen), [cohort.rows[index].site for index in chosen]
    numbers, means = numeric_columns(table, sites), scans.means()
    values = all_measures(cohort, chosen, scans.measured(chosen)[0], numbers)
    phenotype = set() if cohort.raw_phenotype is None else {*cohort.raw_phenotype}
    constants = Constants(
        len(chosen),
        cohort.maps,
        cohort.metadata.parcels_sha256 if cohort.connectomes else "",
        ranges_of(values),
        means.regions,
        categories_of(table, sites, phenotype),
        tuple(name for name in numbers if name in phenotype and numbers[name].notna().mean() >= NEARLY_ALL),
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
    constants, chosen = of.constants, [int(index) for index in indices]
    if cohort.maps != constants.maps:
        raise InputError(
            f"{cohort.path} holds the maps {listed(cohort.maps)}; the training participants have "
            f"{listed(constants.maps)}. Convert the same ones, in the same order."
        )
    if cohort.connectomes and cohort.metadata.parcels_sha256 != constants.parcels_sha256:
        cohort = cohort.without_connectomes
    with progress("Comparing participants", len(chosen)) as shown:
        scans, lacking = measured(cohort, chosen, of.means, shown)
    table = table_of(cohort, chosen)
    numbers = table[[name for name in constants.ranges.get(PERSON, {}) if name in table]].apply(as_number)
    values = all_measures(cohort, chosen, scans, numbers)
    found = reasons(cohort, values, constants.ranges, lacking)
    other = atypical_values(constants, table)
    return Compared(values, table, [(*one, *more) for one, more in zip(found, other, strict=True)])


def reasons(cohort: Cohort, values: pd.DataFrame, ranges: Ranges, lacking: Lacking) -> list[tuple[str, ...]]:
    """In plain words what is far from the others in each row of measures; `lacking` regions by record."""
    names = atlas.load_atlas(None, cohort.grid).names
    named = [
        {name: [names[of] for of in regions] for name, regions in lacking[index].items()} for index in values.index
    ]
    return [sentences(one, regions) for one, regions in zip(findings(values, ranges), named, strict=True)]


def people_at(cohort: Cohort, indices: Sequence[int] | np.ndarray) -> list[int]:
    """The positions of the first record of each person among these, of MOST_PEOPLE at most. Records of swapped regions
    do not count."""
    kept = np.intersect1d(indices, cohort.unswapped())
    first = np.array(list(cohort.first_records(kept.tolist()).values()), int)
    return np.sort(np.random.default_rng(0).permutation(first)[:MOST_PEOPLE]).tolist()


def all_measures(cohort: Cohort, indices: Sequence[int], scans: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """Measures of scans, those of maps before their conversion, and numbers of the person, (view, measure)."""
    person = pd.DataFrame({(PERSON, name): values.to_numpy(float) for name, values in numbers.items()}, list(indices))
    return pd.concat([scans, before_conversion(cohort, indices), person], axis=1)


def quantiles(values: np.ndarray, shares: Sequence[float] | float) -> np.ndarray:
    """The quantiles by Harrell and Davis: of values (n,), or of each column (n, columns) -> (shares, columns)."""
    of = np.reshape(shares, (-1, *np.ones(values.ndim - 1, int)))
    return stats.quantile(values, of, method="harrell-davis", axis=0, nan_policy="omit", keepdims=True)


def ranges_of(values: pd.DataFrame) -> Ranges:
    """The ranges of the columns (view, measure) that nearly all people have, and of their means over maps; of numbers
    of persons in any case."""
    found: Ranges = {}

    def add(of: list[tuple[str, str]], ends: np.ndarray) -> None:
        for (view, measure), of_measure in zip(of, ends.T.tolist(), strict=True):
            found.setdefault(view, {})[measure] = Range(*(float(f"{end:.{DIGITS}g}") for end in of_measure))

    persons = [column for column in values if column[0] == PERSON]
    nearly_all = values.notna().mean() >= NEARLY_ALL
    scans = values[[column for column in values if column[1] in MEASURES and nearly_all[column]]]
    sizes = {of: values.abs() if of[1] in HALVES else values for of, values in scans.items()}  # many may be turned
    add([*scans], by_deviation(pd.DataFrame(sizes, scans.index).to_numpy()))
    means = mean_over_maps(z_of(scans, found))
    add([*means], by_deviation(means.to_numpy()))
    add(persons, quantiles(values[persons].to_numpy(), MIDDLE))
    return found


def by_deviation(values: np.ndarray) -> np.ndarray:
    """Ends and middle (3, columns) of values (n, columns) by their medians and median absolute deviations."""
    if not values.size:
        return np.empty((3, 0))
    middle = quantiles(values, 0.5)
    half = quantiles(np.abs(values - middle), 0.5) * SDS / MAD_SD
    return np.concatenate([middle - half, middle, middle + half])


def table_of(cohort: Cohort, indices: Sequence[int]) -> pd.DataFrame:
    """Raw phenotype and covariates of the people with these records, a row a record: text, empty where unknown. A
    column that is in both is that of the phenotype."""
    subjects, parts = [cohort.rows[index].subject for index in indices], []
    if (raw := cohort.raw_phenotype) is not None:
        parts.append(raw[[name for name in raw if not name.startswith(UNUSED)]].map("{:.12g}".format))
    if cohort.covariates is not None:
        parts.append(cohort.covariates.drop(columns=[name for part in parts for name in part], errors="ignore"))
    rows = [part.loc[subjects].reset_index(drop=True) for part in parts]
    return pd.concat(rows, axis=1) if rows else pd.DataFrame(index=range(len(subjects)))


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


def categories_of(table: pd.DataFrame, sites: Sequence[str], phenotype: set[str]) -> dict[str, dict[str, float]]:
    """The categories in a `table_of` training people at these sites, with their shares, by column.

    A column is left out if its categories tell the site, if hardly anybody shares them, or if it is the same for all.
    The share of fewer than TELLING people, or of all but these, is told as if they were so many. A column of the
    phenotype must be known.
    """
    found: dict[str, dict[str, float]] = {}
    for name, column in table.items():
        text, most = as_category(column), max(TELLING, len(column) - TELLING)
        if as_number(column).nunique() > FEW_VALUES or text.nunique() == 1:
            continue
        counts = text.value_counts()
        common = {
            value: min(max(count, TELLING), most) / len(text)
            for value, count in counts[counts >= MIN_OF_CATEGORY].items()
        }
        common |= {} if name in phenotype else {UNKNOWN: common.get(UNKNOWN, 0.0)}
        if text.isin(common.keys()).mean() >= NEARLY_ALL and not tells_site(text, sites):
            found[str(name)] = {value: float(f"{common[value]:.{SHARE_DIGITS}g}") for value in sorted(common)}
    return found


def tells_site(text: pd.Series, sites: Sequence[str]) -> bool:
    """Whether the column is the site, or, if there are several sites, each of its categories is of one site only."""
    site = pd.Series(list(sites), text.index)
    named = text[text != UNKNOWN]
    apart = site.nunique() > 1 and site[named.index].groupby(named).nunique().max() == 1
    return bool(apart or (text == site).all())


def atypical_values(constants: Constants, table: pd.DataFrame) -> list[list[str]]:
    """For each row of a `table_of` people, the values that hardly any training person has, in words."""
    found: list[list[str]] = [[] for _ in range(len(table))]
    for name in constants.known:
        for at in np.flatnonzero(as_number(table[name]).isna()) if name in table else ():
            found[at].append(f"{name} is unknown, which is known of training participants")
    for name, common in constants.categories.items():
        text = as_category(table[name]) if name in table else pd.Series([*common][:1] * len(table))
        for at in np.flatnonzero(~text.isin(common.keys())):
            found[at].append(f"{name} {text.iloc[at]}, training participants {', '.join(common)}")
    return found
