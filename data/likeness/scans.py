"""Scans of people -> measures of each map and connectome beside the means of others, a row a record."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from data.base.terminal import ProgressBar, open_progress_bar
from data.cohorts.cohort import SERIES_FILE, Cohort
from data.conversion import edges, measures
from data.images import atlas, brain, grids, resampling

CONNECTOME_VIEW = "connectome"  # a view beside the maps
MAX_SUBSETS = 10  # of people, each of which is compared with the means of the others
NEARLY_ALL_FRACTION = 0.99  # of people; a region that holds signal in so many is expected of everybody
MIN_COVERED_FRACTION = 0.5  # share of a region's voxels that must hold signal
MIN_GAIN = 0.5  # share of the mean volume in a volume; below it, a shift counts for less
MAX_FINITE_CORRELATION = 0.99999  # a correlation, so that Fisher z stays finite
TINY_DIVISOR = np.finfo(float).tiny  # a divisor in place of 0
MIRROR_HALF_MEASURE_NAMES = ("side", "values")  # correlations that show whether a volume was mirrored or negated
MissingRegions = dict[int, dict[str, list[int]]]  # the regions without signal, by record and map


def load_region_atlas(cohort: Cohort) -> atlas.Atlas:
    """AAL on the grid of a cohort; on the reduced one if it has no maps, so that no region is looked up."""
    return atlas.load_atlas(None, cohort.record_grid or grids.REDUCED)


def scale_to_unit_length(values: np.ndarray) -> np.ndarray:
    """Values of any shape, divided by the root of the sum of their squares; 0 if all are 0. Without the threads of a
    BLAS, which cost more than they save here."""
    return values / max(float(np.sqrt(np.square(values).sum())), TINY_DIVISOR)


def centre_to_unit_length(values: np.ndarray) -> np.ndarray:
    """Values of any shape -> (n,) with mean 0 and length 1; 0 if they are constant."""
    return scale_to_unit_length(values.ravel() - values.mean(dtype=np.float64))


def compute_fisher_z(correlation: float) -> float:
    return float(np.arctanh(np.clip(correlation, -MAX_FINITE_CORRELATION, MAX_FINITE_CORRELATION)))


def find_uncovered_region_numbers(volume: np.ndarray, region_label_volume: np.ndarray) -> list[int]:
    """The numbers of the regions in `region_label_volume` (x, y, z) int of which a volume (x, y, z) holds little
    signal."""
    labelled_voxel_indices = np.flatnonzero(region_label_volume)
    voxel_region_numbers = region_label_volume.ravel()[labelled_voxel_indices]
    has_voxel_signal = volume.ravel()[labelled_voxel_indices] != brain.find_background_value(volume)
    region_voxel_counts = np.bincount(voxel_region_numbers)  # (regions + 1,) by number
    signal_voxel_counts = np.bincount(voxel_region_numbers[has_voxel_signal], minlength=len(region_voxel_counts))
    return np.flatnonzero(signal_voxel_counts < MIN_COVERED_FRACTION * region_voxel_counts).tolist()


def compute_mirror_halves(volume: np.ndarray) -> np.ndarray:
    """What differs between left and right of a volume (x, y, z), and their sum, (2, voxels), each of length 1, within
    the brain, whose middle is moved to that of the grid; `MIRROR_HALF_MEASURE_NAMES` compare them. In a mirrored
    volume the first has the other sign; in a negated one, both have; in one that is shifted, neither: what a shift
    changes is subtracted from what differs between left and right."""
    brain_centre = np.argwhere(brain.find_brain_mask(volume)).mean(axis=0)
    centring_shift_voxels = (np.array(volume.shape) - 1) / 2 - brain_centre
    z_volume = brain.z_score_within_brain(volume[..., None])[..., 0]
    centred_z_volume = ndimage.shift(z_volume, centring_shift_voxels, order=1)

    asymmetry = subtract_mirror_image(centred_z_volume)
    # how the asymmetry changes as the volume is shifted along x, y, z
    slope_asymmetries = [subtract_mirror_image(slope_volume) for slope_volume in np.gradient(centred_z_volume)]

    # regression of the asymmetry on those of the slopes
    inner_products = np.empty((3, 4))  # of the slopes with the slopes, and with the asymmetry
    for row_index, slope_asymmetry in enumerate(slope_asymmetries):
        for column_index, column_asymmetry in enumerate([*slope_asymmetries, asymmetry]):
            inner_products[row_index, column_index] = (slope_asymmetry * column_asymmetry).sum()
    slope_weights = np.linalg.pinv(inner_products[:, :-1], hermitian=True) @ inner_products[:, -1]
    shift_asymmetry = sum(
        slope_weight * slope_asymmetry
        for slope_weight, slope_asymmetry in zip(slope_weights, slope_asymmetries, strict=True)
    )

    side_half = scale_to_unit_length(asymmetry - shift_asymmetry)
    values_half = centre_to_unit_length(centred_z_volume + centred_z_volume[::-1])
    return np.stack([side_half, values_half])


def subtract_mirror_image(volume: np.ndarray) -> np.ndarray:
    """A volume (x, y, z) minus its mirror image, (voxels,) float64."""
    return (volume - volume[::-1].astype(np.float64)).ravel()


class MeanVolume:
    """The mean volume of a map over people, (x, y, z) on the reduced grid, and the mean of their halves
    (`compute_mirror_halves`), which are those of the mean volume unless they are given: what a volume is compared
    with."""

    def __init__(self, mean_volume: np.ndarray, mean_mirror_halves: np.ndarray | None = None) -> None:
        self.mean_volume = np.asarray(mean_volume, np.float64)
        self.unit_length_mean_volume = centre_to_unit_length(self.mean_volume)  # (voxels,), mean 0
        if mean_mirror_halves is None:
            mean_mirror_halves = compute_mirror_halves(self.mean_volume)
        self.mean_mirror_halves = np.stack([scale_to_unit_length(mirror_half) for mirror_half in mean_mirror_halves])

    @cached_property
    def least_squares_weights(self) -> np.ndarray:
        """Least squares, (5, voxels): the products with a volume say how much it holds of the mean volume, of its
        slopes along x, y and z, and of a constant; a slightly shifted volume is made of these."""
        component_volumes = [self.mean_volume, *np.gradient(self.mean_volume), np.ones(self.mean_volume.shape)]
        components = np.stack(component_volumes).reshape(5, -1)  # (5, voxels)
        return np.linalg.pinv(components @ components.T, hermitian=True) @ components

    def compare_volume(self, volume: np.ndarray, volume_mirror_halves: np.ndarray) -> dict[str, float]:
        """`alike`, Fisher z of the correlation with a volume, whose halves (`compute_mirror_halves`) are given; the
        correlations with each half; how many mm the volume lies to the right, front and top."""
        mean_correlation = float((self.unit_length_mean_volume * centre_to_unit_length(volume)).sum())
        side_correlation, values_correlation = (volume_mirror_halves * self.mean_mirror_halves).sum(1).tolist()

        # how much of the mean volume, and of its slopes along x, y, z
        mean_gain, *axis_slopes, _ = (self.least_squares_weights * volume.ravel()).sum(1)
        shift_mm = -grids.REDUCED.spacing_mm * np.array(axis_slopes) / max(mean_gain, MIN_GAIN)
        shift_x_mm, shift_y_mm, shift_z_mm = shift_mm.tolist()
        return {
            "alike": compute_fisher_z(mean_correlation),
            "side": side_correlation,
            "values": values_correlation,
            "shift_x": shift_x_mm,
            "shift_y": shift_y_mm,
            "shift_z": shift_z_mm,
        }


@dataclass(frozen=True, eq=False)
class ScanMeans:
    """Means over people."""

    mean_volume_by_map: dict[str, MeanVolume]
    mean_edge_fisher_z: np.ndarray | None  # (edges,); None without connectomes
    common_region_numbers_by_map: dict[str, tuple[int, ...]]  # of the regions that nearly all people have

    @property
    def mean_volumes(self) -> np.ndarray:
        """(x, y, z, maps) float32."""
        mean_volumes = np.empty((*grids.REDUCED.shape, len(self.mean_volume_by_map)), np.float32)
        for map_index, map_mean in enumerate(self.mean_volume_by_map.values()):
            mean_volumes[..., map_index] = map_mean.mean_volume
        return mean_volumes


class ScanSums:
    """The scans of people, of whom each is compared with the means of those in other subsets.

    Sums are kept by subset and map: of people (subsets,), of volumes (subsets, maps, x, y, z) on the reduced grid, of
    halves (subsets, maps, 2, voxels), of those who lack a region (subsets, maps, regions), and of edges (subsets, 2,
    edges), with how many are known. Halves are turned to the sign of those before: any number of people may be turned.
    """

    def __init__(self, cohort: Cohort, record_indices: Iterable[int]) -> None:
        """For those whose records are at these positions; the first record of each person counts in the means."""
        self.cohort = cohort
        self.region_label_volume = load_region_atlas(cohort).region_labels
        first_index_by_subject = cohort.find_first_record_indices(record_indices)
        self.first_record_indices = set(first_index_by_subject.values())
        subset_count = min(MAX_SUBSETS, len(first_index_by_subject))
        self.subset_index_by_subject = {
            subject: subject_position % subset_count for subject_position, subject in enumerate(first_index_by_subject)
        }

        grid_shape = grids.REDUCED.shape
        half_shape = len(MIRROR_HALF_MEASURE_NAMES), np.prod(grid_shape)
        num_edges = cohort.connectomes.num_edges if cohort.connectomes else 0
        self.people_count_by_subset = np.zeros(subset_count, int)
        self.volume_sums = np.zeros((subset_count, cohort.num_maps, *grid_shape))
        self.mirror_half_sums = np.zeros((subset_count, cohort.num_maps, *half_shape))
        # (subsets, maps, regions + 1) by number of the region: people who lack it
        self.missing_region_counts = np.zeros((subset_count, cohort.num_maps, atlas.AAL_REGION_COUNT + 1), int)
        self.edge_sums_and_counts = np.zeros((subset_count, 2, num_edges))  # Fisher z, and people who have the edge

    def add_record(self, record_index: int, map_volumes: Iterable[np.ndarray]) -> None:
        """Adds the record at this position, with the volume (x, y, z) of each map. Raises InputError if its connectome
        cannot be read."""
        if record_index not in self.first_record_indices:
            return
        subset_index = self.subset_index_by_subject[self.cohort.rows[record_index].subject]
        if self.cohort.connectomes:
            (edge_fisher_z,) = self.cohort.connectomes[[record_index]]
            self.edge_sums_and_counts[subset_index] += np.nan_to_num(edge_fisher_z), np.isfinite(edge_fisher_z)
        self.people_count_by_subset[subset_index] += 1
        for map_index, volume in enumerate(map_volumes):
            reduced_volume = resampling.reduce_volume(volume)
            self.volume_sums[subset_index, map_index] += reduced_volume
            missing_region_numbers = find_uncovered_region_numbers(volume, self.region_label_volume)
            self.missing_region_counts[subset_index, map_index, missing_region_numbers] += 1
            earlier_half_sums = self.mirror_half_sums[:, map_index].sum(0)  # (2, voxels), of people before
            oriented_halves = orient_mirror_halves(compute_mirror_halves(reduced_volume), earlier_half_sums)
            self.mirror_half_sums[subset_index, map_index] += oriented_halves

    def compute_means(self, left_out_subset_index: int | None = None) -> ScanMeans:
        """The means over all subsets, or all but one. The mean volumes are rounded to float32, in which they are
        kept."""
        is_used_subset = np.array(
            [subset_index != left_out_subset_index for subset_index in range(len(self.people_count_by_subset))]
        )
        people_count = self.people_count_by_subset[is_used_subset].sum()
        mean_volumes = (self.volume_sums[is_used_subset].sum(0) / max(people_count, 1)).astype(np.float32)
        mirror_half_sums = self.mirror_half_sums[is_used_subset].sum(0)  # (maps, 2, voxels)
        region_people_counts = people_count - self.missing_region_counts[is_used_subset].sum(0)  # (maps, regions + 1)

        mean_volume_by_map = dict[str, MeanVolume]()
        common_region_numbers_by_map = dict[str, tuple[int, ...]]()
        for map_index, map_name in enumerate(self.cohort.map_names):
            # the halves of the mean of all people are computed from the mean volume, as wherever it is read again
            mean_halves = None if left_out_subset_index is None else mirror_half_sums[map_index]
            mean_volume_by_map[map_name] = MeanVolume(mean_volumes[map_index], mean_halves)
            is_common_region = region_people_counts[map_index, 1:] >= NEARLY_ALL_FRACTION * people_count
            common_region_numbers = np.flatnonzero(is_common_region) + 1
            common_region_numbers_by_map[map_name] = tuple(common_region_numbers.tolist())

        mean_edge_fisher_z = None
        if self.cohort.connectomes:
            edge_fisher_z_sums, edge_counts = self.edge_sums_and_counts[is_used_subset].sum(0)  # (edges,)
            mean_edge_fisher_z = (edge_fisher_z_sums / np.maximum(edge_counts, 1)).astype(np.float32)
        return ScanMeans(mean_volume_by_map, mean_edge_fisher_z, common_region_numbers_by_map)

    def measure_records(self, record_indices: Iterable[int]) -> tuple[pd.DataFrame, MissingRegions]:
        """`measure_against_means` of the records at these positions, each beside the means of the other subsets; empty
        if there are none."""
        if len(self.people_count_by_subset) < 2:
            return pd.DataFrame(), {}

        record_indices_by_subset: dict[int, list[int]] = {}
        record_count = 0
        for record_index in record_indices:
            subset_index = self.subset_index_by_subject[self.cohort.rows[record_index].subject]
            record_indices_by_subset.setdefault(subset_index, []).append(record_index)
            record_count += 1

        subset_measure_tables = list[pd.DataFrame]()
        missing_regions_by_record_and_map: MissingRegions = {}
        with open_progress_bar("Comparing", record_count) as progress_bar:
            for subset_index, subset_record_indices in record_indices_by_subset.items():
                reference_means = self.compute_means(left_out_subset_index=subset_index)
                subset_measure_table, subset_missing_regions = measure_against_means(
                    self.cohort, subset_record_indices, reference_means, progress_bar
                )
                subset_measure_tables.append(subset_measure_table)
                missing_regions_by_record_and_map |= subset_missing_regions
        measure_table = pd.concat(subset_measure_tables).sort_index()

        # most people are taken not to be turned
        mirror_half_columns = [column for column in measure_table if column[1] in MIRROR_HALF_MEASURE_NAMES]
        mirror_half_signs = np.where(measure_table[mirror_half_columns].median() < 0, -1, 1)
        measure_table[mirror_half_columns] *= mirror_half_signs
        return measure_table, missing_regions_by_record_and_map


def orient_mirror_halves(mirror_halves: np.ndarray, mirror_half_sums: np.ndarray) -> np.ndarray:
    """The halves (2, voxels) of a volume, each turned to the sign of those in sums (2, voxels) of others."""
    is_opposite = (mirror_halves * mirror_half_sums).sum(1, keepdims=True) < 0  # (2, 1)
    return np.where(is_opposite, -mirror_halves, mirror_halves)


def iterate_map_volumes(cohort: Cohort, record_index: int) -> Iterator[np.ndarray]:
    """The volume (x, y, z) of each map of a record; none of a cohort without maps."""
    return iter(np.moveaxis(cohort.read_volume(record_index), -1, 0)) if cohort.num_maps else iter(())


def measure_against_means(
    cohort: Cohort, record_indices: Iterable[int], reference_means: ScanMeans, progress_bar: ProgressBar
) -> tuple[pd.DataFrame, MissingRegions]:
    """The records at these positions beside the means of others: measures with columns (view, measure), and the regions
    that each record lacks, by map. Raises InputError, naming a file that cannot be read."""
    region_label_volume = load_region_atlas(cohort).region_labels
    measures_by_record: dict[int, dict[tuple[str, str], float]] = {}
    missing_regions_by_record_and_map: MissingRegions = {}
    for record_index in record_indices:
        value_by_column: dict[tuple[str, str], float] = {}  # by (view, measure)
        missing_regions_by_map: dict[str, list[int]] = {}
        for (map_name, mean_volume), volume in zip(
            reference_means.mean_volume_by_map.items(), iterate_map_volumes(cohort, record_index), strict=True
        ):
            reduced_volume = resampling.reduce_volume(volume)
            common_region_numbers = set(reference_means.common_region_numbers_by_map[map_name])
            uncovered_region_numbers = find_uncovered_region_numbers(volume, region_label_volume)
            missing_regions_by_map[map_name] = sorted(common_region_numbers.intersection(uncovered_region_numbers))

            map_measures = measure_reduced_volume(reduced_volume)
            map_measures |= mean_volume.compare_volume(reduced_volume, compute_mirror_halves(reduced_volume))
            map_measures["lacking_regions"] = len(missing_regions_by_map[map_name])
            for measure_name, value in map_measures.items():
                value_by_column[map_name, measure_name] = value

        if cohort.connectomes and reference_means.mean_edge_fisher_z is not None:
            (edge_fisher_z,) = cohort.connectomes[[record_index]]
            connectome_measures = measure_connectome(
                edge_fisher_z, reference_means.mean_edge_fisher_z, cohort.connectomes.parcel_index_pairs
            )
            for measure_name, value in connectome_measures.items():
                value_by_column[CONNECTOME_VIEW, measure_name] = value

        measures_by_record[record_index] = value_by_column
        missing_regions_by_record_and_map[record_index] = missing_regions_by_map
        progress_bar.advance()
    measure_table = pd.DataFrame.from_dict(measures_by_record, orient="index")
    return measure_table.reindex(list(measures_by_record)), missing_regions_by_record_and_map


def measure_reduced_volume(volume: np.ndarray) -> dict[str, float]:
    """Measures of a stored volume (x, y, z) on the reduced grid as a whole."""
    value_by_measure = measures.measure_stored_volume(volume, brain.find_brain_mask(volume), grids.REDUCED)
    logarithms = take_logarithms({"coverage": value_by_measure["coverage"], "roughness": value_by_measure["roughness"]})
    return value_by_measure | logarithms


def measure_connectome(
    person_edge_fisher_z: np.ndarray, mean_edge_fisher_z: np.ndarray, parcel_pairs: np.ndarray
) -> dict[str, float]:
    """Measures of a connectome (edges,) beside a mean one; NaN without any edge."""
    connectome_measures = edges.summarise_connectome(person_edge_fisher_z)
    parcel_count = parcel_pairs.max() + 1
    missing_parcel_fraction = len(edges.find_lacking_parcel_indices(person_edge_fisher_z, parcel_pairs)) / parcel_count

    is_measured_edge = ~np.isnan(person_edge_fisher_z)
    similarity_fisher_z = np.nan
    if is_measured_edge.any():
        unit_person_edges = centre_to_unit_length(person_edge_fisher_z[is_measured_edge])
        unit_mean_edges = centre_to_unit_length(mean_edge_fisher_z[is_measured_edge])
        similarity_fisher_z = compute_fisher_z((unit_person_edges @ unit_mean_edges).item())

    value_by_measure = {
        "mean_z": connectome_measures["mean_z"],
        "sd_z": connectome_measures["sd_z"],
        "alike": similarity_fisher_z,
        "lacking_parcels": missing_parcel_fraction,
    }
    return value_by_measure | take_logarithms({"mean_r": connectome_measures["mean_r"]})


def read_unconverted_measures(cohort: Cohort, record_indices: Sequence[int]) -> pd.DataFrame:
    """What is known of maps and series before their conversion, a row a record; no columns if nothing is."""
    subjects = [cohort.rows[record_index].subject for record_index in record_indices]
    if not cohort.tables_folder:
        return pd.DataFrame({}, index=list(record_indices))

    values_by_column: dict[tuple[str, str], np.ndarray] = {}  # by (view, measure)
    measure_table_by_map = measures.read_map_measures(cohort.tables_folder, subjects, cohort.map_names) or {}
    for map_name, map_measures in measure_table_by_map.items():
        map_sds = map_measures["sd"].clip(lower=measures.MIN_MEASURE_SPREAD)
        values_by_measure = {
            "mean_in_sds": map_measures["mean"] / map_sds,
            "level_in_sds": map_measures["background"] / map_sds,
        }
        values_by_measure |= take_logarithms(
            {"sd": map_sds, "mean": map_measures["mean"], "voxel_mm3": map_measures["voxel_mm3"]}
        )
        for measure_name, measure_values in values_by_measure.items():
            values_by_column[map_name, measure_name] = np.asarray(measure_values)
    if cohort.connectomes:
        series_table = edges.read_series_measures(cohort.tables_folder / SERIES_FILE, subjects)
        for measure_name, measure_values in take_logarithms(dict(series_table.items())).items():
            values_by_column[CONNECTOME_VIEW, measure_name] = measure_values
    return pd.DataFrame(values_by_column, index=list(record_indices))


def take_logarithms(numbers_by_measure: Mapping[str, Any]) -> dict[str, Any]:
    """The logarithms of numbers, or of columns of them; NaN where a number is not above 0."""
    return {
        f"log {measure_name}": np.log(np.where(np.asarray(numbers) > 0, numbers, np.nan))
        for measure_name, numbers in numbers_by_measure.items()
    }
