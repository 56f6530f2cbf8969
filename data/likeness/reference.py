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
from data.base.archive import Archive, make_npz
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.listing import join_names
from data.base.terminal import format_participants, open_progress_bar
from data.base.thresholds import MIN_DESCRIBED_PEOPLE
from data.cohorts.cohort import LIKENESS_FILE, LIKENESS_MEANS_FILE, Cohort
from data.conversion.template import TemplateCohort
from data.likeness.reasons import (
    MEASURE_BY_NAME,
    NORMAL_MAD,
    PERSON_VIEW,
    SDS_TO_RANGE_END,
    Range,
    Ranges,
    average_z_over_maps,
    compute_robust_z,
    find_deviations,
    format_deviations,
)
from data.likeness.scans import (
    MIRROR_HALF_MEASURE_NAMES,
    NEARLY_ALL_FRACTION,
    MeanVolume,
    MissingRegions,
    ScanMeans,
    ScanSums,
    iterate_map_volumes,
    load_region_atlas,
    measure_against_means,
    read_unconverted_measures,
)
from data.tables.missing import clean_column
from data.tables.phenotype import LOGARITHMIC_COLUMN_PATTERN, MAX_PHENOTYPE_NUMBER, UNUSED_PREFIX, is_mostly_numbers

MAX_REFERENCE_PEOPLE = 2000  # training people who are described, drawn at random
RANGE_QUANTILES = 0.05, 0.5, 0.95  # the quantiles that are kept of a number
CONSTANT_SIGNIFICANT_DIGITS = 4  # significant ones of constants: fewer than those of most people's IDs
SHARE_SIGNIFICANT_DIGITS = 3  # the same of a share
MAX_DISTINCT_CATEGORIES = 5  # a number with so many values or fewer counts as a category
MIN_PEOPLE_PER_CATEGORY = 2  # training people who have it, so that it is not that of one person
MIN_PEOPLE_WITH_NUMBER = 20  # of whom a number is known
UNKNOWN_VALUE_CATEGORY = "unknown"


@dataclass(frozen=True)
class LikenessConstants:
    """What is kept of training people; nobody can be recognised by it."""

    count: int  # of the people
    maps: tuple[str, ...]  # their names, in order
    parcels_sha256: str  # empty without connectomes
    ranges: Ranges
    regions: dict[str, tuple[int, ...]]  # numbers of those that nearly all maps cover, by map
    categories: dict[str, dict[str, float]]  # share of people, by column and by each category that several have
    known: tuple[str, ...]  # the phenotype's columns of numbers that hardly anybody lacks


@dataclass(frozen=True, eq=False)
class TrainingReference:
    """Training people: constants, and two means."""

    constants: LikenessConstants
    mean_volumes: np.ndarray  # (x, y, z, maps) float32 on the reduced grid
    mean_edge_fisher_z: np.ndarray | None  # (edges,) float32; None without connectomes

    @functools.cached_property
    def means(self) -> ScanMeans:
        mean_volumes = np.moveaxis(self.mean_volumes, -1, 0)  # (maps, x, y, z)
        mean_volume_by_map = {
            map_name: MeanVolume(mean_volume)
            for map_name, mean_volume in zip(self.constants.maps, mean_volumes, strict=True)
        }
        return ScanMeans(mean_volume_by_map, self.mean_edge_fisher_z, self.constants.regions)

    @property
    def bytes_by_file(self) -> dict[str, bytes]:
        """The files that `read_reference` reads."""
        array_by_name = {"volume": self.mean_volumes}
        if self.mean_edge_fisher_z is not None:
            array_by_name["edges"] = self.mean_edge_fisher_z
        return {
            LIKENESS_FILE: files.format_json(asdict(self.constants)).encode(),
            LIKENESS_MEANS_FILE: make_npz(**array_by_name),
        }


def read_reference(archive: Archive) -> TrainingReference | None:
    """What a bundle says of training people, or the folder of people who were prepared like these; None if it says
    nothing. Raises InputError for damage."""
    if LIKENESS_FILE not in archive.bytes_by_member:
        return None
    array_by_name = archive.read_arrays(LIKENESS_MEANS_FILE)
    constants = archive.read_json(LIKENESS_FILE, LikenessConstants)
    return TrainingReference(constants, array_by_name["volume"], array_by_name.get("edges"))


