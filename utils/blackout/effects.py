"""Effects of occlusion per record; over subjects their intervals and p-values, adjusted for covariates.

A region that carries the age alone speaks for the true class if age goes with the diagnosis. So the covariates z are
regressed out of the label y and out of the effect d on the logit of autism, as `utils.scores.adjustment` says. The
adjusted effect is 2 (y - p(z)) (d - m(z)), with p and m by least squares.

Its mean is 0 if d is independent of y given z, where either p or m is right. This is the generalised covariance measure
(Shah & Peters 2020, Annals of Statistics 48:1514). Where covariates say nothing this is the effect on the true class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import stats

from data.cohorts.groups import SubjectGroups, find_group_leaders
from data.cohorts.rows import RecordRow
from utils.scores.adjustment import MIN_RESIDUAL_SHARE, Adjustment, compute_regression_residuals
from utils.scores.results import FAMILYWISE_ALPHA
from utils.scores.statistics import bootstrap_percentile_interval, permute_within_sites, split_resamples

RESAMPLE_COUNT = 5000
FLOAT32_TOLERANCE = 1e-5  # rounding error, in float32, of values between -1 and 1


@dataclass(frozen=True)
class RecordEffects:
    """Effects of a blackout by record, on the true class, and arrays that belong to them: `record_array_by_name`, by
    their names in `blackout.h5`. An input that the network does not read has none.

    Of each of `FILLS`: (records, regions) float64, on the logit; means over donors, with the control variate of
        `donors.compute_control_variate_mean` if the fill has `compute_region_levels`.
    `delta_probability`: (records, regions), the probability shown minus occluded with the background.
    `reliance_by_map`: (records, regions, maps) float32, `reliance` with the region of one map replaced; if edges of
        connectomes are replaced, edges alone are the last map; there are no maps if only one map is replaced.
    `region_means`: (records, regions, maps) float32, what people have in the regions, as the network reads it.
    `pair_reliance`: (records, pairs), `reliance` with the edges between two regions replaced (`connections.py`).
    `value_reliance`: (records, groups), `reliance` with a group of the phenotype's values replaced (`values.py`).
    `probability`: (records,) of autism with nothing occluded.

    An estimator has, of these, the fills of `column_setup.REGION_FILLS`, `region_means` as its inputs have them,
    `value_reliance` of groups of its columns, and `probability`; and
    `system_reliance`: (records, pairs), `reliance` with the edges between two systems replaced.
    `clipped_share`: (records,), in what share of the record's rows the probability was clipped.

    Subjects of one of the `linked_subject_groups`, who share a scan or are of one family, are one cluster in intervals
    and tests.
    """

    record_array_by_name: dict[str, np.ndarray]  # (records, ...) each, by the name in `blackout.h5`
    record_rows: Sequence[RecordRow]
    linked_subject_groups: SubjectGroups = ()

    def __getitem__(self, array_name: str) -> np.ndarray:
        return self.record_array_by_name[array_name]

    def __contains__(self, array_name: str) -> bool:
        return array_name in self.record_array_by_name

    @property
    def record_labels(self) -> np.ndarray:
        return np.array([record_row.label for record_row in self.record_rows])

    @property
    def record_subjects(self) -> list[str]:
        return [record_row.subject for record_row in self.record_rows]

    @property
    def record_cluster_leaders(self) -> np.ndarray:
        """For each record (records,) the first subject of its group, or its own subject if it is in none."""
        leader_by_subject = find_group_leaders(self.record_subjects, self.linked_subject_groups)
        return np.array([leader_by_subject[subject] for subject in self.record_subjects])

    @property
    def subject_cluster_numbers(self) -> np.ndarray:
        """The number of each subject's cluster (subjects,)."""
        _, first_record_indices = np.unique(self.record_subjects, return_index=True)
        return np.unique(self.record_cluster_leaders[first_record_indices], return_inverse=True)[1]

    def average_subject_records(self, record_values: np.ndarray) -> np.ndarray:
        """The means over each subject's records, (records, ...) -> (subjects, ...)."""
        return average_by_subject(record_values, self.record_subjects)


