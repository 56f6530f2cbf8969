"""Values of people and effects of features (`families.py`) -> which way the classes differ there, and how it is read.

`difference`   autism minus control within sites, in standard deviations within site and class. It is the slope of least
               squares on the label with the site as a factor. So the weight of a site with n1 and n0 people of the
               classes is n1 n0 / (n1 + n0).
`correlation`  of a person's value with the feature's effect on the logit of autism, within sites. Connections are read
               by a linear part: their values are correlated with the effect of all connections together. So it has the
               sign of the activation pattern, which weights need not have (Haufe et al. 2014,
               doi:10.1016/j.neuroimage.2013.10.067).

Intervals are for one feature alone. Their standard error is that of influences summed over clusters, so that relatives
count together (Liang & Zeger 1986, Biometrika 73:13).
"""

import numpy as np
import pandas as pd
from scipy import stats

from data.base.thresholds import CONFIDENCE_LEVEL, MIN_CLASS_SUBJECTS
from utils.blackout.effects import sum_by_group
from utils.blackout.people import BlackoutPeople
from utils.scores.results import list_estimate_columns
from utils.scores.statistics import split_resamples

DIFFERENCE_COLUMN = "difference"
CORRELATION_COLUMN = "correlation"
DIRECTION_COLUMN = "direction"
MIN_RELATIVE_SPREAD = 1e-9  # spread as a share of the largest value: less is rounding
MAX_CORRELATION = 1 - 1e-12  # largest correlation, so that its Fisher z is finite
NO_DIFFERENCE_TEXT = "not shown to differ"
DIFFERENCE_TEXT_BY_SIGN = {1: "higher in autism", -1: "lower in autism"}
READING_TEXT_BY_SIGN = {1: ", and read so", -1: ", but read the other way", 0: "; how it is read is not shown"}
EstimatesWithEnds = tuple[np.ndarray, np.ndarray, np.ndarray]  # values and both ends, (features,) each


def make_direction_columns(
    feature_values: np.ndarray, autism_logit_effects: np.ndarray, people: BlackoutPeople
) -> pd.DataFrame:
    """A row a feature: `difference` and `correlation` with 95 % intervals, and `direction` in words. `feature_values`
    and `autism_logit_effects` (people, features) are what people have there and how it is read, on the logit of autism.
    Unknown values are left out feature by feature; what is undefined is NaN, and its direction empty."""
    direction_tables = [
        make_direction_block(feature_values[:, feature_block], autism_logit_effects[:, feature_block], people)
        for feature_block in split_resamples(feature_values.shape[1], len(feature_values))
    ]
    return pd.concat(direction_tables, ignore_index=True)


def make_direction_block(
    feature_values: np.ndarray, autism_logit_effects: np.ndarray, people: BlackoutPeople
) -> pd.DataFrame:
    """`make_direction_columns` of as many features as fit into memory at once."""
    direction_table = pd.DataFrame()
    class_differences = estimate_class_differences(feature_values, people)
    correlations = correlate_values_with_effects(feature_values, autism_logit_effects, people)
    direction_table[list_estimate_columns(DIFFERENCE_COLUMN)] = np.column_stack(class_differences)
    direction_table[list_estimate_columns(CORRELATION_COLUMN)] = np.column_stack(correlations)

    # A direction in words where the difference is known
    direction_texts = []
    for difference_sign, correlation_sign in zip(
        find_interval_signs(direction_table, DIFFERENCE_COLUMN),
        find_interval_signs(direction_table, CORRELATION_COLUMN),
        strict=True,
    ):
        direction_text = NO_DIFFERENCE_TEXT
        if difference_sign:
            reading_text = READING_TEXT_BY_SIGN[difference_sign * correlation_sign]
            direction_text = DIFFERENCE_TEXT_BY_SIGN[difference_sign] + reading_text
        direction_texts.append(direction_text)
    is_difference_unknown = direction_table[f"{DIFFERENCE_COLUMN}_low"].isna()
    direction_table[DIRECTION_COLUMN] = np.where(is_difference_unknown, "", direction_texts)
    return direction_table