def make_likeness_files_or_reason(template: TemplateCohort) -> tuple[dict[str, bytes], str]:
    """The files (`Reference.bytes_by_file`) that describe the training people of `template`, whom new people are
    prepared like; if there are none, why. Raises InputError for a record that cannot be read."""
    cohort = template.cohort
    if template.bundle_archive:
        bundle_reference = read_reference(template.bundle_archive)
        if bundle_reference is None:
            return {}, f"{cohort.path} does not say what these are like."
        return bundle_reference.bytes_by_file, ""

    training_indices = [record_index for record_index, row in enumerate(cohort.rows) if row.split == "train"]
    described_indices = sample_first_record_indices(cohort, training_indices)
    if reason := explain_too_few_training_people(cohort, described_indices):
        return {}, reason
    return make_reference(cohort, training_indices).bytes_by_file, ""


def load_reference(cohort: Cohort) -> TrainingReference | None:
    """The training people whom the people of a cohort were prepared like; None if it does not describe them, or holds
    the volumes of an encoder. Raises InputError for damage."""
    if cohort.metadata.reduction.startswith("encoder"):
        return None
    bytes_by_file = {
        file_name: cohort.side_table_path_by_name[file_name].read_bytes()
        for file_name in (LIKENESS_FILE, LIKENESS_MEANS_FILE)
        if file_name in cohort.side_table_path_by_name
    }
    return read_reference(Archive(cohort.path, bytes_by_file))


def explain_too_few_training_people(cohort: Cohort, first_record_indices: Sequence[int]) -> str:
    """Why people, at these positions, are too few to be described; empty if they are enough."""
    if len(first_record_indices) >= EFFORT.describe_from:
        return ""
    return (
        f"{cohort.path} has {format_participants(len(first_record_indices), 'training')}; expected "
        f"{EFFORT.describe_from} to tell who is out of distribution."
    )


def make_reference(cohort: Cohort, record_indices: Sequence[int] | np.ndarray) -> TrainingReference:
    """The training people whose records are at these positions. Raises InputError if they are too few, or if a record
    cannot be read."""
    first_record_indices = sample_first_record_indices(cohort, record_indices)
    if reason := explain_too_few_training_people(cohort, first_record_indices):
        raise InputError(reason)
    scan_sums = ScanSums(cohort, first_record_indices)
    with open_progress_bar("Measuring training participants", len(first_record_indices)) as progress_bar:
        for record_index in first_record_indices:
            scan_sums.add_record(record_index, iterate_map_volumes(cohort, record_index))
            progress_bar.advance()

    people_table = make_people_table(cohort, first_record_indices)
    site_per_person = [cohort.rows[record_index].site for record_index in first_record_indices]
    number_table = select_number_columns(people_table, site_per_person)

    scan_means = scan_sums.compute_means()
    scan_measure_table, _ = scan_sums.measure_records(first_record_indices)
    measure_table = collect_measures(cohort, first_record_indices, scan_measure_table, number_table)

    phenotype_column_names = set() if cohort.unscaled_phenotype is None else {*cohort.unscaled_phenotype}
    nearly_complete_columns = [
        column
        for column in number_table
        if column in phenotype_column_names and number_table[column].notna().mean() >= NEARLY_ALL_FRACTION
    ]
    constants = LikenessConstants(
        count=len(first_record_indices),
        maps=cohort.map_names,
        parcels_sha256=cohort.metadata.parcels_sha256 if cohort.connectomes else "",
        ranges=compute_usual_ranges(measure_table),
        regions=scan_means.common_region_numbers_by_map,
        categories=compute_category_frequencies(people_table, site_per_person, phenotype_column_names),
        known=tuple(nearly_complete_columns),
    )
    return TrainingReference(constants, scan_means.mean_volumes, scan_means.mean_edge_fisher_z)


@dataclass(frozen=True, eq=False)
class ReferenceComparison:
    """People beside training people, a row a record."""

    measure_table: pd.DataFrame  # columns (view, measure)
    people_table: pd.DataFrame  # of `make_people_table`: phenotype and covariates as text
    reasons_per_record: list[tuple[str, ...]]  # sentences on what is atypical; empty for most


