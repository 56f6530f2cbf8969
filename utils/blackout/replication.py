"""Effects of features (`families.py`) -> whether they replicate: `replication.csv`.

`halves`   These people are cut into two halves many times. To be significant in most halves is a second, stricter
           threshold on the same people, which most true effects miss that are detected with a power of 80 %. The
           networks are the same in both halves. So this says how much the list depends on who is tested, not on who was
           trained on.
`repeats`  The same people with other networks and other cuts.

Features that are significant nowhere have no row. The first row of a family is of all its features.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from data.base.thresholds import CONFIDENCE_LEVEL
from utils.blackout.effects import FamilyTest, run_family_permutation_test, sum_by_group
from utils.blackout.families import FeatureFamily, FillEffect
from utils.blackout.people import BlackoutPeople, BlackoutVerdict
from utils.scores.results import FAMILYWISE_ALPHA, MIN_BOOTSTRAP_SUBJECTS, Estimate, list_estimate_columns

HALVING_COUNT = 100  # cuts into halves
PERMUTATIONS_PER_HALF = 500  # permutations of labels in each half
MIN_RANGE_VALUES = 4  # fewest numbers that have a range
REPLICATION_THRESHOLD = 0.5  # share of halves or repeats above which a feature replicates
BETWEEN_HALVES = "halves"
BETWEEN_REPEATS = "repeats"
EXPECTED_COLUMN = "expected"
REPLICATION_COLUMN_NAMES = [
    *("between", "family", "thing", "significant", "replicates", "expected", "positive_agreement"),
    *list_estimate_columns("correlation"),
]
RepeatOutcome = tuple[np.ndarray, np.ndarray]  # of a family: what is significant, and mean effects, (features,) each


def compute_replication_table(
    feature_families: Sequence[FeatureFamily], families_by_repeat: Iterable[Sequence[FeatureFamily]]
) -> pd.DataFrame:
    """The table `replication.csv`: of each family between halves of these people, and between repeats if there are
    some. The families of repeats may come one repeat after another, to save memory."""
    replication_tables = [
        replicate_in_halves(
            feature_family.feature_kind.kind_name, feature_family.feature_names, feature_family.reliance_effect
        )
        for feature_family in feature_families
    ]
    # What is significant, and mean effects, of each family in each repeat; no more of a repeat stays in memory
    outcomes_by_family: list[list[RepeatOutcome]] = [[] for _ in feature_families]
    for repeat_families in families_by_repeat:
        for family_outcomes, repeat_family in zip(outcomes_by_family, repeat_families, strict=True):
            reliance_effect = repeat_family.reliance_effect
            family_outcomes.append((reliance_effect.is_significant, reliance_effect.adjusted_effects.mean(0)))

    for feature_family, family_outcomes in zip(feature_families, outcomes_by_family, strict=True):
        if family_outcomes:
            repeats_table = replicate_in_repeats(
                feature_family.feature_kind.kind_name,
                feature_family.feature_names,
                family_outcomes,
                feature_family.reliance_effect,
            )
            replication_tables.append(repeats_table)
    return pd.concat(replication_tables, ignore_index=True)


def replicate_in_halves(
    kind_name: str, feature_names: Sequence[str], fill_effect: FillEffect, halving_count: int = HALVING_COUNT
) -> pd.DataFrame:
    """Rows of `replication.csv` between halves of these people, for the features of the family `kind_name`.
    `replicates` is the share of all halves in which a feature is significant by a test of their own. The correlation is
    the mean over splits, and its ends contain 95 % of them."""
    people = fill_effect.people
    cluster_numbers = people.subject_cluster_numbers
    cluster_count = cluster_numbers.max() + 1
    if cluster_count < 2 * MIN_BOOTSTRAP_SUBJECTS:
        halving_count = 0
    rng = np.random.default_rng(people.resampling_seed)
    is_first_half = draw_halves(people, halving_count, rng)  # (splits, clusters)
    half_masks = np.stack([is_first_half, ~is_first_half], axis=1)  # (splits, 2, clusters)
    permutation_seeds = rng.integers(2**32, size=half_masks.shape[:2])  # (splits, 2)

    # The test of each half that has people, if anything is concluded of all
    is_significant_in_half = np.zeros((*half_masks.shape[:2], len(feature_names)), bool)  # (splits, 2, features)
    critical_t_by_half = []
    for halving_index, half_index in np.argwhere(half_masks.any(2) & (people.verdict is BlackoutVerdict.CONCLUSIVE)):
        is_in_half = half_masks[halving_index, half_index][cluster_numbers]  # (subjects,)
        half_test = run_half_test(fill_effect, is_in_half, int(permutation_seeds[halving_index, half_index]))
        is_significant_in_half[halving_index, half_index] = half_test.family_wise_p < FAMILYWISE_ALPHA
        critical_t_by_half.append(half_test.critical_t)
    replication_counts = ReplicationCounts(
        significant_trial_counts=is_significant_in_half.sum((0, 1)),
        agreeing_trial_counts=2 * is_significant_in_half.all(1).sum(0),
        trial_count=2 * len(is_significant_in_half),
    )
    if critical_t_by_half:
        replication_chances = compute_replication_chances(fill_effect, float(np.mean(critical_t_by_half)))
    else:
        replication_chances = np.full(len(feature_names), np.nan)
    return make_replication_table(
        BETWEEN_HALVES,
        kind_name,
        feature_names,
        fill_effect.is_significant,
        replication_counts,
        estimate_central_range(correlate_halves(fill_effect, half_masks)),
        replication_chances,
    )


def run_half_test(fill_effect: FillEffect, is_in_half: np.ndarray, permutation_seed: int) -> FamilyTest:
    """The test of a family on the people of one half, `is_in_half` (subjects,) bool, alone."""
    people = fill_effect.people
    permutation_sites = people.permutation_sites
    return run_family_permutation_test(
        fill_effect.covariate_adjusted.select_subjects(is_in_half),
        permutation_seed,
        people.subject_cluster_numbers[is_in_half],
        people.compute_mean_sd_inflation(people_fraction=0.5),
        PERMUTATIONS_PER_HALF,
        None if permutation_sites is None else permutation_sites[is_in_half],
    )


def correlate_halves(fill_effect: FillEffect, half_masks: np.ndarray) -> list[np.ndarray]:
    """The correlation of the mean effects of both halves, of each split of `half_masks` (splits, 2, clusters) bool."""
    cluster_numbers = fill_effect.people.subject_cluster_numbers
    cluster_effect_sums = sum_by_group(fill_effect.adjusted_effects, cluster_numbers)  # (clusters, features)
    cluster_sizes = sum_by_group(np.ones(len(fill_effect.adjusted_effects)), cluster_numbers)  # (clusters,)
    half_mean_effects = (half_masks @ cluster_effect_sums) / (half_masks @ cluster_sizes)[..., None]
    return [correlate_last_axis(first_means, second_means) for first_means, second_means in half_mean_effects]


def compute_replication_chances(fill_effect: FillEffect, half_critical_t: float) -> np.ndarray:
    """The chance (features,) that a true effect of this size is significant in most halves of other people like these:
    with half of the people, t is smaller by the root of two, and has to reach `half_critical_t`, that of a half."""
    people = fill_effect.people
    required_t = (
        half_critical_t
        * np.sqrt(2)
        * people.compute_mean_sd_inflation(people_fraction=0.5)
        / people.compute_mean_sd_inflation()
    )
    return stats.norm.cdf(fill_effect.family_test.t_statistics - required_t)


def replicate_in_repeats(
    kind_name: str,
    feature_names: Sequence[str],
    repeat_outcomes: Sequence[RepeatOutcome],
    pooled_effect: FillEffect,
) -> pd.DataFrame:
    """The same rows between repeats, two or more. `repeat_outcomes`: what is significant in each, and its mean effects,
    (features,) each; `pooled_effect` is their mean."""
    significance_by_repeat = [is_significant for is_significant, _ in repeat_outcomes]
    mean_effects_by_repeat = [mean_effects for _, mean_effects in repeat_outcomes]
    significant_repeat_counts = np.sum(significance_by_repeat, axis=0)  # (features,)
    repeat_correlations = [
        correlate_last_axis(first_means, second_means)
        for first_means, second_means in combinations(mean_effects_by_repeat, 2)
    ]
    agreeing_repeat_counts = significant_repeat_counts * (significant_repeat_counts - 1) / (len(repeat_outcomes) - 1)
    return make_replication_table(
        BETWEEN_REPEATS,
        kind_name,
        feature_names,
        pooled_effect.is_significant,
        ReplicationCounts(significant_repeat_counts, agreeing_repeat_counts, len(repeat_outcomes)),
        estimate_central_range(repeat_correlations),
    )


@dataclass(frozen=True)
class ReplicationCounts:
    """In how many of `trial_count` halves or repeats features were significant (features,); and in how many of these,
    on average, they are significant in another one, too (features,)."""

    significant_trial_counts: np.ndarray  # (features,)
    agreeing_trial_counts: np.ndarray  # (features,): significant in another trial, too, a mean
    trial_count: int  # halves or repeats


def make_replication_table(
    comparison_name: str,  # "halves" or "repeats"
    kind_name: str,
    feature_names: Sequence[str],
    is_significant: np.ndarray,
    replication_counts: ReplicationCounts,
    correlation_range: Estimate,
    replication_chances: np.ndarray | float = np.nan,
) -> pd.DataFrame:
    """The row of a family, then those of the features that are significant anywhere. In the row of the family
    `significant` is the number of significant features, `replicates` the share of these that are significant in most
    trials, and `expected` the share that would be if all of them were true. `positive_agreement` is over all
    features."""
    significant_trial_counts = replication_counts.significant_trial_counts
    agreeing_trial_counts = replication_counts.agreeing_trial_counts
    replicating_trial_fractions = significant_trial_counts / max(replication_counts.trial_count, 1)
    undefined_agreement = np.full(len(replicating_trial_fractions), np.nan)
    positive_agreement = np.divide(
        agreeing_trial_counts,
        significant_trial_counts,
        where=significant_trial_counts > 0,
        out=undefined_agreement,
    )

    # The rows of features that are significant anywhere
    feature_rows = pd.DataFrame(
        {
            "thing": feature_names,
            "significant": is_significant,
            "replicates": replicating_trial_fractions,
            "expected": replication_chances,
            "positive_agreement": positive_agreement,
        }
    )
    is_significant_anywhere = is_significant | (significant_trial_counts > 0)
    feature_rows = feature_rows[is_significant_anywhere].astype({"significant": int})

    # The row of the family
    is_replicated = replicating_trial_fractions[is_significant] > REPLICATION_THRESHOLD  # (significant features,)
    family_cell_by_column = {
        "thing": "",
        "significant": len(is_replicated),
        "replicates": is_replicated.mean() if len(is_replicated) else np.nan,
        "expected": feature_rows.loc[feature_rows["significant"] == 1, "expected"].mean(),
        "positive_agreement": (
            agreeing_trial_counts.sum() / significant_trial_counts.sum() if significant_trial_counts.any() else np.nan
        ),
    }
    family_row = pd.DataFrame([family_cell_by_column | correlation_range.to_cells("correlation")])
    replication_rows = pd.concat([family_row, feature_rows], ignore_index=True)
    return replication_rows.assign(between=comparison_name, family=kind_name)[REPLICATION_COLUMN_NAMES]


def draw_halves(people: BlackoutPeople, halving_count: int, rng: np.random.Generator) -> np.ndarray:
    """Which clusters are in the first half, (splits, clusters) bool. Clusters are lined up by site and by fold, all
    else in random order, and go to the halves in turn. So at each site, and in each of its folds, halves differ by one
    at most. A cluster of several sites counts at that of its first person."""
    _, first_subject_indices = np.unique(people.subject_cluster_numbers, return_index=True)
    cluster_count = len(first_subject_indices)
    _, site_number_by_cluster = np.unique(people.subject_sites[first_subject_indices], return_inverse=True)
    _, fold_number_by_cluster = np.unique(people.subject_folds[first_subject_indices], return_inverse=True)
    is_first_half = np.empty((halving_count, cluster_count), bool)
    for halving_index in range(halving_count):
        random_keys = rng.random(cluster_count)
        site_order = rng.permutation(cluster_count)
        fold_order = rng.permutation(cluster_count)
        cluster_order = np.lexsort(
            (random_keys, fold_order[fold_number_by_cluster], site_order[site_number_by_cluster])
        )  # by site, then by fold
        starting_half = rng.integers(2)
        is_first_half[halving_index, cluster_order] = (np.arange(cluster_count) + starting_half) % 2 == 0
    return is_first_half


def correlate_last_axis(first_values: np.ndarray, second_values: np.ndarray) -> np.ndarray:
    """Pearson's, over the last axis; NaN where one is constant or undefined."""
    first_deviations = first_values - first_values.mean(-1, keepdims=True)
    second_deviations = second_values - second_values.mean(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        square_sum_products = np.square(first_deviations).sum(-1) * np.square(second_deviations).sum(-1)
        return (first_deviations * second_deviations).sum(-1) / np.sqrt(square_sum_products)


def estimate_central_range(correlations: Sequence[np.ndarray]) -> Estimate:
    """The mean of numbers, and the ends that contain 95 % of them: a range, not a confidence interval."""
    finite_correlations = np.array([correlation for correlation in correlations if np.isfinite(correlation)])
    if not len(finite_correlations):
        return Estimate(None, None, None)
    mean_correlation = finite_correlations.mean()
    if len(finite_correlations) < MIN_RANGE_VALUES:
        return Estimate(float(mean_correlation), None, None)
    tail_fraction = (1 - CONFIDENCE_LEVEL) / 2
    range_ends = np.quantile(finite_correlations, (tail_fraction, 1 - tail_fraction))
    return Estimate.from_numbers(mean_correlation, *range_ends)