def find_interval_signs(direction_table: pd.DataFrame, column_name: str) -> list[int]:
    """On which side of 0 the intervals of a column are: 1 above, -1 below, 0 if they contain 0 or are unknown."""
    is_above_zero = direction_table[f"{column_name}_low"] > 0
    is_below_zero = direction_table[f"{column_name}_high"] < 0
    return (is_above_zero.astype(int) - is_below_zero.astype(int)).tolist()


def estimate_class_differences(feature_values: np.ndarray, people: BlackoutPeople) -> EstimatesWithEnds:
    """Standardised differences of values (people, features). NaN for constant values, and without a site that has both
    classes; the interval is NaN where a class has fewer than `MIN_CLASS_SUBJECTS` people at such sites."""
    is_autism = people.subject_labels == 1  # (people,)
    site_numbers = encode_names(people.subject_sites)
    site_class_numbers = 2 * site_numbers + is_autism

    # Only sites at which the feature is known in both classes
    is_measured = ~np.isnan(feature_values)
    is_measured_autism = is_measured & is_autism[:, None]
    is_measured_control = is_measured & ~is_autism[:, None]
    is_measured &= (sum_in_groups(is_measured_control, site_numbers) > 0) & (
        sum_in_groups(is_measured_autism, site_numbers) > 0
    )
    centred_labels = centre_in_groups(is_autism.astype(float)[:, None], is_measured, site_numbers)
    site_centred_values = centre_in_groups(feature_values, is_measured, site_numbers)
    within_cell_deviations = centre_in_groups(feature_values, is_measured, site_class_numbers)
    # degrees of freedom of each person, less those of the means of cells, which are a class at a site
    cell_sizes = np.maximum(sum_in_groups(is_measured, site_class_numbers), 1)
    person_df = is_measured * (1 - 1 / cell_sizes)

    # The slope on the label in standard deviations, and how much each person moves it
    with np.errstate(divide="ignore", invalid="ignore"):
        within_variance = np.square(within_cell_deviations).sum(0) / person_df.sum(0)
        min_spreads = MIN_RELATIVE_SPREAD * find_largest_absolute_values(feature_values)
        within_variance = np.where(np.sqrt(within_variance) > min_spreads, within_variance, np.nan)
        label_slopes = (centred_labels * site_centred_values).sum(0) / np.square(centred_labels).sum(0)
        standardised_differences = label_slopes / np.sqrt(within_variance)
        slope_influence = (
            centred_labels
            * (site_centred_values - label_slopes * centred_labels)
            / np.square(centred_labels).sum(0)
            / np.sqrt(within_variance)
        )
        spread_influence = (
            standardised_differences
            * (np.square(within_cell_deviations) / within_variance - person_df)
            / (2 * person_df.sum(0))
        )

    interval_margins = compute_interval_margins(slope_influence - spread_influence, is_measured, people)
    rarer_class_counts = np.minimum(
        (is_measured_control & is_measured).sum(0), (is_measured_autism & is_measured).sum(0)
    )  # (features,)
    interval_margins = np.where(rarer_class_counts < MIN_CLASS_SUBJECTS, np.nan, interval_margins)
    return (
        standardised_differences,
        standardised_differences - interval_margins,
        standardised_differences + interval_margins,
    )