def compare_with_reference(
    reference: TrainingReference, cohort: Cohort, record_indices: Sequence[int] | np.ndarray
) -> ReferenceComparison:
    """The records at these positions beside training people. Raises InputError if the cohort has other maps."""
    constants = reference.constants
    int_record_indices = [int(record_index) for record_index in record_indices]
    if cohort.map_names != constants.maps:
        raise InputError(
            f"{cohort.path} holds the maps {join_names(cohort.map_names)}; the training participants have "
            f"{join_names(constants.maps)}. Convert the same ones, in the same order."
        )
    if cohort.connectomes and cohort.metadata.parcels_sha256 != constants.parcels_sha256:
        cohort = cohort.without_connectomes

    with open_progress_bar("Comparing participants", len(int_record_indices)) as progress_bar:
        scan_measure_table, missing_regions_by_record_and_map = measure_against_means(
            cohort, int_record_indices, reference.means, progress_bar
        )

    people_table = make_people_table(cohort, int_record_indices)
    number_columns = [column for column in constants.ranges.get(PERSON_VIEW, {}) if column in people_table]
    number_table = people_table[number_columns].apply(parse_numbers)
    measure_table = collect_measures(cohort, int_record_indices, scan_measure_table, number_table)

    deviation_sentences_per_record = find_deviation_sentences(
        cohort, measure_table, constants.ranges, missing_regions_by_record_and_map
    )
    value_sentences_per_record = describe_atypical_values(constants, people_table)
    reasons_per_record = [
        (*deviation_sentences, *value_sentences)
        for deviation_sentences, value_sentences in zip(
            deviation_sentences_per_record, value_sentences_per_record, strict=True
        )
    ]
    return ReferenceComparison(measure_table, people_table, reasons_per_record)


def find_deviation_sentences(
    cohort: Cohort, measure_table: pd.DataFrame, ranges: Ranges, missing_regions_by_record_and_map: MissingRegions
) -> list[tuple[str, ...]]:
    """In plain words what is far from the others in each row of measures. `missing_regions_by_record_and_map` are the
    regions that each record lacks, by map."""
    name_by_region = load_region_atlas(cohort).name_by_region
    deviations_per_record = find_deviations(measure_table, ranges)
    sentences_per_record = list[tuple[str, ...]]()
    for record_index, record_deviations in zip(measure_table.index, deviations_per_record, strict=True):
        missing_names_by_map = dict[str, list[str]]()
        for map_name, region_numbers in missing_regions_by_record_and_map[record_index].items():
            missing_names_by_map[map_name] = [name_by_region[region_number] for region_number in region_numbers]
        sentences_per_record.append(format_deviations(record_deviations, missing_names_by_map))
    return sentences_per_record


def sample_first_record_indices(cohort: Cohort, record_indices: Sequence[int] | np.ndarray) -> list[int]:
    """The positions of the first record of each person among these, of `MAX_REFERENCE_PEOPLE` at most. Records of
    swapped regions do not count."""
    unswapped_record_indices = np.intersect1d(record_indices, cohort.find_unswapped_record_indices())
    first_index_by_subject = cohort.find_first_record_indices(unswapped_record_indices.tolist())
    first_record_indices = np.array(list(first_index_by_subject.values()), int)
    shuffled_indices = np.random.default_rng(0).permutation(first_record_indices)
    return np.sort(shuffled_indices[:MAX_REFERENCE_PEOPLE]).tolist()


def collect_measures(
    cohort: Cohort, record_indices: Sequence[int], scan_measure_table: pd.DataFrame, number_table: pd.DataFrame
) -> pd.DataFrame:
    """Measures of scans, those of maps before their conversion, and numbers of the person, (view, measure)."""
    person_measure_table = pd.DataFrame(
        {(PERSON_VIEW, column): column_values.to_numpy(float) for column, column_values in number_table.items()},
        list(record_indices),
    )
    return pd.concat(
        [scan_measure_table, read_unconverted_measures(cohort, record_indices), person_measure_table], axis=1
    )


def compute_quantiles(values: np.ndarray, quantile_levels: Sequence[float] | float) -> np.ndarray:
    """The quantiles by Harrell and Davis: of values (n,) -> (levels,), or of each column (n, columns) -> (levels,
    columns)."""
    level_column = np.reshape(quantile_levels, (-1, *np.ones(values.ndim - 1, int)))
    return stats.quantile(values, level_column, method="harrell-davis", axis=0, nan_policy="omit", keepdims=True)


