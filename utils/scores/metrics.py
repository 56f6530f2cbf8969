"""Test metrics with 95 % intervals over subjects.

An interval is a bootstrap over subjects (`bootstrap_percentile_interval`). The models of several folds share training
subjects. Each pair of subjects then meets twice: each of them helps to train the model that tests the other. What they
have in common moves the score twice. Resampling, which leaves the models as they are, sees it once. If models read
noise, the variance is therefore twice that of the bootstrap; Nadeau & Bengio (2003, Machine Learning 52:239) correct
that of k folds by nearly the same, 1 + k / (k - 1). `Predictions.compute_interval_widening` says how much wider an
interval is made. `tests/benchmarks/coverage.py` counts how often it then contains the truth: the mean score on fresh
people of models trained on as many.
"""

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from data.base.effort import EFFORT
from data.base.thresholds import CONFIDENCE_LEVEL, MIN_CLASS_SUBJECTS
from data.cohorts.peers import (
    MAX_LOST_SUBJECT_SHARE,
    MAX_PULL_LOG_ODDS,
    compute_pull_log_odds,
    mark_records_in_mixed_groups,
    number_site_folds,
)
from utils.scores.results import (
    CHANCE_AUC,
    SAME_SCAN_COLUMN,
    THRESHOLD,
    TITLE_BY_AUC,
    Estimate,
    compute_bonferroni_widening,
)
from utils.scores.statistics import (
    WeightedStatistic,
    compute_auc,
    compute_mean_auc,
    compute_percentile_interval,
    draw_seeded_resample_weights,
)

# columns of `predictions.csv` that are read
SCORED_PREDICTION_COLUMNS = ("label", "probability", "subject", "site", "fold", SAME_SCAN_COLUMN)
# The least and the greatest value of each metric, to which its interval is cut
RANGE_BY_METRIC = {
    "accuracy": (0.0, 1.0),
    "balanced_accuracy": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "specificity": (0.0, 1.0),
    "precision": (0.0, 1.0),
    "f_score": (0.0, 1.0),
    "brier": (0.0, 1.0),
    **dict.fromkeys(TITLE_BY_AUC, (0.0, 1.0)),
}
WeightedStatistics = Callable[[np.ndarray], dict[str, np.ndarray]]  # weights of the records (k, n) -> (k,) each


class RepeatToScore(NamedTuple):
    """What one repeat of a test is scored by: label (n,) and probability (n,) of autism, and the `groups_by_auc` (n,)
    within which AUCs are taken, if there are several, by the name of that AUC."""

    label: np.ndarray  # (records,), 1 autism, 0 control
    probability: np.ndarray  # (records,), of autism
    groups_by_auc: dict[str, np.ndarray]  # by name of an AUC: the group of each record (records,)


