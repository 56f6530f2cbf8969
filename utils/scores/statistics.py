"""Statistics of arrays: the AUC, log odds, percentile intervals by resampling people, intervals of several numbers."""

import warnings
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import logit
from scipy.stats import binomtest

from data.base.thresholds import CONFIDENCE_LEVEL
from utils.scores.results import MIN_BOOTSTRAP_SUBJECTS, UNDEFINED, Estimate

MIN_PROBABILITY_DISTANCE = 1e-7  # least distance of a probability from 0 and 1, for finite log odds
MAX_BLOCK_WEIGHTS = 4_000_000  # weights that a statistic gets at once, 32 MB
WeightedStatistic = Callable[[np.ndarray], np.ndarray]  # weights (k, n) -> (k, ...)


def bootstrap_percentile_interval(
    statistic: WeightedStatistic,
    subject_count: int,
    generator: np.random.Generator,
    resample_count: int,
    strata: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high end of the percentile interval of a statistic over `subject_count` subjects (Efron 1979).

    `statistic` takes weights (k, count) float64, how often each subject is drawn, of some of the resamples, and gives
    (k, ...). A matrix product with weights does for all regions at once what SciPy's bootstrap does by copying
    the subjects; resamples in which the statistic is undefined (NaN) are left out. With `strata` (count,) each resample
    draws as many subjects of each stratum as it has. Both ends are (...); NaN where no stratum has two subjects or no
    resample is defined.
    """
    subject_weights = draw_resample_weights(subject_count, generator, resample_count, strata)
    return compute_percentile_interval(statistic, subject_weights, strata)


def compute_percentile_interval(
    statistic: WeightedStatistic, subject_weights: np.ndarray, strata: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """`bootstrap_percentile_interval` of resamples that `draw_resample_weights` has drawn."""
    resampled_values = np.concatenate(
        [
            np.asarray(statistic(subject_weights[resample_slice].astype(np.float64)))
            for resample_slice in split_resamples(*subject_weights.shape)
        ]
    )
    if subject_weights.shape[1] < MIN_BOOTSTRAP_SUBJECTS or (
        strata is not None and np.unique(strata, return_counts=True)[1].max() < MIN_BOOTSTRAP_SUBJECTS
    ):
        undefined_ends = np.full(resampled_values.shape[1:], np.nan)
        return undefined_ends, undefined_ends
    tail_percent = 100 * (1 - CONFIDENCE_LEVEL) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        low, high = np.nanpercentile(resampled_values, (tail_percent, 100 - tail_percent), axis=0)
    return low, high


@lru_cache(maxsize=4)
def draw_seeded_resample_weights(
    subject_count: int, seed: int, resample_count: int, strata: tuple[str, ...] | None
) -> np.ndarray:
    """`draw_resample_weights` of a new generator; drawn once, since a test has many scores of the same people."""
    stratum_by_subject = None if strata is None else np.array(strata)
    subject_weights = draw_resample_weights(
        subject_count, np.random.default_rng(seed), resample_count, stratum_by_subject
    )
    subject_weights.flags.writeable = False
    return subject_weights


def draw_resample_weights(
    subject_count: int, generator: np.random.Generator, resample_count: int, strata: np.ndarray | None = None
) -> np.ndarray:
    """Weights (resamples, count) of whole numbers: how often each subject is drawn, within its stratum."""
    stratum_by_subject = np.zeros(subject_count) if strata is None else np.asarray(strata)
    subject_weights = np.empty((resample_count, subject_count), np.min_scalar_type(subject_count))
    for stratum_name in np.unique(stratum_by_subject):
        stratum_subject_indices = np.flatnonzero(stratum_by_subject == stratum_name)
        for resample_slice in split_resamples(resample_count, subject_count):
            draw_probabilities = np.full(len(stratum_subject_indices), 1 / len(stratum_subject_indices))
            subject_weights[resample_slice, stratum_subject_indices] = generator.multinomial(
                len(stratum_subject_indices), draw_probabilities, resample_slice.stop - resample_slice.start
            )
    return subject_weights


def split_resamples(resample_count: int, subject_count: int) -> list[slice]:
    """Slices of resamples of `subject_count` subjects, each as many as fit into memory at once."""
    resamples_per_block = max(1, MAX_BLOCK_WEIGHTS // max(subject_count, 1))
    return [
        slice(start, min(start + resamples_per_block, resample_count))
        for start in range(0, resample_count, resamples_per_block)
    ]


def permute_within_sites(
    cluster: np.ndarray, site: np.ndarray, order_count: int, generator: np.random.Generator
) -> np.ndarray:
    """Orders of people (order_count, subjects) in which clusters of as many people at the same sites change places, and
    people of one site within each cluster."""
    _, cluster_index_by_subject, cluster_sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    subjects_sorted_by_cluster = np.lexsort((site, cluster_index_by_subject))
    subject_orders = np.empty((order_count, len(cluster)), int)
    for cluster_size in np.unique(cluster_sizes):
        cluster_members = subjects_sorted_by_cluster[
            cluster_sizes[cluster_index_by_subject[subjects_sorted_by_cluster]] == cluster_size
        ].reshape(-1, cluster_size)  # a row of people for each cluster
        site_lists, site_list_index_by_cluster = np.unique(site[cluster_members], axis=0, return_inverse=True)
        for list_index, member_sites in enumerate(site_lists):
            # (clusters, subjects of each), indices of subjects
            exchangeable_members = cluster_members[site_list_index_by_cluster == list_index]
            permuted_positions = generator.permuted(
                np.tile(np.arange(len(exchangeable_members)), (order_count, 1)), axis=1
            )
            permuted_members = exchangeable_members[permuted_positions]  # (orders, clusters, subjects of each)
            for site_name in np.unique(member_sites) if cluster_size > 1 else ():
                permuted_members[..., member_sites == site_name] = generator.permuted(
                    permuted_members[..., member_sites == site_name], axis=2
                )
            subject_orders[:, exchangeable_members] = permuted_members
    return subject_orders


def compute_auc(label: np.ndarray, probability: np.ndarray, record_weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve (k,) under each of the weightings (k, n); NaN where a class is absent.

    The AUC is the share of pairs (one record of each class) in the right order; a pair with equal probabilities counts
    half. The weights of the controls below each probability are sums of sorted ones, which avoids a list of all pairs.
    """
    is_autism = label == 1
    is_control = label == 0
    autism_weights = record_weights[:, is_autism]
    control_order = np.argsort(probability[is_control])
    control_weights = record_weights[:, np.flatnonzero(is_control)[control_order]]

    # How many controls have a lower probability than each person with autism, and how many no higher one
    sorted_control_probabilities = probability[is_control][control_order]
    lower_counts = np.searchsorted(sorted_control_probabilities, probability[is_autism], side="left")
    no_higher_counts = np.searchsorted(sorted_control_probabilities, probability[is_autism], side="right")
    summed_control_weights = np.zeros((len(record_weights), control_weights.shape[1] + 1))  # of the first 0, 1, ...
    np.cumsum(control_weights, axis=1, out=summed_control_weights[:, 1:])
    weights_below = summed_control_weights[:, lower_counts]
    if (lower_counts != no_higher_counts).any():
        weights_below = (weights_below + summed_control_weights[:, no_higher_counts]) / 2

    pair_weight_sums = autism_weights.sum(1) * summed_control_weights[:, -1]
    with np.errstate(invalid="ignore"):
        return np.einsum("kn,kn->k", autism_weights, weights_below) / pair_weight_sums


def compute_mean_auc(
    label: np.ndarray, probability: np.ndarray, record_weights: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """AUC within each group, averaged over the groups that have both classes by their number of records, (k,)."""
    weighted_auc_sum = np.zeros(len(record_weights))
    weight_sum = np.zeros(len(record_weights))
    for group_name in np.unique(group):
        row_mask = group == group_name
        group_record_weights = record_weights[:, row_mask]
        group_auc = compute_auc(label[row_mask], probability[row_mask], group_record_weights)
        group_weight = np.where(np.isnan(group_auc), 0, group_record_weights.sum(1))
        weighted_auc_sum += group_weight * np.nan_to_num(group_auc)
        weight_sum += group_weight
    with np.errstate(invalid="ignore"):
        return weighted_auc_sum / weight_sum


def estimate_share(people_count: float, total_count: int) -> Estimate:
    """A share of people with the interval of Wilson (1927); undefined of nobody."""
    if not total_count:
        return UNDEFINED
    wilson_interval = binomtest(round(people_count), total_count).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return Estimate.from_numbers(people_count / total_count, wilson_interval.low, wilson_interval.high)


def to_log_odds(probability: np.ndarray) -> np.ndarray:
    """The log odds of probabilities (n,), finite for 0 and 1 too."""
    return logit(np.clip(probability, MIN_PROBABILITY_DISTANCE, 1 - MIN_PROBABILITY_DISTANCE))
