"""Edges of connectomes in a blackout: which belong to a region, and what takes their place.

A parcel belongs to the region that contains most of its voxels, an edge to the regions of its two parcels. With a
region, all its edges are replaced, by the same donors as its voxels (`fills.py`). Its `AlternativeInputValues` are:

`background`  Unknown, for which the network takes the mean of its training people.
`donor`       Those of another person; what the donor's scan lacks is unknown.
`expected`    The level that the rest of the person predicts, plus the donor's own deviation from the level that the
              rest of the donor predicts.

Edges are Fisher z, NaN where unknown. Those of all records are never in memory at once.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.connectomes import Connectomes
from data.cohorts.groups import find_group_leaders
from data.images.atlas import Atlas
from data.images.parcels import find_dominant_places

MAX_FITTING_PEOPLE = 1000  # whom expected edges are fitted on: bounds memory and time
EDGE_PENALTIES = np.logspace(-2, 2, 5)  # for features whose squares sum to about 2 in each person
RECORDS_PER_READ = 64  # of a cohort's connectomes read at once


class Replacement(NamedTuple):
    """An input of n records as a network is shown it, `input_values` (n, ...), and the `replacement_values` of its
    parts. These may broadcast, such as one value for each map (n, 1, 1, 1, maps), or be a function of the part's
    number. `selections` index the axes after the first: each is a mask (x, y, z), or the numbers of edges or values."""

    input_values: np.ndarray  # (n, ...), before the replacement
    # that broadcast to the input, or by the number of the selection
    replacement_values: np.ndarray | Callable[[int], np.ndarray]
    selections: Sequence[np.ndarray]  # a mask (x, y, z) each, or indices of edges or values

    def get_replacement_values(self, selection_number: int) -> np.ndarray:
        """What a part becomes, (n, size of the part, ...)."""
        if callable(self.replacement_values):
            return self.replacement_values(selection_number)
        return np.broadcast_to(self.replacement_values, self.input_values.shape)[:, self.selections[selection_number]]

    def apply_replacement(self, selection_number: int) -> np.ndarray:
        """The input with a part replaced."""
        replaced_input = self.input_values.copy()
        replaced_input[:, self.selections[selection_number]] = self.get_replacement_values(selection_number)
        return replaced_input


class AlternativeInputValues(NamedTuple):
    """What the regions of n records may contain: volumes, or arrays that broadcast to them, or edges (n, edges).
    Expected edges are a function of the region's place in the atlas, which returns (n, edges of the region)."""

    person_values: np.ndarray  # volumes or edges, (n, ...)
    background_values: np.ndarray  # broadcast to the volumes or edges
    donor_values: np.ndarray
    expected_values: np.ndarray | Callable[[int], np.ndarray]  # of edges by the position of the region


class RegionEdges:
    """The edges of each region, and what replaces them.

    `edge_indices_by_region` has the numbers of each region's edges. `region_index_by_parcel` (parcels,) is each
    parcel's region by its place in the atlas, the count of regions if it is in none. `region_means` are those of
    `Fills`.
    """

    def __init__(self, cohort: Cohort, atlas: Atlas, region_means: np.ndarray, seed: int):
        self.connectomes = require_connectomes(cohort)
        self.region_index_by_parcel = find_parcel_region_indices(self.connectomes, atlas)
        self.edge_indices_by_region = find_region_edge_indices(
            self.region_index_by_parcel, self.connectomes.parcel_index_pairs, len(atlas.region_numbers)
        )
        self._predict_expected_edges = ExpectedEdges(cohort, self.edge_indices_by_region, region_means, seed)

    def load_alternative_edges(
        self, record_indices: np.ndarray, donor_record_indices: np.ndarray
    ) -> list[AlternativeInputValues]:
        """The possible contents of the regions of records (n,) with their donors (donors, n), by donor."""
        person_edges = self.connectomes[record_indices]  # (n, edges)
        expected_edges_by_region = self._predict_expected_edges(record_indices, person_edges)
        unknown_edges = np.full_like(person_edges, np.nan)

        def shift_donor_edges(
            donor_edges: np.ndarray, expected_donor_edges_by_region: list[np.ndarray]
        ) -> Callable[[int], np.ndarray]:
            return lambda region_index: (
                donor_edges[:, self.edge_indices_by_region[region_index]]
                + expected_edges_by_region[region_index]
                - expected_donor_edges_by_region[region_index]
            )

        alternatives_by_donor = []
        for donor_batch_indices in donor_record_indices:
            donor_edges = self.connectomes[donor_batch_indices]
            expected_donor_edges_by_region = self._predict_expected_edges(donor_batch_indices, donor_edges)
            shifted_edges = shift_donor_edges(donor_edges, expected_donor_edges_by_region)
            alternatives_by_donor.append(
                AlternativeInputValues(person_edges, unknown_edges, donor_edges, shifted_edges)
            )
        return alternatives_by_donor