def correlate_values_with_effects(
    feature_values: np.ndarray, autism_logit_effects: np.ndarray, people: BlackoutPeople
) -> EstimatesWithEnds:
    """Correlations within sites of values (people, features) with effects (people, features), by Fisher's z. NaN where
    either is constant; the interval is NaN with fewer than `MIN_CLASS_SUBJECTS` people."""
    site_numbers = encode_names(people.subject_sites)
    is_measured = ~np.isnan(feature_values)
    is_measured &= sum_in_groups(is_measured, site_numbers) > 1
    measured_counts = is_measured.sum(0)  # (features,)
    standardised_values = standardise_within_sites(feature_values, is_measured, site_numbers)
    standardised_effects = standardise_within_sites(autism_logit_effects, is_measured, site_numbers)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = (standardised_values * standardised_effects).sum(0) / measured_counts
        clipped_correlations = np.clip(correlations, -MAX_CORRELATION, MAX_CORRELATION)
        person_influence = (
            standardised_values * standardised_effects
            - clipped_correlations * (np.square(standardised_values) + np.square(standardised_effects)) / 2
        ) / measured_counts
        fisher_z_influence = person_influence / (1 - np.square(clipped_correlations))
        fisher_z_margins = compute_interval_margins(fisher_z_influence, is_measured, people)
    fisher_z_margins[measured_counts < MIN_CLASS_SUBJECTS] = np.nan
    fisher_z = np.arctanh(clipped_correlations)
    return clipped_correlations, np.tanh(fisher_z - fisher_z_margins), np.tanh(fisher_z + fisher_z_margins)


def compute_interval_margins(
    person_influence: np.ndarray, is_measured: np.ndarray, people: BlackoutPeople
) -> np.ndarray:
    """Half the widths (features,) of intervals, from each person's influence (people, features) on an estimate. The
    degrees of freedom are the clusters less the means of sites and a slope; NaN where none is left."""
    cluster_counts = count_measured_groups(is_measured, people.subject_cluster_numbers)
    site_counts = count_measured_groups(is_measured, encode_names(people.subject_sites))
    interval_df = np.where(cluster_counts > site_counts + 1, cluster_counts - site_counts - 1, np.nan)
    cluster_influence = sum_by_group(person_influence, people.subject_cluster_numbers)  # (clusters, features)
    standard_errors = np.sqrt(np.square(cluster_influence).sum(0) * cluster_counts / interval_df)
    return standard_errors * stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, interval_df)


def count_measured_groups(is_measured: np.ndarray, group_numbers: np.ndarray) -> np.ndarray:
    """In how many groups anyone's value is known, (features,)."""
    return (sum_by_group(is_measured.astype(float), group_numbers) > 0).sum(0)


def encode_names(names_by_person: np.ndarray) -> np.ndarray:
    """The number of each name among the sorted ones (people,) int."""
    return np.unique(names_by_person, return_inverse=True)[1]


def sum_in_groups(person_values: np.ndarray, group_numbers: np.ndarray) -> np.ndarray:
    """For each person the sum of values (people, features) over the person's group."""
    return sum_by_group(person_values.astype(float), group_numbers)[group_numbers]


def centre_in_groups(person_values: np.ndarray, is_measured: np.ndarray, group_numbers: np.ndarray) -> np.ndarray:
    """Values (people, features) minus the mean of what is known in the group; 0 where unknown."""
    group_sums = sum_in_groups(np.where(is_measured, person_values, 0), group_numbers)
    group_sizes = sum_in_groups(is_measured, group_numbers)
    group_mean_by_person = group_sums / np.maximum(group_sizes, 1)  # (people, features)
    return np.where(is_measured, person_values - group_mean_by_person, 0)


def find_largest_absolute_values(person_values: np.ndarray) -> np.ndarray:
    """The largest size of values (people, features), (features,)."""
    return np.abs(np.nan_to_num(person_values)).max(0)


def standardise_within_sites(
    person_values: np.ndarray, is_measured: np.ndarray, site_numbers: np.ndarray
) -> np.ndarray:
    """Deviations (people, features) from the mean of the site over their root mean square over the people whose values
    are known; NaN if the values are constant."""
    site_deviations = centre_in_groups(person_values, is_measured, site_numbers)
    min_spreads = MIN_RELATIVE_SPREAD * find_largest_absolute_values(person_values)
    with np.errstate(divide="ignore", invalid="ignore"):
        root_mean_squares = np.sqrt(np.square(site_deviations).sum(0) / is_measured.sum(0))
        return site_deviations / np.where(root_mean_squares > min_spreads, root_mean_squares, np.nan)