def compute_usual_ranges(measure_table: pd.DataFrame) -> Ranges:
    """The ranges of the columns (view, measure) that nearly all people have, and of their means over maps; of numbers
    of persons in any case."""
    ranges: Ranges = {}

    is_nearly_complete = measure_table.notna().mean() >= NEARLY_ALL_FRACTION  # by column
    scan_columns = [column for column in measure_table if column[1] in MEASURE_BY_NAME and is_nearly_complete[column]]
    scan_measure_table = measure_table[scan_columns]
    magnitude_by_column = {
        column: column_values.abs() if column[1] in MIRROR_HALF_MEASURE_NAMES else column_values  # many may be turned
        for column, column_values in scan_measure_table.items()
    }
    magnitude_table = pd.DataFrame(magnitude_by_column, scan_measure_table.index)
    add_ranges(ranges, scan_columns, compute_deviation_ranges(magnitude_table.to_numpy()))

    mean_z_table = average_z_over_maps(compute_robust_z(scan_measure_table, ranges))
    add_ranges(ranges, [*mean_z_table], compute_deviation_ranges(mean_z_table.to_numpy()))

    person_columns = [column for column in measure_table if column[0] == PERSON_VIEW]
    add_ranges(ranges, person_columns, compute_quantiles(measure_table[person_columns].to_numpy(), RANGE_QUANTILES))
    return ranges


def add_ranges(ranges: Ranges, columns: Sequence[tuple[str, str]], range_ends: np.ndarray) -> None:
    """Adds to `ranges` those of columns (view, measure), with low ends, middles and high ends (3, columns)."""
    for (view, measure_name), low_middle_high in zip(columns, range_ends.T.tolist(), strict=True):
        rounded_ends = [float(f"{range_end:.{CONSTANT_SIGNIFICANT_DIGITS}g}") for range_end in low_middle_high]
        ranges.setdefault(view, {})[measure_name] = Range(*rounded_ends)


def compute_deviation_ranges(measure_values: np.ndarray) -> np.ndarray:
    """Ends and middle (3, columns) of values (n, columns) by their medians and median absolute deviations."""
    if not measure_values.size:
        return np.empty((3, 0))
    medians = compute_quantiles(measure_values, 0.5)
    median_deviations = compute_quantiles(np.abs(measure_values - medians), 0.5)  # (1, columns)
    half_ranges = median_deviations * SDS_TO_RANGE_END / NORMAL_MAD
    return np.concatenate([medians - half_ranges, medians, medians + half_ranges])


def make_people_table(cohort: Cohort, record_indices: Sequence[int]) -> pd.DataFrame:
    """Raw phenotype and covariates of the people with these records, a row a record: text, empty where unknown. A
    column that is in both is that of the phenotype."""
    subjects = [cohort.rows[record_index].subject for record_index in record_indices]
    subject_tables = list[pd.DataFrame]()
    phenotype_columns = list[str]()
    if (raw_phenotype := cohort.unscaled_phenotype) is not None:
        phenotype_columns = [column for column in raw_phenotype if not column.startswith(UNUSED_PREFIX)]
        subject_tables.append(raw_phenotype[phenotype_columns].map("{:.12g}".format))
    if cohort.covariates is not None:
        subject_tables.append(cohort.covariates.drop(columns=phenotype_columns, errors="ignore"))
    if not subject_tables:
        return pd.DataFrame(index=range(len(subjects)))
    record_tables = [subject_table.loc[subjects].reset_index(drop=True) for subject_table in subject_tables]
    return pd.concat(record_tables, axis=1)


def parse_numbers(text_column: pd.Series) -> pd.Series:
    """A column of text as float64, NaN where it is no number; of head motion the logarithm."""
    numbers = pd.to_numeric(clean_column(text_column), errors="coerce").astype(float)
    numbers = numbers.where(numbers.abs() <= MAX_PHENOTYPE_NUMBER)
    if LOGARITHMIC_COLUMN_PATTERN.search(str(text_column.name)):
        return np.log(numbers.where(numbers > 0))
    return numbers


def parse_categories(text_column: pd.Series) -> pd.Series:
    """A column of text, each number written in one way."""
    cleaned_text = clean_column(text_column)
    numbers = pd.to_numeric(cleaned_text, errors="coerce")
    return cleaned_text.where(numbers.isna(), numbers.map("{:g}".format)).fillna(UNKNOWN_VALUE_CATEGORY)


