"""Ridge regression as a classifier: features and labels of training records -> weights and a bias that give log odds.

The penalty and the calibration are chosen in inner folds of the training records. A group of subjects, such as those
who share a scan, is on one side of each. What is fitted is how far a label, -1 or 1, is from the mean of its site. So
the effect of a scanner on features does not reveal how common autism is at its site.

Connectomes have many more edges than there are training records, which span few of their directions. Products of people
are enough to find these. They are summed over a block of people at a time: memory does not grow with the number of
edges times that of people.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import logit
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from data.base.effort import EFFORT
from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.connectomes import Connectomes
from data.cohorts.groups import find_group_leaders
from utils.scores.calibration import fit_platt

RIDGE_PENALTIES = np.logspace(1, 4, EFFORT.penalties)  # of squared weights, on features that are z-scored
MAX_EDGE_RECORDS = 5_000  # for training on connectomes; the time grows with their cube
MAX_CACHED_CLASSIFIERS = 8  # classifiers of edges that are kept in memory
# all edges together weigh as this many z-scored features, so that the same penalties fit any number of parcels
EQUIVALENT_FEATURE_COUNT = 1000
EDGE_BLOCK_BYTES = 2**27  # of people in memory at once
MIN_RELATIVE_VARIANCE = 1e-10  # of the greatest variance along an axis; below it is rounding
InnerFoldIndices = list[tuple[np.ndarray, np.ndarray]]  # positions of those who fit, and of those who are predicted


@dataclass(frozen=True)
class LinearClassifier:
    """`weights` (features,) and `bias` of the log odds of autism, float64."""

    weights: np.ndarray  # (features,), log odds of autism for a unit of each
    bias: float  # log odds of autism where all features are 0

    def predict_log_odds(self, features: np.ndarray) -> np.ndarray:
        """Features (n, features) -> (n,)."""
        return features @ self.weights + self.bias


def find_record_cluster_ids(cohort: Cohort, record_indices: np.ndarray) -> np.ndarray:
    """The cluster of each of the records at these positions: its subject, or the first subject of its group."""
    subjects = [cohort.rows[record_index].subject for record_index in record_indices]
    leader_by_subject = find_group_leaders(subjects, cohort.groups)
    return np.array([leader_by_subject[subject] for subject in subjects])


def read_labels_and_sites(cohort: Cohort, record_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and sites of the records at these positions, (n,) each."""
    rows = [cohort.rows[record_index] for record_index in record_indices]
    return np.array([row.label for row in rows]), np.array([row.site for row in rows])


def sample_training_indices(training_indices: np.ndarray) -> np.ndarray:
    """At most `MAX_EDGE_RECORDS` of the training records, drawn at random."""
    return np.sort(np.random.default_rng(0).permutation(training_indices)[:MAX_EDGE_RECORDS])


def make_inner_folds(label: np.ndarray, cluster: np.ndarray) -> InnerFoldIndices:
    """Folds of training records with these labels and groups of subjects (n,), each group in one of them; none if not
    every fold can have both classes."""
    clusters_by_class = [set(cluster[label == class_label]) for class_label in (0, 1)]
    if (fewest_clusters := min(map(len, clusters_by_class))) < 2:
        return []
    fold_indices = list(StratifiedGroupKFold(min(EFFORT.inner_folds, fewest_clusters)).split(label, label, cluster))
    return (
        fold_indices
        if all(len(set(label[side_indices])) == 2 for fold in fold_indices for side_indices in fold)
        else []
    )


def fit_ridge(
    features: np.ndarray, label: np.ndarray, site: np.ndarray, inner_folds: InnerFoldIndices
) -> LinearClassifier:
    """Ridge on features (n, features), with the penalty of the least squared error in the folds, calibrated over them.
    Without folds, the log odds are those of the labels alone."""
    return fit_ridge_and_leave_out(features, label, site, inner_folds)[0]


def fit_ridge_and_leave_out(
    features: np.ndarray, label: np.ndarray, site: np.ndarray, inner_folds: InnerFoldIndices
) -> tuple[LinearClassifier, np.ndarray]:
    """`fit_ridge`, and the calibrated log odds (n,) of each record by the fit on the other folds; NaN without folds."""
    if not inner_folds:
        return LinearClassifier(np.zeros(features.shape[1]), float(logit(label.mean()))), np.full(len(label), np.nan)
    if features.shape[1] > len(features):
        coordinates, axes = find_record_axes(features @ features.T)
        axis_classifier, left_out_logits = fit_ridge_and_leave_out(coordinates, label, site, inner_folds)
        return LinearClassifier(features.T @ (axes @ axis_classifier.weights), axis_classifier.bias), left_out_logits
    centred_label = centre_labels_within_sites(label, site)
    decision_values = np.empty((len(label), len(RIDGE_PENALTIES)))
    for fit_indices, left_out_indices in inner_folds:
        # (features, penalties)
        weights_by_penalty, bias_by_penalty = fit_ridge_path(features[fit_indices], centred_label[fit_indices])
        decision_values[left_out_indices] = features[left_out_indices] @ weights_by_penalty + bias_by_penalty
    best_penalty_index = np.square(decision_values - centred_label[:, None]).mean(0).argmin()
    weights_by_penalty, bias_by_penalty = fit_ridge_path(features, centred_label)
    slope, shift = fit_platt(decision_values[:, best_penalty_index], label)
    classifier = LinearClassifier(
        slope * weights_by_penalty[:, best_penalty_index], float(slope * bias_by_penalty[best_penalty_index] + shift)
    )
    return classifier, slope * decision_values[:, best_penalty_index] + shift