def join_fold_effects(effects_by_fold: Sequence[RecordEffects]) -> RecordEffects:
    """The effects of all folds, one fold after another."""
    record_array_by_name = {}
    for array_name in effects_by_fold[0].record_array_by_name:
        fold_arrays = [fold_effects[array_name] for fold_effects in effects_by_fold]
        record_array_by_name[array_name] = np.concatenate(fold_arrays)
    record_rows = [record_row for fold_effects in effects_by_fold for record_row in fold_effects.record_rows]
    return RecordEffects(record_array_by_name, record_rows)


def average_repeat_effects(effects_by_repeat: Sequence[RecordEffects]) -> RecordEffects:
    """The mean effects of each record over repeats, which may have the records in another order."""
    # The order of the first repeat holds for all
    record_rows = effects_by_repeat[0].record_rows
    record_order_by_repeat = []
    for repeat_effects in effects_by_repeat:
        record_index_by_file = {
            record_row.file: record_index for record_index, record_row in enumerate(repeat_effects.record_rows)
        }
        record_order_by_repeat.append([record_index_by_file[record_row.file] for record_row in record_rows])

    mean_array_by_name = {}
    for array_name in effects_by_repeat[0].record_array_by_name:
        reordered_arrays = [
            repeat_effects[array_name][record_order]
            for repeat_effects, record_order in zip(effects_by_repeat, record_order_by_repeat, strict=True)
        ]
        mean_array_by_name[array_name] = np.mean(reordered_arrays, axis=0)
    return RecordEffects(mean_array_by_name, record_rows)


def average_by_subject(record_values: np.ndarray, record_subjects: Sequence[str]) -> np.ndarray:
    """Means over the records of each subject, (records, ...) -> (subjects, ...), subjects in sorted order."""
    _, subject_number_by_record = np.unique(record_subjects, return_inverse=True)
    subject_values = np.zeros((subject_number_by_record.max() + 1, *record_values.shape[1:]))
    np.add.at(subject_values, subject_number_by_record, record_values)
    record_counts = np.bincount(subject_number_by_record)  # (subjects,)
    subject_values /= record_counts.reshape(-1, *[1] * (record_values.ndim - 1))
    return subject_values


def sum_by_group(subject_values: np.ndarray, group_numbers: np.ndarray | None) -> np.ndarray:
    """The sums over the subjects of each group, (subjects, ...) -> (groups, ...); `group_numbers` (subjects,) is the
    number of each subject's group, None if each subject is a group."""
    if group_numbers is None:
        return subject_values
    group_sums = np.zeros((group_numbers.max() + 1, *subject_values.shape[1:]))
    np.add.at(group_sums, group_numbers, subject_values)
    return group_sums


def inflate_spread(effects_by_subject_and_feature: np.ndarray, spread_factor: float) -> np.ndarray:
    """Effects (subjects, features) with the same means, and `spread_factor` times as far from them."""
    mean_effects = effects_by_subject_and_feature.mean(0)
    return mean_effects + spread_factor * (effects_by_subject_and_feature - mean_effects)