def require_connectomes(cohort: Cohort) -> Connectomes:
    """The connectomes of a cohort, which must have some."""
    if cohort.connectomes is None:
        raise ValueError(f"{cohort.path} has no connectomes")
    return cohort.connectomes


def find_parcel_region_indices(connectomes: Connectomes, atlas: Atlas) -> np.ndarray:
    """The place in the atlas of each parcel's region (parcels,). This region contains more of the parcel's voxels on
    the full grid than any other, and more than lie outside all regions. Without such a region, or without the image of
    the parcels, it is the count of regions."""
    outside_position = len(atlas.region_numbers)
    parcel_count = len(connectomes.parcel_names)
    if connectomes.parcel_image is None:
        return np.full(parcel_count, outside_position)
    parcel_image = np.where(connectomes.parcel_image > 0, connectomes.parcel_image - 1, parcel_count)
    return find_dominant_places(parcel_image, parcel_count, atlas.full_region_indices, outside_position)


def find_region_edge_indices(
    region_index_by_parcel: np.ndarray, parcel_indices_by_edge: np.ndarray, region_count: int
) -> list[np.ndarray]:
    """For each region the numbers of the edges of which a parcel is in it; `parcel_indices_by_edge` (edges, 2) are the
    parcels of each edge."""
    return [
        np.flatnonzero((region_index_by_parcel[parcel_indices_by_edge] == region_index).any(1))
        for region_index in range(region_count)
    ]