def centre_labels_within_sites(label: np.ndarray, site: np.ndarray) -> np.ndarray:
    """Labels as -1 and 1, minus their mean at the same site (n,); as they are if no site has both classes."""
    signed_label = 2 * label - 1
    centred_label = subtract_site_means(signed_label, site)
    return centred_label if centred_label.any() else signed_label


def subtract_site_means(values: np.ndarray, site: np.ndarray) -> np.ndarray:
    """Values (n, ...) minus their mean at the same site (n,)."""
    _, site_index, record_count_by_site = np.unique(site, return_inverse=True, return_counts=True)
    site_sums = np.zeros((len(record_count_by_site), *values.shape[1:]))
    np.add.at(site_sums, site_index, values)
    return values - (site_sums.T / record_count_by_site).T[site_index]


def find_record_axes(record_products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Products (n, n) of records -> their coordinates (n, rank) along orthonormal axes of what they span, and the
    weights (n, rank) of records in these axes. An L2 penalty does not change with the axes."""
    eigenvalues, eigenvectors = np.linalg.eigh(record_products)
    is_above_rounding = eigenvalues > MIN_RELATIVE_VARIANCE * eigenvalues[-1]
    axis_lengths = np.sqrt(eigenvalues[is_above_rounding])
    return eigenvectors[:, is_above_rounding] * axis_lengths, eigenvectors[:, is_above_rounding] / axis_lengths


def fit_ridge_path(features: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights (features, penalties) and the biases (penalties,), which are not penalised, of ridge regressions; one
    decomposition serves all penalties."""
    feature_means = features.mean(0)
    centred_features = features - feature_means
    eigenvalues, eigenvectors = np.linalg.eigh(centred_features.T @ centred_features)
    target_along_axes = eigenvectors.T @ (centred_features.T @ (target - target.mean()))
    weights_by_penalty = eigenvectors @ (target_along_axes[:, None] / (eigenvalues[:, None] + RIDGE_PENALTIES))
    return weights_by_penalty, target.mean() - feature_means @ weights_by_penalty


@dataclass(frozen=True, eq=False)
class EdgeScale:
    """z-scores of edges by training records, which together weigh as `EQUIVALENT_FEATURE_COUNT` features: `edge_means`
    and `weighted_inverse_sd` (edges,) float64; the scale of an edge that is constant there is 0. An unknown edge
    counts as the mean."""

    edge_means: np.ndarray  # (edges,), Fisher z
    weighted_inverse_sd: np.ndarray  # (edges,), 0 for a constant edge

    def standardise(self, edges: np.ndarray) -> np.ndarray:
        """Edges (n, edges) -> (n, edges) float64."""
        return np.nan_to_num((edges - self.edge_means) * self.weighted_inverse_sd)


@dataclass(frozen=True, eq=False)
class EdgeClassifier:
    """A linear classifier of scaled edges. `left_out_logit_by_record` are the log odds of the records that it was
    fitted on, by their positions in the cohort. Each is by the inner fit that left it out, and NaN without inner
    folds."""

    edge_scale: EdgeScale
    scaled_edge_classifier: LinearClassifier
    left_out_logit_by_record: dict[int, float]  # by index in the cohort; NaN without inner folds

    @property
    def edge_means_and_weights(self) -> np.ndarray:
        """The means of edges, and what their deviations from these weigh, (2, edges) float64."""
        return np.stack(
            [self.edge_scale.edge_means, self.edge_scale.weighted_inverse_sd * self.scaled_edge_classifier.weights]
        )

    def predict_log_odds(self, connectomes: Connectomes, record_indices: np.ndarray) -> np.ndarray:
        """The log odds of autism of the records at these positions (n,)."""
        return self.scaled_edge_classifier.bias + sum_edge_log_odds(
            self.edge_means_and_weights, connectomes, record_indices
        )


def sum_edge_log_odds(
    edge_means_and_weights: np.ndarray, connectomes: Connectomes, record_indices: np.ndarray
) -> np.ndarray:
    """What the edges of the records at these positions add to the log odds (n,), by
    `EdgeClassifier.edge_means_and_weights`; an unknown edge counts as the mean."""
    edge_means, edge_weights = edge_means_and_weights
    return np.concatenate(
        [np.nan_to_num(edges - edge_means) @ edge_weights for _, edges in read_edge_blocks(connectomes, record_indices)]
    )


def read_edge_blocks(connectomes: Connectomes, record_indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of the records (n,): their positions among these (block,), and their edges (block, edges) float64."""
    records_per_block = max(1, EDGE_BLOCK_BYTES // (np.dtype(float).itemsize * connectomes.num_edges))
    for positions in split_into_batches(np.arange(len(record_indices)), records_per_block):
        yield positions, connectomes[record_indices[positions]].astype(float)


def fit_edge_scale(connectomes: Connectomes, record_indices: np.ndarray) -> EdgeScale:
    """The scale by these training records."""
    finite_counts, edge_sums, square_sums = np.zeros((3, connectomes.num_edges))
    for _, edges in read_edge_blocks(connectomes, record_indices):
        finite_counts += np.isfinite(edges).sum(0)
        edge_sums += np.nansum(edges, 0)
        square_sums += np.nansum(np.square(edges), 0)
    edge_means = edge_sums / np.maximum(finite_counts, 1)
    edge_variances = np.maximum(square_sums - finite_counts * np.square(edge_means), 0) / len(record_indices)
    is_constant = edge_variances <= MIN_RELATIVE_VARIANCE * np.maximum(np.square(edge_means), MIN_RELATIVE_VARIANCE)
    weighted_inverse_sd = np.sqrt(
        EQUIVALENT_FEATURE_COUNT / connectomes.num_edges / np.where(is_constant, 1, edge_variances)
    )
    return EdgeScale(edge_means, np.where(is_constant, 0, weighted_inverse_sd))


CACHED_EDGE_CLASSIFIERS: dict[
    tuple, EdgeClassifier
] = {}  # the latest, by the records and labels that they were fitted on


def fit_or_reuse_edge_classifier(
    cohort: Cohort, connectomes: Connectomes, training_indices: np.ndarray
) -> EdgeClassifier:
    """`fit_ridge` on the connectomes of a cohort's training records, of at most `MAX_EDGE_RECORDS` drawn at random. If
    these are too few for inner folds, the log odds are those of the labels alone. Networks that are compared on the
    same people take the same one."""
    if not connectomes.digest_by_record:  # the edges have no digests to be known by
        return fit_edge_classifier(cohort, connectomes, training_indices)
    edges_key = (connectomes.path, connectomes.digest_by_record, MAX_EDGE_RECORDS)
    cache_key = (*edges_key, tuple(cohort.rows[index] for index in training_indices), cohort.groups)
    if cache_key not in CACHED_EDGE_CLASSIFIERS:
        for oldest_key in list(CACHED_EDGE_CLASSIFIERS)[: 1 - MAX_CACHED_CLASSIFIERS]:
            del CACHED_EDGE_CLASSIFIERS[oldest_key]
        CACHED_EDGE_CLASSIFIERS[cache_key] = fit_edge_classifier(cohort, connectomes, training_indices)
    return CACHED_EDGE_CLASSIFIERS[cache_key]


def fit_edge_classifier(cohort: Cohort, connectomes: Connectomes, training_indices: np.ndarray) -> EdgeClassifier:
    """`fit_or_reuse_edge_classifier`, anew."""
    record_indices = sample_training_indices(training_indices)
    label, site = read_labels_and_sites(cohort, record_indices)
    inner_folds = make_inner_folds(label, find_record_cluster_ids(cohort, record_indices))
    edge_scale = fit_edge_scale(connectomes, record_indices)
    record_products = np.empty((len(record_indices), len(record_indices)))
    with threadpool_limits(1, "blas"):  # more threads cost much where other programs run
        for positions, edges in read_edge_blocks(connectomes, record_indices):
            scaled_edges = edge_scale.standardise(edges)
            record_products[np.ix_(positions, positions)] = scaled_edges @ scaled_edges.T
            for earlier_positions, earlier_edges in read_edge_blocks(connectomes, record_indices[: positions[0]]):
                record_products[np.ix_(positions, earlier_positions)] = (
                    scaled_edges @ edge_scale.standardise(earlier_edges).T
                )
                record_products[np.ix_(earlier_positions, positions)] = record_products[
                    np.ix_(positions, earlier_positions)
                ].T
        coordinates, axes = find_record_axes(record_products)
        axis_classifier, left_out_logits = fit_ridge_and_leave_out(coordinates, label, site, inner_folds)
        record_weights = axes @ axis_classifier.weights
        edge_weights = np.zeros(connectomes.num_edges)
        for positions, edges in read_edge_blocks(connectomes, record_indices):
            edge_weights += record_weights[positions] @ edge_scale.standardise(edges)
    left_out_logit_by_record = dict(zip(record_indices.tolist(), left_out_logits.tolist(), strict=True))
    return EdgeClassifier(edge_scale, LinearClassifier(edge_weights, axis_classifier.bias), left_out_logit_by_record)