def select_number_columns(people_table: pd.DataFrame, site_per_person: Sequence[str]) -> pd.DataFrame:
    """The columns of numbers with many values, float64, in the `people_table` of training people at these sites. A
    column that repeats an earlier one is left out. So is one that names the sites: a new site is nothing unusual."""
    numbers_by_column: dict[str, pd.Series] = {}
    for column_name, text_column in people_table.items():
        numbers = parse_numbers(text_column)
        has_many_numbers = (
            numbers.nunique() > MAX_DISTINCT_CATEGORIES
            and numbers.notna().sum() >= MIN_PEOPLE_WITH_NUMBER
            and is_mostly_numbers(text_column)
        )
        if (
            has_many_numbers
            and text_column.tolist() != list(site_per_person)
            and not any(numbers.equals(earlier_numbers) for earlier_numbers in numbers_by_column.values())
        ):
            numbers_by_column[str(column_name)] = numbers
    return pd.DataFrame(numbers_by_column, people_table.index)


def compute_category_frequencies(
    people_table: pd.DataFrame, site_per_person: Sequence[str], phenotype_column_names: set[str]
) -> dict[str, dict[str, float]]:
    """The categories in the `people_table` of training people at these sites, with their shares, by column.

    A column is left out if its categories tell the site, if hardly anybody shares them, or if it is the same for all.
    The share of fewer than `MIN_DESCRIBED_PEOPLE` people, or of all but so few, is given as if they were so many.
    `UNKNOWN_VALUE_CATEGORY` is always a category, but in columns of the phenotype only if several people lack the
    value.
    """
    frequencies_by_column: dict[str, dict[str, float]] = {}
    for column_name, text_column in people_table.items():
        category_by_person = parse_categories(text_column)
        if parse_numbers(text_column).nunique() > MAX_DISTINCT_CATEGORIES or category_by_person.nunique() == 1:
            continue

        people_count = len(category_by_person)
        max_reported_count = max(MIN_DESCRIBED_PEOPLE, people_count - MIN_DESCRIBED_PEOPLE)
        count_by_category = category_by_person.value_counts()
        frequency_by_category = dict[str, float]()
        for category, count in count_by_category[count_by_category >= MIN_PEOPLE_PER_CATEGORY].items():
            reported_count = min(max(count, MIN_DESCRIBED_PEOPLE), max_reported_count)
            frequency_by_category[str(category)] = reported_count / people_count
        if column_name not in phenotype_column_names:
            frequency_by_category.setdefault(UNKNOWN_VALUE_CATEGORY, 0.0)

        reported_people_fraction = category_by_person.isin(frequency_by_category.keys()).mean()
        if reported_people_fraction >= NEARLY_ALL_FRACTION and not identifies_site(category_by_person, site_per_person):
            frequencies_by_column[str(column_name)] = {
                category: float(f"{frequency:.{SHARE_SIGNIFICANT_DIGITS}g}")
                for category, frequency in sorted(frequency_by_category.items())
            }
    return frequencies_by_column


def identifies_site(category_by_person: pd.Series, site_per_person: Sequence[str]) -> bool:
    """Whether the column is the site, or, if there are several sites, each of its categories is of one site only."""
    site_by_person = pd.Series(list(site_per_person), category_by_person.index)
    if (category_by_person == site_by_person).all():
        return True
    if site_by_person.nunique() < 2:
        return False
    recorded_category_by_person = category_by_person[category_by_person != UNKNOWN_VALUE_CATEGORY]
    sites_by_category = site_by_person[recorded_category_by_person.index].groupby(recorded_category_by_person)
    return bool(sites_by_category.nunique().max() == 1)


def describe_atypical_values(constants: LikenessConstants, people_table: pd.DataFrame) -> list[list[str]]:
    """For each row of `people_table`, the values that hardly any training person has, in words."""
    sentences_per_row: list[list[str]] = [[] for _ in range(len(people_table))]
    for column_name in constants.known:
        if column_name in people_table:
            is_unknown = parse_numbers(people_table[column_name]).isna()
            for row_position in np.flatnonzero(is_unknown):
                sentences_per_row[row_position].append(
                    f"{column_name} is unknown, which is known of training participants"
                )
    for column_name, frequency_by_category in constants.categories.items():
        if column_name in people_table:
            category_by_person = parse_categories(people_table[column_name])
            training_categories_text = ", ".join(frequency_by_category)
            for row_position in np.flatnonzero(~category_by_person.isin(frequency_by_category.keys())):
                sentences_per_row[row_position].append(
                    f"{column_name} {category_by_person.iloc[row_position]}, training participants "
                    f"{training_categories_text}"
                )
    return sentences_per_row