class ExpectedEdges:
    """What the rest of a person predicts of a region's edges, by kernel ridge regression. Features are all edges that
    do not touch the region, and the means of the other regions, both standardised and of equal weight.

    Fitted on training people, at most `MAX_FITTING_PEOPLE`, or on all if there are none. Those whom it is fitted on are
    predicted from fits without them, in closed form. Each region has the penalty that predicts them best. Unknown
    values count as the mean.
    """

    def __init__(self, cohort: Cohort, edge_indices_by_region: list[np.ndarray], region_means: np.ndarray, seed: int):
        self._edge_indices_by_region = edge_indices_by_region
        self._region_means = region_means
        fitting_record_indices, fitting_positions_by_person = choose_fitting_people(cohort, seed)
        self._fitting_position_by_record = {
            int(record_index): fitting_position for fitting_position, record_index in enumerate(fitting_record_indices)
        }
        fitting_edge_fisher_z = np.concatenate(
            [
                require_connectomes(cohort)[block_record_indices]
                for block_record_indices in split_into_batches(fitting_record_indices, RECORDS_PER_READ)
            ]
        )
        self._edge_centres_and_spreads = compute_centres_and_spreads(fitting_edge_fisher_z)
        self._region_mean_centres_and_spreads = compute_centres_and_spreads(
            region_means[fitting_record_indices].reshape(len(fitting_record_indices), -1)
        )
        self._fitting_features = self._make_ridge_features(fitting_edge_fisher_z, fitting_record_indices)
        kernel_matrix = self._fitting_features @ self._fitting_features.T
        self._ridge_fit_by_region = [
            self._fit_region(kernel_matrix, region_index, fitting_positions_by_person)
            for region_index in range(len(edge_indices_by_region))
        ]

    def __call__(self, record_indices: np.ndarray, edge_fisher_z: np.ndarray) -> list[np.ndarray]:
        """The expected edges of each region, (n, edges of the region), for records with these edges (n, edges)."""
        record_features = self._make_ridge_features(edge_fisher_z, record_indices)
        kernel_matrix = record_features @ self._fitting_features.T
        fitting_row_indices = []  # rows of records that it is fitted on
        fitting_positions = []  # where these are among those that it is fitted on
        for row_index, record_index in enumerate(map(int, record_indices)):
            if record_index in self._fitting_position_by_record:
                fitting_row_indices.append(row_index)
                fitting_positions.append(self._fitting_position_by_record[record_index])
        return [
            self._predict_region(
                region_index,
                record_features,
                kernel_matrix,
                np.array(fitting_row_indices, int),
                np.array(fitting_positions, int),
            )
            for region_index in range(len(self._ridge_fit_by_region))
        ]

    def _predict_region(
        self,
        region_index: int,
        record_features: np.ndarray,
        kernel_matrix: np.ndarray,
        fitting_row_indices: np.ndarray,
        fitting_positions: np.ndarray,
    ) -> np.ndarray:
        ridge_coefficients, leave_out_matrix = self._ridge_fit_by_region[region_index]

        # The kernel without the region's own features
        region_feature_columns = self._find_region_feature_columns(region_index)
        region_kernel = record_features[:, region_feature_columns] @ self._fitting_features[:, region_feature_columns].T
        predicted_edge_z_scores = (kernel_matrix - region_kernel) @ ridge_coefficients

        # Those whom it is fitted on are predicted without themselves
        left_out_errors = leave_out_matrix[fitting_positions] @ ridge_coefficients
        target_edge_z_scores = self._get_target_edge_z_scores(region_index)[fitting_positions]
        predicted_edge_z_scores[fitting_row_indices] = target_edge_z_scores - left_out_errors

        edge_indices = self._edge_indices_by_region[region_index]
        edge_centres, edge_spreads = self._edge_centres_and_spreads
        return predicted_edge_z_scores * edge_spreads[edge_indices] + edge_centres[edge_indices]

    def _fit_region(
        self, kernel_matrix: np.ndarray, region_index: int, fitting_positions_by_person: list[np.ndarray]
    ) -> tuple[np.ndarray, sparse.csr_array]:
        """The coefficients (records, edges of the region), and a matrix (records, records). Their product is how far
        each record is from its prediction without the same person's records. The matrix consists of the inverses of
        each person's block of the inverse kernel."""
        region_features = self._fitting_features[:, self._find_region_feature_columns(region_index)]
        remaining_kernel = kernel_matrix - region_features @ region_features.T
        target_edge_z_scores = self._get_target_edge_z_scores(region_index)
        least_squared_error = np.inf
        best_coefficients = target_edge_z_scores
        best_leave_out_matrix = sparse.csr_array(kernel_matrix.shape, dtype=np.float32)
        if not target_edge_z_scores.size:
            return best_coefficients, best_leave_out_matrix
        for ridge_penalty in EDGE_PENALTIES:
            inverse_kernel = invert_penalised_kernel(remaining_kernel, float(ridge_penalty))
            leave_out_matrix = invert_blocks(inverse_kernel, fitting_positions_by_person)
            ridge_coefficients = inverse_kernel @ target_edge_z_scores
            left_out_squared_error = float(np.square(leave_out_matrix @ ridge_coefficients).sum())
            if left_out_squared_error < least_squared_error:
                least_squared_error = left_out_squared_error
                best_coefficients = ridge_coefficients
                best_leave_out_matrix = leave_out_matrix
        return best_coefficients, best_leave_out_matrix

    def _make_ridge_features(self, edge_fisher_z: np.ndarray, record_indices: np.ndarray) -> np.ndarray:
        """Features (n, edges + regions x maps + 1) float32; in a record the squares of edges, and those of means, sum
        to about 1. The last is the intercept: without it, z-scores, whose sum over all people is 0, would reveal who is
        left out."""
        flat_region_means = self._region_means[record_indices].reshape(len(record_indices), -1)
        feature_blocks = (
            standardise_columns(edge_fisher_z, *self._edge_centres_and_spreads),
            standardise_columns(flat_region_means, *self._region_mean_centres_and_spreads),
            np.ones((len(record_indices), 1)),
        )
        return np.concatenate(
            [feature_block / np.sqrt(feature_block.shape[1]) for feature_block in feature_blocks],
            axis=1,
            dtype=np.float32,
        )

    def _find_region_feature_columns(self, region_index: int) -> np.ndarray:
        """The columns of the features of a region: its edges and, after all edges, its means."""
        edge_count = len(self._edge_centres_and_spreads[0])
        map_count = self._region_means.shape[-1]
        mean_columns = edge_count + region_index * map_count + np.arange(map_count)
        return np.append(self._edge_indices_by_region[region_index], mean_columns)

    def _get_target_edge_z_scores(self, region_index: int) -> np.ndarray:
        """The region's standardised edges of those whom it is fitted on."""
        edge_count = len(self._edge_centres_and_spreads[0])  # by whose root features are divided
        edge_features = self._fitting_features[:, self._edge_indices_by_region[region_index]]
        return edge_features * np.float32(np.sqrt(edge_count))


