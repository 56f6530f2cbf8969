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

from utils.blackout.effects import run_family_permutation_test, sum_by_group
from utils.blackout.families import BlackoutPeople, BlackoutVerdict, FeatureFamily, FillEffect
from utils.scores.results import CONFIDENCE_LEVEL, FAMILYWISE_ALPHA, MIN_BOOTSTRAP_SUBJECTS, Estimate, estimate_columns

HALVING_COUNT, PERMUTATIONS_PER_HALF = 100, 500  # cuts into halves; permutations of labels in each half
MIN_RANGE_VALUES = 4  # fewest numbers that have a range
REPLICATION_THRESHOLD = 0.5  # share of halves or repeats above which a feature replicates
BETWEEN_HALVES, BETWEEN_REPEATS, EXPECTED_COLUMN = "halves", "repeats", "expected"
REPLICATION_COLUMN_NAMES = [
    *("between", "family", "thing", "significant", "replicates", "expected", "positive_agreement"),
    *estimate_columns("correlation"),
]


def compute_replication(
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
    outcomes_by_repeat = [
        [
            (repeat_results.reliance_effect.is_significant, repeat_results.reliance_effect.adjusted_effects.mean(0))
            for repeat_results in repeat_families
        ]
        for repeat_families in families_by_repeat
    ]
    for feature_family, *repeat_results in (
        zip(feature_families, *outcomes_by_repeat, strict=True) if outcomes_by_repeat else ()
    ):
        replication_tables.append(
            replicate_in_repeats(
                feature_family.feature_kind.kind_name,
                feature_family.feature_names,
                repeat_results,
                feature_family.reliance_effect,
            )
        )
    return pd.concat(replication_tables, ignore_index=True)


def replicate_in_halves(
    kind_name: str, feature_names: Sequence[str], fill_effect: FillEffect, halving_count: int = HALVING_COUNT
) -> pd.DataFrame:
    """Rows of `replication.csv` between halves of these people, for the features of the family `kind_name`.
    `replicates` is the share of all halves in which a feature is significant by a test of their own. The correlation is
    the mean over splits, and its ends contain 95 % of them."""
    people, rng = fill_effect.people, np.random.default_rng(fill_effect.people.seed)
    cluster_sums, cluster_sizes = (
        sum_by_group(fill_effect.adjusted_effects, people.cluster_numbers),
        sum_by_group(np.ones(len(fill_effect.adjusted_effects)), people.cluster_numbers),
    )
    is_first_half = draw_halves(people, halving_count if len(cluster_sizes) >= 2 * MIN_BOOTSTRAP_SUBJECTS else 0, rng)
    half_masks = np.stack([is_first_half, ~is_first_half], axis=1)  # (splits, 2, clusters)
    half_seeds = rng.integers(2**32, size=half_masks.shape[:2])
    is_significant = np.zeros((*half_masks.shape[:2], len(feature_names)), bool)
    critical_t_by_half = []
    for halving_index, half_index in np.argwhere(half_masks.any(2) & (people.verdict is BlackoutVerdict.CONCLUSIVE)):
        is_in_half, permutation_seed = (
            half_masks[halving_index, half_index][people.cluster_numbers],
            int(half_seeds[halving_index, half_index]),
        )
        half_effects, half_clusters, sd_inflation = (
            fill_effect.covariate_adjusted.select_subjects(is_in_half),
            people.cluster_numbers[is_in_half],
            people.compute_sd_inflation(people_fraction=0.5),
        )
        half_sites = None if people.exchange_sites is None else people.exchange_sites[is_in_half]
        half_test = run_family_permutation_test(
            half_effects, permutation_seed, half_clusters, sd_inflation, PERMUTATIONS_PER_HALF, half_sites
        )
        is_significant[halving_index, half_index] = half_test.family_wise_p < FAMILYWISE_ALPHA
        critical_t_by_half.append(half_test.critical_t)
    half_means = (half_masks @ cluster_sums) / (half_masks @ cluster_sizes)[..., None]
    correlation_range = estimate_central_range(
        [correlate_last_axis(first_means, second_means) for first_means, second_means in half_means]
    )
    replication_counts = ReplicationCounts(
        is_significant.sum((0, 1)), 2 * is_significant.all(1).sum(0), 2 * len(is_significant)
    )
    expected_replication = (
        compute_expected_replication(fill_effect, float(np.mean(critical_t_by_half)))
        if critical_t_by_half
        else np.full(len(feature_names), np.nan)
    )
    return make_replication_table(
        BETWEEN_HALVES,
        kind_name,
        feature_names,
        fill_effect.is_significant,
        replication_counts,
        correlation_range,
        expected_replication,
    )


def compute_expected_replication(fill_effect: FillEffect, critical_t: float) -> np.ndarray:
    """The chance (features,) that a true effect of this size is significant in most halves of other people like these:
    with half of the people, t is smaller by the root of two, and has to reach `critical_t`, that of a half."""
    people = fill_effect.people
    required_t = (
        critical_t * np.sqrt(2) * people.compute_sd_inflation(people_fraction=0.5) / people.compute_sd_inflation()
    )
    return stats.norm.cdf(fill_effect.family_test.t_statistics - required_t)


def replicate_in_repeats(
    kind_name: str,
    feature_names: Sequence[str],
    repeat_outcomes: Sequence[tuple[np.ndarray, np.ndarray]],
    pooled_effect: FillEffect,
) -> pd.DataFrame:
    """The same rows between repeats, two or more. `repeat_outcomes`: what is significant in each, and its mean effects,
    (features,) each; `pooled_effect` is their mean."""
    significance_by_repeat, means_by_repeat = zip(*repeat_outcomes, strict=True)
    significant_counts, correlation_range = (
        np.sum(significance_by_repeat, axis=0),
        estimate_central_range(
            [
                correlate_last_axis(first_means, second_means)
                for first_means, second_means in combinations(means_by_repeat, 2)
            ]
        ),
    )
    agreeing_counts = significant_counts * (significant_counts - 1) / (len(repeat_outcomes) - 1)
    return make_replication_table(
        BETWEEN_REPEATS,
        kind_name,
        feature_names,
        pooled_effect.is_significant,
        ReplicationCounts(significant_counts, agreeing_counts, len(repeat_outcomes)),
        correlation_range,
    )


@dataclass(frozen=True)
class ReplicationCounts:
    """In how many of `trial_count` halves or repeats features were significant (features,); and in how many of these,
    on average, they are significant in another one, too (features,)."""

    significant_counts: np.ndarray
    agreeing_counts: np.ndarray
    trial_count: int


def make_replication_table(
    comparison: str,
    kind_name: str,
    feature_names: Sequence[str],
    is_significant: np.ndarray,
    replication_counts: ReplicationCounts,
    correlation_range: Estimate,
    expected_replication: np.ndarray | float = np.nan,
) -> pd.DataFrame:
    """The row of a family, then those of the features that are significant anywhere. In the row of the family
    `significant` is the number of significant features, `replicates` the share of these that are significant in most
    trials, and `expected` the share that would be if all of them were true. `positive_agreement` is over all
    features."""
    replicating_fraction = replication_counts.significant_counts / max(replication_counts.trial_count, 1)
    positive_agreement = np.divide(
        replication_counts.agreeing_counts,
        replication_counts.significant_counts,
        where=replication_counts.significant_counts > 0,
        out=np.full(len(replicating_fraction), np.nan),
    )
    table_rows = pd.DataFrame(
        {
            "thing": feature_names,
            "significant": is_significant,
            "replicates": replicating_fraction,
            "expected": expected_replication,
        }
    )
    table_rows = table_rows.assign(positive_agreement=positive_agreement)
    table_rows = table_rows[is_significant | (replication_counts.significant_counts > 0)].astype({"significant": int})
    is_replicated = replicating_fraction[is_significant] > REPLICATION_THRESHOLD
    family_values = {
        "thing": "",
        "significant": len(is_replicated),
        "replicates": is_replicated.mean() if len(is_replicated) else np.nan,
    }
    family_values["expected"] = table_rows.loc[table_rows["significant"] == 1, "expected"].mean()
    family_values["positive_agreement"] = (
        replication_counts.agreeing_counts.sum() / replication_counts.significant_counts.sum()
        if replication_counts.significant_counts.any()
        else np.nan
    )
    family_row = pd.DataFrame([family_values | correlation_range.to_cells("correlation")])
    table_rows = pd.concat([family_row, table_rows], ignore_index=True)
    return table_rows.assign(between=comparison, family=kind_name)[REPLICATION_COLUMN_NAMES]


def draw_halves(people: BlackoutPeople, halving_count: int, rng: np.random.Generator) -> np.ndarray:
    """Which clusters are in the first half, (splits, clusters) bool. Clusters are lined up by site and by fold, all
    else in random order, and go to the halves in turn. So at each site, and in each of its folds, halves differ by one
    at most. A cluster of several sites counts at that of its first person."""
    _, first_subject_indices = np.unique(people.cluster_numbers, return_index=True)
    site_numbers, fold_numbers = (
        np.unique(group_names[first_subject_indices], return_inverse=True)[1]
        for group_names in (people.subject_sites, people.subject_folds)
    )
    is_first_half = np.empty((halving_count, len(first_subject_indices)), bool)
    for halving_index in range(halving_count):
        random_keys, (site_order, fold_order) = (
            rng.random(len(first_subject_indices)),
            (rng.permutation(len(first_subject_indices)) for _ in range(2)),
        )
        cluster_order = np.lexsort((random_keys, fold_order[fold_numbers], site_order[site_numbers]))
        is_first_half[halving_index, cluster_order] = (np.arange(len(cluster_order)) + rng.integers(2)) % 2 == 0
    return is_first_half


def correlate_last_axis(first_values: np.ndarray, second_values: np.ndarray) -> np.ndarray:
    """Pearson's, over the last axis; NaN where one is constant or undefined."""
    first_values, second_values = (values - values.mean(-1, keepdims=True) for values in (first_values, second_values))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (first_values * second_values).sum(-1) / np.sqrt(
            np.square(first_values).sum(-1) * np.square(second_values).sum(-1)
        )


def estimate_central_range(correlations: Sequence[np.ndarray]) -> Estimate:
    """The mean of numbers, and the ends that contain 95 % of them: a range, not a confidence interval."""
    finite_values = np.array(
        [correlation_value for correlation_value in correlations if np.isfinite(correlation_value)]
    )
    if len(finite_values) < MIN_RANGE_VALUES:
        return Estimate(float(finite_values.mean()) if len(finite_values) else None, None, None)
    tail_fraction = (1 - CONFIDENCE_LEVEL) / 2
    return Estimate.from_numbers(finite_values.mean(), *np.quantile(finite_values, (tail_fraction, 1 - tail_fraction)))