# weights of the records (k, n) -> each score (k,)
RepeatScorer = Callable[[RepeatToScore, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Records whose label is known, and what a classifier predicts of them in each repeat of a test.

    Of each record (n,): `label`, 1 autism, 0 control; `subject`; `site`; `cluster`, its subject, or the first of a
    group of subjects, who are drawn together. Of each repeat and record (repeats, n): the probability of autism, and
    the fold, which is the model that predicted it. Every score is the mean over repeats; the intervals are those of the
    folds of the first one. There, `training_cluster_counts` (n,) says how many clusters of the test were in the
    training of a record's model; they are 0 if all records have one model. `in_small_sites`: whether sites are so small
    (`compute_pull_log_odds`), in any repeat, that the AUC within sites compares people of one fold only.
    """

    label: np.ndarray  # (records,), 1 autism, 0 control
    subject: np.ndarray  # (records,), IDs
    site: np.ndarray  # (records,), names
    cluster: np.ndarray  # (records,), ID of the subject, or of the first of its group
    probabilities: np.ndarray  # (repeats, records), of autism
    fold_names: np.ndarray  # (repeats, records)
    # (records,), clusters of the test that trained the model of a record; 0 with a single model
    training_cluster_counts: np.ndarray
    in_small_sites: bool  # whether sites are so small that the AUC within sites compares people of one fold only

    @classmethod
    def from_tables(cls, *repeat_tables: pd.DataFrame) -> "Predictions":
        """From tables with the columns of `predictions.csv`, one a repeat, of the same records in the same order, no
        label unknown. If a column is missing, all records are of one site or of one fold, or each subject is a
        cluster."""
        complete_tables = [
            repeat_table.reindex(columns=SCORED_PREDICTION_COLUMNS, fill_value="") for repeat_table in repeat_tables
        ]
        first_table = complete_tables[0]
        label = first_table["label"].to_numpy()
        site = first_table["site"].to_numpy()
        subject = first_table["subject"].to_numpy()
        cluster_leader_ids = first_table[SAME_SCAN_COLUMN]
        cluster = np.where(cluster_leader_ids.isna() | (cluster_leader_ids == ""), subject, cluster_leader_ids)

        probabilities = np.stack([complete_table["probability"].to_numpy() for complete_table in complete_tables])
        fold_names = np.stack([complete_table["fold"].to_numpy() for complete_table in complete_tables])

        # The clusters of all other folds trained the model of a fold, of the first repeat
        first_repeat_folds = fold_names[0]  # (records,)
        first_record_indices, _ = find_first_and_inverse_indices(cluster)
        cluster_count_by_fold = Counter(first_repeat_folds[first_record_indices].tolist())
        training_cluster_counts = np.array(
            [
                cluster_count_by_fold.total() - cluster_count_by_fold[fold_name]
                for fold_name in first_repeat_folds.tolist()
            ]
        )

        in_small_sites = any(
            compute_pull_log_odds(label, site, repeat_folds) > MAX_PULL_LOG_ODDS for repeat_folds in fold_names
        )
        return cls(
            label=label.astype(float),
            subject=subject,
            site=site,
            cluster=cluster,
            probabilities=probabilities.astype(float),
            fold_names=fold_names,
            training_cluster_counts=training_cluster_counts,
            in_small_sites=in_small_sites,
        )

    @property
    def mean_probability(self) -> np.ndarray:
        """The mean over repeats (n,)."""
        return self.probabilities.mean(0)

    @cached_property
    def peer_groups(self) -> np.ndarray:
        """Whom the AUC within sites compares, in each repeat (repeats, n): people of one site, or of one fold there."""
        return np.stack(
            [
                number_site_folds(self.site, repeat_folds) if self.in_small_sites else self.site
                for repeat_folds in self.fold_names
            ]
        )

    @cached_property
    def repeats_to_score(self) -> tuple[RepeatToScore, ...]:
        """What each repeat is scored by."""
        has_several_sites = len(np.unique(self.site)) > 1
        repeats_to_score = []
        for probability, repeat_folds, repeat_peer_groups in zip(
            self.probabilities, self.fold_names, self.peer_groups, strict=True
        ):
            groups_by_auc: dict[str, np.ndarray] = {}
            if has_several_sites:
                groups_by_auc["auc_sites"] = repeat_peer_groups
            if len(np.unique(repeat_folds)) > 1:
                groups_by_auc["auc_folds"] = repeat_folds
            repeats_to_score.append(RepeatToScore(self.label, probability, groups_by_auc))
        return tuple(repeats_to_score)

    @property
    def first_repeat_groups_by_auc(self) -> dict[str, np.ndarray]:
        """The groups of the first repeat."""
        return self.repeats_to_score[0].groups_by_auc

    @property
    def first_records_and_subject_indices(self) -> tuple[np.ndarray, np.ndarray]:
        """The first record of each subject (subjects,), and the place of each record's subject there (n,)."""
        return find_first_and_inverse_indices(self.subject)

    @cached_property
    def first_records_and_cluster_indices(self) -> tuple[np.ndarray, np.ndarray]:
        """The same as `first_records_and_subject_indices` for clusters, which a bootstrap draws as units."""
        return find_first_and_inverse_indices(self.cluster)

    @property
    def uncompared_subject_count(self) -> int:
        """How many subjects have only peers of one class, in every repeat."""
        # (repeats, records)
        is_uncompared = [
            ~mark_records_in_mixed_groups(self.label, repeat_peer_groups) for repeat_peer_groups in self.peer_groups
        ]
        is_always_uncompared = np.all(is_uncompared, axis=0)  # (records,)
        return len(np.unique(self.subject[is_always_uncompared]))

    @property
    def are_sites_new(self) -> bool | None:
        """Whether every site is in one fold, in each repeat, so that its model has not seen it; None if there are no
        folds."""
        if not self.training_cluster_counts.any():
            return None
        fold_count_by_site_per_repeat = [
            pd.Series(repeat_folds).groupby(self.site).nunique() for repeat_folds in self.fold_names
        ]
        return all((fold_count_by_site == 1).all() for fold_count_by_site in fold_count_by_site_per_repeat)

    def with_probabilities(self, probabilities: ArrayLike) -> "Predictions":
        """The same records with the probabilities (repeats, n) of another classifier."""
        return replace(self, probabilities=np.array(probabilities, float))

    def select_records(self, row_mask: np.ndarray) -> "Predictions":
        """The records in `row_mask` (n,) bool; models and peers stay those of the whole test."""
        array_by_field = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "in_small_sites"
        }
        return replace(self, **{field_name: array[..., row_mask] for field_name, array in array_by_field.items()})

    def count_subjects(self, row_mask: np.ndarray) -> int:
        """How many subjects the records in `row_mask` (n,) bool are of."""
        return len(np.unique(self.subject[row_mask]))

    def count_clusters(self, row_mask: np.ndarray) -> int:
        """How many clusters they are of, on which an interval rests."""
        return len(np.unique(self.cluster[row_mask]))

    def bootstrap_interval(
        self, statistic: WeightedStatistic, seed: int, resample_count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of a statistic's interval over subjects; `statistic` takes the weights of records. Subjects of a
        whole test are drawn within their fold, whose size is fixed. Those of a part of it, such as a site, are not: how
        many of them are in a fold is chance; few are, and they hardly vary among themselves."""
        first_record_indices, cluster_index_by_record = self.first_records_and_cluster_indices
        cluster_count = len(first_record_indices)
        fold_by_cluster = self.fold_names[0, first_record_indices]
        first_fold_cluster_count = (fold_by_cluster == self.fold_names[0, 0]).sum()
        is_subset = cluster_count < self.training_cluster_counts[0] + first_fold_cluster_count

        def compute_by_cluster(cluster_weights: np.ndarray) -> np.ndarray:
            return statistic(cluster_weights[:, cluster_index_by_record])

        strata = None if is_subset else fold_by_cluster
        cluster_weights = draw_seeded_resample_weights(
            cluster_count, seed, resample_count, None if strata is None else tuple(strata.tolist())
        )
        return compute_percentile_interval(compute_by_cluster, cluster_weights, strata)

    def compute_interval_widening(self, metric: str) -> float:
        """How much wider the interval of a score of several folds is than that of the bootstrap; 1 for a single model.

        The variance grows by the share of the clusters in a cluster's training that are themselves in the score, tested
        by another model. It is 1 if all are. An AUC within groups loses two degrees of freedom a group, one a class. A
        bootstrap loses one a fold: of clusters, of which a fold has few, more than of as many people.
        """
        if not self.training_cluster_counts.any():
            return 1.0
        first_record_indices, _ = self.first_records_and_cluster_indices
        cluster_count = len(first_record_indices)
        first_subject_records, _ = self.first_records_and_subject_indices
        subject_count = len(first_subject_records)
        shared_training_factor = self.compute_shared_training_factor()

        fold_count = len(np.unique(self.fold_names[0, first_record_indices]))
        people_freedom_share = max(1 - fold_count / subject_count, 1 / 2)
        cluster_freedom_share = max(1 - fold_count / cluster_count, 1 / 2)
        variance_factor = shared_training_factor * people_freedom_share / cluster_freedom_share

        if metric in self.first_repeat_groups_by_auc:
            needed_record_masks = find_needed_record_masks(self.repeats_to_score[0], metric)
            is_needed_record = np.any(needed_record_masks, axis=0)
            group_count = len(np.unique(self.first_repeat_groups_by_auc[metric][is_needed_record]))
            lost_freedom_share = 2 * group_count / max(self.count_clusters(is_needed_record), 1)
            variance_factor /= 1 - min(lost_freedom_share, MAX_LOST_SUBJECT_SHARE)
        return float(np.sqrt(variance_factor))

    def compute_shared_training_factor(self) -> float:
        """How much larger the variance of a score is than for fixed models, since people who are tested trained the
        models of others who are: 1 for a single model, 2 if all did."""
        if not self.training_cluster_counts.any():
            return 1.0
        first_record_indices, _ = self.first_records_and_cluster_indices
        cluster_count = len(first_record_indices)

        # Each cluster helps to train the models of all other folds
        cluster_count_by_fold = Counter(self.fold_names[0, first_record_indices].tolist())
        training_count_by_fold = dict(
            zip(self.fold_names[0].tolist(), self.training_cluster_counts.tolist(), strict=True)
        )
        variance_terms = [
            fold_cluster_count * (cluster_count - fold_cluster_count) / max(training_count_by_fold[fold_name], 1)
            for fold_name, fold_cluster_count in cluster_count_by_fold.items()
        ]
        return 1 + sum(variance_terms) / cluster_count


def find_first_and_inverse_indices(identifiers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first position of each distinct name (n,), names sorted; and the place of each name among these (n,)."""
    _, first_positions, inverse_indices = np.unique(identifiers, return_index=True, return_inverse=True)
    return first_positions, inverse_indices


def choose_headline_metric(scored_metrics: Container[str]) -> str:
    """The name of the AUC that a verdict rests on: within sites where there are several, else within folds."""
    return next(metric for metric in TITLE_BY_AUC if metric in scored_metrics)


def compute_aucs(repeat: RepeatToScore, record_weights: np.ndarray) -> dict[str, np.ndarray]:
    """The AUC of all records, and within each of the groups, (k,) each; see `compute_mean_auc`."""
    auc_by_grouping_name = {
        auc_name: compute_mean_auc(repeat.label, repeat.probability, record_weights, group)
        for auc_name, group in repeat.groups_by_auc.items()
    }
    return {"auc": compute_auc(repeat.label, repeat.probability, record_weights)} | auc_by_grouping_name


def compute_headline_auc(predictions: Predictions) -> tuple[str, float]:
    """The AUC that a verdict rests on, by its name; that of guessing if it is undefined."""
    auc_by_name = average_scores_over_repeats(predictions, compute_aucs, np.ones((1, len(predictions.label))))
    headline_auc_name = choose_headline_metric(auc_by_name)
    return headline_auc_name, float(np.nan_to_num(auc_by_name[headline_auc_name], nan=CHANCE_AUC)[0])


def compute_brier(repeat: RepeatToScore, record_weights: np.ndarray) -> np.ndarray:
    """The mean squared difference of probability and label, (k,)."""
    return record_weights @ np.square(repeat.probability - repeat.label) / record_weights.sum(1)


def compute_scores(repeat: RepeatToScore, record_weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric of binary predictions (k,), one number for each of the weightings (k, n); NaN where a denominator is
    0. Probabilities are cut at THRESHOLD; for the AUCs see `compute_aucs`."""
    is_autism = repeat.label == 1
    is_predicted_autism = repeat.probability >= THRESHOLD
    # (weightings,), sum of weights, as of the next three
    true_positive = record_weights @ (is_autism & is_predicted_autism)
    false_positive = record_weights @ (~is_autism & is_predicted_autism)
    false_negative = record_weights @ (is_autism & ~is_predicted_autism)
    true_negative = record_weights @ (~is_autism & ~is_predicted_autism)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = true_positive / (true_positive + false_negative)
        specificity = true_negative / (true_negative + false_positive)
        return {
            "accuracy": (true_positive + true_negative) / record_weights.sum(1),
            "balanced_accuracy": (recall + specificity) / 2,
            "recall": recall,
            "specificity": specificity,
            "precision": true_positive / (true_positive + false_positive),
            "f_score": 2 * true_positive / (2 * true_positive + false_positive + false_negative),
            "brier": compute_brier(repeat, record_weights),
            **compute_aucs(repeat, record_weights),
        }


def find_needed_record_masks(repeat: RepeatToScore, metric: str) -> tuple[np.ndarray, ...]:
    """The groups of records, (n,) bool each, without which a metric is undefined."""
    is_autism = repeat.label == 1
    if metric in ("accuracy", "brier"):
        return (np.ones(len(repeat.label), bool),)
    if metric in ("recall", "f_score"):
        return (is_autism,)
    if metric == "specificity":
        return (~is_autism,)
    if metric == "precision":
        return (repeat.probability >= THRESHOLD,)
    if metric in repeat.groups_by_auc:
        is_in_mixed_group = mark_records_in_mixed_groups(repeat.label, repeat.groups_by_auc[metric])
        return is_autism & is_in_mixed_group, ~is_autism & is_in_mixed_group
    return is_autism, ~is_autism


def average_scores_over_repeats(
    predictions: Predictions, score_repeat: RepeatScorer, record_weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Each score (k,) as its mean over the repeats in which it is defined. The records of a site may be in one fold of
    a repeat, whose AUC is then that within folds."""
    scores_by_repeat = [score_repeat(repeat, record_weights) for repeat in predictions.repeats_to_score]
    metric_names = dict.fromkeys(metric for repeat_scores in scores_by_repeat for metric in repeat_scores)
    mean_by_metric = {}
    for metric in metric_names:
        repeat_values = np.array(
            [repeat_scores.get(metric, repeat_scores["auc"]) for repeat_scores in scores_by_repeat]
        )  # (repeats, weightings)
        defined_counts = (~np.isnan(repeat_values)).sum(axis=0)  # (weightings,)
        with np.errstate(invalid="ignore"):
            mean_by_metric[metric] = np.nansum(repeat_values, axis=0) / defined_counts
    return mean_by_metric


def estimate_statistics_with_intervals(
    predictions: Predictions,
    compute_statistics: WeightedStatistics,
    seed: int,
    are_differences: bool = False,
    comparison_count: int = 1,
) -> dict[str, Estimate]:
    """The estimate of each statistic: of scores named in `RANGE_BY_METRIC`, or of differences of two of one name.

    The interval is that of a bootstrap over subjects, within folds if given, made wider by
    `Predictions.compute_interval_widening`, and by `compute_bonferroni_widening` if it is one of `comparison_count`
    that are compared. There is none if one of the `find_needed_record_masks` of a statistic, of any repeat, has fewer
    subjects than `MIN_CLASS_SUBJECTS`; those who are drawn together count as one. All resamples of a perfect score are
    perfect. So the interval reaches at least to the score at which this many subjects are all right with probability
    0.025, and to its counterpart for all wrong (Clopper & Pearson 1934), on the range of the metric. Differences have
    no such limit.
    """
    value_by_statistic = compute_statistics(np.ones((1, len(predictions.label))))  # (1,) each

    def stack_statistics(record_weights: np.ndarray) -> np.ndarray:
        return np.stack([*compute_statistics(record_weights).values()], axis=1)

    # (statistics,) each
    bootstrap_lows, bootstrap_highs = predictions.bootstrap_interval(stack_statistics, seed, EFFORT.resamples)

    comparison_widening = compute_bonferroni_widening(comparison_count)
    estimate_by_statistic = {}
    for (statistic_name, (point_value,)), bootstrap_low, bootstrap_high in zip(
        value_by_statistic.items(), bootstrap_lows, bootstrap_highs, strict=True
    ):
        fewest_clusters = min(
            predictions.count_clusters(needed_record_mask)
            for repeat in predictions.repeats_to_score
            for needed_record_mask in find_needed_record_masks(repeat, statistic_name)
        )
        widening = predictions.compute_interval_widening(statistic_name) * comparison_widening
        low = point_value + widening * (bootstrap_low - point_value)
        high = point_value + widening * (bootstrap_high - point_value)
        lowest, highest = RANGE_BY_METRIC[statistic_name]
        range_width = highest - lowest
        if are_differences:
            lowest = -range_width
            highest = range_width
        else:
            perfect_score_limit = range_width * ((1 - CONFIDENCE_LEVEL) / 2) ** (1 / max(fewest_clusters, 1))
            low = min(low, lowest + perfect_score_limit)
            high = max(high, highest - perfect_score_limit)
        clipped_ends = np.clip((low, high), lowest, highest)
        if fewest_clusters >= MIN_CLASS_SUBJECTS:
            estimate_by_statistic[statistic_name] = Estimate.from_numbers(point_value, *clipped_ends)
        else:
            estimate_by_statistic[statistic_name] = Estimate.from_numbers(point_value)
    return estimate_by_statistic


def estimate_scores(predictions: Predictions, seed: int) -> dict[str, Estimate]:
    """The estimate of each metric of `compute_scores`, see `estimate_statistics_with_intervals`."""
    estimate_by_metric = estimate_statistics_with_intervals(
        predictions,
        lambda record_weights: average_scores_over_repeats(predictions, compute_scores, record_weights),
        seed,
    )
    return estimate_by_metric | widen_combined_scores(predictions, estimate_by_metric)


def widen_combined_scores(predictions: Predictions, estimate_by_metric: dict[str, Estimate]) -> dict[str, Estimate]:
    """Balanced accuracy and F score. If recall or specificity is exactly 0 or 1, it is so in all resamples, too. Then
    each interval is at least what those of both make of it (Zou & Donner 2008, Stat Med 27:1693)."""
    recall, recall_low, recall_high = estimate_by_metric["recall"].value_low_high
    specificity, specificity_low, specificity_high = estimate_by_metric["specificity"].value_low_high
    if recall not in (0, 1) and specificity not in (0, 1):
        return {}
    controls_per_autism = (predictions.label == 0).sum() / max((predictions.label == 1).sum(), 1)

    def combine_rates(recall_rate: float, specificity_rate: float) -> np.ndarray:
        """Balanced accuracy and F score."""
        false_positives_per_autism = (1 - specificity_rate) * controls_per_autism
        return np.array(
            [(recall_rate + specificity_rate) / 2, 2 * recall_rate / (recall_rate + 1 + false_positives_per_autism)]
        )

    combined_scores = combine_rates(recall, specificity)

    def measure_distances(recall_end: float, specificity_end: float) -> np.ndarray:
        """How far both scores move if both rates move to these ends of their intervals."""
        recall_effects = combine_rates(recall_end, specificity) - combined_scores
        specificity_effects = combine_rates(recall, specificity_end) - combined_scores
        return np.hypot(np.nan_to_num(recall_effects), np.nan_to_num(specificity_effects))

    distances_below = measure_distances(recall_low, specificity_low)  # (balanced accuracy and F score,)
    distances_above = measure_distances(recall_high, specificity_high)
    widened_estimate_by_metric = {}
    for metric, distance_below, distance_above in zip(
        ("balanced_accuracy", "f_score"), distances_below, distances_above, strict=True
    ):
        value, low, high = estimate_by_metric[metric].value_low_high
        widened_estimate_by_metric[metric] = Estimate.from_numbers(
            value, min(low, value - distance_below), max(high, value + distance_above)
        )
    return widened_estimate_by_metric


def estimate_score_differences(
    predictions: Predictions, second_predictions: Predictions, seed: int, comparison_count: int = 1
) -> dict[str, Estimate]:
    """Each AUC, and the Brier score, minus that of another classifier of the same records: paired, see
    `estimate_statistics_with_intervals`."""

    def score_aucs_and_brier(repeat: RepeatToScore, record_weights: np.ndarray) -> dict[str, np.ndarray]:
        return compute_aucs(repeat, record_weights) | {"brier": compute_brier(repeat, record_weights)}

    def compute_score_differences(record_weights: np.ndarray) -> dict[str, np.ndarray]:
        first_score_by_metric, second_score_by_metric = (
            average_scores_over_repeats(paired_predictions, score_aucs_and_brier, record_weights)
            for paired_predictions in (predictions, second_predictions)
        )
        return {
            metric: first_score_by_metric[metric] - second_score_by_metric[metric] for metric in first_score_by_metric
        }

    return estimate_statistics_with_intervals(
        predictions, compute_score_differences, seed, are_differences=True, comparison_count=comparison_count
    )