def bootstrap_mean_interval(
    effects_by_subject_and_feature: np.ndarray, seed: int, cluster_numbers: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean effects with the low and high ends of their bootstrap intervals, (features,) each.
    Subjects of the same cluster (`cluster_numbers`, as `group_numbers` of `sum_by_group`) are drawn together."""
    cluster_effect_sums = sum_by_group(effects_by_subject_and_feature, cluster_numbers)  # (clusters, features)
    cluster_sizes = sum_by_group(np.ones(len(effects_by_subject_and_feature)), cluster_numbers)  # (clusters,)

    def average_drawn_clusters(resampling_weights: np.ndarray) -> np.ndarray:
        return resampling_weights @ cluster_effect_sums / (resampling_weights @ cluster_sizes)[:, None]

    rng = np.random.default_rng(seed)
    interval_lows, interval_highs = bootstrap_percentile_interval(
        average_drawn_clusters, len(cluster_effect_sums), rng, RESAMPLE_COUNT
    )
    return effects_by_subject_and_feature.mean(0), interval_lows, interval_highs


class FamilyTest(NamedTuple):
    """A test of features that are tested together. NaN where labels do not differ."""

    family_wise_p: np.ndarray  # (features,)
    false_discovery_q: np.ndarray  # (features,)
    t_statistics: np.ndarray  # (features,)
    critical_t: float  # from which on a feature is significant


def run_family_permutation_test(
    adjusted_effects: "AdjustedEffects",
    seed: int,
    cluster_numbers: np.ndarray | None = None,
    mean_sd_inflation: float = 1,
    permutation_count: int = RESAMPLE_COUNT,
    permutation_sites: np.ndarray | None = None,
) -> FamilyTest:
    """One-sided p-values: whether features speak for the true class.

    If a feature says nothing of the label beyond the covariates, anybody could have anybody's label. So the residuals
    of labels are permuted over subjects, alike for all features, which keeps the dependence between these. Effects may
    be skewed and classes unequal. People of the same cluster (`cluster_numbers`, as `group_numbers` of `sum_by_group`)
    stay together and change places with clusters of as many people. `mean_sd_inflation` is how much wider the spread
    of a mean is than that of independent people.

    With `permutation_sites` (subjects,) labels change places only within a site: how residuals of labels are spread
    depends on the share of autism at a site, and effects may be larger at some sites.

    p compares the studentised covariance with the largest over features (Winkler et al. 2014). It is studentised since
    effects of one class may vary more (Chung & Romano 2013, Annals of Statistics 41:484). q is that of Benjamini &
    Hochberg (1995). NaN if labels do not differ.
    """
    label_residuals = adjusted_effects.label_residuals - adjusted_effects.label_residuals.mean(0)
    feature_count = adjusted_effects.effect_residuals.shape[1]
    if np.ptp(label_residuals, axis=0).min() <= MIN_RESIDUAL_SHARE:
        undefined_values = np.full(feature_count, np.nan)
        return FamilyTest(undefined_values, undefined_values, undefined_values, np.nan)
    label_residuals = label_residuals.astype(np.float32)
    effect_residuals = standardise_effect_residuals(adjusted_effects.effect_residuals).astype(np.float32)

    # What is observed. Its spread is wider than residuals suggest, and than that of a mean of independent people.
    subject_count = len(label_residuals)
    if cluster_numbers is None:
        cluster_numbers = np.arange(subject_count)
    observed_order = np.arange(subject_count)[None]  # (1, subjects)
    observed_sums = compute_studentised_sums(label_residuals, effect_residuals, cluster_numbers, observed_order)[0]
    observed_complements = np.sqrt(np.maximum(1 - np.square(observed_sums), 0))
    observed_sums /= np.hypot(
        observed_sums, mean_sd_inflation * adjusted_effects.residual_sd_inflation * observed_complements
    )

    # How often permuted labels reach that, for the same feature and for any
    exceeding_permutation_counts = np.ones(feature_count)
    largest_sum_blocks = []
    for permuted_sums in iterate_permuted_sums(
        label_residuals, effect_residuals, cluster_numbers, seed, permutation_count, permutation_sites
    ):
        exceeding_permutation_counts += (permuted_sums >= observed_sums - FLOAT32_TOLERANCE).sum(0)
        largest_sum_blocks.append(permuted_sums.max(1))
    sorted_largest_sums = np.sort(np.concatenate(largest_sum_blocks))  # (permutations,)
    larger_maxima_counts = len(sorted_largest_sums) - np.searchsorted(
        sorted_largest_sums, observed_sums - FLOAT32_TOLERANCE
    )

    cluster_count = len(np.unique(cluster_numbers))
    critical_sum = np.quantile(sorted_largest_sums, 1 - FAMILYWISE_ALPHA)
    return FamilyTest(
        family_wise_p=(1 + larger_maxima_counts) / (1 + permutation_count),
        false_discovery_q=stats.false_discovery_control(exceeding_permutation_counts / (1 + permutation_count)),
        t_statistics=convert_to_t(observed_sums, cluster_count),
        critical_t=float(convert_to_t(critical_sum, cluster_count)),
    )


def standardise_effect_residuals(effect_residuals: np.ndarray) -> np.ndarray:
    """Residuals (subjects, features) with mean 0 and mean square 1; 0 for a feature without any effect, which has no
    evidence."""
    centred_residuals = effect_residuals - effect_residuals.mean(0)
    root_mean_squares = np.sqrt(np.square(centred_residuals).mean(0))
    is_constant = root_mean_squares <= MIN_RESIDUAL_SHARE * np.abs(effect_residuals).max(0)
    root_mean_squares[is_constant] = np.inf
    return centred_residuals / root_mean_squares


def iterate_permuted_sums(
    label_residuals: np.ndarray,
    effect_residuals: np.ndarray,
    cluster_numbers: np.ndarray,
    seed: int,
    permutation_count: int,
    permutation_sites: np.ndarray | None,
) -> Iterator[np.ndarray]:
    """The `compute_studentised_sums` (permutations, features) of permuted labels, as many at a time as fit into memory.
    Labels change places within a site if `permutation_sites` (subjects,) are given."""
    subject_count = len(label_residuals)
    if permutation_sites is None:
        site_numbers = np.zeros(subject_count, int)
    else:
        site_numbers = np.unique(permutation_sites, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    for permutation_block in split_resamples(permutation_count, subject_count):
        block_size = permutation_block.stop - permutation_block.start
        permutation_orders = permute_within_sites(cluster_numbers, site_numbers, block_size, rng)
        yield compute_studentised_sums(label_residuals, effect_residuals, cluster_numbers, permutation_orders)


def convert_to_t(studentised_values: np.ndarray, cluster_count: int) -> np.ndarray:
    """A studentised covariance between -1 and 1 as a t statistic of `cluster_count` clusters."""
    return (
        np.sqrt(cluster_count)
        * studentised_values
        / np.sqrt(np.maximum(1 - np.square(studentised_values), FLOAT32_TOLERANCE))
    )


def compute_studentised_sums(
    label_residuals: np.ndarray,
    effect_residuals: np.ndarray,
    cluster_numbers: np.ndarray,
    permutation_orders: np.ndarray,  # (k, subjects) int
) -> np.ndarray:
    """Sums (k, features) of the products of effects (subjects, features) with labels (subjects, 1 or features) in the
    orders `permutation_orders` (k, subjects) int. Each is divided by the root of the number of clusters times the sum
    of squares over clusters, so that it rises with the studentised sum and lies between -1 and 1."""
    first_relative_indices, second_relative_indices = find_relative_pairs(cluster_numbers)
    doubled_effect_products = (
        2 * effect_residuals[first_relative_indices] * effect_residuals[second_relative_indices]
    )  # (pairs of relatives, features)
    squared_effects = np.square(effect_residuals)
    cluster_count = (np.bincount(cluster_numbers) > 0).sum()
    studentised_sums = np.empty((len(permutation_orders), effect_residuals.shape[1]), np.float32)
    for label_column_index, column_label_residuals in enumerate(label_residuals.T):
        # One column of labels is that of all features
        feature_columns = slice(None) if label_residuals.shape[1] == 1 else [label_column_index]
        permuted_labels = column_label_residuals[permutation_orders]  # (k, subjects)
        studentised_sums[:, feature_columns] = permuted_labels @ effect_residuals[:, feature_columns]

        # The square of a cluster's sum is that of squares, and of twice the products of its relatives
        relative_products = (
            permuted_labels[:, first_relative_indices] * permuted_labels[:, second_relative_indices]
        ) @ doubled_effect_products[:, feature_columns]
        squared_labels = np.square(permuted_labels, out=permuted_labels)  # in place, to save memory
        squared_norms = relative_products + squared_labels @ squared_effects[:, feature_columns]
        studentised_sums[:, feature_columns] /= np.sqrt(cluster_count * np.maximum(squared_norms, FLOAT32_TOLERANCE))
    return studentised_sums


def find_relative_pairs(cluster_numbers: np.ndarray) -> np.ndarray:
    """All pairs of subjects of the same cluster, (2, pairs) int."""
    # In the order of clusters, relatives are less than the size of the largest cluster apart
    cluster_sorted_subjects = np.argsort(cluster_numbers, kind="stable")
    subject_count = len(cluster_sorted_subjects)
    relative_pair_blocks = [np.empty((2, 0), int)]
    for shift in range(1, np.bincount(cluster_numbers).max()):
        subject_pairs = np.stack([cluster_sorted_subjects[: subject_count - shift], cluster_sorted_subjects[shift:]])
        is_same_cluster = cluster_numbers[subject_pairs[0]] == cluster_numbers[subject_pairs[1]]
        relative_pair_blocks.append(subject_pairs[:, is_same_cluster])
    return np.hstack(relative_pair_blocks)


class AdjustedEffects(NamedTuple):
    """What covariates leave of effects. Regressions fit noise, too. So the spread of the covariance of residuals is
    `residual_sd_inflation` times what the residuals suggest."""

    true_class_effects: np.ndarray  # (subjects, features), on the logit, adjusted
    label_residuals: np.ndarray  # (subjects, 1 or features)
    effect_residuals: np.ndarray  # (subjects, features), of effects on the logit of autism
    residual_sd_inflation: np.ndarray  # (features,), a factor

    def select_subjects(self, is_selected: np.ndarray) -> "AdjustedEffects":
        """The same for the subjects in `is_selected` (subjects,) bool."""
        return AdjustedEffects(
            self.true_class_effects[is_selected],
            self.label_residuals[is_selected],
            self.effect_residuals[is_selected],
            self.residual_sd_inflation,
        )


@dataclass(frozen=True)
class CovariateAdjuster:
    """Effects on the true class -> the same, adjusted for covariates; `subject_labels` (subjects,) has the order of
    `adjustment`."""

    adjustment: Adjustment
    subject_labels: np.ndarray  # (subjects,), 1 for autism

    def make_unadjusted_effects(self, true_class_effects: np.ndarray) -> AdjustedEffects:
        """Effects (subjects, features) without any adjustment."""
        autism_logit_effects = np.where(self.subject_labels == 1, 1, -1)[:, None] * true_class_effects
        return AdjustedEffects(
            true_class_effects,
            self.subject_labels[:, None].astype(float),
            autism_logit_effects,
            np.ones(true_class_effects.shape[1]),
        )

    def __call__(self, true_class_effects: np.ndarray) -> AdjustedEffects:
        """Adjusted effects (subjects, features), on the same scale. Regressions fit noise, too. So the mean of the
        products of residuals is their sum over n - k. The distances of subjects from it are as in HC2 (MacKinnon &
        White 1985)."""
        unadjusted_effects = self.make_unadjusted_effects(true_class_effects)
        if self.adjustment.no_adjustment_reason:
            return unadjusted_effects
        label_term_indices = self.adjustment.select_term_indices(self.subject_labels)
        compute_basis = cache(self.adjustment.make_basis_with_terms)  # cached, as many features follow the same terms
        label_residuals = compute_regression_residuals(
            self.subject_labels, compute_basis(frozenset(label_term_indices))
        )
        adjusted_effects = np.empty(true_class_effects.shape)
        effect_residuals = np.empty(true_class_effects.shape)
        residual_sd_inflation = np.empty(true_class_effects.shape[1])
        for feature_index, feature_effects in enumerate(unadjusted_effects.effect_residuals.T):
            # Label and effect are regressed on the terms that either of them follows
            effect_term_indices = self.adjustment.select_term_indices(feature_effects)
            covariate_basis = compute_basis(frozenset(label_term_indices | effect_term_indices))  # (subjects, terms)
            labels_and_effects = np.column_stack([self.subject_labels, feature_effects])
            refitted_residuals = compute_regression_residuals(labels_and_effects, covariate_basis)  # (subjects, 2)
            effect_residuals[:, feature_index] = refitted_residuals[:, 1]
            residual_products = refitted_residuals[:, 0] * effect_residuals[:, feature_index]

            # The mean is that of the products; how far subjects are from it, that of the corrected products
            leverages = np.square(covariate_basis).sum(axis=1)
            corrected_products = residual_products / np.sqrt(np.maximum(1 - leverages, MIN_RESIDUAL_SHARE))
            recentred_products = residual_products.mean() + corrected_products - corrected_products.mean()

            subject_count, term_count = covariate_basis.shape
            residual_df = subject_count - term_count
            adjusted_effects[:, feature_index] = recentred_products
            adjusted_effects[:, feature_index] *= 2 * subject_count / max(residual_df, 1)
            residual_sd_inflation[feature_index] = np.sqrt(subject_count / (residual_df + 1))
        return AdjustedEffects(adjusted_effects, label_residuals[:, None], effect_residuals, residual_sd_inflation)