def choose_fitting_people(cohort: Cohort, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The records of the training people, or of some of them drawn at random, with those of a person one after another;
    and the positions of each person's records among these. If nobody is in training, all people are taken. A group
    counts as a person."""
    usable_record_indices = cohort.find_unswapped_record_indices()
    fitting_record_indices = [
        index for index in usable_record_indices if cohort.rows[index].split == "train"
    ] or usable_record_indices
    leader_by_subject = find_group_leaders((record_row.subject for record_row in cohort.rows), cohort.groups)
    record_indices_by_person: dict[str, list[int]] = {}
    for index in fitting_record_indices:
        record_indices_by_person.setdefault(leader_by_subject[cohort.rows[index].subject], []).append(index)
    person_record_indices = list(record_indices_by_person.values())
    if len(person_record_indices) > MAX_FITTING_PEOPLE:
        drawn_person_indices = np.random.default_rng(seed).choice(
            len(person_record_indices), MAX_FITTING_PEOPLE, replace=False
        )
        person_record_indices = [person_record_indices[index] for index in np.sort(drawn_person_indices)]
    person_end_positions = np.cumsum([len(record_indices) for record_indices in person_record_indices])
    positions_by_person = np.split(np.arange(person_end_positions[-1]), person_end_positions[:-1])
    return np.concatenate(person_record_indices), positions_by_person


def invert_blocks(square_matrix: np.ndarray, block_positions: list[np.ndarray]) -> sparse.csr_array:
    """The inverses of square blocks on the diagonal of a matrix (n, n), where these were, 0 elsewhere."""
    inverse_entries = []
    entry_positions = []
    for block_size in {len(positions) for positions in block_positions}:  # all of a size at once
        same_size_positions = np.stack([positions for positions in block_positions if len(positions) == block_size])
        row_column_indices = np.broadcast_arrays(same_size_positions[:, :, None], same_size_positions[:, None, :])
        inverse_entries.append(np.linalg.inv(square_matrix[*row_column_indices]).ravel())
        entry_positions.append(np.reshape(row_column_indices, (2, -1)))
    return sparse.csr_array(
        (np.concatenate(inverse_entries), np.concatenate(entry_positions, axis=1)), square_matrix.shape
    )


def compute_centres_and_spreads(column_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation (columns,) of the known values of each column (n, columns); 0 and 1 for a
    column without any, and 1 in place of a standard deviation of 0."""
    is_measured = ~np.isnan(column_values)
    measured_counts = np.maximum(is_measured.sum(0), 1)
    centres = np.where(is_measured, column_values, 0).sum(0, dtype=float) / measured_counts
    spreads = np.sqrt(np.square(np.where(is_measured, column_values - centres, 0)).sum(0) / measured_counts)
    return centres, np.where(spreads > 0, spreads, 1)


def standardise_columns(column_values: np.ndarray, centres: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """z-scores, 0 where unknown."""
    return np.nan_to_num((column_values - centres) / spreads)


def invert_penalised_kernel(kernel_matrix: np.ndarray, ridge_penalty: float) -> np.ndarray:
    """The inverse of a kernel (n, n) float32 plus a penalty on its diagonal."""
    cholesky_factor, _ = lapack.spotrf(
        kernel_matrix + np.float32(ridge_penalty) * np.eye(len(kernel_matrix), dtype=np.float32), lower=True
    )
    inverse_kernel, _ = lapack.spotri(cholesky_factor, lower=True)
    return np.tril(inverse_kernel) + np.tril(inverse_kernel, -1).T
